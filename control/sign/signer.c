/* signer.c: signs messages (RFC 6376, RFC 8301, RFC 8463): rsa-sha256 and ed25519-sha256, relaxed/relaxed. A message begins, its RSA
 * signatures wait for lanes, and it is whole when all of them are made; each of RSA has been opened with the public key by then. */
#include "signer.h"
#include "secret.h"

#include "control/render/encode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { INFO_PREFIX_BYTES = 19, INFO_BYTES = INFO_PREFIX_BYTES + SIGNER_DIGEST_BYTES };

/* DigestInfo of SHA-256 (RFC 8017 9.2 note 1), to be followed by the digest. */
static const uint8_t sha256_info[INFO_PREFIX_BYTES] = {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01,
                                                       0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20};

struct dkim_signer *dkim_signer_create(struct dkim_keys *keys) {
    struct dkim_signer *signer = calloc(1, sizeof(*signer));
    if (signer == NULL)
        return NULL;
    signer->cache = secret_alloc(SIGNER_CACHED_KEYS * sizeof(*signer->cache));
    if (signer->cache == NULL || wc_InitRng(&signer->rng) != 0) {
        secret_free(signer->cache, SIGNER_CACHED_KEYS * sizeof(*signer->cache));
        free(signer);
        return NULL;
    }
    signer->keys = dkim_keys_hold(keys);
    signer->has_lanes = lanes_can(LANES_IFMA);
    signer->way = LANES_IFMA;
    signer->whole_end = &signer->whole;
    for (uint32_t i = 0; i < DKIM_BEGUN_MAX; i++) {
        signer->begun[i].next = signer->free_begun;
        signer->free_begun = &signer->begun[i];
    }
    return signer;
}

void dkim_signer_force(struct dkim_signer *signer, bool has_lanes, enum lanes_way way) {
    signer->has_lanes = has_lanes;
    signer->way = way;
}

static void forget_keys(struct dkim_signer *signer) {
    for (int i = 0; i < SIGNER_CACHED_KEYS; i++) {
        if (signer->cache[i].key != NULL)
            dkim_private_free(&signer->cache[i].decoded);
        signer->cache[i].key = NULL;
    }
    dkim_keys_free(signer->keys);
    signer->keys = NULL;
}

void dkim_signer_free(struct dkim_signer *signer) {
    if (signer == NULL)
        return;
    forget_keys(signer);
    body_cache_free(&signer->bodies);
    wc_FreeRng(&signer->rng);
    secret_free(signer->cache, SIGNER_CACHED_KEYS * sizeof(*signer->cache));
    free(signer);
}

bool dkim_signer_use(struct dkim_signer *signer, struct dkim_keys *keys) {
    if (signer->keys == keys)
        return true;
    for (uint32_t i = 0; i < DKIM_BEGUN_MAX; i++)
        if (signer->begun[i].wanted > 0)
            return false;
    forget_keys(signer);
    signer->keys = dkim_keys_hold(keys);
    return true;
}

static void count(uint64_t *counter, uint64_t by) {
    __atomic_store_n(counter, *counter + by, __ATOMIC_RELAXED);
}

void dkim_signer_counters(const struct dkim_signer *signer, struct dkim_counters *sum) {
    const uint64_t *from = (const uint64_t *)&signer->counters;
    uint64_t *to = (uint64_t *)sum;
    for (size_t i = 0; i < sizeof(*sum) / sizeof(*to); i++)
        to[i] += __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}

/* The decoded key, from the cache or made new. */
static RsaKey *signer_rsa(struct dkim_signer *signer, const struct dkim_key *key) {
    struct signer_key *cached = &signer->cache[(size_t)(key - signer->keys->keys) % SIGNER_CACHED_KEYS];
    if (cached->key == key)
        return &cached->decoded.rsa;
    if (cached->key != NULL)
        dkim_private_free(&cached->decoded);
    cached->key = NULL;
    if (dkim_key_decode(key, &cached->decoded) < 0)
        return NULL;
    if (wc_RsaSetRNG(&cached->decoded.rsa, &signer->rng) != 0) {
        dkim_private_free(&cached->decoded);
        return NULL;
    }
    cached->key = key;
    return &cached->decoded.rsa;
}

