/* decode.c: the walk through a job's fields: each checked, each fault one sentence that names its field. job.schema.json says the same to
 * producers. */
#include "decode.h"

#include "control/render/render.h"
#include "fetch.h"
#include "live.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool decode_fail(struct decoder *decoder, const char *place, const char *format, ...) {
    if (decoder->error_bytes == 0 || decoder->error[0]) {
        return false; /* the first fault is the one that is told */
    }
    int used = *place ? snprintf(decoder->error, decoder->error_bytes, "%s: ", place) : 0;
    if (used >= 0 && (size_t)used < decoder->error_bytes) {
        va_list args;
        va_start(args, format);
        vsnprintf(decoder->error + used, decoder->error_bytes - (size_t)used, format, args);
        va_end(args);
    }
    return false;
}

/* Bytes of the UTF-8 sequence that begins here, or 0 when it is broken (RFC 3629). */
static size_t utf8_length(const unsigned char *c, size_t left) {
    size_t length = c[0] < 0x80                   ? 1
                    : c[0] >= 0xc2 && c[0] < 0xe0 ? 2
                    : c[0] >= 0xe0 && c[0] < 0xf0 ? 3
                    : c[0] >= 0xf0 && c[0] < 0xf5 ? 4
                                                  : 0;
    if (length == 0 || length > left) {
        return 0;
    }
    for (size_t i = 1; i < length; i++) {
        if ((c[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return length;
}

const char *decode_quote(const char *bytes, size_t length, char out[QUOTE_BYTES]) {
    size_t used = 0, i = 0;
    while (i < length && used < QUOTE_BYTES - 8) {
        const unsigned char *c = (const unsigned char *)bytes + i;
        if (*c >= 32 && *c < 127) {
            out[used++] = (char)*c;
            i++;
            continue;
        }
        size_t n = utf8_length(c, length - i);
        if (n <= 1) { /* a control character, or broken */
            out[used++] = '?';
            i++;
        } else {
            memcpy(out + used, c, n);
            used += n;
            i += n;
        }
    }
    strcpy(out + used, i < length ? "..." : "");
    return out;
}

const char *decode_kind(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "true or false";
    case JSON_NULL:
    default:
        return "null (leave the field out instead)";
    }
}

/* Levenshtein's distance, for names of at most 31 bytes. */
static size_t distance(const char *a, const char *b) {
    size_t n = strlen(b), row[33];
    if (strlen(a) > 31 || n > 31) {
        return 99;
    }
    for (size_t j = 0; j <= n; j++) {
        row[j] = j;
    }
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            best = row[j] + 1 < best ? row[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[n];
}

const char *decode_nearest(const char *written, const char *const *names, size_t count) {
    const char *nearest = NULL;
    size_t least = strlen(written) < 5 ? 2 : 3; /* exclusive: one or two letters wrong */
    for (size_t i = 0; i < count; i++) {
        size_t d = distance(written, names[i]);
        if (d < least) {
            least = d;
            nearest = names[i];
        }
    }
    return nearest;
}

/* Every recipient has several places, and hardly one is ever told: they are written by hand. */
static size_t place_append(char out[PLACE_BYTES], size_t used, const char *text, size_t maximum) {
    size_t length = strnlen(text, maximum);
    memcpy(out + used, text, length);
    return used + length;
}

void place_index(char out[PLACE_BYTES], const char *place, size_t index) {
    enum { PLACE_PART = 130, DIGITS_MAX = 20 };
    static_assert(PLACE_PART + DIGITS_MAX + 3 <= PLACE_BYTES, "both and the brackets fit");
    char digits[DIGITS_MAX];
    size_t used = place_append(out, 0, place, PLACE_PART), at = DIGITS_MAX;
    do {
        digits[--at] = (char)('0' + index % 10);
    } while ((index /= 10) > 0);
    out[used++] = '[';
    memcpy(out + used, digits + at, DIGITS_MAX - at);
    used += DIGITS_MAX - at;
    out[used++] = ']';
    out[used] = 0;
}

void place_member(char out[PLACE_BYTES], const char *place, const char *member) {
    enum { PLACE_PART = 80, MEMBER_PART = 75 };
    static_assert(PLACE_PART + MEMBER_PART + 2 <= PLACE_BYTES, "both and the dot fit");
    char quote[QUOTE_BYTES];
    size_t used = place_append(out, 0, place, PLACE_PART);
    if (used > 0) {
        out[used++] = '.';
    }
    used = place_append(out, used, decode_quote(member, strlen(member), quote), MEMBER_PART);
    out[used] = 0;
}

bool decode_line(struct decoder *decoder, const char *place, const json_t *value, size_t minimum, size_t maximum, char **out) {
    if (!json_is_string(value)) {
        return decode_fail(decoder, place, "It must be a string, not %s.", decode_kind(value));
    }
    const char *text = json_string_value(value);
    size_t length = json_string_length(value);
    if (length < minimum) {
        return decode_fail(decoder, place, "It must not be empty.");
    }
    if (length > maximum) {
        return decode_fail(decoder, place, "It has %zu bytes; at most %zu are allowed.", length, maximum);
    }
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c < 32 && c != '\t') || c == 127) {
            return decode_fail(decoder, place, "It holds a line break or another control character.");
        }
    }
    *out = strndup(text, length);
    return *out != NULL || decode_fail(decoder, place, DECODE_STARVED);
}

void decode_range(struct decoder *decoder, size_t at, size_t end) {
    if (decoder->range_count < JOB_RECIPIENTS_MAX) {
        decoder->ranges[decoder->range_count] = (struct text_range){.at = (uint32_t)at, .end = (uint32_t)end};
    }
    decoder->range_count++;
}

/* A name that becomes part of keys, logs and file names. */
static bool decode_name(struct decoder *decoder, const char *place, const json_t *value, size_t maximum, char **out) {
    char quote[QUOTE_BYTES];
    if (!decode_line(decoder, place, value, 1, maximum, out)) {
        return false;
    }
    for (const char *c = *out; *c; c++) {
        if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || strchr("._-", *c))) {
            return decode_fail(decoder, place, "\"%s\" must hold only letters, digits, dots, hyphens and underscores.",
                               decode_quote(*out, strlen(*out), quote));
        }
    }
    return true;
}

