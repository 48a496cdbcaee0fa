/* session.c: a session: command lines out of bytes, replies, and what the script does to it. */
#include "session.h"

#include <assert.h>
#include <stdlib.h>

void session_enter(struct session *session, enum session_state state) {
    assert(session->state != SESSION_ENDING || state == SESSION_ENDING);
    session->state = (uint8_t)state;
}

void session_close(struct session *session) {
    session_flush(session);
    if (session->state == SESSION_ENDING)
        return;
    session_enter(session, SESSION_ENDING);
    stream_close(&session->stream, session->sink->now_us);
}

void session_abort(struct session *session) {
    session->sink->out_count = 0;
    if (session->state == SESSION_ENDING)
        return;
    session_enter(session, SESSION_ENDING);
    stream_abort(&session->stream, session->sink->now_us);
}

static void session_give_line(struct session *session) {
    if (session->line != POOL_NONE)
        pool_give(&session->sink->lines, session->line);
    session->line = POOL_NONE;
}

void session_free(struct session *session) {
    struct sink *sink = session->sink;
    timer_cancel(sink, session);
    transaction_end(session);
    session_give_line(session);
    free(session->parked);
    for (uint32_t i = 0; i < sink->flush_count; i++)
        if (sink->to_flush[i] == session)
            sink->to_flush[i] = sink->to_flush[--sink->flush_count];
    pool_give(&sink->sessions, session_index(sink, session));
}

/* A stream may not be flushed from inside its events. */
static void session_flush_later(struct session *session) {
    struct sink *sink = session->sink;
    if ((sink->flush_count == 0 || sink->to_flush[sink->flush_count - 1] != session) && sink->flush_count < FLUSHES_MAX)
        sink->to_flush[sink->flush_count++] = session;
}

void session_flush(struct session *session) {
    struct sink *sink = session->sink;
    uint32_t count = sink->out_count;
    if (count == 0)
        return;
    sink->out_count = 0;
    int code = stream_send(&session->stream, sink->out, count, sink->now_us);
    if (code != 0) {
        sink->tally.replies_lost++;
        session_abort(session);
    } else if (session->stream.tls != NULL && sink->fed == session) {
        sink->unflushed = true;
    } else if (session->stream.tls != NULL && sink->polls) {
        session_flush_later(session);
    } else {
        stream_flush(&session->stream, sink->now_us);
    }
}

/* Is this what follows the last piece where that lies? */
static bool reply_goes_on(const struct sink *sink, struct reply reply) {
    const struct tcp_piece *last = &sink->out[sink->out_count - 1];
    const char *end = (const char *)last->bytes + last->length;
    return end >= sink->run.text && end + reply.length <= sink->run.text + sink->run.length && memcmp(end, reply.text, reply.length) == 0;
}

/* Replies to pipelined commands leave together, in one segment where they fit. */
static void session_gather(struct session *session, struct reply reply) {
    struct sink *sink = session->sink;
    if (sink->out_count > 0 && reply_goes_on(sink, reply)) {
        sink->out[sink->out_count - 1].length += reply.length;
        return;
    }
    if (reply.text == sink->replies[REPLY_MAIL_OK].text)
        reply.text = sink->run.text;
    sink->out[sink->out_count++] = (struct tcp_piece){.bytes = (const uint8_t *)reply.text, .length = reply.length};
    if (sink->out_count == OUT_PIECES)
        session_flush(session);
}

static void session_go_on(struct session *session, enum session_then then) {
    if (session->state == SESSION_ENDING)
        return;
    if (then == THEN_CLOSE)
        session_close(session);
    else if (then == THEN_TEXT)
        session_enter(session, SESSION_TEXT);
    else if (then == THEN_ANSWER)
        session_enter(session, SESSION_ANSWER);
    else if (then == THEN_SECURE)
        session_secure(session);
}

void session_say(struct session *session, struct reply reply, enum session_then then, uint64_t delay_us) {
    if (delay_us == 0) {
        session_gather(session, reply);
        session_go_on(session, then);
        return;
    }
    session_flush(session); /* what was said before is not delayed */
    session->reply = reply;
    session->then = (uint8_t)then;
    session->flags |= SESSION_HELD;
    timer_set(session->sink, session, session->sink->now_us + delay_us);
}

static void slow_down(struct session *session) {
    uint32_t rate = session->bytes_per_second;
    uint64_t step_us = rate < 1000000 / SLOW_STEP_US ? 1000000 / rate : SLOW_STEP_US;
    timer_set(session->sink, session, session->sink->now_us + step_us);
}

