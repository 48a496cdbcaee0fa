/* test_mutation.c: 200,000 damaged frames of both families from a fixed seed. Nothing is read out of bounds (AddressSanitizer), and what
 * reaches TCP is whole. */
#include "peer.h"
#include <stdio.h>
#include <string.h>

enum { FRAMES = 200000 };

static uint64_t seed = 0x9e3779b97f4a7c15u;

static uint32_t pick(uint32_t below) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 33) % below;
}

static uint32_t make_any(uint8_t *frame) {
    static uint8_t whole[FRAME_MAX];
    switch (pick(13)) {
    case 7:
        return make_tcp6(frame, pick(2) ? FAR_IP6 : PEER_IP6, OUR_IP6, 25, (uint16_t)(20000 + pick(4000)), pick(1400));
    case 8:
        return make_echo6(frame, PEER_IP6, pick(2) ? OUR_IP6 : OUR_LINK_LOCAL, pick(1400));
    case 9:
        return make_icmp6_error(frame, (uint8_t)(1 + pick(4)), (uint8_t)pick(8), pick(70000), OUR_IP6, (uint16_t)(20000 + pick(4000)),
                                pick(1u << 31));
    case 10:
        return make_nd(frame, (uint8_t)(135 + pick(2)), (uint8_t)pick(256), pick(2) ? PEER_IP6 : "::", pick(2) ? OUR_IP6 : "ff02::1:ff00:2",
                       pick(2) ? peer_mac : evil_mac, pick(2) ? OUR_IP6 : PEER_IP6, (uint8_t)pick(3), peer_mac);
    case 11:
    case 12: { /* two fragments of one datagram, of few identifications */
        uint32_t length = pick(2) ? make_tcp6(whole, PEER_IP6, OUR_IP6, 25, 20000, 180) : make_tcp(whole, PEER_IP, OUR_IP, 25, 20000, 180);
        return pick(2) ? make_fragment(frame, whole, length, 0, 104, pick(8)) : make_fragment(frame, whole, length, 104, 96, pick(8));
    }
    case 0:
        return make_tcp(frame, pick(2) ? FAR_IP : PEER_IP, OUR_IP, 25, (uint16_t)(20000 + pick(4000)), pick(1400));
    case 1:
        return make_echo(frame, PEER_IP, OUR_IP, pick(1400));
    case 2:
        return make_icmp_error(frame, (uint8_t[]){3, 11, 12, 4, 5}[pick(5)], (uint8_t)pick(16), (uint16_t)pick(65536), OUR_IP,
                               (uint16_t)(20000 + pick(4000)), pick(1u << 31));
    case 3:
        return make_arp(frame, broadcast_mac, 1, pick(2) ? peer_mac : evil_mac, PEER_IP, OUR_IP);
    case 4:
        return make_arp(frame, our_mac, 2, pick(2) ? gateway_mac : evil_mac, pick(2) ? GATEWAY_IP : PEER_IP, OUR_IP);
    case 5:
        return make_arp(frame, broadcast_mac, 1, evil_mac, pick(2) ? OUR_IP : GATEWAY_IP, pick(2) ? OUR_IP : GATEWAY_IP);
    default: {
        uint32_t length = make_tcp(frame, FAR_IP, OUR_IP, 25, 40000, pick(64));
        memmove(frame + 16, frame + 12, length - 12);
        memcpy(frame + 12, "\x81\x00\x00", 3);
        frame[15] = (uint8_t)pick(2);
        return length + 4;
    }
    }
}

static uint32_t mutate(uint8_t *frame, uint32_t length) {
    for (uint32_t changes = pick(4); changes > 0; changes--) {
        switch (pick(4)) {
        case 0:
            frame[pick(length)] ^= (uint8_t)(1 << pick(8));
            break;
        case 1:
            frame[pick(length < 80 ? length : 80)] = (uint8_t)pick(256);
            break;
        case 2:
            length = 1 + pick(length);
            break;
        default:
            length += pick(FRAME_MAX - length + 1);
        }
    }
    /* So that the damage gets past the first checksum, it is mended now and then. */
    if (length >= 34 && (uint32_t)(frame[14] & 15) * 4 + 14 <= length && pick(2))
        fix_ipv4(frame);
    if (length >= 42 && frame[12] == 8 && frame[23] == 1 && pick(2))
        fix_icmp(frame, length);
    if (length >= 62 && frame[12] == 0x86 && frame[20] == 58 && pick(2))
        fix_icmp6(frame, length);
    return length;
}

static void test_mutated_frames(void **state) {
    struct host *host = host_new6();
    host->config.workers = 3;
    host->config.port_first = 20000;
    host->config.port_span = 1000;
    host_open(host);
    uint32_t segments = 0, answered = 0, six = 0;
    static uint8_t frame[FRAME_MAX];
    for (uint32_t i = 0; i < FRAMES; i++) {
        memset(frame, 0, sizeof frame);
        host->queues[0]->handed_over = pick(8) == 0;
        host->queues[0]->handed_count = 0;
        uint32_t length = mutate(frame, make_any(frame));
        host_input(host, frame, length);
        if (heard.segments != segments) {
            uint8_t pseudo[32];
            segments = heard.segments;
            uint32_t bytes = heard.packet.local.family == 4 ? 4 : 16;
            struct tcp_address ours = bytes == 4 ? ip4(OUR_IP) : ip6(OUR_IP6);
            memcpy(pseudo, heard.packet.remote.bytes, bytes);
            memcpy(pseudo + bytes, heard.packet.local.bytes, bytes);
            assert_int_equal(sum16(heard.bytes, heard.packet.length, (uint16_t)~sum16(pseudo, 2 * bytes, 6 + heard.packet.length)), 0);
            assert_memory_equal(&heard.packet.local, &ours, sizeof ours);
            six += bytes == 16;
        }
        answered += host->queues[0]->sent_count;
        host_forget(host);
        host->now_us += pick(20000);
        if (pick(4) == 0)
            net_poll(host->net, host->now_us);
        if (pick(16) == 0)
            transmit_payload(host, OUR_IP, pick(2) ? FAR_IP : PEER_IP + pick(16), "payload");
        if (pick(16) == 0)
            transmit_payload6(host, OUR_IP6, pick(2) ? FAR_IP6 : PEER_IP6, "payload");
        host_forget(host);
    }
    /* The frames that were left whole kept everything alive. */
    assert_true(segments > FRAMES / 100);
    assert_true(answered > FRAMES / 100);
    assert_true(heard.errors > FRAMES / 1000);
    assert_true(six > FRAMES / 1000);
    assert_true(net_counters(host->net)->reassembled > FRAMES / 1000);
    print_message("%u segments, %u answers, %u errors\n", segments, answered, heard.errors);
    host_end(host);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_mutated_frames)};
    return cmocka_run_group_tests_name("net_mutation", tests, NULL, NULL);
}
