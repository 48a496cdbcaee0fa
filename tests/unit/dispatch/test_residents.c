/* test_residents.c: what messages of one content share lies in the arena once, for as long as anyone needs it (DESIGN.md section 4;
 * control/dispatch/residents.h): through every way in which an order ends, through the deaths of either process, and under pressure. */
#include "world.h"

#include <string.h>

enum { CONTENT = 20000, HELD_MAX = 32, UNIT = ARENA_UNIT_BYTES };

static struct dispatch_arena arena_of(const struct world *world) {
    struct dispatch_arena arena;
    dispatch_arena(world->dispatch, &arena);
    return arena;
}

static uint64_t room(uint64_t bytes) {
    return (bytes + UNIT - 1) / UNIT * UNIT;
}

static void commit_all(struct world *world) {
    for (uint32_t i = 0; i < world->delivery_count; i++)
        if (world->fates[i].ended)
            dispatch_committed(world->dispatch, world->fates[i].end.slot, world->fates[i].end.slot_generation);
    world_settle(world);
}

static void begin(struct world *world) {
    world_start(world);
    world->limits.max_recipients_per_batch = 1;
    world->message_bytes = 300;
    world_content(world, 0, 1, CONTENT);
}

/* So many deliveries into the hands of worker 0. */
static uint32_t hand_out(struct world *world, uint32_t count, struct world_order *orders) {
    uint32_t claimed = 0;
    world_wait(world, 0, count);
    world_show(world, 0, world_path(world, 0), count + 100, count + 100);
    world_pop(world, 0);
    while (claimed < count && world_claim(world, 0, &orders[claimed]) != NULL)
        claimed++;
    return claimed;
}

static void answer(struct world *world, const struct world_order *order, enum slot_outcome outcome) {
    world_answer(world, 0, order, outcome, outcome == OUTCOME_REPLIED ? 250 : 0, "ok");
    world_settle(world);
}

/* Nothing is under way: only idle residents are left in the arena. */
static void only_idle_are_left(const struct world *world) {
    struct dispatch_arena arena = arena_of(world);
    assert_int_equal(arena.used_bytes, arena.resident_bytes);
    assert_int_equal(arena.idle_bytes, arena.resident_bytes);
    assert_true(arena.idle_bytes <= arena.bytes / RESIDENTS_ARENA_PART);
}

static void a_content_lies_in_the_arena_once(void **state) {
    struct world *world = *state;
    struct world_order orders[HELD_MAX];
    begin(world);
    assert_int_equal(hand_out(world, 10, orders), 10);
    const struct dispatch_counters *counters = dispatch_counters(world->dispatch);
    struct dispatch_arena arena = arena_of(world);
    assert_int_equal(arena.residents_made, 1);
    assert_int_equal(arena.resident_bytes, room(CONTENT));
    assert_int_equal(arena.idle_bytes, 0);
    assert_true(counters->arena_shared_bytes > 10 * CONTENT / 2);
    assert_true(arena.used_bytes < room(CONTENT) + 10 * CONTENT / 2);
    uint64_t sizes = 0;
    for (uint32_t i = 0; i < 10; i++)
        sizes += world->journal.slots[orders[i].slot].size_bytes;
    assert_int_equal(counters->arena_copied_bytes + counters->arena_shared_bytes, sizes);
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(arena_of(world).idle_bytes, 0);
        answer(world, &orders[i], OUTCOME_REPLIED);
    }
    only_idle_are_left(world);
    assert_int_equal(arena_of(world).idle_bytes, room(CONTENT));
    commit_all(world);
    assert_int_equal(hand_out(world, 3, orders), 3); /* it waited for them */
    assert_int_equal(arena_of(world).residents_made, 1);
}

