/* values.c: a scanner for JSON that makes no tree: strings stay where they are and are decoded when they are written. */
#include "values.h"
#include "encode.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { KEY_BYTES_MAX = 256, CHARACTER_BYTES = 4 };

struct scan {
    const char *at, *end;
    struct values *values;
    const char *fault; /* NULL: none */
    bool starved;
    uint32_t depth;
};

/* What ends a run of a string's plain bytes: the quote, the backslash, control characters, and the first byte of what is not ASCII. */
static const bool string_stop[256] = {[0 ... 31] = true, ['"'] = true, ['\\'] = true, [128 ... 255] = true};

uint32_t value_hash(const char *name, size_t length) {
    uint32_t first = 0, last = 0;
    if (length >= sizeof(first)) {
        memcpy(&first, name, sizeof(first));
        memcpy(&last, name + length - sizeof(last), sizeof(last));
    } else if (length > 0) {
        memcpy(&first, name, 1);
        memcpy(&last, name + length - 1, 1);
    }
    return (first * 31 + last) * 31 + (uint32_t)length;
}

static int hex_digit(char digit) {
    return digit >= '0' && digit <= '9'   ? digit - '0'
           : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10
           : digit >= 'A' && digit <= 'F' ? digit - 'A' + 10
                                          : -1;
}

/* Four digits at `at`, or -1. */
static int32_t read_unit(const char *at) {
    int32_t unit = 0;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(at[i]);
        if (digit < 0)
            return -1;
        unit = unit * 16 + digit;
    }
    return unit;
}

/* The character of the escape at `at` (its backslash), as UTF-8 in out[CHARACTER_BYTES]; *used is the length of the escape. The length of
 * the character, 0 when it is none. */
static size_t read_escape(const char *at, char *out, size_t *used) {
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const char *letter = at[1] == '\0' ? NULL : strchr(letters, at[1]);
    *used = 2;
    if (letter != NULL) {
        out[0] = meanings[letter - letters];
        return 1;
    }
    int32_t code = at[1] == 'u' ? read_unit(at + 2) : -1;
    *used = 6;
    if (code >= 0xD800 && code < 0xDC00 && at[6] == '\\' && at[7] == 'u') {
        int32_t low = read_unit(at + 8);
        code = low >= 0xDC00 && low < 0xE000 ? 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00) : -1;
        *used = 12;
    }
    if (code <= 0 || (code >= 0xD800 && code < 0xE000))
        return 0;
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const uint8_t leads[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = length; i-- > 1; code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3F));
    out[0] = (char)(leads[length] | code);
    return length;
}

static bool scan_fail(struct scan *scan, const char *fault) {
    scan->fault = fault;
    return false;
}

