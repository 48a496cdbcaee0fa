/* paths.c: publishes lanes as path records, keeps their cells, retires them. */
#include "control/dispatch/state.h"

#include "control/observe/log.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void on_wake(evutil_socket_t descriptor, short what, void *argument) {
    struct lane_path *path = argument;
    paths_attention(path->dispatch, path);
}

int paths_create(struct dispatch *dispatch) {
    dispatch->paths = calloc(dispatch->path_count, sizeof(struct lane_path));
    if (dispatch->paths == NULL)
        return -ENOMEM;
    dispatch->free_path_count = dispatch->path_count;
    for (uint32_t i = 0; i < dispatch->path_count; i++) {
        struct lane_path *path = &dispatch->paths[i];
        path->dispatch = dispatch;
        path->outstanding = calloc(dispatch->workers, sizeof(uint32_t));
        path->secured = calloc(dispatch->workers, sizeof(uint64_t));
        path->wake = evtimer_new(dispatch->config.base, on_wake, path);
        if (path->outstanding == NULL || path->secured == NULL || path->wake == NULL)
            return -ENOMEM;
    }
    return 0;
}

void paths_destroy(struct dispatch *dispatch) {
    for (uint32_t i = 0; dispatch->paths != NULL && i < dispatch->path_count; i++) {
        if (dispatch->paths[i].wake != NULL)
            event_free(dispatch->paths[i].wake);
        free(dispatch->paths[i].outstanding);
        free(dispatch->paths[i].secured);
    }
    free(dispatch->paths);
}

uint32_t paths_index(const struct dispatch *dispatch, const struct lane_path *path) {
    return dispatch->first_path + (uint32_t)(path - dispatch->paths);
}

struct lane_path *paths_same(struct dispatch *dispatch, uint32_t index, uint32_t generation) {
    if (index < dispatch->first_path || index - dispatch->first_path >= dispatch->path_count)
        return NULL;
    struct lane_path *path = &dispatch->paths[index - dispatch->first_path];
    return path->state != LANE_PATH_FREE && path->generation == generation ? path : NULL;
}

void paths_attention(struct dispatch *dispatch, struct lane_path *path) {
    if (path->attention)
        return;
    path->attention = true;
    path->next = NULL;
    if (dispatch->attention_last != NULL)
        dispatch->attention_last->next = path;
    else
        dispatch->attention_first = path;
    dispatch->attention_last = path;
    event_active(dispatch->attention_event, EV_TIMEOUT, 0);
}

/* What the live record says, and whence. */
static void made_from(struct lane_path *path, const struct lane *lane, const struct lane_path *filled) {
    path->site_generation = lane->site->generation;
    path->limits = lane->site->limits;
    path->pool = lane->pool;
    path->relay = lane->site->relay;
    path->secret_version = path->relay != NULL ? path->relay->auth_version : 0;
    memcpy(path->site_endpoints, filled->site_endpoints, sizeof(path->site_endpoints));
    path->endpoint_count = filled->endpoint_count;
}

bool paths_current(struct dispatch *dispatch, struct lane_path *path) {
    const struct lane *lane = path->lane;
    const struct config_relay *relay = lane->site->relay;
    if (path->site_generation == lane->site->generation && path->limits == lane->site->limits && path->pool == lane->pool &&
        path->relay == relay && path->secret_version == (relay != NULL ? relay->auth_version : 0))
        return true;
    /* Another answer of DNS or another configuration: mostly with the same content. */
    struct path record;
    struct lane_path filled;
    record_fill(&record, lane, &filled);
    const uint8_t *live = (const uint8_t *)&dispatch->journal->paths[paths_index(dispatch, path)];
    bool same =
        memcmp((const uint8_t *)&record + sizeof(record.word), live + sizeof(record.word), sizeof(record) - sizeof(record.word)) == 0;
    explicit_bzero(&record, sizeof(record));
    if (same)
        made_from(path, lane, &filled);
    return same;
}

