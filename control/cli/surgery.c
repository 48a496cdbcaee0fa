/* surgery.c: `bypost hold`, `bounce`, `holds`, `release`, `retry`: what the operator does to what waits, by queue, site, provider, domain,
 * tenant, campaign, sender or recipient. */
#include "control/clock.h"
#include "control/config/units.h"
#include "control/hold/rules.h"
#include "functions.h"
#include "operator.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <unistd.h>

enum { OPTION_REASON = 1, OPTION_FOR, OPTION_YES, OPTION_NOW, OPTION_JSON, OPTION_ALL, OPTION_REDIS };
enum { MOVE_MEMBERS = 500, MOVE_RECORDS = 500, END_MEMBERS = 500, DECIDE_RECORDS = 200, TEXT_BYTES = 1024, REASON_MAX = 300 };
enum { KNOWN_US = (2 * HOLD_POLL_MS + 100) * 1000 }; /* in such a time every node has heard of a rule */

#define SELECTORS_HELP                                                                                                                     \
    "      --queue NAME          a queue, a campaign's too\n"                                                                              \
    "      --campaign NAME       a campaign: its queue, and jobs that name it\n"                                                           \
    "      --site NAME           a site as `bypost queue --by site` shows it: mx.example.net, mx.example.net+2\n"                          \
    "      --provider NAME       a provider of shaping.yaml: google, microsoft\n"                                                          \
    "      --domain NAME         recipients' domain\n"                                                                                     \
    "      --tenant NAME\n"                                                                                                                \
    "      --sender ADDRESS      From or envelope sender; a domain means all of it\n"                                                      \
    "      --recipient ADDRESS\n"                                                                                                          \
    "                            Several must all match.\n"
#define COMMON_HELP                                                                                                                        \
    "  -c, --config FILE         the configuration (/etc/bypost/bypost.yaml)\n"                                                            \
    "      --redis ADDRESS       HOST:PORT or unix:PATH instead of the configuration's\n"                                                  \
    "      --help, --version\n\n"
#define EXITS_HELP "69 Redis does not answer, 75 Redis is busy or full, 78 the\nconfiguration has errors.\n"

static const char hold_help[] =
    "Usage: bypost hold SELECTOR... [--reason TEXT] [--for 2h]\n\n"
    "Stops what matches, at once on every node: what is in hand goes back to Redis and waits, without an attempt\n"
    "counted, until the time is over or `bypost release` ends the hold. What is on the wire finishes.\n\n" SELECTORS_HELP
    "      --reason TEXT         shown by `bypost holds`\n"
    "      --for TIME            how long: 30m, 2h, 3d (until it is released)\n" COMMON_HELP
    "Exit status: 0 set (its ID is printed), 64 usage, " EXITS_HELP;

static const char bounce_help[] =
    "Usage: bypost bounce SELECTOR... [--reason TEXT] [--for 2h] [--now] [--yes]\n\n"
    "Ends what matches, as it comes up, with 550 5.7.1 and the reason: events and notices as for a bounce (class policy).\n"
    "It holds for what comes later too, until the time is over or `bypost release`. Nothing is suppressed. There is no\n"
    "undo for what has ended.\n\n" SELECTORS_HELP "      --reason TEXT         the text of the bounce\n"
    "      --for TIME            how long: 30m, 2h, 3d (1h)\n"
    "      --now                 what waits for a later try, or in another hold, ends now and not at its time\n"
    "      --yes                 without asking\n" COMMON_HELP
    "Exit status: 0 set (its ID is printed), 1 not confirmed, 64 usage, " EXITS_HELP;

static const char holds_help[] =
    "Usage: bypost holds [--json]\n\n"
    "Lists holds and bounces that are in force: ID, what, reason, by whom, since, until, how many wait.\n\n"
    "      --json                one array of objects\n" COMMON_HELP "Exit status: 0 shown, 64 usage, " EXITS_HELP;

static const char release_help[] =
    "Usage: bypost release ID... | --all\n\n"
    "Ends holds and bounces (`bypost holds` lists them): what waits because of them is due now.\n\n"
    "      --all                 every one\n" COMMON_HELP "Exit status: 0 ended, 1 there is no such hold, 64 usage, " EXITS_HELP;

