/* test_handshake.c: opening a connection: RFC 9293 3.5 and 3.10.7.3, options (RFC 7323), refusal, retransmission of the SYN (RFC 6298). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "wire.h"

static void syn_carries_mss_sack_permitted_timestamps_and_window_scale(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    wire_connect(&wire);
    const struct wire_segment *syn = wire_last(&wire);
    assert_int_equal(syn->options_length, 20);
    assert_memory_equal(syn->options, "\x02\x04\x05\xb4", 4);     /* MSS 1460 = MTU 1500 - 40 */
    assert_memory_equal(syn->options + 4, "\x04\x02\x08\x0a", 4); /* SACK-permitted pads the timestamps, as with Linux */
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

/* What is asked for is what there is, and it does not depend on what is in use. */
static void pools_are_as_large_as_asked_for(void **state) {
    struct wire wire;
    wire_open(&wire,
              &(struct tcp_config){
                  .max_connections = 7, .max_ranges = 70, .max_segments_in_flight = 90, .max_time_wait = 5, .max_receive_blocks = 40});
    struct tcp_usage before, after;
    tcp_stack_capacity(wire.stack, &before);
    assert_int_equal(before.connections, 7);
    assert_int_equal(before.ranges, 70);
    assert_int_equal(before.segments_in_flight, 90);
    assert_int_equal(before.time_wait, 5);
    assert_int_equal(before.receive_blocks, 40);
    assert_true(before.pairs > 0 && before.port_blocks > 0);
    wire_connect(&wire);
    tcp_stack_capacity(wire.stack, &after);
    assert_memory_equal(&before, &after, sizeof before);
    wire_free(&wire);
}

/* RFC 9293 3.10.7.3: an acceptable RST in SYN-SENT is "connection refused". */
static void reset_in_answer_to_the_syn_is_refusal(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    wire_connect(&wire);
    wire_put(&wire, TCP_RST | TCP_ACK, 0, wire.iss, NULL, 0); /* acknowledges nothing that we sent */
    wire_put(&wire, TCP_RST, 0, 0, NULL, 0);                  /* acknowledges nothing at all */
    wire_poll(&wire);
    assert_int_equal(wire.closed, 0);
    wire_put(&wire, TCP_RST | TCP_ACK, 0, wire.iss + 1, NULL, 0);
    assert_int_equal(wire.closed, 0); /* `closed` comes from tcp_poll */
    wire_poll(&wire);
    assert_int_equal(wire.closed, 1);
    assert_int_equal(wire.error, TCP_REFUSED);
    assert_int_equal(tcp_stack_connections(wire.stack), 0);
    wire_free(&wire);
}

/* RFC 9293 3.10.7.3: an ACK of something never sent is answered by <SEQ=SEG.ACK><CTL=RST>. */
static void wrong_ack_in_syn_sent_is_reset(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    wire_connect(&wire);
    wire_clear(&wire);
    wire_put(&wire, TCP_SYN | TCP_ACK, 500, wire.iss + 77, NULL, 0);
    assert_int_equal(wire.segment_count, 1);
    assert_int_equal(wire_last(&wire)->flags, TCP_RST);
    assert_int_equal(wire_last(&wire)->sequence, wire.iss + 77);
    assert_int_equal(wire.connected, 0);
    wire_free(&wire);
}

/* RFC 6298 2.1 and 5.5: after 1 s, then twice as long each time; the caller's limit ends it. */
static void syn_is_repeated_with_backoff_until_the_timeout(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    wire_connect(&wire);
    static const uint32_t seconds[] = {1, 3, 7, 15};
    uint64_t start = wire.now_us;
    for (uint32_t i = 0; i < 4; i++) {
        wire_wait(&wire, start + seconds[i] * 1000000 - 5000 - wire.now_us);
        assert_int_equal(wire.segment_count, i + 1);
        wire_wait(&wire, 10000);
        assert_int_equal(wire.segment_count, i + 2);
        assert_int_equal(wire_last(&wire)->flags, TCP_SYN);
        assert_int_equal(wire_last(&wire)->sequence, wire.iss);
    }
    wire_wait(&wire, start + 30000000 - 5000 - wire.now_us);
    assert_int_equal(wire.closed, 0);
    wire_wait(&wire, 10000);
    assert_int_equal(wire.closed, 1);
    assert_int_equal(wire.error, TCP_TIMED_OUT);
    wire_free(&wire);
}

/* RFC 6928: ten segments in the first window; RFC 6928 section 2: one after the SYN was lost more than once. */
static void initial_window_is_ten_segments(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    wire_connect(&wire);
    wire_establish(&wire, &(struct wire_peer){.mss = 1460, .shift = -1});
    assert_int_equal(wire_send(&wire, wire_pattern(), 50000), 0);
    assert_int_equal(wire.segment_count, 10);
    wire_free(&wire);
    wire_open(&wire, NULL);
    wire_connect(&wire);
    wire_wait(&wire, 3500000);
    wire_establish(&wire, &(struct wire_peer){.mss = 1460, .shift = -1});
    assert_int_equal(wire_send(&wire, wire_pattern(), 50000), 0);
    assert_int_equal(wire.segment_count, 1);
    wire_free(&wire);
}