/* Tells a worker to look at a path; at most one such entry for each (path, worker) is under way. */
static void hint(struct dispatch *dispatch, uint32_t index, uint32_t generation, uint32_t worker) {
    struct path_cell *cell = journal_cell(dispatch->journal, index, worker);
    if (atomic_exchange_explicit(&cell->order.hinted, 1, memory_order_acq_rel) != 0)
        return;
    if (ring_push(dispatch->journal, journal_order_ring(dispatch->journal, worker, dispatch->shard),
                  ring_entry(RING_PATH, index, generation)))
        dispatch->ring_wanted |= 1ull << worker;
    else
        atomic_store_explicit(&cell->order.hinted, 0, memory_order_release);
}

void paths_update(struct dispatch *dispatch, struct lane_path *path) {
    const struct lane *lane = path->lane;
    uint32_t index = paths_index(dispatch, path);
    struct path_rests *rests = &dispatch->journal->rests[index];
    bool rested = false;
    for (uint32_t i = 0; i < path->endpoint_count; i++) {
        uint64_t until_us = lane->endpoint_rest_until_us[path->site_endpoints[i]];
        if (atomic_load_explicit(&rests->endpoint_us[i], memory_order_relaxed) != until_us) {
            atomic_store_explicit(&rests->endpoint_us[i], until_us, memory_order_relaxed);
            rested = true;
        }
    }
    for (uint32_t i = 0; i < PATH_SOURCES_MAX; i++)
        if (atomic_load_explicit(&rests->source_us[i], memory_order_relaxed) != lane->source_rest_until_us[i]) {
            atomic_store_explicit(&rests->source_us[i], lane->source_rest_until_us[i], memory_order_relaxed);
            rested = true;
        }
    for (uint32_t worker = 0; worker < dispatch->workers; worker++) {
        struct path_order_cell *cell = &journal_cell(dispatch->journal, index, worker)->order;
        bool changed = rested;
        /* What is being rendered still needs a session. */
        uint32_t demand = dispatch->draining ? 0 : lane->waiting + path->outstanding[worker];
        uint32_t before = atomic_exchange_explicit(&cell->demand, demand, memory_order_relaxed);
        /* More demand than sessions can use is no news. */
        changed |= before != demand && (before < lane->sessions_allowed[worker] || demand < lane->sessions_allowed[worker]);
        changed |= atomic_exchange_explicit(&cell->sessions_allowed, lane->sessions_allowed[worker], memory_order_relaxed) !=
                   lane->sessions_allowed[worker];
        changed |= atomic_exchange_explicit(&cell->connect_interval_us, lane->connect_interval_us[worker], memory_order_relaxed) !=
                   lane->connect_interval_us[worker];
        if (changed)
            hint(dispatch, index, path->generation, worker);
    }
}

static bool is_idle(const struct dispatch *dispatch, const struct lane_path *path) {
    if (path->state != LANE_PATH_LIVE || (path->lane->waiting > 0 && path->lane->sessions > 0))
        return false;
    uint32_t outstanding = 0;
    for (uint32_t worker = 0; worker < dispatch->workers; worker++)
        outstanding += path->outstanding[worker];
    return outstanding == 0;
}

/* All paths are in use: those that nobody needs at the moment are let go of. Their lanes get another when they have something to send. */
static void retire_idle(struct dispatch *dispatch) {
    for (uint32_t i = 0; i < dispatch->path_count; i++)
        if (is_idle(dispatch, &dispatch->paths[i]))
            paths_retire(dispatch, &dispatch->paths[i]);
}

void paths_yield(struct dispatch *dispatch, struct lane_path *path) {
    if (dispatch->lanes_starved && is_idle(dispatch, path))
        paths_retire(dispatch, path);
}

static struct lane_path *find_free(struct dispatch *dispatch) {
    if (dispatch->free_path_count == 0)
        return NULL;
    for (uint32_t i = 0; i < dispatch->path_count; i++) {
        uint32_t at = (dispatch->free_path_hint + i) % dispatch->path_count;
        if (dispatch->paths[at].state == LANE_PATH_FREE) {
            dispatch->free_path_hint = at + 1;
            return &dispatch->paths[at];
        }
    }
    return NULL;
}

