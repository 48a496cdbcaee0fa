/* compose.h: the text of DKIM-Signature fields (RFC 6376 3.5), and what of a header goes into their hash. */
#ifndef CONTROL_SIGN_COMPOSE_H
#define CONTROL_SIGN_COMPOSE_H

#include "canonical.h"
#include "keys.h"

enum {
    COMPOSE_FIELDS_MAX = 1024, /* header fields of a message that can be signed */
    COMPOSE_FIELD_MAX = 4096,  /* a DKIM-Signature field: h= of all names, b= of 4096 bits */
};

/* The header of the message that is being signed. */
struct compose_header {
    uint32_t count;
    struct compose_field {
        const uint8_t *text; /* the name begins here */
        uint32_t length;     /* to the next field */
        int8_t name;         /* its place in the names that are signed, or -1 */
    } fields[COMPOSE_FIELDS_MAX];
};

/* Text under construction. */
struct compose_text {
    char *text;
    size_t room, length, line;
    bool full;
};

/* Finds the fields of a header that ends with its empty line. 0, or -EINVAL when there are too many. */
int compose_find(struct compose_header *header, const struct dkim_names *names, const uint8_t *text, size_t length);
/* h=, on a line of its own; and the fields that it names go into the hash. */
void compose_names(struct compose_text *out, const struct compose_header *header, const struct dkim_names *names,
                   struct canonical *canonical);
/* A whole field but for its signature, from its name to "b=". `names` is what compose_names wrote. */
void compose_field(struct compose_text *out, const struct dkim_key *key, const char *body_hash, uint64_t time_s, uint32_t expire_s,
                   const struct compose_text *names);
/* What is to follow: a signature of so many bytes in base64, folded, and the field's end. Bytes of it; and the text itself, to out. */
size_t compose_signature_length(size_t signature_bytes);
void compose_signature(char *out, const uint8_t *signature, size_t signature_bytes);

#endif
