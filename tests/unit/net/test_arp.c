/* test_arp.c: ARP asks, waits, believes what it should, and doubts the rest (RFC 826, RFC 1122 2.3.2, RFC 5227). */
#include "peer.h"
#include <errno.h>
#include <string.h>

static const struct sent *only(struct host *host) {
    assert_int_equal(host->queues[0]->sent_count, 1);
    return &host->queues[0]->sent[0];
}

static void assert_arp(const struct sent *sent, const uint8_t *to, uint16_t operation, uint32_t sender, uint32_t target) {
    uint8_t want[64];
    make_arp(want, to, operation, our_mac, sender, target);
    assert_int_equal(sent->length, 42);
    assert_memory_equal(sent->bytes, want, 14 + 18);
    assert_memory_equal(sent->bytes + 14 + 24, want + 14 + 24, 4);
}

static struct host *settled(void) {
    struct host *host = host_new();
    host_open(host);
    host_settle(host);
    return host;
}

/* Our peer is known with its MAC, and nothing is on the wire. */
static struct host *acquainted(void) {
    struct host *host = settled();
    uint8_t frame[64];
    assert_int_equal(transmit_payload(host, OUR_IP, PEER_IP, "x"), 0);
    net_poll(host->net, host->now_us);
    host_input(host, frame, make_arp(frame, our_mac, 2, peer_mac, PEER_IP, OUR_IP));
    assert_int_equal(host->queues[0]->sent_count, 2);
    host_forget(host);
    return host;
}

static void assert_goes_to(struct host *host, const uint8_t *mac) {
    host_forget(host);
    assert_int_equal(transmit_payload(host, OUR_IP, PEER_IP, "y"), 0);
    assert_memory_equal(only(host)->bytes, mac, 6);
    host_forget(host);
}

/* RFC 5227 2.1.1 and 2.3: a probe does not claim the address; two announcements follow. The gateway is asked for at once. */
static void test_start(void **state) {
    struct host *host = host_new();
    host_open(host);
    net_poll(host->net, host->now_us);
    assert_int_equal(host->queues[0]->sent_count, 2);
    assert_arp(&host->queues[0]->sent[0], broadcast_mac, 1, 0, OUR_IP);
    assert_arp(&host->queues[0]->sent[1], broadcast_mac, 1, OUR_IP, GATEWAY_IP);
    uint8_t frame[64];
    host_input(host, frame, make_arp(frame, our_mac, 2, gateway_mac, GATEWAY_IP, OUR_IP));
    host_forget(host);
    host_wait(host, 10 * SECOND);
    assert_int_equal(host->queues[0]->sent_count, 2);
    assert_arp(&host->queues[0]->sent[0], broadcast_mac, 1, OUR_IP, OUR_IP);
    assert_arp(&host->queues[0]->sent[1], broadcast_mac, 1, OUR_IP, OUR_IP);
    host_end(host);
}

static void test_only_worker_0_announces(void **state) {
    struct host *host = host_new();
    host->config.worker = 1;
    host->config.workers = 2;
    host->config.interfaces[0].gateway.family = 0;
    host_open(host);
    host_wait(host, 10 * SECOND);
    assert_int_equal(host->queues[0]->sent_count, 0);
    host_end(host);
}

/* RFC 1122 2.3.2.2: the packet that asked waits for the answer. */
static void test_frame_waits_for_the_answer(void **state) {
    struct host *host = settled();
    uint8_t frame[64];
    assert_int_equal(transmit_payload(host, OUR_IP, PEER_IP, "hello"), 0);
    assert_int_equal(host->queues[0]->sent_count, 0);
    net_poll(host->net, host->now_us);
    assert_arp(only(host), broadcast_mac, 1, OUR_IP, PEER_IP);
    host_forget(host);
    host_input(host, frame, make_arp(frame, our_mac, 2, peer_mac, PEER_IP, OUR_IP));
    const struct sent *sent = only(host);
    assert_memory_equal(sent->bytes, peer_mac, 6);
    assert_int_equal(sent->length, 54 + 5);
    assert_memory_equal(sent->bytes + 54, "hello", 5);
    assert_false(sent->by_reference_allowed);
    assert_goes_to(host, peer_mac);
    host_end(host);
}

