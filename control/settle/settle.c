/* settle.c: gathers decided outcomes into commits, keeps several under way, and sends again what Redis may have lost. Settling twice
 * changes nothing. */
#include "settle.h"

#include "commit.h"
#include "decide.h"
#include "delivery_log.h"
#include "harvest.h"

#include "control/clock.h"
#include "control/observe/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum {
    GATHER_US = 2000, /* a commit waits so long for company */
    COMMITS_IN_FLIGHT = 8,
    KEEP_MS = 10000,           /* confirmed commits are kept so long: a failover loses at most the last second or two */
    KEEP_BYTES_MAX = 64 << 20, /* and no more than this */
    UPKEEP_MS = 500,
    FAILURE_PAUSE_MS = 1000,
    FAILURES_BEFORE_SPLIT = 2,    /* then each outcome travels by itself, so that one cannot hold up the others */
    EVENT_OVERHEAD_PERCENT = 120, /* what the stream adds (MEASURED: 700 bytes take 830 to 875) */
};

struct settle {
    struct settle_config config;
    char prefix[REDIS_KEY_MAX];
    struct commit *open; /* or NULL */
    struct commit_list ready, sent, done;
    uint32_t sent_count;
    size_t done_bytes;
    uint32_t outstanding;
    struct event *gather, *upkeep;
    struct harvest *harvest;
    struct text text;
    double event_bytes_average;
    uint64_t random;
    struct settle_counters counters;
};

static void settle_pump(struct settle *settle);

static uint32_t random_next(struct settle *settle) {
    settle->random = settle->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(settle->random >> 32);
}

/* --- commits --- */

/* The one place that changes a commit's state, and the lists with it. */
static void commit_enter(struct settle *settle, struct commit *commit, enum commit_state state) {
    switch (commit->state) {
    case COMMIT_OPEN:
        settle->open = settle->open == commit ? NULL : settle->open;
        break;
    case COMMIT_READY:
        TAILQ_REMOVE(&settle->ready, commit, link);
        break;
    case COMMIT_SENT:
        TAILQ_REMOVE(&settle->sent, commit, link);
        settle->sent_count--;
        break;
    case COMMIT_DONE:
        TAILQ_REMOVE(&settle->done, commit, link);
        settle->done_bytes -= commit->bytes;
        break;
    }
    commit->state = state;
    switch (state) {
    case COMMIT_OPEN:
        settle->open = commit;
        break;
    case COMMIT_READY:
        TAILQ_INSERT_TAIL(&settle->ready, commit, link);
        break;
    case COMMIT_SENT:
        TAILQ_INSERT_TAIL(&settle->sent, commit, link);
        settle->sent_count++;
        break;
    case COMMIT_DONE:
        TAILQ_INSERT_TAIL(&settle->done, commit, link);
        settle->done_bytes += commit->bytes;
        commit->done_ms = clock_ms(CLOCK_MONOTONIC);
        break;
    }
}

/* Older than the last word of a server that still serves. While it is away nothing grows old: it may load for minutes, and come back
 * without what it confirmed in its last second. */
static bool commit_is_old(const struct settle *settle, const struct commit *commit) {
    return redis_state(settle->config.redis) == REDIS_UP && redis_heard_ms(settle->config.redis) > commit->done_ms + KEEP_MS;
}

/* Forgets confirmed commits that are old, or too many. */
static void done_trim(struct settle *settle) {
    struct commit *commit;
    while ((commit = TAILQ_FIRST(&settle->done)) && (commit_is_old(settle, commit) || settle->done_bytes > KEEP_BYTES_MAX)) {
        TAILQ_REMOVE(&settle->done, commit, link);
        settle->done_bytes -= commit->bytes;
        commit_free(commit);
    }
}

