/* transaction.c: with PIPELINING the whole envelope leaves in one segment and its replies are matched in order; without, one at a time. */
#include "transaction.h"

#include "engine.h"

#include <errno.h>
#include <stdio.h>

enum {
    RCPT_LINE_MAX = sizeof("RCPT TO:<>\r\n") - 1 + SLOT_ADDRESS_MAX,
    /* Buffers of the longest group: MAIL and DATA take one each at most. */
    GROUP_BUFFERS_MAX = ORDER_RECIPIENTS_MAX / (COMMAND_TEXT_BYTES / RCPT_LINE_MAX) + 3,
    FEED_BYTES = 64 * 1024,
};

static struct order *unanswered(struct order *order) {
    while (order && order->flags & ORDER_ANSWERED)
        order = order->next_recipient;
    return order;
}

static struct order *said(struct order *order) {
    while (order && !(order->flags & ORDER_SAID))
        order = order->next_recipient;
    return order;
}

static bool any_accepted(const struct order *order) {
    for (; order; order = order->next_recipient) {
        if ((order->flags & (ORDER_ACCEPTED | ORDER_ANSWERED)) == ORDER_ACCEPTED)
            return true;
    }
    return false;
}

static bool is_pipelined(const struct smtp_session *session) {
    return session->capabilities.flags & CAP_PIPELINING;
}

/* ---- beginning ---- */

static bool refuse_locally(struct smtp_session *session, struct order *order, uint16_t code, uint16_t subject, uint16_t detail,
                           const char *text, uint64_t now_us) {
    struct verdict verdict = {.outcome = OUTCOME_LOCAL,
                              .stage = STAGE_MAIL,
                              .code = code,
                              .enhanced = {(uint16_t)(code / 100), subject, detail},
                              .text = text,
                              .text_length = (uint32_t)strlen(text)};
    order_answer_all(order, &verdict, session, now_us);
    return true;
}

/* What this server cannot take is answered without asking it. */
static bool cannot_take(struct smtp_session *session, struct order *order, uint64_t now_us) {
    const struct capabilities *can = &session->capabilities;
    if (can->size_max_bytes && order->size_bytes > can->size_max_bytes)
        return refuse_locally(session, order, 552, 3, 4, "the message is larger than the server's SIZE", now_us);
    if (order->slot_flags & SLOT_BODY_8BIT && !(can->flags & CAP_8BITMIME))
        return refuse_locally(session, order, 554, 6, 3, "the message is 8-bit and the server has no 8BITMIME", now_us);
    if (order->slot_flags & SLOT_SMTPUTF8 && !(can->flags & CAP_SMTPUTF8))
        return refuse_locally(session, order, 553, 6, 7, "the addresses need SMTPUTF8, which the server does not have", now_us);
    return false;
}

/* Recipients beyond what the server (RFC 9422) or the path takes in one transaction belong in another. */
static void cut_chain(struct smtp_session *session, struct order *first, uint64_t now_us) {
    static const char text[] = "more recipients than one transaction may have";
    static const struct verdict verdict = {
        .outcome = OUTCOME_LOCAL, .stage = STAGE_RCPT, .code = 452, .enhanced = {4, 5, 3}, .text = text, .text_length = sizeof(text) - 1};
    uint32_t limit = session->lane->path.max_recipients_per_transaction, announced = session->capabilities.rcpt_max, count = 0;
    if (announced && (!limit || announced < limit))
        limit = announced;
    if (!limit)
        return;
    for (struct order *order = first; order; order = order->next_recipient) {
        if (!(order->flags & ORDER_ANSWERED) && ++count > limit)
            order_answer(order, &verdict, session, now_us);
    }
}

