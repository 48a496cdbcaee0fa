/* render.c: a job and one of its recipients become a message: the envelope, the body, what a content prepares. */
#include "rendering.h"
#include "bulk.h"
#include "encode.h"
#include "fields.h"
#include "mime.h"
#include "raw.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static_assert(sizeof(((struct message *)0)->sender) == ADDRESS_BYTES, "an address fits the envelope");
static_assert(sizeof(((struct message *)0)->from_domain) == DOMAIN_BYTES, "a domain fits the message");

void message_init(struct message *message) {
    *message = (struct message){.bytes = NULL};
}

/* Its memory stays. */
static void message_begin(struct message *message) {
    message->start = message->own_length = message->length = message->header_length = 0;
    message->has_leading_dots = message->body_8bit = message->needs_smtputf8 = false;
    message->piece_count = 0;
    message->shared = NULL;
    message->from_domain[0] = message->sender[0] = message->recipient[0] = '\0';
}

void message_free(struct message *message) {
    free(message->bytes);
    free(message->pieces);
    message_init(message);
}

int message_flatten(struct message *message) {
    if (message->piece_count == 0)
        return 0;
    uint8_t *bytes = malloc(message->start + message->length);
    if (bytes == NULL)
        return -ENOMEM;
    const uint8_t *own = message->bytes + message->start + message->header_length;
    size_t at = message->start + message->header_length;
    memcpy(bytes, message->bytes, at);
    for (uint32_t i = 0; i < message->piece_count; i++) {
        const struct message_piece *piece = &message->pieces[i];
        memcpy(bytes + at, (piece->shared ? message->shared->bytes : own) + piece->offset, piece->length);
        at += piece->length;
    }
    free(message->bytes);
    message->bytes = bytes;
    message->capacity = at;
    message->own_length = message->length;
    message->piece_count = 0;
    message->shared = NULL;
    return 0;
}

int rendering_fail(struct rendering *r, int code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(r->error, r->error_bytes, format, arguments);
    va_end(arguments);
    return code;
}

const char *rendering_shown(const char *text, char *out, size_t out_bytes) {
    size_t i = 0;
    for (; text != NULL && text[i] != '\0' && i + 1 < out_bytes; i++)
        out[i] = text[i] >= 32 && text[i] < 127 ? text[i] : '?';
    out[i] = '\0';
    return out;
}

int rendering_fill(struct rendering *r, const char *text, bool html, const char **out, char **owned) {
    *out = text;
    *owned = NULL;
    if (!r->fills_texts || !merge_is_template(text))
        return 0;
    size_t max_bytes = r->max_bytes < RENDERING_FIELD_MAX ? r->max_bytes : RENDERING_FIELD_MAX;
    int result = merge_expand(r->merge, text, html, max_bytes, owned, r->error, r->error_bytes);
    *out = *owned;
    return result;
}

static int read_from(struct rendering *r) {
    const struct job *job = r->job;
    bool utf8 = false;
    if (fields_senders_are_prepared(r)) {
        strcpy(r->from_address, r->prepared->from_address);
        strcpy(r->message->from_domain, r->prepared->from_domain);
        return 0;
    }
    if (job->from.email == NULL || address_format(job->from.email, r->from_address, &utf8) < 0)
        return rendering_fail(r, -EINVAL, "\"from\" is not an address");
    strcpy(r->message->from_domain, strrchr(r->from_address, '@') + 1);
    return 0;
}

/* The body's texts: the content's where they are the job's, else compiled here. */
static int open_text(struct rendering *r, const char *text, bool html, struct template *prepared, struct template *own,
                     const struct template **out) {
    *out = NULL;
    if (text == NULL)
        return 0;
    if (prepared != NULL && text == (html ? r->prepared->fields->html : r->prepared->fields->text)) {
        *out = prepared;
        return 0;
    }
    char sentence[200];
    int result = template_open(own, text, html, r->fills_texts, sentence, sizeof(sentence));
    if (result != 0)
        return rendering_fail(r, result, "%s, %s", html ? "html" : "text", sentence);
    *out = own;
    return 0;
}

