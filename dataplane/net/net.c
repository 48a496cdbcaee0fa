/* net.c: the life of a worker's network, and Ethernet: which interface a frame is for, and which protocol. */
#include "net_private.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

void net_drop(struct net *net, uint64_t *reason) {
    (*reason)++;
    counter_add(&net->config.counters->frames_bad, 1);
}

bool net_rate_allows(uint64_t *empty_at_us, uint64_t now_us, uint32_t per_second, uint32_t burst) {
    const uint64_t step_us = 1000000 / per_second, burst_us = burst * step_us;
    if (*empty_at_us + burst_us < now_us)
        *empty_at_us = now_us - burst_us;
    if (*empty_at_us + step_us > now_us)
        return false;
    *empty_at_us += step_us;
    return true;
}

void net_tell_workers(const struct received *in) {
    if (in->net->config.workers > 1 && !port_frame_handed_over(in->queue))
        port_hand_over_all(in->queue);
}

static int net_set_up_key(struct net *net) {
    memcpy(net->key, net->config.secret, sizeof net->key);
    if ((net->key[0] | net->key[1]) == 0 && getrandom(net->key, sizeof net->key, 0) != (ssize_t)sizeof net->key)
        return -EIO;
    return 0;
}

static void net_add_receiver(struct net *net, struct port_queue *queue, uint32_t interface) {
    for (uint32_t i = 0; i < net->receiver_count; i++)
        if (net->receivers[i].queue == queue)
            return; /* by an interface before, of another VLAN on the same port */
    net->receivers[net->receiver_count++] = (struct receiver){.queue = queue, .interface = interface};
}

static int net_set_up_link(struct net *net, uint32_t interface, uint64_t now_us) {
    struct link *link = &net->links[interface];
    link->config = net->config.interfaces[interface];
    link->l2_length = ETHERNET_BYTES + (link->config.vlan != 0 ? VLAN_TAG_BYTES : 0);
    link->announce_due_us = now_us;
    if (link->config.queue == NULL || link->config.vlan > 4094 || (link->config.mac[0] & 1) != 0 ||
        link->config.more_queue_count > NET_MORE_QUEUES_MAX)
        return -EINVAL;
    net_add_receiver(net, link->config.queue, interface);
    for (uint32_t i = 0; i < link->config.more_queue_count; i++)
        net_add_receiver(net, link->config.more_queues[i], interface);
    link->hashes = link->config.rss != NULL && link->config.rss->hashes;
    if (link->hashes)
        toeplitz_set_up(&link->toeplitz, link->config.rss->key, link->config.rss->key_length);
    if (link->hashes && net->config.workers > 1 && net->config.port_span > 0) {
        link->steering =
            steering_create(link->config.rss, net->config.worker, net->config.port_first, net->config.port_span * net->config.workers);
        if (link->steering == NULL && errno == ENOMEM)
            return -ENOMEM;
    }
    link->neighbours = neighbours_create(net->key);
    return link->neighbours == NULL ? -ENOMEM : 0;
}

static void net_pin(struct net *net, struct link *link, struct ip gateway) {
    if (!ip_is_none(gateway))
        neighbour_get(link->neighbours, net->waiting, gateway, net->now_us)->pinned = true;
}

static int net_set_up(struct net *net, uint64_t now_us) {
    uint32_t mtu_max = 0;
    int rc = net_set_up_key(net);
    for (uint32_t i = 0; rc == 0 && i < net->config.interface_count; i++) {
        rc = net_set_up_link(net, i, now_us);
        if (net->config.interfaces[i].mtu > mtu_max)
            mtu_max = net->config.interfaces[i].mtu;
    }
    if (rc != 0)
        return rc;
    net->waiting = waiting_pool_create(mtu_max);
    net->reassembly = reassembly_create();
    if (net->waiting == NULL || net->reassembly == NULL)
        return -ENOMEM;
    rc = route_set_up(net);
    for (uint32_t i = 0; rc == 0 && i < net->config.interface_count; i++) {
        net_pin(net, &net->links[i], net->links[i].gateway);
        net_pin(net, &net->links[i], net->links[i].gateway6);
    }
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
    for (uint32_t i = 0; i < PAIRS; i++)
        net->pairs[i].local = PAIR_EMPTY;
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
    for (uint32_t i = 0; i < net->config.interface_count; i++) {
        neighbours_destroy(net->links[i].neighbours, net->waiting);
        steering_destroy(net->links[i].steering);
    }
    waiting_pool_destroy(net->waiting);
    reassembly_destroy(net->reassembly);
    free(net);
}