/* An object that is kept as JSON text. */
static bool decode_object_text(struct decoder *decoder, const char *place, const json_t *value, size_t maximum, char **out) {
    if (!json_is_object(value)) {
        return decode_fail(decoder, place, "It must be an object, not %s.", decode_kind(value));
    }
    free(*out);
    *out = json_dumps(value, JSON_COMPACT);
    if (!*out) {
        return decode_fail(decoder, place, DECODE_STARVED);
    }
    size_t length = strlen(*out);
    return length <= maximum || decode_fail(decoder, place, "It has %zu bytes as JSON; at most %zu are allowed.", length, maximum);
}

static bool field_id(struct decoder *decoder, const char *place, const json_t *value) {
    return decode_line(decoder, place, value, 1, ID_MAX, &decoder->job->id);
}

static bool field_from(struct decoder *decoder, const char *place, const json_t *value) {
    if (json_is_array(value)) {
        return decode_fail(decoder, place, "A message has one sender: it must be a string or an object {email, name}, not an array.");
    }
    return decode_mailbox(decoder, place, value, &decoder->job->from);
}

static bool field_to(struct decoder *decoder, const char *place, const json_t *value) {
    return decode_mailboxes(decoder, place, value, &decoder->job->to, &decoder->job->to_count);
}

static bool field_cc(struct decoder *decoder, const char *place, const json_t *value) {
    return decode_mailboxes(decoder, place, value, &decoder->job->cc, &decoder->job->cc_count);
}

static bool field_bcc(struct decoder *decoder, const char *place, const json_t *value) {
    return decode_mailboxes(decoder, place, value, &decoder->bcc, &decoder->bcc_count);
}

static bool field_reply_to(struct decoder *decoder, const char *place, const json_t *value) {
    return decode_mailboxes(decoder, place, value, &decoder->job->reply_to, &decoder->job->reply_to_count);
}

static bool field_subject(struct decoder *decoder, const char *place, const json_t *value) {
    return decode_line(decoder, place, value, 0, SUBJECT_MAX, &decoder->job->subject);
}

