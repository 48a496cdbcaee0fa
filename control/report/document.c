/* document.c: counts to JSON. */
#include "document.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WORDS = 6, WORD_BYTES = 300, DETAILS_MAX = 1000, LINES_MAX = 1000, WHY_BYTES = 256 };

const char *const report_policy_words[REPORT_POLICIES] = {"no-policy-found", "sts", "tlsa"};

void report_day(uint64_t time_s, char day[REPORT_DAY_BYTES]) {
    time_t when = (time_t)time_s;
    struct tm parts;
    if (!gmtime_r(&when, &parts) || strftime(day, REPORT_DAY_BYTES, "%Y-%m-%d", &parts) == 0)
        snprintf(day, REPORT_DAY_BYTES, "1970-01-01");
}

bool report_day_valid(const char *day) {
    struct tm parts = {0};
    const char *end = strptime(day, "%Y-%m-%d", &parts);
    return end && *end == '\0' && strlen(day) == REPORT_DAY_BYTES - 1;
}

static const char *prefix_of(const struct config *config) {
    return config->redis.prefix ? config->redis.prefix : "bypost";
}

void report_day_key(const struct config *config, const char *day, bool sent, char key[REPORT_KEY_BYTES]) {
    snprintf(key, REPORT_KEY_BYTES, "%.100s:{t}:tlsrpt:%s%s", prefix_of(config), sent ? "sent:" : "", day);
}

void report_domain_key(const struct config *config, const char *day, const char *domain, char key[REPORT_KEY_BYTES]) {
    snprintf(key, REPORT_KEY_BYTES, "%.100s:{t}:tlsrpt:%s:%.255s", prefix_of(config), day, domain);
}

void report_submitter(const struct config *config, char domain[REPORT_DOMAIN_BYTES]) {
    const char *at = config->tls_reports.from ? strrchr(config->tls_reports.from, '@') : NULL;
    size_t length = at ? strcspn(at + 1, "> \t") : 0;
    length = length < REPORT_DOMAIN_BYTES ? length : 0;
    if (length > 0)
        memcpy(domain, at + 1, length);
    domain[length] = '\0';
}

/* "bad sts certificate-expired mx1.example.net 192.0.2.1 198.51.100.1" in its words; "-" is an empty one. How many. */
static unsigned split(const char *text, char words[WORDS][WORD_BYTES]) {
    unsigned count = 0;
    while (*text && count < WORDS) {
        size_t length = strcspn(text, " ");
        size_t kept = length < WORD_BYTES ? length : WORD_BYTES - 1;
        memcpy(words[count], text, kept);
        words[count][kept] = '\0';
        if (strcmp(words[count], "-") == 0)
            words[count][0] = '\0';
        count++;
        text += length + (text[length] == ' ');
    }
    return count;
}

static int policy_of(const char *word) {
    for (int i = 0; i < REPORT_POLICIES; i++)
        if (strcmp(word, report_policy_words[i]) == 0)
            return i;
    return -1;
}

static uint64_t number(const char *text) {
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == '\0' ? value : 0;
}

struct policy {
    uint64_t good, bad;
    json_t *details;
    const char *lines;
};

/* Texts of peers may hold any bytes: JSON takes UTF-8 only. */
static json_t *text_json(const char *text) {
    char safe[WHY_BYTES];
    snprintf(safe, sizeof safe, "%s", text);
    for (char *c = safe; *c; c++)
        if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f)
            *c = '?';
    return json_string(safe);
}

static void set_text(json_t *object, const char *key, const char *text) {
    if (text[0])
        json_object_set_new(object, key, text_json(text));
}

static const char *why_of(const struct report_field *fields, size_t field_count, const char *type, const char *result, const char *host) {
    char name[WORD_BYTES * 3];
    snprintf(name, sizeof name, "why %s %s %s", type, result, host[0] ? host : "-");
    for (size_t i = 0; i < field_count; i++)
        if (strcmp(fields[i].name, name) == 0)
            return fields[i].value;
    return "";
}

