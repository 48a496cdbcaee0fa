/* figures.c: what is counted for operators, and the counters of all stages as one JSON text. */
#include "state.h"

#include "control/observe/json_text.h"
#include "control/observe/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const figure_results[RESULTS] = {"delivered", "deferred", "bounced", "stopped"};
const char *const figure_tallies[TALLIES] = {"site", "provider", "class", "tenant", "queue"};

enum { TOP_ROWS = 64, AWAY_S = 10 };

/* --- counting --- */

void figures_settled(struct figures *figures, const struct settle_item *item, const struct delivery *delivery) {
    const struct classification *classification = &item->classification;
    unsigned result = RESULT_DEFERRED;
    if (item->outcome.kind == OUTCOME_RETURNED || classification->verdict == VERDICT_RETURNED || classification->verdict == VERDICT_PARKED)
        return; /* no attempt */
    if (item->outcome.kind != OUTCOME_UNCERTAIN && classification->verdict == VERDICT_DELIVERED)
        result = RESULT_DELIVERED;
    else if (item->outcome.kind != OUTCOME_UNCERTAIN && classification->verdict == VERDICT_BOUNCED)
        result =
            classification->class == CLASS_EXPIRED || classification->class == CLASS_SUPPRESSED || classification->class == CLASS_CANCELLED
                ? RESULT_STOPPED
                : RESULT_BOUNCED;
    tally_add(figures->tallies[TALLY_SITES], item->site, result);
    tally_add(figures->tallies[TALLY_PROVIDERS], item->provider, result);
    tally_add(figures->tallies[TALLY_TENANTS], item->cookie.tenant, result);
    tally_add(figures->tallies[TALLY_QUEUES], item->cookie.queue, result);
    if (result != RESULT_DELIVERED)
        tally_add(figures->tallies[TALLY_CLASSES], reply_class_text(classification->class), result);
    uint64_t finished_ms = (item->outcome.finished_us != 0 ? item->outcome.finished_us : clock_us(CLOCK_REALTIME)) / 1000;
    uint64_t queued_ms = item->cookie.first_queued_ms;
    if (result == RESULT_DELIVERED && queued_ms != 0)
        histogram_add(&figures->delivery[delivery != NULL && delivery->high],
                      finished_ms > queued_ms ? (finished_ms - queued_ms) * 1000 : 0);
}

void figures_routed(struct figures *figures, uint64_t asked_us) {
    histogram_add(&figures->lookup, now_us() - asked_us);
}

/* Redis is so full that producers are refused (queue.max_memory_percent); what is on its way is still settled in what is left. */
static void memory_watch(struct figures *figures) {
    const struct survey *survey = &figures->surveys[0];
    struct alarms *alarms = figures->shard->config.alarms;
    const char *address = figures->shard->config.config->redis.address;
    char text[ALARM_TEXT_BYTES];
    uint64_t room = survey->memory_room_bytes;
    if (room == 0 || survey->memory_bytes < room / 100 * figures->shard->config.config->queue.max_memory_percent) {
        alarm_clear(alarms, "redis_full", address);
        return;
    }
    snprintf(text, sizeof(text),
             "Redis uses %llu MiB of the %llu MiB that it may: what is on its way is still settled, new work is refused. Raise it with "
             "`redis-cli config set maxmemory SIZE`, or find what fills it with `bypost queue`.",
             (unsigned long long)(survey->memory_bytes >> 20), (unsigned long long)(room >> 20));
    alarm_raise(alarms, "redis_full", address, text);
}

/* A restart is over sooner. */
static bool away_for_long(uint32_t *seconds, bool away) {
    *seconds = away ? *seconds + 1 : 0;
    return *seconds >= AWAY_S;
}

