/* test_loss.c: what was lost comes again: RFC 6298 (timeout), RFC 5681 and RFC 6582 (fast retransmit and recovery), RFC 3042. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "wire.h"

enum { MSS = 1000 };

static void open_with(struct wire *wire, const struct tcp_config *config) {
    wire_open(wire, config);
    wire_connect(wire);
    wire->now_us += 50000; /* the round trip */
    wire_establish(wire, &(struct wire_peer){.mss = MSS, .shift = -1});
}

/* RFC 6298 2.2, 5.4 to 5.6: the earliest segment again, the timer doubled each time; srtt 50 ms gives 50 + 200 ms. */
static void timeout_doubles(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    wire_send(&wire, wire_pattern(), 2 * MSS);
    assert_int_equal(wire.segment_count, 2);
    for (uint64_t rto = 250000; rto < 16000000; rto *= 2) {
        wire_clear(&wire);
        wire_wait(&wire, rto - 4000);
        assert_int_equal(wire.segment_count, 0);
        for (int ms = 0; ms < 7 && wire.segment_count == 0; ms++) {
            wire_wait(&wire, 1000);
        }
        assert_int_equal(wire.segment_count, 1);
        assert_int_equal(wire_last(&wire)->sequence, wire.iss + 1);
        assert_false(wire_last(&wire)->first_transmission);
        assert_memory_equal(wire_last(&wire)->payload, wire_pattern(), MSS);
    }
    wire_free(&wire);
}

/* RFC 9293 3.8.3: 100 s without an acknowledgement ends the connection. */
static void silence_times_out(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    wire_send(&wire, wire_pattern(), MSS);
    wire_wait(&wire, 100 * 1000 * 1000);
    assert_int_equal(wire.closed, 0);
    wire_wait(&wire, 61 * 1000 * 1000);
    assert_int_equal(wire.closed, 1);
    assert_int_equal(wire.error, TCP_TIMED_OUT);
    wire_free(&wire);
}

/* RFC 6298 section 3 (Karn): an ACK of a segment sent twice is no sample. */
static void repeated_segment_gives_no_sample(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    wire_send(&wire, wire_pattern(), MSS);
    wire_wait(&wire, 300000);
    wire_ack(&wire, wire.iss + 1 + MSS);
    assert_int_equal(tcp_rtt_us(wire.conn), 50000);
    wire_send(&wire, wire_pattern(), MSS);
    wire_wait(&wire, 58000);
    wire_ack(&wire, wire.iss + 1 + 2 * MSS);
    assert_int_equal(tcp_rtt_us(wire.conn), 51000); /* 7/8 of 50 and 1/8 of 58 */
    wire_free(&wire);
}

/* How long the next segment waits for its first repetition, in steps of 1 ms. */
static uint64_t time_of_repetition(struct wire *wire) {
    uint64_t begin_us = wire->now_us;
    wire_send(wire, wire_pattern(), MSS);
    wire_clear(wire);
    while (wire->segment_count == 0 && wire->now_us - begin_us < 60 * 1000 * 1000) {
        wire_wait(wire, 1000);
    }
    return wire->now_us - begin_us;
}

/* RFC 6298 section 5, last paragraph: what collapses the backed-off timeout is a new measurement, not an acknowledgement of new data. */
static void backoff_lasts_until_a_clean_sample(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    wire_send(&wire, wire_pattern(), MSS);
    wire_wait(&wire, 900000); /* repeated after 250 and 750 ms */
    wire_ack(&wire, wire.iss + 1 + MSS);
    assert_in_range(time_of_repetition(&wire), 1000000, 1005000);
    wire_ack(&wire, wire.iss + 1 + 2 * MSS);
    wire_send(&wire, wire_pattern(), MSS);
    wire_wait(&wire, 50000);
    wire_ack(&wire, wire.iss + 1 + 3 * MSS);
    assert_in_range(time_of_repetition(&wire), 245000, 255000);
    wire_free(&wire);
}

static uint32_t ts_value_of(const struct wire_segment *segment) {
    assert_int_equal(segment->options_length, 12);
    return (uint32_t)segment->options[4] << 24 | (uint32_t)segment->options[5] << 16 | (uint32_t)segment->options[6] << 8 |
           segment->options[7];
}

