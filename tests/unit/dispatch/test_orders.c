/* test_orders.c: credit into orders and outcomes back, as long as both processes live. */
#include "world.h"

#include <errno.h>
#include <string.h>

static uint32_t seed = 7;
static uint32_t random_below(uint32_t bound) {
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % bound;
}

/* Claims and answers everything that a worker has; returns how many. */
static uint32_t answer_all(struct world *world, uint32_t worker, enum slot_outcome outcome, uint16_t code) {
    struct world_order order;
    uint32_t count = 0;
    world_pop(world, worker);
    for (; world_claim(world, worker, &order) != NULL; count++)
        world_answer(world, worker, &order, outcome, code, "ok");
    world_settle(world);
    return count;
}

static void commit_all(struct world *world) {
    for (uint32_t i = 0; i < world->delivery_count; i++)
        if (world->fates[i].ended)
            dispatch_committed(world->dispatch, world->fates[i].end.slot, world->fates[i].end.slot_generation);
    world_settle(world);
}

/* include/bypost/README.md, "Rings, paths, credit": orders without an outcome never exceed ready_capacity. */
static void credit_is_never_exceeded(void **state) {
    struct world *world = *state;
    struct world_order held[WORLD_WORKERS][256];
    uint32_t held_count[WORLD_WORKERS] = {0}, capacity[WORLD_WORKERS] = {0}, most = 0;
    world_start(world);
    world_wait(world, 0, 400);
    uint32_t path = world_path(world, 0);
    assert_int_equal(dispatch_in_progress(world->dispatch), 0); /* no credit, no order */
    for (uint32_t step = 0; step < 3000; step++) {
        uint32_t worker = random_below(WORLD_WORKERS), what = random_below(10);
        uint32_t before[WORLD_WORKERS];
        for (uint32_t i = 0; i < WORLD_WORKERS; i++)
            before[i] = held_count[i] + world->order_count[i];
        if (what == 0) {
            capacity[worker] = random_below(12);
            world_show(world, worker, path, capacity[worker], capacity[worker]);
        } else if (what < 5) {
            struct world_order order;
            if (world_claim(world, worker, &order) != NULL)
                held[worker][held_count[worker]++] = order;
        } else if (held_count[worker] > 0) {
            uint32_t which = random_below(held_count[worker]);
            bool back = what == 9;
            world_answer(world, worker, &held[worker][which], back ? OUTCOME_RETURNED : OUTCOME_REPLIED, back ? 0 : 250, "ok");
            held[worker][which] = held[worker][--held_count[worker]];
            before[worker]--;
        }
        world_settle(world);
        uint32_t under_way = 0;
        for (uint32_t i = 0; i < WORLD_WORKERS; i++) {
            world_pop(world, i);
            uint32_t has = held_count[i] + world->order_count[i];
            assert_true(has <= capacity[i] || has <= before[i]);
            most = has > most ? has : most;
            under_way += has;
        }
        world_check(world, under_way);
        if (world->lanes[0].lane.waiting > 0 && dispatch_slots_used(world->dispatch) < WORLD_SLOTS)
            for (uint32_t i = 0; i < WORLD_WORKERS; i++) /* and all of it is used */
                assert_true(held_count[i] + world->order_count[i] >= capacity[i] || world->lanes[0].lane.waiting == 0);
        commit_all(world);
        for (uint32_t i = 0; i < WORLD_WORKERS; i++)
            world_pop(world, i);
        if (world->lanes[0].lane.waiting == 0)
            world_wait(world, 0, 100);
    }
    assert_true(most >= 10);
    assert_int_equal(dispatch_counters(world->dispatch)->wild_values, 0);
}

/* DESIGN.md section 2: prefetch is 0 where a message rate binds. */
static void a_rate_allows_no_prefetch(void **state) {
    struct world *world = *state;
    world_start(world);
    world->lanes[0].lane.rate_binds = true;
    world_wait(world, 0, 20);
    world_show(world, 0, world_path(world, 0), 6, 3);
    assert_int_equal(dispatch_in_progress(world->dispatch), 3);
}

static void shape_is_asked_again_when_it_said(void **state) {
    struct world *world = *state;
    world_start(world);
    world->lanes[0].wake_us = 20000;
    world_wait(world, 0, 1);
    world_show(world, 0, world_path(world, 0), 6, 3);
    assert_int_equal(dispatch_in_progress(world->dispatch), 0);
    world->lanes[0].wake_us = 0;
    WORLD_UNTIL(world, dispatch_in_progress(world->dispatch) == 1);
}

