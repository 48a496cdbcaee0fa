/* provider.c: limits that many lanes share: sessions by turns, connects and messages by buckets. */
#include "state.h"

#include <stdlib.h>
#include <string.h>

static const uint64_t TICK_MIN_US = 1000; /* tokens are handed out in steps no finer than this */

struct shape_provider *provider_get(struct shape *shape, const struct shaping_provider *config, uint64_t now_us) {
    struct shape_provider *provider;
    LIST_FOREACH (provider, &shape->providers, link) {
        if (strcmp(provider->name, config->name) == 0) {
            provider->references++;
            return provider;
        }
    }
    provider = calloc(1, sizeof *provider);
    char *name = provider ? strdup(config->name) : NULL;
    struct share *share = name ? share_create(shape, NULL, provider, now_us) : NULL;
    if (!share || heap_reserve(&shape->heap, shape->lane_count + shape->provider_count + 2) != 0) {
        free(share);
        free(name);
        free(provider);
        return NULL;
    }
    provider->shape = shape;
    provider->name = name;
    provider->share = share;
    provider->references = 1;
    provider->scope = ++shape->scopes;
    provider->timer = (struct timer){.at_us = UINT64_MAX, .owner = TIMER_PROVIDER};
    TAILQ_INIT(&provider->holders);
    TAILQ_INIT(&provider->waiters);
    TAILQ_INIT(&provider->blocked);
    provider_set_limits(provider, &config->limits, now_us);
    LIST_INSERT_HEAD(&shape->providers, provider, link);
    shape->provider_count++;
    return provider;
}

/* Stays, with its buckets, when its last lane goes: there are as many as the configuration names. */
void provider_release(struct shape_provider *provider) {
    provider->references--;
}

void provider_set_limits(struct shape_provider *provider, const struct shaping_limits *limits, uint64_t now_us) {
    const struct shape *shape = provider->shape;
    if (limits != &provider->limits)
        provider->limits = *limits;
    provider->connection_limit = share_connections(shape, provider->share, limits->provider_connection_limit, &provider->shut);
    provider->connection_rate = share_connects(shape, provider->share, limits->provider_max_connection_rate);
    share_bucket(shape, provider->share, &provider->connects, limits->provider_max_connection_rate, SHARE_CONNECTS, now_us);
    share_bucket(shape, provider->share, &provider->messages, limits->provider_max_message_rate, SHARE_MESSAGES, now_us);
}

uint32_t provider_room(const struct shape_provider *provider) {
    if (provider->connection_limit == 0)
        return provider->shut ? 0 : UINT32_MAX;
    return provider->charge < provider->connection_limit ? provider->connection_limit - provider->charge : 0;
}

static void provider_arm(struct shape_provider *provider, uint64_t at_us) {
    if (at_us < provider->timer.at_us)
        heap_set(&provider->shape->heap, &provider->timer, at_us);
}

void provider_leave(struct shape_provider *provider, struct lane_state *lane) {
    if (lane->place == PLACE_HOLDER) {
        TAILQ_REMOVE(&provider->holders, lane, by_place);
        provider->holder_count--;
    } else if (lane->place == PLACE_WAITER) {
        TAILQ_REMOVE(&provider->waiters, lane, by_place);
        provider->waiter_count--;
    }
    lane->place = PLACE_NONE;
}

static void wait_in_line(struct shape_provider *provider, struct lane_state *lane) {
    share_want(provider->shape, provider->share, provider->shape->now_us);
    if (lane->place == PLACE_WAITER)
        return;
    provider_leave(provider, lane);
    lane->place = PLACE_WAITER;
    TAILQ_INSERT_TAIL(&provider->waiters, lane, by_place);
    provider->waiter_count++;
}

void provider_yield(struct shape_provider *provider, struct lane_state *lane) {
    if (lane->place != PLACE_HOLDER)
        return;
    TAILQ_REMOVE(&provider->holders, lane, by_place);
    TAILQ_INSERT_HEAD(&provider->holders, lane, by_place);
    lane->slice_since_us = 0;
}

void provider_admit(struct shape_provider *provider, struct lane_state *lane, uint64_t now_us) {
    wait_in_line(provider, lane);
    provider_grant(provider, now_us);
}

/* What each lane may have while others wait. */
static uint32_t fair_share(const struct shape_provider *provider) {
    uint32_t lanes = provider->holder_count + provider->waiter_count;
    uint32_t share = provider->connection_limit / (lanes > 0 ? lanes : 1);
    return share > 0 ? share : 1;
}

/* When a holder gives way to one that waits: soon with more than its share, else after a whole slice. */
static uint64_t slice_over_us(const struct shape_provider *provider, const struct lane_state *holder) {
    uint64_t slice_s = holder->target > fair_share(provider) ? SLICE_ABOVE_SHARE_S : SLICE_S;
    return holder->slice_since_us + slice_s * SECOND_US;
}

static uint32_t lane_want(const struct lane_state *lane) {
    if (lane->site->shut)
        return 0;
    uint32_t want = lane->lane.waiting + lane->lane.outstanding;
    uint32_t limit = lane->site->connection_limit ? lane->site->connection_limit : SESSIONS_MAX;
    want = want < limit ? want : limit;
    return want < lane->window ? want : lane->window;
}

/* A lane's first connect takes a token here, because thousands of small sites of one provider each connect but once and no interval binds
 * them. */
