/* outcomes.c: what the workers post, and what dead processes left. Everything read from the shared region is copied, checked and then used.
 */
#include "control/dispatch/state.h"

#include "control/observe/log.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { ENTRIES_A_READ = 256, READS_A_CALL = 16 };

void outcomes_release(struct dispatch *dispatch, uint32_t index) {
    struct flight *flight = &dispatch->flights[index - dispatch->first_slot];
    struct slot *slot = &dispatch->journal->slots[index];
    chain_leave(dispatch, index);
    /* The generation counts on from ours, whatever a broken peer left in the word. */
    atomic_store_explicit(&slot->word, slot_word(flight->generation + 1, SLOT_FREE), memory_order_release);
    memset(flight, 0, sizeof(*flight));
    dispatch->free_slots[dispatch->free_slot_count++] = index;
}

void dispatch_committed(struct dispatch *dispatch, uint32_t slot, uint32_t slot_generation) {
    if (slot < dispatch->first_slot || slot - dispatch->first_slot >= dispatch->slot_count)
        return;
    const struct flight *flight = &dispatch->flights[slot - dispatch->first_slot];
    if (!flight->ended || flight->generation != slot_generation)
        return;
    outcomes_release(dispatch, slot);
    backlog_resume(dispatch); /* commits come by hundreds: a chain that waits for slots gets as many as it needs */
}

/* Printable, and UTF-8 safe: bytes of no character become "?". The reply parser has bounded it; this side trusts nothing. */
static void copy_text(char *target, size_t room, const char *source, size_t length) {
    size_t used = 0;
    for (size_t i = 0; i < length && used + 1 < room; i++) {
        unsigned char byte = (unsigned char)source[i];
        target[used++] = byte < 0x20 || byte >= 0x7f ? (byte == '\t' ? ' ' : '?') : (char)byte;
    }
    target[used] = '\0';
}

static void describe_peer(const struct dispatch *dispatch, uint32_t path, uint32_t generation, uint8_t endpoint, uint8_t source,
                          struct outcome *outcome) {
    if (path >= dispatch->journal->geometry.paths)
        return;
    const struct path *record = &dispatch->journal->paths[path];
    if (path_word_generation(atomic_load_explicit(&record->word, memory_order_acquire)) != generation)
        return;
    if (endpoint < record->endpoint_count && endpoint < PATH_ENDPOINTS_MAX) {
        uint32_t name = record->endpoints[endpoint].name;
        if (name < PATH_STRINGS_BYTES)
            copy_text(outcome->peer_name, sizeof(outcome->peer_name), record->strings + name,
                      strnlen(record->strings + name, PATH_STRINGS_BYTES - name));
    }
    if (source < record->source_count && source < PATH_SOURCES_MAX && outcome->peer_family != 0) {
        memcpy(outcome->source_address, record->sources[source].address, sizeof(outcome->source_address));
        outcome->source_family = record->sources[source].family;
    }
}

/* The worker's reply as an outcome. A reply with a wild value counts as a lost session: temporary. */
static void read_reply(struct dispatch *dispatch, const struct flight *flight, const struct slot *slot, struct outcome *outcome,
                       uint32_t *source) {
    struct slot_reply reply = slot->reply;
    uint32_t skip = slot_addresses_length(slot->sender_length, slot->recipient_length, slot->envid_length);
    bool wild = reply.outcome >= OUTCOME_KINDS || reply.stage >= STAGE_KINDS || reply.code > 999 || skip > SLOT_TEXT_BYTES ||
                reply.text_length > SLOT_TEXT_BYTES - skip;
    memset(outcome, 0, offsetof(struct outcome, text));
    outcome->text[0] = outcome->peer_name[0] = '\0';
    if (wild) {
        dispatch->counters.wild_values++;
        outcome->kind = OUTCOME_LOST;
        outcome->stage = STAGE_BODY;
        snprintf(outcome->text, sizeof(outcome->text), "the dataplane left a damaged reply");
    } else {
        outcome->kind = reply.outcome;
        outcome->stage = reply.stage;
        outcome->code = reply.code;
        memcpy(outcome->enhanced, reply.enhanced, sizeof(outcome->enhanced));
        copy_text(outcome->text, sizeof(outcome->text), slot->text + skip, reply.text_length);
    }
    memcpy(outcome->peer_address, reply.peer_address, sizeof(outcome->peer_address));
    outcome->peer_family = reply.peer_family == 4 || reply.peer_family == 6 ? reply.peer_family : 0;
    outcome->source_family = 0;
    outcome->tls_version = reply.tls_version;
    outcome->tls_cipher = reply.tls_cipher;
    outcome->flags = reply.flags;
    outcome->size_bytes = slot->size_bytes;
    outcome->connected_us = reply.connected_us;
    outcome->finished_us = reply.finished_us;
    if (flight->inherited)
        describe_peer(dispatch, slot->path, slot->path_generation, reply.endpoint, reply.source, outcome);
    else
        describe_peer(dispatch, flight->chain->path, flight->chain->path_generation, reply.endpoint, reply.source, outcome);
    *source = reply.source < PATH_SOURCES_MAX ? reply.source : 0;
}

