/* tls_level.h: what TLS an endpoint of a site needs: the stronger of what the configuration asks for and of what the receiver's policy
 * does. Dispatch publishes it, shape judges failures by it. */
#ifndef CONTROL_TLS_LEVEL_H
#define CONTROL_TLS_LEVEL_H

#include "control/config/config.h"
#include "control/route/route.h"

/* A policy (MTA-STS, DANE) only raises: what it does not ask for is the configuration's to say. ENCRYPT is what TLSA records ask for of
 * which none can be used (RFC 7672 2.2). */
static inline enum path_tls tls_level_of(const struct site *site, uint32_t endpoint) {
    enum path_tls level = config_tls(site->limits, site->relay), policy = site->endpoints[endpoint].tls;
    return policy >= PATH_TLS_ENCRYPT && policy > level ? policy : level;
}

/* Does this failure (enum tls_failure) keep mail from an endpoint of this level? Below ENCRYPT the next connection goes without TLS; a
 * certificate that is not good enough matters from VERIFY on, and is else only told (RFC 8460). */
static inline bool tls_failure_stops(enum path_tls level, uint32_t failure) {
    switch (failure) {
    case TLS_FAILURE_HOST_MISMATCH:
    case TLS_FAILURE_EXPIRED:
    case TLS_FAILURE_NOT_TRUSTED:
    case TLS_FAILURE_TLSA_MISMATCH:
        return level >= PATH_TLS_VERIFY;
    default:
        return level >= PATH_TLS_ENCRYPT;
    }
}

#endif
