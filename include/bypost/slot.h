/* slot.h: one recipient of one transaction, in the journal. Slots are the truth; rings only point at them.
 * README.md beside this file has the diagram of states: who writes which, in which memory order, and what a crash there means. */
#ifndef BYPOST_SLOT_H
#define BYPOST_SLOT_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
    SLOT_BYTES = 1024,
    SLOT_COOKIE_BYTES = 160,
    SLOT_ADDRESS_MAX = 254, /* an address without its brackets (RFC 5321 4.5.3.1.3) */
    SLOT_ENVID_MAX = 100,   /* RFC 3461 4.4, as it stands behind ENVID= */
    SLOT_TEXT_BYTES = 704,  /* sender, recipient, envelope identifier, then the reply's text */
    SLOT_REPLY_TEXT_MIN = SLOT_TEXT_BYTES - 2 * SLOT_ADDRESS_MAX - SLOT_ENVID_MAX, /* always left for the reply's text */
};
#define SLOT_NONE UINT32_MAX

enum slot_state {
    SLOT_FREE,          /* control's: it may fill the slot */
    SLOT_QUEUED,        /* filled and handed over */
    SLOT_CLAIMED,       /* a worker has it; nothing of it is on the wire */
    SLOT_ENVELOPE_SENT, /* MAIL has been handed to the stack */
    SLOT_BODY_SENT,     /* stored before the last body byte is first handed to a port */
    SLOT_ANSWERED,      /* the outcome is written; control's again */
    SLOT_WITHDRAWN,     /* control took it back before a worker claimed it */
    SLOT_STATES
};

/* What became of it. */
enum slot_outcome {
    OUTCOME_REPLIED,   /* the server's verdict: code, enhanced code, text, stage */
    OUTCOME_RETURNED,  /* never attempted; costs no attempt. With an enhanced code: begun and lost, for the next host */
    OUTCOME_LOST,      /* the session ended before the last body byte was sent: temporary */
    OUTCOME_UNCERTAIN, /* the whole body was sent and no verdict came */
    OUTCOME_LOCAL,     /* this side decided without asking: code and text say why (5.3.4 too large, 5.6.3 8-bit) */
    OUTCOME_KINDS
};

/* Where in the dialogue. */
enum smtp_stage {
    STAGE_CONNECT,
    STAGE_BANNER,
    STAGE_EHLO,
    STAGE_STARTTLS,
    STAGE_AUTH,
    STAGE_MAIL,
    STAGE_RCPT,
    STAGE_DATA,
    STAGE_BODY,
    STAGE_FINAL,
    STAGE_RSET,
    STAGE_QUIT,
    STAGE_IDLE,
    STAGE_KINDS
};
/* "connect", "banner", ...; "unknown" for a wild value. */
const char *smtp_stage_text(unsigned stage);

enum {
    SLOT_BODY_8BIT = 1,
    SLOT_SMTPUTF8 = 2,
    SLOT_HAS_LEADING_DOTS = 4,
    SLOT_HIGH = 8,
    SLOT_REQUIRETLS = 16, /* RFC 8689: only over verified TLS to a server that offers REQUIRETLS */
};

/* What is asked of the next server where it offers DSN (RFC 3461). NOTIFY is the recipient's; RET and ENVID are the first slot's. */
enum {
    SLOT_NOTIFY_SUCCESS = 1,
    SLOT_NOTIFY_FAILURE = 2,
    SLOT_NOTIFY_DELAY = 4,
    SLOT_NOTIFY_NEVER = 8,
    SLOT_RET_FULL = 16,
    SLOT_RET_HDRS = 32,
};

/* Bits of slot_reply.flags. */
enum {
    REPLY_DSN_PASSED_ON = 1, /* NOTIFY went to a server that offers DSN: from here on it is the one to tell (RFC 3461 5.2.2) */
    REPLY_TLS_VERIFIED = 2,  /* the certificate was good for the endpoint's name, or its TLSA records, whether that was asked for or not */
    REPLY_TLS_RESUMED = 4,
};

/* A piece of a message. The table of pieces is in the arena too. */
struct arena_piece {
    uint64_t offset; /* from the arena's start */
    uint32_t length;
    uint32_t reserved;
};

