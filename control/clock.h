/* clock.h: the kernel's clocks in the units that control counts in: CLOCK_MONOTONIC for what passes, CLOCK_REALTIME for what is written
 * down. */
#ifndef CONTROL_CLOCK_H
#define CONTROL_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_us(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static inline uint64_t clock_ms(clockid_t clock) {
    return clock_us(clock) / 1000;
}

#endif
