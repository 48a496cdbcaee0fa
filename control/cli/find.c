/* find.c: `bypost find`: where a recipient, a job or a message is, what happened to it, and when it is tried next. */
#include "control/clock.h"
#include "control/fetch/entry.h"
#include "find.h"
#include "functions.h"
#include "token.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char help[] =
    "Usage: bypost find RECIPIENT|ID|ENTRY|MESSAGE-ID|VERP-ADDRESS [--deep] [--json]\n\n"
    "Looks for an address, a job's id, an entry of a stream (1795317974799-0), a Message-ID or a VERP address, which tells the\n"
    "job and the recipient (b+TOKEN@bounces.example.com): in what control has in hand,\n"
    "in waiting records, events, delivery logs (rotated ones too), dead letters and suppression lists. Says where it is,\n"
    "what happened, the last reply and the next try.\n\n"
    "      --deep                the queues' streams too, and everything without a bound. Without it: 200,000 waiting\n"
    "                            records, 100,000 events and 2 GiB of logs, the latest first\n"
    "      --json                one JSON object\n"
    "  -c, --config FILE         the configuration (/etc/bypost/bypost.yaml)\n"
    "      --redis ADDRESS       HOST:PORT or unix:PATH instead of the configuration's\n"
    "      --help, --version\n\n"
    "Exit status: 0 found, 1 not found (what was searched is said), 64 usage, 69 Redis does not answer, 75 Redis is busy,\n"
    "78 the configuration has errors.\n";

const char find_name[] = "find";

enum { CONTROL_TIMEOUT_MS = 5000, RECORDS_MAX = 200000, SEEK_STEP = 500, NEEDLES = 1, QUEUES_STEP = 100, DEAD_MAX = 10000 };

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

void find_add(struct find *find, json_t *finding) {
    if (finding && json_array_size(find->findings) < FINDINGS_MAX) {
        json_array_append_new(find->findings, finding);
    } else {
        json_decref(finding);
    }
}

void find_searched(struct find *find, const char *format, ...) {
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    json_array_append_new(find->searched, json_string(text));
}

/* --- in hand --- */

static void find_hand(struct find *find) {
    char *request = NULL, error[CLI_ERROR_BYTES];
    if (asprintf(&request, "find %s", find->wanted) < 0) {
        abort();
    }
    json_t *root = cli_control(find->call.config->run_directory, request, CONTROL_TIMEOUT_MS, error), *one;
    size_t index;
    json_array_foreach(json_object_get(root, "found"), index, one) {
        const char *state = text_of(one, "state");
        bool flight = strcmp(state, "envelope sent") == 0 || strcmp(state, "body sent") == 0 || strcmp(state, "claimed") == 0;
        json_object_set_new(one, "status", json_string(flight ? "in flight" : "queued"));
        find_add(find, json_incref(one));
    }
    find_searched(find, root ? "what control has in hand" : "NOT what control has in hand: %s", error);
    json_decref(root);
    free(request);
}

/* --- entries and records --- */

/* What a list's record or a stream's entry is found as. */
struct place {
    const char *kind; /* "retry", "hold", "park", "decision", "stream" */
    const char *queue, *hold;
    uint64_t until_ms;
    const char *reason, *site;
    uint32_t shard;
};

static bool recipient_wanted(const struct find *find, const struct job *job, uint32_t index) {
    const struct job_recipient *recipient = job_recipient(job, index);
    char origin[ENTRY_ID_BYTES], entry[ENTRY_ID_BYTES];
    entry_id_write(job->history.origin, origin);
    entry_id_write(job->entry, entry);
    if (find->job[0] && strcmp(find->job, origin) != 0) {
        return false;
    }
    if (find->has_index && index != find->index) {
        return false;
    }
    if (find->kind == FIND_RECIPIENT) {
        return recipient && strcasecmp(recipient->mailbox.email, find->wanted) == 0;
    }
    return (job->id && strcmp(job->id, find->wanted) == 0) || strcmp(origin, find->wanted) == 0 || strcmp(entry, find->wanted) == 0;
}

