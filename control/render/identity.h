/* identity.h: keyed hashes that name a message: the same job and recipient give the same Message-ID and boundaries at every attempt. */
#ifndef CONTROL_RENDER_IDENTITY_H
#define CONTROL_RENDER_IDENTITY_H

#include "control/job.h"

struct identity;

enum { IDENTITY_HEX_BYTES = 33 }; /* 128 bits in hexadecimal and a NUL */

/* SipHash-2-4 with 128 bits of output (Aumasson and Bernstein) of data under key[16]. */
void siphash_128(const uint8_t *key, const uint8_t *data, size_t length, uint8_t *out);

/* What its tokens are made with (token.h). */
const struct token_keys *identity_token_keys(const struct identity *identity);

/* The name of a recipient's message, in hexadecimal: of the job's id under its tenant, else of its first entry; `index` counts only for
 * private messages. */
void identity_name(const struct identity *identity, const struct job *job, uint32_t index, char *hex);

/* What boundaries of a shared content's messages are made of, in hexadecimal: the same for all of them. */
void identity_boundary(const struct identity *identity, const char *content_id, char *hex);

#endif
