/* Messages that the producer made: RFC 5322 2.1, 2.3, 3.6; RFC 5321 2.3.8 (no bare CR or LF on the wire); SMTP.md section 5. */
#include "unit.h"

#include <errno.h>

static const char *render_raw(const char *raw, size_t length) {
    struct unit_job u;
    unit_job_init(&u);
    u.job.raw = (uint8_t *)raw;
    u.job.raw_length = length;
    return unit_render(&u.job, 0);
}

static const char *raw_error(const char *raw) {
    struct unit_job u;
    unit_job_init(&u);
    u.job.raw = (uint8_t *)raw;
    u.job.raw_length = strlen(raw);
    return unit_render_error(&u.job, 0, -EINVAL);
}

#define RENDER_RAW(text) render_raw(text, sizeof(text) - 1)
#define WHOLE            "Date: Mon, 01 Jan 2024 00:00:00 +0000\r\nMessage-ID: <a@b>\r\nFrom: Ann <ann@Example.ORG>\r\nSubject: x\r\n"

static void a_good_message_is_sent_as_it_is(void **state) {
    static const char message[] = WHOLE "\r\nline\r\n..dots\r\n\r\n  spaces \r\n";
    assert_string_equal(render_raw(message, sizeof(message) - 1), message);
}

static void line_ends_become_crlf(void **state) {
    static const char expected[] = WHOLE "\r\na\r\nb\r\n\r\nc\r\n";
    static const char *const bodies[] = {"a\nb\n\nc\n", "a\rb\r\rc\r", "a\r\nb\n\rc", "a\r\nb\r\n\r\nc"};
    static const char *const ends[] = {"\n", "\r", "\r\n"};
    for (size_t b = 0; b < 4; b++) {
        for (size_t e = 0; e < 3; e++) {
            char raw[1024] = "";
            for (const char *at = WHOLE; *at != '\0'; at++)
                if (*at == '\n')
                    strcat(raw, ends[e]);
                else if (*at != '\r')
                    memcpy(raw + strlen(raw), (char[]){*at, 0}, 2);
            strcat(raw, ends[e]);
            strcat(raw, bodies[b]);
            assert_string_equal(render_raw(raw, strlen(raw)), expected);
        }
    }
}

static void nul_bytes_go_wherever_they_are(void **state) {
    static const char message[] = WHOLE "\r\nline\r\nmore\r\n";
    for (size_t at = 0; at <= sizeof(message) - 1; at++) {
        char raw[sizeof(message) + 1];
        memcpy(raw, message, at);
        raw[at] = '\0';
        memcpy(raw + at + 1, message + at, sizeof(message) - 1 - at);
        assert_string_equal(render_raw(raw, sizeof(message)), message);
    }
}

/* At every place: cut there, or a stray CR, LF, CRLF, NUL or dot put there. Whatever comes out is fit for the wire, or is refused with a
 * sentence. */
static void every_split_is_fit_for_the_wire(void **state) {
    static const char message[] =
        "Date: Mon, 01 Jan 2024 00:00:00 +0000\r\nFrom: Ann\r\n <ann@example.org>\r\nBcc: eve@example.com,\r\n\tmallory@example.com\r\n"
        "Return-Path: <x@y>\r\nSubject: x\r\n\r\nline\r\n.dot\r\n\r\nend\r\n";
    static const char *const strays[] = {"", "\r", "\n", "\r\n", "\r\r", "\n\n", "\r\n\r\n", "\r\n.\r\n", "\x80", " "};
    struct identity *identity = unit_identity('k');
    unsigned rendered = 0, refused = 0;
    for (size_t s = 0; s < sizeof(strays) / sizeof(strays[0]); s++) {
        for (size_t at = 0; at < sizeof(message); at++) {
            for (int cut = 0; cut < 2; cut++) {
                char raw[sizeof(message) + 16], error[256] = "";
                size_t length = 0;
                memcpy(raw, message, at);
                length = at;
                memcpy(raw + length, strays[s], strlen(strays[s]));
                length += strlen(strays[s]);
                if (!cut) {
                    memcpy(raw + length, message + at, sizeof(message) - 1 - at);
                    length += sizeof(message) - 1 - at;
                }
                struct unit_job u;
                struct message out;
                unit_job_init(&u);
                message_init(&out);
                u.job.raw = (uint8_t *)raw;
                u.job.raw_length = length;
                int result = render_message(&u.job, 0, unit_date_s, identity, UNIT_MAX_BYTES, &out, error, sizeof(error));
                if (result == 0) {
                    unit_assert_wire_form(&out);
                    rendered++;
                } else {
                    assert_int_equal(result, -EINVAL);
                    assert_true(error[0] != '\0');
                    refused++;
                }
                message_free(&out);
            }
        }
    }
    identity_free(identity);
    assert_true(rendered > 1000 && refused > 100);
}