static uint32_t slow_allowance(const struct session *session) {
    uint32_t bytes = (uint32_t)((uint64_t)session->bytes_per_second * SLOW_STEP_US / 1000000);
    return bytes == 0 ? 1 : bytes;
}

static uint32_t session_take(struct session *session, const uint8_t *bytes, uint32_t length);

static void session_park(struct session *session, const uint8_t *bytes, uint32_t length) {
    uint32_t have = session->parked == NULL ? 0 : session->parked->length;
    if (session->parked == NULL || session->parked->room - have < length) {
        struct parked *more = realloc(session->parked, sizeof(*more) + have + length);
        if (more == NULL) {
            session_abort(session);
            return;
        }
        more->length = have;
        more->room = have + length;
        session->parked = more;
    }
    memcpy(session->parked->bytes + have, bytes, length);
    session->parked->length += length;
}

/* Goes on with what was decrypted and had to wait. */
static void session_unpark(struct session *session) {
    struct parked *parked = session->parked;
    if (parked == NULL || session->state == SESSION_ENDING || (session->flags & SESSION_HELD) != 0)
        return;
    uint32_t taken = session_take(session, parked->bytes, parked->length);
    memmove(parked->bytes, parked->bytes + taken, parked->length - taken);
    parked->length -= taken;
    if (parked->length == 0) {
        free(parked);
        session->parked = NULL;
    }
    session_flush(session);
}

void session_decrypted(struct session *session, const uint8_t *bytes, uint32_t length) {
    uint32_t taken = session->parked != NULL ? 0 : session_take(session, bytes, length);
    if (taken < length && session->state != SESSION_ENDING)
        session_park(session, bytes + taken, length - taken);
}

void session_timer(struct session *session) {
    if ((session->flags & SESSION_HELD) != 0) {
        session->flags &= (uint8_t)~SESSION_HELD;
        session_gather(session, session->reply);
        session_go_on(session, (enum session_then)session->then);
    } else if ((session->flags & SESSION_SLOW) != 0) {
        session->allowance = slow_allowance(session);
    }
    session_flush(session);
    session_unpark(session);
    if (session->state == SESSION_ENDING || session->parked != NULL)
        return;
    if ((session->flags & SESSION_PEER_CLOSED) != 0)
        session_close(session);
    else
        tcp_receive_resume(session->stream.conn, session->sink->now_us);
}

void session_peer_closed(struct session *session) {
    session->flags |= SESSION_PEER_CLOSED;
    if ((session->flags & SESSION_HELD) == 0)
        session_close(session);
}

/* Does what a verdict says, replies aside. */
static enum consult session_obey(struct session *session, const struct script_verdict *verdict) {
    if (verdict->bytes_per_second != 0) {
        session->bytes_per_second = verdict->bytes_per_second;
        session->allowance = slow_allowance(session);
        session->flags |= SESSION_SLOW;
    }
    const struct script_rule *rule = verdict->rule;
    if (rule == NULL)
        return CONSULT_GO_ON;
    if (rule->action <= SCRIPT_CLOSE)
        return CONSULT_REPLY;
    if (rule->action == SCRIPT_STALL)
        session_enter(session, SESSION_STALLED);
    else if (rule->by_fin)
        session_close(session);
    else
        session_abort(session);
    return CONSULT_OVER;
}

enum consult session_consult(struct session *session, enum script_stage stage, uint64_t key, uint64_t matched,
                             struct script_verdict *verdict) {
    script_decide(session->sink->config.script, stage, key, matched, verdict);
    return session_obey(session, verdict);
}

enum session_then session_then_after(const struct script_rule *rule) {
    return rule->action == SCRIPT_CLOSE || (rule->stage == SCRIPT_BANNER && rule->action <= SCRIPT_DEFER) ? THEN_CLOSE : THEN_COMMAND;
}

bool session_passes(struct session *session, enum script_stage stage, uint64_t *delay_us) {
    struct script_verdict verdict;
    uint64_t key = (uint64_t)session->serial << 32 | session->transactions;
    enum consult consult = session_consult(session, stage, key, UINT64_MAX, &verdict);
    *delay_us = verdict.delay_us;
    if (consult == CONSULT_REPLY)
        session_say(session, verdict.rule->reply, session_then_after(verdict.rule), verdict.delay_us);
    return consult == CONSULT_GO_ON;
}

void session_greet(struct session *session) {
    uint64_t delay_us;
    if (session_passes(session, SCRIPT_BANNER, &delay_us))
        session_say(session, session->sink->banner, THEN_COMMAND, delay_us);
}

