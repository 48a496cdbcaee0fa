/* test_ports.c: local ports by classes of a map (tcp_config.choose_ports): only allowed ports, all of them, none twice, and TIME_WAIT ports
 * only where they were allowed (RFC 6056, RFC 6191). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "wire.h"

enum { PORTS = 1000, FIRST = 20000, CLASSES = 8, PER_CLASS = PORTS / CLASSES };

static uint16_t port_at[PORTS], index_of[65536];
static struct tcp_port_map map = {.port_at = port_at, .index_of = index_of, .count = PORTS};
static uint32_t allowed; /* a bit for each class */
static uint32_t calls;
static bool none;

static void map_make(void) {
    for (uint32_t i = 0; i < PORTS; i++) { /* class c holds the ports that are c modulo the classes */
        uint16_t port = (uint16_t)(FIRST + (i % PER_CLASS) * CLASSES + i / PER_CLASS);
        port_at[i] = port;
        index_of[port] = (uint16_t)i;
    }
}

static bool choose(void *network, const struct tcp_address *local, const struct tcp_address *remote, uint16_t remote_port, uint64_t random,
                   uint32_t attempt, struct tcp_port_choice *choice) {
    calls++;
    uint32_t turn = (uint32_t)(random % CLASSES);
    for (uint32_t i = 0; i < CLASSES && !none; i++) {
        uint32_t class = (turn + i) % CLASSES;
        if ((allowed >> class & 1) != 0 && attempt-- == 0) {
            *choice = (struct tcp_port_choice){.map = &map, .first = class * PER_CLASS, .count = PER_CLASS};
            return true;
        }
    }
    return false;
}

static void ports_open(struct wire *wire) {
    map_make();
    calls = 0;
    none = false;
    wire_open(wire, &(struct tcp_config){.max_connections = 2000, .choose_ports = choose});
}

static int connect_one(struct wire *wire, struct tcp_conn **conn) {
    wire_clear(wire);
    return tcp_connect(wire->stack, &wire->local, &wire->remote, 25, 30 * 1000 * 1000, wire, conn, wire->now_us);
}

static void every_port_of_the_allowed_classes_and_no_other(void **state) {
    struct wire wire;
    struct tcp_conn *conn, *some = NULL;
    bool used[PORTS * 2] = {0};
    ports_open(&wire);
    allowed = 1U << 2 | 1U << 5;
    for (uint32_t i = 0; i < 2 * PER_CLASS; i++) {
        assert_int_equal(connect_one(&wire, &conn), 0);
        uint16_t port = wire_last(&wire)->local_port;
        assert_true((allowed >> (port - FIRST) % CLASSES & 1) != 0);
        assert_false(used[port - FIRST]);
        used[port - FIRST] = true;
        some = i == 77 ? conn : some;
    }
    assert_int_equal(connect_one(&wire, &conn), -EADDRNOTAVAIL);
    uint32_t before = calls;
    assert_int_equal(connect_one(&wire, &conn), -EADDRNOTAVAIL);
    assert_int_equal(calls, before); /* known to be full */
    assert_int_equal(tcp_stack_counters(wire.stack)->ports_exhausted, 2);
    uint16_t freed, ignored;
    struct tcp_address local, remote;
    tcp_endpoints(some, &local, &freed, &remote, &ignored);
    tcp_abort(some, wire.now_us);
    assert_int_equal(connect_one(&wire, &conn), 0);
    assert_int_equal(wire_last(&wire)->local_port, freed);
    /* Another pair has all its ports. */
    wire.remote.bytes[3]++;
    assert_int_equal(connect_one(&wire, &conn), 0);
    wire_free(&wire);
}

