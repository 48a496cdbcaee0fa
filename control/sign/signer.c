/* signer.c: DKIM-Signature fields (RFC 6376, RFC 8301): rsa-sha256, relaxed/relaxed, each verified before it leaves. */
#include "signer.h"

#include <wolfssl/wolfcrypt/coding.h>

#include "control/render/encode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { DIGEST_BYTES = WC_SHA256_DIGEST_SIZE, INFO_PREFIX_BYTES = 19, LINE_BYTES = 76 };

/* DigestInfo of SHA-256 (RFC 8017 9.2 note 1), to be followed by the digest. */
static const uint8_t sha256_info[INFO_PREFIX_BYTES] = {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01,
                                                       0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20};

/* What is signed. Oversigned: named once more than present, so that none can be added (RFC 6376 8.15). The others only as often as present:
 * mailing lists add theirs. Never Return-Path, Received, Bcc. */
static const struct signed_name {
    const char *name;
    uint8_t length;
    bool oversigned;
} signed_names[] = {
    {"from", 4, true},
    {"to", 2, true},
    {"cc", 2, true},
    {"subject", 7, true},
    {"reply-to", 8, true},
    {"date", 4, false},
    {"message-id", 10, false},
    {"in-reply-to", 11, false},
    {"references", 10, false},
    {"mime-version", 12, false},
    {"content-type", 12, false},
    {"content-transfer-encoding", 25, false},
    {"list-id", 7, false},
    {"list-unsubscribe", 16, false},
    {"list-unsubscribe-post", 21, false},
    {"feedback-id", 11, false},
};
enum { SIGNED_NAMES = sizeof(signed_names) / sizeof(signed_names[0]) };

struct dkim_signer *dkim_signer_create(const struct dkim_keys *keys) {
    struct dkim_signer *signer = calloc(1, sizeof(*signer));
    if (signer == NULL)
        return NULL;
    signer->keys = keys;
    signer->cache = calloc(SIGNER_CACHED_KEYS, sizeof(*signer->cache));
    if (signer->cache == NULL || wc_InitRng(&signer->rng) != 0) {
        free(signer->cache);
        free(signer);
        return NULL;
    }
    return signer;
}

void dkim_signer_free(struct dkim_signer *signer) {
    if (signer == NULL)
        return;
    for (int i = 0; i < SIGNER_CACHED_KEYS; i++)
        if (signer->cache[i].key != NULL)
            dkim_private_free(&signer->cache[i].decoded);
    wc_FreeRng(&signer->rng);
    free(signer->cache);
    free(signer);
}

/* The decoded key, from the cache or made new. */
static struct dkim_private *signer_key(struct dkim_signer *signer, const struct dkim_key *key) {
    struct signer_key *cached = &signer->cache[(size_t)(key - signer->keys->keys) % SIGNER_CACHED_KEYS];
    if (cached->key == key)
        return &cached->decoded;
    if (cached->key != NULL)
        dkim_private_free(&cached->decoded);
    cached->key = NULL;
    if (dkim_key_decode(key, &cached->decoded) < 0)
        return NULL;
    if (key->algorithm == DKIM_RSA && wc_RsaSetRNG(&cached->decoded.rsa, &signer->rng) != 0) {
        dkim_private_free(&cached->decoded);
        return NULL;
    }
    cached->key = key;
    return &cached->decoded;
}

static int8_t field_kind(const uint8_t *name, size_t length) {
    for (int i = 0; i < SIGNED_NAMES; i++)
        if (signed_names[i].length == length && strncasecmp(signed_names[i].name, (const char *)name, length) == 0)
            return (int8_t)i;
    return -1;
}

