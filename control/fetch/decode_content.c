/* decode_content.c: what a message is made of: bodies, headers, attachments. */
#include "decode.h"
#include "control/bulk_field.h"
#include "control/render/content_type.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

bool decode_body(struct decoder *decoder, const char *place, const json_t *value, char **out) {
    if (!json_is_string(value)) {
        return decode_fail(decoder, place, "It must be a string, not %s.", decode_kind(value));
    }
    *out = strndup(json_string_value(value), json_string_length(value));
    if (!*out) {
        return decode_fail(decoder, place, DECODE_STARVED);
    }
    decoder->message_bytes += json_string_length(value);
    return true;
}

bool decode_raw(struct decoder *decoder, const char *place, const json_t *value) {
    if (!json_is_string(value)) {
        return decode_fail(decoder, place, "It must be a string, not %s.", decode_kind(value));
    }
    size_t length = json_string_length(value);
    if (length == 0) {
        return decode_fail(decoder, place, "The message is empty.");
    }
    if (memchr(json_string_value(value), 0, length)) {
        return decode_fail(decoder, place, "A message must not hold NUL.");
    }
    decoder->job->raw = malloc(length);
    if (!decoder->job->raw) {
        return decode_fail(decoder, place, DECODE_STARVED);
    }
    memcpy(decoder->job->raw, json_string_value(value), length);
    decoder->job->raw_length = length;
    decoder->message_bytes += length;
    decoder->has_raw = true;
    return true;
}

/* Header fields that bypost writes itself, with the field of the job to use instead. */
static const struct owned_header {
    const char *name, *remedy;
} owned_headers[] = {
    {"From", "use from"},
    {"To", "use to or recipients"},
    {"Cc", "use cc"},
    {"Bcc", "use bcc"},
    {"Reply-To", "use reply_to"},
    {"Subject", "use subject"},
    {"Return-Path", "use envelope_sender"},
    {"Date", "bypost fixes it at the first attempt"},
    {"Message-ID", "bypost derives it from the job, so that a repeat is recognisable"},
    {"MIME-Version", "bypost writes it"},
    {"Received", "it is for servers that relay"},
    {"DKIM-Signature", "bypost signs by its configuration"},
    {"Authentication-Results", "it is for receiving servers"},
    {"Received-SPF", "it is for receiving servers"},
    {"Delivered-To", "it is for receiving servers"},
};
static const char *const owned_prefixes[] = {"Content-", "Resent-", "ARC-"};

static bool header_name_check(struct decoder *decoder, const char *place, const char *name, bool sender_allowed) {
    size_t length = strlen(name);
    if (length == 0 || length > HEADER_NAME_MAX) {
        return decode_fail(decoder, place, "A header's name has 1 to %d characters.", HEADER_NAME_MAX);
    }
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)name[i];
        if (c <= 32 || c >= 127 || c == ':') {
            return decode_fail(decoder, place, "A header's name holds only printable ASCII, without spaces and colons (RFC 5322 3.6.8).");
        }
    }
    for (size_t i = 0; i < sizeof owned_headers / sizeof *owned_headers; i++) {
        if (strcasecmp(name, owned_headers[i].name) == 0) {
            return decode_fail(decoder, place, "The header %s cannot be set: %s.", owned_headers[i].name, owned_headers[i].remedy);
        }
    }
    for (size_t i = 0; i < sizeof owned_prefixes / sizeof *owned_prefixes; i++) {
        if (strncasecmp(name, owned_prefixes[i], strlen(owned_prefixes[i])) == 0) {
            return decode_fail(decoder, place, "Headers that begin with %s cannot be set: bypost writes them.", owned_prefixes[i]);
        }
    }
    if (!sender_allowed && strcasecmp(name, "Sender") == 0) {
        return decode_fail(decoder, place, "The header Sender is set for the whole job, in headers.");
    }
    return true;
}

static bool header_add(struct decoder *decoder, const char *place, const char *name, const json_t *value, struct job_header **list,
                       uint32_t *count) {
    if (*count >= HEADERS_MAX) {
        return decode_fail(decoder, place, "More than %d headers.", HEADERS_MAX);
    }
    struct job_header *grown = realloc(*list, (*count + 1) * sizeof **list);
    if (!grown) {
        return decode_fail(decoder, place, DECODE_STARVED);
    }
    *list = grown;
    struct job_header *header = &grown[*count];
    *header = (struct job_header){.name = NULL};
    (*count)++;
    if (!decode_line(decoder, place, value, 0, HEADER_VALUE_MAX, &header->value)) {
        return false;
    }
    header->name = strdup(name);
    return header->name != NULL || decode_fail(decoder, place, DECODE_STARVED);
}

