/* campaign_create.c: `bypost campaign create`: a content and its recipients into Redis, as fast as Redis takes them, each once. */
#include "campaign.h"
#include "campaign_batch.h"
#include "campaign_content.h"
#include "campaign_upload.h"
#include "control/clock.h"
#include "control/config/units.h"
#include "control/fetch/fetch.h"
#include "functions.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/sha256.h>

const char campaign_create_help[] =
    "Usage: bypost campaign create NAME --content FILE.yaml --recipients FILE [OPTIONS]\n\n"
    "Checks a content and its recipients as the sender will, and submits them. Run again after a break (with the same files\n"
    "and options) it goes on where it was, and nobody is submitted twice. While the queue is full it waits.\n\n"
    "      --content FILE        YAML: from, subject, text or text_file, html or html_file, headers, attachments, reply_to,\n"
    "                            list_unsubscribe, ... (deploy/examples/campaign)\n"
    "      --recipients FILE     CSV with a header: `email` (or `to`), `name` (shown, and merge data), every other column is merge\n"
    "                            data; or JSON Lines: {\"to\", \"merge_data\", \"metadata\", \"headers\"}; - is standard input\n"
    "      --map COLUMN=FIELD    what a column is: email, name, metadata.KEY, a name of merge data, or - (left out); repeatable\n"
    "      --dedupe              each address once, letters without case; takes 16 to 43 bytes of memory an address\n"
    "      --dedupe-memory SIZE  ... and at most so much (512M, for 25 million)\n"
    "      --allow-missing       goes on where a variable of the content has no value: such recipients get no message\n"
    "      --rejects FILE        rows that are wrong, with their line and reason (NAME.rejected)\n"
    "      --strict              reads all of the file first, and submits nothing when a row is wrong\n"
    "      --dry-run             checks only; Redis is not needed\n\n"
    "      --weight N            its share beside other campaigns (1)\n"
    "      --rate N/s            recipients at most, of all senders\n"
    "      --not-before TIME, --expires TIME   +2h, 2026-12-24T18:00:00+01:00, Unix seconds\n"
    "      --window FROM-TO      daily hours, as in '08:00-20:00 Europe/Berlin' (this machine's zone; the hour of summer time\n"
    "                            stays as it is on the day of this command)\n"
    "      --tenant NAME, --pool NAME\n"
    "      --hold                starts paused: `bypost campaign resume NAME` lets it go\n"
    "      --chunk N             recipients an entry (200)\n\n"
    "      --quiet               no progress\n"
    "      --json                the result as a JSON object\n"
    "      --redis ADDRESS       HOST:PORT or unix:/PATH, instead of the configuration's\n"
    "  -c, --config FILE         the configuration (/etc/bypost/bypost.yaml)\n\n"
    "Exit status: 0 all is submitted, 1 failed, 64 usage, 65 the content, the file or (--strict) a row is wrong, 66 a file cannot\n"
    "be read, 69 Redis does not answer (run it again), 73 the rejects cannot be written, 78 the configuration has errors.\n";

enum {
    CHUNK_DEFAULT = 200,
    DEDUPE_DEFAULT_MIB = 512,
    REJECTS_SHOWN = 10, /* on the terminal; the file has all */
    SOURCE_BYTES = 512,
    PREFIX_BYTES = 1024,
    PROGRESS_TERMINAL_MS = 200,
    PROGRESS_LINES_MS = 5000,
};

struct create {
    struct campaign_options common;
    const char *name, *content_path, *recipients_path, *rejects_path, *tenant, *pool;
    const char *maps[ROWS_MAPS_MAX];
    uint32_t map_count;
    struct campaign_fields fields;
    unsigned long chunk;
    uint64_t dedupe_bytes, expires_ms;
    bool dedupe, strict, hold, quiet, dry_run, allow_missing;

    struct campaign_client client;
    struct campaign_content content;
    int descriptor;
    uint64_t file_bytes; /* 0: unknown */
    char source[SOURCE_BYTES], prefix[PREFIX_BYTES];
    struct rows rows;
    struct dedupe seen;
    struct batch batch;
    struct upload upload;
    FILE *rejects;
    char *rejects_made; /* its name, when NAME.rejected */
    bool rejects_failed, checking, telling, full_told;
    bool prechecking, lacking; /* JSON Lines are read once before: the row that is looked at lacks a variable */
    uint64_t incomplete_line;  /* the first that does */
    char incomplete[ROW_ERROR_BYTES];
    uint64_t rejected, recipients, started_ms, told_ms, told_recipients;
};