/* Finds the fields of a header that ends with its empty line. 0, or -EINVAL when there are too many. */
static int find_fields(struct dkim_signer *signer, const uint8_t *header, size_t length) {
    size_t at = 0;
    signer->field_count = 0;
    while (at < length && header[at] != '\r') {
        size_t start = at;
        do {
            const uint8_t *newline = memchr(header + at, '\n', length - at);
            at = newline == NULL ? length : (size_t)(newline - header) + 1;
        } while (at < length && (header[at] == ' ' || header[at] == '\t'));
        if (signer->field_count == SIGNER_FIELDS_MAX)
            return -EINVAL;
        struct signer_field *field = &signer->fields[signer->field_count++];
        const uint8_t *colon = memchr(header + start, ':', at - start);
        size_t name = colon == NULL ? 0 : (size_t)(colon - header) - start;
        while (name > 0 && (header[start + name - 1] == ' ' || header[start + name - 1] == '\t'))
            name--;
        *field = (struct signer_field){.text = header + start,
                                       .length = (uint32_t)(at - start),
                                       .name_length = (uint16_t)(name < UINT16_MAX ? name : 0),
                                       .kind = field_kind(header + start, name)};
    }
    return 0;
}

/* Text of the signature field under construction. */
struct field_text {
    char *text;
    size_t length, line;
    bool full;
};

static void put(struct field_text *out, const char *text, size_t length) {
    if (out->full || length > SIGNATURE_FIELD_MAX - out->length) {
        out->full = true;
        return;
    }
    memcpy(out->text + out->length, text, length);
    out->length += length;
}

static void put_fold(struct field_text *out) {
    put(out, "\r\n\t", 3);
    out->line = out->length - 1;
}

/* A piece of a tag that must not be broken, on a line of its own when this one is full. */
static void put_word(struct field_text *out, const char *text, size_t length) {
    if (out->length - out->line + length > LINE_BYTES && out->length > out->line + 1)
        put_fold(out);
    put(out, text, length);
}

static void put_tag(struct field_text *out, const char *tag, const char *value) {
    size_t tag_length = strlen(tag), length = strlen(value);
    if (out->length - out->line + tag_length + length + 2 > LINE_BYTES && out->length > out->line + 1)
        put_fold(out);
    else if (out->length > out->line + 1)
        put(out, " ", 1);
    put(out, tag, tag_length);
    put(out, value, length);
    put(out, ";", 1);
}

/* Base64 may be folded anywhere (RFC 6376 3.5: FWS in b= is ignored). */
static void put_base64(struct field_text *out, const char *text, size_t length) {
    while (length > 0) {
        size_t room = LINE_BYTES > out->length - out->line ? LINE_BYTES - (out->length - out->line) : 0;
        if (room == 0) {
            put_fold(out);
            continue;
        }
        size_t part = length < room ? length : room;
        put(out, text, part);
        text += part;
        length -= part;
    }
}

/* h=, and the fields it names go into the hash: of a name that occurs more than once the last comes first (RFC 6376 5.4.2). */
static void put_names(struct dkim_signer *signer, struct field_text *out) {
    bool first = true;
    for (int kind = 0; kind < SIGNED_NAMES; kind++) {
        const struct signed_name *name = &signed_names[kind];
        uint32_t times = name->oversigned;
        for (uint32_t i = signer->field_count; i-- > 0;) {
            if (signer->fields[i].kind != kind)
                continue;
            times++;
            canonical_field(&signer->canonical, signer->fields[i].text, signer->fields[i].length, 1);
        }
        for (; times > 0; times--) {
            char word[40] = ":";
            memcpy(word + !first, name->name, name->length);
            put_word(out, word, (size_t)name->length + !first);
            first = false;
        }
    }
}

static void put_number(char *out, uint64_t number) {
    char digits[24];
    size_t count = 0;
    do
        digits[count++] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    while (count > 0)
        *out++ = digits[--count];
    *out = '\0';
}

/* wolfCrypt's AVX2 table look-up leaves the upper halves of the vector registers dirty, and the SHA instructions, which exist in the old
 * encoding only, then pay a state transition each: SHA-256 fell from 1,100 to 12 MB/s, 300 us a message. */
static void clear_upper_halves(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx"))
        __asm__ volatile("vzeroupper" ::: "memory");
#endif
}

