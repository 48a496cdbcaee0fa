/* pool.h: records of one size, all reserved when the engine is made. Memory that no record was ever taken from is never touched, so that a
 * generous bound costs address space only. */
#ifndef DATAPLANE_SMTP_POOL_H
#define DATAPLANE_SMTP_POOL_H

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

/* Under AddressSanitizer a record that was given back may not be touched. */
#if defined(__SANITIZE_ADDRESS__)
#define POOL_POISONS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POOL_POISONS 1
#endif
#endif
#ifdef POOL_POISONS
#include <sanitizer/asan_interface.h>
#define POOL_HIDE(item, bytes) ASAN_POISON_MEMORY_REGION(item, bytes)
#define POOL_SHOW(item, bytes) ASAN_UNPOISON_MEMORY_REGION(item, bytes)
#else
#define POOL_HIDE(item, bytes) ((void)0)
#define POOL_SHOW(item, bytes) ((void)0)
#endif

struct pool {
    uint8_t *base;
    size_t item_bytes;
    uint32_t count; /* records in all */
    uint32_t fresh; /* records from here on were never taken */
    uint32_t used;  /* on loan */
    void *free;     /* given back, the last one first because its lines are still warm */
};

/* 0 or -ENOMEM. */
static inline int pool_create(struct pool *pool, size_t item_bytes, uint32_t count) {
    *pool = (struct pool){.item_bytes = (item_bytes + 63) & ~(size_t)63, .count = count};
    if (!count)
        return 0;
    void *base = mmap(NULL, pool->item_bytes * count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return -ENOMEM;
    pool->base = base;
    return 0;
}

static inline void pool_destroy(struct pool *pool) {
    if (!pool->base)
        return;
    POOL_SHOW(pool->base, pool->item_bytes * pool->count);
    munmap(pool->base, pool->item_bytes * pool->count);
    pool->base = NULL;
}

/* A record with undefined content, or NULL. */
static inline void *pool_take(struct pool *pool) {
    void *item = pool->free;
    if (item) {
        POOL_SHOW(item, pool->item_bytes);
        pool->free = *(void **)item;
    } else if (pool->fresh < pool->count) {
        item = pool->base + pool->item_bytes * pool->fresh++;
    } else {
        return NULL;
    }
    pool->used++;
    return item;
}

static inline void pool_give(struct pool *pool, void *item) {
    assert(pool->used > 0);
    *(void **)item = pool->free;
    pool->free = item;
    pool->used--;
    POOL_HIDE(item, pool->item_bytes);
}

static inline uint32_t pool_left(const struct pool *pool) {
    return pool->count - pool->used;
}

#endif
