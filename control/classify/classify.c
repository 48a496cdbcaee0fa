/* classify.c: an outcome becomes a class and a verdict. */
#include "classify.h"
#include "rules.h"
#include "table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { LINT_SLOW_US = 500 }; /* a reply is looked at by all rules: a thousand of them must not take a second */

struct classifier {
    struct rules *rules; /* NULL: codes alone */
};

const char *reply_class_text(enum reply_class class) {
    return class_row(class)->text;
}

/* The dialogue ended before any verdict on the message: what stands in its way is the host, the session or the sender, and passes. */
static bool is_before_transaction(enum smtp_stage stage) {
    return stage < STAGE_MAIL;
}

static enum verdict verdict_of(const struct class_row *row, uint16_t code, bool on_block_defer) {
    if (code / 100 != 5)
        return VERDICT_DEFERRED;
    switch (row->ending) {
    case ENDING_NEVER:
        return VERDICT_DEFERRED;
    case ENDING_SENDER:
        return on_block_defer ? VERDICT_DEFERRED : VERDICT_BOUNCED;
    default:
        return VERDICT_BOUNCED;
    }
}

static enum reply_class class_of_stage(enum smtp_stage stage, enum reply_class by_codes) {
    switch (stage) {
    case STAGE_CONNECT:
        return CLASS_NO_ANSWER;
    case STAGE_AUTH: /* a wrong password of ours must not bounce a queue */
        return CLASS_AUTH_FAILED;
    case STAGE_BANNER:
    case STAGE_EHLO:
    case STAGE_STARTTLS:
        return by_codes == CLASS_UNCATEGORIZED || by_codes == CLASS_PROTOCOL_ERROR ? CLASS_CONNECTION_FAILED : by_codes;
    default:
        return by_codes;
    }
}

/* A reply, or what this side says in the words of one. */
static void classify_codes(const struct classifier *classifier, const char *provider, const struct outcome *outcome, bool on_block_defer,
                           struct classification *out) {
    static const uint16_t none[3] = {0, 0, 0};
    bool agrees = outcome->enhanced[0] != 0 && outcome->enhanced[0] == outcome->code / 100;
    bool is_reply = outcome->kind != OUTCOME_LOCAL;
    out->class = class_of_codes(outcome->code, agrees ? outcome->enhanced : none, outcome->stage);
    if (is_reply && is_before_transaction(outcome->stage))
        out->class = class_of_stage(outcome->stage, out->class);
    const struct rule *rule = NULL;
    if (is_reply && outcome->stage != STAGE_AUTH && classifier != NULL && classifier->rules != NULL)
        rule = rules_match(classifier->rules, provider, outcome, agrees);
    if (rule != NULL) {
        out->class = rule->class;
        out->rule = rule->name;
    }
    const struct class_row *row = class_row(out->class);
    out->verdict = verdict_of(row, outcome->code, on_block_defer);
    if (is_reply && (is_before_transaction(outcome->stage) || outcome->kind == OUTCOME_LOST))
        out->verdict = VERDICT_DEFERRED;
    if (is_reply && outcome->stage == STAGE_DATA && out->class == CLASS_PROTOCOL_ERROR)
        out->verdict = VERDICT_DEFERRED; /* the server lost the thread after it took the recipients: not the message's fault */
    if (agrees && outcome->stage >= STAGE_MAIL && outcome->enhanced[0] == 5 && outcome->enhanced[1] == 7 && outcome->enhanced[2] == 30)
        out->verdict = VERDICT_BOUNCED; /* RFC 8689: whoever asked for REQUIRETLS is told that it is not to be had */
    out->suppress =
        out->verdict == VERDICT_BOUNCED &&
        (row->suppress || (out->class == CLASS_BAD_DOMAIN && agrees && outcome->enhanced[1] == 1 && outcome->enhanced[2] == 10));
}

