/* sts_state.h: what sts.c and sts_file.c share. */
#ifndef CONTROL_ROUTE_STS_STATE_H
#define CONTROL_ROUTE_STS_STATE_H

#include "sts.h"
#include "table.h"
#include <errno.h>
#include <stdint.h>
#include <sys/queue.h>

struct sts_entry;
TAILQ_HEAD(query_list, sts_query);

struct sts_query {
    struct sts *sts;
    TAILQ_ENTRY(sts_query) link, by_all;
    struct sts_entry *waits; /* for its fetch */
    struct dns_question *question;
    struct event *timer;
    void (*done)(void *context, const struct sts_answer *answer);
    void *context;
    char domain[];
};

struct sts_entry {
    struct sts *sts;
    struct table_node node;
    struct sts_policy *policy; /* or NULL */
    char id[STS_ID_MAX + 1], fetching_id[STS_ID_MAX + 1];
    uint64_t fetched_s, failed_until_s; /* CLOCK_REALTIME */
    bool fetching;
    struct query_list queries;
    char domain[];
};

struct sts {
    struct sts_config config;
    struct table domains;
    struct query_list all;
    int file; /* -1: none */
    uint32_t file_lines;
};

struct sts_entry *sts_entry_named(struct sts *sts, const char *domain);
/* The same, made when there is none; NULL: too many, or no memory. */
struct sts_entry *sts_entry_make(struct sts *sts, const char *domain);

/* clock.c: CLOCK_REALTIME in seconds: policies outlive the process. */
uint64_t route_wall_s(void);

/* sts_file.c: one line a policy, the last of a domain holds; written anew when most of its lines are old. */
void sts_file_load(struct sts *sts);
void sts_file_append(struct sts *sts, const struct sts_entry *entry);
void sts_file_close(struct sts *sts);
/* Reads a line "DOMAIN ID FETCHED_S MAX_AGE_S MODE MX..." into sts. 0 or -EINVAL. */
int sts_file_read_line(struct sts *sts, char *line);

#endif
