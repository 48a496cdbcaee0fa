/* lanes_key.c: makes a key for the lanes from the numbers of RSA's private key (RFC 8017 3.2), after checking that they belong together.
 * Its arithmetic is for loading: simple, one number at a time, not constant in time. */
#include "lanes_key.h"

#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

enum { PRIME_BITS = 8 * LANES_HALF_BYTES, KEY_MAPPED_BYTES = (sizeof(struct lanes_key) + 4095) / 4096 * 4096 };

/* Secret intermediates, to be wiped in one piece. */
struct key_work {
    uint64_t private_exponent[HALF_DIGITS + 1], left[HALF_DIGITS + 1], right[HALF_DIGITS + 1], less_one[HALF_DIGITS];
    uint64_t product[WHOLE_DIGITS], sum[WHOLE_DIGITS + 1], less[WHOLE_DIGITS];
    uint64_t qinv[HALF_DIGITS];
    uint8_t encoded[LANES][LANES_BYTES], signatures[LANES][LANES_BYTES];
};

/* a - b; the borrow: 1 when a < b. */
static uint64_t number_subtract(uint64_t *result, const uint64_t *a, const uint64_t *b, unsigned count) {
    uint64_t borrow = 0;
    for (unsigned i = 0; i < count; i++) {
        uint64_t digit = a[i] - b[i] - borrow;
        result[i] = digit & DIGIT_MASK;
        borrow = digit >> 63;
    }
    return borrow;
}

static bool number_is_less(struct key_work *work, const uint64_t *a, const uint64_t *b, unsigned count) {
    return number_subtract(work->less, a, b, count) != 0;
}

/* result[count + 1] = a[count] * factor + addend, for a factor of at most 52 bits. */
static void number_scale(uint64_t *result, const uint64_t *a, uint64_t factor, uint64_t addend, unsigned count) {
    unsigned __int128 carry = addend;
    for (unsigned i = 0; i < count; i++) {
        carry += (unsigned __int128)a[i] * factor;
        result[i] = (uint64_t)carry & DIGIT_MASK;
        carry >>= DIGIT_BITS;
    }
    result[count] = (uint64_t)carry;
}

/* number = 2^to modulo the modulus, from 2^from. */
static void number_double(struct key_work *work, uint64_t *number, const uint64_t *modulus, unsigned count, unsigned from, unsigned to) {
    for (; from < to; from++) {
        uint64_t carry = 0;
        for (unsigned i = 0; i < count; i++) {
            uint64_t digit = number[i] << 1 | carry;
            carry = digit >> DIGIT_BITS;
            number[i] = digit & DIGIT_MASK;
        }
        if (number_subtract(work->less, number, modulus, count) == 0)
            memcpy(number, work->less, count * sizeof(*number));
    }
}

/* -1 / modulus modulo 2^52, by Newton's iteration: each doubles the bits that are right. */
static uint64_t number_inverse(uint64_t modulus) {
    uint64_t inverse = modulus; /* three bits are right for every odd number */
    for (unsigned bits = 3; bits < 64; bits *= 2)
        inverse *= 2 - modulus * inverse;
    return (0 - inverse) & DIGIT_MASK;
}

/* result = a * b / R modulo the half's prime; a and b below twice the prime. */
static void number_multiply(struct key_work *work, uint64_t *result, const uint64_t *a, const uint64_t *b, const struct lanes_half *half) {
    uint64_t *sum = work->sum;
    memset(work->sum, 0, sizeof(work->sum));
    for (unsigned i = 0; i < HALF_DIGITS; i++) {
        uint64_t quotient = (uint64_t)(((unsigned __int128)a[i] * b[0] + sum[0]) * half->inverse) & DIGIT_MASK;
        unsigned __int128 carry = 0;
        for (unsigned j = 0; j < HALF_DIGITS; j++) {
            carry += (unsigned __int128)a[i] * b[j] + sum[j];
            carry += (unsigned __int128)quotient * half->prime[j];
            if (j > 0)
                sum[j - 1] = (uint64_t)carry & DIGIT_MASK;
            carry >>= DIGIT_BITS;
        }
        sum[HALF_DIGITS - 1] = (uint64_t)carry;
    }
    memcpy(result, sum, HALF_DIGITS * sizeof(*result));
    if (number_subtract(work->less, result, half->prime, HALF_DIGITS) == 0)
        memcpy(result, work->less, HALF_DIGITS * sizeof(*result));
}

