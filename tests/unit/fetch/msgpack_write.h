/* msgpack_write.h: a JSON tree as MessagePack, for tests that compare the two. */
#ifndef TESTS_UNIT_FETCH_MSGPACK_WRITE_H
#define TESTS_UNIT_FETCH_MSGPACK_WRITE_H

#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct bytes {
    uint8_t *at;
    size_t length;
};

static inline void bytes_add(struct bytes *bytes, const void *more, size_t length) {
    bytes->at = realloc(bytes->at, bytes->length + length + 1);
    memcpy(bytes->at + bytes->length, more, length);
    bytes->length += length;
}

/* A tag, then a big-endian number. */
static inline void bytes_tag(struct bytes *bytes, uint8_t tag, uint64_t number, unsigned width) {
    uint8_t text[9] = {tag};
    for (unsigned i = 0; i < width; i++) {
        text[1 + i] = (uint8_t)(number >> (8 * (width - 1 - i)));
    }
    bytes_add(bytes, text, 1 + width);
}

static inline void msgpack_text(struct bytes *bytes, const char *text, size_t length) {
    bytes_tag(bytes, length < 32 ? (uint8_t)(0xa0 | length) : 0xda, length, length < 32 ? 0 : 2);
    bytes_add(bytes, text, length);
}

static inline void msgpack_write(struct bytes *bytes, const json_t *tree) {
    const char *key;
    json_t *value;
    switch (json_typeof(tree)) {
    case JSON_OBJECT:
        bytes_tag(bytes, 0xde, json_object_size(tree), 2);
        json_object_foreach((json_t *)tree, key, value) {
            msgpack_text(bytes, key, strlen(key));
            msgpack_write(bytes, value);
        }
        break;
    case JSON_ARRAY:
        bytes_tag(bytes, 0xdd, json_array_size(tree), 4);
        for (size_t i = 0; i < json_array_size(tree); i++) {
            msgpack_write(bytes, json_array_get(tree, i));
        }
        break;
    case JSON_STRING:
        msgpack_text(bytes, json_string_value(tree), json_string_length(tree));
        break;
    case JSON_INTEGER:
        bytes_tag(bytes, 0xd3, (uint64_t)json_integer_value(tree), 8);
        break;
    case JSON_REAL: {
        double number = json_real_value(tree);
        uint64_t bits;
        memcpy(&bits, &number, 8);
        bytes_tag(bytes, 0xcb, bits, 8);
        break;
    }
    case JSON_TRUE:
    case JSON_FALSE:
        bytes_tag(bytes, json_is_true(tree) ? 0xc3 : 0xc2, 0, 0);
        break;
    case JSON_NULL:
    default:
        bytes_tag(bytes, 0xc0, 0, 0);
        break;
    }
}

#endif
