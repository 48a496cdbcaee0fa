/* lanes_leaky.c: the lanes with one fault, a table that is read no further than the largest power that a lane wants: the checks of
 * lanes_probe must find it. Compiled twice, as the lanes are. */
#include "control/sign/lanes_vector.h"
#include "lanes_leaky.h"

struct batch;
static void leaky_choose_power(struct batch *batch, struct vector window);
#define BATCH_CHOOSE_POWER leaky_choose_power
#include "control/sign/lanes_batch.h"

static void leaky_choose_power(struct batch *batch, struct vector window) {
    uint64_t last = 0;
    for (unsigned lane = 0; lane < LANES; lane++)
        if (vector_get(&window, lane) > last)
            last = vector_get(&window, lane);
    for (unsigned i = 0; i <= last; i++) {
        struct choice wanted = vector_equal(window, vector_same(i));
        for (unsigned j = 0; j < HALF_DIGITS; j++)
            batch->power[j] = vector_choose(wanted, batch->powers[i][j], batch->power[j]);
    }
}

#ifdef LANES_VECTOR_IFMA
uint32_t lanes_sign_leaky_ifma(const struct lanes_key *const keys[LANES], const uint8_t encoded[LANES][LANES_BYTES],
                               uint8_t signatures[LANES][LANES_BYTES]) {
#else
uint32_t lanes_sign_leaky(const struct lanes_key *const keys[LANES], const uint8_t encoded[LANES][LANES_BYTES],
                          uint8_t signatures[LANES][LANES_BYTES]) {
#endif
    return batch_sign(keys, encoded, signatures);
}