/* RFC 7323 section 4: the echo tells which copy arrived, so an ACK of a repeated segment is a measurement; one that cannot be is none. */
static void echo_makes_a_sample_of_a_repeated_segment(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    wire_connect(&wire);
    wire.ts_value = 77;
    wire.now_us += 50000;
    wire_establish(&wire, &(struct wire_peer){.mss = MSS, .shift = -1, .timestamps = true});
    wire_send(&wire, wire_pattern(), MSS - 12);
    wire_wait(&wire, 800000);                            /* repeated after 250 and 750 ms: the second copy left 50 ms ago */
    wire.ts_echo = ts_value_of(wire_last(&wire)) + 5000; /* of the future */
    wire_ack(&wire, wire.iss + 1 + 100);
    assert_int_equal(tcp_rtt_us(wire.conn), 50000);
    wire.ts_echo = ts_value_of(wire_last(&wire));
    wire_ack(&wire, wire.iss + 1 + MSS - 12);
    assert_in_range(tcp_rtt_us(wire.conn), 49000, 51000);
    assert_in_range(time_of_repetition(&wire), 240000, 260000);
    wire_free(&wire);
}

/* RFC 5681 3.2: not at the second, at the third duplicate; RFC 3042: the first two each let a new segment out. */
static void third_duplicate_repeats_the_segment(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    wire_send(&wire, wire_pattern(), 40 * MSS);
    assert_int_equal(wire.segment_count, 10);
    wire_clear(&wire);
    wire_ack(&wire, wire.iss + 1);
    wire_ack(&wire, wire.iss + 1);
    assert_int_equal(wire.segment_count, 2);
    assert_int_equal(wire.segments[0].sequence, wire.iss + 1 + 10 * MSS);
    assert_int_equal(wire.segments[1].sequence, wire.iss + 1 + 11 * MSS);
    wire_clear(&wire);
    wire_ack(&wire, wire.iss + 1);
    assert_int_equal(wire.segment_count, 1);
    assert_int_equal(wire.segments[0].sequence, wire.iss + 1);
    assert_false(wire.segments[0].first_transmission);
    assert_int_equal(tcp_stack_counters(wire.stack)->retransmits_fast, 1);
    wire_ack(&wire, wire.iss + 1); /* a fourth does not repeat it again */
    assert_int_equal(tcp_stack_counters(wire.stack)->retransmits_fast, 1);
    wire_free(&wire);
}

/* RFC 5681 section 2: an ACK with data, or with another window, is no duplicate. */
static void not_every_equal_ack_is_a_duplicate(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    wire_send(&wire, wire_pattern(), 10 * MSS);
    wire_clear(&wire);
    for (int i = 0; i < 5; i++) {
        wire.window -= 10;
        wire_ack(&wire, wire.iss + 1);
        wire_say(&wire, "250 ok\r\n", 8);
    }
    assert_int_equal(tcp_stack_counters(wire.stack)->retransmits_fast, 0);
    wire_free(&wire);
}

/* RFC 6582 3.2 step 3: each partial ACK repeats the next hole at once; the full one ends recovery at ssthresh. */
static void partial_ack_repeats_the_next_hole(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    wire_send(&wire, wire_pattern(), 10 * MSS);
    for (int i = 0; i < 3; i++) {
        wire_ack(&wire, wire.iss + 1);
    }
    wire_clear(&wire);
    wire_ack(&wire, wire.iss + 1 + 4 * MSS);
    assert_int_equal(wire.segment_count, 1);
    assert_int_equal(wire.segments[0].sequence, wire.iss + 1 + 4 * MSS);
    assert_int_equal(tcp_stack_counters(wire.stack)->retransmits_fast, 2);
    wire_ack(&wire, wire.iss + 1 + 10 * MSS);
    wire_clear(&wire);
    wire_send(&wire, wire_pattern(), 40 * MSS);
    /* ssthresh is 5 segments; of an empty pipe at most two at once (RFC 6582 3.2 step 3, full, option 1). */
    assert_int_equal(wire.segment_count, 2);
    wire_free(&wire);
}

