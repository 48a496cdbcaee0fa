/* tls_probe.c: what TLS costs one core: handshakes, records, memory, and what wolfSSL leaves behind in the vector registers. Prints; judges
 * nothing. Not run by the tests. */
#include "dataplane/tls/tls_private.h"
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <wolfssl/wolfcrypt/sha256.h>

enum { HANDSHAKES = 300, RECORDS = 20000, MESSAGE_BYTES = 4096, SESSIONS = 32 };

static uint64_t cycles(void) {
    return __builtin_ia32_rdtsc();
}

static double cycles_a_second(void) {
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    uint64_t begin = cycles();
    do
        clock_gettime(CLOCK_MONOTONIC, &to);
    while (to.tv_nsec - from.tv_nsec + (to.tv_sec - from.tv_sec) * 1000000000L < 50000000L);
    uint64_t taken = cycles() - begin;
    return (double)taken * 20;
}

static int by_size(const void *a, const void *b) {
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

/* The median: other processes share the core. */
static double middle(uint64_t *all, int count) {
    qsort(all, (size_t)count, sizeof(all[0]), by_size);
    return (double)all[count / 2];
}

/* The peer's part is not counted. */
static uint64_t shake(struct talk *talk, const struct tls_peer *peer) {
    static uint8_t bytes[65536];
    struct world *world = talk->world;
    uint64_t begin = cycles(), taken;
    stream_secure(&talk->stream, world->worker, peer, ++world->now_us);
    stream_flush(&talk->stream, world->now_us);
    taken = cycles() - begin;
    for (int turn = 0; turn < 4 && !talk->secured; turn++) {
        openssl_peer_take(talk->peer, talk->conn->wire, talk->conn->wire_length);
        talk->conn->wire_length = 0;
        fake_acknowledge(talk->conn, world->now_us);
        uint32_t length = openssl_peer_give(talk->peer, bytes, sizeof(bytes));
        begin = cycles();
        tls_worker_poll(world->worker, ++world->now_us);
        fake_deliver(talk->conn, bytes, length, world->now_us);
        tls_worker_poll(world->worker, ++world->now_us);
        taken += cycles() - begin;
    }
    if (!talk->secured) {
        printf("no handshake: %s; %s; usage %lu\n", talk->why, openssl_peer_error(talk->peer),
               (unsigned long)world->worker->usage.handshakes);
        exit(1);
    }
    return taken;
}

static void handshakes(int version, bool rsa, bool resumed, double hz) {
    struct world *world = world_new();
    struct openssl_identity *leaf = openssl_identity_make(world->ca, &(struct openssl_wants){.dns = {"mx.example.test"}, .rsa = rsa});
    struct openssl_options options = {.server = true, .identity = leaf, .version_min = version, .version_max = version};
    struct tls_peer peer = talk_peer(PATH_TLS_VERIFY);
    struct talk *first = talk_new(world, &options);
    static uint64_t all[HANDSHAKES];
    uint64_t taken = 0;
    shake(first, &peer);
    talk_run(first);
    options.resumes = first->peer;
    for (int i = 0; i < HANDSHAKES; i++) {
        if (!resumed)
            peer.port++; /* another key */
        struct talk *talk = talk_new(world, &options);
        taken = shake(talk, &peer);
        if (talk_state(talk).resumed != resumed) {
            printf("resumed: %d\n", talk_state(talk).resumed);
            exit(1);
        }
        all[i] = taken;
        talk_free(talk);
    }
    double each = middle(all, HANDSHAKES);
    printf("TLS 1.%d, %s certificate, %-8s handshake: %8.0f cycles, %.2f ms\n", version - 10, rsa ? "RSA-2048" : "P-256",
           resumed ? "resumed" : "full", each, each / hz * 1000);
    talk_free(first);
    world_free(world);
    openssl_identity_free(leaf);
}

static void records(uint32_t bytes, double hz) {
    struct world *world = world_new();
    struct talk *talk = talk_new(world, NULL);
    static uint8_t message[TLS_RECORD_MAX_BYTES];
    talk_secure(talk, PATH_TLS_VERIFY);
    talk->stream.tls->acknowledged_bytes = TLS_WINDOW_OPEN_BYTES;
    static uint64_t all[RECORDS];
    const struct tcp_piece piece = {.bytes = message, .length = bytes};
    for (int i = 0; i < RECORDS; i++) {
        uint64_t begin = cycles();
        stream_send(&talk->stream, &piece, 1, world->now_us);
        all[i] = cycles() - begin;
        stream_flush(&talk->stream, world->now_us);
        talk->conn->wire_length = 0; /* nobody reads it */
        fake_acknowledge(talk->conn, world->now_us);
    }
    double each = middle(all, RECORDS);
    printf("a record of %5u bytes sent: %6.0f cycles, %.0f MB/s\n", bytes, each, bytes * hz / each / 1e6);
    stream_abort(&talk->stream, world->now_us);
    fake_reap(&world->tcp, world->now_us);
    talk_free(talk);
    world_free(world);
}

static void replies(void) {
    struct world *world = world_new();
    struct talk *talk = talk_new(world, NULL);
    uint8_t bytes[256];
    talk_secure(talk, PATH_TLS_VERIFY);
    static uint64_t all[RECORDS];
    for (int i = 0; i < RECORDS; i++) {
        openssl_peer_write(talk->peer, "250 2.0.0 Ok: queued as 4FZk3T1z9\r\n", 35);
        uint32_t length = openssl_peer_give(talk->peer, bytes, sizeof(bytes));
        uint64_t begin = cycles();
        fake_deliver(talk->conn, bytes, length, world->now_us);
        all[i] = cycles() - begin;
        talk->received_length = 0;
    }
    printf("a reply of 35 bytes received: %.0f cycles\n", middle(all, RECORDS));
    talk_free(talk);
    world_free(world);
}

static void memory(void) {
    struct world *world = world_new();
    struct talk *talks[SESSIONS];
    uint64_t before = 0;
    for (int i = 0; i < SESSIONS; i++) {
        if (i == 1)
            before = world_heap(world); /* with the first, the entry to resume */
        talks[i] = talk_new(world, NULL);
        talk_secure(talks[i], PATH_TLS_VERIFY);
        talk_check_both_ways(talks[i]);
    }
    printf("an idle session: %.0f bytes of heap\n", (double)(world_heap(world) - before) / (SESSIONS - 1));
    for (int i = 0; i < SESSIONS; i++)
        talk_free(talks[i]);
    world_free(world);
}

/* SHA-256 of a message, as dedupe or a digest would, right after wolfSSL's own work with and without vzeroupper. */
static void hashes(bool hello, bool clean, double hz) {
    struct world *world = world_new();
    struct talk *talk = talk_new(world, NULL);
    static uint8_t message[MESSAGE_BYTES], digest[32];
    talk_secure(talk, PATH_TLS_VERIFY);
    static uint64_t all[300];
    for (int i = 0; i < 300; i++) {
        struct tls_worker *before = tls_enter(world->worker);
        if (hello) { /* which makes a key */
            WOLFSSL *ssl = wolfSSL_new(world->worker->contexts[0]);
            wolfSSL_SetIOReadCtx(ssl, talk->stream.tls);
            wolfSSL_SetIOWriteCtx(ssl, talk->stream.tls);
            wolfSSL_connect(ssl);
            wolfSSL_free(ssl);
        } else {
            wolfSSL_write(talk->stream.tls->ssl, message, sizeof(message));
        }
        tls_block_free(talk->stream.tls->out);
        talk->stream.tls->out = NULL;
        if (clean)
            tls_clean_vectors();
        uint64_t begin = cycles();
        wc_Sha256Hash(message, sizeof(message), digest);
        all[i] = cycles() - begin;
        tls_leave(before);
    }
    printf("SHA-256 after a %s, %s vzeroupper: %.0f MB/s\n", hello ? "hello" : "record", clean ? "with" : "without",
           MESSAGE_BYTES * hz / middle(all, 300) / 1e6);
    stream_abort(&talk->stream, world->now_us);
    fake_reap(&world->tcp, world->now_us);
    talk_free(talk);
    world_free(world);
}

int main(void) {
    double hz = cycles_a_second();
    handshakes(13, false, false, hz);
    handshakes(13, true, false, hz);
    handshakes(13, false, true, hz);
    handshakes(12, false, false, hz);
    handshakes(12, false, true, hz);
    records(40, hz);
    records(TLS_RECORD_FIRST_BYTES, hz);
    records(MESSAGE_BYTES, hz);
    records(TLS_RECORD_MAX_BYTES, hz);
    replies();
    memory();
    for (int i = 0; i < 4; i++)
        hashes(i >= 2, i % 2 == 1, hz);
    return 0;
}
