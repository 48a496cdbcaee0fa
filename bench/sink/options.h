/* options.h: bypost-sink's command line. */
#ifndef BENCH_SINK_OPTIONS_H
#define BENCH_SINK_OPTIONS_H

#include "dataplane/options.h"
#include "script.h"

enum { SINK_LISTEN_MAX = 64, SINK_QUEUES_MAX = NET_MORE_QUEUES_MAX + 1 };

struct sink_options {
    struct options dataplane; /* EAL, lcores, one port with its addresses, sessions, idle: as eal_start and the worker want them */
    uint32_t queues;          /* of the device, divided among the workers; with one worker it serves all */
    enum port_steering steering;
    uint32_t listen_count;
    uint16_t listen[SINK_LISTEN_MAX];
    struct tcp_address gateway6;
    const char *name;
    uint8_t extensions;
    uint64_t size_max, messages;
    uint32_t recipients_max, transactions, receive_buffer_bytes, keepalive_s, half_open, time_wait;
    const char *stats_path, *record_path;
    uint32_t interval_s;
    struct script script;
};

/* 0 to go on; 1 when --help or --version was answered; -1 after a sentence on stderr. */
int sink_options_parse(struct sink_options *options, int argc, char **argv);

#endif
