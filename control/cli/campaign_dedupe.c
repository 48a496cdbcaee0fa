/* campaign_dedupe.c: a hash table of fingerprints that doubles until its bound. */
#include "campaign_dedupe.h"
#include "control/render/identity.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { SLOTS_FIRST = 1 << 16, ADDRESS_BYTES = 512 };

bool dedupe_begin(struct dedupe *dedupe, size_t max_bytes) {
    *dedupe = (struct dedupe){.size = SLOTS_FIRST, .max_bytes = max_bytes};
    dedupe->slots = calloc(dedupe->size, sizeof *dedupe->slots);
    return dedupe->slots && getrandom(dedupe->key, sizeof dedupe->key, 0) == (ssize_t)sizeof dedupe->key;
}

/* Where this fingerprint is, or would go. */
static uint64_t *slot_find(uint64_t (*slots)[2], size_t size, const uint64_t print[2]) {
    size_t at = (size_t)print[0] & (size - 1);
    while ((slots[at][0] || slots[at][1]) && (slots[at][0] != print[0] || slots[at][1] != print[1])) {
        at = (at + 1) & (size - 1);
    }
    return slots[at];
}

static bool dedupe_grow(struct dedupe *dedupe) {
    size_t size = dedupe->size * 2;
    if (size * sizeof *dedupe->slots > dedupe->max_bytes) {
        return false;
    }
    uint64_t(*slots)[2] = calloc(size, sizeof *slots);
    for (size_t i = 0; slots && i < dedupe->size; i++) {
        if (dedupe->slots[i][0] || dedupe->slots[i][1]) {
            memcpy(slot_find(slots, size, dedupe->slots[i]), dedupe->slots[i], sizeof *slots);
        }
    }
    if (slots) {
        free(dedupe->slots);
        dedupe->slots = slots;
        dedupe->size = size;
    }
    return slots != NULL;
}

enum dedupe_answer dedupe_add(struct dedupe *dedupe, const char *address) {
    uint8_t folded[ADDRESS_BYTES], digest[16];
    uint64_t print[2];
    size_t length = 0;
    for (; address[length] && length < sizeof folded; length++) {
        char c = address[length];
        folded[length] = (uint8_t)(c >= 'A' && c <= 'Z' ? c + 'a' - 'A' : c);
    }
    siphash_128(dedupe->key, folded, length, digest);
    memcpy(print, digest, sizeof print);
    print[1] |= 1; /* no fingerprint looks like an empty slot */
    uint64_t *slot = slot_find(dedupe->slots, dedupe->size, print);
    if (slot[0] || slot[1]) {
        return DEDUPE_SEEN;
    }
    if (dedupe->used + 1 > dedupe->size / 4 * 3) {
        if (!dedupe_grow(dedupe)) {
            return DEDUPE_FULL;
        }
        slot = slot_find(dedupe->slots, dedupe->size, print);
    }
    memcpy(slot, print, sizeof print);
    dedupe->used++;
    return DEDUPE_NEW;
}

void dedupe_end(struct dedupe *dedupe) {
    free(dedupe->slots);
    *dedupe = (struct dedupe){.slots = NULL};
}
