/* chains.c: recipients that share a transaction, and one alone as the shortest chain: one order for credit, one piece of arena, an outcome
 * each (include/bypost/README.md, "Chains"). Which slots belong together is known from here, never read from the journal. */
#include "control/dispatch/state.h"

#include <errno.h>
#include <stdlib.h>

int chains_create(struct dispatch *dispatch) {
    dispatch->chains = calloc(dispatch->slot_count, sizeof(struct chain));
    if (dispatch->chains == NULL)
        return -ENOMEM;
    for (uint32_t i = dispatch->slot_count; i-- > 0;) {
        dispatch->chains[i].next = dispatch->free_chains;
        dispatch->free_chains = &dispatch->chains[i];
    }
    return 0;
}

void chains_destroy(struct dispatch *dispatch) {
    free(dispatch->chains);
}

static struct flight *flight_of(const struct dispatch *dispatch, uint32_t slot) {
    return &dispatch->flights[slot - dispatch->first_slot];
}

struct chain *chain_begin(struct dispatch *dispatch, uint64_t extent, uint32_t extent_bytes, struct resident *resident) {
    struct chain *chain = dispatch->free_chains; /* there are as many as slots, and each has a slot */
    dispatch->free_chains = chain->next;
    *chain = (struct chain){.first = SLOT_NONE, .members = SLOT_NONE, .extent = extent, .extent_bytes = extent_bytes, .resident = resident};
    return chain;
}

void chain_join(struct dispatch *dispatch, struct chain *chain, uint32_t slot) {
    struct flight *flight = flight_of(dispatch, slot);
    flight->chain = chain;
    flight->next = chain->members;
    chain->members = slot;
    chain->open++;
}

/* The last outcome is there. */
static void chain_end(struct dispatch *dispatch, struct chain *chain) {
    if (chain->extent_bytes != 0 && chain->inherited && dispatch->residents.doubtful)
        arena_abandon(&dispatch->map, chain->extent, chain->extent_bytes);
    else if (chain->extent_bytes != 0)
        arena_give_back(&dispatch->map, chain->extent, chain->extent_bytes);
    residents_release(&dispatch->residents, &dispatch->map, chain->resident);
    if (chain->counted)
        orders_uncount(dispatch, chain->path, chain->path_generation, chain->worker);
    chain->next = dispatch->free_chains;
    dispatch->free_chains = chain;
}

/* Takes the slot out of its chain, which ends with the last. NULL: it has ended. */
static struct chain *leave(struct dispatch *dispatch, uint32_t slot) {
    struct flight *flight = flight_of(dispatch, slot);
    struct chain *chain = flight->chain;
    uint32_t *at = &chain->members;
    while (*at != slot)
        at = &flight_of(dispatch, *at)->next;
    *at = flight->next;
    flight->next = SLOT_NONE;
    flight->chain = NULL;
    if (flight->withdrawn)
        chain->withdrawn--;
    else if (!flight->answered)
        chain->open--;
    if (chain->first == slot)
        chain->first = SLOT_NONE;
    if (chain->members != SLOT_NONE)
        return chain;
    chain_end(dispatch, chain);
    return NULL;
}

/* Takes a member back that no worker has claimed. Its delivery, or NULL: it is in flight. The slot keeps its link. */
static struct delivery *take_back(struct dispatch *dispatch, uint32_t slot) {
    struct flight *flight = flight_of(dispatch, slot);
    struct delivery *delivery = flight->delivery;
    if (flight->withdrawn || delivery == NULL || !slot_withdraw(&dispatch->journal->slots[slot], flight->generation))
        return NULL;
    flight->delivery = NULL;
    flight->withdrawn = true;
    flight->chain->withdrawn++;
    flight->chain->open--;
    dispatch->queued--;
    dispatch->counters.withdrawn++;
    delivery->next = NULL;
    return delivery;
}

