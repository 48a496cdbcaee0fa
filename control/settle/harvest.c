/* harvest.c: lookups of entries, a few at a time; recipients of one entry share its decoded job. */
#include "harvest.h"

#include "control/fetch/entry.h"
#include "control/observe/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

enum { LOOKUPS_IN_FLIGHT = 16, CACHED_JOBS = 16, NAME_BYTES = 128 };

struct lookup {
    TAILQ_ENTRY(lookup) link;
    struct harvest *harvest;
    struct settle_item item;
    char site[NAME_BYTES], provider[NAME_BYTES], pool[NAME_BYTES], rule[NAME_BYTES]; /* the classifier may be another one by then */
};
TAILQ_HEAD(lookup_list, lookup);

struct harvest {
    struct settle_config config;
    char prefix[REDIS_KEY_MAX];
    void (*found)(void *context, const struct settle_item *item, struct job *job, bool gone);
    void *context;
    struct lookup_list waiting, asked;
    uint32_t count, in_flight;
    bool destroyed;
    struct job *cache[CACHED_JOBS];
    uint32_t cache_next;
};

struct harvest *harvest_create(const struct settle_config *config,
                               void (*found)(void *context, const struct settle_item *item, struct job *job, bool gone), void *context) {
    struct harvest *harvest = calloc(1, sizeof *harvest);
    if (harvest) {
        harvest->config = *config;
        harvest->found = found;
        harvest->context = context;
        redis_shard_prefix(config->config, config->shard, harvest->prefix);
        TAILQ_INIT(&harvest->waiting);
        TAILQ_INIT(&harvest->asked);
    }
    return harvest;
}

static void lookups_free(struct lookup_list *list) {
    struct lookup *lookup;
    while ((lookup = TAILQ_FIRST(list))) {
        TAILQ_REMOVE(list, lookup, link);
        free(lookup);
    }
}

static void cache_clear(struct harvest *harvest) {
    for (size_t i = 0; i < CACHED_JOBS; i++) {
        job_release(harvest->cache[i]);
        harvest->cache[i] = NULL;
    }
}

void harvest_destroy(struct harvest *harvest) {
    if (harvest) {
        cache_clear(harvest);
        lookups_free(&harvest->waiting);
        harvest->destroyed = true;
        if (harvest->in_flight == 0) {
            free(harvest);
        } /* else with the last answer */
    }
}

static struct job *cache_find(const struct harvest *harvest, const struct settle_cookie *cookie) {
    for (size_t i = 0; i < CACHED_JOBS; i++) {
        struct job *job = harvest->cache[i];
        if (job && job->entry.ms == cookie->entry.ms && job->entry.seq == cookie->entry.seq && strcmp(job->queue, cookie->queue) == 0 &&
            (strcmp(job->queue, job->stream) != 0) == (cookie->is_retry != 0)) {
            return job;
        }
    }
    return NULL;
}

static void cache_add(struct harvest *harvest, struct job *job) {
    job_release(harvest->cache[harvest->cache_next]);
    harvest->cache[harvest->cache_next] = job;
    harvest->cache_next = (harvest->cache_next + 1) % CACHED_JOBS;
}

static void lookup_end(struct harvest *harvest, struct lookup *lookup, struct job *job, bool gone) {
    harvest->count--;
    harvest->found(harvest->context, &lookup->item, job, gone);
    free(lookup);
    if (harvest->count == 0) {
        cache_clear(harvest);
    }
}

static struct job *reply_decode(const struct harvest *harvest, const struct settle_cookie *cookie, const redisReply *entry) {
    struct entry_view view;
    char error[256];
    if (!entry_view_take(entry, &view)) {
        return NULL;
    }
    struct job *job =
        entry_decode(&view, harvest->config.config, harvest->config.shard, cookie->queue, cookie->is_retry != 0, error, sizeof error);
    if (!job) {
        log_write(LOG_LEVEL_WARNING, "settle", "a harvested outcome's job cannot be read again; its event tells less: %.160s", error);
    }
    return job;
}

/* With what is known of its job. */
static void lookup_found(struct lookup *lookup, struct job *job, bool gone) {
    struct harvest *harvest = lookup->harvest;
    if (job) {
        cache_add(harvest, job);
    }
    lookup_end(harvest, lookup, job, gone);
    harvest_pump(harvest);
}