/* -- what users see -- */

static void progress_tell(struct create *create, bool last) {
    uint64_t now = clock_ms(CLOCK_MONOTONIC), every = isatty(STDERR_FILENO) ? PROGRESS_TERMINAL_MS : PROGRESS_LINES_MS;
    if (create->quiet || (!last && now - create->told_ms < every) || (last && !create->telling)) {
        return;
    }
    uint64_t passed = now - create->told_ms;
    double rate = passed ? (double)(create->recipients - create->told_recipients) * 1000.0 / (double)passed : 0;
    double part = create->file_bytes ? (double)create->rows.taken / (double)create->file_bytes : 0;
    part = part > 1 ? 1 : part;
    char left[64] = "";
    if (part > 0 && !last) {
        uint64_t seconds = (uint64_t)((double)(now - create->started_ms) / 1000.0 * (1 - part) / part);
        snprintf(left, sizeof left, ", %3.0f %%, %" PRIu64 ":%02" PRIu64 " left", part * 100, seconds / 60, seconds % 60);
    }
    char text[160];
    snprintf(text, sizeof text, "%s: %s%" PRIu64 " recipients, %.0f/s%s", create->name, create->checking ? "checking, " : "",
             create->recipients, rate, left);
    if (isatty(STDERR_FILENO)) {
        char bar[25];
        unsigned filled = (unsigned)(part * (sizeof bar - 1));
        for (unsigned i = 0; i < sizeof bar - 1; i++) {
            bar[i] = i < filled ? '#' : '.';
        }
        bar[sizeof bar - 1] = 0;
        fprintf(stderr, "\r%s%s%s%s\x1b[K%s", create->file_bytes ? "[" : "", create->file_bytes ? bar : "", create->file_bytes ? "] " : "",
                text, last ? "\n" : "");
    } else if (!last) {
        fprintf(stderr, "%s\n", text);
    }
    create->telling = !last;
    create->told_ms = now;
    create->told_recipients = create->recipients;
}

static void line_clear(const struct create *create) {
    if (create->telling && isatty(STDERR_FILENO)) {
        fputs("\r\x1b[K", stderr);
    }
}

static void on_full(void *context, const char *error) {
    struct create *create = context;
    if (!create->full_told) {
        line_clear(create);
        cli_print(stderr, "bypost campaign: waiting for room in the queue (%.200s)\n", error);
        create->full_told = true;
    }
    progress_tell(create, false);
}

static const char *source_name(const struct create *create) {
    return strcmp(create->recipients_path, "-") == 0 ? "standard input" : create->recipients_path;
}

static bool on_complete(void *context, const struct job_recipient *recipient, char *error) {
    struct create *create = context;
    create->lacking = !variables_given(&create->content.variables, recipient->merge_data, error);
    return !create->lacking;
}

static void on_rejected(void *context, uint64_t line, const char *reason) {
    struct create *create = context;
    if (create->lacking && !create->incomplete_line) {
        create->incomplete_line = line;
        snprintf(create->incomplete, sizeof create->incomplete, "%s", reason);
    }
    create->lacking = false;
    if (create->prechecking) { /* told when it is left out */
        create->rejected++;
        return;
    }
    const char *file = source_name(create);
    if (create->rejected++ < REJECTS_SHOWN) {
        line_clear(create);
        cli_print(stderr, "%s:%" PRIu64 ": %s\n", file, line, reason);
    }
    if (!create->rejects && !create->rejects_failed && !create->checking) {
        create->rejects = fopen(create->rejects_path, "we");
        create->rejects_failed = create->rejects == NULL;
        if (create->rejects_failed) {
            cli_complain(CLI_CANNOT_MAKE, CAMPAIGN, "%s cannot be written: %m. Name another file with --rejects.", create->rejects_path);
        }
    }
    if (create->rejects) {
        fprintf(create->rejects, "%s:%" PRIu64 ": %s\n", file, line, reason);
    }
}

/* -- the source -- */

