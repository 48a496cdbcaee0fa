/* test_impairment.c: what a direction of the path decides: shares, bursts, times, the queue, and the same again from the same seed. */
#include "bench/wan/impairment.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

enum { FRAMES = 200000, FRAME_BYTES = 1250 };
static const uint64_t MS = 1000000;

static const struct packet ip_packet = {.family = 4, .l3 = 14, .payload = 54, .end = FRAME_BYTES};

struct tally {
    uint32_t fates[IMPAIRMENT_FATES], duplicated, corrupted, reordered, bursts;
};

/* So many frames, one each microsecond. */
static struct tally run(const struct impairment_config *config, uint64_t seed, uint32_t direction, struct impairment *impairment) {
    struct tally tally;
    struct impairment_verdict verdict;
    enum impairment_fate before = IMPAIRMENT_PASS;
    memset(&tally, 0, sizeof tally);
    impairment_init(impairment, config, seed, direction);
    for (uint32_t i = 0; i < FRAMES; i++) {
        impairment_decide(impairment, &ip_packet, FRAME_BYTES, i * 1000, &verdict);
        tally.fates[verdict.fate]++;
        tally.duplicated += verdict.copies > 1;
        tally.corrupted += verdict.corrupt;
        tally.reordered += verdict.reordered;
        tally.bursts += verdict.fate == IMPAIRMENT_LOST_BURST && before != IMPAIRMENT_LOST_BURST;
        before = verdict.fate;
    }
    return tally;
}

static void assert_share(uint32_t count, double percent) {
    double wanted = FRAMES * percent / 100, off = wanted > count ? wanted - count : count - wanted;
    assert_true(off < wanted * 0.06 + 1);
}

static void shares_are_as_asked(void **state) {
    struct impairment impairment;
    struct impairment_config config = {.loss_percent = 2, .duplicate_percent = 3, .corrupt_percent = 4, .reorder_percent = 5};
    struct tally tally = run(&config, 7, 0, &impairment);
    assert_share(tally.fates[IMPAIRMENT_LOST], 2);
    assert_share(tally.duplicated, 3 * 0.98);
    assert_share(tally.corrupted, 4);
    assert_share(tally.reordered, 5);
    assert_int_equal(tally.fates[IMPAIRMENT_LOST_BURST], 0);
}

static void a_wire_does_nothing(void **state) {
    struct impairment impairment;
    struct impairment_config config = {0};
    struct tally tally = run(&config, 7, 0, &impairment);
    assert_int_equal(tally.fates[IMPAIRMENT_PASS], FRAMES);
    assert_int_equal(tally.duplicated + tally.corrupted + tally.reordered, 0);
}

static void everything_can_be_lost(void **state) {
    struct impairment impairment;
    struct impairment_config config = {.loss_percent = 100};
    assert_int_equal(run(&config, 7, 0, &impairment).fates[IMPAIRMENT_LOST], FRAMES);
}

/* Gilbert and Elliott: with 1 % in and 25 % out, 1/26 of the frames are in bursts, whose mean length is 4. */
static void bursts_have_their_length(void **state) {
    struct impairment impairment;
    struct impairment_config config = {.bad_percent = 1, .good_percent = 25, .bad_loss_percent = 100};
    struct tally tally = run(&config, 7, 0, &impairment);
    assert_share(tally.fates[IMPAIRMENT_LOST_BURST], 100.0 / 26);
    double length = (double)tally.fates[IMPAIRMENT_LOST_BURST] / tally.bursts;
    assert_true(length > 3.8 && length < 4.2);
}

static void the_same_seed_decides_the_same(void **state) {
    struct impairment first, second, other, back;
    struct impairment_config config = {
        .loss_percent = 2, .bad_percent = 1, .good_percent = 25, .bad_loss_percent = 100, .duplicate_percent = 3};
    run(&config, 7, 0, &first);
    run(&config, 7, 0, &second);
    run(&config, 8, 0, &other);
    run(&config, 7, 1, &back);
    assert_true(first.digest == second.digest);
    assert_true(first.digest != other.digest);
    assert_true(first.digest != back.digest);
}

/* Switching duplication on must not move the losses: runs stay comparable. */
static void one_impairment_leaves_the_others_alone(void **state) {
    struct impairment alone, both;
    struct impairment_verdict a, b;
    struct impairment_config config = {.loss_percent = 2};
    impairment_init(&alone, &config, 7, 0);
    config.duplicate_percent = 10;
    config.jitter_ns = MS;
    impairment_init(&both, &config, 7, 0);
    for (uint32_t i = 0; i < 10000; i++) {
        impairment_decide(&alone, &ip_packet, FRAME_BYTES, i, &a);
        impairment_decide(&both, &ip_packet, FRAME_BYTES, i, &b);
        assert_int_equal(a.fate, b.fate);
    }
}

