/* test_sessions.c: how many sessions a lane may have, on which workers, and how fast it may connect and send. */
#include "harness.h"

static void start(struct harness *harness, uint32_t workers, uint32_t limit) {
    harness_start(harness, workers);
    harness->config.defaults.connection_limit = limit;
    harness->config.defaults.max_message_rate = 0;
}

/* A limit of 3 lives on 3 workers; limits are never divided to zero (DESIGN.md section 2). */
static void test_limit_is_spread_over_workers(void **state) {
    for (uint32_t workers = 1; workers <= SHAPE_WORKERS_MAX; workers++) {
        for (uint32_t limit = 1; limit <= 5; limit++) {
            struct harness harness;
            start(&harness, workers, limit);
            struct site *site = site_make(&harness, "mx.example.net", 1);
            harness_fill(&harness, site, 100);
            struct lane *lane = harness_lane(&harness, site);
            assert_int_equal(lane_allowed(lane), limit);
            for (uint32_t i = 0; i < SHAPE_WORKERS_MAX; i++)
                assert_true(lane->sessions_allowed[i] <= (i < workers ? (limit + workers - 1) / workers : 0));
            harness_stop(&harness);
            site_unmake(site);
        }
    }
}

/* Lanes of one session do not all live on the first worker. */
static void test_small_lanes_use_all_workers(void **state) {
    enum { WORKERS = 4, SITES = 40 };
    struct harness harness;
    struct site *sites[SITES];
    uint32_t on_worker[WORKERS] = {0};
    start(&harness, WORKERS, 1);
    for (uint32_t i = 0; i < SITES; i++) {
        sites[i] = site_make(&harness, "mx.example.net", 1);
        harness_fill(&harness, sites[i], 1);
        for (uint32_t worker = 0; worker < WORKERS; worker++)
            on_worker[worker] += harness_lane(&harness, sites[i])->sessions_allowed[worker];
    }
    for (uint32_t worker = 0; worker < WORKERS; worker++)
        assert_int_equal(on_worker[worker], SITES / WORKERS);
    harness_stop(&harness);
    for (uint32_t i = 0; i < SITES; i++)
        site_unmake(sites[i]);
}

static void test_no_more_sessions_than_demand(void **state) {
    struct harness harness;
    start(&harness, 2, 10);
    struct site *site = site_make(&harness, "mx.example.net", 1);
    for (uint32_t i = 1; i <= 8; i++) {
        harness_fill(&harness, site, 1);
        assert_int_equal(lane_allowed(harness_lane(&harness, site)), i < 5 ? i : 5);
    }
    harness_stop(&harness);
    site_unmake(site);
}

/* Sessions stay for a while when the demand goes: a session is cheaper kept than made. */
static void test_sessions_linger(void **state) {
    struct harness harness;
    start(&harness, 2, 10);
    struct site *site = site_make(&harness, "mx.example.net", 1);
    harness_fill(&harness, site, 5);
    struct lane *lane = harness_lane(&harness, site);
    while (harness_send(&harness, lane))
        ;
    harness_advance(&harness, 5 * SECOND);
    assert_int_equal(lane_allowed(lane), 5);
    harness_advance(&harness, 16 * SECOND); /* they follow the highest demand of the last ten seconds */
    assert_int_equal(lane_allowed(lane), 0);
    harness_stop(&harness);
    site_unmake(site);
}

/* Starts at a few, grows with success up to the limit, never past it (SMTP.md section 2). */
static void test_concurrency_grows_on_success(void **state) {
    struct harness harness;
    start(&harness, 2, 8);
    struct site *site = site_make(&harness, "mx.example.net", 1);
    harness_fill(&harness, site, 1000);
    struct lane *lane = harness_lane(&harness, site);
    assert_int_equal(lane_allowed(lane), 5);
    for (uint32_t i = 0; i < 5; i++)
        harness_event(&harness, lane, PATH_EVENT_READY, 0, 0);
    assert_int_equal(lane_allowed(lane), 6);
    for (uint32_t i = 0; i < 500; i++)
        assert_true(harness_send(&harness, lane));
    assert_int_equal(lane_allowed(lane), 8);
    harness_stop(&harness);
    site_unmake(site);
}

