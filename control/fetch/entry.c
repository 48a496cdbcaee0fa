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

static char *number_write(char *out, uint64_t number) {
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    memcpy(out, digits + at, sizeof digits - at);
    return out + sizeof digits - at;
}

/* Without printf: every event has one, and settle writes more. */
void entry_id_write(struct entry_id id, char out[ENTRY_ID_BYTES]) {
    char *end = number_write(out, id.ms);
    *end++ = '-';
    *number_write(end, id.seq) = '\0';
}

/* What the submit Function may have counted, else 0. */
static uint32_t recipients_of(const redisReply *value) {
    const char *at = value->str, *end = at + value->len;
    uint64_t number;
    return number_take(&at, end, JOB_RECIPIENTS_MAX, &number) && at == end ? (uint32_t)number : 0;
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
        } else if ((strcmp(name->str, "r") == 0 || strcmp(name->str, "s") == 0) && !out->history) {
            out->history = value->str;
            out->history_length = value->len;
            out->is_subset = name->str[0] == 's';
        } else if (strcmp(name->str, "n") == 0 || strcmp(name->str, "c") == 0) {
            out->depth_counted = true;
            out->content_counted |= name->str[0] == 'c';
            out->recipients = name->str[0] == 'n' ? recipients_of(value) : out->recipients;
        }
    }
    if (reply->elements > 2 && reply->element[2]->type == REDIS_REPLY_STRING && reply->element[2]->len > PROGRESS_COUNT_BYTES) {
        out->bits = (const uint8_t *)reply->element[2]->str + PROGRESS_COUNT_BYTES;
        out->bits_length = reply->element[2]->len - PROGRESS_COUNT_BYTES;
    }
    return true;
}

/* The indexes of a history: ascending, none twice, as many as a job may have. */
struct indexes {
    uint32_t count, values[JOB_RECIPIENTS_MAX];
};

static bool indexes_take(const char *at, const char *end, struct indexes *out) {
    uint64_t next = 0;
    out->count = 0;
    do {
        uint64_t first, last;
        if (!number_take(&at, end, UINT32_MAX, &first)) {
            return false;
        }
        last = first;
        if (at < end && *at == '-' && (at++, !number_take(&at, end, UINT32_MAX, &last))) {
            return false;
        }
        if (first < next || last < first || last >= JOB_RECIPIENTS_MAX) {
            return false;
        }
        for (uint64_t i = first; i <= last; i++) {
            out->values[out->count++] = (uint32_t)i;
        }
        next = last + 1;
    } while (char_take(&at, end, ','));
    return at == end;
}

/* What the entry is about: all that the document holds (`s`), or these of its recipients (`r`). */
static bool indexes_place(const struct indexes *indexes, bool is_subset, struct job *job) {
    uint32_t last = indexes->values[indexes->count - 1];
    if (is_subset) {
        return job_place(job, indexes->values, indexes->count, last + 1) == 0;
    }
    if (last >= job->recipient_total) {
        return false;
    }
    memcpy(job->pending, indexes->values, indexes->count * sizeof *job->pending);
    job->pending_count = job->entry_recipients = indexes->count;
    return true;
}

static bool history_take(const struct entry_view *view, struct job *job) {
    const char *at = view->history, *end = view->history + view->history_length;
    struct job_history *history = &job->history;
    struct indexes indexes;
    uint64_t attempt, flags;
    bool ok = id_take(&at, end, &history->origin) && char_take(&at, end, ' ') && number_take(&at, end, UINT16_MAX, &attempt) &&
              char_take(&at, end, ' ') && number_take(&at, end, UINT64_MAX, &history->first_queued_ms) && char_take(&at, end, ' ') &&
              number_take(&at, end, UINT64_MAX, &history->date_s) && char_take(&at, end, ' ') &&
              number_take(&at, end, HISTORY_FLAGS, &flags) && char_take(&at, end, ' ') && indexes_take(at, end, &indexes) &&
              indexes_place(&indexes, view->is_subset, job);
    if (ok) {
        history->attempt = (uint16_t)attempt;
        history->uncertain = flags & HISTORY_UNCERTAIN;
        history->content_counted = flags & HISTORY_CONTENT_COUNTED;
        history->notified = flags & HISTORY_NOTIFIED;
        history->depth_counted = flags & HISTORY_DEPTH_COUNTED;
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
    if (!is_retry && !view->history) {
        history_begin(job);
    } else if (!view->history || !history_take(view, job)) {
        snprintf(error, error_bytes, "The entry's history (field r or s) makes no sense.");
        job_release(job);
        return NULL;
    }
    job->history.depth_counted |= view->depth_counted;
    job->history.content_counted |= view->content_counted;
    job->content_counted = job->history.content_counted;
    if (view->bits) {
        pending_filter(job, view->bits, view->bits_length);
    }
    return job;
}

void history_head_write(const struct job_history *history, char out[HISTORY_HEAD_BYTES]) {
    int flags = (history->uncertain ? HISTORY_UNCERTAIN : 0) | (history->content_counted ? HISTORY_CONTENT_COUNTED : 0) |
                (history->notified ? HISTORY_NOTIFIED : 0) | (history->depth_counted ? HISTORY_DEPTH_COUNTED : 0);
    snprintf(out, HISTORY_HEAD_BYTES, "%" PRIu64 "-%" PRIu64 " %" PRIu16 " %" PRIu64 " %" PRIu64 " %d", history->origin.ms,
             history->origin.seq, history->attempt, history->first_queued_ms, history->date_s, flags);
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
