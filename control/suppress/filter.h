/* filter.h: a split block Bloom filter of 64-bit hashes: "certainly not there", or "look". Private to suppress. */
#ifndef CONTROL_SUPPRESS_FILTER_H
#define CONTROL_SUPPRESS_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FILTER_BITS_PER_ENTRY = 12, /* about 1 in 150 of those that are not there must be looked up */
    FILTER_ENTRIES_MIN = 65536, /* room for what is added to a small list */
};

/* 32 bytes: one cache line holds two, so a question costs one miss. */
struct filter_block {
    uint32_t words[8];
};

struct filter {
    struct filter_block *blocks;
    uint64_t block_count, entries, capacity;
};

/* For so many entries, and half as many again that come later. 0 or -ENOMEM. */
int filter_init(struct filter *filter, uint64_t entries);
void filter_free(struct filter *filter);
uint64_t filter_bytes(const struct filter *filter);
void filter_add(struct filter *filter, uint64_t hash);
/* False: it was never added. */
bool filter_may_hold(const struct filter *filter, uint64_t hash);
/* A keyed hash of an address on a list. */
uint64_t filter_hash(uint64_t key, const char *tenant, const char *address, size_t length);

#endif
