/* route.c: the cache of domains, who waits for which, and the configuration that the answers depend on. */
#include "state.h"

#include "control/config/address.h"
#include "control/observe/alarm.h"
#include "control/observe/log.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

enum { SWEEP_INTERVAL_S = 10, SWEEP_MAX = 20000 /* entries a sweep: a few ms */ };

/* xorshift64*: it only shuffles equals. */
uint64_t route_random(struct route *route) {
    route->random ^= route->random >> 12;
    route->random ^= route->random << 25;
    route->random ^= route->random >> 27;
    return (route->random * 0x2545f4914f6cdd1du) >> 16;
}

uint32_t route_clamp_ttl(uint32_t ttl_s, uint32_t max_s) {
    return ttl_s < ROUTE_TTL_MIN_S ? ROUTE_TTL_MIN_S : ttl_s > max_s ? max_s : ttl_s;
}

bool route_is_own_name(const void *context, const char *name) {
    const struct route *route = context;
    for (uint32_t i = 0; i < route->config->pool_count; i++) {
        const struct config_pool *pool = &route->config->pools[i];
        for (uint32_t j = 0; j < pool->source_count; j++)
            if (pool->sources[j].ehlo && strcasecmp(pool->sources[j].ehlo, name) == 0)
                return true;
    }
    return false;
}

bool route_is_own_address(const struct route *route, const struct config_address *address) {
    const struct config *config = route->config;
    for (uint32_t i = 0; i < config->pool_count; i++)
        for (uint32_t j = 0; j < config->pools[i].source_count; j++)
            if (address_equal(&config->pools[i].sources[j].address, address) ||
                address_equal(&config->pools[i].sources[j].public_address, address))
                return true;
    for (uint32_t i = 0; i < config->dataplane.port_count; i++)
        for (uint32_t j = 0; j < config->dataplane.ports[i].address_count; j++)
            if (address_equal(&config->dataplane.ports[i].addresses[j], address))
                return true;
    return false;
}

void route_fail(struct route_result *result, enum route_status status, enum reply_class class, uint16_t code, const char *enhanced,
                const char *format, ...) {
    memset(result, 0, sizeof *result);
    result->status = status;
    result->class = class;
    result->code = code;
    char *at = (char *)(uintptr_t)enhanced;
    for (int i = 0; i < 3; i++)
        result->enhanced[i] = (uint16_t)strtoul(at + (i > 0), &at, 10);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(result->text, sizeof result->text, format, arguments);
    va_end(arguments);
}

struct route_result *route_result_copy(const struct route_result *result) {
    struct route_result *copy = malloc(sizeof *copy);
    if (copy)
        *copy = *result;
    return copy;
}

/* Nobody's network is looked at through a name in somebody's zone, and nothing public is asked in the sandbox. */
static bool on_https(void *context, const char *host, const struct config_address *address) {
    const struct route *route = context;
    if (domain_is_reserved(host))
        return true;
    return address ? !route_is_prohibited(route, address) && !ip_is_private(address) : !route->config->sandbox;
}

bool route_is_prohibited(const struct route *route, const struct config_address *address) {
    if (ip_prohibited(address))
        return true;
    for (uint32_t i = 0; i < route->prohibited_count; i++)
        if (address_on_link(&route->prohibited[i], address))
            return true;
    return false;
}

static struct domain_entry *entry_known(struct route *route, const char *name, uint64_t hash, bool relaxed);

/* Who asks next finds the new policy. */
static void on_policy_changed(void *context, const char *domain) {
    struct route *route = context;
    struct domain_entry *entry = entry_known(route, domain, table_hash(&route->domains, domain, strlen(domain)), false);
    if (entry && !entry->lookup)
        entry->fresh_until_us = 0;
}

static bool limits_any(const struct config *config, bool (*wants)(const struct shaping_limits *limits)) {
    bool any = wants(&config->defaults);
    for (uint32_t i = 0; i < config->provider_count; i++)
        any = any || wants(&config->providers[i].limits);
    for (uint32_t i = 0; i < config->domain_count; i++)
        any = any || wants(&config->domains[i].limits);
    return any;
}