void session_bind(struct smtp_session *session, struct order *order, uint64_t now_us) {
    assert(session->state == SESSION_READY && !session->order);
    if (cannot_take(session, order, now_us))
        return;
    cut_chain(session, order, now_us);
    session->order = order;
    session->recipient = NULL;
    session->to_say = unanswered(order);
    session->cursor = (struct body_cursor){0};
    session->body_until_us = DEADLINE_NEVER;
    session->flags &= SESSION_UNFLUSHED | SESSION_BLOCKED;
    session->transactions++;
    order_advance(order, SLOT_ENVELOPE_SENT);
    session_enter(session, SESSION_MAIL, now_us);
    session_say(session, now_us);
}

/* ---- ending ---- */

/* The server has nothing open any more, or never had. */
static void go_on(struct smtp_session *session, uint64_t now_us) {
    if (!session_deliveries_left(session) || !lane_keeps(session->lane))
        session_quit(session, now_us);
    else
        session_enter(session, SESSION_READY, now_us);
}

static void finish_order(struct smtp_session *session) {
    struct order *order = session->order;
    session->order = session->recipient = session->to_say = NULL;
    if (order)
        order_finish(order);
}

static void end(struct smtp_session *session, uint64_t now_us) {
    finish_order(session);
    if (session->flags & SESSION_OPENED && session_deliveries_left(session) && lane_keeps(session->lane)) {
        session->flags &= (uint8_t)~SESSION_OPENED;
        session_enter(session, SESSION_RSET, now_us);
        session_say(session, now_us);
    } else {
        session->flags &= (uint8_t)~SESSION_OPENED;
        go_on(session, now_us);
    }
}

static void answer_rest(struct smtp_session *session, const struct verdict *verdict, uint64_t now_us) {
    for (struct order *order = unanswered(session->order); order; order = unanswered(order->next_recipient))
        order_answer(order, verdict, session, now_us);
}