static int source_fault(const struct create *create) {
    return cli_complain(CLI_NO_INPUT, CAMPAIGN, "%s cannot be read: %m.", source_name(create));
}

/* What the upload is made of: the file's bytes (of a stream its first MiB) and the options that make chunks of them. Another source would
 * mean other recipients under the numbers of chunks that are there. */
static int source_identify(struct create *create) {
    wc_Sha256 sha;
    uint8_t digest[WC_SHA256_DIGEST_SIZE];
    struct stat status;
    if (fstat(create->descriptor, &status) != 0 || S_ISDIR(status.st_mode)) {
        errno = S_ISDIR(status.st_mode) ? EISDIR : errno;
        return source_fault(create);
    }
    bool whole = S_ISREG(status.st_mode) && lseek(create->descriptor, 0, SEEK_CUR) == 0;
    create->file_bytes = whole ? (uint64_t)status.st_size : 0;
    wc_InitSha256(&sha);
    if (whole) {
        static uint8_t block[ROWS_BLOCK_BYTES];
        ssize_t got;
        while ((got = read(create->descriptor, block, sizeof block)) > 0) {
            wc_Sha256Update(&sha, block, (word32)got);
        }
        if (got < 0 || lseek(create->descriptor, 0, SEEK_SET) != 0) {
            return source_fault(create);
        }
    } else {
        wc_Sha256Update(&sha, create->rows.bytes, (word32)create->rows.end);
    }
    char options[64];
    /* The version, because another decoder may refuse other rows. */
    int length = snprintf(options, sizeof options, "%s %lu %d %d", BYPOST_VERSION, create->chunk, create->dedupe, CHUNK_BYTES_MAX);
    wc_Sha256Update(&sha, (const uint8_t *)options, (word32)length);
    for (uint32_t i = 0; i < create->map_count; i++) {
        wc_Sha256Update(&sha, (const uint8_t *)create->maps[i], (word32)strlen(create->maps[i]) + 1);
    }
    wc_Sha256Final(&sha, digest);
    wc_Sha256Free(&sha);
    const char *slash = strrchr(create->recipients_path, '/');
    length = snprintf(create->source, sizeof create->source, "%.200s %" PRIu64 " ", slash ? slash + 1 : create->recipients_path,
                      create->file_bytes);
    for (int i = 0; i < 16; i++) {
        length += snprintf(create->source + length, sizeof create->source - (size_t)length, "%02x", digest[i]);
    }
    return CLI_OK;
}

static int source_open(struct create *create) {
    char error[ROW_ERROR_BYTES];
    bool is_stdin = strcmp(create->recipients_path, "-") == 0;
    create->descriptor = is_stdin ? STDIN_FILENO : open(create->recipients_path, O_RDONLY | O_CLOEXEC);
    if (create->descriptor < 0) {
        return source_fault(create);
    }
    struct stat status;
    if (fstat(create->descriptor, &status) == 0 && S_ISREG(status.st_mode) && lseek(create->descriptor, 0, SEEK_CUR) == 0) {
        int code = source_identify(create);
        if (code != CLI_OK) {
            return code;
        }
    }
    if (!rows_open(&create->rows, create->descriptor, create->maps, create->map_count, error)) {
        return cli_complain(CLI_DATA, CAMPAIGN, "%s: %s.", source_name(create), error);
    }
    return *create->source ? CLI_OK : source_identify(create);
}

/* To the beginning, for the second pass of --strict. */
static int source_again(struct create *create) {
    char error[ROW_ERROR_BYTES];
    rows_close(&create->rows);
    if (lseek(create->descriptor, 0, SEEK_SET) != 0) {
        return source_fault(create);
    }
    create->recipients = 0;
    if (!rows_open(&create->rows, create->descriptor, create->maps, create->map_count, error)) {
        return cli_complain(CLI_DATA, CAMPAIGN, "%s: %s.", source_name(create), error);
    }
    return CLI_OK;
}

/* -- the upload -- */

