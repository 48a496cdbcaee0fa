/* checksum.h: the internet checksum (RFC 1071), over bytes in place and over bytes while they are copied. */
#ifndef DATAPLANE_PORT_CHECKSUM_H
#define DATAPLANE_PORT_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A sum in progress is a plain number of 16-bit words as this machine loads them; the order of the bytes comes right when the folded sum is
 * stored as it was loaded (RFC 1071, byte order independence). 64 bits hold the sum of any frame. */

static inline uint16_t checksum_fold(uint64_t sum) {
    sum = (sum & 0xffffffffu) + (sum >> 32);
    sum = (sum & 0xffffu) + (sum >> 16);
    sum = (sum & 0xffffu) + (sum >> 16);
    sum = (sum & 0xffffu) + (sum >> 16);
    return (uint16_t)sum;
}

/* The sum of bytes[0, length), which begins at an even offset of what is summed. `to`, when not NULL, gets a copy: sum and copy are one
 * pass over the memory. Two lanes of 32-bit halves need no carry, so the compiler makes vectors of the loop. */
static inline uint64_t checksum_pass(uint8_t *to, const uint8_t *bytes, size_t length) {
    uint64_t low[4] = {0}, high[4] = {0};
    while (length >= 32) {
        uint64_t words[4];
        memcpy(words, bytes, sizeof words);
        if (to != NULL) {
            memcpy(to, words, sizeof words);
            to += 32;
        }
        for (unsigned lane = 0; lane < 4; lane++) {
            low[lane] += words[lane] & 0xffffffffu;
            high[lane] += words[lane] >> 32;
        }
        bytes += 32;
        length -= 32;
    }
    uint64_t sum = low[0] + low[1] + low[2] + low[3] + high[0] + high[1] + high[2] + high[3];
    if (to != NULL && length > 0)
        memcpy(to, bytes, length);
    while (length >= 4) {
        uint32_t word;
        memcpy(&word, bytes, sizeof word);
        sum += word;
        bytes += 4;
        length -= 4;
    }
    if (length > 0) {
        uint32_t word = 0;
        memcpy(&word, bytes, length);
        sum += word;
    }
    return sum;
}

static inline uint64_t checksum_add(uint64_t sum, const uint8_t *bytes, size_t length) {
    return sum + checksum_pass(NULL, bytes, length);
}

/* Adds a block that begins at byte `offset` of what is summed: at an odd offset every byte counts in the other half of its word. */
static inline uint64_t checksum_join(uint64_t sum, uint64_t block, size_t offset) {
    if ((offset & 1) != 0) {
        uint16_t folded = checksum_fold(block);
        block = (uint16_t)(folded << 8 | folded >> 8);
    }
    return sum + block;
}

/* The field's value from the finished sum, stored as it is (no htons). */
static inline uint16_t checksum_finish(uint64_t sum) {
    return (uint16_t)~checksum_fold(sum);
}

#endif
