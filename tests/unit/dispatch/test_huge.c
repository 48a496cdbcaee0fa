/* test_huge.c: huge messages wait for the arena, small mail does not wait for them, and nothing waits for good
 * (control/dispatch/README.md). */
#include "world.h"

#include <stdlib.h>
#include <string.h>

enum { MIB = 1 << 20, ARENA = 8 * MIB, HUGE = 256 << 10 /* of such an arena, and half of it is theirs */, HELD_MAX = 64 };

static uint32_t seed = 11;
static uint32_t random_below(uint32_t bound) {
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % bound;
}

struct held {
    struct world_order orders[HELD_MAX];
    uint32_t indexes[HELD_MAX], count;
};

static void begin(struct world *world) {
    world->arena_bytes = ARENA;
    world->limits.max_recipients_per_batch = 1;
    world_start(world);
}

/* Worker 0 takes all that it was given and answers nothing. */
static void hold(struct world *world, struct held *held) {
    const struct slot *slot;
    world_pop(world, 0);
    while (held->count < HELD_MAX && (slot = world_claim(world, 0, &held->orders[held->count])) != NULL)
        held->indexes[held->count++] = world_index(slot);
}

static bool holds(const struct held *held, uint32_t index) {
    for (uint32_t i = 0; i < held->count; i++)
        if (held->indexes[i] == index)
            return true;
    return false;
}

static void commit_all(struct world *world) {
    for (uint32_t i = 0; i < world->delivery_count; i++)
        if (world->fates[i].ended)
            dispatch_committed(world->dispatch, world->fates[i].end.slot, world->fates[i].end.slot_generation);
    world_settle(world);
}

static void answer_at(struct world *world, struct held *held, uint32_t at) {
    world_answer(world, 0, &held->orders[at], OUTCOME_REPLIED, 250, "ok");
    held->count--;
    held->orders[at] = held->orders[held->count];
    held->indexes[at] = held->indexes[held->count];
    world_settle(world);
    commit_all(world);
    hold(world, held);
}

static void answer(struct world *world, struct held *held, uint32_t index) {
    for (uint32_t i = 0; i < held->count; i++)
        if (held->indexes[i] == index) {
            answer_at(world, held, i);
            return;
        }
    fail_msg("delivery %u is not with a worker", index);
}

static void give_credit(struct world *world, uint32_t lane, uint32_t credit) {
    world_show(world, 0, world_path(world, lane), credit, credit);
}

static uint32_t wait_with_credit(struct world *world, uint32_t lane, uint32_t count, uint32_t credit) {
    uint32_t first = world_wait(world, lane, count);
    give_credit(world, lane, credit);
    return first;
}

static uint32_t wait_huge(struct world *world, uint32_t lane, uint32_t count, size_t bytes) {
    uint32_t first = world_wait_huge(world, lane, count, bytes, true);
    give_credit(world, lane, 30);
    return first;
}

static struct dispatch_huge huge_of(const struct world *world) {
    struct dispatch_huge huge;
    dispatch_huge(world->dispatch, &huge);
    return huge;
}

/* What no order needs is no order's: at the end nothing of the bookkeeping is left. */
static void all_is_given_back(const struct world *world) {
    const struct dispatch *dispatch = world->dispatch;
    assert_int_equal(dispatch->map.used, 0);
    assert_int_equal(dispatch->map.huge_used, 0);
    assert_int_equal(dispatch->map.window_units, 0);
    assert_int_equal(dispatch->huge.orders + dispatch->huge.deliveries, 0);
    assert_int_equal(dispatch->huge.bytes, 0);
    assert_null(dispatch->huge.first);
    assert_null(dispatch->huge.turn);
    assert_null(dispatch->huge.watched);
    assert_int_equal(dispatch->backlog.count + dispatch->huge_backlog.count, 0);
    assert_int_equal(dispatch->backlog.bytes + dispatch->huge_backlog.bytes, 0);
    for (uint32_t i = 0; i < WORLD_PATHS; i++)
        assert_int_equal(dispatch->paths[i].huge_orders, 0);
    world_check(world, 0);
}

