/* report.h: TLS reports (RFC 8460): counts what sessions with other domains' servers came to, keeps the counts in Redis, where those of all
 * nodes add up, and sends each domain its report once a day. */
#ifndef CONTROL_REPORT_REPORT_H
#define CONTROL_REPORT_REPORT_H

#include "control/config/config.h"
#include "control/fetch/redis.h"
#include "control/route/https.h"
#include "control/route/route.h"
#include <event2/event.h>
#include <stdint.h>

enum {
    REPORT_FLUSH_S = 15, /* counts reach Redis within so long; the first look is after REPORT_FIRST_S */
    REPORT_FIRST_S = 2,
    REPORT_COUNTS_MAX = 512,       /* of a domain between two flushes: kinds of failure by host and address; past it they are not counted */
    REPORT_DOMAINS_MAX = 100000,   /* that are counted for at a time */
    REPORT_KEEP_S = 8 * 86400,     /* what Redis holds, for `bypost tls-report` */
    REPORT_DELAY_MIN_S = 60,       /* after midnight UTC, and at most so long: */
    REPORT_DELAY_MAX_S = 4 * 3600, /* RFC 8460 4.1: reports of all senders must not come at once */
};

struct report_config {
    struct event_base *base;
    const struct config *config;
    struct redis *redis; /* of shard 0 */
    struct https *https;
};

struct report;
/* NULL: no memory. With tls_reports off it counts nothing and sends nothing. */
struct report *report_create(const struct report_config *config);
/* After the last site and `https` are gone, before `redis`; what was not flushed is lost. */
void report_destroy(struct report *report);
void report_reconfigure(struct report *report, const struct config *config);
/* What route is to be given (route_set_reports). */
struct route_reports report_for_route(struct report *report);
/* So many more sessions of this site became ready under TLS as its policies ask. */
void report_secured(struct report *report, const struct site *site, uint64_t sessions);
/* A session failed at TLS: a path event of the kind PATH_EVENT_TLS_FAILED. source: or NULL. */
void report_failed(struct report *report, const struct site *site, const struct path_event *event, const struct config_address *source);
/* Writes what was counted to Redis now. */
void report_flush(struct report *report);

struct report_counters {
    uint64_t sessions, failures, dropped, mails, posts, refused;
};
const struct report_counters *report_counters(const struct report *report);

#endif
