/* hold.c: asks every shard five times a second whether anything changed, keeps what is stopped in tables, and takes the steps that end a
 * hold or the grace of a cancelled campaign. Every node takes them; the Functions make them once. */
#include "hold.h"
#include "rules.h"

#include "control/clock.h"
#include "control/observe/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SHARDS_MAX = 64,
    VERSION_BYTES = 24,
    STATE_BUCKETS = 1024,     /* a power of two */
    POLL_STEPS = 64,          /* holds, and campaigns, that end in one poll; the others in the next */
    END_MEMBERS = 200,        /* of a hold's records, a step */
    MOVE_MEMBERS = 500,       /* looked at, a step */
    LATE_MAX = 256,           /* holds that ended a moment ago */
    LATE_MS = 3000,           /* what a commit under way adds to a hold that has ended is let go then */
    CANCEL_GRACE_MS = 3600000 /* where the queue has no grace_ms of its own */
};

/* A queue that does not run. */
struct stopped {
    char queue[QUEUE_NAME_MAX + 1];
    enum queue_state state;
    uint64_t state_ms, grace_ms;
    bool moved; /* discarded, and its waiting records were made due */
    struct stopped *next;
};

struct states {
    uint32_t count;
    struct stopped *buckets[STATE_BUCKETS];
};

/* A discarded queue's waiting records on their way to now. */
struct move {
    uint32_t shard;
    char queue[QUEUE_NAME_MAX + 1], cursor[24];
    bool active, asked;
};

struct late {
    char id[HOLD_ID_BYTES];
    uint64_t at_ms;
};

struct hold_shard {
    struct hold *hold;
    uint32_t index;
    char prefix[REDIS_KEY_MAX], version[VERSION_BYTES];
    bool known, asked;
    struct states *states;
};

struct hold {
    struct hold_config config;
    struct hold_shard shards[SHARDS_MAX];
    struct hold_rules *rules;
    struct event *timer;
    struct move move;
    bool to_move; /* there may be another */
    struct late late[LATE_MAX];
    uint32_t late_count;
    uint32_t outstanding; /* commands whose callback will come */
    bool destroyed;
};

/* --- commands --- */

static bool hold_send(struct hold *hold, uint32_t shard, void (*done)(void *context, redisReply *reply), void *context, int argc,
                      const char *const *argv) {
    if (redis_send(hold->config.redis[shard], done, context, argc, argv, NULL) != 0)
        return false;
    hold->outstanding++;
    return true;
}

/* False when hold is gone: its memory goes with the last answer. */
static bool hold_answered(struct hold *hold) {
    hold->outstanding--;
    if (hold->destroyed && hold->outstanding == 0) {
        free(hold);
        return false;
    }
    return !hold->destroyed;
}

static void on_done(void *context, redisReply *reply) {
    if (hold_answered(context) && redis_error(reply) != NULL)
        log_write(LOG_LEVEL_ERROR, "hold", "Redis refused: %.200s", redis_error(reply));
}

/* --- states --- */

static uint32_t state_bucket(const char *queue) {
    uint32_t sum = 2166136261u;
    for (; *queue != '\0'; queue++)
        sum = (sum ^ (unsigned char)*queue) * 16777619u;
    return (sum ^ sum >> 16) & (STATE_BUCKETS - 1);
}

static void states_destroy(struct states *states) {
    for (uint32_t i = 0; states != NULL && i < STATE_BUCKETS; i++)
        while (states->buckets[i] != NULL) {
            struct stopped *next = states->buckets[i]->next;
            free(states->buckets[i]);
            states->buckets[i] = next;
        }
    free(states);
}

static struct stopped *states_find(const struct states *states, const char *queue) {
    if (states == NULL || states->count == 0)
        return NULL;
    for (struct stopped *stopped = states->buckets[state_bucket(queue)]; stopped != NULL; stopped = stopped->next)
        if (strcmp(stopped->queue, queue) == 0)
            return stopped;
    return NULL;
}

static enum queue_state state_of_text(const char *text) {
    static const char *const names[] = {"running", "paused", "cancelled", "discarded"};
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(names[i], text) == 0)
            return (enum queue_state)i;
    return QUEUE_PAUSED; /* of a later version: what it means is unknown, so nothing is sent */
}

static const char *text_at(const redisReply *reply, size_t index) {
    return reply->type == REDIS_REPLY_ARRAY && index < reply->elements && reply->element[index]->type == REDIS_REPLY_STRING
               ? reply->element[index]->str
               : "";
}

