/* backlog.c: rendered orders that have no slot yet. Small ones wait in one line and huge ones in another, each in the order in which they
 * came: what waits for a large run of the arena holds up no small message. */
#include "control/dispatch/state.h"

#include <stdio.h>
#include <stdlib.h>

static void list_add(struct order_list *list, struct press_order *order) {
    order->next = NULL;
    *(list->last != NULL ? &list->last->next : &list->first) = order;
    list->last = order;
    list->count++;
    list->bytes += order->bytes;
}

static struct press_order *list_pop(struct order_list *list) {
    struct press_order *order = list->first;
    list->first = order->next;
    if (list->first == NULL)
        list->last = NULL;
    list->count--;
    list->bytes -= order->bytes;
    return order;
}

static void list_free(struct order_list *list) {
    while (list->first != NULL) {
        struct press_order *order = list_pop(list);
        message_free(&order->task.message);
        free(order);
    }
}

void backlog_destroy(struct dispatch *dispatch) {
    list_free(&dispatch->backlog);
    list_free(&dispatch->huge_backlog);
}

void backlog_add(struct dispatch *dispatch, struct press_order *order) {
    order->bytes = order->task.message.own_length;
    order->sequence = ++dispatch->sequence;
    list_add(order->huge ? &dispatch->huge_backlog : &dispatch->backlog, order);
}

void backlog_resume(struct dispatch *dispatch) {
    if (backlog_waits(dispatch))
        event_active(dispatch->backlog_event, EV_TIMEOUT, 0);
}

/* The order's delivery at `at` goes back to shape. */
static void give_one_back(struct dispatch *dispatch, struct press_order *order, struct delivery **at) {
    struct delivery *delivery = *at;
    *at = delivery->next;
    delivery->next = NULL;
    order->delivery_count--;
    orders_leave(dispatch, order, 1);
    dispatch->counters.returned++;
    shape_give_back(dispatch->config.shape, delivery, clock_us(CLOCK_MONOTONIC));
}

void backlog_shorten(struct dispatch *dispatch, struct press_order *order, uint32_t deliveries) {
    struct delivery **last = &order->deliveries;
    for (uint32_t i = 0; i < deliveries && *last != NULL; i++)
        last = &(*last)->next;
    while (*last != NULL)
        give_one_back(dispatch, order, last);
}

/* Those of an order that `match` (NULL: all) go back; the others, who get the same message, do not wait for them. How many. */
static uint32_t give_back_some(struct dispatch *dispatch, struct press_order *order,
                               bool (*match)(void *context, const struct delivery *delivery), void *context) {
    uint32_t count = 0;
    for (struct delivery **at = &order->deliveries; *at != NULL;) {
        if (match == NULL || match(context, *at)) {
            give_one_back(dispatch, order, at);
            count++;
        } else {
            at = &(*at)->next;
        }
    }
    return count;
}

/* Does a finished order still have where to go? */
static bool deliverable(struct dispatch *dispatch, const struct press_order *order) {
    struct lane_path *path = paths_same(dispatch, order->path, order->path_generation);
    return dispatch->up && !dispatch->draining && path != NULL && path->state == LANE_PATH_LIVE;
}

/* The first huge one. As long as there is no run for it, small ones stay out of that which it will take. */
static enum placing place_huge(struct dispatch *dispatch, struct press_order *order) {
    struct arena_map *map = &dispatch->map;
    uint64_t room_bytes = 0;
    if (!huge_may_look(dispatch))
        return WAITS_FOR_ROOM;
    enum placing placing = slots_place(dispatch, order, map->window_units > 0, &room_bytes);
    if (placing == WAITS_FOR_ROOM && room_bytes > map->window_units * (uint64_t)ARENA_UNIT_BYTES) {
        arena_window_choose(map, room_bytes);
        placing = slots_place(dispatch, order, true, &room_bytes);
    }
    if (placing == WAITS_FOR_ROOM)
        huge_looked(dispatch);
    if (placing == WAITS_FOR_HUGE) /* it will be some time, and elsewhere */
        arena_window_clear(map);
    if (placing == PLACED) {
        dispatch->counters.huge_orders++;
    } else if (placing != WAITS_FOR_SLOTS && !order->waited) {
        order->waited = true;
        dispatch->counters.huge_waits++;
    }
    return placing;
}

