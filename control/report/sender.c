/* sender.c: once a day, after midnight UTC and a random while, each domain's report of yesterday is made and sent, by whichever node comes
 * first. A set in Redis holds the domains that are still to be sent to. */
#include "mail.h"
#include "state.h"

#include "control/clock.h"
#include "control/observe/log.h"
#include "control/route/domain.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DAY_S = 86400, LOCK_S = 600, TAKEN_MAX = 20, FIELDS_MAX = 8192, ADDRESS_BYTES = 320, ID_BYTES = 400 };

struct sending {
    struct report *report; /* NULL: abandoned; freed with the last answer */
    uint32_t pending;      /* answers that this waits for ... */
    uint32_t posts;        /* ... of them from web servers */
    uint32_t taken;        /* domains in turn that other nodes have */
    bool failed;
    char day[REPORT_DAY_BYTES];
    char domain[REPORT_DOMAIN_BYTES];
};

static void next_domain(struct sending *sending);

static bool over(struct sending *sending) {
    if (sending->report)
        return false;
    if (sending->pending == 0)
        free(sending);
    return true;
}

static void stop(struct sending *sending) {
    sending->report->sending = NULL;
    free(sending);
}

/* Asks Redis; the next step follows with the answer. */
static void ask(struct sending *sending, void (*done)(void *context, redisReply *reply), int argc, const char *const *argv) {
    sending->pending++;
    if (redis_send(sending->report->config.redis, done, sending, argc, argv, NULL) == 0)
        return;
    sending->pending--;
    sending->failed = true;
}

static void on_removed(void *context, redisReply *reply) {
    struct sending *sending = context;
    sending->pending--;
    if (over(sending))
        return;
    if (!reply || redis_error(reply))
        stop(sending);
    else
        next_domain(sending);
}

static void on_kept(void *context, redisReply *reply) {}

/* All that goes to this domain has been taken, or refused. */
static void domain_done(struct sending *sending) {
    char key[REPORT_KEY_BYTES], sent[REPORT_KEY_BYTES], keep[16];
    if (sending->failed) { /* once more when the lock is over: mails that were taken are not taken twice */
        sending->failed = false;
        if (++sending->taken > TAKEN_MAX)
            stop(sending);
        else
            next_domain(sending);
        return;
    }
    report_day_key(sending->report->config.config, sending->day, false, key);
    report_day_key(sending->report->config.config, sending->day, true, sent);
    snprintf(keep, sizeof keep, "%d", REPORT_KEEP_S);
    const char *move[] = {"SMOVE", key, sent, sending->domain}, *expire[] = {"EXPIRE", sent, keep};
    ask(sending, on_removed, 4, move);
    if (sending->failed)
        stop(sending);
    else
        redis_send(sending->report->config.redis, on_kept, NULL, 3, expire, NULL);
}

static void on_submitted(void *context, redisReply *reply) {
    struct sending *sending = context;
    sending->pending--;
    if (over(sending))
        return;
    if (!reply || redis_error(reply)) {
        log_write(LOG_LEVEL_WARNING, "report", "the TLS report for %s could not be queued: %.200s", sending->domain,
                  reply ? redis_error(reply) : "Redis is away");
        sending->failed = true;
    } else {
        sending->report->counters.mails++;
    }
    if (sending->pending == 0)
        domain_done(sending);
}

static void on_posted(void *context, const struct https_answer *answer) {
    struct sending *sending = context;
    sending->pending--;
    sending->posts--;
    if (answer->status == HTTPS_GOOD) {
        sending->report->counters.posts++;
    } else {
        log_write(LOG_LEVEL_WARNING, "report", "the TLS report for %s was not taken: %s", sending->domain, answer->why);
        sending->report->counters.refused++;
        sending->failed = true;
    }
    if (sending->pending == 0)
        domain_done(sending);
}

static void send_mail(struct sending *sending, const char *uri, const uint8_t *gzip, size_t bytes, unsigned number) {
    const struct config *config = sending->report->config.config;
    char to[ADDRESS_BYTES], id[ID_BYTES], base[REDIS_KEY_MAX], stream[REDIS_KEY_MAX + 16];
    snprintf(id, sizeof id, "tls-report-%s-%s-%u", sending->day, sending->domain, number);
    if (report_mailto(uri, to, sizeof to) != 0)
        return;
    char *job = report_mail(config, sending->domain, sending->day, gzip, bytes, to, id);
    if (!job) {
        sending->failed = true;
        return;
    }
    redis_shard_prefix(config, 0, base);
    snprintf(stream, sizeof stream, "%sq:normal", base);
    const char *submit[] = {"FCALL", "bypost_submit", "1", stream, base, "normal", job, "1", id, ""};
    ask(sending, on_submitted, 10, submit);
    free(job);
}

static void send_post(struct sending *sending, const char *uri, const uint8_t *gzip, size_t bytes) {
    struct https_request request = {.url = uri,
                                    .domain = sending->domain,
                                    .body = (const char *)gzip,
                                    .body_bytes = bytes,
                                    .content_type = "application/tlsrpt+gzip",
                                    .done = on_posted,
                                    .context = sending};
    if (https_start(sending->report->config.https, &request) == 0) {
        sending->pending++;
        sending->posts++;
    } else {
        sending->failed = true;
    }
}

