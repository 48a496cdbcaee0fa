/* fetch.c: what is read next. Entries that are there are read without blocking, high first; when nothing is there a second connection waits
 * for high, normal and bulk at once, so that a new job arrives in a fraction of a millisecond and an empty queue costs nothing; campaigns
 * are asked for twenty times a second then. */
#include "state.h"

#include "control/observe/log.h"
#include "entry.h"
#include "live.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void fetch_timer_set(struct event *timer, uint32_t ms) {
    struct timeval after = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};
    event_add(timer, &after);
}

const char *fetch_consumer(const struct fetch *fetch) {
    return fetch->consumer;
}

bool fetch_send(struct fetch *fetch, struct redis *redis, void (*done)(void *context, redisReply *reply), int argc, const char *const *argv,
                const size_t *lengths) {
    if (redis_send(redis, done, fetch, argc, argv, lengths) != 0) {
        return false;
    }
    fetch->outstanding++;
    return true;
}

bool fetch_answered(struct fetch *fetch) {
    fetch->outstanding--;
    if (fetch->destroyed && fetch->outstanding == 0) {
        free(fetch);
        return false;
    }
    return !fetch->destroyed;
}

void fetch_reread(struct fetch *fetch) {
    if (fetch->reread_ms == 0) {
        fetch->reread_ms = clock_ms(CLOCK_MONOTONIC) + REREAD_MS;
    }
}

bool fetch_active(const struct fetch *fetch) {
    return fetch->state != FETCH_STOPPED && fetch->state != FETCH_DOWN;
}

bool fetch_reads(const struct fetch *fetch, const struct stream *stream) {
    return !fetch->config.reads || fetch->config.reads(fetch->config.context, fetch->config.shard, stream->queue);
}

static uint64_t epoch_now(const struct fetch *fetch) {
    return fetch->config.epoch ? fetch->config.epoch(fetch->config.context, fetch->config.shard) : 0;
}

void fetch_epoch(const struct fetch *fetch, char out[24]) {
    snprintf(out, 24, "%" PRIu64, epoch_now(fetch));
}

bool fetch_is_fenced(struct fetch *fetch, const char *error) {
    if (!error || strncmp(error, "FENCED", 6) != 0) {
        return false;
    }
    if (!fetch->fenced) {
        log_write(LOG_LEVEL_WARNING, "fetch", "reading stops: %.200s", error);
        fetch->counters.fenced++;
    }
    fetch->fenced = fetch->unknown = true;
    if (fetch->wait_busy) {
        redis_reconnect(fetch->wait, "this node is fenced"); /* so that Redis gives the waiting read nothing more */
    }
    fetch_pause(fetch, TICK_MS);
    return true;
}

void fetch_let_go(struct job *job) {
    ((struct job_box *)job)->let_go = true;
}

/* A stream that is not known any more is read from its beginning when it comes back. */
static void on_left(void *context, const struct job *job) {
    struct fetch *fetch = context;
    struct stream *stream = streams_by_name(&fetch->streams, job->stream);
    if (stream) {
        stream->let_go = true;
    } else {
        others_add(fetch, job->stream);
    }
}

bool fetch_reread_let_go(struct fetch *fetch) {
    bool waits = others_pending(fetch) != NULL;
    for (uint32_t i = 0; i < fetch->streams.count; i++) {
        struct stream *stream = &fetch->streams.items[i];
        if (stream->let_go && stream->state == STREAM_READY) {
            stream->let_go = false;
            stream->state = STREAM_PENDING;
            stream->cursor = (struct entry_id){0, 0};
        }
        waits |= (stream->state == STREAM_PENDING || stream->state == STREAM_REREAD) && fetch_reads(fetch, stream);
    }
    return waits;
}

/* --- groups --- */

