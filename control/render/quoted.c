/* quoted.c: quoted-printable. What is written last may still change: a blank when the line ends behind it (rule 3), "From" when a space
 * follows. */
#include "quoted.h"
#include "encode.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum {
    CHUNK_BYTES = 1024,
    VECTOR_BYTES = 16,
    CHUNK_ROOM = CHUNK_BYTES * 4 + 2 * VECTOR_BYTES, /* every byte as =XX, a soft break each 72; copies go beyond their end */
    ESCAPE_COLUMNS = 3,
    FROM_LENGTH = QUOTED_FROM_LENGTH,
};

static const char from[] = "From ";

enum { OTHER, LITERAL, LINE_END };
static const uint8_t byte_kind[256] = {
    ['\t'] = LITERAL, ['\n'] = LINE_END, ['\r'] = LINE_END, [' ' ... '<'] = LITERAL, ['>' ... '~'] = LITERAL};

static bool is_blank(uint8_t byte) {
    return byte == ' ' || byte == '\t';
}

static bool is_risky_start(const char *line, size_t length) {
    return line[0] == '.' || (line[0] == 'F' && length >= FROM_LENGTH && memcmp(line, from, FROM_LENGTH) == 0);
}

/* One byte as =XX at `out`. */
static uint8_t *escape(uint8_t *out, uint8_t byte) {
    out[0] = '=';
    out[1] = (uint8_t)encode_hex[byte >> 4];
    out[2] = (uint8_t)encode_hex[byte & 15];
    return out + ESCAPE_COLUMNS;
}

static uint8_t *soft_break(uint8_t *out) {
    memcpy(out, "=\r\n", 3);
    return out + 3;
}

/* Copies the bytes that stand for themselves, of at most `limit`, and how many there are; up to VECTOR_BYTES behind them are written too.
 * `readable` bytes are at `text`. */
static size_t copy_literals(uint8_t *out, const char *text, size_t limit, size_t readable) {
    size_t run = 0;
#ifdef __SSE2__
    const __m128i space = _mm_set1_epi8(' '), tab = _mm_set1_epi8('\t'), equals = _mm_set1_epi8('='), del = _mm_set1_epi8(127);
    for (; run < limit && readable - run >= VECTOR_BYTES; run += VECTOR_BYTES) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(text + run));
        _mm_storeu_si128((__m128i *)(out + run), bytes);
        /* Signed: what is not ASCII is under a space too. */
        __m128i low = _mm_andnot_si128(_mm_cmpeq_epi8(bytes, tab), _mm_cmplt_epi8(bytes, space));
        __m128i others = _mm_or_si128(_mm_cmpeq_epi8(bytes, equals), _mm_cmpeq_epi8(bytes, del));
        unsigned stops = (unsigned)_mm_movemask_epi8(_mm_or_si128(low, others));
        if (stops != 0) {
            run += (unsigned)__builtin_ctz(stops);
            break;
        }
    }
    if (run >= limit)
        return limit;
    if (readable - run >= VECTOR_BYTES)
        return run;
#endif
    for (; run < limit && byte_kind[(uint8_t)text[run]] == LITERAL; run++)
        out[run] = (uint8_t)text[run];
    return run;
}

/* A blank before a line's end would be lost on the way: it is written anew. */
static uint8_t *end_blank(uint8_t *out, uint32_t *column) {
    uint8_t blank = out[-1];
    out--;
    if (--*column + ESCAPE_COLUMNS > QUOTED_LINE_MAX) {
        out = soft_break(out);
        *column = 0;
    }
    *column += ESCAPE_COLUMNS;
    return escape(out, blank);
}

/* "From " whose parts came one after the other. */
static uint8_t *join_from(uint8_t *out, uint32_t *column, const char *text, size_t length) {
    uint8_t *line = out - *column;
    if (*column == 0 || *column >= FROM_LENGTH || line[0] != 'F' || *column + length < FROM_LENGTH || memcmp(line, from, *column) != 0 ||
        memcmp(text, from + *column, FROM_LENGTH - *column) != 0)
        return out;
    memmove(line + ESCAPE_COLUMNS, line + 1, *column - 1);
    escape(line, 'F');
    *column += ESCAPE_COLUMNS - 1;
    return out + ESCAPE_COLUMNS - 1;
}

