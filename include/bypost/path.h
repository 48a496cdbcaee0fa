/* path.h: how to reach one site from one pool of sources. A path's record is immutable once live: control publishes another index and
 * retires the old one, and reuses it only when every worker has acknowledged. What changes while a path lives is in its cells and rests. */
#ifndef BYPOST_PATH_H
#define BYPOST_PATH_H

#include <assert.h>
#include <stdatomic.h>
#include <stdint.h>

enum {
    PATH_BYTES = 8192,
    PATH_ENDPOINTS_MAX = 16,
    PATH_SOURCES_MAX = 32,
    PATH_STRINGS_BYTES = 6912,
    PATH_TLSA_MAX = 8,      /* records of an endpoint */
    PATH_TEXT_MAX = 255,    /* a string of a path, without its NUL ... */
    PATH_SECRET_MAX = 3072, /* ... and the one at auth_secret: tokens are long */
};

enum path_state { PATH_FREE, PATH_LIVE, PATH_RETIRED };

/* What must be so before mail goes to an endpoint (SMTP.md section 1). Each endpoint has its own, because with DANE one MX host may have
 * TLSA records and the next may not. */
enum path_tls {
    PATH_TLS_NONE,    /* never TLS */
    PATH_TLS_MAY,     /* TLS where offered, any certificate; after a failed handshake another connection without (RFC 7435) */
    PATH_TLS_ENCRYPT, /* TLS or no mail, any certificate */
    PATH_TLS_VERIFY,  /* TLS with a certificate of a trusted chain for one of the names */
    PATH_TLS_DANE,    /* TLS with a certificate that a TLSA record names (RFC 7672) */
    PATH_TLS_LEVELS
};

enum path_flag {
    PATH_IMPLICIT_TLS = 1,   /* TLS from the first byte (RFC 8314: port 465); the endpoint's level is ENCRYPT or more */
    PATH_TLS_TESTING = 2,    /* an MTA-STS policy in mode testing: what VERIFY would refuse is told by an event, and the mail goes */
    PATH_AUTH_PLAINTEXT = 4, /* credentials may go over a connection without TLS: the configuration says so */
    PATH_NO_CHUNKING = 8,    /* never BDAT, also where it is offered */
};

/* Bits of auth_mechanisms. */
enum path_auth { PATH_AUTH_PLAIN = 1, PATH_AUTH_LOGIN = 2, PATH_AUTH_CRAM_MD5 = 4, PATH_AUTH_XOAUTH2 = 8, PATH_AUTH_OAUTHBEARER = 16 };

/* A TLSA record (RFC 6698), in `strings` at the endpoint's `tlsa`, one behind the other, unaligned. Control gives only usable ones: usage 2
 * or 3, and matching 1 or 2; a record of matching 0 is given as the SHA-256 of its data, which is the same. */
struct path_tlsa {
    uint8_t usage, selector, matching;
    uint8_t length;   /* 32 or 64 */
    uint8_t data[64]; /* unused bytes zero */
};

/* Receiving addresses in the order to try them. Names are offsets in `strings` of NUL-terminated host names. */
struct path_endpoint {
    uint8_t address[16]; /* network byte order; IPv4 in the first four */
    uint8_t family;      /* 4 or 6 */
    uint8_t tls;         /* enum path_tls */
    uint16_t port;       /* host byte order */
    uint16_t preference; /* of its MX */
    uint16_t name;       /* of the host: sent as SNI and verified. VERIFY and DANE need one */
    uint16_t tlsa;       /* DANE: offset of struct path_tlsa[tlsa_count] */
    uint8_t tlsa_count;
    uint8_t reserved[5];
};
static_assert(sizeof(struct path_endpoint) == 32, "half a line");

struct path_source {
    uint8_t address[16];
    uint8_t family;
    uint8_t reserved;
    uint16_t ehlo; /* offset in `strings`: the name in EHLO */
};

/* SMTP.md section 1, in milliseconds. */
struct path_timeouts {
    uint32_t connect, banner, ehlo, mail, rcpt, data, block, final, rset, quit, idle, reserved;
};

struct path {
    _Alignas(64) _Atomic uint64_t word; /* generation << 32 | enum path_state; control writes */
    uint32_t endpoint_count, source_count;
    uint32_t max_deliveries_per_connection; /* 0: no limit */
    uint32_t max_recipients_per_transaction;
    uint32_t pipelined_transactions; /* at least 1 */
    uint8_t flags;                   /* enum path_flag */
    uint8_t auth_mechanisms;         /* enum path_auth: those that may be used; 0 with auth_user: all */
    uint8_t tls_version_min;         /* 12 or 13; 0: 12 */
    uint8_t tls_identity;            /* client certificate: place in the dataplane's list from 1; 0: none */
    uint16_t site;                   /* offset in `strings`: the site's name, for logs */
    uint16_t auth_user,
        auth_secret;       /* offsets in `strings`, 0 for none; the secret is a password, or the token of XOAUTH2 and OAUTHBEARER */
    uint16_t verify_names; /* offset of further names that a certificate may be for, NUL-terminated each, an empty one ends them; 0: none */
    struct path_timeouts timeouts;
    uint32_t
        broken_tls_s; /* MAY: so long an endpoint is not asked for TLS after a handshake failed there; 0: each connection tries again */
    uint8_t reserved2[36];
    struct path_endpoint endpoints[PATH_ENDPOINTS_MAX];
    struct path_source sources[PATH_SOURCES_MAX];
    char strings[PATH_STRINGS_BYTES]; /* offset 0 is the empty string */
};
static_assert(sizeof(struct path) == PATH_BYTES, "a path record is 8 KiB");

