/* dialogue.h: what is said and heard in each state of a session, and what session.c lends for it. */
#ifndef DATAPLANE_SMTP_DIALOGUE_H
#define DATAPLANE_SMTP_DIALOGUE_H

#include "session.h"

/* What the stream of a session tells. */
extern const struct stream_events dialogue_events;

/* ---- what session.c lends ---- */

/* Puts it on the work list for that reason (SESSION_UNFLUSHED, SESSION_BLOCKED), or takes it off. */
void session_put_to_work(struct smtp_session *session, enum session_flag why);
void session_stop_work(struct smtp_session *session);
/* Gives the reply back that was coming in. */
void session_drop_reply(struct smtp_session *session);
/* The deadline of the state that it is in begins again. */
void session_renew(struct smtp_session *session, uint64_t now_us);
/* The session ended by the server's doing, or by ours because of the server's: tells it, and answers what was in it. The caller ends it. */
void session_failed(struct smtp_session *session, enum tcp_error error, const char *text, uint64_t now_us);
/* Its record goes: the stream has said its last word. */
void session_free(struct smtp_session *session);

#endif
