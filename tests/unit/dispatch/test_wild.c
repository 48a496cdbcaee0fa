/* test_wild.c: a broken dataplane may write anything into the journal. DESIGN.md section 4: a wild value is counted and logged, never
 * followed; and no delivery may be lost or settled twice by it. */
#include "world.h"

#include <string.h>

static uint64_t wild(const struct world *world) {
    return dispatch_counters(world->dispatch)->wild_values;
}

/* One lane, `count` of its deliveries in the hands of worker 0. */
static void hand_out(struct world *world, uint32_t count, struct world_order *orders) {
    world_start(world);
    world_wait(world, 0, count);
    world_show(world, 0, world_path(world, 0), count, count);
    world_pop(world, 0);
    for (uint32_t i = 0; i < count; i++)
        assert_non_null(world_claim(world, 0, &orders[i]));
    assert_int_equal(wild(world), 0);
}

static void a_wild_capacity_is_no_credit(void **state) {
    struct world *world = *state;
    world_start(world);
    world_wait(world, 0, 50);
    const uint32_t capacities[] = {1u << 31, UINT32_MAX, (1u << 20) + 1};
    for (uint32_t i = 0; i < 3; i++) {
        world_show(world, 0, world_path(world, 0), capacities[i], 1);
        assert_int_equal(dispatch_in_progress(world->dispatch), 0);
        assert_true(wild(world) > i);
    }
    world_show(world, 1, world_path(world, 0), 2, 2); /* the other worker's credit is good */
    world_check(world, 2);
}

static void wild_ring_entries_are_counted(void **state) {
    struct world *world = *state;
    struct world_order order;
    hand_out(world, 1, &order);
    uint64_t entries[] = {
        0,
        UINT64_MAX,
        ring_entry(RING_ORDER, order.slot, order.generation),
        ring_entry(RING_PATH, 0, 1),
        ring_entry(9, 0, 0),
        ring_entry(RING_OUTCOME, WORLD_SLOTS, order.generation),
        ring_entry(RING_OUTCOME, 0x0fffffff, order.generation),
        ring_entry(RING_OUTCOME, order.slot, order.generation), /* claimed, not answered */
        ring_entry(RING_CREDIT, WORLD_PATHS, 1),
        ring_entry(RING_CREDIT, 0x0fffffff, 1),
        ring_entry(RING_EVENT, JOURNAL_EVENTS, 0),
        ring_entry(RING_EVENT, 3, 77),
    };
    for (uint32_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
        world_push(world, 0, entries[i]);
        world_settle(world);
        if (wild(world) != i + 1)
            fail_msg("entry %u was not counted", i);
        world_check(world, 1);
    }
    /* Hints may be stale: of an earlier life of the slot, or for one that is free. */
    world_push(world, 0, ring_entry(RING_OUTCOME, order.slot, order.generation - 1));
    world_push(world, 0, ring_entry(RING_OUTCOME, order.slot == 0 ? 1 : 0, 0));
    world_settle(world);
    world_check(world, 1);
    world_answer(world, 0, &order, OUTCOME_REPLIED, 250, "ok");
    world_push(world, 0, ring_entry(RING_OUTCOME, order.slot, order.generation)); /* twice */
    world_settle(world);
    assert_int_equal(world->fates[0].ended, 1);
    assert_int_equal(world->ended_without_delivery, 0);
    world_check(world, 0);
}

static void a_wild_ring_head_is_an_empty_ring(void **state) {
    struct world *world = *state;
    struct world_order order;
    hand_out(world, 1, &order);
    struct ring *ring = journal_outcome_ring(&world->dataplane.journal, 0, 0);
    uint64_t head = atomic_load(&ring->head), heads[] = {head + world->journal.ring_capacity + 1, head - 1, UINT64_MAX / 2};
    for (uint32_t i = 0; i < 3; i++) {
        atomic_store(&ring->head, heads[i]);
        uint64_t one = 1;
        assert_int_equal(write(world->dataplane.link.shard_doorbells[0], &one, sizeof(one)), sizeof(one));
        world_settle(world); /* comes back: no spinning */
        world_check(world, 1);
    }
    atomic_store(&ring->head, head);
    world_answer(world, 0, &order, OUTCOME_REPLIED, 250, "ok");
    world_settle(world);
    world_check(world, 0);
}

enum bend_reply { KIND, STAGE, CODE, LENGTH, SENDER, RECIPIENT, BENDS };