/* Redis or the dataplane is not there, and mail waits for it. */
static void away_watch(struct figures *figures) {
    const struct shard *shard = figures->shard;
    struct alarms *alarms = shard->config.alarms;
    const char *address = shard->config.config->redis.address;
    bool up = true;
    for (uint32_t i = 0; i < shard->queue_count; i++)
        up = up && redis_state(shard->queues[i].redis) == REDIS_UP;
    if (away_for_long(&figures->redis_away_s, !up))
        alarm_raise(alarms, "redis_away", address,
                    "Redis does not serve: what is on the wire finishes and waits to be settled, nothing new is read, and it goes on by "
                    "itself. See with `redis-cli ping` that it runs; the log says what it answers.");
    else if (up)
        alarm_clear(alarms, "redis_away", address);
    if (away_for_long(&figures->dataplane_away_s, !dispatch_dataplane_up(shard->dispatch)))
        alarm_raise(alarms, "dataplane_away", shard->config.config->node,
                    "No dataplane is connected, and nothing is sent. Its log says why it ended: `journalctl -u bypost-dataplane -n 50`.");
    else if (figures->dataplane_away_s == 0)
        alarm_clear(alarms, "dataplane_away", shard->config.config->node);
}

static void on_second(evutil_socket_t descriptor, short what, void *argument) {
    struct figures *figures = argument;
    for (unsigned i = 0; i < TALLIES; i++)
        tally_tick(figures->tallies[i]);
    survey_ping(figures);
    log_tick();
    if (figures->surveys[0].queue_count == 0)
        survey_ask(figures); /* soon after the start, and then at its own pace */
    memory_watch(figures);
    if (!figures->shard->draining)
        away_watch(figures);
}

static void on_survey(evutil_socket_t descriptor, short what, void *argument) {
    survey_ask(argument);
}

static void on_census(evutil_socket_t descriptor, short what, void *argument) {
    struct figures *figures = argument;
    uint32_t wait_ms = census_step(&figures->census) ? CENSUS_PAUSE_MS : CENSUS_STEP_MS;
    struct timeval wait = {.tv_sec = wait_ms / 1000, .tv_usec = wait_ms % 1000 * 1000};
    evtimer_add(figures->census_timer, &wait);
}

struct figures *figures_create(struct shard *shard) {
    struct figures *figures = calloc(1, sizeof(*figures));
    if (figures == NULL)
        return NULL;
    bool made = true;
    figures->shard = shard;
    for (unsigned i = 0; i < TALLIES; i++)
        made = (figures->tallies[i] = tally_create()) != NULL && made;
    figures->second_timer = event_new(shard->base, -1, EV_PERSIST, on_second, figures);
    figures->survey_timer = event_new(shard->base, -1, EV_PERSIST, on_survey, figures);
    figures->census_timer = evtimer_new(shard->base, on_census, figures);
    if (!made || figures->second_timer == NULL || figures->survey_timer == NULL || figures->census_timer == NULL) {
        figures_stop(figures);
        figures_free(figures);
        return NULL;
    }
    struct timeval ping = {.tv_sec = PING_MS / 1000}, survey = {.tv_sec = SURVEY_MS / 1000}, soon = {.tv_usec = CENSUS_STEP_MS * 1000};
    event_add(figures->second_timer, &ping);
    event_add(figures->survey_timer, &survey);
    event_add(figures->census_timer, &soon);
    return figures;
}

void figures_stop(struct figures *figures) {
    struct event **timers[] = {&figures->second_timer, &figures->survey_timer, &figures->census_timer};
    for (size_t i = 0; i < sizeof(timers) / sizeof(timers[0]); i++) {
        if (*timers[i] != NULL)
            event_free(*timers[i]);
        *timers[i] = NULL;
    }
}

void figures_free(struct figures *figures) {
    for (unsigned i = 0; i < TALLIES; i++)
        tally_destroy(figures->tallies[i]);
    census_free(&figures->census);
    free(figures);
}

/* --- telling --- */

/* Adds counters of one shard of the queue to the sums: structs of uint64_t only. */
static void sum(uint64_t *sums, const uint64_t *counters, size_t bytes) {
    for (size_t i = 0; i < bytes / sizeof(*sums); i++)
        sums[i] += counters[i];
}

