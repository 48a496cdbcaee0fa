/* sim_tcp.c: runs seeds. One seed is one world: the stack against itself or against model peers over a virtual wire, in virtual time; the
 * same seed gives the same run. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "world.h"

enum { SEEDS_TO_JUDGE = 1000 };

static void print_totals(const struct totals *totals) {
    printf("%" PRIu64 " connections, %" PRIu64 " ended in order; %" PRIu64 " segments, %" PRIu64 " SACK blocks; sent again: %" PRIu64
           " fast, %" PRIu64 " by timeout, %" PRIu64 " tail probes, %" PRIu64 " recoveries undone; %" PRIu64 " out of order, %" PRIu64
           " duplicates, %" PRIu64 " challenges, %" PRIu64 " TIME_WAIT, %" PRIu64 " pools empty, %" PRIu64 " refused, %" PRIu64
           " reset, %" PRIu64 " accepted, %" PRIu64 " keepalives, %" PRIu64 " MTU lowered, %" PRIu64 " black holes\n",
           totals->links, totals->completed, totals->segments, totals->sack_blocks, totals->fast, totals->timeouts, totals->tail_probes,
           totals->spurious, totals->out_of_order, totals->duplicates, totals->challenges, totals->time_wait, totals->pool_exhausted,
           totals->refused, totals->resets, totals->accepted, totals->keepalives, totals->mtu_lowered, totals->black_holes);
}

/* Everything must have happened somewhere. */
static const char *too_kind(const struct totals *totals) {
    const struct {
        uint64_t count;
        const char *what;
    } wanted[] = {
        {totals->fast, "fast retransmission"},
        {totals->timeouts, "timeout"},
        {totals->out_of_order, "segment out of order"},
        {totals->challenges, "challenge ACK"},
        {totals->time_wait, "TIME_WAIT"},
        {totals->pool_exhausted, "empty pool"},
        {totals->refused, "refusal"},
        {totals->resets, "reset"},
        {totals->accepted, "passive open"},
        {totals->tail_probes, "tail probe"},
        {totals->spurious, "recovery undone"},
        {totals->mtu_lowered, "smaller path"},
        {totals->black_holes, "black hole"},
        {totals->keepalives, "keepalive"},
        {totals->handed, "segment of another worker"},
        {totals->sack_blocks, "SACK block"},
        {totals->duplicates, "duplicate"},
        {totals->completed, "orderly ending"},
    };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        if (wanted[i].count == 0) {
            return wanted[i].what;
        }
    }
    return NULL;
}

int main(int argc, char **argv) {
    struct totals totals = {0};
    uint64_t seeds = 200, first = 1, failures = 0, most_failures = 50;
    bool traced = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--seeds") == 0 && i + 1 < argc) {
            seeds = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--first") == 0 && i + 1 < argc) {
            first = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            first = strtoull(argv[++i], NULL, 10);
            seeds = 1;
        } else if (strcmp(argv[i], "--failures") == 0 && i + 1 < argc) {
            most_failures = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--trace") == 0) {
            traced = true;
        } else {
            fprintf(stderr, "usage: sim_tcp [--seeds N] [--first S] [--failures N] [--seed S [--trace]]\n");
            return 2;
        }
    }
    world_streams();
    static struct world world;
    uint64_t seed = first;
    for (; seed < first + seeds && failures < most_failures; seed++) {
        const char *failure = world_run(&world, seed, traced, &totals);
        if (failure != NULL) {
            failures++;
            printf("seed %" PRIu64 ": %s (replay: tests/sim/run --seed %" PRIu64 " --trace)\n", seed, failure, seed);
        }
    }
    printf("%" PRIu64 " seeds, %" PRIu64 " failures; ", seed - first, failures);
    print_totals(&totals);
    if (seeds >= SEEDS_TO_JUDGE && failures == 0 && too_kind(&totals) != NULL) {
        printf("the worlds were too kind: no %s\n", too_kind(&totals));
        return 1;
    }
    return failures == 0 ? 0 : 1;
}
