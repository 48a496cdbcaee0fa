/* test_transmit.c: the way out: interface, next hop, headers (RFC 791, 1122 3.3.1, 6864, 9293 3.1). */
#include "peer.h"
#include "dataplane/port/toeplitz.h"
#include <errno.h>
#include <string.h>

static struct host *settled(void) {
    struct host *host = host_new();
    host_open(host);
    host_settle(host);
    return host;
}

static void test_gateway_or_link(void **state) {
    struct host *host = settled();
    assert_int_equal(transmit_payload(host, OUR_IP, FAR_IP, "x"), 0);
    assert_int_equal(host->queues[0]->sent_count, 1);
    assert_memory_equal(host->queues[0]->sent[0].bytes, gateway_mac, 6);
    host_forget(host);
    assert_int_equal(transmit_payload(host, OUR_IP, PEER_IP, "x"), 0);
    net_poll(host->net, host->now_us);
    assert_int_equal(host->queues[0]->sent_count, 1); /* on the link: it is asked itself */
    assert_memory_equal(host->queues[0]->sent[0].bytes + 38, "\x0a\x63\x00\x09", 4);
    host_end(host);
}

static void test_no_route(void **state) {
    struct host *host = host_new();
    host->config.interfaces[0].gateway.family = 0;
    host_open(host);
    assert_int_equal(transmit_payload(host, OUR_IP, FAR_IP, "x"), -EHOSTUNREACH);
    assert_int_equal(transmit_payload(host, OUR_IP + 1, PEER_IP, "x"), -EHOSTUNREACH); /* not an address of ours */
    assert_int_equal(transmit_payload(host, 0, PEER_IP, "x"), -EHOSTUNREACH);
    static const uint32_t nobody[] = {0, 0x7f000001, 0xe0000001, 0xffffffff, 0x0a6300ff, 0x0a630000};
    for (uint32_t i = 0; i < sizeof nobody / sizeof nobody[0]; i++)
        assert_int_equal(transmit_payload(host, OUR_IP, nobody[i], "x"), -EHOSTUNREACH);
    struct tcp_segment six = {.local.family = 6, .remote.family = 6};
    assert_int_equal(net_transmit(host->net, &six), -EHOSTUNREACH);
    assert_int_equal(net_counters(host->net)->unreachable, 10);
    host_end(host);
}

static void test_headers(void **state) {
    struct host *host = settled();
    static const uint8_t options[12] = {1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8};
    struct tcp_piece pieces[3] = {
        {.bytes = (const uint8_t *)"one", .length = 3}, {.bytes = NULL, .length = 0}, {.bytes = (const uint8_t *)"three", .length = 5}};
    pieces[1].bytes = (const uint8_t *)"";
    struct tcp_segment segment = {.local = ip4(OUR_IP),
                                  .remote = ip4(FAR_IP),
                                  .local_port = 40000,
                                  .remote_port = 25,
                                  .sequence = 0x11223344,
                                  .acknowledgement = 0x55667788,
                                  .flags = TCP_ACK | TCP_PSH,
                                  .window = 0x1234,
                                  .options_length = 12,
                                  .options = options,
                                  .piece_count = 3,
                                  .payload_length = 8,
                                  .pieces = pieces};
    assert_int_equal(net_transmit(host->net, &segment), 0);
    assert_int_equal(host->queues[0]->sent_count, 1);
    const struct sent *sent = &host->queues[0]->sent[0];
    const uint8_t *ip = sent->bytes + 14, *tcp = ip + 20;
    assert_int_equal(sent->length, 14 + 20 + 32 + 8);
    assert_memory_equal(sent->bytes, "\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x08\0", 14);
    assert_memory_equal(ip, "\x45\0\0\x3c", 4);
    assert_memory_equal(ip + 4, "\0\0\x40\0\x40\x06", 6); /* RFC 6864: atomic, so identification 0 */
    assert_int_equal(sum16(ip, 20, 0), 0);
    assert_memory_equal(ip + 12, "\x0a\x63\0\x02\xc0\0\x02\x19", 8);
    assert_memory_equal(tcp, "\x9c\x40\0\x19\x11\x22\x33\x44\x55\x66\x77\x88\x80\x18\x12\x34", 16);
    assert_memory_equal(tcp + 18, "\0\0", 2);
    assert_memory_equal(tcp + 20, options, 12);
    assert_memory_equal(tcp + 32, "onethree", 8);
    assert_int_equal(sum16(tcp, 40, (uint16_t)~sum16(ip + 12, 8, 6 + 40)), 0);
    host_end(host);
}

