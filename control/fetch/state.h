/* state.h: what fetch holds, and what its files use of each other. Private to fetch. */
#ifndef CONTROL_FETCH_STATE_H
#define CONTROL_FETCH_STATE_H

#include "control/clock.h"
#include "fetch.h"
#include "streams.h"

#include <time.h>

enum {
    TICK_MS = 1000,
    TICK_MIN_MS = 20, /* promotion never runs more often */
    PAUSE_MS = 100,   /* after an answer that makes no sense */
    ERROR_BYTES = 512,
    CONSUMER_BYTES = 256,
    REREAD_MS = 30000, /* an entry that could be neither taken nor moved is looked at again after this */
};

/* What fetch is doing. */
enum fetch_state {
    FETCH_STOPPED,  /* not started, or drained */
    FETCH_DOWN,     /* Redis is away */
    FETCH_GROUPING, /* making sure of the consumer groups */
    FETCH_READING,  /* a read is under way on the first connection */
    FETCH_WAITING,  /* a blocking read is under way on the second */
    FETCH_FULL,     /* no room: until fetch_resume */
    FETCH_PAUSED,   /* a moment's rest */
};

struct fetch {
    struct fetch_config config;
    struct redis *wait; /* the second connection */
    char prefix[REDIS_KEY_MAX];
    char consumer[CONSUMER_BYTES]; /* what is pending in Redis is this name's: it stays, whatever a reload says */
    struct live *live;
    struct streams streams;
    enum fetch_state state;
    enum stream_class class; /* where this pass is */
    uint32_t pass_entries;
    char reading[STREAM_NAME_BYTES]; /* the stream of a bypost_read, or "" */
    bool grouping;                   /* bypost_groups is under way */
    bool wait_busy;                  /* a blocking read is out */
    uint32_t wait_count;
    bool ticking;       /* promotion is under way */
    uint64_t reread_ms; /* CLOCK_MONOTONIC: what is pending is looked through again; 0: not needed */
    struct event *again, *tick;
    struct job **backlog; /* decoded when the room was used up */
    uint32_t backlog_first, backlog_count, backlog_size;
    uint32_t count;                           /* entries for the next read */
    double recipients_average, bytes_average; /* an entry's */
    uint32_t outstanding;                     /* commands whose callback will come */
    bool destroyed, delivering;
    struct fetch_counters counters;
};

/* fetch.c */
void fetch_timer_set(struct event *timer, uint32_t ms);
const char *fetch_consumer(const struct fetch *fetch);
/* Sends a command whose callback begins with fetch_answered. False when there is no connection. */
bool fetch_send(struct fetch *fetch, struct redis *redis, void (*done)(void *context, redisReply *reply), int argc, const char *const *argv,
                const size_t *lengths);
/* False when fetch is gone already: its memory goes with the last answer. */
bool fetch_answered(struct fetch *fetch);
/* Some entry stays pending that nobody here knows: all that is pending is read again after a while. */
void fetch_reread(struct fetch *fetch);
/* Neither stopped nor without Redis. */
bool fetch_active(const struct fetch *fetch);

/* What was let go is to be read again. Is there a stream whose pending entries wait to be read, and that may be read? */
bool fetch_reread_let_go(struct fetch *fetch);

/* take.c: an entry as it was read; `again`: it may be in flight or partly settled. */
void fetch_take(struct fetch *fetch, struct stream *stream, const redisReply *reply, bool again);
/* The answer to a Function that moves an entry: an error is logged, the entry stays pending. */
void fetch_moved(void *context, redisReply *reply);
/* Hands on what waits decoded, as far as there is room. False when some still waits. */
bool backlog_deliver(struct fetch *fetch);
void backlog_release(struct fetch *fetch);

/* due.c: the timer that promotes what is due and looks for campaigns. */
void fetch_tick(evutil_socket_t fd, short what, void *context);

#endif
