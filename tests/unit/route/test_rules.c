/* test_rules.c: the rules of routing that need no DNS: MX sets, names, addresses, literals (RFC 5321 5.1, RFC 7505, RFC 2606, RFC 6890). */
#include "control/config/address.h"
#include "control/route/ip.h"
#include "control/route/mx.h"
#include "control/route/table.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void add(struct mx_set *set, uint16_t preference, const char *name) {
    struct mx_host host = {.preference = preference};
    snprintf(host.name, sizeof host.name, "%s", name);
    mx_add(set, &host);
}

static void check_order(const struct mx_set *set, const char *const *names, uint32_t count) {
    assert_int_equal(set->count, count);
    for (uint32_t i = 0; i < count; i++)
        assert_string_equal(set->hosts[i].name, names[i]);
}

static void test_mx_by_preference(void **state) {
    struct mx_set set = {0};
    add(&set, 30, "c.test");
    add(&set, 10, "b.test");
    add(&set, 20, "x.test");
    add(&set, 10, "a.test");
    check_order(&set, (const char *[]){"a.test", "b.test", "x.test", "c.test"}, 4);
    mx_normalise(&set);
    assert_int_equal(set.hosts[0].preference, 0);
    assert_int_equal(set.hosts[1].preference, 0);
    assert_int_equal(set.hosts[2].preference, 1);
    assert_int_equal(set.hosts[3].preference, 2);
}

static void test_mx_twice_keeps_the_better(void **state) {
    struct mx_set set = {0};
    add(&set, 20, "a.test");
    add(&set, 10, "b.test");
    add(&set, 5, "a.test");
    add(&set, 50, "b.test");
    check_order(&set, (const char *[]){"a.test", "b.test"}, 2);
    assert_int_equal(set.hosts[1].preference, 10);
}

static void test_mx_count_is_bounded(void **state) {
    struct mx_set set = {0};
    char name[32];
    for (int i = 200; i > 0; i--) {
        snprintf(name, sizeof name, "mx%03d.test", i);
        add(&set, (uint16_t)i, name);
    }
    assert_int_equal(set.count, MX_HOSTS_MAX);
    for (uint32_t i = 0; i < MX_HOSTS_MAX; i++)
        assert_int_equal(set.hosts[i].preference, i + 1); /* the best ones */
}

/* Equal sets, however their preferences are written, are one site; a different order is another. */
static void test_mx_key(void **state) {
    static char left[MX_KEY_BYTES], right[MX_KEY_BYTES];
    struct mx_set one = {0}, two = {0}, three = {0};
    add(&one, 10, "a.test"), add(&one, 20, "b.test");
    add(&two, 5, "a.test"), add(&two, 500, "b.test");
    add(&three, 10, "b.test"), add(&three, 20, "a.test");
    mx_normalise(&one), mx_normalise(&two), mx_normalise(&three);
    mx_key(&one, left, sizeof left);
    mx_key(&two, right, sizeof right);
    assert_string_equal(left, right);
    mx_key(&three, right, sizeof right);
    assert_string_not_equal(left, right);
    two.hosts[0].port = 2525;
    mx_key(&two, right, sizeof right);
    assert_string_not_equal(left, right);
}

static void test_mx_key_of_the_longest_names_fits(void **state) {
    static char key[MX_KEY_BYTES];
    struct mx_set set = {0};
    for (uint32_t i = 0; i < MX_HOSTS_MAX; i++) {
        char name[254];
        memset(name, 'a', sizeof name);
        name[63] = name[127] = name[191] = '.';
        snprintf(name + 240, 14, "%013u", i);
        add(&set, (uint16_t)(60000 + i), name);
    }
    size_t length = mx_key(&set, key, sizeof key);
    assert_int_equal(length, strlen(key));
    uint32_t lines = 0;
    for (const char *c = key; *c; c++)
        lines += *c == '\n';
    assert_int_equal(lines, MX_HOSTS_MAX);
}

static void test_site_names(void **state) {
    char name[DOMAIN_BYTES];
    struct mx_set set = {0};
    add(&set, 10, "mx1.example.net");
    mx_name(&set, name, sizeof name);
    assert_string_equal(name, "mx1.example.net");
    add(&set, 20, "mx2.example.net");
    add(&set, 5, "mx0.example.net");
    mx_name(&set, name, sizeof name);
    assert_string_equal(name, "mx0.example.net+2");
}

