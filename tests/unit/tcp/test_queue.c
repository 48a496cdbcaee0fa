/* test_queue.c: the send queue as the layer above meets it: owners, pieces, coalescing, calls from inside callbacks; and port choice. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "wire.h"

enum { MSS = 1000 };

static void open_with(struct wire *wire, const struct tcp_config *config) {
    wire_open(wire, config);
    wire_connect(wire);
    wire_establish(wire, &(struct wire_peer){.mss = MSS, .shift = -1});
}

struct counted_owner {
    struct tcp_owner base;
    uint32_t released;
};

static void count_release(struct tcp_owner *owner) {
    ((struct counted_owner *)(void *)owner)->released++;
}

/* tcp.h: one reference a range, `release` with the last one: when the last byte is acknowledged, not when it is sent. */
static void owner_is_released_once_when_acknowledged(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    struct counted_owner owner = {.base.release = count_release};
    struct tcp_piece pieces[3];
    for (uint32_t i = 0; i < 3; i++) {
        pieces[i] = (struct tcp_piece){.bytes = wire_pattern() + i * 200, .length = 100, .owner = &owner.base};
    }
    assert_int_equal(tcp_send(wire.conn, pieces, 3, wire.now_us), 0);
    assert_int_equal(owner.base.references, 3);
    tcp_output(wire.conn, wire.now_us);
    assert_int_equal(wire.segment_count, 1);
    assert_int_equal(wire.segments[0].piece_count, 3);
    wire_ack(&wire, wire.iss + 1 + 250);
    assert_int_equal(owner.base.references, 1);
    assert_int_equal(owner.released, 0);
    assert_int_equal(tcp_unacknowledged(wire.conn), 50);
    wire_ack(&wire, wire.iss + 1 + 300);
    assert_int_equal(owner.released, 1);
    wire_free(&wire);
    assert_int_equal(owner.released, 1);
}

/* However the connection ends, and with the stack itself. */
static void owner_is_released_when_the_connection_goes(void **state) {
    for (int way = 0; way < 4; way++) {
        struct wire wire;
        open_with(&wire, NULL);
        struct counted_owner owner = {.base.release = count_release};
        struct tcp_piece piece = {.bytes = wire_pattern(), .length = 20 * MSS, .owner = &owner.base};
        assert_int_equal(tcp_send(wire.conn, &piece, 1, wire.now_us), 0);
        tcp_output(wire.conn, wire.now_us);
        wire_ack(&wire, wire.iss + 1 + MSS);
        if (way == 0) {
            tcp_abort(wire.conn, wire.now_us);
        } else if (way == 1) {
            wire_put(&wire, TCP_RST, wire.sequence, 0, NULL, 0);
        } else if (way == 2) {
            wire_wait(&wire, 200 * 1000 * 1000);
        }
        wire_poll(&wire);
        assert_int_equal(owner.released, way == 3 ? 0 : 1);
        wire_free(&wire);
        assert_int_equal(owner.released, 1);
    }
}

/* tcp.h: all or none. */
static void send_takes_all_or_none(void **state) {
    struct wire wire;
    open_with(&wire, &(struct tcp_config){.max_ranges = 4});
    struct counted_owner owner = {.base.release = count_release};
    struct tcp_piece pieces[6];
    for (uint32_t i = 0; i < 6; i++) { /* an empty piece costs no range and holds no reference */
        pieces[i] = (struct tcp_piece){.bytes = wire_pattern(), .length = i == 2 ? 0 : 10, .owner = &owner.base};
    }
    assert_int_equal(tcp_send(wire.conn, pieces, 6, wire.now_us), -ENOBUFS);
    assert_int_equal(owner.base.references, 0);
    assert_int_equal(tcp_unacknowledged(wire.conn), 0);
    assert_int_equal(tcp_send(wire.conn, pieces, 5, wire.now_us), 0);
    assert_int_equal(owner.base.references, 4);
    assert_int_equal(tcp_unsent(wire.conn), 40);
    assert_int_equal(wire.segment_count, 0); /* bytes leave with tcp_output */
    wire_free(&wire);
}

