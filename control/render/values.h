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
};

/* It points into itself: it stays where it was read. */
struct values {
    uint32_t count, capacity;
    struct value *nodes;
    struct value inlined[VALUES_INLINED];
};

/* Reads a JSON object (RFC 8259; without U+0000, UTF-8 checked), which must outlive the values. 0; -EINVAL or -ENOMEM with a sentence that
 * begins with `what`. values_free after 0 only. Of two members of a name the first counts. */
int values_read(struct values *values, const char *json, const char *what, char *error, size_t error_bytes);
void values_free(struct values *values);

/* Of a name's ends and length: equal ones are compared. */
uint32_t value_hash(const char *name, size_t length);
/* The member of this name, or NULL when there is none, or `object` is none or NULL. *passed grows by the members that were looked at. */
const struct value *value_member(const struct value *object, const char *name, size_t length, uint32_t hash, uint64_t *passed);
/* What is false to a section: null, false, an empty text, an empty list. NULL too. */
bool value_is_false(const struct value *value);
/* Writes a text, number, true or false (null is nothing); with `escape` what HTML's markup is made of becomes entities. 0, or -EINVAL for
 * a list or an object. */
int value_write(const struct value *value, bool escape, struct writer *writer);

#endif
