/* state.h: what the files of nodes share. Private to nodes. */
#ifndef CONTROL_NODES_STATE_H
#define CONTROL_NODES_STATE_H

#include "nodes.h"

#include "control/clock.h"
#include <hiredis/hiredis.h>

enum {
    TICK_MS = 200,              /* leases, and what is due besides; the middle of a draw, so that nodes do not ask in step */
    LATE_MS = 2000,             /* so long before others may count it as dead a node stops by itself */
    GAP_MS = 3 * NODES_BEAT_MS, /* without an answer for so long this node knows nothing of the others: it watches them anew */
    KNOWN_MS = 5000,            /* a new node waits so long at most for all others to know of it before it takes part in limits */
    LEASE_LIFE_MS = 3000,
    LEASE_SLACK_MS = 500, /* a lease ends here so much before it does in Redis */
    LEASES_A_CALL = 128,
    TAKEOVER_STEP = 100,  /* entries that change hands in one call */
    TAKEOVER_TELL = 2000, /* entries after which what was taken over is read, though more may follow */
    ORPHANS_FIRST_MS = 15000,
    ORPHANS_MS = 60000,
    LEAVE_MS = 1000, /* an orderly end waits no longer for Redis */
    PEERS_MAX = 2 * NODES_MAX,
    SHARDS_MAX = 16,
    NAME_BYTES = 256,
    CURSOR_BYTES = 24,
    NUMBER_BYTES = 24,
};

enum membership {
    MEMBER_NOT_YET, /* this process never had an epoch here */
    MEMBER_HOLDS,
    MEMBER_FENCED, /* it must register anew */
};

enum peer_state { PEER_ALIVE, PEER_DEAD, PEER_LEFT, PEER_GONE };

/* Another node as Redis showed it last. */
struct peer {
    char name[NAME_BYTES];
    uint64_t epoch, beat_ms, seen; /* beat_ms: by Redis's clock; only whether it changes matters */
    enum peer_state state;
    uint64_t since_ms; /* CLOCK_MONOTONIC: since when this node sees this beat and no later one */
    bool listed;
};

/* The work of one dead node, on its way to this one. */
struct takeover {
    bool active;
    char name[NAME_BYTES];
    uint64_t epoch, beat_ms;
    char cursor[CURSOR_BYTES];
    uint64_t moved, pass_moved, untold;
};

/* A shard of the queue. */
struct member {
    struct nodes *nodes;
    uint32_t index;
    struct redis *redis;
    char prefix[REDIS_KEY_MAX];
    enum membership state;
    uint64_t epoch;
    bool beating, refused_logged;
    uint64_t beat_due_ms, beat_sent_ms, heard_ms, answered_ms, since_ms; /* CLOCK_MONOTONIC; since: of the epoch */
    uint32_t alive;                                                      /* this one included */
    bool known;                                                          /* all others know of this node */
    uint32_t peer_count;
    struct peer peers[PEERS_MAX];
    struct takeover takeover;
    bool taking, looking; /* a call is under way: of the take-over, for orphans */
    char orphans_cursor[CURSOR_BYTES];
    uint64_t orphans_due_ms;
    bool leaving, left;
};

struct lease_call;

struct nodes {
    struct nodes_config config;
    char name[NAME_BYTES];
    char instance[20];
    struct event *tick, *soon;
    struct lease_call *lease; /* under way, or NULL */
    uint64_t random;
    uint32_t shared; /* what shape was told */
    uint64_t leave_until_ms;
    uint32_t outstanding; /* commands whose answers will come */
    bool started, destroyed;
    struct nodes_counters counters;
    struct member members[];
};

static inline uint64_t monotonic_ms(void) {
    return clock_ms(CLOCK_MONOTONIC);
}

/* nodes.c */
/* FCALL of a Function; its callback begins with nodes_answered. False without a connection. */
bool nodes_call(struct member *member, void (*done)(void *context, redisReply *reply), const char *function, int argc,
                const char *const *argv);
/* False when nodes is gone: its memory goes with the last answer. */
bool nodes_answered(struct nodes *nodes);
void member_fence(struct member *member, const char *why);
bool peer_is_dead(const struct peer *peer, uint64_t now_ms);
/* The word of an array's element, or "". */
const char *reply_word(const redisReply *reply, size_t at);

/* takeover.c */
void takeover_next(struct member *member);
void orphans_look(struct member *member, uint64_t now_ms);

/* lease.c */
void lease_ask(struct nodes *nodes);
/* What is under way is given up. */
void lease_abandon(struct nodes *nodes);

#endif
