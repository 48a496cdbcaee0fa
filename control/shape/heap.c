/* heap.c: sift up, sift down. */
#include "heap.h"

#include <errno.h>
#include <stdlib.h>

int heap_reserve(struct heap *heap, uint32_t count) {
    if (count < heap->capacity)
        return 0;
    uint32_t capacity = heap->capacity ? heap->capacity : 64;
    while (capacity <= count)
        capacity *= 2;
    struct timer **items = realloc(heap->items, capacity * sizeof(struct timer *));
    if (!items)
        return -ENOMEM;
    heap->items = items;
    heap->capacity = capacity;
    return 0;
}

void heap_free(struct heap *heap) {
    free(heap->items);
    *heap = (struct heap){0};
}

static void put(struct heap *heap, struct timer *timer, uint32_t place) {
    heap->items[place] = timer;
    timer->place = place;
}

static void sift_up(struct heap *heap, struct timer *timer, uint32_t place) {
    while (place > 1 && heap->items[place / 2]->at_us > timer->at_us) {
        put(heap, heap->items[place / 2], place);
        place /= 2;
    }
    put(heap, timer, place);
}

static void sift_down(struct heap *heap, struct timer *timer, uint32_t place) {
    for (;;) {
        uint32_t child = place * 2;
        if (child > heap->count)
            break;
        if (child < heap->count && heap->items[child + 1]->at_us < heap->items[child]->at_us)
            child++;
        if (heap->items[child]->at_us >= timer->at_us)
            break;
        put(heap, heap->items[child], place);
        place = child;
    }
    put(heap, timer, place);
}

void heap_set(struct heap *heap, struct timer *timer, uint64_t at_us) {
    uint64_t before_us = timer->at_us;
    timer->at_us = at_us;
    if (timer->place == 0) {
        if (at_us == UINT64_MAX)
            return;
        sift_up(heap, timer, ++heap->count);
    } else if (at_us == UINT64_MAX) {
        struct timer *last = heap->items[heap->count--];
        uint32_t place = timer->place;
        timer->place = 0;
        if (last == timer)
            return;
        if (place > 1 && heap->items[place / 2]->at_us > last->at_us)
            sift_up(heap, last, place);
        else
            sift_down(heap, last, place);
    } else if (at_us < before_us) {
        sift_up(heap, timer, timer->place);
    } else if (at_us > before_us) {
        sift_down(heap, timer, timer->place);
    }
}

struct timer *heap_first(const struct heap *heap) {
    return heap->count > 0 ? heap->items[1] : NULL;
}
