/* test_icmp6.c: ICMPv6 (RFC 4443): echo, and which errors TCP hears (RFC 9293 3.9.2.2, RFC 5461, RFC 8201, RFC 5927). */
#include "peer.h"
#include "dataplane/port/toeplitz.h"
#include <string.h>

static uint8_t frame[FRAME_MAX];

static struct host *settled(void) {
    struct host *host = host_new6();
    host_open(host);
    host_settle6(host);
    return host;
}

static void test_echo(void **state) {
    struct host *host = settled();
    static const char *const ours[] = {OUR_IP6, OUR_LINK_LOCAL};
    static const uint32_t sizes[] = {0, 1, 56, 1452};
    for (uint32_t i = 0; i < 8; i++) {
        host_forget(host);
        uint32_t length = make_echo6(frame, PEER_IP6, ours[i / 4], sizes[i % 4]);
        host_input(host, frame, length);
        assert_int_equal(host->queues[0]->sent_count, 1);
        const struct sent *sent = &host->queues[0]->sent[0];
        assert_int_equal(sent->length, length);
        assert_memory_equal(sent->bytes, peer_mac, 6);
        assert_memory_equal(sent->bytes + 22, frame + 38, 16);
        assert_memory_equal(sent->bytes + 38, frame + 22, 16);
        assert_int_equal(sent->bytes[54], 129);
        assert_int_equal(sum_l4(sent->bytes, length, 58), 0);
        assert_memory_equal(sent->bytes + 58, frame + 58, length - 58);
    }
    host_end(host);
}

/* Nothing is answered that could make us a reflector: groups, wrong checksums, answers. */
static void test_echo_is_not_answered(void **state) {
    struct host *host = settled();
    const struct net_counters *counters = net_counters(host->net);
    host_input(host, frame, make_echo6(frame, PEER_IP6, "ff02::1", 8));
    host_input(host, frame, make_echo6(frame, PEER_IP6, "ff02::1:ff00:2", 8));
    assert_int_equal(counters->ignored, 2);
    host_input(host, frame, make_echo6(frame, "::", "ff02::1", 8));
    assert_int_equal(counters->bad_source, 1);
    uint32_t length = make_echo6(frame, PEER_IP6, OUR_IP6, 8);
    frame[60] ^= 1;
    host_input(host, frame, length);
    assert_int_equal(counters->bad_icmp_checksum, 1);
    length = make_echo6(frame, PEER_IP6, OUR_IP6, 8);
    frame[54] = 129;
    fix_icmp6(frame, length);
    host_input(host, frame, length);
    assert_int_equal(counters->ignored, 3);
    for (uint32_t cut = 54; cut < 62; cut++) {
        make_echo6(frame, PEER_IP6, OUR_IP6, 8);
        frame[19] = (uint8_t)(cut - 54);
        host_input(host, frame, cut);
    }
    assert_int_equal(counters->bad_icmp, 8);
    assert_int_equal(host->queues[0]->sent_count, 0);
    host_end(host);
}

/* One bucket for both families. */
static void test_echo_is_limited(void **state) {
    struct host *host = settled();
    uint8_t other[FRAME_MAX];
    uint32_t length = make_echo6(frame, PEER_IP6, OUR_IP6, 8), length4 = make_echo(other, FAR_IP, OUR_IP, 8);
    for (uint32_t i = 0; i < 150; i++) {
        host_input(host, frame, length);
        host_input(host, other, length4);
    }
    assert_int_equal(net_counters(host->net)->echo_replies, 100);
    assert_int_equal(net_counters(host->net)->echo_limited, 200);
    host_end(host);
}

static void test_errors(void **state) {
    struct host *host = settled();
    static const struct {
        uint8_t type, code;
        uint32_t mtu_told;
        bool hard;
        uint16_t mtu;
    } cases[] = {
        {1, 0, 0, false, 0}, {1, 1, 0, true, 0},  {1, 2, 0, false, 0},       {1, 3, 0, false, 0},       {1, 4, 0, true, 0},
        {1, 5, 0, true, 0},  {1, 6, 0, true, 0},  {2, 0, 1280, false, 1280}, {2, 0, 1492, false, 1492}, {2, 0, 65535, false, 65535},
        {3, 0, 0, false, 0}, {3, 1, 0, false, 0}, {4, 0, 7, false, 0},       {4, 1, 6, true, 0},        {4, 2, 7, false, 0},
    };
    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t errors = heard.errors;
        host_input(host, frame, make_icmp6_error(frame, cases[i].type, cases[i].code, cases[i].mtu_told, OUR_IP6, 40001, 0xdeadbeef));
        assert_int_equal(heard.errors, errors + 1);
        assert_int_equal(heard.hard, cases[i].hard);
        assert_int_equal(heard.mtu, cases[i].mtu);
        struct tcp_address ours = ip6(OUR_IP6), theirs = ip6(FAR_IP6);
        assert_memory_equal(&heard.local, &ours, sizeof ours);
        assert_memory_equal(&heard.remote, &theirs, sizeof theirs);
        assert_int_equal(heard.local_port, 40001);
        assert_int_equal(heard.remote_port, 25);
        assert_int_equal(heard.sequence, 0xdeadbeef);
    }
    host_end(host);
}

