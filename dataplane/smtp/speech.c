/* speech.c: a group is queued in one call, so that TCP fills segments and TLS records with it, and a retry begins from the same place. */
#include "speech.h"

#include "engine.h"
#include "transaction.h"

#include <errno.h>

enum {
    /* Buffers of the longest group: RSET and MAIL take one, each RCPT with its ORCPT at most one, DATA or BDAT one. */
    GROUP_BUFFERS_MAX = ORDER_RECIPIENTS_MAX + 4,
    GROUP_PIECES_MAX = GROUP_BUFFERS_MAX + TRANSACTION_CHUNK_PIECES + BODY_BATCH,
    FEED_BYTES = 64 * 1024,
    NUMBER_DIGITS_MAX = 10,
};

struct group {
    uint32_t buffers, pieces;
    struct command *buffer[GROUP_BUFFERS_MAX];
    struct tcp_piece piece[GROUP_PIECES_MAX];
};

/* Counts what the stream takes for it: within TLS that is more. */
static int queue(struct smtp_session *session, const struct tcp_piece *pieces, uint32_t count, uint64_t now_us) {
    uint32_t before = stream_unacknowledged(&session->stream);
    int error = stream_send(&session->stream, pieces, count, now_us);
    session->queued += stream_unacknowledged(&session->stream) - before;
    return error;
}

static int wild(struct smtp_session *session) {
    counter_add(&session->lane->engine->counters->wild_values, 1);
    return -EPROTO;
}

/* Writes a number in decimal digits behind `to` and returns its end. */
static char *put_number(char *to, uint32_t number) {
    char digits[NUMBER_DIGITS_MAX];
    uint32_t count = 0;
    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    while (count)
        *to++ = digits[--count];
    return to;
}

static bool is_pipelined(const struct smtp_session *session) {
    return session->capabilities.flags & CAP_PIPELINING;
}

static struct order *unanswered(struct order *order) {
    while (order && (order->flags & (ORDER_TAKEN | ORDER_ANSWERED)) != ORDER_TAKEN)
        order = order->next_recipient;
    return order;
}

/* ---- commands ---- */

/* RFC 1870, 6152, 6531, 3461, 8689: each only where offered; what the message cannot do without was checked before. */
static enum command_fault add_mail(struct smtp_session *session, const struct order *order, struct command *command) {
    uint32_t can = session->capabilities.flags;
    bool utf8 = order->slot_flags & SLOT_SMTPUTF8;
    char parameters[96 + SLOT_ENVID_MAX], *to = parameters;
    if (can & CAP_SIZE)
        to = put_number(stpcpy(to, " SIZE="), order->size_bytes);
    if (order->slot_flags & SLOT_BODY_8BIT)
        to = stpcpy(to, " BODY=8BITMIME");
    if (utf8)
        to = stpcpy(to, " SMTPUTF8");
    if (order->slot_flags & SLOT_REQUIRETLS)
        to = stpcpy(to, " REQUIRETLS");
    if (can & CAP_DSN && order->dsn & (SLOT_RET_FULL | SLOT_RET_HDRS))
        to = stpcpy(to, order->dsn & SLOT_RET_FULL ? " RET=FULL" : " RET=HDRS");
    if (can & CAP_DSN && order->envid_length) {
        to = stpcpy(to, " ENVID=");
        memcpy(to, order_envid(order), order->envid_length);
        if (!command_is_xtext(to, order->envid_length))
            return COMMAND_BAD_ADDRESS;
        to += order->envid_length;
    }
    *to = '\0';
    return command_mail(command, order_sender(order), order->sender_length, parameters, utf8);
}

static enum command_fault add_rcpt(struct smtp_session *session, const struct order *first, struct command *command, struct order *order) {
    enum { NOTIFY = SLOT_NOTIFY_SUCCESS | SLOT_NOTIFY_FAILURE | SLOT_NOTIFY_DELAY | SLOT_NOTIFY_NEVER };
    char parameters[COMMAND_NOTIFY_BYTES];
    parameters[0] = '\0';
    bool notify = session->capabilities.flags & CAP_DSN && order->dsn & NOTIFY;
    if (notify) {
        char copy[SLOT_ADDRESS_MAX];
        memcpy(copy, order_recipient(order), order->recipient_length);
        command_notify(parameters, order->dsn, copy, order->recipient_length);
    }
    enum command_fault fault =
        command_rcpt(command, order_recipient(order), order->recipient_length, parameters, first->slot_flags & SLOT_SMTPUTF8);
    if (fault == COMMAND_FINE)
        order->flags |= (uint16_t)(ORDER_SAID | (notify ? ORDER_DSN_SAID : 0));
    return fault;
}