/* Small pieces of consecutive messages share segments, and full segments are full: 4 KB in five pieces is five segments of 1,000. */
static void pieces_are_gathered_into_full_segments(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    struct tcp_piece pieces[6];
    static const uint32_t lengths[6] = {3, 700, 1900, 1200, 295, 900};
    uint32_t at = 0;
    for (uint32_t i = 0; i < 6; i++) {
        pieces[i] = (struct tcp_piece){.bytes = wire_pattern() + at, .length = lengths[i]};
        at += lengths[i];
    }
    assert_int_equal(tcp_send(wire.conn, pieces, 3, wire.now_us), 0);
    assert_int_equal(tcp_send(wire.conn, pieces + 3, 3, wire.now_us), 0);
    tcp_output(wire.conn, wire.now_us);
    assert_int_equal(wire.segment_count, 5);
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(wire.segments[i].length, i < 4 ? 1000 : 998);
        assert_memory_equal(wire.segments[i].payload, wire_pattern() + i * 1000, wire.segments[i].length);
        assert_int_equal(wire.segments[i].flags & TCP_PSH, i < 4 ? 0 : TCP_PSH);
    }
    wire_free(&wire);
}

/* A segment holds sixteen pieces; what lies in more goes in more segments, and comes again as it went. */
static void segment_holds_sixteen_pieces(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    static uint8_t apart[40 * 20];
    for (uint32_t i = 0; i < 40; i++) {
        memcpy(apart + i * 20, wire_pattern() + i * 10, 10);
        struct tcp_piece piece = {.bytes = apart + i * 20, .length = 10};
        assert_int_equal(tcp_send(wire.conn, &piece, 1, wire.now_us), 0);
    }
    tcp_output(wire.conn, wire.now_us);
    assert_int_equal(wire.segment_count, 3);
    assert_int_equal(wire.segments[0].length, 160);
    assert_int_equal(wire.segments[2].length, 80);
    wire_clear(&wire);
    wire_ack(&wire, wire.iss + 1 + 165); /* cuts into the second */
    wire_wait(&wire, 2000000);
    assert_int_equal(wire.segments[0].length, 155);
    assert_memory_equal(wire.segments[0].payload, wire_pattern() + 165, 155);
    wire_free(&wire);
}

/* Pieces that continue one another in memory are one, for the device too; but not over the end of a page. */
static void adjacent_pieces_are_one_within_a_page(void **state) {
    static uint8_t pages[2 * 4096] __attribute__((aligned(4096)));
    struct wire wire;
    open_with(&wire, NULL);
    struct counted_owner owner = {.base.release = count_release}, other = {.base.release = count_release};
    memcpy(pages, wire_pattern(), sizeof(pages));
    const struct tcp_piece pieces[] = {{.bytes = pages + 3700, .length = 100, .owner = &owner.base},
                                       {.bytes = pages + 3800, .length = 296, .owner = &owner.base},
                                       {.bytes = pages + 4096, .length = 50, .owner = &owner.base},
                                       {.bytes = pages + 4146, .length = 50, .owner = &other.base}};
    assert_int_equal(tcp_send(wire.conn, pieces, 1, wire.now_us), 0);
    tcp_output(wire.conn, wire.now_us);
    assert_int_equal(wire_last(&wire)->length, 100);
    assert_int_equal(tcp_send(wire.conn, pieces + 1, 3, wire.now_us), 0); /* the first continues what has left already */
    assert_int_equal(owner.base.references, 2);
    assert_int_equal(other.base.references, 1);
    tcp_output(wire.conn, wire.now_us);
    assert_int_equal(wire_last(&wire)->sequence, wire.iss + 101);
    assert_int_equal(wire_last(&wire)->length, 396);
    assert_int_equal(wire_last(&wire)->piece_count, 3);
    assert_memory_equal(wire_last(&wire)->payload, pages + 3800, 396);
    wire_ack(&wire, wire.iss + 1 + 396);
    assert_int_equal(owner.base.references, 1);
    wire_ack(&wire, wire.iss + 1 + 496);
    assert_int_equal(owner.released, 1);
    assert_int_equal(other.released, 1);
    wire_free(&wire);
}