static bool wants_dane(const struct shaping_limits *limits) {
    return limits->enable_dane;
}

static bool wants_sts(const struct shaping_limits *limits) {
    return limits->enable_mta_sts;
}

static struct dns_settings dns_settings_of(const struct config *config) {
    return (struct dns_settings){.servers = config->dns.servers,
                                 .server_count = config->dns.server_count,
                                 .timeout_ms = config->dns.timeout_ms,
                                 .trust_anchor_file = limits_any(config, wants_dane) ? config->dns.trust_anchor_file : NULL};
}

/* Bogus answers are never used; when all are, the operator must know why mail waits. */
static void on_dnssec(void *context, const char *why) {
    static const char KIND[] = "dnssec", SUBJECT[] = "dns.servers";
    struct route *route = context;
    char text[ALARM_TEXT_BYTES];
    if (!why) {
        alarm_clear(route->alarms, KIND, SUBJECT);
        log_write(LOG_LEVEL_INFO, "route", "the name servers let DNSSEC through: answers are validated");
        return;
    }
    snprintf(
        text, sizeof text,
        "The name servers do not let DNSSEC through (%.200s), so that no answer from a signed zone can be used and its mail waits. Name "
        "servers that pass DNSSEC on under `dns: servers:`, such as a local unbound, or set `enable_dane: false` in shaping.yaml.",
        why);
    alarm_raise(route->alarms, KIND, SUBJECT, text);
    if (!route->alarms)
        log_write(LOG_LEVEL_WARNING, "route", "%s", text);
}

void route_keep_policies(struct route *route) {
    sts_keep(route->sts);
}

void route_set_alarms(struct route *route, struct alarms *alarms) {
    route->alarms = alarms;
}

void route_set_reports(struct route *route, const struct route_reports *reports) {
    route->reports = *reports;
}

struct https *route_https(struct route *route) {
    return route->https;
}

static bool is_busy(const struct domain_entry *entry) {
    return entry->lookup || entry->awaits || !STAILQ_EMPTY(&entry->waiters);
}

static void entry_free(struct route *route, struct domain_entry *entry) {
    table_remove(&route->domains, &entry->node);
    TAILQ_REMOVE(&route->by_use, entry, by_use);
    if (entry->lookup)
        lookup_cancel(entry->lookup);
    if (entry->awaits)
        TAILQ_REMOVE(&entry->awaits->waiting, entry, on_site);
    if (entry->site)
        site_release(&entry->site->site);
    free(entry->failure);
    free(entry);
}

static void entry_set_site(struct domain_entry *entry, struct site_state *site) {
    if (site)
        site_hold(&site->site);
    if (entry->site)
        site_release(&entry->site->site);
    entry->site = site;
}

/* What an entry says: its failure, or its site's, or the site. */
static void entry_result(const struct domain_entry *entry, struct route_result *result) {
    const struct route_result *failure = entry->failure ? entry->failure : entry->site ? entry->site->failure : NULL;
    if (failure)
        *result = *failure;
    else if (!entry->site || entry->site->site.endpoint_count == 0)
        route_fail(result, ROUTE_TEMPORARY, CLASS_SYSTEM_ERROR, 451, "4.3.1", "out of memory");
    else
        *result = (struct route_result){.status = ROUTE_FOUND, .site = &entry->site->site};
}

/* Tells everybody who waits. They may ask again from inside. */
static void entry_tell(struct domain_entry *entry, const struct route_result *result) {
    struct waiter_list waiters = STAILQ_HEAD_INITIALIZER(waiters);
    STAILQ_CONCAT(&waiters, &entry->waiters);
    if (result->site)
        site_hold(result->site);
    struct waiter *waiter;
    while ((waiter = STAILQ_FIRST(&waiters))) {
        STAILQ_REMOVE_HEAD(&waiters, link);
        waiter->done(waiter->context, result);
        free(waiter);
    }
    if (result->site)
        site_release(result->site);
}

