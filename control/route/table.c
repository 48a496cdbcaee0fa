/* table.c: chained buckets and SipHash-1-3 (Aumasson and Bernstein): a sender of domains cannot choose them to share a bucket. */
#include "table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { TABLE_BUCKETS_MIN = 64 };

int table_init(struct table *table) {
    memset(table, 0, sizeof *table);
    table->buckets = calloc(TABLE_BUCKETS_MIN, sizeof(struct table_node *));
    if (!table->buckets)
        return -ENOMEM;
    table->bucket_count = TABLE_BUCKETS_MIN;
    if (getrandom(&table->seed, sizeof table->seed, 0) != (ssize_t)sizeof table->seed)
        table->seed = (uint64_t)(uintptr_t)table->buckets;
    return 0;
}

void table_clear(struct table *table) {
    free(table->buckets);
    memset(table, 0, sizeof *table);
}

static inline uint64_t rotate(uint64_t x, int bits) {
    return x << bits | x >> (64 - bits);
}

static inline void sip_round(uint64_t v[4]) {
    v[0] += v[1], v[1] = rotate(v[1], 13) ^ v[0], v[0] = rotate(v[0], 32);
    v[2] += v[3], v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = rotate(v[1], 17) ^ v[2], v[2] = rotate(v[2], 32);
}

uint64_t table_hash(const struct table *table, const void *key, size_t key_bytes) {
    const uint8_t *bytes = key;
    uint64_t k1 = table->seed * 0x9e3779b97f4a7c15u;
    uint64_t v[4] = {table->seed ^ 0x736f6d6570736575u, k1 ^ 0x646f72616e646f6du, table->seed ^ 0x6c7967656e657261u,
                     k1 ^ 0x7465646279746573u};
    size_t left = key_bytes;
    uint64_t word;
    for (; left >= 8; bytes += 8, left -= 8) {
        memcpy(&word, bytes, 8);
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    word = 0;
    if (left > 0)
        memcpy(&word, bytes, left);
    word |= (uint64_t)key_bytes << 56;
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
    v[2] ^= 0xff;
    sip_round(v);
    sip_round(v);
    sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

struct table_node *table_first(const struct table *table, uint64_t hash) {
    struct table_node *node = table->buckets[hash & (table->bucket_count - 1)];
    while (node && node->hash != hash)
        node = node->next;
    return node;
}

struct table_node *table_next(const struct table_node *node) {
    struct table_node *next = node->next;
    while (next && next->hash != node->hash)
        next = next->next;
    return next;
}

static void table_grow(struct table *table) {
    size_t bucket_count = table->bucket_count * 2;
    struct table_node **buckets = calloc(bucket_count, sizeof(struct table_node *));
    if (!buckets)
        return;
    for (size_t i = 0; i < table->bucket_count; i++) {
        struct table_node *node = table->buckets[i];
        while (node) {
            struct table_node *next = node->next;
            node->next = buckets[node->hash & (bucket_count - 1)];
            buckets[node->hash & (bucket_count - 1)] = node;
            node = next;
        }
    }
    free(table->buckets);
    table->buckets = buckets;
    table->bucket_count = bucket_count;
}

void table_insert(struct table *table, struct table_node *node, uint64_t hash) {
    if (table->count >= table->bucket_count)
        table_grow(table);
    struct table_node **bucket = &table->buckets[hash & (table->bucket_count - 1)];
    node->hash = hash;
    node->next = *bucket;
    *bucket = node;
    table->count++;
}

void table_remove(struct table *table, struct table_node *node) {
    struct table_node **at = &table->buckets[node->hash & (table->bucket_count - 1)];
    while (*at && *at != node)
        at = &(*at)->next;
    if (!*at)
        return;
    *at = node->next;
    node->next = NULL;
    table->count--;
}

void table_each(struct table *table, void (*each)(void *context, struct table_node *node), void *context) {
    for (size_t i = 0; i < table->bucket_count; i++) {
        struct table_node *node = table->buckets[i];
        while (node) {
            struct table_node *next = node->next;
            each(context, node);
            node = next;
        }
    }
}
