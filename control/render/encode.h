/* encode.h: content transfer encodings (RFC 2045): quoted-printable, 7bit where it is safe, base64. */
#ifndef CONTROL_RENDER_ENCODE_H
#define CONTROL_RENDER_ENCODE_H

#include "writer.h"

/* Whether text may travel as it is: printable ASCII and tabs, lines of at most 78, no white space before a line's end, and no line that
 * begins with
 * "." or "From ", which relays change on the way. */
bool encode_is_plain(const char *text, size_t length);

/* All of these turn LF, CR and CRLF into CRLF and end with CRLF unless the text is empty. */
void encode_plain(struct writer *writer, const char *text, size_t length);
/* Lines of at most 76 (RFC 2045 6.7). A "." or "From " at a line's start is encoded, so nothing needs dot-stuffing (RFC 2049 3). */
void encode_quoted_printable(struct writer *writer, const char *text, size_t length);
/* The same of a part of a text that begins a line of its own; where its last line is not ended and `soft`, the text goes on behind it: a
 * soft line break follows (RFC 2045 6.7 (5)). */
void encode_quoted_printable_part(struct writer *writer, const char *text, size_t length, bool soft);
/* Lines of 76 (RFC 2045 6.8). */
void encode_base64(struct writer *writer, const uint8_t *bytes, size_t length);
/* The same of a text, whose line ends are CRLF within (RFC 2045 6.8, RFC 2046 4.1.1). */
void encode_base64_text(struct writer *writer, const char *text, size_t length);
/* How many bytes are not ASCII. */
size_t encode_high_bytes(const char *text, size_t length);

/* base64 without line ends; returns the number of characters, 4 for each 3 bytes begun. */
/* 57 bytes make a line of 76 and its CRLF. */
enum { BASE64_LINE_IN_BYTES = 57, BASE64_LINE_OUT_BYTES = 78 };

size_t base64_write(char *out, const uint8_t *bytes, size_t length);

extern const char encode_hex[16]; /* upper case, as RFC 2045 wants */

/* How many bytes stand before the first CR or LF, all `length` without one. What is behind it is not read, so lines of CR cost their
 * length. */
size_t encode_line_length(const char *text, size_t length);

/* The length in bytes of the UTF-8 character at text (RFC 3629: shortest form, no surrogates), or 0 when it is none. */
size_t utf8_character(const char *text, size_t length);

#endif
