/* residents.h: what contents share (control/render/render.h) lies in the arena once: each chain whose message refers to it holds a
 * reference, and without any it stays for the next one until somebody else needs the room. */
#ifndef CONTROL_DISPATCH_RESIDENTS_H
#define CONTROL_DISPATCH_RESIDENTS_H

#include "control/dispatch/arena.h"
#include "control/render/render.h"

enum {
    RESIDENTS_BUCKETS = 256,
    /* One may take a fourth of the arena, and idle ones another: however the rest of them lies about, an order whose own bytes take a
     * fourth too finds a run as soon as nothing else is in flight. */
    RESIDENTS_ARENA_PART = 4,
};

struct resident {
    uint64_t id; /* of shared_bytes; an inherited one has none, its extent tells it apart */
    uint64_t extent;
    uint32_t bytes;
    uint32_t references;
    bool inherited;
    bool leaving;          /* it lies where a huge message waits to be: nobody refers to it any more, and it goes with the last that does */
    struct resident *next; /* in its bucket */
    struct resident *older, *newer; /* while idle */
};

struct residents {
    struct resident *buckets[RESIDENTS_BUCKETS];
    struct resident *oldest, *newest; /* idle, by when they were used last */
    uint64_t bytes, idle_bytes;       /* of all, as the map counts them; of the idle ones */
    uint64_t made, evicted;           /* so many in all */
    /* Runs that an earlier control's slots name cross: which of them says true nobody knows, so none comes free before the arena goes. */
    bool doubtful;
};

/* Takes a run of the map, for which idle residents go. A small one (`high` false): the oldest first. A huge one, or any that is `high`:
 * those in the window. UINT64_MAX: it would not fit without them either. */
uint64_t residents_take_run(struct residents *residents, struct arena_map *map, uint32_t bytes, bool high);
/* Sees that huge runs of so many bytes may be added, for which idle huge residents go. False: those in use must end first. */
bool residents_make_huge_room(struct residents *residents, struct arena_map *map, uint64_t bytes);
/* A reference to these bytes where they lie in the arena. NULL: they do not, or are about to leave. */
struct resident *residents_find(struct residents *residents, const struct arena_map *map, const struct shared_bytes *shared);
/* May they lie there at all, or are there too many? */
bool residents_may(const struct arena_map *map, const struct shared_bytes *shared);
/* Copies them there, with a reference. NULL: there is no room now. */
struct resident *residents_make(struct residents *residents, struct arena_map *map, uint8_t *arena, const struct shared_bytes *shared,
                                bool high);
/* A reference to the run that a slot of an earlier control names; the run is claimed once. NULL: it lies outside, or across another's. */
struct resident *residents_inherit(struct residents *residents, struct arena_map *map, uint64_t extent, uint32_t bytes);
/* One reference less. NULL is none. */
void residents_release(struct residents *residents, struct arena_map *map, struct resident *resident);
/* The arena is gone, and with it every chain. */
void residents_forget(struct residents *residents);

#endif
