/* test_queues.c: which delivery goes next, and how many may wait (DESIGN.md section 2, QUEUE.md "Parking"). */
#include "harness.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct job job_of(const char *tenant, const char *queue) {
    struct job job = {.tenant = (char *)(uintptr_t)tenant};
    snprintf(job.queue, sizeof job.queue, "%s", queue);
    return job;
}

static void enqueue(struct harness *harness, struct site *site, struct job *job, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(shape_enqueue(harness->shape, delivery_make(harness, site, job), harness->now_us), 0);
}

static struct delivery *take(struct harness *harness, struct lane *lane) {
    uint64_t wake_us;
    return shape_take(harness->shape, lane, harness->now_us, &wake_us);
}

static void no_rate(struct harness *harness) {
    harness->config.defaults.max_message_rate = 0;
}

/* A tenant with a thousand waits no longer than one with ten. */
static void test_tenants_and_queues_take_turns(void **state) {
    struct harness harness;
    harness_start(&harness, 2);
    no_rate(&harness);
    struct site *site = site_make(&harness, "mx.example.net", 1);
    struct job big = job_of("big", "bulk"), small = job_of("small", "bulk"), other = job_of("small", "campaign-7");
    enqueue(&harness, site, &big, 1000);
    enqueue(&harness, site, &small, 10);
    enqueue(&harness, site, &other, 10);
    struct lane *lane = harness_lane(&harness, site);
    uint32_t taken_big = 0, taken_small = 0, taken_other = 0;
    for (uint32_t i = 0; i < 30; i++) {
        struct delivery *delivery = take(&harness, lane);
        taken_big += delivery->job == &big;
        taken_small += delivery->job == &small;
        taken_other += delivery->job == &other;
        harness_end(&harness, lane, delivery, CLASS_NONE, 0);
    }
    assert_int_equal(taken_big, 10);
    assert_int_equal(taken_small, 10);
    assert_int_equal(taken_other, 10);
    for (uint32_t i = 0; i < 990; i++)
        assert_true(harness_send(&harness, lane));
    assert_false(harness_send(&harness, lane));
    harness_stop(&harness);
    site_unmake(site);
}

/* More tenants than a lane has sub-queues: all are served all the same. */
static void test_many_tenants_share_queues(void **state) {
    enum { TENANTS = 300 };
    static struct job jobs[TENANTS];
    static char names[TENANTS][16];
    struct harness harness;
    harness_start(&harness, 1);
    no_rate(&harness);
    struct site *site = site_make(&harness, "mx.example.net", 1);
    for (uint32_t i = 0; i < TENANTS; i++) {
        snprintf(names[i], sizeof names[i], "t%u", i);
        jobs[i] = job_of(names[i], "bulk");
        enqueue(&harness, site, &jobs[i], 3);
    }
    struct lane *lane = harness_lane(&harness, site);
    uint32_t taken = 0;
    while (harness_send(&harness, lane))
        taken++;
    assert_int_equal(taken, TENANTS * 3);
    harness_stop(&harness);
    site_unmake(site);
}

static void test_high_goes_first(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    no_rate(&harness);
    struct site *site = site_make(&harness, "mx.example.net", 1);
    struct job bulk = job_of(NULL, "bulk"), high = job_of(NULL, "high");
    high.high = true;
    enqueue(&harness, site, &bulk, 5);
    enqueue(&harness, site, &high, 2);
    struct lane *lane = harness_lane(&harness, site);
    for (uint32_t i = 0; i < 7; i++) {
        struct delivery *delivery = take(&harness, lane);
        assert_ptr_equal(delivery->job, i < 2 ? &high : &bulk);
        harness_end(&harness, lane, delivery, CLASS_NONE, 0);
    }
    harness_stop(&harness);
    site_unmake(site);
}