/* wolfCrypt's AVX2 table look-up leaves the upper halves of the vector registers dirty, and the SHA instructions, which exist in the old
 * encoding only, then pay a state transition each: SHA-256 fell from 1,100 to 12 MB/s, 300 us a message. */
static void clear_upper_halves(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx"))
        __asm__ volatile("vzeroupper" ::: "memory");
#endif
}

static void info_make(uint8_t *info, const uint8_t *digest) {
    memcpy(info, sha256_info, INFO_PREFIX_BYTES);
    memcpy(info + INFO_PREFIX_BYTES, digest, SIGNER_DIGEST_BYTES);
}

/* EMSA-PKCS1-v1_5 (RFC 8017 9.2). */
static void encode(uint8_t *out, const uint8_t *digest) {
    size_t padding = LANES_BYTES - INFO_BYTES - 3;
    out[0] = 0x00;
    out[1] = 0x01;
    memset(out + 2, 0xff, padding);
    out[2 + padding] = 0x00;
    info_make(out + 3 + padding, digest);
}

/* Signs the digest and opens the signature again with the public key: a fault in the arithmetic would give the private key away. */
static int sign_rsa(struct dkim_signer *signer, const struct dkim_key *key, const uint8_t *digest, uint8_t *signature) {
    uint8_t info[INFO_BYTES], plain[DKIM_RSA_BITS_MAX / 8];
    RsaKey *rsa = signer_rsa(signer, key);
    if (rsa == NULL)
        return -EIO;
    info_make(info, digest);
    int length = wc_RsaSSL_Sign(info, sizeof(info), signature, DKIM_RSA_BITS_MAX / 8, rsa, &signer->rng);
    bool good = length == (int)(key->bits / 8) &&
                wc_RsaSSL_Verify(signature, (word32)length, plain, sizeof(plain), rsa) == (int)sizeof(info) &&
                memcmp(plain, info, sizeof(info)) == 0;
    if (!good) /* it is not to lie around either */
        explicit_bzero(signature, DKIM_RSA_BITS_MAX / 8);
    secret_wipe_traces(SECRET_STACK_BYTES);
    clear_upper_halves();
    return good ? 0 : -EIO;
}

/* PureEdDSA over the digest (RFC 8463 3). Not verified: that takes 70 us, where a signature takes 25, and one with a fault in it has two
 * unknowns and gives no key away, unlike RSA's by CRT; it would take a second one of the same digest. That the public key, which goes into
 * the signature, is the right one has been seen when the key was loaded. */
static int sign_ed25519(const struct dkim_key *key, const uint8_t *digest, uint8_t *signature) {
    word32 length = ED25519_SIG_SIZE;
    int result = wc_ed25519_sign_msg(digest, SIGNER_DIGEST_BYTES, signature, &length, &key->decoded->ed25519);
    secret_wipe_traces(SECRET_STACK_ED25519_BYTES);
    clear_upper_halves();
    return result == 0 && length == ED25519_SIG_SIZE ? 0 : -EIO;
}

static size_t signature_bytes(const struct dkim_key *key) {
    return key->algorithm == DKIM_ED25519 ? ED25519_SIG_SIZE : key->bits / 8;
}

/* Puts the fields before the message that has all of them, and hands it out. */
static void begun_finish(struct dkim_signer *signer, struct signer_begun *begun) {
    struct message *message = begun->message;
    if (begun->status == 0) {
        message->start -= begun->fields_length;
        message->length += begun->fields_length;
        message->own_length += begun->fields_length;
        message->header_length += begun->fields_length;
    }
    begun->next = NULL;
    *signer->whole_end = begun;
    signer->whole_end = &begun->next;
}

/* One of its signatures is made, or failed. */
static void begun_take(struct dkim_signer *signer, struct signer_begun *begun, uint32_t which, const uint8_t *signature, int status) {
    const struct signer_signature *of = &begun->signatures[which];
    if (status == 0) {
        compose_signature((char *)begun->message->bytes + of->at, signature, signature_bytes(of->key));
        count(of->key->algorithm == DKIM_ED25519 ? &signer->counters.ed25519 : &signer->counters.rsa, 1);
    } else {
        begun->status = status;
    }
    if (--begun->wanted == 0)
        begun_finish(signer, begun);
}

