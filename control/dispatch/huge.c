/* huge.c: messages that take a good part of the arena, before they have it: so many are rendered as will soon be placed, and lanes take
 * turns. */
#include "control/dispatch/state.h"

#include "control/observe/log.h"
#include <errno.h>
#include <string.h>

enum {
    HUGE_CREDIT_PART = 2,   /* of a worker's credit for a lane huge orders without a slot take at most this part, or one */
    LOOK_AGAIN_US = 50000,  /* to look through an arena of 128 MiB for a run takes 50 us, one of 2 GiB a millisecond */
    WARN_AFTER_S = 60,      /* the log tells of a message that waits so long for the arena ... */
    WARN_AGAIN_S = 10 * 60, /* ... and again */
};

static void warn_in(struct dispatch *dispatch, uint32_t seconds) {
    const struct timeval wait = {.tv_sec = seconds};
    evtimer_add(dispatch->huge.warning, &wait);
}

static void on_warning(evutil_socket_t descriptor, short what, void *argument) {
    struct dispatch *dispatch = argument;
    const struct arena_map *map = &dispatch->map;
    dispatch->huge.warned = true;
    log_write(LOG_LEVEL_WARNING, "dispatch",
              "%u huge messages of %llu MiB wait for the arena, the first for %llu s; %llu of its %llu MiB are with receivers that take "
              "their time. "
              "Other mail goes on; a larger dataplane.arena takes more of them at once",
              dispatch->huge_backlog.count, (unsigned long long)(dispatch->huge_backlog.bytes >> 20),
              (unsigned long long)((clock_us(CLOCK_MONOTONIC) - dispatch->huge.since_us) / 1000000),
              (unsigned long long)(map->huge_used * (uint64_t)ARENA_UNIT_BYTES >> 20),
              (unsigned long long)(map->units * (uint64_t)ARENA_UNIT_BYTES >> 20));
    warn_in(dispatch, WARN_AGAIN_S);
}

static void on_look(evutil_socket_t descriptor, short what, void *argument) {
    backlog_place(argument);
}

int huge_create(struct dispatch *dispatch) {
    dispatch->huge.warning = evtimer_new(dispatch->config.base, on_warning, dispatch);
    dispatch->huge.look = evtimer_new(dispatch->config.base, on_look, dispatch);
    return dispatch->huge.warning == NULL || dispatch->huge.look == NULL ? -ENOMEM : 0;
}

void huge_destroy(struct dispatch *dispatch) {
    if (dispatch->huge.warning != NULL)
        event_free(dispatch->huge.warning);
    if (dispatch->huge.look != NULL)
        event_free(dispatch->huge.look);
}

bool huge_may_look(struct dispatch *dispatch) {
    const struct huge *huge = &dispatch->huge;
    const struct arena_map *map = &dispatch->map;
    uint64_t now_us = clock_us(CLOCK_MONOTONIC);
    if (map->window_units == 0 || map->huge_used != huge->looked_used || now_us >= huge->look_us || arena_window_is_free(map))
        return true;
    const struct timeval wait = {.tv_usec = LOOK_AGAIN_US};
    if (!evtimer_pending(huge->look, NULL))
        evtimer_add(huge->look, &wait);
    return false;
}

void huge_looked(struct dispatch *dispatch) {
    dispatch->huge.look_us = clock_us(CLOCK_MONOTONIC) + LOOK_AGAIN_US;
    dispatch->huge.looked_used = dispatch->map.huge_used;
    evtimer_del(dispatch->huge.look);
}

void huge_watch(struct dispatch *dispatch, const struct press_order *first) {
    struct huge *huge = &dispatch->huge;
    if (huge->watched == first)
        return;
    huge->watched = first;
    if (huge->warned && first == NULL)
        log_write(LOG_LEVEL_INFO, "dispatch", "no huge message waits for the arena any more");
    huge->warned &= first != NULL;
    huge->since_us = clock_us(CLOCK_MONOTONIC);
    if (first == NULL)
        evtimer_del(huge->warning);
    else if (!huge->warned)
        warn_in(dispatch, WARN_AFTER_S);
}

/* What a member of a job adds: to its message's own bytes, or to those that its content's messages share. */
struct expected {
    const struct job *content; /* whose members are shared, or NULL */
    bool measured;             /* the shared ones count */
    uint64_t own, shared;
};

static void add_bytes(struct expected *expected, const void *member, const void *shared, uint64_t bytes) {
    *(expected->content != NULL && member == shared ? &expected->shared : &expected->own) += bytes;
}

/* Encoded, a text grows by a third more or less. */
static void add_text(struct expected *expected, const char *text, const char *shared) {
    if (text == NULL || (expected->content != NULL && text == shared && !expected->measured))
        return;
    size_t length = strlen(text);
    add_bytes(expected, text, shared, length + length / 3);
}

