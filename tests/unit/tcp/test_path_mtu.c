/* test_path_mtu.c: the path's MTU: routers' words (RFC 1191, 8201) and who may say them (RFC 5927), black holes (RFC 4821), and what the
 * next connection knows. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "wire.h"

enum { MINUTE_US = 60 * 1000 * 1000 };

static void open_with_mss(struct wire *wire, uint16_t mss) {
    wire->connected = 0;
    wire_connect(wire);
    wire_establish(wire, &(struct wire_peer){.mss = mss, .shift = -1});
}

static void say_mtu(struct wire *wire, uint32_t sequence, uint16_t mtu) {
    tcp_input_error(wire->stack, &wire->local, wire->local_port, &wire->remote, wire->remote_port, sequence, true, mtu, wire->now_us);
}

/* What was sent since the last clear is the pattern from `from` on, `bytes` of it, in segments of at most `most`. */
static void assert_pieces(const struct wire *wire, uint32_t from, uint32_t bytes, uint32_t most) {
    uint32_t at = from;
    for (uint32_t i = 0; i < wire->segment_count; i++) {
        const struct wire_segment *segment = &wire->segments[i];
        assert_in_range(segment->length, 1, most);
        assert_int_equal(segment->sequence, wire->iss + 1 + at);
        assert_memory_equal(segment->payload, wire_pattern() + at, segment->length);
        at += segment->length;
    }
    assert_int_equal(at - from, bytes);
}

/* RFC 1191 6.4, RFC 8201 5.4: at once, smaller, and cwnd does not shrink. */
static void a_router_says_too_big_and_all_goes_again_in_smaller_pieces(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    open_with_mss(&wire, 1460);
    assert_int_equal(wire_send(&wire, wire_pattern(), 14600), 0);
    assert_int_equal(wire.segment_count, 10);
    wire_clear(&wire);
    say_mtu(&wire, wire.iss + 1 + 2920, 1300);
    assert_pieces(&wire, 0, 14600, 1260);
    for (uint32_t i = 0; i < wire.segment_count; i++) {
        assert_false(wire.segments[i].first_transmission);
        assert_false(wire.segments[i].may_fragment);
    }
    assert_int_equal(tcp_stack_counters(wire.stack)->path_mtu_lowered, 1);
    assert_int_equal(tcp_stack_counters(wire.stack)->retransmits_timeout, 0);
    wire_ack(&wire, wire.iss + 1 + 14600);
    assert_int_equal(wire.acknowledged_bytes, 14600);
    wire_clear(&wire);
    assert_int_equal(wire_send(&wire, wire_pattern() + 14600, 20000), 0);
    assert_true(wire.segment_count >= 11); /* more than the initial window: it grew, and was never cut */
    for (uint32_t i = 0; i < wire.segment_count; i++) {
        assert_in_range(wire.segments[i].length, 1, 1260);
    }
    wire_free(&wire);
}

static void segments_that_fit_are_not_sent_again(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    open_with_mss(&wire, 1460);
    wire_send(&wire, wire_pattern(), 100);
    wire_send(&wire, wire_pattern() + 100, 1460);
    wire_clear(&wire);
    say_mtu(&wire, wire.iss + 101, 1000);
    assert_pieces(&wire, 100, 1460, 960);
    wire_free(&wire);
}

/* RFC 5927 section 4.1 and 7.2: outside of what is in flight, or about a segment that was not too large. */
static void words_of_strangers_change_nothing(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    open_with_mss(&wire, 1460);
    say_mtu(&wire, wire.iss + 1, 600); /* nothing is in flight */
    wire_send(&wire, wire_pattern(), 500);
    wire_send(&wire, wire_pattern() + 500, 1460);
    wire_clear(&wire);
    say_mtu(&wire, wire.iss, 600);
    say_mtu(&wire, wire.iss + 1 + 1960, 600);
    say_mtu(&wire, wire.iss + 1, 600);    /* 540 bytes */
    say_mtu(&wire, wire.iss + 501, 1500); /* 1500 bytes */
    say_mtu(&wire, wire.iss + 501, 9000);
    assert_int_equal(wire.segment_count, 0);
    assert_int_equal(tcp_stack_counters(wire.stack)->path_mtu_lowered, 0);
    say_mtu(&wire, wire.iss + 501, 1499);
    assert_int_equal(wire.segment_count, 2);
    wire_clear(&wire);
    say_mtu(&wire, wire.iss + 501, 1499); /* the other one of the same flight: known already */
    assert_int_equal(wire.segment_count, 0);
    wire_free(&wire);
}