uint32_t figures_list(const struct shard *shard, struct figure *figures) {
    struct fetch_counters fetch_sum = {0}, *fetch = &fetch_sum;
    struct settle_counters settle_sum = {0}, *settle = &settle_sum;
    for (uint32_t i = 0; i < shard->queue_count; i++) {
        sum((uint64_t *)fetch, (const uint64_t *)fetch_counters(shard->queues[i].fetch), sizeof(*fetch));
        sum((uint64_t *)settle, (const uint64_t *)settle_counters(shard->queues[i].settle), sizeof(*settle));
    }
    const struct dispatch_counters *dispatch = dispatch_counters(shard->dispatch);
    struct dispatch_arena arena;
    dispatch_arena(shard->dispatch, &arena);
    struct dispatch_huge huge;
    dispatch_huge(shard->dispatch, &huge);
    const struct parking_counters *parking = parking_counters(shard->parking);
    const struct contents_counters *contents = contents_counters(shard->contents);
    const struct nodes_counters *nodes = nodes_counters(shard->nodes);
    const struct report_counters *report = report_counters(shard->report);
    const struct suppress_counters *suppress = suppress_counters(shard->suppress);
    const struct guard_counters *guard = guard_counters(shard->guard);
    struct press_counters press;
    press_counters(shard->config.press, &press);
    const enum metric_type counter = METRIC_COUNTER, gauge = METRIC_GAUGE;
    const struct figure list[] = {
        {"fetch", "entries", counter, "Entries of queues read from Redis.", fetch->entries},
        {"fetch", "recipients", counter, "Recipients in them.", fetch->recipients},
        {"fetch", "dead", counter, "Entries that could not be understood.", fetch->dead},
        {"fetch", "scheduled", counter, "Entries put off until their send_at.", fetch->scheduled},
        {"fetch", "promoted", counter, "Records whose time had come, put back into their queues.", fetch->promoted},
        {"content", "loaded", counter, "Shared contents loaded from Redis.", contents->loaded},
        {"content", "hits", counter, "Jobs whose content was there already.", contents->hits},
        {"content", "missing", counter, "Contents that jobs named and that were missing or malformed.", contents->missing},
        {"content", "bytes", gauge, "Memory that contents take.", contents->bytes},
        {"content", "held", gauge, "Contents that jobs here refer to.", contents->held},
        {"content", "expired", counter, "Contents that nobody needed any more and that were given a last day.", contents->expired},
        {"held", "routing", gauge, "Recipients in control whose domain is being looked up.", shard->routing},
        {"held", "parked", gauge, "Recipients in control that wait for room in their lane.", shard->parked},
        {"parking", "parked", counter, "Recipients parked in Redis because their site's window was full.", parking->parked},
        {"parking", "unparked", counter, "Recipients let out of their parks.", parking->unparked},
        {"parking", "expired", counter, "Recipients whose time was up when they would have been parked.", parking->expired},
        {"held", "shaped", gauge, "Recipients in control that wait in their lanes.", SHAPE_TOTAL_MAX - shape_room(shard->shape)},
        {"held", "in_progress", gauge, "Recipients being rendered, or with the dataplane.", dispatch_in_progress(shard->dispatch)},
        {"dispatch", "orders", counter, "Orders given to the dataplane: recipients.", dispatch->orders},
        {"dispatch", "transactions", counter, "Transactions for them: recipients of one message share one.", dispatch->transactions},
        {"dispatch", "outcomes", counter, "Outcomes that came back.", dispatch->outcomes},
        {"dispatch", "returned", counter, "Orders that came back unattempted.", dispatch->returned},
        {"dispatch", "withdrawn", counter, "Orders taken back before a worker claimed them.", dispatch->withdrawn},
        {"dispatch", "render_errors", counter, "Messages that could not be rendered.", dispatch->render_errors},
        {"dispatch", "signatures", counter, "DKIM signatures made.", dispatch->signatures},
        {"dispatch", "unsigned_messages", counter, "Messages without a key for their From domain.", dispatch->unsigned_messages},
        {"dispatch", "harvested_settled", counter, "Slots of earlier processes that had their outcome.", dispatch->harvested_settled},
        {"dispatch", "harvested_lost", counter, "Slots of earlier processes whose body had not been sent.", dispatch->harvested_lost},
        {"dispatch", "harvested_uncertain", counter, "Slots of earlier processes whose body was sent and not answered.",
         dispatch->harvested_uncertain},
        {"dispatch", "harvested_returned", counter, "Slots of earlier processes that no worker had claimed.", dispatch->harvested_returned},
        {"dispatch", "path_events", counter, "Events of paths: refused greetings, failed connects, TLS.", dispatch->path_events},
        {"dispatch", "paths_published", counter, "Paths published to the workers.", dispatch->paths_published},
        {"dispatch", "paths_exhausted", counter, "Times that no path record was free (journal.paths).", dispatch->paths_exhausted},
        {"dispatch", "slots_used", gauge, "Slots of the journal in use.", dispatch_slots_used(shard->dispatch)},
        {"dispatch", "slots_exhausted", counter, "Times that no slot was free (journal.slots).", dispatch->slots_exhausted},
        {"dispatch", "arena_exhausted", counter, "Times that the arena had no room (dataplane.arena).", dispatch->arena_exhausted},
        {"dispatch", "arena_used_bytes", gauge, "Memory of the arena in use, idle shared bytes of contents among it.", arena.used_bytes},
        {"dispatch", "arena_copied_bytes", counter, "Bytes of messages copied into the arena.", dispatch->arena_copied_bytes},
        {"dispatch", "arena_shared_bytes", counter, "Bytes of messages that lay there for their content already, and were referred to.",
         dispatch->arena_shared_bytes},
        {"dispatch", "resident_bytes", gauge, "Memory of the arena that bytes shared by a content's messages take.", arena.resident_bytes},
        {"dispatch", "resident_idle_bytes", gauge, "Of these, what no message refers to at the moment.", arena.idle_bytes},
        {"dispatch", "residents_made", counter, "Contents whose shared bytes were copied into the arena.", arena.residents_made},
        {"dispatch", "residents_evicted", counter, "Of these, those that made room for others.", arena.residents_evicted},
        {"dispatch", "huge_arena_bytes", gauge, "Memory of the arena that huge messages and huge contents take: half of it at most.",
         arena.huge_bytes},
        {"dispatch", "huge_orders", counter, "Transactions of huge messages.", dispatch->huge_orders},
        {"dispatch", "huge_waits", counter, "Of these, those that waited for room in the arena (dataplane.arena).", dispatch->huge_waits},
        {"dispatch", "huge_waiting", gauge, "Huge messages that are rendered and wait for room in the arena.", huge.waiting},
        {"dispatch", "huge_waiting_bytes", gauge, "Memory that they take.", huge.waiting_bytes},
        {"dispatch", "huge_waiting_ms", gauge, "How long the first of them has waited.", huge.waiting_ms},
        {"dispatch", "huge_aside", gauge, "Recipients whose huge message is not rendered before others have left.", huge.aside},
        {"dispatch", "wild_values", counter, "Values out of range in the shared region, not followed.", dispatch->wild_values},
        {"settle", "delivered", counter, "Recipients delivered.", settle->delivered},
        {"settle", "deferred", counter, "Attempts that are to be made again.", settle->deferred},
        {"settle", "bounced", counter, "Recipients that failed for good.", settle->bounced},
        {"settle", "expired", counter, "Recipients whose time was up.", settle->expired},
        {"settle", "suppressed", counter, "Recipients on the suppression list.", settle->suppressed},
        {"settle", "held", counter, "Recipients that wait for a hold's end or for a decision.", settle->held},
        {"settle", "refused", counter, "Waits that Redis refused because this node counted as dead: its heir has them.", settle->refused},
        {"settle", "cancelled", counter, "Recipients of cancelled jobs.", settle->cancelled},
        {"settle", "returned", counter, "Recipients put back without an attempt.", settle->returned},
        {"settle", "uncertain", counter, "Attempts whose verdict was never heard.", settle->uncertain},
        {"settle", "repeated", counter, "Outcomes that Redis had already.", settle->repeated},
        {"settle", "commits", counter, "Commits to Redis.", settle->commits},
        {"settle", "log_errors", counter, "Outcomes missing in the delivery log.", settle->log_errors},
        {"settle", "outstanding", gauge, "Outcomes that Redis has not confirmed yet.", shard_settle_outstanding(shard)},
        {"suppress", "ready", gauge, "1 while the filter is current and answers without Redis.", suppress_ready(shard->suppress)},
        {"suppress", "checked", counter, "Recipients looked for on the suppression lists.", suppress->checked},
        {"suppress", "asked", counter, "Questions to Redis about them.", suppress->asked},
        {"suppress", "suppressed", counter, "Recipients found on a list.", suppress->suppressed},
        {"suppress", "added", counter, "Addresses put on a list by replies.", suppress->added},
        {"suppress", "waiting", gauge, "Checks that wait for Redis.", suppress_waiting(shard->suppress)},
        {"suppress", "filter_entries", gauge, "Addresses in the filter.", suppress->filter_entries},
        {"suppress", "filter_bytes", gauge, "Memory of the filter.", suppress->filter_bytes},
        {"suppress", "load_ms", gauge, "How long the filter's last loading took.", suppress->load_ms},
        {"suppress", "dropped", counter, "Changes lost because too many waited for Redis.", suppress->dropped},
        {"sign", "rsa", counter, "Signatures made with RSA keys.", press.dkim.rsa},
        {"sign", "ed25519", counter, "Signatures made with Ed25519 keys.", press.dkim.ed25519},
        {"sign", "lanes", counter, "Signatures made eight at a time.", press.dkim.lanes},
        {"sign", "wolfssl", counter, "Signatures made one at a time.", press.dkim.wolfssl},
        {"sign", "flushes", counter, "Uses of the eight lanes, full or not.", press.dkim.flushes},
        {"sign", "part_flushes", counter, "Times that fewer than eight were signed because no others came in time.",
         press.dkim.part_flushes},
        {"sign", "faults", counter, "Signatures that did not verify, and were made again or not at all.", press.dkim.faults},
        {"sign", "body_bytes", counter, "Bytes of signed bodies.", press.dkim.body_bytes},
        {"sign", "body_bytes_hashed", counter, "Those of them that had not been hashed for other messages.", press.dkim.body_bytes_hashed},
        {"sign", "waiting", gauge, "Messages that wait for a rendering and signing thread.", press.waiting},
        {"sign", "threads", gauge, "Rendering and signing threads.", press.threads},
        {"guard", "suppressed", counter, "Addresses that replies suppressed.", guard->suppressed},
        {"guard", "held_suppressions", counter, "Suppressions held or taken back because a provider was not believed.",
         guard->held_suppressions},
        {"guard", "distrusted", counter, "Refusals that were deferred because they were not believed.", guard->distrusted},
        {"guard", "holds", counter, "Holds that the guard has set.", guard->holds},
        {"tls_reports", "sessions", counter, "Sessions under TLS as the domain's policies ask, of domains that want reports.",
         report->sessions},
        {"tls_reports", "failures", counter, "Failures counted for reports.", report->failures},
        {"tls_reports", "dropped", counter, "Failures not counted, too many kinds of one domain.", report->dropped},
        {"tls_reports", "mails", counter, "Reports mailed.", report->mails},
        {"tls_reports", "posts", counter, "Reports taken by HTTPS.", report->posts},
        {"tls_reports", "refused", counter, "Reports not taken by HTTPS.", report->refused},
        {"nodes", "alive", gauge, "Nodes that send from this Redis, this one included.", nodes_alive(shard->nodes)},
        {"nodes", "may_send", gauge, "1 while this node may start transactions.", nodes_may_send(shard->nodes)},
        {"nodes", "beats", counter, "Heartbeats that Redis answered.", nodes->beats},
        {"nodes", "fenced", counter, "Times that this node let go of its work because others may have it.", nodes->fenced},
        {"nodes", "taken_over_nodes", counter, "Dead nodes whose work this one took over.", nodes->taken_over_nodes},
        {"nodes", "taken_over_entries", counter, "Entries in it.", nodes->taken_over_entries},
        {"nodes", "leases_asked", counter, "Parts of shared limits asked for.", nodes->leases_asked},
        {"nodes", "leases_granted", counter, "Answers to that.", nodes->leases_granted},
    };
    enum { COUNT = sizeof(list) / sizeof(list[0]) };
    static_assert((int)COUNT <= (int)FIGURES_MAX, "the caller's array holds all");
    memcpy(figures, list, sizeof(list));
    return COUNT;
}

