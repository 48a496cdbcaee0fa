/* dialogue.c: who says what in each state of a session, who hears the reply, and what the stream tells. */
#include "dialogue.h"

#include "endpoint.h"
#include "engine.h"
#include "phase.h"
#include "transaction.h"

#include <errno.h>
#include <string.h>

/* ---- saying ---- */

int session_send_text(struct smtp_session *session, const char *text, uint64_t now_us) {
    struct tcp_piece piece = {.bytes = (const uint8_t *)text, .length = (uint32_t)strlen(text)};
    return stream_send(&session->stream, &piece, 1, now_us);
}

void session_say(struct smtp_session *session, uint64_t now_us) {
    int error = 0;
    switch ((enum session_state)session->state) {
    case SESSION_EHLO:
    case SESSION_HELO:
        error = greeting_say(session, now_us);
        break;
    case SESSION_RSET: /* before a transaction that follows another it is said with that */
        error = session->order ? transaction_say(session, now_us) : session_send_text(session, "RSET\r\n", now_us);
        break;
    case SESSION_QUIT:
        error = session_send_text(session, "QUIT\r\n", now_us);
        break;
    case SESSION_MAIL:
    case SESSION_RCPT:
    case SESSION_DATA:
    case SESSION_BODY:
    case SESSION_FINAL:
        error = transaction_say(session, now_us);
        break;
    case SESSION_STARTTLS:
    case SESSION_HANDSHAKE:
        error = starttls_say(session, now_us);
        break;
    case SESSION_AUTH:
        error = auth_say(session, now_us);
        break;
    case SESSION_CONNECTING:
    case SESSION_BANNER:
    case SESSION_READY:
    case SESSION_LEAVING:
    case SESSION_GONE:
    case SESSION_STATES:
        break;
    }
    if (error == -ENOBUFS) {
        session->lane->engine->refusals++;
        session_put_to_work(session, SESSION_BLOCKED);
    } else if (error && session->state != SESSION_GONE) {
        session_failed(session, TCP_ABORTED, "the connection takes no more bytes", now_us);
        session_abort(session, now_us);
    } else if (session->state != SESSION_GONE) {
        session_put_to_work(session, SESSION_UNFLUSHED);
    }
}

void session_work(struct smtp_session *session, uint64_t now_us) {
    uint8_t flags = session->flags;
    session->flags &= (uint8_t) ~(SESSION_UNFLUSHED | SESSION_BLOCKED);
    stream_flush(&session->stream, now_us); /* a part may be queued even when the rest had no room */
    if (!(flags & SESSION_BLOCKED))
        return;
    if (session->lane->engine->refusals < ENGINE_REFUSALS_MAX)
        session_say(session, now_us);
    else
        session_put_to_work(session, SESSION_BLOCKED);
    if (session->flags & SESSION_UNFLUSHED && !(session->flags & SESSION_BLOCKED)) {
        session_stop_work(session);
        stream_flush(&session->stream, now_us);
    }
}

void session_say_later(struct smtp_session *session) {
    session_put_to_work(session, SESSION_BLOCKED);
}

/* ---- hearing ---- */

/* Garbage for an answer to STARTTLS. */
static void lose_tls(struct smtp_session *session, const char *text, uint64_t now_us) {
    starttls_lost(session, TCP_OK, text, now_us);
    session_abort(session, now_us);
}

/* A reply that nothing asked for. While nothing is open, 421 is the polite form of it. */
static void take_unasked(struct smtp_session *session, const struct reply *reply, uint64_t now_us) {
    if (session->state == SESSION_READY && reply->code == 421) {
        session_post(session, PATH_EVENT_SHUTDOWN_REPLY, 0, reply, NULL, now_us);
        if (!session->transactions)
            lane_endpoint_failed(session->lane, session->endpoint, now_us);
        session_await_fin(session, now_us);
        return;
    }
    session_protocol_error(session, reply, NULL, now_us);
}

/* `more`: bytes lie behind it. */
static void take_reply(struct smtp_session *session, const struct reply *reply, bool more, uint64_t now_us) {
    /* What it would answer has not left yet. It may have, before the work list came to it: behind the last bytes of a handshake. */
    bool early = session->flags & SESSION_BLOCKED || (session->flags & SESSION_UNFLUSHED && stream_unsent(&session->stream));
    switch ((enum session_state)session->state) {
    case SESSION_BANNER:
        greeting_take_banner(session, reply, now_us);
        break;
    case SESSION_EHLO:
    case SESSION_HELO:
        if (early)
            take_unasked(session, reply, now_us);
        else
            greeting_take_hello(session, reply, now_us);
        break;
    case SESSION_STARTTLS:
        if (early)
            take_unasked(session, reply, now_us);
        else
            starttls_take(session, reply, more, now_us);
        break;
    case SESSION_AUTH:
        if (early)
            take_unasked(session, reply, now_us);
        else
            auth_take(session, reply, now_us);
        break;
    case SESSION_READY:
        take_unasked(session, reply, now_us);
        break;
    case SESSION_MAIL:
    case SESSION_RCPT:
    case SESSION_DATA:
    case SESSION_BODY:
    case SESSION_FINAL:
    case SESSION_RSET:
        if (transaction_is_early(session) && reply->code != 421 && session->state != SESSION_BODY && session->state != SESSION_FINAL)
            take_unasked(session, reply, now_us);
        else
            transaction_take(session, reply, now_us);
        break;
    case SESSION_QUIT:
        session_await_fin(session, now_us);
        break;
    case SESSION_CONNECTING:
    case SESSION_HANDSHAKE:
    case SESSION_LEAVING:
    case SESSION_GONE:
    case SESSION_STATES:
        break;
    }
}

