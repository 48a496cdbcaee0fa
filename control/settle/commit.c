/* commit.c: one Function call for a batch, its outcomes grouped by entry so that each entry is looked up once. */
#include "commit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ARGS_HEAD = 6,       /* FCALL name 1 key base maximum */
    ARGS_AN_ENTRY = 5,   /* stream queue ID recipients outcomes */
    ARGS_AN_OUTCOME = 5, /* index action event, bucket head */
    NUMBERS_BYTES = 96,  /* an item's share of the scratch text */
};

struct commit *commit_create(struct settle *settle) {
    struct commit *commit = calloc(1, sizeof *commit + COMMIT_ITEMS_MAX * sizeof commit->items[0]);
    if (commit) {
        commit->settle = settle;
    }
    return commit;
}

void commit_release_jobs(struct commit *commit) {
    for (uint32_t i = 0; i < commit->count; i++) {
        job_release(commit->items[i].job);
        commit->items[i].job = NULL;
    }
}

struct commit *commit_shrink(struct commit *commit) {
    struct commit *smaller = realloc(commit, sizeof *commit + commit->count * sizeof commit->items[0]);
    return smaller ? smaller : commit;
}

void commit_free(struct commit *commit) {
    commit_release_jobs(commit);
    for (uint32_t i = 0; i < commit->count; i++) {
        free(commit->items[i].event);
    }
    free(commit);
}

static bool entry_same(const struct commit_item *a, const struct commit_item *b) {
    return a->entry.ms == b->entry.ms && a->entry.seq == b->entry.seq && strcmp(a->stream, b->stream) == 0;
}

/* Arguments with their lengths; short ones are written into scratch. */
struct arguments {
    const char *values[ARGS_HEAD + COMMIT_ITEMS_MAX * (ARGS_AN_ENTRY + ARGS_AN_OUTCOME)];
    size_t lengths[ARGS_HEAD + COMMIT_ITEMS_MAX * (ARGS_AN_ENTRY + ARGS_AN_OUTCOME)];
    int count;
    char scratch[COMMIT_ITEMS_MAX * NUMBERS_BYTES + 64];
    size_t used;
};

static void argument(struct arguments *arguments, const char *value, size_t length) {
    arguments->values[arguments->count] = value;
    arguments->lengths[arguments->count++] = length;
}

static void argument_text(struct arguments *arguments, const char *value) {
    argument(arguments, value, strlen(value));
}

static void argument_number(struct arguments *arguments, uint64_t number) {
    char *at = arguments->scratch + arguments->used;
    int length = snprintf(at, sizeof arguments->scratch - arguments->used, "%" PRIu64, number);
    arguments->used += (size_t)length + 1;
    argument(arguments, at, (size_t)length);
}

static void argument_entry(struct arguments *arguments, struct entry_id id) {
    char *at = arguments->scratch + arguments->used;
    int length = snprintf(at, sizeof arguments->scratch - arguments->used, "%" PRIu64 "-%" PRIu64, id.ms, id.seq);
    arguments->used += (size_t)length + 1;
    argument(arguments, at, (size_t)length);
}

static void argument_item(struct arguments *arguments, const struct commit_item *item) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
    argument_number(arguments, item->index);
    argument(arguments, &letters[(unsigned)item->action - 'a'], 1);
    argument(arguments, item->event ? item->event : "", item->event ? item->event_length : 0);
    if (item->action == ACTION_DEFERRED || item->action == ACTION_RETURNED || item->action == ACTION_HELD) {
        argument_number(arguments, item->bucket_ms);
        argument_text(arguments, item->head);
    }
}

int commit_send(struct commit *commit, struct redis *redis, const char *prefix, uint64_t events_maximum,
                void (*done)(void *context, redisReply *reply)) {
    struct arguments *arguments = malloc(sizeof *arguments);
    char key[REDIS_KEY_MAX + 16];
    bool taken[COMMIT_ITEMS_MAX] = {false};
    uint32_t ordered = 0;
    if (!arguments) {
        return -ENOBUFS;
    }
    arguments->count = 0;
    arguments->used = 0;
    snprintf(key, sizeof key, "%sprogress", prefix);
    argument_text(arguments, "FCALL");
    argument_text(arguments, "bypost_settle");
    argument_text(arguments, "1");
    argument_text(arguments, key);
    argument_text(arguments, prefix);
    argument_number(arguments, events_maximum);
    for (uint32_t i = 0; i < commit->count; i++) {
        const struct commit_item *first = &commit->items[i];
        if (taken[i]) {
            continue;
        }
        uint32_t outcomes = 0;
        for (uint32_t j = i; j < commit->count; j++) {
            outcomes += !taken[j] && entry_same(first, &commit->items[j]);
        }
        argument_text(arguments, first->stream);
        argument_text(arguments, first->queue);
        argument_entry(arguments, first->entry);
        argument_number(arguments, first->entry_pending);
        argument_number(arguments, outcomes);
        for (uint32_t j = i; j < commit->count; j++) {
            if (!taken[j] && entry_same(first, &commit->items[j])) {
                taken[j] = true;
                commit->order[ordered++] = j;
                argument_item(arguments, &commit->items[j]);
            }
        }
    }
    int result = redis_send(redis, done, commit, arguments->count, arguments->values, arguments->lengths);
    free(arguments);
    return result;
}