static bool is_relay(const void *context, const char *name) {
    return strcmp(name, "us.test") == 0;
}

/* RFC 5321 5.1: the relay's own preference and every worse one are dropped. */
static void test_own_name_cuts_the_list(void **state) {
    struct mx_set set = {0};
    add(&set, 10, "a.test");
    add(&set, 20, "us.test");
    add(&set, 20, "b.test");
    add(&set, 30, "c.test");
    assert_true(mx_cut_self(&set, is_relay, NULL));
    check_order(&set, (const char *[]){"a.test"}, 1);
    assert_false(mx_cut_self(&set, is_relay, NULL));
    add(&set, 10, "us.test");
    assert_true(mx_cut_self(&set, is_relay, NULL));
    assert_int_equal(set.count, 0);
}

#define RDATA(set, bytes) mx_add_rdata(set, (const uint8_t *)(bytes), sizeof(bytes) - 1)

static void test_mx_rdata(void **state) {
    struct mx_set set = {0};
    assert_int_equal(RDATA(&set, "\x00\x0a\x03MX1\x07"
                                 "Example\x03net\x00"),
                     0);
    assert_string_equal(set.hosts[0].name, "mx1.example.net");
    assert_int_equal(set.hosts[0].preference, 10);
    assert_false(set.null_mx);
    assert_int_equal(RDATA(&set, "\x00\x00\x00"), 0); /* RFC 7505 */
    assert_true(set.null_mx);
    assert_int_equal(set.count, 1);
}

/* The bytes of RDATA are the network's. */
static void test_mx_rdata_that_lies(void **state) {
    struct mx_set set = {0};
    assert_int_equal(RDATA(&set, ""), -EINVAL);
    assert_int_equal(RDATA(&set, "\x00\x0a"), -EINVAL);
    assert_int_equal(RDATA(&set, "\x00\x0a\x03mx"), -EINVAL);            /* label past the end */
    assert_int_equal(RDATA(&set, "\x00\x0a\x03mx1"), -EINVAL);           /* no root */
    assert_int_equal(RDATA(&set, "\x00\x0a\xc0\x0c"), -EINVAL);          /* compression */
    assert_int_equal(RDATA(&set, "\x00\x0a\x03m.1\x00"), -EINVAL);       /* a dot inside a label */
    assert_int_equal(RDATA(&set, "\x00\x0a\x03m\x00\x31\x00"), -EINVAL); /* a NUL inside a label */
    assert_int_equal(RDATA(&set, "\x00\x0a\x03m\n1\x00"), -EINVAL);      /* not a host name */
    uint8_t longest[2 + 64 * 5] = {0, 10};
    for (size_t i = 0; i < 4; i++) {
        longest[2 + i * 64] = 63;
        memset(&longest[3 + i * 64], 'a', 63);
    }
    assert_int_equal(mx_add_rdata(&set, longest, 2 + 64 * 4 + 1), -EINVAL); /* 255 characters */
    assert_int_equal(set.count, 0);
    srandom(5);
    for (int round = 0; round < 20000; round++) {
        uint8_t bytes[64];
        size_t length = (size_t)random() % sizeof bytes;
        for (size_t i = 0; i < length; i++)
            bytes[i] = (uint8_t)(random() % 5 == 0 ? random() : random() % 8);
        mx_add_rdata(&set, bytes, length);
        assert_true(set.count <= MX_HOSTS_MAX);
    }
}

