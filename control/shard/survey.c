/* survey.c: asks Redis, in the background, how much lies there: a few cheap commands every five seconds, and a PING a second for its
 * latency. */
#include "state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum question {
    ASK_PING,
    ASK_MEMORY,
    ASK_STATS,
    ASK_DEAD,
    ASK_EVENTS,
    ASK_DUE,
    ASK_PARKED,
    ASK_CAMPAIGNS,
    ASK_NAMES,
    ASK_QUEUE,
    ASK_FRESH,
    ASK_RETRY
};

struct ask {
    struct figures *figures;
    uint64_t asked_us;
    enum question question;
    uint32_t shard, row;
};

static const char *const standard[SURVEY_STANDARD] = {"high", "normal", "bulk"};
static const char *const fields[SURVEY_FIELDS] = {"submitted", "delivered", "bounced",  "expired", "suppressed",
                                                  "cancelled", "dead",      "retrying", "parked",  "held"};

static uint64_t number_of(const redisReply *reply) {
    if (reply->type == REDIS_REPLY_INTEGER)
        return reply->integer > 0 ? (uint64_t)reply->integer : 0;
    return reply->type == REDIS_REPLY_STRING && reply->str[0] != '-' ? strtoull(reply->str, NULL, 10) : 0;
}

static uint64_t info_number(const char *info, const char *key) {
    const char *at = strstr(info, key);
    return at != NULL ? strtoull(at + strlen(key), NULL, 10) : 0;
}

static void queue_read(struct survey_queue *queue, const redisReply *reply) {
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != SURVEY_FIELDS + 1)
        return;
    for (unsigned i = 0; i < SURVEY_FIELDS; i++)
        queue->fields[i] = number_of(reply->element[i]);
    const redisReply *state = reply->element[SURVEY_FIELDS];
    snprintf(queue->state, sizeof(queue->state), "%.15s", state->type == REDIS_REPLY_STRING ? state->str : "running");
}

static void names_read(struct figures *figures, uint32_t shard, const redisReply *reply);

static void answer_read(const struct ask *ask, struct survey *survey, const redisReply *reply) {
    struct survey_queue *queue = ask->row < survey->queue_count ? &survey->queues[ask->row] : NULL;
    switch (ask->question) {
    case ASK_PING:
        survey->latency_us = now_us() - ask->asked_us;
        survey->answered_ms = clock_ms(CLOCK_REALTIME);
        histogram_add(&ask->figures->redis, survey->latency_us);
        break;
    case ASK_MEMORY:
        if (reply->type == REDIS_REPLY_STRING) {
            survey->memory_bytes = info_number(reply->str, "used_memory:");
            survey->memory_max_bytes = info_number(reply->str, "\nmaxmemory:");
            survey->memory_room_bytes =
                survey->memory_max_bytes != 0 ? survey->memory_max_bytes : info_number(reply->str, "total_system_memory:");
        }
        break;
    case ASK_STATS:
        if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 2) {
            survey->depth = number_of(reply->element[0]);
            survey->events_trimmed = number_of(reply->element[1]);
        }
        break;
    case ASK_DEAD:
        survey->dead_entries = number_of(reply);
        break;
    case ASK_EVENTS:
        survey->event_entries = number_of(reply);
        break;
    case ASK_DUE:
        survey->due_lists = number_of(reply);
        break;
    case ASK_PARKED:
        survey->parked_lists = number_of(reply);
        break;
    case ASK_CAMPAIGNS:
        survey->campaigns = number_of(reply);
        break;
    case ASK_NAMES:
        names_read(ask->figures, ask->shard, reply);
        break;
    case ASK_QUEUE:
        if (queue != NULL)
            queue_read(queue, reply);
        break;
    case ASK_FRESH:
        if (queue != NULL)
            queue->entries = number_of(reply);
        break;
    case ASK_RETRY:
        if (queue != NULL)
            queue->retry_entries = number_of(reply);
        break;
    }
}

static void on_answer(void *context, redisReply *reply) {
    struct ask *ask = context;
    if (reply != NULL) { /* else the connection went, perhaps with all of control */
        struct survey *survey = &ask->figures->surveys[ask->shard];
        if (redis_error(reply) == NULL)
            answer_read(ask, survey, reply);
    }
    if (ask->question != ASK_PING)
        ask->figures->surveys[ask->shard].asked--;
    free(ask);
}

static void ask_send(struct figures *figures, uint32_t shard, enum question question, uint32_t row, int argc, const char *const *argv) {
    struct ask *ask = malloc(sizeof(*ask));
    if (ask == NULL)
        return;
    *ask = (struct ask){.figures = figures, .asked_us = now_us(), .question = question, .shard = shard, .row = row};
    if (redis_send(figures->shard->queues[shard].redis, on_answer, ask, argc, argv, NULL) != 0)
        free(ask);
    else if (question != ASK_PING)
        figures->surveys[shard].asked++;
}

