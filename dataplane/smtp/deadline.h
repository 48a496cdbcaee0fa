/* deadline.h: when sessions and lanes want to be looked at again: a wheel of three levels with ticks of 1.024 ms. Moving a deadline further
 * away is one store; the wheel finds out when the old place comes round. */
#ifndef DATAPLANE_SMTP_DEADLINE_H
#define DATAPLANE_SMTP_DEADLINE_H

#include <stdint.h>

enum {
    DEADLINE_TICK_SHIFT = 10, /* microseconds to ticks */
    DEADLINE_LEVELS = 3,
    DEADLINE_BUCKETS = 256,
};
#define DEADLINE_NEVER UINT64_MAX

struct deadline {
    struct deadline *next, **link; /* link: what points at this one; NULL when it is in no bucket */
    uint64_t at_us;                /* DEADLINE_NEVER when it is not wanted */
    uint32_t filed_tick;           /* the tick it is filed under, lower bits */
    uint16_t bucket;               /* level * DEADLINE_BUCKETS + place, or DEADLINE_EXPIRED */
    uint8_t kind;                  /* the owner's */
};

struct deadlines {
    uint64_t tick; /* every bucket up to and with this one was emptied */
    struct deadline *expired;
    uint64_t filled[DEADLINE_LEVELS][DEADLINE_BUCKETS / 64];
    struct deadline *buckets[DEADLINE_LEVELS * DEADLINE_BUCKETS];
};

void deadlines_init(struct deadlines *deadlines, uint64_t now_us);
/* Before a deadline's first use. */
void deadline_init(struct deadline *deadline, uint8_t kind);
/* Asks for a look at `at_us` or up to two ticks later; replaces what was asked before. DEADLINE_NEVER cancels without touching the wheel.
 */
void deadline_set(struct deadlines *deadlines, struct deadline *deadline, uint64_t at_us);
/* Takes it out of the wheel: before its memory goes. */
void deadline_forget(struct deadlines *deadlines, struct deadline *deadline);
/* The next one that is due, no longer filed, or NULL. */
struct deadline *deadlines_due(struct deadlines *deadlines, uint64_t now_us);
/* When something may be due (it may turn out to have been moved away), or DEADLINE_NEVER. */
uint64_t deadlines_next(const struct deadlines *deadlines);

#endif
