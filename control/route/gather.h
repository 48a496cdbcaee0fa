/* gather.h: what DNS says of the hosts of a site: their addresses and, where DANE is on, their TLSA records. */
#ifndef CONTROL_ROUTE_GATHER_H
#define CONTROL_ROUTE_GATHER_H

#include "dane.h"
#include "state.h"

/* What DANE makes of a host (RFC 7672 section 2). */
enum host_dane {
    HOST_DANE_OFF,      /* not asked: an address or an alias of it is insecure, or DANE is not on */
    HOST_DANE_ABSENT,   /* proved that there are no TLSA records, or they are insecure */
    HOST_DANE_RECORDS,  /* usable ones */
    HOST_DANE_UNUSABLE, /* secure ones, of which none can be used: TLS without verification (RFC 7672 2.2) */
    HOST_DANE_FAILED,   /* the lookup failed: the host is not to be contacted (RFC 7672 2.1.2) */
};

struct gather_host {
    uint32_t v4_count, v6_count;
    uint8_t v4[HOST_ADDRESSES_MAX][4], v6[HOST_ADDRESSES_MAX][16];
    uint32_t asking; /* address questions that are open */
    bool insecure;   /* some answer was */
    bool failed;     /* some lookup of an address failed */
    bool original;   /* TLSA is asked for at the host's own name, no more at the one behind its aliases */
    enum host_dane dane;
    char canonical[DOMAIN_BYTES]; /* behind the aliases; "" without one */
    char base[DOMAIN_BYTES];      /* HOST_DANE_RECORDS, _UNUSABLE: the name whose TLSA they are: SNI, and what a certificate is for */
    char why[96];                 /* HOST_DANE_FAILED */
    bool dnssec;                  /* HOST_DANE_FAILED: because of signatures */
    uint32_t tlsa_count;
    struct path_tlsa tlsa[PATH_TLSA_MAX];
};

struct gather_question {
    struct gather *gather;
    uint32_t host;
    int type;
    struct dns_question *question;
};

struct gather {
    struct site_state *site;
    uint32_t pending;
    uint32_t ttl_s;
    bool failed;
    char why[96];
    struct gather_question *questions; /* GATHER_QUESTIONS_MAX a host */
    uint32_t question_count;
    struct gather_host hosts[]; /* as many as the site has */
};
enum { GATHER_QUESTIONS_MAX = 5 }; /* A, AAAA, CNAME, TLSA at two names */

/* Asks for all hosts; calls site_resolved once, perhaps at once. NULL: out of memory. It is in site->gather until then. */
void gather_start(struct site_state *site);
void gather_free(struct gather *gather);
/* The port of a host of this site. */
uint16_t site_port(const struct site_state *site, const struct mx_host *host);
/* site.c: everything is answered; frees it. */
void site_resolved(struct site_state *site);

#endif
