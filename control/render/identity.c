/* identity.c: the key of Message-IDs and tokens, read from a file, and SipHash-2-4-128 under it. */
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/sha256.h>

#include "identity.h"
#include "render.h"
#include "token.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { IDENTITY_FILE_MIN = 32, IDENTITY_FILE_MAX = 4096, SIPHASH_KEY_BYTES = 16 };

struct identity {
    uint8_t message_key[SIPHASH_KEY_BYTES];
    struct token_keys *token_keys;
};

static uint64_t rotate(uint64_t word, int bits) {
    return word << bits | word >> (64 - bits);
}

struct sip {
    uint64_t a, b, c, d;
};

static inline struct sip sip_round(struct sip v) {
    v.a += v.b, v.b = rotate(v.b, 13) ^ v.a, v.a = rotate(v.a, 32);
    v.c += v.d, v.d = rotate(v.d, 16) ^ v.c;
    v.a += v.d, v.d = rotate(v.d, 21) ^ v.a;
    v.c += v.b, v.b = rotate(v.b, 17) ^ v.c, v.c = rotate(v.c, 32);
    return v;
}

static inline struct sip sip_rounds(struct sip v) {
    return sip_round(sip_round(sip_round(sip_round(v))));
}

static uint64_t word_at(const uint8_t *bytes) {
    uint64_t word;
    memcpy(&word, bytes, sizeof(word));
    return word; /* little endian, as are all machines that run DPDK here */
}

void siphash_128(const uint8_t *key, const uint8_t *data, size_t length, uint8_t *out) {
    uint64_t k0 = word_at(key), k1 = word_at(key + 8);
    struct sip v = {0x736f6d6570736575 ^ k0, 0x646f72616e646f6d ^ k1 ^ 0xee, 0x6c7967656e657261 ^ k0, 0x7465646279746573 ^ k1};
    uint8_t tail[8] = {0};
    size_t whole = length & ~(size_t)7;
    if (length > whole)
        memcpy(tail, data + whole, length - whole);
    tail[7] = (uint8_t)length;
    for (size_t at = 0; at <= whole; at += 8) {
        uint64_t word = word_at(at < whole ? data + at : tail);
        v.d ^= word;
        v = sip_round(sip_round(v));
        v.a ^= word;
    }
    v.c ^= 0xee;
    v = sip_rounds(v);
    uint64_t first = v.a ^ v.b ^ v.c ^ v.d;
    v.b ^= 0xdd;
    v = sip_rounds(v);
    uint64_t second = v.a ^ v.b ^ v.c ^ v.d;
    memcpy(out, &first, sizeof(first));
    memcpy(out + sizeof(first), &second, sizeof(second));
}

struct identity *identity_load(const char *path) {
    uint8_t bytes[IDENTITY_FILE_MAX], digest[WC_SHA256_DIGEST_SIZE];
    size_t length = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC), failure = 0;
    if (fd < 0)
        return NULL;
    while (length < sizeof(bytes) && failure == 0) {
        ssize_t got = read(fd, bytes + length, sizeof(bytes) - length);
        if (got == 0)
            break;
        if (got > 0)
            length += (size_t)got;
        else if (errno != EINTR)
            failure = errno;
    }
    close(fd);
    if (failure == 0 && length < IDENTITY_FILE_MIN)
        failure = EINVAL;
    struct identity *identity = failure == 0 ? calloc(1, sizeof(*identity)) : NULL;
    if (identity != NULL) {
        wc_Sha256 sha;
        if (wc_InitSha256(&sha) != 0 || wc_Sha256Update(&sha, bytes, (word32)length) != 0 || wc_Sha256Final(&sha, digest) != 0)
            failure = EIO;
        wc_Sha256Free(&sha);
        memcpy(identity->message_key, digest, sizeof(identity->message_key));
        explicit_bzero(digest, sizeof(digest));
        identity->token_keys = token_keys_create(bytes, length);
        failure = identity->token_keys == NULL ? errno : failure;
    } else if (failure == 0) {
        failure = ENOMEM;
    }
    explicit_bzero(bytes, sizeof(bytes));
    if (failure != 0) {
        identity_free(identity);
        errno = failure;
        return NULL;
    }
    return identity;
}

void identity_free(struct identity *identity) {
    if (identity != NULL) {
        token_keys_free(identity->token_keys);
        explicit_bzero(identity, sizeof(*identity));
    }
    free(identity);
}

const struct token_keys *identity_token_keys(const struct identity *identity) {
    return identity->token_keys;
}

/* Adds the hash of a text to the input of another: the sum has a fixed length, whatever the text's. */
static size_t input_text(const struct identity *identity, uint8_t *input, const char *text) {
    siphash_128(identity->message_key, (const uint8_t *)text, text == NULL ? 0 : strlen(text), input);
    return 16;
}

/* Four bytes at a time: each nibble in a byte of its own, and what is over 9 moved from '9' + 1 to 'a'. */
static void write_hex(const uint8_t *hash, char *hex) {
    static const uint64_t ones = 0x0101010101010101, low_nibbles = 0x000F000F000F000F;
    for (int i = 0; i < 16; i += 4) {
        uint32_t bytes;
        memcpy(&bytes, hash + i, sizeof(bytes));
        uint64_t spread = (bytes | (uint64_t)bytes << 16) & 0x0000FFFF0000FFFF;
        spread = (spread | spread << 8) & 0x00FF00FF00FF00FF;
        uint64_t nibbles = (spread >> 4 & low_nibbles) | (spread & low_nibbles) << 8;
        uint64_t letters = (nibbles + 6 * ones) >> 4 & ones;
        uint64_t digits = nibbles + '0' * ones + letters * ('a' - '9' - 1);
        memcpy(hex + 2 * i, &digits, sizeof(digits));
    }
    hex[32] = '\0';
}

void identity_boundary(const struct identity *identity, const char *content_id, char *hex) {
    uint8_t hash[16], input[64] = {'c'};
    siphash_128(identity->message_key, input, 1 + input_text(identity, input + 1, content_id), hash);
    write_hex(hash, hex);
}

void identity_name(const struct identity *identity, const struct job *job, uint32_t index, char *hex) {
    uint8_t hash[16], input[64];
    const struct job_recipient *recipient = job_recipient(job, index);
    bool is_private = recipient != NULL && recipient->kind == RECIPIENT_PRIVATE;
    uint32_t number = is_private ? index : UINT32_MAX;
    size_t length = sizeof(number);
    memcpy(input, &number, sizeof(number));
    if (job->id != NULL && job->id[0] != '\0') {
        input[length++] = 'i';
        length += input_text(identity, input + length, job->id);
        length += input_text(identity, input + length, job->tenant);
    } else {
        input[length++] = 'e';
        memcpy(input + length, &job->history.origin, sizeof(job->history.origin));
        length += sizeof(job->history.origin);
        memcpy(input + length, &job->shard, sizeof(job->shard));
        length += sizeof(job->shard);
        length += input_text(identity, input + length, job->queue);
    }
    siphash_128(identity->message_key, input, length, hash);
    write_hex(hash, hex);
}
