/* compose.c: DKIM-Signature fields, folded for readers of 78 columns. */
#include "compose.h"

#include "control/render/encode.h"

#include <errno.h>
#include <string.h>

enum { LINE_BYTES = 76, B_COLUMN = 3 /* of the signature: behind a tab and "b=" */, LINE_BREAK_BYTES = 3 };

int compose_find(struct compose_header *into, const struct dkim_names *names, const uint8_t *header, size_t length) {
    size_t at = 0;
    into->count = 0;
    while (at < length && header[at] != '\r') {
        size_t start = at;
        do {
            const uint8_t *newline = memchr(header + at, '\n', length - at);
            at = newline == NULL ? length : (size_t)(newline - header) + 1;
        } while (at < length && (header[at] == ' ' || header[at] == '\t'));
        if (into->count == COMPOSE_FIELDS_MAX)
            return -EINVAL;
        struct compose_field *field = &into->fields[into->count++];
        const uint8_t *colon = memchr(header + start, ':', at - start);
        size_t name = colon == NULL ? 0 : (size_t)(colon - header) - start;
        while (name > 0 && (header[start + name - 1] == ' ' || header[start + name - 1] == '\t'))
            name--;
        *field = (struct compose_field){
            .text = header + start, .length = (uint32_t)(at - start), .name = (int8_t)dkim_names_find(names, header + start, name)};
    }
    return 0;
}

static void put(struct compose_text *out, const char *text, size_t length) {
    if (out->full || length > out->room - out->length) {
        out->full = true;
        return;
    }
    memcpy(out->text + out->length, text, length);
    out->length += length;
}

static void put_fold(struct compose_text *out) {
    put(out, "\r\n\t", 3);
    out->line = out->length - 1;
}

/* A piece of a tag that must not be broken, on a line of its own when this one is full. */
static void put_word(struct compose_text *out, const char *text, size_t length) {
    if (out->length - out->line + length > LINE_BYTES && out->length > out->line + 1)
        put_fold(out);
    put(out, text, length);
}

static void put_tag(struct compose_text *out, const char *tag, const char *value) {
    size_t tag_length = strlen(tag), length = strlen(value);
    if (out->length - out->line + tag_length + length + 2 > LINE_BYTES && out->length > out->line + 1)
        put_fold(out);
    else if (out->length > out->line + 1)
        put(out, " ", 1);
    put(out, tag, tag_length);
    put(out, value, length);
    put(out, ";", 1);
}

/* Of a name that occurs more than once the last comes first (RFC 6376 5.4.2). */
void compose_names(struct compose_text *out, const struct compose_header *header, const struct dkim_names *names,
                   struct canonical *canonical) {
    bool first = true;
    put_fold(out);
    put(out, "h=", 2);
    for (uint32_t at = 0; at < names->count; at++) {
        const struct dkim_name *name = &names->items[at];
        uint32_t times = name->oversigned;
        for (uint32_t i = header->count; i-- > 0;) {
            if (header->fields[i].name != (int8_t)at)
                continue;
            times++;
            canonical_field(canonical, header->fields[i].text, header->fields[i].length, 1);
        }
        for (; times > 0; times--) {
            char word[DKIM_NAME_BYTES + 2] = ":";
            memcpy(word + !first, name->text, name->length);
            put_word(out, word, (size_t)name->length + !first);
            first = false;
        }
    }
    put(out, ";", 1);
}

static void put_number(char *out, uint64_t number) {
    char digits[24];
    size_t count = 0;
    do
        digits[count++] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    while (count > 0)
        *out++ = digits[--count];
    *out = '\0';
}

void compose_field(struct compose_text *out, const struct dkim_key *key, const char *body_hash, uint64_t time_s, uint32_t expire_s,
                   const struct compose_text *names) {
    char number[24];
    put(out, "DKIM-Signature:", 15);
    put_tag(out, "v=", "1");
    put_tag(out, "a=", key->algorithm == DKIM_ED25519 ? "ed25519-sha256" : "rsa-sha256");
    put_tag(out, "c=", "relaxed/relaxed");
    put_tag(out, "d=", key->domain);
    put_tag(out, "s=", key->selector);
    put_number(number, time_s);
    put_tag(out, "t=", number);
    if (expire_s > 0) {
        put_number(number, time_s + expire_s);
        put_tag(out, "x=", number);
    }
    put(out, names->text, names->length);
    out->full = out->full || names->full;
    put_fold(out);
    put_tag(out, "bh=", body_hash);
    put_fold(out);
    put(out, "b=", 2);
}

/* Base64 may be folded anywhere (RFC 6376 3.5: FWS in b= is ignored): full lines, the first after "b=", then after their tab. */
size_t compose_signature_length(size_t signature_bytes) {
    size_t length = (signature_bytes + 2) / 3 * 4, first = LINE_BYTES - B_COLUMN;
    size_t breaks = length > first ? (length - first + LINE_BYTES - 2) / (LINE_BYTES - 1) : 0;
    return length + breaks * LINE_BREAK_BYTES + 2;
}

void compose_signature(char *out, const uint8_t *signature, size_t signature_bytes) {
    char encoded[DKIM_RSA_BITS_MAX / 8 * 2];
    size_t length = base64_write(encoded, signature, signature_bytes), room = LINE_BYTES - B_COLUMN, at = 0;
    while (length - at > room) {
        memcpy(out, encoded + at, room);
        memcpy(out + room, "\r\n\t", LINE_BREAK_BYTES);
        out += room + LINE_BREAK_BYTES;
        at += room;
        room = LINE_BYTES - 1;
    }
    memcpy(out, encoded + at, length - at);
    memcpy(out + length - at, "\r\n", 2);
}
