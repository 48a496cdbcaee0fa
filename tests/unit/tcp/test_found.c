/* test_found.c: what the simulator found, told as rules; each names the seed's symptom in one line. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "wire.h"

enum { MSS = 1000, BUFFER = 2048 };

/* RFC 9293 3.8.6.1: a probe of a closed window is acknowledged although nothing of it can be kept; else the peer takes us for dead. */
static void probe_of_closed_window_is_answered(void **state) {
    struct wire wire;
    wire_open(&wire, &(struct tcp_config){.receive_buffer_bytes = BUFFER});
    wire_connect(&wire);
    wire_establish(&wire, &(struct wire_peer){.mss = MSS, .shift = -1});
    wire.take_limit = 0;
    wire_say(&wire, wire_pattern(), MSS);
    wire_say(&wire, wire_pattern() + MSS, MSS);
    wire_say(&wire, wire_pattern() + 2 * MSS, BUFFER - 2 * MSS);
    wire_wait(&wire, 1000000);
    assert_int_equal(wire_last(&wire)->window, 0);
    wire_clear(&wire);
    wire_put(&wire, TCP_ACK, wire.sequence, wire.acknowledgement, wire_pattern() + BUFFER, 1);
    wire_wait(&wire, 500000);
    assert_int_equal(wire.segment_count, 1);
    assert_int_equal(wire_last(&wire)->acknowledgement, wire.sequence);
    assert_int_equal(wire_last(&wire)->window, 0);
    wire_free(&wire);
}

/* Both FINs are through and the layer above still takes what it is owed: a reset from a peer that has forgotten the connection must not
 * turn an orderly end into lost bytes (RFC 1337). */
static void reset_in_time_wait_keeps_the_backlog(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    wire_connect(&wire);
    wire_establish(&wire, &(struct wire_peer){.mss = MSS, .shift = -1});
    tcp_close(wire.conn, wire.now_us);
    wire.acknowledgement = wire.iss + 2;
    wire.take_limit = 0;
    wire_put(&wire, TCP_ACK | TCP_FIN, wire.sequence, wire.acknowledgement, wire_pattern(), MSS);
    wire_poll(&wire);
    wire_put(&wire, TCP_RST, wire.sequence + MSS + 1, 0, NULL, 0);
    wire_poll(&wire);
    assert_int_equal(wire.closed, 0);
    wire.take_limit = UINT32_MAX;
    wire_clear(&wire);
    tcp_receive_resume(wire.conn, wire.now_us);
    wire_poll(&wire);
    assert_int_equal(wire.text_length, MSS);
    assert_int_equal(wire.closed, 1);
    assert_int_equal(wire.error, TCP_OK);
    wire_free(&wire);
}

/* The same where the peer ended first. */
static void reset_after_last_ack_keeps_the_backlog(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    wire_connect(&wire);
    wire_establish(&wire, &(struct wire_peer){.mss = MSS, .shift = -1});
    wire.take_limit = 0;
    wire_put(&wire, TCP_ACK | TCP_FIN, wire.sequence, wire.acknowledgement, wire_pattern(), MSS);
    tcp_close(wire.conn, wire.now_us);
    wire_put(&wire, TCP_ACK, wire.sequence + MSS + 1, wire.iss + 2, NULL, 0);
    wire_put(&wire, TCP_RST, wire.sequence + MSS + 1, 0, NULL, 0);
    wire_poll(&wire);
    assert_int_equal(wire.closed, 0);
    wire.take_limit = UINT32_MAX;
    tcp_receive_resume(wire.conn, wire.now_us);
    wire_poll(&wire);
    assert_int_equal(wire.text_length, MSS);
    assert_int_equal(wire.error, TCP_OK);
    wire_free(&wire);
}

/* RFC 9293 3.10.7.4 taken with sense: a peer that has filled our window acknowledges from its right edge; with a segment before it lost,
 * that ACK still counts, or data the other way would stand still. */
