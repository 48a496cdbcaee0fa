/* test_session.c: handshakes and records against OpenSSL, in TLS 1.2 (RFC 5246) and 1.3 (RFC 8446). */
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <string.h>

enum { LARGE_BYTES = 300000 };

static const int versions[] = {12, 13};

static struct openssl_options only(int version) {
    return (struct openssl_options){.server = true, .version_min = version, .version_max = version};
}

static void assert_secured(const struct talk *talk) {
    if (talk->insecure)
        fail_msg("%s", talk->why);
    assert_int_equal(talk->secured, 1);
}

static void both_versions_carry_bytes_both_ways(void **state) {
    for (int i = 0; i < 2; i++) {
        struct world *world = world_new();
        const struct openssl_options options = only(versions[i]);
        struct talk *talk = talk_new(world, &options);
        assert_int_equal(talk_state(talk).version, 0);
        talk_secure(talk, PATH_TLS_VERIFY);
        assert_secured(talk);
        assert_int_equal(talk_state(talk).version, versions[i]);
        assert_true(talk_state(talk).verified);
        assert_false(talk_state(talk).resumed);
        assert_int_equal(talk_state(talk).cipher >> 8, versions[i] == 13 ? 0x13 : 0xc0);
        assert_string_equal(openssl_peer_sni(talk->peer), "mx.example.test");
        assert_false(openssl_peer_saw_client(talk->peer));
        talk_check_both_ways(talk);
        struct tls_usage usage;
        tls_worker_usage(world->worker, &usage);
        assert_int_equal(usage.handshakes, 1);
        assert_int_equal(usage.sessions, 1);
        talk_free(talk);
        world_free(world);
    }
}

static void every_byte_may_come_alone(void **state) {
    for (int i = 0; i < 2; i++) {
        struct world *world = world_new();
        const struct openssl_options options = only(versions[i]);
        struct talk *talk = talk_new(world, &options);
        talk->byte_by_byte = true;
        talk_secure(talk, PATH_TLS_VERIFY);
        assert_secured(talk);
        talk_check_both_ways(talk);
        talk_free(talk);
        world_free(world);
    }
}

static void nothing_of_the_plain_part_is_encrypted(void **state) {
    struct world *world = world_new();
    struct talk *talk = talk_new(world, NULL);
    assert_int_equal(talk_say(talk, "STARTTLS\r\n", 10), 0);
    assert_int_equal(talk->conn->wire_length, 10);
    assert_memory_equal(talk->conn->wire, "STARTTLS\r\n", 10);
    talk->conn->wire_length = 0;
    fake_acknowledge(talk->conn, world->now_us);
    fake_deliver(talk->conn, (const uint8_t *)"220 go\r\n", 8, world->now_us);
    assert_int_equal(talk->received_length, 8);
    talk_secure(talk, PATH_TLS_ENCRYPT);
    assert_secured(talk);
    talk_check_both_ways(talk);
    talk_free(talk);
    world_free(world);
}

static uint32_t records[4096], record_count;
static void count_records(void *context, struct tcp_conn *conn, const struct tcp_piece *pieces, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t at = 0; at + 5 <= pieces[i].length && pieces[i].bytes[at] == 23;) {
            uint32_t length = (uint32_t)pieces[i].bytes[at + 3] << 8 | pieces[i].bytes[at + 4];
            records[record_count++ % 4096] = length;
            at += 5 + length;
        }
}

static uint32_t releases;
static void count_release(struct tcp_owner *owner) {
    releases++;
}

