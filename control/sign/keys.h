/* keys.h: DKIM's private keys, decoded once and shared by all signers as DER. */
#ifndef CONTROL_SIGN_KEYS_H
#define CONTROL_SIGN_KEYS_H

#include "sign.h"

#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/ed25519.h>
#include <wolfssl/wolfcrypt/rsa.h>

enum { DKIM_SIGNATURES_MAX = 4, DKIM_RSA_BITS_MIN = 1024, DKIM_RSA_BITS_WARN = 2048, DKIM_RSA_BITS_MAX = 4096 };

struct dkim_key {
    char *domain, *selector; /* lower case, A-labels */
    enum dkim_algorithm algorithm;
    uint8_t *der; /* PKCS#1 or PKCS#8 */
    uint32_t der_length;
    uint32_t bits;
    uint32_t order; /* in the configuration */
};

struct dkim_keys {
    uint32_t count;
    struct dkim_key *keys; /* by domain; those of one domain in the order of the configuration */
};

/* The keys that sign for a From domain: its own, else those of its longest configured parent (DMARC's relaxed alignment, RFC 7489 3.1.1).
 * Stores where they begin; returns how many, at most DKIM_SIGNATURES_MAX. */
uint32_t dkim_keys_find(const struct dkim_keys *keys, const char *domain, uint32_t *first);

/* A private key, decoded for one thread. */
struct dkim_private {
    enum dkim_algorithm algorithm;
    union {
        RsaKey rsa;
        ed25519_key ed25519; /* with its public key */
    };
};
/* 0, or -EINVAL. */
int dkim_key_decode(const struct dkim_key *key, struct dkim_private *out);
/* Wipes it. */
void dkim_private_free(struct dkim_private *key);

/* The private key in a file: algorithm, DER and bits of *key, to dkim_key_free; *mode is the file's. 0, or -errno with a sentence in error.
 */
int dkim_key_read(const char *path, struct dkim_key *key, unsigned *mode, char *error, size_t error_bytes);
void dkim_key_free(struct dkim_key *key);

#endif
