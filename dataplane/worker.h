/* worker.h: one worker: a loop on one lcore over its own queues, stack and sessions. Shares nothing with the others but the journal. */
#ifndef DATAPLANE_WORKER_H
#define DATAPLANE_WORKER_H

#include "dataplane/eal.h"
#include "dataplane/net/net.h"
#include "dataplane/smtp/smtp.h"
#include "dataplane/tls/tls.h"
#include <bypost/journal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct worker {
    uint32_t index, workers;
    uint32_t dataplane_generation;
    bool poll; /* never sleeps */
    const struct journal *journal;
    struct counters *counters;
    struct net *net;
    struct tcp_stack *stack;
    struct smtp_engine *engine;
    struct tls_worker *tls;
    uint32_t port_count;
    struct port_queue *queues[PORTS_MAX];
    int doorbell;                   /* our eventfd */
    const int *shard_doorbells;     /* the shards' */
    _Atomic bool draining, stopped; /* set by the main thread; by the worker when it has drained */
    _Atomic bool kill;              /* the drain's time is up: leave at once */
    uint64_t tcp_bytes, smtp_bytes; /* memory of stack and engine, for the start's report */
};

/* Makes everything the worker owns. 0, or -errno with a sentence in error. */
int worker_create(struct worker *worker, const struct options *options, struct port *ports, const struct arena *arena, char *error,
                  size_t error_bytes);
/* The loop; `argument` is the struct worker. Returns when drained. */
int worker_run(void *argument);
void worker_destroy(struct worker *worker);

#endif
