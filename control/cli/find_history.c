/* find_history.c: attempts in the events stream and in the delivery logs, the latest first. */
#include "control/fetch/entry.h"
#include "control/render/identity.h"
#include "control/render/render.h"
#include "find.h"
#include "token.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EVENTS_STEP = 500, EVENTS_MAX = 100000, ROTATED_MAX = 1000 };
#define LOG_BYTES_MAX (UINT64_C(2) << 30)

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

/* Is the Message-ID that of this event? A private message's name depends on its index, another's does not. */
static bool message_is(const struct find *find, const struct identity *identity, const json_t *event) {
    struct job_recipient recipient = {.kind = RECIPIENT_PRIVATE};
    uint32_t place = (uint32_t)json_integer_value(json_object_get(event, "index"));
    struct job job = {.recipients = &recipient, .places = &place, .place_count = 1};
    const char *origin = text_of(event, "job");
    char hex[IDENTITY_HEX_BYTES];
    job.id = json_string_value(json_object_get(event, "id")) ? (char *)text_of(event, "id") : NULL;
    job.tenant = *text_of(event, "tenant") ? (char *)text_of(event, "tenant") : NULL;
    snprintf(job.queue, sizeof job.queue, "%s", text_of(event, "queue"));
    if (!entry_id_parse(origin, strlen(origin), &job.history.origin)) {
        return false;
    }
    for (job.shard = 0; job.shard < find->call.config->redis.shards; job.shard++) {
        for (int kind = 0; kind < 2; kind++) {
            recipient.kind = kind ? RECIPIENT_TO : RECIPIENT_PRIVATE;
            identity_name(identity, &job, place, hex);
            if (strncmp(hex, find->wanted, IDENTITY_HEX_BYTES - 1) == 0) {
                return true;
            }
        }
    }
    return false;
}

static bool event_is(const struct find *find, const struct identity *identity, const json_t *event) {
    switch (find->kind) {
    case FIND_RECIPIENT:
        return strcasecmp(text_of(event, "recipient"), find->wanted) == 0 &&
               (!find->job[0] || strcmp(find->job, text_of(event, "job")) == 0);
    case FIND_ENTRY:
        return strcmp(text_of(event, "job"), find->wanted) == 0 &&
               (!find->has_index || json_integer_value(json_object_get(event, "index")) == (json_int_t)find->index);
    case FIND_MESSAGE:
        return identity && message_is(find, identity, event);
    case FIND_ID:
        break;
    }
    return strcmp(text_of(event, "id"), find->wanted) == 0;
}

static bool known_already(const struct find *find, const json_t *event, double at) {
    json_t *one;
    size_t index;
    json_array_foreach(find->findings, index, one) {
        if (json_object_get(one, "event") && json_real_value(json_object_get(one, "at")) == at &&
            strcmp(text_of(one, "job"), text_of(event, "job")) == 0 &&
            strcmp(text_of(one, "recipient"), text_of(event, "recipient")) == 0) {
            return true;
        }
    }
    return false;
}

/* One line of JSON. */
static void line_take(struct find *find, const struct identity *identity, const char *line, size_t length) {
    /* A first look that costs little; both kinds of line end with a NUL. */
    if (find->kind != FIND_MESSAGE && !(find->kind == FIND_RECIPIENT ? strcasestr(line, find->wanted) : strstr(line, find->wanted))) {
        return;
    }
    json_t *event = json_loadb(line, length, 0, NULL);
    if (json_is_object(event) && event_is(find, identity, event)) {
        json_t *times = json_object_get(event, "times");
        double at = json_number_value(json_object_get(times, "finished"));
        at = at > 0 ? at : json_number_value(json_object_get(times, "queued"));
        if (!known_already(find, event, at)) {
            find_add(find,
                     json_pack("{s:s, s:s, s:s, s:s, s:s*, s:s*, s:f, s:I, s:O}", "status", text_of(event, "type"), "recipient",
                               text_of(event, "recipient"), "job", text_of(event, "job"), "queue", text_of(event, "queue"), "id",
                               json_string_value(json_object_get(event, "id")), "site", json_string_value(json_object_get(event, "site")),
                               "at", at, "attempts", json_integer_value(json_object_get(event, "attempt")), "event", event));
        }
    }
    json_decref(event);
}

