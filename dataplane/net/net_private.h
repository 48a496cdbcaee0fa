/* net_private.h: what the files of net/ share. IPv4 addresses are numbers in host order here. */
#ifndef DATAPLANE_NET_NET_PRIVATE_H
#define DATAPLANE_NET_NET_PRIVATE_H

#include "neighbour.h"
#include "net.h"
#include "wire.h"

enum {
    LOCAL_SLOTS = 2048, /* a power of two, at least twice NET_INTERFACES_MAX * NET_ADDRESSES_MAX */
    PREFIXES_MAX = NET_ADDRESSES_MAX,
    TTL_SENT = 64,          /* RFC 1122 3.2.1.7 */
    ECHO_PER_SECOND = 1000, /* replies to ping, each worker */
    ECHO_BURST = 100,
    ANNOUNCE_FIRST_US = 1000000, /* RFC 5227: PROBE_MIN, then ANNOUNCE_INTERVAL */
    ANNOUNCE_INTERVAL_US = 2000000,
    ANNOUNCE_COUNT = 2,
};

struct prefix {
    uint32_t address, mask;
};

struct local {
    uint32_t address; /* 0: empty */
    uint32_t interface;
};

/* One interface as it lives. */
struct link {
    struct net_interface config;
    uint8_t l2_length;
    uint32_t prefix_count;
    struct prefix prefixes[PREFIXES_MAX];
    uint32_t gateway; /* 0: none */
    struct neighbours *neighbours;
    uint32_t announced; /* 0: the probe is next; then announcements, up to ANNOUNCE_COUNT */
    uint64_t announce_due_us;
    uint64_t conflict_quiet_until_us; /* RFC 5227 2.4 (b): defend at most once in this interval */
};

struct net {
    struct net_config config;
    struct tcp_stack *stack;
    struct net_counters counters;
    uint64_t now_us; /* of the caller's last net_receive, net_input or net_poll */
    struct link links[NET_INTERFACES_MAX];
    struct local locals[LOCAL_SLOTS];
    struct frame_waiting_pool *waiting;
    uint64_t echo_tokens_at_us; /* token bucket of ECHO_PER_SECOND as the time at which it was last empty */
};

/* A received frame on its way up: what the layer below has found out. */
struct received {
    struct net *net;
    struct link *link;
    const uint8_t *source_mac;
    bool broadcast; /* sent to the link's broadcast or a multicast address */
    uint32_t source, destination;
    const uint8_t *bytes; /* from this layer's header on */
    uint32_t length;
};

/* net.c */
void net_drop(struct net *net, uint64_t *reason);
bool net_handed_over_to_owner(const struct received *in, uint16_t local_port);

/* route.c */
int route_set_up(struct net *net);
struct link *route_local(struct net *net, uint32_t address);
bool route_is_local(const struct net *net, const struct link *link, uint32_t address);
/* The neighbour's address on `link` through which `destination` is reached: itself or the gateway. 0: no route. */
uint32_t route_next_hop(const struct link *link, uint32_t destination);
bool route_is_host(uint32_t address);
/* The broadcast address of one of the link's prefixes, or the network itself? */
bool route_is_broadcast(const struct link *link, uint32_t address);

/* transmit.c */
uint8_t transmit_ethernet(const struct link *link, uint8_t *header, const uint8_t mac[6], uint16_t ethertype);
void transmit_ipv4(uint8_t *header, uint8_t protocol, uint32_t payload_bytes, uint32_t source, uint32_t destination);

/* arp.c */
void arp_input(const struct received *in);
void arp_ask(struct net *net, struct link *link, const struct neighbour *neighbour);
uint64_t arp_poll_announce(struct net *net, struct link *link);

/* ipv4.c, icmp.c */
void ipv4_input(struct received *in);
void icmp_input(const struct received *in);

#endif
