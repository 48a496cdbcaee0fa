/* template.c: runs of lines, with variables or without. A hard line end sets both encodings back to their beginning, so runs are encoded
 * one by one. */
#include "template.h"
#include "encode.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* A literal (name NULL) or a variable. */
struct template_piece {
    char *name;
    const char *literal;
    size_t length;
    bool escape;
};

struct template_run {
    bool has_variables;
    uint32_t piece_first, piece_count;     /* with variables */
    struct writer plain, quoted_printable; /* without: encoded both ways; plain only where it is safe */
};

struct template {
    uint32_t run_count, piece_count, piece_capacity;
    bool plain; /* what has no variables is */
    bool html, failed;
    struct template_run runs[TEMPLATE_RUNS_MAX];
    struct template_piece *pieces;
};

void template_free(struct template *template) {
    if (template == NULL)
        return;
    for (uint32_t i = 0; i < template->run_count; i++) {
        free(template->runs[i].plain.bytes);
        free(template->runs[i].quoted_printable.bytes);
    }
    for (uint32_t i = 0; i < template->piece_count; i++)
        free(template->pieces[i].name);
    free(template->pieces);
    free(template);
}

/* Gives back the room that the writer grew beyond its need. */
static void writer_trim(struct writer *writer) {
    uint8_t *bytes = writer->at > 0 ? realloc(writer->bytes, writer->at) : NULL;
    if (bytes != NULL) {
        writer->bytes = bytes;
        writer->capacity = writer->at;
    }
}

static void add_fixed_run(struct template *template, const char *text, size_t length) {
    if (length == 0)
        return;
    struct template_run *run = &template->runs[template->run_count++];
    *run = (struct template_run){.plain = {.limit = SIZE_MAX / 2}, .quoted_printable = {.limit = SIZE_MAX / 2}};
    if (encode_is_plain(text, length))
        encode_plain(&run->plain, text, length);
    else
        template->plain = false;
    encode_quoted_printable(&run->quoted_printable, text, length);
    template->failed |= run->plain.error != 0 || run->quoted_printable.error != 0;
    writer_trim(&run->plain);
    writer_trim(&run->quoted_printable);
}

static void add_piece(struct template *template, struct template_piece piece) {
    if (template->piece_count == template->piece_capacity) {
        uint32_t capacity = template->piece_capacity == 0 ? 16 : template->piece_capacity * 2;
        struct template_piece *grown = realloc(template->pieces, capacity * sizeof(*grown));
        if (grown == NULL) {
            template->failed = true;
            free(piece.name);
            return;
        }
        template->pieces = grown;
        template->piece_capacity = capacity;
    }
    template->pieces[template->piece_count++] = piece;
}

static void add_literal(struct template *template, const char *from, const char *to) {
    if (to > from)
        add_piece(template, (struct template_piece){.literal = from, .length = (size_t)(to - from)});
}

/* The lines from `at` on, as long as each has a tag; `tag` is the first one's. Returns where the lines without begin, or NULL. */
static const char *add_run(struct template *template, const char *at, const char *tag) {
    struct template_run *run = &template->runs[template->run_count++];
    *run = (struct template_run){.has_variables = true, .piece_first = template->piece_count};
    bool is_last = template->run_count == TEMPLATE_RUNS_MAX;
    while (tag != NULL) {
        char error[160];
        struct merge_tag read;
        add_literal(template, at, tag);
        at = merge_tag_read(tag + 2, &read, error, sizeof(error));
        if (at == NULL)
            return NULL;
        if (!read.is_comment) {
            char *name = strdup(read.name);
            template->failed |= name == NULL;
            add_piece(template, (struct template_piece){.name = name, .escape = template->html && !read.is_raw});
        }
        tag = merge_next_tag(at);
        const char *newline = strchr(at, '\n');
        if (newline != NULL && !is_last && (tag == NULL || newline < tag)) {
            add_literal(template, at, newline + 1);
            at = newline + 1;
            const char *next = tag == NULL ? NULL : strchr(at, '\n');
            if (tag == NULL || (next != NULL && next < tag))
                break;
        } else if (tag == NULL) {
            add_literal(template, at, at + strlen(at));
            at += strlen(at);
        }
    }
    run->piece_count = template->piece_count - run->piece_first;
    return at;
}

