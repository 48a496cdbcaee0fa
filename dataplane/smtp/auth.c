/* auth.c: AUTH (RFC 4954): PLAIN (RFC 4616), LOGIN, CRAM-MD5 (RFC 2195), XOAUTH2 and OAUTHBEARER (RFC 7628). Secrets live in the lane's
 * copy of the path and, for as long as they are on their way, in command buffers that are wiped when the stack gives them back. */
#include "endpoint.h"
#include "engine.h"
#include "phase.h"
#include "transaction.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/coding.h>
#include <wolfssl/wolfcrypt/hmac.h>

/* What is said next, or was said last. */
enum auth_step {
    STEP_COMMAND,  /* AUTH and the mechanism, the initial response with it where it fits */
    STEP_RESPONSE, /* the answer to the first challenge */
    STEP_PASSWORD, /* LOGIN: the answer to the second */
    STEP_EMPTY,    /* XOAUTH2, OAUTHBEARER: the challenge told an error, and the server waits for this before it says 535 */
    STEP_CANCEL,   /* `*` */
};

enum {
    RAW_MAX_BYTES = PATH_STRINGS_BYTES + 3 * PATH_TEXT_MAX + 512, /* of a response before base64: user (escaped), host and secret */
    REDACTED_WORD_BYTES = 20, /* what looks like base64 and is as long as this is not shown: servers repeat what they were told */
};
static_assert(RAW_MAX_BYTES / 3 * 4 + 8 <= AUTH_RESPONSE_MAX_BYTES, "every response fits a line of RFC 4954 section 4");
static_assert(CAP_AUTH_PLAIN == PATH_AUTH_PLAIN << 10 && CAP_AUTH_LOGIN == PATH_AUTH_LOGIN << 10 &&
                  CAP_AUTH_CRAM_MD5 == PATH_AUTH_CRAM_MD5 << 10 && CAP_AUTH_XOAUTH2 == PATH_AUTH_XOAUTH2 << 10 &&
                  CAP_AUTH_OAUTHBEARER == PATH_AUTH_OAUTHBEARER << 10,
              "the bits of what is offered are those of what is allowed, moved by ten");

enum { PASSWORD_MECHANISMS = PATH_AUTH_PLAIN | PATH_AUTH_LOGIN | PATH_AUTH_CRAM_MD5 };

static const char *mechanism_name(uint8_t mechanism) {
    switch (mechanism) {
    case PATH_AUTH_PLAIN:
        return "PLAIN";
    case PATH_AUTH_LOGIN:
        return "LOGIN";
    case PATH_AUTH_CRAM_MD5:
        return "CRAM-MD5";
    case PATH_AUTH_XOAUTH2:
        return "XOAUTH2";
    case PATH_AUTH_OAUTHBEARER:
        return "OAUTHBEARER";
    }
    return "AUTH";
}

static bool takes_token(uint8_t mechanism) {
    return mechanism & (PATH_AUTH_XOAUTH2 | PATH_AUTH_OAUTHBEARER);
}

static const char *user_of(const struct smtp_session *session) {
    return session->lane->path.strings + session->lane->path.auth_user;
}
static const char *secret_of(const struct smtp_session *session) {
    return session->lane->path.strings + session->lane->path.auth_secret;
}

/* ---- failing ---- */

