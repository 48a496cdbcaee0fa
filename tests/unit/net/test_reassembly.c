/* test_reassembly.c: fragments become datagrams again, within bounds (RFC 791, 815, 8200 4.5, 5722, 6946, 7112), and long echoes leave as
 * fragments. */
#include "dataplane/net/reassembly.h"
#include "peer.h"
#include <string.h>

static uint8_t frame[FRAME_MAX], whole[FRAME_MAX];

static struct host *settled(void) {
    struct host *host = host_new6();
    host_open(host);
    host_settle6(host);
    return host;
}

static const struct net_counters *counted(const struct host *host) {
    return net_counters(host->net);
}

static uint32_t make_whole(bool six, uint32_t payload_bytes) {
    return six ? make_tcp6(whole, PEER_IP6, OUR_IP6, 25, 40000, payload_bytes) : make_tcp(whole, PEER_IP, OUR_IP, 25, 40000, payload_bytes);
}

static void give(struct host *host, uint32_t whole_length, uint32_t offset, uint32_t length, uint32_t identification) {
    host_input(host, frame, make_fragment(frame, whole, whole_length, offset, length, identification));
}

static void assert_whole(bool six, uint32_t whole_length) {
    uint32_t head = six ? 54 : 34;
    assert_int_equal(heard.segments, 1);
    assert_int_equal(heard.packet.length, whole_length - head);
    assert_memory_equal(heard.bytes, whole + head, whole_length - head);
    heard.segments = 0;
}

/* In order, backwards, from the middle; both families. 20 + 980 bytes: fragments of 400, 400 and 200. */
static void test_any_order(void **state) {
    static const uint32_t orders[][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    for (uint32_t i = 0; i < 12; i++) {
        struct host *host = settled();
        bool six = i >= 6;
        uint32_t length = make_whole(six, 980);
        for (uint32_t k = 0; k < 3; k++) {
            assert_int_equal(heard.segments, 0);
            give(host, length, orders[i % 6][k] * 400, orders[i % 6][k] == 2 ? 200 : 400, 0x1234);
        }
        assert_whole(six, length);
        assert_int_equal(counted(host)->fragments, 3);
        assert_int_equal(counted(host)->reassembled, 1);
        host_end(host);
    }
}

/* The device has seen fragments only: its word on the checksum counts for nothing. */
static void test_checksum_is_verified(void **state) {
    struct host *host = settled();
    uint32_t length = make_whole(false, 100);
    whole[60] ^= 1;
    host->queues[0]->checksum_good = true;
    give(host, length, 0, 64, 1);
    give(host, length, 64, 56, 1);
    assert_int_equal(heard.segments, 0);
    assert_int_equal(counted(host)->bad_tcp_checksum, 1);
    host_end(host);
}

/* The network may repeat a fragment; what differs or overlaps loses the datagram and all that still comes of it (RFC 5722). */
static void test_repeats_and_overlaps(void **state) {
    for (uint32_t six = 0; six < 2; six++) {
        struct host *host = settled();
        uint32_t length = make_whole(six, 180);
        give(host, length, 0, 64, 7);
        give(host, length, 0, 64, 7);
        give(host, length, 128, 72, 7);
        give(host, length, 128, 72, 7);
        give(host, length, 64, 64, 7);
        assert_whole(six, length);

        give(host, length, 0, 64, 8);
        give(host, length, 56, 64, 8); /* overlaps by one block */
        assert_int_equal(counted(host)->fragments_bad, 1);
        give(host, length, 64, 64, 8);
        give(host, length, 128, 72, 8);
        assert_int_equal(counted(host)->fragments_bad, 3);

        give(host, length, 0, 64, 9);
        uint32_t fragment = make_fragment(frame, whole, length, 0, 64, 9);
        frame[fragment - 1] ^= 1; /* the same place, other bytes */
        host_input(host, frame, fragment);
        give(host, length, 64, 136, 9);
        assert_int_equal(heard.segments, 0);
        /* The loss is forgotten with its time. */
        host_wait(host, REASSEMBLY_TIMEOUT_US + SECOND);
        give(host, length, 0, 64, 8);
        give(host, length, 64, 136, 8);
        assert_whole(six, length);
        host_end(host);
    }
}

/* What no sender makes. */
static void test_impossible_fragments(void **state) {
    struct host *host = settled();
    uint32_t length = make_whole(false, 980), bad = 0;
    give(host, length, 0, 401, 1); /* more to come, but not whole blocks */
    assert_int_equal(counted(host)->fragments_bad, ++bad);
    give(host, length, 800, 200, 2); /* the last, */
    give(host, length, 400, 608, 2); /* and one beyond it */
    assert_int_equal(counted(host)->fragments_bad, ++bad);
    give(host, length, 800, 200, 3);
    whole[34] ^= 1;
    give(host, length - 8, 800, 192, 3); /* two ends */
    assert_int_equal(counted(host)->fragments_bad, ++bad);
    give(host, length, 800, 8, 4);         /* more to come after this, */
    give(host, length - 192, 400, 408, 4); /* but the last lies before */
    assert_int_equal(counted(host)->fragments_bad, ++bad);
    host_wait(host, REASSEMBLY_TIMEOUT_US + SECOND); /* what is lost counts in the source's share until then */
    uint32_t fragment = make_fragment(frame, whole, length, 0, 400, 5);
    frame[20] |= 0x1f; /* the ping of death: beyond 64 KiB */
    frame[21] = 0xff;
    fix_ipv4(frame);
    host_input(host, frame, fragment);
    assert_int_equal(counted(host)->fragments_bad, ++bad);
    fragment = make_fragment(frame, whole, length, 400, 400, 6);
    memcpy(frame + 16, "\0\x14", 2); /* empty */
    fix_ipv4(frame);
    host_input(host, frame, fragment);
    assert_int_equal(counted(host)->fragments_bad, ++bad);
    assert_int_equal(heard.segments, 0);
    host_end(host);
}

/* RFC 7112: an IPv6 first fragment has all headers. RFC 8200 4.5: fragments are not fragmented again. RFC 6946: an atomic fragment stands
 * alone. */
static void test_ipv6_headers(void **state) {
    struct host *host = settled();
    uint32_t length = make_whole(true, 180);
    give(host, length, 0, 16, 1);
    assert_int_equal(counted(host)->fragments_bad, 1);

    give(host, length, 0, 64, 2); /* open, when an atomic fragment of the same identification comes: */
    host_input(host, frame, make_fragment(frame, whole, length, 0, length - 54, 2));
    assert_whole(true, length);
    give(host, length, 64, 136, 2); /* and it is still open */
    assert_whole(true, length);

    uint8_t nested[FRAME_MAX];
    uint32_t nested_length = make_fragment(nested, whole, length, 0, length - 54, 3);
    memcpy(whole, nested, nested_length);
    give(host, nested_length, 0, 64, 3);
    uint64_t extensions = counted(host)->ipv6_extensions;
    give(host, nested_length, 64, nested_length - 54 - 64, 3);
    assert_int_equal(counted(host)->ipv6_extensions, extensions + 1);
    assert_int_equal(heard.segments, 0);
    host_end(host);
}

/* Other fields make another datagram. */
static void test_datagrams_are_told_apart(void **state) {
    struct host *host = settled();
    uint32_t length = make_whole(false, 180);
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t fragment = make_fragment(frame, whole, length, 64, 136, 1 + (i == 0));
        frame[14 + 9] = i == 1 ? 1 : 6;
        frame[14 + 15] = (uint8_t)(frame[14 + 15] + (i == 2));
        fix_ipv4(frame);
        if (i < 3) {
            host_input(host, frame, fragment);
            give(host, length, 0, 64, 1);
            assert_int_equal(heard.segments, 0);
            continue;
        }
        host_input(host, frame, fragment);
    }
    assert_whole(false, length);
    host_end(host);
}

