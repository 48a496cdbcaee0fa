/* stream.c: a plain stream hands everything through to TCP; one with a TLS session goes by records.c. */
#include "dataplane/tls/stream.h"
#include "tls_private.h"

#include <errno.h>
#include <stddef.h>

static void on_connected(void *user, struct tcp_conn *conn, uint64_t now_us) {
    struct stream *stream = user;
    stream->events->connected(stream, now_us);
}

static uint32_t on_received(void *user, struct tcp_conn *conn, const uint8_t *bytes, uint32_t length, uint64_t now_us) {
    struct stream *stream = user;
    if (stream->tls != NULL)
        return tls_session_received(stream->tls, bytes, length, now_us);
    stream->events->received(stream, bytes, length, now_us);
    return length;
}

static void on_peer_closed(void *user, struct tcp_conn *conn, uint64_t now_us) {
    struct stream *stream = user;
    if (stream->tls != NULL)
        tls_session_peer_closed(stream->tls, now_us);
    else
        stream->events->peer_closed(stream, now_us);
}

static void on_acknowledged(void *user, struct tcp_conn *conn, uint32_t bytes, uint64_t now_us) {
    struct stream *stream = user;
    if (stream->tls != NULL)
        tls_session_acknowledged(stream->tls, bytes, now_us);
    else
        stream->events->acknowledged(stream, now_us);
}

static void on_closed(void *user, struct tcp_conn *conn, enum tcp_error error, uint64_t now_us) {
    struct stream *stream = user;
    if (stream->tls != NULL)
        tls_session_closed(stream->tls, error, now_us);
    else
        stream->events->closed(stream, error, now_us);
}

void stream_tcp_events(struct tcp_events *events) {
    *events = (struct tcp_events){.connected = on_connected,
                                  .received = on_received,
                                  .peer_closed = on_peer_closed,
                                  .acknowledged = on_acknowledged,
                                  .closed = on_closed};
}

int stream_open(struct stream *stream, const struct stream_events *events, struct tcp_stack *stack, const struct tcp_address *local,
                const struct tcp_address *remote, uint16_t port, uint64_t timeout_us, uint64_t stall_us, uint64_t now_us) {
    stream->events = events;
    stream->conn = NULL;
    stream->tls = NULL;
    int error = tcp_connect(stack, local, remote, port, timeout_us, stream, &stream->conn, now_us);
    if (error == 0)
        tcp_set_user_timeout(stream->conn, stall_us);
    return error;
}

void stream_accept(struct stream *stream, const struct stream_events *events, struct tcp_conn *conn) {
    stream->events = events;
    stream->conn = conn;
    stream->tls = NULL;
}

int stream_secure(struct stream *stream, struct tls_worker *worker, const struct tls_peer *peer, uint64_t now_us) {
    if (worker == NULL)
        return -EINVAL;
    struct tls_worker *before = tls_enter(worker);
    int error = tls_session_begin(stream, worker, peer, now_us);
    tls_leave(before);
    return error;
}

void stream_tls(const struct stream *stream, struct tls_state *state) {
    *state = stream->tls != NULL ? stream->tls->state : (struct tls_state){0};
    if (stream->tls != NULL && state->version == 0)
        *state = (struct tls_state){0}; /* not before the handshake is over */
}

int stream_send(struct stream *stream, const struct tcp_piece *pieces, uint32_t count, uint64_t now_us) {
    return stream->tls != NULL ? tls_session_send(stream->tls, pieces, count, now_us) : tcp_send(stream->conn, pieces, count, now_us);
}

void stream_flush(struct stream *stream, uint64_t now_us) {
    if (stream->tls != NULL)
        tls_session_flush(stream->tls, now_us);
    else
        tcp_output(stream->conn, now_us);
}

bool stream_is_open(const struct stream *stream) {
    return tcp_is_open(stream->conn) && (stream->tls == NULL || tls_session_is_open(stream->tls));
}

uint32_t stream_unsent(const struct stream *stream) {
    return tcp_unsent(stream->conn) + (stream->tls != NULL ? stream->tls->waiting_bytes : 0);
}

uint32_t stream_unacknowledged(const struct stream *stream) {
    return tcp_unacknowledged(stream->conn) + (stream->tls != NULL ? stream->tls->waiting_bytes : 0);
}

void stream_close(struct stream *stream, uint64_t now_us) {
    if (stream->tls != NULL)
        tls_session_close(stream->tls, now_us);
    else
        tcp_close(stream->conn, now_us);
}

void stream_abort(struct stream *stream, uint64_t now_us) {
    if (stream->tls != NULL)
        tls_session_abort(stream->tls, now_us);
    else
        tcp_abort(stream->conn, now_us);
}
