/* clock.c: the clock that TTLs run by; a file of its own so that a test can put another in its place. */
#include "state.h"

#include <time.h>

uint64_t route_now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}
