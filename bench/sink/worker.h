/* worker.h: one core of bypost-sink: its queues, stack and sessions. */
#ifndef BENCH_SINK_WORKER_H
#define BENCH_SINK_WORKER_H

#include "dataplane/net/net.h"
#include "options.h"
#include "sink.h"

/* What a worker shows of itself when it is asked. */
struct sink_snapshot {
    struct tally tally;
    struct tcp_counters tcp;
    struct tcp_usage usage;
    struct net_counters net;
    struct tls_usage tls;
    uint32_t sessions;
};

struct sink_worker {
    uint32_t index;
    bool poll; /* never sleeps */
    struct net *net;
    struct tcp_stack *stack;
    struct sink *sink;
    struct tls_worker *tls; /* NULL: none */
    FILE *record;
    uint32_t queue_count;
    struct port_queue *queues[SINK_QUEUES_MAX];
    struct counters counters;
    _Atomic bool stop;
    _Atomic uint32_t wanted, shown; /* the main thread asks by raising wanted; the worker answers by making shown equal */
    struct sink_snapshot snapshot;
    uint64_t memory_bytes;
};

/* 0, or -errno with a sentence in error. The script in options is used, and its rules count. */
int sink_worker_create(struct sink_worker *worker, struct sink_options *options, struct port *port, struct seen *seen, char *error,
                       size_t error_bytes);
/* The loop; `argument` is the struct sink_worker. */
int sink_worker_run(void *argument);
void sink_worker_destroy(struct sink_worker *worker);

#endif
