/* test_cubic.c: the congestion window over time: CUBIC (RFC 9438), HyStart++ (RFC 9406), and NewReno beside them. The peer acknowledges
 * every segment a round trip after it left. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "dataplane/tcp/tcp_conn.h"
#include "wire.h"

enum { MSS = 1000 };

struct path {
    struct wire wire;
    uint32_t rtt_us, acknowledged; /* bytes of our stream */
};

static void path_open(struct path *path, uint32_t rtt_us, enum tcp_congestion congestion) {
    wire_open(&path->wire, &(struct tcp_config){.congestion = congestion});
    path->rtt_us = rtt_us;
    path->acknowledged = 0;
    wire_connect(&path->wire);
    path->wire.now_us += rtt_us;
    wire_establish(&path->wire, &(struct wire_peer){.mss = MSS, .shift = 10, .sack = true});
}

/* Keeps the window full for a round trip: everything that was in flight at its beginning is acknowledged, two segments an ACK. */
static void round_trip(struct path *path) {
    struct wire *wire = &path->wire;
    while (tcp_unsent(wire->conn) < 100 * MSS) {
        wire_send(wire, wire_pattern(), 100 * MSS);
    }
    uint32_t sent = wire->conn->snd_nxt - wire->iss - 1;
    wire->now_us += path->rtt_us;
    while (path->acknowledged < sent) {
        path->acknowledged += sent - path->acknowledged < 2 * MSS ? sent - path->acknowledged : 2 * MSS;
        wire_ack(wire, wire->iss + 1 + path->acknowledged);
        while (tcp_unsent(wire->conn) < 100 * MSS) {
            wire_send(wire, wire_pattern(), 100 * MSS);
        }
        wire_clear(wire);
    }
}

/* The first segment of the flight is lost; recovery lasts one round trip. */
static void lose(struct path *path) {
    struct wire *wire = &path->wire;
    uint32_t sent = wire->conn->snd_nxt - wire->iss - 1, first = path->acknowledged;
    wire->now_us += path->rtt_us;
    for (uint32_t at = first + 2 * MSS; at <= sent; at += MSS) {
        wire_sack(wire, first, (const uint32_t[][2]){{first + MSS, at}}, 1);
        wire_clear(wire);
    }
    assert_int_equal(wire->conn->loss.state, LOSS_RECOVERY);
    wire->now_us += path->rtt_us;
    path->acknowledged = wire->conn->recover - wire->iss - 1;
    wire_ack(wire, wire->conn->recover);
    wire_clear(wire);
    assert_int_equal(wire->conn->loss.state, LOSS_OPEN);
}

static void root_is_exact(void **state) {
    for (uint64_t i = 0; i < 2000; i++) {
        uint64_t cube = i * i * i;
        assert_int_equal(tcp_cubic_root(cube), i);
        assert_int_equal(tcp_cubic_root(cube + 3 * i * i + 3 * i), i);
    }
    assert_int_equal(tcp_cubic_root(1ULL << 60), 1 << 20);
}

/* RFC 9438 4.6: ssthresh is 0.7 of the window; RFC 5681: half of it. */
static void loss_multiplies_by_beta(void **state) {
    for (int congestion = TCP_CUBIC; congestion <= TCP_NEWRENO; congestion++) {
        struct path path;
        path_open(&path, 100000, (enum tcp_congestion)congestion);
        for (int i = 0; i < 4; i++) {
            round_trip(&path);
        }
        uint32_t cwnd = path.wire.conn->cwnd;
        lose(&path);
        uint32_t expected = congestion == TCP_CUBIC ? cwnd / 10 * 7 : cwnd / 2;
        assert_in_range(path.wire.conn->ssthresh, expected - MSS, expected + MSS);
        assert_in_range(path.wire.conn->cwnd, expected - MSS, expected + 2 * MSS);
        wire_free(&path.wire);
    }
}

/* RFC 9438 4.2, 4.4, 4.5: after a loss at W_max the window is back there after K = cbrt(0.3 W_max / 0.4) seconds, flat around it, and then
 * grows faster and faster: C (t - K)^3. */
static void window_is_a_cubic_of_time(void **state) {
    struct path path;
    path_open(&path, 100000, TCP_CUBIC);
    for (int i = 0; i < 5; i++) {
        round_trip(&path);
    }
    uint32_t peak = path.wire.conn->cwnd;
    assert_int_equal(peak, 320 * MSS);
    lose(&path);
    uint64_t begin_us = path.wire.now_us;
    uint32_t at_peak = 0, ms = 0; /* K is 6.21 s */
    uint32_t after[3] = {0};      /* windows 2 s before K, at K, 3 s after */
    while (ms < 9300) {
        round_trip(&path);
        ms = (uint32_t)((path.wire.now_us - begin_us) / 1000);
        if (at_peak == 0 && path.wire.conn->cwnd >= peak - MSS) {
            at_peak = ms;
        }
        after[0] = ms <= 4200 ? path.wire.conn->cwnd : after[0];
        after[1] = ms <= 6200 ? path.wire.conn->cwnd : after[1];
        after[2] = path.wire.conn->cwnd;
    }
    assert_in_range(at_peak, 4500, 6400);
    assert_in_range(after[0], peak - 7 * MSS, peak - MSS);      /* 0.4 * 2^3 = 3.2 segments below */
    assert_in_range(after[1], peak - 2 * MSS, peak + 2 * MSS);  /* the plateau */
    assert_in_range(after[2], peak + 7 * MSS, peak + 15 * MSS); /* 0.4 * 3^3 = 10.8 above */
    wire_free(&path.wire);
}

