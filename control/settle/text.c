/* text.c: JSON by appending: five times as fast as building a tree and dumping it, and the record of an attempt is written for every
 * message. */
#include "text.h"

#include <stdlib.h>
#include <string.h>

enum { TEXT_SIZE_FIRST = 1024 };

void text_free(struct text *text) {
    free(text->bytes);
    *text = (struct text){.bytes = NULL};
}

void text_shrink(struct text *text) {
    char *smaller = text->length ? realloc(text->bytes, text->length) : NULL;
    if (smaller) {
        text->bytes = smaller;
        text->size = text->length;
    } else if (text->length == 0) {
        text_free(text);
    }
}

static bool text_reserve(struct text *text, size_t more) {
    if (text->failed || text->size - text->length >= more) {
        return !text->failed;
    }
    size_t size = text->size ? text->size : TEXT_SIZE_FIRST;
    while (size - text->length < more) {
        size *= 2;
    }
    char *grown = realloc(text->bytes, size);
    if (!grown) {
        text->failed = true;
        return false;
    }
    text->bytes = grown;
    text->size = size;
    return true;
}

/* Room for so many bytes at the end, or NULL; who writes there adds to the length. */
static char *text_end(struct text *text, size_t more) {
    return text_reserve(text, more) ? text->bytes + text->length : NULL;
}

void text_add(struct text *text, const char *bytes, size_t length) {
    char *end = text_end(text, length);
    if (end) {
        memcpy(end, bytes, length);
        text->length += length;
    }
}

static void text_literal(struct text *text, const char *literal) {
    text_add(text, literal, strlen(literal));
}

static void text_byte(struct text *text, char byte) {
    char *end = text_end(text, 1);
    if (end) {
        *end = byte;
        text->length++;
    }
}

size_t text_digits(char *digits, uint64_t number) {
    char backwards[TEXT_DIGITS_MAX];
    size_t at = sizeof backwards;
    do {
        backwards[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    memcpy(digits, backwards + at, sizeof backwards - at);
    return sizeof backwards - at;
}

void text_number(struct text *text, uint64_t number) {
    char *end = text_end(text, TEXT_DIGITS_MAX);
    if (end) {
        text->length += text_digits(end, number);
    }
}

/* The length of the UTF-8 sequence at c, or 0 when it is none: overlong forms, surrogates and what lies beyond U+10FFFF are none. */
static size_t sequence_length(const unsigned char *c, size_t left) {
    size_t length = c[0] < 0xc2 ? 0 : c[0] < 0xe0 ? 2 : c[0] < 0xf0 ? 3 : c[0] < 0xf5 ? 4 : 0;
    if (length == 0 || length > left) {
        return 0;
    }
    unsigned char low = c[0] == 0xe0 ? 0xa0 : c[0] == 0xf0 ? 0x90 : 0x80;
    unsigned char high = c[0] == 0xed ? 0x9f : c[0] == 0xf4 ? 0x8f : 0xbf;
    if (c[1] < low || c[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < length; i++) {
        if ((c[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return length;
}

/* Bytes from the beginning that stand for themselves in a JSON string and are ASCII, eight at a time while they all are. */
static size_t plain_length(const unsigned char *c, size_t length) {
    static const uint64_t ones = 0x0101010101010101, tops = 0x8080808080808080;
    size_t at = 0;
    for (; length - at >= sizeof(uint64_t); at += sizeof(uint64_t)) {
        uint64_t eight;
        memcpy(&eight, c + at, sizeof eight);
        uint64_t quote = eight ^ (ones * '"'), backslash = eight ^ (ones * '\\');
        uint64_t special = (eight - ones * 32) | (eight + ones) | (quote - ones) | (backslash - ones);
        if ((special | eight) & tops) { /* or a borrow from the byte below: the loop behind looks closely */
            break;
        }
    }
    while (at < length && c[at] >= 32 && c[at] < 127 && c[at] != '"' && c[at] != '\\') {
        at++;
    }
    return at;
}

void text_string(struct text *text, const char *bytes, size_t length) {
    static const char hex[] = "0123456789abcdef";
    const unsigned char *c = (const unsigned char *)bytes, *end = c + length;
    text_byte(text, '"');
    while (c < end) {
        size_t plain = plain_length(c, (size_t)(end - c));
        text_add(text, (const char *)c, plain);
        c += plain;
        if (c == end) {
            break;
        }
        size_t sequence = *c >= 128 ? sequence_length(c, (size_t)(end - c)) : 0;
        if (sequence) {
            text_add(text, (const char *)c, sequence);
            c += sequence;
        } else if (*c >= 128) {
            text_literal(text, "\xef\xbf\xbd");
            c++;
        } else if (*c == '"' || *c == '\\') {
            text_add(text, (const char[]){'\\', (char)*c++}, 2);
        } else if (*c == '\n') {
            text_literal(text, "\\n");
            c++;
        } else {
            text_add(text, (const char[]){'\\', 'u', '0', '0', hex[*c >> 4], hex[*c & 15]}, 6);
            c++;
        }
    }
    text_byte(text, '"');
}

static void member_name(struct text *text, const char *name) {
    size_t length = strlen(name);
    char *end = text_end(text, length + 4);
    if (!end) {
        return;
    }
    char *at = end;
    if (text->length > 0 && at[-1] != '{') {
        *at++ = ',';
    }
    *at++ = '"';
    memcpy(at, name, length);
    at += length;
    *at++ = '"';
    *at++ = ':';
    text->length += (size_t)(at - end);
}

void text_open(struct text *text, const char *name) {
    if (name) {
        member_name(text, name);
    }
    text_byte(text, '{');
}

void text_close(struct text *text) {
    text_byte(text, '}');
}

void text_member(struct text *text, const char *name, const char *value) {
    if (value && *value) {
        member_name(text, name);
        text_string(text, value, strlen(value));
    }
}

void text_member_number(struct text *text, const char *name, uint64_t value) {
    member_name(text, name);
    text_number(text, value);
}

void text_member_true(struct text *text, const char *name) {
    member_name(text, name);
    text_literal(text, "true");
}

void text_member_json(struct text *text, const char *name, const char *json) {
    if (json) {
        member_name(text, name);
        text_literal(text, json);
    }
}

void text_member_time(struct text *text, const char *name, uint64_t milliseconds) {
    if (milliseconds) {
        uint64_t rest = milliseconds % 1000;
        text_member_number(text, name, milliseconds / 1000);
        text_add(text, (const char[]){'.', (char)('0' + rest / 100), (char)('0' + rest / 10 % 10), (char)('0' + rest % 10)}, 4);
    }
}
