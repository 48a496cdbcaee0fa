/* suppress_lists.c: what lies in Redis: the lists, their hashes, entries, and the times in them. */
#include "control/clock.h"
#include "control/config/units.h"
#include "functions.h"
#include "suppress.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WALK_HASHES = 64 /* of a list, asked for at a time */ };

const char *suppress_time(uint64_t seconds, char out[24]) {
    time_t time = (time_t)seconds;
    struct tm utc;
    if (seconds == 0 || !gmtime_r(&time, &utc) || strftime(out, 24, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0) {
        snprintf(out, 24, "-");
    }
    return out;
}

bool suppress_when(const char *text, bool ahead, uint64_t *seconds) {
    static const char *const formats[] = {"%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%MZ", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M",
                                          "%Y-%m-%d %H:%M:%S",  "%Y-%m-%d %H:%M",  "%Y-%m-%d"};
    uint64_t now = clock_ms(CLOCK_REALTIME) / 1000, ms;
    size_t digits = strspn(text, "0123456789");
    if (digits >= 9 && digits <= 12 && !text[digits]) {
        *seconds = strtoull(text, NULL, 10);
        return true;
    }
    if (units_duration(text, &ms)) {
        *seconds = ahead ? now + ms / 1000 : now > ms / 1000 ? now - ms / 1000 : 0;
        return true;
    }
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        struct tm utc = {0};
        const char *end = strptime(text, formats[i], &utc);
        if (end && !*end) {
            time_t time = timegm(&utc);
            *seconds = time > 0 ? (uint64_t)time : 0;
            return time > 0;
        }
    }
    return false;
}

redisReply *suppress_function(struct suppress_call *call, const char *function, int argc, const char *const *argv) {
    const char **all = calloc((size_t)argc + 5, sizeof *all);
    const char *head[] = {"FCALL", function, "1", call->key, call->base};
    if (!all) {
        abort();
    }
    memcpy(all, head, sizeof head);
    memcpy(all + 5, argv, (size_t)argc * sizeof *argv);
    redisReply *reply = redisCommandArgv(call->redis, argc + 5, all, NULL);
    free(all);
    if (!reply || reply->type == REDIS_REPLY_ERROR) {
        call->code = cli_redis_fault(suppress_name, call->redis, reply);
        if (reply) {
            freeReplyObject(reply);
        }
        return NULL;
    }
    return reply;
}

/* A reply of a command that was appended. */
static redisReply *reply_take(struct suppress_call *call) {
    void *reply = NULL;
    if (redisGetReply(call->redis, &reply) != REDIS_OK) {
        reply = NULL;
    }
    redisReply *got = reply;
    if (got && got->type != REDIS_REPLY_ERROR) {
        return got;
    }
    call->code = cli_redis_fault(suppress_name, call->redis, got);
    if (got) {
        freeReplyObject(got);
    }
    return NULL;
}

/* All lists with their sizes: tenant, `ENTRIES HASHES`, ... */
redisReply *suppress_lists(struct suppress_call *call) {
    redisReply *reply = redisCommand(call->redis, "HGETALL %s", call->key);
    if (reply && reply->type == REDIS_REPLY_ARRAY) {
        return reply;
    }
    call->code = cli_redis_fault(suppress_name, call->redis, reply);
    if (reply) {
        freeReplyObject(reply);
    }
    return NULL;
}

void suppress_size(const char *text, uint64_t *entries, uint64_t *hashes) {
    if (sscanf(text, "%" SCNu64 " %" SCNu64, entries, hashes) != 2) {
        *entries = *hashes = 0;
    }
}

bool suppress_row_parse(struct suppress_row *row, const char *value) {
    uint64_t now = clock_ms(CLOCK_REALTIME) / 1000;
    return sscanf(value, "%63s %31s %" SCNu64 " %" SCNu64 " %63s", row->reason, row->source, &row->since, &row->expires, row->provider) ==
               5 &&
           row->reason[0] != '!' && (row->expires == 0 || row->expires > now);
}

/* The hashes from..to of a list. */
static bool walk_hashes(struct suppress_call *call, const char *tenant, uint64_t from, uint64_t to,
                        bool (*each)(void *context, const struct suppress_row *row), void *context) {
    bool good = true;
    for (uint64_t i = from; i < to; i++) {
        redisAppendCommand(call->redis, "HGETALL %s%s:%" PRIu64, call->base, tenant, i);
    }
    for (uint64_t i = from; i < to; i++) {
        redisReply *reply = call->code == CLI_OK ? reply_take(call) : NULL;
        for (size_t k = 0; good && reply && k + 1 < reply->elements; k += 2) {
            struct suppress_row row = {.tenant = tenant, .address = reply->element[k]->str};
            good = !suppress_row_parse(&row, reply->element[k + 1]->str) || each(context, &row);
        }
        if (reply) {
            freeReplyObject(reply);
        }
    }
    return good && call->code == CLI_OK;
}

/* A list that grows meanwhile moves entries to hashes behind those that were there: the size is asked for again at the end. */
static bool walk_list(struct suppress_call *call, const char *tenant, bool (*each)(void *context, const struct suppress_row *row),
                      void *context) {
    uint64_t done = 0, entries, hashes;
    for (;;) {
        redisReply *reply = redisCommand(call->redis, "HGET %s %b", call->key, tenant, strlen(tenant));
        suppress_size(reply && reply->type == REDIS_REPLY_STRING ? reply->str : "", &entries, &hashes);
        if (!reply || reply->type == REDIS_REPLY_ERROR) {
            call->code = cli_redis_fault(suppress_name, call->redis, reply);
        }
        if (reply) {
            freeReplyObject(reply);
        }
        if (call->code != CLI_OK || done >= hashes) {
            return call->code == CLI_OK;
        }
        while (done < hashes) {
            uint64_t to = done + WALK_HASHES < hashes ? done + WALK_HASHES : hashes;
            if (!walk_hashes(call, tenant, done, to, each, context)) {
                return false;
            }
            done = to;
        }
    }
}

bool suppress_walk(struct suppress_call *call, const char *tenant, bool (*each)(void *context, const struct suppress_row *row),
                   void *context) {
    if (tenant) {
        return walk_list(call, tenant, each, context);
    }
    redisReply *lists = suppress_lists(call);
    bool good = lists != NULL;
    for (size_t i = 0; good && i + 1 < lists->elements; i += 2) {
        good = walk_list(call, lists->element[i]->str, each, context);
    }
    if (lists) {
        freeReplyObject(lists);
    }
    return good;
}
