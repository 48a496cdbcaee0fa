/* job_fuzz.c: libFuzzer on the decoder of jobs: anybody who can write to Redis can write anything. What it takes, it must take again of a
 * part of it: decode(subset) is what was selected. */
#include "control/fetch/fetch.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool condition) {
    if (!condition) {
        abort();
    }
}

static bool same(const char *a, const char *b) {
    return a && b ? strcmp(a, b) == 0 : a == b;
}

/* Those recipients whose bit is set in `mask`, over and over. */
static void subset_check(const struct job *job, const struct config *config, uint8_t mask) {
    uint32_t indexes[JOB_RECIPIENTS_MAX], count = 0;
    for (uint32_t i = 0; i < job->recipient_total; i++) {
        if (mask >> (i % 8) & 1) {
            indexes[count++] = i;
        }
    }
    size_t length;
    char error[512], *text = job_subset(job, indexes, count, &length);
    must((text != NULL) == (job->source_text && count > 0));
    if (!text) {
        return;
    }
    struct job *part = job_decode((const uint8_t *)text, length, config, error, sizeof error);
    must(part && part->recipient_total == count && job_place(part, indexes, count, job->recipient_total) == 0);
    for (uint32_t i = 0; i < count; i++) {
        const struct job_recipient *a = job_recipient(job, indexes[i]), *b = job_recipient(part, indexes[i]);
        must(b && same(a->mailbox.email, b->mailbox.email) && same(a->mailbox.name, b->mailbox.name) &&
             same(a->merge_data, b->merge_data) && same(a->metadata, b->metadata) && a->header_count == b->header_count);
    }
    job_release(part);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const struct config config = {.max_message_bytes = 1 << 20, .max_recipients_per_job = 500};
    char error[512];
    struct job *job = job_decode(data, size, &config, error, sizeof error);
    if (job) {
        must(job->pending_count > 0 && job->pending_count <= job->recipient_total && (job->from.email || job->content_id));
        subset_check(job, &config, (uint8_t)(data[size / 2] | data[size - 1]));
        subset_check(job, &config, 0xff);
        job_release(job);
    } else {
        must(error[0] != 0);
    }
    job = job_decode_content(data, size, &config, error, sizeof error);
    must(job || error[0] != 0);
    job_release(job);
    return 0;
}
