/* dispatch.h: turns a worker's credit into orders: takes deliveries from shape, has them rendered and signed, writes arena and slots, and
 * brings their outcomes back. One struct dispatch for each shard; it owns that shard's share of the slots, paths and arena. */
#ifndef CONTROL_DISPATCH_DISPATCH_H
#define CONTROL_DISPATCH_DISPATCH_H

#include "control/config/config.h"
#include "control/delivery.h"
#include "control/outcome.h"
#include "control/shape/shape.h"
#include "control/sign/sign.h"
#include <bypost/journal.h>
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

/* The end of one recipient's attempt. */
struct dispatch_end {
    struct delivery *delivery; /* the callee's afterwards; NULL for a slot that an earlier control dispatched */
    struct lane *lane;         /* valid during the call; NULL likewise */
    struct settle_cookie cookie;
    struct outcome outcome;
    uint32_t source; /* index in the lane's pool */
    uint32_t slot;   /* SLOT_NONE when there was none (a message that cannot be rendered) */
    uint32_t slot_generation;
    bool follows; /* not the first recipient of its transaction: others may have been accepted before it */
};

struct dispatch_config {
    struct event_base *base;
    const struct config *config;
    struct journal *journal; /* open in the role of control */
    uint32_t shard;
    struct shape *shape;
    struct press *press;
    /* An attempt ended; settle it and call dispatch_committed when Redis has it. Outcomes that cost no attempt do not come here: shape gets
     * the delivery back. */
    void (*ended)(void *context, const struct dispatch_end *end);
    /* Asked just before a rendered delivery goes into its slot: true when it may not go any more (what operators stopped); shape gets it
     * back, and the callee sees to its leaving there. NULL: all may go. */
    bool (*stopped)(void *context, const struct delivery *delivery);
    /* A path event, before shape gets it; its endpoint is the site's, UINT8_MAX for none. */
    void (*path_event)(void *context, const struct path_event *event, const struct site *site);
    /* So many more sessions of this site became ready under TLS as their endpoint's level asks. NULL: not counted. */
    void (*secured)(void *context, const struct site *site, uint64_t sessions);
    /* The dataplane came or went. */
    void (*dataplane)(void *context, bool up);
    /* The slots that earlier processes left have all been looked at: fetch may start. Called once. */
    void (*harvested)(void *context);
    void *context;
};

struct dispatch;
/* NULL with a sentence in error. */
struct dispatch *dispatch_create(const struct dispatch_config *config, char *error, size_t error_bytes);
void dispatch_destroy(struct dispatch *dispatch);
/* Connects to the dataplane and keeps connected. As soon as it is known which dataplane lives, the slots that earlier processes left are
 * scanned (DESIGN.md section 6): what can be settled is given to `ended`, what is in flight in a living dataplane is remembered for
 * dispatch_in_flight, the rest is freed. */
void dispatch_start(struct dispatch *dispatch);
/* Is this recipient of this stream entry (of a shard of the queue) in a slot that an earlier control filled? */
bool dispatch_in_flight(const struct dispatch *dispatch, uint32_t queue_shard, const char *stream, struct entry_id entry, uint32_t index);
/* Redis has this outcome: the slot is free again. */
void dispatch_committed(struct dispatch *dispatch, uint32_t slot, uint32_t slot_generation);
/* shape's callbacks. */
void dispatch_lane_changed(struct dispatch *dispatch, struct lane *lane);
void dispatch_lane_gone(struct dispatch *dispatch, struct lane *lane);
/* The cookie of a delivery: also for one that ends before it has a slot. */
void dispatch_cookie(const struct dispatch *dispatch, const struct delivery *delivery, struct settle_cookie *cookie);
/* Drain: takes nothing more from shape and withdraws what no worker has claimed. */
void dispatch_drain(struct dispatch *dispatch);
/* While held nothing more is taken from shape; what lies in slots goes on. */
void dispatch_hold(struct dispatch *dispatch, bool held);
/* Takes back every delivery that `match` is true for (NULL: all) and that no worker has claimed: shape has it again, at the front of its
 * lane, from where shape_withdraw takes it. What is being rendered is asked for by `stopped`. Returns how many. */
uint32_t dispatch_withdraw(struct dispatch *dispatch, bool (*match)(void *context, const struct delivery *delivery), void *context);
/* Calls `each` for every delivery that is being rendered (worker -1) or lies in a slot, with the slot's state. */
void dispatch_each(const struct dispatch *dispatch,
                   void (*each)(void *context, const struct delivery *delivery, int worker, enum slot_state state), void *context);
/* Orders that are being rendered, or lie in slots without an outcome. */
uint32_t dispatch_in_progress(const struct dispatch *dispatch);

struct dispatch_counters {
    uint64_t orders /* recipients in slots */, transactions /* made for them */, outcomes, returned, withdrawn, render_errors,
        harvested_settled, harvested_lost, harvested_uncertain, harvested_returned, path_events, paths_published, paths_exhausted,
        slots_exhausted, arena_exhausted, wild_values, unsigned_messages, signatures, arena_copied_bytes /* of messages, into the arena */,
        arena_shared_bytes /* of messages, referred to where they lay */, huge_orders /* transactions of huge messages */,
        huge_waits /* those of them that waited for room in the arena */;
};
const struct dispatch_counters *dispatch_counters(const struct dispatch *dispatch);
uint32_t dispatch_slots_used(const struct dispatch *dispatch);
/* Memory of the dataplane's arena (this shard's share), and what shared contents take of it. */
struct dispatch_arena {
    uint64_t bytes, used_bytes, resident_bytes, idle_bytes; /* idle: of those that no message refers to at the moment */
    uint64_t residents_made, residents_evicted;             /* in all */
    uint64_t huge_bytes;                                    /* of used_bytes: by huge messages, and huge contents */
};
void dispatch_arena(const struct dispatch *dispatch, struct dispatch_arena *arena);
/* Huge messages (README.md) that wait for the arena: rendered ones, how long the first of them has; recipients whose message is not
 * rendered before there is room for it. */
struct dispatch_huge {
    uint64_t waiting, waiting_bytes, waiting_ms, aside;
};
void dispatch_huge(const struct dispatch *dispatch, struct dispatch_huge *huge);
bool dispatch_dataplane_up(const struct dispatch *dispatch);

#endif
