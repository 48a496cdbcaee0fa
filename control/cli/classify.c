/* classify.c: `bypost classify`: what a reply means to bypost, and why; `bypost rules lint`: is the file of text rules sound. */
#include "control/classify/classify.h"
#include "cli.h"

#include <getopt.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static const char classify_help[] =
    "Usage: bypost classify \"550 5.1.1 text of the reply\" [--provider NAME] [--stage STAGE] [--rules FILE] [--json]\n\n"
    "Shows what becomes of a recipient after such a reply, and what decided: code, enhanced code or a text rule.\n"
    "- reads replies from standard input, a line each.\n\n"
    "  -p, --provider NAME     as shaping.yaml names it: google, microsoft\n"
    "  -s, --stage STAGE       at which it came: connect, banner, ehlo, starttls, auth, mail, rcpt (default), data, body, final\n"
    "      --rules FILE        another file than the configuration's\n"
    "      --json              an object a line\n"
    "  -c, --config FILE       the configuration (/etc/bypost/bypost.yaml, if it is there)\n"
    "      --help, --version\n\n"
    "Exit status: 0 shown, 64 usage, 65 no reply, 66 a file is missing, 78 the rules or the configuration have errors.\n";

static const char rules_help[] =
    "Usage: bypost rules lint [FILE] [--config FILE] [--mx FILE]\n\n"
    "Reads a file of text rules (the configuration's, or the shipped one) and says what is wrong with it: a test line\n"
    "that its rule or an earlier one does not leave to it, rules that say the same, slow patterns, unknown classes and\n"
    "providers.\n\n"
    "      --mx FILE           lines of `PROVIDER MX-HOST...`: does shaping.yaml find each provider by its hosts\n"
    "  -c, --config FILE       the configuration, for its providers (/etc/bypost/bypost.yaml, if it is there)\n"
    "      --help, --version\n\n"
    "Exit status: 0 sound, 1 something was found, 64 usage, 66 a file is missing, 78 the file has errors.\n";

enum { ERROR_BYTES = 512, LINE_BYTES = 4096 };

static const char *const verdicts[] = {"delivered", "deferred", "bounced", "returned", "held", "parked"};
static const char *const scopes[] = {"recipient", "domain",  "host", "source at the provider", "sender domain at the provider",
                                     "campaign",  "message", "path"};

/* The configuration where there is one; NULL is no fault unless it was named. */
static struct config *config_if_any(const char *path, int *code) {
    struct config_errors errors = {0};
    struct config *config = config_read(cli_config_path(path), &errors);
    *code = CLI_OK;
    if (!config && (path || getenv("BYPOST_CONFIG"))) {
        config_errors_print(&errors, stderr);
        *code = CLI_CONFIG;
    }
    config_errors_free(&errors);
    return config;
}

static struct classifier *rules_open(const char *command, const char *path, const struct config *config, int *code) {
    char error[ERROR_BYTES] = "";
    const char *file = path ? path : config && config->class_rules_path ? config->class_rules_path : classifier_default_path();
    struct classifier *classifier = classifier_load(file, error, sizeof error);
    if (!classifier) {
        *code = cli_complain(path && access(path, R_OK) != 0 ? CLI_NO_INPUT : CLI_CONFIG, command, "%s", error);
    }
    return classifier;
}

struct question {
    const struct classifier *classifier;
    const char *provider;
    enum smtp_stage stage;
    bool defer, json;
};

/* What decided. */
static void reason_of(const struct question *question, const struct outcome *outcome, const struct classification *got, char out[256]) {
    bool by_enhanced;
    enum reply_class by_codes = classify_codes_only(outcome, &by_enhanced);
    if (got->rule) {
        snprintf(out, 256, "text rule \"%s\" (%s:%u)", got->rule, classifier_path(question->classifier),
                 classifier_rule_line(question->classifier, got->rule));
    } else if (got->class != by_codes) {
        snprintf(out, 256, "the stage: %s", smtp_stage_text(outcome->stage));
    } else if (by_enhanced) {
        snprintf(out, 256, "enhanced code %u.%u.%u", outcome->enhanced[0], outcome->enhanced[1], outcome->enhanced[2]);
    } else {
        snprintf(out, 256, "code %u", outcome->code);
    }
}

