/* shape.h: which delivery goes next and when: priority, fairness, limits, sources, rests. One struct shape for each shard. It knows lanes
 * (site x pool), not slots or rings: dispatch asks it for the next delivery when a worker has credit. */
#ifndef CONTROL_SHAPE_SHAPE_H
#define CONTROL_SHAPE_SHAPE_H

#include "control/config/config.h"
#include "control/delivery.h"
#include "control/outcome.h"
#include "control/route/route.h"
#include <bypost/path.h>
#include <stdbool.h>
#include <stdint.h>

enum { SHAPE_WORKERS_MAX = 64, SHAPE_WINDOW_MIN = 100, SHAPE_WINDOW_MAX = 10000, SHAPE_TOTAL_MAX = 200000, SHAPE_LANES_MAX = 131072 };

/* One site reached from one pool. */
struct lane {
    struct site *site;
    const struct config_pool *pool;
    uint32_t waiting;     /* deliveries queued here */
    uint32_t aside;       /* of these, those that shape_take leaves: dispatch has no room for their messages */
    uint32_t outstanding; /* taken by dispatch and not ended */
    uint32_t sessions;    /* the sum of sessions_allowed; 0 while it rests or waits for its turn: it needs no path then */
    uint16_t sessions_allowed[SHAPE_WORKERS_MAX]; /* for each worker; a limit of 3 lives on 3 workers */
    uint32_t connect_interval_us[SHAPE_WORKERS_MAX];
    uint64_t endpoint_rest_until_us[SITE_ENDPOINTS_MAX]; /* monotonic; 0: none */
    uint64_t source_rest_until_us[PATH_SOURCES_MAX];
    bool rate_binds; /* a message rate limits this lane: no prefetch, credit is the ready sessions alone */
    void *path;      /* dispatch's */
    void *queue;     /* shape's own */
};

/* The limits that nodes share: of a rate a part in SHARE_WHOLE, of connections a number. */
enum share_part { SHARE_MESSAGES, SHARE_CONNECTS, SHARE_CONNECTIONS, SHARE_PARTS };
enum { SHARE_WHOLE = 1000000 };
struct share; /* of one site's or one provider's limits */

/* What this node would use of them. Totals are 0 where there is no limit. */
struct shape_demand {
    struct share *share; /* for shape_granted, which must be called once */
    bool of_provider;
    const char *name; /* valid during the call */
    uint32_t total[SHARE_PARTS], want[SHARE_PARTS], held[SHARE_PARTS];
};

/* Why the servers of a site rest, where it is neither their absence nor their load: what the policy or the configuration asks of them is
 * not to be had. */
enum shape_trouble_kind { TROUBLE_NONE, TROUBLE_TLS, TROUBLE_LOGIN };
struct shape_trouble {
    enum shape_trouble_kind kind;
    char text[192]; /* the last failure */
};

struct shape_config {
    const struct config *config;
    uint32_t workers;
    /* Something of the lane changed that dispatch publishes (waiting, sessions_allowed, rests), or it may have a delivery to give now.
     * Coalesce it. */
    void (*lane_changed)(void *context, struct lane *lane);
    /* A lane without deliveries, outstanding ones or rests is about to go: dispatch retires its path. */
    void (*lane_gone)(void *context, struct lane *lane);
    /* It waited past its expiry, or its campaign was cancelled: to be settled. The delivery is the callee's. */
    void (*expired)(void *context, struct delivery *delivery);
    /* Every endpoint or every source of its lane rests until `until_us`, for longer than a minute: the lane defers as one and the delivery
     * is the callee's, unattempted. NULL: deliveries wait in their lane. */
    void (*deferred)(void *context, struct delivery *delivery, uint64_t until_us);
    /* Limits are shared with other nodes (shape_nodes), and something waits for a part of one: shape_demands is to be called soon. */
    void (*share_wanted)(void *context);
    /* CLOCK_REALTIME in ms, for expiry. NULL: the system's clock. */
    uint64_t (*real_ms)(void *context);
    void *context;
};

struct shape;
/* NULL: out of memory. All `now_us` are CLOCK_MONOTONIC. Callbacks come at the end of a call, when everything is consistent: they may call
 * back. */
struct shape *shape_create(const struct shape_config *config, uint64_t now_us);
/* Call shape_drain before it: deliveries that it still holds are dropped. */
void shape_destroy(struct shape *shape);
/* A reload, after route_reconfigure and while the old configuration still lives. Lanes of a pool that is gone move to the default pool. */
void shape_reconfigure(struct shape *shape, const struct config *config);

/* How many more deliveries may be fetched (recipients): the total bound. */
uint32_t shape_room(const struct shape *shape);
/* Queues a routed delivery (owned by shape until taken), for the job's pool or the default one. 0: queued, or handed to `deferred` because
 * its lane rests for longer than a minute; -ENOENT: no such pool; -ENOBUFS: the lane's window is full (what the current limits send in
 * 30 s, 100 to 10,000), or there are SHAPE_TOTAL_MAX deliveries or SHAPE_LANES_MAX lanes: the caller parks it; -ENOMEM. */