/* Many connections begin at once: a few SYNs wait, TCP hears that it shall try the others again, and none is lost for a second. */
static void test_the_first_wait_in_order(void **state) {
    struct host *host = settled();
    uint8_t frame[64];
    static const char *const payloads[] = {"0", "1", "2", "3", "4", "5", "6"};
    for (uint32_t i = 0; i < 7; i++)
        assert_int_equal(transmit_payload(host, OUR_IP, PEER_IP, payloads[i]), i < 4 ? 0 : -EAGAIN);
    assert_int_equal(net_counters(host->net)->frames_wait_dropped, 0);
    host_input(host, frame, make_arp(frame, our_mac, 2, peer_mac, PEER_IP, OUR_IP));
    assert_int_equal(host->queues[0]->sent_count, 4);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(host->queues[0]->sent[i].bytes[54], '0' + (int)i);
    assert_int_equal(transmit_payload(host, OUR_IP, PEER_IP, payloads[4]), 0);
    assert_int_equal(host->queues[0]->sent[4].bytes[54], '4');
    host_end(host);
}

/* The pool of waiting frames is bounded over all neighbours; who finds it empty is told to try again. */
static void test_waiting_is_bounded(void **state) {
    struct host *host = settled();
    uint32_t kept = 0;
    for (uint32_t i = 0; i < 100; i++) {
        int rc = transmit_payload(host, OUR_IP, 0x0a630010u + i, "x");
        assert_true(rc == 0 || rc == -EAGAIN);
        kept += rc == 0;
    }
    assert_int_equal(kept, 64);
    host_end(host);
}

/* RFC 1122 2.3.2.1: at most one request a second for one neighbour; then it is unreachable for a while, and asked again later. */
static void test_silence_is_unreachable(void **state) {
    struct host *host = settled();
    assert_int_equal(transmit_payload(host, OUR_IP, PEER_IP, "x"), 0);
    host_wait(host, SECOND);
    assert_int_equal(host->queues[0]->sent_count, 1);
    host_wait(host, 2 * SECOND);
    assert_int_equal(host->queues[0]->sent_count, 3);
    for (uint32_t i = 0; i < 3; i++)
        assert_arp(&host->queues[0]->sent[i], broadcast_mac, 1, OUR_IP, PEER_IP);
    host_wait(host, SECOND / 2);
    assert_int_equal(transmit_payload(host, OUR_IP, PEER_IP, "x"), -EHOSTUNREACH);
    assert_int_equal(net_counters(host->net)->neighbours_failed, 1);
    assert_int_equal(net_counters(host->net)->frames_wait_dropped, 1);
    host_wait(host, 4 * SECOND);
    host_forget(host);
    assert_int_equal(transmit_payload(host, OUR_IP, PEER_IP, "x"), 0);
    net_poll(host->net, host->now_us);
    assert_arp(only(host), broadcast_mac, 1, OUR_IP, PEER_IP);
    host_end(host);
}

static void test_request_for_us_is_answered(void **state) {
    struct host *host = settled();
    uint8_t frame[64];
    host_input(host, frame, make_arp(frame, broadcast_mac, 1, peer_mac, PEER_IP, OUR_IP));
    assert_arp(only(host), peer_mac, 2, OUR_IP, PEER_IP);
    assert_memory_equal(only(host)->bytes + 14 + 18, peer_mac, 6);
    host_forget(host);
    host_input(host, frame, make_arp(frame, broadcast_mac, 1, peer_mac, PEER_IP, OUR_IP + 1));
    assert_int_equal(host->queues[0]->sent_count, 0);
    /* RFC 5227 2.1.1: another host's probe for our address is answered too; that defends it. */
    host_input(host, frame, make_arp(frame, broadcast_mac, 1, peer_mac, 0, OUR_IP));
    assert_arp(only(host), peer_mac, 2, OUR_IP, 0);
    host_end(host);
}

static void test_nothing_is_learned_unasked(void **state) {
    struct host *host = settled();
    uint8_t frame[64];
    host_input(host, frame, make_arp(frame, our_mac, 2, evil_mac, PEER_IP, OUR_IP));           /* an answer that nobody asked for */
    host_input(host, frame, make_arp(frame, broadcast_mac, 2, evil_mac, PEER_IP, PEER_IP));    /* gratuitous */
    host_input(host, frame, make_arp(frame, broadcast_mac, 1, evil_mac, PEER_IP, GATEWAY_IP)); /* said to someone else */
    assert_int_equal(transmit_payload(host, OUR_IP, PEER_IP, "x"), 0);
    assert_int_equal(host->queues[0]->sent_count, 0); /* it waits: the MAC is not known */
    /* An answer to our question counts only when it was said to us. */
    net_poll(host->net, host->now_us);
    host_forget(host);
    host_input(host, frame, make_arp(frame, broadcast_mac, 2, evil_mac, PEER_IP, OUR_IP));
    host_input(host, frame, make_arp(frame, our_mac, 2, evil_mac, PEER_IP, OUR_IP + 1));
    assert_int_equal(host->queues[0]->sent_count, 0);
    host_end(host);
}

