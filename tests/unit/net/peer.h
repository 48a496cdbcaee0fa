/* peer.h: a wire for the tests of net: a port that keeps what is sent, a TCP that keeps what it hears, and frames of a peer. */
#ifndef TESTS_UNIT_NET_PEER_H
#define TESTS_UNIT_NET_PEER_H

#include "dataplane/net/net.h"
#include "dataplane/port/port.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

enum { SENT_MAX = 128, FRAME_MAX = 2048, HEARD_MAX = 9216, SECOND = 1000000 };

#define OUR_IP     0x0a630002u /* 10.99.0.2/24 */
#define PEER_IP    0x0a630009u
#define GATEWAY_IP 0x0a630001u
#define FAR_IP     0xc0000219u /* 192.0.2.25 */

#define OUR_IP6        "2001:db8::2" /* /64 */
#define PEER_IP6       "2001:db8::9"
#define FAR_IP6        "2001:db8:5::25"
#define GATEWAY_IP6    "fe80::1"
#define OUR_LINK_LOCAL "fe80::ff:fe00:2" /* of our_mac */

extern const uint8_t our_mac[6], peer_mac[6], gateway_mac[6], evil_mac[6], broadcast_mac[6];

struct sent {
    uint32_t length;
    uint16_t segment_bytes;
    bool by_reference_allowed;
    uint8_t bytes[FRAME_MAX];
};

/* The port that net sees. */
struct port_queue {
    struct sent sent[SENT_MAX]; /* in order; more than SENT_MAX fails the test */
    uint32_t sent_count;
    bool forget; /* keep nothing, for the mutation test */
    int send_result;
    bool checksum_good, handed_over;
    uint32_t receive_length; /* the next port_receive_ahead gives `receive`, once */
    uint8_t receive[FRAME_MAX];
    uint32_t handed_to[SENT_MAX], handed_count, handed_all_count, flushes;
};

/* What TCP heard last. */
struct heard {
    uint32_t segments, errors;
    struct tcp_packet packet, announced;
    uint32_t announcements; /* the hash of each is its number */
    uint8_t bytes[HEARD_MAX];
    struct tcp_address local, remote;
    uint16_t local_port, remote_port, mtu;
    uint32_t sequence;
    bool hard;
};
extern struct heard heard;
/* tcp_input answers by this net at once, if any. */
extern struct net *answer_from;

struct host {
    struct net *net;
    struct net_config config;
    struct counters counters;
    struct port_queue *queues[2];
    uint32_t conflicts;
    uint8_t conflict_mac[6];
    uint64_t now_us;
};

/* One interface with OUR_IP/24, GATEWAY_IP as gateway, worker 0 of 1. host_open makes the net; change host->config in between. */
struct host *host_new(void);
void host_open(struct host *host);
void host_end(struct host *host);
/* Lets the announcements and the gateway's resolution pass, and forgets them. */
void host_settle(struct host *host);
void host_forget(struct host *host);
/* net_poll every 100 ms for so long. */
void host_wait(struct host *host, uint64_t us);
void host_input(struct host *host, const uint8_t *frame, uint32_t length);

/* The same host with OUR_IP6/64 besides and GATEWAY_IP6. host_settle6 answers for both gateways. */
struct host *host_new6(void);
void host_settle6(struct host *host);

struct tcp_address ip4(uint32_t address);
struct tcp_address ip6(const char *text);
uint16_t sum16(const uint8_t *bytes, uint32_t length, uint32_t start); /* plain RFC 1071, complemented */
/* Each writes a whole frame and returns its length. */
uint32_t make_arp(uint8_t *frame, const uint8_t *to, uint16_t operation, const uint8_t *sender_mac, uint32_t sender, uint32_t target);
uint32_t make_ipv4(uint8_t *frame, uint8_t protocol, uint32_t source, uint32_t destination, const uint8_t *payload, uint32_t length);
uint32_t make_tcp(uint8_t *frame, uint32_t source, uint32_t destination, uint16_t from, uint16_t to, uint32_t payload_bytes);
uint32_t make_echo(uint8_t *frame, uint32_t source, uint32_t destination, uint32_t data_bytes);
/* An ICMP error that quotes a segment from `local`:local_port. */
uint32_t make_icmp_error(uint8_t *frame, uint8_t type, uint8_t code, uint16_t mtu, uint32_t local, uint16_t local_port, uint32_t sequence);
void fix_ipv4(uint8_t *frame); /* header checksum again after a change */
void fix_icmp(uint8_t *frame, uint32_t length);
/* IPv6 from peer_mac to our_mac, or to a group's MAC. `next`: the first header after IPv6's. */
uint32_t make_ipv6(uint8_t *frame, uint8_t next, const char *source, const char *destination, const uint8_t *payload, uint32_t length);
uint32_t make_tcp6(uint8_t *frame, const char *source, const char *destination, uint16_t from, uint16_t to, uint32_t payload_bytes);
uint32_t make_echo6(uint8_t *frame, const char *source, const char *destination, uint32_t data_bytes);
/* An ICMPv6 error that quotes a segment from local:local_port to FAR_IP6:25. */
uint32_t make_icmp6_error(uint8_t *frame, uint8_t type, uint8_t code, uint32_t mtu, const char *local, uint16_t local_port,
                          uint32_t sequence);
/* A solicitation (135) or advertisement (136) with hop limit 255, and a MAC option (1 or 2, 0: none). */
uint32_t make_nd(uint8_t *frame, uint8_t type, uint8_t flags, const char *source, const char *destination, const uint8_t *from_mac,
                 const char *target, uint8_t option, const uint8_t *option_mac);
void fix_icmp6(uint8_t *frame, uint32_t length);
/* Bytes [offset, offset + length) of the payload of a whole frame without extension headers, as a fragment of its own. */
uint32_t make_fragment(uint8_t *frame, const uint8_t *whole, uint32_t whole_length, uint32_t offset, uint32_t length,
                       uint32_t identification);
/* The checksum of a frame's TCP or ICMPv6 (or ICMP) payload: 0 when it is right. */
uint16_t sum_l4(const uint8_t *frame, uint32_t length, uint8_t protocol);
int transmit_payload6(struct host *host, const char *local, const char *remote, const char *payload);
int transmit_payload(struct host *host, uint32_t local, uint32_t remote, const char *payload);

#endif
