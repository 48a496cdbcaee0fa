/* encode.c: quoted-printable, 7bit and base64, each in one pass over the text. */
#include "encode.h"
#include "quoted.h"

#include <stdlib.h>

enum {
    PLAIN_LINE_MAX = 78,     /* RFC 5322 2.1.1 recommends it */
    LINE_WINDOW_BYTES = 256, /* a line end is looked for in: of two kinds, one may be megabytes away */
    BASE64_LINE_IN = 57,
    BASE64_LINE_OUT = 76,
};

const char encode_hex[16] = {'0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'};
static const char base64_digits[64] = {'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'N', 'O', 'P',
                                       'Q', 'R', 'S', 'T', 'U', 'V', 'W', 'X', 'Y', 'Z', 'a', 'b', 'c', 'd', 'e', 'f',
                                       'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p', 'q', 'r', 's', 't', 'u', 'v',
                                       'w', 'x', 'y', 'z', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '+', '/'};

/* Printable ASCII and tabs. */
static const bool plain_byte[256] = {['\t'] = true, [' ' ... '~'] = true};

static bool is_risky_start(const char *line, size_t length) {
    return length > 0 && (line[0] == '.' || (line[0] == 'F' && length >= 5 && memcmp(line, "From ", 5) == 0));
}

size_t encode_line_length(const char *text, size_t length) {
    for (size_t at = 0; at < length; at += LINE_WINDOW_BYTES) {
        size_t window = length - at < LINE_WINDOW_BYTES ? length - at : LINE_WINDOW_BYTES;
        const char *newline = memchr(text + at, '\n', window);
        if (newline != NULL)
            window = (size_t)(newline - (text + at));
        const char *carriage = memchr(text + at, '\r', window);
        if (carriage != NULL)
            return (size_t)(carriage - text);
        if (newline != NULL)
            return (size_t)(newline - text);
    }
    return length;
}

/* The end of the line that begins at `at`; *next is where the following one begins. LF, CR and CRLF end lines. */
static size_t line_end(const char *text, size_t at, size_t length, size_t *next) {
    size_t end = at + encode_line_length(text + at, length - at);
    *next = end == length ? end : end + (text[end] == '\r' && end + 1 < length && text[end + 1] == '\n' ? 2 : 1);
    return end;
}

/* Printable ASCII and tabs; eight bytes at a time where there is no tab. */
static bool is_printable(const char *text, size_t length) {
    static const uint64_t ones = 0x0101010101010101, tops = 0x8080808080808080;
    bool all = true;
    size_t at = 0;
    while (at < length) {
        uint64_t word;
        if (length - at >= sizeof(word)) {
            memcpy(&word, text + at, sizeof(word));
            /* No byte over 126, and none under 32. */
            if ((((word + ones) | word | ((word - 32 * ones) & ~word)) & tops) == 0) {
                at += sizeof(word);
                continue;
            }
        }
        all &= plain_byte[(uint8_t)text[at++]];
    }
    return all;
}

bool encode_is_plain(const char *text, size_t length) {
    for (size_t at = 0, next; at < length; at = next) {
        size_t end = line_end(text, at, length, &next);
        if (end - at > PLAIN_LINE_MAX || is_risky_start(text + at, end - at) ||
            (end > at && (text[end - 1] == ' ' || text[end - 1] == '\t')))
            return false;
        if (!is_printable(text + at, end - at))
            return false;
    }
    return true;
}

void encode_plain(struct writer *writer, const char *text, size_t length) {
    for (size_t at = 0, next; at < length; at = next) {
        size_t end = line_end(text, at, length, &next);
        writer_bytes(writer, text + at, end - at);
        writer_crlf(writer);
    }
}

void encode_quoted_printable(struct writer *writer, const char *text, size_t length) {
    encode_quoted_printable_part(writer, text, length, false);
}

void encode_quoted_printable_part(struct writer *writer, const char *text, size_t length, bool soft) {
    struct quoted quoted;
    if (length == 0)
        return;
    quoted_begin(&quoted, writer);
    quoted_text(&quoted, text, length);
    quoted_end(&quoted, soft);
}

size_t base64_write(char *out, const uint8_t *bytes, size_t length) {
    char *start = out;
    size_t at = 0;
    for (; at + 3 <= length; at += 3, out += 4) {
        uint32_t group = (uint32_t)bytes[at] << 16 | (uint32_t)bytes[at + 1] << 8 | bytes[at + 2];
        out[0] = base64_digits[group >> 18];
        out[1] = base64_digits[group >> 12 & 63];
        out[2] = base64_digits[group >> 6 & 63];
        out[3] = base64_digits[group & 63];
    }
    if (at < length) {
        bool two = length - at == 2;
        uint32_t group = (uint32_t)bytes[at] << 16 | (two ? (uint32_t)bytes[at + 1] << 8 : 0);
        out[0] = base64_digits[group >> 18];
        out[1] = base64_digits[group >> 12 & 63];
        out[2] = two ? base64_digits[group >> 6 & 63] : '=';
        out[3] = '=';
        out += 4;
    }
    return (size_t)(out - start);
}

void encode_base64(struct writer *writer, const uint8_t *bytes, size_t length) {
    while (length > 0) {
        size_t part = length < BASE64_LINE_IN ? length : BASE64_LINE_IN;
        if (!writer_room(writer, BASE64_LINE_OUT + 2))
            return;
        writer->at += base64_write((char *)writer->bytes + writer->at, bytes, part);
        writer_crlf(writer);
        bytes += part;
        length -= part;
    }
}

void encode_base64_text(struct writer *writer, const char *text, size_t length) {
    struct writer lines = {.limit = SIZE_MAX / 2};
    encode_plain(&lines, text, length);
    if (lines.error == 0)
        encode_base64(writer, lines.bytes, lines.at);
    else
        writer->error = lines.error;
    free(lines.bytes);
}

size_t encode_high_bytes(const char *text, size_t length) {
    static const uint64_t tops = 0x8080808080808080;
    size_t count = 0, at = 0;
    for (uint64_t word; at + sizeof(word) <= length; at += sizeof(word)) {
        memcpy(&word, text + at, sizeof(word));
        if ((word & tops) != 0)
            count += (size_t)__builtin_popcountll(word & tops);
    }
    for (; at < length; at++)
        count += (uint8_t)text[at] >= 0x80;
    return count;
}

size_t utf8_character(const char *text, size_t length) {
    const uint8_t *byte = (const uint8_t *)text;
    if (length == 0)
        return 0;
    if (byte[0] < 0x80)
        return 1;
    size_t size = byte[0] >= 0xF0 ? 4 : byte[0] >= 0xE0 ? 3 : 2;
    if (byte[0] < 0xC2 || byte[0] > 0xF4 || length < size)
        return 0;
    for (size_t i = 1; i < size; i++)
        if ((byte[i] & 0xC0) != 0x80)
            return 0;
    if ((byte[0] == 0xE0 && byte[1] < 0xA0) || (byte[0] == 0xED && byte[1] > 0x9F) || (byte[0] == 0xF0 && byte[1] < 0x90) ||
        (byte[0] == 0xF4 && byte[1] > 0x8F))
        return 0;
    return size;
}
