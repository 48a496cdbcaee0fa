/* slots.c: a rendered message into the arena, and those that it is for into slots. */
#include "control/dispatch/state.h"

#include <assert.h>
#include <string.h>

/* The whole message in one run: the header, then the pieces of its body. */
static void copy_message(uint8_t *to, const struct message *message) {
    const uint8_t *from = message->bytes + message->start, *own = from + message->header_length;
    size_t at = message->piece_count == 0 ? message->length : message->header_length;
    memcpy(to, from, at);
    for (uint32_t i = 0; i < message->piece_count; i++) {
        const struct message_piece *piece = &message->pieces[i];
        memcpy(to + at, (piece->shared ? message->shared->bytes : own) + piece->offset, piece->length);
        at += piece->length;
    }
    assert(at == message->length);
}

/* The table of pieces, then the message. In physical-address mode no piece crosses a page of the arena's memory. */
static uint32_t write_pieces(const struct dispatch *dispatch, uint64_t offset, const struct message *message, uint32_t table_bytes) {
    struct arena_piece *table = (struct arena_piece *)(dispatch->arena + offset);
    uint64_t at = offset + table_bytes;
    copy_message(dispatch->arena + at, message);
    uint32_t count = 0;
    for (size_t left = message->length; left > 0; count++) {
        size_t length = left;
        if (dispatch->pieces_in_page) {
            uint64_t room = dispatch->page_bytes - (dispatch->arena_offset + at) % dispatch->page_bytes;
            length = left < room ? left : (size_t)room;
        }
        table[count] = (struct arena_piece){.offset = at, .length = (uint32_t)length};
        at += length;
        left -= length;
    }
    return count;
}

static uint32_t table_entries(const struct dispatch *dispatch, const struct message *message) {
    return dispatch->pieces_in_page ? (uint32_t)(message->length / dispatch->page_bytes + 2) : 1;
}

static uint32_t table_bytes_of(const struct dispatch *dispatch, const struct message *message) {
    return table_entries(dispatch, message) * (uint32_t)sizeof(struct arena_piece);
}

bool slots_fit(const struct dispatch *dispatch, const struct press_order *order) {
    const struct message *message = &order->task.message;
    return message->length < UINT32_MAX / 2 &&
           message->length + table_bytes_of(dispatch, message) <= (uint64_t)dispatch->map.units * ARENA_UNIT_BYTES;
}

/* What all slots of a message say alike, and where it lies. */
struct placement {
    const struct press_order *order;
    uint64_t extent;
    uint32_t piece_count;
    uint64_t now_us; /* CLOCK_REALTIME */
};

/* Everything of a slot but its word. The first carries what belongs to the message: ENVID, and its bytes. */
static void fill_slot(struct dispatch *dispatch, uint32_t index, const struct placement *placement, uint32_t extent_bytes) {
    const struct flight *flight = &dispatch->flights[index - dispatch->first_slot];
    const struct press_order *order = placement->order;
    const struct message *message = &order->task.message;
    const struct job *job = flight->delivery->job;
    struct slot *slot = &dispatch->journal->slots[index];
    bool first = flight->chain->first == index;
    char recipient[sizeof(message->recipient)];
    slot->path = order->path;
    slot->path_generation = order->path_generation;
    slot->dataplane_generation = dispatch->dataplane_generation;
    slot->worker = order->worker;
    slot->flags =
        (uint8_t)((message->body_8bit ? SLOT_BODY_8BIT : 0) | (message->needs_smtputf8 ? SLOT_SMTPUTF8 : 0) |
                  (message->has_leading_dots ? SLOT_HAS_LEADING_DOTS : 0) | (flight->delivery->high ? SLOT_HIGH : 0) | asked_flags(job));
    slot->piece_count = placement->piece_count;
    slot->size_bytes = (uint32_t)message->length;
    slot->pieces = placement->extent;
    slot->not_before_us = 0;
    memset(&slot->reply, 0, sizeof(slot->reply));
    struct settle_cookie cookie;
    dispatch_cookie(dispatch, flight->delivery, &cookie);
    memcpy(slot->cookie, &cookie, sizeof(cookie));
    slot->arena_extent = placement->extent;
    slot->arena_extent_bytes = first ? extent_bytes : 0;
    /* It was rendered for one of them; the others' addresses were found good when they were taken together. No worker takes an empty one.
     */
    if (flight->delivery->index == order->task.index)
        memcpy(recipient, message->recipient, sizeof(recipient));
    else if (render_recipient(job, flight->delivery->index, recipient) != 0)
        recipient[0] = '\0';
    slot->sender_length = (uint16_t)strnlen(message->sender, SLOT_ADDRESS_MAX);
    slot->recipient_length = (uint16_t)strnlen(recipient, SLOT_ADDRESS_MAX);
    memcpy(slot->text, message->sender, slot->sender_length);
    memcpy(slot->text + slot->sender_length, recipient, slot->recipient_length);
    char envid[SLOT_ENVID_MAX];
    slot->dsn = asked_dsn(job);
    slot->envid_length = first ? asked_envid(job, envid) : 0;
    memcpy(slot->text + slot->sender_length + slot->recipient_length, envid, slot->envid_length);
    slot->dispatched_us = placement->now_us;
}

