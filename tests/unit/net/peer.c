/* peer.c: see peer.h. */
#include "peer.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

const uint8_t our_mac[6] = {2, 0, 0, 0, 0, 2}, peer_mac[6] = {2, 0, 0, 0, 0, 9}, gateway_mac[6] = {2, 0, 0, 0, 0, 1},
              evil_mac[6] = {2, 0xe, 0xe, 0xe, 0xe, 0xe}, broadcast_mac[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
struct heard heard;
struct net *answer_from;

static void put16(uint8_t *at, uint32_t value) {
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value) {
    put16(at, value >> 16);
    put16(at + 2, value);
}

uint16_t sum16(const uint8_t *bytes, uint32_t length, uint32_t start) {
    uint32_t sum = start;
    for (uint32_t i = 0; i < length; i++)
        sum += (i & 1) == 0 ? (uint32_t)bytes[i] << 8 : bytes[i];
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

static uint32_t pseudo_sum_of(const uint8_t *ip, uint32_t l4_length, uint8_t protocol) {
    bool six = ip[0] >> 4 == 6;
    return (uint32_t)(uint16_t)~sum16(ip + (six ? 8 : 12), six ? 32 : 8, protocol + l4_length);
}

static uint32_t pseudo_sum(const uint8_t *ip, uint32_t l4_length) {
    return pseudo_sum_of(ip, l4_length, 6);
}

/* port.h, as a device with finished checksums would do it. */

int port_send(struct port_queue *queue, const struct frame *frame) {
    if (queue->send_result != 0 || queue->forget)
        return queue->send_result;
    assert_true(queue->sent_count < SENT_MAX);
    assert_true((uint32_t)frame->header_length + frame->payload_length <= FRAME_MAX);
    assert_true(frame->header_length <= FRAME_HEADER_BYTES_MAX);
    struct sent *sent = &queue->sent[queue->sent_count++];
    memcpy(sent->bytes, frame->header, frame->header_length);
    sent->length = frame->header_length;
    for (uint32_t i = 0; i < frame->piece_count; i++) {
        memcpy(sent->bytes + sent->length, frame->pieces[i].bytes, frame->pieces[i].length);
        sent->length += frame->pieces[i].length;
    }
    assert_int_equal(sent->length, frame->header_length + frame->payload_length);
    sent->segment_bytes = frame->segment_bytes;
    sent->by_reference_allowed = frame->by_reference_allowed;
    if (frame->l4_protocol == 6) {
        uint8_t *tcp = sent->bytes + frame->l2_length + frame->l3_length;
        assert_int_equal(frame->header_length, frame->l2_length + frame->l3_length + frame->l4_length);
        /* What frame.h promises to devices: the pseudo-header's sum, not complemented. */
        uint32_t l4_length = sent->length - frame->l2_length - frame->l3_length;
        assert_int_equal((uint32_t)tcp[16] << 8 | tcp[17], pseudo_sum(sent->bytes + frame->l2_length, l4_length));
        put16(tcp + 16, sum16(tcp, l4_length, 0));
    }
    return 0;
}

void port_flush(struct port_queue *queue) {
    queue->flushes++;
}

uint32_t port_receive_ahead(struct port_queue *queue, void (*ahead)(void *context, const uint8_t *frame, uint32_t length),
                            void (*input)(void *context, const uint8_t *frame, uint32_t length), void *context) {
    uint32_t length = queue->receive_length;
    queue->receive_length = 0;
    if (length > 0) {
        ahead(context, queue->receive, length);
        input(context, queue->receive, length);
    }
    return length > 0;
}

bool port_checksum_good(const struct port_queue *queue) {
    return queue->checksum_good;
}

bool port_frame_handed_over(const struct port_queue *queue) {
    return queue->handed_over;
}

int port_hand_over(struct port_queue *queue, uint32_t worker) {
    if (!queue->forget)
        queue->handed_to[queue->handed_count++ % SENT_MAX] = worker;
    return 0;
}

void port_hand_over_all(struct port_queue *queue) {
    queue->handed_all_count++;
}

/* tcp.h: keeps what it hears. */

void tcp_input(struct tcp_stack *stack, const struct tcp_packet *packet, uint64_t now_us) {
    assert_non_null(stack);
    assert_true(packet->length >= 20 && packet->length <= HEARD_MAX);
    heard.segments++;
    heard.packet = *packet;
    memcpy(heard.bytes, packet->header, packet->length);
    struct tcp_segment segment = {.local = packet->local, .remote = packet->remote, .flags = TCP_ACK};
    if (answer_from != NULL)
        assert_int_equal(net_transmit(answer_from, &segment), 0);
}

void tcp_prefetch(struct tcp_stack *stack, struct tcp_packet *packet) {
    assert_non_null(stack);
    heard.announced = *packet;
    packet->hash = ++heard.announcements;
}

void tcp_input_error(struct tcp_stack *stack, const struct tcp_address *local, uint16_t local_port, const struct tcp_address *remote,
                     uint16_t remote_port, uint32_t sequence, bool hard, uint16_t mtu, uint64_t now_us) {
    assert_non_null(stack);
    heard.errors++;
    heard.local = *local;
    heard.remote = *remote;
    heard.local_port = local_port;
    heard.remote_port = remote_port;
    heard.sequence = sequence;
    heard.hard = hard;
    heard.mtu = mtu;
}

/* The host under test. */

static void on_conflict(void *user, uint32_t interface, const struct tcp_address *address, const uint8_t mac[6]) {
    struct host *host = user;
    host->conflicts++;
    memcpy(host->conflict_mac, mac, 6);
}

struct tcp_address ip4(uint32_t address) {
    struct tcp_address ip = {.family = 4};
    put32(ip.bytes, address);
    return ip;
}

struct tcp_address ip6(const char *text) {
    struct tcp_address ip = {.family = 6};
    assert_int_equal(inet_pton(AF_INET6, text, ip.bytes), 1);
    return ip;
}

struct host *host_new6(void) {
    struct host *host = host_new();
    struct net_interface *interface = &host->config.interfaces[0];
    interface->addresses[interface->address_count++] = (struct net_address){.address = ip6(OUR_IP6), .prefix_length = 64};
    interface->gateway6 = ip6(GATEWAY_IP6);
    return host;
}

struct host *host_new(void) {
    struct host *host = calloc(1, sizeof *host);
    assert_non_null(host);
    for (uint32_t i = 0; i < 2; i++) {
        host->queues[i] = calloc(1, sizeof *host->queues[i]);
        assert_non_null(host->queues[i]);
    }
    host->now_us = 1000 * SECOND;
    host->config = (struct net_config){
        .interface_count = 1, .workers = 1, .counters = &host->counters, .conflict = on_conflict, .conflict_user = host};
    struct net_interface *interface = &host->config.interfaces[0];
    *interface = (struct net_interface){.queue = host->queues[0], .mtu = 1500, .address_count = 1, .gateway = ip4(GATEWAY_IP)};
    memcpy(interface->mac, our_mac, 6);
    interface->addresses[0] = (struct net_address){.address = ip4(OUR_IP), .prefix_length = 24};
    return host;
}

void host_open(struct host *host) {
    memset(&heard, 0, sizeof heard);
    host->net = net_create(&host->config, host->now_us);
    assert_non_null(host->net);
    net_attach(host->net, (struct tcp_stack *)host); /* the stack is ours: any address does */
}

void host_end(struct host *host) {
    net_destroy(host->net);
    free(host->queues[0]);
    free(host->queues[1]);
    free(host);
}

void host_forget(struct host *host) {
    for (uint32_t i = 0; i < 2; i++)
        host->queues[i]->sent_count = 0;
}

void host_wait(struct host *host, uint64_t us) {
    for (uint64_t end_us = host->now_us + us; host->now_us < end_us; host->now_us += SECOND / 10)
        net_poll(host->net, host->now_us);
}

void host_input(struct host *host, const uint8_t *frame, uint32_t length) {
    /* A copy of the exact size, so that AddressSanitizer sees any read past the end. */
    uint8_t *exact = malloc(length > 0 ? length : 1);
    assert_non_null(exact);
    memcpy(exact, frame, length);
    net_input(host->net, 0, exact, length, host->now_us);
    free(exact);
}

void host_settle(struct host *host) {
    uint8_t frame[FRAME_MAX];
    host_wait(host, SECOND / 2);
    host_input(host, frame, make_arp(frame, our_mac, 2, gateway_mac, GATEWAY_IP, OUR_IP));
    host_wait(host, 4 * SECOND);
    host_forget(host);
}

void host_settle6(struct host *host) {
    uint8_t frame[FRAME_MAX];
    host_wait(host, SECOND / 2);
    host_input(host, frame, make_arp(frame, our_mac, 2, gateway_mac, GATEWAY_IP, OUR_IP));
    host_input(host, frame, make_nd(frame, 136, 0xe0, GATEWAY_IP6, OUR_LINK_LOCAL, gateway_mac, GATEWAY_IP6, 2, gateway_mac));
    host_wait(host, 4 * SECOND);
    host_forget(host);
}

/* Frames of others. */

static void make_ethernet(uint8_t *frame, const uint8_t *to, const uint8_t *from, uint32_t ethertype) {
    memcpy(frame, to, 6);
    memcpy(frame + 6, from, 6);
    put16(frame + 12, ethertype);
}

uint32_t make_arp(uint8_t *frame, const uint8_t *to, uint16_t operation, const uint8_t *sender_mac, uint32_t sender, uint32_t target) {
    make_ethernet(frame, to, sender_mac, 0x0806);
    uint8_t *arp = frame + 14;
    memset(arp, 0, 28);
    put16(arp, 1);
    put16(arp + 2, 0x0800);
    arp[4] = 6;
    arp[5] = 4;
    put16(arp + 6, operation);
    memcpy(arp + 8, sender_mac, 6);
    put32(arp + 14, sender);
    put32(arp + 24, target);
    return 42;
}

void fix_ipv4(uint8_t *frame) {
    uint8_t *ip = frame + 14;
    put16(ip + 10, 0);
    put16(ip + 10, sum16(ip, (uint32_t)(ip[0] & 15) * 4, 0));
}

void fix_icmp(uint8_t *frame, uint32_t length) {
    put16(frame + 36, 0);
    put16(frame + 36, sum16(frame + 34, length - 34, 0));
}

uint32_t make_ipv4(uint8_t *frame, uint8_t protocol, uint32_t source, uint32_t destination, const uint8_t *payload, uint32_t length) {
    make_ethernet(frame, our_mac, peer_mac, 0x0800);
    uint8_t *ip = frame + 14;
    memset(ip, 0, 20);
    ip[0] = 0x45;
    put16(ip + 2, 20 + length);
    put16(ip + 6, 0x4000);
    ip[8] = 61;
    ip[9] = protocol;
    put32(ip + 12, source);
    put32(ip + 16, destination);
    fix_ipv4(frame);
    memcpy(ip + 20, payload, length);
    return 34 + length;
}

uint32_t make_tcp(uint8_t *frame, uint32_t source, uint32_t destination, uint16_t from, uint16_t to, uint32_t payload_bytes) {
    uint8_t tcp[FRAME_MAX - 34] = {0};
    put16(tcp, from);
    put16(tcp + 2, to);
    put32(tcp + 4, 0x01020304);
    put32(tcp + 8, 0x05060708);
    tcp[12] = 0x50;
    tcp[13] = TCP_ACK | TCP_PSH;
    put16(tcp + 14, 4096);
    for (uint32_t i = 0; i < payload_bytes; i++)
        tcp[20 + i] = (uint8_t)(i * 7 + 1);
    uint32_t length = make_ipv4(frame, 6, source, destination, tcp, 20 + payload_bytes);
    put16(frame + 34 + 16, sum16(frame + 34, 20 + payload_bytes, pseudo_sum(frame + 14, 20 + payload_bytes)));
    return length;
}

uint32_t make_echo(uint8_t *frame, uint32_t source, uint32_t destination, uint32_t data_bytes) {
    uint8_t icmp[FRAME_MAX - 34] = {8};
    put32(icmp + 4, 0xbeef0001);
    for (uint32_t i = 0; i < data_bytes; i++)
        icmp[8 + i] = (uint8_t)(i * 3 + 5);
    uint32_t length = make_ipv4(frame, 1, source, destination, icmp, 8 + data_bytes);
    fix_icmp(frame, length);
    return length;
}

uint32_t make_icmp_error(uint8_t *frame, uint8_t type, uint8_t code, uint16_t mtu, uint32_t local, uint16_t local_port, uint32_t sequence) {
    uint8_t quoted[FRAME_MAX], icmp[36] = {type, code};
    make_tcp(quoted, local, FAR_IP, local_port, 25, 1000);
    put32(quoted + 34 + 4, sequence);
    put16(icmp + 6, mtu);
    memcpy(icmp + 8, quoted + 14, 28);
    uint32_t length = make_ipv4(frame, 1, GATEWAY_IP, local, icmp, sizeof icmp);
    fix_icmp(frame, length);
    return length;
}

uint32_t make_ipv6(uint8_t *frame, uint8_t next, const char *source, const char *destination, const uint8_t *payload, uint32_t length) {
    struct tcp_address from = ip6(source), to = ip6(destination);
    uint8_t group[6] = {0x33, 0x33};
    memcpy(group + 2, to.bytes + 12, 4);
    make_ethernet(frame, to.bytes[0] == 0xff ? group : our_mac, peer_mac, 0x86dd);
    uint8_t *ip = frame + 14;
    put32(ip, 0x60012345);
    put16(ip + 4, length);
    ip[6] = next;
    ip[7] = 61;
    memcpy(ip + 8, from.bytes, 16);
    memcpy(ip + 24, to.bytes, 16);
    memmove(ip + 40, payload, length);
    return 54 + length;
}

uint16_t sum_l4(const uint8_t *frame, uint32_t length, uint8_t protocol) {
    uint32_t head = frame[14] >> 4 == 6 ? 54 : 34;
    return sum16(frame + head, length - head, protocol == 1 ? 0 : pseudo_sum_of(frame + 14, length - head, protocol));
}

void fix_icmp6(uint8_t *frame, uint32_t length) {
    put16(frame + 56, 0);
    put16(frame + 56, sum_l4(frame, length, 58));
}

uint32_t make_tcp6(uint8_t *frame, const char *source, const char *destination, uint16_t from, uint16_t to, uint32_t payload_bytes) {
    uint8_t four[FRAME_MAX];
    make_tcp(four, FAR_IP, OUR_IP, from, to, payload_bytes);
    uint32_t length = make_ipv6(frame, 6, source, destination, four + 34, 20 + payload_bytes);
    put16(frame + 54 + 16, 0);
    put16(frame + 54 + 16, sum_l4(frame, length, 6));
    return length;
}

uint32_t make_echo6(uint8_t *frame, const char *source, const char *destination, uint32_t data_bytes) {
    uint8_t icmp[FRAME_MAX - 54] = {128};
    put32(icmp + 4, 0xbeef0001);
    for (uint32_t i = 0; i < data_bytes; i++)
        icmp[8 + i] = (uint8_t)(i * 3 + 5);
    uint32_t length = make_ipv6(frame, 58, source, destination, icmp, 8 + data_bytes);
    fix_icmp6(frame, length);
    return length;
}

uint32_t make_icmp6_error(uint8_t *frame, uint8_t type, uint8_t code, uint32_t mtu, const char *local, uint16_t local_port,
                          uint32_t sequence) {
    uint8_t quoted[FRAME_MAX], icmp[8 + 40 + 20] = {type, code};
    make_tcp6(quoted, local, FAR_IP6, local_port, 25, 1000);
    put32(quoted + 54 + 4, sequence);
    put32(icmp + 4, mtu);
    memcpy(icmp + 8, quoted + 14, 60);
    uint32_t length = make_ipv6(frame, 58, "2001:db8::1", local, icmp, sizeof icmp);
    fix_icmp6(frame, length);
    return length;
}

uint32_t make_nd(uint8_t *frame, uint8_t type, uint8_t flags, const char *source, const char *destination, const uint8_t *from_mac,
                 const char *target, uint8_t option, const uint8_t *option_mac) {
    uint8_t nd[32] = {type};
    struct tcp_address about = ip6(target);
    nd[4] = flags;
    memcpy(nd + 8, about.bytes, 16);
    nd[24] = option;
    nd[25] = 1;
    if (option != 0)
        memcpy(nd + 26, option_mac, 6);
    uint32_t length = make_ipv6(frame, 58, source, destination, nd, option != 0 ? 32 : 24);
    memcpy(frame + 6, from_mac, 6);
    frame[14 + 7] = 255;
    fix_icmp6(frame, length);
    return length;
}

uint32_t make_fragment(uint8_t *frame, const uint8_t *whole, uint32_t whole_length, uint32_t offset, uint32_t length,
                       uint32_t identification) {
    bool six = whole[14] >> 4 == 6;
    uint32_t head = six ? 54 : 34, more = offset + length < whole_length - head;
    memcpy(frame, whole, head);
    if (six) {
        put16(frame + 18, length + 8);
        frame[20] = 44;
        frame[54] = whole[20];
        frame[55] = 0;
        put16(frame + 56, offset | more);
        put32(frame + 58, identification);
        memcpy(frame + 62, whole + head + offset, length);
        return 62 + length;
    }
    put16(frame + 16, 20 + length);
    put16(frame + 18, identification);
    put16(frame + 20, offset / 8 | more << 13);
    fix_ipv4(frame);
    memcpy(frame + 34, whole + head + offset, length);
    return 34 + length;
}

static int transmit_between(struct host *host, struct tcp_address local, struct tcp_address remote, const char *payload) {
    struct tcp_piece piece = {.bytes = (const uint8_t *)payload, .length = (uint32_t)strlen(payload)};
    struct tcp_segment segment = {
        .local = local,
        .remote = remote,
        .local_port = 40000,
        .remote_port = 25,
        .sequence = 0x11223344,
        .acknowledgement = 0x55667788,
        .flags = TCP_ACK | TCP_PSH,
        .first_transmission = true,
        .window = 0x1234,
        .piece_count = piece.length > 0,
        .payload_length = (uint16_t)piece.length,
        .pieces = &piece,
    };
    return net_transmit(host->net, &segment);
}

int transmit_payload6(struct host *host, const char *local, const char *remote, const char *payload) {
    return transmit_between(host, ip6(local), ip6(remote), payload);
}

int transmit_payload(struct host *host, uint32_t local, uint32_t remote, const char *payload) {
    return transmit_between(host, ip4(local), ip4(remote), payload);
}
