/* live.c: a hash table of the jobs held, chained through the jobs themselves. */
#include "live.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIVE_BUCKETS_FIRST = 1024, TENANT_BUCKETS = 1024 };

/* What a tenant has here of queue normal. */
struct live_tenant {
    struct live_tenant *next;
    uint64_t recipients;
    uint32_t jobs; /* it goes with the last */
    char name[TENANT_NAME_MAX + 1];
};

struct live {
    struct job_box **buckets;
    size_t bucket_count, count; /* bucket_count: a power of two */
    uint64_t bytes, recipients;
    struct live_tenant *tenants[TENANT_BUCKETS];
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

/* FNV-1a. */
static size_t tenant_bucket(const char *name) {
    uint32_t hash = 0x811c9dc5u;
    for (const char *c = name; *c; c++) {
        hash = (hash ^ (uint8_t)*c) * 0x01000193u;
    }
    return hash % TENANT_BUCKETS;
}

static struct live_tenant *tenant_find(const struct live *live, const char *name) {
    struct live_tenant *tenant = live->tenants[tenant_bucket(name)];
    while (tenant && strcmp(tenant->name, name) != 0) {
        tenant = tenant->next;
    }
    return tenant;
}

/* Counts a job for its tenant; without memory it is not counted. */
static void tenant_join(struct live *live, struct job_box *box) {
    const char *name = box->job.tenant;
    if (!name || strlen(name) > TENANT_NAME_MAX || strcmp(box->job.queue, "normal") != 0) {
        return;
    }
    struct live_tenant *tenant = tenant_find(live, name);
    if (!tenant) {
        tenant = calloc(1, sizeof *tenant);
        if (!tenant) {
            return;
        }
        struct live_tenant **head = &live->tenants[tenant_bucket(name)];
        snprintf(tenant->name, sizeof tenant->name, "%.31s", name);
        tenant->next = *head;
        *head = tenant;
    }
    tenant->jobs++;
    tenant->recipients += box->recipients;
    box->tenant = tenant;
}

static void tenant_leave(struct live *live, struct job_box *box) {
    struct live_tenant *tenant = box->tenant;
    if (!tenant) {
        return;
    }
    box->tenant = NULL;
    tenant->recipients -= box->recipients;
    if (--tenant->jobs == 0) {
        struct live_tenant **at = &live->tenants[tenant_bucket(tenant->name)];
        while (*at != tenant) {
            at = &(*at)->next;
        }
        *at = tenant->next;
        free(tenant);
    }
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
        box->live->recipients -= box->recipients;
        tenant_leave(box->live, box);
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
    live->left = NULL;
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
    box->recipients = job->pending_count;
    live->bytes += bytes;
    live->recipients += box->recipients;
    tenant_join(live, box);
    return 0;
}

void live_on_let_go(struct live *live, void (*left)(void *context, const struct job *job), void *context) {
    live->left = left;
    live->context = context;
}

void live_let_go_all(struct live *live) {
    for (size_t i = 0; i < live->bucket_count; i++) {
        for (struct job_box *box = live->buckets[i]; box; box = box->next) {
            box->let_go = true;
        }
    }
}

uint64_t live_recipients(const struct live *live) {
    return live->recipients;
}

uint64_t live_tenant_recipients(const struct live *live, const char *tenant) {
    const struct live_tenant *found = tenant_find(live, tenant);
    return found ? found->recipients : 0;
}

size_t live_count(const struct live *live) {
    return live->count;
}

uint64_t live_bytes(const struct live *live) {
    return live->bytes;
}
