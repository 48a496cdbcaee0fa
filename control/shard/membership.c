/* membership.c: this node among others: reading begins when it is registered, and what it has in hand is let go when others have its work.
 */
#include "state.h"

#include "control/observe/log.h"

static bool is_others(const struct shard *shard, const struct delivery *delivery) {
    uint32_t queue = delivery->job->shard;
    return queue < shard->queue_count && delivery->job->fence != shard->queues[queue].fences;
}

static void let_go(void *context, struct delivery *delivery) {
    fetch_let_go(delivery->job); /* should it come to be this node's again */
    delivery_free(delivery);
}

bool membership_take(struct shard *shard, struct delivery *delivery) {
    if (!is_others(shard, delivery))
        return false;
    let_go(shard, delivery);
    return true;
}

static bool match(void *context, const struct delivery *delivery) {
    return is_others(context, delivery);
}

void membership_withdraw(evutil_socket_t descriptor, short what, void *argument) {
    struct shard *shard = argument;
    dispatch_withdraw(shard->dispatch, match, shard);
    shape_withdraw(shard->shape, match, let_go, shard, now_us());
    struct delivery *list = shard->parked_first, **end = &shard->parked_first;
    shard->parked_first = shard->parked_last = NULL;
    shard->parked = 0;
    while (list != NULL) {
        struct delivery *next = list->next;
        if (!membership_take(shard, list)) {
            list->next = NULL;
            *end = list;
            end = &list->next;
            shard->parked_last = list;
            shard->parked++;
        }
        list = next;
    }
    dispatch_hold(shard->dispatch, !nodes_may_send(shard->nodes));
    intake_resume(shard);
}

bool membership_order(struct shard *shard, const struct delivery *delivery) {
    bool may = shard->nodes != NULL && nodes_may_send(shard->nodes);
    if (may && !is_others(shard, delivery))
        return false;
    if (!may)
        dispatch_hold(shard->dispatch, true);
    struct timeval soon = {0};
    if (!evtimer_pending(shard->fence_timer, NULL))
        evtimer_add(shard->fence_timer, &soon); /* it goes back to its lane first */
    return true;
}

void membership_begin(struct shard *shard) {
    for (uint32_t i = 0; i < shard->queue_count && !shard->draining && shard->harvested; i++)
        if (shard->queues[i].registered) {
            fetch_start(shard->queues[i].fetch);
            fetch_restart(shard->queues[i].fetch); /* with the epoch of now */
        }
}

static void on_ready(void *context, uint32_t index) {
    struct shard *shard = context;
    shard->queues[index].registered = true;
    if (shard->queues[index].fences > 0) {
        shard->queues[index].fences++; /* what came between the fence and here was read with the epoch before */
        membership_withdraw(-1, 0, shard);
    }
    dispatch_hold(shard->dispatch, !nodes_may_send(shard->nodes));
    membership_begin(shard);
}

static void on_fenced(void *context, uint32_t index) {
    struct shard *shard = context;
    struct shard_queue *queue = &shard->queues[index];
    queue->registered = false;
    queue->fences++;
    membership_withdraw(-1, 0, shard);
}

static void on_taken_over(void *context, uint32_t index, const char *node, uint64_t entries) {
    struct shard *shard = context;
    if (!shard->draining && shard->queues[index].registered)
        fetch_restart(shard->queues[index].fetch);
}

uint64_t membership_epoch(void *context, uint32_t queue_shard) {
    const struct shard *shard = context;
    return shard->nodes != NULL ? nodes_epoch(shard->nodes, queue_shard) : 0;
}

void membership_refused(void *context, uint32_t queue_shard) {
    struct shard *shard = context;
    if (shard->nodes != NULL)
        nodes_check(shard->nodes, queue_shard);
}

void membership_share_wanted(void *context) {
    struct shard *shard = context;
    if (shard->nodes != NULL)
        nodes_share_wanted(shard->nodes);
}

bool membership_create(struct shard *shard) {
    for (uint32_t i = 0; i < shard->queue_count; i++)
        shard->connections[i] = shard->queues[i].redis;
    struct nodes_config nodes = {.base = shard->base,
                                 .config = shard->config.config,
                                 .shard_count = shard->queue_count,
                                 .redis = shard->connections,
                                 .shape = shard->shape,
                                 .ready = on_ready,
                                 .fenced = on_fenced,
                                 .taken_over = on_taken_over,
                                 .context = shard};
    shard->fence_timer = evtimer_new(shard->base, membership_withdraw, shard);
    shard->nodes = nodes_create(&nodes);
    return shard->nodes != NULL && shard->fence_timer != NULL;
}

void membership_destroy(struct shard *shard) {
    nodes_destroy(shard->nodes);
    shard->nodes = NULL;
    if (shard->fence_timer != NULL)
        event_free(shard->fence_timer);
}
