/* sts_policy.c: a policy is lines of "key: value"; what is not said by RFC 8461 3.2 is refused, unknown keys are passed over. */
#include "sts_policy.h"

#include "domain.h"
#include "txt.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_MAX = 32, AGE_DIGITS_MAX = 10 };

static const char *const MODES[] = {"none", "testing", "enforce"};

const char *sts_mode_text(enum sts_mode mode) {
    return (size_t)mode < sizeof MODES / sizeof MODES[0] ? MODES[mode] : "?";
}

int sts_mode_read(const char *text, enum sts_mode *mode) {
    for (size_t i = 0; i < sizeof MODES / sizeof MODES[0]; i++)
        if (strcmp(text, MODES[i]) == 0) {
            *mode = (enum sts_mode)i;
            return 0;
        }
    return -EINVAL;
}

static bool is_alphanumeric(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t';
}

struct sts_policy *sts_policy_add(struct sts_policy *policy, const char *pattern, size_t length) {
    char name[DOMAIN_BYTES], ascii[DOMAIN_BYTES];
    bool wild = length > 2 && pattern[0] == '*' && pattern[1] == '.';
    size_t skip = wild ? 2 : 0;
    if (length - skip >= sizeof name || policy->mx_count >= STS_MX_MAX || length <= skip)
        return NULL;
    memcpy(name, pattern + skip, length - skip);
    name[length - skip] = '\0';
    if (strlen(name) != length - skip || name[length - skip - 1] == '.' || domain_ascii(name, ascii) != 0)
        return NULL;
    size_t bytes = skip + strlen(ascii) + 1;
    struct sts_policy *more = realloc(policy, sizeof *more + policy->pattern_bytes + bytes);
    if (!more)
        return NULL;
    char *at = more->patterns + more->pattern_bytes;
    if (wild)
        memcpy(at, "*.", 2);
    memcpy(at + skip, ascii, strlen(ascii) + 1);
    more->pattern_bytes += bytes;
    more->mx_count++;
    return more;
}

struct sts_policy *sts_policy_copy(const struct sts_policy *policy) {
    struct sts_policy *copy = malloc(sizeof *copy + policy->pattern_bytes);
    if (copy)
        memcpy(copy, policy, sizeof *copy + policy->pattern_bytes);
    return copy;
}

bool sts_policy_same(const struct sts_policy *left, const struct sts_policy *right) {
    return left->mode == right->mode && left->max_age_s == right->max_age_s && left->mx_count == right->mx_count &&
           left->pattern_bytes == right->pattern_bytes && memcmp(left->patterns, right->patterns, left->pattern_bytes) == 0;
}

const char *sts_policy_next(const struct sts_policy *policy, const char *pattern) {
    const char *next = pattern ? pattern + strlen(pattern) + 1 : policy->patterns;
    return next < policy->patterns + policy->pattern_bytes ? next : NULL;
}

bool sts_policy_allows(const struct sts_policy *policy, const char *host) {
    const char *dot = strchr(host, '.');
    for (const char *pattern = sts_policy_next(policy, NULL); pattern; pattern = sts_policy_next(policy, pattern)) {
        if (strcmp(pattern, host) == 0)
            return true;
        if (pattern[0] == '*' && dot && dot != host && strcmp(pattern + 1, dot) == 0)
            return true;
    }
    return false;
}

/* The lines of a body, one after the other. */
struct field {
    const char *key, *value;
    size_t key_length, value_length;
};