static const char retry_help[] =
    "Usage: bypost retry SELECTOR...\n\n"
    "Makes waiting retries due now. By queue or campaign at once, what awaits a decision (on_uncertain: hold) too;\n"
    "else the waiting records are looked through. Jobs of a later send_at and what is held stay; a resting site's rest\n"
    "stays too. A record that holds other recipients of the same chunk goes as a whole.\n\n" SELECTORS_HELP COMMON_HELP
    "Exit status: 0 done, 64 usage, " EXITS_HELP;

/* What a command was asked. */
struct request {
    struct hold_match match;
    const char *reason, *config, *redis;
    uint64_t for_ms;
    bool yes, now, json, all;
};

/* Reads options up to the first other word. An exit code. */
static int request_read(const char *command, int argc, char **argv, struct request *request) {
    static const struct option options[] = {OPERATOR_SELECTOR_OPTIONS,
                                            {"reason", required_argument, NULL, OPTION_REASON},
                                            {"for", required_argument, NULL, OPTION_FOR},
                                            {"yes", no_argument, NULL, OPTION_YES},
                                            {"now", no_argument, NULL, OPTION_NOW},
                                            {"json", no_argument, NULL, OPTION_JSON},
                                            {"all", no_argument, NULL, OPTION_ALL},
                                            {"redis", required_argument, NULL, OPTION_REDIS},
                                            {"config", required_argument, NULL, 'c'},
                                            {NULL, 0, NULL, 0}};
    for (int option; (option = getopt_long(argc, argv, "c:", options, NULL)) != -1;) {
        if (operator_select(&request->match, option, optarg)) {
            if (!*optarg) {
                return cli_complain(CLI_USAGE, command, "an empty name selects nothing: leave the option out.");
            }
            continue;
        }
        switch (option) {
        case OPTION_REASON:
            request->reason = optarg;
            break;
        case OPTION_FOR:
            if (!units_duration(optarg, &request->for_ms) || request->for_ms == 0) {
                return cli_complain(CLI_USAGE, command, "--for '%s': write a time like 30m, 2h or 3d.", optarg);
            }
            break;
        case OPTION_YES:
            request->yes = true;
            break;
        case OPTION_NOW:
            request->now = true;
            break;
        case OPTION_JSON:
            request->json = true;
            break;
        case OPTION_ALL:
            request->all = true;
            break;
        case OPTION_REDIS:
            request->redis = optarg;
            break;
        case 'c':
            request->config = optarg;
            break;
        default:
            return cli_usage(command);
        }
    }
    return CLI_OK;
}

/* The same for commands with selectors, checked. */
static int selection_read(const char *command, int argc, char **argv, struct request *request) {
    int code = request_read(command, argc, argv, request);
    const struct hold_match *match = &request->match;
    if (code != CLI_OK) {
        return code;
    }
    if (optind < argc) {
        return cli_complain(CLI_USAGE, command, "'%s' is not an option; --help shows them.", argv[optind]);
    }
    if (request->json || request->all) {
        return cli_complain(CLI_USAGE, command, "--%s belongs to another command; --help shows the options.",
                            request->json ? "json" : "all");
    }
    if (!operator_selects(match)) {
        return cli_complain(CLI_USAGE, command,
                            "say what: --queue, --site, --provider, --domain, --campaign, --tenant, --sender or --recipient.");
    }
    if ((match->queue && !functions_queue_valid(match->queue)) || (match->campaign && !*match->campaign)) {
        return cli_complain(CLI_USAGE, command, "'%s' is no queue's name.", match->queue);
    }
    if (match->recipient && !strchr(match->recipient, '@')) {
        return cli_complain(CLI_USAGE, command, "--recipient '%s' is no address; for a whole domain write --domain %s.", match->recipient,
                            match->recipient);
    }
    if (match->domain && strchr(match->domain, '@')) {
        return cli_complain(CLI_USAGE, command, "--domain '%s' is an address; write --recipient %s.", match->domain, match->domain);
    }
    if (request->reason && strlen(request->reason) > REASON_MAX) {
        return cli_complain(CLI_USAGE, command, "--reason: %d bytes at most.", REASON_MAX);
    }
    for (const char *c = request->reason; c && *c; c++) {
        if (iscntrl((unsigned char)*c)) {
            return cli_complain(CLI_USAGE, command, "--reason: one line of text.");
        }
    }
    return CLI_OK;
}

