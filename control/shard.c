/* shard.c: the wiring. Each stage hears of the next only here. */
#include "control/shard.h"

#include "control/clock.h"
#include "control/dispatch/dispatch.h"
#include "control/fetch/fetch.h"
#include "control/fetch/redis.h"
#include "control/observe/log.h"
#include "control/route/route.h"
#include "control/settle/settle.h"
#include "control/shape/shape.h"
#include <errno.h>
#include <event2/event.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    FETCH_ROUTING_MAX = 20000, /* recipients whose domain is being looked up */
    DRAIN_CHECK_MS = 20,
    RESUME_STEP = 256,
    PARK_RETRY_MS = 100,
    PARK_STEP = 5000,   /* parked deliveries that are tried at a time */
    PARKED_MAX = 50000, /* deliveries that wait here because their lane's window is full; more wait in Redis */
    PARK_FAR_S = 60,    /* how long those do, and as much again at random three times */
};

struct shard {
    struct shard_config config;
    struct event_base *base;
    struct redis *redis;
    struct fetch *fetch;
    struct route *route;
    struct shape *shape;
    struct dispatch *dispatch;
    struct settle *settle;
    struct event *poll_timer, *drain_timer, *park_timer;
    struct delivery *parked_first, *parked_last;
    uint32_t routing, parked;
    bool draining, fetch_waits, harvested;
    int result;
    uint64_t drain_until_us;
    uint64_t started_us;
};

static uint64_t now_us(void) {
    return clock_us(CLOCK_MONOTONIC);
}

static void delivery_free(struct delivery *delivery) {
    if (delivery->site != NULL)
        site_release(delivery->site);
    job_release(delivery->job);
    free(delivery);
}

/* -- settle -- */

static const char *pool_name(const struct shard *shard, const struct job *job) {
    return job != NULL && job->pool != NULL ? job->pool : shard->config.config->default_pool;
}

static void settle_delivery(struct shard *shard, const struct settle_cookie *cookie, const struct outcome *outcome,
                            const struct classification *classification, struct delivery *delivery, uint32_t slot,
                            uint32_t slot_generation) {
    struct settle_item item = {.cookie = *cookie,
                               .outcome = *outcome,
                               .classification = *classification,
                               .slot = slot,
                               .slot_generation = slot_generation,
                               .site = "",
                               .provider = "",
                               .pool = ""};
    if (delivery != NULL) {
        item.job = delivery->job;
        item.pool = pool_name(shard, delivery->job);
        if (delivery->site != NULL) {
            item.site = delivery->site->name;
            item.provider = delivery->site->provider != NULL ? delivery->site->provider->name : "";
        }
    }
    settle_add(shard->settle, &item);
    if (delivery != NULL)
        delivery_free(delivery);
}

/* A delivery that ends, or waits, before it ever had a slot: no route, no pool, expired, a site that rests. retry_after_s: 0 for the
 * queue's schedule. */
static void settle_early(struct shard *shard, struct delivery *delivery, enum reply_class class, uint16_t code, const uint16_t enhanced[3],
                         uint32_t retry_after_s, const char *text) {
    struct settle_cookie cookie;
    dispatch_cookie(shard->dispatch, delivery, &cookie);
    struct outcome outcome = {.kind = OUTCOME_LOCAL, .stage = STAGE_CONNECT, .code = code, .finished_us = clock_us(CLOCK_REALTIME)};
    memcpy(outcome.enhanced, enhanced, sizeof(outcome.enhanced));
    snprintf(outcome.text, sizeof(outcome.text), "%s", text);
    struct classification classification;
    classify(shard->config.classifier, NULL, &outcome, shard->config.config->suppress_on_block_defer, &classification);
    classification.class = class;
    if (retry_after_s != 0) {
        classification.retry_after_s = retry_after_s;
        classification.unattempted = true;
    }
    settle_delivery(shard, &cookie, &outcome, &classification, delivery, SLOT_NONE, 0);
}

