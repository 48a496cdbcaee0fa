/* lanes_ifma.c: the lanes on AVX-512 IFMA. Compiled for it, alone of all files: to be called only where lanes_can says so. */
#define LANES_VECTOR_IFMA
#include "lanes_batch.h"

uint32_t lanes_sign_ifma(const struct lanes_key *const keys[LANES], const uint8_t encoded[LANES][LANES_BYTES],
                         uint8_t signatures[LANES][LANES_BYTES]) {
    uint32_t good = batch_sign(keys, encoded, signatures);
    /* Dirty upper halves of the vector registers would slow every SSE instruction after this (README.md). */
    _mm256_zeroupper();
    return good;
}
