/* bypost.yaml: defaults, what is written over them, and faults with their places. */
#include "fixture.h"

#include "control/outcome.h"

#include <sys/stat.h>

static void defaults(void **state) {
    struct fixture *fixture = fixture_good(FIXTURE_BASE, NULL);
    const struct config *config = fixture->config;
    assert_true(config->sandbox); /* DESIGN.md section 7: the shipped default */
    assert_string_equal(config->run_directory, "/run/bypost");
    assert_string_equal(config->journal.path, "/run/bypost/journal");
    assert_string_equal(config->redis.address, "127.0.0.1:6379");
    assert_string_equal(config->redis.prefix, "bypost");
    assert_int_equal(config->redis.shards, 1);
    assert_int_equal(config->journal.slots, 16384);
    assert_int_equal(config->journal.paths, 2048);
    assert_int_equal(config->dataplane.port_first, 10000);
    assert_int_equal(config->dataplane.port_last, 65535);
    assert_true(config->dataplane.hugepages_auto);
    assert_false(config->dataplane.idle_set);
    assert_int_equal(config->dataplane.ports[0].mtu, 1500);
    assert_int_equal(config->max_message_bytes, 25 << 20);
    assert_int_equal(config->max_recipients_per_job, 500);
    assert_int_equal(config->events.max_bytes, 512ull << 20);
    assert_false(config->events.type_mask >> EVENT_ACCEPTED & 1);
    assert_true(config->events.type_mask >> EVENT_BOUNCED & 1);
    assert_string_equal(config->default_pool, "main"); /* the only one */
    assert_int_equal(config->on_uncertain, UNCERTAIN_RESEND);
    assert_true(config->suppress_on_block_defer);
    assert_null(config->user);
    assert_true(config->node && *config->node);
    fixture_free(fixture);
}

/* QUEUE.md, "Retry defaults". */
static void retry_defaults(void **state) {
    struct fixture *fixture = fixture_good(FIXTURE_BASE, NULL);
    const struct config_retry *retry = &config_queue_named(fixture->config, "high")->retry;
    assert_int_equal(retry->first_ms, 60 * 1000);
    assert_int_equal(retry->max_ms, 30 * 60 * 1000);
    assert_int_equal(retry->give_up_ms, 24 * 3600 * 1000);
    retry = &config_queue_named(fixture->config, "normal")->retry;
    assert_int_equal(retry->first_ms, 5 * 60 * 1000);
    assert_int_equal(retry->give_up_ms, 48 * 3600 * 1000);
    retry = &config_queue_named(fixture->config, "spring-sale")->retry; /* a campaign is bulk */
    assert_int_equal(retry->first_ms, 15 * 60 * 1000);
    assert_int_equal(retry->give_up_ms, 72 * 3600 * 1000);
    fixture_free(fixture);
}

static void retry_patterns(void **state) {
    struct fixture *fixture = fixture_good(FIXTURE_BASE "queues:\n"
                                                        "  'news-*': {retry: {first: 1h}}\n"
                                                        "  high: {retry: {first: 10s}}\n"
                                                        "  '*': {retry: {first: 2s, max: 10s, give_up: 10m}}\n",
                                           NULL);
    assert_int_equal(config_queue_named(fixture->config, "high")->retry.first_ms, 10000);
    assert_int_equal(config_queue_named(fixture->config, "high")->retry.max_ms, 30 * 60 * 1000); /* what is not written stays */
    assert_int_equal(config_queue_named(fixture->config, "news-17")->retry.first_ms, 3600 * 1000);
    assert_int_equal(config_queue_named(fixture->config, "other")->retry.first_ms, 2000);
    assert_int_equal(config_queue_named(fixture->config, "normal")->retry.first_ms, 2000); /* the pattern holds for it too */
    fixture_free(fixture);
}

