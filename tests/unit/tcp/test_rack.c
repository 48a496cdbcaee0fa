/* test_rack.c: loss found by time and tail loss probes (RFC 8985). */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "wire.h"

enum { MSS = 1000, RTT_US = 50000, TICK_US = 3000 /* timers are that exact */ };

static void open_with(struct wire *wire, bool sack) {
    wire_open(wire, NULL);
    wire_connect(wire);
    wire->now_us += RTT_US;
    wire_establish(wire, &(struct wire_peer){.mss = MSS, .shift = -1, .sack = sack});
}

static void sack_one(struct wire *wire, uint32_t acknowledged, uint32_t left, uint32_t right) {
    wire_sack(wire, acknowledged * MSS, (const uint32_t[][2]){{left * MSS, right * MSS}}, 1);
}

static uint64_t fast(const struct wire *wire) {
    return tcp_stack_counters(wire->stack)->retransmits_fast;
}

/* Section 6.2 step 4: with DupThresh segments sacked and no reordering ever seen there is nothing to wait for. */
static void three_sacked_segments_show_a_loss_at_once(void **state) {
    struct wire wire;
    open_with(&wire, true);
    wire_send(&wire, wire_pattern(), 10 * MSS);
    wire.now_us += RTT_US;
    sack_one(&wire, 0, 1, 3);
    assert_int_equal(fast(&wire), 0);
    sack_one(&wire, 0, 1, 4);
    assert_int_equal(fast(&wire), 1);
    assert_int_equal(wire_last(&wire)->sequence, wire.iss + 1);
    wire_free(&wire);
}

/* Section 6.2 steps 4 and 5: one sacked segment may be reordering: a quarter of the smallest round trip is waited. */
static void one_sacked_segment_shows_it_after_the_reordering_window(void **state) {
    struct wire wire;
    open_with(&wire, true);
    wire_send(&wire, wire_pattern(), 2 * MSS);
    wire.now_us += RTT_US;
    sack_one(&wire, 0, 1, 2);
    wire_wait(&wire, RTT_US / 4 - TICK_US);
    assert_int_equal(fast(&wire), 0);
    wire_wait(&wire, 2 * TICK_US);
    assert_int_equal(fast(&wire), 1);
    assert_int_equal(wire_last(&wire)->sequence, wire.iss + 1);
    wire_free(&wire);
}

/* Section 3.3: a retransmission that is lost is found when what left after it arrives. */
static void lost_retransmission_is_sent_again(void **state) {
    struct wire wire;
    open_with(&wire, true);
    wire_send(&wire, wire_pattern(), 40 * MSS);
    wire.now_us += RTT_US;
    sack_one(&wire, 0, 1, 10);
    assert_int_equal(fast(&wire), 1);
    wire.now_us += 1000;
    sack_one(&wire, 0, 1, 10);
    uint32_t sent = 40 - tcp_unsent(wire.conn) / MSS;
    assert_true(sent > 10); /* recovery lets new segments go behind the retransmission */
    wire.now_us += RTT_US;
    sack_one(&wire, 0, 1, sent);
    wire_wait(&wire, RTT_US / 4 + TICK_US);
    assert_int_equal(fast(&wire), 2);
    assert_int_equal(tcp_stack_counters(wire.stack)->retransmits_timeout, 0);
    wire_free(&wire);
}

/* Section 5.2: all that leaves in one pass has one time. The retransmission was the last to leave: the arrival of higher numbers from that
 * pass does not show that it is lost. */
static void retransmission_is_later_than_what_left_before_it_in_the_same_pass(void **state) {
    struct wire wire;
    open_with(&wire, true);
    wire_send(&wire, wire_pattern(), 40 * MSS);
    wire.now_us += RTT_US;
    sack_one(&wire, 0, 1, 3);
    uint32_t sent = 40 - tcp_unsent(wire.conn) / MSS;
    assert_true(sent > 10);
    sack_one(&wire, 0, 1, 4);
    assert_int_equal(fast(&wire), 1);
    wire.now_us += RTT_US;
    sack_one(&wire, 0, 1, sent);
    assert_int_equal(fast(&wire), 1);
    wire_free(&wire);
}

/* Section 6.2 steps 3 and 4: once the path was seen to reorder, three sacked segments no longer prove a loss. */
static void seen_reordering_is_waited_for(void **state) {
    struct wire wire;
    open_with(&wire, true);
    wire_send(&wire, wire_pattern(), 10 * MSS);
    wire.now_us += RTT_US;
    sack_one(&wire, 0, 1, 3);
    wire_ack(&wire, wire.iss + 1 + 3 * MSS); /* the first one was only late */
    sack_one(&wire, 3, 4, 9);
    assert_int_equal(fast(&wire), 0);
    wire_wait(&wire, RTT_US / 4 + TICK_US);
    assert_int_equal(fast(&wire), 1);
    wire_free(&wire);
}

/* Section 6.2 step 4: a D-SACK says that the window was too small: it grows by a quarter. */
static void duplicates_widen_the_window(void **state) {
    struct wire wire;
    open_with(&wire, true);
    wire_send(&wire, wire_pattern(), 10 * MSS);
    wire.now_us += RTT_US;
    sack_one(&wire, 0, 1, 4);
    assert_int_equal(fast(&wire), 1);
    sack_one(&wire, 10, 0, 1); /* everything is there, and the first twice */
    assert_int_equal(tcp_stack_counters(wire.stack)->spurious_recoveries, 1);
    wire_send(&wire, wire_pattern(), 10 * MSS);
    wire.now_us += RTT_US;
    sack_one(&wire, 10, 11, 16);
    wire_wait(&wire, RTT_US / 4 + TICK_US);
    assert_int_equal(fast(&wire), 1);
    wire_wait(&wire, RTT_US / 4 + TICK_US);
    assert_int_equal(fast(&wire), 2);
    wire_free(&wire);
}