/* A command with one key of this shard. */
static void ask_key(struct figures *figures, uint32_t shard, enum question question, uint32_t row, const char *command, const char *key,
                    const char *name) {
    char prefix[REDIS_KEY_MAX], whole[REDIS_KEY_MAX + QUEUE_NAME_MAX + 32];
    redis_shard_prefix(figures->shard->config.config, shard, prefix);
    snprintf(whole, sizeof(whole), "%s%s%s", prefix, key, name);
    ask_send(figures, shard, question, row, 2, (const char *const[]){command, whole});
}

static void ask_queue(struct figures *figures, uint32_t shard, uint32_t row) {
    const char *name = figures->surveys[shard].queues[row].name;
    char prefix[REDIS_KEY_MAX], key[REDIS_KEY_MAX + QUEUE_NAME_MAX + 32];
    redis_shard_prefix(figures->shard->config.config, shard, prefix);
    snprintf(key, sizeof(key), "%squeue:%s", prefix, name);
    const char *argv[SURVEY_FIELDS + 3] = {"HMGET", key};
    memcpy(argv + 2, fields, sizeof(fields));
    argv[SURVEY_FIELDS + 2] = "state";
    ask_send(figures, shard, ASK_QUEUE, row, SURVEY_FIELDS + 3, argv);
    ask_key(figures, shard, ASK_FRESH, row, "XLEN", "q:", name);
    ask_key(figures, shard, ASK_RETRY, row, "XLEN", "q:retry:", name);
}

/* The campaigns to look at, and then each of them. A row that stays keeps its figures until the new ones come. */
static void names_read(struct figures *figures, uint32_t shard, const redisReply *reply) {
    struct survey *survey = &figures->surveys[shard];
    for (uint32_t i = 0; i < SURVEY_STANDARD; i++)
        snprintf(survey->queues[i].name, sizeof(survey->queues[i].name), "%s", standard[i]);
    survey->queue_count = SURVEY_STANDARD;
    for (size_t i = 0; reply->type == REDIS_REPLY_ARRAY && i < reply->elements && survey->queue_count < SURVEY_QUEUES_MAX; i++) {
        struct survey_queue *queue = &survey->queues[survey->queue_count];
        const redisReply *name = reply->element[i];
        if (name->type != REDIS_REPLY_STRING || name->len == 0 || name->len > QUEUE_NAME_MAX)
            continue;
        if (strcmp(queue->name, name->str) != 0) {
            *queue = (struct survey_queue){0};
            memcpy(queue->name, name->str, name->len);
        }
        survey->queue_count++;
    }
    for (uint32_t i = 0; i < survey->queue_count; i++)
        ask_queue(figures, shard, i);
}

void survey_ping(struct figures *figures) {
    for (uint32_t i = 0; i < figures->shard->queue_count; i++)
        if (redis_state(figures->shard->queues[i].redis) == REDIS_UP)
            ask_send(figures, i, ASK_PING, 0, 1, (const char *const[]){"PING"});
}

void survey_ask(struct figures *figures) {
    char newest[16], prefix[REDIS_KEY_MAX], key[REDIS_KEY_MAX + 32];
    snprintf(newest, sizeof(newest), "%d", SURVEY_QUEUES_MAX - SURVEY_STANDARD - 1);
    for (uint32_t i = 0; i < figures->shard->queue_count; i++) {
        if (figures->surveys[i].asked > 0 || redis_state(figures->shard->queues[i].redis) != REDIS_UP)
            continue;
        redis_shard_prefix(figures->shard->config.config, i, prefix);
        ask_send(figures, i, ASK_MEMORY, 0, 2, (const char *const[]){"INFO", "memory"});
        snprintf(key, sizeof(key), "%sstats", prefix);
        ask_send(figures, i, ASK_STATS, 0, 4, (const char *const[]){"HMGET", key, "depth", "events_trimmed"});
        ask_key(figures, i, ASK_DEAD, 0, "XLEN", "dead", "");
        ask_key(figures, i, ASK_EVENTS, 0, "XLEN", "events", "");
        ask_key(figures, i, ASK_DUE, 0, "ZCARD", "due", "");
        ask_key(figures, i, ASK_PARKED, 0, "ZCARD", "parked", "");
        ask_key(figures, i, ASK_CAMPAIGNS, 0, "ZCARD", "campaigns", "");
        snprintf(key, sizeof(key), "%scampaigns", prefix);
        ask_send(figures, i, ASK_NAMES, 0, 4, (const char *const[]){"ZREVRANGE", key, "0", newest});
    }
}
