/* orders.c: from credit to a queued slot: take from shape, render and sign in the press, write arena and slot. */
#include "control/dispatch/state.h"

#include "control/observe/log.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    PUMP_BUDGET = 64,             /* deliveries a path takes before the next one's turn */
    READY_CAPACITY_MAX = 1 << 20, /* a wild value from a broken dataplane */
    PRESS_ORDERS_MAX = 4096,      /* under way in the press and behind it */
    PRESS_BYTES_MAX = 256 << 20,  /* of messages, as large as late ones */
    MESSAGE_KEPT_BYTES = 1 << 16, /* a free order keeps its message's memory up to this */
    PRESS_RETRY_US = 10000,       /* the press is full of other shards' tasks, or memory is short */
};

int orders_create(struct dispatch *dispatch) {
    dispatch->flights = calloc(dispatch->slot_count, sizeof(struct flight));
    dispatch->free_slots = calloc(dispatch->slot_count, sizeof(uint32_t));
    return dispatch->flights == NULL || dispatch->free_slots == NULL ? -ENOMEM : 0;
}

static void free_list(struct press_order *order) {
    while (order != NULL) {
        struct press_order *next = order->next;
        message_free(&order->task.message);
        free(order);
        order = next;
    }
}

void orders_destroy(struct dispatch *dispatch) {
    free_list(dispatch->free_orders);
    free_list(dispatch->backlog_first);
    free(dispatch->flights);
    free(dispatch->free_slots);
}

void orders_uncount(struct dispatch *dispatch, uint32_t index, uint32_t generation, uint16_t worker) {
    struct lane_path *path = paths_same(dispatch, index, generation);
    if (path == NULL || worker >= dispatch->workers || path->outstanding[worker] == 0)
        return;
    path->outstanding[worker]--;
    if (path->state == LANE_PATH_LIVE)
        paths_attention(dispatch, path);
}

static struct press_order *order_new(struct dispatch *dispatch) {
    struct press_order *order = dispatch->free_orders;
    if (order != NULL) {
        dispatch->free_orders = order->next;
        return order;
    }
    order = calloc(1, sizeof(*order));
    if (order != NULL)
        message_init(&order->task.message);
    return order;
}

static void order_free(struct dispatch *dispatch, struct press_order *order) {
    order->delivery = NULL;
    if (order->task.message.capacity > MESSAGE_KEPT_BYTES)
        message_free(&order->task.message);
    order->next = dispatch->free_orders;
    dispatch->free_orders = order;
}

static bool press_delivery(struct dispatch *dispatch, struct lane_path *path, uint32_t worker, struct delivery *delivery) {
    struct press_order *order = order_new(dispatch);
    if (order == NULL)
        return false;
    struct job *job = delivery->job;
    if (job->history.date_s == 0)
        job->history.date_s = clock_us(CLOCK_REALTIME) / 1000000; /* fixed at the first render, kept with every retry */
    order->delivery = delivery;
    order->lane = path->lane;
    order->path = paths_index(dispatch, path);
    order->path_generation = path->generation;
    order->worker = (uint16_t)worker;
    order->task.job = job;
    order->task.index = delivery->index;
    order->task.date_s = job->history.date_s;
    order->task.user = order;
    if (!press_submit(dispatch->config.press, dispatch->shard, &order->task)) {
        order_free(dispatch, order);
        return false;
    }
    path->outstanding[worker]++;
    dispatch->in_press++;
    return true;
}

/* As many orders, or bytes, as may be under way before their slots. */
static bool press_is_full(const struct dispatch *dispatch) {
    uint64_t orders = dispatch->in_press + dispatch->backlogged;
    return orders >= PRESS_ORDERS_MAX ||
           (orders > 0 && dispatch->backlog_bytes + dispatch->in_press * dispatch->message_bytes >= PRESS_BYTES_MAX);
}

static void arm_wake(struct lane_path *path, uint64_t now_us, uint64_t wake_us) {
    if (wake_us == UINT64_MAX)
        return;
    uint64_t wait_us = wake_us > now_us ? wake_us - now_us : 1;
    struct timeval wait = {.tv_sec = (time_t)(wait_us / 1000000), .tv_usec = (suseconds_t)(wait_us % 1000000)};
    evtimer_add(path->wake, &wait);
}

