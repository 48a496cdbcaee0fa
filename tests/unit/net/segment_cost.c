/* segment_cost.c: what net alone costs: one segment sent, or one received, many times, between a port and a TCP that do nothing.
 * `instructions` counts it. */
#include "dataplane/net/net.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NOW_US = 1000000, OPTIONS_BYTES = 12, PAYLOAD_BYTES = 1400 };

struct port_queue {
    uint64_t sent;
};

static uint64_t heard;

int port_send(struct port_queue *queue, const struct frame *frame) {
    queue->sent++;
    return 0;
}

void port_flush(struct port_queue *queue) {}

static const uint8_t *arrives; /* the frame that port_receive_ahead brings, if any */
static uint32_t arrives_bytes;

uint32_t port_receive_ahead(struct port_queue *queue, void (*ahead)(void *context, const uint8_t *frame, uint32_t length),
                            void (*input)(void *context, const uint8_t *frame, uint32_t length), void *context) {
    if (arrives == NULL)
        return 0;
    ahead(context, arrives, arrives_bytes);
    input(context, arrives, arrives_bytes);
    return 1;
}

void tcp_prefetch(struct tcp_stack *stack, struct tcp_packet *packet) {
    packet->hash = 1;
}

bool port_checksum_good(const struct port_queue *queue) {
    return true; /* the device has verified it */
}

bool port_frame_handed_over(const struct port_queue *queue) {
    return false;
}

int port_hand_over(struct port_queue *queue, uint32_t worker) {
    return 0;
}

void port_hand_over_all(struct port_queue *queue) {}

void tcp_input(struct tcp_stack *stack, const struct tcp_packet *packet, uint64_t now_us) {
    heard++;
}

void tcp_input_error(struct tcp_stack *stack, const struct tcp_address *local, uint16_t local_port, const struct tcp_address *remote,
                     uint16_t remote_port, uint32_t sequence, bool hard, uint16_t mtu, uint64_t now_us) {}

static struct tcp_address address(const char *text) {
    struct tcp_address result = {.family = strchr(text, ':') != NULL ? 6 : 4};
    inet_pton(result.family == 6 ? AF_INET6 : AF_INET, text, result.bytes);
    return result;
}

static void put_sum(uint8_t *at, const uint8_t *bytes, uint32_t length) {
    uint32_t sum = 0;
    for (uint32_t i = 0; i < length; i += 2)
        sum += (uint32_t)bytes[i] << 8 | bytes[i + 1];
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    at[0] = (uint8_t)(~sum >> 8);
    at[1] = (uint8_t)~sum;
}

/* The gateway of each family says its MAC. */
static void introduce_gateways(struct net *net) {
    static const uint8_t arp[] = {2, 0, 0, 0, 0, 2, 2, 0,  0,  0, 0, 1, 8, 6, 0, 1, 8, 0,  6,  4, 0,
                                  2, 2, 0, 0, 0, 0, 1, 10, 99, 0, 1, 2, 0, 0, 0, 0, 2, 10, 99, 0, 2};
    uint8_t nd[14 + 40 + 32] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255}, pseudo[40 + 32] = {0};
    struct tcp_address gateway = address("fe80::1"), ours = address("fe80::ff:fe00:2");
    memcpy(nd + 22, gateway.bytes, 16);
    memcpy(nd + 38, ours.bytes, 16);
    nd[54] = 136;
    nd[58] = 0x60;
    memcpy(nd + 62, gateway.bytes, 16);
    memcpy(nd + 78, "\2\1\2\0\0\0\0\1", 8);
    memcpy(pseudo, nd + 22, 32);
    pseudo[35] = 32;
    pseudo[39] = 58;
    memcpy(pseudo + 40, nd + 54, 32);
    put_sum(nd + 56, pseudo, sizeof pseudo);
    net_input(net, 0, arp, sizeof arp, NOW_US);
    net_input(net, 0, nd, sizeof nd, NOW_US);
}

