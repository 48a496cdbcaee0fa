/* slots.c: a rendered message into the arena, and those that it is for into slots. */
#include "control/dispatch/state.h"

#include <assert.h>
#include <string.h>

enum {
    /* A shorter run of shared bytes is copied beside its neighbours. A copied byte costs 0.6 cycles here (bench/micro/place_messages; the
     * source is another thread's work) and a cold one more there; a run that is referred to costs two pieces, its own and that of the line
     * behind it: 150 cycles here and 300 to 450 for the worker's ranges and segments (bench/messages --runs). They meet at about 700 bytes.
     */
    REFERENCE_SHIFT = 10,
    REFERENCE_BYTES_MIN = 1 << REFERENCE_SHIFT,
    /* So many runs make 95 pieces: a body of 64 KiB goes whole in the first chunk, which takes 96 (dataplane/smtp/transaction.h). */
    REFERENCES_MAX = 47,
    OWN_BYTES_PART = 4, /* with more than this part of the arena of its own a message refers to nothing (residents.h) */
};

/* How a message lies in the arena: what is its own, small runs of shared bytes among them, in its extent behind the table of pieces; the
 * other runs where their content lies. */
struct layout {
    size_t reference_min; /* runs of shared bytes from this length on; SIZE_MAX: none */
    uint32_t spare;       /* and so many of those that have half of it */
    uint32_t references;
    size_t own_bytes;
    uint32_t table_bytes;
};

/* A run of a body: pieces that continue one another. */
struct run {
    bool shared;
    uint32_t offset;
    size_t length;
};

/* The next run from piece `at` on, which moves on. False: the end. */
static bool run_next(const struct message *message, uint32_t *at, struct run *run) {
    while (*at < message->piece_count && message->pieces[*at].length == 0)
        ++*at;
    if (*at == message->piece_count)
        return false;
    const struct message_piece *piece = &message->pieces[(*at)++];
    *run = (struct run){.shared = piece->shared, .offset = piece->offset, .length = piece->length};
    for (; *at < message->piece_count; ++*at, run->length += piece->length) {
        piece = &message->pieces[*at];
        if (piece->length != 0 && (piece->shared != run->shared || piece->offset != run->offset + run->length))
            break;
    }
    return true;
}

/* At a page's end a piece ends in physical-address mode, where each run may begin anywhere in its page. */
static uint32_t table_bytes_of(const struct dispatch *dispatch, size_t length, uint32_t references) {
    uint64_t entries = 2 * references + 1;
    if (dispatch->pieces_in_page)
        entries += entries + length / dispatch->page_bytes;
    return (uint32_t)(entries * sizeof(struct arena_piece));
}

static struct layout layout_copied(const struct dispatch *dispatch, const struct message *message) {
    return (struct layout){
        .reference_min = SIZE_MAX, .own_bytes = message->length, .table_bytes = table_bytes_of(dispatch, message->length, 0)};
}

static bool is_referred(const struct layout *layout, const struct run *run, uint32_t *spare) {
    if (!run->shared || run->length < layout->reference_min / 2)
        return false;
    if (run->length >= layout->reference_min)
        return true;
    bool fits = *spare > 0;
    *spare -= fits;
    return fits;
}

/* Refers to the longest runs, as far as REFERENCES_MAX goes. */
static struct layout layout_of(const struct dispatch *dispatch, const struct message *message) {
    struct layout layout = layout_copied(dispatch, message);
    enum { SCALES = 64 - REFERENCE_SHIFT };
    uint32_t counts[SCALES] = {0};
    struct run run;
    if (message->shared == NULL)
        return layout;
    for (uint32_t at = 0; run_next(message, &at, &run);)
        if (run.shared && run.length >= REFERENCE_BYTES_MIN)
            counts[63 - (uint32_t)__builtin_clzll(run.length) - REFERENCE_SHIFT]++;
    for (uint32_t scale = SCALES, left = REFERENCES_MAX; scale-- > 0 && left > 0;) {
        bool all = counts[scale] <= left;
        uint32_t taken = all ? counts[scale] : left;
        if (taken == 0)
            continue;
        layout.reference_min = (size_t)REFERENCE_BYTES_MIN << (all ? scale : scale + 1);
        layout.spare = all ? 0 : taken;
        layout.references += taken;
        left -= taken;
    }
    uint32_t spare = layout.spare;
    for (uint32_t at = 0; layout.references > 0 && run_next(message, &at, &run);)
        layout.own_bytes -= is_referred(&layout, &run, &spare) ? run.length : 0;
    layout.table_bytes = table_bytes_of(dispatch, message->length, layout.references);
    if (layout.own_bytes + layout.table_bytes > (uint64_t)dispatch->map.units / OWN_BYTES_PART * ARENA_UNIT_BYTES)
        return layout_copied(dispatch, message);
    return layout;
}

