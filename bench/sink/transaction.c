/* transaction.c: MAIL, RCPT, DATA and BDAT, and a message's end. */
#include "session.h"

#include <ctype.h>

void transaction_end(struct session *session) {
    struct sink *sink = session->sink;
    if (session->transaction == POOL_NONE)
        return;
    sink->tally.messages_aborted += session_transaction(sink, session)->in_message;
    pool_give(&sink->transactions, session->transaction);
    session->transaction = POOL_NONE;
}

static void say(struct session *session, enum reply_name name) {
    session_say(session, session->sink->replies[name], THEN_COMMAND, 0);
}

static void out_of_sequence(struct session *session) {
    session->sink->tally.errors_sequence++;
    say(session, REPLY_SEQUENCE);
}

void transaction_mail(struct session *session, const struct command *command) {
    struct sink *sink = session->sink;
    if (session->greeting == GREETED_NOT || session->transaction != POOL_NONE) {
        out_of_sequence(session);
        return;
    }
    if ((sink->config.require_tls && !session->secure) || (sink->config.require_auth && session->user == AUTH_USER_NONE)) {
        say(session, sink->config.require_tls && !session->secure ? REPLY_NEEDS_TLS : REPLY_AUTH_NEEDED);
        return;
    }
    if (sink->config.mails_max != 0 && session->transactions >= sink->config.mails_max) {
        say(session, REPLY_TOO_OFTEN);
        return;
    }
    if (sink->config.size_max != 0 && command->size > sink->config.size_max) {
        say(session, REPLY_TOO_LARGE);
        return;
    }
    uint64_t delay_us;
    session->transactions++;
    if (!session_passes(session, SCRIPT_MAIL, &delay_us))
        return;
    session->transaction = pool_take(&sink->transactions);
    if (session->transaction == POOL_NONE) {
        sink->tally.no_transaction_free++;
        say(session, REPLY_BUSY);
        return;
    }
    struct transaction *transaction = session_transaction(sink, session);
    transaction->eight_bit = command->eight_bit;
    transaction->utf8 = command->utf8;
    transaction->chunked = false;
    transaction->in_message = false;
    transaction->recipients = 0;
    transaction->recipient_bytes = 0;
    transaction->declared_bytes = command->size;
    sink->tally.transactions++;
    sink->tally.transactions_require_tls += command->require_tls;
    session_say(session, sink->replies[REPLY_MAIL_OK], THEN_COMMAND, delay_us);
}

/* A recipient's key does not depend on the case of its letters, since a retry's may differ. */
static uint64_t recipient_key(const struct command *command, char lower[COMMAND_PATH_BYTES_MAX + 1]) {
    for (uint32_t i = 0; i < command->path_length; i++)
        lower[i] = (char)tolower((unsigned char)command->path[i]);
    lower[command->path_length] = '\0';
    return xxh64(lower, command->path_length, 0);
}

static void recipient_keep(const struct sink *sink, struct transaction *transaction, const struct command *command) {
    if (sink->config.record == NULL)
        return;
    memcpy(transaction->recipient_text + transaction->recipient_bytes, command->path, command->path_length);
    transaction->recipient_bytes += command->path_length;
    transaction->recipient_text[transaction->recipient_bytes++] = '\0';
}

void transaction_rcpt(struct session *session, const struct command *command) {
    struct sink *sink = session->sink;
    if (session->transaction == POOL_NONE || session_transaction(sink, session)->chunked) {
        out_of_sequence(session);
        return;
    }
    struct transaction *transaction = session_transaction(sink, session);
    if (command->path_is_utf8 && !transaction->utf8) {
        say(session, REPLY_NEEDS_UTF8);
        return;
    }
    if (transaction->recipients >= sink->config.recipients_max ||
        (sink->config.record != NULL && transaction->recipient_bytes + command->path_length + 1 > RECORD_RECIPIENTS_BYTES)) {
        say(session, REPLY_TOO_MANY);
        return;
    }
    struct script_verdict verdict = {0};
    uint64_t key = 0, matched = 0;
    if (sink->config.script->count > 0) {
        char lower[COMMAND_PATH_BYTES_MAX + 1];
        key = recipient_key(command, lower);
        matched = script_match(sink->config.script, lower);
        enum consult consult = session_consult(session, SCRIPT_RCPT, key, matched, &verdict);
        if (consult == CONSULT_OVER)
            return;
        if (consult == CONSULT_REPLY) {
            if (verdict.rule->action == SCRIPT_REFUSE)
                sink->tally.recipients_refused++;
            else
                sink->tally.recipients_deferred++;
            session_say(session, verdict.rule->reply, session_then_after(verdict.rule), verdict.delay_us);
            return;
        }
    }
    sink->tally.transactions_several += transaction->recipients == 1;
    sink->tally.recipients_notify += command->notify;
    if (transaction->recipients++ == 0) {
        transaction->key = key;
        transaction->matched = matched;
    }
    recipient_keep(sink, transaction, command);
    sink->tally.recipients++;
    session_say(session, sink->replies[REPLY_RCPT_OK], THEN_COMMAND, verdict.delay_us);
}