static void bodies_of_many_pieces_arrive_whole(void **state) {
    for (int i = 0; i < 2; i++) {
        struct world *world = world_new();
        const struct openssl_options options = only(versions[i]);
        struct talk *talk = talk_new(world, &options);
        talk_secure(talk, PATH_TLS_VERIFY);
        assert_secured(talk);
        uint8_t *body = malloc(LARGE_BYTES), *heard = malloc(LARGE_BYTES);
        for (uint32_t at = 0; at < LARGE_BYTES; at++)
            body[at] = (uint8_t)(at * 2654435761u >> 13);
        struct tcp_owner owner = {.references = 0, .release = count_release};
        record_count = 0;
        world->tcp.on_send = count_records;
        uint32_t sent = 0, arrived = 0, size = 1;
        while (sent < LARGE_BYTES) {
            struct tcp_piece pieces[7];
            uint32_t count = 0;
            while (count < 7 && sent < LARGE_BYTES) { /* of every size, from one byte to more than a record */
                uint32_t length = size < LARGE_BYTES - sent ? size : LARGE_BYTES - sent;
                pieces[count++] = (struct tcp_piece){.bytes = body + sent, .length = length, .owner = &owner};
                sent += length;
                size = size * 3 % 20011 + 1;
            }
            assert_int_equal(stream_send(&talk->stream, pieces, count, world->now_us), 0);
            assert_int_equal(owner.references, 0); /* encrypted: the arena is free again */
            assert_true(stream_unsent(&talk->stream) > 0);
            stream_flush(&talk->stream, world->now_us);
            assert_int_equal(stream_unsent(&talk->stream), 0);
            assert_true(stream_unacknowledged(&talk->stream) > 0);
            arrived += talk_hear(talk, heard + arrived, LARGE_BYTES - arrived);
            assert_int_equal(stream_unacknowledged(&talk->stream), 0);
        }
        assert_int_equal(arrived, LARGE_BYTES);
        assert_memory_equal(heard, body, LARGE_BYTES);
        /* Small while the window is, then of the largest size that RFC 8446 5.1 allows. */
        assert_true(records[0] <= TLS_RECORD_FIRST_BYTES + 96);
        uint32_t largest = 0;
        for (uint32_t at = 0; at < record_count; at++)
            largest = records[at] > largest ? records[at] : largest;
        assert_true(largest > TLS_RECORD_MAX_BYTES && largest < TLS_RECORD_MAX_BYTES + 96);
        /* And the other way. */
        for (uint32_t at = 0; at < LARGE_BYTES; at += LARGE_BYTES / 10) {
            openssl_peer_write(talk->peer, body + at, LARGE_BYTES / 10);
            talk_run(talk);
        }
        assert_int_equal(talk->received_length, LARGE_BYTES);
        assert_memory_equal(talk->received, body, LARGE_BYTES);
        world->tcp.on_send = NULL;
        free(body);
        free(heard);
        talk_free(talk);
        world_free(world);
    }
}

/* stream.h: all or none, and what was accepted goes out though TCP refused it at first. */
static void what_tcp_refuses_is_sent_later_and_in_order(void **state) {
    struct world *world = world_new();
    struct talk *talk = talk_new(world, NULL);
    char text[64];
    talk_secure(talk, PATH_TLS_VERIFY);
    assert_secured(talk);
    world->tcp.send_refusals = 2;
    assert_int_equal(talk_say(talk, "MAIL FROM:<a@b.test>\r\n", 22), 0);
    uint32_t waiting = stream_unsent(&talk->stream);
    assert_true(waiting > 22);
    assert_int_equal(stream_unacknowledged(&talk->stream), waiting);
    world->tcp.send_refusals = 1;
    assert_int_equal(talk_say(talk, "RCPT", 4), -ENOBUFS); /* the first still waits */
    assert_int_equal(stream_unsent(&talk->stream), waiting);
    assert_int_equal(talk_say(talk, "RCPT TO:<c@d.test>\r\n", 20), 0);
    assert_int_equal(stream_unsent(&talk->stream), 0);
    assert_int_equal(talk_hear(talk, text, sizeof(text)), 42);
    assert_memory_equal(text, "MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n", 42);
    talk_free(talk);
    world_free(world);
}

