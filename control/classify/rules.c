/* rules.c: reads the file of text rules (libfyaml), compiles the patterns (PCRE2 with JIT) and matches replies against them. */
#include "rules.h"
#include "table.h"

#include <errno.h>
#include <libfyaml.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* One reading under way. */
struct reading {
    struct fy_parser *parser;
    struct rules *rules;
    uint32_t room;
    char *error;
    size_t error_bytes;
    bool failed;
};

__attribute__((format(printf, 3, 4))) static void fault(struct reading *reading, uint32_t line, const char *format, ...) {
    va_list arguments;
    if (reading->failed)
        return;
    reading->failed = true;
    int used = snprintf(reading->error, reading->error_bytes, "%s:%u: ", reading->rules->path, line);
    if (used < 0 || (size_t)used >= reading->error_bytes)
        return;
    va_start(arguments, format);
    vsnprintf(reading->error + used, reading->error_bytes - (size_t)used, format, arguments);
    va_end(arguments);
}

static uint32_t event_line(struct fy_event *event) {
    const struct fy_mark *mark = fy_event_start_mark(event);
    return mark == NULL ? 1 : (uint32_t)mark->line + 1;
}

static struct fy_event *next_event(struct reading *reading) {
    struct fy_event *event = reading->failed ? NULL : fy_parser_parse(reading->parser);
    if (event == NULL)
        fault(reading, 1, "this is no readable YAML; `rules:` and a list of rules is expected");
    return event;
}

/* The next event must be of this type; it is dropped. */
static bool expect(struct reading *reading, enum fy_event_type type, const char *what) {
    struct fy_event *event = next_event(reading);
    if (event == NULL)
        return false;
    if (event->type != type)
        fault(reading, event_line(event), "%s is expected here", what);
    fy_parser_event_free(reading->parser, event);
    return !reading->failed;
}

/* The scalar of an event, to free; NULL when it is none. */
static char *event_text(struct fy_event *event) {
    size_t length = 0;
    const char *text = event->type == FYET_SCALAR && event->scalar.value != NULL ? fy_token_get_text(event->scalar.value, &length) : NULL;
    char *copy = text == NULL ? NULL : malloc(length + 1); /* the text is a part of the file's: no NUL ends it */
    if (copy != NULL) {
        memcpy(copy, text, length);
        copy[length] = '\0';
    }
    return copy;
}

/* "550", or "5xx". */
static bool parse_code(const char *text, struct rule *rule) {
    if (strlen(text) != 3 || text[0] < '4' || text[0] > '5')
        return false;
    if (strcmp(text + 1, "xx") == 0) {
        rule->code_first = (uint16_t)((text[0] - '0') * 100);
        rule->code_last = (uint16_t)(rule->code_first + 99);
        return true;
    }
    if (text[1] < '0' || text[1] > '9' || text[2] < '0' || text[2] > '9')
        return false;
    rule->code_first = rule->code_last = (uint16_t)atoi(text);
    return true;
}

/* "5.7.26"; a first digit of x is for 4 and 5. Returns what follows, or NULL. */
static const char *parse_enhanced_one(const char *text, uint16_t *enhanced) {
    unsigned subject, detail;
    int used = 0;
    if ((text[0] != '4' && text[0] != '5' && text[0] != 'x') || sscanf(text + 1, ".%3u.%3u%n", &subject, &detail, &used) != 2)
        return NULL;
    enhanced[0] = text[0] == 'x' ? 0 : (uint16_t)(text[0] - '0');
    enhanced[1] = (uint16_t)subject;
    enhanced[2] = (uint16_t)detail;
    return text + 1 + used;
}

/* "5.7.26", or a range of details: "5.7.606-5.7.649". */
static bool parse_enhanced(const char *text, struct rule *rule) {
    text = parse_enhanced_one(text, rule->enhanced_first);
    memcpy(rule->enhanced_last, rule->enhanced_first, sizeof(rule->enhanced_last));
    if (text != NULL && *text == '-')
        text = parse_enhanced_one(text + 1, rule->enhanced_last);
    rule->has_enhanced = true;
    return text != NULL && *text == '\0' && rule->enhanced_first[0] == rule->enhanced_last[0] &&
           rule->enhanced_first[1] == rule->enhanced_last[1] && rule->enhanced_first[2] <= rule->enhanced_last[2];
}