static enum placing place(struct dispatch *dispatch, struct press_order *order) {
    uint64_t room_bytes;
    if (order->huge)
        return place_huge(dispatch, order);
    enum placing placing = slots_place(dispatch, order, false, &room_bytes);
    dispatch->counters.arena_exhausted += placing == WAITS_FOR_ROOM;
    return placing;
}

/* The first of a line: into a slot, or away for good. */
static enum placing advance(struct dispatch *dispatch, struct order_list *list) {
    struct press_order *order = list->first;
    bool huge = order->huge;
    if (!deliverable(dispatch, order))
        give_back_some(dispatch, order, NULL, NULL);
    else if (dispatch->config.stopped != NULL)
        give_back_some(dispatch, order, dispatch->config.stopped, dispatch->config.context);
    bool may = order->deliveries != NULL && slots_fit(dispatch, order);
    enum placing placing = may ? place(dispatch, order) : PLACED;
    if (placing != PLACED)
        return placing;
    list_pop(list);
    if (huge) {
        arena_window_clear(&dispatch->map);
        huge_uncount(dispatch, order);
    }
    if (may) {
        orders_free(dispatch, order);
    } else if (order->deliveries != NULL) { /* it would wait for good, and all others behind it */
        order->task.status = -E2BIG;
        snprintf(order->task.error, sizeof(order->task.error), "%zu bytes are more than dataplane.arena holds", order->task.message.length);
        orders_end(dispatch, order);
    } else {
        orders_done(dispatch, order);
    }
    return PLACED;
}

/* Of the two that are first in their lines, the one that came first is asked first: where slots are short neither line goes without. */
void backlog_place(struct dispatch *dispatch) {
    struct order_list *const lists[] = {&dispatch->huge_backlog, &dispatch->backlog};
    bool waits[] = {false, false};
    for (;;) {
        const struct press_order *huge = waits[0] ? NULL : lists[0]->first, *small = waits[1] ? NULL : lists[1]->first;
        if (huge == NULL && small == NULL)
            break;
        uint32_t which = huge == NULL || (small != NULL && small->sequence < huge->sequence);
        enum placing placing = advance(dispatch, lists[which]);
        if (placing == WAITS_FOR_SLOTS)
            break;
        waits[which] = placing != PLACED;
    }
    huge_watch(dispatch, waits[0] ? lists[0]->first : NULL);
    orders_relieved(dispatch);
    huge_next(dispatch, NULL);
    orders_ring(dispatch);
}

static uint32_t withdraw(struct dispatch *dispatch, struct order_list *list, bool (*match)(void *context, const struct delivery *delivery),
                         void *context) {
    struct order_list all = *list;
    uint32_t count = 0;
    *list = (struct order_list){.first = NULL};
    while (all.first != NULL) {
        struct press_order *order = list_pop(&all);
        count += give_back_some(dispatch, order, match, context);
        if (order->deliveries != NULL) {
            list_add(list, order);
            continue;
        }
        if (order->huge)
            huge_uncount(dispatch, order);
        orders_done(dispatch, order);
    }
    return count;
}

uint32_t backlog_withdraw(struct dispatch *dispatch, bool (*match)(void *context, const struct delivery *delivery), void *context) {
    const struct press_order *first = dispatch->huge_backlog.first;
    uint32_t count = withdraw(dispatch, &dispatch->huge_backlog, match, context);
    if (dispatch->huge_backlog.first != first) {
        arena_window_clear(&dispatch->map); /* it was that one's */
        huge_watch(dispatch, NULL);
    }
    return count + withdraw(dispatch, &dispatch->backlog, match, context);
}

void backlog_each(const struct dispatch *dispatch,
                  void (*each)(void *context, const struct delivery *delivery, int worker, enum slot_state state), void *context) {
    const struct press_order *const lists[] = {dispatch->huge_backlog.first, dispatch->backlog.first};
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        for (const struct press_order *order = lists[i]; order != NULL; order = order->next)
            for (const struct delivery *delivery = order->deliveries; delivery != NULL; delivery = delivery->next)
                each(context, delivery, -1, SLOT_FREE);
}
