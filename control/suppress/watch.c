/* watch.c: fills the filter from the lists, and follows the log of their changes. */
#include "state.h"

#include "control/clock.h"
#include "control/observe/log.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LOAD_COMMANDS = 32,        /* hashes asked for at a time: some 1,300 addresses, a fraction of a millisecond of this thread */
    LOG_ENTRIES = 100,         /* read at a time */
    REMOVED_MIN = 100000,      /* so many at least are gone before the filter is filled anew, */
    REMOVED_SHARE = 4,         /* and a quarter of what it has */
    LIST_HASHES_MAX = 1 << 24, /* a wild value */
};

/* A HKEYS under way. */
struct reading {
    struct suppress *suppress;
    uint64_t generation;
    size_t tenant;
};

static void load_step(struct suppress *suppress);

uint64_t watch_hash(const struct suppress *suppress, const char *tenant, const char *address) {
    return filter_hash(suppress->filter_key, tenant, address, strlen(address));
}

static void load_free(struct load *load) {
    filter_free(&load->filter);
    for (size_t i = 0; i < load->tenant_count; i++)
        free(load->tenants[i]);
    free(load->tenants);
    *load = (struct load){0};
}

/* The one place that changes what is known. */
static void enter(struct suppress *suppress, enum suppress_knowledge knowledge) {
    suppress->knowledge = knowledge;
    if (knowledge == SUPPRESS_UNKNOWN) {
        suppress->generation++;
        load_free(&suppress->load);
        filter_free(&suppress->filter);
    }
    suppress->counters.filter_entries = suppress->filter.entries;
    suppress->counters.filter_bytes = filter_bytes(&suppress->filter);
}

void watch_add(struct suppress *suppress, uint64_t hash) {
    if (suppress->filter.blocks != NULL)
        filter_add(&suppress->filter, hash);
    if (suppress->load.filter.blocks != NULL)
        filter_add(&suppress->load.filter, hash);
    suppress->counters.filter_entries = suppress->filter.entries;
}

static void trust_set(struct suppress *suppress, const char *provider, const char *until) {
    uint32_t i = 0;
    while (i < suppress->trusted_count && strcmp(suppress->trusted[i].provider, provider) != 0)
        i++;
    if (i == SUPPRESS_TRUSTED_MAX)
        return;
    if (i == suppress->trusted_count)
        suppress->trusted_count++;
    snprintf(suppress->trusted[i].provider, sizeof(suppress->trusted[i].provider), "%s", provider);
    suppress->trusted[i].until_s = strtoull(until, NULL, 10);
}

static void load_done(struct suppress *suppress) {
    struct load *load = &suppress->load;
    uint64_t now_ms = clock_ms(CLOCK_MONOTONIC);
    filter_free(&suppress->filter);
    suppress->filter = load->filter;
    load->filter = (struct filter){0};
    suppress->counters.loads++;
    suppress->counters.load_ms = now_ms - load->started_ms;
    suppress->removed = 0;
    load_free(load);
    enter(suppress, SUPPRESS_KNOWN);
    log_write(LOG_LEVEL_INFO, "suppress", "%" PRIu64 " suppressed addresses known here: %" PRIu64 " KiB, loaded in %" PRIu64 " ms",
              suppress->filter.entries, filter_bytes(&suppress->filter) / 1024, suppress->counters.load_ms);
    suppress->polled_ms = 0; /* what came since the load began is in the log */
    watch_poll(suppress);
}

static void on_keys(void *context, redisReply *reply) {
    struct reading *reading = context;
    struct suppress *suppress = reading->suppress;
    struct load *load = &suppress->load;
    bool current = suppress_heard(suppress) && reading->generation == suppress->generation && suppress->knowledge == SUPPRESS_LOADING;
    size_t tenant = reading->tenant;
    free(reading);
    if (!current)
        return;
    if (reply == NULL || reply->type != REDIS_REPLY_ARRAY) {
        enter(suppress, SUPPRESS_UNKNOWN);
        return;
    }
    for (size_t i = 0; i < reply->elements; i++) {
        const redisReply *field = reply->element[i];
        if (field->type == REDIS_REPLY_STRING)
            filter_add(&load->filter, filter_hash(suppress->filter_key, load->tenants[tenant], field->str, field->len));
    }
    load->under_way--;
    load_step(suppress);
}

