/* seen.h: two tables shared by all workers without a lock: the messages that came (8 bytes each) and how often a recipient was tried.
 * Their memory is reserved at the start and used as it fills. */
#ifndef BENCH_SINK_SEEN_H
#define BENCH_SINK_SEEN_H

#include <stdatomic.h>
#include <stdint.h>

enum seen_verdict { SEEN_NEW, SEEN_AGAIN, SEEN_FULL };

struct seen {
    _Atomic uint64_t *entries; /* 0: empty */
    uint64_t mask;
};

/* Room for `capacity` entries. 0 or -ENOMEM. */
int seen_create(struct seen *seen, uint64_t capacity);
void seen_destroy(struct seen *seen);
/* Adds a hash of 64 bits: two of n messages are taken for one with a chance of n^2 / 2^65, which is 3 in a million for ten million. */
enum seen_verdict seen_add(struct seen *seen, uint64_t hash);
/* Counts an attempt in a table of its own: returns how many there were before, at most 255; UINT32_MAX when the table is full. */
uint32_t seen_attempt(struct seen *seen, uint64_t hash);

#endif
