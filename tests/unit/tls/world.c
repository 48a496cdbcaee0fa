/* world.c: the loop of a worker in small: poll, what left to the peer, what the peer says to us. */
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PASSES_MAX = 100000, CHUNK_BYTES = 1400 };

static struct talk *talk_of(struct stream *stream) {
    return (struct talk *)((char *)stream - offsetof(struct talk, stream));
}

static void on_connected(struct stream *stream, uint64_t now_us) {}

static void on_received(struct stream *stream, const uint8_t *bytes, uint32_t length, uint64_t now_us) {
    struct talk *talk = talk_of(stream);
    assert_true(talk->received_length + length <= WORLD_BYTES_MAX);
    assert_int_equal(talk->insecure, 0);
    memcpy(talk->received + talk->received_length, bytes, length);
    talk->received_length += length;
}

static void on_peer_closed(struct stream *stream, uint64_t now_us) {
    talk_of(stream)->ends++;
}
static void on_acknowledged(struct stream *stream, uint64_t now_us) {
    talk_of(stream)->acknowledged++;
}

static void on_closed(struct stream *stream, enum tcp_error error, uint64_t now_us) {
    struct talk *talk = talk_of(stream);
    talk->closed++;
    talk->error = error;
}

static void on_secured(struct stream *stream, uint64_t now_us) {
    struct talk *talk = talk_of(stream);
    talk->secured++;
    if (talk->aborts_when_secured)
        stream_abort(stream, now_us);
}

static void on_insecure(struct stream *stream, enum tls_failure failure, const char *why, uint64_t now_us) {
    struct talk *talk = talk_of(stream);
    talk->insecure++;
    talk->failure = failure;
    snprintf(talk->why, sizeof(talk->why), "%s", why);
    if (talk->closes_when_insecure)
        stream_close(stream, now_us);
}

static void on_flaw(struct stream *stream, enum tls_failure failure, const char *why, uint64_t now_us) {
    struct talk *talk = talk_of(stream);
    assert_int_equal(talk->secured, 0);
    talk->flaws++;
    talk->flaw = failure;
    snprintf(talk->why, sizeof(talk->why), "%s", why);
}

static const struct stream_events events = {.connected = on_connected,
                                            .received = on_received,
                                            .peer_closed = on_peer_closed,
                                            .acknowledged = on_acknowledged,
                                            .closed = on_closed,
                                            .secured = on_secured,
                                            .insecure = on_insecure,
                                            .tls_flaw = on_flaw};

struct world *world_new_with(const struct tls_config *given) {
    struct world *world = calloc(1, sizeof(*world));
    char path[96], error[256] = "";
    assert_non_null(world);
    strcpy(world->directory, "/tmp/bypost-tls-XXXXXX");
    assert_non_null(mkdtemp(world->directory));
    world->ca = openssl_identity_make(NULL, &(struct openssl_wants){.name = "Test CA", .ca = true});
    world->server = openssl_identity_make(world->ca, &(struct openssl_wants){.dns = {"mx.example.test"}});
    snprintf(path, sizeof(path), "%s/ca.pem", world->directory);
    openssl_identity_write(world->ca, path, NULL);
    world->now_us = 1000000;
    stream_tcp_events(&world->tcp.events);
    assert_int_equal(tls_start(), 0);
    struct tls_config config = given != NULL ? *given : (struct tls_config){.max_sessions = 64};
    if (config.ca_file == NULL && !config.server)
        config.ca_file = path;
    config.realtime_offset_us = OPENSSL_NOW_S * 1000000 - (int64_t)world->now_us;
    world->worker = tls_worker_create(&config, error, sizeof(error));
    if (world->worker == NULL)
        fail_msg("%s", error);
    return world;
}

struct world *world_new(void) {
    return world_new_with(NULL);
}

uint64_t world_heap(const struct world *world) {
    struct tls_usage usage;
    tls_worker_usage(world->worker, &usage);
    return usage.heap_bytes;
}

void world_free(struct world *world) {
    char path[96];
    struct tls_usage usage;
    tls_worker_usage(world->worker, &usage);
    assert_int_equal(usage.sessions, 0);
    for (uint32_t i = 0; i < FAKE_CONNS_MAX; i++)
        assert_int_equal(world->tcp.conns[i].state, FAKE_FREE);
    tls_worker_destroy(world->worker);
    openssl_identity_free(world->server);
    openssl_identity_free(world->ca);
    snprintf(path, sizeof(path), "rm -rf %s", world->directory);
    assert_int_equal(system(path), 0);
    free(world);
}

