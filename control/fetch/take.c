/* take.c: what becomes of an entry: a job that is handed on or waits for room, a scheduled one, or a dead letter. */
#include "state.h"

#include "control/observe/log.h"
#include "control/outcome.h"
#include "entry.h"
#include "live.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SCHEDULE_SLACK_MS = 1000,  /* a send_at nearer than this is now */
    EVENT_BYTES_ASSUMED = 512, /* for the bound of the events stream */
    TENANT_SHARE_MIN = 1000,   /* recipients of queue normal that a tenant may have here in any case, */
    TENANT_SHARE_OF = 4,       /* or a quarter of all that there is room for */
    EXCESS_MAX = 64,           /* entries that move in one call */
};

static void backlog_push(struct fetch *fetch, struct job *job) {
    if (fetch->backlog_first + fetch->backlog_count == fetch->backlog_size) {
        memmove(fetch->backlog, fetch->backlog + fetch->backlog_first, fetch->backlog_count * sizeof(struct job *));
        fetch->backlog_first = 0;
        if (fetch->backlog_count == fetch->backlog_size) {
            uint32_t size = fetch->backlog_size ? fetch->backlog_size * 2 : 64;
            struct job **grown = realloc(fetch->backlog, size * sizeof *grown);
            if (!grown) {
                job_release(job); /* its entry stays pending */
                fetch_reread(fetch);
                return;
            }
            fetch->backlog = grown;
            fetch->backlog_size = size;
        }
    }
    fetch->backlog[fetch->backlog_first + fetch->backlog_count++] = job;
}

static void job_deliver(struct fetch *fetch, struct job *job) {
    fetch->counters.recipients += job->pending_count;
    fetch->delivering = true;
    fetch->config.job(fetch->config.context, job);
    fetch->delivering = false;
}

bool backlog_deliver(struct fetch *fetch) {
    while (fetch->backlog_count > 0) {
        if (fetch->config.room(fetch->config.context) <= fetch->config.high_reserve) {
            return false;
        }
        struct job *job = fetch->backlog[fetch->backlog_first++];
        fetch->backlog_count--;
        job_deliver(fetch, job);
    }
    return true;
}

void fetch_moved(void *context, redisReply *reply) {
    struct fetch *fetch = context;
    if (!fetch_answered(fetch)) {
        return;
    }
    if (redis_error(reply)) {
        log_write(LOG_LEVEL_ERROR, "fetch", "an entry could not be moved and stays pending: %.200s", redis_error(reply));
        fetch_reread(fetch);
    }
}

/* The event of a job that cannot be understood; "" when the stream does not carry its type. */
static char *dead_event(const struct fetch *fetch, const struct stream *stream, const char *entry, const char *reason) {
    const struct config *config = fetch->config.config;
    if (!(config->events.type_mask & 1u << EVENT_DEAD)) {
        return strdup("");
    }
    json_t *event = json_pack("{s:s, s:s, s:s, s:s, s:s, s:f}", "type", "dead", "job", entry, "queue", stream->queue, "reason", reason,
                              "node", fetch_consumer(fetch), "at", (double)clock_ms(CLOCK_REALTIME) / 1000);
    char *text = event ? json_dumps(event, JSON_COMPACT | JSON_REAL_PRECISION(13)) : NULL;
    json_decref(event);
    return text ? text : strdup("");
}

static void entry_dead(struct fetch *fetch, const struct stream *stream, struct entry_id id, const char *reason) {
    char entry[ENTRY_ID_BYTES], keep[24];
    entry_id_write(id, entry);
    snprintf(keep, sizeof keep, "%" PRIu64, fetch->config.config->events.max_bytes / EVENT_BYTES_ASSUMED);
    char *event = dead_event(fetch, stream, entry, reason);
    char key[REDIS_KEY_MAX + 8];
    snprintf(key, sizeof key, "%sdead", fetch->prefix);
    const char *argv[] = {"FCALL", "bypost_dead",      "1", key, fetch->prefix, stream->name, stream->queue, entry,
                          reason,  event ? event : "", keep};
    if (!fetch_send(fetch, fetch->config.redis, fetch_moved, 11, argv, NULL)) {
        fetch_reread(fetch);
    }
    free(event);
    fetch->counters.dead++;
    log_write(LOG_LEVEL_WARNING, "fetch", "a job of queue %s goes to the dead letters: entry %s: %s", stream->queue, entry, reason);
}

/* The history of an entry with all that it is about. */
static void history_write(const struct job *job, char out[HISTORY_HEAD_BYTES + RANGES_BYTES]) {
    history_head_write(&job->history, out);
    strcat(out, " ");
    ranges_write(job->pending, job->pending_count, out + strlen(out));
}

