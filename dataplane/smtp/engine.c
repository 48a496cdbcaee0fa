/* engine.c: one worker's SMTP: makes the pools, hands hints and deadlines to whom they concern. */
#include "engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCKED_RETRY_US = 1000, /* a pool of the stack was empty */
    COMMANDS_MIN = 1024,     /* enough for the longest chain in one group */
};

static int make_pools(struct smtp_engine *engine) {
    const struct smtp_config *config = &engine->config;
    uint32_t commands = config->max_sessions < COMMANDS_MIN ? COMMANDS_MIN : config->max_sessions;
    int error = pool_create(&engine->sessions, sizeof(struct smtp_session), config->max_sessions);
    if (!error)
        error = pool_create(&engine->replies, sizeof(struct reply), config->max_sessions);
    if (!error)
        error = pool_create(&engine->orders, sizeof(struct order), config->max_orders);
    if (!error)
        error = pool_create(&engine->commands, sizeof(struct command), commands);
    if (!error)
        error = pool_create(&engine->lanes_pool, sizeof(struct lane), config->journal->geometry.paths);
    if (!error)
        engine->lanes = (struct lane *)engine->lanes_pool.base;
    return error;
}

struct smtp_engine *smtp_engine_create(const struct smtp_config *config, struct tcp_events *events) {
    if (!config->journal || !config->ring_doorbell || !config->max_sessions || !config->max_orders ||
        config->worker >= config->journal->geometry.workers || !config->journal->geometry.paths) {
        errno = EINVAL;
        return NULL;
    }
    struct smtp_engine *engine = calloc(1, sizeof(*engine));
    if (!engine)
        return NULL;
    engine->config = *config;
    engine->counters = journal_counters(config->journal, config->worker);
    TAILQ_INIT(&engine->active);
    TAILQ_INIT(&engine->work);
    LIST_INIT(&engine->loaded);
    int error = make_pools(engine);
    if (error) {
        smtp_engine_destroy(engine);
        errno = -error;
        return NULL;
    }
    stream_tcp_events(events);
    return engine;
}

void smtp_engine_attach(struct smtp_engine *engine, struct tcp_stack *stack) {
    engine->stack = stack;
}

void smtp_engine_destroy(struct smtp_engine *engine) {
    if (!engine)
        return;
    pool_destroy(&engine->sessions);
    pool_destroy(&engine->replies);
    pool_destroy(&engine->orders);
    pool_destroy(&engine->commands);
    pool_destroy(&engine->lanes_pool);
    free(engine);
}

size_t smtp_engine_memory_bytes(const struct smtp_engine *engine) {
    const struct pool *pools[] = {&engine->sessions, &engine->replies, &engine->orders, &engine->commands, &engine->lanes_pool};
    size_t bytes = sizeof(*engine);
    for (size_t i = 0; i < sizeof(pools) / sizeof(pools[0]); i++)
        bytes += pools[i]->item_bytes * pools[i]->count;
    return bytes;
}

void engine_push(struct smtp_engine *engine, uint32_t shard, uint64_t entry) {
    const struct journal *journal = engine->config.journal;
    if (!ring_push(journal, journal_outcome_ring(journal, engine->config.worker, shard), entry))
        counter_add(&engine->counters->wild_values, 1); /* it holds every slot: only a broken consumer can fill it */
    engine->config.ring_doorbell(engine->config.context, shard);
}

void smtp_engine_hint(struct smtp_engine *engine, uint64_t entry, uint64_t now_us) {
    if (!engine->clock_known) {
        deadlines_init(&engine->deadlines, now_us);
        engine->clock_known = true;
    }
    switch (ring_entry_kind(entry)) {
    case RING_ORDER:
        order_hint(engine, ring_entry_index(entry), ring_entry_generation(entry), now_us);
        break;
    case RING_PATH:
        lane_look(engine, ring_entry_index(entry), now_us);
        break;
    default:
        counter_add(&engine->counters->wild_values, 1);
    }
}

uint64_t smtp_engine_poll(struct smtp_engine *engine, uint32_t budget, uint64_t now_us) {
    if (!engine->clock_known) {
        deadlines_init(&engine->deadlines, now_us);
        engine->clock_known = true;
    }
    struct deadline *due;
    uint32_t steps = 0;
    while (steps < budget && (due = deadlines_due(&engine->deadlines, now_us))) {
        if (due->kind == DEADLINE_OF_SESSION)
            session_due((struct smtp_session *)((char *)due - offsetof(struct smtp_session, deadline)), now_us);
        else
            lane_wake((struct lane *)((char *)due - offsetof(struct lane, deadline)));
        steps++;
    }
    for (uint32_t lanes = engine->active_count; lanes > 0 && steps < budget; lanes--) {
        struct lane *lane = TAILQ_FIRST(&engine->active);
        TAILQ_REMOVE(&engine->active, lane, activity);
        engine->active_count--;
        lane->active = false;
        steps += lane_serve(lane, now_us);
    }
    engine->refusals = 0;
    for (uint32_t sessions = engine->work_count; sessions > 0; sessions--) {
        struct smtp_session *session = TAILQ_FIRST(&engine->work);
        TAILQ_REMOVE(&engine->work, session, work);
        engine->work_count--;
        session_work(session, now_us);
    }
    if (engine->active_count)
        return now_us;
    uint64_t next_us = deadlines_next(&engine->deadlines);
    if (engine->work_count && next_us > now_us + BLOCKED_RETRY_US)
        next_us = now_us + BLOCKED_RETRY_US;
    return next_us < now_us ? now_us : next_us;
}

void smtp_engine_drain(struct smtp_engine *engine, uint64_t now_us) {
    struct lane *lane;
    engine->draining = true;
    LIST_FOREACH (lane, &engine->loaded, loaded) {
        lane_wake(lane);
    }
}

bool smtp_engine_idle(const struct smtp_engine *engine) {
    return engine->sessions.used == 0 && engine->orders.used == 0;
}