/* Hands one slot's end on. */
static void end_slot(struct dispatch *dispatch, uint32_t index, enum slot_fate fate) {
    struct slot *slot = &dispatch->journal->slots[index];
    struct flight *flight = &dispatch->flights[index - dispatch->first_slot];
    struct dispatch_end end = {.delivery = flight->delivery, .lane = flight->lane, .slot = index, .slot_generation = flight->generation};
    if (flight->delivery != NULL)
        dispatch_cookie(dispatch, flight->delivery, &end.cookie);
    else
        memcpy(&end.cookie, slot->cookie, sizeof(end.cookie));
    end.cookie.queue[QUEUE_NAME_MAX] = end.cookie.tenant[TENANT_NAME_MAX] = '\0';
    if (fate == FATE_SETTLE) {
        read_reply(dispatch, flight, slot, &end.outcome, &end.source);
    } else {
        end.outcome.kind = fate == FATE_UNCERTAIN ? OUTCOME_UNCERTAIN : fate == FATE_LOST ? OUTCOME_LOST : OUTCOME_RETURNED;
        end.outcome.stage = fate == FATE_UNCERTAIN ? STAGE_FINAL : STAGE_BODY;
        end.outcome.size_bytes = slot->size_bytes;
        end.outcome.finished_us = clock_us(CLOCK_REALTIME);
        snprintf(end.outcome.text, sizeof(end.outcome.text), "the dataplane ended during this transaction");
    }
    struct delivery *delivery = flight->delivery;
    end.follows = flight->chain != NULL && flight->chain->first != index;
    flight->delivery = NULL;
    flight->lane = NULL;
    if (delivery != NULL)
        dispatch->queued--;
    if (end.outcome.kind == OUTCOME_RETURNED && delivery != NULL && end.outcome.enhanced[0] != 0) {
        /* Another host may do better, once: a message that ends every connection must not go round without an attempt being counted. */
        end.outcome.kind = delivery->begun ? OUTCOME_LOST : OUTCOME_RETURNED;
        delivery->begun = true;
    }
    if (end.outcome.kind == OUTCOME_RETURNED && delivery != NULL) {
        /* It costs no attempt and needs no commit: back to the front of its lane. */
        dispatch->counters.returned++;
        outcomes_release(dispatch, index);
        shape_give_back(dispatch->config.shape, delivery, clock_us(CLOCK_MONOTONIC));
        return;
    }
    flight->ended = true;
    chain_leave(dispatch, index);
    dispatch->counters.outcomes++;
    dispatch->config.ended(dispatch->config.context, &end);
}

void outcomes_end(struct dispatch *dispatch, uint32_t slot) {
    end_slot(dispatch, slot, FATE_SETTLE);
}

