/* frame.h: what net hands to a port. No DPDK here: only port/ builds mbufs, so net, tcp and everything above run without a device. */
#ifndef DATAPLANE_PORT_FRAME_H
#define DATAPLANE_PORT_FRAME_H

#include "dataplane/tcp/tcp.h"
#include <stdbool.h>
#include <stdint.h>

enum { FRAME_HEADER_BYTES_MAX = 128 };

/* One frame to send: link, network and transport headers made ready, and the payload as pieces. Checksums: net writes the IPv4 header's;
 * the L4 checksum field holds the pseudo-header's sum (not complemented, as devices want it) and the port finishes it, in the device or in
 * software in the same pass as the copy. With segment_bytes the IP length and that sum are those of the whole payload; a device that wants
 * the length left out of the sum gets it from the port. */
struct frame {
    const uint8_t *header;
    uint16_t header_length;
    uint8_t l2_length; /* Ethernet with VLAN tag if any */
    uint8_t l3_length; /* IPv4 or IPv6 with extension headers; 0: not IP (ARP) */
    uint8_t l4_length;
    uint8_t family;            /* 4 or 6, 0 for not IP */
    uint8_t l4_protocol;       /* 6 TCP; 0: net has finished every checksum itself (ARP, ICMP) */
    bool by_reference_allowed; /* false: the payload must be copied (DESIGN.md section 4) */
    uint8_t piece_count;
    uint16_t payload_length;
    uint16_t
        segment_bytes; /* less than payload_length: the device splits the payload so (TSO; port.h says whether it can). 0: one segment */
    const struct tcp_piece *pieces;
};

#endif
