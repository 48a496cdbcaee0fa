/* test_nd.c: Neighbour Discovery asks, waits, believes what it should, and doubts the rest (RFC 4861, RFC 4862). */
#include "peer.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

static uint8_t frame[FRAME_MAX];

static struct host *settled(void) {
    struct host *host = host_new6();
    host_open(host);
    host_settle6(host);
    return host;
}

static const struct sent *only(struct host *host) {
    assert_int_equal(host->queues[0]->sent_count, 1);
    return &host->queues[0]->sent[0];
}

/* The whole frame: what make_nd writes for a peer is what we must write, from our MAC. */
static void assert_nd(const struct sent *sent, const uint8_t *to_mac, uint8_t type, uint8_t flags, const char *source,
                      const char *destination, const char *target, uint8_t option) {
    uint8_t want[FRAME_MAX];
    uint32_t length = make_nd(want, type, flags, source, destination, our_mac, target, option, our_mac);
    if (to_mac != NULL)
        memcpy(want, to_mac, 6);
    memset(want + 14, 0, 4);
    want[14] = 0x60;
    assert_int_equal(sent->length, length);
    assert_memory_equal(sent->bytes, want, length);
}

static void hear(struct host *host, uint8_t type, uint8_t flags, const char *source, const char *destination, const uint8_t *mac,
                 const char *target, uint8_t option) {
    host_input(host, frame, make_nd(frame, type, flags, source, destination, mac, target, option, mac));
}

/* The peer's answer to our question. */
static void answer(struct host *host, const uint8_t *mac) {
    hear(host, 136, 0x60, PEER_IP6, OUR_IP6, mac, PEER_IP6, 2);
}

static struct host *acquainted(void) {
    struct host *host = settled();
    assert_int_equal(transmit_payload6(host, OUR_IP6, PEER_IP6, "x"), 0);
    net_poll(host->net, host->now_us);
    answer(host, peer_mac);
    assert_int_equal(host->queues[0]->sent_count, 2);
    host_forget(host);
    return host;
}

static void assert_goes_to(struct host *host, const uint8_t *mac) {
    host_forget(host);
    assert_int_equal(transmit_payload6(host, OUR_IP6, PEER_IP6, "y"), 0);
    assert_memory_equal(only(host)->bytes, mac, 6);
    host_forget(host);
}

static struct host *new_only6(void) {
    struct host *host = host_new6();
    struct net_interface *interface = &host->config.interfaces[0];
    interface->gateway.family = 0;
    interface->addresses[0] = interface->addresses[1];
    interface->address_count = 1;
    return host;
}

/* RFC 3810 5.2: to all routers that know MLDv2, hop limit 1, router alert, a record for each address's group, "exclude nothing". */
static void assert_report(const struct sent *sent) {
    const uint8_t *ip = sent->bytes + 14, *mld = ip + 48;
    assert_int_equal(sent->length, 14 + 48 + 8 + 2 * 20);
    assert_memory_equal(sent->bytes, "\x33\x33\0\0\0\x16", 6);
    assert_memory_equal(ip + 4, "\0\x38\0\1", 4);
    struct tcp_address from = ip6(OUR_LINK_LOCAL), to = ip6("ff02::16"), group = ip6("ff02::1:ff00:2");
    assert_memory_equal(ip + 8, from.bytes, 16);
    assert_memory_equal(ip + 24, to.bytes, 16);
    assert_memory_equal(ip + 40, "\x3a\0\5\2\0\0\1\0", 8);
    assert_memory_equal(mld, "\x8f\0", 2);
    assert_memory_equal(mld + 4, "\0\0\0\2", 4);
    for (uint32_t i = 0; i < 2; i++) {
        assert_memory_equal(mld + 8 + 20 * i, "\4\0\0\0", 4);
        assert_memory_equal(mld + 12 + 20 * i, group.bytes, 16);
    }
    uint32_t pseudo = (uint16_t)~sum16(ip + 8, 32, 58 + 48);
    assert_int_equal(sum16(mld, 48, pseudo), 0);
}

