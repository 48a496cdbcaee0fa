/* tally.h: counts by name (site, provider, tenant, ...) in a bounded table, whatever the number of names: the busiest stay. Some of them,
 * few enough for a time series each, are labelled; what the others count goes to one sum, so that every series only grows while it lasts.
 */
#ifndef CONTROL_OBSERVE_TALLY_H
#define CONTROL_OBSERVE_TALLY_H

#include <stdbool.h>
#include <stdint.h>

enum { TALLY_NAME_BYTES = 128, TALLY_COUNTS = 4, TALLY_ENTRIES_MAX = 1024, TALLY_LABELS_MAX = 50 };

struct tally_entry {
    char name[TALLY_NAME_BYTES];
    uint64_t counts[TALLY_COUNTS]; /* since it came into the table */
    uint64_t shown[TALLY_COUNTS];  /* of them, while it was labelled */
    uint32_t weight;               /* counts, halved every TALLY_HALF_S */
    bool labelled;
};

struct tally;
/* NULL without memory. */
struct tally *tally_create(void);
void tally_destroy(struct tally *tally);
/* Counts one of `kind` (below TALLY_COUNTS) for this name. An empty name counts nothing. A full table lets a quiet one go. */
void tally_add(struct tally *tally, const char *name, unsigned kind);
/* To be called every second: chooses who is labelled. A busier name takes a label away only from one that is half as busy, so that series
 * do not come and go. */
void tally_tick(struct tally *tally);
/* The `count` busiest, busiest first, into entries[]; returns how many. Valid until the next call of tally_add or tally_tick. */
uint32_t tally_top(const struct tally *tally, const struct tally_entry **entries, uint32_t count);
/* The labelled ones. */
uint32_t tally_labelled(const struct tally *tally, const struct tally_entry *entries[TALLY_LABELS_MAX]);
/* What was counted for names that were not labelled then. */
const uint64_t *tally_others(const struct tally *tally);

#endif