void entry_site_ready(struct route *route, struct domain_entry *entry) {
    struct route_result result;
    entry_result(entry, &result);
    entry_tell(entry, &result);
}

/* Waits until the entry's site has fresh addresses; that may be at once. */
static void entry_await_site(struct route *route, struct domain_entry *entry) {
    struct site_state *site = entry->site;
    if (route_now_us() < site->fresh_until_us) {
        entry_site_ready(route, entry);
        return;
    }
    entry->awaits = site;
    TAILQ_INSERT_TAIL(&site->waiting, entry, on_site);
    if (site->gather)
        return;
    site_hold(&site->site);
    site_resolve(site);
    if (!site->gather && entry->awaits == site) {
        TAILQ_REMOVE(&site->waiting, entry, on_site);
        entry->awaits = NULL;
        struct route_result result;
        route_fail(&result, ROUTE_TEMPORARY, CLASS_SYSTEM_ERROR, 451, "4.3.1", "out of memory");
        entry_tell(entry, &result);
    }
    site_release(&site->site);
}

void entry_found(struct route *route, struct domain_entry *entry, struct site_state *site, uint32_t ttl_s) {
    uint64_t now_us = route_now_us();
    entry_set_site(entry, site);
    free(entry->failure);
    entry->failure = NULL;
    entry->epoch = route->epoch;
    entry->fresh_until_us = now_us + (uint64_t)route_clamp_ttl(ttl_s, ROUTE_TTL_MAX_S) * 1000000;
    entry->stale_until_us = entry->fresh_until_us + (uint64_t)ROUTE_STALE_MAX_S * 1000000;
    entry_await_site(route, entry);
}

void entry_failed(struct route *route, struct domain_entry *entry, const struct route_result *failure, uint32_t ttl_s) {
    uint64_t now_us = route_now_us();
    bool temporary = failure->status == ROUTE_TEMPORARY;
    ttl_s = temporary ? ROUTE_TEMPORARY_TTL_S : route_clamp_ttl(ttl_s, ROUTE_NEGATIVE_TTL_MAX_S);
    entry->fresh_until_us = now_us + (uint64_t)ttl_s * 1000000;
    if (temporary && entry->site && entry->epoch == route->epoch && now_us < entry->stale_until_us) {
        entry_await_site(route, entry); /* the last good answer serves on */
        return;
    }
    entry->epoch = route->epoch;
    entry_set_site(entry, NULL);
    free(entry->failure);
    entry->failure = route_result_copy(failure);
    entry_tell(entry, failure);
}

static struct domain_entry *entry_known(struct route *route, const char *name, uint64_t hash, bool relaxed) {
    for (struct table_node *node = table_first(&route->domains, hash); node; node = table_next(node)) {
        struct domain_entry *entry = TABLE_ENTRY(node, struct domain_entry, node);
        if (entry->relaxed == relaxed && strcmp(entry->name, name) == 0)
            return entry;
    }
    return NULL;
}

static struct domain_entry *entry_named(struct route *route, const char *name, bool relaxed) {
    size_t length = strlen(name);
    uint64_t hash = table_hash(&route->domains, name, length);
    struct domain_entry *known = entry_known(route, name, hash, relaxed);
    if (known)
        return known;
    if (route->domains.count >= ROUTE_DOMAINS_MAX) {
        struct domain_entry *oldest = TAILQ_FIRST(&route->by_use);
        if (is_busy(oldest))
            return NULL;
        entry_free(route, oldest);
    }
    struct domain_entry *entry = calloc(1, sizeof *entry + length + 1);
    if (!entry)
        return NULL;
    memcpy(entry->name, name, length + 1);
    entry->relaxed = relaxed;
    STAILQ_INIT(&entry->waiters);
    table_insert(&route->domains, &entry->node, hash);
    TAILQ_INSERT_TAIL(&route->by_use, entry, by_use);
    return entry;
}

