/* pool.h: records of one size, reserved at the start, touched when first used, named by number. */
#ifndef BENCH_SINK_POOL_H
#define BENCH_SINK_POOL_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define POOL_NONE UINT32_MAX

struct pool {
    uint8_t *items;
    size_t item_bytes;
    uint32_t capacity, fresh, free_head, in_use;
};

/* 0 or -ENOMEM. item_bytes is at least 4. */
static inline int pool_create(struct pool *pool, uint32_t capacity, size_t item_bytes) {
    void *items = mmap(NULL, capacity * item_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (items == MAP_FAILED)
        return -ENOMEM;
    *pool = (struct pool){.items = items, .item_bytes = item_bytes, .capacity = capacity, .free_head = POOL_NONE};
    return 0;
}

static inline void pool_destroy(struct pool *pool) {
    if (pool->items != NULL)
        munmap(pool->items, pool->capacity * pool->item_bytes);
    pool->items = NULL;
}

static inline void *pool_at(const struct pool *pool, uint32_t index) {
    return pool->items + (size_t)index * pool->item_bytes;
}

/* A record with undefined contents, or POOL_NONE. */
static inline uint32_t pool_take(struct pool *pool) {
    uint32_t index = pool->free_head;
    if (index != POOL_NONE)
        memcpy(&pool->free_head, pool_at(pool, index), sizeof(pool->free_head));
    else if (pool->fresh < pool->capacity)
        index = pool->fresh++;
    else
        return POOL_NONE;
    pool->in_use++;
    return index;
}

static inline void pool_give(struct pool *pool, uint32_t index) {
    memcpy(pool_at(pool, index), &pool->free_head, sizeof(pool->free_head));
    pool->free_head = index;
    pool->in_use--;
}

#endif
