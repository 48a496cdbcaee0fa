/* transaction.c: what is heard in a transaction, and how it begins and ends. What is said stands in speech.c. */
#include "transaction.h"

#include "endpoint.h"
#include "engine.h"
#include "speech.h"

#include <errno.h>

static struct order *unanswered(struct order *order) {
    while (order && (order->flags & (ORDER_TAKEN | ORDER_ANSWERED)) != ORDER_TAKEN)
        order = order->next_recipient;
    return order;
}

static struct order *said(struct order *order) {
    while (order && (order->flags & (ORDER_TAKEN | ORDER_SAID)) != (ORDER_TAKEN | ORDER_SAID))
        order = order->next_recipient;
    return order;
}

static bool any_accepted(const struct order *order) {
    for (; order; order = order->next_recipient) {
        if ((order->flags & (ORDER_TAKEN | ORDER_ACCEPTED | ORDER_ANSWERED)) == (ORDER_TAKEN | ORDER_ACCEPTED))
            return true;
    }
    return false;
}

/* ---- where the bytes are ---- */

/* Bytes that were queued behind a place; within TLS with what it may have queued of its own. */
static uint32_t queued_behind(const struct smtp_session *session, uint32_t place) {
    return session->queued - place + (session->stream.tls ? (uint32_t)TRANSACTION_TLS_OWN_BYTES : 0);
}

/* Has all of its body left, so that the server may have it? */
static bool has_left(const struct smtp_session *session, const struct order *order) {
    return order->flags & ORDER_BODY_SENT && stream_unsent(&session->stream) <= queued_behind(session, order->end);
}

bool transaction_is_early(const struct smtp_session *session) {
    if (!session->order)
        return session->flags & (SESSION_UNFLUSHED | SESSION_BLOCKED);
    return stream_unsent(&session->stream) >= session->queued - session->order->begin;
}

bool transaction_is_unacknowledged(const struct smtp_session *session) {
    if (session->state == SESSION_BODY)
        return true;
    if (session->flags & SESSION_IGNORE) /* its dot may not be said yet */
        return (session->flags & SESSION_BLOCKED && !session->saying) ||
               stream_unacknowledged(&session->stream) > queued_behind(session, session->ignored_end);
    return session->order && stream_unacknowledged(&session->stream) > queued_behind(session, session->order->end);
}

bool transaction_has_room(const struct smtp_session *session) {
    uint32_t most = session->lane->path.pipelined_transactions;
    if (most < 2 || session->state < SESSION_MAIL || session->state > SESSION_RSET || !session->order || session->saying)
        return false;
    return session->capabilities.flags & CAP_PIPELINING && session->last->flags & ORDER_BODY_SENT &&
           session->in_flight + (session->flags & SESSION_IGNORE ? 1u : 0u) < most &&
           !(session->flags & (SESSION_BLOCKED | SESSION_LAST)) && session_deliveries_left(session) &&
           stream_unsent(&session->stream) < TRANSACTION_UNSENT_MAX_BYTES &&
           stream_unacknowledged(&session->stream) < TRANSACTION_QUEUED_MAX_BYTES;
}

/* ---- beginning ---- */

/* FNV-1a over the domain, in lower case. */
static uint32_t domain_of(const struct order *order) {
    char copy[SLOT_ADDRESS_MAX];
    uint32_t length = order->recipient_length, hash = 2166136261u;
    memcpy(copy, order_recipient(order), length);
    uint32_t at = length;
    while (at && copy[at - 1] != '@')
        at--;
    for (; at < length; at++) {
        unsigned char byte = (unsigned char)copy[at];
        hash = (hash ^ (byte >= 'A' && byte <= 'Z' ? byte + 32u : byte)) * 16777619u;
    }
    return hash;
}

/* RFC 9422 RCPTDOMAINMAX counts the domains of a session. Here each change to another domain counts: never too few. */
static bool takes_domain(struct smtp_session *session, const struct order *order) {
    uint32_t most = session->capabilities.rcpt_domain_max;
    if (!most)
        return true;
    uint32_t hash = domain_of(order);
    if (session->domains && hash == session->domain_hash)
        return true;
    if (session->domains >= most)
        return false;
    session->domains++;
    session->domain_hash = hash;
    return true;
}

