/* test_troubles.c: what happens to a site whose TLS or login is not to be had (SMTP.md section 1), and to one that takes fewer recipients a
 * transaction than it was given (section 6). */
#include "harness.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void tls_failed(struct harness *harness, struct lane *lane, uint8_t endpoint, enum tls_failure why) {
    struct path_event event = {.kind = PATH_EVENT_TLS_FAILED, .endpoint = endpoint, .stage = STAGE_STARTTLS, .detail = why};
    shape_path_event(harness->shape, lane, &event, harness->now_us);
}

static uint64_t rest_s(const struct harness *harness, const struct lane *lane, uint32_t endpoint) {
    uint64_t until_us = lane->endpoint_rest_until_us[endpoint];
    return until_us > harness->now_us ? (until_us - harness->now_us) / SECOND : 0;
}

/* Under MAY the next connection goes without TLS (RFC 7435): nothing rests, and as many sessions as before. */
static void test_opportunistic_failures_rest_nothing(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    harness.config.defaults.tls = PATH_TLS_MAY;
    struct site *site = site_make(&harness, "mx.example.net", 1);
    harness_fill(&harness, site, 50);
    struct lane *lane = harness_lane(&harness, site);
    uint32_t before = lane_allowed(lane);
    tls_failed(&harness, lane, 0, TLS_FAILURE_HANDSHAKE);
    tls_failed(&harness, lane, 0, TLS_FAILURE_NOT_TRUSTED);
    assert_int_equal(rest_s(&harness, lane, 0), 0);
    assert_int_equal(lane_allowed(lane), before);
    harness_stop(&harness);
    site_unmake(site);
}

/* Above MAY one host gives way to the next; with none left what waits is deferred at once, with the last failure; each time for longer. */
static void test_no_tls_where_it_must_be(void **state) {
    struct harness harness;
    struct shape_trouble trouble;
    harness_start(&harness, 1);
    harness.config.defaults.tls = PATH_TLS_VERIFY;
    struct site *site = site_make(&harness, "mx.example.net", 2);
    snprintf(site->endpoints[1].name, sizeof site->endpoints[1].name, "mx2.example.net");
    harness_fill(&harness, site, 8);
    struct lane *lane = harness_lane(&harness, site);
    tls_failed(&harness, lane, 0, TLS_FAILURE_NOT_OFFERED);
    assert_int_equal(rest_s(&harness, lane, 0), 120);
    assert_true(lane_allowed(lane) > 0);
    harness_advance(&harness, 0);
    assert_int_equal(harness.deferred, 0);
    tls_failed(&harness, lane, 1, TLS_FAILURE_HOST_MISMATCH);
    harness_advance(&harness, 0);
    assert_int_equal(lane_allowed(lane), 0);
    assert_int_equal(harness.deferred, 8);
    shape_trouble(harness.shape, site, &trouble);
    assert_int_equal(trouble.kind, TROUBLE_TLS);
    assert_string_equal(trouble.text, "mx2.example.net: the certificate is for other names");
    harness_advance(&harness, 121 * (uint64_t)SECOND);
    shape_trouble(harness.shape, site, &trouble);
    assert_int_equal(trouble.kind, TROUBLE_NONE);
    harness_fill(&harness, site, 1);
    lane = harness_lane(&harness, site);
    tls_failed(&harness, lane, 0, TLS_FAILURE_NOT_OFFERED);
    assert_int_equal(rest_s(&harness, lane, 0), 240);
    /* A session that is ready ends it. */
    harness_event(&harness, lane, PATH_EVENT_READY, 0, 0);
    assert_int_equal(rest_s(&harness, lane, 0), 0);
    /* The worker's sentence has the name already. */
    struct path_event event = {.kind = PATH_EVENT_TLS_FAILED,
                               .detail = TLS_FAILURE_HANDSHAKE,
                               .endpoint = 1,
                               .stage = STAGE_STARTTLS,
                               .text = "mx2.example.net: the TLS handshake failed: the peer's alert 40: handshake failure"};
    shape_path_event(harness.shape, lane, &event, harness.now_us);
    shape_trouble(harness.shape, site, &trouble);
    assert_string_equal(trouble.text, event.text);
    harness_stop(&harness);
    site_unmake(site);
}

/* A host of two sites: the one whose policy it fails rests it, the other goes on (a shared MX must not leak one domain's policy). */
static void test_policies_are_each_sites_own(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    harness.config.defaults.tls = PATH_TLS_MAY;
    struct site *strict = site_make(&harness, "strict.example/mx.example.net", 1), *easy = site_make(&harness, "mx.example.net", 1);
    easy->endpoints[0] = strict->endpoints[0];
    strict->endpoints[0].tls = PATH_TLS_VERIFY; /* MTA-STS */
    harness_fill(&harness, strict, 5);
    harness_fill(&harness, easy, 5);
    tls_failed(&harness, harness_lane(&harness, strict), 0, TLS_FAILURE_NOT_TRUSTED);
    assert_int_equal(rest_s(&harness, harness_lane(&harness, strict), 0), 120);
    assert_int_equal(rest_s(&harness, harness_lane(&harness, easy), 0), 0);
    assert_true(lane_allowed(harness_lane(&harness, easy)) > 0);
    harness_stop(&harness);
    site_unmake(strict);
    site_unmake(easy);
}

