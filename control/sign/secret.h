/* secret.h: memory for private keys: locked where the limits allow, kept out of core dumps and of children, wiped when freed. */
#ifndef CONTROL_SIGN_SECRET_H
#define CONTROL_SIGN_SECRET_H

#include <stddef.h>

/* Zeroed pages of its own. NULL without memory. */
void *secret_alloc(size_t bytes);
/* Of the same size as asked for; NULL does nothing. */
void secret_free(void *memory, size_t bytes);

#endif
