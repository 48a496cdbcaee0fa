/* nodes.h: several senders on one Redis: who is there, whose work is taken over, and how limits are shared (QUEUE.md). One struct nodes for
 * the process; membership and take-over are by shard of the queue, leases by the shard 0 connection. */
#ifndef CONTROL_NODES_NODES_H
#define CONTROL_NODES_NODES_H

#include "control/config/config.h"
#include "control/fetch/redis.h"
#include "control/shape/shape.h"
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    NODES_BEAT_MS = 2000,    /* a heartbeat each */
    NODES_LIFE_MS = 12000,   /* without one for so long a node counts as dead: its work is taken over within 20 s */
    NODES_LEASE_US = 200000, /* a slice of a shared limit */
    NODES_MAX = 64,
};

struct nodes_config {
    struct event_base *base;
    const struct config *config;
    uint32_t shard_count;
    struct redis *const *redis; /* [shard_count]; the caller's */
    struct shape *shape;        /* whose limits are shared; NULL: none are */
    /* This node has its epoch in this shard (first, or anew): reading may start or start again. */
    void (*ready)(void *context, uint32_t shard);
    /* This node was taken for dead and its work given away, or its lease ran out while Redis did not answer: everything that it has in hand
     * and no worker has claimed must be let go, unsettled. `ready` follows when it has registered anew. */
    void (*fenced)(void *context, uint32_t shard);
    /* Entries of a dead node are this node's now: what is pending must be read again. */
    void (*taken_over)(void *context, uint32_t shard, const char *node, uint64_t entries);
    void *context;
};

struct nodes;
/* NULL: out of memory. */
struct nodes *nodes_create(const struct nodes_config *config);
/* Before shape_destroy: shape gets its questions back. */
void nodes_destroy(struct nodes *nodes);
void nodes_start(struct nodes *nodes);
/* An orderly end: others need not wait for this node's death. True when Redis knows, or does not answer; else to be called again. */
bool nodes_leave(struct nodes *nodes);
/* Commits were refused (settle's `fenced`): what Redis says is looked at now. */
void nodes_check(struct nodes *nodes, uint32_t shard);
/* shape's share_wanted. */
void nodes_share_wanted(struct nodes *nodes);
/* The epoch that commits and reads carry: they are refused once it is no longer the one in Redis. 0: none yet. */
uint64_t nodes_epoch(const struct nodes *nodes, uint32_t shard);
/* May this node start transactions now? With other nodes there, not when it has not heard of Redis for so long that they may soon take its
 * work; alone it goes on. Not before it is registered in all shards either, nor between `fenced` and `ready`. */
bool nodes_may_send(const struct nodes *nodes);
/* Nodes alive, this one included. */
uint32_t nodes_alive(const struct nodes *nodes);

struct nodes_counters {
    uint64_t beats, fenced, taken_over_nodes, taken_over_entries, leases_asked, leases_granted;
};
const struct nodes_counters *nodes_counters(const struct nodes *nodes);

#endif
