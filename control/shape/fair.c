/* fair.c: round robin over the queues that hold something. */
#include "fair.h"

#include <errno.h>
#include <stdlib.h>

enum { FAIR_QUEUES_FIRST = 2 };

void delivery_list_push(struct delivery_list *list, struct delivery *delivery) {
    delivery->next = NULL;
    if (list->head)
        list->tail->next = delivery;
    else
        list->head = delivery;
    list->tail = delivery;
}

struct delivery *delivery_list_pop(struct delivery_list *list) {
    struct delivery *delivery = list->head;
    if (delivery) {
        list->head = delivery->next;
        delivery->next = NULL;
    }
    return delivery;
}

void fair_free(struct fair *fair) {
    free(fair->queues);
    *fair = (struct fair){0};
}

static int add_queue(struct fair *fair, uint64_t key) {
    if (fair->queue_count == fair->queue_capacity) {
        uint32_t capacity = fair->queue_capacity ? fair->queue_capacity * 2 : FAIR_QUEUES_FIRST;
        struct fair_queue *queues = realloc(fair->queues, capacity * sizeof *queues);
        if (!queues)
            return -ENOMEM;
        fair->queues = queues;
        fair->queue_capacity = capacity;
    }
    fair->queues[fair->queue_count] = (struct fair_queue){.key = key};
    return (int)fair->queue_count++;
}

/* The index of the key's queue; an empty one takes a new key. -ENOMEM. */
static int queue_of(struct fair *fair, uint64_t key) {
    if (fair->queue_count > 0 && fair->queues[fair->last].key == key)
        return (int)fair->last;
    uint32_t empty = FAIR_QUEUES_MAX;
    for (uint32_t i = 0; i < fair->queue_count; i++) {
        if (fair->queues[i].key == key)
            return (int)i;
        if (!fair->queues[i].list.head)
            empty = i;
    }
    if (empty < FAIR_QUEUES_MAX) {
        fair->queues[empty].key = key;
        fair->queues[empty].owed = 0;
        return (int)empty;
    }
    if (fair->queue_count == FAIR_QUEUES_MAX)
        return (int)(key % FAIR_QUEUES_MAX);
    return add_queue(fair, key);
}

static void ring_add(struct fair *fair, uint32_t at) {
    struct fair_queue *queue = &fair->queues[at];
    if (fair->in_ring++ == 0) {
        queue->next = queue->previous = at;
        fair->turn = at;
        return;
    }
    /* Behind everybody: before the one whose turn it is. */
    queue->next = fair->turn;
    queue->previous = fair->queues[fair->turn].previous;
    fair->queues[queue->previous].next = at;
    fair->queues[fair->turn].previous = at;
}

static void ring_remove(struct fair *fair, uint32_t at) {
    struct fair_queue *queue = &fair->queues[at];
    fair->in_ring--;
    fair->queues[queue->previous].next = queue->next;
    fair->queues[queue->next].previous = queue->previous;
    if (fair->turn == at)
        fair->turn = queue->next;
}

int fair_push(struct fair *fair, struct delivery *delivery, uint64_t key) {
    int at = queue_of(fair, key);
    if (at < 0)
        return at;
    fair->last = (uint32_t)at;
    struct fair_queue *queue = &fair->queues[at];
    bool was_empty = !queue->list.head;
    delivery_list_push(&queue->list, delivery);
    if (was_empty)
        ring_add(fair, (uint32_t)at);
    fair->count++;
    return 0;
}

void fair_give_back(struct fair *fair, struct delivery *delivery) {
    delivery_list_push(&fair->returned, delivery);
    fair->count++;
}

void fair_set_aside(struct fair *fair, struct delivery *delivery) {
    delivery_list_push(&fair->aside, delivery);
    fair->aside_count++;
    fair->count++;
}

