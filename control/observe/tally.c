/* tally.c: a hash table with a fixed number of entries. When it is full, a newcomer takes the place of the quietest of a few drawn at
 * random: one pass over the table for each new name would cost more than what is counted. */
#include "tally.h"

#include <stdlib.h>
#include <string.h>

enum {
    TALLY_NONE = 0xffff,
    TALLY_BUCKETS = TALLY_ENTRIES_MAX, /* a power of two */
    TALLY_DRAWS = 8,
    TALLY_SWAPS = 8,   /* labels that change hands in one tick */
    TALLY_HALF_S = 60, /* ticks */
};

struct tally {
    uint32_t count, ticks, labels;
    uint64_t random;
    uint64_t others[TALLY_COUNTS];
    uint16_t buckets[TALLY_BUCKETS], next[TALLY_ENTRIES_MAX];
    uint64_t hashes[TALLY_ENTRIES_MAX];
    struct tally_entry entries[TALLY_ENTRIES_MAX];
};

/* FNV-1a, of as much as is kept. */
static uint64_t name_hash(const char *name) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (unsigned i = 0; name[i] != '\0' && i < TALLY_NAME_BYTES - 1; i++)
        hash = (hash ^ (unsigned char)name[i]) * 0x100000001b3u;
    return hash ^ hash >> 32;
}

struct tally *tally_create(void) {
    struct tally *tally = calloc(1, sizeof(*tally));
    if (tally != NULL) {
        memset(tally->buckets, 0xff, sizeof(tally->buckets));
        tally->random = 88172645463325252u;
    }
    return tally;
}

void tally_destroy(struct tally *tally) {
    free(tally);
}

static struct tally_entry *entry_find(struct tally *tally, const char *name, uint64_t hash) {
    for (uint16_t i = tally->buckets[hash % TALLY_BUCKETS]; i != TALLY_NONE; i = tally->next[i])
        if (tally->hashes[i] == hash && strncmp(tally->entries[i].name, name, TALLY_NAME_BYTES - 1) == 0)
            return &tally->entries[i];
    return NULL;
}

static void entry_unlink(struct tally *tally, uint16_t index) {
    uint16_t *at = &tally->buckets[tally->hashes[index] % TALLY_BUCKETS];
    while (*at != index)
        at = &tally->next[*at];
    *at = tally->next[index];
}

static uint16_t entry_evict(struct tally *tally) {
    uint16_t quietest = TALLY_NONE;
    for (unsigned draws = 0; draws < TALLY_DRAWS || quietest == TALLY_NONE; draws++) {
        tally->random ^= tally->random << 13;
        tally->random ^= tally->random >> 7;
        tally->random ^= tally->random << 17;
        uint16_t index = (uint16_t)(tally->random % TALLY_ENTRIES_MAX);
        /* A labelled one stays: its series would end for a name that may never be seen again. */
        if (!tally->entries[index].labelled && (quietest == TALLY_NONE || tally->entries[index].weight < tally->entries[quietest].weight))
            quietest = index;
    }
    entry_unlink(tally, quietest);
    return quietest;
}

static struct tally_entry *entry_add(struct tally *tally, const char *name, uint64_t hash) {
    uint16_t index = tally->count < TALLY_ENTRIES_MAX ? (uint16_t)tally->count++ : entry_evict(tally);
    struct tally_entry *entry = &tally->entries[index];
    memset(entry, 0, sizeof(*entry));
    memcpy(entry->name, name, strnlen(name, TALLY_NAME_BYTES - 1));
    tally->hashes[index] = hash;
    tally->next[index] = tally->buckets[hash % TALLY_BUCKETS];
    tally->buckets[hash % TALLY_BUCKETS] = index;
    return entry;
}

void tally_add(struct tally *tally, const char *name, unsigned kind) {
    if (name == NULL || name[0] == '\0')
        return;
    uint64_t hash = name_hash(name);
    struct tally_entry *entry = entry_find(tally, name, hash);
    if (entry == NULL)
        entry = entry_add(tally, name, hash);
    entry->counts[kind]++;
    entry->weight += entry->weight < UINT32_MAX;
    if (!entry->labelled && tally->labels < TALLY_LABELS_MAX) {
        entry->labelled = true;
        tally->labels++;
    }
    if (entry->labelled)
        entry->shown[kind]++;
    else
        tally->others[kind]++;
}

/* The busiest without a label takes that of the quietest with one, if it is twice as busy. */
static bool label_swap(struct tally *tally) {
    struct tally_entry *busiest = NULL, *quietest = NULL;
    for (uint32_t i = 0; i < tally->count; i++) {
        struct tally_entry *entry = &tally->entries[i];
        if (entry->labelled && (quietest == NULL || entry->weight < quietest->weight))
            quietest = entry;
        if (!entry->labelled && (busiest == NULL || entry->weight > busiest->weight))
            busiest = entry;
    }
    if (busiest == NULL || quietest == NULL || busiest->weight <= 2 * (uint64_t)quietest->weight)
        return false;
    quietest->labelled = false;
    memset(quietest->shown, 0, sizeof(quietest->shown));
    busiest->labelled = true;
    return true;
}

void tally_tick(struct tally *tally) {
    for (unsigned i = 0; i < TALLY_SWAPS && tally->labels == TALLY_LABELS_MAX && label_swap(tally); i++)
        ;
    if (++tally->ticks % TALLY_HALF_S == 0)
        for (uint32_t i = 0; i < tally->count; i++)
            tally->entries[i].weight /= 2;
}

static int by_weight(const void *a, const void *b) {
    const struct tally_entry *left = *(const struct tally_entry *const *)a, *right = *(const struct tally_entry *const *)b;
    return left->weight < right->weight ? 1 : left->weight > right->weight ? -1 : strcmp(left->name, right->name);
}

uint32_t tally_top(const struct tally *tally, const struct tally_entry **entries, uint32_t count) {
    const struct tally_entry *all[TALLY_ENTRIES_MAX];
    for (uint32_t i = 0; i < tally->count; i++)
        all[i] = &tally->entries[i];
    qsort(all, tally->count, sizeof(all[0]), by_weight);
    count = count < tally->count ? count : tally->count;
    memcpy(entries, all, count * sizeof(all[0]));
    return count;
}

uint32_t tally_labelled(const struct tally *tally, const struct tally_entry *entries[TALLY_LABELS_MAX]) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < tally->count && count < TALLY_LABELS_MAX; i++)
        if (tally->entries[i].labelled)
            entries[count++] = &tally->entries[i];
    return count;
}

const uint64_t *tally_others(const struct tally *tally) {
    return tally->others;
}
