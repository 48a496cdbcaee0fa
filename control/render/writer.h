/* writer.h: one growing buffer into which a message is written, with the place where its present line began. An error sticks: writes after
 * it do nothing. */
#ifndef CONTROL_RENDER_WRITER_H
#define CONTROL_RENDER_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct writer {
    uint8_t *bytes; /* malloc'd */
    size_t at;      /* the next byte goes here */
    size_t capacity;
    size_t limit;     /* `at` never passes it: -E2BIG */
    size_t line;      /* where the present line began */
    int error;        /* 0, -E2BIG or -ENOMEM */
    bool leading_dot; /* a line that was written begins with "." */
};

/* Makes room for more bytes; the slow half of writer_room. */
bool writer_grow(struct writer *writer, size_t more);

/* True when `more` bytes may be stored at bytes + at. */
static inline bool writer_room(struct writer *writer, size_t more) {
    return (writer->error == 0 && writer->at + more <= writer->capacity) || writer_grow(writer, more);
}

static inline void writer_bytes(struct writer *writer, const void *bytes, size_t length) {
    if (length > 0 && writer_room(writer, length)) {
        memcpy(writer->bytes + writer->at, bytes, length);
        writer->at += length;
    }
}

/* The same of few bytes, without a call. */
static inline void writer_short(struct writer *writer, const char *bytes, size_t length) {
    if (!writer_room(writer, length))
        return;
    uint8_t *out = writer->bytes + writer->at;
    writer->at += length;
    if (length >= 16) {
        for (size_t at = 0; at < length - 16; at += 16)
            memcpy(out + at, bytes + at, 16);
        memcpy(out + length - 16, bytes + length - 16, 16);
    } else if (length >= 8) {
        memcpy(out, bytes, 8);
        memcpy(out + length - 8, bytes + length - 8, 8);
    } else if (length >= 4) {
        memcpy(out, bytes, 4);
        memcpy(out + length - 4, bytes + length - 4, 4);
    } else {
        for (size_t at = 0; at < length; at++)
            out[at] = (uint8_t)bytes[at];
    }
}

static inline void writer_text(struct writer *writer, const char *text) {
    writer_bytes(writer, text, strlen(text));
}

static inline void writer_byte(struct writer *writer, char byte) {
    if (writer_room(writer, 1))
        writer->bytes[writer->at++] = (uint8_t)byte;
}

/* Ends the line. */
static inline void writer_crlf(struct writer *writer) {
    writer_bytes(writer, "\r\n", 2);
    writer->line = writer->at;
}

/* Ends the line inside a header field (RFC 5322 2.2.3): what follows must be white space. */
static inline void writer_fold(struct writer *writer) {
    writer_crlf(writer);
}

static inline size_t writer_column(const struct writer *writer) {
    return writer->at - writer->line;
}

#endif
