/* test_provider.c: limits that the sites of a provider share. One provider can be 100,000 sites (DESIGN.md section 7). */
#include "harness.h"
#include <stdlib.h>
#include <string.h>

enum { SITES_MAX = 2000 };

struct world {
    struct harness harness;
    uint32_t count;
    struct site *sites[SITES_MAX];
    struct lane *lanes[SITES_MAX];
    uint32_t sent[SITES_MAX];
};

static struct world *world_start(uint32_t sites, uint32_t workers, struct shaping_limits limits) {
    struct world *world = calloc(1, sizeof *world);
    harness_start(&world->harness, workers);
    world->count = sites;
    world->harness.providers[0].limits = limits;
    for (uint32_t i = 0; i < sites; i++) {
        world->sites[i] = site_make(&world->harness, "tenant.mail.example", 1);
        world->sites[i]->provider = &world->harness.providers[0];
        world->sites[i]->limits = &world->harness.providers[0].limits;
    }
    return world;
}

static void world_fill(struct world *world, uint32_t each) {
    for (uint32_t i = 0; i < world->count; i++) {
        harness_fill(&world->harness, world->sites[i], each);
        world->lanes[i] = harness_lane(&world->harness, world->sites[i]);
    }
}

static void world_stop(struct world *world) {
    harness_stop(&world->harness);
    for (uint32_t i = 0; i < world->count; i++)
        site_unmake(world->sites[i]);
    free(world);
}

static uint32_t all_allowed(const struct world *world) {
    uint32_t sum = 0;
    for (uint32_t i = 0; i < world->count; i++)
        sum += world->lanes[i] ? lane_allowed(world->lanes[i]) : 0;
    return sum;
}

static void test_sum_never_exceeds_the_limit(void **state) {
    struct world *world = world_start(50, 4, (struct shaping_limits){.connection_limit = 10, .provider_connection_limit = 12});
    world_fill(world, 20);
    assert_int_equal(all_allowed(world), 12);
    for (uint32_t second = 0; second < 120; second++) {
        harness_advance(&world->harness, SECOND);
        assert_true(all_allowed(world) <= 12);
        assert_true(all_allowed(world) >= 11);
    }
    world_stop(world);
}

/* Room that is there is used: each lane with demand has a session while the limit has room for all. */
static void test_no_lane_is_divided_to_zero(void **state) {
    struct world *world = world_start(10, 8, (struct shaping_limits){.connection_limit = 10, .provider_connection_limit = 10});
    world_fill(world, 20);
    harness_advance(&world->harness, 60 * SECOND);
    for (uint32_t i = 0; i < world->count; i++)
        assert_int_equal(lane_allowed(world->lanes[i]), 1);
    world_stop(world);
}

/* More lanes than sessions: everyone has its turn. */
static void test_rotation_starves_nobody(void **state) {
    struct world *world = world_start(60, 2, (struct shaping_limits){.connection_limit = 10, .provider_connection_limit = 5});
    world_fill(world, 90);
    uint32_t seconds_served[60] = {0};
    for (uint32_t second = 0; second < 10 * 60 / 5 * 2; second++) {
        harness_advance(&world->harness, SECOND);
        for (uint32_t i = 0; i < world->count; i++)
            seconds_served[i] += lane_allowed(world->lanes[i]) > 0;
    }
    for (uint32_t i = 0; i < world->count; i++)
        assert_in_range(seconds_served[i], 10, 40);
    world_stop(world);
}

/* A session that is still open counts, even when its lane may not have it any more. */
static void test_open_sessions_count(void **state) {
    struct world *world = world_start(2, 1, (struct shaping_limits){.connection_limit = 10, .provider_connection_limit = 1});
    world_fill(world, 50);
    struct harness *harness = &world->harness;
    struct lane *first = lane_allowed(world->lanes[0]) ? world->lanes[0] : world->lanes[1];
    struct lane *second = first == world->lanes[0] ? world->lanes[1] : world->lanes[0];
    shape_sessions(harness->shape, first, 0, 1, 1, 1, harness->now_us);
    harness_advance(harness, 11 * SECOND);
    assert_int_equal(lane_allowed(first), 0);
    assert_int_equal(lane_allowed(second), 0);
    shape_sessions(harness->shape, first, 0, 0, 0, 1, harness->now_us);
    assert_int_equal(lane_allowed(second), 1);
    world_stop(world);
}