void transaction_lost(struct smtp_session *session, const char *why, uint64_t now_us) {
    bool sent = session->flags & SESSION_BODY_SENT && !stream_unsent(&session->stream);
    struct verdict verdict = {.outcome = sent ? OUTCOME_UNCERTAIN : OUTCOME_LOST,
                              .stage = (uint8_t)session_stage(session),
                              .enhanced = {4, 4, 2},
                              .text = why,
                              .text_length = (uint32_t)strlen(why)};
    answer_rest(session, &verdict, now_us);
    finish_order(session);
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

static enum command_fault add_mail(struct smtp_session *session, struct command *command) {
    const struct order *order = session->order;
    const struct capabilities *can = &session->capabilities;
    bool utf8 = order->slot_flags & SLOT_SMTPUTF8;
    char parameters[64];
    int length = 0;
    parameters[0] = '\0';
    if (can->flags & CAP_SIZE)
        length = snprintf(parameters, sizeof(parameters), " SIZE=%u", order->size_bytes);
    snprintf(parameters + length, sizeof(parameters) - (size_t)length, "%s%s", order->slot_flags & SLOT_BODY_8BIT ? " BODY=8BITMIME" : "",
             utf8 ? " SMTPUTF8" : "");
    return command_mail(command, order_sender(order), order->sender_length, parameters, utf8);
}

static enum command_fault add_rcpt(struct smtp_session *session, struct command *command, struct order *order) {
    enum command_fault fault =
        command_rcpt(command, order_recipient(order), order->recipient_length, session->order->slot_flags & SLOT_SMTPUTF8);
    if (fault == COMMAND_FINE)
        order->flags |= ORDER_SAID;
    return fault;
}

/* Puts as much of the envelope as fits into an empty buffer: all that is left with PIPELINING, else what the state waits for. */
static enum command_fault fill(struct smtp_session *session, struct command *command) {
    bool pipelined = is_pipelined(session);
    enum command_fault fault = COMMAND_FINE;
    if (!(session->flags & SESSION_MAIL_SAID)) {
        fault = add_mail(session, command);
        if (fault != COMMAND_FINE)
            return fault;
        session->flags |= SESSION_MAIL_SAID;
        if (!pipelined)
            return COMMAND_FINE;
    }
    while (session->to_say && (pipelined || session->state == SESSION_RCPT)) {
        fault = add_rcpt(session, command, session->to_say);
        if (fault != COMMAND_FINE)
            return fault;
        session->to_say = unanswered(session->to_say->next_recipient);
        if (!pipelined)
            return COMMAND_FINE;
    }
    fault = command_line(command, "DATA", NULL);
    if (fault == COMMAND_FINE)
        session->flags |= SESSION_DATA_SAID;
    return fault;
}

/* All buffers of a group are queued together or not at all, so that a retry begins from the same place. */
static int say_envelope(struct smtp_session *session, uint64_t now_us) {
    struct command *buffers[GROUP_BUFFERS_MAX];
    struct tcp_piece pieces[GROUP_BUFFERS_MAX];
    uint32_t count = 0;
    uint8_t flags = session->flags;
    struct order *to_say = session->to_say;
    enum command_fault fault = COMMAND_FULL;
    int error = 0;
    while (fault == COMMAND_FULL && !error) {
        struct command *command = count < GROUP_BUFFERS_MAX ? command_take(&session->lane->engine->commands) : NULL;
        if (!command) {
            error = -ENOBUFS;
            break;
        }
        fault = fill(session, command);
        pieces[count] = (struct tcp_piece){.bytes = (const uint8_t *)command->text, .length = command->length, .owner = &command->owner};
        buffers[count++] = command;
        if (fault == COMMAND_BAD_ADDRESS || fault == COMMAND_NEEDS_UTF8) {
            /* It was fine when the slot was claimed: control writes in what is not its own. */
            counter_add(&session->lane->engine->counters->wild_values, 1);
            error = -EPROTO;
        }
    }
    if (!error)
        error = stream_send(&session->stream, pieces, count, now_us);
    for (uint32_t i = 0; i < count; i++)
        command_drop(buffers[i]);
    if (error) {
        session->flags = flags;
        session->to_say = to_say;
        for (struct order *order = to_say; order; order = order->next_recipient)
            order->flags &= (uint8_t)~ORDER_SAID;
    }
    return error;
}

/* Queues the body as far as the bounds allow. */
static int say_body(struct smtp_session *session, uint64_t now_us) {
    struct body_source source;
    order_body(session->order, &source);
    while (stream_unsent(&session->stream) < TRANSACTION_UNSENT_MAX_BYTES &&
           stream_unacknowledged(&session->stream) < TRANSACTION_QUEUED_MAX_BYTES) {
        struct body_cursor cursor = session->cursor;
        struct tcp_piece pieces[BODY_BATCH];
        int count = body_next(&source, &cursor, pieces, FEED_BYTES);
        if (count < 0) {
            counter_add(&session->lane->engine->counters->wild_values, 1);
            return -EPROTO;
        }
        bool last = cursor.piece == source.piece_count;
        if (last && !(session->flags & SESSION_BODY_SENT))
            order_advance(session->order, SLOT_BODY_SENT);
        int error = stream_send(&session->stream, pieces, (uint32_t)count, now_us);
        if (error)
            return error;
        if (last)
            session->flags |= SESSION_BODY_SENT;
        session->cursor = cursor;
        if (cursor.ended) {
            session_enter(session, SESSION_FINAL, now_us);
            break;
        }
    }
    return 0;
}

int transaction_say(struct smtp_session *session, uint64_t now_us) {
    if (session->state == SESSION_BODY)
        return say_body(session, now_us);
    if (session->state == SESSION_FINAL)
        return session_send_text(session, ".\r\n", now_us); /* nothing was said in this state but the dot of an ignored message */
    return say_envelope(session, now_us);
}

/* ---- hearing ---- */

/* The reply to the RCPT of the last recipient was taken, or MAIL's when there is none to wait for. */
static void after_recipients(struct smtp_session *session, uint64_t now_us) {
    if (session->flags & SESSION_DATA_SAID) {
        session_enter(session, SESSION_DATA, now_us);
    } else if (any_accepted(session->order)) {
        session_enter(session, SESSION_DATA, now_us);
        session_say(session, now_us);
    } else {
        end(session, now_us);
    }
}

/* Waits for the next RCPT's reply, after saying it if that was not done. */
static void next_recipient(struct smtp_session *session, struct order *from, uint64_t now_us) {
    if (is_pipelined(session)) {
        session->recipient = said(from);
    } else {
        session->recipient = session->to_say = unanswered(from);
    }
    if (!session->recipient) {
        after_recipients(session, now_us);
        return;
    }
    session_enter(session, SESSION_RCPT, now_us);
    if (!is_pipelined(session))
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
    if (is_pipelined(session))
        next_recipient(session, session->order, now_us); /* the replies to the rest of the group are still to come */
    else
        end(session, now_us);
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
        end(session, now_us);
    } else if (any_accepted(session->order)) {
        session->body_until_us = now_us + session->lane->path.timeouts.block * UINT64_C(1000) +
                                 session->order->size_bytes * (UINT64_C(1000000) / TRANSACTION_RATE_MIN_BYTES);
        session_enter(session, SESSION_BODY, now_us);
        session_say(session, now_us);
    } else {
        finish_order(session);
        session->flags |= SESSION_IGNORE;
        session_enter(session, SESSION_FINAL, now_us);
        session_say(session, now_us);
    }
}

