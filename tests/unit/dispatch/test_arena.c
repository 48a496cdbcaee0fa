/* test_arena.c: the arena's map against a model of one bool a unit. */
#include "world.h"

#include <string.h>

enum { UNITS = 300, RUNS_MAX = 64, STEPS = 20000 };

struct run {
    uint64_t offset;
    uint32_t bytes;
};

static uint32_t seed = 1;
static uint32_t random_below(uint32_t bound) {
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % bound;
}

static uint32_t units(uint32_t bytes) {
    return (bytes + ARENA_UNIT_BYTES - 1) / ARENA_UNIT_BYTES;
}

static bool has_run(const bool *model, uint32_t count) {
    uint32_t run = 0;
    for (uint32_t i = 0; i < UNITS; i++) {
        run = model[i] ? 0 : run + 1;
        if (run == count)
            return true;
    }
    return false;
}

static void mark(bool *model, const struct run *run, bool value) {
    for (uint32_t i = 0; i < units(run->bytes); i++) {
        uint32_t unit = (uint32_t)(run->offset / ARENA_UNIT_BYTES) + i;
        assert_true(unit < UNITS);
        assert_int_not_equal(model[unit], value); /* never given out twice */
        model[unit] = value;
    }
}

static void takes_what_is_free_and_nothing_else(void **state) {
    struct arena_map map;
    bool model[UNITS] = {false};
    struct run runs[RUNS_MAX];
    uint32_t count = 0, refused = 0;
    assert_int_equal(arena_map_create(&map, UNITS * ARENA_UNIT_BYTES + 17, 0, 1), 0);
    for (uint32_t step = 0; step < STEPS; step++) {
        if (count < RUNS_MAX && random_below(5) < 3) {
            struct run run = {.bytes = 1 + random_below(random_below(10) == 0 ? 100 * ARENA_UNIT_BYTES : 6 * ARENA_UNIT_BYTES)};
            run.offset = arena_take(&map, run.bytes);
            if (run.offset == UINT64_MAX) {
                assert_false(has_run(model, units(run.bytes)));
                refused++;
            } else {
                assert_int_equal(run.offset % ARENA_UNIT_BYTES, 0);
                mark(model, &run, true);
                runs[count++] = run;
            }
        } else if (count > 0) {
            uint32_t which = random_below(count);
            mark(model, &runs[which], false);
            arena_give_back(&map, runs[which].offset, runs[which].bytes);
            runs[which] = runs[--count];
        }
        uint32_t used = 0;
        for (uint32_t i = 0; i < UNITS; i++)
            used += model[i];
        assert_int_equal(map.used, used);
    }
    assert_true(refused > 100);
    arena_map_free(&map);
}

static void full_then_free_again(void **state) {
    struct arena_map map;
    assert_int_equal(arena_map_create(&map, UNITS * ARENA_UNIT_BYTES, 0, 1), 0);
    assert_int_equal(arena_take(&map, UNITS * ARENA_UNIT_BYTES), 0);
    assert_true(arena_take(&map, 1) == UINT64_MAX);
    arena_give_back(&map, 5 * ARENA_UNIT_BYTES, ARENA_UNIT_BYTES);
    assert_int_equal(arena_take(&map, ARENA_UNIT_BYTES), 5 * ARENA_UNIT_BYTES);
    assert_true(arena_take(&map, 1) == UINT64_MAX);
    assert_true(arena_take(&map, 0) == UINT64_MAX);
    assert_true(arena_take(&map, UINT32_MAX) == UINT64_MAX);
    arena_map_free(&map);
}

/* Next fit starts behind the last run and comes round; a run never goes over the end. */
static void wraps_to_the_start(void **state) {
    struct arena_map map;
    assert_int_equal(arena_map_create(&map, 10 * ARENA_UNIT_BYTES, 0, 1), 0);
    assert_int_equal(arena_take(&map, 4 * ARENA_UNIT_BYTES), 0);
    assert_int_equal(arena_take(&map, 4 * ARENA_UNIT_BYTES), 4 * ARENA_UNIT_BYTES);
    arena_give_back(&map, 0, 4 * ARENA_UNIT_BYTES);
    assert_int_equal(arena_take(&map, 3 * ARENA_UNIT_BYTES), 0);
    assert_int_equal(arena_take(&map, 2 * ARENA_UNIT_BYTES), 8 * ARENA_UNIT_BYTES);
    assert_int_equal(map.next, 0);
    arena_map_free(&map);
}

static void claims_only_inside(void **state) {
    struct arena_map map;
    assert_int_equal(arena_map_create(&map, UNITS * ARENA_UNIT_BYTES, 0, 1), 0);
    assert_true(arena_claim(&map, 2 * ARENA_UNIT_BYTES, 700));
    assert_int_equal(map.used, 2);
    assert_true(arena_claim(&map, (UNITS - 1) * ARENA_UNIT_BYTES, ARENA_UNIT_BYTES));
    assert_false(arena_claim(&map, (UNITS - 1) * ARENA_UNIT_BYTES, ARENA_UNIT_BYTES + 1));
    assert_false(arena_claim(&map, UNITS * ARENA_UNIT_BYTES, 1));
    assert_false(arena_claim(&map, 1, 1));
    assert_false(arena_claim(&map, UINT64_MAX - ARENA_UNIT_BYTES + 1, 1));
    assert_false(arena_claim(&map, 1ull << 41, 1)); /* its unit number must not be cut to 32 bits */
    assert_false(arena_claim(&map, 0, UINT32_MAX));
    assert_int_equal(map.used, 3);
    arena_give_back(&map, 1ull << 41, 1);
    arena_give_back(&map, 0, UINT32_MAX);
    assert_int_equal(map.used, 3);
    arena_map_free(&map);
}

static void too_large_a_map_is_refused(void **state) {
    struct arena_map map;
    assert_int_equal(arena_map_create(&map, 1ull << 50, 0, 1), -22);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_what_is_free_and_nothing_else),
        cmocka_unit_test(full_then_free_again),
        cmocka_unit_test(wraps_to_the_start),
        cmocka_unit_test(claims_only_inside),
        cmocka_unit_test(too_large_a_map_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
