/* script.c: reads rules and decides by hash, so that the same seed and recipient always meet the same fate. */
#include "script.h"

#include "digest.h"
#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const action_names[SCRIPT_ACTIONS] = {"refuse", "defer", "421", "drop", "stall", "slow", "delay"};
static const char *const stage_names[SCRIPT_STAGES] = {"connect", "banner", "ehlo", "starttls", "handshake",
                                                       "auth",    "mail",   "rcpt", "data",     "final"};

const char *script_action_text(enum script_action action) {
    return action_names[action];
}

const char *script_stage_text(enum script_stage stage) {
    return stage_names[stage];
}

/* A rule while it is read. */
struct reading {
    struct script_rule *rule;
    const char *where;
    char *error;
    size_t error_bytes;
    unsigned code;
    char words[SCRIPT_TEXT_BYTES - 8]; /* of text= */
};

static int complain(const struct reading *reading, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int complain(const struct reading *reading, const char *format, ...) {
    char sentence[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof(sentence), format, arguments);
    va_end(arguments);
    snprintf(reading->error, reading->error_bytes, "%s: %s", reading->where, sentence);
    return -EINVAL;
}

/* The next word, which may hold "quoted spaces"; NULL at the end. */
static char *next_word(char **rest) {
    char *at = *rest;
    while (isspace((unsigned char)*at))
        at++;
    if (*at == '\0' || *at == '#')
        return NULL;
    char *word = at, *to = at;
    for (bool quoted = false; *at != '\0' && (quoted || !isspace((unsigned char)*at)); at++) {
        if (*at == '"')
            quoted = !quoted;
        else
            *to++ = *at;
    }
    *rest = *at == '\0' ? at : at + 1;
    *to = '\0';
    return word;
}

static bool read_whole(const char *text, uint64_t low, uint64_t high, uint64_t *number) {
    char *end = NULL;
    errno = 0;
    *number = strtoull(text, &end, 10);
    return isdigit((unsigned char)text[0]) && *end == '\0' && errno == 0 && *number >= low && *number <= high;
}

static int take_share(struct reading *reading, const char *value) {
    char *end = NULL;
    double percent = strtod(value, &end);
    if (end == value || (*end != '\0' && strcmp(end, "%") != 0) || !(percent >= 0 && percent <= 100))
        return complain(reading, "share=%s is no percentage: write a number from 0 to 100, as in share=2.5%%", value);
    reading->rule->share = percent >= 100 ? UINT64_MAX : (uint64_t)(percent / 100 * 18446744073709551615.0);
    return 0;
}

static int take_with(struct reading *reading, const char *value) {
    reading->rule->by_fin = strcmp(value, "fin") == 0;
    return reading->rule->by_fin || strcmp(value, "rst") == 0 ? 0 : complain(reading, "with=%s: use rst or fin", value);
}

static int take_pattern(struct reading *reading, const char *value) {
    if (value[0] == '\0' || strlen(value) >= sizeof(reading->rule->pattern))
        return complain(reading, "recipient= wants a pattern of 1 to %d bytes", SCRIPT_PATTERN_BYTES - 1);
    if (reading->rule->stage < SCRIPT_RCPT)
        return complain(reading, "recipient= belongs to the stages rcpt, data and final: no recipient is known at %s",
                        stage_names[reading->rule->stage]);
    for (size_t i = 0; i <= strlen(value); i++)
        reading->rule->pattern[i] = (char)tolower((unsigned char)value[i]);
    return 0;
}

static int take_text(struct reading *reading, const char *value) {
    size_t length = strlen(value);
    if (length == 0 || length >= sizeof(reading->words))
        return complain(reading, "text= wants 1 to %zu bytes", sizeof(reading->words) - 1);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)value[i] < ' ' || value[i] == 0x7f)
            return complain(reading, "text= has a control character");
    memcpy(reading->words, value, length + 1);
    return 0;
}

