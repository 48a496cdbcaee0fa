/* dane.c: TLSA records: what is usable of what a zone publishes. */
#include "dane.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <wolfssl/options.h>

#include <wolfssl/wolfcrypt/hash.h>

enum { NAME_CHARACTERS_MAX = 253, SHA256_BYTES = 32, SHA512_BYTES = 64, TLSA_HEAD_BYTES = 3 };
enum { USAGE_DANE_TA = 2, USAGE_DANE_EE = 3, MATCHING_FULL = 0, MATCHING_SHA256 = 1, MATCHING_SHA512 = 2 };

int tlsa_read(const uint8_t *rdata, size_t rdata_bytes, struct path_tlsa *tlsa) {
    if (rdata_bytes <= TLSA_HEAD_BYTES)
        return -EINVAL;
    const uint8_t *data = rdata + TLSA_HEAD_BYTES;
    size_t bytes = rdata_bytes - TLSA_HEAD_BYTES;
    memset(tlsa, 0, sizeof *tlsa);
    tlsa->usage = rdata[0];
    tlsa->selector = rdata[1];
    tlsa->matching = rdata[2];
    if ((tlsa->usage != USAGE_DANE_TA && tlsa->usage != USAGE_DANE_EE) || tlsa->selector > 1)
        return -EINVAL;
    switch (tlsa->matching) {
    case MATCHING_FULL:
        tlsa->matching = MATCHING_SHA256;
        tlsa->length = SHA256_BYTES;
        return wc_Sha256Hash(data, (word32)bytes, tlsa->data) == 0 ? 0 : -EINVAL;
    case MATCHING_SHA256:
    case MATCHING_SHA512:
        tlsa->length = tlsa->matching == MATCHING_SHA256 ? SHA256_BYTES : SHA512_BYTES;
        if (bytes != tlsa->length)
            return -EINVAL;
        memcpy(tlsa->data, data, bytes);
        return 0;
    default:
        return -EINVAL;
    }
}

/* Usage 3 first. */
static int compare(const struct path_tlsa *left, const struct path_tlsa *right) {
    if (left->usage != right->usage)
        return left->usage > right->usage ? -1 : 1;
    return memcmp(left, right, sizeof *left);
}

uint32_t tlsa_choose(uint8_t *const *data, const int *lengths, uint32_t count, struct path_tlsa tlsa[PATH_TLSA_MAX]) {
    uint32_t chosen = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct path_tlsa one;
        if (lengths[i] < 0 || tlsa_read(data[i], (size_t)lengths[i], &one) != 0)
            continue;
        uint32_t at = 0;
        while (at < chosen && compare(&tlsa[at], &one) < 0)
            at++;
        if (at == PATH_TLSA_MAX || (at < chosen && compare(&tlsa[at], &one) == 0))
            continue;
        if (chosen == PATH_TLSA_MAX)
            chosen--;
        memmove(&tlsa[at + 1], &tlsa[at], (chosen - at) * sizeof *tlsa);
        tlsa[at] = one;
        chosen++;
    }
    return chosen;
}

int tlsa_name(const char *host, uint16_t port, char out[DANE_NAME_BYTES]) {
    int length = snprintf(out, DANE_NAME_BYTES, "_%u._tcp.%s", (unsigned)port, host);
    return length <= NAME_CHARACTERS_MAX ? 0 : -EINVAL;
}