static bool field_text(struct decoder *decoder, const char *place, const json_t *value) {
    return decode_body(decoder, place, value, &decoder->job->text);
}

static bool field_html(struct decoder *decoder, const char *place, const json_t *value) {
    return decode_body(decoder, place, value, &decoder->job->html);
}

static bool field_headers(struct decoder *decoder, const char *place, const json_t *value) {
    struct job *job = decoder->job;
    return decode_headers(decoder, place, value, &job->headers, &job->header_count, &job->sender_header);
}

static bool field_content(struct decoder *decoder, const char *place, const json_t *value) {
    return decode_name(decoder, place, value, CONTENT_ID_MAX, &decoder->job->content_id);
}

static bool field_recipients(struct decoder *decoder, const char *place, const json_t *value) {
    if (!json_is_array(value)) {
        return decode_fail(decoder, place, "It must be an array, not %s.", decode_kind(value));
    }
    decoder->recipients = (json_t *)value;
    decoder->has_recipients = true;
    return true;
}

static bool field_merge_global_data(struct decoder *decoder, const char *place, const json_t *value) {
    return decode_object_text(decoder, place, value, MERGE_DATA_MAX, &decoder->job->merge_global_data);
}

static bool field_metadata(struct decoder *decoder, const char *place, const json_t *value) {
    return decode_object_text(decoder, place, value, METADATA_MAX, &decoder->job->metadata);
}

static bool field_tags(struct decoder *decoder, const char *place, const json_t *value) {
    struct job *job = decoder->job;
    size_t count = json_is_array(value) ? json_array_size(value) : 1;
    if (count > TAGS_MAX) {
        return decode_fail(decoder, place, "It has %zu tags; at most %d are allowed.", count, TAGS_MAX);
    }
    job->tags = calloc(count ? count : 1, sizeof *job->tags);
    if (!job->tags) {
        return decode_fail(decoder, place, DECODE_STARVED);
    }
    job->tag_count = (uint32_t)count;
    if (!json_is_array(value)) {
        return decode_line(decoder, place, value, 1, TAG_MAX, &job->tags[0]);
    }
    for (size_t i = 0; i < count; i++) {
        char below[PLACE_BYTES];
        place_index(below, place, i);
        if (!decode_line(decoder, below, json_array_get(value, i), 1, TAG_MAX, &job->tags[i])) {
            return false;
        }
    }
    return true;
}

static bool field_tenant(struct decoder *decoder, const char *place, const json_t *value) {
    return decode_name(decoder, place, value, TENANT_NAME_MAX, &decoder->job->tenant);
}

static bool field_campaign(struct decoder *decoder, const char *place, const json_t *value) {
    return decode_name(decoder, place, value, CAMPAIGN_NAME_MAX, &decoder->job->campaign);
}

static bool field_pool(struct decoder *decoder, const char *place, const json_t *value) {
    return decode_name(decoder, place, value, POOL_NAME_MAX, &decoder->job->pool);
}

static bool field_priority(struct decoder *decoder, const char *place, const json_t *value) {
    const char *text = json_string_value(value);
    char quote[QUOTE_BYTES];
    if (!text) {
        return decode_fail(decoder, place, "It must be a string, not %s.", decode_kind(value));
    }
    decoder->job->high = strcmp(text, "high") == 0;
    return decoder->job->high || strcmp(text, "normal") == 0 ||
           decode_fail(decoder, place, "\"%s\" must be high or normal.", decode_quote(text, strlen(text), quote));
}

static bool field_send_at(struct decoder *decoder, const char *place, const json_t *value) {
    return decode_time(decoder, place, value, &decoder->job->send_at_ms);
}

static bool field_expires_at(struct decoder *decoder, const char *place, const json_t *value) {
    return decode_time(decoder, place, value, &decoder->job->expires_at_ms);
}

static bool field_dedupe(struct decoder *decoder, const char *place, const json_t *value) {
    if (!json_is_boolean(value)) {
        return decode_fail(decoder, place, "It must be true or false, not %s.", decode_kind(value));
    }
    decoder->dedupe = json_is_true(value);
    return true;
}

