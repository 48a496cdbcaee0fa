/* holds_fuzz.c: libFuzzer on the operators' rules as Redis has them: whoever can write there can write anything. A line is the ID, the rest
 * the JSON. What is taken can be asked, and is read again as it was written. */
#include "control/hold/rules.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool condition) {
    if (!condition) {
        abort();
    }
}

struct seen {
    struct hold_rules *again;
    uint32_t count;
};

static void each(void *context, const struct hold_rule *rule) {
    struct seen *seen = context;
    char *text = hold_rule_write(rule);
    must(text && hold_rules_add(seen->again, rule->id, text, strlen(text)) == 0);
    free(text);
    seen->count++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct job_recipient recipient = {.mailbox = {.email = "a@x.test", .domain = "x.test"}};
    static struct job job = {
        .queue = "march", .tenant = "t", .campaign = "c", .from = {.email = "s@b.test"}, .recipient_total = 1, .recipients = &recipient};
    static const struct delivery delivery = {.job = &job};
    char id[64] = "";
    const uint8_t *newline = size ? memchr(data, '\n', size) : NULL;
    size_t length = newline ? (size_t)(newline - data) : 0;
    if (!newline || length >= sizeof id) {
        return 0;
    }
    memcpy(id, data, length);
    struct hold_rules *rules = hold_rules_create(), *again = hold_rules_create();
    must(rules && again);
    if (hold_rules_add(rules, id, (const char *)newline + 1, size - length - 1) == 0) {
        struct seen seen = {.again = again};
        hold_rules_each(rules, each, &seen);
        must(seen.count == 1 && hold_rules_count(rules) == 1 && hold_rules_named(rules, id) != NULL);
        must((hold_rules_match(rules, &delivery, 1) == NULL) == (hold_rules_match(again, &delivery, 1) == NULL));
    } else {
        must(hold_rules_count(rules) == 0);
    }
    hold_rules_destroy(rules);
    hold_rules_destroy(again);
    return 0;
}
