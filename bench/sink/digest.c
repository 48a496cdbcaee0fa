/* digest.c: XXH64 after its public specification, SHA-256 from wolfSSL, and the header that names one of them. */
#include "digest.h"

#include <string.h>
#include <strings.h>

#define PRIME_1 0x9E3779B185EBCA87ULL
#define PRIME_2 0xC2B2AE3D27D4EB4FULL
#define PRIME_3 0x165667B19E3779F9ULL
#define PRIME_4 0x85EBCA77C2B2AE63ULL
#define PRIME_5 0x27D4EB2F165667C5ULL

static uint64_t rotate_left(uint64_t value, unsigned bits) {
    return value << bits | value >> (64 - bits);
}

static uint64_t read_little64(const uint8_t *bytes) {
    uint64_t value;
    memcpy(&value, bytes, sizeof(value));
    return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? value : __builtin_bswap64(value);
}

static uint32_t read_little32(const uint8_t *bytes) {
    uint32_t value;
    memcpy(&value, bytes, sizeof(value));
    return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? value : __builtin_bswap32(value);
}

static uint64_t xxh64_round(uint64_t lane, uint64_t input) {
    return rotate_left(lane + input * PRIME_2, 31) * PRIME_1;
}

static uint64_t xxh64_merge(uint64_t hash, uint64_t lane) {
    return (hash ^ xxh64_round(0, lane)) * PRIME_1 + PRIME_4;
}

void xxh64_start(struct xxh64 *hash, uint64_t seed) {
    hash->lanes[0] = seed + PRIME_1 + PRIME_2;
    hash->lanes[1] = seed + PRIME_2;
    hash->lanes[2] = seed;
    hash->lanes[3] = seed - PRIME_1;
    hash->total = 0;
    hash->gathered = 0;
}

static void xxh64_stripes(struct xxh64 *hash, const uint8_t *bytes, size_t stripes) {
    uint64_t a = hash->lanes[0], b = hash->lanes[1], c = hash->lanes[2], d = hash->lanes[3];
    for (; stripes > 0; stripes--, bytes += XXH64_STRIPE_BYTES) {
        a = xxh64_round(a, read_little64(bytes));
        b = xxh64_round(b, read_little64(bytes + 8));
        c = xxh64_round(c, read_little64(bytes + 16));
        d = xxh64_round(d, read_little64(bytes + 24));
    }
    hash->lanes[0] = a;
    hash->lanes[1] = b;
    hash->lanes[2] = c;
    hash->lanes[3] = d;
}

void xxh64_add(struct xxh64 *hash, const void *data, size_t length) {
    const uint8_t *bytes = data;
    hash->total += length;
    if (hash->gathered > 0) {
        size_t some = XXH64_STRIPE_BYTES - hash->gathered;
        if (some > length)
            some = length;
        memcpy(hash->stripe + hash->gathered, bytes, some);
        hash->gathered += (uint32_t)some;
        bytes += some;
        length -= some;
        if (hash->gathered < XXH64_STRIPE_BYTES)
            return;
        xxh64_stripes(hash, hash->stripe, 1);
        hash->gathered = 0;
    }
    size_t stripes = length / XXH64_STRIPE_BYTES;
    xxh64_stripes(hash, bytes, stripes);
    bytes += stripes * XXH64_STRIPE_BYTES;
    hash->gathered = (uint32_t)(length % XXH64_STRIPE_BYTES);
    memcpy(hash->stripe, bytes, hash->gathered);
}

uint64_t xxh64_end(const struct xxh64 *hash, uint64_t seed) {
    uint64_t value = seed + PRIME_5;
    if (hash->total >= XXH64_STRIPE_BYTES) {
        value = rotate_left(hash->lanes[0], 1) + rotate_left(hash->lanes[1], 7) + rotate_left(hash->lanes[2], 12) +
                rotate_left(hash->lanes[3], 18);
        for (unsigned lane = 0; lane < 4; lane++)
            value = xxh64_merge(value, hash->lanes[lane]);
    }
    value += hash->total;
    const uint8_t *bytes = hash->stripe;
    uint32_t left = hash->gathered;
    for (; left >= 8; left -= 8, bytes += 8)
        value = rotate_left(value ^ xxh64_round(0, read_little64(bytes)), 27) * PRIME_1 + PRIME_4;
    if (left >= 4) {
        value = rotate_left(value ^ read_little32(bytes) * PRIME_1, 23) * PRIME_2 + PRIME_3;
        left -= 4;
        bytes += 4;
    }
    for (; left > 0; left--, bytes++)
        value = rotate_left(value ^ *bytes * PRIME_5, 11) * PRIME_1;
    value = (value ^ value >> 33) * PRIME_2;
    value = (value ^ value >> 29) * PRIME_3;
    return value ^ value >> 32;
}

uint64_t xxh64(const void *bytes, size_t length, uint64_t seed) {
    struct xxh64 hash;
    xxh64_start(&hash, seed);
    xxh64_add(&hash, bytes, length);
    return xxh64_end(&hash, seed);
}

static int hex_value(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_hex(const char *text, size_t length, uint8_t *bytes, size_t count) {
    if (length != count * 2)
        return false;
    for (size_t i = 0; i < count; i++) {
        int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

enum digest_kind digest_parse(const char *text, size_t length, uint8_t expected[DIGEST_BYTES_MAX]) {
    if (length > 7 && strncasecmp(text, "sha256=", 7) == 0 && read_hex(text + 7, length - 7, expected, 32))
        return DIGEST_SHA256;
    if (length > 6 && strncasecmp(text, "xxh64=", 6) == 0 && read_hex(text + 6, length - 6, expected, 8))
        return DIGEST_XXH64;
    return DIGEST_NONE;
}

void digest_start(struct digest *digest, enum digest_kind kind) {
    digest->kind = kind;
    if (kind == DIGEST_SHA256)
        wc_InitSha256(&digest->sha256);
    else if (kind == DIGEST_XXH64)
        xxh64_start(&digest->xxh64, 0);
}

void digest_add(struct digest *digest, const void *bytes, size_t length) {
    if (digest->kind == DIGEST_SHA256)
        wc_Sha256Update(&digest->sha256, bytes, (word32)length);
    else if (digest->kind == DIGEST_XXH64)
        xxh64_add(&digest->xxh64, bytes, length);
}

bool digest_matches(struct digest *digest, const uint8_t expected[DIGEST_BYTES_MAX]) {
    uint8_t made[DIGEST_BYTES_MAX] = {0};
    if (digest->kind == DIGEST_SHA256) {
        wc_Sha256Final(&digest->sha256, made);
        return memcmp(made, expected, 32) == 0;
    }
    uint64_t value = xxh64_end(&digest->xxh64, 0);
    for (int i = 7; i >= 0; i--, value >>= 8)
        made[i] = (uint8_t)value;
    return digest->kind == DIGEST_XXH64 && memcmp(made, expected, 8) == 0;
}
