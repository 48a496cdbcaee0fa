/* test_death.c: what survives what (DESIGN.md section 6; the table "What a crash means" of include/bypost/README.md). */
#include "world.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

/* One slot in each state, by its delivery's number: the worker claims in the order of the ring. */
enum { QUEUED_1, QUEUED_2, CLAIMED, ENVELOPE, BODY, ANSWERED, ANSWERED_SILENTLY, RETURNED, SLOTS };

struct scene {
    struct world_order orders[SLOTS];
};

static void make_scene(struct world *world, struct scene *scene) {
    world_wait(world, 0, SLOTS);
    world_show(world, 0, world_path(world, 0), SLOTS, SLOTS);
    world_pop(world, 0);
    assert_int_equal(world->order_count[0], SLOTS);
    for (uint32_t i = 0; i < SLOTS; i++) {
        scene->orders[i] = world->orders[0][i];
        struct slot *slot = &world->dataplane.journal.slots[scene->orders[i].slot];
        assert_int_equal(world_index(slot), i);
        uint32_t generation = scene->orders[i].generation;
        if (i >= CLAIMED)
            assert_true(slot_claim(slot, generation));
        if (i >= ENVELOPE)
            slot_advance(slot, generation, SLOT_ENVELOPE_SENT);
        if (i >= BODY)
            slot_advance(slot, generation, SLOT_BODY_SENT);
    }
    world->order_count[0] = 0;
}

/* Answered, and the doorbell not rung: the ring has it, or not even that. */
static void answer_quietly(struct world *world, const struct world_order *order, enum slot_outcome outcome, bool posted) {
    const struct journal *journal = &world->dataplane.journal;
    struct slot *slot = &journal->slots[order->slot];
    slot->reply = (struct slot_reply){.outcome = (uint8_t)outcome, .stage = STAGE_FINAL, .code = outcome == OUTCOME_REPLIED ? 250 : 0};
    slot_advance(slot, order->generation, SLOT_ANSWERED);
    if (posted)
        assert_true(ring_push(journal, journal_outcome_ring(journal, 0, 0), ring_entry(RING_OUTCOME, order->slot, order->generation)));
}

static bool in_flight(const struct world *world, uint32_t index) {
    return dispatch_in_flight(world->dispatch, 0, "normal", world->job.entry, index);
}

static void commit(struct world *world, const struct dispatch_end *end) {
    dispatch_committed(world->dispatch, end->slot, end->slot_generation);
}

static void a_dead_dataplane_is_buried_once(void **state) {
    struct world *world = *state;
    struct scene scene;
    world_start(world);
    make_scene(world, &scene);
    answer_quietly(world, &scene.orders[ANSWERED], OUTCOME_REPLIED, true);
    answer_quietly(world, &scene.orders[ANSWERED_SILENTLY], OUTCOME_REPLIED, false);
    answer_quietly(world, &scene.orders[RETURNED], OUTCOME_RETURNED, true);
    world_dataplane_die(world);
    WORLD_UNTIL(world, world->down == 1);
    world_check(world, 0);
    const uint32_t back[] = {QUEUED_1, QUEUED_2, CLAIMED, RETURNED};
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(world->fates[back[i]].back, 1);
        assert_int_equal(world->fates[back[i]].ended, 0);
    }
    assert_int_equal(world->fates[ENVELOPE].end.outcome.kind, OUTCOME_LOST);
    assert_int_equal(world->fates[BODY].end.outcome.kind, OUTCOME_UNCERTAIN);
    assert_int_equal(world->fates[ANSWERED].end.outcome.code, 250);
    assert_int_equal(world->fates[ANSWERED_SILENTLY].end.outcome.code, 250);
    for (uint32_t i = ENVELOPE; i <= ANSWERED_SILENTLY; i++) {
        assert_int_equal(world->fates[i].ended, 1);
        assert_int_equal(world->fates[i].back, 0);
        commit(world, &world->fates[i].end);
    }
    assert_int_equal(dispatch_slots_used(world->dispatch), 0);
    assert_int_equal(world_slots_in(world, SLOT_FREE), WORLD_SLOTS);
    assert_int_equal(world->harvested, 1);
    assert_int_equal(dispatch_counters(world->dispatch)->harvested_settled, 1); /* what was posted came through its ring */
    assert_int_equal(world->ended_without_delivery, 0);
    /* And its successor sends what came back. */
    world_dataplane_start(world);
    assert_false(journal_harvested(&world->dataplane.journal, world->dataplane.generation));
    WORLD_UNTIL(world, world->up == 2);
    assert_true(journal_harvested(&world->dataplane.journal, world->dataplane.generation));
    world_show(world, 1, world_path(world, 0), 8, 8);
    world_check(world, 4);
    world_pop(world, 1);
    struct world_order order;
    while (world_claim(world, 1, &order) != NULL)
        world_answer(world, 1, &order, OUTCOME_REPLIED, 250, "ok");
    world_settle(world);
    world_check(world, 0);
    for (uint32_t i = 0; i < SLOTS; i++)
        assert_int_equal(world->fates[i].ended, 1);
}