static void values(void **state) {
    struct fixture *fixture = fixture_good(
        "sandbox: false\n"
        "node: mta7\n"
        "run_directory: run\n" /* counts from the file's folder */
        "redis: {address: 'unix:/run/redis.sock', database: 3, prefix: mail}\n"
        "dns: {servers: [192.0.2.53, '[2001:db8::53]:5353'], timeout: 2s, prohibited_hosts: [10.0.0.0/8]}\n"
        "relays: {Example.TEST: ['[192.0.2.25]:2525', '[192.0.2.26]:2525'], '*': 'smart.example.net:587'}\n"
        "events: {types: [delivered, bounced]}\n"
        "logs: {delivery: null, level: debug}\n"
        "on_uncertain: hold\n"
        "on_block: bounce\n"
        "max_message_size: 10M\n"
        "dataplane:\n"
        "  lcores: 0\n"
        "  idle: poll\n"
        "  hugepages: off\n"
        "  tcp_ports: 20000-29999\n"
        "  eal_args: [--log-level=7]\n"
        "  ports: [{device: '0000:3b:00.0', mode: copy, vlan: 7, mtu: 9000, addresses: 198.51.100.4/28, gateway: 198.51.100.1}]\n"
        "pools: {a: [{address: 198.51.100.4, public_address: 203.0.113.4, ehlo: a.example.com}]}\n",
        NULL);
    const struct config *config = fixture->config;
    char run[128];
    snprintf(run, sizeof run, "%s/run", fixture->folder);
    assert_false(config->sandbox);
    assert_string_equal(config->node, "mta7");
    assert_string_equal(config->run_directory, run);
    assert_int_equal(config->redis.database, 3);
    assert_int_equal(config->dns.server_count, 2);
    assert_int_equal(config->dns.servers[1].port, 5353);
    assert_string_equal(config->dns.prohibited_hosts[0], "10.0.0.0/8");
    assert_null(config->dns.prohibited_hosts[1]);
    assert_int_equal(config->relay_count, 2);
    assert_string_equal(config->relays[0].domain, "example.test");
    assert_int_equal(config->relays[0].host_count, 2);
    assert_string_equal(config->relays[1].domain, "*");
    assert_int_equal(config->events.type_mask, 1u << EVENT_DELIVERED | 1u << EVENT_BOUNCED);
    assert_null(config->logs.delivery_path);
    assert_string_equal(config->logs.level, "debug");
    assert_int_equal(config->on_uncertain, UNCERTAIN_HOLD);
    assert_false(config->suppress_on_block_defer);
    assert_true(config->dataplane.idle_set && config->dataplane.idle == IDLE_POLL);
    assert_false(config->dataplane.hugepages_auto || config->dataplane.hugepages);
    assert_int_equal(config->dataplane.port_last, 29999);
    assert_string_equal(config->dataplane.eal_args[0], "--log-level=7");
    assert_int_equal(config->dataplane.ports[0].mode, CONFIG_PORT_COPY);
    assert_int_equal(config->dataplane.ports[0].vlan, 7);
    assert_int_equal(config->dataplane.ports[0].addresses[0].prefix_length, 28);
    assert_int_equal(config->pools[0].sources[0].public_address.family, 4);
    assert_int_equal(config->dataplane.main_lcore, sysconf(_SC_NPROCESSORS_CONF) > 1 ? 1 : 0); /* the lowest that no worker has */
    fixture_free(fixture);
}

/* All faults are told at once, each at its place and in the order of the file. */
static void faults_have_places(void **state) {
    struct fixture *fixture = fixture_load("sandbx: true\n"           /* 1 */
                                           "dns: {timeout: 5}\n"      /* 2 */
                                           "redis:\n"                 /* 3 */
                                           "  shards: 17\n"           /* 4 */
                                           "  adress: 'x:1'\n"        /* 5 */
                                           "max_message_size: many\n" /* 6 */
                                           FIXTURE_BASE,
                                           NULL);
    assert_null(fixture->config);
    const struct config_error *fault = fixture_fault(fixture, 1, "did you mean `sandbox`?");
    assert_non_null(fault);
    assert_int_equal(fault->column, 1);
    assert_string_equal(fault->file, fixture->path);
    fault = fixture_fault(fixture, 2, "with its unit");
    assert_non_null(fault);
    assert_int_equal(fault->column, 16);
    assert_non_null(fixture_fault(fixture, 4, "from 1 to 16"));
    assert_non_null(fixture_fault(fixture, 5, "did you mean `address`?"));
    assert_non_null(fixture_fault(fixture, 6, "a size such as"));
    assert_int_equal(fixture->errors.count, 5);
    for (uint32_t i = 1; i < fixture->errors.count; i++) {
        assert_true(fixture->errors.items[i - 1].line < fixture->errors.items[i].line);
    }
    fixture_free(fixture);
}

