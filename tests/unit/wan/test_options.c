/* test_options.c: the command line: directions, queues in bandwidth-delay products, and errors that say what is wanted. */
#include "bench/wan/options.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

enum { WORDS_MAX = 32 };

static int parse(const char *line, struct options *options, char *error, size_t error_bytes) {
    static char text[1024];
    char *words[WORDS_MAX];
    int count = 0;
    snprintf(text, sizeof text, "bypost-wan --a net_a --b net_b %s", line);
    for (char *word = strtok(text, " "); word != NULL && count < WORDS_MAX - 1; word = strtok(NULL, " "))
        words[count++] = word;
    words[count] = NULL;
    return options_parse(options, count, words, error, error_bytes);
}

static void impairments_apply_to_the_direction_named_before_them(void **state) {
    struct options options;
    char error[256] = "";
    assert_int_equal(parse("--delay 10 --a-to-b --loss 1.5 --mtu 1400 --icmp on --b-to-a --delay 20 --both --duplicate 2", &options, error,
                           sizeof error),
                     0);
    assert_int_equal(options.directions[0].delay_ns, 10000000);
    assert_int_equal(options.directions[1].delay_ns, 20000000);
    assert_true(options.directions[0].loss_percent == 1.5 && options.directions[1].loss_percent == 0);
    assert_true(options.directions[0].duplicate_percent == 2 && options.directions[1].duplicate_percent == 2);
    assert_int_equal(options.directions[0].mtu, 1400);
    assert_true(options.directions[0].icmp);
    assert_string_equal(options.devices[0], "net_a");
}

static void a_queue_may_be_given_in_bandwidth_delay_products(void **state) {
    struct options options;
    char error[256] = "";
    assert_int_equal(parse("--delay 25 --rate 200 --queue 1bdp", &options, error, sizeof error), 0);
    assert_int_equal(options.directions[0].queue_bytes, 1250000);
    assert_int_equal(parse("--delay 25 --rate 200 --queue 0.5bdp", &options, error, sizeof error), 0);
    assert_int_equal(options.directions[1].queue_bytes, 625000);
    assert_int_equal(parse("--rate 200 --queue 30000", &options, error, sizeof error), 0);
    assert_int_equal(options.directions[0].queue_bytes, 30000);
    assert_int_equal(parse("--rate 200", &options, error, sizeof error), 0);
    assert_int_equal(options.directions[0].queue_bytes, 15140); /* no delay: ten frames */
}

static void errors_say_what_is_wanted(void **state) {
    static const char *const lines[][2] = {
        {"--loss 101", "percentage"},
        {"--loss x", "percentage"},
        {"--delay -1", "milliseconds"},
        {"--reorder 5", "PERCENT,MS"},
        {"--queue 1000", "without --rate"},
        {"--rate 10 --queue 5x", "1bdp"},
        {"--icmp maybe", "on or off"},
        {"--mtu 20", "68"},
        {"--router4 10.0.0", "IPv4"},
        {"--idle never", "poll or sleep"},
        {"--seed 5y", "number"},
        {"--nothing", "--help"},
        {"--loss", "--help"},
        {"stray", "--help"},
        {"--burst-loss 5", "IN,OUT"},
        {"--corrupt-part feet", "headers"},
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct options options;
        char error[256] = "";
        assert_int_equal(parse(lines[i][0], &options, error, sizeof error), -EINVAL);
        if (strstr(error, lines[i][1]) == NULL)
            fail_msg("%s: %s", lines[i][0], error);
    }
}

static void both_devices_are_needed(void **state) {
    struct options options;
    char error[256] = "", *words[] = {"bypost-wan", "--a", "net_a", NULL};
    assert_int_equal(options_parse(&options, 3, words, error, sizeof error), -EINVAL);
    assert_non_null(strstr(error, "two devices"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(impairments_apply_to_the_direction_named_before_them),
        cmocka_unit_test(a_queue_may_be_given_in_bandwidth_delay_products),
        cmocka_unit_test(errors_say_what_is_wanted),
        cmocka_unit_test(both_devices_are_needed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
