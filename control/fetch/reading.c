/* reading.c: reads of high, normal and bulk with their retries: what there is, what is pending, and the waiting read. */
#include "state.h"

#include "control/observe/log.h"
#include "entry.h"
#include "live.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK_MS = 2000,
    BLOCK_COUNT_MAX = 32, /* entries a waiting read: they come without being asked for at that moment */
    READ_BYTES = 8 << 20, /* of jobs a read, by the average of late */
};

uint32_t reading_room(struct fetch *fetch, bool high) {
    uint32_t room = fetch->config.room(fetch->config.context), reserve = high ? 0 : fetch->config.high_reserve;
    uint64_t held = reserve + (high ? 0 : fetch->completing);
    if (room <= held || fetch_bytes(fetch) >= FETCH_BYTES_MAX) {
        return 0;
    }
    return room - (uint32_t)held;
}

uint32_t reading_count(const struct fetch *fetch, uint32_t room) {
    double count = fetch->count;
    double by_room = room / (fetch->recipients_average > 1 ? fetch->recipients_average : 1);
    double by_bytes = READ_BYTES / (fetch->bytes_average > 1 ? fetch->bytes_average : 1);
    count = count < by_room ? count : by_room;
    count = count < by_bytes ? count : by_bytes;
    return count < 1 ? 1 : (uint32_t)count;
}

void reading_failed(struct fetch *fetch, const char *error) {
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
        const struct stream *stream = streams_by_key(&fetch->streams, of->element[0]->str);
        const redisReply *list = of->element[1];
        for (size_t j = 0; stream && j < list->elements; j++) {
            fetch_take(fetch, stream, list->element[j], 0);
        }
        *full |= list->elements >= asked;
        entries += (uint32_t)list->elements;
    }
    excess_move(fetch);
    return entries;
}

/* A read that brought something makes the next one larger. */
static void count_grow(struct fetch *fetch, bool any) {
    if (any) {
        fetch->count = fetch->count * 2 > COUNT_MAX ? COUNT_MAX : fetch->count * 2;
    }
}

static void on_read(void *context, redisReply *reply) {
    struct fetch *fetch = context;
    if (!fetch_answered(fetch) || fetch->state != FETCH_READING || !reply) {
        return;
    }
    uint64_t before = fetch->counters.recipients_read;
    bool full = false;
    if (reply->type == REDIS_REPLY_ARRAY) {
        uint32_t entries = read_take(fetch, reply, fetch->asked, &full);
        fetch->pass_entries += entries;
        count_grow(fetch, entries > 0);
    } else if (reply->type != REDIS_REPLY_NIL) {
        reading_failed(fetch, redis_error(reply));
        return;
    }
    uint64_t recipients = fetch->counters.recipients_read - before;
    if (fetch->class < CLASS_STREAM_NORMAL) {
        fetch->class ++;
    } else {
        flows_charge(&fetch->flows, fetch->flow, recipients, full);
        fetch->tried |= recipients == 0 ? 1u << fetch->flow : 0;
        fetch->class = recipients == 0 ? CLASS_STREAM_NORMAL : STREAM_CLASSES;
    }
    fetch_next(fetch);
}

/* bypost_read: {last ID, entries with progress, the queue's expires_at}. */
static void on_read_again(void *context, redisReply *reply) {
    struct fetch *fetch = context;
    if (!fetch_answered(fetch) || fetch->state != FETCH_READING || !reply) {
        return;
    }
    struct stream *stream = streams_by_name(&fetch->streams, fetch->reading);
    struct stream *other = stream ? NULL : others_by_name(fetch, fetch->reading);
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements < 2 || reply->element[0]->type != REDIS_REPLY_STRING ||
        reply->element[1]->type != REDIS_REPLY_ARRAY) {
        if (fetch_is_fenced(fetch, redis_error(reply))) {
            return;
        }
        if (stream) {
            stream->state = STREAM_READY; /* reading_failed makes its group sure again */
        }
        if (other) {
            others_remove(fetch, other); /* a queue that is gone */
            fetch_next(fetch);
        } else {
            reading_failed(fetch, redis_error(reply));
        }
        return;
    }
    struct entry_id last;
    bool more = entry_id_parse(reply->element[0]->str, reply->element[0]->len, &last);
    stream = stream ? stream : other;
    if (stream) {
        const struct stream taken = *stream; /* others may move while entries are handed on */
        const redisReply *expires = reply->elements > 2 ? reply->element[2] : NULL;
        uint64_t expires_ms = expires && expires->type == REDIS_REPLY_STRING ? strtoull(expires->str, NULL, 10) : 0;
        for (size_t i = 0; i < reply->element[1]->elements; i++) {
            fetch_take(fetch, &taken, reply->element[1]->element[i], expires_ms);
        }
        excess_move(fetch);
    }
    if (!fetch_active(fetch)) {
        return;
    }
    if (other && (stream = others_by_name(fetch, fetch->reading))) {
        if (more) {
            stream->cursor = last;
        } else if (stream->let_go) {
            stream->let_go = false;
            stream->cursor = (struct entry_id){0, 0};
        } else {
            others_remove(fetch, stream);
        }
    } else if (stream && more) {
        stream->cursor = last;
    } else if (stream) {
        stream->state = STREAM_READY;
    }
    count_grow(fetch, reply->element[1]->elements > 0);
    fetch->pass_entries++; /* the pass was not idle: the streams behind are read once more before waiting */
    fetch_next(fetch);
}

