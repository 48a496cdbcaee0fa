/* lanes_rsa.c: keys of wolfSSL's making, as numbers and for the lanes. */
#include "lanes_rsa.h"

#include <string.h>

static bool number_bytes(mp_int *number, uint8_t *bytes, int length) {
    int have = mp_unsigned_bin_size(number);
    if (have > length)
        return false;
    memset(bytes, 0, (size_t)length);
    return mp_to_unsigned_bin(number, bytes + length - have) == MP_OKAY;
}

bool lanes_rsa_make(struct lanes_rsa *made, WC_RNG *random, int bits, uint32_t e) {
    struct lanes_numbers *numbers = &made->numbers;
    made->key = NULL;
    if (wc_InitRsaKey(&made->rsa, NULL) != 0 || wc_MakeRsaKey(&made->rsa, bits, e, random) != 0)
        return false;
#ifdef WC_RSA_BLINDING
    wc_RsaSetRNG(&made->rsa, random);
#endif
    numbers->e = e;
    if (!number_bytes(&made->rsa.n, numbers->n, LANES_BYTES) || !number_bytes(&made->rsa.p, numbers->p, LANES_HALF_BYTES) ||
        !number_bytes(&made->rsa.q, numbers->q, LANES_HALF_BYTES) || !number_bytes(&made->rsa.dP, numbers->dp, LANES_HALF_BYTES) ||
        !number_bytes(&made->rsa.dQ, numbers->dq, LANES_HALF_BYTES) || !number_bytes(&made->rsa.u, numbers->qinv, LANES_HALF_BYTES))
        return false;
    made->key = lanes_key_from(numbers);
    return true;
}

void lanes_rsa_free(struct lanes_rsa *made) {
    lanes_key_free(made->key);
    wc_FreeRsaKey(&made->rsa);
}

struct lanes_key *lanes_key_from(const struct lanes_numbers *numbers) {
    return lanes_key_create(numbers->n, numbers->e, numbers->p, numbers->q, numbers->dp, numbers->dq, numbers->qinv);
}

bool lanes_rsa_sign(struct lanes_rsa *made, WC_RNG *random, const uint8_t encoded[LANES_BYTES], uint8_t signature[LANES_BYTES]) {
    word32 length = LANES_BYTES;
    return wc_RsaFunction(encoded, LANES_BYTES, signature, &length, RSA_PRIVATE_DECRYPT, &made->rsa, random) == 0 && length == LANES_BYTES;
}

bool lanes_rsa_open(struct lanes_rsa *made, WC_RNG *random, const uint8_t signature[LANES_BYTES], uint8_t opened[LANES_BYTES]) {
    word32 length = LANES_BYTES;
    return wc_RsaFunction(signature, LANES_BYTES, opened, &length, RSA_PUBLIC_DECRYPT, &made->rsa, random) == 0 && length == LANES_BYTES;
}

bool lanes_random_encoded(WC_RNG *random, uint8_t encoded[LANES_BYTES]) {
    static const uint8_t sha256[] = {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01,
                                     0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20};
    enum { DIGEST_BYTES = 32, FROM = LANES_BYTES - DIGEST_BYTES };
    memset(encoded, 0xff, LANES_BYTES);
    encoded[0] = 0;
    encoded[1] = 1;
    encoded[FROM - sizeof(sha256) - 1] = 0;
    memcpy(encoded + FROM - sizeof(sha256), sha256, sizeof(sha256));
    return wc_RNG_GenerateBlock(random, encoded + FROM, DIGEST_BYTES) == 0;
}
