/* canonical.h: the relaxed canonical forms of RFC 6376 3.4, hashed as they are made. */
#ifndef CONTROL_SIGN_CANONICAL_H
#define CONTROL_SIGN_CANONICAL_H

#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/sha256.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CANONICAL_SCRATCH_BYTES = 8192 };

/* SHA-256 over what has been added, gathered into few calls. Large: keep it in a signer, not on a stack. */
struct canonical {
    wc_Sha256 sha;
    size_t used;
    uint64_t hashed; /* bytes, since it began or was resumed */
    int error;       /* of wolfCrypt, sticky */
    /* Of a body: */
    size_t empty_lines; /* owed: they count only before another line that has something */
    bool blank;         /* white space is owed */
    bool in_line;       /* the line has had something */
    uint8_t scratch[CANONICAL_SCRATCH_BYTES];
};

/* What has been hashed of a body up to the end of a line, to go on from another time. */
struct canonical_midstate {
    wc_Sha256 sha;
    size_t empty_lines;
};

void canonical_begin(struct canonical *canonical);
/* Stores the digest[32]. 0, or -EIO. */
int canonical_end(struct canonical *canonical, uint8_t *digest);
/* Begins where a midstate was taken, which stays; and takes one: only between two lines of a body. 0, or -EIO. */
int canonical_resume(struct canonical *canonical, const struct canonical_midstate *midstate);
int canonical_midstate(struct canonical *canonical, struct canonical_midstate *out);
void canonical_midstate_free(struct canonical_midstate *midstate);

/* A body with CRLF line ends (3.4.4): runs of white space become a space, none is left at line ends, empty lines at the end go, the last
 * line has its end. An empty body stays empty. */
void canonical_body(struct canonical *canonical, const uint8_t *body, size_t length);
/* The same in parts, which may end anywhere. */
void canonical_body_add(struct canonical *canonical, const uint8_t *part, size_t length);
void canonical_body_end(struct canonical *canonical);
/* Is the body between two lines? Then what follows may be whole lines that are in relaxed form already, but for empty ones at their end,
 * which are the body's end perhaps. */
bool canonical_between_lines(const struct canonical *canonical);
void canonical_body_add_relaxed(struct canonical *canonical, const uint8_t *lines, size_t length);

/* One field, from its name to the end of its value, with or without the last CRLF (3.4.2): name in lower case, unfolded, white space as
 * above and none around the colon. `end_line`: add CRLF, as all fields have but the signature's own. */
void canonical_field(struct canonical *canonical, const uint8_t *field, size_t length, int end_line);

#endif
