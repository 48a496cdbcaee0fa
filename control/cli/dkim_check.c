/* dkim_check.c: `bypost dkim check`: is every configured key published, and as the key that signs? */
#include "control/config/address.h"
#include "control/route/domain.h"
#include "control/sign/sign.h"
#include "dkim.h"
#include "dkim_record.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char command[] = "dkim check";

enum { CHECK_WARNINGS = 2, KEY_NAME_BYTES = 2 * DOMAIN_BYTES };

/* One key's place in DNS, what is there, and what is to be said of it. */
struct check {
    const struct config_dkim_key *key;
    char domain[DOMAIN_BYTES], name[KEY_NAME_BYTES];
    char *wanted; /* NULL: the private key cannot be read */
    json_t *published;
    struct dkim_findings findings;
};

/* RFC 6376 3.6.2.2: a name has one record; of several, verifiers take any or none. The best of them is judged. */
static void records_judge(struct check *check, const struct resolver_answer *answer) {
    struct dkim_findings best = {.verdict = DKIM_BAD}, one;
    uint32_t keys = 0;
    for (uint32_t i = 0; i < answer->count; i++) {
        char text[TXT_BYTES_MAX];
        if (txt_join(answer->data[i], answer->lengths[i], text) < 0) {
            snprintf(text, sizeof text, "?");
        }
        keys += dkim_record_is_key(text);
        one = (struct dkim_findings){0};
        dkim_record_judge(text, check->wanted, &one);
        cli_clean(text);
        json_array_append_new(check->published, json_string(text));
        if (i == 0 || one.verdict < best.verdict) {
            best = one;
        }
    }
    if (answer->count > 1) {
        dkim_findings_add(&best, DKIM_BAD, "several",
                          "%s has %u TXT records, %u of them DKIM keys; receivers take any of them or none (RFC 6376 3.6.2.2): leave only "
                          "this key's record.",
                          check->name, answer->count, keys);
    }
    check->findings = best;
}

static void answer_judge(struct check *check, const struct resolver_answer *answer) {
    bool alias = *answer->canonical && strcasecmp(answer->canonical, check->name) != 0;
    switch (answer->status) {
    case DNS_FOUND:
        records_judge(check, answer);
        break;
    case DNS_NO_DATA:
    case DNS_NO_NAME:
        dkim_findings_add(&check->findings, DKIM_BAD, answer->status == DNS_NO_NAME ? "no-name" : "no-record",
                          answer->status == DNS_NO_NAME ? "%s does not exist in DNS; publish the key's record."
                                                        : "%s has no TXT record; publish the key's record.",
                          check->name);
        break;
    case DNS_FAILED:
        dkim_findings_add(&check->findings, DKIM_UNKNOWN, "dns", "%s could not be looked up: %s; try again, or correct `dns.servers`.",
                          check->name, answer->why);
        break;
    }
    if (alias) {
        dkim_findings_add(&check->findings, DKIM_GOOD, "alias", "%s is an alias of %s: the record is published there.", check->name,
                          answer->canonical);
    }
}

/* Where the key's record belongs. */
static void key_name(const struct config_dkim_key *key, char domain[DOMAIN_BYTES], char name[KEY_NAME_BYTES]) {
    if (domain_normalise(key->domain, domain) != 0) {
        snprintf(domain, DOMAIN_BYTES, "%s", key->domain);
    }
    snprintf(name, KEY_NAME_BYTES, "%s._domainkey.%s", key->selector, domain);
}

void dkim_ask_ahead(struct resolver *resolver, const struct config_dkim_key *key) {
    char domain[DOMAIN_BYTES], name[KEY_NAME_BYTES];
    key_name(key, domain, name);
    resolver_ask_ahead(resolver, name, DNS_TYPE_TXT);
}

static void check_begin(struct check *check, struct resolver *resolver, const struct config_dkim_key *key) {
    char error[512] = "";
    *check = (struct check){.key = key, .published = json_array()};
    key_name(key, check->domain, check->name);
    if (dkim_public_record(key->key_file, &check->wanted, error, sizeof error) != 0) {
        check->wanted = NULL;
        dkim_findings_add(&check->findings, DKIM_BAD, "key-file", "%s", error);
        return;
    }
    resolver_ask_ahead(resolver, check->name, DNS_TYPE_TXT);
}

static void check_look(struct check *check, struct resolver *resolver) {
    struct resolver_answer answer;
    if (check->wanted) {
        resolver_ask(resolver, check->name, DNS_TYPE_TXT, &answer);
        answer_judge(check, &answer);
        resolver_forget(&answer);
    }
    for (uint32_t i = 0; i < check->findings.count; i++) {
        cli_clean(check->findings.list[i].text); /* it may quote the record */
    }
}

char *dkim_check_key(struct resolver *resolver, const struct config_dkim_key *key) {
    struct check check;
    char *text = NULL;
    check_begin(&check, resolver, key);
    check_look(&check, resolver);
    for (uint32_t i = 0; i < check.findings.count && !text && check.findings.verdict != DKIM_GOOD; i++) {
        if (check.findings.list[i].level == check.findings.verdict) {
            text = strdup(check.findings.list[i].text);
        }
    }
    json_decref(check.published);
    free(check.wanted);
    return text;
}