/* By wolfCrypt, at once. */
static void sign_alone(struct dkim_signer *signer, struct signer_begun *begun, uint32_t which) {
    uint8_t signature[DKIM_RSA_BITS_MAX / 8];
    const struct signer_signature *of = &begun->signatures[which];
    int status = of->key->algorithm == DKIM_ED25519 ? sign_ed25519(of->key, of->digest, signature)
                                                    : sign_rsa(signer, of->key, of->digest, signature);
    count(status == 0 ? &signer->counters.wolfssl : &signer->counters.faults, 1);
    begun_take(signer, begun, which, signature, status);
}

static struct signer_waiting waiting_pop(struct dkim_signer *signer) {
    struct signer_waiting first = signer->waiting[signer->waiting_head];
    signer->waiting_head = (signer->waiting_head + 1) % SIGNER_WAITING_MAX;
    signer->waiting_count--;
    return first;
}

static void sign_lanes(struct dkim_signer *signer, uint32_t lanes) {
    struct signer_waiting taken[LANES];
    const struct lanes_key *keys[LANES] = {NULL};
    uint8_t encoded[LANES][LANES_BYTES], signatures[LANES][LANES_BYTES];
    memset(encoded, 0, sizeof(encoded));
    for (uint32_t i = 0; i < lanes; i++) {
        taken[i] = waiting_pop(signer);
        const struct signer_signature *of = &taken[i].begun->signatures[taken[i].signature];
        keys[i] = of->key->lanes;
        encode(encoded[i], of->digest);
    }
    uint32_t good = lanes_sign(signer->way, keys, (const uint8_t(*)[LANES_BYTES])encoded, signatures);
    count(&signer->counters.flushes, 1);
    for (uint32_t i = 0; i < lanes; i++) {
        if ((good >> i & 1) != 0) {
            count(&signer->counters.lanes, 1);
            begun_take(signer, taken[i].begun, taken[i].signature, signatures[i], 0);
        } else { /* a fault of the arithmetic, of the machine perhaps: the other way may do */
            count(&signer->counters.faults, 1);
            sign_alone(signer, taken[i].begun, taken[i].signature);
        }
    }
}

void dkim_flush(struct dkim_signer *signer, bool all) {
    while (signer->waiting_count >= LANES)
        sign_lanes(signer, LANES);
    if (!all || signer->waiting_count == 0)
        return;
    count(&signer->counters.part_flushes, 1);
    if (signer->waiting_count > SIGNER_ALONE_MAX) {
        sign_lanes(signer, signer->waiting_count);
        return;
    }
    while (signer->waiting_count > 0) {
        struct signer_waiting first = waiting_pop(signer);
        sign_alone(signer, first.begun, first.signature);
    }
}

uint32_t dkim_waiting(const struct dkim_signer *signer) {
    return signer->waiting_count;
}

bool dkim_next(struct dkim_signer *signer, void **user, int *status) {
    struct signer_begun *begun = signer->whole;
    if (begun == NULL)
        return false;
    signer->whole = begun->next;
    if (signer->whole == NULL)
        signer->whole_end = &signer->whole;
    *user = begun->user;
    *status = begun->status;
    begun->next = signer->free_begun;
    signer->free_begun = begun;
    return true;
}

/* Headroom for so many bytes. 0, or -ENOMEM. */
static int make_headroom(struct message *message, size_t length) {
    if (message->start >= length)
        return 0;
    size_t start = length + MESSAGE_HEADROOM_BYTES;
    uint8_t *bytes = malloc(start + message->own_length);
    if (bytes == NULL)
        return -ENOMEM;
    memcpy(bytes + start, message->bytes + message->start, message->own_length);
    free(message->bytes);
    message->bytes = bytes;
    message->capacity = start + message->own_length;
    message->start = start;
    return 0;
}

