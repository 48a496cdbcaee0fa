/* stats.c: `bypost stats`: the workers' counters from the journal, and control's from its socket. */
#include "cli.h"
#include "control/clock.h"
#include "control/observe/local.h"

#include <bypost/journal.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char help[] = "Usage: bypost stats [--watch[=SECONDS]] [--json] [--config FILE]\n\n"
                           "Shows what the workers and control have counted since they started.\n\n"
                           "  -w, --watch[=SECONDS]   again and again, with rates (every second)\n"
                           "  -n, --count N           with --watch: end after N times\n"
                           "      --json              one JSON object a line: time, dataplane, control (null when it does not run)\n"
                           "  -c, --config FILE       the configuration (/etc/bypost/bypost.yaml)\n"
                           "      --help, --version\n\n"
                           "Exit status: 0 shown, 64 usage, 69 neither process runs, 78 the configuration has errors.\n";

enum { CONTROL_TIMEOUT_MS = 2000, ERROR_BYTES = 512 };
static const char name[] = "stats";

/* One counter: where it is, its name and what it means. */
static const struct counter {
    const char *name, *help;
    size_t offset;
} counters[] = {
#define X(field, text) {#field, text, offsetof(struct counters, field)},
    BYPOST_COUNTERS(X)
#undef X
};
enum { COUNTERS = sizeof counters / sizeof *counters };

struct sample {
    uint64_t time_ms;
    bool journal, running, draining;
    uint32_t generation, workers, slots_used;
    uint64_t values[JOURNAL_WORKERS_MAX][COUNTERS], total[COUNTERS];
    json_t *control; /* or NULL */
    char journal_error[ERROR_BYTES], control_error[ERROR_BYTES];
};

static void sample_journal(struct sample *sample, const char *path) {
    struct journal journal;
    if (access(path, F_OK) != 0) { /* opening would make it */
        snprintf(sample->journal_error, ERROR_BYTES, "There is no journal at %s: bypost has not run with this configuration.", path);
        return;
    }
    if (journal_open(&journal, path, (struct journal_geometry){0}, JOURNAL_OBSERVER, sample->journal_error, ERROR_BYTES) != 0) {
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
        for (unsigned i = 0; i < COUNTERS; i++) {
            sample->values[w][i] =
                counter_get((const _Atomic uint64_t *)((const char *)journal_counters(&journal, w) + counters[i].offset));
            sample->total[i] += sample->values[w][i];
        }
    }
    journal_close(&journal);
}

static void sample_control(struct sample *sample, const char *run_directory) {
    char *path = NULL;
    if (asprintf(&path, "%s/control.sock", run_directory) < 0) {
        abort();
    }
    char *answer = local_request(path, "stats", CONTROL_TIMEOUT_MS, sample->control_error, ERROR_BYTES);
    sample->control = answer ? json_loads(answer, 0, NULL) : NULL;
    if (answer && !json_is_object(sample->control)) {
        snprintf(sample->control_error, ERROR_BYTES, "Control's answer makes no sense; is it of another version?");
        json_decref(sample->control);
        sample->control = NULL;
    }
    free(answer);
    free(path);
}

static struct sample *sample_take(const struct config *config) {
    struct sample *sample = calloc(1, sizeof *sample);
    if (!sample) {
        abort();
    }
    sample->time_ms = clock_ms(CLOCK_MONOTONIC);
    sample_journal(sample, config->journal.path);
    sample_control(sample, config->run_directory);
    return sample;
}

static void sample_free(struct sample *sample) {
    if (sample) {
        json_decref(sample->control);
        free(sample);
    }
}

static json_t *counters_json(const uint64_t *values) {
    json_t *object = json_object();
    for (unsigned i = 0; i < COUNTERS; i++) {
        json_object_set_new(object, counters[i].name, json_integer((json_int_t)values[i]));
    }
    return object;
}