/* RFC 9438 4.3: on a short path Reno is faster than the cubic, and CUBIC is as fast as Reno: 8/15 segments a round trip. */
static void short_path_is_reno_friendly(void **state) {
    struct path path;
    path_open(&path, 5000, TCP_CUBIC);
    for (int i = 0; i < 2; i++) {
        round_trip(&path);
    }
    lose(&path);
    round_trip(&path);
    uint32_t before = path.wire.conn->cwnd, peak = path.wire.conn->cwnd_peak;
    for (int i = 0; i < 15; i++) {
        round_trip(&path);
    }
    assert_true(path.wire.conn->cwnd < peak);
    assert_in_range(path.wire.conn->cwnd - before, 6 * MSS, 10 * MSS);
    wire_free(&path.wire);
}

/* RFC 9438 4.7: a flow that loses below its last peak gives way: W_max is (1 + beta) / 2 of the window. */
static void second_loss_converges_fast(void **state) {
    struct path path;
    path_open(&path, 100000, TCP_CUBIC);
    for (int i = 0; i < 4; i++) {
        round_trip(&path);
    }
    uint32_t first = path.wire.conn->cwnd;
    lose(&path);
    assert_int_equal(path.wire.conn->cwnd_peak, first);
    round_trip(&path);
    uint32_t second = path.wire.conn->cwnd;
    assert_true(second < first);
    lose(&path);
    assert_in_range(path.wire.conn->cwnd_peak, second / 20 * 17 - MSS, second / 20 * 17 + MSS);
    wire_free(&path.wire);
}

/* RFC 9438 5.8: a window that is not used does not grow, and the time without use does not count. */
static void unused_window_does_not_grow(void **state) {
    struct path path;
    path_open(&path, 100000, TCP_CUBIC);
    for (int i = 0; i < 4; i++) {
        round_trip(&path);
    }
    lose(&path);
    round_trip(&path);
    struct wire *wire = &path.wire;
    while (tcp_unacknowledged(wire->conn) > 0) { /* drains the queue */
        path.acknowledged = wire->conn->snd_nxt - wire->iss - 1;
        wire->now_us += path.rtt_us;
        wire_ack(wire, wire->iss + 1 + path.acknowledged);
        wire_clear(wire);
    }
    uint32_t cwnd = wire->conn->cwnd;
    for (int i = 0; i < 200; i++) {
        wire_send(wire, wire_pattern(), 2 * MSS);
        path.acknowledged += 2 * MSS;
        wire->now_us += path.rtt_us;
        wire_ack(wire, wire->iss + 1 + path.acknowledged);
        wire_clear(wire);
    }
    assert_int_equal(wire->conn->cwnd, cwnd);
    round_trip(&path);
    round_trip(&path);
    assert_in_range(wire->conn->cwnd, cwnd, cwnd + 8 * MSS);
    wire_free(wire);
}

/* RFC 9406 4.2: the round trip grows with the queue: slow start slows down, and ends without any loss; on a steady path it goes on. */
static void growing_delay_ends_slow_start(void **state) {
    for (int queue = 0; queue < 2; queue++) {
        struct path path;
        path_open(&path, 50000, TCP_CUBIC);
        for (int i = 0; i < 3; i++) {
            round_trip(&path);
        }
        assert_int_equal(path.wire.conn->cwnd, 80 * MSS);
        for (int i = 0; i < 8 && path.wire.conn->cwnd < 2000 * MSS; i++) {
            path.rtt_us += queue != 0 ? 10000 : 0;
            round_trip(&path);
        }
        assert_int_equal(tcp_stack_counters(path.wire.stack)->retransmits_fast, 0);
        if (queue != 0) {
            assert_true(path.wire.conn->ssthresh < UINT32_MAX);
            assert_in_range(path.wire.conn->cwnd, 80 * MSS, 700 * MSS);
        } else {
            assert_int_equal(path.wire.conn->ssthresh, UINT32_MAX);
            assert_true(path.wire.conn->cwnd >= 2000 * MSS);
        }
        wire_free(&path.wire);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(root_is_exact),
        cmocka_unit_test(loss_multiplies_by_beta),
        cmocka_unit_test(window_is_a_cubic_of_time),
        cmocka_unit_test(short_path_is_reno_friendly),
        cmocka_unit_test(second_loss_converges_fast),
        cmocka_unit_test(unused_window_does_not_grow),
        cmocka_unit_test(growing_delay_ends_slow_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