static void small_mail_overtakes_huge(void **state) {
    struct world *world = *state;
    struct held held = {.count = 0};
    begin(world);
    uint32_t first = wait_huge(world, 0, 3, 3 * MIB);
    hold(world, &held);
    assert_int_equal(held.count, 1); /* two of them are more than half of the arena */
    assert_int_equal(huge_of(world).waiting, 2);
    assert_int_equal(dispatch_counters(world->dispatch)->huge_waits, 1);
    for (uint32_t round = 0; round < 10; round++) {
        uint32_t same = wait_with_credit(world, 0, 5, 30), other = wait_with_credit(world, 1, 5, 30);
        hold(world, &held);
        for (uint32_t i = 0; i < 5; i++) {
            answer(world, &held, same + i);
            answer(world, &held, other + i);
        }
    }
    assert_int_equal(held.count, 1);
    for (uint32_t i = 0; i < 3; i++) { /* in their order */
        assert_int_equal(held.indexes[0], first + i);
        answer(world, &held, first + i);
    }
    assert_int_equal(dispatch_counters(world->dispatch)->huge_orders, 3);
    assert_int_equal(dispatch_counters(world->dispatch)->huge_waits, 2);
    assert_int_equal(huge_of(world).waiting, 0);
    all_is_given_back(world);
}

/* One that would find room does not go before one that waits: large ones would wait for good beside many not so large. */
static void huge_ones_keep_their_order(void **state) {
    struct world *world = *state;
    struct held held = {.count = 0};
    begin(world);
    uint32_t a = wait_huge(world, 0, 1, 3 * MIB), b = wait_huge(world, 1, 1, 2 * MIB), c = wait_huge(world, 2, 1, HUGE);
    hold(world, &held);
    assert_true(holds(&held, a) && !holds(&held, b) && !holds(&held, c));
    answer(world, &held, a);
    assert_true(holds(&held, b) && holds(&held, c));
    answer(world, &held, c);
    answer(world, &held, b);
    all_is_given_back(world);
}

/* One alone may take more than their share: it waits until no other is there. */
static void one_alone_takes_what_it_needs(void **state) {
    struct world *world = *state;
    struct held held = {.count = 0};
    begin(world);
    uint32_t a = wait_huge(world, 0, 1, HUGE), b = wait_huge(world, 1, 1, 7 * MIB), c = wait_huge(world, 2, 1, HUGE);
    hold(world, &held);
    assert_true(holds(&held, a) && held.count == 1);
    answer(world, &held, a);
    assert_true(holds(&held, b) && held.count == 1);
    uint32_t small = wait_with_credit(world, 0, 10, 30);
    hold(world, &held);
    for (uint32_t i = 0; i < 10; i++)
        answer(world, &held, small + i);
    answer(world, &held, b);
    answer(world, &held, c);
    uint32_t whole = wait_huge(world, 0, 1, ARENA - ARENA_UNIT_BYTES);
    hold(world, &held);
    answer(world, &held, whole);
    uint32_t too_large = wait_huge(world, 0, 1, ARENA);
    assert_int_equal(world->fates[too_large].end.outcome.code, 552);
    all_is_given_back(world);
}

/* The arena is full of small messages, and more come than go: a huge one has its run when those have gone that lie in it, which is never
 * more than were there; small ones go on meanwhile in the rest. */
static void a_huge_one_gets_its_run_from_small_ones(void **state) {
    struct world *world = *state;
    for (uint32_t size = 2; size <= 4; size++) {
        struct held held = {.count = 0};
        if (size == 2)
            begin(world);
        world->message_bytes = HUGE - 2 * ARENA_UNIT_BYTES;
        wait_with_credit(world, 0, 60, 60);
        hold(world, &held);
        assert_true(held.count == WORLD_SLOTS || world->dispatch->backlog.count > 0);
        while (held.count > 28) /* slots are not what is short */
            answer_at(world, &held, random_below(held.count));
        world_show(world, 0, world_path(world, 0), 28, 28);
        uint32_t huge = wait_huge(world, 1, 1, size * MIB), answered = 0, placed = 0;
        hold(world, &held);
        uint32_t before = world->delivery_count;
        for (; !holds(&held, huge) && answered < 200; answered++) {
            uint32_t count = held.count;
            world_wait(world, 0, 1);
            answer_at(world, &held, random_below(held.count));
            placed += held.count >= count;
        }
        assert_true(holds(&held, huge));
        assert_int_equal(world->dispatch->map.window_units, 0);
        print_message("%u MiB: %u small ones ended before it had its run, %u were placed meanwhile\n", size, answered, placed);
        assert_true(before + 200 > world->delivery_count);
        answer(world, &held, huge);
        world->message_bytes = 0;
        give_credit(world, 0, 60);
        for (uint32_t guard = 0; (held.count > 0 || world->lanes[0].lane.waiting > 0) && guard < 600; guard++)
            answer_at(world, &held, 0);
        world->message_bytes = 0;
        all_is_given_back(world);
    }
}

