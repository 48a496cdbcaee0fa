/* neighbour.c: the neighbour table of a link (RFC 1122 2.3.2, RFC 4861 7.3; RFC 826 without its credulity). */
#include "neighbour.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { NEIGHBOUR_BUCKETS = 1024, NEIGHBOUR_NONE = UINT16_MAX };

struct neighbours {
    uint64_t due_us; /* nothing happens before; may be early */
    uint64_t key[2];
    uint16_t buckets[NEIGHBOUR_BUCKETS];
    uint16_t free_first;
    struct neighbour entries[NEIGHBOURS_MAX];
};

struct neighbours *neighbours_create(const uint64_t key[2]) {
    struct neighbours *table = calloc(1, sizeof *table);
    if (table == NULL)
        return NULL;
    table->due_us = UINT64_MAX;
    memcpy(table->key, key, sizeof table->key);
    for (uint32_t bucket = 0; bucket < NEIGHBOUR_BUCKETS; bucket++)
        table->buckets[bucket] = NEIGHBOUR_NONE;
    for (uint32_t i = 0; i < NEIGHBOURS_MAX; i++)
        table->entries[i].next = i + 1 < NEIGHBOURS_MAX ? (uint16_t)(i + 1) : NEIGHBOUR_NONE;
    return table;
}

static uint32_t neighbour_bucket(const struct neighbours *table, struct ip address) {
    return (uint32_t)(ip_hash(table->key, address) % NEIGHBOUR_BUCKETS);
}

static void neighbour_set_state(struct neighbours *table, struct neighbour *neighbour, enum neighbour_state state, uint64_t due_us) {
    neighbour->state = state;
    neighbour->due_us = due_us;
    if (due_us < table->due_us)
        table->due_us = due_us;
}

struct neighbour *neighbour_find(struct neighbours *table, struct ip address) {
    for (uint16_t i = table->buckets[neighbour_bucket(table, address)]; i != NEIGHBOUR_NONE; i = table->entries[i].next)
        if (ip_same(table->entries[i].address, address))
            return &table->entries[i];
    return NULL;
}

static void neighbour_free(struct neighbours *table, struct frame_waiting_pool *pool, struct neighbour *neighbour) {
    neighbour_waiting_end(pool, neighbour, NULL, NULL);
    uint16_t index = (uint16_t)(neighbour - table->entries);
    uint16_t *link = &table->buckets[neighbour_bucket(table, neighbour->address)];
    while (*link != index) {
        assert(*link != NEIGHBOUR_NONE);
        link = &table->entries[*link].next;
    }
    *link = neighbour->next;
    memset(neighbour, 0, sizeof *neighbour);
    neighbour->next = table->free_first;
    table->free_first = index;
}

void neighbours_destroy(struct neighbours *table, struct frame_waiting_pool *pool) {
    if (table == NULL)
        return;
    for (uint32_t i = 0; i < NEIGHBOURS_MAX; i++)
        if (table->entries[i].state != NEIGHBOUR_FREE)
            neighbour_free(table, pool, &table->entries[i]);
    free(table);
}

static bool neighbour_goes_before(const struct neighbour *one, const struct neighbour *other) {
    return neighbour_has_mac(one) != neighbour_has_mac(other) ? neighbour_has_mac(other) : one->used_us < other->used_us;
}

static void neighbour_evict(struct neighbours *table, struct frame_waiting_pool *pool) {
    struct neighbour *oldest = NULL;
    for (uint32_t i = 0; i < NEIGHBOURS_MAX; i++) {
        struct neighbour *entry = &table->entries[i];
        if (!entry->pinned && (oldest == NULL || neighbour_goes_before(entry, oldest)))
            oldest = entry;
    }
    neighbour_free(table, pool, oldest);
}

