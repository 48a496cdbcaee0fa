/* body.h: a message's pieces in the arena as ranges for the stack, dot-stuffed where asked (RFC 5321 4.5.2). */
#ifndef DATAPLANE_SMTP_BODY_H
#define DATAPLANE_SMTP_BODY_H

#include "dataplane/tcp/tcp.h"
#include <stdbool.h>
#include <stdint.h>

enum {
    BODY_PIECES_MAX = 1 << 14, /* of a message */
    BODY_BATCH = 32,           /* ranges handed over at a time */
};

/* Where the pieces are. The table is in memory that control can write: each entry is copied and checked each time it is used. */
struct body_source {
    const uint8_t *arena;
    uint64_t arena_bytes;
    uint64_t table; /* offset of the table */
    uint32_t piece_count;
    bool leading_dots; /* lines may begin with a dot: look for them */
    bool chunked;      /* under BDAT (RFC 3030): no dot is stuffed and none ends it */
    struct tcp_owner *owner;
};

/* What the last byte so far was, for stuffing and for the end. */
enum body_line { BODY_LINE_START, BODY_LINE_WITHIN, BODY_LINE_CR };

struct body_cursor {
    uint32_t piece, offset;
    uint8_t line; /* enum body_line */
    bool ended;   /* the last byte was given, the closing dot among them */
};

/* Walks the table: every piece within the arena, and the sum within 32 bits? Sets *total_bytes. */
bool body_check(const struct body_source *source, uint64_t *total_bytes);
/* The next ranges, at most BODY_BATCH of them and about `budget_bytes`; goes over the end only once, with the final CRLF.CRLF, and then
 * sets `ended`. Returns how many, or -1 when the table holds a wild value. */
int body_next(const struct body_source *source, struct body_cursor *cursor, struct tcp_piece pieces[BODY_BATCH], uint32_t budget_bytes);

#endif
