/* tls_private.h: what the files of this room share. wolfSSL is seen here and in the .c files only. */
#ifndef DATAPLANE_TLS_TLS_PRIVATE_H
#define DATAPLANE_TLS_TLS_PRIVATE_H

#include "dataplane/tcp/tcp.h"
#include "dataplane/tls/stream.h"
#include "dataplane/tls/tls.h"
#include <sys/queue.h>

#include <wolfssl/options.h>

#include <wolfssl/ssl.h>

enum {
    TLS_WHY_BYTES = 256,
    TLS_NAMES_BYTES = 1024,         /* of a peer's further names, together */
    TLS_RECORD_OVERHEAD_BYTES = 96, /* header, IV, MAC and padding of a record: CBC with SHA-384 has the most */
    TLS_WINDOW_OPEN_BYTES = 32768,  /* acknowledged by the peer: from then on records are long */
    TLS_ANSWERS_MAX = 32,           /* to KeyUpdate and HelloRequest, a connection: each costs the peer next to nothing */
    TLS_KEEP_LOOKS = 4,             /* reads after the handshake that look for a new ticket */
    TLS_FLUSHES_A_PASS = 256,
    TLS_STORE_ENTRIES = 4096,
    TLS_STORE_KEY_BYTES = 32,
    TLS_STORE_AGE_S = 7200, /* so long a certificate's verdict may be old */
};

/* The memory of one worker: an arena of jemalloc where there is one. Objects are freed by the worker that made them. */
struct tls_heap {
    uint64_t bytes;
    unsigned arena, cache;
    int flags; /* of mallocx */
};
int tls_heap_open(struct tls_heap *heap);
void tls_heap_close(struct tls_heap *heap);
void *tls_heap_take(struct tls_heap *heap, size_t bytes);
void tls_heap_give(struct tls_heap *heap, void *object);

/* Ciphertext on its way: TCP owns it until it is acknowledged. */
struct tls_block {
    struct tcp_owner owner; /* first */
    struct tls_worker *worker;
    STAILQ_ENTRY(tls_block) next;
    uint32_t length, capacity;
    uint8_t bytes[];
};

/* A session that can be resumed. */
struct tls_entry {
    TAILQ_ENTRY(tls_entry) use; /* the oldest use first */
    LIST_ENTRY(tls_entry) bucket;
    uint8_t key[TLS_STORE_KEY_BYTES];
    WOLFSSL_SESSION *session;
    uint64_t made_us; /* of the full handshake in which the certificate was judged */
    bool verified;
    enum tls_failure flaw;
};
struct tls_store {
    TAILQ_HEAD(, tls_entry) uses;
    LIST_HEAD(tls_bucket, tls_entry) * buckets;
    uint32_t bucket_mask, count, max;
};
int tls_store_open(struct tls_store *store, struct tls_heap *heap, uint32_t entries);
void tls_store_close(struct tls_store *store, struct tls_heap *heap);
/* NULL, or an entry that stays valid until the next call. */
struct tls_entry *tls_store_find(struct tls_worker *worker, const uint8_t *key);
/* A copy of the connection's session takes the place of what was there. */
void tls_store_keep(struct tls_worker *worker, const uint8_t *key, WOLFSSL *ssl, uint64_t made_us, bool verified, enum tls_failure flaw);
void tls_store_drop(struct tls_worker *worker, struct tls_entry *entry);

enum tls_phase {
    TLS_HELLO,     /* our hello is to be made */
    TLS_HANDSHAKE, /* on its way */
    TLS_OPEN,
    TLS_FAILED,  /* the handshake failed: nothing but the end may follow */
    TLS_BROKEN,  /* a record was not what it should be: reset once the alert is out */
    TLS_CLOSING, /* our close_notify was made; theirs may come */
};

/* What is asked of the peer, until the handshake is over. */
struct tls_ask {
    enum path_tls level;
    bool report, judged, looked; /* looked: at the keys of the chain */
    uint8_t tlsa_count;
    enum tls_failure flaw; /* meaningful once judged */
    char why[TLS_WHY_BYTES];
    char name[PATH_TEXT_MAX + 1];
    char names[TLS_NAMES_BYTES]; /* NUL-terminated each, an empty one ends them */
    struct path_tlsa tlsa[PATH_TLSA_MAX];
};

struct tls_session {
    TAILQ_ENTRY(tls_session) turn, leave;
    LIST_ENTRY(tls_session) alive;
    STAILQ_HEAD(, tls_block) waiting; /* encrypted, and TCP has not taken it */
    struct stream *stream;
    struct tls_worker *worker;
    WOLFSSL *ssl;
    struct tls_ask *ask;
    const uint8_t *in;     /* during a call: what TCP gave */
    struct tls_block *out; /* during a call: what wolfSSL gave */
    uint32_t in_length;
    uint32_t waiting_bytes, acknowledged_bytes;
    uint64_t made_us;
    struct tls_state state;
    enum tls_phase phase;
    bool takes_turn, leaves; /* is in the list of that name */
    bool client, close_wanted, end_told;
    bool offered; /* a session to resume */
    bool held;    /* TCP holds bytes that were not taken */
    bool refused; /* TCP takes no more */
    bool gone;    /* during `closed`: the connection may not be touched */
    uint8_t looks, answers;
    uint32_t ticket_mark; /* of the ticket that was kept last */
    uint8_t key[TLS_STORE_KEY_BYTES];
};

