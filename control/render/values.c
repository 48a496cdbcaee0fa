/* values.c: a scanner for JSON that makes no tree: strings stay where they are and are decoded when they are written. */
#include "values.h"
#include "encode.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { KEY_BYTES_MAX = 256, CHARACTER_BYTES = 4 };

struct scan {
    const char *at, *end;
    struct values *values;
    const char *fault; /* NULL: none */
    bool starved;
    uint32_t depth;
};

/* STOP ends a run of a string's bytes that stand for themselves: the quote, the backslash, control characters, what is not ASCII. MARK
 * stands for itself in JSON, but not in HTML or in quoted-printable. */
enum { STOP = 1, MARK = 2 };
static const uint8_t byte_kind[256] = {
    [0 ... 31] = STOP, ['"'] = STOP, ['\\'] = STOP, [128 ... 255] = STOP, ['&'] = MARK,
    ['<'] = MARK,      ['>'] = MARK, ['\''] = MARK, ['='] = MARK,         [127] = MARK,
};

static inline uint32_t hash_of(const char *name, size_t length) {
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

uint32_t value_hash(const char *name, size_t length) {
    return hash_of(name, length);
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

/* -- names -- */

/* A member's name without its escapes; of one that is longer than any variable's only the begin. Its length. */
static size_t key_unescape(const struct value *value, char *key) {
    size_t filled = 0;
    for (size_t at = 0; at < value->key_length && filled <= KEY_BYTES_MAX;) {
        size_t used = 1;
        if (value->key[at] == '\\')
            filled += read_escape(value->key + at, key + filled, &used);
        else
            key[filled++] = value->key[at];
        at += used;
    }
    return filled;
}

static bool escaped_key_is(const struct value *value, const char *name, size_t length) {
    char key[KEY_BYTES_MAX + CHARACTER_BYTES];
    return key_unescape(value, key) == length && memcmp(key, name, length) == 0;
}

static uint32_t slot_of(uint32_t hash) {
    return (hash * 0x9E3779B1u) >> 16 & (VALUES_NAMES_SLOTS - 1); /* of Knuth's multiplicative hash the middle */
}

void value_names_init(struct value_names *names) {
    names->count = 0;
    memset(names->slots, VALUES_UNNUMBERED, sizeof(names->slots));
}

static bool name_is(const struct value_name *name, const char *text, size_t length, uint32_t hash) {
    return name->hash == hash && name->length == length && memcmp(name->text, text, length) == 0;
}

/* The slot of a name, or the one that is free for it: at most half of them are taken. */
static uint32_t names_slot(const struct value_names *names, const char *text, size_t length, uint32_t hash) {
    uint32_t slot = slot_of(hash);
    while (names->slots[slot] != VALUES_UNNUMBERED && !name_is(&names->names[names->slots[slot]], text, length, hash))
        slot = (slot + 1) & (VALUES_NAMES_SLOTS - 1);
    return slot;
}

uint8_t value_names_add(struct value_names *names, const char *text, size_t length, uint32_t hash) {
    uint32_t slot = names_slot(names, text, length, hash);
    if (names->slots[slot] == VALUES_UNNUMBERED && names->count < VALUES_NAMES_MAX) {
        names->slots[slot] = (uint8_t)names->count;
        struct value_name *name = &names->names[names->count++];
        *name = (struct value_name){.text = text, .length = (uint32_t)length, .hash = hash};
        name->short_mask = length > VALUES_NAME_SHORT ? UINT32_MAX : (1u << length) - 1;
        memcpy(name->first, text, length < VALUES_NAME_SHORT ? length : VALUES_NAME_SHORT);
    }
    return names->slots[slot];
}

static uint8_t names_find_escaped(const struct value_names *names, const struct value *member) {
    char key[KEY_BYTES_MAX + CHARACTER_BYTES];
    size_t length = key_unescape(member, key);
    return names->slots[names_slot(names, key, length, hash_of(key, length))];
}

/* -- reading -- */

static bool scan_fail(struct scan *scan, const char *fault) {
    scan->fault = fault;
    return false;
}

static inline const char *skip_blanks(const char *at) {
    while ((uint8_t)*at <= ' ' && (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r'))
        at++;
    return at;
}

/* What ends a run of a string's bytes but no string: an escape, or a character that is not ASCII. Its length, or 0: it may not be in one.
 */
static size_t special_length(const char *at) {
    char character[CHARACTER_BYTES];
    size_t used = 0;
    if (*at == '\\')
        return read_escape(at, character, &used) == 0 ? 0 : used;
    return (uint8_t)*at >= 0x80 ? utf8_character(at, CHARACTER_BYTES) : 0;
}

/* A string, without its quotes. */
struct span {
    const char *end; /* its end quote; NULL: it is malformed */
    bool escaped, plain;
};

#ifdef __SSE2__
enum { VECTOR_BYTES = 16 };

/* A bit for each of 16 bytes that is a STOP, or a MARK. */
static inline void classify(const char *at, unsigned *stops, unsigned *marks) {
    const __m128i bytes = _mm_loadu_si128((const __m128i *)at);
    __m128i quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')), backslash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\'));
    __m128i low = _mm_cmplt_epi8(bytes, _mm_set1_epi8(' ')); /* signed: so is what is not ASCII */
    /* & is 38 and ' 39, < 60, = 61, > 62. */
    __m128i ampersand = _mm_cmpeq_epi8(_mm_or_si128(bytes, _mm_set1_epi8(1)), _mm_set1_epi8('\''));
    __m128i angle = _mm_cmpeq_epi8(_mm_and_si128(bytes, _mm_set1_epi8(~1)), _mm_set1_epi8('<'));
    __m128i others = _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('>')), _mm_cmpeq_epi8(bytes, _mm_set1_epi8(127)));
    *stops = (unsigned)_mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, backslash), low));
    *marks = (unsigned)_mm_movemask_epi8(_mm_or_si128(_mm_or_si128(ampersand, angle), others));
}
#endif