/* Before the first byte of a message. True: it may come. */
static bool message_may_come(struct session *session, struct script_verdict *verdict, struct reply *refusal, enum session_then *then) {
    struct sink *sink = session->sink;
    struct transaction *transaction = session_transaction(sink, session);
    *then = THEN_COMMAND;
    *refusal = (struct reply){0};
    if (transaction->recipients == 0) {
        *refusal = sink->replies[REPLY_NO_RECIPIENTS];
        return false;
    }
    enum consult consult = session_consult(session, SCRIPT_DATA, transaction->key, transaction->matched, verdict);
    if (consult == CONSULT_REPLY) {
        *refusal = verdict->rule->reply;
        *then = session_then_after(verdict->rule);
    }
    if (consult == CONSULT_GO_ON) {
        message_start(&transaction->message);
        transaction->in_message = true;
    }
    return consult == CONSULT_GO_ON;
}

void transaction_data(struct session *session) {
    if (session->transaction == POOL_NONE || session_transaction(session->sink, session)->chunked) {
        out_of_sequence(session);
        return;
    }
    struct script_verdict verdict = {0};
    struct reply refusal;
    enum session_then then;
    if (message_may_come(session, &verdict, &refusal, &then)) {
        session_say(session, session->sink->replies[REPLY_GO_AHEAD], THEN_TEXT, verdict.delay_us);
    } else if (refusal.text != NULL) {
        transaction_end(session);
        session_say(session, refusal, then, verdict.delay_us);
    }
}

/* The octets follow whatever we think of the command (RFC 3030 section 2): they are thrown away and answered afterwards. */
static void chunk_refuse(struct session *session, struct reply reply, enum session_then then) {
    session->chunk_refused = true;
    session->reply = reply;
    session->then = (uint8_t)then;
}

void transaction_bdat(struct session *session, const struct command *command) {
    struct sink *sink = session->sink;
    session->chunk_refused = false;
    session->chunk_left = command->size;
    session->owed_ms = 0;
    session->flags = (uint8_t)((session->flags & ~SESSION_LAST_CHUNK) | (command->last ? SESSION_LAST_CHUNK : 0));
    if (session->greeting != GREETED_EHLO || (sink->config.extensions & EXTENSION_CHUNKING) == 0) {
        chunk_refuse(session, sink->replies[REPLY_NOT_OFFERED], THEN_COMMAND);
    } else if (session->transaction == POOL_NONE) {
        sink->tally.errors_sequence++;
        chunk_refuse(session, sink->replies[REPLY_SEQUENCE], THEN_COMMAND);
    } else if (!session_transaction(sink, session)->chunked) {
        struct script_verdict verdict = {0};
        struct reply refusal;
        enum session_then then;
        bool may_come = message_may_come(session, &verdict, &refusal, &then);
        if (session->state != SESSION_COMMAND)
            return; /* dropped or stalled */
        session->owed_ms = (uint32_t)(verdict.delay_us / 1000);
        if (may_come) {
            struct transaction *transaction = session_transaction(sink, session);
            transaction->chunked = true;
            text_start(&transaction->message.text, false);
        } else {
            transaction_end(session);
            chunk_refuse(session, refusal, then);
        }
    }
    sink->tally.chunks++;
    session_enter(session, SESSION_CHUNK);
    transaction_chunk(session, NULL, 0); /* of 0 octets it is over */
}

static void message_record(const struct sink *sink, const struct transaction *transaction) {
    const char *recipient = transaction->recipient_text;
    for (uint32_t i = 0; i < transaction->recipients; i++) {
        fprintf(sink->config.record, "%.*s %s\n", transaction->message.id_length > 0 ? (int)transaction->message.id_length : 1,
                transaction->message.id_length > 0 ? transaction->message.id : "-", recipient);
        recipient += strlen(recipient) + 1;
    }
}

/* A message that the sender may think delivered. */
static void message_keep(struct sink *sink, struct transaction *transaction) {
    struct message *message = &transaction->message;
    if (message->id_length == 0) {
        sink->tally.messages_without_id++;
    } else {
        switch (seen_add(sink->config.seen, xxh64(message->id, message->id_length, 0))) {
        case SEEN_NEW:
            sink->tally.messages_unique++;
            break;
        case SEEN_AGAIN:
            sink->tally.messages_repeated++;
            break;
        case SEEN_FULL:
            sink->tally.messages_untold++;
            break;
        }
    }
    if (sink->config.record != NULL)
        message_record(sink, transaction);
}

