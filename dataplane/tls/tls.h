/* tls.h: the TLS of one worker, as client and, for bypost-sink, as server: contexts, resumption store, scratch. The streams that use it are
 * in stream.h. wolfSSL below; nothing above this room knows it. No clock, no I/O, no DPDK: it runs in the simulator together with tcp/. */
#ifndef DATAPLANE_TLS_TLS_H
#define DATAPLANE_TLS_TLS_H

#include <bypost/path.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TLS_IDENTITIES_MAX = 64,
    TLS_RECORD_MAX_BYTES = 16384,   /* RFC 8446 5.1 */
    TLS_RECORD_FIRST_BYTES = 1344,  /* records begin so small that one fits a segment, until the window opens */
    TLS_IDLE_SESSION_BYTES = 16384, /* DESIGN.md section 5: what an idle TLS session may hold beside TCP's and SMTP's records */
    TLS_STEP_PACKETS_MAX = 4,       /* handshake steps a pass, each of up to 0.4 ms */
};

struct tls_worker;

/* A certificate chain and its key, PEM files. */
struct tls_identity {
    const char *certificate_file, *key_file;
};

struct tls_config {
    const char *ca_file; /* PEM, a file or a directory; NULL: the system's, /etc/ssl/certs/ca-certificates.crt */
    uint32_t identity_count;
    const struct tls_identity *identities; /* of clients: struct path names them from 1 */
    bool server;                           /* bypost-sink: identities[0] is the server's */
    bool no_resumption;                    /* server: every handshake is a full one */
    uint8_t version_max;                   /* server: 12 or 13; 0: 13 */
    uint32_t max_sessions;
    uint32_t resumption_entries; /* of the store of tickets, by endpoint, name and identity; 0: 4096 */
    uint8_t secret[32];          /* seeds this worker's generator of random numbers together with the kernel's */
    /* CLOCK_REALTIME minus the monotonic clock that `now_us` counts: for the dates in certificates. */
    int64_t realtime_offset_us;
    uint64_t now_us; /* at the creation: trusted certificates are looked at then, and one may be younger than the machine's start */
};

/* Once in a process, before any worker: allocators, and what wolfSSL wants. 0 or -errno. */
int tls_start(void);
/* Reads the files now (before privileges are dropped). NULL with a sentence and remedy in `error`. Contexts are shared by the workers of a
 * process where that is safe; everything that changes is this worker's. */
struct tls_worker *tls_worker_create(const struct tls_config *config, char *error, size_t error_bytes);
/* After the stack was destroyed; streams that it had not closed are forgotten with it. */
void tls_worker_destroy(struct tls_worker *worker);
/* Lets handshakes go on that had to wait for their turn, TLS_STEP_PACKETS_MAX of them. Once a pass. Are there more? */
bool tls_worker_poll(struct tls_worker *worker, uint64_t now_us);

struct tls_usage {
    uint64_t handshakes, resumed, failed; /* since the start */
    uint32_t sessions;                    /* alive, handshakes included */
    uint64_t heap_bytes;                  /* held for them and for the resumption store */
};
void tls_worker_usage(const struct tls_worker *worker, struct tls_usage *usage);

/* What a client's handshake asks of its server; read during stream_secure only. The strings and records may lie in a checked copy of a
 * path. */
struct tls_peer {
    enum path_tls level; /* MAY: any certificate. It is verified at every level, so that stream_tls can tell */
    bool report;         /* MTA-STS in mode testing: events->tls_flaw is told what VERIFY would have refused */
    const char *name;    /* SNI, and to be verified; "" or NULL: none, which VERIFY and DANE refuse */
    const char *names;   /* more names that are as good, NUL-terminated each, an empty one ends them; or NULL */
    const struct path_tlsa *tlsa;
    uint32_t tlsa_count;
    uint8_t version_min; /* 12 or 13; 0: 12 */
    uint32_t identity;   /* from 1; 0: none */
    uint8_t address[16]; /* with the port and name the key of the resumption store */
    uint16_t port;
};

/* What became of it. Level 0 version: no TLS. */
struct tls_state {
    uint8_t version; /* 0 plain, 12 or 13 */
    bool resumed;
    bool verified;         /* chain and name, or a TLSA record, were good */
    uint16_t cipher;       /* IANA */
    enum tls_failure flaw; /* why it is not verified */
};

#endif
