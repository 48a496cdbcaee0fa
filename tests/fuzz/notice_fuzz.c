/* notice_fuzz.c: libFuzzer on notices: a server's reply and name (a line each), and the job, which is a producer's. A notice is a job that
 * the decoder takes and that can be rendered: from whom and to whom it was meant, with one of each field, and its parts are its own. */
#include "control/fetch/fetch.h"
#include "control/notice/notice.h"
#include "tests/unit/identity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool condition) {
    if (!condition) {
        abort();
    }
}

static const uint8_t *line_copy(const uint8_t *at, const uint8_t *end, char *out, size_t room) {
    const uint8_t *newline = at < end ? memchr(at, '\n', (size_t)(end - at)) : NULL;
    size_t length = (size_t)((newline ? newline : end) - at);
    for (size_t i = 0; i < length && i + 1 < room; i++) { /* as the SMTP room cleans them */
        out[i] = (char)(at[i] < 0x20 || at[i] == 0x7f ? '?' : at[i]);
    }
    out[length + 1 < room ? length : room - 1] = '\0';
    return newline ? newline + 1 : end;
}

/* How often a line of the header begins so. */
static unsigned fields(const char *header, size_t length, const char *name) {
    unsigned count = 0;
    for (size_t i = 0; i + strlen(name) < length; i++) {
        count += (i == 0 || header[i - 1] == '\n') && strncasecmp(header + i, name, strlen(name)) == 0;
    }
    return count;
}

static void notice_check(const struct config *config, const struct identity *identity, const struct job *about, const char *text,
                         size_t length) {
    char error[512];
    struct message message;
    struct job *job = job_decode((const uint8_t *)text, length, config, error, sizeof error);
    message_init(&message);
    must(job != NULL && job->recipient_total == 1 && job->raw != NULL && job->dsn == 0);
    must(job->envelope_sender != NULL && job->envelope_sender[0] == '\0'); /* it is never answered by another */
    must(strcasecmp(job->recipients[0].mailbox.email, about->envelope_sender ? about->envelope_sender : about->from.email) == 0);
    must((job->tenant == NULL) == (about->tenant == NULL) && (!job->tenant || strcmp(job->tenant, about->tenant) == 0));
    const char *raw = (const char *)job->raw, *end = memmem(raw, job->raw_length, "\r\n\r\n", 4);
    must(end != NULL);
    size_t header = (size_t)(end - raw) + 2;
    must(fields(raw, header, "From:") == 1 && fields(raw, header, "To:") == 1 && fields(raw, header, "Subject:") == 1 &&
         fields(raw, header, "Cc:") == 0 && fields(raw, header, "Bcc:") == 0 && fields(raw, header, "Content-Type:") == 1);
    must(render_message(job, 0, 1700000001, identity, config->max_message_bytes, &message, error, sizeof error) == 0);
    message_free(&message);
    job_release(job);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const enum event_type events[] = {EVENT_BOUNCED, EVENT_EXPIRED, EVENT_DEFERRED, EVENT_DELIVERED};
    static struct config *config;
    static struct identity *identity;
    if (!config) {
        config = config_shipped();
        identity = test_identity("0123456789abcdef");
        must(config != NULL);
        free(config->node);
        config->node = strdup("mta1.example.com");
        config->max_message_bytes = 1 << 20;
    }
    if (size < 4) {
        return 0;
    }
    struct outcome outcome = {.kind = data[1] & 1 ? OUTCOME_REPLIED : OUTCOME_LOST,
                              .code = 550,
                              .enhanced = {data[1] / 2 % 8, data[2], 1},
                              .finished_us = 1700000000000000};
    const uint8_t *at = line_copy(data + 3, data + size, outcome.text, sizeof outcome.text);
    at = line_copy(at, data + size, outcome.peer_name, sizeof outcome.peer_name);
    char error[512];
    struct job *job = job_decode(at, (size_t)(data + size - at), config, error, sizeof error);
    if (job && !job->content_id) {
        uint64_t now_ms = UINT64_C(1700000000000) + 86400000 * 9;
        size_t length;
        snprintf(job->queue, sizeof job->queue, "normal");
        job->dsn = DSN_FAILURE | DSN_DELAY | DSN_SUCCESS;
        job->dsn_full = data[0] & 4;
        job->history = (struct job_history){.origin = {1700000000123, 4}, .first_queued_ms = 1700000000000};
        char *text = notice_write(config, identity, job, 0, events[data[0] % 4], &outcome, 1, now_ms + 1000, now_ms, &length);
        if (text) {
            notice_check(config, identity, job, text, length);
        }
        free(text);
    }
    job_release(job);
    return 0;
}
