/* test_ipv4.c: what reaches TCP and what does not: Ethernet, VLAN, IPv4, ICMP, and whose worker it is (RFC 791, 792, 1122, 5927). */
#include "peer.h"
#include <string.h>

static uint8_t frame[FRAME_MAX];

static struct host *settled(void) {
    struct host *host = host_new();
    host_open(host);
    host_settle(host);
    return host;
}

static void assert_dropped(struct host *host, uint32_t length, const uint64_t *reason) {
    uint64_t before = *reason, bad = counter_get(&host->counters.frames_bad);
    uint32_t segments = heard.segments, errors = heard.errors;
    host_input(host, frame, length);
    assert_int_equal(*reason, before + 1);
    assert_int_equal(counter_get(&host->counters.frames_bad), bad + 1);
    assert_int_equal(heard.segments, segments);
    assert_int_equal(heard.errors, errors);
}

static void assert_heard(struct host *host, uint32_t length) {
    uint32_t segments = heard.segments;
    host_input(host, frame, length);
    assert_int_equal(heard.segments, segments + 1);
}

static void test_segment_reaches_tcp(void **state) {
    struct host *host = settled();
    uint32_t length = make_tcp(frame, FAR_IP, OUR_IP, 25, 40000, 33);
    /* RFC 894: short frames are padded; the padding is not TCP's. */
    memset(frame + length, 0x77, 20);
    assert_heard(host, length + 20);
    struct tcp_address ours = ip4(OUR_IP), theirs = ip4(FAR_IP);
    assert_memory_equal(&heard.packet.local, &ours, sizeof ours);
    assert_memory_equal(&heard.packet.remote, &theirs, sizeof theirs);
    assert_int_equal(heard.packet.length, 20 + 33);
    assert_memory_equal(heard.bytes, frame + 34, 20 + 33);
    host_end(host);
}

static void test_truncated_at_every_length(void **state) {
    struct host *host = settled();
    uint32_t length = make_tcp(frame, FAR_IP, OUR_IP, 25, 40000, 9);
    for (uint32_t cut = 0; cut < length; cut++) {
        uint64_t bad = counter_get(&host->counters.frames_bad);
        host_input(host, frame, cut);
        assert_int_equal(counter_get(&host->counters.frames_bad), bad + 1);
    }
    /* The same with the IPv4 length telling the truth. */
    for (uint32_t cut = 34; cut < 34 + 20; cut++) {
        make_tcp(frame, FAR_IP, OUR_IP, 25, 40000, 9);
        frame[17] = (uint8_t)(cut - 14);
        fix_ipv4(frame);
        assert_dropped(host, cut, &net_counters(host->net)->bad_tcp);
    }
    assert_int_equal(heard.segments, 0);
    host_end(host);
}

