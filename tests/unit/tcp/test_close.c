/* test_close.c: the ends of a connection: RFC 9293 3.6 (closing), 3.6.1 (TIME-WAIT), RFC 1337, RFC 6191 (reuse), abort. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "wire.h"

static void open_with(struct wire *wire, bool timestamps, const struct tcp_config *config) {
    wire_open(wire, config);
    wire_connect(wire);
    wire->ts_value = 1000;
    wire_establish(wire, &(struct wire_peer){.mss = 1000, .timestamps = timestamps, .shift = -1});
}

static uint32_t time_waits(const struct wire *wire) {
    struct tcp_usage usage;
    tcp_stack_usage(wire->stack, &usage);
    return usage.time_wait;
}

/* We close first, the peer follows: we hold TIME-WAIT. */
static void close_to_time_wait(struct wire *wire) {
    tcp_close(wire->conn, wire->now_us);
    wire_ack(wire, wire->acknowledgement + 1);
    wire_put(wire, TCP_FIN | TCP_ACK, wire->sequence, wire->acknowledgement, NULL, 0);
    wire_poll(wire);
    assert_int_equal(wire->error, TCP_OK);
}

/* RFC 9293 3.6 case 2, half-close: after the peer's FIN we may still send; its ACK of our FIN ends it, and the peer holds TIME-WAIT. */
static void peer_closes_first_and_still_takes_bytes(void **state) {
    struct wire wire;
    open_with(&wire, false, NULL);
    wire_put(&wire, TCP_FIN | TCP_ACK, wire.sequence, wire.acknowledgement, "bye", 3);
    wire.sequence += 4;
    assert_int_equal(wire.text_length, 3);
    assert_int_equal(wire.peer_closed, 1);
    assert_int_equal(wire_send(&wire, "more", 4), 0);
    assert_int_equal(wire_last(&wire)->acknowledgement, wire.sequence);
    tcp_close(wire.conn, wire.now_us);
    assert_int_equal(wire_last(&wire)->flags & TCP_FIN, TCP_FIN);
    wire_ack(&wire, wire.iss + 6);
    wire_poll(&wire);
    assert_int_equal(wire.closed, 1);
    assert_int_equal(wire.error, TCP_OK);
    assert_int_equal(time_waits(&wire), 0);
    wire_free(&wire);
}

/* RFC 9293 3.6 case 1, half-close: after our FIN the peer's bytes still come up and are acknowledged. */
static void we_close_first_and_still_take_bytes(void **state) {
    struct wire wire;
    open_with(&wire, false, NULL);
    tcp_close(wire.conn, wire.now_us);
    assert_int_equal(tcp_send(wire.conn, &(struct tcp_piece){.bytes = wire_pattern(), .length = 1}, 1, wire.now_us), -EPIPE);
    wire_ack(&wire, wire.iss + 2);
    wire_say(&wire, "221 bye\r\n", 9);
    assert_int_equal(wire.text_length, 9);
    wire_wait(&wire, 50000);
    assert_int_equal(wire_last(&wire)->acknowledgement, wire.sequence);
    assert_int_equal(wire.closed, 0);
    wire_put(&wire, TCP_FIN | TCP_ACK, wire.sequence, wire.acknowledgement, NULL, 0);
    wire_poll(&wire);
    assert_int_equal(wire.closed, 1);
    assert_int_equal(time_waits(&wire), 1);
    wire_free(&wire);
}

/* RFC 9293 3.6 case 3, figure 13. */
static void both_close_at_once(void **state) {
    struct wire wire;
    open_with(&wire, false, NULL);
    tcp_close(wire.conn, wire.now_us);
    wire_put(&wire, TCP_FIN | TCP_ACK, wire.sequence, wire.iss + 1, NULL, 0); /* crosses ours */
    wire_poll(&wire);
    assert_int_equal(wire.closed, 0);
    assert_int_equal(wire_last(&wire)->acknowledgement, wire.sequence + 1);
    wire.sequence++;
    wire_ack(&wire, wire.iss + 2);
    wire_poll(&wire);
    assert_int_equal(wire.closed, 1);
    assert_int_equal(wire.error, TCP_OK);
    assert_int_equal(time_waits(&wire), 1);
    wire_free(&wire);
}

/* The FIN leaves with the last bytes, and only after all of them. */
static void fin_rides_on_the_last_segment(void **state) {
    struct wire wire;
    open_with(&wire, false, NULL);
    wire.in_call = true;
    assert_int_equal(tcp_send(wire.conn, &(struct tcp_piece){.bytes = wire_pattern(), .length = 1500}, 1, wire.now_us), 0);
    tcp_close(wire.conn, wire.now_us);
    wire.in_call = false;
    assert_int_equal(wire.segment_count, 2);
    assert_int_equal(wire.segments[0].flags, TCP_ACK);
    assert_int_equal(wire.segments[1].flags, TCP_ACK | TCP_PSH | TCP_FIN);
    wire_free(&wire);
}

