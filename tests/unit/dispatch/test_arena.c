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

enum { MIB = 1 << 20, WIDE = 16 * MIB, HUGE = WIDE / ARENA_HUGE_PART };

static void what_is_huge_depends_on_the_arena(void **state) {
    static const struct {
        uint64_t arena, huge;
    } cases[] = {{WIDE, HUGE}, {128 * MIB, 4 * MIB}, {MIB, 256 << 10}, {1ull << 32, 4 * MIB}, {128 << 10, 256 << 10}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct arena_map map;
        assert_int_equal(arena_map_create(&map, cases[i].arena, 0, 1), 0);
        assert_int_equal(arena_huge_bytes(&map), cases[i].huge);
        assert_true(arena_is_huge(&map, (uint32_t)cases[i].huge));
        assert_true(arena_is_huge(&map, (uint32_t)cases[i].huge - ARENA_UNIT_BYTES + 1)); /* it takes as many units */
        assert_false(arena_is_huge(&map, (uint32_t)cases[i].huge - ARENA_UNIT_BYTES));
        arena_map_free(&map);
    }
}

/* Small ones from the start, huge ones from the end: they meet where all is taken, whichever shard's part it is. */
static void huge_runs_come_from_the_end(void **state) {
    for (uint32_t shard = 0; shard < 3; shard++) {
        struct arena_map map;
        assert_int_equal(arena_map_create(&map, 3 * WIDE + 3 * 512, shard, 3), 0);
        uint64_t first = (uint64_t)map.first * ARENA_UNIT_BYTES, end = (uint64_t)map.end * ARENA_UNIT_BYTES;
        assert_int_equal(map.units, WIDE / ARENA_UNIT_BYTES + 1);
        assert_int_equal(arena_take(&map, 1000), first);
        assert_int_equal(arena_take(&map, HUGE), end - HUGE);
        assert_int_equal(arena_take(&map, 3 * HUGE), end - 4 * HUGE);
        assert_int_equal(map.huge_used, 4 * HUGE / ARENA_UNIT_BYTES);
        arena_give_back(&map, end - HUGE, HUGE);
        assert_int_equal(arena_take(&map, HUGE), end - HUGE); /* the hole nearest to the end */
        assert_int_equal(arena_take(&map, 700), first + 1024);
        assert_int_equal(arena_take_high(&map, 700), end - 4 * HUGE - 1024);
        assert_int_equal(map.huge_used, 4 * HUGE / ARENA_UNIT_BYTES); /* a small one is none */
        uint32_t rest = WIDE + 512 - 4 * HUGE - 3 * 1024;
        assert_true(arena_take(&map, rest + 1) == UINT64_MAX);
        assert_int_equal(arena_take(&map, rest), first + 2048);
        assert_int_equal(map.used, map.units);
        assert_true(arena_take_high(&map, 1) == UINT64_MAX);
        arena_give_back(&map, first, 1000);
        assert_int_equal(arena_take_high(&map, 512), first + 512);
        assert_int_equal(arena_take_high(&map, 512), first);
        arena_map_free(&map);
    }
}

/* Half of the arena, or one of them as much as it needs. */
static void huge_runs_have_their_share(void **state) {
    struct arena_map map;
    assert_int_equal(arena_map_create(&map, WIDE, 0, 1), 0);
    assert_true(arena_huge_may(&map, WIDE, 0));
    uint64_t at = arena_take(&map, WIDE / 4);
    assert_true(arena_huge_may(&map, WIDE / 4, 0));
    assert_false(arena_huge_may(&map, WIDE / 4 + ARENA_UNIT_BYTES, 0));
    assert_true(arena_huge_may(&map, WIDE / 4 + ARENA_UNIT_BYTES, 1));
    assert_true(arena_huge_may(&map, WIDE, WIDE / 4 / ARENA_UNIT_BYTES));
    arena_give_back(&map, at, WIDE / 4);
    assert_true(arena_huge_may(&map, WIDE, 0));
    assert_true(arena_claim(&map, HUGE, HUGE)); /* an earlier control's counts too */
    assert_int_equal(map.huge_used, HUGE / ARENA_UNIT_BYTES);
    assert_false(arena_huge_may(&map, WIDE / 2, 0));
    assert_false(arena_claim(&map, 0, 2 * HUGE)); /* this one nobody will give back */
    assert_int_equal(map.huge_used, HUGE / ARENA_UNIT_BYTES);
    arena_abandon(&map, HUGE, HUGE);
    assert_int_equal(map.huge_used, 0);
    assert_int_equal(map.used, 2 * HUGE / ARENA_UNIT_BYTES);
    arena_map_free(&map);
}