/* What is sent can be received: by a net that has the peer's address. */
static void test_round_trip(void **state) {
    struct host *host = settled(), *other = host_new();
    other->config.interfaces[0].addresses[0].address = ip4(PEER_IP);
    memcpy(other->config.interfaces[0].mac, peer_mac, 6);
    host_open(other);
    uint8_t frame[64];
    assert_int_equal(transmit_payload(host, OUR_IP, PEER_IP, "odd"), 0);
    host_input(host, frame, make_arp(frame, our_mac, 2, peer_mac, PEER_IP, OUR_IP));
    host_input(other, host->queues[0]->sent[0].bytes, host->queues[0]->sent[0].length);
    assert_int_equal(heard.segments, 1);
    assert_memory_equal(heard.bytes + 20, "odd", 3);
    host_end(other);
    host_end(host);
}

/* More destinations than net keeps prepared headers for, again and again in turn: each segment has its own addresses and sums. */
static void test_many_destinations(void **state) {
    struct host *host = host_new6();
    host_open(host);
    host_settle6(host);
    for (uint32_t i = 0; i < 6000; i++) {
        uint32_t far = FAR_IP + 256 + i % 3000;
        host_forget(host);
        assert_int_equal(transmit_payload(host, OUR_IP, far, "four"), 0);
        struct tcp_segment segment = {.local = ip6(OUR_IP6), .remote = ip6(FAR_IP6), .local_port = 1, .remote_port = 25};
        memcpy(segment.remote.bytes + 12, &far, 4);
        assert_int_equal(net_transmit(host->net, &segment), 0);
        const struct sent *four = &host->queues[0]->sent[0], *six = &host->queues[0]->sent[1];
        struct tcp_address to = ip4(far);
        assert_memory_equal(four->bytes + 30, to.bytes, 4);
        assert_memory_equal(six->bytes + 38, segment.remote.bytes, 16);
        assert_int_equal(sum16(four->bytes + 14, 20, 0), 0);
        assert_int_equal(sum_l4(four->bytes, four->length, 6), 0);
        assert_int_equal(sum_l4(six->bytes, six->length, 6), 0);
    }
    host_end(host);
}

/* frame.h: the device cuts; lengths and sum are those of the whole, which peer.c's port_send verifies. */
static void test_segmentation(void **state) {
    struct host *host = host_new6();
    host_open(host);
    host_settle6(host);
    static const uint8_t bytes[1800];
    struct tcp_piece piece = {.bytes = bytes, .length = sizeof bytes};
    struct tcp_segment segment = {
        .local = ip4(OUR_IP), .remote = ip4(FAR_IP), .piece_count = 1, .payload_length = sizeof bytes, .pieces = &piece};
    static const uint16_t asked[] = {1000, 1800, 0}, given[] = {1000, 0, 0};
    for (uint32_t i = 0; i < 6; i++) {
        host_forget(host);
        segment.segment_bytes = asked[i % 3];
        segment.local = i < 3 ? ip4(OUR_IP) : ip6(OUR_IP6);
        segment.remote = i < 3 ? ip4(FAR_IP) : ip6(FAR_IP6);
        assert_int_equal(net_transmit(host->net, &segment), 0);
        assert_int_equal(host->queues[0]->sent[0].segment_bytes, given[i % 3]);
    }
    host_end(host);
}

/* RFC 6864: a datagram that may be cut has an identification of its own; one that may not has none. */
static void test_fragmentation_allowed(void **state) {
    struct host *host = settled();
    struct tcp_segment segment = {.local = ip4(OUR_IP), .remote = ip4(FAR_IP), .may_fragment = true};
    uint32_t last = UINT32_MAX;
    for (uint32_t i = 0; i < 100; i++) {
        host_forget(host);
        assert_int_equal(net_transmit(host->net, &segment), 0);
        const uint8_t *ip = host->queues[0]->sent[0].bytes + 14;
        assert_memory_equal(ip + 6, "\0\0", 2);
        assert_int_equal(sum16(ip, 20, 0), 0);
        uint32_t identification = (uint32_t)ip[4] << 8 | ip[5];
        if (i > 0)
            assert_int_equal(identification, (last + 1) & 0xffff);
        last = identification;
    }
    host_end(host);
}

/* net.h: a server on one core for all queues of a device: a segment leaves by the queue that the peer's device would choose for it
 * or by the one that it answers. */
