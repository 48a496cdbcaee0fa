/* lane.c: when to open a session, to where and from where, and which order it gets. */
#include "lane.h"

#include "endpoint.h"
#include "engine.h"
#include "path_check.h"
#include "seek.h"
#include "transaction.h"

#include <errno.h>
#include <stdio.h>

enum {
    LANE_BINDS_MAX = 64,    /* a look */
    LANE_CONNECTS_MAX = 16, /* a look */
};

static const struct path_cell *cell_of(const struct lane *lane) {
    return journal_cell(lane->engine->config.journal, lane->index, lane->engine->config.worker);
}

static struct path_worker_cell *worker_cell(const struct lane *lane) {
    return &journal_cell(lane->engine->config.journal, lane->index, lane->engine->config.worker)->worker;
}

uint32_t lane_demand(const struct lane *lane) {
    return atomic_load_explicit(&cell_of(lane)->order.demand, memory_order_relaxed);
}

void lane_wake(struct lane *lane) {
    if (lane->active)
        return;
    lane->active = true;
    TAILQ_INSERT_TAIL(&lane->engine->active, lane, activity);
    lane->engine->active_count++;
}

static bool is_open_for_more(const struct lane *lane) {
    return lane->state == LANE_LIVE && !lane->engine->draining;
}

bool lane_keeps(const struct lane *lane) {
    return is_open_for_more(lane) || (!lane->engine->draining && lane->waiting > 0);
}

/* ---- events ---- */

void lane_post(struct lane *lane, const struct lane_event *event, uint64_t now_us) {
    struct smtp_engine *engine = lane->engine;
    uint32_t shard = journal_path_shard(engine->config.journal, lane->index);
    struct path_event record = {
        .time_us = engine_realtime(engine, now_us),
        .path = lane->index,
        .path_generation = lane->generation,
        .kind = (uint8_t)event->kind,
        .stage = (uint8_t)event->stage,
        .endpoint = event->endpoint,
        .source = event->source,
        .detail = event->detail,
    };
    const char *text = event->text;
    size_t length = text ? strlen(text) : 0;
    if (event->reply) {
        record.code = event->reply->code;
        memcpy(record.enhanced, event->reply->enhanced, sizeof(record.enhanced));
        if (!text) {
            text = event->reply->text;
            length = event->reply->text_length;
        }
    }
    record.text_length = (uint16_t)(length < sizeof(record.text) ? length : sizeof(record.text));
    if (text)
        memcpy(record.text, text, record.text_length);
    if (path_event_post(engine->config.journal, engine->config.worker, shard, &record)) {
        counter_add(&engine->counters->path_events, 1);
        engine->config.ring_doorbell(engine->config.context, shard);
    } else {
        counter_add(&engine->counters->path_events_dropped, 1);
    }
}

/* ---- loading and retiring ---- */

static bool load(struct smtp_engine *engine, struct lane *lane, uint32_t index, uint64_t word) {
    const struct path *shared = &engine->config.journal->paths[index];
    memset(lane, 0, offsetof(struct lane, path));
    memcpy(&lane->path, shared, sizeof(lane->path));
    atomic_thread_fence(memory_order_acquire);
    if (atomic_load_explicit(&shared->word, memory_order_relaxed) != word || !path_fits(&lane->path)) {
        counter_add(&engine->counters->wild_values, 1);
        return false;
    }
    struct path *path = &lane->path;
    path_settle(path);
    lane->engine = engine;
    lane->index = index;
    lane->generation = path_word_generation(word);
    lane->state = LANE_LIVE;
    for (uint32_t i = 0; i < path->endpoint_count; i++) {
        if (path->flags & PATH_IMPLICIT_TLS && path->endpoints[i].tls < PATH_TLS_ENCRYPT)
            path->endpoints[i].tls = PATH_TLS_ENCRYPT; /* there is nothing to fall back to */
        lane->refused |= path->endpoints[i].tls > PATH_TLS_MAY && !engine->config.tls;
    }
    TAILQ_INIT(&lane->high);
    TAILQ_INIT(&lane->normal);
    TAILQ_INIT(&lane->later);
    TAILQ_INIT(&lane->seeking);
    deadline_init(&lane->deadline, DEADLINE_OF_LANE);
    LIST_INSERT_HEAD(&engine->loaded, lane, loaded);
    return true;
}

