/* report.c: the counts. */
#include "state.h"

#include "control/clock.h"
#include "control/observe/log.h"
#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { FIELD_BYTES = 640, NUMBER_BYTES = 24 };

/* RFC 8460 4.3. NULL: not the receiver's doing, not counted. */
static const char *failure_word(uint32_t failure) {
    switch ((enum tls_failure)failure) {
    case TLS_FAILURE_NOT_OFFERED:
    case TLS_FAILURE_REFUSED:
        return "starttls-not-supported";
    case TLS_FAILURE_HOST_MISMATCH:
        return "certificate-host-mismatch";
    case TLS_FAILURE_EXPIRED:
        return "certificate-expired";
    case TLS_FAILURE_NOT_TRUSTED:
        return "certificate-not-trusted";
    case TLS_FAILURE_INJECTED:
    case TLS_FAILURE_HANDSHAKE:
    case TLS_FAILURE_TIMEOUT:
    case TLS_FAILURE_TLSA_MISMATCH:
        return "validation-failure";
    case TLS_FAILURE_NONE:
    case TLS_FAILURE_LOCAL:
    case TLS_FAILURES:
        break;
    }
    return NULL;
}

static void count_add(struct report_domain *domain, const char *field, uint64_t number, const char *why) {
    struct count *count;
    STAILQ_FOREACH (count, &domain->counts, link) {
        if (strcmp(count->field, field) == 0) {
            count->number += number;
            return;
        }
    }
    size_t length = strlen(field);
    count = domain->count_count < REPORT_COUNTS_MAX ? calloc(1, sizeof *count + length + 1) : NULL;
    if (!count) {
        domain->report->counters.dropped += number;
        return;
    }
    memcpy(count->field, field, length + 1);
    count->number = number;
    count->why = why && why[0] ? strdup(why) : NULL;
    STAILQ_INSERT_TAIL(&domain->counts, count, link);
    domain->count_count++;
}

static void counts_clear(struct report_domain *domain) {
    struct count *count;
    while ((count = STAILQ_FIRST(&domain->counts))) {
        STAILQ_REMOVE_HEAD(&domain->counts, link);
        free(count->why);
        free(count);
    }
    domain->count_count = 0;
}

static void count_failure(struct report_domain *domain, enum route_policy policy, const char *result, const char *host, const char *sender,
                          const char *receiver, const char *why) {
    char field[FIELD_BYTES];
    snprintf(field, sizeof field, "bad %s %s %.255s %.64s %.64s", report_policy_words[policy], result, host[0] ? host : "-",
             sender[0] ? sender : "-", receiver[0] ? receiver : "-");
    count_add(domain, field, 1, why);
    domain->report->counters.failures++;
}

/* -- to Redis -- */

static void on_written(void *context, redisReply *reply) {
    if (reply && redis_error(reply))
        log_write(LOG_LEVEL_WARNING, "report", "counts of TLS reports could not be written: %.200s", redis_error(reply));
}

static bool send_words(struct report *report, int argc, const char *const *argv) {
    return redis_send(report->config.redis, on_written, NULL, argc, argv, NULL) == 0;
}

static bool write_count(struct report *report, const char *key, const struct count *count) {
    char number[NUMBER_BYTES], name[FIELD_BYTES + 8];
    snprintf(number, sizeof number, "%" PRIu64, count->number);
    const char *add[] = {"HINCRBY", key, count->field, number};
    if (!send_words(report, 4, add))
        return false;
    if (!count->why)
        return true;
    /* "bad TYPE RESULT HOST ..." -> "why TYPE RESULT HOST" */
    snprintf(name, sizeof name, "why%s", count->field + 3);
    char *cut = strrchr(name, ' ');
    if (cut)
        *cut = '\0';
    cut = strrchr(name, ' ');
    if (cut)
        *cut = '\0';
    const char *set[] = {"HSET", key, name, count->why};
    return send_words(report, 4, set);
}