/* The poll tries again when nobody else does: the hello, and a close_notify with the FIN behind it. */
static void what_tcp_refuses_does_not_wait_for_the_owner(void **state) {
    struct world *world = world_new();
    struct talk *talk = talk_new(world, NULL);
    const struct tls_peer peer = talk_peer(PATH_TLS_VERIFY);
    assert_int_equal(stream_secure(&talk->stream, world->worker, &peer, world->now_us), 0);
    world->tcp.send_refusals = 3;
    stream_flush(&talk->stream, world->now_us);
    talk_run(talk);
    assert_secured(talk);
    world->tcp.send_refusals = 3;
    stream_close(&talk->stream, world->now_us);
    assert_false(talk->conn->fin_sent);
    for (int i = 0; i < 4; i++)
        talk_step(talk);
    assert_true(talk->conn->fin_sent);
    char text[8];
    assert_int_equal(talk_hear(talk, text, sizeof(text)), 0);
    assert_true(openssl_peer_saw_close(talk->peer));
    talk_free(talk);
    world_free(world);
}

static void sessions_are_bounded(void **state) {
    struct world *world = world_new_with(&(struct tls_config){.max_sessions = 1});
    struct talk *first = talk_new(world, NULL), *second = talk_new(world, NULL);
    const struct tls_peer peer = talk_peer(PATH_TLS_MAY);
    talk_secure(first, PATH_TLS_MAY);
    assert_secured(first);
    assert_int_equal(stream_secure(&second->stream, world->worker, &peer, world->now_us), -ENOBUFS);
    assert_null(second->stream.tls);
    talk_free(first);
    talk_secure(second, PATH_TLS_MAY); /* room again */
    assert_secured(second);
    talk_free(second);
    world_free(world);
}

static void what_cannot_be_verified_is_not_begun(void **state) {
    struct world *world = world_new();
    struct talk *talk = talk_new(world, NULL);
    struct tls_peer peer = talk_peer(PATH_TLS_VERIFY);
    peer.name = "";
    assert_int_equal(stream_secure(&talk->stream, world->worker, &peer, world->now_us), -EINVAL);
    peer = talk_peer(PATH_TLS_DANE);
    assert_int_equal(stream_secure(&talk->stream, world->worker, &peer, world->now_us), -EINVAL);
    peer = talk_peer(PATH_TLS_MAY);
    peer.identity = 1;
    assert_int_equal(stream_secure(&talk->stream, world->worker, &peer, world->now_us), -EINVAL);
    assert_int_equal(stream_secure(&talk->stream, world->worker, NULL, world->now_us), -EINVAL); /* no server's certificate */
    assert_int_equal(stream_secure(&talk->stream, NULL, &peer, world->now_us), -EINVAL);
    assert_null(talk->stream.tls);
    talk_free(talk);
    world_free(world);
}

/* DESIGN.md section 5: a handshake costs 0.4 ms; other sessions must not starve. */
static void handshakes_take_turns(void **state) {
    enum { MANY = 13 };
    struct world *world = world_new();
    struct talk *talks[MANY];
    const struct tls_peer peer = talk_peer(PATH_TLS_VERIFY);
    for (int i = 0; i < MANY; i++) {
        talks[i] = talk_new(world, NULL);
        assert_int_equal(stream_secure(&talks[i]->stream, world->worker, &peer, world->now_us), 0);
        stream_flush(&talks[i]->stream, world->now_us);
    }
    uint32_t hellos = 0;
    for (int i = 0; i < MANY; i++)
        hellos += talks[i]->conn->wire_length > 0;
    assert_int_equal(hellos, TLS_STEP_PACKETS_MAX);
    assert_true(tls_worker_poll(world->worker, ++world->now_us));
    hellos = 0;
    for (int i = 0; i < MANY; i++)
        hellos += talks[i]->conn->wire_length > 0;
    assert_int_equal(hellos, 2 * TLS_STEP_PACKETS_MAX);
    for (int pass = 0; pass < 200; pass++)
        for (int i = 0; i < MANY; i++)
            talk_step(talks[i]);
    for (int i = 0; i < MANY; i++) {
        assert_secured(talks[i]);
        talk_check_both_ways(talks[i]);
    }
    assert_true(world->more > 0);
    assert_false(tls_worker_poll(world->worker, ++world->now_us));
    for (int i = 0; i < MANY; i++)
        talk_free(talks[i]);
    world_free(world);
}