/* Its last reference may go by any of these. */
static void each_end_of_an_order_lets_go_once(void **state) {
    struct world *world = *state;
    struct world_order orders[HELD_MAX];
    begin(world);
    static const enum slot_outcome outcomes[] = {OUTCOME_REPLIED, OUTCOME_RETURNED, OUTCOME_LOST, OUTCOME_UNCERTAIN, OUTCOME_LOCAL};
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(hand_out(world, 1, orders), 1);
        world_show(world, 0, world_path(world, 0), 0, 0);
        answer(world, &orders[0], outcomes[i]);
        only_idle_are_left(world);
        world->lanes[0].first = NULL;
        world->lanes[0].lane.waiting = 0;
        commit_all(world);
    }
    world_wait(world, 0, 4);
    world_show(world, 0, world_path(world, 0), 4, 4);
    assert_int_equal(world_slots_in(world, SLOT_QUEUED), 4);
    assert_int_equal(arena_of(world).idle_bytes, 0);
    dispatch_drain(world->dispatch);
    world_settle(world);
    assert_int_equal(world_slots_in(world, SLOT_QUEUED), 0);
    only_idle_are_left(world);
    assert_int_equal(arena_of(world).residents_made, 1);
}

/* One chain is one reference, whatever becomes of its members. */
static void a_chain_holds_one_reference(void **state) {
    struct world *world = *state;
    struct world_order orders[HELD_MAX];
    begin(world);
    world->limits.max_recipients_per_batch = 4;
    world->alike = true;
    world_wait(world, 0, 8);
    world_show(world, 0, world_path(world, 0), 2, 2);
    world_pop(world, 0);
    assert_int_equal(world_claim_chain(world, 0, orders), 4);
    assert_int_equal(world_claim_chain(world, 0, orders + 4), 4);
    world_show(world, 0, world_path(world, 0), 0, 0);
    for (uint32_t i = 8; i-- > 0;) {
        assert_int_equal(arena_of(world).idle_bytes, 0);
        world_look(world, &orders[i], world_index(&world->journal.slots[orders[i].slot]) < 4 ? 0 : 4);
        answer(world, &orders[i], i % 2 ? OUTCOME_REPLIED : OUTCOME_RETURNED);
    }
    only_idle_are_left(world);
    assert_int_equal(arena_of(world).idle_bytes, room(CONTENT));
}

static uint32_t pieces_of(const struct world *world, const struct world_order *order) {
    return world->journal.slots[order->slot].piece_count;
}

static void short_runs_are_copied(void **state) {
    struct world *world = *state;
    struct world_order order;
    begin(world);
    world->run_bytes = 300;
    /* Some follow one another without a gap, and are one run. */
    uint64_t copied = 0;
    for (uint32_t i = 0; i < 20; i++) {
        assert_int_equal(hand_out(world, 1, &order), 1);
        copied += pieces_of(world, &order) == 1;
        assert_true(pieces_of(world, &order) <= 2 * (CONTENT / 1024) + 1);
        answer(world, &order, OUTCOME_REPLIED);
        commit_all(world);
    }
    assert_true(copied < 20);
    world->run_bytes = 1;
    assert_int_equal(hand_out(world, 1, &order), 1);
    assert_int_equal(pieces_of(world, &order), 1);
}

/* However many runs a message has, so many pieces: the longest are referred to. */
static void pieces_are_bounded(void **state) {
    struct world *world = *state;
    struct world_order order;
    uint32_t most = 0;
    begin(world);
    world_content(world, 0, 2, 30000);
    static const uint32_t runs[] = {300, 1023, 1024, 1100, 2000, 2047, 2048, 5000, 29999};
    for (uint32_t i = 0; i < sizeof(runs) / sizeof(runs[0]); i++)
        for (uint32_t j = 0; j < 8; j++) {
            world->run_bytes = runs[i];
            assert_int_equal(hand_out(world, 1, &order), 1);
            most = pieces_of(world, &order) > most ? pieces_of(world, &order) : most;
            answer(world, &order, OUTCOME_REPLIED);
            commit_all(world);
        }
    assert_true(most > 20);
    assert_true(most <= 95);
}

static void bend_to_pages(struct link *link) {
    link->hello.pieces_in_page = 1;
}