static void compile(struct reading *reading, struct rule *rule, const char *text, uint32_t line) {
    int code = 0;
    PCRE2_SIZE offset = 0;
    PCRE2_UCHAR words[128] = "";
    if (text[0] == '\0' || strlen(text) > RULE_PATTERN_MAX) {
        fault(reading, line, "the pattern is empty or longer than %d bytes", RULE_PATTERN_MAX);
        return;
    }
    rule->pattern = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, PCRE2_CASELESS | PCRE2_NEVER_UTF | PCRE2_NEVER_BACKSLASH_C,
                                  &code, &offset, NULL);
    if (rule->pattern == NULL) {
        pcre2_get_error_message(code, words, sizeof(words));
        fault(reading, line, "the pattern is wrong at its character %zu: %s", (size_t)offset + 1, (const char *)words);
        return;
    }
    rule->text = strdup(text);
    pcre2_jit_compile(rule->pattern, PCRE2_JIT_COMPLETE); /* without JIT the interpreter matches */
}

static void add_text(struct reading *reading, char **list, uint32_t *count, uint32_t max, char *text, uint32_t line) {
    if (*count == max) {
        fault(reading, line, "more than %u values here", max);
        free(text);
        return;
    }
    list[(*count)++] = text;
}

/* A key of a rule with one value. Owns the text. */
static void rule_set(struct reading *reading, struct rule *rule, const char *key, char *text, uint32_t line) {
    if (strcmp(key, "name") == 0 && rule->name == NULL && text[0] != '\0') {
        rule->name = text;
        return;
    }
    if (strcmp(key, "provider") == 0) {
        add_text(reading, rule->providers, &rule->provider_count, RULE_PROVIDERS_MAX, text, line);
        return;
    }
    if (strcmp(key, "test") == 0) {
        if (rule->test_count < RULE_TESTS_MAX)
            rule->test_lines[rule->test_count] = line;
        add_text(reading, rule->tests, &rule->test_count, RULE_TESTS_MAX, text, line);
        return;
    }
    if (strcmp(key, "code") == 0) {
        if (!parse_code(text, rule))
            fault(reading, line, "\"%s\" is no code; write 421, or 5xx", text);
    } else if (strcmp(key, "enhanced") == 0) {
        if (!parse_enhanced(text, rule))
            fault(reading, line, "\"%s\" is no enhanced status code; write 5.7.26, x.7.26, or 5.7.606-5.7.649", text);
    } else if (strcmp(key, "pattern") == 0 && rule->pattern == NULL) {
        compile(reading, rule, text, line);
    } else if (strcmp(key, "class") == 0) {
        if (!class_named(text, &rule->class))
            fault(reading, line, "\"%s\" is no class of replies", text);
    } else {
        fault(reading, line, "the key \"%s\" is unknown or there twice; a rule has name, provider, code, enhanced, pattern, class, test",
              key);
    }
    free(text);
}

/* A value, or a list of values for provider and test. */
static void read_value(struct reading *reading, struct rule *rule, const char *key) {
    struct fy_event *event = next_event(reading);
    bool is_list = event != NULL && event->type == FYET_SEQUENCE_START;
    if (is_list && strcmp(key, "provider") != 0 && strcmp(key, "test") != 0)
        fault(reading, event_line(event), "\"%s\" takes one value", key);
    while (event != NULL && !reading->failed) {
        char *text = event_text(event);
        if (text != NULL)
            rule_set(reading, rule, key, text, event_line(event));
        else if (!is_list || (event->type != FYET_SEQUENCE_START && event->type != FYET_SEQUENCE_END))
            fault(reading, event_line(event), "\"%s\" takes a text", key);
        bool ends = !is_list || event->type == FYET_SEQUENCE_END;
        fy_parser_event_free(reading->parser, event);
        event = ends ? NULL : next_event(reading);
    }
    if (event != NULL)
        fy_parser_event_free(reading->parser, event);
}

static void rule_check(struct reading *reading, const struct rule *rule) {
    const char *missing = rule->name == NULL                             ? "name"
                          : rule->class == CLASS_NONE                    ? "class"
                          : rule->test_count == 0                        ? "test"
                          : rule->pattern == NULL && !rule->has_enhanced ? "pattern or enhanced"
                                                                         : NULL;
    if (missing != NULL)
        fault(reading, rule->line, "rule \"%s\" has no %s", rule->name == NULL ? "" : rule->name, missing);
    for (uint32_t i = 0; i + 1 < reading->rules->count && rule->name != NULL; i++)
        if (reading->rules->rules[i].name != NULL && strcmp(reading->rules->rules[i].name, rule->name) == 0)
            fault(reading, rule->line, "there are two rules \"%s\"", rule->name);
}