static int batch_begin(struct create *create) {
    batch_free(&create->batch);
    dedupe_end(&create->seen);
    if (create->dedupe && !dedupe_begin(&create->seen, create->dedupe_bytes)) {
        return cli_complain(CLI_FAILED, CAMPAIGN, "out of memory.");
    }
    create->batch = (struct batch){.config = create->client.config,
                                   .rows = &create->rows,
                                   .dedupe = create->dedupe ? &create->seen : NULL,
                                   .chunk = (uint32_t)create->chunk,
                                   .rejected = on_rejected,
                                   .complete = create->rows.format == ROWS_JSON && !create->allow_missing ? on_complete : NULL,
                                   .context = create};
    create->started_ms = create->told_ms = clock_ms(CLOCK_MONOTONIC);
    create->told_recipients = 0;
    return CLI_OK;
}

static int batch_fault(const struct create *create) {
    line_clear(create);
    return cli_complain(CLI_NO_INPUT, CAMPAIGN, "%s:%" PRIu64 ": %s.", source_name(create), create->rows.line, create->batch.error);
}

/* -- what the content wants of each recipient -- */

/* Every row of a CSV file has its columns. The address is merge data only where the content names it: it is in every row already. */
static int columns_check(struct create *create) {
    const struct variables *variables = &create->content.variables;
    struct rows *rows = &create->rows;
    bool address = false;
    for (uint32_t i = 0; rows->format == ROWS_CSV && i < variables->count; i++) {
        rows->address_merges = false;
        bool without = rows_merges(rows, variables->names[i]);
        rows->address_merges = true;
        address |= !without && rows_merges(rows, variables->names[i]);
    }
    rows->address_merges = address;
    const char *missing = rows->format == ROWS_CSV && !create->allow_missing ? variables_missing_column(variables, rows) : NULL;
    if (!missing) {
        return CLI_OK;
    }
    char *columns = variables_columns(rows);
    int code =
        cli_complain(CLI_DATA, CAMPAIGN,
                     "%s uses {{%s}}, and no column of %s is called so (it has %s). Say which one it is with --map COLUMN=%s, or give "
                     "it in merge_global_data of the content; --allow-missing goes on all the same. Nothing is submitted.",
                     create->content_path, missing, source_name(create), columns ? columns : "", missing);
    free(columns);
    return code;
}

static int incomplete_fault(const struct create *create) {
    line_clear(create);
    return cli_complain(CLI_DATA, CAMPAIGN, "%s:%" PRIu64 ": %s. %s uses it; --allow-missing goes on all the same. Nothing is submitted.",
                        source_name(create), create->incomplete_line, create->incomplete, create->content_path);
}

/* The first chunk with the content, as the sender will see it. */
static int sample_check(const struct create *create) {
    struct writer text = {.limit = SIZE_MAX / 4};
    char error[2 * ROW_ERROR_BYTES];
    const char *content = create->content.text;
    writer_bytes(&text, content, strlen(content) - 1);
    writer_text(&text, json_object_size(create->content.tree) ? ",\"recipients\":[" : "\"recipients\":[");
    writer_bytes(&text, create->batch.text.bytes, create->batch.text.at - 1);
    writer_text(&text, "]}");
    struct job *job = text.error ? NULL : job_decode(text.bytes, text.at, create->client.config, error, sizeof error);
    int code = job ? CLI_OK : cli_complain(CLI_DATA, CAMPAIGN, "%s: %s", create->content_path, text.error ? "it is too large." : error);
    job_release(job);
    free(text.bytes);
    return code;
}

static void prefix_write(struct create *create) {
    json_t *tree = json_pack("{s:s,s:s,s:s*,s:s*}", "content", create->content.id, "campaign", create->name, "tenant", create->tenant,
                             "pool", create->pool);
    if (create->expires_ms) {
        json_object_set_new(tree, "expires_at", json_integer((json_int_t)(create->expires_ms / 1000)));
    }
    char *text = json_dumps(tree, JSON_COMPACT);
    snprintf(create->prefix, sizeof create->prefix, "%.*s,\"recipients\":[", (int)strlen(text) - 1, text);
    free(text);
    json_decref(tree);
}

static const char *field_of(const redisReply *reply, const char *name) {
    for (size_t i = 1; i + 1 < reply->elements; i += 2) {
        if (strcmp(reply->element[i]->str, name) == 0) {
            return reply->element[i + 1]->str;
        }
    }
    return "";
}

