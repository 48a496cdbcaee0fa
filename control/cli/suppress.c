/* suppress.c: `bypost suppress`: who gets no mail: the lists, looked at and changed by hand. */
#include "suppress.h"
#include "control/clock.h"
#include "control/config/units.h"
#include "control/job.h"
#include "control/outcome.h"
#include "functions.h"

#include <ctype.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char help[] =
    "Usage: bypost suppress add|remove|check ADDRESS... [OPTIONS]\n"
    "       bypost suppress import FILE | export | list | stats [OPTIONS]\n"
    "       bypost suppress undo --class CLASS --provider NAME --since WHEN [--until WHEN] [--dry-run]\n"
    "       bypost suppress trust [PROVIDER] [--for DURATION | --end]\n\n"
    "Addresses on a list get no mail: before every attempt bypost looks whether the recipient, or its whole\n"
    "domain (@example.net), is on its tenant's list or on the one for all. A change holds within a second.\n\n"
    "  add, remove   addresses given here\n"
    "  check         is it suppressed, by what, since when\n"
    "  list          every entry (of all lists, or of --tenant)\n"
    "  stats         entries and memory of each list\n"
    "  import        a CSV: address, reason, since, expires; a header may name and order them. - is standard input\n"
    "  export        the same to standard output\n"
    "  undo          takes back what replies of receivers put there and fits; says how much\n"
    "  trust         what a provider says of unknown recipients is true: its refusals end them and suppress again,\n"
    "                although there are far more than usual; without a name: whom bypost is told to trust\n\n"
    "  -t, --tenant NAME     the tenant's list; without it the one for all (list, stats, undo: every list)\n"
    "      --reason TEXT     of add and import: one word (manual)\n"
    "      --expires WHEN    of add and import: a date, or a duration such as 30d (never)\n"
    "      --class CLASS     of undo: the class of replies, such as invalid_recipient\n"
    "      --provider NAME   of undo: as shaping.yaml names it\n"
    "      --since, --until WHEN  of undo: a date of UTC (2026-11-22T03:00:00Z), seconds since 1970, or how long ago (2h)\n"
    "      --for DURATION    of trust (24h)\n"
    "      --end             of trust: no longer\n"
    "      --from-line N     of import: goes on where an earlier one stopped\n"
    "      --dry-run         of undo and import: says what it would do\n"
    "      --json            check, list, stats, undo, trust: JSON\n"
    "      --redis ADDRESS   instead of the configuration's\n"
    "  -c, --config FILE     the configuration (/etc/bypost/bypost.yaml)\n"
    "      --help, --version\n\n"
    "Exit status: 0 done, 1 `check`: somebody is suppressed, 64 usage, 65 lines of the file are no addresses (the others were\n"
    "imported), 66 the file cannot be read, 69 Redis does not answer, 75 Redis is full or loading, 78 the configuration.\n";

const char suppress_name[] = "suppress";
enum {
    UNDO_HASHES = 64,   /* of a list, looked through in one step */
    STATS_SAMPLES = 200 /* hashes whose memory is measured */
};

/* The addresses of the command line as lists have them, malloc'd; NULL after a complaint. */
static char (*addresses_read(struct suppress_call *call, int count, char **texts))[SUPPRESS_ADDRESS_MAX + 1] {
    char(*addresses)[SUPPRESS_ADDRESS_MAX + 1] = calloc((size_t)count + 1, sizeof *addresses);
    if (!addresses) {
        abort();
    }
    for (int i = 0; i < count; i++) {
        if (suppress_address(texts[i], strlen(texts[i]), addresses[i]) < 0) {
            call->code = cli_complain(CLI_USAGE, suppress_name,
                                      "'%s' is no address; write bob@example.net, or @example.net for all of a domain.", texts[i]);
            free(addresses);
            return NULL;
        }
    }
    if (count == 0) {
        call->code = cli_complain(CLI_USAGE, suppress_name, "name at least one address.");
    }
    return addresses;
}

