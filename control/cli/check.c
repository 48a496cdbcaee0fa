/* check.c: `bypost check`: every fault of the configuration, with its place and remedy. */
#include "check_sender.h"
#include "check_tls.h"
#include "cli.h"
#include "control/sign/sign.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

static const char help[] =
    "Usage: bypost check [--config FILE] [--dns] [FILE]\n\n"
    "Reads bypost.yaml and shaping.yaml and reports every error and warning as FILE:LINE:COLUMN.\n\n"
    "  -c, --config FILE   the configuration to check (/etc/bypost/bypost.yaml)\n"
    "      --dns           asks DNS too what receivers will find of the senders: PTR and EHLO names of the sources, SPF,\n"
    "                      DKIM keys, DMARC, as Gmail, Yahoo and Microsoft demand them of bulk senders\n"
    "  -s, --strict        warnings count as errors: exit status 1\n"
    "  -q, --quiet         print nothing when there is nothing to say\n"
    "      --help, --version\n\n"
    "Exit status: 0 it can be used (warnings may have been printed), 1 warnings with --strict, 64 usage, 78 errors.\n";

static void key_warn(void *context, const char *sentence) {
    unsigned *count = context;
    fprintf(stderr, "warning: %s\n", sentence);
    (*count)++;
}

/* The keys' insides: what only the signer can judge. */
static bool keys_check(const struct config *config, unsigned *warnings) {
    char error[512] = "";
    struct dkim_keys *keys = dkim_keys_load(config, key_warn, warnings, error, sizeof error);
    if (!keys) {
        fprintf(stderr, "%s: error: %s\n", config->path, error);
        return false;
    }
    dkim_keys_free(keys);
    return true;
}

static void summary_print(const struct config *config, unsigned warnings) {
    uint32_t sources = 0;
    for (uint32_t i = 0; i < config->pool_count; i++) {
        sources += config->pools[i].source_count;
    }
    printf("%s: good%s. %u worker%s, %u port%s, %u pool%s with %u source%s, %u DKIM key%s, %u provider%s and %u domain%s with limits of "
           "their own%s.\n",
           config->path, warnings ? ", with warnings" : "", config->dataplane.lcore_count, config->dataplane.lcore_count == 1 ? "" : "s",
           config->dataplane.port_count, config->dataplane.port_count == 1 ? "" : "s", config->pool_count,
           config->pool_count == 1 ? "" : "s", sources, sources == 1 ? "" : "s", config->dkim_count, config->dkim_count == 1 ? "" : "s",
           config->provider_count, config->provider_count == 1 ? "" : "s", config->domain_count, config->domain_count == 1 ? "" : "s",
           config->sandbox ? "; sandbox: only test domains and relays are contacted" : "");
}

static int check_run(int argc, char **argv) {
    enum { OPTION_DNS = 1 };
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"dns", no_argument, NULL, OPTION_DNS},
                                            {"strict", no_argument, NULL, 's'},
                                            {"quiet", no_argument, NULL, 'q'},
                                            {NULL, 0, NULL, 0}};
    const char *path = NULL;
    bool strict = false, quiet = false, dns = false;
    for (int option; (option = getopt_long(argc, argv, "c:sq", options, NULL)) != -1;) {
        switch (option) {
        case 'c':
            path = optarg;
            break;
        case OPTION_DNS:
            dns = true;
            break;
        case 's':
            strict = true;
            break;
        case 'q':
            quiet = true;
            break;
        default:
            return cli_usage("check");
        }
    }
    if (argc - optind > 1 || (argc - optind == 1 && path)) {
        return cli_complain(CLI_USAGE, "check", "one configuration can be checked at a time.");
    }
    struct config_errors errors;
    struct config *config = config_load(cli_config_path(path ? path : argv[optind]), &errors);
    config_errors_print(&errors, stderr);
    unsigned warnings = errors.warning_count;
    config_errors_free(&errors);
    bool good = config && keys_check(config, &warnings) && check_tls(config, &warnings);
    good = good && (!dns || check_sender(config, &warnings));
    if (good && !quiet) {
        summary_print(config, warnings);
        if (!dns) {
            puts("`bypost check --dns` also looks up what receivers will find of the senders.");
        }
    }
    config_free(config);
    return !good ? CLI_CONFIG : strict && warnings ? CLI_FAILED : CLI_OK;
}

const struct cli_command check_command = {"check", "report every error of the configuration with its remedy", help, check_run};
