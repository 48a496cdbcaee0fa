/* tls_peer.h: OpenSSL as the other side of a TLS connection, over memory only, and certificates made on the spot.
 *
 *   struct openssl_identity *ca = openssl_identity_make(NULL, &(struct openssl_wants){.name = "Test CA", .ca = true});
 *   struct openssl_identity *leaf = openssl_identity_make(ca, &(struct openssl_wants){.dns = {"mx.example.test"}});
 *   openssl_identity_write(ca, "/tmp/x/ca.pem", NULL);                             // for tls_config.ca_file
 *   struct openssl_peer *peer = openssl_peer_new(&(struct openssl_options){.server = true, .identity = leaf});
 *   openssl_peer_take(peer, bytes, length);                                       // what the wire brought: shakes hands, decrypts
 *   length = openssl_peer_give(peer, bytes, size);                                // what is to go onto the wire
 *   openssl_peer_write(peer, "220 ready\r\n", 11); n = openssl_peer_read(peer, text, size);
 *
 * bypost's own worker needs tls_worker_poll in every pass of the test's loop. */
#ifndef TESTS_UNIT_TLS_TLS_PEER_H
#define TESTS_UNIT_TLS_TLS_PEER_H

#include <bypost/path.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The time that certificates are made for by default: bypost's realtime in tests, 2030-01-01 00:00 UTC. */
#define OPENSSL_NOW_S INT64_C(1893456000)

struct openssl_identity;
struct openssl_wants {
    const char *name;      /* common name; NULL: "bypost test" */
    const char *dns[4];    /* subjectAltName; none: no such extension */
    int64_t from_s, to_s;  /* validity, seconds since 1970; 0: a day before and 90 days after OPENSSL_NOW_S */
    bool ca;               /* basicConstraints CA, keyCertSign */
    bool path_length_zero; /* of a CA: no CA below it */
    bool rsa;              /* 2048 bits; else P-256 */
    bool costly;           /* of a CA: RSA, 3,000 bits, and the certificate's exponent has as many */
    const char *usage;     /* extendedKeyUsage as OpenSSL writes it; NULL: none */
};
/* `issuer` NULL: self-signed. Lives until openssl_identity_free; its issuer must live longer. */
struct openssl_identity *openssl_identity_make(const struct openssl_identity *issuer, const struct openssl_wants *wants);
void openssl_identity_free(struct openssl_identity *identity);
/* PEM; either path may be NULL. With the certificate go those of its issuers, without the self-signed one. */
void openssl_identity_write(const struct openssl_identity *identity, const char *certificate_path, const char *key_path);
/* The TLSA record that names it: selector 0 certificate, 1 key; matching 1 SHA-256, 2 SHA-512. */
struct path_tlsa openssl_identity_tlsa(const struct openssl_identity *identity, uint8_t usage, uint8_t selector, uint8_t matching);

struct openssl_peer;
struct openssl_options {
    bool server;
    const struct openssl_identity *identity; /* a server's; a client's if it has one */
    bool sends_root;                         /* presents the self-signed issuer too */
    bool hides_chain;                        /* presents the leaf alone */
    int version_min, version_max;            /* 12, 13; 0: any */
    bool asks_client, demands_client;        /* a certificate of the client */
    bool no_tickets;
    const char *ciphers;          /* TLS 1.2's, as OpenSSL writes them */
    const char *sni;              /* a client's */
    struct openssl_peer *resumes; /* client: that one's session; server: its ticket keys */
};
struct openssl_peer *openssl_peer_new(const struct openssl_options *options);
void openssl_peer_free(struct openssl_peer *peer);
/* Bytes from the wire; takes all, and goes on with the handshake. */
void openssl_peer_take(struct openssl_peer *peer, const uint8_t *bytes, uint32_t length);
/* Bytes for the wire: how many of at most `size`. */
uint32_t openssl_peer_give(struct openssl_peer *peer, uint8_t *bytes, uint32_t size);
bool openssl_peer_ready(const struct openssl_peer *peer);      /* the handshake is over */
bool openssl_peer_resumed(const struct openssl_peer *peer);    /* and took up an earlier session */
bool openssl_peer_failed(const struct openssl_peer *peer);     /* a fatal error or alert */
bool openssl_peer_saw_close(const struct openssl_peer *peer);  /* the other's close_notify */
bool openssl_peer_saw_client(const struct openssl_peer *peer); /* a certificate of the client */
int openssl_peer_version(const struct openssl_peer *peer);     /* 12 or 13 */
const char *openssl_peer_sni(const struct openssl_peer *peer); /* what the client asked for, or NULL */
const char *openssl_peer_error(const struct openssl_peer *peer);
/* Plaintext: all of it is written; as much as is there is read. */
void openssl_peer_write(struct openssl_peer *peer, const void *bytes, uint32_t length);
uint32_t openssl_peer_read(struct openssl_peer *peer, void *bytes, uint32_t size);
void openssl_peer_close(struct openssl_peer *peer);      /* close_notify */
void openssl_peer_key_update(struct openssl_peer *peer); /* and wants one in return (RFC 8446 4.6.3) */

#endif
