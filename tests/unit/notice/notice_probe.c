/* notice_probe.c: notice_write for tests/integration/test_notice. A line on stdin: {"job": {...}, "event": "bounced", ...}; a line on
 * stdout: the job of the notice, or null. A notice is a job that the decoder takes, or this ends with its reason. */
#include "control/fetch/fetch.h"
#include "control/notice/notice.h"
#include "tests/unit/identity.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const events[EVENT_TYPES] = {"accepted", "delivered",  "deferred",  "bounced",
                                                "expired",  "suppressed", "cancelled", "dead"};

static uint64_t number(const json_t *spec, const char *name) {
    return (uint64_t)json_integer_value(json_object_get(spec, name));
}

static const char *text(const json_t *spec, const char *name, const char *fallback) {
    const char *value = json_string_value(json_object_get(spec, name));
    return value ? value : fallback;
}

static enum event_type event_of(const json_t *spec) {
    for (int i = 0; i < EVENT_TYPES; i++)
        if (strcmp(events[i], text(spec, "event", "bounced")) == 0)
            return (enum event_type)i;
    abort();
}

static void outcome_of(const json_t *spec, struct outcome *outcome) {
    unsigned enhanced[3] = {0, 0, 0};
    *outcome = (struct outcome){.kind = (enum slot_outcome)number(spec, "kind"),
                                .code = (uint16_t)number(spec, "code"),
                                .finished_us = number(spec, "finished_ms") * 1000,
                                .flags = json_is_true(json_object_get(spec, "passed_on")) ? REPLY_DSN_PASSED_ON : 0};
    sscanf(text(spec, "enhanced", ""), "%u.%u.%u", &enhanced[0], &enhanced[1], &enhanced[2]);
    for (int i = 0; i < 3; i++)
        outcome->enhanced[i] = (uint16_t)enhanced[i];
    snprintf(outcome->text, sizeof(outcome->text), "%s", text(spec, "text", ""));
    snprintf(outcome->peer_name, sizeof(outcome->peer_name), "%s", text(spec, "peer_name", ""));
    if (json_is_true(json_object_get(spec, "peer_address"))) {
        outcome->peer_family = 4;
        memcpy(outcome->peer_address, "\xc0\x00\x02\x19", 4);
    }
}

static void answer(struct config *config, const struct identity *identity, const json_t *spec) {
    char error[512], *job_text = json_dumps(json_object_get(spec, "job"), JSON_COMPACT);
    struct job *job = job_decode((const uint8_t *)job_text, strlen(job_text), config, error, sizeof(error));
    free(job_text);
    if (!job) {
        fprintf(stderr, "notice_probe: the spec's job: %s\n", error);
        exit(1);
    }
    struct outcome outcome;
    outcome_of(spec, &outcome);
    config->notices.from = (char *)text(spec, "from", NULL);
    snprintf(job->queue, sizeof(job->queue), "normal");
    job->history = (struct job_history){.origin = {1700000000123, 4},
                                        .first_queued_ms = number(spec, "queued_ms"),
                                        .date_s = number(spec, "date_s"),
                                        .notified = json_is_true(json_object_get(spec, "notified"))};
    size_t length;
    char *notice = notice_write(config, identity, job, (uint32_t)number(spec, "index"), event_of(spec), &outcome,
                                (uint16_t)number(spec, "attempt"), number(spec, "next_ms"), number(spec, "now_ms"), &length);
    if (notice) {
        struct job *decoded = job_decode((const uint8_t *)notice, length, config, error, sizeof(error));
        struct message message;
        message_init(&message);
        if (!decoded || render_message(decoded, 0, 1700000001, identity, config->max_message_bytes, &message, error, sizeof(error)) != 0) {
            fprintf(stderr, "notice_probe: the notice: %s: %s\n", error, notice);
            exit(1);
        }
        message_free(&message);
        job_release(decoded);
    }
    printf("%s\n", notice ? notice : "null");
    fflush(stdout);
    free(notice);
    job_release(job);
}

int main(void) {
    struct config *config = config_shipped();
    struct identity *identity = test_identity("0123456789abcdef");
    char *line = NULL;
    size_t size = 0;
    ssize_t length;
    free(config->node);
    config->node = strdup("mta1.example.com");
    config->max_message_bytes = 4 << 20;
    while ((length = getline(&line, &size, stdin)) > 0) {
        json_t *spec = json_loadb(line, (size_t)length, 0, NULL);
        if (!spec)
            return 1;
        answer(config, identity, spec);
        json_decref(spec);
    }
    free(line);
    config->notices.from = NULL;
    identity_free(identity);
    config_free(config);
    return 0;
}