static json_t *check_json(const struct check *check) {
    json_t *findings = json_array();
    for (uint32_t i = 0; i < check->findings.count; i++) {
        const struct dkim_finding *finding = &check->findings.list[i];
        json_array_append_new(findings, json_pack("{s:s, s:s, s:s}", "level", dkim_verdict_text(finding->level), "code", finding->code,
                                                  "text", finding->text));
    }
    char type[32] = "unknown";
    if (check->wanted) {
        dkim_record_size(check->wanted, type);
    }
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s*, s:O, s:o}", "domain", check->domain, "selector", check->key->selector, "name",
                     check->name, "key_file", check->key->key_file, "key", type, "status", dkim_verdict_text(check->findings.verdict),
                     "record", check->wanted, "published", check->published, "findings", findings);
}

static void check_print(const struct check *check) {
    char type[32] = "unknown";
    if (check->wanted) {
        dkim_record_size(check->wanted, type);
    }
    cli_print(stdout, "%s: %s (%s, %s)\n", check->name, dkim_verdict_text(check->findings.verdict), type, check->key->key_file);
    for (uint32_t i = 0; i < check->findings.count; i++) {
        static const char *const words[] = {"note", "warning", "unknown", "error"};
        cli_print(stdout, "  %s: %s\n", words[check->findings.list[i].level], check->findings.list[i].text);
    }
    if (check->findings.verdict == DKIM_BAD && check->wanted) {
        puts("");
        dkim_record_print(check->key->selector, check->domain, check->wanted);
        puts("");
    }
}

static bool key_wanted(const struct config_dkim_key *key, const char *domain, const char *selector) {
    char ours[DOMAIN_BYTES], theirs[DOMAIN_BYTES];
    bool same = !domain || (domain_normalise(key->domain, ours) == 0 && domain_normalise(domain, theirs) == 0 && strcmp(ours, theirs) == 0);
    return same && (!selector || strcasecmp(key->selector, selector) == 0);
}

static int keys_check(const struct config *config, const char *domain, const char *selector, bool json) {
    static const int codes[] = {
        [DKIM_GOOD] = CLI_OK, [DKIM_WARNING] = CHECK_WARNINGS, [DKIM_UNKNOWN] = CLI_TEMPORARY, [DKIM_BAD] = CLI_FAILED};
    char error[512];
    enum dkim_verdict worst = DKIM_GOOD;
    uint32_t count = 0;
    json_t *list = json_array();
    struct check *checks = calloc(config->dkim_count + config->dkim_platform_count + 1, sizeof *checks);
    struct resolver *resolver = resolver_create(config, error, sizeof error);
    if (!resolver || !checks) {
        free(checks);
        json_decref(list);
        resolver_free(resolver);
        return cli_complain(CLI_FAILED, command, "DNS cannot be asked: %s", error);
    }
    for (uint32_t i = 0; i < config->dkim_count + config->dkim_platform_count; i++) {
        const struct config_dkim_key *key = i < config->dkim_count ? &config->dkim[i] : &config->dkim_platform[i - config->dkim_count];
        if (key_wanted(key, domain, selector)) {
            check_begin(&checks[count++], resolver, key);
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        check_look(&checks[i], resolver);
        worst = checks[i].findings.verdict > worst ? checks[i].findings.verdict : worst;
        if (json) {
            json_array_append_new(list, check_json(&checks[i]));
        } else {
            check_print(&checks[i]);
        }
        json_decref(checks[i].published);
        free(checks[i].wanted);
    }
    json_t *root = json_pack("{s:s, s:o}", "status", dkim_verdict_text(worst), "keys", list);
    if (json) {
        json_dumpf(root, stdout, JSON_COMPACT);
        putchar('\n');
    }
    json_decref(root);
    free(checks);
    resolver_free(resolver);
    return count == 0
               ? cli_complain(CLI_USAGE, command, "no key %sis configured in %s.", domain || selector ? "of that name " : "", config->path)
               : codes[worst];
}

int dkim_check_run(int argc, char **argv) {
    enum { OPTION_JSON = 1 };
    static const struct option options[] = {{"domain", required_argument, NULL, 'd'},
                                            {"selector", required_argument, NULL, 's'},
                                            {"config", required_argument, NULL, 'c'},
                                            {"json", no_argument, NULL, OPTION_JSON},
                                            {NULL, 0, NULL, 0}};
    const char *domain = NULL, *selector = NULL, *path = NULL;
    bool json = false;
    for (int option; (option = getopt_long(argc, argv, "d:s:c:", options, NULL)) != -1;) {
        switch (option) {
        case 'd':
            domain = optarg;
            break;
        case 's':
            selector = optarg;
            break;
        case 'c':
            path = optarg;
            break;
        case OPTION_JSON:
            json = true;
            break;
        default:
            return cli_usage("dkim");
        }
    }
    if (optind < argc) {
        return cli_complain(CLI_USAGE, command, "'%s' is too much; `bypost dkim --help` shows the options.", argv[optind]);
    }
    int code;
    struct config *config = cli_config_client(command, path, NULL, &code);
    if (config) {
        code = keys_check(config, domain, selector, json);
    }
    config_free(config);
    return code;
}
