/* fetch.c: which stream is read next. Entries that are there are read without blocking, high first; when nothing is there a second
 * connection waits for all streams at once, so that a new job arrives in a fraction of a millisecond and an empty queue costs nothing. */
#include "state.h"

#include "control/observe/log.h"
#include "entry.h"
#include "live.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    BLOCK_MS = 2000,
    POLL_MS = 50, /* while the second connection is away */
    COUNT_FIRST = 16,
    COUNT_MAX = 200,      /* entries a read */
    BLOCK_COUNT_MAX = 32, /* entries a waiting read: they come without being asked for at that moment */
    READ_BYTES = 8 << 20, /* of jobs a read, by the average of late */
};

static void fetch_next(struct fetch *fetch);
static void fetch_enter(struct fetch *fetch, enum fetch_state state);

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

static bool stream_reads(const struct fetch *fetch, const struct stream *stream) {
    return !fetch->config.reads || fetch->config.reads(fetch->config.context, fetch->config.shard, stream->queue);
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
    }
}

bool fetch_reread_let_go(struct fetch *fetch) {
    bool waits = false;
    for (uint32_t i = 0; i < fetch->streams.count; i++) {
        struct stream *stream = &fetch->streams.items[i];
        if (stream->let_go && stream->state == STREAM_READY) {
            stream->let_go = false;
            stream->state = STREAM_PENDING;
            stream->cursor = (struct entry_id){0, 0};
        }
        waits |= (stream->state == STREAM_PENDING || stream->state == STREAM_REREAD) && stream_reads(fetch, stream);
    }
    return waits;
}

/* --- reading --- */

static void fetch_pause(struct fetch *fetch, uint32_t ms) {
    if (fetch_active(fetch)) {
        fetch_enter(fetch, FETCH_PAUSED);
        fetch_timer_set(fetch->again, ms);
    }
}

/* A group or a key went away, or the answer makes no sense: the groups are made sure of again. */
static void read_failed(struct fetch *fetch, const char *error) {
    if (!error || strncmp(error, "NOGROUP", 7) != 0) {
        log_write(LOG_LEVEL_ERROR, "fetch", "reading failed: %.200s", error ? error : "an answer of unknown shape");
    } else {
        log_write(LOG_LEVEL_WARNING, "fetch", "a consumer group is gone; it is made anew from the beginning: %.160s", error);
    }
    for (uint32_t i = 0; i < fetch->streams.count; i++) {
        if (fetch->streams.items[i].state == STREAM_READY) {
            fetch->streams.items[i].state = STREAM_UNKNOWN;
        }
    }
    fetch_pause(fetch, PAUSE_MS);
}

/* How many entries the next read may bring; 0: no room. */
static uint32_t read_count(struct fetch *fetch) {
    uint32_t room = fetch->config.room(fetch->config.context);
    if (room == 0 || fetch_bytes(fetch) >= FETCH_BYTES_MAX) {
        return 0;
    }
    double count = fetch->count;
    double by_room = room / (fetch->recipients_average > 1 ? fetch->recipients_average : 1);
    double by_bytes = READ_BYTES / (fetch->bytes_average > 1 ? fetch->bytes_average : 1);
    count = count < by_room ? count : by_room;
    count = count < by_bytes ? count : by_bytes;
    return count < 1 ? 1 : (uint32_t)count;
}

/* The entries of an XREADGROUP over several streams. Returns how many; *full when one of the streams gave all that it was asked for. */
static uint32_t read_take(struct fetch *fetch, const redisReply *reply, uint32_t asked, bool *full) {
    uint32_t entries = 0;
    *full = false;
    for (size_t i = 0; i < reply->elements; i++) {
        const redisReply *of = reply->element[i];
        if (of->type != REDIS_REPLY_ARRAY || of->elements < 2 || of->element[0]->type != REDIS_REPLY_STRING ||
            of->element[1]->type != REDIS_REPLY_ARRAY) {
            continue;
        }
        struct stream *stream = streams_by_key(&fetch->streams, of->element[0]->str);
        if (!stream) {
            continue; /* a campaign that was forgotten meanwhile; its entries stay pending */
        }
        const redisReply *list = of->element[1];
        for (size_t j = 0; j < list->elements; j++) {
            fetch_take(fetch, stream, list->element[j], false);
        }
        if (list->elements > 0) {
            stream->read_ms = clock_ms(CLOCK_MONOTONIC);
        }
        *full |= list->elements >= asked;
        entries += (uint32_t)list->elements;
    }
    return entries;
}

static void on_read(void *context, redisReply *reply) {
    struct fetch *fetch = context;
    if (!fetch_answered(fetch) || fetch->state != FETCH_READING || !reply) {
        return;
    }
    if (reply->type == REDIS_REPLY_ARRAY) {
        bool full;
        fetch->pass_entries += read_take(fetch, reply, fetch->count, &full);
        fetch->count = fetch->count * 2 > COUNT_MAX ? COUNT_MAX : fetch->count * 2;
    } else if (reply->type != REDIS_REPLY_NIL) {
        read_failed(fetch, redis_error(reply));
        return;
    }
    fetch->class ++;
    fetch_next(fetch);
}

