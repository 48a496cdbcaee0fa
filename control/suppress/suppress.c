/* suppress.c: questions and changes: what the filter cannot deny is asked of Redis, one call a job; what waits for Redis waits here. */
#include "state.h"

#include "control/clock.h"
#include "control/observe/log.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

enum {
    CHANGES_UNDER_WAY = 64,
};

bool suppress_send(struct suppress *suppress, void (*done)(void *context, redisReply *reply), void *context, int argc,
                   const char *const *argv) {
    if (redis_send(suppress->config.redis, done, context, argc, argv, NULL) != 0)
        return false;
    suppress->outstanding++;
    return true;
}

bool suppress_heard(struct suppress *suppress) {
    suppress->outstanding--;
    if (!suppress->destroyed)
        return true;
    if (suppress->outstanding == 0)
        free(suppress);
    return false;
}

bool suppress_ready(const struct suppress *suppress) {
    return suppress->knowledge == SUPPRESS_KNOWN && suppress->polled_ms != 0 &&
           clock_ms(CLOCK_MONOTONIC) - suppress->polled_ms <= SUPPRESS_TRUST_MS;
}

/* "@domain" of an address, or NULL. */
static const char *domain_of(const char *address) {
    return strrchr(address, '@');
}

static const char *tenant_of(const struct job *job) {
    return job->tenant != NULL ? job->tenant : "";
}

/* -- questions -- */

static void check_free(struct check *check) {
    for (uint32_t i = 0; i < check->asked; i++)
        free(check->texts[i]);
    free(check->texts);
    free(check->who);
    free(check);
}

/* Takes it out of the waiting ones and tells. */
static void check_end(struct check *check, const char *const *reasons) {
    struct suppress *suppress = check->suppress;
    TAILQ_REMOVE(&suppress->checks, check, link);
    suppress->check_count--;
    for (uint32_t i = 0; i < check->recipients; i++)
        suppress->counters.suppressed += reasons[i] != NULL;
    if (check->done_one != NULL)
        check->done_one(check->context, reasons[0]);
    else
        check->done(check->context, check->job, reasons);
    check_free(check);
}

/* "t REASON SOURCE ..." -> REASON; false when it is nothing of ours. */
static bool reason_of(const redisReply *answer, char out[SUPPRESS_REASON_MAX + 1]) {
    if (answer->type != REDIS_REPLY_STRING || answer->len < 3)
        return false;
    size_t length = strcspn(answer->str + 2, " ");
    if (length == 0)
        return false;
    snprintf(out, SUPPRESS_REASON_MAX + 1, "%.*s", (int)length, answer->str + 2);
    return true;
}

static void on_answer(void *context, redisReply *reply) {
    struct check *check = context;
    struct suppress *suppress = check->suppress;
    if (!suppress_heard(suppress)) {
        check_free(check);
        return;
    }
    check->sent = false;
    if (reply == NULL) /* asked again when Redis is back */
        return;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != check->asked) {
        log_write(LOG_LEVEL_ERROR, "suppress", "Redis does not tell who is suppressed, mail waits: %s",
                  redis_error(reply) != NULL ? redis_error(reply) : "an answer that makes no sense");
        return; /* asked again by the timer */
    }
    char(*found)[SUPPRESS_REASON_MAX + 1] = calloc(check->asked, sizeof(*found));
    const char **reasons = calloc(check->recipients, sizeof(*reasons));
    if (found != NULL && reasons != NULL) {
        for (uint32_t i = 0; i < check->asked; i++)
            if (reason_of(reply->element[i], found[i]) && reasons[check->who[i]] == NULL)
                reasons[check->who[i]] = found[i];
        check_end(check, reasons);
    }
    free(found);
    free(reasons);
}