static void job_add(struct find *find, const struct place *place, const struct job *job) {
    char origin[ENTRY_ID_BYTES];
    entry_id_write(job->history.origin, origin);
    for (uint32_t i = 0; i < job->pending_count; i++) {
        const struct job_recipient *recipient = job_recipient(job, job->pending[i]);
        if (!recipient_wanted(find, job, job->pending[i])) {
            continue;
        }
        bool waits = strcmp(place->kind, "stream") != 0;
        json_t *one = json_pack("{s:s, s:s, s:s*, s:s*, s:s, s:s, s:i, s:I, s:s*, s:s*, s:s*}", "status", waits ? "waiting" : "queued",
                                "where", place->kind, "recipient", recipient ? recipient->mailbox.email : NULL, "id", job->id, "job",
                                origin, "queue", place->queue, "attempts", job->history.attempt, "queued_ms",
                                (json_int_t)job->history.first_queued_ms, "class", place->reason, "site", place->site, "hold", place->hold);
        if (one && place->until_ms) {
            json_object_set_new(one, "until_ms", json_integer((json_int_t)place->until_ms));
        }
        find_add(find, one);
    }
}

/* Decodes what stands in Redis; a part that cannot be understood is shown as such. */
static void entry_add(struct find *find, const struct place *place, struct entry_id id, const char *job_text, size_t job_length,
                      const char *history, bool subset, const redisReply *progress) {
    struct entry_view view = {.id = id,
                              .job = job_text,
                              .job_length = job_length,
                              .history = *history ? history : NULL,
                              .history_length = strlen(history),
                              .is_subset = subset};
    char error[512];
    if (progress && progress->type == REDIS_REPLY_STRING && progress->len > PROGRESS_COUNT_BYTES) {
        view.bits = (const uint8_t *)progress->str + PROGRESS_COUNT_BYTES;
        view.bits_length = progress->len - PROGRESS_COUNT_BYTES;
    }
    struct job *job = entry_decode(&view, find->call.config, place->shard, place->queue, *history != '\0', error, sizeof error);
    if (job) {
        job_add(find, place, job);
        job_release(job);
    } else {
        find_add(find, json_pack("{s:s, s:s, s:s, s:s}", "status", "queued", "where", place->kind, "queue", place->queue, "note", error));
    }
}

/* {member, head, field, job} of a list. */
static void record_add(struct find *find, struct place place, const redisReply *found) {
    char member[512], history[HISTORY_HEAD_BYTES + RANGES_BYTES], tail[512];
    const char *head = operator_text(found, 1), *cut = head;
    snprintf(member, sizeof member, "%s", operator_text(found, 0));
    for (int words = 0; *cut && words < 6; cut++) {
        words += *cut == ' ';
    }
    snprintf(history, sizeof history, "%.*s", (int)(cut - head - (cut > head && cut[-1] == ' ')), head);
    snprintf(tail, sizeof tail, "%s", cut);
    char *rest = NULL, *site = strtok_r(tail, " ", &rest), *class = strtok_r(NULL, " ", &rest);
    place.site = site && strcmp(site, "-") != 0 ? site : NULL;
    place.reason = class && strcmp(class, "-") != 0 ? class : NULL;
    char *colon = strchr(member, ':');
    place.queue = member;
    if (colon) {
        *colon = '\0';
    }
    if (strcmp(place.kind, "retry") == 0 && colon) {
        char *hold = strchr(colon + 1, ':');
        place.until_ms = strtoull(colon + 1, NULL, 10);
        place.hold = hold ? hold + 1 : NULL;
        place.kind = hold ? "hold" : "retry";
    }
    if (strlen(place.queue) <= QUEUE_NAME_MAX && found->elements >= 4 && found->element[3]->type == REDIS_REPLY_STRING) {
        entry_add(find, &place, (struct entry_id){0, 0}, found->element[3]->str, found->element[3]->len, history,
                  strcmp(operator_text(found, 2), "s") == 0, NULL);
    }
}