static void events_search(struct find *find, const struct identity *identity) {
    uint64_t looked = 0, bound = find->deep ? UINT64_MAX : EVENTS_MAX;
    bool whole = true;
    for (uint32_t shard = 0; shard < find->call.config->redis.shards; shard++) {
        char *key = cli_key(find->call.config, shard, "events"), last[64] = "+", count[16];
        uint64_t here = 0;
        snprintf(count, sizeof count, "%d", EVENTS_STEP);
        for (bool more = true; more && here < bound;) {
            const char *argv[] = {"XREVRANGE", key, last, "-", "COUNT", count};
            redisReply *reply = operator_run(&find->call, 6, argv);
            more = reply && reply->type == REDIS_REPLY_ARRAY && reply->elements > 0;
            for (size_t i = 0; more && i < reply->elements; i++) {
                const redisReply *fields = reply->element[i]->elements >= 2 ? reply->element[i]->element[1] : NULL;
                if (fields && fields->elements >= 2 && fields->element[1]->type == REDIS_REPLY_STRING) {
                    line_take(find, identity, fields->element[1]->str, fields->element[1]->len);
                }
                snprintf(last, sizeof last, "(%.60s", operator_text(reply->element[i], 0));
            }
            here += more ? reply->elements : 0;
            if (reply) {
                freeReplyObject(reply);
            }
            operator_progress("events", looked + here, looked + here + EVENTS_STEP);
        }
        whole &= here < bound;
        looked += here;
        free(key);
    }
    operator_progress("events", looked, looked);
    find_searched(find, "%" PRIu64 " events%s", looked, whole ? "" : " (not all: --deep looks at the others)");
}

/* The lines of a file; a compressed one through gzip. False when there is none. */
static bool log_read(struct find *find, const struct identity *identity, const char *path, uint64_t *bytes, uint64_t bound) {
    bool packed = strlen(path) > 3 && strcmp(path + strlen(path) - 3, ".gz") == 0;
    int ends[2] = {-1, -1};
    pid_t child = -1;
    FILE *file = NULL;
    if (access(path, R_OK) != 0) {
        return access(path, F_OK) == 0 && cli_complain(CLI_NO_INPUT, find_name, "%s may not be read by this user.", path) == CLI_OK;
    }
    if (packed && pipe(ends) == 0) {
        child = fork();
        if (child == 0) {
            dup2(ends[1], STDOUT_FILENO);
            close(ends[0]);
            close(ends[1]);
            execlp("gzip", "gzip", "-dc", "--", path, (char *)NULL);
            _exit(127);
        }
        close(ends[1]);
        file = fdopen(ends[0], "r");
    } else if (!packed) {
        file = fopen(path, "re");
    }
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    while (file && *bytes < bound && (length = getline(&line, &room, file)) > 0) {
        *bytes += (uint64_t)length;
        line_take(find, identity, line, (size_t)length);
        if (*bytes >> 22 != (*bytes - (uint64_t)length) >> 22) {
            operator_progress("log, MiB", *bytes >> 20, (*bytes >> 20) + 4);
        }
    }
    free(line);
    if (file) {
        fclose(file);
    } else if (ends[0] >= 0) {
        close(ends[0]);
    }
    if (child > 0) {
        waitpid(child, NULL, 0);
    }
    return file != NULL;
}

static void logs_search(struct find *find, const struct identity *identity) {
    const char *path = find->call.config->logs.delivery_path;
    uint64_t bytes = 0, bound = find->deep ? UINT64_MAX : LOG_BYTES_MAX;
    unsigned files = 0;
    if (!path) {
        find_searched(find, "no delivery log (logs.delivery)");
        return;
    }
    files += log_read(find, identity, path, &bytes, bound);
    for (unsigned i = 1; i <= ROTATED_MAX && bytes < bound; i++) {
        char *rotated = NULL, *packed = NULL;
        if (asprintf(&rotated, "%s.%u", path, i) < 0 || asprintf(&packed, "%s.%u.gz", path, i) < 0) {
            abort();
        }
        bool plain = access(rotated, F_OK) == 0, there = plain || access(packed, F_OK) == 0;
        files += there && log_read(find, identity, plain ? rotated : packed, &bytes, bound);
        free(rotated);
        free(packed);
        if (!there) {
            break;
        }
    }
    operator_progress("log, MiB", bytes >> 20, bytes >> 20);
    find_searched(find, "%u delivery log file%s, %" PRIu64 " bytes%s", files, files == 1 ? "" : "s", bytes,
                  bytes < bound ? "" : " (not all: --deep looks at the others)");
}

void find_history(struct find *find) {
    struct identity *identity = NULL;
    if (find->kind == FIND_MESSAGE) {
        char *path = identity_key_path(find->call.config);
        identity = identity_load(path);
        if (!identity) {
            cli_complain(CLI_NO_INPUT, find_name,
                         "the identity key %s cannot be read, and Message-IDs are hashes under it: run this as root.", path);
        }
        free(path);
    }
    events_search(find, identity);
    logs_search(find, identity);
    if (identity) {
        identity_free(identity);
    }
}