static void check_send(struct check *check) {
    struct suppress *suppress = check->suppress;
    const char **argv = calloc(check->asked + 7, sizeof(*argv));
    char now[24];
    if (argv == NULL)
        return;
    snprintf(now, sizeof(now), "%" PRIu64, clock_ms(CLOCK_REALTIME) / 1000);
    argv[0] = "FCALL";
    argv[1] = "bypost_suppressed";
    argv[2] = "1";
    argv[3] = suppress->key;
    argv[4] = suppress->base;
    argv[5] = now;
    argv[6] = tenant_of(check->job);
    for (uint32_t i = 0; i < check->asked; i++)
        argv[7 + i] = check->texts[i];
    check->sent = suppress_send(suppress, on_answer, check, (int)check->asked + 7, argv);
    suppress->counters.asked += check->sent;
    free(argv);
}

void suppress_checks_send(struct suppress *suppress) {
    struct check *check;
    TAILQ_FOREACH (check, &suppress->checks, link)
        if (!check->sent)
            check_send(check);
}

static bool may_be_listed(const struct suppress *suppress, const char *tenant, const char *address) {
    return filter_may_hold(&suppress->filter, watch_hash(suppress, "", address)) ||
           (*tenant != '\0' && filter_may_hold(&suppress->filter, watch_hash(suppress, tenant, address)));
}

/* Adds what must be asked about a recipient: all, or what the filter does not deny. */
static bool check_add(struct check *check, const char *email, uint32_t recipient, bool all) {
    const struct suppress *suppress = check->suppress;
    char address[SUPPRESS_ADDRESS_MAX + 1];
    if (suppress_address(email, strlen(email), address) < 0)
        return true; /* no list can hold it */
    const char *forms[] = {address, domain_of(address)};
    for (int i = 0; i < 2; i++) {
        if (!all && !may_be_listed(suppress, tenant_of(check->job), forms[i]))
            continue;
        char *copy = strdup(forms[i]);
        if (copy == NULL)
            return false;
        check->who[check->asked] = recipient;
        check->texts[check->asked++] = copy;
    }
    return true;
}

static struct check *check_new(struct suppress *suppress, struct job *job, uint32_t recipients, void *context) {
    struct check *check = calloc(1, sizeof(*check));
    if (check == NULL)
        return NULL;
    *check = (struct check){.suppress = suppress, .job = job, .context = context, .recipients = recipients};
    check->who = calloc(2 * (size_t)recipients + 1, sizeof(*check->who));
    check->texts = calloc(2 * (size_t)recipients + 1, sizeof(*check->texts));
    if (check->who != NULL && check->texts != NULL)
        return check;
    check_free(check);
    return NULL;
}

static void check_begin(struct check *check) {
    struct suppress *suppress = check->suppress;
    TAILQ_INSERT_TAIL(&suppress->checks, check, link);
    suppress->check_count++;
    if (check->asked == 0) {
        const char **none = calloc(check->recipients + 1, sizeof(*none));
        if (none != NULL)
            check_end(check, none);
        free(none);
    } else {
        check_send(check);
    }
}

void suppress_check(struct suppress *suppress, struct job *job, void (*done)(void *context, struct job *job, const char *const *reasons),
                    void *context) {
    bool all = !suppress_ready(suppress);
    suppress->counters.checked += job->pending_count;
    if (!all) { /* nearly always: nothing is asked and nothing allocated */
        static const char *const none[JOB_RECIPIENTS_MAX];
        bool denied = job->pending_count <= JOB_RECIPIENTS_MAX;
        for (uint32_t i = 0; denied && i < job->pending_count; i++) {
            char address[SUPPRESS_ADDRESS_MAX + 1];
            const char *email = job_recipient(job, job->pending[i])->mailbox.email;
            denied = suppress_address(email, strlen(email), address) < 0 ||
                     (!may_be_listed(suppress, tenant_of(job), address) && !may_be_listed(suppress, tenant_of(job), domain_of(address)));
        }
        if (denied) {
            done(context, job, none);
            return;
        }
    }
    struct check *check = check_new(suppress, job, job->pending_count, context);
    bool good = check != NULL;
    for (uint32_t i = 0; good && i < job->pending_count; i++)
        good = check_add(check, job_recipient(job, job->pending[i])->mailbox.email, i, all);
    if (!good) { /* the entry stays pending in Redis */
        log_write(LOG_LEVEL_ERROR, "suppress", "out of memory: a job stays pending in Redis");
        if (check != NULL)
            check_free(check);
        job_release(job);
        return;
    }
    check->done = done;
    check_begin(check);
}

