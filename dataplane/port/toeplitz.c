/* toeplitz.c: see toeplitz.h. */
#include "toeplitz.h"

const uint8_t PORT_RSS_KEY_DEFAULT[PORT_RSS_KEY_DEFAULT_BYTES] = {
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca,
    0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b,
    0xbe, 0xac, 0x01, 0xfa, 0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d,
};

/* The 32 bits of the key from bit `first` on: what a one at that place of the input adds. */
static uint32_t key_window(const uint8_t *key, uint32_t key_length, uint32_t first) {
    uint64_t bits = 0;
    for (uint32_t i = 0; i < 5; i++) {
        uint32_t at = first / 8 + i;
        bits = bits << 8 | (at < key_length ? key[at] : 0);
    }
    return (uint32_t)(bits >> (8 - first % 8));
}

void toeplitz_set_up(struct toeplitz *toeplitz, const uint8_t *key, uint32_t key_length) {
    for (uint32_t nibble = 0; nibble < TOEPLITZ_NIBBLES; nibble++) {
        for (uint32_t value = 0; value < 16; value++) {
            uint32_t sum = 0;
            for (uint32_t bit = 0; bit < 4; bit++)
                if ((value & 8u >> bit) != 0)
                    sum ^= key_window(key, key_length, nibble * 4 + bit);
            toeplitz->nibbles[nibble][value] = sum;
        }
    }
}

void toeplitz_rss_default(struct port_rss *rss, uint16_t queues) {
    memset(rss, 0, sizeof *rss);
    rss->hashes = true;
    memcpy(rss->key, PORT_RSS_KEY_DEFAULT, sizeof PORT_RSS_KEY_DEFAULT);
    rss->key_length = sizeof PORT_RSS_KEY_DEFAULT;
    rss->reta_size = PORT_RSS_RETA_DEFAULT;
    for (uint32_t entry = 0; entry < PORT_RSS_RETA_DEFAULT; entry++)
        rss->reta[entry] = (uint16_t)(entry % queues);
}