/* Copies the server's words without what may be our secret in them. */
static void redact(const struct smtp_session *session, const struct reply *reply, char *text, size_t text_bytes) {
    size_t length = reply->text_length < text_bytes - 1 ? reply->text_length : text_bytes - 1, word = 0;
    memcpy(text, reply->text, length);
    text[length] = '\0';
    for (size_t i = 0; i <= length; i++) {
        unsigned char byte = (unsigned char)text[i];
        if ((byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') || byte == '+' || byte == '/' ||
            byte == '=') {
            word++;
            continue;
        }
        if (word >= REDACTED_WORD_BYTES)
            memset(text + i - word, '*', word);
        word = 0;
    }
    const char *secret = secret_of(session);
    size_t secret_length = strlen(secret);
    for (char *at = text; secret_length && (at = strstr(at, secret)); at += secret_length)
        memset(at, '*', secret_length);
}

static void fail(struct smtp_session *session, const struct reply *reply, const char *why, uint64_t now_us) {
    char server[PHASE_NAME_BYTES], text[PHASE_NAME_BYTES + 2 * PATH_EVENT_TEXT_BYTES], said[PATH_EVENT_TEXT_BYTES] = "";
    phase_server(session, server);
    if (reply)
        redact(session, reply, said, sizeof(said));
    if (why)
        snprintf(text, sizeof(text), "%s: %s", server, why);
    else
        snprintf(text, sizeof(text), "%s: AUTH %s is refused: %s", server, mechanism_name(session->auth_mechanism), said);
    session_post(session, PATH_EVENT_AUTH_FAILED, session->auth_mechanism, reply, text, now_us);
    lane_auth_failed(session->lane, session->endpoint, reply && reply->code / 100 == 5, now_us);
}

/* ---- choosing ---- */

/* The best of those, or 0. A token or a password in plain needs the configuration's word for it; CRAM-MD5 shows neither. */
static uint8_t choose(const struct smtp_session *session, uint32_t mechanisms) {
    static const uint8_t under_tls[] = {PATH_AUTH_OAUTHBEARER, PATH_AUTH_XOAUTH2, PATH_AUTH_PLAIN, PATH_AUTH_LOGIN, PATH_AUTH_CRAM_MD5};
    static const uint8_t in_plain[] = {PATH_AUTH_CRAM_MD5, PATH_AUTH_OAUTHBEARER, PATH_AUTH_XOAUTH2, PATH_AUTH_PLAIN, PATH_AUTH_LOGIN};
    bool secure = session->security & SESSION_SECURE;
    if (!secure && !(session->lane->path.flags & PATH_AUTH_PLAINTEXT))
        mechanisms &= PATH_AUTH_CRAM_MD5;
    const uint8_t *order = secure ? under_tls : in_plain;
    for (size_t i = 0; i < sizeof(under_tls); i++) {
        if (mechanisms & order[i])
            return order[i];
    }
    return 0;
}

static uint32_t usable(const struct smtp_session *session) {
    uint32_t allowed = session->lane->path.auth_mechanisms ? session->lane->path.auth_mechanisms : PASSWORD_MECHANISMS;
    return allowed & session->capabilities.flags >> 10;
}

static bool begin_with_best(struct smtp_session *session, uint64_t now_us) {
    uint8_t best = choose(session, usable(session) & ~(uint32_t)session->auth_tried);
    if (!best)
        return false;
    session->auth_mechanism = best;
    session->auth_tried |= best;
    session->auth_step = STEP_COMMAND;
    session_enter(session, SESSION_AUTH, now_us);
    session_say(session, now_us);
    return true;
}

void auth_begin(struct smtp_session *session, uint64_t now_us) {
    if (lane_auth_rests(session->lane, now_us)) {
        session_quit(session, now_us); /* another session was just refused with the same credentials */
        return;
    }
    session->phase_until_us = now_us + session->lane->path.timeouts.ehlo * UINT64_C(1000);
    if (begin_with_best(session, now_us))
        return;
    const char *why = "the server offers no AUTH mechanism that may be used. See auth_mechanisms of the relay";
    if (usable(session))
        why = "the server offers AUTH without TLS, and a password or token goes in plain only with auth_without_tls";
    else if (!(session->capabilities.flags >> 10 & (PASSWORD_MECHANISMS | PATH_AUTH_XOAUTH2 | PATH_AUTH_OAUTHBEARER)))
        why = session->security & SESSION_SECURE ? "the server does not offer AUTH"
                                                 : "the server does not offer AUTH on a connection without TLS";
    fail(session, NULL, why, now_us);
    session_quit(session, now_us);
}

/* ---- saying ---- */

/* Bytes that are built up and encoded; what did not fit shows as `full`. */
struct raw {
    uint8_t bytes[RAW_MAX_BYTES];
    uint32_t length;
    bool full;
};

static void put(struct raw *raw, const void *bytes, size_t length) {
    raw->full |= length > sizeof(raw->bytes) - raw->length;
    if (raw->full)
        return;
    memcpy(raw->bytes + raw->length, bytes, length);
    raw->length += (uint32_t)length;
}

static void put_text(struct raw *raw, const char *text) {
    put(raw, text, strlen(text));
}

/* RFC 5801 section 4: a saslname has no comma and no equals sign. */
static void put_saslname(struct raw *raw, const char *name) {
    for (; *name; name++) {
        if (*name == ',' || *name == '=')
            put_text(raw, *name == ',' ? "=2C" : "=3D");
        else
            put(raw, name, 1);
    }
}

static void build_oauthbearer(const struct smtp_session *session, struct raw *raw) {
    char server[PHASE_NAME_BYTES], port[8];
    const struct path_endpoint *endpoint = &session->lane->path.endpoints[session->endpoint];
    phase_server(session, server);
    snprintf(port, sizeof(port), "%u", endpoint->port);
    put_text(raw, "n,a=");
    put_saslname(raw, user_of(session));
    put_text(raw, ",\x01host=");
    put_text(raw, server);
    put_text(raw, "\x01port=");
    put_text(raw, port);
    put_text(raw, "\x01"
                  "auth=Bearer ");
    put_text(raw, secret_of(session));
    put_text(raw, "\x01\x01");
}

/* What the step answers, before base64. */
static void build(const struct smtp_session *session, struct raw *raw) {
    raw->length = 0;
    raw->full = false;
    switch (session->auth_mechanism) {
    case PATH_AUTH_PLAIN:
        put(raw, "", 1);
        put_text(raw, user_of(session));
        put(raw, "", 1);
        put_text(raw, secret_of(session));
        break;
    case PATH_AUTH_LOGIN:
        put_text(raw, session->auth_step == STEP_PASSWORD ? secret_of(session) : user_of(session));
        break;
    case PATH_AUTH_CRAM_MD5:
        put_text(raw, user_of(session));
        put_text(raw, " ");
        for (size_t i = 0; i < sizeof(session->auth_digest); i++) {
            char hex[3];
            snprintf(hex, sizeof(hex), "%02x", session->auth_digest[i]);
            put_text(raw, hex);
        }
        break;
    case PATH_AUTH_XOAUTH2:
        put_text(raw, "user=");
        put_text(raw, user_of(session));
        put_text(raw, "\x01"
                      "auth=Bearer ");
        put_text(raw, secret_of(session));
        put_text(raw, "\x01\x01");
        break;
    default:
        build_oauthbearer(session, raw);
    }
}

/* Appends the step's response in base64 to a line. False: it does not fit. */
static bool append_response(const struct smtp_session *session, char *line, uint32_t *length, uint32_t most_bytes) {
    struct raw raw;
    word32 room = most_bytes - *length - 2; /* for the line's end */
    build(session, &raw);
    bool fits = !raw.full && (raw.length + 2) / 3 * 4 <= room;
    if (fits && raw.length)
        fits = Base64_Encode_NoNl(raw.bytes, raw.length, (byte *)line + *length, &room) == 0;
    if (fits)
        *length += (raw.length + 2) / 3 * 4;
    explicit_bzero(&raw, sizeof(raw));
    return fits;
}

/* With an initial response, except for those that answer a challenge and for what makes a line too long (RFC 4954 section 4). */
static uint32_t build_command(struct smtp_session *session, char *line) {
    int length = sprintf(line, "AUTH %s", mechanism_name(session->auth_mechanism));
    uint32_t bare = (uint32_t)length, with = bare;
    session->auth_initial = false;
    if (session->auth_mechanism == PATH_AUTH_LOGIN || session->auth_mechanism == PATH_AUTH_CRAM_MD5)
        return bare;
    line[with++] = ' ';
    session->auth_initial = append_response(session, line, &with, AUTH_LINE_MAX_BYTES);
    if (line[with - 1] == ' ')
        line[with++] = '='; /* nothing, as an initial response */
    return session->auth_initial ? with : bare;
}

/* The command's buffer held a secret. */
static void release_wiped(struct tcp_owner *owner) {
    struct command *command = (struct command *)owner;
    explicit_bzero(command->text, sizeof(command->text));
    pool_give(command->pool, command);
}

/* A line in as many buffers as it needs, all queued or none. */
static int send_line(struct smtp_session *session, const char *line, uint32_t length, uint64_t now_us) {
    enum { BUFFERS_MAX = AUTH_RESPONSE_MAX_BYTES / COMMAND_TEXT_BYTES + 1 };
    struct command *buffers[BUFFERS_MAX];
    struct tcp_piece pieces[BUFFERS_MAX];
    uint32_t count = 0;
    int error = 0;
    for (uint32_t at = 0; at < length; count++) {
        struct command *command = count < BUFFERS_MAX ? command_take(&session->lane->engine->commands) : NULL;
        if (!command) {
            error = -ENOBUFS;
            break;
        }
        uint32_t part = length - at < COMMAND_TEXT_BYTES ? length - at : COMMAND_TEXT_BYTES;
        command->owner.release = release_wiped;
        memcpy(command->text, line + at, part);
        pieces[count] = (struct tcp_piece){.bytes = (const uint8_t *)command->text, .length = part, .owner = &command->owner};
        buffers[count] = command;
        at += part;
    }
    if (!error)
        error = stream_send(&session->stream, pieces, count, now_us);
    for (uint32_t i = 0; i < count; i++) {
        if (--buffers[i]->owner.references == 0)
            release_wiped(&buffers[i]->owner);
    }
    return error;
}

int auth_say(struct smtp_session *session, uint64_t now_us) {
    char line[AUTH_RESPONSE_MAX_BYTES];
    uint32_t length = 0;
    switch ((enum auth_step)session->auth_step) {
    case STEP_COMMAND:
        length = build_command(session, line);
        break;
    case STEP_RESPONSE:
    case STEP_PASSWORD:
        if (!append_response(session, line, &length, sizeof(line)))
            return -EMSGSIZE; /* the strings of a path cannot be so long */
        break;
    case STEP_EMPTY: /* RFC 7628 section 3.2.3: a lone ^A; XOAUTH2 wants nothing at all */
        length = session->auth_mechanism == PATH_AUTH_OAUTHBEARER ? 4 : 0;
        memcpy(line, "AQ==", length);
        break;
    case STEP_CANCEL:
        line[length++] = '*';
    }
    memcpy(line + length, "\r\n", 2);
    int error = send_line(session, line, length + 2, now_us);
    explicit_bzero(line, length);
    return error;
}

/* ---- hearing ---- */

/* The challenge's bytes; -1 when it is not base64, or too long to have been kept whole. */
static int decode_challenge(const struct reply *reply, uint8_t challenge[REPLY_TEXT_MAX]) {
    word32 length = REPLY_TEXT_MAX;
    if (reply->text_length == 0)
        return 0;
    if (reply->text_length >= REPLY_TEXT_MAX || reply->text_length % 4 || memchr(reply->text, ' ', reply->text_length) ||
        Base64_Decode((const byte *)reply->text, reply->text_length, challenge, &length) != 0)
        return -1;
    return (int)length;
}

/* RFC 2195: the challenge keyed with the password. */
static bool digest(struct smtp_session *session, const uint8_t *challenge, uint32_t length) {
    Hmac hmac;
    const char *secret = secret_of(session);
    bool fine = wc_HmacInit(&hmac, NULL, INVALID_DEVID) == 0;
    fine = fine && wc_HmacSetKey(&hmac, WC_MD5, (const byte *)secret, (word32)strlen(secret)) == 0 &&
           wc_HmacUpdate(&hmac, challenge, length) == 0 && wc_HmacFinal(&hmac, session->auth_digest) == 0;
    wc_HmacFree(&hmac);
    explicit_bzero(&hmac, sizeof(hmac));
    return fine;
}
static_assert(sizeof(((struct smtp_session *)0)->auth_digest) == WC_MD5_DIGEST_SIZE, "CRAM-MD5");

/* The step that a challenge asks for. */
static enum auth_step next_step(struct smtp_session *session, const struct reply *reply) {
    uint8_t challenge[REPLY_TEXT_MAX];
    enum auth_step said = (enum auth_step)session->auth_step;
    bool responded = said == STEP_RESPONSE || (said == STEP_COMMAND && session->auth_initial);
    if (++session->auth_rounds > AUTH_ROUNDS_MAX)
        return STEP_CANCEL;
    if (responded && takes_token(session->auth_mechanism))
        return STEP_EMPTY; /* what it says of the error is JSON for programs; the reply that follows is for people */
    int length = decode_challenge(reply, challenge);
    if (length < 0)
        return STEP_CANCEL;
    if (said == STEP_RESPONSE && session->auth_mechanism == PATH_AUTH_LOGIN)
        return STEP_PASSWORD;
    if (responded || said != STEP_COMMAND)
        return STEP_CANCEL;
    if (session->auth_mechanism == PATH_AUTH_CRAM_MD5 && !digest(session, challenge, (uint32_t)length))
        return STEP_CANCEL;
    return STEP_RESPONSE;
}

static void take_challenge(struct smtp_session *session, const struct reply *reply, uint64_t now_us) {
    if (session->auth_step == STEP_CANCEL) {
        fail(session, NULL, "the server goes on with challenges after AUTH was cancelled", now_us);
        session_close(session, now_us);
        return;
    }
    session->auth_step = (uint8_t)next_step(session, reply);
    session_enter(session, SESSION_AUTH, now_us);
    session_say(session, now_us);
}

/* Were the credentials said whole, so that the server can judge them? */
static bool is_said(const struct smtp_session *session) {
    switch ((enum auth_step)session->auth_step) {
    case STEP_COMMAND:
        return session->auth_initial;
    case STEP_RESPONSE:
        return session->auth_mechanism != PATH_AUTH_LOGIN;
    case STEP_PASSWORD:
        return true;
    case STEP_EMPTY:
    case STEP_CANCEL:
        break;
    }
    return false;
}

/* RFC 4954 section 6: 504 an unknown mechanism, 534 too weak a one, 538 only with encryption: the next one may do. */
static bool wants_another(const struct smtp_session *session, const struct reply *reply) {
    return session->auth_step != STEP_CANCEL && (reply->code == 504 || reply->code == 534 || reply->code == 538);
}

void auth_take(struct smtp_session *session, const struct reply *reply, uint64_t now_us) {
    unsigned class = reply->code / 100;
    if (reply->code == 421) {
        char said[PATH_EVENT_TEXT_BYTES];
        redact(session, reply, said, sizeof(said));
        session_refused(session, reply, said, now_us);
    } else if (class == 2 && is_said(session)) {
        session->security |= SESSION_AUTHENTICATED;
        session_be_ready(session, now_us);
    } else if (reply->code == 334) {
        take_challenge(session, reply, now_us);
    } else if (class < 4) {
        session_protocol_error(session, reply, "the server answered AUTH with a code that does not fit", now_us);
    } else if (!wants_another(session, reply) || !begin_with_best(session, now_us)) {
        char why[128];
        snprintf(why, sizeof(why), "AUTH %s was cancelled: the server's challenge is not one of that mechanism",
                 mechanism_name(session->auth_mechanism));
        fail(session, reply, session->auth_step == STEP_CANCEL ? why : NULL, now_us);
        session_quit(session, now_us);
    }
}
