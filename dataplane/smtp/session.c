/* session.c: the life of a session: its states, who says and hears what in them, leaving, and what the stream tells. */
#include "session.h"

#include "endpoint.h"
#include "engine.h"
#include "phase.h"
#include "transaction.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    LEAVING_US = 1000 * 1000,       /* the server has so long for its FIN, so that it holds TIME_WAIT */
    GONE_US = 10 * 1000 * 1000,     /* then the stream is aborted, again if need be */
    CONNECT_GRACE_US = 1000 * 1000, /* the stack's own timer comes first */
};

static void on_connected(struct stream *stream, uint64_t now_us);
static void on_received(struct stream *stream, const uint8_t *bytes, uint32_t length, uint64_t now_us);
static void on_peer_closed(struct stream *stream, uint64_t now_us);
static void on_acknowledged(struct stream *stream, uint64_t now_us);
static void on_closed(struct stream *stream, enum tcp_error error, uint64_t now_us);
static void on_secured(struct stream *stream, uint64_t now_us);
static void on_insecure(struct stream *stream, enum tls_failure failure, const char *why, uint64_t now_us);
static void on_tls_flaw(struct stream *stream, enum tls_failure failure, const char *why, uint64_t now_us);

static const struct stream_events events = {.connected = on_connected,
                                            .received = on_received,
                                            .peer_closed = on_peer_closed,
                                            .acknowledged = on_acknowledged,
                                            .closed = on_closed,
                                            .secured = on_secured,
                                            .insecure = on_insecure,
                                            .tls_flaw = on_tls_flaw};
static_assert(offsetof(struct smtp_session, stream) == 0, "the stream is the session");

enum smtp_stage session_stage(const struct smtp_session *session) {
    static const uint8_t stages[SESSION_STATES] = {
        [SESSION_STARTTLS] = STAGE_STARTTLS,  [SESSION_HANDSHAKE] = STAGE_STARTTLS, [SESSION_AUTH] = STAGE_AUTH,
        [SESSION_CONNECTING] = STAGE_CONNECT, [SESSION_BANNER] = STAGE_BANNER,      [SESSION_EHLO] = STAGE_EHLO,
        [SESSION_HELO] = STAGE_EHLO,          [SESSION_READY] = STAGE_IDLE,         [SESSION_MAIL] = STAGE_MAIL,
        [SESSION_RCPT] = STAGE_RCPT,          [SESSION_DATA] = STAGE_DATA,          [SESSION_BODY] = STAGE_BODY,
        [SESSION_FINAL] = STAGE_FINAL,        [SESSION_RSET] = STAGE_RSET,          [SESSION_QUIT] = STAGE_QUIT,
        [SESSION_LEAVING] = STAGE_QUIT,       [SESSION_GONE] = STAGE_QUIT};
    return (enum smtp_stage)stages[session->state];
}

static uint64_t state_timeout_us(const struct smtp_session *session, enum session_state state) {
    const struct path_timeouts *timeouts = &session->lane->path.timeouts;
    switch (state) {
    case SESSION_CONNECTING:
        return timeouts->connect * UINT64_C(1000) + CONNECT_GRACE_US;
    case SESSION_BANNER:
        return timeouts->banner * UINT64_C(1000);
    case SESSION_EHLO:
    case SESSION_HELO:
    case SESSION_STARTTLS:
    case SESSION_HANDSHAKE:
    case SESSION_AUTH:
        return timeouts->ehlo * UINT64_C(1000);
    case SESSION_READY:
        return timeouts->idle * UINT64_C(1000);
    case SESSION_MAIL:
        return timeouts->mail * UINT64_C(1000);
    case SESSION_RCPT:
        return timeouts->rcpt * UINT64_C(1000);
    case SESSION_DATA:
        return timeouts->data * UINT64_C(1000);
    case SESSION_BODY:
        return timeouts->block * UINT64_C(1000);
    case SESSION_FINAL: /* the verdict's time begins when the server has everything */
        return (transaction_is_unacknowledged(session) ? timeouts->block : timeouts->final) * UINT64_C(1000);
    case SESSION_RSET:
        return timeouts->rset * UINT64_C(1000);
    case SESSION_QUIT:
        return timeouts->quit * UINT64_C(1000);
    case SESSION_LEAVING:
        return LEAVING_US;
    case SESSION_GONE:
    case SESSION_STATES:
        break;
    }
    return GONE_US;
}

static uint64_t state_deadline_us(const struct smtp_session *session, enum session_state state, uint64_t now_us) {
    uint64_t at_us = now_us + state_timeout_us(session, state);
    if (state == SESSION_AUTH)
        return session->phase_until_us; /* the exchange as a whole, however many challenges come */
    bool body = state == SESSION_BODY || (state == SESSION_FINAL && transaction_is_unacknowledged(session));
    return body && session->body_until_us < at_us ? session->body_until_us : at_us;
}

