/* What a path's record says of TLS and credentials: SMTP.md section 1, include/bypost/path.h. */
#include "world.h"

#include "control/tls_level.h"
#include <stdlib.h>

/* A site with two hosts, the first with an address of each family. */
struct bench {
    struct shaping_limits limits;
    struct config_relay relay;
    struct config_pool pool;
    struct config_source sources[PATH_SOURCES_MAX];
    struct site site;
    struct lane lane;
    struct path record;
    struct lane_path filled;
};

static void add_endpoint(struct bench *bench, const char *name, uint8_t family, uint8_t last) {
    struct site_endpoint *endpoint = &bench->site.endpoints[bench->site.endpoint_count++];
    *endpoint = (struct site_endpoint){.address = {.family = family, .port = 25}, .preference = 10};
    endpoint->address.bytes[0] = 192;
    endpoint->address.bytes[3] = last;
    snprintf(endpoint->name, sizeof(endpoint->name), "%s", name);
}

static struct bench *bench_new(void) {
    struct bench *bench = calloc(1, sizeof(*bench));
    assert_non_null(bench);
    bench->limits = (struct shaping_limits){.tls = PATH_TLS_MAY,
                                            .tls_version_min = 12,
                                            .use_chunking = true,
                                            .remember_broken_tls_s = 900,
                                            .max_recipients_per_batch = 100,
                                            .pipelined_transactions = 1};
    bench->sources[0] = (struct config_source){.address = {.family = 4}, .ehlo = (char *)"mta1.example.com"};
    bench->sources[1] = (struct config_source){.address = {.family = 6}, .ehlo = (char *)"mta1.example.com"};
    bench->pool = (struct config_pool){.name = (char *)"main", .source_count = 2, .sources = bench->sources};
    snprintf(bench->site.name, sizeof(bench->site.name), "mx1.example.net+1");
    bench->site.limits = &bench->limits;
    add_endpoint(bench, "mx1.example.net", 4, 1);
    add_endpoint(bench, "mx1.example.net", 6, 2);
    add_endpoint(bench, "mx2.example.net", 4, 3);
    bench->lane = (struct lane){.site = &bench->site, .pool = &bench->pool};
    return bench;
}

static uint32_t fill(struct bench *bench) {
    return record_fill(&bench->record, &bench->lane, &bench->filled);
}

static const char *string_at(const struct bench *bench, uint16_t offset) {
    return bench->record.strings + offset;
}

static void limits_alone(void **state) {
    struct bench *bench = bench_new();
    assert_int_equal(fill(bench), 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(bench->record.endpoints[i].tls, PATH_TLS_MAY);
        assert_int_equal(bench->filled.site_endpoints[i], i);
    }
    assert_int_equal(bench->record.flags, 0);
    assert_int_equal(bench->record.tls_version_min, 12);
    assert_int_equal(bench->record.broken_tls_s, 900);
    assert_int_equal(bench->record.max_recipients_per_transaction, 100);
    assert_int_equal(bench->record.auth_user, 0);
    assert_int_equal(bench->record.auth_mechanisms, 0);
    /* A name that is said twice stands there once. */
    assert_int_equal(bench->record.endpoints[0].name, bench->record.endpoints[1].name);
    assert_string_equal(string_at(bench, bench->record.endpoints[2].name), "mx2.example.net");
    assert_int_equal(bench->record.sources[0].ehlo, bench->record.sources[1].ehlo);
    bench->limits.use_chunking = false;
    bench->limits.tls_version_min = 13;
    bench->site.tls_testing = true;
    fill(bench);
    assert_int_equal(bench->record.flags, PATH_NO_CHUNKING | PATH_TLS_TESTING);
    assert_int_equal(bench->record.tls_version_min, 13);
    free(bench);
}

