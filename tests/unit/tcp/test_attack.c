/* test_attack.c: what strangers and broken peers send: RFC 5961 (blind attacks), RFC 9293 3.10.7.1 (no connection), and rubbish. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "wire.h"

static void open_with(struct wire *wire, const struct tcp_config *config) {
    wire_open(wire, config);
    wire_connect(wire);
    wire_establish(wire, &(struct wire_peer){.mss = 1460, .shift = -1});
}

static void expect_challenge(struct wire *wire) {
    assert_int_equal(wire->segment_count, 1);
    assert_int_equal(wire_last(wire)->flags, TCP_ACK);
    assert_int_equal(wire_last(wire)->sequence, wire->iss + 1);
    assert_int_equal(wire_last(wire)->acknowledgement, wire->sequence);
    wire_poll(wire);
    assert_int_equal(wire->closed, 0);
    wire_clear(wire);
    wire_wait(wire, 1000000);
}

/* RFC 5961 section 3.2: only the exact number resets; in the window a challenge ACK; outside nothing at all. */
static void reset_needs_the_exact_sequence_number(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    wire_put(&wire, TCP_RST, wire.sequence + 1, 0, NULL, 0);
    expect_challenge(&wire);
    wire_put(&wire, TCP_RST, wire.sequence - 1, 0, NULL, 0);
    wire_put(&wire, TCP_RST, wire.sequence + 16384, 0, NULL, 0);
    wire_poll(&wire);
    assert_int_equal(wire.segment_count, 0);
    assert_int_equal(wire.closed, 0);
    wire_put(&wire, TCP_RST, wire.sequence, 0, NULL, 0);
    wire_poll(&wire);
    assert_int_equal(wire.closed, 1);
    assert_int_equal(wire.error, TCP_RESET);
    assert_int_equal(wire.segment_count, 0);
    wire_free(&wire);
}

/* RFC 5961 section 4.2: a SYN earns a challenge ACK, whatever its number. */
static void syn_in_a_connection_is_challenged(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    wire_put(&wire, TCP_SYN, wire.sequence, 0, NULL, 0);
    expect_challenge(&wire);
    wire_put(&wire, TCP_SYN | TCP_ACK, wire.sequence + 100, wire.iss + 1, NULL, 0);
    expect_challenge(&wire);
    assert_int_equal(tcp_stack_counters(wire.stack)->challenge_acks, 2);
    wire_free(&wire);
}

/* RFC 5961 section 5.2: an ACK of the future, or from before the largest window ever, drops the segment with its text. */
static void text_needs_a_sensible_ack(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    wire_put(&wire, TCP_ACK, wire.sequence, wire.iss + 2, "evil", 4);
    expect_challenge(&wire);
    wire_put(&wire, TCP_ACK, wire.sequence, wire.iss + 1 - 70000, "evil", 4);
    expect_challenge(&wire);
    assert_int_equal(wire.text_length, 0);
    wire_put(&wire, TCP_ACK, wire.sequence, wire.iss + 1 - 60000, "late", 4);
    assert_int_equal(wire.text_length, 4);
    wire_free(&wire);
}

/* RFC 7323 5.3: R3 comes after R2. Whoever knows the ports and nothing else must not move ts_recent: half of all sequence numbers lie
 * before the window, and a time far ahead would make everything that the peer says an old duplicate. */
static void timestamps_count_only_from_within_the_window(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    wire_connect(&wire);
    wire.ts_value = 1000;
    wire_establish(&wire, &(struct wire_peer){.mss = 1460, .shift = -1, .timestamps = true});
    wire.ts_value = 1000 + 0x7ffffff0u;
    wire_put(&wire, TCP_ACK, wire.sequence - 100000, wire.iss + 1, NULL, 0);         /* before the window */
    wire_put(&wire, TCP_ACK, wire.sequence - 100000, wire.iss + 1, "evil", 4);       /* with text */
    wire_put(&wire, TCP_RST, wire.sequence - 100000, wire.iss + 1, NULL, 0);         /* a reset of the past */
    wire_put(&wire, TCP_ACK, wire.sequence, wire.iss + 1 + 1000000, NULL, 0);        /* in the window, an ACK of the future */
    wire_put(&wire, TCP_SYN | TCP_ACK, wire.sequence - 1, wire.iss + 1, NULL, 0);    /* a SYN */
    wire_put(&wire, TCP_ACK | TCP_FIN, wire.sequence - 100000, wire.iss + 1, "", 0); /* a FIN of the past */
    wire.ts_value = 1001;
    wire_say(&wire, "250 ok\r\n", 8);
    assert_int_equal(wire.text_length, 8);
    wire_free(&wire);
}

