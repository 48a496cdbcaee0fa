/* records.c: bytes through a session both ways: wolfSSL between what TCP gives and what it takes. */
#include "tls_private.h"

#include <errno.h>
#include <string.h>

enum { FLIGHT_BYTES = 2048, FLIGHT_BYTES_MAX = 1 << 18, TICKET_BYTES_MIN = 32 };

static void block_released(struct tcp_owner *owner) {
    struct tls_block *block = (struct tls_block *)owner;
    tls_heap_give(&block->worker->heap, block);
}

struct tls_block *tls_block_new(struct tls_worker *worker, uint32_t capacity) {
    struct tls_block *block = tls_heap_take(&worker->heap, sizeof(*block) + capacity);
    if (block == NULL)
        return NULL;
    block->owner = (struct tcp_owner){.references = 1, .release = block_released};
    block->worker = worker;
    block->length = 0;
    block->capacity = capacity;
    return block;
}

void tls_block_free(struct tls_block *block) {
    if (--block->owner.references == 0)
        block->owner.release(&block->owner);
}

int tls_on_read(WOLFSSL *ssl, char *bytes, int length, void *user) {
    struct tls_session *session = user;
    (void)ssl;
    uint32_t count = (uint32_t)length < session->in_length ? (uint32_t)length : session->in_length;
    if (count == 0)
        return WOLFSSL_CBIO_ERR_WANT_READ;
    memcpy(bytes, session->in, count);
    session->in += count;
    session->in_length -= count;
    return (int)count;
}

/* Takes everything, so that wolfSSL never has to repeat a write. */
int tls_on_write(WOLFSSL *ssl, char *bytes, int length, void *user) {
    struct tls_session *session = user;
    struct tls_block *block = session->out;
    (void)ssl;
    uint32_t had = block != NULL ? block->length : 0, wanted = had + (uint32_t)length;
    if (block == NULL || wanted > block->capacity) {
        uint32_t capacity = FLIGHT_BYTES;
        while (capacity < wanted && capacity < FLIGHT_BYTES_MAX)
            capacity *= 2;
        struct tls_block *larger = wanted > FLIGHT_BYTES_MAX ? NULL : tls_block_new(session->worker, capacity);
        if (larger == NULL)
            return WOLFSSL_CBIO_ERR_GENERAL;
        if (block != NULL) {
            memcpy(larger->bytes, block->bytes, had);
            tls_block_free(block);
        }
        session->out = block = larger;
    }
    memcpy(block->bytes + had, bytes, (size_t)length);
    block->length = wanted;
    return length;
}

void tls_session_take_turn(struct tls_session *session) {
    if (session->takes_turn)
        return;
    session->takes_turn = true;
    TAILQ_INSERT_TAIL(&session->worker->turns, session, turn);
}

static void take_leave(struct tls_session *session) {
    if (session->leaves)
        return;
    session->leaves = true;
    TAILQ_INSERT_TAIL(&session->worker->leaving, session, leave);
}

/* Gives TCP what waits, in order. False: some still waits. */
static bool send_waiting(struct tls_session *session, uint64_t now_us) {
    struct tls_block *block;
    while ((block = STAILQ_FIRST(&session->waiting)) != NULL) {
        const struct tcp_piece piece = {.bytes = block->bytes, .length = block->length, .owner = &block->owner};
        int error = tcp_send(session->stream->conn, &piece, 1, now_us);
        if (error == -ENOBUFS)
            return false;
        STAILQ_REMOVE_HEAD(&session->waiting, next);
        session->waiting_bytes -= block->length;
        session->refused = session->refused || error != 0;
        tls_block_free(block); /* TCP holds its own reference; after -EPIPE nobody does */
    }
    return true;
}

void tls_session_dispatch(struct tls_session *session, uint64_t now_us) {
    struct tls_block *block = session->out;
    session->out = NULL;
    if (block == NULL)
        return;
    if (block->length == 0) {
        tls_block_free(block);
        return;
    }
    STAILQ_INSERT_TAIL(&session->waiting, block, next);
    session->waiting_bytes += block->length;
    send_waiting(session, now_us);
    take_leave(session);
}

