/* state.h: what route.c, site.c and lookup.c share: cached domains, sites with their hosts, and the configuration boiled down. */
#ifndef CONTROL_ROUTE_STATE_H
#define CONTROL_ROUTE_STATE_H

#include "ip.h"
#include "dns.h"
#include "mx.h"
#include "route.h"
#include "sts.h"
#include "table.h"
#include <sys/queue.h>

enum { HOST_ADDRESSES_MAX = 16 }; /* of one family */

struct domain_entry;
TAILQ_HEAD(domain_list, domain_entry);

struct waiter {
    STAILQ_ENTRY(waiter) link;
    void (*done)(void *context, const struct route_result *result);
    void *context;
};
STAILQ_HEAD(waiter_list, waiter);

/* A domain that was asked for. It has a lookup while its MX set is being found, waits for its site while that finds addresses, and else has
 * either a site or a failure. */
struct domain_entry {
    struct table_node node;
    TAILQ_ENTRY(domain_entry) by_use;  /* route->by_use, the longest unused first */
    TAILQ_ENTRY(domain_entry) on_site; /* site->waiting */
    struct waiter_list waiters;
    struct lookup *lookup;
    struct site_state *awaits;
    struct site_state *site; /* holds a reference */
    struct route_result *failure;
    uint64_t used_us, fresh_until_us, stale_until_us;
    uint64_t epoch; /* of the configuration that it was found with */
    bool relaxed;   /* policies of the recipient's domain do not count (route_find_relaxed) */
    char name[];
};

struct gather; /* the addresses of a site being found */

struct site_state {
    struct site site;
    struct route *route; /* NULL: the site outlived it */
    struct table_node node;
    TAILQ_ENTRY(site_state) by_idle;
    bool idle;
    uint64_t idle_since_us;
    char *key;
    char *override_domain;            /* the domain whose own limits, policy or reports made this its own site, or NULL */
    bool relay;                       /* configured hosts: no rule about prohibited or own addresses */
    char *relay_domain, *relay_hosts; /* its entry in `relays`, and the hosts that stood there; NULL: none */
    bool is_public;
    uint32_t host_count;
    struct mx_host *hosts;        /* preferences normalised */
    bool dane;                    /* enable_dane, and the set itself is secure: TLSA records are asked for */
    struct sts_policy *policy;    /* MTA-STS of override_domain, or NULL */
    struct route_reports reports; /* whose `close` takes site.report */
    struct gather *gather;
    struct domain_list waiting;
    struct route_result *failure; /* NULL: the endpoints are good */
    uint64_t fresh_until_us, stale_until_us;
};
TAILQ_HEAD(site_list, site_state);

struct route {
    struct event_base *base;
    const struct config *config;
    struct dns *dns;
    struct event *sweep;
    bool closing;
    uint64_t epoch;
    uint64_t random;
    bool use_ipv6;
    uint32_t prohibited_count;
    struct config_address *prohibited;
    struct table domains, sites;
    struct domain_list by_use;
    struct site_list by_idle;
    bool use_sts; /* some limits ask for MTA-STS */
    struct https *https;
    struct sts *sts;
    struct alarms *alarms; /* or NULL */
    struct route_reports reports;
};

uint64_t route_now_us(void);
uint64_t route_random(struct route *route);
uint32_t route_clamp_ttl(uint32_t ttl_s, uint32_t max_s);
bool route_is_own_name(const void *route, const char *name);
bool route_is_own_address(const struct route *route, const struct config_address *address);
/* No public domain's mail, and no policy, may lie there. */
bool route_is_prohibited(const struct route *route, const struct config_address *address);
/* Fills a result that is not ROUTE_FOUND. */
void route_fail(struct route_result *result, enum route_status status, enum reply_class class, uint16_t code, const char *enhanced,
                const char *format, ...) __attribute__((format(printf, 6, 7)));
/* A copy on the heap, NULL when memory is short. */
struct route_result *route_result_copy(const struct route_result *result);

/* lookup.c: finds the MX set of entry->name and calls entry_found or entry_failed, perhaps at once. */
void lookup_start(struct route *route, struct domain_entry *entry);
void lookup_cancel(struct lookup *lookup);
/* route.c: takes over nothing; `ttl_s` as DNS gave it. */
void entry_found(struct route *route, struct domain_entry *entry, struct site_state *site, uint32_t ttl_s);
void entry_failed(struct route *route, struct domain_entry *entry, const struct route_result *failure, uint32_t ttl_s);
/* site.c calls it for every domain that waited. */
void entry_site_ready(struct route *route, struct domain_entry *entry);

/* What makes one set of hosts several sites: mail under one policy must not use another's sessions. */
struct site_terms {
    const char *override_domain; /* of whom it is alone, or NULL */
    const char *relay_name;      /* or NULL */
    const struct config_relay *relay;
    bool is_public;
    bool dane;                       /* enable_dane, and the set is secure */
    const struct sts_answer *policy; /* MTA-STS in mode testing or enforce, or NULL */
    const char *rua;                 /* reports are wanted (txt.h), or NULL */
};
/* site.c: the site of a set, made when there is none; NULL: too many. Not held. */
struct site_state *site_of_set(struct route *route, const struct mx_set *set, const struct site_terms *terms);
/* True when `override` limits of the domain's own make it a site of its own. */
bool site_has_own_limits(const struct config *config, const char *domain, const struct mx_set *set);
/* The limits that such a site has. override_domain: or NULL. */
const struct shaping_limits *site_limits(const struct config *config, const char *override_domain, const struct mx_host *hosts,
                                         uint32_t host_count);
/* Something about a site's policies that its domain's reports tell; nothing when they are not wanted. */
void site_flaw(const struct site_state *site, enum route_flaw flaw, const char *host, const char *why);
/* Finds its addresses unless that is under way. Then, perhaps at once, entry_site_ready for all in site->waiting. */
void site_resolve(struct site_state *site);
void site_reconfigure(struct site_state *site);
void site_free(struct site_state *site);

#endif