static struct lane_path *publish(struct dispatch *dispatch, struct lane *lane) {
    struct lane_path *path = find_free(dispatch);
    if (path == NULL) {
        dispatch->counters.paths_exhausted++;
        if (!dispatch->lanes_starved) /* once for each path that comes free */
            retire_idle(dispatch);
        dispatch->lanes_starved = true;
        return NULL;
    }
    uint32_t index = paths_index(dispatch, path);
    struct path *record = &dispatch->journal->paths[index];
    uint32_t generation = path_word_generation(atomic_load_explicit(&record->word, memory_order_relaxed)) + 1;
    struct lane_path filled;
    if (record_fill(record, lane, &filled) < lane->site->endpoint_count)
        log_write(
            LOG_LEVEL_WARNING, "dispatch",
            "%s: the names of %u of its servers, or their TLSA records, do not fit a path of the pool %s: they are not used. Give that "
            "pool fewer sources, or shorter EHLO names",
            lane->site->name, lane->site->endpoint_count - filled.endpoint_count, lane->pool->name);
    memset(&dispatch->journal->rests[index], 0, sizeof(struct path_rests));
    for (uint32_t worker = 0; worker < dispatch->workers; worker++) {
        struct path_cell *cell = journal_cell(dispatch->journal, index, worker);
        atomic_store_explicit(&cell->order.demand, 0, memory_order_relaxed);
        atomic_store_explicit(&cell->order.sessions_allowed, 0, memory_order_relaxed);
        atomic_store_explicit(&cell->worker.ready_capacity, 0, memory_order_relaxed);
        atomic_store_explicit(&cell->worker.sessions_secured_total, 0, memory_order_relaxed);
        path->outstanding[worker] = 0;
        path->secured[worker] = 0;
    }
    atomic_store_explicit(&record->word, path_word(generation, PATH_LIVE), memory_order_release);
    dispatch->free_path_count--;
    path->state = LANE_PATH_LIVE;
    path->generation = generation;
    made_from(path, lane, &filled);
    path->lane = lane;
    lane->path = path;
    dispatch->counters.paths_published++;
    for (uint32_t worker = 0; worker < dispatch->workers; worker++)
        hint(dispatch, index, generation, worker);
    return path;
}

void paths_retire(struct dispatch *dispatch, struct lane_path *path) {
    uint32_t index = paths_index(dispatch, path);
    if (path->lane != NULL)
        path->lane->path = NULL;
    path->lane = NULL;
    if (path->state == LANE_PATH_FREE) /* an earlier control's */
        dispatch->free_path_count--;
    path->state = LANE_PATH_RETIRING;
    evtimer_del(path->wake);
    huge_forget(dispatch, path);
    for (uint32_t worker = 0; worker < dispatch->workers; worker++) {
        struct path_order_cell *cell = &journal_cell(dispatch->journal, index, worker)->order;
        atomic_store_explicit(&cell->demand, 0, memory_order_relaxed);
        atomic_store_explicit(&cell->sessions_allowed, 0, memory_order_relaxed);
    }
    atomic_store_explicit(&dispatch->journal->paths[index].word, path_word(path->generation, PATH_RETIRED), memory_order_release);
    for (uint32_t worker = 0; worker < dispatch->workers; worker++)
        hint(dispatch, index, path->generation, worker);
}

struct lane_path *paths_of_lane(struct dispatch *dispatch, struct lane *lane) {
    struct lane_path *path = lane->path;
    if (path != NULL && paths_current(dispatch, path))
        return path;
    if (!dispatch->up || (path == NULL && (lane->waiting == 0 || lane->sessions == 0)))
        return path;
    if (path != NULL)
        paths_retire(dispatch, path);
    return publish(dispatch, lane);
}

static bool acknowledged(const struct dispatch *dispatch, const struct lane_path *path) {
    for (uint32_t worker = 0; worker < dispatch->workers; worker++)
        if (atomic_load_explicit(&journal_cell(dispatch->journal, paths_index(dispatch, path), worker)->worker.acknowledged_generation,
                                 memory_order_acquire) != path->generation)
            return false;
    return true;
}