static void test_concurrency_shrinks_on_failure(void **state) {
    struct harness harness;
    start(&harness, 2, 10);
    struct site *site = site_make(&harness, "mx.example.net", 4);
    harness_fill(&harness, site, 100);
    struct lane *lane = harness_lane(&harness, site);
    harness.config.defaults.tls = PATH_TLS_ENCRYPT;
    harness_event(&harness, lane, PATH_EVENT_CONNECT_FAILED, 0, 0);
    assert_int_equal(lane_allowed(lane), 4);
    harness_event(&harness, lane, PATH_EVENT_TLS_FAILED, 1, 0);
    assert_int_equal(lane_allowed(lane), 3);
    for (uint32_t i = 0; i < 10; i++)
        harness_event(&harness, lane, PATH_EVENT_CLOSED_EARLY, 0, 0);
    assert_int_equal(lane_allowed(lane), 1); /* never to zero while an endpoint is left */
    harness_stop(&harness);
    site_unmake(site);
}

/* 421 at the banner beside living sessions: fewer of them, and the host goes on (SMTP.md section 1). */
static void test_421_at_the_banner(void **state) {
    struct harness harness;
    start(&harness, 1, 10);
    struct site *site = site_make(&harness, "mx.example.net", 1);
    harness_fill(&harness, site, 100);
    struct lane *lane = harness_lane(&harness, site);
    shape_sessions(harness.shape, lane, 0, 3, 2, 3, harness.now_us);
    harness_event(&harness, lane, PATH_EVENT_GREETING_REFUSED, 0, 421);
    assert_int_equal(lane_allowed(lane), 2);
    assert_int_equal(lane->endpoint_rest_until_us[0], 0);
    for (uint32_t i = 0; i < 50; i++)
        harness_event(&harness, lane, PATH_EVENT_READY, 0, 0);
    assert_int_equal(lane_allowed(lane), 2); /* it does not grow again at once */
    harness_advance(&harness, 61 * SECOND);
    for (uint32_t i = 0; i < 2; i++)
        harness_event(&harness, lane, PATH_EVENT_READY, 0, 0);
    assert_int_equal(lane_allowed(lane), 3);
    harness_stop(&harness);
    site_unmake(site);
}

/* 421 between transactions is just a close. */
static void test_shutdown_reply_is_no_failure(void **state) {
    struct harness harness;
    start(&harness, 1, 10);
    struct site *site = site_make(&harness, "mx.example.net", 1);
    harness_fill(&harness, site, 100);
    struct lane *lane = harness_lane(&harness, site);
    harness_event(&harness, lane, PATH_EVENT_SHUTDOWN_REPLY, 0, 421);
    harness_event(&harness, lane, PATH_EVENT_PORTS_EXHAUSTED, 0, 0);
    assert_int_equal(lane_allowed(lane), 5);
    assert_int_equal(lane->endpoint_rest_until_us[0], 0);
    harness_stop(&harness);
    site_unmake(site);
}

static double connects_per_second(const struct lane *lane) {
    double sum = 0;
    for (uint32_t i = 0; i < SHAPE_WORKERS_MAX; i++)
        if (lane->sessions_allowed[i] > 0)
            sum += 1e6 / lane->connect_interval_us[i];
    return sum;
}

/* Whatever the workers, together they keep the site's connect rate, and use it. */
static void test_connect_rate_is_shared_by_workers(void **state) {
    for (uint32_t workers = 1; workers <= 16; workers++) {
        struct harness harness;
        start(&harness, workers, 7);
        struct site *site = site_make(&harness, "mx.example.net", 1);
        harness_fill(&harness, site, 100);
        struct lane *lane = harness_lane(&harness, site);
        double rate = harness.config.defaults.max_connection_rate;
        assert_true(connects_per_second(lane) <= rate);
        assert_true(connects_per_second(lane) > rate * 0.999);
        harness_stop(&harness);
        site_unmake(site);
    }
}

/* Two pools of one site share its connect rate. */
static void test_connect_rate_is_shared_by_pools(void **state) {
    struct harness harness;
    start(&harness, 2, 7);
    struct site *site = site_make(&harness, "mx.example.net", 1);
    harness_fill(&harness, site, 10);
    struct lane *first = harness_lane(&harness, site);
    struct job job = {.pool = harness.pools[1].name, .queue = "normal"};
    assert_int_equal(shape_enqueue(harness.shape, delivery_make(&harness, site, &job), harness.now_us), 0);
    struct lane *second = harness_lane(&harness, site);
    assert_ptr_not_equal(first, second);
    assert_true(connects_per_second(first) + connects_per_second(second) <= harness.config.defaults.max_connection_rate);
    harness_stop(&harness);
    site_unmake(site);
}

