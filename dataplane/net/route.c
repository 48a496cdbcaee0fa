/* route.c: which interface an address of ours is on, and through whom a destination is reached. */
#include "net_private.h"
#include <errno.h>

/* The mask of a prefix; an IPv4 prefix is one of the mapped address. */
static struct ip mask_of(bool v4, uint32_t prefix_length) {
    prefix_length += v4 ? 96 : 0;
    return (struct ip){prefix_length == 0    ? 0
                       : prefix_length >= 64 ? UINT64_MAX
                                             : UINT64_MAX << (64 - prefix_length),
                       prefix_length <= 64 ? 0 : UINT64_MAX << (128 - prefix_length)};
}

static struct ip masked(struct ip address, struct ip mask) {
    return (struct ip){address.high & mask.high, address.low & mask.low};
}

/* Not 0/8, loopback, multicast, class E or the limited broadcast (RFC 1122 3.2.1.3); not "::", "::1", multicast (RFC 4291 2.4). */
bool route_is_host(struct ip address) {
    if (!ip_is_v4(address))
        return !ip_is_multicast6(address) && (address.high != 0 || address.low > 1);
    uint32_t net8 = ip_v4(address) >> 24;
    return net8 != 0 && net8 != 127 && net8 < 224;
}

static uint32_t local_slot(const struct net *net, struct ip address) {
    uint32_t slot = (uint32_t)((address.low ^ address.high * 3) * 0x9e3779b97f4a7c15u >> 52);
    while (!ip_is_none(net->locals[slot].address) && !ip_same(net->locals[slot].address, address))
        slot = (slot + 1) % LOCAL_SLOTS;
    return slot;
}

static bool route_on_link(const struct link *link, struct ip destination) {
    if (ip_is_link_local(destination))
        return !ip_is_none(link->link_local);
    for (uint32_t i = 0; i < link->prefix_count; i++)
        if (ip_same(masked(destination, link->prefixes[i].mask), link->prefixes[i].address))
            return true;
    return false;
}

static void route_add_prefix(struct link *link, struct prefix prefix) {
    for (uint32_t i = 0; i < link->prefix_count; i++)
        if (ip_same(link->prefixes[i].address, prefix.address) && ip_same(link->prefixes[i].mask, prefix.mask))
            return;
    link->prefixes[link->prefix_count++] = prefix;
}

static int route_add_address(struct net *net, uint32_t interface, const struct net_address *address) {
    struct link *link = &net->links[interface];
    struct ip ip = ip_from(&address->address);
    bool v4 = ip_is_v4(ip);
    if (!route_is_host(ip) || address->prefix_length > (v4 ? 32 : 128))
        return -EINVAL;
    struct local *local = &net->locals[local_slot(net, ip)];
    if (!ip_is_none(local->address) || (!v4 && link->config.mtu < IPV6_MTU_MIN))
        return -EINVAL;
    *local = (struct local){.address = ip, .interface = interface};
    struct ip mask = mask_of(v4, address->prefix_length), mapped = ip_from_v4(0);
    if (!v4 && ip_same(masked(ip, mask), masked(mapped, mask))) /* it would hold every IPv4 address too */
        return -EINVAL;
    route_add_prefix(link, (struct prefix){.address = masked(ip, mask), .mask = mask});
    /* RFC 4291 appendix A: the interface's identifier is its MAC with one bit turned and fffe in the middle. */
    const uint8_t *mac = link->config.mac;
    if (!v4)
        link->link_local =
            (struct ip){(uint64_t)0xfe80 << 48, (uint64_t)(mac[0] ^ 2) << 56 | (uint64_t)mac[1] << 48 | (uint64_t)mac[2] << 40 |
                                                    (uint64_t)0xfffe << 24 | (uint64_t)mac[3] << 16 | (uint64_t)mac[4] << 8 | mac[5]};
    return 0;
}

static int route_set_gateway(const struct link *link, const struct tcp_address *address, uint8_t family, struct ip *gateway) {
    if (address->family == 0)
        return 0;
    *gateway = ip_from(address);
    return address->family == family && route_is_host(*gateway) && route_on_link(link, *gateway) ? 0 : -EINVAL;
}

int route_set_up(struct net *net) {
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < net->config.interface_count; i++) {
        struct link *link = &net->links[i];
        if (link->config.address_count > NET_ADDRESSES_MAX)
            return -EINVAL;
        for (uint32_t a = 0; rc == 0 && a < link->config.address_count; a++)
            rc = route_add_address(net, i, &link->config.addresses[a]);
        if (rc == 0)
            rc = route_set_gateway(link, &link->config.gateway, 4, &link->gateway);
        if (rc == 0)
            rc = route_set_gateway(link, &link->config.gateway6, 6, &link->gateway6);
    }
    return rc;
}

struct link *route_local(struct net *net, struct ip address) {
    const struct local *local = &net->locals[local_slot(net, address)];
    return ip_is_none(local->address) ? NULL : &net->links[local->interface];
}

bool route_is_local(const struct net *net, const struct link *link, struct ip address) {
    if (ip_is_none(address))
        return false;
    const struct local *local = &net->locals[local_slot(net, address)];
    return (!ip_is_none(local->address) && &net->links[local->interface] == link) || ip_same(address, link->link_local);
}

/* Of an address that the prefix has. RFC 3021: a /31 has no broadcast, and neither has a /32. */
static bool prefix_broadcasts(const struct prefix *prefix, struct ip address) {
    uint32_t mask = (uint32_t)prefix->mask.low, number = ip_v4(address);
    return mask < UINT32_MAX - 1 && mask != 0 && ((number | mask) == UINT32_MAX || (number & ~mask) == 0);
}

bool route_is_broadcast(const struct link *link, struct ip address) {
    if (!ip_is_v4(address))
        return false;
    for (uint32_t i = 0; i < link->prefix_count; i++) {
        const struct prefix *prefix = &link->prefixes[i];
        if (ip_same(masked(address, prefix->mask), prefix->address) && prefix_broadcasts(prefix, address))
            return true;
    }
    return false;
}

struct ip route_next_hop(const struct link *link, struct ip destination) {
    if (!route_is_host(destination) || route_is_broadcast(link, destination))
        return IP_NONE;
    if (route_on_link(link, destination))
        return destination;
    return ip_is_v4(destination) ? link->gateway : link->gateway6;
}

struct ip route_source(const struct link *link, struct ip neighbour) {
    bool v4 = ip_is_v4(neighbour);
    struct ip first = v4 ? IP_NONE : link->link_local;
    if (ip_is_link_local(neighbour))
        return first;
    for (uint32_t i = 0; i < link->config.address_count; i++) {
        struct ip ours = ip_from(&link->config.addresses[i].address);
        struct ip mask = mask_of(v4, link->config.addresses[i].prefix_length);
        if (ip_is_v4(ours) != v4)
            continue;
        if (ip_same(masked(ours, mask), masked(neighbour, mask)))
            return ours;
        if (ip_is_none(first))
            first = ours;
    }
    return first;
}
