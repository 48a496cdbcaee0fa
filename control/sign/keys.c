/* keys.c: reads DKIM's private keys (PEM, PKCS#1 or PKCS#8, RSA) and finds those of a domain. */
#include "keys.h"
#include "control/render/address.h"

#include <wolfssl/wolfcrypt/asn_public.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KEY_FILE_MAX = 16384, SELECTOR_MAX = 63 * 4 };

int dkim_key_decode(const struct dkim_key *key, RsaKey *rsa) {
    word32 at = 0;
    if (wc_InitRsaKey(rsa, NULL) != 0)
        return -EINVAL;
    if (wc_RsaPrivateKeyDecode(key->der, &at, rsa, key->der_length) != 0) {
        wc_FreeRsaKey(rsa);
        return -EINVAL;
    }
    return 0;
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

static int key_read(const char *path, struct dkim_key *key, unsigned *mode, char *error, size_t error_bytes) {
    uint8_t pem[KEY_FILE_MAX], der[KEY_FILE_MAX];
    int length = read_file(path, pem, sizeof(pem) - 1, mode), der_length = -1;
    if (length < 0) {
        snprintf(error, error_bytes, "%s: cannot read the DKIM key: %s. Make one with `bypost dkim keygen`, or correct key_file.", path,
                 strerror(-length));
        return length;
    }
    pem[length] = '\0';
    if (strstr((const char *)pem, "ENCRYPTED") == NULL)
        der_length = wc_KeyPemToDer(pem, length, der, (int)sizeof(der), NULL);
    explicit_bzero(pem, sizeof(pem));
    if (der_length > 0 && (key->der = malloc((size_t)der_length)) != NULL) {
        memcpy(key->der, der, (size_t)der_length);
        key->der_length = (uint32_t)der_length;
    }
    explicit_bzero(der, sizeof(der));
    RsaKey *rsa = malloc(sizeof(*rsa));
    if (rsa == NULL || key->der == NULL || dkim_key_decode(key, rsa) < 0) {
        free(rsa);
        snprintf(error, error_bytes,
                 "%s: this is no unencrypted RSA private key in PEM (PKCS#1 or PKCS#8). Make one with `bypost dkim keygen`.", path);
        return -EINVAL;
    }
    key->bits = (uint32_t)wc_RsaEncryptSize(rsa) * 8;
    wc_FreeRsaKey(rsa);
    free(rsa);
    if (key->bits < DKIM_RSA_BITS_MIN || key->bits > DKIM_RSA_BITS_MAX) {
        snprintf(error, error_bytes, "%s: an RSA key of %u bits; DKIM takes %d to %d (RFC 8301 3.2). Make one of 2048.", path, key->bits,
                 DKIM_RSA_BITS_MIN, DKIM_RSA_BITS_MAX);
        return -EINVAL;
    }
    return 0;
}

/* Labels of a selector (RFC 6376 3.1). */
static bool selector_is_legal(const char *selector) {
    char out[DOMAIN_BYTES];
    size_t length = strlen(selector);
    return length <= SELECTOR_MAX && selector[0] != '[' && address_domain(selector, length, out) > 0;
}

static int key_load(const struct config_dkim_key *configured, struct dkim_key *key, void (*warn)(void *context, const char *sentence),
                    void *context, char *error, size_t error_bytes) {
    char domain[DOMAIN_BYTES], sentence[512];
    unsigned mode = 0;
    if (configured->domain[0] == '[' || address_domain(configured->domain, strlen(configured->domain), domain) < 0) {
        snprintf(error, error_bytes, "dkim: \"%s\" is not a domain", configured->domain);
        return -EINVAL;
    }
    if (!selector_is_legal(configured->selector)) {
        snprintf(error, error_bytes, "dkim: the selector \"%s\" of %s is not made of letters, digits, hyphens and dots",
                 configured->selector, configured->domain);
        return -EINVAL;
    }
    int result = key_read(configured->key_file, key, &mode, error, error_bytes);
    if (result < 0)
        return result;
    key->domain = strdup(domain);
    key->selector = strdup(configured->selector);
    if (key->domain == NULL || key->selector == NULL) {
        snprintf(error, error_bytes, "out of memory");
        return -ENOMEM;
    }
    if (key->bits < DKIM_RSA_BITS_WARN && warn != NULL) {
        snprintf(sentence, sizeof(sentence),
                 "%s: the DKIM key of %s has %u bits; receivers ask for 2048. Make a new one on a new selector.", configured->key_file,
                 domain, key->bits);
        warn(context, sentence);
    }
    if ((mode & 0007) != 0 && warn != NULL) {
        snprintf(sentence, sizeof(sentence), "%s: every user of this machine can read this DKIM key. chmod 0600 it.", configured->key_file);
        warn(context, sentence);
    }
    return 0;
}

/* By domain, then as the configuration has them: qsort alone would not keep that order. */
static int compare_keys(const void *left, const void *right) {
    const struct dkim_key *a = left, *b = right;
    int order = strcmp(a->domain, b->domain);
    return order != 0 ? order : a->order < b->order ? -1 : 1;
}

struct dkim_keys *dkim_keys_load(const struct config *config, void (*warn)(void *context, const char *sentence), void *context, char *error,
                                 size_t error_bytes) {
    struct dkim_keys *keys = calloc(1, sizeof(*keys));
    if (keys != NULL)
        keys->keys = calloc(config->dkim_count + 1, sizeof(*keys->keys));
    if (keys == NULL || keys->keys == NULL) {
        snprintf(error, error_bytes, "out of memory");
        free(keys);
        return NULL;
    }
    for (uint32_t i = 0; i < config->dkim_count; i++) {
        keys->count++;
        keys->keys[i].order = i;
        if (key_load(&config->dkim[i], &keys->keys[i], warn, context, error, error_bytes) < 0) {
            dkim_keys_free(keys);
            return NULL;
        }
    }
    qsort(keys->keys, keys->count, sizeof(*keys->keys), compare_keys);
    for (uint32_t i = 0, first = 0; i < keys->count; i++) {
        if (strcmp(keys->keys[i].domain, keys->keys[first].domain) != 0)
            first = i;
        if (i - first >= DKIM_SIGNATURES_MAX) {
            snprintf(error, error_bytes, "dkim: %s has more than %d keys; each of them signs every message. Remove the retired ones.",
                     keys->keys[i].domain, DKIM_SIGNATURES_MAX);
            dkim_keys_free(keys);
            return NULL;
        }
    }
    return keys;
}

void dkim_keys_free(struct dkim_keys *keys) {
    if (keys == NULL)
        return;
    for (uint32_t i = 0; i < keys->count; i++) {
        free(keys->keys[i].domain);
        free(keys->keys[i].selector);
        if (keys->keys[i].der != NULL)
            explicit_bzero(keys->keys[i].der, keys->keys[i].der_length);
        free(keys->keys[i].der);
    }
    free(keys->keys);
    free(keys);
}

/* The first key whose domain is not before this one. */
static uint32_t lower_bound(const struct dkim_keys *keys, const char *domain) {
    uint32_t low = 0, high = keys->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (strcmp(keys->keys[middle].domain, domain) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint32_t dkim_keys_find(const struct dkim_keys *keys, const char *domain, uint32_t *first) {
    while (domain != NULL && domain[0] != '\0') {
        uint32_t at = lower_bound(keys, domain), count = 0;
        while (at + count < keys->count && strcmp(keys->keys[at + count].domain, domain) == 0)
            count++;
        *first = at;
        if (count > 0)
            return count;
        domain = strchr(domain, '.');
        domain = domain == NULL ? NULL : domain + 1;
    }
    return 0;
}
