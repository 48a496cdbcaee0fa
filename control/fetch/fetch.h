/* fetch.h: reads jobs from Redis, decodes and checks them. One struct fetch for each shard. */
#ifndef CONTROL_FETCH_FETCH_H
#define CONTROL_FETCH_FETCH_H

#include "control/fetch/redis.h"
#include "control/job.h"
#include <stdint.h>

/* Reading stops while the jobs that live in this process are larger than this together. */
enum { FETCH_BYTES_MAX = 1 << 30 };

struct fetch_config {
    struct event_base *base;
    struct redis *redis;
    const struct config *config;
    uint32_t shard;
    /* How many recipients may come now; 0 stops reading until fetch_resume. */
    uint32_t (*room)(void *context);
    /* A decoded job with its recipients still to be settled in job->pending; the callee takes over the reference. */
    void (*job)(void *context, struct job *job);
    /* Is this recipient of this entry in a slot already (control was restarted while the dataplane lived)? Then fetch leaves it out of
     * `pending`. */
    bool (*in_flight)(void *context, uint32_t shard, const char *stream, struct entry_id entry, uint32_t index);
    /* May this queue be read (it is not stopped)? NULL: all may. */
    bool (*reads)(void *context, uint32_t shard, const char *queue);
    /* So much of the room is for queue high alone: it is read while nothing else is. */
    uint32_t high_reserve;
    /* The epoch that reads carry (control/nodes): a node that was taken for dead reads nothing until fetch_restart. NULL or 0: none. */
    uint64_t (*epoch)(void *context, uint32_t shard);
    /* contents_complete for a job that names a content; NULL: such jobs are handed on as they are. */
    void (*complete)(void *context, struct job *job, void (*done)(void *context, struct job *job, const char *error, bool temporary),
                     void *done_context);
    void *context;
};

struct fetch;
struct fetch *fetch_create(const struct fetch_config *config);
void fetch_destroy(struct fetch *fetch);
/* Begins: first this consumer's pending entries (skipping settled and in-flight recipients), then new ones: `high` first, retries before
 * fresh ones; normal, bulk and all other queues by their weights. Also moves due buckets. Called again after Redis comes back by itself. */
void fetch_start(struct fetch *fetch);
/* There is room again. */
void fetch_resume(struct fetch *fetch);
/* Reads nothing more (drain). Jobs that wait here for room are let go: their entries stay pending in Redis. */
void fetch_stop(struct fetch *fetch);
/* All that is pending is read again: this node has taken over another's work, or was fenced and has another epoch: then jobs that wait here
 * are let go, and what lives here is read again once it has left. Nothing when it is not started. */
void fetch_restart(struct fetch *fetch);
/* Recipients of this job are let go unsettled: its entry stays pending and is read again, once the job has left this process and its queue
 * may be read. */
void fetch_let_go(struct job *job);
/* Another configuration; the address of Redis, its prefix and this node's name stay. */
void fetch_reconfigure(struct fetch *fetch, const struct config *config);
/* How large the jobs are that live in this process, as entries in Redis. */
uint64_t fetch_bytes(const struct fetch *fetch);
struct fetch_counters {
    uint64_t entries, recipients_read, recipients /* handed on */, dead, scheduled, promoted, takes /* of campaigns */,
        overflowed /* recipients moved to a queue of their tenant's */, fenced;
};
const struct fetch_counters *fetch_counters(const struct fetch *fetch);

/* Decodes one entry's `job` value (JSON object or MessagePack map, told apart by the first byte). The job has one reference. NULL with a
 * plain sentence in error that names the field: the dead letter's reason. Pure: used by the CLI to check before submitting, and by the
 * fuzzer. */
struct job *job_decode(const uint8_t *bytes, size_t length, const struct config *config, char *error, size_t error_bytes);
/* The same for a shared content (control/content): a job without recipients, of which from and the bodies may be missing too. */
struct job *job_decode_content(const uint8_t *bytes, size_t length, const struct config *config, char *error, size_t error_bytes);
/* Was it for want of memory, which says nothing of the job? */
bool job_decode_starved(const char *error);

#endif
