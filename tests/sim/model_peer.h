/* model_peer.h: a TCP written apart from the stack under test: the simplest sender and receiver that keep the rules, with the habits that
 * real peers have (small and shrinking windows, late, stretched and quick ACKs, SACK of every quality, no window updates, lost patience).
 */
#ifndef TESTS_SIM_MODEL_PEER_H
#define TESTS_SIM_MODEL_PEER_H

#include <stddef.h>

#include "random.h"
#include "segment.h"

enum { MODEL_MSS_DEFAULT_V4 = 536, MODEL_MSS_DEFAULT_V6 = 1220 };

/* How a peer behaves, drawn from the seed. */
struct model_habits {
    uint16_t mss; /* announced; 0: no option */
    uint16_t mss_default;
    int shift; /* -1: no window scaling */
    bool timestamps;
    bool sack, duplicate_sack;
    uint32_t renege, sack_lies;         /* per thousand: forgets what it holds out of order; adds a block of nonsense */
    uint32_t shrinks;                   /* per thousand: the window's right edge moves left, and what lies beyond is dropped */
    uint32_t buffer_bytes;              /* what its window is taken from */
    uint32_t read_every_us, read_bytes; /* how its application reads: 0 bytes: all at once */
    bool window_updates;                /* says so when the window opens */
    uint32_t ack_every;                 /* segments an ACK */
    uint32_t ack_delay_us;
    uint32_t send_bytes; /* its stream */
    uint32_t segment_bytes, segments_in_flight;
    bool opens;           /* sends the SYN */
    bool simultaneous;    /* answers the first SYN by a SYN of its own */
    bool closes_first;    /* FIN after its stream; otherwise only after our FIN */
    bool refuses;         /* RST to the SYN */
    bool silent;          /* never answers */
    bool vanishes;        /* falls silent at reset_at_us instead of sending RST */
    uint64_t reset_at_us; /* 0: never */
};

enum model_state { MODEL_LISTEN, MODEL_SYN_SENT, MODEL_SYN_RECEIVED, MODEL_OPEN, MODEL_GONE };

struct model_peer {
    struct model_habits habits;
    struct sim_random *random;
    void (*emit)(void *context, const struct segment *segment);
    void *context;
    enum model_state state;
    /* Receiving: the stream that must come, and which bytes of it did. */
    const uint8_t *expected;
    uint32_t expected_bytes;
    uint8_t *have;
    uint32_t irs, rcv_nxt, adv, edge, unread;
    bool fin_seen, fin_taken;
    uint32_t unacked_segments;
    uint64_t ack_at, read_at;
    struct segment_block recent[SEGMENT_BLOCKS_MAX]; /* blocks reported before, the latest first */
    struct segment_block repeated;                   /* what came twice and is not reported (D-SACK) */
    /* Sending. */
    const uint8_t *stream;
    uint32_t iss, una, nxt, max, window, mss, rto_us, duplicates;
    uint8_t peer_shift;
    bool scaling, stamps, sacks;
    uint32_t ts_recent;
    uint64_t resend_at;
    bool fin_acknowledged, was_reset;
    const char *complaint; /* a rule that the stack broke */
};

void model_init(struct model_peer *peer, uint32_t iss);
void model_free(struct model_peer *peer);
/* Sends its SYN. */
void model_open(struct model_peer *peer, uint64_t now_us);
void model_input(struct model_peer *peer, const struct segment *segment, uint64_t now_us);
void model_timer(struct model_peer *peer, uint64_t now_us);
uint64_t model_next(const struct model_peer *peer);
uint32_t model_received(const struct model_peer *peer);
/* Nothing more will be said but ACKs of what is repeated. */
bool model_done(const struct model_peer *peer);

#endif