/* bypost_read: {last ID, entries with progress}. */
static void on_read_again(void *context, redisReply *reply) {
    struct fetch *fetch = context;
    if (!fetch_answered(fetch) || fetch->state != FETCH_READING || !reply) {
        return;
    }
    struct stream *stream = streams_by_name(&fetch->streams, fetch->reading);
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements < 2 || reply->element[0]->type != REDIS_REPLY_STRING ||
        reply->element[1]->type != REDIS_REPLY_ARRAY) {
        if (stream) {
            stream->state = STREAM_READY; /* read_failed makes its group sure again */
        }
        read_failed(fetch, redis_error(reply));
        return;
    }
    for (size_t i = 0; stream && i < reply->element[1]->elements; i++) {
        fetch_take(fetch, stream, reply->element[1]->element[i], true);
        stream->read_ms = clock_ms(CLOCK_MONOTONIC);
    }
    fetch->count = fetch->count * 2 > COUNT_MAX ? COUNT_MAX : fetch->count * 2;
    bool more = stream && entry_id_parse(reply->element[0]->str, reply->element[0]->len, &stream->cursor);
    if (stream && !more) {
        stream->state = STREAM_READY;
    }
    fetch->pass_entries++; /* the pass was not idle: the streams behind are read once more before waiting */
    fetch_next(fetch);
}

/* Reads one stream with the progress of its entries. */
static void read_again(struct fetch *fetch, struct stream *stream, uint32_t count) {
    char start[ENTRY_ID_BYTES], number[16];
    if (stream->state == STREAM_PENDING) {
        entry_id_write(stream->cursor, start);
    } else {
        snprintf(start, sizeof start, ">");
    }
    snprintf(number, sizeof number, "%" PRIu32, count);
    snprintf(fetch->reading, sizeof fetch->reading, "%s", stream->name);
    const char *argv[] = {"FCALL", "bypost_read", "1", stream->key, fetch->prefix, stream->name, fetch_consumer(fetch), start, number};
    fetch_enter(fetch, FETCH_READING);
    if (!fetch_send(fetch, fetch->config.redis, on_read_again, 9, argv, NULL)) {
        fetch_pause(fetch, PAUSE_MS);
    }
}

/* XREADGROUP over the ready streams of a class, or of all when class is STREAM_CLASSES. False when there is none. */
static bool read_new(struct fetch *fetch, struct redis *redis, enum stream_class class, uint32_t count, const char *block_ms,
                     void (*done)(void *context, redisReply *reply), bool *sent) {
    const char *argv[16 + 2 * STREAMS_MAX];
    char number[16];
    int argc = 0;
    uint32_t streams = 0;
    for (uint32_t i = 0; i < fetch->streams.count; i++) {
        const struct stream *stream = &fetch->streams.items[i];
        streams += stream->state == STREAM_READY && (class == STREAM_CLASSES || stream->class == class) && stream_reads(fetch, stream);
    }
    *sent = false;
    if (streams == 0) {
        return false;
    }
    /* COUNT holds for each stream. Bulk and each campaign get a quarter of what normal gets. */
    uint32_t share = class == CLASS_STREAM_BULK ? count / 4 / streams : class == CLASS_STREAM_NORMAL ? count : count / streams;
    fetch->count = class == STREAM_CLASSES ? fetch->count : count;
    snprintf(number, sizeof number, "%" PRIu32, share ? share : 1);
    const char *const head[] = {"XREADGROUP", "GROUP", "senders", fetch_consumer(fetch), "COUNT", number};
    for (size_t i = 0; i < sizeof head / sizeof *head; i++) {
        argv[argc++] = head[i];
    }
    if (block_ms) {
        argv[argc++] = "BLOCK";
        argv[argc++] = block_ms;
        fetch->wait_count = share ? share : 1;
    }
    argv[argc++] = "STREAMS";
    for (uint32_t i = 0; i < fetch->streams.count; i++) {
        const struct stream *stream = &fetch->streams.items[i];
        if (stream->state == STREAM_READY && (class == STREAM_CLASSES || stream->class == class) && stream_reads(fetch, stream)) {
            argv[argc + (int)streams] = ">";
            argv[argc++] = stream->key;
        }
    }
    *sent = fetch_send(fetch, redis, done, argc + (int)streams, argv, NULL);
    return true;
}