static void test_timeout(void **state) {
    struct host *host = settled();
    uint32_t length = make_whole(false, 180);
    give(host, length, 0, 64, 1);
    host_wait(host, REASSEMBLY_TIMEOUT_US - SECOND);
    assert_int_equal(counted(host)->reassembly_timeouts, 0);
    host_wait(host, 2 * SECOND);
    assert_int_equal(counted(host)->reassembly_timeouts, 1);
    host_forget(host);
    give(host, length, 64, 136, 1);
    assert_int_equal(heard.segments, 0);
    assert_int_equal(host->queues[0]->sent_count, 0); /* no "time exceeded": nothing for strangers to multiply */
    host_end(host);
}

/* One source has its share; a flood of sources displaces the oldest, never memory. */
static void test_bounds(void **state) {
    struct host *host = settled();
    uint32_t length = make_whole(false, 180);
    for (uint32_t i = 0; i < REASSEMBLY_PER_SOURCE + 3; i++)
        give(host, length, 0, 64, i);
    assert_int_equal(counted(host)->fragments_limited, 3);
    give(host, length, 64, 136, 0); /* what is open may still be finished */
    assert_whole(false, length);
    host_end(host);

    host = settled();
    for (uint32_t i = 0; i < REASSEMBLY_DATAGRAMS + 5; i++) {
        host->now_us += 1000;
        make_tcp(whole, FAR_IP + i, OUR_IP, 25, 40000, 180);
        give(host, length, 0, 64, 1);
    }
    assert_int_equal(counted(host)->reassembly_evicted, 5);
    give(host, length, 64, 136, 1); /* the newest */
    assert_whole(false, length);
    make_tcp(whole, FAR_IP + 4, OUR_IP, 25, 40000, 180);
    give(host, length, 64, 136, 1); /* the youngest of the displaced */
    assert_int_equal(heard.segments, 0);
    host_end(host);

    host = settled();
    host->now_us += SECOND;
    for (uint32_t i = 0; i < 3000; i++) { /* 10,000/s, bursts of 1,000, whoever sends them */
        make_tcp(whole, FAR_IP + i, OUR_IP, 25, 40000, 180);
        give(host, length, 0, 64, 1);
    }
    assert_int_equal(counted(host)->fragments_limited, 2000);
    host_end(host);
}

