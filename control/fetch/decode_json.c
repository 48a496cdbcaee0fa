/* decode_json.c: JSON text becomes a tree of jansson's values. yajl parses, because it passes over long strings by table: a job with a text
 * of 4 KB costs a fifth of what jansson's own parser takes, which was the largest part of control's work. */
#include "decode.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_parse.h>

enum { NUMBER_BYTES = 64 };

/* The containers that are open, and the key that waits for its value. */
struct json_reader {
    struct decoder *decoder;
    json_t *root;
    json_t *open[JOB_DEPTH_MAX];
    json_t *key[JOB_DEPTH_MAX]; /* a JSON string, or NULL */
    uint32_t depth, values;
    yajl_handle parser;
    bool in_recipients; /* the job's own array, at depth 2 */
    size_t element_at;
};

/* The array of the job's key `recipients` is about to be opened. */
static bool recipients_begin(const struct json_reader *reader) {
    const json_t *key = reader->depth == 1 ? reader->key[0] : NULL;
    return key && strcmp(json_string_value(key), "recipients") == 0;
}

static int reader_fail(struct json_reader *reader, json_t *value) {
    json_decref(value);
    return 0;
}

/* Puts a value where it belongs; takes it over. */
static int reader_put(struct json_reader *reader, json_t *value) {
    if (!value) {
        decode_fail(reader->decoder, "", DECODE_STARVED);
        return 0;
    }
    if (++reader->values > JOB_VALUES_MAX) {
        decode_fail(reader->decoder, "", "The job has more than %d values.", JOB_VALUES_MAX);
        return reader_fail(reader, value);
    }
    if (reader->depth == 0) {
        reader->root = value;
        return 1;
    }
    uint32_t top = reader->depth - 1;
    if (json_is_array(reader->open[top])) {
        return json_array_append_new(reader->open[top], value) == 0;
    }
    json_t *key = reader->key[top];
    reader->key[top] = NULL;
    int put = json_object_setn_new_nocheck(reader->open[top], json_string_value(key), json_string_length(key), value) == 0;
    json_decref(key);
    return put;
}

static int reader_open(struct json_reader *reader, json_t *container) {
    if (reader->depth == JOB_DEPTH_MAX) {
        decode_fail(reader->decoder, "", "The job is nested deeper than %d levels.", JOB_DEPTH_MAX);
        return reader_fail(reader, container);
    }
    if (!reader_put(reader, container)) {
        return 0;
    }
    reader->open[reader->depth] = container; /* its parent, or root, owns it */
    reader->key[reader->depth++] = NULL;
    return 1;
}

static int on_null(void *context) {
    return reader_put(context, json_null());
}
static int on_boolean(void *context, int value) {
    return reader_put(context, json_boolean(value));
}
static int on_start_map(void *context) {
    struct json_reader *reader = context;
    if (reader->in_recipients && reader->depth == 2) {
        reader->element_at = yajl_get_bytes_consumed(reader->parser) - 1;
    }
    return reader_open(reader, json_object());
}
static int on_start_array(void *context) {
    struct json_reader *reader = context;
    if (recipients_begin(reader)) {
        reader->in_recipients = true;
        reader->decoder->recipients_at = yajl_get_bytes_consumed(reader->parser) - 1;
    }
    return reader_open(reader, json_array());
}
static int on_end_map(void *context) {
    struct json_reader *reader = context;
    reader->depth--;
    if (reader->in_recipients && reader->depth == 2) {
        decode_range(reader->decoder, reader->element_at, yajl_get_bytes_consumed(reader->parser));
    }
    return 1;
}
static int on_end_array(void *context) {
    struct json_reader *reader = context;
    reader->depth--;
    reader->in_recipients = reader->in_recipients && reader->depth > 1;
    return 1;
}

/* Whole numbers stay exact; one beyond 64 bits, or a fraction, is a real. */
static int on_number(void *context, const char *text, size_t length) {
    struct json_reader *reader = context;
    char copy[NUMBER_BYTES];
    if (length >= sizeof copy) {
        decode_fail(reader->decoder, "", "A number has more than %d characters.", NUMBER_BYTES - 1);
        return 0;
    }
    memcpy(copy, text, length);
    copy[length] = '\0';
    if (!strpbrk(copy, ".eE")) {
        errno = 0;
        long long whole = strtoll(copy, NULL, 10);
        if (errno == 0) {
            return reader_put(reader, json_integer(whole));
        }
    }
    json_t *real = json_real(strtod(copy, NULL)); /* NULL for an infinity */
    if (!real) {
        decode_fail(reader->decoder, "", "The number %s is out of range.", copy);
        return 0;
    }
    return reader_put(reader, real);
}