/* In physical-address mode neither an own piece nor a shared one crosses a page. */
static void pieces_end_at_pages(void **state) {
    struct world *world = *state;
    struct world_order order;
    world_dataplane_start_bent(world, bend_to_pages);
    world_control_start(world);
    WORLD_UNTIL(world, world->up == 1);
    world->limits.max_recipients_per_batch = 1;
    world->message_bytes = 6000;
    world_content(world, 0, 1, 30000);
    for (uint32_t i = 0; i < 60; i++) {
        world->run_bytes = i * 501 % 12000;
        assert_int_equal(hand_out(world, 1, &order), 1);
        answer(world, &order, OUTCOME_REPLIED);
        commit_all(world);
    }
    assert_int_equal(arena_of(world).residents_made, 1);
}

static void the_oldest_idle_goes_first(void **state) {
    struct world *world = *state;
    struct world_order order;
    begin(world);
    /* Three of 12,000 bytes: two may stay idle in a fourth of the arena. */
    for (uint32_t i = 0; i < 3; i++)
        world_content(world, i, 10 + i, 12000);
    for (uint32_t i = 0; i < 3; i++) { /* deliveries 0, 1, 2 */
        assert_int_equal(hand_out(world, 1, &order), 1);
        answer(world, &order, OUTCOME_REPLIED);
        only_idle_are_left(world);
    }
    assert_int_equal(arena_of(world).residents_made, 3);
    assert_int_equal(arena_of(world).residents_evicted, 1);
    world->delivery_count = 4; /* content 1 is there yet */
    assert_int_equal(hand_out(world, 1, &order), 1);
    answer(world, &order, OUTCOME_REPLIED);
    assert_int_equal(arena_of(world).residents_made, 3);
    world->delivery_count = 6; /* content 0 is not, and content 2 is older than 1 */
    assert_int_equal(hand_out(world, 1, &order), 1);
    answer(world, &order, OUTCOME_REPLIED);
    assert_int_equal(arena_of(world).residents_made, 4);
    world->delivery_count = 7;
    assert_int_equal(hand_out(world, 1, &order), 1);
    answer(world, &order, OUTCOME_REPLIED);
    assert_int_equal(arena_of(world).residents_made, 4);
    only_idle_are_left(world);
}

static void what_is_idle_makes_room_and_what_is_used_does_not(void **state) {
    struct world *world = *state;
    struct world_order used, others[HELD_MAX];
    begin(world);
    world_content(world, 1, 2, CONTENT);
    assert_int_equal(hand_out(world, 1, &used), 1);  /* content 0 */
    assert_int_equal(hand_out(world, 1, others), 1); /* content 1 */
    answer(world, &others[0], OUTCOME_REPLIED);
    assert_int_equal(arena_of(world).idle_bytes, room(CONTENT));
    /* Messages without a content fill all the rest. */
    world->content_count = 0;
    world->message_bytes = 5000;
    world->delivery_count = 10;
    uint32_t count = hand_out(world, 24, others);
    assert_true(count >= (WORLD_ARENA_BYTES - 2 * CONTENT) / 6000);
    assert_int_equal(arena_of(world).idle_bytes, 0);
    assert_int_equal(arena_of(world).residents_evicted, 1);
    assert_int_equal(arena_of(world).resident_bytes, room(CONTENT));
    assert_true(dispatch_counters(world->dispatch)->arena_exhausted > 0);
    world->content_count = 2;
    world->message_bytes = 300;
    world_look(world, &used, 0);
    answer(world, &used, OUTCOME_REPLIED); /* makes room for those that wait */
    assert_int_equal(arena_of(world).resident_bytes, 0);
    assert_int_equal(world->dispatch->backlog.count, 0);
}

