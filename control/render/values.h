/* values.h: the JSON object that brings a recipient's variables, read in one pass into an array of nodes that point into its text. */
#ifndef CONTROL_RENDER_VALUES_H
#define CONTROL_RENDER_VALUES_H

#include "writer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    VALUES_DEPTH_MAX = 32, /* of lists and objects in one another */
    VALUES_INLINED = 48,   /* nodes that need no memory of their own */
    VALUES_NAMES_MAX = 64, /* names that have a number; others are looked for */
    VALUES_NAMES_SLOTS = 2 * VALUES_NAMES_MAX,
    VALUES_NAME_SHORT = 16, /* bytes of a name that are compared at once */
    VALUES_UNNUMBERED = VALUES_NAMES_MAX,
};

enum value_kind { VALUE_NULL, VALUE_FALSE, VALUE_TRUE, VALUE_INTEGER, VALUE_REAL, VALUE_STRING, VALUE_LIST, VALUE_OBJECT };

/* A list or an object is followed by what is in it. */
struct value {
    const char *key;  /* in an object: between its quotes */
    const char *text; /* of a string: between its quotes; of a number: itself */
    uint32_t key_length, key_hash;
    uint32_t length;
    uint32_t size; /* nodes of this one with all in it: the next sibling lies so far behind it */
    uint8_t kind;
    bool key_escaped, escaped; /* backslashes are in it */
    bool plain;                /* a string in which nothing is to be escaped in HTML or in quoted-printable; false: unknown */
    uint32_t place;            /* among the members of an object that was read with names */
};

/* Names that will be asked for, each with a number: objects that are read with them have their values at hand. */
struct value_names {
    uint32_t count;
    struct value_name {
        const char *text;
        uint32_t length, hash;
        uint32_t short_mask; /* a bit for each of its bytes; of a longer one than VALUES_NAME_SHORT all */
        char first[VALUES_NAME_SHORT];
    } names[VALUES_NAMES_MAX];
    uint8_t slots[VALUES_NAMES_SLOTS]; /* numbers, by hash */
};

/* It points into itself: it stays where it was read. */
struct values {
    uint32_t count, capacity;
    struct value *nodes;
    const struct value_names *names;      /* or NULL */
    uint32_t members;                     /* of the object, where it was read with names */
    uint32_t found[VALUES_NAMES_MAX + 1]; /* the node of each name; 0: there is none, and none has no number */
    struct value inlined[VALUES_INLINED];
};

void value_names_init(struct value_names *names);
/* The number of a name, which must outlive them; VALUES_UNNUMBERED when there are too many. */
uint8_t value_names_add(struct value_names *names, const char *text, size_t length, uint32_t hash);

/* Reads a JSON object (RFC 8259; without U+0000, UTF-8 checked), which must outlive the values. 0; -EINVAL or -ENOMEM with a sentence that
 * begins with `what`. values_free after 0 only. Of two members of a name the first counts. */
int values_read(struct values *values, const char *json, const char *what, char *error, size_t error_bytes);
/* The same with names (or NULL), which must outlive them too. */
int values_read_named(struct values *values, const struct value_names *names, const char *json, const char *what, char *error,
                      size_t error_bytes);
void values_free(struct values *values);

/* Of a name's ends and length: equal ones are compared. */
uint32_t value_hash(const char *name, size_t length);
/* The member of this name, or NULL when there is none, or `object` is none or NULL. *passed grows by the members that were looked at. */
const struct value *value_member(const struct value *object, const char *name, size_t length, uint32_t hash, uint64_t *passed);
/* The same of the object itself, read with names, and the name with that number (or VALUES_UNNUMBERED: NULL). *passed grows as if it had
 * been looked for: what a message may cost does not depend on how its names are found. */
static inline const struct value *values_numbered(const struct values *values, uint8_t number, uint64_t *passed) {
    uint32_t node = values->found[number];
    const struct value *value = &values->nodes[node];
    *passed += node == 0 ? values->members : value->place;
    return node == 0 ? NULL : value;
}
/* What is false to a section: null, false, an empty text, an empty list. NULL too. */
bool value_is_false(const struct value *value);
/* Hands the text of a value out, run by run: of a text, number, true or false (null is nothing); with `escape` what HTML's markup is made
 * of as entities. 0, or -EINVAL for a list or an object. */
int value_put(const struct value *value, bool escape, void (*put)(void *context, const char *text, size_t length), void *context);
/* The same into a writer. */
int value_write(const struct value *value, bool escape, struct writer *writer);

#endif
