/* live.c: a hash table of the jobs held, chained through the jobs themselves. */
#include "live.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LIVE_BUCKETS_FIRST = 1024 };

struct live {
    struct job_box **buckets;
    size_t bucket_count, count; /* bucket_count: a power of two */
    uint64_t bytes;
    void (*left)(void *context, const struct job *job); /* or NULL */
    void *context;
};

struct live *live_create(void) {
    struct live *live = calloc(1, sizeof *live);
    if (live) {
        live->bucket_count = LIVE_BUCKETS_FIRST;
        live->buckets = calloc(live->bucket_count, sizeof *live->buckets);
        if (!live->buckets) {
            free(live);
            return NULL;
        }
    }
    return live;
}

static size_t bucket_of(const struct live *live, struct entry_id entry) {
    uint64_t hash = (entry.ms * 0x9e3779b97f4a7c15u) ^ (entry.seq * 0xc2b2ae3d27d4eb4fu);
    return (size_t)(hash >> 32 ^ hash) & (live->bucket_count - 1);
}

static void box_link(struct job_box **head, struct job_box *box) {
    box->next = *head;
    box->link = head;
    if (*head) {
        (*head)->link = &box->next;
    }
    *head = box;
}

void live_remove(struct job_box *box) {
    if (box->live) {
        *box->link = box->next;
        if (box->next) {
            box->next->link = box->link;
        }
        box->live->count--;
        box->live->bytes -= box->bytes;
        if (box->let_go && box->live->left) {
            box->live->left(box->live->context, &box->job);
        }
        box->live = NULL;
    }
}

void live_destroy(struct live *live) {
    if (!live) {
        return;
    }
    for (size_t i = 0; i < live->bucket_count; i++) {
        while (live->buckets[i]) {
            live_remove(live->buckets[i]);
        }
    }
    free(live->buckets);
    free(live);
}

bool live_has(const struct live *live, const char *stream, struct entry_id entry) {
    for (const struct job_box *box = live->buckets[bucket_of(live, entry)]; box; box = box->next) {
        if (box->job.entry.ms == entry.ms && box->job.entry.seq == entry.seq && strcmp(box->job.stream, stream) == 0) {
            return true;
        }
    }
    return false;
}

/* Twice the buckets; without memory the chains grow instead. */
static void live_grow(struct live *live) {
    struct job_box **old = live->buckets;
    size_t old_count = live->bucket_count;
    struct job_box **buckets = calloc(old_count * 2, sizeof *buckets);
    if (!buckets) {
        return;
    }
    live->buckets = buckets;
    live->bucket_count = old_count * 2;
    for (size_t i = 0; i < old_count; i++) {
        for (struct job_box *box = old[i], *next; box; box = next) {
            next = box->next;
            box_link(&live->buckets[bucket_of(live, box->job.entry)], box);
        }
    }
    free(old);
}

int live_add(struct live *live, struct job *job, size_t bytes) {
    struct job_box *box = (struct job_box *)job;
    if (box->live) {
        return -EEXIST;
    }
    if (live->count >= live->bucket_count) {
        live_grow(live);
    }
    box->live = live;
    box_link(&live->buckets[bucket_of(live, job->entry)], box);
    live->count++;
    box->bytes = bytes;
    live->bytes += bytes;
    return 0;
}

void live_on_let_go(struct live *live, void (*left)(void *context, const struct job *job), void *context) {
    live->left = left;
    live->context = context;
}

size_t live_count(const struct live *live) {
    return live->count;
}

uint64_t live_bytes(const struct live *live) {
    return live->bytes;
}