/* Any string, from behind its quote. */
__attribute__((noinline)) static struct span scan_long_string(struct scan *scan, const char *at) {
    struct span span = {.plain = true};
    for (;;) {
#ifdef __SSE2__
        unsigned stops, marks;
        if (scan->end - at >= VECTOR_BYTES) {
            classify(at, &stops, &marks);
            span.plain &= (stops == 0 ? marks : marks & (stops - 1) & ~stops) == 0;
            at += stops == 0 ? VECTOR_BYTES : __builtin_ctz(stops);
            if (stops == 0)
                continue;
        }
#endif
        for (; (byte_kind[(uint8_t)*at] & STOP) == 0; at++)
            span.plain &= byte_kind[(uint8_t)*at] != MARK;
        if (*at == '"')
            break;
        size_t used = special_length(at);
        if (used == 0) {
            scan->at = at;
            scan_fail(scan, *at == '\0' ? "a text has no end" : "a text has a character that may not be in one");
            return span;
        }
        span.escaped |= *at == '\\';
        span.plain = false;
        at += used;
    }
    span.end = at;
    return span;
}

static inline struct span scan_string(struct scan *scan, const char *at) {
#ifdef __SSE2__
    unsigned stops, marks;
    if (scan->end - at >= VECTOR_BYTES) {
        classify(at, &stops, &marks);
        const char *end = at + __builtin_ctz(stops | 1u << VECTOR_BYTES);
        if (*end == '"' && stops != 0)
            return (struct span){.end = end, .plain = (marks & (stops - 1) & ~stops) == 0};
    }
#endif
    return scan_long_string(scan, at);
}

__attribute__((noinline)) static bool scan_grow(struct scan *scan) {
    struct values *values = scan->values;
    uint32_t capacity = values->capacity * 2;
    struct value *grown = malloc(capacity * sizeof(*grown));
    if (grown == NULL) {
        scan->starved = true;
        return false;
    }
    memcpy(grown, values->nodes, values->count * sizeof(*grown));
    values_free(values);
    values->nodes = grown;
    values->capacity = capacity;
    return true;
}