static void each_kind_of_outcome_reaches_settle(void **state) {
    static const enum slot_outcome kinds[] = {OUTCOME_REPLIED, OUTCOME_LOST, OUTCOME_UNCERTAIN, OUTCOME_LOCAL};
    struct world *world = *state;
    world_start(world);
    world->job.history.first_queued_ms = 123;
    world_wait(world, 1, 4);
    world_show(world, 1, world_path(world, 1), 4, 4);
    world_pop(world, 1);
    for (uint32_t i = 0; i < 4; i++) {
        struct world_order order;
        const struct slot *slot = world_claim(world, 1, &order);
        assert_non_null(slot);
        uint32_t index = world_index(slot);
        world_answer(world, 1, &order, kinds[i], 451, "4.7.1 come\x01 back \xff later");
        world_settle(world);
        const struct world_fate *fate = &world->fates[index];
        const struct outcome *outcome = &fate->end.outcome;
        assert_int_equal(fate->ended, 1);
        assert_int_equal(outcome->kind, kinds[i]);
        assert_int_equal(outcome->stage, STAGE_FINAL);
        assert_int_equal(outcome->code, 451);
        assert_int_equal(outcome->enhanced[0] * 100 + outcome->enhanced[1] * 10 + outcome->enhanced[2], 471);
        assert_string_equal(outcome->text, "4.7.1 come? back ? later");
        assert_string_equal(outcome->peer_name, "mx1-1.to.example");
        assert_memory_equal(outcome->peer_address, "\xc0\x00\x02\x0b", 4);
        assert_memory_equal(outcome->source_address, world->lanes[1].sources[1].address.bytes, 16);
        assert_int_equal(outcome->tls_version, 13);
        assert_int_equal(outcome->finished_us, 2000);
        assert_int_equal(fate->end.source, 1);
        assert_int_equal(fate->end.slot, order.slot);
        assert_int_equal(fate->end.cookie.index, index);
        assert_int_equal(fate->end.cookie.attempt, 2);
        assert_int_equal(fate->end.cookie.first_queued_ms, 123);
        assert_string_equal(fate->end.cookie.tenant, "acme");
    }
    world_check(world, 0);
}

/* README.md: ANSWERED to FREE after Redis confirmed the commit, generation + 1. */
static void a_slot_is_free_after_its_commit_and_not_before(void **state) {
    struct world *world = *state;
    world_start(world);
    world_wait(world, 0, 1);
    world_show(world, 0, world_path(world, 0), 1, 1);
    assert_int_equal(answer_all(world, 0, OUTCOME_REPLIED, 250), 1);
    const struct dispatch_end *end = &world->fates[0].end;
    const struct slot *slot = &world->journal.slots[end->slot];
    assert_int_equal(slot_load(slot), slot_word(end->slot_generation, SLOT_ANSWERED));
    dispatch_committed(world->dispatch, end->slot, end->slot_generation + 1);
    dispatch_committed(world->dispatch, end->slot + 1, end->slot_generation);
    dispatch_committed(world->dispatch, SLOT_NONE, 0);
    assert_int_equal(slot_load(slot), slot_word(end->slot_generation, SLOT_ANSWERED));
    assert_int_equal(dispatch_slots_used(world->dispatch), 1);
    dispatch_committed(world->dispatch, end->slot, end->slot_generation);
    dispatch_committed(world->dispatch, end->slot, end->slot_generation);
    assert_int_equal(slot_load(slot), slot_word(end->slot_generation + 1, SLOT_FREE));
    assert_int_equal(dispatch_slots_used(world->dispatch), 0);
    assert_int_equal(world->dispatch->map.used, 0);
}

static void what_is_returned_goes_back_and_frees_its_slot(void **state) {
    struct world *world = *state;
    world_start(world);
    world_wait(world, 0, 1);
    uint32_t path = world_path(world, 0);
    world_show(world, 0, path, 1, 1);
    world_show(world, 0, path, 0, 0);
    assert_int_equal(answer_all(world, 0, OUTCOME_RETURNED, 0), 1);
    assert_int_equal(world->fates[0].back, 1);
    assert_int_equal(world->fates[0].ended, 0);
    assert_int_equal(dispatch_slots_used(world->dispatch), 0);
    assert_int_equal(world->dispatch->map.used, 0);
    world_show(world, 1, path, 1, 1); /* and is sent by another */
    assert_int_equal(answer_all(world, 1, OUTCOME_REPLIED, 250), 1);
    assert_int_equal(world->fates[0].ended, 1);
    world_check(world, 0);
}

