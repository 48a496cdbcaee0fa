/* canonical.c: relaxed canonicalisation of bodies and header fields, straight into SHA-256. */
#include "canonical.h"

#include <errno.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { NAME_BYTES = 80 };

/* Bytes that canonicalisation of a body looks at. */
static const uint8_t special[256] = {['\t'] = 1, [' '] = 1, ['\r'] = 1, ['\n'] = 1};

static void body_begin(struct canonical *canonical, size_t empty_lines) {
    canonical->used = 0;
    canonical->hashed = 0;
    canonical->empty_lines = empty_lines;
    canonical->blank = canonical->in_line = false;
}

void canonical_begin(struct canonical *canonical) {
    body_begin(canonical, 0);
    canonical->error = wc_InitSha256(&canonical->sha);
}

int canonical_resume(struct canonical *canonical, const struct canonical_midstate *midstate) {
    body_begin(canonical, midstate->empty_lines);
    /* wolfCrypt only reads the source, and does not say so. */
    canonical->error = wc_Sha256Copy((wc_Sha256 *)(uintptr_t)&midstate->sha, &canonical->sha);
    return canonical->error == 0 ? 0 : -EIO;
}

static void hash(struct canonical *canonical, const uint8_t *bytes, size_t length) {
    canonical->hashed += length;
    if (canonical->error == 0)
        canonical->error = wc_Sha256Update(&canonical->sha, bytes, (word32)length);
}

static void flush(struct canonical *canonical) {
    hash(canonical, canonical->scratch, canonical->used);
    canonical->used = 0;
}

static void add(struct canonical *canonical, const void *bytes, size_t length) {
    if (length > sizeof(canonical->scratch) - canonical->used) {
        flush(canonical);
        if (length > sizeof(canonical->scratch)) {
            hash(canonical, bytes, length);
            return;
        }
    }
    memcpy(canonical->scratch + canonical->used, bytes, length);
    canonical->used += length;
}

int canonical_end(struct canonical *canonical, uint8_t *digest) {
    flush(canonical);
    if (canonical->error == 0)
        canonical->error = wc_Sha256Final(&canonical->sha, digest);
    wc_Sha256Free(&canonical->sha);
    return canonical->error == 0 ? 0 : -EIO;
}

int canonical_midstate(struct canonical *canonical, struct canonical_midstate *out) {
    flush(canonical);
    if (canonical->error != 0 || wc_Sha256Copy(&canonical->sha, &out->sha) != 0)
        return -EIO;
    out->empty_lines = canonical->empty_lines;
    return 0;
}

void canonical_midstate_free(struct canonical_midstate *midstate) {
    wc_Sha256Free(&midstate->sha);
}

/* Where the bytes from `at` on are no longer canonical as they stand: a tab, or a space with white space or a line end behind it (also
 * where that is not known: at the end). Stops early at other control characters, which does no harm. */
static size_t find_blank(const uint8_t *text, size_t at, size_t length) {
#ifdef __SSE2__
    const __m128i space = _mm_set1_epi8(' '), tab = _mm_set1_epi8('\t');
    for (; at + sizeof(__m128i) + 1 <= length; at += sizeof(__m128i)) {
        __m128i here = _mm_loadu_si128((const __m128i *)(const void *)(text + at));
        __m128i next = _mm_loadu_si128((const __m128i *)(const void *)(text + at + 1));
        __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(next, space), next); /* next <= ' ' */
        __m128i stop = _mm_or_si128(_mm_and_si128(_mm_cmpeq_epi8(here, space), low), _mm_cmpeq_epi8(here, tab));
        unsigned mask = (unsigned)_mm_movemask_epi8(stop);
        if (mask != 0)
            return at + (size_t)__builtin_ctz(mask);
    }
#endif
    while (at < length && text[at] != '\t' && (text[at] != ' ' || (at + 1 < length && text[at + 1] > ' ')))
        at++;
    return at;
}

