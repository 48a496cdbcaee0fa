/* fields.c: the header fields of a composed message, in order, and what of them a producer may not set. */
#include "fields.h"
#include "bulk.h"
#include "header.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Fields that are written from the job's own members, or that only relays and signers may add. */
static const char *const owned_fields[] = {
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Bcc",
    "Subject",
    "Date",
    "Message-ID",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Content-Disposition",
    "Content-ID",
    "Return-Path",
    "Received",
    "DKIM-Signature",
};

static bool is_owned(const char *name) {
    for (size_t i = 0; i < sizeof(owned_fields) / sizeof(owned_fields[0]); i++)
        if (strcasecmp(name, owned_fields[i]) == 0)
            return true;
    return false;
}

static int write_text_field(struct rendering *r, const char *name, const char *value) {
    const char *filled;
    char *owned;
    int result = rendering_fill(r, value, false, &filled, &owned);
    if (result == 0)
        header_text(&r->writer, name, filled);
    free(owned);
    return result;
}

static int write_custom_field(struct rendering *r, const struct job_header *header) {
    char text[80];
    if (!header_name_is_legal(header->name) || is_owned(header->name))
        return rendering_fail(r, -EINVAL, "the header \"%s\" cannot be set here", rendering_shown(header->name, text, sizeof(text)));
    if (strpbrk(header->value, "\r\n") != NULL)
        return rendering_fail(r, -EINVAL, "the header \"%s\" has a line break in its value", header->name);
    if (bulk_owns(r->job, header->name))
        return 0;
    return write_text_field(r, header->name, header->value);
}

/* A recipient's own header replaces the job's of the same name. */
static bool is_replaced(const struct rendering *r, const struct job_header *header) {
    for (uint32_t i = 0; i < r->recipient->header_count; i++)
        if (strcasecmp(r->recipient->headers[i].name, header->name) == 0)
            return true;
    return false;
}

/* What is written already, when the job has not brought its own (`own`: it has not). */
static bool write_prepared(struct rendering *r, const struct prepared_fields *fields, bool own) {
    if (!fields->there || !own)
        return false;
    writer_bytes(&r->writer, fields->writer.bytes, fields->writer.at);
    r->writer.line = r->writer.at;
    r->writer.leading_dot |= fields->writer.leading_dot;
    r->message->needs_smtputf8 |= fields->utf8;
    return true;
}

bool fields_custom_are_prepared(const struct rendering *r) {
    return r->prepared != NULL && r->job->headers == r->prepared->fields->headers;
}

int fields_write_custom(struct rendering *r) {
    int result = 0;
    if (fields_custom_are_prepared(r) && r->recipient->header_count == 0 &&
        write_prepared(r, &r->prepared->custom, !r->prepared->custom_bulk))
        return 0;
    for (uint32_t i = 0; i < r->job->header_count && result == 0; i++)
        if (!is_replaced(r, &r->job->headers[i]))
            result = write_custom_field(r, &r->job->headers[i]);
    for (uint32_t i = 0; i < r->recipient->header_count && result == 0; i++)
        result = write_custom_field(r, &r->recipient->headers[i]);
    return result;
}

static int write_mailboxes(struct rendering *r, const char *name, const struct mailbox *mailboxes, uint32_t count) {
    const struct mailbox *bad = NULL;
    char text[80];
    if (count == 0)
        return 0;
    if (header_mailboxes(&r->writer, name, mailboxes, count, &r->message->needs_smtputf8, &bad) != 0)
        return rendering_fail(r, -EINVAL, "\"%s\" in %s is not an address", rendering_shown(bad->email, text, sizeof(text)), name);
    return 0;
}

/* Its address is the envelope's too. */
static int write_private(struct rendering *r) {
    const struct mailbox *mailbox = &r->recipient->mailbox;
    char text[80];
    r->has_recipient = header_mailbox(&r->writer, "To", mailbox, r->message->recipient, &r->message->needs_smtputf8) == 0;
    if (!r->has_recipient)
        return rendering_fail(r, -EINVAL, "\"%s\" in To is not an address", rendering_shown(mailbox->email, text, sizeof(text)));
    return 0;
}

/* Who the message says it is for. A private recipient sees itself alone; Bcc is never seen. */
static int write_destinations(struct rendering *r) {
    const struct job *job = r->job;
    if (r->recipient->kind == RECIPIENT_PRIVATE)
        return write_private(r);
    int result = write_mailboxes(r, "To", job->to, job->to_count);
    if (result == 0 && job->to_count == 0) {
        writer_text(&r->writer, "To: undisclosed-recipients:;");
        writer_crlf(&r->writer);
    }
    return result != 0 ? result : write_mailboxes(r, "Cc", job->cc, job->cc_count);
}

bool fields_senders_are_prepared(const struct rendering *r) {
    const struct job *job = r->job, *fields = r->prepared == NULL ? NULL : r->prepared->fields;
    return fields != NULL && r->prepared->senders.there && job->from.email == fields->from.email &&
           job->sender_header.email == fields->sender_header.email && job->reply_to == fields->reply_to;
}

int fields_write_senders(struct rendering *r) {
    const struct job *job = r->job;
    int result = write_mailboxes(r, "From", &job->from, 1);
    if (result == 0 && job->sender_header.email != NULL)
        result = write_mailboxes(r, "Sender", &job->sender_header, 1);
    return result == 0 ? write_mailboxes(r, "Reply-To", job->reply_to, job->reply_to_count) : result;
}

int fields_write_subject(struct rendering *r) {
    const struct job *job = r->job;
    if (job->subject == NULL ||
        (r->prepared != NULL && write_prepared(r, &r->prepared->subject, job->subject == r->prepared->fields->subject)))
        return 0;
    return write_text_field(r, "Subject", job->subject);
}

int fields_write(struct rendering *r) {
    header_date(&r->writer, r->date_s);
    header_message_id(&r->writer, r->name, r->message->from_domain);
    int result = fields_senders_are_prepared(r) && write_prepared(r, &r->prepared->senders, true) ? 0 : fields_write_senders(r);
    if (result == 0)
        result = write_destinations(r);
    if (result == 0)
        result = fields_write_subject(r);
    if (result == 0)
        result = fields_write_custom(r);
    return result == 0 ? bulk_write(r) : result;
}
