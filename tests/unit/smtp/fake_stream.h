/* fake_stream.h: a stand-in for the TLS room over fake_tcp: a handshake is one line each way, and what follows goes as it is. The server
 * decides how it ends by what it answers (FAKE_SECURED ...). The real room is tried by test_starttls_real. */
#ifndef TESTS_UNIT_SMTP_FAKE_STREAM_H
#define TESTS_UNIT_SMTP_FAKE_STREAM_H

#include "dataplane/tls/stream.h"

/* Answers of a server to the hello; in octal, which ends after three digits. */
#define FAKE_SECURED  "\026ok"
#define FAKE_VERIFIED "\026verified"
#define FAKE_FLAW     "\026flaw"    /* with tls_peer.report told, and secured */
#define FAKE_EXPIRED  "\025expired" /* insecure: TLS_FAILURE_EXPIRED */
#define FAKE_TLSA     "\025tlsa"    /* TLS_FAILURE_TLSA_MISMATCH */

struct tls_worker {
    int error; /* what stream_secure says, `errors` times */
    uint32_t errors;
    uint32_t handshakes;  /* begun */
    struct tls_peer peer; /* of the last one, with copies of its strings: */
    char name[256], names[256];
    struct path_tlsa tlsa[PATH_TLSA_MAX];
};

#endif
