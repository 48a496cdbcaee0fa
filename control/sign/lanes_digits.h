/* lanes_digits.h: the radix of the lanes' numbers, and numbers as bytes. */
#ifndef CONTROL_SIGN_LANES_DIGITS_H
#define CONTROL_SIGN_LANES_DIGITS_H

#include <stdint.h>

enum { DIGIT_BITS = 52 };
#define DIGIT_MASK (((uint64_t)1 << DIGIT_BITS) - 1)
/* R, Montgomery's radix, is 2^1040 for a half and 2^2080 for the whole: 20 digits leave 16 bits above a prime, so that sums of a few
 * numbers below it need no reduction (R > 4p is all that almost-Montgomery multiplication asks for). */
enum { HALF_DIGITS = 20, WHOLE_DIGITS = 2 * HALF_DIGITS };

/* Digits from big-endian bytes, and back; digits above the last byte are lost. No branch and no address depends on them. */
void digits_from_bytes(uint64_t *digits, unsigned count, const uint8_t *bytes, unsigned length);
void digits_to_bytes(const uint64_t *digits, unsigned count, uint8_t *bytes, unsigned length);

#endif
