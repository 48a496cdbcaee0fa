/* dns.h: questions to libunbound, answered on the event loop. It caches, follows CNAMEs, joins equal questions and, with a trust anchor,
 * validates DNSSEC; this bounds and times them. */
#ifndef CONTROL_ROUTE_DNS_H
#define CONTROL_ROUTE_DNS_H

#include "control/config/config.h"
#include <event2/event.h>
#include <stdbool.h>

enum {
    DNS_TYPE_A = 1,
    DNS_TYPE_CNAME = 5,
    DNS_TYPE_MX = 15,
    DNS_TYPE_TXT = 16,
    DNS_TYPE_AAAA = 28,
    DNS_TYPE_DNSKEY = 48,
    DNS_TYPE_TLSA = 52
};
/* Questions with libunbound at a time (its own table holds 1,024); more wait in line. */
enum { DNS_IN_FLIGHT_MAX = 768, DNS_TIMEOUT_DEFAULT_MS = 10000 };

enum dns_status {
    DNS_FOUND,
    DNS_NO_DATA, /* the name exists, without records of this type */
    DNS_NO_NAME, /* NXDOMAIN */
    DNS_FAILED,  /* SERVFAIL, REFUSED, bogus, no answer in time: temporary */
};

struct dns_answer {
    enum dns_status status;
    uint32_t ttl_s;
    uint32_t count;     /* records of the type that was asked for */
    uint8_t **data;     /* [count] RDATA, good during the call */
    const int *lengths; /* [count] bytes */
    const char *why;    /* DNS_FAILED: in words */
    /* DNSSEC, with a trust anchor: `secure` holds for what was found and for the proof that there is nothing, and for every CNAME on the
     * way. A bogus answer is DNS_FAILED with `bogus`. */
    bool secure, bogus;
    const char *canonical; /* the name behind the CNAMEs, without a dot at its end; the name itself without one. NULL when unknown */
};

struct dns_settings {
    const struct config_address *servers; /* port 0: 53. None: those of /etc/resolv.conf */
    uint32_t server_count;
    uint32_t timeout_ms;           /* 0: DNS_TIMEOUT_DEFAULT_MS */
    const char *trust_anchor_file; /* zone file of DNSKEY or DS records; NULL: DNSSEC is not validated, nothing is secure */
};

struct dns;
struct dns_question;

/* NULL with a sentence in `error`. */
struct dns *dns_create(struct event_base *base, const struct dns_settings *settings, char *error, size_t error_bytes);
/* Forgets the questions that are still open. */
void dns_destroy(struct dns *dns);
/* Asks by other settings from here on; questions in flight are asked again there. 0, or -EINVAL with the old ones kept. */
int dns_reconfigure(struct dns *dns, const struct dns_settings *settings, char *error, size_t error_bytes);
/* `changed` is told when the name servers are found to strip DNSSEC, so that every answer is bogus (why: in words), and when they stop
 * (NULL). The keys of the trust anchor are asked for at the start and after bogus answers. */
void dns_watch(struct dns *dns, void (*changed)(void *context, const char *why), void *context);
/* `done` is called once, from the event loop, never from inside this call. NULL: out of memory. */
struct dns_question *dns_ask(struct dns *dns, const char *name, int type, void (*done)(void *context, const struct dns_answer *answer),
                             void *context);
/* Drops a question before its answer: `done` is not called. */
void dns_forget(struct dns_question *question);

#endif