/* RFC 7323 2.3: the shift counts only if both sides sent it, and never in a SYN. */
static void window_is_scaled_when_both_sides_offer(void **state) {
    struct wire wire;
    wire_open(&wire, &(struct tcp_config){.receive_buffer_bytes = 1 << 20});
    wire_connect(&wire);
    assert_memory_equal(wire_last(&wire)->options + 16, "\x01\x03\x03\x05", 4); /* 2^20 >> 5 fits 16 bits */
    assert_int_equal(wire_last(&wire)->window, 65535);
    wire.window = 1000;
    wire_establish(&wire, &(struct wire_peer){.mss = 1000, .shift = 2});
    wire_send(&wire, wire_pattern(), 50000);
    assert_int_equal(wire.segment_count, 1); /* the SYN-ACK's 1,000 bytes, unscaled */
    wire_clear(&wire);
    wire_ack(&wire, wire.iss + 1001);
    assert_int_equal(wire.segment_count, 4); /* 1,000 << 2 */
    assert_true(wire_last(&wire)->window > 1000);
    wire_free(&wire);
}

/* RFC 7323 3.2 and RFC 6691: agreed timestamps ride on every segment and come off the payload; the peer's is echoed. */
static void timestamps_are_echoed_and_come_off_the_mss(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    wire_connect(&wire);
    wire.ts_value = 0x01020304;
    wire_establish(&wire, &(struct wire_peer){.mss = 1460, .timestamps = true, .shift = -1});
    wire_send(&wire, wire_pattern(), 5000);
    assert_int_equal(wire.segments[0].length, 1448);
    assert_int_equal(wire.segments[0].options_length, 12);
    assert_memory_equal(wire.segments[0].options, "\x01\x01\x08\x0a", 4);
    assert_memory_equal(wire.segments[0].options + 8, "\x01\x02\x03\x04", 4);
    wire_free(&wire);
}

/* RFC 7323 5.3 R1: a segment with an older timestamp is an old duplicate. */
static void older_timestamp_is_dropped(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    wire_connect(&wire);
    wire.ts_value = 1000;
    wire_establish(&wire, &(struct wire_peer){.mss = 1460, .timestamps = true, .shift = -1});
    wire.ts_value = 1010;
    wire_say(&wire, "220 ", 4);
    wire.ts_value = 1005;
    wire_put(&wire, TCP_ACK, wire.sequence, wire.acknowledgement, "old", 3);
    assert_int_equal(wire.text_length, 4);
    wire.ts_value = 1011;
    wire_say(&wire, "mx\r\n", 4);
    assert_int_equal(wire.text_length, 8);
    wire_free(&wire);
}

/* RFC 9293 3.7.1: without the option, 536; never below what the stack can use (88). */
static void missing_or_tiny_mss(void **state) {
    static const uint16_t announced[] = {0, 1, 5000}, used[] = {536, 88, 1460};
    for (int i = 0; i < 3; i++) {
        struct wire wire;
        wire_open(&wire, NULL);
        wire_connect(&wire);
        wire_establish(&wire, &(struct wire_peer){.mss = announced[i], .shift = -1});
        wire_send(&wire, wire_pattern(), 3000);
        assert_int_equal(wire.segments[0].length, used[i]);
        wire_free(&wire);
    }
}

/* RFC 9293 3.5, figure 8: both sides open at once. */
static void simultaneous_open(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    wire_connect(&wire);
    wire_clear(&wire);
    wire_put(&wire, TCP_SYN, 0x70000000, 0, NULL, 0);
    assert_int_equal(wire_last(&wire)->flags, TCP_SYN | TCP_ACK);
    assert_int_equal(wire_last(&wire)->sequence, wire.iss);
    assert_int_equal(wire_last(&wire)->acknowledgement, 0x70000001);
    assert_int_equal(wire.connected, 0);
    wire_put(&wire, TCP_SYN | TCP_ACK, 0x70000000, wire.iss + 1, NULL, 0); /* the peer's answer to our SYN */
    wire_poll(&wire);
    wire_put(&wire, TCP_ACK, 0x70000001, wire.iss + 1, NULL, 0);
    assert_int_equal(wire.connected, 1);
    wire_free(&wire);
}