/* RFC 3810: a querier's question is answered, once a second, by worker 0; one that came from elsewhere is not. */
static void test_listener_query(void **state) {
    struct host *host = new_only6();
    host_open(host);
    host_wait(host, 5 * SECOND);
    host_forget(host);
    uint8_t query[28] = {130};
    uint32_t length = make_ipv6(frame, 58, "fe80::1", "ff02::1", query, sizeof query);
    frame[21] = 1;
    fix_icmp6(frame, length);
    for (uint32_t i = 0; i < 5; i++)
        host_input(host, frame, length);
    assert_report(only(host));
    host_wait(host, SECOND);
    host_forget(host);
    host_input(host, frame, length);
    assert_report(only(host));
    frame[21] = 2;
    host_input(host, frame, length);
    length = make_ipv6(frame, 58, FAR_IP6, "ff02::1", query, sizeof query);
    frame[21] = 1;
    fix_icmp6(frame, length);
    host_input(host, frame, length);
    assert_int_equal(net_counters(host->net)->bad_nd, 2);
    assert_int_equal(host->queues[0]->sent_count, 1);
    host_end(host);
}

/* RFC 3810 9.4: a switch forgets after 260 s, and the question may have gone to the kernel that has the device too. */
static void test_listener_reports_unasked(void **state) {
    struct host *host = new_only6();
    host->config.interfaces[0].gateway6.family = 0;
    host_open(host);
    host_wait(host, 5 * SECOND);
    for (uint32_t i = 0; i < 3; i++) {
        host_forget(host);
        host_wait(host, 100 * (uint64_t)SECOND);
        assert_report(only(host));
    }
    host_end(host);
}

/* RFC 4862 5.4.2: duplicate address detection for each address, the link-local one too: from nobody, without our MAC. Then announcements
 * (RFC 4861 7.2.6). The gateway is asked for at once, from our link-local address because its own is one. */
static void test_start(void **state) {
    struct host *host = new_only6();
    host_open(host);
    net_poll(host->net, host->now_us);
    assert_int_equal(host->queues[0]->sent_count, 4);
    assert_report(&host->queues[0]->sent[0]);
    assert_nd(&host->queues[0]->sent[1], NULL, 135, 0, "::", "ff02::1:ff00:2", OUR_IP6, 0);
    assert_nd(&host->queues[0]->sent[2], NULL, 135, 0, "::", "ff02::1:ff00:2", OUR_LINK_LOCAL, 0);
    assert_nd(&host->queues[0]->sent[3], NULL, 135, 0, OUR_LINK_LOCAL, "ff02::1:ff00:1", GATEWAY_IP6, 1);
    hear(host, 136, 0xe0, GATEWAY_IP6, OUR_LINK_LOCAL, gateway_mac, GATEWAY_IP6, 2);
    host_forget(host);
    host_wait(host, 10 * SECOND);
    assert_int_equal(host->queues[0]->sent_count, 6);
    for (uint32_t i = 0; i < 6; i += 3) {
        assert_report(&host->queues[0]->sent[i]);
        assert_nd(&host->queues[0]->sent[i + 1], NULL, 136, 0x20, OUR_IP6, "ff02::1", OUR_IP6, 2);
        assert_nd(&host->queues[0]->sent[i + 2], NULL, 136, 0x20, OUR_LINK_LOCAL, "ff02::1", OUR_LINK_LOCAL, 2);
    }
    host_end(host);
}

static void test_frame_waits_for_the_answer(void **state) {
    struct host *host = settled();
    assert_int_equal(transmit_payload6(host, OUR_IP6, PEER_IP6, "hello"), 0);
    assert_int_equal(host->queues[0]->sent_count, 0);
    net_poll(host->net, host->now_us);
    assert_nd(only(host), NULL, 135, 0, OUR_IP6, "ff02::1:ff00:9", PEER_IP6, 1);
    host_forget(host);
    answer(host, peer_mac);
    const struct sent *sent = only(host);
    assert_memory_equal(sent->bytes, peer_mac, 6);
    assert_memory_equal(sent->bytes + 74, "hello", 5);
    assert_int_equal(sum_l4(sent->bytes, sent->length, 6), 0);
    assert_goes_to(host, peer_mac);
    host_end(host);
}

