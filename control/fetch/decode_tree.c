/* decode_tree.c: a job's bytes, JSON or MessagePack, become one kind of tree. MessagePack is read here rather than by msgpack-c, which
 * allocates by the counts that a text announces before it has seen the elements. */
#include "decode.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool tree_too_deep(struct decoder *decoder) {
    return decode_fail(decoder, "", "The job is nested deeper than %d levels.", JOB_DEPTH_MAX);
}

static bool tree_too_many(struct decoder *decoder) {
    return decode_fail(decoder, "", "The job has more than %d values.", JOB_VALUES_MAX);
}

struct msgpack_reader {
    struct decoder *decoder;
    const uint8_t *begin, *at, *end;
    uint32_t values;
};

static json_t *msgpack_broken(struct msgpack_reader *reader, const char *place) {
    decode_fail(reader->decoder, place, "The job is not valid MessagePack: it ends too early.");
    return NULL;
}

/* A big-endian number of `bytes` bytes. */
static bool msgpack_number(struct msgpack_reader *reader, unsigned bytes, uint64_t *out) {
    if ((size_t)(reader->end - reader->at) < bytes) {
        return false;
    }
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++) {
        value = value << 8 | reader->at[i];
    }
    reader->at += bytes;
    *out = value;
    return true;
}

static json_t *msgpack_value(struct msgpack_reader *reader, const char *place, unsigned depth, bool bytes_allowed);

static json_t *msgpack_string(struct msgpack_reader *reader, const char *place, uint64_t length, bool is_binary) {
    if ((uint64_t)(reader->end - reader->at) < length) {
        return msgpack_broken(reader, place);
    }
    const char *text = (const char *)reader->at;
    reader->at += length;
    if (is_binary) {
        return json_stringn_nocheck(text, length);
    }
    if (memchr(text, 0, length)) {
        decode_fail(reader->decoder, place, "A string must not hold NUL.");
        return NULL;
    }
    json_t *string = json_stringn(text, length);
    if (!string) {
        decode_fail(reader->decoder, place, "The string is not valid UTF-8.");
    }
    return string;
}

