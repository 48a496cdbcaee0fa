/* fair.h: one lane's deliveries of one priority: a queue for each (tenant, queue), served in turn. */
#ifndef CONTROL_SHAPE_FAIR_H
#define CONTROL_SHAPE_FAIR_H

#include "control/delivery.h"
#include <stdbool.h>
#include <stdint.h>

/* More (tenant, queue) pairs than this in one lane share queues. FAIR_OTHERS_MAX: fair_take_like looks past so many in a row. */
enum { FAIR_QUEUES_MAX = 64, FAIR_OTHERS_MAX = 32 };

struct delivery_list {
    struct delivery *head, *tail;
};

struct fair_queue {
    uint64_t key;
    struct delivery_list list;
    uint32_t next, previous; /* in the ring of those that are not empty */
    uint32_t owed;           /* turns that it has had already: deliveries that were taken beside another */
};

struct fair {
    uint32_t count; /* deliveries, those set aside among them */
    uint32_t aside_count;
    uint32_t queue_count, queue_capacity;
    uint32_t turn;    /* whose it is, when count - returned_count > 0 */
    uint32_t in_ring; /* queues that are not empty */
    uint32_t last;    /* the queue of the last push: the next one's most likely */
    struct fair_queue *queues;
    struct delivery_list returned; /* came back unattempted: before all others, in their order */
    struct delivery_list aside;    /* come when they are asked for, in their order */
};

void delivery_list_push(struct delivery_list *list, struct delivery *delivery);
struct delivery *delivery_list_pop(struct delivery_list *list);

void fair_free(struct fair *fair);
/* `key` stands for tenant and queue. 0 or -ENOMEM. */
int fair_push(struct fair *fair, struct delivery *delivery, uint64_t key);
void fair_give_back(struct fair *fair, struct delivery *delivery);
void fair_set_aside(struct fair *fair, struct delivery *delivery);
/* The next in turn of those that are not set aside, or NULL. */
struct delivery *fair_pop(struct fair *fair);
struct delivery *fair_pop_aside(struct fair *fair);
/* What `first`, popped just now, may share with: deliveries of its job that `fits`, as they lie in the queue of `key`, aside or came back;
 * at most `maximum`, appended to `out`. Recipients of a job lie together: the search ends behind the first few of others. Each costs its
 * queue a turn, which others get first. Returns how many. */
uint32_t fair_take_like(struct fair *fair, uint64_t key, const struct delivery *first,
                        bool (*fits)(void *context, const struct delivery *first, const struct delivery *other), void *context,
                        uint32_t maximum, struct delivery_list *out);
/* Moves every delivery that `match` is true for to `out`. Looks at all. */
void fair_filter(struct fair *fair, bool (*match)(void *context, const struct delivery *delivery), void *context,
                 struct delivery_list *out);

#endif