/* Marks the recipients of this transaction: as many as the server (RFC 9422) and the path take in one. The rest of the chain follows in
 * another. False: this session takes none of them any more. */
static bool take_recipients(struct smtp_session *session, struct order *first) {
    uint32_t limit = session->lane->path.max_recipients_per_transaction, announced = session->capabilities.rcpt_max, count = 0;
    if (announced && (!limit || announced < limit))
        limit = announced;
    first->flags &= (uint16_t)~ORDER_OF_TRANSACTION;
    for (struct order *order = first; order; order = order->next_recipient) {
        order->flags &= (uint16_t) ~(ORDER_TAKEN | ORDER_SAID | ORDER_ACCEPTED);
        if (order->flags & ORDER_ANSWERED)
            continue;
        if ((limit && count == limit) || first->flags & ORDER_CUT || !takes_domain(session, order)) {
            first->flags |= ORDER_CUT;
            continue;
        }
        order->flags |= ORDER_TAKEN;
        count++;
    }
    return count > 0;
}

static void append(struct smtp_session *session, struct order *order) {
    if (session->state != SESSION_READY && speech_is_chunked(session))
        order->flags |= ORDER_AFTER_RSET;
    order->next_transaction = NULL;
    if (session->order)
        session->last->next_transaction = order;
    else
        session->order = order;
    session->last = order;
    session->in_flight++;
    order->begin = order->end = session->queued;
}

void session_bind(struct smtp_session *session, struct order *order, uint64_t now_us) {
    assert(session->state == SESSION_READY ? !session->order : (session->flags & SESSION_ROOMY) != 0);
    if (!take_recipients(session, order)) {
        lane_requeue(session->lane, order);
        session->flags |= SESSION_LAST;
        if (session->state == SESSION_READY)
            session_quit(session, now_us);
        else
            session_offer(session);
        return;
    }
    append(session, order);
    session->to_say = unanswered(order);
    session->saying = order;
    session->cursor = (struct body_cursor){0};
    session->chunk_bytes = 0;
    session->transactions++;
    order_advance(order, SLOT_ENVELOPE_SENT);
    if (session->state == SESSION_READY) {
        session->recipient = NULL;
        session->body_until_us = DEADLINE_NEVER;
        session->flags &= SESSION_UNFLUSHED | SESSION_BLOCKED;
        session_enter(session, SESSION_MAIL, now_us);
    }
    session_say(session, now_us);
    session_offer(session);
}

/* ---- ending ---- */

/* The server has nothing open any more, or never had. */
static void go_on(struct smtp_session *session, uint64_t now_us) {
    if (!session_deliveries_left(session) || !lane_keeps(session->lane))
        session_quit(session, now_us);
    else
        session_enter(session, SESSION_READY, now_us);
}

/* The first transaction is over: its recipients are answered, but for those that were left for another. */
static void finish_order(struct smtp_session *session) {
    struct order *order = session->order;
    session->order = order->next_transaction;
    session->in_flight--;
    session->recipient = NULL;
    if (session->saying == order)
        session->saying = session->to_say = NULL;
    if (!session->order)
        session->last = NULL;
    if (session->flags & SESSION_ROOMY || session->lane->path.pipelined_transactions > 1)
        session_offer(session);
    if (order->flags & ORDER_CUT)
        lane_requeue(session->lane, order);
    else
        order_finish(order);
}

/* All replies of a transaction were taken. The next one has been said, or its replies are not expected before the session is free. */
static void end(struct smtp_session *session, uint64_t now_us) {
    uint8_t opened = session->flags & SESSION_OPENED;
    session->flags &= (uint8_t) ~(SESSION_OPENED | SESSION_IGNORE);
    if (session->order) {
        session->body_until_us = DEADLINE_NEVER;
        session_enter(session, session->order->flags & ORDER_AFTER_RSET ? SESSION_RSET : SESSION_MAIL, now_us);
        session_offer(session);
    } else if (opened && session_deliveries_left(session) && lane_keeps(session->lane)) {
        session_enter(session, SESSION_RSET, now_us);
        session_say(session, now_us);
    } else {
        go_on(session, now_us);
    }
}

static void finish(struct smtp_session *session, uint64_t now_us) {
    finish_order(session);
    end(session, now_us);
}

