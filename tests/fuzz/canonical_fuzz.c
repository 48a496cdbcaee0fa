/* canonical_fuzz.c: the relaxed canonical forms, against what RFC 6376 3.4.2 and 3.4.4 say taken word by word, in memory and slowly. A body
 * comes whole, in two parts cut anywhere, in single bytes, in parts by chance with lines that are relaxed already and states taken on the
 * way. Input: a byte that seeds the chance, then a body, which is also read as a field. */
#include "control/sign/canonical.h"

#include <wolfssl/wolfcrypt/hash.h>

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_MAX = 4096, CUTS_MAX = 96, SPLITS_MAX = 9 };

/* Not inlined: the stack of a failure names the line. */
__attribute__((noinline)) static void must(bool condition) {
    if (!condition)
        abort();
}

struct text {
    uint8_t bytes[4 * INPUT_MAX];
    size_t length;
};

static void put(struct text *text, uint8_t byte) {
    must(text->length < sizeof(text->bytes));
    text->bytes[text->length++] = byte;
}

static bool is_wsp(uint8_t byte) {
    return byte == ' ' || byte == '\t';
}

/* CR before every LF and nowhere else, as the canonicaliser is promised. */
static void normalise(const uint8_t *data, size_t size, struct text *out) {
    out->length = 0;
    for (size_t i = 0; i < size; i++) {
        bool is_end = data[i] == '\r' || data[i] == '\n';
        if (data[i] == '\r' && i + 1 < size && data[i + 1] == '\n')
            i++;
        if (is_end) {
            put(out, '\r');
            put(out, '\n');
        } else {
            put(out, data[i]);
        }
    }
}

/* 3.4.4 (a) of one line, without its end: white space at the end goes, sequences become one SP. */
static void relax_line(const uint8_t *line, size_t length, struct text *out) {
    while (length > 0 && is_wsp(line[length - 1]))
        length--;
    for (size_t i = 0; i < length; i++) {
        if (!is_wsp(line[i]))
            put(out, line[i]);
        else if (!is_wsp(line[i + 1]))
            put(out, ' ');
    }
}

/* The length of the line that begins here, without its end. */
static size_t line_length(const uint8_t *bytes, size_t length) {
    for (size_t i = 0; i + 1 < length; i++)
        if (bytes[i] == '\r' && bytes[i + 1] == '\n')
            return i;
    return length;
}

/* All lines, each ended; empty ones stay. */
static void relax_lines(const uint8_t *bytes, size_t length, struct text *out) {
    out->length = 0;
    for (size_t at = 0; at < length;) {
        size_t line = line_length(bytes + at, length - at);
        relax_line(bytes + at, line, out);
        put(out, '\r');
        put(out, '\n');
        at += line + 2;
    }
}

/* 3.4.4: also without the empty lines at its end. */
static void relax_body(const uint8_t *bytes, size_t length, struct text *out) {
    relax_lines(bytes, length, out);
    while (out->length >= 2 && memcmp(out->bytes + out->length - 2, "\r\n", 2) == 0 &&
           (out->length == 2 || out->bytes[out->length - 3] == '\n'))
        out->length -= 2;
}

static void digest_of(const struct text *text, uint8_t *digest) {
    must(wc_Sha256Hash(text->bytes, (word32)text->length, digest) == 0);
}

/* A part by itself, so that a sanitizer sees what is read behind it. */
static void add(struct canonical *canonical, const uint8_t *bytes, size_t length) {
    uint8_t *copy = malloc(length == 0 ? 1 : length);
    must(copy != NULL);
    memcpy(copy, bytes, length);
    canonical_body_add(canonical, copy, length);
    free(copy);
}

static void end_with(struct canonical *canonical, const uint8_t *expected) {
    uint8_t digest[32];
    canonical_body_end(canonical);
    must(canonical_end(canonical, digest) == 0 && memcmp(digest, expected, sizeof(digest)) == 0);
}

static void whole(const struct text *body, const uint8_t *expected) {
    static struct canonical canonical;
    uint8_t digest[32];
    canonical_begin(&canonical);
    canonical_body(&canonical, body->bytes, body->length);
    must(canonical_end(&canonical, digest) == 0 && memcmp(digest, expected, sizeof(digest)) == 0);
}

/* Bit i of `cuts`: a part ends behind byte i. */
static void cut(const struct text *body, uint64_t cuts, const uint8_t *expected) {
    static struct canonical canonical;
    canonical_begin(&canonical);
    for (size_t at = 0, i = 0; i < body->length; i++) {
        if (i + 1 == body->length || cuts >> (i < 63 ? i : 63) & 1) {
            add(&canonical, body->bytes + at, i + 1 - at);
            at = i + 1;
        }
    }
    end_with(&canonical, expected);
}

