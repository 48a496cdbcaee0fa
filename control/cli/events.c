/* events.c: `bypost events`: follows the outcomes in Redis. */
#include "cli.h"
#include "control/config/units.h"

#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char help[] =
    "Usage: bypost events [OPTIONS]\n\n"
    "Follows the stream of outcomes. Only the types that events.types names are in it; the delivery log has all.\n\n"
    "      --type TYPE[,TYPE]  accepted, delivered, deferred, bounced, expired, suppressed, cancelled, dead; may be repeated\n"
    "      --since WHEN        start: everything kept; 10m: the last ten minutes; an entry ID (only what comes)\n"
    "  -n, --count N           end after N events\n"
    "      --no-wait           end when there are no more\n"
    "      --json              each event's JSON on a line\n"
    "      --redis ADDRESS     HOST:PORT or unix:/PATH, instead of the configuration's\n"
    "  -c, --config FILE       the configuration (/etc/bypost/bypost.yaml)\n"
    "      --help, --version\n\n"
    "Exit status: 0 ended as asked, 1 Redis refused, 64 usage, 69 Redis does not answer, 78 the configuration has errors.\n";

enum { READ_COUNT = 200, BLOCK_MS = 1000, ENTRY_ID_BYTES = 48, TYPES_MAX = 16 };
static const char name[] = "events";
static const char *const type_names[] = {"accepted",   "delivered", "deferred", "bounced", "expired",
                                         "suppressed", "cancelled", "dead",     NULL};

struct follow {
    const struct config *config;
    redisContext *redis;
    uint32_t types;       /* bits by type_names; 0: all */
    uint64_t count, seen; /* count 0: no end */
    bool wait, json;
    char *keys[16];
    char last[16][ENTRY_ID_BYTES];
};

static const char *text_of(const json_t *event, const char *key) {
    const char *text = json_string_value(json_object_get(event, key));
    return text ? text : "";
}

static void text_print(const char *text) {
    cli_print(stdout, "%s", text);
}

static void event_print(const char *entry, const json_t *event) {
    const json_t *response = json_object_get(event, "response");
    time_t seconds = (time_t)(strtoull(entry, NULL, 10) / 1000);
    char stamp[32];
    struct tm parts;
    localtime_r(&seconds, &parts);
    strftime(stamp, sizeof stamp, "%F %T", &parts);
    cli_print(stdout, "%s  %-10s ", stamp, text_of(event, "type"));
    text_print(text_of(event, "recipient"));
    if (*text_of(event, "site")) {
        cli_print(stdout, "  ");
        text_print(text_of(event, "site"));
    }
    if (json_integer_value(json_object_get(response, "code"))) {
        cli_print(stdout, "  %" JSON_INTEGER_FORMAT, json_integer_value(json_object_get(response, "code")));
    }
    if (*text_of(response, "enhanced_code")) {
        cli_print(stdout, " %s", text_of(response, "enhanced_code"));
    }
    if (*text_of(response, "content")) {
        putchar(' ');
        text_print(text_of(response, "content"));
    }
    if (*text_of(event, "class") && strcmp(text_of(event, "class"), "none") != 0) {
        cli_print(stdout, "  [%s]", text_of(event, "class"));
    }
    putchar('\n');
}

static bool type_wanted(const struct follow *follow, const char *type) {
    for (unsigned i = 0; type_names[i]; i++) {
        if (strcmp(type_names[i], type) == 0) {
            return follow->types >> i & 1;
        }
    }
    return false;
}

static void event_take(struct follow *follow, const char *entry, const char *text, size_t length) {
    json_t *event = json_loadb(text, length, 0, NULL);
    if (!follow->types || type_wanted(follow, text_of(event, "type"))) {
        if (follow->json) {
            cli_print(stdout, "%.*s\n", (int)length, text);
        } else if (!event) {
            text_print(text);
            putchar('\n');
        } else {
            event_print(entry, event);
        }
        follow->seen++;
    }
    json_decref(event);
}

static bool follow_done(const struct follow *follow) {
    return follow->count && follow->seen >= follow->count;
}

static void stream_take(struct follow *follow, uint32_t shard, const redisReply *entries) {
    for (size_t i = 0; i < entries->elements && !follow_done(follow); i++) {
        const redisReply *entry = entries->element[i];
        if (entry->type != REDIS_REPLY_ARRAY || entry->elements != 2 || entry->element[1]->type != REDIS_REPLY_ARRAY) {
            continue;
        }
        const redisReply *fields = entry->element[1];
        snprintf(follow->last[shard], ENTRY_ID_BYTES, "%s", entry->element[0]->str);
        for (size_t f = 0; f + 1 < fields->elements; f += 2) {
            if (strcmp(fields->element[f]->str, "event") == 0) {
                event_take(follow, follow->last[shard], fields->element[f + 1]->str, fields->element[f + 1]->len);
            }
        }
    }
    fflush(stdout);
}

/* One XREAD over all shards. */
static redisReply *follow_read(const struct follow *follow) {
    const char *argv[7 + 2 * 16];
    char count[16], block[16];
    int argc = 0;
    snprintf(count, sizeof count, "%d", READ_COUNT);
    snprintf(block, sizeof block, "%d", BLOCK_MS);
    argv[argc++] = "XREAD";
    argv[argc++] = "COUNT";
    argv[argc++] = count;
    if (follow->wait) {
        argv[argc++] = "BLOCK";
        argv[argc++] = block;
    }
    argv[argc++] = "STREAMS";
    for (uint32_t shard = 0; shard < follow->config->redis.shards; shard++) {
        argv[argc++] = follow->keys[shard];
    }
    for (uint32_t shard = 0; shard < follow->config->redis.shards; shard++) {
        argv[argc++] = follow->last[shard];
    }
    return redisCommandArgv(follow->redis, argc, argv, NULL);
}

