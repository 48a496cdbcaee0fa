/* classify.h: reply -> class (SMTP.md section 6): the code decides, the enhanced code refines if its first digit agrees, text rules refine
 * further. */
#ifndef CONTROL_CLASSIFY_CLASSIFY_H
#define CONTROL_CLASSIFY_CLASSIFY_H

#include "control/outcome.h"
#include <stddef.h>

struct classifier; /* immutable; PCRE2 rules compiled from a data file */
/* Loads the rules and runs each one's test line. NULL with a sentence in error (file, line, remedy). */
struct classifier *classifier_load(const char *rules_path, char *error, size_t error_bytes);
void classifier_free(struct classifier *classifier);
/* Where the rules are when the configuration does not say: $BYPOST_RULES, else the source tree's when it is there, else the installed file.
 */
const char *classifier_default_path(void);
/* `classifier` may be NULL: codes alone decide. `provider` may be NULL. Bounded time: match limits are set on every rule. `on_block_defer`:
 * replies that speak of the sender defer even as 5xx. */
void classify(const struct classifier *classifier, const char *provider, const struct outcome *outcome, bool on_block_defer,
              struct classification *classification);

#endif
