/* bench_eal.c: EAL's arguments. */
#include "bench_eal.h"
#include <rte_eal.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

/* "0,1": the CPUs of this process. */
static void cpus_of_process(char *text, size_t bytes) {
    cpu_set_t set;
    size_t used = 0;
    CPU_ZERO(&set);
    sched_getaffinity(0, sizeof set, &set);
    text[0] = '\0';
    for (int cpu = 0; cpu < CPU_SETSIZE && used + 8 < bytes; cpu++)
        if (CPU_ISSET(cpu, &set))
            used += (size_t)snprintf(text + used, bytes - used, "%s%d", used > 0 ? "," : "", cpu);
}

int bench_eal_start(const char *program, const char *lcore, uint32_t memory_mib, bool pci) {
    char memory[16], prefix[64], lcores[256], cpus[200];
    snprintf(memory, sizeof memory, "%u", memory_mib);
    snprintf(prefix, sizeof prefix, "--file-prefix=%s%d", program, (int)getpid());
    if (lcore != NULL)
        snprintf(cpus, sizeof cpus, "%s", lcore);
    else
        cpus_of_process(cpus, sizeof cpus);
    snprintf(lcores, sizeof lcores, "0@(%s)", cpus);
    const char *arguments[] = {program,
                               "--lcores",
                               lcores,
                               "--no-huge",
                               "-m",
                               memory,
                               "--no-telemetry",
                               "--no-shconf",
                               "--single-file-segments",
                               "--log-level=lib.eal:error",
                               "--log-level=*:error",
                               prefix,
                               "--iova-mode=va",
                               "--no-pci"};
    int count = (int)(sizeof arguments / sizeof arguments[0]) - (pci ? 1 : 0);
    return rte_eal_init(count, (char **)(uintptr_t)arguments) < 0 ? -1 : 0;
}
