/* janitor.c: contents that no recipient needs any more get their last day; those that are needed (again) do not expire. Counts are changed
 * by Functions alone. A content has a last day for as long as a command takes before the counts are read again, so that a producer who
 * counts it at the same moment is seen: by the Function that removes the count, or by the next look. */
#include "state.h"

#include "control/observe/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    JANITOR_MS = 60000,
    JANITOR_AWAY_MS = 1000,
    SCAN_COUNT = 256,
    CHECKS_MAX = 64, /* contents under examination at once; the others wait for the next look */
};

struct janitor {
    struct contents *contents;
    struct event *timer;
    uint32_t shard; /* that is being looked through */
    char cursor[24];
    LIST_HEAD(checks, check) under_way;
    uint32_t checks;
};

/* What is known of a content whose count is 0 in one shard. */
enum check_state {
    CHECK_COUNTING,   /* the other shards are asked */
    CHECK_EXPIRING,   /* its last day begins */
    CHECK_FORGETTING, /* the counts are removed */
};

struct check {
    LIST_ENTRY(check) link;
    struct contents *contents;
    enum check_state state;
    uint32_t waiting; /* answers */
    bool needed;      /* or some answer is missing */
    char id[CONTENT_ID_MAX + 1];
};

static void timer_set(struct janitor *janitor, uint32_t ms) {
    struct timeval wait = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};
    evtimer_add(janitor->timer, &wait);
}

static uint32_t period_ms(const struct janitor *janitor) {
    return janitor->contents->config.janitor_ms ? janitor->contents->config.janitor_ms : JANITOR_MS;
}

static bool shard_send(struct contents *contents, uint32_t shard, void (*done)(void *context, redisReply *reply), void *context, int argc,
                       const char *const *argv) {
    bool sent = redis_send(contents->config.redis[shard], done, context, argc, argv, NULL) == 0;
    contents->outstanding += sent;
    return sent;
}

/* PREFIX:{SHARD}:contents */
static void contents_hash(const struct contents *contents, uint32_t shard, char base[REDIS_KEY_MAX], char key[REDIS_KEY_MAX + 16]) {
    redis_shard_prefix(contents->config.config, shard, base);
    snprintf(key, REDIS_KEY_MAX + 16, "%scontents", base);
}

static void on_persisted(void *context, redisReply *reply) {
    contents_answered(context);
}

static void content_persist(struct contents *contents, const char *id) {
    char key[KEY_BYTES];
    content_key(contents, id, key);
    const char *argv[] = {"PERSIST", key};
    shard_send(contents, 0, on_persisted, contents, 2, argv);
}

static void check_step(struct check *check);

static void on_checked(void *context, redisReply *reply) {
    struct check *check = context;
    struct contents *contents = check->contents;
    bool alive = contents_answered(contents);
    check->waiting--;
    if (!reply || redis_error(reply) || (reply->type == REDIS_REPLY_STRING && strtoll(reply->str, NULL, 10) > 0) ||
        (check->state == CHECK_FORGETTING && reply->type == REDIS_REPLY_INTEGER && reply->integer > 0)) {
        check->needed = true;
    }
    if (!alive) {
        if (check->waiting == 0) {
            free(check);
        }
    } else if (check->waiting == 0) {
        check_step(check);
    }
}

static void check_end(struct check *check) {
    check->contents->janitor->checks--;
    LIST_REMOVE(check, link);
    free(check);
}

/* Asks every shard. */
static void check_ask(struct check *check, bool forget) {
    struct contents *contents = check->contents;
    for (uint32_t shard = 0; shard < contents->config.shards; shard++) {
        char base[REDIS_KEY_MAX], key[REDIS_KEY_MAX + 16];
        contents_hash(contents, shard, base, key);
        const char *count[] = {"HGET", key, check->id};
        const char *remove[] = {"FCALL", "bypost_content_forget", "1", key, base, check->id};
        bool sent =
            forget ? shard_send(contents, shard, on_checked, check, 6, remove) : shard_send(contents, shard, on_checked, check, 3, count);
        check->waiting += sent;
        check->needed |= !sent;
    }
}

