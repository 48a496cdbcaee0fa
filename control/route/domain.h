/* domain.h: recipient domains as DNS wants them, address literals, and the names that are reserved for tests. */
#ifndef CONTROL_ROUTE_DOMAIN_H
#define CONTROL_ROUTE_DOMAIN_H

#include "control/config/config.h"

enum { DOMAIN_BYTES = 256 }; /* a name of 253 characters, NUL, room (RFC 1035 2.3.4) */

/* Lower case, A-labels (IDNA2008 with the mapping of UTS 46, RFC 5891), no dot at the end. Address literals pass in lower case.
 * 0; -EINVAL: not a domain name. */
int domain_normalise(const char *domain, char out[DOMAIN_BYTES]);
/* A host name of letters, digits, hyphens and underscores, labels of 1 to 63, 253 at most; lower-cases into `out`. 0 or -EINVAL. */
int domain_ascii(const char *name, char out[DOMAIN_BYTES]);
/* Whether DNS can be asked for the name: labels of 1 to 63 of any bytes, 253 at most (RFC 1035 2.3.4), with or without a dot at the end. */
bool domain_is_askable(const char *name);
/* True for .test .example .invalid .localhost, example.com, example.net, example.org and what is below them (RFC 2606, RFC 6761). */
bool domain_is_reserved(const char *domain);
/* "[192.0.2.1]", "[IPv6:2001:db8::1]" (RFC 5321 4.1.3). 1: a literal, in *address; 0: not one; -EINVAL: brackets around something else. */
int domain_literal(const char *domain, struct config_address *address);

#endif
