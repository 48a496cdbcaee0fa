/* endpoints.c: RFC 5321 5.1 for the order, RFC 7672 2.2 and RFC 8461 4.1 for what is left out and what TLS the rest asks for. */
#include "endpoints.h"

#include "control/config/address.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

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
    if (site->is_public && !site->relay && route_is_prohibited(site->route, &address)) {
        set->prohibited = true;
        return true;
    }
    candidates->items[candidates->count].address = address;
    candidates->items[candidates->count++].host = host;
    return true;
}

static bool policy_enforced(const struct site_state *site) {
    return site->policy && site->policy->mode == STS_ENFORCE;
}

/* DANE goes before MTA-STS: usable records decide by themselves (RFC 8461 section 2). */
static bool host_wanted(const struct site_state *site, const struct gather *gather, uint32_t at, struct endpoint_set *set) {
    const struct gather_host *host = &gather->hosts[at];
    if (host->dane == HOST_DANE_FAILED) {
        set->dane_failed = host;
        set->dane_host = &site->hosts[at];
        return false;
    }
    if (host->dane != HOST_DANE_RECORDS && policy_enforced(site) && !sts_policy_allows(site->policy, site->hosts[at].name)) {
        set->sts_host = &site->hosts[at];
        return false;
    }
    return true;
}

static void endpoint_protect(const struct site_state *site, struct site_endpoint *endpoint, const struct gather_host *host) {
    static_assert(sizeof endpoint->name == sizeof host->base, "an endpoint may bear the name whose records protect it");
    switch (host->dane) {
    case HOST_DANE_RECORDS:
        endpoint->tls = PATH_TLS_DANE;
        endpoint->tlsa_count = host->tlsa_count;
        memcpy(endpoint->tlsa, host->tlsa, sizeof endpoint->tlsa);
        memcpy(endpoint->name, host->base, sizeof endpoint->name); /* SNI and reference name (RFC 7672 3.2.2, 8.1) */
        return;
    case HOST_DANE_UNUSABLE:
        endpoint->tls = PATH_TLS_ENCRYPT;
        break;
    case HOST_DANE_ABSENT:
        endpoint->tls = PATH_TLS_MAY;
        break;
    case HOST_DANE_OFF:
    case HOST_DANE_FAILED:
        break;
    }
    if (policy_enforced(site))
        endpoint->tls = PATH_TLS_VERIFY;
}

static void endpoint_add(const struct site_state *site, const struct gather *gather, struct endpoint_set *set,
                         const struct candidates *candidates, uint32_t at) {
    const struct mx_host *host = &site->hosts[candidates->items[at].host];
    struct site_endpoint *endpoint = &set->endpoints[set->count++];
    memset(endpoint, 0, sizeof *endpoint);
    endpoint->address = candidates->items[at].address;
    endpoint->address.port = site_port(site, host);
    endpoint->preference = host->preference;
    static_assert(sizeof endpoint->name == sizeof host->name, "an endpoint bears its host's name");
    memcpy(endpoint->name, host->name, sizeof endpoint->name);
    endpoint_protect(site, endpoint, &gather->hosts[candidates->items[at].host]);
}

/* RFC 5321 5.1: by preference, shuffled within one; v4 and v6 in turn, so that a broken family costs one connect and not all of them. */
static void build(struct site_state *site, const struct gather *gather, struct endpoint_set *set, struct candidates *v4,
                  struct candidates *v6) {
    for (uint32_t first = 0; first < site->host_count && !set->loop;) {
        uint32_t end = first;
        v4->count = v6->count = 0;
        for (; end < site->host_count && site->hosts[end].preference == site->hosts[first].preference; end++) {
            const struct gather_host *host = &gather->hosts[end];
            if (host->v4_count + host->v6_count > 0 && !host_wanted(site, gather, end, set))
                continue;
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
                endpoint_add(site, gather, set, v4, i);
            if (i < v6->count && set->count < SITE_ENDPOINTS_MAX)
                endpoint_add(site, gather, set, v6, i);
        }
        first = end;
    }
}

struct endpoint_set *endpoints_build(struct site_state *site, const struct gather *gather) {
    struct endpoint_set *set = calloc(1, sizeof *set);
    struct candidates *candidates = calloc(2, sizeof *candidates);
    if (set && candidates) {
        build(site, gather, set, &candidates[0], &candidates[1]);
    } else {
        free(set);
        set = NULL;
    }
    free(candidates);
    return set;
}

static bool endpoint_same(const struct site_endpoint *left, const struct site_endpoint *right) {
    return left->preference == right->preference && left->address.port == right->address.port &&
           address_equal(&left->address, &right->address) && strcmp(left->name, right->name) == 0 && left->tls == right->tls &&
           left->tlsa_count == right->tlsa_count && memcmp(left->tlsa, right->tlsa, sizeof left->tlsa) == 0;
}

bool endpoints_differ(const struct site *site, const struct endpoint_set *set) {
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
