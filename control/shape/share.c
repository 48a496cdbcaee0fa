/* share.c: limits that other nodes use too: what this one would use of each, what it has, and what holds when nobody answers. */
#include "state.h"

#include <stdlib.h>
#include <string.h>

static const double SHARE_LATE_S = 0.5; /* what was used of late: the weight of the past halves in about this time */

static bool is_alone(const struct shape *shape) {
    return shape->nodes <= 1;
}

struct share *share_create(struct shape *shape, struct shape_site *site, struct shape_provider *provider, uint64_t now_us) {
    struct share *share = calloc(1, sizeof *share);
    if (share) {
        share->site = site;
        share->provider = provider;
        share->asked_us = now_us;
    }
    return share;
}

static void unlist(struct shape *shape, struct share *share) {
    if (share->listed)
        TAILQ_REMOVE(&shape->shares, share, link);
    share->listed = false;
}

void share_release(struct shape *shape, struct share *share) {
    if (!share)
        return;
    unlist(shape, share);
    share->site = NULL;
    share->provider = NULL;
    if (!share->asked)
        free(share); /* else with its answer */
}

static void want_now(struct shape *shape, struct share *share, uint64_t at_us) {
    if (share->due_us > at_us)
        share->due_us = at_us;
    shape->share_wanted = true;
}

void share_want(struct shape *shape, struct share *share, uint64_t now_us) {
    if (is_alone(shape))
        return;
    if (share->listed) {
        if (share->idle) /* its part is nothing: it need not wait for its turn */
            want_now(shape, share, now_us);
        share->idle = false;
        return;
    }
    share->idle = false;
    share->listed = true;
    share->due_us = UINT64_MAX;
    share->until_us = now_us + SHARE_WAIT_US;
    TAILQ_INSERT_HEAD(&shape->shares, share, link);
    want_now(shape, share, now_us);
}

void share_refused(struct shape *shape, struct share *share, uint64_t now_us) {
    if (is_alone(shape))
        return;
    share_want(shape, share, now_us);
    if (!share->refused) /* the first since it was asked for */
        want_now(shape, share, share->asked_us + SHARE_URGENT_US > now_us ? share->asked_us + SHARE_URGENT_US : now_us);
    share->refused = true;
}

uint32_t share_connections(const struct shape *shape, const struct share *share, uint32_t limit, bool *shut) {
    uint32_t part = share->parts[SHARE_CONNECTIONS];
    *shut = false;
    if (limit == 0 || is_alone(shape))
        return limit;
    *shut = part == 0;
    return part < limit ? part : limit;
}

double share_connects(const struct shape *shape, const struct share *share, double rate) {
    if (!(rate > 0) || is_alone(shape))
        return rate;
    double part = rate * share->parts[SHARE_CONNECTS] / SHARE_WHOLE;
    return part > 1e-6 ? part : 1e-6;
}

void share_bucket(const struct shape *shape, const struct share *share, struct bucket *bucket, double rate, enum share_part part,
                  uint64_t now_us) {
    if (!(rate > 0)) {
        bucket_set(bucket, 0);
        bucket->stopped = false;
    } else {
        bucket_share(bucket, is_alone(shape) ? rate : rate * share->parts[part] / SHARE_WHOLE, now_us);
    }
}

/* Brings what depends on a share in line with it. */
static void apply(struct shape *shape, struct share *share, uint64_t now_us) {
    struct lane_state *lane;
    if (share->provider) {
        struct shape_provider *provider = share->provider;
        provider_set_limits(provider, &provider->limits, now_us);
        TAILQ_FOREACH (lane, &provider->holders, by_place)
            lane_set_intervals(lane);
        provider_shrink(provider, now_us);
        provider_tick(provider, now_us);
        return;
    }
    site_set_limits(shape, share->site, now_us);
    LIST_FOREACH (lane, &share->site->lanes, on_site) {
        lane->wake_us = 0; /* by the part before */
        lane_set_intervals(lane);
        lane_balance(lane, now_us);
        if (lane->lane.waiting > 0)
            lane_signal(lane);
    }
}

static const struct shaping_limits *limits_of(const struct share *share) {
    return share->site ? share->site->site->limits : &share->provider->limits;
}

static uint32_t connection_limit(const struct share *share) {
    return share->site ? limits_of(share)->connection_limit : limits_of(share)->provider_connection_limit;
}

static void set_parts(struct shape *shape, struct share *share, const uint32_t parts[SHARE_PARTS], uint64_t now_us) {
    if (memcmp(share->parts, parts, sizeof share->parts) == 0)
        return;
    memcpy(share->parts, parts, sizeof share->parts);
    apply(shape, share, now_us);
}

/* Nobody answers: each node takes an equal part, and one connection at least. */
static void set_equal_parts(struct shape *shape, struct share *share, uint64_t now_us) {
    uint32_t connections = connection_limit(share) / shape->nodes;
    const uint32_t parts[SHARE_PARTS] = {SHARE_WHOLE / shape->nodes, SHARE_WHOLE / shape->nodes, connections > 0 ? connections : 1};
    share->until_us = now_us + SHARE_WAIT_US;
    set_parts(shape, share, parts, now_us);
}

