/* commit.h: a batch of decided outcomes on its way into Redis. Private to settle. */
#ifndef CONTROL_SETTLE_COMMIT_H
#define CONTROL_SETTLE_COMMIT_H

#include "decide.h"
#include "text.h"

#include <sys/queue.h>

enum { COMMIT_ITEMS_MAX = 500, COMMIT_BYTES_MAX = 512 << 10, WAIT_NAME_BYTES = 272 };

/* Where a recipient waits that does not end: what its record says. */
struct commit_wait {
    uint64_t ms;                 /* CLOCK_REALTIME */
    struct job_history history;  /* of the next attempt */
    char where[WAIT_NAME_BYTES]; /* a hold's id, a site, or "" */
    char tail[];                 /* "SITE CLASS PROVIDER" */
};

/* A decided outcome. */
struct commit_item {
    char queue[QUEUE_NAME_MAX + 1];
    bool is_retry; /* the entry is in stream retry:QUEUE */
    bool alone;    /* it shares no record with others */
    enum settle_action action;
    struct entry_id entry;
    uint32_t entry_pending, index;
    struct commit_wait *wait; /* or NULL: final */
    char *event, *notice;     /* or NULL; malloc'd */
    size_t event_length, notice_length;
    struct job *job; /* held until confirmed, or NULL */
    uint32_t slot, slot_generation;
};

/* Where a commit is. */
enum commit_state {
    COMMIT_OPEN,  /* gathering */
    COMMIT_READY, /* to be sent */
    COMMIT_SENT,  /* waiting for Redis's word */
    COMMIT_DONE,  /* confirmed; kept for a while, should Redis lose it: nothing but its arguments */
};

struct commit {
    TAILQ_ENTRY(commit) link;
    struct settle *settle;
    enum commit_state state;
    uint32_t count;
    uint32_t failures;      /* errors in a row */
    uint64_t not_before_ms; /* after an error; CLOCK_MONOTONIC */
    uint64_t done_ms;
    size_t bytes;       /* about what its command takes while it is gathered; what it takes here once it is done */
    bool again;         /* sent a second time after Redis lost its memory: its answer is no news */
    struct text packed; /* the command's arguments from the first section on, but the events; made when it is first sent */
    struct text events; /* they, in the order of the arguments; dropped first when too much is kept */
    uint32_t arguments; /* in `packed` */
    uint32_t event_count;
    uint32_t order[COMMIT_ITEMS_MAX]; /* of the answer's letters */
    struct commit_item items[];
};
TAILQ_HEAD(commit_list, commit);

/* What a command says besides its sections. */
struct commit_terms {
    const char *prefix, *node;
    uint64_t epoch, events_maximum;
};

/* Empty, with room for COMMIT_ITEMS_MAX, or NULL. */
struct commit *commit_create(struct settle *settle);
void commit_free(struct commit *commit);
void commit_item_free(struct commit_item *item);
/* Leaves nothing but the arguments; it must be in no list. Returns where it is then, with `bytes` as they are now. */
struct commit *commit_shrink(struct commit *commit);
void commit_drop_events(struct commit *commit);
/* FCALL bypost_settle for all items: runs of entries with one recipient, and entries of several with their outcomes as bits. 0 or what
 * redis_send said. */
int commit_send(struct commit *commit, struct redis *redis, const struct commit_terms *terms,
                void (*done)(void *context, redisReply *reply));

#endif
