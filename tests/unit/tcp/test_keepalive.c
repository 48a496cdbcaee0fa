/* test_keepalive.c: silence and patience: keepalive (RFC 9293 3.8.4), user timeout (3.8.3), zero windows and windows taken back (3.8.6). */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "wire.h"

enum { SECOND_US = 1000 * 1000 };

static void open_one(struct wire *wire, const struct tcp_config *changes) {
    wire_open(wire, changes);
    wire_connect(wire);
    wire_establish(wire, &(struct wire_peer){.mss = 1460, .shift = -1});
}

static void a_silent_connection_is_probed_and_an_answer_keeps_it(void **state) {
    struct wire wire;
    open_one(&wire, &(struct tcp_config){.keepalive_us = 10 * SECOND_US});
    wire_wait(&wire, 9900 * 1000);
    assert_int_equal(wire.segment_count, 0);
    for (uint32_t i = 0; i < 20; i++) {
        wire_wait(&wire, 400 * 1000);
        assert_int_equal(wire.segment_count, 1);
        assert_int_equal(wire_last(&wire)->flags, TCP_ACK);
        assert_int_equal(wire_last(&wire)->sequence, wire.iss); /* one before what comes next: it must be answered */
        assert_int_equal(wire_last(&wire)->length, 0);
        wire_clear(&wire);
        wire_ack(&wire, wire.iss + 1);
        wire_wait(&wire, 9800 * 1000);
        assert_int_equal(wire.segment_count, 0);
    }
    assert_int_equal(wire.closed, 0);
    assert_int_equal(tcp_stack_counters(wire.stack)->keepalives, 20);
    wire_free(&wire);
}

static void five_unanswered_probes_end_it(void **state) {
    struct wire wire;
    open_one(&wire, &(struct tcp_config){.keepalive_us = 10 * SECOND_US});
    wire_wait(&wire, 59 * SECOND_US);
    assert_int_equal(wire.segment_count, 5);
    assert_int_equal(wire.closed, 0);
    wire_wait(&wire, 2 * SECOND_US);
    assert_int_equal(wire.closed, 1);
    assert_int_equal(wire.error, TCP_TIMED_OUT);
    wire_free(&wire);
}

static void what_comes_in_postpones_the_probe_and_none_is_sent_by_default(void **state) {
    struct wire wire;
    open_one(&wire, &(struct tcp_config){.keepalive_us = 10 * SECOND_US});
    wire_wait(&wire, 8 * SECOND_US);
    wire_say(&wire, "220\r\n", 5);
    wire_wait(&wire, 9 * SECOND_US);
    assert_int_equal(tcp_stack_counters(wire.stack)->keepalives, 0);
    wire_wait(&wire, 2 * SECOND_US);
    assert_int_equal(tcp_stack_counters(wire.stack)->keepalives, 1);
    wire_free(&wire);
    open_one(&wire, NULL);
    wire_wait(&wire, 100000ULL * SECOND_US);
    assert_int_equal(wire.segment_count, 0);
    assert_int_equal(wire.closed, 0);
    wire_free(&wire);
}

static void a_peer_that_has_forgotten_resets(void **state) {
    struct wire wire;
    open_one(&wire, &(struct tcp_config){.keepalive_us = 10 * SECOND_US});
    wire_wait(&wire, 11 * SECOND_US);
    wire_put(&wire, TCP_RST, wire_last(&wire)->acknowledgement, 0, NULL, 0);
    wire_poll(&wire);
    assert_int_equal(wire.error, TCP_RESET);
    wire_free(&wire);
}

