/* render.c: a job and one of its recipients become a message: the envelope, the header fields in order, the body. */
#include "render.h"
#include "address.h"
#include "header.h"
#include "identity.h"
#include "merge.h"
#include "mime.h"
#include "raw.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static_assert(sizeof(((struct message *)0)->sender) == ADDRESS_BYTES, "an address fits the envelope");
static_assert(sizeof(((struct message *)0)->from_domain) == DOMAIN_BYTES, "a domain fits the message");

/* One rendering under way. */
struct rendering {
    const struct job *job;
    const struct job_recipient *recipient;
    struct message *message;
    struct writer writer;
    struct merge *merge; /* NULL: texts are taken as they are */
    char name[IDENTITY_HEX_BYTES];
    char from_address[ADDRESS_BYTES];
    uint64_t date_s;
    size_t max_bytes;
    size_t body_offset;
    char *error;
    size_t error_bytes;
};

void message_init(struct message *message) {
    *message = (struct message){.bytes = NULL};
}

void message_free(struct message *message) {
    free(message->bytes);
    message_init(message);
}

__attribute__((format(printf, 3, 4))) static int fail(struct rendering *r, int code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(r->error, r->error_bytes, format, arguments);
    va_end(arguments);
    return code;
}

/* Text of a producer in a sentence of ours: short and printable. */
static const char *shown(const char *text, char *out, size_t out_bytes) {
    size_t i = 0;
    for (; text != NULL && text[i] != '\0' && i + 1 < out_bytes; i++)
        out[i] = text[i] >= 32 && text[i] < 127 ? text[i] : '?';
    out[i] = '\0';
    return out;
}

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

/* Fills a text's variables in. *out is the text itself, or *owned, which the caller frees. */
static int fill(struct rendering *r, const char *text, bool html, const char **out, char **owned) {
    *out = text;
    *owned = NULL;
    if (r->merge == NULL || !merge_is_template(text))
        return 0;
    int result = merge_expand(r->merge, text, html, r->max_bytes, owned, r->error, r->error_bytes);
    *out = *owned;
    return result;
}

static int write_text_field(struct rendering *r, const char *name, const char *value) {
    const char *filled;
    char *owned;
    int result = fill(r, value, false, &filled, &owned);
    if (result == 0)
        header_text(&r->writer, name, filled);
    free(owned);
    return result;
}

