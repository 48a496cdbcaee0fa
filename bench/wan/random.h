/* random.h: draws that depend on the seed, the direction and the frame's number alone, so that a run repeats whatever the clock does. */
#ifndef BENCH_WAN_RANDOM_H
#define BENCH_WAN_RANDOM_H

#include <stdint.h>

/* What a draw decides. Every frame has one of each kind, used or not: switching one impairment on does not move the others. */
enum wan_draw {
    WAN_DRAW_LOSS,
    WAN_DRAW_BURST_STATE,
    WAN_DRAW_BURST_LOSS,
    WAN_DRAW_JITTER,
    WAN_DRAW_REORDER,
    WAN_DRAW_DUPLICATE,
    WAN_DRAW_CORRUPT,
    WAN_DRAW_BIT,
    WAN_DRAWS
};

static inline uint64_t random_mix(uint64_t x) { /* SplitMix64's finalizer */
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static inline uint64_t random_key(uint64_t seed, uint32_t direction) {
    return random_mix(random_mix(seed + UINT64_C(0x9e3779b97f4a7c15)) + direction + 1);
}

static inline uint64_t random_draw(uint64_t key, uint64_t frame, enum wan_draw what) {
    return random_mix(key + (frame * WAN_DRAWS + (uint64_t)what + 1) * UINT64_C(0x9e3779b97f4a7c15));
}

/* True with a probability of `percent`. */
static inline int random_happens(uint64_t draw, double percent) {
    return (double)(draw >> 11) * 0x1p-53 * 100.0 < percent;
}

#endif