static void take_outcome(struct dispatch *dispatch, uint64_t entry) {
    uint32_t index = ring_entry_index(entry);
    if (index < dispatch->first_slot || index - dispatch->first_slot >= dispatch->slot_count) {
        dispatch->counters.wild_values++;
        return;
    }
    uint64_t word = slot_load(&dispatch->journal->slots[index]);
    const struct flight *flight = &dispatch->flights[index - dispatch->first_slot];
    if (!flight->used || flight->ended || ring_entry_generation(entry) != flight->generation)
        return; /* of an earlier life, or settled by the harvest */
    if (word != slot_word(flight->generation, SLOT_ANSWERED) || flight->withdrawn)
        dispatch->counters.wild_values++;
    else if (flight->inherited) /* which slots were one chain, only the journal says */
        end_slot(dispatch, index, FATE_SETTLE);
    else if (!flight->answered)
        chain_answered(dispatch, index);
}

static void take_event(struct dispatch *dispatch, uint32_t worker, uint64_t entry) {
    struct path_event event;
    if (!path_event_read(dispatch->journal, worker, dispatch->shard, entry, &event)) {
        dispatch->counters.wild_values++;
        return;
    }
    dispatch->counters.path_events++;
    struct lane_path *path = paths_same(dispatch, event.path, event.path_generation);
    if (path == NULL || path->lane == NULL)
        return;
    event.text_length = event.text_length < PATH_EVENT_TEXT_BYTES ? event.text_length : PATH_EVENT_TEXT_BYTES - 1;
    event.text[event.text_length] = '\0';
    event.endpoint = event.endpoint < path->endpoint_count ? path->site_endpoints[event.endpoint] : UINT8_MAX; /* the site's from here on */
    if (dispatch->config.path_event != NULL)
        dispatch->config.path_event(dispatch->config.context, &event, path->lane->site);
    shape_path_event(dispatch->config.shape, path->lane, &event, clock_us(CLOCK_MONOTONIC));
}

static void take(struct dispatch *dispatch, uint32_t worker, uint64_t entry) {
    switch (ring_entry_kind(entry)) {
    case RING_OUTCOME:
        take_outcome(dispatch, entry);
        break;
    case RING_EVENT:
        take_event(dispatch, worker, entry);
        break;
    case RING_CREDIT: {
        struct lane_path *path = paths_credit(dispatch, ring_entry_index(entry), worker);
        if (path != NULL)
            paths_attention(dispatch, path);
        break;
    }
    default:
        dispatch->counters.wild_values++;
        break;
    }
}

static bool rings_wait(const struct dispatch *dispatch) {
    for (uint32_t worker = 0; worker < dispatch->workers; worker++)
        if (ring_waiting(dispatch->journal, journal_outcome_ring(dispatch->journal, worker, dispatch->shard)))
            return true;
    return false;
}

static void drain_rings(struct dispatch *dispatch, uint32_t reads) {
    for (uint32_t read = 0; read < reads && rings_wait(dispatch); read++)
        for (uint32_t worker = 0; worker < dispatch->workers; worker++) {
            uint64_t entries[ENTRIES_A_READ];
            uint32_t count =
                ring_pop(dispatch->journal, journal_outcome_ring(dispatch->journal, worker, dispatch->shard), entries, ENTRIES_A_READ);
            for (uint32_t i = 0; i < count; i++)
                take(dispatch, worker, entries[i]);
        }
}

void outcomes_read(struct dispatch *dispatch) {
    drain_rings(dispatch, READS_A_CALL);
    if (backlog_waits(dispatch)) /* what ended has left its bytes, what was returned its slot too */
        backlog_place(dispatch);
    dispatch_log_wild(dispatch);
    _Atomic uint32_t *waiting = journal_shard_waiting(dispatch->journal, dispatch->shard);
    doorbell_arm(waiting);
    if (rings_wait(dispatch)) /* more came: look again after the loop's other work */
        event_active(dispatch->doorbell_event, EV_READ, 0);
}

