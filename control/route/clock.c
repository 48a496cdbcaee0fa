/* clock.c: the clock that TTLs run by; a file of its own so that a test can put another in its place. */
#include "state.h"
#include "sts_state.h"

#include "control/clock.h"

uint64_t route_now_us(void) {
    return clock_us(CLOCK_MONOTONIC);
}

uint64_t route_wall_s(void) {
    return clock_us(CLOCK_REALTIME) / 1000000;
}
