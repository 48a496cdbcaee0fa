/* test_ipv6.c: IPv6 in and out: headers, extension headers, routes (RFC 8200, 5095, 6437, 4291). */
#include "peer.h"
#include <errno.h>
#include <string.h>

static uint8_t frame[FRAME_MAX];

static struct host *settled(void) {
    struct host *host = host_new6();
    host_open(host);
    host_settle6(host);
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
    uint32_t length = make_tcp6(frame, FAR_IP6, OUR_IP6, 25, 40000, 33);
    assert_heard(host, length + 6); /* what follows the payload length is padding */
    struct tcp_address ours = ip6(OUR_IP6), theirs = ip6(FAR_IP6);
    assert_memory_equal(&heard.packet.local, &ours, sizeof ours);
    assert_memory_equal(&heard.packet.remote, &theirs, sizeof theirs);
    assert_int_equal(heard.packet.length, 20 + 33);
    assert_memory_equal(heard.bytes, frame + 54, 20 + 33);
    frame[80] ^= 1;
    assert_dropped(host, length, &net_counters(host->net)->bad_tcp_checksum);
    host->queues[0]->checksum_good = true; /* the device verified it already: not done twice */
    assert_heard(host, length);
    host_end(host);
}

static void test_truncated_at_every_length(void **state) {
    struct host *host = settled();
    uint32_t length = make_tcp6(frame, FAR_IP6, OUR_IP6, 25, 40000, 9);
    for (uint32_t cut = 14; cut < length; cut++)
        assert_dropped(host, cut, &net_counters(host->net)->bad_ipv6);
    for (uint32_t cut = 54; cut < 74; cut++) { /* the length tells the truth */
        frame[19] = (uint8_t)(cut - 54);
        assert_dropped(host, cut, &net_counters(host->net)->bad_tcp);
    }
    host_end(host);
}

static void test_not_for_us(void **state) {
    struct host *host = settled();
    assert_dropped(host, make_tcp6(frame, FAR_IP6, "2001:db8::3", 25, 40000, 1), &net_counters(host->net)->ignored);
    assert_dropped(host, make_tcp6(frame, FAR_IP6, OUR_LINK_LOCAL, 25, 40000, 1), &net_counters(host->net)->ignored); /* ND and ping only */
    assert_dropped(host, make_tcp6(frame, FAR_IP6, "ff02::1", 25, 40000, 1), &net_counters(host->net)->ignored);
    assert_dropped(host, make_tcp6(frame, FAR_IP6, "ff02::1:ff00:2", 25, 40000, 1), &net_counters(host->net)->ignored);
    assert_dropped(host, make_echo6(frame, FAR_IP6, "ff02::2", 1), &net_counters(host->net)->ignored); /* all routers */
    uint32_t length = make_tcp6(frame, FAR_IP6, OUR_IP6, 25, 40000, 1);
    frame[0] = 0x33; /* a unicast datagram in a multicast of the link */
    assert_dropped(host, length, &net_counters(host->net)->ignored);
    host_end(host);
}

/* RFC 4291 2.4, 2.5.2, 2.5.3, 2.5.5.2. */
static void test_prohibited_sources(void **state) {
    struct host *host = settled();
    static const char *const sources[] = {"::",    "::1",         "ff02::1", "ff0e::1", "::ffff:192.0.2.25", "::ffff:10.99.0.9",
                                          OUR_IP6, OUR_LINK_LOCAL};
    for (uint32_t i = 0; i < sizeof sources / sizeof sources[0]; i++)
        assert_dropped(host, make_tcp6(frame, sources[i], OUR_IP6, 25, 40000, 1), &net_counters(host->net)->bad_source);
    assert_dropped(host, make_tcp6(frame, FAR_IP6, "::ffff:10.99.0.2", 25, 40000, 1), &net_counters(host->net)->bad_source);
    assert_heard(host, make_tcp6(frame, PEER_IP6, OUR_IP6, 25, 40000, 1));
    host_end(host);
}

/* Puts `bytes` of extension headers, the first of type `first`, before the TCP header. */
static uint32_t with_extensions(uint8_t first, const uint8_t *headers, uint32_t bytes) {
    uint32_t length = make_tcp6(frame, FAR_IP6, OUR_IP6, 25, 40000, 20);
    memmove(frame + 54 + bytes, frame + 54, length - 54);
    memcpy(frame + 54, headers, bytes);
    frame[20] = first;
    frame[18] = (uint8_t)((length + bytes - 54) >> 8);
    frame[19] = (uint8_t)(length + bytes - 54);
    return length + bytes;
}