static void find(struct route *route, const char *domain, bool relaxed, void (*done)(void *context, const struct route_result *result),
                 void *context) {
    char name[DOMAIN_BYTES];
    struct route_result result;
    if (domain_normalise(domain, name) != 0) {
        route_fail(&result, ROUTE_PERMANENT, CLASS_BAD_DOMAIN, 550, "5.1.2", "%.200s is not a domain name", domain);
        done(context, &result);
        return;
    }
    struct domain_entry *entry = route->closing ? NULL : entry_named(route, name, relaxed);
    struct waiter *waiter = entry ? malloc(sizeof *waiter) : NULL;
    if (!waiter) {
        route_fail(&result, ROUTE_TEMPORARY, CLASS_SYSTEM_ERROR, 451, "4.3.1", "too many lookups at a time");
        done(context, &result);
        return;
    }
    uint64_t now_us = route_now_us();
    TAILQ_REMOVE(&route->by_use, entry, by_use);
    TAILQ_INSERT_TAIL(&route->by_use, entry, by_use);
    entry->used_us = now_us;
    bool fresh = entry->epoch == route->epoch && now_us < entry->fresh_until_us && !is_busy(entry);
    if (fresh && (entry->failure || (entry->site && now_us < entry->site->fresh_until_us))) {
        free(waiter);
        entry_result(entry, &result);
        if (result.site)
            site_hold(result.site);
        done(context, &result);
        if (result.site)
            site_release(result.site);
        return;
    }
    waiter->done = done;
    waiter->context = context;
    STAILQ_INSERT_TAIL(&entry->waiters, waiter, link);
    if (entry->lookup || entry->awaits)
        return;
    if (fresh && entry->site)
        entry_await_site(route, entry);
    else
        lookup_start(route, entry);
}

void route_find(struct route *route, const char *domain, void (*done)(void *context, const struct route_result *result), void *context) {
    find(route, domain, false, done, context);
}

void route_find_relaxed(struct route *route, const char *domain, void (*done)(void *context, const struct route_result *result),
                        void *context) {
    find(route, domain, true, done, context);
}

/* Drops what nobody used for long: domains first, then the sites that they held. */
static void on_sweep(evutil_socket_t fd, short what, void *context) {
    struct route *route = context;
    uint64_t now_us = route_now_us();
    struct domain_entry *entry;
    uint32_t dropped = 0;
    while ((entry = TAILQ_FIRST(&route->by_use)) && dropped++ < SWEEP_MAX && !is_busy(entry) &&
           entry->used_us + (uint64_t)ROUTE_DOMAIN_IDLE_S * 1000000 < now_us)
        entry_free(route, entry);
    struct site_state *site;
    dropped = 0;
    while ((site = TAILQ_FIRST(&route->by_idle)) && dropped++ < SWEEP_MAX && !site->gather &&
           site->idle_since_us + (uint64_t)ROUTE_SITE_IDLE_S * 1000000 < now_us)
        site_free(site);
}

/* The parts of the configuration that are looked at for every address. 0; -EINVAL with a sentence; -ENOMEM. */
static int digest_config(struct route *route, const struct config *config, char *error, size_t error_bytes) {
    uint32_t count = 0;
    while (config->dns.prohibited_hosts && config->dns.prohibited_hosts[count])
        count++;
    struct config_address *prohibited = calloc(count ? count : 1, sizeof *prohibited);
    if (!prohibited)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        if (ip_parse(config->dns.prohibited_hosts[i], &prohibited[i]) != 0) {
            snprintf(error, error_bytes, "dns.prohibited_hosts: %s is not an address or a range such as 10.0.0.0/8",
                     config->dns.prohibited_hosts[i]);
            free(prohibited);
            return -EINVAL;
        }
    }
    free(route->prohibited);
    route->prohibited = prohibited;
    route->prohibited_count = count;
    route->use_ipv6 = false;
    for (uint32_t i = 0; i < config->pool_count; i++)
        for (uint32_t j = 0; j < config->pools[i].source_count; j++)
            route->use_ipv6 = route->use_ipv6 || config->pools[i].sources[j].address.family == 6;
    route->use_sts = limits_any(config, wants_sts);
    route->config = config;
    route->epoch++;
    return 0;
}

