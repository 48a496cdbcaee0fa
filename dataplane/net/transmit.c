/* transmit.c: a TCP segment becomes a frame: headers, route, neighbour, queue. */
#include "dataplane/port/checksum.h"
#include "net_private.h"
#include <errno.h>

enum { IPV4_FIRST_WORD = 0x4500, FLOW_LABEL_MASK = 0xfffff };

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

/* The sum of an address's 16-bit words, unfolded. */
static uint64_t sum_v4(struct ip ip) {
    return (ip_v4(ip) >> 16) + (ip_v4(ip) & 0xffff);
}

static uint64_t sum_v6(struct ip ip) {
    return (ip.high >> 32) + (ip.high & UINT32_MAX) + (ip.low >> 32) + (ip.low & UINT32_MAX);
}

void transmit_ipv4(uint8_t *header, uint8_t protocol, uint32_t payload_bytes, struct ip source, struct ip destination,
                   uint16_t identification, uint16_t fragment) {
    wire_put32(header, (uint32_t)IPV4_FIRST_WORD << 16 | (IPV4_BYTES + payload_bytes));
    wire_put32(header + 4, (uint32_t)identification << 16 | fragment);
    wire_put32(header + 8, (uint32_t)TTL_SENT << 24 | (uint32_t)protocol << 16);
    wire_put32(header + 12, ip_v4(source));
    wire_put32(header + 16, ip_v4(destination));
    uint16_t checksum = checksum_finish(checksum_add(0, header, IPV4_BYTES));
    memcpy(header + 10, &checksum, sizeof checksum);
}

void transmit_ipv6(uint8_t *header, uint8_t protocol, uint32_t payload_bytes, struct ip source, struct ip destination, uint8_t hop_limit,
                   uint32_t flow_label) {
    wire_put32(header, (uint32_t)6 << 28 | flow_label);
    wire_put32(header + 4, payload_bytes << 16 | (uint32_t)protocol << 8 | hop_limit);
    ip_put6(header + 8, source);
    ip_put6(header + 24, destination);
}

uint32_t transmit_identification(struct net *net, struct ip source, struct ip destination) {
    uint64_t hash = ip_hash(net->key, source) ^ ip_hash(net->key, (struct ip){destination.low, destination.high});
    hash = ip_hash(net->key, (struct ip){hash, hash >> 32});
    return (uint32_t)(hash >> 32) + net->identifications[hash % IDENTIFICATIONS]++;
}

/* False: no route. */
static bool pair_make(struct net *net, struct pair *pair, struct ip local, struct ip remote) {
    bool v4 = ip_is_v4(local);
    struct link *link = route_local(net, local);
    struct ip hop = link == NULL || ip_is_v4(remote) != v4 ? IP_NONE : route_next_hop(link, remote);
    if (ip_is_none(hop))
        return false;
    static const uint8_t unknown[6];
    *pair = (struct pair){.local = local, .remote = remote, .link = link, .hop = hop};
    pair->headers_length = (uint8_t)(link->l2_length + (v4 ? IPV4_BYTES : IPV6_BYTES));
    pair->remote_is_ours = route_local(net, remote) != NULL;
    pair->addresses = v4 ? sum_v4(local) + sum_v4(remote) : sum_v6(local) + sum_v6(remote);
    pair->ipv4_rest = pair->addresses + IPV4_FIRST_WORD + (TTL_SENT << 8 | PROTOCOL_TCP);
    pair->label = ip_hash(net->key, local) + ip_hash(net->key, (struct ip){remote.low, remote.high});
    uint8_t *ip = pair->headers + transmit_ethernet(link, pair->headers, unknown, v4 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6);
    if (v4)
        transmit_ipv4(ip, PROTOCOL_TCP, 0, local, remote, 0, 0);
    else
        transmit_ipv6(ip, PROTOCOL_TCP, 0, local, remote, TTL_SENT, 0);
    pair->neighbour = neighbour_get(link->neighbours, net->waiting, hop, net->now_us);
    return true;
}

/* Atomic datagrams (RFC 6864): with DF the identification means nothing and is 0. All is known as numbers, so it is summed as numbers. */
static void patch_ipv4(struct net *net, const struct pair *pair, uint8_t *ip, uint32_t total_length, bool may_fragment) {
    uint32_t fragment = IPV4_DONT_FRAGMENT;
    if (may_fragment)
        fragment = (uint32_t)transmit_identification(net, pair->local, pair->remote) << 16;
    wire_put16(ip + 2, (uint16_t)total_length);
    wire_put32(ip + 4, fragment);
    wire_put16(ip + 10, checksum_finish(pair->ipv4_rest + total_length + (fragment >> 16) + (fragment & 0xffff)));
}

