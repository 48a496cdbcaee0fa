/* rules.h: the operators' rules as a table that answers by exact keys. Pure but for memory; private to hold, and used by the command line
 * to write a rule. */
#ifndef CONTROL_HOLD_RULES_H
#define CONTROL_HOLD_RULES_H

#include "control/hold/hold.h"
#include <stddef.h>

struct rules;

/* Empty, or NULL without memory. */
struct rules *rules_create(void);
void rules_destroy(struct rules *rules);
/* Adds the rule that Redis has under `id` as JSON. 0; -EINVAL: it makes no sense; -ENOSPC: more than HOLDS_MAX; -ENOMEM. */
int rules_add(struct rules *rules, const char *id, const char *json, size_t length);
uint32_t rules_count(const struct rules *rules);
/* The rule that a delivery matches, or NULL: a bounce before a hold (what ends need not wait), else the older one. */
const struct hold_rule *rules_match(const struct rules *rules, const struct delivery *delivery, uint64_t now_ms);
const struct hold_rule *rules_named(const struct rules *rules, const char *id);
void rules_each(const struct rules *rules, void (*each)(void *context, const struct hold_rule *rule), void *context);
/* The JSON of a rule (malloc'd, the caller's), NULL without memory. */
char *rule_write(const struct hold_rule *rule);

#endif
