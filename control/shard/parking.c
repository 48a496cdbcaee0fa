/* parking.c: one small record here for each site that has parks, none for what waits: that is in Redis. */
#include "parking.h"

#include "state.h"

#include "control/observe/log.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LOOK_MS = 250,                       /* parks that are due are asked for so often */
    LOOK_PARKS = 256,                    /* so many at a time, and at once again while there are more */
    LOOKS_MAX = 64,                      /* questions under way */
    AGAIN_MIN_MS = 250,                  /* a site's window is looked at again after this at the earliest, */
    AGAIN_MAX_MS = 15000,                /* and this at the latest */
    FILLED_MS = 1000,                    /* what was let out of a park takes so long to its lane: its site is not looked at before */
    UNKNOWN_ROOM = SHAPE_WINDOW_MIN / 2, /* for a site that nobody has asked for since the start */
    SITE_POOLS = 4,                      /* of a site's lanes so many are looked at */
    SITE_IDLE_S = 900,                   /* without parks a site is forgotten */
    SITE_BUCKETS = 1024,
    MEMBER_BYTES = QUEUE_NAME_MAX + 1 + SITE_NAME_BYTES,
};

/* A site for which something was parked. */
struct park_site {
    struct park_site *next;
    struct site *site;       /* a reference; NULL: only its name is known */
    char *pools[SITE_POOLS]; /* whose deliveries were parked */
    uint64_t used_us;
    uint64_t next_us;       /* nothing is let out before */
    uint32_t room, sharers; /* in this look */
    char name[SITE_NAME_BYTES];
};

struct parking {
    struct shard *shard;
    struct event *timer;
    struct park_site *sites[SITE_BUCKETS];
    uint64_t swept_us;
    uint32_t nameless;    /* sites of which only the name is known */
    uint32_t outstanding; /* answers that will come */
    bool destroyed;
    struct parking_counters counters;
};

/* A question to one shard of the queue: the parks of the answer, with what they get. */
struct look {
    struct parking *parking;
    uint32_t queue, count;
    bool more; /* there are others behind these */
    struct {
        char member[MEMBER_BYTES];
        struct park_site *site;
        uint32_t wanted;
        uint64_t again_ms;
    } parks[LOOK_PARKS];
};

