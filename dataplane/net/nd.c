/* nd.c: Neighbour Discovery (RFC 4861) and duplicate address detection (RFC 4862): its messages. Whom to believe: resolve.c. */
#include "dataplane/port/checksum.h"
#include "net_private.h"

enum {
    ND_SOLICITATION = 135,
    ND_ADVERTISEMENT = 136,
    ND_BYTES = 24,       /* with the target's address */
    ND_OPTION_BYTES = 8, /* a link-layer address */
    OPTION_SOURCE_MAC = 1,
    OPTION_TARGET_MAC = 2,
    FLAG_SOLICITED = 0x40,
    FLAG_OVERRIDE = 0x20,
};

static void nd_multicast_mac(struct ip group, uint8_t mac[6]) {
    mac[0] = mac[1] = 0x33;
    wire_put32(mac + 2, (uint32_t)group.low);
}

/* A message about `target`, with our MAC as its option unless `option` is 0. `mac` NULL: `to` is a group. */
static void nd_send(struct link *link, uint8_t type, uint8_t flags, struct ip from, struct ip to, const uint8_t *mac, struct ip target,
                    uint8_t option) {
    uint8_t bytes[ETHERNET_BYTES + VLAN_TAG_BYTES + IPV6_BYTES + ND_BYTES + ND_OPTION_BYTES] = {0}, group_mac[6];
    uint32_t length = ND_BYTES + (option != 0 ? ND_OPTION_BYTES : 0);
    if (mac == NULL)
        nd_multicast_mac(to, group_mac);
    uint8_t l2_length = transmit_ethernet(link, bytes, mac == NULL ? group_mac : mac, ETHERTYPE_IPV6);
    uint8_t *ip = bytes + l2_length, *nd = ip + IPV6_BYTES;
    transmit_ipv6(ip, PROTOCOL_ICMP6, length, from, to, HOP_LIMIT_ND, 0);
    nd[0] = type;
    nd[4] = flags;
    ip_put6(nd + 8, target);
    if (option != 0) {
        nd[ND_BYTES] = option;
        nd[ND_BYTES + 1] = 1;
        memcpy(nd + ND_BYTES + 2, link->config.mac, 6);
    }
    uint8_t rest[8] = {0};
    wire_put32(rest, length);
    rest[7] = PROTOCOL_ICMP6;
    uint64_t sum = checksum_add(checksum_add(0, ip + 8, 32), rest, sizeof rest);
    uint16_t checksum = checksum_finish(checksum_add(sum, nd, length));
    memcpy(nd + 2, &checksum, sizeof checksum);
    struct frame frame = {.header = bytes,
                          .header_length = (uint16_t)(l2_length + IPV6_BYTES + length),
                          .l2_length = l2_length,
                          .l3_length = IPV6_BYTES,
                          .family = 6};
    port_send(link->config.queue, &frame); /* a full device: the timers ask again */
}

void nd_ask(struct net *net, struct link *link, const struct neighbour *neighbour) {
    struct ip target = neighbour->address, from = route_source(link, target);
    bool known = neighbour->state == NEIGHBOUR_PROBING;
    nd_send(link, ND_SOLICITATION, 0, from, known ? target : ip_solicited_node(target), known ? neighbour->mac : NULL, target,
            OPTION_SOURCE_MAC);
    net->counters.nd_solicitations++;
}

void nd_claim(struct net *net, struct link *link, struct ip address, bool probe) {
    if (probe) {
        nd_send(link, ND_SOLICITATION, 0, IP_NONE, ip_solicited_node(address), NULL, address, 0);
        net->counters.nd_solicitations++;
    } else {
        nd_send(link, ND_ADVERTISEMENT, FLAG_OVERRIDE, address, ip_all_nodes(), NULL, address, OPTION_TARGET_MAC);
        net->counters.nd_advertisements++;
    }
}