static int provider_check(const struct operator_call *call, const char *provider) {
    for (uint32_t i = 0; provider && i < call->config->provider_count; i++) {
        if (strcasecmp(call->config->providers[i].name, provider) == 0) {
            return CLI_OK;
        }
    }
    return provider ? cli_complain(CLI_USAGE, call->command, "there is no provider '%s' in %s; see its `providers`.", provider,
                                   call->config->shaping_path ? call->config->shaping_path : "shaping.yaml")
                    : CLI_OK;
}

/* How many recipients wait in Redis for what is selected, as far as counters know; -1: they do not. */
static long long affected(struct operator_call *call, const struct hold_match *match) {
    const char *queue = match->queue ? match->queue : match->campaign;
    long long sum = 0;
    if (operator_selects(match) != 1 || (!queue && !match->site && !match->provider)) {
        return -1;
    }
    for (uint32_t shard = 0; shard < call->config->redis.shards; shard++) {
        char name[TEXT_BYTES], *key;
        redisReply *reply;
        if (queue) {
            const char *argv[] = {"queues", "0", "1", queue};
            reply = operator_function(call, shard, "bypost_inspect", 4, argv);
            json_t *rows = reply && reply->type == REDIS_REPLY_ARRAY ? json_loads(operator_text(reply, 1), 0, NULL) : NULL;
            const json_t *row = json_array_get(rows, 0);
            static const char *const parts[] = {"ready", "retrying", "parked", "held"};
            for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
                sum += json_integer_value(json_object_get(row, parts[i]));
            }
            json_decref(rows);
        } else {
            snprintf(name, sizeof name, "%s:%s", match->site ? "site" : "provider", match->site ? match->site : match->provider);
            key = cli_key(call->config, shard, "waiting");
            const char *argv[] = {"HGET", key, name};
            reply = operator_run(call, 3, argv);
            sum += reply && reply->type == REDIS_REPLY_STRING ? atoll(reply->str) : 0;
            free(key);
        }
        if (!reply) {
            return -1;
        }
        freeReplyObject(reply);
    }
    return sum;
}

