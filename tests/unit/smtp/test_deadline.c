/* test_deadline.c: the wheel against a sorted list: nothing early, nothing late by more than two ticks, nothing forgotten. */
#include "dataplane/smtp/deadline.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

enum { COUNT = 500, ROUNDS = 20000, LATE_US = 2 << DEADLINE_TICK_SHIFT };

static uint64_t random_of(uint64_t *seed, uint64_t below) {
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (*seed >> 20) % below;
}

static void deadlines_come_due_in_time_whatever_they_are_moved_to(void **state) {
    static struct deadlines deadlines;
    static struct deadline all[COUNT];
    static uint64_t wanted[COUNT];
    uint64_t seed = 42, now_us = 123456789, due_count = 0;
    deadlines_init(&deadlines, now_us);
    for (uint32_t i = 0; i < COUNT; i++) {
        deadline_init(&all[i], 0);
        wanted[i] = DEADLINE_NEVER;
    }
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t i = (uint32_t)random_of(&seed, COUNT);
        static const uint64_t spans[] = {1000, 100000, 5000000, 600000000, UINT64_C(40000000000)};
        switch (random_of(&seed, 8)) {
        case 0:
            deadline_set(&deadlines, &all[i], wanted[i] = DEADLINE_NEVER);
            break;
        case 1:
            deadline_forget(&deadlines, &all[i]);
            wanted[i] = DEADLINE_NEVER;
            break;
        default:
            wanted[i] = now_us + random_of(&seed, spans[random_of(&seed, 5)]);
            deadline_set(&deadlines, &all[i], wanted[i]);
        }
        uint64_t before_us = now_us;
        now_us += random_of(&seed, spans[random_of(&seed, 40) ? random_of(&seed, 3) : 4]);
        struct deadline *due;
        while ((due = deadlines_due(&deadlines, now_us))) {
            uint32_t index = (uint32_t)(due - all);
            assert_true(wanted[index] <= now_us);
            wanted[index] = DEADLINE_NEVER;
            due_count++;
        }
        uint64_t next_us = deadlines_next(&deadlines);
        for (uint32_t j = 0; j < COUNT; j++) {
            if (wanted[j] == DEADLINE_NEVER)
                continue;
            assert_true(wanted[j] + LATE_US > now_us);
            assert_true(next_us <= wanted[j] + LATE_US); /* whoever sleeps until then is not late */
        }
        assert_true(now_us >= before_us);
    }
    assert_true(due_count > ROUNDS / 10);
}

static void moving_a_deadline_away_costs_no_look(void **state) {
    static struct deadlines deadlines;
    struct deadline deadline;
    deadlines_init(&deadlines, 0);
    deadline_init(&deadline, 3);
    deadline_set(&deadlines, &deadline, 5000);
    deadline_set(&deadlines, &deadline, 600000000);
    assert_null(deadlines_due(&deadlines, 599999999));
    assert_ptr_equal(deadlines_due(&deadlines, 600000000 + LATE_US), &deadline);
    assert_int_equal(deadline.kind, 3);
    assert_true(deadlines_next(&deadlines) == DEADLINE_NEVER);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deadlines_come_due_in_time_whatever_they_are_moved_to),
        cmocka_unit_test(moving_a_deadline_away_costs_no_look),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