static void test_domains(void **state) {
    static const struct {
        const char *in, *out;
    } CASES[] = {
        {"Example.NET", "example.net"},
        {"example.net.", "example.net"},
        {"b\xc3\xbc"
         "cher.example",
         "xn--bcher-kva.example"}, /* RFC 5891 */
        {"B\xc3\x9c"
         "CHER.example",
         "xn--bcher-kva.example"},
        {"\xe4\xbe\x8b\xe3\x81\x88.test", "xn--r8jz45g.test"}, /* RFC 6761's test domain in Japanese */
        {"fa\xc3\x9f.example", "xn--fa-hia.example"},          /* IDNA2008, not the transitional "fass" */
        {"_dmarc.example.net", "_dmarc.example.net"},
        {"xn--bcher-kva.example", "xn--bcher-kva.example"},
        {"[IPv6:2001:DB8::1]", "[ipv6:2001:db8::1]"},
        {"", NULL},
        {".", NULL},
        {"a..b", NULL},
        {".example.net", NULL},
        {"exa mple.net", NULL},
        {"example.net\r\n", NULL},
        {"example.net/x", NULL},
        {"a\xff.example", NULL},                                                        /* not UTF-8 */
        {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.net", NULL}, /* a label of 64 */
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        char out[DOMAIN_BYTES];
        int rc = domain_normalise(CASES[i].in, out);
        assert_int_equal(rc, CASES[i].out ? 0 : -EINVAL);
        if (CASES[i].out)
            assert_string_equal(out, CASES[i].out);
    }
}

static void test_reserved_domains(void **state) {
    static const char *const RESERVED[] = {"test",        "a.test",      "x.y.example",    "invalid",    "localhost",
                                           "a.localhost", "example.com", "mx.example.org", "EXAMPLE.net"};
    static const char *const OTHERS[] = {"example.de", "notexample.com", "atest", "test.com", "com", "localhost.com", ""};
    for (size_t i = 0; i < sizeof RESERVED / sizeof RESERVED[0]; i++)
        assert_true(domain_is_reserved(RESERVED[i]));
    for (size_t i = 0; i < sizeof OTHERS / sizeof OTHERS[0]; i++)
        assert_false(domain_is_reserved(OTHERS[i]));
}

/* RFC 5321 4.1.3 */
static void test_literals(void **state) {
    struct config_address address;
    assert_int_equal(domain_literal("[192.0.2.1]", &address), 1);
    assert_int_equal(address.family, 4);
    assert_memory_equal(address.bytes, "\xc0\x00\x02\x01", 4);
    assert_int_equal(domain_literal("[IPv6:2001:db8::1]", &address), 1);
    assert_int_equal(address.family, 6);
    assert_int_equal(domain_literal("[ipv6:::ffff:127.0.0.1]", &address), 1);
    assert_int_equal(address.family, 4); /* and so it is prohibited like 127.0.0.1 */
    assert_int_equal(domain_literal("example.net", &address), 0);
    static const char *const WRONG[] = {"[]",           "[192.0.2]", "[192.0.2.1", "[2001:db8::1]", "[IPv6:192.0.2.1]", "[192.0.2.0/24]",
                                        "[example.net]"};
    for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++)
        assert_int_equal(domain_literal(WRONG[i], &address), -EINVAL);
}