/* A record that is not what it should be, or an alert: the alert goes out, then the connection is reset. */
static void break_off(struct tls_session *session) {
    tls_session_enter(session, TLS_BROKEN);
    take_leave(session);
}

static void tell_end(struct tls_session *session, uint64_t now_us) {
    if (session->end_told)
        return;
    session->end_told = true;
    session->stream->events->peer_closed(session->stream, now_us);
}

uint32_t tls_session_ticket(struct tls_session *session, uint32_t *length) {
    struct tls_worker *worker = session->worker;
    word32 bytes = sizeof(worker->gathered);
    uint32_t mark = 2166136261u; /* FNV-1a */
    if (wolfSSL_get_SessionTicket(session->ssl, worker->gathered, &bytes) != WOLFSSL_SUCCESS)
        bytes = 0;
    for (uint32_t i = 0; i < bytes; i++)
        mark = (mark ^ worker->gathered[i]) * 16777619u;
    *length = bytes;
    return mark;
}

void tls_session_keep(struct tls_session *session, uint64_t now_us) {
    uint32_t length, mark = tls_session_ticket(session, &length);
    if (session->state.version == 13 && length < TICKET_BYTES_MIN)
        return; /* wolfSSL makes a session ID of a ticket's last 32 bytes, without looking whether there are so many */
    if (mark == session->ticket_mark)
        return; /* kept already; or the one that was offered, whose secret has gone */
    session->ticket_mark = mark;
    tls_store_keep(session->worker, session->key, session->ssl, session->made_us, session->state.verified, session->state.flaw);
}

void tls_session_read(struct tls_session *session, uint64_t now_us) {
    struct tls_worker *worker = session->worker;
    struct stream *stream = session->stream;
    while (session->phase == TLS_OPEN || session->phase == TLS_CLOSING) {
        int count = wolfSSL_read(session->ssl, worker->plain, sizeof(worker->plain));
        int error = count > 0 ? 0 : wolfSSL_get_error(session->ssl, count);
        tls_clean_vectors();
        if (session->out != NULL) {
            tls_session_dispatch(session, now_us);
            if (++session->answers > TLS_ANSWERS_MAX)
                error = WOLFSSL_FATAL_ERROR;
        }
        if (session->client && session->looks < TLS_KEEP_LOOKS && session->phase == TLS_OPEN && session->state.version == 13) {
            session->looks++;
            tls_session_keep(session, now_us);
        }
        if (error == WOLFSSL_ERROR_WANT_READ)
            return;
        if (error == WOLFSSL_ERROR_ZERO_RETURN) {
            session->in_length = 0;
            tell_end(session, now_us);
            return;
        }
        if (error != 0) {
            break_off(session);
            return;
        }
        if (!session->end_told)
            stream->events->received(stream, worker->plain, (uint32_t)count, now_us);
    }
}

uint32_t tls_session_received(struct tls_session *session, const uint8_t *bytes, uint32_t length, uint64_t now_us) {
    struct tls_worker *worker = session->worker;
    worker->now_us = now_us;
    bool shaking = session->phase == TLS_HELLO || session->phase == TLS_HANDSHAKE;
    if (shaking && (session->phase == TLS_HELLO || worker->steps_left == 0)) {
        session->held = true;
        tls_session_take_turn(session);
        return 0; /* TCP keeps them until the turn comes */
    }
    if ((!shaking && session->phase != TLS_OPEN && session->phase != TLS_CLOSING) || session->end_told)
        return length;
    session->held = false;
    struct tls_worker *before = tls_enter(worker);
    session->in = bytes;
    session->in_length = length;
    if (shaking) {
        worker->steps_left--;
        tls_session_shake(session, now_us);
    }
    tls_session_read(session, now_us);
    session->in = NULL;
    session->in_length = 0;
    tls_leave(before);
    return length;
}

void tls_session_peer_closed(struct tls_session *session, uint64_t now_us) {
    session->worker->now_us = now_us;
    if (session->phase == TLS_HELLO || session->phase == TLS_HANDSHAKE) {
        struct tls_worker *before = tls_enter(session->worker);
        session->end_told = true;
        tls_session_fail(session, TLS_FAILURE_HANDSHAKE, "the peer ended the connection in the TLS handshake", now_us);
        tls_leave(before);
    } else if (session->phase != TLS_BROKEN) {
        tell_end(session, now_us);
    }
}

