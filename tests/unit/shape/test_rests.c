/* test_rests.c: who rests, for how long, and who hears of it (SMTP.md sections 2 and 6). */
#include "harness.h"
#include <string.h>

static uint64_t rest_s(const struct harness *harness, const struct lane *lane, uint32_t endpoint) {
    uint64_t until_us = lane->endpoint_rest_until_us[endpoint];
    return until_us > harness->now_us ? (until_us - harness->now_us) / SECOND : 0;
}

/* 30 s, doubling, bounded by half an hour; failures of one cohort count once. */
static void test_endpoint_rests_grow(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    struct site *site = site_make(&harness, "mx.example.net", 2);
    harness_fill(&harness, site, 10);
    struct lane *lane = harness_lane(&harness, site);
    uint64_t expected_s = 30;
    for (uint32_t i = 0; i < 10; i++) {
        for (uint32_t cohort = 0; cohort < 5; cohort++)
            harness_event(&harness, lane, PATH_EVENT_CONNECT_FAILED, 0, 0);
        assert_int_equal(rest_s(&harness, lane, 0), expected_s);
        assert_int_equal(rest_s(&harness, lane, 1), 0);
        harness_advance(&harness, expected_s * SECOND);
        expected_s = expected_s * 2 > 1800 ? 1800 : expected_s * 2;
    }
    harness_stop(&harness);
    site_unmake(site);
}

/* The address rests, for all sites that use it. */
static void test_endpoint_rests_for_all_sites(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    struct site *first = site_make(&harness, "mx.example.net", 2), *second = site_make(&harness, "mx.example.com", 2);
    struct site *later = site_make(&harness, "mx.example.org", 1);
    second->endpoints[1] = first->endpoints[0];
    later->endpoints[0] = first->endpoints[0];
    harness_fill(&harness, first, 5);
    harness_fill(&harness, second, 5);
    struct lane *lane = harness_lane(&harness, second);
    harness_event(&harness, harness_lane(&harness, first), PATH_EVENT_CONNECT_FAILED, 0, 0);
    assert_int_equal(rest_s(&harness, lane, 1), 30);
    assert_int_equal(rest_s(&harness, lane, 0), 0);
    assert_int_equal(lane_allowed(lane), 5);
    harness_fill(&harness, later, 5); /* a lane that starts now knows it too, and waits */
    lane = harness_lane(&harness, later);
    assert_int_equal(rest_s(&harness, lane, 0), 30);
    assert_int_equal(lane_allowed(lane), 0);
    harness_advance(&harness, 30 * SECOND);
    assert_int_equal(rest_s(&harness, lane, 0), 0);
    assert_int_equal(lane_allowed(lane), 5);
    harness_stop(&harness);
    site_unmake(first);
    site_unmake(second);
    site_unmake(later);
}

static void test_ready_ends_a_rest(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    struct site *site = site_make(&harness, "mx.example.net", 2);
    harness_fill(&harness, site, 10);
    struct lane *lane = harness_lane(&harness, site);
    harness_event(&harness, lane, PATH_EVENT_CONNECT_FAILED, 0, 0);
    harness_advance(&harness, 30 * SECOND);
    harness_event(&harness, lane, PATH_EVENT_CONNECT_FAILED, 0, 0);
    assert_int_equal(rest_s(&harness, lane, 0), 60);
    harness_event(&harness, lane, PATH_EVENT_READY, 0, 0);
    assert_int_equal(rest_s(&harness, lane, 0), 0);
    harness_event(&harness, lane, PATH_EVENT_CONNECT_FAILED, 0, 0);
    assert_int_equal(rest_s(&harness, lane, 0), 30); /* from the start again */
    harness_stop(&harness);
    site_unmake(site);
}

