/* Alarms: raised once, counted while they last, cleared by hand or by silence, and bounded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "control/observe/alarm.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct seen {
    uint32_t count;
    struct alarm last;
};

static void see(void *context, const struct alarm *alarm) {
    struct seen *seen = context;
    seen->count++;
    seen->last = *alarm;
}

static struct seen look(const struct alarms *alarms) {
    struct seen seen = {0};
    alarms_each(alarms, see, &seen);
    return seen;
}

static void raised_once(void **state) {
    struct alarms *alarms = alarms_create();
    alarm_raise(alarms, "source_blocked", "192.0.2.1", "first");
    uint64_t since_ms = look(alarms).last.since_ms;
    usleep(3000);
    alarm_raise(alarms, "source_blocked", "192.0.2.1", "second");
    struct seen seen = look(alarms);
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.last.times, 2);
    assert_int_equal(seen.last.since_ms, since_ms);
    assert_true(seen.last.last_ms > since_ms);
    assert_string_equal(seen.last.text, "second");
    alarm_raise(alarms, "source_blocked", "192.0.2.2", "another subject");
    alarm_raise(alarms, "relay_auth", "192.0.2.1", "another kind");
    assert_int_equal(alarms_count(alarms), 3);
    alarm_clear(alarms, "source_blocked", "192.0.2.3"); /* none */
    assert_int_equal(alarms_count(alarms), 3);
    alarm_clear(alarms, "source_blocked", "192.0.2.1");
    assert_int_equal(alarms_count(alarms), 2);
    assert_string_equal(look(alarms).last.kind, "relay_auth");
    alarms_destroy(alarms);
}

/* Longer than there is room for: cut at a character, and found again. */
static void long_texts(void **state) {
    char subject[ALARM_SUBJECT_BYTES * 2], text[ALARM_TEXT_BYTES * 2];
    for (size_t i = 0; i + 2 < sizeof(subject); i += 2)
        memcpy(subject + i, "\xc3\xbc", 3);
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    struct alarms *alarms = alarms_create();
    alarm_raise(alarms, "kind", subject, text);
    alarm_raise(alarms, "kind", subject, text);
    struct seen seen = look(alarms);
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.last.times, 2);
    assert_int_equal(strlen(seen.last.subject), ALARM_SUBJECT_BYTES - 2);
    assert_int_equal(strlen(seen.last.text), ALARM_TEXT_BYTES - 1);
    alarm_clear(alarms, "kind", subject);
    assert_int_equal(alarms_count(alarms), 0);
    alarms_destroy(alarms);
}

static void silence_ends(void **state) {
    struct alarms *alarms = alarms_create();
    alarm_raise(alarms, "quiet", "a", "x");
    alarm_raise(alarms, "quiet", "b", "x");
    alarm_raise(alarms, "other", "a", "x");
    usleep(30000);
    alarm_raise(alarms, "quiet", "b", "x");
    alarms_expire(alarms, "quiet", 20);
    struct seen seen = look(alarms);
    assert_int_equal(seen.count, 2); /* of the kind, the one that was not renewed */
    alarm_clear(alarms, "quiet", "b");
    assert_string_equal(look(alarms).last.kind, "other");
    assert_int_equal(alarms_count(alarms), 1);
    alarms_destroy(alarms);
}

static void bounded(void **state) {
    struct alarms *alarms = alarms_create();
    char subject[32];
    for (int i = 0; i < ALARMS_MAX + 10; i++) {
        snprintf(subject, sizeof(subject), "s%d", i);
        alarm_raise(alarms, "many", subject, "x");
    }
    assert_int_equal(alarms_count(alarms), ALARMS_MAX);
    assert_string_equal(look(alarms).last.subject, subject); /* the newest is there */
    alarms_destroy(alarms);
}

static void without_a_table(void **state) {
    alarm_raise(NULL, "kind", "subject", "text");
    alarm_clear(NULL, "kind", "subject");
    alarms_expire(NULL, "kind", 0);
    assert_int_equal(alarms_count(NULL), 0);
    alarms_each(NULL, see, NULL);
    alarms_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(raised_once), cmocka_unit_test(long_texts), cmocka_unit_test(silence_ends),
                                       cmocka_unit_test(bounded), cmocka_unit_test(without_a_table)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