static void hint_credit(struct smtp_engine *engine, struct path_worker_cell *cell, uint32_t index, uint32_t generation) {
    if (atomic_exchange_explicit(&cell->hinted, 1, memory_order_acq_rel) == 0)
        engine_push(engine, journal_path_shard(engine->config.journal, index), ring_entry(RING_CREDIT, index, generation));
}

static void acknowledge(struct smtp_engine *engine, uint32_t index, uint32_t generation) {
    struct path_worker_cell *cell = &journal_cell(engine->config.journal, index, engine->config.worker)->worker;
    atomic_store_explicit(&cell->acknowledged_generation, generation, memory_order_release);
    hint_credit(engine, cell, index, generation);
}

struct lane *lane_look(struct smtp_engine *engine, uint32_t index, uint64_t now_us) {
    const struct journal *journal = engine->config.journal;
    if (index >= journal->geometry.paths) {
        counter_add(&engine->counters->wild_values, 1);
        return NULL;
    }
    /* First the mark, then the look: what changes after it brings another hint. */
    atomic_exchange_explicit(&journal_cell(journal, index, engine->config.worker)->order.hinted, 0, memory_order_acq_rel);
    uint64_t word = atomic_load_explicit(&journal->paths[index].word, memory_order_acquire);
    uint32_t generation = path_word_generation(word);
    struct lane *lane = &engine->lanes[index];
    if (lane->state == LANE_NONE) {
        if (path_word_state(word) == PATH_RETIRED)
            acknowledge(engine, index, generation);
        if (path_word_state(word) != PATH_LIVE || !load(engine, lane, index, word))
            return NULL;
    } else if (generation != lane->generation) {
        /* Control reused the place before this worker had let go of it. */
        counter_add(&engine->counters->wild_values, 1);
        lane->state = LANE_RETIRED;
    } else if (path_word_state(word) == PATH_RETIRED) {
        lane->state = LANE_RETIRED;
    }
    lane_wake(lane);
    return lane->generation == generation ? lane : NULL;
}

/* ---- orders ---- */

void lane_enqueue(struct lane *lane, struct order *first) {
    struct order *after;
    lane->waiting++;
    lane_wake(lane);
    if (first->not_before_us) {
        /* Mostly in order of time: looked at from the end. */
        after = TAILQ_LAST(&lane->later, order_queue);
        while (after && after->not_before_us > first->not_before_us)
            after = TAILQ_PREV(after, order_queue, queue);
        if (after)
            TAILQ_INSERT_AFTER(&lane->later, after, first, queue);
        else
            TAILQ_INSERT_HEAD(&lane->later, first, queue);
    } else if (first->slot_flags & SLOT_HIGH) {
        TAILQ_INSERT_TAIL(&lane->high, first, queue);
    } else {
        TAILQ_INSERT_TAIL(&lane->normal, first, queue);
    }
}

void lane_requeue(struct lane *lane, struct order *first) {
    lane->waiting++;
    TAILQ_INSERT_HEAD(first->slot_flags & SLOT_HIGH ? &lane->high : &lane->normal, first, queue);
    lane_wake(lane);
}

static void take_due(struct lane *lane, uint64_t now_us) {
    struct order *order;
    while ((order = TAILQ_FIRST(&lane->later)) && order->not_before_us <= now_us) {
        TAILQ_REMOVE(&lane->later, order, queue);
        if (order->slot_flags & SLOT_HIGH)
            TAILQ_INSERT_TAIL(&lane->high, order, queue);
        else
            TAILQ_INSERT_TAIL(&lane->normal, order, queue);
    }
}