/* yajl has checked its UTF-8, but takes surrogates and characters in longer forms than need be, which RFC 3629 3 forbids. */
static json_t *reader_string(struct json_reader *reader, const unsigned char *text, size_t length) {
    unsigned char all = 0;
    if (memchr(text, '\0', length)) {
        decode_fail(reader->decoder, "", "A string must not hold \\u0000.");
        return NULL;
    }
    for (size_t i = 0; i < length; i++) {
        all |= text[i];
    }
    if (all < 0x80) {
        return json_stringn_nocheck((const char *)text, length);
    }
    json_t *string = json_stringn((const char *)text, length);
    if (!string) {
        decode_fail(reader->decoder, "", "The job is not valid JSON: a string is not valid UTF-8 (RFC 3629).");
    }
    return string;
}

static int on_string(void *context, const unsigned char *text, size_t length) {
    struct json_reader *reader = context;
    json_t *string = reader_string(reader, text, length);
    return string ? reader_put(reader, string) : 0;
}

static int on_map_key(void *context, const unsigned char *text, size_t length) {
    struct json_reader *reader = context;
    json_t *key = reader_string(reader, text, length);
    if (!key) {
        return 0;
    }
    uint32_t top = reader->depth - 1;
    if (json_object_getn(reader->open[top], json_string_value(key), length)) {
        char quoted[QUOTE_BYTES];
        decode_fail(reader->decoder, "", "The key %s stands twice in one object.", decode_quote(json_string_value(key), length, quoted));
        return reader_fail(reader, key);
    }
    reader->key[top] = key;
    return 1;
}

/* The first line of yajl's sentence, with the place. */
static void parse_failed(struct json_reader *reader, yajl_handle parser, const uint8_t *bytes, size_t length, bool at_end) {
    size_t at = at_end ? length : yajl_get_bytes_consumed(parser);
    at = at < length ? at : length;
    unsigned line = 1, column = 1;
    for (size_t i = 0; i < at; i++) {
        column = bytes[i] == '\n' ? 1 : column + 1;
        line += bytes[i] == '\n';
    }
    unsigned char *sentence = yajl_get_error(parser, 0, NULL, 0);
    const char *reason = sentence ? (const char *)sentence : "unknown";
    const char *colon = strstr(reason, "error: ");
    reason = colon ? colon + strlen("error: ") : reason;
    decode_fail(reader->decoder, "", "The job is not valid JSON: %.*s (line %u, column %u).", (int)strcspn(reason, "\n"), reason, line,
                column);
    if (sentence) {
        yajl_free_error(parser, sentence);
    }
}

json_t *decode_json(struct decoder *decoder, const uint8_t *bytes, size_t length) {
    static const yajl_callbacks callbacks = {.yajl_null = on_null,
                                             .yajl_boolean = on_boolean,
                                             .yajl_number = on_number,
                                             .yajl_string = on_string,
                                             .yajl_start_map = on_start_map,
                                             .yajl_map_key = on_map_key,
                                             .yajl_end_map = on_end_map,
                                             .yajl_start_array = on_start_array,
                                             .yajl_end_array = on_end_array};
    struct json_reader reader = {.decoder = decoder};
    yajl_handle parser = yajl_alloc(&callbacks, NULL, &reader);
    if (!parser) {
        decode_fail(decoder, "", DECODE_STARVED);
        return NULL;
    }
    reader.parser = parser;
    yajl_status status = yajl_parse(parser, bytes, length);
    bool at_end = status == yajl_status_ok;
    if (at_end) {
        status = yajl_complete_parse(parser);
    }
    if (status == yajl_status_error) {
        parse_failed(&reader, parser, bytes, length, at_end);
    }
    yajl_free(parser);
    if (status == yajl_status_ok && reader.root) {
        return reader.root;
    }
    for (uint32_t i = 0; i < reader.depth; i++) {
        json_decref(reader.key[i]);
    }
    json_decref(reader.root);
    return NULL;
}