/* Nobody claims the others any more, because the first is not there to claim them by: all that are queued come back. */
static struct delivery **take_rest(struct dispatch *dispatch, const struct chain *chain, struct delivery **last) {
    for (uint32_t slot = chain->members; slot != SLOT_NONE; slot = flight_of(dispatch, slot)->next) {
        *last = take_back(dispatch, slot);
        last = *last != NULL ? &(*last)->next : last;
    }
    return last;
}

/* Withdrawn members stay, for their links, as long as a worker may follow them: until no member is queued. */
static void free_withdrawn(struct dispatch *dispatch, const struct chain *chain) {
    uint32_t withdrawn = chain->withdrawn;
    for (uint32_t slot = chain->members; withdrawn > 0 && slot != SLOT_NONE; slot = flight_of(dispatch, slot)->next)
        if (slot_word_state(slot_load(&dispatch->journal->slots[slot])) == SLOT_QUEUED)
            return;
    for (uint32_t slot = chain->members; withdrawn > 0;) {
        const struct flight *flight = flight_of(dispatch, slot);
        uint32_t next = flight->next;
        if (flight->withdrawn) {
            withdrawn--;
            leave(dispatch, slot); /* with the last member the chain ends */
            outcomes_release(dispatch, slot);
        }
        slot = next;
    }
}

/* Members may have changed: hands the outcomes on when all are there; else lets go of withdrawn members that nobody looks at any more. */
static void look(struct dispatch *dispatch, const struct chain *chain) {
    uint32_t slots[CHAIN_RECIPIENTS_MAX], count = 0;
    if (chain->open > 0) {
        free_withdrawn(dispatch, chain);
        return;
    }
    for (uint32_t slot = chain->members; slot != SLOT_NONE && count < CHAIN_RECIPIENTS_MAX; slot = flight_of(dispatch, slot)->next)
        if (!flight_of(dispatch, slot)->withdrawn)
            slots[count++] = slot;
    free_withdrawn(dispatch, chain);
    for (uint32_t i = 0; i < count; i++) /* with the last member the chain ends */
        outcomes_end(dispatch, slots[i]);
}

static uint32_t give_back_all(struct dispatch *dispatch, struct delivery *delivery) {
    uint32_t count = 0;
    for (struct delivery *next; delivery != NULL; delivery = next, count++) {
        next = delivery->next;
        shape_give_back(dispatch->config.shape, delivery, clock_us(CLOCK_MONOTONIC));
    }
    return count;
}

void chain_leave(struct dispatch *dispatch, uint32_t slot) {
    if (flight_of(dispatch, slot)->chain != NULL)
        leave(dispatch, slot);
}

void chain_answered(struct dispatch *dispatch, uint32_t slot) {
    struct flight *flight = flight_of(dispatch, slot);
    struct chain *chain = flight->chain;
    struct delivery *back = NULL;
    flight->answered = true;
    chain->open--;
    if (chain->first == slot)
        take_rest(dispatch, chain, &back);
    look(dispatch, chain);
    give_back_all(dispatch, back);
}

uint32_t chain_withdraw(struct dispatch *dispatch, uint32_t slot) {
    const struct chain *chain = flight_of(dispatch, slot)->chain;
    struct delivery *back = take_back(dispatch, slot);
    if (back == NULL)
        return 0;
    if (chain->first == slot)
        take_rest(dispatch, chain, &back->next);
    look(dispatch, chain);
    return give_back_all(dispatch, back);
}

void chain_inherit(struct dispatch *dispatch, uint32_t first) {
    struct chain *chain = flight_of(dispatch, first)->chain;
    uint32_t slot = dispatch->journal->slots[first].next;
    for (uint32_t steps = 0; steps < dispatch->slot_count; steps++) {
        if (slot < dispatch->first_slot || slot - dispatch->first_slot >= dispatch->slot_count)
            return; /* the end, or a wild link */
        const struct flight *flight = flight_of(dispatch, slot);
        uint32_t next = dispatch->journal->slots[slot].next;
        if (flight->chain != NULL && flight->chain != chain && flight->inherited && flight->chain->extent_bytes == 0) {
            leave(dispatch, slot); /* it was one by itself */
            chain_join(dispatch, chain, slot);
        }
        slot = next;
    }
}
