/* json_text.c: escaping for log lines. */
#include "json_text.h"

#include <stdio.h>
#include <string.h>

/* The length of the UTF-8 character at `at` (RFC 3629 section 4), or 0 when there is none. */
static size_t utf8_length(const unsigned char *at) {
    size_t length = at[0] < 0x80                    ? 1
                    : at[0] >= 0xc2 && at[0] < 0xe0 ? 2
                    : at[0] >= 0xe0 && at[0] < 0xf0 ? 3
                    : at[0] >= 0xf0 && at[0] < 0xf5 ? 4
                                                    : 0;
    for (size_t i = 1; i < length; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            return 0; /* also the text's NUL */
        }
    }
    if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] >= 0xa0) || (at[0] == 0xf0 && at[1] < 0x90) ||
        (at[0] == 0xf4 && at[1] >= 0x90)) {
        return 0; /* overlong, a surrogate, or past U+10FFFF */
    }
    return length;
}

/* One character, escaped where JSON wants it, into piece[8]; returns the bytes of `at` that it took. */
static size_t escape(const unsigned char *at, char *piece) {
    static const char shorts[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    for (const char *pair = shorts; *pair; pair += 2) {
        if (*at == (unsigned char)*pair) {
            snprintf(piece, 8, "\\%c", pair[1]);
            return 1;
        }
    }
    size_t length = utf8_length(at);
    if (length == 0) {
        strcpy(piece, "\\ufffd");
        return 1;
    }
    if (*at < 0x20 || *at == 0x7f) {
        snprintf(piece, 8, "\\u%04x", *at);
        return 1;
    }
    if (at[0] == 0xc2 && at[1] < 0xa0) { /* C1: a terminal that shows the log would obey */
        snprintf(piece, 8, "\\u%04x", at[1]);
        return length;
    }
    memcpy(piece, at, length);
    piece[length] = 0;
    return length;
}

size_t json_text(char *out, size_t out_bytes, const char *text) {
    static const char cut[] = "...";
    size_t length = 0, end = out_bytes - 2; /* the quote and the NUL */
    out[length++] = '"';
    for (const unsigned char *at = (const unsigned char *)text; *at;) {
        char piece[8];
        at += escape(at, piece);
        size_t piece_length = strlen(piece);
        /* Room for the mark of a cut is kept until the text is known to end. */
        if (length + piece_length + (*at ? sizeof cut - 1 : 0) > end) {
            memcpy(out + length, cut, sizeof cut - 1);
            length += sizeof cut - 1;
            break;
        }
        memcpy(out + length, piece, piece_length);
        length += piece_length;
    }
    out[length++] = '"';
    out[length] = 0;
    return length;
}
