/* shard.h: control's thread: an event loop, one of each stage, wired in the order of a message's way, and the shards of the queue that it
 * serves. */
#ifndef CONTROL_SHARD_SHARD_H
#define CONTROL_SHARD_SHARD_H

#include "control/classify/classify.h"
#include "control/config/config.h"
#include "control/observe/alarm.h"
#include "control/observe/metrics.h"
#include "control/sign/sign.h"
#include <bypost/journal.h>
#include <stddef.h>
#include <stdint.h>

struct shard;

/* What all shards share; immutable, or safe for threads. */
struct shard_config {
    const struct config *config;
    struct journal *journal;
    struct press *press;
    const struct classifier *classifier;
    const struct identity *identity; /* for the header that notices give back */
    struct alarms *alarms;           /* of this thread */
};

/* NULL with a sentence in error. */
struct shard *shard_create(const struct shard_config *config, char *error, size_t error_bytes);
void shard_destroy(struct shard *shard);
/* Runs until drained after shard_stop. 0, or 1 when the drain's time ran out before everything was settled (Redis keeps what is left as
 * pending). */
int shard_run(struct shard *shard);
/* Begins the drain; from a signal handler of the shard's loop. */
void shard_stop(struct shard *shard);
/* Another configuration or other rules: limits and lookups follow it; what is under way goes on. */
void shard_reconfigure(struct shard *shard, const struct config *config, const struct classifier *classifier);
/* Relays of the configuration have other tokens (config_tokens_read): their paths are published anew, and what rested for the old ones is
 * tried. */
void shard_tokens_changed(struct shard *shard);
void shard_reopen_logs(struct shard *shard);
struct event_base *shard_base(struct shard *shard);
/* A JSON text of the counters of all stages, and of the alarms, malloc'd. */
char *shard_stats(struct shard *shard);
/* The same with what `bypost top` shows: the busiest sites, providers, classes, tenants and queues, and what Redis holds. */
char *shard_top(struct shard *shard);
/* What is in hand, by queue, site and provider. */
char *shard_hand(struct shard *shard);
/* JSON: an array of the versions of states and holds that this process obeys, by shard. */
char *shard_versions(struct shard *shard);
/* Where in hand a recipient, a job's id or an entry is: {"found": [...]}, 100 at most. */
char *shard_find(struct shard *shard, const char *wanted);
/* How a domain is reached: site, endpoints, lanes with their rests; status "pending" while DNS is asked: ask again. */
char *shard_explain(struct shard *shard, const char *domain);
/* The alarms alone: an array. */
char *shard_alarms(struct shard *shard);
/* A line for `systemctl status`, into text[text_bytes]. True: Redis and the dataplane are there. */
bool shard_status(struct shard *shard, char *text, size_t text_bytes);
/* Everything that is counted, for /metrics. */
void shard_metrics(struct shard *shard, struct metrics_page *page);

#endif