/* A text as JSON whatever bytes it holds: it may quote a peer. */
static json_t *text_json(const char *text) {
    char safe[ALARM_TEXT_BYTES * 6 + 16];
    json_text(safe, sizeof(safe), text);
    return json_loads(safe, JSON_DECODE_ANY, NULL);
}

static json_t *number_json(uint64_t number) {
    return json_integer((json_int_t)number);
}

static void alarm_append(void *context, const struct alarm *alarm) {
    json_array_append_new(context,
                          json_pack("{s:o,s:o,s:o,s:I,s:I,s:I}", "kind", text_json(alarm->kind), "subject", text_json(alarm->subject),
                                    "text", text_json(alarm->text), "since_ms", (json_int_t)alarm->since_ms, "last_ms",
                                    (json_int_t)alarm->last_ms, "times", (json_int_t)alarm->times));
}

static json_t *alarms_json(const struct alarms *alarms) {
    json_t *array = json_array();
    alarms_each(alarms, alarm_append, array);
    return array;
}

static char *json_take(json_t *json) {
    char *text = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    return text;
}

char *shard_alarms(struct shard *shard) {
    return json_take(alarms_json(shard->config.alarms));
}

/* What every answer has: whether things are up, the stages' counters, the alarms. */
static json_t *state_json(struct shard *shard) {
    static const char *const redis_states[] = {"down", "loading", "up"};
    struct figure figures[FIGURES_MAX];
    enum redis_state state = REDIS_UP;
    for (uint32_t i = 0; i < shard->queue_count; i++)
        if (redis_state(shard->queues[i].redis) < state)
            state = redis_state(shard->queues[i].redis);
    json_t *json = json_object();
    json_object_set_new(json, "uptime_seconds", number_json((now_us() - shard->started_us) / 1000000));
    json_object_set_new(json, "redis", json_string(redis_states[state]));
    json_object_set_new(json, "dataplane", json_boolean(dispatch_dataplane_up(shard->dispatch)));
    json_object_set_new(json, "draining", json_boolean(shard->draining));
    json_object_set_new(json, "alarms", alarms_json(shard->config.alarms));
    for (uint32_t i = 0, count = figures_list(shard, figures); i < count; i++) {
        if (json_object_get(json, figures[i].group) == NULL)
            json_object_set_new(json, figures[i].group, json_object());
        json_object_set_new(json_object_get(json, figures[i].group), figures[i].name, number_json(figures[i].value));
    }
    return json;
}

