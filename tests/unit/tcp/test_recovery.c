/* test_recovery.c: how fast recovery sends (RFC 9937, 6675), and how it is taken back when nothing was lost: Eifel (RFC 3522), D-SACK
 * (RFC 2883), F-RTO (RFC 5682); the timeout of a retransmission (RFC 6298). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "dataplane/tcp/tcp_conn.h"
#include "wire.h"

enum { MSS = 1000, RTT_US = 50000 };

static void open_with(struct wire *wire, bool timestamps) {
    wire_open(wire, NULL);
    wire_connect(wire);
    wire->ts_value = 77;
    wire->now_us += RTT_US;
    wire_establish(wire, &(struct wire_peer){.mss = timestamps ? MSS + 12 : MSS, .shift = 4, .sack = true, .timestamps = timestamps});
}

/* A congestion window of 20 segments, all of them in flight, and more to send. */
static uint32_t fill(struct wire *wire) {
    wire_send(wire, wire_pattern(), 200 * MSS);
    for (uint32_t i = 1; i <= 10; i++) {
        wire->now_us += 1000;
        wire_ack(wire, wire->iss + 1 + i * MSS);
    }
    assert_int_equal(wire->conn->cwnd, 20 * MSS);
    wire->now_us += RTT_US;
    wire_clear(wire);
    return 10;
}

static void sack(struct wire *wire, uint32_t acknowledged, uint32_t left, uint32_t right) {
    wire_sack(wire, acknowledged * MSS, (const uint32_t[][2]){{left * MSS, right * MSS}}, 1);
}

static uint32_t ts_value_of(const struct wire_segment *segment) {
    return (uint32_t)segment->options[4] << 24 | (uint32_t)segment->options[5] << 16 | (uint32_t)segment->options[6] << 8 |
           segment->options[7];
}

/* RFC 9937 section 6: over the round trip of recovery seven tenths of what is delivered go out, spread over the ACKs, and the window ends
 * at ssthresh (CUBIC's beta, RFC 9438 4.6). */
static void rate_is_reduced_in_proportion(void **state) {
    struct wire wire;
    open_with(&wire, false);
    uint32_t base = fill(&wire);
    uint32_t most = 0;
    for (uint32_t i = 2; i <= 20; i++) {
        uint32_t before = wire.segment_count;
        sack(&wire, base, base + 1, base + i);
        most = wire.segment_count - before > most ? wire.segment_count - before : most;
    }
    assert_int_equal(wire.conn->ssthresh, 14 * MSS); /* to the nearest segment */
    assert_in_range(wire.segment_count, 14, 15);     /* of 19 delivered, the first two before recovery began; one is the retransmission */
    assert_in_range(most, 1, 2);
    wire_ack(&wire, wire.conn->recover);
    assert_int_equal(wire.conn->loss.state, LOSS_OPEN);
    assert_in_range(wire.conn->cwnd, 14 * MSS, 15 * MSS);
    wire_free(&wire);
}

/* RFC 9937: with most of a flight lost, what is delivered and one segment more goes out for each ACK: slow start at most. */
static void many_losses_do_not_stop_the_flow(void **state) {
    struct wire wire;
    open_with(&wire, false);
    uint32_t base = fill(&wire);
    sack(&wire, base, base + 16, base + 20);
    assert_in_range(wire.segment_count, 1, 5);
    assert_int_equal(wire.segments[0].sequence, wire.iss + 1 + base * MSS);
    for (uint32_t round = 0; round < 12 && wire.conn->loss.state == LOSS_RECOVERY; round++) {
        uint32_t done = base + 2 * (round + 1);
        wire.now_us += RTT_US;
        wire_clear(&wire);
        sack(&wire, done < base + 16 ? done : base + 16, base + 16, base + 20);
        assert_in_range(wire.segment_count, 1, 6);
        if (done >= base + 16) {
            wire_ack(&wire, wire.iss + 1 + (base + 20) * MSS);
        }
    }
    assert_int_equal(tcp_stack_counters(wire.stack)->retransmits_timeout, 0);
    wire_free(&wire);
}

/* RFC 3522: the answer to the first copy came after the second was sent: nothing was lost, and the windows are what they were. */
static void late_answer_undoes_recovery(void **state) {
    struct wire wire;
    open_with(&wire, true);
    uint32_t base = fill(&wire);
    wire.ts_echo = wire.conn->ts_offset + (uint32_t)((wire.now_us - RTT_US) >> 10);
    sack(&wire, base, base + 1, base + 4);
    assert_int_equal(wire.conn->loss.state, LOSS_RECOVERY);
    assert_true(wire.conn->ssthresh < 20 * MSS);
    wire.now_us += 3000;
    wire_ack(&wire, wire.iss + 1 + (base + 4) * MSS);
    assert_int_equal(wire.conn->loss.state, LOSS_OPEN);
    assert_true(wire.conn->cwnd >= 20 * MSS);
    assert_int_equal(wire.conn->ssthresh, UINT32_MAX);
    assert_int_equal(tcp_stack_counters(wire.stack)->spurious_recoveries, 1);
    wire_free(&wire);
}

