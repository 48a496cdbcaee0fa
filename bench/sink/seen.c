/* seen.c: open addressing, entries only ever added; an entry of the attempts' table has its count in the low eight bits. */
#include "seen.h"

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>

enum { SEEN_PROBES_MAX = 512 }; /* a table so full that this does not do counts as full */

int seen_create(struct seen *seen, uint64_t capacity) {
    uint64_t slots = 1024;
    while (slots < capacity + capacity / 2)
        slots *= 2;
    void *bytes = mmap(NULL, slots * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (bytes == MAP_FAILED)
        return -ENOMEM;
    seen->entries = bytes;
    seen->mask = slots - 1;
    return 0;
}

void seen_destroy(struct seen *seen) {
    if (seen->entries != NULL)
        munmap((void *)seen->entries, (seen->mask + 1) * sizeof(uint64_t));
    seen->entries = NULL;
}

enum seen_verdict seen_add(struct seen *seen, uint64_t hash) {
    hash = hash == 0 ? 1 : hash;
    for (uint64_t probe = 0; probe < SEEN_PROBES_MAX; probe++) {
        _Atomic uint64_t *entry = &seen->entries[((hash >> 16) + probe) & seen->mask];
        uint64_t found = atomic_load_explicit(entry, memory_order_relaxed);
        if (found == 0 && atomic_compare_exchange_strong_explicit(entry, &found, hash, memory_order_relaxed, memory_order_relaxed))
            return SEEN_NEW;
        if (found == hash)
            return SEEN_AGAIN;
    }
    return SEEN_FULL;
}

uint32_t seen_attempt(struct seen *seen, uint64_t hash) {
    const uint64_t count_mask = 0xff;
    hash &= ~count_mask;
    hash = hash == 0 ? count_mask + 1 : hash;
    for (uint64_t probe = 0; probe < SEEN_PROBES_MAX; probe++) {
        _Atomic uint64_t *entry = &seen->entries[((hash >> 16) + probe) & seen->mask];
        uint64_t found = atomic_load_explicit(entry, memory_order_relaxed);
        while (found == 0 || (found & ~count_mask) == hash) {
            uint32_t before = (uint32_t)(found & count_mask);
            uint64_t after = hash | (before < count_mask ? before + 1 : before);
            if (atomic_compare_exchange_weak_explicit(entry, &found, after, memory_order_relaxed, memory_order_relaxed))
                return before;
        }
    }
    return UINT32_MAX;
}
