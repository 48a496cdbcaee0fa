/* mustache.c: a text becomes literals and tags, in one pass; the tags of a section know each other. */
#include "mustache.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct delimiter {
    char text[MUSTACHE_DELIMITER_BYTES + 1];
    size_t length;
};

struct compiler {
    struct mustache *mustache;
    const char *text;
    struct delimiter open, close;
    uint32_t depth;
    uint32_t sections[MUSTACHE_DEPTH_MAX];
    const char *section_tags[MUSTACHE_DEPTH_MAX]; /* where they stand, for sentences */
    int status;
    char *error;
    size_t error_bytes;
};

/* The tag under the compiler. */
struct tag {
    const char *at, *end; /* its first delimiter; behind its last */
    char sign;            /* # ^ / & { ! =, or 0 */
    const char *name;
    size_t length;
};

/* A sentence with the place, in characters. */
__attribute__((format(printf, 3, 4))) static bool fail(struct compiler *compiler, const char *at, const char *format, ...) {
    uint32_t line = 1, column = 1;
    for (const char *before = compiler->text; before < at; before++) {
        column = *before == '\n' ? 1 : column + ((*before & 0xC0) != 0x80);
        line += *before == '\n';
    }
    int used = snprintf(compiler->error, compiler->error_bytes, "line %u, column %u: ", line, column);
    va_list arguments;
    va_start(arguments, format);
    if (used > 0 && (size_t)used < compiler->error_bytes)
        vsnprintf(compiler->error + used, compiler->error_bytes - (size_t)used, format, arguments);
    va_end(arguments);
    compiler->status = -EINVAL;
    return false;
}

static bool starved(struct compiler *compiler) {
    snprintf(compiler->error, compiler->error_bytes, "out of memory");
    compiler->status = -ENOMEM;
    return false;
}

void mustache_free(struct mustache *mustache) {
    if (mustache->ops != mustache->inlined)
        free(mustache->ops);
    mustache->ops = mustache->inlined;
    mustache->count = 0;
}

static void mustache_begin(struct mustache *mustache) {
    mustache->count = 0;
    mustache->capacity = MUSTACHE_OPS_INLINED;
    mustache->ops = mustache->inlined;
}

static bool add(struct compiler *compiler, struct mustache_op op, const char *at) {
    struct mustache *mustache = compiler->mustache;
    if (mustache->count == MUSTACHE_OPS_MAX)
        return fail(compiler, at, "there are more than %d tags and texts between them", MUSTACHE_OPS_MAX);
    if (mustache->count == mustache->capacity) {
        uint32_t capacity = mustache->capacity * 2;
        struct mustache_op *grown = malloc(capacity * sizeof(*grown));
        if (grown == NULL)
            return starved(compiler);
        memcpy(grown, mustache->ops, mustache->count * sizeof(*grown));
        uint32_t count = mustache->count;
        mustache_free(mustache);
        mustache->count = count;
        mustache->ops = grown;
        mustache->capacity = capacity;
    }
    mustache->ops[mustache->count++] = op;
    return true;
}

static bool add_literal(struct compiler *compiler, const char *from, const char *to) {
    if (to <= from)
        return true;
    return add(compiler, (struct mustache_op){.kind = MUSTACHE_LITERAL, .text = from, .length = (uint32_t)(to - from)}, from);
}

/* strchr is vectorised, strstr is not. */
static const char *find_open(const struct compiler *compiler, const char *at) {
    const struct delimiter *open = &compiler->open;
    while ((at = strchr(at, open->text[0])) != NULL && strncmp(at, open->text, open->length) != 0)
        at++;
    return at;
}

bool mustache_may_be(const char *text) {
    while (text != NULL && (text = strchr(text, '{')) != NULL && text[1] != '{')
        text++;
    return text != NULL;
}

