/* https.h: bounded HTTPS on the event loop (libcurl): policies are fetched and reports are posted with it. WebPKI always; no redirects, no
 * proxy, no cookies, no credentials, nothing of the environment. Names are resolved by dns.c. */
#ifndef CONTROL_ROUTE_HTTPS_H
#define CONTROL_ROUTE_HTTPS_H

#include "dns.h"
#include <stdbool.h>
#include <stddef.h>

enum {
    HTTPS_AT_A_TIME = 16,     /* more wait in line */
    HTTPS_WAITING_MAX = 4096, /* past it: refused */
    HTTPS_TIMEOUT_S = 60,     /* from the first address to the last byte (RFC 8461 3.3) */
    HTTPS_ADDRESSES_MAX = 8,  /* of a host, tried in turn */
    HTTPS_ANSWER_BYTES_MAX = 65536,
    HTTPS_WHY_BYTES = 160,
};

enum https_status {
    HTTPS_GOOD,       /* 2xx; for a GET: 200 with text/plain */
    HTTPS_FAILED,     /* no address, no connection, another status or type, too long, no time */
    HTTPS_UNTRUSTED,  /* the certificate is not for the host, or of no chain to a trusted root */
    HTTPS_PROHIBITED, /* the host has only addresses that may not be connected to */
};

struct https_answer {
    enum https_status status;
    const char *body; /* HTTPS_GOOD: valid during the call */
    size_t bytes;
    char why[HTTPS_WHY_BYTES]; /* else: in words */
};

struct https_request {
    const char *url;    /* https://host[:port]/...; copied */
    const char *domain; /* whose zone named the URL: a public one names no reserved host (RFC 2606), where tests may do more; NULL: none */
    const char *body;   /* NULL: a GET; copied */
    size_t body_bytes;
    const char *content_type;                                       /* of the body, a constant */
    void (*done)(void *context, const struct https_answer *answer); /* once, never from inside https_start */
    void *context;
};

/* Anybody can name a host in his zone: may it be asked (address NULL), and at this address of it? */
struct https_guard {
    bool (*may)(void *context, const char *host, const struct config_address *address); /* NULL: all */
    void *context;
};

struct https;
/* ca_file: PEM roots; NULL: the system's. NULL: no memory. `dns` must live until https_destroy. */
struct https *https_create(struct event_base *base, struct dns *dns, const char *ca_file, const struct https_guard *guard);
void https_reconfigure(struct https *https, const char *ca_file);
/* Ends what is under way; `done` is not called. */
void https_destroy(struct https *https);
/* 0; -EINVAL: no https URL with a plain name as host; -EPERM: the guard or its domain refuse the host; -ENOBUFS; -ENOMEM. */
int https_start(struct https *https, const struct https_request *request);

#endif
