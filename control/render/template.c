/* template.c: texts with variables into encoded lines. A text of variables is quoted-printable whatever they are, or base64, so that all
 * messages of a content are alike. */
#include "template.h"
#include "encode.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

void template_forget(struct template *template) {
    if (template == NULL)
        return;
    free(template->blocks);
    free(template->stretches);
    free(template->ahead.bytes);
    template->ahead = (struct writer){.limit = UINT32_MAX / 2};
    template->blocks = NULL;
    template->stretches = NULL;
    template->stretch_count = 0;
}

void template_close(struct template *template) {
    mustache_free(&template->program);
    free(template->joined);
    template_forget(template);
}

size_t template_bytes(const struct template *template) {
    const struct mustache *program = &template->program;
    return (program->ops == program->inlined ? 0 : program->capacity * sizeof(*program->ops)) +
           (template->joined == NULL ? 0 : strlen(template->joined)) +
           (template->blocks == NULL ? 0 : program->count * sizeof(*template->blocks)) + template->ahead.capacity +
           template->stretch_count * sizeof(*template->stretches);
}

static bool program_has_variables(const struct mustache *program) {
    for (uint32_t i = 0; i < program->count; i++)
        if (program->ops[i].kind != MUSTACHE_LITERAL)
            return true;
    return false;
}

/* A text without variables is one literal, also where it has comments. */
static int join_literals(struct template *template) {
    struct mustache *program = &template->program;
    if (template->has_variables || program->count < 2)
        return 0;
    size_t length = 0;
    for (uint32_t i = 0; i < program->count; i++)
        length += program->ops[i].length;
    char *joined = malloc(length + 1), *at = joined;
    if (joined == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < program->count; at += program->ops[i++].length)
        memcpy(at, program->ops[i].text, program->ops[i].length);
    *at = '\0';
    mustache_free(program);
    mustache_literal(program, joined);
    template->joined = joined;
    return 0;
}

/* Quoted-printable makes three bytes of one that is not ASCII, base64 four of any three. */
static bool base64_is_smaller(const struct mustache *program) {
    size_t length = 0, high = 0;
    for (uint32_t i = 0; i < program->count; i++)
        if (program->ops[i].kind == MUSTACHE_LITERAL) {
            length += program->ops[i].length;
            high += encode_high_bytes(program->ops[i].text, program->ops[i].length);
        }
    return length >= TEMPLATE_BASE64_MIN && high * 16 > length * 3;
}

static enum template_encoding choose_encoding(const struct template *template) {
    const struct mustache *program = &template->program;
    if (!template->has_variables && (program->count == 0 || encode_is_plain(program->ops[0].text, program->ops[0].length)))
        return TEMPLATE_7BIT;
    return base64_is_smaller(program) ? TEMPLATE_BASE64 : TEMPLATE_QUOTED_PRINTABLE;
}

int template_open(struct template *template, const char *text, bool html, bool merges, char *error, size_t error_bytes) {
    template->joined = NULL;
    template->blocks = NULL;
    template->ahead = (struct writer){.limit = UINT32_MAX / 2};
    template->stretches = NULL;
    template->stretch_count = 0;
    template->html = html;
    int result = 0;
    if (merges && merge_is_template(text))
        result = mustache_compile(&template->program, text, error, error_bytes);
    else
        mustache_literal(&template->program, text);
    if (result != 0)
        return result;
    template->has_variables = program_has_variables(&template->program);
    result = join_literals(template);
    if (result != 0) {
        snprintf(error, error_bytes, "out of memory");
        template_close(template);
        return result;
    }
    template->encoding = choose_encoding(template);
    return 0;
}

const char *template_encoding_name(const struct template *template) {
    static const char *const names[] = {"7bit", "quoted-printable", "base64"};
    return names[template->encoding];
}

/* What of a literal is encoded by itself: its whole lines; and the parts of lines at its ends where they are long. What is left has its
 * line's variables for neighbours. */
static struct template_block cut(const struct template *template, uint32_t index) {
    const struct mustache *program = &template->program;
    const struct mustache_op *op = &program->ops[index];
    struct template_block block = {.begin = 0, .end = op->length};
    if (!template->has_variables)
        return block;
    if (template->encoding == TEMPLATE_BASE64) {
        stretch_cut(program, index, &block.begin, &block.end);
        return block;
    }
    bool last = index + 1 == program->count;
    if (index > 0) {
        const char *newline = memchr(op->text, '\n', op->length);
        block.begin = newline == NULL ? op->length : (uint32_t)(newline + 1 - op->text);
    }
    if (block.begin >= TEMPLATE_SOFT_MIN)
        block.begin = 0;
    if (!last) {
        const char *newline = memrchr(op->text, '\n', op->length);
        block.end = newline == NULL ? 0 : (uint32_t)(newline + 1 - op->text);
    }
    if (op->length - block.end >= TEMPLATE_SOFT_MIN) {
        /* A CR at the end may belong to the LF that a value brings. */
        block.end = op->length - (op->text[op->length - 1] == '\r');
        block.soft_end = op->text[block.end - 1] != '\r';
    }
    return block.end >= block.begin + TEMPLATE_BLOCK_MIN ? block : (struct template_block){.begin = 0};
}

