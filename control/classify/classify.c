/* classify.c: an outcome becomes a class and a verdict. */
#include "classify.h"
#include "rules.h"
#include "table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* "550 5.7.26 text" as an outcome; false when it is no reply. */
static bool parse_reply(const char *line, struct outcome *outcome) {
    unsigned code, a, b, c;
    int used = 0;
    *outcome = (struct outcome){.kind = OUTCOME_REPLIED, .stage = STAGE_FINAL};
    if (sscanf(line, "%3u%n", &code, &used) != 1 || used != 3 || code < 400 || code > 599 || (line[3] != ' ' && line[3] != '-'))
        return false;
    outcome->code = (uint16_t)code;
    line += 4;
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
        if (!parse_reply(rule->tests[i], &outcome)) {
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
