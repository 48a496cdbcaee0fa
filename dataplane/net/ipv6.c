/* ipv6.c: IPv6 received (RFC 8200): the header, extension headers within bounds, and what they lead to. */
#include "net_private.h"

enum { EXTENSIONS_MAX = 8, ROUTING_SEGMENTS_LEFT = 3, OPTION_PAD1 = 0, OPTION_ACTION_MASK = 0xc0 };

/* RFC 8200 4.2: an option that we do not know is skipped only when it says so itself. */
static bool ipv6_options_pass(const uint8_t *options, uint32_t length) {
    uint32_t at = 0;
    while (at < length) {
        if (options[at] == OPTION_PAD1) {
            at++;
            continue;
        }
        if (length - at < 2 || options[at + 1] > length - at - 2 || (options[at] & OPTION_ACTION_MASK) != 0)
            return false;
        at += 2 + (uint32_t)options[at + 1];
    }
    return true;
}

/* One extension header of RFC 8200's common form: its length, or 0 when it cannot be passed. Routing headers must have nothing left to do;
 * type 0 never has anything good to do (RFC 5095). */
static uint32_t ipv6_extension(const struct received *in, uint8_t header) {
    uint32_t length = in->length < 8 ? 0 : 8 + (uint32_t)in->bytes[1] * 8;
    if (length == 0 || length > in->length)
        return 0;
    if (header == PROTOCOL_ROUTING)
        return in->bytes[2] == 0 || in->bytes[ROUTING_SEGMENTS_LEFT] != 0 ? 0 : length;
    return ipv6_options_pass(in->bytes + 2, length - 2) ? length : 0;
}

/* RFC 8200 4.5: the first fragment has every header up to the upper layer's (RFC 7112); looked at without moving `in`. */
static bool ipv6_headers_are_complete(const struct received *in, uint8_t header) {
    struct received rest = *in;
    for (uint32_t i = 0; i < EXTENSIONS_MAX; i++) {
        if (header != PROTOCOL_ROUTING && header != PROTOCOL_DESTINATION_OPTIONS)
            return rest.length >= (header == PROTOCOL_TCP ? (uint32_t)TCP_BYTES : (uint32_t)ICMP_BYTES);
        uint32_t length = ipv6_extension(&rest, header);
        if (length == 0)
            return false;
        header = rest.bytes[0];
        rest.bytes += length;
        rest.length -= length;
    }
    return false;
}

/* False: dropped, or waiting for the rest. An atomic fragment is whole by itself, whatever else has its identification (RFC 6946). */
static bool ipv6_fragment(struct received *in, uint8_t *header) {
    struct net *net = in->net;
    if (in->length < IPV6_FRAGMENT_BYTES || in->reassembled) {
        net_drop(net, &net->counters.ipv6_extensions);
        return false;
    }
    uint8_t next = in->bytes[0];
    uint32_t field = wire_get16(in->bytes + 2), identification = wire_get32(in->bytes + 4);
    in->bytes += IPV6_FRAGMENT_BYTES;
    in->length -= IPV6_FRAGMENT_BYTES;
    in->fragmented = true;
    *header = next;
    if ((field & 0xfff9) == 0)
        return true;
    if ((field & 0xfff8) == 0 && !ipv6_headers_are_complete(in, next)) {
        net_drop(net, &net->counters.fragments_bad);
        return false;
    }
    return net_reassembled(in, identification, field & 0xfff8, (field & 1) != 0, header);
}

static void ipv6_deliver(struct received *in, uint8_t header) {
    struct net *net = in->net;
    for (uint32_t i = 0; i < EXTENSIONS_MAX; i++) {
        uint32_t length;
        switch (header) {
        case PROTOCOL_TCP:
            /* TCP goes by the addresses that were configured: those of the link alone say nothing of which link. */
            if (ip_is_multicast6(in->destination) || route_local(net, in->destination) != in->link)
                net_drop(net, &net->counters.ignored);
            else
                segment_input(in);
            return;
        case PROTOCOL_ICMP6:
            icmp6_input(in);
            return;
        case PROTOCOL_FRAGMENT:
            if (!ipv6_fragment(in, &header))
                return;
            break;
        case PROTOCOL_HOP_BY_HOP:
        case PROTOCOL_ROUTING:
        case PROTOCOL_DESTINATION_OPTIONS:
            length = header == PROTOCOL_HOP_BY_HOP && i > 0 ? 0 : ipv6_extension(in, header); /* RFC 8200 4.1: first or not at all */
            if (length == 0) {
                net_drop(net, &net->counters.ipv6_extensions);
                return;
            }
            header = in->bytes[0];
            in->bytes += length;
            in->length -= length;
            break;
        default:
            net_drop(net, &net->counters.ignored);
            return;
        }
    }
    net_drop(net, &net->counters.ipv6_extensions);
}

/* Multicast that we listen to: all nodes, and the solicited-node groups of our addresses. Only ICMP looks at it. */
static bool ipv6_is_our_group(const struct link *link, struct ip group) {
    if (ip_is_none(link->link_local))
        return false;
    if (ip_same(group, ip_all_nodes()) || ip_same(group, ip_solicited_node(link->link_local)))
        return true;
    for (uint32_t i = 0; i < link->config.address_count; i++) {
        struct ip ours = ip_from(&link->config.addresses[i].address);
        if (!ip_is_v4(ours) && ip_same(group, ip_solicited_node(ours)))
            return true;
    }
    return false;
}

/* To a group ICMP passes from sources that nothing else may have: "::" asks whether an address is taken (RFC 4862 5.4.2), and who has taken
 * one of ours says so from it. icmp6_input lets nothing but Neighbour Discovery through. */
static bool ipv6_group_pass(const struct received *in, uint8_t header) {
    struct net *net = in->net;
    if (!ipv6_is_our_group(in->link, in->destination)) {
        net_drop(net, &net->counters.ignored);
        return false;
    }
    bool discovery = header == PROTOCOL_ICMP6 && (ip_is_none(in->source) || route_is_local(net, in->link, in->source));
    if (!discovery && !net_source_pass(in)) {
        net_drop(net, &net->counters.bad_source);
        return false;
    }
    return true;
}

void ipv6_input(struct received *in) {
    struct net *net = in->net;
    const uint8_t *ip = in->bytes;
    if (in->length < IPV6_BYTES || ip[0] >> 4 != 6 || (uint32_t)wire_get16(ip + 4) + IPV6_BYTES > in->length) {
        net_drop(net, &net->counters.bad_ipv6);
        return;
    }
    in->source = ip_from_bytes6(ip + 8);
    in->destination = ip_from_bytes6(ip + 24);
    in->hop_limit = ip[7];
    if (ip_is_v4(in->source) || ip_is_v4(in->destination)) { /* RFC 4291 2.5.5.2: never on the wire */
        net_drop(net, &net->counters.bad_source);
        return;
    }
    if (ip_is_multicast6(in->destination) ? !ipv6_group_pass(in, ip[6]) : !net_addresses_pass(in))
        return;
    in->bytes = ip + IPV6_BYTES;
    in->length = wire_get16(ip + 4);
    ipv6_deliver(in, ip[6]);
}
