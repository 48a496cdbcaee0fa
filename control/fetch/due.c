/* due.c: promotion of what is due. */
#include "state.h"

#include "control/observe/log.h"

#include <inttypes.h>
#include <stdio.h>

enum {
    PROMOTE_RECORDS = 256,
};

static void on_promoted(void *context, redisReply *reply) {
    struct fetch *fetch = context;
    if (!fetch_answered(fetch)) {
        return;
    }
    fetch->ticking = false;
    int64_t wait_ms = TICK_MS;
    if (reply && reply->type == REDIS_REPLY_ARRAY && reply->elements >= 2 && reply->element[0]->type == REDIS_REPLY_INTEGER &&
        reply->element[1]->type == REDIS_REPLY_INTEGER) {
        fetch->counters.promoted += (uint64_t)reply->element[0]->integer;
        if (reply->element[1]->integer >= 0) {
            wait_ms = (int64_t)reply->element[1]->integer - (int64_t)clock_ms(CLOCK_REALTIME);
        }
        /* What is due and did not move waits until its stream is shorter. */
        int64_t least = reply->element[0]->integer > 0 ? TICK_MIN_MS : PAUSE_MS;
        wait_ms = wait_ms < least ? least : wait_ms > TICK_MS ? TICK_MS : wait_ms;
    } else if (redis_error(reply)) {
        log_write(LOG_LEVEL_ERROR, "fetch", "promoting due jobs failed: %.200s", redis_error(reply));
    }
    fetch_timer_set(fetch->tick, (uint32_t)wait_ms);
}

void fetch_tick(evutil_socket_t fd, short what, void *context) {
    struct fetch *fetch = context;
    fetch_timer_set(fetch->tick, TICK_MS);
    if (!fetch_active(fetch)) {
        return;
    }
    if (fetch->reread_ms && clock_ms(CLOCK_MONOTONIC) >= fetch->reread_ms) {
        fetch->reread_ms = 0;
        streams_reread(&fetch->streams);
        others_sweep_again(fetch);
    }
    fetch_reread_let_go(fetch);
    if (fetch->state == FETCH_FULL) {
        fetch_resume(fetch);
    }
    char due[REDIS_KEY_MAX + 8], now[24], limit[16];
    snprintf(due, sizeof due, "%sdue", fetch->prefix);
    snprintf(now, sizeof now, "%" PRIu64, clock_ms(CLOCK_REALTIME));
    snprintf(limit, sizeof limit, "%d", PROMOTE_RECORDS);
    if (!fetch->ticking) {
        const char *argv[] = {"FCALL", "bypost_promote", "1", due, fetch->prefix, now, limit};
        fetch->ticking = fetch_send(fetch, fetch->config.redis, on_promoted, 7, argv, NULL);
    }
}
