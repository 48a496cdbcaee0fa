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
    PATH_STRINGS_BYTES = 7040,
    PATH_TEXT_MAX = 255, /* a string of a path, without its NUL */
};

enum path_state { PATH_FREE, PATH_LIVE, PATH_RETIRED };
enum path_tls { PATH_TLS_NONE, PATH_TLS_MAY, PATH_TLS_ENCRYPT, PATH_TLS_VERIFY, PATH_TLS_IMPLICIT };

/* Receiving addresses in the order to try them. `name` is an offset in `strings` of a NUL-terminated host name. */
struct path_endpoint {
    uint8_t address[16]; /* network byte order; IPv4 in the first four */
    uint8_t family;      /* 4 or 6 */
    uint8_t reserved;
    uint16_t port;       /* host byte order */
    uint16_t preference; /* of its MX */
    uint16_t name;
};

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
    uint8_t tls;                     /* enum path_tls */
    uint8_t reserved0[3];
    uint16_t site;                   /* offset in `strings`: the site's name, for logs */
    uint16_t auth_user, auth_secret; /* offsets in `strings`, 0 for none */
    uint16_t reserved1;
    struct path_timeouts timeouts;
    uint8_t reserved2[40];
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
    PATH_EVENT_CLOSED_EARLY,     /* EOF, reset or stall before the session was ready */
    PATH_EVENT_SHUTDOWN_REPLY,   /* 421 between transactions or while idle */
    PATH_EVENT_TLS_FAILED,
    PATH_EVENT_AUTH_FAILED,
    PATH_EVENT_PORTS_EXHAUSTED,
    PATH_EVENT_PROTOCOL_ERROR, /* garbage, or a reply that nothing asked for */
    PATH_EVENT_READY,          /* a session became ready: the endpoint works */
    PATH_EVENT_KINDS
};
const char *path_event_text(unsigned kind);

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