/* NULL without memory. */
static struct states *states_read(const redisReply *list) {
    struct states *states = calloc(1, sizeof(*states));
    for (size_t i = 0; states != NULL && i < list->elements; i++) {
        const redisReply *item = list->element[i];
        const char *queue = text_at(item, 0), *grace = text_at(item, 3);
        struct stopped *stopped = calloc(1, sizeof(*stopped));
        if (stopped == NULL) {
            states_destroy(states);
            return NULL;
        }
        *stopped = (struct stopped){.state = state_of_text(text_at(item, 1)),
                                    .state_ms = strtoull(text_at(item, 2), NULL, 10),
                                    .grace_ms = *grace != '\0' ? strtoull(grace, NULL, 10) : CANCEL_GRACE_MS,
                                    .moved = *text_at(item, 4) != '\0'};
        snprintf(stopped->queue, sizeof(stopped->queue), "%s", queue);
        struct stopped **bucket = &states->buckets[state_bucket(stopped->queue)];
        stopped->next = *bucket;
        *bucket = stopped;
        states->count++;
    }
    return states;
}

/* What is discarded and was not so before, or is seen for the first time and is not finished: its records that wait for a later time end
 * now. */
static void discarded_begin(struct hold *hold, const struct states *before, struct states *after) {
    for (uint32_t i = 0; i < STATE_BUCKETS; i++)
        for (struct stopped *stopped = after->buckets[i]; stopped != NULL; stopped = stopped->next) {
            const struct stopped *old = states_find(before, stopped->queue);
            stopped->moved |= old != NULL && old->state == QUEUE_DISCARDED && old->moved;
            hold->to_move |= stopped->state == QUEUE_DISCARDED && !stopped->moved;
        }
}

/* --- rules --- */

static struct hold_rules *rules_read(const redisReply *list) {
    struct hold_rules *rules = hold_rules_create();
    for (size_t i = 0; rules != NULL && i < list->elements; i++) {
        const redisReply *item = list->element[i];
        const char *id = text_at(item, 0), *json = text_at(item, 1);
        int code = hold_rules_add(rules, id, json, strlen(json));
        if (code != 0)
            log_write(LOG_LEVEL_ERROR, "hold", "hold %.32s is not obeyed: %s. Release it and set it again.", id,
                      code == -EINVAL ? "it makes no sense to this version" : "there is no room for it");
    }
    return rules;
}

static void late_add(void *context, const struct hold_rule *rule) {
    struct hold *hold = context;
    if (hold->late_count < LATE_MAX) {
        struct late *late = &hold->late[hold->late_count++];
        memcpy(late->id, rule->id, sizeof(late->id));
        late->at_ms = clock_ms(CLOCK_MONOTONIC) + LATE_MS;
    }
}

struct compared {
    struct hold *hold;
    const struct hold_rules *with;
};

static void late_compare(void *context, const struct hold_rule *rule) {
    const struct compared *compared = context;
    if (rule->action == HOLD_WAIT && hold_rules_named(compared->with, rule->id) == NULL)
        late_add(compared->hold, rule);
}

/* --- the poll --- */

static void end_step(struct hold *hold, uint32_t shard, const char *id) {
    char now[24], limit[16], key[REDIS_KEY_MAX + 8];
    snprintf(now, sizeof(now), "%" PRIu64, clock_ms(CLOCK_REALTIME));
    snprintf(limit, sizeof(limit), "%d", END_MEMBERS);
    snprintf(key, sizeof(key), "%sholds", hold->shards[shard].prefix);
    const char *argv[] = {"FCALL", "bypost_hold_end", "1", key, hold->shards[shard].prefix, id, now, limit};
    hold_send(hold, shard, on_done, hold, 8, argv);
}

static bool state_take(struct hold_shard *shard, const redisReply *reply) {
    struct hold *hold = shard->hold;
    struct states *states = states_read(reply->element[2]);
    struct hold_rules *rules = shard->index == 0 ? rules_read(reply->element[3]) : NULL;
    if (states == NULL || (shard->index == 0 && rules == NULL)) {
        states_destroy(states);
        hold_rules_destroy(rules);
        log_write(LOG_LEVEL_ERROR, "hold", "out of memory for what is stopped: asked again");
        return false;
    }
    discarded_begin(hold, shard->states, states);
    states_destroy(shard->states);
    shard->states = states;
    if (rules != NULL) {
        struct compared compared = {hold, rules};
        if (hold->rules != NULL)
            hold_rules_each(hold->rules, late_compare, &compared);
        hold_rules_destroy(hold->rules);
        hold->rules = rules;
    }
    snprintf(shard->version, sizeof(shard->version), "%s", text_at(reply, 0));
    shard->known = true;
    return true;
}