static void on_committed(void *context, uint32_t slot, uint32_t slot_generation) {
    struct shard *shard = context;
    if (slot != SLOT_NONE)
        dispatch_committed(shard->dispatch, slot, slot_generation);
}

/* -- dispatch -- */

/* Fetch reads again when it may hope for room. */
static void resume(struct shard *shard) {
    if (shard->fetch_waits && shape_room(shard->shape) >= RESUME_STEP) {
        shard->fetch_waits = false;
        fetch_resume(shard->fetch);
    }
}

static void on_ended(void *context, const struct dispatch_end *end) {
    struct shard *shard = context;
    const struct shaping_provider *provider = end->lane != NULL ? end->lane->site->provider : NULL;
    struct classification classification;
    classify(shard->config.classifier, provider != NULL ? provider->name : NULL, &end->outcome,
             shard->config.config->suppress_on_block_defer, &classification);
    if (end->lane != NULL)
        shape_ended(shard->shape, end->lane, &end->outcome, &classification, end->source, now_us());
    settle_delivery(shard, &end->cookie, &end->outcome, &classification, end->delivery, end->slot, end->slot_generation);
    resume(shard);
}

static void on_path_event(void *context, const struct path_event *event, const char *site) {
    if (event->kind != PATH_EVENT_READY)
        log_write(LOG_LEVEL_DEBUG, "dispatch", "%s: %s at %s (%u %s)", site, path_event_text(event->kind), smtp_stage_text(event->stage),
                  event->code, event->text);
}

static void on_dataplane(void *context, bool up) {
    struct shard *shard = context;
    if (!up) {
        log_write(LOG_LEVEL_WARNING, "control", "the dataplane is gone: deliveries wait until it is back");
        shape_sessions_reset(shard->shape, now_us());
    }
    if (up && shard->draining)
        shard->drain_until_us = now_us(); /* nothing of ours can be in a new dataplane */
}

static void on_harvested(void *context) {
    struct shard *shard = context;
    shard->harvested = true;
    if (!shard->draining)
        fetch_start(shard->fetch);
}

/* -- shape -- */

static void on_lane_changed(void *context, struct lane *lane) {
    struct shard *shard = context;
    if (shard->dispatch != NULL)
        dispatch_lane_changed(shard->dispatch, lane);
}

static void on_lane_gone(void *context, struct lane *lane) {
    struct shard *shard = context;
    dispatch_lane_gone(shard->dispatch, lane);
}

static void on_expired(void *context, struct delivery *delivery) {
    static const uint16_t enhanced[3] = {5, 4, 7};
    settle_early(context, delivery, CLASS_EXPIRED, 550, enhanced, 0, "the job's expires_at passed before it could be sent");
}

/* Whether the pool has an address of the family of some server of the site: without one it reaches none. */
static bool pool_reaches(const struct config_pool *pool, const struct site *site) {
    for (uint32_t i = 0; i < site->endpoint_count; i++)
        for (uint32_t j = 0; j < pool->source_count; j++)
            if (pool->sources[j].address.family == site->endpoints[i].address.family)
                return true;
    return site->endpoint_count == 0;
}

/* Every server of its site rests, or none is of a family that the pool has: it waits in Redis, not here. */
static void on_deferred(void *context, struct delivery *delivery, uint64_t until_us) {
    static const uint16_t enhanced[3] = {4, 4, 1};
    struct shard *shard = context;
    uint64_t now = now_us();
    uint64_t wait_s = until_us > now ? (until_us - now) / 1000000 + 1 : 1;
    const struct site *site = delivery->site;
    const struct config_pool *pool = config_pool_named(shard->config.config, pool_name(shard, delivery->job));
    char text[192];
    if (pool != NULL && !pool_reaches(pool, site))
        snprintf(text, sizeof(text), "every server of %.100s has only %s addresses, and the pool %.32s has none of that family", site->name,
                 site->endpoints[0].address.family == 6 ? "IPv6" : "IPv4", pool->name);
    else
        snprintf(text, sizeof(text), "no server of %.100s answers; tried again when its rest ends", site->name);
    settle_early(context, delivery, CLASS_CONNECTION_FAILED, 451, enhanced, wait_s < UINT32_MAX ? (uint32_t)wait_s : UINT32_MAX, text);
}