void orders_pump(struct dispatch *dispatch, struct lane_path *path) {
    if (!dispatch->up || !dispatch->harvested || dispatch->draining || dispatch->held || path->state != LANE_PATH_LIVE)
        return;
    uint64_t now_us = clock_us(CLOCK_MONOTONIC);
    uint32_t budget = PUMP_BUDGET;
    struct lane *lane = path->lane;
    if (now_us < dispatch->press_retry_us) {
        arm_wake(path, now_us, dispatch->press_retry_us);
        return;
    }
    for (uint32_t worker = 0; worker < dispatch->workers; worker++) {
        const struct path_worker_cell *cell = &journal_cell(dispatch->journal, paths_index(dispatch, path), worker)->worker;
        uint32_t capacity = atomic_load_explicit(&cell->ready_capacity, memory_order_acquire);
        if (capacity > READY_CAPACITY_MAX) {
            dispatch->counters.wild_values++;
            continue;
        }
        if (lane->rate_binds) { /* no prefetch: what waits at a worker has taken its token and cannot go elsewhere */
            uint32_t ready = atomic_load_explicit(&cell->sessions_ready, memory_order_relaxed);
            capacity = ready < capacity ? ready : capacity;
        }
        /* Credit = what the ready sessions can hold, less what they have or will get. */
        while (path->outstanding[worker] < capacity) {
            if (press_is_full(dispatch)) {
                dispatch->press_full = true; /* when some have left, every lane gets its turn again */
                return;
            }
            if (budget-- == 0) {
                paths_attention(dispatch, path);
                return;
            }
            uint64_t wake_us = UINT64_MAX;
            struct delivery *delivery = shape_take(dispatch->config.shape, lane, now_us, &wake_us);
            /* shape may have called back, and the path been retired for the site's new one. */
            bool same = path->state == LANE_PATH_LIVE && path->lane == lane;
            if (delivery == NULL) {
                if (same)
                    arm_wake(path, now_us, wake_us);
                return;
            }
            if (!same || !press_delivery(dispatch, path, worker, delivery)) {
                if (same)
                    dispatch->press_retry_us = now_us + PRESS_RETRY_US;
                shape_give_back(dispatch->config.shape, delivery, now_us);
                if (same)
                    paths_attention(dispatch, path);
                return;
            }
        }
    }
}

void dispatch_cookie(const struct dispatch *dispatch, const struct delivery *delivery, struct settle_cookie *cookie) {
    const struct job *job = delivery->job;
    memset(cookie, 0, sizeof(*cookie));
    cookie->shard = (uint16_t)job->shard;
    cookie->attempt = delivery->attempt;
    cookie->index = delivery->index;
    cookie->total = job->recipient_total;
    cookie->entry_pending = job->entry_recipients;
    cookie->entry = job->entry;
    cookie->origin = job->history.origin;
    cookie->first_queued_ms = job->history.first_queued_ms;
    cookie->date_s = job->history.date_s;
    cookie->uncertain_before = delivery->uncertain;
    cookie->is_retry = strncmp(job->stream, "retry:", 6) == 0;
    memcpy(cookie->queue, job->queue, sizeof(cookie->queue));
    if (job->tenant != NULL)
        snprintf(cookie->tenant, sizeof(cookie->tenant), "%s", job->tenant);
}

/* In the words of a reply (RFC 3463): what is this machine's trouble passes, and says nothing of the message. */
static void reply_of_status(int status, struct outcome *outcome) {
    static const uint16_t passing[3] = {4, 3, 0}, too_large[3] = {5, 3, 4}, wrong[3] = {5, 6, 0};
    bool passes = status == -ENOMEM || status == -EIO;
    outcome->code = passes ? 451 : status == -E2BIG ? 552 : 554;
    memcpy(outcome->enhanced, passes ? passing : status == -E2BIG ? too_large : wrong, sizeof(outcome->enhanced));
}

/* A message that cannot be rendered or signed is its recipient's end, without a slot. */
static void end_unrendered(struct dispatch *dispatch, struct press_order *order) {
    struct dispatch_end end = {.delivery = order->delivery, .lane = order->lane, .slot = SLOT_NONE};
    dispatch_cookie(dispatch, order->delivery, &end.cookie);
    end.outcome.kind = OUTCOME_LOCAL;
    end.outcome.stage = STAGE_CONNECT;
    reply_of_status(order->task.status, &end.outcome);
    snprintf(end.outcome.text, sizeof(end.outcome.text), "%s", order->task.error);
    end.outcome.finished_us = clock_us(CLOCK_REALTIME);
    dispatch->counters.render_errors++;
    orders_uncount(dispatch, order->path, order->path_generation, order->worker);
    dispatch->config.ended(dispatch->config.context, &end);
}

