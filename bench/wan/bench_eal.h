/* bench_eal.h: DPDK's start as the bench's programs want it: without hugepages, quiet, beside others of their kind. */
#ifndef BENCH_WAN_BENCH_EAL_H
#define BENCH_WAN_BENCH_EAL_H

#include <stdbool.h>
#include <stdint.h>

/* One logical core that may run on the CPU `lcore`, or, when that is NULL, on any that this process may use. `pci`: look for PCI devices.
 * 0, or -1 when EAL did not start; its own message is on standard error. */
int bench_eal_start(const char *program, const char *lcore, uint32_t memory_mib, bool pci);

#endif
