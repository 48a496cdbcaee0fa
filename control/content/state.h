/* state.h: what the files of this folder share. Private to content. */
#ifndef CONTROL_CONTENT_STATE_H
#define CONTROL_CONTENT_STATE_H

#include "content.h"

#include <sys/queue.h>

enum {
    BUCKETS = 4096,
    SENTENCE_BYTES = 768,
    KEY_BYTES = REDIS_KEY_MAX + CONTENT_ID_MAX + 16,
    CONTENT_LAST_DAY_S = 86400, /* what nobody needs lives so long */
};

/* A job that waits for its content. */
struct waiter {
    STAILQ_ENTRY(waiter) link;
    struct job *job;
    void (*done)(void *context, struct job *job, const char *error, bool temporary);
    void *context;
};

enum item_state { ITEM_LOADING, ITEM_KNOWN };

/* A content, known or on its way. */
struct item {
    struct content content;    /* first */
    struct contents *contents; /* NULL: they are gone, and it goes with its last job */
    enum item_state state;
    char id[CONTENT_ID_MAX + 1];
    struct job *fields;
    size_t bytes;
    LIST_ENTRY(item) bucket;
    TAILQ_ENTRY(item) idle;               /* while no job refers to it */
    STAILQ_HEAD(waiters, waiter) waiters; /* while it is loading */
};

struct janitor;

struct contents {
    struct contents_config config;
    LIST_HEAD(bucket, item) buckets[BUCKETS];
    TAILQ_HEAD(idle, item) idle; /* least recently used first */
    struct janitor *janitor;
    uint32_t outstanding; /* commands whose callback will come */
    bool destroyed;
    struct contents_counters counters;
};

/* content.c */
void content_key(const struct contents *contents, const char *id, char out[KEY_BYTES]);
/* False when contents are gone: their memory goes with the last answer. */
bool contents_answered(struct contents *contents);

/* fill.c: lends the job what it lacks; it holds its reference already. NULL, or what is wrong with the two together. */
const char *content_fill(struct job *job, const struct job *fields, char *error, size_t error_bytes);

/* janitor.c */
struct janitor *janitor_create(struct contents *contents);
/* Its memory goes with contents'. */
void janitor_stop(struct janitor *janitor);
void janitor_free(struct janitor *janitor);

#endif