static void test_more_queues(void **state) {
    static struct port_rss rss;
    toeplitz_rss_default(&rss, 2);
    struct toeplitz toeplitz;
    toeplitz_set_up(&toeplitz, rss.key, rss.key_length);
    struct host *host = host_new();
    struct net_interface *interface = &host->config.interfaces[0];
    interface->more_queue_count = 1;
    interface->more_queues[0] = host->queues[1];
    interface->rss = &rss;
    host_open(host);
    host_settle(host);
    uint32_t flushes = host->queues[1]->flushes, by_second = 0;
    net_poll(host->net, host->now_us);
    assert_int_equal(host->queues[1]->flushes, flushes + 1);
    struct tcp_segment segment = {.local = ip4(OUR_IP), .remote = ip4(FAR_IP), .local_port = 25};
    for (uint16_t port = 40000; port < 40100; port++) {
        host_forget(host);
        segment.remote_port = port;
        assert_int_equal(net_transmit(host->net, &segment), 0);
        uint32_t queue = toeplitz_queue(&rss, toeplitz_tuple(&toeplitz, &segment.local, &segment.remote, 25, port));
        assert_int_equal(host->queues[queue]->sent_count, 1);
        assert_int_equal(host->queues[1 - queue]->sent_count, 0);
        by_second += queue;
    }
    assert_in_range(by_second, 30, 70);
    host_end(host);

    host = host_new();
    host->config.interfaces[0].more_queue_count = 1;
    host->config.interfaces[0].more_queues[0] = host->queues[1];
    host_open(host);
    host_settle(host);
    uint8_t frame[FRAME_MAX];
    answer_from = host->net;
    for (uint32_t i = 0; i < 2; i++) { /* TCP answers at once, while the frame is being handled */
        host_forget(host);
        host->queues[i]->receive_length = make_tcp(frame, FAR_IP, OUR_IP, 25, 40000, 3);
        memcpy(host->queues[i]->receive, frame, host->queues[i]->receive_length);
        assert_int_equal(net_receive(host->net, host->now_us), 1);
        assert_int_equal(host->queues[i]->sent_count, 1);
        assert_int_equal(host->queues[1 - i]->sent_count, 0);
    }
    answer_from = NULL;
    host_forget(host);
    assert_int_equal(transmit_payload(host, OUR_IP, FAR_IP, "timer"), 0);
    assert_int_equal(host->queues[0]->sent_count, 1);
    host_end(host);
}

static void arrive(struct host *host, const uint8_t *frame, uint32_t length) {
    memcpy(host->queues[0]->receive, frame, length);
    host->queues[0]->receive_length = length;
    assert_int_equal(net_receive(host->net, host->now_us), 1);
}

/* A segment is announced to TCP before it is handled, with the same name, and what TCP made of that comes with it; never another's. */
static void test_segments_are_announced(void **state) {
    struct host *host = host_new6();
    host_open(host);
    host_settle6(host);
    uint8_t frame[FRAME_MAX];
    uint32_t length = make_tcp(frame, FAR_IP, OUR_IP, 25, 40000, 3), others = make_tcp6(frame + 1000, FAR_IP6, PEER_IP6, 25, 40000, 3);
    arrive(host, frame, length);
    assert_int_equal(heard.announcements, 1);
    assert_int_equal(heard.packet.hash, 1);
    assert_memory_equal(&heard.announced.local, &heard.packet.local, sizeof heard.packet.local);
    assert_memory_equal(&heard.announced.remote, &heard.packet.remote, sizeof heard.packet.remote);
    assert_ptr_equal(heard.announced.header, heard.packet.header);
    memcpy(host->queues[0]->receive, frame, length); /* the same buffer, unannounced */
    net_input(host->net, 0, host->queues[0]->receive, length, host->now_us);
    assert_int_equal(heard.packet.hash, 0);
    arrive(host, frame, make_tcp6(frame, FAR_IP6, OUR_IP6, 25, 40000, 3));
    assert_int_equal(heard.packet.hash, 2);
    assert_memory_equal(&heard.announced.local, &heard.packet.local, sizeof heard.packet.local);
    /* Announced, but another host's; then a segment whose options put it at the same place of the same buffer. */
    arrive(host, frame + 1000, others);
    assert_int_equal(heard.announcements, 3);
    length = make_tcp(frame, FAR_IP, OUR_IP, 25, 40000, 3);
    memmove(frame + 54, frame + 34, length - 34);
    memset(frame + 34, 1, 20);
    frame[14] = 0x4a;
    frame[17] = (uint8_t)(frame[17] + 20);
    fix_ipv4(frame);
    arrive(host, frame, length + 20);
    assert_int_equal(heard.segments, 4);
    assert_int_equal(heard.packet.hash, 0);
    /* Too short for what it says, and not a segment. */
    for (uint32_t cut = 0; cut < 54; cut++)
        arrive(host, frame, cut == 0 ? 1 : cut);
    arrive(host, frame, make_echo(frame, FAR_IP, OUR_IP, 8));
    assert_int_equal(heard.announcements, 3);
    host_end(host);
}

