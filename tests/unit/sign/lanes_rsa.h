/* lanes_rsa.h: RSA keys for tests and measurements of the lanes: the same key as wolfSSL's and as the lanes', and its numbers. */
#ifndef TESTS_UNIT_SIGN_LANES_RSA_H
#define TESTS_UNIT_SIGN_LANES_RSA_H

#include "control/sign/lanes.h"

#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/random.h>
#include <wolfssl/wolfcrypt/rsa.h>

#include <stdbool.h>

struct lanes_numbers {
    uint8_t n[LANES_BYTES];
    uint32_t e;
    uint8_t p[LANES_HALF_BYTES], q[LANES_HALF_BYTES], dp[LANES_HALF_BYTES], dq[LANES_HALF_BYTES], qinv[LANES_HALF_BYTES];
};
struct lanes_rsa {
    RsaKey rsa;
    struct lanes_numbers numbers;
    struct lanes_key *key; /* NULL when the lanes do not take it */
};

/* A new key of at most 2048 bits; false when wolfSSL makes none. */
bool lanes_rsa_make(struct lanes_rsa *made, WC_RNG *random, int bits, uint32_t e);
void lanes_rsa_free(struct lanes_rsa *made);
struct lanes_key *lanes_key_from(const struct lanes_numbers *numbers);
/* wolfSSL's own signature and what it opens to; false when it refuses. */
bool lanes_rsa_sign(struct lanes_rsa *made, WC_RNG *random, const uint8_t encoded[LANES_BYTES], uint8_t signature[LANES_BYTES]);
bool lanes_rsa_open(struct lanes_rsa *made, WC_RNG *random, const uint8_t signature[LANES_BYTES], uint8_t opened[LANES_BYTES]);
/* EMSA-PKCS1-v1_5 of a random SHA-256 digest (RFC 8017 9.2). */
bool lanes_random_encoded(WC_RNG *random, uint8_t encoded[LANES_BYTES]);

#endif