/* RFC 8200 4.1 to 4.6. */
static void test_extension_headers_are_passed(void **state) {
    struct host *host = settled();
    static const uint8_t hop[] = {6, 0, 5, 2, 0, 0, 1, 0}, destination[] = {6, 1, 0x1e, 3, 1, 2, 3, 0, 1, 6}, routing[] = {6, 2, 4, 0};
    static const uint8_t all[] = {60, 0, 1, 4, 0,  0, 0, 0, 43, 0, 1, 4, 0, 0, 0, 0, 44, 0, 4, 0,
                                  0,  0, 0, 0, 60, 0, 0, 0, 1,  2, 3, 4, 6, 0, 1, 4, 0,  0, 0, 0};
    uint8_t padded[24] = {0};
    assert_heard(host, with_extensions(0, hop, sizeof hop));
    memcpy(padded, destination, sizeof destination);
    assert_heard(host, with_extensions(60, padded, 16));
    memset(padded, 0, sizeof padded);
    memcpy(padded, routing, sizeof routing); /* nothing left to visit */
    assert_heard(host, with_extensions(43, padded, 24));
    assert_heard(host, with_extensions(0, all, sizeof all)); /* with an atomic fragment (RFC 6946) among them */
    assert_int_equal(net_counters(host->net)->fragments, 0);
    host_end(host);
}

static void test_extension_headers_are_refused(void **state) {
    struct host *host = settled();
    static const struct {
        uint8_t first;
        uint8_t bytes[16];
        uint32_t length;
    } cases[] = {
        {43, {6, 0, 0, 0}, 8},                          /* RFC 5095: type 0, even with nothing left */
        {43, {6, 0, 4, 1}, 8},                          /* segments left */
        {60, {6, 0, 0x41, 0, 1, 2, 0, 0}, 8},           /* RFC 8200 4.2: "discard if unknown" */
        {60, {6, 0, 0xc1, 0, 1, 2, 0, 0}, 8},           /* "and tell" */
        {60, {6, 0, 1, 5, 0, 0, 0, 0}, 8},              /* an option past the header's end */
        {60, {6, 0, 0, 0, 0, 0, 0, 1}, 8},              /* half an option */
        {60, {6, 200, 1, 4, 0, 0, 0, 0}, 8},            /* a header past the packet's end */
        {60, {0, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4}, 16}, /* hop-by-hop anywhere but first */
    };
    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_dropped(host, with_extensions(cases[i].first, cases[i].bytes, cases[i].length), &net_counters(host->net)->ipv6_extensions);
    uint8_t chain[8 * 12];
    for (uint32_t i = 0; i < 12; i++)
        memcpy(chain + 8 * i, i < 11 ? "\x3c\0\1\4\0\0\0" : "\x06\0\1\4\0\0\0", 8);
    assert_dropped(host, with_extensions(60, chain, sizeof chain), &net_counters(host->net)->ipv6_extensions);
    assert_heard(host, with_extensions(60, chain + 8 * 6, 8 * 6));
    static const uint8_t none[8] = {6};
    assert_dropped(host, with_extensions(59, none, 8), &net_counters(host->net)->ignored); /* no next header */
    assert_dropped(host, with_extensions(50, none, 8), &net_counters(host->net)->ignored); /* ESP */
    host_end(host);
}

static void test_headers(void **state) {
    struct host *host = settled();
    assert_int_equal(transmit_payload6(host, OUR_IP6, FAR_IP6, "hello"), 0);
    assert_int_equal(host->queues[0]->sent_count, 1);
    const struct sent *sent = &host->queues[0]->sent[0];
    struct tcp_address ours = ip6(OUR_IP6), theirs = ip6(FAR_IP6);
    assert_int_equal(sent->length, 14 + 40 + 20 + 5);
    assert_memory_equal(sent->bytes, gateway_mac, 6);
    assert_memory_equal(sent->bytes + 6, our_mac, 6);
    assert_memory_equal(sent->bytes + 12, "\x86\xdd", 2);
    assert_int_equal(sent->bytes[14] >> 4, 6);
    assert_memory_equal(sent->bytes + 18, "\0\x19\x06\x40", 4); /* payload length, TCP, hop limit 64 */
    assert_memory_equal(sent->bytes + 22, ours.bytes, 16);
    assert_memory_equal(sent->bytes + 38, theirs.bytes, 16);
    assert_int_equal(sum_l4(sent->bytes, sent->length, 6), 0);
    assert_memory_equal(sent->bytes + 74, "hello", 5);
    host_end(host);
}

static uint32_t label_of(struct host *host, const struct tcp_segment *segment) {
    host_forget(host);
    assert_int_equal(net_transmit(host->net, segment), 0);
    const uint8_t *ip = host->queues[0]->sent[0].bytes + 14;
    return (uint32_t)(ip[1] & 15) << 16 | (uint32_t)ip[2] << 8 | ip[3];
}

