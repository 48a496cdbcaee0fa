/* census.h: how many deliveries wait where, over all lanes, without ever looking at more than a few thousand at a time. */
#ifndef CONTROL_SHAPE_CENSUS_H
#define CONTROL_SHAPE_CENSUS_H

#include "control/shape/shape.h"
#include <stdbool.h>
#include <stdint.h>

enum { CENSUS_SITES_MAX = 50, CENSUS_PROVIDERS_MAX = 64, CENSUS_STEP = 4096, CENSUS_STEP_MS = 20, CENSUS_PAUSE_MS = 1000 };

struct census_row {
    char name[SITE_NAME_BYTES], pool[64];
    uint64_t waiting, outstanding, sessions; /* `sessions`: allowed */
    uint32_t lanes, resting;                 /* `resting`: lanes that want sessions and may have none */
};

/* One look at everything. */
struct census_result {
    uint32_t site_count, provider_count;
    struct census_row sites[CENSUS_SITES_MAX]; /* the (site, pool)s with the most waiting */
    struct census_row providers[CENSUS_PROVIDERS_MAX];
    struct census_row others; /* providers past the bound, and sites without a provider */
    struct census_row total;
};

/* Lanes by address. Zeros are an empty one. */
struct census {
    struct lane **slots;
    uint32_t room, count; /* room: a power of two */
    uint32_t cursor;
    struct census_result now, last; /* `now` is being gathered */
};

/* Without memory a lane is not counted. */
void census_add(struct census *census, struct lane *lane);
void census_remove(struct census *census, const struct lane *lane);
/* Looks at the next CENSUS_STEP places. True when that was the end: `last` is new. */
bool census_step(struct census *census);
void census_free(struct census *census);

#endif
