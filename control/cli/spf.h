/* spf.h: would a receiver's SPF check (RFC 7208) pass for an address? */
#ifndef CONTROL_CLI_SPF_H
#define CONTROL_CLI_SPF_H

#include "resolver.h"

enum spf_result {
    SPF_NONE, /* no record */
    SPF_NEUTRAL,
    SPF_PASS,
    SPF_FAIL,
    SPF_SOFTFAIL,
    SPF_TEMPERROR, /* DNS gave no answer */
    SPF_PERMERROR, /* the record is wrong */
    SPF_UNSURE,    /* depends on macros, `exists` or `ptr`, which are not followed here */
};
const char *spf_result_text(enum spf_result result);

enum { SPF_LOOKUPS_MAX = 10, SPF_VOIDS_MAX = 2, SPF_MX_MAX = 10, SPF_WHY_BYTES = 256 };

struct spf {
    struct resolver *resolver;
    struct config_address address;
    /* Its own. */
    const char *domain;
    uint32_t lookups, voids; /* terms so far, of all records */
    bool is_void, error_told;
    char why[SPF_WHY_BYTES]; /* SPF_TEMPERROR, SPF_PERMERROR, SPF_UNSURE: in words. It may quote the record. */
};

/* check_host() of section 4, for mail of this domain from this address. Macros, `exists` and `ptr` count as lookups, and may match or not:
 * SPF_UNSURE where the mail passes in one case only. */
enum spf_result spf_check(struct spf *spf, const char *domain);

#endif
