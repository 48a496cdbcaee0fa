/* sink.c: a worker's SMTP server as TCP sees it, and the replies that it has ready. */
#include "session.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/coding.h>

enum { REPLY_TEXT_BYTES = 8192 };

/* "250 2.1.0 Ok" or, where enhanced codes are not offered, "250 Ok" (RFC 2034). */
static char *reply_make(const struct sink *sink, const char *text, char *at, struct reply *reply) {
    bool enhanced = (sink->config.extensions & EXTENSION_ENHANCEDSTATUSCODES) != 0;
    bool has_code = isdigit((unsigned char)text[4]) && text[5] == '.';
    const char *rest = text + 4;
    if (has_code && !enhanced)
        rest = strchr(rest, ' ') + 1;
    int length = sprintf(at, "%.4s%s\r\n", text, rest);
    *reply = (struct reply){at, (uint32_t)length};
    return at + length;
}

static char *line_add(char *at, const char *text) {
    return at + sprintf(at, "250-%s\r\n", text);
}

static char *line_add_auth(const struct sink *sink, char *at) {
    at += sprintf(at, "250-AUTH");
    for (int i = 0; i < AUTH_MECHANISMS; i++)
        if ((sink->config.mechanisms >> i & 1) != 0)
            at += sprintf(at, " %s", auth_mechanism_text((enum auth_mechanism)i));
    return at + sprintf(at, "\r\n");
}

static char *line_add_limits(const struct sink *sink, char *at) {
    at += sprintf(at, "250-LIMITS RCPTMAX=%u", sink->config.recipients_max);
    if (sink->config.mails_max != 0)
        at += sprintf(at, " MAILMAX=%u", sink->config.mails_max);
    return at + sprintf(at, "\r\n");
}

static char *ehlo_make(const struct sink *sink, uint16_t extensions, char *at, struct reply *reply) {
    static const struct {
        enum command_extension extension;
        const char *keyword;
    } words[] = {{EXTENSION_PIPELINING, "PIPELINING"}, {EXTENSION_CHUNKING, "CHUNKING"},
                 {EXTENSION_8BITMIME, "8BITMIME"},     {EXTENSION_ENHANCEDSTATUSCODES, "ENHANCEDSTATUSCODES"},
                 {EXTENSION_SMTPUTF8, "SMTPUTF8"},     {EXTENSION_DSN, "DSN"},
                 {EXTENSION_REQUIRETLS, "REQUIRETLS"}, {EXTENSION_STARTTLS, "STARTTLS"}};
    char *from = at, *last = at;
    at = line_add(at, sink->config.name);
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if ((extensions & words[i].extension) != 0) {
            last = at;
            at = line_add(at, words[i].keyword);
        }
    }
    if ((extensions & EXTENSION_AUTH) != 0) {
        last = at;
        at = line_add_auth(sink, at);
    }
    if ((extensions & EXTENSION_LIMITS) != 0) {
        last = at;
        at = line_add_limits(sink, at);
    }
    if ((extensions & EXTENSION_SIZE) != 0) {
        last = at;
        at += sprintf(at, "250-SIZE %llu\r\n", (unsigned long long)sink->config.size_max);
    }
    last[3] = ' ';
    *reply = (struct reply){from, (uint32_t)(at - from)};
    return at;
}

static char *run_make(struct sink *sink, char *at) {
    static const enum reply_name names[] = {REPLY_MAIL_OK, REPLY_RCPT_OK, REPLY_ACCEPTED};
    sink->run = (struct reply){.text = at};
    for (uint32_t i = 0; i < RUN_TRANSACTIONS * sizeof(names) / sizeof(names[0]); i++) {
        const struct reply *reply = &sink->replies[names[i % (sizeof(names) / sizeof(names[0]))]];
        memcpy(at, reply->text, reply->length);
        at += reply->length;
        sink->run.length += reply->length;
    }
    return at;
}