static struct order *next_order(struct lane *lane) {
    struct order_queue *queue = TAILQ_EMPTY(&lane->high) ? &lane->normal : &lane->high;
    struct order *order = TAILQ_FIRST(queue);
    if (order) {
        TAILQ_REMOVE(queue, order, queue);
        lane->waiting--;
    }
    return order;
}

static const struct verdict returned = {.outcome = OUTCOME_RETURNED, .stage = STAGE_CONNECT};

/* Answers every order that is due and that no session has. */
static void give_back(struct lane *lane, const struct verdict *verdict, uint64_t now_us) {
    struct order *order;
    while ((order = next_order(lane)))
        order_answer_all(order, verdict, NULL, now_us);
}

/* Returns those that are not due yet. */
static void give_back_later(struct lane *lane, uint64_t now_us) {
    struct order *order;
    while ((order = TAILQ_FIRST(&lane->later))) {
        TAILQ_REMOVE(&lane->later, order, queue);
        lane->waiting--;
        order_answer_all(order, &returned, NULL, now_us);
    }
}

/* ---- sessions ---- */

/* A source of that family that does not rest, in turn; -1 for none. *earliest_us falls to when one may. */
static int pick_source(struct lane *lane, uint8_t family, const struct path_rests *rests, uint64_t now_us, uint64_t *earliest_us) {
    for (uint32_t i = 0; i < lane->path.source_count; i++) {
        uint32_t index = (lane->next_source + i) % lane->path.source_count;
        if (lane->path.sources[index].family != family)
            continue;
        uint64_t rest_us = atomic_load_explicit(&rests->source_us[index], memory_order_relaxed);
        if (rest_us <= now_us)
            return (int)index;
        if (rest_us < *earliest_us)
            *earliest_us = rest_us;
    }
    return -1;
}

static void post_simple(struct lane *lane, enum path_event_kind kind, uint8_t endpoint, uint8_t source, uint32_t detail, const char *text,
                        uint64_t now_us) {
    struct lane_event event = {
        .kind = kind, .stage = STAGE_CONNECT, .endpoint = endpoint, .source = source, .detail = detail, .text = text};
    lane_post(lane, &event, now_us);
}

static uint32_t connect_interval_us(const struct lane *lane) {
    return atomic_load_explicit(&cell_of(lane)->order.connect_interval_us, memory_order_relaxed);
}

bool lane_can_connect(struct lane *lane, uint8_t endpoint, uint64_t now_us) {
    const struct path_rests *rests = &lane->engine->config.journal->rests[lane->index];
    uint64_t earliest_us = UINT64_MAX;
    return !lane_auth_rests(lane, now_us) && lane_endpoint_rests_until(lane, endpoint) <= now_us &&
           pick_source(lane, lane->path.endpoints[endpoint].family, rests, now_us, &earliest_us) >= 0;
}

