/* The whole choice of ports, net's steering under TCP's book-keeping: workers open connections of one pair until none has a port left.
 * Together they have then used every port of the range, each once and each on the worker that its replies come to (TCP.md, "Steering active
 * opens"). */
#include "dataplane/net/steering.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { WORKERS = 4, PORT_FIRST = 10000, PORT_COUNT = 20000 };

struct worker {
    struct steering *steering;
    struct tcp_stack *stack;
    uint16_t syn_port; /* of the last segment sent */
};

static int transmit(void *network, const struct tcp_segment *segment) {
    struct worker *worker = network;
    worker->syn_port = segment->local_port;
    return 0;
}

static bool choose(void *network, const struct tcp_address *local, const struct tcp_address *remote, uint16_t remote_port, uint64_t random,
                   uint32_t attempt, struct tcp_port_choice *choice) {
    const struct worker *worker = network;
    return steering_choose(worker->steering, local, remote, remote_port, random, attempt, choice);
}

static void closed(void *user, struct tcp_conn *conn, enum tcp_error error, uint64_t now_us) {
    (void)user;
    (void)conn;
    (void)error;
    (void)now_us;
}

static void worker_start(struct worker *worker, const struct port_rss *rss, uint32_t index) {
    struct tcp_config config = {
        .max_connections = PORT_COUNT,
        .receive_buffer_bytes = 16384,
        .mtu = 1500,
        .port_first = PORT_FIRST,
        .port_last = PORT_FIRST + PORT_COUNT - 1,
        .secret = {(uint8_t)(index + 1)},
        .transmit = transmit,
        .choose_ports = choose,
        .network = worker,
        .events = {.closed = closed},
    };
    worker->steering = steering_create(rss, index, PORT_FIRST, PORT_COUNT);
    assert_non_null(worker->steering);
    worker->stack = tcp_stack_create(&config, 0);
    assert_non_null(worker->stack);
}

static void every_port_before_exhaustion(uint8_t family) {
    static bool used[65536];
    struct worker workers[WORKERS] = {0};
    struct port_rss rss;
    struct tcp_address local = {.family = family, .bytes = {0x20, 1, 0, 7}}, remote = {.family = family, .bytes = {0x20, 1, 9, 9}};
    uint32_t opened = 0;
    toeplitz_rss_default(&rss, WORKERS);
    memset(used, 0, sizeof used);
    for (uint32_t i = 0; i < WORKERS; i++) {
        struct worker *worker = &workers[i];
        struct tcp_conn *conn;
        int rc;
        worker_start(worker, &rss, i);
        while ((rc = tcp_connect(worker->stack, &local, &remote, 25, 10000000, NULL, &conn, 0)) == 0) {
            assert_false(used[worker->syn_port]);
            used[worker->syn_port] = true;
            assert_int_equal(steering_owner(worker->steering, &local, worker->syn_port, &remote, 25), i);
            opened++;
        }
        assert_int_equal(rc, -EADDRNOTAVAIL);
    }
    assert_int_equal(opened, PORT_COUNT);
    for (uint32_t i = 0; i < WORKERS; i++) {
        tcp_stack_destroy(workers[i].stack);
        steering_destroy(workers[i].steering);
    }
}

static void ipv4(void **state) {
    (void)state;
    every_port_before_exhaustion(4);
}

static void ipv6(void **state) {
    (void)state;
    every_port_before_exhaustion(6);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(ipv4), cmocka_unit_test(ipv6)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
