/* test_packet.c: what the forwarder sees in a frame, and what its router answers. */
#include "bench/wan/packet.h"
#include "bench/wan/random.h"
#include "dataplane/port/checksum.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { PAYLOAD = 1000, LENGTH4 = 14 + 20 + 32 + PAYLOAD, LENGTH6 = 14 + 40 + 32 + PAYLOAD };
static const uint8_t router4[4] = {192, 0, 2, 1};
static const uint8_t router6[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 1};

static void put16(uint8_t *at, uint32_t value) {
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* A TCP segment with timestamps from 10.0.0.1 to 10.0.0.2. */
static uint32_t segment4(uint8_t *frame) {
    memset(frame, 0, LENGTH4);
    memcpy(frame, "\2\0\0\0\0\2\2\0\0\0\0\1\x08\0", 14);
    uint8_t *ip = frame + 14;
    ip[0] = 0x45;
    put16(ip + 2, LENGTH4 - 14);
    ip[6] = 0x40;
    ip[8] = 64;
    ip[9] = 6;
    memcpy(ip + 12, "\x0a\0\0\1\x0a\0\0\2", 8);
    uint16_t sum = checksum_finish(checksum_add(0, ip, 20));
    memcpy(ip + 10, &sum, 2);
    ip[20 + 12] = 0x80;
    for (uint32_t i = 0; i < PAYLOAD; i++)
        ip[52 + i] = (uint8_t)(i * 7);
    return LENGTH4;
}

static uint32_t segment6(uint8_t *frame, uint8_t protocol) {
    memset(frame, 0, LENGTH6);
    memcpy(frame, "\2\0\0\0\0\2\2\0\0\0\0\1\x86\xdd", 14);
    frame[14] = 0x60;
    put16(frame + 14 + 4, LENGTH6 - 54);
    frame[14 + 6] = protocol;
    frame[14 + 8] = frame[14 + 24] = 0xfd;
    frame[14 + 23] = 1;
    frame[14 + 39] = 2;
    frame[54 + 12] = 0x80;
    return LENGTH6;
}

static void headers_and_payload_are_found(void **state) {
    uint8_t frame[LENGTH6 + 8];
    struct packet packet;
    packet_read(&packet, frame, segment4(frame));
    assert_int_equal(packet.family, 4);
    assert_int_equal(packet.payload, 14 + 20 + 32);
    assert_int_equal(packet.end, LENGTH4);
    assert_true(packet.dont_fragment);
    assert_false(packet.housekeeping);
    packet_read(&packet, frame, segment6(frame, 6));
    assert_int_equal(packet.family, 6);
    assert_int_equal(packet.payload, 14 + 40 + 32);
    assert_int_equal(packet_ip_bytes(&packet), LENGTH6 - 14);
}

static void padding_of_short_frames_is_no_packet(void **state) {
    uint8_t frame[LENGTH4];
    struct packet packet;
    segment4(frame);
    put16(frame + 16, 52);
    packet_read(&packet, frame, 72);
    assert_int_equal(packet_ip_bytes(&packet), 52);
}

static void the_links_own_traffic_is_known(void **state) {
    uint8_t frame[LENGTH6];
    struct packet packet;
    memset(frame, 0xff, 60);
    put16(frame + 12, 0x0806);
    packet_read(&packet, frame, 60);
    assert_true(packet.housekeeping);
    for (uint32_t type = 128; type < 140; type++) {
        segment6(frame, 58);
        frame[54] = (uint8_t)type;
        packet_read(&packet, frame, LENGTH6);
        assert_int_equal(packet.housekeeping, type >= 133 && type <= 137); /* RFC 4861 section 4 */
    }
    segment6(frame, 0); /* a listener report behind a hop-by-hop header (RFC 3810 section 5.2) */
    memcpy(frame + 14 + 24, "\xff\x02", 2);
    packet_read(&packet, frame, LENGTH6);
    assert_true(packet.housekeeping);
}

static uint64_t draw_next(uint64_t *state) {
    return random_mix((*state)++);
}

/* Any bytes of any length: nothing is read outside (the sanitizers watch), and a packet lies within its frame. */
static void rubbish_is_no_packet(void **state) {
    uint64_t state_of_draw = 1;
    for (uint32_t round = 0; round < 100000; round++) {
        uint32_t length = (uint32_t)(draw_next(&state_of_draw) % 100);
        uint8_t *frame = malloc(length + 1), reply[PACKET_ICMP_BYTES_MAX];
        struct packet packet;
        for (uint32_t i = 0; i < length; i++)
            frame[i] = (uint8_t)draw_next(&state_of_draw);
        if (length >= 15 && round % 2 == 0)
            memcpy(frame + 12, round % 4 == 0 ? "\x08\x00\x45" : "\x86\xdd\x60", 3);
        packet_read(&packet, frame, length);
        assert_true(packet.end <= length);
        if (packet.family != 0) {
            assert_true(packet.payload <= packet.end && packet.l3 < packet.end);
            packet_too_big(&packet, frame, 68, packet.family == 4 ? router4 : router6, reply);
            packet_flip(&packet, frame, PACKET_ANY, draw_next(&state_of_draw));
        }
        free(frame);
    }
}

static void one_bit_of_the_part_is_flipped(void **state) {
    uint8_t frame[LENGTH4], before[LENGTH4];
    struct packet packet;
    packet_read(&packet, before, segment4(before));
    for (uint64_t draw = 0; draw < 20000; draw++) {
        enum packet_part part = (enum packet_part)(draw % 3);
        memcpy(frame, before, sizeof frame);
        assert_true(packet_flip(&packet, frame, part, draw * 2654435761u));
        uint32_t bits = 0, where = 0;
        for (uint32_t i = 0; i < LENGTH4; i++) {
            bits += (uint32_t)__builtin_popcount(frame[i] ^ before[i]);
            where = frame[i] != before[i] ? i : where;
        }
        assert_int_equal(bits, 1);
        assert_true(where >= 14 && (part != PACKET_HEADERS || where < 66) && (part != PACKET_PAYLOAD || where >= 66));
    }
    packet.payload = packet.end;
    assert_false(packet_flip(&packet, frame, PACKET_PAYLOAD, 1));
}

/* RFC 1191 section 4: type 3, code 4, the next hop's MTU in the last 16 bits; the beginning of the packet follows. */
static void ipv4_is_told_that_fragmentation_is_needed(void **state) {
    uint8_t frame[LENGTH4], reply[PACKET_ICMP_BYTES_MAX];
    struct packet packet, answer;
    packet_read(&packet, frame, segment4(frame));
    uint32_t length = packet_too_big(&packet, frame, 700, router4, reply);
    assert_int_equal(length, 14 + 576);
    packet_read(&answer, reply, length);
    assert_int_equal(answer.family, 4);
    assert_int_equal(answer.protocol, 1);
    assert_memory_equal(reply, frame + 6, 6); /* to the sender */
    assert_memory_equal(reply + 14 + 12, router4, 4);
    assert_memory_equal(reply + 14 + 16, frame + 14 + 12, 4);
    assert_int_equal(checksum_finish(checksum_add(0, reply + 14, 20)), 0);
    assert_int_equal(checksum_finish(checksum_add(0, reply + 34, length - 34)), 0);
    assert_memory_equal(reply + 34, "\3\4", 2);
    assert_memory_equal(reply + 38, "\0\0\x02\xbc", 4);
    assert_memory_equal(reply + 42, frame + 14, length - 42);
}

/* RFC 4443 section 3.2: type 2, the MTU in 32 bits; no more than the minimum MTU in all. */
static void ipv6_is_told_that_the_packet_is_too_big(void **state) {
    uint8_t frame[LENGTH6], reply[PACKET_ICMP_BYTES_MAX];
    struct packet packet;
    packet_read(&packet, frame, segment6(frame, 6));
    uint32_t length = packet_too_big(&packet, frame, 1280, router6, reply);
    assert_int_equal(length, 14 + 48 + LENGTH6 - 14);
    assert_memory_equal(reply + 12, "\x86\xdd", 2);
    assert_memory_equal(reply + 14 + 8, router6, 16);
    assert_memory_equal(reply + 14 + 24, frame + 14 + 8, 16);
    assert_memory_equal(reply + 54, "\2\0", 2);
    assert_memory_equal(reply + 58, "\0\0\x05\0", 4);
    uint8_t pseudo[8] = {0};
    put16(pseudo + 2, length - 54);
    pseudo[7] = 58;
    uint64_t sum = checksum_add(checksum_add(0, reply + 14 + 8, 32), pseudo, 8);
    assert_int_equal(checksum_finish(checksum_add(sum, reply + 54, length - 54)), 0);
}

/* RFC 1122 3.2.2 */
static void errors_fragments_and_broadcasts_are_not_answered(void **state) {
    uint8_t frame[LENGTH4], reply[PACKET_ICMP_BYTES_MAX];
    struct packet packet;
    segment4(frame);
    frame[14 + 9] = 1;
    frame[34] = 3;
    packet_read(&packet, frame, LENGTH4);
    assert_int_equal(packet_too_big(&packet, frame, 700, router4, reply), 0);
    frame[34] = 8; /* an echo request is no error */
    assert_true(packet_too_big(&packet, frame, 700, router4, reply) > 0);
    frame[14 + 7] = 5;
    assert_int_equal(packet_too_big(&packet, frame, 700, router4, reply), 0);
    segment4(frame);
    memset(frame, 0xff, 6);
    packet_read(&packet, frame, LENGTH4);
    assert_int_equal(packet_too_big(&packet, frame, 700, router4, reply), 0);
}

/* RFC 791 section 2.3: the parts put together are the packet, each within the MTU, all but the last a multiple of eight. */
static void fragments_make_up_the_packet(void **state) {
    uint8_t frame[LENGTH4], fragment[LENGTH4], whole[LENGTH4];
    struct packet packet, part;
    packet_read(&packet, frame, segment4(frame));
    uint32_t offset = 0, length, bytes = 0, count = 0;
    while ((length = packet_fragment(&packet, frame, 300, &offset, fragment)) > 0) {
        packet_read(&part, fragment, length);
        uint32_t size = packet_ip_bytes(&part) - 20, at = (uint32_t)((fragment[20] & 0x1f) << 8 | fragment[21]) * 8;
        bool more = (fragment[20] & 0x20) != 0;
        assert_true(packet_ip_bytes(&part) <= 300 && (!more || size % 8 == 0));
        assert_int_equal(checksum_finish(checksum_add(0, fragment + 14, 20)), 0);
        memcpy(whole + at, fragment + 34, size);
        bytes += size;
        count++;
        assert_int_equal(more, bytes < LENGTH4 - 34);
    }
    assert_int_equal(bytes, LENGTH4 - 34);
    assert_int_equal(count, 4);
    assert_memory_equal(whole, frame + 34, bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_and_payload_are_found),
        cmocka_unit_test(padding_of_short_frames_is_no_packet),
        cmocka_unit_test(the_links_own_traffic_is_known),
        cmocka_unit_test(rubbish_is_no_packet),
        cmocka_unit_test(one_bit_of_the_part_is_flipped),
        cmocka_unit_test(ipv4_is_told_that_fragmentation_is_needed),
        cmocka_unit_test(ipv6_is_told_that_the_packet_is_too_big),
        cmocka_unit_test(errors_fragments_and_broadcasts_are_not_answered),
        cmocka_unit_test(fragments_make_up_the_packet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
