/* session.c: the life of a session: its states and their deadlines, what it counts for, how it begins, becomes ready and ends. What is said
 * and heard in each state stands in dialogue.c. */
#include "session.h"

#include "dialogue.h"
#include "endpoint.h"
#include "engine.h"
#include "phase.h"
#include "seek.h"
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
static bool is_alive(enum session_state state) {
    return state <= SESSION_RSET;
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
    if (is_alive(before) && !is_alive(state))
        lane->endpoints[session->endpoint].sessions--;
    if (is_ready(before) != is_ready(state))
        counter_add(&lane->engine->counters->sessions_ready, is_ready(state) ? 1 : (uint64_t)-1);
    recount(session);
    lane_wake(lane);
}

void session_renew(struct smtp_session *session, uint64_t now_us) {
    deadline_set(&session->lane->engine->deadlines, &session->deadline,
                 state_deadline_us(session, (enum session_state)session->state, now_us));
}

void session_expect(struct smtp_session *session, uint64_t at_us) {
    deadline_set(&session->lane->engine->deadlines, &session->deadline, at_us);
}

void session_put_to_work(struct smtp_session *session, enum session_flag flag) {
    struct smtp_engine *engine = session->lane->engine;
    if (!(session->flags & (SESSION_UNFLUSHED | SESSION_BLOCKED))) {
        TAILQ_INSERT_TAIL(&engine->work, session, work);
        engine->work_count++;
    }
    session->flags |= (uint8_t)flag;
}

void session_stop_work(struct smtp_session *session) {
    struct smtp_engine *engine = session->lane->engine;
    if (session->flags & (SESSION_UNFLUSHED | SESSION_BLOCKED)) {
        TAILQ_REMOVE(&engine->work, session, work);
        engine->work_count--;
        session->flags &= (uint8_t) ~(SESSION_UNFLUSHED | SESSION_BLOCKED);
    }
}

void session_drop_reply(struct smtp_session *session) {
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
    int error = stream_open(&session->stream, &dialogue_events, engine->stack, &local, &remote, to->port,
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
    lane->endpoints[endpoint].sessions++;
    lane->opened_total++;
    counter_add(&engine->counters->sessions_open, 1);
    return 0;
}

void session_free(struct smtp_session *session) {
    struct lane *lane = session->lane;
    struct smtp_engine *engine = lane->engine;
    session_stop_work(session);
    session_drop_reply(session);
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
    session_put_to_work(session, SESSION_UNFLUSHED);
}

void session_abort(struct smtp_session *session, uint64_t now_us) {
    session_stop_work(session);
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
void session_failed(struct smtp_session *session, enum tcp_error error, const char *text, uint64_t now_us) {
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

void session_lose(struct smtp_session *session, uint64_t now_us) {
    session_failed(session, TCP_RESET, tcp_error_text(TCP_RESET), now_us);
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
    seek_heard(session, now_us);
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
            session_failed(session, TCP_TIMED_OUT, "the server did not answer in time", now_us);
        session_abort(session, now_us);
    }
}