int shape_enqueue(struct shape *shape, struct delivery *delivery, uint64_t now_us);
/* How many more deliveries the window of (site, pool) takes; pool NULL: the default. */
uint32_t shape_window_room(const struct shape *shape, const struct site *site, const char *pool, uint64_t now_us);
/* How many it takes at all: what the current limits send in 30 s. */
uint32_t shape_window(const struct shape *shape, const struct site *site, const char *pool);
/* A delivery that was taken and came back unattempted goes to the front of its lane, behind those that came back before it. Its tokens are
 * given back, and it is outstanding no longer: do not call shape_ended for it as well. */
void shape_give_back(struct shape *shape, struct delivery *delivery, uint64_t now_us);

/* The next delivery of this lane, taking its tokens (message rates of site and provider), or NULL with *wake_us = when to ask again
 * (UINT64_MAX: when lane_changed says so). lane_changed is called at that time too. Counts it outstanding. Fair between tenants and queues;
 * high first. */
struct delivery *shape_take(struct shape *shape, struct lane *lane, uint64_t now_us, uint64_t *wake_us);
/* The same of those that were set aside, in their order; of normal priority none while shape_take has one of high. */
struct delivery *shape_take_aside(struct shape *shape, struct lane *lane, uint64_t now_us, uint64_t *wake_us);
/* shape_give_back for one that is to wait until shape_take_aside asks for it: others of its lane go before it. */
void shape_set_aside(struct shape *shape, struct delivery *delivery, uint64_t now_us);
/* Behind a shape_take that gave `first`: deliveries of the same job in the same lane that `fits` (same message, same domain where that is
 * asked), at most `maximum`, linked by `next`; *count. Each counts outstanding, and takes its tokens though none are there: at most those
 * of the next 10 s (CHAIN_AHEAD_S), and what waits behind them waits for that. Calls nobody back. */
struct delivery *shape_take_like(struct shape *shape, struct lane *lane, const struct delivery *first,
                                 bool (*fits)(void *context, const struct delivery *first, const struct delivery *other), void *context,
                                 uint32_t maximum, uint32_t *count, uint64_t now_us);
/* The worker's view of a lane: sessions open now, so that limits shared with other lanes (provider) move with the demand. */
void shape_sessions(struct shape *shape, struct lane *lane, uint32_t worker, uint32_t open, uint32_t ready, uint64_t opened_total,
                    uint64_t now_us);
/* The dataplane is gone: no session is open any more. */
void shape_sessions_reset(struct shape *shape, uint64_t now_us);
/* A delivery's attempt ended: outstanding goes down, classes that speak of rate or reputation rest the source at its
 * provider. */
void shape_ended(struct shape *shape, struct lane *lane, const struct outcome *outcome, const struct classification *classification,
                 uint32_t source, uint64_t now_us);
/* A path event: concurrency feedback and rests of endpoints and sources (SMTP.md sections 1 and 2: a host that failed rests, for all its
 * domains; one whose TLS or login failed rests for the site whose policy or credentials those were). */
void shape_path_event(struct shape *shape, struct lane *lane, const struct path_event *event, uint64_t now_us);
/* Why the site's servers rest: TROUBLE_NONE when one of them may be used as far as TLS and login go. */
void shape_trouble(const struct shape *shape, const struct site *site, struct shape_trouble *trouble);
/* Timers: token buckets, rests that end, expiry. Returns when it wants to be called again (absolute us). */
uint64_t shape_poll(struct shape *shape, uint64_t now_us);
/* Everything it holds, given to `expired` one by one (drain: the caller gives them back to Redis). */
void shape_drain(struct shape *shape, void (*each)(void *context, struct delivery *delivery), void *context);
/* Takes out every waiting delivery that `match` is true for (a paused or cancelled campaign) and gives it to `each`. Looks at all of them.
 */
void shape_withdraw(struct shape *shape, bool (*match)(void *context, const struct delivery *delivery),
                    void (*each)(void *context, struct delivery *delivery), void *context, uint64_t now_us);
/* So many nodes send under the same limits. 1: this one uses them whole, and asks nobody. More: it uses what shape_granted gives it, and an
 * equal part of the limit where it has had no answer for a second. */
void shape_nodes(struct shape *shape, uint32_t nodes, uint64_t now_us);
/* Calls `each` for at most `maximum` sites and providers whose limits are to be asked for now. Returns how many; fewer than the maximum:
 * all. To be called every 200 ms at least while limits are shared. */
uint32_t shape_demands(struct shape *shape, uint32_t maximum, void (*each)(void *context, const struct shape_demand *demand), void *context,
                       uint64_t now_us);
/* The answer: these parts are this node's until `until_us`. NULL: there is none. */
void shape_granted(struct shape *shape, struct share *share, const uint32_t parts[SHARE_PARTS], uint64_t until_us, uint64_t now_us);
/* Calls `each` for every lane. */
void shape_lanes(struct shape *shape, void (*each)(void *context, struct lane *lane), void *context);

#endif