/* RFC 5681 3.1: after a timeout the window is one segment, and slow start sends the rest again. */
static void timeout_falls_back_to_slow_start(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    wire_send(&wire, wire_pattern(), 10 * MSS);
    wire_clear(&wire);
    wire_wait(&wire, 260000);
    assert_int_equal(wire.segment_count, 1);
    wire_clear(&wire);
    wire_ack(&wire, wire.iss + 1 + MSS);
    assert_int_equal(wire.segment_count, 2);
    assert_int_equal(wire.segments[0].sequence, wire.iss + 1 + MSS);
    assert_int_equal(wire.segments[1].sequence, wire.iss + 1 + 2 * MSS);
    assert_false(wire.segments[1].first_transmission);
    wire_free(&wire);
}

/* RFC 5681 3.1: exponential below ssthresh (two segments an ACK at most, RFC 3465), then one segment a window. */
static void slow_start_doubles_the_window(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    wire_send(&wire, wire_pattern(), 100 * MSS);
    assert_int_equal(wire.segment_count, 10);
    wire_clear(&wire);
    for (uint32_t i = 1; i <= 10; i++) {
        wire_ack(&wire, wire.iss + 1 + i * MSS);
    }
    assert_int_equal(wire.segment_count, 20);
    wire_free(&wire);
}

/* RFC 5681 4.1: after a pause longer than the timeout the window is the initial one. */
static void idle_restarts_at_the_initial_window(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    wire_send(&wire, wire_pattern(), 30 * MSS);
    for (uint32_t i = 1; i <= 30; i++) {
        wire_ack(&wire, wire.iss + 1 + i * MSS);
    }
    wire_wait(&wire, 5000000);
    wire_clear(&wire);
    wire_send(&wire, wire_pattern(), 60 * MSS);
    assert_int_equal(wire.segment_count, 10);
    wire_free(&wire);
}

/* RFC 9293 3.4: sequence numbers wrap. The clock is set so that ours do within the first window, and again with a loss. */
static void sequence_numbers_wrap(void **state) {
    struct wire wire;
    wire_open(&wire, &(struct tcp_config){.port_first = 3000, .port_last = 3000});
    wire_connect(&wire);
    uint32_t missing = (uint32_t)-2500 - wire.iss;
    uint64_t now_us = wire.now_us + 4ULL * missing;
    wire_free(&wire);
    wire_open(&wire, &(struct tcp_config){.port_first = 3000, .port_last = 3000});
    wire.now_us = now_us;
    wire_connect(&wire);
    assert_int_equal(wire.iss, (uint32_t)-2500);
    wire_establish(&wire, &(struct wire_peer){.mss = MSS, .shift = -1});
    wire_send(&wire, wire_pattern(), 10 * MSS);
    assert_int_equal(wire.segment_count, 10);
    wire_ack(&wire, wire.iss + 1 + 2 * MSS);
    for (int i = 0; i < 3; i++) {
        wire_ack(&wire, wire.iss + 1 + 2 * MSS);
    }
    assert_int_equal(wire_last(&wire)->sequence, wire.iss + 1 + 2 * MSS); /* the segment that spans the wrap */
    assert_memory_equal(wire_last(&wire)->payload, wire_pattern() + 2 * MSS, MSS);
    wire_ack(&wire, wire.iss + 1 + 10 * MSS);
    assert_int_equal(wire.acknowledged_bytes, 10 * MSS);
    assert_int_equal(tcp_unacknowledged(wire.conn), 0);
    wire_free(&wire);
}

/* tcp.h: -EAGAIN loses nothing, and is no loss: no backoff, no smaller window, still a first transmission. */
static void full_device_is_no_loss(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    wire.transmit_result = -EAGAIN;
    wire_send(&wire, wire_pattern(), 10 * MSS);
    wire_wait(&wire, 2000000);
    assert_int_equal(wire.segment_count, 0);
    wire.transmit_result = 0;
    wire_wait(&wire, 5000);
    assert_int_equal(wire.segment_count, 10);
    for (int i = 0; i < 10; i++) {
        assert_true(wire.segments[i].first_transmission);
    }
    assert_int_equal(tcp_stack_counters(wire.stack)->retransmits_timeout, 0);
    wire_free(&wire);
}

