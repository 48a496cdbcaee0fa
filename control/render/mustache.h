/* mustache.h: the compiler of templates (mustache(5)): variables, sections, inverted sections, comments, other delimiters. Partials, blocks
 * and lambdas are refused. */
#ifndef CONTROL_RENDER_MUSTACHE_H
#define CONTROL_RENDER_MUSTACHE_H

#include "values.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MUSTACHE_NAME_BYTES = 128,
    MUSTACHE_DEPTH_MAX = 16,         /* of sections in one another */
    MUSTACHE_STEPS_MAX = 1000000,    /* literals and tags that one message passes in all its texts, item by item of its lists */
    MUSTACHE_MEMBERS_MAX = 16000000, /* of objects that its names are compared with: a list in a list of names is their product */
    MUSTACHE_OPS_MAX = 65536,        /* literals and tags of a text */
    MUSTACHE_DELIMITER_BYTES = 8,
    MUSTACHE_OPS_INLINED = 32,
};

enum mustache_kind { MUSTACHE_LITERAL, MUSTACHE_VARIABLE, MUSTACHE_SECTION, MUSTACHE_INVERTED, MUSTACHE_END };

struct mustache_op {
    uint8_t kind;
    bool raw;                    /* a variable: never escaped */
    uint8_t number, head_number; /* of the name and of its head (merge_number), or VALUES_UNNUMBERED */
    uint32_t partner;            /* of a section its end, of an end its section */
    const char *text;            /* a literal's, or a name: in the template's text */
    uint32_t length;
    uint32_t hash;                   /* of a name (value_hash), */
    uint32_t head_length, head_hash; /* and of what is before its first dot; length 0: no dot */
};

/* It points into itself: it stays where it was compiled. */
struct mustache {
    uint32_t count, capacity;
    struct mustache_op *ops;
    struct mustache_op inlined[MUSTACHE_OPS_INLINED];
};

/* Compiles a text, which must outlive it. 0; -EINVAL or -ENOMEM with a sentence (line and column of the fault). mustache_free after 0 only.
 */
int mustache_compile(struct mustache *mustache, const char *text, char *error, size_t error_bytes);
/* The text as one literal, whatever is in it. */
void mustache_literal(struct mustache *mustache, const char *text);
/* One variable; the name must outlive it. */
void mustache_variable(struct mustache *mustache, const char *name);
void mustache_free(struct mustache *mustache);

/* Whether a text may hold tags at all. */
bool mustache_may_be(const char *text);

#endif