static size_t bucket_of(const char *name) {
    uint32_t hash = 0x811c9dc5u; /* FNV-1a */
    for (const char *c = name; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 0x01000193u;
    return hash % SITE_BUCKETS;
}

/* The record of a site, made when there is none; NULL without memory. */
static struct park_site *site_of(struct parking *parking, const char *name) {
    struct park_site **head = &parking->sites[bucket_of(name)], *found = *head;
    while (found != NULL && strcmp(found->name, name) != 0)
        found = found->next;
    if (found == NULL && (found = calloc(1, sizeof(*found))) != NULL) {
        snprintf(found->name, sizeof(found->name), "%s", name);
        found->next = *head;
        *head = found;
        parking->nameless++;
    }
    if (found != NULL)
        found->used_us = now_us();
    return found;
}

static void site_forget(struct park_site *site) {
    if (site->site != NULL)
        site_release(site->site);
    for (uint32_t i = 0; i < SITE_POOLS; i++)
        free(site->pools[i]);
    free(site);
}

static void sites_sweep(struct parking *parking, uint64_t now, bool all) {
    for (uint32_t i = 0; i < SITE_BUCKETS; i++) {
        struct park_site **at = &parking->sites[i];
        while (*at != NULL) {
            struct park_site *site = *at;
            if (all || site->used_us + (uint64_t)SITE_IDLE_S * 1000000 < now) {
                *at = site->next;
                parking->nameless -= site->site == NULL;
                site_forget(site);
            } else {
                at = &site->next;
            }
        }
    }
    parking->swept_us = now;
}

static void site_note(struct parking *parking, const struct delivery *delivery) {
    struct park_site *site = site_of(parking, delivery->site->name);
    if (site == NULL)
        return;
    if (site->site != delivery->site) {
        if (site->site != NULL)
            site_release(site->site);
        else
            parking->nameless--;
        site->site = delivery->site;
        site_hold(site->site);
    }
    const char *pool = ending_pool_name(parking->shard, delivery->job);
    for (uint32_t i = 0; pool != NULL && i < SITE_POOLS; i++) {
        if (site->pools[i] == NULL)
            site->pools[i] = strdup(pool);
        if (site->pools[i] == NULL || strcmp(site->pools[i], pool) == 0)
            return;
    }
}

/* How many recipients the site's lanes take now, while one of them is under half; else 0 with the time until it may be. */
static uint32_t site_room(const struct parking *parking, const struct park_site *site, uint64_t now, uint32_t *wait_ms) {
    uint32_t best = 0;
    *wait_ms = AGAIN_MAX_MS;
    if (site->site == NULL)
        return UNKNOWN_ROOM;
    for (uint32_t i = 0; i < SITE_POOLS && site->pools[i] != NULL; i++) {
        uint32_t window = shape_window(parking->shard->shape, site->site, site->pools[i]);
        uint32_t room = shape_window_room(parking->shard->shape, site->site, site->pools[i], now);
        if (room * 2 > window) {
            best = room > best ? room : best;
        } else if (window > 0) { /* a window is what goes in 30 s */
            uint32_t ms = (uint32_t)((uint64_t)(window / 2 - room) * 30000 / window);
            *wait_ms = ms < *wait_ms ? ms : *wait_ms;
        }
    }
    *wait_ms = *wait_ms < AGAIN_MIN_MS ? AGAIN_MIN_MS : *wait_ms;
    return best;
}

/* Before when a job of this queue must have been queued to be given up. */
static uint64_t give_up_before_ms(const struct shard *shard, const char *queue, uint64_t now_ms) {
    const struct config_queue *found = config_queue_named(shard->config.config, queue);
    if (found == NULL)
        found = config_queue_named(shard->config.config, "normal");
    return found != NULL && found->retry.give_up_ms < now_ms ? now_ms - found->retry.give_up_ms : 0;
}

void parking_put(struct parking *parking, struct delivery *delivery) {
    static const uint16_t expired[3] = {5, 4, 7};
    struct shard *shard = parking->shard;
    uint64_t now_ms = clock_ms(CLOCK_REALTIME);
    if (delivery->job->expires_at_ms != 0 && delivery->job->expires_at_ms <= now_ms) {
        parking->counters.expired++;
        ending_expired(shard, delivery);
        return;
    }
    if (delivery->job->history.first_queued_ms < give_up_before_ms(shard, delivery->job->queue, now_ms)) {
        parking->counters.expired++;
        ending_early(shard, delivery, CLASS_EXPIRED, 550, expired, 0, "its time was up before its server's limits took it");
        return;
    }
    site_note(parking, delivery);
    parking->counters.parked++;
    ending_park(shard, delivery, now_ms + AGAIN_MIN_MS);
}

void parking_seen(struct parking *parking, const struct delivery *delivery) {
    if (parking->nameless == 0)
        return;
    struct park_site *site = parking->sites[bucket_of(delivery->site->name)];
    while (site != NULL && strcmp(site->name, delivery->site->name) != 0)
        site = site->next;
    if (site != NULL && site->site == NULL)
        site_note(parking, delivery);
}

/* -- the way back -- */

static void look_begin(struct parking *parking, uint32_t queue);

static bool answered(struct parking *parking) {
    parking->outstanding--;
    if (parking->destroyed && parking->outstanding == 0) {
        free(parking);
        return false;
    }
    return !parking->destroyed;
}

static void on_unparked(void *context, redisReply *reply) {
    struct look *look = context;
    struct parking *parking = look->parking;
    uint32_t queue = look->queue;
    bool more = look->more;
    free(look);
    if (!answered(parking) || reply == NULL)
        return;
    if (redis_error(reply) != NULL)
        log_write(LOG_LEVEL_ERROR, "control", "what is parked cannot be let out: %.200s", redis_error(reply));
    for (size_t i = 0; reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++)
        parking->counters.unparked += reply->element[i]->type == REDIS_REPLY_INTEGER ? (uint64_t)reply->element[i]->integer : 0;
    if (more && redis_error(reply) == NULL && !parking->shard->draining)
        look_begin(parking, queue);
}

/* Takes the look over. */
static void unpark_send(struct parking *parking, struct look *look, uint64_t now_ms) {
    struct shard *shard = parking->shard;
    const char *argv[6 + 4 * LOOK_PARKS];
    char base[REDIS_KEY_MAX], key[REDIS_KEY_MAX + 16], now[24], (*numbers)[3][24] = malloc(LOOK_PARKS * sizeof(*numbers));
    if (numbers == NULL) { /* asked for again at the next look */
        free(look);
        return;
    }
    redis_shard_prefix(shard->config.config, look->queue, base);
    snprintf(key, sizeof(key), "%sparked", base);
    snprintf(now, sizeof(now), "%" PRIu64, now_ms);
    const char *const head[] = {"FCALL", "bypost_unpark", "1", key, base, now};
    memcpy(argv, head, sizeof(head));
    int argc = 6;
    for (uint32_t i = 0; i < look->count; i++) {
        char queue[QUEUE_NAME_MAX + 1];
        snprintf(queue, sizeof(queue), "%.*s", (int)strcspn(look->parks[i].member, ":"), look->parks[i].member);
        snprintf(numbers[i][0], sizeof(numbers[i][0]), "%" PRIu32, look->parks[i].wanted);
        snprintf(numbers[i][1], sizeof(numbers[i][1]), "%" PRIu64, look->parks[i].again_ms);
        snprintf(numbers[i][2], sizeof(numbers[i][2]), "%" PRIu64, give_up_before_ms(shard, queue, now_ms));
        argv[argc++] = look->parks[i].member;
        for (size_t j = 0; j < 3; j++)
            argv[argc++] = numbers[i][j];
    }
    if (redis_send(shard->queues[look->queue].redis, on_unparked, look, argc, argv, NULL) == 0)
        parking->outstanding++;
    else
        free(look);
    free(numbers);
}

/* The room of each site in equal parts for its parks, those first that waited longest for a look; who gets nothing stands before the others
 * the next time. */
static void look_share(struct parking *parking, struct look *look, uint64_t now, uint64_t now_ms) {
    for (uint32_t i = 0; i < look->count; i++) {
        struct park_site *site = look->parks[i].site;
        site->sharers = 0;
        site->room = UINT32_MAX;
    }
    for (uint32_t i = 0; i < look->count; i++)
        look->parks[i].site->sharers++;
    for (uint32_t i = 0; i < look->count; i++) {
        struct park_site *site = look->parks[i].site;
        if (site->room == UINT32_MAX) {
            uint32_t wait_ms;
            site->room = site->next_us > now ? 0 : site_room(parking, site, now, &wait_ms);
            if (site->room > 0)
                site->next_us = now + FILLED_MS * 1000;
            else if (site->next_us <= now)
                site->next_us = now + (uint64_t)wait_ms * 1000;
        }
        uint32_t part = site->room / site->sharers;
        look->parks[i].wanted = part > 0 ? part : site->room > 0;
        site->room -= look->parks[i].wanted;
        site->sharers--;
        look->parks[i].again_ms = now_ms + (site->next_us - now) / 1000 + (look->parks[i].wanted > 0);
    }
}

static void on_due(void *context, redisReply *reply) {
    struct look *look = context;
    struct parking *parking = look->parking;
    if (!answered(parking)) {
        free(look);
        return;
    }
    for (size_t i = 0; reply != NULL && reply->type == REDIS_REPLY_ARRAY && i < reply->elements && look->count < LOOK_PARKS; i++) {
        const redisReply *member = reply->element[i];
        const char *name = member->type == REDIS_REPLY_STRING ? strchr(member->str, ':') : NULL;
        struct park_site *site = name != NULL && strlen(name + 1) < SITE_NAME_BYTES ? site_of(parking, name + 1) : NULL;
        if (site == NULL || member->len >= MEMBER_BYTES)
            continue;
        snprintf(look->parks[look->count].member, MEMBER_BYTES, "%s", member->str);
        look->parks[look->count++].site = site;
    }
    look->more = look->count == LOOK_PARKS;
    if (look->count > 0 && !parking->shard->draining) {
        uint64_t now_ms = clock_ms(CLOCK_REALTIME);
        look_share(parking, look, now_us(), now_ms);
        unpark_send(parking, look, now_ms);
        return;
    }
    free(look);
}

static void look_begin(struct parking *parking, uint32_t queue) {
    struct shard *shard = parking->shard;
    struct look *look = parking->outstanding < LOOKS_MAX ? calloc(1, sizeof(*look)) : NULL;
    char base[REDIS_KEY_MAX], key[REDIS_KEY_MAX + 16], now[24], limit[16];
    if (look == NULL)
        return;
    *look = (struct look){.parking = parking, .queue = queue};
    redis_shard_prefix(shard->config.config, queue, base);
    snprintf(key, sizeof(key), "%sparked", base);
    snprintf(now, sizeof(now), "%" PRIu64, clock_ms(CLOCK_REALTIME));
    snprintf(limit, sizeof(limit), "%d", LOOK_PARKS);
    const char *argv[] = {"ZRANGEBYSCORE", key, "-inf", now, "LIMIT", "0", limit};
    if (redis_send(shard->queues[queue].redis, on_due, look, 7, argv, NULL) == 0)
        parking->outstanding++;
    else
        free(look);
}

static void on_timer(evutil_socket_t descriptor, short what, void *argument) {
    struct parking *parking = argument;
    struct shard *shard = parking->shard;
    uint64_t now = now_us();
    if (parking->swept_us + 60000000 < now)
        sites_sweep(parking, now, false);
    for (uint32_t i = 0; i < shard->queue_count && !shard->draining; i++)
        if (shard->queues[i].redis != NULL && redis_state(shard->queues[i].redis) == REDIS_UP && shape_room(shard->shape) > 0)
            look_begin(parking, i);
}

struct parking *parking_create(struct shard *shard) {
    struct parking *parking = calloc(1, sizeof(*parking));
    if (parking == NULL)
        return NULL;
    parking->shard = shard;
    parking->swept_us = now_us();
    parking->timer = event_new(shard->base, -1, EV_PERSIST, on_timer, parking);
    if (parking->timer == NULL) {
        free(parking);
        return NULL;
    }
    struct timeval every = {.tv_usec = LOOK_MS * 1000};
    event_add(parking->timer, &every);
    return parking;
}

void parking_destroy(struct parking *parking) {
    if (parking == NULL)
        return;
    event_free(parking->timer);
    sites_sweep(parking, 0, true);
    parking->destroyed = true;
    parking->outstanding++;
    answered(parking);
}

const struct parking_counters *parking_counters(const struct parking *parking) {
    return &parking->counters;
}
