/* prepared.c: encodes what the messages of a content have in common: the code that writes a message writes it, into bytes that are kept. */
#include "prepared.h"
#include "bulk.h"
#include "encode.h"
#include "fields.h"
#include "raw.h"
#include "rendering.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { ERROR_BYTES = 256 };

static void writer_trim(struct writer *writer) {
    uint8_t *bytes = writer->at > 0 ? realloc(writer->bytes, writer->at) : NULL;
    if (bytes != NULL) {
        writer->bytes = bytes;
        writer->capacity = writer->at;
    }
}

/* -- the body -- */

/* The body on its way into shared bytes. */
struct recording {
    struct render_prepared *prepared;
    struct writer writer; /* the shared bytes */
    size_t from;          /* what is behind this is in no item yet */
    bool failed;
};

static void add_item(struct recording *recording, struct prepared_item item) {
    struct prepared_body *body = &recording->prepared->body;
    if (body->item_count == body->item_capacity) {
        uint32_t capacity = body->item_capacity == 0 ? 8 : body->item_capacity * 2;
        struct prepared_item *grown = realloc(body->items, capacity * sizeof(*grown));
        if (grown == NULL) {
            recording->failed = true;
            return;
        }
        body->items = grown;
        body->item_capacity = capacity;
    }
    body->items[body->item_count++] = item;
}

/* What was written since the last item becomes one. `verbatim`: it is its own relaxed form. */
static struct shared_range add_range(struct recording *recording, bool verbatim) {
    struct prepared_item item = {
        .range = {.offset = (uint32_t)recording->from, .length = (uint32_t)(recording->writer.at - recording->from)}};
    if (verbatim) {
        item.range.relaxed_offset = item.range.offset;
        item.range.relaxed_length = item.range.length;
    }
    if (item.range.length > 0)
        add_item(recording, item);
    recording->from = recording->writer.at;
    return item.range;
}

static void record_begin(void *context) {
    struct recording *recording = context;
    recording->from = recording->writer.at;
}

static int record_text(void *context, const struct template *template) {
    struct recording *recording = context;
    struct render_prepared *prepared = recording->prepared;
    add_range(recording, false);
    if (template_record(template == prepared->text ? prepared->text : prepared->html, &recording->writer) != 0)
        recording->failed = true;
    add_item(recording, (struct prepared_item){.template = template});
    recording->from = recording->writer.at;
    return 0;
}

static void record_attachment(void *context, uint32_t index) {
    struct recording *recording = context;
    const struct job_attachment *attachment = &recording->prepared->fields->attachments[index];
    size_t at = recording->writer.at;
    bool verbatim = attachment->length >= PREPARED_VERBATIM_MIN;
    if (verbatim)
        add_range(recording, false);
    writer_room(&recording->writer, (attachment->length / BASE64_LINE_IN_BYTES + 1) * BASE64_LINE_OUT_BYTES);
    encode_base64(&recording->writer, attachment->bytes, attachment->length);
    uint32_t length = (uint32_t)(recording->writer.at - at);
    recording->prepared->body.attachments[index] =
        (struct shared_range){.offset = (uint32_t)at, .length = length, .relaxed_offset = (uint32_t)at, .relaxed_length = length};
    if (verbatim)
        add_range(recording, true);
}

/* Appends the relaxed form of lines (RFC 6376 3.4.4): white space is one space, and none at a line's end. */
static void relax(struct writer *writer, struct shared_range *range) {
    if (range->relaxed_length > 0 || range->length == 0 || !writer_room(writer, range->length))
        return;
    const uint8_t *in = writer->bytes + range->offset, *end = in + range->length;
    uint8_t *begin = writer->bytes + writer->at, *out = begin;
    while (in < end) {
        uint8_t byte = *in++;
        if (byte == '\t')
            byte = ' ';
        if (byte == ' ' && out > begin && out[-1] == ' ')
            continue;
        if (byte == '\r' && out > begin && out[-1] == ' ')
            out--;
        *out++ = byte;
    }
    range->relaxed_offset = (uint32_t)writer->at;
    range->relaxed_length = (uint32_t)(out - begin);
    writer->at += range->relaxed_length;
}

