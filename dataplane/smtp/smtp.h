/* smtp.h: what the worker's loop sees of the SMTP room: one engine for each worker, which holds the lanes (this worker's side of a path),
 * their sessions and their orders. No DPDK, no clock, no I/O: it runs in the simulator together with tcp/. */
#ifndef DATAPLANE_SMTP_SMTP_H
#define DATAPLANE_SMTP_SMTP_H

#include "dataplane/tcp/tcp.h"
#include <bypost/journal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct smtp_engine;

struct smtp_config {
    const struct journal *journal;
    uint32_t worker;
    uint32_t dataplane_generation;
    const uint8_t *arena; /* this process's mapping */
    uint64_t arena_bytes;
    uint32_t max_sessions, max_orders; /* pools; max_orders: claimed slots at a time */
    struct tls_worker *tls;            /* the caller's; NULL: no TLS, so that what needs it is refused and what may have it goes plain */
    uint8_t secret[16];                /* seeds what must not be guessed */
    /* CLOCK_REALTIME minus the monotonic clock that `now_us` counts, for the times in replies and events. */
    int64_t realtime_offset_us;
    /* Tells the shard's consumer that its outcome ring has something (writes its eventfd if it waits). */
    void (*ring_doorbell)(void *context, uint32_t shard);
    void *context;
};

/* Makes the engine with all its pools, and fills `events` for the stack that it will use. NULL with errno. */
struct smtp_engine *smtp_engine_create(const struct smtp_config *config, struct tcp_events *events);
/* The stack, made after the engine because it needs the engine's events. */
void smtp_engine_attach(struct smtp_engine *engine, struct tcp_stack *stack);
/* After tcp_stack_destroy, which releases what the stack still holds of the orders. */
void smtp_engine_destroy(struct smtp_engine *engine);

/* From the order ring (RING_ORDER, RING_PATH). Stale or wild entries are counted and ignored. */
void smtp_engine_hint(struct smtp_engine *engine, uint64_t ring_entry, uint64_t now_us);
/* Opens sessions, binds orders, runs timeouts, publishes cells, and lets what the events queued leave: at most `budget` steps. To be called
 * in every pass, after tcp_input. Returns when it wants to be called again (absolute us). */
uint64_t smtp_engine_poll(struct smtp_engine *engine, uint32_t budget, uint64_t now_us);
/* Begins to drain: no new transaction; claimed orders whose MAIL is not out are returned; the rest finish; idle sessions QUIT. */
void smtp_engine_drain(struct smtp_engine *engine, uint64_t now_us);
/* Nothing claimed, no session left. */
bool smtp_engine_idle(const struct smtp_engine *engine);
size_t smtp_engine_memory_bytes(const struct smtp_engine *engine);

#endif