/* The fields but for their signatures into the message's headroom, and the digests to be signed. 0, or -errno. */
static int compose(struct dkim_signer *signer, struct signer_begun *begun, uint64_t time_s) {
    struct message *message = begun->message;
    struct canonical *canonical = &signer->canonical;
    struct compose_text names = {.text = signer->names, .room = sizeof(signer->names)};
    struct canonical_midstate fields;
    uint8_t digest[SIGNER_DIGEST_BYTES];
    char body_digest[SIGNER_DIGEST_BYTES * 2];
    size_t lengths[DKIM_SIGNATURES_MAX], total = 0;
    if (compose_find(&signer->header, &signer->keys->names, message->bytes + message->start, message->header_length) < 0)
        return -EINVAL;
    uint64_t before = signer->bodies.hashed;
    if (body_hash(&signer->bodies, canonical, message, digest) < 0)
        return -EIO;
    count(&signer->counters.body_bytes, message->length - message->header_length);
    count(&signer->counters.body_bytes_hashed, signer->bodies.hashed - before);
    body_digest[base64_write(body_digest, digest, sizeof(digest))] = '\0';
    canonical_begin(canonical);
    compose_names(&names, &signer->header, &signer->keys->names, canonical);
    int result = canonical_midstate(canonical, &fields);
    canonical_end(canonical, digest);
    for (uint32_t i = 0; result == 0 && i < begun->count; i++) {
        struct signer_signature *of = &begun->signatures[i];
        struct compose_text out = {.text = signer->text + (size_t)i * COMPOSE_FIELD_MAX, .room = COMPOSE_FIELD_MAX};
        compose_field(&out, of->key, body_digest, time_s, signer->keys->expire_s, &names);
        lengths[i] = out.length;
        total += out.length + compose_signature_length(signature_bytes(of->key));
        result = out.full ? -EINVAL : canonical_resume(canonical, &fields);
        if (result == 0) {
            canonical_field(canonical, (const uint8_t *)out.text, out.length, 0);
            result = canonical_end(canonical, of->digest);
        }
    }
    canonical_midstate_free(&fields);
    if (result == 0)
        result = make_headroom(message, total);
    if (result < 0)
        return result;
    begun->fields_length = total;
    size_t at = message->start - total;
    for (uint32_t i = 0; i < begun->count; i++) {
        memcpy(message->bytes + at, signer->text + (size_t)i * COMPOSE_FIELD_MAX, lengths[i]);
        begun->signatures[i].at = at + lengths[i];
        at = begun->signatures[i].at + compose_signature_length(signature_bytes(begun->signatures[i].key));
    }
    return 0;
}

int dkim_begin(struct dkim_signer *signer, struct message *message, const char *tenant, uint64_t time_s, void *user) {
    const struct dkim_key *chosen[DKIM_SIGNATURES_MAX];
    uint32_t own, total = dkim_keys_choose(signer->keys, message->from_domain, tenant, chosen, &own);
    struct signer_begun *begun = signer->free_begun;
    if (own == 0 && signer->keys->required)
        return -ENOKEY;
    if (total == 0)
        return 0;
    if (begun == NULL)
        return -EBUSY;
    begun->message = message;
    begun->user = user;
    begun->count = total;
    begun->status = 0;
    for (uint32_t i = 0; i < total; i++)
        begun->signatures[i].key = chosen[i];
    int result = compose(signer, begun, time_s);
    if (result < 0)
        return result;
    signer->free_begun = begun->next;
    begun->wanted = total;
    for (uint32_t i = 0; i < total; i++)
        if (signer->has_lanes && chosen[i]->lanes != NULL)
            signer->waiting[(signer->waiting_head + signer->waiting_count++) % SIGNER_WAITING_MAX] =
                (struct signer_waiting){.begun = begun, .signature = i};
    /* Behind the others, so that it is not whole before all of them are counted. */
    for (uint32_t i = 0; i < total; i++)
        if (!signer->has_lanes || chosen[i]->lanes == NULL)
            sign_alone(signer, begun, i);
    return (int)total;
}

int dkim_sign(struct dkim_signer *signer, struct message *message, const char *tenant, uint64_t time_s) {
    int total = dkim_begin(signer, message, tenant, time_s, NULL);
    if (total <= 0)
        return total;
    dkim_flush(signer, true);
    for (struct signer_begun **at = &signer->whole; *at != NULL; at = &(*at)->next) {
        struct signer_begun *begun = *at;
        if (begun->message != message)
            continue;
        *at = begun->next;
        if (*at == NULL)
            signer->whole_end = at;
        begun->next = signer->free_begun;
        signer->free_begun = begun;
        return begun->status == 0 ? total : begun->status;
    }
    return -EIO; /* never: the flush has made all that waited */
}
