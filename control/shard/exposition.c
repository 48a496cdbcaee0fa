/* exposition.c: everything that is counted, as a page for Prometheus. Bounded whatever the number of sites: names past the busiest are one.
 */
#include "state.h"

#include <bypost/journal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Journal counters that are not named as Prometheus names units, and those that go down. */
static const struct worker_name {
    const char *counter, *metric;
    bool gauge;
} worker_names[] = {
    {"frames_in", "received_frames", false},
    {"frames_out", "sent_frames", false},
    {"bytes_in", "received_bytes", false},
    {"bytes_out", "sent_bytes", false},
    {"message_bytes", "delivered_bytes", false},
    {"tcp_connections", NULL, true},
    {"sessions_open", NULL, true},
    {"sessions_ready", NULL, true},
    {"tls_sessions", NULL, true},
    {"tls_memory_bytes", NULL, true},
};

static void write_workers(const struct shard *shard, struct metrics_page *page) {
    static const struct {
        const char *name, *help;
        size_t offset;
    } counters[] = {
#define X(field, text) {#field, text, offsetof(struct counters, field)},
        BYPOST_COUNTERS(X)
#undef X
    };
    const struct journal *journal = shard->config.journal;
    for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++) {
        const char *metric = counters[i].name;
        bool gauge = false;
        for (size_t j = 0; j < sizeof(worker_names) / sizeof(worker_names[0]); j++)
            if (strcmp(worker_names[j].counter, counters[i].name) == 0) {
                metric = worker_names[j].metric != NULL ? worker_names[j].metric : metric;
                gauge = worker_names[j].gauge;
            }
        char name[96], help[160], worker[16];
        snprintf(name, sizeof(name), "bypost_worker_%s", metric);
        snprintf(help, sizeof(help), "Of each worker: %s.", counters[i].help);
        metrics_family(page, gauge ? METRIC_GAUGE : METRIC_COUNTER, name, help);
        for (uint32_t w = 0; w < journal->geometry.workers && w < JOURNAL_WORKERS_MAX; w++) {
            snprintf(worker, sizeof(worker), "%u", w);
            metrics_sample(page,
                           (double)counter_get((const _Atomic uint64_t *)((const char *)journal_counters(journal, w) + counters[i].offset)),
                           "worker", worker, NULL);
        }
    }
}

/* Prometheus wants base units: what is counted in ms is told in seconds. */
static void write_stages(const struct shard *shard, struct metrics_page *page) {
    struct figure figures[FIGURES_MAX];
    for (uint32_t i = 0, count = figures_list(shard, figures); i < count; i++) {
        char name[96];
        int length = snprintf(name, sizeof(name), "bypost_%s_%s", figures[i].group, figures[i].name);
        bool ms = length > 3 && strcmp(name + length - 3, "_ms") == 0;
        if (ms)
            snprintf(name + length - 3, sizeof(name) - (size_t)length + 3, "_seconds");
        metrics_one(page, figures[i].type, name, figures[i].help, (double)figures[i].value / (ms ? 1000 : 1));
    }
}

static void write_tallies(const struct figures *figures, struct metrics_page *page) {
    for (unsigned t = 0; t < TALLIES; t++) {
        const struct tally_entry *entries[TALLY_LABELS_MAX];
        uint32_t count = tally_labelled(figures->tallies[t], entries);
        char name[96], help[200];
        snprintf(name, sizeof(name), "bypost_%s_outcomes", figure_tallies[t]);
        snprintf(help, sizeof(help),
                 "Ends of attempts by %s: the busiest %d, and the others as one. A series begins when its %s becomes busy.",
                 figure_tallies[t], TALLY_LABELS_MAX, figure_tallies[t]);
        metrics_family(page, METRIC_COUNTER, name, help);
        for (unsigned r = 0; r < RESULTS; r++) {
            if (t == TALLY_CLASSES && r == RESULT_DELIVERED)
                continue;
            for (uint32_t i = 0; i < count; i++)
                metrics_sample(page, (double)entries[i]->shown[r], figure_tallies[t], entries[i]->name, "result", figure_results[r], NULL);
            metrics_sample(page, (double)tally_others(figures->tallies[t])[r], figure_tallies[t], "other", "result", figure_results[r],
                           NULL);
        }
    }
}

static double census_value(const struct census_row *row, unsigned what) {
    return what == 0 ? (double)row->waiting : what == 1 ? (double)row->outstanding : (double)row->sessions;
}

