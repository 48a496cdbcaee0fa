/* The tally: bounded whatever the number of names; what is labelled and what is not are together all that was counted, and each only grows.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "control/observe/tally.h"

#include <stdio.h>
#include <string.h>

static uint64_t shown_sum(const struct tally *tally, unsigned kind) {
    const struct tally_entry *entries[TALLY_LABELS_MAX];
    uint64_t sum = tally_others(tally)[kind];
    for (uint32_t i = 0, count = tally_labelled(tally, entries); i < count; i++)
        sum += entries[i]->shown[kind];
    return sum;
}

static void few_names(void **state) {
    struct tally *tally = tally_create();
    for (int i = 0; i < 10; i++)
        tally_add(tally, "a", 0);
    tally_add(tally, "b", 0);
    tally_add(tally, "b", 1);
    tally_add(tally, "", 0); /* unknown: counted nowhere */
    const struct tally_entry *top[4];
    assert_int_equal(tally_top(tally, top, 4), 2);
    assert_string_equal(top[0]->name, "a");
    assert_int_equal(top[0]->counts[0], 10);
    assert_int_equal(top[1]->counts[1], 1);
    assert_int_equal(shown_sum(tally, 0), 11);
    assert_int_equal(tally_others(tally)[0], 0);
    tally_destroy(tally);
}

/* 100,000 sites, a few of them busy: the busy ones are found and labelled, and nothing is lost. */
static void many_names(void **state) {
    struct tally *tally = tally_create();
    const struct tally_entry *entries[TALLY_ENTRIES_MAX];
    uint64_t total = 0;
    char name[32];
    for (int i = 0; i < 100000; i++) {
        snprintf(name, sizeof(name), "mx%d.example", i);
        tally_add(tally, name, 0);
        snprintf(name, sizeof(name), "busy%d.example", i % 10);
        tally_add(tally, name, 0);
        total += 2;
        if (i % 1000 == 0)
            tally_tick(tally);
    }
    assert_int_equal(tally_top(tally, entries, TALLY_ENTRIES_MAX), TALLY_ENTRIES_MAX);
    for (int i = 0; i < 10; i++) {
        assert_memory_equal(entries[i]->name, "busy", 4);
        assert_true(entries[i]->labelled);
        assert_int_equal(entries[i]->counts[0], 10000);
    }
    assert_int_equal(tally_labelled(tally, entries), TALLY_LABELS_MAX);
    assert_true(shown_sum(tally, 0) <= total);
    assert_true(shown_sum(tally, 0) + 2000 > total); /* what a label that changed hands had shown ends with its series */
    tally_destroy(tally);
}

/* A quiet name with a label gives it up to one that is more than twice as busy, whose series begins then. */
static void labels_change_hands(void **state) {
    struct tally *tally = tally_create();
    const struct tally_entry *entries[TALLY_LABELS_MAX];
    char name[32];
    for (int i = 0; i < TALLY_LABELS_MAX; i++) {
        snprintf(name, sizeof(name), "first%d", i);
        for (int j = 0; j < 5; j++)
            tally_add(tally, name, 0);
    }
    for (int i = 0; i < 10; i++)
        tally_add(tally, "late", 0);
    tally_tick(tally);
    uint32_t count = tally_labelled(tally, entries);
    for (uint32_t i = 0; i < count; i++)
        assert_string_not_equal(entries[i]->name, "late"); /* only twice as busy */
    tally_add(tally, "late", 0);
    tally_tick(tally);
    count = tally_labelled(tally, entries);
    bool found = false;
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(entries[i]->name, "late") == 0) {
            found = true;
            assert_int_equal(entries[i]->shown[0], 0);
            assert_int_equal(entries[i]->counts[0], 11);
        }
    assert_true(found);
    assert_int_equal(tally_others(tally)[0], 11); /* what it counted without a label stays there */
    tally_add(tally, "late", 0);
    assert_int_equal(tally_others(tally)[0], 11);
    tally_destroy(tally);
}

/* Names longer than are kept are one and found again. */
static void long_names(void **state) {
    char name[TALLY_NAME_BYTES * 2];
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    struct tally *tally = tally_create();
    const struct tally_entry *top[4];
    tally_add(tally, name, 0);
    tally_add(tally, name, 0);
    assert_int_equal(tally_top(tally, top, 4), 1);
    assert_int_equal(top[0]->counts[0], 2);
    assert_int_equal(strlen(top[0]->name), TALLY_NAME_BYTES - 1);
    tally_destroy(tally);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(few_names), cmocka_unit_test(many_names), cmocka_unit_test(labels_change_hands),
                                       cmocka_unit_test(long_names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
