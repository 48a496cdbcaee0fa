/* lanes.c: eight RSA-2048 signatures by the way that was chosen. */
#include "lanes.h"
#include "lanes_key.h"

#include <string.h>

uint32_t lanes_sign(enum lanes_way way, const struct lanes_key *const keys[LANES], const uint8_t encoded[LANES][LANES_BYTES],
                    uint8_t signatures[LANES][LANES_BYTES]) {
#ifdef LANES_HAVE_IFMA
    if (way == LANES_IFMA && lanes_can(way))
        return lanes_sign_ifma(keys, encoded, signatures);
#endif
    if (way == LANES_PLAIN)
        return lanes_sign_plain(keys, encoded, signatures);
    for (unsigned lane = 0; lane < LANES; lane++)
        if (keys[lane] != NULL)
            memset(signatures[lane], 0, LANES_BYTES);
    return 0;
}
