/* tcp_pool.h: fixed pools of equal records, named by 32-bit index so that a link costs four bytes. Nothing is allocated after creation;
 * memory that was never taken is never touched. Under AddressSanitizer a record that was given back is poisoned. */
#ifndef DATAPLANE_TCP_TCP_POOL_H
#define DATAPLANE_TCP_TCP_POOL_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define TCP_POOL_POISON 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TCP_POOL_POISON 1
#endif
#endif
#ifdef TCP_POOL_POISON
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size)   ((void)0)
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)0)
#endif

#define TCP_NONE UINT32_MAX /* the index of no record */

struct tcp_pool {
    uint8_t *items;
    uint32_t item_bytes;
    uint32_t capacity;
    uint32_t fresh; /* records from here on were never taken */
    uint32_t free_head;
    uint32_t in_use;
};

/* Room for `capacity` records of `item_bytes`, aligned to cache lines. 0 or -ENOMEM. */
int tcp_pool_create(struct tcp_pool *pool, uint32_t capacity, uint32_t item_bytes);
void tcp_pool_destroy(struct tcp_pool *pool);

static inline void *tcp_pool_at(const struct tcp_pool *pool, uint32_t index) {
    return pool->items + (size_t)index * pool->item_bytes;
}

static inline uint32_t tcp_pool_left(const struct tcp_pool *pool) {
    return pool->capacity - pool->in_use;
}

/* A record with undefined contents, or TCP_NONE when all are in use. */
static inline uint32_t tcp_pool_take(struct tcp_pool *pool) {
    uint32_t index = pool->free_head;
    if (index != TCP_NONE) {
        void *item = tcp_pool_at(pool, index);
        ASAN_UNPOISON_MEMORY_REGION(item, pool->item_bytes);
        memcpy(&pool->free_head, item, sizeof(pool->free_head));
    } else if (pool->fresh < pool->capacity) {
        index = pool->fresh++;
    } else {
        return TCP_NONE;
    }
    pool->in_use++;
    return index;
}

static inline void tcp_pool_give(struct tcp_pool *pool, uint32_t index) {
    assert(index < pool->fresh && pool->in_use > 0);
    void *item = tcp_pool_at(pool, index);
    memcpy(item, &pool->free_head, sizeof(pool->free_head));
    ASAN_POISON_MEMORY_REGION(item, pool->item_bytes);
    pool->free_head = index;
    pool->in_use--;
}

#endif
