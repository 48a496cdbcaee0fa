/* pending.h: frames that wait for their time: a heap by time, then by arrival; its memory is allocated at start. */
#ifndef BENCH_WAN_PENDING_H
#define BENCH_WAN_PENDING_H

#include <stdbool.h>
#include <stdint.h>

struct pending_entry {
    uint64_t release_ns, order;
    uint32_t slot, length;
};

struct pending {
    uint32_t capacity, count, slot_bytes, free_count, count_max;
    uint64_t order;
    struct pending_entry *heap;
    uint32_t *free_slots;
    uint8_t *slots; /* touched as they are used, the last used first */
};

/* 0 or -ENOMEM. */
int pending_create(struct pending *pending, uint32_t capacity, uint32_t slot_bytes);
void pending_destroy(struct pending *pending);
/* Copies the frame. Returns its bytes, to be changed by the caller, or NULL when there is no room or the frame is larger than a slot. */
uint8_t *pending_add(struct pending *pending, const uint8_t *frame, uint32_t length, uint64_t release_ns);
/* The first to go, or NULL; valid until the next call. */
const struct pending_entry *pending_first(const struct pending *pending);
static inline const uint8_t *pending_bytes(const struct pending *pending, const struct pending_entry *entry) {
    return pending->slots + (uint64_t)entry->slot * pending->slot_bytes;
}
void pending_remove_first(struct pending *pending);

#endif
