/* suppress.h: addresses that get no mail, for a tenant or for all (QUEUE.md, SMTP.md section 6). The list lives in Redis; a filter here
 * answers for the many that are on no list. */
#ifndef CONTROL_SUPPRESS_SUPPRESS_H
#define CONTROL_SUPPRESS_SUPPRESS_H

#include "control/config/config.h"
#include "control/delivery.h"
#include "control/fetch/redis.h"
#include "control/job.h"
#include "control/outcome.h"
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    SUPPRESS_POLL_MS = 200,  /* how often the log of changes is read */
    SUPPRESS_TRUST_MS = 500, /* an answer of the log older than this: every check asks Redis */
};

struct suppress_entry {
    const char *tenant;            /* NULL: for all tenants */
    const char *address;           /* local@domain, or @domain for a whole one; compared without case, the domain in A-labels */
    const char *reason;            /* a class's name, "unsubscribe", "complaint", "manual", ... */
    const char *source;            /* who put it there: "class", "import", "operator" */
    const char *provider;          /* or NULL: for `undo` */
    uint64_t since_ms, expires_ms; /* CLOCK_REALTIME; expires 0: never. Redis keeps seconds */
};

/* What puts an address on the list only when it has happened several times. Kept in Redis, in the entry's place. */
struct suppress_strike {
    struct suppress_entry entry; /* source and since_ms are not looked at; expires_ms: 0, or how long the entry will live (ms) */
    uint32_t needed;             /* strikes */
    uint32_t span_s;             /* between the first and the last of them, at least */
    uint32_t spacing_s;          /* one that comes sooner after the last does not count */
    uint32_t memory_s;           /* how long the count lives */
};

struct suppress_config {
    struct event_base *base;
    const struct config *config;
    struct redis *redis; /* shard 0's */
    /* Others have put addresses on a list: what waits here and for which suppress_is_recent is true must be checked again. May be NULL. */
    void (*added)(void *context);
    void *context;
};

struct suppress;
struct suppress *suppress_create(const struct suppress_config *config);
/* Checks of jobs that wait are dropped without an answer: the jobs are released, Redis has them as pending. Those of one recipient are
 * answered with NULL. */
void suppress_destroy(struct suppress *suppress);
/* Are recipients of this job's pending list suppressed? `done` is called once, possibly at once: reasons[i] is NULL or the reason of
 * pending[i] (valid during the call). While Redis is away it waits: nothing is sent unchecked. suppress holds the job meanwhile. */
void suppress_check(struct suppress *suppress, struct job *job, void (*done)(void *context, struct job *job, const char *const *reasons),
                    void *context);
/* The same for one recipient of a job, asked of Redis; `reason` NULL: not suppressed. The job must live until `done`. */
void suppress_check_one(struct suppress *suppress, struct job *job, uint32_t index, void (*done)(void *context, const char *reason),
                        void *context);
/* May this delivery's recipient have been put on a list since it was checked (queued_ms)? */
bool suppress_is_recent(const struct suppress *suppress, const struct delivery *delivery);
/* Checks that wait for Redis. */
uint32_t suppress_waiting(const struct suppress *suppress);
/* Puts an address on the list (copied); kept and repeated until Redis has it. What is there already stays. */
void suppress_add(struct suppress *suppress, const struct suppress_entry *entry);
/* Counts it. */
void suppress_strike(struct suppress *suppress, const struct suppress_strike *strike);
/* Takes back what suppress_add put there. */
void suppress_remove(struct suppress *suppress, const char *tenant, const char *address);
/* Mail was accepted for this address: its strikes and its domain's are forgotten. Cheap when it has none. */
void suppress_accepted(struct suppress *suppress, const char *tenant, const char *address);
/* Does an operator say that what this provider says of unknown recipients is true (`bypost suppress trust`)? */
bool suppress_trusts(const struct suppress *suppress, const char *provider, uint64_t now_ms);
/* Bits of the filter are known and current: answers need no Redis. */
bool suppress_ready(const struct suppress *suppress);
struct suppress_counters {
    uint64_t checked, asked /* of Redis */, suppressed, added, filter_entries, filter_bytes, loads, load_ms /* the last one's */,
        dropped /* additions, when too many waited for Redis */;
};
const struct suppress_counters *suppress_counters(const struct suppress *suppress);

#endif
