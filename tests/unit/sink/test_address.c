/* Addresses and ranges of them on the command line. */
#include "bench/sink/address.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct net_address addresses[NET_ADDRESSES_MAX];
static uint32_t count;
static char error[256];

static int take(const char *text) {
    count = 0;
    return address_take(addresses, NET_ADDRESSES_MAX, &count, text, error, sizeof(error));
}

static void last_byte_is(uint32_t index, uint8_t first, uint8_t last, uint8_t prefix) {
    assert_int_equal(addresses[index].address.bytes[0], first);
    assert_int_equal(addresses[index].address.bytes[addresses[index].address.family == 4 ? 3 : 15], last);
    assert_int_equal(addresses[index].prefix_length, prefix);
}

static void one_address(void **state) {
    assert_int_equal(take("192.0.2.7/24"), 0);
    assert_int_equal(count, 1);
    last_byte_is(0, 192, 7, 24);
    assert_int_equal(take("2001:db8::7/64"), 0);
    assert_int_equal(count, 1);
    last_byte_is(0, 0x20, 7, 64);
    assert_int_equal(take("192.0.2.0/32"), 0);
    assert_int_equal(count, 1);
}

static void all_hosts_of_a_network(void **state) {
    assert_int_equal(take("198.51.100.0/27"), 0);
    assert_int_equal(count, 30);
    last_byte_is(0, 198, 1, 27);
    last_byte_is(29, 198, 30, 27);
}

static void a_range_crosses_bytes(void **state) {
    assert_int_equal(take("10.0.0.250-10.0.1.5/16"), 0);
    assert_int_equal(count, 12);
    last_byte_is(11, 10, 5, 16);
    assert_int_equal(addresses[11].address.bytes[2], 1);
    assert_int_equal(take("2001:db8::ff-2001:db8::101/64"), 0);
    assert_int_equal(count, 3);
}

static void what_is_wrong_is_refused(void **state) {
    const char *texts[] = {"192.0.2.1",     "192.0.2.1/33", "192.0.2/24", "192.0.2.9-192.0.2.1/24", "192.0.2.1-2001:db8::1/24",
                           "2001:db8::/64", "192.0.2.1/",   "10.0.0.0/8", "192.0.2.1/24x"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        error[0] = '\0';
        assert_int_equal(take(texts[i]), -1);
        assert_true(strlen(error) > 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_address),
        cmocka_unit_test(all_hosts_of_a_network),
        cmocka_unit_test(a_range_crosses_bytes),
        cmocka_unit_test(what_is_wrong_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
