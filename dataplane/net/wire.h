/* wire.h: the fields of frames, in network byte order at any alignment. */
#ifndef DATAPLANE_NET_WIRE_H
#define DATAPLANE_NET_WIRE_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

enum {
    ETHERNET_BYTES = 14,
    VLAN_TAG_BYTES = 4,
    ETHERTYPE_IPV4 = 0x0800,
    ETHERTYPE_ARP = 0x0806,
    ETHERTYPE_VLAN = 0x8100,
    ETHERTYPE_IPV6 = 0x86dd,
    ARP_BYTES = 28,
    IPV4_BYTES = 20,
    IPV6_BYTES = 40,
    IPV6_FRAGMENT_BYTES = 8,
    TCP_BYTES = 20,
    ICMP_BYTES = 8,
    PROTOCOL_HOP_BY_HOP = 0,
    PROTOCOL_ICMP = 1,
    PROTOCOL_TCP = 6,
    PROTOCOL_ROUTING = 43,
    PROTOCOL_FRAGMENT = 44,
    PROTOCOL_ICMP6 = 58,
    PROTOCOL_DESTINATION_OPTIONS = 60,
    IPV4_MORE_FRAGMENTS = 0x2000,
    IPV4_DONT_FRAGMENT = 0x4000,
    IPV4_OFFSET_MASK = 0x1fff,
    IPV6_MTU_MIN = 1280, /* RFC 8200 section 5: every link carries this much */
};

static inline uint16_t wire_get16(const uint8_t *at) {
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return be16toh(value);
}

static inline uint32_t wire_get32(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return be32toh(value);
}

static inline uint64_t wire_get64(const uint8_t *at) {
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return be64toh(value);
}

static inline void wire_put16(uint8_t *at, uint16_t value) {
    value = htobe16(value);
    memcpy(at, &value, sizeof value);
}

static inline void wire_put32(uint8_t *at, uint32_t value) {
    value = htobe32(value);
    memcpy(at, &value, sizeof value);
}

static inline void wire_put64(uint8_t *at, uint64_t value) {
    value = htobe64(value);
    memcpy(at, &value, sizeof value);
}

#endif
