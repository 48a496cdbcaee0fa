/* hold.h: what operators have stopped: queues that are paused or cancelled, and holds and bounces by queue, site, provider, domain, tenant,
 * sender or recipient. Kept in Redis, looked at five times a second, known here at once for every delivery. */
#ifndef CONTROL_HOLD_HOLD_H
#define CONTROL_HOLD_HOLD_H

#include "control/config/config.h"
#include "control/delivery.h"
#include "control/fetch/redis.h"
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

enum { HOLD_ID_BYTES = 24, HOLD_POLL_MS = 200, HOLDS_MAX = 10000 };

enum queue_state {
    QUEUE_RUNNING,
    QUEUE_PAUSED,    /* not read; what is in hand goes back */
    QUEUE_CANCELLED, /* the same, until its grace is over: `bypost campaign resume` undoes it so long */
    QUEUE_DISCARDED, /* its grace is over: it is read, and every recipient ends as cancelled */
};

enum hold_action {
    HOLD_WAIT,   /* what matches waits in Redis until the hold ends */
    HOLD_BOUNCE, /* what matches ends, with the hold's reason */
};

/* What is given must all match; NULL matches all. */
struct hold_match {
    char *queue, *site, *provider, *domain, *tenant, *campaign;
    char *sender;    /* an address, or a domain without local part */
    char *recipient; /* an address */
};

struct hold_rule {
    char id[HOLD_ID_BYTES];
    enum hold_action action;
    struct hold_match match;
    char *reason;
    char *by;                    /* "operator", or the guard's name that set it */
    uint64_t since_ms, until_ms; /* CLOCK_REALTIME; until 0: until it is taken away */
};

struct hold_config {
    struct event_base *base;
    const struct config *config;
    uint32_t shard_count;
    struct redis *const *redis; /* [shard_count] */
    /* Something changed: what is in hand must be looked at again with hold_match and hold_queue_state. */
    void (*changed)(void *context);
    void *context;
};

struct hold;
struct hold *hold_create(const struct hold_config *config);
void hold_destroy(struct hold *hold);
/* False until the first answer of Redis: nothing may be sent before what is stopped is known. */
bool hold_known(const struct hold *hold);
/* The first rule that a delivery matches (before it is routed its site is NULL, and rules with site or provider do not match), or NULL.
 * Cheap when there are none. */
const struct hold_rule *hold_match(const struct hold *hold, const struct delivery *delivery, uint64_t now_ms);
enum queue_state hold_queue_state(const struct hold *hold, uint32_t shard, const char *queue);
/* Is there any rule, or any queue that does not run? */
bool hold_anything(const struct hold *hold);
/* The version of states and holds that this process has taken from a shard (control/library: `version`); 0: none yet. */
uint64_t hold_version(const struct hold *hold, uint32_t shard);
/* Sets a hold from within (the guards). `id` names it: setting it twice renews it. */
void hold_set(struct hold *hold, const struct hold_rule *rule);

#endif
