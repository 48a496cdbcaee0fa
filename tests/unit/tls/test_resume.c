/* test_resume.c: sessions taken up again (RFC 8446 2.2, RFC 5246 7.3): faster, and never a way around a certificate. */
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const int versions[] = {12, 13};

/* A server that keeps its keys and sessions from talk to talk: the first talk's OpenSSL context, which lives as long as `first`. */
struct host {
    struct world *world;
    struct talk *first;
    struct openssl_options options;
};

static struct talk *visit(struct host *host, const struct tls_peer *peer) {
    struct openssl_options options = host->options;
    options.resumes = host->first != NULL ? host->first->peer : NULL;
    struct talk *talk = talk_new(host->world, &options);
    talk_secure_as(talk, peer);
    if (host->first == NULL)
        host->first = talk;
    return talk;
}

static void host_close(struct host *host) {
    talk_free(host->first);
    world_free(host->world);
}

/* Visits, checks and leaves. */
static void expect(struct host *host, const struct tls_peer *peer, bool resumed, bool verified) {
    struct talk *talk = visit(host, peer);
    if (talk->insecure)
        fail_msg("TLS %d: %s", host->options.version_min, talk->why);
    assert_int_equal(talk->secured, 1);
    if (talk_state(talk).resumed != resumed)
        fail_msg("TLS %d resumed: %d, not %d", host->options.version_min, talk_state(talk).resumed, resumed);
    assert_int_equal(openssl_peer_resumed(talk->peer), resumed);
    assert_int_equal(talk_state(talk).verified, verified);
    talk_check_both_ways(talk);
    if (talk != host->first)
        talk_free(talk);
}

static struct host host_open(int version, const struct openssl_identity *identity, const struct tls_config *config) {
    return (struct host){.world = world_new_with(config),
                         .options = {.server = true, .identity = identity, .version_min = version, .version_max = version}};
}

static void the_second_connection_is_resumed(void **state) {
    for (int i = 0; i < 2; i++) {
        struct host host = host_open(versions[i], NULL, NULL);
        const struct tls_peer peer = talk_peer(PATH_TLS_VERIFY);
        expect(&host, &peer, false, true);
        for (int again = 0; again < 3; again++)
            expect(&host, &peer, true, true);
        struct tls_usage usage;
        tls_worker_usage(host.world->worker, &usage);
        assert_int_equal(usage.handshakes, 4);
        assert_int_equal(usage.resumed, 3);
        host_close(&host);
    }
}

static void several_at_once_resume_the_same_session(void **state) {
    for (int i = 0; i < 2; i++) {
        struct host host = host_open(versions[i], NULL, NULL);
        const struct tls_peer peer = talk_peer(PATH_TLS_VERIFY);
        struct talk *talks[3];
        expect(&host, &peer, false, true);
        for (int t = 0; t < 3; t++) {
            struct openssl_options options = host.options;
            options.resumes = host.first->peer;
            talks[t] = talk_new(host.world, &options);
            assert_int_equal(stream_secure(&talks[t]->stream, host.world->worker, &peer, host.world->now_us), 0);
        }
        for (int pass = 0; pass < 40; pass++)
            for (int t = 0; t < 3; t++)
                talk_step(talks[t]);
        for (int t = 0; t < 3; t++) {
            assert_true(talk_state(talks[t]).resumed);
            talk_check_both_ways(talks[t]);
            talk_free(talks[t]);
        }
        host_close(&host);
    }
}

/* The ticket that was offered is not kept with the secret of the connection that it began. */
static void a_ticket_serves_again_where_no_new_one_came(void **state) {
    for (int i = 0; i < 2; i++) {
        struct host host = host_open(versions[i], NULL, NULL);
        const struct tls_peer peer = talk_peer(PATH_TLS_VERIFY);
        expect(&host, &peer, false, true);
        for (int again = 0; again < 3; again++) {
            struct openssl_options options = host.options;
            options.resumes = host.first->peer;
            struct talk *talk = talk_new(host.world, &options);
            assert_int_equal(stream_secure(&talk->stream, host.world->worker, &peer, host.world->now_us), 0);
            for (int pass = 0; pass < 20 && talk->secured + talk->insecure == 0; pass++)
                talk_step(talk);
            assert_int_equal(talk->secured, 1);
            assert_true(talk_state(talk).resumed);
            stream_abort(&talk->stream, host.world->now_us);
            fake_reap(&host.world->tcp, host.world->now_us);
            talk_free(talk);
        }
        expect(&host, &peer, true, true);
        host_close(&host);
    }
}