static int take_key(struct reading *reading, char *word) {
    struct script_rule *rule = reading->rule;
    char *value = strchr(word, '=');
    if (value == NULL)
        return complain(reading, "'%s' is no KEY=VALUE", word);
    *value++ = '\0';
    bool replies = rule->action <= SCRIPT_CLOSE;
    uint64_t number = 0;
    if (strcmp(word, "share") == 0)
        return take_share(reading, value);
    if (strcmp(word, "recipient") == 0)
        return take_pattern(reading, value);
    if (strcmp(word, "attempts") == 0) {
        if (rule->stage < SCRIPT_RCPT)
            return complain(reading, "attempts= counts a recipient's and belongs to the stages rcpt, data and final");
        if (!read_whole(value, 1, 200, &number))
            return complain(reading, "attempts=%s: write a whole number from 1 to 200", value);
        rule->attempts = (uint32_t)number;
        return 0;
    }
    if (strcmp(word, "text") == 0 && replies)
        return take_text(reading, value);
    if (strcmp(word, "code") == 0 && (rule->action == SCRIPT_REFUSE || rule->action == SCRIPT_DEFER)) {
        unsigned low = rule->action == SCRIPT_REFUSE ? 500 : 400;
        if (!read_whole(value, low, low + 99, &number))
            return complain(reading, "code=%s: %s wants a code from %u to %u", value, action_names[rule->action], low, low + 99);
        reading->code = (unsigned)number;
        return 0;
    }
    if (strcmp(word, "with") == 0 && rule->action == SCRIPT_DROP)
        return take_with(reading, value);
    if (strcmp(word, "ms") == 0 && rule->action == SCRIPT_DELAY) {
        if (!read_whole(value, 1, 3600 * 1000, &number))
            return complain(reading, "ms=%s: write a whole number from 1 to 3600000", value);
        rule->delay_us = number * 1000;
        return 0;
    }
    if (strcmp(word, "bytes") == 0 && rule->action == SCRIPT_SLOW) {
        if (!read_whole(value, 1, 1 << 30, &number))
            return complain(reading, "bytes=%s: write the bytes a second, a whole number from 1", value);
        rule->bytes_per_second = (uint32_t)number;
        return 0;
    }
    return complain(reading, "%s has no %s=; known are share, recipient, attempts%s", action_names[rule->action], word,
                    rule->action <= SCRIPT_DEFER   ? ", code, text"
                    : rule->action == SCRIPT_CLOSE ? ", text"
                    : rule->action == SCRIPT_DROP  ? ", with"
                    : rule->action == SCRIPT_SLOW  ? ", bytes"
                    : rule->action == SCRIPT_DELAY ? ", ms"
                                                   : "");
}

static int find_name(const char *const *names, int count, const char *word) {
    for (int i = 0; word != NULL && i < count; i++)
        if (strcmp(names[i], word) == 0)
            return i;
    return -1;
}

static int check_rule(const struct reading *reading) {
    const struct script_rule *rule = reading->rule;
    bool silent = rule->action == SCRIPT_DROP || rule->action == SCRIPT_STALL || rule->action == SCRIPT_SLOW;
    if (rule->stage == SCRIPT_CONNECT && !silent)
        return complain(reading, "at connect nothing can be said yet: %s belongs to banner", action_names[rule->action]);
    if (rule->stage == SCRIPT_HANDSHAKE && !silent)
        return complain(reading, "within a handshake nothing can be said: %s belongs to starttls", action_names[rule->action]);
    if (rule->action == SCRIPT_DELAY && rule->delay_us == 0)
        return complain(reading, "delay wants ms=");
    if (rule->action == SCRIPT_SLOW && rule->bytes_per_second == 0)
        return complain(reading, "slow wants bytes=");
    return 0;
}

static void make_reply(const struct reading *reading) {
    static const char *const words[SCRIPT_CLOSE + 1][SCRIPT_STAGES] = {
        [SCRIPT_REFUSE] = {"", "5.7.1 no service for you", "5.7.1 no service for you", "5.7.0 no TLS for you", "",
                           "5.7.8 credentials refused", "5.7.1 sender refused", "5.1.1 no such user", "5.7.1 no mail from you",
                           "5.7.1 message refused"},
        [SCRIPT_DEFER] = {"", "4.3.2 try later", "4.3.2 try later", "4.7.0 TLS not available now", "", "4.7.0 try later", "4.7.1 try later",
                          "4.2.0 try later", "4.3.0 try later", "4.3.0 try later"},
        [SCRIPT_CLOSE] = {"", "4.3.2 closing", "4.3.2 closing", "4.3.2 closing", "", "4.3.2 closing", "4.3.2 closing", "4.3.2 closing",
                          "4.3.2 closing", "4.3.2 closing"},
    };
    static const unsigned refused[SCRIPT_STAGES] = {0, 554, 554, 554, 0, 535, 550, 550, 550, 550};
    static const unsigned deferred[SCRIPT_STAGES] = {0, 451, 451, 454, 0, 454, 451, 451, 451, 451};
    struct script_rule *rule = reading->rule;
    unsigned code = reading->code;
    if (code == 0)
        code = rule->action == SCRIPT_CLOSE ? 421 : rule->action == SCRIPT_DEFER ? deferred[rule->stage] : refused[rule->stage];
    int length = snprintf(rule->text, sizeof(rule->text), "%u %s\r\n", code,
                          reading->words[0] != '\0' ? reading->words : words[rule->action][rule->stage]);
    rule->reply = (struct reply){rule->text, (uint32_t)length};
}