static void send_to(struct sending *sending, const struct report_field *fields, size_t count) {
    const char *rua = report_addresses(fields, count);
    json_t *document = rua ? report_document(sending->report->config.config, sending->domain, sending->day, fields, count) : NULL;
    size_t bytes = 0;
    uint8_t *gzip = document ? report_gzip(document, &bytes) : NULL;
    char *list = gzip ? strdup(rua) : NULL, *save;
    unsigned number = 0;
    sending->pending++; /* this function's own */
    for (char *uri = list ? strtok_r(list, " ", &save) : NULL; uri; uri = strtok_r(NULL, " ", &save)) {
        if (strncasecmp(uri, "mailto:", 7) == 0)
            send_mail(sending, uri, gzip, bytes, ++number);
        else
            send_post(sending, uri, gzip, bytes);
    }
    free(list);
    free(gzip);
    json_decref(document);
    if (--sending->pending == 0)
        domain_done(sending);
}

static void on_counts(void *context, redisReply *reply) {
    struct sending *sending = context;
    sending->pending--;
    if (over(sending))
        return;
    if (!reply || reply->type != REDIS_REPLY_ARRAY) {
        stop(sending);
        return;
    }
    size_t count = reply->elements / 2 < FIELDS_MAX ? reply->elements / 2 : FIELDS_MAX;
    struct report_field *fields = calloc(count + 1, sizeof *fields);
    for (size_t i = 0; fields && i < count; i++) {
        const redisReply *name = reply->element[2 * i], *value = reply->element[2 * i + 1];
        bool texts = name->type == REDIS_REPLY_STRING && value->type == REDIS_REPLY_STRING;
        fields[i] = texts ? (struct report_field){name->str, value->str} : (struct report_field){"", ""};
    }
    if (fields)
        send_to(sending, fields, count);
    else
        stop(sending);
    free(fields);
}

static void on_locked(void *context, redisReply *reply) {
    struct sending *sending = context;
    char key[REPORT_KEY_BYTES];
    sending->pending--;
    if (over(sending))
        return;
    if (!reply || redis_error(reply)) {
        stop(sending);
    } else if (reply->type == REDIS_REPLY_NIL) { /* another node is at it, or it failed a while ago */
        if (++sending->taken > TAKEN_MAX)
            stop(sending);
        else
            next_domain(sending);
    } else {
        sending->taken = 0;
        report_domain_key(sending->report->config.config, sending->day, sending->domain, key);
        const char *get[] = {"HGETALL", key};
        ask(sending, on_counts, 2, get);
        if (sending->failed)
            stop(sending);
    }
}

static void on_domain(void *context, redisReply *reply) {
    struct sending *sending = context;
    char key[REPORT_KEY_BYTES + 8], life[16];
    sending->pending--;
    if (over(sending))
        return;
    if (!reply || (reply->type != REDIS_REPLY_STRING && reply->type != REDIS_REPLY_NIL)) {
        stop(sending);
        return;
    }
    if (reply->type == REDIS_REPLY_NIL || (size_t)reply->len >= sizeof sending->domain) {
        memcpy(sending->report->done_day, sending->day, sizeof sending->day);
        stop(sending);
        return;
    }
    if (strlen(reply->str) != (size_t)reply->len || domain_ascii(reply->str, sending->domain) != 0 ||
        strcmp(sending->domain, reply->str) != 0) {
        /* No domain of ours: it would go into header fields. */
        if (++sending->taken > TAKEN_MAX)
            stop(sending);
        else
            next_domain(sending);
        return;
    }
    report_domain_key(sending->report->config.config, sending->day, sending->domain, key);
    strcat(key, ":lock");
    snprintf(life, sizeof life, "%d", LOCK_S);
    const char *lock[] = {"SET", key, "1", "NX", "EX", life};
    ask(sending, on_locked, 6, lock);
    if (sending->failed)
        stop(sending);
}

static void next_domain(struct sending *sending) {
    char key[REPORT_KEY_BYTES];
    report_day_key(sending->report->config.config, sending->day, false, key);
    const char *pick[] = {"SRANDMEMBER", key};
    ask(sending, on_domain, 2, pick);
    if (sending->failed)
        stop(sending);
}

void sender_tick(struct report *report) {
    uint64_t now_s = clock_us(CLOCK_REALTIME) / 1000000;
    char yesterday[REPORT_DAY_BYTES];
    const struct config *config = report->config.config;
    report_day(now_s - DAY_S, yesterday);
    if (!config->tls_reports.enabled || !config->tls_reports.from || report->sending || now_s % DAY_S < report->delay_s ||
        strcmp(report->done_day, yesterday) == 0 || redis_state(report->config.redis) != REDIS_UP)
        return;
    struct sending *sending = calloc(1, sizeof *sending);
    if (!sending)
        return;
    sending->report = report;
    memcpy(sending->day, yesterday, sizeof yesterday);
    report->sending = sending;
    next_domain(sending);
}

void sender_abandon(struct report *report) {
    struct sending *sending = report->sending;
    if (!sending)
        return;
    report->sending = NULL;
    sending->report = NULL;
    sending->pending -= sending->posts; /* https has ended before, and does not call */
    over(sending);
}
