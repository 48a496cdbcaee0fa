/* stream.h: what an SMTP session talks to: ordered bytes each way, plain over TCP. The session knows only this seam, so that a TLS stream
 * can take the place of the plain one without a change above it. */
#ifndef DATAPLANE_TLS_STREAM_H
#define DATAPLANE_TLS_STREAM_H

#include "dataplane/tcp/tcp.h"
#include <stdbool.h>
#include <stdint.h>

struct stream;

/* What the owner of a stream hears. Any of these may call stream_send, stream_close and stream_abort of that stream. `closed` comes exactly
 * once for each opened stream and never from inside a call of this header; stream_unsent still tells then what never left, and afterwards
 * the stream is forgotten. */
struct stream_events {
    void (*connected)(struct stream *stream, uint64_t now_us);
    void (*received)(struct stream *stream, const uint8_t *bytes, uint32_t length, uint64_t now_us); /* all of it is consumed */
    void (*peer_closed)(struct stream *stream, uint64_t now_us);
    void (*acknowledged)(struct stream *stream, uint64_t now_us); /* the queue of unacknowledged bytes shrank */
    void (*closed)(struct stream *stream, enum tcp_error error, uint64_t now_us);
};

/* Lives inside its owner's record. */
struct stream {
    struct tcp_conn *conn;
    const struct stream_events *events;
};

/* Fills what a TCP stack must call for the connections of streams. */
void stream_tcp_events(struct tcp_events *events);

/* Connects within `timeout_us` (see tcp_connect for the errors); `events` must outlive the stream. Bytes that are not acknowledged for
 * `stall_us` end it (tcp_set_user_timeout). */
int stream_open(struct stream *stream, const struct stream_events *events, struct tcp_stack *stack, const struct tcp_address *local,
                const struct tcp_address *remote, uint16_t port, uint64_t timeout_us, uint64_t stall_us, uint64_t now_us);
/* Queues pieces, all or none; owners as in tcp_send. 0, -ENOBUFS (try again later) or -EPIPE. */
int stream_send(struct stream *stream, const struct tcp_piece *pieces, uint32_t count, uint64_t now_us);
/* Lets what is queued leave. Not from inside an event. */
void stream_flush(struct stream *stream, uint64_t now_us);
/* Connected, and neither side has ended or reset it, as far as is known: `closed` may be on its way. */
bool stream_is_open(const struct stream *stream);
/* Bytes queued that never left, and bytes not yet acknowledged (which include them). */
uint32_t stream_unsent(const struct stream *stream);
uint32_t stream_unacknowledged(const struct stream *stream);
/* Ends our direction after what is queued. */
void stream_close(struct stream *stream, uint64_t now_us);
/* Ends it at once; what is queued never leaves. */
void stream_abort(struct stream *stream, uint64_t now_us);

#endif
