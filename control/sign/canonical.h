/* canonical.h: the relaxed canonical forms of RFC 6376 3.4, hashed as they are made. */
#ifndef CONTROL_SIGN_CANONICAL_H
#define CONTROL_SIGN_CANONICAL_H

#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/sha256.h>

#include <stddef.h>
#include <stdint.h>

enum { CANONICAL_SCRATCH_BYTES = 8192 };

/* SHA-256 over what has been added, gathered into few calls. Large: keep it in a signer, not on a stack. */
struct canonical {
    wc_Sha256 sha;
    size_t used;
    int error; /* of wolfCrypt, sticky */
    uint8_t scratch[CANONICAL_SCRATCH_BYTES];
};

void canonical_begin(struct canonical *canonical);
/* Stores the digest[32]. 0, or -EIO. */
int canonical_end(struct canonical *canonical, uint8_t *digest);

/* A body with CRLF line ends (3.4.4): runs of white space become a space, none is left at line ends, empty lines at the end go, the last
 * line has its end. An empty body stays empty. */
void canonical_body(struct canonical *canonical, const uint8_t *body, size_t length);

/* One field, from its name to the end of its value, with or without the last CRLF (3.4.2): name in lower case, unfolded, white space as
 * above and none around the colon. `end_line`: add CRLF, as all fields have but the signature's own. */
void canonical_field(struct canonical *canonical, const uint8_t *field, size_t length, int end_line);

#endif