/* Control's side of one (path, worker). */
struct path_order_cell {
    _Alignas(64) _Atomic uint32_t demand; /* deliveries that wait for this path */
    _Atomic uint32_t sessions_allowed;    /* at most so many sessions on this worker */
    _Atomic uint32_t connect_interval_us; /* at least so long between two connects of this worker; 0: as fast as wanted */
    _Atomic uint32_t hinted;              /* 1: a RING_PATH entry is on its way; the worker clears it before it looks */
};
/* The worker's side. Credit = ready_capacity - the orders that control has given to this (path, worker) and has no outcome of yet.
 * Control does that subtraction itself, because only it knows without a race what is still in the ring. */
struct path_worker_cell {
    _Alignas(64) _Atomic uint32_t ready_capacity; /* ready sessions x (pipelined_transactions + 1) */
    _Atomic uint32_t sessions_open;               /* connecting, talking or idle */
    _Atomic uint32_t sessions_ready;              /* past EHLO and able to take an order */
    _Atomic uint32_t orders_held;                 /* claimed and unanswered */
    _Atomic uint32_t acknowledged_generation;     /* the retired generation of this path that the worker has let go of */
    _Atomic uint32_t hinted;                      /* 1: a RING_CREDIT entry is on its way; control clears it before it looks */
    _Atomic uint64_t sessions_opened_total;
    _Atomic uint64_t sessions_secured_total; /* of these, became ready under TLS as their endpoint's level asks: for TLS-RPT (RFC 8460) */
};
struct path_cell {
    struct path_order_cell order;
    struct path_worker_cell worker;
};
static_assert(sizeof(struct path_cell) == 128, "two lines, one a writer");

/* Rests, written by control, CLOCK_MONOTONIC us: no new connection to that endpoint, or from that source, before then. */
struct path_rests {
    _Alignas(64) _Atomic uint64_t endpoint_us[PATH_ENDPOINTS_MAX];
    _Atomic uint64_t source_us[PATH_SOURCES_MAX];
};
static_assert(sizeof(struct path_rests) == 384, "six lines");

/* What happened that belongs to no order. */
enum path_event_kind {
    PATH_EVENT_CONNECT_FAILED,   /* refused, reset, timed out, unreachable: `detail` is an enum tcp_error */
    PATH_EVENT_GREETING_REFUSED, /* 4xx or 5xx at the banner or EHLO */
    PATH_EVENT_CLOSED_EARLY,     /* EOF, reset or stall before the session was ready; with a stage from MAIL on: within a transaction, twice
                                    without a verdict */
    PATH_EVENT_SHUTDOWN_REPLY,   /* 421 between transactions or while idle */
    PATH_EVENT_TLS_FAILED,       /* `detail` is an enum tls_failure; under MAY, and in testing, the mail goes nevertheless */
    PATH_EVENT_AUTH_FAILED,      /* the server refused the credentials, or offers no mechanism that may be used */
    PATH_EVENT_PORTS_EXHAUSTED,
    PATH_EVENT_PROTOCOL_ERROR, /* garbage, or a reply that nothing asked for */
    PATH_EVENT_READY,          /* a session became ready: the endpoint works */
    PATH_EVENT_KINDS
};
const char *path_event_text(unsigned kind);

/* Why TLS was not to be had; RFC 8460 4.3 has a word for most. */
enum tls_failure {
    TLS_FAILURE_NONE,
    TLS_FAILURE_NOT_OFFERED,   /* no STARTTLS in the EHLO reply */
    TLS_FAILURE_REFUSED,       /* STARTTLS was answered 4xx or 5xx */
    TLS_FAILURE_INJECTED,      /* plaintext behind the reply to STARTTLS (RFC 3207 section 6) */
    TLS_FAILURE_HANDSHAKE,     /* alert, no common version or cipher, garbage, the connection's end */
    TLS_FAILURE_TIMEOUT,       /* the handshake was not over in time */
    TLS_FAILURE_HOST_MISMATCH, /* the certificate is for other names */
    TLS_FAILURE_EXPIRED,       /* or not valid yet */
    TLS_FAILURE_NOT_TRUSTED,   /* no chain to a trusted root */
    TLS_FAILURE_TLSA_MISMATCH, /* no TLSA record names the certificate */
    TLS_FAILURE_LOCAL,         /* this side: memory, an identity that is not loaded */
    TLS_FAILURES
};
const char *tls_failure_text(unsigned failure);

enum { PATH_EVENT_TEXT_BYTES = 192 };
struct path_event {
    uint64_t sequence; /* counts up for each ring; checked by the reader */
    uint64_t time_us;  /* CLOCK_REALTIME */
    uint32_t path, path_generation;
    uint8_t kind, stage, endpoint, source;
    uint16_t code;
    uint16_t enhanced[3];
    uint16_t text_length;
    uint16_t worker;
    uint32_t detail;
    uint8_t reserved[16];
    char text[PATH_EVENT_TEXT_BYTES];
};
static_assert(sizeof(struct path_event) == 256, "four lines");

static inline uint64_t path_word(uint32_t generation, enum path_state state) {
    return (uint64_t)generation << 32 | (uint64_t)state;
}
static inline uint32_t path_word_generation(uint64_t word) {
    return (uint32_t)(word >> 32);
}
static inline enum path_state path_word_state(uint64_t word) {
    return (enum path_state)(word & 0xff);
}

#endif