/* `BDAT n` or `BDAT n LAST` (RFC 3030 section 2). */
static enum command_fault add_bdat(struct command *command, uint32_t bytes, bool last) {
    char argument[NUMBER_DIGITS_MAX + sizeof(" LAST")];
    stpcpy(put_number(argument, bytes), last ? " LAST" : "");
    return command_line(command, "BDAT", argument);
}

/* Puts as much of the envelope as fits into an empty buffer: all that is left with PIPELINING, else what the state waits for. */
static enum command_fault fill(struct smtp_session *session, struct order *order, struct command *command) {
    bool pipelined = is_pipelined(session);
    enum command_fault fault = COMMAND_FINE;
    if (!(order->flags & ORDER_MAIL_SAID)) {
        if (order->flags & ORDER_AFTER_RSET)
            fault = command_line(command, "RSET", NULL);
        if (fault == COMMAND_FINE)
            fault = add_mail(session, order, command);
        if (fault != COMMAND_FINE)
            return fault;
        order->flags |= ORDER_MAIL_SAID;
        if (!pipelined)
            return COMMAND_FINE;
    }
    while (session->to_say && (pipelined || session->state == SESSION_RCPT)) {
        fault = add_rcpt(session, order, command, session->to_say);
        if (fault != COMMAND_FINE)
            return fault;
        session->to_say = unanswered(session->to_say->next_recipient);
        if (!pipelined)
            return COMMAND_FINE;
    }
    if (!speech_is_chunked(session))
        fault = command_line(command, "DATA", NULL);
    if (fault == COMMAND_FINE)
        order->flags |= ORDER_DATA_SAID;
    return fault;
}

/* A buffer's content becomes the next piece. */
static struct command *add_buffer(struct smtp_session *session, struct group *group) {
    struct command *command = group->buffers < GROUP_BUFFERS_MAX ? command_take(&session->lane->engine->commands) : NULL;
    if (command)
        group->buffer[group->buffers++] = command;
    return command;
}

static void add_piece(struct group *group, uint32_t at, struct command *command) {
    group->piece[at] = (struct tcp_piece){.bytes = (const uint8_t *)command->text, .length = command->length, .owner = &command->owner};
}

static int add_commands(struct smtp_session *session, struct order *order, struct group *group) {
    enum command_fault fault = COMMAND_FULL;
    while (fault == COMMAND_FULL) {
        struct command *command = add_buffer(session, group);
        if (!command)
            return -ENOBUFS;
        fault = fill(session, order, command);
        if (fault == COMMAND_BAD_ADDRESS || fault == COMMAND_NEEDS_UTF8)
            return wild(session); /* it was fine when the slot was claimed: control writes in what is not its own */
        if (command->length)
            add_piece(group, group->pieces++, command);
    }
    return 0;
}

/* The first chunk: its bytes, and before them the command that says how many they are. */
static int add_chunk(struct smtp_session *session, struct order *order, struct body_cursor *cursor, uint32_t *bytes, struct group *group) {
    struct body_source source;
    order_body(order, &source);
    source.chunked = true;
    struct command *command = group->buffer[group->buffers - 1];
    bool apart = command->length + sizeof("BDAT  LAST\r\n") + NUMBER_DIGITS_MAX > COMMAND_TEXT_BYTES;
    if (apart && !(command = add_buffer(session, group)))
        return -ENOBUFS;
    uint32_t place = apart ? group->pieces++ : group->pieces - 1;
    while (!cursor->ended && *bytes < TRANSACTION_CHUNK_BYTES && group->pieces - place <= TRANSACTION_CHUNK_PIECES) {
        int count = body_next(&source, cursor, group->piece + group->pieces, TRANSACTION_CHUNK_BYTES - *bytes);
        if (count < 0)
            return wild(session);
        for (int i = 0; i < count; i++)
            *bytes += group->piece[group->pieces++].length;
    }
    add_bdat(command, *bytes, cursor->ended);
    add_piece(group, place, command);
    return 0;
}