/* The same for a SYN and for a bare ACK. */
static void full_device_delays_syn_and_ack(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    wire.transmit_result = -EAGAIN;
    assert_int_equal(tcp_connect(wire.stack, &wire.local, &wire.remote, 25, 9000000, &wire, &wire.conn, wire.now_us), 0);
    wire.transmit_result = 0;
    wire_wait(&wire, 5000);
    assert_int_equal(wire.segment_count, 1);
    wire.iss = wire_last(&wire)->sequence;
    wire.local_port = wire_last(&wire)->local_port;
    wire.acknowledgement = wire.iss + 1;
    wire_establish(&wire, &(struct wire_peer){.mss = MSS, .shift = -1});
    wire.transmit_result = -EAGAIN;
    wire_say(&wire, wire_pattern(), 1460);
    wire_say(&wire, wire_pattern(), 1460);
    wire_poll(&wire);
    wire.transmit_result = 0;
    wire_wait(&wire, 5000);
    assert_int_equal(wire.segment_count, 1);
    assert_int_equal(wire_last(&wire)->acknowledgement, wire.sequence);
    wire_free(&wire);
}

/* The pool of records in flight bounds what is out; the rest follows as they come back. */
static void empty_flight_pool_only_delays(void **state) {
    struct wire wire;
    open_with(&wire, &(struct tcp_config){.max_segments_in_flight = 5});
    wire_send(&wire, wire_pattern(), 10 * MSS);
    assert_int_equal(wire.segment_count, 4); /* a quarter is kept for others */
    wire_ack(&wire, wire.iss + 1 + 4 * MSS);
    assert_int_equal(wire.segment_count, 8);
    wire_ack(&wire, wire.iss + 1 + 8 * MSS);
    assert_int_equal(wire.segment_count, 10);
    wire_free(&wire);
}

/* Peers that announce tiny segments and acknowledge nothing take three quarters of the pools; another connection still speaks. */
static void greedy_peers_leave_a_reserve(void **state) {
    enum { GREEDY = 4 };
    struct wire wire;
    wire_open(&wire, &(struct tcp_config){.max_segments_in_flight = 16, .max_ranges = 16});
    for (uint32_t i = 0; i < GREEDY; i++) {
        wire.connected = 0;
        wire_connect(&wire);
        wire_establish(&wire, &(struct wire_peer){.mss = 88, .shift = -1});
        for (uint32_t k = 0; k < 20; k++) {
            wire_send(&wire, wire_pattern(), 88);
        }
    }
    struct tcp_usage usage;
    tcp_stack_usage(wire.stack, &usage);
    assert_in_range(usage.segments_in_flight, 12, 12 + GREEDY);
    assert_in_range(usage.ranges, 12, 12 + GREEDY);
    wire.connected = 0;
    wire_connect(&wire);
    wire_establish(&wire, &(struct wire_peer){.mss = MSS, .shift = -1});
    assert_int_equal(wire_send(&wire, "MAIL\r\n", 6), 0);
    assert_int_equal(wire.segment_count, 1);
    assert_int_equal(wire_last(&wire)->length, 6);
    wire_free(&wire);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timeout_doubles),
        cmocka_unit_test(silence_times_out),
        cmocka_unit_test(repeated_segment_gives_no_sample),
        cmocka_unit_test(backoff_lasts_until_a_clean_sample),
        cmocka_unit_test(echo_makes_a_sample_of_a_repeated_segment),
        cmocka_unit_test(third_duplicate_repeats_the_segment),
        cmocka_unit_test(not_every_equal_ack_is_a_duplicate),
        cmocka_unit_test(partial_ack_repeats_the_next_hole),
        cmocka_unit_test(timeout_falls_back_to_slow_start),
        cmocka_unit_test(slow_start_doubles_the_window),
        cmocka_unit_test(idle_restarts_at_the_initial_window),
        cmocka_unit_test(sequence_numbers_wrap),
        cmocka_unit_test(full_device_is_no_loss),
        cmocka_unit_test(full_device_delays_syn_and_ack),
        cmocka_unit_test(empty_flight_pool_only_delays),
        cmocka_unit_test(greedy_peers_leave_a_reserve),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
