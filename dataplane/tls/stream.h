/* stream.h: what an SMTP session talks to: ordered bytes each way, plain over TCP or within TLS. Every stream begins plain; stream_secure
 * puts TLS between at any later moment, and nothing above changes. */
#ifndef DATAPLANE_TLS_STREAM_H
#define DATAPLANE_TLS_STREAM_H

#include "dataplane/tcp/tcp.h"
#include "dataplane/tls/tls.h"
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
    /* The handshake that stream_secure began is over: bytes go both ways again. */
    void (*secured)(struct stream *stream, uint64_t now_us);
    /* It failed, or the certificate was not good enough; the alert is queued. Nothing but stream_close and stream_abort may follow: mail
     * never goes on in plain on that connection. `why` is a sentence without secrets, valid during the call. */
    void (*insecure)(struct stream *stream, enum tls_failure failure, const char *why, uint64_t now_us);
    /* tls_peer.report: what VERIFY would have refused. `secured` follows. May be NULL. */
    void (*tls_flaw)(struct stream *stream, enum tls_failure failure, const char *why, uint64_t now_us);
};

/* Lives inside its owner's record. */
struct stream {
    struct tcp_conn *conn;
    const struct stream_events *events;
    struct tls_session *tls; /* this room's; NULL: plain */
};

/* Fills what a TCP stack must call for the connections of streams. */
void stream_tcp_events(struct tcp_events *events);

/* Connects within `timeout_us` (see tcp_connect for the errors); `events` must outlive the stream. Bytes that are not acknowledged for
 * `stall_us` end it (tcp_set_user_timeout). */
int stream_open(struct stream *stream, const struct stream_events *events, struct tcp_stack *stack, const struct tcp_address *local,
                const struct tcp_address *remote, uint16_t port, uint64_t timeout_us, uint64_t stall_us, uint64_t now_us);
/* The same for a connection that a listener accepted (bypost-sink): from tcp_events.accepted. */
void stream_accept(struct stream *stream, const struct stream_events *events, struct tcp_conn *conn);
/* Begins the client's handshake (`peer`), or the server's (`peer` NULL): the hello leaves with the next flush. What was queued before goes
 * out in plain; what comes from here on is TLS. The caller has made sure that no plaintext was left over (RFC 3207 section 6). 0; -ENOBUFS
 * (out of sessions or memory: try again); -EINVAL (VERIFY without a name, DANE without records, an identity that was not loaded).
 * `secured` or `insecure` follows, never from inside this call. */
int stream_secure(struct stream *stream, struct tls_worker *worker, const struct tls_peer *peer, uint64_t now_us);
void stream_tls(const struct stream *stream, struct tls_state *state);
/* Queues pieces, all or none; within TLS they are encrypted here, so that their owners are free again when it returns; owners as in
 * tcp_send. 0, -ENOBUFS (try again later) or -EPIPE. */
int stream_send(struct stream *stream, const struct tcp_piece *pieces, uint32_t count, uint64_t now_us);
/* Lets what is queued leave. Not from inside an event. */
void stream_flush(struct stream *stream, uint64_t now_us);
/* Connected, and neither side has ended or reset it, as far as is known: `closed` may be on its way. */
bool stream_is_open(const struct stream *stream);
/* Bytes queued that never left, and bytes not yet acknowledged (which include them). */
uint32_t stream_unsent(const struct stream *stream);
uint32_t stream_unacknowledged(const struct stream *stream);
/* Ends our direction after what is queued; within TLS behind a close_notify. A peer's FIN without its close_notify is an end like any
 * other: SMTP says itself where messages end. */
void stream_close(struct stream *stream, uint64_t now_us);
/* Ends it at once; what is queued never leaves. */
void stream_abort(struct stream *stream, uint64_t now_us);

#endif