struct talk *talk_new(struct world *world, const struct openssl_options *options) {
    struct talk *talk = calloc(1, sizeof(*talk));
    const struct tcp_address local = {.family = 4, .bytes = {192, 0, 2, 1}}, remote = {.family = 4, .bytes = {192, 0, 2, 2}};
    talk->world = world;
    talk->received = malloc(WORLD_BYTES_MAX);
    assert_int_equal(stream_open(&talk->stream, &events, &world->tcp, &local, &remote, 25, 1000000, 1000000, world->now_us), 0);
    talk->conn = talk->stream.conn;
    fake_establish(talk->conn, world->now_us);
    struct openssl_options wanted = options != NULL ? *options : (struct openssl_options){.server = true};
    if (wanted.server && wanted.identity == NULL)
        wanted.identity = world->server;
    talk->peer = openssl_peer_new(&wanted);
    return talk;
}

static void take_wire(struct talk *talk, uint32_t length) {
    openssl_peer_take(talk->peer, talk->conn->wire, length);
    talk->conn->wire_length -= length;
    memmove(talk->conn->wire, talk->conn->wire + length, talk->conn->wire_length);
}

bool talk_step(struct talk *talk) {
    struct world *world = talk->world;
    static uint8_t bytes[WORLD_BYTES_MAX];
    bool moved = tls_worker_poll(world->worker, ++world->now_us);
    world->more += moved;
    if (talk->closed)
        return false;
    if (talk->conn->left_count > 0) {
        moved = true;
        fake_acknowledge(talk->conn, world->now_us);
    }
    if (talk->conn->wire_length > 0 && !talk->silent) {
        moved = true;
        take_wire(talk, talk->byte_by_byte ? 1 : talk->conn->wire_length);
    }
    uint32_t length = talk->silent ? 0 : openssl_peer_give(talk->peer, bytes, talk->byte_by_byte ? 1 : CHUNK_BYTES);
    if (length > 0) {
        moved = true;
        fake_deliver(talk->conn, bytes, length, world->now_us);
    }
    return moved;
}

void talk_run(struct talk *talk) {
    uint32_t passes = 0, idle = 0;
    while (idle < 2) {
        idle = talk_step(talk) ? 0 : idle + 1;
        assert_true(++passes < PASSES_MAX);
    }
}

struct tls_peer talk_peer(enum path_tls level) {
    return (struct tls_peer){.level = level, .name = "mx.example.test", .address = {192, 0, 2, 2}, .port = 25};
}

void talk_secure_as(struct talk *talk, const struct tls_peer *peer) {
    assert_int_equal(stream_secure(&talk->stream, talk->world->worker, peer, talk->world->now_us), 0);
    stream_flush(&talk->stream, talk->world->now_us);
    assert_int_equal(talk->secured + talk->insecure, 0);
    talk_run(talk);
}

void talk_secure(struct talk *talk, enum path_tls level) {
    const struct tls_peer peer = talk_peer(level);
    talk_secure_as(talk, &peer);
}

void talk_free(struct talk *talk) {
    struct world *world = talk->world;
    if (!talk->closed) {
        stream_close(&talk->stream, world->now_us);
        talk->silent = false;
        talk_run(talk);
        fake_peer_fin(talk->conn, world->now_us);
        if (!talk->conn->closing)
            stream_abort(&talk->stream, world->now_us);
        fake_reap(&world->tcp, world->now_us);
        assert_int_equal(talk->closed, 1);
    }
    openssl_peer_free(talk->peer);
    free(talk->received);
    free(talk);
}

int talk_say(struct talk *talk, const void *bytes, uint32_t length) {
    const struct tcp_piece piece = {.bytes = bytes, .length = length};
    int error = stream_send(&talk->stream, &piece, 1, talk->world->now_us);
    if (error == 0)
        stream_flush(&talk->stream, talk->world->now_us);
    return error;
}

uint32_t talk_hear(struct talk *talk, void *bytes, uint32_t size) {
    talk_run(talk);
    return openssl_peer_read(talk->peer, bytes, size);
}

void talk_check_both_ways(struct talk *talk) {
    char text[64];
    uint32_t had = talk->received_length;
    assert_int_equal(talk_say(talk, "EHLO a.test\r\n", 13), 0);
    assert_int_equal(talk_hear(talk, text, sizeof(text)), 13);
    assert_memory_equal(text, "EHLO a.test\r\n", 13);
    openssl_peer_write(talk->peer, "250 ok\r\n", 8);
    talk_run(talk);
    assert_int_equal(talk->received_length - had, 8);
    assert_memory_equal(talk->received + had, "250 ok\r\n", 8);
}

struct tls_state talk_state(const struct talk *talk) {
    struct tls_state state;
    stream_tls(&talk->stream, &state);
    return state;
}
