/* body.c: nothing is copied: ranges point into the arena, and stuffed dots and the end point at static bytes. */
#include "body.h"

#include <bypost/slot.h>
#include <string.h>

/* Copies one entry of the table and checks the copy. */
static bool read_piece(const struct body_source *source, uint32_t index, struct arena_piece *piece) {
    memcpy(piece, source->arena + source->table + (uint64_t)index * sizeof(*piece), sizeof(*piece));
    return piece->offset <= source->arena_bytes && piece->length <= source->arena_bytes - piece->offset;
}

bool body_check(const struct body_source *source, uint64_t *total_bytes) {
    *total_bytes = 0;
    if (source->piece_count > BODY_PIECES_MAX || source->table > source->arena_bytes ||
        (uint64_t)source->piece_count * sizeof(struct arena_piece) > source->arena_bytes - source->table)
        return false;
    for (uint32_t i = 0; i < source->piece_count; i++) {
        struct arena_piece piece;
        if (!read_piece(source, i, &piece))
            return false;
        *total_bytes += piece.length;
    }
    return *total_bytes <= UINT32_MAX;
}

static enum body_line line_after(enum body_line before, const uint8_t *bytes, uint32_t length) {
    if (!length)
        return before;
    if (bytes[length - 1] == '\r')
        return BODY_LINE_CR;
    if (bytes[length - 1] != '\n')
        return BODY_LINE_WITHIN;
    bool after_cr = length > 1 ? bytes[length - 2] == '\r' : before == BODY_LINE_CR;
    return after_cr ? BODY_LINE_START : BODY_LINE_WITHIN;
}

/* How many bytes come before the next dot that stands at a line's start (after the first byte), or all. */
static uint32_t before_dot(enum body_line before, const uint8_t *bytes, uint32_t length) {
    uint32_t at = 0;
    while (at < length) {
        const uint8_t *feed = memchr(bytes + at, '\n', length - at);
        if (!feed)
            return length;
        uint32_t index = (uint32_t)(feed - bytes);
        bool after_cr = index ? bytes[index - 1] == '\r' : before == BODY_LINE_CR;
        at = index + 1;
        if (after_cr && at < length && bytes[at] == '.')
            return at;
    }
    return length;
}

static uint32_t put_end(struct body_cursor *cursor, struct tcp_piece *piece) {
    static const uint8_t end[] = "\r\n.\r\n";
    uint32_t skip = cursor->line == BODY_LINE_START ? 2 : 0;
    *piece = (struct tcp_piece){.bytes = end + skip, .length = 5 - skip};
    cursor->ended = true;
    return 1;
}

int body_next(const struct body_source *source, struct body_cursor *cursor, struct tcp_piece pieces[BODY_BATCH], uint32_t budget_bytes) {
    static const uint8_t dot[] = ".";
    uint32_t count = 0;
    if (cursor->ended)
        return 0;
    while (cursor->piece < source->piece_count && count < BODY_BATCH && budget_bytes) {
        struct arena_piece piece;
        if (!read_piece(source, cursor->piece, &piece) || cursor->offset > piece.length)
            return -1;
        if (cursor->offset == piece.length) {
            cursor->piece++;
            cursor->offset = 0;
            continue;
        }
        const uint8_t *bytes = source->arena + piece.offset + cursor->offset;
        uint32_t length = piece.length - cursor->offset;
        if (length > budget_bytes)
            length = budget_bytes;
        if (source->leading_dots && !source->chunked) {
            if (cursor->line == BODY_LINE_START && bytes[0] == '.') {
                pieces[count++] = (struct tcp_piece){.bytes = dot, .length = 1};
                cursor->line = BODY_LINE_WITHIN;
                continue;
            }
            length = before_dot(cursor->line, bytes, length);
        }
        pieces[count++] = (struct tcp_piece){.bytes = bytes, .length = length, .owner = source->owner};
        cursor->line = (uint8_t)line_after(cursor->line, bytes, length);
        cursor->offset += length;
        budget_bytes -= length;
        if (cursor->offset == piece.length) {
            cursor->piece++;
            cursor->offset = 0;
        }
    }
    /* Empty pieces at the end must not hide that the last byte is in this batch. */
    struct arena_piece piece;
    while (cursor->offset == 0 && cursor->piece < source->piece_count && read_piece(source, cursor->piece, &piece) && piece.length == 0)
        cursor->piece++;
    if (source->chunked)
        cursor->ended = cursor->piece == source->piece_count;
    else if (cursor->piece == source->piece_count && count < BODY_BATCH)
        count += put_end(cursor, &pieces[count]);
    return (int)count;
}