bool shard_status(struct shard *shard, char *text, size_t text_bytes) {
    bool redis = true, dataplane = dispatch_dataplane_up(shard->dispatch);
    uint64_t delivered = 0;
    for (uint32_t i = 0; i < shard->queue_count; i++) {
        redis = redis && redis_state(shard->queues[i].redis) == REDIS_UP;
        delivered += settle_counters(shard->queues[i].settle)->delivered;
    }
    uint32_t alarms = alarms_count(shard->config.alarms);
    snprintf(text, text_bytes, "%s%s%s, %llu delivered, %u on their way%s", shard->draining ? "draining, " : "",
             redis ? "Redis is there" : "waits for Redis", dataplane ? ", the dataplane too" : ", waits for the dataplane",
             (unsigned long long)delivered, dispatch_in_progress(shard->dispatch),
             alarms > 0 ? "; alarms are raised: `bypost alarms`" : "");
    return redis && dataplane;
}

char *shard_stats(struct shard *shard) {
    return json_take(state_json(shard));
}

static json_t *row_json(const struct tally_entry *entry) {
    json_t *row = json_object();
    json_object_set_new(row, "name", text_json(entry->name));
    for (unsigned i = 0; i < RESULTS; i++)
        json_object_set_new(row, figure_results[i], number_json(entry->counts[i]));
    return row;
}

