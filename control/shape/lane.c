/* lane.c: a lane from its first delivery to its end, and its timer. */
#include "state.h"

#include <stdlib.h>
#include <string.h>

struct lane_state *lane_find(struct shape *shape, const struct site *site, const struct config_pool *pool) {
    struct shape_site *state = site->shape;
    struct lane_state *lane;
    if (!state)
        return NULL;
    LIST_FOREACH (lane, &state->lanes, on_site)
        if (lane->lane.pool == pool && !lane->retired)
            return lane;
    return NULL;
}

static struct shape_site *site_get(struct shape *shape, struct site *site, uint64_t now_us) {
    struct shape_site *state = site->shape;
    if (state)
        return state;
    state = calloc(1, sizeof *state);
    if (!state)
        return NULL;
    state->share = share_create(shape, state, NULL, now_us);
    if (!state->share) {
        free(state);
        return NULL;
    }
    state->site = site;
    state->scope = ++shape->scopes;
    LIST_INIT(&state->lanes);
    site_hold(site);
    site->shape = state;
    return state;
}

static void site_drop(struct shape *shape, struct shape_site *state) {
    if (!LIST_EMPTY(&state->lanes))
        return;
    state->site->shape = NULL;
    site_release(state->site);
    share_release(shape, state->share);
    free(state);
}

void site_set_limits(struct shape *shape, struct shape_site *site, uint64_t now_us) {
    const struct shaping_limits *limits = site->site->limits;
    site->connection_limit = share_connections(shape, site->share, limits->connection_limit, &site->shut);
    site->connection_rate = share_connects(shape, site->share, limits->max_connection_rate);
    share_bucket(shape, site->share, &site->messages, limits->max_message_rate, SHARE_MESSAGES, now_us);
}

void lane_refresh_limits(struct lane_state *lane) {
    site_set_limits(lane->shape, lane->site, lane->shape->now_us);
}

void lane_set_provider(struct lane_state *lane) {
    const struct shaping_provider *provider = lane->lane.site->provider;
    lane->provider = provider ? provider_get(lane->shape, provider, lane->shape->now_us) : NULL;
}

struct lane_state *lane_create(struct shape *shape, struct site *site, const struct config_pool *pool, uint64_t now_us) {
    if (shape->lane_count >= SHAPE_LANES_MAX || heap_reserve(&shape->heap, shape->lane_count + shape->provider_count + 2) != 0)
        return NULL;
    struct lane_state *lane = calloc(1, sizeof *lane + shape->hooks.workers * sizeof lane->workers[0]);
    struct shape_site *state = lane ? site_get(shape, site, now_us) : NULL;
    if (!state) {
        free(lane);
        return NULL;
    }
    lane->lane.site = site;
    lane->lane.pool = pool;
    lane->lane.queue = lane;
    lane->shape = shape;
    lane->site = state;
    lane->first_worker = shape->next_worker++ % shape->hooks.workers;
    lane->window = SESSIONS_FIRST;
    lane->expiry_ms = UINT64_MAX;
    lane->generation = site->generation;
    lane->timer = (struct timer){.at_us = UINT64_MAX, .owner = TIMER_LANE};
    LIST_INSERT_HEAD(&state->lanes, lane, on_site);
    TAILQ_INSERT_TAIL(&shape->lanes, lane, link);
    shape->lane_count++;
    lane_refresh_limits(lane);
    lane_set_provider(lane);
    lane->idle_until_us = now_us + (uint64_t)LANE_IDLE_S * SECOND_US;
    lane_load_rests(lane, now_us);
    lane_arm(lane);
    return lane;
}

