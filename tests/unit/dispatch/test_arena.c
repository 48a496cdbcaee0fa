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

/* Memory that was never touched costs a page fault, and what was used long ago is in no cache: what is in flight goes round in little more
 * than it needs. */
static void goes_round_in_what_is_needed(void **state) {
    enum { IN_FLIGHT = 400, TAKES = 50000, LARGEST = 12 * ARENA_UNIT_BYTES };
    struct arena_map map;
    struct run runs[IN_FLIGHT] = {0};
    uint64_t end = 0, peak = 0;
    assert_int_equal(arena_map_create(&map, 128u << 20, 0, 1), 0);
    for (uint32_t step = 0; step < TAKES; step++) {
        struct run *run = &runs[step < IN_FLIGHT ? step : random_below(IN_FLIGHT)];
        if (run->bytes > 0)
            arena_give_back(&map, run->offset, run->bytes);
        run->bytes = 1 + random_below(LARGEST);
        run->offset = arena_take(&map, run->bytes);
        assert_true(run->offset != UINT64_MAX);
        end = run->offset + run->bytes > end ? run->offset + run->bytes : end;
        peak = map.used > peak ? map.used : peak;
    }
    assert_true(end <= peak * ARENA_UNIT_BYTES * 3 / 2);
    /* One that is larger than that all is found room beyond, and then all the rest of it. */
    assert_true(arena_take(&map, 100u << 20) != UINT64_MAX);
    while (arena_take(&map, ARENA_UNIT_BYTES) != UINT64_MAX)
        ;
    assert_int_equal(map.used, map.units);
    arena_map_free(&map);
}

enum { PLAIN_UNITS = 1 << 14, PLAIN_RUNS = 8192, PLAIN_STEPS = 30000 };

/* Next fit over all of the arena. UINT32_MAX: refused. */
static uint32_t plain_take(bool *model, uint32_t *next, uint32_t count) {
    for (uint32_t turn = 0; turn < 2; turn++)
        for (uint32_t unit = turn == 0 ? *next : 0, run = 0; unit < PLAIN_UNITS; unit++) {
            run = model[unit] ? 0 : run + 1;
            if (run < count)
                continue;
            memset(model + unit + 1 - count, true, count);
            *next = unit + 1 < PLAIN_UNITS ? unit + 1 : 0;
            return unit + 1 - count;
        }
    return UINT32_MAX;
}

/* Staying in a part of the arena must not break the free memory into smaller pieces: messages of all sizes, the arena three fifths full. */
static void refuses_no_more_than_next_fit_over_all(void **state) {
    static bool model[PLAIN_UNITS];
    static struct run runs[PLAIN_RUNS], plain_runs[PLAIN_RUNS];
    struct arena_map map;
    uint32_t count = 0, plain_count = 0, plain_used = 0, next = 0, refused = 0, plain_refused = 0;
    assert_int_equal(arena_map_create(&map, PLAIN_UNITS * ARENA_UNIT_BYTES, 0, 1), 0);
    for (uint32_t step = 0; step < PLAIN_STEPS; step++) {
        struct run run = {.bytes = random_below(10) == 0 ? 60000 + random_below(8000) : 600 + random_below(4000)};
        uint32_t which = random_below(random_below(10) == 0 ? PLAIN_RUNS : 64), need = units(run.bytes);
        for (; count > 0 && map.used + need > PLAIN_UNITS / 5 * 3; runs[which % count] = runs[count - 1], count--)
            arena_give_back(&map, runs[which % count].offset, runs[which % count].bytes);
        for (; plain_count > 0 && plain_used + need > PLAIN_UNITS / 5 * 3;
             plain_runs[which % plain_count] = plain_runs[plain_count - 1], plain_count--) {
            const struct run *old = &plain_runs[which % plain_count];
            memset(model + old->offset / ARENA_UNIT_BYTES, false, units(old->bytes));
            plain_used -= units(old->bytes);
        }
        uint32_t plain = plain_take(model, &next, need);
        if (plain != UINT32_MAX) {
            plain_runs[plain_count++] = (struct run){.offset = (uint64_t)plain * ARENA_UNIT_BYTES, .bytes = run.bytes};
            plain_used += need;
        }
        plain_refused += plain == UINT32_MAX;
        run.offset = arena_take(&map, run.bytes);
        if (run.offset != UINT64_MAX)
            runs[count++] = run;
        refused += run.offset == UINT64_MAX;
    }
    assert_true(refused <= plain_refused + plain_refused / 20);
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
        cmocka_unit_test(goes_round_in_what_is_needed),
        cmocka_unit_test(refuses_no_more_than_next_fit_over_all),
        cmocka_unit_test(claims_only_inside),
        cmocka_unit_test(too_large_a_map_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
