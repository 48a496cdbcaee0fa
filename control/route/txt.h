/* txt.h: TXT records that announce policies: "v=NAME; key=value; ..." (RFC 8461 3.1, RFC 8460 3). Untrusted bytes. */
#ifndef CONTROL_ROUTE_TXT_H
#define CONTROL_ROUTE_TXT_H

#include <stddef.h>
#include <stdint.h>

enum { TXT_BYTES_MAX = 4096, TXT_NAME_MAX = 32, TXT_RUA_BYTES = 1024, TXT_RUA_MAX = 8 };

struct txt_field {
    const char *name, *value;
    size_t name_length, value_length;
};

/* The character-strings of a TXT RDATA joined (RFC 1035 3.3.14), NUL-terminated. Their length; -EINVAL: malformed, too long, or a NUL. */
int txt_join(const uint8_t *rdata, size_t rdata_bytes, char out[TXT_BYTES_MAX]);
/* Does it begin with this version and a semicolon? 0 with *at on that; -ENOENT: a record of another kind. */
int txt_version(const char *text, size_t bytes, const char *version, size_t *at);
/* The field behind *at. 1; 0: that was all; -EINVAL: malformed. */
int txt_next(const char *text, size_t bytes, size_t *at, struct txt_field *field);

/* Where "v=TLSRPTv1; rua=mailto:a@example.net,https://..." wants its reports: the mailto: and https: addresses, NUL-terminated each, in
 * rua[], ended by an empty one. 0; -ENOENT: of another kind; -EINVAL: malformed, or no address that can be used. */
int tlsrpt_record_read(const char *text, size_t bytes, char rua[TXT_RUA_BYTES]);

#endif
