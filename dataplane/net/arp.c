/* arp.c: ARP (RFC 826) that believes only what it asked for or what was said to it, and address conflict detection (RFC 5227). */
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

/* The address of ours that a neighbour is asked from: one of the same prefix, so that it answers. */
static uint32_t arp_sender(const struct link *link, uint32_t target) {
    uint32_t first = 0;
    for (uint32_t i = 0; i < link->config.address_count; i++) {
        const struct net_address *address = &link->config.addresses[i];
        if (address->address.family != 4)
            continue;
        uint32_t number = wire_get32(address->address.bytes);
        uint32_t mask = address->prefix_length == 0 ? 0 : UINT32_MAX << (32 - address->prefix_length);
        if (((number ^ target) & mask) == 0)
            return number;
        if (first == 0)
            first = number;
    }
    return first;
}

void arp_ask(struct net *net, struct link *link, const struct neighbour *neighbour) {
    const uint8_t *to = neighbour->state == NEIGHBOUR_PROBING ? neighbour->mac : arp_broadcast;
    arp_send(link, ARP_REQUEST, to, arp_sender(link, neighbour->address), arp_nobody, neighbour->address);
    net->counters.arp_requests++;
}

/* RFC 5227 2.1 and 2.3: a probe asks for our own address without claiming it, an announcement claims it. */
static void arp_announce(struct net *net, struct link *link, bool probe) {
    for (uint32_t i = 0; i < link->config.address_count; i++) {
        if (link->config.addresses[i].address.family != 4)
            continue;
        uint32_t address = wire_get32(link->config.addresses[i].address.bytes);
        arp_send(link, ARP_REQUEST, arp_broadcast, probe ? 0 : address, arp_nobody, address);
        net->counters.arp_requests++;
    }
}

uint64_t arp_poll_announce(struct net *net, struct link *link) {
    if (net->config.worker != 0 || link->announced > ANNOUNCE_COUNT)
        return UINT64_MAX;
    if (net->now_us < link->announce_due_us)
        return link->announce_due_us;
    arp_announce(net, link, link->announced == 0);
    link->announce_due_us = net->now_us + (link->announced == 0 ? ANNOUNCE_FIRST_US : ANNOUNCE_INTERVAL_US);
    link->announced++;
    return link->announced > ANNOUNCE_COUNT ? UINT64_MAX : link->announce_due_us;
}

static void arp_conflict(const struct received *in, uint32_t address, const uint8_t mac[6]) {
    struct net *net = in->net;
    net->counters.address_conflicts++;
    if (net->now_us < in->link->conflict_quiet_until_us)
        return;
    in->link->conflict_quiet_until_us = net->now_us + NET_CONFLICT_INTERVAL_US;
    if (net->config.worker == 0)
        arp_send(in->link, ARP_REQUEST, arp_broadcast, address, arp_nobody, address);
    if (net->config.conflict != NULL) {
        struct tcp_address ours = {.family = 4};
        wire_put32(ours.bytes, address);
        net->config.conflict(net->config.conflict_user, (uint32_t)(in->link - net->links), &ours, mac);
    }
}

static void arp_send_waiting(void *context, uint8_t *header, const struct frame *frame) {
    const struct received *in = context;
    struct neighbour *neighbour = neighbour_find(in->link->neighbours, in->source);
    memcpy(header, neighbour->mac, sizeof neighbour->mac);
    if (port_send(in->link->config.queue, frame) != 0)
        in->net->counters.frames_wait_dropped++;
}

/* `mac` says that it has the neighbour's address. `solicited`: it said so to us, in answer or in asking us something. */
static void arp_hear(const struct received *in, const uint8_t mac[6], bool solicited) {
    struct net *net = in->net;
    struct neighbour *neighbour = neighbour_find(in->link->neighbours, in->source);
    if (neighbour == NULL || neighbour->state == NEIGHBOUR_FREE)
        return;
    bool has_mac = neighbour->state == NEIGHBOUR_REACHABLE || neighbour->state == NEIGHBOUR_PROBING;
    if (has_mac && memcmp(neighbour->mac, mac, 6) != 0) {
        net->counters.arp_claims++;
        neighbour_doubt(in->link->neighbours, neighbour, net->now_us);
        return;
    }
    if (!solicited)
        return;
    neighbour_confirm(in->link->neighbours, neighbour, mac, net->now_us);
    neighbour_waiting_end(net->waiting, neighbour, arp_send_waiting, (void *)in);
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
    bool first_hand = !port_frame_handed_over(in->link->config.queue);
    if (route_is_local(net, in->link, sender)) {
        arp_conflict(in, sender, mac);
        return;
    }
    bool to_us = route_is_local(net, in->link, target);
    struct received said = *in;
    said.source = sender;
    if (route_is_host(sender)) {
        arp_hear(&said, mac, to_us && (operation == ARP_REQUEST || !in->broadcast));
        /* Every worker keeps its own table; what was said to others concerns it only as an announcement. */
        if (first_hand && net->config.workers > 1 && (to_us || sender == target))
            port_hand_over_all(in->link->config.queue);
    } else if (sender != 0) {
        net_drop(net, &net->counters.bad_arp);
        return;
    }
    if (operation == ARP_REQUEST && to_us && first_hand) {
        arp_send(in->link, ARP_REPLY, mac, target, mac, sender);
        net->counters.arp_replies++;
    }
}