bool lane_connect(struct lane *lane, uint32_t endpoints, uint64_t now_us) {
    if (lane_auth_rests(lane, now_us)) {
        lane->next_connect_us = lane->auth_rest_us;
        lane->paced = false;
        return false;
    }
    const struct path_rests *rests = &lane->engine->config.journal->rests[lane->index];
    uint64_t earliest_us = now_us + LANE_BACKOFF_MAX_US;
    uint8_t count = (uint8_t)lane->path.endpoint_count; /* at most PATH_ENDPOINTS_MAX: checked when the record was copied */
    for (uint8_t i = 0; i < count; i++) {
        if (!(endpoints & 1u << i))
            continue;
        uint64_t wait_us = lane_endpoint_rests_until(lane, i);
        if (wait_us > now_us) {
            earliest_us = wait_us < earliest_us ? wait_us : earliest_us;
            continue;
        }
        int source = pick_source(lane, lane->path.endpoints[i].family, rests, now_us, &earliest_us);
        if (source < 0)
            continue;
        lane->next_source = (uint8_t)((uint32_t)(source + 1) % lane->path.source_count);
        int error = session_open(lane, i, (uint8_t)source, now_us);
        if (!error) {
            lane->next_connect_us = now_us + connect_interval_us(lane);
            lane->paced = true;
            return true;
        }
        if (error == -EADDRNOTAVAIL || error == -ENOBUFS) {
            if (error == -EADDRNOTAVAIL)
                post_simple(lane, PATH_EVENT_PORTS_EXHAUSTED, i, (uint8_t)source, 0, "every local port to this endpoint is in use", now_us);
            earliest_us = now_us + LANE_PORTS_WAIT_US;
            break;
        }
        post_simple(lane, PATH_EVENT_CONNECT_FAILED, i, (uint8_t)source, TCP_UNREACHABLE, tcp_error_text(TCP_UNREACHABLE), now_us);
        lane_endpoint_failed(lane, i, now_us);
        if (lane->endpoints[i].retry_us < earliest_us)
            earliest_us = lane->endpoints[i].retry_us;
    }
    lane->next_connect_us = earliest_us;
    lane->paced = false;
    return false;
}

/* Opens what demand and orders need beyond what the sessions can take: one that is in a transaction counts for what it may take next.
 * Returns whether more is wanted that only time, not another look now, allows. */
static bool open_sessions(struct lane *lane, uint32_t allowed, uint64_t now_us) {
    uint32_t limit = lane->path.max_deliveries_per_connection, each = lane->path.pipelined_transactions + 1;
    if (limit && limit < each)
        each = limit;
    uint64_t wanted = (uint64_t)lane->waiting + lane_demand(lane);
    uint64_t supply = (uint64_t)(lane->greeting + lane->ready - lane->busy) * each + (uint64_t)lane->busy * (each - 1);
    for (uint32_t opened = 0; wanted > supply && lane->open < allowed && lane->failures < LANE_TRY_ADDRESSES_MAX; opened++) {
        if (lane->next_connect_us > now_us)
            return true;
        if (opened == LANE_CONNECTS_MAX) {
            lane_wake(lane);
            return false;
        }
        if (!lane_connect(lane, UINT32_MAX, now_us))
            return true;
        supply += each;
    }
    return false;
}

/* Ends those that wait for orders, and with `greeting` those that are not ready yet. */
static void end_sessions(struct lane *lane, bool greeting, uint64_t now_us) {
    struct smtp_session *session, *next;
    while ((session = LIST_FIRST(&lane->idle)))
        session_leave(session, now_us);
    for (session = greeting ? LIST_FIRST(&lane->sessions) : NULL; session; session = next) {
        next = LIST_NEXT(session, siblings);
        if (session->state < SESSION_READY)
            session_leave(session, now_us);
    }
}

/* Gives what still waits to sessions that can begin another transaction before the verdict on their last. */
static uint32_t bind_behind(struct lane *lane, uint32_t allowed, uint64_t now_us) {
    struct smtp_session *session;
    uint32_t steps = 0;
    while ((session = LIST_FIRST(&lane->roomy)) && LIST_EMPTY(&lane->idle)) {
        if (lane->state == LANE_LIVE && lane->greeting + lane->ready > allowed)
            break; /* they are to end */
        if (!stream_is_open(&session->stream)) {
            session_lose(session, now_us);
            continue;
        }
        if (!transaction_has_room(session)) { /* what it has queued grew since */
            session_offer(session);
            continue;
        }
        if (steps == LANE_BINDS_MAX) {
            lane_wake(lane);
            break;
        }
        struct order *order = next_order(lane);
        if (!order)
            break;
        seek_bind(session, order, now_us);
        steps++;
    }
    return steps;
}