/* RFC 4861 7.2.2: MAX_MULTICAST_SOLICIT 3, RETRANS_TIMER 1 s; then the address is unreachable, for a while. */
static void test_silence_is_unreachable(void **state) {
    struct host *host = settled();
    assert_int_equal(transmit_payload6(host, OUR_IP6, PEER_IP6, "x"), 0);
    host_wait(host, 3 * SECOND);
    assert_int_equal(host->queues[0]->sent_count, 3);
    host_wait(host, SECOND / 2);
    assert_int_equal(transmit_payload6(host, OUR_IP6, PEER_IP6, "x"), -EHOSTUNREACH);
    assert_int_equal(net_counters(host->net)->neighbours_failed, 1);
    host_wait(host, 4 * SECOND);
    assert_int_equal(transmit_payload6(host, OUR_IP6, PEER_IP6, "x"), 0);
    host_end(host);
}

/* RFC 4861 7.2.4: solicited, override, with our MAC; to all nodes when the asker has no address yet. */
static void test_solicitation_is_answered(void **state) {
    struct host *host = settled();
    hear(host, 135, 0, PEER_IP6, "ff02::1:ff00:2", peer_mac, OUR_IP6, 1);
    assert_nd(only(host), peer_mac, 136, 0x60, OUR_IP6, PEER_IP6, OUR_IP6, 2);
    host_forget(host);
    hear(host, 135, 0, "fe80::9", OUR_LINK_LOCAL, peer_mac, OUR_LINK_LOCAL, 0); /* unicast, without its MAC: the frame has it */
    assert_nd(only(host), peer_mac, 136, 0x60, OUR_LINK_LOCAL, "fe80::9", OUR_LINK_LOCAL, 2);
    host_forget(host);
    hear(host, 135, 0, "::", "ff02::1:ff00:2", peer_mac, OUR_IP6, 0);
    assert_nd(only(host), NULL, 136, 0x20, OUR_IP6, "ff02::1", OUR_IP6, 2);
    host_forget(host);
    hear(host, 135, 0, PEER_IP6, "ff02::1:ff00:2", peer_mac, "2001:db8:7::2", 1); /* another's address in the same group */
    assert_int_equal(host->queues[0]->sent_count, 0);
    host_end(host);
}

/* RFC 4861 7.1: what came through a router (hop limit), cannot be or says too much is dropped. */
static void test_invalid_messages(void **state) {
    struct host *host = settled();
    uint64_t bad = 0;
    static const uint8_t no_mac[6], group_mac[6] = {1, 2, 3, 4, 5, 6};
    for (uint32_t i = 0; i < 8; i++) {
        uint8_t type = i == 7 ? 136 : 135;
        uint32_t length = make_nd(frame, type, 0, PEER_IP6, "ff02::1:ff00:2", peer_mac, OUR_IP6, 1,
                                  i == 3   ? no_mac
                                  : i == 4 ? group_mac
                                           : peer_mac);
        switch (i) {
        case 0:
            frame[21] = 254; /* hop limit */
            break;
        case 1:
            frame[55] = 1; /* code */
            break;
        case 2:
            frame[54 + 25] = 0; /* an option without length */
            break;
        case 5:
            frame[54 + 25] = 2; /* an option past the end */
            break;
        case 6: /* "::" with a MAC */
            length = make_nd(frame, 135, 0, "::", "ff02::1:ff00:2", peer_mac, OUR_IP6, 1, peer_mac);
            break;
        case 7: /* an answer to everyone that claims to be solicited */
            length = make_nd(frame, 136, 0x40, PEER_IP6, "ff02::1", peer_mac, PEER_IP6, 2, peer_mac);
            break;
        default:
            break;
        }
        fix_icmp6(frame, length);
        host_input(host, frame, length);
        assert_int_equal(net_counters(host->net)->bad_nd, ++bad);
    }
    hear(host, 135, 0, PEER_IP6, "ff02::1:ff00:2", peer_mac, "ff02::1:ff00:2", 1); /* a group as target */
    hear(host, 135, 0, "::", OUR_IP6, peer_mac, OUR_IP6, 0);                       /* "::" to one host only: no such source */
    assert_int_equal(net_counters(host->net)->bad_nd, bad + 1);
    assert_int_equal(net_counters(host->net)->bad_source, 1);
    assert_int_equal(host->queues[0]->sent_count, 0);
    host_end(host);
}