static void not_yaml(void **state) {
    struct fixture *fixture = fixture_load("redis:\n  address: [\nsandbox: true\n", NULL);
    assert_null(fixture->config);
    assert_int_equal(fixture->errors.count, 1);
    assert_non_null(strstr(fixture->errors.items[0].message, "not valid YAML"));
    fixture_free(fixture);
}

static void yaml_beyond_need(void **state) {
    static const struct {
        const char *text, *words;
        uint32_t line;
    } cases[] = {
        {"a: &x 1\nnode: *x\n", "aliases", 2},
        {"node: !!str x\n", "tags", 1},
        {"node: x\n---\nnode: y\n", "second YAML document", 3},
        {"[a, b]: c\n", "a key must be a plain word", 1},
        {"a: [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]\n", "nested more than", 1},
        {"node: \"a\\0b\"\n", "NUL", 1},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture *fixture = fixture_load(cases[i].text, NULL);
        assert_null(fixture->config);
        assert_non_null(fixture_fault(fixture, cases[i].line, cases[i].words));
        fixture_free(fixture);
    }
}

static void missing_file(void **state) {
    struct config_errors errors;
    assert_null(config_load("/nonexistent/bypost.yaml", &errors));
    assert_int_equal(errors.count, 1);
    assert_int_equal(errors.items[0].line, 0);
    config_errors_free(&errors);
    assert_null(config_load("/tmp", &errors)); /* a folder */
    assert_int_equal(errors.count, 1);
    config_errors_free(&errors);
}

/* A source must be one of the ports' addresses: nothing else can be sent from. */
static void foreign_source(void **state) {
    struct fixture *fixture = fixture_load(FIXTURE_BASE "    - {address: 192.0.2.99, ehlo: mta2.example.com}\n", NULL);
    assert_null(fixture->config);
    assert_non_null(fixture_fault(fixture, 8, "192.0.2.99 is no address of a port"));
    fixture_free(fixture);
}

/* A producer's machine needs no ports, pools or keys. */
static void client_reading(void **state) {
    struct fixture *fixture = fixture_load("redis: {address: '192.0.2.1:6379'}\n", NULL);
    struct config_errors errors;
    assert_null(fixture->config);
    struct config *config = config_read(fixture->path, &errors);
    assert_non_null(config);
    assert_string_equal(config->redis.address, "192.0.2.1:6379");
    config_free(config);
    config_errors_free(&errors);
    fixture_free(fixture);
    config = config_shipped();
    assert_string_equal(config->redis.address, "127.0.0.1:6379");
    assert_int_equal(config->max_message_bytes, 25 << 20);
    config_free(config);
}

static void dkim_key_files(void **state) {
    char text[1024], folder[] = "/tmp/bypost-keys-XXXXXX", open_key[64], none[64];
    assert_non_null(mkdtemp(folder));
    snprintf(open_key, sizeof open_key, "%s/open.pem", folder);
    snprintf(none, sizeof none, "%s/none.pem", folder);
    fixture_write(open_key, "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n");
    fixture_write(none, "nothing\n");
    chmod(open_key, 0644);
    chmod(none, 0600);
    snprintf(text, sizeof text,
             "dkim:\n"
             "  keys:\n"
             "    - {domain: Example.com, selector: s1, key: %s}\n"
             "    - {domain: example.com, selector: s2, key: %s}\n"
             "    - {domain: example.com, selector: S1, key: %s}\n"
             "    - {domain: example.com, selector: s3, key: /nonexistent.pem}\n" FIXTURE_BASE,
             open_key, none, open_key);
    struct fixture *fixture = fixture_load(text, NULL);
    assert_null(fixture->config);
    const struct config_error *fault = fixture_fault(fixture, 3, "chmod 640");
    assert_true(fault && fault->warning);
    assert_non_null(fixture_fault(fixture, 4, "no private key in PEM"));
    assert_non_null(fixture_fault(fixture, 5, "stands twice"));
    assert_non_null(fixture_fault(fixture, 6, "cannot be read"));
    fixture_free(fixture);
    unlink(open_key);
    unlink(none);
    rmdir(folder);
}