/* A peer's answers come all in one pass: only so many are worked through, the rest wait at TCP and lose nothing. */
static void answers_to_hellos_take_turns(void **state) {
    enum { MANY = 9 };
    struct world *world = world_new();
    struct talk *talks[MANY];
    const struct tls_peer peer = talk_peer(PATH_TLS_VERIFY);
    uint8_t bytes[16384];
    for (int i = 0; i < MANY; i++) {
        talks[i] = talk_new(world, NULL);
        assert_int_equal(stream_secure(&talks[i]->stream, world->worker, &peer, world->now_us), 0);
        tls_worker_poll(world->worker, ++world->now_us);
        openssl_peer_take(talks[i]->peer, talks[i]->conn->wire, talks[i]->conn->wire_length);
        talks[i]->conn->wire_length = 0;
    }
    assert_false(tls_worker_poll(world->worker, ++world->now_us));
    for (int i = 0; i < MANY; i++)
        fake_deliver(talks[i]->conn, bytes, openssl_peer_give(talks[i]->peer, bytes, sizeof(bytes)), world->now_us);
    uint32_t done = 0, held = 0;
    for (int i = 0; i < MANY; i++) {
        done += talks[i]->secured;
        held += talks[i]->conn->held_length > 0;
    }
    assert_int_equal(done, TLS_STEP_PACKETS_MAX);
    assert_int_equal(held, MANY - TLS_STEP_PACKETS_MAX);
    assert_true(tls_worker_poll(world->worker, ++world->now_us));
    for (int i = 0; i < MANY; i++) {
        talk_run(talks[i]);
        assert_secured(talks[i]);
        talk_check_both_ways(talks[i]);
        talk_free(talks[i]);
    }
    world_free(world);
}

static void nothing_is_sent_before_the_handshake_is_over(void **state) {
    struct world *world = world_new();
    struct talk *talk = talk_new(world, NULL);
    const struct tls_peer peer = talk_peer(PATH_TLS_MAY);
    assert_int_equal(stream_secure(&talk->stream, world->worker, &peer, world->now_us), 0);
    assert_int_equal(talk_say(talk, "x", 1), -ENOBUFS);
    talk_run(talk);
    assert_int_equal(talk_say(talk, "x", 1), 0);
    talk_free(talk);
    world_free(world);
}

static void assert_failed(struct talk *talk, enum tls_failure failure, const char *part) {
    assert_int_equal(talk->secured, 0);
    assert_int_equal(talk->insecure, 1);
    assert_int_equal(talk->failure, failure);
    if (strstr(talk->why, part) == NULL)
        fail_msg("'%s' does not hold '%s'", talk->why, part);
    assert_int_equal(talk_say(talk, "MAIL", 4), -EPIPE); /* never in plain */
    assert_false(stream_is_open(&talk->stream));
    assert_int_equal(talk_state(talk).version, 0);
    struct tls_usage usage;
    tls_worker_usage(talk->world->worker, &usage);
    assert_int_equal(usage.failed, 1);
    assert_int_equal(usage.handshakes, 0);
}

static void what_is_no_tls_fails(void **state) {
    static const char *const garbage[] = {"220 still plain\r\n", "\x16\x03\x03\xff\xff", "\x15\x03\x03\x00\x02\x02\x28",
                                          "\x17\x03\x03\x00\x01x"};
    static const uint32_t lengths[] = {17, 5, 7, 6};
    for (int i = 0; i < 4; i++) {
        struct world *world = world_new();
        struct talk *talk = talk_new(world, NULL);
        talk->silent = true;
        talk_secure(talk, PATH_TLS_MAY);
        fake_deliver(talk->conn, (const uint8_t *)garbage[i], lengths[i], world->now_us);
        talk_run(talk);
        assert_failed(talk, TLS_FAILURE_HANDSHAKE, i == 2 ? "alert 40" : "");
        assert_int_equal(talk->received_length, 0);
        talk_free(talk);
        world_free(world);
    }
}

