/* content.c: the cache of contents: loaded once, kept while jobs refer to them, and then as long as there is room. */
#include "state.h"

#include "control/fetch/fetch.h"
#include "control/observe/log.h"
#include "control/render/render.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void content_key(const struct contents *contents, const char *id, char out[KEY_BYTES]) {
    snprintf(out, KEY_BYTES, "%.128s:content:%s", contents->config.config->redis.prefix, id);
}

static struct bucket *bucket_of(struct contents *contents, const char *id) {
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (const char *c = id; *c; c++) {
        hash = (hash ^ (uint8_t)*c) * 16777619u;
    }
    return &contents->buckets[(hash >> 16 ^ hash) % BUCKETS];
}

static struct item *item_find(struct contents *contents, const char *id) {
    struct item *item;
    LIST_FOREACH (item, bucket_of(contents, id), bucket) {
        if (strcmp(item->id, id) == 0) {
            return item;
        }
    }
    return NULL;
}

static void item_free(struct item *item) {
    if (item->contents) {
        LIST_REMOVE(item, bucket);
        item->contents->counters.bytes -= item->bytes;
    }
    render_prepared_free((struct render_prepared *)item->content.prepared);
    job_release(item->fields);
    free(item);
}

/* Lets go of what no job needs, the longest unused first, until there is room. */
static void contents_trim(struct contents *contents) {
    struct item *item;
    while (contents->counters.bytes > CONTENTS_BYTES_MAX && (item = TAILQ_FIRST(&contents->idle)) != NULL) {
        TAILQ_REMOVE(&contents->idle, item, idle);
        item_free(item);
    }
}

static void item_unreferenced(struct content *content) {
    struct item *item = (struct item *)content;
    if (!item->contents) {
        item_free(item);
        return;
    }
    item->contents->counters.held--;
    TAILQ_INSERT_TAIL(&item->contents->idle, item, idle);
    contents_trim(item->contents);
}

/* Gives a job the content that it waits for, and hands it back. */
static void job_complete(struct item *item, struct job *job,
                         void (*done)(void *context, struct job *job, const char *error, bool temporary), void *context) {
    char error[SENTENCE_BYTES];
    if (item->content.references++ == 0) {
        item->contents->counters.held++;
        TAILQ_REMOVE(&item->contents->idle, item, idle);
    }
    job->content = &item->content;
    const char *fault = content_fill(job, item->fields, error, sizeof error);
    fault = fault ? fault : job_bulk_fill(job, item->contents->config.config);
    done(context, job, fault, fault && job_decode_starved(fault));
}

/* A content that could not be had: its jobs are told, and the next one that names it asks again. */
static void item_fail(struct item *item, const char *error, bool temporary) {
    struct waiters waiters = STAILQ_HEAD_INITIALIZER(waiters);
    STAILQ_CONCAT(&waiters, &item->waiters);
    item_free(item);
    struct waiter *waiter;
    while ((waiter = STAILQ_FIRST(&waiters)) != NULL) {
        STAILQ_REMOVE_HEAD(&waiters, link);
        waiter->done(waiter->context, waiter->job, error, temporary);
        free(waiter);
    }
}

/* From the text in Redis. NULL, or what is wrong. */
static const char *item_decode(struct item *item, const redisReply *reply, char *error, size_t error_bytes) {
    const struct config *config = item->contents->config.config;
    int used = snprintf(error, error_bytes, "content %s: ", item->id);
    item->fields = job_decode_content((const uint8_t *)reply->str, reply->len, config, error + used, error_bytes - (size_t)used);
    if (!item->fields) {
        return error;
    }
    int malformed = render_check(item->fields, error + used, error_bytes - (size_t)used);
    if (malformed) {
        return malformed == -ENOMEM ? "Out of memory." : error;
    }
    item->content.fields = item->fields;
    item->content.prepared = render_prepare(item->fields, item->id, item->contents->config.identity);
    /* The tree's text twice: once decoded, once for what the allocator rounds up. */
    item->bytes = sizeof *item + reply->len * 2 + render_prepared_bytes(item->content.prepared);
    item->contents->counters.bytes += item->bytes;
    return NULL;
}

static void item_known(struct item *item) {
    struct contents *contents = item->contents;
    item->state = ITEM_KNOWN;
    contents->counters.loaded++;
    item->content.references = 1; /* so that it stays until all who wait have it */
    contents->counters.held++;
    struct waiter *waiter;
    while ((waiter = STAILQ_FIRST(&item->waiters)) != NULL) {
        STAILQ_REMOVE_HEAD(&item->waiters, link);
        job_complete(item, waiter->job, waiter->done, waiter->context);
        free(waiter);
    }
    content_release(&item->content);
}

bool contents_answered(struct contents *contents) {
    contents->outstanding--;
    if (contents->destroyed && contents->outstanding == 0) {
        janitor_free(contents->janitor);
        free(contents);
        return false;
    }
    return !contents->destroyed;
}

/* What a request needs when its answer comes: the item may be gone by then. */
struct request {
    struct contents *contents;
    char id[CONTENT_ID_MAX + 1];
};