void session_begin(const struct sink_listener *listener, struct session *session, struct tcp_conn *conn,
                   const struct script_verdict *connect) {
    struct sink *sink = listener->sink;
    *session = (struct session){.sink = sink,
                                .transaction = POOL_NONE,
                                .line = POOL_NONE,
                                .serial = sink->serial,
                                .state = SESSION_COMMAND,
                                .implicit = listener->implicit,
                                .user = AUTH_USER_NONE};
    stream_accept(&session->stream, &sink_stream_events, conn);
    sink->out_count = 0;
    if (session_obey(session, connect) != CONSULT_GO_ON)
        return;
    if (session->implicit)
        session_secure(session);
    else
        session_greet(session);
    session_flush(session);
}

static void session_hello(struct session *session, const struct command *command) {
    struct sink *sink = session->sink;
    uint64_t delay_us;
    if (!session_passes(session, SCRIPT_EHLO, &delay_us))
        return;
    transaction_end(session); /* RFC 5321 4.1.4 */
    bool extended = command->verb == COMMAND_EHLO;
    session->greeting = extended ? GREETED_EHLO : GREETED_HELO;
    session_say(session, !extended ? sink->hello : session->secure ? sink->ehlo_secure : sink->ehlo, THEN_COMMAND, delay_us);
}

/* RFC 2920 section 3.1: these end a group, whatever else is offered. */
static bool must_be_last(enum command_verb verb) {
    return verb == COMMAND_EHLO || verb == COMMAND_HELO || verb == COMMAND_DATA || verb == COMMAND_VRFY || verb == COMMAND_NOOP ||
           verb == COMMAND_QUIT || verb == COMMAND_STARTTLS || verb == COMMAND_AUTH;
}

uint16_t session_extensions(const struct session *session) {
    uint16_t without = session->secure ? EXTENSION_STARTTLS : EXTENSION_REQUIRETLS;
    return session->greeting == GREETED_EHLO ? session->sink->config.extensions & (uint16_t)~without : 0;
}

static void session_error(struct session *session, const struct command *command) {
    struct sink *sink = session->sink;
    if (command->error == COMMAND_BAD_PARAMETER) {
        sink->tally.errors_parameter++;
        session_say(session, sink->replies[REPLY_PARAMETER], THEN_COMMAND, 0);
    } else {
        sink->tally.errors_syntax++;
        session_say(session, sink->replies[REPLY_SYNTAX], THEN_COMMAND, 0);
    }
}

static void session_do(struct session *session, const struct command *command, bool more) {
    struct sink *sink = session->sink;
    switch (command->verb) {
    case COMMAND_EHLO:
    case COMMAND_HELO:
        session_hello(session, command);
        return;
    case COMMAND_MAIL:
        transaction_mail(session, command);
        return;
    case COMMAND_RCPT:
        transaction_rcpt(session, command);
        return;
    case COMMAND_DATA:
        transaction_data(session);
        return;
    case COMMAND_BDAT:
        transaction_bdat(session, command);
        return;
    case COMMAND_RSET:
        transaction_end(session);
        session_say(session, sink->replies[REPLY_OK], THEN_COMMAND, 0);
        return;
    case COMMAND_NOOP:
        session_say(session, sink->replies[REPLY_OK], THEN_COMMAND, 0);
        return;
    case COMMAND_VRFY:
        session_say(session, sink->replies[REPLY_VRFY], THEN_COMMAND, 0);
        return;
    case COMMAND_QUIT:
        session->flags |= SESSION_QUIT;
        session_say(session, sink->replies[REPLY_BYE], THEN_CLOSE, 0);
        return;
    case COMMAND_STARTTLS:
        session_starttls(session, more);
        return;
    case COMMAND_AUTH:
        session_auth(session, command);
        return;
    case COMMAND_UNKNOWN:
        break;
    }
    sink->tally.errors_unknown++;
    session_say(session, sink->replies[REPLY_UNKNOWN], THEN_COMMAND, 0);
}

/* AUTH and its answers hold tokens. */
static bool may_be_long(const struct session *session, const char *line, uint32_t length) {
    return length <= COMMAND_AUTH_BYTES_MAX && (session->state == SESSION_ANSWER || strncasecmp(line, "AUTH ", 5) == 0);
}

