/* entry_fuzz.c: libFuzzer on what a stream's entry or a list's record says besides its job: the ID, the history with its indexes (fields r
 * and s) and the progress. A flag byte, then a line each: ID, history, progress; the job is one of ours. What is taken makes sense in
 * itself, and is read again as it was written. */
#include "control/fetch/entry.h"
#include "control/fetch/fetch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { IS_SUBSET = 1, IS_RETRY = 2, HAS_HISTORY = 4, HAS_PROGRESS = 8, HAS_NUMBER = 16, RECIPIENTS_SHIFT = 5 };

static const struct config config = {.max_message_bytes = 1 << 20, .max_recipients_per_job = JOB_RECIPIENTS_MAX};

static void must(bool condition) {
    if (!condition) {
        abort();
    }
}

/* A job with some recipients: 1, 2, 4 .. 64, or all that one may have. */
static const char *job_text(unsigned kind) {
    static char *texts[8];
    if (!texts[kind]) {
        size_t used, count = kind == 7 ? JOB_RECIPIENTS_MAX : (size_t)1 << kind, room = 128 + count * 24;
        texts[kind] = malloc(room);
        must(texts[kind] != NULL);
        used = (size_t)snprintf(texts[kind], room, "{\"from\":\"a@b.test\",\"text\":\"t\",\"recipients\":[");
        for (size_t i = 0; i < count; i++) {
            used += (size_t)snprintf(texts[kind] + used, room - used, "%s{\"to\":\"%zu@x.test\"}", i ? "," : "", i);
        }
        snprintf(texts[kind] + used, room - used, "]}");
    }
    return texts[kind];
}

/* The next line as a reply of its own, which ends with a NUL as hiredis's do. */
static redisReply line_take(const uint8_t **at, const uint8_t *end) {
    const uint8_t *newline = *at < end ? memchr(*at, '\n', (size_t)(end - *at)) : NULL;
    size_t length = (size_t)((newline ? newline : end) - *at);
    redisReply reply = {.type = REDIS_REPLY_STRING, .len = length, .str = calloc(1, length + 1)};
    must(reply.str != NULL);
    memcpy(reply.str, *at, length);
    *at = newline ? newline + 1 : end;
    return reply;
}

static void pending_check(const struct job *job) {
    must(job->pending_count <= job->entry_recipients && job->entry_recipients <= JOB_RECIPIENTS_MAX &&
         job->recipient_total <= JOB_RECIPIENTS_MAX);
    for (uint32_t i = 0; i < job->pending_count; i++) {
        must(job->pending[i] < job->recipient_total && (i == 0 || job->pending[i] > job->pending[i - 1]));
        must(job_recipient(job, job->pending[i]) != NULL);
    }
}

/* What control writes of it is understood again, and says the same. */
static void again(struct entry_view view, const struct job *job) {
    char head[HISTORY_HEAD_BYTES], ranges[RANGES_BYTES], history[HISTORY_HEAD_BYTES + RANGES_BYTES + 1], error[512];
    size_t length;
    if (job->pending_count == 0) {
        return;
    }
    history_head_write(&job->history, head);
    ranges_write(job->pending, job->pending_count, ranges);
    view.history_length = (size_t)snprintf(history, sizeof history, "%s %s", head, ranges);
    view.history = history;
    view.bits = NULL;
    char *part = job_subset(job, job->pending, job->pending_count, &length);
    if (part) {
        view.job = part;
        view.job_length = length;
    }
    view.is_subset = part != NULL;
    struct job *next = entry_decode(&view, &config, 0, "march", true, error, sizeof error);
    must(next && next->pending_count == job->pending_count &&
         memcmp(next->pending, job->pending, job->pending_count * sizeof *job->pending) == 0);
    must(next->history.attempt == job->history.attempt && next->history.origin.ms == job->history.origin.ms &&
         next->history.origin.seq == job->history.origin.seq && next->history.first_queued_ms == job->history.first_queued_ms &&
         next->history.date_s == job->history.date_s);
    for (uint32_t i = 0; i < job->pending_count; i++) {
        must(strcmp(job_recipient(next, job->pending[i])->mailbox.email, job_recipient(job, job->pending[i])->mailbox.email) == 0);
    }
    job_release(next);
    free(part);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char names[][4] = {"job", "r", "s", "n"};
    if (size < 1) {
        return 0;
    }
    const uint8_t *at = data + 1, *end = data + size;
    uint8_t flags = data[0];
    const char *text = job_text(flags >> RECIPIENTS_SHIFT);
    redisReply id = line_take(&at, end), history = line_take(&at, end), progress = {.type = REDIS_REPLY_STRING, .len = (size_t)(end - at)};
    progress.str = (char *)(uintptr_t)at;
    redisReply parts[4] = {{.type = REDIS_REPLY_STRING, .str = names[0], .len = 3},
                           {.type = REDIS_REPLY_STRING, .str = (char *)(uintptr_t)text, .len = strlen(text)}};
    redisReply *fields[6] = {&parts[0], &parts[1]}, *entry[3];
    redisReply list = {.type = REDIS_REPLY_ARRAY, .elements = 2, .element = fields},
               reply = {.type = REDIS_REPLY_ARRAY, .elements = 2, .element = entry};
    if (flags & HAS_HISTORY) {
        parts[2] = (redisReply){.type = REDIS_REPLY_STRING, .str = names[flags & IS_SUBSET ? 2 : 1], .len = 1};
        fields[list.elements++] = &parts[2];
        fields[list.elements++] = &history;
    }
    if (flags & HAS_NUMBER) {
        parts[3] = (redisReply){.type = REDIS_REPLY_STRING, .str = names[3], .len = 1};
        fields[list.elements++] = &parts[3];
        fields[list.elements++] = &id;
    }
    entry[0] = &id;
    entry[1] = &list;
    entry[2] = &progress;
    reply.elements += flags & HAS_PROGRESS ? 1 : 0;
    struct entry_view view;
    if (entry_view_take(&reply, &view)) {
        char error[512] = "", written[ENTRY_ID_BYTES];
        struct entry_id same;
        entry_id_write(view.id, written);
        must(entry_id_parse(written, strlen(written), &same) && same.ms == view.id.ms && same.seq == view.id.seq);
        struct job *job = entry_decode(&view, &config, 0, "march", flags & IS_RETRY, error, sizeof error);
        must(job || error[0] != '\0');
        if (job) {
            pending_check(job);
            again(view, job);
            job_release(job);
        }
    }
    free(id.str);
    free(history.str);
    return 0;
}
