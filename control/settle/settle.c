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
    GATHER_US = 2000,      /* a commit waits so long for company, */
    GATHER_BUSY_US = 5000, /* and so long while others are under way */
    COMMITS_IN_FLIGHT = 8,
    KEEP_MS = 10000,           /* confirmed commits are kept so long: a failover loses at most the last second or two */
    KEEP_BYTES_MAX = 64 << 20, /* and no more than this: events go first, then what is oldest */
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
    struct commit *eventful; /* of `done`: the oldest that still has its events, or NULL */
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

static uint64_t mix(uint64_t state, uint64_t value) {
    state = (state ^ value) * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return state ^ state >> 29;
}

/* The jitter of what should come back together is the same: one entry's recipients at one site; a site that rests, whole. */
static uint32_t jitter(const struct settle *settle, const struct settle_item *item) {
    uint64_t state = settle->random;
    for (const char *c = item->site ? item->site : ""; *c; c++) {
        state = mix(state, (uint8_t)*c);
    }
    if (!item->classification.unattempted) {
        state = mix(mix(mix(state, item->cookie.entry.ms), item->cookie.entry.seq), item->cookie.attempt);
    }
    return (uint32_t)(mix(state, 0) >> 32);
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
        settle->eventful = settle->eventful == commit ? TAILQ_NEXT(commit, link) : settle->eventful;
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
        settle->eventful = settle->eventful ? settle->eventful : commit;
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

static void done_forget(struct settle *settle, struct commit *commit) {
    settle->eventful = settle->eventful == commit ? TAILQ_NEXT(commit, link) : settle->eventful;
    TAILQ_REMOVE(&settle->done, commit, link);
    settle->done_bytes -= commit->bytes;
    commit_free(commit);
}

/* Forgets confirmed commits that are old. Of too many the events go first, from the oldest on: without them each is still settled. */
static void done_trim(struct settle *settle) {
    struct commit *commit;
    while ((commit = TAILQ_FIRST(&settle->done)) && commit_is_old(settle, commit)) {
        done_forget(settle, commit);
    }
    while (settle->done_bytes > KEEP_BYTES_MAX && (commit = settle->eventful)) {
        settle->done_bytes -= commit->bytes;
        commit_drop_events(commit);
        settle->done_bytes += commit->bytes;
        settle->eventful = TAILQ_NEXT(commit, link);
    }
    while (settle->done_bytes > KEEP_BYTES_MAX && (commit = TAILQ_FIRST(&settle->done))) {
        done_forget(settle, commit);
    }
}

/* Moves an outcome, with all that it holds, into a commit that is ready. */
static void item_move(struct settle *settle, struct commit *to, struct commit_item *item) {
    to->items[to->count++] = *item;
    *item = (struct commit_item){.slot = SLOT_NONE};
    if (to->count == 1) {
        to->state = COMMIT_READY;
        TAILQ_INSERT_TAIL(&settle->ready, to, link);
    }
}

/* Each outcome of a commit that fails again and again goes by itself. One that is sent a second time has nothing to split. */
static void commit_split(struct settle *settle, struct commit *commit) {
    for (uint32_t i = commit->count; i > 1; i--) {
        struct commit *single = commit_create(settle);
        if (!single) {
            break;
        }
        item_move(settle, single, &commit->items[i - 1]);
        single->failures = commit->failures;
        commit->count--;
    }
    if (commit->count > 0) {
        text_free(&commit->packed);
        text_free(&commit->events);
    }
}

/* What is to come again by itself: its group's text is that of all of them, of which some were settled before. False without memory. */
static bool commit_again(struct settle *settle, struct commit *commit, const char *status) {
    struct commit *apart = NULL;
    for (uint32_t i = 0; i < commit->count; i++) {
        struct commit_item *item = &commit->items[commit->order[i]];
        if (status[i] == 'A' && (item->job || !item->wait)) {
            if (!apart && !(apart = commit_create(settle))) {
                return false;
            }
            apart->not_before_ms = item->alone ? clock_ms(CLOCK_MONOTONIC) + FAILURE_PAUSE_MS : 0;
            item->alone = true;
            item_move(settle, apart, item);
        }
    }
    return true;
}

static void commit_confirmed(struct settle *settle, struct commit *commit, const char *status) {
    bool refused = false;
    for (uint32_t i = 0; i < commit->count; i++) {
        const struct commit_item *item = &commit->items[commit->order[i]];
        if (status[i] == 'A' && item->queue[0] == 0) {
            continue; /* on its way again */
        }
        settle->counters.repeated += status[i] == 'R';
        settle->counters.refused += status[i] == 'F';
        refused |= status[i] == 'F';
        settle->outstanding--;
        if (item->slot != SLOT_NONE && settle->config.committed) {
            settle->config.committed(settle->config.context, item->slot, item->slot_generation);
        }
    }
    settle->counters.commits++;
    commit->failures = 0;
    commit->again = false;
    /* It is in no list while it may move. */
    TAILQ_REMOVE(&settle->sent, commit, link);
    settle->sent_count--;
    commit = commit_shrink(commit);
    commit->state = COMMIT_OPEN;
    commit_enter(settle, commit, COMMIT_DONE);
    done_trim(settle);
    if (refused && settle->config.fenced) {
        settle->config.fenced(settle->config.context, settle->config.shard);
    }
}

static void on_committed(void *context, redisReply *reply) {
    struct commit *commit = context;
    struct settle *settle = commit->settle;
    if (!settle) {
        commit_free(commit); /* settle is gone */
        return;
    }
    if (reply && reply->type == REDIS_REPLY_STRING && (commit->again || reply->len == commit->count) &&
        commit_again(settle, commit, reply->str)) {
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
    struct commit_terms terms = {.prefix = settle->prefix,
                                 .node = settle->config.config->node,
                                 .epoch = settle->config.epoch ? settle->config.epoch(settle->config.context, settle->config.shard) : 0,
                                 .events_maximum = events_maximum(settle)};
    if (commit_send(commit, settle->config.redis, &terms, on_committed) != 0) {
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
        counters->deferred++;
        break;
    case ACTION_HELD:
        counters->held++;
        counters->deferred += decision->event == EVENT_DEFERRED;
        break;
    case ACTION_PARKED:
        counters->parked++;
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
    bool wanted = decision->event < EVENT_TYPES && config->events.type_mask >> decision->event & 1;
    if (decision->event == EVENT_TYPES || (!wanted && !(settle->config.log && logged))) {
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

/* A name as one word of a record: "-" when there is none. */
static void tail_word(char *out, size_t bytes, const char *name) {
    snprintf(out, bytes, "%s", name && *name ? name : "-");
    for (char *c = out; *c; c++) {
        *c = (unsigned char)*c <= ' ' || *c == 127 ? '_' : *c;
    }
}

static struct commit_wait *wait_create(const struct settle_item *item, const struct decision *decision) {
    char site[WAIT_NAME_BYTES], class[64], provider[WAIT_NAME_BYTES], tail[sizeof site + sizeof class + sizeof provider + 2];
    bool classed = item->classification.class != CLASS_NONE && decision->action != ACTION_RETURNED;
    tail_word(site, sizeof site, item->site && *item->site ? item->site : decision->action == ACTION_PARKED ? item->waits_for : NULL);
    tail_word(class, sizeof class, classed ? reply_class_text(item->classification.class) : NULL);
    tail_word(provider, sizeof provider, item->provider);
    int length = snprintf(tail, sizeof tail, "%s %s %s", site, class, provider);
    struct commit_wait *wait = malloc(sizeof *wait + (size_t)length + 1);
    if (wait) {
        wait->ms = decision->next_attempt_ms;
        wait->history = decision->history;
        bool names = decision->action == ACTION_PARKED || decision->action == ACTION_HELD;
        snprintf(wait->where, sizeof wait->where, "%s", names && item->waits_for ? item->waits_for : "");
        memcpy(wait->tail, tail, (size_t)length + 1);
    }
    return wait;
}

/* The notice of this outcome, when its job asks for one. */
static void notice_add(struct settle *settle, const struct settle_item *item, struct job *job, struct decision *decision,
                       struct commit_item *out) {
    if (!settle->config.notice || !job || job->dsn == 0 || decision->event == EVENT_TYPES) {
        return;
    }
    struct settle_item whole = *item;
    whole.job = job;
    out->notice = settle->config.notice(settle->config.context, &whole, decision->event, decision->next_attempt_ms, &out->notice_length);
    decision->history.notified |= out->notice && decision->event == EVENT_DEFERRED;
}

static _Noreturn void memory_out(void) {
    /* Going on would lose it: its entry would be read again and sent a second time. The next start has it from its slot. */
    log_write(LOG_LEVEL_ERROR, "settle", "out of memory: ending, so that the next start settles what the slots hold");
    abort();
}

/* Decides and puts the outcome into the open commit. */
static void outcome_add(struct settle *settle, const struct settle_item *item, struct job *job, bool logged) {
    struct decision decision;
    decide(item, job, settle->config.config, clock_ms(CLOCK_REALTIME), jitter(settle, item), &decision);
    count_event(&settle->counters, item, &decision);
    if (!settle->open) {
        settle->open = commit_create(settle);
        if (!settle->open) {
            memory_out();
        }
        struct timeval after = {.tv_usec = settle->sent_count > 0 ? GATHER_BUSY_US : GATHER_US};
        event_add(settle->gather, &after);
    }
    struct commit *commit = settle->open;
    struct commit_item *out = &commit->items[commit->count++];
    const struct settle_cookie *cookie = &item->cookie;
    *out = (struct commit_item){.entry = cookie->entry,
                                .entry_pending = cookie->entry_pending,
                                .index = cookie->index,
                                .is_retry = cookie->is_retry != 0,
                                .action = decision.action,
                                .job = job,
                                .slot = item->slot,
                                .slot_generation = item->slot_generation};
    memcpy(out->queue, cookie->queue, sizeof out->queue);
    out->queue[sizeof out->queue - 1] = '\0';
    notice_add(settle, item, job, &decision, out);
    if (action_waits(decision.action) && !(out->wait = wait_create(item, &decision))) {
        memory_out();
    }
    record(settle, item, job, &decision, logged, out);
    if (job) {
        job_hold(job);
    }
    commit->bytes += sizeof *out + out->event_length + out->notice_length;
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
        for (uint32_t i = 0; i < commit->count; i++) {
            job_release(commit->items[i].job);
            commit->items[i].job = NULL;
        }
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
