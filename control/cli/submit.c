/* submit.c: `bypost submit`: checks jobs as the sender will, then puts them into Redis, many in one round trip. */
#include "cli.h"
#include "compose.h"
#include "control/fetch/fetch.h"
#include "functions.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "Usage: bypost submit --from ADDRESS --to ADDRESS [--subject TEXT] [--text TEXT] [OPTIONS]\n"
    "       bypost submit [OPTIONS] FILE        a job in JSON (or MessagePack)\n"
    "       bypost submit [OPTIONS] < FILE      the same from standard input\n"
    "       bypost submit --lines [FILE]        a job in JSON on each line\n\n"
    "Checks each job as the sender will, puts it into Redis and prints its entry ID. A job whose id was submitted in the\n"
    "last 7 days is not put there again: the ID of the first one is printed.\n\n"
    "The message:\n"
    "      --from ADDRESS              'Ann <ann@example.org>' or ann@example.org\n"
    "      --to, --cc, --bcc ADDRESS   may be repeated\n"
    "      --reply-to ADDRESS          may be repeated\n"
    "      --envelope-sender ADDRESS   where bounces go\n"
    "      --subject TEXT\n"
    "      --text TEXT, --html TEXT    the body\n"
    "      --text-file FILE, --html-file FILE\n"
    "      --header 'NAME: VALUE'      may be repeated\n"
    "      --attach FILE[:TYPE]        may be repeated; without a TYPE such as image/png by the file's suffix\n"
    "      --inline [ID=]FILE[:TYPE]   the same, for an image that the HTML shows as cid:ID (the file's name)\n"
    "      --data JSON                 an object, or @FILE: values for {{name}} in subject, text, html and headers\n"
    "      --content NAME              a shared content (bypost:content:NAME) instead of a body\n"
    "      --raw FILE                  a whole message instead (- for standard input)\n\n"
    "Bulk mail (RFC 2369, 2919, 8058); values may hold {{name}}, {{bypost.unsubscribe_token}}, {{bypost.email}}, ...:\n"
    "      --list-unsubscribe URI      an https: link, which also works by one click, a mailto: address, or one of each\n"
    "      --list-id ID                news.example.com, or 'News of ours <news.example.com>'\n"
    "      --feedback-id ID            four parts with colons, the last the sender's name\n"
    "      --precedence WORD           bulk, list or none\n"
    "      --bulk, --no-bulk           with what `bulk` of the configuration has, or without (with, where there is a campaign)\n"
    "      --verp, --no-verp           an envelope sender that names job and recipient, or not (as the configuration says)\n\n"
    "The job:\n"
    "      --queue NAME                high, normal, bulk, or a campaign's queue (normal)\n"
    "      --priority WORD             high or normal, within its queue\n"
    "      --id ID                     yours: submitted once, and it appears in events\n"
    "      --tenant NAME, --campaign NAME, --pool NAME\n"
    "      --tag NAME                  may be repeated\n"
    "      --metadata JSON             an object that events carry, or @FILE\n"
    "      --send-at TIME, --expires-at TIME   2026-12-24T18:00:00Z, Unix seconds, or +10m\n"
    "      --dsn WORD                  failure, delay, success: notices of delivery to the envelope sender; may be repeated; never\n"
    "      --require-tls               only over verified TLS, to servers with REQUIRETLS\n"
    "      --dedupe                    an address that stands twice is sent to once\n\n"
    "      --lines                     read JSON lines; a line that is wrong is named and left out\n"
    "      --dry-run                   check only; Redis is not needed\n"
    "      --json                      print {\"queue\",\"stream\",\"entry\",\"repeated\"} a line instead of the ID\n"
    "      --redis ADDRESS             HOST:PORT or unix:/PATH, instead of the configuration's\n"
    "  -c, --config FILE               the configuration (/etc/bypost/bypost.yaml)\n"
    "      --help, --version\n\n"
    "Exit status: 0 all were submitted, 1 Redis refused, 64 usage, 65 a job is wrong (others of --lines were submitted),\n"
    "66 a file cannot be read, 69 Redis does not answer, 75 Redis is full: try again later, 78 the configuration has errors.\n";