/* Undone or not, what a router called too large (RFC 1191 section 6.4) did not arrive: it goes again in parts, without a timeout. */
static void undo_does_not_bring_back_what_was_too_large(void **state) {
    struct wire wire;
    open_with(&wire, true);
    uint32_t base = fill(&wire);
    wire.ts_echo = wire.conn->ts_offset + (uint32_t)((wire.now_us - RTT_US) >> 10);
    sack(&wire, base, base + 1, base + 4);
    assert_int_equal(wire.conn->loss.state, LOSS_RECOVERY);
    wire.transmit_result = -EAGAIN; /* the device is full: what is lost waits */
    tcp_input_error(wire.stack, &wire.local, wire.local_port, &wire.remote, wire.remote_port, wire.iss + 1 + (base + 5) * MSS, true, 800,
                    wire.now_us);
    wire.transmit_result = 0;
    wire.now_us += 3000;
    wire_ack(&wire, wire.iss + 1 + (base + 4) * MSS);
    assert_int_equal(tcp_stack_counters(wire.stack)->spurious_recoveries, 1);
    for (uint32_t i = wire.conn->loss.sent_head; i != TCP_NONE; i = flight_at(wire.stack, i)->list_next) {
        assert_true(flight_at(wire.stack, i)->length <= wire.conn->mss);
    }
    assert_int_equal(wire.conn->lost_bytes, 0); /* all of it has gone again */
    wire_free(&wire);
}

/* The answer to the second copy undoes nothing. */
static void answer_to_the_retransmission_undoes_nothing(void **state) {
    struct wire wire;
    open_with(&wire, true);
    uint32_t base = fill(&wire);
    sack(&wire, base, base + 1, base + 4);
    wire.ts_echo = ts_value_of(&wire.segments[0]);
    wire.now_us += RTT_US;
    wire_ack(&wire, wire.iss + 1 + (base + 20) * MSS);
    assert_int_equal(wire.conn->loss.state, LOSS_OPEN);
    assert_int_equal(tcp_stack_counters(wire.stack)->spurious_recoveries, 0);
    assert_true(wire.conn->ssthresh < 20 * MSS);
    wire_free(&wire);
}

/* RFC 5682 section 3.1: what was taken for lost is acknowledged without having been sent again: the timeout was spurious. */
static void spurious_timeout_is_undone(void **state) {
    struct wire wire;
    open_with(&wire, false);
    uint32_t base = fill(&wire);
    wire_wait(&wire, 600000);
    assert_true(tcp_stack_counters(wire.stack)->retransmits_timeout > 0);
    assert_int_equal(wire.conn->loss.state, LOSS_TIMEOUT);
    wire_clear(&wire);
    wire_ack(&wire, wire.iss + 1 + (base + 1) * MSS);
    assert_true(wire.segment_count > 0);
    for (uint32_t i = 0; i < wire.segment_count; i++) { /* step 2b: new segments, so that the next ACK tells */
        assert_true(wire.segments[i].first_transmission);
    }
    wire_ack(&wire, wire.iss + 1 + (base + 3) * MSS);
    assert_int_equal(wire.conn->loss.state, LOSS_OPEN);
    assert_true(wire.conn->cwnd >= 20 * MSS);
    assert_int_equal(wire.conn->lost_bytes, 0);
    assert_int_equal(tcp_stack_counters(wire.stack)->spurious_recoveries, 1);
    wire_free(&wire);
}

/* RFC 5682 step 3a: only the new data is sacked: the loss was real, and what is missing goes again. */
static void real_timeout_is_not_undone(void **state) {
    struct wire wire;
    open_with(&wire, false);
    uint32_t base = fill(&wire);
    wire_wait(&wire, 600000);
    wire_clear(&wire);
    wire_ack(&wire, wire.iss + 1 + (base + 1) * MSS);
    uint32_t next = (wire.segments[0].sequence - wire.iss - 1) / MSS;
    wire_clear(&wire);
    wire.now_us += RTT_US;
    sack(&wire, base + 1, next, next + 1);
    assert_int_equal(wire.conn->loss.state, LOSS_TIMEOUT);
    assert_true(wire.segment_count > 0);
    assert_int_equal(wire.segments[0].sequence, wire.iss + 1 + (base + 1) * MSS);
    assert_int_equal(tcp_stack_counters(wire.stack)->spurious_recoveries, 0);
    wire_free(&wire);
}

/* RFC 6298 5.1: a retransmission has a timeout of its own, from when it left. */
static void retransmission_has_its_own_timeout(void **state) {
    struct wire wire;
    open_with(&wire, false);
    uint32_t base = fill(&wire);
    wire_wait(&wire, 100000);
    sack(&wire, base, base + 1, base + 4);
    uint64_t rto_us = wire.conn->rto_us;
    wire_wait(&wire, rto_us - 10000);
    assert_int_equal(tcp_stack_counters(wire.stack)->retransmits_timeout, 0);
    wire_wait(&wire, 20000);
    assert_int_equal(tcp_stack_counters(wire.stack)->retransmits_timeout, 1);
    wire_free(&wire);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rate_is_reduced_in_proportion),      cmocka_unit_test(many_losses_do_not_stop_the_flow),
        cmocka_unit_test(late_answer_undoes_recovery),        cmocka_unit_test(answer_to_the_retransmission_undoes_nothing),
        cmocka_unit_test(spurious_timeout_is_undone),         cmocka_unit_test(real_timeout_is_not_undone),
        cmocka_unit_test(retransmission_has_its_own_timeout), cmocka_unit_test(undo_does_not_bring_back_what_was_too_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