static void take_final(struct smtp_session *session, const struct reply *reply, uint64_t now_us) {
    session->flags &= (uint8_t)~SESSION_OPENED; /* whatever it says, the transaction is over */
    if (session->order) {
        if (reply->code / 100 == 2)
            counter_add(&session->lane->engine->counters->message_bytes, session->order->size_bytes);
        struct verdict verdict = replied(session, reply);
        answer_rest(session, &verdict, now_us);
    }
    end(session, now_us);
}

/* A verdict before the server has the whole message. A refusal explains what is about to happen; anything else is confused. */
static void take_early(struct smtp_session *session, const struct reply *reply, uint64_t now_us) {
    if (reply->code / 100 < 4) {
        session_protocol_error(session, reply, "the server answered before it had the whole message", now_us);
        return;
    }
    struct verdict verdict = replied(session, reply);
    verdict.stage = STAGE_BODY;
    answer_rest(session, &verdict, now_us);
    finish_order(session);
    session_abort(session, now_us); /* what is queued of the body must not reach the server after its refusal */
}

/* 421 in a transaction: the message goes back, the session is over. */
static void take_shutdown(struct smtp_session *session, const struct reply *reply, uint64_t now_us) {
    struct verdict verdict = replied(session, reply);
    answer_rest(session, &verdict, now_us);
    finish_order(session);
    session_await_fin(session, now_us);
}

/* May a reply of this class come in this state? */
static bool is_expected(const struct smtp_session *session, unsigned class) {
    if (class >= 4 || class == 2)
        return session->state != SESSION_DATA || class != 2;
    return class == 3 && session->state == SESSION_DATA;
}

/* Could the server know all of what it judges? Its verdict on the dot comes with the acknowledgement of the dot. */
static bool is_early(const struct smtp_session *session) {
    return session->state == SESSION_BODY || (session->state == SESSION_FINAL && stream_unacknowledged(&session->stream));
}

void transaction_take(struct smtp_session *session, const struct reply *reply, uint64_t now_us) {
    if (is_early(session)) {
        take_early(session, reply, now_us);
        return;
    }
    if (reply->code == 421) {
        take_shutdown(session, reply, now_us);
        return;
    }
    if (!is_expected(session, reply->code / 100u) || (session->state == SESSION_DATA && reply->code / 100 == 3 && reply->code != 354)) {
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
        if (reply->code / 100 == 2)
            go_on(session, now_us);
        else
            session_quit(session, now_us);
    }
}