enum {
    INPUT_MAX_BYTES = 256 << 20,
    PIPELINE_JOBS = 256,      /* in one round trip ... */
    PIPELINE_BYTES = 4 << 20, /* ... or so many bytes */
    JOB_ERROR_BYTES = 512,
};
static const char name[] = "submit";

struct submit {
    const struct config *config;
    redisContext *redis; /* NULL: dry run */
    const char *queue;
    bool json;
    char *streams[16], *bases[16]; /* by shard */
    uint32_t waiting_shards[PIPELINE_JOBS];
    char *content; /* the last one that was seen in Redis */
    uint32_t waiting;
    size_t waiting_bytes;
    uint64_t submitted, repeated, wrong;
    uint32_t next_shard;
};

static void entry_print(const struct submit *submit, uint32_t shard, const char *entry, bool repeated) {
    if (submit->json) {
        printf("{\"queue\":\"%s\",\"stream\":\"%s\",\"entry\":\"%s\",\"repeated\":%s}\n", submit->queue, submit->streams[shard], entry,
               repeated ? "true" : "false");
    } else {
        puts(entry);
    }
}

/* Reads the replies of what was sent. */
static int submit_flush(struct submit *submit) {
    int code = CLI_OK;
    uint32_t waiting = submit->waiting;
    submit->waiting = 0;
    submit->waiting_bytes = 0;
    for (uint32_t i = 0; i < waiting; i++) {
        redisReply *reply = NULL;
        if (redisGetReply(submit->redis, (void **)&reply) != REDIS_OK) {
            return cli_redis_fault(name, submit->redis, NULL);
        }
        if (reply->type == REDIS_REPLY_ARRAY && reply->elements >= 2 && reply->element[0]->type == REDIS_REPLY_STRING) {
            bool repeated = reply->elements == 3;
            entry_print(submit, submit->waiting_shards[i], reply->element[0]->str, repeated);
            submit->submitted += !repeated;
            submit->repeated += repeated;
        } else if (code == CLI_OK) {
            code = cli_redis_fault(name, submit->redis, reply);
        }
        freeReplyObject(reply);
    }
    return code;
}

/* The job's own id picks the shard, so that its repeat meets it there. */
static uint32_t submit_shard(struct submit *submit, const char *id) {
    uint32_t shards = submit->config->redis.shards;
    return id ? functions_shard(id, shards) : submit->next_shard++ % shards;
}

/* A content that is not there would only show when the sender reads the job. */
static int submit_content(struct submit *submit, const char *content, unsigned long line) {
    if (!content || !submit->redis || (submit->content && strcmp(content, submit->content) == 0)) {
        return CLI_OK;
    }
    int code = submit_flush(submit); /* answers come in order */
    redisReply *reply = code == CLI_OK ? redisCommand(submit->redis, "EXISTS %s:content:%s", submit->config->redis.prefix, content) : NULL;
    if (code == CLI_OK && (!reply || reply->type != REDIS_REPLY_INTEGER)) {
        code = cli_redis_fault(name, submit->redis, reply);
    } else if (code == CLI_OK && reply->integer == 0) {
        submit->wrong++;
        code = cli_complain(CLI_DATA, name, "%s%.0lu%scontent: there is no content '%s' in Redis: store it as %s:content:%s first.",
                            line ? "line " : "", line, line ? ": " : "", content, submit->config->redis.prefix, content);
    } else if (code == CLI_OK) {
        free(submit->content);
        submit->content = strdup(content);
    }
    if (reply) {
        freeReplyObject(reply);
    }
    return code;
}