/* A message that ends every connection in which it is said must not go from host to host without an attempt being counted. */
static void what_was_begun_goes_back_once(void **state) {
    struct world *world = *state;
    world_start(world);
    world_wait(world, 0, 1);
    uint32_t path = world_path(world, 0);
    world_show(world, 0, path, 1, 1);
    assert_int_equal(answer_all(world, 0, OUTCOME_RETURNED, 0), 1); /* not begun: as often as need be */
    assert_int_equal(answer_all(world, 0, OUTCOME_RETURNED, 0), 1);
    assert_int_equal(answer_all(world, 0, OUTCOME_RETURNED, 400), 1); /* begun: the enhanced code says so */
    assert_int_equal(world->fates[0].back, 3);
    assert_int_equal(world->fates[0].ended, 0);
    assert_int_equal(answer_all(world, 0, OUTCOME_RETURNED, 0), 1);
    assert_int_equal(world->fates[0].back, 4);
    assert_int_equal(answer_all(world, 0, OUTCOME_RETURNED, 400), 1);
    assert_int_equal(world->fates[0].back, 4);
    assert_int_equal(world->fates[0].ended, 1);
    assert_int_equal(world->fates[0].end.outcome.kind, OUTCOME_LOST);
    assert_string_equal(world->fates[0].end.outcome.text, "ok");
    world_check(world, 0);
}

static void what_cannot_be_rendered_ends_without_a_slot(void **state) {
    struct world *world = *state;
    world_start(world);
    world->status = -EINVAL;
    world_wait(world, 0, 2);
    uint32_t path = world_path(world, 0);
    world_show(world, 0, path, 1, 1); /* the credit comes back: both have their turn */
    for (uint32_t i = 0; i < 2; i++) {
        const struct dispatch_end *end = &world->fates[i].end;
        assert_int_equal(world->fates[i].ended, 1);
        assert_int_equal(end->slot, SLOT_NONE);
        assert_int_equal(end->outcome.kind, OUTCOME_LOCAL);
        assert_int_equal(end->outcome.code, 554);
        assert_string_equal(end->outcome.text, "line 3 is wrong");
    }
    world_check(world, 0);
}

static void a_message_larger_than_the_arena_holds_up_nobody(void **state) {
    struct world *world = *state;
    world_start(world);
    world->press_holds = true;
    world->message_bytes = WORLD_ARENA_BYTES; /* its table of pieces does not fit as well */
    world_wait(world, 0, 1);
    world_show(world, 0, world_path(world, 0), 2, 2);
    world->message_bytes = 0;
    world_wait(world, 0, 1);
    world_press_release(world);
    world_settle(world);
    assert_int_equal(world->fates[0].ended, 1);
    assert_int_equal(world->fates[0].end.outcome.code, 552);
    assert_int_equal(answer_all(world, 0, OUTCOME_REPLIED, 250), 1);
    assert_int_equal(world->fates[1].ended, 1);
}

static void bend_to_physical_addresses(struct link *link) {
    link->hello.pieces_in_page = 1;
}

/* DESIGN.md section 4: in PA mode no piece crosses a page (check_slot looks). */
static void pieces_end_at_pages_in_pa_mode(void **state) {
    struct world *world = *state;
    world_dataplane_start_bent(world, bend_to_physical_addresses);
    world_control_start(world);
    WORLD_UNTIL(world, world->up == 1);
    world->message_bytes = 3 * WORLD_PAGE_BYTES + 1000;
    world_wait(world, 0, 5);
    world_show(world, 0, world_path(world, 0), 5, 5);
    assert_int_equal(answer_all(world, 0, OUTCOME_REPLIED, 250), 5);
    world_check(world, 0);
}

static void change_the_endpoints(struct world *world) {
    world->lanes[0].site.generation++;
    world->lanes[0].site.endpoints[0].address.bytes[3] = 99;
}

