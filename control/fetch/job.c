/* job.c: a job's memory. */
#include "live.h"

#include <assert.h>
#include <stdlib.h>

struct job *job_create(void) {
    struct job_box *box = calloc(1, sizeof *box);
    if (!box) {
        return NULL;
    }
    box->job.references = 1;
    return &box->job;
}

static void mailbox_clear(struct mailbox *mailbox) {
    free(mailbox->email);
    free(mailbox->name);
}

static void mailboxes_free(struct mailbox *mailboxes, uint32_t count) {
    for (uint32_t i = 0; mailboxes && i < count; i++) {
        mailbox_clear(&mailboxes[i]);
    }
    free(mailboxes);
}

static void headers_free(struct job_header *headers, uint32_t count) {
    for (uint32_t i = 0; headers && i < count; i++) {
        free(headers[i].name);
        free(headers[i].value);
    }
    free(headers);
}

/* What a job borrows of its content is not its own to free. */
static void content_detach(struct job *job) {
    if (!job->content) {
        return;
    }
    const struct job *fields = job->content->fields;
#define LET_GO(member)                                                                                                                     \
    if (job->member == fields->member)                                                                                                     \
    job->member = (__typeof__(job->member)){0}
    LET_GO(envelope_sender);
    LET_GO(subject);
    LET_GO(text);
    LET_GO(html);
    LET_GO(raw);
    LET_GO(merge_global_data);
    LET_GO(metadata);
    LET_GO(list_unsubscribe);
    LET_GO(list_id);
    LET_GO(feedback_id);
    LET_GO(pool);
#undef LET_GO
    if (job->from.email == fields->from.email) {
        job->from = (struct mailbox){.email = NULL};
    }
    if (job->sender_header.email == fields->sender_header.email) {
        job->sender_header = (struct mailbox){.email = NULL};
    }
    if (job->reply_to == fields->reply_to) {
        job->reply_to = NULL;
    }
    if (job->headers == fields->headers) {
        job->headers = NULL;
        job->header_count = 0;
    }
    if (job->attachments == fields->attachments) {
        job->attachments = NULL;
        job->attachment_count = 0;
    }
    if (job->tags == fields->tags) {
        job->tags = NULL;
        job->tag_count = 0;
    }
    content_release(job->content);
    job->content = NULL;
}

void content_release(struct content *content) {
    assert(content->references > 0);
    if (--content->references == 0) {
        content->unreferenced(content);
    }
}

static void job_free(struct job *job) {
    struct job_box *box = (struct job_box *)job;
    live_remove(box);
    content_detach(job);
    free(job->id);
    free(job->tenant);
    free(job->campaign);
    free(job->pool);
    mailbox_clear(&job->from);
    mailbox_clear(&job->sender_header);
    free(job->envelope_sender);
    mailboxes_free(job->reply_to, job->reply_to_count);
    mailboxes_free(job->to, job->to_count);
    mailboxes_free(job->cc, job->cc_count);
    free(job->subject);
    free(job->text);
    free(job->html);
    free(job->raw);
    headers_free(job->headers, job->header_count);
    for (uint32_t i = 0; i < job->attachment_count; i++) {
        free(job->attachments[i].filename);
        free(job->attachments[i].content_type);
        free(job->attachments[i].content_id);
        free(job->attachments[i].bytes);
    }
    free(job->attachments);
    free(job->merge_global_data);
    free(job->metadata);
    for (uint32_t i = 0; i < job->tag_count; i++) {
        free(job->tags[i]);
    }
    free(job->tags);
    free(job->list_unsubscribe);
    free(job->list_id);
    free(job->feedback_id);
    free(job->verp_address);
    free(job->pending);
    for (uint32_t i = 0; job->recipients && i < job_recipient_count(job); i++) {
        struct job_recipient *recipient = &job->recipients[i];
        mailbox_clear(&recipient->mailbox);
        free(recipient->metadata);
        free(recipient->merge_data);
        headers_free(recipient->headers, recipient->header_count);
    }
    free(job->recipients);
    free(job->places);
    free(job->source_text);
    free(job->content_id);
    free(box);
}

void job_release(struct job *job) {
    if (job) {
        assert(job->references > 0);
        if (--job->references == 0) {
            job_free(job);
        }
    }
}