/* RFC 1191 section 7.1 */
static void an_old_router_names_no_size(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    open_with_mss(&wire, 1460);
    wire_send(&wire, wire_pattern(), 1460);
    static const uint32_t sizes[] = {1452, 966, 536}, too_large[] = {1460, 1452, 966};
    for (uint32_t i = 0; i < 3; i++) {
        wire_clear(&wire);
        say_mtu(&wire, wire.iss + 1, 1);
        assert_pieces(&wire, 0, too_large[i], sizes[i]);
        assert_int_equal(wire.segments[0].length, sizes[i]);
        assert_false(wire.segments[0].may_fragment);
    }
    wire_free(&wire);
}

/* RFC 1191 section 3: below 576 a host may let routers fragment; RFC 8200: an IPv6 link of less than 1280 is none. */
static void below_the_floor(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    open_with_mss(&wire, 1460);
    wire_send(&wire, wire_pattern(), 1460);
    wire_clear(&wire);
    say_mtu(&wire, wire.iss + 1, 300);
    assert_pieces(&wire, 0, 1460, 536);
    assert_int_equal(wire.segments[0].length, 536);
    assert_true(wire.segments[0].may_fragment);
    wire_clear(&wire);
    say_mtu(&wire, wire.iss + 1, 300);
    assert_int_equal(wire.segment_count, 0);
    wire_free(&wire);

    wire_open(&wire, NULL);
    wire.local = (struct tcp_address){.bytes = {0x20, 1, 0xd, 0xb8, [15] = 1}, .family = 6};
    wire.remote = (struct tcp_address){.bytes = {0x20, 1, 0xd, 0xb8, [15] = 2}, .family = 6};
    open_with_mss(&wire, 1440);
    wire_send(&wire, wire_pattern(), 1440);
    assert_int_equal(wire.segment_count, 1);
    wire_clear(&wire);
    say_mtu(&wire, wire.iss + 1, 1279);
    say_mtu(&wire, wire.iss + 1, 1);
    assert_int_equal(wire.segment_count, 0);
    say_mtu(&wire, wire.iss + 1, 1280);
    assert_pieces(&wire, 0, 1440, 1220);
    wire_free(&wire);
}

/* RFC 8201 section 4: after ten minutes larger ones are tried again. */
static void what_was_learned_ages(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    open_with_mss(&wire, 1460);
    wire_send(&wire, wire_pattern(), 1460);
    say_mtu(&wire, wire.iss + 1, 1000);
    wire_ack(&wire, wire.iss + 1461);
    wire_wait(&wire, 9 * (uint64_t)MINUTE_US);
    wire_clear(&wire);
    wire_send(&wire, wire_pattern() + 1460, 1460);
    assert_int_equal(wire.segment_count, 2);
    wire_ack(&wire, wire.iss + 2921);
    wire_wait(&wire, MINUTE_US);
    wire_clear(&wire);
    wire_send(&wire, wire_pattern() + 2920, 1460);
    assert_int_equal(wire.segment_count, 1);
    wire_free(&wire);
}

/* The same in the middle of a recovery, which then ends with a window of two of the larger segments at least (RFC 5681 equation 4): with
 * less than one nothing more would leave. */
