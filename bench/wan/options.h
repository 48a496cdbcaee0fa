/* options.h: the command line of bypost-wan. */
#ifndef BENCH_WAN_OPTIONS_H
#define BENCH_WAN_OPTIONS_H

#include "impairment.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { OPTIONS_DIRECTIONS = 2 }; /* 0: from a to b, 1: from b to a */

struct options {
    const char *devices[OPTIONS_DIRECTIONS]; /* a, b */
    struct impairment_config directions[OPTIONS_DIRECTIONS];
    double queue_bdps[OPTIONS_DIRECTIONS]; /* of rate and both delays; 0: queue_bytes was given */
    uint64_t seed;
    uint32_t pending_frames; /* bound of memory, a direction */
    uint16_t port_mtu;       /* of the devices */
    uint8_t router4[4], router6[16];
    bool harm_all; /* ARP and Neighbour Discovery too */
    bool poll;     /* spin; otherwise sleep up to OPTIONS_SLEEP_US */
    uint32_t sleep_us;
    double seconds;    /* 0: until SIGTERM */
    const char *lcore; /* CPU to stay on, or NULL: any */
    const char *stats; /* file for the JSON, or NULL: standard output */
    uint32_t memory_mib;
    bool help;
};

/* 0, or -EINVAL with a sentence in error. */
int options_parse(struct options *options, int argc, char **argv, char *error, size_t error_bytes);
void options_usage(FILE *out);

#endif
