/* lease.c: this node's parts of the limits that it shares, asked for by shape and leased from Redis, many in a call. */
#include "state.h"

#include "control/observe/log.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LEASE_NAME_BYTES = 104,
    LEASE_NAME_PLAIN = 96, /* a longer name is hashed */
    LEASE_WORDS = 10,      /* a name and three times total, want, held */
    LEASE_NUMBER_BYTES = 12,
};

struct lease_call {
    struct nodes *nodes; /* NULL: abandoned; freed with the answer */
    uint64_t sent_ms;
    uint32_t count;
    struct share *shares[LEASES_A_CALL];
    char names[LEASES_A_CALL][LEASE_NAME_BYTES];
    char numbers[LEASES_A_CALL][LEASE_WORDS - 1][LEASE_NUMBER_BYTES];
};

/* FNV-1a: it only tells names apart, and a clash makes two limits one. */
static uint64_t hash_of(const char *name) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (const char *c = name; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 0x100000001b3u;
    return hash;
}

static void add(void *context, const struct shape_demand *demand) {
    struct lease_call *call = context;
    uint32_t at = call->count++;
    const char *kind = demand->of_provider ? "provider" : "site";
    call->shares[at] = demand->share;
    if (strlen(demand->name) <= LEASE_NAME_PLAIN - 10)
        snprintf(call->names[at], LEASE_NAME_BYTES, "%s:%.90s", kind, demand->name);
    else
        snprintf(call->names[at], LEASE_NAME_BYTES, "%s:%.60s#%016" PRIx64, kind, demand->name, hash_of(demand->name));
    for (int part = 0; part < SHARE_PARTS; part++) {
        snprintf(call->numbers[at][3 * part], LEASE_NUMBER_BYTES, "%" PRIu32, demand->total[part]);
        snprintf(call->numbers[at][3 * part + 1], LEASE_NUMBER_BYTES, "%" PRIu32, demand->want[part]);
        snprintf(call->numbers[at][3 * part + 2], LEASE_NUMBER_BYTES, "%" PRIu32, demand->held[part]);
    }
}

static void give(struct lease_call *call, const redisReply *reply) {
    struct nodes *nodes = call->nodes;
    uint64_t now_us = clock_us(CLOCK_MONOTONIC), until_us = (call->sent_ms + LEASE_LIFE_MS - LEASE_SLACK_MS) * 1000;
    bool good = reply != NULL && reply->type == REDIS_REPLY_ARRAY && reply->elements == call->count * SHARE_PARTS;
    for (size_t i = 0; good && i < reply->elements; i++)
        good =
            reply->element[i]->type == REDIS_REPLY_INTEGER && reply->element[i]->integer >= 0 && reply->element[i]->integer <= UINT32_MAX;
    if (!good && redis_error(reply) != NULL)
        log_write(LOG_LEVEL_ERROR, "nodes", "limits could not be leased: %.200s", redis_error(reply));
    for (uint32_t i = 0; i < call->count; i++) {
        uint32_t parts[SHARE_PARTS] = {0};
        for (uint32_t part = 0; good && part < SHARE_PARTS; part++)
            parts[part] = (uint32_t)reply->element[i * SHARE_PARTS + part]->integer;
        shape_granted(nodes->config.shape, call->shares[i], good ? parts : NULL, until_us, now_us);
    }
    nodes->counters.leases_granted += good ? call->count : 0;
}

static void on_leased(void *context, redisReply *reply) {
    struct lease_call *call = context;
    struct nodes *nodes = call->nodes;
    if (nodes == NULL) {
        free(call);
        return;
    }
    nodes->lease = NULL;
    give(call, reply);
    bool more = call->count == LEASES_A_CALL;
    free(call);
    if (more)
        lease_ask(nodes);
}

void lease_ask(struct nodes *nodes) {
    struct member *member = &nodes->members[0];
    uint64_t now_ms = monotonic_ms();
    if (nodes->config.shape == NULL || nodes->shared <= 1 || nodes->lease != NULL)
        return;
    bool may =
        member->state == MEMBER_HOLDS && redis_state(member->redis) == REDIS_UP && (member->known || now_ms - member->since_ms >= KNOWN_MS);
    struct lease_call *call = may ? calloc(1, sizeof(*call)) : NULL;
    /* Asked all the same: what was leased ends in its time. */
    uint32_t count = shape_demands(nodes->config.shape, call != NULL ? LEASES_A_CALL : 0, add, call, clock_us(CLOCK_MONOTONIC));
    if (count == 0) {
        free(call);
        return;
    }
    call->nodes = nodes;
    call->sent_ms = now_ms;
    nodes->counters.leases_asked += count;
    char base[REDIS_KEY_MAX], life[NUMBER_BYTES];
    const char *prefix = nodes->config.config->redis.prefix;
    snprintf(base, sizeof(base), "%.100s:{r}:rate:", prefix != NULL ? prefix : "bypost");
    snprintf(life, sizeof(life), "%d", LEASE_LIFE_MS);
    const char *argv[7 + LEASES_A_CALL * LEASE_WORDS] = {"FCALL", "bypost_lease", "1", base, base, nodes->name, life};
    int argc = 7;
    for (uint32_t i = 0; i < call->count; i++) {
        argv[argc++] = call->names[i];
        for (int j = 0; j < LEASE_WORDS - 1; j++)
            argv[argc++] = call->numbers[i][j];
    }
    nodes->lease = call;
    if (redis_send(member->redis, on_leased, call, argc, argv, NULL) != 0) {
        nodes->lease = NULL;
        give(call, NULL);
        free(call);
    }
}

void lease_abandon(struct nodes *nodes) {
    if (nodes->lease == NULL)
        return;
    give(nodes->lease, NULL);
    nodes->lease->nodes = NULL;
    nodes->lease = NULL;
}