/* RFC 6437: one label for one connection, another for another, and not the same with another secret. */
static void test_flow_label(void **state) {
    struct host *host = settled(), *other = host_new6();
    memset(other->config.secret, 7, sizeof other->config.secret);
    host_open(other);
    host_settle6(other);
    struct tcp_segment segment = {.local = ip6(OUR_IP6), .remote = ip6(FAR_IP6), .local_port = 40000, .remote_port = 25, .sequence = 1};
    uint32_t label = label_of(host, &segment), elsewhere = label_of(other, &segment), same = 0, collisions = 0;
    segment.sequence = 99;
    same = label_of(host, &segment);
    assert_int_equal(label, same);
    assert_int_not_equal(label, 0);
    assert_int_not_equal(label, elsewhere);
    for (uint16_t port = 40001; port < 40100; port++) {
        segment.local_port = port;
        collisions += label_of(host, &segment) == label;
    }
    assert_true(collisions < 3);
    host_end(other);
    host_end(host);
}

static void test_routes(void **state) {
    struct host *host = settled();
    static const char *const nobody[] = {"::", "::1", "ff02::1", "::ffff:192.0.2.25"};
    for (uint32_t i = 0; i < sizeof nobody / sizeof nobody[0]; i++)
        assert_int_equal(transmit_payload6(host, OUR_IP6, nobody[i], "x"), -EHOSTUNREACH);
    assert_int_equal(transmit_payload6(host, "2001:db8::3", FAR_IP6, "x"), -EHOSTUNREACH);
    struct tcp_segment mixed = {.local = ip6(OUR_IP6), .remote = ip4(FAR_IP)};
    assert_int_equal(net_transmit(host->net, &mixed), -EHOSTUNREACH);
    assert_int_equal(transmit_payload6(host, OUR_IP6, PEER_IP6, "x"), 0); /* on the link: it is asked itself */
    net_poll(host->net, host->now_us);
    assert_int_equal(host->queues[0]->sent_count, 1);
    assert_int_equal(host->queues[0]->sent[0].bytes[54], 135);
    host_end(host);

    host = host_new6();
    host->config.interfaces[0].gateway6.family = 0;
    host_open(host);
    assert_int_equal(transmit_payload6(host, OUR_IP6, FAR_IP6, "x"), -EHOSTUNREACH);
    assert_int_equal(net_counters(host->net)->unreachable, 1);
    host_end(host);

    host = host_new6(); /* a /128: everything goes through the gateway, which is on the link by its own address */
    host->config.interfaces[0].addresses[1].prefix_length = 128;
    host_open(host);
    host_settle6(host);
    assert_int_equal(transmit_payload6(host, OUR_IP6, PEER_IP6, "x"), 0);
    assert_int_equal(host->queues[0]->sent_count, 1);
    assert_memory_equal(host->queues[0]->sent[0].bytes, gateway_mac, 6);
    host_end(host);
}

static void assert_refused(struct host *host) {
    errno = 0;
    assert_null(net_create(&host->config, host->now_us));
    assert_int_equal(errno, EINVAL);
    host_end(host);
}

static void test_configuration_is_checked(void **state) {
    static const char *const addresses[] = {"::", "::1", "ff02::1", "::ffff:192.0.2.1"};
    for (uint32_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        struct host *host = host_new6();
        host->config.interfaces[0].addresses[1].address = ip6(addresses[i]);
        assert_refused(host);
    }
    struct host *host = host_new6();
    host->config.interfaces[0].addresses[1].prefix_length = 129;
    assert_refused(host);
    host = host_new6();
    host->config.interfaces[0].mtu = 1279; /* RFC 8200 section 5 */
    assert_refused(host);
    host = host_new6();
    host->config.interfaces[0].gateway6 = ip6(FAR_IP6); /* on no link */
    assert_refused(host);
    host = host_new6();
    host->config.interfaces[0].gateway6 = ip4(GATEWAY_IP);
    assert_refused(host);
    host = host_new(); /* a link-local gateway needs IPv6 on the link */
    host->config.interfaces[0].gateway6 = ip6(GATEWAY_IP6);
    assert_refused(host);
}

static void test_vlan(void **state) {
    struct host *host = host_new6();
    host->config.interfaces[0].vlan = 42;
    host_open(host);
    uint32_t length = make_tcp6(frame, FAR_IP6, OUR_IP6, 25, 40000, 5);
    memmove(frame + 16, frame + 12, length - 12);
    memcpy(frame + 12, "\x81\0\0\x2a", 4);
    assert_heard(host, length + 4);
    host_end(host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_segment_reaches_tcp),
        cmocka_unit_test(test_truncated_at_every_length),
        cmocka_unit_test(test_not_for_us),
        cmocka_unit_test(test_prohibited_sources),
        cmocka_unit_test(test_extension_headers_are_passed),
        cmocka_unit_test(test_extension_headers_are_refused),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_flow_label),
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_configuration_is_checked),
        cmocka_unit_test(test_vlan),
    };
    return cmocka_run_group_tests_name("net_ipv6", tests, NULL, NULL);
}