static struct expected expect(const struct job *job, uint64_t huge_bytes) {
    const struct render_prepared *prepared = job->content != NULL ? job->content->prepared : NULL;
    const struct job none = {.raw = NULL}, *content = prepared != NULL ? job->content->fields : &none;
    struct expected expected = {.content = prepared != NULL ? content : NULL, .measured = render_prepared_bytes(prepared) >= huge_bytes};
    add_text(&expected, job->text, content->text);
    add_text(&expected, job->html, content->html);
    if (job->raw != NULL)
        add_bytes(&expected, job->raw, content->raw, job->raw_length);
    for (uint32_t i = 0; i < job->attachment_count; i++)
        add_bytes(&expected, job->attachments, content->attachments, job->attachments[i].length * 78 / 57); /* base64 in lines */
    return expected;
}

uint64_t huge_expected(struct dispatch *dispatch, const struct job *job, bool *is_huge) {
    struct huge *huge = &dispatch->huge;
    if (huge->sized != job || huge->sized_entry.ms != job->entry.ms || huge->sized_entry.seq != job->entry.seq) {
        uint64_t huge_bytes = arena_huge_bytes(&dispatch->map);
        struct expected expected = expect(job, huge_bytes);
        huge->sized = job;
        huge->sized_entry = job->entry;
        huge->sized_bytes = expected.own;
        huge->sized_huge = expected.own >= huge_bytes || expected.shared >= huge_bytes;
    }
    *is_huge = huge->sized_huge;
    return huge->sized_bytes;
}

static bool has_room(const struct huge *huge) {
    return huge->orders == 0 || (huge->bytes < HUGE_BYTES_MAX && huge->deliveries < HUGE_DELIVERIES_MAX);
}

/* Its own orders hold the lane up: it is looked at when one of them has its slot. */
static bool has_share(const struct lane_path *path, uint32_t capacity) {
    uint32_t share = capacity / HUGE_CREDIT_PART;
    return path->huge_orders >= (share > 0 ? share : 1);
}

bool huge_may_take(const struct dispatch *dispatch, const struct lane_path *path, uint32_t capacity) {
    const struct huge *huge = &dispatch->huge;
    if (!has_room(huge) || has_share(path, capacity))
        return false;
    if (huge->turn == path)
        return !huge->turn_taken || huge->first == NULL;
    return huge->turn == NULL && huge->first == NULL;
}

void huge_wait(struct dispatch *dispatch, struct lane_path *path, uint32_t capacity) {
    struct huge *huge = &dispatch->huge;
    if (path->huge_waits || has_share(path, capacity))
        return;
    path->huge_waits = true;
    path->huge_next = NULL;
    *(huge->last != NULL ? &huge->last->huge_next : &huge->first) = path;
    huge->last = path;
}

static void leave_line(struct huge *huge, struct lane_path *path) {
    struct lane_path *before = NULL;
    for (struct lane_path **at = &huge->first; path->huge_waits; at = &(*at)->huge_next) {
        if (*at == path) {
            *at = path->huge_next;
            huge->last = huge->last == path ? before : huge->last;
            path->huge_waits = false;
            return;
        }
        before = *at;
    }
}

void huge_next(struct dispatch *dispatch, const struct lane_path *path) {
    struct huge *huge = &dispatch->huge;
    if (path != NULL && huge->turn == path)
        huge->turn = NULL;
    if (huge->turn != NULL || huge->first == NULL || !has_room(huge))
        return;
    huge->turn = huge->first;
    huge->turn_taken = false;
    leave_line(huge, huge->turn);
    paths_attention(dispatch, huge->turn);
}

void huge_forget(struct dispatch *dispatch, struct lane_path *path) {
    leave_line(&dispatch->huge, path);
    path->huge_orders = 0;
    huge_next(dispatch, path);
}

void huge_forget_all(struct dispatch *dispatch) {
    struct huge *huge = &dispatch->huge;
    while (huge->first != NULL)
        leave_line(huge, huge->first);
    huge->turn = NULL;
    for (uint32_t i = 0; i < dispatch->path_count; i++)
        dispatch->paths[i].huge_orders = 0;
}

void huge_count(struct dispatch *dispatch, struct press_order *order, uint64_t bytes) {
    struct huge *huge = &dispatch->huge;
    struct lane_path *path = paths_same(dispatch, order->path, order->path_generation);
    order->huge = true;
    order->bytes = bytes;
    huge->orders++;
    huge->deliveries += order->delivery_count;
    huge->bytes += bytes;
    if (path != NULL && path->state == LANE_PATH_LIVE) /* of a retired one nobody would take it away again */
        path->huge_orders++;
}

void huge_uncount(struct dispatch *dispatch, struct press_order *order) {
    struct huge *huge = &dispatch->huge;
    struct lane_path *path = paths_same(dispatch, order->path, order->path_generation);
    order->huge = false;
    huge->orders--;
    huge->deliveries -= order->delivery_count;
    huge->bytes -= order->bytes;
    if (path == NULL || path->huge_orders == 0)
        return;
    path->huge_orders--;
    if (path->state == LANE_PATH_LIVE && path->lane->aside > 0)
        paths_attention(dispatch, path);
}