/* RFC 7323 5.5: after 24 days of silence the peer's clock may have wrapped, and what it says counts again; after less it does not. */
static void timestamps_are_forgotten_after_24_days(void **state) {
    const uint64_t day_us = 86400ULL * 1000 * 1000;
    struct wire wire;
    wire_open(&wire, NULL);
    wire_connect(&wire);
    wire.ts_value = 1000;
    wire_establish(&wire, &(struct wire_peer){.mss = 1460, .shift = -1, .timestamps = true});
    wire.ts_value = 999;
    wire_wait(&wire, 23 * day_us);
    wire_put(&wire, TCP_ACK, wire.sequence, wire.iss + 1, "late", 4);
    assert_int_equal(wire.text_length, 0);
    wire_wait(&wire, 2 * day_us);
    wire.ts_value = 1000 + 0x90000000u;
    wire_say(&wire, "421 bye\r\n", 9);
    assert_int_equal(wire.text_length, 9);
    wire.ts_value++;
    wire_say(&wire, "421 bye\r\n", 9);
    assert_int_equal(wire.text_length, 18);
    wire.ts_value -= 2;
    wire_put(&wire, TCP_ACK, wire.sequence, wire.iss + 1, "late", 4);
    assert_int_equal(wire.text_length, 18);
    wire_free(&wire);
}

/* RFC 5961 section 7: challenge ACKs are limited. */
static void challenges_are_limited(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    for (int i = 0; i < 1000; i++) {
        wire_put(&wire, TCP_SYN, wire.sequence, 0, NULL, 0);
        wire.now_us += 1000;
    }
    wire_poll(&wire);
    assert_in_range(wire.segment_count, 1, 11);
    wire_free(&wire);
}

/* The same for SYNs outside of the window (RFC 5961 section 4: whatever their number). */
static void challenges_outside_of_the_window_are_limited(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    for (int i = 0; i < 1000; i++) {
        wire_put(&wire, TCP_SYN, wire.sequence + 1000000, 0, NULL, 0);
        wire_poll(&wire);
        wire.now_us += 1000;
    }
    assert_in_range(wire.segment_count, 1, 11);
    wire_free(&wire);
}

/* Half of all sequence numbers are of the past. Text from far there, which the peer cannot have sent again, earns the ACK that a pass gives
 * anyway, and no report of a duplicate (RFC 2883), each of which would be an ACK of its own. */
static void text_of_the_far_past_is_answered_once_a_pass(void **state) {
    struct wire wire;
    uint32_t spans[4][2];
    wire_open(&wire, NULL);
    wire_connect(&wire);
    wire_establish(&wire, &(struct wire_peer){.mss = 1460, .shift = -1, .sack = true});
    for (int i = 0; i < 100; i++) {
        wire_put(&wire, TCP_ACK, wire.sequence - 1000000, wire.iss + 1, "evil", 4);
    }
    wire_poll(&wire);
    assert_int_equal(wire.segment_count, 1);
    assert_int_equal(wire_spans(wire_last(&wire), spans), 0);
    wire_clear(&wire);
    wire_say(&wire, "250 ok\r\n", 8);
    wire_put(&wire, TCP_ACK, wire.sequence - 8, wire.iss + 1, "250 ok\r\n", 8); /* a copy of what was just said is reported */
    wire_poll(&wire);
    assert_int_equal(wire_spans(wire_last(&wire), spans), 1);
    wire_free(&wire);
}

/* And in TIME_WAIT: the last ACK again where the peer's FIN comes again, but no answer to each of a flood. */
static void answers_of_time_wait_are_limited(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    tcp_close(wire.conn, wire.now_us);
    wire_put(&wire, TCP_ACK | TCP_FIN, wire.sequence, wire.iss + 2, NULL, 0);
    wire_poll(&wire);
    assert_int_equal(wire.closed, 1);
    wire_clear(&wire);
    for (int i = 0; i < 1000; i++) {
        wire_put(&wire, i % 2 == 0 ? TCP_SYN : TCP_ACK, wire.sequence + 100000, wire.iss + 2, "evil", i % 2 == 0 ? 0 : 4);
        wire.now_us += 1000;
    }
    assert_in_range(wire.segment_count, 1, 11);
    wire_clear(&wire);
    wire_wait(&wire, 200000);
    wire_put(&wire, TCP_ACK | TCP_FIN, wire.sequence, wire.iss + 2, NULL, 0);
    assert_int_equal(wire.segment_count, 1);
    assert_int_equal(wire_last(&wire)->acknowledgement, wire.sequence + 1);
    wire_free(&wire);
}