/* While one waits for its window, small mail does not pay for it: not every outcome has all of the arena looked through. */
static void it_is_not_looked_for_at_every_end(void **state) {
    struct world *world = *state;
    struct held held = {.count = 0};
    begin(world);
    world->message_bytes = HUGE - 2 * ARENA_UNIT_BYTES;
    uint32_t first = wait_with_credit(world, 0, 20, 20), looks = 0;
    hold(world, &held);
    uint32_t huge = wait_huge(world, 1, 1, 4 * MIB);
    assert_true(held.count == 20 && world->dispatch->map.window_units > 0);
    answer(world, &held, first); /* there is room before the window */
    uint64_t begin_us = clock_us(CLOCK_MONOTONIC), before_us = world->dispatch->huge.look_us;
    world->message_bytes = 100;
    for (uint32_t ends = 0; ends < 100; ends++) {
        uint32_t index = wait_with_credit(world, 0, 1, 20);
        hold(world, &held);
        answer(world, &held, index);
        looks += world->dispatch->huge.look_us != before_us;
        before_us = world->dispatch->huge.look_us;
    }
    assert_true(looks <= 1 + (clock_us(CLOCK_MONOTONIC) - begin_us) / 50000);
    assert_false(holds(&held, huge));
    for (uint32_t guard = 0; held.count > 0 && guard < 100; guard++)
        answer_at(world, &held, 0);
    assert_true(world->fates[huge].ended);
    all_is_given_back(world);
}

/* A run has whole units: a message that begins the last one of the least huge run is huge, and small mail does not wait behind it. */
static void between_small_and_huge_there_is_nothing(void **state) {
    struct world *world = *state;
    struct held held = {.count = 0};
    begin(world);
    wait_huge(world, 0, 1, 4 * MIB); /* all that is theirs */
    for (uint32_t bytes = HUGE - ARENA_UNIT_BYTES - 64; bytes <= HUGE; bytes += 64) {
        world_wait_huge(world, 1, 1, bytes, false);
        give_credit(world, 1, 30);
        assert_int_equal(world->dispatch->backlog.count, 0);
    }
    assert_true(world->dispatch->huge_backlog.count >= 7);
    uint32_t small = wait_with_credit(world, 2, 5, 30);
    hold(world, &held);
    for (uint32_t i = 0; i < 5; i++)
        answer(world, &held, small + i);
    while (held.count > 0)
        answer_at(world, &held, 0);
    all_is_given_back(world);
}

/* Both lines have work at any time, and slots are short: each moves. */
static void neither_line_takes_all_slots(void **state) {
    struct world *world = *state;
    struct held held = {.count = 0};
    uint32_t small = 0, huge = 0;
    begin(world);
    world_wait(world, 0, 300);
    world_wait_huge(world, 1, 200, HUGE, true);
    give_credit(world, 0, 100);
    give_credit(world, 1, 100);
    hold(world, &held);
    for (uint32_t step = 0; step < 200; step++) {
        uint32_t at = random_below(held.count), index = held.indexes[at];
        *(world->huge_bytes[index] != 0 ? &huge : &small) += 1;
        answer_at(world, &held, at);
    }
    print_message("%u small, %u huge\n", small, huge);
    assert_true(small > 30 && huge > 30);
    for (uint32_t guard = 0; held.count > 0 && guard < 600; guard++)
        answer_at(world, &held, 0);
    all_is_given_back(world);
}

