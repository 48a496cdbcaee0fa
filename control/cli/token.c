/* token.c: `bypost token show`: who and what an unsubscribe token or a VERP address stands for. */
#include "token.h"
#include "cli.h"
#include "control/render/render.h"
#include "control/render/token.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "Usage: bypost token show [TOKEN|LINK|ADDRESS...] [--json] [--config FILE] [--key FILE]...\n\n"
    "Opens unsubscribe tokens (the token itself, or a link that holds it) and VERP addresses (b+TOKEN@bounces.example.com),\n"
    "and prints what is in them: recipient, tenant, campaign, list and job. Without arguments, or with \"-\", they are read\n"
    "from standard input, one a line, and answered line by line.\n\n"
    "      --json                one JSON object a token: valid, kind (unsubscribe, verp), recipient, tenant, campaign,\n"
    "                            list, id, job, shard, index; or valid and error\n"
    "  -k, --key FILE            an identity key instead of the configuration's; repeat it for former ones\n"
    "  -c, --config FILE         the configuration (/etc/bypost/bypost.yaml), for identity_key and former_identity_keys\n"
    "      --help, --version\n\n"
    "Exit status: 0 all of them are good, 64 usage, 65 one is damaged, forged, of another key or no token, 66 a key cannot\n"
    "be read, 78 the configuration has errors.\n";
static const char name[] = "token";

enum { KEYS_MAX = 16, LINE_BYTES_MAX = 4096, TOKEN_RUN_MIN = TOKEN_OVERHEAD_BYTES * 4 / 3 };

struct keys {
    uint32_t count;
    struct identity *keys[KEYS_MAX];
};

/* -- keys -- */

char *identity_key_path(const struct config *config) {
    char *path = NULL;
    if (config->identity_key_file) {
        path = strdup(config->identity_key_file);
    } else if (asprintf(&path, "%s/identity.key", config->state_directory) < 0) {
        path = NULL;
    }
    if (!path) {
        abort();
    }
    return path;
}

static bool key_add(struct keys *keys, const char *path, bool complain) {
    errno = E2BIG; /* more keys than anybody has */
    struct identity *key = keys->count < KEYS_MAX ? identity_load(path) : NULL;
    if (key) {
        keys->keys[keys->count++] = key;
    } else if (complain) {
        cli_complain(CLI_NO_INPUT, name, "the identity key %s cannot be read: %s; run this as its owner, or name another with --key.", path,
                     errno == EINVAL ? "it has less than 32 bytes" : strerror(errno));
    }
    return key != NULL;
}

static bool keys_of_config(struct keys *keys, const struct config *config, bool complain) {
    char *path = identity_key_path(config);
    bool good = key_add(keys, path, complain);
    for (char **at = config->former_identity_keys; good && at && *at; at++) {
        good = key_add(keys, *at, complain);
    }
    free(path);
    return good;
}

static void keys_free(struct keys *keys) {
    for (uint32_t i = 0; i < keys->count; i++) {
        identity_free(keys->keys[i]);
    }
}

/* -- opening -- */

static int verp_open(const struct keys *keys, const char *text, struct token *out) {
    int code = -EINVAL;
    for (uint32_t i = 0; i < keys->count && (i == 0 || code == -EBADMSG); i++) {
        code = verp_read(keys->keys[i], text, out);
    }
    return code;
}

static int token_open(const struct keys *keys, const char *text, size_t length, struct token *out) {
    int code = -EINVAL;
    for (uint32_t i = 0; i < keys->count && (i == 0 || code == -EBADMSG); i++) {
        code = token_read(keys->keys[i], text, length, out);
    }
    return code;
}

/* The token alone, or the first run of its characters in a link that is one; else why the longest is none. */
static int link_open(const struct keys *keys, const char *text, struct token *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    int code = -EINVAL;
    for (const char *at = text; *at;) {
        size_t run = strspn(at, digits);
        if (run >= TOKEN_RUN_MIN) {
            int here = token_open(keys, at, run, out);
            if (here == 0) {
                return 0;
            }
            code = code == -EINVAL ? here : code;
        }
        at += run;
        at += strcspn(at, digits);
    }
    return code;
}

static int any_open(const struct keys *keys, const char *text, struct token *out, bool *is_verp) {
    const char *at = strchr(text, '@');
    *is_verp = strlen(text) == VERP_TOKEN_CHARACTERS || (at && !strstr(text, "://") && strncasecmp(text, "mailto:", 7) != 0);
    return *is_verp ? verp_open(keys, text, out) : link_open(keys, text, out);
}

bool verp_entry(const struct config *config, const char *address, char entry[48], uint32_t *index) {
    struct keys keys = {.count = 0};
    struct token token;
    const char *at = strchr(address, '@'), *plus = at ? memrchr(address, '+', (size_t)(at - address)) : NULL;
    bool good =
        plus && at - plus - 1 == VERP_TOKEN_CHARACTERS && keys_of_config(&keys, config, false) && verp_open(&keys, address, &token) == 0;
    if (good) {
        snprintf(entry, 48, "%" PRIu64 "-%" PRIu64, token.entry.ms, token.entry.seq);
        *index = token.index;
    }
    keys_free(&keys);
    return good;
}