static void bcc_and_return_path_are_left_out(void **state) {
    static const char raw[] = WHOLE "Bcc: eve@example.com,\r\n mallory@example.com\r\nbcc : eve@example.com\r\nRETURN-PATH: "
                                    "<x@example.org>\r\nX-Last \t: y\r\n\r\nBcc: in the body stays\r\n";
    assert_string_equal(render_raw(raw, sizeof(raw) - 1), WHOLE "X-Last: y\r\n\r\nBcc: in the body stays\r\n");
}

static void missing_fields_are_added_in_front(void **state) {
    const char *text = render_raw("Subject: x\n\nbody", 16);
    unit_assert_has(text, "Date: Tue, 14 Nov 2023 22:13:20 +0000\r\nMessage-ID: <");
    unit_assert_has(text, "@example.org>\r\nFrom: Ann <ann@example.org>\r\nSubject: x\r\n\r\nbody\r\n");
    text = render_raw("\nonly a body\n", 13);
    unit_assert_has(text, "From: Ann <ann@example.org>\r\n\r\nonly a body\r\n");
    text = render_raw("Subject: no body at all", 23);
    unit_assert_has(text, "Subject: no body at all\r\n\r\n");
    /* A mailbox file's separator goes. */
    unit_assert_lacks(render_raw("From ann Mon Jan 1\nSubject: x\n\nbody", 35), "From ann");
}

static void the_key_is_chosen_by_the_message_s_own_from(void **state) {
    static const struct {
        const char *from, *domain;
    } cases[] = {{"ann@other.example", "other.example"},
                 {"\"Ann, of (x) <y@z>\" <ann@Other.Example>", "other.example"},
                 {"Ann (ann@comment.example) <ann@other.example>", "other.example"},
                 {"ann@other.example (Ann <x@y>)", "other.example"},
                 {"Ann\r\n <ann@other.example>", "other.example"},
                 {"<ann@other.example>, <bea@third.example>", "other.example"},
                 {"Group: ann@other.example, bea@third.example;", "other.example"},
                 {"ann@[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"},
                 {"\"Gr:oup\": Ann <ann@other.example>;", "other.example"},
                 {"=?utf-8?Q?Ann?= <ann@b\xC3\xBC"
                  "cher.example>",
                  "xn--bcher-kva.example"}};
    struct identity *identity = unit_identity('k');
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char raw[256], error[256] = "";
        struct unit_job u;
        struct message message;
        unit_job_init(&u);
        message_init(&message);
        snprintf(raw, sizeof(raw), "From: %s\r\n\r\nx\r\n", cases[i].from);
        u.job.raw = (uint8_t *)raw;
        u.job.raw_length = strlen(raw);
        int result = render_message(&u.job, 0, unit_date_s, identity, UNIT_MAX_BYTES, &message, error, sizeof(error));
        if (result != 0)
            fail_msg("%s: %s", cases[i].from, error);
        assert_string_equal(message.from_domain, cases[i].domain);
        assert_string_equal(message.sender, "ann@example.org"); /* the envelope is the job's */
        message_free(&message);
    }
    identity_free(identity);
}

