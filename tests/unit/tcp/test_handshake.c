/* test_handshake.c: opening a connection: RFC 9293 3.5 and 3.10.7.3, options (RFC 7323), refusal, retransmission of the SYN (RFC 6298). */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "wire.h"

static void syn_carries_mss_timestamps_and_window_scale(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    wire_connect(&wire);
    const struct wire_segment *syn = wire_last(&wire);
    assert_int_equal(syn->options_length, 20);
    assert_memory_equal(syn->options, "\x02\x04\x05\xb4", 4); /* MSS 1460 = MTU 1500 - 40 */
    assert_memory_equal(syn->options + 4, "\x01\x01\x08\x0a", 4);
    assert_memory_equal(syn->options + 16, "\x01\x03\x03\x00", 4);
    assert_int_equal(syn->window, 16384);
    assert_in_range(syn->local_port, 20000, 20999);
    wire_free(&wire);
}

static void syn_ack_establishes_and_is_acknowledged_once(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    wire_connect(&wire);
    wire_clear(&wire);
    wire.now_us += 30000;
    wire_put(&wire, TCP_SYN | TCP_ACK, 0x70000000, wire.iss + 1, NULL, 0);
    assert_int_equal(wire.connected, 1);
    wire_poll(&wire);
    wire_poll(&wire);
    assert_int_equal(wire.segment_count, 1);
    assert_int_equal(wire_last(&wire)->flags, TCP_ACK);
    assert_int_equal(wire_last(&wire)->sequence, wire.iss + 1);
    assert_int_equal(wire_last(&wire)->acknowledgement, 0x70000001);
    assert_int_equal(wire_last(&wire)->options_length, 0); /* the peer offered none */
    assert_int_equal(tcp_rtt_us(wire.conn), 30000);
    wire_free(&wire);
}

static void bytes_go_and_come_and_both_sides_close(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    wire_connect(&wire);
    wire_establish(&wire, &(struct wire_peer){.mss = 1460, .shift = -1});
    wire_say(&wire, "220 mx\r\n", 8);
    assert_int_equal(wire.text_length, 8);
    assert_int_equal(wire_send(&wire, "QUIT\r\n", 6), 0);
    assert_int_equal(wire.segment_count, 1); /* the ACK rides on the data */
    assert_int_equal(wire_last(&wire)->acknowledgement, wire.sequence);
    assert_int_equal(wire_last(&wire)->flags, TCP_ACK | TCP_PSH);
    wire_ack(&wire, wire.iss + 7);
    assert_int_equal(wire.acknowledged_bytes, 6);
    tcp_close(wire.conn, wire.now_us);
    assert_int_equal(wire_last(&wire)->flags, TCP_ACK | TCP_FIN);
    wire_ack(&wire, wire.iss + 8);
    wire_put(&wire, TCP_FIN | TCP_ACK, wire.sequence, wire.acknowledgement, NULL, 0);
    assert_int_equal(wire.peer_closed, 1);
    wire_poll(&wire);
    assert_int_equal(wire.closed, 1);
    assert_int_equal(wire.error, TCP_OK);
    assert_int_equal(wire_last(&wire)->acknowledgement, wire.sequence + 1);
    struct tcp_usage usage;
    tcp_stack_usage(wire.stack, &usage);
    assert_int_equal(usage.time_wait, 1);
    wire_wait(&wire, 61 * 1000 * 1000);
    tcp_stack_usage(wire.stack, &usage);
    assert_memory_equal(&usage, &(struct tcp_usage){0}, sizeof(usage));
    wire_free(&wire);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(syn_carries_mss_timestamps_and_window_scale),
        cmocka_unit_test(syn_ack_establishes_and_is_acknowledged_once),
        cmocka_unit_test(bytes_go_and_come_and_both_sides_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