/* What the worker writes before it stores SLOT_ANSWERED. */
struct slot_reply {
    uint8_t outcome;      /* enum slot_outcome */
    uint8_t stage;        /* enum smtp_stage */
    uint16_t code;        /* the basic code, or 0 */
    uint16_t enhanced[3]; /* class, subject, detail; zeros when there was none */
    uint16_t text_length; /* in `text`, behind sender and recipient */
    uint8_t peer_address[16];
    uint8_t peer_family;      /* 4, 6, or 0 when no connection was made */
    uint8_t endpoint, source; /* indexes in the path record */
    uint8_t tls_version;      /* 0 plain, 12 or 13 */
    uint32_t worker;
    uint64_t connected_us, finished_us; /* CLOCK_REALTIME, or 0 */
    uint8_t flags;                      /* REPLY_* */
    uint8_t reserved0;
    uint16_t tls_cipher; /* as IANA numbers them; 0 plain */
    uint8_t reserved[4];
};

struct slot {
    /* Generation in the upper 32 bits, enum slot_state in the lower 8. The only word that both sides write. */
    _Alignas(64) _Atomic uint64_t word;
    uint32_t next;            /* the next recipient of this transaction, or SLOT_NONE */
    uint32_t next_generation; /* its generation, checked by the worker */
    uint32_t path;
    uint32_t path_generation;
    uint32_t dataplane_generation; /* the dataplane that this was queued for */
    uint16_t worker;
    uint8_t flags;
    uint8_t reserved0;
    uint32_t piece_count;
    uint32_t size_bytes;    /* the message as rendered: what MAIL SIZE= says (RFC 1870) */
    uint64_t pieces;        /* arena offset of struct arena_piece[piece_count] */
    uint64_t not_before_us; /* CLOCK_MONOTONIC, or 0 */
    uint64_t shared_extent; /* control's: where the bytes lie that its message shares with others' ... */

    _Alignas(64) struct slot_reply reply; /* line 1 */

    uint8_t cookie[SLOT_COOKIE_BYTES]; /* control's, opaque here: settles the slot with no other memory */
    uint64_t arena_extent;             /* control's: what to give back when the slot is done: offset ... */
    uint32_t arena_extent_bytes;       /* ... and bytes; 0 for a slot that shares its transaction's first slot's */
    uint16_t sender_length;            /* 0: the null sender */
    uint16_t recipient_length;
    uint64_t dispatched_us; /* CLOCK_REALTIME */
    uint8_t dsn;            /* SLOT_NOTIFY_*, SLOT_RET_*; 0: nothing is asked */
    uint8_t envid_length;   /* at most SLOT_ENVID_MAX; behind the recipient in `text`, already in xtext */
    uint8_t reserved1[2];
    uint32_t shared_extent_bytes; /* ... and how many are reserved there; 0: none, or those of its transaction's first slot */
    char text[SLOT_TEXT_BYTES];
};
static_assert(sizeof(struct slot_reply) == 64, "the reply is one cache line");
static_assert(sizeof(struct slot) == SLOT_BYTES, "a slot is 1 KiB");
static_assert(offsetof(struct slot, reply) == 64, "the reply is the second line");
static_assert(offsetof(struct slot, shared_extent) == 56, "the first line is full");
static_assert(offsetof(struct slot, text) + SLOT_TEXT_BYTES == SLOT_BYTES, "no room is left unnamed");
static_assert(SLOT_REPLY_TEXT_MIN >= 96, "a reply's text is worth reading behind the longest envelope");

static inline uint64_t slot_word(uint32_t generation, enum slot_state state) {
    return (uint64_t)generation << 32 | (uint64_t)state;
}
static inline uint32_t slot_word_generation(uint64_t word) {
    return (uint32_t)(word >> 32);
}
static inline enum slot_state slot_word_state(uint64_t word) {
    return (enum slot_state)(word & 0xff);
}

/* The word, with everything that its writer wrote before it. */
static inline uint64_t slot_load(const struct slot *slot) {
    return atomic_load_explicit(&slot->word, memory_order_acquire);
}

