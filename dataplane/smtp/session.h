/* session.h: one connection to one server: the dialogue as one enum of states. README.md beside this file draws them. */
#ifndef DATAPLANE_SMTP_SESSION_H
#define DATAPLANE_SMTP_SESSION_H

#include "capability.h"
#include "dataplane/tls/stream.h"
#include "deadline.h"
#include "order.h"
#include "reply.h"
#include <sys/queue.h>

enum session_state {
    SESSION_CONNECTING,
    SESSION_BANNER, /* waits for the greeting */
    SESSION_EHLO,   /* waits for the answer to EHLO */
    SESSION_HELO,   /* ... to HELO, after EHLO was not recognised */
    SESSION_STARTTLS,
    SESSION_HANDSHAKE, /* of TLS: after the answer to STARTTLS, or with PATH_IMPLICIT_TLS before the banner */
    SESSION_AUTH,      /* waits for the answer to AUTH, or to one of its responses */
    SESSION_READY,     /* nothing asked, nothing open: can take an order */
    SESSION_MAIL,      /* waits for the answer to MAIL */
    SESSION_RCPT,      /* ... to the RCPT of `recipient` */
    SESSION_DATA,      /* ... to DATA */
    SESSION_BODY,      /* the body is being queued */
    SESSION_FINAL,     /* all of it is queued: waits for the verdict */
    SESSION_RSET,      /* waits for the answer to RSET */
    SESSION_QUIT,      /* ... to QUIT */
    SESSION_LEAVING,   /* waits for the server's FIN, so that the server holds TIME_WAIT */
    SESSION_GONE,      /* closed or aborted by us: waits for the stream's last word */
    SESSION_STATES
};

enum session_flag {
    SESSION_LAST = 1,       /* takes no further transaction */
    SESSION_SHUTDOWN = 2,   /* 421 was heard in the transaction before those that are left */
    SESSION_UNFLUSHED = 4,  /* on the work list: queued bytes have to leave */
    SESSION_BLOCKED = 8,    /* on the work list: a pool was empty, say it again */
    SESSION_IGNORE = 16,    /* the verdict that comes next is that of a message without recipients: it means nothing */
    SESSION_BODY_SENT = 32, /* the last byte of a body was queued */
    SESSION_OPENED = 64,    /* MAIL was answered 2xx, or a chunk refused: a transaction may be open at the server */
    SESSION_ROOMY = 128,    /* on the lane's list of those in a transaction that can take another */
};

/* What was settled before the session became ready. */
enum session_security {
    SESSION_SECURE = 1,       /* TLS lies between */
    SESSION_TLS_VERIFIED = 2, /* the certificate was good for the endpoint's name or its TLSA records */
    SESSION_TLS_RESUMED = 4,
    SESSION_TLS_FLAWED = 8,   /* PATH_TLS_TESTING: it is not what the policy in testing would take */
    SESSION_WITHOUT_TLS = 16, /* MAY: TLS failed here before, so that it is not asked for */
    SESSION_AUTHENTICATED = 32,
    SESSION_HELLO_SAID = 64, /* the handshake has begun */
};

struct smtp_session {
    struct stream stream; /* first: events give it back */
    struct lane *lane;
    struct deadline deadline;
    uint8_t state; /* enum session_state; only session_enter writes it */
    uint8_t flags; /* enum session_flag */
    uint8_t endpoint, source;
    uint16_t capacity; /* orders that it counts for in ready_capacity */
    uint32_t transactions;
    LIST_ENTRY(smtp_session) siblings; /* all sessions of the lane */
    LIST_ENTRY(smtp_session) ready;    /* those of the lane in SESSION_READY, or those with SESSION_ROOMY */
    TAILQ_ENTRY(smtp_session) work;
    struct reply *reply;     /* on loan while a reply comes in */
    struct order *order;     /* first recipient of the transaction that is answered next, from MAIL to the verdict; others follow it ... */
    struct order *last;      /* ... up to this one */
    struct order *saying;    /* whose words are to be said: the last one; NULL: nothing is left to say */
    struct order *recipient; /* whose RCPT is answered next */
    struct order *to_say;    /* whose RCPT is said next */
    struct body_cursor cursor;     /* in the body of the last one */
    uint32_t chunk_bytes;          /* of it, given with BDAT so far */
    uint32_t queued;               /* bytes of transactions queued so far, as the stream counts them (within TLS its records) */
    uint32_t ignored_end;          /* SESSION_IGNORE: the place behind the body */
    uint32_t domain_hash, domains; /* of the recipient last said; changes so far (RFC 9422 RCPTDOMAINMAX) */
    uint16_t in_flight;            /* transactions from `order` to `last` */
    struct capabilities capabilities;
    uint8_t security;                                           /* enum session_security */
    uint8_t tls_version;                                        /* 0 plain, 12 or 13 */
    uint16_t tls_cipher;                                        /* as IANA numbers them */
    uint8_t auth_mechanism, auth_tried, auth_step, auth_rounds; /* auth.c's */
    bool auth_initial;
    uint8_t auth_digest[16]; /* CRAM-MD5: the answer to the challenge */
    uint64_t phase_until_us; /* when AUTH must be over, however many challenges come */
    uint64_t connected_us;   /* monotonic; 0 before */
    uint64_t body_until_us;  /* when all of the body must be acknowledged, however steadily it trickles; DEADLINE_NEVER: no body is going */
};
enum { SMTP_SESSION_BYTES_MAX = 512 };
static_assert(sizeof(struct smtp_session) <= SMTP_SESSION_BYTES_MAX, "with a connection of 512 bytes an idle session stays within 1 KiB");

/* Opens a connection from a source to an endpoint of the lane's path. 0 or the error of stream_open; -ENOBUFS when the pool is empty. */
int session_open(struct lane *lane, uint8_t endpoint, uint8_t source, uint64_t now_us);
/* Gives an order that its server can take (seek.h) to a session that is ready, or has SESSION_ROOMY. */
void session_bind(struct smtp_session *session, struct order *order, uint64_t now_us);
/* Ends a session in SESSION_READY politely; one that is not greeted yet at once; others end after their transaction (see lane_keeps). */
void session_leave(struct smtp_session *session, uint64_t now_us);
/* A ready session whose connection is over though `closed` has not come yet: ends it. */
void session_lose(struct smtp_session *session, uint64_t now_us);
void session_due(struct smtp_session *session, uint64_t now_us);
/* From the work list: lets queued bytes leave, or tries again what a pool had no room for. */
void session_work(struct smtp_session *session, uint64_t now_us);

#endif