static int submit_send(struct submit *submit, const struct job *job, const uint8_t *bytes, size_t length) {
    uint32_t shard = submit_shard(submit, job->id);
    char recipients[16];
    snprintf(recipients, sizeof recipients, "%u", job->pending_count);
    const char *argv[] = {"FCALL",       "bypost_submit",     "1",        submit->streams[shard], submit->bases[shard],
                          submit->queue, (const char *)bytes, recipients, job->id ? job->id : "", job->content_id ? job->content_id : ""};
    enum { ARGUMENTS = sizeof argv / sizeof *argv, JOB_ARGUMENT = 6 };
    size_t lengths[ARGUMENTS];
    for (int i = 0; i < ARGUMENTS; i++) {
        lengths[i] = i == JOB_ARGUMENT ? length : strlen(argv[i]);
    }
    if (redisAppendCommandArgv(submit->redis, ARGUMENTS, argv, lengths) != REDIS_OK) {
        return cli_redis_fault(name, submit->redis, NULL);
    }
    submit->waiting_shards[submit->waiting++] = shard;
    submit->waiting_bytes += length;
    return submit->waiting == PIPELINE_JOBS || submit->waiting_bytes >= PIPELINE_BYTES ? submit_flush(submit) : CLI_OK;
}

/* Checks one job and sends it; `line` 0: not one of many. */
static int submit_job(struct submit *submit, const uint8_t *bytes, size_t length, unsigned long line) {
    char error[JOB_ERROR_BYTES] = "";
    struct job *job = job_decode(bytes, length, submit->config, error, sizeof error);
    if (!job) {
        submit->wrong++;
        return line ? cli_complain(CLI_DATA, name, "line %lu: %s", line, error) : cli_complain(CLI_DATA, name, "%s", error);
    }
    int code = submit_content(submit, job->content_id, line);
    if (code == CLI_OK && submit->redis) {
        code = submit_send(submit, job, bytes, length);
    } else if (code == CLI_OK && !line && puts("The job is good.") < 0) {
        code = CLI_FAILED;
    }
    job_release(job);
    return code;
}

static int submit_lines(struct submit *submit, const char *path) {
    FILE *stream = !path || strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    char *line = NULL;
    size_t room = 0;
    unsigned long number = 0;
    int code = CLI_OK;
    if (!stream) {
        return cli_complain(CLI_NO_INPUT, name, "%s cannot be read: %m.", path);
    }
    for (ssize_t length; code == CLI_OK && (length = getline(&line, &room, stream)) >= 0;) {
        number++;
        if (line[strspn(line, " \t\r\n")] == 0) {
            continue;
        }
        int result = submit_job(submit, (const uint8_t *)line, (size_t)length, number);
        code = result == CLI_DATA ? CLI_OK : result;
    }
    if (code == CLI_OK && ferror(stream)) {
        code = cli_complain(CLI_NO_INPUT, name, "%s cannot be read: %m.", path ? path : "standard input");
    }
    free(line);
    if (stream != stdin) {
        fclose(stream);
    }
    return code;
}

static int submit_file(struct submit *submit, const char *path) {
    size_t length;
    char *bytes = cli_read_file(name, path, INPUT_MAX_BYTES, &length);
    int code = bytes ? submit_job(submit, (const uint8_t *)bytes, length, 0) : CLI_NO_INPUT;
    free(bytes);
    return code;
}

struct input {
    const char *path; /* a file of jobs, or NULL */
    bool lines;
    json_t *job; /* from options, or empty */
    struct compose_raw raw;
};

static int submit_input(struct submit *submit, const struct input *input) {
    if (input->lines) {
        return submit_lines(submit, input->path);
    }
    if (json_object_size(input->job) == 0 && !input->raw.bytes) {
        return submit_file(submit, input->path ? input->path : "-");
    }
    size_t length;
    uint8_t *bytes = compose_bytes(input->job, &input->raw, &length);
    int code = bytes ? submit_job(submit, bytes, length, 0) : CLI_FAILED;
    free(bytes);
    return code;
}

static int submit_all(struct submit *submit, const struct input *input) {
    char *stream = NULL;
    if (asprintf(&stream, "q:%s", submit->queue) < 0) {
        abort();
    }
    for (uint32_t shard = 0; shard < submit->config->redis.shards; shard++) {
        submit->streams[shard] = cli_key(submit->config, shard, stream);
        submit->bases[shard] = cli_key(submit->config, shard, "");
    }
    int code = submit_input(submit, input), flushed = submit->redis && submit->waiting ? submit_flush(submit) : CLI_OK;
    code = code == CLI_OK ? flushed : code;
    if (code == CLI_OK && submit->wrong) {
        code = CLI_DATA;
    }
    if (input->lines) {
        fprintf(stderr, "bypost submit: %lu submitted, %lu wrong", (unsigned long)submit->submitted, (unsigned long)submit->wrong);
        fprintf(stderr, submit->repeated ? ", %lu repeated\n" : "\n", (unsigned long)submit->repeated);
    }
    for (uint32_t shard = 0; shard < submit->config->redis.shards; shard++) {
        free(submit->streams[shard]);
        free(submit->bases[shard]);
    }
    free(stream);
    free(submit->content);
    return code;
}