/* The bytes of rendered messages are bounded however many wait: the others are set aside, and none goes round in a circle. */
static void no_more_are_rendered_than_have_room(void **state) {
    enum { COUNT = 300, BYTES = 3 * MIB };
    struct world *world = *state;
    struct held held = {.count = 0};
    uint64_t most = 0;
    begin(world);
    uint32_t first = world_wait_huge(world, 0, COUNT, BYTES, true), small = world_wait(world, 0, 5);
    give_credit(world, 0, 400);
    hold(world, &held);
    assert_true(world->submitted <= HUGE_BYTES_MAX / BYTES + 3 + 5);
    assert_true(huge_of(world).aside >= COUNT - HUGE_BYTES_MAX / BYTES - 3);
    for (uint32_t i = 0; i < 5; i++) /* those behind them in the same lane go on */
        answer(world, &held, small + i);
    for (uint32_t i = 0; i < COUNT; i++) {
        most = world->dispatch->huge.bytes > most ? world->dispatch->huge.bytes : most;
        assert_true(world->submitted <= HUGE_BYTES_MAX / BYTES + 3 + 5 + i);
        assert_int_equal(held.count, 1);
        assert_int_equal(held.indexes[0], first + i); /* in their order */
        answer(world, &held, first + i);
    }
    assert_true(most <= HUGE_BYTES_MAX + BYTES);
    for (uint32_t i = 0; i < COUNT; i++)
        assert_true(world->fates[first + i].taken <= 2); /* set aside once, taken once */
    all_is_given_back(world);
}

/* Where a lane has little credit, its huge orders that wait leave half of it to others. */
static void credit_is_left_for_small_mail(void **state) {
    struct world *world = *state;
    struct held held = {.count = 0};
    begin(world);
    uint32_t first = world_wait_huge(world, 0, 20, 3 * MIB, true), small = world_wait(world, 0, 10);
    give_credit(world, 0, 4);
    hold(world, &held);
    for (uint32_t i = 0; i < 10; i++) {
        answer(world, &held, small + i);
        assert_true(world->dispatch->huge_backlog.count <= 2);
    }
    assert_int_equal(world->dispatch->huge_backlog.count, 2);
    for (uint32_t i = 0; i < 20; i++)
        answer(world, &held, first + i);
    all_is_given_back(world);
}

/* While room is short lanes take turns, one message each, whoever has more waiting or is looked at more often. */
static void lanes_take_turns(void **state) {
    enum { BYTES = 3 * MIB };
    struct world *world = *state;
    struct held held = {.count = 0};
    uint32_t ended[3] = {0}, firsts[4];
    begin(world);
    firsts[0] = world_wait_huge(world, 0, 100, BYTES, true);
    give_credit(world, 0, 300); /* takes all room */
    firsts[1] = world_wait_huge(world, 1, 30, BYTES, true);
    give_credit(world, 1, 300);
    firsts[2] = world_wait_huge(world, 2, 30, BYTES, true);
    give_credit(world, 2, 300);
    firsts[3] = world->delivery_count;
    hold(world, &held);
    uint32_t ahead = world->dispatch->huge_backlog.count + held.count;
    for (uint32_t i = 0; i < ahead + 60; i++) {
        assert_int_equal(held.count, 1);
        uint32_t lane = held.indexes[0] < firsts[1] ? 0 : held.indexes[0] < firsts[2] ? 1 : 2;
        if (i >= ahead)
            ended[lane]++;
        give_credit(world, 0, 300); /* it has its say first */
        answer_at(world, &held, 0);
    }
    print_message("%u, %u, %u\n", ended[0], ended[1], ended[2]);
    for (uint32_t lane = 0; lane < 3; lane++)
        assert_true(ended[lane] >= 18 && ended[lane] <= 22);
    for (uint32_t guard = 0; held.count > 0 && guard < 200; guard++)
        answer_at(world, &held, 0);
    all_is_given_back(world);
}

/* What leaves the press while it is a lane's turn was taken before: the turn is still to come. */
static void a_turn_is_for_what_is_taken_in_it(void **state) {
    struct world *world = *state;
    struct lane_path *paths[2];
    begin(world);
    for (uint32_t lane = 0; lane < 2; lane++) {
        wait_with_credit(world, lane, 1, 0);
        paths[lane] = world->lanes[lane].lane.path;
    }
    for (uint32_t lane = 0; lane < 2; lane++)
        huge_wait(world->dispatch, paths[lane], 10);
    huge_next(world->dispatch, NULL);
    assert_ptr_equal(world->dispatch->huge.turn, paths[0]);
    struct press_order order = {
        .path = paths_index(world->dispatch, paths[0]), .path_generation = paths[0]->generation, .delivery_count = 1};
    huge_count(world->dispatch, &order, HUGE);
    assert_true(huge_may_take(world->dispatch, paths[0], 10));
    assert_false(huge_may_take(world->dispatch, paths[1], 10));
    huge_uncount(world->dispatch, &order);
    world_settle(world); /* each has had it, for nothing */
    assert_null(world->dispatch->huge.turn);
    assert_null(world->dispatch->huge.first);
    dispatch_drain(world->dispatch);
}