static bool field_require_tls(struct decoder *decoder, const char *place, const json_t *value) {
    if (!json_is_boolean(value)) {
        return decode_fail(decoder, place, "It must be true or false, not %s.", decode_kind(value));
    }
    decoder->job->require_tls = json_is_true(value);
    return true;
}

static bool choice_take(struct decoder *decoder, const char *place, const json_t *value, enum job_choice *out) {
    if (!json_is_boolean(value)) {
        return decode_fail(decoder, place, "It must be true or false, not %s.", decode_kind(value));
    }
    *out = json_is_true(value) ? CHOICE_YES : CHOICE_NO;
    return true;
}

static bool field_bulk(struct decoder *decoder, const char *place, const json_t *value) {
    return choice_take(decoder, place, value, &decoder->job->bulk);
}

static bool field_verp(struct decoder *decoder, const char *place, const json_t *value) {
    return choice_take(decoder, place, value, &decoder->job->verp);
}

struct job_field {
    const char *name;
    bool (*decode)(struct decoder *decoder, const char *place, const json_t *value);
    bool of_jobs_only; /* a shared content cannot have it */
};

static const struct job_field job_fields[] = {
    {"id", field_id, true},
    {"from", field_from, false},
    {"to", field_to, true},
    {"cc", field_cc, true},
    {"bcc", field_bcc, true},
    {"reply_to", field_reply_to, false},
    {"envelope_sender", decode_envelope_sender, false},
    {"subject", field_subject, false},
    {"text", field_text, false},
    {"html", field_html, false},
    {"headers", field_headers, false},
    {"attachments", decode_attachments, false},
    {"raw", decode_raw, false},
    {"content", field_content, true},
    {"recipients", field_recipients, true},
    {"merge_global_data", field_merge_global_data, false},
    {"tags", field_tags, false},
    {"metadata", field_metadata, false},
    {"tenant", field_tenant, true},
    {"campaign", field_campaign, true},
    {"pool", field_pool, false},
    {"priority", field_priority, true},
    {"send_at", field_send_at, true},
    {"expires_at", field_expires_at, true},
    {"list_unsubscribe", decode_list_unsubscribe, false},
    {"list_id", decode_list_id, false},
    {"feedback_id", decode_feedback_id, false},
    {"precedence", decode_precedence, false},
    {"bulk", field_bulk, false},
    {"verp", field_verp, false},
    {"dsn", decode_dsn, false},
    {"require_tls", field_require_tls, false},
    {"dedupe", field_dedupe, true},
};
enum { JOB_FIELDS = sizeof job_fields / sizeof *job_fields };

static bool decode_fields(struct decoder *decoder, json_t *tree) {
    const char *key;
    json_t *value;
    json_object_foreach(tree, key, value) {
        const struct job_field *field = NULL;
        for (size_t i = 0; i < JOB_FIELDS && !field; i++) {
            field = strcmp(key, job_fields[i].name) == 0 ? &job_fields[i] : NULL;
        }
        if (!field) {
            const char *names[JOB_FIELDS];
            char place[PLACE_BYTES];
            for (size_t i = 0; i < JOB_FIELDS; i++) {
                names[i] = job_fields[i].name;
            }
            place_member(place, "", key);
            const char *near = decode_nearest(key, names, JOB_FIELDS);
            return decode_fail(decoder, place, "A %s has no such field%s%s%s", decoder->is_content ? "content" : "job",
                               near ? "; did you mean " : ".", near ? near : "", near ? "?" : "");
        }
        if (decoder->is_content && field->of_jobs_only) {
            return decode_fail(decoder, field->name, "A shared content has no such field: it belongs into the jobs that name the content.");
        }
        if (!field->decode(decoder, field->name, value)) {
            return false;
        }
    }
    return true;
}

