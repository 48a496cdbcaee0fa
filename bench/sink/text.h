/* text.h: a message on its way in: lines as RFC 5321 section 4.5.2 and 2.3.8 want them, the end of DATA, and what breaks those rules. */
#ifndef BENCH_SINK_TEXT_H
#define BENCH_SINK_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TEXT_LINE_BYTES_MAX = 1000 }; /* with its CRLF (RFC 5321 4.5.3.1.6) */

/* What was wrong with a message's lines; each is told once a message. */
enum text_fault {
    TEXT_BARE_LF = 0x01,
    TEXT_BARE_CR = 0x02,
    TEXT_OVERLONG = 0x04,
    TEXT_SMUGGLED = 0x08,      /* a dot on a line of its own whose ends are not both CRLF: another server may take it for the end */
    TEXT_UNSTUFFED_DOT = 0x10, /* a line began with a single dot and went on */
    TEXT_EIGHT_BIT = 0x20,     /* no fault where 8BITMIME or SMTPUTF8 was declared */
};

enum text_state {
    TEXT_LINE_START,
    TEXT_IN_LINE,
    TEXT_AFTER_CR,
    TEXT_DOT,       /* at the beginning of a line, not passed on */
    TEXT_DOT_CR,    /* the CR was not passed on either */
    TEXT_ODD_START, /* behind a bare CR or LF, which some take for a line's end */
    TEXT_ODD_DOT,
};

struct text {
    enum text_state state;
    bool dots;           /* DATA: dots are unstuffed and one ends it; false: BDAT, as it comes (RFC 3030) */
    uint8_t faults;      /* enum text_fault */
    uint32_t line_bytes; /* of the line at hand */
};

void text_start(struct text *text, bool dots);
/* Takes bytes and calls `run` with the message's own ones, dots unstuffed. Returns how many were taken: all, or up to and with the end of
 * DATA, and then *ended. */
uint32_t text_take(struct text *text, const uint8_t *bytes, uint32_t length,
                   void (*run)(void *context, const uint8_t *bytes, uint32_t length), void *context, bool *ended);

#endif
