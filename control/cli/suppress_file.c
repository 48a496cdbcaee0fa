/* suppress_file.c: `bypost suppress import` and `export`: lists of addresses as CSV, streamed. */
#include "suppress.h"
#include "control/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    BATCH = 500,     /* addresses a call */
    BATCHES = 8,     /* calls under way */
    WORDS = 3,       /* of an address in a call */
    HEAD = 9,        /* FCALL NAME 1 KEY BASE NOW TENANT KEEP ... */
    FIELDS_MAX = 16, /* columns that are looked at */
    COMPLAINTS = 20, /* bad lines that are shown */
    WORD_BYTES = 40,
    PROGRESS_MS = 500,
};

enum column { COLUMN_ADDRESS, COLUMN_REASON, COLUMN_SINCE, COLUMN_EXPIRES, COLUMN_SOURCE, COLUMN_PROVIDER, COLUMNS };

struct batch {
    uint32_t count;
    unsigned long last_line;
    char address[BATCH][SUPPRESS_ADDRESS_MAX + 1];
    char hash[BATCH][16], since[BATCH][24], expires[BATCH][24];
    char reason[BATCH][WORD_BYTES], provider[BATCH][WORD_BYTES];
};

struct import {
    struct suppress_call *call;
    FILE *file;
    struct batch batch;
    int columns[COLUMNS]; /* where each is; -1: nowhere */
    uint64_t now, bytes, file_bytes;
    unsigned long line, done_line, lines_under_way[BATCHES];
    uint32_t under_way;
    uint64_t imported, new, bad;
    uint64_t started_ms, shown_ms;
    bool reserved;
};

/* Splits a line in place (RFC 4180 within a line). Returns how many fields. */
static int fields_split(char *line, char *fields[FIELDS_MAX]) {
    int count = 0;
    char *at = line;
    while (count < FIELDS_MAX) {
        char *out;
        at += strspn(at, " \t");
        if (*at == '"') {
            char *end = ++at;
            fields[count++] = out = at;
            while (*end && !(*end == '"' && end[1] != '"')) {
                end += *end == '"';
                *out++ = *end++;
            }
            at = *end ? end + 1 : end;
            at += strcspn(at, ",;\t");
        } else {
            fields[count++] = at;
            at += strcspn(at, ",;\t");
            out = at;
            while (out > fields[count - 1] && out[-1] == ' ') {
                out--;
            }
        }
        bool more = *at != 0;
        *out = 0;
        if (!more) {
            break;
        }
        at++;
    }
    return count;
}

/* A first line without an address names the columns. */
static void header_read(struct import *import, char *const *fields, int count) {
    static const struct {
        const char *name;
        enum column column;
    } names[] = {{"address", COLUMN_ADDRESS},  {"email", COLUMN_ADDRESS},    {"e-mail", COLUMN_ADDRESS},  {"recipient", COLUMN_ADDRESS},
                 {"reason", COLUMN_REASON},    {"type", COLUMN_REASON},      {"since", COLUMN_SINCE},     {"created", COLUMN_SINCE},
                 {"created_at", COLUMN_SINCE}, {"date", COLUMN_SINCE},       {"expires", COLUMN_EXPIRES}, {"expires_at", COLUMN_EXPIRES},
                 {"source", COLUMN_SOURCE},    {"provider", COLUMN_PROVIDER}};
    for (int column = 0; column < COLUMNS; column++) {
        import->columns[column] = -1;
    }
    for (int i = 0; i < count; i++) {
        for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
            if (strcasecmp(fields[i], names[k].name) == 0 && import->columns[names[k].column] < 0) {
                import->columns[names[k].column] = i;
            }
        }
    }
    if (import->columns[COLUMN_ADDRESS] < 0) {
        import->columns[COLUMN_ADDRESS] = 0;
    }
}

static const char *field_of(const struct import *import, enum column column, char *const *fields, int count) {
    int at = import->columns[column];
    return at >= 0 && at < count && *fields[at] && strcmp(fields[at], "-") != 0 ? fields[at] : NULL;
}

static void complain(struct import *import, const char *what, const char *text) {
    if (++import->bad <= COMPLAINTS) {
        cli_print(stderr, "line %lu: %s: %.80s\n", import->line, what, text);
    } else if (import->bad == COMPLAINTS + 1) {
        fputs("more such lines are only counted\n", stderr);
    }
}

static bool time_read(struct import *import, const char *text, uint64_t fallback, bool ahead, char out[24]) {
    uint64_t seconds = fallback;
    if (text && !suppress_when(text, ahead, &seconds) && strcasecmp(text, "never") != 0 && strcmp(text, "0") != 0) {
        complain(import, "no time", text);
        return false;
    }
    snprintf(out, 24, "%" PRIu64, seconds);
    return true;
}