static void changed_endpoints_make_a_new_path(void **state) {
    struct world *world = *state;
    world_start(world);
    world_wait(world, 0, 3);
    uint32_t old = world_path(world, 0);
    uint32_t generation = path_word_generation(world->journal.paths[old].word);
    world_show(world, 0, old, 1, 1);
    change_the_endpoints(world);
    dispatch_lane_changed(world->dispatch, &world->lanes[0].lane);
    world_settle(world);
    uint32_t new = world_path(world, 0);
    assert_int_not_equal(new, old);
    assert_int_equal(world->journal.paths[old].word, path_word(generation, PATH_RETIRED));
    assert_int_equal(path_word_state(world->journal.paths[new].word), PATH_LIVE);
    assert_int_equal(world->journal.paths[new].endpoints[0].address[3], 99);
    assert_int_equal(world->dispatch->free_path_count, WORLD_PATHS - 2);
    world_pop(world, 0); /* one worker lets go */
    world_settle(world);
    assert_int_equal(path_word_state(world->journal.paths[old].word), PATH_RETIRED);
    world_pop(world, 1); /* the other too */
    world_settle(world);
    assert_int_equal(path_word_state(world->journal.paths[old].word), PATH_FREE);
    assert_int_equal(world->dispatch->free_path_count, WORLD_PATHS - 1);
    assert_int_equal(answer_all(world, 0, OUTCOME_RETURNED, 0), 1); /* its order is answered after it has gone */
    world_show(world, 0, new, 3, 3);
    assert_int_equal(answer_all(world, 0, OUTCOME_REPLIED, 250), 3);
    world_check(world, 0);
}

/* A reload gives every site other limits and pools; a path is made anew only where they say something else. */
static void a_reload_makes_new_paths_where_it_changes_them(void **state) {
    struct world *world = *state;
    world_start(world);
    world_wait(world, 0, 1);
    uint32_t old = world_path(world, 0);
    struct shaping_limits limits = world->limits;
    struct config_pool pool = world->lanes[0].pool;
    world->lanes[0].site.limits = &limits;
    world->lanes[0].lane.pool = &pool;
    dispatch_lane_changed(world->dispatch, &world->lanes[0].lane);
    assert_int_equal(world_path(world, 0), old);
    struct shaping_limits fewer = limits;
    fewer.max_deliveries_per_connection = 7;
    world->lanes[0].site.limits = &fewer;
    dispatch_lane_changed(world->dispatch, &world->lanes[0].lane);
    assert_int_not_equal(world_path(world, 0), old);
    assert_int_equal(world->journal.paths[world_path(world, 0)].max_deliveries_per_connection, 7);
    old = world_path(world, 0);
    struct config_pool smaller = pool;
    smaller.source_count = 1;
    world->lanes[0].lane.pool = &smaller;
    dispatch_lane_changed(world->dispatch, &world->lanes[0].lane);
    assert_int_not_equal(world_path(world, 0), old);
    assert_int_equal(world->journal.paths[world_path(world, 0)].source_count, 1);
    world_control_die(world);
}

static void an_order_in_the_press_comes_back_from_a_retired_path(void **state) {
    struct world *world = *state;
    world_start(world);
    world->press_holds = true;
    world_wait(world, 0, 2);
    world_show(world, 0, world_path(world, 0), 2, 2);
    world_check(world, 2);
    change_the_endpoints(world);
    world->press_holds = false;
    world_wait(world, 0, 0);
    world_press_release(world);
    world_settle(world);
    assert_int_equal(world->fates[0].back + world->fates[1].back, 2);
    world_check(world, 0);
}

static void change_the_site(struct world *world) {
    change_the_endpoints(world);
    dispatch_lane_changed(world->dispatch, &world->lanes[0].lane);
}

/* shape calls back at the end of its calls: the path may be retired while a delivery is taken for it. */
static void a_path_may_be_retired_while_shape_is_asked(void **state) {
    struct world *world = *state;
    world_start(world);
    world_wait(world, 0, 5);
    world->on_take = change_the_site;
    world->status = -EINVAL; /* rendered for the retired path, it would end without its lane */
    world_show(world, 0, world_path(world, 0), 3, 3);
    world->status = 0;
    assert_null(world->on_take);
    assert_int_equal(world->fates[0].back, 1);
    assert_int_equal(world->submitted, 0);
    world_check(world, 0);
    world_show(world, 0, world_path(world, 0), 3, 3);
    world_check(world, 3);
    assert_int_equal(answer_all(world, 0, OUTCOME_REPLIED, 250), 3);
}