/* Adds what waits, from the census, to the rows of the same names; those that wait without having been tried come behind. */
static void rows_add_waiting(json_t *rows, const struct census_row *census, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        json_t *row = NULL, *each;
        size_t index;
        json_array_foreach(rows, index, each) {
            if (strncmp(json_string_value(json_object_get(each, "name")), census[i].name, TALLY_NAME_BYTES - 1) == 0)
                row = each;
        }
        if (row == NULL) {
            row = json_object();
            json_object_set_new(row, "name", text_json(census[i].name));
            json_array_append_new(rows, row);
        }
        const struct {
            const char *key;
            uint64_t value;
        } values[] = {{"waiting", census[i].waiting},
                      {"outstanding", census[i].outstanding},
                      {"sessions", census[i].sessions},
                      {"resting", census[i].resting}};
        for (size_t j = 0; j < sizeof(values) / sizeof(values[0]); j++) /* a site has a row for each of its pools */
            json_object_set_new(row, values[j].key,
                                number_json(values[j].value + (uint64_t)json_integer_value(json_object_get(row, values[j].key))));
    }
}

static json_t *survey_json(const struct survey *survey, uint32_t shards) {
    struct survey sum = {0};
    json_t *queues = json_array();
    for (uint32_t s = 0; s < shards; s++) {
        sum.latency_us = survey[s].latency_us > sum.latency_us ? survey[s].latency_us : sum.latency_us;
        sum.depth += survey[s].depth;
        sum.dead_entries += survey[s].dead_entries;
        sum.event_entries += survey[s].event_entries;
        sum.events_trimmed += survey[s].events_trimmed;
        sum.campaigns = survey[s].campaigns > sum.campaigns ? survey[s].campaigns : sum.campaigns;
    }
    for (uint32_t i = 0; i < survey->queue_count; i++) { /* the first shard's; a campaign is on all */
        struct survey_queue queue = survey->queues[i];
        for (uint32_t s = 1; s < shards; s++)
            for (uint32_t j = 0; j < survey[s].queue_count; j++)
                if (strcmp(survey[s].queues[j].name, queue.name) == 0) {
                    queue.entries += survey[s].queues[j].entries;
                    queue.retry_entries += survey[s].queues[j].retry_entries;
                    for (unsigned f = 0; f < SURVEY_FIELDS; f++)
                        queue.fields[f] += survey[s].queues[j].fields[f];
                }
        const uint64_t *f = queue.fields;
        json_array_append_new(queues, json_pack("{s:o,s:o,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "name", text_json(queue.name), "state",
                                                text_json(queue.state), "entries", (json_int_t)queue.entries, "retry_entries",
                                                (json_int_t)queue.retry_entries, "submitted", (json_int_t)f[SURVEY_SUBMITTED], "delivered",
                                                (json_int_t)f[SURVEY_DELIVERED], "bounced", (json_int_t)f[SURVEY_BOUNCED], "retrying",
                                                (json_int_t)f[SURVEY_RETRYING], "parked", (json_int_t)f[SURVEY_PARKED], "held",
                                                (json_int_t)f[SURVEY_HELD]));
    }
    return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "latency_us", (json_int_t)sum.latency_us, "memory_bytes",
                     (json_int_t)survey->memory_bytes, "memory_max_bytes", (json_int_t)survey->memory_max_bytes, "depth",
                     (json_int_t)sum.depth, "dead", (json_int_t)sum.dead_entries, "events", (json_int_t)sum.event_entries, "events_trimmed",
                     (json_int_t)sum.events_trimmed, "campaigns", (json_int_t)sum.campaigns, "queues", queues);
}