/* Nothing listens: no sessions while all endpoints rest, and after a minute's rest the lane defers as one and takes nothing in. */
static void test_dead_site_defers_as_one(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    struct site *site = site_make(&harness, "mx.example.net", 1);
    harness_fill(&harness, site, 50);
    struct lane *lane = harness_lane(&harness, site);
    for (uint32_t s = 30; s <= 60; s *= 2) {
        harness_event(&harness, lane, PATH_EVENT_CONNECT_FAILED, 0, 0);
        assert_int_equal(lane_allowed(lane), 0);
        assert_int_equal(lane->waiting, 50);
        harness_advance(&harness, s * SECOND);
        assert_true(lane_allowed(lane) > 0);
    }
    harness_event(&harness, lane, PATH_EVENT_CONNECT_FAILED, 0, 0);
    harness_advance(&harness, 0);
    assert_int_equal(harness.deferred, 50);
    assert_int_equal(harness.deferred_until_us, harness.now_us + 120 * (uint64_t)SECOND);
    assert_int_equal(shape_window_room(harness.shape, site, NULL, harness.now_us), 0);
    harness_fill(&harness, site, 7); /* those that still come go the same way */
    assert_int_equal(harness.deferred, 57);
    harness_advance(&harness, 59 * SECOND);
    harness_fill(&harness, site, 1);
    assert_int_equal(harness.deferred, 58);
    harness_advance(&harness, 2 * SECOND); /* soon enough to wait for */
    harness_fill(&harness, site, 1);
    assert_int_equal(harness.deferred, 58);
    assert_int_equal(harness_lane(&harness, site)->waiting, 1);
    harness_stop(&harness);
    site_unmake(site);
}

/* Two sites that rest for different times: each delivery is told its own. */
static void test_each_lane_defers_until_its_own_time(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    struct site *first = site_make(&harness, "[192.0.2.9]:587", 1), *second = site_make(&harness, "[192.0.2.8]:587", 1);
    harness_fill(&harness, first, 3);
    harness_fill(&harness, second, 3);
    harness_event(&harness, harness_lane(&harness, first), PATH_EVENT_AUTH_FAILED, 0, 535);
    uint64_t first_us = harness.now_us + 300 * (uint64_t)SECOND;
    harness.now_us += SECOND;
    harness_event(&harness, harness_lane(&harness, second), PATH_EVENT_AUTH_FAILED, 0, 535);
    harness_advance(&harness, 0);
    assert_int_equal(harness.deferred, 6);
    assert_int_equal(harness.deferred_sum_us, 6 * first_us + 3 * (uint64_t)SECOND);
    harness_stop(&harness);
    site_unmake(first);
    site_unmake(second);
}

/* 421 with no session alive: the host rests. */
static void test_421_at_the_banner_of_a_full_host(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    struct site *site = site_make(&harness, "mx.example.net", 1);
    harness_fill(&harness, site, 5);
    struct lane *lane = harness_lane(&harness, site);
    harness_event(&harness, lane, PATH_EVENT_GREETING_REFUSED, 0, 421);
    assert_int_equal(rest_s(&harness, lane, 0), 30);
    harness_stop(&harness);
    site_unmake(site);
}

/* 421 in transactions: the host rests after 3 in a minute (SMTP.md section 1). */
static void test_three_421_in_a_minute(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    struct site *site = site_make(&harness, "mx.example.net", 2);
    harness_fill(&harness, site, 50);
    struct lane *lane = harness_lane(&harness, site);
    struct outcome outcome = {.kind = OUTCOME_REPLIED, .code = 421, .peer_family = 4};
    memcpy(outcome.peer_address, site->endpoints[1].address.bytes, 4);
    struct classification classification = {.class = CLASS_SYSTEM_ERROR, .verdict = VERDICT_DEFERRED};
    for (uint32_t i = 0; i < 6; i++) {
        uint64_t wake_us;
        struct delivery *delivery = shape_take(harness.shape, lane, harness.now_us, &wake_us);
        shape_ended(harness.shape, lane, &outcome, &classification, 0, harness.now_us);
        delivery_free(&harness, delivery);
        /* The third and fourth are more than a minute apart from the first. */
        assert_int_equal(rest_s(&harness, lane, 1), i < 4 ? 0 : 30);
        assert_int_equal(rest_s(&harness, lane, 0), 0);
        if (i == 1)
            harness_advance(&harness, 61 * SECOND);
    }
    harness_stop(&harness);
    site_unmake(site);
}

/* A wrong password must not bounce or hammer. */
static void test_auth_failure_stops_the_relay(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    struct site *site = site_make(&harness, "[192.0.2.9]:587", 1);
    harness_fill(&harness, site, 5);
    struct lane *lane = harness_lane(&harness, site);
    harness_event(&harness, lane, PATH_EVENT_AUTH_FAILED, 0, 535);
    assert_int_equal(rest_s(&harness, lane, 0), 300);
    assert_int_equal(lane_allowed(lane), 0);
    harness_stop(&harness);
    site_unmake(site);
}