static void answer_rest(struct smtp_session *session, const struct verdict *verdict, uint64_t now_us) {
    for (struct order *order = unanswered(session->order); order; order = unanswered(order->next_recipient))
        order_answer(order, verdict, session, now_us);
}

void transaction_lost(struct smtp_session *session, enum tcp_error error, const char *why, bool elsewhere, uint64_t now_us) {
    /* The first one was begun: the server's silence is an attempt, unless the silence is another transaction's. */
    bool begun = session->state != SESSION_RSET && !(session->flags & SESSION_IGNORE);
    bool refused = session->flags & SESSION_SHUTDOWN;
    uint32_t unacknowledged = stream_unacknowledged(&session->stream);
    while (session->order) {
        struct order *order = session->order;
        bool unheard = error == TCP_OK && unacknowledged >= session->queued - order->begin; /* the server closed before it had any of it */
        struct verdict verdict = {.outcome = OUTCOME_RETURNED, .stage = STAGE_MAIL};
        if (has_left(session, order) && !unheard && !refused)
            verdict.outcome = OUTCOME_UNCERTAIN;
        else if (begun && !elsewhere)
            verdict.outcome = OUTCOME_LOST;
        if (begun || verdict.outcome != OUTCOME_RETURNED) { /* control counts how often a begun one goes back */
            verdict.stage = begun ? (uint8_t)session_stage(session) : (uint8_t)STAGE_FINAL;
            verdict.enhanced[0] = verdict.enhanced[1] = 4;
            verdict.enhanced[2] = 2;
            verdict.text = why;
            verdict.text_length = (uint32_t)strlen(why);
        }
        answer_rest(session, &verdict, now_us);
        finish_order(session);
        begun = false;
    }
}

static struct verdict replied(const struct smtp_session *session, const struct reply *reply) {
    return (struct verdict){.outcome = OUTCOME_REPLIED,
                            .stage = (uint8_t)session_stage(session),
                            .code = reply->code,
                            .enhanced = {reply->enhanced[0], reply->enhanced[1], reply->enhanced[2]},
                            .text = reply->text,
                            .text_length = reply->text_length};
}

/* ---- saying ---- */

int transaction_say(struct smtp_session *session, uint64_t now_us) {
    if (session->saying)
        return session->state == SESSION_BODY ? speech_body(session, now_us) : speech_envelope(session, now_us);
    if (session->state == SESSION_FINAL && session->flags & SESSION_IGNORE && !speech_is_chunked(session))
        return speech_dot(session, now_us);
    return 0;
}

/* ---- hearing ---- */

static void await_verdict(struct smtp_session *session, uint64_t now_us) {
    session->body_until_us = now_us + session->lane->path.timeouts.block * UINT64_C(1000) +
                             (session->order ? session->order->size_bytes : 0) * (UINT64_C(1000000) / TRANSACTION_RATE_MIN_BYTES);
}

/* The body has to go, or went with the envelope. */
static void begin_body(struct smtp_session *session, uint64_t now_us) {
    await_verdict(session, now_us);
    if (session->order->flags & ORDER_BODY_SENT) {
        session_enter(session, SESSION_FINAL, now_us);
        return;
    }
    session->saying = session->order;
    session_enter(session, SESSION_BODY, now_us);
    session_say(session, now_us);
}

/* Nobody is left to whom the message could go, but a verdict is still to come. */
static void ignore_verdict(struct smtp_session *session, uint64_t now_us) {
    await_verdict(session, now_us);
    session->ignored_end = speech_is_chunked(session) && session->order->flags & ORDER_BODY_SENT ? session->order->end : session->queued;
    finish_order(session);
    session->flags |= SESSION_IGNORE;
    session_enter(session, SESSION_FINAL, now_us);
}

