/* reply.h: the reply parser (RFC 5321 4.2): bytes in, one reply out, wherever the network cut them. */
#ifndef DATAPLANE_SMTP_REPLY_H
#define DATAPLANE_SMTP_REPLY_H

#include "capability.h"
#include <stdint.h>

enum {
    REPLY_LINE_MAX = 2048, /* bytes of a line, its end included; RFC 5321 4.5.3.1.5 says 512, servers say more */
    REPLY_LINES_MAX = 100,
    REPLY_TEXT_MAX = 512, /* what is kept of the text */
};

enum reply_status { REPLY_MORE, REPLY_DONE, REPLY_BAD };
enum reply_fault { REPLY_FINE, REPLY_GARBAGE, REPLY_LINE_TOO_LONG, REPLY_TOO_MANY_LINES };

struct reply {
    uint16_t code;        /* the last line's */
    uint16_t enhanced[3]; /* class, subject, detail (RFC 3463) if its class agrees with the code, else zeros */
    uint16_t text_length;
    uint16_t line_length; /* of a line that is not whole yet */
    uint8_t lines;
    uint8_t fault; /* enum reply_fault, after REPLY_BAD */
    struct capabilities *capabilities;
    char text[REPLY_TEXT_MAX]; /* lines joined by a space, enhanced codes taken off, control characters replaced; bytes, not UTF-8 */
    char line[REPLY_LINE_MAX];
};

/* Begins a reply. `capabilities`, or NULL, hears every line after the first: for EHLO. */
void reply_begin(struct reply *reply, struct capabilities *capabilities);
/* Takes bytes up to the end of the reply; *consumed of them. REPLY_DONE: the reply is whole, what follows belongs to the next one.
 * REPLY_BAD: `fault` says why, nothing more can be read from this server. */
enum reply_status reply_take(struct reply *reply, const uint8_t *bytes, uint32_t length, uint32_t *consumed);
const char *reply_fault_text(unsigned fault);

#endif