/* One line with its LF. `more` bytes of the client lie behind it. */
static void session_line(struct session *session, const char *line, uint32_t length, bool more) {
    struct sink *sink = session->sink;
    sink->tally.commands++;
    if (length > COMMAND_LINE_BYTES_MAX && !may_be_long(session, line, length))
        session->flags |= SESSION_OVERLONG;
    if ((session->flags & SESSION_OVERLONG) != 0) {
        session->flags &= (uint8_t)~SESSION_OVERLONG;
        if (session->state == SESSION_ANSWER)
            session_enter(session, SESSION_COMMAND);
        sink->tally.errors_command_overlong++;
        session_say(session, sink->replies[REPLY_OVERLONG], THEN_COMMAND, 0);
        return;
    }
    if (length < 2 || line[length - 2] != '\r') {
        sink->tally.errors_command_bare_lf++;
        session_say(session, sink->replies[REPLY_BARE_LF], THEN_COMMAND, 0);
        return;
    }
    if (session->state == SESSION_ANSWER) {
        session_answer(session, line, length - 2);
        return;
    }
    struct command command;
    uint16_t extensions = session_extensions(session);
    command_parse(&command, line, length - 2, extensions);
    if (more && (must_be_last(command.verb) || ((extensions & EXTENSION_PIPELINING) == 0 && command.verb != COMMAND_BDAT)))
        sink->tally.errors_pipelining++;
    if (command.error != COMMAND_GOOD)
        session_error(session, &command);
    else
        session_do(session, &command, more);
}

/* The beginning of a line whose rest has not come. */
static void session_keep(struct session *session, const uint8_t *bytes, uint32_t length) {
    struct sink *sink = session->sink;
    if ((session->flags & SESSION_OVERLONG) != 0)
        return;
    if (session->line == POOL_NONE) {
        session->line = pool_take(&sink->lines);
        if (session->line == POOL_NONE) {
            sink->tally.no_line_free++;
            session_abort(session);
            return;
        }
        ((struct line *)pool_at(&sink->lines, session->line))->length = 0;
    }
    struct line *line = pool_at(&sink->lines, session->line);
    if (length > sizeof(line->bytes) - line->length) {
        session->flags |= SESSION_OVERLONG;
        session_give_line(session);
        return;
    }
    memcpy(line->bytes + line->length, bytes, length);
    line->length += length;
}

static uint32_t session_command(struct session *session, const uint8_t *bytes, uint32_t length) {
    const uint8_t *end = memchr(bytes, '\n', length);
    if (end == NULL) {
        session_keep(session, bytes, length);
        return length;
    }
    uint32_t taken = (uint32_t)(end - bytes) + 1;
    if (session->line == POOL_NONE) {
        session_line(session, (const char *)bytes, taken, taken < length);
        return taken;
    }
    session_keep(session, bytes, taken);
    /* The loan ends before the line is done, and its bytes stay until another session is served. */
    struct line *line = session->line == POOL_NONE ? NULL : pool_at(&session->sink->lines, session->line);
    session_line(session, line == NULL ? "" : line->bytes, line == NULL ? 0 : line->length, taken < length);
    session_give_line(session);
    return taken;
}

static uint32_t session_take(struct session *session, const uint8_t *bytes, uint32_t length) {
    uint32_t at = 0;
    while (at < length && (session->flags & SESSION_HELD) == 0) {
        switch ((enum session_state)session->state) {
        case SESSION_COMMAND:
        case SESSION_ANSWER:
            at += session_command(session, bytes + at, length - at);
            break;
        case SESSION_TEXT:
            at += transaction_text(session, bytes + at, length - at);
            break;
        case SESSION_CHUNK:
            at += transaction_chunk(session, bytes + at, length - at);
            break;
        case SESSION_HANDSHAKE:
            return at; /* the rest is TLS's */
        case SESSION_STALLED:
        case SESSION_ENDING:
            return length;
        }
    }
    return at;
}

/* Within TLS all of it is taken: what is decrypted meanwhile comes by session_decrypted. */
static uint32_t session_feed(struct session *session, const uint8_t *bytes, uint32_t length) {
    struct sink *sink = session->sink;
    if (session->stream.tls == NULL)
        return session_take(session, bytes, length);
    return sink->stream_received(&session->stream, session->stream.conn, bytes, length, sink->now_us);
}

uint32_t session_input(struct session *session, const uint8_t *bytes, uint32_t length) {
    if ((session->flags & SESSION_HELD) != 0)
        return 0;
    if ((session->flags & SESSION_SLOW) == 0)
        return session_feed(session, bytes, length);
    uint32_t some = length < session->allowance ? length : session->allowance;
    uint32_t taken = session_feed(session, bytes, some);
    session->allowance -= taken;
    if (taken < length && (session->flags & SESSION_HELD) == 0 && session->state != SESSION_ENDING)
        slow_down(session);
    return taken;
}