static uint32_t bind_orders(struct lane *lane, uint32_t allowed, uint64_t now_us) {
    struct smtp_session *session;
    uint32_t steps = 0;
    while ((session = LIST_FIRST(&lane->idle))) {
        if (lane->state == LANE_LIVE && lane->greeting + lane->ready > allowed) {
            session_leave(session, now_us); /* control wants fewer */
            continue;
        }
        if (!stream_is_open(&session->stream)) { /* reset in this very pass: an order must not pay for it */
            session_lose(session, now_us);
            continue;
        }
        if (session->reply) { /* the first bytes of a reply that nothing asked for: its rest would be taken for the answer to MAIL */
            session_leave(session, now_us);
            continue;
        }
        if (steps == LANE_BINDS_MAX) {
            lane_wake(lane);
            break;
        }
        struct order *order = next_order(lane);
        if (!order)
            break;
        seek_bind(session, order, now_us);
        steps++;
    }
    return steps + bind_behind(lane, allowed, now_us);
}

/* For orders that no session could take: that every host was tried, and TLS stood in the way at each, is an answer. Otherwise they were not
 * attempted. */
static void give_back_hopeless(struct lane *lane, uint64_t now_us) {
    char text[PATH_TEXT_MAX + 96];
    const struct path_endpoint *named = NULL;
    enum tls_failure failure = TLS_FAILURE_NONE;
    for (uint32_t i = 0; i < lane->path.endpoint_count; i++) {
        if (!lane_endpoint_has_source(lane, i))
            continue;
        failure = (enum tls_failure)lane->endpoints[i].tls_failure;
        if (failure == TLS_FAILURE_NONE) {
            give_back(lane, &returned, now_us);
            return;
        }
        named = named ? named : &lane->path.endpoints[i];
    }
    if (!named) {
        give_back(lane, &returned, now_us);
        return;
    }
    int length = snprintf(text, sizeof(text), "%s: TLS is required: %s", lane->path.strings + named->name, tls_failure_text(failure));
    bool offered = failure != TLS_FAILURE_NOT_OFFERED && failure != TLS_FAILURE_REFUSED;
    struct verdict verdict = {.outcome = OUTCOME_LOCAL,
                              .stage = STAGE_STARTTLS,
                              .code = 454,
                              .enhanced = {4, 7, offered ? 5 : 4}, /* RFC 5248: 4.7.5 a failure of cryptography */
                              .text = text,
                              .text_length = (uint32_t)length};
    give_back(lane, &verdict, now_us);
}

/* So many endpoints failed one after the other that this try is over (SMTP.md section 2): orders go back, and the next try is another one.
 */
static void end_try(struct lane *lane, uint64_t now_us) {
    if (lane->failures < LANE_TRY_ADDRESSES_MAX || lane->greeting)
        return;
    lane->failures = 0;
    lane->next_connect_us = now_us + LANE_BACKOFF_FIRST_US;
    lane->paced = false;
    if (!lane->ready)
        give_back_hopeless(lane, now_us);
}

/* Orders that wait without a session to take them go back when there is no hope for one. Returns when to look again. */
static uint64_t weigh_hope(struct lane *lane, uint64_t now_us) {
    if (lane->ready || (TAILQ_EMPTY(&lane->high) && TAILQ_EMPTY(&lane->normal))) {
        lane->hope_us = 0;
        return DEADLINE_NEVER;
    }
    if (!lane->hope_us)
        lane->hope_us = now_us;
    uint64_t until_us = lane->hope_us + (lane->greeting ? (uint64_t)LANE_HOPE_MAX_US : (uint64_t)LANE_HOPE_US);
    if (lane->state == LANE_RETIRED && !lane->greeting)
        until_us = now_us;
    if (now_us < until_us)
        return until_us;
    give_back_hopeless(lane, now_us);
    lane->hope_us = 0;
    return DEADLINE_NEVER;
}

