/* encode.c: quoted-printable, 7bit and base64, each in one pass over the text. */
#include "encode.h"

enum {
    PLAIN_LINE_MAX = 78, /* RFC 5322 2.1.1 recommends it */
    QP_LINE_MAX = 75,    /* 76 with the "=" of a soft line break */
    QP_CHUNK_BYTES = 1024,
    QP_CHUNK_ROOM = QP_CHUNK_BYTES * 4 + 16, /* every byte as =XX, a soft break each 72 */
    BASE64_LINE_IN = 57,
    BASE64_LINE_OUT = 76,
};

const char encode_hex[16] = {'0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'};
static const char base64_digits[64] = {'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'N', 'O', 'P',
                                       'Q', 'R', 'S', 'T', 'U', 'V', 'W', 'X', 'Y', 'Z', 'a', 'b', 'c', 'd', 'e', 'f',
                                       'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p', 'q', 'r', 's', 't', 'u', 'v',
                                       'w', 'x', 'y', 'z', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '+', '/'};

/* 1: stands for itself in quoted-printable (33-60, 62-126, space and tab). */
static const uint8_t qp_literal[256] = {
    ['\t'] = 1, [' '] = 1, ['!'] = 1, ['"'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1, ['&'] = 1, ['\''] = 1, ['('] = 1, [')'] = 1, ['*'] = 1,
    ['+'] = 1,  [','] = 1, ['-'] = 1, ['.'] = 1, ['/'] = 1, ['0'] = 1, ['1'] = 1, ['2'] = 1, ['3'] = 1,  ['4'] = 1, ['5'] = 1, ['6'] = 1,
    ['7'] = 1,  ['8'] = 1, ['9'] = 1, [':'] = 1, [';'] = 1, ['<'] = 1, ['>'] = 1, ['?'] = 1, ['@'] = 1,  ['A'] = 1, ['B'] = 1, ['C'] = 1,
    ['D'] = 1,  ['E'] = 1, ['F'] = 1, ['G'] = 1, ['H'] = 1, ['I'] = 1, ['J'] = 1, ['K'] = 1, ['L'] = 1,  ['M'] = 1, ['N'] = 1, ['O'] = 1,
    ['P'] = 1,  ['Q'] = 1, ['R'] = 1, ['S'] = 1, ['T'] = 1, ['U'] = 1, ['V'] = 1, ['W'] = 1, ['X'] = 1,  ['Y'] = 1, ['Z'] = 1, ['['] = 1,
    ['\\'] = 1, [']'] = 1, ['^'] = 1, ['_'] = 1, ['`'] = 1, ['a'] = 1, ['b'] = 1, ['c'] = 1, ['d'] = 1,  ['e'] = 1, ['f'] = 1, ['g'] = 1,
    ['h'] = 1,  ['i'] = 1, ['j'] = 1, ['k'] = 1, ['l'] = 1, ['m'] = 1, ['n'] = 1, ['o'] = 1, ['p'] = 1,  ['q'] = 1, ['r'] = 1, ['s'] = 1,
    ['t'] = 1,  ['u'] = 1, ['v'] = 1, ['w'] = 1, ['x'] = 1, ['y'] = 1, ['z'] = 1, ['{'] = 1, ['|'] = 1,  ['}'] = 1, ['~'] = 1,
};

static bool is_line_end(char byte) {
    return byte == '\n' || byte == '\r';
}

static bool is_risky_start(const char *line, size_t length) {
    return length > 0 && (line[0] == '.' || (line[0] == 'F' && length >= 5 && memcmp(line, "From ", 5) == 0));
}

bool encode_is_plain(const char *text, size_t length) {
    size_t at = 0;
    while (at < length) {
        size_t start = at;
        if (is_risky_start(text + at, length - at))
            return false;
        while (at < length && (qp_literal[(uint8_t)text[at]] || text[at] == '='))
            at++;
        if (at - start > PLAIN_LINE_MAX || (at > start && (text[at - 1] == ' ' || text[at - 1] == '\t')))
            return false;
        if (at < length) {
            if (!is_line_end(text[at]))
                return false;
            at += text[at] == '\r' && at + 1 < length && text[at + 1] == '\n' ? 2 : 1;
        }
    }
    return true;
}

void encode_plain(struct writer *writer, const char *text, size_t length) {
    size_t at = 0;
    while (at < length) {
        size_t start = at;
        while (at < length && !is_line_end(text[at]))
            at++;
        writer_bytes(writer, text + start, at - start);
        writer_crlf(writer);
        if (at < length)
            at += text[at] == '\r' && at + 1 < length && text[at + 1] == '\n' ? 2 : 1;
    }
}

/* One byte as =XX at `out`. */
static uint8_t *qp_escape(uint8_t *out, uint8_t byte) {
    out[0] = '=';
    out[1] = (uint8_t)encode_hex[byte >> 4];
    out[2] = (uint8_t)encode_hex[byte & 15];
    return out + 3;
}

static uint8_t *qp_soft_break(uint8_t *out) {
    memcpy(out, "=\r\n", 3);
    return out + 3;
}

void encode_quoted_printable(struct writer *writer, const char *text, size_t length) {
    size_t at = 0, column = 0;
    while (at < length) {
        if (!writer_room(writer, QP_CHUNK_ROOM))
            return;
        uint8_t *out = writer->bytes + writer->at;
        size_t chunk_end = length - at > QP_CHUNK_BYTES ? at + QP_CHUNK_BYTES : length;
        while (at < chunk_end) {
            size_t run = at, run_max = at + (QP_LINE_MAX - column);
            if (run_max > chunk_end)
                run_max = chunk_end;
            if (column == 0 && is_risky_start(text + at, length - at)) {
                out = qp_escape(out, (uint8_t)text[at++]);
                column = 3;
                continue;
            }
            while (run < run_max && qp_literal[(uint8_t)text[run]])
                run++;
            bool at_line_end = run == length || is_line_end(text[run]);
            /* White space before a line's end would be lost on the way. */
            bool blank_end = at_line_end && run > at && (text[run - 1] == ' ' || text[run - 1] == '\t');
            if (blank_end)
                run--;
            memcpy(out, text + at, run - at);
            out += run - at;
            column += run - at;
            at = run;
            if (blank_end || (at < chunk_end && !qp_literal[(uint8_t)text[at]] && !is_line_end(text[at]))) {
                if (column + 3 > QP_LINE_MAX) {
                    out = qp_soft_break(out);
                    column = 0;
                }
                out = qp_escape(out, (uint8_t)text[at++]);
                column += 3;
            } else if (at < chunk_end && is_line_end(text[at])) {
                at += text[at] == '\r' && at + 1 < length && text[at + 1] == '\n' ? 2 : 1;
                memcpy(out, "\r\n", 2);
                out += 2;
                column = 0;
            } else if (column == QP_LINE_MAX && at < length && !is_line_end(text[at])) {
                out = qp_soft_break(out);
                column = 0;
            }
        }
        writer->at = (size_t)(out - writer->bytes);
    }
    if (column > 0)
        writer_bytes(writer, "\r\n", 2);
    writer->line = writer->at;
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
