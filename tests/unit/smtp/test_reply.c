/* test_reply.c: replies (RFC 5321 4.2), enhanced codes (RFC 3463) and EHLO keywords, wherever the network cuts them. */
#include "dataplane/smtp/reply.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What a reply came to: "code e.e.e text" or "BAD why" or "MORE". */
static void describe(enum reply_status status, const struct reply *reply, char *text, size_t text_bytes) {
    if (status == REPLY_MORE)
        snprintf(text, text_bytes, "MORE");
    else if (status == REPLY_BAD)
        snprintf(text, text_bytes, "BAD %s", reply_fault_text(reply->fault));
    else
        snprintf(text, text_bytes, "%u %u.%u.%u %.*s", reply->code, reply->enhanced[0], reply->enhanced[1], reply->enhanced[2],
                 reply->text_length, reply->text);
}

/* Feeds the bytes in parts that end at `cut` and at the end; each part lies in memory of just its size. */
static enum reply_status feed(struct reply *reply, struct capabilities *capabilities, const char *bytes, uint32_t length, uint32_t cut,
                              uint32_t *consumed) {
    enum reply_status status = REPLY_MORE;
    reply_begin(reply, capabilities);
    *consumed = 0;
    for (uint32_t from = 0, to = cut; from < length && status == REPLY_MORE; from = to, to = length) {
        if (to == from)
            continue;
        uint8_t *part = malloc(to - from);
        assert_non_null(part);
        memcpy(part, bytes + from, to - from);
        uint32_t taken;
        status = reply_take(reply, part, to - from, &taken);
        if (status == REPLY_MORE)
            assert_int_equal(taken, to - from);
        *consumed += taken;
        free(part);
    }
    return status;
}

static void a_reply_reads_the_same_wherever_it_is_cut(void **state) {
    static const struct {
        const char *bytes, *expected;
    } replies[] = {
        {"250 ok\r\n", "250 0.0.0 ok"},
        {"250\r\n", "250 0.0.0 "},
        {"250 \r\n", "250 0.0.0 "},
        {"250 ok\n", "250 0.0.0 ok"},
        {"250-one\r\n250-two\r\n250 three\r\n", "250 0.0.0 one two three"},
        {"550 5.1.1 no such user\r\n", "550 5.1.1 no such user"},
        {"550-5.1.1 no such user\r\n550 5.1.1 see https://x.test\r\n", "550 5.1.1 no such user see https://x.test"},
        {"550-5.7.26 unauthenticated\r\n550 go away\r\n", "550 5.7.26 unauthenticated go away"},
        {"550 5.7.999 x\r\n", "550 5.7.999 x"},
        {"550 5.1.1\r\n", "550 5.1.1 "},
        /* the class of an enhanced code must agree with the basic code, else it is only text */
        {"550 4.2.2 over quota\r\n", "550 0.0.0 4.2.2 over quota"},
        {"250 2.1.5x ok\r\n", "250 0.0.0 2.1.5x ok"},
        {"250 2.1234.5 ok\r\n", "250 0.0.0 2.1234.5 ok"},
        {"250 2..5 ok\r\n", "250 0.0.0 2..5 ok"},
        /* mixed codes: the last line's */
        {"450-4.2.1 later\r\n550 5.2.1 never\r\n", "550 5.2.1 later never"},
        {"550-5.2.1 never\r\n450 later\r\n", "450 0.0.0 never later"},
        /* bytes, not UTF-8; nothing that could harm a log */
        {"250 a\tb\x01\x7f\x1b[2J\rc\r\n", "250 0.0.0 a b???[2J?c"},
        {"250 gr\xc3\xbc\xff\r\n", "250 0.0.0 gr\xc3\xbc\xff"},
        {"\r\n", "BAD not an SMTP reply"},
        {"25\r\n", "BAD not an SMTP reply"},
        {"2500 ok\r\n", "BAD not an SMTP reply"},
        {"250\r\r\n", "BAD not an SMTP reply"},
        {"250_ok\r\n", "BAD not an SMTP reply"},
        {"650 ok\r\n", "BAD not an SMTP reply"},
        {"HTTP/1.1 400 Bad Request\r\n", "BAD not an SMTP reply"},
        {"250-one\r\nnonsense\r\n", "BAD not an SMTP reply"},
        {"250-one\r\n", "MORE"},
        {"250 on", "MORE"},
    };
    struct reply *reply = malloc(sizeof(*reply));
    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        uint32_t length = (uint32_t)strlen(replies[i].bytes), consumed;
        for (uint32_t cut = 0; cut <= length; cut++) {
            char text[REPLY_TEXT_MAX + 64];
            describe(feed(reply, NULL, replies[i].bytes, length, cut, &consumed), reply, text, sizeof(text));
            assert_string_equal(text, replies[i].expected);
        }
    }
    free(reply);
}

static void what_follows_a_reply_is_left_for_the_next(void **state) {
    struct reply *reply = malloc(sizeof(*reply));
    const char bytes[] = "250-a\r\n250 b\r\n354 go\r\n";
    uint32_t consumed;
    assert_int_equal(feed(reply, NULL, bytes, sizeof(bytes) - 1, sizeof(bytes) - 1, &consumed), REPLY_DONE);
    assert_int_equal(consumed, 14);
    free(reply);
}

