/* live.h: the jobs that live in this process, by entry. Private to fetch. A job of which something is still held is never handed on a
 * second time, however often Redis shows its entry. */
#ifndef CONTROL_FETCH_LIVE_H
#define CONTROL_FETCH_LIVE_H

#include "control/job.h"

struct live;

/* How a job is really allocated: job_release finds its way back to the table. */
struct job_box {
    struct job job;             /* first */
    size_t bytes;               /* of its entry in Redis: what the job costs here, more or less */
    bool let_go;                /* its entry must be read again when it has left */
    uint32_t recipients;        /* that it came with */
    struct live_tenant *tenant; /* whose share of `normal` it is part of, or NULL */
    struct live *live;
    struct job_box *next, **link;
};

/* An empty job with one reference, or NULL. */
struct job *job_create(void);

struct live *live_create(void);
/* Jobs that outlive the table are only taken out of it. */
void live_destroy(struct live *live);
bool live_has(const struct live *live, const char *stream, struct entry_id entry);
/* 0, or -EEXIST when it is in a table. The job leaves by itself with its last reference. */
int live_add(struct live *live, struct job *job, size_t bytes);
void live_remove(struct job_box *box);
/* What is called when a job leaves of which something was let go. */
void live_on_let_go(struct live *live, void (*left)(void *context, const struct job *job), void *context);
/* All that live here are to be read again when they have left. */
void live_let_go_all(struct live *live);
size_t live_count(const struct live *live);
/* Recipients of the jobs that live here; of those of queue normal that are this tenant's. */
uint64_t live_recipients(const struct live *live);
uint64_t live_tenant_recipients(const struct live *live, const char *tenant);
/* The sum of what was given with them. */
uint64_t live_bytes(const struct live *live);

#endif