static int follow_loop(struct follow *follow) {
    while (!follow_done(follow) && !ferror(stdout)) {
        redisReply *reply = follow_read(follow);
        int code = !reply || reply->type == REDIS_REPLY_ERROR ? cli_redis_fault(name, follow->redis, reply) : CLI_OK;
        bool empty = !reply || reply->type != REDIS_REPLY_ARRAY;
        for (size_t i = 0; !empty && i < reply->elements; i++) {
            const redisReply *stream = reply->element[i];
            for (uint32_t shard = 0; stream->elements == 2 && shard < follow->config->redis.shards; shard++) {
                if (strcmp(stream->element[0]->str, follow->keys[shard]) == 0) {
                    stream_take(follow, shard, stream->element[1]);
                }
            }
        }
        if (reply) {
            freeReplyObject(reply);
        }
        if (code != CLI_OK) {
            return code;
        }
        if (empty && !follow->wait) {
            return CLI_OK;
        }
    }
    return CLI_OK;
}

/* "$" would lose what comes between two reads: the end as it is now is read instead. */
static int since_end(struct follow *follow, uint32_t shard) {
    redisReply *reply = redisCommand(follow->redis, "XREVRANGE %s + - COUNT 1", follow->keys[shard]);
    int code = !reply || reply->type != REDIS_REPLY_ARRAY ? cli_redis_fault(name, follow->redis, reply) : CLI_OK;
    snprintf(follow->last[shard], ENTRY_ID_BYTES, "%s",
             code == CLI_OK && reply->elements == 1 && reply->element[0]->elements == 2 ? reply->element[0]->element[0]->str : "0-0");
    if (reply) {
        freeReplyObject(reply);
    }
    return code;
}

static int follow_start(struct follow *follow, const char *since) {
    uint64_t ms;
    for (uint32_t shard = 0; shard < follow->config->redis.shards; shard++) {
        follow->keys[shard] = cli_key(follow->config, shard, "events");
        if (!since && follow->wait) {
            int code = since_end(follow, shard);
            if (code != CLI_OK) {
                return code;
            }
        } else if (!since || strcmp(since, "start") == 0 || strcmp(since, "0") == 0) {
            snprintf(follow->last[shard], ENTRY_ID_BYTES, "0-0");
        } else if (units_duration(since, &ms)) {
            uint64_t now_ms = (uint64_t)time(NULL) * 1000;
            snprintf(follow->last[shard], ENTRY_ID_BYTES, "%" PRIu64 "-0", now_ms > ms ? now_ms - ms : 0);
        } else if (strspn(since, "0123456789-") == strlen(since) && strlen(since) < ENTRY_ID_BYTES && *since != '-') {
            snprintf(follow->last[shard], ENTRY_ID_BYTES, "%s", since);
        } else {
            return cli_complain(CLI_USAGE, name,
                                "--since '%s': write start, a duration such as 10m, or an entry ID such as 1700000000000-0.", since);
        }
    }
    return CLI_OK;
}

static bool types_read(char *text, uint32_t *types) {
    for (char *word; (word = strsep(&text, ",")) != NULL;) {
        unsigned i = 0;
        while (type_names[i] && strcmp(type_names[i], word) != 0) {
            i++;
        }
        if (!type_names[i]) {
            cli_complain(CLI_USAGE, name,
                         "--type '%s': write some of accepted, delivered, deferred, bounced, expired, suppressed, cancelled, dead.", word);
            return false;
        }
        *types |= 1u << i;
    }
    return true;
}

static int events_run(int argc, char **argv) {
    enum { TYPE = 1, SINCE, NO_WAIT, JSON, REDIS };
    static const struct option options[] = {{"type", required_argument, NULL, TYPE},  {"since", required_argument, NULL, SINCE},
                                            {"count", required_argument, NULL, 'n'},  {"no-wait", no_argument, NULL, NO_WAIT},
                                            {"json", no_argument, NULL, JSON},        {"redis", required_argument, NULL, REDIS},
                                            {"config", required_argument, NULL, 'c'}, {NULL, 0, NULL, 0}};
    struct follow follow = {.wait = true};
    const char *since = NULL, *redis = NULL, *path = NULL;
    unsigned long count;
    for (int option; (option = getopt_long(argc, argv, "n:c:", options, NULL)) != -1;) {
        if (option == TYPE) {
            if (!types_read(optarg, &follow.types)) {
                return CLI_USAGE;
            }
        } else if (option == SINCE) {
            since = optarg;
        } else if (option == 'n') {
            if (!cli_number(name, "count", optarg, 1, 1000000000, &count)) {
                return CLI_USAGE;
            }
            follow.count = count;
        } else if (option == NO_WAIT) {
            follow.wait = false;
        } else if (option == JSON) {
            follow.json = true;
        } else if (option == REDIS) {
            redis = optarg;
        } else if (option == 'c') {
            path = optarg;
        } else {
            return cli_usage(name);
        }
    }
    if (optind < argc) {
        return cli_complain(CLI_USAGE, name, "'%s' is not an option; --help shows them.", argv[optind]);
    }
    int code;
    struct config *config = cli_config_client(name, path, redis, &code);
    follow.config = config;
    follow.redis = config ? cli_redis(name, config, &code) : NULL;
    if (code == CLI_OK && (code = follow_start(&follow, since)) == CLI_OK) {
        code = follow_loop(&follow);
    }
    for (uint32_t shard = 0; shard < 16; shard++) {
        free(follow.keys[shard]);
    }
    if (follow.redis) {
        redisFree(follow.redis);
    }
    config_free(config);
    return code;
}

const struct cli_command events_command = {"events", "follow the outcomes of deliveries", help, events_run};
