/* test_chain_deaths.c: recipients that share a transaction when a process dies in the middle of it: each slot is judged by itself (the
 * table "What a crash means" of include/bypost/README.md), and the bytes of the message stay as long as one of them is in flight. */
#include "world.h"

#include <string.h>

/* A worker is on its way along the chain: it has claimed two, the next was withdrawn, two are queued. */
enum { HALF_FIRST, HALF_CLAIMED, HALF_WITHDRAWN, HALF_QUEUED_1, HALF_QUEUED_2, HALF };
/* A chain in its body: the verdicts on two recipients are there, one of them was not posted. */
enum { BODY_FIRST, BODY_ANSWERED, BODY_SILENT, BODY_OTHER, BODY_ENVELOPE, BODY_CLAIMED, BODY };

struct scene {
    struct world_order orders[8];
    struct world_walk walk;
};

static bool is_withdrawn(void *context, const struct delivery *delivery) {
    return delivery->index == HALF_WITHDRAWN;
}

static void begin(struct world *world, uint32_t members) {
    world->limits.max_recipients_per_batch = 100;
    world_start(world);
    world_wait(world, 0, members);
    world_show(world, 0, world_path(world, 0), 1, 1);
    world_show(world, 0, world_path(world, 0), 0, 0);
    world_check(world, members);
    world_pop(world, 0);
}

static void begin_half(struct world *world, struct scene *scene) {
    begin(world, HALF);
    assert_true(world_walk_begin(world, 0, &scene->walk, &scene->orders[HALF_FIRST]));
    assert_true(world_walk_on(world, &scene->walk, &scene->orders[HALF_CLAIMED]));
    assert_int_equal(dispatch_withdraw(world->dispatch, is_withdrawn, NULL), 1);
    assert_int_equal(world_slots_in(world, SLOT_WITHDRAWN), 1);
}

static void begin_body(struct world *world, struct scene *scene) {
    begin(world, BODY);
    assert_int_equal(world_claim_chain(world, 0, scene->orders), BODY);
    for (uint32_t i = 0; i < BODY; i++) {
        struct slot *slot = &world->dataplane.journal.slots[scene->orders[i].slot];
        if (i != BODY_CLAIMED)
            slot_advance(slot, scene->orders[i].generation, i == BODY_ENVELOPE ? SLOT_ENVELOPE_SENT : SLOT_BODY_SENT);
    }
}

/* Two recipients were refused: written, and one of them not even posted. The doorbell is not rung. */
static void refuse_quietly(struct world *world, struct scene *scene) {
    const struct journal *journal = &world->dataplane.journal;
    for (uint32_t i = BODY_ANSWERED; i <= BODY_SILENT; i++) {
        const struct world_order *order = &scene->orders[i];
        struct slot *slot = &journal->slots[order->slot];
        slot->reply = (struct slot_reply){.outcome = OUTCOME_REPLIED, .stage = STAGE_RCPT, .code = 550};
        slot_advance(slot, order->generation, SLOT_ANSWERED);
        if (i == BODY_ANSWERED)
            assert_true(ring_push(journal, journal_outcome_ring(journal, 0, 0), ring_entry(RING_OUTCOME, order->slot, order->generation)));
    }
}

static bool in_flight(const struct world *world, uint32_t index) {
    return dispatch_in_flight(world->dispatch, 0, "normal", world->job.entry, index);
}

static void commit_all(struct world *world) {
    for (uint32_t i = 0; i < world->delivery_count; i++)
        if (world->fates[i].ended)
            dispatch_committed(world->dispatch, world->fates[i].end.slot, world->fates[i].end.slot_generation);
    world_settle(world);
}

/* A new dataplane sends all that came back. */
static void send_the_rest(struct world *world, uint32_t members) {
    struct world_order orders[8];
    world_dataplane_start(world);
    WORLD_UNTIL(world, world->up == 2);
    world_show(world, 0, world_path(world, 0), 4, 4);
    world_pop(world, 0);
    for (uint32_t count; (count = world_claim_chain(world, 0, orders)) > 0;)
        while (count-- > 0)
            world_answer(world, 0, &orders[count], OUTCOME_REPLIED, 250, "ok");
    world_settle(world);
    world_check(world, 0);
    for (uint32_t i = 0; i < members; i++)
        assert_int_equal(world->fates[i].ended, 1);
    commit_all(world);
    assert_int_equal(dispatch_slots_used(world->dispatch), 0);
    assert_int_equal(world->dispatch->map.used, 0);
}

static void the_dataplane_dies_on_its_way_along_a_chain(void **state) {
    struct world *world = *state;
    struct scene scene;
    begin_half(world, &scene);
    world->alike = true;
    world_dataplane_die(world);
    WORLD_UNTIL(world, world->down == 1);
    world_check(world, 0);
    for (uint32_t i = 0; i < HALF; i++) {
        assert_int_equal(world->fates[i].back, 1);
        assert_int_equal(world->fates[i].ended, 0);
    }
    assert_int_equal(dispatch_slots_used(world->dispatch), 0);
    assert_int_equal(world->ended_without_delivery, 0);
    assert_int_equal(dispatch_counters(world->dispatch)->harvested_returned, HALF - 1);
    send_the_rest(world, HALF);
}