static void test_a_dead_dataplane_holds_no_sessions(void **state) {
    struct world *world = world_start(2, 1, (struct shaping_limits){.connection_limit = 10, .provider_connection_limit = 1});
    world_fill(world, 50);
    struct harness *harness = &world->harness;
    struct lane *first = lane_allowed(world->lanes[0]) ? world->lanes[0] : world->lanes[1];
    struct lane *second = first == world->lanes[0] ? world->lanes[1] : world->lanes[0];
    shape_sessions(harness->shape, first, 0, 1, 1, 1, harness->now_us);
    harness_advance(harness, 11 * SECOND);
    shape_sessions_reset(harness->shape, harness->now_us);
    assert_int_equal(lane_allowed(second), 1);
    world_stop(world);
}

/* A lane that has sent everything makes room at once when others wait. */
static void test_finished_lane_makes_room(void **state) {
    struct world *world = world_start(2, 1, (struct shaping_limits){.connection_limit = 1, .provider_connection_limit = 1});
    world_fill(world, 1);
    struct harness *harness = &world->harness;
    uint32_t first = lane_allowed(world->lanes[0]) ? 0 : 1;
    assert_true(harness_send(harness, world->lanes[first]));
    assert_int_equal(lane_allowed(world->lanes[first]), 0);
    assert_int_equal(lane_allowed(world->lanes[1 - first]), 1);
    world_stop(world);
}

/* One that lingers without demand gives way to one that comes later. */
static void test_lingering_lane_gives_way(void **state) {
    struct world *world = world_start(2, 1, (struct shaping_limits){.connection_limit = 1, .provider_connection_limit = 1});
    struct harness *harness = &world->harness;
    harness_fill(harness, world->sites[0], 1);
    world->lanes[0] = harness_lane(harness, world->sites[0]);
    assert_true(harness_send(harness, world->lanes[0]));
    assert_int_equal(lane_allowed(world->lanes[0]), 1);
    harness_fill(harness, world->sites[1], 1);
    world->lanes[1] = harness_lane(harness, world->sites[1]);
    harness_advance(harness, SECOND / 100);
    assert_int_equal(lane_allowed(world->lanes[1]), 1);
    world_stop(world);
}

/* A thousand sites with one message each: their first connects keep the provider's connect rate. */
static void test_small_sites_keep_the_connect_rate(void **state) {
    struct shaping_limits limits = {.connection_limit = 10, .provider_connection_limit = 50, .provider_max_connection_rate = 2};
    struct world *world = world_start(1000, 2, limits);
    struct harness *harness = &world->harness;
    world_fill(world, 1);
    uint64_t start_us = harness->now_us;
    uint32_t connects = 0;
    for (uint32_t step = 0; step < 300 * 10; step++) {
        harness_advance(harness, SECOND / 10);
        for (uint32_t i = 0; i < world->count; i++) {
            if (world->sent[i] || lane_allowed(world->lanes[i]) == 0)
                continue;
            uint32_t worker = world->lanes[i]->sessions_allowed[0] ? 0 : 1;
            shape_sessions(harness->shape, world->lanes[i], worker, 1, 1, 1, harness->now_us);
            assert_true(harness_send(harness, world->lanes[i]));
            shape_sessions(harness->shape, world->lanes[i], worker, 0, 0, 1, harness->now_us);
            world->sent[i] = 1;
            connects++;
        }
        double seconds = (double)(harness->now_us - start_us) / SECOND;
        assert_true(connects <= 2 * seconds + 2);
    }
    assert_in_range(connects, 300 * 2 - 2, 300 * 2 + 2);
    world_stop(world);
}

static void check_intervals(struct world *world, double rate) {
    double sum = 0;
    for (uint32_t i = 0; i < world->count; i++)
        for (uint32_t worker = 0; worker < SHAPE_WORKERS_MAX; worker++)
            if (world->lanes[i] && world->lanes[i]->sessions_allowed[worker] > 0)
                sum += 1e6 / world->lanes[i]->connect_interval_us[worker];
    assert_true(sum <= rate * 1.0001);
}

/* The intervals of all lanes and workers together never exceed the provider's rate. */
static void test_intervals_share_the_providers_rate(void **state) {
    struct shaping_limits limits = {.connection_limit = 10, .provider_connection_limit = 40, .provider_max_connection_rate = 5};
    struct world *world = world_start(30, 4, limits);
    struct harness *harness = &world->harness;
    for (uint32_t i = 0; i < world->count; i++) {
        harness_fill(harness, world->sites[i], 20);
        world->lanes[i] = harness_lane(harness, world->sites[i]);
        check_intervals(world, 5);
        harness_advance(harness, SECOND);
        check_intervals(world, 5);
    }
    harness_advance(harness, 60 * SECOND);
    check_intervals(world, 5);
    world_stop(world);
}