static const char *skip_blanks(const char *at) {
    while (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r')
        at++;
    return at;
}

/* Where a run of a string's plain bytes ends; eight at a time. */
static const char *skip_plain(const char *at, const char *end) {
    static const uint64_t ones = 0x0101010101010101, tops = 0x8080808080808080;
    for (uint64_t word; (size_t)(end - at) >= sizeof(word); at += sizeof(word)) {
        memcpy(&word, at, sizeof(word));
        uint64_t quote = word ^ '"' * ones, backslash = word ^ '\\' * ones;
        uint64_t stops = (((quote - ones) & ~quote) | ((backslash - ones) & ~backslash) | ((word - 32 * ones) & ~word) | word) & tops;
        if (stops != 0)
            return at + __builtin_ctzll(stops) / 8;
    }
    while (!string_stop[(uint8_t)*at])
        at++;
    return at;
}

/* The string whose quote is behind: up to its end quote, which is passed. */
static bool scan_string(struct scan *scan, const char **text, uint32_t *length, bool *escaped) {
    const char *at = scan->at, *begin = at;
    *escaped = false;
    for (;;) {
        at = skip_plain(at, scan->end);
        if (*at == '"')
            break;
        char character[CHARACTER_BYTES];
        size_t used = 0;
        if (*at == '\\') {
            *escaped = true;
            if (read_escape(at, character, &used) == 0)
                used = 0;
        } else if ((uint8_t)*at >= 0x80) {
            used = utf8_character(at, CHARACTER_BYTES);
        }
        scan->at = at;
        if (used == 0)
            return scan_fail(scan, *at == '\0' ? "a text has no end" : "a text has a character that may not be in one");
        at += used;
    }
    *text = begin;
    *length = (uint32_t)(at - begin);
    scan->at = at + 1;
    return true;
}

static struct value *scan_add(struct scan *scan) {
    struct values *values = scan->values;
    if (values->count == values->capacity) {
        uint32_t capacity = values->capacity * 2;
        struct value *grown = malloc(capacity * sizeof(*grown));
        if (grown == NULL) {
            scan->starved = true;
            return NULL;
        }
        memcpy(grown, values->nodes, values->count * sizeof(*grown));
        values_free(values);
        values->nodes = grown;
        values->capacity = capacity;
    }
    return &values->nodes[values->count++];
}

static const char *skip_digits(const char *at) {
    while (*at >= '0' && *at <= '9')
        at++;
    return at;
}

static bool scan_number(struct scan *scan, struct value *value) {
    const char *at = scan->at + (*scan->at == '-'), *digits = at;
    at = skip_digits(at);
    bool good = at > digits && (digits[0] != '0' || at == digits + 1);
    value->kind = VALUE_INTEGER;
    if (good && *at == '.') {
        value->kind = VALUE_REAL;
        digits = at + 1;
        at = skip_digits(digits);
        good = at > digits;
    }
    if (good && (*at == 'e' || *at == 'E')) {
        value->kind = VALUE_REAL;
        digits = at + 1 + (at[1] == '+' || at[1] == '-');
        at = skip_digits(digits);
        good = at > digits;
    }
    value->text = scan->at;
    value->length = (uint32_t)(at - scan->at);
    scan->at = at;
    return good || scan_fail(scan, "a number is malformed");
}

static bool scan_word(struct scan *scan, struct value *value, const char *word, enum value_kind kind) {
    size_t length = strlen(word);
    if (strncmp(scan->at, word, length) != 0)
        return scan_fail(scan, "a value is none");
    value->kind = (uint8_t)kind;
    scan->at += length;
    return true;
}

static bool scan_value(struct scan *scan, struct value *value);

/* The hash is of the name itself, without its escapes. A name too long for any variable gets none. */
static bool scan_key(struct scan *scan, struct value *value) {
    if (*scan->at != '"')
        return scan_fail(scan, "a name is missing");
    scan->at++;
    if (!scan_string(scan, &value->key, &value->key_length, &value->key_escaped))
        return false;
    value->key_hash = value->key_escaped ? 0 : value_hash(value->key, value->key_length);
    scan->at = skip_blanks(scan->at);
    if (*scan->at != ':')
        return scan_fail(scan, "a name has no value");
    scan->at = skip_blanks(scan->at + 1);
    return true;
}

/* What is between the brackets of a list or an object. Nodes move when they grow: the container is known by its place. */
static bool scan_container(struct scan *scan, struct value *container) {
    bool object = container->kind == VALUE_OBJECT;
    uint32_t place = (uint32_t)(container - scan->values->nodes);
    char close = object ? '}' : ']';
    if (++scan->depth > VALUES_DEPTH_MAX)
        return scan_fail(scan, "lists and objects lie too deep in one another");
    scan->at = skip_blanks(scan->at + 1);
    bool first = true;
    while (*scan->at != close || !first) {
        if (!first && *scan->at != ',')
            return scan_fail(scan, "a list or an object has no end");
        if (!first)
            scan->at = skip_blanks(scan->at + 1);
        first = false;
        struct value *value = scan_add(scan);
        if (value == NULL)
            return false;
        value->key = NULL;
        if ((object && !scan_key(scan, value)) || !scan_value(scan, value))
            return false;
        scan->at = skip_blanks(scan->at);
        if (*scan->at == close)
            break;
    }
    scan->at++;
    scan->depth--;
    scan->values->nodes[place].size = scan->values->count - place;
    return true;
}

static bool scan_value(struct scan *scan, struct value *value) {
    value->size = 1;
    value->length = 0;
    switch (*scan->at) {
    case '"':
        scan->at++;
        value->kind = VALUE_STRING;
        return scan_string(scan, &value->text, &value->length, &value->escaped);
    case '{':
    case '[':
        value->kind = *scan->at == '{' ? VALUE_OBJECT : VALUE_LIST;
        return scan_container(scan, value);
    case 't':
        return scan_word(scan, value, "true", VALUE_TRUE);
    case 'f':
        return scan_word(scan, value, "false", VALUE_FALSE);
    case 'n':
        return scan_word(scan, value, "null", VALUE_NULL);
    default:
        return scan_number(scan, value);
    }
}

int values_read(struct values *values, const char *json, const char *what, char *error, size_t error_bytes) {
    struct scan scan = {.at = skip_blanks(json), .end = json + strlen(json), .values = values};
    values->nodes = values->inlined;
    values->capacity = VALUES_INLINED;
    values->count = 1;
    values->nodes[0].key = NULL;
    bool good = scan_value(&scan, &values->nodes[0]);
    if (good && *(scan.at = skip_blanks(scan.at)) != '\0')
        good = scan_fail(&scan, "something follows it");
    if (good && values->nodes[0].kind == VALUE_OBJECT)
        return 0;
    values_free(values);
    if (scan.starved)
        snprintf(error, error_bytes, "out of memory");
    else if (good)
        snprintf(error, error_bytes, "%s is not a JSON object", what);
    else
        snprintf(error, error_bytes, "%s is not JSON: %s at byte %zu", what, scan.fault, (size_t)(scan.at - json) + 1);
    return scan.starved ? -ENOMEM : -EINVAL;
}

void values_free(struct values *values) {
    if (values->nodes != values->inlined)
        free(values->nodes);
    values->nodes = values->inlined;
}

static bool escaped_key_is(const struct value *value, const char *name, size_t length) {
    char key[KEY_BYTES_MAX + CHARACTER_BYTES];
    size_t filled = 0;
    for (size_t at = 0; at < value->key_length && filled <= KEY_BYTES_MAX;) {
        size_t used = 1;
        if (value->key[at] == '\\')
            filled += read_escape(value->key + at, key + filled, &used);
        else
            key[filled++] = value->key[at];
        at += used;
    }
    return filled == length && memcmp(key, name, length) == 0;
}

const struct value *value_member(const struct value *object, const char *name, size_t length, uint32_t hash, uint64_t *passed) {
    if (object == NULL || object->kind != VALUE_OBJECT)
        return NULL;
    const struct value *member = object + 1, *end = object + object->size;
    uint64_t count = 0;
    for (; member < end; member += member->size, count++)
        if (member->key_escaped ? escaped_key_is(member, name, length)
                                : member->key_hash == hash && member->key_length == length && memcmp(member->key, name, length) == 0)
            break;
    *passed += count;
    return member < end ? member : NULL;
}

bool value_is_false(const struct value *value) {
    return value == NULL || value->kind == VALUE_NULL || value->kind == VALUE_FALSE ||
           (value->kind == VALUE_STRING && value->length == 0) || (value->kind == VALUE_LIST && value->size == 1);
}

static void write_escaped(struct writer *writer, const char *text, size_t length) {
    static const bool special[256] = {['&'] = true, ['<'] = true, ['>'] = true, ['"'] = true, ['\''] = true};
    for (size_t at = 0;;) {
        size_t run = at;
        while (at < length && !special[(uint8_t)text[at]])
            at++;
        writer_bytes(writer, text + run, at - run);
        if (at == length)
            return;
        char byte = text[at++];
        writer_text(writer, byte == '&' ? "&amp;" : byte == '<' ? "&lt;" : byte == '>' ? "&gt;" : byte == '"' ? "&quot;" : "&#39;");
    }
}

static void write_text(struct writer *writer, const char *text, size_t length, bool escape) {
    if (escape)
        write_escaped(writer, text, length);
    else
        writer_bytes(writer, text, length);
}

static void write_string(struct writer *writer, const struct value *value, bool escape) {
    const char *at = value->text, *end = at + value->length;
    while (value->escaped && at < end) {
        const char *backslash = memchr(at, '\\', (size_t)(end - at));
        if (backslash == NULL)
            break;
        char character[CHARACTER_BYTES];
        size_t used, length = read_escape(backslash, character, &used);
        write_text(writer, at, (size_t)(backslash - at), escape);
        write_text(writer, character, length, escape);
        at = backslash + used;
    }
    write_text(writer, at, (size_t)(end - at), escape);
}

int value_write(const struct value *value, bool escape, struct writer *writer) {
    char number[32];
    switch ((enum value_kind)value->kind) {
    case VALUE_STRING:
        write_string(writer, value, escape);
        return 0;
    case VALUE_INTEGER:
        writer_bytes(writer, value->text, value->length);
        return 0;
    case VALUE_REAL:
        snprintf(number, sizeof(number), "%.15g", strtod(value->text, NULL));
        writer_text(writer, number);
        return 0;
    case VALUE_TRUE:
        writer_text(writer, "true");
        return 0;
    case VALUE_FALSE:
        writer_text(writer, "false");
        return 0;
    case VALUE_NULL:
        return 0;
    case VALUE_LIST:
    case VALUE_OBJECT:
        break;
    }
    return -EINVAL;
}