/* Control: a filled free slot becomes queued. The generation was counted up when the slot was freed. */
static inline void slot_queue(struct slot *slot) {
    uint64_t word = atomic_load_explicit(&slot->word, memory_order_relaxed);
    atomic_store_explicit(&slot->word, slot_word(slot_word_generation(word), SLOT_QUEUED), memory_order_release);
}

/* Worker: queued -> claimed for this generation. False: it was withdrawn, or the hint was stale. */
static inline bool slot_claim(struct slot *slot, uint32_t generation) {
    uint64_t expected = slot_word(generation, SLOT_QUEUED);
    return atomic_compare_exchange_strong_explicit(&slot->word, &expected, slot_word(generation, SLOT_CLAIMED), memory_order_acq_rel,
                                                   memory_order_acquire);
}

/* Control: queued -> withdrawn. False: a worker has it already. This is cancellation. */
static inline bool slot_withdraw(struct slot *slot, uint32_t generation) {
    uint64_t expected = slot_word(generation, SLOT_QUEUED);
    return atomic_compare_exchange_strong_explicit(&slot->word, &expected, slot_word(generation, SLOT_WITHDRAWN), memory_order_acq_rel,
                                                   memory_order_acquire);
}

/* Worker: a later state of a slot that it has claimed (ENVELOPE_SENT, BODY_SENT, ANSWERED). Everything written before is visible with it.
 */
static inline void slot_advance(struct slot *slot, uint32_t generation, enum slot_state state) {
    atomic_store_explicit(&slot->word, slot_word(generation, state), memory_order_release);
}

/* Control: the slot is done with (committed in Redis, or withdrawn and given back). Its generation counts up, so that every old hint is
 * stale. */
static inline void slot_free(struct slot *slot) {
    uint64_t word = atomic_load_explicit(&slot->word, memory_order_relaxed);
    atomic_store_explicit(&slot->word, slot_word(slot_word_generation(word) + 1, SLOT_FREE), memory_order_release);
}

/* What a slot means to a control that finds it and knows nothing else of it: the table of README.md, in code. `dead`: the dataplane that it
 * was queued for is gone. */
enum slot_fate {
    FATE_FREE,      /* nothing to do */
    FATE_WITHDRAW,  /* try slot_withdraw; if a worker was faster it is in flight */
    FATE_IN_FLIGHT, /* a living worker has it: its outcome will come */
    FATE_GIVE_BACK, /* nothing of it can have reached anyone: back to its queue, no attempt counted */
    FATE_LOST,      /* the envelope was out, the body not whole: a temporary failure */
    FATE_UNCERTAIN, /* the whole body may have arrived */
    FATE_SETTLE,    /* the outcome is there */
};
static inline enum slot_fate slot_fate(uint64_t word, bool dead) {
    switch (slot_word_state(word)) {
    case SLOT_QUEUED:
        return dead ? FATE_GIVE_BACK : FATE_WITHDRAW;
    case SLOT_CLAIMED:
        return dead ? FATE_GIVE_BACK : FATE_IN_FLIGHT;
    case SLOT_ENVELOPE_SENT:
        return dead ? FATE_LOST : FATE_IN_FLIGHT;
    case SLOT_BODY_SENT:
        return dead ? FATE_UNCERTAIN : FATE_IN_FLIGHT;
    case SLOT_ANSWERED:
        return FATE_SETTLE;
    case SLOT_WITHDRAWN:
        return FATE_GIVE_BACK;
    case SLOT_FREE:
    case SLOT_STATES:
        break;
    }
    return FATE_FREE;
}

/* Bytes of `text` before the reply's; lengths are those of a checked copy. */
static inline uint32_t slot_addresses_length(uint32_t sender_length, uint32_t recipient_length, uint32_t envid_length) {
    return sender_length + recipient_length + envid_length;
}
/* How many bytes of reply text fit behind them. */
static inline uint32_t slot_reply_room(uint32_t addresses_length) {
    return addresses_length >= SLOT_TEXT_BYTES ? 0 : SLOT_TEXT_BYTES - addresses_length;
}

#endif