/* header_at: where its first byte stands. */
static json_t *msgpack_array(struct msgpack_reader *reader, const char *place, uint64_t count, unsigned depth, size_t header_at) {
    json_t *array = json_array();
    bool is_recipients = depth == 2 && strcmp(place, "recipients") == 0; /* the job's own: a map's key "" is refused later */
    if (is_recipients) {
        reader->decoder->recipients_at = header_at;
    }
    for (uint64_t i = 0; array && i < count; i++) {
        char below[PLACE_BYTES];
        place_index(below, place, i);
        size_t at = (size_t)(reader->at - reader->begin);
        json_t *value = msgpack_value(reader, below, depth + 1, false);
        if (value && is_recipients) {
            decode_range(reader->decoder, at, (size_t)(reader->at - reader->begin));
        }
        if (!value || json_array_append_new(array, value) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

/* A map's key: a string. */
static bool msgpack_key(struct msgpack_reader *reader, const char *place, char key[256]) {
    json_t *string = msgpack_value(reader, place, 1, false);
    if (!string) {
        return false;
    }
    bool ok = json_is_string(string) && json_string_length(string) < 256;
    if (ok) {
        memcpy(key, json_string_value(string), json_string_length(string) + 1);
    } else {
        decode_fail(reader->decoder, place, "A map's keys must be strings of at most 255 bytes.");
    }
    json_decref(string);
    return ok;
}

/* Binary is welcome where bytes are meant: `raw` at the top, `content` in attachments. */
static bool bytes_belong(const char *place, const char *key) {
    return (!*place && strcmp(key, "raw") == 0) ||
           (strncmp(place, "attachments[", 12) == 0 && strcmp(key, "content") == 0 && !strchr(place, '.'));
}

static json_t *msgpack_map(struct msgpack_reader *reader, const char *place, uint64_t count, unsigned depth) {
    json_t *map = json_object();
    for (uint64_t i = 0; map && i < count; i++) {
        char key[256], below[PLACE_BYTES];
        if (!msgpack_key(reader, place, key)) {
            json_decref(map);
            return NULL;
        }
        place_member(below, place, key);
        if (json_object_get(map, key)) {
            decode_fail(reader->decoder, below, "The field is given twice.");
            json_decref(map);
            return NULL;
        }
        bool belongs = bytes_belong(place, key);
        bool is_binary = reader->at < reader->end && *reader->at >= 0xc4 && *reader->at <= 0xc6;
        json_t *value = msgpack_value(reader, below, depth + 1, belongs);
        if (!value || json_object_set_new(map, belongs && is_binary && *place ? CONTENT_BYTES_KEY : key, value) != 0) {
            json_decref(map);
            return NULL;
        }
    }
    return map;
}

static json_t *msgpack_float(uint64_t bits, bool is_double, struct msgpack_reader *reader, const char *place) {
    double number;
    if (is_double) {
        memcpy(&number, &bits, sizeof number);
    } else {
        uint32_t half = (uint32_t)bits;
        float single;
        memcpy(&single, &half, sizeof single);
        number = (double)single;
    }
    json_t *value = json_real(number); /* NULL for what JSON has no word for */
    if (!value) {
        decode_fail(reader->decoder, place, "The number is not finite.");
    }
    return value;
}

static json_t *msgpack_unsigned(uint64_t number, struct msgpack_reader *reader, const char *place) {
    if (number > INT64_MAX) {
        decode_fail(reader->decoder, place, "The number is too large.");
        return NULL;
    }
    return json_integer((json_int_t)number);
}

static json_t *msgpack_value(struct msgpack_reader *reader, const char *place, unsigned depth, bool bytes_allowed) {
    if (depth > JOB_DEPTH_MAX) {
        tree_too_deep(reader->decoder);
        return NULL;
    }
    if (++reader->values > JOB_VALUES_MAX) {
        tree_too_many(reader->decoder);
        return NULL;
    }
    if (reader->at == reader->end) {
        return msgpack_broken(reader, place);
    }
    size_t tag_at = (size_t)(reader->at - reader->begin);
    uint8_t tag = *reader->at++;
    uint64_t number = 0;
    if (tag <= 0x7f) {
        return json_integer(tag);
    }
    if (tag <= 0x8f) {
        return msgpack_map(reader, place, tag & 0x0f, depth);
    }
    if (tag <= 0x9f) {
        return msgpack_array(reader, place, tag & 0x0f, depth, tag_at);
    }
    if (tag <= 0xbf) {
        return msgpack_string(reader, place, tag & 0x1f, false);
    }
    if (tag >= 0xe0) {
        return json_integer((int8_t)tag);
    }
    switch (tag) {
    case 0xc0:
        return json_null();
    case 0xc2:
        return json_false();
    case 0xc3:
        return json_true();
    case 0xc4: /* bin 8, 16, 32 */
    case 0xc5:
    case 0xc6:
        if (!bytes_allowed) {
            decode_fail(reader->decoder, place, "Binary belongs only in raw and in the content of attachments; this must be a string.");
            return NULL;
        }
        return msgpack_number(reader, 1u << (tag - 0xc4), &number) ? msgpack_string(reader, place, number, true)
                                                                   : msgpack_broken(reader, place);
    case 0xca: /* float 32, 64 */
    case 0xcb:
        return msgpack_number(reader, tag == 0xca ? 4 : 8, &number) ? msgpack_float(number, tag == 0xcb, reader, place)
                                                                    : msgpack_broken(reader, place);
    case 0xcc: /* uint 8 to 64 */
    case 0xcd:
    case 0xce:
    case 0xcf:
        return msgpack_number(reader, 1u << (tag - 0xcc), &number) ? msgpack_unsigned(number, reader, place)
                                                                   : msgpack_broken(reader, place);
    case 0xd0: /* int 8 to 64 */
        return msgpack_number(reader, 1, &number) ? json_integer((int8_t)number) : msgpack_broken(reader, place);
    case 0xd1:
        return msgpack_number(reader, 2, &number) ? json_integer((int16_t)number) : msgpack_broken(reader, place);
    case 0xd2:
        return msgpack_number(reader, 4, &number) ? json_integer((int32_t)number) : msgpack_broken(reader, place);
    case 0xd3:
        return msgpack_number(reader, 8, &number) ? json_integer((int64_t)number) : msgpack_broken(reader, place);
    case 0xd9: /* str 8, 16, 32 */
    case 0xda:
    case 0xdb:
        return msgpack_number(reader, 1u << (tag - 0xd9), &number) ? msgpack_string(reader, place, number, false)
                                                                   : msgpack_broken(reader, place);
    case 0xdc: /* array 16, 32 */
    case 0xdd:
        return msgpack_number(reader, tag == 0xdc ? 2 : 4, &number) ? msgpack_array(reader, place, number, depth, tag_at)
                                                                    : msgpack_broken(reader, place);
    case 0xde: /* map 16, 32 */
    case 0xdf:
        return msgpack_number(reader, tag == 0xde ? 2 : 4, &number) ? msgpack_map(reader, place, number, depth)
                                                                    : msgpack_broken(reader, place);
    default:
        decode_fail(reader->decoder, place, "MessagePack type 0x%02x has no meaning in a job.", tag);
        return NULL;
    }
}

static json_t *msgpack_tree(struct decoder *decoder, const uint8_t *bytes, size_t length) {
    struct msgpack_reader reader = {.decoder = decoder, .begin = bytes, .at = bytes, .end = bytes + length};
    json_t *tree = msgpack_value(&reader, "", 1, false);
    if (tree && reader.at != reader.end) {
        decode_fail(decoder, "", "The job is not valid MessagePack: %zu bytes follow its end.", (size_t)(reader.end - reader.at));
        json_decref(tree);
        return NULL;
    }
    return tree;
}

json_t *decode_tree(struct decoder *decoder, const uint8_t *bytes, size_t length) {
    size_t skip = 0;
    while (skip < length && (bytes[skip] == ' ' || bytes[skip] == '\t' || bytes[skip] == '\r' || bytes[skip] == '\n')) {
        skip++;
    }
    if (skip == length) {
        decode_fail(decoder, "", "The job is empty.");
        return NULL;
    }
    /* Base64 makes four bytes of three; the rest is room for recipients and names. */
    uint64_t maximum = (uint64_t)decoder->config->max_message_bytes * 2 + (16u << 20);
    if (length > maximum) {
        decode_fail(decoder, "", "The job has %zu bytes; at most %" PRIu64 " are read.", length, maximum);
        return NULL;
    }
    uint8_t first = bytes[skip];
    if (first == '{') {
        return decode_json(decoder, bytes, length);
    }
    decoder->is_msgpack = true;
    first = bytes[0];
    if ((first & 0xf0) == 0x80 || first == 0xde || first == 0xdf) {
        return msgpack_tree(decoder, bytes, length);
    }
    decode_fail(decoder, "", "The job begins with byte 0x%02x: it must be a JSON object or a MessagePack map.", first);
    return NULL;
}