/* What comes back goes before all others of its priority, in the order in which it came back. */
static void test_given_back_keeps_its_order(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    no_rate(&harness);
    struct site *site = site_make(&harness, "mx.example.net", 1);
    harness_fill(&harness, site, 6);
    struct lane *lane = harness_lane(&harness, site);
    struct delivery *taken[3];
    for (uint32_t i = 0; i < 3; i++)
        taken[i] = take(&harness, lane);
    assert_int_equal(lane->outstanding, 3);
    for (uint32_t i = 0; i < 3; i++)
        shape_give_back(harness.shape, taken[i], harness.now_us);
    assert_int_equal(lane->outstanding, 0);
    assert_int_equal(lane->waiting, 6);
    for (uint32_t i = 0; i < 6; i++) {
        struct delivery *delivery = take(&harness, lane);
        assert_int_equal(delivery->index, i);
        harness_end(&harness, lane, delivery, CLASS_NONE, 0);
    }
    harness_stop(&harness);
    site_unmake(site);
}

/* An unattempted delivery has used no rate. */
static void test_given_back_gives_its_token_back(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    harness.config.defaults.max_message_rate = 1;
    struct site *site = site_make(&harness, "mx.example.net", 1);
    harness_fill(&harness, site, 2);
    struct lane *lane = harness_lane(&harness, site);
    struct delivery *delivery = take(&harness, lane);
    assert_non_null(delivery);
    assert_null(take(&harness, lane));
    shape_give_back(harness.shape, delivery, harness.now_us);
    assert_true(harness_send(&harness, lane));
    assert_false(harness_send(&harness, lane));
    harness_stop(&harness);
    site_unmake(site);
}

static uint32_t fill_up(struct harness *harness, struct site *site) {
    for (uint32_t count = 0;; count++) {
        struct delivery *delivery = delivery_make(harness, site, NULL);
        int rc = shape_enqueue(harness->shape, delivery, harness->now_us);
        if (rc == 0)
            continue;
        assert_int_equal(rc, -ENOBUFS);
        delivery_free(harness, delivery);
        return count;
    }
}

/* What the limits send in 30 s, 100 to 10,000 (DESIGN.md section 2). */
static void test_window_follows_the_rate(void **state) {
    static const struct {
        double site, provider;
        uint32_t window;
    } CASES[] = {{100, 0, 3000}, {1, 0, 100}, {0.001, 0, 100}, {5000, 0, 10000}, {0, 0, 10000}, {100, 20, 600}, {0, 20, 600}};
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct harness harness;
        harness_start(&harness, 1);
        harness.config.defaults.max_message_rate = CASES[i].site;
        harness.providers[0].limits.provider_max_message_rate = CASES[i].provider;
        struct site *site = site_make(&harness, "mx.example.net", 1);
        site->provider = CASES[i].provider > 0 ? &harness.providers[0] : NULL;
        assert_int_equal(shape_window_room(harness.shape, site, NULL, harness.now_us), SHAPE_WINDOW_MIN);
        assert_int_equal(fill_up(&harness, site), CASES[i].window);
        assert_int_equal(shape_window_room(harness.shape, site, NULL, harness.now_us), 0);
        assert_true(harness_send(&harness, harness_lane(&harness, site)));
        assert_int_equal(shape_window_room(harness.shape, site, NULL, harness.now_us), 1);
        harness_stop(&harness);
        site_unmake(site);
    }
}

static void test_total_is_bounded(void **state) {
    enum { SITES = 21 };
    struct harness harness;
    struct site *sites[SITES];
    harness_start(&harness, 1);
    no_rate(&harness);
    uint32_t total = 0;
    for (uint32_t i = 0; i < SITES; i++) {
        sites[i] = site_make(&harness, "mx.example.net", 1);
        total += fill_up(&harness, sites[i]);
    }
    assert_int_equal(total, SHAPE_TOTAL_MAX);
    assert_int_equal(shape_room(harness.shape), 0);
    harness_stop(&harness);
    for (uint32_t i = 0; i < SITES; i++)
        site_unmake(sites[i]);
}