/* One that leaves the press when its path is none any more, and waits behind others, holds up nothing of the path's next lane. */
static void an_order_of_a_retired_path_counts_nowhere(void **state) {
    struct world *world = *state;
    begin(world);
    wait_with_credit(world, 0, 1, 0);
    struct dispatch *dispatch = world->dispatch;
    struct lane_path *path = world->lanes[0].lane.path;
    struct press_order order = {.path = paths_index(dispatch, path), .path_generation = path->generation, .delivery_count = 1};
    huge_count(dispatch, &order, HUGE);
    assert_int_equal(path->huge_orders, 1);
    paths_retire(dispatch, path);
    huge_uncount(dispatch, &order);
    huge_count(dispatch, &order, HUGE);
    assert_int_equal(path->state, LANE_PATH_RETIRING);
    assert_int_equal(path->huge_orders, 0);
    huge_uncount(dispatch, &order);
    assert_int_equal(dispatch->huge.orders + dispatch->huge.deliveries + path->huge_orders, 0);
    dispatch_drain(dispatch);
}

/* What a message is grown to by its variables is known when it is rendered: beyond the room it is thrown away and waits for its turn. */
static void unforeseen_huge_ones_are_bounded_too(void **state) {
    enum { COUNT = 120, BYTES = 3 * MIB };
    struct world *world = *state;
    struct held held = {.count = 0};
    begin(world);
    uint32_t first = world_wait_huge(world, 0, COUNT, BYTES, false), ended = 0;
    give_credit(world, 0, 400);
    hold(world, &held);
    assert_true(world->dispatch->huge.bytes <= HUGE_BYTES_MAX + BYTES);
    assert_true(world->submitted <= COUNT + 5);
    uint32_t small = wait_with_credit(world, 0, 5, 400);
    hold(world, &held);
    for (uint32_t i = 0; i < 5; i++)
        answer(world, &held, small + i);
    for (; held.count > 0 && ended < COUNT + 1; ended++) {
        assert_true(world->dispatch->huge.bytes <= HUGE_BYTES_MAX + BYTES);
        answer_at(world, &held, 0);
    }
    assert_int_equal(ended, COUNT);
    assert_true(world->submitted <= 3 * COUNT);
    assert_int_equal(world->fates[first].ended, 1);
    all_is_given_back(world);
}

static bool is_small_number(void *context, const struct delivery *delivery) {
    return delivery->index < *(const uint32_t *)context;
}

/* Withdrawn, stopped, without a path, drained: what waits goes back, and holds nothing. */
static void whatever_takes_them_out_of_the_line(void **state) {
    struct world *world = *state;
    struct held held = {.count = 0};
    begin(world);
    uint32_t a = wait_huge(world, 0, 1, 3 * MIB), b = wait_huge(world, 1, 1, 3 * MIB), c = wait_huge(world, 2, 1, MIB - 4096);
    hold(world, &held);
    uint32_t below = c; /* the first that waits is withdrawn: the next has its turn at once */
    assert_int_equal(dispatch_withdraw(world->dispatch, is_small_number, &below), 1);
    world->lanes[1].first = NULL;
    world->lanes[1].lane.waiting = 0;
    world_settle(world);
    hold(world, &held);
    assert_true(holds(&held, c) && !holds(&held, b));
    uint32_t d = wait_huge(world, 1, 2, 3 * MIB), e = wait_huge(world, 2, 1, 3 * MIB);
    hold(world, &held);
    assert_int_equal(world->dispatch->huge_backlog.count, 3);
    give_credit(world, 1, 0);
    world->stopped[d] = true; /* found when it would be placed */
    world->lanes[2].site.generation++;
    world->lanes[2].site.endpoints[0].address.bytes[3] = 99;
    dispatch_lane_changed(world->dispatch, &world->lanes[2].lane); /* another path: its own is none any more */
    answer(world, &held, a);
    assert_true(world->fates[d].back >= 1 && !holds(&held, d));
    world->lanes[1].first =
        world->lanes[1].first != NULL && world->lanes[1].first->index == d ? world->lanes[1].first->next : world->lanes[1].first;
    answer(world, &held, c);
    hold(world, &held);
    assert_true(holds(&held, d + 1));
    give_credit(world, 2, 30);
    assert_int_equal(world->fates[e].ended, 0);
    dispatch_drain(world->dispatch);
    world_settle(world);
    assert_int_equal(world->dispatch->huge_backlog.count, 0);
    answer(world, &held, d + 1);
    all_is_given_back(world);
}

