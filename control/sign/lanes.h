/* lanes.h: eight RSA-2048 private-key operations at once (RFC 8017 5.2.1, RSASP1 by CRT), any mix of keys, a lane each. Constant time: no
 * branch and no address depends on a key or a digest. Pure: no heap in lanes_sign, no locks, no globals but what the processor can do. */
#ifndef CONTROL_SIGN_LANES_H
#define CONTROL_SIGN_LANES_H

#include <stdbool.h>
#include <stdint.h>

enum { LANES = 8, LANES_BITS = 2048, LANES_BYTES = LANES_BITS / 8, LANES_HALF_BYTES = LANES_BYTES / 2 };

/* Ways to compute: by AVX-512 IFMA, or the same algorithm in plain C (slow; for tests and checkers that know no AVX-512). */
enum lanes_way { LANES_PLAIN, LANES_IFMA };
/* Whether the processor and the kernel have it (CPUID, XCR0). */
bool lanes_can(enum lanes_way way);

/* A private key as the lanes want it: the halves in digits of 52 bits, their Montgomery constants, the public modulus. Immutable, so that
 * threads share it. */
struct lanes_key;
/* Numbers big-endian: n[256], the rest [128]. NULL: not two odd primes of exactly 1024 bits whose product is n, e is not 65537, the CRT
 * values do not belong together, or no memory. Its memory is locked where the limits allow, kept out of core dumps, and wiped when freed.
 */
struct lanes_key *lanes_key_create(const uint8_t *n, uint32_t e, const uint8_t *p, const uint8_t *q, const uint8_t *dp, const uint8_t *dq,
                                   const uint8_t *qinv);
void lanes_key_free(struct lanes_key *key);

/* For each lane with a key: signature = encoded ^ d mod n, both big-endian [256]; `encoded` is the padded message (EMSA-PKCS1-v1_5) and
 * below n. Lanes without (NULL) are left alone. Each signature is raised to e again and compared before it is given out (a fault in a half
 * would give the key away): returns a bit for each lane that is good; a bad lane's signature is zeroed. */
uint32_t lanes_sign(enum lanes_way way, const struct lanes_key *const keys[LANES], const uint8_t encoded[LANES][LANES_BYTES],
                    uint8_t signatures[LANES][LANES_BYTES]);

#endif
