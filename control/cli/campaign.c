/* campaign.c: `bypost campaign`: finds the subcommand. */
#include "campaign.h"

#include <stdio.h>
#include <string.h>

static const char help[] =
    "Usage: bypost campaign COMMAND ...\n\n"
    "  create NAME --content FILE.yaml --recipients FILE   submits a content to the recipients of a CSV or JSON Lines file\n"
    "                                                      (`bypost campaign create --help`)\n"
    "  list                                                campaigns, the newest first\n"
    "  show NAME [--watch[=SECONDS]]                       where its recipients are, its rate, when it will be finished\n"
    "  pause NAME [--reason TEXT]                          nothing more of it is sent; what is under way ends\n"
    "  resume NAME                                         goes on; undoes a cancel within its grace\n"
    "  cancel NAME [--final] [--grace TIME] [--reason TEXT]   as pause, and after the grace (1h) what waits ends as cancelled;\n"
    "                                                      --final: at once, which cannot be undone\n"
    "  set NAME KEY=VALUE...                               rate=500/s weight=2 window='08:00-20:00 Europe/Berlin'\n"
    "                                                      not_before=+2h expires=+3d; unlimited or none takes a limit away\n"
    "  delete NAME                                         forgets a finished campaign\n\n"
    "      --json              data as JSON\n"
    "      --count N, --skip N   of list: how many (100), how many to leave out\n"
    "      --redis ADDRESS     HOST:PORT or unix:/PATH, instead of the configuration's\n"
    "  -c, --config FILE       the configuration (/etc/bypost/bypost.yaml)\n"
    "      --help, --version\n\n"
    "Exit status: 0 done, 1 failed (there is no such campaign, it is too late), 64 usage, 65 a file is wrong, 66 a file cannot be\n"
    "read, 69 Redis does not answer, 75 try again later, 78 the configuration has errors.\n";

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} subcommands[] = {
    {"create", campaign_create_run}, {"list", campaign_list_run},     {"show", campaign_show_run},  {"pause", campaign_change_run},
    {"resume", campaign_change_run}, {"cancel", campaign_change_run}, {"set", campaign_change_run}, {"delete", campaign_change_run},
};

static int campaign_run(int argc, char **argv) {
    if (argc < 2) {
        fputs(help, stderr);
        return CLI_USAGE;
    }
    for (unsigned i = 0; i < sizeof subcommands / sizeof *subcommands; i++) {
        if (strcmp(argv[1], subcommands[i].name) == 0) {
            return subcommands[i].run(argc - 1, argv + 1);
        }
    }
    return cli_complain(CLI_USAGE, CAMPAIGN, "there is no `%s`; `bypost campaign --help` shows what there is.", argv[1]);
}

const struct cli_command campaign_command = {"campaign", "create, watch, stop and change campaigns", help, campaign_run};