/* The table being written. */
struct table {
    const struct dispatch *dispatch;
    struct arena_piece *pieces;
    uint32_t count;
};

/* In physical-address mode no piece crosses a page of the arena's memory. */
static void table_add(struct table *table, uint64_t at, size_t left) {
    const struct dispatch *dispatch = table->dispatch;
    while (left > 0) {
        size_t length = left;
        if (dispatch->pieces_in_page) {
            uint64_t room = dispatch->page_bytes - (dispatch->arena_offset + at) % dispatch->page_bytes;
            length = left < room ? left : (size_t)room;
        }
        table->pieces[table->count++] = (struct arena_piece){.offset = at, .length = (uint32_t)length};
        at += length;
        left -= length;
    }
}

/* The table of pieces, and behind it what is copied. How many pieces. */
static uint32_t write_pieces(const struct dispatch *dispatch, uint64_t extent, const struct message *message, const struct layout *layout,
                             const struct resident *resident) {
    struct table table = {.dispatch = dispatch, .pieces = (struct arena_piece *)(dispatch->arena + extent)};
    const uint8_t *header = message->bytes + message->start, *own = header + message->header_length;
    size_t length = message->piece_count == 0 ? message->length : message->header_length;
    uint64_t from = extent + layout->table_bytes, to = from + length; /* copied and not in the table yet */
    memcpy(dispatch->arena + from, header, length);
    struct run run;
    uint32_t spare = layout->spare;
    for (uint32_t at = 0; run_next(message, &at, &run);) {
        assert(!run.shared || run.offset + run.length <= message->shared->length); /* what lies behind is somebody else's mail */
        if (is_referred(layout, &run, &spare)) {
            table_add(&table, from, to - from);
            table_add(&table, resident->extent + run.offset, run.length);
            from = to;
        } else {
            memcpy(dispatch->arena + to, (run.shared ? message->shared->bytes : own) + run.offset, run.length);
            to += run.length;
        }
    }
    table_add(&table, from, to - from);
    assert(to - extent == layout->table_bytes + layout->own_bytes && table.count * sizeof(struct arena_piece) <= layout->table_bytes);
    return table.count;
}

/* With the bytes that it shares copied where they may not lie in the arena. */
static struct layout layout_to_be(const struct dispatch *dispatch, const struct message *message) {
    struct layout layout = layout_of(dispatch, message);
    return layout.references > 0 && !residents_may(&dispatch->map, message->shared) ? layout_copied(dispatch, message) : layout;
}

bool slots_huge(const struct dispatch *dispatch, const struct message *message) {
    uint64_t most = arena_huge_bytes(&dispatch->map) - ARENA_UNIT_BYTES; /* of one that is not: what more takes is as many units as huge */
    if (message->length + layout_copied(dispatch, message).table_bytes <= most &&
        (message->shared == NULL || message->shared->length <= most))
        return false;
    struct layout layout = layout_to_be(dispatch, message);
    return layout.own_bytes + layout.table_bytes > most ||
           (layout.references > 0 && arena_is_huge(&dispatch->map, message->shared->length));
}

bool slots_fit(const struct dispatch *dispatch, const struct press_order *order) {
    const struct message *message = &order->task.message;
    return message->length < UINT32_MAX / 2 &&
           message->length + layout_copied(dispatch, message).table_bytes <= (uint64_t)dispatch->map.units * ARENA_UNIT_BYTES;
}

/* What all slots of a message say alike, and where it lies. */
struct placement {
    const struct press_order *order;
    uint64_t extent;
    uint32_t extent_bytes;
    struct resident *resident; /* or NULL */
    uint32_t piece_count;
    uint64_t now_us; /* CLOCK_REALTIME */
};

