/* shard.c: the wiring. Each stage hears of the next only here. */
#include "state.h"

#include "control/tls_level.h"
#include "control/notice/notice.h"
#include "control/observe/log.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DRAIN_CHECK_MS = 20 };

uint32_t shard_settle_outstanding(const struct shard *shard) {
    uint32_t outstanding = 0;
    for (uint32_t i = 0; i < shard->queue_count; i++)
        outstanding += settle_outstanding(shard->queues[i].settle);
    return outstanding;
}

uint64_t shard_fetch_bytes(const struct shard *shard) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < shard->queue_count; i++)
        bytes += fetch_bytes(shard->queues[i].fetch);
    return bytes;
}

/* -- dispatch -- */

static void on_path_event(void *context, const struct path_event *event, const struct site *site) {
    struct shard *shard = context;
    const struct path *record = &shard->config.journal->paths[event->path];
    if (event->kind == PATH_EVENT_TLS_FAILED && event->source < PATH_SOURCES_MAX) {
        const struct path_source *source = &record->sources[event->source];
        struct config_address address = {.family = source->family};
        memcpy(address.bytes, source->address, sizeof(address.bytes));
        report_failed(shard->report, site, event, &address);
    }
    if (event->kind == PATH_EVENT_AUTH_FAILED)
        guard_relay_refused(shard->guard, site->name, event->code, event->text);
    if (event->kind == PATH_EVENT_TLS_FAILED && site->relay != NULL && event->endpoint < site->endpoint_count &&
        tls_failure_stops(tls_level_of(site, event->endpoint), event->detail))
        guard_relay_insecure(shard->guard, site->name, site->endpoints[event->endpoint].name, tls_failure_text(event->detail));
    if (event->kind == PATH_EVENT_READY)
        guard_relay_ready(shard->guard, site->name);
    else
        log_write(LOG_LEVEL_DEBUG, "dispatch", "%s: %s at %s (%u %s)", site->name, path_event_text(event->kind),
                  smtp_stage_text(event->stage), event->code, event->text);
}

static void on_secured(void *context, const struct site *site, uint64_t sessions) {
    struct shard *shard = context;
    report_secured(shard->report, site, sessions);
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
    membership_begin(shard);
}

/* -- shape -- */

static void on_lane_changed(void *context, struct lane *lane) {
    struct shard *shard = context;
    census_add(&shard->figures->census, lane);
    if (shard->dispatch != NULL)
        dispatch_lane_changed(shard->dispatch, lane);
}

static void on_lane_gone(void *context, struct lane *lane) {
    struct shard *shard = context;
    census_remove(&shard->figures->census, lane);
    dispatch_lane_gone(shard->dispatch, lane);
}