static void relax_template(struct writer *writer, struct template *template) {
    for (uint32_t i = 0; template != NULL && template->blocks != NULL && i < template->program.count; i++) {
        struct template_block *block = &template->blocks[i];
        relax(writer, block->stretch != NULL ? &block->stretch->ranges[0] : &block->range);
    }
}

/* In the order of the message, so that neighbours are neighbours in both forms. */
static void relax_all(struct recording *recording) {
    struct render_prepared *prepared = recording->prepared;
    for (uint32_t i = 0; i < prepared->body.item_count; i++) {
        struct prepared_item *item = &prepared->body.items[i];
        if (item->template == NULL)
            relax(&recording->writer, &item->range);
        else
            relax_template(&recording->writer, item->template == prepared->text ? prepared->text : prepared->html);
    }
}

static struct template *compile(const char *text, bool html) {
    char error[ERROR_BYTES];
    struct template *template = text == NULL ? NULL : malloc(sizeof(*template));
    if (template != NULL && template_open(template, text, html, true, error, sizeof(error)) != 0) {
        free(template);
        template = NULL;
    }
    return template;
}

/* What was written is what messages share. */
static void keep_shared(struct render_prepared *prepared, struct writer *writer, size_t length) {
    static atomic_uint_fast64_t last_id;
    struct shared_bytes *shared = &prepared->body.shared;
    writer_trim(writer);
    shared->id = atomic_fetch_add(&last_id, 1) + 1;
    shared->bytes = shared->relaxed = writer->bytes;
    shared->length = (uint32_t)length;
    prepared->bytes += writer->capacity;
}

/* A malformed text: then the body is not there, and its messages tell. */
static void prepare_body(struct render_prepared *prepared) {
    const struct job *fields = prepared->fields;
    struct prepared_body *body = &prepared->body;
    prepared->text = compile(fields->text, false);
    prepared->html = compile(fields->html, true);
    if (prepared->text != NULL)
        merge_number(&prepared->text->program, &prepared->names);
    if (prepared->html != NULL)
        merge_number(&prepared->html->program, &prepared->names);
    body->attachments = calloc(fields->attachment_count + 1, sizeof(*body->attachments));
    if ((prepared->text == NULL) != (fields->text == NULL) || (prepared->html == NULL) != (fields->html == NULL) ||
        body->attachments == NULL)
        return;
    struct recording recording = {.prepared = prepared, .writer = {.limit = UINT32_MAX / 2}};
    struct mime_content content = {.text = prepared->text,
                                   .html = prepared->html,
                                   .attachment_count = fields->attachment_count,
                                   .attachments = fields->attachments,
                                   .boundary = prepared->boundary};
    struct mime_output output = {.header = &body->header,
                                 .body = &recording.writer,
                                 .context = &recording,
                                 .begin = record_begin,
                                 .text = record_text,
                                 .attachment = record_attachment};
    body->header.limit = SIZE_MAX / 2;
    int result = mime_write(&output, &content);
    add_range(&recording, false);
    size_t length = recording.writer.at;
    relax_all(&recording);
    keep_shared(prepared, &recording.writer, length);
    body->there = result == 0 && recording.writer.error == 0 && body->header.error == 0 && !recording.failed;
    prepared->bytes += body->header.capacity;
    if (!body->there) {
        template_forget(prepared->text);
        template_forget(prepared->html);
    }
}

/* One that cannot be sent is not there, and its messages tell. */
static void prepare_raw(struct render_prepared *prepared) {
    const struct job *fields = prepared->fields;
    struct writer writer = {.limit = UINT32_MAX / 2};
    struct shared_range range = {.offset = 0};
    prepared->raw = raw_prepare(fields->raw, fields->raw_length, &writer);
    size_t length = writer.at;
    range.length = (uint32_t)length;
    if (prepared->raw != NULL)
        relax(&writer, &range);
    if (prepared->raw == NULL || writer.error != 0) {
        raw_prepared_free(prepared->raw);
        prepared->raw = NULL;
        free(writer.bytes);
        return;
    }
    if (range.relaxed_length == length && length > 0 && memcmp(writer.bytes, writer.bytes + range.relaxed_offset, length) == 0) {
        range.relaxed_offset = 0; /* it is relaxed as it stands */
        writer.at = length;
    }
    prepared->raw_body = range;
    prepared->bytes += raw_prepared_bytes(prepared->raw);
    keep_shared(prepared, &writer, length);
}

