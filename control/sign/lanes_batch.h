/* lanes_batch.h: one batch of eight signatures, from bytes to bytes, on whichever vectors lanes_vector.h gives. */
#ifndef CONTROL_SIGN_LANES_BATCH_H
#define CONTROL_SIGN_LANES_BATCH_H

#include "lanes_montgomery.h"
#include <string.h>

/* A fixed window: every power of the base below 2^LANES_WINDOW_BITS in a table, LANES_WINDOW_BITS squarings and a product for each window,
 * zero windows too. */
enum {
    LANES_WINDOW_BITS = 5,
    LANES_POWERS = 1 << LANES_WINDOW_BITS,
    LANES_WINDOWS = (8 * LANES_HALF_BYTES + LANES_WINDOW_BITS - 1) / LANES_WINDOW_BITS,
    WINDOWS_IN_WORD = EXPONENT_WORD_BITS / LANES_WINDOW_BITS
};

/* Everything secret that a batch writes down, in one piece to be wiped. */
struct batch_half {
    struct vector prime[HALF_DIGITS], r2[HALF_DIGITS], r3[HALF_DIGITS], inverse;
    struct vector exponent[EXPONENT_WORDS];
    struct vector result[HALF_DIGITS];
};
struct batch {
    struct batch_half halves[2];
    struct vector powers[LANES_POWERS][HALF_DIGITS];
    struct vector power[HALF_DIGITS], one[HALF_DIGITS];
    struct vector qinv[HALF_DIGITS];
    struct vector modulus[WHOLE_DIGITS], r2[WHOLE_DIGITS], inverse;
    struct vector encoded[WHOLE_DIGITS], signature[WHOLE_DIGITS], opened[WHOLE_DIGITS];
    uint64_t digits[WHOLE_DIGITS];
};

static inline void batch_put(struct vector *vectors, unsigned lane, const uint64_t *numbers, unsigned count) {
    for (unsigned i = 0; i < count; i++)
        vector_put(&vectors[i], lane, numbers[i]);
}

/* A lane without a key has zeros everywhere, and computes zero. */
static inline void batch_load(struct batch *batch, const struct lanes_key *const keys[LANES], const uint8_t encoded[LANES][LANES_BYTES]) {
    memset(batch, 0, sizeof(*batch));
    batch->one[0] = vector_same(1);
    for (unsigned lane = 0; lane < LANES; lane++) {
        const struct lanes_key *key = keys[lane];
        if (key == NULL)
            continue;
        for (unsigned i = 0; i < 2; i++) {
            struct batch_half *half = &batch->halves[i];
            batch_put(half->prime, lane, key->halves[i].prime, HALF_DIGITS);
            batch_put(half->r2, lane, key->halves[i].r2, HALF_DIGITS);
            batch_put(half->r3, lane, key->halves[i].r3, HALF_DIGITS);
            batch_put(half->exponent, lane, key->halves[i].exponent, EXPONENT_WORDS);
            vector_put(&half->inverse, lane, key->halves[i].inverse);
        }
        batch_put(batch->qinv, lane, key->qinv, HALF_DIGITS);
        batch_put(batch->modulus, lane, key->modulus, WHOLE_DIGITS);
        batch_put(batch->r2, lane, key->r2, WHOLE_DIGITS);
        vector_put(&batch->inverse, lane, key->inverse);
        digits_from_bytes(batch->digits, WHOLE_DIGITS, encoded[lane], LANES_BYTES);
        batch_put(batch->encoded, lane, batch->digits, WHOLE_DIGITS);
    }
}

/* Reads the whole table, whichever power is wanted: no address depends on the exponent. Powers are taken two at a time, one instruction a
 * digit: until a lane's pair comes, its digits hold which of the two it wants. */
static inline void batch_choose_power(struct batch *batch, struct vector window) {
    struct vector power[HALF_DIGITS];
    struct vector even = vector_subtract(vector_and(window, vector_same(1)), vector_same(1)), pair = vector_shift_right(window, 1);
    UNROLL
    for (unsigned j = 0; j < HALF_DIGITS; j++)
        power[j] = even;
    for (unsigned i = 0; i < LANES_POWERS; i += 2) {
        struct choice wanted = vector_equal(pair, vector_same(i / 2));
        UNROLL
        for (unsigned j = 0; j < HALF_DIGITS; j++)
            power[j] = vector_choose_by_bits(wanted, power[j], batch->powers[i][j], batch->powers[i + 1][j]);
    }
    UNROLL
    for (unsigned j = 0; j < HALF_DIGITS; j++)
        batch->power[j] = power[j];
}

/* A test puts a leaky one in its place, to see that it would be found (tests/unit/sign/lanes_leaky.c). */
#ifndef BATCH_CHOOSE_POWER
#define BATCH_CHOOSE_POWER batch_choose_power
#endif

static inline struct vector exponent_window(const struct batch_half *half, unsigned i) {
    unsigned shift = i % WINDOWS_IN_WORD * LANES_WINDOW_BITS;
    return vector_and(vector_shift_right(half->exponent[i / WINDOWS_IN_WORD], shift), vector_same(LANES_POWERS - 1));
}

