/* The census: 100,000 lanes are counted in steps that each take control's loop a moment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "control/clock.h"
#include "control/shape/census.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 100000, STEP_US_MAX = 5000 /* sanitizers and a busy machine included */ };

struct world {
    struct census census;
    struct lane *lanes;
    struct site *sites;
    struct shaping_provider providers[2];
    struct config_pool pool;
};

static int setup(void **state) {
    struct world *world = calloc(1, sizeof(*world));
    world->lanes = calloc(LANES, sizeof(*world->lanes));
    world->sites = calloc(64, sizeof(*world->sites));
    world->pool.name = "default";
    world->providers[0].name = "large";
    world->providers[1].name = "small";
    for (unsigned i = 0; i < 64; i++) {
        snprintf(world->sites[i].name, sizeof(world->sites[i].name), "mx%u.example", i);
        world->sites[i].provider = i < 2 ? &world->providers[i] : NULL;
    }
    for (uint32_t i = 0; i < LANES; i++) {
        world->lanes[i].site = &world->sites[i < 64 ? i : 2 + i % 62];
        world->lanes[i].pool = &world->pool;
        world->lanes[i].waiting = i < 64 ? 1000 * (i + 1) : 1;
    }
    *state = world;
    return 0;
}

static int teardown(void **state) {
    struct world *world = *state;
    census_free(&world->census);
    free(world->lanes);
    free(world->sites);
    free(world);
    return 0;
}

static uint64_t look(struct census *census) {
    uint64_t longest_us = 0;
    for (bool done = false; !done;) {
        uint64_t began_us = clock_us(CLOCK_THREAD_CPUTIME_ID);
        done = census_step(census);
        uint64_t took_us = clock_us(CLOCK_THREAD_CPUTIME_ID) - began_us;
        longest_us = took_us > longest_us ? took_us : longest_us;
    }
    return longest_us;
}

static void all_lanes(void **state) {
    struct world *world = *state;
    struct census *census = &world->census;
    look(census); /* of nothing */
    assert_int_equal(census->last.total.lanes, 0);
    for (uint32_t i = 0; i < LANES; i++) {
        census_add(census, &world->lanes[i]);
        census_add(census, &world->lanes[i]); /* known already */
    }
    uint64_t longest_us = look(census);
    print_message("longest step: %lu us of %d lanes\n", (unsigned long)longest_us, LANES);
    assert_true(longest_us < STEP_US_MAX);
    const struct census_result *last = &census->last;
    assert_int_equal(last->total.lanes, LANES);
    assert_int_equal(last->total.waiting, 1000 * (64 * 65 / 2) + LANES - 64);
    assert_int_equal(last->provider_count, 2);
    assert_string_equal(last->providers[0].name, "small"); /* the most waiting first */
    assert_int_equal(last->providers[0].waiting, 2000);
    assert_int_equal(last->others.waiting + 3000, last->total.waiting);
    assert_string_equal(last->sites[0].name, "mx63.example");
    assert_true(last->sites[0].waiting >= 64000);
    for (uint32_t i = 1; i < last->site_count; i++) {
        assert_true(last->sites[i].waiting <= last->sites[i - 1].waiting);
        for (uint32_t j = 0; j < i; j++)
            assert_string_not_equal(last->sites[i].name, last->sites[j].name); /* a name is one series */
    }
}

/* Lanes come and go: what is gone is never looked at. */
static void lanes_go(void **state) {
    struct world *world = *state;
    struct census *census = &world->census;
    for (uint32_t i = 0; i < LANES; i++)
        census_add(census, &world->lanes[i]);
    for (uint32_t i = 0; i < LANES; i++) {
        if (i % 3 != 0) {
            census_remove(census, &world->lanes[i]);
            world->lanes[i].site = NULL; /* a look at it would end here */
        }
        if (i % 1000 == 0)
            census_step(census);
    }
    census_remove(census, &world->lanes[1]); /* once is enough */
    look(census);
    look(census);
    assert_int_equal(census->last.total.lanes, (LANES + 2) / 3);
    for (uint32_t i = 0; i < LANES; i += 3)
        census_remove(census, &world->lanes[i]);
    look(census);
    assert_int_equal(census->last.total.lanes, 0);
    assert_int_equal(census->last.site_count, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(all_lanes, setup, teardown),
                                       cmocka_unit_test_setup_teardown(lanes_go, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