static void make_free(struct dispatch *dispatch, struct lane_path *path) {
    evtimer_del(path->wake);
    if (path->state != LANE_PATH_FREE)
        dispatch->free_path_count++;
    path->state = LANE_PATH_FREE;
    path->lane = NULL;
    struct path *record = &dispatch->journal->paths[paths_index(dispatch, path)];
    record_forget_secret(record); /* no worker looks at it any more */
    atomic_store_explicit(&record->word, path_word(path->generation, PATH_FREE), memory_order_release);
}

static void give_lane_a_path(void *context, struct lane *lane) {
    if (lane->path == NULL && lane->waiting > 0 && lane->sessions > 0)
        dispatch_lane_changed(context, lane);
}

/* For TLS reports: what the worker has counted since. */
static void tell_secured(struct dispatch *dispatch, struct lane_path *path, uint32_t worker, uint64_t total) {
    uint64_t before = path->secured[worker];
    path->secured[worker] = total;
    if (dispatch->config.secured != NULL && total > before)
        dispatch->config.secured(dispatch->config.context, path->lane->site, total - before);
}

struct lane_path *paths_credit(struct dispatch *dispatch, uint32_t index, uint32_t worker) {
    if (index < dispatch->first_path || index - dispatch->first_path >= dispatch->path_count) {
        dispatch->counters.wild_values++;
        return NULL;
    }
    struct lane_path *path = &dispatch->paths[index - dispatch->first_path];
    struct path_worker_cell *cell = &journal_cell(dispatch->journal, index, worker)->worker;
    atomic_exchange_explicit(&cell->hinted, 0, memory_order_acq_rel); /* with all that the worker wrote before it set the mark */
    if (path->state == LANE_PATH_RETIRING && acknowledged(dispatch, path)) {
        make_free(dispatch, path);
        if (dispatch->lanes_starved) {
            dispatch->lanes_starved = false;
            shape_lanes(dispatch->config.shape, give_lane_a_path, dispatch);
        }
        return NULL;
    }
    if (path->state != LANE_PATH_LIVE)
        return NULL;
    tell_secured(dispatch, path, worker, atomic_load_explicit(&cell->sessions_secured_total, memory_order_relaxed));
    shape_sessions(dispatch->config.shape, path->lane, worker, atomic_load_explicit(&cell->sessions_open, memory_order_acquire),
                   atomic_load_explicit(&cell->sessions_ready, memory_order_relaxed),
                   atomic_load_explicit(&cell->sessions_opened_total, memory_order_relaxed), clock_us(CLOCK_MONOTONIC));
    return path->state == LANE_PATH_LIVE ? path : NULL;
}

void paths_forget(struct dispatch *dispatch) {
    dispatch->attention_first = dispatch->attention_last = NULL;
    huge_forget_all(dispatch);
    for (uint32_t i = 0; i < dispatch->path_count; i++) {
        struct lane_path *path = &dispatch->paths[i];
        path->attention = false;
        if (path->lane != NULL)
            path->lane->path = NULL;
        path->generation = path_word_generation(atomic_load(&dispatch->journal->paths[dispatch->first_path + i].word));
        make_free(dispatch, path);
        for (uint32_t worker = 0; worker < dispatch->workers; worker++)
            memset(journal_cell(dispatch->journal, dispatch->first_path + i, worker), 0, sizeof(struct path_cell));
    }
}

void paths_retire_inherited(struct dispatch *dispatch) {
    for (uint32_t i = 0; i < dispatch->path_count; i++) {
        struct lane_path *path = &dispatch->paths[i];
        uint64_t word = atomic_load(&dispatch->journal->paths[dispatch->first_path + i].word);
        path->generation = path_word_generation(word);
        for (uint32_t worker = 0; worker < dispatch->workers; worker++) {
            struct path_cell *cell = journal_cell(dispatch->journal, dispatch->first_path + i, worker);
            atomic_store(&cell->order.hinted, 0); /* the hint may never have been pushed */
            atomic_store(&cell->worker.hinted, 0);
        }
        if (path_word_state(word) == PATH_FREE)
            continue;
        paths_retire(dispatch, path);
        if (acknowledged(dispatch, path)) /* its RING_CREDIT went to the control before */
            make_free(dispatch, path);
    }
}