/* Everything of a slot but its word. The first carries what belongs to the message: ENVID, and its bytes. */
static void fill_slot(struct dispatch *dispatch, uint32_t index, const struct placement *placement) {
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
    slot->arena_extent_bytes = first ? placement->extent_bytes : 0;
    slot->shared_extent = placement->resident != NULL ? placement->resident->extent : 0;
    slot->shared_extent_bytes = first && placement->resident != NULL ? placement->resident->bytes : 0;
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
static void queue_chain(struct dispatch *dispatch, struct press_order *order, const struct placement *placement) {
    struct chain *chain = chain_begin(dispatch, placement->extent, placement->extent_bytes, placement->resident);
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
        fill_slot(dispatch, slots[i], placement);
        slot->next = next;
        slot->next_generation = next_generation;
        slot_queue(slot);
        next = slots[i];
        next_generation = dispatch->flights[next - dispatch->first_slot].generation;
    }
    orders_leave(dispatch, order, count);
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

/* Finds room for the message, its own extent and that of the bytes which it shares; *room_bytes is what it takes. */
static enum placing take_room(struct dispatch *dispatch, const struct message *message, bool high, struct layout *layout,
                              struct placement *placement, uint64_t *room_bytes) {
    struct residents *residents = &dispatch->residents;
    struct arena_map *map = &dispatch->map;
    uint32_t missing = 0; /* bytes of a resident that is to be made */
    *layout = layout_to_be(dispatch, message);
    if (layout->references > 0) {
        placement->resident = residents_find(residents, map, message->shared);
        missing = placement->resident == NULL ? message->shared->length : 0;
    }
    placement->extent_bytes = layout->table_bytes + (uint32_t)layout->own_bytes;
    uint32_t needs[] = {placement->extent_bytes, missing};
    uint64_t huge_bytes = 0;
    *room_bytes = 0;
    for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++) {
        uint64_t taken = arena_units(needs[i]) * (uint64_t)ARENA_UNIT_BYTES;
        *room_bytes += taken;
        huge_bytes += arena_is_huge(map, needs[i]) ? taken : 0;
    }
    if (huge_bytes > 0 && !residents_make_huge_room(residents, map, huge_bytes)) {
        residents_release(residents, map, placement->resident);
        return WAITS_FOR_HUGE;
    }
    placement->extent = residents_take_run(residents, map, placement->extent_bytes, high);
    if (placement->extent != UINT64_MAX && missing > 0) {
        placement->resident = residents_make(residents, map, dispatch->arena, message->shared, high);
        if (placement->resident == NULL) {
            arena_give_back(map, placement->extent, placement->extent_bytes);
            placement->extent = UINT64_MAX;
        }
    }
    if (placement->extent != UINT64_MAX)
        return PLACED;
    residents_release(residents, map, placement->resident);
    placement->resident = NULL;
    if (missing == 0 || message->length >= missing)
        return WAITS_FOR_ROOM;
    /* There is less of them in the message than all that its content's messages share. */
    *layout = layout_copied(dispatch, message);
    placement->extent_bytes = layout->table_bytes + (uint32_t)layout->own_bytes;
    if (!arena_is_huge(map, placement->extent_bytes))
        placement->extent = residents_take_run(residents, map, placement->extent_bytes, high);
    return placement->extent != UINT64_MAX ? PLACED : WAITS_FOR_ROOM;
}

enum placing slots_place(struct dispatch *dispatch, struct press_order *order, bool high, uint64_t *room_bytes) {
    const struct message *message = &order->task.message;
    struct placement placement = {.order = order, .now_us = clock_us(CLOCK_REALTIME)};
    struct layout layout;
    if (dispatch->free_slot_count == 0) {
        dispatch->counters.slots_exhausted++;
        return WAITS_FOR_SLOTS;
    }
    enum placing placing = take_room(dispatch, message, high, &layout, &placement, room_bytes);
    if (placing != PLACED)
        return placing;
    if (order->delivery_count > dispatch->free_slot_count) {
        dispatch->counters.slots_exhausted++;
        backlog_shorten(dispatch, order, dispatch->free_slot_count);
    }
    placement.piece_count = write_pieces(dispatch, placement.extent, message, &layout, placement.resident);
    dispatch->counters.arena_copied_bytes += layout.own_bytes;
    dispatch->counters.arena_shared_bytes += message->length - layout.own_bytes;
    queue_chain(dispatch, order, &placement);
    return PLACED;
}