/* A neighbour's request shows its MAC while we ask for it. */
static void test_request_to_us_answers_our_question(void **state) {
    struct host *host = settled();
    uint8_t frame[64];
    assert_int_equal(transmit_payload(host, OUR_IP, PEER_IP, "x"), 0);
    host_input(host, frame, make_arp(frame, broadcast_mac, 1, peer_mac, PEER_IP, OUR_IP));
    assert_int_equal(host->queues[0]->sent_count, 2); /* what waited, and the reply */
    assert_goes_to(host, peer_mac);
    host_end(host);
}

/* Poisoning: a known neighbour's address claimed by another MAC. The known one is asked, and while it answers nothing changes. */
static void test_claim_is_verified(void **state) {
    struct host *host = acquainted();
    uint8_t frame[64];
    host_input(host, frame, make_arp(frame, our_mac, 2, evil_mac, PEER_IP, OUR_IP));
    host_input(host, frame, make_arp(frame, broadcast_mac, 1, evil_mac, PEER_IP, OUR_IP));
    assert_int_equal(net_counters(host->net)->neighbour_claims, 2);
    host_forget(host);
    net_poll(host->net, host->now_us);
    assert_arp(only(host), peer_mac, 1, OUR_IP, PEER_IP);
    assert_goes_to(host, peer_mac);
    host_input(host, frame, make_arp(frame, our_mac, 2, peer_mac, PEER_IP, OUR_IP));
    host_wait(host, 5 * SECOND);
    assert_goes_to(host, peer_mac);
    host_end(host);
}

/* A gateway that fails over to another MAC announces it: the old one is silent, so everyone is asked and the new one believed. */
static void test_failover(void **state) {
    struct host *host = acquainted();
    uint8_t frame[64];
    host_input(host, frame, make_arp(frame, broadcast_mac, 1, evil_mac, PEER_IP, PEER_IP));
    host_wait(host, 3 * SECOND / 2);
    assert_int_equal(host->queues[0]->sent_count, 2);
    assert_arp(&host->queues[0]->sent[0], peer_mac, 1, OUR_IP, PEER_IP);
    assert_arp(&host->queues[0]->sent[1], broadcast_mac, 1, OUR_IP, PEER_IP);
    host_input(host, frame, make_arp(frame, our_mac, 2, evil_mac, PEER_IP, OUR_IP));
    assert_goes_to(host, evil_mac);
    host_end(host);
}

/* RFC 1122 2.3.2.1: unicast poll of a neighbour in use; one that is not used is forgotten without a word. */
static void test_refresh_and_expiry(void **state) {
    struct host *host = acquainted();
    uint8_t frame[64];
    host->now_us += 59 * (uint64_t)SECOND;
    net_poll(host->net, host->now_us);
    assert_int_equal(host->queues[0]->sent_count, 1); /* the gateway's minute is up; its answer: */
    host_input(host, frame, make_arp(frame, our_mac, 2, gateway_mac, GATEWAY_IP, OUR_IP));
    assert_goes_to(host, peer_mac);
    host->now_us += 2 * (uint64_t)SECOND;
    net_poll(host->net, host->now_us);
    assert_arp(only(host), peer_mac, 1, OUR_IP, PEER_IP);
    assert_goes_to(host, peer_mac);
    host_input(host, frame, make_arp(frame, our_mac, 2, peer_mac, PEER_IP, OUR_IP));
    host->now_us += 57 * (uint64_t)SECOND;
    net_poll(host->net, host->now_us);
    host_input(host, frame, make_arp(frame, our_mac, 2, gateway_mac, GATEWAY_IP, OUR_IP));
    host_forget(host);
    /* Not used for over a minute when its time comes. */
    host->now_us += 4 * (uint64_t)SECOND;
    net_poll(host->net, host->now_us);
    assert_int_equal(host->queues[0]->sent_count, 0);
    assert_int_equal(transmit_payload(host, OUR_IP, PEER_IP, "x"), 0);
    assert_int_equal(host->queues[0]->sent_count, 0); /* it waits again */
    host_end(host);
}

/* The gateway is asked for again and again: mail may start at any time. */
static void test_gateway_is_never_given_up(void **state) {
    struct host *host = host_new();
    host_open(host);
    host_wait(host, 20 * SECOND);
    assert_true(net_counters(host->net)->neighbours_failed >= 2);
    assert_true(host->queues[0]->sent_count >= 3 + 3 * 3);
    assert_true(host->queues[0]->sent_count <= 3 + 3 * 4);
    host_end(host);
}

