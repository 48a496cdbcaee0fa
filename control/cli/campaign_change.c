/* campaign_change.c: `bypost campaign pause`, `resume`, `cancel`, `set` and `delete`. */
#include "campaign.h"
#include "control/clock.h"
#include "control/config/units.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { OBEYS_MS = 2000, OBEYS_STEP_MS = 20, REQUEST_MS = 1000 };

struct change {
    struct campaign_options common;
    const char *what, *name, *reason;
    bool final;
    uint64_t grace_ms;
    bool graced;
    struct campaign_fields fields;
    char before[32], after[32];
    uint64_t versions[CAMPAIGN_SHARDS_MAX];
};

/* Has control, which runs here, taken the versions that this change made? 1 yes, 0 not yet, -1 it does not run or does not say. */
static int control_obeys(const struct change *change, const char *run_directory, uint32_t shards) {
    char error[CLI_ERROR_BYTES];
    json_t *versions = cli_control(run_directory, "versions", REQUEST_MS, error);
    int result = json_is_array(versions) && json_array_size(versions) == shards ? 1 : -1;
    for (uint32_t shard = 0; result == 1 && shard < shards; shard++) {
        result = (uint64_t)json_integer_value(json_array_get(versions, shard)) >= change->versions[shard];
    }
    json_decref(versions);
    return result;
}

/* Waits for the control of this machine, and says what it found. */
static void obeys_tell(const struct change *change, const struct campaign_client *client) {
    char *socket = NULL;
    uint64_t end_ms = clock_ms(CLOCK_MONOTONIC) + OBEYS_MS;
    int result;
    if (asprintf(&socket, "%s/control.sock", client->config->run_directory) < 0) {
        abort();
    }
    while ((result = access(socket, F_OK) == 0 ? control_obeys(change, client->config->run_directory, client->config->redis.shards) : -1) ==
               0 &&
           clock_ms(CLOCK_MONOTONIC) < end_ms) {
        nanosleep(&(struct timespec){.tv_nsec = OBEYS_STEP_MS * 1000000}, NULL);
    }
    if (result == 0) {
        fprintf(stderr, "bypost campaign: control has not taken it within %d s: see with `bypost stats` whether it reaches Redis.\n",
                OBEYS_MS / 1000);
    } else if (result < 0) {
        fprintf(stderr,
                "bypost campaign: it is written; no control runs here that could confirm it. Senders obey within a fifth of a second.\n");
    }
    free(socket);
}

static int change_send(struct change *change, struct campaign_client *client) {
    int code = CLI_OK;
    for (uint32_t shard = 0; code == CLI_OK && shard < client->config->redis.shards; shard++) {
        redisReply *reply = NULL;
        code = campaign_call(client, shard, "bypost_campaign_set", change->name, (int)(2 * change->fields.count),
                             (const char *const *)change->fields.argv, &reply);
        if (code == CLI_OK && reply->elements == 3) {
            snprintf(change->before, sizeof change->before, "%s", reply->element[0]->str);
            snprintf(change->after, sizeof change->after, "%s", reply->element[1]->str);
            change->versions[shard] = (uint64_t)reply->element[2]->integer;
        }
        if (reply) {
            freeReplyObject(reply);
        }
    }
    return code;
}

/* As `show` and `list` call it. */
static const char *state_text(const char *state) {
    return strcmp(state, "discarded") == 0 ? "cancelled for good" : state;
}

static int change_tell(const struct change *change, const struct campaign_client *client) {
    if (change->common.json) {
        printf("{\"campaign\":\"%s\",\"before\":\"%s\",\"after\":\"%s\"}\n", change->name, change->before, change->after);
    } else if (strcmp(change->what, "set") == 0) {
        printf("%s: set.\n", change->name);
    } else if (strcmp(change->before, change->after) == 0) {
        printf("%s: was %s before.\n", change->name, state_text(change->after));
    } else {
        printf("%s: %s, was %s.\n", change->name, state_text(change->after), state_text(change->before));
    }
    fflush(stdout);
    obeys_tell(change, client);
    if (strcmp(change->after, "cancelled") == 0 && !change->common.json) {
        printf("`bypost campaign resume %s` undoes it until its grace is over; `cancel --final` ends it at once.\n", change->name);
    }
    return CLI_OK;
}

/* A content that nobody was counted for would stay for ever: it has a day, as others whose recipients are done. */
static void content_expire(struct campaign_client *client, const char *content) {
    enum { DAY_S = 86400 };
    long long counted = 0;
    for (uint32_t shard = 0; shard < client->config->redis.shards; shard++) {
        redisReply *reply = redisCommand(client->redis, "HGET %scontents %s", client->bases[shard], content);
        counted += reply && reply->type == REDIS_REPLY_STRING ? atoll(reply->str) : 0;
        if (reply) {
            freeReplyObject(reply);
        }
    }
    redisReply *reply =
        counted > 0 ? NULL : redisCommand(client->redis, "EXPIRE %s:content:%s %d", client->config->redis.prefix, content, (int)DAY_S);
    if (reply) {
        freeReplyObject(reply);
    }
}

