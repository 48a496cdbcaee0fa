/* test_listen.c: passive open: listeners, their handshakes, refusal, floods, and a SYN that meets TIME_WAIT (RFC 9293 3.5, 3.10.7; RFC
 * 6191). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "wire.h"

static const struct tcp_address any4 = {.family = 4};
static int tag;

/* A stack that listens on port 25 of any address; the peer comes from port 40000. */
static void listen_open(struct wire *wire, const struct tcp_config *changes) {
    wire_open(wire, changes);
    wire->local_port = 25;
    wire->remote_port = 40000;
    assert_int_equal(tcp_listen(wire->stack, &any4, 25, &tag), 0);
}

/* SYN, SYN-ACK, ACK; what was sent is cleared. */
static void accept_one(struct wire *wire) {
    wire_syn(wire, 0x1000);
    const struct wire_segment *answer = wire_last(wire);
    assert_int_equal(answer->flags, TCP_SYN | TCP_ACK);
    wire->iss = answer->sequence;
    wire_ack(wire, wire->iss + 1);
    wire_clear(wire);
}

static void a_syn_is_answered_and_its_ack_accepts(void **state) {
    struct wire wire;
    listen_open(&wire, NULL);
    wire.ts_value = 77;
    wire_syn(&wire, 0x1000);
    assert_int_equal(wire.segment_count, 1);
    const struct wire_segment *answer = wire_last(&wire);
    assert_int_equal(answer->flags, TCP_SYN | TCP_ACK);
    assert_int_equal(answer->acknowledgement, 0x1001);
    assert_int_equal(answer->local_port, 25);
    assert_int_equal(answer->remote_port, 40000);
    assert_memory_equal(answer->options, "\x02\x04\x05\xb4\x01\x01\x08\x0a", 8);
    assert_int_equal(answer->options_length, 16); /* no window scale: the peer offered none */
    assert_int_equal(wire.accepted, 0);
    wire.timestamps = true;
    wire.now_us += 5000;
    wire.iss = answer->sequence;
    wire_put(&wire, TCP_ACK, 0x1001, wire.iss + 1, "HELO a\r\n", 8); /* data with the handshake's ACK */
    assert_int_equal(wire.accepted, 1);
    assert_int_equal(wire.connected, 0);
    assert_ptr_equal(wire.listener_user, &tag);
    assert_int_equal(wire.text_length, 8);
    assert_true(tcp_is_open(wire.conn));
    assert_int_equal(tcp_rtt_us(wire.conn) / 1000, 5);
    struct tcp_usage usage;
    tcp_stack_usage(wire.stack, &usage);
    assert_int_equal(usage.pairs + usage.port_blocks, 0); /* a listener's port is nobody's */
    assert_int_equal(tcp_stack_counters(wire.stack)->accepted, 1);
    wire_free(&wire);
}

static void the_server_may_speak_in_accepted_and_both_sides_close(void **state) {
    struct wire wire;
    listen_open(&wire, NULL);
    accept_one(&wire);
    assert_int_equal(wire_send(&wire, "220 mx\r\n", 8), 0);
    assert_int_equal(wire_last(&wire)->length, 8);
    wire_ack(&wire, wire.iss + 9);
    wire_put(&wire, TCP_ACK | TCP_FIN, wire.sequence, wire.iss + 9, NULL, 0);
    assert_false(tcp_is_open(wire.conn));
    tcp_close(wire.conn, wire.now_us);
    wire.sequence++;
    wire_ack(&wire, wire.iss + 10);
    wire_poll(&wire);
    assert_int_equal(wire.closed, 1);
    assert_int_equal(wire.error, TCP_OK);
    struct tcp_usage usage;
    tcp_stack_usage(wire.stack, &usage);
    assert_memory_equal(&usage, &(struct tcp_usage){0}, sizeof(usage));
    wire_free(&wire);
}