/* Whether e * exponent = 1 modulo prime - 1, where exponent < prime - 1: then e * exponent = 1 + k * (prime - 1), and the uppermost bits
 * alone tell what k, which is below e, would be. */
static bool exponent_inverts(struct key_work *work, const uint64_t *prime) {
    unsigned __int128 above, below;
    memcpy(work->less_one, prime, sizeof(work->less_one));
    work->less_one[0] -= 1; /* odd, so nothing is borrowed */
    if (!number_is_less(work, work->private_exponent, work->less_one, HALF_DIGITS))
        return false;
    number_scale(work->left, work->private_exponent, LANES_EXPONENT, 0, HALF_DIGITS);
    above = (unsigned __int128)work->left[HALF_DIGITS] << 2 * DIGIT_BITS | (unsigned __int128)work->left[HALF_DIGITS - 1] << DIGIT_BITS |
            work->left[HALF_DIGITS - 2];
    below = (unsigned __int128)prime[HALF_DIGITS - 1] << DIGIT_BITS | prime[HALF_DIGITS - 2];
    number_scale(work->right, work->less_one, (uint64_t)(above / below), 1, HALF_DIGITS);
    return memcmp(work->left, work->right, sizeof(work->left)) == 0;
}

static bool half_create(struct key_work *work, struct lanes_half *half, const uint8_t *prime, const uint8_t *exponent) {
    if ((prime[0] & 0x80) == 0 || (prime[LANES_HALF_BYTES - 1] & 1) == 0)
        return false;
    digits_from_bytes(half->prime, HALF_DIGITS, prime, LANES_HALF_BYTES);
    digits_from_bytes(work->private_exponent, HALF_DIGITS, exponent, LANES_HALF_BYTES);
    if (!exponent_inverts(work, half->prime))
        return false;
    half->inverse = number_inverse(half->prime[0]);
    for (unsigned i = 0; i < EXPONENT_WORDS; i++) {
        unsigned bit = i * EXPONENT_WORD_BITS, digit = bit / DIGIT_BITS, shift = bit % DIGIT_BITS;
        uint64_t word = work->private_exponent[digit] >> shift;
        for (unsigned have = DIGIT_BITS - shift; have < EXPONENT_WORD_BITS && ++digit < HALF_DIGITS; have += DIGIT_BITS)
            word |= work->private_exponent[digit] << have;
        half->exponent[i] = word & (((uint64_t)1 << EXPONENT_WORD_BITS) - 1);
    }
    memset(half->r2, 0, sizeof(half->r2));
    half->r2[(PRIME_BITS - 1) / DIGIT_BITS] = (uint64_t)1 << (PRIME_BITS - 1) % DIGIT_BITS;
    number_double(work, half->r2, half->prime, HALF_DIGITS, PRIME_BITS - 1, 2 * HALF_DIGITS * DIGIT_BITS);
    memcpy(half->r3, half->r2, sizeof(half->r3));
    number_double(work, half->r3, half->prime, HALF_DIGITS, 2 * HALF_DIGITS * DIGIT_BITS, 3 * HALF_DIGITS * DIGIT_BITS);
    return true;
}