/* How many hashes the list has at the end of its reading: a split moves entries to a new one behind all others, so none is missed. */
static void on_size(void *context, redisReply *reply) {
    struct reading *reading = context;
    struct suppress *suppress = reading->suppress;
    struct load *load = &suppress->load;
    bool current = suppress_heard(suppress) && reading->generation == suppress->generation && suppress->knowledge == SUPPRESS_LOADING;
    free(reading);
    if (!current)
        return;
    if (reply == NULL || reply->type == REDIS_REPLY_ERROR) {
        enter(suppress, SUPPRESS_UNKNOWN);
        return;
    }
    uint64_t entries = 0, buckets = 0;
    if (reply->type == REDIS_REPLY_STRING && sscanf(reply->str, "%" SCNu64 " %" SCNu64, &entries, &buckets) != 2)
        buckets = 0;
    load->asked_size = false;
    if (buckets > load->buckets && buckets < LIST_HASHES_MAX) {
        load->buckets = buckets;
    } else {
        load->tenant++;
        load->next = load->buckets = 0;
    }
    load_step(suppress);
}

static bool load_send(struct suppress *suppress, void (*done)(void *context, redisReply *reply), const char *const *argv, int argc) {
    struct reading *reading = malloc(sizeof(*reading));
    if (reading == NULL)
        return false;
    *reading = (struct reading){.suppress = suppress, .generation = suppress->generation, .tenant = suppress->load.tenant};
    if (suppress_send(suppress, done, reading, argc, argv))
        return true;
    free(reading);
    return false;
}

static void load_step(struct suppress *suppress) {
    struct load *load = &suppress->load;
    char key[REDIS_KEY_MAX + TENANT_NAME_MAX + 32];
    bool sent = true;
    if (load->tenant == load->tenant_count) {
        load_done(suppress);
        return;
    }
    while (sent && load->next < load->buckets && load->under_way < LOAD_COMMANDS) {
        snprintf(key, sizeof(key), "%s%s:%" PRIu64, suppress->base, load->tenants[load->tenant], load->next);
        sent = load_send(suppress, on_keys, (const char *[]){"HKEYS", key}, 2);
        load->next += sent;
        load->under_way += sent;
    }
    if (sent && load->next == load->buckets && load->under_way == 0 && !load->asked_size) {
        load->asked_size = true;
        sent = load_send(suppress, on_size, (const char *[]){"HGET", suppress->key, load->tenants[load->tenant]}, 3);
    }
    if (!sent)
        enter(suppress, SUPPRESS_UNKNOWN); /* the next poll begins again */
}

/* Version, the log's last ID, the lists with their sizes, whom the guard trusts. */
static bool load_begin(struct suppress *suppress, const redisReply *reply) {
    struct load *load = &suppress->load;
    if (reply == NULL || reply->type != REDIS_REPLY_ARRAY || reply->elements != 4 || reply->element[0]->type != REDIS_REPLY_STRING ||
        reply->element[1]->type != REDIS_REPLY_STRING || reply->element[2]->type != REDIS_REPLY_ARRAY ||
        reply->element[3]->type != REDIS_REPLY_ARRAY)
        return false;
    const redisReply *lists = reply->element[2], *trusted = reply->element[3];
    uint64_t total = 0;
    load_free(load);
    load->started_ms = clock_ms(CLOCK_MONOTONIC);
    suppress->version = strtoull(reply->element[0]->str, NULL, 10);
    snprintf(suppress->cursor, sizeof(suppress->cursor), "%s", reply->element[1]->str);
    load->tenants = calloc(lists->elements / 2 + 1, sizeof(*load->tenants));
    for (size_t i = 0; load->tenants != NULL && i + 1 < lists->elements; i += 2) {
        if (lists->element[i]->type != REDIS_REPLY_STRING || lists->element[i + 1]->type != REDIS_REPLY_STRING)
            return false;
        load->tenants[load->tenant_count] = strdup(lists->element[i]->str);
        if (load->tenants[load->tenant_count] == NULL)
            return false;
        load->tenant_count++;
        total += strtoull(lists->element[i + 1]->str, NULL, 10);
    }
    suppress->trusted_count = 0;
    for (size_t i = 0; i + 1 < trusted->elements; i += 2)
        if (trusted->element[i]->type == REDIS_REPLY_STRING && trusted->element[i + 1]->type == REDIS_REPLY_STRING)
            trust_set(suppress, trusted->element[i]->str, trusted->element[i + 1]->str);
    return load->tenants != NULL && total < UINT32_MAX && filter_init(&load->filter, total) == 0;
}

