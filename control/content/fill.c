/* fill.c: a job takes from its content what it has not itself. The members are lent: control/fetch/job.c lets them go. */
#include "state.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { METADATA_BYTES_MAX = 4096 }; /* as in a job: it travels in every event */

/* A recipient's metadata goes over the content's, as over a job's own. False without memory. */
static bool metadata_merge(struct job_recipient *recipient, const char *under, bool *too_long) {
    json_t *both = json_loads(under, 0, NULL), *own = json_loads(recipient->metadata, 0, NULL);
    char *text = both && own && json_object_update(both, own) == 0 ? json_dumps(both, JSON_COMPACT) : NULL;
    json_decref(both);
    json_decref(own);
    if (!text) {
        return false;
    }
    free(recipient->metadata);
    recipient->metadata = text;
    *too_long = strlen(text) > METADATA_BYTES_MAX;
    return true;
}

static const char *metadata_fill(struct job *job, const struct job *fields) {
    if (!fields->metadata || job->metadata) {
        return NULL;
    }
    job->metadata = fields->metadata;
    for (uint32_t i = 0; i < job_recipient_count(job); i++) {
        bool too_long = false;
        if (job->recipients[i].metadata && !metadata_merge(&job->recipients[i], fields->metadata, &too_long)) {
            return "Out of memory.";
        }
        if (too_long) {
            return "metadata: The recipient's and the content's together are over 4096 bytes as JSON.";
        }
    }
    return NULL;
}

/* A raw message is sent as it is: what would change it may not stand beside it. */
static const char *raw_check(const struct job *job) {
    const char *what = job->text                                       ? "text"
                       : job->html                                     ? "html"
                       : job->subject                                  ? "subject"
                       : job->header_count || job->sender_header.email ? "headers"
                       : job->attachment_count                         ? "attachments"
                       : job->reply_to_count                           ? "reply_to"
                       : job->list_unsubscribe                         ? "list_unsubscribe"
                       : job->list_id                                  ? "list_id"
                       : job->feedback_id                              ? "feedback_id"
                       : job->precedence                               ? "precedence"
                       : job->merge_global_data                        ? "merge_global_data"
                                                                       : NULL;
    for (uint32_t i = 0; i < job_recipient_count(job) && !what; i++) {
        what = job->recipients[i].merge_data ? "merge_data" : job->recipients[i].header_count ? "recipients' headers" : NULL;
    }
    return what;
}

static void members_fill(struct job *job, const struct job *fields) {
#define LEND(member)                                                                                                                       \
    if (!job->member)                                                                                                                      \
    job->member = fields->member
    LEND(pool);
    LEND(envelope_sender);
    LEND(subject);
    LEND(text);
    LEND(html);
    LEND(merge_global_data);
    LEND(list_unsubscribe);
    LEND(list_id);
    LEND(feedback_id);
    LEND(precedence);
    LEND(bulk);
    LEND(verp);
#undef LEND
    if (!job->from.email) {
        job->from = fields->from;
    }
    if (!job->reply_to) {
        job->reply_to = fields->reply_to;
        job->reply_to_count = fields->reply_to_count;
    }
    if (!job->headers && !job->sender_header.email) {
        job->sender_header = fields->sender_header;
    }
    if (!job->headers) {
        job->headers = fields->headers;
        job->header_count = fields->header_count;
    }
    if (!job->attachments) {
        job->attachments = fields->attachments;
        job->attachment_count = fields->attachment_count;
    }
    if (!job->tags) {
        job->tags = fields->tags;
        job->tag_count = fields->tag_count;
    }
    if (!job->dsn) {
        job->dsn = fields->dsn;
        job->dsn_full = fields->dsn_full;
    }
    job->require_tls |= fields->require_tls;
    job->has_built_ins |= fields->has_built_ins;
    job->fills_built_ins |= fields->fills_built_ins;
}

const char *content_fill(struct job *job, const struct job *fields, char *error, size_t error_bytes) {
    if (fields->raw) {
        const char *beside = raw_check(job);
        if (beside) {
            snprintf(error, error_bytes, "content: It is a raw message, which is sent as it is: the job must not have %s beside it.",
                     beside);
            return error;
        }
        job->raw = fields->raw;
        job->raw_length = fields->raw_length;
    }
    members_fill(job, fields);
    if (!job->from.email) {
        return "The job has no from, and its content neither.";
    }
    if (!job->text && !job->html && !job->raw) {
        return "content: It has neither text, html nor raw.";
    }
    return metadata_fill(job, fields);
}