void classify(const struct classifier *classifier, const char *provider, const struct outcome *outcome, bool on_block_defer,
              struct classification *out) {
    *out = (struct classification){.class = CLASS_CONNECTION_FAILED, .verdict = VERDICT_DEFERRED};
    unsigned kind_of_code = outcome->code / 100;
    bool is_final = outcome->stage == STAGE_FINAL || outcome->stage == STAGE_BODY;
    switch (outcome->kind) {
    case OUTCOME_RETURNED:
        out->class = CLASS_NONE;
        out->verdict = VERDICT_RETURNED;
        break;
    case OUTCOME_LOST:
        if (kind_of_code == 4 || kind_of_code == 5)
            classify_codes(classifier, provider, outcome, on_block_defer, out);
        else if (outcome->stage == STAGE_CONNECT || outcome->stage == STAGE_BANNER)
            out->class = CLASS_NO_ANSWER;
        break;
    case OUTCOME_REPLIED:
        if (kind_of_code == 2 && is_final) {
            out->class = CLASS_NONE;
            out->verdict = VERDICT_DELIVERED;
            break;
        }
        /* fall through */
    case OUTCOME_LOCAL:
        if (kind_of_code == 4 || kind_of_code == 5)
            classify_codes(classifier, provider, outcome, on_block_defer, out);
        else
            out->class = CLASS_PROTOCOL_ERROR; /* a reply of an unexpected kind: temporary (RFC 5321 4.3.2) */
        break;
    default: /* OUTCOME_UNCERTAIN: whether it is resent is settle's to say */
        break;
    }
    const struct class_row *row = class_row(out->class);
    out->scope = row->scope;
    out->retry_after_s = out->verdict == VERDICT_DEFERRED ? row->retry_after_s : 0;
    if (out->class == CLASS_AUTH_FAILED && outcome->stage == STAGE_AUTH)
        out->scope = SCOPE_PATH;
}

bool classify_parse(const char *line, enum smtp_stage stage, struct outcome *outcome) {
    unsigned code, a, b, c;
    int used = 0;
    *outcome = (struct outcome){.kind = OUTCOME_REPLIED, .stage = stage};
    if (sscanf(line, "%3u%n", &code, &used) != 1 || used != 3 || code < 400 || code > 599 ||
        (line[3] != ' ' && line[3] != '-' && line[3] != '\0'))
        return false;
    outcome->code = (uint16_t)code;
    line += line[3] == '\0' ? 3 : 4;
    if (sscanf(line, "%1u.%3u.%3u%n", &a, &b, &c, &used) == 3 && (a == 4 || a == 5) && (line[used] == ' ' || line[used] == '\0')) {
        outcome->enhanced[0] = (uint16_t)a;
        outcome->enhanced[1] = (uint16_t)b;
        outcome->enhanced[2] = (uint16_t)c;
        line += used;
    }
    snprintf(outcome->text, sizeof(outcome->text), "%.*s", (int)sizeof(outcome->text) - 1, line);
    return true;
}

/* Runs the test lines of a rule: it, and no rule before it, must recognise them. */
static bool rule_is_right(const struct classifier *classifier, const struct rule *rule, char *error, size_t error_bytes) {
    for (uint32_t i = 0; i < rule->test_count; i++) {
        struct outcome outcome;
        struct classification got;
        if (!classify_parse(rule->tests[i], STAGE_FINAL, &outcome)) {
            snprintf(error, error_bytes, "%s:%u: the test of rule \"%s\" is no reply like \"550 5.1.1 text\"", classifier->rules->path,
                     rule->test_lines[i], rule->name);
            return false;
        }
        classify(classifier, rule->provider_count > 0 ? rule->providers[0] : NULL, &outcome, true, &got);
        if (got.rule == NULL || strcmp(got.rule, rule->name) != 0) {
            snprintf(error, error_bytes,
                     "%s:%u: rule \"%s\" does not recognise its test: %s%s%s. Correct the pattern or the test, or move it up.",
                     classifier->rules->path, rule->test_lines[i], rule->name, got.rule == NULL ? "no rule does" : "rule \"",
                     got.rule == NULL ? "" : got.rule, got.rule == NULL ? "" : "\" comes first");
            return false;
        }
    }
    return true;
}

struct classifier *classifier_load(const char *rules_path, char *error, size_t error_bytes) {
    struct classifier *classifier = calloc(1, sizeof(*classifier));
    if (classifier == NULL) {
        snprintf(error, error_bytes, "out of memory");
        return NULL;
    }
    classifier->rules = rules_read(rules_path, error, error_bytes);
    bool good = classifier->rules != NULL;
    for (uint32_t i = 0; good && i < classifier->rules->count; i++)
        good = rule_is_right(classifier, &classifier->rules->rules[i], error, error_bytes);
    if (!good) {
        classifier_free(classifier);
        return NULL;
    }
    return classifier;
}

