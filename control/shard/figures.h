/* figures.h: what is counted for operators: rates by name, durations, depths. Private to shard. */
#ifndef CONTROL_SHARD_FIGURES_H
#define CONTROL_SHARD_FIGURES_H

#include "control/observe/histogram.h"
#include "control/observe/metrics.h"
#include "control/observe/tally.h"
#include "control/settle/settle.h"
#include "control/shape/census.h"
#include <jansson.h>

struct shard;

/* What a recipient's attempt came to, as tallies count it. The totals of settle are exact; these are by the reply's verdict. */
enum figure_result { RESULT_DELIVERED, RESULT_DEFERRED, RESULT_BOUNCED, RESULT_STOPPED /* expired, suppressed, cancelled */, RESULTS };
extern const char *const figure_results[RESULTS];
static_assert((int)RESULTS == (int)TALLY_COUNTS, "a tally counts results");

enum figure_tally { TALLY_SITES, TALLY_PROVIDERS, TALLY_CLASSES, TALLY_TENANTS, TALLY_QUEUES, TALLIES };
extern const char *const figure_tallies[TALLIES]; /* "site", ... */

enum { SURVEY_QUEUES_MAX = 24, SURVEY_STANDARD = 3, SURVEY_MS = 5000, PING_MS = 1000 };

/* A queue as Redis has it, of one shard of the queue. */
enum survey_field {
    SURVEY_SUBMITTED,
    SURVEY_DELIVERED,
    SURVEY_BOUNCED,
    SURVEY_EXPIRED,
    SURVEY_SUPPRESSED,
    SURVEY_CANCELLED,
    SURVEY_DEAD,
    SURVEY_RETRYING,
    SURVEY_PARKED,
    SURVEY_HELD,
    SURVEY_FIELDS
};
struct survey_queue {
    char name[QUEUE_NAME_MAX + 1], state[16];
    uint64_t entries, retry_entries; /* in its streams */
    uint64_t fields[SURVEY_FIELDS];
};

/* What Redis said last, of one shard of the queue. */
struct survey {
    uint32_t asked; /* commands without an answer: while there are any, nothing more is asked */
    uint64_t answered_ms, latency_us;
    uint64_t memory_bytes, memory_max_bytes; /* max 0: none */
    uint64_t memory_room_bytes;              /* maxmemory, or the machine's memory without one */
    uint64_t depth, events_trimmed, dead_entries, event_entries, due_lists, parked_lists, campaigns;
    uint32_t queue_count;
    struct survey_queue queues[SURVEY_QUEUES_MAX]; /* high, normal, bulk, then the newest campaigns */
};

struct figures {
    struct shard *shard;
    struct tally *tallies[TALLIES];
    struct histogram delivery[2], lookup, redis; /* delivery: 0 normal, 1 high */
    struct census census;
    struct survey surveys[16];
    struct event *second_timer, *census_timer, *survey_timer;
    uint32_t redis_away_s, dataplane_away_s; /* for how long, at the last look */
};

/* NULL without memory. Freed after the connections to Redis: their last callbacks come here. */
struct figures *figures_create(struct shard *shard);
void figures_stop(struct figures *figures);
void figures_free(struct figures *figures);
void figures_settled(struct figures *figures, const struct settle_item *item, const struct delivery *delivery);
void figures_routed(struct figures *figures, uint64_t asked_us);

/* survey.c: asks Redis, in the background, how much lies there. */
void survey_ping(struct figures *figures);
void survey_ask(struct figures *figures);

/* One counter or gauge of a stage. */
struct figure {
    const char *group, *name;
    enum metric_type type;
    const char *help;
    uint64_t value;
};
enum { FIGURES_MAX = 112 };
/* Into figures[FIGURES_MAX]; returns how many. */
uint32_t figures_list(const struct shard *shard, struct figure *figures);

#endif
