/* asked.c: what the command line asks about what is in hand: how much by queue and site, where a recipient is, how a domain is reached. */
#include "state.h"

#include "control/tls_level.h"
#include "control/config/address.h"
#include "control/fetch/entry.h"
#include <bypost/slot.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { FOUND_MAX = 100, NAMES_MAX = 2000 };

/* Counters by name; the last name is kept, because deliveries of a job follow one another. */
struct tally {
    json_t *counts;
    const void *last_key;
    json_t *last;
};

static void tally_count(struct tally *tally, const void *key, const char *name) {
    if (key == NULL || key != tally->last_key) {
        json_t *count = json_object_get(tally->counts, name);
        if (count == NULL && json_object_size(tally->counts) >= NAMES_MAX)
            name = "(others)", count = json_object_get(tally->counts, name);
        if (count == NULL) {
            json_object_set_new(tally->counts, name, json_integer(0));
            count = json_object_get(tally->counts, name);
        }
        tally->last = count;
        tally->last_key = key;
    }
    json_integer_set(tally->last, json_integer_value(tally->last) + 1);
}

/* Everything in hand is shown to `look`. */
struct look {
    struct shard *shard;
    void (*delivery)(struct look *look, const struct delivery *delivery, const char *where, int worker, const char *state);
    const char *where;
    struct tally queues, sites, providers;
    const char *wanted;
    json_t *found;
};

static bool look_lane(void *context, const struct delivery *delivery) {
    struct look *look = context;
    look->delivery(look, delivery, look->where, -1, NULL);
    return false; /* it stays where it is */
}

static void look_never(void *context, struct delivery *delivery) {}

static void look_order(void *context, const struct delivery *delivery, int worker, enum slot_state state) {
    static const char *const states[SLOT_STATES] = {"free", "queued", "claimed", "envelope sent", "body sent", "answered", "withdrawn"};
    struct look *look = context;
    if (delivery != NULL)
        look->delivery(look, delivery, "order", worker, worker < 0 ? "rendered" : (unsigned)state < SLOT_STATES ? states[state] : "?");
}

static void look_at_all(struct look *look) {
    struct shard *shard = look->shard;
    look->where = "lane";
    shape_withdraw(shard->shape, look_lane, look_never, look, now_us());
    for (const struct delivery *delivery = shard->parked_first; delivery != NULL; delivery = delivery->next)
        look->delivery(look, delivery, "full lane", -1, NULL);
    dispatch_each(shard->dispatch, look_order, look);
}

/* -- hand -- */

static void count(struct look *look, const struct delivery *delivery, const char *where, int worker, const char *state) {
    const struct site *site = delivery->site;
    tally_count(&look->queues, delivery->job, delivery->job->queue);
    tally_count(&look->sites, site, site != NULL ? site->name : "-");
    tally_count(&look->providers, site != NULL ? site->provider : NULL,
                site != NULL && site->provider != NULL ? site->provider->name : "-");
}

char *shard_hand(struct shard *shard) {
    struct look look = {.shard = shard,
                        .delivery = count,
                        .queues = {.counts = json_object()},
                        .sites = {.counts = json_object()},
                        .providers = {.counts = json_object()}};
    look_at_all(&look);
    json_t *root = json_pack("{s:o, s:o, s:o, s:i, s:i}", "queues", look.queues.counts, "sites", look.sites.counts, "providers",
                             look.providers.counts, "routing", (int)shard->routing, "settling", (int)shard_settle_outstanding(shard));
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text;
}

/* -- find -- */

static bool is_wanted(const struct delivery *delivery, const char *wanted) {
    const struct job *job = delivery->job;
    const struct job_recipient *recipient = job_recipient(job, delivery->index);
    char origin[ENTRY_ID_BYTES], entry[ENTRY_ID_BYTES];
    if (recipient != NULL && strcasecmp(recipient->mailbox.email, wanted) == 0)
        return true;
    if (job->id != NULL && strcmp(job->id, wanted) == 0)
        return true;
    entry_id_write(job->history.origin, origin);
    entry_id_write(job->entry, entry);
    return strcmp(origin, wanted) == 0 || strcmp(entry, wanted) == 0;
}

static void show(struct look *look, const struct delivery *delivery, const char *where, int worker, const char *state) {
    const struct job *job = delivery->job;
    const struct site *site = delivery->site;
    if (json_array_size(look->found) >= FOUND_MAX || !is_wanted(delivery, look->wanted))
        return;
    char origin[ENTRY_ID_BYTES];
    entry_id_write(job->history.origin, origin);
    const struct job_recipient *recipient = job_recipient(job, delivery->index);
    json_t *one = json_pack(
        "{s:s, s:s*, s:s*, s:s, s:s, s:i, s:I, s:s*, s:s*, s:s}", "where", where, "recipient",
        recipient != NULL ? recipient->mailbox.email : NULL, "id", job->id, "job", origin, "queue", job->queue, "attempts",
        delivery->attempt, "queued_ms", (json_int_t)job->history.first_queued_ms, "site", site != NULL ? site->name : NULL, "provider",
        site != NULL && site->provider != NULL ? site->provider->name : NULL, "pool", ending_pool_name(look->shard, job));
    if (one != NULL && state != NULL)
        json_object_set_new(one, "state", json_string(state));
    if (one != NULL && worker >= 0)
        json_object_set_new(one, "worker", json_integer(worker));
    json_array_append_new(look->found, one);
}