/* {stream, ID, job, progress, r, s} */
static void stream_add(struct find *find, struct place place, const redisReply *found) {
    struct entry_id id = {0, 0};
    const char *text = operator_text(found, 1), *whole = operator_text(found, 4), *part = operator_text(found, 5);
    if (found->elements >= 6 && found->element[2]->type == REDIS_REPLY_STRING && entry_id_parse(text, strlen(text), &id)) {
        entry_add(find, &place, id, found->element[2]->str, found->element[2]->len, *part ? part : whole, *part != '\0', found->element[3]);
    }
}

/* Steps through lists or a stream until all was looked at, or the bound is reached. */
static bool seek(struct find *find, uint32_t shard, const char *what, const char *name, uint64_t *looked, uint64_t bound) {
    char cursor[64] = "", limit[16];
    snprintf(limit, sizeof limit, "%d", SEEK_STEP);
    do {
        const char *argv[] = {"seek", what, name, cursor, limit, find->needle};
        redisReply *reply = operator_function(&find->call, shard, "bypost_inspect", 6, argv);
        if (!reply) {
            return false;
        }
        snprintf(cursor, sizeof cursor, "%s", operator_text(reply, 0));
        *looked += (uint64_t)operator_number(reply, 1);
        const redisReply *found = reply->elements >= 3 ? reply->element[2] : NULL;
        for (size_t i = 0; found && i < found->elements; i++) {
            bool stream = strcmp(what, "stream") == 0;
            struct place place = {.kind = strcmp(what, "held") == 0 ? "decision" : what, .queue = name, .shard = shard};
            if (stream) {
                place.queue = strncmp(name, "retry:", 6) == 0 ? name + 6 : name;
                stream_add(find, place, found->element[i]);
            } else {
                record_add(find, place, found->element[i]);
            }
        }
        freeReplyObject(reply);
        operator_progress(strcmp(what, "stream") == 0 ? "streams" : "waiting records", *looked, *looked + SEEK_STEP);
    } while (*cursor && *looked < bound);
    return true;
}

/* The names of a shard's queues, one after the other. */
static void queues_each(struct find *find, uint32_t shard, void (*each)(struct find *find, uint32_t shard, const json_t *row)) {
    for (long long offset = 0; offset >= 0;) {
        char from[24], count[16];
        snprintf(from, sizeof from, "%lld", offset);
        snprintf(count, sizeof count, "%d", QUEUES_STEP);
        const char *argv[] = {"queues", from, count};
        redisReply *reply = operator_function(&find->call, shard, "bypost_inspect", 3, argv);
        json_t *rows = reply ? json_loads(operator_text(reply, 1), 0, NULL) : NULL, *row;
        size_t index;
        long long next = operator_number(reply, 0);
        offset = next > offset ? next : -1;
        json_array_foreach(rows, index, row) {
            each(find, shard, row);
        }
        json_decref(rows);
        if (reply) {
            freeReplyObject(reply);
        }
    }
}

static void decisions_seek(struct find *find, uint32_t shard, const json_t *row) {
    if (json_integer_value(json_object_get(row, "deciding")) > 0) {
        seek(find, shard, "held", text_of(row, "queue"), &find->records, find->deep ? UINT64_MAX : RECORDS_MAX);
    }
}

static void streams_seek(struct find *find, uint32_t shard, const json_t *row) {
    char stream[QUEUE_NAME_MAX + 16];
    const char *queue = text_of(row, "queue");
    if (json_integer_value(json_object_get(row, "entries")) > 0) {
        seek(find, shard, "stream", queue, &find->entries, UINT64_MAX);
    }
    if (json_integer_value(json_object_get(row, "retry_entries")) > 0) {
        snprintf(stream, sizeof stream, "retry:%.47s", queue);
        seek(find, shard, "stream", stream, &find->entries, UINT64_MAX);
    }
}