static int make_replies(struct sink *sink) {
    static const char *const texts[REPLY_COUNT] = {
#define X(name, text) text,
        SINK_REPLIES(X)
#undef X
    };
    sink->reply_text = malloc(REPLY_TEXT_BYTES);
    if (sink->reply_text == NULL)
        return -ENOMEM;
    char *at = sink->reply_text;
    for (int i = 0; i < REPLY_COUNT; i++)
        at = reply_make(sink, texts[i], at, &sink->replies[i]);
    at = ehlo_make(sink, sink->config.extensions & (uint16_t)~EXTENSION_REQUIRETLS, at, &sink->ehlo);
    at = ehlo_make(sink, sink->config.extensions & (uint16_t)~EXTENSION_STARTTLS, at, &sink->ehlo_secure);
    assert(at != NULL); /* gcc 14 believes otherwise when it checks pointers */
    sink->hello = (struct reply){at, (uint32_t)sprintf(at, "250 %s\r\n", sink->config.name)};
    at += sink->hello.length;
    at = run_make(sink, at);
    sink->banner = (struct reply){at, (uint32_t)sprintf(at, "220 %s ESMTP bypost-sink\r\n", sink->config.name)};
    return 0;
}

/* RFC 2195: what nobody can have seen. */
static int make_challenges(struct sink *sink) {
    for (uint32_t i = 0; i < CHALLENGES; i++) {
        struct challenge *challenge = &sink->challenges[i];
        uint64_t random[2];
        word32 room = sizeof(challenge->line) - 8;
        if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
            return -EIO;
        snprintf(challenge->text, sizeof(challenge->text), "<%llx.%llx@%.64s>", (unsigned long long)random[0],
                 (unsigned long long)random[1], sink->config.name);
        strcpy(challenge->line, "334 ");
        if (Base64_Encode_NoNl((const byte *)challenge->text, (word32)strlen(challenge->text), (byte *)challenge->line + 4, &room) != 0)
            return -EIO;
        strcpy(challenge->line + 4 + room, "\r\n");
        challenge->reply = (struct reply){challenge->line, 4 + room + 2};
    }
    return 0;
}

struct sink *sink_create(const struct sink_config *config) {
    if (strlen(config->name) > 255 || config->max_sessions == 0 || config->max_transactions == 0) {
        errno = EINVAL;
        return NULL;
    }
    struct sink *sink = calloc(1, sizeof(*sink));
    if (sink == NULL)
        return NULL;
    sink->config = *config;
    if (config->tls == NULL)
        sink->config.extensions &= (uint16_t) ~(EXTENSION_STARTTLS | EXTENSION_REQUIRETLS);
    if (config->users == NULL || config->mechanisms == 0)
        sink->config.extensions &= (uint16_t)~EXTENSION_AUTH;
    for (int implicit = 0; implicit < 2; implicit++)
        sink->listeners[implicit] = (struct sink_listener){.sink = sink, .implicit = implicit == 1};
    struct tcp_events events;
    stream_tcp_events(&events);
    sink->stream_received = events.received;
    for (uint32_t slot = 0; slot < WHEEL_SLOTS; slot++)
        sink->wheel[slot] = POOL_NONE;
    size_t transaction_bytes = sizeof(struct transaction) + (config->record != NULL ? RECORD_RECIPIENTS_BYTES : 0);
    int code = make_replies(sink);
    if (code == 0 && config->users != NULL)
        code = make_challenges(sink);
    if (code == 0)
        code = pool_create(&sink->sessions, config->max_sessions, sizeof(struct session));
    if (code == 0)
        code = pool_create(&sink->transactions, config->max_transactions, (transaction_bytes + 63) & ~(size_t)63);
    if (code == 0)
        code = pool_create(&sink->lines, config->max_transactions, sizeof(struct line));
    if (code != 0) {
        sink_destroy(sink);
        errno = -code;
        return NULL;
    }
    return sink;
}

void sink_destroy(struct sink *sink) {
    pool_destroy(&sink->sessions);
    pool_destroy(&sink->transactions);
    pool_destroy(&sink->lines);
    free(sink->reply_text);
    free(sink);
}

