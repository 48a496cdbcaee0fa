/* lanes_digits.c: numbers as big-endian bytes and as digits. */
#include "lanes_digits.h"

void digits_from_bytes(uint64_t *digits, unsigned count, const uint8_t *bytes, unsigned length) {
    for (unsigned i = 0; i < count; i++) {
        unsigned bit = i * DIGIT_BITS;
        uint64_t digit = 0;
        /* A digit of 52 bits begins at a byte or in its middle, so it lies in seven bytes. */
        for (unsigned j = 0; j < 7 && bit / 8 + j < length; j++)
            digit |= (uint64_t)bytes[length - 1 - bit / 8 - j] << (8 * j);
        digits[i] = digit >> (bit % 8) & DIGIT_MASK;
    }
}

void digits_to_bytes(const uint64_t *digits, unsigned count, uint8_t *bytes, unsigned length) {
    for (unsigned i = 0; i < length; i++) {
        unsigned bit = i * 8, digit = bit / DIGIT_BITS, shift = bit % DIGIT_BITS;
        uint64_t byte = digit < count ? digits[digit] >> shift : 0;
        if (shift > DIGIT_BITS - 8 && digit + 1 < count)
            byte |= digits[digit + 1] << (DIGIT_BITS - shift);
        bytes[length - 1 - i] = (uint8_t)byte;
    }
}
