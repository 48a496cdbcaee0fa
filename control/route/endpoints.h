/* endpoints.h: from what DNS says of a site's hosts to its endpoints in the order to try, each with the TLS that policy asks for. */
#ifndef CONTROL_ROUTE_ENDPOINTS_H
#define CONTROL_ROUTE_ENDPOINTS_H

#include "gather.h"

/* The endpoints that came out, before they are compared with those that the site has. */
struct endpoint_set {
    uint32_t count;
    bool loop, prohibited;
    const struct gather_host *dane_failed;      /* a host that was left out because its TLSA records cannot be known */
    const struct mx_host *dane_host, *sts_host; /* its name; a host that was left out because the MTA-STS policy does not allow it */
    struct site_endpoint endpoints[SITE_ENDPOINTS_MAX];
};

/* NULL: no memory. The caller frees it; it points into `gather`. */
struct endpoint_set *endpoints_build(struct site_state *site, const struct gather *gather);
/* The same endpoints in another order are no change: every change costs a path. */
bool endpoints_differ(const struct site *site, const struct endpoint_set *set);

#endif