/* The job's metadata with the recipient's over it: what the recipient's events carry. */
static bool recipient_metadata(struct decoder *decoder, const char *place, const json_t *value, struct job_recipient *out) {
    if (!json_is_object(value)) {
        return decode_fail(decoder, place, "It must be an object, not %s.", decode_kind(value));
    }
    if (!decoder->job->metadata) {
        return decode_object_text(decoder, place, value, METADATA_MAX, &out->metadata);
    }
    json_t *both = json_loads(decoder->job->metadata, 0, NULL);
    bool ok =
        both && json_object_update(both, (json_t *)value) == 0 && decode_object_text(decoder, place, both, METADATA_MAX, &out->metadata);
    json_decref(both);
    return ok || decode_fail(decoder, place, DECODE_STARVED);
}

static bool decode_recipient(struct decoder *decoder, const char *place, const json_t *value, struct job_recipient *out) {
    static const char *const names[] = {"to", "merge_data", "metadata", "headers"};
    out->kind = RECIPIENT_PRIVATE;
    if (!json_is_object(value)) {
        return decode_fail(decoder, place, "It must be an object {to, merge_data, metadata, headers}, not %s.", decode_kind(value));
    }
    const char *key;
    json_t *member;
    json_object_foreach((json_t *)value, key, member) {
        char below[PLACE_BYTES];
        bool ok = true;
        place_member(below, place, key);
        if (strcmp(key, "to") == 0) {
            ok =
                json_is_array(member)
                    ? decode_fail(decoder, below, "A private message has one recipient: a string or an object {email, name}, not an array.")
                    : decode_mailbox(decoder, below, member, &out->mailbox);
        } else if (strcmp(key, "metadata") == 0) {
            ok = recipient_metadata(decoder, below, member, out);
        } else if (strcmp(key, "merge_data") == 0) {
            ok = decoder->has_raw ? decode_fail(decoder, below, "A raw message is sent as it is: it takes no merge_data.")
                                  : decode_object_text(decoder, below, member, MERGE_DATA_MAX, &out->merge_data);
        } else if (strcmp(key, "headers") == 0) {
            ok = decoder->has_raw ? decode_fail(decoder, below, "A raw message is sent as it is: it takes no headers.")
                                  : decode_headers(decoder, below, member, &out->headers, &out->header_count, NULL);
        } else {
            const char *near = decode_nearest(key, names, 4);
            ok = decode_fail(decoder, below, "A recipient has no such field%s%s%s", near ? "; did you mean " : ".", near ? near : "",
                             near ? "?" : "");
        }
        if (!ok) {
            return false;
        }
    }
    return out->mailbox.email != NULL || decode_fail(decoder, place, "The recipient has no to.");
}

static bool mailbox_copy(const struct mailbox *from, struct mailbox *out) {
    out->email = strdup(from->email);
    out->name = from->name ? strdup(from->name) : NULL;
    out->domain = out->email ? out->email + (from->domain - from->email) : NULL;
    return out->email != NULL;
}

/* recipients[], or to, cc and bcc, become the envelope's recipients in this order: their indexes are part of the job's identity. */
static bool decode_recipients(struct decoder *decoder) {
    struct job *job = decoder->job;
    size_t private_count = decoder->has_recipients ? json_array_size(decoder->recipients) : 0;
    size_t total = (size_t)job->to_count + job->cc_count + decoder->bcc_count + private_count;
    uint32_t maximum = decoder->config->max_recipients_per_job;
    maximum = maximum == 0 || maximum > JOB_RECIPIENTS_MAX ? JOB_RECIPIENTS_MAX : maximum;
    if (decoder->has_recipients && job->to_count + job->cc_count + decoder->bcc_count > 0) {
        return decode_fail(decoder, "recipients",
                           "A job has either recipients (a private message each) or to, cc and bcc (one message), not both.");
    }
    if (total == 0) {
        return decode_fail(decoder, "", "The job has no recipient: give to, cc, bcc or recipients.");
    }
    if (total > maximum) {
        return decode_fail(decoder, decoder->has_recipients ? "recipients" : "to",
                           "The job has %zu recipients; at most %" PRIu32 " are allowed: split it.", total, maximum);
    }
    job->recipients = calloc(total, sizeof *job->recipients);
    if (!job->recipients) {
        return decode_fail(decoder, "", DECODE_STARVED);
    }
    job->recipient_total = (uint32_t)total;
    size_t at = 0;
    for (size_t i = 0; i < private_count; i++, at++) {
        char place[PLACE_BYTES];
        place_index(place, "recipients", i);
        if (!decode_recipient(decoder, place, json_array_get(decoder->recipients, i), &job->recipients[at])) {
            return false;
        }
    }
    const struct {
        const struct mailbox *list;
        uint32_t count;
        enum recipient_kind kind;
    } visible[] = {
        {job->to, job->to_count, RECIPIENT_TO}, {job->cc, job->cc_count, RECIPIENT_CC}, {decoder->bcc, decoder->bcc_count, RECIPIENT_BCC}};
    for (size_t v = 0; v < 3; v++) {
        for (uint32_t i = 0; i < visible[v].count; i++, at++) {
            job->recipients[at].kind = visible[v].kind;
            if (!mailbox_copy(&visible[v].list[i], &job->recipients[at].mailbox)) {
                return decode_fail(decoder, "", DECODE_STARVED);
            }
        }
    }
    return true;
}