int script_add(struct script *script, const char *line, const char *where, char *error, size_t error_bytes) {
    char copy[SCRIPT_LINE_BYTES_MAX];
    struct script_rule rule = {.share = UINT64_MAX};
    struct reading reading = {.rule = &rule, .where = where, .error = error, .error_bytes = error_bytes};
    if (strlen(line) >= sizeof(copy))
        return complain(&reading, "the line is longer than %d bytes", SCRIPT_LINE_BYTES_MAX - 1);
    strcpy(copy, line);
    char *rest = copy, *word = next_word(&rest);
    if (word == NULL)
        return 0;
    int action = find_name(action_names, SCRIPT_ACTIONS, word);
    if (action < 0)
        return complain(&reading, "'%s' is no action: use refuse, defer, 421, drop, stall, slow or delay", word);
    word = next_word(&rest);
    int stage = find_name(stage_names, SCRIPT_STAGES, word);
    if (stage < 0)
        return complain(&reading, "%s wants a stage: connect, banner, ehlo, starttls, handshake, auth, mail, rcpt, data or final",
                        action_names[action]);
    rule.action = (enum script_action)action;
    rule.stage = (enum script_stage)stage;
    int code = 0;
    while (code == 0 && (word = next_word(&rest)) != NULL)
        code = take_key(&reading, word);
    if (code == 0)
        code = check_rule(&reading);
    if (code == 0 && script->count == SCRIPT_RULES_MAX)
        code = complain(&reading, "there are more than %d rules", SCRIPT_RULES_MAX);
    if (code != 0)
        return code;
    struct script_rule *place = &script->rules[script->count++];
    *place = rule;
    reading.rule = place;
    if (rule.action <= SCRIPT_CLOSE)
        make_reply(&reading);
    script->stages |= 1U << rule.stage;
    script->counts_attempts = script->counts_attempts || rule.attempts > 0;
    return 0;
}

int script_read(struct script *script, const char *path, char *error, size_t error_bytes) {
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        snprintf(error, error_bytes, "%s: %s", path, strerror(errno));
        return -errno;
    }
    char *line = NULL;
    size_t room = 0;
    int code = 0;
    for (unsigned number = 1; code == 0 && getline(&line, &room, file) >= 0; number++) {
        char where[512];
        snprintf(where, sizeof(where), "%s:%u", path, number);
        code = script_add(script, line, where, error, error_bytes);
    }
    free(line);
    fclose(file);
    return code;
}

uint64_t script_match(const struct script *script, const char *recipient) {
    uint64_t matched = 0;
    for (uint32_t i = 0; i < script->count; i++)
        if (script->rules[i].pattern[0] == '\0' || fnmatch(script->rules[i].pattern, recipient, 0) == 0)
            matched |= (uint64_t)1 << i;
    return matched;
}

/* Each rule draws by itself. */
static uint64_t draw(const struct script *script, uint32_t rule, uint64_t key) {
    uint64_t words[2] = {key, rule};
    return xxh64(words, sizeof(words), script->seed);
}

void script_decide(struct script *script, enum script_stage stage, uint64_t key, uint64_t matched, struct script_verdict *verdict) {
    *verdict = (struct script_verdict){0};
    if ((script->stages >> stage & 1) == 0)
        return;
    for (uint32_t i = 0; i < script->count && verdict->rule == NULL; i++) {
        struct script_rule *rule = &script->rules[i];
        if (rule->stage != stage || (matched >> i & 1) == 0)
            continue;
        uint64_t drawn = draw(script, i, key);
        if (rule->share != UINT64_MAX && drawn >= rule->share)
            continue;
        if (rule->attempts > 0 && seen_attempt(script->attempts, drawn) >= rule->attempts)
            continue;
        atomic_fetch_add_explicit(&rule->applied, 1, memory_order_relaxed);
        if (rule->action == SCRIPT_DELAY)
            verdict->delay_us += rule->delay_us;
        else if (rule->action == SCRIPT_SLOW)
            verdict->bytes_per_second = rule->bytes_per_second;
        else
            verdict->rule = rule;
    }
}