/* Every option has a length (RFC 4861 4.6); *mac is that of the wanted one, or NULL. */
static bool nd_options(const struct received *in, uint8_t wanted, const uint8_t **mac) {
    *mac = NULL;
    for (uint32_t at = ND_BYTES; at < in->length;) {
        const uint8_t *option = in->bytes + at;
        if (in->length - at < 8 || option[1] == 0 || (uint32_t)option[1] * 8 > in->length - at)
            return false;
        if (option[0] == wanted && option[1] == 1)
            *mac = option + 2;
        at += (uint32_t)option[1] * 8;
    }
    return *mac == NULL || (((*mac)[0] & 1) == 0 && ((*mac)[0] | (*mac)[1] | (*mac)[2] | (*mac)[3] | (*mac)[4] | (*mac)[5]) != 0);
}

static void nd_answer(const struct received *in, struct ip target, const uint8_t *mac) {
    struct net *net = in->net;
    if (port_frame_handed_over(in->queue))
        return;
    if (ip_is_none(in->source)) /* RFC 4861 7.2.4: who has no address yet is told with everyone */
        nd_send(in->link, ND_ADVERTISEMENT, FLAG_OVERRIDE, target, ip_all_nodes(), NULL, target, OPTION_TARGET_MAC);
    else
        nd_send(in->link, ND_ADVERTISEMENT, FLAG_SOLICITED | FLAG_OVERRIDE, target, in->source, mac == NULL ? in->source_mac : mac, target,
                OPTION_TARGET_MAC);
    net->counters.nd_advertisements++;
}

static void nd_solicitation(const struct received *in, struct ip target) {
    struct net *net = in->net;
    const uint8_t *mac;
    bool anonymous = ip_is_none(in->source);
    if (!nd_options(in, OPTION_SOURCE_MAC, &mac) || (anonymous && (mac != NULL || !ip_same(in->destination, ip_solicited_node(target))))) {
        net_drop(net, &net->counters.bad_nd);
        return;
    }
    if (!route_is_local(net, in->link, target))
        return; /* another host's address in the same group */
    net_tell_workers(in);
    if (!anonymous && mac != NULL)
        resolve_hear(in, in->source, mac, true);
    /* RFC 4862 5.4.3: two hosts want the address at the same moment, which is worker 0's to know. Later on the answer settles it. */
    if (anonymous && net->config.worker == 0 && in->link->announced <= 1)
        resolve_conflict(in, target, in->source_mac);
    nd_answer(in, target, mac);
}

static void nd_advertisement(const struct received *in, struct ip target) {
    struct net *net = in->net;
    const uint8_t *mac;
    bool solicited = (in->bytes[4] & FLAG_SOLICITED) != 0, group = ip_is_multicast6(in->destination);
    if (!nd_options(in, OPTION_TARGET_MAC, &mac) || (solicited && group)) {
        net_drop(net, &net->counters.bad_nd);
        return;
    }
    /* RFC 4861 4.4: left out only in answer to a solicitation that knew it already; then its frame shows it. */
    if (mac == NULL)
        mac = in->source_mac;
    if (memcmp(mac, in->link->config.mac, 6) == 0)
        return;
    if (route_is_local(net, in->link, target)) {
        resolve_conflict(in, target, mac);
        return;
    }
    resolve_hear(in, target, mac, solicited);
    net_tell_workers(in);
}

void nd_input(const struct received *in) {
    struct net *net = in->net;
    struct ip target = in->length < ND_BYTES ? IP_NONE : ip_from_bytes6(in->bytes + 8);
    if (in->length < ND_BYTES || in->hop_limit != HOP_LIMIT_ND || in->fragmented || in->bytes[1] != 0 || !route_is_host(target) ||
        ip_is_v4(target)) { /* RFC 4861 7.1; RFC 6980: never in fragments, not even in one */
        net_drop(net, &net->counters.bad_nd);
        return;
    }
    if (memcmp(in->source_mac, in->link->config.mac, 6) == 0)
        return; /* our own words, come back (RFC 7527) */
    if (route_is_local(net, in->link, in->source)) {
        resolve_conflict(in, in->source, in->source_mac);
        return;
    }
    if (in->bytes[0] == ND_SOLICITATION)
        nd_solicitation(in, target);
    else
        nd_advertisement(in, target);
}