/* -- route and fetch -- */

static void park_later(struct shard *shard) {
    struct timeval wait = {.tv_usec = PARK_RETRY_MS * 1000};
    if (!evtimer_pending(shard->park_timer, NULL))
        evtimer_add(shard->park_timer, &wait);
}

static void park(struct shard *shard, struct delivery *delivery) {
    delivery->next = NULL;
    if (shard->parked_last != NULL)
        shard->parked_last->next = delivery;
    else
        shard->parked_first = delivery;
    shard->parked_last = delivery;
    shard->parked++;
    park_later(shard);
}

/* So many wait here already that one slow site would hold up all the others: it goes to the time buckets, and costs no attempt. */
static void park_far(struct shard *shard, struct delivery *delivery) {
    struct settle_cookie cookie;
    dispatch_cookie(shard->dispatch, delivery, &cookie);
    struct outcome outcome = {.kind = OUTCOME_RETURNED, .stage = STAGE_CONNECT};
    struct classification classification = {.verdict = VERDICT_RETURNED,
                                            .retry_after_s = PARK_FAR_S + (uint32_t)(random() % (3 * PARK_FAR_S))};
    settle_delivery(shard, &cookie, &outcome, &classification, delivery, SLOT_NONE, 0);
}

static void enqueue(struct shard *shard, struct delivery *delivery) {
    static const uint16_t no_pool[3] = {4, 3, 5};
    int code = shape_enqueue(shard->shape, delivery, now_us());
    if (code == 0)
        return;
    if (code != -ENOENT) {
        if (shard->parked < PARKED_MAX && fetch_bytes(shard->fetch) < FETCH_BYTES_MAX / 2)
            park(shard, delivery);
        else
            park_far(shard, delivery);
        return;
    }
    char text[160];
    snprintf(text, sizeof(text), "pool '%s' is not in bypost.yaml", pool_name(shard, delivery->job));
    settle_early(shard, delivery, CLASS_SYSTEM_ERROR, 451, no_pool, 0, text); /* the operator's to mend, by a reload */
}

/* The lanes whose window was full may have room; the oldest are tried first, and those without go to the end. */
static void on_park_timer(evutil_socket_t descriptor, short what, void *argument) {
    struct shard *shard = argument;
    for (uint32_t tries = shard->parked < PARK_STEP ? shard->parked : PARK_STEP; tries > 0; tries--) {
        struct delivery *delivery = shard->parked_first;
        shard->parked_first = delivery->next;
        if (shard->parked_first == NULL)
            shard->parked_last = NULL;
        shard->parked--;
        enqueue(shard, delivery);
    }
    if (shard->parked > 0)
        park_later(shard);
    resume(shard);
}

struct routing {
    struct shard *shard;
    struct delivery *delivery;
};

static void on_route(void *context, const struct route_result *result) {
    struct routing *routing = context;
    struct shard *shard = routing->shard;
    struct delivery *delivery = routing->delivery;
    free(routing);
    shard->routing--;
    if (shard->draining) { /* Redis still has it as pending */
        delivery_free(delivery);
        return;
    }
    if (result->status != ROUTE_FOUND) {
        settle_early(shard, delivery, result->class, result->code, result->enhanced, 0, result->text);
        return;
    }
    delivery->site = result->site;
    site_hold(result->site);
    enqueue(shard, delivery);
}

static uint32_t on_room(void *context) {
    struct shard *shard = context;
    uint32_t room = shape_room(shard->shape);
    uint32_t held = shard->routing + shard->parked;
    uint32_t settling = settle_outstanding(shard->settle);
    if (shard->draining || !shard->harvested || shard->routing >= FETCH_ROUTING_MAX || room <= held || settling >= SHAPE_TOTAL_MAX) {
        shard->fetch_waits = !shard->draining;
        if (shard->fetch_waits)
            park_later(shard);
        return 0;
    }
    return room - held;
}

