/* arena.c: runs of units in a bitmap. Small ones by next fit, round and round in as much of the arena as is needed: a run is mostly found
 * where the last one ended. */
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
    map->huge_units = map->units / ARENA_HUGE_PART;
    if (map->huge_units < arena_units(ARENA_HUGE_BYTES_MIN))
        map->huge_units = arena_units(ARENA_HUGE_BYTES_MIN);
    if (map->huge_units > arena_units(ARENA_HUGE_BYTES_MAX))
        map->huge_units = arena_units(ARENA_HUGE_BYTES_MAX);
    map->bits = calloc(map->end / WORD_BITS + 1, sizeof(uint64_t));
    map->huge = calloc(map->end / WORD_BITS + 1, sizeof(uint64_t));
    if (map->bits != NULL && map->huge != NULL)
        return 0;
    arena_map_free(map);
    return -ENOMEM;
}

void arena_map_free(struct arena_map *map) {
    free(map->bits);
    free(map->huge);
    memset(map, 0, sizeof(*map));
}

/* The bits [first, first + count) of one word, which they do not leave. */
static uint64_t mask_of(uint32_t first, uint32_t count) {
    return (count == WORD_BITS ? UINT64_MAX : (1ull << count) - 1) << first;
}

/* How many of them were not so before. */
static uint32_t mark(uint64_t *bits, uint32_t first, uint32_t count, bool value) {
    uint32_t changed = 0;
    while (count > 0) {
        uint32_t at = first % WORD_BITS, part = count < WORD_BITS - at ? count : WORD_BITS - at;
        uint64_t *word = &bits[first / WORD_BITS], mask = mask_of(at, part), held = *word & mask;
        uint32_t before = held == 0 ? 0 : held == mask ? part : (uint32_t)__builtin_popcountll(held);
        *word = value ? *word | mask : *word & ~mask;
        changed += value ? part - before : before;
        first += part;
        count -= part;
    }
    return changed;
}

static uint32_t count_marked(const uint64_t *bits, uint32_t first, uint32_t count) {
    uint32_t marked = 0;
    while (count > 0) {
        uint32_t at = first % WORD_BITS, part = count < WORD_BITS - at ? count : WORD_BITS - at;
        marked += (uint32_t)__builtin_popcountll(bits[first / WORD_BITS] & mask_of(at, part));
        first += part;
        count -= part;
    }
    return marked;
}