/* Fragments come to any queue: all workers get them, and the one whose connection it is takes the datagram up. */
static void test_workers(void **state) {
    for (uint32_t worker = 0; worker < 3; worker++) {
        struct host *host = host_new();
        host->config.worker = worker;
        host->config.workers = 3;
        host->config.port_first = 39000;
        host->config.port_span = 1000; /* 40000 is worker 1's */
        host_open(host);
        uint32_t length = make_tcp(whole, PEER_IP, OUR_IP, 25, 40000, 180);
        give(host, length, 0, 64, 1);
        assert_int_equal(host->queues[0]->handed_all_count, 1);
        host->queues[0]->handed_over = true;
        give(host, length, 64, 136, 1);
        assert_int_equal(host->queues[0]->handed_all_count, 1);
        assert_int_equal(counted(host)->fragments, 1); /* the other is in the count of the worker that received it */
        assert_int_equal(heard.segments, worker == 1);
        assert_int_equal(host->queues[0]->handed_count, 0);
        /* What belongs to no port, or to a port of nobody's, is worker 0's. */
        heard.segments = 0;
        length = make_tcp(whole, PEER_IP, OUR_IP, 4000, 25, 180);
        give(host, length, 0, 64, 3);
        give(host, length, 64, 136, 3);
        assert_int_equal(heard.segments, worker == 0);
        length = make_echo(whole, PEER_IP, OUR_IP, 180);
        host_forget(host);
        give(host, length, 0, 64, 2);
        give(host, length, 64, 124, 2);
        assert_int_equal(host->queues[0]->sent_count, worker == 0);
        host_end(host);
    }
}

/* RFC 1122 3.2.2.6: an echo has all the data, in fragments where the link is too short; together they are the message. */
static void test_long_echo(void **state) {
    for (uint32_t six = 0; six < 2; six++) {
        struct host *host = settled();
        uint32_t head = six ? 54 : 34, sent = 0;
        uint8_t longer[4096] = {0}, message[4096];
        uint32_t length = six ? make_echo6(whole, PEER_IP6, OUR_IP6, 0) : make_echo(whole, PEER_IP, OUR_IP, 0);
        memcpy(longer, whole, length);
        for (uint32_t i = 0; i < 3000; i++)
            longer[length + i] = (uint8_t)(i * 5 + i / 251);
        length += 3000;
        longer[six ? 18 : 16] = (uint8_t)((length - (six ? 54 : 14)) >> 8);
        longer[six ? 19 : 17] = (uint8_t)(length - (six ? 54 : 14));
        longer[head + 2] = longer[head + 3] = 0;
        uint16_t sum = sum_l4(longer, length, six ? 58 : 1);
        longer[head + 2] = (uint8_t)(sum >> 8);
        longer[head + 3] = (uint8_t)sum;
        for (uint32_t offset = 0; offset < 3008; offset += 1440)
            host_input(host, frame, make_fragment(frame, longer, length, offset, offset == 2880 ? 128 : 1440, 5));
        assert_int_equal(host->queues[0]->sent_count, 3);
        for (uint32_t i = 0; i < 3; i++) {
            const struct sent *out = &host->queues[0]->sent[i];
            const uint8_t *ip = out->bytes + 14;
            assert_true(out->length <= 1514);
            if (six) {
                assert_int_equal(ip[6], 44);
                assert_int_equal(ip[40], 58);
                assert_int_equal(((uint32_t)ip[42] << 8 | ip[43]) & 0xfff8, sent);
                assert_int_equal(ip[43] & 1, i < 2);
                memcpy(message + sent, ip + 48, out->length - 62);
                sent += out->length - 62;
            } else {
                assert_int_equal(sum16(ip, 20, 0), 0);
                assert_int_equal((((uint32_t)ip[6] << 8 | ip[7]) & 0x1fff) * 8, sent);
                assert_int_equal(ip[6] & 0xe0, i < 2 ? 0x20 : 0);
                assert_memory_equal(ip + 4, host->queues[0]->sent[0].bytes + 18, 2);
                memcpy(message + sent, ip + 20, out->length - 34);
                sent += out->length - 34;
            }
        }
        assert_int_equal(sent, 3008);
        assert_int_equal(message[0], six ? 129 : 0);
        assert_memory_equal(message + 4, longer + head + 4, 3004);
        memcpy(longer + head, message, 3008);
        if (six) { /* the other way round, the sum is the same */
            assert_int_equal(sum_l4(longer, length, 58), 0);
        } else {
            assert_int_equal(sum16(message, 3008, 0), 0);
        }
        host_end(host);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_order),
        cmocka_unit_test(test_checksum_is_verified),
        cmocka_unit_test(test_repeats_and_overlaps),
        cmocka_unit_test(test_impossible_fragments),
        cmocka_unit_test(test_ipv6_headers),
        cmocka_unit_test(test_datagrams_are_told_apart),
        cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_workers),
        cmocka_unit_test(test_long_echo),
    };
    return cmocka_run_group_tests_name("net_reassembly", tests, NULL, NULL);
}
