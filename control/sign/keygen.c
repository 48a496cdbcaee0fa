/* keygen.c: new DKIM keys, and the DNS record that belongs to a key (RFC 6376 3.6.1). */
#include "keys.h"
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

static char *record_text(RsaKey *rsa) {
    static const char begin[] = "v=DKIM1; k=rsa; p=";
    uint8_t der[KEY_DER_MAX];
    int length = wc_RsaKeyToPublicDer(rsa, der, sizeof(der));
    char *record = length <= 0 ? NULL : malloc(sizeof(begin) + ((size_t)length + 2) / 3 * 4);
    if (record != NULL) {
        memcpy(record, begin, sizeof(begin));
        size_t used = sizeof(begin) - 1;
        used += base64_write(record + used, der, (size_t)length);
        record[used] = '\0';
    }
    return record;
}

/* The key as PKCS#8 PEM. Its length, or -1. */
static int key_pem(RsaKey *rsa, uint8_t *pem) {
    uint8_t der[KEY_DER_MAX], pkcs8[KEY_DER_MAX];
    word32 pkcs8_length = sizeof(pkcs8);
    int length = wc_RsaKeyToDer(rsa, der, sizeof(der));
    if (length > 0)
        length = wc_CreatePKCS8Key(pkcs8, &pkcs8_length, der, (word32)length, RSAk, NULL, 0);
    if (length > 0)
        length = wc_DerToPem(pkcs8, pkcs8_length, pem, KEY_PEM_MAX, PKCS8_PRIVATEKEY_TYPE);
    explicit_bzero(der, sizeof(der));
    explicit_bzero(pkcs8, sizeof(pkcs8));
    return length > 0 ? length : -1;
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

int dkim_keygen(const char *key_path, uint32_t bits, char **record, char *error, size_t error_bytes) {
    *record = NULL;
    if (bits < DKIM_RSA_BITS_MIN || bits > DKIM_RSA_BITS_MAX || bits % 512 != 0) {
        snprintf(error, error_bytes, "%u bits is no size for a DKIM key: take 2048 (1024 to %d, in steps of 512)", bits, DKIM_RSA_BITS_MAX);
        return -EINVAL;
    }
    WC_RNG rng;
    RsaKey *rsa = calloc(1, sizeof(*rsa));
    uint8_t *pem = calloc(1, KEY_PEM_MAX);
    int result = -EIO;
    if (rsa == NULL || pem == NULL || wc_InitRng(&rng) != 0) {
        snprintf(error, error_bytes, "out of memory or random numbers");
        free(rsa);
        free(pem);
        return -ENOMEM;
    }
    if (wc_InitRsaKey(rsa, NULL) == 0 && wc_MakeRsaKey(rsa, (int)bits, WC_RSA_EXPONENT, &rng) == 0) {
        int length = key_pem(rsa, pem);
        *record = length > 0 ? record_text(rsa) : NULL;
        result = *record == NULL ? -EIO : write_new(key_path, pem, (size_t)length);
    }
    if (result == -EEXIST)
        snprintf(error, error_bytes, "%s exists already, and a key is never overwritten. Choose another name or move it away.", key_path);
    else if (result < 0)
        snprintf(error, error_bytes, "%s: the key could not be made or written: %s", key_path, strerror(-result));
    if (result < 0) {
        free(*record);
        *record = NULL;
    }
    explicit_bzero(pem, KEY_PEM_MAX);
    free(pem);
    wc_FreeRsaKey(rsa);
    free(rsa);
    wc_FreeRng(&rng);
    return result;
}
