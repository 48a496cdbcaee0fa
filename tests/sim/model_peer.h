/* model_peer.h: a passive TCP written apart from the stack under test: the simplest sender and receiver that keep the rules, with the
 * habits that real peers have (small windows, late ACKs, no window updates, lost patience). */
#ifndef TESTS_SIM_MODEL_PEER_H
#define TESTS_SIM_MODEL_PEER_H

#include <stddef.h>

#include "random.h"

enum { MODEL_FIN = 1, MODEL_SYN = 2, MODEL_RST = 4, MODEL_PSH = 8, MODEL_ACK = 16 };

struct model_segment {
    uint32_t sequence, acknowledgement;
    uint16_t window;
    uint8_t flags;
    uint8_t options_length;
    uint8_t options[40];
    uint32_t length;
    uint8_t *payload;
};

/* How a peer behaves, drawn from the seed. */
struct model_habits {
    uint16_t mss; /* announced; 0: no option */
    int shift;    /* -1: no window scaling */
    bool timestamps;
    uint32_t buffer_bytes;              /* what its window is taken from */
    uint32_t read_every_us, read_bytes; /* how its application reads: 0 bytes: all at once */
    bool window_updates;                /* says so when the window opens */
    uint32_t ack_every;                 /* segments an ACK */
    uint32_t ack_delay_us;
    uint32_t send_bytes; /* its stream */
    uint32_t segment_bytes, segments_in_flight;
    bool closes_first;    /* FIN after its stream; otherwise only after our FIN */
    bool refuses;         /* RST to the SYN */
    bool silent;          /* never answers */
    uint64_t reset_at_us; /* 0: never */
};

struct model_peer {
    struct model_habits habits;
    struct sim_random *random;
    void (*emit)(void *world, struct model_peer *peer, const struct model_segment *segment);
    void *world;
    int state; /* enum model_state */
    /* Receiving: the stream that must come, and which bytes of it did. */
    const uint8_t *expected;
    uint32_t expected_bytes;
    uint8_t *have;
    uint32_t irs, rcv_nxt, adv, max_right_edge, fin_at, unread;
    bool fin_seen, fin_taken;
    uint32_t unacked_segments;
    uint64_t ack_at, read_at;
    /* Sending. */
    const uint8_t *stream;
    uint32_t iss, una, nxt, max, window, mss, rto_us, duplicates;
    uint8_t peer_shift;
    bool scaling, stamps;
    uint32_t ts_recent;
    uint64_t resend_at;
    bool fin_acknowledged, was_reset;
    const char *complaint; /* a rule that the stack broke */
};
enum model_state { MODEL_LISTEN, MODEL_SYN_RECEIVED, MODEL_OPEN, MODEL_GONE };

void model_init(struct model_peer *peer, uint32_t iss);
void model_free(struct model_peer *peer);
void model_input(struct model_peer *peer, const struct model_segment *segment, uint64_t now_us);
void model_timer(struct model_peer *peer, uint64_t now_us);
uint64_t model_next(const struct model_peer *peer);
uint32_t model_received(const struct model_peer *peer);

#endif