static void test_nothing_is_learned_unasked(void **state) {
    struct host *host = settled();
    answer(host, evil_mac);
    hear(host, 136, 0x20, PEER_IP6, "ff02::1", evil_mac, PEER_IP6, 2);
    hear(host, 135, 0, PEER_IP6, "ff02::1:ff00:2", evil_mac, OUR_IP6, 1);
    host_forget(host);
    assert_int_equal(transmit_payload6(host, OUR_IP6, PEER_IP6, "x"), 0);
    assert_int_equal(host->queues[0]->sent_count, 0); /* it waits: the MAC is not known */
    net_poll(host->net, host->now_us);
    host_forget(host);
    hear(host, 136, 0x20, PEER_IP6, "ff02::1", evil_mac, PEER_IP6, 2); /* nobody's answer */
    hear(host, 136, 0x20, PEER_IP6, OUR_IP6, evil_mac, PEER_IP6, 2);   /* unsolicited, it says itself */
    assert_int_equal(host->queues[0]->sent_count, 0);
    hear(host, 135, 0, PEER_IP6, "ff02::1:ff00:2", peer_mac, OUR_IP6, 1); /* but a question to us shows it while we ask */
    assert_int_equal(host->queues[0]->sent_count, 2);
    assert_goes_to(host, peer_mac);
    host_end(host);
}

/* The override flag overrides nothing here: the known MAC is asked, and while it answers nothing changes. */
static void test_claim_is_verified(void **state) {
    struct host *host = acquainted();
    hear(host, 136, 0x60, PEER_IP6, OUR_IP6, evil_mac, PEER_IP6, 2);
    hear(host, 136, 0x20, PEER_IP6, "ff02::1", evil_mac, PEER_IP6, 2);
    hear(host, 135, 0, PEER_IP6, "ff02::1:ff00:2", evil_mac, OUR_IP6, 1);
    assert_int_equal(net_counters(host->net)->neighbour_claims, 3);
    host_forget(host);
    net_poll(host->net, host->now_us);
    assert_nd(only(host), peer_mac, 135, 0, OUR_IP6, PEER_IP6, PEER_IP6, 1); /* RFC 4861 7.3.3: a unicast probe */
    assert_goes_to(host, peer_mac);
    hear(host, 136, 0x40, PEER_IP6, OUR_IP6, peer_mac, PEER_IP6, 0); /* RFC 4861 4.4: its MAC left out */
    host_wait(host, 5 * SECOND);
    assert_goes_to(host, peer_mac);
    host_end(host);
}

static void test_failover(void **state) {
    struct host *host = acquainted();
    hear(host, 136, 0x20, PEER_IP6, "ff02::1", evil_mac, PEER_IP6, 2);
    host_wait(host, 3 * SECOND / 2);
    assert_int_equal(host->queues[0]->sent_count, 2);
    assert_nd(&host->queues[0]->sent[0], peer_mac, 135, 0, OUR_IP6, PEER_IP6, PEER_IP6, 1);
    assert_nd(&host->queues[0]->sent[1], NULL, 135, 0, OUR_IP6, "ff02::1:ff00:9", PEER_IP6, 1);
    answer(host, evil_mac);
    assert_goes_to(host, evil_mac);
    host_end(host);
}

/* Probed by unicast after a minute in use; forgotten after a minute out of use. */
static void test_refresh_and_expiry(void **state) {
    struct host *host = acquainted();
    host->now_us += 58 * (uint64_t)SECOND;
    net_input(host->net, 0, frame, 0, host->now_us); /* moves the clock */
    assert_goes_to(host, peer_mac);
    host->now_us += 3 * (uint64_t)SECOND;
    net_poll(host->net, host->now_us);
    uint32_t probes = 0;
    for (uint32_t i = 0; i < host->queues[0]->sent_count; i++)
        probes += memcmp(host->queues[0]->sent[i].bytes, peer_mac, 6) == 0 && host->queues[0]->sent[i].bytes[54] == 135;
    assert_int_equal(probes, 1);
    answer(host, peer_mac);
    host->now_us += 125 * (uint64_t)SECOND;
    net_poll(host->net, host->now_us);
    host_forget(host);
    assert_int_equal(transmit_payload6(host, OUR_IP6, PEER_IP6, "x"), 0);
    assert_int_equal(host->queues[0]->sent_count, 0); /* it waits again */
    host_end(host);
}

