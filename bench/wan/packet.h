/* packet.h: what the forwarder must know of a frame, and what a router answers to one that is too large. */
#ifndef BENCH_WAN_PACKET_H
#define BENCH_WAN_PACKET_H

#include <stdbool.h>
#include <stdint.h>

enum {
    PACKET_ETHERNET_BYTES = 14,
    PACKET_ICMP_BYTES_MAX = PACKET_ETHERNET_BYTES + 1280, /* RFC 4443 3.2: within the minimum MTU */
};

/* Offsets from the frame's first byte. `end` leaves Ethernet's padding out. */
struct packet {
    uint8_t family;       /* 4, 6, or 0: not IP */
    bool housekeeping;    /* ARP, Neighbour Discovery, multicast of the link: which an impaired path does not touch */
    bool dont_fragment;   /* always for IPv6 */
    uint8_t protocol;     /* of the transport header */
    uint32_t l3, payload; /* IP header; first byte after the TCP or UDP header, or after the IP header of other protocols */
    uint32_t end;
};

/* Reads a frame; one that makes no sense is not IP. */
void packet_read(struct packet *packet, const uint8_t *frame, uint32_t length);

/* Bytes of the IP packet: what an MTU limits. */
static inline uint32_t packet_ip_bytes(const struct packet *packet) {
    return packet->family != 0 ? packet->end - packet->l3 : 0;
}

enum packet_part { PACKET_ANY, PACKET_HEADERS, PACKET_PAYLOAD };
/* Flips the bit of that part which `draw` chooses: IP and transport headers, or what follows them. False when the part is empty. */
bool packet_flip(const struct packet *packet, uint8_t *frame, enum packet_part part, uint64_t draw);

/* The router's answer to a packet larger than `mtu`: ICMP destination unreachable, fragmentation needed (RFC 792, 1191) or ICMPv6 packet
 * too big (RFC 4443 3.2), from `router` (4 or 16 bytes), to the frame's sender. `reply` holds PACKET_ICMP_BYTES_MAX. Returns its length, or
 * 0 when the packet must not be answered (ICMP errors, fragments after the first, broadcast). */
uint32_t packet_too_big(const struct packet *packet, const uint8_t *frame, uint16_t mtu, const uint8_t *router, uint8_t *reply);

/* RFC 791: the IPv4 fragment of at most `mtu` bytes that begins at `*offset` (bytes into the IP payload, 0 first) goes to `fragment`, which
 * holds the frame's length; moves *offset on. Returns its length, or 0 when there is none left. */
uint32_t packet_fragment(const struct packet *packet, const uint8_t *frame, uint16_t mtu, uint32_t *offset, uint8_t *fragment);

#endif
