/* Relays with TLS and logins, and the limits that speak of TLS. */
#include "fixture.h"

#include "control/cli/dataplane_arguments.h"
#include <fcntl.h>
#include <sys/stat.h>

static void write_beside(const struct fixture *fixture, const char *name, const char *text, mode_t mode) {
    char path[160];
    snprintf(path, sizeof path, "%s/%s", fixture->folder, name);
    fixture_write(path, text);
    assert_int_equal(chmod(path, mode), 0);
}

/* The same file again, once its neighbours are there. */
static void load_again(struct fixture *fixture) {
    config_free(fixture->config);
    config_errors_free(&fixture->errors);
    fixture->config = config_load(fixture->path, &fixture->errors);
}

static void remove_beside(const struct fixture *fixture, const char *name) {
    char path[160];
    snprintf(path, sizeof path, "%s/%s", fixture->folder, name);
    unlink(path);
}

static void shipped_limits(void **state) {
    struct fixture *fixture =
        fixture_good(FIXTURE_BASE, "providers:\n"
                                   "  - {name: a, match: [a.example], tls: encrypt, max_recipients_per_batch: 7}\n"
                                   "domains:\n"
                                   "  b.example: {tls_min_version: 1.3, batch_by: site, use_chunking: false, enable_dane: false,\n"
                                   "     remember_broken_tls: 90s, enable_mta_sts: false, tls: verify}\n");
    const struct shaping_limits *limits = &fixture->config->defaults;
    assert_int_equal(limits->tls, PATH_TLS_MAY);
    assert_true(limits->enable_mta_sts && !limits->enable_dane && limits->use_chunking && !limits->batch_by_site);
    assert_int_equal(limits->remember_broken_tls_s, 900);
    assert_int_equal(limits->tls_version_min, 12);
    assert_int_equal(limits->max_recipients_per_batch, 100);
    /* A domain's over its provider's over the defaults. */
    limits = config_limits(fixture->config, "b.example", &fixture->config->providers[0]);
    assert_int_equal(limits->tls, PATH_TLS_VERIFY);
    assert_int_equal(limits->max_recipients_per_batch, 7);
    assert_int_equal(limits->tls_version_min, 13);
    assert_int_equal(limits->remember_broken_tls_s, 90);
    assert_true(limits->batch_by_site && !limits->use_chunking && !limits->enable_mta_sts);
    assert_int_equal(config_limits(fixture->config, "c.example", &fixture->config->providers[0])->tls, PATH_TLS_ENCRYPT);
    fixture_free(fixture);
}

/* RFC 8314 3.3: port 465 begins with TLS unless it is said otherwise. */
static void implicit_tls(void **state) {
    struct fixture *fixture = fixture_good("relays:\n"
                                           "  a.test: '[a.example.net]:465'\n"
                                           "  b.test: ['[a.example.net]:465', '[b.example.net]:465']\n"
                                           "  c.test: {hosts: '[a.example.net]:465', implicit_tls: false}\n"
                                           "  d.test: {hosts: '[a.example.net]:2465', implicit_tls: true}\n"
                                           "  e.test: ['[a.example.net]:587', '[a.example.net]:2525', '[a.example.net]']\n" FIXTURE_BASE,
                                           NULL);
    static const bool wanted[] = {true, true, false, true, false};
    for (uint32_t i = 0; i < 5; i++) {
        const struct config_relay *relay = &fixture->config->relays[i];
        assert_int_equal(relay->implicit_tls, wanted[i]);
        assert_int_equal(config_tls(&fixture->config->defaults, relay), wanted[i] ? PATH_TLS_ENCRYPT : PATH_TLS_MAY);
        assert_int_equal(config_relay_has_settings(relay), wanted[i]);
    }
    fixture_free(fixture);
}

/* Each pair of files has one place, whoever names it; the dataplane gets them in that order. */
static void identities(void **state) {
    struct fixture *fixture =
        fixture_load("tls: {ca_file: ca.pem}\n"
                     "relays:\n"
                     "  a.test: {hosts: '[a.example.net]:587', tls_certificate_file: one.pem, tls_key_file: one.key}\n"
                     "  b.test: '[b.example.net]:25'\n"
                     "  c.test: {hosts: '[a.example.net]:587', tls_certificate_file: two.pem, tls_key_file: two.key}\n"
                     "  d.test: {hosts: '[d.example.net]:587', tls_certificate_file: ./one.pem, tls_key_file: one.key}\n" FIXTURE_BASE,
                     NULL);
    static const char *const names[] = {"ca.pem", "one.pem", "one.key", "two.pem", "two.key"};
    for (size_t i = 0; i < 5; i++) {
        write_beside(fixture, names[i], "x", 0600);
    }
    load_again(fixture);
    assert_non_null(fixture->config);
    static const uint32_t wanted[] = {1, 0, 2, 1};
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(fixture->config->relays[i].tls_identity, wanted[i]);
    }
    assert_ptr_equal(config_identity(fixture->config, 2), &fixture->config->relays[2]);
    assert_null(config_identity(fixture->config, 3));
    char **arguments = dataplane_arguments(fixture->config), pair[256];
    uint32_t seen = 0;
    for (char **at = arguments; *at; at++) {
        if (strcmp(*at, "--tls-identity") == 0) {
            const char *name = ++seen == 1 ? "one" : "two";
            snprintf(pair, sizeof pair, "%s/%s.pem:%s/%s.key", fixture->folder, name, fixture->folder, name);
            assert_string_equal(at[1], pair);
        }
        if (strcmp(*at, "--tls-ca") == 0) {
            snprintf(pair, sizeof pair, "%s/ca.pem", fixture->folder);
            assert_string_equal(at[1], pair);
        }
    }
    assert_int_equal(seen, 2);
    dataplane_arguments_free(arguments);
    for (size_t i = 0; i < 5; i++) {
        remove_beside(fixture, names[i]);
    }
    fixture_free(fixture);
}