/* Each outcome of a commit that fails again and again goes by itself. */
static void commit_split(struct settle *settle, struct commit *commit) {
    for (uint32_t i = commit->count; i > 1; i--) {
        struct commit *single = commit_create(settle);
        if (!single) {
            return;
        }
        single->items[0] = commit->items[i - 1];
        single->count = 1;
        single->bytes = sizeof single->items[0] + single->items[0].event_length;
        single->again = commit->again;
        single->failures = commit->failures;
        single->state = COMMIT_READY;
        TAILQ_INSERT_TAIL(&settle->ready, single, link);
        commit->count--;
        commit->bytes -= single->bytes < commit->bytes ? single->bytes : commit->bytes;
    }
}

static void commit_confirmed(struct settle *settle, struct commit *commit, const char *status) {
    for (uint32_t i = 0; i < commit->count && !commit->again; i++) {
        const struct commit_item *item = &commit->items[commit->order[i]];
        settle->counters.repeated += status[i] == 'R';
        settle->outstanding--;
        if (item->slot != SLOT_NONE && settle->config.committed) {
            settle->config.committed(settle->config.context, item->slot, item->slot_generation);
        }
    }
    settle->counters.commits++;
    commit->failures = 0;
    commit->again = false;
    commit_release_jobs(commit);
    commit_enter(settle, commit, COMMIT_DONE);
    TAILQ_REMOVE(&settle->done, commit, link);
    commit = commit_shrink(commit);
    TAILQ_INSERT_TAIL(&settle->done, commit, link);
    done_trim(settle);
}

static void on_committed(void *context, redisReply *reply) {
    struct commit *commit = context;
    struct settle *settle = commit->settle;
    if (!settle) {
        commit_free(commit); /* settle is gone */
        return;
    }
    if (reply && reply->type == REDIS_REPLY_STRING && reply->len == commit->count) {
        commit_confirmed(settle, commit, reply->str);
    } else {
        commit_enter(settle, commit, COMMIT_READY);
        if (reply) {
            const char *error = redis_error(reply);
            log_write(LOG_LEVEL_ERROR, "settle", "a commit of %" PRIu32 " outcomes failed and is sent again: %.200s", commit->count,
                      error ? error : "an answer of unknown shape");
            commit->not_before_ms = clock_ms(CLOCK_MONOTONIC) + FAILURE_PAUSE_MS;
            if (++commit->failures >= FAILURES_BEFORE_SPLIT) {
                commit_split(settle, commit);
            }
        }
    }
    settle_pump(settle);
}

/* How many events the stream may hold, by the size of late ones. */
static uint64_t events_maximum(const struct settle *settle) {
    double bytes = settle->event_bytes_average * EVENT_OVERHEAD_PERCENT / 100;
    return (uint64_t)((double)settle->config.config->events.max_bytes / (bytes < 64 ? 64 : bytes));
}

static bool commit_try(struct settle *settle, struct commit *commit) {
    if (commit_send(commit, settle->config.redis, settle->prefix, events_maximum(settle), on_committed) != 0) {
        return false;
    }
    commit_enter(settle, commit, COMMIT_SENT);
    return true;
}

static void settle_pump(struct settle *settle) {
    uint64_t now = 0;
    struct commit *commit = TAILQ_FIRST(&settle->ready);
    while (commit && settle->sent_count < COMMITS_IN_FLIGHT) {
        struct commit *next = TAILQ_NEXT(commit, link);
        if (commit->not_before_ms == 0 || commit->not_before_ms <= (now = now ? now : clock_ms(CLOCK_MONOTONIC))) {
            if (!commit_try(settle, commit)) {
                return;
            }
        }
        commit = next;
    }
}

static void open_close(struct settle *settle) {
    if (settle->open) {
        evtimer_del(settle->gather);
        commit_enter(settle, settle->open, COMMIT_READY);
        settle_pump(settle);
    }
}

/* --- outcomes --- */

static void count_event(struct settle_counters *counters, const struct settle_item *item, const struct decision *decision) {
    counters->uncertain += item->outcome.kind == OUTCOME_UNCERTAIN;
    switch (decision->action) {
    case ACTION_DELIVERED:
        counters->delivered++;
        break;
    case ACTION_DEFERRED:
    case ACTION_HELD:
        counters->deferred++;
        break;
    case ACTION_BOUNCED:
        counters->bounced++;
        break;
    case ACTION_EXPIRED:
        counters->expired++;
        break;
    case ACTION_SUPPRESSED:
        counters->suppressed++;
        break;
    case ACTION_CANCELLED:
        counters->cancelled++;
        break;
    case ACTION_RETURNED:
        counters->returned++;
        break;
    }
}