/* A slot for each delivery, as a chain: filled and queued from the last to the first, which alone is told to the worker. The order's
 * deliveries are the slots' from here on. */
static void queue_chain(struct dispatch *dispatch, struct press_order *order, uint64_t extent, uint32_t extent_bytes,
                        uint32_t piece_count) {
    struct placement placement = {.order = order, .extent = extent, .piece_count = piece_count, .now_us = clock_us(CLOCK_REALTIME)};
    struct chain *chain = chain_begin(dispatch, extent, extent_bytes);
    uint32_t slots[CHAIN_RECIPIENTS_MAX], count = 0;
    chain->path = order->path;
    chain->path_generation = order->path_generation;
    chain->worker = order->worker;
    chain->counted = true;
    struct delivery *delivery = order->deliveries, *following;
    assert(delivery != NULL && order->delivery_count <= CHAIN_RECIPIENTS_MAX);
    do {
        uint32_t index = dispatch->free_slots[--dispatch->free_slot_count];
        uint64_t word = atomic_load_explicit(&dispatch->journal->slots[index].word, memory_order_relaxed);
        following = delivery->next;
        delivery->next = NULL;
        dispatch->flights[index - dispatch->first_slot] =
            (struct flight){.delivery = delivery, .lane = order->lane, .generation = slot_word_generation(word), .used = true};
        slots[count++] = index;
    } while ((delivery = following) != NULL);
    chain->first = slots[0];
    uint32_t next = SLOT_NONE, next_generation = 0;
    for (uint32_t i = count; i-- > 0;) {
        struct slot *slot = &dispatch->journal->slots[slots[i]];
        chain_join(dispatch, chain, slots[i]);
        fill_slot(dispatch, slots[i], &placement, extent_bytes);
        slot->next = next;
        slot->next_generation = next_generation;
        slot_queue(slot);
        next = slots[i];
        next_generation = dispatch->flights[next - dispatch->first_slot].generation;
    }
    dispatch->before_slots -= count;
    dispatch->queued += count;
    dispatch->counters.orders += count;
    dispatch->counters.transactions++;
    order->deliveries = NULL;
    order->delivery_count = 0;
    if (ring_push(dispatch->journal, journal_order_ring(dispatch->journal, order->worker, dispatch->shard),
                  ring_entry(RING_ORDER, next, next_generation))) {
        dispatch->ring_wanted |= 1ull << order->worker;
        return;
    }
    /* Only a broken peer fills the ring: the order is taken back. */
    dispatch->counters.wild_values++;
    chain_withdraw(dispatch, next);
}

bool slots_place(struct dispatch *dispatch, struct press_order *order) {
    const struct message *message = &order->task.message;
    uint32_t table_bytes = table_bytes_of(dispatch, message);
    uint32_t extent_bytes = table_bytes + (uint32_t)message->length;
    if (dispatch->free_slot_count == 0) {
        dispatch->counters.slots_exhausted++;
        return false;
    }
    uint64_t extent = arena_take(&dispatch->map, extent_bytes);
    if (extent == UINT64_MAX) {
        dispatch->counters.arena_exhausted++;
        return false;
    }
    if (order->delivery_count > dispatch->free_slot_count) {
        dispatch->counters.slots_exhausted++;
        orders_shorten(dispatch, order, dispatch->free_slot_count);
    }
    queue_chain(dispatch, order, extent, extent_bytes, write_pieces(dispatch, extent, message, table_bytes));
    return true;
}