struct delivery *fair_pop_aside(struct fair *fair) {
    struct delivery *delivery = delivery_list_pop(&fair->aside);
    if (delivery) {
        fair->aside_count--;
        fair->count--;
    }
    return delivery;
}

struct delivery *fair_pop(struct fair *fair) {
    if (fair->count == fair->aside_count)
        return NULL;
    fair->count--;
    if (fair->returned.head)
        return delivery_list_pop(&fair->returned);
    while (fair->queues[fair->turn].owed > 0 && fair->in_ring > 1) {
        fair->queues[fair->turn].owed--;
        fair->turn = fair->queues[fair->turn].next;
    }
    uint32_t at = fair->turn;
    struct fair_queue *queue = &fair->queues[at];
    queue->owed = 0; /* of one that is alone: nobody waited for its turns */
    struct delivery *delivery = delivery_list_pop(&queue->list);
    fair->turn = queue->next;
    if (!queue->list.head)
        ring_remove(fair, at);
    return delivery;
}

/* Those of a list that fit, in their order. */
static uint32_t take_from(struct delivery_list *list, const struct delivery *first,
                          bool (*fits)(void *context, const struct delivery *first, const struct delivery *other), void *context,
                          uint32_t maximum, struct delivery_list *out) {
    uint32_t taken = 0, others = 0;
    struct delivery *before = NULL;
    for (struct delivery *at = list->head; at && taken < maximum && others < FAIR_OTHERS_MAX;) {
        struct delivery *next = at->next;
        if (at->job == first->job && fits(context, first, at)) {
            if (before)
                before->next = next;
            else
                list->head = next;
            if (list->tail == at)
                list->tail = before;
            delivery_list_push(out, at);
            taken++;
            others = 0;
        } else {
            before = at;
            others++;
        }
        at = next;
    }
    return taken;
}

uint32_t fair_take_like(struct fair *fair, uint64_t key, const struct delivery *first,
                        bool (*fits)(void *context, const struct delivery *first, const struct delivery *other), void *context,
                        uint32_t maximum, struct delivery_list *out) {
    uint32_t taken = take_from(&fair->aside, first, fits, context, maximum, out);
    fair->aside_count -= taken;
    taken += take_from(&fair->returned, first, fits, context, maximum - taken, out);
    for (uint32_t i = 0; i < fair->queue_count && taken < maximum; i++) {
        struct fair_queue *queue = &fair->queues[i];
        bool may_hold = queue->key == key || (fair->queue_count == FAIR_QUEUES_MAX && i == key % FAIR_QUEUES_MAX);
        if (!may_hold || !queue->list.head)
            continue;
        uint32_t more = take_from(&queue->list, first, fits, context, maximum - taken, out);
        taken += more;
        queue->owed += more;
        if (!queue->list.head)
            ring_remove(fair, i);
    }
    fair->count -= taken;
    return taken;
}

static uint32_t filter_list(struct delivery_list *list, bool (*match)(void *context, const struct delivery *delivery), void *context,
                            struct delivery_list *out) {
    struct delivery_list keep = {0};
    struct delivery *delivery;
    uint32_t moved = 0;
    while ((delivery = delivery_list_pop(list))) {
        bool matches = match(context, delivery);
        delivery_list_push(matches ? out : &keep, delivery);
        moved += matches;
    }
    *list = keep;
    return moved;
}

void fair_filter(struct fair *fair, bool (*match)(void *context, const struct delivery *delivery), void *context,
                 struct delivery_list *out) {
    uint32_t from_aside = filter_list(&fair->aside, match, context, out);
    fair->aside_count -= from_aside;
    fair->count -= from_aside;
    fair->count -= filter_list(&fair->returned, match, context, out);
    for (uint32_t i = 0; i < fair->queue_count; i++) {
        struct fair_queue *queue = &fair->queues[i];
        if (!queue->list.head)
            continue;
        fair->count -= filter_list(&queue->list, match, context, out);
        if (!queue->list.head)
            ring_remove(fair, i);
    }
}
