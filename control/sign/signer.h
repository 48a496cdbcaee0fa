/* signer.h: one thread's means to sign: decoded keys, scratch, the messages whose signatures are under way. */
#ifndef CONTROL_SIGN_SIGNER_H
#define CONTROL_SIGN_SIGNER_H

#include "body.h"
#include "canonical.h"
#include "compose.h"
#include "keys.h"
#include "lanes.h"

enum {
    SIGNER_CACHED_KEYS = 64, /* decoded keys of a signer; a key costs it some 10 KB and 20 us to decode again */
    SIGNER_WAITING_MAX = DKIM_BEGUN_MAX * DKIM_SIGNATURES_MAX,
    SIGNER_DIGEST_BYTES = WC_SHA256_DIGEST_SIZE,
    SIGNER_NAMES_MAX = 2048, /* h= of all names */
    /* A flush of so few goes through wolfCrypt: the lanes take as long for one as for eight, 1.1 to 1.2 ms where wolfCrypt signs and
     * verifies one in 0.85 (tests/unit/sign/sign_probe, the best of a second on a 2 GHz core). Two are cheaper in the lanes already. */
    SIGNER_ALONE_MAX = 1,
};

/* A message that has begun. */
struct signer_begun {
    struct message *message;
    void *user;
    uint32_t count, wanted; /* signatures, and those that are still to be made */
    size_t fields_length;   /* they lie, but for their signatures, before the message's start */
    int status;
    struct signer_begun *next; /* free, or whole */
    struct signer_signature {
        const struct dkim_key *key;
        uint8_t digest[SIGNER_DIGEST_BYTES];
        size_t at; /* in message->bytes: where its text goes */
    } signatures[DKIM_SIGNATURES_MAX];
};

struct dkim_signer {
    struct dkim_keys *keys; /* a reference */
    bool has_lanes;
    enum lanes_way way;
    WC_RNG rng; /* for blinding */
    struct signer_key {
        const struct dkim_key *key; /* NULL: empty */
        struct dkim_private decoded;
    } * cache; /* [SIGNER_CACHED_KEYS], by the key's place modulo; RSA only */
    struct canonical canonical;
    struct body_cache bodies;
    struct compose_header header;
    struct signer_begun begun[DKIM_BEGUN_MAX], *free_begun;
    struct signer_begun *whole, **whole_end;
    struct signer_waiting {
        struct signer_begun *begun;
        uint32_t signature;
    } waiting[SIGNER_WAITING_MAX]; /* for the lanes: a ring */
    uint32_t waiting_head, waiting_count;
    struct dkim_counters counters; /* written by its thread, read by others */
    char names[SIGNER_NAMES_MAX];
    char text[COMPOSE_FIELD_MAX * DKIM_SIGNATURES_MAX];
};

/* Makes the signatures in this way whatever the processor can do: for tests, and before anything has begun. */
void dkim_signer_force(struct dkim_signer *signer, bool has_lanes, enum lanes_way way);

#endif