void *sink_listener(struct sink *sink, bool implicit) {
    return &sink->listeners[implicit ? 1 : 0];
}

static void *sink_accepted(void *user, struct tcp_conn *conn, uint64_t now_us) {
    const struct sink_listener *listener = user;
    struct sink *sink = listener->sink;
    struct script_verdict connect;
    sink->now_us = now_us;
    sink->serial++;
    script_decide(sink->config.script, SCRIPT_CONNECT, sink->serial, UINT64_MAX, &connect);
    bool reset = connect.rule != NULL && connect.rule->action == SCRIPT_DROP && !connect.rule->by_fin;
    uint32_t index = reset ? POOL_NONE : pool_take(&sink->sessions);
    if (index == POOL_NONE) {
        sink->tally.connections_refused++;
        return NULL;
    }
    struct session *session = session_at(sink, index);
    sink->tally.connections++;
    session_begin(listener, session, conn, &connect);
    return session;
}

/* In the place of the stream's own, which takes everything: a session that waits takes nothing, and TCP's window closes. */
static uint32_t sink_received(void *user, struct tcp_conn *conn, const uint8_t *bytes, uint32_t length, uint64_t now_us) {
    struct session *session = user;
    struct sink *sink = session->sink;
    sink->now_us = now_us;
    sink->fed = session;
    uint32_t taken = session_input(session, bytes, length);
    session_flush(session);
    sink->fed = NULL;
    if (sink->unflushed) {
        sink->unflushed = false;
        if (session->state != SESSION_ENDING)
            stream_flush(&session->stream, now_us);
    }
    return taken;
}

static void stream_received(struct stream *stream, const uint8_t *bytes, uint32_t length, uint64_t now_us) {
    struct session *session = (struct session *)stream;
    session->sink->now_us = now_us;
    session_decrypted(session, bytes, length);
    session_flush(session);
}

static void stream_peer_closed(struct stream *stream, uint64_t now_us) {
    struct session *session = (struct session *)stream;
    session->sink->now_us = now_us;
    session_peer_closed(session);
}

static void stream_secured(struct stream *stream, uint64_t now_us) {
    struct session *session = (struct session *)stream;
    session->sink->now_us = now_us;
    session_secured(session);
    session_flush(session);
}

static void stream_insecure(struct stream *stream, enum tls_failure failure, const char *why, uint64_t now_us) {
    struct session *session = (struct session *)stream;
    session->sink->now_us = now_us;
    session_insecure(session);
}

static void stream_connected(struct stream *stream, uint64_t now_us) {}

static void stream_acknowledged(struct stream *stream, uint64_t now_us) {}

static void stream_closed(struct stream *stream, enum tcp_error error, uint64_t now_us) {
    struct session *session = (struct session *)stream;
    struct tally *tally = &session->sink->tally;
    if (error == TCP_OK || (session->flags & SESSION_QUIT) != 0)
        tally->connections_closed++;
    else
        tally->connections_lost++;
    session_free(session);
}

const struct stream_events sink_stream_events = {.connected = stream_connected,
                                                 .received = stream_received,
                                                 .peer_closed = stream_peer_closed,
                                                 .acknowledged = stream_acknowledged,
                                                 .closed = stream_closed,
                                                 .secured = stream_secured,
                                                 .insecure = stream_insecure};

struct tcp_events sink_events(void) {
    struct tcp_events events;
    stream_tcp_events(&events);
    events.received = sink_received;
    events.accepted = sink_accepted;
    return events;
}

const struct tally *sink_tally(const struct sink *sink) {
    return &sink->tally;
}

uint32_t sink_sessions(const struct sink *sink) {
    return sink->sessions.in_use;
}

size_t sink_session_bytes(void) {
    return sizeof(struct session);
}

size_t sink_memory_bytes(const struct sink *sink) {
    return sink->sessions.capacity * sink->sessions.item_bytes + sink->transactions.capacity * sink->transactions.item_bytes +
           sink->lines.capacity * sink->lines.item_bytes;
}
