/* keys.h: DKIM's private keys, decoded once and shared by all signers, and what they sign of a header. */
#ifndef CONTROL_SIGN_KEYS_H
#define CONTROL_SIGN_KEYS_H

#include "lanes.h"
#include "names.h"
#include "sign.h"

#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/ed25519.h>
#include <wolfssl/wolfcrypt/rsa.h>

enum { DKIM_SIGNATURES_MAX = 4, DKIM_RSA_BITS_MIN = 1024, DKIM_RSA_BITS_WARN = 2048, DKIM_RSA_BITS_MAX = 4096 };

struct dkim_private;

struct dkim_key {
    char *domain, *selector; /* lower case, A-labels */
    char *tenant;            /* "": everyone's */
    enum dkim_algorithm algorithm;
    uint8_t *der; /* PKCS#1 or PKCS#8 */
    uint32_t der_length;
    uint32_t bits;
    struct lanes_key *lanes;      /* an RSA key that the lanes take; else NULL */
    struct dkim_private *decoded; /* an Ed25519 key, which signing only reads; else NULL */
    uint32_t order;               /* in the configuration */
};

struct dkim_keys {
    uint32_t references; /* atomic */
    uint32_t count;
    struct dkim_key *keys; /* by domain and tenant; those of one of them in the order of the configuration. The platform's behind them */
    uint32_t platform_count;
    bool required; /* a From domain without a key is an error */
    uint32_t expire_s;
    struct dkim_names names;
};

/* One more reference; dkim_keys_free drops one. */
struct dkim_keys *dkim_keys_hold(struct dkim_keys *keys);
/* Is there one that the lanes take? */
bool dkim_keys_have_lanes(const struct dkim_keys *keys);

/* The keys that sign for a From domain: the tenant's own, else everyone's, else those of its longest configured parent (DMARC's relaxed
 * alignment, RFC 7489 3.1.1). tenant: NULL for none. Stores where they begin; returns how many, at most DKIM_SIGNATURES_MAX. */
uint32_t dkim_keys_find(const struct dkim_keys *keys, const char *domain, const char *tenant, uint32_t *first);
/* The same, and behind them the platform's keys of other domains than theirs. Stores in chosen[DKIM_SIGNATURES_MAX] and in *own how many
 * are not the platform's; returns how many in all. */
uint32_t dkim_keys_choose(const struct dkim_keys *keys, const char *domain, const char *tenant, const struct dkim_key **chosen,
                          uint32_t *own);

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
/* Makes what signers share of it: the lanes' form of an RSA key, an Ed25519 key decoded. 0; -ENOMEM; or -EINVAL where it does not open
 * what it signs. */
int dkim_key_prepare(struct dkim_key *key);
void dkim_key_free(struct dkim_key *key);

#endif
