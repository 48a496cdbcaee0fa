/* state.h: what the files of this folder share. Private to suppress. */
#ifndef CONTROL_SUPPRESS_STATE_H
#define CONTROL_SUPPRESS_STATE_H

#include "address.h"
#include "filter.h"
#include "suppress.h"
#include <sys/queue.h>

enum {
    SUPPRESS_TRUSTED_MAX = 64,
    SUPPRESS_ADDS_MAX = 200000, /* changes that wait for Redis */
    SUPPRESS_REASON_MAX = 32,
    SUPPRESS_CURSOR_BYTES = 48,
};

/* How far this process knows the lists. */
enum suppress_knowledge {
    SUPPRESS_UNKNOWN, /* before the first answer, or after Redis was away or emptied */
    SUPPRESS_LOADING, /* the filter is being filled */
    SUPPRESS_KNOWN,   /* the filter has all, and follows the log */
};

struct trusted {
    char provider[64];
    uint64_t until_s;
};

/* A question that Redis must answer. */
struct check {
    TAILQ_ENTRY(check) link;
    struct suppress *suppress;
    struct job *job;
    void (*done)(void *context, struct job *job, const char *const *reasons);
    void (*done_one)(void *context, const char *reason);
    void *context;
    uint32_t recipients; /* of `pending`, or 1 */
    uint32_t asked;      /* addresses and domains */
    uint32_t *who;       /* [asked] index into the recipients */
    char **texts;        /* [asked] */
    bool sent;
};
TAILQ_HEAD(check_list, check);

/* A change that Redis must have. */
struct change {
    TAILQ_ENTRY(change) link;
    struct suppress *suppress;
    uint64_t number;
    int argc;
    char **argv;
};
TAILQ_HEAD(change_list, change);

/* The lists, one after the other, as they are read into the filter. */
struct load {
    struct filter filter;
    char **tenants;
    size_t tenant_count, tenant;
    uint64_t next, buckets; /* of this tenant */
    uint32_t under_way;
    bool asked_size;
    uint64_t started_ms;
};

struct suppress {
    struct suppress_config config;
    struct suppress_counters counters;
    char base[REDIS_KEY_MAX], key[REDIS_KEY_MAX + 16]; /* PREFIX:{u}:suppress: and the key that commands name */
    enum suppress_knowledge knowledge;
    struct filter filter;
    uint64_t filter_key;
    struct load load;
    uint64_t generation; /* of the load: answers to an earlier one are dropped */
    uint64_t version;    /* of the log, as far as it was read */
    char cursor[SUPPRESS_CURSOR_BYTES];
    uint64_t polled_ms, added_ms; /* CLOCK_MONOTONIC of the last complete answer of the log; CLOCK_REALTIME of the last addition */
    uint64_t removed;             /* since the load */
    bool polling;
    struct event *timer;
    struct check_list checks;
    uint32_t check_count;
    struct change_list changes;
    uint64_t change_number;
    uint32_t change_count, changes_under_way;
    struct trusted trusted[SUPPRESS_TRUSTED_MAX];
    uint32_t trusted_count;
    uint32_t outstanding; /* commands whose callback will come */
    bool destroyed;
};

/* suppress.c: a command whose callback must call suppress_heard first; false: suppress is gone (and the caller frees its own). */
bool suppress_send(struct suppress *suppress, void (*done)(void *context, redisReply *reply), void *context, int argc,
                   const char *const *argv);
bool suppress_heard(struct suppress *suppress);
void suppress_checks_send(struct suppress *suppress);
void suppress_changes_send(struct suppress *suppress);

/* watch.c: the filter. */
void watch_start(struct suppress *suppress, bool anew);
void watch_stop(struct suppress *suppress);
void watch_poll(struct suppress *suppress);
uint64_t watch_hash(const struct suppress *suppress, const char *tenant, const char *address);
void watch_add(struct suppress *suppress, uint64_t hash);

#endif
