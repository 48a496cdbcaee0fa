/* token.c: tokens of links (AES-256-GCM, base64url) and of VERP addresses (HMAC-SHA256, base32). */
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/aes.h>
#include <wolfssl/wolfcrypt/hmac.h>

#include "token.h"
#include "identity.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_BYTES = WC_SHA256_DIGEST_SIZE,
    BLOCK_BYTES = WC_SHA256_BLOCK_SIZE,
    SIPHASH_KEY_BYTES = 16,
    NONCE_BYTES = 12,
    TAG_BYTES = 16,
    TOKEN_VERSION = 1,
    MEMBER_HEAD_BYTES = 2, /* type, length */
    ENTRY_BYTES = 11,      /* ms in 6, seq in 4, shard in 1 */
    VERP_BYTES = ENTRY_BYTES + 2,
    VERP_MAC_BYTES = 10,
    VERP_VERSION = 'a',
};
static_assert(TOKEN_OVERHEAD_BYTES == 1 + NONCE_BYTES + TAG_BYTES, "a token's frame");
static_assert(VERP_TOKEN_CHARACTERS == 1 + ((VERP_BYTES + VERP_MAC_BYTES) * 8 + 4) / 5, "a VERP token's length");

/* What a payload consists of: type, length and bytes of each member, in this order. */
enum member { MEMBER_RECIPIENT = 1, MEMBER_TENANT, MEMBER_CAMPAIGN, MEMBER_LIST, MEMBER_ID, MEMBER_ENTRY, MEMBER_INDEX };

struct token_keys {
    Aes cipher; /* only read once its key is set: threads share it */
    uint8_t nonce_key[SIPHASH_KEY_BYTES];
    wc_Sha256 inner, outer; /* HMAC's two hashes, begun with the key (RFC 2104 4) */
};

static int hmac_256(const uint8_t *key, size_t key_length, const char *text, uint8_t *out) {
    Hmac hmac;
    int code = wc_HmacInit(&hmac, NULL, INVALID_DEVID);
    if (code == 0 && (code = wc_HmacSetKey(&hmac, WC_SHA256, key, (word32)key_length)) == 0 &&
        (code = wc_HmacUpdate(&hmac, (const byte *)text, (word32)strlen(text))) == 0)
        code = wc_HmacFinal(&hmac, out);
    wc_HmacFree(&hmac);
    return code;
}

static int hash_begin(wc_Sha256 *hash, const uint8_t *key, uint8_t pad) {
    uint8_t block[BLOCK_BYTES];
    memset(block, pad, sizeof(block));
    for (size_t i = 0; i < KEY_BYTES; i++)
        block[i] ^= key[i];
    int code = wc_InitSha256(hash);
    code = code != 0 ? code : wc_Sha256Update(hash, block, sizeof(block));
    explicit_bzero(block, sizeof(block));
    return code;
}

struct token_keys *token_keys_create(const uint8_t *secret, size_t length) {
    uint8_t key[KEY_BYTES] = {0};
    struct token_keys *keys = calloc(1, sizeof(*keys));
    if (keys == NULL)
        return NULL;
    bool good = wc_AesInit(&keys->cipher, NULL, INVALID_DEVID) == 0 && hmac_256(secret, length, "bypost token 1", key) == 0 &&
                wc_AesGcmSetKey(&keys->cipher, key, sizeof(key)) == 0 && hmac_256(secret, length, "bypost nonce 1", key) == 0;
    memcpy(keys->nonce_key, key, sizeof(keys->nonce_key));
    good = good && hmac_256(secret, length, "bypost verp 1", key) == 0 && hash_begin(&keys->inner, key, 0x36) == 0 &&
           hash_begin(&keys->outer, key, 0x5c) == 0;
    explicit_bzero(key, sizeof(key));
    if (!good) {
        token_keys_free(keys);
        errno = EIO;
        return NULL;
    }
    return keys;
}