static void larger_segments_fit_the_window_after_a_recovery(void **state) {
    struct wire wire;
    wire_open(&wire, &(struct tcp_config){.mtu = 9000});
    open_with_mss(&wire, 8960);
    wire_send(&wire, wire_pattern(), 8960);
    say_mtu(&wire, wire.iss + 1, 600);
    wire_ack(&wire, wire.iss + 8961);
    wire_wait(&wire, 10 * (uint64_t)MINUTE_US - 20000);
    wire_send(&wire, wire_pattern() + 8960, 5600);
    for (int i = 0; i < 3; i++) {
        wire_ack(&wire, wire.iss + 8961);
    }
    assert_int_equal(tcp_stack_counters(wire.stack)->retransmits_fast, 1);
    wire_say(&wire, "x", 1); /* the delayed ACK looks at the connection in 40 ms */
    wire_wait(&wire, 60000);
    wire_ack(&wire, wire.iss + 14561);
    wire_clear(&wire);
    wire_send(&wire, wire_pattern() + 14560, 2 * 8960);
    assert_in_range(wire.segment_count, 1, 2);
    assert_int_equal(wire.segments[0].length, 8960);
    wire_free(&wire);
}

static void the_next_connection_to_that_host_begins_with_it(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    open_with_mss(&wire, 1460);
    wire_send(&wire, wire_pattern(), 1460);
    say_mtu(&wire, wire.iss + 1, 1000);
    open_with_mss(&wire, 1460);
    wire_send(&wire, wire_pattern(), 1460);
    assert_pieces(&wire, 0, 1460, 960);
    assert_int_equal(tcp_stack_counters(wire.stack)->path_mtu_lowered, 1);
    wire.remote.bytes[3]++; /* another host */
    open_with_mss(&wire, 1460);
    wire_send(&wire, wire_pattern(), 1460);
    assert_int_equal(wire.segment_count, 1);
    wire.remote.bytes[3]--;
    wire_wait(&wire, 10 * (uint64_t)MINUTE_US);
    open_with_mss(&wire, 1460);
    wire_send(&wire, wire_pattern(), 1460);
    assert_int_equal(wire.segment_count, 1);
    wire_free(&wire);
}

/* RFC 4821 section 7.7: small segments pass, large ones vanish without a word. */
static void a_black_hole_is_found_by_timeouts_and_remembered(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    open_with_mss(&wire, 1460);
    wire_send(&wire, wire_pattern(), 200);
    wire_ack(&wire, wire.iss + 201);
    wire_clear(&wire);
    wire_send(&wire, wire_pattern() + 200, 2920);
    uint64_t until = wire.now_us + 10 * 1000 * 1000;
    while (wire_last(&wire)->length == 1460 && wire.now_us < until) {
        wire_wait(&wire, 10000);
    }
    assert_int_equal(wire_last(&wire)->length, 1240);
    assert_int_equal(wire_last(&wire)->sequence, wire.iss + 201);
    assert_in_range(tcp_stack_counters(wire.stack)->retransmits_timeout, 2, 3);
    assert_int_equal(tcp_stack_counters(wire.stack)->black_holes, 0); /* nothing has come back yet */
    wire_ack(&wire, wire.iss + 201 + 1240);
    assert_int_equal(tcp_stack_counters(wire.stack)->black_holes, 1);
    assert_int_equal(tcp_stack_counters(wire.stack)->path_mtu_lowered, 1);
    wire_wait(&wire, 1000000);
    wire_ack(&wire, wire.iss + 201 + 2920);
    assert_int_equal(tcp_unacknowledged(wire.conn), 0);
    open_with_mss(&wire, 1460);
    wire_send(&wire, wire_pattern(), 2920);
    assert_pieces(&wire, 0, 2920, 1240);
    wire_free(&wire);
}

/* Segments between the plateaus too: one that the first plateau would let be goes to the next. */
static void a_black_hole_for_segments_below_the_first_plateau(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    open_with_mss(&wire, 1460);
    wire_send(&wire, wire_pattern(), 1000);
    uint64_t until = wire.now_us + 10 * 1000 * 1000;
    while (wire_last(&wire)->length == 1000 && wire.now_us < until) {
        wire_wait(&wire, 10000);
    }
    assert_int_equal(wire_last(&wire)->length, 576 - 40);
    wire_free(&wire);
}

