/* content.h: contents shared by many recipients (`bypost:content:ID`): loaded once, decoded once, and handed to every chunk that names
 * them. One struct contents for the process. */
#ifndef CONTROL_CONTENT_CONTENT_H
#define CONTROL_CONTENT_CONTENT_H

#include "control/config/config.h"
#include "control/fetch/redis.h"
#include "control/job.h"
#include <event2/event.h>
#include <stdint.h>

enum { CONTENTS_BYTES_MAX = 256 << 20 };

struct contents_config {
    struct event_base *base;
    const struct config *config;
    struct redis *const *redis; /* [shards]: the first one's connection also serves the contents; they outlive this */
    uint32_t shards;
    const struct identity *identity; /* for boundaries (control/render); outlives this */
    uint32_t janitor_ms;             /* between two looks at what is counted; 0: a minute */
};

struct contents;
struct contents *contents_create(const struct contents_config *config);
/* Jobs that wait for a content are handed back (temporary); those that have one keep it. */
void contents_destroy(struct contents *contents);
void contents_reconfigure(struct contents *contents, const struct config *config);
/* Completes a job that names a content (job->content_id): its subject, text, html, headers, attachments, from, ... become the content's,
 * where the job has none of its own. `done` is called once, at once when the content is known: error NULL, or a sentence when there is no
 * such content or it cannot be understood (temporary: false: a dead letter), or Redis or memory lacks (temporary: read the entry again).
 * The job is the callee's meanwhile. Contents never change under their ID. */
void contents_complete(struct contents *contents, struct job *job,
                       void (*done)(void *context, struct job *job, const char *error, bool temporary), void *context);
struct contents_counters {
    uint64_t loaded, hits, missing /* or malformed */, bytes, held /* that jobs refer to */, expired /* given their last day */;
};
const struct contents_counters *contents_counters(const struct contents *contents);

#endif