/* -- showing -- */

static json_t *token_json(const char *text, const struct token *token, bool is_verp) {
    char entry[48];
    json_t *object = json_pack("{s:s, s:b, s:s}", "token", text, "valid", 1, "kind", is_verp ? "verp" : "unsubscribe");
    const struct {
        const char *key, *value;
    } texts[] = {{"recipient", token->recipient},
                 {"tenant", token->tenant},
                 {"campaign", token->campaign},
                 {"list", token->list},
                 {"id", token->id}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (*texts[i].value) {
            json_object_set_new(object, texts[i].key, json_string(texts[i].value));
        }
    }
    if (token->has_entry) {
        snprintf(entry, sizeof entry, "%" PRIu64 "-%" PRIu64, token->entry.ms, token->entry.seq);
        json_object_set_new(object, "job", json_string(entry));
        json_object_set_new(object, "shard", json_integer(token->shard));
    }
    json_object_set_new(object, "index", json_integer(token->index));
    return object;
}

static const char *fault_text(int code) {
    return code == -EBADMSG ? "damaged, forged, or made with another key" : code == -ENOTSUP ? "of a later version of bypost" : "no token";
}

static bool token_show(const struct keys *keys, const char *text, bool json) {
    struct token token;
    bool is_verp;
    int code = any_open(keys, text, &token, &is_verp);
    json_t *object =
        code == 0 ? token_json(text, &token, is_verp) : json_pack("{s:s*, s:b, s:s}", "token", text, "valid", 0, "error", fault_text(code));
    const char *key;
    json_t *value;
    if (json) {
        json_dumpf(object, stdout, JSON_COMPACT);
        putchar('\n');
    } else if (code != 0) {
        cli_complain(CLI_DATA, name, "'%.80s%s' is %s.", text, strlen(text) > 80 ? "..." : "", fault_text(code));
    } else {
        json_object_foreach(object, key, value) {
            if (json_is_string(value) && strcmp(key, "token") != 0) {
                cli_print(stdout, "%-10s %s\n", key, json_string_value(value));
            } else if (json_is_integer(value)) {
                cli_print(stdout, "%-10s %" PRId64 "\n", key, (int64_t)json_integer_value(value));
            }
        }
        if (is_verp) {
            cli_print(stdout, "%-10s bypost find %s\n", "see", text);
        }
    }
    json_decref(object);
    fflush(stdout);
    return code == 0;
}

static bool lines_show(const struct keys *keys, bool json) {
    char line[LINE_BYTES_MAX];
    bool good = true, first = true;
    while (fgets(line, sizeof line, stdin)) {
        size_t length = strlen(line);
        if (length + 1 == sizeof line && line[length - 1] != '\n') {
            for (int c = 0; c != EOF && c != '\n';) { /* a line that is too long is no token: the rest of it goes */
                c = getc(stdin);
            }
        }
        line[strcspn(line, "\r\n")] = 0;
        if (*line) {
            if (!first && !json) {
                puts("");
            }
            good &= token_show(keys, line, json);
            first = false;
        }
    }
    return good;
}

static int show_run(struct keys *keys, int count, char **texts, bool json) {
    bool good = true;
    if (count == 0) {
        good = lines_show(keys, json);
    }
    for (int i = 0; i < count; i++) {
        if (i > 0 && !json) {
            puts("");
        }
        good &= strcmp(texts[i], "-") == 0 ? lines_show(keys, json) : token_show(keys, texts[i], json);
    }
    return good ? CLI_OK : CLI_DATA;
}

static int token_run(int argc, char **argv) {
    enum { OPTION_JSON = 1 };
    static const struct option options[] = {{"json", no_argument, NULL, OPTION_JSON},
                                            {"key", required_argument, NULL, 'k'},
                                            {"config", required_argument, NULL, 'c'},
                                            {NULL, 0, NULL, 0}};
    const char *config_path = NULL;
    struct keys keys = {.count = 0};
    bool json = false;
    int code = CLI_OK;
    if (argc < 2 || strcmp(argv[1], "show") != 0) {
        return cli_complain(CLI_USAGE, name, "say what to do: `bypost token show TOKEN`.");
    }
    argc--;
    argv++;
    for (int option; code == CLI_OK && (option = getopt_long(argc, argv, "k:c:", options, NULL)) != -1;) {
        switch (option) {
        case OPTION_JSON:
            json = true;
            break;
        case 'k':
            code = key_add(&keys, optarg, true) ? CLI_OK : CLI_NO_INPUT;
            break;
        case 'c':
            config_path = optarg;
            break;
        default:
            code = cli_usage(name);
            break;
        }
    }
    if (code == CLI_OK && keys.count == 0) {
        struct config *config = cli_config_client(name, config_path, NULL, &code);
        if (config) {
            code = keys_of_config(&keys, config, true) ? CLI_OK : CLI_NO_INPUT;
            config_free(config);
        }
    }
    if (code == CLI_OK) {
        code = show_run(&keys, argc - optind, argv + optind, json);
    }
    keys_free(&keys);
    return code;
}

const struct cli_command token_command = {name, "open an unsubscribe token or a VERP address", help, token_run};
