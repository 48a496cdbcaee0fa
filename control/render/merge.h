/* merge.h: variables of a recipient in texts: {{name}} (escaped in HTML), {{{name}}} and {{&name}} (as they are), {{! comment}}. */
#ifndef CONTROL_RENDER_MERGE_H
#define CONTROL_RENDER_MERGE_H

#include "writer.h"

#include <stdbool.h>
#include <stddef.h>

enum { MERGE_NAME_BYTES = 128 };

struct merge;

/* Reads two JSON objects (either may be NULL); names are looked up in `own` first. NULL with a sentence in error. */
struct merge *merge_create(const char *global, const char *own, char *error, size_t error_bytes);
/* The same with the first object of another, which stays its owner's and is only read: many threads may share it. */
struct merge *merge_create_over(const struct merge *global, const char *own, char *error, size_t error_bytes);
void merge_free(struct merge *merge);

/* What render itself knows of a message: {{bypost.NAME}}, which merge data never covers. `look_up` gives the text of NAME, which must live
 * until merge_free, or NULL: there is none of this name. */
#define MERGE_BUILT_IN "bypost."
void merge_built_in(struct merge *merge, const char *(*look_up)(void *context, const char *name), void *context);

/* Whether a text may hold variables at all. */
bool merge_is_template(const char *text);

/* One tag of a text. */
struct merge_tag {
    bool is_comment, is_raw; /* raw: not escaped in HTML either */
    char name[MERGE_NAME_BYTES];
};
/* The next "{{", or NULL. */
const char *merge_next_tag(const char *text);
/* Reads the tag whose "{{" ends before `at`. Returns what follows it, or NULL with a sentence when it is malformed. */
const char *merge_tag_read(const char *at, struct merge_tag *tag, char *error, size_t error_bytes);
/* Writes the variable's value. 0, or -EINVAL with a sentence when it is missing or no plain value. */
int merge_value(const struct merge *merge, const char *name, bool escape, struct writer *writer, char *error, size_t error_bytes);

/* Writes the text with its variables filled in to *out (malloc'd, the caller's). A name with dots goes into objects. -EINVAL for a variable
 * that is missing or no plain value, or a malformed tag; -E2BIG over max_bytes; -ENOMEM; each with a sentence in error. */
int merge_expand(const struct merge *merge, const char *text, bool html, size_t max_bytes, char **out, char *error, size_t error_bytes);

#endif
