/* campaign_batch.h: rows of a file become chunks of recipients that the sender will understand: the same rows, the same chunks. */
#ifndef CONTROL_CLI_CAMPAIGN_BATCH_H
#define CONTROL_CLI_CAMPAIGN_BATCH_H

#include "campaign_dedupe.h"
#include "campaign_rows.h"
#include "control/config/config.h"
#include "control/job.h"

enum { CHUNK_BYTES_MAX = 192 << 10 /* what reading takes at once must stay small */ };

struct batch {
    const struct config *config;
    struct rows *rows;
    struct dedupe *dedupe; /* or NULL */
    uint32_t chunk;        /* recipients a chunk */
    /* A row that is no recipient: told once. */
    void (*rejected)(void *context, uint64_t line, const char *reason);
    /* Whether a recipient that was decoded has what the content needs; a reason in error[ROW_ERROR_BYTES] when not. NULL: it has. */
    bool (*complete)(void *context, const struct job_recipient *recipient, char *error);
    void *context;

    struct writer text;  /* recipients, a comma behind each */
    struct writer check; /* a job around them, for the decoder */
    uint32_t count;
    struct {
        size_t at, address_at, address_length;
        uint64_t line;
        bool plain;
    } recipients[JOB_RECIPIENTS_MAX + 1];
    bool sampled;      /* the decoder has taken a row of this file */
    uint64_t repeated; /* left out, because their address was there before */
    char error[ROW_ERROR_BYTES];
};

enum batch_result {
    BATCH_CHUNK, /* count recipients: text[0..text.at - 1), without the last comma */
    BATCH_END,
    BATCH_FAULT, /* `error` says why nothing more can be read */
};

/* The next chunk. */
enum batch_result batch_next(struct batch *batch);
void batch_free(struct batch *batch);

#endif
