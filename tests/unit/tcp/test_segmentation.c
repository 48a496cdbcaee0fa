/* test_segmentation.c: several segments in one transmit where the device splits them (tcp_config.segmentation_bytes_max): never more than
 * the windows allow, each segment accounted for by itself, and only for bytes that go for the first time. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "wire.h"

enum { MSS = 1000 };

static void open_one(struct wire *wire, const struct tcp_config *changes) {
    wire_open(wire, changes);
    wire_connect(wire);
    wire_establish(wire, &(struct wire_peer){.mss = MSS, .shift = -1});
}

static const struct tcp_config splits = {.segmentation_bytes_max = 9000};

static void assert_segment(const struct wire_segment *segment, const struct wire *wire, uint32_t at, uint32_t length, uint8_t flags) {
    assert_int_equal(segment->sequence, wire->iss + 1 + at);
    assert_int_equal(segment->length, length);
    assert_int_equal(segment->flags, flags);
    assert_int_equal(segment->segment_bytes, MSS);
    assert_memory_equal(segment->payload, wire_pattern() + at, length);
}

/* As many whole segments as the device takes and cwnd allows (RFC 6928: ten), the last part only if it ends the queue. */
static void as_much_as_cwnd_and_the_device_take(void **state) {
    struct wire wire;
    open_one(&wire, &splits);
    assert_int_equal(wire_send(&wire, wire_pattern(), 30000), 0);
    assert_int_equal(wire.segment_count, 2);
    assert_segment(&wire.segments[0], &wire, 0, 9000, TCP_ACK);
    assert_segment(&wire.segments[1], &wire, 9000, 1000, TCP_ACK);
    assert_true(wire.segments[0].first_transmission);
    struct tcp_usage usage;
    tcp_stack_usage(wire.stack, &usage);
    assert_int_equal(usage.segments_in_flight, 10);
    assert_int_equal(tcp_stack_counters(wire.stack)->segments_out, 2 + 10); /* SYN and ACK too */
    wire_clear(&wire);
    wire_ack(&wire, wire.iss + 1 + 2000); /* slow start: two acknowledged, four may go */
    assert_int_equal(wire.segment_count, 1);
    assert_segment(&wire.segments[0], &wire, 10000, 4000, TCP_ACK);
    wire_free(&wire);
}

static void the_peers_window_bounds_it_and_whole_segments_go(void **state) {
    struct wire wire;
    open_one(&wire, &splits);
    wire.window = 4500;
    wire_ack(&wire, wire.iss + 1);
    assert_int_equal(wire_send(&wire, wire_pattern(), 30000), 0);
    assert_int_equal(wire.segment_count, 1);
    assert_segment(&wire.segments[0], &wire, 0, 4000, TCP_ACK);
    wire_free(&wire);
}

static void push_and_fin_are_on_the_last_one(void **state) {
    struct wire wire;
    open_one(&wire, &splits);
    struct tcp_piece piece = {.bytes = wire_pattern(), .length = 3500};
    tcp_send(wire.conn, &piece, 1, wire.now_us);
    tcp_close(wire.conn, wire.now_us);
    assert_int_equal(wire.segment_count, 1);
    assert_segment(&wire.segments[0], &wire, 0, 3500, TCP_ACK | TCP_PSH | TCP_FIN);
    wire_clear(&wire);
    wire_ack(&wire, wire.iss + 1 + 3000); /* the last part and the FIN are a segment of their own */
    wire_wait(&wire, 1000000);
    assert_int_equal(wire_last(&wire)->sequence, wire.iss + 1 + 3000);
    assert_int_equal(wire_last(&wire)->length, 500);
    assert_int_equal(wire_last(&wire)->flags & TCP_FIN, TCP_FIN);
    wire_ack(&wire, wire.iss + 1 + 3501);
    assert_int_equal(tcp_unacknowledged(wire.conn), 0);
    wire_free(&wire);
}

/* What is sent again goes a segment at a time: it is copied, and only what is missing goes. */
static void retransmissions_are_single_segments(void **state) {
    struct wire wire;
    open_one(&wire, &splits);
    wire_send(&wire, wire_pattern(), 5000);
    wire_clear(&wire);
    wire_wait(&wire, 1500000);
    assert_true(wire.segment_count > 0);
    for (uint32_t i = 0; i < wire.segment_count; i++) {
        assert_in_range(wire.segments[i].length, 1, MSS);
        assert_false(wire.segments[i].first_transmission);
    }
    wire_free(&wire);
}

/* Too many pieces for one segment: it is cut at whole segments, so that no small one goes amid the stream. */
static void many_pieces_cut_it_at_a_whole_segment(void **state) {
    struct wire wire;
    open_one(&wire, &splits);
    struct tcp_piece pieces[40];
    static uint8_t apart[40 * 200];
    for (uint32_t i = 0; i < 40; i++) {
        memcpy(apart + i * 200, wire_pattern() + i * 150, 150);
        pieces[i] = (struct tcp_piece){.bytes = apart + i * 200, .length = 150};
    }
    assert_int_equal(tcp_send(wire.conn, pieces, 40, wire.now_us), 0);
    tcp_output(wire.conn, wire.now_us);
    assert_int_equal(wire.segment_count, 3);
    assert_segment(&wire.segments[0], &wire, 0, 2000, TCP_ACK);
    assert_segment(&wire.segments[1], &wire, 2000, 2000, TCP_ACK);
    assert_segment(&wire.segments[2], &wire, 4000, 2000, TCP_ACK | TCP_PSH);
    wire_clear(&wire);
    wire_ack(&wire, wire.iss + 1 + 3100); /* records begin where their bytes lie */
    wire_wait(&wire, 1500000);
    assert_int_equal(wire.segments[0].sequence, wire.iss + 1 + 3100);
    assert_memory_equal(wire.segments[0].payload, wire_pattern() + 3100, wire.segments[0].length);
    wire_free(&wire);
}

static void a_full_device_changes_nothing(void **state) {
    struct wire wire;
    open_one(&wire, &splits);
    wire.transmit_result = -EAGAIN;
    wire_send(&wire, wire_pattern(), 5000);
    struct tcp_usage usage;
    tcp_stack_usage(wire.stack, &usage);
    assert_int_equal(usage.segments_in_flight, 0);
    assert_int_equal(tcp_unsent(wire.conn), 5000);
    wire.transmit_result = 0;
    wire_wait(&wire, 5000);
    assert_int_equal(wire.segment_count, 1);
    assert_segment(&wire.segments[0], &wire, 0, 5000, TCP_ACK | TCP_PSH);
    wire_free(&wire);
}

static void without_such_a_device_each_goes_alone(void **state) {
    struct wire wire;
    open_one(&wire, NULL);
    wire_send(&wire, wire_pattern(), 5000);
    assert_int_equal(wire.segment_count, 5);
    wire_free(&wire);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_much_as_cwnd_and_the_device_take),   cmocka_unit_test(the_peers_window_bounds_it_and_whole_segments_go),
        cmocka_unit_test(push_and_fin_are_on_the_last_one),      cmocka_unit_test(retransmissions_are_single_segments),
        cmocka_unit_test(many_pieces_cut_it_at_a_whole_segment), cmocka_unit_test(a_full_device_changes_nothing),
        cmocka_unit_test(without_such_a_device_each_goes_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
