/* streams.h: the streams that fetch reads, in the order in which it reads them. Private to fetch. */
#ifndef CONTROL_FETCH_STREAMS_H
#define CONTROL_FETCH_STREAMS_H

#include "control/job.h"
#include "redis.h"

enum {
    STREAM_NAME_BYTES = QUEUE_NAME_MAX + 9,
    STREAM_KEY_BYTES = REDIS_KEY_MAX + STREAM_NAME_BYTES + 2,
    STREAMS_MAX = 6,
};

/* Which is read first. NORMAL, BULK and all other queues together share what is left by their weights (flows.h). */
enum stream_class { CLASS_STREAM_HIGH, CLASS_STREAM_RETRY, CLASS_STREAM_NORMAL, CLASS_STREAM_BULK, CLASS_STREAM_OTHERS, STREAM_CLASSES };

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
    bool is_retry;
    bool let_go; /* entries of it were let go: its pending ones are to be read again */
    enum stream_class class;
    enum stream_state state;
    struct entry_id cursor;
};

/* Those of high, normal and bulk. */
struct streams {
    uint32_t count;
    struct stream items[STREAMS_MAX];
};

/* `prefix` is the shard's. */
void streams_init(struct streams *streams, const char *prefix);
/* One of any queue, by its name. False when that is none. */
bool stream_init(struct stream *stream, const char *prefix, const char *name);
/* What is pending of each is to be read again: what lives here is known, and settled ones are left out. */
void streams_reread(struct streams *streams);
struct stream *streams_by_key(struct streams *streams, const char *key);
struct stream *streams_by_name(struct streams *streams, const char *name);

#endif
