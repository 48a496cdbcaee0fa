/* secure.c: a session's way into TLS, and who a client says it is. */
#include "session.h"

static void say(struct session *session, enum reply_name name) {
    session_say(session, session->sink->replies[name], THEN_COMMAND, 0);
}

static void out_of_sequence(struct session *session) {
    session->sink->tally.errors_sequence++;
    say(session, REPLY_SEQUENCE);
}

/* STARTTLS (RFC 3207). `more`: bytes lie behind the command, in plain: whoever put them there is not to be served (section 6). */
void session_starttls(struct session *session, bool more) {
    struct sink *sink = session->sink;
    uint64_t delay_us;
    if ((session_extensions(session) & EXTENSION_STARTTLS) == 0) {
        say(session, REPLY_NOT_OFFERED);
    } else if (session->transaction != POOL_NONE) {
        out_of_sequence(session);
    } else if (more) {
        sink->tally.tls_injected++;
        session_say(session, sink->replies[REPLY_INJECTED], THEN_CLOSE, 0);
    } else if (session_passes(session, SCRIPT_STARTTLS, &delay_us)) {
        session_say(session, sink->replies[REPLY_TLS_READY], THEN_SECURE, delay_us);
    }
}

/* From here on what the client sends is TLS. */
void session_secure(struct session *session) {
    struct sink *sink = session->sink;
    struct script_verdict verdict;
    session_flush(session);
    session_enter(session, SESSION_HANDSHAKE);
    if (session_consult(session, SCRIPT_HANDSHAKE, (uint64_t)session->serial << 32, UINT64_MAX, &verdict) != CONSULT_GO_ON)
        return;
    if (stream_secure(&session->stream, sink->config.tls, NULL, sink->now_us) != 0) {
        sink->tally.tls_failed++;
        session_abort(session);
    }
}

/* What was said before is forgotten (RFC 3207 4.2). */
void session_secured(struct session *session) {
    struct sink *sink = session->sink;
    struct tally *tally = &sink->tally;
    struct tls_state state;
    if (session->state != SESSION_HANDSHAKE)
        return;
    stream_tls(&session->stream, &state);
    tally->tls_sessions++;
    tally->tls_sessions_12 += state.version == 12;
    tally->tls_sessions_13 += state.version == 13;
    tally->tls_resumed += state.resumed;
    session->secure = true;
    session->greeting = GREETED_NOT;
    session->user = AUTH_USER_NONE;
    session_enter(session, SESSION_COMMAND);
    if (session->implicit)
        session_greet(session);
}

void session_insecure(struct session *session) {
    session->sink->tally.tls_failed++;
    session_close(session);
}

static void auth_ask(struct session *session, enum reply_name challenge, enum auth_step step) {
    session->auth_step = (uint8_t)step;
    session_say(session, session->sink->replies[challenge], THEN_ANSWER, 0);
}

static void auth_refuse(struct session *session) {
    session->sink->tally.auth_failed++;
    say(session, REPLY_AUTH_BAD);
}

/* The verdict on `user`, or the script's in its place. */
static void auth_finish(struct session *session, uint8_t user) {
    struct sink *sink = session->sink;
    uint64_t delay_us;
    session->auth_step = AUTH_STEP_NONE;
    if (!session_passes(session, SCRIPT_AUTH, &delay_us)) {
        sink->tally.auth_failed++;
    } else if (user == AUTH_USER_NONE) {
        auth_refuse(session);
    } else {
        session->user = user;
        sink->tally.auth_ok++;
        session_say(session, sink->replies[REPLY_AUTH_OK], THEN_COMMAND, delay_us);
    }
}

static const struct challenge *challenge_of(const struct session *session) {
    return &session->sink->challenges[session->serial % CHALLENGES];
}

/* The client's answer, or the initial response. */
static void auth_take(struct session *session, const char *answer, size_t length) {
    const struct auth_users *users = session->sink->config.users;
    enum auth_mechanism mechanism = (enum auth_mechanism)session->mechanism;
    if (mechanism == AUTH_LOGIN) {
        session->login = auth_login_user(users, answer, length);
        auth_ask(session, REPLY_AUTH_PASSWORD, AUTH_STEP_PASSWORD);
        return;
    }
    uint8_t user = auth_check(users, mechanism, challenge_of(session)->text, answer, length);
    if (user == AUTH_USER_NONE && mechanism >= AUTH_XOAUTH2)
        auth_ask(session, REPLY_AUTH_TOKEN_BAD, AUTH_STEP_ADMIT); /* the client admits that it has read why (RFC 7628 3.2.3) */
    else
        auth_finish(session, user);
}

/* AUTH (RFC 4954). */
void session_auth(struct session *session, const struct command *command) {
    struct sink *sink = session->sink;
    const char *initial;
    if ((session_extensions(session) & EXTENSION_AUTH) == 0) {
        say(session, REPLY_NOT_OFFERED);
        return;
    }
    if (session->user != AUTH_USER_NONE || session->transaction != POOL_NONE) {
        out_of_sequence(session);
        return;
    }
    enum auth_mechanism mechanism = auth_mechanism_find(command->path, command->path_length, &initial);
    if (mechanism == AUTH_MECHANISMS || (sink->config.mechanisms >> mechanism & 1) == 0) {
        say(session, REPLY_AUTH_UNKNOWN);
        return;
    }
    session->mechanism = (uint8_t)mechanism;
    if (initial != NULL && mechanism == AUTH_CRAM_MD5)
        say(session, REPLY_SYNTAX); /* the server speaks first */
    else if (initial != NULL)
        auth_take(session, initial, (size_t)(command->path + command->path_length - initial));
    else if (mechanism == AUTH_LOGIN)
        auth_ask(session, REPLY_AUTH_USER, AUTH_STEP_ANSWER);
    else if (mechanism == AUTH_CRAM_MD5) {
        session->auth_step = AUTH_STEP_ANSWER;
        session_say(session, challenge_of(session)->reply, THEN_ANSWER, 0);
    } else
        auth_ask(session, REPLY_AUTH_GO_ON, AUTH_STEP_ANSWER);
}

void session_answer(struct session *session, const char *line, uint32_t length) {
    enum auth_step step = (enum auth_step)session->auth_step;
    session_enter(session, SESSION_COMMAND);
    session->auth_step = AUTH_STEP_NONE;
    if (length == 1 && line[0] == '*') {
        session->sink->tally.auth_failed++;
        say(session, REPLY_AUTH_CANCELLED);
    } else if (step == AUTH_STEP_ANSWER) {
        auth_take(session, line, length);
    } else if (step == AUTH_STEP_PASSWORD) {
        auth_finish(session,
                    auth_login_password(session->sink->config.users, session->login, line, length) ? session->login : AUTH_USER_NONE);
    } else {
        auth_refuse(session);
    }
}
