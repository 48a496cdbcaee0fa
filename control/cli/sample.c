/* sample.c: one look at this node. */
#include "sample.h"
#include "control/clock.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CONTROL_TIMEOUT_MS = 2000 };

const struct sample_name sample_names[SAMPLE_COUNTERS] = {
#define X(field, text) {#field, text, offsetof(struct counters, field)},
    BYPOST_COUNTERS(X)
#undef X
};

static void sample_journal(struct sample *sample, const char *path) {
    struct journal journal;
    if (access(path, F_OK) != 0) { /* opening would make it */
        snprintf(sample->journal_error, SAMPLE_ERROR_BYTES, "There is no journal at %s: bypost has not run with this configuration.", path);
        return;
    }
    if (journal_open(&journal, path, (struct journal_geometry){0}, JOURNAL_OBSERVER, sample->journal_error, SAMPLE_ERROR_BYTES) != 0) {
        return;
    }
    sample->journal = true;
    sample->running = journal_role_alive(&journal, JOURNAL_DATAPLANE) == 1;
    sample->draining = atomic_load(&journal.header->draining) != 0;
    sample->generation = atomic_load(&journal.header->dataplane_generation);
    sample->workers = journal.geometry.workers < JOURNAL_WORKERS_MAX ? journal.geometry.workers : JOURNAL_WORKERS_MAX;
    for (uint32_t i = 0; i < journal.geometry.slots; i++) {
        sample->slots_used += slot_word_state(slot_load(&journal.slots[i])) != SLOT_FREE;
    }
    for (uint32_t w = 0; w < sample->workers; w++) {
        for (unsigned i = 0; i < SAMPLE_COUNTERS; i++) {
            sample->values[w][i] =
                counter_get((const _Atomic uint64_t *)((const char *)journal_counters(&journal, w) + sample_names[i].offset));
            sample->total[i] += sample->values[w][i];
        }
    }
    journal_close(&journal);
}

static void sample_control(struct sample *sample, const char *run_directory, const char *request) {
    sample->control = cli_control(run_directory, request, CONTROL_TIMEOUT_MS, sample->control_error);
    if (sample->control && !json_is_object(sample->control)) {
        snprintf(sample->control_error, sizeof sample->control_error, "Control's answer is no object; is it of another version?");
        json_decref(sample->control);
        sample->control = NULL;
    }
}

struct sample *sample_take(const struct config *config, const char *request) {
    struct sample *sample = calloc(1, sizeof *sample);
    if (!sample) {
        abort();
    }
    sample->time_ms = clock_ms(CLOCK_MONOTONIC);
    sample_journal(sample, config->journal.path);
    sample_control(sample, config->run_directory, request);
    return sample;
}

void sample_free(struct sample *sample) {
    if (sample) {
        json_decref(sample->control);
        free(sample);
    }
}

bool sample_is_gauge(unsigned counter) {
    return counter == SAMPLE_tcp_connections || counter == SAMPLE_sessions_open || counter == SAMPLE_sessions_ready ||
           counter == SAMPLE_tls_sessions || counter == SAMPLE_tls_memory_bytes;
}

double sample_rate(const struct sample *before, const struct sample *now, uint32_t worker, unsigned counter) {
    if (!before || !before->journal || !now->journal || before->generation != now->generation || now->time_ms <= before->time_ms ||
        now->values[worker][counter] < before->values[worker][counter]) {
        return 0;
    }
    return (double)(now->values[worker][counter] - before->values[worker][counter]) * 1000.0 / (double)(now->time_ms - before->time_ms);
}
