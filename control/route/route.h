/* route.h: recipient domain -> site. A site is the domains that share an MX set; a provider is the sites whose MX match its suffixes.
 * Providers share limits, never endpoints or policies. One struct route for each shard, on its event loop. */
#ifndef CONTROL_ROUTE_ROUTE_H
#define CONTROL_ROUTE_ROUTE_H

#include "control/config/config.h"
#include "control/outcome.h"
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

enum { SITE_ENDPOINTS_MAX = 16, SITE_NAME_BYTES = 256 };

enum {
    ROUTE_DOMAINS_MAX = 500000,     /* cached domains; the longest unused goes first */
    ROUTE_SITES_MAX = 131072,       /* sites at a time; past it: 451 4.3.1 */
    ROUTE_TTL_MIN_S = 60,           /* floor and ceiling of what DNS says */
    ROUTE_TTL_MAX_S = 3600,         /* a changed MX is seen within the hour */
    ROUTE_NEGATIVE_TTL_MAX_S = 900, /* NXDOMAIN, null MX, no address: they bounce mail, so they are asked again sooner */
    ROUTE_TEMPORARY_TTL_S = 30,     /* SERVFAIL, timeouts */
    ROUTE_STALE_MAX_S = 86400,      /* while DNS is away, a good answer serves so long after its TTL (RFC 8767) */
    ROUTE_DOMAIN_IDLE_S = 900,      /* a cached domain that nobody asks for */
    ROUTE_SITE_IDLE_S = 300,
};

struct site_endpoint {
    struct config_address address; /* with port */
    uint16_t preference;
    char name[256];    /* the MX host, to verify and to log */
    enum path_tls tls; /* what policy asks for beyond the limits: NONE (nothing), VERIFY (MTA-STS), DANE, or MAY (DANE is on, and proves
                          that there is none) */
    uint32_t tlsa_count;
    struct path_tlsa tlsa[PATH_TLSA_MAX];
};

struct site {
    uint32_t references;
    char name[SITE_NAME_BYTES];              /* the MX set in one word: "mx1.example.net+2", or the relay's name */
    const struct shaping_provider *provider; /* or NULL */
    const struct shaping_limits *limits;
    uint32_t endpoint_count;
    struct site_endpoint endpoints[SITE_ENDPOINTS_MAX]; /* in the order to try: preference, shuffled within one, v4 and v6 in turn */
    uint32_t generation;                                /* counts up when the endpoints change: dispatch publishes a new path */
    const struct config_relay *relay;                   /* or NULL; of the configuration that route has */
    bool tls_testing;                                   /* an MTA-STS policy in mode testing: failures are reported, mail goes */
    void *report;                                       /* control/report's: where its TLS results are counted, or NULL */
    char mta_sts[192]; /* in words, for people: "MTA-STS enforce, id 2026a, until 2026-12-01T00:00:00Z"; or "" */
    char dane[256];    /* "DANE: 2 TLSA records of mx1.example.net, none of mx2.example.net"; or "" */
    void *shape;       /* shape's own state of this site, or NULL */
    void *own;         /* route's own; NULL for a site that route did not make: it is never freed */
};
void site_hold(struct site *site);
/* A site without references is dropped after ROUTE_SITE_IDLE_S. It may outlive its route: then the last release frees it. */
void site_release(struct site *site);

enum route_status { ROUTE_FOUND, ROUTE_TEMPORARY, ROUTE_PERMANENT };

struct route_result {
    enum route_status status;
    struct site *site; /* ROUTE_FOUND: hold it to keep it */
    /* Otherwise what to settle with: 451 4.4.3 (DNS), 550 5.1.2 (no such domain), 556 5.1.10 (null MX), 550 5.4.4 (no address),
     * 550 5.4.6 (loop), 550 5.7.1 (sandbox, prohibited host), 451 4.7.5 (DANE or MTA-STS leave no host). */
    enum reply_class class;
    uint16_t code;
    uint16_t enhanced[3];
    char text[256];
};

/* What route tells of policies, for TLS reports (RFC 8460). */
enum route_policy { ROUTE_POLICY_NONE, ROUTE_POLICY_STS, ROUTE_POLICY_TLSA };
enum route_flaw {
    ROUTE_FLAW_DNSSEC_INVALID,
    ROUTE_FLAW_TLSA_INVALID,
    ROUTE_FLAW_STS_FETCH,
    ROUTE_FLAW_STS_INVALID,
    ROUTE_FLAW_STS_WEBPKI,
    ROUTE_FLAW_STS_MX, /* an MX host that the policy does not allow */
};
struct route_reports {
    /* A site of a domain that wants reports; rua: addresses, NUL-terminated each, an empty one ends them. What it returns is site->report.
     */
    void *(*open)(void *context, const char *domain, const char *rua);
    void (*close)(void *context, void *report); /* the site is gone */
    /* The policy that holds from here on, a line each. */
    void (*policy)(void *context, void *report, enum route_policy policy, const char *lines);
    void (*flaw)(void *context, void *report, enum route_flaw flaw, const char *host, const char *why);
    void *context;
};

struct alarms;
struct dns;
struct https;
struct route;
/* NULL with a sentence in `error`. The EHLO names and addresses of all pools are its own: found in an MX set they mean a loop. */
struct route *route_create(struct event_base *base, const struct config *config, char *error, size_t error_bytes);
/* Whoever still waits for an answer gets ROUTE_TEMPORARY here. */
void route_destroy(struct route *route);
/* The same with another configuration (reload); cached answers stay, sites get their new limits. The old configuration must live until this
 * and shape_reconfigure have returned. */
void route_reconfigure(struct route *route, const struct config *config);
/* Finds the site of a domain (lower case; U-labels are converted by IDNA) or of an address literal ("[192.0.2.1]"). `done` is called once:
 * at once when the answer is cached, else later from the event loop; the site in the result is the caller's only if it holds it. Lookups of
 * the same domain share one query. The rules are those of RFC 5321 5.1 and RFC 7505; README.md has them with the reply codes. */
void route_find(struct route *route, const char *domain, void (*done)(void *context, const struct route_result *result), void *context);
/* The same for mail that must arrive though its domain's DANE and MTA-STS fail, and that counts in no report: TLS reports themselves
 * (RFC 8460 section 3). It uses sites of its own or shared ones without policy. */
void route_find_relaxed(struct route *route, const char *domain, void (*done)(void *context, const struct route_result *result),
                        void *context);
/* This process keeps MTA-STS policies over its end, in state_directory; without it what lies there is only read. */
void route_keep_policies(struct route *route);
/* Before the first question. Both may be left out. */
void route_set_alarms(struct route *route, struct alarms *alarms);
void route_set_reports(struct route *route, const struct route_reports *reports);
/* For those who post reports: route's own, as long as it lives. */
struct https *route_https(struct route *route);

#endif