/* RFC 9293 3.10.7.1: with ACK <SEQ=SEG.ACK><RST>, without <SEQ=0><ACK=SEG.SEQ+SEG.LEN><RST,ACK>, and never to a RST. */
static void segments_for_nobody_are_reset(void **state) {
    struct wire wire;
    wire_open(&wire, NULL);
    wire.local_port = 4242;
    wire_put(&wire, TCP_ACK, 700, 900, "abc", 3);
    assert_int_equal(wire_last(&wire)->flags, TCP_RST);
    assert_int_equal(wire_last(&wire)->sequence, 900);
    assert_int_equal(wire_last(&wire)->local_port, 4242);
    wire_put(&wire, TCP_SYN, 700, 0, "abc", 3);
    assert_int_equal(wire_last(&wire)->flags, TCP_RST | TCP_ACK);
    assert_int_equal(wire_last(&wire)->sequence, 0);
    assert_int_equal(wire_last(&wire)->acknowledgement, 704);
    wire_put(&wire, TCP_RST, 700, 0, NULL, 0);
    wire_put(&wire, TCP_RST | TCP_ACK, 700, 0, NULL, 0);
    assert_int_equal(wire.segment_count, 2);
    wire_free(&wire);
}

/* A header that lies about its length, and options that end in the middle or never. */
static void malformed_segments(void **state) {
    struct wire wire;
    open_with(&wire, NULL);
    uint8_t header[24] = {0};
    for (uint32_t length = 0; length < sizeof(header); length++) {
        header[12] = (uint8_t)(length % 16 << 4);
        struct tcp_packet packet = {.local = wire.local, .remote = wire.remote, .header = header, .length = length};
        tcp_input(wire.stack, &packet, wire.now_us);
    }
    assert_true(tcp_stack_counters(wire.stack)->bad_segments >= 20);
    static const uint8_t odd[][12] = {{2},      {2, 0},   {2, 1}, {2, 4, 5}, {8, 10, 1, 2}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 8},
                                      {3, 255}, {254, 12}};
    for (uint32_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        wire_put_options(&wire, TCP_ACK, wire.sequence, wire.acknowledgement, odd[i], 12, "x", 1);
        wire.sequence++;
    }
    assert_int_equal(wire.text_length, sizeof(odd) / sizeof(odd[0]));
    wire_free(&wire);
}

static uint64_t random_state;
static uint32_t draw(uint32_t below) {
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)((random_state * 0x2545f4914f6cdd1dULL >> 32) % below);
}

static uint32_t fuzz_owners;
static void fuzz_release(struct tcp_owner *owner) {
    fuzz_owners--;
    free(owner);
}

/* A segment near what the connection expects, then bent: most of these reach deep. */
static void put_bent(struct wire *wire, uint32_t sent_end) {
    static const uint8_t text[3000];
    static const uint8_t flags[] = {TCP_ACK,           TCP_ACK, TCP_ACK | TCP_PSH, TCP_ACK | TCP_FIN,
                                    TCP_SYN | TCP_ACK, TCP_SYN, TCP_RST,           TCP_RST | TCP_ACK};
    uint8_t options[40];
    uint32_t sequence = wire->sequence,
             ack = draw(4) == 0   ? wire->iss + 1 + draw(sent_end - wire->iss)
                   : draw(8) == 0 ? sent_end
                                  : wire->last_ack,
             length = draw(4) == 0   ? draw(3000)
                      : draw(3) == 0 ? draw(40)
                                     : 0;
    uint8_t kind = flags[draw(100) == 0 ? draw(8) : draw(60) == 0 ? 3 : draw(3)];
    uint8_t options_length = draw(3) == 0 ? (uint8_t)(4 * draw(11)) : 0;
    for (uint32_t i = 0; i < options_length; i++) {
        options[i] = (uint8_t)(draw(2) ? draw(12) : draw(256));
    }
    if (draw(8) == 0) {
        wire->window = draw(5) == 0 ? draw(3) * 700 : draw(65536);
    }
    wire->last_ack = ack;
    switch (draw(12)) {
    case 0:
        sequence += draw(20000);
        break;
    case 1:
        sequence -= draw(20000);
        break;
    case 2:
        ack += draw(100000) - 50000;
        break;
    case 3:
        sequence = draw(UINT32_MAX);
        break;
    default:
        break;
    }
    wire_put_options(wire, kind, sequence, ack, options, options_length, text, length);
    if (sequence == wire->sequence && kind == TCP_ACK) {
        wire->sequence += length;
    }
}

/* 200,000 bent segments from a fixed seed into live connections: nothing is read or written out of bounds (under the sanitizers), each
 * connection ends once, each owner is released once, nothing stays behind. */
