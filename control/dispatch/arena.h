/* arena.h: who has which bytes of the arena: a bitmap of units. Small runs by next fit, in a part that grows with what is used; huge ones
 * from the end downward, and a window that small ones stay out of while a huge one waits for it. Control is the only one that gives arena
 * memory out. */
#ifndef CONTROL_DISPATCH_ARENA_H
#define CONTROL_DISPATCH_ARENA_H

#include <stdbool.h>
#include <stdint.h>

enum {
    ARENA_UNIT_BYTES = 512,
    /* A run is huge from this part of the shard's arena on, within these bounds: thirty of them make an arena, and fewer would leave holes
     * in which no small one waits. */
    ARENA_HUGE_PART = 32,
    ARENA_HUGE_BYTES_MIN = 256 << 10,
    ARENA_HUGE_BYTES_MAX = 4 << 20,
    ARENA_HUGE_SHARE = 2, /* huge ones take this part of the arena together at most, or one as much as it needs */
};

struct arena_map {
    uint64_t *bits;            /* 1: in use */
    uint64_t *huge;            /* 1: by a huge run, or for good */
    uint32_t units, used;      /* of this shard's share of the arena */
    uint32_t huge_used;        /* of these, by huge runs */
    uint32_t huge_units;       /* a run of so many is huge */
    uint32_t first, end, next; /* units from the arena's start */
    uint32_t reach;            /* a run is looked for before it first */
    uint32_t window, window_units;
};

static inline uint32_t arena_units(uint32_t bytes) {
    return bytes / ARENA_UNIT_BYTES + (bytes % ARENA_UNIT_BYTES != 0);
}
static inline bool arena_is_huge(const struct arena_map *map, uint32_t bytes) {
    return arena_units(bytes) >= map->huge_units;
}
/* From so many bytes on. */
static inline uint64_t arena_huge_bytes(const struct arena_map *map) {
    return map->huge_units * (uint64_t)ARENA_UNIT_BYTES;
}

/* Makes the map of a shard's share of `bytes` of arena, all free. 0, -EINVAL or -ENOMEM. */
int arena_map_create(struct arena_map *map, uint64_t bytes, uint32_t shard, uint32_t shards);
void arena_map_free(struct arena_map *map);
/* Takes a run of at least `bytes`: a small one outside the window, a huge one as arena_take_high. The arena offset, or UINT64_MAX when no
 * run is free. */
uint64_t arena_take(struct arena_map *map, uint32_t bytes);
/* The same of whatever size as near to the end as there is room, in the window too. */
uint64_t arena_take_high(struct arena_map *map, uint32_t bytes);
/* May huge runs of so many bytes be added to those that there are, of which `gone` units do not count? */
bool arena_huge_may(const struct arena_map *map, uint64_t bytes, uint32_t gone);
/* Chooses the window: so many bytes, among which the fewest are in use by huge runs, then by any; the one nearest to the end of those. It
 * becomes free in the time of what is in it, since nothing small is added. */
void arena_window_choose(struct arena_map *map, uint64_t bytes);
void arena_window_clear(struct arena_map *map);
/* Is nothing of it in use? */
bool arena_window_is_free(const struct arena_map *map);
bool arena_in_window(const struct arena_map *map, uint64_t offset, uint32_t bytes);
/* Marks a run as taken (a slot of an earlier control refers to it). False when it lies outside, or a part of it was taken already: two runs
 * of a good journal never cross. All of it is taken then, too. */
bool arena_claim(struct arena_map *map, uint64_t offset, uint32_t bytes);
void arena_give_back(struct arena_map *map, uint64_t offset, uint32_t bytes);
/* Nobody needs the run, but it stays taken as long as the arena lives: huge ones do not wait for it. */
void arena_abandon(struct arena_map *map, uint64_t offset, uint32_t bytes);

#endif
