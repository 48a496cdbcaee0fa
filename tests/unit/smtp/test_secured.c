/* test_secured.c: the room on the real TLS room, against OpenSSL: what test_starttls shows with a stand-in holds with certificates. */
#include "dataplane/tls/tls.h"
#include "tests/unit/tls/tls_peer.h"
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define DELIVERED "REPLIED FINAL 250 2.0.0"

/* A worker's TLS, a test's certificates, and OpenSSL at the other end of each connection. */
struct lab {
    struct world *world;
    struct tls_worker *worker;
    struct openssl_identity *ca, *good, *other, *expired;
    struct openssl_options options; /* of the servers */
    struct openssl_peer *peers[FAKE_CONNS_MAX];
    char ca_file[64];
    uint32_t resumed;
};

static void begin(void *context, uint32_t place) {
    struct lab *lab = context;
    if (lab->peers[place])
        openssl_peer_free(lab->peers[place]);
    lab->peers[place] = openssl_peer_new(&lab->options);
}

static bool ready(void *context, uint32_t place) {
    return openssl_peer_ready(((struct lab *)context)->peers[place]);
}

static uint32_t take(void *context, uint32_t place, const uint8_t *bytes, uint32_t length, uint8_t *plain, uint32_t size) {
    struct openssl_peer *peer = ((struct lab *)context)->peers[place];
    openssl_peer_take(peer, bytes, length);
    return openssl_peer_failed(peer) ? 0 : openssl_peer_read(peer, plain, size);
}

static uint32_t give(void *context, uint32_t place, const void *plain, uint32_t length, uint8_t *wire, uint32_t size) {
    struct openssl_peer *peer = ((struct lab *)context)->peers[place];
    if (length && openssl_peer_ready(peer))
        openssl_peer_write(peer, plain, length);
    return openssl_peer_give(peer, wire, size);
}

static bool poll_worker(void *context, uint64_t now_us) {
    return tls_worker_poll(((struct lab *)context)->worker, now_us);
}

static void lab_new(struct lab *lab, enum path_tls level, uint32_t endpoints) {
    char error[256] = "";
    *lab = (struct lab){.ca = openssl_identity_make(NULL, &(struct openssl_wants){.name = "Test CA", .ca = true})};
    lab->good = openssl_identity_make(lab->ca, &(struct openssl_wants){.dns = {"mx.test"}});
    lab->other = openssl_identity_make(lab->ca, &(struct openssl_wants){.dns = {"elsewhere.test"}});
    lab->expired = openssl_identity_make(
        lab->ca, &(struct openssl_wants){.dns = {"mx.test"}, .from_s = OPENSSL_NOW_S - 200000, .to_s = OPENSSL_NOW_S - 100000});
    snprintf(lab->ca_file, sizeof(lab->ca_file), "/tmp/bypost-secured-%d.pem", (int)getpid());
    openssl_identity_write(lab->ca, lab->ca_file, NULL);
    struct tls_config config = {.ca_file = lab->ca_file,
                                .max_sessions = 32,
                                .secret = {1, 2, 3},
                                .realtime_offset_us = OPENSSL_NOW_S * 1000000 - (int64_t)(1000 * SECOND)};
    lab->worker = tls_worker_create(&config, error, sizeof(error));
    unlink(lab->ca_file);
    if (!lab->worker)
        fail_msg("%s", error);
    lab->options = (struct openssl_options){.server = true, .identity = lab->good};
    struct world *world = lab->world = world_new_with(lab->worker);
    world->tls = (struct world_tls){begin, ready, take, give, poll_worker, lab};
    world_path(world, endpoints, 1, 0);
    for (uint32_t i = 0; i < endpoints; i++)
        world_path_record(world)->endpoints[i].tls = (uint8_t)level;
    world_path_record(world)->timeouts.ehlo = 10000;
    world->script.ehlo = "250-mx.test\r\n250-PIPELINING\r\n250 STARTTLS\r\n";
    world->script.ehlo_secure = "250-mx.test\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n";
    world->script.starttls = "220 2.0.0 go on\r\n";
    world->script.auth[0] = "235 2.7.0 welcome\r\n";
    world->strict = false; /* pieces are records here */
}

static void lab_free(struct lab *lab) {
    for (uint32_t i = 0; i < FAKE_CONNS_MAX; i++) {
        if (lab->peers[i])
            openssl_peer_free(lab->peers[i]);
    }
    world_free(lab->world);
    struct tls_usage usage;
    tls_worker_usage(lab->worker, &usage);
    assert_int_equal(usage.sessions, 0);
    tls_worker_destroy(lab->worker);
    openssl_identity_free(lab->good);
    openssl_identity_free(lab->other);
    openssl_identity_free(lab->expired);
    openssl_identity_free(lab->ca);
}

static const char *deliver(struct lab *lab) {
    uint32_t slot = world_send(lab->world, "b@example.test");
    world_until_answered(lab->world, slot);
    return world_outcome(lab->world, slot);
}