static void listeners_are_found_by_address_then_by_any(void **state) {
    struct wire wire;
    int own;
    listen_open(&wire, NULL);
    assert_int_equal(tcp_listen(wire.stack, &any4, 25, &tag), -EADDRINUSE);
    assert_int_equal(tcp_listen(wire.stack, &wire.local, 25, &own), 0);
    assert_int_equal(tcp_listen(wire.stack, &wire.local, 25, &own), -EADDRINUSE);
    assert_int_equal(tcp_listen(wire.stack, &any4, 0, &own), -EINVAL);
    assert_int_equal(tcp_listen(wire.stack, &(struct tcp_address){.family = 6}, 25, &own), 0);
    accept_one(&wire);
    assert_ptr_equal(wire.listener_user, &own);
    wire.local.bytes[3] = 99;
    accept_one(&wire);
    assert_ptr_equal(wire.listener_user, &tag);
    for (uint32_t port = 1000; port < 1000 + TCP_LISTENERS_MAX - 3; port++) {
        assert_int_equal(tcp_listen(wire.stack, &any4, (uint16_t)port, &tag), 0);
    }
    assert_int_equal(tcp_listen(wire.stack, &any4, 999, &tag), -ENOBUFS);
    wire_free(&wire);
}

/* RFC 9293 3.10.7.1 and 3.10.7.2 */
static void what_is_no_syn_is_reset_and_other_ports_are_closed(void **state) {
    struct wire wire;
    listen_open(&wire, NULL);
    wire_put(&wire, TCP_ACK, 5, 900, NULL, 0);
    assert_int_equal(wire_last(&wire)->flags, TCP_RST);
    assert_int_equal(wire_last(&wire)->sequence, 900);
    wire_put(&wire, TCP_SYN | TCP_ACK, 5, 901, NULL, 0);
    assert_int_equal(wire_last(&wire)->sequence, 901);
    wire_clear(&wire);
    wire_put(&wire, TCP_RST, 5, 0, NULL, 0);
    assert_int_equal(wire.segment_count, 0);
    wire.local_port = 26;
    wire_syn(&wire, 0x1000);
    assert_int_equal(wire_last(&wire)->flags, TCP_RST | TCP_ACK);
    assert_int_equal(wire_last(&wire)->acknowledgement, 0x1001);
    assert_int_equal(tcp_stack_connections(wire.stack), 0);
    wire_free(&wire);
}

static void a_refused_one_is_reset_without_a_word_above(void **state) {
    struct wire wire;
    listen_open(&wire, NULL);
    wire.refuse = true;
    wire_syn(&wire, 0x1000);
    wire_ack(&wire, wire_last(&wire)->sequence + 1);
    assert_int_equal(wire.accepted, 1);
    assert_int_equal(wire_last(&wire)->flags & TCP_RST, TCP_RST);
    wire_poll(&wire);
    assert_int_equal(wire.closed, 0);
    assert_int_equal(tcp_stack_connections(wire.stack), 0);
    wire_free(&wire);
}

/* RFC 6298 section 5: after 1, 3, 7 s ...; at a minute it is given up, and the layer above never hears of it. */
static void a_syn_ack_is_repeated_and_given_up(void **state) {
    struct wire wire;
    listen_open(&wire, NULL);
    wire_syn(&wire, 0x1000);
    uint64_t start = wire.now_us;
    wire_wait(&wire, 1010000);
    assert_int_equal(wire.segment_count, 2);
    assert_int_equal(wire_last(&wire)->flags, TCP_SYN | TCP_ACK);
    assert_int_equal(wire_last(&wire)->sequence, wire.segments[0].sequence);
    wire_wait(&wire, start + 59000000 - wire.now_us);
    assert_int_equal(tcp_stack_connections(wire.stack), 1);
    assert_int_equal(wire.segment_count, 6); /* 0, 1, 3, 7, 15, 31 s */
    wire_wait(&wire, 2000000);
    assert_int_equal(tcp_stack_connections(wire.stack), 0);
    assert_int_equal(wire.closed, 0);
    assert_int_equal(tcp_stack_counters(wire.stack)->listen_dropped, 1);
    wire_free(&wire);
}

static void a_repeated_syn_is_answered_again(void **state) {
    struct wire wire;
    listen_open(&wire, NULL);
    wire_syn(&wire, 0x1000);
    wire.now_us += 300000;
    wire_syn(&wire, 0x1000);
    assert_int_equal(wire.segment_count, 2);
    assert_int_equal(wire_last(&wire)->flags, TCP_SYN | TCP_ACK);
    assert_int_equal(tcp_stack_connections(wire.stack), 1);
    wire.now_us += 1000;
    wire_ack(&wire, wire_last(&wire)->sequence + 1);
    assert_int_equal(wire.accepted, 1);
    assert_int_equal(tcp_rtt_us(wire.conn), 0); /* which of the two was answered nobody knows */
    wire_free(&wire);
}

