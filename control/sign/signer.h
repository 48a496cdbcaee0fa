/* signer.h: one thread's means to sign: random numbers for blinding, decoded keys, scratch. */
#ifndef CONTROL_SIGN_SIGNER_H
#define CONTROL_SIGN_SIGNER_H

#include "canonical.h"
#include "keys.h"

enum {
    SIGNER_CACHED_KEYS = 64,    /* decoded keys of a signer; a key costs it some 10 KB and 20 us to decode again */
    SIGNER_FIELDS_MAX = 1024,   /* header fields of a message that can be signed */
    SIGNATURE_FIELD_MAX = 3072, /* a DKIM-Signature field: h= of all names, b= of 4096 bits */
};

struct dkim_signer {
    const struct dkim_keys *keys;
    WC_RNG rng;
    struct signer_key {
        const struct dkim_key *key; /* NULL: empty */
        struct dkim_private decoded;
    } * cache; /* [SIGNER_CACHED_KEYS], by the key's place modulo */
    struct canonical canonical;
    struct signer_field {
        const uint8_t *text; /* the name begins here */
        uint32_t length;     /* to the next field */
        uint16_t name_length;
        int8_t kind; /* index into the list of signed fields, or -1 */
    } fields[SIGNER_FIELDS_MAX];
    uint32_t field_count;
    char text[SIGNATURE_FIELD_MAX];
};

#endif
