/* seek.c: an order goes on to the next endpoint within its attempt until one can take it. Each server is asked once, and known for a while;
 * only when all of them are known to lack something is that the answer (RFC 8689 4.2.1, RFC 5321 5.1). */
#include "seek.h"

#include "endpoint.h"
#include "engine.h"
#include "transaction.h"

#include <stdio.h>

enum { NEEDS = SLOT_BODY_8BIT | SLOT_SMTPUTF8 | SLOT_REQUIRETLS, TEXT_BYTES = 192 };
static_assert(PATH_ENDPOINTS_MAX <= 16, "order.lacking has a bit for each");

static enum seek_lack lack_of(const struct order *order, uint32_t can, uint64_t size_max_bytes, uint8_t security) {
    if (size_max_bytes && order->size_bytes > size_max_bytes)
        return LACK_SIZE;
    if (!(order->slot_flags & NEEDS))
        return LACK_NOTHING;
    if (order->slot_flags & SLOT_BODY_8BIT && !(can & CAP_8BITMIME))
        return LACK_8BITMIME;
    if (order->slot_flags & SLOT_SMTPUTF8 && !(can & CAP_SMTPUTF8))
        return LACK_SMTPUTF8;
    if (order->slot_flags & SLOT_REQUIRETLS && security & SESSION_WITHOUT_TLS)
        return LACK_TLS;
    if (order->slot_flags & SLOT_REQUIRETLS && !(security & SESSION_TLS_VERIFIED && can & CAP_REQUIRETLS))
        return LACK_REQUIRETLS;
    return LACK_NOTHING;
}

static enum seek_lack session_lacks(const struct smtp_session *session, const struct order *order) {
    return lack_of(order, session->capabilities.flags, session->capabilities.size_max_bytes, session->security);
}

static bool is_known_to_lack(const struct lane *lane, uint32_t index, const struct order *order, uint64_t now_us) {
    const struct lane_endpoint *endpoint = &lane->endpoints[index];
    return endpoint->known_until_us > now_us &&
           lack_of(order, endpoint->offers, endpoint->size_max_bytes, endpoint->verified ? SESSION_TLS_VERIFIED : 0) != LACK_NOTHING;
}

void seek_heard(const struct smtp_session *session, uint64_t now_us) {
    struct lane_endpoint *endpoint = &session->lane->endpoints[session->endpoint];
    if (session->security & SESSION_WITHOUT_TLS)
        return; /* the next one may be under TLS, and then the server says something else */
    endpoint->known_until_us = now_us + SEEK_KNOWN_US;
    endpoint->offers = session->capabilities.flags;
    endpoint->size_max_bytes = session->capabilities.size_max_bytes;
    endpoint->verified = session->security & SESSION_TLS_VERIFIED;
}

/* ---- answers ---- */

static const struct {
    uint16_t code, subject, detail;
    const char *text;
} answers[LACKS] = {
    [LACK_SIZE] = {552, 3, 4, "the message is larger than the server's SIZE"},
    [LACK_8BITMIME] = {554, 6, 3, "the message is 8-bit and the server has no 8BITMIME"},
    [LACK_SMTPUTF8] = {553, 6, 7, "the addresses need SMTPUTF8, which the server does not have"},
    [LACK_TLS] = {454, 7, 5, "the message requires TLS, which fails with this server at present"},
    [LACK_REQUIRETLS] = {550, 7, 30, "REQUIRETLS support required"},
};

/* `session` as order_answer takes it. */
static void answer(struct order *order, const struct smtp_session *session, uint64_t now_us) {
    struct verdict verdict = {.outcome = OUTCOME_LOCAL,
                              .stage = STAGE_MAIL,
                              .code = answers[order->lack].code,
                              .enhanced = {answers[order->lack].code / 100, answers[order->lack].subject, answers[order->lack].detail},
                              .text = answers[order->lack].text,
                              .text_length = (uint32_t)strlen(answers[order->lack].text)};
    order_answer_all(order, &verdict, session, now_us);
}

/* A host that might take it could not be reached: another attempt may do better. */
static void defer(struct order *order, uint64_t now_us) {
    char text[TEXT_BYTES];
    if (order->lack == LACK_TLS) {
        answer(order, NULL, now_us);
        return;
    }
    int length = snprintf(text, sizeof(text), "%s, and no session with another host came about", answers[order->lack].text);
    struct verdict verdict = {.outcome = OUTCOME_LOCAL,
                              .stage = STAGE_CONNECT,
                              .code = 451,
                              .enhanced = {4, 4, 1},
                              .text = text,
                              .text_length = (uint32_t)length};
    order_answer_all(order, &verdict, NULL, now_us);
}

/* ---- where it may go ---- */

/* What passes counts before what does not: such an order is not answered for good. */
static void note_lack(struct order *order, const struct smtp_session *session, enum seek_lack lack) {
    order->lacking |= (uint16_t)(1u << session->endpoint);
    if (!order->lack || lack == LACK_TLS)
        order->lack = (uint8_t)lack;
}

/* Endpoints that can be reached from a source and may take it, a bit each. */
static uint32_t hopes_of(const struct lane *lane, const struct order *order, uint64_t now_us) {
    uint32_t hopes = 0;
    for (uint32_t i = 0; i < lane->path.endpoint_count; i++) {
        if (!(order->lacking & 1u << i) && lane_endpoint_has_source(lane, i) && !is_known_to_lack(lane, i, order, now_us))
            hopes |= 1u << i;
    }
    return hopes;
}

