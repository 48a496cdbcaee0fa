/* dkim.c: `bypost dkim`: a new key, its DNS record and what to write in bypost.yaml; the record of a key that exists. */
#include "dkim.h"
#include "control/config/address.h"
#include "control/sign/sign.h"

#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "Usage: bypost dkim keygen --domain DOMAIN --selector SELECTOR --out FILE [--type rsa|ed25519] [--bits N]\n"
    "       bypost dkim record KEYFILE [--domain DOMAIN --selector SELECTOR]\n"
    "       bypost dkim check [--domain DOMAIN] [--selector SELECTOR] [--config FILE] [--json]\n\n"
    "keygen makes a key for DKIM (RFC 6376, RFC 8463), never over an existing file, and prints the DNS record\n"
    "to publish and the lines for bypost.yaml. record prints the record that belongs to a private key. check\n"
    "looks the configured keys up in DNS, compares them with the private keys and says what to mend.\n\n"
    "  -d, --domain DOMAIN      the domain of the From: address; check: only its keys\n"
    "  -s, --selector NAME      names this key beside others of the domain, such as s2026; check: only this one\n"
    "  -o, --out FILE           where the private key goes (mode 0600)\n"
    "  -t, --type rsa|ed25519   rsa (the default) is what every receiver verifies; ed25519 beside it, on a selector\n"
    "                           of its own, is for those that know it\n"
    "  -b, --bits N             of RSA: 1024 to 4096 in steps of 512 (2048)\n"
    "  -c, --config FILE        the configuration whose keys are checked (/etc/bypost/bypost.yaml)\n"
    "      --json               check: one JSON object\n"
    "      --help, --version\n\n"
    "Exit status: 0 made, printed, or every key is published as it should be; check: 1 signatures of a key fail\n"
    "(no record, another key, revoked), 2 signatures verify, and something is to be mended, 75 DNS gave no answer;\n"
    "64 usage, 66 the key cannot be read, 73 the file cannot be written, 78 the configuration has errors.\n";

enum { TXT_STRING = 200 }; /* RFC 1035 3.3.14: a record is strings of at most 255 bytes */

struct options {
    const char *domain, *selector, *out;
    enum dkim_algorithm type;
    unsigned long bits;
    bool bits_given;
};

void dkim_record_print(const char *selector, const char *domain, const char *record) {
    printf("%s._domainkey.%s TXT\n%s\n\nIn a zone file:\n\n", selector, domain, record);
    printf("%s._domainkey.%s. IN TXT (", selector, domain); /* from the line's first column: blanks would stand for the last owner */
    for (size_t at = 0, length = strlen(record); at < length; at += TXT_STRING) {
        printf("\n    \"%.*s\"", TXT_STRING, record + at);
    }
    printf(" )\n");
}

/* The domain in A-labels, to free; NULL after the complaint. */
static char *names_check(const char *command, const char *domain, const char *selector) {
    char *ascii = host_to_ascii(domain);
    if (ascii && host_is_name(selector)) {
        return ascii;
    }
    free(ascii);
    cli_complain(CLI_USAGE, command,
                 !ascii ? "'%s' is no domain; write the one of the From: address, such as example.com."
                        : "'%s' is no selector; write letters, digits and hyphens, such as s2026.",
                 !ascii ? domain : selector);
    return NULL;
}