/* A reply that cannot be is a lost session: a temporary failure. */
static void a_damaged_reply_is_a_lost_session(void **state) {
    struct world *world = *state;
    struct world_order orders[BENDS];
    hand_out(world, BENDS, orders);
    for (uint32_t i = 0; i < BENDS; i++) {
        struct slot *slot = &world->dataplane.journal.slots[orders[i].slot];
        uint32_t index = world_index(slot);
        struct slot_reply *reply = &slot->reply;
        slot->reply = (struct slot_reply){.outcome = OUTCOME_REPLIED, .stage = STAGE_FINAL, .code = 250, .peer_family = 9};
        if (i == KIND)
            reply->outcome = OUTCOME_KINDS;
        else if (i == STAGE)
            reply->stage = 255;
        else if (i == CODE)
            reply->code = 1000;
        else if (i == LENGTH)
            reply->text_length = UINT16_MAX;
        else if (i == SENDER)
            slot->sender_length = UINT16_MAX;
        else
            slot->recipient_length = SLOT_TEXT_BYTES;
        slot_advance(slot, orders[i].generation, SLOT_ANSWERED);
        world_push(world, 0, ring_entry(RING_OUTCOME, orders[i].slot, orders[i].generation));
        world_settle(world);
        assert_int_equal(world->fates[index].ended, 1);
        assert_int_equal(world->fates[index].end.outcome.kind, OUTCOME_LOST);
        assert_int_equal(world->fates[index].end.outcome.code, 0);
        assert_int_equal(world->fates[index].end.outcome.peer_family, 0);
        assert_int_equal(wild(world), i + 1);
    }
    world_check(world, 0);
}

/* Of a known delivery nothing is read from the slot but the reply: whose it is, where it went and what memory it had is known here. */
static void the_rest_of_the_slot_is_not_believed(void **state) {
    struct world *world = *state;
    struct world_order order;
    hand_out(world, 1, &order);
    struct slot *slot = &world->dataplane.journal.slots[order.slot];
    world->job.history.first_queued_ms = 5;
    memset(slot->cookie, 0xee, sizeof(slot->cookie));
    slot->path = UINT32_MAX;
    slot->path_generation = 3;
    slot->worker = UINT16_MAX;
    slot->next = 0;
    slot->arena_extent = 0;
    slot->arena_extent_bytes = UINT32_MAX;
    slot->reply = (struct slot_reply){.outcome = OUTCOME_REPLIED, .stage = STAGE_FINAL, .code = 250, .endpoint = 255, .source = 255};
    slot_advance(slot, order.generation, SLOT_ANSWERED);
    world_push(world, 0, ring_entry(RING_OUTCOME, order.slot, order.generation));
    world_settle(world);
    const struct dispatch_end *end = &world->fates[0].end;
    assert_int_equal(world->fates[0].ended, 1);
    assert_int_equal(end->cookie.entry.ms, world->job.entry.ms);
    assert_string_equal(end->cookie.queue, "normal");
    assert_true(end->source < PATH_SOURCES_MAX);
    assert_string_equal(end->outcome.peer_name, "");
    assert_int_equal(world->dispatch->map.used, 0);
    world_check(world, 0);
    world_wait(world, 0, 1); /* the credit is whole */
    world_check(world, 1);
}

/* The word: another generation, FREE, or a state that does not exist, while an order is in flight. */
static void a_scribbled_word_settles_nothing_until_the_dataplane_dies(void **state) {
    struct world *world = *state;
    struct world_order orders[4];
    hand_out(world, 4, orders);
    const struct slot *slots = world->dataplane.journal.slots;
    uint64_t words[] = {slot_word(orders[0].generation + 9, SLOT_ANSWERED), slot_word(orders[1].generation, SLOT_FREE),
                        slot_word(orders[2].generation, 0x77), UINT64_MAX};
    for (uint32_t i = 0; i < 4; i++) {
        atomic_store((_Atomic uint64_t *)(uintptr_t)&slots[orders[i].slot].word, words[i]);
        world_push(world, 0, ring_entry(RING_OUTCOME, orders[i].slot, (uint32_t)(words[i] >> 32)));
        world_push(world, 0, ring_entry(RING_OUTCOME, orders[i].slot, orders[i].generation));
        world_settle(world);
        world_check(world, 4);
    }
    world_dataplane_die(world);
    WORLD_UNTIL(world, world->down == 1);
    world_check(world, 0);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(world->fates[i].ended, 1);
        assert_int_equal(world->fates[i].end.outcome.kind, OUTCOME_UNCERTAIN);
        dispatch_committed(world->dispatch, world->fates[i].end.slot, world->fates[i].end.slot_generation);
    }
    for (uint32_t i = 0; i < 4; i++) /* the generations count on from ours */
        assert_int_equal(slot_load(&world->journal.slots[orders[i].slot]), slot_word(orders[i].generation + 1, SLOT_FREE));
    assert_int_equal(dispatch_slots_used(world->dispatch), 0);
}

