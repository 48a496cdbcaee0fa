/* site.c: sites: their limits, provider, relay and policies, and what becomes of them when DNS has answered. */
#include "endpoints.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct shaping_provider *hosts_provider(const struct config *config, const struct mx_host *hosts, uint32_t host_count) {
    const struct shaping_provider *provider = NULL;
    for (uint32_t i = 0; i < host_count && hosts[i].preference == hosts[0].preference; i++) {
        const struct shaping_provider *match = hosts[i].literal.family ? NULL : config_provider(config, hosts[i].name);
        if (!match || (provider && match != provider))
            return NULL;
        provider = match;
    }
    return provider;
}

static const struct shaping_limits *base_limits(const struct config *config, const struct shaping_provider *provider) {
    return provider ? &provider->limits : &config->defaults;
}

bool site_has_own_limits(const struct config *config, const char *domain, const struct mx_set *set) {
    const struct shaping_provider *provider = hosts_provider(config, set->hosts, set->count);
    const struct shaping_limits *own = config_limits(config, domain, provider);
    if (own == base_limits(config, provider))
        return false;
    /* A host's entry names the site, not this domain: "mx.example.net" as implicit MX of itself stays in the shared site. */
    for (uint32_t i = 0; i < set->count; i++)
        if (strcmp(set->hosts[i].name, domain) == 0)
            return false;
    return true;
}

static char *relay_hosts_text(const struct config_relay *relay) {
    size_t bytes = 1, used = 0;
    for (uint32_t i = 0; i < relay->host_count; i++)
        bytes += strlen(relay->hosts[i]) + 1;
    char *text = calloc(1, bytes);
    for (uint32_t i = 0; text && i < relay->host_count; i++)
        used += (size_t)snprintf(text + used, bytes - used, "%s\n", relay->hosts[i]);
    return text;
}

/* The site's entry in this configuration: its credentials are for the hosts that stand beside them, and for no others. */
static const struct config_relay *relay_named(const struct site_state *site, const struct config *config) {
    for (uint32_t i = 0; site->relay_domain && i < config->relay_count; i++) {
        const struct config_relay *relay = &config->relays[i];
        if (strcmp(relay->domain, site->relay_domain) != 0)
            continue;
        char *hosts = relay_hosts_text(relay);
        bool same = hosts && strcmp(hosts, site->relay_hosts) == 0;
        free(hosts);
        return same ? relay : NULL;
    }
    return NULL;
}

/* Its entry is gone, or its hosts are others: who asks again finds another site. What waits here must not go where it may not go any more,
 * or without the protection that the entry asked for: without endpoints it is deferred (shape), and then finds the other one. */
static void relay_renew(struct site_state *site, const struct config *config) {
    bool had = site->site.relay && config_relay_has_settings(site->site.relay);
    site->site.relay = relay_named(site, config);
    if (had && !site->site.relay && site->site.endpoint_count > 0) {
        site->site.endpoint_count = 0;
        site->site.generation++;
    }
}

/* The same hosts, perhaps written in another way since the site was made. */
static void relay_adopt(struct site_state *site, const struct config_relay *relay) {
    char *hosts = relay && !site->site.relay ? relay_hosts_text(relay) : NULL, *domain = hosts ? strdup(relay->domain) : NULL;
    if (!domain) {
        free(hosts);
        return;
    }
    free(site->relay_hosts);
    free(site->relay_domain);
    site->relay_hosts = hosts;
    site->relay_domain = domain;
    site->site.relay = relay;
}

const struct shaping_limits *site_limits(const struct config *config, const char *override_domain, const struct mx_host *hosts,
                                         uint32_t host_count) {
    const struct shaping_provider *provider = hosts_provider(config, hosts, host_count);
    const struct shaping_limits *base = base_limits(config, provider);
    const struct shaping_limits *limits = override_domain ? config_limits(config, override_domain, provider) : base;
    for (uint32_t i = 0; i < host_count && limits == base; i++)
        limits = config_limits(config, hosts[i].name, provider);
    return limits;
}