struct tls_worker {
    struct tls_heap heap;
    struct tls_usage usage;
    uint64_t now_us;
    int64_t realtime_offset_us;
    bool server;
    uint32_t max_sessions, identity_count, steps_left;
    uint8_t secret[32];
    WOLFSSL_CTX *contexts[TLS_IDENTITIES_MAX + 1]; /* by identity, 0: none */
    WOLFSSL_CERT_MANAGER *trust;
    uint32_t trusted;              /* roots */
    char trust_why[TLS_WHY_BYTES]; /* why there are none */
    struct tls_store store;
    LIST_HEAD(, tls_session) alive;
    TAILQ_HEAD(, tls_session) turns;              /* handshakes that wait for their step */
    TAILQ_HEAD(tls_leaving, tls_session) leaving; /* whose bytes leave at the next poll */
    char why[TLS_WHY_BYTES];
    uint8_t plain[TLS_RECORD_MAX_BYTES], gathered[TLS_RECORD_MAX_BYTES];
};

/* Until tls_leave the allocations and dates of wolfSSL on this thread are this worker's. Returns what tls_leave wants. */
struct tls_worker *tls_enter(struct tls_worker *worker);
void tls_leave(struct tls_worker *before);

/* wolfSSL's AVX code leaves the upper halves of the vectors dirty, and then SHA instructions and SSE code crawl (control/sign/README.md).
 */
static inline void tls_clean_vectors(void) {
#if defined(__x86_64__)
    __asm__ volatile("vzeroupper" ::: "memory");
#endif
}

/* Judges a presented chain, the leaf first, for ask->level or, below VERIFY, as VERIFY would: fills flaw and why. */
void tls_judge(struct tls_worker *worker, struct tls_ask *ask, const WOLFSSL_BUFFER_INFO *certificates, uint32_t count);
/* No certificate of a presented chain has a key that would hold the worker up. To be asked before any of them is used. */
bool tls_keys_are_bearable(const WOLFSSL_BUFFER_INFO *certificates, uint32_t count);
/* RFC 6125 6.4: does the certificate's name stand for the host? */
bool tls_name_matches(const char *pattern, size_t length, const char *host);
/* The place of SubjectPublicKeyInfo in a certificate (RFC 5280 4.1). */
bool tls_public_key_info(const uint8_t *certificate, size_t length, const uint8_t **info, size_t *info_length);

/* Callbacks of wolfSSL. */
int tls_on_verify(int verified, WOLFSSL_X509_STORE_CTX *store);
int tls_on_read(WOLFSSL *ssl, char *bytes, int length, void *user);
int tls_on_write(WOLFSSL *ssl, char *bytes, int length, void *user);

/* The TLS side of stream.c. */
uint32_t tls_session_received(struct tls_session *session, const uint8_t *bytes, uint32_t length, uint64_t now_us);
void tls_session_peer_closed(struct tls_session *session, uint64_t now_us);
void tls_session_acknowledged(struct tls_session *session, uint32_t bytes, uint64_t now_us);
/* Tells the stream's owner that the connection is gone, and frees the session. */
void tls_session_closed(struct tls_session *session, enum tcp_error error, uint64_t now_us);
int tls_session_send(struct tls_session *session, const struct tcp_piece *pieces, uint32_t count, uint64_t now_us);
bool tls_session_is_open(const struct tls_session *session);
void tls_session_flush(struct tls_session *session, uint64_t now_us);
void tls_session_close(struct tls_session *session, uint64_t now_us);
void tls_session_abort(struct tls_session *session, uint64_t now_us);
/* One handshake step: the hello, or what waits at TCP. */
void tls_session_turn(struct tls_session *session, uint64_t now_us);
/* Gives TCP what waits, and lets it leave. */
void tls_session_leave(struct tls_session *session, uint64_t now_us);

/* Makes and begins a session (stream_secure). */
int tls_session_begin(struct stream *stream, struct tls_worker *worker, const struct tls_peer *peer, uint64_t now_us);

/* records.c, for handshake.c */
void tls_session_take_turn(struct tls_session *session);
void tls_session_dispatch(struct tls_session *session, uint64_t now_us);
void tls_session_read(struct tls_session *session, uint64_t now_us);
/* Puts the session into the store if a ticket came that is not there yet. */
void tls_session_keep(struct tls_session *session, uint64_t now_us);
/* A hash of the ticket that wolfSSL holds for it. */
uint32_t tls_session_ticket(struct tls_session *session, uint32_t *length);
struct tls_block *tls_block_new(struct tls_worker *worker, uint32_t capacity);
void tls_block_free(struct tls_block *block);

/* handshake.c */
void tls_session_shake(struct tls_session *session, uint64_t now_us);
void tls_session_fail(struct tls_session *session, enum tls_failure failure, const char *why, uint64_t now_us);
void tls_session_enter(struct tls_session *session, enum tls_phase phase);
void tls_session_free(struct tls_session *session);

#endif
