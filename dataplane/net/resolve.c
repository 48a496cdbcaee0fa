/* resolve.c: who has which MAC: what ARP and Neighbour Discovery have in common, its caution above all. */
#include "net_private.h"

void resolve_ask(struct net *net, struct link *link, const struct neighbour *neighbour) {
    if (ip_is_v4(neighbour->address))
        arp_ask(net, link, neighbour);
    else
        nd_ask(net, link, neighbour);
}

struct sending {
    const struct received *in;
    const uint8_t *mac;
};

/* The queue on which transmit.c would have sent it: source and destination lie side by side in both headers, and so do the ports. */
static struct port_queue *resolve_queue(const struct link *link, const struct frame *frame) {
    uint32_t addresses_bytes = frame->family == 4 ? 8 : 32;
    const uint8_t *ip = frame->header + frame->l2_length, *ports = ip + frame->l3_length;
    if (link->config.more_queue_count == 0 || !link->hashes || frame->l4_protocol != PROTOCOL_TCP)
        return link->config.queue;
    uint32_t hash = toeplitz_part(&link->toeplitz, 0, ip + (frame->family == 4 ? 12 : 8), addresses_bytes) ^
                    toeplitz_part(&link->toeplitz, addresses_bytes, ports, 4);
    uint32_t queue = toeplitz_queue(link->config.rss, hash) % (link->config.more_queue_count + 1);
    return queue == 0 ? link->config.queue : link->config.more_queues[queue - 1];
}

static void resolve_send_waiting(void *context, uint8_t *header, const struct frame *frame) {
    const struct sending *sending = context;
    memcpy(header, sending->mac, 6);
    if (port_send(resolve_queue(sending->in->link, frame), frame) != 0)
        sending->in->net->counters.frames_wait_dropped++;
}

void resolve_hear(const struct received *in, struct ip address, const uint8_t mac[6], bool solicited) {
    struct net *net = in->net;
    struct neighbour *neighbour = neighbour_find(in->link->neighbours, address);
    if (neighbour == NULL || neighbour->state == NEIGHBOUR_FREE)
        return;
    if (neighbour_has_mac(neighbour) && memcmp(neighbour->mac, mac, 6) != 0) {
        net->counters.neighbour_claims++;
        neighbour_doubt(in->link->neighbours, neighbour, net->now_us);
        return;
    }
    if (!solicited)
        return;
    struct sending sending = {.in = in, .mac = neighbour->mac};
    neighbour_confirm(in->link->neighbours, neighbour, mac, net->now_us);
    neighbour_waiting_end(net->waiting, neighbour, resolve_send_waiting, &sending);
}

static void resolve_claim(struct net *net, struct link *link, struct ip address, bool probe) {
    if (ip_is_v4(address))
        arp_claim(net, link, address, probe);
    else
        nd_claim(net, link, address, probe);
}

void resolve_conflict(const struct received *in, struct ip address, const uint8_t mac[6]) {
    struct net *net = in->net;
    net->counters.address_conflicts++;
    if (net->now_us < in->link->conflict_quiet_until_us)
        return;
    in->link->conflict_quiet_until_us = net->now_us + NET_CONFLICT_INTERVAL_US;
    if (!port_frame_handed_over(in->queue))
        resolve_claim(net, in->link, address, false);
    if (net->config.conflict != NULL) {
        struct tcp_address ours;
        ip_to(address, &ours);
        net->config.conflict(net->config.conflict_user, (uint32_t)(in->link - net->links), &ours, mac);
    }
}

/* RFC 5227 2.1 and 2.3, RFC 4862 5.4: a probe asks for our own addresses without claiming them, an announcement claims them. */
static void resolve_announce(struct net *net, struct link *link) {
    for (uint32_t i = 0; i < link->config.address_count; i++)
        resolve_claim(net, link, ip_from(&link->config.addresses[i].address), link->announced == 0);
    if (!ip_is_none(link->link_local) && route_local(net, link->link_local) != link)
        nd_claim(net, link, link->link_local, link->announced == 0);
    link->announced++;
}

uint64_t resolve_poll_announce(struct net *net, struct link *link) {
    bool listens = !ip_is_none(link->link_local);
    if (net->config.worker != 0 || (link->announced > ANNOUNCE_COUNT && !listens))
        return UINT64_MAX;
    if (net->now_us < link->announce_due_us)
        return link->announce_due_us;
    if (listens)
        mld_report(net, link); /* RFC 4862 5.4.2: before the probe, whose answer comes by these groups */
    if (link->announced <= ANNOUNCE_COUNT)
        resolve_announce(net, link);
    link->announce_due_us = net->now_us + (link->announced == 1                ? ANNOUNCE_FIRST_US
                                           : link->announced <= ANNOUNCE_COUNT ? ANNOUNCE_INTERVAL_US
                                                                               : LISTENER_REPORT_US);
    return link->announce_due_us;
}
