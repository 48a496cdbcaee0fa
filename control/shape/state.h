/* state.h: what the files of shape share: lanes with their queues, sites, providers, and the shape itself. */
#ifndef CONTROL_SHAPE_STATE_H
#define CONTROL_SHAPE_STATE_H

#include "bucket.h"
#include "fair.h"
#include "heap.h"
#include "rest.h"
#include "share.h"
#include "shape.h"
#include <sys/queue.h>

enum {
    SECOND_US = 1000000,
    WINDOW_S = 30,              /* a lane holds what its limits send in this time */
    SESSIONS_FIRST = 5,         /* concurrency starts here and is grown by success (Postfix's initial_destination_concurrency) */
    SESSIONS_MAX = 4096,        /* of a lane without a connection limit */
    LINGER_S = 10,              /* sessions stay allowed so long after the demand has gone */
    LANE_IDLE_S = 30,           /* a lane without demand goes */
    SLICE_ABOVE_SHARE_S = 1,    /* the same of a lane that has more than its share */
    SLICE_S = 10,               /* a lane gives its provider's sessions to the next that waits */
    ENDPOINT_REST_FIRST_S = 30, /* doubling to ... */
    ENDPOINT_REST_MAX_S = 1800,
    AUTH_REST_S = 300,     /* a relay that refuses our credentials */
    LOST_REST_S = 900,     /* a host that ends connections within transactions, while another is there: longer than most retries wait */
    TLS_REST_S = 120,      /* no TLS as the policy wants it: longer than DEFER_AFTER_S, so that what waits is told why */
    BATCH_STEP_S = 1,      /* one transaction's refusals halve the batch once */
    BATCH_PROBE_S = 3600,  /* so long without one: twice as many again */
    STRIKES = 3,           /* 421 in transactions within a minute (SMTP.md section 1) */
    RATE_REST_FIRST_S = 5, /* rate_limited: a short rest, and the lane slows */
    RATE_REST_MAX_S = 300,
    REPUTATION_REST_FIRST_S = 900,
    REPUTATION_REST_MAX_S = 14400,
    DEFER_AFTER_S = 60, /* a lane that rests longer than this defers its deliveries */
    SLOW_STEP_S = 5,    /* one cohort of refusals slows once */
    SLOW_PROBE_S = 60,  /* so long without a refusal: twice as fast again */
    SLOW_SHIFT_MAX = 6,
    GROWTH_PAUSE_S = 60, /* after a 421 at the banner */
    OBSERVE_S = 10,
    HANDOVER_MAX = 1000, /* deliveries deferred by one poll of a lane */
    CHAIN_AHEAD_S = 10,  /* recipients that share a transaction run ahead of a rate by so much at most */
};

struct shape_provider {
    LIST_ENTRY(shape_provider) link;
    struct shape *shape;
    char *name;
    uint32_t references; /* lanes */
    uint64_t scope;
    struct shaping_limits limits; /* of the configuration: a copy, as a provider without lanes outlives a reload */
    struct share *share;
    /* What this node may use of the limits. */
    uint32_t connection_limit; /* 0: none */
    bool shut;                 /* there is one, and others have it all */
    double connection_rate;
    struct bucket messages, connects;
    uint32_t charge;      /* sessions of its lanes: allowed or still open */
    uint32_t granted;     /* sessions allowed */
    uint32_t denominator; /* connection_rate is shared by so many sessions: a power of two, not below granted */
    bool shared_waiting;  /* half of the rate is kept for lanes that wait */
    uint32_t holder_count, waiter_count;
    TAILQ_HEAD(, lane_state) holders; /* lanes with sessions, by the start of their slice */
    TAILQ_HEAD(, lane_state) waiters; /* lanes with demand and none */
    TAILQ_HEAD(, lane_state) blocked; /* lanes that wait for a message token */
    struct timer timer;
};

struct shape_site {
    struct site *site; /* holds a reference */
    uint64_t scope;
    struct share *share;
    /* What this node may use of the limits: as in shape_provider. */
    double connection_rate;
    uint32_t connection_limit;
    bool shut;
    struct bucket messages;
    uint32_t active; /* lanes with sessions */
    LIST_HEAD(, lane_state) lanes;
};

