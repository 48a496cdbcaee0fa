/* eal.h: starts DPDK's EAL from the options and gives the arena: EAL memory with a descriptor that control can map (DESIGN.md section 4:
 * memory that EAL did not allocate cannot be sent by every device). */
#ifndef DATAPLANE_EAL_H
#define DATAPLANE_EAL_H

#include "dataplane/options.h"
#include <stddef.h>
#include <stdint.h>

struct arena {
    uint8_t *bytes; /* this process's mapping */
    uint64_t length;
    int fd;              /* the memory's descriptor, EAL's */
    uint64_t fd_offset;  /* of the arena in it */
    uint64_t page_bytes; /* pages of that memory */
    bool pieces_in_page; /* physical addresses: no piece may cross a page */
};

/* 0, or -errno with a sentence in error. Afterwards worker w runs on DPDK lcore eal_lcore(w). */
int eal_start(const struct options *options, struct arena *arena, char *error, size_t error_bytes);
unsigned eal_lcore(uint32_t worker);
/* Runs `run(argument)` on the worker's lcore. */
int eal_launch(uint32_t worker, int (*run)(void *argument), void *argument);
void eal_wait(uint32_t worker);
void eal_stop(void);

#endif