static void find_waiting(struct find *find) {
    uint64_t bound = find->deep ? UINT64_MAX : RECORDS_MAX;
    bool whole = true;
    for (uint32_t shard = 0; shard < find->call.config->redis.shards; shard++) {
        uint64_t retries = 0, parks = 0;
        whole &= seek(find, shard, "retry", "", &retries, bound) && seek(find, shard, "park", "", &parks, bound);
        whole &= retries < bound && parks < bound;
        find->records += retries + parks;
        queues_each(find, shard, decisions_seek);
    }
    operator_progress("waiting records", find->records, find->records);
    find_searched(find, "%" PRIu64 " waiting records%s", find->records, whole ? "" : " (not all: --deep looks at the others)");
    if (find->deep) {
        for (uint32_t shard = 0; shard < find->call.config->redis.shards; shard++) {
            queues_each(find, shard, streams_seek);
        }
        operator_progress("streams", find->entries, find->entries);
        find_searched(find, "%" PRIu64 " entries of streams", find->entries);
    } else {
        find_searched(find, "NOT the queues' streams (--deep)");
    }
}

/* A job's id names its entry. */
static void find_id(struct find *find) {
    uint32_t shard = functions_shard(find->wanted, find->call.config->redis.shards);
    char *suffix = NULL, *key = NULL, queue[QUEUE_NAME_MAX + 1] = "", entry[64] = "";
    if (asprintf(&suffix, "id:%s", find->wanted) < 0) {
        abort();
    }
    key = cli_key(find->call.config, shard, suffix);
    const char *argv[] = {"GET", key};
    redisReply *reply = operator_run(&find->call, 2, argv);
    if (reply && reply->type == REDIS_REPLY_STRING && sscanf(reply->str, "%47s %63s", queue, entry) == 2) {
        find_add(find, json_pack("{s:s, s:s, s:s, s:s}", "status", "submitted", "queue", queue, "job", entry, "id", find->wanted));
        char stream[QUEUE_NAME_MAX + 8];
        snprintf(stream, sizeof stream, "q:%s", queue);
        char *name = cli_key(find->call.config, shard, stream);
        const char *range[] = {"XRANGE", name, entry, entry};
        redisReply *found = operator_run(&find->call, 4, range);
        if (found && found->type == REDIS_REPLY_ARRAY && found->elements == 1) {
            struct entry_view view;
            if (entry_view_take(found->element[0], &view) && view.job) {
                char *job = strndup(view.job, view.job_length);
                struct place place = {.kind = "stream", .queue = queue, .shard = shard};
                entry_add(find, &place, view.id, view.job, view.job_length, "", false, NULL);
                free(job);
            }
        }
        if (found) {
            freeReplyObject(found);
        }
        free(name);
    }
    if (reply) {
        freeReplyObject(reply);
    }
    free(key);
    free(suffix);
    find_searched(find, "ids of the last 7 days");
}

/* --- dead letters and lists --- */

static void find_dead(struct find *find) {
    uint64_t looked = 0;
    for (uint32_t shard = 0; shard < find->call.config->redis.shards; shard++) {
        char *key = cli_key(find->call.config, shard, "dead"), last[64] = "+";
        for (bool more = true; more && looked < DEAD_MAX;) {
            const char *argv[] = {"XREVRANGE", key, last, "-", "COUNT", "500"};
            redisReply *reply = operator_run(&find->call, 6, argv);
            more = reply && reply->type == REDIS_REPLY_ARRAY && reply->elements > 0;
            for (size_t i = 0; more && i < reply->elements; i++) {
                const redisReply *fields = reply->element[i]->elements >= 2 ? reply->element[i]->element[1] : NULL;
                const char *job = "", *reason = "", *queue = "", *entry = "";
                size_t length = 0;
                for (size_t f = 0; fields && f + 1 < fields->elements; f += 2) {
                    const char *field = operator_text(fields, f), *value = operator_text(fields, f + 1);
                    if (strcmp(field, "job") == 0) {
                        job = value;
                        length = fields->element[f + 1]->len;
                    }
                    reason = strcmp(field, "reason") == 0 ? value : reason;
                    queue = strcmp(field, "queue") == 0 ? value : queue;
                    entry = strcmp(field, "entry") == 0 ? value : entry;
                }
                if (memmem(job, length, find->wanted, strlen(find->wanted)) || strcmp(entry, find->wanted) == 0) {
                    find_add(find, json_pack("{s:s, s:s, s:s, s:s}", "status", "dead", "queue", queue, "job", entry, "reason", reason));
                }
                snprintf(last, sizeof last, "(%.60s", operator_text(reply->element[i], 0));
                looked++;
            }
            if (reply) {
                freeReplyObject(reply);
            }
        }
        free(key);
    }
    find_searched(find, "%" PRIu64 " dead letters", looked);
}

