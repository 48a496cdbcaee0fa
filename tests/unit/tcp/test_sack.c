/* test_sack.c: selective acknowledgement both ways: RFC 2018 (blocks, their order, reneging), RFC 2883 (duplicates), and a scoreboard that
 * believes nothing that cannot be (RFC 6675 section 3). */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "wire.h"

enum { MSS = 1000 };

static void open_with(struct wire *wire, bool timestamps) {
    wire_open(wire, NULL);
    wire_connect(wire);
    wire->ts_value = 77;
    wire->now_us += 50000;
    wire_establish(wire, &(struct wire_peer){.mss = timestamps ? MSS + 12 : MSS, .shift = -1, .sack = true, .timestamps = timestamps});
}

/* Bytes [from, from + length) of the peer's stream. */
static void put_at(struct wire *wire, uint32_t base, uint32_t from, uint32_t length) {
    wire_put(wire, TCP_ACK, base + from, wire->acknowledgement, wire_pattern() + from, length);
}

static void expect_spans(struct wire *wire, uint32_t base, const uint32_t (*expected)[2], uint32_t count) {
    uint32_t spans[4][2];
    assert_int_equal(wire_spans(wire_last(wire), spans), count);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(spans[i][0] - base, expected[i][0]);
        assert_int_equal(spans[i][1] - base, expected[i][1]);
    }
}

/* RFC 2018 section 2: no blocks to a peer that did not permit them. */
static void no_blocks_without_permission(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    wire_connect(&wire);
    wire_establish(&wire, &(struct wire_peer){.mss = MSS, .shift = -1});
    wire_put(&wire, TCP_ACK, wire.sequence + 1000, wire.acknowledgement, wire_pattern(), 500);
    assert_int_equal(wire_last(&wire)->options_length, 0);
    wire_free(&wire);
}

/* RFC 2018 section 4: the first block holds what came last, the others follow by age; what joins is one. */
static void most_recent_block_comes_first(void **state) {
    struct wire wire;
    open_with(&wire, false);
    uint32_t base = wire.sequence;
    put_at(&wire, base, 1000, 500);
    expect_spans(&wire, base, (const uint32_t[][2]){{1000, 1500}}, 1);
    put_at(&wire, base, 3000, 500);
    expect_spans(&wire, base, (const uint32_t[][2]){{3000, 3500}, {1000, 1500}}, 2);
    put_at(&wire, base, 5000, 500);
    put_at(&wire, base, 7000, 500);
    put_at(&wire, base, 9000, 500); /* four fit where no timestamps go */
    expect_spans(&wire, base, (const uint32_t[][2]){{9000, 9500}, {7000, 7500}, {5000, 5500}, {3000, 3500}}, 4);
    put_at(&wire, base, 5500, 1500);
    expect_spans(&wire, base, (const uint32_t[][2]){{5000, 7500}, {9000, 9500}, {3000, 3500}}, 3);
    put_at(&wire, base, 0, 1000);
    wire_poll(&wire);
    assert_int_equal(wire_last(&wire)->acknowledgement, base + 1500);
    put_at(&wire, base, 1500, 1500);
    wire_poll(&wire);
    assert_int_equal(wire_last(&wire)->acknowledgement, base + 3500);
    expect_spans(&wire, base, (const uint32_t[][2]){{5000, 7500}, {9000, 9500}}, 2);
    put_at(&wire, base, 3500, 1500);
    put_at(&wire, base, 7500, 1500);
    wire_poll(&wire);
    assert_int_equal(wire_last(&wire)->acknowledgement, base + 9500);
    assert_int_equal(wire_last(&wire)->options_length, 0);
    assert_memory_equal(wire.text, wire_pattern(), 9500);
    wire_free(&wire);
}

/* RFC 2018 section 3: beside timestamps three blocks fit. */
static void three_blocks_beside_timestamps(void **state) {
    struct wire wire;
    open_with(&wire, true);
    uint32_t base = wire.sequence;
    for (uint32_t from = 1000; from < 9000; from += 2000) {
        put_at(&wire, base, from, 500);
    }
    assert_int_equal(wire_last(&wire)->options_length, 40);
    expect_spans(&wire, base, (const uint32_t[][2]){{7000, 7500}, {5000, 5500}, {3000, 3500}}, 3);
    wire_free(&wire);
}

/* RFC 2883 section 4.1: the first block says what came again, once; 4.1.1 below the acknowledgement, 4.2.1 within a block that follows it.
 */