/* A 1 for each stream whose group is new, in the order of the question. */
static void on_groups(void *context, redisReply *reply) {
    struct fetch *fetch = context;
    if (!fetch_answered(fetch)) {
        return;
    }
    bool ok = reply && reply->type == REDIS_REPLY_ARRAY;
    size_t answer = 0;
    for (uint32_t i = 0; i < fetch->streams.count; i++) {
        struct stream *stream = &fetch->streams.items[i];
        if (stream->state == STREAM_GROUPING) {
            bool is_new = ok && answer < reply->elements && reply->element[answer]->integer == 1;
            stream->state = !ok || answer >= reply->elements ? STREAM_UNKNOWN : is_new ? STREAM_REREAD : STREAM_PENDING;
            stream->cursor = (struct entry_id){0, 0};
            answer++;
        }
    }
    fetch->grouping = false;
    if (fetch->state != FETCH_GROUPING) {
        return;
    }
    if (ok) {
        fetch->class = CLASS_STREAM_HIGH; /* a pass from the beginning: the new ones are not ready, so no waiting read covers them */
        fetch->pass_entries = 0;
        fetch->tried = 0;
        fetch_enter(fetch, FETCH_READING);
        fetch_next(fetch);
    } else {
        log_write(LOG_LEVEL_ERROR, "fetch", "the consumer groups cannot be made: %.200s",
                  reply && redis_error(reply) ? redis_error(reply) : "no answer");
        fetch_pause(fetch, TICK_MS);
    }
}

/* True when groups are to be made sure of first. */
static bool groups_begin(struct fetch *fetch) {
    const char *argv[5 + STREAMS_MAX] = {"FCALL", "bypost_groups", "1", fetch->streams.items[0].key, fetch->prefix};
    int argc = 5;
    for (uint32_t i = 0; i < fetch->streams.count && !fetch->grouping; i++) {
        if (fetch->streams.items[i].state == STREAM_UNKNOWN) {
            argv[argc++] = fetch->streams.items[i].name;
        }
    }
    if (argc > 5) {
        fetch->grouping = fetch_send(fetch, fetch->config.redis, on_groups, argc, argv, NULL);
        if (!fetch->grouping) {
            fetch_pause(fetch, TICK_MS);
            return true;
        }
        for (uint32_t i = 0; i < fetch->streams.count; i++) {
            struct stream *stream = &fetch->streams.items[i];
            stream->state = stream->state == STREAM_UNKNOWN ? STREAM_GROUPING : stream->state;
        }
    }
    if (fetch->grouping) {
        fetch_enter(fetch, FETCH_GROUPING);
    }
    return fetch->grouping;
}

/* --- the machine --- */

void fetch_enter(struct fetch *fetch, enum fetch_state state) {
    fetch->state = state;
    if (state != FETCH_PAUSED) {
        evtimer_del(fetch->again);
    }
}

void fetch_pause(struct fetch *fetch, uint32_t ms) {
    if (fetch_active(fetch)) {
        fetch_enter(fetch, FETCH_PAUSED);
        fetch_timer_set(fetch->again, ms);
    }
}

static void pass_begin(struct fetch *fetch) {
    fetch->class = CLASS_STREAM_HIGH;
    fetch->pass_entries = 0;
    fetch->tried = 0;
}

/* Nothing is there: the second connection waits, and campaigns are looked at in a moment. */
static void wait_begin(struct fetch *fetch) {
    fetch->count = COUNT_FIRST;
    if (!fetch->wait_busy && !reading_wait(fetch, false)) {
        fetch_pause(fetch, POLL_MS);
        return;
    }
    fetch_enter(fetch, FETCH_WAITING);
    fetch_timer_set(fetch->again, POLL_MS);
}

/* No room, but perhaps for high. */
static void full_begin(struct fetch *fetch) {
    if (fetch_bytes(fetch) >= FETCH_BYTES_MAX) {
        fetch_pause(fetch, PAUSE_MS); /* nobody tells when jobs have gone */
        return;
    }
    fetch_enter(fetch, FETCH_FULL);
    if (fetch->config.high_reserve > 0 && reading_room(fetch, true) > 0 && !fetch->wait_busy) {
        reading_wait(fetch, true);
    }
}

/* Reads pending entries of the class where this pass is. True: under way. */
static bool pending_begin(struct fetch *fetch, uint32_t count) {
    for (uint32_t i = 0; i < fetch->streams.count; i++) {
        const struct stream *stream = &fetch->streams.items[i];
        if (stream->class == fetch->class && (stream->state == STREAM_PENDING || stream->state == STREAM_REREAD) &&
            fetch_reads(fetch, stream)) {
            reading_again(fetch, stream, count);
            return true;
        }
    }
    const struct stream *other = fetch->class == CLASS_STREAM_RETRY ? others_pending(fetch) : NULL;
    if (other) {
        reading_again(fetch, other, count);
    }
    return other != NULL;
}

