/* test_random.c: everything that can happen to a shape, in random order from a seed; what must always hold is checked after each step. */
#include "harness.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SITES = 40, WORKERS = 3, STEPS = 60000, HELD_MAX = 4096, PROVIDER_LIMIT = 9, SITE_LIMIT = 6 };

struct held {
    struct delivery *delivery;
    struct lane *lane;
};

struct random_world {
    struct harness harness;
    struct site *sites[SITES];
    struct job jobs[4];
    uint32_t held_count;
    struct held held[HELD_MAX];
    uint32_t waiting, outstanding, provider_sessions;
};

static void check_lane(void *context, struct lane *lane) {
    struct random_world *world = context;
    uint32_t sum = lane_allowed(lane);
    assert_true(sum <= SITE_LIMIT);
    for (uint32_t i = WORKERS; i < SHAPE_WORKERS_MAX; i++)
        assert_int_equal(lane->sessions_allowed[i], 0);
    world->waiting += lane->waiting;
    world->outstanding += lane->outstanding;
    if (lane->site->provider)
        world->provider_sessions += sum;
}

static void check_world(struct random_world *world) {
    world->waiting = world->outstanding = world->provider_sessions = 0;
    shape_lanes(world->harness.shape, check_lane, world);
    assert_true(world->provider_sessions <= PROVIDER_LIMIT);
    assert_int_equal(world->outstanding, world->held_count);
    assert_int_equal(shape_room(world->harness.shape), SHAPE_TOTAL_MAX - world->waiting);
    assert_int_equal(world->harness.made - world->harness.freed, world->waiting + world->held_count);
}

static struct lane *some_lane(struct random_world *world) {
    return harness_lane(&world->harness, world->sites[random() % SITES]);
}

static void step_enqueue(struct random_world *world) {
    struct site *site = world->sites[random() % SITES];
    for (long count = random() % 20; count > 0; count--) {
        struct delivery *delivery = delivery_make(&world->harness, site, &world->jobs[random() % 4]);
        int rc = shape_enqueue(world->harness.shape, delivery, world->harness.now_us);
        assert_true(rc == 0 || rc == -ENOBUFS);
        if (rc != 0)
            delivery_free(&world->harness, delivery);
    }
}

static bool some_fit(void *context, const struct delivery *first, const struct delivery *other) {
    return random() % 4 != 0;
}

static void step_take(struct random_world *world) {
    struct lane *lane = some_lane(world);
    uint64_t wake_us;
    for (long count = random() % 10; lane && count > 0 && world->held_count < HELD_MAX; count--) {
        struct delivery *delivery = shape_take(world->harness.shape, lane, world->harness.now_us, &wake_us);
        if (!delivery)
            break;
        world->held[world->held_count++] = (struct held){delivery, lane};
        uint32_t room = HELD_MAX - world->held_count, like, maximum = (uint32_t)random() % 30;
        if (random() % 3 != 0)
            continue;
        delivery = shape_take_like(world->harness.shape, lane, delivery, some_fit, NULL, maximum < room ? maximum : room, &like,
                                   world->harness.now_us);
        for (; delivery; delivery = delivery->next, like--)
            world->held[world->held_count++] = (struct held){delivery, lane};
        assert_int_equal(like, 0);
    }
}

static void step_end(struct random_world *world) {
    for (long count = random() % 20; count > 0 && world->held_count > 0; count--) {
        uint32_t at = (uint32_t)random() % world->held_count;
        struct held held = world->held[at];
        world->held[at] = world->held[--world->held_count];
        if (random() % 8 == 0)
            shape_give_back(world->harness.shape, held.delivery, world->harness.now_us);
        else
            harness_end(&world->harness, held.lane, held.delivery,
                        random() % 10 == 0 ? (enum reply_class)(random() % CLASS_KINDS) : CLASS_NONE, (uint32_t)random() % 3);
    }
}

static void step_worker(struct random_world *world) {
    struct lane *lane = some_lane(world);
    if (!lane)
        return;
    uint32_t worker = (uint32_t)random() % WORKERS;
    uint32_t open = (uint32_t)random() % (lane->sessions_allowed[worker] + 1u);
    shape_sessions(world->harness.shape, lane, worker, open, (uint32_t)random() % (open + 1), (uint64_t)random() % 1000,
                   world->harness.now_us);
}