static void no_common_version_fails(void **state) {
    struct world *world = world_new();
    const struct openssl_options options = only(12);
    struct talk *talk = talk_new(world, &options);
    struct tls_peer peer = talk_peer(PATH_TLS_MAY);
    peer.version_min = 13;
    talk_secure_as(talk, &peer);
    assert_failed(talk, TLS_FAILURE_HANDSHAKE, "");
    assert_true(openssl_peer_failed(talk->peer)); /* it was told by an alert */
    talk_free(talk);
    world_free(world);
}

static void the_end_of_the_connection_ends_the_handshake(void **state) {
    struct world *world = world_new();
    struct talk *talk = talk_new(world, NULL);
    talk->silent = true;
    talk_secure(talk, PATH_TLS_MAY);
    fake_peer_fin(talk->conn, world->now_us);
    assert_failed(talk, TLS_FAILURE_HANDSHAKE, "ended the connection");
    assert_int_equal(talk->ends, 0);
    talk_free(talk);
    world_free(world);
}

static void a_reset_ends_the_handshake_and_then_the_stream(void **state) {
    static const enum tcp_error errors[] = {TCP_RESET, TCP_TIMED_OUT};
    for (int i = 0; i < 2; i++) {
        struct world *world = world_new();
        struct talk *talk = talk_new(world, NULL);
        talk->silent = true;
        talk->closes_when_insecure = true;
        talk_secure(talk, PATH_TLS_MAY);
        assert_int_equal(talk->insecure, 0); /* a peer that never answers is the caller's deadline */
        fake_end(talk->conn, errors[i], world->now_us);
        fake_reap(&world->tcp, world->now_us);
        assert_int_equal(talk->insecure, 1);
        assert_int_equal(talk->failure, errors[i] == TCP_RESET ? TLS_FAILURE_HANDSHAKE : TLS_FAILURE_TIMEOUT);
        assert_int_equal(talk->closed, 1);
        assert_int_equal(talk->error, errors[i]);
        talk_free(talk);
        world_free(world);
    }
}

static void closing_in_the_handshake_tells_nothing_more(void **state) {
    struct world *world = world_new();
    struct talk *talk = talk_new(world, NULL);
    const struct tls_peer peer = talk_peer(PATH_TLS_MAY);
    assert_int_equal(stream_secure(&talk->stream, world->worker, &peer, world->now_us), 0);
    stream_close(&talk->stream, world->now_us);
    talk_run(talk);
    assert_int_equal(talk->secured + talk->insecure, 0);
    talk_free(talk);
    world_free(world);
}

static void abort_from_an_event_is_safe(void **state) {
    struct world *world = world_new();
    struct talk *talk = talk_new(world, NULL);
    talk->aborts_when_secured = true;
    talk_secure(talk, PATH_TLS_MAY);
    assert_int_equal(talk->secured, 1);
    fake_reap(&world->tcp, world->now_us);
    assert_int_equal(talk->closed, 1);
    assert_int_equal(talk->error, TCP_ABORTED);
    talk_free(talk);
    world_free(world);
}

/* RFC 8446 6.1, RFC 5246 7.2.1. */
static void close_notify_goes_both_ways(void **state) {
    for (int i = 0; i < 2; i++) {
        struct world *world = world_new();
        const struct openssl_options options = only(versions[i]);
        struct talk *talk = talk_new(world, &options);
        char text[8];
        talk_secure(talk, PATH_TLS_MAY);
        assert_true(stream_is_open(&talk->stream));
        openssl_peer_write(talk->peer, "221 bye\r\n", 9);
        openssl_peer_close(talk->peer);
        talk_run(talk);
        assert_int_equal(talk->received_length, 9);
        assert_int_equal(talk->ends, 1);
        assert_false(stream_is_open(&talk->stream));
        fake_deliver(talk->conn, (const uint8_t *)"anything", 8, world->now_us); /* after it nothing counts */
        fake_peer_fin(talk->conn, world->now_us);
        assert_int_equal(talk->received_length, 9);
        assert_int_equal(talk->ends, 1);
        stream_close(&talk->stream, world->now_us);
        assert_int_equal(talk_hear(talk, text, sizeof(text)), 0);
        assert_true(openssl_peer_saw_close(talk->peer));
        talk_free(talk);
        world_free(world);
    }
}

