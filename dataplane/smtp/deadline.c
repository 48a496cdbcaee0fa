/* deadline.c: the wheel. A bucket of level n spans 256^n ticks; it is spread over the level below when its time begins. */
#include "deadline.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

enum { DEADLINE_EXPIRED = DEADLINE_LEVELS * DEADLINE_BUCKETS };
/* The furthest place; what lies beyond is filed there and filed again when it comes round. */
#define FURTHEST_TICKS ((UINT64_C(1) << (8 * DEADLINE_LEVELS)) - (UINT64_C(1) << (8 * (DEADLINE_LEVELS - 1))))

void deadlines_init(struct deadlines *deadlines, uint64_t now_us) {
    memset(deadlines, 0, sizeof(*deadlines));
    deadlines->tick = now_us >> DEADLINE_TICK_SHIFT;
}

void deadline_init(struct deadline *deadline, uint8_t kind) {
    *deadline = (struct deadline){.at_us = DEADLINE_NEVER, .kind = kind};
}

static void put(struct deadlines *deadlines, struct deadline *deadline, unsigned bucket) {
    struct deadline **head = bucket == DEADLINE_EXPIRED ? &deadlines->expired : &deadlines->buckets[bucket];
    deadline->bucket = (uint16_t)bucket;
    deadline->next = *head;
    deadline->link = head;
    if (*head)
        (*head)->link = &deadline->next;
    *head = deadline;
    if (bucket != DEADLINE_EXPIRED)
        deadlines->filled[bucket / DEADLINE_BUCKETS][bucket % DEADLINE_BUCKETS / 64] |= UINT64_C(1) << (bucket % 64);
}

static void take_out(struct deadlines *deadlines, struct deadline *deadline) {
    *deadline->link = deadline->next;
    if (deadline->next)
        deadline->next->link = deadline->link;
    deadline->link = NULL;
    unsigned bucket = deadline->bucket;
    if (bucket != DEADLINE_EXPIRED && !deadlines->buckets[bucket])
        deadlines->filled[bucket / DEADLINE_BUCKETS][bucket % DEADLINE_BUCKETS / 64] &= ~(UINT64_C(1) << (bucket % 64));
}

static uint64_t wanted_tick(uint64_t at_us) {
    uint64_t tick = at_us >> DEADLINE_TICK_SHIFT;
    return (at_us & ((1u << DEADLINE_TICK_SHIFT) - 1)) ? tick + 1 : tick;
}

static void file(struct deadlines *deadlines, struct deadline *deadline) {
    uint64_t tick = wanted_tick(deadline->at_us);
    if (tick <= deadlines->tick)
        tick = deadlines->tick + 1;
    if (tick - deadlines->tick > FURTHEST_TICKS)
        tick = deadlines->tick + FURTHEST_TICKS;
    uint64_t ahead = tick - deadlines->tick;
    unsigned level = ahead < DEADLINE_BUCKETS ? 0 : ahead < DEADLINE_BUCKETS * DEADLINE_BUCKETS ? 1 : 2;
    deadline->filed_tick = (uint32_t)tick;
    put(deadlines, deadline, level * DEADLINE_BUCKETS + (unsigned)((tick >> (8 * level)) & (DEADLINE_BUCKETS - 1)));
}

void deadline_set(struct deadlines *deadlines, struct deadline *deadline, uint64_t at_us) {
    deadline->at_us = at_us;
    if (at_us == DEADLINE_NEVER)
        return;
    if (deadline->link) {
        /* Filed ticks lie within the wheel's span ahead, so the lower 32 bits tell which comes first. */
        uint64_t tick = wanted_tick(at_us);
        if (tick <= deadlines->tick)
            tick = deadlines->tick + 1;
        if (deadline->bucket == DEADLINE_EXPIRED || deadlines->tick + (uint32_t)(deadline->filed_tick - (uint32_t)deadlines->tick) <= tick)
            return;
        take_out(deadlines, deadline);
    }
    file(deadlines, deadline);
}