/* The window lies where the fewest huge runs end late, then where the least is in use, then near the end. */
static void the_window_is_where_it_is_free_soonest(void **state) {
    struct arena_map map;
    assert_int_equal(arena_map_create(&map, WIDE, 0, 1), 0);
    arena_window_choose(&map, 4 * MIB);
    assert_int_equal(map.window, (WIDE - 4 * MIB) / ARENA_UNIT_BYTES);
    assert_int_equal(arena_take(&map, HUGE), WIDE - HUGE);
    arena_window_choose(&map, 4 * MIB + 1);
    assert_int_equal(map.window_units, 4 * MIB / ARENA_UNIT_BYTES + 1);
    assert_true(map.window + map.window_units <= (WIDE - HUGE) / ARENA_UNIT_BYTES);
    assert_true(map.window + map.window_units + 64 > (WIDE - HUGE) / ARENA_UNIT_BYTES);
    arena_window_clear(&map);
    while (arena_take(&map, HUGE / 2) != UINT64_MAX)
        ;
    for (uint32_t at = 5 * MIB; at < 6 * MIB + HUGE / 2; at += HUGE / 2)
        arena_give_back(&map, at, HUGE / 2);
    arena_window_choose(&map, 2 * MIB);
    uint64_t window = map.window * (uint64_t)ARENA_UNIT_BYTES;
    assert_true(window <= 5 * MIB && window + 2 * MIB >= 6 * MIB + HUGE / 2); /* all of the hole is in it */
    assert_true(arena_in_window(&map, window, 1));
    assert_false(arena_in_window(&map, window - 512, 512));
    assert_true(arena_in_window(&map, window - 512, 513));
    assert_true(arena_in_window(&map, window + 2 * MIB - 1024, 512));
    assert_false(arena_in_window(&map, window + 2 * MIB, MIB));
    assert_true(arena_take(&map, 512) == UINT64_MAX); /* nothing else is free */
    assert_int_equal(arena_take_high(&map, 512), 6 * MIB + HUGE / 2 - 512);
    arena_window_choose(&map, UINT64_MAX / 2);
    assert_int_equal(map.window, 0);
    assert_int_equal(map.window_units, map.units);
    arena_window_clear(&map);
    assert_false(arena_in_window(&map, 0, WIDE));
    arena_map_free(&map);
}

enum { WIDE_UNITS = WIDE / ARENA_UNIT_BYTES, WIDE_STEPS = 30000 };

static bool wide_has_run(const bool *model, uint32_t from, uint32_t to, uint32_t count) {
    for (uint32_t i = from, run = 0; i < to; i++) {
        run = model[i] ? 0 : run + 1;
        if (run == count)
            return true;
    }
    return false;
}

/* Both ends and the window, at random, against one bool a unit: nothing is given out twice or refused while it is there, small runs stay
 * out of the window, a huge one lies as near to the end as it can, and a window ends free of all that was in it. */
static void both_ends_keep_to_the_model(void **state) {
    static bool model[WIDE_UNITS];
    static struct run runs[2000];
    struct arena_map map;
    uint32_t count = 0, huge_used = 0, used = 0, placed = 0, waited = 0, in_window = 0;
    uint64_t wanted = 0;
    assert_int_equal(arena_map_create(&map, WIDE, 0, 1), 0);
    for (uint32_t step = 0; step < WIDE_STEPS; step++) {
        uint32_t what = random_below(20);
        if (what < 11 && count < 2000) {
            struct run run = {.bytes = 1 + random_below(60000)};
            uint32_t need = units(run.bytes), window_end = map.window + map.window_units;
            run.offset = arena_take(&map, run.bytes);
            if (run.offset == UINT64_MAX) {
                assert_false(wide_has_run(model, 0, map.window_units ? map.window : WIDE_UNITS, need));
                assert_false(map.window_units && wide_has_run(model, window_end, WIDE_UNITS, need));
                continue;
            }
            assert_false(arena_in_window(&map, run.offset, run.bytes));
            for (uint32_t i = 0; i < need; i++, used++) {
                assert_false(model[run.offset / ARENA_UNIT_BYTES + i]);
                model[run.offset / ARENA_UNIT_BYTES + i] = true;
            }
            runs[count++] = run;
        } else if (what < 13 || wanted != 0) {
            struct run run = {.bytes = wanted != 0 ? (uint32_t)wanted : HUGE + random_below(2 * MIB)};
            uint32_t need = units(run.bytes);
            if (!arena_huge_may(&map, run.bytes, 0)) {
                assert_true(huge_used > 0 && (huge_used + need) * 2 > WIDE_UNITS);
                wanted = 0;
                arena_window_clear(&map);
            } else if ((run.offset = arena_take(&map, run.bytes)) != UINT64_MAX) {
                uint32_t first = (uint32_t)(run.offset / ARENA_UNIT_BYTES);
                assert_true(first + need == WIDE_UNITS || model[first + need]);    /* it leaves no hole behind it ... */
                assert_false(wide_has_run(model, first + need, WIDE_UNITS, need)); /* ... nor one that it fits */
                in_window += map.window_units != 0 && arena_in_window(&map, run.offset, run.bytes);
                for (uint32_t i = 0; i < need; i++, used++, huge_used++) {
                    assert_false(model[first + i]);
                    model[first + i] = true;
                }
                runs[count++] = run;
                placed++;
                wanted = 0;
                arena_window_clear(&map);
            } else {
                assert_false(wide_has_run(model, 0, WIDE_UNITS, need));
                if (wanted == 0)
                    arena_window_choose(&map, run.bytes);
                waited += wanted == 0;
                wanted = run.bytes;
            }
        }
        if (what >= 10 && count > 0) {
            uint32_t which = random_below(count), need = units(runs[which].bytes);
            arena_give_back(&map, runs[which].offset, runs[which].bytes);
            memset(model + runs[which].offset / ARENA_UNIT_BYTES, false, need);
            used -= need;
            huge_used -= arena_is_huge(&map, runs[which].bytes) ? need : 0;
            runs[which] = runs[--count];
        }
        assert_int_equal(map.used, used);
        assert_int_equal(map.huge_used, huge_used);
        assert_true(huge_used * 2 <= WIDE_UNITS);
    }
    print_message("%u placed, %u waited, %u of them in their window\n", placed, waited, in_window);
    assert_true(placed > 60 && waited > 20 && in_window > 3);
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
        cmocka_unit_test(what_is_huge_depends_on_the_arena),
        cmocka_unit_test(huge_runs_come_from_the_end),
        cmocka_unit_test(huge_runs_have_their_share),
        cmocka_unit_test(the_window_is_where_it_is_free_soonest),
        cmocka_unit_test(both_ends_keep_to_the_model),
        cmocka_unit_test(too_large_a_map_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