static void answer_print(const struct question *question, const char *line, const struct outcome *outcome,
                         const struct classification *got) {
    char why[256];
    reason_of(question, outcome, got, why);
    const char *verdict = (unsigned)got->verdict < sizeof verdicts / sizeof *verdicts ? verdicts[got->verdict] : "?";
    const char *scope = (unsigned)got->scope < sizeof scopes / sizeof *scopes ? scopes[got->scope] : "?";
    if (question->json) {
        json_t *json = json_pack("{s:s,s:s,s:s,s:s,s:b,s:s}", "reply", line, "class", reply_class_text(got->class), "verdict", verdict,
                                 "scope", scope, "suppress", got->suppress, "why", why);
        json_object_set_new(json, "rule", got->rule ? json_string(got->rule) : json_null());
        json_object_set_new(json, "retry_after", got->retry_after_s ? json_integer(got->retry_after_s) : json_null());
        json_dumpf(json, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(json);
        return;
    }
    printf("class     %s\nverdict   %s%s\nspeaks of %s\nsuppress  %s\nbecause   %s\n", reply_class_text(got->class), verdict,
           got->retry_after_s == 360 ? ", again in 6 minutes" : "", scope,
           got->suppress ? "at once, unless the guard distrusts the provider" : "no", why);
}

static int classify_line(const struct question *question, const char *line) {
    struct outcome outcome;
    struct classification got;
    if (!classify_parse(line, question->stage, &outcome)) {
        return cli_complain(CLI_DATA, "classify", "'%.100s' is no reply of 4xx or 5xx; write \"550 5.1.1 text\".", line);
    }
    classify(question->classifier, question->provider, &outcome, question->defer, &got);
    answer_print(question, line, &outcome, &got);
    return CLI_OK;
}

static int classify_lines(const struct question *question) {
    char line[LINE_BYTES];
    int code = CLI_OK;
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\r\n")] = 0;
        int one = *line ? classify_line(question, line) : CLI_OK;
        code = one != CLI_OK ? one : code;
    }
    return code;
}

static bool stage_named(const char *text, enum smtp_stage *stage) {
    for (int i = 0; i < STAGE_KINDS; i++) {
        if (strcasecmp(smtp_stage_text((enum smtp_stage)i), text) == 0) {
            *stage = (enum smtp_stage)i;
            return true;
        }
    }
    return false;
}

/* Rules of a provider hold for it only: a name that nobody has would be taken for none. */
static void provider_tell(const struct config *config, const char *provider) {
    bool known = provider == NULL;
    for (uint32_t i = 0; config && i < config->provider_count; i++) {
        known |= provider && strcasecmp(config->providers[i].name, provider) == 0;
    }
    if (config && !known) {
        fprintf(stderr, "bypost classify: shaping.yaml has no provider '%.100s'; rules for that name are tried all the same.\n", provider);
    }
}

static int classify_run(int argc, char **argv) {
    enum { RULES = 1, JSON };
    static const struct option options[] = {{"provider", required_argument, NULL, 'p'}, {"stage", required_argument, NULL, 's'},
                                            {"rules", required_argument, NULL, RULES},  {"json", no_argument, NULL, JSON},
                                            {"config", required_argument, NULL, 'c'},   {NULL, 0, NULL, 0}};
    struct question question = {.stage = STAGE_RCPT};
    const char *path = NULL, *rules = NULL;
    for (int option; (option = getopt_long(argc, argv, "p:s:c:", options, NULL)) != -1;) {
        switch (option) {
        case 'p':
            question.provider = optarg;
            break;
        case 's':
            if (!stage_named(optarg, &question.stage)) {
                return cli_complain(CLI_USAGE, "classify",
                                    "--stage '%s': write connect, banner, ehlo, starttls, auth, mail, rcpt, data, body or final.", optarg);
            }
            break;
        case RULES:
            rules = optarg;
            break;
        case JSON:
            question.json = true;
            break;
        case 'c':
            path = optarg;
            break;
        default:
            return cli_usage("classify");
        }
    }
    if (argc - optind != 1) {
        return cli_complain(CLI_USAGE, "classify",
                            "give one reply in quotes, such as \"550 5.1.1 user unknown\", or - for standard input.");
    }
    int code;
    struct config *config = config_if_any(path, &code);
    struct classifier *classifier = code == CLI_OK ? rules_open("classify", rules, config, &code) : NULL;
    if (classifier) {
        question.classifier = classifier;
        question.defer = !config || config->suppress_on_block_defer;
        provider_tell(config, question.provider);
        code = strcmp(argv[optind], "-") == 0 ? classify_lines(&question) : classify_line(&question, argv[optind]);
        classifier_free(classifier);
    }
    if (config) {
        config_free(config);
    }
    return code;
}