static void end_one(struct harness *harness, struct lane *lane, enum reply_class class, uint32_t source) {
    uint64_t wake_us;
    struct delivery *delivery = shape_take(harness->shape, lane, harness->now_us, &wake_us);
    assert_non_null(delivery);
    harness_end(harness, lane, delivery, class, source);
}

static uint64_t source_s(const struct harness *harness, const struct lane *lane, uint32_t source) {
    uint64_t until_us = lane->source_rest_until_us[source];
    return until_us > harness->now_us ? (until_us - harness->now_us) / SECOND : 0;
}

/* ip_reputation: the source rests at that provider, for all its sites and no other; the other source goes on (spills over). */
static void test_reputation_rests_the_source_at_its_provider(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    struct site *first = site_make(&harness, "a.mail.example", 1), *second = site_make(&harness, "b.mail.example", 1);
    struct site *other = site_make(&harness, "mx.example.net", 1);
    first->provider = second->provider = &harness.providers[0];
    harness_fill(&harness, first, 10);
    harness_fill(&harness, second, 10);
    harness_fill(&harness, other, 10);
    struct lane *lane = harness_lane(&harness, first);
    end_one(&harness, lane, CLASS_IP_REPUTATION, 1);
    assert_int_equal(source_s(&harness, lane, 1), 900);
    assert_int_equal(source_s(&harness, lane, 0), 0);
    assert_int_equal(source_s(&harness, harness_lane(&harness, second), 1), 900);
    assert_int_equal(source_s(&harness, harness_lane(&harness, other), 1), 0);
    assert_true(lane_allowed(lane) > 0);
    end_one(&harness, lane, CLASS_IP_REPUTATION, 0); /* the last source: nothing is left to send from */
    assert_int_equal(lane_allowed(lane), 0);
    assert_int_equal(lane_allowed(harness_lane(&harness, second)), 0);
    assert_int_equal(lane_allowed(harness_lane(&harness, other)), 5);
    harness_stop(&harness);
    site_unmake(first);
    site_unmake(second);
    site_unmake(other);
}

static uint32_t sent_in(struct harness *harness, struct lane *lane, struct site *site, uint32_t seconds) {
    uint32_t sent = 0;
    for (uint32_t i = 0; i < seconds * 20; i++) {
        while (harness_send(harness, lane)) {
            sent++;
            harness_fill(harness, site, 1);
        }
        harness_advance(harness, SECOND / 20);
    }
    return sent;
}

/* rate_limited: a short rest of the source, half the pace, and back by probing. */
static void test_rate_limited_slows_and_recovers(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    struct site *site = site_make(&harness, "mx.example.net", 1);
    harness_fill(&harness, site, 200);
    struct lane *lane = harness_lane(&harness, site);
    assert_in_range(sent_in(&harness, lane, site, 20), 1950, 2050);
    for (uint32_t cohort = 0; cohort < 5; cohort++)
        end_one(&harness, lane, CLASS_RATE_LIMITED, 0);
    assert_int_equal(source_s(&harness, lane, 0), 5);
    uint32_t half = sent_in(&harness, lane, site, 20);
    assert_in_range(half, 900, 1100); /* one cohort slows once */
    end_one(&harness, lane, CLASS_RATE_LIMITED, 0);
    assert_in_range(sent_in(&harness, lane, site, 20), 450, 560);
    harness_advance(&harness, 61 * SECOND);
    assert_in_range(sent_in(&harness, lane, site, 10), 450, 560);
    harness_advance(&harness, 61 * SECOND);
    assert_in_range(sent_in(&harness, lane, site, 10), 950, 1050);
    harness_stop(&harness);
    site_unmake(site);
}

/* A lane without a rate slows from what really went out. */
static void test_rate_limited_without_a_limit(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    harness.config.defaults.max_message_rate = 0;
    struct site *site = site_make(&harness, "mx.example.net", 1);
    struct lane *lane = NULL;
    for (uint32_t i = 0; i < 30 * 10; i++) { /* 200 a second */
        harness_fill(&harness, site, 20);
        lane = harness_lane(&harness, site);
        while (harness_send(&harness, lane))
            ;
        harness_advance(&harness, SECOND / 10);
    }
    harness_fill(&harness, site, 500);
    end_one(&harness, lane, CLASS_RATE_LIMITED, 0);
    assert_in_range(sent_in(&harness, lane, site, 10), 900, 1100);
    harness_stop(&harness);
    site_unmake(site);
}

