/* dispatch.c: makes the shard's dispatch and gives each lane that needs it a turn. */
#include "control/dispatch/dispatch.h"

#include "control/dispatch/state.h"
#include "control/observe/log.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TURNS_A_CALL = 256 };

void dispatch_log_wild(struct dispatch *dispatch) {
    if (dispatch->counters.wild_values == dispatch->wild_logged)
        return;
    log_write(LOG_LEVEL_ERROR, "dispatch", "the dataplane left %llu impossible values in the journal: counted, not followed",
              (unsigned long long)(dispatch->counters.wild_values - dispatch->wild_logged));
    dispatch->wild_logged = dispatch->counters.wild_values;
}

/* Every lane of which something changed: its cells, then its deliveries. */
static void on_attention(evutil_socket_t descriptor, short what, void *argument) {
    struct dispatch *dispatch = argument;
    for (uint32_t turn = 0; turn < TURNS_A_CALL && dispatch->attention_first != NULL; turn++) {
        struct lane_path *path = dispatch->attention_first;
        dispatch->attention_first = path->next;
        if (dispatch->attention_first == NULL)
            dispatch->attention_last = NULL;
        path->attention = false;
        if (path->state != LANE_PATH_LIVE || path->lane == NULL)
            continue;
        if (!paths_current(dispatch, path)) { /* its endpoints, limits or sources changed: another path */
            dispatch_lane_changed(dispatch, path->lane);
            continue;
        }
        orders_pump(dispatch, path);
        if (path->state == LANE_PATH_LIVE && path->lane != NULL)
            paths_update(dispatch, path);
        paths_yield(dispatch, path);
    }
    press_announce(dispatch->config.press); /* of all that the lanes gave it */
    orders_ring(dispatch);
    dispatch_log_wild(dispatch);
    if (dispatch->attention_first != NULL)
        event_active(dispatch->attention_event, EV_TIMEOUT, 0);
}

static void on_backlog(evutil_socket_t descriptor, short what, void *argument) {
    backlog_place(argument);
}

static void on_press(evutil_socket_t descriptor, short what, void *argument) {
    struct dispatch *dispatch = argument;
    uint64_t count;
    ssize_t got = read(descriptor, &count, sizeof(count));
    (void)got;
    orders_collect(dispatch);
}

struct dispatch *dispatch_create(const struct dispatch_config *config, char *error, size_t error_bytes) {
    struct dispatch *dispatch = calloc(1, sizeof(*dispatch));
    if (dispatch == NULL) {
        snprintf(error, error_bytes, "out of memory.");
        return NULL;
    }
    dispatch->config = *config;
    dispatch->journal = config->journal;
    dispatch->shard = config->shard;
    dispatch->workers = config->journal->geometry.workers;
    dispatch->slot_count = config->journal->geometry.slots / config->journal->geometry.shards;
    dispatch->first_slot = config->shard * dispatch->slot_count;
    dispatch->path_count = config->journal->geometry.paths / config->journal->geometry.shards;
    dispatch->first_path = config->shard * dispatch->path_count;
    int code = link_create(dispatch, error, error_bytes);
    if (code == 0 && (paths_create(dispatch) != 0 || orders_create(dispatch) != 0 || huge_create(dispatch) != 0 ||
                      chains_create(dispatch) != 0 || inherited_create(dispatch) != 0)) {
        snprintf(error, error_bytes, "out of memory for %u slots and %u paths.", dispatch->slot_count, dispatch->path_count);
        code = -ENOMEM;
    }
    if (code == 0) {
        dispatch->attention_event = event_new(config->base, -1, 0, on_attention, dispatch);
        dispatch->backlog_event = event_new(config->base, -1, 0, on_backlog, dispatch);
        dispatch->press_event =
            event_new(config->base, press_descriptor(config->press, config->shard), EV_READ | EV_PERSIST, on_press, dispatch);
        if (dispatch->attention_event == NULL || dispatch->backlog_event == NULL || dispatch->press_event == NULL ||
            event_add(dispatch->press_event, NULL) != 0) {
            snprintf(error, error_bytes, "out of memory for events.");
            code = -ENOMEM;
        }
    }
    if (code != 0) {
        dispatch_destroy(dispatch);
        return NULL;
    }
    return dispatch;
}

void dispatch_destroy(struct dispatch *dispatch) {
    if (dispatch == NULL)
        return;
    link_destroy(dispatch);
    if (dispatch->attention_event != NULL)
        event_free(dispatch->attention_event);
    if (dispatch->backlog_event != NULL)
        event_free(dispatch->backlog_event);
    if (dispatch->press_event != NULL)
        event_free(dispatch->press_event);
    paths_destroy(dispatch);
    backlog_destroy(dispatch);
    orders_destroy(dispatch);
    huge_destroy(dispatch);
    chains_destroy(dispatch);
    inherited_destroy(dispatch);
    free(dispatch);
}

