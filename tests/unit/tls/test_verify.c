/* test_verify.c: what a server's certificate is worth: levels by chains, names (RFC 6125), dates, TLSA records (RFC 7672). */
#include "dataplane/tls/tls_private.h"
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int versions[] = {12, 13};

/* One handshake with a server that shows `leaf`; the talk is left open. */
static struct talk *meet(struct world *world, const struct openssl_identity *leaf, const struct tls_peer *peer, int version) {
    struct talk *talk = talk_new(
        world,
        &(struct openssl_options){.server = true, .identity = leaf, .version_min = version, .version_max = version, .no_tickets = true});
    struct tls_peer asked = *peer;
    asked.port = (uint16_t)version; /* nothing to resume from the other version */
    talk_secure_as(talk, &asked);
    return talk;
}

static void expect_good(struct world *world, const struct openssl_identity *leaf, const struct tls_peer *peer) {
    for (int i = 0; i < 2; i++) {
        struct talk *talk = meet(world, leaf, peer, versions[i]);
        if (talk->insecure)
            fail_msg("%s", talk->why);
        assert_int_equal(talk->secured, 1);
        assert_true(talk_state(talk).verified);
        assert_int_equal(talk_state(talk).flaw, TLS_FAILURE_NONE);
        assert_int_equal(talk->flaws, 0);
        talk_check_both_ways(talk);
        talk_free(talk);
    }
}

/* VERIFY, or the level given, refuses it before anything is sent, and tells the server; MAY and ENCRYPT take it and know what it lacks. */
static void expect_flaw_as(struct world *world, const struct openssl_identity *leaf, const struct tls_peer *strict, enum tls_failure flaw) {
    for (int i = 0; i < 2; i++) {
        struct talk *talk = meet(world, leaf, strict, versions[i]);
        assert_int_equal(talk->secured, 0);
        assert_int_equal(talk->insecure, 1);
        if (talk->failure != flaw)
            fail_msg("%d, not %d: %s", (int)talk->failure, (int)flaw, talk->why);
        assert_true(talk->why[0] != '\0');
        assert_true(openssl_peer_failed(talk->peer)); /* by an alert */
        talk_free(talk);
        if (strict->level == PATH_TLS_DANE)
            continue;
        struct tls_peer loose = *strict;
        loose.level = i == 0 ? PATH_TLS_MAY : PATH_TLS_ENCRYPT;
        talk = meet(world, leaf, &loose, versions[i]);
        assert_int_equal(talk->secured, 1);
        assert_false(talk_state(talk).verified);
        assert_int_equal(talk_state(talk).flaw, flaw);
        assert_int_equal(talk->flaws, 0);
        talk_check_both_ways(talk);
        talk_free(talk);
        /* RFC 8461 5: in testing it is told, and the mail goes. */
        loose.report = true;
        talk = meet(world, leaf, &loose, versions[i]);
        assert_int_equal(talk->secured, 1);
        assert_int_equal(talk->flaws, 1);
        assert_int_equal(talk->flaw, flaw);
        talk_free(talk);
    }
}

static void expect_flaw(struct world *world, const struct openssl_identity *leaf, enum tls_failure flaw) {
    const struct tls_peer strict = talk_peer(PATH_TLS_VERIFY);
    expect_flaw_as(world, leaf, &strict, flaw);
}

static void a_good_certificate_is_good(void **state) {
    struct world *world = world_new();
    const struct tls_peer peer = talk_peer(PATH_TLS_VERIFY);
    expect_good(world, world->server, &peer);
    struct tls_peer reported = talk_peer(PATH_TLS_MAY);
    reported.report = true;
    expect_good(world, world->server, &reported);
    struct openssl_identity *rsa = openssl_identity_make(world->ca, &(struct openssl_wants){.dns = {"mx.example.test"}, .rsa = true});
    expect_good(world, rsa, &peer);
    openssl_identity_free(rsa);
    world_free(world);
}

