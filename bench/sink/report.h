/* report.h: the workers' figures, added up, as JSON in a file. */
#ifndef BENCH_SINK_REPORT_H
#define BENCH_SINK_REPORT_H

#include "worker.h"

/* Between two reports. */
struct report_rate {
    double at_s, handshakes_per_second;
    uint64_t handshakes;
};

/* Writes beside `path` and renames, so that a reader never sees half of it. 0 or -errno. */
int report_write(const char *path, const struct sink_worker *workers, uint32_t count, const struct script *script, double uptime_s,
                 struct report_rate *rate);

#endif