bool decode_headers(struct decoder *decoder, const char *place, const json_t *value, struct job_header **out, uint32_t *count,
                    struct mailbox *sender) {
    if (!json_is_object(value)) {
        return decode_fail(decoder, place, "It must be an object of names and values, not %s.", decode_kind(value));
    }
    const char *name;
    json_t *member;
    json_object_foreach((json_t *)value, name, member) {
        char below[PLACE_BYTES], quote[QUOTE_BYTES];
        place_member(below, place, decode_quote(name, strlen(name), quote));
        if (!header_name_check(decoder, below, name, sender != NULL)) {
            return false;
        }
        if (strcasecmp(name, "Sender") == 0) {
            if (sender->email) {
                return decode_fail(decoder, below, "The header Sender is given twice.");
            }
            if (!decode_mailbox(decoder, below, member, sender)) {
                return false;
            }
        } else if (json_is_array(member)) {
            for (size_t i = 0; i < json_array_size(member); i++) {
                char item[PLACE_BYTES];
                place_index(item, below, i);
                if (!header_add(decoder, item, name, json_array_get(member, i), out, count)) {
                    return false;
                }
            }
        } else if (!header_add(decoder, below, name, member, out, count)) {
            return false;
        }
    }
    return true;
}

/* One URI. Variables may stand in it, and all of it may be one that is taken as it is. */
static bool unsubscribe_uri_check(struct decoder *decoder, const char *place, const char *text) {
    char quote[QUOTE_BYTES];
    bool variable = strncmp(text, "{{{", 3) == 0 || strncmp(text, "{{&", 3) == 0;
    bool ok = strncasecmp(text, "https://", 8) == 0 ? text[8] != 0 : strncasecmp(text, "mailto:", 7) == 0 && text[7] != 0;
    if (!ok && !variable) {
        return decode_fail(decoder, place, "\"%s\" must begin with https:// or mailto: (RFC 8058).",
                           decode_quote(text, strlen(text), quote));
    }
    for (const char *c = text; *c; c++) {
        if ((unsigned char)*c <= 32 || (unsigned char)*c >= 127 || strchr("<>,", *c)) {
            return decode_fail(decoder, place, "\"%s\" holds a character that a URI must escape.", decode_quote(text, strlen(text), quote));
        }
    }
    return true;
}

bool decode_list_unsubscribe(struct decoder *decoder, const char *place, const json_t *value) {
    char **out = &decoder->job->list_unsubscribe, *uris[LIST_UNSUBSCRIBE_URIS_MAX] = {NULL};
    if (!json_is_array(value)) {
        return decode_line(decoder, place, value, 1, LIST_UNSUBSCRIBE_MAX, out) && unsubscribe_uri_check(decoder, place, *out);
    }
    size_t count = json_array_size(value);
    if (count == 0 || count > LIST_UNSUBSCRIBE_URIS_MAX) {
        return decode_fail(decoder, place, "It has %zu URIs; give an https: one, a mailto: one, or both.", count);
    }
    bool ok = true;
    for (size_t i = 0; i < count && ok; i++) {
        char below[PLACE_BYTES];
        place_index(below, place, i);
        ok = decode_line(decoder, below, json_array_get(value, i), 1, LIST_UNSUBSCRIBE_MAX, &uris[i]) &&
             unsubscribe_uri_check(decoder, below, uris[i]);
    }
    if (ok && count == 2 && strncasecmp(uris[0], uris[1], 7) == 0) {
        ok = decode_fail(decoder, place,
                         "It has two URIs of one kind; RFC 8058 wants one https: URI, with at most a mailto: one beside it.");
    } else if (ok) {
        ok = (count == 2 ? asprintf(out, "<%s>, <%s>", uris[0], uris[1]) : asprintf(out, "%s", uris[0])) >= 0;
        if (!ok) {
            *out = NULL;
            decode_fail(decoder, place, DECODE_STARVED);
        }
    }
    free(uris[0]);
    free(uris[1]);
    return ok;
}

