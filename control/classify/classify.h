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

/* "550 5.1.1 text" (the codes may be followed by nothing) as an outcome at this stage. False when it is no reply of 4xx or 5xx. */
bool classify_parse(const char *line, enum smtp_stage stage, struct outcome *outcome);

/* The class that the codes alone stand for, whatever a rule says; `by_enhanced`: the enhanced code decided. */
enum reply_class classify_codes_only(const struct outcome *outcome, bool *by_enhanced);

const char *classifier_path(const struct classifier *classifier);
/* The line in the file where a rule begins; 0: there is none of this name. */
uint32_t classifier_rule_line(const struct classifier *classifier, const char *name);
uint32_t classifier_rule_count(const struct classifier *classifier);
/* Looks for what loading does not refuse: rules that say the same, patterns that are slow, providers that no list has (provider_count 0:
 * not looked at). `each` gets a sentence. Returns how many. */
uint32_t classifier_lint(const struct classifier *classifier, const char *const *providers, uint32_t provider_count,
                         void (*each)(void *context, uint32_t line, const char *sentence), void *context);

#endif