static int keygen_run(const struct options *options) {
    static const char command[] = "dkim keygen";
    char error[512] = "", *record = NULL, absolute[PATH_MAX];
    if (!options->domain || !options->selector || !options->out) {
        return cli_complain(CLI_USAGE, command, "give --domain, --selector and --out; `bypost dkim --help` shows the options.");
    }
    if (options->type == DKIM_ED25519 && options->bits_given) {
        return cli_complain(CLI_USAGE, command, "Ed25519 keys have one size; leave --bits away.");
    }
    char *ascii = names_check(command, options->domain, options->selector);
    if (!ascii) {
        return CLI_USAGE;
    }
    int status = dkim_keygen(options->out, options->type, (uint32_t)options->bits, &record, error, sizeof error);
    if (status != 0) {
        free(ascii);
        return cli_complain(CLI_CANNOT_MAKE, command, "%s", *error ? error : strerror(-status));
    }
    printf("The private key is in %s.", options->out);
    if (geteuid() == 0) {
        printf(" Only root can read it; where bypost runs as a user of its own: chown bypost %s", options->out);
    }
    printf("\nPublish this record:\n\n");
    dkim_record_print(options->selector, ascii, record);
    printf("\nthen add to bypost.yaml:\n\ndkim:\n  keys:\n    - {domain: %s, selector: %s, key: %s}\n", ascii, options->selector,
           realpath(options->out, absolute) ? absolute : options->out);
    printf("\nand see whether it is there: bypost dkim check --domain %s --selector %s\n", ascii, options->selector);
    free(record);
    free(ascii);
    return CLI_OK;
}

static int record_run(const struct options *options, const char *path) {
    static const char command[] = "dkim record";
    char error[512] = "", *record = NULL, *ascii = NULL;
    if (!path || !options->domain != !options->selector) {
        return cli_complain(CLI_USAGE, command, !path ? "name the file of the private key." : "give --domain and --selector together.");
    }
    if (options->domain && !(ascii = names_check(command, options->domain, options->selector))) {
        return CLI_USAGE;
    }
    int status = dkim_public_record(path, &record, error, sizeof error);
    if (status != 0) {
        free(ascii);
        return cli_complain(CLI_NO_INPUT, command, "%s", *error ? error : strerror(-status));
    }
    if (ascii) {
        dkim_record_print(options->selector, ascii, record);
    } else {
        puts(record);
    }
    free(record);
    free(ascii);
    return CLI_OK;
}

static int dkim_run(int argc, char **argv) {
    static const struct option known[] = {{"domain", required_argument, NULL, 'd'}, {"selector", required_argument, NULL, 's'},
                                          {"out", required_argument, NULL, 'o'},    {"type", required_argument, NULL, 't'},
                                          {"bits", required_argument, NULL, 'b'},   {NULL, 0, NULL, 0}};
    struct options options = {.bits = 2048};
    const char *verb = argc < 2 ? "" : argv[1];
    argc--;
    argv++;
    if (strcmp(verb, "check") == 0) {
        return dkim_check_run(argc, argv);
    }
    bool makes = strcmp(verb, "keygen") == 0;
    if (!makes && strcmp(verb, "record") != 0) {
        return cli_complain(CLI_USAGE, "dkim", "say what to do: keygen, record or check; `bypost dkim --help` shows how.");
    }
    for (int option; (option = getopt_long(argc, argv, "d:s:o:t:b:", known, NULL)) != -1;) {
        switch (option) {
        case 'd':
            options.domain = optarg;
            break;
        case 's':
            options.selector = optarg;
            break;
        case 'o':
            options.out = optarg;
            break;
        case 't':
            options.type = strcmp(optarg, "ed25519") == 0 ? DKIM_ED25519 : DKIM_RSA;
            if (strcmp(optarg, dkim_algorithm_text(options.type)) != 0) {
                return cli_complain(CLI_USAGE, "dkim keygen", "--type '%s': write rsa or ed25519.", optarg);
            }
            break;
        case 'b':
            if (!cli_number("dkim keygen", "bits", optarg, 1024, 4096, &options.bits)) {
                return CLI_USAGE;
            }
            if (options.bits % 512 != 0) {
                return cli_complain(CLI_USAGE, "dkim keygen", "--bits '%s': give a number in steps of 512, such as 2048.", optarg);
            }
            options.bits_given = true;
            break;
        default:
            return cli_usage("dkim");
        }
    }
    if (argc - optind > (makes ? 0 : 1)) {
        return cli_complain(CLI_USAGE, "dkim", "'%s' is too much; `bypost dkim --help` shows the options.", argv[argc - 1]);
    }
    return makes ? keygen_run(&options) : record_run(&options, argv[optind]);
}

const struct cli_command dkim_command = {"dkim", "make DKIM keys, print their DNS records, compare them with DNS", help, dkim_run};
