/* wire.h: the fields of frames, read and written byte by byte: frames have no alignment. */
#ifndef DATAPLANE_NET_WIRE_H
#define DATAPLANE_NET_WIRE_H

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
    return (uint16_t)(at[0] << 8 | at[1]);
}

static inline uint32_t wire_get32(const uint8_t *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline uint64_t wire_get64(const uint8_t *at) {
    return (uint64_t)wire_get32(at) << 32 | wire_get32(at + 4);
}

static inline void wire_put16(uint8_t *at, uint16_t value) {
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline void wire_put32(uint8_t *at, uint32_t value) {
    at[0] = (uint8_t)(value >> 24);
    at[1] = (uint8_t)(value >> 16);
    at[2] = (uint8_t)(value >> 8);
    at[3] = (uint8_t)value;
}

static inline void wire_put64(uint8_t *at, uint64_t value) {
    wire_put32(at, (uint32_t)(value >> 32));
    wire_put32(at + 4, (uint32_t)value);
}

#endif
