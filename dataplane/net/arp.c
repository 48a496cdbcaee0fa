/* arp.c: ARP (RFC 826, RFC 5227): its messages. Whom to believe: resolve.c. */
#include "net_private.h"

enum { ARP_REQUEST = 1, ARP_REPLY = 2, ARP_HARDWARE_ETHERNET = 1 };

static const uint8_t arp_broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
static const uint8_t arp_nobody[6];

static void arp_send(struct link *link, uint16_t operation, const uint8_t to[6], uint32_t sender, const uint8_t target_mac[6],
                     uint32_t target) {
    uint8_t bytes[ETHERNET_BYTES + VLAN_TAG_BYTES + ARP_BYTES];
    uint8_t l2_length = transmit_ethernet(link, bytes, to, ETHERTYPE_ARP);
    uint8_t *arp = bytes + l2_length;
    wire_put16(arp, ARP_HARDWARE_ETHERNET);
    wire_put16(arp + 2, ETHERTYPE_IPV4);
    arp[4] = 6;
    arp[5] = 4;
    wire_put16(arp + 6, operation);
    memcpy(arp + 8, link->config.mac, 6);
    wire_put32(arp + 14, sender);
    memcpy(arp + 18, target_mac, 6);
    wire_put32(arp + 24, target);
    struct frame frame = {.header = bytes, .header_length = (uint16_t)(l2_length + ARP_BYTES), .l2_length = l2_length};
    port_send(link->config.queue, &frame); /* a full device: the timers ask again */
}

void arp_ask(struct net *net, struct link *link, const struct neighbour *neighbour) {
    const uint8_t *to = neighbour->state == NEIGHBOUR_PROBING ? neighbour->mac : arp_broadcast;
    arp_send(link, ARP_REQUEST, to, ip_v4(route_source(link, neighbour->address)), arp_nobody, ip_v4(neighbour->address));
    net->counters.arp_requests++;
}

void arp_claim(struct net *net, struct link *link, struct ip address, bool probe) {
    arp_send(link, ARP_REQUEST, arp_broadcast, probe ? 0 : ip_v4(address), arp_nobody, ip_v4(address));
    net->counters.arp_requests++;
}

void arp_input(const struct received *in) {
    struct net *net = in->net;
    const uint8_t *arp = in->bytes;
    if (in->length < ARP_BYTES || wire_get16(arp) != ARP_HARDWARE_ETHERNET || wire_get16(arp + 2) != ETHERTYPE_IPV4 || arp[4] != 6 ||
        arp[5] != 4) {
        net_drop(net, &net->counters.bad_arp);
        return;
    }
    uint16_t operation = wire_get16(arp + 6);
    const uint8_t *mac = arp + 8;
    uint32_t sender = wire_get32(arp + 14), target = wire_get32(arp + 24);
    if ((mac[0] & 1) != 0 || memcmp(mac, arp_nobody, 6) == 0 || (operation != ARP_REQUEST && operation != ARP_REPLY)) {
        net_drop(net, &net->counters.bad_arp);
        return;
    }
    if (memcmp(mac, in->link->config.mac, 6) == 0)
        return; /* our own words, come back */
    struct ip sender_ip = ip_from_v4(sender);
    if (route_is_local(net, in->link, sender_ip)) {
        resolve_conflict(in, sender_ip, mac);
        return;
    }
    bool to_us = route_is_local(net, in->link, ip_from_v4(target));
    if (route_is_host(sender_ip)) {
        resolve_hear(in, sender_ip, mac, to_us && (operation == ARP_REQUEST || !in->broadcast));
        /* What was said to others concerns a worker only as an announcement. */
        if (to_us || sender == target)
            net_tell_workers(in);
    } else if (sender != 0) {
        net_drop(net, &net->counters.bad_arp);
        return;
    }
    if (operation == ARP_REQUEST && to_us && !port_frame_handed_over(in->queue)) {
        arp_send(in->link, ARP_REPLY, mac, target, mac, sender);
        net->counters.arp_replies++;
    }
}