static void test_pools_are_lanes_of_their_own(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    struct site *site = site_make(&harness, "mx.example.net", 1);
    struct job job = job_of(NULL, "normal");
    enqueue(&harness, site, &job, 1);
    struct lane *lane = harness_lane(&harness, site);
    assert_ptr_equal(lane->pool, &harness.pools[0]);
    job.pool = harness.pools[1].name;
    enqueue(&harness, site, &job, 1);
    assert_ptr_not_equal(harness_lane(&harness, site), lane);
    assert_int_equal(lane->waiting, 1);
    struct job wrong = job_of(NULL, "normal");
    wrong.pool = (char *)(uintptr_t) "no such pool";
    struct delivery *delivery = delivery_make(&harness, site, &wrong);
    assert_int_equal(shape_enqueue(harness.shape, delivery, harness.now_us), -ENOENT);
    delivery_free(&harness, delivery);
    harness_stop(&harness);
    site_unmake(site);
}

static void test_expired_deliveries_leave(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    struct site *site = site_make(&harness, "mx.example.net", 1);
    struct job soon = job_of(NULL, "a"), later = job_of(NULL, "b"), never = job_of(NULL, "c");
    uint64_t real_ms = harness.real_ms + harness.now_us / 1000;
    soon.expires_at_ms = real_ms + 5000;
    later.expires_at_ms = real_ms + 60000;
    enqueue(&harness, site, &later, 10);
    enqueue(&harness, site, &soon, 10);
    enqueue(&harness, site, &never, 10);
    harness_advance(&harness, 4 * SECOND);
    assert_int_equal(harness.expired, 0);
    harness_advance(&harness, 3 * SECOND);
    assert_int_equal(harness.expired, 10);
    harness_advance(&harness, 60 * SECOND);
    assert_int_equal(harness.expired, 20);
    assert_int_equal(harness_lane(&harness, site)->waiting, 10);
    harness_stop(&harness);
    site_unmake(site);
}

/* The one whose time is up is never handed out, even before the timer came. */
static void test_take_skips_the_expired(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    struct site *site = site_make(&harness, "mx.example.net", 1);
    struct job soon = job_of(NULL, "a"), never = job_of(NULL, "a");
    soon.expires_at_ms = harness.real_ms + harness.now_us / 1000 + 1;
    enqueue(&harness, site, &soon, 1);
    enqueue(&harness, site, &never, 1);
    struct lane *lane = harness_lane(&harness, site);
    harness.now_us += 2000;
    struct delivery *delivery = take(&harness, lane);
    assert_ptr_equal(delivery->job, &never);
    assert_int_equal(harness.expired, 1);
    harness_end(&harness, lane, delivery, CLASS_NONE, 0);
    harness_stop(&harness);
    site_unmake(site);
}

static bool is_campaign(void *context, const struct delivery *delivery) {
    return strcmp(delivery->job->queue, "campaign-7") == 0;
}

static void on_withdrawn(void *context, struct delivery *delivery) {
    assert_string_equal(delivery->job->queue, "campaign-7");
    delivery_free(context, delivery);
}

static void test_withdraw_a_campaign(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    struct site *site = site_make(&harness, "mx.example.net", 1);
    struct job campaign = job_of(NULL, "campaign-7"), normal = job_of(NULL, "normal");
    for (uint32_t i = 0; i < 20; i++) {
        enqueue(&harness, site, &campaign, 1);
        enqueue(&harness, site, &normal, 1);
    }
    shape_withdraw(harness.shape, is_campaign, on_withdrawn, &harness, harness.now_us);
    struct lane *lane = harness_lane(&harness, site);
    assert_int_equal(lane->waiting, 20);
    assert_int_equal(shape_room(harness.shape), SHAPE_TOTAL_MAX - 20);
    harness_stop(&harness);
    site_unmake(site);
}

static void test_idle_lane_goes(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    struct site *site = site_make(&harness, "mx.example.net", 1);
    harness_fill(&harness, site, 1);
    struct lane *lane = harness_lane(&harness, site);
    struct delivery *delivery = take(&harness, lane);
    harness_advance(&harness, 600 * (uint64_t)SECOND);
    assert_int_equal(harness.gone, 0); /* outstanding */
    harness_end(&harness, lane, delivery, CLASS_NONE, 0);
    harness_advance(&harness, 60 * SECOND);
    assert_int_equal(harness.gone, 1);
    assert_ptr_equal(harness.last_gone, lane);
    assert_null(harness_lane(&harness, site));
    assert_int_equal(site->references, 1);
    harness_stop(&harness);
    site_unmake(site);
}

