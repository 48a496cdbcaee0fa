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
    PRESS_ORDERS_MAX = 4096,      /* deliveries under way in the press and behind it */
    PRESS_BYTES_MAX = 256 << 20,  /* of messages' own, as large as late ones */
    MESSAGE_KEPT_BYTES = 1 << 16, /* a free order keeps its message's memory up to this ... */
    MESSAGE_KEPT_PIECES = 256,    /* ... and so many pieces */
    PRESS_RETRY_US = 10000,       /* the press is full of other shards' tasks, or memory is short */
    CHAIN_SLOTS_PART = 4,         /* no chain needs more than this part of the shard's slots */
};

int orders_create(struct dispatch *dispatch) {
    dispatch->flights = calloc(dispatch->slot_count, sizeof(struct flight));
    dispatch->free_slots = calloc(dispatch->slot_count, sizeof(uint32_t));
    return dispatch->flights == NULL || dispatch->free_slots == NULL ? -ENOMEM : 0;
}

void orders_destroy(struct dispatch *dispatch) {
    for (struct press_order *order = dispatch->free_orders, *next; order != NULL; order = next) {
        next = order->next;
        message_free(&order->task.message);
        free(order);
    }
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

void orders_free(struct dispatch *dispatch, struct press_order *order) {
    order->deliveries = NULL;
    order->delivery_count = 0;
    if (order->task.message.capacity > MESSAGE_KEPT_BYTES || order->task.message.piece_capacity > MESSAGE_KEPT_PIECES)
        message_free(&order->task.message);
    order->next = dispatch->free_orders;
    dispatch->free_orders = order;
}

/* What is taken for a lane's path, and how it is expected to be. */
struct taken {
    struct delivery *deliveries; /* linked */
    uint32_t count;
    bool huge;
    uint64_t bytes; /* of a huge one */
};

/* One message for them. */
static bool press_deliveries(struct dispatch *dispatch, struct lane_path *path, uint32_t worker, const struct taken *taken) {
    struct press_order *order = order_new(dispatch);
    if (order == NULL)
        return false;
    struct job *job = taken->deliveries->job;
    if (job->history.date_s == 0)
        job->history.date_s = clock_us(CLOCK_REALTIME) / 1000000; /* fixed at the first render, kept with every retry */
    order->deliveries = taken->deliveries;
    order->delivery_count = taken->count;
    order->lane = path->lane;
    order->path = paths_index(dispatch, path);
    order->path_generation = path->generation;
    order->worker = (uint16_t)worker;
    order->huge = order->waited = false;
    order->task.job = job;
    order->task.index = taken->deliveries->index;
    order->task.date_s = job->history.date_s;
    order->task.user = order;
    if (!press_add(dispatch->config.press, dispatch->shard, &order->task)) {
        orders_free(dispatch, order);
        return false;
    }
    path->outstanding[worker]++;
    dispatch->before_slots += taken->count;
    if (taken->huge) {
        huge_count(dispatch, order, taken->bytes);
        dispatch->huge.turn_taken |= path == dispatch->huge.turn;
    } else {
        dispatch->in_press++;
    }
    return true;
}

void orders_leave(struct dispatch *dispatch, struct press_order *order, uint32_t deliveries) {
    dispatch->before_slots -= deliveries;
    dispatch->huge.deliveries -= order->huge ? deliveries : 0;
}

/* As many deliveries, or bytes, as may be under way before their slots. Huge ones have a bound of their own. */
static bool press_is_full(const struct dispatch *dispatch) {
    uint64_t orders = dispatch->in_press + dispatch->backlog.count;
    return dispatch->before_slots - dispatch->huge.deliveries >= PRESS_ORDERS_MAX ||
           (orders > 0 && dispatch->backlog.bytes + dispatch->in_press * dispatch->message_bytes >= PRESS_BYTES_MAX);
}

static void arm_wake(struct lane_path *path, uint64_t now_us, uint64_t wake_us) {
    if (wake_us == UINT64_MAX)
        return;
    uint64_t wait_us = wake_us > now_us ? wake_us - now_us : 1;
    struct timeval wait = {.tv_sec = (time_t)(wait_us / 1000000), .tv_usec = (suseconds_t)(wait_us % 1000000)};
    evtimer_add(path->wake, &wait);
}

static bool shares(void *context, const struct delivery *first, const struct delivery *other) {
    const struct shaping_limits *limits = context;
    const struct job *job = first->job;
    if (!render_is_shared(job, first->index, other->index))
        return false;
    return limits->batch_by_site ||
           strcmp(job_recipient(job, first->index)->mailbox.domain, job_recipient(job, other->index)->mailbox.domain) == 0;
}

/* What a server has shown to take is shape's to know. */
static uint32_t recipients_max(const struct dispatch *dispatch, const struct lane_path *path) {
    const uint32_t bounds[] = {path->limits->max_recipients_per_batch > 0 ? path->limits->max_recipients_per_batch : 1,
                               CHAIN_RECIPIENTS_MAX, dispatch->slot_count / CHAIN_SLOTS_PART};
    uint32_t least = UINT32_MAX;
    for (size_t i = 0; i < sizeof(bounds) / sizeof(bounds[0]); i++)
        least = bounds[i] < least ? bounds[i] : least;
    return least;
}

/* Those that may share the transaction of `first`, linked behind it. How many they are together. */
static uint32_t take_others(struct dispatch *dispatch, struct lane_path *path, struct delivery *first, uint64_t now_us) {
    uint32_t maximum = recipients_max(dispatch, path), others = 0;
    first->next = NULL;
    if (maximum > 1 && first->job->entry_recipients > 1 && path->lane->waiting > 0 &&
        render_is_shared(first->job, first->index, first->index))
        first->next = shape_take_like(dispatch->config.shape, path->lane, first, shares, (void *)(uintptr_t)path->limits, maximum - 1,
                                      &others, now_us);
    return 1 + others;
}

static void give_back_list(struct dispatch *dispatch, struct delivery *delivery, uint64_t now_us) {
    for (struct delivery *next; delivery != NULL; delivery = next) {
        next = delivery->next;
        shape_give_back(dispatch->config.shape, delivery, now_us);
    }
}

/* The lane's next delivery for this worker, with those that share its message. Huge ones for which there is no room are set aside on the
 * way. False: there is none now; *wake_us as shape_take has it, and 0 when the path may be another lane's by now. */
static bool take_next(struct dispatch *dispatch, struct lane_path *path, uint32_t capacity, uint32_t *budget, struct taken *taken,
                      uint64_t now_us, uint64_t *wake_us) {
    struct lane *lane = path->lane;
    for (; *budget > 0; --*budget) {
        bool may = lane->aside > 0 && huge_may_take(dispatch, path, capacity);
        struct delivery *delivery = may ? shape_take_aside(dispatch->config.shape, lane, now_us, wake_us) : NULL;
        bool was_aside = delivery != NULL;
        if (lane->aside > 0 && !may)
            huge_wait(dispatch, path, capacity);
        if (delivery == NULL)
            delivery = shape_take(dispatch->config.shape, lane, now_us, wake_us);
        /* shape may have called back, and the path been retired for the site's new one. */
        bool same = path->state == LANE_PATH_LIVE && path->lane == lane;
        *wake_us = same ? *wake_us : 0;
        if (delivery == NULL)
            return false;
        delivery->next = NULL;
        if (!same) {
            shape_give_back(dispatch->config.shape, delivery, now_us);
            return false;
        }
        taken->bytes = huge_expected(dispatch, delivery->job, &taken->huge);
        if (was_aside && !taken->huge) { /* that was found when it was rendered */
            taken->huge = true;
            taken->bytes = dispatch->huge.unforeseen_bytes;
        }
        if (!taken->huge || was_aside || (lane->aside == 0 && huge_may_take(dispatch, path, capacity))) {
            taken->deliveries = delivery;
            taken->count = take_others(dispatch, path, delivery, now_us);
            return true;
        }
        shape_set_aside(dispatch->config.shape, delivery, now_us);
        if (path->state != LANE_PATH_LIVE || path->lane != lane) {
            *wake_us = 0;
            return false;
        }
    }
    paths_attention(dispatch, path);
    *wake_us = UINT64_MAX;
    return false;
}

static void pump(struct dispatch *dispatch, struct lane_path *path) {
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
            uint64_t wake_us = UINT64_MAX;
            struct taken taken;
            if (!take_next(dispatch, path, capacity, &budget, &taken, now_us, &wake_us)) {
                if (wake_us != 0)
                    arm_wake(path, now_us, wake_us);
                return;
            }
            budget--;
            if (!press_deliveries(dispatch, path, worker, &taken)) {
                dispatch->press_retry_us = now_us + PRESS_RETRY_US;
                give_back_list(dispatch, taken.deliveries, now_us);
                paths_attention(dispatch, path);
                return;
            }
        }
    }
}