/* Even when shape has nothing to say, the next turn of a lane sees that its site has other endpoints. */
static void a_turn_notices_changed_endpoints(void **state) {
    struct world *world = *state;
    world_start(world);
    world_wait(world, 0, 5);
    uint32_t old = world_path(world, 0);
    change_the_endpoints(world);
    world_show(world, 0, old, 3, 3);
    assert_int_not_equal(world_path(world, 0), old);
    world_check(world, 0);
}

static void a_lane_that_goes_frees_its_path(void **state) {
    struct world *world = *state;
    world_start(world);
    world_wait(world, 0, 1);
    uint32_t path = world_path(world, 0);
    world_show(world, 0, path, 1, 1);
    assert_int_equal(answer_all(world, 0, OUTCOME_REPLIED, 250), 1);
    dispatch_lane_gone(world->dispatch, &world->lanes[0].lane);
    assert_null(world->lanes[0].lane.path);
    world_pop(world, 0);
    world_pop(world, 1);
    world_settle(world);
    assert_int_equal(path_word_state(world->journal.paths[path].word), PATH_FREE);
}

static void paths_run_out_and_come_free(void **state) {
    struct world *world = *state;
    world_start(world);
    for (uint32_t i = 0; i < WORLD_LANES; i++)
        world_wait(world, i, 1);
    assert_null(world->lanes[4].lane.path);
    assert_null(world->lanes[5].lane.path);
    assert_true(dispatch_counters(world->dispatch)->paths_exhausted >= 2);
    for (uint32_t i = 0; i < 2; i++) {
        world_show(world, 0, world_path(world, i), 1, 1);
        assert_int_equal(answer_all(world, 0, OUTCOME_REPLIED, 250), 1);
        dispatch_lane_gone(world->dispatch, &world->lanes[i].lane);
        world_pop(world, 0);
        world_pop(world, 1);
        world_settle(world);
        assert_non_null(world->lanes[4 + i].lane.path);
    }
    assert_int_equal(world->dispatch->free_path_count, 0);
}

/* A lane that has nothing to send, or that rests, does not keep a path from one that has. */
static void an_idle_lane_gives_its_path_up(void **state) {
    struct world *world = *state;
    world_start(world);
    for (uint32_t i = 0; i < 4; i++)
        world_wait(world, i, 1);
    world_show(world, 0, world_path(world, 0), 1, 1);
    assert_int_equal(answer_all(world, 0, OUTCOME_REPLIED, 250), 1);
    world_wait(world, 4, 1);
    assert_null(world->lanes[4].lane.path);
    world_pop(world, 0);
    world_pop(world, 1);
    world_settle(world);
    assert_non_null(world->lanes[4].lane.path);
    assert_null(world->lanes[0].lane.path);
    for (uint32_t i = 1; i < 4; i++)
        assert_non_null(world->lanes[i].lane.path);
}

/* No path was idle when the last was asked for: the first that falls idle goes to the lane that waits. */
static void a_lane_that_falls_idle_gives_its_path_up(void **state) {
    struct world *world = *state;
    world_start(world);
    for (uint32_t i = 0; i < 4; i++) {
        world_wait(world, i, 1);
        world_show(world, 0, world_path(world, i), 1, 1);
    }
    world_wait(world, 4, 1);
    assert_null(world->lanes[4].lane.path);
    assert_int_equal(answer_all(world, 0, OUTCOME_REPLIED, 250), 4);
    world_pop(world, 0);
    world_pop(world, 1);
    world_settle(world);
    assert_non_null(world->lanes[4].lane.path);
}

static void slots_run_out_and_the_backlog_follows(void **state) {
    struct world *world = *state;
    world_start(world);
    world->message_bytes = 1000;
    world_wait(world, 0, 50);
    world_show(world, 0, world_path(world, 0), 40, 40);
    assert_int_equal(world_slots_in(world, SLOT_QUEUED), WORLD_SLOTS);
    assert_true(dispatch_counters(world->dispatch)->slots_exhausted > 0);
    world_check(world, 40);
    uint32_t sent = 0;
    for (uint32_t round = 0; round < 10; round++) {
        sent += answer_all(world, 0, OUTCOME_REPLIED, 250);
        commit_all(world);
    }
    assert_int_equal(sent, 50);
    world_check(world, 0);
    assert_int_equal(dispatch_slots_used(world->dispatch), 0);
}