void shape_nodes(struct shape *shape, uint32_t nodes, uint64_t now_us) {
    bool was_alone = is_alone(shape);
    struct share *share, *next;
    struct shape_provider *provider;
    struct lane_state *lane;
    shape->now_us = now_us;
    shape->nodes = nodes > 0 ? nodes : 1;
    if (was_alone == is_alone(shape))
        return;
    for (share = TAILQ_FIRST(&shape->shares); share; share = next) {
        next = TAILQ_NEXT(share, link);
        unlist(shape, share);
    }
    /* Those who used them whole go on so until the first answer. */
    static const uint32_t whole[SHARE_PARTS] = {SHARE_WHOLE, SHARE_WHOLE, UINT32_MAX};
    LIST_FOREACH (provider, &shape->providers, link) {
        memcpy(provider->share->parts, whole, sizeof whole);
        if (provider->charge > 0 || provider->waiter_count > 0)
            share_want(shape, provider->share, now_us);
        else if (was_alone)
            memset(provider->share->parts, 0, sizeof whole);
        apply(shape, provider->share, now_us);
    }
    TAILQ_FOREACH (lane, &shape->lanes, link) {
        memcpy(lane->site->share->parts, whole, sizeof whole);
        if (lane->lane.waiting + lane->lane.outstanding + lane->charge > 0)
            share_want(shape, lane->site->share, now_us);
        else if (was_alone && !lane->site->share->listed)
            memset(lane->site->share->parts, 0, sizeof whole);
    }
    TAILQ_FOREACH (lane, &shape->lanes, link) /* a lane may come to have another lane's sessions: each in its turn */
        site_set_limits(shape, lane->site, now_us);
    TAILQ_FOREACH (lane, &shape->lanes, link) {
        lane_set_intervals(lane);
        lane_balance(lane, now_us);
        if (lane->lane.waiting > 0)
            lane_signal(lane);
    }
    shape_flush(shape);
}

/* What is wanted of a rate: all of it where it binds, else what was used of late, and a little. */
static uint32_t messages_wanted(const struct share *share, double rate, bool hungry, bool has_demand) {
    if (!(rate > 0) || !has_demand)
        return 0;
    if (hungry)
        return SHARE_WHOLE;
    if (share->parts[SHARE_MESSAGES] == 0)
        return SHARE_WHOLE / SHARE_FIRST;
    double part = share->used_per_second * 1.03 / rate * SHARE_WHOLE;
    return part >= SHARE_WHOLE ? SHARE_WHOLE : part < SHARE_FLOOR ? SHARE_FLOOR : (uint32_t)part;
}

/* `opens`: sessions that are allowed are not open yet. */
static uint32_t connects_wanted(const struct share *share, double rate, bool has_demand, bool opens, uint64_t now_us) {
    if (!(rate > 0) || !has_demand)
        return 0;
    bool connects = opens || share->parts[SHARE_CONNECTS] == 0 || share->connect_us + SHARE_CONNECTS_US > now_us;
    return connects ? SHARE_WHOLE : SHARE_FLOOR;
}

static uint32_t smaller(uint32_t left, uint32_t right) {
    return left < right ? left : right;
}

static void site_demand(const struct share *share, struct shape_demand *demand, bool *hungry, uint64_t now_us) {
    const struct shaping_limits *limits = limits_of(share);
    const struct lane_state *lane;
    bool has_demand = false, opens = false;
    *hungry = share->refused;
    demand->name = share->site->site->name;
    demand->total[SHARE_CONNECTIONS] = limits->connection_limit;
    LIST_FOREACH (lane, &share->site->lanes, on_site) {
        uint32_t waits = lane->lane.waiting + lane->lane.outstanding;
        uint32_t want = smaller(waits, lane->window);
        want = smaller(want > lane->charge ? want : lane->charge, limits->connection_limit); /* those that linger are wanted too */
        has_demand |= waits > 0;
        opens |= waits > 0 && lane->open < lane->target;
        *hungry |= lane->lane.waiting > 0 && lane->lane.rate_binds && lane->wake_us > now_us;
        if (want > demand->want[SHARE_CONNECTIONS])
            demand->want[SHARE_CONNECTIONS] = want;
        if (limits->connection_limit > 0 && lane->charge > demand->held[SHARE_CONNECTIONS])
            demand->held[SHARE_CONNECTIONS] = lane->charge;
    }
    demand->total[SHARE_MESSAGES] = limits->max_message_rate > 0 ? SHARE_WHOLE : 0;
    demand->total[SHARE_CONNECTS] = limits->max_connection_rate > 0 ? SHARE_WHOLE : 0;
    demand->want[SHARE_MESSAGES] = messages_wanted(share, limits->max_message_rate, *hungry, has_demand);
    demand->want[SHARE_CONNECTS] = connects_wanted(share, limits->max_connection_rate, has_demand, opens, now_us);
}

