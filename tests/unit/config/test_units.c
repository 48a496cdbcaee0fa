/* Durations, sizes, rates: what people write, and what must not be guessed. */
#include "fixture.h"

#include "control/config/units.h"

static void duration_is(const char *text, uint64_t wanted) {
    uint64_t ms = 12345;
    assert_true(units_duration(text, &ms));
    assert_int_equal(ms, wanted);
}

static void durations(void **state) {
    duration_is("500ms", 500);
    duration_is("30s", 30000);
    duration_is("5m", 300000);
    duration_is("2h", 7200000);
    duration_is("3d", 259200000);
    duration_is("1h30m", 5400000);
    duration_is("5 minutes", 300000);
    duration_is("0", 0);
    duration_is("1_000s", 1000000);
}

static void no_durations(void **state) {
    static const char *const texts[] = {"",      "5",     "m",  "-5s", "5x", "1.5h", "5s!", "99999999999999999999s", "400000000000000000d",
                                        "5 m x", "1__0s", "1_s"};
    for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++) {
        uint64_t ms;
        if (units_duration(texts[i], &ms)) {
            fail_msg("\"%s\" was taken for a duration", texts[i]);
        }
    }
}

static void sizes(void **state) {
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"4096", 4096},       {"16K", 16384},     {"16k", 16384},         {"512M", 536870912},
                {"4GiB", 4294967296}, {"25MB", 25000000}, {"1 T", 1099511627776}, {"0", 0}};
    static const char *const bad[] = {"", "M", "-1", "1.5M", "5 apples", "20000000T", "1MM"};
    uint64_t bytes;
    for (unsigned i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(units_size(good[i].text, &bytes));
        assert_int_equal(bytes, good[i].bytes);
    }
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(units_size(bad[i], &bytes));
    }
}

static void rates(void **state) {
    static const struct {
        const char *text;
        double per_second;
    } good[] = {{"100/s", 100}, {"120/min", 2},   {"60/m", 1},     {"7200/h", 2}, {"86400/day", 1}, {"1_000_000/hr", 1e6 / 3600},
                {"0", 0},       {"unlimited", 0}, {"10 / sec", 10}};
    static const char *const bad[] = {"", "100", "100/", "/s", "0/s", "-1/s", "100/ms", "100/fortnight", "100/s/s"};
    double rate;
    for (unsigned i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(units_rate(good[i].text, &rate));
        assert_true(rate > good[i].per_second - 1e-6 && rate < good[i].per_second + 1e-6);
    }
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(units_rate(bad[i], &rate));
    }
}

static void counts_and_bools(void **state) {
    uint64_t count;
    bool value;
    assert_true(units_count("10_000", &count) && count == 10000);
    assert_true(units_count("unlimited", &count) && count == 0);
    assert_false(units_count("10k", &count));
    assert_false(units_count("18446744073709551616", &count));
    assert_true(units_bool("yes", &value) && value);
    assert_true(units_bool("Off", &value) && !value);
    assert_false(units_bool("1", &value));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(durations), cmocka_unit_test(no_durations), cmocka_unit_test(sizes),
                                       cmocka_unit_test(rates), cmocka_unit_test(counts_and_bools)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
