/* lanes_ifma.c: the lanes on AVX-512 IFMA. Compiled for it, alone of all files: to be called only where lanes_can says so. */
#define LANES_VECTOR_IFMA
#include "lanes_batch.h"

/* The vector registers hold parts of the last batch. */
static void registers_wipe(void) {
    _mm256_zeroall();
#define WIPE(number) __asm__ volatile("vpxorq %%zmm" #number ", %%zmm" #number ", %%zmm" #number ::: "xmm" #number)
    WIPE(16);
    WIPE(17);
    WIPE(18);
    WIPE(19);
    WIPE(20);
    WIPE(21);
    WIPE(22);
    WIPE(23);
    WIPE(24);
    WIPE(25);
    WIPE(26);
    WIPE(27);
    WIPE(28);
    WIPE(29);
    WIPE(30);
    WIPE(31);
}

uint32_t lanes_sign_ifma(const struct lanes_key *const keys[LANES], const uint8_t encoded[LANES][LANES_BYTES],
                         uint8_t signatures[LANES][LANES_BYTES]) {
    uint32_t good = batch_sign(keys, encoded, signatures);
    registers_wipe();
    /* Dirty upper halves of the vector registers would slow every SSE instruction after this (README.md). */
    _mm256_zeroupper();
    return good;
}