static bool is_greeting(enum session_state state) {
    return state < SESSION_READY;
}
static bool is_tls(enum session_state state) {
    return state == SESSION_STARTTLS || state == SESSION_HANDSHAKE;
}
static bool is_busy(enum session_state state) {
    return state > SESSION_READY && state <= SESSION_RSET;
}
static bool is_ready(enum session_state state) {
    return state >= SESSION_READY && state <= SESSION_RSET;
}

/* How many deliveries this session may still begin. */
uint32_t session_deliveries_left(const struct smtp_session *session) {
    uint32_t limit = session->lane->path.max_deliveries_per_connection, said = session->capabilities.mail_max;
    if (said && (!limit || said < limit))
        limit = said;
    if (session->flags & SESSION_LAST)
        return 0;
    if (!limit)
        return UINT32_MAX;
    return session->transactions < limit ? limit - session->transactions : 0;
}

static void recount(struct smtp_session *session) {
    struct lane *lane = session->lane;
    uint32_t capacity = 0;
    if (is_ready(session->state)) {
        uint64_t can = (uint64_t)session_deliveries_left(session) + session->in_flight;
        uint32_t most = lane->path.pipelined_transactions + 1;
        capacity = can < most ? (uint32_t)can : most;
    }
    lane->capacity += capacity - session->capacity;
    session->capacity = (uint16_t)capacity;
}

void session_offer(struct smtp_session *session) {
    struct lane *lane = session->lane;
    if (session_deliveries_left(session) <= lane->path.pipelined_transactions)
        recount(session);
    bool room = transaction_has_room(session);
    if (room == ((session->flags & SESSION_ROOMY) != 0))
        return;
    session->flags ^= SESSION_ROOMY;
    if (!room) {
        LIST_REMOVE(session, ready);
        return;
    }
    LIST_INSERT_HEAD(&lane->roomy, session, ready);
    if (lane->waiting)
        lane_wake(lane);
}

static void count_class(struct lane *lane, enum session_state state, uint32_t by) {
    lane->greeting += is_greeting(state) ? by : 0;
    lane->busy += is_busy(state) ? by : 0;
    lane->ready += is_ready(state) ? by : 0;
}

void session_enter(struct smtp_session *session, enum session_state state, uint64_t now_us) {
    struct lane *lane = session->lane;
    enum session_state before = (enum session_state)session->state;
    session->state = (uint8_t)state;
    deadline_set(&lane->engine->deadlines, &session->deadline, state_deadline_us(session, state, now_us));
    if (is_busy(before) && is_busy(state))
        return;
    if (session->flags & SESSION_ROOMY) {
        session->flags &= (uint8_t)~SESSION_ROOMY;
        LIST_REMOVE(session, ready);
    }
    if (before == SESSION_READY)
        LIST_REMOVE(session, ready);
    if (state == SESSION_READY)
        LIST_INSERT_HEAD(&lane->idle, session, ready);
    count_class(lane, before, (uint32_t)-1);
    count_class(lane, state, 1);
    if (is_ready(before) != is_ready(state))
        counter_add(&lane->engine->counters->sessions_ready, is_ready(state) ? 1 : (uint64_t)-1);
    recount(session);
    lane_wake(lane);
}

void session_expect(struct smtp_session *session, uint64_t at_us) {
    deadline_set(&session->lane->engine->deadlines, &session->deadline, at_us);
}

static void put_to_work(struct smtp_session *session, enum session_flag flag) {
    struct smtp_engine *engine = session->lane->engine;
    if (!(session->flags & (SESSION_UNFLUSHED | SESSION_BLOCKED))) {
        TAILQ_INSERT_TAIL(&engine->work, session, work);
        engine->work_count++;
    }
    session->flags |= (uint8_t)flag;
}

static void stop_work(struct smtp_session *session) {
    struct smtp_engine *engine = session->lane->engine;
    if (session->flags & (SESSION_UNFLUSHED | SESSION_BLOCKED)) {
        TAILQ_REMOVE(&engine->work, session, work);
        engine->work_count--;
        session->flags &= (uint8_t) ~(SESSION_UNFLUSHED | SESSION_BLOCKED);
    }
}

static void drop_reply(struct smtp_session *session) {
    if (session->reply)
        pool_give(&session->lane->engine->replies, session->reply);
    session->reply = NULL;
}