void suppress_check_one(struct suppress *suppress, struct job *job, uint32_t index, void (*done)(void *context, const char *reason),
                        void *context) {
    struct check *check = check_new(suppress, job, 1, context);
    suppress->counters.checked++;
    if (check == NULL || !check_add(check, job_recipient(job, index)->mailbox.email, 0, true)) {
        if (check != NULL)
            check_free(check);
        done(context, NULL); /* it was checked when it came */
        return;
    }
    check->done_one = done;
    check_begin(check);
}

bool suppress_is_recent(const struct suppress *suppress, const struct delivery *delivery) {
    char address[SUPPRESS_ADDRESS_MAX + 1];
    if (suppress->added_ms < delivery->queued_ms || suppress->filter.blocks == NULL)
        return false;
    const char *email = job_recipient(delivery->job, delivery->index)->mailbox.email;
    const char *tenant = tenant_of(delivery->job);
    return suppress_address(email, strlen(email), address) >= 0 &&
           (may_be_listed(suppress, tenant, address) || may_be_listed(suppress, tenant, domain_of(address)));
}

uint32_t suppress_waiting(const struct suppress *suppress) {
    return suppress->check_count;
}

/* -- changes -- */

static void change_free(struct change *change) {
    for (int i = 0; i < change->argc; i++)
        free(change->argv[i]);
    free(change->argv);
    free(change);
}

/* In the order in which they were made: a removal stays behind its addition. */
static void change_wait(struct suppress *suppress, struct change *change) {
    struct change *next = TAILQ_FIRST(&suppress->changes);
    while (next != NULL && next->number < change->number)
        next = TAILQ_NEXT(next, link);
    if (next != NULL)
        TAILQ_INSERT_BEFORE(next, change, link);
    else
        TAILQ_INSERT_TAIL(&suppress->changes, change, link);
}

static void on_changed(void *context, redisReply *reply) {
    struct change *change = context;
    struct suppress *suppress = change->suppress;
    if (!suppress_heard(suppress)) {
        change_free(change);
        return;
    }
    suppress->changes_under_way--;
    if (reply == NULL) {
        change_wait(suppress, change);
        return;
    }
    suppress->change_count--;
    if (redis_error(reply) != NULL)
        log_write(LOG_LEVEL_ERROR, "suppress", "Redis refuses a change of the suppression list: %s", redis_error(reply));
    else
        suppress->counters.added +=
            reply->type == REDIS_REPLY_INTEGER && reply->integer > 0 && change->argc > 1 &&
            (strcmp(change->argv[1], "bypost_suppress_add") == 0 || strcmp(change->argv[1], "bypost_suppress_strike") == 0);
    change_free(change);
    suppress_changes_send(suppress);
}

void suppress_changes_send(struct suppress *suppress) {
    struct change *change;
    while (suppress->changes_under_way < CHANGES_UNDER_WAY && (change = TAILQ_FIRST(&suppress->changes)) != NULL) {
        if (!suppress_send(suppress, on_changed, change, change->argc, (const char *const *)change->argv))
            return;
        TAILQ_REMOVE(&suppress->changes, change, link);
        suppress->changes_under_way++;
    }
}