/* The receiver's policy raises what is configured, each endpoint by itself, and never lowers it (RFC 7672, RFC 8461). */
static void policy_raises(void **state) {
    static const struct {
        enum path_tls configured, policy, wanted;
    } cases[] = {{PATH_TLS_NONE, PATH_TLS_NONE, PATH_TLS_NONE},        {PATH_TLS_NONE, PATH_TLS_MAY, PATH_TLS_NONE},
                 {PATH_TLS_NONE, PATH_TLS_VERIFY, PATH_TLS_VERIFY},    {PATH_TLS_MAY, PATH_TLS_MAY, PATH_TLS_MAY},
                 {PATH_TLS_MAY, PATH_TLS_DANE, PATH_TLS_DANE},         {PATH_TLS_ENCRYPT, PATH_TLS_MAY, PATH_TLS_ENCRYPT},
                 {PATH_TLS_VERIFY, PATH_TLS_NONE, PATH_TLS_VERIFY},    {PATH_TLS_VERIFY, PATH_TLS_DANE, PATH_TLS_DANE},
                 {PATH_TLS_ENCRYPT, PATH_TLS_VERIFY, PATH_TLS_VERIFY}, {PATH_TLS_MAY, PATH_TLS_ENCRYPT, PATH_TLS_ENCRYPT},
                 {PATH_TLS_VERIFY, PATH_TLS_ENCRYPT, PATH_TLS_VERIFY}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct bench *bench = bench_new();
        bench->limits.tls = cases[i].configured;
        bench->site.endpoints[1].tls = cases[i].policy;
        bench->site.endpoints[1].tlsa_count = 1;
        bench->site.endpoints[1].tlsa[0] = (struct path_tlsa){.usage = 3, .selector = 1, .matching = 1, .length = 32, .data = {7}};
        assert_int_equal(fill(bench), 3);
        assert_int_equal(bench->record.endpoints[0].tls, cases[i].configured);
        assert_int_equal(bench->record.endpoints[1].tls, cases[i].wanted);
        assert_int_equal(bench->record.endpoints[1].tlsa_count, cases[i].wanted == PATH_TLS_DANE);
        if (cases[i].wanted == PATH_TLS_DANE) {
            struct path_tlsa tlsa;
            memcpy(&tlsa, string_at(bench, bench->record.endpoints[1].tlsa), sizeof(tlsa));
            assert_int_equal(tlsa.data[0], 7);
        }
        free(bench);
    }
}

/* A relay's own level counts instead of the limits'; with credentials and without one it is verify; implicit TLS is encrypt at least. */
static void relays(void **state) {
    static const struct {
        enum path_tls limits;
        bool given;
        enum path_tls tls;
        bool implicit, auth;
        enum path_tls wanted;
    } cases[] = {{PATH_TLS_MAY, false, 0, false, false, PATH_TLS_MAY},
                 {PATH_TLS_VERIFY, true, PATH_TLS_NONE, false, false, PATH_TLS_NONE},
                 {PATH_TLS_MAY, false, 0, false, true, PATH_TLS_VERIFY},
                 {PATH_TLS_MAY, true, PATH_TLS_ENCRYPT, false, true, PATH_TLS_ENCRYPT},
                 {PATH_TLS_NONE, false, 0, true, false, PATH_TLS_ENCRYPT},
                 {PATH_TLS_MAY, true, PATH_TLS_MAY, true, false, PATH_TLS_ENCRYPT},
                 {PATH_TLS_MAY, true, PATH_TLS_VERIFY, true, true, PATH_TLS_VERIFY}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct bench *bench = bench_new();
        bench->limits.tls = cases[i].limits;
        bench->relay = (struct config_relay){.tls_given = cases[i].given, .tls = cases[i].tls, .implicit_tls = cases[i].implicit};
        bench->relay.auth_user = cases[i].auth ? (char *)"bulk" : NULL;
        bench->site.relay = &bench->relay;
        fill(bench);
        assert_int_equal(bench->record.endpoints[0].tls, cases[i].wanted);
        assert_int_equal(bench->record.flags & PATH_IMPLICIT_TLS, cases[i].implicit ? PATH_IMPLICIT_TLS : 0);
        free(bench);
    }
}

static void credentials(void **state) {
    char token[PATH_SECRET_MAX + 1];
    char *names[] = {(char *)"smtp.example.net", (char *)"alias.example.net", NULL};
    struct bench *bench = bench_new();
    memset(token, 'x', PATH_SECRET_MAX);
    token[PATH_SECRET_MAX] = '\0';
    bench->relay = (struct config_relay){.auth_user = (char *)"bulk user",
                                         .auth_secret = token,
                                         .auth_mechanisms = PATH_AUTH_XOAUTH2,
                                         .auth_without_tls = true,
                                         .tls_identity = 2,
                                         .tls_names = names};
    bench->site.relay = &bench->relay;
    assert_int_equal(fill(bench), 3);
    assert_string_equal(string_at(bench, bench->record.auth_user), "bulk user");
    assert_string_equal(string_at(bench, bench->record.auth_secret), token);
    assert_int_equal(bench->record.auth_mechanisms, PATH_AUTH_XOAUTH2);
    assert_int_equal(bench->record.flags, PATH_AUTH_PLAINTEXT);
    assert_int_equal(bench->record.tls_identity, 2);
    const char *name = string_at(bench, bench->record.verify_names);
    assert_string_equal(name, names[0]);
    name += strlen(name) + 1;
    assert_string_equal(name, names[1]);
    name += strlen(name) + 1;
    assert_string_equal(name, "");
    record_forget_secret(&bench->record);
    assert_null(memmem(bench->record.strings, PATH_STRINGS_BYTES, "xx", 2));
    assert_non_null(memmem(bench->record.strings, PATH_STRINGS_BYTES, "bulk user", 9));
    free(bench);
}

