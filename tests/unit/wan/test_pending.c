/* test_pending.c: frames leave by their time, then by their arrival; memory is bounded. */
#include "bench/wan/pending.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

enum { CAPACITY = 1000, SLOT = 64 };

static void frames_leave_by_time_then_by_arrival(void **state) {
    struct pending pending;
    uint64_t x = 1;
    assert_int_equal(pending_create(&pending, CAPACITY, SLOT), 0);
    for (uint32_t round = 0; round < 20; round++) {
        for (uint32_t i = 0; i < CAPACITY / 2; i++) {
            x = x * UINT64_C(6364136223846793005) + 1;
            uint64_t release = (x >> 33) % 100;
            uint8_t frame[16];
            memcpy(frame, &release, 8);
            memcpy(frame + 8, &pending.order, 8);
            assert_non_null(pending_add(&pending, frame, sizeof frame, release));
        }
        uint64_t last[2] = {0, 0};
        for (uint32_t i = 0; i < CAPACITY / 2; i++) {
            const struct pending_entry *entry = pending_first(&pending);
            uint64_t written[2];
            memcpy(written, pending_bytes(&pending, entry), 16);
            assert_int_equal(entry->length, 16);
            assert_true(written[0] == entry->release_ns && written[1] == entry->order); /* the bytes are those of this frame */
            assert_true(written[0] > last[0] || i == 0 || (written[0] == last[0] && written[1] > last[1]));
            memcpy(last, written, 16);
            pending_remove_first(&pending);
        }
        assert_null(pending_first(&pending));
    }
    pending_destroy(&pending);
}

static void what_does_not_fit_is_refused(void **state) {
    struct pending pending;
    uint8_t frame[SLOT + 1] = {0};
    assert_int_equal(pending_create(&pending, 2, SLOT), 0);
    assert_null(pending_add(&pending, frame, SLOT + 1, 0));
    assert_non_null(pending_add(&pending, frame, SLOT, 0));
    assert_non_null(pending_add(&pending, frame, SLOT, 0));
    assert_null(pending_add(&pending, frame, SLOT, 0));
    pending_remove_first(&pending);
    assert_non_null(pending_add(&pending, frame, SLOT, 0));
    assert_int_equal(pending.count_max, 2);
    pending_destroy(&pending);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_leave_by_time_then_by_arrival),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