static void a_server_that_forgot_gets_a_full_handshake(void **state) {
    for (int i = 0; i < 2; i++) {
        struct host host = host_open(versions[i], NULL, NULL);
        const struct tls_peer peer = talk_peer(PATH_TLS_VERIFY);
        expect(&host, &peer, false, true);
        struct talk *other = talk_new(host.world, &host.options); /* new keys */
        talk_secure_as(other, &peer);
        assert_int_equal(other->secured, 1);
        assert_false(talk_state(other).resumed);
        assert_true(talk_state(other).verified);
        talk_check_both_ways(other);
        talk_free(other);
        host_close(&host);
    }
}

/* A session begun with any certificate is none for a level that wants a good one. */
static void a_bad_certificate_is_not_resumed_into_verify(void **state) {
    for (int i = 0; i < 2; i++) {
        struct openssl_identity *self = openssl_identity_make(NULL, &(struct openssl_wants){.dns = {"mx.example.test"}});
        struct host host = host_open(versions[i], self, NULL);
        struct tls_peer peer = talk_peer(PATH_TLS_MAY);
        expect(&host, &peer, false, false);
        expect(&host, &peer, true, false);
        peer.level = PATH_TLS_VERIFY;
        struct talk *talk = visit(&host, &peer);
        assert_int_equal(talk->secured, 0);
        assert_int_equal(talk->failure, TLS_FAILURE_NOT_TRUSTED);
        talk_free(talk);
        /* A report is told of a resumed session too. */
        peer.level = PATH_TLS_ENCRYPT;
        peer.report = true;
        for (int again = 0; again < 2; again++) {
            talk = visit(&host, &peer);
            assert_int_equal(talk->secured, 1);
            assert_int_equal(talk->flaws, 1);
            assert_int_equal(talk->flaw, TLS_FAILURE_NOT_TRUSTED);
            talk_free(talk);
        }
        host_close(&host);
        openssl_identity_free(self);
    }
}

static void a_good_certificate_is_resumed_at_every_level(void **state) {
    for (int i = 0; i < 2; i++) {
        struct host host = host_open(versions[i], NULL, NULL);
        struct tls_peer peer = talk_peer(PATH_TLS_MAY);
        expect(&host, &peer, false, true);
        peer.level = PATH_TLS_VERIFY;
        expect(&host, &peer, true, true);
        peer.level = PATH_TLS_ENCRYPT;
        expect(&host, &peer, true, true);
        host_close(&host);
    }
}

/* What is part of the verdict, or of who asks, is part of the key. */
static void another_question_is_another_session(void **state) {
    for (int i = 0; i < 2; i++) {
        struct host host = host_open(versions[i], NULL, NULL);
        struct tls_peer peer = talk_peer(PATH_TLS_VERIFY), other;
        expect(&host, &peer, false, true);
        other = peer;
        other.port = 465;
        expect(&host, &other, false, true);
        other = peer;
        other.address[3]++;
        expect(&host, &other, false, true);
        other = peer;
        other.names = "mx2.example.test\0";
        expect(&host, &other, false, true);
        other = peer;
        other.level = PATH_TLS_MAY;
        other.name = "other.test";
        expect(&host, &other, false, false);
        other = peer;
        other.version_min = 12;
        expect(&host, &other, false, true);
        struct path_tlsa records[2] = {openssl_identity_tlsa(host.world->server, 3, 1, 1), openssl_identity_tlsa(host.world->ca, 2, 0, 1)};
        other = peer;
        other.level = PATH_TLS_DANE;
        other.tlsa = records;
        other.tlsa_count = 1;
        expect(&host, &other, false, true);
        expect(&host, &other, true, true);
        other.tlsa_count = 2; /* records that changed are judged anew */
        expect(&host, &other, false, true);
        expect(&host, &peer, true, true);
        host_close(&host);
    }
}

