/* rest.h: endpoints and sources that rest after failures, known by address, so that every site that uses them sees it. */
#ifndef CONTROL_SHAPE_REST_H
#define CONTROL_SHAPE_REST_H

#include "control/config/config.h"
#include "control/route/table.h"
#include "shape.h"
#include <stdint.h>
#include <sys/queue.h>

/* What is remembered: the one that failed longest ago is forgotten first. */
enum { RESTS_MAX = 65536 };

struct lane_state;

/* A lane with sessions that uses this endpoint, or this source. */
struct rest_use {
    LIST_ENTRY(rest_use) link;
    struct rest *rest;
    struct lane_state *lane;
};

struct rest_key {
    uint8_t bytes[16];
    uint64_t scope; /* endpoints: 0, or the policy by which they failed; sources: where they rest, a provider or a site */
    uint16_t port;
    uint8_t family;
    uint8_t reserved[5]; /* zero: keys are compared as bytes */
};

struct rest {
    struct table_node node;
    TAILQ_ENTRY(rest) by_failure; /* those that nobody uses, the oldest failure first */
    LIST_HEAD(, rest_use) uses;
    struct rest_key key;
    uint32_t failures; /* in a row */
    uint64_t until_us; /* 0: none */
    uint64_t length_us;
    uint32_t strikes; /* lesser faults within the minute that began at */
    uint64_t strikes_since_us;
    enum shape_trouble_kind trouble; /* of an endpoint's policy: TLS or login ... */
    char *why;                       /* ... and the last failure in words, or NULL */
};

struct rests {
    struct table table;
    TAILQ_HEAD(, rest) unused;
    uint32_t unused_count;
};

int rests_init(struct rests *rests);
void rests_free(struct rests *rests);
struct rest_key rest_key_of(const struct config_address *address, uint64_t scope);
/* NULL: it has not failed and nobody uses it. */
struct rest *rests_find(struct rests *rests, const struct rest_key *key);
/* The same, made when missing; NULL: out of memory. */
struct rest *rests_get(struct rests *rests, const struct rest_key *key);
void rests_attach(struct rests *rests, struct rest_use *use, struct rest *rest, struct lane_state *lane);
void rests_detach(struct rests *rests, struct rest_use *use);
/* A failure: rests it `first_us`, doubling to `max_us` while failures follow each other; failures while it rests are the same one. True: it
 * rests longer than before. */
bool rest_fail(struct rest *rest, uint64_t first_us, uint64_t max_us, uint64_t now_us);
/* What it rests for. Without memory the words are missing. */
void rest_say(struct rest *rest, enum shape_trouble_kind trouble, const char *why);
/* A lesser fault; true for the `limit`-th within a minute, which starts the count again. */
bool rest_strike(struct rest *rest, uint32_t limit, uint64_t now_us);
/* It works: nothing is held against it. True: it rested. */
bool rest_clear(struct rest *rest);

#endif