/* DESIGN.md section 4: only bytes that were never sent before may be left in place for the device. */
static void test_repeats_are_copied(void **state) {
    struct host *host = settled();
    struct tcp_segment segment = {.local = ip4(OUR_IP), .remote = ip4(FAR_IP), .first_transmission = true};
    assert_int_equal(net_transmit(host->net, &segment), 0);
    segment.first_transmission = false;
    assert_int_equal(net_transmit(host->net, &segment), 0);
    assert_true(host->queues[0]->sent[0].by_reference_allowed);
    assert_false(host->queues[0]->sent[1].by_reference_allowed);
    host_end(host);
}

static void test_full_device(void **state) {
    struct host *host = settled();
    host->queues[0]->send_result = -EAGAIN;
    assert_int_equal(transmit_payload(host, OUR_IP, FAR_IP, "x"), -EAGAIN);
    host_end(host);
}

static void test_poll_flushes(void **state) {
    struct host *host = settled();
    uint32_t flushes = host->queues[0]->flushes;
    assert_true(net_poll(host->net, host->now_us) > host->now_us);
    assert_int_equal(host->queues[0]->flushes, flushes + 1);
    host_end(host);
}

/* The source address chooses the interface; ARP asks from an address of the neighbour's prefix. */
static void test_several_addresses_and_interfaces(void **state) {
    struct host *host = host_new();
    struct net_interface *first = &host->config.interfaces[0], *second = &host->config.interfaces[1];
    host->config.interface_count = 2;
    first->address_count = 3;
    first->addresses[1] = (struct net_address){.address = ip4(0xc6336405), .prefix_length = 24}; /* 198.51.100.5 */
    first->addresses[2] = (struct net_address){.address = ip4(0xc6336406), .prefix_length = 24};
    *second = (struct net_interface){.queue = host->queues[1], .mac = {2, 0, 0, 0, 1, 2}, .mtu = 1500, .address_count = 1};
    second->addresses[0] = (struct net_address){.address = ip4(0xcb007105), .prefix_length = 24}; /* 203.0.113.5 */
    host_open(host);
    host_settle(host);
    assert_int_equal(transmit_payload(host, 0xcb007105, 0xcb007106, "x"), 0);
    net_poll(host->net, host->now_us);
    assert_int_equal(host->queues[0]->sent_count, 0);
    assert_int_equal(host->queues[1]->sent_count, 1);
    assert_memory_equal(host->queues[1]->sent[0].bytes + 28, "\xcb\x00\x71\x05", 4);
    assert_int_equal(transmit_payload(host, 0xc6336406, 0xc63364f0, "x"), 0); /* on the second prefix */
    net_poll(host->net, host->now_us);
    assert_int_equal(host->queues[0]->sent_count, 1);
    assert_memory_equal(host->queues[0]->sent[0].bytes + 28, "\xc6\x33\x64\x05", 4);
    assert_int_equal(transmit_payload(host, 0xcb007105, FAR_IP, "x"), -EHOSTUNREACH); /* this interface has no gateway */
    host_end(host);
}

