/* body.h: the body of a message while it is written: bytes of its own, and references to those that a content's messages share. */
#ifndef CONTROL_RENDER_BODY_H
#define CONTROL_RENDER_BODY_H

#include "render.h"
#include "writer.h"

enum {
    BODY_SHARED_MIN = 512, /* bytes: fewer are cheaper copied than referred to, from here to the port (DESIGN.md section 4) */
    BODY_PIECES_MAX = 256, /* of a message; what is shared beyond is copied */
};

/* Whole lines in shared_bytes. */
struct shared_range {
    uint32_t offset, length, relaxed_offset, relaxed_length;
};

struct body {
    struct writer *writer; /* the message's own bytes */
    struct message *message;
    const struct shared_bytes *shared; /* or NULL */
    size_t begin;                      /* in the writer: the body's first own byte */
    size_t own_from;                   /* own bytes from here on are in no piece yet */
    size_t shared_length;              /* of the pieces */
    struct shared_range pending;       /* shared, and not yet a piece nor copied: what follows it may lengthen it */
};

/* The body begins where the writer is. */
void body_begin(struct body *body, struct writer *writer, struct message *message, const struct shared_bytes *shared);
/* What is pending becomes a piece, or is copied. */
void body_settle(struct body *body);
/* Before bytes are written to the writer. */
static inline void body_own(struct body *body) {
    if (body->pending.length > 0)
        body_settle(body);
}
static inline void body_share(struct body *body, const struct shared_range *range) {
    struct shared_range *pending = &body->pending;
    if (pending->length > 0 && pending->offset + pending->length == range->offset &&
        pending->relaxed_offset + pending->relaxed_length == range->relaxed_offset) {
        pending->length += range->length;
        pending->relaxed_length += range->relaxed_length;
        return;
    }
    body_own(body);
    *pending = *range;
}
/* Puts the pieces into the message. Without memory the writer has an error. */
void body_end(struct body *body);

#endif
