// Known answers and speed of the wolfSSL that deploy/setup built: SHA-256 (FIPS 180-4), Ed25519 (RFC 8032), RSA-2048 (RFC 8017),
// keys read from PKCS#8 and written as PEM. Exit status 0 when every answer is right; --speed prints the rates too.
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/asn.h>
#include <wolfssl/wolfcrypt/asn_public.h>
#include <wolfssl/wolfcrypt/ed25519.h>
#include <wolfssl/wolfcrypt/rsa.h>
#include <wolfssl/wolfcrypt/sha256.h>
#include <wolfssl/ssl.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RSA_BITS = 2048, RSA_BYTES = RSA_BITS / 8, HASH_BUFFER_BYTES = 1 << 20, SPEED_RUN_NS = 300 * 1000 * 1000 };

struct check {
    WC_RNG rng;
    RsaKey rsa;
    ed25519_key ed;
    byte digest[WC_SHA256_DIGEST_SIZE];
    byte der_info[19 + WC_SHA256_DIGEST_SIZE]; // DigestInfo of SHA-256, as DKIM signs it
    byte signature[RSA_BYTES];
    byte *buffer;
};

static void expect(int good, const char *what) {
    if (!good) {
        fprintf(stderr, "wrong: %s\n", what);
        exit(1);
    }
}

static int sha256(struct check *c, const byte *data, word32 bytes) {
    wc_Sha256 sha;
    return wc_InitSha256(&sha) || wc_Sha256Update(&sha, data, bytes) || wc_Sha256Final(&sha, c->digest);
}

static int op_sha256(struct check *c) {
    return sha256(c, c->buffer, HASH_BUFFER_BYTES);
}

static int op_rsa_sign(struct check *c) {
    return wc_RsaSSL_Sign(c->der_info, sizeof(c->der_info), c->signature, sizeof(c->signature), &c->rsa, &c->rng) != RSA_BYTES;
}

static int op_ed25519_sign(struct check *c) {
    byte sig[ED25519_SIG_SIZE];
    word32 bytes = sizeof(sig);
    return wc_ed25519_sign_msg(c->digest, sizeof(c->digest), sig, &bytes, &c->ed);
}

static double rate(struct check *c, int (*op)(struct check *)) {
    struct timespec from, to;
    long n = 0;
    double ns;
    clock_gettime(CLOCK_MONOTONIC, &from);
    do {
        expect(op(c) == 0, "an operation fails under load");
        n++;
        clock_gettime(CLOCK_MONOTONIC, &to);
        ns = (double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec);
    } while (ns < SPEED_RUN_NS);
    return (double)n * 1e9 / ns;
}

static void check_sha256(struct check *c) {
    static const byte abc[] = {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
                               0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad};
    expect(sha256(c, (const byte *)"abc", 3) == 0 && memcmp(c->digest, abc, sizeof(abc)) == 0, "SHA-256 of abc");
}

// RFC 8032 section 7.1, test 2.
static void check_ed25519(struct check *c) {
    static const byte secret[] = {0x4c, 0xcd, 0x08, 0x9b, 0x28, 0xff, 0x96, 0xda, 0x9d, 0xb6, 0xc3, 0x46, 0xec, 0x11, 0x4e, 0x0f,
                                  0x5b, 0x8a, 0x31, 0x9f, 0x35, 0xab, 0xa6, 0x24, 0xda, 0x8c, 0xf6, 0xed, 0x4f, 0xb8, 0xa6, 0xfb};
    static const byte public[] = {0x3d, 0x40, 0x17, 0xc3, 0xe8, 0x43, 0x89, 0x5a, 0x92, 0xb7, 0x0a, 0xa7, 0x4d, 0x1b, 0x7e, 0xbc,
                                  0x9c, 0x98, 0x2c, 0xcf, 0x2e, 0xc4, 0x96, 0x8c, 0xc0, 0xcd, 0x55, 0xf1, 0x2a, 0xf4, 0x66, 0x0c};
    static const byte signature_start[] = {0x92, 0xa0, 0x09, 0xa9, 0xf0, 0xd4, 0xca, 0xb8, 0x72, 0x0e, 0x82, 0x0b, 0x5f, 0x64, 0x25, 0x40};
    static const byte message = 0x72;
    byte sig[ED25519_SIG_SIZE];
    word32 bytes = sizeof(sig);
    int good = 0;
    expect(wc_ed25519_init(&c->ed) == 0, "Ed25519 init");
    expect(wc_ed25519_import_private_key(secret, sizeof(secret), public, sizeof(public), &c->ed) == 0, "Ed25519 import");
    expect(wc_ed25519_sign_msg(&message, 1, sig, &bytes, &c->ed) == 0, "Ed25519 sign");
    expect(memcmp(sig, signature_start, sizeof(signature_start)) == 0, "Ed25519 signature of RFC 8032");
    expect(wc_ed25519_verify_msg(sig, bytes, &message, 1, &good, &c->ed) == 0 && good == 1, "Ed25519 verify");
}