static void on_waited(void *context, redisReply *reply) {
    struct fetch *fetch = context;
    if (!fetch_answered(fetch)) {
        return;
    }
    fetch->wait_busy = false;
    if (!fetch_active(fetch)) {
        return; /* what it brought stays pending and is read at the next start */
    }
    if (!reply) {
        /* It may have brought something on its way: what is pending is looked through again; what lives here is known. */
        streams_reread(&fetch->streams);
        if (fetch->state == FETCH_WAITING) {
            fetch_pause(fetch, PAUSE_MS);
        }
        return;
    }
    bool full = false, waiting = fetch->state == FETCH_WAITING;
    uint32_t entries = 0;
    if (reply->type == REDIS_REPLY_ARRAY) {
        entries = read_take(fetch, reply, fetch->wait_count, &full);
    } else if (reply->type != REDIS_REPLY_NIL && waiting) {
        read_failed(fetch, redis_error(reply));
        return;
    }
    if (waiting) {
        /* A read that came back short has emptied the streams: wait again without a pass over them. */
        fetch->class = full ? CLASS_STREAM_HIGH : STREAM_CLASSES;
        fetch->pass_entries = full ? entries : 0;
        fetch_enter(fetch, FETCH_READING);
        fetch_next(fetch);
    }
}

static void wait_begin(struct fetch *fetch) {
    bool sent = false;
    char block[16];
    if (fetch->wait_busy) {
        fetch_enter(fetch, FETCH_WAITING);
        return;
    }
    uint32_t count = read_count(fetch);
    snprintf(block, sizeof block, "%d", BLOCK_MS);
    /* Each stream may give as many; the overshoot waits in the backlog. */
    bool any = read_new(fetch, fetch->wait, STREAM_CLASSES, (count < BLOCK_COUNT_MAX ? count : BLOCK_COUNT_MAX) * fetch->streams.count,
                        block, on_waited, &sent);
    if (any && sent) {
        fetch->wait_busy = true;
        fetch_enter(fetch, FETCH_WAITING);
    } else {
        fetch_pause(fetch, POLL_MS);
    }
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

/* The one place that changes the state. */
static void fetch_enter(struct fetch *fetch, enum fetch_state state) {
    fetch->state = state;
    if (state != FETCH_PAUSED) {
        evtimer_del(fetch->again);
    }
}

/* What comes next: called whenever nothing is under way. */
static void fetch_next(struct fetch *fetch) {
    if (!fetch_active(fetch)) {
        return;
    }
    if (redis_state(fetch->config.redis) != REDIS_UP) {
        fetch_enter(fetch, FETCH_DOWN);
        return;
    }
    if (groups_begin(fetch)) {
        return;
    }
    for (;;) {
        uint32_t count = backlog_deliver(fetch) ? read_count(fetch) : 0;
        if (!fetch_active(fetch)) {
            return; /* stopped by a callee */
        }
        if (count == 0 && fetch_bytes(fetch) >= FETCH_BYTES_MAX) {
            fetch_pause(fetch, PAUSE_MS); /* nobody tells when jobs have gone */
            return;
        }
        if (count == 0) {
            fetch_enter(fetch, FETCH_FULL);
            return;
        }
        if (fetch->class >= STREAM_CLASSES) {
            fetch->class = CLASS_STREAM_HIGH;
            if (fetch->pass_entries == 0 && !fetch_reread_let_go(fetch)) {
                fetch->count = COUNT_FIRST;
                wait_begin(fetch);
                return;
            }
            fetch->pass_entries = 0;
        }
        for (uint32_t i = 0; i < fetch->streams.count; i++) {
            struct stream *stream = &fetch->streams.items[i];
            if (stream->class == fetch->class && (stream->state == STREAM_PENDING || stream->state == STREAM_REREAD) &&
                stream_reads(fetch, stream)) {
                read_again(fetch, stream, count);
                return;
            }
        }
        bool sent;
        if (read_new(fetch, fetch->config.redis, fetch->class, count, NULL, on_read, &sent)) {
            if (sent) {
                fetch_enter(fetch, FETCH_READING);
            } else {
                fetch_pause(fetch, PAUSE_MS);
            }
            return;
        }
        fetch->class ++;
    }
}

/* All groups, then what is pending, then new entries. */
static void fetch_begin(struct fetch *fetch) {
    for (uint32_t i = 0; i < fetch->streams.count; i++) {
        if (fetch->streams.items[i].state != STREAM_GROUPING) {
            fetch->streams.items[i].state = STREAM_UNKNOWN;
        }
    }
    fetch->class = CLASS_STREAM_HIGH;
    fetch->pass_entries = 0;
    fetch->count = COUNT_FIRST;
    fetch_enter(fetch, FETCH_READING);
    fetch_next(fetch);
}

static void on_again(evutil_socket_t fd, short what, void *context) {
    struct fetch *fetch = context;
    if (fetch->state == FETCH_DOWN && redis_state(fetch->config.redis) == REDIS_UP) {
        fetch_begin(fetch);
    } else if (fetch->state == FETCH_PAUSED) {
        fetch->class = CLASS_STREAM_HIGH;
        fetch->pass_entries = 0;
        fetch_enter(fetch, FETCH_READING);
        fetch_next(fetch);
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
    streams_init(&fetch->streams, fetch->prefix, clock_ms(CLOCK_MONOTONIC));
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
        fetch_enter(fetch, FETCH_READING);
        fetch_next(fetch);
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