/* RFC 5927 section 4.1 and RFC 9293 3.9.2.2: ICMP counts only for what is in flight; hard errors end an attempt, not a connection. */
static void icmp_errors(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    wire_connect(&wire);
    tcp_input_error(wire.stack, &wire.local, wire.local_port, &wire.remote, 25, wire.iss + 5, true, 0, wire.now_us);
    tcp_input_error(wire.stack, &wire.local, wire.local_port, &wire.remote, 25, wire.iss, false, 0, wire.now_us);
    wire_poll(&wire);
    assert_int_equal(wire.closed, 0);
    tcp_input_error(wire.stack, &wire.local, wire.local_port, &wire.remote, 25, wire.iss, true, 0, wire.now_us);
    wire_poll(&wire);
    assert_int_equal(wire.closed, 1);
    assert_int_equal(wire.error, TCP_UNREACHABLE);
    wire_free(&wire);
    wire_open(&wire, NULL);
    wire_connect(&wire);
    wire_establish(&wire, &(struct wire_peer){.mss = 1460, .shift = -1});
    wire_send(&wire, "x", 1);
    tcp_input_error(wire.stack, &wire.local, wire.local_port, &wire.remote, 25, wire.iss + 1, true, 0, wire.now_us);
    wire_poll(&wire);
    assert_int_equal(wire.closed, 0);
    wire_free(&wire);
}

/* tcp.h: no route or neighbour ends the attempt, but never from inside tcp_connect (wire.c asserts that). */
static void no_route_ends_the_attempt(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    wire.transmit_result = -EHOSTUNREACH;
    wire.in_call = true;
    assert_int_equal(tcp_connect(wire.stack, &wire.local, &wire.remote, 25, 1000000, &wire, &wire.conn, wire.now_us), 0);
    wire.in_call = false;
    wire_poll(&wire);
    assert_int_equal(wire.closed, 1);
    assert_int_equal(wire.error, TCP_UNREACHABLE);
    wire_free(&wire);
}

/* RFC 6528: the same four-tuple later starts higher, by the clock of 4 us; another four-tuple starts elsewhere. */
static void initial_sequence_numbers(void **state) {
    uint32_t numbers[3];
    for (int i = 0; i < 3; i++) {
        struct wire wire;
        wire_open(&wire, &(struct tcp_config){.port_first = 3000, .port_last = 3000});
        wire.now_us += i == 1 ? 4000 : 0;
        wire.remote_port = i == 2 ? 26 : 25;
        wire_connect(&wire);
        numbers[i] = wire.iss;
        wire_free(&wire);
    }
    assert_int_equal(numbers[1] - numbers[0], 1000);
    assert_true(numbers[2] - numbers[0] > 100000 && numbers[0] - numbers[2] > 100000);
}

/* An IPv6 connection: the MSS leaves room for its header, and the answer finds it by all 16 bytes. */
static void ipv6_addresses_pass_through(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    wire.local = (struct tcp_address){.bytes = {0x20, 1, 0xd, 0xb8, [15] = 1}, .family = 6};
    wire.remote = (struct tcp_address){.bytes = {0x20, 1, 0xd, 0xb8, [15] = 2}, .family = 6};
    wire_connect(&wire);
    assert_memory_equal(wire_last(&wire)->options, "\x02\x04\x05\xa0", 4); /* 1440 */
    assert_memory_equal(&wire_last(&wire)->remote, &wire.remote, sizeof(wire.remote));
    wire.remote.bytes[15] = 3;
    wire_put(&wire, TCP_SYN | TCP_ACK, 1, wire.iss + 1, NULL, 0); /* from somebody else */
    assert_int_equal(wire.connected, 0);
    wire.remote.bytes[15] = 2;
    wire_establish(&wire, &(struct wire_peer){.mss = 1440, .shift = -1});
    wire_free(&wire);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pools_are_as_large_as_asked_for),
        cmocka_unit_test(syn_carries_mss_sack_permitted_timestamps_and_window_scale),
        cmocka_unit_test(syn_ack_establishes_and_is_acknowledged_once),
        cmocka_unit_test(bytes_go_and_come_and_both_sides_close),
        cmocka_unit_test(reset_in_answer_to_the_syn_is_refusal),
        cmocka_unit_test(wrong_ack_in_syn_sent_is_reset),
        cmocka_unit_test(syn_is_repeated_with_backoff_until_the_timeout),
        cmocka_unit_test(initial_window_is_ten_segments),
        cmocka_unit_test(window_is_scaled_when_both_sides_offer),
        cmocka_unit_test(timestamps_are_echoed_and_come_off_the_mss),
        cmocka_unit_test(older_timestamp_is_dropped),
        cmocka_unit_test(missing_or_tiny_mss),
        cmocka_unit_test(simultaneous_open),
        cmocka_unit_test(icmp_errors),
        cmocka_unit_test(no_route_ends_the_attempt),
        cmocka_unit_test(initial_sequence_numbers),
        cmocka_unit_test(ipv6_addresses_pass_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
