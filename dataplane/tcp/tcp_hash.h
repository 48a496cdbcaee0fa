/* tcp_hash.h: SipHash over whole 64-bit words, keyed, for the tables (1-3: fast) and for what a stranger must not guess (2-4). */
#ifndef DATAPLANE_TCP_TCP_HASH_H
#define DATAPLANE_TCP_TCP_HASH_H

#include <stdint.h>
#include <string.h>

struct tcp_hash_key {
    uint64_t words[2];
};

static inline uint64_t tcp_rotate_left(uint64_t value, unsigned bits) {
    return (value << bits) | (value >> (64 - bits));
}

static inline void tcp_siphash_round(uint64_t v[4]) {
    v[0] += v[1];
    v[1] = tcp_rotate_left(v[1], 13) ^ v[0];
    v[0] = tcp_rotate_left(v[0], 32);
    v[2] += v[3];
    v[3] = tcp_rotate_left(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = tcp_rotate_left(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = tcp_rotate_left(v[1], 17) ^ v[2];
    v[2] = tcp_rotate_left(v[2], 32);
}

/* The message is `count` words; the length byte of the specification is count * 8. */
static inline uint64_t tcp_siphash(const struct tcp_hash_key *key, const uint64_t *words, unsigned count, unsigned rounds,
                                   unsigned final_rounds) {
    uint64_t v[4] = {key->words[0] ^ 0x736f6d6570736575ULL, key->words[1] ^ 0x646f72616e646f6dULL, key->words[0] ^ 0x6c7967656e657261ULL,
                     key->words[1] ^ 0x7465646279746573ULL};
    for (unsigned i = 0; i <= count; i++) {
        uint64_t word = i < count ? words[i] : (uint64_t)count << 59;
        v[3] ^= word;
        for (unsigned r = 0; r < rounds; r++) {
            tcp_siphash_round(v);
        }
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for (unsigned r = 0; r < final_rounds; r++) {
        tcp_siphash_round(v);
    }
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static inline uint64_t tcp_hash_fast(const struct tcp_hash_key *key, const uint64_t *words, unsigned count) {
    return tcp_siphash(key, words, count, 1, 3);
}

static inline uint64_t tcp_hash_strong(const struct tcp_hash_key *key, const uint64_t *words, unsigned count) {
    return tcp_siphash(key, words, count, 2, 4);
}

/* Packs addresses and ports into words and returns their number: 2 for IPv4, 5 for IPv6. */
static inline unsigned tcp_tuple_words(uint64_t words[5], const uint8_t local[16], const uint8_t remote[16], uint8_t family,
                                       uint16_t local_port, uint16_t remote_port) {
    uint64_t ports = (uint64_t)family << 32 | (uint64_t)local_port << 16 | remote_port;
    if (family == 4) {
        uint32_t halves[2];
        memcpy(&halves[0], local, 4);
        memcpy(&halves[1], remote, 4);
        words[0] = (uint64_t)halves[0] << 32 | halves[1];
        words[1] = ports;
        return 2;
    }
    memcpy(&words[0], local, 16);
    memcpy(&words[2], remote, 16);
    words[4] = ports;
    return 5;
}

#endif
