/* rules.h: text rules: what receivers write into their replies, and what it means. Read from a data file; each carries a line that it must
 * recognise. */
#ifndef CONTROL_CLASSIFY_RULES_H
#define CONTROL_CLASSIFY_RULES_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "control/outcome.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    RULES_MAX = 1000,
    RULE_TESTS_MAX = 8,
    RULE_PROVIDERS_MAX = 8,
    RULE_PATTERN_MAX = 1000,  /* bytes */
    RULE_MATCH_LIMIT = 20000, /* steps of PCRE2 for one rule and one reply */
    RULE_HEAP_LIMIT_KIB = 64,
};

struct rule {
    char *name;
    uint32_t line; /* in the file, from 1 */
    uint32_t provider_count;
    char *providers[RULE_PROVIDERS_MAX];          /* none: for all */
    uint16_t code_first, code_last;               /* 0: any */
    uint16_t enhanced_first[3], enhanced_last[3]; /* subject and detail within; [0] 0: any; x counts as both 4 and 5 */
    bool has_enhanced;
    char *text;          /* the pattern's, or NULL */
    pcre2_code *pattern; /* NULL: code and enhanced code say enough */
    enum reply_class class;
    uint32_t test_count;
    char *tests[RULE_TESTS_MAX];
    uint32_t test_lines[RULE_TESTS_MAX];
};

struct rules {
    char *path;
    uint32_t count;
    struct rule *rules; /* those of a provider first, then as the file has them */
};

/* Reads the file and compiles the patterns. NULL with a sentence in error. */
struct rules *rules_read(const char *path, char *error, size_t error_bytes);
void rules_free(struct rules *rules);

/* The longest that a pattern takes for the texts that make it look at most (its own tests over and over, and texts of one kind of
 * character), in us. */
double rules_worst_us(const struct rule *rule);

/* The first rule that fits, or NULL. `agrees`: the enhanced code's first digit is the code's. */
const struct rule *rules_match(const struct rules *rules, const char *provider, const struct outcome *outcome, bool agrees);

#endif
