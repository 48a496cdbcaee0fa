/* canonical.c: relaxed canonicalisation of bodies and header fields, straight into SHA-256. */
#include "canonical.h"

#include <errno.h>
#include <string.h>

/* Bytes that canonicalisation of a body looks at. */
static const uint8_t special[256] = {['\t'] = 1, [' '] = 1, ['\r'] = 1, ['\n'] = 1};

void canonical_begin(struct canonical *canonical) {
    canonical->used = 0;
    canonical->error = wc_InitSha256(&canonical->sha);
}

static void hash(struct canonical *canonical, const uint8_t *bytes, size_t length) {
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

void canonical_body(struct canonical *canonical, const uint8_t *body, size_t length) {
    size_t at = 0, empty_lines = 0;
    int blank = 0, in_line = 0; /* white space is owed; the line has had something */
    while (at < length) {
        size_t start = at;
        while (at < length && !special[body[at]])
            at++;
        if (at > start) {
            for (; empty_lines > 0; empty_lines--)
                add(canonical, "\r\n", 2);
            if (blank)
                add(canonical, " ", 1);
            add(canonical, body + start, at - start);
            blank = 0;
            in_line = 1;
        }
        if (at == length)
            break;
        if (body[at] == ' ' || body[at] == '\t') {
            blank = 1;
        } else if (body[at] == '\n') {
            if (in_line)
                add(canonical, "\r\n", 2);
            else
                empty_lines++;
            blank = in_line = 0;
        }
        at++; /* CR stands before every LF and nowhere else */
    }
    if (in_line)
        add(canonical, "\r\n", 2);
}

static int is_wsp(uint8_t byte) {
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

void canonical_field(struct canonical *canonical, const uint8_t *field, size_t length, int end_line) {
    const uint8_t *colon = memchr(field, ':', length);
    size_t name = colon == NULL ? length : (size_t)(colon - field), at = name + 1;
    while (name > 0 && is_wsp(field[name - 1]))
        name--;
    for (size_t i = 0; i < name; i++) {
        uint8_t lower = field[i] >= 'A' && field[i] <= 'Z' ? (uint8_t)(field[i] + ('a' - 'A')) : field[i];
        add(canonical, &lower, 1);
    }
    add(canonical, ":", 1);
    for (int first = 1; at < length; first = 0) {
        while (at < length && is_wsp(field[at]))
            at++;
        size_t word = at;
        while (at < length && !is_wsp(field[at]))
            at++;
        if (at > word) {
            if (!first)
                add(canonical, " ", 1);
            add(canonical, field + word, at - word);
        }
    }
    if (end_line)
        add(canonical, "\r\n", 2);
}
