/* random.h: a seeded generator (xorshift64*): the same seed, the same run. */
#ifndef TESTS_SIM_RANDOM_H
#define TESTS_SIM_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct sim_random {
    uint64_t state;
};

static inline uint64_t random_next(struct sim_random *random) {
    random->state ^= random->state >> 12;
    random->state ^= random->state << 25;
    random->state ^= random->state >> 27;
    return random->state * 0x2545f4914f6cdd1dULL;
}

static inline void random_seed(struct sim_random *random, uint64_t seed) {
    random->state = (seed + 1) * 0x9e3779b97f4a7c15ULL;
    for (int i = 0; i < 4; i++) {
        random_next(random);
    }
}

/* From low to high, both included. */
static inline uint32_t random_range(struct sim_random *random, uint32_t low, uint32_t high) {
    return low + (uint32_t)((random_next(random) >> 32) * ((uint64_t)high - low + 1) >> 32);
}

static inline bool random_chance(struct sim_random *random, uint32_t per_thousand) {
    return random_range(random, 0, 999) < per_thousand;
}

#endif