bool decode_list_id(struct decoder *decoder, const char *place, const json_t *value) {
    char quote[QUOTE_BYTES], **out = &decoder->job->list_id;
    if (!decode_line(decoder, place, value, 1, LIST_ID_MAX, out)) {
        return false;
    }
    return strstr(*out, "{{") || list_id_parse(*out, NULL, NULL, NULL) ||
           decode_fail(decoder, place, "\"%s\" must be like news.example.com or News of ours <news.example.com> (RFC 2919).",
                       decode_quote(*out, strlen(*out), quote));
}

bool decode_feedback_id(struct decoder *decoder, const char *place, const json_t *value) {
    char quote[QUOTE_BYTES], **out = &decoder->job->feedback_id;
    if (!decode_line(decoder, place, value, 1, FEEDBACK_ID_MAX, out)) {
        return false;
    }
    return strstr(*out, "{{") || feedback_id_is_legal(*out) ||
           decode_fail(decoder, place,
                       "\"%s\" must have four parts with colons and no spaces, the last (the sender) of 5 to 15 characters.",
                       decode_quote(*out, strlen(*out), quote));
}

bool decode_precedence(struct decoder *decoder, const char *place, const json_t *value) {
    static const struct {
        const char *name;
        enum job_precedence precedence;
    } words[] = {{"bulk", PRECEDENCE_BULK}, {"list", PRECEDENCE_LIST}, {"none", PRECEDENCE_NONE}};
    const char *text = json_string_value(value);
    char quote[QUOTE_BYTES];
    if (!text) {
        return decode_fail(decoder, place, "It must be a string, not %s.", decode_kind(value));
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(text, words[i].name) == 0) {
            decoder->job->precedence = words[i].precedence;
            return true;
        }
    }
    return decode_fail(decoder, place, "\"%s\" must be bulk, list or none.", decode_quote(text, strlen(text), quote));
}

static int base64_digit(unsigned char c) {
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

/* RFC 4648 4, with line breaks as encoders write them. False when it is not base64. */
static bool base64_decode(const char *text, size_t length, uint8_t *out, size_t *out_length) {
    uint32_t quantum = 0;
    unsigned held = 0, padding = 0;
    size_t used = 0;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '\r' || c == '\n' || c == ' ' || c == '\t') {
            continue;
        }
        int digit = base64_digit(c);
        if (c == '=') {
            padding++;
        } else if (digit < 0 || padding) {
            return false;
        }
        quantum = quantum << 6 | (c == '=' ? 0 : (uint32_t)digit);
        if (++held == 4) {
            if (padding > 2) {
                return false;
            }
            out[used++] = (uint8_t)(quantum >> 16);
            if (padding < 2) {
                out[used++] = (uint8_t)(quantum >> 8);
            }
            if (padding < 1) {
                out[used++] = (uint8_t)quantum;
            }
            held = 0;
            quantum = 0;
        }
    }
    *out_length = used;
    return held == 0;
}

static bool attachment_content(struct decoder *decoder, const char *place, const json_t *text, const json_t *bytes,
                               struct job_attachment *out) {
    const json_t *value = bytes ? bytes : text;
    if (!value) {
        return decode_fail(decoder, place, "The attachment has no content.");
    }
    char below[PLACE_BYTES];
    place_member(below, place, "content");
    if (!json_is_string(value)) {
        return decode_fail(decoder, below, "It must be a string in base64, not %s.", decode_kind(value));
    }
    size_t length = json_string_length(value);
    out->bytes = malloc(length ? length : 1);
    if (!out->bytes) {
        return decode_fail(decoder, below, DECODE_STARVED);
    }
    if (bytes) {
        memcpy(out->bytes, json_string_value(value), length);
        out->length = length;
    } else if (!base64_decode(json_string_value(value), length, out->bytes, &out->length)) {
        return decode_fail(decoder, below, "It is not base64 (RFC 4648 section 4).");
    }
    decoder->message_bytes += (out->length + 2) / 3 * 4;
    return true;
}

/* type/subtype, perhaps with parameters. */
static bool content_type_check(struct decoder *decoder, const char *place, const char *text) {
    char quote[QUOTE_BYTES];
    const char *fault = content_type_fault(text);
    if (fault) {
        return decode_fail(decoder, place, "\"%s\" %s.", decode_quote(text, strlen(text), quote), fault);
    }
    return strncasecmp(text, "multipart/", 10) != 0 || decode_fail(decoder, place, "An attachment cannot be multipart.");
}