static void names_follow_rfc_6125(void **state) {
    static const struct {
        const char *pattern, *host;
        bool matches;
    } cases[] = {
        {"mx.example.test", "mx.example.test", true},
        {"MX.Example.TEST", "mx.eXample.test", true},
        {"mx.example.test", "mx.example.test.", true},
        {"mx.example.test", "mx2.example.test", false},
        {"example.test", "mx.example.test", false},
        {"mx.example.test", "example.test", false},
        {"*.example.test", "mx.example.test", true},
        {"*.example.test", "example.test", false},
        {"*.example.test", "a.mx.example.test", false},
        {"*.example.test", ".example.test", false},
        {"m*.example.test", "mx.example.test", false},
        {"*x.example.test", "mx.example.test", false},
        {"mx.*.test", "mx.example.test", false},
        {"*", "test", false},
        {"*.test", "example.test", false},
        {"*.", "test", false},
        {"", "mx.example.test", false},
        {"mx.example.test", "", false},
        {"*.*.test", "mx.example.test", false},
        {".", "", false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        if (tls_name_matches(cases[i].pattern, strlen(cases[i].pattern), cases[i].host) != cases[i].matches)
            fail_msg("'%s' and '%s'", cases[i].pattern, cases[i].host);
    assert_false(tls_name_matches("mx.example.test\0.evil.test", 26, "mx.example.test"));
}

static void names_decide(void **state) {
    struct world *world = world_new();
    const struct tls_peer peer = talk_peer(PATH_TLS_VERIFY);
    struct openssl_identity *wrong = openssl_identity_make(world->ca, &(struct openssl_wants){.dns = {"mx.other.test", "example.test"}});
    expect_flaw(world, wrong, TLS_FAILURE_HOST_MISMATCH);
    struct openssl_identity *wild = openssl_identity_make(world->ca, &(struct openssl_wants){.dns = {"other.test", "*.example.test"}});
    expect_good(world, wild, &peer);
    /* A common name counts only where there is no DNS name. */
    struct openssl_identity *common = openssl_identity_make(world->ca, &(struct openssl_wants){.name = "mx.example.test"});
    expect_good(world, common, &peer);
    struct openssl_identity *both =
        openssl_identity_make(world->ca, &(struct openssl_wants){.name = "mx.example.test", .dns = {"mx.other.test"}});
    expect_flaw(world, both, TLS_FAILURE_HOST_MISMATCH);
    /* Further names are as good, and only those. */
    struct tls_peer further = peer;
    further.names = "nope.test\0mx.other.test\0";
    expect_good(world, wrong, &further);
    further.names = "nope.test\0";
    expect_flaw_as(world, wrong, &further, TLS_FAILURE_HOST_MISMATCH);
    openssl_identity_free(wrong);
    openssl_identity_free(wild);
    openssl_identity_free(common);
    openssl_identity_free(both);
    world_free(world);
}

static void dates_decide_in_the_worker_s_time(void **state) {
    struct world *world = world_new();
    struct openssl_identity *old = openssl_identity_make(
        world->ca, &(struct openssl_wants){.dns = {"mx.example.test"}, .from_s = OPENSSL_NOW_S - 200, .to_s = OPENSSL_NOW_S - 100});
    struct openssl_identity *young = openssl_identity_make(
        world->ca, &(struct openssl_wants){.dns = {"mx.example.test"}, .from_s = OPENSSL_NOW_S + 1000, .to_s = OPENSSL_NOW_S + 2000});
    expect_flaw(world, old, TLS_FAILURE_EXPIRED);
    expect_flaw(world, young, TLS_FAILURE_EXPIRED);
    world->now_us += UINT64_C(1500) * 1000000;
    const struct tls_peer peer = talk_peer(PATH_TLS_VERIFY);
    expect_good(world, young, &peer);
    world->now_us += UINT64_C(1500) * 1000000;
    expect_flaw(world, young, TLS_FAILURE_EXPIRED);
    openssl_identity_free(old);
    openssl_identity_free(young);
    world_free(world);
}

static void chains_decide(void **state) {
    struct world *world = world_new();
    const struct tls_peer peer = talk_peer(PATH_TLS_VERIFY);
    const struct openssl_wants for_mx = {.dns = {"mx.example.test"}};
    struct openssl_identity *self = openssl_identity_make(NULL, &for_mx);
    expect_flaw(world, self, TLS_FAILURE_NOT_TRUSTED);
    struct openssl_identity *stranger = openssl_identity_make(NULL, &(struct openssl_wants){.name = "Stranger", .ca = true});
    struct openssl_identity *strange = openssl_identity_make(stranger, &for_mx);
    expect_flaw(world, strange, TLS_FAILURE_NOT_TRUSTED);
    /* A CA of the trusted one's name is another. */
    struct openssl_identity *false_ca = openssl_identity_make(NULL, &(struct openssl_wants){.name = "Test CA", .ca = true});
    struct openssl_identity *false_leaf = openssl_identity_make(false_ca, &for_mx);
    expect_flaw(world, false_leaf, TLS_FAILURE_NOT_TRUSTED);
    /* Intermediates, one below the other. */
    struct openssl_identity *first = openssl_identity_make(world->ca, &(struct openssl_wants){.name = "First", .ca = true});
    struct openssl_identity *second = openssl_identity_make(first, &(struct openssl_wants){.name = "Second", .ca = true});
    struct openssl_identity *deep = openssl_identity_make(second, &for_mx);
    expect_good(world, deep, &peer);
    /* What a server once presented is not trusted ever after. */
    struct talk *talk =
        talk_new(world, &(struct openssl_options){.server = true, .identity = deep, .hides_chain = true, .no_tickets = true});
    talk_secure(talk, PATH_TLS_VERIFY);
    assert_int_equal(talk->failure, TLS_FAILURE_NOT_TRUSTED);
    talk_free(talk);
    /* A certificate that is no CA issues nothing (RFC 5280 4.2.1.9). */
    struct openssl_identity *no_ca = openssl_identity_make(world->ca, &(struct openssl_wants){.name = "No CA", .dns = {"a.test"}});
    struct openssl_identity *below = openssl_identity_make(no_ca, &for_mx);
    expect_flaw(world, below, TLS_FAILURE_NOT_TRUSTED);
    /* Nor does one CA more than the path length allows. */
    struct openssl_identity *last =
        openssl_identity_make(world->ca, &(struct openssl_wants){.name = "Last", .ca = true, .path_length_zero = true});
    struct openssl_identity *direct = openssl_identity_make(last, &for_mx);
    expect_good(world, direct, &peer);
    struct openssl_identity *more = openssl_identity_make(last, &(struct openssl_wants){.name = "More", .ca = true});
    struct openssl_identity *beyond = openssl_identity_make(more, &for_mx);
    expect_flaw(world, beyond, TLS_FAILURE_NOT_TRUSTED);
    /* An intermediate's dates count. */
    struct openssl_identity *stale = openssl_identity_make(
        world->ca, &(struct openssl_wants){.name = "Stale", .ca = true, .from_s = OPENSSL_NOW_S - 200, .to_s = OPENSSL_NOW_S - 100});
    struct openssl_identity *under = openssl_identity_make(stale, &for_mx);
    expect_flaw(world, under, TLS_FAILURE_EXPIRED);
    /* Not for servers. */
    struct openssl_identity *client =
        openssl_identity_make(world->ca, &(struct openssl_wants){.dns = {"mx.example.test"}, .usage = "clientAuth"});
    expect_flaw(world, client, TLS_FAILURE_NOT_TRUSTED);
    struct openssl_identity *all[] = {self,  stranger, strange, false_ca, false_leaf, first, second, deep,  no_ca,
                                      below, last,     direct,  more,     beyond,     stale, under,  client};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        openssl_identity_free(all[i]);
    world_free(world);
}

/* A chain that was made to hold the worker up ends the handshake before any of its signatures is opened, at every level. */
static void costly_keys_are_refused(void **state) {
    struct world *world = world_new();
    struct openssl_identity *first = openssl_identity_make(world->ca, &(struct openssl_wants){.name = "First", .ca = true, .costly = true});
    struct openssl_identity *second = openssl_identity_make(first, &(struct openssl_wants){.name = "Second", .ca = true, .costly = true});
    struct openssl_identity *leaf = openssl_identity_make(second, &(struct openssl_wants){.dns = {"mx.example.test"}});
    for (int i = 0; i < 2; i++)
        for (int level = PATH_TLS_MAY; level <= PATH_TLS_VERIFY; level++) {
            const struct tls_peer peer = talk_peer((enum path_tls)level);
            struct talk *talk = meet(world, leaf, &peer, versions[i]);
            assert_int_equal(talk->secured, 0);
            assert_int_equal(talk->insecure, 1);
            assert_non_null(strstr(talk->why, "too costly"));
            talk_free(talk);
        }
    openssl_identity_free(leaf);
    openssl_identity_free(second);
    openssl_identity_free(first);
    world_free(world);
}

static void no_roots_say_what_to_install(void **state) {
    struct world *world = world_new();
    world->worker->trusted = 0;
    snprintf(world->worker->trust_why, sizeof(world->worker->trust_why), "install the package ca-certificates");
    const struct tls_peer peer = talk_peer(PATH_TLS_VERIFY);
    struct talk *talk = meet(world, world->server, &peer, 13);
    assert_int_equal(talk->failure, TLS_FAILURE_NOT_TRUSTED);
    assert_non_null(strstr(talk->why, "ca-certificates"));
    talk_free(talk);
    world_free(world);
}

static void the_system_s_roots_load(void **state) {
    char error[256] = "";
    struct tls_worker *worker = tls_worker_create(
        &(struct tls_config){.max_sessions = 1, .realtime_offset_us = INT64_C(1790000000) * 1000000}, error, sizeof(error));
    if (worker == NULL)
        fail_msg("%s", error);
    print_message("%u roots of the system, %lu bytes\n", worker->trusted, (unsigned long)worker->heap.bytes);
    assert_true(worker->trusted > 0 || worker->trust_why[0] != '\0');
    tls_worker_destroy(worker);
}

/* RFC 7672 3.1.1: usage 3 binds the certificate or its key; names, dates and chain do not matter. */
static void dane_usage_3_is_the_certificate_itself(void **state) {
    struct world *world = world_new();
    struct openssl_identity *self = openssl_identity_make(
        NULL, &(struct openssl_wants){.dns = {"elsewhere.test"}, .from_s = OPENSSL_NOW_S - 200, .to_s = OPENSSL_NOW_S - 100});
    struct openssl_identity *other = openssl_identity_make(NULL, &(struct openssl_wants){.dns = {"mx.example.test"}});
    for (uint8_t selector = 0; selector < 2; selector++)
        for (uint8_t matching = 1; matching < 3; matching++) {
            struct path_tlsa records[2] = {openssl_identity_tlsa(other, 3, selector, matching),
                                           openssl_identity_tlsa(self, 3, selector, matching)};
            struct tls_peer peer = talk_peer(PATH_TLS_DANE);
            peer.tlsa = records;
            peer.tlsa_count = 2;
            expect_good(world, self, &peer);
            peer.tlsa_count = 1;
            expect_flaw_as(world, self, &peer, TLS_FAILURE_TLSA_MISMATCH);
            records[0] = openssl_identity_tlsa(self, 3, selector, matching);
            records[0].data[5] ^= 1;
            expect_flaw_as(world, self, &peer, TLS_FAILURE_TLSA_MISMATCH);
            records[0].data[5] ^= 1;
            records[0].selector ^= 1; /* the digest of something else */
            expect_flaw_as(world, self, &peer, TLS_FAILURE_TLSA_MISMATCH);
        }
    /* A good chain and name are not what the record asks for. */
    struct path_tlsa record = openssl_identity_tlsa(other, 3, 1, 1);
    struct tls_peer peer = talk_peer(PATH_TLS_DANE);
    peer.tlsa = &record;
    peer.tlsa_count = 1;
    expect_flaw_as(world, world->server, &peer, TLS_FAILURE_TLSA_MISMATCH);
    openssl_identity_free(self);
    openssl_identity_free(other);
    world_free(world);
}

/* RFC 7672 3.1.2: usage 2 names a CA that the server presents; names and dates matter, the system's roots do not. */
static void dane_usage_2_is_a_trust_anchor(void **state) {
    struct world *world = world_new();
    const struct openssl_wants for_mx = {.dns = {"mx.example.test"}};
    struct openssl_identity *root = openssl_identity_make(NULL, &(struct openssl_wants){.name = "Own root", .ca = true});
    struct openssl_identity *issuing = openssl_identity_make(root, &(struct openssl_wants){.name = "Own issuing", .ca = true});
    struct openssl_identity *leaf = openssl_identity_make(issuing, &for_mx);
    struct openssl_identity *wrong = openssl_identity_make(issuing, &(struct openssl_wants){.dns = {"mx.other.test"}});
    struct openssl_identity *old = openssl_identity_make(
        issuing, &(struct openssl_wants){.dns = {"mx.example.test"}, .from_s = OPENSSL_NOW_S - 200, .to_s = OPENSSL_NOW_S - 100});
    for (uint8_t selector = 0; selector < 2; selector++)
        for (uint8_t matching = 1; matching < 3; matching++) {
            struct path_tlsa record = openssl_identity_tlsa(issuing, 2, selector, matching);
            struct tls_peer peer = talk_peer(PATH_TLS_DANE);
            peer.tlsa = &record;
            peer.tlsa_count = 1;
            expect_good(world, leaf, &peer);
            expect_flaw_as(world, wrong, &peer, TLS_FAILURE_HOST_MISMATCH);
            expect_flaw_as(world, old, &peer, TLS_FAILURE_EXPIRED);
            expect_flaw_as(world, world->server, &peer, TLS_FAILURE_TLSA_MISMATCH);
            peer.names = "mx.other.test\0"; /* the next-hop domain, too, is a name to be for */
            expect_good(world, wrong, &peer);
        }
    /* A root that is not presented cannot be the anchor; presented it can. */
    struct path_tlsa record = openssl_identity_tlsa(root, 2, 0, 1);
    struct tls_peer peer = talk_peer(PATH_TLS_DANE);
    peer.tlsa = &record;
    peer.tlsa_count = 1;
    expect_flaw_as(world, leaf, &peer, TLS_FAILURE_TLSA_MISMATCH);
    struct talk *talk = talk_new(world, &(struct openssl_options){.server = true, .identity = leaf, .sends_root = true});
    talk_secure_as(talk, &peer);
    assert_int_equal(talk->secured, 1);
    assert_true(talk_state(talk).verified);
    talk_free(talk);
    /* The anchor's certificate beside a leaf that it did not issue proves nothing. */
    struct openssl_identity *impostor = openssl_identity_make(NULL, &(struct openssl_wants){.name = "Own issuing", .ca = true});
    struct openssl_identity *faked = openssl_identity_make(impostor, &for_mx);
    struct path_tlsa usage3 = openssl_identity_tlsa(leaf, 2, 0, 1); /* a leaf is no anchor */
    peer.tlsa = &usage3;
    expect_flaw_as(world, leaf, &peer, TLS_FAILURE_TLSA_MISMATCH);
    peer.tlsa = &record;
    expect_flaw_as(world, faked, &peer, TLS_FAILURE_TLSA_MISMATCH);
    struct openssl_identity *all[] = {faked, impostor, old, wrong, leaf, issuing, root};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        openssl_identity_free(all[i]);
    world_free(world);
}

/* DER cut off anywhere, and with any byte wrong, is never read beyond its end (run under AddressSanitizer). */
static void broken_certificates_are_not_read_beyond_their_end(void **state) {
    struct world *world = world_new();
    char path[96];
    snprintf(path, sizeof(path), "%s/leaf.pem", world->directory);
    openssl_identity_write(world->server, path, NULL);
    uint8_t whole[4096];
    char pem[8192];
    FILE *file = fopen(path, "re");
    size_t length = fread(pem, 1, sizeof(pem), file);
    fclose(file);
    int der = wolfSSL_CertPemToDer((unsigned char *)pem, (int)length, whole, sizeof(whole), CERT_TYPE);
    assert_true(der > 0);
    for (int cut = 0; cut <= der; cut++) {
        uint8_t *copy = malloc((size_t)cut + 1);
        const uint8_t *info;
        size_t info_length;
        memcpy(copy, whole, (size_t)cut);
        bool found = tls_public_key_info(copy, (size_t)cut, &info, &info_length);
        assert_int_equal(found, cut == der);
        free(copy);
    }
    for (int at = 0; at < der; at++) {
        uint8_t *copy = malloc((size_t)der);
        const uint8_t *info;
        size_t info_length;
        memcpy(copy, whole, (size_t)der);
        copy[at] ^= 0xff;
        if (tls_public_key_info(copy, (size_t)der, &info, &info_length))
            assert_true(info >= copy && info + info_length <= copy + der);
        struct tls_ask ask = {.level = PATH_TLS_VERIFY, .name = "mx.example.test"};
        WOLFSSL_BUFFER_INFO buffer = {.buffer = copy, .length = (unsigned)der};
        struct tls_worker *before = tls_enter(world->worker);
        tls_judge(world->worker, &ask, &buffer, 1);
        tls_leave(before);
        assert_int_not_equal(ask.flaw, TLS_FAILURE_NONE);
        free(copy);
    }
    world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_certificate_is_good),
        cmocka_unit_test(names_follow_rfc_6125),
        cmocka_unit_test(names_decide),
        cmocka_unit_test(dates_decide_in_the_worker_s_time),
        cmocka_unit_test(chains_decide),
        cmocka_unit_test(costly_keys_are_refused),
        cmocka_unit_test(no_roots_say_what_to_install),
        cmocka_unit_test(the_system_s_roots_load),
        cmocka_unit_test(dane_usage_3_is_the_certificate_itself),
        cmocka_unit_test(dane_usage_2_is_a_trust_anchor),
        cmocka_unit_test(broken_certificates_are_not_read_beyond_their_end),
    };
    return cmocka_run_group_tests_name("tls_verify", tests, NULL, NULL);
}
