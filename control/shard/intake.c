/* intake.c: from a job to its lane: its recipients are routed, and wait where their lane has no room. */
#include "state.h"

#include "control/observe/log.h"
#include "control/report/mail.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FETCH_ROUTING_MAX = 20000, /* recipients whose domain is being looked up */
    RESUME_STEP = 256,
    PARK_RETRY_MS = 100,
    PARKED_MAX = 2000, /* deliveries that wait here for a moment because their lane's window is full; all others wait in Redis */
};

void delivery_free(struct delivery *delivery) {
    if (delivery->site != NULL)
        site_release(delivery->site);
    job_release(delivery->job);
    free(delivery);
}

void intake_resume(struct shard *shard) {
    if (shard->fetch_waits && shape_room(shard->shape) >= HIGH_RESERVE + RESUME_STEP) {
        shard->fetch_waits = false;
        for (uint32_t i = 0; i < shard->queue_count; i++)
            fetch_resume(shard->queues[i].fetch);
    }
}

static void park_later(struct shard *shard) {
    struct timeval wait = {.tv_usec = PARK_RETRY_MS * 1000};
    if (!evtimer_pending(shard->park_timer, NULL))
        evtimer_add(shard->park_timer, &wait);
}

static void park(struct shard *shard, struct delivery *delivery) {
    delivery->next = NULL;
    if (shard->parked_last != NULL)
        shard->parked_last->next = delivery;
    else
        shard->parked_first = delivery;
    shard->parked_last = delivery;
    shard->parked++;
    park_later(shard);
}

/* `again`: it waited here before, and waits in Redis if there is still no room. */
static void enqueue(struct shard *shard, struct delivery *delivery, bool again) {
    static const uint16_t no_pool[3] = {4, 3, 5};
    if (membership_take(shard, delivery) || checking_again(shard, delivery))
        return;
    parking_seen(shard->parking, delivery);
    int code = shape_enqueue(shard->shape, delivery, now_us());
    if (code == 0)
        return;
    if (code != -ENOENT) {
        if (!again && shard->parked < PARKED_MAX)
            park(shard, delivery);
        else
            parking_put(shard->parking, delivery);
        return;
    }
    char text[160];
    snprintf(text, sizeof(text), "pool '%s' is not in bypost.yaml", ending_pool_name(shard, delivery->job));
    ending_early(shard, delivery, CLASS_SYSTEM_ERROR, 451, no_pool, 0, text); /* the operator's to mend, by a reload */
}

void intake_enqueue(struct shard *shard, struct delivery *delivery) {
    enqueue(shard, delivery, false);
}

/* The lanes whose window was full may have room: each that waits is tried once more. */
void intake_retry(evutil_socket_t descriptor, short what, void *argument) {
    struct shard *shard = argument;
    struct delivery *list = shard->parked_first;
    shard->parked_first = shard->parked_last = NULL;
    shard->parked = 0;
    while (list != NULL) {
        struct delivery *delivery = list;
        list = delivery->next;
        enqueue(shard, delivery, true);
    }
    intake_resume(shard);
}

struct routing {
    struct shard *shard;
    struct delivery *delivery;
    uint64_t asked_us;
};

static void on_route(void *context, const struct route_result *result) {
    struct routing *routing = context;
    struct shard *shard = routing->shard;
    struct delivery *delivery = routing->delivery;
    figures_routed(shard->figures, routing->asked_us);
    free(routing);
    shard->routing--;
    if (shard->draining) { /* Redis still has it as pending */
        delivery_free(delivery);
        return;
    }
    if (result->status == ROUTE_FOUND) {
        delivery->site = result->site;
        site_hold(result->site);
    }
    if (stopped_take(shard, delivery))
        return;
    if (result->status != ROUTE_FOUND) {
        ending_early(shard, delivery, result->class, result->code, result->enhanced, 0, result->text);
        return;
    }
    intake_enqueue(shard, delivery);
}

uint32_t intake_room(void *context) {
    struct shard *shard = context;
    uint32_t room = shape_room(shard->shape);
    uint32_t held = shard->routing + shard->parked + shard->checking;
    uint32_t settling = shard_settle_outstanding(shard);
    if (shard->draining || !shard->harvested || !hold_known(shard->hold) || shard->routing >= FETCH_ROUTING_MAX || room <= held ||
        settling >= SHAPE_TOTAL_MAX) {
        shard->fetch_waits = !shard->draining;
        if (shard->fetch_waits)
            park_later(shard);
        return 0;
    }
    room = (room - held) / shard->queue_count; /* each of them may use it up before the others ask */
    if (room <= HIGH_RESERVE / shard->queue_count) {
        shard->fetch_waits = true;
        park_later(shard);
    }
    return room > 0 ? room : 1;
}

struct delivery *intake_delivery(struct job *job, uint32_t index) {
    struct delivery *delivery = calloc(1, sizeof(*delivery));
    if (delivery == NULL)
        return NULL;
    job_hold(job);
    *delivery = (struct delivery){.job = job,
                                  .index = index,
                                  .attempt = job->history.attempt,
                                  .high = job->high,
                                  .uncertain = job->history.uncertain,
                                  .queued_ms = clock_ms(CLOCK_REALTIME)};
    return delivery;
}

void intake_route(struct shard *shard, struct delivery *delivery) {
    if (stopped_take(shard, delivery))
        return;
    uint64_t asked_us = now_us();
    struct routing *routing = malloc(sizeof(*routing));
    if (routing == NULL) { /* Redis keeps it as pending: read again once its job has left */
        fetch_let_go(delivery->job);
        log_write(LOG_LEVEL_ERROR, "control", "out of memory: a recipient stays pending in Redis");
        delivery_free(delivery);
        return;
    }
    *routing = (struct routing){.shard = shard, .delivery = delivery, .asked_us = asked_us};
    shard->routing++;
    const char *domain = job_recipient(delivery->job, delivery->index)->mailbox.domain;
    if (report_is_mail(delivery->job))
        route_find_relaxed(shard->route, domain, on_route, routing);
    else
        route_find(shard->route, domain, on_route, routing);
}

bool intake_in_flight(void *context, uint32_t queue_shard, const char *stream, struct entry_id entry, uint32_t index) {
    struct shard *shard = context;
    return dispatch_in_flight(shard->dispatch, queue_shard, stream, entry, index);
}

void intake_release(struct shard *shard) {
    while (shard->parked_first != NULL) {
        struct delivery *next = shard->parked_first->next;
        delivery_free(shard->parked_first);
        shard->parked_first = next;
    }
    shard->parked_last = NULL;
    shard->parked = 0;
}