static void check_failure(const struct lab *lab, enum tls_failure failure) {
    const struct path_event *event = &lab->world->events[0];
    assert_true(lab->world->event_count > 0);
    assert_int_equal(event->kind, PATH_EVENT_TLS_FAILED);
    if (event->detail != failure || event->text_length < 10 || memcmp(event->text, "mx.test: ", 9) != 0)
        fail_msg("failure %u, not %u: %.*s", event->detail, failure, event->text_length, event->text);
}

static void mail_goes_under_tls_of_both_versions(void **state) {
    for (int version = 12; version <= 13; version++) {
        for (enum path_tls level = PATH_TLS_MAY; level <= PATH_TLS_VERIFY; level++) {
            struct lab lab;
            lab_new(&lab, level, 1);
            lab.options.version_min = lab.options.version_max = version;
            world_publish(lab.world);
            assert_string_equal(deliver(&lab), DELIVERED);
            assert_string_equal(lab.world->mail[0], "Subject: x\r\n\r\nhello\r\n");
            const struct slot_reply *reply = &world_at(lab.world, 0)->reply;
            assert_int_equal(reply->tls_version, version);
            assert_int_not_equal(reply->tls_cipher, 0);
            assert_true(reply->flags & REPLY_TLS_VERIFIED); /* told at every level */
            assert_false(reply->flags & REPLY_TLS_RESUMED);
            assert_int_equal(world_cell(lab.world)->worker.sessions_secured_total, 1);
            assert_string_equal(openssl_peer_sni(lab.peers[0]), "mx.test");
            world_run(lab.world, 30 * SECOND); /* QUIT under TLS too */
            assert_non_null(strstr(lab.world->commands, "QUIT|"));
            assert_int_equal(world_connections(lab.world), 0);
            lab_free(&lab);
        }
    }
}

static void implicit_tls(void **state) {
    struct lab lab;
    lab_new(&lab, PATH_TLS_VERIFY, 1);
    world_path_record(lab.world)->flags = PATH_IMPLICIT_TLS;
    lab.world->script.implicit_tls = true;
    world_publish(lab.world);
    assert_string_equal(deliver(&lab), DELIVERED);
    assert_int_equal(strncmp(lab.world->commands, "EHLO out.sender.test|MAIL", 25), 0);
    lab_free(&lab);
}

static void auth_goes_under_tls(void **state) {
    struct lab lab;
    lab_new(&lab, PATH_TLS_ENCRYPT, 1);
    struct path *path = world_path_record(lab.world);
    memcpy(path->strings + 400, "tim\0tanstaaftanstaaf", 21);
    path->auth_user = 400;
    path->auth_secret = 404;
    world_publish(lab.world);
    assert_string_equal(deliver(&lab), DELIVERED);
    assert_non_null(strstr(lab.world->commands, "AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm|MAIL"));
    lab_free(&lab);
}

static void each_byte_alone(void **state) {
    struct lab lab;
    lab_new(&lab, PATH_TLS_VERIFY, 1);
    lab.world->script.byte_by_byte = true;
    world_publish(lab.world);
    assert_string_equal(deliver(&lab), DELIVERED);
    lab_free(&lab);
}

/* Levels that verify refuse; ENCRYPT takes any; and the one after a refusal is another host or a deferral, never plain. */
static void certificates_that_are_not_good(void **state) {
    struct lab lab;
    for (uint32_t i = 0; i < 3; i++) {
        lab_new(&lab, PATH_TLS_VERIFY, 1);
        struct openssl_identity *stranger = openssl_identity_make(NULL, &(struct openssl_wants){.dns = {"mx.test"}});
        lab.options.identity = i == 0 ? lab.other : i == 1 ? lab.expired : stranger;
        world_publish(lab.world);
        assert_string_equal(deliver(&lab), "LOCAL 454 4.7.5");
        check_failure(&lab, i == 0 ? TLS_FAILURE_HOST_MISMATCH : i == 1 ? TLS_FAILURE_EXPIRED : TLS_FAILURE_NOT_TRUSTED);
        assert_null(strstr(lab.world->commands, "MAIL"));
        lab_free(&lab);
        openssl_identity_free(stranger);

        lab_new(&lab, PATH_TLS_ENCRYPT, 1);
        lab.options.identity = i == 0 ? lab.other : lab.expired;
        world_publish(lab.world);
        assert_string_equal(deliver(&lab), DELIVERED);
        assert_false(world_at(lab.world, 0)->reply.flags & REPLY_TLS_VERIFIED);
        lab_free(&lab);
    }
}

static void names_beside_the_hosts_do_as_well(void **state) {
    struct lab lab;
    lab_new(&lab, PATH_TLS_VERIFY, 1);
    memcpy(world_path_record(lab.world)->strings + 300, "example.test\0elsewhere.test\0", 29);
    world_path_record(lab.world)->verify_names = 300;
    lab.options.identity = lab.other;
    world_publish(lab.world);
    assert_string_equal(deliver(&lab), DELIVERED);
    lab_free(&lab);
}

