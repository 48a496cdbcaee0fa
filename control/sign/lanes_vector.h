/* lanes_vector.h: eight numbers of 64 bits side by side, one for each lane, and what the lanes do with them. One algorithm is compiled
 * twice against these names: on AVX-512 IFMA where LANES_VECTOR_IFMA is defined, else in plain C. No operation branches on its numbers. */
#ifndef CONTROL_SIGN_LANES_VECTOR_H
#define CONTROL_SIGN_LANES_VECTOR_H

#include "lanes.h"
#include "lanes_digits.h"
#include <stdint.h>

#define VECTOR_INLINE static inline __attribute__((always_inline))

#ifdef LANES_VECTOR_IFMA
#include <immintrin.h>

struct vector {
    __m512i of;
};
struct choice { /* a yes or no for each lane */
    __mmask8 of;
};

VECTOR_INLINE struct vector vector_same(uint64_t number) {
    return (struct vector){_mm512_set1_epi64((long long)number)};
}
/* sum + the low 52 bits of a * b; the product is that of the low 52 bits of each. */
VECTOR_INLINE struct vector vector_multiply_low(struct vector sum, struct vector a, struct vector b) {
    return (struct vector){_mm512_madd52lo_epu64(sum.of, a.of, b.of)};
}
/* sum + the bits of a * b from the 52nd on. */
VECTOR_INLINE struct vector vector_multiply_high(struct vector sum, struct vector a, struct vector b) {
    return (struct vector){_mm512_madd52hi_epu64(sum.of, a.of, b.of)};
}
VECTOR_INLINE struct vector vector_add(struct vector a, struct vector b) {
    return (struct vector){_mm512_add_epi64(a.of, b.of)};
}
VECTOR_INLINE struct vector vector_subtract(struct vector a, struct vector b) {
    return (struct vector){_mm512_sub_epi64(a.of, b.of)};
}
VECTOR_INLINE struct vector vector_and(struct vector a, struct vector b) {
    return (struct vector){_mm512_and_si512(a.of, b.of)};
}
VECTOR_INLINE struct vector vector_or(struct vector a, struct vector b) {
    return (struct vector){_mm512_or_si512(a.of, b.of)};
}
VECTOR_INLINE struct vector vector_xor(struct vector a, struct vector b) {
    return (struct vector){_mm512_xor_si512(a.of, b.of)};
}
VECTOR_INLINE struct vector vector_shift_right(struct vector a, unsigned bits) {
    return (struct vector){_mm512_srli_epi64(a.of, bits)};
}
/* The same for numbers with a sign. */
VECTOR_INLINE struct vector vector_shift_signed(struct vector a, unsigned bits) {
    return (struct vector){_mm512_srai_epi64(a.of, bits)};
}
VECTOR_INLINE struct choice vector_equal(struct vector a, struct vector b) {
    return (struct choice){_mm512_cmpeq_epi64_mask(a.of, b.of)};
}
VECTOR_INLINE struct vector vector_choose(struct choice choice, struct vector yes, struct vector no) {
    return (struct vector){_mm512_mask_mov_epi64(no.of, choice.of, yes.of)};
}
/* Where chosen, bits of `ones` where `bits` has ones, else of `zeros`; where not, `bits`. */
VECTOR_INLINE struct vector vector_choose_by_bits(struct choice choice, struct vector bits, struct vector ones, struct vector zeros) {
    return (struct vector){_mm512_mask_ternarylogic_epi64(bits.of, choice.of, ones.of, zeros.of, 0xca)};
}
/* A bit for each lane. */
VECTOR_INLINE uint32_t choice_bits(struct choice choice) {
    return choice.of;
}
VECTOR_INLINE void vector_put(struct vector *vector, unsigned lane, uint64_t number) {
    ((uint64_t *)vector)[lane] = number;
}
VECTOR_INLINE uint64_t vector_get(const struct vector *vector, unsigned lane) {
    return ((const uint64_t *)vector)[lane];
}

