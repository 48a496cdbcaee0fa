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
    if (r->merge == NULL || !r->fills_texts || !merge_is_template(text))
        return 0;
    int result = merge_expand(r->merge, text, html, r->max_bytes, owned, r->error, r->error_bytes);
    *out = *owned;
    return result;
}

static const struct template *prepared_text(const struct rendering *r) {
    return r->prepared != NULL && r->job->text == r->prepared->fields->text ? r->prepared->text : NULL;
}

static const struct template *prepared_html(const struct rendering *r) {
    return r->prepared != NULL && r->job->html == r->prepared->fields->html ? r->prepared->html : NULL;
}

/* The body's texts with their variables: as text, or as lines of a compiled one. */
struct texts {
    char *owned_text, *owned_html;
    struct template_filled text, html;
};

static int fill_body(struct rendering *r, const struct template *template, const char *text, bool html, struct template_filled *filled,
                     const struct template_filled **leaf, const char **out, char **owned) {
    *out = text;
    if (template == NULL)
        return rendering_fill(r, text, html, out, owned);
    *leaf = filled;
    return template_fill(template, r->merge, r->max_bytes, filled, r->error, r->error_bytes);
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

static int write_composed(struct rendering *r) {
    const struct job *job = r->job;
    struct mime_content content = {.attachment_count = job->attachment_count, .attachments = job->attachments, .name = r->name};
    struct texts texts;
    texts.owned_text = texts.owned_html = NULL;
    texts.text.lines.bytes = texts.html.lines.bytes = NULL;
    if (r->prepared != NULL && job->attachments == r->prepared->fields->attachments)
        content.encoded = r->prepared->encoded;
    int result = read_from(r);
    if (result == 0)
        result = fill_body(r, prepared_text(r), job->text, false, &texts.text, &content.text_leaf, &content.text, &texts.owned_text);
    if (result == 0)
        result = fill_body(r, prepared_html(r), job->html, true, &texts.html, &content.html_leaf, &content.html, &texts.owned_html);
    if (result == 0) {
        writer_room(&r->writer, mime_estimate(&content));
        result = fields_write(r);
    }
    if (result == 0)
        r->body_offset = mime_write(&r->writer, &content);
    free(texts.owned_text);
    free(texts.owned_html);
    template_filled_free(&texts.text);
    template_filled_free(&texts.html);
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
    bool ignored = false;
    char text[80];
    if (address_format(r->recipient->mailbox.email, message->recipient, &message->needs_smtputf8) < 0)
        return rendering_fail(r, -EINVAL, "the recipient \"%s\" is not an address",
                              rendering_shown(r->recipient->mailbox.email, text, sizeof(text)));
    const char *sender = job->envelope_sender != NULL ? job->envelope_sender : job->from.email != NULL ? job->from.email : r->from_address;
    if (sender[0] == '\0')
        message->sender[0] = '\0';
    else if (address_format(sender, message->sender, job->verp_address != NULL ? &ignored : &message->needs_smtputf8) < 0)
        return rendering_fail(r, -EINVAL, "the envelope sender \"%s\" is not an address", rendering_shown(sender, text, sizeof(text)));
    return bulk_verp(r);
}

/* Variables are filled in where the job or any of its recipients brings some, where a text names one of ours, and in every shared content;
 * elsewhere "{{" is text like any other. */
static bool wants_merge(const struct job *job) {
    bool wants = job->merge_global_data != NULL || job->content != NULL || job->has_built_ins;
    for (uint32_t i = 0; i < job_recipient_count(job) && !wants; i++)
        wants = job->recipients[i].merge_data != NULL;
    return wants;
}

static bool body_has_templates(const struct rendering *r) {
    const struct template *text = prepared_text(r), *html = prepared_html(r);
    return (text != NULL ? template_has_variables(text) : merge_is_template(r->job->text)) ||
           (html != NULL ? template_has_variables(html) : merge_is_template(r->job->html));
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

static struct merge *make_merge(const struct rendering *r) {
    const struct job *job = r->job;
    if (r->prepared != NULL && r->prepared->global != NULL && job->merge_global_data == r->prepared->fields->merge_global_data)
        return merge_create_over(r->prepared->global, r->recipient->merge_data, r->error, r->error_bytes);
    return merge_create(job->merge_global_data, r->recipient->merge_data, r->error, r->error_bytes);
}

/* -- what all messages of a content have in common -- */

static bool any_header_is_template(const struct job *fields) {
    bool any = false;
    for (uint32_t i = 0; i < fields->header_count && !any; i++)
        any = merge_is_template(fields->headers[i].value);
    return any;
}

/* Writes fields with the same code as a message's; what fails here is not there, and fails message by message. */
static void prepare_fields(struct render_prepared *prepared, struct prepared_fields *out, int (*write)(struct rendering *r)) {
    static const struct job_recipient nobody;
    char error[256];
    struct message message = {.bytes = NULL};
    struct rendering r = {.job = prepared->fields,
                          .recipient = &nobody,
                          .message = &message,
                          .writer = {.limit = SIZE_MAX / 2},
                          .max_bytes = SIZE_MAX / 2,
                          .error = error,
                          .error_bytes = sizeof(error)};
    out->there = write(&r) == 0 && r.writer.error == 0;
    out->writer = r.writer;
    out->utf8 = message.needs_smtputf8;
    prepared->bytes += r.writer.capacity;
}

static bool prepare_attachments(struct render_prepared *prepared) {
    const struct job *fields = prepared->fields;
    if (fields->attachment_count == 0)
        return true;
    prepared->encoded = calloc(fields->attachment_count, sizeof(*prepared->encoded));
    bool ok = prepared->encoded != NULL;
    for (uint32_t i = 0; i < fields->attachment_count && ok; i++) {
        struct writer writer = {.limit = SIZE_MAX / 2};
        writer_room(&writer, (fields->attachments[i].length / BASE64_LINE_IN_BYTES + 1) * BASE64_LINE_OUT_BYTES);
        encode_base64(&writer, fields->attachments[i].bytes, fields->attachments[i].length);
        ok = writer.error == 0;
        prepared->encoded[i] = (struct mime_encoded){.bytes = writer.bytes, .length = writer.at};
        prepared->bytes += writer.capacity;
    }
    return ok;
}

static void prepare_body(struct render_prepared *prepared) {
    const struct job *fields = prepared->fields;
    prepared->text = fields->text == NULL ? NULL : template_compile(fields->text, false);
    prepared->html = fields->html == NULL ? NULL : template_compile(fields->html, true);
    prepared->bytes += prepared->text == NULL ? 0 : template_bytes(prepared->text);
    prepared->bytes += prepared->html == NULL ? 0 : template_bytes(prepared->html);
}

static void prepare_header(struct render_prepared *prepared) {
    const struct job *fields = prepared->fields;
    bool utf8 = false;
    prepared->custom_templates = any_header_is_template(fields);
    for (uint32_t i = 0; i < fields->header_count; i++)
        prepared->custom_bulk |= bulk_field_name(fields->headers[i].name);
    if (fields->from.email != NULL && address_format(fields->from.email, prepared->from_address, &utf8) >= 0) {
        strcpy(prepared->from_domain, strrchr(prepared->from_address, '@') + 1);
        prepare_fields(prepared, &prepared->senders, fields_write_senders);
    }
    if (fields->subject != NULL && !merge_is_template(fields->subject))
        prepare_fields(prepared, &prepared->subject, fields_write_subject);
    if (!prepared->custom_templates)
        prepare_fields(prepared, &prepared->custom, fields_write_custom);
}

struct render_prepared *render_prepare(const struct job *fields) {
    struct render_prepared *prepared = fields->raw != NULL ? NULL : calloc(1, sizeof(*prepared));
    if (prepared == NULL)
        return NULL;
    char error[160];
    prepared->fields = fields;
    prepared->bytes = sizeof(*prepared);
    if (fields->merge_global_data != NULL)
        prepared->global = merge_create(fields->merge_global_data, NULL, error, sizeof(error));
    prepare_body(prepared);
    prepare_header(prepared);
    if (!prepare_attachments(prepared)) {
        render_prepared_free(prepared);
        return NULL;
    }
    return prepared;
}

void render_prepared_free(struct render_prepared *prepared) {
    if (prepared == NULL)
        return;
    merge_free(prepared->global);
    template_free(prepared->text);
    template_free(prepared->html);
    for (uint32_t i = 0; prepared->encoded != NULL && i < prepared->fields->attachment_count; i++)
        free(prepared->encoded[i].bytes);
    free(prepared->encoded);
    free(prepared->senders.writer.bytes);
    free(prepared->subject.writer.bytes);
    free(prepared->custom.writer.bytes);
    free(prepared);
}

size_t render_prepared_bytes(const struct render_prepared *prepared) {
    return prepared == NULL ? 0 : prepared->bytes;
}

int render_message(const struct job *job, uint32_t index, uint64_t date_s, const struct identity *identity, size_t max_bytes,
                   struct message *message, char *error, size_t error_bytes) {
    struct rendering r = {
        .job = job, .message = message, .date_s = date_s, .max_bytes = max_bytes, .error = error, .error_bytes = error_bytes};
    uint8_t *bytes = message->bytes;
    size_t capacity = message->capacity;
    *message = (struct message){.bytes = bytes, .capacity = capacity, .pieces = message->pieces, .piece_capacity = message->piece_capacity};
    r.recipient = job_recipient(job, index);
    if (r.recipient == NULL)
        return rendering_fail(&r, -EINVAL, "there is no recipient %u", index);
    r.identity = identity;
    r.index = index;
    identity_name(identity, job, index, r.name);

    r.writer = (struct writer){.bytes = bytes,
                               .capacity = capacity,
                               .at = MESSAGE_HEADROOM_BYTES,
                               .line = MESSAGE_HEADROOM_BYTES,
                               .limit = MESSAGE_HEADROOM_BYTES + max_bytes};
    int result = 0;
    r.prepared = job->content == NULL ? NULL : job->content->prepared;
    r.fills_texts = job->raw == NULL && has_templates(&r) && wants_merge(job);
    if (r.fills_texts || (job->raw == NULL && bulk_has_templates(job))) {
        r.merge = make_merge(&r);
        result = r.merge == NULL ? -EINVAL : 0;
        if (result == 0)
            merge_built_in(r.merge, bulk_built_in, &r);
    }
    if (result == 0)
        result = job->raw != NULL ? write_raw(&r) : write_composed(&r);
    merge_free(r.merge);
    bulk_free(&r);
    message->bytes = r.writer.bytes;
    message->capacity = r.writer.capacity;
    if (result == 0 && r.writer.error == 0 && r.writer.at > r.writer.limit)
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
    message->own_length = message->length = r.writer.at - message->start;
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