/* Is what is there what this command would make? */
static int existing_check(const struct create *create, const redisReply *reply, bool *complete) {
    const char *source = field_of(reply, "source"), *content = field_of(reply, "content"), *state = field_of(reply, "state");
    const char *name = create->name;
    *complete = strcmp(field_of(reply, "closed"), "1") == 0;
    if (!*source) {
        return cli_complain(CLI_DATA, CAMPAIGN, "the campaign %s was not made by this command: choose another name.", name);
    }
    if (strcmp(source, create->source) != 0) {
        return cli_complain(
            CLI_DATA, CAMPAIGN,
            "the campaign %s was begun with another file, another --chunk, --map or --dedupe, or by another version (then: %s; now: %s): "
            "give the same ones to go on, or choose another name.",
            name, source, create->source);
    }
    if (strcmp(content, create->content.id) != 0) {
        return cli_complain(CLI_DATA, CAMPAIGN,
                            "the campaign %s was begun with another content: give that one to go on, or choose another name.", name);
    }
    if (strcmp(state, "cancelled") == 0 || strcmp(state, "discarded") == 0) {
        return cli_complain(CLI_DATA, CAMPAIGN, "the campaign %s is cancelled%s.", name,
                            *state == 'c' ? ": undo it with `bypost campaign resume` first, or choose another name"
                                          : ": choose another name");
    }
    return CLI_OK;
}

static int content_store(struct create *create) {
    char *key = NULL;
    if (asprintf(&key, "%s:content:%s", create->client.config->redis.prefix, create->content.id) < 0) {
        abort();
    }
    redisContext *redis = create->client.redis;
    redisReply *reply = redisCommand(redis, "SET %s %b", key, create->content.text, strlen(create->content.text));
    int code = !reply || reply->type == REDIS_REPLY_ERROR ? cli_redis_fault(CAMPAIGN, redis, reply) : CLI_OK;
    if (reply) {
        freeReplyObject(reply);
    }
    free(key);
    return code;
}

/* Registers the campaign on every shard, or finds it there. *complete: all of it was submitted before. */
static int campaign_register(struct create *create, bool *complete) {
    int code = content_store(create);
    uint32_t complete_shards = 0, shards = create->client.config->redis.shards;
    for (uint32_t shard = 0; code == CLI_OK && shard < shards; shard++) {
        redisReply *reply = NULL;
        code = campaign_call(&create->client, shard, "bypost_campaign_create", create->name, (int)(2 * create->fields.count),
                             (const char *const *)create->fields.argv, &reply);
        if (code == CLI_OK && reply->elements > 1) {
            bool shard_complete;
            code = existing_check(create, reply, &shard_complete);
            complete_shards += shard_complete;
        }
        if (reply) {
            freeReplyObject(reply);
        }
    }
    *complete = complete_shards == shards;
    return code;
}

/* One pass over the file. `begun`: the first chunk is in the batch already. */
static int pass_run(struct create *create, bool sending, bool begun) {
    int code = CLI_OK;
    enum batch_result result = begun ? BATCH_CHUNK : batch_next(&create->batch);
    for (uint64_t number = 0; code == CLI_OK && result == BATCH_CHUNK && !(create->prechecking && create->incomplete_line); number++) {
        if (sending) {
            code = upload_chunk(&create->upload, number, create->prefix, create->batch.text.bytes, create->batch.text.at - 1,
                                create->batch.count);
        }
        create->recipients += create->batch.count;
        progress_tell(create, false);
        result = code == CLI_OK ? batch_next(&create->batch) : result;
    }
    if (code == CLI_OK && sending) {
        code = upload_finish(&create->upload);
    }
    progress_tell(create, true);
    return code == CLI_OK && result == BATCH_FAULT ? batch_fault(create) : code;
}

static int pass_check(struct create *create, bool begun) {
    create->checking = true;
    int code = pass_run(create, false, begun);
    create->checking = false;
    if (code == CLI_OK && create->rejected && create->strict) {
        code =
            cli_complain(CLI_DATA, CAMPAIGN, "%" PRIu64 " rows are wrong and --strict was given: nothing is submitted.", create->rejected);
    }
    return code;
}

/* Reads JSON Lines to their end: does any lack a variable? */
static int pass_precheck(struct create *create) {
    create->checking = true;
    int code = pass_run(create, false, true);
    create->checking = create->prechecking = false;
    create->rejected = 0;
    return code == CLI_OK && create->incomplete_line ? incomplete_fault(create) : code;
}

