/* harness.h: a shape under virtual time, with sites, pools and jobs made by hand. */
#ifndef TESTS_UNIT_SHAPE_HARNESS_H
#define TESTS_UNIT_SHAPE_HARNESS_H

#include "control/shape/shape.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { SECOND = 1000000 };

struct harness {
    struct config config;
    struct config_pool pools[2];
    struct config_source sources[4];
    struct shaping_provider providers[1];
    struct shape *shape;
    uint64_t now_us;
    uint64_t real_ms; /* at now_us 0 */
    uint32_t changed, gone, expired, deferred;
    uint64_t deferred_until_us, deferred_sum_us;
    struct lane *last_gone;
    struct job job;       /* of harness_deliver */
    uint32_t made, freed; /* deliveries */
};

/* Defaults as shipped: 10 connections, 100 connects a minute, 100 messages a second. */
void harness_start(struct harness *harness, uint32_t workers);
/* Drains and destroys; fails when a delivery was lost. */
void harness_stop(struct harness *harness);
/* A site with so many endpoints at 10.0.HIGH.LOW, port 25. Free with site_free_by_hand. */
struct site *site_make(struct harness *harness, const char *name, uint32_t endpoints);
void site_unmake(struct site *site);
struct delivery *delivery_make(struct harness *harness, struct site *site, struct job *job);
void delivery_free(struct harness *harness, struct delivery *delivery);
/* Enqueues `count` deliveries; each must be taken in. */
void harness_fill(struct harness *harness, struct site *site, uint32_t count);
struct lane *harness_lane(struct harness *harness, const struct site *site);
void harness_advance(struct harness *harness, uint64_t us);
uint32_t lane_allowed(const struct lane *lane);
/* Takes one and ends it delivered. False: nothing to take. */
bool harness_send(struct harness *harness, struct lane *lane);
void harness_end(struct harness *harness, struct lane *lane, struct delivery *delivery, enum reply_class class, uint32_t source);
void harness_event(struct harness *harness, struct lane *lane, enum path_event_kind kind, uint8_t endpoint, uint16_t code);

#endif
