/* order.h: a claimed slot in this worker's memory: what was copied from it and checked, and what became of it. */
#ifndef DATAPLANE_SMTP_ORDER_H
#define DATAPLANE_SMTP_ORDER_H

#include "body.h"
#include "dataplane/tcp/tcp.h"
#include <bypost/slot.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct smtp_engine;
struct smtp_session;
struct lane;

enum {
    ORDER_RECIPIENTS_MAX = 1000,             /* of a chain */
    ORDER_WAIT_MAX_US = 3600 * 1000 * 1000u, /* a not_before further away than this is wild */
};

enum order_flag {
    ORDER_SAID = 1 << 0,      /* its RCPT was sent */
    ORDER_ACCEPTED = 1 << 1,  /* RCPT was answered 2xx */
    ORDER_ANSWERED = 1 << 2,  /* its reply is written in the slot */
    ORDER_PUBLISHED = 1 << 3, /* SLOT_ANSWERED is stored: the slot is control's */
    ORDER_FIRST = 1 << 4,     /* it carries the chain's message */
    ORDER_FINISHED = 1 << 5,  /* a first one whose chain is answered: it waits for the stack to let go of the body */
    ORDER_TAKEN = 1 << 6,     /* a recipient of the transaction under way */
    ORDER_DSN_SAID = 1 << 7,  /* its RCPT carried NOTIFY */
    /* Of the transaction, in its first order: */
    ORDER_CUT = 1 << 8,         /* recipients were left for another transaction */
    ORDER_AFTER_RSET = 1 << 9,  /* RSET goes before its MAIL, in the same group */
    ORDER_MAIL_SAID = 1 << 10,  /* and RSET before it */
    ORDER_DATA_SAID = 1 << 11,  /* DATA, or the first BDAT */
    ORDER_CHUNK_OPEN = 1 << 12, /* a chunk before the last was said and not answered */
    ORDER_REST_SAID = 1 << 13,  /* the last BDAT was said; its bytes may still be on their way to the stack */
    ORDER_BODY_SENT = 1 << 14,  /* the last body byte was queued */
    ORDER_OF_TRANSACTION =
        ORDER_CUT | ORDER_AFTER_RSET | ORDER_MAIL_SAID | ORDER_DATA_SAID | ORDER_CHUNK_OPEN | ORDER_REST_SAID | ORDER_BODY_SENT,
};

/* The first recipient of a chain carries the message, and the transaction that a session makes of it. */
struct order {
    struct tcp_owner owner; /* of the body's bytes; one reference is ours until the chain is answered */
    struct lane *lane;
    struct order *next_recipient;
    struct order *next_transaction; /* on its session, in the order in which they were said */
    TAILQ_ENTRY(order) queue;       /* of the lane */
    uint32_t slot, generation;
    uint16_t sender_length, recipient_length;
    uint8_t slot_flags;   /* SLOT_BODY_8BIT ... */
    uint8_t dsn;          /* SLOT_NOTIFY_*, SLOT_RET_* */
    uint8_t envid_length; /* the first one's counts */
    uint16_t flags;       /* enum order_flag */
    uint32_t piece_count;
    uint32_t size_bytes;
    uint32_t body_bytes; /* sum of the pieces when the first was claimed */
    uint32_t begin, end; /* places in what its session queued (smtp_session.queued): of its last words, and behind its body */
    uint64_t pieces;
    uint64_t not_before_us;
    uint64_t seek_since_us; /* it looks for a server that can take it (seek.c) */
    uint16_t lacking;       /* endpoints whose server cannot take it, a bit each ... */
    uint8_t lack;           /* ... and for want of what: enum seek_lack */
};
TAILQ_HEAD(order_queue, order);

/* What became of a recipient. */
struct verdict {
    uint8_t outcome, stage; /* enum slot_outcome, enum smtp_stage */
    uint16_t code;
    uint16_t enhanced[3];
    const char *text;
    uint32_t text_length;
};

/* Claims the slot of an order hint and the chain behind it, and queues it on its lane. What cannot be attempted is answered at once. */
void order_hint(struct smtp_engine *engine, uint32_t slot, uint32_t generation, uint64_t now_us);
/* Writes the verdict in the recipient's slot. One that is not the first of its chain is published at once; the first waits for
 * order_finish, because its slot holds the whole chain's arena. `session`, or NULL, says where it was attempted. */
void order_answer(struct order *order, const struct verdict *verdict, const struct smtp_session *session, uint64_t now_us);
/* Answers all of a chain that is not answered yet, and finishes it. */
void order_answer_all(struct order *first, const struct verdict *verdict, const struct smtp_session *session, uint64_t now_us);
/* Every recipient of the chain is answered: publishes the first, as soon as the stack needs the body no more, and frees the records. */
void order_finish(struct order *first);
/* Stores a later state in the slots of the transaction's recipients that are not answered. */
void order_advance(const struct order *first, enum slot_state state);
/* Copies of the addresses are made by the command builder; these point into shared memory. */
const char *order_sender(const struct order *order);
const char *order_recipient(const struct order *order);
const char *order_envid(const struct order *order);
void order_body(const struct order *first, struct body_source *source);

#endif
