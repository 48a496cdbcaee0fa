/* arena.h: who has which bytes of the arena: a bitmap of units, next fit in a part that grows with what is used. Control is the only one
 * that gives arena memory out. */
#ifndef CONTROL_DISPATCH_ARENA_H
#define CONTROL_DISPATCH_ARENA_H

#include <stdbool.h>
#include <stdint.h>

enum { ARENA_UNIT_BYTES = 512 };

struct arena_map {
    uint64_t *bits;            /* 1: in use */
    uint32_t units, used;      /* of this shard's share of the arena */
    uint32_t first, end, next; /* units from the arena's start */
    uint32_t reach;            /* a run is looked for before it first */
};

static inline uint32_t arena_units(uint32_t bytes) {
    return bytes / ARENA_UNIT_BYTES + (bytes % ARENA_UNIT_BYTES != 0);
}

/* Makes the map of a shard's share of `bytes` of arena, all free. 0, -EINVAL or -ENOMEM. */
int arena_map_create(struct arena_map *map, uint64_t bytes, uint32_t shard, uint32_t shards);
void arena_map_free(struct arena_map *map);
/* Takes a run of at least `bytes`. The arena offset, or UINT64_MAX when no run is free. */
uint64_t arena_take(struct arena_map *map, uint32_t bytes);
/* Marks a run as taken (a slot of an earlier control refers to it). False when it lies outside, or a part of it was taken already: two runs
 * of a good journal never cross. All of it is taken then, too. */
bool arena_claim(struct arena_map *map, uint64_t offset, uint32_t bytes);
void arena_give_back(struct arena_map *map, uint64_t offset, uint32_t bytes);

#endif