static bool create_policies(struct route *route, char *error, size_t error_bytes) {
    snprintf(error, error_bytes, "out of memory");
    dns_watch(route->dns, on_dnssec, route);
    struct https_guard guard = {.may = on_https, .context = route};
    route->https = https_create(route->base, route->dns, route->config->tls.ca_file, &guard);
    struct sts_config sts = {.base = route->base,
                             .dns = route->dns,
                             .https = route->https,
                             .state_directory = route->config->state_directory,
                             .changed = on_policy_changed,
                             .context = route};
    route->sts = route->https ? sts_create(&sts) : NULL;
    return route->sts != NULL;
}

struct route *route_create(struct event_base *base, const struct config *config, char *error, size_t error_bytes) {
    struct route *route = calloc(1, sizeof *route);
    if (!route) {
        snprintf(error, error_bytes, "out of memory");
        return NULL;
    }
    route->base = base;
    TAILQ_INIT(&route->by_use);
    TAILQ_INIT(&route->by_idle);
    if (getrandom(&route->random, sizeof route->random, 0) != (ssize_t)sizeof route->random || route->random == 0)
        route->random = route_now_us() | 1;
    snprintf(error, error_bytes, "out of memory");
    route->sweep = event_new(base, -1, EV_PERSIST, on_sweep, route);
    struct dns_settings dns = dns_settings_of(config);
    if (!route->sweep || table_init(&route->domains) != 0 || table_init(&route->sites) != 0 ||
        digest_config(route, config, error, error_bytes) != 0 || !(route->dns = dns_create(base, &dns, error, error_bytes)) ||
        !create_policies(route, error, error_bytes)) {
        route_destroy(route);
        return NULL;
    }
    struct timeval every = {.tv_sec = SWEEP_INTERVAL_S};
    event_add(route->sweep, &every);
    error[0] = '\0';
    return route;
}

static void entry_close(void *context, struct table_node *node) {
    struct route *route = context;
    struct domain_entry *entry = TABLE_ENTRY(node, struct domain_entry, node);
    struct route_result result;
    route_fail(&result, ROUTE_TEMPORARY, CLASS_SYSTEM_ERROR, 451, "4.3.2", "shutting down");
    entry_tell(entry, &result);
    entry_free(route, entry);
}

/* A site that somebody still holds lives until its last release. */
static void site_close(void *context, struct table_node *node) {
    struct site_state *site = TABLE_ENTRY(node, struct site_state, node);
    struct route *route = context;
    if (site->site.references == 0) {
        site_free(site);
        return;
    }
    table_remove(&route->sites, &site->node);
    site->route = NULL;
}

void route_destroy(struct route *route) {
    if (!route)
        return;
    route->closing = true;
    if (route->domains.buckets)
        table_each(&route->domains, entry_close, route);
    if (route->sites.buckets)
        table_each(&route->sites, site_close, route);
    sts_destroy(route->sts);
    https_destroy(route->https);
    dns_destroy(route->dns);
    if (route->sweep)
        event_free(route->sweep);
    table_clear(&route->domains);
    table_clear(&route->sites);
    free(route->prohibited);
    free(route);
}

static void site_renew(void *context, struct table_node *node) {
    site_reconfigure(TABLE_ENTRY(node, struct site_state, node));
}

void route_reconfigure(struct route *route, const struct config *config) {
    char error[256];
    if (digest_config(route, config, error, sizeof error) != 0)
        return; /* config_load has refused it before */
    struct dns_settings dns = dns_settings_of(config);
    if (dns_reconfigure(route->dns, &dns, error, sizeof error) != 0)
        log_write(LOG_LEVEL_ERROR, "route", "%s; the name servers from before are asked on", error);
    https_reconfigure(route->https, config->tls.ca_file);
    table_each(&route->sites, site_renew, route);
}