static uint32_t calls;

static void say_more(struct wire *wire) {
    if (calls++ < 3) {
        struct tcp_piece piece = {.bytes = wire_pattern(), .length = 100};
        assert_int_equal(tcp_send(wire->conn, &piece, 1, wire->now_us), 0);
        tcp_output(wire->conn, wire->now_us);
    } else {
        tcp_close(wire->conn, wire->now_us);
    }
}

/* tcp.h: every callback may send and close; the stack's numbers are settled before it calls. */
static void callbacks_may_send_and_close(void **state) {
    struct wire wire;
    calls = 0;
    wire_open(&wire, NULL);
    wire.on_connected = wire.on_received = wire.on_acknowledged = say_more;
    wire_connect(&wire);
    wire_put(&wire, TCP_SYN | TCP_ACK, 0x70000000, wire.iss + 1, NULL, 0); /* connected: 100 bytes */
    wire.sequence = 0x70000001;
    assert_int_equal(wire_last(&wire)->length, 100);
    wire.acknowledgement = wire.iss + 101;
    wire_say(&wire, "250 ok\r\n", 8); /* acknowledged, received: 200 more */
    assert_int_equal(wire_last(&wire)->sequence, wire.iss + 201);
    assert_int_equal(wire_last(&wire)->acknowledgement, wire.sequence);
    wire_ack(&wire, wire.iss + 301); /* acknowledged: close */
    assert_int_equal(wire_last(&wire)->flags & TCP_FIN, TCP_FIN);
    assert_int_equal(wire.acknowledged_bytes, 300);
    wire_free(&wire);
}

static void give_up(struct wire *wire) {
    tcp_abort(wire->conn, wire->now_us);
}

/* Abort from inside each callback: no other call follows but `closed`, which follows once. */
static void callbacks_may_abort(void **state) {
    for (int which = 0; which < 4; which++) {
        struct wire wire;
        wire_open(&wire, NULL);
        wire.on_connected = which == 0 ? give_up : NULL;
        wire.on_received = which == 1 ? give_up : NULL;
        wire.on_acknowledged = which == 2 ? give_up : NULL;
        wire.on_peer_closed = which == 3 ? give_up : NULL;
        wire_connect(&wire);
        wire_put(&wire, TCP_SYN | TCP_ACK, 0x70000000, wire.iss + 1, NULL, 0);
        wire.sequence = 0x70000001;
        if (which > 0) {
            wire_send(&wire, "abc", 3);
            wire_put(&wire, TCP_ACK | TCP_FIN, wire.sequence, wire.iss + 4, "text", 4);
        }
        assert_int_equal(wire_last(&wire)->flags & TCP_RST, TCP_RST);
        assert_int_equal(wire.closed, 0);
        assert_int_equal(wire.peer_closed, which == 3 ? 1 : 0);
        assert_int_equal(wire.text_length, which == 1 || which == 3 ? 4 : 0);
        wire_poll(&wire);
        wire_poll(&wire);
        assert_int_equal(wire.closed, 1);
        assert_int_equal(wire.error, TCP_ABORTED);
        assert_int_equal(tcp_stack_connections(wire.stack), 0);
        wire_free(&wire);
    }
}

static void resume_inside(struct wire *wire) {
    tcp_receive_resume(wire->conn, wire->now_us);
}

/* tcp_receive_resume from inside `received` asks for the rest again, without nesting and without end. */
static void resume_from_inside_received(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    wire.on_received = resume_inside;
    wire.take_limit = 3;
    wire_say(&wire, "abcdef", 6);
    assert_int_equal(wire.text_length, 3);
    wire.take_limit = UINT32_MAX;
    tcp_receive_resume(wire.conn, wire.now_us);
    assert_int_equal(wire.text_length, 6);
    assert_memory_equal(wire.text, "abcdef", 6);
    wire_free(&wire);
}

