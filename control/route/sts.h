/* sts.h: the MTA-STS policies of recipient domains: found by TXT, fetched by HTTPS, kept for their max_age over restarts (RFC 8461). */
#ifndef CONTROL_ROUTE_STS_H
#define CONTROL_ROUTE_STS_H

#include "dns.h"
#include "https.h"
#include "sts_policy.h"

enum {
    STS_DOMAINS_MAX = 200000,  /* policies kept; past it those that have ended go, then new ones are not kept */
    STS_WAIT_S = 10,           /* so long a delivery waits for a policy that is being fetched, then what is known serves */
    STS_RETRY_S = 300,         /* between two fetches that fail (RFC 8461 10.2: minutes) */
    STS_REFRESH_MAX_S = 86400, /* a policy is fetched again after a day, or half of its max_age: it must not end unseen */
};

enum sts_flaw { STS_FINE, STS_FETCH_ERROR, STS_INVALID, STS_WEBPKI_INVALID };

struct sts_answer {
    const struct sts_policy *policy; /* NULL: the domain has none. Valid during the call */
    char id[STS_ID_MAX + 1];
    uint64_t until_s;   /* CLOCK_REALTIME: so long it may be used */
    enum sts_flaw flaw; /* of the fetch just made; the policy, if any, is then the one from before */
    char why[HTTPS_WHY_BYTES];
};

struct sts_config {
    struct event_base *base;
    struct dns *dns;
    struct https *https;
    const char *state_directory; /* the policies lie in its file "mta-sts"; NULL: in memory only */
    /* The policy of a domain is another one now. */
    void (*changed)(void *context, const char *domain);
    void *context;
};

struct sts;
struct sts_query;
/* NULL: no memory. */
struct sts *sts_create(const struct sts_config *config);
void sts_destroy(struct sts *sts);
/* Writes the file from here on: one process does; others (`bypost explain`) only read it. */
void sts_keep(struct sts *sts);
/* Finds the policy of a domain; `done` once, from the event loop. A failure to fetch never fails: `done` gets what was known before, or no
 * policy. NULL: no memory. */
struct sts_query *sts_find(struct sts *sts, const char *domain, void (*done)(void *context, const struct sts_answer *answer),
                           void *context);
/* Drops a query before its answer. */
void sts_forget(struct sts_query *query);

#endif
