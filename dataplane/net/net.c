/* net.c: the life of a worker's network, and Ethernet: which interface a frame is for, and which protocol. */
#include "net_private.h"
#include <errno.h>
#include <stdlib.h>

void net_drop(struct net *net, uint64_t *reason) {
    (*reason)++;
    counter_add(&net->config.counters->frames_bad, 1);
}

static int net_set_up(struct net *net, uint64_t now_us) {
    uint32_t mtu_max = 0;
    for (uint32_t i = 0; i < net->config.interface_count; i++) {
        struct link *link = &net->links[i];
        link->config = net->config.interfaces[i];
        link->l2_length = ETHERNET_BYTES + (link->config.vlan != 0 ? VLAN_TAG_BYTES : 0);
        link->announce_due_us = now_us;
        if (link->config.queue == NULL || link->config.vlan > 4094 || (link->config.mac[0] & 1) != 0)
            return -EINVAL;
        link->neighbours = neighbours_create();
        if (link->neighbours == NULL)
            return -ENOMEM;
        if (link->config.mtu > mtu_max)
            mtu_max = link->config.mtu;
    }
    net->waiting = waiting_pool_create(mtu_max);
    if (net->waiting == NULL)
        return -ENOMEM;
    int rc = route_set_up(net);
    for (uint32_t i = 0; rc == 0 && i < net->config.interface_count; i++)
        if (net->links[i].gateway != 0)
            neighbour_get(net->links[i].neighbours, net->waiting, net->links[i].gateway, now_us)->pinned = true;
    return rc;
}

struct net *net_create(const struct net_config *config, uint64_t now_us) {
    if (config->interface_count > NET_INTERFACES_MAX || config->counters == NULL || config->workers == 0 ||
        config->worker >= config->workers) {
        errno = EINVAL;
        return NULL;
    }
    struct net *net = calloc(1, sizeof *net);
    if (net == NULL)
        return NULL;
    net->config = *config;
    net->now_us = now_us;
    int rc = net_set_up(net, now_us);
    if (rc != 0) {
        net_destroy(net);
        errno = -rc;
        return NULL;
    }
    return net;
}

void net_destroy(struct net *net) {
    if (net == NULL)
        return;
    for (uint32_t i = 0; i < net->config.interface_count; i++)
        neighbours_destroy(net->links[i].neighbours, net->waiting);
    waiting_pool_destroy(net->waiting);
    free(net);
}

void net_attach(struct net *net, struct tcp_stack *stack) {
    net->stack = stack;
}

const struct net_counters *net_counters(const struct net *net) {
    return &net->counters;
}

/* A frame goes to another worker at most once: two workers that disagree must not play ball with it. */
bool net_handed_over_to_owner(const struct received *in, uint16_t local_port) {
    const struct net_config *config = &in->net->config;
    if (config->port_span == 0 || local_port < config->port_first)
        return false;
    uint32_t owner = (uint32_t)(local_port - config->port_first) / config->port_span;
    if (owner == config->worker || owner >= config->workers || port_frame_handed_over(in->link->config.queue))
        return false;
    port_hand_over(in->link->config.queue, owner);
    return true;
}

/* Interfaces of one port differ by their VLAN; priority tags (VLAN 0) count as none (IEEE 802.1Q). */
static struct link *net_link(struct net *net, const struct port_queue *queue, uint16_t vlan) {
    for (uint32_t i = 0; i < net->config.interface_count; i++)
        if (net->links[i].config.queue == queue && net->links[i].config.vlan == vlan)
            return &net->links[i];
    return NULL;
}

void net_input(struct net *net, uint32_t interface, const uint8_t *frame, uint32_t length, uint64_t now_us) {
    net->now_us = now_us;
    if (interface >= net->config.interface_count || length < ETHERNET_BYTES) {
        net_drop(net, &net->counters.bad_ethernet);
        return;
    }
    uint32_t l2_length = ETHERNET_BYTES;
    uint16_t ethertype = wire_get16(frame + 12), vlan = 0;
    if (ethertype == ETHERTYPE_VLAN) {
        l2_length += VLAN_TAG_BYTES;
        if (length < l2_length) {
            net_drop(net, &net->counters.bad_ethernet);
            return;
        }
        vlan = wire_get16(frame + 14) & 0x0fff;
        ethertype = wire_get16(frame + 16);
    }
    if ((frame[6] & 1) != 0) { /* nobody sends from a group address */
        net_drop(net, &net->counters.bad_ethernet);
        return;
    }
    struct received in = {
        .net = net,
        .link = net_link(net, net->links[interface].config.queue, vlan),
        .source_mac = frame + 6,
        .broadcast = (frame[0] & 1) != 0,
        .bytes = frame + l2_length,
        .length = length - l2_length,
    };
    if (in.link == NULL || (!in.broadcast && memcmp(frame, in.link->config.mac, 6) != 0))
        net_drop(net, &net->counters.ignored);
    else if (ethertype == ETHERTYPE_IPV4)
        ipv4_input(&in);
    else if (ethertype == ETHERTYPE_ARP)
        arp_input(&in);
    else
        net_drop(net, &net->counters.ignored);
}

struct net_burst {
    struct net *net;
    uint32_t interface;
};

static void net_input_from_port(void *context, const uint8_t *frame, uint32_t length) {
    const struct net_burst *burst = context;
    net_input(burst->net, burst->interface, frame, length, burst->net->now_us);
}

uint32_t net_receive(struct net *net, uint64_t now_us) {
    uint32_t frames = 0;
    net->now_us = now_us;
    for (uint32_t i = 0; i < net->config.interface_count; i++) {
        bool received = false; /* by an interface before, of another VLAN on the same port */
        for (uint32_t before = 0; before < i; before++)
            received = received || net->links[before].config.queue == net->links[i].config.queue;
        struct net_burst burst = {.net = net, .interface = i};
        if (!received)
            frames += port_receive(net->links[i].config.queue, net_input_from_port, &burst);
    }
    return frames;
}

struct net_asking {
    struct net *net;
    struct link *link;
};

static void net_ask(void *context, struct neighbour *neighbour) {
    struct net_asking *asking = context;
    arp_ask(asking->net, asking->link, neighbour);
}

static void net_neighbour_failed(void *context, struct neighbour *neighbour) {
    struct net_asking *asking = context;
    asking->net->counters.arp_failed++;
    asking->net->counters.frames_wait_dropped += neighbour->waiting_count;
}

uint64_t net_poll(struct net *net, uint64_t now_us) {
    uint64_t due_us = UINT64_MAX;
    net->now_us = now_us;
    for (uint32_t i = 0; i < net->config.interface_count; i++) {
        struct link *link = &net->links[i];
        struct net_asking asking = {.net = net, .link = link};
        uint64_t announce_us = arp_poll_announce(net, link);
        uint64_t neighbour_us = neighbours_poll(link->neighbours, net->waiting, now_us, net_ask, net_neighbour_failed, &asking);
        port_flush(link->config.queue);
        if (announce_us < due_us)
            due_us = announce_us;
        if (neighbour_us < due_us)
            due_us = neighbour_us;
    }
    return due_us;
}