/* RFC 6056: each pair has all the ports; no two connections of a pair share one; the order tells nothing; the end is said clearly. */
static void ports_are_per_pair_and_run_out(void **state) {
    enum { PORTS = 150 };
    struct wire wire;
    struct tcp_conn *conns[2 * PORTS + 1];
    uint8_t used[2][PORTS] = {{0}};
    uint32_t ascending = 0;
    wire_open(&wire, &(struct tcp_config){.max_connections = 2 * PORTS + 1, .port_first = 30001, .port_last = 30000 + PORTS});
    for (uint32_t i = 0; i < 2 * PORTS; i++) {
        uint16_t remote_port = i % 2 == 0 ? 25 : 587, before = wire.local_port;
        assert_int_equal(tcp_connect(wire.stack, &wire.local, &wire.remote, remote_port, 1000000, &wire, &conns[i], wire.now_us), 0);
        struct tcp_address local, remote;
        uint16_t port, other;
        tcp_endpoints(conns[i], &local, &port, &remote, &other);
        assert_in_range(port, 30001, 30000 + PORTS);
        assert_int_equal(used[i % 2][port - 30001]++, 0);
        ascending += port == before + 1;
        wire.local_port = port;
    }
    assert_true(ascending < PORTS / 4);
    assert_int_equal(tcp_connect(wire.stack, &wire.local, &wire.remote, 25, 1000000, &wire, &conns[2 * PORTS], wire.now_us),
                     -EADDRNOTAVAIL);
    assert_int_equal(tcp_stack_counters(wire.stack)->ports_exhausted, 1);
    struct tcp_address elsewhere = wire.remote;
    elsewhere.bytes[3]++;
    assert_int_equal(tcp_connect(wire.stack, &wire.local, &elsewhere, 25, 1000000, &wire, &conns[2 * PORTS], wire.now_us), 0);
    assert_int_equal(tcp_connect(wire.stack, &wire.local, &elsewhere, 25, 1000000, &wire, &conns[2 * PORTS], wire.now_us), -ENOBUFS);
    tcp_abort(conns[0], wire.now_us);
    wire_poll(&wire);
    assert_int_equal(tcp_connect(wire.stack, &wire.local, &wire.remote, 25, 1000000, &wire, &conns[0], wire.now_us), 0); /* the one freed */
    wire_wait(&wire, 2000000);
    struct tcp_usage usage;
    tcp_stack_usage(wire.stack, &usage);
    assert_memory_equal(&usage, &(struct tcp_usage){0}, sizeof(usage));
    wire_free(&wire);
}

/* A config that cannot work is refused. */
static void bad_configs(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    for (int i = 0; i < 5; i++) {
        struct tcp_config config = wire.config;
        config.max_connections = i == 0 ? 0 : config.max_connections;
        config.mtu = i == 1 ? 500 : config.mtu;
        config.port_first = i == 2 ? 0 : i == 3 ? 30000 : config.port_first;
        config.transmit = i == 4 ? NULL : config.transmit;
        assert_null(tcp_stack_create(&config, 0));
        assert_int_equal(errno, EINVAL);
    }
    wire_free(&wire);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(owner_is_released_once_when_acknowledged),
        cmocka_unit_test(owner_is_released_when_the_connection_goes),
        cmocka_unit_test(send_takes_all_or_none),
        cmocka_unit_test(pieces_are_gathered_into_full_segments),
        cmocka_unit_test(segment_holds_sixteen_pieces),
        cmocka_unit_test(adjacent_pieces_are_one_within_a_page),
        cmocka_unit_test(callbacks_may_send_and_close),
        cmocka_unit_test(callbacks_may_abort),
        cmocka_unit_test(resume_from_inside_received),
        cmocka_unit_test(ports_are_per_pair_and_run_out),
        cmocka_unit_test(bad_configs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
