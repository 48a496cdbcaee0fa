/* Every action of the script at the stages where it can be. */
#include "fake_wire.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define HELLO   "EHLO client.test\r\n"
#define MAIL    "MAIL FROM:<a@example.org>\r\n"
#define RCPT    "RCPT TO:<b@example.net>\r\n"
#define MESSAGE "Message-ID: <1@example.org>\r\n\r\ntext\r\n.\r\n"

static struct wire wire;

static void with(const char *rule) {
    wire_create(&wire, &(struct sink_config){.extensions = EXTENSION_ALL}, &rule, 1);
}

/* A connection that says everything up to the end of a message, as far as it is let. */
static void say_all(void) {
    wire_say(&wire, HELLO);
    wire_say(&wire, MAIL RCPT "DATA\r\n");
    wire_say(&wire, MESSAGE);
}

static void a_reply_at_each_stage(void **state) {
    static const struct {
        const char *rule, *codes;
    } cases[] = {
        {"refuse banner", "554"},
        {"defer banner", "451"},
        {"refuse ehlo", "220 554 503 503 503 500 500 500 500"},
        {"defer mail", "220 250 451 503 503 500 500 500 500"},
        {"refuse rcpt code=553", "220 250 250 553 554 500 500 500 500"},
        {"defer data", "220 250 250 250 451 500 500 500 500"},
        {"refuse final code=552", "220 250 250 250 354 552"},
        {"defer final code=450", "220 250 250 250 354 450"},
        {"421 mail", "220 250 421"},
        {"421 final", "220 250 250 250 354 421"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        with(cases[i].rule);
        assert_true(wire_connect(&wire));
        say_all();
        wire_hears_codes(&wire, cases[i].codes);
        assert_int_equal(wire_has_fin(&wire), strncmp(cases[i].rule, "421", 3) == 0 || strstr(cases[i].rule, "banner") != NULL);
        assert_int_equal(wire_tally(&wire)->messages_unique, 0);
        wire_destroy(&wire);
    }
}

static void a_drop_at_each_stage(void **state) {
    static const char *const stages[] = {"banner", "ehlo", "mail", "rcpt", "data", "final"};
    static const char *const heard[] = {"", "220", "220 250", "220 250", "220 250", "220 250 250 250 354"};
    for (unsigned i = 0; i < 12; i++) {
        char rule[64];
        bool fin = i >= 6;
        strcat(strcat(strcpy(rule, "drop "), stages[i % 6]), fin ? " with=fin" : "");
        with(rule);
        assert_true(wire_connect(&wire));
        say_all();
        assert_int_equal(wire_is_reset(&wire), !fin);
        assert_int_equal(wire_has_fin(&wire), fin);
        if (!fin) /* what was gathered in the same segment goes with the reset */
            wire_hears_codes(&wire, heard[i % 6]);
        assert_int_equal(wire_tally(&wire)->messages_unanswered, i % 6 == 5);
        assert_int_equal(wire_tally(&wire)->messages_unique, i % 6 == 5); /* kept: the sender cannot know */
        wire_destroy(&wire);
    }
    with("drop connect");
    assert_false(wire_connect(&wire));
    assert_int_equal(wire_tally(&wire)->connections_refused, 1);
    wire_destroy(&wire);
    with("drop connect with=fin");
    assert_true(wire_connect(&wire));
    wire_hears(&wire, "");
    assert_true(wire_has_fin(&wire));
    wire_destroy(&wire);
}

static void a_stall_reads_and_never_answers(void **state) {
    static const char *const stages[] = {"connect", "banner", "ehlo", "mail", "rcpt", "data", "final"};
    static const char *const heard[] = {"", "", "220", "220 250", "220 250 250", "220 250 250 250", "220 250 250 250 354"};
    for (unsigned i = 0; i < 7; i++) {
        char rule[64];
        strcat(strcpy(rule, "stall "), stages[i]);
        with(rule);
        assert_true(wire_connect(&wire));
        say_all();
        wire_wait(&wire, 5000);
        wire_hears_codes(&wire, heard[i]);
        assert_int_equal(wire_backlog(&wire), 0);
        assert_false(wire_has_fin(&wire) || wire_is_reset(&wire));
        wire_finish(&wire);
        assert_true(wire_has_fin(&wire));
        wire_destroy(&wire);
    }
}

static void a_delay_holds_one_reply_and_what_is_behind_it(void **state) {
    with("delay rcpt ms=1500");
    assert_true(wire_connect(&wire));
    wire_say(&wire, HELLO);
    wire_hears_codes(&wire, "220 250");
    wire_say(&wire, MAIL RCPT "DATA\r\n");
    wire_hears_codes(&wire, "250");
    wire_wait(&wire, 1499);
    wire_hears_codes(&wire, "");
    wire_wait(&wire, 2);
    wire_hears_codes(&wire, "250 354");
    wire_say(&wire, MESSAGE);
    wire_hears_codes(&wire, "250");
    wire_destroy(&wire);
}

static void a_delayed_banner_and_final_reply(void **state) {
    with("delay banner ms=10");
    assert_true(wire_connect(&wire));
    wire_hears_codes(&wire, "");
    wire_wait(&wire, 11);
    wire_hears_codes(&wire, "220");
    wire_destroy(&wire);
    with("delay final ms=10");
    assert_true(wire_connect(&wire));
    wire_say(&wire, HELLO);
    wire_say(&wire, MAIL RCPT "BDAT 2 LAST\r\n\r\n" MAIL);
    wire_hears_codes(&wire, "220 250 250 250");
    wire_wait(&wire, 11);
    wire_hears_codes(&wire, "250 250");
    wire_destroy(&wire);
}

static void a_client_that_leaves_during_a_delay_hears_the_rest(void **state) {
    with("delay mail ms=100");
    assert_true(wire_connect(&wire));
    wire_say(&wire, HELLO);
    wire_say(&wire, MAIL);
    wire_finish(&wire);
    assert_false(wire_has_fin(&wire));
    wire_wait(&wire, 101);
    wire_hears_codes(&wire, "220 250 250");
    assert_true(wire_has_fin(&wire));
    wire_destroy(&wire);
}

static void a_slow_reader_takes_so_many_bytes_a_second(void **state) {
    static char text[20000];
    memset(text, 'x', sizeof(text));
    for (unsigned i = 77; i + 1 < sizeof(text); i += 79)
        memcpy(text + i, "\r\n", 2);
    with("slow data bytes=1000");
    assert_true(wire_connect(&wire));
    wire_say(&wire, HELLO);
    wire_say(&wire, MAIL RCPT "DATA\r\n");
    wire_hears_codes(&wire, "220 250 250 250 354");
    wire_say_bytes(&wire, text, sizeof(text));
    uint32_t before = wire_backlog(&wire);
    wire_wait(&wire, 5000);
    assert_in_range(before - wire_backlog(&wire), 4700, 5300);
    wire_wait(&wire, 16000);
    assert_int_equal(wire_backlog(&wire), 0);
    wire_say(&wire, "\r\n.\r\n");
    wire_wait(&wire, 200);
    wire_hears_codes(&wire, "250");
    wire_destroy(&wire);
}

static void a_deferred_recipient_passes_the_second_time(void **state) {
    with("defer rcpt recipient=b@* attempts=1");
    for (unsigned attempt = 0; attempt < 3; attempt++) {
        assert_true(wire_connect(&wire));
        wire_say(&wire, HELLO);
        wire_say(&wire, MAIL "RCPT TO:<"
                             "c@example.net>\r\n" RCPT);
        wire_hears_codes(&wire, attempt == 0 ? "220 250 250 250 451" : "220 250 250 250 250");
    }
    assert_int_equal(wire_tally(&wire)->recipients_deferred, 1);
    assert_int_equal(wire_tally(&wire)->recipients, 5);
    wire_destroy(&wire);
}

/* Case does not make another recipient of it. */
static void a_retry_in_other_letters_is_a_retry(void **state) {
    with("defer rcpt attempts=1");
    assert_true(wire_connect(&wire));
    wire_say(&wire, HELLO);
    wire_say(&wire, MAIL "RCPT TO:<Bob@Example.Net>\r\nRCPT TO:<bob@example.net>\r\n");
    wire_hears_codes(&wire, "220 250 250 451 250");
    wire_destroy(&wire);
}

static void a_refused_first_chunk_refuses_the_message(void **state) {
    with("defer data");
    assert_true(wire_connect(&wire));
    wire_say(&wire, HELLO);
    wire_say(&wire, MAIL RCPT "BDAT 6\r\nabcd\r\nBDAT 6 LAST\r\nabcd\r\nNOOP\r\n");
    wire_hears_codes(&wire, "220 250 250 250 451 503 250");
    wire_destroy(&wire);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reply_at_each_stage),
        cmocka_unit_test(a_drop_at_each_stage),
        cmocka_unit_test(a_stall_reads_and_never_answers),
        cmocka_unit_test(a_delay_holds_one_reply_and_what_is_behind_it),
        cmocka_unit_test(a_delayed_banner_and_final_reply),
        cmocka_unit_test(a_client_that_leaves_during_a_delay_hears_the_rest),
        cmocka_unit_test(a_slow_reader_takes_so_many_bytes_a_second),
        cmocka_unit_test(a_deferred_recipient_passes_the_second_time),
        cmocka_unit_test(a_retry_in_other_letters_is_a_retry),
        cmocka_unit_test(a_refused_first_chunk_refuses_the_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