static void write_census(const struct figures *figures, struct metrics_page *page) {
    static const struct {
        const char *name, *help;
    } whats[] = {{"waiting_recipients", "Recipients in control that wait"},
                 {"outstanding_recipients", "Recipients being attempted"},
                 {"allowed_sessions", "Sessions that the workers may open"}};
    const struct census_result *census = &figures->census.last;
    char name[96], help[160];
    metrics_one(page, METRIC_GAUGE, "bypost_lanes", "Sites in use, each from each pool.", census->total.lanes);
    metrics_one(page, METRIC_GAUGE, "bypost_resting_lanes", "Of them, those with waiting recipients that may open no session now.",
                census->total.resting);
    for (unsigned what = 0; what < sizeof(whats) / sizeof(whats[0]); what++) {
        double rest = census_value(&census->total, what);
        snprintf(name, sizeof(name), "bypost_site_%s", whats[what].name);
        snprintf(help, sizeof(help), "%s, by site and pool: the %d with the most waiting, and the others as one.", whats[what].help,
                 CENSUS_SITES_MAX);
        metrics_family(page, METRIC_GAUGE, name, help);
        for (uint32_t i = 0; i < census->site_count; i++) {
            rest -= census_value(&census->sites[i], what);
            metrics_sample(page, census_value(&census->sites[i], what), "site", census->sites[i].name, "pool", census->sites[i].pool, NULL);
        }
        metrics_sample(page, rest > 0 ? rest : 0, "site", "other", "pool", "", NULL);
        snprintf(name, sizeof(name), "bypost_provider_%s", whats[what].name);
        snprintf(help, sizeof(help), "%s, by provider; other: sites without one.", whats[what].help);
        metrics_family(page, METRIC_GAUGE, name, help);
        for (uint32_t i = 0; i < census->provider_count; i++)
            metrics_sample(page, census_value(&census->providers[i], what), "provider", census->providers[i].name, NULL);
        metrics_sample(page, census_value(&census->others, what), "provider", "other", NULL);
    }
}

static const struct {
    const char *name, *help;
    size_t offset;
    enum metric_type type;
} redis_figures[] = {
    {"bypost_redis_latency_seconds", "How long the last PING took.", offsetof(struct survey, latency_us), METRIC_GAUGE},
    {"bypost_redis_memory_bytes", "Memory that Redis uses.", offsetof(struct survey, memory_bytes), METRIC_GAUGE},
    {"bypost_redis_memory_max_bytes", "Its maxmemory; 0: none.", offsetof(struct survey, memory_max_bytes), METRIC_GAUGE},
    {"bypost_depth_recipients", "Recipients submitted and not final, all queues and nodes.", offsetof(struct survey, depth), METRIC_GAUGE},
    {"bypost_events_trimmed", "Events dropped from the stream because nobody read them in time.", offsetof(struct survey, events_trimmed),
     METRIC_COUNTER},
    {"bypost_event_entries", "Entries of the stream of events.", offsetof(struct survey, event_entries), METRIC_GAUGE},
    {"bypost_dead_entries", "Jobs that could not be understood, in the stream of dead letters.", offsetof(struct survey, dead_entries),
     METRIC_GAUGE},
    {"bypost_due_lists", "Times at which something waits.", offsetof(struct survey, due_lists), METRIC_GAUGE},
    {"bypost_parked_lists", "Sites and queues for which recipients are parked in Redis.", offsetof(struct survey, parked_lists),
     METRIC_GAUGE},
    {"bypost_campaigns", "Campaigns known.", offsetof(struct survey, campaigns), METRIC_GAUGE},
};

static void write_queue_fields(const struct shard *shard, struct metrics_page *page) {
    static const struct {
        const char *name;
        enum survey_field field;
    } reasons[] = {{"retrying", SURVEY_RETRYING}, {"parked", SURVEY_PARKED}, {"held", SURVEY_HELD}};
    char index[16];
    metrics_family(page, METRIC_GAUGE, "bypost_queue_entries",
                   "Entries of a queue's streams in Redis, all nodes: high, normal, bulk and the newest campaigns. A chunk of up to 500 "
                   "recipients is one.");
    for (uint32_t s = 0; s < shard->queue_count; s++) {
        const struct survey *survey = &shard->figures->surveys[s];
        snprintf(index, sizeof(index), "%u", s);
        for (uint32_t i = 0; i < survey->queue_count; i++) {
            metrics_sample(page, (double)survey->queues[i].entries, "shard", index, "queue", survey->queues[i].name, "stream", "fresh",
                           NULL);
            metrics_sample(page, (double)survey->queues[i].retry_entries, "shard", index, "queue", survey->queues[i].name, "stream",
                           "retry", NULL);
        }
    }
    metrics_family(page, METRIC_GAUGE, "bypost_queue_waiting_recipients", "Recipients that wait in Redis, by why.");
    for (uint32_t s = 0; s < shard->queue_count; s++) {
        const struct survey *survey = &shard->figures->surveys[s];
        snprintf(index, sizeof(index), "%u", s);
        for (uint32_t i = 0; i < survey->queue_count; i++)
            for (size_t r = 0; r < sizeof(reasons) / sizeof(reasons[0]); r++)
                metrics_sample(page, (double)survey->queues[i].fields[reasons[r].field], "shard", index, "queue", survey->queues[i].name,
                               "reason", reasons[r].name, NULL);
    }
}

