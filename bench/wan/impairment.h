/* impairment.h: what one direction of the path does to a frame: decisions by seed and frame number, times by the clock that is handed in.
 */
#ifndef BENCH_WAN_IMPAIRMENT_H
#define BENCH_WAN_IMPAIRMENT_H

#include "packet.h"
#include <stdbool.h>
#include <stdint.h>

enum { IMPAIRMENT_COPIES_MAX = 2 };

/* One direction. All zero: a wire. Percentages run from 0 to 100. */
struct impairment_config {
    double loss_percent;
    /* Gilbert and Elliott: before each frame the state may change; `bad_percent` and `good_percent` lead into and out of the bad one. */
    double bad_percent, good_percent, bad_loss_percent, good_loss_percent;
    uint64_t delay_ns, jitter_ns; /* the jitter is uniform and adds to the delay */
    bool jitter_reorders;         /* otherwise a frame waits for the one before it */
    double reorder_percent;       /* these frames come reorder_ns later, and others may overtake them */
    uint64_t reorder_ns;
    double duplicate_percent, corrupt_percent;
    enum packet_part corrupt_part;
    uint64_t rate_bits;   /* a second; 0: without limit */
    uint64_t queue_bytes; /* in front of the rate limit; what does not fit is dropped */
    uint16_t mtu;         /* of IP packets; 0: any */
    bool icmp;            /* a larger packet is answered, or fragmented where that is allowed; otherwise it vanishes */
};

enum impairment_fate {
    IMPAIRMENT_PASS,
    IMPAIRMENT_LOST,
    IMPAIRMENT_LOST_BURST,
    IMPAIRMENT_QUEUE_FULL,
    IMPAIRMENT_TOO_BIG,
    IMPAIRMENT_FATES
};

struct impairment_verdict {
    enum impairment_fate fate;
    uint32_t copies; /* 0 unless it passes */
    uint64_t release_ns[IMPAIRMENT_COPIES_MAX];
    bool corrupt, reordered;
    uint64_t bit; /* for packet_flip */
};

struct impairment {
    struct impairment_config config;
    uint64_t key, frames;
    bool bad;
    uint64_t link_free_ns; /* when the bottleneck has sent what it holds */
    uint64_t last_release_ns;
    uint64_t queue_bytes_max; /* the longest that the queue has been */
    uint64_t digest;          /* of every decision that does not depend on the clock */
};

void impairment_init(struct impairment *impairment, const struct impairment_config *config, uint64_t seed, uint32_t direction);
/* The next frame of this direction, `length` bytes of Ethernet, `packet` as read from it. */
void impairment_decide(struct impairment *impairment, const struct packet *packet, uint32_t length, uint64_t now_ns,
                       struct impairment_verdict *verdict);
/* The times of a frame that is not impaired but takes the same way: a fragment. False when the queue is full. */
bool impairment_admit(struct impairment *impairment, uint32_t length, uint64_t now_ns, uint64_t *release_ns);

#endif
