/* lanes_montgomery.h: numbers of 20 and 40 digits of 52 bits in eight lanes: products, squares, Montgomery's reduction, all from three
 * pieces of 20 digits whose sums stay in vector registers. A column's sum has room for 2^12 products: carries wait until the end.
 * vpmadd52 looks at the low 52 bits of its factors only, so digits that will only be factors keep what they carried out of.
 *
 * A product and its reduction are 1,620 vpmadd52 and a square 1,240, of two a cycle on ports that all other vector arithmetic shares (120
 * to 140 additions and shifts): 870 and 690 cycles at best. gcc and clang come within a twentieth of it. The multipliers stand idle where a
 * step of the reduction waits for its factor, four cycles a step, unless the factor was asked for in the middle of the step before;
 * README.md tells what else was tried. */
#ifndef CONTROL_SIGN_LANES_MONTGOMERY_H
#define CONTROL_SIGN_LANES_MONTGOMERY_H

#include "lanes_key.h"
#include "lanes_vector.h"
#include <stdbool.h>
#include <stddef.h>

/* Sums only stay in registers when the loops over them are unrolled whole; in plain C that would be 50,000 instructions. */
#ifndef LANES_VECTOR_IFMA
#define UNROLL
#elif defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 20")
#endif

/* Steps of a loop that are written out: the sums change their registers in a circle, and each turn of the loop moves them all back. */
enum { STEPS = 2 };
/* Digits of a reduction's step that are added before its successor's factor is multiplied: about as long as that has to wait. */
enum { ASKED_AFTER = 5 };

/* What was read from memory is read again behind this. A compiler that keeps twenty factors from step to step has no registers for sums. */
#ifdef LANES_VECTOR_IFMA
#define FORGET __asm__ volatile("" ::: "memory")
/* The same, and `vector` is asked for before what is read behind this: compilers would put it last. */
#define FORGET_AFTER(vector) __asm__ volatile("" : "+v"((vector).of) : : "memory")
#else
#define FORGET               ((void)0)
#define FORGET_AFTER(vector) ((void)0)
#endif

/* sums = (sums + factor * other) / 2^52, where sums[0]'s own digit is left to the caller, who gives what comes in on top. */
VECTOR_INLINE struct vector digits_step(struct vector *sums, struct vector factor, const struct vector *others, struct vector top) {
    struct vector other = others[0], lowest = vector_multiply_low(sums[0], factor, other);
    UNROLL
    for (unsigned j = 0; j + 1 < HALF_DIGITS; j++) {
        struct vector next = others[j + 1];
        sums[j] = vector_multiply_high(vector_multiply_low(sums[j + 1], factor, next), factor, other);
        other = next;
    }
    sums[HALF_DIGITS - 1] = vector_multiply_high(top, factor, other);
    return lowest;
}

/* product[40] = a[20] * b[20], added to what is there with `add`. */
VECTOR_INLINE void digits_multiply(struct vector *restrict product, const struct vector *a, const struct vector *b, bool add) {
    struct vector sums[HALF_DIGITS];
    UNROLL
    for (unsigned j = 0; j < HALF_DIGITS; j++)
        sums[j] = add ? product[j] : vector_same(0);
    for (unsigned i = 0; i < HALF_DIGITS; i += STEPS) {
        UNROLL
        for (unsigned j = i; j < i + STEPS; j++) {
            product[j] = digits_step(sums, a[j], b, add ? product[HALF_DIGITS + j] : vector_same(0));
            FORGET;
        }
    }
    UNROLL
    for (unsigned j = 0; j < HALF_DIGITS; j++)
        product[HALF_DIGITS + j] = sums[j];
}