static void find_suppressed(struct find *find) {
    char *base = NULL, *key = NULL, now[24], address[512];
    const char *at = strrchr(find->wanted, '@');
    if (!at || asprintf(&base, "%s:{u}:suppress:", find->call.config->redis.prefix) < 0 || asprintf(&key, "%sversion", base) < 0) {
        return;
    }
    snprintf(now, sizeof now, "%" PRIu64, clock_ms(CLOCK_REALTIME) / 1000);
    snprintf(address, sizeof address, "%s", find->wanted);
    for (char *c = address; *c; c++) {
        *c = (char)tolower((unsigned char)*c);
    }
    const char *argv[] = {"FCALL", "bypost_suppressed", "1", key, base, now, "", address, strchr(address, '@')};
    find->call.answers_errors = true; /* another layout of the lists is no reason to find nothing at all */
    redisReply *reply = operator_run(&find->call, 9, argv);
    find->call.answers_errors = false;
    for (size_t i = 0; reply && reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++) {
        const redisReply *entry = reply->element[i];
        const char *reason = entry->type == REDIS_REPLY_STRING ? entry->str : operator_text(entry, 1);
        char word[64] = "";
        sscanf(reason, "%*s %63s", word); /* list, reason, who, when */
        reason = *word ? word : reason;
        if (*reason) {
            find_add(find, json_pack("{s:s, s:s, s:s}", "status", "suppressed", "recipient", i == 0 ? find->wanted : at, "reason", reason));
        }
    }
    if (reply) {
        freeReplyObject(reply);
    }
    free(base);
    free(key);
    find_searched(find, "the suppression list for all tenants");
}

/* --- the answer --- */

static const char *time_text(json_int_t ms, char out[32]) {
    time_t seconds = (time_t)(ms / 1000);
    struct tm parts;
    return gmtime_r(&seconds, &parts) && strftime(out, 32, "%Y-%m-%d %H:%M:%SZ", &parts) ? out : "?";
}

/* The last reply of the same recipient and job, from the history. */
static const json_t *reply_of(const struct find *find, const json_t *finding) {
    const json_t *last = NULL;
    json_t *one;
    size_t index;
    json_array_foreach(find->findings, index, one) {
        if (json_object_get(one, "event") && strcmp(text_of(one, "recipient"), text_of(finding, "recipient")) == 0 &&
            strcmp(text_of(one, "job"), text_of(finding, "job")) == 0 &&
            (!last || json_real_value(json_object_get(one, "at")) >= json_real_value(json_object_get(last, "at")))) {
            last = one;
        }
    }
    return last;
}

static void reply_print(const json_t *event) {
    const json_t *response = json_object_get(json_object_get(event, "event"), "response");
    if (json_is_object(response)) {
        cli_print(stdout, "%" JSON_INTEGER_FORMAT " %s ", json_integer_value(json_object_get(response, "code")),
                  text_of(response, "enhanced_code"));
        cli_print(stdout, "%s", text_of(response, "content"));
    }
}