/* The path asks for what this worker cannot do; it must never be done without. */
static void refuse(struct lane *lane, uint64_t now_us) {
    static const char text[] = "this path needs TLS, which this worker does not have";
    static const struct verdict verdict = {.outcome = OUTCOME_LOCAL,
                                           .stage = STAGE_STARTTLS,
                                           .code = 454,
                                           .enhanced = {4, 7, 0},
                                           .text = text,
                                           .text_length = sizeof(text) - 1};
    if (lane->next_connect_us <= now_us && (lane->waiting || lane_demand(lane))) {
        post_simple(lane, PATH_EVENT_TLS_FAILED, 0, 0, TLS_FAILURE_LOCAL, text, now_us);
        lane->next_connect_us = now_us + LANE_BACKOFF_MAX_US;
        lane->paced = false;
    }
    take_due(lane, UINT64_MAX);
    give_back(lane, &verdict, now_us);
}

static void show(struct lane *lane) {
    struct path_worker_cell *cell = worker_cell(lane);
    atomic_store_explicit(&cell->orders_held, lane->held, memory_order_relaxed);
    atomic_store_explicit(&cell->sessions_secured_total, lane->secured_total, memory_order_relaxed);
    if (lane->capacity == lane->shown_capacity && lane->open == lane->shown_open && lane->ready == lane->shown_ready)
        return;
    lane->shown_capacity = lane->capacity;
    lane->shown_open = lane->open;
    lane->shown_ready = lane->ready;
    atomic_store_explicit(&cell->ready_capacity, lane->capacity, memory_order_relaxed);
    atomic_store_explicit(&cell->sessions_open, lane->open, memory_order_relaxed);
    atomic_store_explicit(&cell->sessions_ready, lane->ready, memory_order_relaxed);
    atomic_store_explicit(&cell->sessions_opened_total, lane->opened_total, memory_order_relaxed);
    hint_credit(lane->engine, cell, lane->index, lane->generation);
}

static void unload(struct lane *lane) {
    deadline_forget(&lane->engine->deadlines, &lane->deadline);
    LIST_REMOVE(lane, loaded);
    if (lane->active) {
        TAILQ_REMOVE(&lane->engine->active, lane, activity);
        lane->engine->active_count--;
        lane->active = false;
    }
    lane->state = LANE_NONE;
    explicit_bzero(lane->path.strings, sizeof(lane->path.strings)); /* credentials */
    acknowledge(lane->engine, lane->index, lane->generation);
}

uint32_t lane_serve(struct lane *lane, uint64_t now_us) {
    uint32_t allowed = atomic_load_explicit(&cell_of(lane)->order.sessions_allowed, memory_order_relaxed);
    uint64_t look_us = DEADLINE_NEVER;
    uint32_t steps = 1;
    if (lane->engine->draining) {
        give_back_later(lane, now_us);
        seek_give_back(lane, now_us);
        give_back(lane, &returned, now_us);
        end_sessions(lane, true, now_us);
    } else if (lane->refused) {
        refuse(lane, now_us);
    } else {
        take_due(lane, now_us);
        if (lane->paced && lane->next_connect_us > now_us + connect_interval_us(lane))
            lane->next_connect_us = now_us + connect_interval_us(lane);
        if (is_open_for_more(lane))
            steps += seek_serve(lane, allowed, now_us, &look_us);
        else
            seek_give_back(lane, now_us);
        steps += bind_orders(lane, allowed, now_us);
        end_try(lane, now_us);
        if (is_open_for_more(lane)) {
            if (open_sessions(lane, allowed, now_us) && lane->next_connect_us < look_us)
                look_us = lane->next_connect_us;
        } else {
            give_back_later(lane, now_us);
            end_sessions(lane, true, now_us); /* those in a transaction finish, and take what still waits */
        }
        uint64_t hope_us = weigh_hope(lane, now_us);
        look_us = hope_us < look_us ? hope_us : look_us;
        struct order *later = TAILQ_FIRST(&lane->later);
        if (later && later->not_before_us < look_us)
            look_us = later->not_before_us;
    }
    show(lane);
    if (lane->state == LANE_RETIRED && !lane->open && !lane->held)
        unload(lane);
    else
        deadline_set(&lane->engine->deadlines, &lane->deadline, look_us);
    return steps;
}