/* One line's end is no part of a secret, everything else is; clients, which may run elsewhere, read none. */
static void secrets(void **state) {
    static const struct {
        const char *file, *secret;
    } cases[] = {
        {"word\n", "word"}, {"word\r\n", "word"}, {"word", "word"}, {" w ord \n", " w ord "}, {"\xc3\xbc=+\\\"\n", "\xc3\xbc=+\\\""}};
    struct fixture *fixture = fixture_load(
        "relays: {a.test: {hosts: '[a.example.net]:587', auth: {username: 'bulk user', password_file: word}}}\n" FIXTURE_BASE, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_beside(fixture, "word", cases[i].file, 0600);
        load_again(fixture);
        assert_non_null(fixture->config);
        const struct config_relay *relay = &fixture->config->relays[0];
        assert_string_equal(relay->auth_secret, cases[i].secret);
        assert_string_equal(relay->auth_user, "bulk user");
        assert_int_equal(relay->auth_mechanisms, PATH_AUTH_PLAIN | PATH_AUTH_LOGIN | PATH_AUTH_CRAM_MD5);
        assert_int_equal(config_tls(&fixture->config->defaults, relay), PATH_TLS_VERIFY);
    }
    remove_beside(fixture, "word");
    config_free(fixture->config);
    config_errors_free(&fixture->errors);
    fixture->config = config_read(fixture->path, &fixture->errors);
    assert_non_null(fixture->config);
    assert_null(fixture->config->relays[0].auth_secret);
    fixture_free(fixture);
}

static void count_sentence(void *context, const char *sentence) {
    assert_null(strstr(sentence, "secret"));
    assert_non_null(strstr(sentence, "a.test"));
    ++*(uint32_t *)context;
}

static void later(const struct fixture *fixture, const char *name, time_t seconds) {
    char path[160];
    snprintf(path, sizeof path, "%s/%s", fixture->folder, name);
    struct timespec times[2] = {{.tv_sec = seconds}, {.tv_sec = seconds}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

/* A token that is renewed behind our back. */
static void tokens(void **state) {
    uint32_t failures = 0;
    struct fixture *fixture =
        fixture_load("relays: {a.test: {hosts: '[a.example.net]:587', auth: {username: bulk, token_file: token}}}\n" FIXTURE_BASE, NULL);
    write_beside(fixture, "token", "first\n", 0600);
    later(fixture, "token", 1000);
    load_again(fixture);
    assert_non_null(fixture->config);
    struct config_relay *relay = &fixture->config->relays[0];
    assert_int_equal(relay->auth_mechanisms, PATH_AUTH_XOAUTH2 | PATH_AUTH_OAUTHBEARER);
    assert_int_equal(config_tokens_read(fixture->config, count_sentence, &failures), 0);
    write_beside(fixture, "token", "second\n", 0600);
    later(fixture, "token", 2000);
    assert_int_equal(config_tokens_read(fixture->config, count_sentence, &failures), 1);
    assert_string_equal(relay->auth_secret, "second");
    assert_int_equal(relay->auth_version, 1);
    later(fixture, "token", 3000); /* written anew, the same */
    assert_int_equal(config_tokens_read(fixture->config, count_sentence, &failures), 0);
    write_beside(fixture, "token", "", 0600); /* half-written: the one before serves on, and that is told once */
    later(fixture, "token", 4000);
    assert_int_equal(config_tokens_read(fixture->config, count_sentence, &failures), 0);
    assert_int_equal(config_tokens_read(fixture->config, count_sentence, &failures), 0);
    assert_string_equal(relay->auth_secret, "second");
    assert_int_equal(failures, 1);
    remove_beside(fixture, "token");
    assert_int_equal(config_tokens_read(fixture->config, count_sentence, &failures), 0);
    fixture_free(fixture);
}

/* No sentence about a secret says it. */
static void faults_keep_secrets(void **state) {
    struct fixture *fixture = fixture_load(
        "relays: {a.test: {hosts: '[a.example.net]:587', tls: may, auth: {username: bulk, password_file: word}}}\n" FIXTURE_BASE, NULL);
    write_beside(fixture, "word", "hunter2\nhunter3\n", 0644);
    load_again(fixture);
    assert_null(fixture->config);
    assert_non_null(fixture_fault(fixture, 1, "holds a line break"));
    assert_non_null(fixture_fault(fixture, 1, "without_tls: true"));
    assert_non_null(fixture_fault(fixture, 1, "mode 0644"));
    for (uint32_t i = 0; i < fixture->errors.count; i++) {
        assert_null(strstr(fixture->errors.items[i].message, "hunter"));
    }
    remove_beside(fixture, "word");
    fixture_free(fixture);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(shipped_limits), cmocka_unit_test(implicit_tls),
                                       cmocka_unit_test(identities),     cmocka_unit_test(secrets),
                                       cmocka_unit_test(tokens),         cmocka_unit_test(faults_keep_secrets)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