static bool confirm(struct operator_call *call, const struct request *request, const char *what, long long count) {
    char answer[16] = "";
    if (request->yes) {
        return true;
    }
    if (!isatty(STDIN_FILENO)) {
        cli_complain(CLI_FAILED, call->command, "nothing was done: what ends does not come back; confirm with --yes.");
        return false;
    }
    if (count >= 0) {
        fprintf(stderr, "This ends %lld recipients that wait for %s, and what comes for it. Go on? [y/N] ", count, what);
    } else {
        fprintf(stderr, "This ends all recipients that wait for %s, and what comes for it. Go on? [y/N] ", what);
    }
    return fgets(answer, sizeof answer, stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

static void id_make(char id[HOLD_ID_BYTES]) {
    uint16_t random = 0;
    if (getrandom(&random, sizeof random, GRND_NONBLOCK) != sizeof random) {
        random = (uint16_t)getpid();
    }
    snprintf(id, HOLD_ID_BYTES, "h%" PRIx64 "%04x", clock_ms(CLOCK_REALTIME), random);
}

/* --- making waiting records due --- */

/* What to look for in records, when they must be looked through. */
struct wanted {
    const char *what; /* as bypost_move_list has it */
    char words[2][TEXT_BYTES];
    int count;
};

static void lower(char *text) {
    for (; *text; text++) {
        *text = (char)tolower((unsigned char)*text);
    }
}

static struct wanted wanted_of(const struct hold_match *match) {
    struct wanted wanted = {.what = "queue"};
    const char *word = match->recipient ? match->recipient
                       : match->sender  ? match->sender
                       : match->tenant  ? match->tenant
                                        : match->campaign;
    if (match->site || match->provider) {
        wanted.what = match->site ? "site" : "provider";
        snprintf(wanted.words[0], TEXT_BYTES, "%s", match->site ? match->site : match->provider);
        wanted.count = 1;
    } else if (match->domain && !match->recipient) {
        wanted.what = "text";
        snprintf(wanted.words[0], TEXT_BYTES, "@%s", match->domain);
        wanted.count = 1;
    } else if (word && !(match->campaign && !match->recipient && !match->sender && !match->tenant)) {
        wanted.what = "text";
        snprintf(wanted.words[0], TEXT_BYTES, "%s", word);
        wanted.count = 1;
    }
    if (strcmp(wanted.what, "text") == 0) {
        lower(wanted.words[0]);
    }
    return wanted;
}

/* Goes through one list. */
static bool list_move(struct operator_call *call, uint32_t shard, const char *member, long long length, const char *now, const char *all,
                      const struct wanted *wanted, uint64_t *looked, uint64_t *moved) {
    char records[24];
    while (length > 0) {
        snprintf(records, sizeof records, "%lld", length < MOVE_RECORDS ? length : MOVE_RECORDS);
        const char *argv[] = {member, now, records, all, wanted->what, wanted->words[0], wanted->words[1]};
        redisReply *reply = operator_function(call, shard, "bypost_move_list", 5 + wanted->count, argv);
        if (!reply) {
            return false;
        }
        long long step = operator_number(reply, 0);
        *looked += (uint64_t)step;
        *moved += (uint64_t)operator_number(reply, 1);
        freeReplyObject(reply);
        if (step == 0) {
            break;
        }
        length -= step;
    }
    return true;
}

/* All time buckets of a shard. */
static bool buckets_move(struct operator_call *call, uint32_t shard, const struct hold_match *match, bool all, uint64_t total,
                         uint64_t *looked, uint64_t *moved) {
    const struct wanted wanted = wanted_of(match);
    const char *queue = match->queue ? match->queue : match->campaign ? match->campaign : "";
    bool whole = *queue && strcmp(wanted.what, "queue") == 0;
    char cursor[24] = "0", now[24], members[16];
    snprintf(now, sizeof now, "%" PRIu64, clock_ms(CLOCK_REALTIME));
    snprintf(members, sizeof members, "%d", MOVE_MEMBERS);
    do {
        const char *argv[] = {cursor, now, members, all ? "all" : "", queue, whole ? "whole" : ""};
        redisReply *reply = operator_function(call, shard, "bypost_move", 6, argv);
        if (!reply) {
            return false;
        }
        snprintf(cursor, sizeof cursor, "%s", operator_text(reply, 0));
        *moved += (uint64_t)operator_number(reply, 1);
        const redisReply *lists = reply->elements >= 3 ? reply->element[2] : NULL;
        for (size_t i = 0; lists && i + 1 < lists->elements; i += 2) {
            if (!list_move(call, shard, operator_text(lists, i), operator_number(lists, i + 1), now, all ? "all" : "", &wanted, looked,
                           moved)) {
                freeReplyObject(reply);
                return false;
            }
            operator_progress("looking through waiting records", *looked, total > *looked ? total : *looked + 1);
        }
        freeReplyObject(reply);
    } while (*cursor && strcmp(cursor, "0") != 0);
    return true;
}

/* What awaits a decision, of one queue. */
static bool decisions_move(struct operator_call *call, uint32_t shard, const char *queue) {
    char now[24], records[16];
    snprintf(now, sizeof now, "%" PRIu64, clock_ms(CLOCK_REALTIME));
    snprintf(records, sizeof records, "%d", DECIDE_RECORDS);
    for (long long left = 1; left > 0;) {
        const char *argv[] = {queue, now, records};
        redisReply *reply = operator_function(call, shard, "bypost_decide", 3, argv);
        if (!reply) {
            return false;
        }
        left = reply->integer;
        freeReplyObject(reply);
    }
    return true;
}

static bool parks_move(struct operator_call *call, uint32_t shard, const struct hold_match *match, uint64_t *parks) {
    const char *queue = match->queue ? match->queue : match->campaign ? match->campaign : "";
    char cursor[24] = "0", now[24];
    snprintf(now, sizeof now, "%" PRIu64, clock_ms(CLOCK_REALTIME));
    do {
        const char *argv[] = {cursor, now, "1000", queue, match->site ? match->site : ""};
        redisReply *reply = operator_function(call, shard, "bypost_unpark_now", 5, argv);
        if (!reply) {
            return false;
        }
        snprintf(cursor, sizeof cursor, "%s", operator_text(reply, 0));
        *parks += (uint64_t)operator_number(reply, 1);
        freeReplyObject(reply);
    } while (*cursor && strcmp(cursor, "0") != 0);
    return true;
}

/* Records that wait for a time, by the queues' counters: a bound for the progress bar. */
static uint64_t waiting_total(struct operator_call *call) {
    uint64_t sum = 0;
    for (uint32_t shard = 0; shard < call->config->redis.shards; shard++) {
        const char *argv[] = {"sums"};
        redisReply *reply = operator_function(call, shard, "bypost_inspect", 1, argv);
        sum += (uint64_t)operator_number(reply, 0);
        if (reply) {
            freeReplyObject(reply);
        }
    }
    return sum;
}

static bool due_now(struct operator_call *call, const struct request *request, bool all, uint64_t *moved, uint64_t *parks) {
    const struct hold_match *match = &request->match;
    const char *queue = match->queue ? match->queue : match->campaign;
    uint64_t looked = 0, total = waiting_total(call);
    for (uint32_t shard = 0; shard < call->config->redis.shards; shard++) {
        if (!buckets_move(call, shard, match, all, total, &looked, moved) || (queue && !decisions_move(call, shard, queue)) ||
            !parks_move(call, shard, match, parks)) {
            return false;
        }
    }
    if (looked > 0) {
        operator_progress("looking through waiting records", looked, looked);
    }
    return true;
}

/* --- the commands --- */

static int rule_set(struct operator_call *call, const struct request *request, enum hold_action action, const char *what) {
    uint64_t now = clock_ms(CLOCK_REALTIME);
    char by[64];
    const char *user = getenv("SUDO_USER") ? getenv("SUDO_USER") : getenv("USER");
    snprintf(by, sizeof by, "operator%s%.40s", user ? " " : "", user ? user : "");
    struct hold_rule rule = {.action = action,
                             .match = request->match,
                             .reason = (char *)(request->reason         ? request->reason
                                                : action == HOLD_BOUNCE ? "ended by the operator"
                                                                        : "no reason given"),
                             .by = by,
                             .since_ms = now,
                             .until_ms = request->for_ms ? now + request->for_ms : 0};
    id_make(rule.id);
    char *json = hold_rule_write(&rule), span[32];
    for (uint32_t shard = 0; json && shard < call->config->redis.shards; shard++) {
        const char *argv[] = {rule.id, json};
        redisReply *reply = operator_function(call, shard, "bypost_hold_set", 2, argv);
        if (!reply) {
            free(json);
            return call->code;
        }
        freeReplyObject(reply);
    }
    free(json);
    cli_print(stdout, "%s  %s %s%s%s\n", rule.id, action == HOLD_BOUNCE ? "bounce" : "hold", what, rule.until_ms ? " for " : "",
              rule.until_ms ? operator_span(request->for_ms, span) : "");
    return CLI_OK;
}

static int rule_run(const char *command, enum hold_action action, int argc, char **argv) {
    enum { BOUNCE_FOR_MS = 3600000 };
    struct request request = {0};
    struct operator_call call;
    char what[TEXT_BYTES];
    int code = selection_read(command, argc, argv, &request);
    if (code != CLI_OK) {
        return code;
    }
    if (action == HOLD_WAIT && (request.now || request.yes)) {
        return cli_complain(CLI_USAGE, command, "--now and --yes belong to `bypost bounce`.");
    }
    if (action == HOLD_BOUNCE && request.for_ms == 0) {
        request.for_ms = BOUNCE_FOR_MS;
    }
    if (!operator_open(&call, command, request.config, request.redis)) {
        return call.code;
    }
    operator_describe(&request.match, what, sizeof what);
    code = provider_check(&call, request.match.provider);
    long long count = code == CLI_OK ? affected(&call, &request.match) : -1;
    if (code == CLI_OK && call.code == CLI_OK && action == HOLD_BOUNCE && !confirm(&call, &request, what, count)) {
        code = CLI_FAILED;
    }
    if (code == CLI_OK && call.code == CLI_OK) {
        code = rule_set(&call, &request, action, what);
    }
    if (code == CLI_OK && call.code == CLI_OK && count >= 0) {
        fprintf(stderr, "%lld recipients wait for it in Redis.\n", count);
    }
    uint64_t moved = 0, parks = 0;
    const char *queue = request.match.queue ? request.match.queue : request.match.campaign;
    if (code == CLI_OK && action == HOLD_BOUNCE && (request.now || queue)) {
        usleep(KNOWN_US); /* what comes back before every node has the rule would be sent once more */
    }
    for (uint32_t shard = 0; action == HOLD_BOUNCE && queue && code == CLI_OK && shard < call.config->redis.shards; shard++) {
        code = decisions_move(&call, shard, queue) ? CLI_OK : call.code;
    }
    if (code == CLI_OK && request.now && due_now(&call, &request, true, &moved, &parks)) {
        fprintf(stderr, "%" PRIu64 " waiting records are due now, and end as they are read.\n", moved);
    }
    operator_close(&call);
    return code != CLI_OK ? code : call.code;
}

static int hold_run(int argc, char **argv) {
    return rule_run("hold", HOLD_WAIT, argc, argv);
}

static int bounce_run(int argc, char **argv) {
    return rule_run("bounce", HOLD_BOUNCE, argc, argv);
}

static int retry_run(int argc, char **argv) {
    static const char command[] = "retry";
    struct request request = {0};
    struct operator_call call;
    uint64_t moved = 0, parks = 0;
    int code = selection_read(command, argc, argv, &request);
    if (code != CLI_OK) {
        return code;
    }
    if (request.reason || request.for_ms || request.now || request.yes) {
        return cli_complain(CLI_USAGE, command, "it takes selectors only; --help shows them.");
    }
    if (!operator_open(&call, command, request.config, request.redis)) {
        return call.code;
    }
    code = provider_check(&call, request.match.provider);
    if (code == CLI_OK && due_now(&call, &request, false, &moved, &parks)) {
        cli_print(stdout, "%" PRIu64 " waiting records are due now", moved);
        cli_print(stdout, parks ? ", %" PRIu64 " parks are looked at now.\n" : ".\n", parks);
    }
    operator_close(&call);
    return code != CLI_OK ? code : call.code;
}

/* The rules of shard 0: {ID, JSON, ...}. */
static redisReply *rules_get(struct operator_call *call) {
    char *key = cli_key(call->config, 0, "holds");
    const char *argv[] = {"HGETALL", key};
    redisReply *reply = operator_run(call, 2, argv);
    free(key);
    return reply;
}

/* Who waits because of it. */
static long long hold_waiting(struct operator_call *call, const char *id, bool *exact) {
    long long sum = 0;
    *exact = true;
    for (uint32_t shard = 0; shard < call->config->redis.shards; shard++) {
        const char *argv[] = {"hold", id};
        redisReply *reply = operator_function(call, shard, "bypost_inspect", 2, argv);
        sum += operator_number(reply, 0);
        *exact &= operator_number(reply, 1) == 1;
        if (reply) {
            freeReplyObject(reply);
        }
    }
    return sum;
}

static void rule_print(const char *id, const json_t *rule, long long waiting, bool exact) {
    char what[TEXT_BYTES] = "", since[32], left[32];
    const char *key;
    json_t *value;
    size_t used = 0;
    uint64_t now = clock_ms(CLOCK_REALTIME);
    json_object_foreach(json_object_get(rule, "match"), key, value) {
        used += used < sizeof what
                    ? (size_t)snprintf(what + used, sizeof what - used, "%s%s %s", used ? ", " : "", key, json_string_value(value))
                    : 0;
    }
    uint64_t since_ms = (uint64_t)json_integer_value(json_object_get(rule, "since")),
             until_ms = (uint64_t)json_integer_value(json_object_get(rule, "until"));
    const char *action = json_string_value(json_object_get(rule, "action")), *reason = json_string_value(json_object_get(rule, "reason")),
               *by = json_string_value(json_object_get(rule, "by"));
    cli_print(stdout, "%-17s %-6s %-36s %8s%lld waiting  since %s", id, action ? action : "?", what, exact ? "" : "about ", waiting,
              operator_span(now > since_ms ? now - since_ms : 0, since));
    cli_print(stdout, until_ms ? ", ends in %s" : ", until released", operator_span(until_ms > now ? until_ms - now : 0, left));
    cli_print(stdout, "  by %s: %s\n", by ? by : "?", reason ? reason : "");
}

/* Times in milliseconds say so in their names, as everywhere in JSON. */
static void milliseconds_name(json_t *rule, const char *key) {
    char name[16];
    snprintf(name, sizeof name, "%s_ms", key);
    json_object_set(rule, name, json_object_get(rule, key));
    json_object_del(rule, key);
}

static int holds_run(int argc, char **argv) {
    static const char command[] = "holds";
    struct request request = {0};
    struct operator_call call;
    int code = request_read(command, argc, argv, &request);
    if (code != CLI_OK) {
        return code;
    }
    if (optind < argc || operator_selects(&request.match)) {
        return cli_complain(CLI_USAGE, command, "it takes --json only.");
    }
    if (!operator_open(&call, command, request.config, request.redis)) {
        return call.code;
    }
    redisReply *reply = rules_get(&call);
    json_t *list = json_array();
    for (size_t i = 0; reply && i + 1 < reply->elements; i += 2) {
        json_t *rule = json_loads(operator_text(reply, i + 1), 0, NULL);
        bool exact;
        long long waiting = hold_waiting(&call, operator_text(reply, i), &exact);
        if (!json_is_object(rule)) {
            json_decref(rule);
            rule = json_object();
        }
        if (request.json) {
            milliseconds_name(rule, "since");
            milliseconds_name(rule, "until");
            json_object_set_new(rule, "id", json_string(operator_text(reply, i)));
            json_object_set_new(rule, "waiting", json_integer(waiting));
            json_object_set_new(rule, "waiting_exact", json_boolean(exact));
            json_array_append(list, rule);
        } else {
            rule_print(operator_text(reply, i), rule, waiting, exact);
        }
        json_decref(rule);
    }
    if (request.json && reply) {
        json_dumpf(list, stdout, JSON_COMPACT);
        putchar('\n');
    } else if (reply && reply->elements == 0) {
        puts("nothing is held");
    }
    json_decref(list);
    if (reply) {
        freeReplyObject(reply);
    }
    operator_close(&call);
    return call.code;
}

/* False when it was not there, on any shard. */
static bool hold_end(struct operator_call *call, const char *id) {
    bool was = false;
    uint64_t ended = 0;
    char now[24], members[16];
    snprintf(now, sizeof now, "%" PRIu64, clock_ms(CLOCK_REALTIME));
    snprintf(members, sizeof members, "%d", END_MEMBERS);
    for (uint32_t shard = 0; shard < call->config->redis.shards; shard++) {
        for (long long left = 1; left > 0;) {
            const char *argv[] = {id, now, members};
            redisReply *reply = operator_function(call, shard, "bypost_hold_end", 3, argv);
            if (!reply) {
                return was;
            }
            left = operator_number(reply, 0);
            was |= operator_number(reply, 1) == 1;
            freeReplyObject(reply);
            ended += END_MEMBERS;
            if (ended > END_MEMBERS || left > 0) {
                operator_progress("releasing", ended, ended + (uint64_t)left);
            }
        }
    }
    return was;
}

static int release_run(int argc, char **argv) {
    static const char command[] = "release";
    struct request request = {0};
    struct operator_call call;
    int code = request_read(command, argc, argv, &request);
    if (code != CLI_OK) {
        return code;
    }
    if ((optind == argc) != request.all || operator_selects(&request.match)) {
        return cli_complain(CLI_USAGE, command, "name holds by their IDs (`bypost holds` lists them), or --all.");
    }
    if (!operator_open(&call, command, request.config, request.redis)) {
        return call.code;
    }
    redisReply *reply = request.all ? rules_get(&call) : NULL;
    size_t count = 0;
    for (size_t i = 0; reply && i + 1 < reply->elements && call.code == CLI_OK; i += 2) {
        count += hold_end(&call, operator_text(reply, i));
    }
    for (int i = optind; i < argc && call.code == CLI_OK; i++) {
        if (hold_end(&call, argv[i])) {
            count++;
        } else if (call.code == CLI_OK) {
            code = cli_complain(CLI_FAILED, command, "there is no hold '%s'; `bypost holds` lists them.", argv[i]);
        }
    }
    if (reply) {
        freeReplyObject(reply);
    }
    if (call.code == CLI_OK && (count > 0 || request.all)) {
        cli_print(stdout, "%zu released\n", count);
    }
    operator_close(&call);
    return code != CLI_OK ? code : call.code;
}

const struct cli_command hold_command = {"hold", "stop what matches until it is released", hold_help, hold_run};
const struct cli_command bounce_command = {"bounce", "end what matches", bounce_help, bounce_run};
const struct cli_command holds_command = {"holds", "list holds and bounces", holds_help, holds_run};
const struct cli_command release_command = {"release", "end a hold", release_help, release_run};
const struct cli_command retry_command = {"retry", "make waiting retries due now", retry_help, retry_run};