struct neighbour *neighbour_get(struct neighbours *table, struct frame_waiting_pool *pool, struct ip address, uint64_t now_us) {
    struct neighbour *neighbour = neighbour_find(table, address);
    if (neighbour != NULL)
        return neighbour;
    if (table->free_first == NEIGHBOUR_NONE)
        neighbour_evict(table, pool);
    uint16_t index = table->free_first;
    neighbour = &table->entries[index];
    table->free_first = neighbour->next;
    memset(neighbour, 0, sizeof *neighbour);
    neighbour->address = address;
    neighbour->used_us = now_us;
    uint16_t *bucket = &table->buckets[neighbour_bucket(table, address)];
    neighbour->next = *bucket;
    *bucket = index;
    neighbour_set_state(table, neighbour, NEIGHBOUR_INCOMPLETE, now_us);
    return neighbour;
}

void neighbour_confirm(struct neighbours *table, struct neighbour *neighbour, const uint8_t mac[6], uint64_t now_us) {
    memcpy(neighbour->mac, mac, sizeof neighbour->mac);
    neighbour->tries = 0;
    neighbour_set_state(table, neighbour, NEIGHBOUR_REACHABLE, now_us + NEIGHBOUR_CONFIRMED_US);
}

void neighbour_doubt(struct neighbours *table, struct neighbour *neighbour, uint64_t now_us) {
    if (neighbour->state != NEIGHBOUR_REACHABLE)
        return;
    neighbour->tries = NEIGHBOUR_TRIES - 1; /* one unicast, then everyone */
    neighbour->used_us = now_us;
    neighbour_set_state(table, neighbour, NEIGHBOUR_PROBING, now_us);
}

/* One due timer. */
static void neighbour_step(struct neighbours *table, struct frame_waiting_pool *pool, struct neighbour *neighbour, uint64_t now_us,
                           void (*ask)(void *context, struct neighbour *neighbour),
                           void (*failed)(void *context, struct neighbour *neighbour), void *context) {
    switch (neighbour->state) {
    case NEIGHBOUR_FREE:
        return;
    case NEIGHBOUR_REACHABLE:
        if (!neighbour->pinned && now_us - neighbour->used_us >= NEIGHBOUR_CONFIRMED_US) {
            neighbour_free(table, pool, neighbour);
            return;
        }
        neighbour->tries = 0;
        neighbour_set_state(table, neighbour, NEIGHBOUR_PROBING, now_us);
        break;
    case NEIGHBOUR_PROBING:
        if (neighbour->tries < NEIGHBOUR_TRIES)
            break;
        neighbour->tries = 0;
        neighbour_set_state(table, neighbour, NEIGHBOUR_INCOMPLETE, now_us);
        break;
    case NEIGHBOUR_INCOMPLETE:
        if (neighbour->tries < NEIGHBOUR_TRIES)
            break;
        failed(context, neighbour);
        neighbour_waiting_end(pool, neighbour, NULL, NULL);
        neighbour->tries = 0;
        neighbour_set_state(table, neighbour, NEIGHBOUR_FAILED, now_us + NEIGHBOUR_FAILED_US);
        return;
    case NEIGHBOUR_FAILED:
        if (!neighbour->pinned) {
            neighbour_free(table, pool, neighbour);
            return;
        }
        neighbour_set_state(table, neighbour, NEIGHBOUR_INCOMPLETE, now_us);
        break;
    }
    neighbour->tries++;
    neighbour_set_state(table, neighbour, neighbour->state, now_us + NEIGHBOUR_RETRY_US);
    ask(context, neighbour);
}

uint64_t neighbours_poll(struct neighbours *table, struct frame_waiting_pool *pool, uint64_t now_us,
                         void (*ask)(void *context, struct neighbour *neighbour),
                         void (*failed)(void *context, struct neighbour *neighbour), void *context) {
    if (now_us < table->due_us)
        return table->due_us;
    uint64_t due_us = UINT64_MAX;
    for (uint32_t i = 0; i < NEIGHBOURS_MAX; i++) {
        struct neighbour *neighbour = &table->entries[i];
        if (neighbour->state != NEIGHBOUR_FREE && neighbour->due_us <= now_us)
            neighbour_step(table, pool, neighbour, now_us, ask, failed, context);
        if (neighbour->state != NEIGHBOUR_FREE && neighbour->due_us < due_us)
            due_us = neighbour->due_us;
    }
    table->due_us = due_us;
    return due_us;
}