/* One word of what a file says. */
static void word_read(const char *text, const char *fallback, char out[WORD_BYTES]) {
    snprintf(out, WORD_BYTES, "%.32s", text ? text : fallback);
    for (char *at = out; *at; at++) {
        *at = *at <= ' ' || *at == 127 ? '_' : *at;
    }
    if (*out == '!' || !*out) {
        *out = '_';
    }
}

static void line_take(struct import *import, char *line) {
    char *fields[FIELDS_MAX];
    int count = fields_split(line, fields);
    struct batch *batch = &import->batch;
    uint32_t at = batch->count;
    if (import->line == 1 && !memchr(line, '@', strlen(line))) {
        bool named = false;
        for (int i = 0; i < count; i++) {
            named |= strchr(fields[i], '@') != NULL;
        }
        if (!named) {
            header_read(import, fields, count);
            return;
        }
    }
    const char *address = field_of(import, COLUMN_ADDRESS, fields, count);
    if ((count == 1 && !*fields[0]) || import->line < import->call->from_line) {
        return;
    }
    int length = address ? suppress_address(address, strlen(address), batch->address[at]) : -1;
    if (length < 0) {
        complain(import, "no address", address ? address : fields[0]);
        return;
    }
    if (!time_read(import, field_of(import, COLUMN_SINCE, fields, count), import->now, false, batch->since[at]) ||
        !time_read(import, field_of(import, COLUMN_EXPIRES, fields, count), import->call->expires, true, batch->expires[at])) {
        return;
    }
    snprintf(batch->hash[at], sizeof batch->hash[at], "%" PRIu32, suppress_address_hash(batch->address[at], (size_t)length));
    word_read(field_of(import, COLUMN_REASON, fields, count), import->call->reason ? import->call->reason : "manual", batch->reason[at]);
    word_read(field_of(import, COLUMN_PROVIDER, fields, count), "-", batch->provider[at]);
    batch->count++;
    batch->last_line = import->line;
}

/* The answer to the oldest call under way. */
static bool answer_take(struct import *import) {
    struct suppress_call *call = import->call;
    void *taken = NULL;
    if (redisGetReply(call->redis, &taken) != REDIS_OK) {
        taken = NULL;
    }
    redisReply *reply = taken;
    if (!reply || reply->type == REDIS_REPLY_ERROR) {
        call->code = cli_redis_fault(suppress_name, call->redis, reply);
    } else {
        import->new += (uint64_t)(reply->type == REDIS_REPLY_INTEGER ? reply->integer : 0);
        import->done_line = import->lines_under_way[0];
    }
    if (reply) {
        freeReplyObject(reply);
    }
    import->under_way--;
    memmove(import->lines_under_way, import->lines_under_way + 1, import->under_way * sizeof *import->lines_under_way);
    return call->code == CLI_OK;
}

/* The list gets room beforehand for what the file's length promises: splitting full hashes costs more. */
static void room_make(struct import *import) {
    struct suppress_call *call = import->call;
    const char *tenant = call->tenant ? call->tenant : "";
    uint64_t entries = 0;
    import->reserved = true;
    if (import->bytes == 0 || import->file_bytes <= import->bytes) {
        return;
    }
    redisReply *size = redisCommand(call->redis, "HGET %s %b", call->key, tenant, strlen(tenant));
    if (size && size->type == REDIS_REPLY_STRING) {
        entries = strtoull(size->str, NULL, 10);
    }
    if (size) {
        freeReplyObject(size);
    }
    char wanted[24];
    snprintf(wanted, sizeof wanted, "%" PRIu64, entries + import->file_bytes / import->bytes * import->batch.count);
    const char *argv[] = {tenant, wanted};
    for (bool more = true; more;) {
        redisReply *reply = suppress_function(call, "bypost_suppress_reserve", 2, argv);
        more = reply && reply->integer == 0;
        if (reply) {
            freeReplyObject(reply);
        }
    }
}

static void progress_show(struct import *import, bool last) {
    uint64_t now = clock_ms(CLOCK_MONOTONIC);
    if (!isatty(STDERR_FILENO) || (!last && now < import->shown_ms + PROGRESS_MS)) {
        return;
    }
    import->shown_ms = now;
    uint64_t passed = now > import->started_ms ? now - import->started_ms : 1;
    fprintf(stderr, "\r%12" PRIu64 " addresses  %8" PRIu64 "/s", import->imported, import->imported * 1000 / passed);
    if (import->file_bytes) {
        fprintf(stderr, "  %3" PRIu64 " %%", import->bytes * 100 / import->file_bytes);
    }
    fputs(last ? "\n" : "", stderr);
}

