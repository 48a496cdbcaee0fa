/* test_chains.c: recipients that share a transaction: one order for credit, one message in the arena, a slot and an outcome each
 * (include/bypost/README.md, "Chains"). */
#include "world.h"

#include <errno.h>
#include <string.h>

enum { LONGEST = WORLD_SLOTS / 4 }; /* dispatch: no chain needs more slots */

static uint32_t seed = 11;
static uint32_t random_below(uint32_t bound) {
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % bound;
}

static void begin(struct world *world) {
    world->limits.max_recipients_per_batch = 100;
    world_start(world);
}

static uint32_t outstanding(const struct world *world, uint32_t lane) {
    const struct lane_path *path = world->lanes[lane].lane.path;
    return path->outstanding[0] + path->outstanding[1];
}

/* Answers one and lets control hear of it. */
static void answer(struct world *world, const struct world_order *order, enum slot_outcome outcome, uint16_t code) {
    world_answer(world, 0, order, outcome, code, "ok");
    world_settle(world);
}

/* As a worker does: the others in their order, the first last. */
static void answer_chain(struct world *world, const struct world_order *orders, uint32_t count) {
    for (uint32_t i = 1; i < count; i++)
        answer(world, &orders[i], OUTCOME_REPLIED, 250);
    answer(world, &orders[0], OUTCOME_REPLIED, 250);
}

static void commit_all(struct world *world) {
    for (uint32_t i = 0; i < world->delivery_count; i++)
        if (world->fates[i].ended)
            dispatch_committed(world->dispatch, world->fates[i].end.slot, world->fates[i].end.slot_generation);
    world_settle(world);
}

/* Everything that was taken has ended, and nothing is left of it. */
static void nothing_is_left(struct world *world) {
    commit_all(world);
    world_check(world, 0);
    assert_int_equal(dispatch_slots_used(world->dispatch), 0);
    assert_int_equal(world_slots_in(world, SLOT_FREE), WORLD_SLOTS);
    assert_int_equal(world->dispatch->map.used, 0);
    for (uint32_t i = 0; i < WORLD_LANES; i++)
        if (world->lanes[i].lane.path != NULL)
            assert_int_equal(outstanding(world, i), 0);
    uint32_t chains = 0;
    for (const struct chain *chain = world->dispatch->free_chains; chain != NULL; chain = chain->next)
        chains++;
    assert_int_equal(chains, WORLD_SLOTS);
}

/* Claims, answers and commits until nothing comes any more. */
static void finish(struct world *world) {
    struct world_order orders[LONGEST];
    for (uint32_t count = 1; count > 0;) {
        world_pop(world, 0);
        count = world_claim_chain(world, 0, orders);
        if (count > 0)
            answer_chain(world, orders, count);
        commit_all(world);
    }
}

static void recipients_share_one_order(void **state) {
    struct world *world = *state;
    struct world_order orders[LONGEST];
    begin(world);
    world_wait(world, 0, 10);
    world_show(world, 0, world_path(world, 0), 1, 1); /* credit for one */
    world_check(world, LONGEST);
    assert_int_equal(world->submitted, 1); /* rendered and signed once */
    world_pop(world, 0);
    assert_int_equal(world->order_count[0], 1); /* the first alone is hinted */
    assert_int_equal(world_claim_chain(world, 0, orders), LONGEST);
    for (uint32_t i = 0; i < LONGEST; i++)
        assert_int_equal(world_index(&world->journal.slots[orders[i].slot]), i);
    /* The order is over with the last outcome: only then there is credit for the next, and settle hears of all at once. */
    for (uint32_t i = 1; i < LONGEST; i++) {
        answer(world, &orders[i], OUTCOME_REPLIED, 250);
        assert_int_equal(world->fates[i].ended, 0);
        assert_int_equal(outstanding(world, 0), 1);
        assert_true(world->dispatch->map.used > 0);
    }
    world_check(world, LONGEST);
    answer(world, &orders[0], OUTCOME_REPLIED, 250);
    for (uint32_t i = 0; i < LONGEST; i++)
        assert_int_equal(world->fates[i].ended, 1);
    world_check(world, 2);
    finish(world);
    nothing_is_left(world);
    assert_int_equal(dispatch_counters(world->dispatch)->transactions, 2);
    assert_int_equal(dispatch_counters(world->dispatch)->orders, 10);
}

