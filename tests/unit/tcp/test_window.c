/* test_window.c: windows and acknowledgements: RFC 9293 3.8.6 (probes, silly windows), RFC 5681 4.2 (delayed ACKs), reassembly. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "wire.h"

enum { MSS = 1000 };

static void open_with(struct wire *wire, const struct tcp_config *config) {
    wire_open(wire, config);
    wire_connect(wire);
    wire_establish(wire, &(struct wire_peer){.mss = MSS, .shift = -1});
}

/* RFC 9293 3.8.6.1: a closed window is asked about with an octet, with growing pauses, for as long as the peer answers. */
static void zero_window_is_probed(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    wire_send(&wire, wire_pattern(), MSS);
    wire.window = 0;
    wire_ack(&wire, wire.iss + 1 + MSS);
    wire_clear(&wire);
    wire_send(&wire, wire_pattern() + MSS, 3 * MSS);
    assert_int_equal(wire.segment_count, 0);
    uint32_t probes = 0;
    for (uint64_t s = 0; s < 400; s++) {
        wire_wait(&wire, 1000000);
        for (uint32_t i = 0; i < wire.segment_count; i++, probes++) {
            assert_int_equal(wire.segments[i].length, 1);
            assert_int_equal(wire.segments[i].sequence, wire.iss + 1 + MSS);
            wire_ack(&wire, wire.acknowledgement);
        }
        wire_clear(&wire);
    }
    assert_in_range(probes, 10, 20); /* 0.2 s doubling to 60 s */
    assert_int_equal(wire.closed, 0);
    assert_int_equal(tcp_stack_counters(wire.stack)->retransmits_fast, 0);
    wire.window = 65535;
    wire_ack(&wire, wire.acknowledgement); /* opens, and did not take the octet */
    assert_int_equal(wire_last(&wire)->sequence + wire_last(&wire)->length, wire.iss + 1 + 4 * MSS);
    assert_int_equal(tcp_unsent(wire.conn), 0);
    wire_free(&wire);
}

/* A peer that answers no probe is gone (RFC 9293 3.8.3). */
static void unanswered_probes_time_out(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    wire.window = 0;
    wire_ack(&wire, wire.iss + 1);
    wire_send(&wire, wire_pattern(), MSS);
    wire_wait(&wire, 200 * 1000 * 1000);
    assert_int_equal(wire.closed, 1);
    assert_int_equal(wire.error, TCP_TIMED_OUT);
    wire_free(&wire);
}

/* RFC 9293 3.8.6.2.1: no small segment because the window is a little open; what fits goes after the override timeout. */
static void sender_avoids_silly_windows(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    wire.window = 100; /* less than a segment and than half of the largest window seen */
    wire_ack(&wire, wire.iss + 1);
    wire_send(&wire, wire_pattern(), 3 * MSS);
    assert_int_equal(wire.segment_count, 0);
    wire_wait(&wire, 1100000);
    assert_in_range(wire.segment_count, 1, 3);
    assert_int_equal(wire.segments[0].length, 100);
    wire_free(&wire);
}

/* RFC 9293 3.8.6: never beyond the right edge. */
static void sender_stays_within_the_window(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    wire.window = 2500;
    wire_ack(&wire, wire.iss + 1);
    wire_send(&wire, wire_pattern(), 8 * MSS);
    assert_int_equal(wire.segment_count, 2); /* 500 bytes are less than half of what the peer offered before */
    wire_free(&wire);
}

/* RFC 5681 4.2: one small segment is acknowledged late, every second full one at once (at the next poll). */
static void acks_are_delayed(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    wire_say(&wire, "250 ok\r\n", 8);
    wire_wait(&wire, 38000);
    assert_int_equal(wire.segment_count, 0);
    wire_wait(&wire, 5000);
    assert_int_equal(wire.segment_count, 1);
    assert_int_equal(wire_last(&wire)->acknowledgement, wire.sequence);
    wire_say(&wire, wire_pattern(), 1460);
    wire_poll(&wire);
    assert_int_equal(wire.segment_count, 1);
    wire_say(&wire, wire_pattern(), 1460);
    assert_int_equal(wire.segment_count, 1); /* coalesced: not before the poll */
    wire_poll(&wire);
    assert_int_equal(wire.segment_count, 2);
    wire_say(&wire, wire_pattern(), 1460);
    wire_say(&wire, wire_pattern(), 1460);
    wire_say(&wire, wire_pattern(), 1460);
    wire_say(&wire, wire_pattern(), 1460);
    wire_poll(&wire);
    assert_int_equal(wire.segment_count, 3); /* one for the whole burst */
    assert_int_equal(wire_last(&wire)->acknowledgement, wire.sequence);
    wire_free(&wire);
}

static void answer(struct wire *wire) {
    wire_send(wire, "DATA\r\n", 6);
}

