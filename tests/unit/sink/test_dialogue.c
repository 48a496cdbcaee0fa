/* The dialogue: RFC 5321, with PIPELINING (2920), CHUNKING (3030), SIZE (1870), 8BITMIME (6152), ENHANCEDSTATUSCODES (2034), SMTPUTF8
 * (6531). */
#include "fake_wire.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HELLO    "EHLO client.test\r\n"
#define ENVELOPE "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\n"
#define MESSAGE  "Message-ID: <1@example.org>\r\n\r\ntext\r\n"
static const struct sink_config everything = {.extensions = EXTENSION_ALL, .size_max = 10000};

static void begin(struct wire *wire, const struct sink_config *config) {
    wire_create(wire, config, NULL, 0);
    assert_true(wire_connect(wire));
    wire_hears(wire, "220 sink.test ESMTP bypost-sink\r\n");
}

static void each_extension_can_be_left_out(void **state) {
    static const char *const names[] = {"PIPELINING", "CHUNKING", "8BITMIME", "SIZE 10000", "ENHANCEDSTATUSCODES", "SMTPUTF8"};
    for (unsigned without = 0; without < 7; without++) {
        struct sink_config config = everything;
        config.extensions &= (uint8_t) ~(without < 6 ? 1 << without : 0);
        struct wire wire;
        begin(&wire, &config);
        wire_say(&wire, HELLO);
        char expected[512] = "250-sink.test\r\n";
        static const unsigned order[] = {0, 1, 2, 4, 5, 3};
        char *last = expected;
        for (unsigned i = 0; i < 6; i++) {
            if (order[i] == without)
                continue;
            last = expected + strlen(expected);
            strcat(strcat(strcat(expected, "250-"), names[order[i]]), "\r\n");
        }
        last[3] = ' ';
        wire_hears(&wire, expected);
        wire_destroy(&wire);
    }
    struct wire wire;
    begin(&wire, &(struct sink_config){.extensions = 0});
    wire_say(&wire, HELLO);
    wire_hears(&wire, "250 sink.test\r\n");
    wire_destroy(&wire);
}