static void on_tail(void *context, redisReply *reply) {
    struct suppress *suppress = context;
    if (!suppress_heard(suppress))
        return;
    suppress->polling = false;
    if (!load_begin(suppress, reply)) {
        enter(suppress, SUPPRESS_UNKNOWN);
        return;
    }
    enter(suppress, SUPPRESS_LOADING);
    load_step(suppress);
}

/* One change: what, the list, then the addresses, a line each. */
static void log_apply(struct suppress *suppress, char *text, bool *added) {
    char *rest = NULL, *what = strtok_r(text, "\n", &rest);
    if (what == NULL || rest == NULL)
        return;
    char *tenant = rest, *end = strchr(rest, '\n'); /* may be empty, which strtok would skip */
    if (end == NULL)
        return;
    *end = '\0';
    char *address = strtok_r(end + 1, "\n", &rest);
    if (*what == 't' && address != NULL)
        trust_set(suppress, tenant, address);
    for (; address != NULL; address = strtok_r(NULL, "\n", &rest)) {
        if (*what == '+' || *what == '~')
            watch_add(suppress, watch_hash(suppress, tenant, address));
        suppress->removed += *what == '-';
        *added |= *what == '+';
    }
}

static void on_log(void *context, redisReply *reply) {
    struct suppress *suppress = context;
    bool added = false;
    if (!suppress_heard(suppress))
        return;
    suppress->polling = false;
    if (suppress->knowledge != SUPPRESS_KNOWN)
        return;
    if (reply == NULL || reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 || reply->element[0]->type != REDIS_REPLY_STRING ||
        reply->element[1]->type != REDIS_REPLY_ARRAY)
        return; /* what is known grows old, and checks ask Redis */
    uint64_t version = strtoull(reply->element[0]->str, NULL, 10);
    const redisReply *entries = reply->element[1];
    for (size_t i = 0; i + 1 < entries->elements; i += 2) {
        if (entries->element[i]->type != REDIS_REPLY_STRING || entries->element[i + 1]->type != REDIS_REPLY_STRING)
            break; /* the versions differ: all is read anew */
        snprintf(suppress->cursor, sizeof(suppress->cursor), "%s", entries->element[i]->str);
        log_apply(suppress, entries->element[i + 1]->str, &added);
        suppress->version++;
    }
    bool all = entries->elements < 2 * LOG_ENTRIES;
    /* The log was trimmed before it was read, or Redis has lost its memory. */
    bool missed = all ? suppress->version != version : suppress->version > version;
    uint64_t entries_max = suppress->filter.capacity;
    if (missed || suppress->filter.entries > entries_max ||
        (suppress->removed > REMOVED_MIN && suppress->removed > suppress->filter.entries / REMOVED_SHARE)) {
        enter(suppress, SUPPRESS_UNKNOWN);
        watch_poll(suppress);
    } else if (all) {
        suppress->polled_ms = clock_ms(CLOCK_MONOTONIC);
    } else {
        watch_poll(suppress);
    }
    if (added) {
        suppress->added_ms = clock_ms(CLOCK_REALTIME);
        if (suppress->config.added != NULL)
            suppress->config.added(suppress->config.context);
    }
}

void watch_poll(struct suppress *suppress) {
    char count[16];
    if (suppress->polling || suppress->knowledge == SUPPRESS_LOADING)
        return;
    snprintf(count, sizeof(count), "%d", LOG_ENTRIES);
    if (suppress->knowledge == SUPPRESS_UNKNOWN)
        suppress->polling = suppress_send(suppress, on_tail, suppress, 5,
                                          (const char *[]){"FCALL", "bypost_suppress_tail", "1", suppress->key, suppress->base});
    else
        suppress->polling =
            suppress_send(suppress, on_log, suppress, 7,
                          (const char *[]){"FCALL", "bypost_suppress_log", "1", suppress->key, suppress->base, suppress->cursor, count});
}

void watch_start(struct suppress *suppress, bool anew) {
    if (anew || suppress->knowledge == SUPPRESS_LOADING)
        enter(suppress, SUPPRESS_UNKNOWN);
    suppress->polling = false;
    suppress->polled_ms = 0;
    watch_poll(suppress);
}

void watch_stop(struct suppress *suppress) {
    enter(suppress, SUPPRESS_UNKNOWN);
}