/* Orders that are being rendered, or wait for a slot, when the dataplane dies. */
static void what_is_before_a_slot_goes_back_too(void **state) {
    struct world *world = *state;
    world_start(world);
    world->message_bytes = 30000;
    world_wait(world, 0, 20);
    world_show(world, 0, world_path(world, 0), 10, 10); /* more than the arena holds */
    world->press_holds = true;
    world_show(world, 0, world_path(world, 0), 15, 15);
    world_check(world, 15);
    assert_true(world->dispatch->backlog.count > 0 && world->dispatch->in_press == 5);
    world_dataplane_die(world);
    WORLD_UNTIL(world, world->down == 1);
    world_check(world, 5);
    world_dataplane_start(world);
    WORLD_UNTIL(world, world->up == 2);
    world_press_release(world); /* rendered for a path of the dead one */
    world->press_holds = false;
    world_settle(world);
    world_check(world, 0);
    world_show(world, 0, world_path(world, 0), 2, 2);
    world_check(world, 2);
}

/* The outcome of a slot that is settled but not committed waits for Redis, whatever dies meanwhile. */
static void an_uncommitted_outcome_is_not_settled_again_by_a_death(void **state) {
    struct world *world = *state;
    struct scene scene;
    world_start(world);
    make_scene(world, &scene);
    world_answer(world, 0, &scene.orders[ANSWERED], OUTCOME_REPLIED, 250, "ok");
    world_settle(world);
    assert_int_equal(world->fates[ANSWERED].ended, 1);
    world_dataplane_die(world);
    WORLD_UNTIL(world, world->down == 1);
    world_dataplane_start(world);
    WORLD_UNTIL(world, world->up == 2);
    assert_int_equal(world->fates[ANSWERED].ended, 1);
    const struct dispatch_end *end = &world->fates[ANSWERED].end;
    assert_int_equal(world_slots_in(world, SLOT_ANSWERED), 1);
    commit(world, end);
    assert_int_equal(slot_load(&world->journal.slots[end->slot]), slot_word(end->slot_generation + 1, SLOT_FREE));
}

static void control_comes_back_to_a_living_dataplane(void **state) {
    struct world *world = *state;
    struct scene scene;
    world_start(world);
    make_scene(world, &scene);
    uint32_t path = world_path(world, 0);
    world_control_die(world);
    answer_quietly(world, &scene.orders[ANSWERED], OUTCOME_REPLIED, true);
    answer_quietly(world, &scene.orders[ANSWERED_SILENTLY], OUTCOME_REPLIED, false);
    world_control_start(world);
    WORLD_UNTIL(world, world->harvested == 1 && world->up == 1);
    /* Queued: withdrawn, and read again from Redis. Claimed and later: in flight. Answered: settled, and skipped until the commit. */
    assert_int_equal(world->ended_without_delivery, 2);
    for (uint32_t i = 0; i < SLOTS; i++)
        assert_int_equal(in_flight(world, i), i >= CLAIMED);
    assert_false(dispatch_in_flight(world->dispatch, 0, "retry:normal", world->job.entry, BODY));
    assert_false(dispatch_in_flight(world->dispatch, 0, "high", world->job.entry, BODY));
    assert_false(dispatch_in_flight(world->dispatch, 0, "normal", (struct entry_id){world->job.entry.ms, 1}, BODY));
    assert_false(in_flight(world, 400));
    assert_int_equal(dispatch_slots_used(world->dispatch), SLOTS - 2);
    assert_int_equal(dispatch_in_progress(world->dispatch), 0);
    assert_int_equal(path_word_state(world->journal.paths[path].word), PATH_RETIRED);
    /* Their bytes stay theirs: new orders take other memory. */
    struct slot *first = &world->dataplane.journal.slots[scene.orders[BODY].slot];
    uint8_t bytes[64];
    const uint8_t *arena = world->dataplane.arena.bytes + world->dataplane.arena.fd_offset;
    memcpy(bytes, arena + first->pieces, sizeof(bytes));
    world->delivery_count = 100;
    world_wait(world, 1, 40);
    world_show(world, 1, world_path(world, 1), 40, 40);
    assert_memory_equal(bytes, arena + first->pieces, sizeof(bytes));
    /* The stale hints of the withdrawn ones claim nothing. */
    assert_false(slot_claim(&world->dataplane.journal.slots[scene.orders[QUEUED_1].slot], scene.orders[QUEUED_1].generation));
    /* The rest end one after the other. */
    const uint32_t rest[] = {CLAIMED, ENVELOPE, BODY, RETURNED};
    const enum slot_outcome outcomes[] = {OUTCOME_RETURNED, OUTCOME_LOST, OUTCOME_REPLIED, OUTCOME_REPLIED};
    for (uint32_t i = 0; i < 4; i++) {
        world_answer(world, 0, &scene.orders[rest[i]], outcomes[i], 250, "ok");
        world_settle(world);
        assert_int_equal(world->ended_without_delivery, 3 + i);
        assert_int_equal(world->last_end.outcome.kind, outcomes[i]);
        assert_int_equal(world->last_end.cookie.index, rest[i]);
        assert_string_equal(world->last_end.cookie.queue, "normal");
        assert_true(in_flight(world, rest[i]));
        commit(world, &world->last_end);
        assert_false(in_flight(world, rest[i]));
    }
    world_pop(world, 0);
    world_pop(world, 1);
    world_settle(world);
    assert_int_equal(path_word_state(world->journal.paths[path].word), PATH_FREE);
    assert_int_equal(dispatch_counters(world->dispatch)->wild_values, 0);
}