/* Orders that come back unattempted leave their slots and bytes to the backlog, though nothing is committed then and no credit is left. */
static void the_backlog_follows_what_is_returned(void **state) {
    struct world *world = *state;
    world_start(world);
    world->message_bytes = 1000;
    world_wait(world, 0, 40);
    uint32_t path = world_path(world, 0);
    world_show(world, 0, path, 40, 40);
    assert_int_equal(world_slots_in(world, SLOT_QUEUED), WORLD_SLOTS);
    world_show(world, 0, path, 40 - WORLD_SLOTS, 40 - WORLD_SLOTS); /* the sessions are lost */
    assert_int_equal(answer_all(world, 0, OUTCOME_RETURNED, 0), WORLD_SLOTS);
    assert_int_equal(world_slots_in(world, SLOT_QUEUED), 40 - WORLD_SLOTS);
    world_check(world, 40 - WORLD_SLOTS);
}

/* This machine's trouble never ends a message: SMTP.md section 6, system_error. */
static void trouble_of_this_machine_is_temporary(void **state) {
    static const int statuses[] = {-ENOMEM, -EIO};
    struct world *world = *state;
    world_start(world);
    world_wait(world, 0, 2);
    uint32_t path = world_path(world, 0);
    for (uint32_t i = 0; i < 2; i++) {
        world->status = statuses[i];
        world_show(world, 0, path, i + 1, i + 1);
        world_settle(world);
    }
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(world->fates[i].ended, 1);
        assert_int_equal(world->fates[i].end.outcome.kind, OUTCOME_LOCAL);
        assert_int_equal(world->fates[i].end.outcome.code, 451);
        assert_int_equal(world->fates[i].end.outcome.enhanced[0], 4);
    }
    world->status = 0;
}

static void the_arena_runs_out_and_the_backlog_follows(void **state) {
    struct world *world = *state;
    world_start(world);
    world->message_bytes = 30000;
    world_wait(world, 0, 20);
    world_show(world, 0, world_path(world, 0), 20, 20);
    assert_int_equal(world_slots_in(world, SLOT_QUEUED), WORLD_ARENA_BYTES / 30208);
    assert_true(dispatch_counters(world->dispatch)->arena_exhausted > 0);
    uint32_t sent = 0;
    for (uint32_t round = 0; round < 10; round++) {
        sent += answer_all(world, 0, OUTCOME_REPLIED, 250);
        commit_all(world);
    }
    assert_int_equal(sent, 20);
    assert_int_equal(world->dispatch->map.used, 0);
}

/* A lane that was turned away because all orders were under way gets its turn when some have gone: nothing else would wake it. */
static void a_lane_turned_away_gets_its_turn(void **state) {
    struct world *world = *state;
    world_start(world);
    world->message_bytes = 200;
    world->press_holds = true;
    uint32_t other = 4096 + WORLD_SLOTS; /* the most that may be under way, and then nothing is left that would move by itself */
    world_wait(world, 0, other);
    world_wait(world, 1, 1);
    world_show(world, 0, world_path(world, 0), 5000, 5000);
    world_show(world, 1, world_path(world, 1), 1, 1);
    assert_true(world->dispatch->press_full);
    world->press_holds = false;
    world_press_release(world);
    world_settle(world);
    assert_int_equal(world->fates[other].taken, 0);
    for (uint32_t round = 0; round < 300 && world->fates[other].ended == 0; round++) {
        answer_all(world, 0, OUTCOME_REPLIED, 250);
        answer_all(world, 1, OUTCOME_REPLIED, 250);
        commit_all(world);
    }
    assert_int_equal(world->fates[other].ended, 1);
}

static void a_press_that_refuses_is_asked_again_later(void **state) {
    struct world *world = *state;
    world_start(world);
    world->press_refuses = true;
    world_wait(world, 0, 1);
    world_show(world, 0, world_path(world, 0), 1, 1);
    assert_true(world->submitted < 10); /* and not in a circle */
    world_check(world, 0);
    world->press_refuses = false;
    WORLD_UNTIL(world, dispatch_in_progress(world->dispatch) == 1);
}

