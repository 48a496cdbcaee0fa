/* transaction.h: messages on a session, each from MAIL to the verdict, one after the other or several on their way at a time. */
#ifndef DATAPLANE_SMTP_TRANSACTION_H
#define DATAPLANE_SMTP_TRANSACTION_H

#include "session.h"

enum {
    /* The body is queued while less than this waits to leave, so that "body sent" is not said long before it is true ... */
    TRANSACTION_UNSENT_MAX_BYTES = 64 * 1024,
    /* ... and less than this waits for acknowledgement, because each range costs the stack a record. */
    TRANSACTION_QUEUED_MAX_BYTES = 256 * 1024,
    /* Of a body under BDAT so much goes with the envelope, in ranges of so many; the rest when a recipient was accepted, so that a large
     * message without recipients costs no more than this. */
    TRANSACTION_CHUNK_BYTES = 64 * 1024,
    TRANSACTION_CHUNK_PIECES = 96,
    /* Beyond the block timeout a body may take as long as it does at this rate: each acknowledged byte is progress, and a server that
     * takes one at a time would otherwise hold a message and its session for months. */
    TRANSACTION_RATE_MIN_BYTES = 500, /* a second */
    /* What TLS may queue of its own (an answer to a key update), which belongs to no transaction. */
    TRANSACTION_TLS_OWN_BYTES = 64,
};

/* Says what the session's state wants said. 0, or -errno of stream_send: nothing was said, say it again. */
int transaction_say(struct smtp_session *session, uint64_t now_us);
/* A reply to MAIL, RCPT, DATA, the body, a chunk or RSET. */
void transaction_take(struct smtp_session *session, const struct reply *reply, uint64_t now_us);
/* Has what a reply in this state would answer not left yet? */
bool transaction_is_early(const struct smtp_session *session);
/* Is a part of the body whose verdict is awaited not acknowledged yet? */
bool transaction_is_unacknowledged(const struct smtp_session *session);
/* May another transaction begin behind the one under way (path.pipelined_transactions)? */
bool transaction_has_room(const struct smtp_session *session);
/* The session ends with transactions in it: README.md says what becomes of each. `error` is TCP_OK when the server closed orderly. */
void transaction_lost(struct smtp_session *session, enum tcp_error error, const char *why, bool elsewhere, uint64_t now_us);

/* What session.c and dialogue.c lend it. */
void session_enter(struct smtp_session *session, enum session_state state, uint64_t now_us);
/* The deadline of the state that it is in, from here on. */
void session_expect(struct smtp_session *session, uint64_t at_us);
/* Its place on the lane's list of sessions with room, and what it counts for, after transaction_has_room may have changed. */
void session_offer(struct smtp_session *session);
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