/* Copies the words behind FCALL NAME 1 KEY BASE. */
static void change_begin(struct suppress *suppress, const char *function, const char *const *words, int count) {
    struct change *change = calloc(1, sizeof(*change));
    const char *head[] = {"FCALL", function, "1", suppress->key, suppress->base};
    enum { HEAD = sizeof(head) / sizeof(head[0]) };
    bool good = change != NULL && suppress->change_count < SUPPRESS_ADDS_MAX;
    if (good) {
        change->suppress = suppress;
        change->argv = calloc((size_t)HEAD + (size_t)count, sizeof(*change->argv));
        good = change->argv != NULL;
    }
    for (int i = 0; good && i < HEAD + count; i++) {
        change->argv[i] = strdup(i < HEAD ? head[i] : words[i - HEAD]);
        good = change->argv[i] != NULL;
        change->argc += good;
    }
    if (!good) {
        suppress->counters.dropped++;
        log_write(LOG_LEVEL_ERROR, "suppress", "too many changes wait for Redis: one is dropped");
        if (change != NULL)
            change_free(change);
        return;
    }
    suppress->change_count++;
    change->number = ++suppress->change_number;
    TAILQ_INSERT_TAIL(&suppress->changes, change, link);
    suppress_changes_send(suppress);
}

struct number {
    char text[24];
};

static struct number number_of(uint64_t value) {
    struct number number;
    snprintf(number.text, sizeof(number.text), "%" PRIu64, value);
    return number;
}

static const char *word_of(const char *text) {
    return text == NULL || *text == '\0' || strchr(text, ' ') != NULL ? "-" : text;
}

void suppress_add(struct suppress *suppress, const struct suppress_entry *entry) {
    char address[SUPPRESS_ADDRESS_MAX + 1];
    const char *tenant = entry->tenant != NULL ? entry->tenant : "";
    if (suppress_address(entry->address, strlen(entry->address), address) < 0)
        return;
    struct number now = number_of(clock_ms(CLOCK_REALTIME) / 1000);
    char value[256];
    snprintf(value, sizeof(value), "%.32s %.16s %" PRIu64 " %" PRIu64 " %.63s", word_of(entry->reason), word_of(entry->source),
             entry->since_ms / 1000, (entry->expires_ms + 999) / 1000, word_of(entry->provider));
    const char *words[] = {now.text, tenant, "1", "", address, value};
    change_begin(suppress, "bypost_suppress_add", words, sizeof(words) / sizeof(words[0]));
    watch_add(suppress, watch_hash(suppress, tenant, address));
    suppress->added_ms = clock_ms(CLOCK_REALTIME);
}

void suppress_strike(struct suppress *suppress, const struct suppress_strike *strike) {
    char address[SUPPRESS_ADDRESS_MAX + 1];
    const struct suppress_entry *entry = &strike->entry;
    if (suppress_address(entry->address, strlen(entry->address), address) < 0)
        return;
    struct number now = number_of(clock_ms(CLOCK_REALTIME) / 1000), needed = number_of(strike->needed), span = number_of(strike->span_s),
                  spacing = number_of(strike->spacing_s), memory = number_of(strike->memory_s),
                  life = number_of((entry->expires_ms + 999) / 1000);
    const char *words[] = {now.text,
                           entry->tenant != NULL ? entry->tenant : "",
                           address,
                           word_of(entry->reason),
                           word_of(entry->provider),
                           needed.text,
                           span.text,
                           spacing.text,
                           memory.text,
                           life.text};
    change_begin(suppress, "bypost_suppress_strike", words, sizeof(words) / sizeof(words[0]));
}

void suppress_remove(struct suppress *suppress, const char *tenant, const char *text) {
    char address[SUPPRESS_ADDRESS_MAX + 1];
    if (suppress_address(text, strlen(text), address) >= 0)
        change_begin(suppress, "bypost_suppress_remove", (const char *[]){tenant != NULL ? tenant : "", "0", address}, 3);
}

