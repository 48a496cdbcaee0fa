/* address.c: one form for each address, and its place in the lists. */
#include "address.h"

#include <errno.h>
#include <idn2.h>
#include <stdbool.h>
#include <string.h>

int suppress_address(const char *text, size_t length, char out[SUPPRESS_ADDRESS_MAX + 1]) {
    const char *at = memrchr(text, '@', length);
    if (at == NULL || length > SUPPRESS_ADDRESS_MAX || at + 1 == text + length)
        return -EINVAL;
    bool wide = false;
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)text[i];
        if (byte <= ' ' || byte == 127)
            return -EINVAL;
        wide |= byte >= 128 && text + i > at;
        out[i] = byte >= 'A' && byte <= 'Z' ? (char)(byte + 32) : (char)byte;
    }
    out[length] = '\0';
    if (!wide)
        return (int)length;
    size_t local = (size_t)(at + 1 - text);
    char *labels = NULL;
    if (idn2_to_ascii_8z(out + local, &labels, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) != IDN2_OK)
        return -EINVAL;
    size_t domain = strlen(labels);
    bool fits = domain > 0 && local + domain <= SUPPRESS_ADDRESS_MAX;
    if (fits)
        memcpy(out + local, labels, domain + 1);
    idn2_free(labels);
    return fits ? (int)(local + domain) : -EINVAL;
}

static uint32_t rotate(uint32_t word, int bits) {
    return word << bits | word >> (32 - bits);
}

/* One block of SHA-1 (FIPS 180-4 6.1.2). */
static void sha1_block(uint32_t state[5], const uint8_t block[64]) {
    uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 80; i++)
        w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 ? b ^ c ^ d : i < 60 ? (b & c) | (b & d) | (c & d) : b ^ c ^ d;
        static const uint32_t constants[] = {0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6};
        uint32_t next = rotate(a, 5) + f + e + constants[i / 20] + w[i];
        e = d;
        d = c;
        c = rotate(b, 30);
        b = a;
        a = next;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
}

uint32_t suppress_address_hash(const char *address, size_t length) {
    uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    uint8_t block[64];
    size_t at = 0;
    for (; length - at >= sizeof(block); at += sizeof(block))
        sha1_block(state, (const uint8_t *)address + at);
    memset(block, 0, sizeof(block));
    memcpy(block, address + at, length - at);
    block[length - at] = 0x80;
    if (length - at >= 56) {
        sha1_block(state, block);
        memset(block, 0, sizeof(block));
    }
    for (int i = 0; i < 8; i++)
        block[63 - i] = (uint8_t)((uint64_t)length * 8 >> (8 * i));
    sha1_block(state, block);
    return state[0];
}