static void control_comes_back_to_a_dead_dataplane(void **state) {
    struct world *world = *state;
    struct scene scene;
    world_start(world);
    make_scene(world, &scene);
    answer_quietly(world, &scene.orders[ANSWERED], OUTCOME_REPLIED, true);
    answer_quietly(world, &scene.orders[ANSWERED_SILENTLY], OUTCOME_REPLIED, false);
    world_control_die(world);
    world_dataplane_die(world);
    world_control_start(world);
    WORLD_UNTIL(world, world->harvested == 1); /* no dataplane is needed for that */
    assert_int_equal(world->up, 0);
    const struct dispatch_counters *counters = dispatch_counters(world->dispatch);
    assert_int_equal(counters->harvested_returned, 3);
    assert_int_equal(counters->harvested_lost, 1);
    assert_int_equal(counters->harvested_uncertain, 2); /* BODY and RETURNED, which had not been answered */
    assert_int_equal(counters->harvested_settled, 2);
    assert_int_equal(world->ended_without_delivery, 5);
    for (uint32_t i = 0; i < SLOTS; i++)
        assert_int_equal(in_flight(world, i), i >= ENVELOPE);
    world_dataplane_start(world);
    WORLD_UNTIL(world, world->up == 1);
    assert_int_equal(world->ended_without_delivery, 5); /* and once is enough */
    assert_int_equal(world->harvested, 1);
}

/* The dataplane died and another has begun before control is back: what is in the slots belongs to the dead one. */
static void control_comes_back_to_a_replaced_dataplane(void **state) {
    struct world *world = *state;
    struct scene scene;
    world_start(world);
    make_scene(world, &scene);
    world_control_die(world);
    world_dataplane_die(world);
    world_dataplane_start(world);
    assert_false(journal_harvested(&world->dataplane.journal, world->dataplane.generation));
    world_control_start(world);
    WORLD_UNTIL(world, world->up == 1 && world->harvested == 1);
    assert_true(journal_harvested(&world->dataplane.journal, world->dataplane.generation));
    const struct dispatch_counters *counters = dispatch_counters(world->dispatch);
    assert_int_equal(counters->harvested_returned, 3);
    assert_int_equal(counters->harvested_lost, 1);
    assert_int_equal(counters->harvested_uncertain, 4);
    assert_int_equal(world->ended_without_delivery, 5);
    assert_int_equal(world->dispatch->map.used, 0); /* they have nothing in the new arena */
    assert_int_equal(world_slots_in(world, SLOT_ANSWERED), 0);
    world->delivery_count = 100;
    world_wait(world, 0, 1);
    assert_true(
        ring_waiting(&world->journal, journal_order_ring(&world->journal, 1, 0))); /* marks of the dead one's hints keep no new one back */
    world_show(world, 0, world_path(world, 0), 1, 1);
    world_check(world, 1);
}