static const char *list_name(const char *tenant) {
    return tenant && *tenant ? tenant : "all tenants";
}

static int add_run(struct suppress_call *call, int count, char **texts) {
    char(*addresses)[SUPPRESS_ADDRESS_MAX + 1] = addresses_read(call, count, texts);
    char now[24], value[256];
    snprintf(now, sizeof now, "%" PRIu64, clock_ms(CLOCK_REALTIME) / 1000);
    snprintf(value, sizeof value, "%s operator %s %" PRIu64 " %.63s", call->reason ? call->reason : "manual", now, call->expires,
             call->provider ? call->provider : "-");
    long long added = 0;
    for (int i = 0; addresses && i < count && call->code == CLI_OK; i++) {
        const char *argv[] = {now, call->tenant ? call->tenant : "", "0", "", addresses[i], value};
        redisReply *reply = suppress_function(call, "bypost_suppress_add", sizeof argv / sizeof *argv, argv);
        added += reply ? reply->integer : 0;
        if (reply) {
            freeReplyObject(reply);
        }
    }
    free(addresses);
    if (call->code == CLI_OK) {
        cli_print(stdout, "%lld added to the list of %s, %lld changed.\n", added, list_name(call->tenant), count - added);
    }
    return call->code;
}

static int remove_run(struct suppress_call *call, int count, char **texts) {
    char(*addresses)[SUPPRESS_ADDRESS_MAX + 1] = addresses_read(call, count, texts);
    long long removed = 0;
    for (int i = 0; addresses && i < count && call->code == CLI_OK; i++) {
        const char *argv[] = {call->tenant ? call->tenant : "", "0", addresses[i]};
        redisReply *reply = suppress_function(call, "bypost_suppress_remove", 3, argv);
        removed += reply ? reply->integer : 0;
        if (reply) {
            freeReplyObject(reply);
        }
    }
    free(addresses);
    if (call->code == CLI_OK) {
        cli_print(stdout, "%lld removed from the list of %s, %lld were not on it.\n", removed, list_name(call->tenant), count - removed);
    }
    return call->code;
}

static json_t *row_json(const struct suppress_row *row) {
    char since[24], expires[24];
    json_t *json = json_pack("{s:s,s:s,s:s,s:s,s:s}", "address", row->address, "tenant", row->tenant, "reason", row->reason, "source",
                             row->source, "since", suppress_time(row->since, since));
    json_object_set_new(json, "expires", row->expires ? json_string(suppress_time(row->expires, expires)) : json_null());
    json_object_set_new(json, "provider", strcmp(row->provider, "-") != 0 ? json_string(row->provider) : json_null());
    return json;
}