void site_reconfigure(struct site_state *site) {
    const struct config *config = site->route->config;
    relay_renew(site, config);
    site->site.provider = hosts_provider(config, site->hosts, site->host_count);
    site->site.limits = site_limits(config, site->override_domain, site->hosts, site->host_count);
    site->fresh_until_us = 0;
}

void site_hold(struct site *site) {
    struct site_state *state = site->own;
    site->references++;
    if (state && state->idle) {
        TAILQ_REMOVE(&state->route->by_idle, state, by_idle);
        state->idle = false;
    }
}

void site_release(struct site *site) {
    struct site_state *state = site->own;
    assert(site->references > 0);
    if (--site->references > 0 || !state)
        return;
    if (!state->route) {
        site_free(state);
        return;
    }
    state->idle = true;
    state->idle_since_us = route_now_us();
    TAILQ_INSERT_TAIL(&state->route->by_idle, state, by_idle);
}

void site_free(struct site_state *site) {
    if (site->route) {
        table_remove(&site->route->sites, &site->node);
        if (site->idle)
            TAILQ_REMOVE(&site->route->by_idle, site, by_idle);
    }
    if (site->gather)
        gather_free(site->gather);
    if (site->site.report && site->reports.close)
        site->reports.close(site->reports.context, site->site.report);
    free(site->policy);
    free(site->failure);
    free(site->hosts);
    free(site->override_domain);
    free(site->relay_domain);
    free(site->relay_hosts);
    free(site->key);
    free(site);
}

/* Drops the site that has been without references longest, to make room. */
static void make_room(struct route *route) {
    struct site_state *oldest = TAILQ_FIRST(&route->by_idle);
    if (oldest && !oldest->gather)
        site_free(oldest);
}

void site_flaw(const struct site_state *site, enum route_flaw flaw, const char *host, const char *why) {
    if (site->site.report && site->reports.flaw)
        site->reports.flaw(site->reports.context, site->site.report, flaw, host, why);
}

static void report_policy(struct site_state *site) {
    char *lines = NULL;
    size_t bytes = 0;
    FILE *out = site->site.report && site->reports.policy ? open_memstream(&lines, &bytes) : NULL;
    if (!out)
        return;
    fprintf(out, "version: STSv1\nmode: %s\n", sts_mode_text(site->policy->mode));
    for (const char *mx = sts_policy_next(site->policy, NULL); mx; mx = sts_policy_next(site->policy, mx))
        fprintf(out, "mx: %s\n", mx);
    fprintf(out, "max_age: %u\n", site->policy->max_age_s);
    if (fclose(out) == 0)
        site->reports.policy(site->reports.context, site->site.report, ROUTE_POLICY_STS, lines);
    free(lines);
}

/* The words for operators, and the policy itself when it is another: then the endpoints are found anew. */
static void site_adopt_policy(struct site_state *site, const struct sts_answer *answer) {
    if (!answer)
        return;
    time_t until = (time_t)answer->until_s;
    char when[40] = "";
    struct tm day;
    if (gmtime_r(&until, &day))
        strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &day);
    snprintf(site->site.mta_sts, sizeof site->site.mta_sts, "MTA-STS %s, id %s, until %s", sts_mode_text(answer->policy->mode), answer->id,
             when);
    if (site->policy && sts_policy_same(site->policy, answer->policy))
        return;
    struct sts_policy *copy = sts_policy_copy(answer->policy);
    if (!copy)
        return;
    free(site->policy);
    site->policy = copy;
    site->fresh_until_us = 0;
    if (site->site.tls_testing != (copy->mode == STS_TESTING)) {
        site->site.tls_testing = copy->mode == STS_TESTING;
        site->site.generation++;
    }
    report_policy(site);
}