static void on_loaded(void *context, redisReply *reply) {
    struct request *request = context;
    struct contents *contents = request->contents;
    char error[SENTENCE_BYTES];
    struct item *item = contents_answered(contents) ? item_find(contents, request->id) : NULL;
    free(request);
    if (!item) {
        return;
    }
    if (!reply) {
        item_fail(item, "Redis is away.", true);
        return;
    }
    if (redis_error(reply)) {
        bool wrong_type = strncmp(redis_error(reply), "WRONGTYPE", 9) == 0;
        snprintf(error, sizeof error, "content %s: Redis says: %.200s", item->id, redis_error(reply));
        item_fail(item, error, !wrong_type);
        return;
    }
    if (reply->type != REDIS_REPLY_STRING) {
        contents->counters.missing++;
        snprintf(error, sizeof error,
                 "content %s: There is none of this name (any more): store it as %.128s:content:%s before the jobs that name it.", item->id,
                 contents->config.config->redis.prefix, item->id);
        item_fail(item, error, false);
        return;
    }
    const char *fault = item_decode(item, reply, error, sizeof error);
    if (fault) {
        bool starved = job_decode_starved(fault);
        contents->counters.missing += !starved;
        item_fail(item, fault, starved);
        return;
    }
    item_known(item);
    contents_trim(contents);
}

/* Asks Redis. What the submit Function counted is needed: then it does not expire. */
static bool item_load(struct item *item, bool counted) {
    struct contents *contents = item->contents;
    struct request *request = malloc(sizeof *request);
    if (!request) {
        return false;
    }
    request->contents = contents;
    memcpy(request->id, item->id, sizeof request->id);
    char key[KEY_BYTES];
    content_key(contents, item->id, key);
    const char *argv[] = {counted ? "GETEX" : "GET", key, "PERSIST"};
    if (redis_send(contents->config.redis[0], on_loaded, request, counted ? 3 : 2, argv, NULL) != 0) {
        free(request);
        return false;
    }
    contents->outstanding++;
    return true;
}

static struct item *item_create(struct contents *contents, const char *id) {
    struct item *item = calloc(1, sizeof *item);
    if (item) {
        item->contents = contents;
        item->content.unreferenced = item_unreferenced;
        item->state = ITEM_LOADING;
        snprintf(item->id, sizeof item->id, "%s", id);
        STAILQ_INIT(&item->waiters);
        LIST_INSERT_HEAD(bucket_of(contents, id), item, bucket);
    }
    return item;
}

void contents_complete(struct contents *contents, struct job *job,
                       void (*done)(void *context, struct job *job, const char *error, bool temporary), void *context) {
    if (job->content || !job->content_id) {
        done(context, job, NULL, false);
        return;
    }
    struct item *item = item_find(contents, job->content_id);
    if (item && item->state == ITEM_KNOWN) {
        contents->counters.hits++;
        job_complete(item, job, done, context);
        return;
    }
    /* Twice the room is in use, all of it by jobs: this one waits until some have gone. */
    if (!item && contents->counters.bytes > 2 * (uint64_t)CONTENTS_BYTES_MAX) {
        done(context, job, "Too many contents are in use at once.", true);
        return;
    }
    struct waiter *waiter = malloc(sizeof *waiter);
    bool is_new = !item;
    if (waiter && is_new) {
        item = item_create(contents, job->content_id);
    }
    if (!waiter || !item) {
        free(waiter);
        done(context, job, "Out of memory.", true);
        return;
    }
    if (is_new && !item_load(item, job->content_counted)) {
        free(waiter);
        item_free(item);
        done(context, job, "Redis is away.", true);
        return;
    }
    *waiter = (struct waiter){.job = job, .done = done, .context = context};
    STAILQ_INSERT_TAIL(&item->waiters, waiter, link);
}

struct contents *contents_create(const struct contents_config *config) {
    struct contents *contents = calloc(1, sizeof *contents);
    if (!contents) {
        return NULL;
    }
    contents->config = *config;
    for (size_t i = 0; i < BUCKETS; i++) {
        LIST_INIT(&contents->buckets[i]);
    }
    TAILQ_INIT(&contents->idle);
    contents->janitor = janitor_create(contents);
    if (!contents->janitor) {
        free(contents);
        return NULL;
    }
    return contents;
}

/* Those that jobs still hold go with them. */
static void item_orphan(struct item *item) {
    if (item->state == ITEM_LOADING) {
        item_fail(item, "bypost ends.", true);
    } else if (item->content.references > 0) {
        LIST_REMOVE(item, bucket);
        item->contents = NULL;
    } else {
        TAILQ_REMOVE(&item->contents->idle, item, idle);
        item_free(item);
    }
}

void contents_destroy(struct contents *contents) {
    if (!contents) {
        return;
    }
    for (size_t i = 0; i < BUCKETS; i++) {
        while (!LIST_EMPTY(&contents->buckets[i])) {
            item_orphan(LIST_FIRST(&contents->buckets[i]));
        }
    }
    janitor_stop(contents->janitor);
    contents->destroyed = true;
    contents->outstanding++;
    contents_answered(contents);
}

void contents_reconfigure(struct contents *contents, const struct config *config) {
    contents->config.config = config;
}

const struct contents_counters *contents_counters(const struct contents *contents) {
    return &contents->counters;
}
