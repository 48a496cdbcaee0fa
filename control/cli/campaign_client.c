/* campaign_client.c: campaigns in Redis, over all shards of the queue. */
#include "campaign.h"
#include "functions.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int campaign_open(struct campaign_client *client, const struct campaign_options *options) {
    int code;
    client->config = cli_config_client(CAMPAIGN, options->config, options->redis, &code);
    client->redis = client->config ? cli_redis(CAMPAIGN, client->config, &code) : NULL;
    for (uint32_t shard = 0; client->config && shard < client->config->redis.shards; shard++) {
        client->bases[shard] = cli_key(client->config, shard, "");
    }
    return code == CLI_OK ? functions_load(CAMPAIGN, client->redis) : code;
}

void campaign_close(struct campaign_client *client) {
    if (client->redis) {
        redisFree(client->redis);
    }
    for (uint32_t shard = 0; shard < CAMPAIGN_SHARDS_MAX; shard++) {
        free(client->bases[shard]);
    }
    config_free(client->config);
    *client = (struct campaign_client){.config = NULL};
}

enum { CALL_ARGUMENTS_MAX = 48 };

/* FCALL with one key of the shard. */
static int function_call(struct campaign_client *client, uint32_t shard, const char *function, const char *key, int argc,
                         const char *const *argv, redisReply **reply) {
    const char *all[CALL_ARGUMENTS_MAX] = {"FCALL", function, "1"};
    char *whole = NULL;
    if (asprintf(&whole, "%s%s", client->bases[shard], key) < 0) {
        abort();
    }
    all[3] = whole;
    all[4] = client->bases[shard];
    for (int i = 0; i < argc && 5 + i < CALL_ARGUMENTS_MAX; i++) {
        all[5 + i] = argv[i];
    }
    *reply = redisCommandArgv(client->redis, 5 + argc, all, NULL);
    free(whole);
    if (!*reply) {
        return cli_redis_fault(CAMPAIGN, client->redis, NULL);
    }
    if ((*reply)->type != REDIS_REPLY_ERROR) {
        return CLI_OK;
    }
    static const char unknown[] = "CAMPAIGN_UNKNOWN", known[] = "CAMPAIGN_";
    const char *error = (*reply)->str, *sentence = strchr(error, ' ');
    if (shard > 0 && strncmp(error, unknown, sizeof unknown - 1) == 0) {
        return CLI_OK; /* made or deleted by a command that was interrupted between the shards: the first one tells */
    }
    bool told = strncmp(error, known, sizeof known - 1) == 0 && sentence; /* a sentence that says what to do */
    int code = told ? cli_complain(CLI_FAILED, CAMPAIGN, "%.400s.", sentence + 1) : cli_redis_fault(CAMPAIGN, client->redis, *reply);
    freeReplyObject(*reply);
    *reply = NULL;
    return code;
}

int campaign_call(struct campaign_client *client, uint32_t shard, const char *function, const char *name, int argc, const char *const *argv,
                  redisReply **reply) {
    const char *all[CALL_ARGUMENTS_MAX] = {name};
    char key[64], rate[32];
    uint32_t shards = client->config->redis.shards;
    snprintf(key, sizeof key, "q:%s", name);
    for (int i = 0; i < argc && 1 + i < CALL_ARGUMENTS_MAX; i++) {
        all[1 + i] = argv[i];
        if (i % 2 == 1 && strcmp(argv[i - 1], "rate") == 0) { /* each shard keeps its part of it */
            snprintf(rate, sizeof rate, "%.6g", strtod(argv[i], NULL) / shards);
            all[1 + i] = rate;
        }
    }
    return function_call(client, shard, function, key, 1 + argc, all, reply);
}

int campaign_call_all(struct campaign_client *client, const char *function, const char *name, int argc, const char *const *argv) {
    int code = CLI_OK;
    for (uint32_t shard = 0; code == CLI_OK && shard < client->config->redis.shards; shard++) {
        redisReply *reply = NULL;
        code = campaign_call(client, shard, function, name, argc, argv, &reply);
        if (reply) {
            freeReplyObject(reply);
        }
    }
    return code;
}

