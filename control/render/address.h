/* address.h: mail addresses as they stand in envelopes and header fields: domains as A-labels (RFC 5891), nothing that could end a line or
 * a bracket. */
#ifndef CONTROL_RENDER_ADDRESS_H
#define CONTROL_RENDER_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>

enum { ADDRESS_BYTES = 255, DOMAIN_BYTES = 256 }; /* with their NUL: RFC 5321 4.5.3.1.3 */

/* Writes a domain in A-labels and lower case, or an address literal as it is, to out[DOMAIN_BYTES]. Its length, or -EINVAL. */
int address_domain(const char *domain, size_t length, char *out);

/* Writes local@domain to out[ADDRESS_BYTES], the domain in A-labels. *utf8 is set (never cleared) when the local part is not ASCII, which
 * needs SMTPUTF8 (RFC 6531). The length, or -EINVAL when this is no address. */
int address_format(const char *email, char *out, bool *utf8);

#endif