/* RFC 9293 3.8.3: per connection, and not much later than said however far the backoff has come. */
static void user_timeout_of_one_connection(void **state) {
    struct wire wire;
    open_one(&wire, NULL);
    tcp_set_user_timeout(wire.conn, 20 * SECOND_US);
    wire_send(&wire, wire_pattern(), 100);
    wire_wait(&wire, 19900 * 1000);
    assert_int_equal(wire.closed, 0);
    wire_wait(&wire, 200 * 1000);
    assert_int_equal(wire.closed, 1);
    assert_int_equal(wire.error, TCP_TIMED_OUT);
    wire_free(&wire);
    open_one(&wire, NULL);
    tcp_set_user_timeout(wire.conn, 20 * SECOND_US);
    tcp_set_user_timeout(wire.conn, 0);
    wire_send(&wire, wire_pattern(), 100);
    wire_wait(&wire, 99 * SECOND_US);
    assert_int_equal(wire.closed, 0);
    wire_wait(&wire, 2 * SECOND_US);
    assert_int_equal(wire.closed, 1);
    wire_free(&wire);
}

/* RFC 9293 3.8.6.1: probed after the timeout, then ever more rarely, for as long as the peer answers. */
static void a_closed_window_is_probed_for_as_long_as_the_peer_answers(void **state) {
    struct wire wire;
    open_one(&wire, NULL);
    wire.window = 0;
    wire_ack(&wire, wire.iss + 1);
    wire_send(&wire, wire_pattern(), 3000);
    assert_int_equal(wire.segment_count, 0);
    uint64_t last = wire.now_us, gap = 0;
    for (uint32_t i = 0; i < 14; i++) {
        uint64_t until = wire.now_us + 100 * SECOND_US;
        while (wire.segment_count == 0 && wire.now_us < until) {
            wire_wait(&wire, 10000);
        }
        assert_int_equal(wire.segment_count, 1);
        assert_int_equal(wire_last(&wire)->length, 1);
        assert_int_equal(wire_last(&wire)->sequence, wire.iss + 1);
        assert_true(wire.now_us - last + 20000 >= gap);
        gap = wire.now_us - last;
        last = wire.now_us;
        wire_clear(&wire);
        wire_ack(&wire, wire.iss + 1);
    }
    assert_true(gap >= 50 * SECOND_US);
    assert_int_equal(wire.closed, 0);
    wire.window = 65535;
    wire_ack(&wire, wire.iss + 1);
    assert_int_equal(wire.segment_count, 4); /* the octet of the probe, and what follows it */
    wire_ack(&wire, wire.iss + 3001);
    assert_int_equal(tcp_unacknowledged(wire.conn), 0);
    wire_free(&wire);
}

/* RFC 9293 3.8.6: a peer should not take back its window; if it does, what lies beyond is not pressed on it. */
static void a_window_taken_back_is_respected(void **state) {
    struct wire wire;
    open_one(&wire, NULL);
    wire_send(&wire, wire_pattern(), 14600);
    assert_int_equal(wire.segment_count, 10);
    wire_clear(&wire);
    wire.window = 0;
    wire_ack(&wire, wire.iss + 1 + 1460);
    wire_wait(&wire, 30 * SECOND_US);
    assert_in_range(wire.segment_count, 2, 10);
    for (uint32_t i = 0; i < wire.segment_count; i++) {
        assert_int_equal(wire.segments[i].sequence, wire.iss + 1 + 1460);
    }
    wire_clear(&wire);
    wire.window = 65535;
    wire_ack(&wire, wire.iss + 1 + 1460);
    for (uint32_t i = 0; i < 20 && tcp_unacknowledged(wire.conn) > 0; i++) {
        wire_wait(&wire, SECOND_US);
        if (wire.segment_count > 0) {
            uint32_t next = wire_last(&wire)->sequence + wire_last(&wire)->length;
            wire_clear(&wire);
            wire_ack(&wire, next);
        }
    }
    assert_int_equal(tcp_unacknowledged(wire.conn), 0);
    wire_free(&wire);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_silent_connection_is_probed_and_an_answer_keeps_it),
        cmocka_unit_test(five_unanswered_probes_end_it),
        cmocka_unit_test(what_comes_in_postpones_the_probe_and_none_is_sent_by_default),
        cmocka_unit_test(a_peer_that_has_forgotten_resets),
        cmocka_unit_test(user_timeout_of_one_connection),
        cmocka_unit_test(a_closed_window_is_probed_for_as_long_as_the_peer_answers),
        cmocka_unit_test(a_window_taken_back_is_respected),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