static void entry_schedule(struct fetch *fetch, const struct stream *stream, const struct job *job) {
    char entry[ENTRY_ID_BYTES], slot[24], head[HISTORY_HEAD_BYTES], ranges[RANGES_BYTES], key[REDIS_KEY_MAX + 8];
    entry_id_write(job->entry, entry);
    snprintf(slot, sizeof slot, "%" PRIu64, (job->send_at_ms + 999) / 1000 * 1000);
    history_head_write(&job->history, head);
    ranges_write(job->pending, job->pending_count, ranges);
    snprintf(key, sizeof key, "%sdue", fetch->prefix);
    const char *argv[] = {"FCALL", "bypost_schedule", "1", key, fetch->prefix, stream->name, stream->queue, entry, slot, head, ranges};
    if (!fetch_send(fetch, fetch->config.redis, fetch_moved, 11, argv, NULL)) {
        fetch_reread(fetch);
    }
    fetch->counters.scheduled++;
}

/* Its producer counted others than it has: Redis counts anew, and gives it back as another entry. */
static void entry_recount(struct fetch *fetch, const struct stream *stream, const struct job *job) {
    char entry[ENTRY_ID_BYTES], number[16], history[HISTORY_HEAD_BYTES + RANGES_BYTES];
    entry_id_write(job->entry, entry);
    snprintf(number, sizeof number, "%" PRIu32, job->pending_count);
    history_write(job, history);
    const char *argv[] = {"FCALL", "bypost_recount", "1", stream->key, fetch->prefix, stream->name, stream->queue, entry, number, history};
    if (!fetch_send(fetch, fetch->config.redis, fetch_moved, 10, argv, NULL)) {
        fetch_reread(fetch);
    }
}

/* Leaves out of pending what is in a slot already. */
static void in_flight_filter(struct fetch *fetch, struct job *job) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < job->pending_count; i++) {
        if (!fetch->config.in_flight ||
            !fetch->config.in_flight(fetch->config.context, job->shard, job->stream, job->entry, job->pending[i])) {
            job->pending[kept++] = job->pending[i];
        }
    }
    job->pending_count = kept;
}

/* --- a tenant's excess --- */

/* Has this tenant more of queue normal here than its share of what there is room for? */
static bool tenant_exceeds(const struct fetch *fetch, const struct job *job) {
    uint64_t here = live_tenant_recipients(fetch->live, job->tenant) + job->pending_count;
    uint64_t share = (fetch->config.room(fetch->config.context) + live_recipients(fetch->live)) / TENANT_SHARE_OF;
    return here > (share > TENANT_SHARE_MIN ? share : TENANT_SHARE_MIN);
}

/* Keeps an entry for excess_move. False: it cannot. */
static bool excess_add(struct fetch *fetch, struct job *job) {
    if (fetch->excess_count == fetch->excess_size) {
        uint32_t size = fetch->excess_size ? fetch->excess_size * 2 : 64;
        struct job **grown = realloc(fetch->excess, size * sizeof *grown);
        if (!grown) {
            return false;
        }
        fetch->excess = grown;
        fetch->excess_size = size;
    }
    fetch->excess[fetch->excess_count++] = job;
    return true;
}

static void on_overflowed(void *context, redisReply *reply) {
    fetch_moved(context, reply);
}

/* One call for entries of one tenant; they leave the list. */
static void excess_send(struct fetch *fetch) {
    struct text {
        char entry[ENTRY_ID_BYTES], number[16], history[HISTORY_HEAD_BYTES + RANGES_BYTES];
    } *texts = malloc(EXCESS_MAX * sizeof *texts);
    char key[REDIS_KEY_MAX + 16], tenant[TENANT_NAME_MAX + 1];
    const char *argv[6 + 3 * EXCESS_MAX] = {"FCALL", "bypost_overflow", "1", key, fetch->prefix, tenant};
    int argc = 6;
    uint32_t kept = 0;
    snprintf(key, sizeof key, "%sq:normal", fetch->prefix);
    snprintf(tenant, sizeof tenant, "%.31s", fetch->excess[0]->tenant);
    for (uint32_t i = 0, taken = 0; i < fetch->excess_count; i++) {
        struct job *job = fetch->excess[i];
        if (texts && (taken == EXCESS_MAX || strcmp(job->tenant, tenant) != 0)) {
            fetch->excess[kept++] = job;
            continue;
        }
        if (texts) {
            struct text *text = &texts[taken++];
            entry_id_write(job->entry, text->entry);
            snprintf(text->number, sizeof text->number, "%" PRIu32, job->pending_count);
            history_write(job, text->history);
            argv[argc++] = text->entry;
            argv[argc++] = text->number;
            argv[argc++] = text->history;
            fetch->counters.overflowed += job->pending_count;
        }
        job_release(job);
    }
    fetch->excess_count = kept;
    if (!texts || !fetch_send(fetch, fetch->config.redis, on_overflowed, argc, argv, NULL)) {
        fetch_reread(fetch);
    }
    free(texts);
}

