/* signing: signatures a second of one core's time by everything that makes them here, one after the other in one process, for
 * bench/signing. The RSA key is the same for all. Prints a line "NAME RATE" for each; "NAME - reason" where one is not to be had.
 *
 * usage: signing [SECONDS of each] [libwolfssl.so of the distribution] */
#include <openssl/evp.h> /* first: wolfSSL's headers define short names as macros */
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "tests/unit/sign/lanes_rsa.h"

#include <wolfssl/wolfcrypt/ed25519.h>

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DIGEST_INFO_BYTES = 51, DIGEST_BYTES = 32, DER_BYTES = 4096, OPAQUE_BYTES = 1 << 18 };

struct bench {
    double seconds;
    WC_RNG random;
    struct lanes_rsa rsa;
    uint8_t der[DER_BYTES];
    uint8_t digest[DIGEST_BYTES];
    uint8_t info[DIGEST_INFO_BYTES]; /* DigestInfo of the digest, which is what PKCS#1 pads */
    uint8_t encoded[LANES][LANES_BYTES], signatures[LANES][LANES_BYTES];
};

static double processor_seconds(void) {
    struct timespec spent;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
    return (double)spent.tv_sec + (double)spent.tv_nsec * 1e-9;
}

/* Runs `sign` for the seconds of processor time; it returns how many signatures it made, 0 when it failed. */
static void measure(struct bench *bench, const char *name, unsigned (*sign)(struct bench *bench, void *context), void *context) {
    if (sign(bench, context) == 0) {
        printf("%s - does not sign\n", name);
        return;
    }
    double from = processor_seconds(), spent = 0;
    unsigned long made = 0;
    while (spent < bench->seconds) {
        made += sign(bench, context);
        spent = processor_seconds() - from;
    }
    printf("%s %.1f\n", name, (double)made / spent);
    fflush(stdout);
}

/* Each is opened with the public key before it is counted. */
static unsigned sign_lanes(struct bench *bench, void *context) {
    const struct lanes_key *keys[LANES];
    for (unsigned lane = 0; lane < LANES; lane++)
        keys[lane] = bench->rsa.key;
    return lanes_sign(LANES_IFMA, keys, bench->encoded, bench->signatures) == (1u << LANES) - 1 ? LANES : 0;
}

static unsigned sign_wolfssl(struct bench *bench, void *context) {
    return wc_RsaSSL_Sign(bench->info, DIGEST_INFO_BYTES, bench->signatures[0], LANES_BYTES, &bench->rsa.rsa, &bench->random) ==
           LANES_BYTES;
}

/* The distribution's wolfSSL beside the bundled one: by its names in a library that keeps its symbols to itself. Its structures have other
 * sizes, which nobody tells: they get room enough. */
struct distribution {
    void *key, *random;
    int (*sign)(const uint8_t *in, word32 in_bytes, uint8_t *out, word32 out_bytes, void *key, void *random);
};

static unsigned sign_distribution(struct bench *bench, void *context) {
    struct distribution *other = context;
    return other->sign(bench->info, DIGEST_INFO_BYTES, bench->signatures[0], LANES_BYTES, other->key, other->random) == LANES_BYTES;
}