static void duplicates_are_told_once(void **state) {
    struct wire wire;
    open_with(&wire, false);
    uint32_t base = wire.sequence;
    put_at(&wire, base, 0, 1000);
    wire_poll(&wire);
    wire_clear(&wire);
    put_at(&wire, base, 0, 1000);
    wire_poll(&wire);
    assert_int_equal(wire.segment_count, 1);
    expect_spans(&wire, base, (const uint32_t[][2]){{0, 1000}}, 1);
    put_at(&wire, base, 2000, 1000);
    expect_spans(&wire, base, (const uint32_t[][2]){{2000, 3000}}, 1);
    put_at(&wire, base, 2000, 1000);
    expect_spans(&wire, base, (const uint32_t[][2]){{2000, 3000}, {2000, 3000}}, 2);
    put_at(&wire, base, 500, 1000); /* half of it is new */
    wire_poll(&wire);
    assert_int_equal(wire_last(&wire)->acknowledgement, base + 1500);
    expect_spans(&wire, base, (const uint32_t[][2]){{500, 1000}, {2000, 3000}}, 2);
    wire_clear(&wire);
    put_at(&wire, base, 0, 500);
    put_at(&wire, base, 500, 500); /* two in one pass are two reports */
    wire_poll(&wire);
    assert_int_equal(wire.segment_count, 2);
    wire_free(&wire);
}

/* RFC 6675 section 5: what the peer holds is not sent again; the holes are, in order. */
static void only_the_holes_are_sent_again(void **state) {
    struct wire wire;
    open_with(&wire, false);
    wire_send(&wire, wire_pattern(), 10 * MSS);
    assert_int_equal(wire.segment_count, 10);
    wire_clear(&wire);
    wire.now_us += 50000;
    wire_sack(&wire, 0, (const uint32_t[][2]){{1 * MSS, 2 * MSS}}, 1);
    wire_sack(&wire, 0, (const uint32_t[][2]){{3 * MSS, 4 * MSS}, {1 * MSS, 2 * MSS}}, 2);
    wire_sack(&wire, 0, (const uint32_t[][2]){{5 * MSS, 10 * MSS}, {3 * MSS, 4 * MSS}, {1 * MSS, 2 * MSS}}, 3);
    wire_wait(&wire, 1000);
    assert_int_equal(wire.segment_count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(wire.segments[i].sequence, wire.iss + 1 + 2 * i * MSS);
        assert_int_equal(wire.segments[i].length, MSS);
        assert_memory_equal(wire.segments[i].payload, wire_pattern() + 2 * i * MSS, MSS);
        assert_false(wire.segments[i].first_transmission);
    }
    wire_ack(&wire, wire.iss + 1 + 10 * MSS);
    assert_int_equal(tcp_unacknowledged(wire.conn), 0);
    assert_int_equal(wire.acknowledged_bytes, 10 * MSS);
    wire_free(&wire);
}

/* Blocks that cannot be: beyond what was sent, below what is acknowledged, turned around, of part of a segment, cut off, too many. */
static void impossible_blocks_change_nothing(void **state) {
    struct wire wire;
    open_with(&wire, false);
    wire_send(&wire, wire_pattern(), 10 * MSS);
    wire_ack(&wire, wire.iss + 1 + 2 * MSS);
    wire_clear(&wire);
    wire.now_us += 50000;
    static const uint32_t bad[][2] = {
        {4 * MSS, 11 * MSS},    {5 * MSS, 4 * MSS},         {4 * MSS, 4 * MSS}, {1 * MSS, 9 * MSS}, {4 * MSS, 0x80000000U + 4 * MSS},
        {0x90000000U, 8 * MSS}, {4 * MSS + 1, 5 * MSS - 1}, {9 * MSS, 30 * MSS}};
    for (uint32_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        for (uint32_t k = 0; k < 4; k++) {
            wire_sack(&wire, 2 * MSS, &bad[i], 1);
        }
    }
    static const uint8_t broken[][12] = {{1, 1, 5, 11}, {1, 1, 5, 2}, {1, 1, 5, 255}, {1, 1, 5, 0}, {1, 1, 5, 18}, {5, 10, 0, 0}};
    for (uint32_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
        wire_put_options(&wire, TCP_ACK, wire.sequence, wire.acknowledgement, broken[i], 12, NULL, 0);
    }
    assert_int_equal(wire.segment_count, 0);
    assert_int_equal(tcp_stack_counters(wire.stack)->retransmits_fast, 0);
    wire_ack(&wire, wire.iss + 1 + 10 * MSS);
    assert_int_equal(tcp_unacknowledged(wire.conn), 0);
    wire_free(&wire);
}