static int rows_again(struct create *create) {
    int code = source_again(create);
    code = code == CLI_OK ? columns_check(create) : code;
    code = code == CLI_OK ? batch_begin(create) : code;
    return code == CLI_OK && batch_next(&create->batch) != BATCH_CHUNK ? batch_fault(create) : code;
}

static void summary_print(const struct create *create, bool complete) {
    const struct upload *upload = &create->upload;
    double seconds = (double)(clock_ms(CLOCK_MONOTONIC) - create->started_ms) / 1000.0;
    if (create->common.json) {
        json_t *result = json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:s,s:f,s:b}", "campaign", create->name, "recipients",
                                   (json_int_t)upload->recipients + (json_int_t)upload->recipients_before, "submitted",
                                   (json_int_t)upload->recipients, "chunks", (json_int_t)upload->chunks + (json_int_t)upload->chunks_before,
                                   "rejected", (json_int_t)create->rejected, "repeated", (json_int_t)create->batch.repeated, "content",
                                   create->content.id, "seconds", seconds, "complete_before", complete);
        json_dumpf(result, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(result);
        return;
    }
    if (complete) {
        printf("%s: it was complete before; nothing is submitted.\n", create->name);
        return;
    }
    printf("%s: %" PRIu64 " recipients submitted in %.1f s (%.0f/s)", create->name, upload->recipients, seconds,
           seconds > 0 ? (double)upload->recipients / seconds : 0.0);
    if (upload->recipients_before) {
        printf(", %" PRIu64 " were there before", upload->recipients_before);
    }
    if (create->batch.repeated) {
        printf(", %" PRIu64 " repeated ones left out", create->batch.repeated);
    }
    if (create->rejected) {
        printf(", %" PRIu64 " rows refused (%s)", create->rejected, create->rejects_path);
    }
    puts(create->hold ? ". It is paused: `bypost campaign resume` lets it go." : ".");
}

static int create_upload(struct create *create) {
    bool complete = false;
    static const char *const closed[] = {"closed", "1"};
    prefix_write(create);
    campaign_field(&create->fields, "content", create->content.id);
    campaign_field(&create->fields, "source", create->source);
    if (create->hold) {
        campaign_field(&create->fields, "state", "paused");
    }
    int code = campaign_register(create, &complete);
    code = code == CLI_OK ? upload_begin(&create->upload, &create->client, create->name, create->content.id) : code;
    create->upload.waiting = on_full;
    create->upload.context = create;
    if (code == CLI_OK && !complete) {
        code = pass_run(create, true, true);
        if (code == CLI_OK) {
            code = campaign_call_all(&create->client, "bypost_campaign_set", create->name, 2, closed);
        } else if (code == CLI_UNAVAILABLE || code == CLI_TEMPORARY) {
            fprintf(stderr, "bypost campaign: run the same command again to go on behind the %" PRIu64 " recipients that are submitted.\n",
                    create->upload.recipients + create->upload.recipients_before);
        }
    }
    if (code == CLI_OK) {
        summary_print(create, complete);
    }
    return code;
}

static int create_checked(struct create *create) {
    int code = campaign_content_read(CAMPAIGN, create->content_path, create->client.config, &create->content);
    code = code == CLI_OK ? source_open(create) : code;
    code = code == CLI_OK ? columns_check(create) : code;
    code = code == CLI_OK ? batch_begin(create) : code;
    if (code != CLI_OK) {
        return code;
    }
    create->checking = create->strict || create->dry_run; /* what is refused is told once */
    create->prechecking = !create->checking && create->batch.complete && create->content.variables.count > 0 && create->file_bytes > 0;
    if (create->strict && !create->dry_run && create->file_bytes == 0) {
        return cli_complain(CLI_USAGE, CAMPAIGN, "--strict reads the recipients twice: give them in a file.");
    }
    enum batch_result result = batch_next(&create->batch);
    if (result == BATCH_FAULT) {
        return batch_fault(create);
    }
    if (create->incomplete_line && !create->checking) { /* of a stream the first chunk must do: later ones are refused row by row */
        return incomplete_fault(create);
    }
    if (result == BATCH_END) {
        return cli_complain(CLI_DATA, CAMPAIGN, "%s has no recipient%s.", source_name(create),
                            create->rejected ? " that can be submitted" : ": it has a header only");
    }
    code = sample_check(create);
    if (code == CLI_OK && create->checking) {
        code = pass_check(create, true);
        if (code == CLI_OK && create->dry_run) {
            printf("%s: the content is good, and %" PRIu64 " recipients; %" PRIu64 " rows are wrong, %" PRIu64 " repeated.\n", create->name,
                   create->recipients, create->rejected, create->batch.repeated);
            return create->rejected ? CLI_DATA : CLI_OK;
        }
        code = code == CLI_OK ? rows_again(create) : code;
    } else if (code == CLI_OK && create->prechecking) {
        code = pass_precheck(create);
        code = code == CLI_OK ? rows_again(create) : code;
    }
    return code == CLI_OK ? create_upload(create) : code;
}

