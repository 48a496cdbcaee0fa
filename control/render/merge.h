/* merge.h: variables of a recipient in texts: {{name}} (escaped in HTML), {{{name}}} and {{&name}} (as they are), {{! comment}}. */
#ifndef CONTROL_RENDER_MERGE_H
#define CONTROL_RENDER_MERGE_H

#include <stdbool.h>
#include <stddef.h>

struct merge;

/* Reads two JSON objects (either may be NULL); names are looked up in `own` first. NULL with a sentence in error. */
struct merge *merge_create(const char *global, const char *own, char *error, size_t error_bytes);
void merge_free(struct merge *merge);

/* Whether a text may hold variables at all. */
bool merge_is_template(const char *text);

/* Writes the text with its variables filled in to *out (malloc'd, the caller's). A name with dots goes into objects. -EINVAL for a variable
 * that is missing or no plain value, or a malformed tag; -E2BIG over max_bytes; -ENOMEM; each with a sentence in error. */
int merge_expand(const struct merge *merge, const char *text, bool html, size_t max_bytes, char **out, char *error, size_t error_bytes);

#endif