/* Options that make a field: how each goes into the job. */
enum option_kind {
    KIND_TEXT,
    KIND_APPEND,
    KIND_FILE,
    KIND_HEADER,
    KIND_ATTACH,
    KIND_INLINE,
    KIND_RAW,
    KIND_JSON,
    KIND_TIME,
    KIND_YES,
    KIND_NO
};
static const struct message_option {
    const char *option, *field;
    enum option_kind kind;
} message_options[] = {
    {"from", "from", KIND_TEXT},
    {"to", "to", KIND_APPEND},
    {"cc", "cc", KIND_APPEND},
    {"bcc", "bcc", KIND_APPEND},
    {"reply-to", "reply_to", KIND_APPEND},
    {"envelope-sender", "envelope_sender", KIND_TEXT},
    {"subject", "subject", KIND_TEXT},
    {"text", "text", KIND_TEXT},
    {"html", "html", KIND_TEXT},
    {"text-file", "text", KIND_FILE},
    {"html-file", "html", KIND_FILE},
    {"header", "headers", KIND_HEADER},
    {"attach", "attachments", KIND_ATTACH},
    {"inline", "attachments", KIND_INLINE},
    {"data", "merge_global_data", KIND_JSON},
    {"content", "content", KIND_TEXT},
    {"raw", "raw", KIND_RAW},
    {"list-unsubscribe", "list_unsubscribe", KIND_APPEND},
    {"list-id", "list_id", KIND_TEXT},
    {"feedback-id", "feedback_id", KIND_TEXT},
    {"precedence", "precedence", KIND_TEXT},
    {"bulk", "bulk", KIND_YES},
    {"no-bulk", "bulk", KIND_NO},
    {"verp", "verp", KIND_YES},
    {"no-verp", "verp", KIND_NO},
    {"priority", "priority", KIND_TEXT},
    {"id", "id", KIND_TEXT},
    {"tenant", "tenant", KIND_TEXT},
    {"campaign", "campaign", KIND_TEXT},
    {"pool", "pool", KIND_TEXT},
    {"tag", "tags", KIND_APPEND},
    {"metadata", "metadata", KIND_JSON},
    {"send-at", "send_at", KIND_TIME},
    {"expires-at", "expires_at", KIND_TIME},
    {"dsn", "dsn", KIND_APPEND},
    {"require-tls", "require_tls", KIND_YES},
    {"dedupe", "dedupe", KIND_YES},
};
enum {
    MESSAGE_OPTIONS = sizeof message_options / sizeof *message_options,
    OPTION_QUEUE = MESSAGE_OPTIONS + 1,
    OPTION_LINES,
    OPTION_DRY_RUN,
    OPTION_JSON,
    OPTION_REDIS,
    OPTION_CONFIG
};

static bool message_option_take(struct input *input, const struct message_option *option, const char *value, int *code) {
    switch (option->kind) {
    case KIND_TEXT:
        return compose_text(input->job, option->field, value, code);
    case KIND_APPEND:
        return compose_append(input->job, option->field, value, code);
    case KIND_FILE:
        return compose_file(input->job, option->field, value, code);
    case KIND_HEADER:
        return compose_header(input->job, value, code);
    case KIND_ATTACH:
        return compose_attachment(input->job, value, code);
    case KIND_INLINE:
        return compose_inline(input->job, value, code);
    case KIND_RAW:
        return compose_raw(input->job, value, &input->raw, code);
    case KIND_JSON:
        return compose_json(input->job, option->option, option->field, value, code);
    case KIND_TIME:
        return compose_time(input->job, option->field, value, code);
    case KIND_YES:
    case KIND_NO:
        return compose_flag(input->job, option->field, option->kind == KIND_YES, code);
    }
    return false;
}

