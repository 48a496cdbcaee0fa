/* nodes.c: this node's membership in each shard of the queue: beats, its epoch, and the others as it sees them. */
#include "state.h"

#include "control/observe/log.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

const char *reply_word(const redisReply *reply, size_t at) {
    bool is_word = reply && reply->type == REDIS_REPLY_ARRAY && at < reply->elements && reply->element[at]->type == REDIS_REPLY_STRING;
    return is_word ? reply->element[at]->str : "";
}

bool nodes_answered(struct nodes *nodes) {
    nodes->outstanding--;
    if (nodes->destroyed && nodes->outstanding == 0) {
        free(nodes);
        return false;
    }
    return !nodes->destroyed;
}

bool nodes_call(struct member *member, void (*done)(void *context, redisReply *reply), const char *function, int argc,
                const char *const *argv) {
    const char *words[16] = {"FCALL", function, "1", member->prefix, member->prefix};
    for (int i = 0; i < argc; i++)
        words[5 + i] = argv[i];
    if (redis_send(member->redis, done, member, 5 + argc, words, NULL) != 0)
        return false;
    member->nodes->outstanding++;
    return true;
}

/* --- the others --- */

/* Judged by this node's own clock, so that a jump of Redis's kills nobody. */
bool peer_is_dead(const struct peer *peer, uint64_t now_ms) {
    return peer->state == PEER_DEAD || peer->state == PEER_LEFT || (peer->state == PEER_ALIVE && now_ms - peer->since_ms >= NODES_LIFE_MS);
}

static struct peer *peer_named(struct member *member, const char *name) {
    for (uint32_t i = 0; i < member->peer_count; i++)
        if (strcmp(member->peers[i].name, name) == 0)
            return &member->peers[i];
    if (member->peer_count == PEERS_MAX)
        return NULL;
    struct peer *peer = &member->peers[member->peer_count++];
    *peer = (struct peer){.state = PEER_GONE};
    snprintf(peer->name, sizeof(peer->name), "%s", name);
    return peer;
}

static void peer_see(struct member *member, const char *name, const char *value, uint64_t now_ms) {
    static const char *const states[] = {"alive", "dead", "left", "gone"};
    uint64_t epoch, beat_ms, seen;
    char state[8], instance[32];
    struct peer *peer = strlen(name) < NAME_BYTES ? peer_named(member, name) : NULL;
    if (peer == NULL || sscanf(value, "%" SCNu64 " %" SCNu64 " %7s %31s %" SCNu64, &epoch, &beat_ms, state, instance, &seen) != 5)
        return;
    peer->listed = true;
    if (peer->since_ms == 0 || epoch != peer->epoch || beat_ms != peer->beat_ms)
        peer->since_ms = now_ms;
    peer->epoch = epoch;
    peer->beat_ms = beat_ms;
    peer->seen = seen;
    peer->state = PEER_GONE;
    for (int i = 0; i < 4; i++)
        if (strcmp(state, states[i]) == 0)
            peer->state = (enum peer_state)i;
}

static void peers_take(struct member *member, const redisReply *reply, uint64_t now_ms) {
    bool anew = now_ms - member->answered_ms > GAP_MS; /* nothing was seen meanwhile: they may all have been as deaf as this one */
    for (uint32_t i = 0; i < member->peer_count; i++) {
        member->peers[i].listed = false;
        member->peers[i].since_ms = anew ? 0 : member->peers[i].since_ms;
    }
    for (size_t at = 2; at + 1 < reply->elements; at += 2)
        if (strcmp(reply_word(reply, at), member->nodes->name) != 0)
            peer_see(member, reply_word(reply, at), reply_word(reply, at + 1), now_ms);
    uint32_t kept = 0;
    member->alive = 1;
    member->known = true;
    for (uint32_t i = 0; i < member->peer_count; i++) {
        const struct peer *peer = &member->peers[i];
        if (!peer->listed)
            continue;
        if (peer->state == PEER_ALIVE && !peer_is_dead(peer, now_ms)) {
            member->alive++;
            member->known &= peer->seen >= member->epoch;
        }
        if (kept != i)
            member->peers[kept] = *peer;
        kept++;
    }
    member->peer_count = kept;
}

/* --- membership: member_join and member_fence are the only places that change it --- */

static void member_join(struct member *member, uint64_t epoch, uint64_t now_ms) {
    member->state = MEMBER_HOLDS;
    member->epoch = epoch;
    member->since_ms = now_ms;
    member->orphans_due_ms = now_ms + ORPHANS_FIRST_MS;
    member->refused_logged = false;
}