/* One wrong bit anywhere from the destination MAC to the last payload byte, the source MAC aside, never gets through. */
static void test_every_bit_matters(void **state) {
    struct host *host = settled();
    uint32_t length = make_tcp(frame, FAR_IP, OUR_IP, 25, 40000, 40);
    for (uint32_t bit = 0; bit < length * 8; bit++) {
        if (bit / 8 >= 6 && bit / 8 < 12)
            continue;
        frame[bit / 8] ^= (uint8_t)(1 << bit % 8);
        host_input(host, frame, length);
        frame[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(heard.segments, 0);
    }
    assert_heard(host, length);
    host_end(host);
}

static void test_checksums(void **state) {
    struct host *host = settled();
    uint32_t length = make_tcp(frame, FAR_IP, OUR_IP, 25, 40000, 40);
    frame[24] ^= 1;
    assert_dropped(host, length, &net_counters(host->net)->bad_ipv4_checksum);
    frame[24] ^= 1;
    frame[60] ^= 1;
    assert_dropped(host, length, &net_counters(host->net)->bad_tcp_checksum);
    /* The device verified it already: not done twice. */
    host->queues[0]->checksum_good = true;
    assert_heard(host, length);
    host_end(host);
}

/* RFC 1122 3.2.1.3 and RFC 3704: addresses that no sender may have. */
static void test_prohibited_sources(void **state) {
    struct host *host = settled();
    static const uint32_t sources[] = {0, 0x00000001, 0x7f000001, 0xe0000001, 0xf0000001, 0xffffffff, OUR_IP, 0x0a6300ff, 0x0a630000};
    for (uint32_t i = 0; i < sizeof sources / sizeof sources[0]; i++)
        assert_dropped(host, make_tcp(frame, sources[i], OUR_IP, 25, 40000, 1), &net_counters(host->net)->bad_source);
    assert_heard(host, make_tcp(frame, PEER_IP, OUR_IP, 25, 40000, 1));
    host_end(host);
}

/* Who is sent to has passed the checks of a sender already: that must not let through what they refuse. */
static void test_known_peers_are_no_exception(void **state) {
    struct host *host = host_new();
    host->config.interfaces[0].addresses[1] = (struct net_address){.address = ip4(OUR_IP + 1), .prefix_length = 24};
    host->config.interfaces[0].address_count = 2;
    host_open(host);
    host_settle(host);
    assert_int_equal(transmit_payload(host, OUR_IP, OUR_IP + 1, "x"), 0);
    assert_int_equal(transmit_payload(host, OUR_IP, FAR_IP, "x"), 0);
    assert_dropped(host, make_tcp(frame, OUR_IP + 1, OUR_IP, 25, 40000, 1), &net_counters(host->net)->bad_source);
    uint32_t length = make_tcp(frame, FAR_IP, OUR_IP, 25, 40000, 1);
    assert_heard(host, length);
    memcpy(frame, broadcast_mac, 6);
    assert_dropped(host, length, &net_counters(host->net)->ignored);
    host_end(host);
}

static void test_not_for_us(void **state) {
    struct host *host = settled();
    assert_dropped(host, make_tcp(frame, FAR_IP, OUR_IP + 1, 25, 40000, 1), &net_counters(host->net)->ignored);
    assert_dropped(host, make_tcp(frame, FAR_IP, 0x0a6300ff, 25, 40000, 1), &net_counters(host->net)->ignored);
    /* RFC 1122 3.3.6: a unicast datagram in a broadcast of the link. */
    uint32_t length = make_tcp(frame, FAR_IP, OUR_IP, 25, 40000, 1);
    memcpy(frame, broadcast_mac, 6);
    assert_dropped(host, length, &net_counters(host->net)->ignored);
    memcpy(frame, evil_mac, 6);
    assert_dropped(host, length, &net_counters(host->net)->ignored);
    memcpy(frame, our_mac, 6);
    frame[6] |= 1; /* a group as sender */
    assert_dropped(host, length, &net_counters(host->net)->bad_ethernet);
    frame[6] &= 0xfe;
    frame[13] = 0xdd; /* neither IPv4 nor ARP */
    assert_dropped(host, length, &net_counters(host->net)->ignored);
    assert_dropped(host, make_ipv4(frame, 17, FAR_IP, OUR_IP, (const uint8_t *)"12345678", 8), &net_counters(host->net)->ignored);
    host_end(host);
}

static void test_header_that_cannot_be(void **state) {
    struct host *host = settled();
    uint32_t length = make_tcp(frame, FAR_IP, OUR_IP, 25, 40000, 20);
    static const uint8_t first[] = {0x55, 0x65, 0x44, 0x40};
    for (uint32_t i = 0; i < sizeof first; i++) {
        frame[14] = first[i];
        assert_dropped(host, length, &net_counters(host->net)->bad_ipv4);
    }
    length = make_tcp(frame, FAR_IP, OUR_IP, 25, 40000, 20);
    frame[17]++; /* longer than the frame */
    fix_ipv4(frame);
    assert_dropped(host, length, &net_counters(host->net)->bad_ipv4);
    frame[17] = 19; /* shorter than itself */
    fix_ipv4(frame);
    assert_dropped(host, length, &net_counters(host->net)->bad_ipv4);
    for (uint32_t words = 0; words < 16; words++) { /* RFC 9293 3.1: data offset */
        length = make_tcp(frame, FAR_IP, OUR_IP, 25, 40000, 20);
        frame[34 + 12] = (uint8_t)(words << 4);
        if (words < 5 || words > 10)
            assert_dropped(host, length, &net_counters(host->net)->bad_tcp);
    }
    host_end(host);
}

static uint32_t with_options(const uint8_t *options, uint32_t bytes) {
    uint32_t length = make_tcp(frame, FAR_IP, OUR_IP, 25, 40000, 20);
    memmove(frame + 34 + bytes, frame + 34, length - 34);
    memcpy(frame + 34, options, bytes);
    frame[14] = (uint8_t)(0x45 + bytes / 4);
    frame[17] = (uint8_t)(length - 14 + bytes);
    fix_ipv4(frame);
    return length + bytes;
}

/* RFC 1122 3.2.1.8: options are skipped; RFC 7126 4.3 and 4.4: but source routes are dropped, and so are lengths that cannot be. */
static void test_options(void **state) {
    struct host *host = settled();
    static const uint8_t good[][8] = {
        {1, 1, 1, 1, 1, 1, 1, 0}, {148, 4, 0, 0, 1, 1, 0, 0}, {7, 7, 4, 0, 0, 0, 0, 0}, {0, 131, 7, 4}, {30, 8}};
    for (uint32_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_heard(host, with_options(good[i], 8));
    static const uint8_t wrong[][8] = {{131, 7, 4, 10, 0, 0, 1, 0}, {1, 137, 7, 4, 10, 0, 0, 1}, {7, 1}, {7, 0}, {7, 9},
                                       {1, 1, 1, 1, 1, 1, 1, 7}};
    for (uint32_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_dropped(host, with_options(wrong[i], 8), &net_counters(host->net)->ipv4_options);
    uint32_t length = make_tcp(frame, FAR_IP, OUR_IP, 25, 40000, 20);
    memset(frame + 20, 0, 2); /* a whole datagram without DF is no fragment */
    fix_ipv4(frame);
    assert_heard(host, length);
    host_end(host);
}

static uint32_t tagged(uint16_t tag) {
    uint32_t length = make_tcp(frame, FAR_IP, OUR_IP, 25, 40000, 20);
    memmove(frame + 16, frame + 12, length - 12);
    frame[12] = 0x81;
    frame[13] = 0;
    frame[14] = (uint8_t)(tag >> 8);
    frame[15] = (uint8_t)tag;
    return length + 4;
}

/* IEEE 802.1Q: the interface of a VLAN hears that VLAN only; a priority tag is no VLAN. */
static void test_vlan(void **state) {
    struct host *host = settled();
    assert_heard(host, tagged(0xe000));
    assert_dropped(host, tagged(42), &net_counters(host->net)->ignored);
    for (uint32_t cut = 14; cut < 18; cut++) {
        tagged(0);
        assert_dropped(host, cut, &net_counters(host->net)->bad_ethernet);
    }
    host_end(host);

    host = host_new();
    host->config.interfaces[0].vlan = 42;
    host_open(host);
    assert_heard(host, tagged(42));
    assert_heard(host, tagged(0xe000 | 42));
    assert_dropped(host, tagged(43), &net_counters(host->net)->ignored);
    assert_dropped(host, make_tcp(frame, FAR_IP, OUR_IP, 25, 40000, 20), &net_counters(host->net)->ignored);
    host_end(host);
}

/* net.h: worker w owns [port_first + w * span, + span). */
static void test_hand_over(void **state) {
    struct host *host = host_new();
    host->config.worker = 1;
    host->config.workers = 3;
    host->config.port_first = 20000;
    host->config.port_span = 1000;
    host_open(host);
    struct port_queue *queue = host->queues[0];
    static const struct {
        uint16_t port;
        int owner; /* -1: handled here */
    } cases[] = {{20000, 0}, {20999, 0}, {21000, -1}, {21999, -1}, {22000, 2}, {22999, 2}, {23000, -1}, {19999, -1}, {25, -1}, {65535, -1}};
    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t handed = queue->handed_count, segments = heard.segments;
        host_input(host, frame, make_tcp(frame, FAR_IP, OUR_IP, 25, cases[i].port, 1));
        assert_int_equal(queue->handed_count, handed + (cases[i].owner >= 0));
        assert_int_equal(heard.segments, segments + (cases[i].owner < 0));
        if (cases[i].owner >= 0)
            assert_int_equal(queue->handed_to[handed], cases[i].owner);
    }
    /* An ICMP error goes to the owner of the quoted segment's port. */
    uint32_t handed = queue->handed_count;
    host_input(host, frame, make_icmp_error(frame, 3, 1, 0, OUR_IP, 22500, 7));
    assert_int_equal(queue->handed_count, handed + 1);
    assert_int_equal(queue->handed_to[handed], 2);
    assert_int_equal(heard.errors, 0);
    /* What came from another worker stays, whatever the port says. */
    queue->handed_over = true;
    assert_heard(host, make_tcp(frame, FAR_IP, OUR_IP, 25, 20000, 1));
    assert_int_equal(queue->handed_count, handed + 1);
    host_end(host);
}

/* RFC 1122 3.2.2.6: the reply has the data of the request, and goes back to the MAC that asked. */
static void test_echo(void **state) {
    struct host *host = settled();
    static const uint32_t sizes[] = {0, 1, 56, 1472};
    for (uint32_t i = 0; i < 4; i++) {
        host_forget(host);
        uint32_t length = make_echo(frame, FAR_IP, OUR_IP, sizes[i]);
        host_input(host, frame, length);
        assert_int_equal(host->queues[0]->sent_count, 1);
        struct sent *sent = &host->queues[0]->sent[0];
        assert_int_equal(sent->length, length);
        assert_memory_equal(sent->bytes, peer_mac, 6);
        assert_memory_equal(sent->bytes + 6, our_mac, 6);
        assert_memory_equal(sent->bytes + 26, frame + 30, 4);
        assert_memory_equal(sent->bytes + 30, frame + 26, 4);
        assert_int_equal(sum16(sent->bytes + 14, 20, 0), 0);
        assert_int_equal(sent->bytes[34], 0);
        assert_int_equal(sum16(sent->bytes + 34, length - 34, 0), 0);
        assert_memory_equal(sent->bytes + 38, frame + 38, length - 38);
    }
    host_forget(host);
    uint32_t length = make_echo(frame, FAR_IP, OUR_IP, 56);
    frame[50] ^= 1;
    assert_dropped(host, length, &net_counters(host->net)->bad_icmp_checksum);
    host_input(host, frame, make_echo(frame, FAR_IP, 0x0a6300ff, 56)); /* RFC 1122 3.2.2.6: a broadcast need not be answered */
    assert_int_equal(host->queues[0]->sent_count, 0);
    host_end(host);
}

static void test_echo_is_limited(void **state) {
    struct host *host = settled();
    uint32_t length = make_echo(frame, FAR_IP, OUR_IP, 8);
    for (uint32_t i = 0; i < 300; i++)
        host_input(host, frame, length);
    assert_int_equal(net_counters(host->net)->echo_replies, 100);
    assert_int_equal(net_counters(host->net)->echo_limited, 200);
    host_forget(host);
    host->now_us += 10000; /* 1000 a second */
    for (uint32_t i = 0; i < 300; i++)
        host_input(host, frame, length);
    assert_int_equal(net_counters(host->net)->echo_replies, 110);
    host_end(host);
}

/* RFC 9293 3.9.2.2: which errors are hard. RFC 1191 section 4: the next hop's MTU; tcp.h: 1 when a router tells none. */
static void test_icmp_errors(void **state) {
    struct host *host = settled();
    static const struct {
        uint8_t type, code;
        uint16_t mtu_told;
        bool hard;
        uint16_t mtu;
    } cases[] = {
        {3, 0, 0, false, 0},   {3, 1, 0, false, 0},  {3, 2, 0, true, 0},   {3, 3, 0, true, 0},   {3, 4, 1400, false, 1400},
        {3, 4, 68, false, 68}, {3, 4, 0, false, 1},  {3, 5, 0, false, 0},  {3, 9, 0, true, 0},   {3, 10, 0, true, 0},
        {3, 13, 0, true, 0},   {11, 0, 0, false, 0}, {11, 1, 0, false, 0}, {12, 0, 0, false, 0},
    };
    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t errors = heard.errors;
        host_input(host, frame, make_icmp_error(frame, cases[i].type, cases[i].code, cases[i].mtu_told, OUR_IP, 40001, 0xdeadbeef));
        assert_int_equal(heard.errors, errors + 1);
        assert_int_equal(heard.hard, cases[i].hard);
        assert_int_equal(heard.mtu, cases[i].mtu);
        struct tcp_address ours = ip4(OUR_IP), theirs = ip4(FAR_IP);
        assert_memory_equal(&heard.local, &ours, sizeof ours);
        assert_memory_equal(&heard.remote, &theirs, sizeof theirs);
        assert_int_equal(heard.local_port, 40001);
        assert_int_equal(heard.remote_port, 25);
        assert_int_equal(heard.sequence, 0xdeadbeef);
    }
    host_end(host);
}

/* RFC 5927: what was not sent by us is not about us. */
static void test_icmp_errors_that_are_not_ours(void **state) {
    struct host *host = settled();
    static const struct {
        uint8_t at, value; /* in the quoted header */
    } wrong[] = {{0, 0x46}, {0, 0x65}, {9, 17}, {6, 1}, {7, 1}, {15, 3}, {3, 39}};
    for (uint32_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        uint32_t length = make_icmp_error(frame, 3, 1, 0, OUR_IP, 40001, 1);
        frame[42 + wrong[i].at] = wrong[i].value;
        if (wrong[i].at == 3)
            frame[42 + 2] = 0;
        fix_icmp(frame, length);
        assert_dropped(host, length, &net_counters(host->net)->bad_icmp);
    }
    for (uint32_t cut = 34; cut < 34 + 36; cut++) { /* too short to say which segment */
        make_icmp_error(frame, 3, 1, 0, OUR_IP, 40001, 1);
        frame[17] = (uint8_t)(cut - 14);
        fix_ipv4(frame);
        fix_icmp(frame, cut < 38 ? 38 : cut);
        assert_dropped(host, cut, &net_counters(host->net)->bad_icmp);
    }
    assert_dropped(host, make_icmp_error(frame, 3, 4, 67, OUR_IP, 40001, 1), &net_counters(host->net)->bad_icmp);
    assert_dropped(host, make_icmp_error(frame, 4, 0, 0, OUR_IP, 40001, 1), &net_counters(host->net)->ignored); /* RFC 6633 */
    assert_dropped(host, make_icmp_error(frame, 5, 1, 0, OUR_IP, 40001, 1), &net_counters(host->net)->ignored); /* no redirects */
    host_end(host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_segment_reaches_tcp),
        cmocka_unit_test(test_truncated_at_every_length),
        cmocka_unit_test(test_every_bit_matters),
        cmocka_unit_test(test_checksums),
        cmocka_unit_test(test_prohibited_sources),
        cmocka_unit_test(test_known_peers_are_no_exception),
        cmocka_unit_test(test_not_for_us),
        cmocka_unit_test(test_header_that_cannot_be),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_vlan),
        cmocka_unit_test(test_hand_over),
        cmocka_unit_test(test_echo),
        cmocka_unit_test(test_echo_is_limited),
        cmocka_unit_test(test_icmp_errors),
        cmocka_unit_test(test_icmp_errors_that_are_not_ours),
    };
    return cmocka_run_group_tests_name("net_ipv4", tests, NULL, NULL);
}