void token_keys_free(struct token_keys *keys) {
    if (keys == NULL)
        return;
    wc_AesFree(&keys->cipher);
    wc_Sha256Free(&keys->inner);
    wc_Sha256Free(&keys->outer);
    explicit_bzero(keys, sizeof(*keys));
    free(keys);
}

/* -- what a token holds -- */

static void put_number(uint8_t *out, size_t bytes, uint64_t number) {
    for (size_t i = 0; i < bytes; i++)
        out[i] = (uint8_t)(number >> 8 * (bytes - 1 - i));
}

static uint64_t number_of(const uint8_t *bytes, size_t length) {
    uint64_t number = 0;
    for (size_t i = 0; i < length; i++)
        number = number << 8 | bytes[i];
    return number;
}

static bool entry_fits(const struct token *token) {
    return token->entry.ms >> 48 == 0 && token->entry.seq <= UINT32_MAX && token->shard <= UINT8_MAX && token->index <= UINT16_MAX;
}

static void entry_put(uint8_t *out, const struct token *token) {
    put_number(out, 6, token->entry.ms);
    put_number(out + 6, 4, token->entry.seq);
    out[10] = (uint8_t)token->shard;
}

static void entry_take(const uint8_t *bytes, struct token *token) {
    token->has_entry = true;
    token->entry = (struct entry_id){.ms = number_of(bytes, 6), .seq = number_of(bytes + 6, 4)};
    token->shard = bytes[10];
}

struct payload {
    uint8_t bytes[TOKEN_PAYLOAD_MAX];
    size_t length;
    bool over;
};

static void payload_add(struct payload *payload, enum member type, const void *bytes, size_t length) {
    payload->over |= length > UINT8_MAX || payload->length + MEMBER_HEAD_BYTES + length > sizeof(payload->bytes);
    if (payload->over || length == 0)
        return;
    payload->bytes[payload->length++] = (uint8_t)type;
    payload->bytes[payload->length++] = (uint8_t)length;
    memcpy(payload->bytes + payload->length, bytes, length);
    payload->length += length;
}

static int payload_write(struct payload *payload, const struct token *token) {
    uint8_t number[ENTRY_BYTES];
    payload->length = 0;
    payload->over = !entry_fits(token);
    payload_add(payload, MEMBER_RECIPIENT, token->recipient, strlen(token->recipient));
    payload_add(payload, MEMBER_TENANT, token->tenant, strlen(token->tenant));
    payload_add(payload, MEMBER_CAMPAIGN, token->campaign, strlen(token->campaign));
    payload_add(payload, MEMBER_LIST, token->list, strlen(token->list));
    payload_add(payload, MEMBER_ID, token->id, strlen(token->id));
    entry_put(number, token);
    payload_add(payload, MEMBER_ENTRY, number, token->has_entry ? ENTRY_BYTES : 0);
    put_number(number, 2, token->index);
    payload_add(payload, MEMBER_INDEX, number, 2);
    return payload->over ? -EINVAL : 0;
}

static bool text_take(const uint8_t *bytes, size_t length, char *out, size_t out_bytes) {
    if (length >= out_bytes || memchr(bytes, '\0', length) != NULL)
        return false;
    memcpy(out, bytes, length);
    out[length] = '\0';
    return true;
}

static bool member_take(struct token *out, uint8_t type, const uint8_t *bytes, size_t length) {
    switch (type) {
    case MEMBER_RECIPIENT:
        return text_take(bytes, length, out->recipient, sizeof(out->recipient));
    case MEMBER_TENANT:
        return text_take(bytes, length, out->tenant, sizeof(out->tenant));
    case MEMBER_CAMPAIGN:
        return text_take(bytes, length, out->campaign, sizeof(out->campaign));
    case MEMBER_LIST:
        return text_take(bytes, length, out->list, sizeof(out->list));
    case MEMBER_ID:
        return text_take(bytes, length, out->id, sizeof(out->id));
    case MEMBER_ENTRY:
        if (length == ENTRY_BYTES)
            entry_take(bytes, out);
        return length == ENTRY_BYTES;
    case MEMBER_INDEX:
        out->index = (uint32_t)number_of(bytes, length);
        return length == 2;
    default:
        return true; /* of a later release that kept the version */
    }
}