/* All recipients are pending, but with dedupe only the first of each address. Indexes stay as they are. */
static bool pending_fill(struct decoder *decoder) {
    struct job *job = decoder->job;
    job->pending = calloc(job->recipient_total, sizeof *job->pending);
    if (!job->pending) {
        return decode_fail(decoder, "", DECODE_STARVED);
    }
    for (uint32_t i = 0; i < job->recipient_total; i++) {
        bool repeated = false;
        for (uint32_t j = 0; decoder->dedupe && j < job->pending_count && !repeated; j++) {
            repeated = strcmp(job->recipients[i].mailbox.email, job->recipients[job->pending[j]].mailbox.email) == 0;
        }
        if (!repeated) {
            job->pending[job->pending_count++] = i;
        }
    }
    job->entry_recipients = job->pending_count;
    return true;
}

/* A field of bulk mail and a header of its name. */
static bool bulk_headers_check(struct decoder *decoder) {
    const struct job *job = decoder->job;
    const struct {
        const char *field, *header;
        bool given;
    } fields[] = {{"list_unsubscribe", "List-Unsubscribe", job->list_unsubscribe != NULL},
                  {"list_unsubscribe", "List-Unsubscribe-Post", job->list_unsubscribe != NULL},
                  {"list_id", "List-Id", job->list_id != NULL},
                  {"feedback_id", "Feedback-ID", job->feedback_id != NULL},
                  {"precedence", "Precedence", job->precedence != PRECEDENCE_UNSET}};
    for (size_t f = 0; f < sizeof fields / sizeof *fields; f++) {
        for (uint32_t i = 0; fields[f].given && i < job->header_count; i++) {
            if (strcasecmp(job->headers[i].name, fields[f].header) == 0) {
                return decode_fail(decoder, fields[f].field, "The header %.40s is given too: use one of them.", job->headers[i].name);
            }
        }
    }
    return true;
}

/* What no single field can tell. */
static bool decode_whole(struct decoder *decoder) {
    const struct job *job = decoder->job;
    if (decoder->has_raw && job->content_id) {
        return decode_fail(decoder, "raw", "A job has either a raw message of its own or a shared content, not both.");
    }
    if (!job->from.email && !job->content_id && !decoder->is_content) {
        return decode_fail(decoder, "", "The job has no from.");
    }
    if (decoder->has_raw) {
        const struct {
            const char *name;
            bool given;
        } others[] = {{"text", job->text != NULL},
                      {"html", job->html != NULL},
                      {"subject", job->subject != NULL},
                      {"headers", job->header_count > 0 || job->sender_header.email},
                      {"attachments", job->attachment_count > 0},
                      {"reply_to", job->reply_to_count > 0},
                      {"list_unsubscribe", job->list_unsubscribe != NULL},
                      {"list_id", job->list_id != NULL},
                      {"feedback_id", job->feedback_id != NULL},
                      {"precedence", job->precedence != PRECEDENCE_UNSET},
                      {"merge_global_data", job->merge_global_data != NULL}};
        for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
            if (others[i].given) {
                return decode_fail(decoder, "raw", "A raw message is sent as it is: the job must not have %s beside it.", others[i].name);
            }
        }
    } else if (!job->text && !job->html && !job->content_id && !decoder->is_content) {
        return decode_fail(decoder, "", "The job has no content: give text, html, raw or the name of a shared content.");
    }
    if (decoder->message_bytes > decoder->config->max_message_bytes) {
        return decode_fail(decoder, "",
                           "The message would have at least %" PRIu64 " bytes; at most %" PRIu32 " are allowed (`max_message_size`).",
                           decoder->message_bytes, decoder->config->max_message_bytes);
    }
    if (job->send_at_ms && job->expires_at_ms && job->expires_at_ms <= job->send_at_ms) {
        return decode_fail(decoder, "expires_at", "The job would expire before its send_at.");
    }
    bulk_note_built_ins(decoder->job);
    return bulk_headers_check(decoder);
}