/* Signs the digest and opens the signature again with the public key: a fault in the arithmetic would give the private key away. */
static int sign_digest(struct dkim_signer *signer, RsaKey *rsa, const uint8_t *digest, uint8_t *signature) {
    uint8_t info[INFO_PREFIX_BYTES + DIGEST_BYTES], plain[DKIM_RSA_BITS_MAX / 8];
    memcpy(info, sha256_info, INFO_PREFIX_BYTES);
    memcpy(info + INFO_PREFIX_BYTES, digest, DIGEST_BYTES);
    int length = wc_RsaSSL_Sign(info, sizeof(info), signature, DKIM_RSA_BITS_MAX / 8, rsa, &signer->rng);
    if (length <= 0 || wc_RsaSSL_Verify(signature, (word32)length, plain, sizeof(plain), rsa) != (int)sizeof(info) ||
        memcmp(plain, info, sizeof(info)) != 0)
        length = -EIO;
    clear_upper_halves();
    return length;
}

/* Writes the whole field, with its CRLF, to signer->text. Its length, or -errno. */
static int make_field(struct dkim_signer *signer, const struct dkim_key *key, const char *body_hash, uint64_t time_s) {
    struct field_text out = {.text = signer->text};
    char number[24], encoded[DKIM_RSA_BITS_MAX / 8 * 2];
    uint8_t digest[DIGEST_BYTES], signature[DKIM_RSA_BITS_MAX / 8];
    struct dkim_private *decoded = signer_key(signer, key);
    if (decoded == NULL || key->algorithm != DKIM_RSA)
        return -EIO;
    RsaKey *rsa = &decoded->rsa;
    put(&out, "DKIM-Signature:", 15);
    put_tag(&out, "v=", "1");
    put_tag(&out, "a=", "rsa-sha256");
    put_tag(&out, "c=", "relaxed/relaxed");
    put_tag(&out, "d=", key->domain);
    put_tag(&out, "s=", key->selector);
    put_number(number, time_s);
    put_tag(&out, "t=", number);
    put_fold(&out);
    put(&out, "h=", 2);
    canonical_begin(&signer->canonical);
    put_names(signer, &out);
    put(&out, ";", 1);
    put_fold(&out);
    put_tag(&out, "bh=", body_hash);
    put_fold(&out);
    put(&out, "b=", 2);
    canonical_field(&signer->canonical, (const uint8_t *)out.text, out.length, 0);
    if (canonical_end(&signer->canonical, digest) < 0)
        return -EIO;
    int length = sign_digest(signer, rsa, digest, signature);
    if (length < 0)
        return length;
    put_base64(&out, encoded, base64_write(encoded, signature, (size_t)length));
    put(&out, "\r\n", 2);
    return out.full ? -E2BIG : (int)out.length;
}

/* Puts a field before the message, in its headroom, or makes headroom where that is used up. */
static int prepend(struct message *message, const char *field, size_t length) {
    if (message->start < length) {
        size_t start = length + MESSAGE_HEADROOM_BYTES;
        uint8_t *bytes = malloc(start + message->own_length);
        if (bytes == NULL)
            return -ENOMEM;
        memcpy(bytes + start, message->bytes + message->start, message->own_length);
        free(message->bytes);
        message->bytes = bytes;
        message->capacity = start + message->own_length;
        message->start = start;
    }
    message->start -= length;
    message->length += length;
    message->own_length += length;
    message->header_length += length;
    memcpy(message->bytes + message->start, field, length);
    return 0;
}

int dkim_sign(struct dkim_signer *signer, struct message *message, const char *tenant, uint64_t time_s) {
    (void)tenant;
    uint32_t first = 0, count = dkim_keys_find(signer->keys, message->from_domain, &first);
    uint8_t digest[DIGEST_BYTES];
    char body_hash[DIGEST_BYTES * 2] = "";
    if (count == 0)
        return 0;
    canonical_begin(&signer->canonical);
    canonical_body(&signer->canonical, message->bytes + message->start + message->header_length, message->length - message->header_length);
    if (canonical_end(&signer->canonical, digest) < 0)
        return -EIO;
    body_hash[base64_write(body_hash, digest, sizeof(digest))] = '\0';
    for (uint32_t i = count; i-- > 0;) {
        /* Again for each: the fields move when headroom is made. Signatures do not sign one another. */
        int result = find_fields(signer, message->bytes + message->start, message->header_length);
        if (result == 0)
            result = make_field(signer, &signer->keys->keys[first + i], body_hash, time_s);
        if (result > 0)
            result = prepend(message, signer->text, (size_t)result);
        if (result < 0)
            return result;
    }
    return (int)count;
}