static void step_event(struct random_world *world) {
    struct lane *lane = some_lane(world);
    if (lane)
        harness_event(&world->harness, lane, random() % 3 ? PATH_EVENT_READY : (enum path_event_kind)(random() % PATH_EVENT_KINDS),
                      (uint8_t)(random() % 4), random() % 2 ? 421 : 554);
}

/* DNS says something else: other endpoints, some of them another site's. */
static void step_endpoints(struct random_world *world) {
    struct site *site = world->sites[random() % SITES], *other = world->sites[random() % SITES];
    site->endpoint_count = 1 + (uint32_t)random() % 3;
    for (uint32_t i = 0; i < site->endpoint_count; i++)
        site->endpoints[i] = random() % 2 ? other->endpoints[0] : site->endpoints[(uint32_t)random() % site->endpoint_count];
    site->generation++;
}

static bool some_deliveries(void *context, const struct delivery *delivery) {
    return random() % 3 == 0;
}

static void on_withdrawn(void *context, struct delivery *delivery) {
    delivery_free(context, delivery);
}

static void step_rare(struct random_world *world) {
    switch (random() % 4) {
    case 0:
        shape_withdraw(world->harness.shape, some_deliveries, on_withdrawn, &world->harness, world->harness.now_us);
        break;
    case 1:
        shape_sessions_reset(world->harness.shape, world->harness.now_us);
        break;
    case 2:
        world->harness.config.defaults.max_message_rate = random() % 2 ? 0 : 50;
        shape_reconfigure(world->harness.shape, &world->harness.config);
        break;
    default:
        harness_advance(&world->harness, (uint64_t)(random() % 600) * SECOND);
    }
}

static void run_seed(uint32_t seed) {
    struct random_world *world = calloc(1, sizeof *world);
    print_message("seed %u\n", seed);
    srandom(seed);
    harness_start(&world->harness, WORKERS);
    world->harness.config.defaults.connection_limit = SITE_LIMIT;
    world->harness.providers[0].limits = (struct shaping_limits){.connection_limit = SITE_LIMIT,
                                                                 .provider_connection_limit = PROVIDER_LIMIT,
                                                                 .provider_max_connection_rate = 5,
                                                                 .provider_max_message_rate = 200};
    for (uint32_t i = 0; i < SITES; i++) {
        world->sites[i] = site_make(&world->harness, "mx.example.net", 1 + i % 3);
        if (i % 2) {
            world->sites[i]->provider = &world->harness.providers[0];
            world->sites[i]->limits = &world->harness.providers[0].limits;
        }
    }
    for (uint32_t i = 0; i < 4; i++) {
        snprintf(world->jobs[i].queue, sizeof world->jobs[i].queue, "q%u", i);
        world->jobs[i].high = i == 3;
    }
    world->jobs[2].expires_at_ms = world->harness.real_ms + world->harness.now_us / 1000 + 300000;
    world->jobs[1].pool = world->harness.pools[1].name;
    for (uint32_t step = 0; step < STEPS; step++) {
        long what = random() % 1000;
        if (what < 250)
            step_enqueue(world);
        else if (what < 550)
            step_take(world);
        else if (what < 750)
            step_end(world);
        else if (what < 850)
            step_worker(world);
        else if (what < 900)
            step_event(world);
        else if (what < 905)
            step_endpoints(world);
        else if (what < 908)
            step_rare(world);
        else
            harness_advance(&world->harness, (uint64_t)random() % (SECOND / 4));
        if (step % 16 == 0)
            check_world(world);
    }
    while (world->held_count > 0)
        step_end(world);
    check_world(world);
    harness_stop(&world->harness);
    for (uint32_t i = 0; i < SITES; i++)
        site_unmake(world->sites[i]);
    free(world);
}

static void test_whatever_happens(void **state) {
    const char *seed = getenv("SHAPE_SEED");
    if (seed) {
        run_seed((uint32_t)strtoul(seed, NULL, 10));
        return;
    }
    for (uint32_t i = 1; i <= 4; i++)
        run_seed(i);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_whatever_happens)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
