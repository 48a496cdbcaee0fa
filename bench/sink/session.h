/* session.h: private to the folder. One SMTP session of the sink, its transaction, and the sink that holds them. */
#ifndef BENCH_SINK_SESSION_H
#define BENCH_SINK_SESSION_H

#include "auth.h"
#include "dataplane/tls/stream.h"
#include "message.h"
#include "pool.h"
#include "sink.h"
#include <assert.h>

enum {
    OUT_PIECES = 64, /* a flight of pipelined transactions is answered at once */
    WHEEL_SLOTS = 1024,
    WHEEL_TICK_US = 1000,
    RECORD_RECIPIENTS_BYTES = 8192,
    SLOW_STEP_US = 100000,
    RUN_TRANSACTIONS = 8,
    CHALLENGES = 64,   /* of CRAM-MD5, made at the start: their bytes must outlive the connection */
    FLUSHES_MAX = 256, /* streams of which TLS told something outside of a segment's way; more leave with TCP's timers */
};

/* Replies; the enhanced code is left out where it is not offered. */
#define SINK_REPLIES(X)                                                                                                                    \
    X(OK, "250 2.0.0 Ok")                                                                                                                  \
    X(MAIL_OK, "250 2.1.0 Ok")                                                                                                             \
    X(RCPT_OK, "250 2.1.5 Ok")                                                                                                             \
    X(GO_AHEAD, "354 End data with <CR><LF>.<CR><LF>")                                                                                     \
    X(ACCEPTED, "250 2.0.0 Ok: taken and thrown away")                                                                                     \
    X(CHUNK_OK, "250 2.0.0 Ok: chunk")                                                                                                     \
    X(BYE, "221 2.0.0 Bye")                                                                                                                \
    X(VRFY, "252 2.1.5 Send some mail and see")                                                                                            \
    X(UNKNOWN, "500 5.5.2 Command unrecognized")                                                                                           \
    X(OVERLONG, "500 5.5.6 Line too long")                                                                                                 \
    X(BARE_LF, "500 5.5.2 Bare LF")                                                                                                        \
    X(SYNTAX, "501 5.5.4 Syntax error")                                                                                                    \
    X(NOT_OFFERED, "502 5.5.1 Not offered")                                                                                                \
    X(SEQUENCE, "503 5.5.1 Bad sequence of commands")                                                                                      \
    X(NO_RECIPIENTS, "554 5.5.1 No valid recipients")                                                                                      \
    X(PARAMETER, "555 5.5.4 Parameter not offered")                                                                                        \
    X(NEEDS_UTF8, "553 5.6.7 Address needs SMTPUTF8")                                                                                      \
    X(TOO_MANY, "452 4.5.3 Too many recipients")                                                                                           \
    X(BUSY, "452 4.3.1 No transaction is free")                                                                                            \
    X(TOO_LARGE, "552 5.3.4 Message too large")                                                                                            \
    X(BAD_LINES, "550 5.6.0 Bare CR or LF in the message")                                                                                 \
    X(TLS_READY, "220 2.0.0 Ready to start TLS")                                                                                           \
    X(INJECTED, "554 5.5.1 Plaintext behind STARTTLS")                                                                                     \
    X(NEEDS_TLS, "530 5.7.0 Must issue STARTTLS first")                                                                                    \
    X(AUTH_OK, "235 2.7.0 Authentication successful")                                                                                      \
    X(AUTH_BAD, "535 5.7.8 Authentication credentials invalid")                                                                            \
    X(AUTH_CANCELLED, "501 5.7.0 Authentication cancelled")                                                                                \
    X(AUTH_UNKNOWN, "504 5.5.4 Mechanism not offered")                                                                                     \
    X(AUTH_NEEDED, "530 5.7.0 Authentication required")                                                                                    \
    X(AUTH_USER, "334 VXNlcm5hbWU6")                                                                                                       \
    X(AUTH_PASSWORD, "334 UGFzc3dvcmQ6")                                                                                                   \
    X(AUTH_GO_ON, "334 ")                                                                                                                  \
    X(AUTH_TOKEN_BAD, "334 eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIn0=")                                                                          \
    X(TOO_OFTEN, "452 4.5.3 Too many transactions on this connection")

