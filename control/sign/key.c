/* key.c: one private key of DKIM: read from PEM (PKCS#1 or PKCS#8), which says itself what it is, decoded for a thread, wiped. */
#include "keys.h"
#include "secret.h"

#include <wolfssl/wolfcrypt/asn_public.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KEY_FILE_MAX = 16384 };

const char *dkim_algorithm_text(enum dkim_algorithm algorithm) {
    return algorithm == DKIM_ED25519 ? "ed25519" : "rsa";
}

static int rsa_decode(const struct dkim_key *key, RsaKey *rsa) {
    word32 at = 0;
    if (wc_InitRsaKey(rsa, NULL) != 0)
        return -EINVAL;
    if (wc_RsaPrivateKeyDecode(key->der, &at, rsa, key->der_length) == 0)
        return 0;
    wc_FreeRsaKey(rsa);
    return -EINVAL;
}

/* The public key is made from the private one, even where the file has it: signing with another's would give the private key away. */
static int ed25519_decode(const struct dkim_key *key, ed25519_key *ed25519) {
    word32 at = 0;
    uint8_t in_file[ED25519_PUB_KEY_SIZE], public_key[ED25519_PUB_KEY_SIZE], seed[ED25519_KEY_SIZE];
    word32 in_file_length = sizeof(in_file), seed_length = sizeof(seed);
    if (wc_ed25519_init(ed25519) != 0)
        return -EINVAL;
    bool good = wc_Ed25519PrivateKeyDecode(key->der, &at, ed25519, key->der_length) == 0;
    bool has_public = good && ed25519->pubKeySet && wc_ed25519_export_public(ed25519, in_file, &in_file_length) == 0;
    good = good && wc_ed25519_export_private_only(ed25519, seed, &seed_length) == 0 &&
           wc_ed25519_make_public(ed25519, public_key, sizeof(public_key)) == 0 &&
           wc_ed25519_import_private_key(seed, sizeof(seed), public_key, sizeof(public_key), ed25519) == 0 &&
           (!has_public || memcmp(in_file, public_key, sizeof(public_key)) == 0);
    explicit_bzero(seed, sizeof(seed));
    if (good)
        return 0;
    wc_ed25519_free(ed25519);
    return -EINVAL;
}

int dkim_key_decode(const struct dkim_key *key, struct dkim_private *out) {
    out->algorithm = key->algorithm;
    int result = key->algorithm == DKIM_ED25519 ? ed25519_decode(key, &out->ed25519) : rsa_decode(key, &out->rsa);
    secret_wipe_traces(SECRET_STACK_BYTES);
    return result;
}

void dkim_private_free(struct dkim_private *key) {
    if (key->algorithm == DKIM_ED25519)
        wc_ed25519_free(&key->ed25519);
    else
        wc_FreeRsaKey(&key->rsa);
    explicit_bzero(key, sizeof(*key));
}

/* Reads a whole file; the length, or -errno. *mode is the file's. */
static int read_file(const char *path, uint8_t *bytes, size_t room, unsigned *mode) {
    size_t length = 0;
    struct stat about;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int result = fstat(fd, &about) < 0 ? -errno : 0;
    if (result == 0)
        *mode = about.st_mode & 0777;
    while (result == 0 && length < room) {
        ssize_t got = read(fd, bytes + length, room - length);
        if (got == 0)
            break;
        if (got > 0)
            length += (size_t)got;
        else if (errno != EINTR)
            result = -errno;
    }
    close(fd);
    return result < 0 ? result : length == room ? -EFBIG : (int)length;
}

/* Finds out what kind of key the DER holds. */
static bool key_recognise(struct dkim_key *key) {
    struct dkim_private *decoded = secret_alloc(sizeof(*decoded));
    bool known = false;
    for (int i = 0; decoded != NULL && !known && i < 2; i++) {
        key->algorithm = i == 0 ? DKIM_RSA : DKIM_ED25519;
        known = dkim_key_decode(key, decoded) == 0;
    }
    if (known) {
        key->bits = key->algorithm == DKIM_ED25519 ? ED25519_KEY_SIZE * 8 : (uint32_t)wc_RsaEncryptSize(&decoded->rsa) * 8;
        dkim_private_free(decoded);
    }
    secret_free(decoded, sizeof(*decoded));
    return known;
}

int dkim_key_read(const char *path, struct dkim_key *key, unsigned *mode, char *error, size_t error_bytes) {
    uint8_t pem[KEY_FILE_MAX], der[KEY_FILE_MAX];
    int length = read_file(path, pem, sizeof(pem) - 1, mode), der_length = -1;
    if (length < 0) {
        explicit_bzero(pem, sizeof(pem));
        snprintf(error, error_bytes, "%s: cannot read the DKIM key: %s. Make one with `bypost dkim keygen`, or correct the path.", path,
                 strerror(-length));
        return length;
    }
    pem[length] = '\0';
    if (strstr((const char *)pem, "ENCRYPTED") == NULL)
        der_length = wc_KeyPemToDer(pem, length, der, (int)sizeof(der), NULL);
    explicit_bzero(pem, sizeof(pem));
    if (der_length > 0 && (key->der = secret_alloc((size_t)der_length)) != NULL) {
        memcpy(key->der, der, (size_t)der_length);
        key->der_length = (uint32_t)der_length;
    }
    explicit_bzero(der, sizeof(der));
    secret_wipe_traces(SECRET_STACK_BYTES);
    if (key->der == NULL || !key_recognise(key)) {
        dkim_key_free(key);
        snprintf(error, error_bytes,
                 "%s: this is no unencrypted RSA or Ed25519 private key in PEM (PKCS#1 or PKCS#8). Make one with `bypost dkim keygen`.",
                 path);
        return -EINVAL;
    }
    if (key->algorithm == DKIM_RSA && (key->bits < DKIM_RSA_BITS_MIN || key->bits > DKIM_RSA_BITS_MAX)) {
        snprintf(error, error_bytes, "%s: an RSA key of %u bits; DKIM takes %d to %d (RFC 8301 3.2). Make one of 2048.", path, key->bits,
                 DKIM_RSA_BITS_MIN, DKIM_RSA_BITS_MAX);
        dkim_key_free(key);
        return -EINVAL;
    }
    return 0;
}

