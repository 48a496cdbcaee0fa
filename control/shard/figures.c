/* figures.c: the counters of all stages as one JSON text. */
#include "state.h"

#include "control/observe/json_text.h"
#include <jansson.h>

/* Adds counters of one shard of the queue to the sums: structs of uint64_t only. */
static void sum(uint64_t *sums, const uint64_t *counters, size_t bytes) {
    for (size_t i = 0; i < bytes / sizeof(*sums); i++)
        sums[i] += counters[i];
}

/* One figure, in its group. */
struct figure {
    const char *group, *name;
    uint64_t value;
};

/* A text as JSON whatever bytes it holds: it may quote a peer. */
static json_t *text_json(const char *text) {
    char safe[ALARM_TEXT_BYTES * 6 + 16];
    json_text(safe, sizeof(safe), text);
    return json_loads(safe, JSON_DECODE_ANY, NULL);
}

static void alarm_append(void *context, const struct alarm *alarm) {
    json_array_append_new(context, json_pack("{s:o,s:o,s:o,s:I,s:I,s:I}", "kind", text_json(alarm->kind), "subject",
                                             text_json(alarm->subject), "text", text_json(alarm->text), "since_ms",
                                             (json_int_t)alarm->since_ms, "last_ms", (json_int_t)alarm->last_ms, "times",
                                             (json_int_t)alarm->times));
}

static json_t *alarms_json(const struct alarms *alarms) {
    json_t *array = json_array();
    alarms_each(alarms, alarm_append, array);
    return array;
}

char *shard_alarms(struct shard *shard) {
    json_t *array = alarms_json(shard->config.alarms);
    char *text = json_dumps(array, JSON_COMPACT);
    json_decref(array);
    return text;
}

char *shard_stats(struct shard *shard) {
    struct fetch_counters fetch_sum = {0}, *fetch = &fetch_sum;
    struct settle_counters settle_sum = {0}, *settle = &settle_sum;
    enum redis_state state = REDIS_UP;
    for (uint32_t i = 0; i < shard->queue_count; i++) {
        sum((uint64_t *)fetch, (const uint64_t *)fetch_counters(shard->queues[i].fetch), sizeof(*fetch));
        sum((uint64_t *)settle, (const uint64_t *)settle_counters(shard->queues[i].settle), sizeof(*settle));
        if (redis_state(shard->queues[i].redis) < state)
            state = redis_state(shard->queues[i].redis);
    }
    const struct dispatch_counters *dispatch = dispatch_counters(shard->dispatch);
    static const char *const redis_states[] = {"down", "loading", "up"};
    const struct figure figures[] = {
        {"fetch", "entries", fetch->entries},
        {"fetch", "recipients", fetch->recipients},
        {"fetch", "dead", fetch->dead},
        {"fetch", "scheduled", fetch->scheduled},
        {"fetch", "promoted", fetch->promoted},
        {"held", "routing", shard->routing},
        {"held", "parked", shard->parked},
        {"held", "shaped", SHAPE_TOTAL_MAX - shape_room(shard->shape)},
        {"held", "in_progress", dispatch_in_progress(shard->dispatch)},
        {"dispatch", "orders", dispatch->orders},
        {"dispatch", "outcomes", dispatch->outcomes},
        {"dispatch", "returned", dispatch->returned},
        {"dispatch", "withdrawn", dispatch->withdrawn},
        {"dispatch", "render_errors", dispatch->render_errors},
        {"dispatch", "signatures", dispatch->signatures},
        {"dispatch", "unsigned_messages", dispatch->unsigned_messages},
        {"dispatch", "harvested_settled", dispatch->harvested_settled},
        {"dispatch", "harvested_lost", dispatch->harvested_lost},
        {"dispatch", "harvested_uncertain", dispatch->harvested_uncertain},
        {"dispatch", "harvested_returned", dispatch->harvested_returned},
        {"dispatch", "path_events", dispatch->path_events},
        {"dispatch", "paths_published", dispatch->paths_published},
        {"dispatch", "paths_exhausted", dispatch->paths_exhausted},
        {"dispatch", "slots_used", dispatch_slots_used(shard->dispatch)},
        {"dispatch", "slots_exhausted", dispatch->slots_exhausted},
        {"dispatch", "arena_exhausted", dispatch->arena_exhausted},
        {"dispatch", "wild_values", dispatch->wild_values},
        {"settle", "delivered", settle->delivered},
        {"settle", "deferred", settle->deferred},
        {"settle", "bounced", settle->bounced},
        {"settle", "expired", settle->expired},
        {"settle", "suppressed", settle->suppressed},
        {"settle", "cancelled", settle->cancelled},
        {"settle", "returned", settle->returned},
        {"settle", "uncertain", settle->uncertain},
        {"settle", "repeated", settle->repeated},
        {"settle", "commits", settle->commits},
        {"settle", "log_errors", settle->log_errors},
        {"settle", "outstanding", shard_settle_outstanding(shard)},
    };
    json_t *json = json_object();
    json_object_set_new(json, "uptime_seconds", json_integer((json_int_t)((now_us() - shard->started_us) / 1000000)));
    json_object_set_new(json, "redis", json_string(redis_states[state]));
    json_object_set_new(json, "dataplane", json_boolean(dispatch_dataplane_up(shard->dispatch)));
    json_object_set_new(json, "draining", json_boolean(shard->draining));
    json_object_set_new(json, "alarms", alarms_json(shard->config.alarms));
    for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++) {
        if (json_object_get(json, figures[i].group) == NULL)
            json_object_set_new(json, figures[i].group, json_object());
        json_object_set_new(json_object_get(json, figures[i].group), figures[i].name, json_integer((json_int_t)figures[i].value));
    }
    char *text = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    return text;
}