static struct value *scan_add(struct scan *scan) {
    struct values *values = scan->values;
    return values->count == values->capacity && !scan_grow(scan) ? NULL : &values->nodes[values->count++];
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

/* A member of the object that is read with names. */
static inline uint8_t names_find(const struct scan *scan, const struct value_names *names, const struct value *member) {
    if (member->key_escaped)
        return names_find_escaped(names, member);
#ifdef __SSE2__
    /* Most often it is the first that has its hash. */
    uint8_t number = names->slots[slot_of(member->key_hash)];
    if (number != VALUES_UNNUMBERED && scan->end - member->key >= VALUES_NAME_SHORT) {
        const struct value_name *name = &names->names[number];
        __m128i same = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)member->key), _mm_loadu_si128((const __m128i *)name->first));
        unsigned others = ~(unsigned)_mm_movemask_epi8(same);
        if (name->length == member->key_length && (others & name->short_mask) == 0) /* there are always others beyond 16 */
            return number;
    }
#endif
    return names->slots[names_slot(names, member->key, member->key_length, member->key_hash)];
}

static inline void member_found(struct scan *scan, uint32_t node) {
    struct values *values = scan->values;
    struct value *member = &values->nodes[node];
    member->place = values->members++;
    uint8_t number = names_find(scan, values->names, member);
    if (number != VALUES_UNNUMBERED && values->found[number] == 0)
        values->found[number] = node;
}

static const char *scan_fail_at(struct scan *scan, const char *at, const char *fault) {
    scan->at = at;
    scan->fault = fault;
    return NULL;
}

/* A member's name and colon. Where its value begins, or NULL. The hash is of the name itself, without its escapes. */
static inline const char *scan_key(struct scan *scan, struct value *value, const char *at) {
    if (*at != '"')
        return scan_fail_at(scan, at, "a name is missing");
    struct span span = scan_string(scan, ++at);
    if (span.end == NULL)
        return NULL;
    value->key = at;
    value->key_length = (uint32_t)(span.end - at);
    value->key_escaped = span.escaped;
    value->key_hash = span.escaped ? 0 : hash_of(at, value->key_length);
    at = skip_blanks(span.end + 1);
    return *at == ':' ? skip_blanks(at + 1) : scan_fail_at(scan, at, "a name has no value");
}

/* From its quote to behind the other; or NULL. */
static inline const char *scan_text(struct scan *scan, struct value *value, const char *at) {
    struct span span = scan_string(scan, ++at);
    if (span.end == NULL)
        return NULL;
    value->kind = VALUE_STRING;
    value->size = 1;
    value->text = at;
    value->length = (uint32_t)(span.end - at);
    value->escaped = span.escaped;
    value->plain = span.plain;
    return span.end + 1;
}

/* What is between the brackets of a list or an object. Nodes move when they grow: the container is known by its place. */
static bool scan_container(struct scan *scan, struct value *container) {
    struct values *values = scan->values;
    bool object = container->kind == VALUE_OBJECT;
    uint32_t place = (uint32_t)(container - values->nodes);
    bool named = object && place == 0 && values->names != NULL;
    char close = object ? '}' : ']';
    if (++scan->depth > VALUES_DEPTH_MAX)
        return scan_fail(scan, "lists and objects lie too deep in one another");
    const char *at = skip_blanks(scan->at + 1);
    while (*at != close) {
        uint32_t node = values->count;
        struct value *value = scan_add(scan);
        if (value == NULL)
            return false;
        value->key = NULL;
        if (object && (at = scan_key(scan, value, at)) == NULL)
            return false;
        if (named)
            member_found(scan, node);
        if (*at == '"') {
            if ((at = scan_text(scan, value, at)) == NULL)
                return false;
        } else {
            scan->at = at;
            if (!scan_value(scan, value))
                return false;
            at = scan->at;
        }
        at = skip_blanks(at);
        if (*at == close)
            break;
        scan->at = at;
        if (*at != ',')
            return scan_fail(scan, "a list or an object has no end");
        at = skip_blanks(at + 1);
        if (*at == close) { /* a comma before it */
            scan->at = at;
            return scan_fail(scan, object ? "a name is missing" : "a number is malformed");
        }
    }
    scan->at = at + 1;
    scan->depth--;
    values->nodes[place].size = values->count - place;
    return true;
}

