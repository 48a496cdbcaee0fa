/* secret.h: memory for private keys: locked where the limits allow, kept out of core dumps and of children, wiped when freed. */
#ifndef CONTROL_SIGN_SECRET_H
#define CONTROL_SIGN_SECRET_H

#include <stddef.h>

/* Zeroed pages of its own. NULL without memory. */
void *secret_alloc(size_t bytes);
/* Of the same size as asked for; NULL does nothing. */
void secret_free(void *memory, size_t bytes);
/* Wipes what functions that have returned to the caller left in vector registers, which the dynamic linker saves to the stack, and below
 * the caller on the stack. wolfCrypt leaves an Ed25519 key's scalar and the nonce of a signature there, memcpy pieces of what it copied.
 * Each use has its depth (tests/unit/sign/test_wiped). */
enum { SECRET_STACK_BYTES = 64 << 10, SECRET_STACK_ED25519_BYTES = 8 << 10 };
void secret_wipe_traces(size_t stack_bytes);

#endif
