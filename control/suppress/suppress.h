/* suppress.h: addresses that get no mail, for a tenant or for all (QUEUE.md, SMTP.md section 6). The list lives in Redis; a filter here
 * answers for the many that are on no list. */
#ifndef CONTROL_SUPPRESS_SUPPRESS_H
#define CONTROL_SUPPRESS_SUPPRESS_H

#include "control/config/config.h"
#include "control/fetch/redis.h"
#include "control/job.h"
#include "control/outcome.h"
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

struct suppress_entry {
    const char *tenant;            /* NULL: for all tenants */
    const char *address;           /* local@domain; compared with the domain in lower case and the local part without case */
    const char *reason;            /* a class's name, "unsubscribe", "complaint", "manual", ... */
    const char *source;            /* who put it there: "class", "import", "operator" */
    const char *provider;          /* or NULL: for `undo` */
    uint64_t since_ms, expires_ms; /* CLOCK_REALTIME; expires 0: never */
};

struct suppress_config {
    struct event_base *base;
    const struct config *config;
    struct redis *redis; /* shard 0's */
    void *context;
};

struct suppress;
struct suppress *suppress_create(const struct suppress_config *config);
void suppress_destroy(struct suppress *suppress);
/* Are recipients of this job's pending list suppressed? `done` is called once, possibly at once: reasons[i] is NULL or the reason of
 * pending[i] (valid during the call). While Redis is away it waits: nothing is sent unchecked. suppress holds the job meanwhile. */
void suppress_check(struct suppress *suppress, struct job *job, void (*done)(void *context, struct job *job, const char *const *reasons),
                    void *context);
/* Puts an address on the list (copied); kept and repeated until Redis has it. */
void suppress_add(struct suppress *suppress, const struct suppress_entry *entry);
struct suppress_counters {
    uint64_t checked, asked /* of Redis */, suppressed, added, filter_entries, filter_bytes;
};
const struct suppress_counters *suppress_counters(const struct suppress *suppress);

#endif
