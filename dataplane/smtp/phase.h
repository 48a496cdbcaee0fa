/* phase.h: the phases before a session is ready: greeting (greeting.c), TLS (starttls.c) and AUTH (auth.c), and what they are lent. */
#ifndef DATAPLANE_SMTP_PHASE_H
#define DATAPLANE_SMTP_PHASE_H

#include "session.h"

enum {
    PHASE_NAME_BYTES = 300,          /* what phase_server writes */
    AUTH_LINE_MAX_BYTES = 512,       /* a command with its initial response (RFC 4954 section 4 refers to RFC 5321 4.5.3.1.4) */
    AUTH_RESPONSE_MAX_BYTES = 12288, /* a response line (RFC 4954 section 4) */
    AUTH_ROUNDS_MAX = 8,             /* challenges that are answered before the exchange is given up */
};

/* ---- greeting ---- */

/* Says EHLO, or HELO, as the state is. 0 or -errno as session_say takes it. */
int greeting_say(struct smtp_session *session, uint64_t now_us);
void greeting_take_banner(struct smtp_session *session, const struct reply *reply, uint64_t now_us);
/* The answer to EHLO or HELO. */
void greeting_take_hello(struct smtp_session *session, const struct reply *reply, uint64_t now_us);

/* ---- TLS ---- */

/* The answer to EHLO or HELO is in. True: nothing of TLS is left to do; false: STARTTLS was said, or the session ends. */
bool starttls_settled(struct smtp_session *session, uint64_t now_us);
/* Says STARTTLS, or begins the handshake. 0 or -errno as session_say takes it. */
int starttls_say(struct smtp_session *session, uint64_t now_us);
/* The answer to STARTTLS. `injected`: bytes lay behind it that came in plain (RFC 3207 section 6). */
void starttls_take(struct smtp_session *session, const struct reply *reply, bool injected, uint64_t now_us);
/* Bytes came in plain before the handshake had begun. */
void starttls_injected(struct smtp_session *session, uint64_t now_us);
/* The connection ended, or time did, in SESSION_STARTTLS or SESSION_HANDSHAKE; the caller ends the session. */
void starttls_lost(struct smtp_session *session, enum tcp_error error, const char *why, uint64_t now_us);
/* What the stream tells. */
void starttls_secured(struct smtp_session *session, uint64_t now_us);
void starttls_insecure(struct smtp_session *session, enum tls_failure failure, const char *why, uint64_t now_us);
void starttls_flaw(struct smtp_session *session, enum tls_failure failure, const char *why, uint64_t now_us);

/* ---- AUTH ---- */

/* Begins the exchange, or ends the session when there is no mechanism that may be used. */
void auth_begin(struct smtp_session *session, uint64_t now_us);
int auth_say(struct smtp_session *session, uint64_t now_us);
void auth_take(struct smtp_session *session, const struct reply *reply, uint64_t now_us);

/* ---- what session.c and dialogue.c lend ---- */

/* The endpoint's name, or its address, for sentences. */
void phase_server(const struct smtp_session *session, char name[PHASE_NAME_BYTES]);
void session_post(struct smtp_session *session, enum path_event_kind kind, uint32_t detail, const struct reply *reply, const char *text,
                  uint64_t now_us);
/* Ends a session that was refused before it was ready: politely, or after 421 with the server's FIN. */
void session_refused(struct smtp_session *session, const struct reply *reply, const char *text, uint64_t now_us);
/* Closes, alerts and all that is queued included. */
void session_close(struct smtp_session *session, uint64_t now_us);
/* What the state wants said is said from the work list, not from within an event. */
void session_say_later(struct smtp_session *session);
/* EHLO was answered and TLS is settled: AUTH, or ready. */
void session_settle(struct smtp_session *session, uint64_t now_us);
void session_be_ready(struct smtp_session *session, uint64_t now_us);

#endif
