/* test_bucket.c: a rate is kept exactly, for hours, whatever the clock's steps (GCRA, ITU-T I.371). */
#include "control/shape/bucket.h"
#include "control/shape/heap.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static const uint64_t HOUR_US = 3600000000u;

/* Asks at every time that the bucket names, `late_us` later at most, for so long; returns how many passed. */
static uint64_t run(struct bucket *bucket, uint64_t start_us, uint64_t length_us, uint32_t late_us) {
    uint64_t count = 0, now_us = start_us;
    srandom(7);
    while (now_us < start_us + length_us) {
        uint64_t ready_us = bucket_ready_us(bucket);
        if (ready_us <= now_us) {
            bucket_take(bucket, now_us);
            count++;
        } else {
            now_us = ready_us + (late_us > 0 ? (uint64_t)random() % late_us : 0);
        }
    }
    return count;
}

static void check_exact(double per_second, uint64_t hours, uint32_t late_us) {
    struct bucket bucket = {0};
    bucket_set(&bucket, per_second);
    uint64_t count = run(&bucket, 12345, hours * HOUR_US, late_us);
    double expected = per_second * (double)hours * 3600;
    /* Never more than the rate and one burst; never less than the rate. */
    assert_true((double)count <= expected + bucket.burst + 1);
    assert_true((double)count >= expected - 1);
}

static void test_exact_for_hours(void **state) {
    check_exact(100.0 / 60, 24, 0);
    check_exact(7, 10, 0);
    check_exact(3, 10, 0);
    check_exact(333, 2, 0);
    check_exact(3000, 1, 0);
    check_exact(0.01, 1000, 0);
}

/* A pass of the event loop or a sleep costs no rate. */
static void test_exact_when_asked_late(void **state) {
    check_exact(7, 10, 100000);
    check_exact(20, 10, 100000);
    check_exact(100.0 / 60, 24, 100000);
    check_exact(333, 2, 100000);
    check_exact(3000, 1, 100000);
}

/* In no second more than the rate and a burst. */
static void test_never_above_the_rate_in_any_second(void **state) {
    enum { RATE = 50, SECONDS = 600 };
    struct bucket bucket = {0};
    bucket_set(&bucket, RATE);
    static uint64_t times[RATE * SECONDS * 2];
    uint32_t count = 0;
    srandom(11);
    for (uint64_t now_us = 0; now_us < SECONDS * 1000000ull; now_us += (uint64_t)random() % 60000)
        while (bucket_ready_us(&bucket) <= now_us) {
            bucket_take(&bucket, now_us);
            times[count++] = now_us;
        }
    assert_true(count > RATE * SECONDS * 9 / 10);
    for (uint32_t first = 0, last = 0; last < count; last++) {
        while (times[last] - times[first] > 1000000)
            first++;
        assert_true(last - first + 1 <= RATE + bucket.burst + 1);
    }
}

static void test_idle_time_earns_one_burst(void **state) {
    struct bucket bucket = {0};
    bucket_set(&bucket, 100);
    assert_int_equal(bucket_tokens(&bucket, HOUR_US), 13); /* 120 ms and one */
    uint32_t burst = 0;
    while (bucket_ready_us(&bucket) <= HOUR_US) {
        bucket_take(&bucket, HOUR_US);
        burst++;
    }
    assert_int_equal(burst, 13);
    assert_int_equal(bucket_tokens(&bucket, HOUR_US), 0);
    assert_int_equal(bucket_tokens(&bucket, HOUR_US + 10000), 1);
}

static void test_no_rate_is_no_limit(void **state) {
    struct bucket bucket = {0};
    bucket_set(&bucket, 0);
    for (int i = 0; i < 1000; i++)
        bucket_take(&bucket, 1);
    assert_int_equal(bucket_ready_us(&bucket), 0);
    assert_int_equal(bucket_tokens(&bucket, 1), UINT32_MAX);
}

/* What was given back was never taken, to the fraction. */
static void test_refund_is_exact(void **state) {
    struct bucket bucket = {0};
    bucket_set(&bucket, 7);
    bucket_take(&bucket, 1000);
    struct bucket before = bucket;
    for (int i = 0; i < 1000; i++)
        bucket_take(&bucket, 1000);
    for (int i = 0; i < 1000; i++)
        bucket_refund(&bucket);
    assert_int_equal(bucket.next_us, before.next_us);
    assert_int_equal(bucket.next_part, before.next_part);
}

static void test_changed_rate_keeps_debt(void **state) {
    struct bucket bucket = {0};
    bucket_set(&bucket, 1);
    bucket_take(&bucket, 1000000);
    bucket_set(&bucket, 10);
    assert_true(bucket_ready_us(&bucket) > 1500000);
}

static void test_heap_gives_the_earliest(void **state) {
    enum { COUNT = 500 };
    static struct timer timers[COUNT];
    struct heap heap = {0};
    assert_int_equal(heap_reserve(&heap, COUNT), 0);
    srandom(3);
    for (int i = 0; i < COUNT; i++)
        timers[i].at_us = UINT64_MAX;
    for (int i = 0; i < 20000; i++) {
        struct timer *timer = &timers[random() % COUNT];
        heap_set(&heap, timer, random() % 5 == 0 ? UINT64_MAX : (uint64_t)random() % 1000);
        uint64_t earliest_us = UINT64_MAX;
        for (int j = 0; j < COUNT; j++)
            earliest_us = timers[j].at_us < earliest_us ? timers[j].at_us : earliest_us;
        struct timer *first = heap_first(&heap);
        assert_int_equal(first ? first->at_us : UINT64_MAX, earliest_us);
    }
    heap_free(&heap);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact_for_hours),
        cmocka_unit_test(test_exact_when_asked_late),
        cmocka_unit_test(test_never_above_the_rate_in_any_second),
        cmocka_unit_test(test_idle_time_earns_one_burst),
        cmocka_unit_test(test_no_rate_is_no_limit),
        cmocka_unit_test(test_refund_is_exact),
        cmocka_unit_test(test_changed_rate_keeps_debt),
        cmocka_unit_test(test_heap_gives_the_earliest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
