/* waiting.c: frames kept while their neighbour has not answered. */
#include "neighbour.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct frame_waiting {
    struct frame frame;
    uint8_t header[FRAME_HEADER_BYTES_MAX];
};

struct frame_waiting_pool {
    uint32_t frame_bytes;
    uint32_t free_count;
    uint8_t free[NEIGHBOUR_WAITING_POOL];
    struct frame_waiting frames[NEIGHBOUR_WAITING_POOL];
    uint8_t payload[]; /* frame_bytes for each */
};

struct frame_waiting_pool *waiting_pool_create(uint32_t frame_bytes) {
    struct frame_waiting_pool *pool = calloc(1, sizeof *pool + (size_t)NEIGHBOUR_WAITING_POOL * frame_bytes);
    if (pool == NULL)
        return NULL;
    pool->frame_bytes = frame_bytes;
    pool->free_count = NEIGHBOUR_WAITING_POOL;
    for (uint32_t i = 0; i < NEIGHBOUR_WAITING_POOL; i++)
        pool->free[i] = (uint8_t)i;
    return pool;
}

void waiting_pool_destroy(struct frame_waiting_pool *pool) {
    free(pool);
}

static uint8_t *waiting_payload(struct frame_waiting_pool *pool, uint8_t slot) {
    return pool->payload + (size_t)slot * pool->frame_bytes;
}

static void waiting_free_oldest(struct frame_waiting_pool *pool, struct neighbour *neighbour) {
    pool->free[pool->free_count++] = neighbour->waiting[0];
    neighbour->waiting_count--;
    memmove(neighbour->waiting, neighbour->waiting + 1, neighbour->waiting_count);
}

int neighbour_wait(struct frame_waiting_pool *pool, struct neighbour *neighbour, const struct frame *frame) {
    if (frame->payload_length > pool->frame_bytes || neighbour->waiting_count == NEIGHBOUR_WAITING_MAX || pool->free_count == 0)
        return -EAGAIN;
    uint8_t slot = pool->free[--pool->free_count];
    neighbour->waiting[neighbour->waiting_count++] = slot;
    struct frame_waiting *kept = &pool->frames[slot];
    kept->frame = *frame;
    memcpy(kept->header, frame->header, frame->header_length);
    uint8_t *to = waiting_payload(pool, slot);
    for (uint32_t i = 0; i < frame->piece_count; i++) {
        memcpy(to, frame->pieces[i].bytes, frame->pieces[i].length);
        to += frame->pieces[i].length;
    }
    assert((size_t)(to - waiting_payload(pool, slot)) == frame->payload_length);
    return 0;
}

uint32_t neighbour_waiting_end(struct frame_waiting_pool *pool, struct neighbour *neighbour,
                               void (*send)(void *context, uint8_t *header, const struct frame *frame), void *context) {
    uint32_t count = neighbour->waiting_count;
    while (neighbour->waiting_count > 0) {
        uint8_t slot = neighbour->waiting[0];
        struct frame_waiting *kept = &pool->frames[slot];
        if (send != NULL) {
            struct tcp_piece piece = {.bytes = waiting_payload(pool, slot), .length = kept->frame.payload_length};
            struct frame frame = kept->frame;
            frame.header = kept->header;
            frame.by_reference_allowed = false;
            frame.piece_count = frame.payload_length > 0;
            frame.pieces = &piece;
            send(context, kept->header, &frame);
        }
        waiting_free_oldest(pool, neighbour);
    }
    return count;
}