static int payload_read(const uint8_t *bytes, size_t length, struct token *out) {
    for (size_t at = 0; at < length;) {
        if (at + MEMBER_HEAD_BYTES > length || at + MEMBER_HEAD_BYTES + bytes[at + 1] > length ||
            !member_take(out, bytes[at], bytes + at + MEMBER_HEAD_BYTES, bytes[at + 1]))
            return -EBADMSG;
        at += MEMBER_HEAD_BYTES + (size_t)bytes[at + 1];
    }
    return 0;
}

/* -- alphabets -- */

static const char base64url_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"; /* RFC 4648 5 */
static const char base32_digits[] = "abcdefghijklmnopqrstuvwxyz234567";                                    /* RFC 4648 6, lower case */

/* Without padding. The length. */
static size_t digits_write(const uint8_t *bytes, size_t length, const char *digits, unsigned bits, char *out) {
    size_t written = 0;
    uint32_t held = 0;
    unsigned held_bits = 0;
    for (size_t i = 0; i < length; i++) {
        held = (held << 8 | bytes[i]) & 0xffffff;
        for (held_bits += 8; held_bits >= bits; held_bits -= bits)
            out[written++] = digits[held >> (held_bits - bits) & ((1u << bits) - 1)];
    }
    if (held_bits > 0)
        out[written++] = digits[held << (bits - held_bits) & ((1u << bits) - 1)];
    out[written] = '\0';
    return written;
}

/* False when there is another character, or bits that belong to no byte are set: a token has one form. */
static bool digits_read(const char *text, size_t length, const char *digits, unsigned bits, uint8_t *out) {
    uint32_t held = 0;
    unsigned held_bits = 0;
    for (size_t i = 0; i < length; i++) {
        const char *digit = text[i] == '\0' ? NULL : strchr(digits, text[i]);
        if (digit == NULL)
            return false;
        held = (held << bits | (uint32_t)(digit - digits)) & 0xffffff;
        held_bits += bits;
        if (held_bits >= 8) {
            held_bits -= 8;
            *out++ = (uint8_t)(held >> held_bits);
        }
    }
    return held_bits < bits && (held & ((1u << held_bits) - 1)) == 0;
}

/* -- tokens of links -- */

int token_write(const struct identity *identity, const struct token *token, char *out) {
    const struct token_keys *keys = identity_token_keys(identity);
    struct payload payload;
    uint8_t bytes[TOKEN_PAYLOAD_MAX + TOKEN_OVERHEAD_BYTES], hash[16], version = TOKEN_VERSION;
    if (payload_write(&payload, token) != 0)
        return -EINVAL;
    siphash_128(keys->nonce_key, payload.bytes, payload.length, hash);
    bytes[0] = version;
    memcpy(bytes + 1, hash, NONCE_BYTES);
    uint8_t *sealed = bytes + 1 + NONCE_BYTES;
    if (wc_AesGcmEncrypt((Aes *)&keys->cipher, sealed, payload.bytes, (word32)payload.length, hash, NONCE_BYTES, sealed + payload.length,
                         TAG_BYTES, &version, 1) != 0)
        return -EINVAL;
    return (int)digits_write(bytes, payload.length + TOKEN_OVERHEAD_BYTES, base64url_digits, 6, out);
}