/* RFC 6437: one label for one connection, not to be guessed from the others'. Never 0, which means none. */
static void patch_ipv6(const struct net *net, const struct pair *pair, uint8_t *ip, uint32_t payload_length, uint32_t ports) {
    uint32_t label = (uint32_t)ip_hash(net->key, (struct ip){pair->label, ports}) & FLOW_LABEL_MASK;
    wire_put32(ip, (uint32_t)6 << 28 | (label == 0 ? 1 : label));
    wire_put16(ip + 4, (uint16_t)payload_length);
}

/* The TCP header with the pseudo-header's sum in the checksum field: the port finishes it. `addresses`: the sum of both. With segmentation
 * the length is that of the whole (frame.h). */
static void transmit_tcp(uint8_t *header, const struct tcp_segment *segment, uint32_t l4_length, uint64_t addresses) {
    wire_put32(header, (uint32_t)segment->local_port << 16 | segment->remote_port);
    wire_put32(header + 4, segment->sequence);
    wire_put32(header + 8, segment->acknowledgement);
    wire_put32(header + 12, l4_length << 26 | (uint32_t)segment->flags << 16 | segment->window);
    uint16_t sum = checksum_fold(addresses + PROTOCOL_TCP + l4_length + segment->payload_length);
    wire_put32(header + 16, (uint32_t)sum << 16);
    if (segment->options_length > 0)
        memcpy(header + TCP_BYTES, segment->options, segment->options_length);
}

/* net.h: the queue of a server that has several. */
static struct port_queue *transmit_queue(const struct net *net, const struct link *link, const struct tcp_segment *segment) {
    const struct net_interface *config = &link->config;
    if (link->hashes) {
        uint32_t queue = toeplitz_queue(config->rss, toeplitz_tuple(&link->toeplitz, &segment->local, &segment->remote, segment->local_port,
                                                                    segment->remote_port)) %
                         (config->more_queue_count + 1);
        return queue == 0 ? config->queue : config->more_queues[queue - 1];
    }
    for (uint32_t i = 0; i < config->more_queue_count; i++)
        if (config->more_queues[i] == net->receiving)
            return net->receiving;
    return config->queue;
}

static int transmit_wait(struct net *net, struct neighbour *neighbour, const struct frame *frame) {
    if (neighbour->state == NEIGHBOUR_FAILED) {
        net->counters.unreachable++;
        return -EHOSTUNREACH;
    }
    int rc = neighbour_wait(net->waiting, neighbour, frame);
    net->counters.frames_waited += rc == 0;
    return rc;
}

int net_transmit(void *network, const struct tcp_segment *segment) {
    struct net *net = network;
    struct ip local = ip_from(&segment->local), remote = ip_from(&segment->remote);
    struct pair *pair = pair_at(net, local, remote);
    if (!pair_is(pair, local, remote) && !pair_make(net, pair, local, remote)) {
        net->counters.unreachable++;
        return -EHOSTUNREACH;
    }
    struct link *link = pair->link;
    if (!ip_same(pair->neighbour->address, pair->hop))
        pair->neighbour = neighbour_get(link->neighbours, net->waiting, pair->hop, net->now_us);
    struct neighbour *neighbour = pair->neighbour;
    neighbour->used_us = net->now_us;
    uint8_t header[FRAME_HEADER_BYTES_MAX];
    uint32_t l4_length = TCP_BYTES + (uint32_t)segment->options_length, l4_total = l4_length + segment->payload_length;
    memcpy(header, pair->headers, PAIR_HEADERS_BYTES);
    memcpy(header, neighbour->mac, sizeof neighbour->mac);
    uint8_t *ip = header + link->l2_length;
    if (segment->local.family == 4)
        patch_ipv4(net, pair, ip, IPV4_BYTES + l4_total, segment->may_fragment);
    else
        patch_ipv6(net, pair, ip, l4_total, (uint32_t)segment->local_port << 16 | segment->remote_port);
    transmit_tcp(header + pair->headers_length, segment, l4_length, pair->addresses);
    struct frame frame = {
        .header = header,
        .header_length = (uint16_t)(pair->headers_length + l4_length),
        .l2_length = link->l2_length,
        .l3_length = (uint8_t)(pair->headers_length - link->l2_length),
        .l4_length = (uint8_t)l4_length,
        .family = segment->local.family,
        .l4_protocol = PROTOCOL_TCP,
        .by_reference_allowed = segment->first_transmission,
        .piece_count = segment->piece_count,
        .payload_length = segment->payload_length,
        .segment_bytes = segment->segment_bytes < segment->payload_length ? segment->segment_bytes : 0,
        .pieces = segment->pieces,
    };
    if (!neighbour_has_mac(neighbour))
        return transmit_wait(net, neighbour, &frame);
    return port_send(link->config.more_queue_count == 0 ? link->config.queue : transmit_queue(net, link, segment), &frame);
}