/* -- the command line -- */

enum {
    OPTION_CONTENT = 256,
    OPTION_RECIPIENTS,
    OPTION_MAP,
    OPTION_DEDUPE,
    OPTION_DEDUPE_MEMORY,
    OPTION_REJECTS,
    OPTION_STRICT,
    OPTION_DRY_RUN,
    OPTION_ALLOW_MISSING,
    OPTION_TENANT,
    OPTION_POOL,
    OPTION_HOLD,
    OPTION_CHUNK,
    OPTION_QUIET,
    OPTION_JSON,
    OPTION_REDIS,
    OPTION_FIELD /* and behind it */
};
static const char *const option_fields[] = {"weight", "rate", "not_before", "expires_at", "window"};

static bool option_take(struct create *create, int option) {
    switch (option) {
    case OPTION_CONTENT:
        create->content_path = optarg;
        return true;
    case OPTION_RECIPIENTS:
        create->recipients_path = optarg;
        return true;
    case OPTION_MAP:
        if (create->map_count == ROWS_MAPS_MAX || !strchr(optarg, '=')) {
            cli_complain(CLI_USAGE, CAMPAIGN, "--map '%s': write COLUMN=FIELD, at most %d times.", optarg, ROWS_MAPS_MAX);
            return false;
        }
        create->maps[create->map_count++] = optarg;
        return true;
    case OPTION_DEDUPE_MEMORY:
        if (!units_size(optarg, &create->dedupe_bytes) || create->dedupe_bytes < 1 << 20) {
            cli_complain(CLI_USAGE, CAMPAIGN, "--dedupe-memory '%s': write for example 2G, at least 1M.", optarg);
            return false;
        }
        create->dedupe = true;
        return true;
    case OPTION_DEDUPE:
        return create->dedupe = true;
    case OPTION_REJECTS:
        create->rejects_path = optarg;
        return true;
    case OPTION_STRICT:
        return create->strict = true;
    case OPTION_DRY_RUN:
        return create->dry_run = true;
    case OPTION_ALLOW_MISSING:
        return create->allow_missing = true;
    case OPTION_HOLD:
        return create->hold = true;
    case OPTION_QUIET:
        return create->quiet = true;
    case OPTION_JSON:
        return create->common.json = true;
    case OPTION_TENANT:
        create->tenant = optarg;
        return campaign_field(&create->fields, "tenant", optarg);
    case OPTION_POOL:
        create->pool = optarg;
        return true;
    case OPTION_CHUNK:
        return cli_number(CAMPAIGN, "chunk", optarg, 1, JOB_RECIPIENTS_MAX, &create->chunk);
    case OPTION_REDIS:
        create->common.redis = optarg;
        return true;
    case 'c':
        create->common.config = optarg;
        return true;
    default:
        if (option < OPTION_FIELD) {
            cli_usage("campaign create");
            return false;
        }
        return campaign_field(&create->fields, option_fields[option - OPTION_FIELD], optarg);
    }
}

