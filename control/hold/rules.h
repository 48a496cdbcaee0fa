/* rules.h: the operators' rules as a table that answers by exact keys. Pure but for memory; private to hold, and used by the command line
 * to write a rule. */
#ifndef CONTROL_HOLD_RULES_H
#define CONTROL_HOLD_RULES_H

#include "control/hold/hold.h"
#include <stddef.h>

struct hold_rules;

/* Empty, or NULL without memory. */
struct hold_rules *hold_rules_create(void);
void hold_rules_destroy(struct hold_rules *rules);
/* Adds the rule that Redis has under `id` as JSON. 0; -EINVAL: it makes no sense; -ENOSPC: more than HOLDS_MAX; -ENOMEM. */
int hold_rules_add(struct hold_rules *rules, const char *id, const char *json, size_t length);
uint32_t hold_rules_count(const struct hold_rules *rules);
/* The rule that a delivery matches, or NULL: a bounce before a hold (what ends need not wait), else the older one. */
const struct hold_rule *hold_rules_match(const struct hold_rules *rules, const struct delivery *delivery, uint64_t now_ms);
const struct hold_rule *hold_rules_named(const struct hold_rules *rules, const char *id);
void hold_rules_each(const struct hold_rules *rules, void (*each)(void *context, const struct hold_rule *rule), void *context);
/* The JSON of a rule (malloc'd, the caller's), NULL without memory. */
char *hold_rule_write(const struct hold_rule *rule);

#endif