// A key is made, written as PKCS#1, wrapped as PKCS#8, made PEM and read back from that, as bypost reads an operator's key.
static void check_rsa(struct check *c) {
    byte der[2048], pkcs8[2048], pem[4096], back[2048], plain[RSA_BYTES];
    word32 pkcs8_bytes = sizeof(pkcs8), at = 0;
    RsaKey made;
    int der_bytes, pem_bytes, back_bytes;
    static const byte sha256_info[19] = {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01,
                                         0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20};

    expect(wc_InitRsaKey(&made, NULL) == 0 && wc_MakeRsaKey(&made, RSA_BITS, WC_RSA_EXPONENT, &c->rng) == 0, "RSA key generation");
    der_bytes = wc_RsaKeyToDer(&made, der, sizeof(der));
    expect(der_bytes > 0, "RSA key to DER");
    expect(wc_CreatePKCS8Key(pkcs8, &pkcs8_bytes, der, (word32)der_bytes, RSAk, NULL, 0) > 0, "PKCS#8");
    pem_bytes = wc_DerToPem(pkcs8, pkcs8_bytes, pem, sizeof(pem), PKCS8_PRIVATEKEY_TYPE);
    expect(pem_bytes > 0 && memcmp(pem, "-----BEGIN PRIVATE KEY-----", 27) == 0, "DER to PEM");
    back_bytes = wc_KeyPemToDer(pem, pem_bytes, back, sizeof(back), NULL);
    expect(back_bytes > 0, "PEM to DER");
    expect(wc_InitRsaKey(&c->rsa, NULL) == 0, "RSA init");
    expect(wc_RsaPrivateKeyDecode(back, &at, &c->rsa, (word32)back_bytes) == 0, "RSA key from PKCS#8 PEM");
    expect(wc_RsaSetRNG(&c->rsa, &c->rng) == 0, "RSA blinding");
    memcpy(c->der_info, sha256_info, sizeof(sha256_info));
    memcpy(c->der_info + sizeof(sha256_info), c->digest, sizeof(c->digest));
    expect(op_rsa_sign(c) == 0, "RSA sign");
    expect(wc_RsaSSL_Verify(c->signature, RSA_BYTES, plain, sizeof(plain), &made) == (int)sizeof(c->der_info) &&
               memcmp(plain, c->der_info, sizeof(c->der_info)) == 0,
           "RSA verify");
    wc_FreeRsaKey(&made);
}

int main(int argc, char **argv) {
    static struct check c;
    expect(wolfSSL_Init() == WOLFSSL_SUCCESS && wc_InitRng(&c.rng) == 0, "wolfSSL_Init");
    c.buffer = calloc(1, HASH_BUFFER_BYTES);
    expect(c.buffer != NULL, "memory");
    check_ed25519(&c);
    check_sha256(&c);
    check_rsa(&c);
    printf("all answers are right\n");
    if (argc > 1 && strcmp(argv[1], "--speed") == 0) {
        printf("speed: RSA-2048 sign %.0f /s\n", rate(&c, op_rsa_sign));
        printf("speed: Ed25519 sign %.0f /s\n", rate(&c, op_ed25519_sign));
        printf("speed: SHA-256 %.0f MB/s\n", rate(&c, op_sha256) * HASH_BUFFER_BYTES / 1e6);
    }
    wc_FreeRsaKey(&c.rsa);
    wc_ed25519_free(&c.ed);
    wc_FreeRng(&c.rng);
    wolfSSL_Cleanup();
    free(c.buffer);
    return 0;
}
