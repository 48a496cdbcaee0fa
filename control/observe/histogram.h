/* histogram.h: durations by fixed bounds, as Prometheus wants them: each bucket counts what is at most its bound. */
#ifndef CONTROL_OBSERVE_HISTOGRAM_H
#define CONTROL_OBSERVE_HISTOGRAM_H

#include <stdint.h>

enum { HISTOGRAM_BUCKETS = 22 };

/* From 0.1 ms to three days: a lookup from a near cache, and a delivery after many deferrals. In microseconds. */
static const uint64_t histogram_bounds_us[HISTOGRAM_BUCKETS] = {
    100,    250,     500,     1000,    2500,     5000,     10000,     25000,      50000,      100000,      250000,
    500000, 1000000, 2500000, 5000000, 15000000, 60000000, 300000000, 1800000000, 7200000000, 43200000000, 259200000000};

struct histogram {
    uint64_t buckets[HISTOGRAM_BUCKETS + 1]; /* each alone; the last: above all bounds */
    uint64_t sum_us;
};

static inline void histogram_add(struct histogram *histogram, uint64_t us) {
    unsigned low = 0, high = HISTOGRAM_BUCKETS;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (us <= histogram_bounds_us[middle])
            high = middle;
        else
            low = middle + 1;
    }
    histogram->buckets[low]++;
    histogram->sum_us += us;
}

#endif