/* A name may be longer than any address, as encoded-words make it; the blank lines within it are none of it. */
static void an_address_is_found_behind_a_long_name(void **state) {
    static const char *const between[] = {"\r\n ", "\n\t", "\r\n  \r\n "};
    for (size_t b = 0; b < sizeof(between) / sizeof(between[0]); b++) {
        char raw[8192] = "From: \"Ann <of\\\" \"";
        for (int i = 0; i < 100; i++)
            snprintf(raw + strlen(raw), sizeof(raw) - strlen(raw), "%s=?utf-8?Q?%060d?=", between[b], i);
        snprintf(raw + strlen(raw), sizeof(raw) - strlen(raw), "%s(a note) <ann%s@other.example>\r\n\r\nx\r\n", between[b], between[b]);
        const char *message = render_raw(raw, strlen(raw));
        assert_non_null(strstr(message, "@other.example>\r\n"));
        assert_non_null(strstr(message, "Message-ID: <"));
        assert_non_null(strstr(strstr(message, "Message-ID: <"), "@other.example>\r\n"));
    }
}

static void eight_bits_are_told(void **state) {
    struct identity *identity = unit_identity('k');
    static const struct {
        const char *raw;
        bool body, smtputf8;
    } cases[] = {{"From: a@example.org\n\nplain\n", false, false},
                 {"From: a@example.org\n\nbody caf\xC3\xA9\n", true, false},
                 {"From: a@example.org\nSubject: caf\xC3\xA9\n\nplain\n", false, false}, /* RFC 2047 does */
                 {"From: a@example.org\nReferences: <caf\xC3\xA9@x>\n\nplain\n", false, true},
                 {"From: a\xC3\xA9@example.org\n\nplain\n", false, true},
                 {"From: \xC3\xA9 <a@example.org>\nTo: b\xC3\xA9@example.net\n\nplain\n", false, true},
                 {"From: a@example.org\n\n12345678901234567890123456789\xE9\n", true, false}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct unit_job u;
        struct message message;
        char error[256];
        unit_job_init(&u);
        message_init(&message);
        u.job.raw = (uint8_t *)cases[i].raw;
        u.job.raw_length = strlen(cases[i].raw);
        assert_int_equal(render_message(&u.job, 0, unit_date_s, identity, UNIT_MAX_BYTES, &message, error, sizeof(error)), 0);
        assert_int_equal(message.body_8bit, cases[i].body);
        assert_int_equal(message.needs_smtputf8, cases[i].smtputf8);
        message_free(&message);
    }
    identity_free(identity);
}

static void what_cannot_be_mended_is_refused(void **state) {
    char raw[3000] = "From: a@example.org\n\nshort\n";
    memset(raw + strlen(raw), 'x', 998);
    render_raw(raw, strlen(raw)); /* 998 is allowed */
    strcat(raw, "x");
    unit_assert_has(raw_error(raw), "line 4 of the raw message has 999 bytes");
    unit_assert_has(raw_error("From: a@example.org\nthis is no field\n\nx"), "line 2");
    unit_assert_has(raw_error(" begins with a continuation\n\nx"), "line 1");
    unit_assert_has(raw_error("From: a@example.org\nFrom: b@example.org\n\nx"), "2 From fields");
    unit_assert_has(raw_error("From: nobody\n\nx"), "From is not an address");
    unit_assert_has(raw_error("From:\n\nx"), "From is not an address");
    unit_assert_has(raw_error("From: a@exa mple.org>, <\n\nx"), "From is not an address");
}