/* A slot that an earlier control filled and that a living worker has: its bytes stay reserved. */
static void inherit(struct dispatch *dispatch, uint32_t index) {
    struct flight *flight = &dispatch->flights[index - dispatch->first_slot];
    const struct slot *slot = &dispatch->journal->slots[index];
    uint64_t extent = slot->arena_extent, shared = slot->shared_extent;
    uint32_t bytes = slot->arena_extent_bytes, shared_bytes = slot->shared_extent_bytes;
    if (flight->chain != NULL)
        return;
    if (bytes != 0 && !(dispatch->up && arena_claim(&dispatch->map, extent, bytes))) {
        dispatch->counters.wild_values++;
        dispatch->residents.doubtful = true;
        bytes = 0;
    }
    struct resident *resident = NULL;
    if (shared_bytes != 0 && dispatch->up)
        resident = residents_inherit(&dispatch->residents, &dispatch->map, shared, shared_bytes);
    if (shared_bytes != 0 && resident == NULL) {
        dispatch->counters.wild_values++;
        dispatch->residents.doubtful = true;
    }
    struct chain *chain = chain_begin(dispatch, extent, bytes, resident);
    chain->inherited = true;
    chain_join(dispatch, chain, index);
}

static void harvest_slot(struct dispatch *dispatch, uint32_t index, uint32_t living) {
    struct slot *slot = &dispatch->journal->slots[index];
    struct flight *flight = &dispatch->flights[index - dispatch->first_slot];
    uint64_t word = slot_load(slot);
    bool known = flight->used;
    if (flight->ended || (!known && slot_word_state(word) == SLOT_FREE))
        return;
    if (flight->withdrawn) { /* its delivery is in shape, or in another slot */
        outcomes_release(dispatch, index);
        return;
    }
    bool dead = living == 0 || slot->dataplane_generation != living;
    enum slot_fate fate = slot_fate(word, dead);
    if (fate == FATE_WITHDRAW && !known)
        fate = slot_withdraw(slot, slot_word_generation(word)) ? FATE_GIVE_BACK : slot_fate(slot_load(slot), false);
    if (!known) {
        flight->used = true;
        flight->generation = slot_word_generation(word);
    }
    if (fate == FATE_FREE || slot_word_generation(word) != flight->generation) {
        /* No peer of this version writes that. What was in flight may have arrived; what an earlier control knew is read again. */
        dispatch->counters.wild_values++;
        fate = !dead ? FATE_IN_FLIGHT : known ? FATE_UNCERTAIN : FATE_GIVE_BACK;
    }
    if (!known && fate != FATE_GIVE_BACK)
        inherited_add(dispatch, index);
    switch (fate) {
    case FATE_FREE:
    case FATE_WITHDRAW:
        break;
    case FATE_IN_FLIGHT:
        if (!known)
            inherit(dispatch, index);
        break;
    case FATE_GIVE_BACK:
        dispatch->counters.harvested_returned++;
        if (!known)
            outcomes_release(dispatch, index); /* fetch reads its entry again: it is still pending in Redis */
        else
            end_slot(dispatch, index, fate);
        break;
    case FATE_LOST:
        dispatch->counters.harvested_lost++;
        end_slot(dispatch, index, fate);
        break;
    case FATE_UNCERTAIN:
        dispatch->counters.harvested_uncertain++;
        end_slot(dispatch, index, fate);
        break;
    case FATE_SETTLE:
        dispatch->counters.harvested_settled++;
        end_slot(dispatch, index, fate);
        break;
    }
}

void outcomes_harvest(struct dispatch *dispatch, uint32_t living) {
    if (dispatch->harvested) {
        /* The outcomes that were posted before the end come first, through their rings. */
        drain_rings(dispatch, UINT16_MAX);
    } else {
        for (uint32_t worker = 0; worker < dispatch->workers; worker++)
            ring_forget(journal_outcome_ring(dispatch->journal, worker, dispatch->shard));
        dispatch->free_slot_count = 0;
        for (uint32_t i = dispatch->slot_count; i-- > 0;)
            if (slot_word_state(slot_load(&dispatch->journal->slots[dispatch->first_slot + i])) == SLOT_FREE)
                dispatch->free_slots[dispatch->free_slot_count++] = dispatch->first_slot + i;
    }
    for (uint32_t i = 0; i < dispatch->slot_count; i++)
        harvest_slot(dispatch, dispatch->first_slot + i, living);
    for (uint32_t i = 0; i < dispatch->slot_count; i++) {
        const struct flight *flight = &dispatch->flights[i];
        if (flight->inherited && flight->chain != NULL && flight->chain->extent_bytes != 0)
            chain_inherit(dispatch, dispatch->first_slot + i);
    }
}
