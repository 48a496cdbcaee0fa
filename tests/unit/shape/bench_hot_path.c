/* bench_hot_path.c: the cost of one delivery through enqueue, take and ended, spread over many lanes; fails above 2 us. */
#include "harness.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS = 20, TARGET_NS = 2000 };

static uint64_t clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Sites are named by number. */
static void collect(void *context, struct lane *lane) {
    struct lane **lanes = context;
    lanes[strtoul(lane->site->name, NULL, 10)] = lane;
}

static bool run(uint32_t lanes, uint32_t each, bool with_provider) {
    struct harness harness;
    harness_start(&harness, 4);
    harness.config.defaults.max_message_rate = 0;
    harness.providers[0].limits = (struct shaping_limits){.provider_connection_limit = 1000000, .provider_max_message_rate = 1000000};
    struct site **sites = calloc(lanes, sizeof(struct site *));
    struct lane **lane = calloc(lanes, sizeof(struct lane *));
    uint32_t total = lanes * each;
    struct delivery *deliveries = calloc(total, sizeof *deliveries);
    for (uint32_t i = 0; i < lanes; i++) {
        char name[16];
        snprintf(name, sizeof name, "%u", i);
        sites[i] = site_make(&harness, name, 2);
        sites[i]->provider = with_provider ? &harness.providers[0] : NULL;
    }
    for (uint32_t i = 0; i < total; i++)
        deliveries[i] = (struct delivery){.job = &harness.job, .site = sites[i % lanes]};
    struct outcome outcome = {.kind = OUTCOME_REPLIED, .code = 250};
    struct classification classification = {.class = CLASS_NONE};
    uint64_t spent_ns = 0;
    for (uint32_t round = 0; round <= ROUNDS; round++) {
        uint64_t start_ns = clock_ns();
        for (uint32_t i = 0; i < total; i++)
            if (shape_enqueue(harness.shape, &deliveries[i], harness.now_us) != 0)
                abort();
        if (round == 0)
            shape_lanes(harness.shape, collect, lane);
        for (uint32_t i = 0; i < total; i++) {
            uint64_t wake_us;
            struct lane *from = lane[i % lanes];
            struct delivery *delivery = shape_take(harness.shape, from, harness.now_us, &wake_us);
            if (!delivery) {
                harness.now_us += 1000;
                shape_poll(harness.shape, harness.now_us);
                i--;
                continue;
            }
            shape_ended(harness.shape, from, &outcome, &classification, 0, harness.now_us);
        }
        if (round > 0)
            spent_ns += clock_ns() - start_ns;
        harness.now_us += SECOND;
        shape_poll(harness.shape, harness.now_us);
    }
    double each_ns = (double)spent_ns / ROUNDS / total;
    printf("%6u lanes%s: %.0f ns a delivery\n", lanes, with_provider ? " of one provider" : "", each_ns);
    harness_stop(&harness);
    for (uint32_t i = 0; i < lanes; i++)
        site_unmake(sites[i]);
    free(deliveries);
    free(lane);
    free(sites);
    return each_ns < TARGET_NS;
}

int main(void) {
    bool good = run(1, 8000, false);
    good = run(1000, 100, false) && good;
    good = run(1000, 100, true) && good;
    good = run(100000, 1, false) && good;
    good = run(100000, 1, true) && good;
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
