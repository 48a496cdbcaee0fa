/* transmit.c: a TCP segment becomes a frame: headers, route, neighbour. */
#include "dataplane/port/checksum.h"
#include "net_private.h"
#include <errno.h>

uint8_t transmit_ethernet(const struct link *link, uint8_t *header, const uint8_t mac[6], uint16_t ethertype) {
    memcpy(header, mac, 6);
    memcpy(header + 6, link->config.mac, 6);
    if (link->config.vlan != 0) {
        wire_put16(header + 12, ETHERTYPE_VLAN);
        wire_put16(header + 14, link->config.vlan);
    }
    wire_put16(header + link->l2_length - 2, ethertype);
    return link->l2_length;
}

/* Atomic datagrams (RFC 6864): DF set, so the identification means nothing and is 0. */
void transmit_ipv4(uint8_t *header, uint8_t protocol, uint32_t payload_bytes, uint32_t source, uint32_t destination) {
    memset(header, 0, IPV4_BYTES);
    header[0] = 0x45;
    wire_put16(header + 2, (uint16_t)(IPV4_BYTES + payload_bytes));
    header[6] = 0x40; /* DF */
    header[8] = TTL_SENT;
    header[9] = protocol;
    wire_put32(header + 12, source);
    wire_put32(header + 16, destination);
    uint16_t checksum = checksum_finish(checksum_add(0, header, IPV4_BYTES));
    memcpy(header + 10, &checksum, sizeof checksum);
}

/* The TCP header with the pseudo-header's sum in the checksum field: the port finishes it. */
static void transmit_tcp(uint8_t *header, const struct tcp_segment *segment, uint32_t l4_length) {
    wire_put16(header, segment->local_port);
    wire_put16(header + 2, segment->remote_port);
    wire_put32(header + 4, segment->sequence);
    wire_put32(header + 8, segment->acknowledgement);
    header[12] = (uint8_t)(l4_length / 4 << 4);
    header[13] = segment->flags;
    wire_put16(header + 14, segment->window);
    wire_put16(header + 18, 0);
    if (segment->options_length > 0)
        memcpy(header + TCP_BYTES, segment->options, segment->options_length);
    uint8_t pseudo[12];
    memcpy(pseudo, segment->local.bytes, 4);
    memcpy(pseudo + 4, segment->remote.bytes, 4);
    pseudo[8] = 0;
    pseudo[9] = PROTOCOL_TCP;
    wire_put16(pseudo + 10, (uint16_t)(l4_length + segment->payload_length));
    uint16_t sum = checksum_fold(checksum_add(0, pseudo, sizeof pseudo));
    memcpy(header + 16, &sum, sizeof sum);
}

static int transmit_to(struct net *net, struct link *link, uint32_t hop, uint8_t *header, const struct frame *frame) {
    struct neighbour *neighbour = neighbour_get(link->neighbours, net->waiting, hop, net->now_us);
    neighbour->used_us = net->now_us;
    if (neighbour->state == NEIGHBOUR_REACHABLE || neighbour->state == NEIGHBOUR_PROBING) {
        memcpy(header, neighbour->mac, sizeof neighbour->mac);
        return port_send(link->config.queue, frame);
    }
    if (neighbour->state == NEIGHBOUR_FAILED) {
        net->counters.unreachable++;
        return -EHOSTUNREACH;
    }
    int rc = neighbour_wait(net->waiting, neighbour, frame);
    if (rc < 0)
        return rc;
    net->counters.frames_waited++;
    net->counters.frames_wait_dropped += (uint64_t)rc;
    return 0;
}

int net_transmit(void *network, const struct tcp_segment *segment) {
    struct net *net = network;
    uint32_t hop = 0;
    struct link *link = NULL;
    if (segment->local.family == 4 && segment->remote.family == 4) {
        uint32_t source = wire_get32(segment->local.bytes);
        link = source == 0 ? NULL : route_local(net, source);
        hop = link == NULL ? 0 : route_next_hop(link, wire_get32(segment->remote.bytes));
    }
    if (hop == 0) {
        net->counters.unreachable++;
        return -EHOSTUNREACH;
    }
    static const uint8_t unknown[6];
    uint8_t header[FRAME_HEADER_BYTES_MAX];
    uint32_t l4_length = TCP_BYTES + (uint32_t)segment->options_length;
    uint8_t l2_length = transmit_ethernet(link, header, unknown, ETHERTYPE_IPV4);
    transmit_ipv4(header + l2_length, PROTOCOL_TCP, l4_length + segment->payload_length, wire_get32(segment->local.bytes),
                  wire_get32(segment->remote.bytes));
    transmit_tcp(header + l2_length + IPV4_BYTES, segment, l4_length);
    struct frame frame = {
        .header = header,
        .header_length = (uint16_t)(l2_length + IPV4_BYTES + l4_length),
        .l2_length = l2_length,
        .l3_length = IPV4_BYTES,
        .l4_length = (uint8_t)l4_length,
        .family = 4,
        .l4_protocol = PROTOCOL_TCP,
        .by_reference_allowed = segment->first_transmission,
        .piece_count = segment->piece_count,
        .payload_length = segment->payload_length,
        .pieces = segment->pieces,
    };
    return transmit_to(net, link, hop, header, &frame);
}