static bool batch_send(struct import *import) {
    struct suppress_call *call = import->call;
    struct batch *batch = &import->batch;
    const char *argv[HEAD + WORDS * BATCH];
    char now[24], value[BATCH][3 * WORD_BYTES + 64];
    int argc = 0;
    if (!import->reserved && !call->dry_run) {
        room_make(import);
    }
    snprintf(now, sizeof now, "%" PRIu64, import->now);
    const char *head[] = {"FCALL", "bypost_suppress_add", "1", call->key, call->base, now, call->tenant ? call->tenant : "", "0"};
    for (size_t i = 0; i < sizeof head / sizeof *head; i++) {
        argv[argc++] = head[i];
    }
    for (uint32_t i = 0; i < batch->count; i++) {
        snprintf(value[i], sizeof value[i], "%s import %s %s %s", batch->reason[i], batch->since[i], batch->expires[i], batch->provider[i]);
        const char *words[WORDS] = {batch->hash[i], batch->address[i], value[i]};
        memcpy(argv + argc, words, sizeof words);
        argc += WORDS;
    }
    import->imported += batch->count;
    if (!call->dry_run && batch->count > 0 && call->code == CLI_OK) {
        redisAppendCommandArgv(call->redis, argc, argv, NULL);
        import->lines_under_way[import->under_way++] = batch->last_line;
        if (import->under_way == BATCHES) {
            answer_take(import);
        }
    }
    batch->count = 0;
    progress_show(import, false);
    return call->code == CLI_OK;
}

static void lines_read(struct import *import) {
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    while (import->call->code == CLI_OK && (length = getline(&line, &room, import->file)) >= 0) {
        import->line++;
        import->bytes += (uint64_t)length;
        char *text = import->line == 1 && length >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0 ? line + 3 : line;
        if (strlen(line) != (size_t)length) {
            complain(import, "a NUL in the line", "");
            continue;
        }
        text[strcspn(text, "\r\n")] = 0;
        line_take(import, text);
        if (import->batch.count == BATCH) {
            batch_send(import);
        }
    }
    free(line);
    batch_send(import);
    while (import->under_way > 0 && answer_take(import)) {
    }
}

int suppress_import(struct suppress_call *call, const char *path) {
    struct import *import = calloc(1, sizeof *import);
    struct stat status;
    if (!import) {
        abort();
    }
    *import = (struct import){
        .call = call, .columns = {0, 1, 2, 3, -1, -1}, .now = clock_ms(CLOCK_REALTIME) / 1000, .started_ms = clock_ms(CLOCK_MONOTONIC)};
    import->file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    if (!import->file) {
        call->code = cli_complain(CLI_NO_INPUT, suppress_name, "%s cannot be read: %s.", path, strerror(errno));
        free(import);
        return call->code;
    }
    if (fstat(fileno(import->file), &status) == 0 && S_ISREG(status.st_mode)) {
        import->file_bytes = (uint64_t)status.st_size;
    }
    lines_read(import);
    progress_show(import, true);
    if (ferror(import->file)) {
        call->code = cli_complain(CLI_NO_INPUT, suppress_name, "%s cannot be read further: %s.", path, strerror(errno));
    }
    if (call->code != CLI_OK) {
        cli_complain(call->code, suppress_name, "up to line %lu all is imported; go on with --from-line %lu.", import->done_line,
                     import->done_line + 1);
    } else {
        uint64_t passed = clock_ms(CLOCK_MONOTONIC) - import->started_ms;
        printf("%" PRIu64 " addresses %s in %.1f s: %" PRIu64 " new, %" PRIu64 " were there; %" PRIu64 " bad lines.\n", import->imported,
               call->dry_run ? "read, nothing imported," : "imported", (double)passed / 1000.0, import->new,
               call->dry_run ? 0 : import->imported - import->new, import->bad);
        call->code = import->bad ? CLI_DATA : CLI_OK;
    }
    if (import->file != stdin) {
        fclose(import->file);
    }
    free(import);
    return call->code;
}

static bool export_each(void *context, const struct suppress_row *row) {
    char since[24], expires[24];
    const char *quote = strpbrk(row->address, ",;\"") ? "\"" : "";
    fputs(quote, stdout);
    for (const char *at = row->address; *at; at++) {
        fputs(*at == '"' ? "\"\"" : (char[]){*at, 0}, stdout);
    }
    printf("%s,%s,%s,%s\n", quote, row->reason, suppress_time(row->since, since), row->expires ? suppress_time(row->expires, expires) : "");
    return !ferror(stdout);
}

int suppress_export(struct suppress_call *call) {
    puts("address,reason,since,expires");
    suppress_walk(call, call->tenant ? call->tenant : "", export_each, call);
    if (fflush(stdout) != 0 && call->code == CLI_OK) {
        call->code = cli_complain(CLI_CANNOT_MAKE, suppress_name, "the list cannot be written: %s.", strerror(errno));
    }
    return call->code;
}