static bool content_id_check(struct decoder *decoder, const char *place, char *text) {
    char quote[QUOTE_BYTES];
    size_t length = strlen(text);
    if (length > 2 && text[0] == '<' && text[length - 1] == '>') {
        memmove(text, text + 1, length - 2);
        text[length - 2] = 0;
    }
    for (const char *c = text; *c; c++) {
        if ((unsigned char)*c <= 32 || (unsigned char)*c >= 127 || strchr("<>()\"\\,;:", *c)) {
            return decode_fail(decoder, place, "\"%s\" is not a content ID: printable ASCII without spaces and brackets.",
                               decode_quote(text, strlen(text), quote));
        }
    }
    return true;
}

static bool disposition_take(struct decoder *decoder, const char *place, const json_t *value, struct job_attachment *out) {
    const char *text = json_string_value(value);
    char quote[QUOTE_BYTES];
    if (!text) {
        return decode_fail(decoder, place, "It must be a string, not %s.", decode_kind(value));
    }
    out->is_inline = strcmp(text, "inline") == 0;
    if (!out->is_inline && strcmp(text, "attachment") != 0) {
        return decode_fail(decoder, place, "\"%s\" must be attachment or inline.", decode_quote(text, strlen(text), quote));
    }
    return true;
}

static bool attachment_take(struct decoder *decoder, const char *place, const json_t *value, struct job_attachment *out) {
    static const char *const names[] = {"filename", "content_type", "content", "content_id", "disposition"};
    if (!json_is_object(value)) {
        return decode_fail(decoder, place, "It must be an object, not %s.", decode_kind(value));
    }
    bool has_disposition = false;
    const char *key;
    json_t *member;
    json_object_foreach((json_t *)value, key, member) {
        char below[PLACE_BYTES];
        place_member(below, place, key);
        if (strcmp(key, "filename") == 0) {
            if (!decode_line(decoder, below, member, 1, FILENAME_MAX_BYTES, &out->filename)) {
                return false;
            }
        } else if (strcmp(key, "content_type") == 0) {
            if (!decode_line(decoder, below, member, 1, CONTENT_TYPE_MAX, &out->content_type) ||
                !content_type_check(decoder, below, out->content_type)) {
                return false;
            }
        } else if (strcmp(key, "content_id") == 0) {
            if (!decode_line(decoder, below, member, 1, ATTACHMENT_ID_MAX, &out->content_id) ||
                !content_id_check(decoder, below, out->content_id)) {
                return false;
            }
        } else if (strcmp(key, "disposition") == 0) {
            has_disposition = true;
            if (!disposition_take(decoder, below, member, out)) {
                return false;
            }
        } else if (strcmp(key, "content") != 0 && !(decoder->is_msgpack && strcmp(key, CONTENT_BYTES_KEY) == 0)) {
            const char *near = decode_nearest(key, names, sizeof names / sizeof *names);
            return decode_fail(decoder, below, "Attachments have no such field%s%s%s", near ? "; did you mean " : ".", near ? near : "",
                               near ? "?" : "");
        }
    }
    if (!out->filename) {
        return decode_fail(decoder, place, "The attachment has no filename.");
    }
    if (!out->content_type) {
        out->content_type = strdup("application/octet-stream");
    }
    if (!has_disposition) {
        out->is_inline = out->content_id != NULL;
    }
    return attachment_content(decoder, place, json_object_get(value, "content"),
                              decoder->is_msgpack ? json_object_get(value, CONTENT_BYTES_KEY) : NULL, out);
}

bool decode_attachments(struct decoder *decoder, const char *place, const json_t *value) {
    struct job *job = decoder->job;
    if (!json_is_array(value)) {
        return decode_fail(decoder, place, "It must be an array, not %s.", decode_kind(value));
    }
    size_t count = json_array_size(value);
    if (count > ATTACHMENTS_MAX) {
        return decode_fail(decoder, place, "It has %zu attachments; at most %d are allowed.", count, ATTACHMENTS_MAX);
    }
    job->attachments = calloc(count ? count : 1, sizeof *job->attachments);
    if (!job->attachments) {
        return decode_fail(decoder, place, DECODE_STARVED);
    }
    job->attachment_count = (uint32_t)count;
    for (size_t i = 0; i < count; i++) {
        char below[PLACE_BYTES];
        place_index(below, place, i);
        if (!attachment_take(decoder, below, json_array_get(value, i), &job->attachments[i])) {
            return false;
        }
    }
    return true;
}