void net_attach(struct net *net, struct tcp_stack *stack) {
    net->stack = stack;
}

const struct net_counters *net_counters(const struct net *net) {
    return &net->counters;
}

bool net_reassembled(struct received *in, uint32_t identification, uint32_t offset, bool more, uint8_t *protocol) {
    struct net *net = in->net;
    bool evicted = false;
    /* Only what came from the wire: the worker that received it has counted the others'. */
    if (!port_frame_handed_over(in->queue)) {
        net->counters.fragments++;
        if (!net_rate_allows(&net->fragment_rate_us, net->now_us, FRAGMENTS_PER_SECOND, FRAGMENTS_BURST)) {
            net_drop(net, &net->counters.fragments_limited);
            return false;
        }
    }
    /* The owner is known when the datagram is whole, and its fragments may come to any queue: every worker puts all together, and one takes
     * it up (owner.c). */
    net_tell_workers(in);
    struct fragment fragment = {.source = in->source,
                                .destination = in->destination,
                                .identification = identification,
                                .protocol = *protocol,
                                .more = more,
                                .offset = offset,
                                .bytes = in->bytes,
                                .length = in->length};
    enum reassembly_result result = reassembly_add(net->reassembly, &fragment, net->now_us, &evicted, &in->bytes, &in->length, protocol);
    net->counters.reassembly_evicted += evicted;
    if (result == REASSEMBLY_BAD)
        net_drop(net, &net->counters.fragments_bad);
    else if (result == REASSEMBLY_LIMITED)
        net_drop(net, &net->counters.fragments_limited);
    net->counters.reassembled += result == REASSEMBLY_WHOLE;
    in->reassembled = true;
    return result == REASSEMBLY_WHOLE;
}

/* Interfaces of one port differ by their VLAN; priority tags (VLAN 0) count as none (IEEE 802.1Q). */
static struct link *net_link(struct net *net, const struct port_queue *queue, uint32_t interface, uint16_t vlan) {
    struct link *first = &net->links[interface];
    if (first->config.vlan == vlan)
        return first;
    for (uint32_t i = 0; i < net->config.interface_count; i++) {
        struct link *link = &net->links[i];
        bool on_queue = link->config.queue == queue;
        for (uint32_t more = 0; more < link->config.more_queue_count; more++)
            on_queue = on_queue || link->config.more_queues[more] == queue;
        if (on_queue && link->config.vlan == vlan)
            return link;
    }
    return NULL;
}

static void net_input_from(struct net *net, struct port_queue *queue, uint32_t interface, const uint8_t *frame, uint32_t length) {
    uint32_t l2_length = ETHERNET_BYTES;
    uint16_t ethertype = length < ETHERNET_BYTES ? 0 : wire_get16(frame + 12), vlan = 0;
    if (ethertype == ETHERTYPE_VLAN) {
        l2_length += VLAN_TAG_BYTES;
        if (length >= l2_length) {
            vlan = wire_get16(frame + 14) & 0x0fff;
            ethertype = wire_get16(frame + 16);
        }
    }
    if (length < l2_length || (frame[6] & 1) != 0) { /* nobody sends from a group address */
        net_drop(net, &net->counters.bad_ethernet);
        return;
    }
    struct received in = {
        .net = net,
        .link = net_link(net, queue, interface, vlan),
        .queue = queue,
        .source_mac = frame + 6,
        .broadcast = (frame[0] & 1) != 0,
        .bytes = frame + l2_length,
        .length = length - l2_length,
    };
    if (in.link == NULL || (!in.broadcast && memcmp(frame, in.link->config.mac, 6) != 0))
        net_drop(net, &net->counters.ignored);
    else if (ethertype == ETHERTYPE_IPV4)
        ipv4_input(&in);
    else if (ethertype == ETHERTYPE_IPV6)
        ipv6_input(&in);
    else if (ethertype == ETHERTYPE_ARP)
        arp_input(&in);
    else
        net_drop(net, &net->counters.ignored);
}

void net_input(struct net *net, uint32_t interface, const uint8_t *frame, uint32_t length, uint64_t now_us) {
    net->now_us = now_us;
    if (interface >= net->config.interface_count)
        return;
    net->receiving = net->links[interface].config.queue;
    net_input_from(net, net->receiving, interface, frame, length);
    net->receiving = NULL;
}

struct net_burst {
    struct net *net;
    const struct receiver *receiver;
};