static void the_limit_bounds_it(void **state) {
    static const struct { uint32_t limit, longest; } CASES[] = {{0, 1}, {1, 1}, {3, 3}, {2, 2}, {LONGEST - 1, LONGEST - 1}, {100, LONGEST}};
    struct world *world = *state;
    world_start(world);
    for (uint32_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        struct world_order orders[LONGEST];
        world->limits.max_recipients_per_batch = CASES[i].limit;
        world_wait(world, 0, 2 * LONGEST);
        world_show(world, 0, world_path(world, 0), 2, 2);
        world_check(world, 2 * CASES[i].longest);
        world_pop(world, 0);
        uint32_t count = world_claim_chain(world, 0, orders);
        assert_int_equal(count, CASES[i].longest);
        answer_chain(world, orders, count);
        finish(world);
        nothing_is_left(world);
    }
}

/* SMTP.md section 3: one recipient domain a transaction unless configured otherwise. */
static void one_domain_a_transaction_unless_the_site_is_asked_for(void **state) {
    struct world *world = *state;
    struct world_order orders[LONGEST];
    begin(world);
    for (uint32_t i = 0; i < 500; i += 2)
        world->recipients[i].mailbox.domain = "other.example";
    world_wait(world, 0, 6);
    world_show(world, 0, world_path(world, 0), 1, 1);
    world_pop(world, 0);
    assert_int_equal(world_claim_chain(world, 0, orders), 3);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(world_index(&world->journal.slots[orders[i].slot]), 2 * i);
    answer_chain(world, orders, 3);
    finish(world);
    assert_int_equal(dispatch_counters(world->dispatch)->transactions, 2);
    world->limits.batch_by_site = true;
    world_wait(world, 0, 6);
    finish(world);
    assert_int_equal(dispatch_counters(world->dispatch)->transactions, 3);
    nothing_is_left(world);
}

static void a_message_of_its_own_goes_alone(void **state) {
    struct world *world = *state;
    struct world_order orders[LONGEST];
    begin(world);
    world->alone = 1;
    world_wait(world, 0, 4);
    world_show(world, 0, world_path(world, 0), 2, 2);
    world_pop(world, 0);
    assert_int_equal(world_claim_chain(world, 0, orders), 3);
    assert_int_equal(world_claim_chain(world, 0, orders + 3), 1);
    assert_int_equal(world_index(&world->journal.slots[orders[3].slot]), 1);
    for (uint32_t i = 4; i-- > 0;)
        answer(world, &orders[i], OUTCOME_REPLIED, 250);
    nothing_is_left(world);
    world->job.entry_recipients = 1; /* nobody to share with: shape is not even asked */
    world_wait(world, 0, 2);
    world_pop(world, 0);
    assert_int_equal(world_claim_chain(world, 0, orders), 1);
    answer_chain(world, orders, 1);
    finish(world);
    nothing_is_left(world);
}

