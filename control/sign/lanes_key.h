/* lanes_key.h: a private key in digits of 52 bits, as the lanes load it (lanes.h). */
#ifndef CONTROL_SIGN_LANES_KEY_H
#define CONTROL_SIGN_LANES_KEY_H

#include "lanes.h"
#include "lanes_digits.h"
#include <stdint.h>

/* Exponents are cut into words of 60 bits, which windows of 4 and of 5 divide. */
enum { EXPONENT_WORD_BITS = 60, EXPONENT_WORDS = 18 };
enum { LANES_EXPONENT = 65537 };

struct lanes_half {
    uint64_t prime[HALF_DIGITS];
    uint64_t r2[HALF_DIGITS], r3[HALF_DIGITS]; /* R^2 and R^3 modulo the prime */
    uint64_t exponent[EXPONENT_WORDS];
    uint64_t inverse; /* -1 / prime modulo 2^52 */
};

struct lanes_key {
    struct lanes_half halves[2]; /* of p, of q */
    uint64_t qinv[HALF_DIGITS];  /* R / q modulo p */
    uint64_t modulus[WHOLE_DIGITS];
    uint64_t r2[WHOLE_DIGITS]; /* R^2 modulo n */
    uint64_t inverse;
};

uint32_t lanes_sign_plain(const struct lanes_key *const keys[LANES], const uint8_t encoded[LANES][LANES_BYTES],
                          uint8_t signatures[LANES][LANES_BYTES]);
uint32_t lanes_sign_ifma(const struct lanes_key *const keys[LANES], const uint8_t encoded[LANES][LANES_BYTES],
                         uint8_t signatures[LANES][LANES_BYTES]);

#endif