/* RFC 6532 is for servers that know SMTPUTF8; RFC 2047 is for all. */
static void texts_beyond_ascii_become_encoded_words(void **state) {
    static const struct {
        const char *raw, *written;
    } cases[] = {
        {"Subject: caf\xC3\xA9 au lait", "Subject: =?utf-8?Q?caf=C3=A9?= au lait"},
        {"SUBJECT:\n caf\xC3\xA9\n\tau lait", "SUBJECT: =?utf-8?Q?caf=C3=A9?=\tau lait"},
        {"X-Note : \xC3\xA9", "X-Note: =?utf-8?B?w6k=?="},
        {"Subject: \xFF", "Subject: =?utf-8?B?77+9?="}, /* no UTF-8: U+FFFD */
        {"To: \xC3\x89va <eva@example.net>", "To: =?utf-8?Q?=C3=89va?= <eva@example.net>"},
        {"To: \"Doe, \xC3\x89va\" <eva@example.net>, bob@example.net,\n Ann <ann@example.net>",
         "To: =?utf-8?Q?Doe=2C_=C3=89va?= <eva@example.net>, bob@example.net,\r\n Ann <ann@example.net>"},
        {"Cc: \"qu\\\"o\xC3\xA9\" <eva@example.net> , \"a b\"@example.net",
         "Cc: =?utf-8?Q?qu=22o=C3=A9?= <eva@example.net>, \"a b\"@example.net"},
        {"Reply-To: eva@b\xC3\xBC"
         "cher.example",
         "Reply-To: eva@xn--bcher-kva.example"},
        /* These stay, and need SMTPUTF8: */
        {"To: \xC3\x89va (comment) <eva@example.net>", "To: \xC3\x89va (comment) <eva@example.net>"},
        {"To: \xC3\xA9: eva@example.net;", "To: \xC3\xA9: eva@example.net;"},
        {"To: \xC3\xA9 =?utf-8?Q?x?= <eva@example.net>", "To: \xC3\xA9 =?utf-8?Q?x?= <eva@example.net>"},
        {"To: \xC3\xA9 <eva@example.net> x", "To: \xC3\xA9 <eva@example.net> x"},
        {"To: \xC3\xA9 <no address>", "To: \xC3\xA9 <no address>"},
        {"To: \"\xC3\xA9 <eva@example.net>", "To: \"\xC3\xA9 <eva@example.net>"},
        {"To: \xC3\xA9,", "To: \xC3\xA9,"},
        {"Authentication-Results: \xC3\xA9", "Authentication-Results: \xC3\xA9"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char raw[512], expected[512];
        snprintf(raw, sizeof(raw), "From: a@example.org\n%s\nX-Last: y\n\nbody\n", cases[i].raw);
        snprintf(expected, sizeof(expected), "From: a@example.org\r\n%s\r\nX-Last: y\r\n\r\nbody\r\n", cases[i].written);
        unit_assert_has(render_raw(raw, strlen(raw)), expected);
    }
}

/* RFC 5322 3.6, RFC 2045 3: what may be there once is there once, or readers disagree on the message. */
static void fields_that_may_be_there_once_are(void **state) {
    static const char *const once[] = {"Date",    "Message-ID", "MIME-Version", "Content-Type", "Content-Transfer-Encoding",
                                       "Subject", "To",         "Cc",           "Sender",       "Reply-To"};
    char raw[512];
    for (size_t i = 0; i < sizeof(once) / sizeof(once[0]); i++) {
        snprintf(raw, sizeof(raw), "From: a@example.org\n%s: 1\nX: y\n%s : 2\n\nx", once[i], once[i]);
        unit_assert_has(raw_error(raw), once[i]);
    }
    RENDER_RAW("From: a@example.org\nReceived: 1\nReceived: 2\nX: 1\nX: 2\nComments: 1\nComments: 2\n\nx");
}

static void mime_fields_that_are_missing_are_added(void **state) {
    static const struct {
        const char *raw, *has, *lacks;
    } cases[] = {
        {"From: a@example.org\n\nplain\n", "From:", "MIME-Version"},
        {"From: a@example.org\nContent-Type: text/html\n\nplain\n", "\r\nMIME-Version: 1.0\r\nFrom:", "Encoding"},
        {"From: a@example.org\nContent-Transfer-Encoding: base64\n\nAAAA\n", "\r\nMIME-Version: 1.0\r\nFrom:", "Content-Type"},
        {"From: a@example.org\nmime-version: 1.0\nContent-Type: text/html\n\nplain\n", "\r\nmime-version: 1.0\r\n", "MIME-Version"},
        {"From: a@example.org\n\ncaf\xC3\xA9\n",
         "\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\nFrom: "
         "a@example.org\r\n\r\ncaf\xC3\xA9\r\n",
         "base64"},
        {"From: a@example.org\n\ncaf\xE9\n", "\r\ncaf\xE9\r\n", "MIME"}, /* in which charset, nobody knows */
        {"From: a@example.org\nContent-Type: text/plain; charset=latin1\n\ncaf\xE9\n",
         "\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\nFrom:", "utf-8"},
        {"From: a@example.org\nMIME-Version: 1.0\nContent-Type: text/plain\nContent-Transfer-Encoding: 8bit\n\ncaf\xE9\n",
         "From:", "8bit\r\nFrom"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *text = render_raw(cases[i].raw, strlen(cases[i].raw));
        unit_assert_has(text, cases[i].has);
        unit_assert_lacks(text, cases[i].lacks);
    }
}

static void a_mailbox_file_s_marks_go(void **state) {
    const char *text = RENDER_RAW("From ann Mon Jan 1\nReturn-Path: <x@y>\nContent-Length: 6\nResent-Bcc: "
                                  "eve@example.com,\n\tmallory@example.com\nFrom: a@example.org\n"
                                  "Status: RO\n\n>From here\nFrom there\n");
    unit_assert_has(text, "From: a@example.org\r\nStatus: RO\r\n\r\n>From here\r\nFrom there\r\n");
    unit_assert_lacks(text, "example.com");
    unit_assert_lacks(text, "Content-Length");
    unit_assert_lacks(text, "From ann");
}

/* A name may begin with a dot, which the wire has twice (RFC 5321 4.5.2): wire form is checked with every rendering. */
static void a_field_s_name_may_begin_with_a_dot(void **state) {
    unit_assert_has(RENDER_RAW("From: a@example.org\n. : x\n\nbody\n"), "\r\n.: x\r\n");
    unit_assert_has(RENDER_RAW("From: a@example.org\n.a: x\n\nbody\n"), "\r\n.a: x\r\n");
}

static void variables_are_not_filled_into_raw(void **state) {
    struct unit_job u;
    unit_job_init(&u);
    u.job.raw = (uint8_t *)"From: a@example.org\n\n{{name}}\n";
    u.job.raw_length = strlen((char *)u.job.raw);
    u.recipients[0].merge_data = (char *)"{\"name\":\"Bob\"}";
    unit_assert_has(unit_render(&u.job, 0), "\r\n{{name}}\r\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_message_is_sent_as_it_is),
        cmocka_unit_test(line_ends_become_crlf),
        cmocka_unit_test(nul_bytes_go_wherever_they_are),
        cmocka_unit_test(every_split_is_fit_for_the_wire),
        cmocka_unit_test(bcc_and_return_path_are_left_out),
        cmocka_unit_test(missing_fields_are_added_in_front),
        cmocka_unit_test(the_key_is_chosen_by_the_message_s_own_from),
        cmocka_unit_test(an_address_is_found_behind_a_long_name),
        cmocka_unit_test(eight_bits_are_told),
        cmocka_unit_test(what_cannot_be_mended_is_refused),
        cmocka_unit_test(texts_beyond_ascii_become_encoded_words),
        cmocka_unit_test(fields_that_may_be_there_once_are),
        cmocka_unit_test(mime_fields_that_are_missing_are_added),
        cmocka_unit_test(a_mailbox_file_s_marks_go),
        cmocka_unit_test(a_field_s_name_may_begin_with_a_dot),
        cmocka_unit_test(variables_are_not_filled_into_raw),
    };
    return cmocka_run_group_tests_name("render/raw", tests, NULL, NULL);
}