static void take(struct policy *policies, const struct report_field *field, const struct report_field *fields, size_t field_count) {
    char words[WORDS][WORD_BYTES];
    unsigned count = split(field->name, words);
    int at = count >= 2 ? policy_of(words[1]) : -1;
    if (at < 0)
        return;
    struct policy *policy = &policies[at];
    if (strcmp(words[0], "policy") == 0) {
        policy->lines = field->value;
    } else if (strcmp(words[0], "ok") == 0) {
        policy->good += number(field->value);
    } else if (strcmp(words[0], "bad") == 0 && count == WORDS && number(field->value) > 0) {
        policy->bad += number(field->value);
        if (!policy->details)
            policy->details = json_array();
        if (json_array_size(policy->details) >= DETAILS_MAX)
            return;
        json_t *detail = json_pack("{s:s, s:I}", "result-type", words[2], "failed-session-count", (json_int_t)number(field->value));
        set_text(detail, "receiving-mx-hostname", words[3]);
        set_text(detail, "sending-mta-ip", words[4]);
        set_text(detail, "receiving-ip", words[5]);
        set_text(detail, "failure-reason-code", why_of(fields, field_count, words[1], words[2], words[3]));
        json_array_append_new(policy->details, detail);
    }
}

/* policy-string, and of an MTA-STS policy its mx patterns (RFC 8460 4.4). */
static void set_lines(json_t *policy, const char *lines, bool sts) {
    json_t *array = json_array(), *mx = json_array();
    for (unsigned i = 0; lines && *lines && i < LINES_MAX; i++) {
        size_t length = strcspn(lines, "\n");
        char line[1024];
        snprintf(line, sizeof line, "%.*s", (int)(length < sizeof line ? length : sizeof line - 1), lines);
        json_array_append_new(array, text_json(line));
        if (sts && strncmp(line, "mx: ", 4) == 0)
            json_array_append_new(mx, text_json(line + 4));
        lines += length + (lines[length] == '\n');
    }
    if (json_array_size(array) > 0)
        json_object_set(policy, "policy-string", array);
    if (json_array_size(mx) > 0)
        json_object_set(policy, "mx-host", mx);
    json_decref(array);
    json_decref(mx);
}

static json_t *policy_json(const struct policy *policy, int type, const char *domain) {
    json_t *about = json_pack("{s:s, s:s}", "policy-type", report_policy_words[type], "policy-domain", domain);
    set_lines(about, policy->lines, type == 1);
    json_t *json = json_pack("{s:o, s:{s:I, s:I}}", "policy", about, "summary", "total-successful-session-count", (json_int_t)policy->good,
                             "total-failure-session-count", (json_int_t)policy->bad);
    if (policy->details)
        json_object_set(json, "failure-details", policy->details);
    return json;
}

json_t *report_document(const struct config *config, const char *domain, const char *day, const struct report_field *fields,
                        size_t field_count) {
    struct policy policies[REPORT_POLICIES] = {0};
    char submitter[REPORT_DOMAIN_BYTES], id[REPORT_ID_BYTES], from[40], to[40];
    report_submitter(config, submitter);
    snprintf(id, sizeof id, "%s_%s@%s", day, domain, submitter[0] ? submitter : "localhost");
    snprintf(from, sizeof from, "%sT00:00:00Z", day);
    snprintf(to, sizeof to, "%sT23:59:59Z", day);
    for (size_t i = 0; i < field_count; i++)
        take(policies, &fields[i], fields, field_count);
    json_t *list = json_array();
    for (int i = 0; i < REPORT_POLICIES; i++) {
        if (policies[i].good > 0 || policies[i].bad > 0)
            json_array_append_new(list, policy_json(&policies[i], i, domain));
        json_decref(policies[i].details);
    }
    if (json_array_size(list) == 0) {
        json_decref(list);
        return NULL;
    }
    const char *organization = config->tls_reports.organization ? config->tls_reports.organization : submitter;
    const char *contact = config->tls_reports.contact ? config->tls_reports.contact : config->tls_reports.from;
    return json_pack("{s:s, s:{s:s, s:s}, s:s, s:s, s:o}", "organization-name", organization, "date-range", "start-datetime", from,
                     "end-datetime", to, "contact-info", contact ? contact : "", "report-id", id, "policies", list);
}

const char *report_addresses(const struct report_field *fields, size_t field_count) {
    for (size_t i = 0; i < field_count; i++)
        if (strcmp(fields[i].name, "rua") == 0)
            return fields[i].value;
    return NULL;
}
