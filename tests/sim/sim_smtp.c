/* sim_smtp.c: runs seeds of the mail world; the same seed gives the same run. */
#include "smtp_world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEEDS_TO_JUDGE = 300 };

struct wanted {
    uint64_t count;
    const char *what;
};

#define EVENT(kind)   totals->events[PATH_EVENT_##kind]
#define FAILURE(kind) totals->failures[TLS_FAILURE_##kind]

/* Everything must have happened somewhere. */
static int say_totals(const struct mail_totals *totals, bool judges) {
    const struct wanted wanted[] = {
        {totals->sessions, "sessions"},
        {totals->handshakes, "handshakes"},
        {totals->resumed, "resumed"},
        {totals->implicit, "implicit TLS"},
        {totals->credentials, "AUTH"},
        {totals->delivered, "delivered"},
        {totals->refused, "refused"},
        {totals->lost, "lost"},
        {totals->uncertain, "uncertain"},
        {totals->uncertain_stored, "uncertain and stored"},
        {totals->returned, "returned"},
        {totals->local, "local"},
        {totals->lacking, "lacking at every server"},
        {totals->not_asked, "lacking at those that could be asked"},
        {totals->withdrawn, "withdrawn"},
        {totals->retired, "paths retired"},
        {totals->rests, "rests"},
        {totals->drained, "drains with orders"},
        {totals->datas, "DATA"},
        {totals->chunks, "BDAT"},
        {totals->behind, "transactions behind another"},
        {totals->after_refusal, "bodies for nobody"},
        {totals->hellos, "HELO"},
        {totals->requiretls, "REQUIRETLS"},
        {totals->dsn, "DSN"},
        {totals->injected, "injections"},
        {totals->stalls, "stalls"},
        {totals->slow, "slow replies"},
        {totals->resets, "resets"},
        {totals->fins, "ends"},
        {totals->shutdowns, "421"},
        {totals->garbled, "garbage"},
        {totals->wrong, "wrong classes"},
        {totals->doubled, "replies twice"},
        {totals->early, "early replies"},
        {totals->segments_lost, "segments lost"},
        {totals->doubled_segments, "segments doubled"},
        {totals->icmp, "ICMP"},
        {totals->retransmits, "sent again"},
        {totals->pools_empty, "pools empty"},
        {EVENT(CONNECT_FAILED), "connects failed"},
        {EVENT(GREETING_REFUSED), "greetings refused"},
        {EVENT(CLOSED_EARLY), "closed early"},
        {EVENT(AUTH_FAILED), "AUTH failed"},
        {EVENT(PROTOCOL_ERROR), "protocol errors"},
        {FAILURE(NOT_OFFERED), "STARTTLS not offered"},
        {FAILURE(REFUSED), "STARTTLS refused"},
        {FAILURE(INJECTED), "injections seen"},
        {FAILURE(HANDSHAKE), "handshakes failed"},
        {FAILURE(TIMEOUT), "handshakes too slow"},
        {FAILURE(HOST_MISMATCH), "other names"},
        {FAILURE(EXPIRED), "expired"},
        {FAILURE(TLSA_MISMATCH), "other TLSA"},
    };
    const char *never = NULL;
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        printf("%s%" PRIu64 " %s", i ? ", " : "", wanted[i].count, wanted[i].what);
        never = wanted[i].count || never ? never : wanted[i].what;
    }
    printf("\n");
    if (judges && never)
        printf("the worlds were too kind: no %s\n", never);
    return judges && never;
}

int main(int argc, char **argv) {
    static struct mail_totals totals;
    static struct mail_world world;
    uint64_t seeds = 100, first = 1, failures = 0, most_failures = 20;
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
            fprintf(stderr, "usage: sim_smtp [--seeds N] [--first S] [--failures N] [--seed S [--trace]]\n");
            return 2;
        }
    }
    mail_start();
    uint64_t seed = first;
    for (; seed < first + seeds && failures < most_failures; seed++) {
        const char *failure = mail_run(&world, seed, traced, &totals);
        if (failure) {
            failures++;
            printf("seed %" PRIu64 ": %s (replay: tests/sim/run smtp --seed %" PRIu64 " --trace)\n", seed, failure, seed);
        }
    }
    printf("%" PRIu64 " seeds, %" PRIu64 " failures; ", seed - first, failures);
    return say_totals(&totals, seeds >= SEEDS_TO_JUDGE && !failures) || failures ? 1 : 0;
}
