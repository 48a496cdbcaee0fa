/* owner.c: whose worker a connection is. */
#include "net_private.h"
#include <errno.h>

uint32_t net_owner(const struct net *net, const struct link *link, const struct tcp_address *local, uint16_t local_port,
                   const struct tcp_address *remote, uint16_t remote_port) {
    const struct net_config *config = &net->config;
    uint32_t owner = NET_NOBODY;
    if (link->hashes)
        owner = toeplitz_queue(link->config.rss, toeplitz_tuple(&link->toeplitz, remote, local, remote_port, local_port));
    else if (config->port_span != 0 && local_port >= config->port_first)
        owner = (uint32_t)(local_port - config->port_first) / config->port_span;
    return owner < config->workers ? owner : NET_NOBODY;
}

bool net_is_ours(const struct received *in) {
    return !in->reassembled || in->net->config.worker == 0;
}

bool net_went_to_owner(const struct received *in, bool error, const struct tcp_address *local, uint16_t local_port,
                       const struct tcp_address *remote, uint16_t remote_port) {
    const struct net *net = in->net;
    if (net->config.workers == 1 || (!in->reassembled && !error && in->link->hashes))
        return false; /* a segment came where the device's hash says; TCP asks when it does not know it */
    uint32_t owner = net_owner(net, in->link, local, local_port, remote, remote_port);
    if (in->reassembled) /* the others have put the same datagram together */
        return owner == NET_NOBODY ? !net_is_ours(in) : owner != net->config.worker;
    /* A frame goes to another worker at most once: two workers that disagree must not play ball with it. */
    if (owner == NET_NOBODY || owner == net->config.worker || port_frame_handed_over(in->queue))
        return false;
    port_hand_over(in->queue, owner);
    return true;
}

bool net_choose_ports(void *network, const struct tcp_address *local, const struct tcp_address *remote, uint16_t remote_port,
                      uint64_t random, uint32_t attempt, struct tcp_port_choice *choice) {
    struct net *net = network;
    const struct link *link = route_local(net, ip_from(local));
    return link != NULL && link->steering != NULL && steering_choose(link->steering, local, remote, remote_port, random, attempt, choice);
}

/* Only where hashes say who owns what: by range a segment has gone to its owner before TCP saw it. */
bool net_unknown(void *network, const struct tcp_packet *packet) {
    struct net *net = network;
    const struct link *link = route_local(net, ip_from(&packet->local));
    if (net->config.workers == 1 || link == NULL || !link->hashes || net->receiving == NULL || port_frame_handed_over(net->receiving))
        return false;
    uint32_t owner = net_owner(net, link, &packet->local, wire_get16(packet->header + 2), &packet->remote, wire_get16(packet->header));
    if (owner == NET_NOBODY || owner == net->config.worker)
        return false;
    return port_hand_over(net->receiving, owner) != -EINVAL;
}
