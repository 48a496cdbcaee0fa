/* net.h: Ethernet, ARP, IPv4 and ICMP of one worker: between the ports and TCP. Every worker keeps its own neighbour table. */
#ifndef DATAPLANE_NET_NET_H
#define DATAPLANE_NET_NET_H

#include "dataplane/port/port.h"
#include "dataplane/tcp/tcp.h"
#include <stdint.h>

struct net;

enum { NET_INTERFACES_MAX = PORTS_MAX, NET_ADDRESSES_MAX = 64 };

struct net_address {
    struct tcp_address address;
    uint8_t prefix_length;
};

struct net_interface {
    struct port_queue *queue;
    uint8_t mac[6];
    uint16_t mtu;
    uint16_t vlan; /* 0: untagged */
    uint32_t address_count;
    struct net_address addresses[NET_ADDRESSES_MAX];
    struct tcp_address gateway; /* family 0: none */
};

struct net_config {
    uint32_t interface_count;
    struct net_interface interfaces[NET_INTERFACES_MAX];
    uint32_t worker, workers;
    /* Local ports are divided between the workers: worker w owns [port_first + w * span, + span). A TCP segment or an ICMP error for
     * another worker's port is handed over. */
    uint16_t port_first, port_span;
    struct counters *counters;
};

/* NULL with errno. Copies the config. */
struct net *net_create(const struct net_config *config, uint64_t now_us);
void net_destroy(struct net *net);
/* The stack is made after net, because its transmit goes through it. */
void net_attach(struct net *net, struct tcp_stack *stack);
/* tcp_config.transmit: `network` is the struct net. The interface is the one that has segment->local. Next hop: on-link or the gateway.
 * While ARP is unanswered the newest few frames for that neighbour are kept (copied); 0 then. -EHOSTUNREACH without a route or after
 * ARP has failed; -EAGAIN when the device is full. */
int net_transmit(void *network, const struct tcp_segment *segment);
/* Receives bursts of every interface and gives them to ARP, ICMP and TCP. Returns frames handled. */
uint32_t net_receive(struct net *net, uint64_t now_us);
/* Resends ARP, ages neighbours, flushes ports. Returns when it wants to be called again (absolute us), or UINT64_MAX. */
uint64_t net_poll(struct net *net, uint64_t now_us);
/* One frame, as net_receive does for each: for tests and fuzzing without a device. */
void net_input(struct net *net, uint32_t interface, const uint8_t *frame, uint32_t length, uint64_t now_us);

#endif