static void splits(const struct text *body, const uint8_t *expected) {
    static struct canonical canonical;
    size_t length = body->length;
    cut(body, UINT64_MAX, expected);
    for (size_t at = 0; at <= length && at < CUTS_MAX; at++) {
        canonical_begin(&canonical);
        add(&canonical, body->bytes, at);
        add(&canonical, body->bytes + at, length - at);
        end_with(&canonical, expected);
    }
    for (uint64_t cuts = 0; length > 0 && length <= SPLITS_MAX && cuts < (uint64_t)1 << (length - 1); cuts++)
        cut(body, cuts, expected);
}

/* By chance: bytes; whole lines relaxed already; a state taken here, from which another goes on. */
static void by_chance(const struct text *body, uint64_t seed, const uint8_t *expected) {
    static struct canonical canonical, resumed;
    static struct text lines;
    struct canonical_midstate midstate;
    canonical_begin(&canonical);
    for (size_t at = 0; at < body->length;) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        size_t part = (seed >> 33) % 24 + 1;
        bool between = at == 0 || (body->bytes[at - 1] == '\n');
        part = part < body->length - at ? part : body->length - at;
        /* Within the end of an empty line it may say so too. */
        must(canonical_between_lines(&canonical) == between || body->bytes[at - 1] == '\r');
        if (between && seed >> 60 < 4) {
            must(canonical_midstate(&canonical, &midstate) == 0 && canonical_resume(&resumed, &midstate) == 0);
            canonical_midstate_free(&midstate);
            add(&resumed, body->bytes + at, body->length - at);
            end_with(&resumed, expected);
        }
        /* Lines may be relaxed already where they are whole. */
        size_t end = at + part;
        while (end > at && !(end >= 2 && body->bytes[end - 1] == '\n'))
            end--;
        if (between && end > at && (seed >> 50 & 1)) {
            relax_lines(body->bytes + at, end - at, &lines);
            canonical_body_add_relaxed(&canonical, lines.bytes, lines.length);
            at = end;
        } else {
            add(&canonical, body->bytes + at, part);
            at += part;
        }
    }
    end_with(&canonical, expected);
}

/* What comes in as a field: line ends only where it is folded, a name without white space in it. */
static void make_field(const struct text *body, struct text *out) {
    bool in_name = true;
    out->length = 0;
    put(out, 'X');
    for (size_t i = 0; i < body->length; i++) {
        uint8_t byte = body->bytes[i];
        if (in_name && (byte <= 32 || byte == ':'))
            in_name = byte == '\r';
        if (byte == '\r' || byte == '\n')
            continue;
        if (is_wsp(byte) && i >= 2 && body->bytes[i - 1] == '\n' && memchr(out->bytes, ':', out->length) != NULL) {
            put(out, '\r');
            put(out, '\n');
        }
        if (!in_name && byte != ':' && !is_wsp(byte) && memchr(out->bytes, ':', out->length) == NULL)
            put(out, ':');
        put(out, byte);
    }
    if (memchr(out->bytes, ':', out->length) == NULL)
        put(out, ':');
}

/* 3.4.2, step by step. */
static void relax_field(const struct text *field, bool end_line, struct text *out) {
    static struct text unfolded;
    const uint8_t *colon = memchr(field->bytes, ':', field->length);
    size_t name = (size_t)(colon - field->bytes), value = name + 1;
    unfolded.length = out->length = 0;
    while (name > 0 && is_wsp(field->bytes[name - 1]))
        name--;
    for (size_t i = 0; i < name; i++)
        put(out, field->bytes[i] >= 'A' && field->bytes[i] <= 'Z' ? (uint8_t)(field->bytes[i] + 32) : field->bytes[i]);
    put(out, ':');
    for (size_t i = value; i < field->length; i++)
        if (field->bytes[i] != '\r' && field->bytes[i] != '\n')
            put(&unfolded, field->bytes[i]);
    size_t start = 0;
    while (start < unfolded.length && is_wsp(unfolded.bytes[start]))
        start++;
    relax_line(unfolded.bytes + start, unfolded.length - start, out);
    if (end_line) {
        put(out, '\r');
        put(out, '\n');
    }
}

static void field_check(struct text *field, bool end_line) {
    static struct canonical canonical;
    static struct text relaxed;
    uint8_t digest[32], expected[32], *copy = malloc(field->length);
    must(copy != NULL);
    memcpy(copy, field->bytes, field->length);
    relax_field(field, end_line, &relaxed);
    digest_of(&relaxed, expected);
    canonical_begin(&canonical);
    canonical_field(&canonical, copy, field->length, end_line);
    must(canonical_end(&canonical, digest) == 0 && memcmp(digest, expected, sizeof(digest)) == 0);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct text body, relaxed, field;
    uint8_t expected[32];
    if (size == 0 || size > INPUT_MAX)
        return 0;
    normalise(data + 1, size - 1, &body);
    relax_body(body.bytes, body.length, &relaxed);
    digest_of(&relaxed, expected);
    whole(&body, expected);
    splits(&body, expected);
    by_chance(&body, data[0], expected);
    make_field(&body, &field);
    field_check(&field, true);
    put(&field, '\r');
    put(&field, '\n');
    field_check(&field, true);
    field_check(&field, false);
    return 0;
}