static void write_domain(void *context, struct table_node *node) {
    struct report_domain *domain = TABLE_ENTRY(node, struct report_domain, node);
    struct report *report = context;
    char set[REPORT_KEY_BYTES], key[REPORT_KEY_BYTES], keep[NUMBER_BYTES], name[64];
    if (STAILQ_EMPTY(&domain->counts) || redis_state(report->config.redis) != REDIS_UP)
        return;
    report_day_key(report->config.config, report->day, false, set);
    report_domain_key(report->config.config, report->day, domain->domain, key);
    snprintf(keep, sizeof keep, "%d", REPORT_KEEP_S);
    const char *member[] = {"SADD", set, domain->domain}, *rua[] = {"HSET", key, "rua", domain->rua};
    if (!send_words(report, 3, member) || !send_words(report, 4, rua))
        return;
    for (int i = 0; i < REPORT_POLICIES; i++) {
        snprintf(name, sizeof name, "policy %s", report_policy_words[i]);
        const char *policy[] = {"HSET", key, name, domain->policies[i]};
        if (domain->policies[i])
            send_words(report, 4, policy);
    }
    const struct count *count;
    STAILQ_FOREACH (count, &domain->counts, link)
        write_count(report, key, count);
    const char *expire_set[] = {"EXPIRE", set, keep}, *expire_key[] = {"EXPIRE", key, keep};
    send_words(report, 3, expire_set);
    send_words(report, 3, expire_key);
    counts_clear(domain);
}

static void domain_drop(void *context, struct table_node *node) {
    struct report *report = context;
    struct report_domain *domain = TABLE_ENTRY(node, struct report_domain, node);
    table_remove(&report->domains, node);
    counts_clear(domain);
    for (int i = 0; i < REPORT_POLICIES; i++)
        free(domain->policies[i]);
    free(domain->rua);
    free(domain);
}

static void domain_drop_idle(void *context, struct table_node *node) {
    const struct report_domain *domain = TABLE_ENTRY(node, struct report_domain, node);
    if (domain->references == 0 && STAILQ_EMPTY(&domain->counts))
        domain_drop(context, node);
}

/* Counts belong to the day in which they were counted. */
static void day_look(struct report *report) {
    char day[REPORT_DAY_BYTES];
    report_day(clock_us(CLOCK_REALTIME) / 1000000, day);
    if (strcmp(day, report->day) == 0)
        return;
    table_each(&report->domains, write_domain, report);
    memcpy(report->day, day, sizeof day);
    uint32_t random = 0;
    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
        random = (uint32_t)clock_us(CLOCK_MONOTONIC);
    report->delay_s = REPORT_DELAY_MIN_S + random % (REPORT_DELAY_MAX_S - REPORT_DELAY_MIN_S);
}

void report_flush(struct report *report) {
    day_look(report);
    table_each(&report->domains, write_domain, report);
    table_each(&report->domains, domain_drop_idle, report);
}

/* -- from route -- */

static void *on_open(void *context, const char *name, const char *rua) {
    struct report *report = context;
    size_t length = strlen(name), rua_bytes = 0;
    uint64_t hash = table_hash(&report->domains, name, length);
    struct report_domain *domain = NULL;
    for (struct table_node *node = table_first(&report->domains, hash); node && !domain; node = table_next(node))
        if (strcmp(TABLE_ENTRY(node, struct report_domain, node)->domain, name) == 0)
            domain = TABLE_ENTRY(node, struct report_domain, node);
    if (!domain) {
        domain = report->domains.count < REPORT_DOMAINS_MAX ? calloc(1, sizeof *domain + length + 1) : NULL;
        if (!domain)
            return NULL;
        domain->report = report;
        memcpy(domain->domain, name, length + 1);
        STAILQ_INIT(&domain->counts);
        table_insert(&report->domains, &domain->node, hash);
    }
    for (const char *at = rua; *at; at += strlen(at) + 1)
        rua_bytes += strlen(at) + 1;
    char *list = malloc(rua_bytes + 1);
    if (list) {
        size_t used = 0;
        for (const char *at = rua; *at; at += strlen(at) + 1)
            used += (size_t)sprintf(list + used, "%s%s", used > 0 ? " " : "", at);
        free(domain->rua);
        domain->rua = list;
    } else if (!domain->rua) {
        return NULL;
    }
    domain->references++;
    return domain;
}

static void on_close(void *context, void *report) {
    struct report_domain *domain = report;
    domain->references--; /* dropped by the next flush */
}

static void on_policy(void *context, void *report, enum route_policy policy, const char *lines) {
    struct report_domain *domain = report;
    char *copy = strdup(lines);
    if (!copy)
        return;
    free(domain->policies[policy]);
    domain->policies[policy] = copy;
}

