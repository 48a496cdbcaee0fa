/* stopped.c: what operators have stopped: what is new is asked for, what is in hand is taken back, and what matches waits, ends or is let
 * go. */
#include "state.h"

#include "control/observe/log.h"
#include <stdio.h>
#include <string.h>

/* Why a delivery may not go. */
struct verdict_of {
    enum queue_state state;
    const struct hold_rule *rule; /* of a queue that runs, or NULL */
};

static struct verdict_of verdict_of(const struct shard *shard, const struct delivery *delivery) {
    struct verdict_of found = {.state = hold_queue_state(shard->hold, delivery->job->shard, delivery->job->queue)};
    if (found.state == QUEUE_RUNNING)
        found.rule = hold_match(shard->hold, delivery, clock_ms(CLOCK_REALTIME));
    return found;
}

static bool stops(const void *context, const struct delivery *delivery) {
    const struct shard *shard = context;
    struct verdict_of found = verdict_of(shard, delivery);
    return found.state != QUEUE_RUNNING || found.rule != NULL;
}

static bool is_stopped(void *context, const struct delivery *delivery) {
    return stops(context, delivery);
}

bool stopped_order(void *context, const struct delivery *delivery) {
    struct shard *shard = context;
    if (membership_order(shard, delivery))
        return true;
    if (!hold_anything(shard->hold) || !stops(shard, delivery)) {
        guard_rendered(shard->guard, delivery->job, clock_ms(CLOCK_REALTIME));
        return false;
    }
    struct timeval soon = {0};
    if (!evtimer_pending(shard->withdraw_timer, NULL))
        evtimer_add(shard->withdraw_timer, &soon); /* it goes back to its lane first */
    return true;
}

bool stopped_reads(void *context, uint32_t queue_shard, const char *queue) {
    const struct shard *shard = context;
    enum queue_state state = hold_queue_state(shard->hold, queue_shard, queue);
    return state == QUEUE_RUNNING || state == QUEUE_DISCARDED;
}

static void wait_for_release(struct shard *shard, struct delivery *delivery, const struct hold_rule *rule) {
    struct settle_cookie cookie;
    dispatch_cookie(shard->dispatch, delivery, &cookie);
    struct outcome outcome = {.kind = OUTCOME_LOCAL, .stage = STAGE_CONNECT, .code = 451, .enhanced = {4, 7, 0}};
    outcome.finished_us = clock_us(CLOCK_REALTIME);
    snprintf(outcome.text, sizeof(outcome.text), "held by %.24s: %.400s", rule->id,
             rule->reason != NULL ? rule->reason : "no reason given");
    struct classification classification = {.class = CLASS_POLICY, .verdict = VERDICT_HELD, .scope = SCOPE_CAMPAIGN, .unattempted = true};
    ending_hold(shard, &cookie, &outcome, &classification, delivery, rule);
}

static void end_by_rule(struct shard *shard, struct delivery *delivery, const struct hold_rule *rule) {
    static const uint16_t enhanced[3] = {5, 7, 1};
    char text[512];
    snprintf(text, sizeof(text), "%.500s", rule->reason != NULL ? rule->reason : "ended by the operator");
    ending_early(shard, delivery, CLASS_POLICY, 550, enhanced, 0, text);
}

static void take(void *context, struct delivery *delivery) {
    static const uint16_t cancelled[3] = {5, 7, 0};
    struct shard *shard = context;
    struct verdict_of found = verdict_of(shard, delivery);
    if (found.state == QUEUE_DISCARDED) {
        ending_early(shard, delivery, CLASS_CANCELLED, 550, cancelled, 0, "the campaign was cancelled");
    } else if (found.rule != NULL && found.rule->action == HOLD_BOUNCE) {
        end_by_rule(shard, delivery, found.rule);
    } else if (found.rule != NULL) {
        wait_for_release(shard, delivery, found.rule);
    } else { /* paused or cancelled: Redis has it as pending, and it is read again when the queue runs */
        fetch_let_go(delivery->job);
        delivery_free(delivery);
    }
}

bool stopped_take(struct shard *shard, struct delivery *delivery) {
    if (membership_take(shard, delivery))
        return true;
    if (!hold_anything(shard->hold) || !stops(shard, delivery))
        return false;
    take(shard, delivery);
    return true;
}

/* Deliveries that wait for room in their lane. */
static void withdraw_parked(struct shard *shard) {
    struct delivery *list = shard->parked_first, **end = &shard->parked_first;
    shard->parked_first = shard->parked_last = NULL;
    shard->parked = 0;
    while (list != NULL) {
        struct delivery *next = list->next;
        if (!stopped_take(shard, list)) {
            list->next = NULL;
            *end = list;
            end = &list->next;
            shard->parked_last = list;
            shard->parked++;
        }
        list = next;
    }
}

void stopped_withdraw(evutil_socket_t descriptor, short what, void *argument) {
    struct shard *shard = argument;
    if (shard->draining || !hold_anything(shard->hold))
        return;
    dispatch_withdraw(shard->dispatch, is_stopped, shard);
    shape_withdraw(shard->shape, is_stopped, take, shard, now_us());
    withdraw_parked(shard);
    intake_resume(shard);
}

void stopped_changed(void *context) {
    struct shard *shard = context;
    stopped_withdraw(-1, 0, shard);
    intake_resume(shard); /* what was unknown, or stopped, may be read */
}