static void each_has_an_outcome_of_its_own(void **state) {
    struct world *world = *state;
    struct world_order orders[LONGEST];
    begin(world);
    world_wait(world, 0, 6);
    world_show(world, 0, world_path(world, 0), 1, 1);
    world_show(world, 0, world_path(world, 0), 0, 0);
    world_pop(world, 0);
    assert_int_equal(world_claim_chain(world, 0, orders), 6);
    world_answer(world, 0, &orders[3], OUTCOME_REPLIED, 550, "no such user");
    world_answer(world, 0, &orders[1], OUTCOME_RETURNED, 0, "");
    world_answer(world, 0, &orders[2], OUTCOME_REPLIED, 452, "too many");
    world_answer(world, 0, &orders[4], OUTCOME_UNCERTAIN, 0, "");
    world_answer(world, 0, &orders[5], OUTCOME_LOST, 0, "");
    world_answer(world, 0, &orders[0], OUTCOME_REPLIED, 250, "ok");
    world_settle(world);
    static const uint16_t codes[] = {250, 0, 452, 550, 0, 0};
    static const enum slot_outcome kinds[] = {OUTCOME_REPLIED, 0, OUTCOME_REPLIED, OUTCOME_REPLIED, OUTCOME_UNCERTAIN, OUTCOME_LOST};
    for (uint32_t i = 0; i < 6; i++) {
        assert_int_equal(world->fates[i].ended, i != 1);
        assert_int_equal(world->fates[i].back, i == 1);
        if (i == 1)
            continue;
        assert_int_equal(world->fates[i].end.outcome.code, codes[i]);
        assert_int_equal(world->fates[i].end.outcome.kind, kinds[i]);
        assert_int_equal(world->fates[i].end.cookie.index, i);
    }
    world_check(world, 0);
    world_show(world, 0, world_path(world, 0), 1, 1);
    finish(world);
    assert_int_equal(world->fates[1].ended, 1);
    nothing_is_left(world);
}

/* What a message lacks is the error of all that it was for. */
static void what_cannot_be_rendered_ends_for_all(void **state) {
    struct world *world = *state;
    begin(world);
    world->status = -EINVAL;
    world_wait(world, 0, 4);
    world_show(world, 0, world_path(world, 0), 1, 1);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(world->fates[i].ended, 1);
        assert_int_equal(world->fates[i].end.outcome.code, 554);
        assert_int_equal(world->fates[i].end.cookie.index, i);
    }
    assert_int_equal(dispatch_counters(world->dispatch)->render_errors, 4);
    nothing_is_left(world);
}

static bool in_mask(void *context, const struct delivery *delivery) {
    return *(const uint32_t *)context >> delivery->index & 1;
}

/* Every set of members is withdrawn while a worker has claimed so many of them. */
static void members_are_withdrawn_by_themselves(void **state) {
    enum { MEMBERS = 4 };
    struct world *world = *state;
    begin(world);
    for (uint32_t claimed = 0; claimed <= MEMBERS; claimed++)
        for (uint32_t mask = 0; mask < 1u << MEMBERS; mask++) {
            struct world_order orders[LONGEST];
            struct world_walk walk;
            uint32_t count = 0, expected = 0;
            world->delivery_count = 0;
            memset(world->fates, 0, sizeof(world->fates));
            world_wait(world, 0, MEMBERS);
            uint32_t path = world_path(world, 0);
            world_show(world, 0, path, 1, 1);
            world_show(world, 0, path, 0, 0); /* what comes back waits */
            world_check(world, MEMBERS);
            world_pop(world, 0);
            if (claimed > 0)
                count += world_walk_begin(world, 0, &walk, &orders[0]);
            while (count < claimed && world_walk_on(world, &walk, &orders[count]))
                count++;
            assert_int_equal(count, claimed);
            for (uint32_t i = claimed; i < MEMBERS; i++) /* without the first nobody claims the others */
                expected += (mask >> i & 1) || (claimed == 0 && mask & 1);
            assert_int_equal(dispatch_withdraw(world->dispatch, in_mask, &mask), expected);
            world_settle(world);
            world_check(world, MEMBERS - expected);
            for (uint32_t i = 0; i < MEMBERS; i++) {
                bool back = i >= claimed && ((mask >> i & 1) || (claimed == 0 && mask & 1));
                assert_int_equal(world->fates[i].back, back);
            }
            /* While one is queued the withdrawn ones are not used again: the worker goes on over them. */
            assert_int_equal(world_slots_in(world, SLOT_WITHDRAWN), world_slots_in(world, SLOT_QUEUED) > 0 ? expected : 0);
            if (claimed == 0)
                count += world_walk_begin(world, 0, &walk, &orders[0]);
            while (count > 0 && world_walk_on(world, &walk, &orders[count]))
                count++;
            assert_int_equal(count, MEMBERS - expected);
            if (count > 0) {
                assert_int_equal(outstanding(world, 0), 1);
                answer_chain(world, orders, count);
            }
            assert_int_equal(outstanding(world, 0), 0);
            assert_int_equal(world_slots_in(world, SLOT_WITHDRAWN), 0);
            commit_all(world);
            assert_int_equal(world->dispatch->map.used, 0);
            world_show(world, 0, path, 5, 5);
            finish(world);
            for (uint32_t i = 0; i < MEMBERS; i++)
                assert_int_equal(world->fates[i].ended, 1);
            nothing_is_left(world);
        }
    assert_int_equal(dispatch_counters(world->dispatch)->wild_values, 0);
}