static void on_job(void *context, struct job *job) {
    struct shard *shard = context;
    for (uint32_t i = 0; i < job->pending_count; i++) {
        struct routing *routing = malloc(sizeof(*routing));
        struct delivery *delivery = calloc(1, sizeof(*delivery));
        if (routing == NULL || delivery == NULL) { /* Redis keeps it as pending: read again at the next start */
            log_write(LOG_LEVEL_ERROR, "control", "out of memory: a recipient stays pending in Redis");
            free(routing);
            free(delivery);
            continue;
        }
        job_hold(job);
        *delivery = (struct delivery){.job = job,
                                      .index = job->pending[i],
                                      .attempt = job->history.attempt,
                                      .high = job->high,
                                      .uncertain = job->history.uncertain,
                                      .queued_ms = clock_ms(CLOCK_REALTIME)};
        *routing = (struct routing){.shard = shard, .delivery = delivery};
        shard->routing++;
        route_find(shard->route, job->recipients[delivery->index].mailbox.domain, on_route, routing);
    }
    job_release(job);
}

static bool on_in_flight(void *context, const char *stream, struct entry_id entry, uint32_t index) {
    struct shard *shard = context;
    return dispatch_in_flight(shard->dispatch, stream, entry, index);
}

static void on_poll(evutil_socket_t descriptor, short what, void *argument) {
    struct shard *shard = argument;
    uint64_t now = now_us();
    uint64_t wake_us = shape_poll(shard->shape, now);
    uint64_t wait_us = wake_us > now ? wake_us - now : 1000;
    wait_us = wait_us < 1000 ? 1000 : wait_us > 100000 ? 100000 : wait_us;
    struct timeval wait = {.tv_usec = (suseconds_t)wait_us};
    evtimer_add(shard->poll_timer, &wait);
}

/* -- life -- */

static void forget_delivery(void *context, struct delivery *delivery) {
    delivery_free(delivery);
}

static void on_drain_timer(evutil_socket_t descriptor, short what, void *argument) {
    struct shard *shard = argument;
    /* What came back unattempted stays pending in Redis: the next start reads it again. */
    shape_drain(shard->shape, forget_delivery, shard);
    uint32_t in_progress = dispatch_in_progress(shard->dispatch);
    uint32_t settling = settle_outstanding(shard->settle);
    if (in_progress == 0)
        settle_flush(shard->settle);
    if (in_progress == 0 && settling == 0 && shard->routing == 0) {
        event_base_loopbreak(shard->base);
        return;
    }
    if (now_us() >= shard->drain_until_us) {
        log_write(LOG_LEVEL_WARNING, "control",
                  "the drain's time is up with %u orders and %u commits unfinished: the next start takes them up", in_progress, settling);
        shard->result = 1;
        event_base_loopbreak(shard->base);
        return;
    }
    struct timeval wait = {.tv_usec = DRAIN_CHECK_MS * 1000};
    evtimer_add(shard->drain_timer, &wait);
}

void shard_stop(struct shard *shard) {
    if (shard->draining)
        return;
    shard->draining = true;
    shard->drain_until_us = now_us() + shard->config.config->dataplane.drain_timeout_ms * 1000;
    fetch_stop(shard->fetch);
    dispatch_drain(shard->dispatch);
    while (shard->parked_first != NULL) {
        struct delivery *next = shard->parked_first->next;
        delivery_free(shard->parked_first);
        shard->parked_first = next;
    }
    shard->parked_last = NULL;
    shard->parked = 0;
    struct timeval wait = {0};
    evtimer_add(shard->drain_timer, &wait);
}

