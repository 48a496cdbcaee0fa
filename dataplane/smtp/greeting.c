/* greeting.c: the banner, EHLO and HELO, and a server that greets with our own name. */
#include "engine.h"
#include "phase.h"
#include "transaction.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char *own_name(const struct smtp_session *session) {
    return session->lane->path.strings + session->lane->path.sources[session->source].ehlo;
}

/* Does the server greet with our own name? Then the mail would go in a circle (5.4.6). */
static bool is_loop(const struct smtp_session *session, const struct reply *reply) {
    const char *name = own_name(session);
    size_t length = strlen(name);
    return length && reply->text_length >= length && strncasecmp(reply->text, name, length) == 0 &&
           (reply->text_length == length || reply->text[length] == ' ');
}

static bool refuse_loop(struct smtp_session *session, const struct reply *reply, uint64_t now_us) {
    if (!is_loop(session, reply))
        return false;
    struct reply own = *reply;
    own.code = 554;
    own.enhanced[0] = 5;
    own.enhanced[1] = 4;
    own.enhanced[2] = 6;
    session_refused(session, &own, "the server greets with our own name: a mail loop", now_us);
    return true;
}

void greeting_take_banner(struct smtp_session *session, const struct reply *reply, uint64_t now_us) {
    if (reply->code / 100 == 2) {
        if (refuse_loop(session, reply, now_us))
            return;
        session_enter(session, SESSION_EHLO, now_us);
        session_say(session, now_us);
    } else if (reply->code / 100 >= 4) {
        session_refused(session, reply, NULL, now_us);
    } else {
        session_protocol_error(session, reply, NULL, now_us);
    }
}

void greeting_take_hello(struct smtp_session *session, const struct reply *reply, uint64_t now_us) {
    unsigned class = reply->code / 100;
    if (class == 2) {
        if (refuse_loop(session, reply, now_us))
            return;
        if (starttls_settled(session, now_us))
            session_settle(session, now_us);
    } else if (class == 5 && session->state == SESSION_EHLO) {
        memset(&session->capabilities, 0, sizeof(session->capabilities));
        session_enter(session, SESSION_HELO, now_us);
        session_say(session, now_us);
    } else if (class >= 4) {
        session_refused(session, reply, NULL, now_us);
    } else {
        session_protocol_error(session, reply, NULL, now_us);
    }
}

/* RFC 5321 4.1.1.1: a name, or the address as a literal where the source has none. */
int greeting_say(struct smtp_session *session, uint64_t now_us) {
    const struct path_source *source = &session->lane->path.sources[session->source];
    const char *name = own_name(session);
    char address[INET6_ADDRSTRLEN], literal[INET6_ADDRSTRLEN + 8];
    if (!*name) {
        inet_ntop(source->family == 4 ? AF_INET : AF_INET6, source->address, address, sizeof(address));
        snprintf(literal, sizeof(literal), source->family == 4 ? "[%s]" : "[IPv6:%s]", address);
        name = literal;
    }
    struct command *command = command_take(&session->lane->engine->commands);
    if (!command)
        return -ENOBUFS;
    command_line(command, session->state == SESSION_EHLO ? "EHLO" : "HELO", name);
    struct tcp_piece piece = {.bytes = (const uint8_t *)command->text, .length = command->length, .owner = &command->owner};
    int error = stream_send(&session->stream, &piece, 1, now_us);
    command_drop(command);
    return error;
}