static void ack_from_the_windows_edge_counts(void **state) {
    struct wire wire;
    wire_open(&wire, &(struct tcp_config){.receive_buffer_bytes = BUFFER});
    wire_connect(&wire);
    wire_establish(&wire, &(struct wire_peer){.mss = MSS, .shift = -1});
    wire_send(&wire, wire_pattern(), MSS);
    wire_put(&wire, TCP_ACK, wire.sequence + BUFFER, wire.iss + 1 + MSS, NULL, 0);
    assert_int_equal(wire.acknowledged_bytes, MSS);
    wire_free(&wire);
}

/* The same from behind an octet that probed our closed window and was lost (3.8.6.1). */
static void ack_from_behind_a_probe_counts(void **state) {
    struct wire wire;
    wire_open(&wire, &(struct tcp_config){.receive_buffer_bytes = BUFFER});
    wire_connect(&wire);
    wire_establish(&wire, &(struct wire_peer){.mss = MSS, .shift = -1});
    wire_send(&wire, wire_pattern(), 2 * MSS);
    wire_put(&wire, TCP_ACK, wire.sequence + BUFFER + 1, wire.iss + 1 + MSS, NULL, 0);
    assert_int_equal(wire.acknowledged_bytes, MSS);
    wire_put(&wire, TCP_ACK, wire.sequence + BUFFER + 2, wire.iss + 1 + 2 * MSS, NULL, 0);
    assert_int_equal(wire.acknowledged_bytes, MSS);
    wire_free(&wire);
}

/* RFC 2883 section 4: a duplicate is of what came; text from before the connection's first number belongs to an earlier one by its name. */
static void text_of_an_earlier_connection_is_no_duplicate(void **state) {
    struct wire wire;
    uint32_t spans[4][2];
    wire_open(&wire, NULL);
    wire_connect(&wire);
    wire_establish(&wire, &(struct wire_peer){.mss = MSS, .shift = -1, .sack = true});
    wire_put(&wire, TCP_ACK, wire.sequence - 500, wire.iss + 1, wire_pattern(), 500);
    wire_poll(&wire);
    assert_int_equal(wire.segment_count, 1);
    assert_int_equal(wire_last(&wire)->acknowledgement, wire.sequence);
    assert_int_equal(wire_spans(wire_last(&wire), spans), 0);
    wire_free(&wire);
}

/* RFC 9293 3.10.7.4: each duplicate is answered at once, as far as a window can have caused them; a flood gets one ACK in the end. */
static void flood_of_old_text_is_answered_by_a_limit(void **state) {
    enum { FLOOD = 200, ANSWERS = 32 };
    struct wire wire;
    wire_open(&wire, NULL);
    wire_connect(&wire);
    wire_establish(&wire, &(struct wire_peer){.mss = MSS, .shift = -1, .sack = true});
    wire_say(&wire, wire_pattern(), MSS);
    wire_wait(&wire, 1000000);
    wire_clear(&wire);
    for (int i = 0; i < 10; i++) {
        wire_put(&wire, TCP_ACK, wire.sequence - MSS, wire.iss + 1, wire_pattern(), MSS);
    }
    wire_poll(&wire);
    assert_int_equal(wire.segment_count, 10);
    for (int i = 0; i < FLOOD; i++) {
        wire_put(&wire, TCP_ACK, wire.sequence - MSS, wire.iss + 1, wire_pattern(), MSS);
        wire_poll(&wire);
    }
    assert_int_equal(wire.segment_count, ANSWERS);
    wire_wait(&wire, 50000);
    assert_int_equal(wire.segment_count, ANSWERS + 1);
    wire_clear(&wire);
    wire_wait(&wire, 500000);
    wire_put(&wire, TCP_ACK, wire.sequence - MSS, wire.iss + 1, wire_pattern(), MSS);
    wire_poll(&wire);
    assert_int_equal(wire.segment_count, 1);
    wire_free(&wire);
}

/* Two sides whose numbers do not meet, a round trip of 150 ms apart: each takes the other's ACK for wrong and says so. It ends (RFC 5961
 * section 7), and the first segment that fits makes both as patient as before. */