void classifier_free(struct classifier *classifier) {
    if (classifier != NULL)
        rules_free(classifier->rules);
    free(classifier);
}

const char *classifier_default_path(void) {
    const char *path = getenv("BYPOST_RULES");
    if (path != NULL && path[0] != '\0')
        return path;
    return access(BYPOST_RULES_SOURCE, R_OK) == 0 ? BYPOST_RULES_SOURCE : BYPOST_RULES_INSTALLED;
}

enum reply_class classify_codes_only(const struct outcome *outcome, bool *by_enhanced) {
    static const uint16_t none[3] = {0, 0, 0};
    bool agrees = outcome->enhanced[0] != 0 && outcome->enhanced[0] == outcome->code / 100;
    enum reply_class by_code = class_of_codes(outcome->code, none, outcome->stage);
    enum reply_class class = class_of_codes(outcome->code, agrees ? outcome->enhanced : none, outcome->stage);
    *by_enhanced = agrees && (class != by_code || class != CLASS_UNCATEGORIZED);
    return class;
}

const char *classifier_path(const struct classifier *classifier) {
    return classifier->rules->path;
}

uint32_t classifier_rule_line(const struct classifier *classifier, const char *name) {
    for (uint32_t i = 0; i < classifier->rules->count; i++)
        if (strcmp(classifier->rules->rules[i].name, name) == 0)
            return classifier->rules->rules[i].line;
    return 0;
}

uint32_t classifier_rule_count(const struct classifier *classifier) {
    return classifier->rules->count;
}

static bool same_text(const char *a, const char *b) {
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* Two rules that fit the same replies: the second never decides. */
static bool says_the_same(const struct rule *first, const struct rule *second) {
    if (!same_text(first->text, second->text) || first->code_first != second->code_first || first->code_last != second->code_last ||
        memcmp(first->enhanced_first, second->enhanced_first, sizeof(first->enhanced_first)) != 0 ||
        memcmp(first->enhanced_last, second->enhanced_last, sizeof(first->enhanced_last)) != 0)
        return false;
    if (first->provider_count == 0 || second->provider_count == 0)
        return first->provider_count == second->provider_count;
    for (uint32_t i = 0; i < first->provider_count; i++)
        for (uint32_t k = 0; k < second->provider_count; k++)
            if (strcasecmp(first->providers[i], second->providers[k]) == 0)
                return true;
    return false;
}

uint32_t classifier_lint(const struct classifier *classifier, const char *const *providers, uint32_t provider_count,
                         void (*each)(void *context, uint32_t line, const char *sentence), void *context) {
    const struct rules *rules = classifier->rules;
    uint32_t found = 0;
    char text[256];
    for (uint32_t i = 0; i < rules->count; i++) {
        const struct rule *rule = &rules->rules[i];
        for (uint32_t k = 0; k < i; k++) {
            if (!says_the_same(&rules->rules[k], rule))
                continue;
            snprintf(text, sizeof(text), "rule \"%s\" says what \"%s\" (line %u) does: take one away", rule->name, rules->rules[k].name,
                     rules->rules[k].line);
            each(context, rule->line, text);
            found++;
        }
        double us = rules_worst_us(rule);
        if (us > LINT_SLOW_US) {
            snprintf(text, sizeof(text), "rule \"%s\" is slow: %.0f us for one text; make its repetitions shorter, or anchor it",
                     rule->name, us);
            each(context, rule->line, text);
            found++;
        }
        /* Of a rule's names for a provider one at least must be known: the same receiver is called differently elsewhere. */
        bool known = rule->provider_count == 0 || provider_count == 0;
        for (uint32_t k = 0; k < rule->provider_count && !known; k++)
            for (uint32_t n = 0; n < provider_count && !known; n++)
                known = strcasecmp(rule->providers[k], providers[n]) == 0;
        if (!known) {
            snprintf(text, sizeof(text), "rule \"%s\" is for provider \"%s\", which shaping.yaml does not have: it never fits", rule->name,
                     rule->providers[0]);
            each(context, rule->line, text);
            found++;
        }
    }
    return found;
}