static void on_state(void *context, redisReply *reply) {
    struct hold_shard *shard = context;
    struct hold *hold = shard->hold;
    if (!hold_answered(hold))
        return;
    shard->asked = false;
    if (reply == NULL)
        return;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements < 2 || reply->element[1]->type != REDIS_REPLY_ARRAY) {
        log_write(LOG_LEVEL_ERROR, "hold", "what is stopped could not be read: %.200s",
                  redis_error(reply) != NULL ? redis_error(reply) : "an answer of unknown shape");
        return;
    }
    for (size_t i = 0; i < reply->element[1]->elements; i++)
        end_step(hold, shard->index, text_at(reply->element[1], i));
    if (reply->elements >= 4 && reply->element[2]->type == REDIS_REPLY_ARRAY && reply->element[3]->type == REDIS_REPLY_ARRAY &&
        state_take(shard, reply))
        hold->config.changed(hold->config.context);
}

static void ask(struct hold_shard *shard) {
    char key[REDIS_KEY_MAX + 8];
    if (shard->asked)
        return;
    snprintf(key, sizeof(key), "%sversion", shard->prefix);
    const char *argv[] = {"FCALL", "bypost_state", "1", key, shard->prefix, shard->version};
    shard->asked = hold_send(shard->hold, shard->index, on_state, shard, 6, argv);
}

struct expiry {
    struct hold *hold;
    uint64_t now_ms;
    uint32_t steps; /* taken in this poll */
};

static void expire(void *context, const struct hold_rule *rule) {
    struct expiry *expiry = context;
    if (rule->until_ms == 0 || rule->until_ms > expiry->now_ms || expiry->steps++ >= POLL_STEPS)
        return;
    for (uint32_t i = 0; i < expiry->hold->config.shard_count; i++)
        end_step(expiry->hold, i, rule->id);
}

static void discard_step(struct hold_shard *shard, uint64_t now_ms) {
    char key[REDIS_KEY_MAX + QUEUE_NAME_MAX + 8], since[24];
    uint32_t steps = 0;
    for (uint32_t i = 0; shard->states != NULL && shard->states->count > 0 && i < STATE_BUCKETS; i++)
        for (const struct stopped *stopped = shard->states->buckets[i]; stopped != NULL; stopped = stopped->next) {
            if (stopped->state != QUEUE_CANCELLED || now_ms < stopped->state_ms + stopped->grace_ms || steps++ >= POLL_STEPS)
                continue;
            snprintf(key, sizeof(key), "%squeue:%s", shard->prefix, stopped->queue);
            snprintf(since, sizeof(since), "%" PRIu64, stopped->state_ms);
            const char *argv[] = {"FCALL", "bypost_discard", "1", key, shard->prefix, stopped->queue, since};
            hold_send(shard->hold, shard->index, on_done, shard->hold, 7, argv);
        }
}

static void on_moved(void *context, redisReply *reply) {
    struct hold *hold = context;
    if (!hold_answered(hold))
        return;
    struct move *move = &hold->move;
    move->asked = false;
    if (reply == NULL)
        return; /* asked again when Redis is back */
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements >= 1 && strcmp(text_at(reply, 0), "0") != 0) {
        snprintf(move->cursor, sizeof(move->cursor), "%s", text_at(reply, 0));
        return;
    }
    if (redis_error(reply) != NULL)
        log_write(LOG_LEVEL_ERROR, "hold", "what waits of %s, which is cancelled, ends only when it is due: %.200s", move->queue,
                  redis_error(reply));
    struct stopped *stopped = states_find(hold->shards[move->shard].states, move->queue);
    if (stopped != NULL)
        stopped->moved = true;
    move->active = false;
}

/* The next queue whose records are to be made due. False: there is none. */
static bool move_begin(struct hold *hold) {
    for (uint32_t i = 0; i < hold->config.shard_count; i++)
        for (uint32_t j = 0; hold->shards[i].states != NULL && j < STATE_BUCKETS; j++)
            for (const struct stopped *stopped = hold->shards[i].states->buckets[j]; stopped != NULL; stopped = stopped->next)
                if (stopped->state == QUEUE_DISCARDED && !stopped->moved) {
                    hold->move = (struct move){.shard = i, .cursor = "0", .active = true};
                    memcpy(hold->move.queue, stopped->queue, sizeof(hold->move.queue));
                    return true;
                }
    return false;
}

/* One queue at a time, a step at a time. */
static void move_step(struct hold *hold) {
    struct move *move = &hold->move;
    char key[REDIS_KEY_MAX + 8], now[24], members[16];
    if (move->asked || (!move->active && !hold->to_move))
        return;
    if (!move->active && !(hold->to_move = move_begin(hold)))
        return;
    const char *prefix = hold->shards[move->shard].prefix;
    snprintf(key, sizeof(key), "%sdue", prefix);
    snprintf(now, sizeof(now), "%" PRIu64, clock_ms(CLOCK_REALTIME));
    snprintf(members, sizeof(members), "%d", MOVE_MEMBERS);
    const char *argv[] = {"FCALL", "bypost_move", "1", key, prefix, move->cursor, now, members, "all", move->queue, "whole"};
    move->asked = hold_send(hold, move->shard, on_moved, hold, 11, argv);
}