void deadline_forget(struct deadlines *deadlines, struct deadline *deadline) {
    deadline->at_us = DEADLINE_NEVER;
    if (deadline->link)
        take_out(deadlines, deadline);
}

/* Spreads a bucket of a higher level over the levels below. */
static void cascade(struct deadlines *deadlines, unsigned level) {
    unsigned bucket = level * DEADLINE_BUCKETS + (unsigned)((deadlines->tick >> (8 * level)) & (DEADLINE_BUCKETS - 1));
    struct deadline *deadline;
    while ((deadline = deadlines->buckets[bucket])) {
        take_out(deadlines, deadline);
        if (deadline->at_us == DEADLINE_NEVER)
            continue;
        if (wanted_tick(deadline->at_us) <= deadlines->tick)
            put(deadlines, deadline, DEADLINE_EXPIRED);
        else
            file(deadlines, deadline);
    }
}

/* The first filled place of a level from `from` on, or DEADLINE_BUCKETS. */
static unsigned first_filled(const struct deadlines *deadlines, unsigned level, unsigned from) {
    for (unsigned word = from / 64; word < DEADLINE_BUCKETS / 64; word++) {
        uint64_t bits = deadlines->filled[level][word];
        if (word == from / 64)
            bits &= UINT64_MAX << (from % 64);
        if (bits)
            return word * 64 + (unsigned)__builtin_ctzll(bits);
    }
    return DEADLINE_BUCKETS;
}

/* Goes on to the next tick at which there is work, at most to `target`. */
static void turn(struct deadlines *deadlines, uint64_t target) {
    uint64_t place = deadlines->tick & (DEADLINE_BUCKETS - 1), round = deadlines->tick - place;
    unsigned filled = place + 1 < DEADLINE_BUCKETS ? first_filled(deadlines, 0, (unsigned)place + 1) : DEADLINE_BUCKETS;
    if (round + filled > target) {
        deadlines->tick = target;
        return;
    }
    deadlines->tick = round + filled;
    if (filled == DEADLINE_BUCKETS) {
        for (unsigned level = DEADLINE_LEVELS - 1; level >= 1; level--) {
            if ((deadlines->tick & ((UINT64_C(1) << (8 * level)) - 1)) == 0)
                cascade(deadlines, level);
        }
    }
    struct deadline **bucket = &deadlines->buckets[deadlines->tick & (DEADLINE_BUCKETS - 1)];
    while (*bucket) {
        struct deadline *deadline = *bucket;
        take_out(deadlines, deadline);
        put(deadlines, deadline, DEADLINE_EXPIRED);
    }
}

struct deadline *deadlines_due(struct deadlines *deadlines, uint64_t now_us) {
    uint64_t target = now_us >> DEADLINE_TICK_SHIFT;
    while (true) {
        struct deadline *deadline = deadlines->expired;
        if (deadline) {
            take_out(deadlines, deadline);
            if (deadline->at_us <= now_us)
                return deadline;
            if (deadline->at_us != DEADLINE_NEVER)
                file(deadlines, deadline); /* it was moved away meanwhile */
        } else if (deadlines->tick < target) {
            turn(deadlines, target);
        } else {
            return NULL;
        }
    }
}

uint64_t deadlines_next(const struct deadlines *deadlines) {
    if (deadlines->expired)
        return 0;
    uint64_t earliest = DEADLINE_NEVER;
    for (unsigned level = 0; level < DEADLINE_LEVELS; level++) {
        uint64_t now = deadlines->tick >> (8 * level), place = now & (DEADLINE_BUCKETS - 1), round = now - place;
        unsigned filled = place + 1 < DEADLINE_BUCKETS ? first_filled(deadlines, level, (unsigned)place + 1) : DEADLINE_BUCKETS;
        if (filled == DEADLINE_BUCKETS) {
            filled = first_filled(deadlines, level, 0);
            if (filled == DEADLINE_BUCKETS)
                continue;
            round += DEADLINE_BUCKETS;
        }
        uint64_t at_us = (round + filled) << (8 * level) << DEADLINE_TICK_SHIFT;
        if (at_us < earliest)
            earliest = at_us;
    }
    return earliest;
}