void reading_again(struct fetch *fetch, const struct stream *stream, uint32_t count) {
    char start[ENTRY_ID_BYTES], number[16], epoch[24];
    if (stream->state == STREAM_REREAD) {
        snprintf(start, sizeof start, ">");
    } else {
        entry_id_write(stream->cursor, start);
    }
    snprintf(number, sizeof number, "%" PRIu32, count);
    snprintf(fetch->reading, sizeof fetch->reading, "%s", stream->name);
    fetch_epoch(fetch, epoch);
    const char *argv[] = {"FCALL",      "bypost_read",         "1",   stream->key, fetch->prefix,
                          stream->name, fetch_consumer(fetch), start, number,      epoch};
    fetch_enter(fetch, FETCH_READING);
    if (!fetch_send(fetch, fetch->config.redis, on_read_again, 10, argv, NULL)) {
        fetch_pause(fetch, PAUSE_MS);
    }
}

/* XREADGROUP over the ready streams of a class (STREAM_CLASSES: all); COUNT holds for each. 0: there are none; -1: not sent. */
static int read_send(struct fetch *fetch, struct redis *redis, enum stream_class class, uint32_t count, const char *block_ms,
                     void (*done)(void *context, redisReply *reply)) {
    const char *argv[16 + 2 * STREAMS_MAX];
    const struct stream *of[STREAMS_MAX];
    char number[16];
    int argc = 0, streams = 0;
    for (uint32_t i = 0; i < fetch->streams.count; i++) {
        const struct stream *stream = &fetch->streams.items[i];
        if (stream->state == STREAM_READY && (class == STREAM_CLASSES || stream->class == class) && fetch_reads(fetch, stream)) {
            of[streams++] = stream;
        }
    }
    if (streams == 0) {
        return 0;
    }
    snprintf(number, sizeof number, "%" PRIu32, count);
    const char *const head[] = {"XREADGROUP", "GROUP", "senders", fetch_consumer(fetch), "COUNT", number};
    for (size_t i = 0; i < sizeof head / sizeof *head; i++) {
        argv[argc++] = head[i];
    }
    if (block_ms) {
        argv[argc++] = "BLOCK";
        argv[argc++] = block_ms;
    }
    argv[argc++] = "STREAMS";
    for (int i = 0; i < streams; i++) {
        argv[argc + i] = of[i]->key;
        argv[argc + streams + i] = ">";
    }
    return fetch_send(fetch, redis, done, argc + 2 * streams, argv, NULL) ? streams : -1;
}

bool reading_new(struct fetch *fetch, enum stream_class class, uint32_t count) {
    uint32_t streams = class == CLASS_STREAM_HIGH || class == CLASS_STREAM_RETRY ? 2 : 1;
    fetch->asked = count / streams ? count / streams : 1;
    int sent = read_send(fetch, fetch->config.redis, class, fetch->asked, NULL, on_read);
    if (sent > 0) {
        fetch_enter(fetch, FETCH_READING);
    } else if (sent < 0) {
        fetch_pause(fetch, PAUSE_MS);
    }
    return sent != 0;
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
    bool waiting = fetch->state == FETCH_WAITING;
    if (!reply) {
        /* It may have brought something on its way: what is pending is looked through again; what lives here is known. */
        streams_reread(&fetch->streams);
        if (waiting) {
            fetch_pause(fetch, PAUSE_MS);
        }
        return;
    }
    bool full = false;
    uint32_t entries = 0;
    if (reply->type == REDIS_REPLY_ARRAY) {
        entries = read_take(fetch, reply, fetch->wait_count, &full);
    } else if (reply->type != REDIS_REPLY_NIL && waiting) {
        reading_failed(fetch, redis_error(reply));
        return;
    }
    if (waiting || fetch->state == FETCH_FULL) {
        /* A read that came back short has emptied the streams: wait again without a pass over them. */
        fetch->class = full || !waiting ? CLASS_STREAM_HIGH : STREAM_CLASSES;
        fetch->pass_entries = full ? entries : 0;
        fetch->tried = 0;
        fetch_enter(fetch, FETCH_READING);
        fetch_next(fetch);
    }
}

bool reading_wait(struct fetch *fetch, bool high) {
    char block[16];
    uint32_t count = reading_count(fetch, reading_room(fetch, high));
    snprintf(block, sizeof block, "%d", BLOCK_MS);
    /* Each stream may give as many; the overshoot waits in the backlog. */
    fetch->wait_count = count < BLOCK_COUNT_MAX ? count : BLOCK_COUNT_MAX;
    fetch->wait_busy = read_send(fetch, fetch->wait, high ? CLASS_STREAM_HIGH : STREAM_CLASSES, fetch->wait_count, block, on_waited) > 0;
    return fetch->wait_busy;
}
