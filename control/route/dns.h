/* dns.h: questions to libunbound, answered on the event loop. It caches, follows CNAMEs and joins equal questions; this bounds and times
 * them. */
#ifndef CONTROL_ROUTE_DNS_H
#define CONTROL_ROUTE_DNS_H

#include "control/config/config.h"
#include <event2/event.h>

enum { DNS_TYPE_A = 1, DNS_TYPE_MX = 15, DNS_TYPE_AAAA = 28 };
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
};

struct dns;
struct dns_question;

/* Asks `servers` (port 0: 53), or those of /etc/resolv.conf when there are none. NULL with a sentence in `error`. */
struct dns *dns_create(struct event_base *base, const struct config_address *servers, uint32_t server_count, uint32_t timeout_ms,
                       char *error, size_t error_bytes);
/* Forgets the questions that are still open. */
void dns_destroy(struct dns *dns);
/* Asks other servers from here on; questions in flight are asked again there. 0, or -EINVAL with the old servers kept. */
int dns_reconfigure(struct dns *dns, const struct config_address *servers, uint32_t server_count, uint32_t timeout_ms, char *error,
                    size_t error_bytes);
/* `done` is called once, from the event loop, never from inside this call. NULL: out of memory. */
struct dns_question *dns_ask(struct dns *dns, const char *name, int type, void (*done)(void *context, const struct dns_answer *answer),
                             void *context);
/* Drops a question before its answer: `done` is not called. */
void dns_forget(struct dns_question *question);

#endif