void tls_session_acknowledged(struct tls_session *session, uint32_t bytes, uint64_t now_us) {
    struct stream *stream = session->stream;
    if (session->acknowledged_bytes < TLS_WINDOW_OPEN_BYTES)
        session->acknowledged_bytes += bytes < TLS_WINDOW_OPEN_BYTES ? bytes : TLS_WINDOW_OPEN_BYTES;
    if (session->waiting_bytes > 0)
        send_waiting(session, now_us);
    if (session->phase == TLS_OPEN || session->phase == TLS_CLOSING)
        stream->events->acknowledged(stream, now_us);
}

int tls_session_send(struct tls_session *session, const struct tcp_piece *pieces, uint32_t count, uint64_t now_us) {
    struct tls_worker *worker = session->worker;
    uint32_t total = 0;
    for (uint32_t i = 0; i < count; i++)
        total += pieces[i].length;
    if (session->phase == TLS_HELLO || session->phase == TLS_HANDSHAKE)
        return -ENOBUFS;
    if (session->phase != TLS_OPEN || session->gone)
        return -EPIPE;
    if (!send_waiting(session, now_us))
        return -ENOBUFS;
    if (session->refused)
        return -EPIPE;
    uint32_t record = session->acknowledged_bytes < TLS_WINDOW_OPEN_BYTES ? TLS_RECORD_FIRST_BYTES : TLS_RECORD_MAX_BYTES;
    struct tls_worker *before = tls_enter(worker);
    worker->now_us = now_us;
    /* All the memory first: what was encrypted once must go out. */
    session->out = tls_block_new(worker, total + (total / record + 1) * TLS_RECORD_OVERHEAD_BYTES);
    int error = session->out == NULL ? -ENOBUFS : 0;
    uint32_t piece = 0, offset = 0;
    while (error == 0 && total > 0) {
        uint32_t wanted = total < record ? total : record, length = 0;
        const uint8_t *bytes = worker->gathered;
        if (pieces[piece].length - offset >= wanted) { /* whole, where it lies */
            bytes = pieces[piece].bytes + offset;
            offset += wanted;
            length = wanted;
        }
        while (length < wanted) {
            uint32_t some = pieces[piece].length - offset;
            some = some < wanted - length ? some : wanted - length;
            memcpy(worker->gathered + length, pieces[piece].bytes + offset, some);
            length += some;
            offset += some;
            if (offset == pieces[piece].length) {
                piece++;
                offset = 0;
            }
        }
        if (piece < count && offset == pieces[piece].length) {
            piece++;
            offset = 0;
        }
        total -= wanted;
        if (wolfSSL_write(session->ssl, bytes, (int)wanted) != (int)wanted) {
            break_off(session);
            error = -EPIPE;
        }
    }
    tls_session_dispatch(session, now_us);
    tls_leave(before);
    return error == 0 && session->refused ? -EPIPE : error;
}

bool tls_session_is_open(const struct tls_session *session) {
    return session->phase <= TLS_OPEN && !session->end_told && !session->gone;
}

void tls_session_leave(struct tls_session *session, uint64_t now_us) {
    struct tcp_conn *conn = session->stream->conn;
    bool sent = send_waiting(session, now_us);
    if (session->phase == TLS_BROKEN) {
        tcp_output(conn, now_us);
        tcp_abort(conn, now_us);
        return;
    }
    if (sent && session->close_wanted) {
        session->close_wanted = false;
        tcp_close(conn, now_us);
    }
    tcp_output(conn, now_us);
    if (!sent)
        take_leave(session); /* TCP's pool was empty: another try in the next pass */
}

