/* operator.c: what the commands share that look into the queue and change it. */
#include "operator.h"
#include "functions.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ARGUMENTS_MAX = 64 };

bool operator_open(struct operator_call *call, const char *command, const char *config_path, const char *redis) {
    *call = (struct operator_call){.command = command};
    call->config = cli_config_client(command, config_path, redis, &call->code);
    if (!call->config) {
        return false;
    }
    call->redis = cli_redis(command, call->config, &call->code);
    if (call->redis && (call->code = functions_load(command, call->redis)) == CLI_OK) {
        return true;
    }
    operator_close(call);
    return false;
}

void operator_close(struct operator_call *call) {
    if (call->redis) {
        redisFree(call->redis);
    }
    config_free(call->config);
    call->redis = NULL;
    call->config = NULL;
}

redisReply *operator_run(struct operator_call *call, int argc, const char *const *argv) {
    redisReply *reply = redisCommandArgv(call->redis, argc, (const char **)argv, NULL);
    if (reply && (reply->type != REDIS_REPLY_ERROR || call->answers_errors)) {
        return reply;
    }
    call->code = cli_redis_fault(call->command, call->redis, reply);
    if (reply) {
        freeReplyObject(reply);
    }
    return NULL;
}

redisReply *operator_function(struct operator_call *call, uint32_t shard, const char *function, int argc, const char *const *argv) {
    const char *all[ARGUMENTS_MAX] = {"FCALL", function, "1"};
    char *base = cli_key(call->config, shard, ""), *key = cli_key(call->config, shard, "due");
    all[3] = key;
    all[4] = base;
    for (int i = 0; i < argc && i + 5 < ARGUMENTS_MAX; i++) {
        all[5 + i] = argv[i];
    }
    redisReply *reply = operator_run(call, argc + 5 < ARGUMENTS_MAX ? argc + 5 : ARGUMENTS_MAX, all);
    free(base);
    free(key);
    return reply;
}

const char *operator_text(const redisReply *reply, size_t index) {
    return reply && reply->type == REDIS_REPLY_ARRAY && index < reply->elements && reply->element[index]->type == REDIS_REPLY_STRING
               ? reply->element[index]->str
               : "";
}

long long operator_number(const redisReply *reply, size_t index) {
    if (!reply || reply->type != REDIS_REPLY_ARRAY || index >= reply->elements) {
        return 0;
    }
    const redisReply *element = reply->element[index];
    return element->type == REDIS_REPLY_INTEGER ? element->integer : element->type == REDIS_REPLY_STRING ? atoll(element->str) : 0;
}

static char **selector_of(struct hold_match *match, int option) {
    char **const selectors[OPERATOR_SELECTORS] = {&match->queue,  &match->site,     &match->provider, &match->domain,
                                                  &match->tenant, &match->campaign, &match->sender,   &match->recipient};
    int index = option - OPERATOR_SELECTOR_FIRST;
    return index >= 0 && index < OPERATOR_SELECTORS ? selectors[index] : NULL;
}

bool operator_select(struct hold_match *match, int option, char *argument) {
    char **selector = selector_of(match, option);
    if (selector) {
        *selector = argument;
    }
    return selector != NULL;
}

int operator_selects(const struct hold_match *match) {
    int count = 0;
    for (int i = 0; i < OPERATOR_SELECTORS; i++) {
        count += *selector_of((struct hold_match *)match, OPERATOR_SELECTOR_FIRST + i) != NULL;
    }
    return count;
}

void operator_describe(const struct hold_match *match, char *out, size_t bytes) {
    static const char *const names[OPERATOR_SELECTORS] = {"queue",  "site",     "provider", "domain",
                                                          "tenant", "campaign", "sender",   "recipient"};
    size_t used = 0;
    out[0] = '\0';
    for (int i = 0; i < OPERATOR_SELECTORS && used < bytes; i++) {
        const char *text = *selector_of((struct hold_match *)match, OPERATOR_SELECTOR_FIRST + i);
        if (text) {
            used += (size_t)snprintf(out + used, bytes - used, "%s%s %s", used ? ", " : "", names[i], text);
        }
    }
}

void operator_progress(const char *what, uint64_t done, uint64_t total) {
    enum { WIDTH = 30 };
    static uint64_t shown = UINT64_MAX;
    if (!isatty(STDERR_FILENO)) {
        return;
    }
    uint64_t part = total ? done * WIDTH / total : WIDTH;
    part = part > WIDTH ? WIDTH : part;
    uint64_t mark = part << 40 ^ done / 1000;
    if (mark == shown && done < total) {
        return;
    }
    shown = mark;
    fprintf(stderr, "\r%s [%.*s%.*s] %" PRIu64 " of %" PRIu64 "  %s", what, (int)part, "##############################", WIDTH - (int)part,
            "..............................", done, total, done >= total ? "\n" : "");
    fflush(stderr);
}

const char *operator_span(uint64_t ms, char out[32]) {
    uint64_t s = ms / 1000;
    if (s < 60) {
        snprintf(out, 32, "%" PRIu64 "s", s);
    } else if (s < 3600) {
        snprintf(out, 32, "%" PRIu64 "m%02" PRIu64 "s", s / 60, s % 60);
    } else if (s < 86400) {
        snprintf(out, 32, "%" PRIu64 "h%02" PRIu64 "m", s / 3600, s / 60 % 60);
    } else {
        snprintf(out, 32, "%" PRIu64 "d%" PRIu64 "h", s / 86400, s / 3600 % 24);
    }
    return out;
}
