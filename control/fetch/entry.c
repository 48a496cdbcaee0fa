/* entry.c: a stream's entry becomes a job with its history; nothing in it is trusted, because anybody can write to a stream. */
#include "entry.h"

#include "fetch.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { AGE_MAX_DAYS = 60 };

/* Digits at *at, until *end; false when there are none or they overflow. */
static bool number_take(const char **at, const char *end, uint64_t maximum, uint64_t *out) {
    const char *first = *at;
    uint64_t value = 0;
    for (; *at < end && **at >= '0' && **at <= '9'; (*at)++) {
        uint64_t digit = (uint64_t)(**at - '0');
        if (digit > maximum || value > (maximum - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
    }
    *out = value;
    return *at > first;
}

static bool char_take(const char **at, const char *end, char c) {
    if (*at == end || **at != c) {
        return false;
    }
    (*at)++;
    return true;
}

static bool id_take(const char **at, const char *end, struct entry_id *out) {
    return number_take(at, end, UINT64_MAX, &out->ms) && char_take(at, end, '-') && number_take(at, end, UINT64_MAX, &out->seq);
}

bool entry_id_parse(const char *text, size_t length, struct entry_id *out) {
    const char *at = text, *end = text + length;
    return id_take(&at, end, out) && at == end;
}

void entry_id_write(struct entry_id id, char out[ENTRY_ID_BYTES]) {
    snprintf(out, ENTRY_ID_BYTES, "%" PRIu64 "-%" PRIu64, id.ms, id.seq);
}

bool entry_view_take(const redisReply *reply, struct entry_view *out) {
    *out = (struct entry_view){.job = NULL};
    if (!reply || reply->type != REDIS_REPLY_ARRAY || reply->elements < 2 || reply->element[0]->type != REDIS_REPLY_STRING ||
        reply->element[1]->type != REDIS_REPLY_ARRAY || !entry_id_parse(reply->element[0]->str, reply->element[0]->len, &out->id)) {
        return false;
    }
    const redisReply *fields = reply->element[1];
    for (size_t i = 0; i + 1 < fields->elements; i += 2) {
        const redisReply *name = fields->element[i], *value = fields->element[i + 1];
        if (name->type != REDIS_REPLY_STRING || value->type != REDIS_REPLY_STRING) {
            return false;
        }
        if (strcmp(name->str, "job") == 0 && !out->job) {
            out->job = value->str;
            out->job_length = value->len;
        } else if (strcmp(name->str, "r") == 0) {
            out->history = value->str;
            out->history_length = value->len;
        }
    }
    if (reply->elements > 2 && reply->element[2]->type == REDIS_REPLY_STRING && reply->element[2]->len > PROGRESS_COUNT_BYTES) {
        out->bits = (const uint8_t *)reply->element[2]->str + PROGRESS_COUNT_BYTES;
        out->bits_length = reply->element[2]->len - PROGRESS_COUNT_BYTES;
    }
    return true;
}

/* The indexes of a history: ascending, below the job's total, none twice. */
static bool indexes_take(const char *at, const char *end, struct job *job) {
    uint64_t next = 0;
    job->pending_count = 0;
    do {
        uint64_t first, last;
        if (!number_take(&at, end, UINT32_MAX, &first)) {
            return false;
        }
        last = first;
        if (at < end && *at == '-' && (at++, !number_take(&at, end, UINT32_MAX, &last))) {
            return false;
        }
        if (first < next || last < first || last >= job->recipient_total) {
            return false;
        }
        for (uint64_t i = first; i <= last; i++) {
            job->pending[job->pending_count++] = (uint32_t)i;
        }
        next = last + 1;
    } while (char_take(&at, end, ','));
    job->entry_recipients = job->pending_count;
    return at == end;
}

static bool history_take(const char *at, const char *end, struct job *job) {
    struct job_history *history = &job->history;
    uint64_t attempt, uncertain;
    bool ok = id_take(&at, end, &history->origin) && char_take(&at, end, ' ') && number_take(&at, end, UINT16_MAX, &attempt) &&
              char_take(&at, end, ' ') && number_take(&at, end, UINT64_MAX, &history->first_queued_ms) && char_take(&at, end, ' ') &&
              number_take(&at, end, UINT64_MAX, &history->date_s) && char_take(&at, end, ' ') && number_take(&at, end, 1, &uncertain) &&
              char_take(&at, end, ' ') && indexes_take(at, end, job);
    if (ok) {
        history->attempt = (uint16_t)attempt;
        history->uncertain = uncertain != 0;
    }
    return ok;
}

/* A fresh entry's history. IDs that a producer made up do not make a job expire at once. */
static void history_begin(struct job *job) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    uint64_t queued_ms = job->entry.ms;
    if (queued_ms > now_ms || queued_ms + AGE_MAX_DAYS * UINT64_C(86400000) < now_ms) {
        queued_ms = now_ms;
    }
    job->history = (struct job_history){.origin = job->entry, .first_queued_ms = job->send_at_ms > queued_ms ? job->send_at_ms : queued_ms};
}

/* Leaves out of pending those whose bit is set. */
static void pending_filter(struct job *job, const uint8_t *bits, size_t length) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < job->pending_count; i++) {
        uint32_t index = job->pending[i];
        if (index / 8 >= length || !(bits[index / 8] >> (index % 8) & 1)) {
            job->pending[kept++] = index;
        }
    }
    job->pending_count = kept;
}

struct job *entry_decode(const struct entry_view *view, const struct config *config, uint32_t shard, const char *queue, bool is_retry,
                         char *error, size_t error_bytes) {
    if (!view->job) {
        snprintf(error, error_bytes, "The entry has no field named job.");
        return NULL;
    }
    struct job *job = job_decode((const uint8_t *)view->job, view->job_length, config, error, error_bytes);
    if (!job) {
        return NULL;
    }
    job->shard = shard;
    job->entry = view->id;
    snprintf(job->queue, sizeof job->queue, "%s", queue);
    snprintf(job->stream, sizeof job->stream, "%s%.47s", is_retry ? "retry:" : "", queue);
    job->high |= strcmp(queue, "high") == 0;
    if (!is_retry) {
        history_begin(job);
    } else if (!view->history || !history_take(view->history, view->history + view->history_length, job)) {
        snprintf(error, error_bytes, "The retry's history (field r) makes no sense.");
        job_release(job);
        return NULL;
    }
    if (view->bits) {
        pending_filter(job, view->bits, view->bits_length);
    }
    return job;
}

void history_head_write(const struct job_history *history, char out[HISTORY_HEAD_BYTES]) {
    snprintf(out, HISTORY_HEAD_BYTES, "%" PRIu64 "-%" PRIu64 " %" PRIu16 " %" PRIu64 " %" PRIu64 " %d", history->origin.ms,
             history->origin.seq, history->attempt, history->first_queued_ms, history->date_s, history->uncertain);
}

void ranges_write(const uint32_t *indexes, uint32_t count, char out[RANGES_BYTES]) {
    size_t used = 0;
    out[0] = 0;
    for (uint32_t i = 0; i < count && used + 16 < RANGES_BYTES;) {
        uint32_t last = i;
        while (last + 1 < count && indexes[last + 1] == indexes[last] + 1) {
            last++;
        }
        int n = last == i ? snprintf(out + used, RANGES_BYTES - used, "%s%" PRIu32, i ? "," : "", indexes[i])
                          : snprintf(out + used, RANGES_BYTES - used, "%s%" PRIu32 "-%" PRIu32, i ? "," : "", indexes[i], indexes[last]);
        used += (size_t)n;
        i = last + 1;
    }
}