/* A value's characters: printable, blanks between them, and UTF-8 in extensions (RFC 8461 3.2, sts-policy-vchar). */
static bool value_good(const struct field *field) {
    for (size_t i = 0; i < field->value_length; i++) {
        unsigned char c = (unsigned char)field->value[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return field->value_length > 0;
}

static int field_read(const char *line, size_t length, struct field *field) {
    size_t at = 0;
    while (at < length && (is_alphanumeric(line[at]) || (at > 0 && (line[at] == '_' || line[at] == '-' || line[at] == '.'))))
        at++;
    if (at == 0 || at > KEY_MAX || at == length || line[at] != ':')
        return -EINVAL;
    field->key = line;
    field->key_length = at++;
    while (at < length && is_blank(line[at]))
        at++;
    while (length > at && is_blank(line[length - 1]))
        length--;
    field->value = line + at;
    field->value_length = length - at;
    return value_good(field) ? 0 : -EINVAL;
}

static bool key_is(const struct field *field, const char *key) {
    return field->key_length == strlen(key) && memcmp(field->key, key, field->key_length) == 0;
}

static bool value_is(const struct field *field, const char *value) {
    return field->value_length == strlen(value) && memcmp(field->value, value, field->value_length) == 0;
}

static int age_read(const struct field *field, uint32_t *age_s) {
    uint64_t age = 0;
    if (field->value_length > AGE_DIGITS_MAX)
        return -EINVAL;
    for (size_t i = 0; i < field->value_length; i++) {
        if (field->value[i] < '0' || field->value[i] > '9')
            return -EINVAL;
        age = age * 10 + (uint64_t)(field->value[i] - '0');
    }
    *age_s = age > STS_AGE_MAX_S ? STS_AGE_MAX_S : (uint32_t)age;
    return 0;
}

struct reading {
    struct sts_policy *policy;
    bool version, mode, age;
};

/* Of a key that may stand once, the first counts (RFC 8461 3.2). The flaw, or NULL. */
static const char *field_take(struct reading *reading, const struct field *field) {
    if (key_is(field, "version")) {
        if (!reading->version && !value_is(field, "STSv1"))
            return "the version is not STSv1";
        reading->version = true;
    } else if (key_is(field, "mode") && !reading->mode) {
        char mode[16] = "";
        if (field->value_length < sizeof mode)
            memcpy(mode, field->value, field->value_length);
        if (sts_mode_read(mode, &reading->policy->mode) != 0)
            return "the mode is none of enforce, testing and none";
        reading->mode = true;
    } else if (key_is(field, "max_age") && !reading->age) {
        if (age_read(field, &reading->policy->max_age_s) != 0)
            return "max_age is not a number of seconds";
        reading->age = true;
    } else if (key_is(field, "mx")) {
        struct sts_policy *more = sts_policy_add(reading->policy, field->value, field->value_length);
        if (!more)
            return "an mx is no host name and no pattern like *.example.net, or there are too many";
        reading->policy = more;
    }
    return NULL;
}

static const char *body_read(struct reading *reading, const char *body, size_t bytes) {
    const char *flaw = NULL;
    size_t at = 0;
    while (at < bytes && !flaw) {
        const char *end = memchr(body + at, '\n', bytes - at);
        size_t length = end ? (size_t)(end - body) - at : bytes - at, next = at + length + (end != NULL);
        struct field field;
        if (end && length > 0 && body[at + length - 1] == '\r')
            length--;
        if (length == 0) { /* nothing but empty lines may follow: editors leave them */
            for (size_t i = next; i < bytes; i++)
                if (body[i] != '\r' && body[i] != '\n')
                    return "an empty line";
            break;
        }
        flaw = field_read(body + at, length, &field) == 0 ? field_take(reading, &field) : "a line is not `key: value`";
        at = next;
    }
    if (flaw)
        return flaw;
    if (!reading->version)
        return "no version";
    if (!reading->mode)
        return "no mode";
    if (!reading->age)
        return "no max_age";
    return reading->policy->mode != STS_NONE && reading->policy->mx_count == 0 ? "no mx" : NULL;
}

struct sts_policy *sts_policy_parse(const char *body, size_t bytes, const char **flaw) {
    struct reading reading = {.policy = calloc(1, sizeof *reading.policy)};
    *flaw = !reading.policy ? "out of memory" : bytes > STS_BODY_BYTES_MAX ? "longer than 64 KiB" : body_read(&reading, body, bytes);
    if (!*flaw)
        return reading.policy;
    free(reading.policy);
    return NULL;
}

int sts_record_read(const char *text, size_t bytes, char id[STS_ID_MAX + 1]) {
    size_t at;
    struct txt_field field;
    bool found = false;
    int rc = txt_version(text, bytes, "v=STSv1", &at);
    if (rc != 0)
        return rc;
    while ((rc = txt_next(text, bytes, &at, &field)) > 0) {
        for (size_t i = 0; i < field.value_length; i++)
            if (is_blank(field.value[i]) || field.value[i] == '=')
                return -EINVAL;
        if (found || field.name_length != 2 || memcmp(field.name, "id", 2) != 0)
            continue;
        if (field.value_length > STS_ID_MAX)
            return -EINVAL;
        for (size_t i = 0; i < field.value_length; i++)
            if (!is_alphanumeric(field.value[i]))
                return -EINVAL;
        memcpy(id, field.value, field.value_length);
        id[field.value_length] = '\0';
        found = true;
    }
    return rc == 0 && found ? 0 : -EINVAL;
}