/* A body under way. */
struct composing {
    struct rendering *r;
    struct body body;
};

static void composing_begin(void *context) {
    struct composing *composing = context;
    struct rendering *r = composing->r;
    r->body_offset = r->writer.at;
    body_begin(&composing->body, &r->writer, r->message, r->prepared == NULL ? NULL : &r->prepared->body.shared);
}

static int composing_text(void *context, const struct template *template) {
    struct composing *composing = context;
    struct rendering *r = composing->r;
    int result = template_write(template, r->merge, r->max_bytes, &composing->body, r->error, r->error_bytes);
    body_own(&composing->body);
    return result;
}

static void composing_attachment(void *context, uint32_t index) {
    struct composing *composing = context;
    struct rendering *r = composing->r;
    const struct job *job = r->job;
    if (r->prepared != NULL && r->prepared->body.there && job->attachments == r->prepared->fields->attachments) {
        body_share(&composing->body, &r->prepared->body.attachments[index]);
        body_own(&composing->body);
        return;
    }
    writer_room(&r->writer, (job->attachments[index].length / BASE64_LINE_IN_BYTES + 1) * BASE64_LINE_OUT_BYTES);
    encode_base64(&r->writer, job->attachments[index].bytes, job->attachments[index].length);
}

/* A body that is all its content's. */
static int write_prepared_body(struct rendering *r, struct composing *composing) {
    const struct prepared_body *body = &r->prepared->body;
    int result = 0;
    writer_bytes(&r->writer, body->header.bytes, body->header.at);
    composing_begin(composing);
    for (uint32_t i = 0; i < body->item_count && result == 0; i++) {
        const struct prepared_item *item = &body->items[i];
        if (item->template == NULL)
            body_share(&composing->body, &item->range);
        else
            result = template_write(item->template, r->merge, r->max_bytes, &composing->body, r->error, r->error_bytes);
    }
    return result;
}

static int write_body(struct rendering *r, struct composing *composing) {
    const struct job *job = r->job;
    const struct render_prepared *prepared = r->prepared;
    char boundary[IDENTITY_HEX_BYTES];
    struct template text, html;
    struct mime_content content = {.attachment_count = job->attachment_count, .attachments = job->attachments, .boundary = r->name};
    struct mime_output output = {.header = &r->writer,
                                 .body = &r->writer,
                                 .context = composing,
                                 .begin = composing_begin,
                                 .text = composing_text,
                                 .attachment = composing_attachment};
    if (job->content != NULL) {
        identity_boundary(r->identity, job->content_id, boundary);
        content.boundary = boundary;
    }
    int result = open_text(r, job->text, false, prepared == NULL ? NULL : prepared->text, &text, &content.text);
    if (result != 0)
        return result;
    result = open_text(r, job->html, true, prepared == NULL ? NULL : prepared->html, &html, &content.html);
    if (result == 0)
        result = mime_write(&output, &content);
    if (content.text == &text)
        template_close(&text);
    if (content.html == &html)
        template_close(&html);
    return result;
}

static int write_composed(struct rendering *r) {
    struct composing composing = {.r = r};
    int result = read_from(r);
    if (result == 0)
        result = fields_write(r);
    if (result == 0)
        result = prepared_body_is(r->prepared, r->job) ? write_prepared_body(r, &composing) : write_body(r, &composing);
    if (result != 0)
        return result;
    body_end(&composing.body);
    r->shared_length = composing.body.shared_length;
    return 0;
}

/* The fields of a raw content's message, and its body, which is its content's. */
static int write_prepared_raw(struct rendering *r, const struct raw_additions *additions, struct raw_facts *facts) {
    struct body body;
    int result = raw_write_prepared(&r->writer, r->prepared->raw, additions, facts, r->error, r->error_bytes);
    if (result != 0)
        return result;
    body_begin(&body, &r->writer, r->message, &r->prepared->body.shared);
    body_share(&body, &r->prepared->raw_body);
    body_end(&body);
    r->shared_length = body.shared_length;
    return 0;
}