static void test_no_connect_rate_means_no_interval(void **state) {
    struct harness harness;
    start(&harness, 2, 7);
    harness.config.defaults.max_connection_rate = 0;
    struct site *site = site_make(&harness, "mx.example.net", 1);
    harness_fill(&harness, site, 10);
    assert_int_equal(harness_lane(&harness, site)->connect_interval_us[0], 0);
    harness_stop(&harness);
    site_unmake(site);
}

/* The message rate holds over an hour; the lane is told when it may go on, and says that a rate binds. */
static void test_message_rate(void **state) {
    enum { HOUR_S = 3600 };
    struct harness harness;
    start(&harness, 2, 10);
    harness.config.defaults.max_message_rate = 7;
    struct site *site = site_make(&harness, "mx.example.net", 1);
    uint32_t sent = 0;
    uint64_t end_us = harness.now_us + (uint64_t)HOUR_S * SECOND;
    harness_fill(&harness, site, 200);
    struct lane *lane = harness_lane(&harness, site);
    while (harness.now_us < end_us) {
        uint64_t wake_us;
        struct delivery *delivery = shape_take(harness.shape, lane, harness.now_us, &wake_us);
        if (delivery) {
            harness_end(&harness, lane, delivery, CLASS_NONE, 0);
            harness_fill(&harness, site, 1);
            sent++;
            continue;
        }
        assert_true(lane->rate_binds);
        assert_true(wake_us > harness.now_us && wake_us < harness.now_us + SECOND);
        uint32_t changed = harness.changed;
        harness_advance(&harness, wake_us - harness.now_us);
        assert_true(harness.changed > changed);
    }
    assert_in_range(sent, 7 * HOUR_S - 1, 7 * HOUR_S + 2);
    harness_stop(&harness);
    site_unmake(site);
}

/* lane_changed comes when something that is published changed, not with every delivery. */
static void test_changes_are_told_seldom(void **state) {
    struct harness harness;
    start(&harness, 2, 10);
    struct site *site = site_make(&harness, "mx.example.net", 1);
    harness_fill(&harness, site, 4096);
    assert_true(harness.changed > 0);
    assert_true(harness.changed < 24);
    uint32_t changed = harness.changed;
    struct lane *lane = harness_lane(&harness, site);
    for (uint32_t i = 0; i < 2000; i++)
        assert_true(harness_send(&harness, lane));
    assert_true(harness.changed - changed <= 10); /* the window grew from 5 to 10 */
    harness_stop(&harness);
    site_unmake(site);
}

static void test_new_endpoints_are_told(void **state) {
    struct harness harness;
    start(&harness, 2, 10);
    struct site *site = site_make(&harness, "mx.example.net", 1);
    harness_fill(&harness, site, 100);
    struct lane *lane = harness_lane(&harness, site);
    harness_event(&harness, lane, PATH_EVENT_CONNECT_FAILED, 0, 0);
    assert_true(lane->endpoint_rest_until_us[0] > 0);
    site->endpoints[0].address.bytes[3] ^= 0x80;
    site->generation++;
    uint32_t changed = harness.changed;
    harness_advance(&harness, SECOND);
    struct delivery *delivery = delivery_make(&harness, site, NULL);
    assert_int_equal(shape_enqueue(harness.shape, delivery, harness.now_us), 0);
    assert_true(harness.changed > changed);
    assert_int_equal(lane->endpoint_rest_until_us[0], 0);
    assert_true(lane_allowed(lane) > 0);
    harness_stop(&harness);
    site_unmake(site);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limit_is_spread_over_workers),
        cmocka_unit_test(test_small_lanes_use_all_workers),
        cmocka_unit_test(test_no_more_sessions_than_demand),
        cmocka_unit_test(test_sessions_linger),
        cmocka_unit_test(test_concurrency_grows_on_success),
        cmocka_unit_test(test_concurrency_shrinks_on_failure),
        cmocka_unit_test(test_421_at_the_banner),
        cmocka_unit_test(test_shutdown_reply_is_no_failure),
        cmocka_unit_test(test_connect_rate_is_shared_by_workers),
        cmocka_unit_test(test_connect_rate_is_shared_by_pools),
        cmocka_unit_test(test_no_connect_rate_means_no_interval),
        cmocka_unit_test(test_message_rate),
        cmocka_unit_test(test_changes_are_told_seldom),
        cmocka_unit_test(test_new_endpoints_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