/* A dataplane that was replaced while control lives, without any moment at which none had the lock. */
static void a_dataplane_is_replaced_under_control(void **state) {
    struct world *world = *state;
    struct scene scene;
    world_start(world);
    make_scene(world, &scene);
    world_dataplane_die(world);
    world_dataplane_start(world);
    WORLD_UNTIL(world, world->up == 2);
    assert_int_equal(world->down, 1);
    world_check(world, 0);
    assert_int_equal(world->fates[ENVELOPE].end.outcome.kind, OUTCOME_LOST);
    assert_int_equal(world->fates[BODY].end.outcome.kind, OUTCOME_UNCERTAIN);
    assert_int_equal(world->fates[QUEUED_1].back, 1);
}

/* In flight since an earlier control when the dataplane dies: their ends have no delivery, but they come, once. */
static void inherited_slots_outlive_neither(void **state) {
    struct world *world = *state;
    struct scene scene;
    world_start(world);
    make_scene(world, &scene);
    world_control_die(world);
    world_control_start(world);
    WORLD_UNTIL(world, world->up == 1);
    assert_int_equal(world->ended_without_delivery, 0);
    world_dataplane_die(world);
    WORLD_UNTIL(world, world->down == 1);
    assert_int_equal(world->ended_without_delivery, SLOTS - 2);
    assert_int_equal(dispatch_counters(world->dispatch)->harvested_uncertain, SLOTS - BODY);
}

/* Whatever an earlier control left in a word: nothing is kept for good. */
static void wild_words_of_the_past_are_freed(void **state) {
    struct world *world = *state;
    struct scene scene;
    world_start(world);
    make_scene(world, &scene);
    world_control_die(world);
    for (uint32_t i = 0; i < SLOTS; i++)
        atomic_store(&world->dataplane.journal.slots[scene.orders[i].slot].word, slot_word(i * 1000, (enum slot_state)(SLOT_STATES + i)));
    world_control_start(world);
    WORLD_UNTIL(world, world->up == 1);
    assert_true(dispatch_counters(world->dispatch)->wild_values >= SLOTS);
    world_dataplane_die(world);
    WORLD_UNTIL(world, world->down == 1);
    assert_int_equal(world->ended_without_delivery, SLOTS); /* each may have arrived: uncertain */
}

/* dataplane/link.c keeps the last peer: another process at the socket must not part the two for good. */
static void the_link_comes_back_while_both_live(void **state) {
    struct world *world = *state;
    struct scene scene;
    world_start(world);
    make_scene(world, &scene);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, world->socket_path);
    int other = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(other, (struct sockaddr *)&address, sizeof(address)), 0);
    WORLD_UNTIL(world, !dispatch_dataplane_up(world->dispatch));
    WORLD_UNTIL(world, dispatch_dataplane_up(world->dispatch));
    close(other);
    world_check(world, SLOTS);
    assert_int_equal(world->down, 0);
    for (uint32_t i = QUEUED_1; i <= QUEUED_2; i++)
        assert_true(slot_claim(&world->dataplane.journal.slots[scene.orders[i].slot], scene.orders[i].generation));
    for (uint32_t i = 0; i < SLOTS; i++)
        world_answer(world, 0, &scene.orders[i], OUTCOME_REPLIED, 250, "ok");
    WORLD_UNTIL(world, dispatch_in_progress(world->dispatch) == 0);
    world_wait(world, 0, 3);
    world_check(world, 3);
}

static void drain_ends_with_a_dead_dataplane(void **state) {
    struct world *world = *state;
    struct scene scene;
    world_start(world);
    make_scene(world, &scene);
    dispatch_drain(world->dispatch);
    world_settle(world);
    world_check(world, SLOTS - 2);
    world_dataplane_die(world);
    WORLD_UNTIL(world, world->down == 1);
    world_check(world, 0);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, world_set_up, world_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_dead_dataplane_is_buried_once),
        TEST(what_is_before_a_slot_goes_back_too),
        TEST(an_uncommitted_outcome_is_not_settled_again_by_a_death),
        TEST(control_comes_back_to_a_living_dataplane),
        TEST(control_comes_back_to_a_dead_dataplane),
        TEST(control_comes_back_to_a_replaced_dataplane),
        TEST(a_dataplane_is_replaced_under_control),
        TEST(inherited_slots_outlive_neither),
        TEST(wild_words_of_the_past_are_freed),
        TEST(the_link_comes_back_while_both_live),
        TEST(drain_ends_with_a_dead_dataplane),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