static void site_adopt_reports(struct site_state *site, const char *rua) {
    const struct route_reports *reports = &site->route->reports;
    if (!rua || site->site.report || !reports->open)
        return;
    site->reports = *reports;
    site->site.report = reports->open(reports->context, site->override_domain, rua);
    if (site->policy)
        report_policy(site);
}

struct site_state *site_of_set(struct route *route, const struct mx_set *set, const struct site_terms *terms) {
    static const char EMPTY[] = "";
    const char *override_domain = terms->override_domain, *relay_name = terms->relay_name;
    const struct config_relay *relay = terms->relay;
    size_t key_bytes = MX_KEY_BYTES + 3 * DOMAIN_BYTES;
    /* One relay's credentials and TLS settings must not serve another's mail, though the hosts be the same. */
    const char *own_relay = relay && config_relay_has_settings(relay) ? relay->domain : EMPTY;
    char *key = malloc(key_bytes);
    if (!key)
        return NULL;
    int head =
        snprintf(key, key_bytes, "%s %s %c%c%c%c %s\n", override_domain ? override_domain : EMPTY, relay_name ? "relay" : "mx",
                 terms->is_public ? 'p' : 't', terms->dane ? 'd' : '-', terms->policy ? 's' : '-', terms->rua ? 'r' : '-', own_relay);
    size_t key_length = (size_t)head + mx_key(set, key + head, key_bytes - (size_t)head);
    uint64_t hash = table_hash(&route->sites, key, key_length);
    for (struct table_node *node = table_first(&route->sites, hash); node; node = table_next(node)) {
        struct site_state *site = TABLE_ENTRY(node, struct site_state, node);
        if (strcmp(site->key, key) == 0) {
            free(key);
            relay_adopt(site, relay);
            site_adopt_policy(site, terms->policy);
            site_adopt_reports(site, terms->rua);
            return site;
        }
    }
    if (route->sites.count >= ROUTE_SITES_MAX)
        make_room(route);
    struct site_state *site = route->sites.count < ROUTE_SITES_MAX ? calloc(1, sizeof *site) : NULL;
    struct mx_host *hosts = site ? calloc(set->count, sizeof *hosts) : NULL;
    char *own_domain = hosts && override_domain ? strdup(override_domain) : NULL;
    char *short_key = hosts ? strdup(key) : NULL;
    char *relay_domain = hosts && relay ? strdup(relay->domain) : NULL, *relay_hosts = hosts && relay ? relay_hosts_text(relay) : NULL;
    free(key);
    if (!short_key || (override_domain && !own_domain) || (relay && (!relay_domain || !relay_hosts))) {
        free(short_key);
        free(own_domain);
        free(relay_domain);
        free(relay_hosts);
        free(hosts);
        free(site);
        return NULL;
    }
    memcpy(hosts, set->hosts, set->count * sizeof *hosts);
    site->site.own = site;
    site->route = route;
    site->key = short_key;
    site->override_domain = own_domain;
    site->relay = relay_name != NULL;
    site->relay_domain = relay_domain;
    site->relay_hosts = relay_hosts;
    site->is_public = terms->is_public;
    site->dane = terms->dane;
    site->host_count = set->count;
    site->hosts = hosts;
    TAILQ_INIT(&site->waiting);
    char name[DOMAIN_BYTES];
    if (relay_name)
        snprintf(name, sizeof name, "%.255s", relay_name);
    else
        mx_name(set, name, sizeof name);
    if (own_domain)
        snprintf(site->site.name, sizeof site->site.name, "%.126s/%.126s", own_domain, name);
    else
        snprintf(site->site.name, sizeof site->site.name, "%s", name);
    table_insert(&route->sites, &site->node, hash);
    site_reconfigure(site);
    site_adopt_reports(site, terms->rua);
    site_adopt_policy(site, terms->policy);
    site->idle = true; /* until somebody holds it */
    site->idle_since_us = route_now_us();
    TAILQ_INSERT_TAIL(&route->by_idle, site, by_idle);
    return site;
}