static void the_dataplane_dies_in_a_body(void **state) {
    struct world *world = *state;
    struct scene scene;
    begin_body(world, &scene);
    refuse_quietly(world, &scene);
    world_dataplane_die(world);
    WORLD_UNTIL(world, world->down == 1);
    world_check(world, 0);
    assert_int_equal(world->fates[BODY_FIRST].end.outcome.kind, OUTCOME_UNCERTAIN);
    assert_int_equal(world->fates[BODY_ANSWERED].end.outcome.code, 550);
    assert_int_equal(world->fates[BODY_SILENT].end.outcome.code, 550);
    assert_int_equal(world->fates[BODY_OTHER].end.outcome.kind, OUTCOME_UNCERTAIN);
    assert_int_equal(world->fates[BODY_ENVELOPE].end.outcome.kind, OUTCOME_LOST);
    for (uint32_t i = 0; i < BODY; i++) {
        assert_int_equal(world->fates[i].ended, i != BODY_CLAIMED);
        assert_int_equal(world->fates[i].back, i == BODY_CLAIMED);
    }
    assert_int_equal(world->ended_without_delivery, 0);
    commit_all(world);
    assert_int_equal(dispatch_slots_used(world->dispatch), 0);
    send_the_rest(world, BODY);
}

/* Nearly all of it, by single messages. */
static void fill_the_arena(struct world *world, uint32_t lane) {
    enum { MESSAGES = 20, BYTES = 6000 };
    world->delivery_count = 100;
    world->message_bytes = BYTES;
    world->limits.max_recipients_per_batch = 1;
    world_wait(world, lane, MESSAGES);
    world_show(world, 1, world_path(world, lane), MESSAGES, MESSAGES);
    assert_int_equal(world_slots_in(world, SLOT_QUEUED), MESSAGES);
}

static void control_dies_while_a_worker_is_on_its_way(void **state) {
    struct world *world = *state;
    struct scene scene;
    begin_half(world, &scene);
    world_control_die(world);
    world_control_start(world);
    WORLD_UNTIL(world, world->harvested == 1 && world->up == 1);
    assert_int_equal(world->ended_without_delivery, 0);
    for (uint32_t i = 0; i < HALF; i++)
        assert_int_equal(in_flight(world, i), i <= HALF_CLAIMED);
    assert_int_equal(dispatch_slots_used(world->dispatch), 2);
    assert_int_equal(world_slots_in(world, SLOT_WITHDRAWN) + world_slots_in(world, SLOT_QUEUED), 0);
    assert_int_equal(dispatch_counters(world->dispatch)->wild_values, 0);
    uint32_t reserved = world->dispatch->map.used;
    assert_true(reserved > 0);
    /* The slots behind are free, and soon another's: the worker's chain ends there. */
    uint8_t bytes[64];
    const struct slot *first = &world->dataplane.journal.slots[scene.orders[HALF_FIRST].slot];
    const uint8_t *arena = world->dataplane.arena.bytes + world->dataplane.arena.fd_offset;
    memcpy(bytes, arena + first->pieces, sizeof(bytes));
    fill_the_arena(world, 1);
    assert_false(world_walk_on(world, &scene.walk, &scene.orders[HALF_QUEUED_1]));
    assert_memory_equal(bytes, arena + first->pieces, sizeof(bytes));
    /* A worker that breaks the order of outcomes does not free the bytes of the others. */
    world_answer(world, 0, &scene.orders[HALF_FIRST], OUTCOME_REPLIED, 250, "ok");
    world_settle(world);
    assert_int_equal(world->ended_without_delivery, 1);
    dispatch_committed(world->dispatch, world->last_end.slot, world->last_end.slot_generation);
    assert_false(in_flight(world, HALF_FIRST));
    assert_true(in_flight(world, HALF_CLAIMED));
    uint32_t before = world->dispatch->map.used;
    world_answer(world, 0, &scene.orders[HALF_CLAIMED], OUTCOME_REPLIED, 451, "later");
    world_settle(world);
    assert_int_equal(world->ended_without_delivery, 2);
    assert_int_equal(world->last_end.cookie.index, HALF_CLAIMED);
    assert_int_equal(world->last_end.outcome.code, 451);
    assert_int_equal(world->dispatch->map.used, before - reserved);
}