void member_fence(struct member *member, const char *why) {
    struct nodes *nodes = member->nodes;
    if (member->state != MEMBER_HOLDS)
        return;
    member->state = MEMBER_FENCED;
    member->beat_due_ms = 0;
    member->takeover.active = false;
    nodes->counters.fenced++;
    log_write(LOG_LEVEL_WARNING, "nodes", "shard %" PRIu32 ": %s: what no worker has begun is let go; this node registers anew",
              member->index, why);
    nodes->config.fenced(nodes->config.context, member->index);
}

static void refused(struct member *member, const char *status) {
    if (!member->refused_logged)
        log_write(LOG_LEVEL_ERROR, "nodes",
                  strcmp(status, "many") == 0
                      ? "shard %" PRIu32 ": there are as many nodes as may be (%s): this one waits until one leaves"
                      : "shard %" PRIu32
                        ": another living process is the node '%s': give each its own `node` in bypost.yaml; this one waits",
                  member->index, strcmp(status, "many") == 0 ? "64" : member->nodes->name);
    member->refused_logged = true;
}

static void share_with(struct nodes *nodes, uint64_t now_ms);

static void on_beat(void *context, redisReply *reply) {
    struct member *member = context;
    struct nodes *nodes = member->nodes;
    if (!nodes_answered(nodes))
        return;
    member->beating = false;
    if (reply == NULL || member->leaving)
        return;
    uint64_t now_ms = monotonic_ms();
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements < 2) {
        log_write(LOG_LEVEL_ERROR, "nodes", "shard %" PRIu32 ": the heartbeat failed: %.200s", member->index,
                  redis_error(reply) != NULL ? redis_error(reply) : "an answer of unknown shape");
        return;
    }
    const char *status = reply_word(reply, 0);
    uint64_t epoch = strtoull(reply_word(reply, 1), NULL, 10);
    nodes->counters.beats++;
    if (strcmp(status, "ok") != 0) {
        if (strcmp(status, "fenced") == 0)
            member_fence(member, "this node was taken for dead");
        else
            refused(member, status);
        return;
    }
    bool joins = member->state != MEMBER_HOLDS && epoch != 0;
    if (joins)
        member_join(member, epoch, now_ms);
    member->heard_ms = member->beat_sent_ms;
    peers_take(member, reply, now_ms);
    member->answered_ms = now_ms;
    share_with(nodes, now_ms); /* before anything is read */
    if (joins)
        nodes->config.ready(nodes->config.context, member->index);
    takeover_next(member);
}

static void beat(struct member *member, uint64_t now_ms) {
    const struct nodes *nodes = member->nodes;
    char epoch[NUMBER_BYTES], life[NUMBER_BYTES];
    snprintf(epoch, sizeof(epoch), "%" PRIu64, member->state == MEMBER_HOLDS ? member->epoch : 0);
    snprintf(life, sizeof(life), "%d", NODES_LIFE_MS);
    const char *argv[] = {nodes->name, epoch, nodes->instance, life, member->state == MEMBER_NOT_YET ? "1" : "0"};
    member->beating = nodes_call(member, on_beat, "bypost_beat", 5, argv);
    member->beat_sent_ms = now_ms;
    /* A new node waits for the others to have heard of it, and so looks more often. */
    bool waits = member->state != MEMBER_HOLDS || (!member->known && now_ms - member->since_ms < KNOWN_MS);
    member->beat_due_ms = now_ms + (waits ? TICK_MS : NODES_BEAT_MS);
}

/* Others may soon count this node as dead. Alone there is nobody who could. */
static bool member_is_late(const struct member *member, uint64_t now_ms) {
    return member->alive > 1 && now_ms - member->heard_ms >= NODES_LIFE_MS - LATE_MS;
}

/* Tells shape how many share the limits. */
static void share_with(struct nodes *nodes, uint64_t now_ms) {
    uint32_t alive = nodes_alive(nodes);
    if (nodes->config.shape == NULL || alive == nodes->shared)
        return;
    nodes->shared = alive;
    shape_nodes(nodes->config.shape, alive, clock_us(CLOCK_MONOTONIC));
}

static void tick_set(struct nodes *nodes) {
    nodes->random = nodes->random * 6364136223846793005u + 1442695040888963407u;
    uint32_t wait_ms = TICK_MS * 3 / 4 + (uint32_t)(nodes->random >> 33) % (TICK_MS / 2);
    struct timeval wait = {.tv_usec = (suseconds_t)wait_ms * 1000};
    evtimer_add(nodes->tick, &wait);
}

static void on_tick(evutil_socket_t descriptor, short what, void *argument) {
    struct nodes *nodes = argument;
    uint64_t now_ms = monotonic_ms();
    tick_set(nodes);
    for (uint32_t i = 0; i < nodes->config.shard_count; i++) {
        struct member *member = &nodes->members[i];
        if (member->leaving)
            continue;
        if (member->state == MEMBER_HOLDS && member_is_late(member, now_ms))
            member_fence(member, "Redis has not answered for so long that others may have taken this node's work");
        if (!member->beating && now_ms >= member->beat_due_ms && redis_state(member->redis) == REDIS_UP)
            beat(member, now_ms);
        takeover_next(member);
        orphans_look(member, now_ms);
    }
    lease_ask(nodes);
}