static void post(struct world *world, const struct path_event *event) {
    assert_true(path_event_post(&world->dataplane.journal, 0, 0, event));
    uint64_t one = 1;
    assert_int_equal(write(world->dataplane.link.shard_doorbells[0], &one, sizeof(one)), sizeof(one));
    world_settle(world);
}

static void path_events_are_checked(void **state) {
    struct world *world = *state;
    world_start(world);
    world_wait(world, 0, 1);
    uint32_t path = world_path(world, 0);
    const struct path_event good = {.path = path,
                                    .path_generation = path_word_generation(world->journal.paths[path].word),
                                    .kind = PATH_EVENT_SHUTDOWN_REPLY,
                                    .stage = STAGE_IDLE,
                                    .code = 421,
                                    .text_length = PATH_EVENT_TEXT_BYTES};
    struct path_event bent[6] = {good, good, good, good, good, good};
    bent[0].path = WORLD_PATHS;
    bent[1].kind = PATH_EVENT_KINDS;
    bent[2].stage = STAGE_KINDS;
    bent[3].endpoint = PATH_ENDPOINTS_MAX;
    bent[4].source = PATH_SOURCES_MAX;
    bent[5].text_length = PATH_EVENT_TEXT_BYTES + 1;
    post(world, &good);
    assert_int_equal(world->lanes[0].events, 1);
    for (uint32_t i = 0; i < 6; i++) {
        post(world, &bent[i]);
        assert_int_equal(wild(world), i + 1);
    }
    struct path_event stale = good;
    stale.path_generation--;
    post(world, &stale);
    assert_int_equal(world->lanes[0].events, 1);
    for (uint32_t i = 0; i < 2 * JOURNAL_EVENTS; i++) /* none of them keeps its place for good */
        post(world, &good);
    assert_int_equal(world->lanes[0].events, 1 + 2 * JOURNAL_EVENTS);
}

static void bend_magic(struct link *link) {
    link->hello.magic++;
}
static void bend_abi(struct link *link) {
    link->hello.abi++;
}
static void bend_workers(struct link *link) {
    link->hello.workers++;
}
static void bend_descriptors(struct link *link) {
    link->workers--; /* one doorbell fewer than it says */
}
static void bend_arena_bytes(struct link *link) {
    link->hello.arena_bytes *= 2;
}
static void bend_arena_offset(struct link *link) {
    link->hello.arena_offset = UINT64_MAX - 4095;
}
static void bend_page(struct link *link) {
    link->hello.page_bytes = 1ull << 63;
}
static void bend_page_odd(struct link *link) {
    link->hello.page_bytes = 4097;
}

static void a_wild_hello_is_no_dataplane(void **state) {
    static void (*const bends[])(struct link *) = {bend_magic,       bend_abi,          bend_workers, bend_descriptors,
                                                   bend_arena_bytes, bend_arena_offset, bend_page,    bend_page_odd};
    struct world *world = *state;
    world_control_start(world);
    WORLD_UNTIL(world, world->harvested == 1); /* none lives: nothing to wait for */
    for (uint32_t i = 0; i < sizeof(bends) / sizeof(bends[0]); i++) {
        world_dataplane_start_bent(world, bends[i]);
        for (int step = 0; step < 120; step++) {
            world_settle(world);
            usleep(1000);
        }
        if (world->up != 0)
            fail_msg("hello %u was believed", i);
        world->dataplane.link.workers = WORLD_WORKERS;
        world_dataplane_die(world);
    }
    world_dataplane_start(world);
    WORLD_UNTIL(world, world->up == 1);
    assert_int_equal(world->harvested, 1);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, world_set_up, world_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_wild_capacity_is_no_credit),
        TEST(wild_ring_entries_are_counted),
        TEST(a_wild_ring_head_is_an_empty_ring),
        TEST(a_damaged_reply_is_a_lost_session),
        TEST(the_rest_of_the_slot_is_not_believed),
        TEST(a_scribbled_word_settles_nothing_until_the_dataplane_dies),
        TEST(path_events_are_checked),
        TEST(a_wild_hello_is_no_dataplane),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