#else

struct vector {
    uint64_t of[LANES];
};
struct choice {
    uint64_t of[LANES]; /* all bits or none */
};

#define VECTOR_EACH for (unsigned lane = 0; lane < LANES; lane++)

VECTOR_INLINE struct vector vector_same(uint64_t number) {
    struct vector result;
    VECTOR_EACH result.of[lane] = number;
    return result;
}
VECTOR_INLINE struct vector vector_multiply_low(struct vector sum, struct vector a, struct vector b) {
    VECTOR_EACH sum.of[lane] += ((a.of[lane] & DIGIT_MASK) * (b.of[lane] & DIGIT_MASK)) & DIGIT_MASK;
    return sum;
}
VECTOR_INLINE struct vector vector_multiply_high(struct vector sum, struct vector a, struct vector b) {
    VECTOR_EACH sum.of[lane] += (uint64_t)(((unsigned __int128)(a.of[lane] & DIGIT_MASK) * (b.of[lane] & DIGIT_MASK)) >> DIGIT_BITS);
    return sum;
}
VECTOR_INLINE struct vector vector_add(struct vector a, struct vector b) {
    VECTOR_EACH a.of[lane] += b.of[lane];
    return a;
}
VECTOR_INLINE struct vector vector_subtract(struct vector a, struct vector b) {
    VECTOR_EACH a.of[lane] -= b.of[lane];
    return a;
}
VECTOR_INLINE struct vector vector_and(struct vector a, struct vector b) {
    VECTOR_EACH a.of[lane] &= b.of[lane];
    return a;
}
VECTOR_INLINE struct vector vector_or(struct vector a, struct vector b) {
    VECTOR_EACH a.of[lane] |= b.of[lane];
    return a;
}
VECTOR_INLINE struct vector vector_xor(struct vector a, struct vector b) {
    VECTOR_EACH a.of[lane] ^= b.of[lane];
    return a;
}
VECTOR_INLINE struct vector vector_shift_right(struct vector a, unsigned bits) {
    VECTOR_EACH a.of[lane] >>= bits;
    return a;
}
VECTOR_INLINE struct vector vector_shift_signed(struct vector a, unsigned bits) {
    VECTOR_EACH a.of[lane] = (uint64_t)((int64_t)a.of[lane] >> bits);
    return a;
}
VECTOR_INLINE struct choice vector_equal(struct vector a, struct vector b) {
    struct choice result;
    VECTOR_EACH {
        uint64_t differs = a.of[lane] ^ b.of[lane];
        result.of[lane] = ((differs | (0 - differs)) >> 63) - 1;
        /* Who knows that it is all bits or none makes a choice between two addresses of it: clang 14 does. */
        __asm__("" : "+r"(result.of[lane]));
    }
    return result;
}
VECTOR_INLINE struct vector vector_choose(struct choice choice, struct vector yes, struct vector no) {
    VECTOR_EACH no.of[lane] ^= choice.of[lane] & (no.of[lane] ^ yes.of[lane]);
    return no;
}
VECTOR_INLINE struct vector vector_choose_by_bits(struct choice choice, struct vector bits, struct vector ones, struct vector zeros) {
    VECTOR_EACH bits.of[lane] ^= choice.of[lane] & (bits.of[lane] ^ zeros.of[lane] ^ (bits.of[lane] & (ones.of[lane] ^ zeros.of[lane])));
    return bits;
}
VECTOR_INLINE uint32_t choice_bits(struct choice choice) {
    uint32_t bits = 0;
    VECTOR_EACH bits |= (uint32_t)(choice.of[lane] & 1) << lane;
    return bits;
}
VECTOR_INLINE void vector_put(struct vector *vector, unsigned lane, uint64_t number) {
    vector->of[lane] = number;
}
VECTOR_INLINE uint64_t vector_get(const struct vector *vector, unsigned lane) {
    return vector->of[lane];
}

#endif
#endif
