/* queue_probe.c: fetch and settle on an event loop with a sender that sends nothing: each recipient's outcome follows from its local part.
 * For tests/integration/test_queue. Also `--decode`: one job a line on stdin, "ok ..." or the reason a line on stdout. */
#include "control/fetch/fetch.h"
#include "control/observe/log.h"
#include "control/settle/settle.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

enum {
    SETTLE_AHEAD = 20000, /* outcomes that wait for Redis at a time */
    QUIET_US = 200000,    /* without a job for so long all are fetched */
};

/* A recipient that is being "sent". */
struct sending {
    TAILQ_ENTRY(sending) link;
    struct job *job;
    uint32_t index;
    uint64_t due_us;
};
TAILQ_HEAD(sending_list, sending);

struct probe {
    struct event_base *base;
    struct config config;
    struct config_queue queues[1];
    struct redis *redis;
    struct fetch *fetch;
    struct settle *settle;
    struct sending_list sendings;
    uint32_t room, reserve, held, scatter;
    uint64_t delay_us, committed, jobs, started_us, last_us, idle_ms, epoch, read_epoch, fenced;
    bool verbose, twice, forget, deaf, going;
};

static uint64_t clock_us(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static bool begins(const char *text, const char *prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* delivered unless the address says otherwise: bounce, suppress, defer (always), defer2 (twice), greylist, uncertain (once), return (once),
 * hold (always), hold1 (once); stop (by hold h1) and park once. */
static void outcome_of(const struct sending *sending, struct settle_item *item) {
    const struct job *job = sending->job;
    const char *email = job_recipient(job, sending->index)->mailbox.email;
    uint16_t attempt = job->history.attempt;
    struct outcome *outcome = &item->outcome;
    struct classification *class = &item->classification;
    *outcome = (struct outcome){.kind = OUTCOME_REPLIED,
                                .stage = STAGE_FINAL,
                                .code = 250,
                                .enhanced = {2, 0, 0},
                                .text = "ok \"queued\" as \xff 1",
                                .peer_family = 4,
                                .peer_address = {192, 0, 2, 1},
                                .tls_version = 13,
                                .size_bytes = 1234,
                                .finished_us = clock_us(CLOCK_REALTIME)};
    *class = (struct classification){.class = CLASS_NONE, .verdict = VERDICT_DELIVERED};
    if (job->expires_at_ms && clock_us(CLOCK_REALTIME) / 1000 >= job->expires_at_ms) {
        *class = (struct classification){.class = CLASS_EXPIRED, .verdict = VERDICT_BOUNCED};
        outcome->kind = OUTCOME_LOCAL;
    } else if (begins(email, "bounce")) {
        *class = (struct classification){.class = CLASS_INVALID_RECIPIENT, .verdict = VERDICT_BOUNCED};
        outcome->code = 550;
    } else if (begins(email, "suppress")) {
        *class = (struct classification){.class = CLASS_SUPPRESSED, .verdict = VERDICT_BOUNCED};
    } else if (begins(email, "defer")) {
        if (email[5] < '0' || email[5] > '9' || attempt < email[5] - '0') {
            *class = (struct classification){.class = CLASS_NO_ANSWER, .verdict = VERDICT_DEFERRED};
            outcome->code = 451;
        }
    } else if (begins(email, "greylist") && attempt == 0) {
        *class = (struct classification){.class = CLASS_GREYLISTED, .verdict = VERDICT_DEFERRED, .retry_after_s = 3};
    } else if (begins(email, "uncertain") && attempt == 0) {
        *class = (struct classification){.class = CLASS_NO_ANSWER, .verdict = VERDICT_DEFERRED};
        outcome->kind = OUTCOME_UNCERTAIN;
    } else if (begins(email, "return") && !begins(job->stream, "retry:")) {
        outcome->kind = OUTCOME_RETURNED;
    } else if (begins(email, "hold") && (email[4] < '0' || email[4] > '9' || attempt < email[4] - '0')) {
        class->verdict = VERDICT_HELD;
    } else if (begins(email, "stop") && !begins(job->stream, "retry:")) {
        *class = (struct classification){.verdict = VERDICT_HELD};
        outcome->kind = OUTCOME_LOCAL;
        item->waits_for = "h1";
    } else if (begins(email, "park") && !begins(job->stream, "retry:")) {
        *class = (struct classification){.verdict = VERDICT_PARKED};
        outcome->kind = OUTCOME_LOCAL;
        item->waits_for = "site.example";
        item->waits_until_ms = clock_us(CLOCK_REALTIME) / 1000 + 3600000;
    }
}

static void sending_settle(struct probe *probe, struct sending *sending) {
    struct job *job = sending->job;
    struct settle_item item = {.site = "site.example", .provider = "big", .pool = "main", .slot = sending->index, .slot_generation = 7};
    if (job->history.date_s == 0) {
        job->history.date_s = clock_us(CLOCK_REALTIME) / 1000000;
    }
    item.cookie = (struct settle_cookie){.shard = (uint16_t)job->shard,
                                         .attempt = job->history.attempt,
                                         .index = sending->index,
                                         .total = job->recipient_total,
                                         .entry_pending = job->entry_recipients,
                                         .entry = job->entry,
                                         .origin = job->history.origin,
                                         .first_queued_ms = job->history.first_queued_ms,
                                         .date_s = job->history.date_s,
                                         .uncertain_before = job->history.uncertain,
                                         .is_retry = begins(job->stream, "retry:")};
    snprintf(item.cookie.queue, sizeof item.cookie.queue, "%s", job->queue);
    snprintf(item.cookie.tenant, sizeof item.cookie.tenant, "%.31s", job->tenant ? job->tenant : "");
    outcome_of(sending, &item);
    if (probe->verbose) {
        printf("attempt %s %" PRIu64 "-%" PRIu64 " %u %" PRIu16 " %" PRIu64 " %s\n", job->stream, job->entry.ms, job->entry.seq,
               sending->index, job->history.attempt, job->history.date_s, job_recipient(job, sending->index)->mailbox.email);
        fflush(stdout);
    }
    item.job = probe->forget ? NULL : job;
    for (int i = 0; i < 1 + probe->twice; i++) {
        settle_add(probe->settle, &item);
    }
    job_release(job);
    free(sending);
    probe->held--;
}

/* Mixes the order of what ends, so many at a time: recipients of many entries end side by side when each goes to its site. */
static void sendings_scatter(struct probe *probe) {
    struct sending **window = malloc(probe->scatter * sizeof *window), *sending;
    struct sending_list mixed = TAILQ_HEAD_INITIALIZER(mixed);
    uint32_t random = 1;
    while (window && !TAILQ_EMPTY(&probe->sendings)) {
        uint32_t count = 0;
        while (count < probe->scatter && (sending = TAILQ_FIRST(&probe->sendings))) {
            TAILQ_REMOVE(&probe->sendings, sending, link);
            window[count++] = sending;
        }
        for (; count > 0; count--) {
            random = random * 1664525 + 1013904223;
            uint32_t chosen = (uint32_t)((uint64_t)random * count >> 32);
            TAILQ_INSERT_TAIL(&mixed, window[chosen], link);
            window[chosen] = window[count - 1];
        }
    }
    free(window);
    TAILQ_CONCAT(&probe->sendings, &mixed, link);
}

/* What was fetched may be settled, once all is. */
static void on_go(evutil_socket_t fd, short what, void *context) {
    ((struct probe *)context)->going = true;
}

static void probe_go(struct probe *probe) {
    probe->going = false;
    printf("fetched %" PRIu64 " %" PRIu64 "\n", probe->jobs, probe->last_us - probe->started_us);
    fflush(stdout);
    if (probe->scatter) {
        sendings_scatter(probe);
    }
    probe->deaf = false;
    probe->started_us = probe->last_us = clock_us(CLOCK_MONOTONIC);
}

static void on_timer(evutil_socket_t fd, short what, void *context) {
    struct probe *probe = context;
    uint64_t now = clock_us(CLOCK_MONOTONIC);
    struct sending *sending;
    if (probe->going && now - probe->last_us > QUIET_US) {
        probe_go(probe);
    }
    while (!probe->deaf && (sending = TAILQ_FIRST(&probe->sendings)) && sending->due_us <= now &&
           settle_outstanding(probe->settle) < SETTLE_AHEAD) {
        TAILQ_REMOVE(&probe->sendings, sending, link);
        sending_settle(probe, sending);
    }
    fetch_resume(probe->fetch);
    if (probe->idle_ms && now - probe->last_us > probe->idle_ms * 1000 && probe->held == 0 && settle_outstanding(probe->settle) == 0) {
        event_base_loopbreak(probe->base);
    }
}

static uint32_t on_room(void *context) {
    const struct probe *probe = context;
    return probe->held >= probe->room ? 0 : probe->room - probe->held;
}

static void on_job(void *context, struct job *job) {
    struct probe *probe = context;
    probe->jobs++;
    probe->last_us = clock_us(CLOCK_MONOTONIC);
    if (probe->started_us == 0) {
        probe->started_us = probe->last_us;
    }
    if (probe->verbose && job->subject && begins(job->subject, "at ")) {
        printf("latency %" PRIu64 "\n", clock_us(CLOCK_REALTIME) - (uint64_t)strtoull(job->subject + 3, NULL, 10));
        fflush(stdout);
    }
    for (uint32_t i = 0; i < job->pending_count; i++) {
        struct sending *sending = malloc(sizeof *sending);
        if (!sending) {
            abort();
        }
        job_hold(job);
        *sending = (struct sending){.job = job, .index = job->pending[i], .due_us = probe->last_us + probe->delay_us};
        probe->held++;
        if (probe->delay_us == 0 && !probe->deaf) {
            sending_settle(probe, sending);
        } else {
            TAILQ_INSERT_TAIL(&probe->sendings, sending, link);
        }
    }
    job_release(job);
}

static void on_committed(void *context, uint32_t slot, uint32_t slot_generation) {
    struct probe *probe = context;
    probe->committed += slot_generation == 7;
    probe->last_us = clock_us(CLOCK_MONOTONIC);
}

static uint64_t on_epoch(void *context, uint32_t shard) {
    return ((const struct probe *)context)->epoch;
}

static uint64_t on_read_epoch(void *context, uint32_t shard) {
    return ((const struct probe *)context)->read_epoch;
}

/* Another epoch: what is in hand is let go, and read again. */
static void on_registered(evutil_socket_t fd, short what, void *context) {
    struct probe *probe = context;
    struct sending *sending;
    while ((sending = TAILQ_FIRST(&probe->sendings))) {
        TAILQ_REMOVE(&probe->sendings, sending, link);
        job_release(sending->job);
        free(sending);
        probe->held--;
    }
    probe->read_epoch++;
    fetch_restart(probe->fetch);
}

static void on_fenced(void *context, uint32_t shard) {
    ((struct probe *)context)->fenced++;
}

/* A job for the sender where one is asked for. */
static char *on_notice(void *context, const struct settle_item *item, enum event_type event, uint64_t next_attempt_ms, size_t *length) {
    const struct job *job = item->job;
    bool wanted =
        event == EVENT_DEFERRED ? job->dsn & DSN_DELAY && !job->history.notified : event == EVENT_BOUNCED && job->dsn & DSN_FAILURE;
    char *text = NULL;
    int n = wanted ? asprintf(&text, "{\"from\":\"postmaster@example.org\",\"envelope_sender\":\"\",\"to\":\"%s\",\"text\":\"%s\"}",
                              job->from.email, event_type_text(event))
                   : -1;
    *length = n > 0 ? (size_t)n : 0;
    return n > 0 ? text : NULL;
}

static void on_up(void *context, bool run_id_changed) {
    printf("up %d\n", run_id_changed);
    fflush(stdout);
}

static void on_down(void *context, const char *reason) {
    printf("down %s\n", reason);
    fflush(stdout);
}

static void on_signal(evutil_socket_t fd, short what, void *context) {
    struct probe *probe = context;
    fetch_stop(probe->fetch);
    settle_flush(probe->settle);
    struct timeval after = {.tv_usec = 300000};
    event_base_loopexit(probe->base, &after);
}

static int decode_lines(const struct config *config) {
    char *line = NULL;
    size_t size = 0;
    ssize_t length;
    while ((length = getline(&line, &size, stdin)) > 0) {
        char error[512];
        struct job *job = job_decode((const uint8_t *)line, (size_t)length, config, error, sizeof error);
        if (job) {
            printf("ok %u %u\n", job->recipient_total, job->pending_count);
            job_release(job);
        } else {
            printf("%s\n", error);
        }
    }
    free(line);
    return 0;
}

static void usage(void) {
    fprintf(stderr, "queue_probe --redis ADDRESS [--password-file F] [--node N] [--room N] [--delay-us N] [--idle-ms N] [--first-ms N] "
                    "[--give-up-ms N]\n"
                    "            [--log FILE] [--events-bytes N] [--no-events] [--epoch N] [--read-epoch N (SIGHUP: the next)] [--reserve "
                    "N] [--scatter N] [--hold] [--twice] [--forget] "
                    "[--deaf (until SIGUSR1)] "
                    "[--verbose] | --decode\n");
}

/* Long options whose value is a number, and where it goes. */
static bool options_read(int argc, char **argv, struct probe *probe, bool *decode) {
    static const struct option options[] = {{"redis", 1, 0, 'r'},        {"node", 1, 0, 'n'},
                                            {"room", 1, 0, 'R'},         {"delay-us", 1, 0, 'd'},
                                            {"idle-ms", 1, 0, 'i'},      {"first-ms", 1, 0, 'f'},
                                            {"give-up-ms", 1, 0, 'g'},   {"log", 1, 0, 'l'},
                                            {"hold", 0, 0, 'h'},         {"twice", 0, 0, 't'},
                                            {"forget", 0, 0, 'F'},       {"deaf", 0, 0, 'D'},
                                            {"verbose", 0, 0, 'v'},      {"decode", 0, 0, 'j'},
                                            {"events-bytes", 1, 0, 'e'}, {"password-file", 1, 0, 'p'},
                                            {"no-events", 0, 0, 'N'},    {"epoch", 1, 0, 'E'},
                                            {"scatter", 1, 0, 's'},      {"read-epoch", 1, 0, 'a'},
                                            {"reserve", 1, 0, 'b'},      {0, 0, 0, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        uint64_t number = optarg ? strtoull(optarg, NULL, 10) : 0;
        switch (option) {
        case 'r':
            probe->config.redis.address = optarg;
            break;
        case 'p':
            probe->config.redis.password_file = optarg;
            break;
        case 'n':
            probe->config.node = optarg;
            break;
        case 'R':
            probe->room = (uint32_t)number;
            break;
        case 'd':
            probe->delay_us = number;
            break;
        case 'i':
            probe->idle_ms = number;
            break;
        case 'f':
            probe->queues[0].retry.first_ms = number;
            break;
        case 'g':
            probe->queues[0].retry.give_up_ms = number;
            break;
        case 'l':
            probe->config.logs.delivery_path = optarg;
            break;
        case 'e':
            probe->config.events.max_bytes = number;
            break;
        case 'h':
            probe->config.on_uncertain = UNCERTAIN_HOLD;
            break;
        case 't':
            probe->twice = true;
            break;
        case 'F':
            probe->forget = true;
            break;
        case 'D':
            probe->deaf = true;
            break;
        case 'v':
            probe->verbose = true;
            break;
        case 'N':
            probe->config.events.type_mask = 0;
            break;
        case 's':
            probe->scatter = (uint32_t)number;
            break;
        case 'E':
            probe->epoch = number;
            break;
        case 'a':
            probe->read_epoch = number;
            break;
        case 'b':
            probe->reserve = (uint32_t)number;
            break;
        case 'j':
            *decode = true;
            break;
        default:
            return false;
        }
    }
    return *decode || probe->config.redis.address;
}

static void report(const struct probe *probe) {
    const struct fetch_counters *fetch = fetch_counters(probe->fetch);
    const struct settle_counters *settle = settle_counters(probe->settle);
    printf("{\"jobs\":%" PRIu64 ",\"committed\":%" PRIu64 ",\"elapsed_us\":%" PRIu64 ",\"entries\":%" PRIu64 ",\"recipients\":%" PRIu64
           ",\"dead\":%" PRIu64 ",\"scheduled\":%" PRIu64 ",\"delivered\":%" PRIu64 ",\"deferred\":%" PRIu64 ",\"repeated\":%" PRIu64
           ",\"commits\":%" PRIu64 ",\"outstanding\":%" PRIu32 ",\"fenced\":%" PRIu64 ",\"refused\":%" PRIu64 "}\n",
           probe->jobs, probe->committed, probe->last_us - probe->started_us, fetch->entries, fetch->recipients, fetch->dead,
           fetch->scheduled, settle->delivered, settle->deferred, settle->repeated, settle->commits, settle_outstanding(probe->settle),
           probe->fenced, settle->refused);
    fflush(stdout);
}

int main(int argc, char **argv) {
    struct probe probe = {.room = 20000};
    bool decode = false;
    char error[256] = "";
    signal(SIGPIPE, SIG_IGN); /* hiredis writes to sockets that may be closed */
    log_start("queue_probe", LOG_LEVEL_INFO);
    TAILQ_INIT(&probe.sendings);
    probe.queues[0] = (struct config_queue){.name = "normal", .retry = {.first_ms = 1000, .max_ms = 4000, .give_up_ms = 3600000}};
    probe.config.node = "probe";
    probe.config.redis.prefix = "bypost";
    probe.config.redis.shards = 1;
    probe.config.queue_count = 1;
    probe.config.queues = probe.queues;
    probe.config.max_message_bytes = 25 << 20;
    probe.config.max_recipients_per_job = 500;
    probe.config.events.max_bytes = 512u << 20;
    probe.config.events.type_mask = UINT32_MAX;
    if (!options_read(argc, argv, &probe, &decode)) {
        usage();
        return 64;
    }
    if (decode) {
        return decode_lines(&probe.config);
    }
    probe.base = event_base_new();
    probe.redis = redis_create(probe.base, &probe.config, error, sizeof error);
    if (!probe.redis) {
        fprintf(stderr, "%s\n", error);
        return 78;
    }
    struct redis_events events = {.up = on_up, .down = on_down};
    redis_listen(probe.redis, &events);
    /* fetch listens before settle here: the order of the two must not matter. */
    struct fetch_config fetch = {.base = probe.base,
                                 .redis = probe.redis,
                                 .config = &probe.config,
                                 .room = on_room,
                                 .job = on_job,
                                 .high_reserve = probe.reserve,
                                 .epoch = on_read_epoch,
                                 .context = &probe};
    const char *log_path = probe.config.logs.delivery_path;
    struct delivery_log *log =
        log_path ? delivery_log_create(log_path, probe.config.logs.rotate_bytes, probe.config.logs.rotate_keep) : NULL;
    struct settle_config settle = {.base = probe.base,
                                   .redis = probe.redis,
                                   .config = &probe.config,
                                   .log = log,
                                   .committed = on_committed,
                                   .epoch = on_epoch,
                                   .fenced = on_fenced,
                                   .notice = on_notice,
                                   .context = &probe};
    probe.fetch = fetch_create(&fetch);
    probe.settle = settle_create(&settle, error, sizeof error);
    if (!probe.fetch || !probe.settle) {
        return 1;
    }
    probe.last_us = clock_us(CLOCK_MONOTONIC);
    struct event *timer = event_new(probe.base, -1, EV_PERSIST, on_timer, &probe);
    struct event *terminate = evsignal_new(probe.base, SIGTERM, on_signal, &probe);
    struct timeval every = {.tv_usec = 2000};
    event_add(timer, &every);
    struct event *go = evsignal_new(probe.base, SIGUSR1, on_go, &probe);
    event_add(terminate, NULL);
    event_add(go, NULL);
    struct event *registered = evsignal_new(probe.base, SIGHUP, on_registered, &probe);
    event_add(registered, NULL);
    fetch_start(probe.fetch);
    event_base_dispatch(probe.base);
    report(&probe);
    fetch_destroy(probe.fetch);
    settle_destroy(probe.settle);
    delivery_log_destroy(log);
    redis_destroy(probe.redis);
    struct sending *sending;
    while ((sending = TAILQ_FIRST(&probe.sendings))) {
        TAILQ_REMOVE(&probe.sendings, sending, link);
        job_release(sending->job);
        free(sending);
    }
    event_free(timer);
    event_free(terminate);
    event_free(registered);
    event_free(go);
    event_base_free(probe.base);
    return 0;
}
