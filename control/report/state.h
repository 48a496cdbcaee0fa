/* state.h: what report.c and sender.c share. */
#ifndef CONTROL_REPORT_STATE_H
#define CONTROL_REPORT_STATE_H

#include "document.h"
#include "report.h"

#include "control/route/table.h"
#include <sys/queue.h>

struct count {
    STAILQ_ENTRY(count) link;
    uint64_t number;
    char *why; /* or NULL */
    char field[];
};
STAILQ_HEAD(count_list, count);

/* A domain that wants reports: site->report points here. */
struct report_domain {
    struct table_node node;
    struct report *report;
    uint32_t references; /* sites */
    uint64_t flawed;     /* sessions that failed what a policy in testing asks for, and went on: they will be counted as secured */
    uint32_t count_count;
    struct count_list counts;
    char *rua;                       /* addresses with a space between */
    char *policies[REPORT_POLICIES]; /* lines, or NULL */
    char domain[];
};

struct sending; /* sender.c: one domain's report on its way */

struct report {
    struct report_config config;
    struct table domains;
    struct event *flush_timer, *send_timer;
    char day[REPORT_DAY_BYTES]; /* that counts belong to */
    uint32_t delay_s;
    char done_day[REPORT_DAY_BYTES]; /* whose reports have all been sent */
    struct sending *sending;
    struct report_counters counters;
};

void sender_tick(struct report *report);
void sender_abandon(struct report *report);

#endif