static void encode_block(const struct template *template, const struct mustache_op *op, const struct template_block *block,
                         struct writer *writer) {
    const char *text = op->text + block->begin;
    size_t length = block->end - block->begin;
    switch (template->encoding) {
    case TEMPLATE_7BIT:
        encode_plain(writer, text, length);
        break;
    case TEMPLATE_BASE64:
        encode_base64_text(writer, text, length);
        break;
    case TEMPLATE_QUOTED_PRINTABLE:
        encode_quoted_printable_part(writer, text, length, block->soft_end);
        break;
    }
}

/* The rest of a literal: behind a block a line begins, and with the text the first one. */
static void encode_ahead(struct template *template, uint32_t index) {
    const struct mustache_op *op = &template->program.ops[index];
    struct template_block *block = &template->blocks[index];
    bool whole = block->end == block->begin;
    quoted_ahead_make(&block->before, op->text, whole ? op->length : block->begin, index == 0, &template->ahead);
    if (!whole)
        quoted_ahead_make(&block->behind, op->text + block->end, op->length - block->end, true, &template->ahead);
}

/* Base64 with variables: its blocks begin in the middle of a group of three bytes (stretch.h). */
static bool has_stretches(const struct template *template) {
    return template->encoding == TEMPLATE_BASE64 && template->has_variables;
}

static int record_stretches(struct template *template, struct writer *writer) {
    uint32_t count = 0;
    int result = 0;
    for (uint32_t i = 0; i < template->program.count; i++)
        count += template->blocks[i].end > template->blocks[i].begin;
    template->stretches = calloc(count == 0 ? 1 : count, sizeof(*template->stretches));
    if (template->stretches == NULL)
        return -ENOMEM;
    template->stretch_count = count;
    struct stretch *stretch = template->stretches;
    for (uint32_t i = 0; i < template->program.count && result == 0; i++)
        if (template->blocks[i].end > template->blocks[i].begin) {
            template->blocks[i].stretch = stretch;
            result = stretch_record(stretch++, &template->program, i, writer);
        }
    return result;
}

int template_record(struct template *template, struct writer *writer) {
    uint32_t count = template->program.count;
    template->blocks = calloc(count == 0 ? 1 : count, sizeof(*template->blocks));
    if (template->blocks == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        struct template_block *block = &template->blocks[i];
        if (template->program.ops[i].kind != MUSTACHE_LITERAL)
            continue;
        *block = cut(template, i);
        if (template->encoding == TEMPLATE_QUOTED_PRINTABLE)
            encode_ahead(template, i);
        if (block->end == block->begin || has_stretches(template))
            continue;
        block->range.offset = (uint32_t)writer->at;
        encode_block(template, &template->program.ops[i], block, writer);
        block->range.length = (uint32_t)(writer->at - block->range.offset);
    }
    quoted_ahead_end(&template->ahead);
    if (writer->error == 0 && template->ahead.error == 0)
        return has_stretches(template) ? record_stretches(template, writer) : 0;
    return writer->error != 0 ? writer->error : template->ahead.error;
}

/* -- a message's text -- */

/* A text on its way into a body: blocks, and the text between them. */
struct filling {
    const struct template *template;
    struct body *body;
    struct quoted quoted; /* the text since the last block */
    bool empty;           /* there is none */
    bool open_line;       /* the block before ended within a line */
};

static inline void begin_text(struct filling *filling) {
    if (filling->empty)
        body_own(filling->body);
    filling->empty = false;
}

/* Ends the text since the last block, which goes on in the next one. */
static inline void part_text(struct filling *filling) {
    if (!filling->empty)
        quoted_end(&filling->quoted, true);
    filling->open_line &= filling->empty;
    filling->empty = true;
}

/* Its last line is ended. */
static void end_text(struct filling *filling) {
    if (!filling->empty) {
        quoted_end(&filling->quoted, false);
    } else if (filling->open_line) {
        body_own(filling->body);
        writer_crlf(filling->body->writer);
    }
}

static void add_text(void *context, const char *text, size_t length) {
    struct filling *filling = context;
    if (length == 0)
        return;
    begin_text(filling);
    quoted_text(&filling->quoted, text, length);
}