char *shard_top(struct shard *shard) {
    static const char *const names[TALLIES] = {"sites", "providers", "classes", "tenants", "queues"};
    const struct figures *figures = shard->figures;
    json_t *json = state_json(shard);
    json_object_set_new(json, "time_ms", number_json(clock_ms(CLOCK_MONOTONIC)));
    json_object_set_new(json, "node", text_json(shard->config.config->node != NULL ? shard->config.config->node : ""));
    json_object_set_new(json, "version", json_string(BYPOST_VERSION));
    for (unsigned i = 0; i < TALLIES; i++) {
        const struct tally_entry *entries[TOP_ROWS];
        json_t *rows = json_array();
        for (uint32_t j = 0, count = tally_top(figures->tallies[i], entries, TOP_ROWS); j < count; j++)
            json_array_append_new(rows, row_json(entries[j]));
        json_object_set_new(json, names[i], rows);
    }
    const struct census_result *census = &figures->census.last;
    rows_add_waiting(json_object_get(json, names[TALLY_SITES]), census->sites, census->site_count);
    rows_add_waiting(json_object_get(json, names[TALLY_PROVIDERS]), census->providers, census->provider_count);
    json_object_set_new(json, "lanes", number_json(census->total.lanes));
    json_object_set_new(json, "lanes_resting", number_json(census->total.resting));
    json_object_set_new(json, "store", survey_json(figures->surveys, shard->queue_count));
    return json_take(json);
}
