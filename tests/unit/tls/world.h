/* world.h: a worker's TLS over the fake TCP, with OpenSSL at the other end of each connection. */
#ifndef TESTS_UNIT_TLS_WORLD_H
#define TESTS_UNIT_TLS_WORLD_H

#include "dataplane/tls/stream.h"
#include "tests/unit/smtp/fake_tcp.h"
#include "tls_peer.h"

enum { WORLD_BYTES_MAX = 1 << 20 };

/* One connection: our stream, the fake connection, their OpenSSL, and what was heard. */
struct talk {
    struct stream stream;
    struct world *world;
    struct tcp_conn *conn;
    struct openssl_peer *peer;
    uint32_t secured, insecure, flaws, ends, closed, acknowledged;
    enum tls_failure failure, flaw;
    enum tcp_error error;
    char why[256];
    uint8_t *received;
    uint32_t received_length;
    bool byte_by_byte, silent; /* silent: the peer answers nothing */
    bool closes_when_insecure;
    bool aborts_when_secured;
};

struct world {
    struct tcp_stack tcp;
    struct tls_worker *worker;
    uint64_t now_us;
    char directory[64]; /* for PEM files */
    struct openssl_identity *ca, *server;
    uint32_t more; /* passes after which handshakes waited for their turn */
};

/* A worker that trusts world->ca, by which world->server was issued for mx.example.test. `identities` are PEM files for clients. */
struct world *world_new(void);
struct world *world_new_with(const struct tls_config *config);
void world_free(struct world *world); /* asserts that nothing is left: no session, no memory but what the worker began with */
/* What the worker holds beside its sessions and store. */
uint64_t world_heap(const struct world *world);

/* A connection to an OpenSSL server, established and not secured yet. */
struct talk *talk_new(struct world *world, const struct openssl_options *options);
/* Closes both sides and frees it. */
void talk_free(struct talk *talk);
/* stream_secure with a level, for mx.example.test, and on until nothing moves. */
void talk_secure(struct talk *talk, enum path_tls level);
void talk_secure_as(struct talk *talk, const struct tls_peer *peer);
/* A peer that talk_secure would ask for. */
struct tls_peer talk_peer(enum path_tls level);
/* Passes of the loop until nothing moves. */
void talk_run(struct talk *talk);
bool talk_step(struct talk *talk);
/* Sends and flushes. */
int talk_say(struct talk *talk, const void *bytes, uint32_t length);
/* The peer's OpenSSL reads so many bytes at most. */
uint32_t talk_hear(struct talk *talk, void *bytes, uint32_t size);
/* Both directions carry text. */
void talk_check_both_ways(struct talk *talk);
struct tls_state talk_state(const struct talk *talk);

#endif