/* 1,250 bytes at 100 Mb/s take 100 us. */
static void the_bottleneck_spaces_frames_and_its_queue_overflows(void **state) {
    struct impairment impairment;
    struct impairment_verdict verdict;
    struct impairment_config config = {.rate_bits = 100000000, .queue_bytes = 10 * FRAME_BYTES, .delay_ns = 5 * MS};
    impairment_init(&impairment, &config, 1, 0);
    for (uint32_t i = 0; i < 12; i++) {
        impairment_decide(&impairment, &ip_packet, FRAME_BYTES, 0, &verdict);
        assert_int_equal(verdict.copies, i < 10);
        if (i < 10)
            assert_int_equal(verdict.release_ns[0], 5 * MS + (i + 1) * 100000);
        else
            assert_int_equal(verdict.fate, IMPAIRMENT_QUEUE_FULL);
    }
    impairment_decide(&impairment, &ip_packet, FRAME_BYTES, 100000, &verdict); /* one has left: there is room for one */
    assert_int_equal(verdict.fate, IMPAIRMENT_PASS);
    impairment_decide(&impairment, &ip_packet, FRAME_BYTES, 100000, &verdict);
    assert_int_equal(verdict.fate, IMPAIRMENT_QUEUE_FULL);
    assert_int_equal(impairment.queue_bytes_max, 10 * FRAME_BYTES);
    impairment_decide(&impairment, &ip_packet, FRAME_BYTES, 50 * MS, &verdict); /* an idle link sends at once */
    assert_int_equal(verdict.release_ns[0], 55 * MS + 100000);
}

/* A queue smaller than a frame still lets one through an idle link. */
static void an_idle_bottleneck_takes_any_frame(void **state) {
    struct impairment impairment;
    struct impairment_verdict verdict;
    struct impairment_config config = {.rate_bits = 100000000, .queue_bytes = 100};
    impairment_init(&impairment, &config, 1, 0);
    impairment_decide(&impairment, &ip_packet, FRAME_BYTES, 0, &verdict);
    assert_int_equal(verdict.copies, 1);
}

static void jitter_keeps_the_order_unless_it_may_not(void **state) {
    for (int reorders = 0; reorders < 2; reorders++) {
        struct impairment impairment;
        struct impairment_verdict verdict;
        struct impairment_config config = {.delay_ns = 10 * MS, .jitter_ns = 5 * MS, .jitter_reorders = reorders};
        uint64_t last = 0, overtakes = 0, most = 0;
        impairment_init(&impairment, &config, 3, 0);
        for (uint64_t i = 0; i < 10000; i++) {
            uint64_t now = i * 100000;
            impairment_decide(&impairment, &ip_packet, FRAME_BYTES, now, &verdict);
            overtakes += verdict.release_ns[0] < last;
            last = verdict.release_ns[0];
            uint64_t took = last - now;
            assert_in_range(took, 10 * MS, 15 * MS);
            most = took > most ? took : most;
        }
        assert_true(most > 14 * MS);
        assert_int_equal(overtakes > 0, reorders);
    }
}

static void reordered_frames_come_later_and_others_do_not_wait(void **state) {
    struct impairment impairment;
    struct impairment_verdict verdict;
    struct impairment_config config = {.delay_ns = MS, .reorder_percent = 10, .reorder_ns = 7 * MS};
    impairment_init(&impairment, &config, 3, 0);
    for (uint64_t i = 0; i < 1000; i++) {
        impairment_decide(&impairment, &ip_packet, FRAME_BYTES, i, &verdict);
        assert_int_equal(verdict.release_ns[0], i + (verdict.reordered ? 8 : 1) * MS);
    }
}

static void packets_above_the_mtu_are_told_apart(void **state) {
    struct impairment impairment;
    struct impairment_verdict verdict;
    struct impairment_config config = {.mtu = 1000};
    struct packet packet = ip_packet;
    impairment_init(&impairment, &config, 3, 0);
    packet.end = 14 + 1000;
    impairment_decide(&impairment, &packet, packet.end, 0, &verdict);
    assert_int_equal(verdict.fate, IMPAIRMENT_PASS);
    packet.end++;
    impairment_decide(&impairment, &packet, packet.end, 0, &verdict);
    assert_int_equal(verdict.fate, IMPAIRMENT_TOO_BIG);
    packet.family = 0; /* not IP: the router of the path knows no such MTU */
    impairment_decide(&impairment, &packet, packet.end, 0, &verdict);
    assert_int_equal(verdict.fate, IMPAIRMENT_PASS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_are_as_asked),
        cmocka_unit_test(a_wire_does_nothing),
        cmocka_unit_test(everything_can_be_lost),
        cmocka_unit_test(bursts_have_their_length),
        cmocka_unit_test(the_same_seed_decides_the_same),
        cmocka_unit_test(one_impairment_leaves_the_others_alone),
        cmocka_unit_test(the_bottleneck_spaces_frames_and_its_queue_overflows),
        cmocka_unit_test(an_idle_bottleneck_takes_any_frame),
        cmocka_unit_test(jitter_keeps_the_order_unless_it_may_not),
        cmocka_unit_test(reordered_frames_come_later_and_others_do_not_wait),
        cmocka_unit_test(packets_above_the_mtu_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
