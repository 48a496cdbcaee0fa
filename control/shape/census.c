/* census.c: a set of lanes (open addressing), looked at in steps. A lane that moves within the set between two steps may be missed or
 * counted twice in that one look: these are figures for people. */
#include "census.h"

#include <stdlib.h>
#include <string.h>

enum { CENSUS_ROOM_FIRST = 1024 };

static uint32_t lane_place(const struct census *census, const struct lane *lane) {
    uint64_t hash = (uint64_t)(uintptr_t)lane * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(hash >> 32) & (census->room - 1);
}

static uint32_t lane_find(const struct census *census, const struct lane *lane) {
    uint32_t place = lane_place(census, lane);
    while (census->slots[place] != NULL && census->slots[place] != lane)
        place = (place + 1) & (census->room - 1);
    return place;
}

static bool census_grow(struct census *census) {
    struct census larger = {.room = census->room == 0 ? CENSUS_ROOM_FIRST : census->room * 2};
    larger.slots = calloc(larger.room, sizeof(larger.slots[0]));
    if (larger.slots == NULL)
        return false;
    for (uint32_t i = 0; i < census->room; i++)
        if (census->slots[i] != NULL)
            larger.slots[lane_find(&larger, census->slots[i])] = census->slots[i];
    free(census->slots);
    census->slots = larger.slots;
    census->room = larger.room;
    return true;
}

void census_add(struct census *census, struct lane *lane) {
    if (census->count * 2 >= census->room && !census_grow(census) && census->count + 1 >= census->room)
        return;
    uint32_t place = lane_find(census, lane);
    census->count += census->slots[place] == NULL;
    census->slots[place] = lane;
}

void census_remove(struct census *census, const struct lane *lane) {
    uint32_t hole = census->room != 0 ? lane_find(census, lane) : 0;
    if (census->room == 0 || census->slots[hole] == NULL)
        return;
    census->count--;
    /* Those behind it move up, so that no search ends too early. */
    for (uint32_t at = (hole + 1) & (census->room - 1); census->slots[at] != NULL; at = (at + 1) & (census->room - 1)) {
        uint32_t home = lane_place(census, census->slots[at]);
        if (((at - home) & (census->room - 1)) >= ((at - hole) & (census->room - 1))) {
            census->slots[hole] = census->slots[at];
            hole = at;
        }
    }
    census->slots[hole] = NULL;
}

static void row_add(struct census_row *row, const struct lane *lane) {
    row->waiting += lane->waiting;
    row->outstanding += lane->outstanding;
    row->sessions += lane->sessions;
    row->resting += lane->waiting > 0 && lane->sessions == 0;
    row->lanes++;
}

/* The sites with the most waiting: a heap with the least of them on top. */
static void sites_offer(struct census_result *now, const struct lane *lane) {
    struct census_row *sites = now->sites;
    uint32_t at = 0;
    if (lane->waiting == 0)
        return;
    if (now->site_count < CENSUS_SITES_MAX) {
        at = now->site_count++;
        for (; at > 0 && sites[(at - 1) / 2].waiting > lane->waiting; at = (at - 1) / 2)
            sites[at] = sites[(at - 1) / 2];
    } else {
        if (lane->waiting <= sites[0].waiting)
            return;
        for (uint32_t child; (child = 2 * at + 1) < CENSUS_SITES_MAX; at = child) {
            child += child + 1 < CENSUS_SITES_MAX && sites[child + 1].waiting < sites[child].waiting;
            if (sites[child].waiting >= lane->waiting)
                break;
            sites[at] = sites[child];
        }
    }
    memset(&sites[at], 0, sizeof(sites[at]));
    memcpy(sites[at].name, lane->site->name, strnlen(lane->site->name, sizeof(sites[at].name) - 1));
    memcpy(sites[at].pool, lane->pool->name, strnlen(lane->pool->name, sizeof(sites[at].pool) - 1));
    row_add(&sites[at], lane);
}

static struct census_row *provider_row(struct census_result *now, const char *name) {
    for (uint32_t i = 0; i < now->provider_count; i++)
        if (strcmp(now->providers[i].name, name) == 0)
            return &now->providers[i];
    if (now->provider_count == CENSUS_PROVIDERS_MAX)
        return &now->others;
    struct census_row *row = &now->providers[now->provider_count++];
    memset(row, 0, sizeof(*row));
    memcpy(row->name, name, strnlen(name, sizeof(row->name) - 1));
    return row;
}

static int by_waiting(const void *a, const void *b) {
    const struct census_row *left = a, *right = b;
    return left->waiting < right->waiting ? 1 : left->waiting > right->waiting ? -1 : strcmp(left->name, right->name);
}

/* Sites of one name (an MX set that changed while the old one drains) are one row. */
static void sites_merge(struct census_result *now) {
    for (uint32_t i = 0; i < now->site_count; i++)
        for (uint32_t j = i + 1; j < now->site_count;) {
            struct census_row *into = &now->sites[i], *from = &now->sites[j];
            if (strcmp(into->name, from->name) != 0 || strcmp(into->pool, from->pool) != 0) {
                j++;
                continue;
            }
            into->waiting += from->waiting;
            into->outstanding += from->outstanding;
            into->sessions += from->sessions;
            into->resting += from->resting;
            into->lanes += from->lanes;
            *from = now->sites[--now->site_count];
        }
}

bool census_step(struct census *census) {
    struct census_result *now = &census->now;
    for (uint32_t steps = 0; steps < CENSUS_STEP && census->cursor < census->room; steps++, census->cursor++) {
        const struct lane *lane = census->slots[census->cursor];
        if (lane == NULL)
            continue;
        row_add(&now->total, lane);
        row_add(lane->site->provider != NULL ? provider_row(now, lane->site->provider->name) : &now->others, lane);
        sites_offer(now, lane);
    }
    if (census->cursor < census->room)
        return false;
    qsort(now->sites, now->site_count, sizeof(now->sites[0]), by_waiting);
    sites_merge(now);
    qsort(now->providers, now->provider_count, sizeof(now->providers[0]), by_waiting);
    census->last = *now;
    census->cursor = 0;
    now->site_count = now->provider_count = 0;
    memset(&now->others, 0, sizeof(now->others));
    memset(&now->total, 0, sizeof(now->total));
    return true;
}

void census_free(struct census *census) {
    free(census->slots);
    census->slots = NULL;
    census->room = census->count = 0;
}