/* Whoever is stopped just before the slots stays behind, the first too; the message goes to the others. */
static void those_that_are_stopped_stay_behind(void **state) {
    struct world *world = *state;
    struct world_order orders[LONGEST];
    begin(world);
    for (uint32_t mask = 0; mask < 16; mask++) {
        uint32_t left = 0;
        world->delivery_count = 0;
        memset(world->fates, 0, sizeof(world->fates));
        world->press_holds = world->alike = true;
        world_wait(world, 0, 4);
        uint32_t path = world_path(world, 0);
        world_show(world, 0, path, 1, 1);
        world_show(world, 0, path, 0, 0);
        for (uint32_t i = 0; i < 4; i++) {
            world->stopped[i] = mask >> i & 1;
            left += !world->stopped[i];
        }
        world->press_holds = false;
        world_press_release(world);
        world_settle(world);
        world_check(world, left);
        world_pop(world, 0);
        assert_int_equal(world_claim_chain(world, 0, orders), left);
        for (uint32_t i = 0; i < left; i++)
            assert_false(world->stopped[world_index(&world->journal.slots[orders[i].slot])]);
        if (left > 0)
            answer_chain(world, orders, left);
        memset(world->stopped, 0, sizeof(world->stopped));
        world_show(world, 0, path, 4, 4);
        finish(world);
        for (uint32_t i = 0; i < 4; i++) {
            assert_int_equal(world->fates[i].back, mask >> i & 1);
            assert_int_equal(world->fates[i].ended, 1);
        }
        nothing_is_left(world);
    }
}

/* With fewer slots than recipients the chain is shortened, and the others wait in shape. */
static void a_chain_is_as_long_as_there_are_slots(void **state) {
    struct world *world = *state;
    struct world_order orders[LONGEST];
    begin(world);
    world->message_bytes = 200;
    world->limits.max_recipients_per_batch = 1;
    world_wait(world, 0, WORLD_SLOTS - 3);
    world_show(world, 0, world_path(world, 0), WORLD_SLOTS, WORLD_SLOTS);
    world->limits.max_recipients_per_batch = 100;
    assert_int_equal(world_slots_in(world, SLOT_FREE), 3);
    uint32_t first = world_wait(world, 0, LONGEST);
    assert_int_equal(world_slots_in(world, SLOT_FREE), 0);
    world_pop(world, 0);
    for (uint32_t i = 0; i < WORLD_SLOTS - 3; i++)
        assert_int_equal(world_claim_chain(world, 0, orders), 1);
    assert_int_equal(world_claim_chain(world, 0, orders), 3);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(world_index(&world->journal.slots[orders[i].slot]), first + i);
    assert_true(dispatch_counters(world->dispatch)->slots_exhausted > 0);
    world_dataplane_die(world); /* ends the rest of it */
    WORLD_UNTIL(world, world->down == 1);
    world_check(world, 0);
}