bool prepared_body_is(const struct render_prepared *prepared, const struct job *job) {
    return prepared != NULL && prepared->body.there && job->text == prepared->fields->text && job->html == prepared->fields->html &&
           job->attachments == prepared->fields->attachments;
}

/* -- the header -- */

static bool any_header_is_template(const struct job *fields) {
    bool any = false;
    for (uint32_t i = 0; i < fields->header_count && !any; i++)
        any = merge_is_template(fields->headers[i].value);
    return any;
}

/* Writes fields with the same code as a message's; what fails here is not there, and fails message by message. */
static void prepare_fields(struct render_prepared *prepared, struct prepared_fields *out, int (*write)(struct rendering *r)) {
    static const struct job_recipient nobody;
    char error[ERROR_BYTES];
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

/* A content of many short tags takes ten times its text: the cache must know. */
static size_t prepared_memory(const struct render_prepared *prepared) {
    return (prepared->text == NULL ? 0 : template_bytes(prepared->text)) + (prepared->html == NULL ? 0 : template_bytes(prepared->html)) +
           (prepared->global == NULL ? 0 : sizeof(*prepared->global) + prepared->global->capacity * sizeof(struct value)) +
           prepared->body.item_capacity * sizeof(struct prepared_item) + prepared->tag_count * sizeof(struct prepared_tag) +
           (prepared->fields->attachment_count + 1) * sizeof(struct shared_range);
}

/* Behind the texts, whose names it is read with. */
static void prepare_global(struct render_prepared *prepared) {
    const char *text = prepared->fields->merge_global_data;
    char error[ERROR_BYTES];
    if (text != NULL)
        prepared->global = malloc(sizeof(*prepared->global));
    if (prepared->global != NULL &&
        values_read_named(prepared->global, &prepared->names, text, "merge_global_data", error, sizeof(error)) != 0) {
        free(prepared->global);
        prepared->global = NULL;
    }
}

struct render_prepared *render_prepare(const struct job *fields, const char *content_id, const struct identity *identity) {
    struct render_prepared *prepared = calloc(1, sizeof(*prepared));
    if (prepared == NULL)
        return NULL;
    prepared->fields = fields;
    value_names_init(&prepared->names);
    prepared->bytes = sizeof(*prepared) + 3 * sizeof(struct template);
    if (fields->raw != NULL) {
        prepare_raw(prepared);
        return prepared;
    }
    identity_boundary(identity, content_id, prepared->boundary);
    prepare_body(prepared);
    prepare_header(prepared);
    bulk_prepare(prepared);
    prepare_global(prepared);
    prepared->bytes += prepared_memory(prepared);
    return prepared;
}

static void template_free(struct template *template) {
    if (template != NULL)
        template_close(template);
    free(template);
}

void render_prepared_free(struct render_prepared *prepared) {
    if (prepared == NULL)
        return;
    if (prepared->global != NULL)
        values_free(prepared->global);
    free(prepared->global);
    template_free(prepared->text);
    template_free(prepared->html);
    raw_prepared_free(prepared->raw);
    free(prepared->body.header.bytes);
    free((uint8_t *)prepared->body.shared.bytes);
    free(prepared->body.items);
    free(prepared->body.attachments);
    free(prepared->tags);
    free(prepared->senders.writer.bytes);
    free(prepared->subject.writer.bytes);
    free(prepared->custom.writer.bytes);
    free(prepared);
}

size_t render_prepared_bytes(const struct render_prepared *prepared) {
    return prepared == NULL ? 0 : prepared->bytes;
}