static void site_fail(struct site_state *site, const struct endpoint_set *set, const struct gather *gather) {
    struct route_result result;
    const char *name = site->site.name;
    uint64_t now_us = route_now_us();
    uint32_t ttl_s = route_clamp_ttl(gather->ttl_s == UINT32_MAX ? 0 : gather->ttl_s, ROUTE_NEGATIVE_TTL_MAX_S);
    if (set->loop) {
        route_fail(&result, ROUTE_PERMANENT, CLASS_RELAY_DENIED, 550, "5.4.6", "mail for %s loops back to this sender's own address", name);
    } else if (set->dane_failed) {
        route_fail(&result, ROUTE_TEMPORARY, CLASS_DNS_FAILURE, 451, "4.7.5", "DANE: the TLSA records of %s cannot be known: %s",
                   set->dane_host->name, set->dane_failed->why);
        ttl_s = ROUTE_TEMPORARY_TTL_S;
    } else if (set->sts_host) {
        route_fail(&result, ROUTE_TEMPORARY, CLASS_TLS_REQUIRED, 451, "4.7.5",
                   "the MTA-STS policy of %s allows none of its MX hosts, %s for one", site->override_domain ? site->override_domain : name,
                   set->sts_host->name);
        ttl_s = ROUTE_TEMPORARY_TTL_S;
    } else if (gather->failed) {
        route_fail(&result, ROUTE_TEMPORARY, CLASS_DNS_FAILURE, 451, "4.4.3", "addresses of %s: %s", name, gather->why);
        ttl_s = ROUTE_TEMPORARY_TTL_S;
    } else if (site->relay) {
        /* Never permanent: a wrong relay is the operator's fault, not the recipient's. */
        route_fail(&result, ROUTE_TEMPORARY, CLASS_SYSTEM_ERROR, 451, "4.4.4",
                   "the relay %s has no usable address; look at `relays` in bypost.yaml", name);
        ttl_s = ROUTE_TEMPORARY_TTL_S;
    } else if (set->prohibited) {
        route_fail(&result, ROUTE_PERMANENT, CLASS_BAD_DOMAIN, 550, "5.7.1",
                   "all addresses of %s are prohibited ones (loopback, local or dns.prohibited_hosts)", name);
    } else {
        route_fail(&result, ROUTE_PERMANENT, CLASS_BAD_DOMAIN, 550, "5.4.4", "no host of %s has a usable %s", name,
                   site->route->use_ipv6 ? "address" : "IPv4 address, and no pool has an IPv6 one");
    }
    site->fresh_until_us = now_us + (uint64_t)ttl_s * 1000000;
    bool policy = !set->loop && (set->dane_failed || set->sts_host);
    if (policy && site->site.endpoint_count > 0) { /* what waits must not go where it may not go any more */
        site->site.endpoint_count = 0;
        site->site.generation++;
    }
    if (result.status == ROUTE_TEMPORARY && !policy && !site->failure && site->site.endpoint_count > 0 && now_us < site->stale_until_us)
        return; /* the last good answer serves on */
    free(site->failure);
    site->failure = route_result_copy(&result);
    site->stale_until_us = 0;
    if (!site->failure)
        site->site.endpoint_count = 0; /* told as a temporary failure */
}

/* "DANE: 2 TLSA records of mx1.example.net, none of mx2.example.net" */
static void describe_dane(struct site_state *site, const struct gather *gather) {
    char *out = site->site.dane;
    size_t room = sizeof site->site.dane, used = 0;
    static const char *const WORDS[] = {"insecure: ", "none of ", NULL, "only unusable ones of ", "unknown, skipped: "};
    out[0] = '\0';
    for (uint32_t i = 0; site->dane && i < site->host_count && used < room; i++) {
        const struct gather_host *host = &gather->hosts[i];
        used += (size_t)snprintf(out + used, room - used, "%s", i > 0 ? ", " : "DANE: ");
        if (used < room && host->dane == HOST_DANE_RECORDS)
            used += (size_t)snprintf(out + used, room - used, "%u TLSA record%s of %s", host->tlsa_count, host->tlsa_count > 1 ? "s" : "",
                                     site->hosts[i].name);
        else if (used < room)
            used += (size_t)snprintf(out + used, room - used, "%s%s", WORDS[host->dane], site->hosts[i].name);
    }
}

