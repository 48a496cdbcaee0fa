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
    key->tenant = strdup(configured->tenant != NULL ? configured->tenant : "");
    result = key->domain == NULL || key->selector == NULL || key->tenant == NULL ? -ENOMEM : dkim_key_prepare(key);
    if (result < 0) {
        snprintf(error, error_bytes,
                 result == -ENOMEM ? "out of memory"
                                   : "%s: the numbers of this key do not belong together, and nobody could verify what it signs. Make one "
                                     "with `bypost dkim keygen`, or copy the file anew.",
                 configured->key_file);
        return result;
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

static int compare_owners(const struct dkim_key *key, const char *domain, const char *tenant) {
    int order = strcmp(key->domain, domain);
    return order != 0 ? order : strcmp(key->tenant, tenant);
}

/* By domain and tenant, then as the configuration has them: qsort alone would not keep that order. */
static int compare_keys(const void *left, const void *right) {
    const struct dkim_key *a = left, *b = right;
    int order = compare_owners(a, b->domain, b->tenant);
    return order != 0 ? order : a->order < b->order ? -1 : 1;
}

/* All that would sign one message must have room in it. */
static int check_counts(const struct dkim_keys *keys, char *error, size_t error_bytes) {
    for (uint32_t i = 0, first = 0; i < keys->count; i++) {
        if (compare_owners(&keys->keys[i], keys->keys[first].domain, keys->keys[first].tenant) != 0)
            first = i;
        uint32_t platform = 0;
        for (uint32_t j = 0; j < keys->platform_count; j++)
            platform += strcmp(keys->keys[keys->count + j].domain, keys->keys[i].domain) != 0;
        if (i - first + 1 + platform > DKIM_SIGNATURES_MAX) {
            snprintf(error, error_bytes, "dkim: %s has more than %d keys%s; each of them signs every message. Remove the retired ones.",
                     keys->keys[i].domain, DKIM_SIGNATURES_MAX, platform > 0 ? " with the platform's" : "");
            return -EINVAL;
        }
    }
    if (keys->platform_count <= DKIM_SIGNATURES_MAX)
        return 0;
    snprintf(error, error_bytes, "dkim: the platform has more than %d keys; each of them signs every message. Remove the retired ones.",
             DKIM_SIGNATURES_MAX);
    return -EINVAL;
}

struct dkim_keys *dkim_keys_load(const struct config *config, void (*warn)(void *context, const char *sentence), void *context, char *error,
                                 size_t error_bytes) {
    struct dkim_keys *keys = calloc(1, sizeof(*keys));
    if (keys != NULL)
        keys->keys = calloc((size_t)config->dkim_count + config->dkim_platform_count + 1, sizeof(*keys->keys));
    if (keys == NULL || keys->keys == NULL) {
        snprintf(error, error_bytes, "out of memory");
        free(keys);
        return NULL;
    }
    *keys = (struct dkim_keys){.references = 1, .keys = keys->keys, .required = config->dkim_required, .expire_s = config->dkim_expire_s};
    int result = dkim_names_make(&keys->names, config->dkim_oversign, config->dkim_sign);
    if (result < 0)
        snprintf(error, error_bytes, "dkim: `oversign` and `sign` have too many or too long names; remove some.");
    for (uint32_t i = 0; result == 0 && i < config->dkim_count; i++) {
        keys->keys[i].order = i;
        keys->count++;
        result = key_load(&config->dkim[i], &keys->keys[i], warn, context, error, error_bytes);
    }
    for (uint32_t i = 0; result == 0 && i < config->dkim_platform_count; i++) {
        keys->platform_count++;
        result = key_load(&config->dkim_platform[i], &keys->keys[keys->count + i], warn, context, error, error_bytes);
    }
    if (result == 0) { /* else the last has no domain to be sorted by */
        qsort(keys->keys, keys->count, sizeof(*keys->keys), compare_keys);
        result = check_counts(keys, error, error_bytes);
    }
    if (result == 0)
        return keys;
    dkim_keys_free(keys);
    return NULL;
}

struct dkim_keys *dkim_keys_hold(struct dkim_keys *keys) {
    __atomic_fetch_add(&keys->references, 1, __ATOMIC_RELAXED);
    return keys;
}

bool dkim_keys_have_lanes(const struct dkim_keys *keys) {
    for (uint32_t i = 0; i < keys->count + keys->platform_count; i++)
        if (keys->keys[i].lanes != NULL)
            return true;
    return false;
}

void dkim_keys_free(struct dkim_keys *keys) {
    if (keys == NULL || __atomic_sub_fetch(&keys->references, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (uint32_t i = 0; i < keys->count + keys->platform_count; i++)
        dkim_key_free(&keys->keys[i]);
    free(keys->keys);
    free(keys);
}

/* Where the keys of a domain and a tenant begin, and how many there are. */
static uint32_t find_owner(const struct dkim_keys *keys, const char *domain, const char *tenant, uint32_t *first) {
    uint32_t low = 0, high = keys->count, count = 0;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (compare_owners(&keys->keys[middle], domain, tenant) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    while (low + count < keys->count && compare_owners(&keys->keys[low + count], domain, tenant) == 0)
        count++;
    *first = low;
    return count;
}

uint32_t dkim_keys_find(const struct dkim_keys *keys, const char *domain, const char *tenant, uint32_t *first) {
    *first = 0;
    while (domain != NULL && domain[0] != '\0') {
        uint32_t count = tenant != NULL && tenant[0] != '\0' ? find_owner(keys, domain, tenant, first) : 0;
        if (count == 0)
            count = find_owner(keys, domain, "", first);
        if (count > 0)
            return count;
        domain = strchr(domain, '.');
        domain = domain == NULL ? NULL : domain + 1;
    }
    return 0;
}

uint32_t dkim_keys_choose(const struct dkim_keys *keys, const char *domain, const char *tenant, const struct dkim_key **chosen,
                          uint32_t *own) {
    uint32_t first, count = dkim_keys_find(keys, domain, tenant, &first);
    *own = count;
    for (uint32_t i = 0; i < count; i++)
        chosen[i] = &keys->keys[first + i];
    for (uint32_t i = 0; i < keys->platform_count; i++) {
        const struct dkim_key *key = &keys->keys[keys->count + i];
        if (*own == 0 || strcmp(chosen[0]->domain, key->domain) != 0)
            chosen[count++] = key;
    }
    return count;
}