struct shard *shard_create(const struct shard_config *config, char *error, size_t error_bytes) {
    struct shard *shard = calloc(1, sizeof(*shard));
    if (shard == NULL) {
        snprintf(error, error_bytes, "out of memory.");
        return NULL;
    }
    shard->config = *config;
    shard->started_us = now_us();
    shard->base = event_base_new();
    if (shard->base != NULL) {
        shard->poll_timer = evtimer_new(shard->base, on_poll, shard);
        shard->drain_timer = evtimer_new(shard->base, on_drain_timer, shard);
        shard->park_timer = evtimer_new(shard->base, on_park_timer, shard);
    }
    if (shard->base == NULL || shard->poll_timer == NULL || shard->drain_timer == NULL || shard->park_timer == NULL) {
        snprintf(error, error_bytes, "the event loop cannot be made: %s.", strerror(errno));
        goto failed;
    }
    shard->redis = redis_create(shard->base, config->config, error, error_bytes);
    if (shard->redis == NULL)
        goto failed;
    shard->route = route_create(shard->base, config->config, error, error_bytes);
    if (shard->route == NULL)
        goto failed;
    struct shape_config shape = {.config = config->config,
                                 .workers = config->journal->geometry.workers,
                                 .lane_changed = on_lane_changed,
                                 .lane_gone = on_lane_gone,
                                 .expired = on_expired,
                                 .deferred = on_deferred,
                                 .context = shard};
    shard->shape = shape_create(&shape, now_us());
    if (shard->shape == NULL) {
        snprintf(error, error_bytes, "out of memory for shaping.");
        goto failed;
    }
    struct settle_config settle = {.base = shard->base,
                                   .redis = shard->redis,
                                   .config = config->config,
                                   .shard = config->index,
                                   .committed = on_committed,
                                   .context = shard};
    shard->settle = settle_create(&settle, error, error_bytes);
    if (shard->settle == NULL)
        goto failed;
    struct dispatch_config dispatch = {.base = shard->base,
                                       .config = config->config,
                                       .journal = config->journal,
                                       .shard = config->index,
                                       .shape = shard->shape,
                                       .press = config->press,
                                       .ended = on_ended,
                                       .path_event = on_path_event,
                                       .dataplane = on_dataplane,
                                       .harvested = on_harvested,
                                       .context = shard};
    shard->dispatch = dispatch_create(&dispatch, error, error_bytes);
    if (shard->dispatch == NULL)
        goto failed;
    struct fetch_config fetch = {.base = shard->base,
                                 .redis = shard->redis,
                                 .config = config->config,
                                 .shard = config->index,
                                 .room = on_room,
                                 .job = on_job,
                                 .in_flight = on_in_flight,
                                 .context = shard};
    shard->fetch = fetch_create(&fetch);
    if (shard->fetch == NULL) {
        snprintf(error, error_bytes, "out of memory for fetching.");
        goto failed;
    }
    return shard;
failed:
    shard_destroy(shard);
    return NULL;
}

void shard_destroy(struct shard *shard) {
    shard->draining = true; /* lookups that end now change nothing any more */
    if (shard->route != NULL)
        route_destroy(shard->route);
    if (shard->fetch != NULL)
        fetch_destroy(shard->fetch);
    if (shard->dispatch != NULL)
        dispatch_destroy(shard->dispatch);
    if (shard->settle != NULL)
        settle_destroy(shard->settle);
    if (shard->shape != NULL)
        shape_destroy(shard->shape);
    if (shard->redis != NULL)
        redis_destroy(shard->redis);
    struct event *events[] = {shard->poll_timer, shard->drain_timer, shard->park_timer};
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
        if (events[i] != NULL)
            event_free(events[i]);
    if (shard->base != NULL)
        event_base_free(shard->base);
    free(shard);
}

int shard_run(struct shard *shard) {
    struct timeval at_once = {0};
    evtimer_add(shard->poll_timer, &at_once);
    dispatch_start(shard->dispatch);
    event_base_dispatch(shard->base);
    return shard->result;
}