static void on_flaw(void *context, void *report, enum route_flaw flaw, const char *host, const char *why) {
    static const struct {
        enum route_policy policy;
        const char *word;
    } FLAWS[] = {
        [ROUTE_FLAW_DNSSEC_INVALID] = {ROUTE_POLICY_TLSA, "dnssec-invalid"},
        [ROUTE_FLAW_TLSA_INVALID] = {ROUTE_POLICY_TLSA, "tlsa-invalid"},
        [ROUTE_FLAW_STS_FETCH] = {ROUTE_POLICY_STS, "sts-policy-fetch-error"},
        [ROUTE_FLAW_STS_INVALID] = {ROUTE_POLICY_STS, "sts-policy-invalid"},
        [ROUTE_FLAW_STS_WEBPKI] = {ROUTE_POLICY_STS, "sts-webpki-invalid"},
        [ROUTE_FLAW_STS_MX] = {ROUTE_POLICY_STS, "validation-failure"},
    };
    day_look(context);
    count_failure(report, FLAWS[flaw].policy, FLAWS[flaw].word, host, "", "", why);
}

struct route_reports report_for_route(struct report *report) {
    return (struct route_reports){.open = on_open, .close = on_close, .policy = on_policy, .flaw = on_flaw, .context = report};
}

/* -- from sessions -- */

static enum route_policy policy_of(const struct site *site) {
    for (uint32_t i = 0; i < site->endpoint_count; i++)
        if (site->endpoints[i].tls == PATH_TLS_DANE)
            return ROUTE_POLICY_TLSA;
    return site->mta_sts[0] ? ROUTE_POLICY_STS : ROUTE_POLICY_NONE;
}

void report_secured(struct report *report, const struct site *site, uint64_t sessions) {
    char field[64];
    if (!report || !site->report || sessions == 0)
        return;
    struct report_domain *domain = site->report;
    uint64_t flawed = domain->flawed < sessions ? domain->flawed : sessions;
    domain->flawed -= flawed;
    sessions -= flawed;
    if (sessions == 0)
        return;
    day_look(report);
    snprintf(field, sizeof field, "ok %s", report_policy_words[policy_of(site)]);
    count_add(domain, field, sessions, NULL);
    report->counters.sessions += sessions;
}

static void address_write(const struct config_address *address, char text[INET6_ADDRSTRLEN]) {
    text[0] = '\0';
    if (address && address->family)
        inet_ntop(address->family == 6 ? AF_INET6 : AF_INET, address->bytes, text, INET6_ADDRSTRLEN);
}

void report_failed(struct report *report, const struct site *site, const struct path_event *event, const struct config_address *source) {
    const char *word = event->kind == PATH_EVENT_TLS_FAILED ? failure_word(event->detail) : NULL;
    char sender[INET6_ADDRSTRLEN], receiver[INET6_ADDRSTRLEN];
    if (!report || !site->report || !word || event->endpoint >= site->endpoint_count)
        return;
    const struct site_endpoint *endpoint = &site->endpoints[event->endpoint];
    enum route_policy policy = endpoint->tls == PATH_TLS_DANE ? ROUTE_POLICY_TLSA : site->mta_sts[0] ? ROUTE_POLICY_STS : ROUTE_POLICY_NONE;
    address_write(source, sender);
    address_write(&endpoint->address, receiver);
    day_look(report);
    bool certificate =
        event->detail == TLS_FAILURE_HOST_MISMATCH || event->detail == TLS_FAILURE_EXPIRED || event->detail == TLS_FAILURE_NOT_TRUSTED;
    if (certificate && site->tls_testing && endpoint->tls < PATH_TLS_VERIFY)
        ((struct report_domain *)site->report)->flawed++;
    count_failure(site->report, policy, word, endpoint->name, sender, receiver, event->text);
}

/* -- life -- */

static void on_flush(evutil_socket_t fd, short what, void *context) {
    struct report *report = context;
    struct timeval every = {.tv_sec = REPORT_FLUSH_S};
    event_add(report->flush_timer, &every);
    report_flush(report);
    sender_tick(report);
}

struct report *report_create(const struct report_config *config) {
    struct report *report = calloc(1, sizeof *report);
    if (!report)
        return NULL;
    report->config = *config;
    report->flush_timer = evtimer_new(config->base, on_flush, report);
    if (!report->flush_timer || table_init(&report->domains) != 0) {
        report_destroy(report);
        return NULL;
    }
    day_look(report);
    struct timeval first = {.tv_sec = REPORT_FIRST_S};
    event_add(report->flush_timer, &first);
    return report;
}

void report_destroy(struct report *report) {
    if (!report)
        return;
    sender_abandon(report);
    if (report->domains.buckets)
        table_each(&report->domains, domain_drop, report);
    table_clear(&report->domains);
    if (report->flush_timer)
        event_free(report->flush_timer);
    free(report);
}

void report_reconfigure(struct report *report, const struct config *config) {
    report->config.config = config;
}

const struct report_counters *report_counters(const struct report *report) {
    return &report->counters;
}
