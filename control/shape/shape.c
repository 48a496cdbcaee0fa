/* shape.c: the ways in and out: enqueue, take, give back, poll, drain. */
#include "state.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t system_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void read_clock(struct shape *shape, uint64_t now_us) {
    uint64_t real_ms = shape->hooks.real_ms ? shape->hooks.real_ms(shape->hooks.context) : system_ms();
    shape->real_offset_ms = (int64_t)real_ms - (int64_t)(now_us / 1000);
}

uint64_t shape_real_ms(const struct shape *shape, uint64_t now_us) {
    return (uint64_t)((int64_t)(now_us / 1000) + shape->real_offset_ms);
}

struct shape *shape_create(const struct shape_config *config, uint64_t now_us) {
    assert(config->workers > 0 && config->workers <= SHAPE_WORKERS_MAX);
    struct shape *shape = calloc(1, sizeof *shape);
    if (!shape)
        return NULL;
    shape->hooks = *config;
    shape->config = config->config;
    shape->now_us = now_us;
    TAILQ_INIT(&shape->lanes);
    TAILQ_INIT(&shape->signals);
    TAILQ_INIT(&shape->shares);
    shape->nodes = 1;
    LIST_INIT(&shape->providers);
    read_clock(shape, now_us);
    shape->default_pool = config_pool_named(config->config, config->config->default_pool);
    if (rests_init(&shape->endpoints) != 0 || rests_init(&shape->sources) != 0) {
        shape_destroy(shape);
        return NULL;
    }
    return shape;
}

void shape_destroy(struct shape *shape) {
    if (!shape)
        return;
    struct lane_state *lane;
    while ((lane = TAILQ_FIRST(&shape->lanes)))
        lane_destroy(lane);
    struct shape_provider *provider;
    while ((provider = LIST_FIRST(&shape->providers))) {
        LIST_REMOVE(provider, link);
        share_release(shape, provider->share);
        free(provider->name);
        free(provider);
    }
    rests_free(&shape->endpoints);
    rests_free(&shape->sources);
    heap_free(&shape->heap);
    free(shape);
}

void shape_flush(struct shape *shape) {
    if (shape->flushing)
        return; /* a callback called back: the outer one goes on */
    shape->flushing = true;
    const struct shape_config *hooks = &shape->hooks;
    for (;;) {
        struct lane_state *lane = TAILQ_FIRST(&shape->signals);
        struct delivery *delivery;
        if (lane) {
            TAILQ_REMOVE(&shape->signals, lane, by_signal);
            lane->is_signalled = false;
            lane->signalled_waiting = lane->lane.waiting;
            if (hooks->lane_changed)
                hooks->lane_changed(hooks->context, &lane->lane);
        } else if ((delivery = delivery_list_pop(&shape->expired))) {
            hooks->expired(hooks->context, delivery);
        } else if ((delivery = delivery_list_pop(&shape->deferred))) {
            hooks->deferred(hooks->context, delivery, shape->deferred_until_us);
        } else if (shape->share_wanted) {
            shape->share_wanted = false;
            if (hooks->share_wanted)
                hooks->share_wanted(hooks->context);
        } else {
            break;
        }
    }
    shape->flushing = false;
}

uint32_t shape_room(const struct shape *shape) {
    return shape->total < SHAPE_TOTAL_MAX ? SHAPE_TOTAL_MAX - shape->total : 0;
}

static const struct config_pool *pool_named(const struct shape *shape, const char *name) {
    return name ? config_pool_named(shape->config, name) : shape->default_pool;
}

