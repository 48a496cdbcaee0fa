/* arena.c: runs of units in a bitmap. Next fit: a run is mostly found where the last one ended. */
#include "control/dispatch/arena.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { WORD_BITS = 64 };

int arena_map_create(struct arena_map *map, uint64_t bytes, uint32_t shard, uint32_t shards) {
    memset(map, 0, sizeof(*map));
    if (bytes / ARENA_UNIT_BYTES > UINT32_MAX / 2)
        return -EINVAL;
    map->units = (uint32_t)(bytes / ARENA_UNIT_BYTES) / shards;
    map->first = map->next = shard * map->units;
    map->end = map->first + map->units;
    map->bits = calloc(map->end / WORD_BITS + 1, sizeof(uint64_t));
    return map->bits == NULL ? -ENOMEM : 0;
}

void arena_map_free(struct arena_map *map) {
    free(map->bits);
    memset(map, 0, sizeof(*map));
}

static bool taken(const struct arena_map *map, uint32_t unit) {
    return map->bits[unit / WORD_BITS] >> (unit % WORD_BITS) & 1;
}

static void mark(struct arena_map *map, uint32_t first, uint32_t count, bool value) {
    for (uint32_t unit = first; unit < first + count; unit++) {
        uint64_t bit = 1ull << (unit % WORD_BITS);
        uint64_t *word = &map->bits[unit / WORD_BITS];
        if (value && (*word & bit) == 0)
            map->used++;
        else if (!value && (*word & bit) != 0)
            map->used--;
        *word = value ? *word | bit : *word & ~bit;
    }
}

/* The first run of `count` free units in [from, to), or UINT32_MAX. Full words are passed over whole. */
static uint32_t find_run(const struct arena_map *map, uint32_t from, uint32_t to, uint32_t count) {
    uint32_t run = 0;
    for (uint32_t unit = from; unit < to;) {
        if (unit % WORD_BITS == 0 && map->bits[unit / WORD_BITS] == UINT64_MAX) {
            run = 0;
            unit += WORD_BITS;
            continue;
        }
        run = taken(map, unit) ? 0 : run + 1;
        unit++;
        if (run == count)
            return unit - count;
    }
    return UINT32_MAX;
}

uint64_t arena_take(struct arena_map *map, uint32_t bytes) {
    uint32_t count = arena_units(bytes);
    if (count == 0 || count > map->units - map->used)
        return UINT64_MAX;
    uint32_t first = find_run(map, map->next, map->end, count);
    if (first == UINT32_MAX)
        first = find_run(map, map->first, map->end, count);
    if (first == UINT32_MAX)
        return UINT64_MAX;
    mark(map, first, count, true);
    map->next = first + count < map->end ? first + count : map->first;
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
