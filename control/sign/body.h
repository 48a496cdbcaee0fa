/* body.h: the hash of a message's body (RFC 6376 3.7), and what is remembered of bodies that many messages have in common. */
#ifndef CONTROL_SIGN_BODY_H
#define CONTROL_SIGN_BODY_H

#include "canonical.h"
#include "control/render/render.h"

enum {
    BODY_ENTRIES = 16, /* contents that are sent at the same time: a midstate costs some 200 bytes, and another look at a body much more */
    BODY_RANGES = 8,   /* runs of shared bytes, one behind the other and yet not adjacent, that a body may begin with */
    BODY_DIGEST_BYTES = WC_SHA256_DIGEST_SIZE,
};

struct body_range {
    uint32_t offset, length;
};

/* How bodies begin that were hashed: the state of the hash behind their leading shared pieces. */
struct body_cache {
    uint64_t clock;
    uint64_t bytes, hashed; /* of all bodies, and those that went through the hash */
    struct body_entry {
        uint64_t used; /* the clock, when it was needed last; 0: empty */
        uint64_t id;   /* of the shared bytes */
        uint32_t range_count;
        struct body_range ranges[BODY_RANGES];
        struct canonical_midstate midstate;
        bool whole; /* a body that ends there was hashed, too */
        uint8_t digest[BODY_DIGEST_BYTES];
    } entries[BODY_ENTRIES];
};

/* Zeroed memory is an empty cache. Stores the digest[32]; 0, or -EIO. `canonical` is scratch. */
int body_hash(struct body_cache *cache, struct canonical *canonical, const struct message *message, uint8_t *digest);
void body_cache_free(struct body_cache *cache);

#endif
