/* spf_term.h: the terms of an SPF record (RFC 7208 4.6.1, 5, 6, 7.1), read without asking anybody. Untrusted text. */
#ifndef CONTROL_CLI_SPF_TERM_H
#define CONTROL_CLI_SPF_TERM_H

#include "control/config/config.h"
#include "control/route/domain.h"

enum spf_term_kind {
    SPF_TERM_ALL,
    SPF_TERM_INCLUDE,
    SPF_TERM_A,
    SPF_TERM_MX,
    SPF_TERM_PTR,
    SPF_TERM_IP, /* ip4 and ip6 */
    SPF_TERM_EXISTS,
    SPF_TERM_REDIRECT, /* from here on modifiers */
    SPF_TERM_EXPLANATION,
    SPF_TERM_MODIFIER, /* one that nobody knows, to be ignored */
};

/* A longer term is malformed: a name has 253 characters, and macros that need more serve nobody. */
enum { SPF_TERM_BYTES = 512 };

struct spf_term {
    enum spf_term_kind kind;
    char qualifier; /* "+-~?"; of a modifier '+' */
    bool has_macros;
    uint8_t prefix4, prefix6;      /* a, mx */
    struct config_address network; /* ip4, ip6 */
    char domain[SPF_TERM_BYTES];   /* empty: the record's own; with macros as written */
    char text[SPF_TERM_BYTES];     /* as written, with its qualifier; cut when malformed */
};

enum spf_term_status {
    SPF_TERM_END,
    SPF_TERM_READ,
    SPF_TERM_UNKNOWN,   /* no mechanism of RFC 7208 */
    SPF_TERM_MALFORMED, /* both are permerror (4.6) */
};
/* The next term at *at, which begins behind "v=spf1". */
enum spf_term_status spf_term_next(const char **at, struct spf_term *term);
bool spf_term_modifies(const struct spf_term *term);

#endif
