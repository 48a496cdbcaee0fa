/* tcp_pool.c: making and freeing the fixed pools. */
#include "tcp_pool.h"

#include <errno.h>
#include <stdlib.h>

enum { POOL_ALIGN = 64 };

int tcp_pool_create(struct tcp_pool *pool, uint32_t capacity, uint32_t item_bytes) {
    void *memory = NULL;
    assert(item_bytes >= sizeof(pool->free_head));
    if (posix_memalign(&memory, POOL_ALIGN, (size_t)capacity * item_bytes + POOL_ALIGN) != 0) {
        return -ENOMEM;
    }
    *pool = (struct tcp_pool){.items = memory, .item_bytes = item_bytes, .capacity = capacity, .free_head = TCP_NONE};
    return 0;
}

void tcp_pool_destroy(struct tcp_pool *pool) {
    if (pool->items != NULL) {
        ASAN_UNPOISON_MEMORY_REGION(pool->items, (size_t)pool->capacity * pool->item_bytes);
    }
    free(pool->items);
    *pool = (struct tcp_pool){.free_head = TCP_NONE};
}