/* A tenant's own VERP addresses, where it has some. */
static void verp_tenants(void **state) {
    struct fixture *fixture = fixture_good(FIXTURE_BASE "verp:\n"
                                                        "  domain: b.example.com\n"
                                                        "  tenants:\n"
                                                        "    shop: {domain: b.shop.example, prefix: s}\n"
                                                        "    mill: {prefix: m}\n"
                                                        "    Zoo.1: {domain: b.zoo.example}\n"
                                                        "    alp: {domain: b.alp.example}\n",
                                           NULL);
    static const struct {
        const char *tenant, *prefix, *domain;
    } cases[] = {{NULL, "b", "b.example.com"},    {"shop", "s", "b.shop.example"}, {"mill", "m", "b.example.com"},
                 {"Zoo.1", "b", "b.zoo.example"}, {"alp", "b", "b.alp.example"},   {"zoo.1", "b", "b.example.com"},
                 {"other", "b", "b.example.com"}, {"", "b", "b.example.com"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct config_verp_sender sender = config_verp(fixture->config, cases[i].tenant);
        assert_string_equal(sender.prefix, cases[i].prefix);
        assert_string_equal(sender.domain, cases[i].domain);
    }
    fixture_free(fixture);
    fixture = fixture_good(FIXTURE_BASE "verp: {tenants: {shop: {domain: b.shop.example}}}\n", NULL);
    assert_null(config_verp(fixture->config, NULL).domain);
    assert_null(config_verp(fixture->config, "mill").domain);
    assert_string_equal(config_verp(fixture->config, "shop").domain, "b.shop.example");
    fixture_free(fixture);
}

/* What Gmail, Yahoo and Microsoft demand of bulk senders, as far as it can be seen from here: told when the sandbox is off, and only as
 * warnings. */
static void sending_warnings(void **state) {
    struct fixture *fixture =
        fixture_good("sandbox: false\n"
                     "dataplane: {lcores: [0], ports: [{device: net_tap0, addresses: [10.255.254.253/30], gateway: 10.255.254.254}]}\n"
                     "pools: {a: [{address: 10.255.254.253, ehlo: '[10.255.254.253]'}]}\n",
                     NULL);
    assert_int_equal(fixture->errors.count, fixture->errors.warning_count);
    assert_non_null(fixture_fault(fixture, 1, "no DKIM key"));
    assert_non_null(fixture_fault(fixture, 3, "add the `public_address`"));
    assert_non_null(fixture_fault(fixture, 3, "address literal"));
    fixture_free(fixture);
}

/* Whatever a file holds, loading ends, and either gives a configuration or an error. */
static void damaged_files(void **state) {
    static const char text[] =
        FIXTURE_BASE "redis: {address: 'unix:/x', shards: 2}\nqueues: {normal: {retry: {first: 5m}}}\nrelays: {'*': '[192.0.2.25]:25'}\n";
    char damaged[sizeof text];
    unsigned seed = 20261;
    for (unsigned round = 0; round < 400; round++) {
        memcpy(damaged, text, sizeof text);
        for (unsigned k = 0; k < 1 + round % 4; k++) {
            damaged[(unsigned)rand_r(&seed) % (sizeof text - 1)] = " :-[]{},'\"&*!|>%@`#\n\tx0\xff"[(unsigned)rand_r(&seed) % 25];
        }
        struct fixture *fixture = fixture_load(damaged, round % 2 ? damaged : NULL);
        assert_true(fixture->config || fixture->errors.count > fixture->errors.warning_count);
        fixture_free(fixture);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),         cmocka_unit_test(retry_defaults),     cmocka_unit_test(retry_patterns),
        cmocka_unit_test(values),           cmocka_unit_test(faults_have_places), cmocka_unit_test(not_yaml),
        cmocka_unit_test(yaml_beyond_need), cmocka_unit_test(missing_file),       cmocka_unit_test(foreign_source),
        cmocka_unit_test(client_reading),   cmocka_unit_test(dkim_key_files),     cmocka_unit_test(sending_warnings),
        cmocka_unit_test(verp_tenants),     cmocka_unit_test(damaged_files)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
