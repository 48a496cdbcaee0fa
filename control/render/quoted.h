/* quoted.h: quoted-printable (RFC 2045 6.7) of a text that comes in parts: where one ends does not show in what is written. */
#ifndef CONTROL_RENDER_QUOTED_H
#define CONTROL_RENDER_QUOTED_H

#include "writer.h"

enum {
    QUOTED_LINE_MAX = 75,   /* 76 with the "=" of a soft line break */
    QUOTED_FROM_LENGTH = 5, /* "From " */
    QUOTED_AFTER_CR = 256,  /* the column at a line's start, where an LF still belongs to the line end before */
};

/* Lines of at most 76, each line end as CRLF. A "." or "From " at a line's start is encoded, so nothing needs dot-stuffing (RFC 2049 3). */
struct quoted {
    struct writer *writer;
    uint32_t column;
};

/* A text that begins a line of its own. */
static inline void quoted_begin(struct quoted *quoted, struct writer *writer) {
    *quoted = (struct quoted){.writer = writer};
}
void quoted_text(struct quoted *quoted, const char *text, size_t length);

/* Ends the text, and its last line where it has no end. `soft`: the text goes on behind, so that is a soft line break (rule 5). */
void quoted_end_line(struct quoted *quoted, bool soft);
static inline void quoted_end(struct quoted *quoted, bool soft) {
    if (quoted->column > 0)
        quoted_end_line(quoted, soft);
    quoted->writer->line = quoted->writer->at;
}

/* quoted_text of bytes that all stand for themselves (RFC 2045 6.7 (2)), no tabs among them. */
static inline void quoted_literal(struct quoted *quoted, const char *text, size_t length) {
    uint32_t column = quoted->column;
    /* At a line's start they may be "From "; a line of fewer may be its begin. */
    bool fits = column >= QUOTED_FROM_LENGTH ? column + length <= QUOTED_LINE_MAX
                                             : column == 0 && length <= QUOTED_LINE_MAX && text[0] != '.' && text[0] != 'F';
    if (length == 0)
        return;
    if (fits) {
        writer_short(quoted->writer, text, length);
        quoted->column = column + (uint32_t)length;
    } else {
        quoted_text(quoted, text, length);
    }
}

/* A part of a text, encoded before it is known what stands before it: as it is, it goes in behind so many columns that its first line ends
 * in time. */
struct quoted_ahead {
    uint32_t offset, length; /* in a writer's bytes, which QUOTED_AHEAD_ROOM more follow */
    uint16_t first_column;   /* that it fits behind, */
    uint16_t column_count;   /* and how many there are */
    uint16_t columns;        /* of its last line; it may be QUOTED_AFTER_CR */
    uint16_t kept;           /* it has no line end, so columns are added to those before it: a mask of them */
    bool begins_line_end;    /* and so it does not fit behind a blank (rule 3) */
};
enum { QUOTED_AHEAD_ROOM = 32 };

/* Encodes it into the writer, which keeps it; `starts`: where it stands a line begins. */
void quoted_ahead_make(struct quoted_ahead *ahead, const char *text, size_t length, bool starts, struct writer *writer);
/* Puts room behind all of them. */
void quoted_ahead_end(struct writer *writer);

/* quoted_text of the text that it was made of; `bytes` are the writer's. */
static inline void quoted_ahead_put(struct quoted *quoted, const struct quoted_ahead *ahead, const uint8_t *bytes, const char *text,
                                    size_t length) {
    struct writer *writer = quoted->writer;
    uint32_t column = quoted->column, count = ahead->length;
    bool fits = column - ahead->first_column < ahead->column_count;
    if (ahead->begins_line_end && column > 0)
        fits = fits && writer->bytes[writer->at - 1] != ' ' && writer->bytes[writer->at - 1] != '\t';
    if (!fits || !writer_room(writer, count + QUOTED_AHEAD_ROOM)) {
        quoted_text(quoted, text, length);
        return;
    }
    uint8_t *out = writer->bytes + writer->at;
    for (const uint8_t *from = bytes + ahead->offset, *end = from + count; from < end; from += QUOTED_AHEAD_ROOM, out += QUOTED_AHEAD_ROOM)
        memcpy(out, from, QUOTED_AHEAD_ROOM);
    writer->at += count;
    quoted->column = (column & ahead->kept) + ahead->columns;
}

#endif