/* The window was that one's: withdrawn, it leaves the arena to all again. */
static void a_window_goes_with_whom_it_was_for(void **state) {
    struct world *world = *state;
    struct held held = {.count = 0};
    begin(world);
    world->message_bytes = HUGE - 2 * ARENA_UNIT_BYTES;
    wait_with_credit(world, 0, 30, 30);
    hold(world, &held);
    wait_huge(world, 1, 1, 4 * MIB);
    assert_true(world->dispatch->map.window_units > 0);
    assert_int_equal(huge_of(world).waiting, 1);
    uint32_t none = 0;
    assert_int_equal(dispatch_withdraw(world->dispatch, is_small_number, &none), 0);
    assert_true(world->dispatch->map.window_units > 0);
    world_show(world, 0, world_path(world, 1), 0, 0);
    assert_int_equal(dispatch_withdraw(world->dispatch, NULL, NULL), 1);
    assert_int_equal(world->dispatch->map.window_units, 0);
    while (held.count > 0)
        answer_at(world, &held, 0);
    all_is_given_back(world);
}

static void the_dataplane_dies_while_they_wait(void **state) {
    struct world *world = *state;
    struct held held = {.count = 0};
    begin(world);
    wait_huge(world, 0, 3, 3 * MIB);
    wait_huge(world, 1, 40, 3 * MIB);
    hold(world, &held);
    assert_true(huge_of(world).aside > 0);
    world_dataplane_die(world);
    WORLD_UNTIL(world, world->down == 1);
    world_check(world, 0);
    held.count = 0;
    world_dataplane_start(world);
    WORLD_UNTIL(world, world->up == 2);
    give_credit(world, 0, 30);
    give_credit(world, 1, 30);
    hold(world, &held);
    uint32_t ended = 0;
    for (; held.count > 0; ended++)
        answer_at(world, &held, 0);
    assert_int_equal(ended, 43);
    all_is_given_back(world);
}

/* A new control over a living dataplane: what its worker has of huge messages counts until they end. */
static void a_new_control_counts_those_in_flight(void **state) {
    struct world *world = *state;
    struct held held = {.count = 0}, others = {.count = 0};
    begin(world);
    world->commits_strangers = true;
    wait_huge(world, 0, 1, 3 * MIB);
    hold(world, &held);
    assert_int_equal(held.count, 1);
    world_control_die(world);
    world_control_start(world);
    WORLD_UNTIL(world, world->harvested == 1 && world->up == 1);
    struct dispatch_arena arena;
    dispatch_arena(world->dispatch, &arena);
    assert_true(arena.huge_bytes >= 3 * MIB);
    world->delivery_count = 100;
    uint32_t huge = wait_huge(world, 1, 1, 2 * MIB), small = wait_with_credit(world, 2, 5, 30);
    hold(world, &others);
    assert_false(holds(&others, huge));
    for (uint32_t i = 0; i < 5; i++)
        answer(world, &others, small + i);
    world_answer(world, 0, &held.orders[0], OUTCOME_REPLIED, 250, "ok");
    world_settle(world);
    hold(world, &others);
    answer(world, &others, huge);
    world->delivery_count = 0;
    assert_int_equal(world->dispatch->map.huge_used, 0);
    assert_int_equal(world->dispatch->map.used, 0);
}

/* Messages that refer to a huge content: it is one huge run, however many they are; another huge message waits until they have ended, and
 * they wait behind it, so that a campaign does not keep it out. */
