/* The dataplane's command line that follows from a configuration. */
#include "../config/fixture.h"

#include "control/cli/dataplane_arguments.h"

/* The value behind an option, the n-th time it stands there; NULL when it does not. */
static const char *value_of(char **arguments, const char *option, unsigned n) {
    for (char **at = arguments; *at; at++) {
        if (strcmp(*at, option) == 0 && n-- == 0) {
            return at[1];
        }
    }
    return NULL;
}

static void defaults(void **state) {
    struct fixture *fixture = fixture_good(FIXTURE_BASE, NULL);
    char **arguments = dataplane_arguments(fixture->config);
    assert_string_equal(arguments[0], "bypost-dataplane");
    assert_string_equal(value_of(arguments, "--journal", 0), "/run/bypost/journal");
    assert_string_equal(value_of(arguments, "--socket", 0), "/run/bypost/dataplane.sock");
    assert_string_equal(value_of(arguments, "--shards", 0), "1");
    assert_string_equal(value_of(arguments, "--slots", 0), "16384");
    assert_string_equal(value_of(arguments, "--paths", 0), "2048");
    assert_string_equal(value_of(arguments, "--lcores", 0), "0");
    assert_string_equal(value_of(arguments, "--memory-mib", 0), "512");
    assert_string_equal(value_of(arguments, "--arena-mib", 0), "128");
    assert_string_equal(value_of(arguments, "--tcp-ports", 0), "10000-65535");
    assert_string_equal(value_of(arguments, "--drain-timeout-ms", 0), "30000");
    assert_string_equal(value_of(arguments, "--idle", 0), "adaptive"); /* a virtual device */
    assert_string_equal(value_of(arguments, "--congestion", 0), "cubic");
    assert_null(value_of(arguments, "--user", 0));
    assert_null(value_of(arguments, "--eal", 0));
    assert_string_equal(value_of(arguments, "--port", 0), "device=net_tap0,iface=tap9;mode=auto;mtu=1500;vlan=0;address=192.0.2.10/"
                                                          "24;address=2001:db8::10/64;gateway=192.0.2.1;gateway=fe80::1");
    assert_null(value_of(arguments, "--port", 1));
    dataplane_arguments_free(arguments);
    fixture_free(fixture);
}

static void everything(void **state) {
    struct fixture *fixture = fixture_good(
        "user: root\n"
        "run_directory: /run/other\n"
        "journal: {path: /dev/shm/j, slots: 256, paths: 64}\n"
        "dataplane:\n"
        "  lcores: [0]\n"
        "  memory: 100000000\n" /* not whole MiB: rounded up */
        "  arena: 52M\n"
        "  hugepages: on\n"
        "  max_sessions: 77\n"
        "  congestion: newreno\n"
        "  tcp_ports: 20000-20999\n"
        "  drain_timeout: 1500ms\n"
        "  eal_args: [--log-level=7, --no-pci]\n"
        "  ports:\n"
        "    - {device: '0000:3b:00.0', mode: reference, vlan: 12, mtu: 9000, addresses: [192.0.2.10/24], gateway: 192.0.2.1}\n"
        "    - {device: '0000:3b:00.1', mode: copy, steering: ranges, addresses: [198.51.100.10/24, 2001:db8::10/64],\n"
        "       gateway: [fe80::1, 198.51.100.1]}\n"
        "pools: {main: [{address: 192.0.2.10, ehlo: a.example.com}]}\n",
        NULL);
    char **arguments = dataplane_arguments(fixture->config);
    assert_string_equal(value_of(arguments, "--user", 0), "root");
    assert_string_equal(value_of(arguments, "--journal", 0), "/dev/shm/j");
    assert_string_equal(value_of(arguments, "--socket", 0), "/run/other/dataplane.sock");
    assert_string_equal(value_of(arguments, "--slots", 0), "256");
    assert_string_equal(value_of(arguments, "--paths", 0), "64");
    assert_string_equal(value_of(arguments, "--memory-mib", 0), "96");
    assert_string_equal(value_of(arguments, "--arena-mib", 0), "52");
    assert_string_equal(value_of(arguments, "--hugepages", 0), "on");
    assert_string_equal(value_of(arguments, "--max-sessions", 0), "77");
    assert_string_equal(value_of(arguments, "--tcp-ports", 0), "20000-20999");
    assert_string_equal(value_of(arguments, "--drain-timeout-ms", 0), "1500");
    assert_string_equal(value_of(arguments, "--idle", 0), "poll"); /* only real devices: a whole core is theirs */
    assert_string_equal(value_of(arguments, "--eal", 0), "--log-level=7");
    assert_string_equal(value_of(arguments, "--eal", 1), "--no-pci");
    assert_string_equal(value_of(arguments, "--port", 0),
                        "device=0000:3b:00.0;mode=reference;mtu=9000;vlan=12;address=192.0.2.10/24;gateway=192.0.2.1");
    assert_string_equal(value_of(arguments, "--port", 1),
                        "device=0000:3b:00.1;mode=copy;mtu=1500;vlan=0;steering=ranges;address=198.51.100.10/24;address=2001:db8::10/64;"
                        "gateway=198.51.100.1;gateway=fe80::1");
    assert_string_equal(value_of(arguments, "--congestion", 0), "newreno");
    dataplane_arguments_free(arguments);
    fixture_free(fixture);
}

static void hugepages(void **state) {
    assert_true(hugepages_free(0) || access("/sys/kernel/mm/hugepages", F_OK) != 0);
    assert_false(hugepages_free(UINT64_MAX));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(defaults), cmocka_unit_test(everything), cmocka_unit_test(hugepages)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