int session_open(struct lane *lane, uint8_t endpoint, uint8_t source, uint64_t now_us) {
    struct smtp_engine *engine = lane->engine;
    const struct path_endpoint *to = &lane->path.endpoints[endpoint];
    const struct path_source *from = &lane->path.sources[source];
    struct smtp_session *session = pool_take(&engine->sessions);
    if (!session)
        return -ENOBUFS;
    *session = (struct smtp_session){.lane = lane, .state = SESSION_CONNECTING, .endpoint = endpoint, .source = source};
    deadline_init(&session->deadline, DEADLINE_OF_SESSION);
    struct tcp_address local = {.family = from->family}, remote = {.family = to->family};
    memcpy(local.bytes, from->address, from->family == 4 ? 4 : 16);
    memcpy(remote.bytes, to->address, to->family == 4 ? 4 : 16);
    int error = stream_open(&session->stream, &events, engine->stack, &local, &remote, to->port,
                            lane->path.timeouts.connect * UINT64_C(1000), lane->path.timeouts.block * UINT64_C(1000), now_us);
    if (error) {
        pool_give(&engine->sessions, session);
        return error;
    }
    if (to->tls == PATH_TLS_MAY && lane_endpoint_without_tls(lane, endpoint, now_us))
        session->security = SESSION_WITHOUT_TLS;
    deadline_set(&engine->deadlines, &session->deadline, now_us + state_timeout_us(session, SESSION_CONNECTING));
    LIST_INSERT_HEAD(&lane->sessions, session, siblings);
    lane->open++;
    lane->greeting++;
    lane->opened_total++;
    counter_add(&engine->counters->sessions_open, 1);
    return 0;
}

static void free_session(struct smtp_session *session) {
    struct lane *lane = session->lane;
    struct smtp_engine *engine = lane->engine;
    stop_work(session);
    drop_reply(session);
    deadline_forget(&engine->deadlines, &session->deadline);
    LIST_REMOVE(session, siblings);
    lane->open--;
    counter_add(&engine->counters->sessions_open, (uint64_t)-1);
    lane_wake(lane);
    pool_give(&engine->sessions, session);
}

void session_post(struct smtp_session *session, enum path_event_kind kind, uint32_t detail, const struct reply *reply, const char *text,
                  uint64_t now_us) {
    struct lane_event event = {.kind = kind,
                               .stage = session_stage(session),
                               .endpoint = session->endpoint,
                               .source = session->source,
                               .detail = detail,
                               .reply = reply,
                               .text = text};
    lane_post(session->lane, &event, now_us);
}

/* ---- the ways out ---- */

void session_close(struct smtp_session *session, uint64_t now_us) {
    stream_close(&session->stream, now_us);
    session_enter(session, SESSION_GONE, now_us);
    put_to_work(session, SESSION_UNFLUSHED);
}

void session_abort(struct smtp_session *session, uint64_t now_us) {
    stop_work(session);
    session_enter(session, SESSION_GONE, now_us);
    stream_abort(&session->stream, now_us);
}

void session_quit(struct smtp_session *session, uint64_t now_us) {
    session_enter(session, SESSION_QUIT, now_us);
    session_say(session, now_us);
}

void session_await_fin(struct smtp_session *session, uint64_t now_us) {
    session_enter(session, SESSION_LEAVING, now_us);
}

void session_leave(struct smtp_session *session, uint64_t now_us) {
    if (session->state == SESSION_READY)
        session_quit(session, now_us);
    else if (is_greeting(session->state))
        session_abort(session, now_us);
}

/* The session ended by the server's doing, or by ours because of the server's. Before it was ready, or when it never took a delivery, the
 * endpoint waits a little: a server that greets and hangs up must not be called in a loop. */
static void note_failure(struct smtp_session *session, enum tcp_error error, const char *text, uint64_t now_us) {
    if (session->state == SESSION_CONNECTING)
        session_post(session, PATH_EVENT_CONNECT_FAILED, error, NULL, text, now_us);
    else if (is_tls(session->state))
        starttls_lost(session, error, text, now_us);
    else if (is_greeting(session->state))
        session_post(session, PATH_EVENT_CLOSED_EARLY, error, NULL, text, now_us);
    if ((is_greeting(session->state) && !is_tls(session->state)) || (session->state == SESSION_READY && !session->transactions))
        lane_endpoint_failed(session->lane, session->endpoint, now_us);
    if (session->order) {
        bool told, elsewhere = lane_transaction_lost(session->lane, session->endpoint, &told, now_us);
        if (told)
            session_post(session, PATH_EVENT_CLOSED_EARLY, error, NULL, text, now_us);
        transaction_lost(session, error, text, elsewhere, now_us);
    }
}

/* Garbage for an answer to STARTTLS. */
static void lose_tls(struct smtp_session *session, const char *text, uint64_t now_us) {
    starttls_lost(session, TCP_OK, text, now_us);
    session_abort(session, now_us);
}

