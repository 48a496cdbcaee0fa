/* parking.h: what its site's window does not take waits in Redis (QUEUE.md, parking), and comes back while there is room. Private to shard.
 */
#ifndef CONTROL_SHARD_PARKING_H
#define CONTROL_SHARD_PARKING_H

#include "control/delivery.h"
#include <stdbool.h>
#include <stdint.h>

struct shard;
struct parking;

/* NULL: out of memory. */
struct parking *parking_create(struct shard *shard);
void parking_destroy(struct parking *parking);
/* The delivery (with its site) goes into Redis, or ends when its time is up. It is taken. */
void parking_put(struct parking *parking, struct delivery *delivery);
/* A delivery goes to its lane: a site of which only the name was known, since control started anew, is known from then on. */
void parking_seen(struct parking *parking, const struct delivery *delivery);

struct parking_counters {
    uint64_t parked, unparked /* recipients */, expired;
};
const struct parking_counters *parking_counters(const struct parking *parking);

#endif
