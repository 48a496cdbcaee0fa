/* Addresses, networks and host names. */
#include "fixture.h"

#include "control/config/address.h"

static struct config_address parsed(const char *text) {
    struct config_address address;
    assert_true(address_parse_prefix(text, &address));
    return address;
}

static void prefixes(void **state) {
    struct config_address address = parsed("192.0.2.10/24");
    assert_int_equal(address.family, 4);
    assert_int_equal(address.prefix_length, 24);
    assert_memory_equal(address.bytes, "\xc0\x00\x02\x0a", 4);
    assert_int_equal(parsed("2001:db8::1/64").family, 6);
    assert_int_equal(parsed("192.0.2.10").prefix_length, 32);
    assert_false(address_parse_prefix("192.0.2.10/33", &address));
    assert_false(address_parse_prefix("192.0.2.10/", &address));
    assert_false(address_parse_prefix("192.0.2.10/-1", &address));
    assert_false(address_parse_prefix("192.0.2.256/24", &address));
    assert_false(address_parse_prefix("example.com", &address));
    assert_false(address_parse_prefix("", &address));
}

static void ports(void **state) {
    struct config_address address;
    assert_true(address_parse_port("192.0.2.53", 53, &address) && address.port == 53);
    assert_true(address_parse_port("192.0.2.53:5353", 53, &address) && address.port == 5353);
    assert_true(address_parse_port("[2001:db8::53]:54", 53, &address) && address.port == 54 && address.family == 6);
    assert_true(address_parse_port("2001:db8::53", 53, &address) && address.port == 53);
    assert_false(address_parse_port("192.0.2.53:0", 53, &address));
    assert_false(address_parse_port("192.0.2.53:65536", 53, &address));
    assert_false(address_parse_port("[2001:db8::53", 53, &address));
}

/* A gateway is on link when it lies in the network of one of the port's addresses, whatever the prefix length. */
static void on_link(void **state) {
    static const struct {
        const char *network, *address;
        bool wanted;
    } cases[] = {{"192.0.2.10/24", "192.0.2.1", true},         {"192.0.2.10/24", "192.0.3.1", false},
                 {"192.0.2.10/23", "192.0.3.1", true},         {"192.0.2.10/29", "192.0.2.15", true},
                 {"192.0.2.10/29", "192.0.2.16", false},       {"10.0.0.0/0", "203.0.113.1", true},
                 {"192.0.2.10/32", "192.0.2.10", true},        {"192.0.2.10/32", "192.0.2.11", false},
                 {"2001:db8::10/64", "2001:db8::1", true},     {"2001:db8::10/64", "2001:db8:0:1::1", false},
                 {"2001:db8::10/63", "2001:db8:0:1::1", true}, {"0.0.0.0/0", "2001:db8::1", false}};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct config_address network = parsed(cases[i].network), address = parsed(cases[i].address);
        if (address_on_link(&network, &address) != cases[i].wanted) {
            fail_msg("%s in %s", cases[i].address, cases[i].network);
        }
    }
}

static void kinds(void **state) {
    struct config_address address = parsed("10.1.2.3");
    assert_true(address_private(&address) && address_usable(&address) && !address_documentation(&address));
    address = parsed("100.64.0.1"); /* RFC 6598: a provider's NAT */
    assert_true(address_private(&address));
    address = parsed("127.0.0.1");
    assert_false(address_usable(&address));
    address = parsed("::1");
    assert_false(address_usable(&address));
    address = parsed("224.0.0.1");
    assert_false(address_usable(&address));
    address = parsed("203.0.113.9");
    assert_true(address_documentation(&address) && address_usable(&address) && !address_private(&address));
    address = parsed("8.8.8.8");
    assert_true(address_usable(&address) && !address_private(&address) && !address_documentation(&address));
}

/* RFC 5321 4.1.2, RFC 1035 2.3.4. */
static void host_names(void **state) {
    char label64[80] = "";
    memset(label64, 'a', 64);
    strcat(label64, ".com");
    assert_true(host_is_fqdn("mta1.example.com"));
    assert_true(host_is_fqdn("xn--bcher-kva.example"));
    assert_false(host_is_fqdn("localhost"));
    assert_true(host_is_name("localhost"));
    assert_false(host_is_fqdn(""));
    assert_false(host_is_fqdn("mta1..com"));
    assert_false(host_is_fqdn("mta1.example.com."));
    assert_false(host_is_fqdn("-a.example.com"));
    assert_false(host_is_fqdn("a-.example.com"));
    assert_false(host_is_fqdn("a_b.example.com"));
    assert_false(host_is_fqdn("192.0.2.1"));
    assert_false(host_is_fqdn(label64));
    assert_true(host_is_fqdn(label64 + 1));
}

/* RFC 5321 4.1.3. */
static void literals(void **state) {
    assert_true(host_is_literal("[192.0.2.1]"));
    assert_true(host_is_literal("[IPv6:2001:db8::1]"));
    assert_false(host_is_literal("[2001:db8::1]"));
    assert_false(host_is_literal("192.0.2.1"));
    assert_false(host_is_literal("[]"));
}

/* RFC 5891: U-labels are compared and looked up as A-labels. */
static void international(void **state) {
    char *ascii = host_to_ascii("Bücher.Example.");
    assert_string_equal(ascii, "xn--bcher-kva.example");
    free(ascii);
    assert_null(host_to_ascii("a b.example"));
    assert_null(host_to_ascii(""));
}

static void redis_addresses(void **state) {
    static const char *const good[] = {"127.0.0.1:6379", "redis.internal:6379", "localhost:1", "[::1]:6379", "unix:/run/redis.sock"};
    static const char *const bad[] = {"",
                                      "localhost",
                                      "localhost:",
                                      "localhost:0",
                                      "localhost:65536",
                                      "::1:6379",
                                      "unix:run/redis.sock",
                                      "redis://localhost:6379",
                                      "[localhost]:6379",
                                      "a b:1"};
    for (unsigned i = 0; i < sizeof good / sizeof *good; i++) {
        assert_null(redis_address_fault(good[i]));
    }
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (!redis_address_fault(bad[i])) {
            fail_msg("\"%s\" was taken for an address of Redis", bad[i]);
        }
    }
}

static void relay_hosts(void **state) {
    static const char *const good[] = {"[192.0.2.1]:2525", "[mx.example.net]:25", "mx.example.net:587",
                                       "mx.example.net",   "[2001:db8::1]",       "[2001:db8::1]:25"};
    static const char *const bad[] = {
        "", "192.0.2.1", "192.0.2.1:25", "2001:db8::1", "[mx.example.net", "mx.example.net:0", "mx.example.net:smtp", "[]:25", "a b"};
    for (unsigned i = 0; i < sizeof good / sizeof *good; i++) {
        assert_null(relay_host_fault(good[i]));
    }
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (!relay_host_fault(bad[i])) {
            fail_msg("\"%s\" was taken for a relay", bad[i]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(prefixes),      cmocka_unit_test(ports),           cmocka_unit_test(on_link),
                                       cmocka_unit_test(kinds),         cmocka_unit_test(host_names),      cmocka_unit_test(literals),
                                       cmocka_unit_test(international), cmocka_unit_test(redis_addresses), cmocka_unit_test(relay_hosts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