/* The record of the attempt: into the delivery log, and, when its type is asked for, as the commit's event. */
static void record(struct settle *settle, const struct settle_item *item, struct job *job, const struct decision *decision, bool logged,
                   struct commit_item *out) {
    const struct config *config = settle->config.config;
    bool wanted = config->events.type_mask >> decision->event & 1;
    if (decision->action == ACTION_RETURNED || (!wanted && !(settle->config.log && logged))) {
        return;
    }
    event_write(&settle->text, item, job, decision, config);
    if (settle->text.failed) {
        text_free(&settle->text);
        settle->counters.log_errors++;
        return;
    }
    if (settle->config.log && logged) {
        delivery_log_write(settle->config.log, settle->text.bytes, settle->text.length);
    }
    if (wanted && (out->event = malloc(settle->text.length))) {
        memcpy(out->event, settle->text.bytes, settle->text.length);
        out->event_length = settle->text.length;
        settle->event_bytes_average += ((double)out->event_length - settle->event_bytes_average) / 64;
    }
}

/* Decides and puts the outcome into the open commit. */
static void outcome_add(struct settle *settle, const struct settle_item *item, struct job *job, bool logged) {
    struct decision decision;
    decide(item, job, settle->config.config, clock_ms(CLOCK_REALTIME), random_next(settle), &decision);
    count_event(&settle->counters, item, &decision);
    if (!settle->open) {
        struct commit *commit = commit_create(settle);
        if (!commit) {
            /* Going on would lose it: its entry would be read again and sent a second time. The next start has it from its slot. */
            log_write(LOG_LEVEL_ERROR, "settle", "out of memory: ending, so that the next start settles what the slots hold");
            abort();
        }
        settle->open = commit;
        struct timeval after = {.tv_usec = GATHER_US};
        event_add(settle->gather, &after);
    }
    struct commit *commit = settle->open;
    struct commit_item *out = &commit->items[commit->count++];
    const struct settle_cookie *cookie = &item->cookie;
    *out = (struct commit_item){.entry = cookie->entry,
                                .entry_pending = cookie->entry_pending,
                                .index = cookie->index,
                                .action = decision.action,
                                .bucket_ms = decision.next_attempt_ms,
                                .job = job,
                                .slot = item->slot,
                                .slot_generation = item->slot_generation};
    snprintf(out->queue, sizeof out->queue, "%.47s", cookie->queue);
    snprintf(out->stream, sizeof out->stream, "%s%.47s", cookie->is_retry ? "retry:" : "", cookie->queue);
    history_head_write(&decision.history, out->head);
    record(settle, item, job, &decision, logged, out);
    if (job) {
        job_hold(job);
    }
    commit->bytes += sizeof *out + out->event_length;
    if (commit->count == COMMIT_ITEMS_MAX || commit->bytes >= COMMIT_BYTES_MAX) {
        open_close(settle);
    }
}

/* A harvested outcome with its job. Of an entry that is gone the attempt was logged when it was settled. */
static void on_harvested(void *context, const struct settle_item *item, struct job *job, bool gone) {
    outcome_add(context, item, job, !gone);
}

void settle_add(struct settle *settle, const struct settle_item *item) {
    settle->outstanding++;
    if (item->job) {
        outcome_add(settle, item, item->job, true);
    } else if (harvest_add(settle->harvest, item) != 0) {
        outcome_add(settle, item, NULL, true);
    }
}

void settle_flush(struct settle *settle) {
    open_close(settle);
    settle_pump(settle);
    if (settle->config.log) {
        delivery_log_flush(settle->config.log);
    }
}

uint32_t settle_outstanding(const struct settle *settle) {
    return settle->outstanding;
}

/* --- life --- */