/* The answer that the layer above sends carries the acknowledgement: no other follows. */
static void ack_rides_on_the_answer(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    wire.on_received = answer;
    wire_say(&wire, wire_pattern(), 1460);
    wire_wait(&wire, 100000);
    assert_int_equal(wire.segment_count, 1);
    assert_int_equal(wire.segments[0].length, 6);
    assert_int_equal(wire.segments[0].acknowledgement, wire.sequence);
    wire_free(&wire);
}

/* RFC 5681 4.2 and RFC 9293 3.10.7.4: each segment out of order is answered at once; the gap's end brings all up in order. */
static void bytes_out_of_order_are_kept(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    const uint8_t *text = wire_pattern();
    uint32_t base = wire.sequence;
    static const uint32_t order[][2] = {{3000, 1000}, {1000, 1000}, {500, 1500}, {4500, 500}, {2500, 2200}};
    for (int i = 0; i < 5; i++) {
        wire_put(&wire, TCP_ACK, base + order[i][0], wire.acknowledgement, text + order[i][0], order[i][1]);
        assert_int_equal(wire.segment_count, i + 1);
        assert_int_equal(wire_last(&wire)->acknowledgement, base);
    }
    assert_int_equal(wire.text_length, 0);
    wire_put(&wire, TCP_ACK, base, wire.acknowledgement, text, 700);
    assert_int_equal(wire.text_length, 2000);
    wire_put(&wire, TCP_ACK, base + 1900, wire.acknowledgement, text + 1900, 700);
    assert_int_equal(wire.text_length, 5000);
    assert_memory_equal(wire.text, text, 5000);
    wire_poll(&wire);
    assert_int_equal(wire_last(&wire)->acknowledgement, base + 5000);
    struct tcp_usage usage;
    tcp_stack_usage(wire.stack, &usage);
    assert_int_equal(usage.receive_blocks, 0);
    wire_free(&wire);
}

/* What the layer above leaves closes the window; once it takes it, the window opens by a whole segment or not at all (3.8.6.2.2). */
static void backlog_closes_the_window(void **state) {
    struct wire wire;
    open_with(&wire, &(struct tcp_config){.receive_buffer_bytes = 4000});
    wire.take_limit = 0;
    uint32_t base = wire.sequence;
    for (int i = 0; i < 4; i++) {
        wire_say(&wire, wire_pattern() + i * 1000, 1000);
    }
    wire_poll(&wire);
    assert_int_equal(wire_last(&wire)->window, 0);
    assert_int_equal(wire_last(&wire)->acknowledgement, base + 4000);
    wire_put(&wire, TCP_ACK, wire.sequence, wire.acknowledgement, "beyond", 6);
    wire_poll(&wire);
    assert_int_equal(wire_last(&wire)->acknowledgement, base + 4000);
    wire_clear(&wire);
    wire.take_limit = 100;
    tcp_receive_resume(wire.conn, wire.now_us);
    wire_poll(&wire);
    assert_int_equal(wire.segment_count, 0); /* 100 bytes are no reason to say anything */
    wire.take_limit = UINT32_MAX;
    tcp_receive_resume(wire.conn, wire.now_us);
    wire_poll(&wire);
    assert_int_equal(wire.segment_count, 1);
    assert_int_equal(wire_last(&wire)->window, 4000);
    assert_int_equal(wire.text_length, 4000);
    assert_memory_equal(wire.text, wire_pattern(), 4000);
    wire_free(&wire);
}

/* An empty pool of blocks costs retransmission, never bytes. */
static void no_blocks_no_acknowledgement(void **state) {
    struct wire wire;
    open_with(&wire, &(struct tcp_config){.max_receive_blocks = 1});
    uint32_t base = wire.sequence; /* the text is more than a block holds */
    wire.take_limit = 10;
    wire_put(&wire, TCP_ACK, base, wire.acknowledgement, wire_pattern(), 5000);
    wire_poll(&wire);
    assert_int_equal(wire_last(&wire)->acknowledgement, base + 10);
    wire.take_limit = UINT32_MAX;
    wire_put(&wire, TCP_ACK, base, wire.acknowledgement, wire_pattern(), 5000);
    assert_int_equal(wire.text_length, 5000);
    assert_memory_equal(wire.text, wire_pattern(), 5000);
    wire_free(&wire);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zero_window_is_probed),
        cmocka_unit_test(unanswered_probes_time_out),
        cmocka_unit_test(sender_avoids_silly_windows),
        cmocka_unit_test(sender_stays_within_the_window),
        cmocka_unit_test(acks_are_delayed),
        cmocka_unit_test(ack_rides_on_the_answer),
        cmocka_unit_test(bytes_out_of_order_are_kept),
        cmocka_unit_test(backlog_closes_the_window),
        cmocka_unit_test(no_blocks_no_acknowledgement),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
