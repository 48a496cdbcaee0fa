/* ipv4.c: IPv4 received (RFC 791, RFC 1122 3.2.1): what is damaged, foreign or a trick goes no further. */
#include "dataplane/port/checksum.h"
#include "net_private.h"

static bool tcp_checksum_right(const struct received *in) {
    uint8_t pseudo[12];
    wire_put32(pseudo, in->source);
    wire_put32(pseudo + 4, in->destination);
    pseudo[8] = 0;
    pseudo[9] = PROTOCOL_TCP;
    wire_put16(pseudo + 10, (uint16_t)in->length);
    return checksum_finish(checksum_add(checksum_add(0, pseudo, sizeof pseudo), in->bytes, in->length)) == 0;
}

static void tcp_receive(const struct received *in) {
    struct net *net = in->net;
    if (in->length < TCP_BYTES || (uint32_t)(in->bytes[12] >> 4) * 4 < TCP_BYTES || (uint32_t)(in->bytes[12] >> 4) * 4 > in->length) {
        net_drop(net, &net->counters.bad_tcp);
        return;
    }
    if (net_handed_over_to_owner(in, wire_get16(in->bytes + 2)))
        return;
    if (!port_checksum_good(in->link->config.queue) && !tcp_checksum_right(in)) {
        net_drop(net, &net->counters.bad_tcp_checksum);
        return;
    }
    struct tcp_packet packet = {.local.family = 4, .remote.family = 4, .header = in->bytes, .length = in->length};
    wire_put32(packet.local.bytes, in->destination);
    wire_put32(packet.remote.bytes, in->source);
    if (net->stack != NULL)
        tcp_input(net->stack, &packet, net->now_us);
}

void ipv4_input(struct received *in) {
    struct net *net = in->net;
    const uint8_t *ip = in->bytes;
    uint32_t header_length = in->length >= IPV4_BYTES ? (uint32_t)(ip[0] & 0x0f) * 4 : 0;
    uint32_t total_length = in->length >= IPV4_BYTES ? wire_get16(ip + 2) : 0;
    if (in->length < IPV4_BYTES || ip[0] >> 4 != 4 || header_length < IPV4_BYTES || total_length < header_length ||
        total_length > in->length) {
        net_drop(net, &net->counters.bad_ipv4);
        return;
    }
    if (checksum_finish(checksum_add(0, ip, header_length)) != 0) {
        net_drop(net, &net->counters.bad_ipv4_checksum);
        return;
    }
    in->source = wire_get32(ip + 12);
    in->destination = wire_get32(ip + 16);
    /* RFC 1122 3.3.6: a broadcast of the link may not carry a unicast datagram. */
    if (in->broadcast || !route_is_local(net, in->link, in->destination)) {
        net_drop(net, &net->counters.ignored);
        return;
    }
    if (!route_is_host(in->source) || route_is_broadcast(in->link, in->source) || route_local(net, in->source) != NULL) {
        net_drop(net, &net->counters.ipv4_source);
        return;
    }
    /* Mail peers have no use for options, and source routes are an attack (RFC 7126). */
    if (header_length != IPV4_BYTES) {
        net_drop(net, &net->counters.ipv4_options);
        return;
    }
    if ((wire_get16(ip + 6) & 0x3fff) != 0) {
        net_drop(net, &net->counters.ipv4_fragments);
        return;
    }
    in->bytes = ip + header_length;
    in->length = total_length - header_length;
    if (ip[9] == PROTOCOL_TCP)
        tcp_receive(in);
    else if (ip[9] == PROTOCOL_ICMP)
        icmp_input(in);
    else
        net_drop(net, &net->counters.ignored);
}
