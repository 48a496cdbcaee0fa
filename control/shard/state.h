/* state.h: what the files of this folder share. Private to shard. */
#ifndef CONTROL_SHARD_STATE_H
#define CONTROL_SHARD_STATE_H

#include "figures.h"
#include "parking.h"
#include "shard.h"

#include "control/clock.h"
#include "control/content/content.h"
#include "control/dispatch/dispatch.h"
#include "control/fetch/fetch.h"
#include "control/fetch/redis.h"
#include "control/guard/guard.h"
#include "control/hold/hold.h"
#include "control/nodes/nodes.h"
#include "control/report/report.h"
#include "control/route/route.h"
#include "control/settle/settle.h"
#include "control/shape/shape.h"
#include "control/suppress/suppress.h"
#include <event2/event.h>

enum { QUEUE_SHARDS_MAX = 16 };

/* One shard of the queue in Redis: its keys carry its number as hash tag (QUEUE.md). */
struct shard_queue {
    struct redis *redis;
    struct fetch *fetch;
    struct settle *settle;
    bool registered; /* this node has its epoch */
    uint32_t fences; /* how often others took its work */
};

struct shard {
    struct shard_config config;
    struct event_base *base;
    uint32_t queue_count;
    struct shard_queue queues[QUEUE_SHARDS_MAX];
    struct redis *connections[QUEUE_SHARDS_MAX]; /* theirs */
    struct delivery_log *log;
    struct route *route;
    struct report *report;
    struct shape *shape;
    struct dispatch *dispatch;
    struct figures *figures;
    struct hold *hold;
    struct contents *contents;
    struct nodes *nodes;
    struct event *fence_timer;
    struct suppress *suppress;
    struct guard *guard;
    struct event *poll_timer, *drain_timer, *park_timer, *withdraw_timer, *check_timer;
    struct delivery *parked_first, *parked_last; /* they wait here for a moment */
    struct parking *parking;
    uint32_t routing, parked, checking;
    bool draining, fetch_waits, harvested;
    int result;
    uint64_t drain_until_us;
    uint64_t started_us;
};

static inline uint64_t now_us(void) {
    return clock_us(CLOCK_MONOTONIC);
}

/* shard.c */
uint32_t shard_settle_outstanding(const struct shard *shard);
uint64_t shard_fetch_bytes(const struct shard *shard);

/* limits.c: writes them to every shard that is there; listens, for a shard that comes back. 0, or -ENOSPC. */
void limits_write(struct shard *shard);
int limits_listen(struct shard *shard, uint32_t index);

/* intake.c: from a job to its lane. */
void delivery_free(struct delivery *delivery);
enum { HIGH_RESERVE = 4000 }; /* recipients: room that only queue high may use */
uint32_t intake_room(void *context);
/* A delivery of this recipient, with a reference to the job; NULL without memory. */
struct delivery *intake_delivery(struct job *job, uint32_t index);
/* What is allowed to go: to its domain's servers, and into its lane. */
void intake_route(struct shard *shard, struct delivery *delivery);
void intake_enqueue(struct shard *shard, struct delivery *delivery);
bool intake_in_flight(void *context, uint32_t shard, const char *stream, struct entry_id entry, uint32_t index);
/* Fetch reads again when it may hope for room. */
void intake_resume(struct shard *shard);
/* Deliveries that wait here for room in their lane: tried once more, then parked in Redis; let go (their entries stay pending in Redis). */
void intake_retry(evutil_socket_t descriptor, short what, void *argument);
void intake_release(struct shard *shard);

/* ending.c: from an attempt's end, or a decision before any attempt, to settle. */
const char *ending_pool_name(const struct shard *shard, const struct job *job);
/* Settles it; the delivery goes with it. slot: SLOT_NONE when there was none. */
void ending_settle(struct shard *shard, const struct settle_cookie *cookie, const struct outcome *outcome,
                   const struct classification *classification, struct delivery *delivery, uint32_t slot, uint32_t slot_generation);
/* A delivery that ends, or waits, before it ever had a slot: no route, no pool, expired, a site that rests. retry_after_s: 0 for the
 * queue's schedule. */
void ending_early(struct shard *shard, struct delivery *delivery, enum reply_class class, uint16_t code, const uint16_t enhanced[3],
                  uint32_t retry_after_s, const char *text);
/* It waits in Redis for room in its site's window. */
void ending_park(struct shard *shard, struct delivery *delivery, uint64_t look_ms);
/* It waits in Redis until the hold ends. */
void ending_hold(struct shard *shard, const struct settle_cookie *cookie, const struct outcome *outcome,
                 const struct classification *classification, struct delivery *delivery, const struct hold_rule *rule);
/* Callbacks of dispatch, settle and shape. */
void ending_attempt(void *context, const struct dispatch_end *end);
void ending_committed(void *context, uint32_t slot, uint32_t slot_generation);
void ending_expired(void *context, struct delivery *delivery);
void ending_deferred(void *context, struct delivery *delivery, uint64_t until_us);

/* checking.c: who is suppressed. Fetch hands jobs on to it. */
void checking_job(void *context, struct job *job);
/* True: somebody was put on a list since it was checked; it was taken and comes back through intake_enqueue. */
bool checking_again(struct shard *shard, struct delivery *delivery);
void checking_withdraw(evutil_socket_t descriptor, short what, void *argument);
void checking_added(void *context);

/* membership.c: this node among others. */
bool membership_create(struct shard *shard);
void membership_destroy(struct shard *shard);
/* Reads the shards of the queue in which it is registered, once the slots have been looked at. */
void membership_begin(struct shard *shard);
/* True: others have this delivery; it was let go. */
bool membership_take(struct shard *shard, struct delivery *delivery);
/* True: it may not go into a slot, and leaves its lane soon. */
bool membership_order(struct shard *shard, const struct delivery *delivery);
/* Takes back what others have. */
void membership_withdraw(evutil_socket_t descriptor, short what, void *argument);
/* Callbacks of settle, fetch and shape. */
uint64_t membership_epoch(void *context, uint32_t queue_shard);
void membership_refused(void *context, uint32_t queue_shard);
void membership_share_wanted(void *context);

/* stopped.c: what operators have stopped. True: the delivery was taken (it waits, has ended or was let go). */
bool stopped_take(struct shard *shard, struct delivery *delivery);
/* Takes back what is in hand and may not go any more. */
void stopped_withdraw(evutil_socket_t descriptor, short what, void *argument);
/* Callbacks of hold, dispatch and fetch. */
void stopped_changed(void *context);
bool stopped_order(void *context, const struct delivery *delivery);
bool stopped_reads(void *context, uint32_t queue_shard, const char *queue);

#endif