static void the_first_ports_are_spread_over_their_class(void **state) {
    struct wire wire;
    struct tcp_conn *conn;
    ports_open(&wire);
    allowed = 1;
    uint32_t low = 0;
    for (uint32_t i = 0; i < 400; i++) {
        wire.remote.bytes[2] = (uint8_t)i;
        wire.remote.bytes[3] = (uint8_t)(i >> 8);
        assert_int_equal(connect_one(&wire, &conn), 0);
        low += index_of[wire_last(&wire)->local_port] < PER_CLASS / 2;
    }
    assert_in_range(low, 130, 270);
    wire_free(&wire);
}

static void where_the_network_says_nothing_the_range_is_used(void **state) {
    struct wire wire;
    struct tcp_conn *conn;
    ports_open(&wire);
    none = true;
    for (uint32_t i = 0; i < PORTS; i++) {
        assert_int_equal(connect_one(&wire, &conn), 0);
        assert_in_range(wire_last(&wire)->local_port, 20000, 20999);
    }
    assert_int_equal(connect_one(&wire, &conn), -EADDRNOTAVAIL);
    wire_free(&wire);
}

/* A pair keeps its map: a port number has one place. */
static void a_choice_of_another_map_or_outside_of_its_map_is_passed_over(void **state) {
    struct wire wire;
    struct tcp_conn *conn;
    ports_open(&wire);
    none = true;
    assert_int_equal(connect_one(&wire, &conn), 0);
    none = false;
    allowed = 1;
    assert_int_equal(connect_one(&wire, &conn), -EADDRNOTAVAIL);
    wire.remote.bytes[3]++;
    map.count = 10; /* the class now reaches beyond the map */
    assert_int_equal(connect_one(&wire, &conn), -EADDRNOTAVAIL);
    map.count = PORTS;
    assert_int_equal(connect_one(&wire, &conn), 0);
    struct tcp_usage usage;
    tcp_stack_usage(wire.stack, &usage);
    assert_int_equal(usage.pairs, 2);
    wire_free(&wire);
}

/* RFC 6191: with every port of the classes in TIME_WAIT the oldest is used again after a second, and its class is an allowed one. */
static void time_wait_ports_of_the_classes_are_used_again(void **state) {
    struct wire wire;
    ports_open(&wire);
    allowed = 1U << 3;
    uint16_t oldest = 0;
    for (uint32_t i = 0; i < PER_CLASS; i++) {
        wire.connected = 0;
        wire_connect(&wire);
        oldest = i == 0 ? wire.local_port : oldest;
        wire.ts_value = 500;
        wire_establish(&wire, &(struct wire_peer){.mss = 1460, .shift = -1, .timestamps = true});
        tcp_close(wire.conn, wire.now_us);
        wire_put(&wire, TCP_ACK | TCP_FIN, wire.sequence, wire.iss + 2, NULL, 0);
        wire_poll(&wire);
    }
    struct tcp_usage usage;
    tcp_stack_usage(wire.stack, &usage);
    assert_int_equal(usage.time_wait, PER_CLASS);
    struct tcp_conn *conn;
    assert_int_equal(connect_one(&wire, &conn), -EADDRNOTAVAIL); /* not yet a second old */
    wire_wait(&wire, 1100000);
    assert_int_equal(connect_one(&wire, &conn), 0);
    assert_int_equal(wire_last(&wire)->local_port, oldest);
    for (uint32_t i = 1; i < PER_CLASS; i++) {
        assert_int_equal(connect_one(&wire, &conn), 0);
        assert_int_equal((wire_last(&wire)->local_port - FIRST) % CLASSES, 3);
    }
    assert_int_equal(connect_one(&wire, &conn), -EADDRNOTAVAIL);
    wire_free(&wire);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_port_of_the_allowed_classes_and_no_other),
        cmocka_unit_test(the_first_ports_are_spread_over_their_class),
        cmocka_unit_test(where_the_network_says_nothing_the_range_is_used),
        cmocka_unit_test(a_choice_of_another_map_or_outside_of_its_map_is_passed_over),
        cmocka_unit_test(time_wait_ports_of_the_classes_are_used_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