int speech_envelope(struct smtp_session *session, uint64_t now_us) {
    struct group group; /* only as much of it is touched as is used */
    struct order *order = session->saying;
    struct order *to_say = session->to_say;
    uint16_t flags = order->flags;
    struct body_cursor cursor = {0};
    uint32_t bytes = 0;
    group.buffers = group.pieces = 0;
    int error = add_commands(session, order, &group);
    bool chunk = !error && order->flags & ORDER_DATA_SAID && speech_is_chunked(session);
    if (chunk)
        error = add_chunk(session, order, &cursor, &bytes, &group);
    if (!error) {
        if (chunk && cursor.ended)
            order_advance(order, SLOT_BODY_SENT);
        uint32_t begin = session->queued;
        error = queue(session, group.piece, group.pieces, now_us);
        if (!error)
            order->begin = begin;
    }
    for (uint32_t i = 0; i < group.buffers; i++)
        command_drop(group.buffer[i]);
    if (error) {
        order->flags = (uint16_t)((order->flags & ~ORDER_OF_TRANSACTION) | (flags & ORDER_OF_TRANSACTION));
        session->to_say = to_say;
        for (struct order *recipient = to_say; recipient; recipient = recipient->next_recipient)
            recipient->flags &= (uint16_t) ~(ORDER_SAID | ORDER_DSN_SAID);
        return error;
    }
    session->saying = NULL;
    if (!chunk)
        return 0;
    order->end = session->queued;
    session->cursor = cursor;
    session->chunk_bytes = bytes;
    order->flags |= cursor.ended ? ORDER_BODY_SENT : ORDER_CHUNK_OPEN;
    session->flags |= cursor.ended ? SESSION_BODY_SENT : 0;
    return 0;
}

/* ---- body ---- */

/* The rest of a body under BDAT in one last chunk; its size is that of the pieces when they were claimed. */
static int say_last_chunk(struct smtp_session *session, struct order *order, uint64_t now_us) {
    if (order->body_bytes < session->chunk_bytes)
        return wild(session);
    struct command *command = command_take(&session->lane->engine->commands);
    if (!command)
        return -ENOBUFS;
    add_bdat(command, order->body_bytes - session->chunk_bytes, true);
    struct tcp_piece piece = {.bytes = (const uint8_t *)command->text, .length = command->length, .owner = &command->owner};
    int error = queue(session, &piece, 1, now_us);
    command_drop(command);
    if (!error)
        order->flags |= ORDER_REST_SAID;
    return error;
}

/* Did the pieces change since they were counted? Then the server would take other bytes for the message, or the message for commands. */
static bool has_changed(const struct smtp_session *session, const struct order *order, const struct body_cursor *cursor,
                        const struct tcp_piece *pieces, int count, uint32_t *bytes) {
    *bytes = session->chunk_bytes;
    for (int i = 0; i < count; i++)
        *bytes += pieces[i].length;
    return *bytes > order->body_bytes || (cursor->ended && *bytes != order->body_bytes);
}

int speech_body(struct smtp_session *session, uint64_t now_us) {
    struct order *order = session->order;
    struct body_source source;
    order_body(order, &source);
    source.chunked = speech_is_chunked(session);
    if (source.chunked && !(order->flags & ORDER_REST_SAID)) {
        int error = say_last_chunk(session, order, now_us);
        if (error)
            return error;
    }
    while (stream_unsent(&session->stream) < TRANSACTION_UNSENT_MAX_BYTES &&
           stream_unacknowledged(&session->stream) < TRANSACTION_QUEUED_MAX_BYTES) {
        struct body_cursor cursor = session->cursor;
        struct tcp_piece pieces[BODY_BATCH];
        uint32_t bytes = 0;
        int count = body_next(&source, &cursor, pieces, FEED_BYTES);
        if (count < 0 || (source.chunked && has_changed(session, order, &cursor, pieces, count, &bytes)))
            return wild(session);
        bool last = cursor.piece == source.piece_count;
        if (last && !(order->flags & ORDER_BODY_SENT))
            order_advance(order, SLOT_BODY_SENT);
        int error = count ? queue(session, pieces, (uint32_t)count, now_us) : 0;
        if (error)
            return error;
        session->cursor = cursor;
        session->chunk_bytes = bytes;
        if (last) {
            order->flags |= ORDER_BODY_SENT;
            order->end = session->queued;
            session->flags |= SESSION_BODY_SENT;
        }
        if (cursor.ended) {
            session->saying = NULL;
            session_enter(session, SESSION_FINAL, now_us);
            session_offer(session);
            break;
        }
    }
    return 0;
}

int speech_dot(struct smtp_session *session, uint64_t now_us) {
    static const char dot[] = ".\r\n";
    struct tcp_piece piece = {.bytes = (const uint8_t *)dot, .length = sizeof(dot) - 1};
    int error = queue(session, &piece, 1, now_us);
    session->ignored_end = session->queued;
    return error;
}
