/* The form of addresses on the lists, their place, and the filter: no false "not there" (QUEUE.md, suppression). */
#include "control/suppress/address.h"
#include "control/suppress/filter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void assert_form(const char *text, const char *wanted) {
    char out[SUPPRESS_ADDRESS_MAX + 1];
    assert_int_equal(suppress_address(text, strlen(text), out), (int)strlen(wanted));
    assert_string_equal(out, wanted);
}

static void an_address_has_one_form_whatever_its_case(void **state) {
    assert_form("Bob@Example.NET", "bob@example.net");
    assert_form("@Example.NET", "@example.net");
    assert_form("\"a@b\"@example.net", "\"a@b\"@example.net");
}

static void a_domain_of_other_letters_is_compared_as_a_labels(void **state) {
    assert_form("bob@B\xc3\xbc"
                "cher.example",
                "bob@xn--bcher-kva.example");
    assert_form("b\xc3\xbc"
                "b@example.net",
                "b\xc3\xbc"
                "b@example.net");
}

static void what_is_no_address_is_refused(void **state) {
    static const char *const wrong[] = {
        "", "bob", "bob@", "@", "bob @example.net", "bob@example.net\n", "bo\tb@example.net", "bob@exam\x7fple.net"};
    char out[SUPPRESS_ADDRESS_MAX + 1], longest[SUPPRESS_ADDRESS_MAX + 2];
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_int_equal(suppress_address(wrong[i], strlen(wrong[i]), out), -EINVAL);
    memset(longest, 'a', sizeof(longest));
    longest[5] = '@';
    assert_int_equal(suppress_address(longest, SUPPRESS_ADDRESS_MAX, out), SUPPRESS_ADDRESS_MAX);
    assert_int_equal(suppress_address(longest, SUPPRESS_ADDRESS_MAX + 1, out), -EINVAL);
}

/* FIPS 180-4's examples, and the lengths about a block's end: Redis computes the same with redis.sha1hex. */
static void the_place_is_the_first_32_bits_of_sha1(void **state) {
    char text[130];
    memset(text, 'a', sizeof(text));
    assert_int_equal(suppress_address_hash("", 0), 0xda39a3ee);
    assert_int_equal(suppress_address_hash("abc", 3), 0xa9993e36);
    assert_int_equal(suppress_address_hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56), 0x84983e44);
    assert_int_equal(suppress_address_hash(text, 55), 0xc1c8bbdc);
    assert_int_equal(suppress_address_hash(text, 64), 0x0098ba82);
    assert_int_equal(suppress_address_hash(text, 119), 0xee971065);
}

enum { ENTRIES = 200000 };

static uint64_t hash_of(const char *tenant, unsigned number) {
    char address[64];
    int length = snprintf(address, sizeof(address), "user%u@example%u.net", number, number % 7);
    return filter_hash(42, tenant, address, (size_t)length);
}

static void the_filter_never_denies_what_was_added(void **state) {
    struct filter filter;
    assert_int_equal(filter_init(&filter, ENTRIES), 0);
    for (unsigned i = 0; i < ENTRIES; i++)
        filter_add(&filter, hash_of("", i));
    for (unsigned i = 0; i < ENTRIES; i++)
        assert_true(filter_may_hold(&filter, hash_of("", i)));
    filter_free(&filter);
}

static void few_that_are_not_there_must_be_looked_up(void **state) {
    struct filter filter;
    unsigned wrong = 0, wrong_tenant = 0;
    assert_int_equal(filter_init(&filter, ENTRIES), 0);
    for (unsigned i = 0; i < filter.capacity; i++) /* as full as it may get */
        filter_add(&filter, hash_of("", i));
    for (unsigned i = 0; i < ENTRIES; i++) {
        wrong += filter_may_hold(&filter, hash_of("", 1000000 + i));
        wrong_tenant += filter_may_hold(&filter, hash_of("acme", i));
    }
    assert_in_range(wrong, 1, ENTRIES / 60);
    assert_in_range(wrong_tenant, 1, ENTRIES / 60);
    assert_true(filter_bytes(&filter) <= (uint64_t)ENTRIES * 9 / 4 + 4096); /* 2.25 bytes an entry */
    filter_free(&filter);
}

static void the_hash_tells_lists_and_ends_of_addresses_apart(void **state) {
    assert_true(filter_hash(1, "a", "b@c", 3) != filter_hash(1, "", "b@c", 3));
    assert_true(filter_hash(1, "a", "b@c", 3) != filter_hash(2, "a", "b@c", 3));
    assert_true(filter_hash(1, "", "aaaaaaaa@", 9) != filter_hash(1, "", "aaaaaaaa@\0", 10));
    assert_true(filter_hash(1, "", "aaaaaaaa", 8) != filter_hash(1, "", "aaaaaaaab", 9));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_address_has_one_form_whatever_its_case),
        cmocka_unit_test(a_domain_of_other_letters_is_compared_as_a_labels),
        cmocka_unit_test(what_is_no_address_is_refused),
        cmocka_unit_test(the_place_is_the_first_32_bits_of_sha1),
        cmocka_unit_test(the_filter_never_denies_what_was_added),
        cmocka_unit_test(few_that_are_not_there_must_be_looked_up),
        cmocka_unit_test(the_hash_tells_lists_and_ends_of_addresses_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
