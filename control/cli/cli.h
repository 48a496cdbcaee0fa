/* cli.h: what the commands share: exit codes, complaints, the configuration, the connection to Redis. */
#ifndef CONTROL_CLI_CLI_H
#define CONTROL_CLI_CLI_H

#include "control/config/config.h"
#include <hiredis/hiredis.h>
#include <jansson.h>
#include <stdio.h>

/* sysexits.h's numbers. README.md lists them; every command's --help names its own. */
enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1,       /* what was asked could not be done, and no other code fits */
    CLI_USAGE = 64,       /* the command line is wrong */
    CLI_DATA = 65,        /* a job is wrong */
    CLI_NO_INPUT = 66,    /* a file to read is not there */
    CLI_UNAVAILABLE = 69, /* Redis or bypost's processes do not answer */
    CLI_SOFTWARE = 70,    /* a process died too often */
    CLI_NO_BINARY = 72,   /* bypost's own programs are not where they should be */
    CLI_CANNOT_MAKE = 73, /* a file could not be written */
    CLI_TEMPORARY = 75,   /* Redis is full, or another instance runs: try again later */
    CLI_CONFIG = 78,      /* the configuration has errors */
};

struct cli_command {
    const char *name, *summary, *help;
    /* argv[0] is the command's name. Returns an exit code. */
    int (*run)(int argc, char **argv);
};
extern const struct cli_command campaign_command;
extern const struct cli_command alarms_command, check_command, dkim_command, events_command, run_command, stats_command, submit_command,
    top_command;
extern const struct cli_command suppress_command, classify_command, rules_command;
extern const struct cli_command hold_command, bounce_command, holds_command, release_command, retry_command, queue_command, find_command,
    explain_command, tls_report_command, token_command;

/* Prints "bypost NAME: ..." on stderr, cleaned, and returns the code. */
int cli_complain(int code, const char *command, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Replaces what moves a terminal's cursor or is no UTF-8 by question marks; line ends stay. */
void cli_clean(char *text);
/* printf for people, where texts come from peers, producers, Redis or files: cleaned, and no argument brings lines of its own. */
void cli_print(FILE *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* For getopt's '?' and ':': getopt has said what is wrong; this says where help is. */
int cli_usage(const char *command);
/* A whole number within a range, from an option. */
bool cli_number(const char *command, const char *option, const char *text, unsigned long min, unsigned long max, unsigned long *number);

/* --config, else BYPOST_CONFIG, else /etc/bypost/bypost.yaml. */
const char *cli_config_path(const char *given);
/* The whole configuration, checked; NULL after its errors were printed. */
struct config *cli_config_load(const char *given);
/* Says on stderr when a configuration with pools has none of this name (or NULL): other senders may have it. */
void cli_pool_tell(const char *command, const struct config *config, const char *pool);
/* For clients of Redis: read, not checked against this machine. With `redis` (an address in the file's place) and no file given, the
 * shipped defaults do where there is no file. NULL with *code after the errors were printed. */
struct config *cli_config_client(const char *command, const char *given, const char *redis, int *code);

/* Connects, authenticates and selects. NULL with *code after the error was printed. Free with redisFree. */
redisContext *cli_redis(const char *command, const struct config *config, int *code);
/* "PREFIX:{SHARD}:NAME" malloc'd. */
char *cli_key(const struct config *config, uint32_t shard, const char *name);
/* Why a command failed: prints and returns the exit code (75 when Redis is full or not ready, 69 when it went away). `reply` NULL: the
 * connection's error. */
int cli_redis_fault(const char *command, const redisContext *redis, const redisReply *reply);

enum { CLI_ERROR_BYTES = 512 };
/* What control, which runs here, answers to a request on its local socket; NULL with a sentence in error[CLI_ERROR_BYTES]. */
json_t *cli_control(const char *run_directory, const char *request, uint32_t timeout_ms, char *error);

/* A whole file (or standard input for "-") of at most max_bytes, malloc'd with a NUL behind. NULL after the error was printed. */
char *cli_read_file(const char *command, const char *path, size_t max_bytes, size_t *length);

#endif