static void finding_print(const struct find *find, const json_t *one) {
    const char *status = text_of(one, "status"), *where = text_of(one, "where");
    json_int_t until = json_integer_value(json_object_get(one, "until_ms")), now = (json_int_t)clock_ms(CLOCK_REALTIME);
    char when[32], span[32];
    cli_print(stdout, "%s", *text_of(one, "recipient") ? text_of(one, "recipient") : find->wanted);
    cli_print(stdout, "  %s", status);
    if (strcmp(status, "waiting") == 0) {
        const json_t *last = reply_of(find, one);
        if (strcmp(where, "hold") == 0) {
            cli_print(stdout, " for the end of hold %s (`bypost holds`)", text_of(one, "hold"));
        } else if (strcmp(where, "decision") == 0) {
            cli_print(stdout, " for a decision: it may have arrived (`bypost retry --queue %s` sends it again, `bypost bounce` ends it)",
                      text_of(one, "queue"));
        } else if (strcmp(where, "park") == 0) {
            cli_print(stdout, " for room in the window of %s", text_of(one, "site"));
        } else if (until > now) {
            cli_print(stdout, " until %s (in %s)", time_text(until, when), operator_span((uint64_t)(until - now), span));
        } else {
            cli_print(stdout, ", due now");
        }
        if (last || *text_of(one, "class")) {
            cli_print(stdout, ", because of ");
            if (last) {
                reply_print(last);
            } else {
                cli_print(stdout, "%s", text_of(one, "class"));
            }
        }
    } else if (strcmp(status, "in flight") == 0) {
        cli_print(stdout, " at worker %" JSON_INTEGER_FORMAT " (%s)", json_integer_value(json_object_get(one, "worker")),
                  text_of(one, "state"));
    } else if (strcmp(status, "queued") == 0) {
        cli_print(stdout, strcmp(where, "stream") == 0 ? " in the stream of queue %s" : " in control's hand (%s)",
                  strcmp(where, "stream") == 0 ? text_of(one, "queue") : where);
    } else if (json_object_get(one, "event")) {
        cli_print(stdout, " at %s: ", time_text((json_int_t)(json_real_value(json_object_get(one, "at")) * 1000), when));
        reply_print(one);
    } else if (*text_of(one, "reason")) {
        cli_print(stdout, ": ");
        cli_print(stdout, "%s", text_of(one, "reason"));
    }
    if (strcmp(status, "suppressed") == 0 && !*text_of(one, "job")) {
        cli_print(stdout, " (`bypost suppress check %s`)\n", find->wanted);
        return;
    }
    if (*text_of(one, "note")) {
        cli_print(stdout, " (");
        cli_print(stdout, "%s", text_of(one, "note"));
        putchar(')');
    }
    cli_print(stdout, "\n    job %s", *text_of(one, "job") ? text_of(one, "job") : "-");
    if (*text_of(one, "id")) {
        cli_print(stdout, ", id ");
        cli_print(stdout, "%s", text_of(one, "id"));
    }
    cli_print(stdout, ", queue %s", *text_of(one, "queue") ? text_of(one, "queue") : "-");
    if (*text_of(one, "site")) {
        cli_print(stdout, ", site ");
        cli_print(stdout, "%s", text_of(one, "site"));
    }
    if (json_object_get(one, "attempts")) {
        cli_print(stdout, ", attempts %" JSON_INTEGER_FORMAT, json_integer_value(json_object_get(one, "attempts")));
    }
    putchar('\n');
}

