/* main.c: `bypost`: finds the command. */
#include "cli.h"

#include <signal.h>
#include <string.h>

static const struct cli_command *const commands[] = {
    &run_command,      &submit_command, &campaign_command,   &top_command,  &stats_command,   &alarms_command,
    &events_command,   &check_command,  &dkim_command,       &hold_command, &bounce_command,  &holds_command,
    &release_command,  &retry_command,  &queue_command,      &find_command, &explain_command, &suppress_command,
    &classify_command, &rules_command,  &tls_report_command, &token_command};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void help_print(FILE *out) {
    fputs("Usage: bypost COMMAND [OPTIONS]\n\nSends mail at volume from Redis over its own TCP stack.\n\n", out);
    for (unsigned i = 0; i < COMMANDS; i++) {
        fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    }
    fputs("\n`bypost COMMAND --help` shows a command's options. The configuration is /etc/bypost/bypost.yaml,\n"
          "or BYPOST_CONFIG, or what --config names.\n\n"
          "Exit status: 0 success, 1 failure, 64 usage, 65 a job is wrong, 66 an input file is missing, 69 Redis or bypost\n"
          "does not answer, 70 a process died too often, 72 bypost's programs are missing, 73 a file cannot be written,\n"
          "75 try again later, 78 the configuration has errors.\n",
          out);
}

/* --help and --version hold for every command, wherever its own options stand. */
static bool command_asks(int argc, char **argv, const char *option) {
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], option) == 0) {
            return true;
        }
    }
    return false;
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : NULL;
    signal(SIGPIPE, SIG_IGN);
    if (!name) {
        help_print(stderr);
        return CLI_USAGE;
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        puts("bypost " BYPOST_VERSION);
        return CLI_OK;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        help_print(stdout);
        return CLI_OK;
    }
    for (unsigned i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i]->name, name) != 0) {
            continue;
        }
        if (command_asks(argc - 1, argv + 1, "--help")) {
            fputs(commands[i]->help, stdout);
            return CLI_OK;
        }
        if (command_asks(argc - 1, argv + 1, "--version")) {
            printf("bypost %s %s\n", name, BYPOST_VERSION);
            return CLI_OK;
        }
        return commands[i]->run(argc - 1, argv + 1);
    }
    fprintf(stderr, "bypost: there is no command '%s'; `bypost --help` lists them.\n", name);
    return CLI_USAGE;
}