static void another_identity_is_another_session(void **state) {
    char certificate[64], key[64];
    struct openssl_identity *own = openssl_identity_make(NULL, &(struct openssl_wants){.name = "client"});
    snprintf(certificate, sizeof(certificate), "/tmp/bypost-tls-resume-%d.pem", (int)getpid());
    snprintf(key, sizeof(key), "/tmp/bypost-tls-resume-%d.key", (int)getpid());
    openssl_identity_write(own, certificate, key);
    const struct tls_identity identity = {.certificate_file = certificate, .key_file = key};
    for (int i = 0; i < 2; i++) {
        struct host host =
            host_open(versions[i], NULL, &(struct tls_config){.max_sessions = 8, .identity_count = 1, .identities = &identity});
        struct tls_peer peer = talk_peer(PATH_TLS_VERIFY);
        host.options.asks_client = true;
        expect(&host, &peer, false, true);
        peer.identity = 1;
        expect(&host, &peer, false, true);
        expect(&host, &peer, true, true);
        host_close(&host);
    }
    openssl_identity_free(own);
    remove(certificate);
    remove(key);
}

static void the_least_recently_used_goes_first(void **state) {
    struct host host = host_open(13, NULL, &(struct tls_config){.max_sessions = 8, .resumption_entries = 2});
    struct tls_peer peers[3];
    for (int i = 0; i < 3; i++) {
        peers[i] = talk_peer(PATH_TLS_VERIFY);
        peers[i].port = (uint16_t)(1000 + i);
    }
    expect(&host, &peers[0], false, true);
    expect(&host, &peers[1], false, true);
    expect(&host, &peers[0], true, true);
    expect(&host, &peers[2], false, true); /* in the place of 1 */
    expect(&host, &peers[0], true, true);
    expect(&host, &peers[2], true, true);
    expect(&host, &peers[1], false, true);
    host_close(&host);
}

static void an_old_verdict_is_not_believed(void **state) {
    for (int i = 0; i < 2; i++) {
        struct host host = host_open(versions[i], NULL, NULL);
        const struct tls_peer peer = talk_peer(PATH_TLS_VERIFY);
        expect(&host, &peer, false, true);
        host.world->now_us += UINT64_C(7000) * 1000000;
        expect(&host, &peer, true, true); /* which does not make it younger */
        host.world->now_us += UINT64_C(300) * 1000000;
        expect(&host, &peer, false, true);
        host_close(&host);
    }
}

/* Hosts of different versions behind one address: the session that made a handshake fail is not offered again. */
static void a_session_that_does_harm_is_forgotten(void **state) {
    struct host host = host_open(12, NULL, NULL);
    const struct tls_peer peer = talk_peer(PATH_TLS_VERIFY);
    expect(&host, &peer, false, true);
    const struct openssl_options newer = {.server = true, .version_min = 13};
    struct talk *talk = talk_new(host.world, &newer);
    talk_secure_as(talk, &peer);
    assert_int_equal(talk->insecure, 1);
    talk_free(talk);
    talk = talk_new(host.world, &newer);
    talk_secure_as(talk, &peer);
    assert_int_equal(talk->secured, 1);
    talk_free(talk);
    host_close(&host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_second_connection_is_resumed),
        cmocka_unit_test(several_at_once_resume_the_same_session),
        cmocka_unit_test(a_ticket_serves_again_where_no_new_one_came),
        cmocka_unit_test(a_server_that_forgot_gets_a_full_handshake),
        cmocka_unit_test(a_bad_certificate_is_not_resumed_into_verify),
        cmocka_unit_test(a_good_certificate_is_resumed_at_every_level),
        cmocka_unit_test(another_question_is_another_session),
        cmocka_unit_test(another_identity_is_another_session),
        cmocka_unit_test(the_least_recently_used_goes_first),
        cmocka_unit_test(an_old_verdict_is_not_believed),
        cmocka_unit_test(a_session_that_does_harm_is_forgotten),
    };
    return cmocka_run_group_tests_name("tls_resume", tests, NULL, NULL);
}