/* The job has what its shared content says, or there is no such content: its event tells less. */
static void on_completed(void *context, struct job *job, const char *error, bool temporary) {
    struct lookup *lookup = context;
    struct harvest *harvest = lookup->harvest;
    harvest->in_flight--;
    if (harvest->destroyed) {
        job_release(job);
        free(lookup);
        if (harvest->in_flight == 0) {
            free(harvest);
        }
    } else if (error && temporary && redis_state(harvest->config.redis) != REDIS_UP) {
        job_release(job);
        TAILQ_INSERT_HEAD(&harvest->waiting, lookup, link);
    } else {
        lookup_found(lookup, job, false);
    }
}

static void on_found(void *context, redisReply *reply) {
    struct lookup *lookup = context;
    struct harvest *harvest = lookup->harvest;
    harvest->in_flight--;
    TAILQ_REMOVE(&harvest->asked, lookup, link);
    if (harvest->destroyed) {
        free(lookup);
        if (harvest->in_flight == 0) {
            free(harvest);
        }
        return;
    }
    if (!reply) {
        TAILQ_INSERT_HEAD(&harvest->waiting, lookup, link);
        return;
    }
    bool gone = reply->type == REDIS_REPLY_ARRAY && reply->elements == 0;
    struct job *job =
        reply->type == REDIS_REPLY_ARRAY && reply->elements > 0 ? reply_decode(harvest, &lookup->item.cookie, reply->element[0]) : NULL;
    if (job && job->content_id && harvest->config.complete) {
        harvest->in_flight++;
        harvest->config.complete(harvest->config.context, job, on_completed, lookup);
    } else {
        lookup_found(lookup, job, gone);
    }
}

void harvest_pump(struct harvest *harvest) {
    struct lookup *lookup;
    while (harvest->in_flight < LOOKUPS_IN_FLIGHT && (lookup = TAILQ_FIRST(&harvest->waiting))) {
        const struct settle_cookie *cookie = &lookup->item.cookie;
        struct job *job = cache_find(harvest, cookie);
        if (job) {
            TAILQ_REMOVE(&harvest->waiting, lookup, link);
            job_hold(job); /* the cache may let go of it meanwhile */
            lookup_end(harvest, lookup, job, false);
            job_release(job);
            continue;
        }
        char key[REDIS_KEY_MAX + QUEUE_NAME_MAX + 16], id[ENTRY_ID_BYTES];
        snprintf(key, sizeof key, "%sq:%s%s", harvest->prefix, cookie->is_retry ? "retry:" : "", cookie->queue);
        entry_id_write(cookie->entry, id);
        if (redis_send(harvest->config.redis, on_found, lookup, 4, (const char *[]){"XRANGE", key, id, id}, NULL) != 0) {
            return;
        }
        TAILQ_REMOVE(&harvest->waiting, lookup, link);
        TAILQ_INSERT_TAIL(&harvest->asked, lookup, link);
        harvest->in_flight++;
    }
}

int harvest_add(struct harvest *harvest, const struct settle_item *item) {
    struct lookup *lookup = calloc(1, sizeof *lookup);
    if (!lookup) {
        return -ENOMEM;
    }
    lookup->harvest = harvest;
    lookup->item = *item;
    snprintf(lookup->site, sizeof lookup->site, "%s", item->site ? item->site : "");
    snprintf(lookup->provider, sizeof lookup->provider, "%s", item->provider ? item->provider : "");
    snprintf(lookup->pool, sizeof lookup->pool, "%s", item->pool ? item->pool : "");
    snprintf(lookup->rule, sizeof lookup->rule, "%s", item->classification.rule ? item->classification.rule : "");
    lookup->item.classification.rule = item->classification.rule ? lookup->rule : NULL;
    lookup->item.site = lookup->site;
    lookup->item.provider = lookup->provider;
    lookup->item.pool = lookup->pool;
    TAILQ_INSERT_TAIL(&harvest->waiting, lookup, link);
    harvest->count++;
    harvest_pump(harvest);
    return 0;
}

void harvest_reconfigure(struct harvest *harvest, const struct config *config) {
    harvest->config.config = config;
}