/* A lost FIN is sent again (RFC 6298). */
static void lost_fin_is_repeated(void **state) {
    struct wire wire;
    open_with(&wire, false, NULL);
    tcp_close(wire.conn, wire.now_us);
    wire_clear(&wire);
    wire_wait(&wire, 2000000);
    assert_in_range(wire.segment_count, 2, 6);
    assert_int_equal(wire.segments[0].flags, TCP_ACK | TCP_FIN);
    assert_int_equal(wire.segments[0].sequence, wire.iss + 1);
    wire_free(&wire);
}

/* RFC 9293 3.10.7.4: in TIME-WAIT the peer's FIN again is acknowledged and starts the wait anew; RFC 1337: a RST does not end it. */
static void time_wait_answers_the_fin_again(void **state) {
    struct wire wire;
    open_with(&wire, false, NULL);
    close_to_time_wait(&wire);
    wire_clear(&wire);
    wire_wait(&wire, 50 * 1000 * 1000);
    wire_put(&wire, TCP_RST, wire.sequence + 1, 0, NULL, 0);
    wire_put(&wire, TCP_ACK, wire.sequence + 1, wire.acknowledgement, NULL, 0);
    assert_int_equal(wire.segment_count, 0);
    wire_put(&wire, TCP_FIN | TCP_ACK, wire.sequence, wire.acknowledgement, NULL, 0);
    assert_int_equal(wire.segment_count, 1);
    assert_int_equal(wire_last(&wire)->flags, TCP_ACK);
    assert_int_equal(wire_last(&wire)->sequence, wire.acknowledgement);
    assert_int_equal(wire_last(&wire)->acknowledgement, wire.sequence + 1);
    wire_wait(&wire, 50 * 1000 * 1000);
    assert_int_equal(time_waits(&wire), 1);
    wire_wait(&wire, 11 * 1000 * 1000);
    assert_int_equal(time_waits(&wire), 0);
    wire_free(&wire);
}

/* RFC 6191: with timestamps a port in TIME-WAIT serves again after a second, from a higher sequence number. */
static void time_wait_port_is_reused_with_timestamps(void **state) {
    struct wire wire;
    struct tcp_conn *conn;
    open_with(&wire, true, &(struct tcp_config){.port_first = 4000, .port_last = 4000});
    close_to_time_wait(&wire);
    uint32_t before = wire.acknowledgement;
    wire_wait(&wire, 900000);
    assert_int_equal(tcp_connect(wire.stack, &wire.local, &wire.remote, 25, 1000000, &wire, &conn, wire.now_us), -EADDRNOTAVAIL);
    assert_int_equal(tcp_stack_counters(wire.stack)->ports_exhausted, 1);
    wire_wait(&wire, 110000);
    wire_connect(&wire);
    assert_int_equal(wire.local_port, 4000);
    assert_true((int32_t)(wire.iss - before) > 0);
    assert_int_equal(time_waits(&wire), 0);
    wire_free(&wire);
}

/* Without timestamps nothing tells old segments from new: the port rests for 2 MSL (RFC 9293 3.6.1). */
static void time_wait_port_rests_without_timestamps(void **state) {
    struct wire wire;
    struct tcp_conn *conn;
    open_with(&wire, false, &(struct tcp_config){.port_first = 4000, .port_last = 4000});
    close_to_time_wait(&wire);
    wire_wait(&wire, 59 * 1000 * 1000);
    assert_int_equal(tcp_connect(wire.stack, &wire.local, &wire.remote, 25, 1000000, &wire, &conn, wire.now_us), -EADDRNOTAVAIL);
    wire_wait(&wire, 2 * 1000 * 1000);
    wire_connect(&wire);
    wire_free(&wire);
}

/* The pool of records is capped: the oldest makes room, and its port comes back. */
static void oldest_time_wait_makes_room(void **state) {
    struct wire wire;
    open_with(&wire, false, &(struct tcp_config){.max_time_wait = 2});
    for (int i = 0; i < 5; i++) {
        close_to_time_wait(&wire);
        wire.connected = 0;
        wire_connect(&wire);
        wire_establish(&wire, &(struct wire_peer){.mss = 1000, .shift = -1});
    }
    assert_int_equal(time_waits(&wire), 2);
    tcp_abort(wire.conn, wire.now_us);
    wire_wait(&wire, 61 * 1000 * 1000);
    struct tcp_usage usage;
    tcp_stack_usage(wire.stack, &usage);
    assert_memory_equal(&usage, &(struct tcp_usage){0}, sizeof(usage));
    wire_free(&wire);
}

