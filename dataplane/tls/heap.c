/* heap.c: the memory that wolfSSL and this room use: an arena of jemalloc for each worker, counted. */
#include "tls_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Without jemalloc's own functions, and under AddressSanitizer, which watches malloc only. */
#if defined(TLS_JEMALLOC) && !defined(__SANITIZE_ADDRESS__)
#if defined(__has_feature)
#if !__has_feature(address_sanitizer)
#define TLS_ARENAS
#endif
#else
#define TLS_ARENAS
#endif
#endif

#ifdef TLS_ARENAS
#include <jemalloc/jemalloc.h>
#else
#include <malloc.h>
#endif

/* wolfSSL's hooks take no argument: the worker whose function this thread is in. Each worker's thread has its own. */
static _Thread_local struct tls_worker *current;
/* What wolfSSL takes while no worker is in: its own few tables. */
static struct tls_heap common;

#ifdef TLS_ARENAS
int tls_heap_open(struct tls_heap *heap) {
    size_t length = sizeof(heap->arena);
    *heap = (struct tls_heap){0};
    if (mallctl("arenas.create", &heap->arena, &length, NULL, 0) != 0)
        return -ENOMEM;
    if (mallctl("tcache.create", &heap->cache, &length, NULL, 0) != 0)
        return -ENOMEM;
    heap->flags = MALLOCX_ARENA(heap->arena) | MALLOCX_TCACHE(heap->cache);
    return 0;
}

void tls_heap_close(struct tls_heap *heap) {
    char name[48];
    if (heap->flags == 0)
        return;
    mallctl("tcache.destroy", NULL, NULL, &heap->cache, sizeof(heap->cache));
#ifndef OPENSSL_EXTRA /* the distribution's wolfSSL has tables of its own that outlive a worker */
    if (heap->bytes == 0) {
        snprintf(name, sizeof(name), "arena.%u.destroy", heap->arena);
        mallctl(name, NULL, NULL, NULL, 0);
    }
#else
    (void)name;
#endif
}

static void *take(struct tls_heap *heap, size_t bytes) {
    return mallocx(bytes, heap->flags);
}
static size_t size_of(const void *object) {
    return sallocx(object, 0);
}
static void give(struct tls_heap *heap, void *object) {
    dallocx(object, heap->flags == 0 ? 0 : MALLOCX_TCACHE(heap->cache));
}
#else
int tls_heap_open(struct tls_heap *heap) {
    *heap = (struct tls_heap){0};
    return 0;
}
void tls_heap_close(struct tls_heap *heap) {}
static void *take(struct tls_heap *heap, size_t bytes) {
    return malloc(bytes);
}
static size_t size_of(void *object) {
    return malloc_usable_size(object);
}
static void give(struct tls_heap *heap, void *object) {
    free(object);
}
#endif

void *tls_heap_take(struct tls_heap *heap, size_t bytes) {
    void *object = take(heap, bytes == 0 ? 1 : bytes);
    if (object != NULL)
        heap->bytes += size_of(object);
    return object;
}

void tls_heap_give(struct tls_heap *heap, void *object) {
    if (object == NULL)
        return;
    heap->bytes -= size_of(object);
    give(heap, object);
}

static struct tls_heap *heap_now(void) {
    return current != NULL ? &current->heap : &common;
}

static void *hook_malloc(size_t bytes) {
    return tls_heap_take(heap_now(), bytes);
}
static void hook_free(void *object) {
    tls_heap_give(heap_now(), object);
}
static void *hook_realloc(void *object, size_t bytes) {
    if (object == NULL)
        return hook_malloc(bytes);
    void *larger = hook_malloc(bytes);
    if (larger != NULL) {
        size_t had = size_of(object);
        memcpy(larger, object, had < bytes ? had : bytes);
        explicit_bzero(object, had); /* keys may have lain there */
        hook_free(object);
    }
    return larger;
}

/* For the dates in certificates. */
static time_t hook_time(time_t *at) {
    time_t now = current != NULL ? (time_t)(((int64_t)current->now_us + current->realtime_offset_us) / 1000000) : 0;
    if (at != NULL)
        *at = now;
    return now;
}

struct tls_worker *tls_enter(struct tls_worker *worker) {
    struct tls_worker *before = current;
    current = worker;
    return before;
}

void tls_leave(struct tls_worker *before) {
    current = before;
    tls_clean_vectors();
}

int tls_start(void) {
    static bool started;
    if (started)
        return 0;
    if (wolfSSL_SetAllocators(hook_malloc, hook_free, hook_realloc) != 0)
        return -EINVAL;
    if (wolfSSL_Init() != WOLFSSL_SUCCESS || wc_SetTimeCb(hook_time) != 0)
        return -EIO;
    started = true;
    return 0;
}