enum reply_name {
#define X(name, text) REPLY_##name,
    SINK_REPLIES(X)
#undef X
        REPLY_COUNT,
};

enum session_state {
    SESSION_COMMAND,   /* the next line is a command */
    SESSION_TEXT,      /* within DATA */
    SESSION_CHUNK,     /* within BDAT's octets */
    SESSION_ANSWER,    /* the next line answers a challenge of AUTH */
    SESSION_HANDSHAKE, /* of TLS */
    SESSION_STALLED,   /* reads, and never answers again */
    SESSION_ENDING,    /* our FIN or RST is on its way: what comes is thrown away */
};

enum session_greeting { GREETED_NOT, GREETED_HELO, GREETED_EHLO };

/* What follows a reply. */
enum session_then { THEN_COMMAND, THEN_TEXT, THEN_ANSWER, THEN_SECURE, THEN_CLOSE };

/* What AUTH waits for. */
enum auth_step {
    AUTH_STEP_NONE,
    AUTH_STEP_ANSWER,
    AUTH_STEP_PASSWORD, /* LOGIN's second */
    AUTH_STEP_ADMIT,    /* the token was refused; whatever comes is answered 535 */
};

/* Decrypted bytes that a held session has not taken. */
struct parked {
    uint32_t length, room;
    uint8_t bytes[];
};

enum session_flag {
    SESSION_HELD = 0x01,     /* a reply waits for its delay: nothing is read */
    SESSION_SLOW = 0x02,     /* reads so many bytes a second */
    SESSION_TIMED = 0x04,    /* in the wheel */
    SESSION_OVERLONG = 0x08, /* the command line at hand is thrown away up to its LF */
    SESSION_LAST_CHUNK = 0x10,
    SESSION_PEER_CLOSED = 0x20,
    SESSION_QUIT = 0x40, /* what follows, a reset even, is no loss */
};

struct session {
    struct stream stream; /* first: TCP's user is the stream, and the session */
    struct sink *sink;
    struct parked *parked; /* NULL: none */
    struct reply reply;    /* held, or due behind a chunk that is thrown away */
    uint64_t chunk_left;   /* bytes */
    uint64_t due_us;
    uint32_t timer_next, timer_previous;
    uint32_t transaction, line; /* on loan, POOL_NONE: none */
    uint32_t serial;            /* of this worker's connections */
    uint32_t transactions;
    uint32_t bytes_per_second, allowance; /* SLOW */
    uint32_t owed_ms;                     /* a delay that the chunk's reply will have */
    uint8_t state, greeting, flags, then;
    bool chunk_refused; /* `reply` follows the chunk */
    bool secure, implicit;
    uint8_t auth_step, mechanism;
    uint8_t login; /* LOGIN's user, not yet believed */
    uint8_t user;  /* AUTH_USER_NONE: nobody */
};
static_assert(sizeof(struct session) <= 128, "with TCP's 512 bytes far below 1 KiB");

struct transaction {
    bool eight_bit, utf8, chunked;
    bool in_message; /* its first byte may have come and its last has not */
    uint32_t recipients;
    uint64_t declared_bytes;
    uint64_t key, matched; /* of the first accepted recipient, for the script */
    struct message message;
    uint32_t recipient_bytes;
    char recipient_text[]; /* each with its NUL; only where they are recorded */
};

struct line {
    uint32_t length;
    char bytes[COMMAND_AUTH_BYTES_MAX];
};

struct challenge {
    char text[AUTH_CHALLENGE_BYTES]; /* as the client's digest has it */
    char line[2 * AUTH_CHALLENGE_BYTES];
    struct reply reply;
};

struct sink_listener {
    struct sink *sink;
    bool implicit;
};

