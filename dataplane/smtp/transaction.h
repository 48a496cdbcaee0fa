/* transaction.h: one message on a ready session, from MAIL to the verdict. */
#ifndef DATAPLANE_SMTP_TRANSACTION_H
#define DATAPLANE_SMTP_TRANSACTION_H

#include "session.h"

enum {
    /* The body is queued while less than this waits to leave, so that "body sent" is not said long before it is true ... */
    TRANSACTION_UNSENT_MAX_BYTES = 64 * 1024,
    /* ... and less than this waits for acknowledgement, because each range costs the stack a record. */
    TRANSACTION_QUEUED_MAX_BYTES = 256 * 1024,
    /* Beyond the block timeout a body may take as long as it does at this rate: each acknowledged byte is progress, and a server that
     * takes one at a time would otherwise hold a message and its session for months. */
    TRANSACTION_RATE_MIN_BYTES = 500, /* a second */
};

/* Says what the session's state wants said. 0, or -errno of stream_send: nothing was said, say it again. */
int transaction_say(struct smtp_session *session, uint64_t now_us);
/* A reply to MAIL, RCPT, DATA, the body or RSET. */
void transaction_take(struct smtp_session *session, const struct reply *reply, uint64_t now_us);
/* The session ends with a transaction in it: its recipients are lost, or uncertain when the whole body had left. */
void transaction_lost(struct smtp_session *session, const char *why, uint64_t now_us);

/* What session.c lends it. */
void session_enter(struct smtp_session *session, enum session_state state, uint64_t now_us);
void session_say(struct smtp_session *session, uint64_t now_us);
int session_send_text(struct smtp_session *session, const char *text, uint64_t now_us);
void session_quit(struct smtp_session *session, uint64_t now_us);
void session_abort(struct smtp_session *session, uint64_t now_us);
void session_await_fin(struct smtp_session *session, uint64_t now_us);
/* `text` NULL: the reply's own stands in the event. */
void session_protocol_error(struct smtp_session *session, const struct reply *reply, const char *text, uint64_t now_us);
enum smtp_stage session_stage(const struct smtp_session *session);
uint32_t session_deliveries_left(const struct smtp_session *session);

#endif
