/* writer.c: growth of the buffer into which a message is written. */
#include "writer.h"

#include <errno.h>
#include <stdlib.h>

enum {
    WRITER_RESERVE_BYTES = 8192, /* encoders reserve for their worst case; the limit is on what is written */
    WRITER_GROW_BYTES = 768,     /* the buffer of a short text is one that malloc keeps at hand */
};

bool writer_grow(struct writer *writer, size_t more) {
    if (writer->error != 0)
        return false;
    if (writer->at > writer->limit || more > writer->limit - writer->at + WRITER_RESERVE_BYTES) {
        writer->error = -E2BIG;
        return false;
    }
    size_t capacity = writer->capacity + writer->capacity / 2;
    if (capacity < writer->at + more + WRITER_GROW_BYTES)
        capacity = writer->at + more + WRITER_GROW_BYTES;
    uint8_t *bytes = realloc(writer->bytes, capacity);
    if (bytes == NULL) {
        writer->error = -ENOMEM;
        return false;
    }
    writer->bytes = bytes;
    writer->capacity = capacity;
    return true;
}
