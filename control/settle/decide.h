/* decide.h: what becomes of a recipient after an attempt, and the record of it. Private to settle; pure. */
#ifndef CONTROL_SETTLE_DECIDE_H
#define CONTROL_SETTLE_DECIDE_H

#include "settle.h"
#include "text.h"

/* The letters are those of bypost.lua. */
enum settle_action {
    ACTION_DELIVERED = 'd',
    ACTION_DEFERRED = 'f',
    ACTION_BOUNCED = 'b',
    ACTION_EXPIRED = 'x',
    ACTION_SUPPRESSED = 's',
    ACTION_CANCELLED = 'c',
    ACTION_RETURNED = 'r',
    ACTION_HELD = 'h',
    ACTION_PARKED = 'p',
};

/* Does the recipient go on waiting? */
static inline bool action_waits(enum settle_action action) {
    return action == ACTION_DEFERRED || action == ACTION_RETURNED || action == ACTION_HELD || action == ACTION_PARKED;
}

struct decision {
    enum settle_action action;
    enum event_type event;      /* or EVENT_TYPES: none (returned, parked, stopped by a hold before its attempt) */
    uint64_t next_attempt_ms;   /* CLOCK_REALTIME: the time bucket, or when to look again */
    struct job_history history; /* of the next attempt, where it waits */
};

/* `random`: any 32 bits, for the jitter of a tenth; the same for all that should come back together. `job` may be NULL. */
void decide(const struct settle_item *item, const struct job *job, const struct config *config, uint64_t now_ms, uint32_t random,
            struct decision *out);
/* The time bucket of a delay that begins now: seconds under a minute, ten seconds under an hour, minutes beyond; never earlier than asked.
 */
uint64_t bucket_ms(uint64_t now_ms, uint64_t delay_ms);
/* The record of an attempt as one JSON object (QUEUE.md, events and the delivery log); `text` is emptied first. `job` may be NULL. */
void event_write(struct text *text, const struct settle_item *item, const struct job *job, const struct decision *decision,
                 const struct config *config);

#endif