void lane_destroy(struct lane_state *lane) {
    struct shape *shape = lane->shape;
    lane_set_target(lane, 0, shape->now_us);
    for (uint32_t i = 0; i < shape->hooks.workers; i++)
        lane->workers[i].open = 0;
    lane_set_charge(lane);
    if (lane->provider) {
        provider_leave(lane->provider, lane);
        provider_unblock(lane->provider, lane);
        provider_release(lane->provider);
    }
    heap_set(&shape->heap, &lane->timer, UINT64_MAX);
    if (lane->is_signalled)
        TAILQ_REMOVE(&shape->signals, lane, by_signal);
    TAILQ_REMOVE(&shape->lanes, lane, link);
    LIST_REMOVE(lane, on_site);
    shape->lane_count--;
    fair_free(&lane->high);
    fair_free(&lane->normal);
    site_drop(shape, lane->site);
    free(lane);
}

void lane_signal(struct lane_state *lane) {
    if (lane->is_signalled)
        return;
    lane->is_signalled = true;
    TAILQ_INSERT_TAIL(&lane->shape->signals, lane, by_signal);
}

uint32_t lane_window(const struct lane_state *lane) {
    const struct shaping_limits *limits = lane->lane.site->limits;
    double rate = limits->max_message_rate;
    const struct shaping_provider *provider = lane->lane.site->provider;
    double shared = provider ? provider->limits.provider_max_message_rate : 0;
    if (shared > 0 && (rate <= 0 || shared < rate))
        rate = shared;
    if (lane->slow_shift > 0 && lane->slow.rate_nano > 0) {
        double slow = (double)lane->slow.rate_nano / 1e9;
        if (rate <= 0 || slow < rate)
            rate = slow;
    }
    if (rate <= 0 || rate * WINDOW_S >= SHAPE_WINDOW_MAX)
        return SHAPE_WINDOW_MAX;
    return rate * WINDOW_S <= SHAPE_WINDOW_MIN ? SHAPE_WINDOW_MIN : (uint32_t)(rate * WINDOW_S);
}

static struct delivery *popped(struct lane_state *lane, struct delivery *delivery) {
    if (delivery) {
        lane->lane.waiting--;
        lane->shape->total--;
    }
    return delivery;
}

struct delivery *lane_pop(struct lane_state *lane) {
    struct delivery *delivery = fair_pop(&lane->high);
    return popped(lane, delivery ? delivery : fair_pop(&lane->normal));
}

struct delivery *lane_pop_aside(struct lane_state *lane) {
    struct delivery *delivery = fair_pop_aside(&lane->high);
    delivery = popped(lane, delivery ? delivery : fair_pop_aside(&lane->normal));
    lane_count_aside(lane);
    return delivery;
}

void lane_count_aside(struct lane_state *lane) {
    lane->lane.aside = lane->high.aside_count + lane->normal.aside_count;
}

void lane_filter(struct lane_state *lane, bool (*match)(void *context, const struct delivery *delivery), void *context,
                 struct delivery_list *out) {
    fair_filter(&lane->high, match, context, out);
    fair_filter(&lane->normal, match, context, out);
    lane_count_aside(lane);
    uint32_t waiting = lane->high.count + lane->normal.count;
    lane->shape->total -= lane->lane.waiting - waiting;
    if (waiting != lane->lane.waiting)
        lane_signal(lane);
    lane->lane.waiting = waiting;
}

/* For one scan of a lane: what has expired, and the earliest of the rest. */
struct expiry {
    uint64_t now_ms, next_ms;
};

static bool has_expired(void *context, const struct delivery *delivery) {
    struct expiry *expiry = context;
    uint64_t at_ms = delivery->job->expires_at_ms;
    if (at_ms == 0)
        return false;
    if (at_ms <= expiry->now_ms)
        return true;
    if (at_ms < expiry->next_ms)
        expiry->next_ms = at_ms;
    return false;
}

/* A scan costs the lane's length, so that it comes once a second at most, whatever expires when. */
static void expire(struct lane_state *lane, uint64_t now_us) {
    struct expiry expiry = {.now_ms = shape_real_ms(lane->shape, now_us), .next_ms = UINT64_MAX};
    if (expiry.now_ms < lane->expiry_ms)
        return;
    lane_filter(lane, has_expired, &expiry, &lane->shape->expired);
    if (expiry.next_ms < expiry.now_ms + 1000)
        expiry.next_ms = expiry.now_ms + 1000;
    lane->expiry_ms = expiry.next_ms;
}