/* RFC 4862 5.4.3 and 5.4.4: told, and defended once in ten seconds. */
static void test_conflict(void **state) {
    struct host *host = settled();
    for (uint32_t i = 0; i < 5; i++)
        hear(host, 136, 0x20, "fe80::e", "ff02::1", evil_mac, OUR_IP6, 2);
    assert_int_equal(host->conflicts, 1);
    assert_memory_equal(host->conflict_mac, evil_mac, 6);
    assert_int_equal(net_counters(host->net)->address_conflicts, 5);
    assert_nd(only(host), NULL, 136, 0x20, OUR_IP6, "ff02::1", OUR_IP6, 2);
    host_wait(host, 10 * SECOND);
    hear(host, 136, 0x20, "fe80::e", "ff02::1", evil_mac, OUR_LINK_LOCAL, 2);
    assert_int_equal(host->conflicts, 2);
    host_wait(host, 10 * SECOND);
    hear(host, 136, 0x20, OUR_IP6, "ff02::1", evil_mac, OUR_IP6, 2); /* the usual answer to our probe: from the address itself */
    assert_int_equal(host->conflicts, 3);
    hear(host, 135, 0, OUR_IP6, "ff02::1:ff00:2", evil_mac, "2001:db8:7::2", 1); /* asks for another in our name */
    assert_int_equal(net_counters(host->net)->address_conflicts, 8);
    host_input(host, frame, make_echo6(frame, OUR_IP6, "ff02::1", 1)); /* nothing but Neighbour Discovery */
    assert_int_equal(net_counters(host->net)->bad_source, 1);
    host_forget(host);
    hear(host, 136, 0x20, "fe80::e", "ff02::1", our_mac, OUR_IP6, 2); /* our own announcement, heard back */
    assert_int_equal(net_counters(host->net)->address_conflicts, 8);
    hear(host, 135, 0, "::", "ff02::1:ff00:2", evil_mac, OUR_IP6, 0); /* it asks before it takes: answered, no conflict */
    assert_int_equal(net_counters(host->net)->address_conflicts, 8);
    assert_int_equal(host->queues[0]->sent_count, 1);
    host_end(host);

    host = new_only6();
    host_open(host);
    net_poll(host->net, host->now_us);
    hear(host, 135, 0, "::", "ff02::1:ff00:2", our_mac, OUR_IP6, 0); /* our probe, heard back */
    assert_int_equal(host->conflicts, 0);
    hear(host, 135, 0, "::", "ff02::1:ff00:2", evil_mac, OUR_IP6, 0); /* both ask at the same moment */
    assert_int_equal(host->conflicts, 1);
    host_end(host);
}

/* Worker 0 alone asks for our addresses at start, so it alone knows what another's question means; an answer is whose queue it came to. */
static void test_conflict_among_workers(void **state) {
    struct host *host = host_new6();
    host->config.workers = 4;
    host->config.worker = 3;
    host_open(host);
    host_settle6(host);
    hear(host, 135, 0, "::", "ff02::1:ff00:2", evil_mac, OUR_IP6, 0); /* it asks before it takes: answered, no conflict */
    assert_int_equal(net_counters(host->net)->address_conflicts, 0);
    assert_nd(only(host), NULL, 136, 0x20, OUR_IP6, "ff02::1", OUR_IP6, 2);
    host_forget(host);
    hear(host, 136, 0x20, "fe80::e", "ff02::1", evil_mac, OUR_IP6, 2);
    assert_int_equal(host->conflicts, 1);
    assert_nd(only(host), NULL, 136, 0x20, OUR_IP6, "ff02::1", OUR_IP6, 2);
    host_end(host);
}