enum lane_place { PLACE_NONE, PLACE_HOLDER, PLACE_WAITER };

struct worker_view {
    uint32_t open, ready;
    uint64_t opened_total;
};

struct lane_state {
    struct lane lane;
    struct shape *shape;
    struct shape_site *site;
    struct shape_provider *provider; /* or NULL */
    bool retired;                    /* its pool is gone: nothing new comes in */
    struct fair high, normal;
    uint32_t signalled_waiting; /* what `waiting` was when lane_changed was called last */

    /* sessions */
    enum lane_place place;
    uint32_t target; /* the sum of sessions_allowed */
    uint32_t charge; /* the sum of max(allowed, open) */
    uint32_t open, ready;
    uint32_t first_worker;
    uint32_t prepaid; /* connects whose token was taken at the start of a slice */
    uint64_t slice_since_us;
    uint64_t linger_until_us; /* 0: none */
    uint32_t linger_peak;
    uint64_t idle_until_us; /* 0: it has demand */

    /* feedback */
    uint32_t window, successes;
    uint64_t growth_after_us;
    uint64_t rest_until_us; /* 0: some endpoint and some source may be used */
    uint32_t generation;    /* the site's, of the uses below */
    uint32_t use_count;
    struct rest_use *uses;

    /* recipients of a transaction: what the server has been seen to bear; 0: nothing was learnt */
    uint32_t batch_limit;
    uint64_t batch_since_us;

    /* rate */
    uint32_t slow_shift;
    uint64_t slow_since_us;
    struct bucket slow;
    double observed; /* per second */
    uint64_t observed_since_us;
    uint32_t observed_count;
    bool is_blocked;  /* in provider->blocked */
    bool has_turn;    /* left it with a token in prospect */
    uint64_t wake_us; /* rate: when a token comes; 0: none waited for */

    uint64_t expiry_ms; /* no delivery here expires before; UINT64_MAX: none does */
    struct timer timer;
    bool is_signalled;
    TAILQ_ENTRY(lane_state) by_signal;
    TAILQ_ENTRY(lane_state) by_place;
    TAILQ_ENTRY(lane_state) by_block;
    TAILQ_ENTRY(lane_state) link;
    LIST_ENTRY(lane_state) on_site;
    struct worker_view workers[];
};
TAILQ_HEAD(lane_list, lane_state);

struct shape {
    struct shape_config hooks;
    const struct config *config;
    const struct config_pool *default_pool;
    uint32_t total; /* waiting in all lanes */
    uint32_t lane_count, provider_count;
    uint64_t now_us;        /* of the last call */
    int64_t real_offset_ms; /* CLOCK_REALTIME - CLOCK_MONOTONIC */
    uint64_t scopes;        /* the last scope given out */
    uint32_t next_worker;
    struct lane_list lanes, signals;
    LIST_HEAD(, shape_provider) providers;
    struct rests endpoints, sources;
    struct heap heap;
    struct delivery_list expired, deferred; /* to be given at the end of this call */
    uint64_t deferred_until_us;
    bool flushing;
    uint64_t key_seed;
    uint32_t nodes;           /* that share the limits; 1: only this one */
    struct share_list shares; /* those with demand, while limits are shared */
    bool share_wanted;
    bool has_troubles; /* some endpoint has rested by a policy: only then are those looked for */
};

static inline struct lane_state *lane_state_of(struct lane *lane) {
    return lane->queue;
}

/* shape.c */
uint64_t shape_real_ms(const struct shape *shape, uint64_t now_us);
/* Calls the callbacks that this call has earned. The last thing that a public function does. */
void shape_flush(struct shape *shape);