/* RFC 8201 section 4: below 1280 is a lie. RFC 5927: what was not sent by us is not about us. */
static void test_errors_that_are_not_ours(void **state) {
    struct host *host = settled();
    uint64_t bad = 0;
    static const uint32_t mtus[] = {0, 1, 68, 1279, 65536, 0xffffffff};
    for (uint32_t i = 0; i < sizeof mtus / sizeof mtus[0]; i++) {
        host_input(host, frame, make_icmp6_error(frame, 2, 0, mtus[i], OUR_IP6, 40001, 1));
        assert_int_equal(net_counters(host->net)->bad_icmp, ++bad);
    }
    static const struct { uint8_t at, value; /* in the quoted header */ } wrong[] = {{0, 0x45}, {6, 17}, {6, 44}, {23, 3}};
    for (uint32_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        uint32_t length = make_icmp6_error(frame, 1, 4, 0, OUR_IP6, 40001, 1);
        frame[62 + wrong[i].at] = wrong[i].value;
        fix_icmp6(frame, length);
        host_input(host, frame, length);
        assert_int_equal(net_counters(host->net)->bad_icmp, ++bad);
    }
    for (uint32_t cut = 62; cut < 54 + 8 + 40 + 8; cut++) { /* too short to say which segment */
        make_icmp6_error(frame, 1, 4, 0, OUR_IP6, 40001, 1);
        frame[18] = 0;
        frame[19] = (uint8_t)(cut - 54);
        fix_icmp6(frame, cut);
        host_input(host, frame, cut);
        assert_int_equal(net_counters(host->net)->bad_icmp, ++bad);
    }
    assert_int_equal(heard.errors, 0);
    host_end(host);
}

/* An error goes to the owner of the quoted segment's port; where the device hashes, to whom it brings that connection's replies. */
static void test_errors_find_their_owner(void **state) {
    struct host *host = host_new6();
    host->config.workers = 4;
    host->config.port_first = 20000;
    host->config.port_span = 1000;
    host_open(host);
    struct port_queue *queue = host->queues[0];
    host_input(host, frame, make_icmp6_error(frame, 1, 4, 0, OUR_IP6, 22500, 7));
    assert_int_equal(queue->handed_count, 1);
    assert_int_equal(queue->handed_to[0], 2);
    host_end(host);

    static struct port_rss rss;
    toeplitz_rss_default(&rss, 4);
    struct toeplitz toeplitz;
    toeplitz_set_up(&toeplitz, rss.key, rss.key_length);
    host = host_new6();
    host->config.workers = 4;
    host->config.port_first = 20000;
    host->config.port_span = 1000;
    host->config.interfaces[0].rss = &rss;
    host_open(host);
    queue = host->queues[0];
    uint32_t ours = 0;
    for (uint16_t port = 22000; port < 22050; port++) {
        struct tcp_address local = ip6(OUR_IP6), remote = ip6(FAR_IP6);
        uint32_t owner = toeplitz_queue(&rss, toeplitz_tuple(&toeplitz, &remote, &local, 25, port)), handed = queue->handed_count;
        uint32_t errors = heard.errors;
        host_input(host, frame, make_icmp6_error(frame, 1, 4, 0, OUR_IP6, port, 7));
        assert_int_equal(queue->handed_count, handed + (owner != 0));
        assert_int_equal(heard.errors, errors + (owner == 0));
        if (owner != 0)
            assert_int_equal(queue->handed_to[handed], owner);
        ours += owner == 0;
        /* A segment stays where the device brought it: TCP asks when it does not know it. */
        uint32_t segments = heard.segments;
        host_input(host, frame, make_tcp6(frame, FAR_IP6, OUR_IP6, 25, port, 1));
        assert_int_equal(heard.segments, segments + 1);
    }
    assert_in_range(ours, 1, 49);
    host_end(host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo),   cmocka_unit_test(test_echo_is_not_answered),     cmocka_unit_test(test_echo_is_limited),
        cmocka_unit_test(test_errors), cmocka_unit_test(test_errors_that_are_not_ours), cmocka_unit_test(test_errors_find_their_owner),
    };
    return cmocka_run_group_tests_name("net_icmp6", tests, NULL, NULL);
}
