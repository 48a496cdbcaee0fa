/* template.h: a text with variables, compiled: lines without a variable are encoded once for all messages, the others message by message.
 */
#ifndef CONTROL_RENDER_TEMPLATE_H
#define CONTROL_RENDER_TEMPLATE_H

#include "merge.h"
#include "writer.h"

enum { TEMPLATE_RUNS_MAX = 128 }; /* lines beyond that are filled in and encoded as one */

struct template;

/* Immutable: threads share it. NULL when a tag is malformed (which is each recipient's error, told by merge_expand) or without memory. The
 * text must outlive it. */
struct template *template_compile(const char *text, bool html);
void template_free(struct template *template);
bool template_has_variables(const struct template *template);
/* Memory it takes. */
size_t template_bytes(const struct template *template);

/* One message's text. */
struct template_filled {
    const struct template *template;
    struct writer lines;            /* those with variables, filled in */
    size_t ends[TEMPLATE_RUNS_MAX]; /* in lines: where each run's end */
    bool plain;                     /* encode_is_plain of the whole */
};

/* Fills it in; `merge` may be NULL where there are no variables. 0, or -EINVAL, -E2BIG, -ENOMEM with a sentence, as merge_expand.
 * template_filled_free in any case. */
int template_fill(const struct template *template, const struct merge *merge, size_t max_bytes, struct template_filled *out, char *error,
                  size_t error_bytes);
void template_filled_free(struct template_filled *filled);
/* Writes the text, encoded: what encode_plain or encode_quoted_printable would write of the whole. */
void template_filled_write(const struct template_filled *filled, struct writer *writer);

#endif
