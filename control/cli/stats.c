/* stats.c: `bypost stats`: the workers' counters from the journal, and control's from its socket. */
#include "cli.h"
#include "control/clock.h"
#include "sample.h"

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

static const char name[] = "stats";

static json_t *counters_json(const uint64_t *values) {
    json_t *object = json_object();
    for (unsigned i = 0; i < SAMPLE_COUNTERS; i++) {
        json_object_set_new(object, sample_names[i].name, json_integer((json_int_t)values[i]));
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

static void dataplane_print(const struct sample *sample, const struct sample *before) {
    if (!sample->journal) {
        printf("dataplane: %s\n", sample->journal_error);
        return;
    }
    printf("dataplane: %s%s, start %u, %u worker%s, %u slots in use\n", sample->running ? "running" : "not running",
           sample->running && sample->draining ? " (draining)" : "", sample->generation, sample->workers, sample->workers == 1 ? "" : "s",
           sample->slots_used);
    for (unsigned i = 0; i < SAMPLE_COUNTERS; i++) {
        printf("  %-22s %16" PRIu64, sample_names[i].name, sample->total[i]);
        if (before && before->journal && before->generation == sample->generation && !sample_is_gauge(i) &&
            sample->time_ms > before->time_ms) {
            printf("  %12.0f/s", (double)(sample->total[i] - before->total[i]) * 1000.0 / (double)(sample->time_ms - before->time_ms));
        }
        printf("  %s\n", sample_names[i].help);
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
            cli_print(stdout, "  %-26s %12s\n", path, text ? text : "");
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
        sample = sample_take(config, "stats");
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
        cli_complain(code, name, "neither process answers this user; start them with `bypost run`.");
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
