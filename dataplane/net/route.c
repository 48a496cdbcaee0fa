/* route.c: which interface an address of ours is on, and through whom a destination is reached. */
#include "net_private.h"
#include <errno.h>

static uint32_t mask_of(uint8_t prefix_length) {
    return prefix_length == 0 ? 0 : UINT32_MAX << (32 - prefix_length);
}

/* An address that a single host may have: not 0/8, loopback, multicast, class E or the limited broadcast (RFC 1122 3.2.1.3). */
bool route_is_host(uint32_t address) {
    uint32_t net8 = address >> 24;
    return net8 != 0 && net8 != 127 && net8 < 224;
}

static struct local *local_slot(struct net *net, uint32_t address) {
    uint32_t slot = address * 2654435761u >> 21;
    while (net->locals[slot].address != 0 && net->locals[slot].address != address)
        slot = (slot + 1) % LOCAL_SLOTS;
    return &net->locals[slot];
}

static bool prefix_known(const struct link *link, struct prefix prefix) {
    for (uint32_t i = 0; i < link->prefix_count; i++)
        if (link->prefixes[i].address == prefix.address && link->prefixes[i].mask == prefix.mask)
            return true;
    return false;
}

static bool route_on_link(const struct link *link, uint32_t destination) {
    for (uint32_t i = 0; i < link->prefix_count; i++)
        if ((destination & link->prefixes[i].mask) == link->prefixes[i].address)
            return true;
    return false;
}

static int route_add_address(struct net *net, uint32_t interface, const struct net_address *address) {
    struct link *link = &net->links[interface];
    if (address->address.family == 6)
        return 0; /* IPv6 is not spoken: such an address is never used */
    uint32_t number = wire_get32(address->address.bytes);
    if (address->address.family != 4 || address->prefix_length > 32 || !route_is_host(number))
        return -EINVAL;
    struct local *local = local_slot(net, number);
    if (local->address != 0)
        return -EINVAL;
    *local = (struct local){.address = number, .interface = interface};
    uint32_t mask = mask_of(address->prefix_length);
    struct prefix prefix = {.address = number & mask, .mask = mask};
    if (!prefix_known(link, prefix))
        link->prefixes[link->prefix_count++] = prefix;
    return 0;
}

int route_set_up(struct net *net) {
    for (uint32_t i = 0; i < net->config.interface_count; i++) {
        struct link *link = &net->links[i];
        if (link->config.address_count > NET_ADDRESSES_MAX)
            return -EINVAL;
        for (uint32_t a = 0; a < link->config.address_count; a++) {
            int rc = route_add_address(net, i, &link->config.addresses[a]);
            if (rc != 0)
                return rc;
        }
        if (link->config.gateway.family != 4)
            continue;
        link->gateway = wire_get32(link->config.gateway.bytes);
        if (!route_is_host(link->gateway) || !route_on_link(link, link->gateway))
            return -EINVAL;
    }
    return 0;
}

struct link *route_local(struct net *net, uint32_t address) {
    struct local *local = local_slot(net, address);
    return local->address == 0 ? NULL : &net->links[local->interface];
}

bool route_is_local(const struct net *net, const struct link *link, uint32_t address) {
    /* The table is not changed by the look-up of an address that is not in it. */
    return address != 0 && route_local((struct net *)net, address) == link;
}

bool route_is_broadcast(const struct link *link, uint32_t address) {
    for (uint32_t i = 0; i < link->prefix_count; i++) {
        const struct prefix *prefix = &link->prefixes[i];
        /* RFC 3021: a /31 has no broadcast, and neither has a /32. */
        if (prefix->mask < UINT32_MAX - 1 && prefix->mask != 0 && (address & prefix->mask) == prefix->address &&
            ((address | prefix->mask) == UINT32_MAX || address == prefix->address))
            return true;
    }
    return false;
}

uint32_t route_next_hop(const struct link *link, uint32_t destination) {
    if (!route_is_host(destination) || route_is_broadcast(link, destination))
        return 0;
    return route_on_link(link, destination) ? destination : link->gateway;
}