static void sample_json(const struct sample *sample) {
    json_t *root = json_pack("{s:f}", "time", (double)clock_ms(CLOCK_REALTIME) / 1000.0), *dataplane = json_null();
    if (sample->journal) {
        json_t *workers = json_array();
        for (uint32_t w = 0; w < sample->workers; w++) {
            json_array_append_new(workers, counters_json(sample->values[w]));
        }
        dataplane = json_pack("{s:b,s:b,s:i,s:i,s:o,s:o}", "running", sample->running, "draining", sample->draining, "generation",
                              (int)sample->generation, "slots_used", (int)sample->slots_used, "total", counters_json(sample->total),
                              "workers", workers);
    }
    json_object_set_new(root, "dataplane", dataplane);
    json_object_set_new(root, "control", sample->control ? json_incref(sample->control) : json_null());
    json_dumpf(root, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(root);
}

/* Gauges go up and down: a rate of them means nothing. */
static bool counter_is_gauge(const char *counter) {
    return strcmp(counter, "tcp_connections") == 0 || strncmp(counter, "sessions_", 9) == 0;
}

static void dataplane_print(const struct sample *sample, const struct sample *before) {
    if (!sample->journal) {
        printf("dataplane: %s\n", sample->journal_error);
        return;
    }
    printf("dataplane: %s%s, start %u, %u worker%s, %u slots in use\n", sample->running ? "running" : "not running",
           sample->running && sample->draining ? " (draining)" : "", sample->generation, sample->workers, sample->workers == 1 ? "" : "s",
           sample->slots_used);
    for (unsigned i = 0; i < COUNTERS; i++) {
        printf("  %-22s %16" PRIu64, counters[i].name, sample->total[i]);
        if (before && before->journal && before->generation == sample->generation && !counter_is_gauge(counters[i].name) &&
            sample->time_ms > before->time_ms) {
            printf("  %12.0f/s", (double)(sample->total[i] - before->total[i]) * 1000.0 / (double)(sample->time_ms - before->time_ms));
        }
        printf("  %s\n", counters[i].help);
    }
}

static void object_print(const json_t *object, const char *prefix) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) {
        char path[128];
        snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "." : "", key);
        if (json_is_object(value)) {
            object_print(value, path);
        } else {
            char *text = json_dumps(value, JSON_ENCODE_ANY);
            printf("  %-26s %12s\n", path, text ? text : "");
            free(text);
        }
    }
}

static void sample_print(const struct sample *sample, const struct sample *before) {
    dataplane_print(sample, before);
    if (sample->control) {
        puts("control: running");
        object_print(sample->control, "");
    } else {
        printf("control: %s\n", sample->control_error);
    }
}

static int stats_show(const struct config *config, unsigned long watch_s, unsigned long times, bool json) {
    struct sample *before = NULL, *sample = NULL;
    int code = CLI_OK;
    for (unsigned long i = 0; times == 0 || i < times; i++) {
        if (i > 0) {
            sleep((unsigned)watch_s);
        }
        sample_free(before);
        before = sample;
        sample = sample_take(config);
        if (json) {
            sample_json(sample);
        } else {
            if (watch_s && isatty(STDOUT_FILENO)) {
                fputs("\033[H\033[J", stdout);
            }
            sample_print(sample, before);
        }
        if (fflush(stdout) != 0) {
            break; /* the reader went */
        }
        code = !sample->running && !sample->control ? CLI_UNAVAILABLE : CLI_OK;
    }
    if (code == CLI_UNAVAILABLE) {
        cli_complain(code, name, "neither process runs; start them with `bypost run`.");
    }
    sample_free(before);
    sample_free(sample);
    return code;
}

static int stats_run(int argc, char **argv) {
    enum { JSON = 1 };
    static const struct option options[] = {{"watch", optional_argument, NULL, 'w'},
                                            {"count", required_argument, NULL, 'n'},
                                            {"json", no_argument, NULL, JSON},
                                            {"config", required_argument, NULL, 'c'},
                                            {NULL, 0, NULL, 0}};
    const char *path = NULL;
    unsigned long watch_s = 0, times = 1;
    bool json = false, counted = false;
    for (int option; (option = getopt_long(argc, argv, "w::n:c:", options, NULL)) != -1;) {
        switch (option) {
        case 'w':
            watch_s = 1;
            if (optarg && !cli_number(name, "watch", optarg, 1, 86400, &watch_s)) {
                return CLI_USAGE;
            }
            break;
        case 'n':
            counted = true;
            if (!cli_number(name, "count", optarg, 1, 1000000000, &times)) {
                return CLI_USAGE;
            }
            break;
        case JSON:
            json = true;
            break;
        case 'c':
            path = optarg;
            break;
        default:
            return cli_usage(name);
        }
    }
    if (optind < argc || (counted && !watch_s)) {
        return cli_complain(CLI_USAGE, name, optind < argc ? "'%s' is not an option; --help shows them." : "--count needs --watch%s.",
                            optind < argc ? argv[optind] : "");
    }
    int code;
    struct config *config = cli_config_client(name, path, NULL, &code);
    if (config) {
        code = stats_show(config, watch_s, watch_s && !counted ? 0 : times, json);
    }
    config_free(config);
    return code;
}

const struct cli_command stats_command = {"stats", "show live counters", help, stats_run};
