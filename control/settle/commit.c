/* commit.c: a batch of outcomes in memory: made, kept small once Redis has it, and sent. */
#include "commit.h"

#include "pack.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER_BYTES = 24 };

static const char *const command_head[] = {"FCALL", "bypost_settle", "1"};
enum { HEAD_WORDS = sizeof command_head / sizeof *command_head, HEAD_ARGUMENTS = HEAD_WORDS + 5 };

struct commit *commit_create(struct settle *settle) {
    struct commit *commit = calloc(1, sizeof *commit + COMMIT_ITEMS_MAX * sizeof commit->items[0]);
    if (commit) {
        commit->settle = settle;
    }
    return commit;
}

void commit_item_free(struct commit_item *item) {
    job_release(item->job);
    free(item->wait);
    free(item->event);
    free(item->notice);
    *item = (struct commit_item){.slot = SLOT_NONE};
}

static void items_free(struct commit *commit) {
    for (uint32_t i = 0; i < commit->count; i++) {
        commit_item_free(&commit->items[i]);
    }
    commit->count = 0;
}

static void kept_count(struct commit *commit) {
    commit->bytes = offsetof(struct commit, order) + commit->packed.size + commit->events.size;
}

struct commit *commit_shrink(struct commit *commit) {
    items_free(commit);
    text_shrink(&commit->packed);
    text_shrink(&commit->events);
    kept_count(commit);
    struct commit *smaller = realloc(commit, offsetof(struct commit, order)); /* nothing behind that is looked at any more */
    return smaller ? smaller : commit;
}

void commit_drop_events(struct commit *commit) {
    text_free(&commit->events);
    commit->event_count = 0;
    kept_count(commit);
}

void commit_free(struct commit *commit) {
    items_free(commit);
    text_free(&commit->packed);
    text_free(&commit->events);
    free(commit);
}

int commit_send(struct commit *commit, struct redis *redis, const struct commit_terms *terms,
                void (*done)(void *context, redisReply *reply)) {
    if (commit->packed.length == 0 && !commit_pack(commit)) {
        return -ENOBUFS;
    }
    size_t room = HEAD_ARGUMENTS + commit->arguments + commit->event_count;
    const char **values = malloc(room * sizeof *values);
    size_t *lengths = malloc(room * sizeof *lengths);
    int result = -ENOBUFS;
    if (values && lengths) {
        char key[REDIS_KEY_MAX + 16], maximum[NUMBER_BYTES], epoch[NUMBER_BYTES];
        snprintf(key, sizeof key, "%sprogress", terms->prefix);
        snprintf(maximum, sizeof maximum, "%" PRIu64, terms->events_maximum);
        snprintf(epoch, sizeof epoch, "%" PRIu64, terms->epoch);
        const char *const head[HEAD_ARGUMENTS] = {
            command_head[0], command_head[1], command_head[2], key, terms->prefix, maximum, terms->node ? terms->node : "", epoch};
        for (size_t i = 0; i < HEAD_ARGUMENTS; i++) {
            values[i] = head[i];
            lengths[i] = strlen(head[i]);
        }
        size_t count = HEAD_ARGUMENTS + pack_arguments(commit, values + HEAD_ARGUMENTS, lengths + HEAD_ARGUMENTS);
        result = redis_send(redis, done, commit, (int)count, values, lengths);
    }
    free(values);
    free(lengths);
    return result;
}