/* Larger than its part of the arena: it goes as if it were the message's own. And what no arena holds ends as ever. */
static void a_content_too_large_is_copied(void **state) {
    struct world *world = *state;
    struct world_order order;
    begin(world);
    world_content(world, 0, 1, WORLD_ARENA_BYTES / RESIDENTS_ARENA_PART + 1);
    assert_int_equal(hand_out(world, 1, &order), 1);
    assert_int_equal(arena_of(world).resident_bytes, 0);
    assert_int_equal(pieces_of(world, &order), 1);
    answer(world, &order, OUTCOME_REPLIED);
    assert_int_equal(arena_of(world).used_bytes, 0);
    world_content(world, 0, 2, WORLD_ARENA_BYTES / RESIDENTS_ARENA_PART);
    assert_int_equal(hand_out(world, 1, &order), 1);
    assert_int_equal(arena_of(world).resident_bytes, WORLD_ARENA_BYTES / RESIDENTS_ARENA_PART);
    answer(world, &order, OUTCOME_REPLIED);
    world->message_bytes = WORLD_ARENA_BYTES / 2; /* its own part is large: idle ones make room for the whole of it */
    assert_int_equal(hand_out(world, 1, &order), 1);
    assert_int_equal(arena_of(world).resident_bytes, 0);
    answer(world, &order, OUTCOME_REPLIED);
    world->message_bytes = WORLD_ARENA_BYTES;
    uint32_t number = world_wait(world, 0, 1);
    assert_int_equal(world->fates[number].end.outcome.code, 552);
    world_check(world, 0);
}

static void a_new_arena_gets_it_anew(void **state) {
    struct world *world = *state;
    struct world_order orders[HELD_MAX];
    begin(world);
    assert_int_equal(hand_out(world, 4, orders), 4);
    answer(world, &orders[0], OUTCOME_REPLIED);
    commit_all(world);
    world_dataplane_die(world);
    WORLD_UNTIL(world, world->down == 1);
    assert_int_equal(arena_of(world).resident_bytes, 0);
    world_check(world, 0);
    world_dataplane_start(world);
    WORLD_UNTIL(world, world->up == 2);
    assert_int_equal(arena_of(world).used_bytes, 0);
    world_show(world, 0, world_path(world, 0), 9, 9);
    world_pop(world, 0);
    uint32_t count = 0;
    while (world_claim(world, 0, &orders[count]) != NULL) /* and checks that it is all there */
        count++;
    assert_int_equal(count, 3);
    assert_int_equal(arena_of(world).residents_made, 2);
    while (count-- > 0)
        answer(world, &orders[count], OUTCOME_REPLIED);
    only_idle_are_left(world);
}

/* A new control over a living dataplane: the run stays reserved, once, until the last slot that needs it is done; and its identifiers may
 * mean other bytes than those of the dead one. */
static void inherited_runs_stay_until_the_last_slot(void **state) {
    struct world *world = *state;
    struct world_order orders[HELD_MAX], others[HELD_MAX];
    begin(world);
    assert_int_equal(hand_out(world, 3, orders), 3);
    uint64_t used = arena_of(world).used_bytes;
    world_control_die(world);
    world_control_start(world);
    WORLD_UNTIL(world, world->harvested == 1 && world->up == 1);
    assert_int_equal(dispatch_counters(world->dispatch)->wild_values, 0);
    assert_int_equal(arena_of(world).used_bytes, used);
    assert_int_equal(arena_of(world).resident_bytes, room(CONTENT));
    world->delivery_count = 100;
    world->message_bytes = 4000;
    world->contents_salt = 3;
    world_content(world, 0, 1, CONTENT);
    uint32_t count = hand_out(world, 28, others); /* as much as fits */
    assert_true(count > 10);
    assert_int_equal(arena_of(world).residents_made, 1);
    world->message_bytes = 300;
    world->contents_salt = 0;
    world_content(world, 0, 1, CONTENT);
    for (uint32_t i = 0; i < 3; i++) {
        for (uint32_t j = i; j < 3; j++)
            world_look(world, &orders[j], j);
        assert_int_equal(arena_of(world).resident_bytes, 2 * room(CONTENT));
        answer(world, &orders[i], i == 1 ? OUTCOME_LOST : OUTCOME_REPLIED);
        dispatch_committed(world->dispatch, world->last_end.slot, world->last_end.slot_generation);
    }
    assert_int_equal(arena_of(world).resident_bytes, room(CONTENT));
    world->message_bytes = 4000;
    world->contents_salt = 3;
    world_content(world, 0, 1, CONTENT);
    while (count-- > 0) {
        world_look(world, &others[count], world_index(&world->journal.slots[others[count].slot]));
        answer(world, &others[count], OUTCOME_REPLIED);
    }
}