/* The text is kept only where job_subset could make a smaller one of it. */
static bool source_keep(struct decoder *decoder, const uint8_t *bytes, size_t length) {
    struct job *job = decoder->job;
    if (decoder->range_count < 2) {
        return true;
    }
    job->source_text = malloc(length);
    if (!job->source_text) {
        return decode_fail(decoder, "", DECODE_STARVED);
    }
    memcpy(job->source_text, bytes, length);
    job->source_length = length;
    job->recipients_at = (uint32_t)decoder->recipients_at;
    for (uint32_t i = 0; i < decoder->range_count; i++) {
        job->recipients[i].text_at = decoder->ranges[i].at;
        job->recipients[i].text_length = decoder->ranges[i].end - decoder->ranges[i].at;
    }
    return true;
}

/* A malformed template would be each recipient's error. */
static bool templates_check(struct decoder *decoder) {
    char sentence[TEMPLATE_FAULT_BYTES];
    int result = render_check_job(decoder->job, sentence, sizeof sentence);
    if (result == 0) {
        return true;
    }
    for (char *c = sentence; *c; c++) { /* names of the template are in it */
        *c = (char)((unsigned char)*c < 32 || *c == 127 ? '?' : *c);
    }
    return decode_fail(decoder, "", "%s", result == -ENOMEM ? DECODE_STARVED : sentence);
}

static struct job *decode_run(struct decoder *decoder, const uint8_t *bytes, size_t length) {
    if (decoder->error_bytes > 0) {
        decoder->error[0] = 0;
    }
    json_t *tree = decode_tree(decoder, bytes, length);
    if (!tree) {
        decode_fail(decoder, "", DECODE_STARVED);
        return NULL;
    }
    decoder->job = job_create();
    bool ok = decoder->job && decode_fields(decoder, tree) && decode_whole(decoder) &&
              (decoder->is_content ||
               (decode_recipients(decoder) && pending_fill(decoder) && source_keep(decoder, bytes, length) && templates_check(decoder)));
    json_decref(tree);
    for (uint32_t i = 0; decoder->bcc && i < decoder->bcc_count; i++) {
        free(decoder->bcc[i].email);
        free(decoder->bcc[i].name);
    }
    free(decoder->bcc);
    /* A job with a content gets this when it has that (control/content). */
    const char *fault = ok && !decoder->is_content && !decoder->job->content_id ? job_bulk_fill(decoder->job, decoder->config) : NULL;
    ok = ok && (!fault || decode_fail(decoder, "", "%s", fault));
    if (!ok) {
        decode_fail(decoder, "", DECODE_STARVED);
        job_release(decoder->job);
        return NULL;
    }
    return decoder->job;
}

struct job *job_decode(const uint8_t *bytes, size_t length, const struct config *config, char *error, size_t error_bytes) {
    struct decoder decoder = {.config = config, .error = error, .error_bytes = error_bytes};
    return decode_run(&decoder, bytes, length);
}

struct job *job_decode_content(const uint8_t *bytes, size_t length, const struct config *config, char *error, size_t error_bytes) {
    struct decoder decoder = {.config = config, .error = error, .error_bytes = error_bytes, .is_content = true};
    return decode_run(&decoder, bytes, length);
}

bool job_decode_starved(const char *error) {
    size_t length = strlen(error), said = strlen(DECODE_STARVED);
    return length >= said && strcmp(error + length - said, DECODE_STARVED) == 0;
}
