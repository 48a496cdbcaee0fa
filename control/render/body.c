/* body.c: pieces of a message. What is shared waits until it is known how long it becomes, then it is referred to or copied. */
#include "body.h"

#include <errno.h>
#include <stdlib.h>

void body_begin(struct body *body, struct writer *writer, struct message *message, const struct shared_bytes *shared) {
    *body = (struct body){.writer = writer, .message = message, .shared = shared, .begin = writer->at, .own_from = writer->at};
}

/* Room for two pieces. */
static inline bool has_room(struct body *body) {
    struct message *message = body->message;
    if (message->piece_count + 2 <= message->piece_capacity)
        return true;
    uint32_t capacity = message->piece_capacity == 0 ? 16 : message->piece_capacity * 2;
    struct message_piece *grown = realloc(message->pieces, capacity * sizeof(*grown));
    if (grown == NULL) {
        body->writer->error = -ENOMEM;
        return false;
    }
    message->pieces = grown;
    message->piece_capacity = capacity;
    return true;
}

/* There is room. */
static inline void add_own(struct body *body) {
    struct message *message = body->message;
    size_t length = body->writer->at - body->own_from;
    if (length > 0)
        message->pieces[message->piece_count++] =
            (struct message_piece){.offset = (uint32_t)(body->own_from - body->begin), .length = (uint32_t)length};
    body->own_from = body->writer->at;
}

void body_settle(struct body *body) {
    struct message *message = body->message;
    const struct shared_range range = body->pending;
    body->pending.length = 0;
    if (!RENDER_SHARES || range.length < BODY_SHARED_MIN || message->piece_count + 3 > BODY_PIECES_MAX) {
        writer_bytes(body->writer, body->shared->bytes + range.offset, range.length);
        body->writer->line = body->writer->at;
    } else if (has_room(body)) {
        add_own(body);
        message->pieces[message->piece_count++] = (struct message_piece){.shared = true,
                                                                         .offset = range.offset,
                                                                         .length = range.length,
                                                                         .relaxed_offset = range.relaxed_offset,
                                                                         .relaxed_length = range.relaxed_length};
        message->shared = body->shared;
        body->shared_length += range.length;
    }
}

void body_end(struct body *body) {
    body_own(body);
    if (body->message->piece_count > 0 && has_room(body))
        add_own(body);
}