static void message_check_digest(struct tally *tally, struct message *message) {
    if (message->digest.kind == DIGEST_NONE || !message->in_body)
        tally->digests_missing++;
    else if (digest_matches(&message->digest, message->expected))
        tally->digests_good++;
    else
        tally->digests_bad++;
}

static void message_count_faults(struct tally *tally, const struct transaction *transaction) {
    uint8_t faults = transaction->message.text.faults;
    if (faults == 0)
        return;
    tally->errors_bare_lf += (faults & TEXT_BARE_LF) != 0;
    tally->errors_bare_cr += (faults & TEXT_BARE_CR) != 0;
    tally->errors_overlong += (faults & TEXT_OVERLONG) != 0;
    tally->errors_smuggled += (faults & TEXT_SMUGGLED) != 0;
    tally->errors_unstuffed_dot += (faults & TEXT_UNSTUFFED_DOT) != 0;
    tally->errors_eight_bit += (faults & TEXT_EIGHT_BIT) != 0 && !transaction->eight_bit && !transaction->utf8;
}

/* What the message itself calls for. */
static enum reply_name message_verdict(struct sink *sink, const struct transaction *transaction) {
    uint64_t bytes = transaction->message.bytes;
    bool over_own = transaction->declared_bytes != 0 && bytes > transaction->declared_bytes;
    bool over = sink->config.size_max != 0 && bytes > sink->config.size_max;
    if (over || over_own)
        sink->tally.errors_size++;
    if (over)
        return REPLY_TOO_LARGE;
    if ((transaction->message.text.faults & (TEXT_BARE_LF | TEXT_BARE_CR | TEXT_SMUGGLED)) != 0)
        return REPLY_BAD_LINES;
    return REPLY_ACCEPTED;
}

static void message_finish(struct session *session) {
    struct sink *sink = session->sink;
    struct transaction *transaction = session_transaction(sink, session);
    struct tally *tally = &sink->tally;
    transaction->in_message = false;
    tally->messages++;
    tally->message_bytes += transaction->message.bytes;
    message_check_digest(tally, &transaction->message);
    message_count_faults(tally, transaction);
    struct script_verdict verdict = {0};
    enum reply_name name = message_verdict(sink, transaction);
    enum consult consult = CONSULT_GO_ON;
    session_enter(session, SESSION_COMMAND);
    if (name == REPLY_ACCEPTED)
        consult = session_consult(session, SCRIPT_FINAL, transaction->key, transaction->matched, &verdict);
    uint64_t delay_us = verdict.delay_us + (uint64_t)session->owed_ms * 1000;
    session->owed_ms = 0;
    if (consult == CONSULT_REPLY && verdict.rule->action == SCRIPT_REFUSE)
        tally->messages_refused++;
    else if (consult == CONSULT_REPLY)
        tally->messages_deferred++;
    else if (consult == CONSULT_OVER)
        tally->messages_unanswered++;
    else if (name == REPLY_ACCEPTED)
        tally->messages_accepted++;
    else
        tally->messages_refused++;
    if (name == REPLY_ACCEPTED && consult != CONSULT_REPLY)
        message_keep(sink, transaction);
    transaction_end(session);
    if (consult == CONSULT_REPLY)
        session_say(session, verdict.rule->reply, session_then_after(verdict.rule), delay_us);
    else if (consult == CONSULT_GO_ON)
        session_say(session, sink->replies[name], THEN_COMMAND, delay_us);
}

uint32_t transaction_text(struct session *session, const uint8_t *bytes, uint32_t length) {
    bool ended;
    uint32_t taken = message_take(&session_transaction(session->sink, session)->message, bytes, length, &ended);
    if (ended) {
        if (taken < length && (session->greeting != GREETED_EHLO || (session->sink->config.extensions & EXTENSION_PIPELINING) == 0))
            session->sink->tally.errors_pipelining++;
        message_finish(session);
    }
    return taken;
}

static void chunk_finish(struct session *session) {
    bool last = (session->flags & SESSION_LAST_CHUNK) != 0;
    if (!session->chunk_refused && last) {
        message_finish(session);
        return;
    }
    uint64_t delay_us = (uint64_t)session->owed_ms * 1000;
    struct reply reply = session->chunk_refused ? session->reply : session->sink->replies[REPLY_CHUNK_OK];
    session->owed_ms = 0;
    session_enter(session, SESSION_COMMAND);
    session_say(session, reply, session->chunk_refused ? (enum session_then)session->then : THEN_COMMAND, delay_us);
}

uint32_t transaction_chunk(struct session *session, const uint8_t *bytes, uint32_t length) {
    bool ended;
    uint32_t some = length < session->chunk_left ? length : (uint32_t)session->chunk_left;
    if (some > 0 && !session->chunk_refused)
        message_take(&session_transaction(session->sink, session)->message, bytes, some, &ended);
    session->chunk_left -= some;
    if (session->chunk_left == 0)
        chunk_finish(session);
    return some;
}
