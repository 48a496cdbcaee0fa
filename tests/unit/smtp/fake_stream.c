/* fake_stream.c: the functions of stream.h that the SMTP room calls. */
#include "fake_stream.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of a stream under TLS. */
struct tls_session {
    bool handshaking, report;
    struct tls_state state;
};

static void on_connected(void *user, struct tcp_conn *conn, uint64_t now_us) {
    ((struct stream *)user)->events->connected(user, now_us);
}

static bool takes(const uint8_t **bytes, uint32_t *length, const char *word) {
    uint32_t word_length = (uint32_t)strlen(word);
    if (*length < word_length || memcmp(*bytes, word, word_length) != 0)
        return false;
    *bytes += word_length;
    *length -= word_length;
    return true;
}

/* The server's part of the handshake, in one piece. */
static void shake(struct stream *stream, const uint8_t *bytes, uint32_t length, uint64_t now_us) {
    struct tls_session *tls = stream->tls;
    tls->handshaking = false;
    if (takes(&bytes, &length, FAKE_EXPIRED)) {
        stream->events->insecure(stream, TLS_FAILURE_EXPIRED, "the certificate ended on 2020-01-01", now_us);
        return;
    }
    if (takes(&bytes, &length, FAKE_TLSA)) {
        stream->events->insecure(stream, TLS_FAILURE_TLSA_MISMATCH, NULL, now_us);
        return;
    }
    bool flaw = takes(&bytes, &length, FAKE_FLAW), verified = takes(&bytes, &length, FAKE_VERIFIED);
    if (!flaw && !verified && !takes(&bytes, &length, FAKE_SECURED)) {
        stream->events->insecure(stream, TLS_FAILURE_HANDSHAKE, "the server does not speak TLS", now_us);
        return;
    }
    tls->state = (struct tls_state){.version = 13, .cipher = 0x1301, .verified = verified, .resumed = verified};
    if (flaw && tls->report)
        stream->events->tls_flaw(stream, TLS_FAILURE_HOST_MISMATCH, "the certificate is for other.test", now_us);
    stream->events->secured(stream, now_us);
    if (length)
        stream->events->received(stream, bytes, length, now_us);
}

static uint32_t on_received(void *user, struct tcp_conn *conn, const uint8_t *bytes, uint32_t length, uint64_t now_us) {
    struct stream *stream = user;
    if (stream->tls && stream->tls->handshaking)
        shake(stream, bytes, length, now_us);
    else
        stream->events->received(stream, bytes, length, now_us);
    return length;
}

static void on_peer_closed(void *user, struct tcp_conn *conn, uint64_t now_us) {
    ((struct stream *)user)->events->peer_closed(user, now_us);
}

static void on_acknowledged(void *user, struct tcp_conn *conn, uint32_t bytes, uint64_t now_us) {
    ((struct stream *)user)->events->acknowledged(user, now_us);
}

static void on_closed(void *user, struct tcp_conn *conn, enum tcp_error error, uint64_t now_us) {
    struct stream *stream = user;
    struct tls_session *tls = stream->tls;
    stream->events->closed(stream, error, now_us);
    free(tls);
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
    stream->tls = NULL;
    return tcp_connect(stack, local, remote, port, timeout_us, stream, &stream->conn, now_us);
}

static void copy_peer(struct tls_worker *worker, const struct tls_peer *peer) {
    worker->peer = *peer;
    snprintf(worker->name, sizeof(worker->name), "%s", peer->name ? peer->name : "");
    worker->peer.name = worker->name;
    if (peer->names) {
        const char *end = peer->names;
        while (*end)
            end += strlen(end) + 1;
        assert((size_t)(end + 1 - peer->names) <= sizeof(worker->names));
        memcpy(worker->names, peer->names, (size_t)(end + 1 - peer->names));
        worker->peer.names = worker->names;
    }
    assert(peer->tlsa_count <= PATH_TLSA_MAX);
    if (peer->tlsa_count)
        memcpy(worker->tlsa, peer->tlsa, peer->tlsa_count * sizeof(worker->tlsa[0]));
    worker->peer.tlsa = worker->tlsa;
}

int stream_secure(struct stream *stream, struct tls_worker *worker, const struct tls_peer *peer, uint64_t now_us) {
    static const char hello[] = "\x16hello\r\n";
    assert(worker && !stream->tls);
    if (worker->errors) {
        worker->errors--;
        return worker->error;
    }
    copy_peer(worker, peer);
    worker->handshakes++;
    stream->tls = calloc(1, sizeof(*stream->tls));
    assert(stream->tls);
    stream->tls->handshaking = true;
    stream->tls->report = peer->report;
    struct tcp_piece piece = {.bytes = (const uint8_t *)hello, .length = sizeof(hello) - 1};
    int error = tcp_send(stream->conn, &piece, 1, now_us);
    assert(error == 0);
    return 0;
}

void stream_tls(const struct stream *stream, struct tls_state *state) {
    *state = stream->tls ? stream->tls->state : (struct tls_state){0};
}

int stream_send(struct stream *stream, const struct tcp_piece *pieces, uint32_t count, uint64_t now_us) {
    assert(!stream->tls || !stream->tls->handshaking);
    return tcp_send(stream->conn, pieces, count, now_us);
}
void stream_flush(struct stream *stream, uint64_t now_us) {
    tcp_output(stream->conn, now_us);
}
bool stream_is_open(const struct stream *stream) {
    return tcp_is_open(stream->conn);
}
uint32_t stream_unsent(const struct stream *stream) {
    return tcp_unsent(stream->conn);
}
uint32_t stream_unacknowledged(const struct stream *stream) {
    return tcp_unacknowledged(stream->conn);
}
void stream_close(struct stream *stream, uint64_t now_us) {
    tcp_close(stream->conn, now_us);
}
void stream_abort(struct stream *stream, uint64_t now_us) {
    tcp_abort(stream->conn, now_us);
}