static bool scan_value(struct scan *scan, struct value *value) {
    value->size = 1;
    value->length = 0;
    switch (*scan->at) {
    case '"': {
        const char *end = scan_text(scan, value, scan->at);
        if (end == NULL)
            return false;
        scan->at = end;
        return true;
    }
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

int values_read_named(struct values *values, const struct value_names *names, const char *json, const char *what, char *error,
                      size_t error_bytes) {
    struct scan scan = {.at = skip_blanks(json), .end = json + strlen(json), .values = values};
    values->nodes = values->inlined;
    values->capacity = VALUES_INLINED;
    values->count = 1;
    values->names = names;
    values->members = 0;
    if (names != NULL)
        memset(values->found, 0, names->count * sizeof(values->found[0]));
    values->found[VALUES_UNNUMBERED] = 0;
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

int values_read(struct values *values, const char *json, const char *what, char *error, size_t error_bytes) {
    return values_read_named(values, NULL, json, what, error, error_bytes);
}

void values_free(struct values *values) {
    if (values->nodes != values->inlined)
        free(values->nodes);
    values->nodes = values->inlined;
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

/* -- writing -- */

/* Where the text of a value goes. */
struct sink {
    void (*put)(void *context, const char *text, size_t length);
    void *context;
    bool escape;
};

static void put_text(const struct sink *sink, const char *text, size_t length) {
    static const bool special[256] = {['&'] = true, ['<'] = true, ['>'] = true, ['"'] = true, ['\''] = true};
    for (size_t at = 0; sink->escape;) {
        size_t run = at;
        while (at < length && !special[(uint8_t)text[at]])
            at++;
        sink->put(sink->context, text + run, at - run);
        if (at == length)
            return;
        char byte = text[at++];
        const char *entity = byte == '&' ? "&amp;" : byte == '<' ? "&lt;" : byte == '>' ? "&gt;" : byte == '"' ? "&quot;" : "&#39;";
        sink->put(sink->context, entity, strlen(entity));
    }
    sink->put(sink->context, text, length);
}

static void put_string(const struct sink *sink, const struct value *value) {
    const char *at = value->text, *end = at + value->length;
    while (value->escaped && at < end) {
        const char *backslash = memchr(at, '\\', (size_t)(end - at));
        if (backslash == NULL)
            break;
        char character[CHARACTER_BYTES];
        size_t used, length = read_escape(backslash, character, &used);
        put_text(sink, at, (size_t)(backslash - at));
        put_text(sink, character, length);
        at = backslash + used;
    }
    put_text(sink, at, (size_t)(end - at));
}

int value_put(const struct value *value, bool escape, void (*put)(void *context, const char *text, size_t length), void *context) {
    char number[32];
    switch ((enum value_kind)value->kind) {
    case VALUE_STRING:
        if (value->plain)
            put(context, value->text, value->length);
        else
            put_string(&(struct sink){put, context, escape}, value);
        return 0;
    case VALUE_INTEGER:
        put(context, value->text, value->length);
        return 0;
    case VALUE_REAL:
        put(context, number, (size_t)snprintf(number, sizeof(number), "%.15g", strtod(value->text, NULL)));
        return 0;
    case VALUE_TRUE:
        put(context, "true", strlen("true"));
        return 0;
    case VALUE_FALSE:
        put(context, "false", strlen("false"));
        return 0;
    case VALUE_NULL:
        return 0;
    case VALUE_LIST:
    case VALUE_OBJECT:
        break;
    }
    return -EINVAL;
}

static void put_writer(void *context, const char *text, size_t length) {
    writer_bytes(context, text, length);
}

int value_write(const struct value *value, bool escape, struct writer *writer) {
    return value_put(value, escape, put_writer, writer);
}
