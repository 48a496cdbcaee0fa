/* token.h: authenticated tokens that name a recipient's message: in unsubscribe links, where nobody may read the address, and in VERP
 * addresses. The same message has the same token at every attempt. README.md says how another program reads one. */
#ifndef CONTROL_RENDER_TOKEN_H
#define CONTROL_RENDER_TOKEN_H

#include "control/job.h"

#include "address.h"

struct identity;

/* What tokens are made with: derived from the identity's secret, wiped when freed. NULL with errno. */
struct token_keys;
struct token_keys *token_keys_create(const uint8_t *secret, size_t length);
void token_keys_free(struct token_keys *keys);

enum {
    TOKEN_LIST_BYTES = 256,    /* RFC 2919 2: 255 and a NUL */
    TOKEN_ID_BYTES = 65,       /* a job's id that is longer is left out: the entry stands for it */
    TOKEN_PAYLOAD_MAX = 700,   /* all members at their longest */
    TOKEN_OVERHEAD_BYTES = 29, /* version, nonce, tag */
    TOKEN_TEXT_BYTES = (TOKEN_PAYLOAD_MAX + TOKEN_OVERHEAD_BYTES) / 3 * 4 + 5,
    VERP_TOKEN_CHARACTERS = 38,
    VERP_PREFIX_MAX = 64 - 1 - VERP_TOKEN_CHARACTERS, /* RFC 5321 4.5.3.1.1: 64 octets of a local part, less "+" and the token */
    VERP_DOMAIN_MAX = ADDRESS_BYTES - 1 - 64 - 1,     /* 4.5.3.1.3: 254 of an address */
};

/* What a token says. A text that is "" is not in it. */
struct token {
    char recipient[ADDRESS_BYTES];
    char tenant[TENANT_NAME_MAX + 1], campaign[QUEUE_NAME_MAX + 1], list[TOKEN_LIST_BYTES];
    char id[TOKEN_ID_BYTES]; /* the producer's, of the job */
    bool has_entry;          /* the job by its first entry: always in a VERP token, else where there is no id */
    uint32_t shard;
    struct entry_id entry;
    uint32_t index; /* of the recipient in the job */
};

/* The token of a link, in base64url, to out[TOKEN_TEXT_BYTES]: AES-256-GCM under a key derived from the identity, its nonce a keyed hash of
 * what it holds. The length, or -EINVAL when the members are over TOKEN_PAYLOAD_MAX. */
int token_write(const struct identity *identity, const struct token *token, char *out);
/* Opens one. 0; -EINVAL: this is no token; -ENOTSUP: of a later version; -EBADMSG: damaged, forged, or made with another key. */
int token_read(const struct identity *identity, const char *text, size_t length, struct token *out);

/* The token of a VERP address (lower case, in base32, so that servers may change its case) to out[VERP_TOKEN_CHARACTERS + 1]: entry, shard
 * and index with 80 bits of HMAC-SHA256. 0, or -EINVAL (an entry, shard or index beyond what fits). */
int verp_write(const struct identity *identity, const struct token *token, char *out);
/* Reads PREFIX+TOKEN@DOMAIN, PREFIX+TOKEN or the token alone. As token_read; `out` has has_entry, entry, shard, index. */
int verp_read(const struct identity *identity, const char *address, struct token *out);

#endif