/* Columns [from, from + 20) of a square: each product of two different digits once, doubled, then the digits' own squares. */
VECTOR_INLINE void digits_square_columns(struct vector *restrict product, const struct vector *a, unsigned from) {
    struct vector sums[HALF_DIGITS];
    UNROLL
    for (unsigned j = 0; j < HALF_DIGITS; j++)
        sums[j] = vector_same(0);
    UNROLL
    for (unsigned i = 0; i < HALF_DIGITS; i++) {
        UNROLL
        for (unsigned j = 0; j < HALF_DIGITS; j++) {
            if (j > i && i + j - from < HALF_DIGITS)
                sums[i + j - from] = vector_multiply_low(sums[i + j - from], a[i], a[j]);
            if (j > i && i + j + 1 - from < HALF_DIGITS)
                sums[i + j + 1 - from] = vector_multiply_high(sums[i + j + 1 - from], a[i], a[j]);
        }
    }
    UNROLL
    for (unsigned j = 0; j < HALF_DIGITS; j++) {
        struct vector digit = a[(from + j) / 2];
        sums[j] = vector_add(sums[j], sums[j]);
        product[from + j] = j % 2 == 0 ? vector_multiply_low(sums[j], digit, digit) : vector_multiply_high(sums[j], digit, digit);
    }
}

/* product[40] = a[20] squared. */
VECTOR_INLINE void digits_square(struct vector *restrict product, const struct vector *a) {
    digits_square_columns(product, a, 0);
    digits_square_columns(product, a, HALF_DIGITS);
}

/* A step of the reduction by `factor`; gives the next step's, whose way is the longest and begins before the other digits' additions. */
VECTOR_INLINE struct vector digits_reduce_step(struct vector *sums, struct vector factor, const struct vector *modulus,
                                               struct vector inverse, struct vector top) {
    struct vector other = modulus[0], next = modulus[1], lowest = vector_multiply_low(sums[0], factor, other);
    sums[0] = vector_multiply_high(vector_multiply_low(sums[1], factor, next), factor, other);
    sums[0] = vector_add(sums[0], vector_shift_right(lowest, DIGIT_BITS));
    struct vector next_factor = vector_multiply_low(vector_same(0), sums[0], inverse);
    UNROLL
    for (unsigned j = 1; j + 1 < HALF_DIGITS; j++) {
        other = next;
        next = modulus[j + 1];
        sums[j] = vector_multiply_high(vector_multiply_low(sums[j + 1], factor, next), factor, other);
        if (j == ASKED_AFTER)
            FORGET_AFTER(next_factor);
    }
    sums[HALF_DIGITS - 1] = vector_multiply_high(top, factor, next);
    FORGET;
    return next_factor;
}

/* Adds a multiple of modulus[20] to sum[40] that makes its low 20 digits zero, by `inverse` of the modulus's lowest digit. Either the high
 * 20 digits are given in `out`, carried, or the sum's digits from the 20th on are left to go on with and the multiplier is given in
 * quotient[20]. */
VECTOR_INLINE void digits_reduce(struct vector *restrict out, struct vector *restrict quotient, struct vector *restrict sum,
                                 const struct vector *modulus, struct vector inverse) {
    struct vector sums[HALF_DIGITS];
    UNROLL
    for (unsigned j = 0; j < HALF_DIGITS; j++)
        sums[j] = sum[j];
    struct vector factor = vector_multiply_low(vector_same(0), sums[0], inverse);
    for (unsigned i = 0; i < HALF_DIGITS; i += STEPS) {
        UNROLL
        for (unsigned j = i; j < i + STEPS; j++) {
            if (quotient != NULL)
                quotient[j] = factor;
            factor = digits_reduce_step(sums, factor, modulus, inverse, sum[HALF_DIGITS + j]);
        }
    }
    if (out == NULL) {
        UNROLL
        for (unsigned j = 0; j < HALF_DIGITS; j++)
            sum[HALF_DIGITS + j] = sums[j];
        return;
    }
    out[0] = sums[0];
    UNROLL
    for (unsigned j = 1; j < HALF_DIGITS; j++) {
        sums[j] = vector_add(sums[j], vector_shift_right(sums[j - 1], DIGIT_BITS));
        out[j] = sums[j];
    }
}