/* lane.c */
struct lane_state *lane_find(struct shape *shape, const struct site *site, const struct config_pool *pool);
/* NULL: out of memory or too many. */
struct lane_state *lane_create(struct shape *shape, struct site *site, const struct config_pool *pool, uint64_t now_us);
void lane_destroy(struct lane_state *lane);
void lane_signal(struct lane_state *lane);
/* Sets its timer to the earliest thing that it waits for. */
void lane_arm(struct lane_state *lane);
void lane_tick(struct lane_state *lane, uint64_t now_us);
/* All its endpoints or sources rest for long, and there is somebody to defer to. */
bool lane_rests_long(const struct lane_state *lane, uint64_t now_us);
void lane_defer(struct lane_state *lane, struct delivery *delivery);
uint32_t lane_window(const struct lane_state *lane);
void lane_refresh_limits(struct lane_state *lane);
void lane_set_provider(struct lane_state *lane);
/* Moves what `match` is true for to `out` and keeps the counts. */
void lane_filter(struct lane_state *lane, bool (*match)(void *context, const struct delivery *delivery), void *context,
                 struct delivery_list *out);
/* The next of those that are not set aside; of those that are. */
struct delivery *lane_pop(struct lane_state *lane);
struct delivery *lane_pop_aside(struct lane_state *lane);
void lane_count_aside(struct lane_state *lane);

/* The site's limits, and what this node may use of them. */
void site_set_limits(struct shape *shape, struct shape_site *site, uint64_t now_us);

/* feedback.c */
void lane_succeeded(struct lane_state *lane, uint64_t now_us);
/* A connect or handshake that failed. */
void lane_failed(struct lane_state *lane, uint64_t now_us);
/* The source rests at this provider or site for a class; `slow`: the lane slows too. */
void lane_rest_source(struct lane_state *lane, uint32_t source, uint32_t first_s, uint32_t max_s, uint64_t now_us);
void lane_slow_down(struct lane_state *lane, uint64_t now_us);
void lane_speed_up(struct lane_state *lane, uint64_t now_us);
void lane_rest_endpoint(struct lane_state *lane, uint32_t endpoint, uint32_t first_s, uint64_t now_us);
void lane_observe(struct lane_state *lane, uint64_t now_us);
/* How many of `maximum` recipients may share a transaction. */
uint32_t lane_batch(struct lane_state *lane, uint32_t maximum, uint64_t now_us);
/* What an endpoint's TLS and login are asked for at this site: rests by them are not other sites'. */
uint64_t policy_scope(const struct shape *shape, const struct site *site, uint32_t endpoint);
/* Where endpoints rest that lose transactions of the site: a session that becomes ready there proves nothing. */
uint64_t lost_scope(const struct shape *shape, const struct site *site);

/* sessions.c */
/* Brings the sessions of a lane in line with its demand, its limits and its rests. */
void lane_balance(struct lane_state *lane, uint64_t now_us);
void lane_set_target(struct lane_state *lane, uint32_t target, uint64_t now_us);
void lane_set_charge(struct lane_state *lane);
void lane_set_intervals(struct lane_state *lane);
/* Reads the rests of its endpoints and sources; signals what changed. */
void lane_load_rests(struct lane_state *lane, uint64_t now_us);
void lane_linger_over(struct lane_state *lane, uint64_t now_us);

/* provider.c */
struct shape_provider *provider_get(struct shape *shape, const struct shaping_provider *config, uint64_t now_us);
void provider_release(struct shape_provider *provider);
void provider_set_limits(struct shape_provider *provider, const struct shaping_limits *limits, uint64_t now_us);
/* Sessions beyond the limit are given back: it became less. */
void provider_shrink(struct shape_provider *provider, uint64_t now_us);
/* Starts a lane, or has it wait for its turn. */
void provider_admit(struct shape_provider *provider, struct lane_state *lane, uint64_t now_us);
void provider_leave(struct shape_provider *provider, struct lane_state *lane);
/* The lane needs less than it has: the first to give way when somebody waits. */
void provider_yield(struct shape_provider *provider, struct lane_state *lane);
uint32_t provider_room(const struct shape_provider *provider);
/* Gives free sessions to those who wait. */
void provider_grant(struct shape_provider *provider, uint64_t now_us);
void provider_granted_changed(struct shape_provider *provider);
/* True: the lane may take a message token; false: it waits in line. */
bool provider_may_take(struct shape_provider *provider, struct lane_state *lane, uint64_t now_us);
void provider_unblock(struct shape_provider *provider, struct lane_state *lane);
void provider_tick(struct shape_provider *provider, uint64_t now_us);

#endif