/* Two VLANs of one port. */
static void test_vlan(void **state) {
    struct host *host = host_new();
    struct net_interface *second = &host->config.interfaces[1];
    host->config.interface_count = 2;
    *second = (struct net_interface){.queue = host->queues[0], .mtu = 1500, .vlan = 42, .address_count = 1};
    memcpy(second->mac, our_mac, 6);
    second->addresses[0] = (struct net_address){.address = ip4(0xcb007105), .prefix_length = 24};
    host_open(host);
    host_settle(host);
    assert_int_equal(transmit_payload(host, 0xcb007105, 0xcb007106, "x"), 0);
    net_poll(host->net, host->now_us);
    assert_int_equal(host->queues[0]->sent_count, 1);
    assert_int_equal(host->queues[0]->sent[0].length, 46);
    assert_memory_equal(host->queues[0]->sent[0].bytes + 12, "\x81\x00\x00\x2a\x08\x06", 6);
    host_forget(host);
    uint8_t reply[64];
    make_arp(reply, our_mac, 2, peer_mac, 0xcb007106, 0xcb007105);
    host_input(host, reply, 42); /* untagged: the other interface's, and nobody asked there */
    assert_int_equal(host->queues[0]->sent_count, 0);
    memmove(reply + 16, reply + 12, 30);
    memcpy(reply + 12, "\x81\x00\x00\x2a", 4);
    host_input(host, reply, 46);
    assert_int_equal(host->queues[0]->sent_count, 1);
    assert_int_equal(host->queues[0]->sent[0].length, 18 + 40 + 1);
    assert_memory_equal(host->queues[0]->sent[0].bytes + 12, "\x81\x00\x00\x2a\x08\x00\x45", 7);
    host_end(host);
}

static void assert_refused(struct host *host) {
    errno = 0;
    assert_null(net_create(&host->config, host->now_us));
    assert_int_equal(errno, EINVAL);
    host_end(host);
}

static void test_configuration_is_checked(void **state) {
    struct host *host = host_new();
    host->config.interfaces[0].gateway = ip4(FAR_IP); /* on no link of ours */
    assert_refused(host);
    host = host_new();
    host->config.interfaces[0].address_count = 2;
    host->config.interfaces[0].addresses[1] = host->config.interfaces[0].addresses[0];
    assert_refused(host);
    host = host_new();
    host->config.interfaces[0].addresses[0].prefix_length = 33;
    assert_refused(host);
    host = host_new();
    host->config.interfaces[0].addresses[0].address = ip4(0x7f000001);
    assert_refused(host);
    host = host_new();
    host->config.worker = 1;
    assert_refused(host);
    host = host_new();
    host->config.interfaces[0].address_count = NET_ADDRESSES_MAX + 1;
    assert_refused(host);
    host = host_new();
    host->config.interfaces[0].vlan = 4095;
    assert_refused(host);
}

/* RFC 3021: the two addresses of a /31 are hosts; a /32 has only its gateway, which must then be on another prefix. */
static void test_point_to_point(void **state) {
    struct host *host = host_new();
    host->config.interfaces[0].gateway.family = 0;
    host->config.interfaces[0].addresses[0].prefix_length = 31;
    host_open(host);
    assert_int_equal(transmit_payload(host, OUR_IP, OUR_IP + 1, "x"), 0);
    assert_int_equal(transmit_payload(host, OUR_IP, OUR_IP + 2, "x"), -EHOSTUNREACH);
    host_end(host);
}

/* More neighbours than the table has places: the oldest goes, the gateway stays. */
static void test_table_is_bounded(void **state) {
    struct host *host = host_new();
    host->config.interfaces[0].addresses[0].prefix_length = 16;
    host_open(host);
    host_settle(host);
    for (uint32_t i = 0; i < 3000; i++) {
        host->now_us++;
        net_input(host->net, 0, NULL, 0, host->now_us); /* moves the clock */
        transmit_payload(host, OUR_IP, 0x0a630100u + i, "x");
    }
    assert_int_equal(host->queues[0]->sent_count, 0);
    assert_int_equal(transmit_payload(host, OUR_IP, FAR_IP, "x"), 0);
    assert_int_equal(host->queues[0]->sent_count, 1);
    assert_memory_equal(host->queues[0]->sent[0].bytes, gateway_mac, 6);
    host_end(host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gateway_or_link),
        cmocka_unit_test(test_no_route),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_many_destinations),
        cmocka_unit_test(test_segmentation),
        cmocka_unit_test(test_fragmentation_allowed),
        cmocka_unit_test(test_more_queues),
        cmocka_unit_test(test_segments_are_announced),
        cmocka_unit_test(test_repeats_are_copied),
        cmocka_unit_test(test_full_device),
        cmocka_unit_test(test_poll_flushes),
        cmocka_unit_test(test_several_addresses_and_interfaces),
        cmocka_unit_test(test_vlan),
        cmocka_unit_test(test_configuration_is_checked),
        cmocka_unit_test(test_point_to_point),
        cmocka_unit_test(test_table_is_bounded),
    };
    return cmocka_run_group_tests_name("net_transmit", tests, NULL, NULL);
}