/* While lanes wait for their start, half of the connect rate is theirs: reconnects of the others cannot starve them. */
static void test_waiting_lanes_have_half_of_the_connect_rate(void **state) {
    struct shaping_limits limits = {.connection_limit = 1, .provider_connection_limit = 5, .provider_max_connection_rate = 4};
    struct world *world = world_start(20, 1, limits);
    world_fill(world, 90);
    harness_advance(&world->harness, 5 * SECOND);
    assert_int_equal(all_allowed(world), 5);
    check_intervals(world, 2);
    world_stop(world);
}

/* A message rate of all sites together, exact, and shared evenly among those that have something to send. */
static void test_message_rate_is_shared_fairly(void **state) {
    enum { SECONDS = 200, RATE = 50, LANES = 20 };
    struct world *world = world_start(LANES, 2, (struct shaping_limits){.connection_limit = 10, .provider_max_message_rate = RATE});
    struct harness *harness = &world->harness;
    world_fill(world, 1000);
    uint32_t sent = 0;
    uint64_t end_us = harness->now_us + SECONDS * (uint64_t)SECOND;
    while (harness->now_us < end_us) {
        for (uint32_t i = 0; i < LANES; i++)
            while (harness_send(harness, world->lanes[i])) {
                world->sent[i]++;
                sent++;
            }
        harness_advance(harness, 10000);
    }
    assert_in_range(sent, RATE * SECONDS - 5, RATE * SECONDS + 10);
    for (uint32_t i = 0; i < LANES; i++)
        assert_in_range(world->sent[i], RATE * SECONDS / LANES * 9 / 10, RATE * SECONDS / LANES * 11 / 10);
    world_stop(world);
}

/* Lanes that wait for a token but have no session to use it do not hold up the others. */
static void test_creditless_lanes_waste_little(void **state) {
    enum { SECONDS = 100, RATE = 50, LANES = 20 };
    struct world *world = world_start(LANES, 2, (struct shaping_limits){.connection_limit = 10, .provider_max_message_rate = RATE});
    struct harness *harness = &world->harness;
    world_fill(world, 1500);
    uint32_t sent = 0;
    uint64_t end_us = harness->now_us + SECONDS * (uint64_t)SECOND;
    for (uint32_t round = 0; harness->now_us < end_us; round++) {
        /* Only lanes 0 and 1 take; each of the others asked once and lost its sessions. */
        for (uint32_t i = 0; i < (round == 0 ? LANES : 2u); i++)
            while (harness_send(harness, world->lanes[i])) {
                harness_fill(harness, world->sites[i], 1);
                sent++;
            }
        harness_advance(harness, 5000);
    }
    assert_true(sent > RATE * SECONDS * 95 / 100);
    assert_true(sent <= RATE * SECONDS + 10);
    world_stop(world);
}

/* Many lanes of one provider: nothing is scanned for each delivery or each change. */
static void test_two_thousand_lanes_are_no_burden(void **state) {
    struct shaping_limits limits = {.connection_limit = 10, .provider_connection_limit = 100, .provider_max_message_rate = 1000};
    struct world *world = world_start(2000, 4, limits);
    world_fill(world, 3);
    assert_int_equal(all_allowed(world), 100);
    for (uint32_t second = 0; second < 300; second++) {
        harness_advance(&world->harness, SECOND);
        for (uint32_t i = 0; i < world->count; i++) {
            if (world->lanes[i] && lane_allowed(world->lanes[i]) > 0)
                world->sent[i] += harness_send(&world->harness, world->lanes[i]);
            if (world->sent[i] == 3)
                world->lanes[i] = NULL; /* idle: it goes when it likes */
        }
        assert_true(all_allowed(world) <= 100);
    }
    uint32_t sent = 0;
    for (uint32_t i = 0; i < world->count; i++)
        sent += world->sent[i];
    assert_int_equal(sent, 6000);
    world_stop(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum_never_exceeds_the_limit),
        cmocka_unit_test(test_no_lane_is_divided_to_zero),
        cmocka_unit_test(test_rotation_starves_nobody),
        cmocka_unit_test(test_open_sessions_count),
        cmocka_unit_test(test_a_dead_dataplane_holds_no_sessions),
        cmocka_unit_test(test_finished_lane_makes_room),
        cmocka_unit_test(test_lingering_lane_gives_way),
        cmocka_unit_test(test_small_sites_keep_the_connect_rate),
        cmocka_unit_test(test_intervals_share_the_providers_rate),
        cmocka_unit_test(test_waiting_lanes_have_half_of_the_connect_rate),
        cmocka_unit_test(test_message_rate_is_shared_fairly),
        cmocka_unit_test(test_creditless_lanes_waste_little),
        cmocka_unit_test(test_two_thousand_lanes_are_no_burden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
