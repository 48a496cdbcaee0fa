/* lanes_leaky.h: lanes that tell their exponents by the time they take and by what they branch on. */
#ifndef TESTS_UNIT_SIGN_LANES_LEAKY_H
#define TESTS_UNIT_SIGN_LANES_LEAKY_H

#include "control/sign/lanes_key.h"

uint32_t lanes_sign_leaky(const struct lanes_key *const keys[LANES], const uint8_t encoded[LANES][LANES_BYTES],
                          uint8_t signatures[LANES][LANES_BYTES]);
uint32_t lanes_sign_leaky_ifma(const struct lanes_key *const keys[LANES], const uint8_t encoded[LANES][LANES_BYTES],
                               uint8_t signatures[LANES][LANES_BYTES]);

#endif
