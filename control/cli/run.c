/* run.c: `bypost run`: checks the configuration, then starts and supervises both processes, or becomes one of them. */
#include "cli.h"
#include "control/observe/log.h"
#include "dataplane_arguments.h"
#include "programs.h"
#include "supervise.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

static const char help[] =
    "Usage: bypost run [--config FILE] [--only dataplane|control] [OPTIONS]\n\n"
    "Starts bypost-dataplane and bypost-control from one configuration and keeps them running: one that dies\n"
    "starts again after 100 ms; while it dies within a second, the wait doubles to 5 s. Logs go to stderr.\n\n"
    "  -c, --config FILE        the configuration (/etc/bypost/bypost.yaml)\n"
    "      --only PROCESS       become dataplane or control instead of supervising both (for systemd)\n"
    "      --restarts N         so many restarts in a minute are tried before giving up (5); a death by SIGKILL,\n"
    "                           which comes from outside, counts a twentieth\n"
    "      --print              print the two command lines and end\n"
    "      --help, --version\n\n"
    "SIGTERM or SIGINT drains: control takes nothing new and settles what is on the wire, then the dataplane ends.\n"
    "A second one ends both at once. SIGHUP makes control read its configuration again.\n\n"
    "Exit status: 0 stopped and drained, 1 work was left for the next start, 64 usage, 70 a process died too often,\n"
    "72 a program is missing, 73 the run directory cannot be made, 75 another instance runs, 78 configuration errors.\n";

struct programs {
    char *paths[2], **arguments[2];
};
static const char *const names[2] = {"dataplane", "control"};

static int programs_find(struct programs *programs, const struct config *config, const char *only) {
    for (unsigned i = 0; i < 2; i++) {
        char *tried = NULL;
        if (only && strcmp(only, names[i]) != 0) {
            continue;
        }
        programs->paths[i] = program_find(names[i], &tried);
        if (!programs->paths[i]) {
            cli_complain(CLI_NO_BINARY, "run", "bypost-%s is not where it was looked for: %s. Install it there, or name it in BYPOST_%s.",
                         names[i], tried, i == 0 ? "DATAPLANE" : "CONTROL");
            free(tried);
            return CLI_NO_BINARY;
        }
        free(tried);
    }
    char absolute[PATH_MAX];
    programs->arguments[0] = dataplane_arguments(config);
    char *control[] = {"bypost-control", "--config", realpath(config->path, absolute) ? absolute : config->path, NULL};
    programs->arguments[1] = calloc(4, sizeof(char *));
    for (unsigned i = 0; control[i] && programs->arguments[1]; i++) {
        programs->arguments[1][i] = strdup(control[i]);
    }
    return programs->arguments[1] ? CLI_OK : CLI_FAILED;
}

static void programs_free(struct programs *programs) {
    for (unsigned i = 0; i < 2; i++) {
        free(programs->paths[i]);
        dataplane_arguments_free(programs->arguments[i]);
    }
}

/* Quoted for a shell. */
static void programs_print(const struct programs *programs, const char *only) {
    for (unsigned i = 0; i < 2; i++) {
        if (only && strcmp(only, names[i]) != 0) {
            continue;
        }
        printf("%s", programs->paths[i]);
        for (char **at = programs->arguments[i] + 1; *at; at++) {
            printf(strpbrk(*at, " ;'\"$&|<>()*?\\") ? " '%s'" : " %s", *at);
        }
        putchar('\n');
    }
}

/* Makes a folder that is missing, for the user that the processes become. */
static int folder_make(const char *path, mode_t mode, const char *user) {
    if (mkdir(path, mode) != 0) {
        return errno == EEXIST
                   ? CLI_OK
                   : cli_complain(CLI_CANNOT_MAKE, "run", "the folder %s cannot be made: %s. Make it, or name another in bypost.yaml.",
                                  path, strerror(errno));
    }
    const struct passwd *entry = user && geteuid() == 0 ? getpwnam(user) : NULL;
    if (entry && chown(path, entry->pw_uid, entry->pw_gid) != 0) {
        return cli_complain(CLI_CANNOT_MAKE, "run", "the folder %s cannot be given to %s: %s.", path, user, strerror(errno));
    }
    return CLI_OK;
}

static enum log_level level_of(const char *text) {
    static const char *const levels[] = {"error", "warning", "info", "debug"};
    for (unsigned i = 0; text && i < 4; i++) {
        if (strcmp(levels[i], text) == 0) {
            return (enum log_level)i;
        }
    }
    return LOG_LEVEL_INFO;
}

static int programs_become(const struct programs *programs, const char *only) {
    unsigned i = strcmp(only, names[1]) == 0;
    execv(programs->paths[i], programs->arguments[i]);
    return cli_complain(CLI_NO_BINARY, "run", "%s cannot be executed: %s.", programs->paths[i], strerror(errno));
}

static int run_configured(const struct config *config, const char *only, bool print, unsigned long restarts) {
    struct programs programs = {0};
    int code = programs_find(&programs, config, only);
    if (code == CLI_OK && print) {
        programs_print(&programs, only);
    } else if (code == CLI_OK && (code = folder_make(config->run_directory, 0755, config->user)) == CLI_OK &&
               (code = folder_make(config->state_directory, 0750, config->user)) == CLI_OK) {
        struct supervise_config supervised = {.restarts_a_minute = (uint32_t)restarts,
                                              .drain_timeout_ms = config->dataplane.drain_timeout_ms};
        for (unsigned i = 0; i < 2; i++) {
            supervised.processes[i] =
                (struct supervise_process){.name = names[i], .path = programs.paths[i], .argv = programs.arguments[i]};
        }
        log_start("bypost", level_of(config->logs.level));
        code = only ? programs_become(&programs, only) : supervise(&supervised);
        log_flush();
    }
    programs_free(&programs);
    return code;
}

static int run_run(int argc, char **argv) {
    enum { ONLY = 1, RESTARTS, PRINT };
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"only", required_argument, NULL, ONLY},
                                            {"restarts", required_argument, NULL, RESTARTS},
                                            {"print", no_argument, NULL, PRINT},
                                            {NULL, 0, NULL, 0}};
    const char *path = NULL, *only = NULL;
    unsigned long restarts = 5;
    bool print = false;
    for (int option; (option = getopt_long(argc, argv, "c:", options, NULL)) != -1;) {
        switch (option) {
        case 'c':
            path = optarg;
            break;
        case ONLY:
            only = optarg;
            break;
        case RESTARTS:
            if (!cli_number("run", "restarts", optarg, 0, 1000, &restarts)) {
                return CLI_USAGE;
            }
            break;
        case PRINT:
            print = true;
            break;
        default:
            return cli_usage("run");
        }
    }
    if (optind < argc) {
        return cli_complain(CLI_USAGE, "run", "'%s' is not an option; the configuration is named with --config.", argv[optind]);
    }
    if (only && strcmp(only, names[0]) != 0 && strcmp(only, names[1]) != 0) {
        return cli_complain(CLI_USAGE, "run", "--only '%s': write dataplane or control.", only);
    }
    struct config *config = cli_config_load(path);
    if (!config) {
        return cli_complain(CLI_CONFIG, "run", "the configuration has errors, so nothing was started; `bypost check` shows them again.");
    }
    int code = run_configured(config, only, print, restarts);
    config_free(config);
    return code;
}

const struct cli_command run_command = {"run", "start the dataplane and control, and keep them running", help, run_run};