/* For reports: the records in use, and what was wrong with the others. */
static void report_dane(const struct site_state *site, const struct gather *gather) {
    char *lines = NULL;
    size_t bytes = 0;
    FILE *out = site->dane && site->site.report && site->reports.policy ? open_memstream(&lines, &bytes) : NULL;
    if (!out)
        return;
    bool any = false;
    for (uint32_t i = 0; i < site->host_count; i++) {
        const struct gather_host *host = &gather->hosts[i];
        any = any || host->dane == HOST_DANE_RECORDS;
        for (uint32_t j = 0; j < host->tlsa_count; j++) {
            fprintf(out, "_%u._tcp.%s. IN TLSA %u %u %u ", site_port(site, &site->hosts[i]), host->base, host->tlsa[j].usage,
                    host->tlsa[j].selector, host->tlsa[j].matching);
            for (uint32_t k = 0; k < host->tlsa[j].length; k++)
                fprintf(out, "%02x", host->tlsa[j].data[k]);
            fputc('\n', out);
        }
        if (host->dane == HOST_DANE_FAILED)
            site_flaw(site, host->dnssec ? ROUTE_FLAW_DNSSEC_INVALID : ROUTE_FLAW_TLSA_INVALID, site->hosts[i].name, host->why);
        if (host->dane == HOST_DANE_UNUSABLE)
            site_flaw(site, ROUTE_FLAW_TLSA_INVALID, site->hosts[i].name, "no TLSA record is usable");
    }
    if (fclose(out) == 0 && any)
        site->reports.policy(site->reports.context, site->site.report, ROUTE_POLICY_TLSA, lines);
    free(lines);
}

void site_resolved(struct site_state *site) {
    struct route *route = site->route;
    struct gather *gather = site->gather;
    struct endpoint_set *set = endpoints_build(site, gather);
    site->gather = NULL;
    gather->failed = gather->failed || !set;
    describe_dane(site, gather);
    report_dane(site, gather);
    if (set && set->sts_host)
        site_flaw(site, ROUTE_FLAW_STS_MX, set->sts_host->name, "the MTA-STS policy does not allow this MX host");
    if (set && set->count > 0) {
        uint32_t ttl_s = route_clamp_ttl(gather->ttl_s, ROUTE_TTL_MAX_S);
        site->fresh_until_us = route_now_us() + (uint64_t)ttl_s * 1000000;
        site->stale_until_us = site->fresh_until_us + (uint64_t)ROUTE_STALE_MAX_S * 1000000;
        free(site->failure);
        site->failure = NULL;
        if (endpoints_differ(&site->site, set)) {
            memcpy(site->site.endpoints, set->endpoints, sizeof set->endpoints);
            site->site.endpoint_count = set->count;
            site->site.generation++;
        }
    } else if (set) {
        site_fail(site, set, gather);
    }
    free(set);
    gather_free(gather);
    site_hold(&site->site);
    struct domain_entry *entry;
    struct domain_list ready = TAILQ_HEAD_INITIALIZER(ready);
    TAILQ_CONCAT(&ready, &site->waiting, on_site);
    while ((entry = TAILQ_FIRST(&ready))) {
        TAILQ_REMOVE(&ready, entry, on_site);
        entry->awaits = NULL;
        entry_site_ready(route, entry);
    }
    site_release(&site->site);
}

void site_resolve(struct site_state *site) {
    gather_start(site);
}