static void bytes_still_come_after_our_close_notify(void **state) {
    for (int i = 0; i < 2; i++) {
        struct world *world = world_new();
        const struct openssl_options options = only(versions[i]);
        struct talk *talk = talk_new(world, &options);
        talk_secure(talk, PATH_TLS_MAY);
        assert_int_equal(talk_say(talk, "QUIT\r\n", 6), 0);
        stream_close(&talk->stream, world->now_us);
        assert_int_equal(talk_say(talk, "x", 1), -EPIPE);
        openssl_peer_write(talk->peer, "221 bye\r\n", 9);
        talk_run(talk);
        assert_int_equal(talk->received_length, 9);
        talk_free(talk);
        world_free(world);
    }
}

static void a_fin_without_close_notify_is_an_end(void **state) {
    struct world *world = world_new();
    struct talk *talk = talk_new(world, NULL);
    talk_secure(talk, PATH_TLS_MAY);
    fake_peer_fin(talk->conn, world->now_us);
    assert_int_equal(talk->ends, 1);
    talk_free(talk);
    world_free(world);
}

static void a_damaged_record_resets_the_connection(void **state) {
    for (int i = 0; i < 2; i++) {
        struct world *world = world_new();
        const struct openssl_options options = only(versions[i]);
        struct talk *talk = talk_new(world, &options);
        uint8_t bytes[512];
        char text[8];
        talk_secure(talk, PATH_TLS_MAY);
        openssl_peer_write(talk->peer, "250 ok\r\n", 8);
        uint32_t length = openssl_peer_give(talk->peer, bytes, sizeof(bytes));
        bytes[length - 1] ^= 1;
        fake_deliver(talk->conn, bytes, length, world->now_us);
        assert_int_equal(talk->received_length, 0);
        assert_int_equal(talk_say(talk, "x", 1), -EPIPE);
        talk_hear(talk, text, sizeof(text));
        assert_true(openssl_peer_failed(talk->peer)); /* the alert came */
        fake_reap(&world->tcp, world->now_us);
        assert_int_equal(talk->closed, 1);
        assert_int_equal(talk->error, TCP_RESET);
        talk_free(talk);
        world_free(world);
    }
}

/* RFC 8446 4.6.3: it is answered with our own, and new keys serve both ways. */
static void keys_are_updated(void **state) {
    struct world *world = world_new();
    const struct openssl_options options = only(13);
    struct talk *talk = talk_new(world, &options);
    talk_secure(talk, PATH_TLS_MAY);
    for (int i = 0; i < 5; i++) {
        openssl_peer_key_update(talk->peer);
        talk_run(talk);
        talk_check_both_ways(talk);
    }
    /* But not without end: each costs the peer next to nothing. */
    for (int i = 0; i < 40 && !talk->closed; i++) {
        char text[8];
        openssl_peer_key_update(talk->peer);
        talk_run(talk);
        openssl_peer_read(talk->peer, text, sizeof(text));
        fake_reap(&world->tcp, world->now_us);
    }
    assert_int_equal(talk->closed, 1);
    talk_free(talk);
    world_free(world);
}

static void old_ciphers_serve_where_there_is_nothing_else(void **state) {
    static const char *const lists[] = {"ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"};
    for (int i = 0; i < 3; i++) {
        struct world *world = world_new();
        struct talk *talk = talk_new(world, &(struct openssl_options){.server = true, .version_max = 12, .ciphers = lists[i]});
        talk_secure(talk, PATH_TLS_VERIFY);
        assert_secured(talk);
        talk_check_both_ways(talk);
        talk_free(talk);
        world_free(world);
    }
}