/* RFC 2920: the replies to a group leave together, in order, however the group was cut. */
static void a_pipelined_message_is_taken(void **state) {
    for (uint32_t step = 0; step < 90; step += step < 5 ? 1 : 17) {
        struct wire wire;
        begin(&wire, &everything);
        wire.step = step;
        wire_say(&wire, HELLO);
        wire_hears_codes(&wire, "250");
        wire_say(&wire, ENVELOPE "DATA\r\n");
        wire_hears(&wire, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n");
        wire_say(&wire, MESSAGE ".\r\n" ENVELOPE "DATA\r\n");
        wire_hears_codes(&wire, "250 250 250 354");
        wire_say(&wire, MESSAGE ".\r\nQUIT\r\n");
        wire_hears_codes(&wire, "250 221");
        assert_true(wire_has_fin(&wire));
        const struct tally *tally = wire_tally(&wire);
        assert_int_equal(tally->messages_accepted, 2);
        assert_int_equal(tally->messages_unique, 1);
        assert_int_equal(tally->messages_repeated, 1);
        assert_int_equal(tally->message_bytes, 2 * strlen(MESSAGE));
        assert_int_equal(tally->digests_missing, 2);
        assert_int_equal(tally->errors_pipelining, 0);
        wire_destroy(&wire);
    }
}

/* RFC 3030: MAIL, RCPT, BDAT LAST and the body in one flight; chunks of any size; no dot means anything. */
static void chunks_are_taken(void **state) {
    for (uint32_t step = 0; step < 60; step += step < 5 ? 1 : 13) {
        struct wire wire;
        begin(&wire, &everything);
        wire.step = step;
        wire_say(&wire, HELLO);
        wire_hears_codes(&wire, "250");
        wire_say(&wire, ENVELOPE "BDAT 29\r\nMessage-ID: <1@example.org>\r\nBDAT 9 LAST\r\n\r\n.\r\n..\r\n" ENVELOPE "BDAT 0 LAST\r\n");
        wire_hears_codes(&wire, "250 250 250 250 250 250 250");
        assert_int_equal(wire_tally(&wire)->messages_accepted, 2);
        assert_int_equal(wire_tally(&wire)->messages_unique, 1);
        assert_int_equal(wire_tally(&wire)->messages_without_id, 1);
        assert_int_equal(wire_tally(&wire)->message_bytes, 38);
        assert_int_equal(wire_tally(&wire)->errors_smuggled, 0);
        wire_destroy(&wire);
    }
}

/* RFC 3030 section 2: the octets of a refused chunk follow all the same, and are not commands. */
static void a_refused_chunk_is_thrown_away(void **state) {
    struct wire wire;
    begin(&wire, &everything);
    wire_say(&wire, HELLO "BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n");
    wire_hears_codes(&wire, "250 503 250");
    wire_say(&wire, "MAIL FROM:<a@b>\r\nBDAT 6\r\nQUIT\r\nRSET\r\n");
    wire_hears_codes(&wire, "250 554 250");
    wire_say(&wire, ENVELOPE "BDAT 1\r\nxDATA\r\nRCPT TO:<c@d>\r\nBDAT 1 LAST\r\ny");
    wire_hears_codes(&wire, "250 250 250 503 503 250");
    wire_destroy(&wire);
    struct sink_config config = everything;
    config.extensions &= (uint8_t)~EXTENSION_CHUNKING;
    begin(&wire, &config);
    wire_say(&wire, HELLO ENVELOPE "BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n");
    wire_hears_codes(&wire, "250 250 250 502 250");
    wire_destroy(&wire);
}

static void commands_have_an_order(void **state) {
    struct wire wire;
    begin(&wire, &everything);
    wire_say(&wire, ENVELOPE);
    wire_hears_codes(&wire, "503 503");
    wire_say(&wire, HELLO "RCPT TO:<b@c>\r\nDATA\r\nMAIL FROM:<a@b>\r\nMAIL FROM:<a@b>\r\n");
    wire_hears_codes(&wire, "250 503 503 250 503");
    wire_say(&wire, "DATA\r\n");
    wire_hears_codes(&wire, "554");
    assert_int_equal(wire_tally(&wire)->errors_sequence, 5);
    wire_destroy(&wire);
}

/* RFC 5321 4.1.4: EHLO in the middle of a session resets it. */
static void ehlo_and_rset_forget_the_transaction(void **state) {
    struct wire wire;
    begin(&wire, &everything);
    wire_say(&wire, HELLO ENVELOPE "RSET\r\nRCPT TO:<b@c>\r\n" ENVELOPE HELLO "RCPT TO:<b@c>\r\n");
    wire_hears_codes(&wire, "250 250 250 250 503 250 250 250 503");
    wire_destroy(&wire);
}

static void errors_are_answered_and_counted(void **state) {
    struct wire wire;
    begin(&wire, &everything);
    wire_say(&wire, HELLO);
    wire_hears_codes(&wire, "250");
    wire_say(&wire, "EXPN x\r\n");
    wire_hears(&wire, "500 5.5.2 Command unrecognized\r\n");
    wire_say(&wire, "MAIL FROM: <a@b>\r\n");
    wire_hears(&wire, "501 5.5.4 Syntax error\r\n");
    wire_say(&wire, "MAIL FROM:<a@b> AUTH=<>\r\n");
    wire_hears(&wire, "555 5.5.4 Parameter not offered\r\n");
    wire_say(&wire, "NOOP\n");
    wire_hears(&wire, "500 5.5.2 Bare LF\r\n");
    const struct tally *tally = wire_tally(&wire);
    assert_int_equal(tally->errors_unknown, 1);
    assert_int_equal(tally->errors_syntax, 1);
    assert_int_equal(tally->errors_parameter, 1);
    assert_int_equal(tally->errors_command_bare_lf, 1);
    wire_destroy(&wire);
}

static void overlong_lines_are_refused_and_the_session_goes_on(void **state) {
    char line[3000];
    memset(line, 'x', sizeof(line));
    memcpy(line + sizeof(line) - 3, "\r\n", 3);
    for (uint32_t step = 0; step < 3000; step += 499) {
        struct wire wire;
        begin(&wire, &everything);
        wire.step = step;
        wire_say(&wire, line);
        wire_hears(&wire, "500 5.5.6 Line too long\r\n");
        wire_say(&wire, "NOOP\r\n");
        wire_hears_codes(&wire, "250");
        assert_int_equal(wire_tally(&wire)->errors_command_overlong, 1);
        wire_destroy(&wire);
    }
}

static void codes_are_left_out_where_they_are_not_offered(void **state) {
    struct wire wire;
    begin(&wire, &(struct sink_config){.extensions = EXTENSION_PIPELINING});
    wire_say(&wire, HELLO);
    wire_hears_codes(&wire, "250");
    wire_say(&wire, ENVELOPE "QUIT\r\n");
    wire_hears(&wire, "250 Ok\r\n250 Ok\r\n221 Bye\r\n");
    wire_destroy(&wire);
}

/* RFC 2920 section 3.1: EHLO, DATA, QUIT and NOOP wait for their reply; without PIPELINING every command does. */
static void what_must_wait_and_does_not_is_counted(void **state) {
    struct wire wire;
    begin(&wire, &everything);
    wire_say(&wire, "EHLO a\r\nNOOP\r\n");
    assert_int_equal(wire_tally(&wire)->errors_pipelining, 1);
    wire_say(&wire, ENVELOPE "DATA\r\n" MESSAGE ".\r\n");
    assert_int_equal(wire_tally(&wire)->errors_pipelining, 2);
    assert_int_equal(wire_tally(&wire)->messages_accepted, 1);
    wire_destroy(&wire);
    begin(&wire, &(struct sink_config){.extensions = 0});
    wire_say(&wire, "EHLO a\r\n");
    wire_say(&wire, ENVELOPE);
    assert_int_equal(wire_tally(&wire)->errors_pipelining, 1);
    wire_destroy(&wire);
}

static void say_message(struct wire *wire, const char *text, const char *codes) {
    wire_say(wire, ENVELOPE "DATA\r\n");
    wire_hears_codes(wire, "250 250 354");
    wire_say(wire, text);
    wire_say(wire, ".\r\n");
    wire_hears_codes(wire, codes);
}

static void bad_lines_are_refused_or_counted(void **state) {
    struct wire wire;
    begin(&wire, &everything);
    wire_say(&wire, HELLO);
    wire_hears_codes(&wire, "250");
    say_message(&wire, "a\nb\r\n", "550");
    say_message(&wire, "a\rb\r\n", "550");
    say_message(&wire, "a\n.\r\nMAIL FROM:<x@y>\r\n", "550");
    say_message(&wire, "h\xc3\xa9\r\n", "250");
    say_message(&wire, ".x\r\n", "250");
    const struct tally *tally = wire_tally(&wire);
    assert_int_equal(tally->errors_bare_lf, 2);
    assert_int_equal(tally->errors_bare_cr, 1);
    assert_int_equal(tally->errors_smuggled, 1);
    assert_int_equal(tally->errors_eight_bit, 1);
    assert_int_equal(tally->errors_unstuffed_dot, 1);
    assert_int_equal(tally->messages_refused, 3);
    assert_int_equal(tally->messages_accepted, 2);
    wire_say(&wire, "MAIL FROM:<a@b> BODY=8BITMIME\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    wire_say(&wire, "h\xc3\xa9\r\n.\r\n");
    wire_hears_codes(&wire, "250 250 354 250");
    assert_int_equal(tally->errors_eight_bit, 1);
    wire_destroy(&wire);
}

/* RFC 1870: at MAIL by what is declared, at the end by what came. */
static void sizes_are_held(void **state) {
    static char large[12000];
    struct wire wire;
    begin(&wire, &everything);
    wire_say(&wire, HELLO "MAIL FROM:<a@b> SIZE=10001\r\nMAIL FROM:<a@b> SIZE=10000\r\nRSET\r\n");
    wire_hears_codes(&wire, "250 552 250 250");
    for (unsigned i = 0; i < 10500; i += 70)
        memcpy(large + i, "0123456789012345678901234567890123456789012345678901234567890123456\r\n ", 70);
    large[10500 - 1] = '\0';
    say_message(&wire, large, "552");
    wire_say(&wire, "MAIL FROM:<a@b> SIZE=3\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    wire_say(&wire, "four\r\n.\r\n");
    wire_hears_codes(&wire, "250 250 354 250");
    assert_int_equal(wire_tally(&wire)->errors_size, 2);
    wire_destroy(&wire);
}

static void utf8_addresses_want_an_utf8_transaction(void **state) {
    struct wire wire;
    begin(&wire, &everything);
    wire_say(&wire, HELLO "MAIL FROM:<a@b>\r\nRCPT TO:<\xc3\xa9@d>\r\nRSET\r\nMAIL FROM:<a@b> SMTPUTF8\r\nRCPT TO:<\xc3\xa9@d>\r\n");
    wire_hears_codes(&wire, "250 250 553 250 250 250");
    wire_destroy(&wire);
}

static void recipients_are_bounded(void **state) {
    struct wire wire;
    struct sink_config config = everything;
    config.recipients_max = 3;
    begin(&wire, &config);
    wire_say(&wire, HELLO "MAIL FROM:<a@b>\r\nRCPT TO:<a@d>\r\nRCPT TO:<b@d>\r\nRCPT TO:<c@d>\r\nRCPT TO:<d@d>\r\n");
    wire_hears_codes(&wire, "250 250 250 250 250 452");
    wire_destroy(&wire);
}

static void the_record_names_each_recipient(void **state) {
    char *text = NULL;
    size_t length = 0;
    struct sink_config config = everything;
    config.record = open_memstream(&text, &length);
    struct wire wire;
    begin(&wire, &config);
    wire_say(&wire, HELLO "MAIL FROM:<a@b>\r\nRCPT TO:<C@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n");
    wire_say(&wire, MESSAGE ".\r\n");
    fflush(config.record);
    assert_string_equal(text, "<1@example.org> C@d\n<1@example.org> e@f\n");
    wire_destroy(&wire);
    fclose(config.record);
    free(text);
}

static void digests_are_checked(void **state) {
    struct wire wire;
    begin(&wire, &everything);
    wire_say(&wire, HELLO);
    wire_hears_codes(&wire, "250");
    say_message(&wire, "X-Body-Digest: xxh64=ef46db3751d8e999\r\n\r\n", "250");
    say_message(&wire, "X-Body-Digest: xxh64=ef46db3751d8e999\r\n\r\nx\r\n", "250");
    say_message(&wire, "X-Body-Digest: none\r\n\r\nx\r\n", "250");
    assert_int_equal(wire_tally(&wire)->digests_good, 1);
    assert_int_equal(wire_tally(&wire)->digests_bad, 1);
    assert_int_equal(wire_tally(&wire)->digests_missing, 1);
    wire_destroy(&wire);
}

static void a_client_that_leaves_within_a_message_is_counted(void **state) {
    struct wire wire;
    begin(&wire, &everything);
    wire_say(&wire, HELLO ENVELOPE "DATA\r\n");
    wire_say(&wire, "half of it\r\n");
    wire_finish(&wire);
    assert_true(wire_has_fin(&wire));
    wire_close(&wire);
    assert_int_equal(wire_tally(&wire)->messages_aborted, 1);
    assert_int_equal(wire_tally(&wire)->messages, 0);
    wire_destroy(&wire);
}

static void a_session_s_end_gives_its_transaction_back(void **state) {
    struct wire wire;
    struct sink_config config = everything;
    config.max_transactions = 1;
    begin(&wire, &config);
    wire_say(&wire, HELLO ENVELOPE);
    wire_hears_codes(&wire, "250 250 250");
    assert_true(wire_connect(&wire));
    wire_say(&wire, HELLO ENVELOPE);
    wire_hears_codes(&wire, "220 250 250 250");
    wire_destroy(&wire);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_extension_can_be_left_out),
        cmocka_unit_test(a_pipelined_message_is_taken),
        cmocka_unit_test(chunks_are_taken),
        cmocka_unit_test(a_refused_chunk_is_thrown_away),
        cmocka_unit_test(commands_have_an_order),
        cmocka_unit_test(ehlo_and_rset_forget_the_transaction),
        cmocka_unit_test(errors_are_answered_and_counted),
        cmocka_unit_test(overlong_lines_are_refused_and_the_session_goes_on),
        cmocka_unit_test(codes_are_left_out_where_they_are_not_offered),
        cmocka_unit_test(what_must_wait_and_does_not_is_counted),
        cmocka_unit_test(bad_lines_are_refused_or_counted),
        cmocka_unit_test(sizes_are_held),
        cmocka_unit_test(utf8_addresses_want_an_utf8_transaction),
        cmocka_unit_test(recipients_are_bounded),
        cmocka_unit_test(the_record_names_each_recipient),
        cmocka_unit_test(digests_are_checked),
        cmocka_unit_test(a_client_that_leaves_within_a_message_is_counted),
        cmocka_unit_test(a_session_s_end_gives_its_transaction_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