static struct net *make_net(struct port_queue *queue) {
    static struct counters counters;
    static struct net_config config;
    config = (struct net_config){.interface_count = 1, .workers = 1, .counters = &counters, .secret = {1}};
    struct net_interface *interface = &config.interfaces[0];
    interface->queue = queue;
    interface->mtu = 1500;
    memcpy(interface->mac, "\2\0\0\0\0\2", 6);
    interface->address_count = 2;
    interface->addresses[0] = (struct net_address){.address = address("10.99.0.2"), .prefix_length = 24};
    interface->addresses[1] = (struct net_address){.address = address("2001:db8::2"), .prefix_length = 64};
    interface->gateway = address("10.99.0.1");
    interface->gateway6 = address("fe80::1");
    struct net *net = net_create(&config, NOW_US);
    if (net == NULL)
        return NULL;
    net_attach(net, (struct tcp_stack *)&counters); /* never looked into: any address does */
    introduce_gateways(net);
    return net;
}

static uint32_t make_frame(uint8_t *frame, const struct tcp_segment *segment) {
    bool six = segment->local.family == 6;
    memcpy(frame, "\2\0\0\0\0\2\2\0\0\0\0\1", 12);
    uint8_t *ip = frame + 14, *tcp = ip + (six ? 40 : 20);
    if (six) {
        memcpy(frame + 12, "\x86\xdd\x60\0\0\0\0\x20\6\x3c", 10);
        memcpy(ip + 8, segment->remote.bytes, 16);
        memcpy(ip + 24, segment->local.bytes, 16);
    } else {
        memcpy(frame + 12, "\x08\0\x45\0\0\x34\0\0\x40\0\x3c\6", 12);
        memcpy(ip + 12, segment->remote.bytes, 4);
        memcpy(ip + 16, segment->local.bytes, 4);
        put_sum(ip + 10, ip, 20);
    }
    memcpy(tcp, "\0\x19\x9c\x40", 4);
    tcp[12] = (uint8_t)((20 + OPTIONS_BYTES) / 4 << 4);
    tcp[13] = TCP_ACK;
    return (uint32_t)(tcp - frame) + 20 + OPTIONS_BYTES;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: segment_cost send|receive 4|6 COUNT\n");
        return 2;
    }
    static const uint8_t options[OPTIONS_BYTES] = {1, 1, 8, 10}, payload[PAYLOAD_BYTES];
    struct port_queue queue = {0};
    struct net *net = make_net(&queue);
    struct tcp_piece piece = {.bytes = payload, .length = PAYLOAD_BYTES};
    struct tcp_segment segment = {.local = address(argv[2][0] == '6' ? "2001:db8::2" : "10.99.0.2"),
                                  .remote = address(argv[2][0] == '6' ? "2001:db8:5::25" : "192.0.2.25"),
                                  .local_port = 40000,
                                  .remote_port = 25,
                                  .flags = TCP_ACK,
                                  .first_transmission = true,
                                  .options_length = OPTIONS_BYTES,
                                  .options = options,
                                  .piece_count = 1,
                                  .payload_length = PAYLOAD_BYTES,
                                  .pieces = &piece};
    uint8_t frame[128] = {0};
    uint32_t length = make_frame(frame, &segment);
    uint64_t count = strtoull(argv[3], NULL, 10), done = 0;
    if (net == NULL || net_transmit(net, &segment) != 0) /* the connection is under way in either case */
        return 1;
    if (strcmp(argv[1], "send") == 0) {
        for (uint64_t i = 0; i < count; i++)
            done += net_transmit(net, &segment) == 0;
        done = queue.sent - 1 == done ? done : 0;
    } else {
        arrives = frame;
        arrives_bytes = length;
        for (uint64_t i = 0; i < count; i++)
            net_receive(net, NOW_US);
        done = heard;
    }
    net_destroy(net);
    return done == count ? 0 : 1;
}