/* Buffers are some KiB apart, headers at one place in each. */
static struct announced *announced_at(struct net *net, const uint8_t *tcp) {
    uintptr_t at = (uintptr_t)tcp;
    return &net->announced[(at >> 6 ^ at >> 11) % ANNOUNCED];
}

uint32_t net_announced(struct net *net, const uint8_t *tcp) {
    struct announced *announced = announced_at(net, tcp);
    if (announced->tcp != tcp)
        return 0;
    announced->tcp = NULL;
    return announced->hash;
}

/* Plain segments only, and nothing in them is believed: TCP fetches what they may concern into the cache. Its hash is kept for where it is
 * needed; of a frame that is no plain segment nothing stays that was kept of an earlier one in the same buffer. */
static void net_look_ahead(void *context, const uint8_t *frame, uint32_t length) {
    const struct net_burst *burst = context;
    struct net *net = burst->net;
    uint32_t l2_length = net->links[burst->receiver->interface].l2_length;
    const uint8_t *ip = frame + l2_length;
    struct tcp_packet packet = {.length = TCP_BYTES};
    uint16_t ethertype = length < l2_length + IPV4_BYTES + TCP_BYTES ? 0 : wire_get16(ip - 2);
    if (ethertype == ETHERTYPE_IPV4 && ip[0] == 0x45 && ip[9] == PROTOCOL_TCP &&
        (wire_get16(ip + 6) & (IPV4_MORE_FRAGMENTS | IPV4_OFFSET_MASK)) == 0) {
        packet.header = ip + IPV4_BYTES;
        packet.local.family = packet.remote.family = 4;
        memcpy(packet.remote.bytes, ip + 12, 4);
        memcpy(packet.local.bytes, ip + 16, 4);
    } else if (ethertype == ETHERTYPE_IPV6 && ip[6] == PROTOCOL_TCP && length >= l2_length + IPV6_BYTES + TCP_BYTES) {
        packet.header = ip + IPV6_BYTES;
        packet.local.family = packet.remote.family = 6;
        memcpy(packet.remote.bytes, ip + 8, 16);
        memcpy(packet.local.bytes, ip + 24, 16);
    } else {
        net_announced(net, ip + IPV4_BYTES);
        net_announced(net, ip + IPV6_BYTES);
        return;
    }
    tcp_prefetch(net->stack, &packet);
    *announced_at(net, packet.header) = (struct announced){.tcp = packet.header, .hash = packet.hash};
}

static void net_input_from_port(void *context, const uint8_t *frame, uint32_t length) {
    const struct net_burst *burst = context;
    net_input_from(burst->net, burst->receiver->queue, burst->receiver->interface, frame, length);
}

uint32_t net_receive(struct net *net, uint64_t now_us) {
    uint32_t frames = 0;
    net->now_us = now_us;
    for (uint32_t i = 0; i < net->receiver_count; i++) {
        struct net_burst burst = {.net = net, .receiver = &net->receivers[i]};
        net->receiving = burst.receiver->queue;
        frames += port_receive_ahead(burst.receiver->queue, net->stack == NULL ? NULL : net_look_ahead, net_input_from_port, &burst);
    }
    net->receiving = NULL;
    return frames;
}

struct net_asking {
    struct net *net;
    struct link *link;
};

static void net_ask(void *context, struct neighbour *neighbour) {
    struct net_asking *asking = context;
    resolve_ask(asking->net, asking->link, neighbour);
}

static void net_neighbour_failed(void *context, struct neighbour *neighbour) {
    struct net_asking *asking = context;
    asking->net->counters.neighbours_failed++;
    asking->net->counters.frames_wait_dropped += neighbour->waiting_count;
}

uint64_t net_poll(struct net *net, uint64_t now_us) {
    net->now_us = now_us;
    uint64_t due_us = reassembly_poll(net->reassembly, now_us, &net->counters.reassembly_timeouts);
    for (uint32_t i = 0; i < net->config.interface_count; i++) {
        struct link *link = &net->links[i];
        struct net_asking asking = {.net = net, .link = link};
        uint64_t announce_us = resolve_poll_announce(net, link);
        uint64_t neighbour_us = neighbours_poll(link->neighbours, net->waiting, now_us, net_ask, net_neighbour_failed, &asking);
        if (announce_us < due_us)
            due_us = announce_us;
        if (neighbour_us < due_us)
            due_us = neighbour_us;
    }
    for (uint32_t i = 0; i < net->receiver_count; i++)
        port_flush(net->receivers[i].queue);
    return due_us;
}