/* RFC 9293 3.10.7.4: RST returns to LISTEN; an ACK of what was not sent is reset. */
static void reset_and_wrong_ack_in_syn_received(void **state) {
    struct wire wire;
    listen_open(&wire, NULL);
    wire_syn(&wire, 0x1000);
    uint32_t iss = wire_last(&wire)->sequence;
    wire_put(&wire, TCP_ACK, 0x1001, iss + 2, NULL, 0);
    assert_int_equal(wire_last(&wire)->flags, TCP_RST);
    assert_int_equal(wire_last(&wire)->sequence, iss + 2);
    assert_int_equal(wire.accepted, 0);
    wire_put(&wire, TCP_RST, 0x1001, 0, NULL, 0);
    wire_poll(&wire);
    assert_int_equal(tcp_stack_connections(wire.stack), 0);
    assert_int_equal(wire.closed, 0);
    accept_one(&wire);
    assert_int_equal(wire.accepted, 1);
    wire_free(&wire);
}

/* The oldest handshake goes first, and what is established goes on. */
static void a_flood_of_syns_costs_only_handshakes(void **state) {
    struct wire wire;
    listen_open(&wire, &(struct tcp_config){.max_connections = 16, .max_half_open = 4});
    accept_one(&wire);
    struct tcp_conn *established = wire.conn;
    uint32_t sequence = wire.sequence, acknowledgement = wire.acknowledgement;
    uint32_t fourth_last = 0;
    for (uint16_t port = 50000; port < 50100; port++) {
        wire.remote_port = port;
        wire_syn(&wire, 0x2000);
        fourth_last = port == 50096 ? wire_last(&wire)->sequence : fourth_last;
        assert_int_equal(wire_last(&wire)->flags, TCP_SYN | TCP_ACK);
    }
    assert_int_equal(tcp_stack_connections(wire.stack), 5);
    assert_int_equal(tcp_stack_counters(wire.stack)->listen_dropped, 96);
    uint32_t newest = wire_last(&wire)->sequence;
    wire_ack(&wire, newest + 1); /* the newest was not given up */
    assert_int_equal(wire.accepted, 2);
    wire.remote_port = 50096;
    wire_ack(&wire, fourth_last + 1); /* nor the one that was oldest in the end */
    assert_int_equal(wire.accepted, 3);
    wire.conn = established;
    wire.remote_port = 40000;
    wire.sequence = sequence;
    wire.acknowledgement = acknowledgement;
    wire_say(&wire, "NOOP\r\n", 6);
    assert_int_equal(wire.text_length, 6);
    /* Handshakes make room for a connect. */
    struct tcp_conn *conn;
    for (uint32_t i = 0; i < 13; i++) {
        assert_int_equal(tcp_connect(wire.stack, &wire.local, &wire.remote, 25, 1000000, &wire, &conn, wire.now_us), 0);
    }
    assert_int_equal(tcp_connect(wire.stack, &wire.local, &wire.remote, 25, 1000000, &wire, &conn, wire.now_us), -ENOBUFS);
    wire_free(&wire);
}

/* The server closes first: TIME_WAIT is ours, without a port of any pair. */
static void wait_after_close(struct wire *wire) {
    accept_one(wire);
    tcp_close(wire->conn, wire->now_us);
    wire_put(wire, TCP_ACK | TCP_FIN, wire->sequence, wire->iss + 2, NULL, 0);
    wire->sequence++;
    wire_poll(wire);
    assert_int_equal(wire->closed, 1);
    struct tcp_usage usage;
    tcp_stack_usage(wire->stack, &usage);
    assert_int_equal(usage.time_wait, 1);
    assert_int_equal(usage.connections, 0);
    wire_clear(wire);
}

/* RFC 6191 section 2 and RFC 9293 3.10.7.4 (TIME-WAIT) */
static void a_later_syn_reopens_time_wait_and_an_old_one_does_not(void **state) {
    static const struct {
        uint32_t before, after; /* timestamps; 0: none */
        int32_t ahead;          /* the SYN's sequence number against the end of the old connection */
        bool reopens;
    } cases[] = {{0, 0, 5, true},    {0, 0, -5, false}, {50, 51, -5, true}, {50, 50, 5, true}, {50, 50, -5, false},
                 {50, 49, 5, false}, {50, 0, 5, true},  {50, 0, -5, false}, {0, 1, -5, true}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct wire wire;
        listen_open(&wire, NULL);
        wire.ts_value = cases[i].before;
        wire.timestamps = cases[i].before != 0;
        wait_after_close(&wire);
        uint32_t used = wire.iss + 2;
        wire.ts_value = cases[i].after;
        wire_syn(&wire, wire.sequence + (uint32_t)cases[i].ahead);
        assert_int_equal(wire.segment_count, 1);
        assert_int_equal(wire_last(&wire)->flags, cases[i].reopens ? TCP_SYN | TCP_ACK : TCP_ACK);
        if (cases[i].reopens) {
            assert_true((int32_t)(wire_last(&wire)->sequence - used) > 0);
            wire.timestamps = cases[i].after != 0;
            wire_ack(&wire, wire_last(&wire)->sequence + 1);
            assert_int_equal(wire.accepted, 2);
        }
        wire_free(&wire);
    }
}

