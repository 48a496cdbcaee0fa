/* address.h: an address as the suppression lists know it. Used by control and by `bypost suppress`. */
#ifndef CONTROL_SUPPRESS_ADDRESS_H
#define CONTROL_SUPPRESS_ADDRESS_H

#include <stddef.h>
#include <stdint.h>

enum { SUPPRESS_ADDRESS_MAX = 320 }; /* bytes: RFC 5321 4.5.3.1 allows 64 and 255 and the @; a local part may be longer in characters */

/* "local@domain", or "@domain" for a whole domain: in lower case (receivers that tell case in local parts are too rare to miss a
 * suppression for), the domain in A-labels. Returns its length, or -EINVAL for what is none (no @, no domain, white space, control
 * characters, too long). */
int suppress_address(const char *text, size_t length, char out[SUPPRESS_ADDRESS_MAX + 1]);
/* Where the lists have it: the first 32 bits of its SHA-1, which is what Redis Functions can compute (control/library/suppress.lua). */
uint32_t suppress_address_hash(const char *address, size_t length);

#endif