/* out = a * b / R, below the modulus and a little (a * b / R). `out` may be a or b. */
static inline void half_multiply(struct vector *out, const struct vector *a, const struct vector *b, const struct vector *modulus,
                                 const struct vector *inverse) {
    struct vector sum[WHOLE_DIGITS];
    digits_multiply(sum, a, b, false);
    digits_reduce(out, NULL, sum, modulus, *inverse);
}

static inline void half_square(struct vector *out, const struct vector *a, const struct vector *modulus, const struct vector *inverse) {
    struct vector sum[WHOLE_DIGITS];
    digits_square(sum, a);
    digits_reduce(out, NULL, sum, modulus, *inverse);
}

/* Digits of 52 bits, from digits that carry out, with a sign. The last keeps the sign of the whole. */
static inline void digits_carry(struct vector *digits, unsigned count) {
    struct vector mask = vector_same(DIGIT_MASK);
    for (unsigned i = 0; i + 1 < count; i++) {
        digits[i + 1] = vector_add(digits[i + 1], vector_shift_signed(digits[i], DIGIT_BITS));
        digits[i] = vector_and(digits[i], mask);
    }
}

/* Digits that were factors lose what they carried out of. */
static inline void digits_mask(struct vector *digits, unsigned count) {
    for (unsigned i = 0; i < count; i++)
        digits[i] = vector_and(digits[i], vector_same(DIGIT_MASK));
}

/* What is below twice the modulus, in digits of 52 bits, is made less than it. */
static inline void digits_reduce_once(struct vector *digits, const struct vector *modulus, unsigned count) {
    struct vector less[WHOLE_DIGITS];
    for (unsigned i = 0; i < count; i++)
        less[i] = vector_subtract(digits[i], modulus[i]);
    digits_carry(less, count);
    struct choice fits = vector_equal(vector_shift_right(less[count - 1], 63), vector_same(0));
    for (unsigned i = 0; i < count; i++)
        digits[i] = vector_choose(fits, less[i], digits[i]);
}

/* Products of 40 digits: the sum of four of 20. */
enum { DOUBLE_DIGITS = 2 * WHOLE_DIGITS };

static inline void whole_reduce(struct vector *out, struct vector *sum, const struct vector *modulus, const struct vector *inverse) {
    struct vector quotient[HALF_DIGITS];
    for (unsigned part = 0; part < WHOLE_DIGITS; part += HALF_DIGITS) {
        digits_reduce(NULL, quotient, sum + part, modulus, *inverse);
        digits_multiply(sum + part + HALF_DIGITS, quotient, modulus + HALF_DIGITS, true);
    }
    for (unsigned i = 0; i < WHOLE_DIGITS; i++)
        out[i] = sum[WHOLE_DIGITS + i];
    digits_carry(out, WHOLE_DIGITS);
}

static inline void whole_multiply(struct vector *out, const struct vector *a, const struct vector *b, const struct vector *modulus,
                                  const struct vector *inverse) {
    struct vector sum[DOUBLE_DIGITS];
    digits_multiply(sum, a, b, false);
    digits_multiply(sum + WHOLE_DIGITS, a + HALF_DIGITS, b + HALF_DIGITS, false);
    digits_multiply(sum + HALF_DIGITS, a, b + HALF_DIGITS, true);
    digits_multiply(sum + HALF_DIGITS, a + HALF_DIGITS, b, true);
    whole_reduce(out, sum, modulus, inverse);
}

static inline void whole_square(struct vector *out, const struct vector *a, const struct vector *modulus, const struct vector *inverse) {
    struct vector sum[DOUBLE_DIGITS], middle[WHOLE_DIGITS];
    digits_square(sum, a);
    digits_square(sum + WHOLE_DIGITS, a + HALF_DIGITS);
    digits_multiply(middle, a, a + HALF_DIGITS, false);
    for (unsigned i = 0; i < WHOLE_DIGITS; i++)
        sum[HALF_DIGITS + i] = vector_add(sum[HALF_DIGITS + i], vector_add(middle[i], middle[i]));
    whole_reduce(out, sum, modulus, inverse);
}

#endif
