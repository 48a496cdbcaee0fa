/* residents.c: a hash table by content, and a list of the idle by age. */
#include "control/dispatch/residents.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Identifiers count up; an inherited run is known by its first unit. */
static struct resident **bucket_of(struct residents *residents, bool inherited, uint64_t id, uint64_t extent) {
    return &residents->buckets[(inherited ? extent / ARENA_UNIT_BYTES : id) % RESIDENTS_BUCKETS];
}

static uint64_t room_of(const struct resident *resident) {
    return arena_units(resident->bytes) * (uint64_t)ARENA_UNIT_BYTES;
}

static void idle_leave(struct residents *residents, struct resident *resident) {
    *(resident->older != NULL ? &resident->older->newer : &residents->oldest) = resident->newer;
    *(resident->newer != NULL ? &resident->newer->older : &residents->newest) = resident->older;
    residents->idle_bytes -= room_of(resident);
}

static void idle_join(struct residents *residents, struct resident *resident) {
    resident->newer = NULL;
    resident->older = residents->newest;
    *(residents->newest != NULL ? &residents->newest->newer : &residents->oldest) = resident;
    residents->newest = resident;
    residents->idle_bytes += room_of(resident);
}

/* Without references, and not among the idle. */
static void drop(struct residents *residents, struct arena_map *map, struct resident *resident) {
    struct resident **at = bucket_of(residents, resident->inherited, resident->id, resident->extent);
    while (*at != resident)
        at = &(*at)->next;
    *at = resident->next;
    residents->bytes -= room_of(resident);
    if (resident->inherited && residents->doubtful)
        arena_abandon(map, resident->extent, resident->bytes);
    else
        arena_give_back(map, resident->extent, resident->bytes);
    free(resident);
}

static void evict(struct residents *residents, struct arena_map *map, struct resident *resident) {
    idle_leave(residents, resident);
    residents->evicted++;
    drop(residents, map, resident);
}

/* Idle ones out of the window. */
static void evict_from_window(struct residents *residents, struct arena_map *map) {
    for (struct resident *resident = residents->oldest, *newer; resident != NULL; resident = newer) {
        newer = resident->newer;
        if (arena_in_window(map, resident->extent, resident->bytes))
            evict(residents, map, resident);
    }
}

uint64_t residents_take_run(struct residents *residents, struct arena_map *map, uint32_t bytes, bool high) {
    if (high || arena_is_huge(map, bytes)) {
        uint64_t extent = arena_take_high(map, bytes);
        if (extent != UINT64_MAX || map->window_units == 0)
            return extent;
        evict_from_window(residents, map);
        return arena_take_high(map, bytes);
    }
    uint64_t extent = arena_take(map, bytes), room = (uint64_t)(map->units - map->used) * ARENA_UNIT_BYTES;
    if (extent == UINT64_MAX && room + residents->idle_bytes < bytes)
        return UINT64_MAX; /* it would be in vain */
    while (extent == UINT64_MAX && residents->oldest != NULL) {
        evict(residents, map, residents->oldest);
        extent = arena_take(map, bytes);
    }
    return extent;
}

bool residents_make_huge_room(struct residents *residents, struct arena_map *map, uint64_t bytes) {
    if (arena_huge_may(map, bytes, 0))
        return true;
    uint32_t idle = 0;
    for (const struct resident *resident = residents->oldest; resident != NULL; resident = resident->newer)
        idle += arena_is_huge(map, resident->bytes) ? arena_units(resident->bytes) : 0;
    if (!arena_huge_may(map, bytes, idle))
        return false;
    for (struct resident *resident = residents->oldest, *newer; resident != NULL && !arena_huge_may(map, bytes, 0); resident = newer) {
        newer = resident->newer;
        if (arena_is_huge(map, resident->bytes))
            evict(residents, map, resident);
    }
    return true;
}

static struct resident *resident_new(struct residents *residents, const struct resident *made) {
    struct resident *resident = malloc(sizeof(*resident));
    if (resident == NULL)
        return NULL;
    *resident = *made;
    struct resident **bucket = bucket_of(residents, made->inherited, made->id, made->extent);
    resident->next = *bucket;
    *bucket = resident;
    residents->bytes += room_of(resident);
    return resident;
}

struct resident *residents_find(struct residents *residents, const struct arena_map *map, const struct shared_bytes *shared) {
    struct resident *resident = *bucket_of(residents, false, shared->id, 0);
    while (resident != NULL && (resident->inherited || resident->leaving || resident->id != shared->id))
        resident = resident->next;
    if (resident == NULL)
        return NULL;
    if (arena_in_window(map, resident->extent, resident->bytes)) {
        resident->leaving = true;
        return NULL;
    }
    if (resident->references++ == 0)
        idle_leave(residents, resident);
    return resident;
}

bool residents_may(const struct arena_map *map, const struct shared_bytes *shared) {
    return shared->length > 0 && arena_units(shared->length) <= map->units / RESIDENTS_ARENA_PART;
}

struct resident *residents_make(struct residents *residents, struct arena_map *map, uint8_t *arena, const struct shared_bytes *shared,
                                bool high) {
    struct resident made = {.id = shared->id, .bytes = shared->length, .references = 1};
    made.extent = residents_take_run(residents, map, shared->length, high);
    struct resident *resident = made.extent == UINT64_MAX ? NULL : resident_new(residents, &made);
    if (resident != NULL) {
        memcpy(arena + made.extent, shared->bytes, shared->length);
        residents->made++;
    } else if (made.extent != UINT64_MAX) {
        arena_give_back(map, made.extent, made.bytes);
    }
    return resident;
}

struct resident *residents_inherit(struct residents *residents, struct arena_map *map, uint64_t extent, uint32_t bytes) {
    struct resident *resident = *bucket_of(residents, true, 0, extent);
    while (resident != NULL && !(resident->inherited && resident->extent == extent && resident->bytes == bytes))
        resident = resident->next;
    if (resident != NULL) {
        resident->references++;
        return resident;
    }
    if (!arena_claim(map, extent, bytes))
        return NULL;
    struct resident made = {.extent = extent, .bytes = bytes, .references = 1, .inherited = true};
    return resident_new(residents, &made); /* without memory the run stays claimed as long as the arena lives */
}

void residents_release(struct residents *residents, struct arena_map *map, struct resident *resident) {
    if (resident == NULL)
        return;
    assert(resident->references > 0);
    if (--resident->references > 0)
        return;
    if (resident->inherited || resident->leaving) { /* nobody knows whose content it was, or nobody may refer to it */
        drop(residents, map, resident);
        return;
    }
    idle_join(residents, resident);
    while (residents->idle_bytes > (uint64_t)map->units / RESIDENTS_ARENA_PART * ARENA_UNIT_BYTES)
        evict(residents, map, residents->oldest);
}

void residents_forget(struct residents *residents) {
    for (uint32_t i = 0; i < RESIDENTS_BUCKETS; i++)
        while (residents->buckets[i] != NULL) {
            struct resident *resident = residents->buckets[i];
            residents->buckets[i] = resident->next;
            free(resident);
        }
    residents->oldest = residents->newest = NULL;
    residents->bytes = residents->idle_bytes = 0;
    residents->doubtful = false;
}