static void write_redis(const struct shard *shard, struct metrics_page *page) {
    char index[16];
    metrics_family(page, METRIC_GAUGE, "bypost_redis_up", "1: Redis serves this shard of the queue.");
    for (uint32_t s = 0; s < shard->queue_count; s++) {
        snprintf(index, sizeof(index), "%u", s);
        metrics_sample(page, redis_state(shard->queues[s].redis) == REDIS_UP, "shard", index, NULL);
    }
    for (size_t i = 0; i < sizeof(redis_figures) / sizeof(redis_figures[0]); i++) {
        metrics_family(page, redis_figures[i].type, redis_figures[i].name, redis_figures[i].help);
        for (uint32_t s = 0; s < shard->queue_count; s++) {
            uint64_t value;
            memcpy(&value, (const char *)&shard->figures->surveys[s] + redis_figures[i].offset, sizeof(value));
            snprintf(index, sizeof(index), "%u", s);
            metrics_sample(page, i == 0 ? (double)value / 1e6 : (double)value, "shard", index, NULL);
        }
    }
    write_queue_fields(shard, page);
}

static void write_alarm(void *context, const struct alarm *alarm) {
    metrics_sample(context, 1, "kind", alarm->kind, "subject", alarm->subject, NULL);
}

/* Resident memory, from the kernel's word; 0 when it says nothing. */
static double resident_bytes(void) {
    unsigned long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file != NULL && fscanf(file, "%lu %lu", &size, &resident) != 2)
        resident = 0;
    if (file != NULL)
        fclose(file);
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

static void write_process(const struct shard *shard, struct metrics_page *page) {
    const char *node = shard->config.config->node;
    metrics_family(page, METRIC_GAUGE, "bypost_build_info", "1, with the version and the name of this node.");
    metrics_sample(page, 1, "version", BYPOST_VERSION, "node", node != NULL ? node : "", NULL);
    metrics_one(page, METRIC_GAUGE, "bypost_uptime_seconds", "Since control started.", (double)((now_us() - shard->started_us) / 1000000));
    metrics_one(page, METRIC_GAUGE, "bypost_resident_memory_bytes", "Memory of control.", resident_bytes());
    metrics_one(page, METRIC_GAUGE, "bypost_jobs_memory_bytes", "Of it, the jobs that it holds.", (double)shard_fetch_bytes(shard));
    metrics_one(page, METRIC_GAUGE, "bypost_dataplane_up", "1: control is connected to a dataplane.",
                dispatch_dataplane_up(shard->dispatch));
    metrics_one(page, METRIC_GAUGE, "bypost_draining", "1: stopping, nothing new is taken.", shard->draining);
    metrics_one(page, METRIC_GAUGE, "bypost_sandbox", "1: only reserved test domains and relays are contacted.",
                shard->config.config->sandbox);
    metrics_family(page, METRIC_GAUGE, "bypost_alarm", "1 for each alarm that is raised; `bypost alarms` says what mends it.");
    alarms_each(shard->config.alarms, write_alarm, page);
}

void shard_metrics(struct shard *shard, struct metrics_page *page) {
    const struct figures *figures = shard->figures;
    write_process(shard, page);
    write_stages(shard, page);
    write_tallies(figures, page);
    write_census(figures, page);
    metrics_family(page, METRIC_HISTOGRAM, "bypost_delivery_latency_seconds", "From the first time in the queue to the receiver's 250.");
    metrics_histogram(page, &figures->delivery[0], "priority", "normal");
    metrics_histogram(page, &figures->delivery[1], "priority", "high");
    metrics_family(page, METRIC_HISTOGRAM, "bypost_route_lookup_seconds",
                   "From a recipient's domain to its site, cached answers included.");
    metrics_histogram(page, &figures->lookup, NULL, NULL);
    metrics_family(page, METRIC_HISTOGRAM, "bypost_redis_ping_seconds", "A PING each second.");
    metrics_histogram(page, &figures->redis, NULL, NULL);
    write_redis(shard, page);
    write_workers(shard, page);
}