/* Commits come by hundreds: a chain that waits takes all slots that came free with them. */
static void a_chain_waits_for_the_whole_commit(void **state) {
    struct world *world = *state;
    struct world_order orders[WORLD_SLOTS + LONGEST];
    begin(world);
    world->message_bytes = 200;
    world->limits.max_recipients_per_batch = 1;
    world_wait(world, 0, WORLD_SLOTS);
    uint32_t path = world_path(world, 0);
    world_show(world, 0, path, WORLD_SLOTS, WORLD_SLOTS);
    world_pop(world, 0);
    for (uint32_t i = 0; i < WORLD_SLOTS; i++)
        assert_int_equal(world_claim_chain(world, 0, &orders[i]), 1);
    world->limits.max_recipients_per_batch = 100;
    for (uint32_t i = 0; i < WORLD_SLOTS; i++)
        answer(world, &orders[i], OUTCOME_REPLIED, 250);
    world_show(world, 0, path, 1, 1);
    world_wait(world, 0, LONGEST);
    world_check(world, LONGEST);
    assert_int_equal(world->dispatch->backlog.count, 1);
    commit_all(world);
    world_pop(world, 0);
    assert_int_equal(world_claim_chain(world, 0, orders), LONGEST);
    answer_chain(world, orders, LONGEST);
    nothing_is_left(world);
}

static void one_leaves_the_backlog(void **state) {
    struct world *world = *state;
    uint32_t mask = 0x55555; /* one of each pair: every second recipient */
    begin(world);
    world->alike = true;
    world->message_bytes = 30000;
    world->limits.max_recipients_per_batch = 2;
    world_wait(world, 0, 20);
    uint32_t path = world_path(world, 0);
    world_show(world, 0, path, 10, 10); /* more than the arena holds */
    assert_true(world->dispatch->backlog.count > 0);
    world_check(world, 20);
    world_show(world, 0, path, 0, 0);
    uint32_t queued = world_slots_in(world, SLOT_QUEUED);
    assert_int_equal(dispatch_withdraw(world->dispatch, in_mask, &mask), queued + (20 - queued) / 2);
    world_settle(world);
    /* The first of those in slots took their second with them; in the backlog the other becomes the first. */
    world_check(world, (20 - queued) / 2);
    world_show(world, 0, path, 20, 20);
    finish(world);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(world->fates[i].ended, 1);
    nothing_is_left(world);
}

/* A worker that cannot take an order at all answers the first and never looks at the others (dataplane/smtp/order.c, order_hint). */
static void with_the_first_the_unclaimed_come_back(void **state) {
    struct world *world = *state;
    begin(world);
    static const enum slot_outcome outcomes[] = {OUTCOME_RETURNED, OUTCOME_LOCAL};
    for (uint32_t round = 0; round < 2; round++) {
        struct world_order first;
        struct world_walk walk;
        world->delivery_count = 0;
        memset(world->fates, 0, sizeof(world->fates));
        world_wait(world, 0, 5);
        uint32_t path = world_path(world, 0);
        world_show(world, 0, path, 1, 1);
        world_show(world, 0, path, 0, 0);
        world_pop(world, 0);
        assert_true(world_walk_begin(world, 0, &walk, &first));
        answer(world, &first, outcomes[round], round == 0 ? 0 : 554);
        world_check(world, 0);
        for (uint32_t i = 1; i < 5; i++)
            assert_int_equal(world->fates[i].back, 1);
        assert_int_equal(world->fates[0].back, round == 0);
        assert_int_equal(world->fates[0].ended, round == 1);
        assert_int_equal(world_slots_in(world, SLOT_WITHDRAWN), 0);
        assert_int_equal(world->dispatch->map.used, 0);
        commit_all(world);
        assert_int_equal(dispatch_slots_used(world->dispatch), 0);
        world_show(world, 0, path, 1, 1);
        finish(world);
        nothing_is_left(world);
    }
}