/* The numbers of an RSA key as the lanes take them. */
struct lanes_numbers {
    struct dkim_private decoded;
    uint8_t n[LANES_BYTES], p[LANES_HALF_BYTES], q[LANES_HALF_BYTES], dp[LANES_HALF_BYTES], dq[LANES_HALF_BYTES], qinv[LANES_HALF_BYTES];
    uint8_t e[4];
};

/* NULL: a key of another size or exponent, or primes of two sizes: wolfCrypt's. */
static struct lanes_key *lanes_make(struct lanes_numbers *numbers) {
    RsaKey *rsa = &numbers->decoded.rsa;
    const struct {
        mp_int *number;
        uint8_t *bytes;
        int length;
    } parts[] = {{&rsa->n, numbers->n, LANES_BYTES},        {&rsa->e, numbers->e, sizeof(numbers->e)},
                 {&rsa->p, numbers->p, LANES_HALF_BYTES},   {&rsa->q, numbers->q, LANES_HALF_BYTES},
                 {&rsa->dP, numbers->dp, LANES_HALF_BYTES}, {&rsa->dQ, numbers->dq, LANES_HALF_BYTES},
                 {&rsa->u, numbers->qinv, LANES_HALF_BYTES}};
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (mp_unsigned_bin_size(parts[i].number) > parts[i].length ||
            mp_to_unsigned_bin_len(parts[i].number, parts[i].bytes, parts[i].length) != MP_OKAY)
            return NULL;
    uint32_t e = (uint32_t)numbers->e[0] << 24 | (uint32_t)numbers->e[1] << 16 | (uint32_t)numbers->e[2] << 8 | numbers->e[3];
    return lanes_key_create(numbers->n, e, numbers->p, numbers->q, numbers->dp, numbers->dq, numbers->qinv);
}

/* Does what it signs verify? Signatures of messages are not verified each. */
static bool ed25519_verifies(ed25519_key *key) {
    static const uint8_t text[] = "bypost";
    uint8_t signature[ED25519_SIG_SIZE];
    word32 length = sizeof(signature);
    int good = 0;
    return wc_ed25519_sign_msg(text, sizeof(text), signature, &length, key) == 0 &&
           wc_ed25519_verify_msg(signature, length, text, sizeof(text), &good, key) == 0 && good == 1;
}

/* The same, and is the exponent one (RFC 8017 3.1)? One of 1 signs and verifies, too. */
static bool rsa_verifies(RsaKey *key) {
    uint8_t text[WC_SHA256_DIGEST_SIZE] = "bypost", signature[DKIM_RSA_BITS_MAX / 8], plain[DKIM_RSA_BITS_MAX / 8];
    WC_RNG rng;
    if (mp_count_bits(&key->e) < 2 || mp_iseven(&key->e) || wc_InitRng(&rng) != 0)
        return false;
    int length = wc_RsaSetRNG(key, &rng) == 0 ? wc_RsaSSL_Sign(text, sizeof(text), signature, sizeof(signature), key, &rng) : -1;
    bool good = length > 0 && wc_RsaSSL_Verify(signature, (word32)length, plain, sizeof(plain), key) == (int)sizeof(text) &&
                memcmp(plain, text, sizeof(text)) == 0;
    wc_FreeRng(&rng);
    explicit_bzero(signature, sizeof(signature)); /* of a key whose halves are wrong it would tell the key */
    return good;
}

static int ed25519_prepare(struct dkim_key *key) {
    key->decoded = secret_alloc(sizeof(*key->decoded));
    int result = key->decoded == NULL ? -ENOMEM : dkim_key_decode(key, key->decoded);
    if (result == 0) {
        if (ed25519_verifies(&key->decoded->ed25519))
            return 0;
        dkim_private_free(key->decoded);
        result = -EINVAL;
    }
    secret_free(key->decoded, sizeof(*key->decoded));
    key->decoded = NULL;
    return result;
}

/* Those of the lanes have been checked by them. */
static int rsa_prepare(struct dkim_key *key) {
    struct lanes_numbers *numbers = secret_alloc(sizeof(*numbers));
    int result = numbers == NULL ? -ENOMEM : dkim_key_decode(key, &numbers->decoded);
    if (result == 0) {
        key->lanes = key->bits == LANES_BITS ? lanes_make(numbers) : NULL;
        result = key->lanes != NULL || rsa_verifies(&numbers->decoded.rsa) ? 0 : -EINVAL;
        dkim_private_free(&numbers->decoded);
    }
    secret_free(numbers, sizeof(*numbers));
    return result;
}

int dkim_key_prepare(struct dkim_key *key) {
    int result = key->algorithm == DKIM_ED25519 ? ed25519_prepare(key) : rsa_prepare(key);
    secret_wipe_traces(SECRET_STACK_BYTES);
    return result;
}

void dkim_key_free(struct dkim_key *key) {
    free(key->domain);
    free(key->selector);
    free(key->tenant);
    secret_free(key->der, key->der_length);
    if (key->lanes != NULL)
        lanes_key_free(key->lanes);
    if (key->decoded != NULL)
        dkim_private_free(key->decoded);
    secret_free(key->decoded, sizeof(*key->decoded));
    *key = (struct dkim_key){.order = key->order};
}
