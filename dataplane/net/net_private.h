/* net_private.h: what the files of net/ share. */
#ifndef DATAPLANE_NET_NET_PRIVATE_H
#define DATAPLANE_NET_NET_PRIVATE_H

#include "dataplane/port/toeplitz.h"
#include "ip.h"
#include "neighbour.h"
#include "net.h"
#include "reassembly.h"
#include "steering.h"
#include "wire.h"

enum {
    LOCAL_SLOTS = 4096, /* a power of two, at least twice NET_INTERFACES_MAX * NET_ADDRESSES_MAX */
    PREFIXES_MAX = NET_ADDRESSES_MAX,
    RECEIVERS_MAX = NET_INTERFACES_MAX * (1 + NET_MORE_QUEUES_MAX),
    TTL_SENT = 64,          /* RFC 1122 3.2.1.7 */
    HOP_LIMIT_ND = 255,     /* RFC 4861 7.1: who says it is on this link */
    ECHO_PER_SECOND = 1000, /* replies to ping, each worker */
    ECHO_BURST = 100,
    FRAGMENTS_PER_SECOND = 10000, /* that one worker takes from the wire: each costs every worker something */
    FRAGMENTS_BURST = 1000,
    ANNOUNCE_FIRST_US = 1000000, /* RFC 5227: PROBE_MIN, then ANNOUNCE_INTERVAL; RFC 4862: RETRANS_TIMER */
    ANNOUNCE_INTERVAL_US = 2000000,
    ANNOUNCE_COUNT = 2,
    LISTENER_REPORT_US = 100000000, /* RFC 3810 9.4: switches forget after 260 s, and a querier's question may go to the kernel beside us */
    IDENTIFICATIONS = 256,          /* counters of fragment identifications; a power of two */
    ANNOUNCED = 16,                 /* segments announced and not yet handled, by the place of their header; a power of two */
    PAIRS = 1024,                   /* a power of two */
    PAIR_HEADERS_BYTES = 64,        /* at least Ethernet, VLAN and IPv6; copied whole */
    NET_NOBODY = UINT32_MAX,
};

/* Addresses with (address & mask) == prefix. */
struct prefix {
    struct ip address, mask;
};

struct local {
    struct ip address; /* none: empty */
    uint32_t interface;
};

/* One interface as it lives. */
struct link {
    struct net_interface config;
    uint8_t l2_length;
    bool hashes; /* config.rss says where frames go: `toeplitz` is its key made ready */
    uint32_t prefix_count;
    struct prefix prefixes[PREFIXES_MAX];
    struct ip gateway, gateway6; /* none: none */
    struct ip link_local;        /* none: no IPv6 here */
    struct neighbours *neighbours;
    uint32_t announced; /* 0: the probe is next; then announcements, up to ANNOUNCE_COUNT */
    uint64_t announce_due_us;
    uint64_t conflict_quiet_until_us; /* RFC 5227 2.4 (b): defend at most once in this interval */
    uint64_t mld_quiet_until_us;
    struct toeplitz toeplitz;
    struct steering *steering; /* NULL: local ports are divided by range */
};

/* What all segments between two addresses have in common, made once: the way, the headers below TCP, their sums. One that another pair of
 * the same place has displaced is made again. Routes do not change, so it is never wrong. */
struct pair {
    struct ip local, remote; /* local PAIR_EMPTY: none */
    struct link *link;
    struct ip hop;
    struct neighbour *neighbour; /* hop's, as long as it still has that address */
    uint64_t addresses;          /* sum of both: of the pseudo-header */
    uint64_t ipv4_rest;          /* sum of what does not change in an IPv4 header */
    uint64_t label;              /* of IPv6 flow labels: hashed with the ports */
    uint8_t headers_length;
    bool remote_is_ours;
    uint8_t headers[PAIR_HEADERS_BYTES]; /* link and IP, without destination MAC, lengths, checksum */
};

/* What was learned of a segment when it was announced, some frames before it is handled. */
struct announced {
    const uint8_t *tcp; /* its TCP header; NULL: none */
    uint32_t hash;
};

/* A queue to poll and the first interface on it. */
struct receiver {
    struct port_queue *queue;
    uint32_t interface;
};

struct net {
    struct net_config config;
    struct tcp_stack *stack;
    struct net_counters counters;
    uint64_t now_us;              /* of the caller's last net_receive, net_input or net_poll */
    uint64_t key[2];              /* config.secret */
    struct port_queue *receiving; /* the queue of the frame being handled; NULL outside of net_input */
    uint32_t receiver_count;
    struct receiver receivers[RECEIVERS_MAX];
    struct link links[NET_INTERFACES_MAX];
    struct local locals[LOCAL_SLOTS];
    struct frame_waiting_pool *waiting;
    struct reassembly *reassembly;
    uint64_t echo_rate_us, fragment_rate_us; /* net_rate_allows */
    uint32_t identifications[IDENTIFICATIONS];
    struct announced announced[ANNOUNCED];
    struct pair pairs[PAIRS];
};

/* A received frame on its way up: what the layer below has found out. */
struct received {
    struct net *net;
    struct link *link;
    struct port_queue *queue;
    const uint8_t *source_mac;
    bool broadcast;   /* sent to the link's broadcast or a multicast address */
    bool fragmented;  /* IPv6: it has a fragment header, if only of one that is whole */
    bool reassembled; /* every worker has it: net_is_ours decides; the device has verified nothing */
    uint8_t hop_limit;
    struct ip source, destination;
    const uint8_t *bytes; /* from this layer's header on */
    uint32_t length;
};

