/* sample.h: one look at this node: the workers' counters from the journal, and control's answer from its socket. */
#ifndef CONTROL_CLI_SAMPLE_H
#define CONTROL_CLI_SAMPLE_H

#include "cli.h"
#include "control/config/config.h"

#include <bypost/journal.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sample_counter {
#define X(field, text) SAMPLE_##field,
    BYPOST_COUNTERS(X)
#undef X
        SAMPLE_COUNTERS
};
/* Their names and what they mean. */
struct sample_name {
    const char *name, *help;
    size_t offset;
};
extern const struct sample_name sample_names[SAMPLE_COUNTERS];

enum { SAMPLE_ERROR_BYTES = CLI_ERROR_BYTES };
struct sample {
    uint64_t time_ms; /* CLOCK_MONOTONIC */
    bool journal, running, draining;
    uint32_t generation, workers, slots_used;
    uint64_t values[JOURNAL_WORKERS_MAX][SAMPLE_COUNTERS], total[SAMPLE_COUNTERS];
    json_t *control; /* or NULL */
    char journal_error[SAMPLE_ERROR_BYTES], control_error[SAMPLE_ERROR_BYTES];
};

/* `request`: what control is asked, "stats" or "top". */
struct sample *sample_take(const struct config *config, const char *request);
void sample_free(struct sample *sample);
/* Gauges go up and down: a rate of them means nothing. */
bool sample_is_gauge(unsigned counter);
/* A counter's rate between two samples, of one worker; 0 when they are not of the same dataplane. */
double sample_rate(const struct sample *before, const struct sample *now, uint32_t worker, unsigned counter);

#endif
