/* state.h: what fetch holds, and what its files use of each other. Private to fetch. */
#ifndef CONTROL_FETCH_STATE_H
#define CONTROL_FETCH_STATE_H

#include "control/clock.h"
#include "fetch.h"
#include "flows.h"
#include "streams.h"

#include <time.h>

enum {
    TICK_MS = 1000,
    TICK_MIN_MS = 20, /* promotion never runs more often */
    PAUSE_MS = 100,   /* after an answer that makes no sense */
    ERROR_BYTES = 512,
    CONSUMER_BYTES = 256,
    REREAD_MS = 30000, /* an entry that could be neither taken nor moved is looked at again after this */
    POLL_MS = 50,      /* how long a campaign's first chunk waits at most while nothing else is there to read */
    COUNT_FIRST = 16,
    COUNT_MAX = 200,        /* entries a read */
    TAKE_RECIPIENTS = 1024, /* of campaigns a read: `high` is looked at between two of them */
    POSITION_BYTES = 48,
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

/* Queues besides high, normal and bulk (others.c). */
struct others {
    struct stream *items; /* whose pending entries are to be read */
    uint32_t count, size;
    bool sweeping; /* they are being looked for, behind `position` */
    char position[POSITION_BYTES];
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
    uint32_t tried; /* flows found empty in this pass: a bit each */
    enum flow flow; /* being read */
    struct flows flows;
    struct others others;
    bool unknown;        /* nothing is read until Redis says that this node is the one it knows */
    bool fenced;         /* it said that it is not */
    uint64_t epoch;      /* of what is in hand */
    uint32_t generation; /* counts restarts */
    uint64_t completing; /* recipients of jobs that wait for their content */
    struct job **excess; /* to be moved to their tenants' queues */
    uint32_t excess_count, excess_size;
    char reading[STREAM_NAME_BYTES]; /* the stream of a bypost_read, or "" */
    bool grouping;                   /* bypost_groups is under way */
    bool wait_busy;                  /* a blocking read is out */
    uint32_t wait_count;
    bool polling;       /* others_poll is under way */
    bool ticking;       /* promotion is under way */
    uint64_t reread_ms; /* CLOCK_MONOTONIC: what is pending is looked through again; 0: not needed */
    struct event *again, *tick;
    struct job **backlog; /* decoded when the room was used up */
    uint32_t backlog_first, backlog_count, backlog_size;
    uint32_t count;                           /* entries for the next read */
    uint32_t asked;                           /* entries of each stream, by the read under way */
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

bool fetch_reads(const struct fetch *fetch, const struct stream *stream);
/* The epoch as text. */
void fetch_epoch(const struct fetch *fetch, char out[24]);
/* Redis refuses this node: true when the error says so. */
bool fetch_is_fenced(struct fetch *fetch, const char *error);
void fetch_pause(struct fetch *fetch, uint32_t ms);
/* The one place that changes the state. */
void fetch_enter(struct fetch *fetch, enum fetch_state state);
/* What comes next: called whenever nothing is under way. */
void fetch_next(struct fetch *fetch);

/* reading.c */
/* How many recipients may come; high: with what is reserved for that queue. 0: no room. */
uint32_t reading_room(struct fetch *fetch, bool high);
/* How many entries the next read of single streams may bring, for so much room. */
uint32_t reading_count(const struct fetch *fetch, uint32_t room);
/* A group or a key went away, or the answer makes no sense: the groups are made sure of again. */
void reading_failed(struct fetch *fetch, const char *error);
/* Reads one stream's pending entries, or with a new group all of them, with their progress. */
void reading_again(struct fetch *fetch, const struct stream *stream, uint32_t count);
/* XREADGROUP over the ready streams of a class. False when there is none. */
bool reading_new(struct fetch *fetch, enum stream_class class, uint32_t count);
/* The blocking read on the second connection: of all ready streams, or of high alone. False when it cannot be sent. */
bool reading_wait(struct fetch *fetch, bool high);

/* others.c */
/* Looks for pending entries of other queues. True: a question is under way. */
bool others_sweep(struct fetch *fetch);
void others_sweep_again(struct fetch *fetch);
/* The pending entries of this stream are to be read. */
void others_add(struct fetch *fetch, const char *stream);
void others_remove(struct fetch *fetch, struct stream *stream);
struct stream *others_by_name(struct fetch *fetch, const char *name);
/* One that may be read, or NULL. */
struct stream *others_pending(struct fetch *fetch);
/* Reads campaigns in fair order; recipients 0: only asks whether this node is fenced. */
void others_take(struct fetch *fetch, uint32_t recipients);
/* While nothing else is there: are there campaigns to read? */
void others_poll(struct fetch *fetch);

/* take.c: an entry as it was read. expires_ms: of its queue, or 0. */
void fetch_take(struct fetch *fetch, const struct stream *stream, const redisReply *reply, uint64_t expires_ms);
/* Moves what was read beyond its tenant's share: after the entries of an answer. */
void excess_move(struct fetch *fetch);
/* The answer to a Function that moves an entry: an error is logged, the entry stays pending. */
void fetch_moved(void *context, redisReply *reply);
/* Hands on what waits decoded, as far as there is room. False when some still waits. */
bool backlog_deliver(struct fetch *fetch);
void backlog_release(struct fetch *fetch);

/* due.c: the timer that promotes what is due. */
void fetch_tick(evutil_socket_t fd, short what, void *context);

#endif