/* DESIGN.md section 6, SIGTERM: no new orders, what no worker has goes back, transactions in progress finish. */
static void drain_takes_back_what_no_worker_has(void **state) {
    struct world *world = *state;
    struct world_order held;
    world_start(world);
    world_wait(world, 0, 10);
    uint32_t path = world_path(world, 0);
    world_show(world, 0, path, 4, 4);
    world_pop(world, 0);
    assert_non_null(world_claim(world, 0, &held));
    world->press_holds = true;
    world_show(world, 0, path, 6, 6);
    world_check(world, 6);
    world_wait(world, 1, 5); /* a lane that has sent nothing yet */
    dispatch_drain(world->dispatch);
    world_settle(world);
    world_check(world, 3); /* one claimed, two in the press */
    assert_int_equal(dispatch_counters(world->dispatch)->withdrawn, 3);
    world_press_release(world);
    world_settle(world);
    world_check(world, 1);
    assert_int_equal(atomic_load(&journal_cell(&world->journal, path, 0)->order.demand), 0);
    assert_int_equal(atomic_load(&journal_cell(&world->journal, world_path(world, 1), 0)->order.demand), 0);
    world_show(world, 0, path, 9, 9); /* nothing more */
    world_check(world, 1);
    struct world_order stale;
    world_pop(world, 0);
    assert_null(world_claim(world, 0, &stale));
    world_answer(world, 0, &held, OUTCOME_REPLIED, 250, "ok");
    world_settle(world);
    world_check(world, 0);
    commit_all(world);
    assert_int_equal(dispatch_slots_used(world->dispatch), 0);
}

/* Demand, limits and rests of a lane are in its cells, and a change rings once until the worker has looked. */
static void cells_follow_the_lane(void **state) {
    struct world *world = *state;
    world_start(world);
    world_wait(world, 0, 7);
    uint32_t path = world_path(world, 0);
    const struct path_order_cell *cell = &journal_cell(&world->journal, path, 1)->order;
    struct lane *lane = &world->lanes[0].lane;
    assert_int_equal(atomic_load(&cell->demand), 7);
    assert_int_equal(atomic_load(&cell->sessions_allowed), 2);
    world_pop(world, 1);
    const struct ring *ring = journal_order_ring(&world->journal, 1, 0);
    lane->sessions_allowed[1] = 9;
    lane->connect_interval_us[1] = 600;
    lane->endpoint_rest_until_us[1] = 77;
    lane->source_rest_until_us[0] = 88;
    for (int i = 0; i < 5; i++) {
        lane->sessions_allowed[1]++;
        dispatch_lane_changed(world->dispatch, lane);
        world_settle(world);
    }
    assert_int_equal(atomic_load(&cell->sessions_allowed), 14);
    assert_int_equal(atomic_load(&cell->connect_interval_us), 600);
    assert_int_equal(atomic_load(&world->journal.rests[path].endpoint_us[1]), 77);
    assert_int_equal(atomic_load(&world->journal.rests[path].source_us[0]), 88);
    assert_int_equal(atomic_load(&ring->head) - atomic_load(&ring->tail), 1);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, world_set_up, world_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(credit_is_never_exceeded),
        TEST(a_rate_allows_no_prefetch),
        TEST(shape_is_asked_again_when_it_said),
        TEST(each_kind_of_outcome_reaches_settle),
        TEST(a_slot_is_free_after_its_commit_and_not_before),
        TEST(what_is_returned_goes_back_and_frees_its_slot),
        TEST(what_was_begun_goes_back_once),
        TEST(what_cannot_be_rendered_ends_without_a_slot),
        TEST(a_message_larger_than_the_arena_holds_up_nobody),
        TEST(pieces_end_at_pages_in_pa_mode),
        TEST(changed_endpoints_make_a_new_path),
        TEST(a_reload_makes_new_paths_where_it_changes_them),
        TEST(an_order_in_the_press_comes_back_from_a_retired_path),
        TEST(a_path_may_be_retired_while_shape_is_asked),
        TEST(a_turn_notices_changed_endpoints),
        TEST(a_lane_that_goes_frees_its_path),
        TEST(paths_run_out_and_come_free),
        TEST(an_idle_lane_gives_its_path_up),
        TEST(a_lane_that_falls_idle_gives_its_path_up),
        TEST(slots_run_out_and_the_backlog_follows),
        TEST(the_backlog_follows_what_is_returned),
        TEST(trouble_of_this_machine_is_temporary),
        TEST(the_arena_runs_out_and_the_backlog_follows),
        TEST(a_lane_turned_away_gets_its_turn),
        TEST(a_press_that_refuses_is_asked_again_later),
        TEST(drain_takes_back_what_no_worker_has),
        TEST(cells_follow_the_lane),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