static bool is_blank(char byte) {
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

/* The name of a tag, without blanks around it; it must be of one word. */
static bool read_name(struct tag *tag, const char *from, const char *to) {
    while (from < to && is_blank(*from))
        from++;
    while (to > from && is_blank(to[-1]))
        to--;
    tag->name = from;
    tag->length = (size_t)(to - from);
    for (const char *at = from; at < to; at++)
        if ((unsigned char)*at <= 32 || *at == '{' || *at == '}' || *at == 127)
            return false;
    return tag->length > 0 && tag->length < MUSTACHE_NAME_BYTES;
}

static bool set_delimiter(struct delimiter *delimiter, const char **at, const char *end) {
    const char *from = *at;
    while (from < end && is_blank(*from))
        from++;
    const char *to = from;
    while (to < end && !is_blank(*to))
        to++;
    *at = to;
    delimiter->length = (size_t)(to - from);
    if (delimiter->length == 0 || delimiter->length > MUSTACHE_DELIMITER_BYTES)
        return false;
    for (const char *byte = from; byte < to; byte++) /* errors name delimiters */
        if ((unsigned char)*byte < 32 || *byte == 127 || *byte == '=')
            return false;
    memcpy(delimiter->text, from, delimiter->length);
    delimiter->text[delimiter->length] = '\0';
    return true;
}

/* {{=<% %>=}}: the delimiters of all tags behind it. */
static bool read_delimiters(struct compiler *compiler, struct tag *tag, const char *at) {
    char last[MUSTACHE_DELIMITER_BYTES + 2] = "=";
    memcpy(last + 1, compiler->close.text, compiler->close.length + 1);
    const char *end = strstr(at, last);
    if (end == NULL)
        return fail(compiler, tag->at, "a tag that sets delimiters has no end \"%s\"", last);
    tag->end = end + strlen(last);
    struct delimiter open, close;
    bool good = set_delimiter(&open, &at, end) && set_delimiter(&close, &at, end);
    while (good && at < end && is_blank(*at))
        at++;
    if (!good || at != end)
        return fail(compiler, tag->at, "delimiters are two words of at most %d characters without \"=\" or control characters",
                    MUSTACHE_DELIMITER_BYTES);
    compiler->open = open;
    compiler->close = close;
    return true;
}

/* Reads the tag at tag->at, all but what it means. */
static bool read_tag(struct compiler *compiler, struct tag *tag) {
    const char *at = tag->at + compiler->open.length;
    const char *open = compiler->open.text, *close = compiler->close.text;
    while (is_blank(*at))
        at++; /* {{ & name }} */
    char sign = *at != '\0' && strchr("#^/&{!=", *at) != NULL ? *at : '\0';
    *tag = (struct tag){.at = tag->at, .end = at, .sign = sign};
    if (*at != '\0' && strchr("><$", *at) != NULL)
        return fail(compiler, tag->at, "\"%s%c\" is not supported: there are no %s", open, *at, *at == '>' ? "partials" : "blocks");
    if (tag->sign == '=')
        return read_delimiters(compiler, tag, at + 1);
    const char *end = strstr(at, close);
    if (tag->sign == '!') {
        if (end == NULL)
            return fail(compiler, tag->at, "a comment \"%s!\" has no end \"%s\"", open, close);
        tag->end = end + compiler->close.length;
        return true;
    }
    char triple[MUSTACHE_DELIMITER_BYTES + 2] = "}";
    if (tag->sign == '{') {
        memcpy(triple + 1, compiler->close.text, compiler->close.length + 1);
        close = triple;
        end = strstr(at, close);
    }
    if (end == NULL || !read_name(tag, at + (tag->sign != '\0'), end))
        return fail(compiler, tag->at, "a tag \"%s%.*s\" has no name or no end \"%s\"", open, tag->sign != '\0', at, close);
    tag->end = end + strlen(close);
    return true;
}

/* A tag without output that is alone on its line takes the line with it: *from is where the line begins, *to where the next one does. */
static bool is_alone(const struct compiler *compiler, const struct tag *tag, const char **from, const char **to) {
    const char *begin = tag->at, *end = tag->end;
    while (begin > compiler->text && (begin[-1] == ' ' || begin[-1] == '\t'))
        begin--;
    if (begin > compiler->text && begin[-1] != '\n')
        return false;
    while (*end == ' ' || *end == '\t')
        end++;
    if (*end == '\r' && end[1] == '\n')
        end++;
    if (*end != '\n' && *end != '\0')
        return false;
    *from = begin;
    *to = end + (*end == '\n');
    return true;
}

static struct mustache_op op_of(enum mustache_kind kind, const struct tag *tag) {
    struct mustache_op op = {.kind = (uint8_t)kind,
                             .number = VALUES_UNNUMBERED,
                             .head_number = VALUES_UNNUMBERED,
                             .text = tag->name,
                             .length = (uint32_t)tag->length};
    op.hash = value_hash(tag->name, tag->length);
    const char *dot = memchr(tag->name, '.', tag->length);
    if (dot != NULL && dot > tag->name) {
        op.head_length = (uint32_t)(dot - tag->name);
        op.head_hash = value_hash(tag->name, op.head_length);
    }
    return op;
}

static bool end_section(struct compiler *compiler, const struct tag *tag) {
    if (compiler->depth == 0)
        return fail(compiler, tag->at, "the end of a section \"%.*s\" that did not begin", (int)tag->length, tag->name);
    uint32_t begin = compiler->sections[compiler->depth - 1];
    struct mustache_op *section = &compiler->mustache->ops[begin];
    if (section->length != tag->length || memcmp(section->text, tag->name, tag->length) != 0)
        return fail(compiler, tag->at, "the end of a section \"%.*s\" where that of \"%.*s\" is due", (int)tag->length, tag->name,
                    (int)section->length, section->text);
    section->partner = compiler->mustache->count;
    compiler->depth--;
    struct mustache_op op = op_of(MUSTACHE_END, tag);
    op.partner = begin;
    return add(compiler, op, tag->at);
}

static bool begin_section(struct compiler *compiler, const struct tag *tag) {
    if (compiler->depth == MUSTACHE_DEPTH_MAX)
        return fail(compiler, tag->at, "more than %d sections lie in one another", MUSTACHE_DEPTH_MAX);
    compiler->sections[compiler->depth] = compiler->mustache->count;
    compiler->section_tags[compiler->depth++] = tag->at;
    return add(compiler, op_of(tag->sign == '#' ? MUSTACHE_SECTION : MUSTACHE_INVERTED, tag), tag->at);
}

static bool add_tag(struct compiler *compiler, const struct tag *tag) {
    switch (tag->sign) {
    case '!':
    case '=':
        return true;
    case '#':
    case '^':
        return begin_section(compiler, tag);
    case '/':
        return end_section(compiler, tag);
    default: {
        struct mustache_op op = op_of(MUSTACHE_VARIABLE, tag);
        op.raw = tag->sign != '\0';
        return add(compiler, op, tag->at);
    }
    }
}

static bool compile(struct compiler *compiler) {
    const char *at = compiler->text;
    for (struct tag tag; (tag.at = find_open(compiler, at)) != NULL;) {
        const char *from = tag.at;
        if (!read_tag(compiler, &tag))
            return false;
        const char *to = tag.end;
        if (tag.sign != '\0' && tag.sign != '&' && tag.sign != '{')
            is_alone(compiler, &tag, &from, &to);
        if (!add_literal(compiler, at, from) || !add_tag(compiler, &tag))
            return false;
        at = to;
    }
    if (compiler->depth > 0) {
        const struct mustache_op *section = &compiler->mustache->ops[compiler->sections[compiler->depth - 1]];
        return fail(compiler, compiler->section_tags[compiler->depth - 1], "the section \"%.*s\" has no end", (int)section->length,
                    section->text);
    }
    return add_literal(compiler, at, at + strlen(at));
}

int mustache_compile(struct mustache *mustache, const char *text, char *error, size_t error_bytes) {
    struct compiler compiler = {.mustache = mustache,
                                .text = text,
                                .open = {.text = "{{", .length = 2},
                                .close = {.text = "}}", .length = 2},
                                .error = error,
                                .error_bytes = error_bytes};
    mustache_begin(mustache);
    if (!compile(&compiler))
        mustache_free(mustache);
    return compiler.status;
}

void mustache_literal(struct mustache *mustache, const char *text) {
    mustache_begin(mustache);
    if (text[0] != '\0')
        mustache->ops[mustache->count++] = (struct mustache_op){.kind = MUSTACHE_LITERAL, .text = text, .length = (uint32_t)strlen(text)};
}

void mustache_variable(struct mustache *mustache, const char *name) {
    mustache_begin(mustache);
    mustache->ops[mustache->count++] = op_of(MUSTACHE_VARIABLE, &(struct tag){.name = name, .length = strlen(name)});
}