void excess_move(struct fetch *fetch) {
    while (fetch->excess_count > 0) {
        excess_send(fetch);
    }
}

/* --- a job that lives here --- */

static void job_ready(struct fetch *fetch, struct job *job) {
    uint32_t reserve = job->high ? 0 : fetch->config.high_reserve;
    bool first = job->high || fetch->backlog_count == 0;
    if (first && fetch->config.room(fetch->config.context) > reserve) {
        job_deliver(fetch, job);
    } else {
        backlog_push(fetch, job);
    }
}

/* A job that waits for its shared content. */
struct completion {
    struct fetch *fetch;
    uint32_t generation, recipients;
};

static void on_completed(void *context, struct job *job, const char *error, bool temporary) {
    struct completion *completion = context;
    struct fetch *fetch = completion->fetch;
    bool stale = completion->generation != fetch->generation;
    fetch->completing -= completion->recipients;
    free(completion);
    if (!fetch_answered(fetch) || stale || fetch->state == FETCH_STOPPED) {
        job_release(job); /* its entry stays pending */
        return;
    }
    if (!error) {
        job_ready(fetch, job);
    } else if (temporary) {
        log_write(LOG_LEVEL_WARNING, "fetch", "a job of queue %s stays pending and is read again: %.200s", job->queue, error);
        job_release(job);
        fetch_reread(fetch);
    } else {
        struct stream stream;
        if (stream_init(&stream, fetch->prefix, job->stream)) {
            entry_dead(fetch, &stream, job->entry, error);
        }
        job_release(job);
    }
}

static void job_complete(struct fetch *fetch, struct job *job) {
    struct completion *completion = malloc(sizeof *completion);
    if (!completion) {
        job_release(job);
        fetch_reread(fetch);
        return;
    }
    *completion = (struct completion){.fetch = fetch, .generation = fetch->generation, .recipients = job->pending_count};
    fetch->completing += job->pending_count;
    fetch->outstanding++;
    fetch->config.complete(fetch->config.context, job, on_completed, completion);
}

void fetch_take(struct fetch *fetch, const struct stream *stream, const redisReply *reply, uint64_t expires_ms) {
    struct entry_view view;
    if (!entry_view_take(reply, &view)) {
        log_write(LOG_LEVEL_ERROR, "fetch", "Redis answered with an entry of unknown shape in %s", stream->key);
        return;
    }
    if (live_has(fetch->live, stream->name, view.id)) {
        return;
    }
    fetch->counters.entries++;
    char error[ERROR_BYTES];
    struct job *job = entry_decode(&view, fetch->config.config, fetch->config.shard, stream->queue, stream->is_retry, error, sizeof error);
    if (!job && job_decode_starved(error)) {
        log_write(LOG_LEVEL_ERROR, "fetch", "out of memory: a job stays pending and is read again");
        fetch_reread(fetch);
        return;
    }
    fetch->counters.recipients_read += job ? job->entry_recipients : 1;
    if (!job) {
        entry_dead(fetch, stream, view.id, error);
        return;
    }
    if (expires_ms > 0 && (job->expires_at_ms == 0 || expires_ms < job->expires_at_ms)) {
        job->expires_at_ms = expires_ms;
    }
    fetch->recipients_average += (job->entry_recipients - fetch->recipients_average) / 16;
    if (job->entry_recipients > fetch->recipients_average) {
        fetch->recipients_average = job->entry_recipients;
    }
    fetch->bytes_average += ((double)view.job_length - fetch->bytes_average) / 16;
    if ((double)view.job_length > fetch->bytes_average) {
        fetch->bytes_average = (double)view.job_length; /* up at once, down slowly */
    }
    in_flight_filter(fetch, job); /* a new entry may be in a slot too: when its group was lost */
    if (job->pending_count == 0) {
        job_release(job);
        return;
    }
    bool whole = !stream->is_retry && job->pending_count == job->entry_recipients;
    if (whole && view.recipients > 0 && view.recipients != job->entry_recipients && !view.history && !view.bits) {
        entry_recount(fetch, stream, job);
        job_release(job);
        return;
    }
    if (whole && job->send_at_ms > clock_ms(CLOCK_REALTIME) + SCHEDULE_SLACK_MS) {
        entry_schedule(fetch, stream, job);
        job_release(job);
        return;
    }
    if (whole && stream->class == CLASS_STREAM_NORMAL && job->tenant && tenant_exceeds(fetch, job) && excess_add(fetch, job)) {
        return;
    }
    live_add(fetch->live, job, view.job_length);
    if (job->content_id && !job->content && fetch->config.complete) {
        job_complete(fetch, job);
    } else {
        job_ready(fetch, job);
    }
}

void backlog_release(struct fetch *fetch) {
    while (fetch->backlog_count > 0) {
        fetch->backlog_count--;
        job_release(fetch->backlog[fetch->backlog_first++]);
    }
}