static void on_soon(evutil_socket_t descriptor, short what, void *argument) {
    lease_ask(argument);
}

void nodes_share_wanted(struct nodes *nodes) {
    struct timeval wait = {.tv_usec = 1000};
    if (!evtimer_pending(nodes->soon, NULL))
        evtimer_add(nodes->soon, &wait);
}

void nodes_check(struct nodes *nodes, uint32_t shard) {
    if (shard < nodes->config.shard_count)
        nodes->members[shard].beat_due_ms = 0;
}

static void on_up(void *context, bool run_id_changed) {
    struct member *member = context;
    if (member->nodes->started && !member->beating && !member->leaving)
        beat(member, monotonic_ms());
}

/* --- life --- */

struct nodes *nodes_create(const struct nodes_config *config) {
    struct nodes *nodes = calloc(1, sizeof(*nodes) + config->shard_count * sizeof(struct member));
    if (nodes == NULL)
        return NULL;
    nodes->config = *config;
    nodes->shared = 1;
    snprintf(nodes->name, sizeof(nodes->name), "%s", config->config->node != NULL ? config->config->node : "node");
    if (getrandom(&nodes->random, sizeof(nodes->random), GRND_NONBLOCK) != sizeof(nodes->random))
        nodes->random = clock_us(CLOCK_REALTIME);
    snprintf(nodes->instance, sizeof(nodes->instance), "%016" PRIx64, nodes->random);
    nodes->tick = evtimer_new(config->base, on_tick, nodes);
    nodes->soon = evtimer_new(config->base, on_soon, nodes);
    bool made = nodes->tick != NULL && nodes->soon != NULL;
    for (uint32_t i = 0; made && i < config->shard_count; i++) {
        struct member *member = &nodes->members[i];
        member->nodes = nodes;
        member->index = i;
        member->redis = config->redis[i];
        member->alive = 1;
        redis_shard_prefix(config->config, i, member->prefix);
        struct redis_events events = {.up = on_up, .context = member};
        made = redis_listen(member->redis, &events) == 0;
    }
    if (!made) {
        nodes_destroy(nodes);
        return NULL;
    }
    return nodes;
}

void nodes_destroy(struct nodes *nodes) {
    if (nodes == NULL)
        return;
    lease_abandon(nodes);
    for (uint32_t i = 0; i < nodes->config.shard_count; i++)
        if (nodes->members[i].redis != NULL)
            redis_ignore(nodes->members[i].redis, &nodes->members[i]);
    if (nodes->tick != NULL)
        event_free(nodes->tick);
    if (nodes->soon != NULL)
        event_free(nodes->soon);
    nodes->destroyed = true;
    nodes->outstanding++;
    nodes_answered(nodes);
}

void nodes_start(struct nodes *nodes) {
    if (nodes->started)
        return;
    nodes->started = true;
    struct timeval at_once = {0};
    evtimer_add(nodes->tick, &at_once);
}

static void on_left(void *context, redisReply *reply) {
    struct member *member = context;
    if (nodes_answered(member->nodes))
        member->left = true;
}

bool nodes_leave(struct nodes *nodes) {
    uint64_t now_ms = monotonic_ms();
    bool left = true;
    if (nodes->leave_until_ms == 0)
        nodes->leave_until_ms = now_ms + LEAVE_MS;
    for (uint32_t i = 0; i < nodes->config.shard_count; i++) {
        struct member *member = &nodes->members[i];
        if (!member->leaving) {
            char epoch[NUMBER_BYTES];
            snprintf(epoch, sizeof(epoch), "%" PRIu64, member->epoch);
            const char *argv[] = {nodes->name, epoch};
            member->leaving = true;
            member->left = member->state != MEMBER_HOLDS || !nodes_call(member, on_left, "bypost_leave", 2, argv);
        }
        left &= member->left;
    }
    return left || now_ms >= nodes->leave_until_ms;
}

uint64_t nodes_epoch(const struct nodes *nodes, uint32_t shard) {
    return shard < nodes->config.shard_count ? nodes->members[shard].epoch : 0;
}

bool nodes_may_send(const struct nodes *nodes) {
    uint64_t now_ms = monotonic_ms();
    for (uint32_t i = 0; i < nodes->config.shard_count; i++)
        if (nodes->members[i].state != MEMBER_HOLDS || member_is_late(&nodes->members[i], now_ms))
            return false;
    return true;
}

uint32_t nodes_alive(const struct nodes *nodes) {
    return nodes->members[0].alive;
}

const struct nodes_counters *nodes_counters(const struct nodes *nodes) {
    return &nodes->counters;
}