/* The end of what can be hashed as it stands, from a byte that is no white space on: lines and all, but for the last line's end. */
static size_t plain_end(const uint8_t *text, size_t at, size_t length) {
    size_t end = find_blank(text, at, length);
    while (text[end - 1] == '\n' || text[end - 1] == '\r')
        end--;
    return end;
}

static void add_empty_lines(struct canonical *canonical) {
    for (; canonical->empty_lines > 0; canonical->empty_lines--)
        add(canonical, "\r\n", 2);
}

void canonical_body_add(struct canonical *canonical, const uint8_t *part, size_t length) {
    for (size_t at = 0; at < length;) {
        if (!special[part[at]]) {
            size_t end = plain_end(part, at, length);
            add_empty_lines(canonical);
            if (canonical->blank)
                add(canonical, " ", 1);
            add(canonical, part + at, end - at);
            canonical->blank = false;
            canonical->in_line = true;
            at = end;
            continue;
        }
        if (part[at] == ' ' || part[at] == '\t') {
            canonical->blank = true;
        } else if (part[at] == '\n') {
            if (canonical->in_line)
                add(canonical, "\r\n", 2);
            else
                canonical->empty_lines++;
            canonical->blank = canonical->in_line = false;
        }
        at++; /* CR stands before every LF and nowhere else */
    }
}

void canonical_body_end(struct canonical *canonical) {
    if (canonical->in_line)
        add(canonical, "\r\n", 2);
    canonical->in_line = canonical->blank = false;
}

void canonical_body(struct canonical *canonical, const uint8_t *body, size_t length) {
    canonical_body_add(canonical, body, length);
    canonical_body_end(canonical);
}

bool canonical_between_lines(const struct canonical *canonical) {
    return !canonical->in_line && !canonical->blank;
}

void canonical_body_add_relaxed(struct canonical *canonical, const uint8_t *lines, size_t length) {
    size_t full = length; /* less the empty lines at the end */
    while (full >= 2 && lines[full - 2] == '\r' && (full == 2 || lines[full - 3] == '\n'))
        full -= 2;
    if (full > 0) {
        add_empty_lines(canonical);
        add(canonical, lines, full);
    }
    canonical->empty_lines += (length - full) / 2;
}

static int is_wsp(uint8_t byte) {
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

/* Names in one go where they are as short as names are. */
static void add_name(struct canonical *canonical, const uint8_t *name, size_t length) {
    uint8_t lower[NAME_BYTES];
    for (size_t at = 0; at < length;) {
        size_t part = length - at < sizeof(lower) ? length - at : sizeof(lower);
        for (size_t i = 0; i < part; i++)
            lower[i] = (uint8_t)(name[at + i] | (uint8_t)((uint8_t)(name[at + i] - 'A') < 26 ? 'a' - 'A' : 0));
        add(canonical, lower, part);
        at += part;
    }
    add(canonical, ":", 1);
}

void canonical_field(struct canonical *canonical, const uint8_t *field, size_t length, int end_line) {
    const uint8_t *colon = memchr(field, ':', length);
    size_t name = colon == NULL ? length : (size_t)(colon - field), at = name + 1, line_end = 0;
    while (name > 0 && is_wsp(field[name - 1]))
        name--;
    add_name(canonical, field, name);
    for (int first = 1; at < length; first = 0) {
        while (at < length && is_wsp(field[at]))
            at++;
        if (at >= length)
            break;
        if (at >= line_end) {
            const uint8_t *end = memchr(field + at, '\r', length - at);
            const uint8_t *newline = memchr(field + at, '\n', end == NULL ? length - at : (size_t)(end - field) - at);
            line_end = newline != NULL ? (size_t)(newline - field) : end != NULL ? (size_t)(end - field) : length;
        }
        size_t word = at; /* or more of them, where a space is all that stands between */
        at = find_blank(field, at, line_end);
        if (!first)
            add(canonical, " ", 1);
        add(canonical, field + word, at - word);
    }
    if (end_line)
        add(canonical, "\r\n", 2);
}