/* result = encoded ^ exponent modulo the prime. */
static inline void batch_raise(struct batch *batch, struct batch_half *half) {
    struct vector high[HALF_DIGITS];
    struct vector *result = half->result;
    /* encoded * R: its high 20 digits weigh R, so they are multiplied by R^3, the low ones by R^2, and each product loses an R. */
    half_multiply(high, batch->encoded + HALF_DIGITS, half->r3, half->prime, &half->inverse);
    half_multiply(batch->powers[1], batch->encoded, half->r2, half->prime, &half->inverse);
    digits_mask(high, HALF_DIGITS);
    digits_mask(batch->powers[1], HALF_DIGITS);
    for (unsigned j = 0; j < HALF_DIGITS; j++)
        batch->powers[1][j] = vector_add(batch->powers[1][j], high[j]);
    digits_carry(batch->powers[1], HALF_DIGITS);
    half_multiply(batch->powers[0], batch->one, half->r2, half->prime, &half->inverse);
    for (unsigned i = 2; i < LANES_POWERS; i += 2) {
        half_square(batch->powers[i], batch->powers[i / 2], half->prime, &half->inverse);
        half_multiply(batch->powers[i + 1], batch->powers[i], batch->powers[1], half->prime, &half->inverse);
    }
    BATCH_CHOOSE_POWER(batch, exponent_window(half, LANES_WINDOWS - 1));
    memcpy(result, batch->power, sizeof(batch->power));
    for (unsigned i = LANES_WINDOWS - 1; i-- > 0;) {
        for (unsigned j = 0; j < LANES_WINDOW_BITS; j++)
            half_square(result, result, half->prime, &half->inverse);
        BATCH_CHOOSE_POWER(batch, exponent_window(half, i));
        half_multiply(result, result, batch->power, half->prime, &half->inverse);
    }
    half_multiply(result, result, batch->one, half->prime, &half->inverse);
    digits_mask(result, HALF_DIGITS);
    digits_reduce_once(result, half->prime, HALF_DIGITS);
    explicit_bzero(high, sizeof(high));
}

/* Garner's recombination: signature = mq + q * ((mp - mq) * qinv mod p). */
static inline void batch_join(struct batch *batch) {
    const struct batch_half *p = &batch->halves[0], *q = &batch->halves[1];
    struct vector *difference = batch->power, *product = batch->signature;
    /* Two times p keeps the difference above zero: q has as many bits as p. */
    for (unsigned j = 0; j < HALF_DIGITS; j++)
        difference[j] = vector_subtract(vector_add(p->result[j], vector_add(p->prime[j], p->prime[j])), q->result[j]);
    digits_carry(difference, HALF_DIGITS);
    half_multiply(difference, difference, batch->qinv, p->prime, &p->inverse);
    digits_mask(difference, HALF_DIGITS);
    digits_reduce_once(difference, p->prime, HALF_DIGITS);
    digits_multiply(product, difference, q->prime, false);
    for (unsigned j = 0; j < HALF_DIGITS; j++)
        product[j] = vector_add(product[j], q->result[j]);
    digits_carry(product, WHOLE_DIGITS);
}

/* Raises the signature to 65537; a bit for each lane where that gives what was to be signed. */
static inline uint32_t batch_open(struct batch *batch) {
    struct vector *opened = batch->opened;
    struct vector differs = vector_same(0);
    whole_multiply(opened, batch->signature, batch->r2, batch->modulus, &batch->inverse);
    for (unsigned i = 0; i < 16; i++)
        whole_square(opened, opened, batch->modulus, &batch->inverse);
    /* One factor without R takes it out of the other. */
    whole_multiply(opened, opened, batch->signature, batch->modulus, &batch->inverse);
    digits_reduce_once(opened, batch->modulus, WHOLE_DIGITS);
    for (unsigned j = 0; j < WHOLE_DIGITS; j++)
        differs = vector_or(differs, vector_xor(opened[j], batch->encoded[j]));
    return choice_bits(vector_equal(differs, vector_same(0)));
}

static inline uint32_t batch_give(struct batch *batch, uint32_t good, const struct lanes_key *const keys[LANES],
                                  uint8_t signatures[LANES][LANES_BYTES]) {
    uint32_t given = 0;
    for (unsigned lane = 0; lane < LANES; lane++) {
        if (keys[lane] == NULL)
            continue;
        uint64_t mask = 0 - (uint64_t)(good >> lane & 1);
        for (unsigned j = 0; j < WHOLE_DIGITS; j++)
            batch->digits[j] = vector_get(&batch->signature[j], lane) & mask;
        digits_to_bytes(batch->digits, WHOLE_DIGITS, signatures[lane], LANES_BYTES);
        given |= good & (1u << lane);
    }
    return given;
}

static __attribute__((noinline)) uint32_t batch_run(const struct lanes_key *const keys[LANES], const uint8_t encoded[LANES][LANES_BYTES],
                                                    uint8_t signatures[LANES][LANES_BYTES]) {
    struct batch batch;
    batch_load(&batch, keys, encoded);
    batch_raise(&batch, &batch.halves[0]);
    batch_raise(&batch, &batch.halves[1]);
    batch_join(&batch);
    uint32_t good = batch_give(&batch, batch_open(&batch), keys, signatures);
    explicit_bzero(&batch, sizeof(batch));
    return good;
}

/* What the functions under batch_run left below its frame: sums, and registers that were spilled. */
static __attribute__((noinline)) void batch_wipe_stack(void) {
    uint8_t left[sizeof(struct batch) + 8 * DOUBLE_DIGITS * sizeof(struct vector)];
    explicit_bzero(left, sizeof(left));
}

static inline uint32_t batch_sign(const struct lanes_key *const keys[LANES], const uint8_t encoded[LANES][LANES_BYTES],
                                  uint8_t signatures[LANES][LANES_BYTES]) {
    uint32_t good = batch_run(keys, encoded, signatures);
    batch_wipe_stack();
    return good;
}

#endif