/* One rule; the event that begins its mapping has been read. */
static void read_rule(struct reading *reading, uint32_t line) {
    struct rules *rules = reading->rules;
    if (rules->count == RULES_MAX) {
        fault(reading, line, "more than %d rules", RULES_MAX);
        return;
    }
    if (rules->count == reading->room) {
        uint32_t room = reading->room * 2 + 64;
        struct rule *grown = reallocarray(rules->rules, room, sizeof(*grown));
        if (grown == NULL) {
            fault(reading, line, "out of memory");
            return;
        }
        rules->rules = grown;
        reading->room = room;
    }
    struct rule *rule = &rules->rules[rules->count++];
    *rule = (struct rule){.line = line};
    while (!reading->failed) {
        struct fy_event *event = next_event(reading);
        if (event == NULL)
            return;
        bool ends = event->type == FYET_MAPPING_END;
        char *key = event_text(event);
        if (!ends && key == NULL)
            fault(reading, event_line(event), "a key is expected here");
        fy_parser_event_free(reading->parser, event);
        if (key != NULL)
            read_value(reading, rule, key);
        free(key);
        if (ends)
            break;
    }
    rule_check(reading, rule);
}

static void read_document(struct reading *reading) {
    if (!expect(reading, FYET_STREAM_START, "a stream") || !expect(reading, FYET_DOCUMENT_START, "a document") ||
        !expect(reading, FYET_MAPPING_START, "`rules:`"))
        return;
    struct fy_event *event = next_event(reading);
    char *key = event == NULL ? NULL : event_text(event);
    if (event != NULL && (key == NULL || strcmp(key, "rules") != 0))
        fault(reading, event_line(event), "`rules:` is expected here");
    if (event != NULL)
        fy_parser_event_free(reading->parser, event);
    free(key);
    if (!expect(reading, FYET_SEQUENCE_START, "a list of rules"))
        return;
    while (!reading->failed) {
        event = next_event(reading);
        if (event == NULL)
            return;
        enum fy_event_type type = event->type;
        uint32_t line = event_line(event);
        fy_parser_event_free(reading->parser, event);
        if (type == FYET_SEQUENCE_END)
            break;
        if (type == FYET_MAPPING_START)
            read_rule(reading, line);
        else
            fault(reading, line, "a rule, a mapping of name, pattern, class and test, is expected here");
    }
    expect(reading, FYET_MAPPING_END, "the end of the file");
}

/* Rules of a provider come before general ones; else the file's order holds. */
static int compare_rules(const void *left, const void *right) {
    const struct rule *a = left, *b = right;
    if ((a->provider_count > 0) != (b->provider_count > 0))
        return a->provider_count > 0 ? -1 : 1;
    return a->line < b->line ? -1 : a->line > b->line;
}

struct rules *rules_read(const char *path, char *error, size_t error_bytes) {
    struct reading reading = {.error = error, .error_bytes = error_bytes};
    struct fy_diag *diag = NULL;
    struct fy_diag_cfg diag_cfg;
    FILE *nowhere = fopen("/dev/null", "we");
    FILE *file = fopen(path, "re");
    reading.rules = calloc(1, sizeof(*reading.rules));
    if (reading.rules != NULL)
        reading.rules->path = strdup(path);
    if (file == NULL || nowhere == NULL || reading.rules == NULL || reading.rules->path == NULL) {
        snprintf(error, error_bytes, "%s: cannot read the text rules: %s. Give the file's place in class_rules.", path, strerror(errno));
        reading.failed = true;
        goto end;
    }
    /* libfyaml would speak to stderr. */
    fy_diag_cfg_default(&diag_cfg);
    diag_cfg.fp = nowhere;
    diag = fy_diag_create(&diag_cfg);
    struct fy_parse_cfg cfg = {.flags = FYPCF_DEFAULT_PARSE, .diag = diag};
    reading.parser = fy_parser_create(&cfg);
    if (reading.parser == NULL || fy_parser_set_input_fp(reading.parser, path, file) != 0)
        fault(&reading, 1, "the YAML reader cannot be started");
    else
        read_document(&reading);
    if (!reading.failed && reading.rules->count > 0)
        qsort(reading.rules->rules, reading.rules->count, sizeof(*reading.rules->rules), compare_rules);
end:
    if (reading.parser != NULL)
        fy_parser_destroy(reading.parser);
    if (diag != NULL)
        fy_diag_destroy(diag);
    if (nowhere != NULL)
        fclose(nowhere);
    if (file != NULL)
        fclose(file);
    if (reading.failed) {
        rules_free(reading.rules);
        return NULL;
    }
    return reading.rules;
}

