/* eal.c: DPDK's start, its memory and its threads. */
#include "dataplane/eal.h"

#include <errno.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_malloc.h>
#include <rte_memory.h>
#include <rte_memzone.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { EAL_ARGUMENTS_MAX = 64, EAL_TEXT_BYTES = 2048 };

/* Arguments with their bytes, gathered in place. */
struct arguments {
    int count;
    char *items[EAL_ARGUMENTS_MAX + 1];
    char text[EAL_TEXT_BYTES];
    size_t used;
};

static void add(struct arguments *arguments, const char *text) {
    size_t length = strlen(text) + 1;
    if (arguments->count == EAL_ARGUMENTS_MAX || arguments->used + length > sizeof(arguments->text))
        return;
    char *place = arguments->text + arguments->used;
    memcpy(place, text, length);
    arguments->used += length;
    arguments->items[arguments->count++] = place;
}

static bool wants_pci(const struct options *options) {
    for (uint32_t i = 0; i < options->port_count; i++)
        if (strncmp(options->ports[i].device, "net_", 4) != 0)
            return true;
    return false;
}

/* "0@MAIN,1@A,2@B": logical cores are numbered by worker, so that a main thread and a worker may share a CPU. */
static void lcore_map(const struct options *options, char *text, size_t bytes) {
    int used = snprintf(text, bytes, "0@%u", options->main_lcore);
    for (uint32_t i = 0; i < options->geometry.workers && used > 0 && (size_t)used < bytes; i++)
        used += snprintf(text + used, bytes - (size_t)used, ",%u@%u", i + 1, options->lcores[i]);
}

static int find_descriptor(struct arena *arena, char *error, size_t error_bytes) {
    struct rte_memseg *segment = rte_mem_virt2memseg(arena->bytes, NULL);
    if (segment == NULL) {
        snprintf(error, error_bytes, "the arena is not in EAL memory.");
        return -EFAULT;
    }
    size_t offset = 0;
    arena->fd = rte_memseg_get_fd(segment);
    if (arena->fd < 0 || rte_memseg_get_fd_offset(segment, &offset) != 0) {
        snprintf(error, error_bytes, "EAL gives no descriptor of its memory (%s): the arena cannot be shared with bypost-control.",
                 rte_strerror(rte_errno));
        return -ENOTSUP;
    }
    arena->page_bytes = segment->hugepage_sz;
    arena->fd_offset = offset + (uint64_t)(arena->bytes - (uint8_t *)segment->addr);
    arena->pieces_in_page = rte_eal_iova_mode() == RTE_IOVA_PA;
    return 0;
}

int eal_start(const struct options *options, struct arena *arena, char *error, size_t error_bytes) {
    static struct arguments arguments; /* EAL keeps pointers into it */
    char text[1024];
    add(&arguments, "bypost-dataplane");
    lcore_map(options, text, sizeof(text));
    add(&arguments, "--lcores");
    add(&arguments, text);
    add(&arguments, "--single-file-segments"); /* one descriptor for the arena, and what virtio_user wants */
    add(&arguments, "--no-telemetry");
    add(&arguments, "--log-level=lib.eal:error");
    snprintf(text, sizeof(text), "%u", options->memory_mib);
    add(&arguments, "-m");
    add(&arguments, text);
    if (options->hugepages) {
        add(&arguments, "--in-memory");
    } else { /* EAL refuses the two together */
        add(&arguments, "--no-huge");
        add(&arguments, "--no-shconf");
        snprintf(text, sizeof(text), "bypost%d", (int)getpid());
        add(&arguments, "--file-prefix");
        add(&arguments, text);
    }
    if (!wants_pci(options)) {
        add(&arguments, "--no-pci");
        add(&arguments, "--iova-mode=va");
    }
    for (uint32_t i = 0; i < options->eal_count; i++)
        add(&arguments, options->eal[i]);
    if (rte_eal_init(arguments.count, arguments.items) < 0) {
        snprintf(error, error_bytes, "DPDK did not start: %s.%s", rte_strerror(rte_errno),
                 options->hugepages ? " Are enough hugepages free (grep Huge /proc/meminfo)? `hugepages: off` runs without." : "");
        return rte_errno != 0 ? -rte_errno : -EINVAL;
    }
    uint64_t length = (uint64_t)options->arena_mib << 20;
    const struct rte_memzone *zone = rte_memzone_reserve_aligned("bypost_arena", length, SOCKET_ID_ANY, 0, 4096);
    if (zone == NULL) {
        snprintf(error, error_bytes,
                 "%u MiB for messages do not fit in %u MiB of EAL memory: %s. Raise dataplane.memory or lower dataplane.arena.",
                 options->arena_mib, options->memory_mib, rte_strerror(rte_errno));
        return -ENOMEM;
    }
    arena->bytes = zone->addr;
    arena->length = length;
    return find_descriptor(arena, error, error_bytes);
}

unsigned eal_lcore(uint32_t worker) {
    return worker + 1;
}

int eal_launch(uint32_t worker, int (*run)(void *argument), void *argument) {
    return rte_eal_remote_launch(run, argument, eal_lcore(worker));
}

void eal_wait(uint32_t worker) {
    rte_eal_wait_lcore(eal_lcore(worker));
}

void eal_stop(void) {
    rte_eal_cleanup();
}