/* RFC 5227 2.4 (b): told, and defended once in ten seconds. */
static void test_conflict(void **state) {
    struct host *host = settled();
    uint8_t frame[64];
    for (uint32_t i = 0; i < 5; i++)
        host_input(host, frame, make_arp(frame, broadcast_mac, 1, evil_mac, OUR_IP, OUR_IP));
    assert_int_equal(host->conflicts, 1);
    assert_memory_equal(host->conflict_mac, evil_mac, 6);
    assert_int_equal(net_counters(host->net)->address_conflicts, 5);
    assert_arp(only(host), broadcast_mac, 1, OUR_IP, OUR_IP);
    host_wait(host, 10 * SECOND);
    host_input(host, frame, make_arp(frame, our_mac, 2, evil_mac, OUR_IP, OUR_IP));
    assert_int_equal(host->conflicts, 2);
    /* Our own announcement, heard back, is none. */
    host_input(host, frame, make_arp(frame, broadcast_mac, 1, our_mac, OUR_IP, OUR_IP));
    assert_int_equal(net_counters(host->net)->address_conflicts, 6);
    host_end(host);
}

/* Every worker keeps its own table: what one receives all get, but only the one that received it answers. */
static void test_workers_share_what_they_hear(void **state) {
    struct host *host = host_new();
    uint8_t frame[64];
    host->config.workers = 4;
    host_open(host);
    host_settle(host);
    uint32_t before = host->queues[0]->handed_all_count;
    host_input(host, frame, make_arp(frame, broadcast_mac, 1, peer_mac, PEER_IP, OUR_IP));
    assert_int_equal(host->queues[0]->handed_all_count, before + 1);
    assert_int_equal(host->queues[0]->sent_count, 1);
    host->queues[0]->handed_over = true;
    host_input(host, frame, make_arp(frame, broadcast_mac, 1, peer_mac, PEER_IP, OUR_IP));
    assert_int_equal(host->queues[0]->handed_all_count, before + 1);
    assert_int_equal(host->queues[0]->sent_count, 1);
    host->queues[0]->handed_over = false;
    host_input(host, frame, make_arp(frame, broadcast_mac, 1, peer_mac, PEER_IP, GATEWAY_IP)); /* none of our business */
    assert_int_equal(host->queues[0]->handed_all_count, before + 1);
    host_end(host);
}

static void test_bad_arp_is_counted(void **state) {
    struct host *host = settled();
    uint8_t frame[64];
    uint64_t dropped = counter_get(&host->counters.frames_bad);
    static const uint8_t group_mac[6] = {3, 0, 0, 0, 0, 9}, no_mac[6];
    for (uint32_t length = 14; length < 42; length++) {
        make_arp(frame, broadcast_mac, 1, peer_mac, PEER_IP, OUR_IP);
        host_input(host, frame, length);
    }
    static const uint8_t at[] = {14, 16, 18, 19, 20};
    for (uint32_t i = 0; i < sizeof at; i++) { /* hardware, protocol, their sizes, operation */
        make_arp(frame, broadcast_mac, 1, peer_mac, PEER_IP, OUR_IP);
        frame[at[i]] ^= 0x40;
        host_input(host, frame, 42);
    }
    make_arp(frame, broadcast_mac, 1, group_mac, PEER_IP, OUR_IP);
    memcpy(frame + 6, peer_mac, 6);
    host_input(host, frame, 42);
    make_arp(frame, broadcast_mac, 1, no_mac, PEER_IP, OUR_IP);
    host_input(host, frame, 42);
    host_input(host, frame, make_arp(frame, broadcast_mac, 1, peer_mac, 0xe0000001u, OUR_IP)); /* a multicast sender */
    assert_int_equal(net_counters(host->net)->bad_arp, 28 + 5 + 3);
    assert_int_equal(counter_get(&host->counters.frames_bad), dropped + 28 + 5 + 3);
    assert_int_equal(host->queues[0]->sent_count, 0);
    host_end(host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_start),
        cmocka_unit_test(test_only_worker_0_announces),
        cmocka_unit_test(test_frame_waits_for_the_answer),
        cmocka_unit_test(test_the_first_wait_in_order),
        cmocka_unit_test(test_waiting_is_bounded),
        cmocka_unit_test(test_silence_is_unreachable),
        cmocka_unit_test(test_request_for_us_is_answered),
        cmocka_unit_test(test_nothing_is_learned_unasked),
        cmocka_unit_test(test_request_to_us_answers_our_question),
        cmocka_unit_test(test_claim_is_verified),
        cmocka_unit_test(test_failover),
        cmocka_unit_test(test_refresh_and_expiry),
        cmocka_unit_test(test_gateway_is_never_given_up),
        cmocka_unit_test(test_conflict),
        cmocka_unit_test(test_workers_share_what_they_hear),
        cmocka_unit_test(test_bad_arp_is_counted),
    };
    return cmocka_run_group_tests_name("net_arp", tests, NULL, NULL);
}