/* The first shard, by which a campaign is known, comes last: what is interrupted can be repeated. */
static int change_delete(struct change *change, struct campaign_client *client) {
    int code = CLI_OK;
    char *content = NULL;
    for (uint32_t shard = client->config->redis.shards; code == CLI_OK && shard-- > 0;) {
        redisReply *reply = NULL;
        code = campaign_call(client, shard, "bypost_campaign_delete", change->name, 0, NULL, &reply);
        if (code == CLI_OK && reply->elements == 2 && *reply->element[1]->str && !content) {
            content = strdup(reply->element[1]->str);
        }
        if (reply) {
            freeReplyObject(reply);
        }
    }
    if (code == CLI_OK && content) {
        content_expire(client, content);
    }
    free(content);
    if (code == CLI_OK && change->common.json) {
        printf("{\"campaign\":\"%s\",\"deleted\":true}\n", change->name);
    } else if (code == CLI_OK) {
        printf("%s: deleted.\n", change->name);
    }
    return code;
}

/* rate=500/s ... */
static int pairs_take(struct change *change, int count, char **pairs) {
    static const char *const keys[][2] = {
        {"rate", "rate"},         {"weight", "weight"}, {"window", "window"}, {"not_before", "not_before"}, {"not-before", "not_before"},
        {"expires", "expires_at"}};
    if (count == 0) {
        return cli_complain(CLI_USAGE, CAMPAIGN,
                            "say what to set: rate=500/s, weight=2, window=08:00-20:00, not_before=+2h or expires=+3d.");
    }
    for (int i = 0; i < count; i++) {
        const char *equals = strchr(pairs[i], '=');
        const char *field = NULL;
        for (unsigned k = 0; equals && k < sizeof keys / sizeof *keys; k++) {
            if (strlen(keys[k][0]) == (size_t)(equals - pairs[i]) && strncmp(pairs[i], keys[k][0], (size_t)(equals - pairs[i])) == 0) {
                field = keys[k][1];
            }
        }
        if (!field) {
            return cli_complain(CLI_USAGE, CAMPAIGN, "'%s': write rate=, weight=, window=, not_before= or expires= with a value.",
                                pairs[i]);
        }
        if (!campaign_field(&change->fields, field, equals + 1)) {
            return CLI_USAGE;
        }
    }
    return CLI_OK;
}

static int options_read(int argc, char **argv, struct change *change) {
    static const struct option options[] = {{"json", no_argument, NULL, 'j'},
                                            {"final", no_argument, NULL, 'f'},
                                            {"reason", required_argument, NULL, 'm'},
                                            {"grace", required_argument, NULL, 'g'},
                                            {"redis", required_argument, NULL, 'r'},
                                            {"config", required_argument, NULL, 'c'},
                                            {0}};
    for (int option; (option = getopt_long(argc, argv, "c:", options, NULL)) != -1;) {
        if (option == 'j') {
            change->common.json = true;
        } else if (option == 'f') {
            change->final = true;
        } else if (option == 'm') {
            change->reason = optarg;
        } else if (option == 'g') {
            if (!units_duration(optarg, &change->grace_ms)) {
                return cli_complain(CLI_USAGE, CAMPAIGN, "--grace '%s': write for example 30m or 2h.", optarg);
            }
            change->graced = true;
        } else if (option == 'r') {
            change->common.redis = optarg;
        } else if (option == 'c') {
            change->common.config = optarg;
        } else {
            return cli_usage(CAMPAIGN);
        }
    }
    bool set = strcmp(change->what, "set") == 0;
    change->name = argv[optind];
    if (argc - optind < 1 || (!set && argc - optind > 1)) {
        return cli_complain(CLI_USAGE, CAMPAIGN, "name one campaign; `bypost campaign list` shows them.");
    }
    if ((change->final || change->graced) && strcmp(change->what, "cancel") != 0) {
        return cli_complain(CLI_USAGE, CAMPAIGN, "--final and --grace belong to cancel.");
    }
    return set ? pairs_take(change, argc - optind - 1, argv + optind + 1) : CLI_OK;
}

static void state_fields(struct change *change) {
    char grace[24];
    if (strcmp(change->what, "pause") == 0) {
        campaign_field(&change->fields, "state", "paused");
    } else if (strcmp(change->what, "resume") == 0) {
        campaign_field(&change->fields, "state", "running");
    } else if (strcmp(change->what, "cancel") == 0) {
        campaign_field(&change->fields, "state", change->final ? "discarded" : "cancelled");
    } else {
        return;
    }
    campaign_field(&change->fields, "reason", change->reason ? change->reason : "");
    if (change->graced) {
        snprintf(grace, sizeof grace, "%" PRIu64, change->grace_ms);
        campaign_field(&change->fields, "grace_ms", grace);
    }
}

int campaign_change_run(int argc, char **argv) {
    struct change change = {.what = argv[0]};
    struct campaign_client client = {.config = NULL};
    int code = options_read(argc, argv, &change);
    code = code == CLI_OK ? campaign_open(&client, &change.common) : code;
    if (code == CLI_OK && strcmp(change.what, "delete") == 0) {
        code = change_delete(&change, &client);
    } else if (code == CLI_OK) {
        state_fields(&change);
        code = change_send(&change, &client);
        code = code == CLI_OK ? change_tell(&change, &client) : code;
    }
    campaign_fields_free(&change.fields);
    campaign_close(&client);
    return code;
}