void orders_pump(struct dispatch *dispatch, struct lane_path *path) {
    pump(dispatch, path);
    huge_next(dispatch, path);
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

void orders_done(struct dispatch *dispatch, struct press_order *order) {
    orders_uncount(dispatch, order->path, order->path_generation, order->worker);
    orders_free(dispatch, order);
}

void orders_end(struct dispatch *dispatch, struct press_order *order) {
    struct delivery *delivery = order->deliveries;
    orders_leave(dispatch, order, order->delivery_count);
    for (struct delivery *next; delivery != NULL; delivery = next) {
        struct dispatch_end end = {.delivery = delivery, .lane = order->lane, .slot = SLOT_NONE};
        next = delivery->next;
        delivery->next = NULL;
        dispatch_cookie(dispatch, delivery, &end.cookie);
        end.outcome.kind = OUTCOME_LOCAL;
        end.outcome.stage = STAGE_CONNECT;
        reply_of_status(order->task.status, &end.outcome);
        snprintf(end.outcome.text, sizeof(end.outcome.text), "%s", order->task.error);
        end.outcome.finished_us = clock_us(CLOCK_REALTIME);
        dispatch->counters.render_errors++;
        dispatch->config.ended(dispatch->config.context, &end);
    }
    orders_done(dispatch, order);
}

void orders_relieved(struct dispatch *dispatch) {
    if (!dispatch->press_full || press_is_full(dispatch))
        return;
    dispatch->press_full = false;
    for (uint32_t i = 0; i < dispatch->path_count; i++)
        if (dispatch->paths[i].state == LANE_PATH_LIVE && dispatch->paths[i].lane->waiting > 0)
            paths_attention(dispatch, &dispatch->paths[i]);
}

/* Nobody knew how large it would be: where there is no room for it now it is rendered again when there is. */
static void set_aside(struct dispatch *dispatch, struct press_order *order) {
    uint64_t now_us = clock_us(CLOCK_MONOTONIC);
    struct delivery *delivery = order->deliveries;
    orders_leave(dispatch, order, order->delivery_count);
    dispatch->counters.returned += order->delivery_count;
    for (struct delivery *next; delivery != NULL; delivery = next) {
        next = delivery->next;
        shape_set_aside(dispatch->config.shape, delivery, now_us);
    }
    orders_done(dispatch, order);
}

static void collect(struct dispatch *dispatch, struct press_order *order) {
    bool expected = order->huge;
    if (expected)
        huge_uncount(dispatch, order);
    else
        dispatch->in_press--;
    if (order->task.status != 0) {
        orders_end(dispatch, order);
        return;
    }
    if (order->task.signatures == 0)
        dispatch->counters.unsigned_messages++;
    else
        dispatch->counters.signatures += (uint64_t)order->task.signatures;
    uint64_t length = order->task.message.own_length, late = dispatch->message_bytes;
    if (!expected)
        dispatch->message_bytes = length > late ? length : late - (late - length) / 16;
    bool is_huge = slots_huge(dispatch, &order->task.message);
    if (is_huge && !expected) {
        dispatch->huge.unforeseen_bytes = length;
        if (dispatch->huge.orders > 0 && dispatch->huge.bytes + length > HUGE_BYTES_MAX) {
            set_aside(dispatch, order);
            return;
        }
    }
    if (is_huge)
        huge_count(dispatch, order, length);
    backlog_add(dispatch, order);
}

void orders_collect(struct dispatch *dispatch) {
    struct press_task *task = press_collect(dispatch->config.press, dispatch->shard);
    while (task != NULL) {
        struct press_order *order = task->user;
        task = task->next;
        collect(dispatch, order);
    }
    backlog_place(dispatch);
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