/* Normal, bulk and the others: the one that had least for its weight. False: all were tried. */
static bool flow_begin(struct fetch *fetch, uint32_t room) {
    for (;;) {
        fetch->flow = flows_next(&fetch->flows, fetch->tried);
        if (fetch->flow == FLOWS) {
            return false;
        }
        if (fetch->flow == FLOW_OTHERS) {
            others_take(fetch, room);
            return true;
        }
        fetch->class = fetch->flow == FLOW_NORMAL ? CLASS_STREAM_NORMAL : CLASS_STREAM_BULK;
        uint32_t count = reading_count(fetch, room);
        if (pending_begin(fetch, count) || reading_new(fetch, fetch->class, count)) {
            return true;
        }
        fetch->tried |= 1u << fetch->flow;
    }
}

void fetch_next(struct fetch *fetch) {
    if (!fetch_active(fetch)) {
        return;
    }
    if (redis_state(fetch->config.redis) != REDIS_UP) {
        fetch_enter(fetch, FETCH_DOWN);
        return;
    }
    if (fetch->unknown) {
        others_take(fetch, 0);
        return;
    }
    if (groups_begin(fetch) || others_sweep(fetch)) {
        return;
    }
    for (;;) {
        bool delivered = backlog_deliver(fetch);
        uint32_t room = reading_room(fetch, fetch->class == CLASS_STREAM_HIGH);
        if (!fetch_active(fetch)) {
            return; /* stopped by a callee */
        }
        if (room == 0 || (!delivered && fetch->class != CLASS_STREAM_HIGH)) {
            full_begin(fetch);
            return;
        }
        if (fetch->class >= STREAM_CLASSES) {
            bool idle = fetch->pass_entries == 0 && !fetch_reread_let_go(fetch);
            pass_begin(fetch);
            if (idle) {
                wait_begin(fetch);
                return;
            }
        } else if (fetch->class >= CLASS_STREAM_NORMAL) {
            if (flow_begin(fetch, room)) {
                return;
            }
            fetch->class = STREAM_CLASSES;
        } else {
            uint32_t count = reading_count(fetch, room);
            if (pending_begin(fetch, count) || reading_new(fetch, fetch->class, count)) {
                return;
            }
            fetch->class ++;
        }
    }
}

/* All groups, then what is pending, then new entries. */
static void fetch_begin(struct fetch *fetch) {
    fetch->epoch = epoch_now(fetch);
    fetch->unknown = true;
    fetch->fenced = false;
    for (uint32_t i = 0; i < fetch->streams.count; i++) {
        if (fetch->streams.items[i].state != STREAM_GROUPING) {
            fetch->streams.items[i].state = STREAM_UNKNOWN;
        }
    }
    others_sweep_again(fetch);
    pass_begin(fetch);
    fetch->count = COUNT_FIRST;
    fetch_enter(fetch, FETCH_READING);
    fetch_next(fetch);
}

static void on_again(evutil_socket_t fd, short what, void *context) {
    struct fetch *fetch = context;
    if (fetch->state == FETCH_DOWN && redis_state(fetch->config.redis) == REDIS_UP) {
        fetch_begin(fetch);
    } else if (fetch->state == FETCH_PAUSED) {
        pass_begin(fetch);
        fetch_enter(fetch, FETCH_READING);
        fetch_next(fetch);
    } else if (fetch->state == FETCH_WAITING) {
        fetch_timer_set(fetch->again, POLL_MS);
        others_poll(fetch);
    }
}

/* --- life --- */

static void on_up(void *context, bool run_id_changed) {
    struct fetch *fetch = context;
    if (fetch->state == FETCH_DOWN) {
        /* Only after the other listeners: settle first sends again what may be lost, and this connection keeps the order. */
        fetch_timer_set(fetch->again, 0);
    }
}

