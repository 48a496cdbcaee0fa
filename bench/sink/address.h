/* address.h: addresses and ranges of them on a command line. */
#ifndef BENCH_SINK_ADDRESS_H
#define BENCH_SINK_ADDRESS_H

#include "dataplane/net/net.h"
#include <stdbool.h>
#include <stddef.h>

/* "192.0.2.1" or "2001:db8::1". */
bool address_read(const char *text, struct tcp_address *address);
/* ADDRESS/PREFIX, NETWORK/PREFIX for all its hosts, or FIRST-LAST/PREFIX: adds them to the `*count` of `max` that are there. 0, or -1 with
 * what to write instead in error. */
int address_take(struct net_address *addresses, uint32_t max, uint32_t *count, const char *text, char *error, size_t error_bytes);

#endif