void tls_session_flush(struct tls_session *session, uint64_t now_us) {
    struct tls_worker *worker = session->worker;
    if (session->gone)
        return;
    if (session->phase == TLS_HELLO && worker->steps_left > 0) {
        worker->now_us = now_us;
        struct tls_worker *before = tls_enter(worker);
        worker->steps_left--;
        int result = wolfSSL_connect(session->ssl);
        /* A failure shows again in this session's turn, which may tell it. */
        if (wolfSSL_get_error(session->ssl, result) != WOLFSSL_ERROR_WANT_READ) {
            tls_session_take_turn(session);
        } else {
            tls_session_enter(session, TLS_HANDSHAKE);
            if (session->takes_turn)
                TAILQ_REMOVE(&worker->turns, session, turn);
            session->takes_turn = false;
        }
        tls_session_dispatch(session, now_us);
        tls_leave(before);
    }
    if (session->phase != TLS_BROKEN) {
        send_waiting(session, now_us);
        tcp_output(session->stream->conn, now_us);
    }
}

void tls_session_close(struct tls_session *session, uint64_t now_us) {
    if (session->gone)
        return;
    if (session->phase == TLS_OPEN) {
        struct tls_worker *before = tls_enter(session->worker);
        session->worker->now_us = now_us;
        wolfSSL_shutdown(session->ssl);
        tls_session_enter(session, TLS_CLOSING);
        tls_session_dispatch(session, now_us);
        tls_leave(before);
    } else if (session->phase != TLS_BROKEN) {
        tls_session_enter(session, session->phase == TLS_CLOSING ? TLS_CLOSING : TLS_FAILED);
    }
    if (session->phase == TLS_BROKEN)
        return; /* its reset is on its way */
    if (send_waiting(session, now_us)) {
        tcp_close(session->stream->conn, now_us);
    } else {
        session->close_wanted = true;
        take_leave(session);
    }
}

void tls_session_abort(struct tls_session *session, uint64_t now_us) {
    if (session->gone)
        return;
    if (session->phase != TLS_CLOSING)
        tls_session_enter(session, TLS_FAILED);
    tcp_abort(session->stream->conn, now_us);
}

void tls_session_closed(struct tls_session *session, enum tcp_error error, uint64_t now_us) {
    struct stream *stream = session->stream;
    struct tls_worker *worker = session->worker, *before = tls_enter(worker);
    worker->now_us = now_us;
    session->gone = true;
    if (session->phase == TLS_HELLO || session->phase == TLS_HANDSHAKE)
        tls_session_fail(session, error == TCP_TIMED_OUT ? TLS_FAILURE_TIMEOUT : TLS_FAILURE_HANDSHAKE,
                         error == TCP_TIMED_OUT ? "the peer no longer answered in the TLS handshake"
                                                : "the connection was reset in the TLS handshake",
                         now_us);
    stream->events->closed(stream, session->phase == TLS_BROKEN ? TCP_RESET : error, now_us);
    /* The owner may have given the stream's memory to another. */
    tls_session_free(session);
    tls_leave(before);
}

void tls_session_turn(struct tls_session *session, uint64_t now_us) {
    struct tls_worker *worker = session->worker;
    if (session->phase == TLS_HELLO) {
        struct tls_worker *before = tls_enter(worker);
        worker->steps_left--;
        tls_session_shake(session, now_us);
        if (session->held && session->phase == TLS_HANDSHAKE)
            tls_session_take_turn(session);
        tls_leave(before);
        return;
    }
    session->held = false;
    tcp_receive_resume(session->stream->conn, now_us);
}

bool tls_worker_poll(struct tls_worker *worker, uint64_t now_us) {
    struct tls_session *session;
    worker->now_us = now_us;
    worker->steps_left = TLS_STEP_PACKETS_MAX;
    while (worker->steps_left > 0 && (session = TAILQ_FIRST(&worker->turns)) != NULL) {
        TAILQ_REMOVE(&worker->turns, session, turn);
        session->takes_turn = false;
        tls_session_turn(session, now_us);
    }
    /* What cannot leave now joins the end again: not in this pass. */
    struct tls_session *last = TAILQ_LAST(&worker->leaving, tls_leaving);
    for (uint32_t i = 0; i < TLS_FLUSHES_A_PASS && (session = TAILQ_FIRST(&worker->leaving)) != NULL; i++) {
        TAILQ_REMOVE(&worker->leaving, session, leave);
        session->leaves = false;
        tls_session_leave(session, now_us);
        if (session == last)
            break;
    }
    return !TAILQ_EMPTY(&worker->turns);
}