int token_read(const struct identity *identity, const char *text, size_t length, struct token *out) {
    const struct token_keys *keys = identity_token_keys(identity);
    uint8_t bytes[TOKEN_PAYLOAD_MAX + TOKEN_OVERHEAD_BYTES + 3], payload[TOKEN_PAYLOAD_MAX];
    size_t total = length * 3 / 4;
    *out = (struct token){.index = 0};
    if (length >= TOKEN_TEXT_BYTES || total < TOKEN_OVERHEAD_BYTES || total > TOKEN_PAYLOAD_MAX + TOKEN_OVERHEAD_BYTES ||
        !digits_read(text, length, base64url_digits, 6, bytes))
        return -EINVAL;
    if (bytes[0] != TOKEN_VERSION)
        return bytes[0] > TOKEN_VERSION ? -ENOTSUP : -EINVAL;
    const uint8_t *sealed = bytes + 1 + NONCE_BYTES;
    size_t payload_length = total - TOKEN_OVERHEAD_BYTES;
    if (wc_AesGcmDecrypt((Aes *)&keys->cipher, payload, sealed, (word32)payload_length, bytes + 1, NONCE_BYTES, sealed + payload_length,
                         TAG_BYTES, bytes, 1) != 0)
        return -EBADMSG;
    return payload_read(payload, payload_length, out);
}

/* -- tokens of VERP addresses -- */

static int verp_mac(const struct token_keys *keys, const uint8_t *bytes, uint8_t *mac) {
    uint8_t digest[KEY_BYTES];
    wc_Sha256 hash;
    int code = wc_Sha256Copy((wc_Sha256 *)&keys->inner, &hash);
    if (code != 0)
        return -EINVAL;
    code = wc_Sha256Update(&hash, bytes, VERP_BYTES);
    code = code != 0 ? code : wc_Sha256Final(&hash, digest);
    wc_Sha256Free(&hash);
    code = code != 0 ? code : wc_Sha256Copy((wc_Sha256 *)&keys->outer, &hash);
    if (code != 0)
        return -EINVAL;
    code = wc_Sha256Update(&hash, digest, sizeof(digest));
    code = code != 0 ? code : wc_Sha256Final(&hash, digest);
    wc_Sha256Free(&hash);
    memcpy(mac, digest, VERP_MAC_BYTES);
    return code == 0 ? 0 : -EINVAL;
}

int verp_write(const struct identity *identity, const struct token *token, char *out) {
    uint8_t bytes[VERP_BYTES + VERP_MAC_BYTES];
    if (!entry_fits(token))
        return -EINVAL;
    entry_put(bytes, token);
    put_number(bytes + ENTRY_BYTES, 2, token->index);
    if (verp_mac(identity_token_keys(identity), bytes, bytes + VERP_BYTES) != 0)
        return -EINVAL;
    out[0] = VERP_VERSION;
    digits_write(bytes, sizeof(bytes), base32_digits, 5, out + 1);
    return 0;
}

int verp_read(const struct identity *identity, const char *address, struct token *out) {
    char text[VERP_TOKEN_CHARACTERS];
    uint8_t bytes[VERP_BYTES + VERP_MAC_BYTES + 1], mac[VERP_MAC_BYTES], differences = 0;
    size_t length = strcspn(address, "@");
    const char *plus = memrchr(address, '+', length);
    const char *token = plus == NULL ? address : plus + 1;
    *out = (struct token){.index = 0};
    if (length - (size_t)(token - address) != VERP_TOKEN_CHARACTERS)
        return -EINVAL;
    for (size_t i = 0; i < VERP_TOKEN_CHARACTERS; i++)
        text[i] = token[i] >= 'A' && token[i] <= 'Z' ? (char)(token[i] + ('a' - 'A')) : token[i];
    if (!digits_read(text + 1, VERP_TOKEN_CHARACTERS - 1, base32_digits, 5, bytes))
        return -EINVAL;
    if (text[0] != VERP_VERSION)
        return -ENOTSUP;
    if (verp_mac(identity_token_keys(identity), bytes, mac) != 0)
        return -EBADMSG;
    for (size_t i = 0; i < VERP_MAC_BYTES; i++)
        differences |= mac[i] ^ bytes[VERP_BYTES + i];
    if (differences != 0)
        return -EBADMSG;
    entry_take(bytes, out);
    out->index = (uint32_t)number_of(bytes + ENTRY_BYTES, 2);
    return 0;
}
