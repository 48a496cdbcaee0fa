/* pending.c: a binary heap of small entries; the bytes lie in slots of one size. */
#include "pending.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int pending_create(struct pending *pending, uint32_t capacity, uint32_t slot_bytes) {
    memset(pending, 0, sizeof *pending);
    pending->capacity = pending->free_count = capacity;
    pending->slot_bytes = slot_bytes;
    pending->heap = malloc(capacity * sizeof pending->heap[0]);
    pending->free_slots = malloc(capacity * sizeof pending->free_slots[0]);
    pending->slots = malloc((size_t)capacity * slot_bytes);
    if (pending->heap == NULL || pending->free_slots == NULL || pending->slots == NULL) {
        pending_destroy(pending);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < capacity; i++)
        pending->free_slots[i] = capacity - 1 - i;
    return 0;
}

void pending_destroy(struct pending *pending) {
    free(pending->heap);
    free(pending->free_slots);
    free(pending->slots);
    memset(pending, 0, sizeof *pending);
}

static bool before(const struct pending_entry *a, const struct pending_entry *b) {
    return a->release_ns != b->release_ns ? a->release_ns < b->release_ns : a->order < b->order;
}

uint8_t *pending_add(struct pending *pending, const uint8_t *frame, uint32_t length, uint64_t release_ns) {
    if (pending->free_count == 0 || length > pending->slot_bytes)
        return NULL;
    struct pending_entry entry = {
        .release_ns = release_ns, .order = pending->order++, .slot = pending->free_slots[--pending->free_count], .length = length};
    uint32_t at = pending->count++;
    while (at > 0 && before(&entry, &pending->heap[(at - 1) / 2])) {
        pending->heap[at] = pending->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    pending->heap[at] = entry;
    if (pending->count > pending->count_max)
        pending->count_max = pending->count;
    uint8_t *bytes = pending->slots + (uint64_t)entry.slot * pending->slot_bytes;
    memcpy(bytes, frame, length);
    return bytes;
}

const struct pending_entry *pending_first(const struct pending *pending) {
    return pending->count > 0 ? &pending->heap[0] : NULL;
}

void pending_remove_first(struct pending *pending) {
    pending->free_slots[pending->free_count++] = pending->heap[0].slot;
    struct pending_entry last = pending->heap[--pending->count];
    uint32_t at = 0;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= pending->count)
            break;
        if (child + 1 < pending->count && before(&pending->heap[child + 1], &pending->heap[child]))
            child++;
        if (!before(&pending->heap[child], &last))
            break;
        pending->heap[at] = pending->heap[child];
        at = child;
    }
    pending->heap[at] = last;
}
