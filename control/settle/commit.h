/* commit.h: a batch of decided outcomes on its way into Redis. Private to settle. */
#ifndef CONTROL_SETTLE_COMMIT_H
#define CONTROL_SETTLE_COMMIT_H

#include "decide.h"

#include "control/fetch/entry.h"

#include <sys/queue.h>

enum { COMMIT_ITEMS_MAX = 128, COMMIT_BYTES_MAX = 512 << 10 };

/* A decided outcome. */
struct commit_item {
    char stream[QUEUE_NAME_MAX + 9], queue[QUEUE_NAME_MAX + 1];
    struct entry_id entry;
    uint32_t entry_pending, index;
    enum settle_action action;
    uint64_t bucket_ms;
    char head[HISTORY_HEAD_BYTES]; /* of the retry */
    char *event;                   /* or NULL; malloc'd */
    size_t event_length;
    struct job *job; /* held until confirmed, or NULL */
    uint32_t slot, slot_generation;
};

/* Where a commit is. */
enum commit_state {
    COMMIT_OPEN,  /* gathering */
    COMMIT_READY, /* to be sent */
    COMMIT_SENT,  /* waiting for Redis's word */
    COMMIT_DONE,  /* confirmed; kept for a while, should Redis lose it */
};

struct commit {
    TAILQ_ENTRY(commit) link;
    struct settle *settle;
    enum commit_state state;
    uint32_t count;
    uint32_t failures;      /* errors in a row */
    uint64_t not_before_ms; /* after an error; CLOCK_MONOTONIC */
    uint64_t done_ms;
    size_t bytes;
    bool again;                       /* sent a second time after Redis lost its memory: its answer is no news */
    uint32_t order[COMMIT_ITEMS_MAX]; /* of the answer's letters */
    struct commit_item items[];
};
TAILQ_HEAD(commit_list, commit);

/* Empty, with room for COMMIT_ITEMS_MAX, or NULL. */
struct commit *commit_create(struct settle *settle);
void commit_free(struct commit *commit);
void commit_release_jobs(struct commit *commit);
/* Gives back the room of the items that it does not have; it must be in no list. Returns where it is then. */
struct commit *commit_shrink(struct commit *commit);
/* FCALL bypost_settle for all items, grouped by entry. 0 or what redis_send said. */
int commit_send(struct commit *commit, struct redis *redis, const char *prefix, uint64_t events_maximum,
                void (*done)(void *context, redisReply *reply));

#endif