static void on_poll(evutil_socket_t descriptor, short what, void *argument) {
    struct shard *shard = argument;
    uint64_t now = now_us();
    uint64_t wake_us = shape_poll(shard->shape, now);
    uint64_t wait_us = wake_us > now ? wake_us - now : 1000;
    wait_us = wait_us < 1000 ? 1000 : wait_us > 100000 ? 100000 : wait_us;
    struct timeval wait = {.tv_usec = (suseconds_t)wait_us};
    evtimer_add(shard->poll_timer, &wait);
    dispatch_hold(shard->dispatch, !nodes_may_send(shard->nodes));
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
    uint32_t settling = shard_settle_outstanding(shard);
    if (in_progress == 0)
        for (uint32_t i = 0; i < shard->queue_count; i++)
            settle_flush(shard->queues[i].settle);
    bool done = in_progress == 0 && settling == 0 && shard->routing == 0;
    if (done)
        report_flush(shard->report); /* Redis has it when it has answered nodes_leave */
    if (done && nodes_leave(shard->nodes)) {
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
    for (uint32_t i = 0; i < shard->queue_count; i++)
        fetch_stop(shard->queues[i].fetch);
    dispatch_drain(shard->dispatch);
    intake_release(shard);
    struct timeval wait = {0};
    evtimer_add(shard->drain_timer, &wait);
}

static void complete_job(void *context, struct job *job, void (*done)(void *context, struct job *job, const char *error, bool temporary),
                         void *done_context) {
    struct shard *shard = context;
    contents_complete(shard->contents, job, done, done_context);
}

static char *write_notice(void *context, const struct settle_item *item, enum event_type event, uint64_t next_attempt_ms, size_t *length) {
    const struct shard *shard = context;
    uint16_t attempt = (uint16_t)(item->cookie.attempt + !item->classification.unattempted);
    return notice_write(shard->config.config, shard->config.identity, item->job, item->cookie.index, event, &item->outcome, attempt,
                        next_attempt_ms, clock_ms(CLOCK_REALTIME), length);
}

/* One shard of the queue: a connection, what reads it and what settles into it. */
static bool queue_create(struct shard *shard, uint32_t index, char *error, size_t error_bytes) {
    const struct shard_config *config = &shard->config;
    struct shard_queue *queue = &shard->queues[index];
    queue->redis = redis_create(shard->base, config->config, error, error_bytes);
    if (queue->redis == NULL)
        return false;
    struct settle_config settle = {.base = shard->base,
                                   .redis = queue->redis,
                                   .config = config->config,
                                   .shard = index,
                                   .log = shard->log,
                                   .committed = ending_committed,
                                   .epoch = membership_epoch,
                                   .fenced = membership_refused,
                                   .complete = complete_job,
                                   .notice = write_notice,
                                   .context = shard};
    queue->settle = settle_create(&settle, error, error_bytes);
    if (queue->settle == NULL)
        return false;
    struct fetch_config fetch = {.base = shard->base,
                                 .redis = queue->redis,
                                 .config = config->config,
                                 .shard = index,
                                 .room = intake_room,
                                 .job = checking_job,
                                 .in_flight = intake_in_flight,
                                 .reads = stopped_reads,
                                 .high_reserve = HIGH_RESERVE / shard->queue_count,
                                 .complete = complete_job,
                                 .epoch = membership_epoch,
                                 .context = shard};
    queue->fetch = fetch_create(&fetch);
    if (queue->fetch == NULL) {
        snprintf(error, error_bytes, "out of memory for fetching.");
        return false;
    }
    if (limits_listen(shard, index) != 0) {
        snprintf(error, error_bytes, "too many listen to the connection to Redis.");
        return false;
    }
    return true;
}

static bool hold_start(struct shard *shard) {
    for (uint32_t i = 0; i < shard->queue_count; i++)
        shard->connections[i] = shard->queues[i].redis;
    struct hold_config hold = {.base = shard->base,
                               .config = shard->config.config,
                               .shard_count = shard->queue_count,
                               .redis = shard->connections,
                               .changed = stopped_changed,
                               .context = shard};
    shard->hold = hold_create(&hold);
    return shard->hold != NULL;
}

struct shard *shard_create(const struct shard_config *config, char *error, size_t error_bytes) {
    struct shard *shard = calloc(1, sizeof(*shard));
    if (shard == NULL) {
        snprintf(error, error_bytes, "out of memory.");
        return NULL;
    }
    shard->config = *config;
    shard->started_us = now_us();
    shard->queue_count = config->config->redis.shards;
    shard->base = event_base_new();
    if (shard->base != NULL) {
        shard->poll_timer = evtimer_new(shard->base, on_poll, shard);
        shard->drain_timer = evtimer_new(shard->base, on_drain_timer, shard);
        shard->park_timer = evtimer_new(shard->base, intake_retry, shard);
        shard->withdraw_timer = evtimer_new(shard->base, stopped_withdraw, shard);
        shard->check_timer = evtimer_new(shard->base, checking_withdraw, shard);
    }
    if (shard->withdraw_timer == NULL || shard->check_timer == NULL || shard->base == NULL || shard->poll_timer == NULL ||
        shard->drain_timer == NULL || shard->park_timer == NULL) {
        snprintf(error, error_bytes, "the event loop cannot be made: %s.", strerror(errno));
        goto failed;
    }
    shard->figures = figures_create(shard);
    if (shard->figures == NULL) {
        snprintf(error, error_bytes, "out of memory for counters.");
        goto failed;
    }
    const char *log_path = config->config->logs.delivery_path;
    if (log_path != NULL)
        shard->log = delivery_log_create(log_path, config->config->logs.rotate_bytes, config->config->logs.rotate_keep);
    if (log_path != NULL && shard->log == NULL) {
        snprintf(error, error_bytes, "out of memory for the delivery log.");
        goto failed;
    }
    shard->route = route_create(shard->base, config->config, error, error_bytes);
    if (shard->route == NULL)
        goto failed;
    struct shape_config shape = {.config = config->config,
                                 .workers = config->journal->geometry.workers,
                                 .lane_changed = on_lane_changed,
                                 .lane_gone = on_lane_gone,
                                 .expired = ending_expired,
                                 .deferred = ending_deferred,
                                 .share_wanted = membership_share_wanted,
                                 .context = shard};
    shard->shape = shape_create(&shape, now_us());
    if (shard->shape == NULL) {
        snprintf(error, error_bytes, "out of memory for shaping.");
        goto failed;
    }
    struct dispatch_config dispatch = {.base = shard->base,
                                       .config = config->config,
                                       .journal = config->journal,
                                       .shape = shard->shape,
                                       .press = config->press,
                                       .ended = ending_attempt,
                                       .stopped = stopped_order,
                                       .path_event = on_path_event,
                                       .secured = on_secured,
                                       .dataplane = on_dataplane,
                                       .harvested = on_harvested,
                                       .context = shard};
    shard->dispatch = dispatch_create(&dispatch, error, error_bytes);
    if (shard->dispatch == NULL)
        goto failed;
    for (uint32_t i = 0; i < shard->queue_count; i++)
        if (!queue_create(shard, i, error, error_bytes))
            goto failed;
    struct report_config report = {
        .base = shard->base, .config = config->config, .redis = shard->queues[0].redis, .https = route_https(shard->route)};
    shard->report = report_create(&report);
    if (shard->report == NULL) {
        snprintf(error, error_bytes, "out of memory for TLS reports.");
        goto failed;
    }
    struct route_reports reports = report_for_route(shard->report);
    route_set_reports(shard->route, &reports);
    route_set_alarms(shard->route, config->alarms);
    route_keep_policies(shard->route);
    shard->parking = parking_create(shard);
    if (shard->parking == NULL) {
        snprintf(error, error_bytes, "out of memory for parking.");
        goto failed;
    }
    if (!membership_create(shard)) {
        snprintf(error, error_bytes, "out of memory for nodes.");
        goto failed;
    }
    if (!hold_start(shard)) {
        snprintf(error, error_bytes, "out of memory for holds.");
        goto failed;
    }
    struct contents_config contents = {.base = shard->base,
                                       .config = config->config,
                                       .redis = shard->connections,
                                       .shards = shard->queue_count,
                                       .identity = config->identity};
    shard->contents = contents_create(&contents);
    if (shard->contents == NULL) {
        snprintf(error, error_bytes, "out of memory for contents.");
        goto failed;
    }
    struct suppress_config suppress = {
        .base = shard->base, .config = config->config, .redis = shard->queues[0].redis, .added = checking_added, .context = shard};
    shard->suppress = suppress_create(&suppress);
    if (shard->suppress == NULL) {
        snprintf(error, error_bytes, "out of memory for suppression.");
        goto failed;
    }
    struct guard_config guard = {.config = config->config, .suppress = shard->suppress, .hold = shard->hold, .alarms = config->alarms};
    shard->guard = guard_create(&guard);
    if (shard->guard == NULL) {
        snprintf(error, error_bytes, "out of memory for the guard.");
        goto failed;
    }
    return shard;
failed:
    shard_destroy(shard);
    return NULL;
}

void shard_destroy(struct shard *shard) {
    shard->draining = true; /* lookups that end now change nothing any more */
    if (shard->figures != NULL)
        figures_stop(shard->figures);
    if (shard->route != NULL)
        route_destroy(shard->route);
    membership_destroy(shard);
    parking_destroy(shard->parking);
    contents_destroy(shard->contents); /* hands jobs back to fetch */
    for (uint32_t i = 0; i < shard->queue_count; i++)
        if (shard->queues[i].fetch != NULL)
            fetch_destroy(shard->queues[i].fetch);
    if (shard->dispatch != NULL)
        dispatch_destroy(shard->dispatch);
    guard_destroy(shard->guard);
    suppress_destroy(shard->suppress);
    hold_destroy(shard->hold);
    for (uint32_t i = 0; i < shard->queue_count; i++)
        if (shard->queues[i].settle != NULL)
            settle_destroy(shard->queues[i].settle);
    if (shard->shape != NULL)
        shape_destroy(shard->shape);
    report_destroy(shard->report); /* no site is left that counts there */
    for (uint32_t i = 0; i < shard->queue_count; i++)
        if (shard->queues[i].redis != NULL)
            redis_destroy(shard->queues[i].redis);
    if (shard->figures != NULL)
        figures_free(shard->figures);
    if (shard->log != NULL)
        delivery_log_destroy(shard->log);
    struct event *events[] = {shard->poll_timer, shard->drain_timer, shard->park_timer, shard->withdraw_timer, shard->check_timer};
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
    nodes_start(shard->nodes);
    event_base_dispatch(shard->base);
    return shard->result;
}

void shard_reconfigure(struct shard *shard, const struct config *config, const struct classifier *classifier) {
    shard->config.config = config;
    shard->config.classifier = classifier;
    for (uint32_t i = 0; i < shard->queue_count; i++) {
        redis_reconfigure(shard->queues[i].redis, config);
        fetch_reconfigure(shard->queues[i].fetch, config);
        settle_reconfigure(shard->queues[i].settle, config);
    }
    limits_write(shard);
    contents_reconfigure(shard->contents, config);
    route_reconfigure(shard->route, config);
    report_reconfigure(shard->report, config);
    shape_reconfigure(shard->shape, config);
    guard_reconfigure(shard->guard, config);
}

void shard_tokens_changed(struct shard *shard) {
    shape_reconfigure(shard->shape, shard->config.config);
}

void shard_reopen_logs(struct shard *shard) {
    if (shard->log != NULL)
        delivery_log_reopen(shard->log);
}
struct event_base *shard_base(struct shard *shard) {
    return shard->base;
}