/* Section 7.2 and 7.3: the last segment goes again after two round trips; the timeout only after that. */
static void tail_is_probed_after_two_round_trips(void **state) {
    struct wire wire;
    open_with(&wire, true);
    wire_send(&wire, wire_pattern(), 4 * MSS);
    wire_clear(&wire);
    wire_wait(&wire, 2 * RTT_US - TICK_US);
    assert_int_equal(wire.segment_count, 0);
    wire_wait(&wire, 3 * TICK_US);
    assert_int_equal(wire.segment_count, 1);
    assert_int_equal(wire_last(&wire)->sequence, wire.iss + 1 + 3 * MSS);
    assert_false(wire_last(&wire)->first_transmission);
    assert_int_equal(tcp_stack_counters(wire.stack)->tail_probes, 1);
    wire_wait(&wire, 200000);
    assert_int_equal(wire.segment_count, 1); /* one probe, and the timeout counts from it */
    wire_wait(&wire, 60000);
    assert_int_equal(wire.segment_count, 2);
    assert_int_equal(wire_last(&wire)->sequence, wire.iss + 1);
    assert_int_equal(tcp_stack_counters(wire.stack)->retransmits_timeout, 1);
    wire_free(&wire);
}

/* Section 7.3: what was never sent is the better probe, one segment beyond the congestion window. */
static void new_bytes_are_the_better_probe(void **state) {
    struct wire wire;
    open_with(&wire, true);
    wire_send(&wire, wire_pattern(), 20 * MSS);
    assert_int_equal(wire.segment_count, 10);
    wire_wait(&wire, 2 * RTT_US + 2 * TICK_US);
    assert_int_equal(wire.segment_count, 11);
    assert_int_equal(wire_last(&wire)->sequence, wire.iss + 1 + 10 * MSS);
    assert_true(wire_last(&wire)->first_transmission);
    wire_free(&wire);
}

/* Section 7.2: a single segment's ACK may be delayed; the probe does not come before the timeout would. */
static void single_segment_waits_for_a_delayed_ack(void **state) {
    struct wire wire;
    open_with(&wire, true);
    wire_send(&wire, wire_pattern(), MSS);
    wire_wait(&wire, RTT_US + 200000 - TICK_US);
    assert_int_equal(wire.segment_count, 1);
    wire_wait(&wire, 3 * TICK_US);
    assert_int_equal(wire.segment_count, 2);
    assert_int_equal(tcp_stack_counters(wire.stack)->tail_probes, 1);
    wire_free(&wire);
}

/* The segments that a window sends at once after four were acknowledged by way of a probe. */
static uint32_t window_after_probe(bool duplicate) {
    struct wire wire;
    open_with(&wire, true);
    wire_send(&wire, wire_pattern(), 4 * MSS);
    wire_wait(&wire, 2 * RTT_US + 2 * TICK_US);
    assert_int_equal(tcp_stack_counters(wire.stack)->tail_probes, 1);
    wire_ack(&wire, wire.iss + 1 + 4 * MSS);
    if (duplicate) {
        sack_one(&wire, 4, 3, 4);
    }
    wire_send(&wire, wire_pattern(), MSS);
    wire_ack(&wire, wire.iss + 1 + 5 * MSS);
    wire_clear(&wire);
    wire_send(&wire, wire_pattern(), 60 * MSS);
    uint32_t sent = wire.segment_count;
    wire_free(&wire);
    return sent;
}

/* Section 7.4: a probe that mended a loss is no excuse for it; one that came twice is. */
static void mended_tail_loss_reduces_the_window(void **state) {
    assert_int_equal(window_after_probe(true), 10);
    assert_int_equal(window_after_probe(false), 7);
}

/* Section 7.1: without SACK no probe. */
static void no_probe_without_sack(void **state) {
    struct wire wire;
    open_with(&wire, false);
    wire_send(&wire, wire_pattern(), 4 * MSS);
    wire_wait(&wire, 3 * RTT_US);
    assert_int_equal(wire.segment_count, 4);
    wire_wait(&wire, 3 * RTT_US);
    assert_int_equal(tcp_stack_counters(wire.stack)->tail_probes, 0);
    assert_int_equal(tcp_stack_counters(wire.stack)->retransmits_timeout, 1);
    wire_free(&wire);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_sacked_segments_show_a_loss_at_once),
        cmocka_unit_test(one_sacked_segment_shows_it_after_the_reordering_window),
        cmocka_unit_test(lost_retransmission_is_sent_again),
        cmocka_unit_test(retransmission_is_later_than_what_left_before_it_in_the_same_pass),
        cmocka_unit_test(seen_reordering_is_waited_for),
        cmocka_unit_test(duplicates_widen_the_window),
        cmocka_unit_test(tail_is_probed_after_two_round_trips),
        cmocka_unit_test(new_bytes_are_the_better_probe),
        cmocka_unit_test(single_segment_waits_for_a_delayed_ack),
        cmocka_unit_test(mended_tail_loss_reduces_the_window),
        cmocka_unit_test(no_probe_without_sack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
