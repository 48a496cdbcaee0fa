/* lanes_plain.c: the lanes in plain C, for tests and for checkers that know no AVX-512. */
#include "lanes_batch.h"

uint32_t lanes_sign_plain(const struct lanes_key *const keys[LANES], const uint8_t encoded[LANES][LANES_BYTES],
                          uint8_t signatures[LANES][LANES_BYTES]) {
    return batch_sign(keys, encoded, signatures);
}