struct arguments {
    const char *queue, *redis, *config;
    bool dry_run, json;
};

/* Reads the command line into the input; an exit code, CLI_OK to go on. */
static int arguments_read(int argc, char **argv, struct arguments *arguments, struct input *input) {
    struct option options[MESSAGE_OPTIONS + 7] = {0};
    int code = CLI_OK;
    for (int i = 0; i < MESSAGE_OPTIONS; i++) {
        bool flag = message_options[i].kind == KIND_YES || message_options[i].kind == KIND_NO;
        options[i] = (struct option){message_options[i].option, flag ? no_argument : required_argument, NULL, i + 1};
    }
    const struct option others[] = {{"queue", required_argument, NULL, OPTION_QUEUE}, {"lines", no_argument, NULL, OPTION_LINES},
                                    {"dry-run", no_argument, NULL, OPTION_DRY_RUN},   {"json", no_argument, NULL, OPTION_JSON},
                                    {"redis", required_argument, NULL, OPTION_REDIS}, {"config", required_argument, NULL, 'c'}};
    memcpy(options + MESSAGE_OPTIONS, others, sizeof others);
    for (int option; (option = getopt_long(argc, argv, "c:", options, NULL)) != -1;) {
        if (option >= 1 && option <= MESSAGE_OPTIONS) {
            if (!message_option_take(input, &message_options[option - 1], optarg, &code)) {
                return code;
            }
        } else if (option == OPTION_QUEUE) {
            arguments->queue = optarg;
        } else if (option == OPTION_LINES) {
            input->lines = true;
        } else if (option == OPTION_DRY_RUN) {
            arguments->dry_run = true;
        } else if (option == OPTION_JSON) {
            arguments->json = true;
        } else if (option == OPTION_REDIS) {
            arguments->redis = optarg;
        } else if (option == 'c') {
            arguments->config = optarg;
        } else {
            return cli_usage(name);
        }
    }
    bool composed = json_object_size(input->job) > 0 || input->raw.bytes;
    input->path = argv[optind];
    if (argc - optind > 1) {
        return cli_complain(CLI_USAGE, name, "one file can be submitted at a time; put many jobs on the lines of one and use --lines.");
    }
    if (composed && (input->path || input->lines)) {
        return cli_complain(CLI_USAGE, name,
                            "a job comes from options or from a file, not from both; put the options' fields into the file.");
    }
    if (!composed && !input->path && isatty(STDIN_FILENO)) {
        return cli_complain(CLI_USAGE, name,
                            "there is nothing to submit: give --from, --to and --text, or a FILE; --help shows the options.");
    }
    if (!functions_queue_valid(arguments->queue)) {
        return cli_complain(CLI_USAGE, name, "--queue '%s': write 1 to %d letters, digits, `.`, `_` or `-`, and not `retry`.",
                            arguments->queue, QUEUE_NAME_MAX);
    }
    return CLI_OK;
}

static int submit_configured(const struct arguments *arguments, const struct input *input) {
    int code;
    struct config *config =
        cli_config_client(name, arguments->config, arguments->dry_run && !arguments->redis ? "127.0.0.1:6379" : arguments->redis, &code);
    redisContext *redis = config && !arguments->dry_run ? cli_redis(name, config, &code) : NULL;
    if (code == CLI_OK && redis) {
        code = functions_load(name, redis);
    }
    if (code == CLI_OK) {
        cli_pool_tell(name, config, json_string_value(json_object_get(input->job, "pool")));
        struct submit submit = {.config = config, .redis = redis, .queue = arguments->queue, .json = arguments->json};
        code = submit_all(&submit, input);
    }
    if (redis) {
        redisFree(redis);
    }
    config_free(config);
    return code;
}

static int submit_run(int argc, char **argv) {
    struct arguments arguments = {.queue = "normal"};
    struct input input = {.job = json_object()};
    int code = arguments_read(argc, argv, &arguments, &input);
    if (code == CLI_OK) {
        code = submit_configured(&arguments, &input);
    }
    json_decref(input.job);
    free(input.raw.bytes);
    return code;
}

const struct cli_command submit_command = {"submit", "check jobs and put them into Redis", help, submit_run};
