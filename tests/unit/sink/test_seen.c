/* The tables of messages and attempts, also when several threads use one at the same time. */
#include "bench/sink/seen.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { THREADS = 4, HASHES = 50000 };

static uint64_t hash_of(uint64_t i) {
    uint64_t hash = (i + 1) * 0x9E3779B97F4A7C15ULL;
    return hash ^ hash >> 29;
}

static void new_once_and_then_again(void **state) {
    struct seen seen;
    assert_int_equal(seen_create(&seen, HASHES), 0);
    for (uint64_t i = 0; i < HASHES; i++)
        assert_int_equal(seen_add(&seen, hash_of(i)), SEEN_NEW);
    for (uint64_t i = 0; i < HASHES; i++)
        assert_int_equal(seen_add(&seen, hash_of(i)), SEEN_AGAIN);
    assert_int_equal(seen_add(&seen, 0), SEEN_NEW);
    assert_int_equal(seen_add(&seen, 0), SEEN_AGAIN);
    seen_destroy(&seen);
}

static void a_full_table_says_so(void **state) {
    struct seen seen;
    assert_int_equal(seen_create(&seen, 16), 0);
    unsigned full = 0;
    for (uint64_t i = 0; i < 5000; i++)
        full += seen_add(&seen, hash_of(i)) == SEEN_FULL;
    assert_true(full >= 5000 - 1024);
    assert_int_equal(seen_add(&seen, hash_of(0)), SEEN_AGAIN);
    seen_destroy(&seen);
}

static void attempts_are_counted_up_to_255(void **state) {
    struct seen seen;
    assert_int_equal(seen_create(&seen, 100), 0);
    for (uint32_t i = 0; i < 300; i++)
        assert_int_equal(seen_attempt(&seen, 0xabcdef0000ULL), i < 255 ? i : 255);
    assert_int_equal(seen_attempt(&seen, 0), 0);
    assert_int_equal(seen_attempt(&seen, 0), 1);
    seen_destroy(&seen);
}

struct racer {
    struct seen *seen;
    unsigned found_new;
};

static void *race(void *argument) {
    struct racer *racer = argument;
    for (uint64_t i = 0; i < HASHES; i++)
        racer->found_new += seen_add(racer->seen, hash_of(i)) == SEEN_NEW;
    return NULL;
}

static void each_is_new_to_one_thread(void **state) {
    struct seen seen;
    struct racer racers[THREADS];
    pthread_t threads[THREADS];
    unsigned found_new = 0;
    assert_int_equal(seen_create(&seen, HASHES), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        racers[i] = (struct racer){.seen = &seen};
        assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        found_new += racers[i].found_new;
    }
    assert_int_equal(found_new, HASHES);
    seen_destroy(&seen);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(new_once_and_then_again),
        cmocka_unit_test(a_full_table_says_so),
        cmocka_unit_test(attempts_are_counted_up_to_255),
        cmocka_unit_test(each_is_new_to_one_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