static void json_line(json_t *json) {
    json_dumpf(json, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(json);
}

/* One address: itself and its domain. True: suppressed. */
static bool check_one(struct suppress_call *call, const char *address) {
    char now[24], since[24], expires[24];
    const char *domain = strrchr(address, '@');
    snprintf(now, sizeof now, "%" PRIu64, clock_ms(CLOCK_REALTIME) / 1000);
    const char *argv[] = {now, call->tenant ? call->tenant : "", address, domain};
    redisReply *reply = suppress_function(call, "bypost_suppressed", domain == address ? 3 : 4, argv);
    bool found = false;
    for (size_t i = 0; reply && i < reply->elements && !found; i++) {
        const redisReply *element = reply->element[i];
        struct suppress_row row = {.address = i == 0 ? address : domain};
        if (element->type != REDIS_REPLY_STRING || element->len < 3 || !suppress_row_parse(&row, element->str + 2)) {
            continue;
        }
        row.tenant = element->str[0] == 't' && call->tenant ? call->tenant : "";
        found = true;
        if (call->json) {
            json_t *json = row_json(&row);
            json_object_set_new(json, "suppressed", json_true());
            json_object_set_new(json, "recipient", json_string(address));
            json_line(json);
        } else {
            cli_print(stdout, "%s: suppressed by %s on the list of %s: %s (%s) since %s, until %s\n", address, row.address,
                      list_name(row.tenant), row.reason, row.source, suppress_time(row.since, since),
                      row.expires ? suppress_time(row.expires, expires) : "removed");
        }
    }
    if (reply && !found) {
        if (call->json) {
            json_line(json_pack("{s:s,s:b}", "recipient", address, "suppressed", 0));
        } else {
            cli_print(stdout, "%s: not suppressed\n", address);
        }
    }
    if (reply) {
        freeReplyObject(reply);
    }
    return found;
}

static int check_run(struct suppress_call *call, int count, char **texts) {
    char(*addresses)[SUPPRESS_ADDRESS_MAX + 1] = addresses_read(call, count, texts);
    bool any = false;
    for (int i = 0; addresses && i < count && call->code == CLI_OK; i++) {
        any |= check_one(call, addresses[i]);
    }
    free(addresses);
    return call->code == CLI_OK && any ? CLI_FAILED : call->code;
}

static bool list_each(void *context, const struct suppress_row *row) {
    const struct suppress_call *call = context;
    char since[24], expires[24];
    if (call->json) {
        json_line(row_json(row));
    } else {
        cli_print(stdout, "%-40s %-12s %-18s %-9s %-20s %-20s %s\n", row->address, *row->tenant ? row->tenant : "(all)", row->reason,
                  row->source, suppress_time(row->since, since), suppress_time(row->expires, expires), row->provider);
    }
    return !ferror(stdout);
}

/* Bytes of a list in Redis, from some of its hashes. */
static double memory_of(struct suppress_call *call, const char *tenant, uint64_t hashes) {
    uint64_t step = hashes / STATS_SAMPLES + 1, samples = 0;
    double bytes = 0;
    for (uint64_t i = 0; i < hashes; i += step) {
        redisReply *reply = redisCommand(call->redis, "MEMORY USAGE %s%b:%" PRIu64 " SAMPLES 0", call->base, tenant, strlen(tenant), i);
        samples++;
        bytes += reply && reply->type == REDIS_REPLY_INTEGER ? (double)reply->integer : 0;
        if (!reply) {
            call->code = cli_redis_fault(suppress_name, call->redis, NULL);
            return 0;
        }
        freeReplyObject(reply);
    }
    return samples ? bytes / (double)samples * (double)hashes : 0;
}

static int stats_run(struct suppress_call *call) {
    redisReply *lists = suppress_lists(call);
    json_t *array = json_array();
    uint64_t total = 0;
    double bytes_total = 0;
    for (size_t i = 0; lists && i + 1 < lists->elements && call->code == CLI_OK; i += 2) {
        const char *tenant = lists->element[i]->str;
        uint64_t entries, hashes;
        suppress_size(lists->element[i + 1]->str, &entries, &hashes);
        if (call->tenant && strcmp(call->tenant, tenant) != 0) {
            continue;
        }
        double bytes = memory_of(call, tenant, hashes);
        total += entries;
        bytes_total += bytes;
        json_array_append_new(array, json_pack("{s:s,s:I,s:I,s:I,s:f}", "tenant", tenant, "entries", (json_int_t)entries, "hashes",
                                               (json_int_t)hashes, "bytes", (json_int_t)bytes, "bytes_per_entry",
                                               entries ? bytes / (double)entries : 0.0));
        if (!call->json) {
            cli_print(stdout, "%-32s %12" PRIu64 " entries  %10.1f MiB  %6.1f bytes each\n", list_name(tenant), entries, bytes / 1048576,
                      entries ? bytes / (double)entries : 0.0);
        }
    }
    if (lists) {
        freeReplyObject(lists);
    }
    if (call->code == CLI_OK && call->json) {
        json_line(json_pack("{s:I,s:I,s:O}", "entries", (json_int_t)total, "bytes", (json_int_t)bytes_total, "lists", array));
    } else if (call->code == CLI_OK) {
        cli_print(stdout, "%-32s %12" PRIu64 " entries  %10.1f MiB in Redis; a sender's filter has 2.25 bytes for each\n", "together",
                  total, bytes_total / 1048576);
    }
    json_decref(array);
    return call->code;
}

/* One list, in steps. */
static void undo_list(struct suppress_call *call, const char *tenant, long long *matched) {
    char now[24], since[24], until[24], from[24], step[16];
    uint64_t hashes = 1;
    snprintf(now, sizeof now, "%" PRIu64, clock_ms(CLOCK_REALTIME) / 1000);
    snprintf(since, sizeof since, "%" PRIu64, call->since);
    snprintf(until, sizeof until, "%" PRIu64, call->until);
    snprintf(step, sizeof step, "%d", UNDO_HASHES);
    for (uint64_t at = 0; at < hashes && call->code == CLI_OK; at += UNDO_HASHES) {
        snprintf(from, sizeof from, "%" PRIu64, at);
        const char *argv[] = {now,
                              tenant,
                              from,
                              step,
                              call->class ? call->class : "",
                              call->provider ? call->provider : "",
                              since,
                              until,
                              call->dry_run ? "1" : "0"};
        redisReply *reply = suppress_function(call, "bypost_suppress_undo", sizeof argv / sizeof *argv, argv);
        if (reply && reply->type == REDIS_REPLY_ARRAY && reply->elements == 3) {
            hashes = (uint64_t)reply->element[0]->integer;
            *matched += reply->element[1]->integer;
        }
        if (reply) {
            freeReplyObject(reply);
        }
    }
}

static int undo_run(struct suppress_call *call) {
    char since[24], until[24];
    long long matched = 0;
    if (!call->class && !call->provider && !call->since) {
        return cli_complain(CLI_USAGE, suppress_name,
                            "say what is to be taken back: --class, --provider or --since; --dry-run counts only.");
    }
    call->until = call->until ? call->until : clock_ms(CLOCK_REALTIME) / 1000 + 60;
    redisReply *lists = suppress_lists(call);
    for (size_t i = 0; lists && i + 1 < lists->elements && call->code == CLI_OK; i += 2) {
        if (!call->tenant || strcmp(call->tenant, lists->element[i]->str) == 0) {
            undo_list(call, lists->element[i]->str, &matched);
        }
    }
    if (lists) {
        freeReplyObject(lists);
    }
    if (call->code == CLI_OK && call->json) {
        json_line(json_pack("{s:I,s:b}", "undone", (json_int_t)matched, "dry_run", call->dry_run));
    } else if (call->code == CLI_OK) {
        cli_print(stdout, "%lld %s (%s%s%s, %s to %s).\n", matched, call->dry_run ? "would be taken back" : "taken back",
                  call->class ? call->class : "every class", call->provider ? " at " : "", call->provider ? call->provider : "",
                  suppress_time(call->since, since), suppress_time(call->until, until));
    }
    return call->code;
}

static int trust_list(struct suppress_call *call) {
    char until[24];
    redisReply *reply = redisCommand(call->redis, "HGETALL %strust", call->base);
    if (!reply || reply->type != REDIS_REPLY_ARRAY) {
        call->code = cli_redis_fault(suppress_name, call->redis, reply);
    }
    uint64_t now = clock_ms(CLOCK_REALTIME) / 1000;
    bool any = false;
    for (size_t i = 0; call->code == CLI_OK && i + 1 < reply->elements; i += 2) {
        uint64_t end = strtoull(reply->element[i + 1]->str, NULL, 10);
        any |= end > now;
        if (end > now && call->json) {
            json_line(json_pack("{s:s,s:s}", "provider", reply->element[i]->str, "until", suppress_time(end, until)));
        } else if (end > now) {
            cli_print(stdout, "%s is trusted until %s\n", reply->element[i]->str, suppress_time(end, until));
        }
    }
    if (call->code == CLI_OK && !any && !call->json) {
        puts("no provider is trusted: all are watched");
    }
    if (reply) {
        freeReplyObject(reply);
    }
    return call->code;
}

static int trust_run(struct suppress_call *call, int count, char **names) {
    char until[24], text[24];
    if (count == 0) {
        return trust_list(call);
    }
    uint64_t end = call->end ? 0 : (clock_ms(CLOCK_REALTIME) + (call->for_ms ? call->for_ms : 86400000)) / 1000;
    snprintf(until, sizeof until, "%" PRIu64, end);
    const char *argv[] = {names[0], until};
    if (count > 1 || strpbrk(names[0], " \n")) {
        return cli_complain(CLI_USAGE, suppress_name, "name one provider, as shaping.yaml does.");
    }
    bool known = call->end;
    for (uint32_t i = 0; i < call->config->provider_count && !known; i++) {
        known = strcasecmp(call->config->providers[i].name, names[0]) == 0;
    }
    if (!known) {
        return cli_complain(CLI_USAGE, suppress_name, "there is no provider '%s' in %s; see its `providers`.", names[0],
                            call->config->shaping_path ? call->config->shaping_path : "shaping.yaml");
    }
    redisReply *reply = suppress_function(call, "bypost_suppress_trust", 2, argv);
    if (reply) {
        freeReplyObject(reply);
        if (call->end) {
            cli_print(stdout, "%s is watched again.\n", names[0]);
        } else {
            cli_print(stdout, "What %s says of unknown recipients is true until %s.\n", names[0], suppress_time(end, text));
        }
    }
    return call->code;
}

static bool word_valid(const char *text, size_t max) {
    size_t length = strlen(text);
    for (size_t i = 0; i < length; i++) {
        if (!isgraph((unsigned char)text[i])) {
            return false;
        }
    }
    return length > 0 && length <= max && text[0] != '!';
}

static bool class_valid(const char *text) {
    for (int i = CLASS_NONE + 1; i < CLASS_KINDS; i++) {
        if (strcmp(reply_class_text((enum reply_class)i), text) == 0) {
            return true;
        }
    }
    cli_complain(CLI_USAGE, suppress_name,
                 "--class '%s': write one that `bypost classify` shows, such as invalid_recipient, bad_domain or quota.", text);
    return false;
}

static bool option_take(struct suppress_call *call, int option, char *text) {
    switch (option) {
    case 't':
        call->tenant = text;
        break;
    case 'R':
        call->redis_address = text;
        break;
    case 'c':
        call->config_path = text;
        break;
    case 'r':
        call->reason = text;
        if (!word_valid(text, 32)) {
            cli_complain(CLI_USAGE, suppress_name, "--reason '%s': one word of at most 32 characters, such as complaint.", text);
            return false;
        }
        break;
    case 'C':
        call->class = text;
        return class_valid(text);
        break;
    case 'P':
        call->provider = text;
        break;
    case 'e':
    case 's':
    case 'u':
        if (!suppress_when(text, option == 'e', option == 'e' ? &call->expires : option == 's' ? &call->since : &call->until)) {
            cli_complain(CLI_USAGE, suppress_name,
                         "'%s' is no time; write 2026-11-22, 2026-11-22T03:00:00Z, or a duration such as 2h or 30d.", text);
            return false;
        }
        break;
    case 'f':
        if (!units_duration(text, &call->for_ms)) {
            cli_complain(CLI_USAGE, suppress_name, "--for '%s': write a duration such as 24h.", text);
            return false;
        }
        break;
    case 'l':
        return cli_number(suppress_name, "from-line", text, 1, UINT32_MAX, &call->from_line);
    case 'E':
        call->end = true;
        break;
    case 'n':
        call->dry_run = true;
        break;
    case 'j':
        call->json = true;
        break;
    default:
        cli_usage(suppress_name);
        return false;
    }
    return true;
}

static int suppress_do(struct suppress_call *call, const char *what, int count, char **texts) {
    if (strcmp(what, "add") == 0) {
        return add_run(call, count, texts);
    }
    if (strcmp(what, "remove") == 0) {
        return remove_run(call, count, texts);
    }
    if (strcmp(what, "check") == 0) {
        return check_run(call, count, texts);
    }
    if (strcmp(what, "trust") == 0) {
        return trust_run(call, count, texts);
    }
    if (strcmp(what, "import") == 0) {
        return count == 1 ? suppress_import(call, texts[0])
                          : cli_complain(CLI_USAGE, suppress_name, "name one file to import, or - for standard input.");
    }
    if (count > 0) {
        return cli_complain(CLI_USAGE, suppress_name, "'%s' is not expected here; --help shows what is.", texts[0]);
    }
    if (strcmp(what, "export") == 0) {
        return suppress_export(call);
    }
    if (strcmp(what, "list") == 0) {
        suppress_walk(call, call->tenant, list_each, call);
        return call->code;
    }
    return strcmp(what, "stats") == 0 ? stats_run(call) : undo_run(call);
}

static int suppress_run(int argc, char **argv) {
    static const char *const commands[] = {"add", "remove", "check", "trust", "import", "export", "list", "stats", "undo"};
    static const struct option options[] = {{"tenant", required_argument, NULL, 't'},
                                            {"reason", required_argument, NULL, 'r'},
                                            {"expires", required_argument, NULL, 'e'},
                                            {"class", required_argument, NULL, 'C'},
                                            {"since", required_argument, NULL, 's'},
                                            {"until", required_argument, NULL, 'u'},
                                            {"provider", required_argument, NULL, 'P'},
                                            {"for", required_argument, NULL, 'f'},
                                            {"from-line", required_argument, NULL, 'l'},
                                            {"end", no_argument, NULL, 'E'},
                                            {"dry-run", no_argument, NULL, 'n'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"redis", required_argument, NULL, 'R'},
                                            {"config", required_argument, NULL, 'c'},
                                            {NULL, 0, NULL, 0}};
    struct suppress_call call = {0};
    const char *what = argc > 1 ? argv[1] : "";
    bool known = false;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        known |= strcmp(commands[i], what) == 0;
    }
    if (!known) {
        return cli_complain(CLI_USAGE, suppress_name,
                            "write add, remove, check, list, stats, import, export, undo or trust; --help explains them.");
    }
    for (int option; (option = getopt_long(argc - 1, argv + 1, "t:c:", options, NULL)) != -1;) {
        if (!option_take(&call, option, optarg)) {
            return CLI_USAGE;
        }
    }
    if (call.tenant && (!word_valid(call.tenant, TENANT_NAME_MAX) || strchr(call.tenant, ':'))) {
        return cli_complain(CLI_USAGE, suppress_name, "--tenant '%s' is no tenant's name.", call.tenant);
    }
    call.config = cli_config_client(suppress_name, call.config_path, call.redis_address, &call.code);
    call.redis = call.config ? cli_redis(suppress_name, call.config, &call.code) : NULL;
    int code = call.code;
    if (call.redis && (code = functions_load(suppress_name, call.redis)) == CLI_OK) {
        if (asprintf(&call.base, "%s:{u}:suppress:", call.config->redis.prefix) < 0 || asprintf(&call.key, "%stenants", call.base) < 0) {
            abort();
        }
        code = suppress_do(&call, what, argc - 1 - optind, argv + 1 + optind);
        free(call.base);
        free(call.key);
    }
    if (call.redis) {
        redisFree(call.redis);
    }
    config_free(call.config);
    return code;
}

const struct cli_command suppress_command = {"suppress", "who gets no mail: add, remove, check, list, import, export, undo", help,
                                             suppress_run};