/* A chain's first slot keeps the run for the others too. */
static void an_inherited_chain_keeps_its_run(void **state) {
    struct world *world = *state;
    struct world_order orders[HELD_MAX];
    begin(world);
    world->limits.max_recipients_per_batch = 4;
    world->alike = true;
    world_wait(world, 0, 4);
    world_show(world, 0, world_path(world, 0), 1, 1);
    world_pop(world, 0);
    assert_int_equal(world_claim_chain(world, 0, orders), 4);
    world_control_die(world);
    world_control_start(world);
    WORLD_UNTIL(world, world->harvested == 1 && world->up == 1);
    const uint32_t order[] = {2, 0, 3, 1};
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(arena_of(world).resident_bytes, room(CONTENT));
        answer(world, &orders[order[i]], OUTCOME_REPLIED);
    }
    assert_int_equal(arena_of(world).used_bytes, 0);
    assert_int_equal(dispatch_counters(world->dispatch)->wild_values, 0);
}

enum bend { OUTSIDE, ODD, BEHIND, ACROSS, LONGER, ALL, BENDS };

/* Extents in the journal are another process's word: each that cannot be is counted, and what is good stays reserved. */
static void wild_extents_are_counted(void **state) {
    struct world *world = *state;
    struct world_order orders[BENDS + 1];
    begin(world);
    assert_int_equal(hand_out(world, BENDS + 1, orders), BENDS + 1);
    struct slot *slots = world->dataplane.journal.slots;
    for (uint32_t i = 0; i < BENDS; i++) {
        struct slot *slot = &slots[orders[i].slot];
        if (i == OUTSIDE)
            slot->shared_extent = UINT64_MAX - UNIT + 1;
        else if (i == ODD)
            slot->shared_extent += 17;
        else if (i == BEHIND)
            slot->shared_extent = WORLD_ARENA_BYTES - UNIT;
        else if (i == ACROSS)
            slot->shared_extent += 3 * UNIT;
        else if (i == LONGER)
            slot->shared_extent_bytes += 5 * UNIT;
        else
            slot->shared_extent_bytes = UINT32_MAX;
    }
    world_control_die(world);
    world_control_start(world);
    WORLD_UNTIL(world, world->harvested == 1 && world->up == 1);
    assert_true(dispatch_counters(world->dispatch)->wild_values >= BENDS);
    assert_true(dispatch_counters(world->dispatch)->wild_values <= 2 * BENDS); /* own extents may lie in a wild one */
    for (uint32_t i = 0; i <= BENDS; i++)
        answer(world, &orders[i], OUTCOME_REPLIED);
    assert_int_equal(world->ended_without_delivery, BENDS + 1);
    for (uint32_t i = 0; i < WORLD_SLOTS; i++)
        assert_true(world->dispatch->flights[i].chain == NULL);
    world_dataplane_die(world); /* whatever wild ones took for good goes with the arena */
    WORLD_UNTIL(world, world->down == 1);
    world_dataplane_start(world);
    WORLD_UNTIL(world, world->up == 2);
    assert_int_equal(arena_of(world).used_bytes, 0);
}

/* Where the runs that slots name cross, the wrong one may be claimed first. Its end must not free what another message is sent from yet:
 * somebody would get another one's mail. */
static void crossing_extents_stay_until_the_arena_goes(void **state) {
    struct world *world = *state;
    for (uint32_t shared = 0; shared < 2; shared++) {
        struct world_order orders[2], others[HELD_MAX];
        begin(world);
        assert_int_equal(hand_out(world, 2, orders), 2);
        bool swapped = orders[0].slot > orders[1].slot;
        const struct world_order *wrong = &orders[swapped], *right = &orders[!swapped]; /* by the order of the harvest */
        struct slot *slots = world->dataplane.journal.slots, *damaged = &slots[wrong->slot];
        uint32_t number = world_index(&slots[right->slot]);
        if (shared)
            damaged->shared_extent_bytes -= 3 * UNIT;
        else
            damaged->arena_extent = slots[right->slot].arena_extent;
        world_control_die(world);
        world_control_start(world);
        WORLD_UNTIL(world, world->harvested == 1 && world->up == 1);
        assert_true(dispatch_counters(world->dispatch)->wild_values > 0);
        answer(world, wrong, OUTCOME_REPLIED);
        world->delivery_count = 100;
        world->content_count = 0; /* others are small enough for any gap */
        assert_int_equal(hand_out(world, 20, others), 20);
        world_content(world, 0, 1, CONTENT);
        world_look(world, right, number);
        world_dataplane_die(world);
        WORLD_UNTIL(world, world->down == 1);
        assert_int_equal(world_tear_down(state), 0);
        assert_int_equal(world_set_up(state), 0);
        world = *state;
    }
}