char *shard_find(struct shard *shard, const char *wanted) {
    struct look look = {.shard = shard, .delivery = show, .wanted = wanted, .found = json_array()};
    look_at_all(&look);
    json_t *root = json_pack("{s:o}", "found", look.found);
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text;
}

/* -- explain -- */

/* A question to route that may be answered after the asker has gone. */
struct asked {
    bool answered, alone;
    json_t *json;
    struct site *site;
};

static json_t *endpoints_json(const struct site *site) {
    json_t *list = json_array();
    for (uint32_t i = 0; i < site->endpoint_count; i++) {
        char address[64];
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:i, s:i, s:s}", "name", site->endpoints[i].name, "address",
                                        address_text(&site->endpoints[i].address, address), "port", (int)site->endpoints[i].address.port,
                                        "preference", (int)site->endpoints[i].preference, "tls", config_tls_text(tls_level_of(site, i))));
    }
    return list;
}

static const char *words_or_null(const char *words) {
    return words[0] != '\0' ? words : NULL;
}

static void on_asked(void *context, const struct route_result *result) {
    struct asked *asked = context;
    if (asked->alone) {
        free(asked);
        return;
    }
    asked->answered = true;
    if (result->status == ROUTE_FOUND) {
        asked->site = result->site;
        site_hold(asked->site);
        asked->json = json_pack("{s:s, s:s, s:s*, s:s*, s:s*, s:b, s:o}", "status", "found", "site", result->site->name, "provider",
                                result->site->provider != NULL ? result->site->provider->name : NULL, "mta_sts",
                                words_or_null(result->site->mta_sts), "dane", words_or_null(result->site->dane), "tls_testing",
                                (int)result->site->tls_testing, "endpoints", endpoints_json(result->site));
    } else {
        asked->json = json_pack("{s:s, s:i, s:s}", "status", result->status == ROUTE_TEMPORARY ? "temporary" : "permanent", "code",
                                (int)result->code, "text", result->text);
    }
}

struct lanes {
    const struct site *site;
    json_t *list;
    uint64_t now_us;
};

static void rests_add(json_t *list, const char *what, uint64_t until_us, uint64_t now) {
    if (until_us > now)
        json_array_append_new(list, json_pack("{s:s, s:I}", "what", what, "for_ms", (json_int_t)((until_us - now) / 1000)));
}

static void lane_show(void *context, struct lane *lane) {
    struct lanes *lanes = context;
    if (lane->site != lanes->site)
        return;
    json_t *rests = json_array();
    for (uint32_t i = 0; i < lane->site->endpoint_count; i++)
        rests_add(rests, lane->site->endpoints[i].name, lane->endpoint_rest_until_us[i], lanes->now_us);
    for (uint32_t i = 0; i < lane->pool->source_count && i < PATH_SOURCES_MAX; i++) {
        char address[64];
        rests_add(rests, address_text(&lane->pool->sources[i].address, address), lane->source_rest_until_us[i], lanes->now_us);
    }
    json_array_append_new(lanes->list,
                          json_pack("{s:s, s:I, s:I, s:I, s:b, s:o}", "pool", lane->pool->name, "waiting", (json_int_t)lane->waiting,
                                    "outstanding", (json_int_t)lane->outstanding, "sessions_allowed", (json_int_t)lane->sessions,
                                    "rate_binds", lane->rate_binds, "rests", rests));
}

char *shard_explain(struct shard *shard, const char *domain) {
    struct asked *asked = calloc(1, sizeof(*asked));
    if (asked == NULL)
        return NULL;
    route_find(shard->route, domain, on_asked, asked);
    if (!asked->answered) { /* it is asked again when the answer is cached */
        asked->alone = true;
        return strdup("{\"status\":\"pending\"}");
    }
    if (asked->site != NULL) {
        struct lanes lanes = {asked->site, json_array(), now_us()};
        shape_lanes(shard->shape, lane_show, &lanes);
        json_object_set_new(asked->json, "lanes", lanes.list);
        struct shape_trouble trouble;
        shape_trouble(shard->shape, asked->site, &trouble);
        if (trouble.kind != TROUBLE_NONE)
            json_object_set_new(asked->json, "trouble", json_string(trouble.text));
        site_release(asked->site);
    }
    char *text = json_dumps(asked->json, JSON_COMPACT);
    json_decref(asked->json);
    free(asked);
    return text;
}