/* ---- what the stream tells ---- */

static void on_connected(struct stream *stream, uint64_t now_us) {
    struct smtp_session *session = (struct smtp_session *)stream;
    session->connected_us = now_us;
    if (session->lane->path.flags & PATH_IMPLICIT_TLS) {
        session_enter(session, SESSION_HANDSHAKE, now_us);
        session_say_later(session);
    } else {
        session_enter(session, SESSION_BANNER, now_us);
    }
}

static void on_secured(struct stream *stream, uint64_t now_us) {
    starttls_secured((struct smtp_session *)stream, now_us);
}

static void on_insecure(struct stream *stream, enum tls_failure failure, const char *why, uint64_t now_us) {
    starttls_insecure((struct smtp_session *)stream, failure, why, now_us);
}

static void on_tls_flaw(struct stream *stream, enum tls_failure failure, const char *why, uint64_t now_us) {
    starttls_flaw((struct smtp_session *)stream, failure, why, now_us);
}

static void on_received(struct stream *stream, const uint8_t *bytes, uint32_t length, uint64_t now_us) {
    struct smtp_session *session = (struct smtp_session *)stream;
    struct pool *replies = &session->lane->engine->replies;
    while (length && session->state < SESSION_LEAVING) {
        if (session->state == SESSION_HANDSHAKE) {
            starttls_injected(session, now_us);
            return;
        }
        if (!session->reply) {
            session->reply = pool_take(replies);
            assert(session->reply); /* there are as many as sessions */
            reply_begin(session->reply, session->state == SESSION_EHLO ? &session->capabilities : NULL);
        }
        uint32_t consumed;
        enum reply_status status = reply_take(session->reply, bytes, length, &consumed);
        bytes += consumed;
        length -= consumed;
        if (status == REPLY_MORE)
            return;
        if (status == REPLY_DONE)
            take_reply(session, session->reply, length > 0, now_us);
        else if (session->state == SESSION_QUIT)
            session_await_fin(session, now_us);
        else if (session->state == SESSION_STARTTLS)
            lose_tls(session, reply_fault_text(session->reply->fault), now_us);
        else
            session_protocol_error(session, NULL, reply_fault_text(session->reply->fault), now_us);
        session_drop_reply(session);
    }
}

static void on_peer_closed(struct stream *stream, uint64_t now_us) {
    struct smtp_session *session = (struct smtp_session *)stream;
    if (session->state == SESSION_GONE)
        return;
    if (session->state == SESSION_LEAVING || session->state == SESSION_QUIT || (session->state == SESSION_RSET && !session->order)) {
        session_close(session, now_us);
        return;
    }
    bool in_transaction = session->order != NULL;
    session_failed(session, TCP_OK, "the server closed the connection", now_us);
    if (in_transaction || session->flags & SESSION_BODY_SENT)
        session_abort(session, now_us); /* what is left of the body must not go out after the verdict */
    else
        session_close(session, now_us);
}

static void on_acknowledged(struct stream *stream, uint64_t now_us) {
    struct smtp_session *session = (struct smtp_session *)stream;
    if (session->state == SESSION_BODY && !(session->flags & SESSION_BLOCKED))
        session_say(session, now_us);
    bool has_all = session->state == SESSION_FINAL && !transaction_is_unacknowledged(session);
    bool counting = has_all && session->body_until_us == DEADLINE_NEVER; /* what trickles behind it does not put its verdict off */
    if ((session->state == SESSION_BODY || session->state == SESSION_FINAL) && !counting)
        session_renew(session, now_us);
    if (has_all)
        session->body_until_us = DEADLINE_NEVER;
    if (session->order && session->lane->path.pipelined_transactions > 1)
        session_offer(session);
}

static void on_closed(struct stream *stream, enum tcp_error error, uint64_t now_us) {
    struct smtp_session *session = (struct smtp_session *)stream;
    if (session->state != SESSION_GONE) {
        session_failed(session, error, error == TCP_OK ? "the connection was closed" : tcp_error_text(error), now_us);
        session_enter(session, SESSION_GONE, now_us);
    }
    session_free(session);
}

const struct stream_events dialogue_events = {.connected = on_connected,
                                              .received = on_received,
                                              .peer_closed = on_peer_closed,
                                              .acknowledged = on_acknowledged,
                                              .closed = on_closed,
                                              .secured = on_secured,
                                              .insecure = on_insecure,
                                              .tls_flaw = on_tls_flaw};
static_assert(offsetof(struct smtp_session, stream) == 0, "the stream is the session");
