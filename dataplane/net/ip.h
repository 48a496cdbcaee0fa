/* ip.h: an address of either family as one value of 16 bytes; an IPv4 address as RFC 4291 2.5.5.2 maps it, which no IPv6 host has. */
#ifndef DATAPLANE_NET_IP_H
#define DATAPLANE_NET_IP_H

#include "dataplane/tcp/tcp.h"
#include "wire.h"

/* Numbers in host order. Both zero: no address (IPv6's "::"). */
struct ip {
    uint64_t high, low;
};

#define IP_MAPPED ((uint64_t)0xffff << 32)
#define IP_NONE   ((struct ip){0, 0})

static inline struct ip ip_from_v4(uint32_t number) {
    return (struct ip){0, IP_MAPPED | number};
}

static inline struct ip ip_from_bytes6(const uint8_t *bytes) {
    return (struct ip){wire_get64(bytes), wire_get64(bytes + 8)};
}

static inline void ip_put6(uint8_t *at, struct ip ip) {
    wire_put64(at, ip.high);
    wire_put64(at + 8, ip.low);
}

static inline bool ip_same(struct ip a, struct ip b) {
    return ((a.high ^ b.high) | (a.low ^ b.low)) == 0;
}

static inline bool ip_is_none(struct ip ip) {
    return (ip.high | ip.low) == 0;
}

static inline bool ip_is_v4(struct ip ip) {
    return ip.high == 0 && ip.low >> 32 == 0xffff;
}

/* The number of an address for which ip_is_v4. */
static inline uint32_t ip_v4(struct ip ip) {
    return (uint32_t)ip.low;
}

static inline bool ip_is_multicast6(struct ip ip) {
    return ip.high >> 56 == 0xff;
}

static inline bool ip_is_link_local(struct ip ip) {
    return ip.high >> 54 == 0xfe80 >> 6;
}

/* IP_NONE for what is no address: another family, or IPv6 bytes that mean an IPv4 address. */
static inline struct ip ip_from(const struct tcp_address *address) {
    if (address->family == 4)
        return ip_from_v4(wire_get32(address->bytes));
    struct ip ip = ip_from_bytes6(address->bytes);
    return address->family != 6 || ip_is_v4(ip) ? IP_NONE : ip;
}

static inline void ip_to(struct ip ip, struct tcp_address *address) {
    if (ip_is_v4(ip)) {
        *address = (struct tcp_address){.family = 4};
        wire_put32(address->bytes, ip_v4(ip));
    } else {
        address->family = 6;
        ip_put6(address->bytes, ip);
    }
}

/* RFC 4291 2.7.1: where a neighbour with this address listens for solicitations. */
static inline struct ip ip_solicited_node(struct ip ip) {
    return (struct ip){(uint64_t)0xff02 << 48, (uint64_t)0x1ff000000 | (ip.low & 0xffffff)};
}

static inline struct ip ip_all_nodes(void) {
    return (struct ip){(uint64_t)0xff02 << 48, 1};
}

/* A quick keyed hash: strangers cannot choose addresses that meet in one bucket, nor guess the result for others. */
static inline uint64_t ip_hash(const uint64_t key[2], struct ip ip) {
    unsigned __int128 product = (unsigned __int128)(ip.high ^ key[0]) * (ip.low ^ key[1]);
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

#endif