static void on_gather(evutil_socket_t fd, short what, void *context) {
    open_close(context);
}

static void on_upkeep(evutil_socket_t fd, short what, void *context) {
    struct settle *settle = context;
    done_trim(settle);
    settle_pump(settle);
    harvest_pump(settle->harvest);
    if (settle->config.log) {
        delivery_log_flush(settle->config.log);
    }
}

static void on_up(void *context, bool run_id_changed) {
    struct settle *settle = context;
    if (run_id_changed && !TAILQ_EMPTY(&settle->done)) {
        uint32_t commits = 0;
        struct commit *last = TAILQ_LAST(&settle->done, commit_list), *commit;
        /* All at once and before anything else: what is read from the queues afterwards must not show as unsettled what was settled. */
        do {
            commit = TAILQ_FIRST(&settle->done);
            commit->again = true;
            commits++;
            if (!commit_try(settle, commit)) {
                break;
            }
        } while (commit != last);
        log_write(LOG_LEVEL_WARNING, "settle", "Redis was restarted or replaced: %" PRIu32 " commits of the last seconds are sent again",
                  commits);
    }
    /* Likewise what was under way when the connection went, whatever the window. */
    struct commit *commit, *next;
    for (commit = TAILQ_FIRST(&settle->ready); commit; commit = next) {
        next = TAILQ_NEXT(commit, link);
        if (commit->failures == 0 && !commit_try(settle, commit)) {
            break;
        }
    }
    settle_pump(settle);
    harvest_pump(settle->harvest);
}

struct settle *settle_create(const struct settle_config *config, char *error, size_t error_bytes) {
    struct settle *settle = calloc(1, sizeof *settle);
    if (!settle) {
        snprintf(error, error_bytes, "out of memory");
        return NULL;
    }
    settle->config = *config;
    settle->event_bytes_average = 700;
    TAILQ_INIT(&settle->ready);
    TAILQ_INIT(&settle->sent);
    TAILQ_INIT(&settle->done);
    redis_shard_prefix(config->config, config->shard, settle->prefix);
    if (getrandom(&settle->random, sizeof settle->random, GRND_NONBLOCK) != sizeof settle->random) {
        settle->random = clock_ms(CLOCK_REALTIME);
    }
    settle->gather = evtimer_new(config->base, on_gather, settle);
    settle->upkeep = event_new(config->base, -1, EV_PERSIST, on_upkeep, settle);
    settle->harvest = harvest_create(config, on_harvested, settle);
    struct redis_events events = {.up = on_up, .context = settle};
    if (!settle->gather || !settle->upkeep || !settle->harvest || redis_listen(config->redis, &events) != 0) {
        snprintf(error, error_bytes, "out of memory");
        settle_destroy(settle);
        return NULL;
    }
    struct timeval every = {.tv_usec = UPKEEP_MS * 1000};
    event_add(settle->upkeep, &every);
    return settle;
}

static void commits_free(struct commit_list *list) {
    struct commit *commit;
    while ((commit = TAILQ_FIRST(list))) {
        TAILQ_REMOVE(list, commit, link);
        commit_free(commit);
    }
}

void settle_destroy(struct settle *settle) {
    if (!settle) {
        return;
    }
    struct commit *commit;
    redis_ignore(settle->config.redis, settle);
    TAILQ_FOREACH (commit, &settle->sent, link) {
        commit->settle = NULL; /* freed with its answer */
        commit_release_jobs(commit);
    }
    commits_free(&settle->ready);
    commits_free(&settle->done);
    if (settle->open) {
        commit_free(settle->open);
    }
    harvest_destroy(settle->harvest);
    if (settle->gather) {
        event_free(settle->gather);
    }
    if (settle->upkeep) {
        event_free(settle->upkeep);
    }
    text_free(&settle->text);
    free(settle);
}

void settle_reconfigure(struct settle *settle, const struct config *config) {
    settle->config.config = config;
    harvest_reconfigure(settle->harvest, config);
}

const struct settle_counters *settle_counters(const struct settle *settle) {
    return &settle->counters;
}