static void on_down(void *context, const char *reason) {
    struct fetch *fetch = context;
    if (fetch_active(fetch)) {
        fetch_enter(fetch, FETCH_DOWN);
    }
}

struct fetch *fetch_create(const struct fetch_config *config) {
    struct fetch *fetch = calloc(1, sizeof *fetch);
    char error[ERROR_BYTES];
    if (!fetch) {
        return NULL;
    }
    fetch->config = *config;
    fetch->recipients_average = 1;
    fetch->bytes_average = 4096;
    redis_shard_prefix(config->config, config->shard, fetch->prefix);
    snprintf(fetch->consumer, sizeof fetch->consumer, "%s", config->config->node ? config->config->node : "node");
    streams_init(&fetch->streams, fetch->prefix);
    fetch->live = live_create();
    fetch->again = evtimer_new(config->base, on_again, fetch);
    fetch->tick = evtimer_new(config->base, fetch_tick, fetch);
    fetch->wait = redis_create(config->base, config->config, error, sizeof error);
    struct redis_events events = {.up = on_up, .down = on_down, .context = fetch};
    if (fetch->live) {
        live_on_let_go(fetch->live, on_left, fetch);
    }
    if (!fetch->live || !fetch->again || !fetch->tick || !fetch->wait || redis_listen(config->redis, &events) != 0) {
        fetch_destroy(fetch);
        return NULL;
    }
    return fetch;
}

void fetch_start(struct fetch *fetch) {
    if (fetch->state != FETCH_STOPPED) {
        return;
    }
    fetch_enter(fetch, FETCH_DOWN);
    fetch_timer_set(fetch->again, 0);
    fetch_timer_set(fetch->tick, TICK_MIN_MS);
}

void fetch_resume(struct fetch *fetch) {
    if (fetch->state == FETCH_FULL && !fetch->delivering) {
        pass_begin(fetch);
        fetch_enter(fetch, FETCH_READING);
        fetch_next(fetch);
    }
}

void fetch_restart(struct fetch *fetch) {
    if (fetch->state == FETCH_STOPPED) {
        return;
    }
    if (fetch->epoch != epoch_now(fetch)) {
        live_let_go_all(fetch->live);
        backlog_release(fetch);
        fetch->generation++;
        fetch->epoch = epoch_now(fetch);
        fetch->unknown = true;
        fetch->fenced = false;
    }
    fetch->reread_ms = 0;
    if (fetch->state == FETCH_FULL || fetch->state == FETCH_WAITING || fetch->state == FETCH_PAUSED) {
        fetch_begin(fetch);
    } else if (fetch->state != FETCH_DOWN) {
        streams_reread(&fetch->streams); /* behind the read that is under way */
        others_sweep_again(fetch);
    }
}

void fetch_stop(struct fetch *fetch) {
    if (fetch->state == FETCH_STOPPED) {
        return;
    }
    fetch_enter(fetch, FETCH_STOPPED);
    evtimer_del(fetch->again);
    evtimer_del(fetch->tick);
    backlog_release(fetch);
    if (fetch->wait_busy) {
        redis_reconnect(fetch->wait, "reading stopped"); /* so that Redis gives the waiting read nothing more */
    }
}

void fetch_reconfigure(struct fetch *fetch, const struct config *config) {
    fetch->config.config = config;
    redis_reconfigure(fetch->wait, config);
}

void fetch_destroy(struct fetch *fetch) {
    if (!fetch) {
        return;
    }
    fetch->state = FETCH_STOPPED;
    fetch->outstanding++; /* until the end of this function */
    redis_ignore(fetch->config.redis, fetch);
    redis_destroy(fetch->wait);
    backlog_release(fetch);
    free(fetch->backlog);
    free(fetch->excess);
    free(fetch->others.items);
    live_destroy(fetch->live);
    if (fetch->again) {
        event_free(fetch->again);
    }
    if (fetch->tick) {
        event_free(fetch->tick);
    }
    fetch->destroyed = true;
    fetch_answered(fetch);
}

const struct fetch_counters *fetch_counters(const struct fetch *fetch) {
    return &fetch->counters;
}

uint64_t fetch_bytes(const struct fetch *fetch) {
    return live_bytes(fetch->live);
}