/* A broken worker ends the first before the others: their message stays theirs. */
static void the_bytes_stay_until_the_last_outcome(void **state) {
    struct world *world = *state;
    struct world_order orders[LONGEST];
    begin(world);
    world_wait(world, 0, 3);
    world_show(world, 0, world_path(world, 0), 1, 1);
    world_pop(world, 0);
    assert_int_equal(world_claim_chain(world, 0, orders), 3);
    static const uint32_t order[] = {0, 2, 1};
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(world->dispatch->map.used > 0);
        assert_int_equal(outstanding(world, 0), 1);
        world_check(world, 3);
        answer(world, &orders[order[i]], OUTCOME_REPLIED, 250);
    }
    nothing_is_left(world);
}

/* Outcomes that a dataplane posts twice, or for a member that it did not claim. */
static void outcomes_count_once_and_of_the_claimed(void **state) {
    struct world *world = *state;
    struct world_order orders[LONGEST];
    struct world_walk walk;
    uint32_t mask = 4;
    begin(world);
    world_wait(world, 0, 4);
    world_show(world, 0, world_path(world, 0), 1, 1);
    world_show(world, 0, world_path(world, 0), 0, 0);
    world_pop(world, 0);
    assert_true(world_walk_begin(world, 0, &walk, &orders[0]));
    assert_true(world_walk_on(world, &walk, &orders[1]));
    orders[2] = (struct world_order){walk.slot, walk.generation};
    assert_int_equal(dispatch_withdraw(world->dispatch, in_mask, &mask), 1);
    for (uint32_t i = 0; i < 3; i++)
        answer(world, &orders[1], OUTCOME_REPLIED, 250);
    assert_int_equal(dispatch_counters(world->dispatch)->wild_values, 0);
    answer(world, &orders[2], OUTCOME_REPLIED, 250); /* withdrawn: its delivery is back */
    assert_int_equal(dispatch_counters(world->dispatch)->wild_values, 1);
    atomic_store(&world->journal.slots[orders[2].slot].word, slot_word(orders[2].generation, SLOT_WITHDRAWN));
    assert_true(world_walk_on(world, &walk, &orders[3]));
    world_check(world, 3);
    answer(world, &orders[3], OUTCOME_REPLIED, 250);
    world_check(world, 3);
    answer(world, &orders[0], OUTCOME_REPLIED, 250);
    world_check(world, 0);
    assert_int_equal(world->fates[2].ended, 0);
    assert_int_equal(world->fates[2].back, 1);
    assert_int_equal(world->ended_without_delivery, 0);
    world_show(world, 0, world_path(world, 0), 1, 1);
    finish(world);
    nothing_is_left(world);
}

static void drain_takes_back_whole_chains(void **state) {
    struct world *world = *state;
    struct world_order orders[LONGEST];
    begin(world);
    world->limits.max_recipients_per_batch = 4;
    world_wait(world, 0, 12);
    world_show(world, 0, world_path(world, 0), 3, 3);
    world_pop(world, 0);
    assert_int_equal(world_claim_chain(world, 0, orders), 4);
    dispatch_drain(world->dispatch);
    world_settle(world);
    world_check(world, 4);
    assert_int_equal(dispatch_counters(world->dispatch)->withdrawn, 8);
    answer_chain(world, orders, 4);
    nothing_is_left(world);
}

