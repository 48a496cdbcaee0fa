/* starttls.c: how a session comes under TLS (RFC 3207, RFC 8314), and what happens when it does not (SMTP.md sections 1 and 7). */
#include "endpoint.h"
#include "engine.h"
#include "phase.h"
#include "transaction.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct path_endpoint *endpoint_of(const struct smtp_session *session) {
    return &session->lane->path.endpoints[session->endpoint];
}

/* Opportunistic TLS (RFC 7435) goes on without where it fails; nothing that carries credentials ever does. */
static bool may_fall_back(const struct smtp_session *session, enum tls_failure failure) {
    return endpoint_of(session)->tls <= PATH_TLS_MAY && !session->lane->path.auth_user && failure != TLS_FAILURE_LOCAL;
}

static void tell(struct smtp_session *session, enum tls_failure failure, const struct reply *reply, const char *why, uint64_t now_us) {
    char server[PHASE_NAME_BYTES], text[PHASE_NAME_BYTES + PATH_EVENT_TEXT_BYTES];
    phase_server(session, server);
    snprintf(text, sizeof(text), "%s: %s", server, why && *why ? why : tls_failure_text(failure));
    session_post(session, PATH_EVENT_TLS_FAILED, failure, reply, text, now_us);
}

/* Tells it and decides how the endpoint is called next; the caller ends this session. */
static void fail(struct smtp_session *session, enum tls_failure failure, const struct reply *reply, const char *why, uint64_t now_us) {
    tell(session, failure, reply, why, now_us);
    if (may_fall_back(session, failure))
        lane_endpoint_tls_broken(session->lane, session->endpoint, now_us);
    else
        lane_endpoint_tls_failed(session->lane, session->endpoint, failure, now_us);
}

bool starttls_settled(struct smtp_session *session, uint64_t now_us) {
    enum path_tls level = (enum path_tls)endpoint_of(session)->tls;
    if (session->security & (SESSION_SECURE | SESSION_WITHOUT_TLS) || level == PATH_TLS_NONE || !session->lane->engine->config.tls)
        return true;
    if (session->capabilities.flags & CAP_STARTTLS) {
        session_enter(session, SESSION_STARTTLS, now_us);
        session_say(session, now_us);
        return false;
    }
    if (level > PATH_TLS_MAY) {
        fail(session, TLS_FAILURE_NOT_OFFERED, NULL, "TLS is required and the server does not offer STARTTLS", now_us);
        session_quit(session, now_us);
        return false;
    }
    if (session->lane->path.flags & PATH_TLS_TESTING)
        tell(session, TLS_FAILURE_NOT_OFFERED, NULL, "the server does not offer STARTTLS, which the policy in testing asks for", now_us);
    return true;
}

static int secure(struct smtp_session *session, uint64_t now_us) {
    const struct path *path = &session->lane->path;
    const struct path_endpoint *endpoint = endpoint_of(session);
    struct tls_peer peer = {
        .level = (enum path_tls)endpoint->tls,
        .report = path->flags & PATH_TLS_TESTING,
        .name = path->strings + endpoint->name,
        .names = path->verify_names ? path->strings + path->verify_names : NULL,
        .tlsa = endpoint->tlsa_count ? (const struct path_tlsa *)(const void *)(path->strings + endpoint->tlsa) : NULL,
        .tlsa_count = endpoint->tlsa_count,
        .version_min = path->tls_version_min,
        .identity = path->tls_identity,
        .port = endpoint->port,
    };
    memcpy(peer.address, endpoint->address, sizeof(peer.address));
    int error = stream_secure(&session->stream, session->lane->engine->config.tls, &peer, now_us);
    if (error && error != -ENOBUFS) {
        fail(session, TLS_FAILURE_LOCAL, NULL,
             peer.identity ? "TLS cannot be begun: the client certificate is not loaded, or what is to be verified is missing"
                           : "TLS cannot be begun: there is no name or TLSA record to verify",
             now_us);
        session_abort(session, now_us);
        return 0;
    }
    if (!error)
        session->security |= SESSION_HELLO_SAID;
    return error;
}
static_assert(_Alignof(struct path_tlsa) == 1, "records lie unaligned in the path's strings");

