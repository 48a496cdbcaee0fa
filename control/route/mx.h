/* mx.h: a set of mail exchangers and the rules of RFC 5321 5.1 and RFC 7505 that need no DNS. */
#ifndef CONTROL_ROUTE_MX_H
#define CONTROL_ROUTE_MX_H

#include "domain.h"
#include <stddef.h>
#include <stdint.h>

/* More hosts than this serve nobody: the worst preferences are left out. */
enum { MX_HOSTS_MAX = 32, MX_KEY_BYTES = MX_HOSTS_MAX * (DOMAIN_BYTES + 16) };

struct mx_host {
    uint16_t preference;
    uint16_t port;                 /* 0: the site's */
    struct config_address literal; /* family 0: `name` is looked up */
    char name[DOMAIN_BYTES];       /* A-labels, lower case; of a literal the text */
};

struct mx_set {
    uint32_t count;
    bool null_mx; /* "." was among them */
    struct mx_host hosts[MX_HOSTS_MAX];
};

/* Adds one host, keeping the set sorted by preference, then name; a host twice keeps its better preference. Past MX_HOSTS_MAX the worst
 * falls out. */
void mx_add(struct mx_set *set, const struct mx_host *host);
/* The same with the RDATA of an MX record (RFC 1035 3.3.9): untrusted bytes. "." sets null_mx. 0; -EINVAL: malformed, or not a host name.
 */
int mx_add_rdata(struct mx_set *set, const uint8_t *rdata, size_t rdata_bytes);
/* Preferences become 0, 1, 2...: "10 a, 20 b" and "5 a, 50 b" are the same set. */
void mx_normalise(struct mx_set *set);
/* Drops the hosts whose preference is `preference` or worse (RFC 5321 5.1: from the relay's own on). */
void mx_cut(struct mx_set *set, uint16_t preference);
/* Drops the preference of the first host for which `is_self` is true, and worse. True when something was dropped. */
bool mx_cut_self(struct mx_set *set, bool (*is_self)(const void *context, const char *name), const void *context);
/* "mx1.example.net", "mx1.example.net+2": the first host and how many more. */
void mx_name(const struct mx_set *set, char *out, size_t out_bytes);
/* Every host, port and normalised preference in one text: equal keys are equal sets. Returns its length. */
size_t mx_key(const struct mx_set *set, char *out, size_t out_bytes);

#endif