/* RFC 6890 */
static void test_prohibited_addresses(void **state) {
    static const char *const PROHIBITED[] = {
        "0.0.0.0",         "0.1.2.3", "127.0.0.1", "127.255.255.255", "169.254.1.1", "224.0.0.1", "239.1.1.1",       "240.0.0.1",
        "255.255.255.255", "::",      "::1",       "fe80::1",         "febf::1",     "ff02::1",   "::ffff:127.0.0.1"};
    static const char *const GOOD[] = {"1.0.0.1",  "126.255.255.255", "128.0.0.1", "169.253.255.255", "223.255.255.255",
                                       "10.0.0.1", "2001:db8::1",     "fec0::1",   "::ffff:8.8.8.8",  "::2"};
    struct config_address address;
    for (size_t i = 0; i < sizeof PROHIBITED / sizeof PROHIBITED[0]; i++) {
        assert_int_equal(ip_parse(PROHIBITED[i], &address), 0);
        assert_true(ip_prohibited(&address));
    }
    for (size_t i = 0; i < sizeof GOOD / sizeof GOOD[0]; i++) {
        assert_int_equal(ip_parse(GOOD[i], &address), 0);
        assert_false(ip_prohibited(&address));
    }
    struct config_address mapped = {.family = 6, .bytes = {[10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1}};
    assert_true(ip_prohibited(&mapped));
}

static void private_addresses_are_known(void **state) {
    static const char *const PRIVATE[] = {"10.0.0.1",          "172.16.0.1",   "172.31.255.255", "192.168.1.1", "100.64.0.1",
                                          "192.0.0.8",         "198.18.0.1",   "fc00::1",        "fdff::1",     "64:ff9b::127.0.0.1",
                                          "64:ff9b::10.0.0.1", "64:ff9b:1::1", "::10.0.0.1",     "fec0::1",     "::ffff:10.0.0.1"};
    static const char *const PUBLIC[] = {"9.255.255.255", "11.0.0.1", "172.15.255.255", "172.32.0.1",       "192.167.1.1", "100.63.0.1",
                                         "100.128.0.1",   "8.8.8.8",  "2001:db8::1",    "64:ff9b::8.8.8.8", "::8.8.8.8"};
    struct config_address address;
    for (size_t i = 0; i < sizeof PRIVATE / sizeof PRIVATE[0]; i++) {
        assert_int_equal(ip_parse(PRIVATE[i], &address), 0);
        if (!ip_is_private(&address))
            fail_msg("%s", PRIVATE[i]);
    }
    for (size_t i = 0; i < sizeof PUBLIC / sizeof PUBLIC[0]; i++) {
        assert_int_equal(ip_parse(PUBLIC[i], &address), 0);
        if (ip_is_private(&address))
            fail_msg("%s", PUBLIC[i]);
    }
}

static bool in(const char *text, const char *range_text) {
    struct config_address address, range;
    assert_int_equal(ip_parse(text, &address), 0);
    assert_int_equal(ip_parse(range_text, &range), 0);
    return address_on_link(&range, &address);
}

static void test_ranges(void **state) {
    assert_true(in("10.1.2.3", "10.0.0.0/8"));
    assert_false(in("11.1.2.3", "10.0.0.0/8"));
    assert_true(in("172.31.255.255", "172.16.0.0/12"));
    assert_false(in("172.32.0.0", "172.16.0.0/12"));
    assert_true(in("192.0.2.7", "192.0.2.7"));
    assert_false(in("192.0.2.6", "192.0.2.7"));
    assert_true(in("1.2.3.4", "0.0.0.0/0"));
    assert_true(in("2001:db8:ffff::1", "2001:db8::/32"));
    assert_false(in("2001:db9::1", "2001:db8::/32"));
    assert_false(in("10.0.0.1", "::/0"));
    struct config_address address;
    static const char *const WRONG[] = {"", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/8x", "example.net", "10.0.0"};
    for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++)
        assert_int_equal(ip_parse(WRONG[i], &address), -EINVAL);
}

struct entry {
    struct table_node node;
    int value;
};

static void count_entry(void *context, struct table_node *node) {
    int *sum = context;
    *sum += TABLE_ENTRY(node, struct entry, node)->value;
}

static void test_table(void **state) {
    enum { COUNT = 5000 };
    static struct entry entries[COUNT];
    struct table table;
    assert_int_equal(table_init(&table), 0);
    for (int i = 0; i < COUNT; i++) {
        entries[i].value = i;
        table_insert(&table, &entries[i].node, table_hash(&table, &i, sizeof i));
    }
    for (int i = 0; i < COUNT; i += 2)
        table_remove(&table, &entries[i].node);
    for (int i = 0; i < COUNT; i++) {
        struct table_node *node = table_first(&table, table_hash(&table, &i, sizeof i));
        while (node && TABLE_ENTRY(node, struct entry, node)->value != i)
            node = table_next(node);
        assert_true((node != NULL) == (i % 2 == 1));
    }
    int sum = 0;
    table_each(&table, count_entry, &sum);
    assert_int_equal(sum, COUNT / 2 * (COUNT / 2));
    assert_int_equal(table.count, COUNT / 2);
    table_clear(&table);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mx_by_preference),
        cmocka_unit_test(test_mx_twice_keeps_the_better),
        cmocka_unit_test(test_mx_count_is_bounded),
        cmocka_unit_test(test_mx_key),
        cmocka_unit_test(test_mx_key_of_the_longest_names_fits),
        cmocka_unit_test(test_site_names),
        cmocka_unit_test(test_own_name_cuts_the_list),
        cmocka_unit_test(test_mx_rdata),
        cmocka_unit_test(test_mx_rdata_that_lies),
        cmocka_unit_test(test_domains),
        cmocka_unit_test(test_reserved_domains),
        cmocka_unit_test(test_literals),
        cmocka_unit_test(test_prohibited_addresses),
        cmocka_unit_test(private_addresses_are_known),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