/* RFC 9293 3.10.5: ABORT sends a RST; the layer above hears it from tcp_poll, once. */
static void abort_resets(void **state) {
    struct wire wire;
    open_with(&wire, false, NULL);
    wire_send(&wire, "abc", 3);
    wire.in_call = true;
    tcp_abort(wire.conn, wire.now_us);
    tcp_abort(wire.conn, wire.now_us);
    tcp_close(wire.conn, wire.now_us);
    assert_int_equal(tcp_send(wire.conn, &(struct tcp_piece){.bytes = wire_pattern(), .length = 1}, 1, wire.now_us), -EPIPE);
    tcp_output(wire.conn, wire.now_us);
    tcp_receive_resume(wire.conn, wire.now_us);
    wire.in_call = false;
    assert_int_equal(wire.segment_count, 2);
    assert_int_equal(wire_last(&wire)->flags & TCP_RST, TCP_RST);
    assert_int_equal(wire_last(&wire)->sequence, wire.iss + 4);
    wire_poll(&wire);
    wire_poll(&wire);
    assert_int_equal(wire.closed, 1);
    assert_int_equal(wire.error, TCP_ABORTED);
    wire_clear(&wire);
    wire_say(&wire, "250\r\n", 5); /* RFC 9293 3.10.7.1: nobody is here */
    assert_int_equal(wire_last(&wire)->flags, TCP_RST);
    assert_int_equal(wire_last(&wire)->sequence, wire.acknowledgement);
    wire_free(&wire);
}

/* RFC 9293 3.10.4: CLOSE before the peer answered deletes the connection. */
static void close_before_the_answer(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    wire_connect(&wire);
    wire_clear(&wire);
    wire.in_call = true;
    tcp_close(wire.conn, wire.now_us);
    wire.in_call = false;
    wire_poll(&wire);
    assert_int_equal(wire.closed, 1);
    assert_int_equal(wire.error, TCP_ABORTED);
    assert_int_equal(wire.segment_count, 0);
    wire_free(&wire);
}

/* A peer that took our FIN and then says nothing does not keep the connection for ever. */
static void silent_half_closed_peer_times_out(void **state) {
    struct wire wire;
    open_with(&wire, false, NULL);
    tcp_close(wire.conn, wire.now_us);
    wire_ack(&wire, wire.iss + 2);
    wire_wait(&wire, 59 * 1000 * 1000);
    wire_say(&wire, "still here", 10);
    wire_wait(&wire, 59 * 1000 * 1000);
    assert_int_equal(wire.closed, 0);
    wire_wait(&wire, 2 * 1000 * 1000);
    assert_int_equal(wire.closed, 1);
    assert_int_equal(wire.error, TCP_TIMED_OUT);
    wire_free(&wire);
}

/* Bytes that the layer above has not taken come up before `closed`, also when both FINs are through. */
static void unread_bytes_come_before_closed(void **state) {
    struct wire wire;
    open_with(&wire, false, NULL);
    wire.take_limit = 2;
    tcp_close(wire.conn, wire.now_us);
    wire_ack(&wire, wire.iss + 2);
    wire_put(&wire, TCP_FIN | TCP_ACK, wire.sequence, wire.acknowledgement, "221 bye", 7);
    wire_poll(&wire);
    assert_int_equal(wire.closed, 0);
    assert_int_equal(wire.peer_closed, 0);
    wire.take_limit = UINT32_MAX;
    tcp_receive_resume(wire.conn, wire.now_us);
    assert_int_equal(wire.text_length, 7);
    assert_memory_equal(wire.text, "221 bye", 7);
    assert_int_equal(wire.peer_closed, 1);
    wire_poll(&wire);
    assert_int_equal(wire.closed, 1);
    assert_int_equal(wire.error, TCP_OK);
    wire_free(&wire);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peer_closes_first_and_still_takes_bytes),
        cmocka_unit_test(we_close_first_and_still_take_bytes),
        cmocka_unit_test(both_close_at_once),
        cmocka_unit_test(fin_rides_on_the_last_segment),
        cmocka_unit_test(lost_fin_is_repeated),
        cmocka_unit_test(time_wait_answers_the_fin_again),
        cmocka_unit_test(time_wait_port_is_reused_with_timestamps),
        cmocka_unit_test(time_wait_port_rests_without_timestamps),
        cmocka_unit_test(oldest_time_wait_makes_room),
        cmocka_unit_test(abort_resets),
        cmocka_unit_test(close_before_the_answer),
        cmocka_unit_test(silent_half_closed_peer_times_out),
        cmocka_unit_test(unread_bytes_come_before_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