static void finding_print(void *context, uint32_t line, const char *sentence) {
    printf("%s:%u: %s\n", (const char *)context, line, sentence);
}

/* Lines of `PROVIDER HOST...`. Returns how many hosts are not found as theirs. */
static unsigned mx_check(const struct config *config, FILE *file, const char *path) {
    char text[LINE_BYTES];
    unsigned wrong = 0;
    for (unsigned line = 1; fgets(text, sizeof text, file); line++) {
        char *rest = NULL, *provider = strtok_r(text, " \t\r\n", &rest);
        if (!provider || *provider == '#') {
            continue;
        }
        for (char *host; (host = strtok_r(NULL, " \t\r\n", &rest));) {
            const struct shaping_provider *found = config_provider(config, host);
            if (strcmp(found ? found->name : "-", provider) != 0) {
                printf("%s:%u: %s is a host of %s, but shaping.yaml takes it for %s: correct `match`\n", path, line, host, provider,
                       found ? found->name : "nobody's");
                wrong++;
            }
        }
    }
    return wrong;
}

static int lint(const char *file, const char *mx, const struct config *config) {
    int code = CLI_OK;
    struct classifier *classifier = rules_open("rules", file, config, &code);
    if (!classifier) {
        return code;
    }
    uint32_t count = config ? config->provider_count : 0;
    const char **providers = calloc(count + 1, sizeof *providers);
    for (uint32_t i = 0; providers && i < count; i++) {
        providers[i] = config->providers[i].name;
    }
    unsigned found = classifier_lint(classifier, providers, providers ? count : 0, finding_print, (void *)classifier_path(classifier));
    FILE *hosts = mx ? fopen(mx, "re") : NULL;
    if (mx && (!hosts || !config)) {
        code = !hosts ? cli_complain(CLI_NO_INPUT, "rules", "%s cannot be read.", mx)
                      : cli_complain(CLI_CONFIG, "rules", "--mx needs a configuration; name it with --config.");
    } else if (hosts) {
        found += mx_check(config, hosts, mx);
    }
    if (hosts) {
        fclose(hosts);
    }
    if (code == CLI_OK) {
        printf("%u rules, %u finding%s\n", classifier_rule_count(classifier), found, found == 1 ? "" : "s");
        code = found ? CLI_FAILED : CLI_OK;
    }
    free(providers);
    classifier_free(classifier);
    return code;
}

static int rules_run(int argc, char **argv) {
    static const struct option options[] = {
        {"mx", required_argument, NULL, 'm'}, {"config", required_argument, NULL, 'c'}, {NULL, 0, NULL, 0}};
    const char *path = NULL, *mx = NULL;
    for (int option; (option = getopt_long(argc, argv, "c:", options, NULL)) != -1;) {
        switch (option) {
        case 'm':
            mx = optarg;
            break;
        case 'c':
            path = optarg;
            break;
        default:
            return cli_usage("rules");
        }
    }
    if (optind >= argc || strcmp(argv[optind], "lint") != 0 || argc - optind > 2) {
        return cli_complain(CLI_USAGE, "rules", "write `bypost rules lint [FILE]`.");
    }
    int code;
    struct config *config = config_if_any(path, &code);
    if (code == CLI_OK) {
        code = lint(argc - optind == 2 ? argv[optind + 1] : NULL, mx, config);
    }
    if (config) {
        config_free(config);
    }
    return code;
}

const struct cli_command classify_command = {"classify", "what a reply means, and why", classify_help, classify_run};
const struct cli_command rules_command = {"rules", "check the file of text rules", rules_help, rules_run};