/* RFC 2018 section 8: a peer may drop what it said it holds; after a timeout nothing of that is believed and all is sent again. */
static void timeout_forgets_what_was_sacked(void **state) {
    struct wire wire;
    open_with(&wire, false);
    wire_send(&wire, wire_pattern(), 6 * MSS);
    wire.now_us += 50000;
    wire_sack(&wire, 0, (const uint32_t[][2]){{1 * MSS, 6 * MSS}}, 1);
    wire_ack(&wire, wire.iss + 1 + MSS); /* only the first: the others are gone */
    wire_clear(&wire);
    uint32_t at = 1;
    for (uint32_t i = 0; i < 60 && at < 6; i++) {
        wire_wait(&wire, 100000);
        for (uint32_t k = 0; k < wire.segment_count; k++) {
            if (wire.segments[k].sequence == wire.iss + 1 + at * MSS) {
                assert_memory_equal(wire.segments[k].payload, wire_pattern() + at * MSS, MSS);
                at++;
            }
        }
        if (wire.segment_count > 0) {
            wire_clear(&wire);
            wire_ack(&wire, wire.iss + 1 + at * MSS);
        }
    }
    assert_int_equal(at, 6);
    assert_int_equal(tcp_unacknowledged(wire.conn), 0);
    wire_free(&wire);
}

/* A peer that names ranges at random neither breaks the books nor gets more than is there: every byte still arrives, and every record is
 * given back. */
static void random_blocks_break_nothing(void **state) {
    uint64_t random = 88172645463325252ULL;
    for (uint32_t round = 0; round < 30; round++) {
        struct wire wire;
        wire_open(&wire, &(struct tcp_config){.max_segments_in_flight = round % 3 == 0 ? 24 : 0});
        wire_connect(&wire);
        wire.now_us += 50000;
        wire_establish(&wire, &(struct wire_peer){.mss = MSS, .shift = 4, .sack = true});
        uint32_t total = 200 * MSS, acknowledged = 0;
        wire_send(&wire, wire_pattern(), total);
        for (uint32_t step = 0; step < 3000 && acknowledged < total; step++) {
            uint32_t spans[4][2], count = 1;
            uint32_t sent = total - tcp_unsent(wire.conn) - acknowledged;
            for (uint32_t i = 0; i < 4; i++) {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                uint32_t left = acknowledged + (uint32_t)(random % (sent + 1)), right = left + (uint32_t)((random >> 20) % (20 * MSS));
                spans[i][0] = (random >> 40) % 3 == 0 ? left : left / MSS * MSS;
                spans[i][1] = (random >> 42) % 3 == 0 ? right : right / MSS * MSS;
                count = 1 + (uint32_t)((random >> 50) % 4);
            }
            if (step % 5 == 0 && sent > 0) {
                acknowledged += 1 + (uint32_t)((random >> 30) % sent);
            }
            wire_sack(&wire, acknowledged, (const uint32_t(*)[2])spans, count);
            wire_clear(&wire);
            wire_wait(&wire, random % 30000);
            wire_clear(&wire);
        }
        wire_ack(&wire, wire.iss + 1 + total - tcp_unsent(wire.conn));
        for (uint32_t i = 0; i < 200 && tcp_unacknowledged(wire.conn) > 0; i++) {
            wire_wait(&wire, 1000);
            wire_ack(&wire, wire.iss + 1 + total - tcp_unsent(wire.conn));
            wire_clear(&wire);
        }
        assert_int_equal(wire.acknowledged_bytes, total);
        struct tcp_usage usage;
        tcp_stack_usage(wire.stack, &usage);
        assert_int_equal(usage.segments_in_flight, 0);
        assert_int_equal(usage.ranges, 0);
        wire_free(&wire);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_blocks_without_permission),    cmocka_unit_test(most_recent_block_comes_first),
        cmocka_unit_test(three_blocks_beside_timestamps),  cmocka_unit_test(duplicates_are_told_once),
        cmocka_unit_test(only_the_holes_are_sent_again),   cmocka_unit_test(impossible_blocks_change_nothing),
        cmocka_unit_test(timeout_forgets_what_was_sacked), cmocka_unit_test(random_blocks_break_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