/* Config.identities: from 1; a server may ask for one and get none. */
static void client_certificates_are_shown_where_asked_for(void **state) {
    for (int i = 0; i < 2; i++) {
        char certificate[] = "/tmp/bypost-tls-identity-XXXXXX", key[] = "/tmp/bypost-tls-key-XXXXXX";
        close(mkstemp(certificate));
        close(mkstemp(key));
        struct openssl_identity *own = openssl_identity_make(NULL, &(struct openssl_wants){.name = "client", .rsa = true});
        openssl_identity_write(own, certificate, key);
        const struct tls_identity identity = {.certificate_file = certificate, .key_file = key};
        struct world *world = world_new_with(&(struct tls_config){.max_sessions = 4, .identity_count = 1, .identities = &identity});
        struct openssl_options options = only(versions[i]);
        options.asks_client = true;
        for (uint32_t with = 0; with < 2; with++) {
            struct talk *talk = talk_new(world, &options);
            struct tls_peer peer = talk_peer(PATH_TLS_VERIFY);
            peer.identity = with;
            talk_secure_as(talk, &peer);
            assert_secured(talk);
            talk_check_both_ways(talk);
            assert_int_equal(openssl_peer_saw_client(talk->peer), with);
            talk_free(talk);
        }
        options.demands_client = true;
        struct talk *talk = talk_new(world, &options);
        talk_secure(talk, PATH_TLS_VERIFY); /* in 1.3 the refusal comes only after our side is done */
        fake_reap(&world->tcp, world->now_us);
        assert_true(talk->insecure == 1 || (talk->secured == 1 && talk->closed == 1));
        talk_free(talk);
        world_free(world);
        openssl_identity_free(own);
        remove(certificate);
        remove(key);
    }
}

static void bad_files_are_told_at_the_start(void **state) {
    char error[256] = "";
    const struct tls_identity missing = {.certificate_file = "/nonexistent/cert.pem", .key_file = "/nonexistent/key.pem"};
    assert_null(tls_worker_create(&(struct tls_config){.identity_count = 1, .identities = &missing}, error, sizeof(error)));
    assert_non_null(strstr(error, "/nonexistent/cert.pem"));
    assert_null(tls_worker_create(&(struct tls_config){.ca_file = "/nonexistent"}, error, sizeof(error)));
    assert_non_null(strstr(error, "/nonexistent"));
    const struct tls_identity none = {.certificate_file = "/etc/hostname", .key_file = "/etc/hostname"};
    assert_null(tls_worker_create(&(struct tls_config){.identity_count = 1, .identities = &none}, error, sizeof(error)));
    assert_non_null(strstr(error, "/etc/hostname"));
    assert_null(tls_worker_create(&(struct tls_config){.server = true}, error, sizeof(error)));
}

/* bypost-sink's side. */
static void a_server_serves_openssl(void **state) {
    for (int i = 0; i < 2; i++) {
        char certificate[] = "/tmp/bypost-tls-server-XXXXXX", key[] = "/tmp/bypost-tls-key-XXXXXX";
        close(mkstemp(certificate));
        close(mkstemp(key));
        struct openssl_identity *own = openssl_identity_make(NULL, &(struct openssl_wants){.dns = {"mx.example.test"}});
        openssl_identity_write(own, certificate, key);
        const struct tls_identity identity = {.certificate_file = certificate, .key_file = key};
        struct world *world =
            world_new_with(&(struct tls_config){.server = true, .max_sessions = 4, .identity_count = 1, .identities = &identity});
        struct openssl_options options = {.sni = "mx.example.test", .version_min = versions[i], .version_max = versions[i]};
        struct talk *talk = talk_new(world, &options);
        talk_secure_as(talk, NULL);
        assert_secured(talk);
        assert_true(openssl_peer_ready(talk->peer));
        assert_int_equal(openssl_peer_version(talk->peer), versions[i]);
        talk_check_both_ways(talk);
        options.resumes = talk->peer;
        struct talk *again = talk_new(world, &options);
        talk_secure_as(again, NULL);
        assert_secured(again);
        assert_true(openssl_peer_resumed(again->peer));
        assert_true(talk_state(again).resumed);
        talk_check_both_ways(again);
        talk_free(again);
        talk_free(talk);
        world_free(world);
        openssl_identity_free(own);
        remove(certificate);
        remove(key);
    }
}