/* RFC 6980 section 5: never with a fragment header, not even one that makes no fragment. */
static void test_fragment_header(void **state) {
    struct host *host = settled();
    uint8_t whole[FRAME_MAX];
    uint32_t length = make_nd(whole, 135, 0, PEER_IP6, "ff02::1:ff00:2", peer_mac, OUR_IP6, 1, peer_mac);
    host_input(host, whole, length);
    assert_int_equal(host->queues[0]->sent_count, 1);
    uint32_t fragment = make_fragment(frame, whole, length, 0, length - 54, 1);
    frame[54 + 3] &= 0xfe; /* no more follow */
    host_input(host, frame, fragment);
    assert_int_equal(host->queues[0]->sent_count, 1);
    assert_int_equal(net_counters(host->net)->bad_nd, 1);
    host_end(host);
}

/* Every worker keeps its own table: what one receives all get, but only the one that received it answers. */
static void test_workers_share_what_they_hear(void **state) {
    struct host *host = host_new6();
    host->config.workers = 4;
    host_open(host);
    host_settle6(host);
    uint32_t before = host->queues[0]->handed_all_count;
    hear(host, 135, 0, PEER_IP6, "ff02::1:ff00:2", peer_mac, OUR_IP6, 1);
    assert_int_equal(host->queues[0]->handed_all_count, before + 1);
    assert_int_equal(host->queues[0]->sent_count, 1);
    host->queues[0]->handed_over = true;
    hear(host, 135, 0, PEER_IP6, "ff02::1:ff00:2", peer_mac, OUR_IP6, 1);
    assert_int_equal(host->queues[0]->handed_all_count, before + 1);
    assert_int_equal(host->queues[0]->sent_count, 1);
    host_end(host);
}

/* More neighbours than the table has places, of both families: the oldest of the silent goes, who has answered and the gateways stay. */
static void test_table_is_bounded(void **state) {
    struct host *host = acquainted();
    char address[64];
    for (uint32_t i = 0; i < 3000; i++) {
        host->now_us++;
        net_input(host->net, 0, NULL, 0, host->now_us); /* moves the clock */
        snprintf(address, sizeof address, "2001:db8::1:%x", i);
        transmit_payload6(host, OUR_IP6, address, "x");
    }
    assert_int_equal(host->queues[0]->sent_count, 0);
    assert_int_equal(transmit_payload6(host, OUR_IP6, FAR_IP6, "x"), 0);
    assert_int_equal(transmit_payload(host, OUR_IP, FAR_IP, "x"), 0);
    assert_int_equal(host->queues[0]->sent_count, 2);
    assert_goes_to(host, peer_mac);
    host_end(host);
}

/* Router advertisements and redirects change nothing. */
static void test_routers_are_not_followed(void **state) {
    struct host *host = settled();
    static const uint8_t types[] = {134, 137};
    for (uint32_t i = 0; i < 2; i++) {
        uint64_t ignored = net_counters(host->net)->ignored;
        hear(host, types[i], 0, "fe80::e", "ff02::1", evil_mac, FAR_IP6, 2);
        assert_int_equal(net_counters(host->net)->ignored, ignored + 1);
    }
    assert_int_equal(transmit_payload6(host, OUR_IP6, FAR_IP6, "x"), 0);
    assert_memory_equal(only(host)->bytes, gateway_mac, 6);
    host_end(host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_start),
        cmocka_unit_test(test_listener_query),
        cmocka_unit_test(test_frame_waits_for_the_answer),
        cmocka_unit_test(test_silence_is_unreachable),
        cmocka_unit_test(test_solicitation_is_answered),
        cmocka_unit_test(test_invalid_messages),
        cmocka_unit_test(test_nothing_is_learned_unasked),
        cmocka_unit_test(test_claim_is_verified),
        cmocka_unit_test(test_failover),
        cmocka_unit_test(test_refresh_and_expiry),
        cmocka_unit_test(test_listener_reports_unasked),
        cmocka_unit_test(test_conflict),
        cmocka_unit_test(test_conflict_among_workers),
        cmocka_unit_test(test_fragment_header),
        cmocka_unit_test(test_workers_share_what_they_hear),
        cmocka_unit_test(test_table_is_bounded),
        cmocka_unit_test(test_routers_are_not_followed),
    };
    return cmocka_run_group_tests_name("net_nd", tests, NULL, NULL);
}