static bool whole_create(struct key_work *work, struct lanes_key *key, const uint8_t *n) {
    const uint64_t *p = key->halves[0].prime, *q = key->halves[1].prime;
    digits_from_bytes(key->modulus, WHOLE_DIGITS, n, LANES_BYTES);
    memset(work->product, 0, sizeof(work->product));
    for (unsigned i = 0; i < HALF_DIGITS; i++) {
        unsigned __int128 carry = 0;
        for (unsigned j = 0; j < HALF_DIGITS; j++) {
            carry += (unsigned __int128)p[i] * q[j] + work->product[i + j];
            work->product[i + j] = (uint64_t)carry & DIGIT_MASK;
            carry >>= DIGIT_BITS;
        }
        work->product[i + HALF_DIGITS] = (uint64_t)carry;
    }
    if (memcmp(work->product, key->modulus, sizeof(key->modulus)) != 0 || memcmp(p, q, sizeof(key->halves[0].prime)) == 0)
        return false;
    key->inverse = number_inverse(key->modulus[0]);
    /* The product of two numbers of 1024 bits is above 2^2046. */
    key->r2[(LANES_BITS - 2) / DIGIT_BITS] = (uint64_t)1 << (LANES_BITS - 2) % DIGIT_BITS;
    number_double(work, key->r2, key->modulus, WHOLE_DIGITS, LANES_BITS - 2, 2 * WHOLE_DIGITS * DIGIT_BITS);
    return true;
}

static bool qinv_create(struct key_work *work, struct lanes_key *key, const uint8_t *qinv) {
    const struct lanes_half *p = &key->halves[0];
    digits_from_bytes(work->qinv, HALF_DIGITS, qinv, LANES_HALF_BYTES);
    if (!number_is_less(work, work->qinv, p->prime, HALF_DIGITS))
        return false;
    number_multiply(work, key->qinv, work->qinv, p->r2, p);
    number_multiply(work, work->left, key->qinv, key->halves[1].prime, p);
    uint64_t not_one = work->left[0] ^ 1;
    for (unsigned i = 1; i < HALF_DIGITS; i++)
        not_one |= work->left[i];
    return not_one == 0;
}

/* Signs eight messages. What comes back only if both primes pass Fermat's test with eight bases, and if the processor computes as it
 * should. */
static bool key_signs(struct key_work *work, const struct lanes_key *key) {
    const struct lanes_key *keys[LANES];
    uint32_t state = 1;
    for (unsigned lane = 0; lane < LANES; lane++) {
        keys[lane] = key;
        work->encoded[lane][0] = 0;
        for (unsigned i = 1; i < LANES_BYTES; i++) {
            state = state * 1664525 + 1013904223;
            work->encoded[lane][i] = (uint8_t)(state >> 24);
        }
    }
    return lanes_sign(lanes_can(LANES_IFMA) ? LANES_IFMA : LANES_PLAIN, keys, work->encoded, work->signatures) == (1u << LANES) - 1;
}

struct lanes_key *lanes_key_create(const uint8_t *n, uint32_t e, const uint8_t *p, const uint8_t *q, const uint8_t *dp, const uint8_t *dq,
                                   const uint8_t *qinv) {
    struct key_work work;
    /* Whole pages of its own, so that locking and wiping touch nothing else. */
    struct lanes_key *key = mmap(NULL, KEY_MAPPED_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (key == MAP_FAILED)
        return NULL;
    /* Neither is granted everywhere; the key works without. */
    (void)madvise(key, KEY_MAPPED_BYTES, MADV_DONTDUMP);
    (void)mlock(key, KEY_MAPPED_BYTES);
    bool good = e == LANES_EXPONENT && half_create(&work, &key->halves[0], p, dp) && half_create(&work, &key->halves[1], q, dq) &&
                whole_create(&work, key, n) && qinv_create(&work, key, qinv) && key_signs(&work, key);
    explicit_bzero(&work, sizeof(work));
    if (!good) {
        lanes_key_free(key);
        return NULL;
    }
    return key;
}

void lanes_key_free(struct lanes_key *key) {
    if (key == NULL)
        return;
    explicit_bzero(key, KEY_MAPPED_BYTES);
    munmap(key, KEY_MAPPED_BYTES);
}