/* Room for a raw message with what is added to it, as far as the limit goes. */
static void reserve_raw(struct rendering *r) {
    size_t room = r->job->raw_length + r->job->raw_length / 32 + 512;
    writer_room(&r->writer, room < r->max_bytes ? room : r->max_bytes);
}

static int write_raw(struct rendering *r) {
    const struct job *job = r->job;
    struct raw_facts facts;
    struct raw_additions additions = {.date_s = r->date_s, .message_name = r->name, .from = job->from.email == NULL ? NULL : &job->from};
    int result;
    if (r->prepared != NULL && r->prepared->raw != NULL && job->raw == r->prepared->fields->raw) {
        result = write_prepared_raw(r, &additions, &facts);
    } else {
        reserve_raw(r);
        result = raw_write(&r->writer, job->raw, job->raw_length, &additions, &facts, r->error, r->error_bytes);
    }
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
    bool ignored = false;
    char text[80];
    if (!r->has_recipient && address_format(r->recipient->mailbox.email, message->recipient, &message->needs_smtputf8) < 0)
        return rendering_fail(r, -EINVAL, "the recipient \"%s\" is not an address",
                              rendering_shown(r->recipient->mailbox.email, text, sizeof(text)));
    if (job->envelope_sender == NULL && job->raw == NULL) { /* From, which was checked, and needs SMTPUTF8 or not for itself */
        strcpy(message->sender, r->from_address);
        return bulk_verp(r);
    }
    const char *sender = job->envelope_sender != NULL ? job->envelope_sender : job->from.email != NULL ? job->from.email : r->from_address;
    if (sender[0] == '\0')
        message->sender[0] = '\0';
    else if (address_format(sender, message->sender, job->verp_address != NULL ? &ignored : &message->needs_smtputf8) < 0)
        return rendering_fail(r, -EINVAL, "the envelope sender \"%s\" is not an address", rendering_shown(sender, text, sizeof(text)));
    return bulk_verp(r);
}

bool rendering_wants_merge(const struct job *job) {
    bool wants = job->merge_global_data != NULL || job->content_id != NULL || job->content != NULL || job->fills_built_ins;
    for (uint32_t i = 0; i < job_recipient_count(job) && !wants; i++)
        wants = job->recipients[i].merge_data != NULL;
    return wants;
}

static bool body_has_templates(const struct rendering *r) {
    if (prepared_body_is(r->prepared, r->job))
        return (r->prepared->text != NULL && r->prepared->text->has_variables) ||
               (r->prepared->html != NULL && r->prepared->html->has_variables);
    return merge_is_template(r->job->text) || merge_is_template(r->job->html);
}

static bool has_templates(const struct rendering *r) {
    const struct job *job = r->job;
    const struct job_recipient *recipient = r->recipient;
    bool has = body_has_templates(r) || merge_is_template(job->subject);
    if (!has && fields_custom_are_prepared(r))
        has = r->prepared->custom_templates;
    else
        for (uint32_t i = 0; i < job->header_count && !has; i++)
            has = merge_is_template(job->headers[i].value);
    for (uint32_t i = 0; i < recipient->header_count && !has; i++)
        has = merge_is_template(recipient->headers[i].value);
    return has;
}

static int open_merge(const struct rendering *r, struct merge *merge) {
    const struct job *job = r->job;
    const struct render_prepared *prepared = r->prepared;
    bool global_is_read = prepared != NULL && prepared->global != NULL && job->merge_global_data == prepared->fields->merge_global_data;
    return merge_open_named(merge, global_is_read ? prepared->global : NULL, job->merge_global_data, r->recipient->merge_data,
                            prepared == NULL ? NULL : &prepared->names, r->error, r->error_bytes);
}