static uint32_t seed = 7;
static uint32_t random_below(uint32_t bound) {
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % bound;
}

static bool in_mask(void *context, const struct delivery *delivery) {
    return *(uint32_t *)context >> delivery->index % 32 & 1;
}

/* Orders that a worker has claimed, by the life of control and the content that they are of. */
struct held {
    struct world_order orders[8];
    struct world_walk walk;
    uint32_t count, answered, content;
    uint64_t id;
};

static void renew(struct world *world, uint32_t content, uint64_t id) {
    world_content(world, content, id, (uint32_t)(4000 + id * 977 % 20000));
}

/* Looks at what the worker would send again if it were asked to: until its outcome is there, a message stays as it was. */
static void look_at(struct world *world, const struct held *held) {
    uint64_t now = world->contents[held->content].shared.id;
    renew(world, held->content, held->id);
    world_look(world, &held->orders[0], world_index(&world->journal.slots[held->orders[0].slot]));
    renew(world, held->content, now);
}

/* Campaigns come and go, orders end in any order and any way, are withdrawn and cut short, and control dies now and then. */
static void whatever_happens_in_whatever_order(void **state) {
    static struct held held[64];
    struct world *world = *state;
    uint32_t held_count = 0, sent = 0, lives = 0, evicted = 0, made = 0;
    uint64_t next_id = 1;
    world_start(world);
    world->leavers = world->commits_strangers = true;
    world->message_bytes = 700;
    for (; next_id <= WORLD_CONTENTS; next_id++)
        renew(world, (uint32_t)next_id - 1, next_id);
    world_wait(world, 0, 1);
    for (uint32_t step = 0; step < 12000; step++) {
        uint32_t what = random_below(22), mask = seed;
        if (world->delivery_count < 400 && what <= 1) {
            world_wait(world, 0, 1 + random_below(6));
        } else if (what <= 3) {
            uint32_t capacity = random_below(12);
            world->limits.max_recipients_per_batch = 1 + random_below(6);
            world_show(world, 0, world_path(world, 0), capacity, capacity);
        } else if (what == 4) {
            dispatch_withdraw(world->dispatch, in_mask, &mask);
        } else if (what == 5 && world->dispatch->in_press + world->dispatch->backlog.count == 0 &&
                   world_slots_in(world, SLOT_QUEUED) == 0) {
            renew(world, random_below(WORLD_CONTENTS), next_id++); /* a new campaign; what is under way is of the old one */
        } else if (what < 10 && held_count < 64) {
            struct held *chain = &held[held_count];
            world_pop(world, 0);
            *chain = (struct held){.count = 0};
            if (world_walk_begin(world, 0, &chain->walk, &chain->orders[0])) {
                chain->count = 1;
                chain->content = world_message(&world->journal.slots[chain->orders[0].slot]) % WORLD_CONTENTS;
                chain->id = world->contents[chain->content].shared.id;
                while (world_walk_on(world, &chain->walk, &chain->orders[chain->count]))
                    chain->count++;
                held_count++;
            }
        } else if (what < 19 && held_count > 0) {
            uint32_t which = random_below(held_count);
            struct held *chain = &held[which];
            bool last = chain->answered + 1 == chain->count, back = random_below(8) == 0;
            look_at(world, chain);
            const struct world_order *order = &chain->orders[last ? 0 : chain->answered + 1];
            chain->answered++;
            answer(world, order, back ? OUTCOME_RETURNED : OUTCOME_REPLIED);
            sent += !back;
            if (last)
                *chain = held[--held_count];
        } else if (what == 19) {
            commit_all(world);
        } else if (what == 20 && random_below(20) == 0) {
            world_pop(world, 0); /* their hints are stale then */
            world->order_count[0] = 0;
            evicted += (uint32_t)arena_of(world).residents_evicted;
            made += (uint32_t)arena_of(world).residents_made;
            uint32_t numbers = world->delivery_count + 1;
            world_control_die(world);
            world_control_start(world);
            WORLD_UNTIL(world, world->harvested == 1 && world->up == 1);
            assert_int_equal(dispatch_counters(world->dispatch)->wild_values, 0);
            world_pop(world, 0); /* lets go of the dead one's path */
            world_pop(world, 1);
            world_settle(world);
            world->delivery_count = numbers < 400 ? numbers : 0;
            world_wait(world, 0, 1);
            lives++;
        }
        world_settle(world);
        if (held_count == 0 && dispatch_slots_used(world->dispatch) == 0)
            only_idle_are_left(world);
        if (world->delivery_count >= 400 && world->lanes[0].lane.waiting == 0 && held_count == 0 &&
            dispatch_in_progress(world->dispatch) == 0) {
            commit_all(world);
            world->delivery_count = 0;
            memset(world->fates, 0, sizeof(world->fates));
        }
    }
    made += (uint32_t)arena_of(world).residents_made;
    evicted += (uint32_t)arena_of(world).residents_evicted;
    assert_true(sent > 1000 && lives > 10 && made > 200 && evicted > 200);
}

