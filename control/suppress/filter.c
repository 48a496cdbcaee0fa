/* filter.c: eight bits of one block for each entry (the split block Bloom filter that Parquet and Impala use). */
#include "filter.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int filter_init(struct filter *filter, uint64_t entries) {
    uint64_t capacity = entries + entries / 2;
    capacity = capacity < FILTER_ENTRIES_MIN ? FILTER_ENTRIES_MIN : capacity;
    uint64_t blocks = capacity * FILTER_BITS_PER_ENTRY / (8 * sizeof(struct filter_block)) + 1;
    *filter = (struct filter){.block_count = blocks, .capacity = capacity};
    filter->blocks = aligned_alloc(64, (blocks * sizeof(struct filter_block) + 63) / 64 * 64);
    if (filter->blocks == NULL)
        return -ENOMEM;
    memset(filter->blocks, 0, blocks * sizeof(struct filter_block));
    return 0;
}

void filter_free(struct filter *filter) {
    free(filter->blocks);
    *filter = (struct filter){0};
}

uint64_t filter_bytes(const struct filter *filter) {
    return filter->blocks == NULL ? 0 : filter->block_count * sizeof(struct filter_block);
}

static struct filter_block *block_of(const struct filter *filter, uint64_t hash) {
    return &filter->blocks[(uint64_t)((__uint128_t)hash * filter->block_count >> 64)];
}

static uint32_t bit_of(uint32_t hash, int word) {
    static const uint32_t salts[8] = {0x47b6137b, 0x44974d91, 0x8824ad5b, 0xa2b7289d, 0x705495c7, 0x2df1424b, 0x9efc4947, 0x5c6bfb31};
    return (uint32_t)1 << (hash * salts[word] >> 27);
}

void filter_add(struct filter *filter, uint64_t hash) {
    struct filter_block *block = block_of(filter, hash);
    for (int i = 0; i < 8; i++)
        block->words[i] |= bit_of((uint32_t)hash, i);
    filter->entries++;
}

bool filter_may_hold(const struct filter *filter, uint64_t hash) {
    const struct filter_block *block = block_of(filter, hash);
    uint32_t missing = 0;
    for (int i = 0; i < 8; i++)
        missing |= bit_of((uint32_t)hash, i) & ~block->words[i];
    return missing == 0;
}

static uint64_t mix(uint64_t a, uint64_t b) {
    __uint128_t product = (__uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t hash_bytes(uint64_t key, const char *bytes, size_t length) {
    uint64_t hash = key ^ length;
    for (; length > 0; bytes += 8, length -= length < 8 ? length : 8) {
        uint64_t word = 0;
        memcpy(&word, bytes, length < 8 ? length : 8);
        hash = mix(hash ^ word ^ 0xa0761d6478bd642fu, 0xe7037ed1a0b428dbu);
    }
    return mix(hash ^ 0x8ebc6af09c88c6e3u, key | 1);
}

uint64_t filter_hash(uint64_t key, const char *tenant, const char *address, size_t length) {
    return hash_bytes(hash_bytes(key, tenant, strlen(tenant)) ^ key, address, length);
}