static void a_black_hole_of_a_narrow_path_is_left_by_fragments(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    open_with_mss(&wire, 1460);
    wire_send(&wire, wire_pattern(), 1460);
    uint64_t until = wire.now_us + 60 * 1000 * 1000;
    while (wire_last(&wire)->length > 536 && wire.now_us < until) {
        wire_wait(&wire, 10000);
    }
    assert_int_equal(wire_last(&wire)->length, 536);
    assert_true(wire_last(&wire)->may_fragment);
    wire_free(&wire);
}

/* Segments of a size that has passed are lost by a dead path rather than by a narrow one. */
static void a_dead_path_is_no_black_hole_at_once(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    open_with_mss(&wire, 1460);
    wire_send(&wire, wire_pattern(), 1460);
    wire_ack(&wire, wire.iss + 1461);
    wire_clear(&wire);
    wire_send(&wire, wire_pattern() + 1460, 1460);
    uint64_t until = wire.now_us + 10 * 1000 * 1000;
    while (tcp_stack_counters(wire.stack)->retransmits_timeout < 3 && wire.now_us < until) {
        wire_wait(&wire, 10000);
    }
    assert_int_equal(wire_last(&wire)->length, 1460);
    assert_int_equal(tcp_stack_counters(wire.stack)->path_mtu_lowered, 0);
    wire_free(&wire);
    wire_open(&wire, NULL); /* and small segments have no smaller ones */
    open_with_mss(&wire, 1460);
    wire_send(&wire, wire_pattern(), 400);
    wire_wait(&wire, 60 * 1000 * 1000);
    assert_int_equal(tcp_stack_counters(wire.stack)->path_mtu_lowered, 0);
    wire_free(&wire);
}

/* No record is left to split a segment with: nothing too large goes out, and it goes on when one is free. */
static void splitting_waits_for_a_record(void **state) {
    struct wire wire;
    wire_open(&wire, &(struct tcp_config){.max_segments_in_flight = 4});
    open_with_mss(&wire, 1460);
    wire_send(&wire, wire_pattern(), 5 * 1460);
    uint32_t sent = wire.segment_count;
    assert_in_range(sent, 2, 4);
    wire_clear(&wire);
    say_mtu(&wire, wire.iss + 1, 700);
    wire_wait(&wire, 20000);
    assert_true(wire.segment_count > 0);
    for (uint32_t acked = 0, i = 0; acked < 5 * 1460 && i < 200; i++) {
        for (uint32_t s = 0; s < wire.segment_count; s++) {
            assert_in_range(wire.segments[s].length, 1, 660);
            if (wire.segments[s].sequence - wire.iss - 1 == acked) {
                acked += wire.segments[s].length;
            }
        }
        wire_clear(&wire);
        wire_ack(&wire, wire.iss + 1 + acked);
        wire_wait(&wire, 20000);
    }
    assert_int_equal(wire.acknowledged_bytes, 5 * 1460);
    wire_free(&wire);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_router_says_too_big_and_all_goes_again_in_smaller_pieces),
        cmocka_unit_test(segments_that_fit_are_not_sent_again),
        cmocka_unit_test(words_of_strangers_change_nothing),
        cmocka_unit_test(an_old_router_names_no_size),
        cmocka_unit_test(below_the_floor),
        cmocka_unit_test(what_was_learned_ages),
        cmocka_unit_test(larger_segments_fit_the_window_after_a_recovery),
        cmocka_unit_test(the_next_connection_to_that_host_begins_with_it),
        cmocka_unit_test(a_black_hole_is_found_by_timeouts_and_remembered),
        cmocka_unit_test(a_black_hole_for_segments_below_the_first_plateau),
        cmocka_unit_test(a_black_hole_of_a_narrow_path_is_left_by_fragments),
        cmocka_unit_test(a_dead_path_is_no_black_hole_at_once),
        cmocka_unit_test(splitting_waits_for_a_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