static void bent_segments(void **state) {
    enum { SEGMENTS = 200000 };
    struct wire wire;
    uint32_t opened = 0;
    random_state = 0x5eed5eed5eed5eedULL;
    wire_open(&wire, &(struct tcp_config){.max_receive_blocks = 20, .max_segments_in_flight = 64, .max_ranges = 64});
    for (uint32_t i = 0; i < SEGMENTS; i++) {
        if (wire.conn == NULL) {
            wire_clear(&wire);
            wire.transmit_result = 0;
            if (tcp_connect(wire.stack, &wire.local, &wire.remote, 25, 10000000, &wire, &wire.conn, wire.now_us) != 0) {
                fail();
            }
            opened++;
            wire.iss = wire_last(&wire)->sequence;
            wire.local_port = wire_last(&wire)->local_port;
            wire.sequence = draw(UINT32_MAX);
            wire.acknowledgement = wire.last_ack = wire.iss + 1;
            if (draw(10) != 0) {
                wire_put(&wire, TCP_SYN | TCP_ACK, wire.sequence++, wire.iss + 1, NULL, 0);
            }
        }
        if (draw(6) == 0) {
            struct tcp_owner *owner = malloc(sizeof(*owner));
            *owner = (struct tcp_owner){.references = 1, .release = fuzz_release};
            fuzz_owners++;
            struct tcp_piece piece = {.bytes = wire_pattern(), .length = 1 + draw(9000), .owner = owner};
            tcp_send(wire.conn, &piece, 1, wire.now_us);
            tcp_output(wire.conn, wire.now_us);
            if (--owner->references == 0) {
                fuzz_release(owner);
            }
        }
        if (draw(20) == 0) {
            wire.take_limit = draw(2) == 0 ? draw(2000) : UINT32_MAX;
            tcp_receive_resume(wire.conn, wire.now_us);
        }
        if (draw(500) == 0) {
            tcp_close(wire.conn, wire.now_us);
        }
        wire.transmit_result = draw(20) == 0 ? -EAGAIN : 0;
        put_bent(&wire, wire.acknowledgement);
        if (draw(8) == 0) {
            wire.now_us += draw(300000);
            wire_poll(&wire);
        }
        for (uint32_t k = 0; k < wire.segment_count; k++) {
            uint32_t end = wire.segments[k].sequence + wire.segments[k].length + (wire.segments[k].flags & TCP_FIN ? 1 : 0);
            wire.acknowledgement = (int32_t)(end - wire.acknowledgement) > 0 ? end : wire.acknowledgement;
        }
        wire.text_length = 0;
        wire_clear(&wire);
        if (draw(1500) == 0 && wire.conn != NULL) {
            tcp_abort(wire.conn, wire.now_us);
            wire_poll(&wire);
        }
    }
    if (wire.conn != NULL) {
        tcp_abort(wire.conn, wire.now_us);
    }
    wire.transmit_result = 0;
    for (int i = 0; i < 200; i++) {
        wire_clear(&wire);
        wire_wait(&wire, 1000000);
    }
    const struct tcp_counters *counters = tcp_stack_counters(wire.stack);
    print_message("%u opened, %lu established, %lu fast, %lu timeouts, %lu out of order, %lu bytes in, %lu challenges, %lu TIME_WAIT\n",
                  opened, counters->established, counters->retransmits_fast, counters->retransmits_timeout, counters->out_of_order,
                  counters->bytes_in, counters->challenge_acks, counters->time_wait);
    assert_int_equal(wire.closed, opened);
    assert_int_equal(fuzz_owners, 0);
    struct tcp_usage usage;
    tcp_stack_usage(wire.stack, &usage);
    assert_memory_equal(&usage, &(struct tcp_usage){0}, sizeof(usage));
    /* The bending is worth something only while it reaches the inside. */
    assert_true(opened > 100 && counters->established > 100 && counters->retransmits_fast > 10 && counters->retransmits_timeout > 10 &&
                counters->out_of_order > 1000 && counters->bytes_in > 100000 && counters->time_wait > 0);
    wire_free(&wire);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reset_needs_the_exact_sequence_number),
        cmocka_unit_test(syn_in_a_connection_is_challenged),
        cmocka_unit_test(text_needs_a_sensible_ack),
        cmocka_unit_test(timestamps_count_only_from_within_the_window),
        cmocka_unit_test(timestamps_are_forgotten_after_24_days),
        cmocka_unit_test(challenges_are_limited),
        cmocka_unit_test(challenges_outside_of_the_window_are_limited),
        cmocka_unit_test(text_of_the_far_past_is_answered_once_a_pass),
        cmocka_unit_test(answers_of_time_wait_are_limited),
        cmocka_unit_test(segments_for_nobody_are_reset),
        cmocka_unit_test(malformed_segments),
        cmocka_unit_test(bent_segments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
