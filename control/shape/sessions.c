/* sessions.c: how many sessions a lane may have, on which workers, and how fast it may connect. */
#include "state.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint32_t min_u32(uint32_t left, uint32_t right) {
    return left < right ? left : right;
}

/* What limits, feedback and rests allow, however much waits. */
static uint32_t lane_cap(const struct lane_state *lane, uint64_t now_us) {
    if (lane->rest_until_us > now_us || lane->site->shut)
        return 0;
    uint32_t cap = lane->site->connection_limit ? lane->site->connection_limit : SESSIONS_MAX;
    cap = min_u32(cap, lane->window);
    if (lane->provider && lane->provider->connection_limit)
        cap = min_u32(cap, lane->provider->connection_limit);
    return cap;
}

void lane_set_charge(struct lane_state *lane) {
    uint32_t charge = 0;
    for (uint32_t i = 0; i < lane->shape->hooks.workers; i++) {
        uint32_t allowed = lane->lane.sessions_allowed[i], open = lane->workers[i].open;
        charge += allowed > open ? allowed : open;
    }
    if (lane->provider)
        lane->provider->charge += charge - lane->charge;
    lane->charge = charge;
}

/* Shares the connect rates by sessions: the lane's part of its site's and its provider's rate, divided among its workers by what they may
 * open. */
void lane_set_intervals(struct lane_state *lane) {
    double rate = INFINITY;
    if (lane->site->connection_rate > 0)
        rate = lane->site->connection_rate / (lane->site->active > 0 ? lane->site->active : 1);
    const struct shape_provider *provider = lane->provider;
    if (provider && provider->connection_rate > 0) {
        double part = provider->connection_rate * lane->target / (provider->denominator > 0 ? provider->denominator : 1);
        if (provider->shared_waiting)
            part /= 2;
        if (part < rate)
            rate = part;
    }
    for (uint32_t i = 0; i < lane->shape->hooks.workers; i++) {
        uint32_t allowed = lane->lane.sessions_allowed[i];
        double interval_us = 0;
        if (lane->target > 0 && isfinite(rate))
            interval_us = ceil((double)SECOND_US * lane->target / (rate * (allowed > 0 ? allowed : 1)));
        uint32_t interval = interval_us < (double)UINT32_MAX ? (uint32_t)interval_us : UINT32_MAX;
        if (interval != lane->lane.connect_interval_us[i]) {
            lane->lane.connect_interval_us[i] = interval;
            lane_signal(lane);
        }
    }
}

static void detach(struct lane_state *lane) {
    for (uint32_t i = 0; i < lane->use_count; i++)
        if (lane->uses[i].rest)
            rests_detach(&lane->shape->endpoints, &lane->uses[i]);
    free(lane->uses);
    lane->uses = NULL;
    lane->use_count = 0;
}

/* Has the rests of its endpoints tell it. Without memory it hears of them only when it starts again. */
static void attach(struct lane_state *lane) {
    const struct site *site = lane->lane.site;
    lane->generation = site->generation;
    lane->uses = calloc(site->endpoint_count ? site->endpoint_count : 1, sizeof *lane->uses);
    if (!lane->uses)
        return;
    lane->use_count = site->endpoint_count;
    for (uint32_t i = 0; i < lane->use_count; i++) {
        struct rest_key key = rest_key_of(&site->endpoints[i].address, 0);
        struct rest *rest = rests_get(&lane->shape->endpoints, &key);
        if (rest)
            rests_attach(&lane->shape->endpoints, &lane->uses[i], rest, lane);
    }
}

/* Sets one published rest. */
static void publish(struct lane_state *lane, uint64_t *published, const struct rest *rest, uint64_t now_us) {
    uint64_t until_us = rest && rest->until_us > now_us ? rest->until_us : 0;
    if (*published != until_us) {
        *published = until_us;
        lane_signal(lane);
    }
}

/* When some endpoint may be reached from some source of its family: 0 for at once. A pool without a source of any endpoint's family rests
 * for long: its deliveries are deferred, as none would ever be sent. */
static uint64_t reachable_at(const struct lane *lane, uint64_t now_us) {
    uint64_t at_us = UINT64_MAX;
    for (uint32_t i = 0; i < lane->site->endpoint_count; i++)
        for (uint32_t j = 0; j < lane->pool->source_count && j < PATH_SOURCES_MAX; j++) {
            if (lane->pool->sources[j].address.family != lane->site->endpoints[i].address.family)
                continue;
            uint64_t endpoint_us = lane->endpoint_rest_until_us[i], source_us = lane->source_rest_until_us[j];
            uint64_t pair_us = endpoint_us > source_us ? endpoint_us : source_us;
            at_us = pair_us < at_us ? pair_us : at_us;
        }
    if (lane->site->endpoint_count == 0) /* route took them away: another route is asked for soon */
        return now_us + ((uint64_t)DEFER_AFTER_S + 1) * SECOND_US;
    return at_us < UINT64_MAX ? at_us : now_us + (uint64_t)ENDPOINT_REST_MAX_S * SECOND_US;
}