/* Where names do not fit, an endpoint that must be verified is left out; one that need not be is used without a name. Rests and events are
 * counted by the site's endpoints, so that the record tells which is which. */
static void names_that_do_not_fit(void **state) {
    char ehlo[PATH_SOURCES_MAX][PATH_TEXT_MAX + 1];
    struct bench *bench = bench_new();
    for (uint32_t i = 0; i < PATH_SOURCES_MAX; i++) { /* 26 of them leave 256 bytes of 6912, less the site's name */
        memset(ehlo[i], 'a' + (char)(i % 26), PATH_TEXT_MAX);
        ehlo[i][PATH_TEXT_MAX] = '\0';
        bench->sources[i] = (struct config_source){.address = {.family = 4}, .ehlo = ehlo[i]};
    }
    bench->pool.source_count = 26;
    memset(bench->site.endpoints[0].name, 'm', 250);
    bench->site.endpoints[0].name[250] = '\0';
    bench->site.endpoints[0].tls = PATH_TLS_VERIFY;
    memset(bench->site.endpoints[1].name, 'n', 250);
    bench->site.endpoints[1].name[250] = '\0';
    assert_int_equal(fill(bench), 2);
    assert_int_equal(bench->filled.site_endpoints[0], 1);
    assert_int_equal(bench->filled.site_endpoints[1], 2);
    assert_int_equal(bench->record.endpoints[0].name, 0);
    assert_string_equal(string_at(bench, bench->record.endpoints[1].name), "mx2.example.net");
    assert_int_equal(bench->record.endpoint_count, 2);
    free(bench);
}

/* SMTP.md section 1: under MAY a failed handshake goes without, and a bad certificate matters from VERIFY on only. */
static void failures_that_stop(void **state) {
    assert_false(tls_failure_stops(PATH_TLS_MAY, TLS_FAILURE_HANDSHAKE));
    assert_false(tls_failure_stops(PATH_TLS_MAY, TLS_FAILURE_NOT_OFFERED));
    assert_false(tls_failure_stops(PATH_TLS_MAY, TLS_FAILURE_NOT_TRUSTED));
    assert_true(tls_failure_stops(PATH_TLS_ENCRYPT, TLS_FAILURE_NOT_OFFERED));
    assert_true(tls_failure_stops(PATH_TLS_ENCRYPT, TLS_FAILURE_INJECTED));
    assert_false(tls_failure_stops(PATH_TLS_ENCRYPT, TLS_FAILURE_EXPIRED)); /* MTA-STS in mode testing tells it */
    assert_true(tls_failure_stops(PATH_TLS_VERIFY, TLS_FAILURE_HOST_MISMATCH));
    assert_true(tls_failure_stops(PATH_TLS_DANE, TLS_FAILURE_TLSA_MISMATCH));
}

/* RFC 3461 4.1, 4.3 and 4.4: what the next server is asked; RFC 8689. */
static void asked_of_the_next_server(void **state) {
    char envid[SLOT_ENVID_MAX];
    char id[129];
    struct job job = {.dsn = 0, .id = (char *)"order 7+1=8"};
    assert_int_equal(asked_dsn(&job), 0);
    assert_int_equal(asked_envid(&job, envid), 0);
    assert_int_equal(asked_flags(&job), 0);
    job.dsn = DSN_FAILURE | DSN_DELAY;
    job.require_tls = true;
    assert_int_equal(asked_dsn(&job), SLOT_NOTIFY_FAILURE | SLOT_NOTIFY_DELAY | SLOT_RET_HDRS);
    assert_int_equal(asked_flags(&job), SLOT_REQUIRETLS);
    job.dsn = DSN_SUCCESS;
    job.dsn_full = true;
    assert_int_equal(asked_dsn(&job), SLOT_NOTIFY_SUCCESS | SLOT_RET_FULL);
    uint8_t length = asked_envid(&job, envid);
    assert_int_equal(length, strlen("order+207+2B1+3D8"));
    assert_memory_equal(envid, "order+207+2B1+3D8", length);
    memset(id, 'i', 128);
    id[128] = '\0';
    job.id = id;
    assert_int_equal(asked_envid(&job, envid), 0); /* too long to be whole */
    id[SLOT_ENVID_MAX] = '\0';
    assert_int_equal(asked_envid(&job, envid), SLOT_ENVID_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits_alone),
        cmocka_unit_test(policy_raises),
        cmocka_unit_test(relays),
        cmocka_unit_test(credentials),
        cmocka_unit_test(names_that_do_not_fit),
        cmocka_unit_test(failures_that_stop),
        cmocka_unit_test(asked_of_the_next_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