static int write_custom_field(struct rendering *r, const struct job_header *header) {
    char text[80];
    if (!header_name_is_legal(header->name) || is_owned(header->name))
        return fail(r, -EINVAL, "the header \"%s\" cannot be set here", shown(header->name, text, sizeof(text)));
    if (strpbrk(header->value, "\r\n") != NULL)
        return fail(r, -EINVAL, "the header \"%s\" has a line break in its value", header->name);
    if (r->job->list_unsubscribe != NULL &&
        (strcasecmp(header->name, "List-Unsubscribe") == 0 || strcasecmp(header->name, "List-Unsubscribe-Post") == 0))
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

static int write_custom_fields(struct rendering *r) {
    int result = 0;
    for (uint32_t i = 0; i < r->job->header_count && result == 0; i++)
        if (!is_replaced(r, &r->job->headers[i]))
            result = write_custom_field(r, &r->job->headers[i]);
    for (uint32_t i = 0; i < r->recipient->header_count && result == 0; i++)
        result = write_custom_field(r, &r->recipient->headers[i]);
    return result;
}

static bool uri_is_clean(const char *uri, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (uri[i] <= 32 || uri[i] > 126 || uri[i] == '<' || uri[i] == '>')
            return false;
    return length > 0 && length <= HEADER_LINE_MAX - 32 &&
           (strncasecmp(uri, "https://", 8) == 0 || strncasecmp(uri, "mailto:", 7) == 0 || strncasecmp(uri, "http://", 7) == 0);
}

/* A URI, or a list of them in angle brackets (RFC 2369 3.2); an https one makes it one-click (RFC 8058 3.1). */
static int write_list_unsubscribe(struct rendering *r) {
    const char *value;
    char *owned, text[80];
    int result = fill(r, r->job->list_unsubscribe, false, &value, &owned);
    if (result != 0)
        return result;
    struct writer *writer = &r->writer;
    bool one_click = false, bracketed = value[0] == '<';
    writer_text(writer, "List-Unsubscribe:");
    for (const char *at = value; result == 0;) {
        const char *uri = at + bracketed;
        size_t length = bracketed ? strcspn(uri, ">") : strlen(uri);
        if (!uri_is_clean(uri, length) || (bracketed && uri[length] != '>')) {
            result = fail(r, -EINVAL, "list_unsubscribe is not an https: or mailto: URI: \"%s\"", shown(value, text, sizeof(text)));
            break;
        }
        one_click |= strncasecmp(uri, "https://", 8) == 0;
        if (at != value) {
            writer_byte(writer, ',');
            writer_fold(writer);
        }
        writer_text(writer, " <");
        writer_bytes(writer, uri, length);
        writer_byte(writer, '>');
        at = uri + length + bracketed;
        at += strspn(at, ", \t");
        if (*at == '\0')
            break;
        bracketed = *at == '<';
    }
    writer_crlf(writer);
    if (one_click) {
        writer_text(writer, "List-Unsubscribe-Post: List-Unsubscribe=One-Click");
        writer_crlf(writer);
    }
    free(owned);
    return result;
}

static int write_mailboxes(struct rendering *r, const char *name, const struct mailbox *mailboxes, uint32_t count) {
    const struct mailbox *bad = NULL;
    char text[80];
    if (count == 0)
        return 0;
    if (header_mailboxes(&r->writer, name, mailboxes, count, &r->message->needs_smtputf8, &bad) != 0)
        return fail(r, -EINVAL, "\"%s\" in %s is not an address", shown(bad->email, text, sizeof(text)), name);
    return 0;
}

/* Who the message says it is for. A private recipient sees itself alone; Bcc is never seen. */
static int write_destinations(struct rendering *r) {
    const struct job *job = r->job;
    if (r->recipient->kind == RECIPIENT_PRIVATE)
        return write_mailboxes(r, "To", &r->recipient->mailbox, 1);
    int result = write_mailboxes(r, "To", job->to, job->to_count);
    if (result == 0 && job->to_count == 0) {
        writer_text(&r->writer, "To: undisclosed-recipients:;");
        writer_crlf(&r->writer);
    }
    return result != 0 ? result : write_mailboxes(r, "Cc", job->cc, job->cc_count);
}

static int write_fields(struct rendering *r) {
    const struct job *job = r->job;
    header_date(&r->writer, r->date_s);
    header_message_id(&r->writer, r->name, r->message->from_domain);
    int result = write_mailboxes(r, "From", &job->from, 1);
    if (result == 0 && job->sender_header.email != NULL)
        result = write_mailboxes(r, "Sender", &job->sender_header, 1);
    if (result == 0)
        result = write_mailboxes(r, "Reply-To", job->reply_to, job->reply_to_count);
    if (result == 0)
        result = write_destinations(r);
    if (result == 0 && job->subject != NULL)
        result = write_text_field(r, "Subject", job->subject);
    if (result == 0)
        result = write_custom_fields(r);
    if (result == 0 && job->list_unsubscribe != NULL)
        result = write_list_unsubscribe(r);
    return result;
}

static int write_composed(struct rendering *r) {
    const struct job *job = r->job;
    struct mime_content content = {.attachment_count = job->attachment_count, .attachments = job->attachments, .name = r->name};
    char *owned_text = NULL, *owned_html = NULL;
    bool utf8 = false;
    if (job->from.email == NULL || address_format(job->from.email, r->from_address, &utf8) < 0)
        return fail(r, -EINVAL, "\"from\" is not an address");
    strcpy(r->message->from_domain, strrchr(r->from_address, '@') + 1);
    int result = fill(r, job->text, false, &content.text, &owned_text);
    if (result == 0)
        result = fill(r, job->html, true, &content.html, &owned_html);
    if (result == 0) {
        writer_room(&r->writer, mime_estimate(&content));
        result = write_fields(r);
    }
    if (result == 0)
        r->body_offset = mime_write(&r->writer, &content);
    free(owned_text);
    free(owned_html);
    return result;
}

static int write_raw(struct rendering *r) {
    const struct job *job = r->job;
    struct raw_facts facts;
    struct raw_additions additions = {.date_s = r->date_s, .message_name = r->name, .from = job->from.email == NULL ? NULL : &job->from};
    writer_room(&r->writer, job->raw_length + job->raw_length / 32 + 512);
    int result = raw_write(&r->writer, job->raw, job->raw_length, &additions, &facts, r->error, r->error_bytes);
    if (result != 0)
        return result;
    strcpy(r->message->from_domain, facts.from_domain);
    strcpy(r->from_address, facts.from_address);
    r->body_offset = facts.body_offset;
    r->message->body_8bit = facts.body_8bit;
    r->message->needs_smtputf8 |= facts.header_8bit || facts.from_utf8; /* RFC 6532: such a header is an internationalised one */
    return 0;
}

/* After the message, because a raw one may bring its own From. */
static int write_envelope(struct rendering *r) {
    const struct job *job = r->job;
    struct message *message = r->message;
    char text[80];
    if (address_format(r->recipient->mailbox.email, message->recipient, &message->needs_smtputf8) < 0)
        return fail(r, -EINVAL, "the recipient \"%s\" is not an address", shown(r->recipient->mailbox.email, text, sizeof(text)));
    const char *sender = job->envelope_sender != NULL ? job->envelope_sender : job->from.email != NULL ? job->from.email : r->from_address;
    if (sender[0] == '\0')
        message->sender[0] = '\0';
    else if (address_format(sender, message->sender, &message->needs_smtputf8) < 0)
        return fail(r, -EINVAL, "the envelope sender \"%s\" is not an address", shown(sender, text, sizeof(text)));
    return 0;
}

/* Variables are filled in where the job or any of its recipients brings some; elsewhere "{{" is text like any other. */
static bool wants_merge(const struct job *job) {
    bool wants = job->merge_global_data != NULL;
    for (uint32_t i = 0; i < job_recipient_count(job) && !wants; i++)
        wants = job->recipients[i].merge_data != NULL;
    return wants;
}

static bool has_templates(const struct job *job, const struct job_recipient *recipient) {
    bool has = merge_is_template(job->subject) || merge_is_template(job->text) || merge_is_template(job->html) ||
               merge_is_template(job->list_unsubscribe);
    for (uint32_t i = 0; i < job->header_count && !has; i++)
        has = merge_is_template(job->headers[i].value);
    for (uint32_t i = 0; i < recipient->header_count && !has; i++)
        has = merge_is_template(recipient->headers[i].value);
    return has;
}

int render_message(const struct job *job, uint32_t index, uint64_t date_s, const struct identity *identity, size_t max_bytes,
                   struct message *message, char *error, size_t error_bytes) {
    struct rendering r = {
        .job = job, .message = message, .date_s = date_s, .max_bytes = max_bytes, .error = error, .error_bytes = error_bytes};
    uint8_t *bytes = message->bytes;
    size_t capacity = message->capacity;
    *message = (struct message){.bytes = bytes, .capacity = capacity};
    r.recipient = job_recipient(job, index);
    if (r.recipient == NULL)
        return fail(&r, -EINVAL, "there is no recipient %u", index);
    identity_name(identity, job, index, r.name);

    r.writer = (struct writer){.bytes = bytes,
                               .capacity = capacity,
                               .at = MESSAGE_HEADROOM_BYTES,
                               .line = MESSAGE_HEADROOM_BYTES,
                               .limit = MESSAGE_HEADROOM_BYTES + max_bytes};
    int result = 0;
    if (job->raw == NULL && has_templates(job, r.recipient) && wants_merge(job)) {
        r.merge = merge_create(job->merge_global_data, r.recipient->merge_data, error, error_bytes);
        result = r.merge == NULL ? -EINVAL : 0;
    }
    if (result == 0)
        result = job->raw != NULL ? write_raw(&r) : write_composed(&r);
    merge_free(r.merge);
    message->bytes = r.writer.bytes;
    message->capacity = r.writer.capacity;
    if (result == 0 && r.writer.error == 0 && r.writer.at > r.writer.limit)
        r.writer.error = -E2BIG;
    if (r.writer.error == -E2BIG)
        return fail(&r, -E2BIG, "the message is over %zu bytes", max_bytes);
    if (r.writer.error != 0)
        return fail(&r, r.writer.error, "out of memory");
    if (result == 0)
        result = write_envelope(&r);
    if (result != 0)
        return result;
    message->start = MESSAGE_HEADROOM_BYTES;
    message->length = r.writer.at - message->start;
    message->header_length = r.body_offset - message->start;
    message->has_leading_dots = r.writer.leading_dot;
    return 0;
}