static void a_line_of_2048_bytes_is_read_and_one_more_is_not(void **state) {
    struct reply *reply = malloc(sizeof(*reply));
    char line[REPLY_LINE_MAX + 2];
    for (uint32_t length = REPLY_LINE_MAX; length <= REPLY_LINE_MAX + 1; length++) {
        memset(line, 'x', sizeof(line));
        memcpy(line, "250 ", 4);
        memcpy(line + length - 2, "\r\n", 2);
        for (uint32_t cut = 0; cut <= length; cut += 31) {
            uint32_t consumed;
            enum reply_status status = feed(reply, NULL, line, length, cut, &consumed);
            assert_int_equal(status, length == REPLY_LINE_MAX ? REPLY_DONE : REPLY_BAD);
            if (status == REPLY_BAD)
                assert_int_equal(reply->fault, REPLY_LINE_TOO_LONG);
            else
                assert_int_equal(reply->text_length, REPLY_TEXT_MAX);
        }
    }
    free(reply);
}

static void a_hundred_lines_are_read_and_one_more_is_not(void **state) {
    struct reply *reply = malloc(sizeof(*reply));
    for (uint32_t lines = REPLY_LINES_MAX; lines <= REPLY_LINES_MAX + 1; lines++) {
        char bytes[8 * (REPLY_LINES_MAX + 1) + 1] = "";
        for (uint32_t i = 1; i <= lines; i++)
            strcat(bytes, i == lines ? "250 x\r\n" : "250-x\r\n");
        uint32_t length = (uint32_t)strlen(bytes), consumed;
        enum reply_status status = feed(reply, NULL, bytes, length, 5, &consumed);
        assert_int_equal(status, lines == REPLY_LINES_MAX ? REPLY_DONE : REPLY_BAD);
        if (status == REPLY_BAD)
            assert_int_equal(reply->fault, REPLY_TOO_MANY_LINES);
    }
    free(reply);
}

static void ehlo_keywords_come_in_any_case_and_at_any_cut(void **state) {
    static const char bytes[] =
        "250-mx.test PIPELINING\r\n250-pipelining\r\n250-Size 10485760\r\n250-8bitmime\r\n250-SMTPUTF8\r\n250-CHUNKING\r\n"
        "250-STARTTLS\r\n250-EnhancedStatusCodes\r\n250-DSN\r\n250-REQUIRETLS\r\n"
        "250-LIMITS RCPTMAX=20 MAILMAX=5 FOO RCPTDOMAINMAX=1\r\n250-X-UNKNOWN pipelining\r\n250-AUTH=LOGIN\r\n250 auth plain XOAUTH2\r\n";
    struct reply *reply = malloc(sizeof(*reply));
    for (uint32_t cut = 0; cut < sizeof(bytes); cut++) {
        struct capabilities can = {0};
        uint32_t consumed;
        assert_int_equal(feed(reply, &can, bytes, sizeof(bytes) - 1, cut < sizeof(bytes) - 1 ? cut : sizeof(bytes) - 1, &consumed),
                         REPLY_DONE);
        assert_int_equal(can.flags, CAP_PIPELINING | CAP_SIZE | CAP_8BITMIME | CAP_SMTPUTF8 | CAP_CHUNKING | CAP_STARTTLS | CAP_ENHANCED |
                                        CAP_DSN | CAP_REQUIRETLS | CAP_LIMITS | CAP_AUTH_LOGIN | CAP_AUTH_PLAIN | CAP_AUTH_XOAUTH2);
        assert_int_equal(can.size_max_bytes, 10485760);
        assert_int_equal(can.rcpt_max, 20);
        assert_int_equal(can.mail_max, 5);
        assert_int_equal(can.rcpt_domain_max, 1);
    }
    free(reply);
}

static void the_first_line_of_ehlo_is_a_name_and_sizes_are_bounded(void **state) {
    struct reply *reply = malloc(sizeof(*reply));
    struct capabilities can = {0};
    uint32_t consumed;
    const char first[] = "250 PIPELINING\r\n";
    assert_int_equal(feed(reply, &can, first, sizeof(first) - 1, 3, &consumed), REPLY_DONE);
    assert_int_equal(can.flags, 0);
    const char none[] = "250-x\r\n250-SIZE\r\n250 AUTH=\r\n";
    assert_int_equal(feed(reply, &can, none, sizeof(none) - 1, 3, &consumed), REPLY_DONE);
    assert_int_equal(can.flags, CAP_SIZE);
    assert_int_equal(can.size_max_bytes, 0);
    const char huge[] = "250-x\r\n250 SIZE 99999999999999999999999999\r\n";
    assert_int_equal(feed(reply, &can, huge, sizeof(huge) - 1, 3, &consumed), REPLY_DONE);
    assert_true(can.size_max_bytes == UINT64_MAX);
    const char odd[] = "250-x\r\n250 SIZE -5\r\n";
    assert_int_equal(feed(reply, &can, odd, sizeof(odd) - 1, 3, &consumed), REPLY_DONE);
    assert_int_equal(can.size_max_bytes, 0);
    free(reply);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reply_reads_the_same_wherever_it_is_cut),
        cmocka_unit_test(what_follows_a_reply_is_left_for_the_next),
        cmocka_unit_test(a_line_of_2048_bytes_is_read_and_one_more_is_not),
        cmocka_unit_test(a_hundred_lines_are_read_and_one_more_is_not),
        cmocka_unit_test(ehlo_keywords_come_in_any_case_and_at_any_cut),
        cmocka_unit_test(the_first_line_of_ehlo_is_a_name_and_sizes_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