/* DESIGN.md section 5, and nothing is lost from one connection to the next. */
static void memory_is_bounded_and_comes_back(void **state) {
    for (int i = 0; i < 2; i++) {
        struct world *world = world_new();
        const struct openssl_options options = only(versions[i]);
        uint64_t first = 0, idle = 0;
        for (int round = 0; round < 12; round++) {
            struct talk *talk = talk_new(world, &options);
            uint64_t before = world_heap(world);
            talk_secure(talk, PATH_TLS_VERIFY);
            assert_secured(talk);
            talk_check_both_ways(talk);
            idle = world_heap(world) - before;
            talk_free(talk);
            if (round == 1)
                first = world_heap(world);
            if (round > 1)
                assert_int_equal(world_heap(world), first);
        }
        print_message("TLS 1.%d: an idle session holds %lu bytes of heap\n", versions[i] - 10, (unsigned long)idle);
        assert_true(idle <= TLS_IDLE_SESSION_BYTES);
        world_free(world);
    }
}

/* A process that ends does not wait for its peers. */
static void a_worker_ends_with_sessions_alive(void **state) {
    struct world *world = world_new();
    struct talk *open = talk_new(world, NULL), *begun = talk_new(world, NULL);
    const struct tls_peer peer = talk_peer(PATH_TLS_MAY);
    talk_secure(open, PATH_TLS_MAY);
    assert_int_equal(stream_secure(&begun->stream, world->worker, &peer, world->now_us), 0);
    tls_worker_destroy(world->worker); /* asserts that nothing is left */
    char error[128];
    world->worker = tls_worker_create(&(struct tls_config){.max_sessions = 1}, error, sizeof(error));
    struct talk *talks[] = {open, begun};
    for (int i = 0; i < 2; i++) {
        talks[i]->stream.tls = NULL;
        stream_abort(&talks[i]->stream, world->now_us);
        fake_reap(&world->tcp, world->now_us);
        talk_free(talks[i]);
    }
    world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_versions_carry_bytes_both_ways),
        cmocka_unit_test(every_byte_may_come_alone),
        cmocka_unit_test(nothing_of_the_plain_part_is_encrypted),
        cmocka_unit_test(bodies_of_many_pieces_arrive_whole),
        cmocka_unit_test(what_tcp_refuses_is_sent_later_and_in_order),
        cmocka_unit_test(what_tcp_refuses_does_not_wait_for_the_owner),
        cmocka_unit_test(sessions_are_bounded),
        cmocka_unit_test(what_cannot_be_verified_is_not_begun),
        cmocka_unit_test(handshakes_take_turns),
        cmocka_unit_test(answers_to_hellos_take_turns),
        cmocka_unit_test(nothing_is_sent_before_the_handshake_is_over),
        cmocka_unit_test(what_is_no_tls_fails),
        cmocka_unit_test(no_common_version_fails),
        cmocka_unit_test(the_end_of_the_connection_ends_the_handshake),
        cmocka_unit_test(a_reset_ends_the_handshake_and_then_the_stream),
        cmocka_unit_test(closing_in_the_handshake_tells_nothing_more),
        cmocka_unit_test(abort_from_an_event_is_safe),
        cmocka_unit_test(close_notify_goes_both_ways),
        cmocka_unit_test(bytes_still_come_after_our_close_notify),
        cmocka_unit_test(a_fin_without_close_notify_is_an_end),
        cmocka_unit_test(a_damaged_record_resets_the_connection),
        cmocka_unit_test(keys_are_updated),
        cmocka_unit_test(old_ciphers_serve_where_there_is_nothing_else),
        cmocka_unit_test(client_certificates_are_shown_where_asked_for),
        cmocka_unit_test(bad_files_are_told_at_the_start),
        cmocka_unit_test(a_server_serves_openssl),
        cmocka_unit_test(memory_is_bounded_and_comes_back),
        cmocka_unit_test(a_worker_ends_with_sessions_alive),
    };
    return cmocka_run_group_tests_name("tls_session", tests, NULL, NULL);
}