struct sink {
    struct sink_config config;
    struct tally tally;
    struct pool sessions, transactions, lines;
    struct reply replies[REPLY_COUNT], banner, hello, ehlo, ehlo_secure;
    char *reply_text;
    struct reply run; /* the replies to RUN_TRANSACTIONS by BDAT, one behind the other: what lies in it in a row is one piece for TCP */
    struct challenge challenges[CHALLENGES];
    struct sink_listener listeners[2];
    uint32_t (*stream_received)(void *user, struct tcp_conn *conn, const uint8_t *bytes, uint32_t length, uint64_t now_us);
    struct session *fed;  /* its segment is being read: what it says leaves behind the segment */
    bool unflushed;       /* something of it was queued */
    bool polls;           /* tls_worker_poll tells what it tells */
    uint32_t flush_count; /* of others, told by tls_worker_poll */
    struct session *to_flush[FLUSHES_MAX];
    uint64_t now_us;
    uint32_t serial;
    uint32_t out_count; /* of the session at hand */
    struct tcp_piece out[OUT_PIECES];
    uint64_t ticked; /* the wheel is done up to here, in ticks */
    uint32_t timers;
    uint32_t wheel[WHEEL_SLOTS];
};

static inline uint32_t session_index(const struct sink *sink, const struct session *session) {
    return (uint32_t)((size_t)((const uint8_t *)session - sink->sessions.items) / sizeof(*session));
}
static inline struct session *session_at(const struct sink *sink, uint32_t index) {
    return pool_at(&sink->sessions, index);
}
static inline struct transaction *session_transaction(const struct sink *sink, const struct session *session) {
    return pool_at(&sink->transactions, session->transaction);
}

/* session.c */
/* `connect` is what the script says of the connection as such. */
void session_begin(const struct sink_listener *listener, struct session *session, struct tcp_conn *conn,
                   const struct script_verdict *connect);
/* The banner, or what the script has in its place. */
void session_greet(struct session *session);
/* What may be used here and by this client. */
uint16_t session_extensions(const struct session *session);
/* What was said before still goes out. */
void session_close(struct session *session);
void session_abort(struct session *session);
/* Decrypted bytes. */
void session_decrypted(struct session *session, const uint8_t *bytes, uint32_t length);
/* The one place where the state changes. */
void session_enter(struct session *session, enum session_state state);
extern const struct stream_events sink_stream_events;
/* Gives back what is on loan, and the session. */
void session_free(struct session *session);
/* Bytes from the client. Returns how many were taken. */
uint32_t session_input(struct session *session, const uint8_t *bytes, uint32_t length);
/* The reply, after `delay_us`, and what follows it. */
void session_say(struct session *session, struct reply reply, enum session_then then, uint64_t delay_us);
/* The delay of the held reply is over, or a slow reader may read on. */
void session_timer(struct session *session);
/* Gives the gathered replies to the stream. */
void session_flush(struct session *session);
/* The client has ended its direction. */
void session_peer_closed(struct session *session);

/* What the script says: go on; answer with the rule's reply; or it is over for this session, dropped or stalled. */
enum consult { CONSULT_GO_ON, CONSULT_REPLY, CONSULT_OVER };
enum consult session_consult(struct session *session, enum script_stage stage, uint64_t key, uint64_t matched,
                             struct script_verdict *verdict);
/* After 421 the connection is closed (RFC 5321 4.2.1). */
enum session_then session_then_after(const struct script_rule *rule);
/* The same for a stage whose refusal needs no bookkeeping: true to go on, *delay_us before the reply. */
bool session_passes(struct session *session, enum script_stage stage, uint64_t *delay_us);

/* secure.c */
void session_starttls(struct session *session, bool more);
void session_secure(struct session *session);
void session_secured(struct session *session);
void session_insecure(struct session *session);
void session_auth(struct session *session, const struct command *command);
/* The line that answers a challenge, without its CRLF. */
void session_answer(struct session *session, const char *line, uint32_t length);

/* transaction.c: one command each */
void transaction_mail(struct session *session, const struct command *command);
void transaction_rcpt(struct session *session, const struct command *command);
void transaction_data(struct session *session);
void transaction_bdat(struct session *session, const struct command *command);
/* Bytes of DATA or of a chunk; returns how many belong to it. */
uint32_t transaction_text(struct session *session, const uint8_t *bytes, uint32_t length);
uint32_t transaction_chunk(struct session *session, const uint8_t *bytes, uint32_t length);
/* Forgets the transaction, if there is one. */
void transaction_end(struct session *session);

/* timer.c */
void timer_set(struct sink *sink, struct session *session, uint64_t due_us);
void timer_cancel(struct sink *sink, struct session *session);

#endif