/* Where nobody listens a SYN opens nothing, and the record stays. */
static void a_syn_does_not_reopen_what_we_opened(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    wire_connect(&wire);
    wire_establish(&wire, &(struct wire_peer){.mss = 1460, .shift = -1});
    tcp_close(wire.conn, wire.now_us);
    wire_put(&wire, TCP_ACK | TCP_FIN, wire.sequence, wire.iss + 2, NULL, 0);
    wire_poll(&wire);
    wire_clear(&wire);
    wire_syn(&wire, wire.sequence + 1000);
    assert_int_equal(wire.segment_count, 1);
    assert_int_equal(wire_last(&wire)->flags, TCP_ACK);
    struct tcp_usage usage;
    tcp_stack_usage(wire.stack, &usage);
    assert_int_equal(usage.time_wait, 1);
    wire_free(&wire);
}

static void time_wait_of_a_listener_answers_and_expires(void **state) {
    struct wire wire;
    listen_open(&wire, NULL);
    wait_after_close(&wire);
    wire_put(&wire, TCP_ACK | TCP_FIN, wire.sequence - 1, wire.iss + 2, NULL, 0);
    assert_int_equal(wire.segment_count, 1);
    assert_int_equal(wire_last(&wire)->flags, TCP_ACK);
    assert_int_equal(wire_last(&wire)->acknowledgement, wire.sequence);
    wire_wait(&wire, 61 * 1000 * 1000);
    struct tcp_usage usage;
    tcp_stack_usage(wire.stack, &usage);
    assert_memory_equal(&usage, &(struct tcp_usage){0}, sizeof(usage));
    wire_free(&wire);
}

static struct tcp_packet last_unknown;
static bool unknown_answer;
static uint32_t unknown_calls;

static bool take_unknown(void *network, const struct tcp_packet *packet) {
    last_unknown = *packet;
    unknown_calls++;
    return unknown_answer;
}

static void what_belongs_to_another_worker_is_not_answered(void **state) {
    struct wire wire;
    listen_open(&wire, &(struct tcp_config){.unknown = take_unknown});
    unknown_answer = true;
    unknown_calls = 0;
    wire.local_port = 30000;
    wire_put(&wire, TCP_ACK, 5, 900, NULL, 0);
    assert_int_equal(unknown_calls, 1);
    assert_int_equal(wire.segment_count, 0);
    assert_memory_equal(last_unknown.remote.bytes, wire.remote.bytes, 16);
    unknown_answer = false;
    wire_put(&wire, TCP_ACK, 5, 900, NULL, 0);
    assert_int_equal(wire_last(&wire)->flags, TCP_RST);
    wire.local_port = 25;
    wire_syn(&wire, 0x1000);
    assert_int_equal(unknown_calls, 2); /* a listener's */
    wire_free(&wire);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_syn_is_answered_and_its_ack_accepts),
        cmocka_unit_test(the_server_may_speak_in_accepted_and_both_sides_close),
        cmocka_unit_test(listeners_are_found_by_address_then_by_any),
        cmocka_unit_test(what_is_no_syn_is_reset_and_other_ports_are_closed),
        cmocka_unit_test(a_refused_one_is_reset_without_a_word_above),
        cmocka_unit_test(a_syn_ack_is_repeated_and_given_up),
        cmocka_unit_test(a_repeated_syn_is_answered_again),
        cmocka_unit_test(reset_and_wrong_ack_in_syn_received),
        cmocka_unit_test(a_flood_of_syns_costs_only_handshakes),
        cmocka_unit_test(a_later_syn_reopens_time_wait_and_an_old_one_does_not),
        cmocka_unit_test(a_syn_does_not_reopen_what_we_opened),
        cmocka_unit_test(time_wait_of_a_listener_answers_and_expires),
        cmocka_unit_test(what_belongs_to_another_worker_is_not_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
