/* keys.c: the private keys of the configuration, and which of them sign for a domain. */
#include "keys.h"
#include "control/render/address.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SELECTOR_MAX = 63 * 4 };

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
    int result = dkim_key_read(configured->key_file, key, &mode, error, error_bytes);
    if (result < 0)
        return result;
    key->domain = strdup(domain);
    key->selector = strdup(configured->selector);
    if (key->domain == NULL || key->selector == NULL) {
        snprintf(error, error_bytes, "out of memory");
        return -ENOMEM;
    }
    if (key->algorithm == DKIM_RSA && key->bits < DKIM_RSA_BITS_WARN && warn != NULL) {
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
    for (uint32_t i = 0; i < keys->count; i++)
        dkim_key_free(&keys->keys[i]);
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
