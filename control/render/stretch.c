/* stretch.c: base64 in three places: the bytes that fill the group before a stretch move to the message's own text. */
#include "stretch.h"
#include "encode.h"

#include <errno.h>
#include <stdlib.h>

enum { GROUP_BYTES = 3 };

static bool is_last(const struct mustache *program, uint32_t index) {
    return index + 1 == program->count; /* a section's end would be behind it */
}

void stretch_cut(const struct mustache *program, uint32_t index, uint32_t *begin, uint32_t *end) {
    const struct mustache_op *op = &program->ops[index];
    *begin = index > 0 && op->length > 0 && op->text[0] == '\n';
    *end = op->length - (!is_last(program, index) && op->length > 0 && op->text[op->length - 1] == '\r');
    if (op->length < STRETCH_MIN || *end - *begin < STRETCH_MIN)
        *begin = *end = 0;
}

/* Appends text, its line ends as CRLF. */
static void add_text(struct writer *writer, const char *text, size_t length) {
    for (size_t at = 0; at < length;) {
        size_t line = encode_line_length(text + at, length - at);
        writer_bytes(writer, text + at, line);
        at += line;
        if (at == length)
            break;
        at += text[at] == '\r' && at + 1 < length && text[at + 1] == '\n' ? 2 : 1;
        writer_crlf(writer);
    }
}

static bool is_in_line(const struct writer *text) {
    return text->at > 0 && text->bytes[text->at - 1] != '\n';
}

/* The stretch as text, with the line end that the text's end has. *text is the caller's to free, also on an error. */
static int open_stretch(struct stretch *stretch, const struct mustache *program, uint32_t index, struct writer *text) {
    const struct mustache_op *op = &program->ops[index];
    uint32_t begin, end;
    *text = (struct writer){.limit = SIZE_MAX / 2};
    stretch_cut(program, index, &begin, &end);
    writer_room(text, end - begin + (end - begin) / 16);
    add_text(text, op->text + begin, end - begin);
    *stretch = (struct stretch){.begins = index == 0, .ends = is_last(program, index)};
    if (stretch->ends && is_in_line(text))
        writer_crlf(text);
    if (text->error != 0)
        return text->error;
    stretch->length = (uint32_t)text->at;
    memcpy(stretch->head, text->bytes, sizeof(stretch->head));
    memcpy(stretch->tail, text->bytes + text->at - sizeof(stretch->tail), sizeof(stretch->tail));
    return 0;
}

/* The bytes behind the last whole group at this place. */
static uint32_t left_over(const struct stretch *stretch, uint32_t skip) {
    return stretch->ends ? 0 : (stretch->length - skip) % GROUP_BYTES;
}

static void encode_place(const struct stretch *stretch, const struct writer *text, uint32_t skip, struct writer *writer) {
    encode_base64(writer, text->bytes + skip, stretch->length - skip - left_over(stretch, skip));
}

int stretch_record(struct stretch *stretch, const struct mustache *program, uint32_t index, struct writer *writer) {
    struct writer text;
    int result = open_stretch(stretch, program, index, &text);
    for (uint32_t skip = 0; result == 0 && skip < (stretch->begins ? 1 : STRETCH_PLACES); skip++) {
        struct shared_range *range = &stretch->ranges[skip];
        range->offset = (uint32_t)writer->at;
        encode_place(stretch, &text, skip, writer);
        range->length = (uint32_t)(writer->at - range->offset);
        if (!stretch->begins) {
            range->relaxed_offset = range->offset;
            range->relaxed_length = range->length;
        }
        result = writer->error;
    }
    free(text.bytes);
    return result;
}

void stretch_own(struct stretch_run *run, const char *text, size_t length) {
    run->text.limit = SIZE_MAX / 2; /* the text's own writer and the body's have theirs */
    add_text(&run->text, text, length);
}

/* The own text so far into the body. */
static void put_own(struct stretch_run *run, struct body *body) {
    if (run->text.error != 0)
        body->writer->error = run->text.error;
    if (run->text.at == 0)
        return;
    body_own(body);
    encode_base64(body->writer, run->text.bytes, run->text.at);
    run->text.at = 0;
}

/* Fills the last group of the own text from the stretch. The place at which that goes on. */
static uint32_t enter(struct stretch_run *run, const struct stretch *stretch, struct body *body) {
    uint32_t skip = (uint32_t)((GROUP_BYTES - run->text.at % GROUP_BYTES) % GROUP_BYTES);
    run->text.limit = SIZE_MAX / 2;
    writer_bytes(&run->text, stretch->head, skip);
    put_own(run, body);
    return skip;
}

static void leave(struct stretch_run *run, const struct stretch *stretch, uint32_t skip) {
    uint32_t left = left_over(stretch, skip);
    writer_bytes(&run->text, stretch->tail + sizeof(stretch->tail) - left, left);
    run->in_line = stretch->tail[sizeof(stretch->tail) - 1] != '\n';
}

void stretch_share(struct stretch_run *run, const struct stretch *stretch, struct body *body) {
    uint32_t skip = enter(run, stretch, body);
    body_share(body, &stretch->ranges[skip]);
    leave(run, stretch, skip);
}

void stretch_encode(struct stretch_run *run, const struct mustache *program, uint32_t index, struct body *body) {
    struct stretch stretch;
    struct writer text;
    int result = open_stretch(&stretch, program, index, &text);
    if (result == 0) {
        uint32_t skip = enter(run, &stretch, body);
        body_own(body);
        encode_place(&stretch, &text, skip, body->writer);
        leave(run, &stretch, skip);
    } else {
        body->writer->error = result;
    }
    free(text.bytes);
}

void stretch_end(struct stretch_run *run, struct body *body) {
    if (run->text.at > 0 ? is_in_line(&run->text) : run->in_line)
        writer_crlf(&run->text);
    put_own(run, body);
    free(run->text.bytes);
}