/* Fields of which shards have a part each. */
static bool is_sum(const char *field) {
    static const char *const sums[] = {"submitted", "accepted", "delivered", "deferred",  "bounced", "expired", "suppressed", "cancelled",
                                       "dead",      "returned", "retrying",  "scheduled", "parked",  "held",    "entries",    "rate"};
    for (unsigned i = 0; i < sizeof sums / sizeof *sums; i++) {
        if (strcmp(field, sums[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* Fields that are numbers, the same on every shard. */
static bool is_number(const char *field) {
    static const char *const numbers[] = {"state_ms", "weight", "not_before", "expires_at", "created", "finished", "chunks", "grace_ms"};
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (strcmp(field, numbers[i]) == 0) {
            return true;
        }
    }
    return false;
}

static json_t *number_json(double number) {
    return number == (double)(json_int_t)number ? json_integer((json_int_t)number) : json_real(number);
}

/* One shard's {name, field, value, ...} into the sum. */
static void figures_add(json_t *figures, const redisReply *item, bool first) {
    for (size_t i = 1; i + 1 < item->elements; i += 2) {
        const char *field = item->element[i]->str, *value = item->element[i + 1]->str;
        json_t *known = json_object_get(figures, field);
        if (!field || !value || strcmp(field, "gcra") == 0) {
            continue;
        }
        if (is_sum(field)) {
            json_object_set_new(figures, field, number_json(json_number_value(known) + strtod(value, NULL)));
        } else if (strcmp(field, "chunks") == 0 || strcmp(field, "finished") == 0) { /* the last one's */
            double number = strtod(value, NULL);
            json_object_set_new(figures, field, number_json(number > json_number_value(known) ? number : json_number_value(known)));
        } else if (first) {
            json_object_set_new(figures, field, is_number(field) ? number_json(strtod(value, NULL)) : json_string(value));
        } else if (json_is_string(known) && strcmp(field, "state") == 0 && strcmp(json_string_value(known), value) != 0) {
            json_object_set_new(figures, "state", json_string("mixed")); /* a command was interrupted between the shards */
        }
    }
}

static int figures_read(struct campaign_client *client, const char *name, json_t *figures) {
    static const char *const always[] = {"submitted",  "delivered", "deferred", "bounced", "expired",
                                         "suppressed", "cancelled", "retrying", "parked",  "held"};
    const char *const argv[] = {name};
    int code = CLI_OK;
    uint32_t finished = 0, shards = client->config->redis.shards;
    json_object_set_new(figures, "campaign", json_string(name));
    for (unsigned i = 0; i < sizeof always / sizeof *always; i++) { /* scripts need not ask whether it is there */
        json_object_set_new(figures, always[i], json_integer(0));
    }
    for (uint32_t shard = 0; code == CLI_OK && shard < shards; shard++) {
        redisReply *reply = NULL;
        code = function_call(client, shard, "bypost_campaign_list", "campaigns", 1, argv, &reply);
        if (code == CLI_OK && reply->elements == 0 && shard == 0) {
            code = cli_complain(CLI_FAILED, CAMPAIGN, "there is no campaign %s: `bypost campaign list` shows them.", name);
        } else if (code == CLI_OK && reply->elements == 1) {
            figures_add(figures, reply->element[0], shard == 0);
            for (size_t i = 1; i + 1 < reply->element[0]->elements; i += 2) {
                finished += strcmp(reply->element[0]->element[i]->str, "finished") == 0;
            }
        }
        if (reply) {
            freeReplyObject(reply);
        }
    }
    if (finished < shards) {
        json_object_del(figures, "finished");
    }
    return code;
}

int campaign_figures(struct campaign_client *client, const char *name, json_t **figures) {
    *figures = json_object();
    int code = figures_read(client, name, *figures);
    if (code != CLI_OK) {
        json_decref(*figures);
        *figures = NULL;
    }
    return code;
}

int campaign_all(struct campaign_client *client, uint32_t skip, uint32_t count, json_t **list) {
    redisReply *reply = NULL;
    char *key = cli_key(client->config, 0, "campaigns");
    reply = redisCommand(client->redis, "ZREVRANGE %s %u %u", key, skip, skip + count - 1);
    free(key);
    int code = !reply || reply->type != REDIS_REPLY_ARRAY ? cli_redis_fault(CAMPAIGN, client->redis, reply) : CLI_OK;
    *list = json_array();
    for (size_t i = 0; code == CLI_OK && i < reply->elements; i++) {
        json_t *figures = json_object();
        code = figures_read(client, reply->element[i]->str, figures);
        json_array_append_new(*list, figures);
    }
    if (reply) {
        freeReplyObject(reply);
    }
    return code;
}

uint64_t campaign_open_recipients(const json_t *figures) {
    static const char *const finals[] = {"delivered", "bounced", "expired", "suppressed", "cancelled", "dead"};
    json_int_t open = json_integer_value(json_object_get(figures, "submitted"));
    for (unsigned i = 0; i < sizeof finals / sizeof *finals; i++) {
        open -= json_integer_value(json_object_get(figures, finals[i]));
    }
    return open > 0 ? (uint64_t)open : 0;
}

const char *campaign_state(const json_t *figures) {
    const char *state = json_string_value(json_object_get(figures, "state")),
               *closed = json_string_value(json_object_get(figures, "closed"));
    if (json_object_get(figures, "finished")) {
        return state && (strcmp(state, "discarded") == 0) ? "cancelled for good" : "finished";
    }
    if (state && strcmp(state, "running") == 0 && !closed) {
        return "uploading";
    }
    if (state && strcmp(state, "discarded") == 0) {
        return "cancelled for good";
    }
    return state ? state : "unknown";
}