void suppress_accepted(struct suppress *suppress, const char *tenant, const char *text) {
    char address[SUPPRESS_ADDRESS_MAX + 1];
    tenant = tenant != NULL ? tenant : "";
    if (suppress->filter.blocks == NULL || suppress_address(text, strlen(text), address) < 0)
        return;
    const char *forms[] = {address, domain_of(address)};
    for (int i = 0; i < 2; i++)
        if (filter_may_hold(&suppress->filter, watch_hash(suppress, tenant, forms[i])))
            change_begin(suppress, "bypost_suppress_remove", (const char *[]){tenant, "1", forms[i]}, 3);
}

bool suppress_trusts(const struct suppress *suppress, const char *provider, uint64_t now_ms) {
    for (uint32_t i = 0; i < suppress->trusted_count; i++)
        if (strcasecmp(suppress->trusted[i].provider, provider) == 0)
            return suppress->trusted[i].until_s * 1000 > now_ms;
    return false;
}

/* -- life -- */

static void on_up(void *context, bool run_id_changed) {
    struct suppress *suppress = context;
    watch_start(suppress, run_id_changed);
    suppress_checks_send(suppress);
    suppress_changes_send(suppress);
}

static void on_timer(evutil_socket_t descriptor, short what, void *context) {
    struct suppress *suppress = context;
    if (redis_state(suppress->config.redis) != REDIS_UP)
        return;
    watch_poll(suppress);
    suppress_checks_send(suppress);
    suppress_changes_send(suppress);
}

struct suppress *suppress_create(const struct suppress_config *config) {
    struct suppress *suppress = calloc(1, sizeof(*suppress));
    if (suppress == NULL)
        return NULL;
    suppress->config = *config;
    TAILQ_INIT(&suppress->checks);
    TAILQ_INIT(&suppress->changes);
    snprintf(suppress->base, sizeof(suppress->base),
             "%.100s:{u}:suppress:", config->config->redis.prefix != NULL ? config->config->redis.prefix : "bypost");
    snprintf(suppress->key, sizeof(suppress->key), "%stenants", suppress->base);
    if (getrandom(&suppress->filter_key, sizeof(suppress->filter_key), GRND_NONBLOCK) != sizeof(suppress->filter_key))
        suppress->filter_key = clock_us(CLOCK_REALTIME) * 0x9e3779b97f4a7c15u;
    struct redis_events events = {.up = on_up, .context = suppress};
    struct timeval interval = {.tv_usec = SUPPRESS_POLL_MS * 1000};
    suppress->timer = event_new(config->base, -1, EV_PERSIST, on_timer, suppress);
    if (suppress->timer == NULL || event_add(suppress->timer, &interval) != 0 || redis_listen(config->redis, &events) != 0) {
        if (suppress->timer != NULL)
            event_free(suppress->timer);
        free(suppress);
        return NULL;
    }
    if (redis_state(config->redis) == REDIS_UP)
        on_up(suppress, false);
    return suppress;
}

void suppress_destroy(struct suppress *suppress) {
    struct check *check;
    struct change *change;
    if (suppress == NULL)
        return;
    redis_ignore(suppress->config.redis, suppress);
    event_free(suppress->timer);
    while ((check = TAILQ_FIRST(&suppress->checks)) != NULL) {
        TAILQ_REMOVE(&suppress->checks, check, link);
        if (check->done != NULL)
            job_release(check->job);
        else
            check->done_one(check->context, NULL);
        if (!check->sent)
            check_free(check); /* else its answer does */
    }
    while ((change = TAILQ_FIRST(&suppress->changes)) != NULL) {
        TAILQ_REMOVE(&suppress->changes, change, link);
        change_free(change);
    }
    watch_stop(suppress);
    suppress->destroyed = true;
    if (suppress->outstanding == 0)
        free(suppress);
}

const struct suppress_counters *suppress_counters(const struct suppress *suppress) {
    return &suppress->counters;
}
