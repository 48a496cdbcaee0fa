/* datagram.h: between the stack's segments and the IP packets that packetdrill shows and injects. */
#ifndef TESTS_PACKETDRILL_DATAGRAM_H
#define TESTS_PACKETDRILL_DATAGRAM_H

#include "dataplane/tcp/tcp.h"

enum { DATAGRAM_BYTES_MAX = 65535 };

/* Writes the segment as an IPv4 or IPv6 packet with right checksums; returns its length. `bytes` holds DATAGRAM_BYTES_MAX. */
uint32_t datagram_write(uint8_t *bytes, const struct tcp_segment *segment);

enum datagram_kind { DATAGRAM_TCP, DATAGRAM_ERROR, DATAGRAM_OTHER };
/* What an injected packet is. TCP: `packet` is filled and refers to `bytes`. ERROR: an ICMP message about a segment of ours. */
struct datagram_error {
    struct tcp_address local, remote;
    uint16_t local_port, remote_port;
    uint32_t sequence;
    bool hard;
    uint16_t mtu;
};
enum datagram_kind datagram_read(const uint8_t *bytes, uint32_t length, struct tcp_packet *packet, struct datagram_error *error);

#endif