/* net.c */
/* The hash that TCP made of the segment when it was announced; 0: it was not. Told once. */
uint32_t net_announced(struct net *net, const uint8_t *tcp);
void net_drop(struct net *net, uint64_t *reason);
/* A token bucket without tokens: the time at which it was last empty moves on with each that is allowed. */
bool net_rate_allows(uint64_t *empty_at_us, uint64_t now_us, uint32_t per_second, uint32_t burst);
/* Every worker has its own tables: the others get the frame too, unless one of them sent it here. */
void net_tell_workers(const struct received *in);

/* owner.c */
/* The worker of the connection whose frames come in from remote:remote_port to local:local_port; NET_NOBODY: no port of a worker's. */
uint32_t net_owner(const struct net *net, const struct link *link, const struct tcp_address *local, uint16_t local_port,
                   const struct tcp_address *remote, uint16_t remote_port);
/* Of a segment, or of an ICMP error about one (`error`): handed over, or left to the worker that has the same datagram. */
bool net_went_to_owner(const struct received *in, bool error, const struct tcp_address *local, uint16_t local_port,
                       const struct tcp_address *remote, uint16_t remote_port);
/* Of what belongs to no connection: who received it; worker 0 where all have it. */
bool net_is_ours(const struct received *in);

/* route.c */
int route_set_up(struct net *net);
/* The interface that TCP may use this address on. */
struct link *route_local(struct net *net, struct ip address);
/* Ours on that link, link-local included. */
bool route_is_local(const struct net *net, const struct link *link, struct ip address);
/* The neighbour's address on `link` through which `destination` is reached: itself or the gateway. None: no route. */
struct ip route_next_hop(const struct link *link, struct ip destination);
/* May a single host have it? */
bool route_is_host(struct ip address);
/* The broadcast address of one of the link's IPv4 prefixes, or the network itself? */
bool route_is_broadcast(const struct link *link, struct ip address);
/* The address of ours that a neighbour is asked from: one of the same prefix, so that it answers. */
struct ip route_source(const struct link *link, struct ip neighbour);

/* An address that nobody can have. */
#define PAIR_EMPTY ((struct ip){UINT64_MAX, UINT64_MAX})

/* The place of a pair. The addresses are the table's key too: whoever makes two pairs share a place makes them slower, no more. */
static inline struct pair *pair_at(struct net *net, struct ip local, struct ip remote) {
    uint64_t mixed = (local.low ^ remote.low ^ (remote.high + local.high) * 3) * 0x9e3779b97f4a7c15u;
    return &net->pairs[mixed >> 54];
}

static inline bool pair_is(const struct pair *pair, struct ip local, struct ip remote) {
    return ip_same(pair->remote, remote) && ip_same(pair->local, local);
}

/* transmit.c */
uint8_t transmit_ethernet(const struct link *link, uint8_t *header, const uint8_t mac[6], uint16_t ethertype);
/* `fragment`: DF, or what a fragment says. */
void transmit_ipv4(uint8_t *header, uint8_t protocol, uint32_t payload_bytes, struct ip source, struct ip destination,
                   uint16_t identification, uint16_t fragment);
void transmit_ipv6(uint8_t *header, uint8_t protocol, uint32_t payload_bytes, struct ip source, struct ip destination, uint8_t hop_limit,
                   uint32_t flow_label);
/* RFC 6864, RFC 7739: unlike the last ones to this destination, and not to be guessed from those to another. */
uint32_t transmit_identification(struct net *net, struct ip source, struct ip destination);

/* reply.c: an ICMP message of ICMP_BYTES and `data` back to who sent `in`, to the MAC that it came from: nothing is learned and nobody is
 * asked for. In fragments where it is longer than the link. */
int reply_send(const struct received *in, uint8_t protocol, const uint8_t icmp[ICMP_BYTES], const uint8_t *data, uint32_t length);

/* resolve.c: what ARP and Neighbour Discovery have in common. */
void resolve_ask(struct net *net, struct link *link, const struct neighbour *neighbour);
/* `mac` says that it has the neighbour's address. `solicited`: it said so to us, in answer or in asking us something. */
void resolve_hear(const struct received *in, struct ip address, const uint8_t mac[6], bool solicited);
void resolve_conflict(const struct received *in, struct ip address, const uint8_t mac[6]);
uint64_t resolve_poll_announce(struct net *net, struct link *link);

/* arp.c, nd.c: `claim` announces an address of ours to the link; `probe`: only asks who has it. */
void arp_input(const struct received *in);
void arp_ask(struct net *net, struct link *link, const struct neighbour *neighbour);
void arp_claim(struct net *net, struct link *link, struct ip address, bool probe);
void nd_input(const struct received *in);
void nd_ask(struct net *net, struct link *link, const struct neighbour *neighbour);
void nd_claim(struct net *net, struct link *link, struct ip address, bool probe);

/* mld.c: tells the link's switches and routers which groups we listen to. */
void mld_report(struct net *net, struct link *link);
void mld_query(const struct received *in);

/* address.c: for us, and from someone who may say so; otherwise dropped and counted. */
bool net_addresses_pass(const struct received *in);
bool net_source_pass(const struct received *in);

/* ipv4.c, ipv6.c, segment.c, icmp.c, icmp6.c */
void ipv4_input(struct received *in);
void ipv6_input(struct received *in);
void segment_input(const struct received *in);
void icmp_input(const struct received *in);
void icmp6_input(const struct received *in);
/* The sum of the pseudo-header and of what `in` holds: 0xffff complemented to 0 where the checksum is right. */
bool net_checksum_right(const struct received *in, uint8_t protocol);
/* A fragment: false while its datagram is not whole; then `in` holds the datagram's payload. *protocol: the first header in it. */
bool net_reassembled(struct received *in, uint32_t identification, uint32_t offset, bool more, uint8_t *protocol);

#endif