/* The reply to the RCPT of the last recipient was taken, or MAIL's when there is none to wait for. */
static void after_recipients(struct smtp_session *session, uint64_t now_us) {
    bool accepted = any_accepted(session->order), chunked = speech_is_chunked(session);
    if (session->order->flags & ORDER_DATA_SAID) {
        if (!chunked) {
            session_enter(session, SESSION_DATA, now_us);
        } else if (accepted) {
            begin_body(session, now_us);
        } else {
            session->flags |= SESSION_OPENED; /* RFC 3030 4.2: RSET after a chunk that failed */
            ignore_verdict(session, now_us);
        }
    } else if (!accepted) {
        finish(session, now_us);
    } else if (chunked) {
        begin_body(session, now_us);
    } else {
        session->saying = session->order;
        session_enter(session, SESSION_DATA, now_us);
        session_say(session, now_us);
    }
}

/* Waits for the next RCPT's reply, after saying it if that was not done. */
static void next_recipient(struct smtp_session *session, struct order *from, uint64_t now_us) {
    bool pipelined = session->capabilities.flags & CAP_PIPELINING;
    session->recipient = pipelined ? said(from) : unanswered(from);
    if (!session->recipient) {
        after_recipients(session, now_us);
        return;
    }
    session_enter(session, SESSION_RCPT, now_us);
    if (pipelined)
        return;
    session->to_say = session->recipient;
    session->saying = session->order;
    session_say(session, now_us);
}

static void take_mail(struct smtp_session *session, const struct reply *reply, uint64_t now_us) {
    if (reply->code / 100 == 2) {
        session->flags |= SESSION_OPENED;
        next_recipient(session, session->order, now_us);
        return;
    }
    struct verdict verdict = replied(session, reply);
    answer_rest(session, &verdict, now_us);
    if (session->capabilities.flags & CAP_PIPELINING)
        next_recipient(session, session->order, now_us); /* the replies to the rest of the group are still to come */
    else
        finish(session, now_us);
}

static void take_rcpt(struct smtp_session *session, const struct reply *reply, uint64_t now_us) {
    struct order *order = session->recipient;
    if (reply->code / 100 == 2) {
        order->flags |= ORDER_ACCEPTED;
    } else if (!(order->flags & ORDER_ANSWERED)) {
        struct verdict verdict = replied(session, reply);
        order_answer(order, &verdict, session, now_us);
    }
    next_recipient(session, order->next_recipient, now_us);
}

static void take_data(struct smtp_session *session, const struct reply *reply, uint64_t now_us) {
    if (reply->code != 354) {
        struct verdict verdict = replied(session, reply);
        answer_rest(session, &verdict, now_us);
        finish(session, now_us);
    } else if (any_accepted(session->order)) {
        begin_body(session, now_us);
    } else {
        ignore_verdict(session, now_us); /* RFC 2920 3.1: only the dot */
        session_say(session, now_us);
    }
}

static void take_final(struct smtp_session *session, const struct reply *reply, uint64_t now_us) {
    bool ignored = session->flags & SESSION_IGNORE, good = reply->code / 100 == 2;
    /* After the dot the transaction is over, whatever the reply says. A failed chunk is followed by RSET (RFC 3030 4.2). */
    if (!speech_is_chunked(session) || (good && !ignored))
        session->flags &= (uint8_t)~SESSION_OPENED;
    if (ignored) {
        end(session, now_us);
        return;
    }
    if (good)
        counter_add(&session->lane->engine->counters->message_bytes, session->order->size_bytes);
    else if (speech_is_chunked(session))
        session->flags |= SESSION_OPENED;
    struct verdict verdict = replied(session, reply);
    answer_rest(session, &verdict, now_us);
    finish(session, now_us);
}

/* A verdict before the server has the whole message. A refusal explains what is about to happen; anything else is confused. */
static void take_early(struct smtp_session *session, const struct reply *reply, uint64_t now_us) {
    static const char why[] = "the server refused the message before this one while it was on its way";
    if (reply->code / 100 < 4) {
        session_protocol_error(session, reply, "the server answered before it had the whole message", now_us);
        return;
    }
    if (!(session->flags & SESSION_IGNORE)) {
        struct verdict verdict = replied(session, reply);
        verdict.stage = STAGE_BODY;
        answer_rest(session, &verdict, now_us);
    }
    transaction_lost(session, TCP_ABORTED, why, false, now_us);
    session_abort(session, now_us); /* what is queued of the body must not reach the server after its refusal */
}

/* 421 in a transaction: the message goes back, the session is over. Transactions behind it were in the server's hands too, so what it
 * still says is heard: if it closes now, it has done nothing of them. */