static void dane_takes_what_its_records_name(void **state) { /* RFC 7672 3.1.1 */
    for (uint32_t good = 0; good < 2; good++) {
        struct lab lab;
        lab_new(&lab, PATH_TLS_DANE, 1);
        struct path *path = world_path_record(lab.world);
        struct path_tlsa record = openssl_identity_tlsa(good ? lab.expired : lab.other, 3, 1, 1);
        memcpy(path->strings + 301, &record, sizeof(record));
        path->endpoints[0].tlsa = 301;
        path->endpoints[0].tlsa_count = 1;
        lab.options.identity = lab.expired; /* whose dates DANE-EE does not look at */
        world_publish(lab.world);
        assert_string_equal(deliver(&lab), good ? DELIVERED : "LOCAL 454 4.7.5");
        if (!good)
            check_failure(&lab, TLS_FAILURE_TLSA_MISMATCH);
        lab_free(&lab);
    }
}

static void a_policy_in_testing_tells_and_delivers(void **state) {
    struct lab lab;
    lab_new(&lab, PATH_TLS_MAY, 1);
    world_path_record(lab.world)->flags = PATH_TLS_TESTING;
    lab.options.identity = lab.other;
    world_publish(lab.world);
    assert_string_equal(deliver(&lab), DELIVERED);
    check_failure(&lab, TLS_FAILURE_HOST_MISMATCH);
    assert_int_equal(lab.world->tcp.connects, 1);
    lab_free(&lab);
}

/* No version in common: MAY goes on in plain on another connection, the others do not. */
static void a_failed_handshake_falls_back_only_where_it_may(void **state) {
    for (enum path_tls level = PATH_TLS_MAY; level <= PATH_TLS_ENCRYPT; level++) {
        struct lab lab;
        lab_new(&lab, level, 1);
        world_path_record(lab.world)->tls_version_min = 13;
        world_path_record(lab.world)->broken_tls_s = 60;
        lab.options.version_max = 12;
        world_publish(lab.world);
        assert_string_equal(deliver(&lab), level == PATH_TLS_MAY ? DELIVERED : "LOCAL 454 4.7.5");
        check_failure(&lab, TLS_FAILURE_HANDSHAKE);
        assert_true(lab.world->tcp.connects >= 2);
        assert_int_equal(lab.world->mails, level == PATH_TLS_MAY);
        lab_free(&lab);
    }
}

/* A server that never says anything in the handshake. */
static void a_silent_handshake_ends(void **state) {
    struct lab lab;
    lab_new(&lab, PATH_TLS_ENCRYPT, 1);
    world_publish(lab.world);
    lab.world->tls.begin = NULL; /* it reads the hello as commands, and stalls */
    lab.world->script.starttls = "220 go on\r\n";
    uint32_t slot = world_slot(lab.world, "b@example.test", "x\r\n", 0);
    world_order(lab.world, slot);
    for (uint32_t i = 0; i < 20 && !strstr(lab.world->commands, "STARTTLS"); i++)
        smtp_engine_poll(lab.world->engine, 100, lab.world->now_us), world_step(lab.world);
    fake_end(&lab.world->tcp.conns[0], TCP_RESET, lab.world->now_us);
    lab.world->script.banner = STALL;
    world_run(lab.world, SECOND);
    check_failure(&lab, TLS_FAILURE_HANDSHAKE);
    lab_free(&lab);
}

static void the_second_session_is_resumed(void **state) {
    struct lab lab;
    lab_new(&lab, PATH_TLS_VERIFY, 1);
    struct openssl_peer *first = openssl_peer_new(&lab.options); /* whose ticket keys all servers share */
    lab.options.resumes = first;
    world_path_record(lab.world)->max_deliveries_per_connection = 1;
    world_publish(lab.world);
    for (uint32_t i = 0; i < 3; i++)
        assert_string_equal(deliver(&lab), DELIVERED);
    assert_false(world_at(lab.world, 0)->reply.flags & REPLY_TLS_RESUMED);
    assert_true(world_at(lab.world, 2)->reply.flags & REPLY_TLS_RESUMED);
    assert_true(world_at(lab.world, 2)->reply.flags & REPLY_TLS_VERIFIED);
    lab_free(&lab);
    openssl_peer_free(first);
}

static int start(void **state) {
    return tls_start();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mail_goes_under_tls_of_both_versions),
        cmocka_unit_test(implicit_tls),
        cmocka_unit_test(auth_goes_under_tls),
        cmocka_unit_test(each_byte_alone),
        cmocka_unit_test(certificates_that_are_not_good),
        cmocka_unit_test(names_beside_the_hosts_do_as_well),
        cmocka_unit_test(dane_takes_what_its_records_name),
        cmocka_unit_test(a_policy_in_testing_tells_and_delivers),
        cmocka_unit_test(a_failed_handshake_falls_back_only_where_it_may),
        cmocka_unit_test(a_silent_handshake_ends),
        cmocka_unit_test(the_second_session_is_resumed),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