/* A session that can take it, of those that are idle and those with room; what the others lack is noted. */
static struct smtp_session *find_session(struct lane *lane, struct order *order) {
    struct session_list *const lists[] = {&lane->idle, &lane->roomy};
    struct smtp_session *session;
    uint32_t looks = 0;
    for (uint32_t i = 0; i < 2; i++) {
        LIST_FOREACH (session, lists[i], ready) {
            if (looks++ == SEEK_SESSIONS_MAX)
                return NULL;
            enum seek_lack lack = session_lacks(session, order);
            if (lack != LACK_NOTHING)
                note_lack(order, session, lack);
            else if (stream_is_open(&session->stream) && (i ? transaction_has_room(session) : !session->reply))
                return session;
        }
    }
    return NULL;
}

void seek_bind(struct smtp_session *session, struct order *order, uint64_t now_us) {
    struct lane *lane = session->lane;
    enum seek_lack lack = session_lacks(session, order);
    if (lack == LACK_NOTHING) {
        session_bind(session, order, now_us);
        return;
    }
    note_lack(order, session, lack);
    struct smtp_session *other = find_session(lane, order);
    if (other) {
        session_bind(other, order, now_us);
    } else if (!hopes_of(lane, order, now_us)) {
        answer(order, session, now_us);
    } else {
        order->seek_since_us = now_us;
        TAILQ_INSERT_TAIL(&lane->seeking, order, queue);
        lane_wake(lane);
    }
}

/* ---- those that wait ---- */

/* Ends an idle session, none of which can take the order. One at a time: what is closing counts as open. */
static void make_room(struct lane *lane, const struct order *order, uint64_t now_us, uint64_t *look_us) {
    uint64_t from_us = order->seek_since_us + SEEK_PATIENCE_US;
    struct smtp_session *idle = LIST_FIRST(&lane->idle);
    if (!idle || lane->open > lane->greeting + lane->ready)
        return;
    if (now_us >= from_us || (TAILQ_EMPTY(&lane->high) && TAILQ_EMPTY(&lane->normal)))
        session_leave(idle, now_us);
    else if (from_us < *look_us)
        *look_us = from_us;
}

/* Opens a session with one of the endpoints for it, or sees to room for one, as the lane's limits allow. */
static void open_session(struct lane *lane, const struct order *order, uint32_t endpoints, uint32_t allowed, uint64_t now_us,
                         uint64_t *look_us) {
    if (lane->next_connect_us <= now_us && lane->open >= allowed)
        make_room(lane, order, now_us, look_us);
    else if (lane->next_connect_us <= now_us)
        lane_connect(lane, endpoints, now_us);
    if (lane->next_connect_us > now_us && lane->next_connect_us < *look_us)
        *look_us = lane->next_connect_us;
}

/* One that no session can take. */
static void attend(struct lane *lane, struct order *order, uint32_t allowed, uint64_t now_us, uint64_t *look_us) {
    uint32_t hopes = hopes_of(lane, order, now_us), free = 0;
    bool awaited = false;
    for (uint32_t i = 0; i < lane->path.endpoint_count; i++) {
        if (!(hopes & 1u << i))
            continue;
        awaited |= lane->endpoints[i].sessions > 0;
        if (lane_can_connect(lane, (uint8_t)i, now_us))
            free |= 1u << i;
    }
    uint64_t until_us = order->seek_since_us + (awaited ? (uint64_t)SEEK_LIMIT_US : (uint64_t)SEEK_WAIT_US);
    if ((awaited || free) && now_us < until_us) {
        if (until_us < *look_us)
            *look_us = until_us;
        if (!awaited)
            open_session(lane, order, free, allowed, now_us, look_us);
        return;
    }
    TAILQ_REMOVE(&lane->seeking, order, queue);
    if (hopes)
        defer(order, now_us);
    else
        answer(order, NULL, now_us);
}

uint32_t seek_serve(struct lane *lane, uint32_t allowed, uint64_t now_us, uint64_t *look_us) {
    struct order *order, *next;
    uint32_t steps = 0, looks = 0;
    if (!TAILQ_EMPTY(&lane->seeking) && !allowed)
        seek_give_back(lane, now_us);
    for (order = TAILQ_FIRST(&lane->seeking); order && looks < SEEK_ORDERS_MAX; order = next, looks++) {
        struct smtp_session *session = find_session(lane, order);
        next = TAILQ_NEXT(order, queue);
        if (!session)
            continue;
        TAILQ_REMOVE(&lane->seeking, order, queue);
        session_bind(session, order, now_us);
        steps++;
    }
    looks = 0;
    for (order = TAILQ_FIRST(&lane->seeking); order && looks < SEEK_ORDERS_MAX; order = next, looks++) {
        next = TAILQ_NEXT(order, queue);
        attend(lane, order, allowed, now_us, look_us);
    }
    return steps + looks;
}

void seek_give_back(struct lane *lane, uint64_t now_us) {
    static const struct verdict returned = {.outcome = OUTCOME_RETURNED, .stage = STAGE_CONNECT};
    struct order *order;
    while ((order = TAILQ_FIRST(&lane->seeking))) {
        TAILQ_REMOVE(&lane->seeking, order, queue);
        order_answer_all(order, &returned, NULL, now_us);
    }
}
