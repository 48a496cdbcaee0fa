/* harness.c: see harness.h. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void on_changed(void *context, struct lane *lane) {
    struct harness *harness = context;
    harness->changed++;
}

static void on_gone(void *context, struct lane *lane) {
    struct harness *harness = context;
    harness->gone++;
    harness->last_gone = lane;
}

static void on_expired(void *context, struct delivery *delivery) {
    struct harness *harness = context;
    harness->expired++;
    delivery_free(harness, delivery);
}

static void on_deferred(void *context, struct delivery *delivery, uint64_t until_us) {
    struct harness *harness = context;
    harness->deferred++;
    harness->deferred_until_us = until_us;
    harness->deferred_sum_us += until_us;
    delivery_free(harness, delivery);
}

static uint64_t real_ms(void *context) {
    const struct harness *harness = context;
    return harness->real_ms + harness->now_us / 1000;
}

void harness_start(struct harness *harness, uint32_t workers) {
    memset(harness, 0, sizeof *harness);
    harness->now_us = 1000 * (uint64_t)SECOND;
    harness->real_ms = 1700000000000u;
    struct config *config = &harness->config;
    config->defaults = (struct shaping_limits){.connection_limit = 10, .max_connection_rate = 100.0 / 60, .max_message_rate = 100};
    for (uint8_t i = 0; i < 4; i++) {
        harness->sources[i].address = (struct config_address){.family = 4, .bytes = {192, 0, 2, (uint8_t)(i + 1)}};
        harness->sources[i].ehlo = (char *)(uintptr_t) "mail.example.org";
    }
    harness->pools[0] = (struct config_pool){.name = (char *)(uintptr_t) "default", .source_count = 2, .sources = harness->sources};
    harness->pools[1] = (struct config_pool){.name = (char *)(uintptr_t) "other", .source_count = 1, .sources = harness->sources + 3};
    config->pools = harness->pools;
    config->pool_count = 2;
    config->default_pool = harness->pools[0].name;
    harness->providers[0].name = (char *)(uintptr_t) "bigmail";
    harness->providers[0].limits = config->defaults;
    config->providers = harness->providers;
    config->provider_count = 1;
    struct shape_config hooks = {.config = config,
                                 .workers = workers,
                                 .lane_changed = on_changed,
                                 .lane_gone = on_gone,
                                 .expired = on_expired,
                                 .deferred = on_deferred,
                                 .real_ms = real_ms,
                                 .context = harness};
    harness->shape = shape_create(&hooks, harness->now_us);
    assert_non_null(harness->shape);
    snprintf(harness->job.queue, sizeof harness->job.queue, "normal");
}

static void on_drained(void *context, struct delivery *delivery) {
    delivery_free(context, delivery);
}

void harness_stop(struct harness *harness) {
    shape_drain(harness->shape, on_drained, harness);
    assert_int_equal(shape_room(harness->shape), SHAPE_TOTAL_MAX);
    shape_destroy(harness->shape);
    assert_int_equal(harness->made, harness->freed);
}

struct site *site_make(struct harness *harness, const char *name, uint32_t endpoints) {
    static uint16_t next = 1;
    struct site *site = calloc(1, sizeof *site);
    snprintf(site->name, sizeof site->name, "%s", name);
    site->references = 1;
    site->limits = &harness->config.defaults;
    site->endpoint_count = endpoints;
    site->generation = 1;
    for (uint32_t i = 0; i < endpoints; i++, next++)
        site->endpoints[i].address =
            (struct config_address){.family = 4, .port = 25, .bytes = {10, 0, (uint8_t)(next >> 8), (uint8_t)next}};
    return site;
}

void site_unmake(struct site *site) {
    assert_null(site->shape);
    assert_int_equal(site->references, 1);
    free(site);
}

struct delivery *delivery_make(struct harness *harness, struct site *site, struct job *job) {
    struct delivery *delivery = calloc(1, sizeof *delivery);
    delivery->job = job ? job : &harness->job;
    delivery->site = site;
    delivery->high = delivery->job->high;
    delivery->index = harness->made++;
    return delivery;
}

void delivery_free(struct harness *harness, struct delivery *delivery) {
    harness->freed++;
    free(delivery);
}

void harness_fill(struct harness *harness, struct site *site, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(shape_enqueue(harness->shape, delivery_make(harness, site, NULL), harness->now_us), 0);
}

struct search {
    const struct site *site;
    struct lane *lane;
};

static void match_lane(void *context, struct lane *lane) {
    struct search *search = context;
    if (lane->site == search->site)
        search->lane = lane;
}

struct lane *harness_lane(struct harness *harness, const struct site *site) {
    struct search search = {.site = site};
    shape_lanes(harness->shape, match_lane, &search);
    return search.lane;
}

void harness_advance(struct harness *harness, uint64_t us) {
    uint64_t end_us = harness->now_us + us;
    for (uint32_t calls = 0;; calls++) {
        assert_true(calls < 1000000);
        uint64_t next_us = shape_poll(harness->shape, harness->now_us);
        if (next_us > end_us)
            break;
        harness->now_us = next_us > harness->now_us ? next_us : harness->now_us + 1;
    }
    harness->now_us = end_us;
    shape_poll(harness->shape, end_us);
}

uint32_t lane_allowed(const struct lane *lane) {
    uint32_t sum = 0;
    for (uint32_t i = 0; i < SHAPE_WORKERS_MAX; i++)
        sum += lane->sessions_allowed[i];
    assert_int_equal(sum, lane->sessions);
    return sum;
}

void harness_end(struct harness *harness, struct lane *lane, struct delivery *delivery, enum reply_class class, uint32_t source) {
    struct outcome outcome = {.kind = OUTCOME_REPLIED, .code = class == CLASS_NONE ? 250 : 451};
    struct classification classification = {.class = class, .verdict = class == CLASS_NONE ? VERDICT_DELIVERED : VERDICT_DEFERRED};
    shape_ended(harness->shape, lane, &outcome, &classification, source, harness->now_us);
    delivery_free(harness, delivery);
}

bool harness_send(struct harness *harness, struct lane *lane) {
    uint64_t wake_us;
    struct delivery *delivery = shape_take(harness->shape, lane, harness->now_us, &wake_us);
    if (!delivery)
        return false;
    harness_end(harness, lane, delivery, CLASS_NONE, 0);
    return true;
}

void harness_event(struct harness *harness, struct lane *lane, enum path_event_kind kind, uint8_t endpoint, uint16_t code) {
    struct path_event event = {.kind = (uint8_t)kind, .endpoint = endpoint, .code = code};
    shape_path_event(harness->shape, lane, &event, harness->now_us);
}