void dispatch_start(struct dispatch *dispatch) {
    link_start(dispatch);
}

void dispatch_lane_changed(struct dispatch *dispatch, struct lane *lane) {
    if (!dispatch->up)
        return; /* when the dataplane comes, every lane is looked at */
    struct lane_path *path = paths_of_lane(dispatch, lane);
    if (path != NULL)
        paths_attention(dispatch, path);
    else
        orders_ring(dispatch); /* the hint of a retired one */
}

void dispatch_lane_gone(struct dispatch *dispatch, struct lane *lane) {
    if (lane->path != NULL)
        paths_retire(dispatch, lane->path);
    orders_ring(dispatch);
}

uint32_t dispatch_withdraw(struct dispatch *dispatch, bool (*match)(void *context, const struct delivery *delivery), void *context) {
    uint32_t count = backlog_withdraw(dispatch, match, context);
    for (uint32_t i = 0; i < dispatch->slot_count; i++) {
        const struct flight *flight = &dispatch->flights[i];
        if (flight->delivery != NULL && (match == NULL || match(context, flight->delivery)))
            count += chain_withdraw(dispatch, dispatch->first_slot + i);
    }
    backlog_place(dispatch); /* there may be slots for others */
    return count;
}

void dispatch_each(const struct dispatch *dispatch,
                   void (*each)(void *context, const struct delivery *delivery, int worker, enum slot_state state), void *context) {
    backlog_each(dispatch, each, context);
    for (uint32_t i = 0; i < dispatch->slot_count; i++) {
        const struct flight *flight = &dispatch->flights[i];
        if (flight->used && flight->delivery != NULL)
            each(context, flight->delivery, flight->chain->worker,
                 slot_word_state(slot_load(&dispatch->journal->slots[dispatch->first_slot + i])));
    }
}

void dispatch_hold(struct dispatch *dispatch, bool held) {
    if (dispatch->held == held)
        return;
    dispatch->held = held;
    for (uint32_t i = 0; i < dispatch->path_count && !held; i++)
        if (dispatch->paths[i].state == LANE_PATH_LIVE)
            paths_attention(dispatch, &dispatch->paths[i]);
}

void dispatch_drain(struct dispatch *dispatch) {
    dispatch->draining = true;
    dispatch_withdraw(dispatch, NULL, NULL);
    for (uint32_t i = 0; i < dispatch->path_count; i++) /* no more demand */
        if (dispatch->paths[i].state == LANE_PATH_LIVE)
            paths_attention(dispatch, &dispatch->paths[i]);
}

uint32_t dispatch_in_progress(const struct dispatch *dispatch) {
    return dispatch->before_slots + dispatch->queued;
}
const struct dispatch_counters *dispatch_counters(const struct dispatch *dispatch) {
    return &dispatch->counters;
}
bool dispatch_dataplane_up(const struct dispatch *dispatch) {
    return dispatch->up;
}

uint32_t dispatch_slots_used(const struct dispatch *dispatch) {
    return dispatch->slot_count - dispatch->free_slot_count;
}

void dispatch_arena(const struct dispatch *dispatch, struct dispatch_arena *arena) {
    *arena = (struct dispatch_arena){.bytes = dispatch->map.units * (uint64_t)ARENA_UNIT_BYTES,
                                     .used_bytes = dispatch->map.used * (uint64_t)ARENA_UNIT_BYTES,
                                     .resident_bytes = dispatch->residents.bytes,
                                     .idle_bytes = dispatch->residents.idle_bytes,
                                     .residents_made = dispatch->residents.made,
                                     .residents_evicted = dispatch->residents.evicted,
                                     .huge_bytes = dispatch->map.huge_used * (uint64_t)ARENA_UNIT_BYTES};
}

void dispatch_huge(const struct dispatch *dispatch, struct dispatch_huge *huge) {
    *huge = (struct dispatch_huge){.waiting = dispatch->huge_backlog.count, .waiting_bytes = dispatch->huge_backlog.bytes};
    if (dispatch->huge.watched != NULL)
        huge->waiting_ms = (clock_us(CLOCK_MONOTONIC) - dispatch->huge.since_us) / 1000;
    for (uint32_t i = 0; i < dispatch->path_count; i++)
        if (dispatch->paths[i].lane != NULL)
            huge->aside += dispatch->paths[i].lane->aside;
}