int starttls_say(struct smtp_session *session, uint64_t now_us) {
    if (session->state == SESSION_HANDSHAKE)
        return secure(session, now_us);
    return session_send_text(session, "STARTTLS\r\n", now_us);
}

void starttls_injected(struct smtp_session *session, uint64_t now_us) {
    fail(session, TLS_FAILURE_INJECTED, NULL, "bytes in plain came behind the answer to STARTTLS: someone may be putting words into it",
         now_us);
    session_abort(session, now_us);
}

static void refuse(struct smtp_session *session, const struct reply *reply, uint64_t now_us) {
    char why[PATH_EVENT_TEXT_BYTES];
    snprintf(why, sizeof(why), "the server refuses STARTTLS: %u %.*s", reply->code, (int)reply->text_length, reply->text);
    if (may_fall_back(session, TLS_FAILURE_REFUSED)) {
        /* RFC 3207 section 4: the connection stands as it did before. */
        tell(session, TLS_FAILURE_REFUSED, reply, why, now_us);
        if (session->lane->path.broken_tls_s)
            lane_endpoint_tls_broken(session->lane, session->endpoint, now_us);
        session->security |= SESSION_WITHOUT_TLS;
        session_settle(session, now_us);
    } else {
        fail(session, TLS_FAILURE_REFUSED, reply, why, now_us);
        session_quit(session, now_us);
    }
}

void starttls_take(struct smtp_session *session, const struct reply *reply, bool injected, uint64_t now_us) {
    unsigned class = reply->code / 100;
    if (reply->code == 421) {
        session_refused(session, reply, NULL, now_us);
    } else if (class == 2 && injected) {
        starttls_injected(session, now_us);
    } else if (class == 2) {
        session_enter(session, SESSION_HANDSHAKE, now_us);
        session_say_later(session); /* what came in plain behind the reply is seen before */
    } else if (class >= 4) {
        refuse(session, reply, now_us);
    } else {
        fail(session, TLS_FAILURE_HANDSHAKE, reply, "the server answered STARTTLS with a code that does not fit", now_us);
        session_abort(session, now_us);
    }
}

void starttls_lost(struct smtp_session *session, enum tcp_error error, const char *why, uint64_t now_us) {
    if (session->state == SESSION_HANDSHAKE && !(session->security & SESSION_HELLO_SAID))
        fail(session, TLS_FAILURE_LOCAL, NULL, "no room for a TLS session on this side. More dataplane.memory helps", now_us);
    else
        fail(session, error == TCP_TIMED_OUT ? TLS_FAILURE_TIMEOUT : TLS_FAILURE_HANDSHAKE, NULL, why, now_us);
}

void starttls_secured(struct smtp_session *session, uint64_t now_us) {
    if (session->state != SESSION_HANDSHAKE)
        return;
    struct tls_state state;
    stream_tls(&session->stream, &state);
    session->tls_version = state.version;
    session->tls_cipher = state.cipher;
    session->security |=
        (uint8_t)(SESSION_SECURE | (state.verified ? SESSION_TLS_VERIFIED : 0) | (state.resumed ? SESSION_TLS_RESUMED : 0));
    /* RFC 3207 section 4.2: what was learnt in plain is forgotten. */
    memset(&session->capabilities, 0, sizeof(session->capabilities));
    if (endpoint_of(session)->tls >= PATH_TLS_VERIFY && !state.verified) {
        fail(session, state.flaw ? state.flaw : TLS_FAILURE_NOT_TRUSTED, NULL, NULL, now_us);
        session_abort(session, now_us);
    } else if (session->lane->path.flags & PATH_IMPLICIT_TLS) {
        session_enter(session, SESSION_BANNER, now_us);
    } else {
        session_enter(session, SESSION_EHLO, now_us);
        session_say(session, now_us);
    }
}

void starttls_insecure(struct smtp_session *session, enum tls_failure failure, const char *why, uint64_t now_us) {
    if (session->state != SESSION_HANDSHAKE)
        return;
    fail(session, failure, NULL, why, now_us);
    session_close(session, now_us);
}

void starttls_flaw(struct smtp_session *session, enum tls_failure failure, const char *why, uint64_t now_us) {
    if (session->state != SESSION_HANDSHAKE)
        return;
    session->security |= SESSION_TLS_FLAWED;
    tell(session, failure, NULL, why, now_us);
}
