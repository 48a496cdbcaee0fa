/* rest.c: exponential rests, bounded in length and in number. */
#include "rest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t MINUTE_US = 60000000;

int rests_init(struct rests *rests) {
    TAILQ_INIT(&rests->unused);
    rests->unused_count = 0;
    return table_init(&rests->table);
}

static void rest_free(struct rest *rest) {
    free(rest->why);
    free(rest);
}

static void rest_drop(void *context, struct table_node *node) {
    rest_free(TABLE_ENTRY(node, struct rest, node));
}

void rests_free(struct rests *rests) {
    if (rests->table.buckets)
        table_each(&rests->table, rest_drop, NULL);
    table_clear(&rests->table);
}

struct rest_key rest_key_of(const struct config_address *address, uint64_t scope) {
    struct rest_key key;
    memset(&key, 0, sizeof key);
    memcpy(key.bytes, address->bytes, address->family == 6 ? 16 : 4);
    key.family = address->family;
    key.port = address->port;
    key.scope = scope;
    return key;
}

struct rest *rests_find(struct rests *rests, const struct rest_key *key) {
    uint64_t hash = table_hash(&rests->table, key, sizeof *key);
    for (struct table_node *node = table_first(&rests->table, hash); node; node = table_next(node)) {
        struct rest *rest = TABLE_ENTRY(node, struct rest, node);
        if (memcmp(&rest->key, key, sizeof *key) == 0)
            return rest;
    }
    return NULL;
}

static void add_unused(struct rests *rests, struct rest *rest) {
    TAILQ_INSERT_TAIL(&rests->unused, rest, by_failure);
    if (rests->unused_count < RESTS_MAX) {
        rests->unused_count++;
        return;
    }
    struct rest *oldest = TAILQ_FIRST(&rests->unused);
    TAILQ_REMOVE(&rests->unused, oldest, by_failure);
    table_remove(&rests->table, &oldest->node);
    rest_free(oldest);
}

struct rest *rests_get(struct rests *rests, const struct rest_key *key) {
    struct rest *rest = rests_find(rests, key);
    if (rest)
        return rest;
    rest = calloc(1, sizeof *rest);
    if (!rest)
        return NULL;
    rest->key = *key;
    LIST_INIT(&rest->uses);
    table_insert(&rests->table, &rest->node, table_hash(&rests->table, key, sizeof *key));
    add_unused(rests, rest);
    return rest;
}

void rests_attach(struct rests *rests, struct rest_use *use, struct rest *rest, struct lane_state *lane) {
    if (LIST_EMPTY(&rest->uses)) {
        TAILQ_REMOVE(&rests->unused, rest, by_failure);
        rests->unused_count--;
    }
    use->rest = rest;
    use->lane = lane;
    LIST_INSERT_HEAD(&rest->uses, use, link);
}

void rests_detach(struct rests *rests, struct rest_use *use) {
    struct rest *rest = use->rest;
    LIST_REMOVE(use, link);
    use->rest = NULL;
    if (!LIST_EMPTY(&rest->uses))
        return;
    if (rest->failures > 0) {
        add_unused(rests, rest);
        return;
    }
    table_remove(&rests->table, &rest->node);
    rest_free(rest);
}

bool rest_fail(struct rest *rest, uint64_t first_us, uint64_t max_us, uint64_t now_us) {
    if (now_us < rest->until_us && rest->length_us >= first_us)
        return false;
    /* Long after its last rest a failure is the first again. */
    if (rest->failures > 0 && now_us > rest->until_us + 2 * rest->length_us)
        rest->failures = 0;
    uint64_t length_us = rest->failures > 0 && rest->length_us >= first_us ? rest->length_us * 2 : first_us;
    rest->length_us = length_us > max_us ? max_us : length_us;
    rest->failures++;
    rest->until_us = now_us + rest->length_us;
    return true;
}

void rest_say(struct rest *rest, enum shape_trouble_kind trouble, const char *why) {
    char *copy = strdup(why);
    rest->trouble = trouble;
    free(rest->why);
    rest->why = copy;
}

bool rest_strike(struct rest *rest, uint32_t limit, uint64_t now_us) {
    if (rest->strikes == 0 || now_us - rest->strikes_since_us > MINUTE_US) {
        rest->strikes = 0;
        rest->strikes_since_us = now_us;
    }
    if (++rest->strikes < limit)
        return false;
    rest->strikes = 0;
    return true;
}

bool rest_clear(struct rest *rest) {
    bool rested = rest->until_us > 0;
    rest->failures = 0;
    rest->until_us = 0;
    rest->length_us = 0;
    rest->strikes = 0;
    return rested;
}
