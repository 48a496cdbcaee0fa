/* net.h: Ethernet, ARP and Neighbour Discovery, IPv4 and IPv6, ICMP of one worker: between the ports and TCP. Every worker keeps its own
 * neighbour table. */
#ifndef DATAPLANE_NET_NET_H
#define DATAPLANE_NET_NET_H

#include "dataplane/port/port.h"
#include "dataplane/tcp/tcp.h"
#include <stdint.h>

struct net;

enum { NET_INTERFACES_MAX = PORTS_MAX, NET_ADDRESSES_MAX = 256, NET_MORE_QUEUES_MAX = 15, NET_CONFLICT_INTERVAL_US = 10000000 };

struct net_address {
    struct tcp_address address;
    uint8_t prefix_length;
};

struct net_interface {
    struct port_queue *queue;
    /* A server on one core for all queues of a device (bypost-sink): the others, each received from; a segment leaves on the queue that
     * `rss` (may be NULL: on the one that it answers, else the first) gives for its own addresses and ports, as a NIC at the other end
     * would choose. */
    uint32_t more_queue_count;
    struct port_queue *more_queues[NET_MORE_QUEUES_MAX];
    const struct port_rss *rss;
    uint8_t mac[6];
    uint16_t mtu;
    uint16_t vlan; /* 0: untagged */
    uint32_t address_count;
    /* With any IPv6 address the interface also answers for fe80:: of its MAC (RFC 4291 2.5.6): Neighbour Discovery and ping, no TCP. */
    struct net_address addresses[NET_ADDRESSES_MAX];
    /* family 0: none. gateway6 may be link-local. Router advertisements are not followed. */
    struct tcp_address gateway, gateway6;
};

/* What went by without reaching TCP, and why. Each drop is also one of counters.frames_bad. */
struct net_counters {
    uint64_t ignored; /* another VLAN, protocol or host: ordinary on a shared link */
    uint64_t bad_ethernet, bad_arp, bad_nd, bad_ipv4, bad_ipv6, bad_tcp, bad_icmp; /* lengths or fields that cannot be; icmp: both */
    uint64_t bad_ipv4_checksum, bad_tcp_checksum, bad_icmp_checksum;
    uint64_t bad_source;          /* dropped: a source that no sender may have, or one of ours */
    uint64_t ipv4_options;        /* dropped: source routes, or options that cannot be */
    uint64_t ipv6_extensions;     /* dropped: routing headers that want more hops, options that say so, too many or damaged headers */
    uint64_t fragments;           /* received */
    uint64_t fragments_bad;       /* dropped, with the whole datagram: overlapping, too long, or not what a sender makes (RFC 5722) */
    uint64_t fragments_limited;   /* dropped: more than the rate, or than one source may have open */
    uint64_t reassembled;         /* datagrams made whole */
    uint64_t reassembly_timeouts; /* datagrams given up after REASSEMBLY_TIMEOUT_US */
    uint64_t reassembly_evicted;  /* datagrams given up for newer ones: the pool was full */
    uint64_t echo_replies, echo_limited;
    uint64_t icmp_errors;                         /* given to tcp_input_error */
    uint64_t arp_requests, arp_replies;           /* sent */
    uint64_t nd_solicitations, nd_advertisements; /* sent */
    uint64_t mld_reports;                         /* sent */
    uint64_t neighbours_failed;                   /* did not answer ARP or Neighbour Discovery */
    uint64_t neighbour_claims;                    /* another MAC claimed a neighbour's address: verified, not believed */
    uint64_t address_conflicts;                   /* another host uses or wants an address of ours (RFC 5227, RFC 4862) */
    uint64_t frames_waited, frames_wait_dropped;  /* for a neighbour's answer */
    uint64_t unreachable;                         /* net_transmit refused: no route, or the neighbour had not answered */
};

struct net_config {
    uint32_t interface_count;
    struct net_interface interfaces[NET_INTERFACES_MAX];
    uint32_t worker, workers;
    /* Local ports are divided between the workers: worker w owns [port_first + w * span, + span). A TCP segment or an ICMP error for
     * another worker's port is handed over. Where the interface's `rss` hashes, that says whose an ICMP error is, and a segment that came
     * here is ours until TCP says otherwise (tcp_config.unknown). */
    uint16_t port_first, port_span; /* span 0: every port is ours */
    uint8_t secret[16];             /* for flow labels, identifications and the neighbour tables; all zero: net draws one itself */
    struct counters *counters;
    /* May be NULL: another host answers for `address`, an address of ours, with `mac`. At most once in NET_CONFLICT_INTERVAL_US. */
    void (*conflict)(void *conflict_user, uint32_t interface, const struct tcp_address *address, const uint8_t mac[6]);
    void *conflict_user;
};

/* NULL with errno: EINVAL (an address twice, a prefix too long, a gateway that is on no link, IPv6 on a link with an MTU below 1280),
 * ENOMEM. Copies the config; `rss` must live as long as the net. Several interfaces may share a queue when their VLANs differ. */
struct net *net_create(const struct net_config *config, uint64_t now_us);
void net_destroy(struct net *net);
const struct net_counters *net_counters(const struct net *net);
/* The stack is made after net, because its transmit goes through it. */
void net_attach(struct net *net, struct tcp_stack *stack);
/* tcp_config.transmit: `network` is the struct net. The interface is the one that has segment->local. Next hop: on-link or the gateway
 * of that family. While the neighbour has not answered the first few frames for it are kept (copied); 0 then. -EHOSTUNREACH without a
 * route or after the neighbour has failed; -EAGAIN when the device is full, when enough frames wait, or when one would have to wait that
 * the device is to split. */
int net_transmit(void *network, const struct tcp_segment *segment);
/* Receives bursts of every interface and gives them to ARP, ND, ICMP and TCP. Returns frames handled. */
uint32_t net_receive(struct net *net, uint64_t now_us);
/* tcp_config.choose_ports and tcp_config.unknown (TCP.md "Steering active opens"): by the device's key and table where it hashes;
 * false where it does not. `network` is the struct net. */
bool net_choose_ports(void *network, const struct tcp_address *local, const struct tcp_address *remote, uint16_t remote_port,
                      uint64_t random, uint32_t attempt, struct tcp_port_choice *choice);
bool net_unknown(void *network, const struct tcp_packet *packet);
/* Asks again, ages neighbours, gives up half datagrams, flushes ports. Returns when it wants to be called again (absolute us), or
 * UINT64_MAX. */
uint64_t net_poll(struct net *net, uint64_t now_us);
/* One frame, as net_receive does for each: for tests and fuzzing without a device. */
void net_input(struct net *net, uint32_t interface, const uint8_t *frame, uint32_t length, uint64_t now_us);

#endif
