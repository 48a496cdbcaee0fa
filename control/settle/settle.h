/* settle.h: what becomes of each attempt: delivered, deferred (until when) or bounced; commits to Redis in batches through one Function,
 * writes events and the delivery log. One struct settle for each shard. */
#ifndef CONTROL_SETTLE_SETTLE_H
#define CONTROL_SETTLE_SETTLE_H

#include "control/classify/classify.h"
#include "control/config/config.h"
#include "control/fetch/redis.h"
#include "control/job.h"
#include "control/outcome.h"
#include "control/settle/delivery_log.h"
#include <stdint.h>

/* One recipient's end. Copied by settle_add, which takes a reference of its own to the job until Redis has confirmed. */
struct settle_item {
    struct settle_cookie cookie;
    struct outcome outcome;
    struct classification classification;
    struct job *job;                    /* NULL for a slot harvested after a restart: settle reads the entry again for its event */
    const char *site, *provider, *pool; /* "" when unknown */
    const char *waits_for;              /* PARKED: the site's name. HELD: the hold's id, or NULL for one that awaits a decision */
    uint64_t waits_until_ms;            /* CLOCK_REALTIME. PARKED: when to look again. HELD: when it ends by itself; 0: by hand */
    uint32_t slot;                      /* SLOT_NONE when there was none */
    uint32_t slot_generation;
};

struct settle_config {
    struct event_base *base;
    struct redis *redis;
    const struct config *config;
    uint32_t shard;           /* of the queue */
    struct delivery_log *log; /* or NULL; shared by all shards, the caller's */
    /* Redis has confirmed it (or found that it was settled before): the slot may be freed. */
    void (*committed)(void *context, uint32_t slot, uint32_t slot_generation);
    /* The epoch that commits carry (control/nodes); NULL or 0: none. */
    uint64_t (*epoch)(void *context, uint32_t shard);
    /* Commits were refused because this node was taken for dead: final outcomes counted all the same, waits did not (their new owner has
     * them). */
    void (*fenced)(void *context, uint32_t shard);
    /* contents_complete, or NULL: for jobs that are looked up again. */
    void (*complete)(void *context, struct job *job, void (*done)(void *context, struct job *job, const char *error, bool temporary),
                     void *done_context);
    /* notice_write, or NULL: asked for every final or deferred outcome of a job with `dsn`. */
    char *(*notice)(void *context, const struct settle_item *item, enum event_type event, uint64_t next_attempt_ms, size_t *length);
    void *context;
};

struct settle;
struct settle *settle_create(const struct settle_config *config, char *error, size_t error_bytes);
void settle_destroy(struct settle *settle);
/* Adds an outcome to the batch; it leaves when the batch is full or after a few milliseconds. While Redis is away it waits: nothing is
 * dropped (each waiting one has its slot, or its job, so the number is bounded by those). VERDICT_RETURNED puts the recipient back with its
 * attempts unchanged, due at once (or is handed back by the caller without settle). */
void settle_add(struct settle *settle, const struct settle_item *item);
/* Sends what is batched now (drain). */
void settle_flush(struct settle *settle);
/* Added and not yet committed. */
uint32_t settle_outstanding(const struct settle *settle);
struct settle_counters {
    uint64_t accepted, delivered, deferred, bounced, expired, suppressed, cancelled, returned, uncertain, repeated /* settled before */,
        parked, held, refused /* of a fenced node */, commits, log_errors;
};
const struct settle_counters *settle_counters(const struct settle *settle);
/* Another configuration: schedules, what becomes of uncertain outcomes, event types. The delivery log's path stays. */
void settle_reconfigure(struct settle *settle, const struct config *config);

#endif