void quoted_text(struct quoted *quoted, const char *text, size_t length) {
    struct writer *writer = quoted->writer;
    bool after_cr = quoted->column == QUOTED_AFTER_CR;
    uint32_t column = after_cr ? 0 : quoted->column;
    if (length == 0)
        return;
    size_t at = after_cr && text[0] == '\n';
    for (bool first = true; at < length; first = false) {
        if (!writer_room(writer, CHUNK_ROOM))
            return;
        uint8_t *out = writer->bytes + writer->at;
        size_t end = length - at > CHUNK_BYTES ? at + CHUNK_BYTES : length;
        if (first)
            out = join_from(out, &column, text + at, length - at);
        while (at < end) {
            uint8_t byte = (uint8_t)text[at];
            if (byte_kind[byte] == LINE_END) {
                if (column > 0 && is_blank(out[-1]))
                    out = end_blank(out, &column);
                memcpy(out, "\r\n", 2);
                out += 2;
                column = 0;
                at += byte == '\r' && at + 1 < length && text[at + 1] == '\n' ? 2 : 1;
                continue;
            }
            bool literal = byte_kind[byte] == LITERAL;
            if (column + (literal ? 1 : ESCAPE_COLUMNS) > QUOTED_LINE_MAX) {
                out = soft_break(out);
                column = 0;
            }
            if (!literal || (column == 0 && is_risky_start(text + at, length - at))) {
                out = escape(out, byte);
                column += ESCAPE_COLUMNS;
                at++;
                continue;
            }
            size_t room = QUOTED_LINE_MAX - column;
            size_t run = copy_literals(out, text + at, room < end - at ? room : end - at, length - at);
            out += run;
            column += (uint32_t)run;
            at += run;
        }
        writer->at = (size_t)(out - writer->bytes);
    }
    quoted->column = text[length - 1] == '\r' ? QUOTED_AFTER_CR : column;
}

void quoted_end_line(struct quoted *quoted, bool soft) {
    struct writer *writer = quoted->writer;
    if (quoted->column != QUOTED_AFTER_CR) {
        if (!writer_room(writer, 2 * VECTOR_BYTES))
            return;
        uint8_t *out = writer->bytes + writer->at;
        if (is_blank(out[-1]))
            out = end_blank(out, &quoted->column);
        *out = '=';
        out += soft;
        memcpy(out, "\r\n", 2);
        writer->at = (size_t)(out + 2 - writer->bytes);
    }
    quoted->column = 0;
}

/* -- ahead -- */

/* The bytes up to a line end, or all, without any soft break. */
static void write_head(const char *text, size_t length, bool has_line_end, struct writer *writer) {
    if (length == 0 || !writer_room(writer, length * ESCAPE_COLUMNS))
        return;
    uint8_t *out = writer->bytes + writer->at;
    for (size_t i = 0; i < length; i++) {
        bool ends_blank = has_line_end && i + 1 == length && is_blank((uint8_t)text[i]);
        if (byte_kind[(uint8_t)text[i]] == LITERAL && !ends_blank)
            *out++ = (uint8_t)text[i];
        else
            out = escape(out, (uint8_t)text[i]);
    }
    writer->at = (size_t)(out - writer->bytes);
}

void quoted_ahead_make(struct quoted_ahead *ahead, const char *text, size_t length, bool starts, struct writer *writer) {
    struct quoted quoted;
    *ahead = (struct quoted_ahead){.offset = (uint32_t)writer->at, .first_column = starts ? 0 : FROM_LENGTH, .column_count = starts};
    size_t at = starts ? 0 : encode_line_length(text, length);
    bool has_line_end = starts || at < length;
    if (length == 0 || at > QUOTED_LINE_MAX)
        return;
    if (!starts) {
        ahead->kept = has_line_end ? 0 : UINT16_MAX;
        ahead->begins_line_end = at == 0;
        write_head(text, at, has_line_end, writer);
        size_t columns = writer->at - ahead->offset, columns_max = QUOTED_LINE_MAX - FROM_LENGTH;
        ahead->column_count = (uint16_t)(columns > columns_max ? 0 : columns_max - columns + 1);
        ahead->columns = (uint16_t)columns;
    }
    if (has_line_end) {
        if (!starts) {
            writer_bytes(writer, "\r\n", 2);
            at += text[at] == '\r' && at + 1 < length && text[at + 1] == '\n' ? 2 : 1;
        }
        quoted_begin(&quoted, writer);
        if (at == length && text[length - 1] == '\r')
            quoted.column = QUOTED_AFTER_CR;
        quoted_text(&quoted, text + at, length - at);
        ahead->columns = (uint16_t)quoted.column;
    }
    ahead->length = (uint32_t)(writer->at - ahead->offset);
}

void quoted_ahead_end(struct writer *writer) {
    static const uint8_t room[QUOTED_AHEAD_ROOM];
    writer_bytes(writer, room, sizeof(room));
}
