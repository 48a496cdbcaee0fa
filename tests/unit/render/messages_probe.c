/* messages_probe.c: renders jobs for tests/integration/test_messages, through the decoder, contents and all, as control does.
 * Standard input: requests "JOB_BYTES CONTENT_BYTES DATE\n" and the two texts (CONTENT_BYTES 0: the job has no shared content).
 * Standard output: for each recipient a line of JSON and, where it has "length", so many bytes of message; after a request's last one the
 * line {"end": true}, with "error" when the job or its content was refused. */
#include "control/content/state.h"
#include "control/fetch/fetch.h"
#include "control/render/render.h"
#include "tests/unit/identity.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MESSAGE_BYTES_MAX = 64 << 20, ERROR_BYTES = 1024 };

struct probe {
    struct config config;
    struct identity *identity;
    struct message message; /* used again and again, as by a rendering thread */
};

static void die(const char *what) {
    fprintf(stderr, "messages_probe: %s\n", what);
    exit(2);
}

static void line_print(json_t *line) {
    if (line == NULL)
        die("a line that is no JSON: broken UTF-8?");
    json_dumpf(line, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(line);
}

/* Nothing is read behind its end: a sanitizer sees it. */
static uint8_t *read_text(size_t length) {
    uint8_t *text = malloc(length == 0 ? 1 : length);
    if (text == NULL || fread(text, 1, length, stdin) != length)
        die("a request ends early");
    return text;
}

static void recipient_print(struct probe *probe, const struct job *job, uint32_t index, uint64_t date_s) {
    char error[ERROR_BYTES] = "";
    struct message *message = &probe->message;
    int result = render_message(job, index, date_s, probe->identity, MESSAGE_BYTES_MAX, message, error, sizeof(error));
    if (result != 0) {
        line_print(json_pack("{s:i,s:i,s:s}", "index", (int)index, "result", result, "error", error));
        return;
    }
    uint32_t pieces = message->piece_count;
    size_t own = message->own_length;
    if (message_flatten(message) != 0)
        die("out of memory");
    line_print(json_pack("{s:i,s:I,s:I,s:I,s:I,s:s,s:s,s:s,s:b,s:b,s:b}", "index", (int)index, "length", (json_int_t)message->length,
                         "header_length", (json_int_t)message->header_length, "pieces", (json_int_t)pieces, "own", (json_int_t)own,
                         "sender", message->sender, "recipient", message->recipient, "from_domain", message->from_domain, "utf8",
                         message->needs_smtputf8, "8bit", message->body_8bit, "dots", message->has_leading_dots));
    fwrite(message->bytes + message->start, 1, message->length, stdout);
}

static void content_gone(struct content *content) {
    (void)content; /* it ends with its request */
}

/* The job's content with what render made of it; NULL with a sentence in error. */
static struct job *content_take(struct probe *probe, struct job *job, struct content *content, const uint8_t *text, size_t length,
                                char *error) {
    struct job *fields = job_decode_content(text, length, &probe->config, error, ERROR_BYTES);
    if (fields == NULL)
        return NULL;
    *content = (struct content){.references = 1,
                                .fields = fields,
                                .prepared = render_prepare(fields, job->content_id, probe->identity),
                                .unreferenced = content_gone};
    job->content = content;
    const char *fault = content_fill(job, fields, error, ERROR_BYTES);
    if (fault != NULL && fault != error)
        snprintf(error, ERROR_BYTES, "%s", fault);
    return fields;
}

static void request_answer(struct probe *probe, const uint8_t *job_text, size_t job_length, const uint8_t *content_text,
                           size_t content_length, uint64_t date_s) {
    char error[ERROR_BYTES] = "";
    struct content content = {.fields = NULL};
    struct job *fields = NULL, *job = job_decode(job_text, job_length, &probe->config, error, sizeof(error));
    if (job != NULL) {
        /* Without an `id` messages are named by the entry, which is the same for all requests here. */
        job->history.origin = (struct entry_id){.ms = 1700000000123, .seq = 4};
        strcpy(job->queue, "normal");
        if (content_length > 0)
            fields = content_take(probe, job, &content, content_text, content_length, error);
        for (uint32_t i = 0; i < job->pending_count && error[0] == '\0'; i++)
            recipient_print(probe, job, job->pending[i], date_s);
    }
    job_release(job);
    render_prepared_free((struct render_prepared *)(uintptr_t)content.prepared);
    job_release(fields);
    line_print(error[0] == '\0' ? json_pack("{s:b}", "end", 1) : json_pack("{s:b,s:s}", "end", 1, "error", error));
}

int main(void) {
    static struct probe probe = {.config = {.max_message_bytes = MESSAGE_BYTES_MAX, .max_recipients_per_job = JOB_RECIPIENTS_MAX}};
    char line[128];
    probe.identity = test_identity("m");
    message_init(&probe.message);
    while (fgets(line, sizeof(line), stdin) != NULL) {
        size_t job_length, content_length;
        unsigned long long date_s;
        if (sscanf(line, "%zu %zu %llu", &job_length, &content_length, &date_s) != 3)
            die("a request that is none");
        uint8_t *job = read_text(job_length), *content = read_text(content_length);
        request_answer(&probe, job, job_length, content, content_length, date_s);
        free(job);
        free(content);
    }
    message_free(&probe.message);
    identity_free(probe.identity);
    return fflush(stdout) == 0 ? 0 : 2;
}