void session_lose(struct smtp_session *session, uint64_t now_us) {
    note_failure(session, TCP_RESET, tcp_error_text(TCP_RESET), now_us);
    session_abort(session, now_us);
}

void session_protocol_error(struct smtp_session *session, const struct reply *reply, const char *text, uint64_t now_us) {
    session_post(session, PATH_EVENT_PROTOCOL_ERROR, 0, reply, text, now_us);
    if (is_greeting(session->state) || (session->state == SESSION_READY && !session->transactions))
        lane_endpoint_failed(session->lane, session->endpoint, now_us);
    if (session->order)
        transaction_lost(session, TCP_ABORTED, text ? text : "the server said what nothing asked for", false, now_us);
    session_abort(session, now_us);
}

void session_refused(struct smtp_session *session, const struct reply *reply, const char *text, uint64_t now_us) {
    session_post(session, PATH_EVENT_GREETING_REFUSED, 0, reply, text, now_us);
    lane_endpoint_failed(session->lane, session->endpoint, now_us);
    if (reply->code == 421)
        session_await_fin(session, now_us);
    else
        session_quit(session, now_us);
}

/* ---- ready ---- */

void session_settle(struct smtp_session *session, uint64_t now_us) {
    if (session->lane->path.auth_user)
        auth_begin(session, now_us);
    else
        session_be_ready(session, now_us);
}

void session_be_ready(struct smtp_session *session, uint64_t now_us) {
    bool first = lane_endpoint_ready(session->lane, session->endpoint);
    session_enter(session, SESSION_READY, now_us);
    if ((session->security & (SESSION_SECURE | SESSION_TLS_FLAWED)) == SESSION_SECURE)
        session->lane->secured_total++;
    if (first)
        session_post(session, PATH_EVENT_READY, 0, NULL, NULL, now_us);
}

void phase_server(const struct smtp_session *session, char name[PHASE_NAME_BYTES]) {
    const struct path_endpoint *endpoint = &session->lane->path.endpoints[session->endpoint];
    const char *text = session->lane->path.strings + endpoint->name;
    if (*text)
        snprintf(name, PHASE_NAME_BYTES, "%s", text);
    else
        inet_ntop(endpoint->family == 4 ? AF_INET : AF_INET6, endpoint->address, name, PHASE_NAME_BYTES);
}

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
        put_to_work(session, SESSION_BLOCKED);
    } else if (error && session->state != SESSION_GONE) {
        note_failure(session, TCP_ABORTED, "the connection takes no more bytes", now_us);
        session_abort(session, now_us);
    } else if (session->state != SESSION_GONE) {
        put_to_work(session, SESSION_UNFLUSHED);
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
        put_to_work(session, SESSION_BLOCKED);
    if (session->flags & SESSION_UNFLUSHED && !(session->flags & SESSION_BLOCKED)) {
        stop_work(session);
        stream_flush(&session->stream, now_us);
    }
}

void session_say_later(struct smtp_session *session) {
    put_to_work(session, SESSION_BLOCKED);
}

/* ---- hearing ---- */

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
        drop_reply(session);
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
    note_failure(session, TCP_OK, "the server closed the connection", now_us);
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
        deadline_set(&session->lane->engine->deadlines, &session->deadline,
                     state_deadline_us(session, (enum session_state)session->state, now_us));
    if (has_all)
        session->body_until_us = DEADLINE_NEVER;
    if (session->order && session->lane->path.pipelined_transactions > 1)
        session_offer(session);
}

static void on_closed(struct stream *stream, enum tcp_error error, uint64_t now_us) {
    struct smtp_session *session = (struct smtp_session *)stream;
    if (session->state != SESSION_GONE) {
        note_failure(session, error, error == TCP_OK ? "the connection was closed" : tcp_error_text(error), now_us);
        session_enter(session, SESSION_GONE, now_us);
    }
    free_session(session);
}

void session_due(struct smtp_session *session, uint64_t now_us) {
    struct lane *lane = session->lane;
    switch ((enum session_state)session->state) {
    case SESSION_READY:
        if (lane_keeps(lane) && (lane->waiting || lane_demand(lane)))
            deadline_set(&lane->engine->deadlines, &session->deadline, now_us + state_timeout_us(session, SESSION_READY));
        else
            session_quit(session, now_us);
        break;
    case SESSION_QUIT:
    case SESSION_LEAVING:
        session_close(session, now_us);
        break;
    default:
        if (session->state != SESSION_GONE)
            note_failure(session, TCP_TIMED_OUT, "the server did not answer in time", now_us);
        session_abort(session, now_us);
    }
}