bool lane_rests_long(const struct lane_state *lane, uint64_t now_us) {
    return lane->shape->hooks.deferred && lane->rest_until_us > now_us + (uint64_t)DEFER_AFTER_S * SECOND_US;
}

void lane_defer(struct lane_state *lane, struct delivery *delivery) {
    struct shape *shape = lane->shape;
    if (shape->deferred.head && shape->deferred_until_us != lane->rest_until_us)
        shape_flush(shape); /* those of another lane, with its time */
    shape->deferred_until_us = lane->rest_until_us;
    delivery_list_push(&shape->deferred, delivery);
}

/* A lane that rests for long gives its deliveries back in portions. True: some are left. */
static bool defer(struct lane_state *lane, uint64_t now_us) {
    if (!lane_rests_long(lane, now_us))
        return false;
    struct delivery *delivery;
    for (uint32_t i = 0; i < HANDOVER_MAX && ((delivery = lane_pop(lane)) || (delivery = lane_pop_aside(lane))); i++)
        lane_defer(lane, delivery);
    lane_signal(lane);
    if (lane->lane.waiting == 0)
        lane->expiry_ms = UINT64_MAX;
    return lane->lane.waiting > 0;
}

void lane_arm(struct lane_state *lane) {
    struct shape *shape = lane->shape;
    uint64_t at_us = UINT64_MAX;
    const uint64_t waits[] = {lane->linger_until_us, lane->idle_until_us, lane->wake_us,
                              lane->slow_shift > 0 ? lane->slow_since_us + (uint64_t)SLOW_PROBE_S * SECOND_US : 0,
                              lane->rest_until_us > shape->now_us ? lane->rest_until_us : 0};
    for (size_t i = 0; i < sizeof waits / sizeof waits[0]; i++)
        if (waits[i] > 0 && waits[i] < at_us)
            at_us = waits[i];
    if (lane->expiry_ms != UINT64_MAX) {
        uint64_t real_ms = shape_real_ms(shape, shape->now_us);
        uint64_t expiry_us = shape->now_us + (lane->expiry_ms > real_ms ? (lane->expiry_ms - real_ms) * 1000 : 0);
        at_us = expiry_us < at_us ? expiry_us : at_us;
    }
    if (lane->lane.waiting > 0 && lane_rests_long(lane, shape->now_us))
        at_us = shape->now_us;
    if (at_us != lane->timer.at_us)
        heap_set(&shape->heap, &lane->timer, at_us);
}

void lane_tick(struct lane_state *lane, uint64_t now_us) {
    struct shape *shape = lane->shape;
    heap_set(&shape->heap, &lane->timer, UINT64_MAX);
    expire(lane, now_us);
    if (lane->rest_until_us > 0 && lane->rest_until_us <= now_us) {
        lane->rest_until_us = 0;
        lane_load_rests(lane, now_us);
    }
    if (defer(lane, now_us)) {
        heap_set(&shape->heap, &lane->timer, now_us + 1000);
        return;
    }
    if (lane->wake_us > 0 && lane->wake_us <= now_us) {
        lane->wake_us = 0;
        lane_signal(lane);
    }
    if (lane->slow_shift > 0 && lane->slow_since_us + (uint64_t)SLOW_PROBE_S * SECOND_US <= now_us)
        lane_speed_up(lane, now_us);
    if (lane->linger_until_us > 0 && lane->linger_until_us <= now_us)
        lane_linger_over(lane, now_us);
    lane_balance(lane, now_us);
    if (lane->idle_until_us > 0 && lane->idle_until_us <= now_us && lane->lane.outstanding == 0) {
        if (shape->hooks.lane_gone)
            shape->hooks.lane_gone(shape->hooks.context, &lane->lane);
        lane_destroy(lane);
        return;
    }
    lane_arm(lane);
}