static void control_dies_in_a_body(void **state) {
    struct world *world = *state;
    struct scene scene;
    begin_body(world, &scene);
    world_control_die(world);
    refuse_quietly(world, &scene);
    world_control_start(world);
    WORLD_UNTIL(world, world->harvested == 1 && world->up == 1);
    assert_int_equal(world->ended_without_delivery, 2);
    for (uint32_t i = 0; i < BODY; i++)
        assert_true(in_flight(world, i)); /* the two until their commit */
    assert_int_equal(dispatch_counters(world->dispatch)->wild_values, 0);
    const uint32_t order[] = {BODY_OTHER, BODY_ENVELOPE, BODY_CLAIMED, BODY_FIRST};
    const enum slot_outcome outcomes[] = {OUTCOME_REPLIED, OUTCOME_LOST, OUTCOME_RETURNED, OUTCOME_REPLIED};
    for (uint32_t i = 0; i < 4; i++) {
        assert_true(world->dispatch->map.used > 0);
        world_answer(world, 0, &scene.orders[order[i]], outcomes[i], 250, "ok");
        world_settle(world);
        assert_int_equal(world->ended_without_delivery, 3 + i);
        assert_int_equal(world->last_end.outcome.kind, outcomes[i]);
        assert_int_equal(world->last_end.cookie.index, order[i]);
        dispatch_committed(world->dispatch, world->last_end.slot, world->last_end.slot_generation);
    }
    assert_int_equal(world->dispatch->map.used, 0);
    assert_int_equal(dispatch_slots_used(world->dispatch), 2);
}

/* In flight since an earlier control, when the dataplane dies too. */
static void an_inherited_chain_outlives_neither(void **state) {
    struct world *world = *state;
    struct scene scene;
    begin_body(world, &scene);
    world_control_die(world);
    world_control_start(world);
    WORLD_UNTIL(world, world->up == 1);
    assert_int_equal(world->ended_without_delivery, 0);
    world_dataplane_die(world);
    WORLD_UNTIL(world, world->down == 1);
    assert_int_equal(world->ended_without_delivery, BODY);
    assert_int_equal(dispatch_counters(world->dispatch)->harvested_uncertain, 4);
    assert_int_equal(dispatch_counters(world->dispatch)->harvested_lost, 1);
}

static void both_die(void **state) {
    struct world *world = *state;
    struct scene scene;
    begin_body(world, &scene);
    refuse_quietly(world, &scene);
    world_control_die(world);
    world_dataplane_die(world);
    world_dataplane_start(world);
    world_control_start(world);
    WORLD_UNTIL(world, world->harvested == 1 && world->up == 1);
    const struct dispatch_counters *counters = dispatch_counters(world->dispatch);
    assert_int_equal(counters->harvested_settled, 2);
    assert_int_equal(counters->harvested_uncertain, 2);
    assert_int_equal(counters->harvested_lost, 1);
    assert_int_equal(counters->harvested_returned, 1);
    assert_int_equal(world->ended_without_delivery, 5);
    for (uint32_t i = 0; i < BODY; i++)
        assert_int_equal(in_flight(world, i), i != BODY_CLAIMED);
    assert_int_equal(world->dispatch->map.used, 0); /* they have nothing in the new arena */
}

/* Control died while it queued a chain, from the last to the first: nobody can have claimed any of it. */
static void control_dies_while_it_queues_a_chain(void **state) {
    struct world *world = *state;
    begin(world, 4);
    struct world_order first = world->orders[0][0];
    world->order_count[0] = 0;
    atomic_store(&world->journal.slots[first.slot].word, slot_word(first.generation, SLOT_FREE));
    world_control_die(world);
    world_control_start(world);
    WORLD_UNTIL(world, world->up == 1);
    assert_int_equal(world_slots_in(world, SLOT_FREE), WORLD_SLOTS);
    assert_int_equal(dispatch_slots_used(world->dispatch), 0);
    assert_int_equal(world->ended_without_delivery, 0);
    for (uint32_t i = 0; i < 4; i++)
        assert_false(in_flight(world, i));
}

/* Links of an earlier control lie in memory that a broken dataplane writes: they are followed only to slots that are in flight, and end. */
static void wild_links_of_the_past_are_harmless(void **state) {
    struct world *world = *state;
    struct scene scene;
    begin_body(world, &scene);
    struct slot *slots = world->dataplane.journal.slots;
    slots[scene.orders[BODY_FIRST].slot].next = scene.orders[BODY_OTHER].slot;
    slots[scene.orders[BODY_OTHER].slot].next = scene.orders[BODY_ENVELOPE].slot;
    slots[scene.orders[BODY_ENVELOPE].slot].next = scene.orders[BODY_FIRST].slot;
    slots[scene.orders[BODY_CLAIMED].slot].next = WORLD_SLOTS + 5;
    world_control_die(world);
    world_control_start(world);
    WORLD_UNTIL(world, world->up == 1);
    for (uint32_t i = BODY; i-- > 0;) {
        world_answer(world, 0, &scene.orders[i], OUTCOME_REPLIED, 250, "ok");
        world_settle(world);
        assert_int_equal(world->last_end.cookie.index, i);
        dispatch_committed(world->dispatch, world->last_end.slot, world->last_end.slot_generation);
    }
    assert_int_equal(world->ended_without_delivery, BODY);
    assert_int_equal(world->dispatch->map.used, 0);
    assert_int_equal(dispatch_slots_used(world->dispatch), 0);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, world_set_up, world_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(the_dataplane_dies_on_its_way_along_a_chain), TEST(the_dataplane_dies_in_a_body),
        TEST(control_dies_while_a_worker_is_on_its_way),   TEST(control_dies_in_a_body),
        TEST(an_inherited_chain_outlives_neither),         TEST(both_die),
        TEST(control_dies_while_it_queues_a_chain),        TEST(wild_links_of_the_past_are_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