/* Greylisting wants the same source again. */
static void test_greylisting_rests_nobody(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    struct site *site = site_make(&harness, "mx.example.net", 1);
    harness_fill(&harness, site, 20);
    struct lane *lane = harness_lane(&harness, site);
    for (uint32_t i = 0; i < 5; i++)
        end_one(&harness, lane, CLASS_GREYLISTED, 0);
    assert_int_equal(source_s(&harness, lane, 0), 0);
    assert_int_equal(rest_s(&harness, lane, 0), 0);
    assert_int_equal(lane_allowed(lane), 5);
    harness_stop(&harness);
    site_unmake(site);
}

/* A wild index from the dataplane is no fault of any endpoint. */
static void test_wild_indexes_are_ignored(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    struct site *site = site_make(&harness, "mx.example.net", 1);
    harness_fill(&harness, site, 20);
    struct lane *lane = harness_lane(&harness, site);
    for (uint32_t kind = 0; kind < 256; kind++)
        harness_event(&harness, lane, (enum path_event_kind)kind, 255, 421);
    end_one(&harness, lane, CLASS_IP_REPUTATION, 4000000000u);
    shape_sessions(harness.shape, lane, 4000000000u, 1, 1, 1, harness.now_us);
    assert_int_equal(rest_s(&harness, lane, 0), 0);
    assert_int_equal(source_s(&harness, lane, 0), 0);
    harness_stop(&harness);
    site_unmake(site);
}

/* A source reaches endpoints of its own family alone: a lane whose endpoints of that family rest defers, though others are well. */
static void test_only_endpoints_of_a_sources_family_count(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    struct site *site = site_make(&harness, "mx.example.net", 2);
    site->endpoints[1].address.family = 6;
    harness_fill(&harness, site, 5);
    struct lane *lane = harness_lane(&harness, site);
    assert_true(lane_allowed(lane) > 0);
    for (uint32_t i = 0; i < 3; i++) { /* 30, 60, 120 s */
        harness_event(&harness, lane, PATH_EVENT_CONNECT_FAILED, 0, 0);
        harness_advance(&harness, (i == 0 ? 31 : i == 1 ? 61 : 1) * (uint64_t)SECOND);
        if (harness.deferred > 0)
            break;
    }
    assert_int_equal(harness.deferred, 5);
    harness_stop(&harness);
    site_unmake(site);
}

/* No source of any endpoint's family: nothing would ever be sent, so it is deferred until its time is up. */
static void test_a_pool_that_cannot_reach_a_site_defers(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    struct site *site = site_make(&harness, "mx.example.net", 1);
    site->endpoints[0].address.family = 6;
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(shape_enqueue(harness.shape, delivery_make(&harness, site, NULL), harness.now_us), 0);
    harness_advance(&harness, SECOND);
    assert_int_equal(harness.deferred, 5);
    assert_true(harness.deferred_until_us > harness.now_us + 60 * (uint64_t)SECOND);
    harness_stop(&harness);
    site_unmake(site);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_endpoint_rests_grow),
        cmocka_unit_test(test_endpoint_rests_for_all_sites),
        cmocka_unit_test(test_ready_ends_a_rest),
        cmocka_unit_test(test_dead_site_defers_as_one),
        cmocka_unit_test(test_each_lane_defers_until_its_own_time),
        cmocka_unit_test(test_421_at_the_banner_of_a_full_host),
        cmocka_unit_test(test_three_421_in_a_minute),
        cmocka_unit_test(test_auth_failure_stops_the_relay),
        cmocka_unit_test(test_reputation_rests_the_source_at_its_provider),
        cmocka_unit_test(test_rate_limited_slows_and_recovers),
        cmocka_unit_test(test_rate_limited_without_a_limit),
        cmocka_unit_test(test_greylisting_rests_nobody),
        cmocka_unit_test(test_only_endpoints_of_a_sources_family_count),
        cmocka_unit_test(test_a_pool_that_cannot_reach_a_site_defers),
        cmocka_unit_test(test_wild_indexes_are_ignored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
