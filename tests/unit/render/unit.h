/* unit.h: what the tests of this room share: cmocka, random numbers, a job by hand, a rendered message as text. */
#ifndef TESTS_UNIT_RENDER_UNIT_H
#define TESTS_UNIT_RENDER_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "control/render/render.h"
#include "tests/unit/identity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { UNIT_MAX_BYTES = 1 << 20 };
static const uint64_t unit_date_s = 1700000000; /* Tue, 14 Nov 2023 22:13:20 +0000 */

static inline uint32_t unit_random(uint64_t *seed) {
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

/* An identity of `fill` bytes. */
static inline struct identity *unit_identity(char fill) {
    return test_identity((const char[]){fill, '\0'});
}

/* Ann writes to Bob: a job of one private recipient. */
struct unit_job {
    struct job job;
    struct job_recipient recipients[4];
    struct mailbox to[4], cc[2], reply_to[2];
    struct job_header headers[4];
};

static inline void unit_job_init(struct unit_job *u) {
    *u = (struct unit_job){.job = {.queue = "normal", .history.origin = {1700000000123, 4}}};
    u->job.from = (struct mailbox){.email = (char *)"ann@example.org", .name = (char *)"Ann"};
    u->job.subject = (char *)"Hello";
    u->job.text = (char *)"Hi Bob\n";
    u->job.recipients = u->recipients;
    u->job.recipient_total = 1;
    u->recipients[0] = (struct job_recipient){.mailbox = {.email = (char *)"bob@example.net"}, .kind = RECIPIENT_PRIVATE};
    u->job.to = u->to;
    u->job.cc = u->cc;
    u->job.reply_to = u->reply_to;
    u->job.headers = u->headers;
}

/* What holds for every message, whatever it was made of (RFC 5321 2.3.8, RFC 5322 2.1.1). */
static inline void unit_assert_wire_form(const struct message *message) {
    const uint8_t *bytes = message->bytes + message->start;
    size_t line = 0;
    bool leading_dot = false, body_8bit = false;
    assert_true(message->start >= MESSAGE_HEADROOM_BYTES);
    assert_true(message->start + message->length <= message->capacity);
    assert_true(message->length >= 2);
    for (size_t i = 0; i < message->length; i++) {
        assert_int_not_equal(bytes[i], 0);
        if (bytes[i] == '\r')
            assert_true(i + 1 < message->length && bytes[i + 1] == '\n');
        if (bytes[i] == '.' && i == line)
            leading_dot = true;
        if (bytes[i] >= 0x80 && i >= message->header_length)
            body_8bit = true;
        if (bytes[i] == '\n') {
            assert_true(i > 0 && bytes[i - 1] == '\r');
            assert_true(i - 1 - line <= 998);
            line = i + 1;
        }
    }
    assert_int_equal(line, message->length); /* the last line is ended */
    assert_int_equal(leading_dot, message->has_leading_dots);
    assert_int_equal(body_8bit, message->body_8bit);
    assert_true(message->header_length >= 4 && message->header_length <= message->length);
    assert_memory_equal(bytes + message->header_length - 4, "\r\n\r\n", 4);
    assert_ptr_equal(memmem(bytes, message->length, "\r\n\r\n", 4), bytes + message->header_length - 4);
}

/* The message as text, valid until the next call. */
static inline const char *unit_text(const struct message *message) {
    static char text[2 * UNIT_MAX_BYTES];
    assert_true(message->length < sizeof(text));
    memcpy(text, message->bytes + message->start, message->length);
    text[message->length] = '\0';
    return text;
}

__attribute__((noinline, unused)) static const char *unit_render(const struct job *job, uint32_t index) {
    static struct message message;
    char error[256] = "";
    struct identity *identity = unit_identity('k');
    message_free(&message);
    int result = render_message(job, index, unit_date_s, identity, UNIT_MAX_BYTES, &message, error, sizeof(error));
    identity_free(identity);
    if (result != 0)
        fail_msg("render: %s", error);
    unit_assert_wire_form(&message);
    return unit_text(&message);
}

/* The error of a job that must not render. */
static inline const char *unit_render_error(const struct job *job, uint32_t index, int expected) {
    static char error[256];
    struct message message;
    message_init(&message);
    struct identity *identity = unit_identity('k');
    error[0] = '\0';
    assert_int_equal(render_message(job, index, unit_date_s, identity, UNIT_MAX_BYTES, &message, error, sizeof(error)), expected);
    identity_free(identity);
    message_free(&message);
    assert_true(error[0] != '\0');
    return error;
}

__attribute__((noinline, unused)) static void unit_assert_has(const char *text, const char *part) {
    if (strstr(text, part) == NULL)
        fail_msg("<<<%s>>> lacks <<<%s>>>", text, part);
}

__attribute__((noinline, unused)) static void unit_assert_lacks(const char *text, const char *part) {
    if (strstr(text, part) != NULL)
        fail_msg("<<<%s>>> has <<<%s>>>", text, part);
}

#endif