static void take_shutdown(struct smtp_session *session, const struct reply *reply, uint64_t now_us) {
    static const char why[] = "the server shut down before it came to this message";
    bool resetting = session->state == SESSION_RSET, ignored = session->flags & SESSION_IGNORE;
    if (session->order && !resetting && !ignored) {
        struct verdict verdict = replied(session, reply);
        answer_rest(session, &verdict, now_us);
    }
    session->flags |= SESSION_LAST | SESSION_SHUTDOWN;
    if (resetting || !session->order || (!ignored && !session->order->next_transaction)) {
        transaction_lost(session, TCP_ABORTED, why, false, now_us);
        session_await_fin(session, now_us);
        return;
    }
    switch ((enum session_state)session->state) {
    case SESSION_MAIL:
        next_recipient(session, session->order, now_us);
        break;
    case SESSION_RCPT:
        next_recipient(session, session->recipient->next_recipient, now_us);
        break;
    default: /* SESSION_FINAL: nothing else has others behind it */
        if (ignored)
            end(session, now_us);
        else
            finish(session, now_us);
    }
    session_expect(session, now_us + session->lane->path.timeouts.quit * UINT64_C(1000));
}

/* May a reply of this class come in this state? */
static bool is_expected(const struct smtp_session *session, const struct reply *reply) {
    unsigned class = reply->code / 100u;
    if (class >= 4 || class == 2)
        return session->state != SESSION_DATA || class != 2;
    return reply->code == 354 && session->state == SESSION_DATA;
}

/* A chunk before the last may be answered while the rest is on its way; good news need no more than that. */
static bool take_chunk(struct smtp_session *session, const struct reply *reply) {
    if (session->flags & SESSION_IGNORE || !session->order || !(session->order->flags & ORDER_CHUNK_OPEN) || reply->code / 100 != 2)
        return false;
    session->order->flags &= (uint16_t)~ORDER_CHUNK_OPEN;
    return true;
}

/* Under BDAT the server counts the bytes, so that a refusal ahead of them leaves nothing in doubt when nobody was to get them. */
static bool is_harmless(const struct smtp_session *session, const struct reply *reply) {
    return session->flags & SESSION_IGNORE && speech_is_chunked(session) && reply->code / 100 >= 4 && session->state == SESSION_FINAL;
}

static bool is_body(const struct smtp_session *session) {
    return session->state == SESSION_BODY || session->state == SESSION_FINAL;
}

void transaction_take(struct smtp_session *session, const struct reply *reply, uint64_t now_us) {
    session->flags &= (uint8_t)~SESSION_SHUTDOWN; /* if it was heard, the server goes on after all */
    if (is_body(session)) { /* could the server know all of what it judges? Its verdict comes with the acknowledgement of the last byte */
        if (take_chunk(session, reply))
            return;
        bool chunk_open = session->order && session->order->flags & ORDER_CHUNK_OPEN && !(session->flags & SESSION_IGNORE);
        if ((chunk_open || transaction_is_unacknowledged(session)) && !is_harmless(session, reply)) {
            take_early(session, reply, now_us);
            return;
        }
    }
    if (reply->code == 421) {
        take_shutdown(session, reply, now_us);
        return;
    }
    if (!is_expected(session, reply)) {
        session_protocol_error(session, reply, "the server answered with a code that does not fit", now_us);
        return;
    }
    switch ((enum session_state)session->state) {
    case SESSION_MAIL:
        take_mail(session, reply, now_us);
        break;
    case SESSION_RCPT:
        take_rcpt(session, reply, now_us);
        break;
    case SESSION_DATA:
        take_data(session, reply, now_us);
        break;
    case SESSION_FINAL:
        lane_endpoint_worked(session->lane, session->endpoint); /* it takes mail: a failure after this is a new one */
        take_final(session, reply, now_us);
        break;
    default: /* SESSION_RSET */
        if (session->order && reply->code / 100 == 2) {
            session_enter(session, SESSION_MAIL, now_us);
        } else if (session->order) {
            session_protocol_error(session, reply, "the server refuses RSET between two transactions", now_us);
        } else if (reply->code / 100 == 2) {
            go_on(session, now_us);
        } else {
            session_quit(session, now_us);
        }
    }
}
