/* shaping.yaml: the shipped limits, inheritance, and how a provider is found. */
#include "fixture.h"

static bool near(double got, double wanted) {
    return got > wanted - 1e-9 && got < wanted + 1e-9;
}

/* DESIGN.md section 7 (10 connections, 100 connects a minute, 100 messages/s, 100 messages a connection, site and provider); SMTP.md
 * section 1. */
static void shipped_limits(void **state) {
    struct fixture *fixture = fixture_good(FIXTURE_BASE, NULL);
    const struct shaping_limits *limits = config_limits(fixture->config, "example.com", NULL);
    assert_int_equal(limits->connection_limit, 10);
    assert_true(near(limits->max_connection_rate, 100.0 / 60));
    assert_true(near(limits->max_message_rate, 100));
    assert_int_equal(limits->max_deliveries_per_connection, 100);
    assert_int_equal(limits->provider_connection_limit, 10);
    assert_true(near(limits->provider_max_connection_rate, 100.0 / 60));
    assert_true(near(limits->provider_max_message_rate, 100));
    assert_int_equal(limits->pipelined_transactions, 1);
    assert_int_equal(limits->connect_timeout_ms, 30000);
    assert_int_equal(limits->banner_timeout_ms, 60000);
    assert_int_equal(limits->mail_from_timeout_ms, 300000);
    assert_int_equal(limits->data_timeout_ms, 120000);
    assert_int_equal(limits->data_block_timeout_ms, 180000);
    assert_int_equal(limits->data_dot_timeout_ms, 600000); /* RFC 5321 4.5.3.2.6 */
    assert_int_equal(limits->quit_timeout_ms, 10000);
    assert_int_equal(limits->port, 25);
    fixture_free(fixture);
}

static const char inheritance[] = "providers:\n" /* before `default`, which holds for them all the same */
                                  "  - name: big\n"
                                  "    match: [big.example]\n"
                                  "    connection_limit: 30\n"
                                  "    max_message_rate: 5/s\n"
                                  "default:\n"
                                  "  connection_limit: 3\n"
                                  "  idle_timeout: 7s\n"
                                  "domains:\n"
                                  "  Vip.Example: {max_message_rate: 50/s}\n"
                                  "  free.example: {max_message_rate: unlimited, connection_limit: 0}\n";

/* Provider over default, domain over provider; what a level does not name comes from the one below. */
static void levels(void **state) {
    struct fixture *fixture = fixture_good(FIXTURE_BASE, inheritance);
    const struct config *config = fixture->config;
    const struct shaping_provider *big = config_provider(config, "mx1.big.example");
    assert_non_null(big);
    const struct shaping_limits *limits = config_limits(config, "other.example", NULL);
    assert_int_equal(limits->connection_limit, 3);
    assert_true(near(limits->max_message_rate, 100));
    limits = config_limits(config, "other.example", big);
    assert_int_equal(limits->connection_limit, 30);
    assert_true(near(limits->max_message_rate, 5));
    assert_int_equal(limits->idle_timeout_ms, 7000);
    limits = config_limits(config, "vip.example", big);
    assert_int_equal(limits->connection_limit, 30); /* the provider's */
    assert_true(near(limits->max_message_rate, 50));
    assert_int_equal(limits->idle_timeout_ms, 7000); /* the default's */
    limits = config_limits(config, "vip.example", NULL);
    assert_int_equal(limits->connection_limit, 3);
    assert_true(near(limits->max_message_rate, 50));
    limits = config_limits(config, "free.example", big);
    assert_int_equal(limits->connection_limit, 0); /* no limit is a limit too: it is not replaced by the provider's */
    assert_true(near(limits->max_message_rate, 0));
    fixture_free(fixture);
}

static void provider_suffixes(void **state) {
    struct fixture *fixture = fixture_good(FIXTURE_BASE, "providers:\n"
                                                         "  - {name: a, match: [example.com, .dotted.example]}\n"
                                                         "  - {name: b, match: [mail.example.com]}\n");
    const struct config *config = fixture->config;
    assert_string_equal(config_provider(config, "mx.example.com")->name, "a");
    assert_string_equal(config_provider(config, "example.com")->name, "a");
    assert_string_equal(config_provider(config, "MX.Example.COM.")->name, "a");
    assert_string_equal(config_provider(config, "mx1.mail.example.com")->name, "b"); /* the longest */
    assert_string_equal(config_provider(config, "mx.dotted.example")->name, "a");
    assert_null(config_provider(config, "notexample.com")); /* only whole labels */
    assert_null(config_provider(config, "example.com.evil.test"));
    assert_null(config_provider(config, ""));
    fixture_free(fixture);
}

static void shaping_faults(void **state) {
    struct fixture *fixture = fixture_load(FIXTURE_BASE, "default:\n"
                                                         "  conection_limit: 5\n"              /* 2 */
                                                         "  max_message_rate: 100\n"           /* 3 */
                                                         "providers:\n"                        /* 4 */
                                                         "  - {name: a, match: [x.example]}\n" /* 5 */
                                                         "  - {name: b, match: [X.Example]}\n" /* 6 */
                                                         "  - {name: a, match: [y.example]}\n" /* 7 */
                                                         "  - {match: [z.example]}\n"          /* 8 */
                                                         "  - {name: c}\n"                     /* 9 */
                                                         "  - {name: d, match: ['a b']}\n"     /* 10 */
                                                         "domains:\n"
                                                         "  a.example: {smtp_port: 0}\n" /* 12 */
                                                         "  A.Example: {}\n"             /* 13 */
                                                         "  'x y': {}\n");               /* 14 */
    assert_null(fixture->config);
    assert_non_null(fixture_fault(fixture, 2, "did you mean `connection_limit`?"));
    assert_string_equal(fixture_fault(fixture, 3, "100/s")->file, fixture->shaping);
    assert_non_null(fixture_fault(fixture, 6, "belongs to provider `a` already"));
    assert_non_null(fixture_fault(fixture, 7, "two providers are named `a`"));
    assert_non_null(fixture_fault(fixture, 8, "has no `name`"));
    assert_non_null(fixture_fault(fixture, 9, "has no `match`"));
    assert_non_null(fixture_fault(fixture, 10, "no suffix"));
    assert_non_null(fixture_fault(fixture, 12, "from 1 to 65535"));
    assert_non_null(fixture_fault(fixture, 13, "stands twice"));
    assert_non_null(fixture_fault(fixture, 14, "no domain"));
    assert_int_equal(fixture->errors.count, 10);
    fixture_free(fixture);
}

static void named_and_missing(void **state) {
    struct fixture *fixture = fixture_load("shaping: elsewhere.yaml\n" FIXTURE_BASE, NULL);
    assert_null(fixture->config);
    assert_int_equal(fixture->errors.count, 1);
    assert_non_null(strstr(fixture->errors.items[0].file, "elsewhere.yaml"));
    fixture_free(fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(shipped_limits), cmocka_unit_test(levels), cmocka_unit_test(provider_suffixes),
                                       cmocka_unit_test(shaping_faults), cmocka_unit_test(named_and_missing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
