/* heap.h: timers in a binary heap; each knows its place, so that moving one costs O(log n). */
#ifndef CONTROL_SHAPE_HEAP_H
#define CONTROL_SHAPE_HEAP_H

#include <stdint.h>

enum timer_owner { TIMER_LANE, TIMER_PROVIDER };

struct timer {
    uint64_t at_us; /* UINT64_MAX: never */
    uint32_t place; /* in the heap, from 1; 0: not in it */
    enum timer_owner owner;
};

struct heap {
    struct timer **items; /* [1..count] */
    uint32_t count, capacity;
};

/* Room for `count` timers in all, so that heap_set cannot fail. 0 or -ENOMEM. */
int heap_reserve(struct heap *heap, uint32_t count);
void heap_free(struct heap *heap);
/* Starts, moves or (UINT64_MAX) stops a timer. */
void heap_set(struct heap *heap, struct timer *timer, uint64_t at_us);
/* The earliest, or NULL. */
struct timer *heap_first(const struct heap *heap);

#endif
