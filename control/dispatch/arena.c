/* arena.c: runs of units in a bitmap. Next fit, round and round in as much of the arena as is needed: a run is mostly found where the last
 * one ended. */
#include "control/dispatch/arena.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    WORD_BITS = 64,
    REACH_PARTS = 4,
    REACH_UNITS_MIN = 1 << 11, /* 1 MiB */
};

int arena_map_create(struct arena_map *map, uint64_t bytes, uint32_t shard, uint32_t shards) {
    memset(map, 0, sizeof(*map));
    if (bytes / ARENA_UNIT_BYTES > UINT32_MAX / 2)
        return -EINVAL;
    map->units = (uint32_t)(bytes / ARENA_UNIT_BYTES) / shards;
    map->first = map->next = map->reach = shard * map->units;
    map->end = map->first + map->units;
    map->bits = calloc(map->end / WORD_BITS + 1, sizeof(uint64_t));
    return map->bits == NULL ? -ENOMEM : 0;
}

void arena_map_free(struct arena_map *map) {
    free(map->bits);
    memset(map, 0, sizeof(*map));
}

/* The bits [first, first + count) of one word, which they do not leave. */
static uint64_t mask_of(uint32_t first, uint32_t count) {
    return (count == WORD_BITS ? UINT64_MAX : (1ull << count) - 1) << first;
}

static void mark(struct arena_map *map, uint32_t first, uint32_t count, bool value) {
    while (count > 0) {
        uint32_t at = first % WORD_BITS, part = count < WORD_BITS - at ? count : WORD_BITS - at;
        uint64_t *word = &map->bits[first / WORD_BITS], mask = mask_of(at, part), held = *word & mask;
        uint32_t before = held == 0 ? 0 : held == mask ? part : (uint32_t)__builtin_popcountll(held);
        *word = value ? *word | mask : *word & ~mask;
        map->used += value ? part - before : 0 - before;
        first += part;
        count -= part;
    }
}

/* The first run of `count` free units in [from, to), or UINT32_MAX. */
static uint32_t find_run(const struct arena_map *map, uint32_t from, uint32_t to, uint32_t count) {
    uint32_t run = 0;
    for (uint32_t unit = from; unit < to;) {
        uint32_t left = WORD_BITS - unit % WORD_BITS;
        uint64_t word = map->bits[unit / WORD_BITS] >> (unit % WORD_BITS);
        if (word & 1) { /* over what is taken */
            unit += ~word == 0 ? left : (uint32_t)__builtin_ctzll(~word);
            run = 0;
            continue;
        }
        uint32_t free_units = word == 0 ? left : (uint32_t)__builtin_ctzll(word);
        run += free_units;
        unit += free_units;
        if (run >= count)
            return unit - run + count <= to ? unit - run : UINT32_MAX;
    }
    return UINT32_MAX;
}

/* Units that a run may be found in without going where none was yet: while they are used up to three quarters, a free run is near, and what
 * is used again is in the caches and in the page table. */
static void reach_for(struct arena_map *map, uint32_t count) {
    uint64_t wanted = ((uint64_t)map->used + count) * REACH_PARTS / (REACH_PARTS - 1);
    uint64_t least = REACH_UNITS_MIN < map->units ? REACH_UNITS_MIN : map->units;
    wanted = wanted < least ? least : wanted < map->units ? wanted : map->units;
    if (map->reach < map->first + wanted)
        map->reach = map->first + (uint32_t)wanted;
}

uint64_t arena_take(struct arena_map *map, uint32_t bytes) {
    uint32_t count = arena_units(bytes);
    if (count == 0 || count > map->units - map->used)
        return UINT64_MAX;
    reach_for(map, count);
    uint32_t first = find_run(map, map->next, map->reach, count);
    if (first == UINT32_MAX)
        first = find_run(map, map->first, map->reach, count);
    if (first == UINT32_MAX && map->reach < map->end) /* then it ends behind the reach */
        first = find_run(map, map->reach - map->first > count ? map->reach - count : map->first, map->end, count);
    if (first == UINT32_MAX)
        return UINT64_MAX;
    mark(map, first, count, true);
    if (map->reach < first + count)
        map->reach = first + count;
    map->next = first + count < map->reach ? first + count : map->first;
    return (uint64_t)first * ARENA_UNIT_BYTES;
}

static bool inside(const struct arena_map *map, uint64_t offset, uint32_t bytes) {
    return offset % ARENA_UNIT_BYTES == 0 && offset / ARENA_UNIT_BYTES >= map->first && offset / ARENA_UNIT_BYTES < map->end &&
           arena_units(bytes) <= map->end - (uint32_t)(offset / ARENA_UNIT_BYTES);
}

bool arena_claim(struct arena_map *map, uint64_t offset, uint32_t bytes) {
    if (!inside(map, offset, bytes))
        return false;
    uint32_t used = map->used;
    mark(map, (uint32_t)(offset / ARENA_UNIT_BYTES), arena_units(bytes), true);
    return map->used - used == arena_units(bytes);
}

void arena_give_back(struct arena_map *map, uint64_t offset, uint32_t bytes) {
    if (inside(map, offset, bytes))
        mark(map, (uint32_t)(offset / ARENA_UNIT_BYTES), arena_units(bytes), false);
}
