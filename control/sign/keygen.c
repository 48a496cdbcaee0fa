/* keygen.c: new DKIM keys, and the DNS record that belongs to a key (RFC 6376 3.6.1). */
#include "keys.h"
#include "secret.h"
#include "control/render/encode.h"

#include <wolfssl/wolfcrypt/asn.h>
#include <wolfssl/wolfcrypt/asn_public.h>
#include <wolfssl/wolfcrypt/random.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KEY_DER_MAX = 8192, KEY_PEM_MAX = 16384 };

/* PKCS#8 around an Ed25519 seed (RFC 8410 7). */
static const uint8_t ed25519_pkcs8[] = {0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20};

/* p= is the SubjectPublicKeyInfo of an RSA key (RFC 6376 3.6.1), the bare key of an Ed25519 one (RFC 8463 4). NULL: no memory. */
static char *record_text(struct dkim_private *key) {
    uint8_t der[KEY_DER_MAX];
    char begin[32], *record = NULL;
    word32 raw_length = ED25519_PUB_KEY_SIZE;
    int length = key->algorithm == DKIM_RSA                                       ? wc_RsaKeyToPublicDer(&key->rsa, der, sizeof(der))
                 : wc_ed25519_export_public(&key->ed25519, der, &raw_length) == 0 ? (int)raw_length
                                                                                  : -1;
    size_t used = (size_t)snprintf(begin, sizeof(begin), "v=DKIM1; k=%s; p=", dkim_algorithm_text(key->algorithm));
    if (length > 0 && (record = malloc(used + ((size_t)length + 2) / 3 * 4 + 1)) != NULL) {
        memcpy(record, begin, used);
        used += base64_write(record + used, der, (size_t)length);
        record[used] = '\0';
    }
    return record;
}

/* A new key as PKCS#8, and decoded. Its length, or -1: then *key needs no freeing. */
static int rsa_make(struct dkim_private *key, uint32_t bits, WC_RNG *rng, uint8_t *pkcs8) {
    uint8_t der[KEY_DER_MAX];
    word32 pkcs8_length = KEY_DER_MAX;
    if (wc_InitRsaKey(&key->rsa, NULL) != 0)
        return -1;
    int length = wc_MakeRsaKey(&key->rsa, (int)bits, WC_RSA_EXPONENT, rng) == 0 ? wc_RsaKeyToDer(&key->rsa, der, sizeof(der)) : -1;
    if (length > 0)
        length = wc_CreatePKCS8Key(pkcs8, &pkcs8_length, der, (word32)length, RSAk, NULL, 0);
    explicit_bzero(der, sizeof(der));
    if (length > 0)
        return (int)pkcs8_length;
    wc_FreeRsaKey(&key->rsa);
    return -1;
}

static int ed25519_make(struct dkim_private *key, WC_RNG *rng, uint8_t *pkcs8) {
    word32 seed_length = ED25519_KEY_SIZE;
    if (wc_ed25519_init(&key->ed25519) != 0)
        return -1;
    memcpy(pkcs8, ed25519_pkcs8, sizeof(ed25519_pkcs8));
    if (wc_ed25519_make_key(rng, ED25519_KEY_SIZE, &key->ed25519) == 0 &&
        wc_ed25519_export_private_only(&key->ed25519, pkcs8 + sizeof(ed25519_pkcs8), &seed_length) == 0)
        return (int)(sizeof(ed25519_pkcs8) + seed_length);
    wc_ed25519_free(&key->ed25519);
    return -1;
}

/* A new file of mode 0600. 0, or -errno; what was begun is removed. */
static int write_new(const char *path, const uint8_t *bytes, size_t length) {
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600), result = 0;
    if (fd < 0)
        return -errno;
    for (size_t at = 0; at < length && result == 0;) {
        ssize_t put = write(fd, bytes + at, length - at);
        if (put >= 0)
            at += (size_t)put;
        else if (errno != EINTR)
            result = -errno;
    }
    if (result == 0 && fsync(fd) < 0)
        result = -errno;
    if (close(fd) < 0 && result == 0)
        result = -errno;
    if (result < 0)
        unlink(path);
    return result;
}

/* What a key needs while it is made: pages that are wiped. */
struct keygen {
    struct dkim_private key;
    uint8_t pkcs8[KEY_DER_MAX], pem[KEY_PEM_MAX];
};

static int make_and_write(struct keygen *keygen, const char *key_path, enum dkim_algorithm algorithm, uint32_t bits, char **record) {
    WC_RNG rng;
    int result = -EIO;
    if (wc_InitRng(&rng) != 0)
        return -EIO;
    keygen->key.algorithm = algorithm;
    int length =
        algorithm == DKIM_RSA ? rsa_make(&keygen->key, bits, &rng, keygen->pkcs8) : ed25519_make(&keygen->key, &rng, keygen->pkcs8);
    if (length > 0) {
        *record = record_text(&keygen->key);
        length = wc_DerToPem(keygen->pkcs8, (word32)length, keygen->pem, sizeof(keygen->pem), PKCS8_PRIVATEKEY_TYPE);
        if (*record != NULL && length > 0)
            result = write_new(key_path, keygen->pem, (size_t)length);
        dkim_private_free(&keygen->key);
    }
    wc_FreeRng(&rng);
    secret_wipe_traces(SECRET_STACK_BYTES);
    return result;
}

int dkim_keygen(const char *key_path, enum dkim_algorithm algorithm, uint32_t bits, char **record, char *error, size_t error_bytes) {
    *record = NULL;
    if (algorithm == DKIM_RSA && (bits < DKIM_RSA_BITS_MIN || bits > DKIM_RSA_BITS_MAX || bits % 512 != 0)) {
        snprintf(error, error_bytes, "%u bits is no size for a DKIM key: take 2048 (1024 to %d, in steps of 512)", bits, DKIM_RSA_BITS_MAX);
        return -EINVAL;
    }
    struct keygen *keygen = secret_alloc(sizeof(*keygen));
    int result = keygen == NULL ? -ENOMEM : make_and_write(keygen, key_path, algorithm, bits, record);
    secret_free(keygen, sizeof(*keygen));
    if (result == -EEXIST)
        snprintf(error, error_bytes, "%s exists already, and a key is never overwritten. Choose another name or move it away.", key_path);
    else if (result < 0)
        snprintf(error, error_bytes,
                 "%s: the key could not be made or written: %s. Name a file in a folder that is there and that this user may write to.",
                 key_path, strerror(-result));
    if (result < 0) {
        free(*record);
        *record = NULL;
    }
    return result;
}

int dkim_public_record(const char *key_path, char **record, char *error, size_t error_bytes) {
    struct dkim_key key = {0};
    unsigned mode;
    *record = NULL;
    int result = dkim_key_read(key_path, &key, &mode, error, error_bytes);
    if (result < 0)
        return result;
    struct dkim_private *decoded = secret_alloc(sizeof(*decoded));
    if (decoded != NULL && dkim_key_decode(&key, decoded) == 0) {
        *record = record_text(decoded);
        dkim_private_free(decoded);
    }
    secret_free(decoded, sizeof(*decoded));
    dkim_key_free(&key);
    if (*record != NULL)
        return 0;
    snprintf(error, error_bytes, "out of memory");
    return -ENOMEM;
}
