/* checking.c: who is suppressed: asked for every job before it is routed, and again for what waits when somebody was put on a list. */
#include "state.h"

#include "control/observe/log.h"
#include <stdio.h>
#include <stdlib.h>

enum { ADDED_STEP_MS = 300 }; /* looking at all that waits takes milliseconds: not for every single addition */

static void end_suppressed(struct shard *shard, struct delivery *delivery, const char *reason) {
    static const uint16_t enhanced[3] = {5, 7, 1};
    char text[128];
    snprintf(text, sizeof(text), "the address is suppressed: %.64s", reason);
    ending_early(shard, delivery, CLASS_SUPPRESSED, 550, enhanced, 0, text);
}

static void on_checked(void *context, struct job *job, const char *const *reasons) {
    struct shard *shard = context;
    shard->checking -= job->pending_count;
    for (uint32_t i = 0; i < job->pending_count && !shard->draining; i++) {
        struct delivery *delivery = intake_delivery(job, job->pending[i]);
        if (delivery == NULL) {
            fetch_let_go(job); /* it stays pending and is read again */
            log_write(LOG_LEVEL_ERROR, "control", "out of memory: a recipient stays pending in Redis");
        } else if (reasons[i] != NULL)
            end_suppressed(shard, delivery, reasons[i]);
        else
            intake_route(shard, delivery);
    }
    job_release(job);
}

void checking_job(void *context, struct job *job) {
    struct shard *shard = context;
    shard->checking += job->pending_count;
    job->fence = job->shard < shard->queue_count ? shard->queues[job->shard].fences : 0;
    suppress_check(shard->suppress, job, on_checked, shard);
}

struct rechecking {
    struct shard *shard;
    struct delivery *delivery;
};

static void on_rechecked(void *context, const char *reason) {
    struct rechecking *rechecking = context;
    struct shard *shard = rechecking->shard;
    struct delivery *delivery = rechecking->delivery;
    free(rechecking);
    shard->checking--;
    if (shard->draining) {
        delivery_free(delivery);
    } else if (reason != NULL) {
        end_suppressed(shard, delivery, reason);
    } else {
        delivery->queued_ms = clock_ms(CLOCK_REALTIME);
        intake_enqueue(shard, delivery);
    }
}

static void recheck(void *context, struct delivery *delivery) {
    struct shard *shard = context;
    struct rechecking *rechecking = malloc(sizeof(*rechecking));
    if (rechecking == NULL) {
        fetch_let_go(delivery->job); /* it stays pending and is read again */
        delivery_free(delivery);
        return;
    }
    *rechecking = (struct rechecking){.shard = shard, .delivery = delivery};
    shard->checking++;
    suppress_check_one(shard->suppress, delivery->job, delivery->index, on_rechecked, rechecking);
}

bool checking_again(struct shard *shard, struct delivery *delivery) {
    if (!suppress_is_recent(shard->suppress, delivery))
        return false;
    recheck(shard, delivery);
    return true;
}

static bool is_recent(void *context, const struct delivery *delivery) {
    const struct shard *shard = context;
    return suppress_is_recent(shard->suppress, delivery);
}

void checking_withdraw(evutil_socket_t descriptor, short what, void *argument) {
    struct shard *shard = argument;
    if (shard->draining)
        return;
    dispatch_withdraw(shard->dispatch, is_recent, shard);
    shape_withdraw(shard->shape, is_recent, recheck, shard, now_us());
    /* Those that wait for room in their lane pass checking_again when they are tried again. */
}

void checking_added(void *context) {
    struct shard *shard = context;
    struct timeval soon = {.tv_usec = ADDED_STEP_MS * 1000};
    if (!evtimer_pending(shard->check_timer, NULL))
        evtimer_add(shard->check_timer, &soon);
}