int render_message(const struct job *job, uint32_t index, uint64_t date_s, const struct identity *identity, size_t max_bytes,
                   struct message *message, char *error, size_t error_bytes) {
    struct rendering r;
    memset(&r, 0, offsetof(struct rendering, bulk) + offsetof(struct bulk, list));
    r.bulk.list[0] = r.bulk.token[0] = '\0';
    r.job = job;
    r.message = message;
    r.identity = identity;
    r.date_s = date_s;
    r.max_bytes = max_bytes;
    r.error = error;
    r.error_bytes = error_bytes;
    uint8_t *bytes = message->bytes;
    size_t capacity = message->capacity;
    message_begin(message);
    r.recipient = job_recipient(job, index);
    if (r.recipient == NULL)
        return rendering_fail(&r, -EINVAL, "there is no recipient %u", index);
    r.index = index;
    identity_name(identity, job, index, r.name);

    r.writer = (struct writer){.bytes = bytes,
                               .capacity = capacity,
                               .at = MESSAGE_HEADROOM_BYTES,
                               .line = MESSAGE_HEADROOM_BYTES,
                               .limit = MESSAGE_HEADROOM_BYTES + max_bytes};
    int result = 0;
    struct merge merge;
    r.prepared = job->content == NULL ? NULL : job->content->prepared;
    r.fills_texts = job->raw == NULL && has_templates(&r) && rendering_wants_merge(job);
    if (r.fills_texts || (job->raw == NULL && bulk_has_templates(job))) {
        result = open_merge(&r, &merge);
        r.merge = result == 0 ? &merge : NULL;
        if (result == 0)
            merge_built_in(&merge, bulk_built_in, &r);
    }
    if (result == 0)
        result = job->raw != NULL ? write_raw(&r) : write_composed(&r);
    if (r.merge != NULL)
        merge_close(&merge);
    bulk_free(&r);
    message->bytes = r.writer.bytes;
    message->capacity = r.writer.capacity;
    if (result == 0 && r.writer.error == 0 && r.writer.at + r.shared_length > r.writer.limit)
        r.writer.error = -E2BIG;
    if (r.writer.error == -E2BIG)
        return rendering_fail(&r, -E2BIG, "the message is over %zu bytes", max_bytes);
    if (r.writer.error != 0)
        return rendering_fail(&r, r.writer.error, "out of memory");
    if (result == 0)
        result = write_envelope(&r);
    if (result != 0)
        return result;
    message->start = MESSAGE_HEADROOM_BYTES;
    message->own_length = r.writer.at - message->start;
    message->length = message->own_length + r.shared_length;
    message->header_length = r.body_offset - message->start;
    message->has_leading_dots = r.writer.leading_dot;
    return 0;
}

int render_recipient(const struct job *job, uint32_t index, char *out) {
    const struct job_recipient *recipient = job_recipient(job, index);
    bool utf8 = false;
    return recipient != NULL && address_format(recipient->mailbox.email, out, &utf8) >= 0 ? 0 : -EINVAL;
}

/* What of a message is its recipient's own would show here: a To field (and with it the Message-ID), variables, header fields. */
static bool is_common(const struct job_recipient *recipient, bool *utf8) {
    char address[ADDRESS_BYTES];
    return recipient != NULL && recipient->kind != RECIPIENT_PRIVATE && recipient->header_count == 0 && recipient->merge_data == NULL &&
           address_format(recipient->mailbox.email, address, utf8) >= 0;
}

bool render_is_shared(const struct job *job, uint32_t index_a, uint32_t index_b) {
    bool utf8_a = false, utf8_b = false;
    /* A VERP sender, an unsubscribe token and the like are each recipient's own. */
    if (job->verp_address != NULL || job->has_built_ins)
        return false;
    return is_common(job_recipient(job, index_a), &utf8_a) && is_common(job_recipient(job, index_b), &utf8_b) && utf8_a == utf8_b;
}