/* All answers to the last step are there. */
static void check_step(struct check *check) {
    struct contents *contents = check->contents;
    char key[KEY_BYTES], seconds[16];
    switch (check->state) {
    case CHECK_COUNTING:
        check->state = CHECK_EXPIRING;
        content_key(contents, check->id, key);
        snprintf(seconds, sizeof seconds, "%d", CONTENT_LAST_DAY_S);
        const char *argv[] = {"EXPIRE", key, seconds};
        if (check->needed || !shard_send(contents, 0, on_checked, check, 3, argv)) {
            check_end(check);
        } else {
            check->waiting++;
        }
        break;
    case CHECK_EXPIRING:
        if (check->needed) { /* Redis did not answer: whether it expires is seen at the next look, because the count is still there */
            check_end(check);
            return;
        }
        check->state = CHECK_FORGETTING;
        check_ask(check, true);
        if (check->waiting == 0) {
            check_end(check);
        }
        break;
    case CHECK_FORGETTING:
        if (check->needed) {
            content_persist(contents, check->id);
        } else {
            contents->counters.expired++;
            log_write(LOG_LEVEL_DEBUG, "content", "nobody needs the content %s any more: it is kept for another day", check->id);
        }
        check_end(check);
        break;
    }
}

static void check_begin(struct janitor *janitor, const char *id) {
    struct check *check;
    LIST_FOREACH (check, &janitor->under_way, link) {
        if (strcmp(check->id, id) == 0) {
            return; /* another shard has it too */
        }
    }
    if (janitor->checks == CHECKS_MAX) {
        return;
    }
    check = calloc(1, sizeof *check);
    if (!check) {
        return;
    }
    check->contents = janitor->contents;
    snprintf(check->id, sizeof check->id, "%s", id);
    janitor->checks++;
    LIST_INSERT_HEAD(&janitor->under_way, check, link);
    check_ask(check, false);
    if (check->waiting == 0) {
        check_end(check);
    }
}

static void scan(struct janitor *janitor);

static void on_scanned(void *context, redisReply *reply) {
    struct contents *contents = context;
    if (!contents_answered(contents)) {
        return;
    }
    struct janitor *janitor = contents->janitor;
    bool good = reply && !redis_error(reply) && reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
                reply->element[0]->type == REDIS_REPLY_STRING && reply->element[1]->type == REDIS_REPLY_ARRAY;
    if (!good) {
        timer_set(janitor, period_ms(janitor));
        return;
    }
    const redisReply *pairs = reply->element[1];
    for (size_t i = 0; i + 1 < pairs->elements; i += 2) {
        const redisReply *id = pairs->element[i], *count = pairs->element[i + 1];
        if (id->len > CONTENT_ID_MAX || strlen(id->str) != id->len) {
            continue; /* no content has such a name */
        }
        if (strtoll(count->str, NULL, 10) > 0) {
            content_persist(contents, id->str);
        } else {
            check_begin(janitor, id->str);
        }
    }
    snprintf(janitor->cursor, sizeof janitor->cursor, "%s", reply->element[0]->str);
    janitor->shard += strcmp(janitor->cursor, "0") == 0;
    scan(janitor);
}

static void scan(struct janitor *janitor) {
    struct contents *contents = janitor->contents;
    if (janitor->shard == contents->config.shards) {
        timer_set(janitor, period_ms(janitor));
        return;
    }
    char base[REDIS_KEY_MAX], key[REDIS_KEY_MAX + 16], count[16];
    contents_hash(contents, janitor->shard, base, key);
    snprintf(count, sizeof count, "%d", SCAN_COUNT);
    const char *argv[] = {"HSCAN", key, janitor->cursor, "COUNT", count};
    if (!shard_send(contents, janitor->shard, on_scanned, contents, 5, argv)) {
        timer_set(janitor, JANITOR_AWAY_MS);
    }
}

static void on_timer(evutil_socket_t descriptor, short what, void *context) {
    struct janitor *janitor = context;
    janitor->shard = 0;
    snprintf(janitor->cursor, sizeof janitor->cursor, "0");
    for (uint32_t i = 0; i < janitor->contents->config.shards; i++) {
        if (redis_state(janitor->contents->config.redis[i]) != REDIS_UP) {
            timer_set(janitor, JANITOR_AWAY_MS);
            return;
        }
    }
    scan(janitor);
}

struct janitor *janitor_create(struct contents *contents) {
    struct janitor *janitor = calloc(1, sizeof *janitor);
    if (!janitor) {
        return NULL;
    }
    janitor->contents = contents;
    janitor->timer = evtimer_new(contents->config.base, on_timer, janitor);
    if (!janitor->timer) {
        free(janitor);
        return NULL;
    }
    timer_set(janitor, period_ms(janitor) < JANITOR_AWAY_MS ? period_ms(janitor) : JANITOR_AWAY_MS);
    return janitor;
}

void janitor_stop(struct janitor *janitor) {
    event_free(janitor->timer);
    janitor->timer = NULL;
}

void janitor_free(struct janitor *janitor) {
    free(janitor);
}