static void two_sides_that_disagree_fall_silent(void **state) {
    struct wire wire;
    uint32_t answers = 0;
    wire_open(&wire, NULL);
    wire_connect(&wire);
    wire_establish(&wire, &(struct wire_peer){.mss = MSS, .shift = -1});
    bool said = true;
    for (int trips = 0; trips < 1000 && said; trips++) {
        wire_clear(&wire);
        wire_put(&wire, TCP_ACK, wire.sequence - 70000, wire.iss + 1, NULL, 0);
        said = wire.segment_count > 0;
        answers += said;
        wire_wait(&wire, 150000);
    }
    assert_in_range(answers, 1, 3);
    wire_say(&wire, wire_pattern(), MSS);
    wire_wait(&wire, 150000);
    wire_clear(&wire);
    wire_put(&wire, TCP_ACK, wire.sequence - 70000, wire.iss + 1, NULL, 0);
    assert_int_equal(wire.segment_count, 1);
    wire_free(&wire);
}

/* A refusal came and `closed` has not: what is unacknowledged is the queue, without the SYN. */
static void refused_connection_counts_its_queue(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    wire_connect(&wire);
    wire_put(&wire, TCP_RST | TCP_ACK, 0, wire.iss + 1, NULL, 0);
    assert_int_equal(wire.closed, 0);
    assert_int_equal(tcp_unacknowledged(wire.conn), 0);
    assert_int_equal(tcp_unsent(wire.conn), 0);
    wire_poll(&wire);
    assert_int_equal(wire.closed, 1);
    assert_int_equal(wire.error, TCP_REFUSED);
    wire_free(&wire);
}

/* The path takes less than it did and no record of a segment is left to split by: the head still goes out in parts (RFC 1191, 4821). */
static void smaller_path_with_an_empty_pool_goes_on(void **state) {
    struct wire wire;
    wire_open(&wire, &(struct tcp_config){.max_segments_in_flight = 3});
    wire_connect(&wire);
    wire_establish(&wire, &(struct wire_peer){.mss = 1460, .shift = -1});
    wire_send(&wire, wire_pattern(), 10 * 1460);
    uint32_t sent = wire.segment_count;
    assert_int_equal(sent, 3);
    wire_clear(&wire);
    tcp_input_error(wire.stack, &wire.local, wire.local_port, &wire.remote, wire.remote_port, wire.iss + 1, false, 1000, wire.now_us);
    wire_wait(&wire, 5000000);
    uint32_t at = wire.iss + 1;
    for (uint32_t i = 0; i < 200 && tcp_unacknowledged(wire.conn) > 0; i++) {
        for (uint32_t s = 0; s < wire.segment_count; s++) {
            assert_true(wire.segments[s].length <= 960);
            if (wire.segments[s].sequence <= at && wire.segments[s].sequence + wire.segments[s].length > at) {
                at = wire.segments[s].sequence + wire.segments[s].length;
            }
        }
        wire_clear(&wire);
        wire_ack(&wire, at);
        wire_wait(&wire, 2000000);
    }
    assert_int_equal(tcp_unacknowledged(wire.conn), 0);
    wire_free(&wire);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(probe_of_closed_window_is_answered),
        cmocka_unit_test(reset_in_time_wait_keeps_the_backlog),
        cmocka_unit_test(reset_after_last_ack_keeps_the_backlog),
        cmocka_unit_test(ack_from_the_windows_edge_counts),
        cmocka_unit_test(smaller_path_with_an_empty_pool_goes_on),
        cmocka_unit_test(ack_from_behind_a_probe_counts),
        cmocka_unit_test(text_of_an_earlier_connection_is_no_duplicate),
        cmocka_unit_test(flood_of_old_text_is_answered_by_a_limit),
        cmocka_unit_test(two_sides_that_disagree_fall_silent),
        cmocka_unit_test(refused_connection_counts_its_queue),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