static void late_step(struct hold *hold) {
    uint64_t now = clock_ms(CLOCK_MONOTONIC);
    while (hold->late_count > 0 && hold->late[0].at_ms <= now) {
        if (hold_rules_named(hold->rules, hold->late[0].id) == NULL)
            for (uint32_t i = 0; i < hold->config.shard_count; i++)
                end_step(hold, i, hold->late[0].id);
        memmove(&hold->late[0], &hold->late[1], --hold->late_count * sizeof(hold->late[0]));
    }
}

static void on_poll(evutil_socket_t descriptor, short what, void *context) {
    struct hold *hold = context;
    struct expiry expiry = {.hold = hold, .now_ms = clock_ms(CLOCK_REALTIME)};
    for (uint32_t i = 0; i < hold->config.shard_count; i++)
        ask(&hold->shards[i]);
    if (!hold_known(hold))
        return;
    hold_rules_each(hold->rules, expire, &expiry);
    for (uint32_t i = 0; i < hold->config.shard_count; i++)
        discard_step(&hold->shards[i], expiry.now_ms);
    move_step(hold);
    late_step(hold);
}

/* --- life --- */

struct hold *hold_create(const struct hold_config *config) {
    struct hold *hold = config->shard_count <= SHARDS_MAX ? calloc(1, sizeof(*hold)) : NULL;
    if (hold == NULL)
        return NULL;
    hold->config = *config;
    hold->timer = event_new(config->base, -1, EV_PERSIST, on_poll, hold);
    bool ok = hold->timer != NULL;
    for (uint32_t i = 0; i < config->shard_count; i++) {
        struct hold_shard *shard = &hold->shards[i];
        shard->hold = hold;
        shard->index = i;
        redis_shard_prefix(config->config, i, shard->prefix);
    }
    struct timeval often = {.tv_usec = HOLD_POLL_MS * 1000};
    if (!ok || event_add(hold->timer, &often) != 0) {
        hold_destroy(hold);
        return NULL;
    }
    return hold;
}

void hold_destroy(struct hold *hold) {
    if (hold == NULL)
        return;
    if (hold->timer != NULL)
        event_free(hold->timer);
    for (uint32_t i = 0; i < hold->config.shard_count; i++)
        states_destroy(hold->shards[i].states);
    hold_rules_destroy(hold->rules);
    hold->destroyed = true;
    hold->outstanding++;
    hold_answered(hold);
}

/* --- questions --- */

uint64_t hold_version(const struct hold *hold, uint32_t shard) {
    return strtoull(hold->shards[shard].version, NULL, 10);
}

bool hold_known(const struct hold *hold) {
    for (uint32_t i = 0; i < hold->config.shard_count; i++)
        if (!hold->shards[i].known)
            return false;
    return hold->rules != NULL;
}

const struct hold_rule *hold_match(const struct hold *hold, const struct delivery *delivery, uint64_t now_ms) {
    return hold->rules != NULL ? hold_rules_match(hold->rules, delivery, now_ms) : NULL;
}

enum queue_state hold_queue_state(const struct hold *hold, uint32_t shard, const char *queue) {
    const struct stopped *stopped = shard < hold->config.shard_count ? states_find(hold->shards[shard].states, queue) : NULL;
    return stopped != NULL ? stopped->state : QUEUE_RUNNING;
}

bool hold_anything(const struct hold *hold) {
    bool any = hold->rules != NULL && hold_rules_count(hold->rules) > 0;
    for (uint32_t i = 0; i < hold->config.shard_count; i++)
        any |= hold->shards[i].states != NULL && hold->shards[i].states->count > 0;
    return any;
}

void hold_set(struct hold *hold, const struct hold_rule *rule) {
    char *json = hold_rule_write(rule);
    char key[REDIS_KEY_MAX + 8];
    for (uint32_t i = 0; json != NULL && i < hold->config.shard_count; i++) {
        const char *prefix = hold->shards[i].prefix;
        snprintf(key, sizeof(key), "%sholds", prefix);
        const char *argv[] = {"FCALL", "bypost_hold_set", "1", key, prefix, rule->id, json};
        if (!hold_send(hold, i, on_done, hold, 7, argv))
            log_write(LOG_LEVEL_ERROR, "hold", "hold %s could not be set: Redis is away", rule->id);
    }
    free(json);
}