static inline void add_ahead(struct filling *filling, const struct quoted_ahead *ahead, const char *text, size_t length) {
    if (length == 0)
        return;
    begin_text(filling);
    quoted_ahead_put(&filling->quoted, ahead, filling->template->ahead.bytes, text, length);
}

static void add_literal(struct filling *filling, const struct mustache_op *op) {
    struct template_block block = cut(filling->template, (uint32_t)(op - filling->template->program.ops));
    bool whole = block.end == block.begin;
    add_text(filling, op->text, whole ? op->length : block.begin);
    if (whole)
        return;
    part_text(filling);
    body_own(filling->body);
    encode_block(filling->template, op, &block, filling->body->writer);
    filling->open_line = block.soft_end;
    add_text(filling, op->text + block.end, op->length - block.end);
}

static inline void add_recorded(struct filling *filling, const struct mustache_op *op) {
    const struct template_block *block = &filling->template->blocks[op - filling->template->program.ops];
    bool whole = block->end == block->begin;
    add_ahead(filling, &block->before, op->text, whole ? op->length : block->begin);
    if (whole)
        return;
    part_text(filling);
    body_share(filling->body, &block->range);
    filling->open_line = block->soft_end;
    add_ahead(filling, &block->behind, op->text + block->end, op->length - block->end);
}

static inline void add_value(struct filling *filling, const struct value *value, bool escape) {
    if (value->kind == VALUE_STRING && value->plain && value->length > 0) {
        begin_text(filling);
        quoted_literal(&filling->quoted, value->text, value->length);
    } else {
        value_put(value, escape, add_text, filling);
    }
}

/* All but base64 with variables; what has none is one block. */
static int write_lines(const struct template *template, struct merge_run *run, struct body *body, char *error, size_t error_bytes) {
    struct filling filling = {.template = template, .body = body, .empty = true};
    struct merge_step step;
    int result;
    quoted_begin(&filling.quoted, body->writer);
    while ((result = merge_run_next(run, &step, error, error_bytes)) > 0 && body->writer->error == 0)
        if (step.value != NULL)
            add_value(&filling, step.value, template->html && !step.op->raw);
        else if (template->blocks != NULL)
            add_recorded(&filling, step.op);
        else
            add_literal(&filling, step.op);
    if (result >= 0)
        end_text(&filling);
    return result < 0 ? result : 0;
}

/* Text of a message in base64 on its way into a body: stretches, and the text between them. */
struct grouping {
    const struct template *template;
    struct body *body;
    struct writer text; /* since the last stretch */
    struct stretch_run run;
};

static void end_group(struct grouping *grouping) {
    stretch_own(&grouping->run, (const char *)grouping->text.bytes, grouping->text.at);
    grouping->text.at = 0;
}

static void group_literal(struct grouping *grouping, const struct mustache_op *op) {
    const struct template *template = grouping->template;
    uint32_t index = (uint32_t)(op - template->program.ops);
    struct template_block block = template->blocks == NULL ? cut(template, index) : template->blocks[index];
    writer_bytes(&grouping->text, op->text, block.end == block.begin ? op->length : block.begin);
    if (block.end == block.begin)
        return;
    end_group(grouping);
    if (block.stretch != NULL)
        stretch_share(&grouping->run, block.stretch, grouping->body);
    else
        stretch_encode(&grouping->run, &template->program, index, grouping->body);
    writer_bytes(&grouping->text, op->text + block.end, op->length - block.end);
}

static int write_groups(const struct template *template, struct merge_run *run, size_t max_bytes, struct body *body, char *error,
                        size_t error_bytes) {
    struct grouping grouping = {.template = template, .body = body, .text = {.limit = max_bytes}};
    struct merge_step step;
    int result;
    while ((result = merge_run_next(run, &step, error, error_bytes)) > 0 && grouping.text.error == 0 && body->writer->error == 0)
        if (step.value == NULL)
            group_literal(&grouping, step.op);
        else
            value_write(step.value, template->html && !step.op->raw, &grouping.text);
    if (result >= 0 && (result = grouping.text.error) == 0)
        end_group(&grouping);
    else if (grouping.text.error != 0)
        snprintf(error, error_bytes, result == -E2BIG ? "a text is over %zu bytes with its variables filled in" : "out of memory (%zu)",
                 max_bytes);
    stretch_end(&grouping.run, body);
    free(grouping.text.bytes);
    return result;
}

int template_write(const struct template *template, struct merge *merge, size_t max_bytes, struct body *body, char *error,
                   size_t error_bytes) {
    struct merge_work own_work = {.steps = 0};
    struct merge_run run;
    merge_run_begin(&run, &template->program, merge, merge == NULL ? &own_work : &merge->work);
    if (has_stretches(template))
        return write_groups(template, &run, max_bytes, body, error, error_bytes);
    return write_lines(template, &run, body, error, error_bytes);
}