void shard_reconfigure(struct shard *shard, const struct config *config, const struct classifier *classifier) {
    shard->config.config = config;
    shard->config.classifier = classifier;
    redis_reconfigure(shard->redis, config);
    fetch_reconfigure(shard->fetch, config);
    route_reconfigure(shard->route, config);
    shape_reconfigure(shard->shape, config);
    settle_reconfigure(shard->settle, config);
}

void shard_reopen_logs(struct shard *shard) {
    settle_reopen_log(shard->settle);
}
struct event_base *shard_base(struct shard *shard) {
    return shard->base;
}

/* One figure, in its group. */
struct figure {
    const char *group, *name;
    uint64_t value;
};

char *shard_stats(struct shard *shard) {
    const struct fetch_counters *fetch = fetch_counters(shard->fetch);
    const struct settle_counters *settle = settle_counters(shard->settle);
    const struct dispatch_counters *dispatch = dispatch_counters(shard->dispatch);
    static const char *const redis_states[] = {"down", "loading", "up"};
    const struct figure figures[] = {
        {"fetch", "entries", fetch->entries},
        {"fetch", "recipients", fetch->recipients},
        {"fetch", "dead", fetch->dead},
        {"fetch", "scheduled", fetch->scheduled},
        {"fetch", "promoted", fetch->promoted},
        {"held", "routing", shard->routing},
        {"held", "parked", shard->parked},
        {"held", "shaped", SHAPE_TOTAL_MAX - shape_room(shard->shape)},
        {"held", "in_progress", dispatch_in_progress(shard->dispatch)},
        {"dispatch", "orders", dispatch->orders},
        {"dispatch", "outcomes", dispatch->outcomes},
        {"dispatch", "returned", dispatch->returned},
        {"dispatch", "withdrawn", dispatch->withdrawn},
        {"dispatch", "render_errors", dispatch->render_errors},
        {"dispatch", "signatures", dispatch->signatures},
        {"dispatch", "unsigned_messages", dispatch->unsigned_messages},
        {"dispatch", "harvested_settled", dispatch->harvested_settled},
        {"dispatch", "harvested_lost", dispatch->harvested_lost},
        {"dispatch", "harvested_uncertain", dispatch->harvested_uncertain},
        {"dispatch", "harvested_returned", dispatch->harvested_returned},
        {"dispatch", "path_events", dispatch->path_events},
        {"dispatch", "paths_published", dispatch->paths_published},
        {"dispatch", "paths_exhausted", dispatch->paths_exhausted},
        {"dispatch", "slots_used", dispatch_slots_used(shard->dispatch)},
        {"dispatch", "slots_exhausted", dispatch->slots_exhausted},
        {"dispatch", "arena_exhausted", dispatch->arena_exhausted},
        {"dispatch", "wild_values", dispatch->wild_values},
        {"settle", "delivered", settle->delivered},
        {"settle", "deferred", settle->deferred},
        {"settle", "bounced", settle->bounced},
        {"settle", "expired", settle->expired},
        {"settle", "suppressed", settle->suppressed},
        {"settle", "cancelled", settle->cancelled},
        {"settle", "returned", settle->returned},
        {"settle", "uncertain", settle->uncertain},
        {"settle", "repeated", settle->repeated},
        {"settle", "commits", settle->commits},
        {"settle", "log_errors", settle->log_errors},
        {"settle", "outstanding", settle_outstanding(shard->settle)},
    };
    json_t *json = json_object();
    json_object_set_new(json, "uptime_seconds", json_integer((json_int_t)((now_us() - shard->started_us) / 1000000)));
    json_object_set_new(json, "redis", json_string(redis_states[redis_state(shard->redis)]));
    json_object_set_new(json, "dataplane", json_boolean(dispatch_dataplane_up(shard->dispatch)));
    json_object_set_new(json, "draining", json_boolean(shard->draining));
    for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++) {
        if (json_object_get(json, figures[i].group) == NULL)
            json_object_set_new(json, figures[i].group, json_object());
        json_object_set_new(json_object_get(json, figures[i].group), figures[i].name, json_integer((json_int_t)figures[i].value));
    }
    char *text = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    return text;
}