static void answer_print(const struct find *find, bool json) {
    json_t *one;
    size_t index, count = json_array_size(find->findings);
    if (json) {
        json_t *root = json_pack("{s:s, s:O, s:O}", "wanted", find->given, "found", find->findings, "searched", find->searched);
        json_dumpf(root, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(root);
        return;
    }
    json_array_foreach(find->findings, index, one) {
        finding_print(find, one);
    }
    cli_print(stdout, count ? "searched: " : "%s is unknown. Searched: ", find->given);
    json_array_foreach(find->searched, index, one) {
        cli_print(stdout, "%s%s", index ? ", " : "", json_string_value(one));
    }
    puts(".");
}

static bool is_entry(const char *text) {
    struct entry_id id;
    return entry_id_parse(text, strlen(text), &id);
}

static void find_begin(struct find *find, const char *wanted) {
    size_t length = strlen(wanted);
    find->given = wanted;
    if (length > 2 && wanted[0] == '<' && wanted[length - 1] == '>') {
        find->wanted = strndup(wanted + 1, length - 2);
    } else {
        find->wanted = strdup(wanted);
    }
    const char *at = strrchr(find->wanted, '@');
    char entry[48];
    find->kind = !at ? FIND_ID : FIND_RECIPIENT;
    find->has_index = at && verp_entry(find->call.config, find->wanted, entry, &find->index);
    if (find->has_index) {
        free(find->wanted);
        find->wanted = strdup(entry);
        find->kind = FIND_ENTRY;
    } else if (at && strspn(find->wanted, "0123456789abcdef") == 32 && find->wanted + 32 == at) {
        find->kind = FIND_MESSAGE;
    } else if (!at && is_entry(find->wanted)) {
        find->kind = FIND_ENTRY;
    }
}

static int find_all(struct find *find, bool json) {
    if (find->kind == FIND_MESSAGE) { /* its name is a keyed hash: the history tells whose it is */
        find_history(find);
        if (json_array_size(find->findings) == 0) {
            find_searched(find, "NOT what never had an attempt: a Message-ID alone does not tell whose it is");
            answer_print(find, json);
            return CLI_FAILED;
        }
        const json_t *first = json_array_get(find->findings, 0);
        snprintf(find->job, sizeof find->job, "%s", text_of(first, "job"));
        free(find->wanted);
        find->wanted = strdup(text_of(first, "recipient"));
        find->kind = FIND_RECIPIENT;
        json_array_clear(find->findings);
        json_array_clear(find->searched);
    }
    free(find->needle);
    find->needle = strdup(find->wanted);
    for (char *c = find->needle; *c; c++) {
        *c = (char)tolower((unsigned char)*c);
    }
    find_hand(find);
    find_waiting(find);
    if (find->kind == FIND_ID) {
        find_id(find);
    }
    find_history(find);
    find_dead(find);
    if (find->kind == FIND_RECIPIENT) {
        find_suppressed(find);
    }
    if (find->call.code == CLI_OK) {
        answer_print(find, json);
    }
    return find->call.code != CLI_OK ? find->call.code : json_array_size(find->findings) ? CLI_OK : CLI_FAILED;
}

static int find_run(int argc, char **argv) {
    enum { OPTION_DEEP = 1, OPTION_JSON, OPTION_REDIS };
    static const struct option options[] = {{"deep", no_argument, NULL, OPTION_DEEP},
                                            {"json", no_argument, NULL, OPTION_JSON},
                                            {"redis", required_argument, NULL, OPTION_REDIS},
                                            {"config", required_argument, NULL, 'c'},
                                            {NULL, 0, NULL, 0}};
    const char *config = NULL, *redis = NULL;
    struct find find = {0};
    bool json = false;
    for (int option; (option = getopt_long(argc, argv, "c:", options, NULL)) != -1;) {
        switch (option) {
        case OPTION_DEEP:
            find.deep = true;
            break;
        case OPTION_JSON:
            json = true;
            break;
        case OPTION_REDIS:
            redis = optarg;
            break;
        case 'c':
            config = optarg;
            break;
        default:
            return cli_usage(find_name);
        }
    }
    if (optind + 1 != argc || !*argv[optind]) {
        return cli_complain(CLI_USAGE, find_name, "name one recipient, job id, entry or Message-ID.");
    }
    for (const char *c = argv[optind]; *c; c++) {
        if (iscntrl((unsigned char)*c)) {
            return cli_complain(CLI_USAGE, find_name, "no control characters, please.");
        }
    }
    if (!operator_open(&find.call, find_name, config, redis)) {
        return find.call.code;
    }
    find.findings = json_array();
    find.searched = json_array();
    find_begin(&find, argv[optind]);
    int code = find_all(&find, json);
    json_decref(find.findings);
    json_decref(find.searched);
    free(find.wanted);
    free(find.needle);
    operator_close(&find.call);
    return code;
}

const struct cli_command find_command = {"find", "where is a recipient, what happened", help, find_run};
