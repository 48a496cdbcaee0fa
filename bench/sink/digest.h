/* digest.h: the digests of X-Body-Digest, fed in pieces: sha256 (wolfSSL) and xxh64 (XXH64 with seed 0, big-endian hex), which costs a
 * tenth and finds damage as well, though not malice. */
#ifndef BENCH_SINK_DIGEST_H
#define BENCH_SINK_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/sha256.h>

enum { DIGEST_BYTES_MAX = 32, XXH64_STRIPE_BYTES = 32 };

struct xxh64 {
    uint64_t lanes[4];
    uint64_t total;
    uint8_t stripe[XXH64_STRIPE_BYTES];
    uint32_t gathered; /* bytes in stripe */
};

void xxh64_start(struct xxh64 *hash, uint64_t seed);
void xxh64_add(struct xxh64 *hash, const void *bytes, size_t length);
uint64_t xxh64_end(const struct xxh64 *hash, uint64_t seed);
/* In one call. */
uint64_t xxh64(const void *bytes, size_t length, uint64_t seed);

enum digest_kind { DIGEST_NONE, DIGEST_SHA256, DIGEST_XXH64 };

struct digest {
    enum digest_kind kind;
    union {
        struct xxh64 xxh64;
        wc_Sha256 sha256;
    };
};

/* Reads a header's value, "sha256=HEX" or "xxh64=HEX" (case does not matter): the kind and the bytes to be expected, or DIGEST_NONE. */
enum digest_kind digest_parse(const char *text, size_t length, uint8_t expected[DIGEST_BYTES_MAX]);
void digest_start(struct digest *digest, enum digest_kind kind);
void digest_add(struct digest *digest, const void *bytes, size_t length);
/* Ends it: is it the one expected? */
bool digest_matches(struct digest *digest, const uint8_t expected[DIGEST_BYTES_MAX]);

#endif