/* A refused login stops all hosts of the relay; another password is tried at once. */
static void test_another_password_is_tried_at_once(void **state) {
    struct harness harness;
    struct shape_trouble trouble;
    struct config_relay wrong = {.auth_user = (char *)"bulk", .auth_secret = (char *)"wrong"}, right = wrong;
    right.auth_secret = (char *)"right";
    harness_start(&harness, 1);
    struct site *site = site_make(&harness, "[192.0.2.9]:587", 2);
    site->relay = &wrong;
    harness_fill(&harness, site, 5);
    struct lane *lane = harness_lane(&harness, site);
    struct path_event event = {.kind = PATH_EVENT_AUTH_FAILED,
                               .stage = STAGE_AUTH,
                               .endpoint = 1,
                               .code = 535,
                               .text = "smtp.example.net: AUTH PLAIN is refused: no such user"};
    snprintf(site->endpoints[1].name, sizeof site->endpoints[1].name, "smtp.example.net");
    shape_path_event(harness.shape, lane, &event, harness.now_us);
    assert_int_equal(rest_s(&harness, lane, 0), 300);
    assert_int_equal(rest_s(&harness, lane, 1), 300);
    harness_advance(&harness, 0);
    assert_int_equal(harness.deferred, 5);
    shape_trouble(harness.shape, site, &trouble);
    assert_int_equal(trouble.kind, TROUBLE_LOGIN);
    assert_string_equal(trouble.text, "smtp.example.net refuses the login: 535 no such user");
    assert_null(strstr(trouble.text, "wrong"));
    site->relay = &right;
    shape_reconfigure(harness.shape, &harness.config);
    harness_fill(&harness, site, 5);
    assert_int_equal(harness.deferred, 5);
    assert_int_equal(rest_s(&harness, harness_lane(&harness, site), 0), 0);
    assert_true(lane_allowed(harness_lane(&harness, site)) > 0);
    harness_stop(&harness);
    site_unmake(site);
}

static bool all_fit(void *context, const struct delivery *first, const struct delivery *other) {
    return true;
}

/* How many go in one transaction. */
static uint32_t batch(struct harness *harness, struct lane *lane, enum reply_class class) {
    uint64_t wake_us;
    uint32_t count;
    struct delivery *delivery = shape_take(harness->shape, lane, harness->now_us, &wake_us);
    assert_non_null(delivery);
    delivery->next = shape_take_like(harness->shape, lane, delivery, all_fit, NULL, 99, &count, harness->now_us);
    for (struct delivery *next; delivery; delivery = next) {
        next = delivery->next;
        harness_end(harness, lane, delivery, class, 0);
    }
    return count + 1;
}

/* "Too many recipients": half as many next time, however many of one transaction were refused; an hour later twice as many again. */
static void test_batches_shrink_and_grow(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    harness.config.defaults.max_recipients_per_batch = 100;
    harness.config.defaults.max_message_rate = 0;
    struct site *site = site_make(&harness, "mx.example.net", 1);
    harness_fill(&harness, site, 1000);
    struct lane *lane = harness_lane(&harness, site);
    assert_int_equal(batch(&harness, lane, CLASS_TOO_MANY_RECIPIENTS), 100);
    assert_int_equal(batch(&harness, lane, CLASS_TOO_MANY_RECIPIENTS), 50);
    harness_advance(&harness, 2 * SECOND);
    assert_int_equal(batch(&harness, lane, CLASS_TOO_MANY_RECIPIENTS), 50);
    assert_int_equal(batch(&harness, lane, CLASS_NONE), 25);
    for (uint32_t i = 0; i < 6; i++) {
        harness_advance(&harness, 2 * SECOND);
        batch(&harness, lane, CLASS_TOO_MANY_RECIPIENTS);
    }
    assert_int_equal(batch(&harness, lane, CLASS_NONE), 1);
    harness_advance(&harness, 3601 * (uint64_t)SECOND);
    assert_int_equal(batch(&harness, lane, CLASS_NONE), 2);
    harness_stop(&harness);
    site_unmake(site);
}

/* Route took a relay's hosts away: what waits there finds another route soon. */
static void test_a_site_without_hosts_defers_soon(void **state) {
    struct harness harness;
    harness_start(&harness, 1);
    struct site *site = site_make(&harness, "[192.0.2.9]:587", 1);
    harness_fill(&harness, site, 5);
    site->endpoint_count = 0;
    site->generation++;
    shape_reconfigure(harness.shape, &harness.config);
    harness_advance(&harness, 0);
    assert_int_equal(harness.deferred, 5);
    assert_true(harness.deferred_until_us <= harness.now_us + 61 * (uint64_t)SECOND);
    harness_stop(&harness);
    site_unmake(site);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opportunistic_failures_rest_nothing),
        cmocka_unit_test(test_no_tls_where_it_must_be),
        cmocka_unit_test(test_policies_are_each_sites_own),
        cmocka_unit_test(test_another_password_is_tried_at_once),
        cmocka_unit_test(test_batches_shrink_and_grow),
        cmocka_unit_test(test_a_site_without_hosts_defers_soon),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