static void measure_distribution(struct bench *bench, int der_bytes, const char *path) {
    const char *const names[] = {path != NULL ? path : "libwolfssl.so.35", "libwolfssl.so.42", "libwolfssl.so.43"};
    struct distribution other = {calloc(1, OPAQUE_BYTES), calloc(1, OPAQUE_BYTES), NULL};
    void *library = NULL;
    for (size_t i = 0; library == NULL && i < sizeof(names) / sizeof(names[0]); i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    if (library == NULL || other.key == NULL || other.random == NULL) {
        printf("wolfssl_debian - the distribution's libwolfssl is not installed\n");
    } else {
        int (*start)(void *random) = (int (*)(void *))dlsym(library, "wc_InitRng");
        int (*clear)(void *key, void *heap) = (int (*)(void *, void *))dlsym(library, "wc_InitRsaKey");
        int (*decode)(const uint8_t *der, word32 *at, void *key, word32 bytes) =
            (int (*)(const uint8_t *, word32 *, void *, word32))dlsym(library, "wc_RsaPrivateKeyDecode");
        int (*blind)(void *key, void *random) = (int (*)(void *, void *))dlsym(library, "wc_RsaSetRNG");
        word32 at = 0;
        other.sign = (int (*)(const uint8_t *, word32, uint8_t *, word32, void *, void *))dlsym(library, "wc_RsaSSL_Sign");
        if (start == NULL || clear == NULL || decode == NULL || other.sign == NULL || start(other.random) != 0 ||
            clear(other.key, NULL) != 0 || decode(bench->der, &at, other.key, (word32)der_bytes) != 0 ||
            (blind != NULL && blind(other.key, other.random) != 0))
            printf("wolfssl_debian - it takes no key\n");
        else
            measure(bench, "wolfssl_debian", sign_distribution, &other);
    }
    free(other.key);
    free(other.random);
}

static unsigned sign_openssl(struct bench *bench, void *context) {
    size_t length = LANES_BYTES;
    return EVP_PKEY_sign(context, bench->signatures[0], &length, bench->digest, DIGEST_BYTES) == 1;
}

static void measure_openssl(struct bench *bench, int der_bytes) {
    const uint8_t *at = bench->der;
    EVP_PKEY *key = d2i_AutoPrivateKey(NULL, &at, der_bytes);
    EVP_PKEY_CTX *context = key == NULL ? NULL : EVP_PKEY_CTX_new(key, NULL);
    if (context == NULL || EVP_PKEY_sign_init(context) != 1 || EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_PADDING) != 1 ||
        EVP_PKEY_CTX_set_signature_md(context, EVP_sha256()) != 1)
        printf("openssl_api - it takes no key\n");
    else
        measure(bench, "openssl_api", sign_openssl, context);
    EVP_PKEY_CTX_free(context);
    EVP_PKEY_free(key);
}

static unsigned sign_wolfssl_ed25519(struct bench *bench, void *context) {
    word32 length = ED25519_SIG_SIZE;
    return wc_ed25519_sign_msg(bench->digest, DIGEST_BYTES, bench->signatures[0], &length, context) == 0;
}

static unsigned sign_openssl_ed25519(struct bench *bench, void *context) {
    size_t length = LANES_BYTES;
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    unsigned made = digest != NULL && EVP_DigestSignInit(digest, NULL, NULL, NULL, context) == 1 &&
                    EVP_DigestSign(digest, bench->signatures[0], &length, bench->digest, DIGEST_BYTES) == 1;
    EVP_MD_CTX_free(digest);
    return made;
}

static void measure_ed25519(struct bench *bench) {
    ed25519_key own;
    uint8_t private[ED25519_KEY_SIZE];
    if (wc_ed25519_init(&own) == 0 && wc_ed25519_make_key(&bench->random, ED25519_KEY_SIZE, &own) == 0)
        measure(bench, "ed25519_wolfssl", sign_wolfssl_ed25519, &own);
    wc_ed25519_free(&own);
    if (wc_RNG_GenerateBlock(&bench->random, private, sizeof(private)) != 0)
        return;
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, private, sizeof(private));
    if (key != NULL)
        measure(bench, "ed25519_openssl", sign_openssl_ed25519, key);
    EVP_PKEY_free(key);
}

int main(int count, char **arguments) {
    static struct bench bench;
    bench.seconds = count > 1 ? atof(arguments[1]) : 1;
    if (bench.seconds <= 0 || wc_InitRng(&bench.random) != 0 || !lanes_rsa_make(&bench.rsa, &bench.random, LANES_BITS, 65537)) {
        fprintf(stderr, "signing: no key\n");
        return 1;
    }
    int der_bytes = wc_RsaKeyToDer(&bench.rsa.rsa, bench.der, DER_BYTES);
    for (unsigned lane = 0; lane < LANES; lane++)
        if (der_bytes <= 0 || !lanes_random_encoded(&bench.random, bench.encoded[lane])) {
            fprintf(stderr, "signing: no message\n");
            return 1;
        }
    memcpy(bench.info, bench.encoded[0] + LANES_BYTES - DIGEST_INFO_BYTES, DIGEST_INFO_BYTES);
    memcpy(bench.digest, bench.encoded[0] + LANES_BYTES - DIGEST_BYTES, DIGEST_BYTES);
    if (!lanes_can(LANES_IFMA))
        printf("eight_lane - this processor has no AVX-512 IFMA\n");
    else
        measure(&bench, "eight_lane", sign_lanes, NULL);
    measure(&bench, "wolfssl_fast", sign_wolfssl, NULL);
    measure_distribution(&bench, der_bytes, count > 2 ? arguments[2] : NULL);
    measure_openssl(&bench, der_bytes);
    measure_ed25519(&bench);
    lanes_rsa_free(&bench.rsa);
    wc_FreeRng(&bench.random);
    return 0;
}
