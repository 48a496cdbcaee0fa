/* alarms.c: `bypost alarms`: what an operator must know now, from control's socket. */
#include "cli.h"
#include "control/clock.h"
#include "control/observe/alarm.h"

#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char help[] = "Usage: bypost alarms [--json] [--clear KIND SUBJECT] [--config FILE]\n\n"
                           "Shows what is wrong now on this node, since when, and the command that mends it.\n\n"
                           "      --clear KIND SUBJECT  takes an alarm away by hand; one whose cause lasts comes back\n"
                           "      --json                an array of {kind, subject, text, since_ms, last_ms, times}\n"
                           "  -c, --config FILE         the configuration (/etc/bypost/bypost.yaml)\n"
                           "      --help, --version\n\n"
                           "Exit status: 0 shown, or cleared, 1 alarms are raised (without --json), or there is none to clear, 64 usage,\n"
                           "69 control does not answer, 78 the configuration has errors.\n";

enum { CONTROL_TIMEOUT_MS = 2000, AGE_BYTES = 24 };
static const char name[] = "alarms";

static const char *age_text(uint64_t since_ms, uint64_t now_ms, char text[AGE_BYTES]) {
    uint64_t age_s = now_ms > since_ms ? (now_ms - since_ms) / 1000 : 0;
    if (age_s < 120)
        snprintf(text, AGE_BYTES, "%" PRIu64 " s", age_s);
    else if (age_s < 7200)
        snprintf(text, AGE_BYTES, "%" PRIu64 " min", age_s / 60);
    else if (age_s < 172800)
        snprintf(text, AGE_BYTES, "%" PRIu64 " h", age_s / 3600);
    else
        snprintf(text, AGE_BYTES, "%" PRIu64 " d", age_s / 86400);
    return text;
}

static int alarms_print(const json_t *alarms) {
    uint64_t now_ms = clock_ms(CLOCK_REALTIME);
    size_t index;
    const json_t *alarm;
    json_array_foreach(alarms, index, alarm) {
        char age[AGE_BYTES];
        cli_print(stdout, "%s", json_string_value(json_object_get(alarm, "kind")));
        putchar(' ');
        cli_print(stdout, "%s", json_string_value(json_object_get(alarm, "subject")));
        printf("  (for %s, seen %" JSON_INTEGER_FORMAT " times)\n    ",
               age_text((uint64_t)json_integer_value(json_object_get(alarm, "since_ms")), now_ms, age),
               json_integer_value(json_object_get(alarm, "times")));
        cli_print(stdout, "%s", json_string_value(json_object_get(alarm, "text")));
        putchar('\n');
    }
    if (json_array_size(alarms) == 0)
        puts("no alarms");
    return json_array_size(alarms) == 0 ? CLI_OK : CLI_FAILED;
}

/* What control answers; NULL with *code after the error was printed. */
static json_t *control_ask(const struct config *config, const char *request, int *code) {
    char error[CLI_ERROR_BYTES];
    json_t *json = cli_control(config->run_directory, request, CONTROL_TIMEOUT_MS, error);
    if (json == NULL)
        *code = cli_complain(CLI_UNAVAILABLE, name, "%s", error);
    return json;
}

static int alarms_show(const struct config *config, bool as_json) {
    int code = CLI_OK;
    json_t *alarms = control_ask(config, "alarms", &code);
    if (alarms == NULL)
        return code;
    if (as_json) {
        json_dumpf(alarms, stdout, JSON_COMPACT);
        putchar('\n');
    } else {
        code = alarms_print(alarms);
    }
    json_decref(alarms);
    return code;
}

static int alarms_clear(const struct config *config, const char *kind, const char *subject) {
    char request[ALARM_KIND_BYTES + ALARM_SUBJECT_BYTES + 32];
    if (strlen(kind) >= ALARM_KIND_BYTES || strlen(subject) >= ALARM_SUBJECT_BYTES || strpbrk(kind, " \r\n") != NULL ||
        strpbrk(subject, "\r\n") != NULL)
        return cli_complain(CLI_USAGE, name, "no alarm has such a kind or subject; `bypost alarms` lists them.");
    snprintf(request, sizeof(request), "alarm-clear %s %s", kind, subject);
    int code = CLI_OK;
    json_t *answer = control_ask(config, request, &code);
    if (answer != NULL && !json_is_true(json_object_get(answer, "cleared")))
        code = cli_complain(CLI_FAILED, name, "there is no alarm %s %s; `bypost alarms` lists them.", kind, subject);
    json_decref(answer);
    return code;
}

static int alarms_run(int argc, char **argv) {
    enum { JSON = 1, CLEAR };
    static const struct option options[] = {{"json", no_argument, NULL, JSON},
                                            {"clear", no_argument, NULL, CLEAR},
                                            {"config", required_argument, NULL, 'c'},
                                            {NULL, 0, NULL, 0}};
    const char *path = NULL;
    bool json = false, clear = false;
    for (int option; (option = getopt_long(argc, argv, "c:", options, NULL)) != -1;) {
        switch (option) {
        case JSON:
            json = true;
            break;
        case CLEAR:
            clear = true;
            break;
        case 'c':
            path = optarg;
            break;
        default:
            return cli_usage(name);
        }
    }
    if (argc - optind != (clear ? 2 : 0))
        return cli_complain(CLI_USAGE, name, clear ? "--clear wants a kind and a subject." : "'%s' is not an option; --help shows them.",
                            argv[optind]);
    int code;
    struct config *config = cli_config_client(name, path, NULL, &code);
    if (config != NULL)
        code = clear ? alarms_clear(config, argv[optind], argv[optind + 1]) : alarms_show(config, json);
    config_free(config);
    return code;
}

const struct cli_command alarms_command = {"alarms", "show what is wrong, and what mends it", help, alarms_run};