static void provider_demand(const struct share *share, struct shape_demand *demand, bool *hungry, uint64_t now_us) {
    const struct shaping_limits *limits = limits_of(share);
    const struct shape_provider *provider = share->provider;
    const struct lane_state *lane;
    bool has_demand = provider->waiter_count > 0 || !TAILQ_EMPTY(&provider->blocked);
    bool opens = false;
    for (lane = TAILQ_FIRST(&provider->holders); lane && !(has_demand && opens); lane = TAILQ_NEXT(lane, by_place)) {
        bool waits = lane->lane.waiting + lane->lane.outstanding > 0;
        has_demand |= waits;
        opens |= waits && lane->open < lane->target;
    }
    uint32_t limit = limits->provider_connection_limit;
    *hungry = share->refused || !TAILQ_EMPTY(&provider->blocked);
    demand->of_provider = true;
    demand->name = provider->name;
    demand->total[SHARE_MESSAGES] = limits->provider_max_message_rate > 0 ? SHARE_WHOLE : 0;
    demand->total[SHARE_CONNECTS] = limits->provider_max_connection_rate > 0 ? SHARE_WHOLE : 0;
    demand->total[SHARE_CONNECTIONS] = limit;
    demand->want[SHARE_MESSAGES] = messages_wanted(share, limits->provider_max_message_rate, *hungry, has_demand);
    demand->want[SHARE_CONNECTS] = connects_wanted(share, limits->provider_max_connection_rate, has_demand, opens, now_us);
    demand->want[SHARE_CONNECTIONS] = share->narrow || provider->waiter_count > 0 ? limit : smaller(provider->granted, limit);
    demand->held[SHARE_CONNECTIONS] = limit > 0 ? provider->charge : 0;
}

static bool is_nothing(const struct shape_demand *demand) {
    for (int part = 0; part < SHARE_PARTS; part++)
        if (demand->want[part] > 0 || demand->held[part] > 0)
            return false;
    return true;
}

/* The question of one share; it is asked again sooner while it has less than it wants. */
static void ask(struct shape *shape, struct share *share, void (*each)(void *context, const struct shape_demand *demand), void *context,
                uint64_t now_us) {
    struct shape_demand demand = {.share = share};
    bool hungry;
    double passed_s = (double)(now_us - share->asked_us) / SECOND_US;
    if (passed_s > 0)
        share->used_per_second +=
            (share->used / passed_s - share->used_per_second) * (passed_s < SHARE_LATE_S ? passed_s / SHARE_LATE_S : 1);
    (share->site ? site_demand : provider_demand)(share, &demand, &hungry, now_us);
    bool pressing = hungry || demand.want[SHARE_MESSAGES] > SHARE_WHOLE / SHARE_BUSY; /* what it leaves, others are to have soon */
    for (int part = 0; part < SHARE_PARTS; part++)
        pressing |= demand.want[part] > share->parts[part];
    share->idle = demand.want[SHARE_MESSAGES] == 0 && demand.want[SHARE_CONNECTS] == 0;
    share->due_us = now_us + (pressing ? SHARE_DUE_US : SHARE_CALM_US);
    share->asked_us = now_us;
    share->used = 0;
    share->refused = share->narrow = false;
    share->asked = true;
    TAILQ_REMOVE(&shape->shares, share, link);
    if (is_nothing(&demand)) { /* this gives it back */
        static const uint32_t nothing[SHARE_PARTS];
        share->listed = false;
        set_parts(shape, share, nothing, now_us);
    } else {
        TAILQ_INSERT_TAIL(&shape->shares, share, link);
    }
    each(context, &demand);
}

uint32_t shape_demands(struct shape *shape, uint32_t maximum, void (*each)(void *context, const struct shape_demand *demand), void *context,
                       uint64_t now_us) {
    uint32_t count = 0;
    struct share *share, *next, *last = TAILQ_LAST(&shape->shares, share_list);
    shape->now_us = now_us;
    shape->share_wanted = false;
    for (share = TAILQ_FIRST(&shape->shares); share; share = next) {
        next = share == last ? NULL : TAILQ_NEXT(share, link); /* those that were asked for go to the end */
        if (share->until_us <= now_us)
            set_equal_parts(shape, share, now_us);
        if (share->asked || share->due_us > now_us || count >= maximum)
            continue;
        ask(shape, share, each, context, now_us);
        count++;
    }
    shape_flush(shape);
    return count;
}

void shape_granted(struct shape *shape, struct share *share, const uint32_t parts[SHARE_PARTS], uint64_t until_us, uint64_t now_us) {
    share->asked = false;
    if (!share->site && !share->provider) {
        free(share);
        return;
    }
    shape->now_us = now_us;
    if (!parts || !share->listed || is_alone(shape))
        return; /* without an answer what was there ends in its time */
    share->until_us = until_us;
    set_parts(shape, share, parts, now_us);
    shape_flush(shape);
}