void provider_grant(struct shape_provider *provider, uint64_t now_us) {
    struct lane_state *lane;
    while ((lane = TAILQ_FIRST(&provider->waiters))) {
        uint32_t want = lane_want(lane);
        if (want == 0) {
            provider_leave(provider, lane);
            continue;
        }
        lane_load_rests(lane, now_us);
        if (lane->rest_until_us > now_us) {
            provider_leave(provider, lane);
            lane_arm(lane);
            continue;
        }
        uint32_t room = provider_room(provider);
        if (room == 0) {
            provider->share->narrow = true;
            struct lane_state *holder = TAILQ_FIRST(&provider->holders);
            uint64_t over_us = holder ? slice_over_us(provider, holder) : now_us + SECOND_US;
            provider_arm(provider, over_us > now_us + TICK_MIN_US ? over_us : now_us + TICK_MIN_US);
            break;
        }
        uint64_t ready_us = bucket_ready_us(&provider->connects);
        if (ready_us > now_us) {
            provider->share->connect_us = now_us; /* they are wanted */
            provider_arm(provider, ready_us);
            break;
        }
        bucket_take(&provider->connects, now_us);
        provider->share->connect_us = now_us;
        lane->prepaid++;
        if (provider->connection_limit > 0 && provider->waiter_count > 1) {
            uint32_t share = fair_share(provider);
            want = want < share ? want : share;
        }
        lane_set_target(lane, want < room ? want : room, now_us);
    }
    if ((provider->waiter_count > 0) != provider->shared_waiting)
        provider_arm(provider, now_us + SECOND_US); /* provider_tick shares the connect rate anew */
}

static void share_connect_rate(struct shape_provider *provider) {
    struct lane_state *lane;
    TAILQ_FOREACH (lane, &provider->holders, by_place)
        lane_set_intervals(lane);
}

/* Doubling keeps it amortised: the holders' intervals change when their number has doubled, not with each. */
void provider_granted_changed(struct shape_provider *provider) {
    uint32_t denominator = provider->denominator ? provider->denominator : 1;
    while (denominator < provider->granted)
        denominator *= 2;
    while (denominator > 1 && denominator / 4 >= provider->granted)
        denominator /= 2;
    if (provider->connection_limit > 0 && denominator > provider->connection_limit && provider->granted <= provider->connection_limit)
        denominator = provider->connection_limit;
    if (denominator == provider->denominator)
        return;
    provider->denominator = denominator;
    if (provider->connection_rate > 0)
        share_connect_rate(provider);
}

void provider_shrink(struct shape_provider *provider, uint64_t now_us) {
    struct lane_state *lane;
    while ((provider->shut || provider->connection_limit > 0) && provider->granted > provider->connection_limit &&
           (lane = TAILQ_FIRST(&provider->holders))) {
        uint32_t over = provider->granted - provider->connection_limit;
        lane_set_target(lane, lane->target > over ? lane->target - over : 0, now_us);
        if (lane->target == 0 && lane_want(lane) > 0)
            wait_in_line(provider, lane);
    }
}

/* Holders whose slice is over give way, one for each that waits. */
static void rotate(struct shape_provider *provider, uint64_t now_us) {
    uint32_t left = provider->waiter_count;
    struct lane_state *lane;
    while (left-- > 0 && provider->waiter_count > 0 && provider_room(provider) == 0 && (lane = TAILQ_FIRST(&provider->holders)) &&
           slice_over_us(provider, lane) <= now_us) {
        uint32_t share = fair_share(provider), want = lane_want(lane);
        uint32_t keep = want < share ? want : share;
        if (keep < lane->target) {
            lane_set_target(lane, keep, now_us);
            if (lane->target == 0)
                continue;
            lane->slice_since_us = now_us;
            TAILQ_REMOVE(&provider->holders, lane, by_place);
            TAILQ_INSERT_TAIL(&provider->holders, lane, by_place);
        } else {
            lane_set_target(lane, 0, now_us);
            wait_in_line(provider, lane);
        }
    }
}

/* Lets as many blocked lanes try as there are tokens. */
static void hand_out_tokens(struct shape_provider *provider, uint64_t now_us) {
    uint32_t tokens = bucket_tokens(&provider->messages, now_us);
    struct lane_state *lane;
    while (tokens-- > 0 && (lane = TAILQ_FIRST(&provider->blocked))) {
        provider_unblock(provider, lane);
        lane->has_turn = true;
        lane_signal(lane);
    }
    if (!TAILQ_EMPTY(&provider->blocked)) {
        uint64_t ready_us = bucket_ready_us(&provider->messages);
        provider_arm(provider, ready_us > now_us + TICK_MIN_US ? ready_us : now_us + TICK_MIN_US);
    }
}

void provider_unblock(struct shape_provider *provider, struct lane_state *lane) {
    if (!lane->is_blocked)
        return;
    TAILQ_REMOVE(&provider->blocked, lane, by_block);
    lane->is_blocked = false;
}

bool provider_may_take(struct shape_provider *provider, struct lane_state *lane, uint64_t now_us) {
    uint64_t ready_us = bucket_ready_us(&provider->messages);
    if (ready_us > now_us)
        share_refused(provider->shape, provider->share, now_us);
    if (ready_us <= now_us && (lane->has_turn || TAILQ_EMPTY(&provider->blocked)))
        return true;
    lane->has_turn = false;
    if (!lane->is_blocked) {
        TAILQ_INSERT_TAIL(&provider->blocked, lane, by_block);
        lane->is_blocked = true;
    }
    provider_arm(provider, ready_us > now_us ? ready_us : now_us + TICK_MIN_US);
    return false;
}

void provider_tick(struct shape_provider *provider, uint64_t now_us) {
    heap_set(&provider->shape->heap, &provider->timer, UINT64_MAX);
    rotate(provider, now_us);
    provider_grant(provider, now_us);
    if ((provider->waiter_count > 0) != provider->shared_waiting) {
        provider->shared_waiting = provider->waiter_count > 0;
        share_connect_rate(provider);
    }
    hand_out_tokens(provider, now_us);
}