void lane_load_rests(struct lane_state *lane, uint64_t now_us) {
    struct shape *shape = lane->shape;
    const struct site *site = lane->lane.site;
    if (lane->generation != site->generation) {
        if (lane->uses) {
            detach(lane);
            attach(lane);
        }
        lane->generation = site->generation;
        lane_signal(lane);
    }
    for (uint32_t i = 0; i < SITE_ENDPOINTS_MAX; i++) {
        struct rest *rest = NULL;
        if (i < site->endpoint_count) {
            struct rest_key key = rest_key_of(&site->endpoints[i].address, 0);
            rest = rests_find(&shape->endpoints, &key);
        }
        if (i < site->endpoint_count && shape->has_troubles) {
            struct rest_key key = rest_key_of(&site->endpoints[i].address, policy_scope(shape, site, i));
            struct rest *trouble = rests_find(&shape->endpoints, &key);
            if (trouble && (!rest || trouble->until_us > rest->until_us))
                rest = trouble;
            key = rest_key_of(&site->endpoints[i].address, lost_scope(shape, site));
            trouble = rests_find(&shape->endpoints, &key);
            if (trouble && (!rest || trouble->until_us > rest->until_us))
                rest = trouble;
        }
        publish(lane, &lane->lane.endpoint_rest_until_us[i], rest, now_us);
    }
    uint64_t scope = lane->provider ? lane->provider->scope : lane->site->scope;
    for (uint32_t i = 0; i < PATH_SOURCES_MAX; i++) {
        struct rest *rest = NULL;
        if (i < lane->lane.pool->source_count) {
            struct rest_key key = rest_key_of(&lane->lane.pool->sources[i].address, scope);
            rest = rests_find(&shape->sources, &key);
        }
        publish(lane, &lane->lane.source_rest_until_us[i], rest, now_us);
    }
    lane->rest_until_us = reachable_at(&lane->lane, now_us);
}

/* The only place that changes sessions_allowed. Workers are filled in turn from first_worker, so that a change of one moves one session. */
void lane_set_target(struct lane_state *lane, uint32_t target, uint64_t now_us) {
    struct shape *shape = lane->shape;
    struct shape_provider *provider = lane->provider;
    uint32_t before = lane->target;
    if (target == before)
        return;
    uint32_t workers = shape->hooks.workers;
    for (uint32_t i = 0; i < workers; i++) {
        uint32_t worker = (lane->first_worker + i) % workers;
        lane->lane.sessions_allowed[worker] = (uint16_t)(target / workers + (i < target % workers));
    }
    lane->target = lane->lane.sessions = target;
    lane_set_charge(lane);
    if (target > before)
        lane->site->share->connect_us = now_us;
    bool active_changed = (before == 0) != (target == 0);
    if (active_changed) {
        lane->site->active += target > 0 ? 1 : -1u;
        if (target > 0)
            attach(lane);
        else
            detach(lane);
    }
    if (provider) {
        provider->granted += target - before;
        if (target > 0 && lane->place != PLACE_HOLDER) {
            provider_leave(provider, lane);
            lane->place = PLACE_HOLDER;
            lane->slice_since_us = now_us;
            provider->holder_count++;
            TAILQ_INSERT_TAIL(&provider->holders, lane, by_place);
        }
        if (target == 0)
            provider_leave(provider, lane);
        provider_granted_changed(provider);
    }
    lane_set_intervals(lane);
    if (active_changed) {
        struct lane_state *other;
        LIST_FOREACH (other, &lane->site->lanes, on_site)
            if (other != lane && other->target > 0)
                lane_set_intervals(other);
    }
    lane_signal(lane);
}

void lane_linger_over(struct lane_state *lane, uint64_t now_us) {
    lane->linger_until_us = 0;
    if (lane->linger_peak < lane->target)
        lane_set_target(lane, lane->linger_peak, now_us);
    lane_balance(lane, now_us);
}

static void lane_grow(struct lane_state *lane, uint32_t want, uint64_t now_us) {
    struct shape_provider *provider = lane->provider;
    lane->linger_until_us = 0;
    if (lane->place == PLACE_WAITER)
        return;
    if (lane->target == 0) {
        lane_load_rests(lane, now_us);
        if (lane->rest_until_us > now_us) {
            lane_arm(lane);
            return;
        }
    }
    if (!provider) {
        lane_set_target(lane, want, now_us);
    } else if (lane->target == 0) {
        provider_admit(provider, lane, now_us);
    } else if (provider->waiter_count == 0) {
        uint32_t room = provider_room(provider);
        if (want > lane->target + (room < SESSIONS_MAX ? room : SESSIONS_MAX))
            provider->share->narrow = true;
        lane_set_target(lane, min_u32(want, room > SESSIONS_MAX ? want : lane->target + room), now_us);
    }
}

void lane_balance(struct lane_state *lane, uint64_t now_us) {
    uint32_t demand = lane->lane.waiting + lane->lane.outstanding;
    if (demand > 0) {
        lane->idle_until_us = 0;
    } else if (lane->idle_until_us == 0) {
        lane->idle_until_us = now_us + (uint64_t)LANE_IDLE_S * SECOND_US;
        lane_arm(lane);
    }
    uint32_t cap = lane_cap(lane, now_us);
    uint32_t want = min_u32(demand, cap);
    if (want == lane->target) {
        lane->linger_until_us = 0;
        if (want == 0 && lane->place == PLACE_WAITER)
            provider_leave(lane->provider, lane);
        return;
    }
    if (want > lane->target) {
        lane_grow(lane, want, now_us);
        return;
    }
    bool others_wait = lane->provider && lane->provider->waiter_count > 0;
    if (others_wait || lane->target > cap) {
        lane_set_target(lane, others_wait ? want : cap, now_us);
        if (lane->provider)
            provider_grant(lane->provider, now_us);
    }
    if (want < lane->target) {
        if (lane->linger_until_us == 0) {
            lane->linger_until_us = now_us + (uint64_t)LINGER_S * SECOND_US;
            lane->linger_peak = want;
            lane_arm(lane);
            if (lane->provider)
                provider_yield(lane->provider, lane);
        } else if (want > lane->linger_peak) {
            lane->linger_peak = want;
        }
    } else {
        lane->linger_until_us = 0;
    }
}
