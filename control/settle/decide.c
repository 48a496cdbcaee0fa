/* decide.c: reply and schedule -> delivered, deferred until when, or ended. */
#include "decide.h"

#include <string.h>

enum { QUOTA_GIVE_UP_MS = 24 * 3600 * 1000 };   /* SMTP.md section 6: a full mailbox */
#define HOLD_BY_HAND_MS UINT64_C(9999999999999) /* the bucket of a hold that does not end by itself */

/* Where the configuration knows neither the queue nor `normal`: QUEUE.md's row for normal. */
static const struct config_retry retry_fallback = {.first_ms = 300000, .max_ms = 7200000, .give_up_ms = 172800000};

const char *event_type_text(enum event_type type) {
    static const char *const names[] = {"accepted", "delivered", "deferred", "bounced", "expired", "suppressed", "cancelled", "dead"};
    return (unsigned)type < EVENT_TYPES ? names[type] : "unknown";
}

uint64_t bucket_ms(uint64_t now_ms, uint64_t delay_ms) {
    uint64_t width = delay_ms < 60000 ? 1000 : delay_ms < 3600000 ? 10000 : 60000;
    return (now_ms + delay_ms + width - 1) / width * width;
}

static const struct config_retry *retry_of(const struct config *config, const char *queue) {
    const struct config_queue *found = config_queue_named(config, queue);
    if (!found) {
        found = config_queue_named(config, "normal");
    }
    return found ? &found->retry : &retry_fallback;
}

/* first, doubling to max, with a tenth of jitter either way; or what the reply's class asks for, never earlier. */
static uint64_t retry_delay(const struct config_retry *retry, const struct settle_item *item, uint32_t random) {
    if (item->classification.retry_after_s > 0) {
        uint64_t asked = (uint64_t)item->classification.retry_after_s * 1000;
        return asked + asked * random / ((uint64_t)UINT32_MAX * 10);
    }
    uint64_t delay = retry->first_ms;
    for (uint16_t i = 0; i < item->cookie.attempt && delay < retry->max_ms; i++) {
        delay *= 2;
    }
    delay = delay > retry->max_ms ? retry->max_ms : delay;
    return delay * 9 / 10 + delay * random / ((uint64_t)UINT32_MAX * 5);
}

static void decide_retry(const struct settle_item *item, const struct job *job, const struct config *config, uint64_t now_ms,
                         uint32_t random, struct decision *out) {
    const struct config_retry *retry = retry_of(config, item->cookie.queue);
    uint64_t deadline = item->cookie.first_queued_ms + retry->give_up_ms;
    if (job && job->expires_at_ms && job->expires_at_ms < deadline) {
        deadline = job->expires_at_ms;
    }
    if (item->classification.class == CLASS_QUOTA) {
        /* From the first attempt, which is the first deferral unless another reply came before it. */
        uint64_t first_ms = item->cookie.date_s ? item->cookie.date_s * 1000 : now_ms;
        deadline = first_ms + QUOTA_GIVE_UP_MS < deadline ? first_ms + QUOTA_GIVE_UP_MS : deadline;
    }
    uint64_t next = bucket_ms(now_ms, retry_delay(retry, item, random));
    if (next > deadline) { /* no attempt fits before its time is up */
        out->action = ACTION_EXPIRED;
        out->event = EVENT_EXPIRED;
        return;
    }
    out->action = ACTION_DEFERRED;
    out->event = EVENT_DEFERRED;
    out->next_attempt_ms = next;
    out->history.attempt += !item->classification.unattempted;
}

void decide(const struct settle_item *item, const struct job *job, const struct config *config, uint64_t now_ms, uint32_t random,
            struct decision *out) {
    const struct settle_cookie *cookie = &item->cookie;
    bool uncertain = item->outcome.kind == OUTCOME_UNCERTAIN;
    *out = (struct decision){.event = EVENT_TYPES};
    if (job) {
        out->history = job->history;
    }
    out->history.origin = cookie->origin;
    out->history.attempt = cookie->attempt;
    out->history.first_queued_ms = cookie->first_queued_ms;
    out->history.date_s = cookie->date_s;
    out->history.uncertain = cookie->uncertain_before || uncertain;
    if (item->outcome.kind == OUTCOME_RETURNED || item->classification.verdict == VERDICT_RETURNED) {
        out->action = ACTION_RETURNED;
        out->next_attempt_ms = now_ms / 1000 * 1000 + (uint64_t)item->classification.retry_after_s * 1000;
        return;
    }
    if (item->classification.verdict == VERDICT_PARKED) {
        out->action = ACTION_PARKED;
        out->next_attempt_ms = item->waits_until_ms ? item->waits_until_ms : now_ms;
        return;
    }
    if ((uncertain && config->on_uncertain == UNCERTAIN_HOLD) || item->classification.verdict == VERDICT_HELD) {
        bool stopped = item->waits_for && (item->outcome.kind == OUTCOME_LOCAL || item->classification.unattempted);
        out->action = ACTION_HELD;
        out->next_attempt_ms = item->waits_until_ms ? bucket_ms(item->waits_until_ms, 0) : HOLD_BY_HAND_MS;
        out->event = stopped ? EVENT_TYPES : EVENT_DEFERRED;
        out->history.attempt += !stopped;
        return;
    }
    if (uncertain) {
        decide_retry(item, job, config, now_ms, random, out);
        return;
    }
    switch (item->classification.verdict) {
    case VERDICT_DELIVERED:
        out->action = ACTION_DELIVERED;
        out->event = EVENT_DELIVERED;
        break;
    case VERDICT_BOUNCED:
        switch (item->classification.class) {
        case CLASS_SUPPRESSED:
            out->action = ACTION_SUPPRESSED;
            out->event = EVENT_SUPPRESSED;
            break;
        case CLASS_CANCELLED:
            out->action = ACTION_CANCELLED;
            out->event = EVENT_CANCELLED;
            break;
        case CLASS_EXPIRED:
            out->action = ACTION_EXPIRED;
            out->event = EVENT_EXPIRED;
            break;
        default:
            out->action = ACTION_BOUNCED;
            out->event = EVENT_BOUNCED;
            break;
        }
        break;
    case VERDICT_DEFERRED:
    default:
        decide_retry(item, job, config, now_ms, random, out);
        break;
    }
}
