/* site.c: sites, their limits and provider, and the endpoints that their hosts' addresses make. */
#include "state.h"

#include "control/config/address.h"
#include <arpa/inet.h>
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SMTP_PORT = 25 };

struct gather_host {
    uint32_t v4_count, v6_count;
    uint8_t v4[HOST_ADDRESSES_MAX][4], v6[HOST_ADDRESSES_MAX][16];
};

struct gather_question {
    struct gather *gather;
    uint32_t host;
    uint8_t family;
    struct dns_question *question;
};

struct gather {
    struct site_state *site;
    uint32_t pending;
    uint32_t ttl_s;
    bool failed;
    char why[96];
    struct gather_host hosts[MX_HOSTS_MAX];
    struct gather_question questions[MX_HOSTS_MAX * 2];
    uint32_t question_count;
};

/* The endpoints that came out, before they are compared with those that the site has. */
struct endpoint_set {
    uint32_t count;
    bool loop, prohibited;
    struct site_endpoint endpoints[SITE_ENDPOINTS_MAX];
};

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

void site_reconfigure(struct site_state *site) {
    const struct config *config = site->route->config;
    relay_renew(site, config);
    const struct shaping_provider *provider = hosts_provider(config, site->hosts, site->host_count);
    const struct shaping_limits *base = base_limits(config, provider);
    const struct shaping_limits *limits = base;
    if (site->override_domain)
        limits = config_limits(config, site->override_domain, provider);
    for (uint32_t i = 0; i < site->host_count && limits == base; i++)
        limits = config_limits(config, site->hosts[i].name, provider);
    site->site.provider = provider;
    site->site.limits = limits;
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

static void gather_free(struct gather *gather) {
    for (uint32_t i = 0; i < gather->question_count; i++)
        if (gather->questions[i].question)
            dns_forget(gather->questions[i].question);
    free(gather);
}

void site_free(struct site_state *site) {
    if (site->route) {
        table_remove(&site->route->sites, &site->node);
        if (site->idle)
            TAILQ_REMOVE(&site->route->by_idle, site, by_idle);
    }
    if (site->gather)
        gather_free(site->gather);
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

struct site_state *site_of_set(struct route *route, const struct mx_set *set, const char *override_domain, const char *relay_name,
                               const struct config_relay *relay, bool is_public) {
    static const char EMPTY[] = "";
    size_t key_bytes = MX_KEY_BYTES + 3 * DOMAIN_BYTES;
    /* One relay's credentials and TLS settings must not serve another's mail, though the hosts be the same. */
    const char *own_relay = relay && config_relay_has_settings(relay) ? relay->domain : EMPTY;
    char *key = malloc(key_bytes);
    if (!key)
        return NULL;
    int head = snprintf(key, key_bytes, "%s %s %c %s\n", override_domain ? override_domain : EMPTY, relay_name ? "relay" : "mx",
                        is_public ? 'p' : 't', own_relay);
    size_t key_length = (size_t)head + mx_key(set, key + head, key_bytes - (size_t)head);
    uint64_t hash = table_hash(&route->sites, key, key_length);
    for (struct table_node *node = table_first(&route->sites, hash); node; node = table_next(node)) {
        struct site_state *site = TABLE_ENTRY(node, struct site_state, node);
        if (strcmp(site->key, key) == 0) {
            free(key);
            relay_adopt(site, relay);
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
    site->is_public = is_public;
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
    site->idle = true; /* until somebody holds it */
    site->idle_since_us = route_now_us();
    TAILQ_INSERT_TAIL(&route->by_idle, site, by_idle);
    return site;
}

static bool is_prohibited(const struct route *route, const struct config_address *address) {
    if (ip_prohibited(address))
        return true;
    for (uint32_t i = 0; i < route->prohibited_count; i++)
        if (address_on_link(&route->prohibited[i], address))
            return true;
    return false;
}

/* The addresses of one preference in the order to try them. */
struct candidates {
    uint32_t count;
    struct {
        struct config_address address;
        uint32_t host;
    } items[MX_HOSTS_MAX * HOST_ADDRESSES_MAX];
};

static void candidates_shuffle(struct route *route, struct candidates *candidates) {
    for (uint32_t i = candidates->count; i > 1; i--) {
        uint32_t j = (uint32_t)(route_random(route) % i);
        typeof(candidates->items[0]) swap = candidates->items[i - 1];
        candidates->items[i - 1] = candidates->items[j];
        candidates->items[j] = swap;
    }
}

/* False: the address is one of our own, which ends the list here (RFC 5321 5.1). */
static bool candidates_add(const struct site_state *site, struct candidates *candidates, struct endpoint_set *set, uint32_t host,
                           uint8_t family, const uint8_t *bytes) {
    struct config_address address = {.family = family, .prefix_length = (uint8_t)(family == 6 ? 128 : 32)};
    memcpy(address.bytes, bytes, family == 6 ? 16 : 4);
    if (!site->relay && route_is_own_address(site->route, &address)) {
        set->loop = true;
        return false;
    }
    if (site->is_public && !site->relay && is_prohibited(site->route, &address)) {
        set->prohibited = true;
        return true;
    }
    candidates->items[candidates->count].address = address;
    candidates->items[candidates->count++].host = host;
    return true;
}

static void endpoint_add(const struct site_state *site, struct endpoint_set *set, const struct candidates *candidates, uint32_t at) {
    const struct mx_host *host = &site->hosts[candidates->items[at].host];
    struct site_endpoint *endpoint = &set->endpoints[set->count++];
    memset(endpoint, 0, sizeof *endpoint);
    endpoint->address = candidates->items[at].address;
    endpoint->address.port = host->port ? host->port : site->site.limits->port ? site->site.limits->port : SMTP_PORT;
    endpoint->preference = host->preference;
    static_assert(sizeof endpoint->name == sizeof host->name, "an endpoint bears its host's name");
    memcpy(endpoint->name, host->name, sizeof endpoint->name);
}

/* RFC 5321 5.1: by preference, shuffled within one; v4 and v6 in turn, so that a broken family costs one connect and not all of them. */
static void endpoints_build(struct site_state *site, const struct gather *gather, struct endpoint_set *set, struct candidates *v4,
                            struct candidates *v6) {
    for (uint32_t first = 0; first < site->host_count && !set->loop;) {
        uint32_t end = first;
        v4->count = v6->count = 0;
        for (; end < site->host_count && site->hosts[end].preference == site->hosts[first].preference; end++) {
            const struct gather_host *host = &gather->hosts[end];
            for (uint32_t i = 0; i < host->v4_count && !set->loop; i++)
                candidates_add(site, v4, set, end, 4, host->v4[i]);
            for (uint32_t i = 0; i < host->v6_count && !set->loop; i++)
                candidates_add(site, v6, set, end, 6, host->v6[i]);
        }
        if (set->loop)
            break;
        candidates_shuffle(site->route, v4);
        candidates_shuffle(site->route, v6);
        for (uint32_t i = 0; i < v4->count || i < v6->count; i++) {
            if (i < v4->count && set->count < SITE_ENDPOINTS_MAX)
                endpoint_add(site, set, v4, i);
            if (i < v6->count && set->count < SITE_ENDPOINTS_MAX)
                endpoint_add(site, set, v6, i);
        }
        first = end;
    }
}

static bool endpoint_same(const struct site_endpoint *left, const struct site_endpoint *right) {
    return left->preference == right->preference && left->address.port == right->address.port &&
           address_equal(&left->address, &right->address) && strcmp(left->name, right->name) == 0;
}

/* The same endpoints in another order are no change: every change costs a path. */
static bool endpoints_differ(const struct site *site, const struct endpoint_set *set) {
    if (site->endpoint_count != set->count)
        return true;
    for (uint32_t i = 0; i < set->count; i++) {
        bool found = false;
        for (uint32_t j = 0; j < site->endpoint_count && !found; j++)
            found = endpoint_same(&set->endpoints[i], &site->endpoints[j]);
        if (!found)
            return true;
    }
    return false;
}

static void site_fail(struct site_state *site, const struct endpoint_set *set, const struct gather *gather) {
    struct route_result result;
    const char *name = site->site.name;
    uint64_t now_us = route_now_us();
    uint32_t ttl_s = route_clamp_ttl(gather->ttl_s == UINT32_MAX ? 0 : gather->ttl_s, ROUTE_NEGATIVE_TTL_MAX_S);
    if (set->loop) {
        route_fail(&result, ROUTE_PERMANENT, CLASS_RELAY_DENIED, 550, "5.4.6", "mail for %s loops back to this sender's own address", name);
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
    if (result.status == ROUTE_TEMPORARY && !site->failure && site->site.endpoint_count > 0 && now_us < site->stale_until_us)
        return; /* the last good answer serves on */
    free(site->failure);
    site->failure = route_result_copy(&result);
    site->stale_until_us = 0;
    if (!site->failure)
        site->site.endpoint_count = 0; /* told as a temporary failure */
}

static void site_resolved(struct site_state *site) {
    struct route *route = site->route;
    struct gather *gather = site->gather;
    struct endpoint_set *set = calloc(1, sizeof *set);
    struct candidates *candidates = calloc(2, sizeof *candidates);
    site->gather = NULL;
    if (set && candidates)
        endpoints_build(site, gather, set, &candidates[0], &candidates[1]);
    else
        gather->failed = true;
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
    free(candidates);
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

static void gather_done(struct gather *gather) {
    if (--gather->pending == 0)
        site_resolved(gather->site);
}

static void on_addresses(void *context, const struct dns_answer *answer) {
    struct gather_question *question = context;
    struct gather *gather = question->gather;
    struct gather_host *host = &gather->hosts[question->host];
    question->question = NULL;
    if (answer->status == DNS_FAILED) {
        gather->failed = true;
        snprintf(gather->why, sizeof gather->why, "%s", answer->why);
    } else if (answer->ttl_s < gather->ttl_s) {
        gather->ttl_s = answer->ttl_s;
    }
    for (uint32_t i = 0; i < answer->count; i++) {
        if (question->family == 4 && answer->lengths[i] == 4 && host->v4_count < HOST_ADDRESSES_MAX)
            memcpy(host->v4[host->v4_count++], answer->data[i], 4);
        if (question->family == 6 && answer->lengths[i] == 16 && host->v6_count < HOST_ADDRESSES_MAX)
            memcpy(host->v6[host->v6_count++], answer->data[i], 16);
    }
    gather_done(gather);
}

static void gather_ask(struct gather *gather, uint32_t host, uint8_t family) {
    struct gather_question *question = &gather->questions[gather->question_count++];
    question->gather = gather;
    question->host = host;
    question->family = family;
    gather->pending++;
    question->question =
        dns_ask(gather->site->route->dns, gather->site->hosts[host].name, family == 4 ? DNS_TYPE_A : DNS_TYPE_AAAA, on_addresses, question);
    if (!question->question) {
        gather->failed = true;
        gather->pending--;
    }
}

void site_resolve(struct site_state *site) {
    if (site->gather)
        return;
    struct gather *gather = calloc(1, sizeof *gather);
    if (!gather)
        return; /* the caller's wait ends with the next question for this site */
    site->gather = gather;
    gather->site = site;
    gather->ttl_s = UINT32_MAX;
    gather->pending = 1; /* this function's own, so that no answer finishes it early */
    for (uint32_t i = 0; i < site->host_count; i++) {
        const struct config_address *literal = &site->hosts[i].literal;
        if (literal->family == 4) {
            memcpy(gather->hosts[i].v4[gather->hosts[i].v4_count++], literal->bytes, 4);
        } else if (literal->family == 6 && site->route->use_ipv6) {
            memcpy(gather->hosts[i].v6[gather->hosts[i].v6_count++], literal->bytes, 16);
        } else if (literal->family == 0) {
            gather_ask(gather, i, 4);
            if (site->route->use_ipv6)
                gather_ask(gather, i, 6);
        }
    }
    gather_done(gather);
}
