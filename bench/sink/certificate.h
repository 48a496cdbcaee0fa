/* certificate.h: a CA of the test's own, and a server's certificate from it, made by the `openssl` command: wolfSSL is built without its
 * certificate generator. */
#ifndef BENCH_SINK_CERTIFICATE_H
#define BENCH_SINK_CERTIFICATE_H

#include "dataplane/net/net.h"
#include <stddef.h>

enum { CERTIFICATE_PATH_BYTES = 512, CERTIFICATE_ADDRESSES_MAX = 32 };

struct certificate_request {
    const char *directory; /* made where it is not there; the CA in it (ca.pem, ca.key) is used again */
    const char *name;      /* of the server, and of its files: NAME.pem, NAME.key */
    const char *more;      /* further DNS names, divided by commas; or NULL */
    uint32_t address_count;
    const struct net_address *addresses; /* the first CERTIFICATE_ADDRESSES_MAX of each family are named in it, too */
    bool rsa;                            /* RSA-2048 in the place of ECDSA P-256 */
};

struct certificate_files {
    char ca[CERTIFICATE_PATH_BYTES], certificate[CERTIFICATE_PATH_BYTES], key[CERTIFICATE_PATH_BYTES];
};

/* 0, or -errno with a sentence. Takes a tenth of a second. */
int certificate_make(const struct certificate_request *request, struct certificate_files *files, char *error, size_t error_bytes);

#endif