static void a_huge_content_is_one_run(void **state) {
    enum { CONTENT = WORLD_CONTENT_BYTES };
    struct world *world = *state;
    struct held held = {.count = 0};
    begin(world);
    world_content(world, 0, 1, CONTENT);
    world->message_bytes = 300;
    world->run_bytes = CONTENT;
    uint32_t first = wait_with_credit(world, 0, 10, 30);
    hold(world, &held);
    assert_int_equal(held.count, 10);
    assert_int_equal(world->dispatch->map.huge_used, CONTENT / ARENA_UNIT_BYTES);
    assert_int_equal(dispatch_counters(world->dispatch)->huge_orders, 10);
    world->content_count = 0;
    uint32_t huge = wait_huge(world, 1, 1, 3 * MIB + 600 * 1024);
    world->content_count = 1;
    wait_with_credit(world, 0, 3, 30);
    uint32_t last = world->delivery_count - 1;
    world->content_count = 0;
    world->run_bytes = 0;
    hold(world, &held);
    assert_int_equal(held.count, 10);
    for (uint32_t i = 0; i < 10; i++) {
        assert_false(holds(&held, huge));
        answer(world, &held, first + i);
    }
    assert_true(holds(&held, huge)); /* the content was idle, and went */
    assert_false(holds(&held, last));
    world->content_count = 1;
    world->run_bytes = CONTENT;
    for (uint32_t i = 0; i < held.count; i++)
        if (held.indexes[i] == huge)
            world_answer(world, 0, &held.orders[i], OUTCOME_REPLIED, 250, "ok");
    held.count = 0;
    world_settle(world);
    hold(world, &held);
    assert_int_equal(held.count, 3);
    for (uint32_t i = 0; i < 3; i++)
        answer_at(world, &held, 0);
    struct dispatch_arena arena;
    dispatch_arena(world->dispatch, &arena);
    assert_int_equal(arena.residents_made, 2);
    assert_int_equal(arena.used_bytes, arena.idle_bytes);
    world_check(world, 0);
}

/* A small content that is always in use lies where a huge message is to be: the next messages refer to a copy of it elsewhere. */
static void a_busy_content_moves_out_of_the_window(void **state) {
    struct world *world = *state;
    struct held held = {.count = 0};
    begin(world);
    world->message_bytes = HUGE - 2 * ARENA_UNIT_BYTES;
    wait_with_credit(world, 0, 16, 30); /* the lower half */
    hold(world, &held);
    world_content(world, 0, 1, 20000);
    world->message_bytes = 300;
    world->run_bytes = 20000;
    uint32_t of_content = wait_with_credit(world, 0, 1, 30);
    hold(world, &held);
    assert_true(holds(&held, of_content));
    world->content_count = 0;
    world->message_bytes = HUGE - 2 * ARENA_UNIT_BYTES;
    wait_with_credit(world, 0, 12, 30); /* and as much of the upper one as there are slots for */
    hold(world, &held);
    uint32_t huge = wait_huge(world, 1, 1, 4 * MIB), made = 1;
    assert_true(world->dispatch->map.window_units > 0);
    for (uint32_t guard = 0; guard < 200 && !holds(&held, huge); guard++) {
        uint32_t at = random_below(held.count), oldest = 0;
        for (uint32_t i = 0; i < held.count; i++)
            oldest = held.indexes[i] < held.indexes[oldest] ? i : oldest;
        world->content_count = 1;
        world->message_bytes = 300;
        world->run_bytes = 20000;
        world_wait(world, 0, 1); /* before any of the last ones has ended */
        hold(world, &held);
        answer_at(world, &held, guard % 2 ? oldest : at);
        struct dispatch_arena arena;
        dispatch_arena(world->dispatch, &arena);
        made = (uint32_t)arena.residents_made;
        world->content_count = 0;
    }
    print_message("made %u times\n", made);
    assert_true(holds(&held, huge));
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, world_set_up, world_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(small_mail_overtakes_huge),
        TEST(huge_ones_keep_their_order),
        TEST(one_alone_takes_what_it_needs),
        TEST(a_huge_one_gets_its_run_from_small_ones),
        TEST(it_is_not_looked_for_at_every_end),
        TEST(between_small_and_huge_there_is_nothing),
        TEST(neither_line_takes_all_slots),
        TEST(no_more_are_rendered_than_have_room),
        TEST(credit_is_left_for_small_mail),
        TEST(lanes_take_turns),
        TEST(a_turn_is_for_what_is_taken_in_it),
        TEST(an_order_of_a_retired_path_counts_nowhere),
        TEST(unforeseen_huge_ones_are_bounded_too),
        TEST(whatever_takes_them_out_of_the_line),
        TEST(a_window_goes_with_whom_it_was_for),
        TEST(the_dataplane_dies_while_they_wait),
        TEST(a_new_control_counts_those_in_flight),
        TEST(a_huge_content_is_one_run),
        TEST(a_busy_content_moves_out_of_the_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
