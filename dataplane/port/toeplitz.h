/* toeplitz.h: the hash by which devices spread received frames over their queues (Toeplitz, "Receive Side Scaling"). Pure: no DPDK. */
#ifndef DATAPLANE_PORT_TOEPLITZ_H
#define DATAPLANE_PORT_TOEPLITZ_H

#include "dataplane/port/port.h"
#include <stdint.h>
#include <string.h>

enum {
    PORT_RSS_KEY_DEFAULT_BYTES = 52, /* the longest that a common device asks for */
    PORT_RSS_RETA_DEFAULT = 128,
    TOEPLITZ_TUPLE4_BYTES = 12, /* addresses and ports, as they stand in the headers: source first */
    TOEPLITZ_TUPLE6_BYTES = 36,
    TOEPLITZ_NIBBLES = TOEPLITZ_TUPLE6_BYTES * 2,
};

/* The key of the published verification vectors; its first bytes again beyond the 40 that an IPv6 tuple needs. */
extern const uint8_t PORT_RSS_KEY_DEFAULT[PORT_RSS_KEY_DEFAULT_BYTES];

/* A key made ready: what each half byte at each place adds to the hash. 4.6 KiB stay in the first cache, tables of bytes would not. */
struct toeplitz {
    uint32_t nibbles[TOEPLITZ_NIBBLES][16];
};

/* Key bits beyond key_length count as zero. */
void toeplitz_set_up(struct toeplitz *toeplitz, const uint8_t *key, uint32_t key_length);
/* What a device with PORT_RSS_KEY_DEFAULT and PORT_RSS_RETA_DEFAULT entries, `entry % queues`, would report. */
void toeplitz_rss_default(struct port_rss *rss, uint16_t queues);

/* What `length` bytes at `offset` of the hashed input add to its hash. The hash is linear: the parts of an input are joined by xor.
 * offset + length at most TOEPLITZ_TUPLE6_BYTES. */
static inline uint32_t toeplitz_part(const struct toeplitz *toeplitz, uint32_t offset, const uint8_t *bytes, uint32_t length) {
    const uint32_t(*nibbles)[16] = toeplitz->nibbles + (size_t)2 * offset;
    uint32_t even = 0, odd = 0;
    for (uint32_t i = 0; i < length; i++) {
        even ^= nibbles[2 * i][bytes[i] >> 4];
        odd ^= nibbles[2 * i + 1][bytes[i] & 15];
    }
    return even ^ odd;
}

static inline uint32_t toeplitz_address_bytes(uint8_t family) {
    return family == 4 ? 4 : 16;
}

/* Where the destination port lies in the hashed tuple. */
static inline uint32_t toeplitz_destination_port_offset(uint8_t family) {
    return 2 * toeplitz_address_bytes(family) + 2;
}

static inline uint32_t toeplitz_port_part(const struct toeplitz *toeplitz, uint32_t offset, uint16_t port) {
    uint8_t bytes[2] = {(uint8_t)(port >> 8), (uint8_t)port};
    return toeplitz_part(toeplitz, offset, bytes, sizeof bytes);
}

/* The hash of a TCP frame as it is on the wire; ports in host order. Both addresses of one family. */
static inline uint32_t toeplitz_tuple(const struct toeplitz *toeplitz, const struct tcp_address *source,
                                      const struct tcp_address *destination, uint16_t source_port, uint16_t destination_port) {
    uint32_t address_bytes = toeplitz_address_bytes(source->family);
    return toeplitz_part(toeplitz, 0, source->bytes, address_bytes) ^
           toeplitz_part(toeplitz, address_bytes, destination->bytes, address_bytes) ^
           toeplitz_port_part(toeplitz, 2 * address_bytes, source_port) ^
           toeplitz_port_part(toeplitz, 2 * address_bytes + 2, destination_port);
}

/* The queue of a frame with that hash. rss->hashes holds. */
static inline uint16_t toeplitz_queue(const struct port_rss *rss, uint32_t hash) {
    return rss->reta[hash & (uint32_t)(rss->reta_size - 1)];
}

#endif