struct template *template_compile(const char *text, bool html) {
    struct template *template = calloc(1, sizeof(*template));
    if (template == NULL)
        return NULL;
    template->html = html;
    template->plain = true;
    while (*text != '\0') {
        const char *tag = merge_next_tag(text), *line = tag;
        if (tag == NULL) {
            add_fixed_run(template, text, strlen(text));
            break;
        }
        while (line > text && line[-1] != '\n')
            line--;
        /* The last place is for all that follows. */
        if (template->run_count + 2 > TEMPLATE_RUNS_MAX)
            line = text;
        add_fixed_run(template, text, (size_t)(line - text));
        text = add_run(template, line, tag);
        if (text == NULL) {
            template_free(template);
            return NULL;
        }
    }
    if (template->failed) {
        template_free(template);
        return NULL;
    }
    return template;
}

bool template_has_variables(const struct template *template) {
    for (uint32_t i = 0; i < template->run_count; i++)
        if (template->runs[i].has_variables)
            return true;
    return false;
}

size_t template_bytes(const struct template *template) {
    size_t bytes = sizeof(*template) + template->piece_capacity * (sizeof(*template->pieces) + 16);
    for (uint32_t i = 0; i < template->run_count; i++)
        bytes += template->runs[i].plain.capacity + template->runs[i].quoted_printable.capacity;
    return bytes;
}

static int fill_run(const struct template *template, const struct template_run *run, const struct merge *merge, struct writer *lines,
                    char *error, size_t error_bytes) {
    int result = 0;
    for (uint32_t i = 0; i < run->piece_count && result == 0; i++) {
        const struct template_piece *piece = &template->pieces[run->piece_first + i];
        if (piece->name == NULL)
            writer_bytes(lines, piece->literal, piece->length);
        else
            result = merge_value(merge, piece->name, piece->escape, lines, error, error_bytes);
    }
    return result;
}

int template_fill(const struct template *template, const struct merge *merge, size_t max_bytes, struct template_filled *out, char *error,
                  size_t error_bytes) {
    out->template = template;
    out->lines = (struct writer){.limit = max_bytes};
    out->plain = template->plain;
    int result = 0;
    for (uint32_t i = 0; i < template->run_count && result == 0; i++) {
        size_t begin = out->lines.at;
        if (template->runs[i].has_variables) {
            result = fill_run(template, &template->runs[i], merge, &out->lines, error, error_bytes);
            if (out->plain && out->lines.at > begin)
                out->plain = encode_is_plain((const char *)out->lines.bytes + begin, out->lines.at - begin);
        }
        out->ends[i] = out->lines.at;
    }
    if (result == 0 && out->lines.error != 0) {
        result = out->lines.error;
        snprintf(error, error_bytes, result == -E2BIG ? "a text is over %zu bytes with its variables filled in" : "out of memory (%zu)",
                 max_bytes);
    }
    return result;
}

void template_filled_free(struct template_filled *filled) {
    free(filled->lines.bytes);
}

void template_filled_write(const struct template_filled *filled, struct writer *writer) {
    const struct template *template = filled->template;
    size_t begin = 0;
    for (uint32_t i = 0; i < template->run_count; begin = filled->ends[i++]) {
        const struct template_run *run = &template->runs[i];
        if (!run->has_variables) {
            const struct writer *encoded = filled->plain ? &run->plain : &run->quoted_printable;
            writer_bytes(writer, encoded->bytes, encoded->at);
        } else if (filled->ends[i] > begin) {
            const char *lines = (const char *)filled->lines.bytes + begin;
            if (filled->plain)
                encode_plain(writer, lines, filled->ends[i] - begin);
            else
                encode_quoted_printable(writer, lines, filled->ends[i] - begin);
        }
    }
    writer->line = writer->at;
}