/* Whatever comes in whatever order: no slot twice, no delivery lost, and at the end nothing is left. */
static void whatever_happens_in_whatever_order(void **state) {
    struct chain_held {
        struct world_order orders[LONGEST];
        struct world_walk walk;
        uint32_t count, answered;
    };
    static struct chain_held held[64];
    struct world *world = *state;
    uint32_t held_count = 0, sent = 0;
    begin(world);
    world->message_bytes = 900;
    world_wait(world, 0, 1);
    uint32_t path = world_path(world, 0);
    for (uint32_t step = 0; step < 8000; step++) {
        uint32_t what = random_below(20), mask = seed;
        if (world->delivery_count < 27 && what == 0) { /* six more at most, and in_mask knows 32 */
            world_wait(world, 0, 1 + random_below(6));
        } else if (what == 1) {
            uint32_t capacity = random_below(6);
            world->limits.max_recipients_per_batch = random_below(7);
            world_show(world, 0, path, capacity, capacity);
        } else if (what == 2 && step % 3 == 0) {
            dispatch_withdraw(world->dispatch, in_mask, &mask);
        } else if (what < 6 && held_count < 64) {
            world_pop(world, 0);
            struct chain_held *chain = &held[held_count];
            chain->count = chain->answered = 0;
            if (world_walk_begin(world, 0, &chain->walk, &chain->orders[0])) {
                chain->count = 1;
                held_count++;
            }
        } else if (what < 13 && held_count > 0) {
            struct chain_held *chain = &held[random_below(held_count)];
            if (world_walk_on(world, &chain->walk, &chain->orders[chain->count]))
                chain->count++;
        } else if (what < 18 && held_count > 0) {
            uint32_t which = random_below(held_count);
            struct chain_held *chain = &held[which];
            if (chain->walk.slot != SLOT_NONE && random_below(30) != 0)
                continue; /* a worker answers when it has claimed them all, or, rarely, none but the first */
            if (chain->walk.slot != SLOT_NONE && chain->count > 1)
                continue;
            bool last = chain->answered + 1 == chain->count;
            const struct world_order *order = &chain->orders[last ? 0 : chain->answered + 1];
            chain->answered++;
            bool back = random_below(8) == 0;
            answer(world, order, back ? OUTCOME_RETURNED : OUTCOME_REPLIED, back ? 0 : 250);
            sent += !back;
            if (last)
                *chain = held[--held_count];
        } else if (what == 18) {
            commit_all(world);
        }
        world_settle(world);
        if (dispatch_in_progress(world->dispatch) == 0)
            assert_int_equal(world_slots_in(world, SLOT_WITHDRAWN), 0);
        if (world->delivery_count >= 27 && world->lanes[0].lane.waiting == 0 && held_count == 0 &&
            dispatch_in_progress(world->dispatch) == 0) {
            nothing_is_left(world);
            for (uint32_t i = 0; i < world->delivery_count; i++)
                assert_int_equal(world->fates[i].ended, 1);
            world->delivery_count = 0;
            memset(world->fates, 0, sizeof(world->fates));
        }
    }
    assert_true(sent > 500);
    assert_int_equal(dispatch_counters(world->dispatch)->wild_values, 0);
    assert_true(dispatch_counters(world->dispatch)->withdrawn > 100);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, world_set_up, world_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(recipients_share_one_order),
        TEST(the_limit_bounds_it),
        TEST(one_domain_a_transaction_unless_the_site_is_asked_for),
        TEST(a_message_of_its_own_goes_alone),
        TEST(each_has_an_outcome_of_its_own),
        TEST(what_cannot_be_rendered_ends_for_all),
        TEST(members_are_withdrawn_by_themselves),
        TEST(those_that_are_stopped_stay_behind),
        TEST(a_chain_is_as_long_as_there_are_slots),
        TEST(a_chain_waits_for_the_whole_commit),
        TEST(one_leaves_the_backlog),
        TEST(with_the_first_the_unclaimed_come_back),
        TEST(the_bytes_stay_until_the_last_outcome),
        TEST(outcomes_count_once_and_of_the_claimed),
        TEST(drain_takes_back_whole_chains),
        TEST(whatever_happens_in_whatever_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