/* A reload: limits hold at once; the pool's record may move; a pool that went leaves its deliveries to the default one. */
static void test_reload(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    no_rate(&harness);
    struct site *site = site_make(&harness, "mx.example.net", 1);
    struct job job = job_of(NULL, "normal");
    job.pool = harness.pools[1].name;
    enqueue(&harness, site, &job, 5);
    struct lane *gone = harness_lane(&harness, site);
    struct delivery *outstanding = take(&harness, gone);
    harness_fill(&harness, site, 5);
    struct config_pool moved = harness.pools[0];
    struct config config = harness.config;
    config.pools = &moved;
    config.pool_count = 1;
    config.defaults.max_message_rate = 1;
    config.defaults.connection_limit = 2;
    site->limits = &config.defaults;
    shape_reconfigure(harness.shape, &config);
    memset(harness.pools, 0xa5, sizeof harness.pools); /* the old one is gone */
    struct lane *lane = NULL;
    for (uint32_t i = 0; i < 2; i++) {
        lane = harness_lane(&harness, site);
        assert_ptr_equal(lane->pool, &moved);
    }
    harness_advance(&harness, SECOND);
    assert_int_equal(gone->waiting, 0);
    assert_int_equal(gone->outstanding, 1);
    harness_end(&harness, gone, outstanding, CLASS_NONE, 0);
    harness_advance(&harness, 60 * SECOND);
    assert_int_equal(harness.gone, 1);
    lane = harness_lane(&harness, site);
    assert_int_equal(lane->waiting, 9);
    assert_int_equal(lane_allowed(lane), 2);
    assert_true(harness_send(&harness, lane));
    assert_false(harness_send(&harness, lane));
    harness_stop(&harness);
    site_unmake(site);
}

/* What was taken before a reload and comes back after it is no longer outstanding in the lane that it was taken from, whichever lane it
 * goes on in: that one's own stay counted, or it would go while they are in flight. */
static void test_given_back_after_its_pool_went(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    no_rate(&harness);
    struct site *site = site_make(&harness, "mx.example.net", 1);
    struct job job = job_of(NULL, "normal");
    job.pool = harness.pools[1].name;
    enqueue(&harness, site, &job, 1);
    struct lane *retired = harness_lane(&harness, site);
    struct delivery *returns = take(&harness, retired);
    harness_fill(&harness, site, 1);
    struct lane *lane = harness_lane(&harness, site);
    assert_ptr_not_equal(lane, retired);
    struct delivery *flies = take(&harness, lane);
    struct config config = harness.config;
    config.pool_count = 1;
    site->limits = &config.defaults;
    shape_reconfigure(harness.shape, &config);
    shape_give_back(harness.shape, returns, harness.now_us);
    assert_int_equal(retired->outstanding, 0);
    assert_int_equal(lane->outstanding, 1);
    assert_int_equal(lane->waiting, 1);
    assert_true(harness_send(&harness, lane));
    harness_advance(&harness, 60 * SECOND);
    assert_ptr_equal(harness.last_gone, retired);
    assert_int_equal(harness.gone, 1); /* the other has one in flight */
    harness_end(&harness, lane, flies, CLASS_NONE, 0);
    harness_advance(&harness, 60 * SECOND);
    assert_int_equal(harness.gone, 2);
    harness_stop(&harness);
    site_unmake(site);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tenants_and_queues_take_turns),
        cmocka_unit_test(test_many_tenants_share_queues),
        cmocka_unit_test(test_high_goes_first),
        cmocka_unit_test(test_given_back_keeps_its_order),
        cmocka_unit_test(test_given_back_gives_its_token_back),
        cmocka_unit_test(test_window_follows_the_rate),
        cmocka_unit_test(test_total_is_bounded),
        cmocka_unit_test(test_pools_are_lanes_of_their_own),
        cmocka_unit_test(test_expired_deliveries_leave),
        cmocka_unit_test(test_take_skips_the_expired),
        cmocka_unit_test(test_withdraw_a_campaign),
        cmocka_unit_test(test_idle_lane_goes),
        cmocka_unit_test(test_reload),
        cmocka_unit_test(test_given_back_after_its_pool_went),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
