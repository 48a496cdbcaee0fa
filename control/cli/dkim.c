/* dkim.c: `bypost dkim keygen`: a key, its DNS record, and what to write in bypost.yaml. */
#include "cli.h"
#include "control/config/address.h"
#include "control/sign/sign.h"

#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

static const char help[] = "Usage: bypost dkim keygen --domain DOMAIN --selector SELECTOR --out FILE [--bits N]\n\n"
                           "Makes an RSA key for DKIM (RFC 6376), never over an existing file, and prints the DNS record\n"
                           "to publish and the lines for bypost.yaml.\n\n"
                           "  -d, --domain DOMAIN      the domain of the From: address\n"
                           "  -s, --selector NAME      names this key beside others of the domain, such as s2026\n"
                           "  -o, --out FILE           where the private key goes (mode 0600)\n"
                           "  -b, --bits N             1024 to 4096 in steps of 512 (2048)\n"
                           "      --help, --version\n\n"
                           "Exit status: 0 made, 64 usage, 73 the file cannot be written.\n";

enum { TXT_STRING_MAX = 255, TXT_STRING = 200 }; /* RFC 1035 3.3.14: a record is strings of at most 255 bytes */

/* As web forms want it, and as a zone file has it: the text in strings that fit. */
static void record_print(const char *selector, const char *domain, const char *record) {
    printf("%s._domainkey.%s TXT\n%s\n\nIn a zone file:\n\n", selector, domain, record);
    printf("%s._domainkey.%s. IN TXT (", selector, domain);
    for (size_t at = 0, length = strlen(record); at < length; at += TXT_STRING) {
        printf("\n    \"%.*s\"", TXT_STRING, record + at);
    }
    printf(" )\n");
}

static int keygen_run(const char *domain, const char *selector, const char *path, unsigned long bits) {
    char error[512] = "", *record = NULL, absolute[PATH_MAX];
    char *ascii = host_to_ascii(domain);
    if (!ascii || !host_is_name(selector)) {
        free(ascii);
        return cli_complain(CLI_USAGE, "dkim keygen",
                            !ascii ? "'%s' is no domain; write the one of the From: address, such as example.com."
                                   : "'%s' is no selector; write letters, digits and hyphens, such as s2026.",
                            !ascii ? domain : selector);
    }
    int status = dkim_keygen(path, DKIM_RSA, (uint32_t)bits, &record, error, sizeof error);
    if (status != 0) {
        free(ascii);
        return cli_complain(CLI_CANNOT_MAKE, "dkim keygen", "%s", *error ? error : strerror(-status));
    }
    printf("The private key is in %s. Publish this record:\n\n", path);
    record_print(selector, ascii, record);
    printf("\nthen add to bypost.yaml:\n\ndkim:\n  keys:\n    - {domain: %s, selector: %s, key: %s}\n", ascii, selector,
           realpath(path, absolute) ? absolute : path);
    free(record);
    free(ascii);
    return CLI_OK;
}

static int dkim_run(int argc, char **argv) {
    static const struct option options[] = {{"domain", required_argument, NULL, 'd'},
                                            {"selector", required_argument, NULL, 's'},
                                            {"out", required_argument, NULL, 'o'},
                                            {"bits", required_argument, NULL, 'b'},
                                            {NULL, 0, NULL, 0}};
    const char *domain = NULL, *selector = NULL, *path = NULL;
    unsigned long bits = 2048;
    if (argc < 2 || strcmp(argv[1], "keygen") != 0) {
        return cli_complain(CLI_USAGE, "dkim", "say what to do: `bypost dkim keygen --domain example.com --selector s2026 --out FILE`.");
    }
    argc--;
    argv++;
    for (int option; (option = getopt_long(argc, argv, "d:s:o:b:", options, NULL)) != -1;) {
        switch (option) {
        case 'd':
            domain = optarg;
            break;
        case 's':
            selector = optarg;
            break;
        case 'o':
            path = optarg;
            break;
        case 'b':
            if (!cli_number("dkim keygen", "bits", optarg, 1024, 4096, &bits)) {
                return CLI_USAGE;
            }
            if (bits % 512 != 0) {
                return cli_complain(CLI_USAGE, "dkim keygen", "--bits '%s': give a number in steps of 512, such as 2048.", optarg);
            }
            break;
        default:
            return cli_usage("dkim");
        }
    }
    if (optind < argc || !domain || !selector || !path) {
        return cli_complain(CLI_USAGE, "dkim keygen", "give --domain, --selector and --out; `bypost dkim --help` shows the options.");
    }
    return keygen_run(domain, selector, path, bits);
}

const struct cli_command dkim_command = {"dkim", "make a DKIM key and print its DNS record", help, dkim_run};