/* FNV-1a over both names: it only tells sub-queues apart, and a clash makes two of them share. */
static uint64_t queue_key(const struct job *job) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (const char *c = job->tenant ? job->tenant : ""; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 0x100000001b3u;
    hash = (hash ^ 0xff) * 0x100000001b3u;
    for (const char *c = job->queue; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 0x100000001b3u;
    return hash;
}

/* Each doubling of the demand is told, so that workers open sessions as it grows without a call for each delivery. */
static void waiting_grew(struct lane_state *lane, uint64_t now_us) {
    share_want(lane->shape, lane->site->share, now_us);
    if (lane->provider)
        share_want(lane->shape, lane->provider->share, now_us);
    uint32_t ready = lane->lane.waiting - lane->lane.aside; /* nobody looks at a lane for those that are set aside */
    if (ready == 1 || lane->lane.waiting >= 2 * lane->signalled_waiting)
        lane_signal(lane);
    if (lane->generation != lane->lane.site->generation)
        lane_load_rests(lane, now_us);
    lane_balance(lane, now_us);
}

static void watch_expiry(struct lane_state *lane, const struct delivery *delivery) {
    uint64_t at_ms = delivery->job->expires_at_ms;
    if (at_ms == 0 || at_ms >= lane->expiry_ms)
        return;
    lane->expiry_ms = at_ms;
    lane_arm(lane);
}

int shape_enqueue(struct shape *shape, struct delivery *delivery, uint64_t now_us) {
    shape->now_us = now_us;
    const struct config_pool *pool = pool_named(shape, delivery->job->pool);
    if (!pool)
        return -ENOENT;
    if (shape->total >= SHAPE_TOTAL_MAX)
        return -ENOBUFS;
    struct lane_state *lane = lane_find(shape, delivery->site, pool);
    if (!lane && shape->lane_count >= SHAPE_LANES_MAX)
        return -ENOBUFS;
    if (!lane && !(lane = lane_create(shape, delivery->site, pool, now_us)))
        return -ENOMEM;
    if (lane_rests_long(lane, now_us)) {
        lane_defer(lane, delivery);
        lane_balance(lane, now_us); /* a new lane may go again */
        shape_flush(shape);
        return 0;
    }
    if (lane->lane.waiting >= lane_window(lane))
        return -ENOBUFS;
    if (fair_push(delivery->high ? &lane->high : &lane->normal, delivery, queue_key(delivery->job)) != 0)
        return -ENOMEM;
    lane->lane.waiting++;
    shape->total++;
    watch_expiry(lane, delivery);
    waiting_grew(lane, now_us);
    shape_flush(shape);
    return 0;
}

uint32_t shape_window_room(const struct shape *shape, const struct site *site, const char *pool, uint64_t now_us) {
    const struct config_pool *found = pool_named(shape, pool);
    const struct lane_state *lane = found ? lane_find((struct shape *)(uintptr_t)shape, site, found) : NULL;
    uint32_t room = shape_room(shape);
    if (!lane) {
        return room < SHAPE_WINDOW_MIN ? room : SHAPE_WINDOW_MIN;
    }
    uint32_t window = lane_window(lane);
    if (lane_rests_long(lane, now_us) || lane->lane.waiting >= window)
        return 0;
    return window - lane->lane.waiting < room ? window - lane->lane.waiting : room;
}

uint32_t shape_window(const struct shape *shape, const struct site *site, const char *pool) {
    const struct config_pool *found = pool_named(shape, pool);
    const struct lane_state *lane = found ? lane_find((struct shape *)(uintptr_t)shape, site, found) : NULL;
    return lane ? lane_window(lane) : SHAPE_WINDOW_MIN;
}

/* The lane it was taken from is not always the one it goes back to: a reload may have taken the pool away. It lives as long as something
 * of it is outstanding. */
static void untake(struct delivery *delivery, uint64_t now_us) {
    struct lane_state *lane = delivery->taken_from;
    delivery->taken_from = NULL;
    if (!lane || lane->lane.outstanding == 0)
        return;
    lane->lane.outstanding--;
    if (lane->retired)
        lane_balance(lane, now_us);
}

static void put_back(struct shape *shape, struct delivery *delivery, bool aside, uint64_t now_us) {
    shape->now_us = now_us;
    const struct config_pool *pool = pool_named(shape, delivery->job->pool);
    struct lane_state *lane = lane_find(shape, delivery->site, pool ? pool : shape->default_pool);
    if (!lane)
        lane = lane_create(shape, delivery->site, pool ? pool : shape->default_pool, now_us);
    untake(delivery, now_us);
    if (!lane) { /* out of memory, or too many lanes: it waits in Redis, where there is somebody to defer to */
        if (shape->hooks.deferred) {
            shape_flush(shape);
            shape->deferred_until_us = now_us + (uint64_t)DEFER_AFTER_S * SECOND_US;
        }
        delivery_list_push(shape->hooks.deferred ? &shape->deferred : &shape->expired, delivery);
        shape_flush(shape);
        return;
    }
    bucket_refund(&lane->slow);
    bucket_refund(&lane->site->messages);
    if (lane->provider)
        bucket_refund(&lane->provider->messages);
    (aside ? fair_set_aside : fair_give_back)(delivery->high ? &lane->high : &lane->normal, delivery);
    lane_count_aside(lane);
    lane->lane.waiting++;
    shape->total++;
    watch_expiry(lane, delivery);
    waiting_grew(lane, now_us);
    shape_flush(shape);
}

void shape_give_back(struct shape *shape, struct delivery *delivery, uint64_t now_us) {
    put_back(shape, delivery, false, now_us);
}

void shape_set_aside(struct shape *shape, struct delivery *delivery, uint64_t now_us) {
    put_back(shape, delivery, true, now_us);
}

/* When the lane's own rates let the next one go; at or before now: at once. */
static uint64_t own_ready_us(const struct lane_state *lane) {
    uint64_t ready_us = bucket_ready_us(&lane->site->messages);
    uint64_t slow_us = lane->slow_shift > 0 ? bucket_ready_us(&lane->slow) : 0;
    return slow_us > ready_us ? slow_us : ready_us;
}

static bool is_expired(const struct shape *shape, const struct delivery *delivery, uint64_t now_us) {
    return delivery->job->expires_at_ms > 0 && delivery->job->expires_at_ms <= shape_real_ms(shape, now_us);
}

/* It takes a token of each rate, whether that conforms or not, and is outstanding. */
static void note_taken(struct lane_state *lane, struct delivery *delivery, uint64_t now_us) {
    if (lane->slow_shift > 0)
        bucket_take(&lane->slow, now_us);
    bucket_take(&lane->site->messages, now_us);
    lane->site->share->used++;
    if (lane->provider) {
        bucket_take(&lane->provider->messages, now_us);
        lane->provider->share->used++;
    }
    lane->lane.outstanding++;
    delivery->taken_from = lane;
    lane_observe(lane, now_us);
    if (lane->lane.waiting == lane->lane.aside)
        lane->lane.rate_binds = false;
    if (lane->lane.waiting < lane->signalled_waiting)
        lane->signalled_waiting = lane->lane.waiting; /* growth from here is told again */
}

/* Those aside whose turn it may be: none of normal priority while one of high can go. */
static uint32_t aside_count(const struct lane_state *lane) {
    return lane->high.count > lane->high.aside_count ? lane->high.aside_count : lane->lane.aside;
}

static struct delivery *take(struct shape *shape, struct lane *public_lane, bool aside, uint64_t now_us, uint64_t *wake_us) {
    struct lane_state *lane = lane_state_of(public_lane);
    struct delivery *delivery = NULL;
    shape->now_us = now_us;
    *wake_us = UINT64_MAX;
    while (!delivery && (aside ? aside_count(lane) : lane->lane.waiting - lane->lane.aside) > 0) {
        uint64_t ready_us = own_ready_us(lane);
        if (ready_us > now_us) {
            if (bucket_ready_us(&lane->site->messages) > now_us)
                share_refused(shape, lane->site->share, now_us);
            lane->lane.rate_binds = true;
            lane->wake_us = ready_us;
            *wake_us = ready_us;
            lane_arm(lane);
            break;
        }
        if (lane->provider && !provider_may_take(lane->provider, lane, now_us)) {
            lane->lane.rate_binds = true;
            break;
        }
        delivery = aside ? lane_pop_aside(lane) : lane_pop(lane);
        if (is_expired(shape, delivery, now_us)) {
            delivery_list_push(&shape->expired, delivery);
            delivery = NULL;
            lane_balance(lane, now_us);
        }
    }
    if (delivery) {
        if (lane->provider)
            lane->has_turn = false;
        note_taken(lane, delivery, now_us);
    }
    if (shape->expired.head || shape->share_wanted)
        shape_flush(shape);
    return delivery;
}

struct delivery *shape_take(struct shape *shape, struct lane *lane, uint64_t now_us, uint64_t *wake_us) {
    return take(shape, lane, false, now_us, wake_us);
}

struct delivery *shape_take_aside(struct shape *shape, struct lane *lane, uint64_t now_us, uint64_t *wake_us) {
    return take(shape, lane, true, now_us, wake_us);
}

/* How many recipients may follow the first of a transaction: what the rates let go within CHAIN_AHEAD_S. */
static uint32_t tokens_ahead(const struct lane_state *lane, uint64_t now_us) {
    const struct bucket *const buckets[] = {&lane->site->messages, lane->slow_shift > 0 ? &lane->slow : NULL,
                                            lane->provider ? &lane->provider->messages : NULL};
    uint32_t least = UINT32_MAX;
    for (size_t i = 0; i < sizeof buckets / sizeof buckets[0]; i++) {
        uint32_t tokens = buckets[i] ? bucket_ahead(buckets[i], now_us, (uint64_t)CHAIN_AHEAD_S * SECOND_US) : UINT32_MAX;
        least = tokens < least ? tokens : least;
    }
    return least;
}

/* What `fits` asks, and that it has not expired: that one is found when its turn comes. */
struct likeness {
    struct shape *shape;
    uint64_t now_us;
    bool (*fits)(void *context, const struct delivery *first, const struct delivery *other);
    void *context;
};

static bool fits_and_lives(void *context, const struct delivery *first, const struct delivery *other) {
    const struct likeness *likeness = context;
    return !is_expired(likeness->shape, other, likeness->now_us) && likeness->fits(likeness->context, first, other);
}

struct delivery *shape_take_like(struct shape *shape, struct lane *public_lane, const struct delivery *first,
                                 bool (*fits)(void *context, const struct delivery *first, const struct delivery *other), void *context,
                                 uint32_t maximum, uint32_t *count, uint64_t now_us) {
    struct lane_state *lane = lane_state_of(public_lane);
    struct likeness likeness = {.shape = shape, .now_us = now_us, .fits = fits, .context = context};
    struct delivery_list out = {0};
    uint32_t ahead = tokens_ahead(lane, now_us);
    shape->now_us = now_us;
    maximum = lane_batch(lane, maximum < UINT32_MAX ? maximum + 1 : maximum, now_us) - 1; /* the first counts too */
    *count = fair_take_like(first->high ? &lane->high : &lane->normal, queue_key(first->job), first, fits_and_lives, &likeness,
                            ahead < maximum ? ahead : maximum, &out);
    lane_count_aside(lane);
    lane->lane.waiting -= *count;
    shape->total -= *count;
    for (struct delivery *delivery = out.head; delivery; delivery = delivery->next)
        note_taken(lane, delivery, now_us);
    return out.head;
}

void shape_sessions(struct shape *shape, struct lane *public_lane, uint32_t worker, uint32_t open, uint32_t ready, uint64_t opened_total,
                    uint64_t now_us) {
    struct lane_state *lane = lane_state_of(public_lane);
    shape->now_us = now_us;
    if (worker >= shape->hooks.workers)
        return;
    struct worker_view *view = &lane->workers[worker];
    if (opened_total > view->opened_total)
        lane->site->share->connect_us = now_us;
    lane->open += open - view->open;
    lane->ready += ready - view->ready;
    struct shape_provider *provider = lane->provider;
    if (provider) {
        uint64_t opened = opened_total > view->opened_total ? opened_total - view->opened_total : 0;
        if (opened > 0)
            provider->share->connect_us = now_us;
        for (; opened > 0 && lane->prepaid > 0; opened--)
            lane->prepaid--;
        if (opened > lane->target)
            opened = lane->target; /* a path that was published anew starts its count again; a burst is bounded by what was allowed */
        for (; opened > 0; opened--)
            bucket_take(&provider->connects, now_us);
    }
    bool closed = open < view->open;
    *view = (struct worker_view){.open = open, .ready = ready, .opened_total = opened_total};
    lane_set_charge(lane);
    if (closed && provider && provider->waiter_count > 0)
        provider_grant(provider, now_us);
    shape_flush(shape);
}

void shape_sessions_reset(struct shape *shape, uint64_t now_us) {
    struct lane_state *lane;
    struct shape_provider *provider;
    shape->now_us = now_us;
    TAILQ_FOREACH (lane, &shape->lanes, link) {
        memset(lane->workers, 0, shape->hooks.workers * sizeof lane->workers[0]);
        lane->open = lane->ready = 0;
        lane_set_charge(lane);
    }
    LIST_FOREACH (provider, &shape->providers, link)
        provider_grant(provider, now_us);
    shape_flush(shape);
}

uint64_t shape_poll(struct shape *shape, uint64_t now_us) {
    shape->now_us = now_us;
    read_clock(shape, now_us);
    struct timer *timer;
    while ((timer = heap_first(&shape->heap)) && timer->at_us <= now_us) {
        if (timer->owner == TIMER_LANE)
            lane_tick(TABLE_ENTRY(timer, struct lane_state, timer), now_us);
        else
            provider_tick(TABLE_ENTRY(timer, struct shape_provider, timer), now_us);
    }
    shape_flush(shape);
    timer = heap_first(&shape->heap);
    return timer ? timer->at_us : UINT64_MAX;
}

void shape_withdraw(struct shape *shape, bool (*match)(void *context, const struct delivery *delivery),
                    void (*each)(void *context, struct delivery *delivery), void *context, uint64_t now_us) {
    struct delivery_list out = {0};
    struct lane_state *lane;
    shape->now_us = now_us;
    TAILQ_FOREACH (lane, &shape->lanes, link) {
        lane_filter(lane, match, context, &out);
        lane_balance(lane, now_us);
    }
    struct delivery *delivery;
    while ((delivery = delivery_list_pop(&out)))
        each(context, delivery);
    shape_flush(shape);
}

static bool everything(void *context, const struct delivery *delivery) {
    return true;
}

void shape_drain(struct shape *shape, void (*each)(void *context, struct delivery *delivery), void *context) {
    shape_withdraw(shape, everything, each, context, shape->now_us);
}

void shape_lanes(struct shape *shape, void (*each)(void *context, struct lane *lane), void *context) {
    struct lane_state *lane, *next;
    for (lane = TAILQ_FIRST(&shape->lanes); lane; lane = next) {
        next = TAILQ_NEXT(lane, link);
        each(context, &lane->lane);
    }
}

/* The lane's deliveries go to the default pool's lane; what is outstanding ends here. */
static void retire(struct shape *shape, struct lane_state *lane) {
    struct delivery_list out = {0};
    struct delivery *delivery;
    lane->retired = true;
    lane->lane.pool = shape->default_pool;
    lane_filter(lane, everything, NULL, &out);
    struct lane_state *heir = lane_find(shape, lane->lane.site, shape->default_pool);
    if (!heir && !(heir = lane_create(shape, lane->lane.site, shape->default_pool, shape->now_us)))
        heir = lane; /* without memory it goes on itself, under the default pool */
    while ((delivery = delivery_list_pop(&out))) {
        fair_give_back(delivery->high ? &heir->high : &heir->normal, delivery);
        heir->lane.waiting++;
        shape->total++;
        watch_expiry(heir, delivery);
    }
    lane_balance(heir, shape->now_us); /* it may stand before this one in the list, and have had its turn */
    lane_signal(heir);
}

void shape_reconfigure(struct shape *shape, const struct config *config) {
    struct lane_state *lane, *next;
    shape->config = config;
    shape->default_pool = config_pool_named(config, config->default_pool);
    /* First the pools of all, so that a lane finds its heir by the pool's new address. */
    for (lane = TAILQ_FIRST(&shape->lanes); lane; lane = next) {
        next = TAILQ_NEXT(lane, link);
        const struct config_pool *pool = lane->retired ? shape->default_pool : config_pool_named(config, lane->lane.pool->name);
        lane_set_target(lane, 0, shape->now_us);
        if (lane->provider) {
            provider_leave(lane->provider, lane);
            provider_unblock(lane->provider, lane);
            lane->provider->charge -= lane->charge;
            provider_release(lane->provider);
        }
        lane_refresh_limits(lane);
        lane_set_provider(lane);
        if (lane->provider) {
            provider_set_limits(lane->provider, &lane->lane.site->provider->limits, shape->now_us);
            lane->provider->charge += lane->charge;
        }
        if (pool)
            lane->lane.pool = pool;
        else
            lane->retired = true;
    }
    for (lane = TAILQ_FIRST(&shape->lanes); lane; lane = next) {
        next = TAILQ_NEXT(lane, link);
        if (lane->retired && lane->lane.waiting > 0)
            retire(shape, lane);
        else if (lane->retired)
            lane->lane.pool = shape->default_pool;
        lane_load_rests(lane, shape->now_us);
        lane_balance(lane, shape->now_us);
        lane_signal(lane);
        lane_arm(lane);
    }
    shape_flush(shape);
}
