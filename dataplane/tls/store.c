/* store.c: sessions that can be resumed, the least recently used goes first. Each keeps the verdict on the certificate of its full
 * handshake, because a resumed one shows none. */
#include "tls_private.h"

#include <errno.h>
#include <string.h>

int tls_store_open(struct tls_store *store, struct tls_heap *heap, uint32_t entries) {
    store->max = entries == 0 ? TLS_STORE_ENTRIES : entries;
    uint32_t buckets = 16;
    while (buckets < store->max && buckets < 1u << 20)
        buckets *= 2;
    store->buckets = tls_heap_take(heap, buckets * sizeof(store->buckets[0]));
    if (store->buckets == NULL)
        return -ENOMEM;
    memset(store->buckets, 0, buckets * sizeof(store->buckets[0]));
    store->bucket_mask = buckets - 1;
    store->count = 0;
    TAILQ_INIT(&store->uses);
    return 0;
}

static struct tls_bucket *bucket_of(struct tls_store *store, const uint8_t *key) {
    uint32_t hash;
    memcpy(&hash, key, sizeof(hash)); /* a digest: every part is as good */
    return &store->buckets[hash & store->bucket_mask];
}

static void drop(struct tls_store *store, struct tls_heap *heap, struct tls_entry *entry) {
    TAILQ_REMOVE(&store->uses, entry, use);
    LIST_REMOVE(entry, bucket);
    store->count--;
    wolfSSL_SESSION_free(entry->session);
    tls_heap_give(heap, entry);
}

void tls_store_drop(struct tls_worker *worker, struct tls_entry *entry) {
    drop(&worker->store, &worker->heap, entry);
}

void tls_store_close(struct tls_store *store, struct tls_heap *heap) {
    if (store->buckets == NULL)
        return;
    struct tls_entry *entry;
    while ((entry = TAILQ_FIRST(&store->uses)) != NULL)
        drop(store, heap, entry);
    tls_heap_give(heap, store->buckets);
    store->buckets = NULL;
}

struct tls_entry *tls_store_find(struct tls_worker *worker, const uint8_t *key) {
    struct tls_store *store = &worker->store;
    struct tls_entry *entry;
    LIST_FOREACH (entry, bucket_of(store, key), bucket) {
        if (memcmp(entry->key, key, sizeof(entry->key)) != 0)
            continue;
        if (worker->now_us > entry->made_us + TLS_STORE_AGE_S * UINT64_C(1000000)) {
            tls_store_drop(worker, entry);
            return NULL;
        }
        TAILQ_REMOVE(&store->uses, entry, use);
        TAILQ_INSERT_TAIL(&store->uses, entry, use);
        return entry;
    }
    return NULL;
}

void tls_store_keep(struct tls_worker *worker, const uint8_t *key, WOLFSSL *ssl, uint64_t made_us, bool verified, enum tls_failure flaw) {
    struct tls_store *store = &worker->store;
    WOLFSSL_SESSION *alive = wolfSSL_get1_session(ssl);
    WOLFSSL_SESSION *copy = alive == NULL ? NULL : wolfSSL_SESSION_dup(alive); /* the connection's changes with every ticket */
    wolfSSL_SESSION_free(alive);
    if (copy == NULL)
        return;
    struct tls_entry *entry = tls_store_find(worker, key);
    if (entry != NULL) {
        wolfSSL_SESSION_free(entry->session);
    } else {
        if (store->count >= store->max)
            tls_store_drop(worker, TAILQ_FIRST(&store->uses));
        entry = tls_heap_take(&worker->heap, sizeof(*entry));
        if (entry == NULL) {
            wolfSSL_SESSION_free(copy);
            return;
        }
        memcpy(entry->key, key, sizeof(entry->key));
        TAILQ_INSERT_TAIL(&store->uses, entry, use);
        LIST_INSERT_HEAD(bucket_of(store, key), entry, bucket);
        store->count++;
    }
    entry->session = copy;
    entry->made_us = made_us;
    entry->verified = verified;
    entry->flaw = flaw;
}