/* The table of pieces, then the message. In physical-address mode no piece crosses a page of the arena's memory. */
static uint32_t write_pieces(const struct dispatch *dispatch, uint64_t offset, const struct message *message, uint32_t table_bytes) {
    struct arena_piece *table = (struct arena_piece *)(dispatch->arena + offset);
    uint64_t at = offset + table_bytes;
    memcpy(dispatch->arena + at, message->bytes + message->start, message->length);
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

/* Would it fit an empty arena? */
static bool fits_arena(const struct dispatch *dispatch, const struct press_order *order) {
    const struct message *message = &order->task.message;
    return message->length < UINT32_MAX / 2 &&
           message->length + table_bytes_of(dispatch, message) <= (uint64_t)dispatch->map.units * ARENA_UNIT_BYTES;
}

static bool place(struct dispatch *dispatch, struct press_order *order) {
    struct message *message = &order->task.message;
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
    uint32_t index = dispatch->free_slots[--dispatch->free_slot_count];
    struct slot *slot = &dispatch->journal->slots[index];
    struct flight *flight = &dispatch->flights[index - dispatch->first_slot];
    *flight = (struct flight){.delivery = order->delivery,
                              .lane = order->lane,
                              .path = order->path,
                              .path_generation = order->path_generation,
                              .worker = order->worker,
                              .used = true,
                              .extent = extent,
                              .extent_bytes = extent_bytes};
    uint32_t generation = slot_word_generation(atomic_load_explicit(&slot->word, memory_order_relaxed));
    flight->generation = generation;
    slot->next = SLOT_NONE;
    slot->next_generation = 0;
    slot->path = order->path;
    slot->path_generation = order->path_generation;
    slot->dataplane_generation = dispatch->dataplane_generation;
    slot->worker = order->worker;
    slot->flags = (uint8_t)((message->body_8bit ? SLOT_BODY_8BIT : 0) | (message->needs_smtputf8 ? SLOT_SMTPUTF8 : 0) |
                            (message->has_leading_dots ? SLOT_HAS_LEADING_DOTS : 0) | (order->delivery->high ? SLOT_HIGH : 0) |
                            asked_flags(order->delivery->job));
    slot->piece_count = write_pieces(dispatch, extent, message, table_bytes);
    slot->size_bytes = (uint32_t)message->length;
    slot->pieces = extent;
    slot->not_before_us = 0;
    memset(&slot->reply, 0, sizeof(slot->reply));
    struct settle_cookie cookie;
    dispatch_cookie(dispatch, order->delivery, &cookie);
    memcpy(slot->cookie, &cookie, sizeof(cookie));
    slot->arena_extent = extent;
    slot->arena_extent_bytes = extent_bytes;
    slot->sender_length = (uint16_t)strnlen(message->sender, SLOT_ADDRESS_MAX);
    slot->recipient_length = (uint16_t)strnlen(message->recipient, SLOT_ADDRESS_MAX);
    memcpy(slot->text, message->sender, slot->sender_length);
    memcpy(slot->text + slot->sender_length, message->recipient, slot->recipient_length);
    slot->dsn = asked_dsn(order->delivery->job);
    slot->envid_length = asked_envid(order->delivery->job, slot->text + slot->sender_length + slot->recipient_length);
    slot->dispatched_us = clock_us(CLOCK_REALTIME);
    slot_queue(slot);
    dispatch->queued++;
    dispatch->counters.orders++;
    if (ring_push(dispatch->journal, journal_order_ring(dispatch->journal, order->worker, dispatch->shard),
                  ring_entry(RING_ORDER, index, generation))) {
        dispatch->ring_wanted |= 1ull << order->worker;
        return true;
    }
    /* Only a broken peer fills the ring: the order is taken back. */
    dispatch->counters.wild_values++;
    if (slot_withdraw(slot, generation)) {
        dispatch->queued--;
        shape_give_back(dispatch->config.shape, order->delivery, clock_us(CLOCK_MONOTONIC));
        orders_uncount(dispatch, order->path, order->path_generation, order->worker);
        outcomes_release(dispatch, index);
    }
    return true;
}

/* Does a finished order still have where to go? */
static bool deliverable(struct dispatch *dispatch, const struct press_order *order) {
    struct lane_path *path = paths_same(dispatch, order->path, order->path_generation);
    bool stopped = dispatch->config.stopped != NULL && dispatch->config.stopped(dispatch->config.context, order->delivery);
    return dispatch->up && !dispatch->draining && !stopped && path != NULL && path->state == LANE_PATH_LIVE;
}

static void give_back(struct dispatch *dispatch, struct press_order *order) {
    orders_uncount(dispatch, order->path, order->path_generation, order->worker);
    dispatch->counters.returned++;
    shape_give_back(dispatch->config.shape, order->delivery, clock_us(CLOCK_MONOTONIC));
    order_free(dispatch, order);
}

static void append_backlog(struct dispatch *dispatch, struct press_order *order) {
    order->next = NULL;
    if (dispatch->backlog_last != NULL)
        dispatch->backlog_last->next = order;
    else
        dispatch->backlog_first = order;
    dispatch->backlog_last = order;
    dispatch->backlogged++;
    dispatch->backlog_bytes += order->task.message.length;
}

/* The press was full and is so no longer: the lanes that were turned away get their turn. */
static void press_relieved(struct dispatch *dispatch) {
    if (!dispatch->press_full || press_is_full(dispatch))
        return;
    dispatch->press_full = false;
    for (uint32_t i = 0; i < dispatch->path_count; i++)
        if (dispatch->paths[i].state == LANE_PATH_LIVE && dispatch->paths[i].lane->waiting > 0)
            paths_attention(dispatch, &dispatch->paths[i]);
}

void orders_backlog(struct dispatch *dispatch) {
    while (dispatch->backlog_first != NULL) {
        struct press_order *order = dispatch->backlog_first;
        bool alive = deliverable(dispatch, order), fits = alive && fits_arena(dispatch, order);
        if (fits && !place(dispatch, order))
            break;
        dispatch->backlog_first = order->next;
        if (dispatch->backlog_first == NULL)
            dispatch->backlog_last = NULL;
        dispatch->backlogged--;
        dispatch->backlog_bytes -= order->task.message.length;
        if (alive && !fits) { /* it would wait for good, and all others behind it */
            order->task.status = -E2BIG;
            snprintf(order->task.error, sizeof(order->task.error), "%zu bytes are more than dataplane.arena holds",
                     order->task.message.length);
            end_unrendered(dispatch, order);
        }
        if (alive)
            order_free(dispatch, order);
        else
            give_back(dispatch, order);
    }
    press_relieved(dispatch);
    orders_ring(dispatch);
}

void orders_collect(struct dispatch *dispatch) {
    struct press_task *task = press_collect(dispatch->config.press, dispatch->shard);
    while (task != NULL) {
        struct press_order *order = task->user;
        task = task->next;
        dispatch->in_press--;
        if (order->task.status != 0) {
            end_unrendered(dispatch, order);
            order_free(dispatch, order);
            continue;
        }
        if (order->task.signatures == 0)
            dispatch->counters.unsigned_messages++;
        else
            dispatch->counters.signatures += (uint64_t)order->task.signatures;
        uint64_t length = order->task.message.length, late = dispatch->message_bytes;
        dispatch->message_bytes = length > late ? length : late - (late - length) / 16;
        append_backlog(dispatch, order);
    }
    orders_backlog(dispatch);
}

void orders_give_back_all(struct dispatch *dispatch) {
    struct press_order *order = dispatch->backlog_first;
    dispatch->backlog_first = dispatch->backlog_last = NULL;
    dispatch->backlogged = 0;
    dispatch->backlog_bytes = 0;
    while (order != NULL) {
        struct press_order *next = order->next;
        give_back(dispatch, order);
        order = next;
    }
}

uint32_t orders_withdraw(struct dispatch *dispatch, bool (*match)(void *context, const struct delivery *delivery), void *context) {
    struct press_order *order = dispatch->backlog_first;
    uint32_t count = 0;
    dispatch->backlog_first = dispatch->backlog_last = NULL;
    dispatch->backlogged = 0;
    dispatch->backlog_bytes = 0;
    while (order != NULL) {
        struct press_order *next = order->next;
        if (match == NULL || match(context, order->delivery)) {
            give_back(dispatch, order);
            count++;
        } else {
            append_backlog(dispatch, order);
        }
        order = next;
    }
    return count;
}

/* Wakes the workers that have new entries and sleep. */
void orders_ring(struct dispatch *dispatch) {
    for (uint32_t worker = 0; dispatch->ring_wanted != 0 && worker < dispatch->workers; worker++) {
        if ((dispatch->ring_wanted >> worker & 1) == 0 || !doorbell_take(journal_worker_waiting(dispatch->journal, worker)))
            continue;
        uint64_t one = 1;
        ssize_t written = write(dispatch->worker_doorbells[worker], &one, sizeof(one));
        (void)written;
    }
    dispatch->ring_wanted = 0;
}