/* How many of them nobody had before. */
static uint32_t occupy(struct arena_map *map, uint32_t first, uint32_t count) {
    uint32_t taken = mark(map->bits, first, count, true);
    map->used += taken;
    if (count >= map->huge_units)
        mark(map->huge, first, count, true);
    return taken;
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

/* The same outside the window. */
static uint32_t find_outside(const struct arena_map *map, uint32_t from, uint32_t to, uint32_t count) {
    uint32_t window_end = map->window + map->window_units;
    if (map->window_units == 0 || to <= map->window || from >= window_end)
        return find_run(map, from, to, count);
    uint32_t first = find_run(map, from, map->window, count);
    return first != UINT32_MAX || to <= window_end ? first : find_run(map, window_end, to, count);
}

/* The last run of `count` free units in [from, to), or UINT32_MAX. */
static uint32_t find_last(const struct arena_map *map, uint32_t from, uint32_t to, uint32_t count) {
    uint32_t run = 0;
    for (uint32_t unit = to; unit > from;) {
        uint32_t left = (unit - 1) % WORD_BITS + 1; /* the word's units below `unit`, as its upper bits */
        uint64_t word = map->bits[(unit - 1) / WORD_BITS] << (WORD_BITS - left);
        if (word >> (WORD_BITS - 1)) {
            unit -= ~word == 0 ? left : (uint32_t)__builtin_clzll(~word);
            run = 0;
            continue;
        }
        uint32_t free_units = word == 0 ? left : (uint32_t)__builtin_clzll(word);
        run += free_units;
        unit -= free_units;
        if (run >= count)
            return unit + run - count >= from ? unit + run - count : UINT32_MAX;
    }
    return UINT32_MAX;
}

/* Units that a run may be found in without going where none was yet: while they are used up to three quarters, a free run is near, and what
 * is used again is in the caches and in the page table. */
static void reach_for(struct arena_map *map, uint32_t count) {
    uint64_t wanted = ((uint64_t)map->used - map->huge_used + count) * REACH_PARTS / (REACH_PARTS - 1);
    uint64_t least = REACH_UNITS_MIN < map->units ? REACH_UNITS_MIN : map->units;
    wanted = wanted < least ? least : wanted < map->units ? wanted : map->units;
    if (map->reach < map->first + wanted)
        map->reach = map->first + (uint32_t)wanted;
}

uint64_t arena_take(struct arena_map *map, uint32_t bytes) {
    uint32_t count = arena_units(bytes);
    if (count >= map->huge_units)
        return arena_take_high(map, bytes);
    if (count == 0 || count > map->units - map->used)
        return UINT64_MAX;
    reach_for(map, count);
    uint32_t first = find_outside(map, map->next, map->reach, count);
    if (first == UINT32_MAX)
        first = find_outside(map, map->first, map->reach, count);
    if (first == UINT32_MAX && map->reach < map->end) /* then it ends behind the reach */
        first = find_outside(map, map->reach - map->first > count ? map->reach - count : map->first, map->end, count);
    if (first == UINT32_MAX)
        return UINT64_MAX;
    occupy(map, first, count);
    if (map->reach < first + count)
        map->reach = first + count;
    map->next = first + count < map->reach ? first + count : map->first;
    return (uint64_t)first * ARENA_UNIT_BYTES;
}

uint64_t arena_take_high(struct arena_map *map, uint32_t bytes) {
    uint32_t count = arena_units(bytes);
    if (count == 0 || count > map->units - map->used)
        return UINT64_MAX;
    uint32_t first = find_last(map, map->first, map->end, count);
    if (first == UINT32_MAX)
        return UINT64_MAX;
    occupy(map, first, count);
    map->huge_used += count >= map->huge_units ? count : 0;
    return (uint64_t)first * ARENA_UNIT_BYTES;
}

bool arena_huge_may(const struct arena_map *map, uint64_t bytes, uint32_t gone) {
    uint32_t used = map->huge_used > gone ? map->huge_used - gone : 0;
    return used == 0 || used + bytes / ARENA_UNIT_BYTES <= map->units / ARENA_HUGE_SHARE;
}

void arena_window_choose(struct arena_map *map, uint64_t bytes) {
    uint64_t wanted = bytes / ARENA_UNIT_BYTES + (bytes % ARENA_UNIT_BYTES != 0);
    uint32_t count = wanted < map->units ? (uint32_t)wanted : map->units, at = map->end - count;
    uint32_t used = count_marked(map->bits, at, count), huge = count_marked(map->huge, at, count), least = used, least_huge = huge;
    map->window = at;
    map->window_units = count;
    for (uint32_t step; at > map->first; at -= step) {
        step = at - map->first < WORD_BITS ? at - map->first : WORD_BITS;
        used += count_marked(map->bits, at - step, step) - count_marked(map->bits, at - step + count, step);
        huge += count_marked(map->huge, at - step, step) - count_marked(map->huge, at - step + count, step);
        if (huge < least_huge || (huge == least_huge && used < least)) {
            least = used;
            least_huge = huge;
            map->window = at - step;
        }
    }
}

void arena_window_clear(struct arena_map *map) {
    map->window = map->window_units = 0;
}

bool arena_window_is_free(const struct arena_map *map) {
    for (uint32_t unit = map->window, end = map->window + map->window_units, part; unit < end; unit += part) {
        part = WORD_BITS - unit % WORD_BITS < end - unit ? WORD_BITS - unit % WORD_BITS : end - unit;
        if (map->bits[unit / WORD_BITS] & mask_of(unit % WORD_BITS, part))
            return false;
    }
    return true;
}

bool arena_in_window(const struct arena_map *map, uint64_t offset, uint32_t bytes) {
    uint64_t unit = offset / ARENA_UNIT_BYTES;
    return unit < (uint64_t)map->window + map->window_units && unit + arena_units(bytes) > map->window;
}

static bool inside(const struct arena_map *map, uint64_t offset, uint32_t bytes) {
    return offset % ARENA_UNIT_BYTES == 0 && offset / ARENA_UNIT_BYTES >= map->first && offset / ARENA_UNIT_BYTES < map->end &&
           arena_units(bytes) <= map->end - (uint32_t)(offset / ARENA_UNIT_BYTES);
}

bool arena_claim(struct arena_map *map, uint64_t offset, uint32_t bytes) {
    if (!inside(map, offset, bytes))
        return false;
    uint32_t count = arena_units(bytes);
    if (occupy(map, (uint32_t)(offset / ARENA_UNIT_BYTES), count) != count)
        return false; /* nobody will give it back */
    map->huge_used += count >= map->huge_units ? count : 0;
    return true;
}

void arena_give_back(struct arena_map *map, uint64_t offset, uint32_t bytes) {
    uint32_t first = (uint32_t)(offset / ARENA_UNIT_BYTES), count = arena_units(bytes);
    if (!inside(map, offset, bytes))
        return;
    map->used -= mark(map->bits, first, count, false);
    if (count >= map->huge_units) {
        mark(map->huge, first, count, false);
        map->huge_used -= count;
    }
}

void arena_abandon(struct arena_map *map, uint64_t offset, uint32_t bytes) {
    uint32_t count = arena_units(bytes);
    if (!inside(map, offset, bytes))
        return;
    mark(map->huge, (uint32_t)(offset / ARENA_UNIT_BYTES), count, true); /* no window is waited for there */
    map->huge_used -= count >= map->huge_units ? count : 0;
}
