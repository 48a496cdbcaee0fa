/* capability.h: what a server said it can do, from the lines of its EHLO reply (RFC 5321 4.1.1.1). */
#ifndef DATAPLANE_SMTP_CAPABILITY_H
#define DATAPLANE_SMTP_CAPABILITY_H

#include <stdint.h>

enum capability_flag {
    CAP_PIPELINING = 1 << 0,  /* RFC 2920 */
    CAP_SIZE = 1 << 1,        /* RFC 1870 */
    CAP_8BITMIME = 1 << 2,    /* RFC 6152 */
    CAP_SMTPUTF8 = 1 << 3,    /* RFC 6531 */
    CAP_CHUNKING = 1 << 4,    /* RFC 3030 */
    CAP_STARTTLS = 1 << 5,    /* RFC 3207 */
    CAP_ENHANCED = 1 << 6,    /* RFC 2034 */
    CAP_DSN = 1 << 7,         /* RFC 3461 */
    CAP_REQUIRETLS = 1 << 8,  /* RFC 8689 */
    CAP_LIMITS = 1 << 9,      /* RFC 9422 */
    CAP_AUTH_PLAIN = 1 << 10, /* RFC 4954 and its mechanisms */
    CAP_AUTH_LOGIN = 1 << 11,
    CAP_AUTH_CRAM_MD5 = 1 << 12,
    CAP_AUTH_XOAUTH2 = 1 << 13,
    CAP_AUTH_OAUTHBEARER = 1 << 14,
};

struct capabilities {
    uint32_t flags;                               /* enum capability_flag */
    uint32_t mail_max, rcpt_max, rcpt_domain_max; /* LIMITS; 0: none said */
    uint64_t size_max_bytes;                      /* SIZE; 0: none said */
};

/* One line after the first, without code and line end. Unknown keywords are ignored; keywords come in any case, and `AUTH=` counts too. */
void capability_line(struct capabilities *capabilities, const char *line, uint32_t length);

#endif