static int arguments_read(int argc, char **argv, struct create *create) {
    static const struct option options[] = {{"content", required_argument, NULL, OPTION_CONTENT},
                                            {"recipients", required_argument, NULL, OPTION_RECIPIENTS},
                                            {"map", required_argument, NULL, OPTION_MAP},
                                            {"dedupe", no_argument, NULL, OPTION_DEDUPE},
                                            {"dedupe-memory", required_argument, NULL, OPTION_DEDUPE_MEMORY},
                                            {"rejects", required_argument, NULL, OPTION_REJECTS},
                                            {"strict", no_argument, NULL, OPTION_STRICT},
                                            {"dry-run", no_argument, NULL, OPTION_DRY_RUN},
                                            {"allow-missing", no_argument, NULL, OPTION_ALLOW_MISSING},
                                            {"tenant", required_argument, NULL, OPTION_TENANT},
                                            {"pool", required_argument, NULL, OPTION_POOL},
                                            {"hold", no_argument, NULL, OPTION_HOLD},
                                            {"chunk", required_argument, NULL, OPTION_CHUNK},
                                            {"quiet", no_argument, NULL, OPTION_QUIET},
                                            {"json", no_argument, NULL, OPTION_JSON},
                                            {"redis", required_argument, NULL, OPTION_REDIS},
                                            {"config", required_argument, NULL, 'c'},
                                            {"weight", required_argument, NULL, OPTION_FIELD},
                                            {"rate", required_argument, NULL, OPTION_FIELD + 1},
                                            {"not-before", required_argument, NULL, OPTION_FIELD + 2},
                                            {"expires", required_argument, NULL, OPTION_FIELD + 3},
                                            {"window", required_argument, NULL, OPTION_FIELD + 4},
                                            {0}};
    for (int option; (option = getopt_long(argc, argv, "c:", options, NULL)) != -1;) {
        if (!option_take(create, option)) {
            return CLI_USAGE;
        }
    }
    create->name = argv[optind];
    if (argc - optind != 1 || !create->content_path || !create->recipients_path) {
        return cli_complain(CLI_USAGE, CAMPAIGN,
                            "give a NAME, --content FILE and --recipients FILE; `bypost campaign create --help` shows all.");
    }
    if (!functions_queue_valid(create->name)) {
        return cli_complain(CLI_USAGE, CAMPAIGN, "the name '%s': write 1 to %d letters, digits, `.`, `_` or `-`, and not `retry`.",
                            create->name, QUEUE_NAME_MAX);
    }
    if (!create->rejects_path && asprintf(&create->rejects_made, "%s.rejected", create->name) > 0) {
        create->rejects_path = create->rejects_made;
    }
    for (uint32_t i = 0; i < create->fields.count; i++) {
        if (strcmp(create->fields.argv[2 * i], "expires_at") == 0) {
            create->expires_ms = strtoull(create->fields.argv[2 * i + 1], NULL, 10);
        }
    }
    return CLI_OK;
}

int campaign_create_run(int argc, char **argv) {
    struct create *create = calloc(1, sizeof *create);
    if (!create) {
        abort();
    }
    create->chunk = CHUNK_DEFAULT;
    create->dedupe_bytes = (uint64_t)DEDUPE_DEFAULT_MIB << 20;
    create->descriptor = -1;
    create->rows.descriptor = -1;
    int code = arguments_read(argc, argv, create);
    if (code == CLI_OK && create->dry_run) {
        create->client.config =
            cli_config_client(CAMPAIGN, create->common.config, create->common.redis ? create->common.redis : "127.0.0.1:6379", &code);
    } else if (code == CLI_OK) {
        code = campaign_open(&create->client, &create->common);
    }
    if (code == CLI_OK) {
        uint32_t most = create->client.config->max_recipients_per_job;
        create->chunk = most && create->chunk > most ? most : create->chunk;
        cli_pool_tell(CAMPAIGN, create->client.config, create->pool);
        code = create_checked(create);
    }
    if (code == CLI_OK && create->rejects && fflush(create->rejects) != 0) {
        create->rejects_failed = true;
    }
    code = code == CLI_OK && create->rejects_failed ? CLI_CANNOT_MAKE : code;
    if (create->rejects) {
        fclose(create->rejects);
    }
    if (create->descriptor > STDERR_FILENO) {
        close(create->descriptor);
    }
    rows_close(&create->rows);
    dedupe_end(&create->seen);
    batch_free(&create->batch);
    upload_free(&create->upload);
    campaign_content_free(&create->content);
    campaign_fields_free(&create->fields);
    campaign_close(&create->client);
    free(create->rejects_made);
    free(create);
    return code;
}
