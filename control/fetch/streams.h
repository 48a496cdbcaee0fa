/* streams.h: the streams that fetch reads, in the order in which it reads them. Private to fetch. */
#ifndef CONTROL_FETCH_STREAMS_H
#define CONTROL_FETCH_STREAMS_H

#include "control/job.h"
#include "redis.h"

enum {
    STREAM_NAME_BYTES = QUEUE_NAME_MAX + 9,
    STREAM_KEY_BYTES = REDIS_KEY_MAX + STREAM_NAME_BYTES + 2,
    CAMPAIGNS_MAX = 64, /* read at a time (QUEUE.md) */
    STREAMS_MAX = 2 * (3 + CAMPAIGNS_MAX),
};

/* Which is read first. */
enum stream_class { CLASS_STREAM_HIGH, CLASS_STREAM_RETRY, CLASS_STREAM_NORMAL, CLASS_STREAM_BULK, STREAM_CLASSES };

/* What was done for it since the connection came up. */
enum stream_state {
    STREAM_UNKNOWN,  /* nothing */
    STREAM_GROUPING, /* its group is being made sure of */
    STREAM_PENDING,  /* reading what this consumer has pending, behind `cursor` */
    STREAM_REREAD,   /* its group is new: entries may be partly settled, so they are read with their progress */
    STREAM_READY,    /* new entries only */
};

struct stream {
    char name[STREAM_NAME_BYTES]; /* as in struct job: "normal", "retry:normal" */
    char queue[QUEUE_NAME_MAX + 1];
    char key[STREAM_KEY_BYTES];
    bool is_retry, is_campaign;
    bool let_go; /* entries of it were let go: its pending ones are to be read again */
    bool seen;   /* while the list of active queues is compared */
    enum stream_class class;
    enum stream_state state;
    struct entry_id cursor;
    uint64_t read_ms; /* when it last gave an entry, or was added: CLOCK_MONOTONIC */
};

struct streams {
    uint32_t count;
    struct stream items[STREAMS_MAX];
};

/* The six that always exist. `prefix` is the shard's. */
void streams_init(struct streams *streams, const char *prefix, uint64_t now_ms);
/* Adds a campaign's two streams; marks them seen when they are there. False when the name is none or there are too many. */
bool streams_add_campaign(struct streams *streams, const char *prefix, const char *queue, uint64_t now_ms);
/* Removes the campaigns that were not seen. */
void streams_forget_unseen(struct streams *streams);
/* What is pending of each is to be read again: what lives here is known, and settled ones are left out. */
void streams_reread(struct streams *streams);
struct stream *streams_by_key(struct streams *streams, const char *key);
struct stream *streams_by_name(struct streams *streams, const char *name);

#endif