/* Each shard has its share of the arena, and gives out and claims nothing of another's. */
static void shards_share_the_arena(void **state) {
    struct arena_map maps[3];
    struct residents residents[3];
    static uint8_t arena[300 * UNIT], bytes[20 * UNIT];
    memset(residents, 0, sizeof(residents));
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(arena_map_create(&maps[i], sizeof(arena), i, 3), 0);
    for (uint32_t i = 0; i < 3; i++) {
        memset(bytes, (int)('a' + i), sizeof(bytes));
        struct shared_bytes shared = {.id = 5, .bytes = bytes, .length = sizeof(bytes)};
        struct resident *resident = residents_make(&residents[i], &maps[i], arena, &shared, false);
        assert_non_null(resident);
        assert_true(resident->extent >= i * 100 * UNIT && resident->extent + sizeof(bytes) <= (i + 1) * 100 * UNIT);
        assert_null(residents_inherit(&residents[(i + 1) % 3], &maps[(i + 1) % 3], resident->extent, resident->bytes));
        uint32_t taken = 0;
        for (uint64_t extent; (extent = arena_take(&maps[i], UNIT)) != UINT64_MAX; taken++)
            memset(arena + extent, 'x', UNIT);
        assert_int_equal(taken, 80);
    }
    for (uint32_t i = 0; i < 3; i++) {
        const struct resident *resident = NULL;
        for (uint32_t j = 0; j < RESIDENTS_BUCKETS && resident == NULL; j++)
            resident = residents[i].buckets[j];
        for (uint32_t j = 0; j < sizeof(bytes); j++)
            assert_int_equal(arena[resident->extent + j], 'a' + i);
        residents_forget(&residents[i]);
        arena_map_free(&maps[i]);
    }
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, world_set_up, world_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_content_lies_in_the_arena_once),
        TEST(each_end_of_an_order_lets_go_once),
        TEST(a_chain_holds_one_reference),
        TEST(short_runs_are_copied),
        TEST(pieces_are_bounded),
        TEST(pieces_end_at_pages),
        TEST(the_oldest_idle_goes_first),
        TEST(what_is_idle_makes_room_and_what_is_used_does_not),
        TEST(a_content_too_large_is_copied),
        TEST(a_new_arena_gets_it_anew),
        TEST(inherited_runs_stay_until_the_last_slot),
        TEST(an_inherited_chain_keeps_its_run),
        TEST(wild_extents_are_counted),
        TEST(crossing_extents_stay_until_the_arena_goes),
        TEST(whatever_happens_in_whatever_order),
        cmocka_unit_test(shards_share_the_arena),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