void rules_free(struct rules *rules) {
    if (rules == NULL)
        return;
    for (uint32_t i = 0; i < rules->count; i++) {
        struct rule *rule = &rules->rules[i];
        for (uint32_t k = 0; k < rule->provider_count; k++)
            free(rule->providers[k]);
        for (uint32_t k = 0; k < rule->test_count; k++)
            free(rule->tests[k]);
        pcre2_code_free(rule->pattern);
        free(rule->text);
        free(rule->name);
    }
    free(rules->rules);
    free(rules->path);
    free(rules);
}

static bool codes_fit(const struct rule *rule, const char *provider, const struct outcome *outcome, bool agrees) {
    bool fits = rule->provider_count == 0;
    for (uint32_t i = 0; i < rule->provider_count && !fits; i++)
        fits = provider != NULL && strcasecmp(rule->providers[i], provider) == 0;
    if (!fits || (rule->code_first != 0 && (outcome->code < rule->code_first || outcome->code > rule->code_last)))
        return false;
    if (!rule->has_enhanced)
        return true;
    return agrees && (rule->enhanced_first[0] == 0 || rule->enhanced_first[0] == outcome->enhanced[0]) &&
           rule->enhanced_first[1] == outcome->enhanced[1] && rule->enhanced_first[2] <= outcome->enhanced[2] &&
           outcome->enhanced[2] <= rule->enhanced_last[2];
}

const struct rule *rules_match(const struct rules *rules, const char *provider, const struct outcome *outcome, bool agrees) {
    const struct rule *found = NULL;
    size_t length = strnlen(outcome->text, sizeof(outcome->text));
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    pcre2_match_context *limits = pcre2_match_context_create(NULL);
    if (match != NULL && limits != NULL) {
        pcre2_set_match_limit(limits, RULE_MATCH_LIMIT);
        pcre2_set_heap_limit(limits, RULE_HEAP_LIMIT_KIB);
        for (uint32_t i = 0; i < rules->count && found == NULL; i++) {
            const struct rule *rule = &rules->rules[i];
            if (codes_fit(rule, provider, outcome, agrees) &&
                (rule->pattern == NULL || pcre2_match(rule->pattern, (PCRE2_SPTR)outcome->text, length, 0, 0, match, limits) >= 0))
                found = rule;
        }
    }
    pcre2_match_context_free(limits);
    pcre2_match_data_free(match);
    return found;
}

static double match_us(const struct rule *rule, const char *text) {
    struct timespec before, after;
    double best = 1e9;
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    pcre2_match_context *limits = pcre2_match_context_create(NULL);
    for (int i = 0; i < 3 && match != NULL && limits != NULL; i++) { /* the best of three: others use this machine too */
        pcre2_set_match_limit(limits, RULE_MATCH_LIMIT);
        pcre2_set_heap_limit(limits, RULE_HEAP_LIMIT_KIB);
        clock_gettime(CLOCK_MONOTONIC, &before);
        int code = pcre2_match(rule->pattern, (PCRE2_SPTR)text, strlen(text), 0, 0, match, limits);
        clock_gettime(CLOCK_MONOTONIC, &after);
        double us = (double)(after.tv_sec - before.tv_sec) * 1e6 + (double)(after.tv_nsec - before.tv_nsec) / 1e3;
        us = code == PCRE2_ERROR_MATCHLIMIT || code == PCRE2_ERROR_HEAPLIMIT ? 1e6 : us; /* it gives up, and never fits such a text */
        best = us < best ? us : best;
    }
    pcre2_match_context_free(limits);
    pcre2_match_data_free(match);
    return best < 1e9 ? best : 0;
}

double rules_worst_us(const struct rule *rule) {
    static const char *const fillers[] = {
        "a", "a ", "1", "192.0.2.1 ", "mail ", "user ", "the ip address is ", "-", "recipient address rejected "};
    enum { FILLERS = sizeof(fillers) / sizeof(fillers[0]) };
    double worst = 0;
    for (uint32_t i = 0; rule->pattern != NULL && i < FILLERS + rule->test_count; i++) {
        char text[SLOT_TEXT_BYTES + 1];
        const char *filler = i < FILLERS ? fillers[i] : rule->tests[i - FILLERS];
        /* A test without its last word does not fit, but nearly. */
        size_t length = i < FILLERS ? strlen(filler) : strlen(filler) * 2 / 3 + 1, used = 0;
        while (used < SLOT_TEXT_BYTES) {
            size_t part = length < SLOT_TEXT_BYTES - used ? length : SLOT_TEXT_BYTES - used;
            memcpy(text + used, filler, part);
            used += part;
        }
        text[used] = '\0';
        double us = match_us(rule, text);
        worst = us > worst ? us : worst;
    }
    return worst;
}
