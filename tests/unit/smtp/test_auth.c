/* test_auth.c: AUTH (RFC 4954) with the examples of the mechanisms' own documents; and that a wrong password stops a relay, never a queue
 * (SMTP.md section 1). */
#include "dataplane/smtp/engine.h"
#include "fake_stream.h"
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DELIVERED "REPLIED FINAL 250 2.0.0"
#define ALL_FIVE  "250-relay.test\r\n250 AUTH PLAIN LOGIN CRAM-MD5 XOAUTH2 OAUTHBEARER\r\n"
#define WELCOME   "235 2.7.0 welcome\r\n"
#define ENVELOPE  "MAIL FROM:<a@sender.test>|RCPT TO:<b@example.test>|DATA|"

static struct tls_worker tls;

static void credentials(struct world *world, const char *user, const char *secret) {
    struct path *path = world_path_record(world);
    strcpy(path->strings + 400, user);
    strcpy(path->strings + 700, secret);
    path->auth_user = 400;
    path->auth_secret = 700;
}

/* A relay that offers `mechanisms` under TLS (RFC 2195's user and password), or in plain. */
static struct world *relay(bool secure, const char *ehlo) {
    tls = (struct tls_worker){0};
    struct world *world = world_new_with(&tls);
    world_path(world, 1, 1, 0);
    world_path_record(world)->endpoints[0].tls = secure ? PATH_TLS_ENCRYPT : PATH_TLS_NONE;
    world_path_record(world)->timeouts.ehlo = 10000;
    credentials(world, "tim", "tanstaaftanstaaf");
    world->script.ehlo = secure ? "250-relay.test\r\n250-AUTH GSSAPI\r\n250 STARTTLS\r\n" : ehlo;
    world->script.ehlo_secure = ehlo;
    world->script.starttls = "220 go on\r\n";
    world->script.handshake = FAKE_SECURED;
    world->script.auth[0] = WELCOME;
    return world;
}

static const char *deliver(struct world *world) {
    uint32_t slot = world_send(world, "b@example.test");
    world_until_answered(world, slot);
    return world_outcome(world, slot);
}

/* What was said behind the last EHLO. */
static const char *said(const struct world *world) {
    const char *at = world->commands, *last = at;
    while ((at = strstr(at, "EHLO out.sender.test|")))
        last = at += strlen("EHLO out.sender.test|");
    return last;
}

static const struct path_event *failure_of(const struct world *world) {
    for (uint32_t i = 0; i < world->event_count; i++) {
        if (world->events[i].kind == PATH_EVENT_AUTH_FAILED)
            return &world->events[i];
    }
    fail_msg("AUTH has not failed");
    return NULL;
}

static const char *failure_text(const struct world *world) {
    static char text[PATH_EVENT_TEXT_BYTES + 1];
    const struct path_event *event = failure_of(world);
    memcpy(text, event->text, event->text_length);
    text[event->text_length] = '\0';
    return text;
}

/* ---- the mechanisms ---- */

static void plain(void **state) { /* RFC 4616, with RFC 2595's user */
    struct world *world = relay(true, "250 AUTH PLAIN\r\n");
    world->script.ehlo_secure = "250-relay.test\r\n250 AUTH PLAIN\r\n";
    world_publish(world);
    assert_string_equal(deliver(world), DELIVERED);
    assert_string_equal(said(world), "AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm|" ENVELOPE);
    assert_int_equal(world_events(world, PATH_EVENT_READY), 1);
    world_free(world);
}

static void login(void **state) {
    struct world *world = relay(true, "250-relay.test\r\n250 AUTH=LOGIN\r\n"); /* the old form too */
    world->script.auth[0] = "334 VXNlcm5hbWU6\r\n";
    world->script.auth[1] = "334 UGFzc3dvcmQ6\r\n";
    world->script.auth[2] = WELCOME;
    world_publish(world);
    assert_string_equal(deliver(world), DELIVERED);
    assert_string_equal(said(world), "AUTH LOGIN|dGlt|dGFuc3RhYWZ0YW5zdGFhZg==|" ENVELOPE);
    world_free(world);
}

static void cram_md5(void **state) { /* RFC 2195 section 2 */
    struct world *world = relay(false, "250-relay.test\r\n250 AUTH PLAIN CRAM-MD5\r\n");
    world->script.auth[0] = "334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+\r\n";
    world->script.auth[1] = WELCOME;
    world_publish(world);
    assert_string_equal(deliver(world), DELIVERED);
    assert_string_equal(said(world), "AUTH CRAM-MD5|dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw|" ENVELOPE);
    world_free(world);
}

static void xoauth2(void **state) { /* the example of its public description */
    struct world *world = relay(true, ALL_FIVE);
    credentials(world, "someuser@example.com", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg");
    world_path_record(world)->auth_mechanisms = PATH_AUTH_XOAUTH2;
    world_publish(world);
    assert_string_equal(deliver(world), DELIVERED);
    assert_string_equal(said(world), "AUTH XOAUTH2 dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQm"
                                     "hkSFJoZG1semRHRXVZMjl0Q2cBAQ==|" ENVELOPE);
    world_free(world);
}

static void oauthbearer(void **state) { /* RFC 7628 section 4.1, with port 587 */
    struct world *world = relay(true, ALL_FIVE);
    struct path *path = world_path_record(world);
    credentials(world, "user@example.com", "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==");
    strcpy(path->strings + 600, "server.example.com");
    path->endpoints[0].name = 600;
    path->endpoints[0].port = 587;
    path->auth_mechanisms = PATH_AUTH_OAUTHBEARER | PATH_AUTH_XOAUTH2;
    world_publish(world);
    assert_string_equal(deliver(world), DELIVERED);
    assert_string_equal(said(world),
                        "AUTH OAUTHBEARER bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9NTg3AWF1dGg9QmVhcm"
                        "VyIHZGOWRmdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB|" ENVELOPE);
    world_free(world);
}

static void a_comma_in_a_user_is_escaped(void **state) { /* RFC 5801 section 4 */
    struct world *world = relay(true, ALL_FIVE);
    credentials(world, "a,b=c@example.com", "t");
    world_path_record(world)->auth_mechanisms = PATH_AUTH_OAUTHBEARER;
    world_publish(world);
    assert_string_equal(deliver(world), DELIVERED);
    assert_string_equal(said(world),
                        "AUTH OAUTHBEARER bixhPWE9MkNiPTNEY0BleGFtcGxlLmNvbSwBaG9zdD1teC50ZXN0AXBvcnQ9MjUBYXV0aD1CZWFyZXIgdAEB|" ENVELOPE);
    world_free(world);
}

/* ---- which one ---- */

static void the_strongest_that_is_offered_and_allowed(void **state) {
    static const struct {
        bool secure;
        uint8_t flags, allowed;
        const char *offers, *takes; /* NULL: none */
    } cases[] = {
        {true, 0, 0, "PLAIN LOGIN CRAM-MD5", "PLAIN"},
        {true, 0, 0, "LOGIN CRAM-MD5", "LOGIN"},
        {true, 0, 0, "CRAM-MD5", "CRAM-MD5"},
        {true, 0, PATH_AUTH_CRAM_MD5, "PLAIN CRAM-MD5", "CRAM-MD5"},
        {true, 0, 0, "XOAUTH2 OAUTHBEARER", NULL}, /* a password is no token */
        {true, 0, PATH_AUTH_XOAUTH2, "PLAIN LOGIN", NULL},
        {true, 0, PATH_AUTH_XOAUTH2 | PATH_AUTH_OAUTHBEARER, "XOAUTH2 OAUTHBEARER PLAIN", "OAUTHBEARER"},
        {true, 0, 0, "SCRAM-SHA-256 GSSAPI", NULL},
        {true, 0, 0, "", NULL},
        {false, 0, 0, "PLAIN LOGIN CRAM-MD5", "CRAM-MD5"},
        {false, 0, 0, "PLAIN LOGIN", NULL}, /* never a secret in plain ... */
        {false, 0, PATH_AUTH_XOAUTH2, "XOAUTH2", NULL},
        {false, PATH_AUTH_PLAINTEXT, 0, "PLAIN LOGIN", "PLAIN"}, /* ... unless the configuration says so */
        {false, PATH_AUTH_PLAINTEXT, 0, "PLAIN LOGIN CRAM-MD5", "CRAM-MD5"},
        {false, PATH_AUTH_PLAINTEXT, PATH_AUTH_LOGIN, "PLAIN LOGIN CRAM-MD5", "LOGIN"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char ehlo[128], expected[32];
        snprintf(ehlo, sizeof(ehlo), "250-relay.test\r\n250%cAUTH %s\r\n", *cases[i].offers ? ' ' : '-', cases[i].offers);
        if (!*cases[i].offers)
            snprintf(ehlo, sizeof(ehlo), "250-relay.test\r\n250 DSN\r\n");
        struct world *world = relay(cases[i].secure, ehlo);
        world_path_record(world)->flags = cases[i].flags;
        world_path_record(world)->auth_mechanisms = cases[i].allowed;
        world->script.auth[0] = "535 5.7.8 no\r\n";
        world_publish(world);
        world_send(world, "b@example.test");
        world_settle(world);
        snprintf(expected, sizeof(expected), "AUTH %s", cases[i].takes ? cases[i].takes : "");
        if (cases[i].takes ? strncmp(said(world), expected, strlen(expected)) != 0 : strncmp(said(world), "QUIT", 4) != 0)
            fail_msg("case %zu: %s", i, said(world));
        assert_int_equal(world_events(world, PATH_EVENT_AUTH_FAILED), 1);
        assert_int_equal(failure_of(world)->stage, cases[i].takes ? STAGE_AUTH : STAGE_EHLO);
        world_free(world);
    }
}

/* RFC 3207 4.2: the list that was said in plain does not count. */
static void what_was_offered_before_tls_does_not_count(void **state) {
    struct world *world = relay(true, "250-relay.test\r\n250 DSN\r\n");
    world->script.ehlo = "250-relay.test\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n";
    world_publish(world);
    assert_string_equal(deliver(world), "RETURNED");
    assert_null(strstr(world->commands, "AUTH"));
    assert_string_equal(failure_text(world), "mx.test: the server does not offer AUTH");
    world_free(world);
}

/* RFC 4954 section 6: 504, 534 and 538 speak of the mechanism, not of the password. */
static void a_mechanism_that_is_not_taken_leads_to_the_next(void **state) {
    static const char *const replies[] = {"504 5.5.4 unknown\r\n", "534 5.7.9 too weak\r\n", "538 5.7.11 encrypt\r\n"};
    for (size_t i = 0; i < 3; i++) {
        struct world *world = relay(true, "250-relay.test\r\n250 AUTH PLAIN LOGIN\r\n");
        world->script.auth[0] = replies[i];
        world->script.auth[1] = "334 VXNlcm5hbWU6\r\n";
        world->script.auth[2] = "334 UGFzc3dvcmQ6\r\n";
        world->script.auth[3] = WELCOME;
        world_publish(world);
        assert_string_equal(deliver(world), DELIVERED);
        assert_int_equal(world_events(world, PATH_EVENT_AUTH_FAILED), 0);
        world_free(world);
    }
    struct world *world = relay(true, "250-relay.test\r\n250 AUTH PLAIN LOGIN\r\n"); /* until there is none */
    world->script.auth[0] = world->script.auth[1] = "504 5.5.4 unknown\r\n";
    world_publish(world);
    assert_string_equal(deliver(world), "RETURNED");
    assert_string_equal(failure_text(world), "mx.test: AUTH LOGIN is refused: unknown");
    world_free(world);
}

/* ---- long lines ---- */

/* RFC 4954 section 4: an initial response only in a line of 512 bytes; a response line may have 12,288. */
static void a_long_secret_waits_for_the_challenge(void **state) {
    static char secret[6001];
    static const uint32_t lengths[] = {367, 368, 2000, 6000}; /* with the command 509 bytes, 513 ... */
    for (size_t i = 0; i < 4; i++) {
        struct world *world = relay(true, "250-relay.test\r\n250 AUTH PLAIN\r\n");
        memset(secret, 'p', lengths[i]);
        secret[lengths[i]] = '\0';
        credentials(world, "tim", secret);
        if (lengths[i] > 367) {
            world->script.auth[0] = "334 \r\n";
            world->script.auth[1] = WELCOME;
        }
        world_publish(world);
        assert_string_equal(deliver(world), DELIVERED);
        assert_int_equal(strncmp(said(world), lengths[i] > 367 ? "AUTH PLAIN|AHRpbQBwcHBw" : "AUTH PLAIN AHRpbQBwcHBw", 23), 0);
        const char *mail = strstr(said(world), "MAIL");
        uint32_t encoded = (lengths[i] + 5 + 2) / 3 * 4;
        assert_int_equal(mail - said(world), strlen("AUTH PLAIN|") + encoded + 1);
        world_free(world);
    }
}

/* A pool that is empty for a while: the line is said whole, later. */
static void an_empty_pool_only_delays(void **state) {
    struct world *world = relay(false, "250-relay.test\r\n250 AUTH CRAM-MD5\r\n");
    world->script.auth[0] = "334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+\r\n";
    world->script.auth[1] = WELCOME;
    world_publish(world);
    uint32_t slot = world_send(world, "b@example.test");
    for (uint32_t i = 0; i < 200 && strcmp(world_outcome(world, slot), "claimed") == 0; i++) {
        world->tcp.send_refusals = 3;
        world_step(world);
        world->now_us += 1000;
    }
    world->tcp.send_refusals = 0;
    world_until_answered(world, slot);
    assert_string_equal(said(world), "AUTH CRAM-MD5|dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw|" ENVELOPE);
    world_free(world);
}

/* ---- challenges ---- */

static void a_challenge_that_is_none_is_cancelled(void **state) { /* RFC 4954 section 4: "*" */
    static const struct {
        const char *offers, *first, *second;
        uint32_t at; /* which answer is the `*` */
    } cases[] = {
        {"CRAM-MD5", "334 not base64!\r\n", NULL, 1},
        {"CRAM-MD5", "334 PDE4OTY\r\n", NULL, 1}, /* without its padding */
        {"CRAM-MD5", "334-PDE4\r\n334 OTYu\r\n", NULL, 1},
        {"PLAIN", "334 \r\n", NULL, 1}, /* after the initial response nothing is missing */
        {"LOGIN", "334 VXNlcm5hbWU6\r\n", "334 ???\r\n", 2},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char ehlo[128];
        snprintf(ehlo, sizeof(ehlo), "250-relay.test\r\n250 AUTH %s\r\n", cases[i].offers);
        struct world *world = relay(true, ehlo);
        world->script.auth[0] = cases[i].first;
        world->script.auth[1] = cases[i].second ? cases[i].second : "501 5.0.0 cancelled\r\n";
        world->script.auth[2] = "501 5.0.0 cancelled\r\n";
        world_publish(world);
        assert_string_equal(deliver(world), "RETURNED");
        const char *line = said(world);
        for (uint32_t j = 0; j < cases[i].at; j++)
            line = strchr(line, '|') + 1;
        if (strncmp(line, "*|QUIT|", 7) != 0)
            fail_msg("case %zu: %s", i, said(world));
        assert_non_null(strstr(failure_text(world), "was cancelled"));
        world_free(world);
    }
}

static void an_error_challenge_of_a_token_is_answered_and_its_535_read(void **state) { /* RFC 7628 3.2.3 */
    static const struct {
        uint8_t allowed;
        const char *answer;
    } cases[] = {{PATH_AUTH_XOAUTH2, "||QUIT|"}, {PATH_AUTH_OAUTHBEARER, "|AQ==|QUIT|"}};
    for (size_t i = 0; i < 2; i++) {
        for (uint32_t challenged = 0; challenged < 2; challenged++) { /* the response with the command, or in a line of its own */
            static char token[1001];
            memset(token, 't', sizeof(token) - 1);
            struct world *world = relay(true, ALL_FIVE);
            credentials(world, "tim", challenged ? token : "short");
            world_path_record(world)->auth_mechanisms = cases[i].allowed;
            world->script.auth[0] = challenged ? "334 \r\n" : "334 eyJzdGF0dXMiOiI0MDEifQ==\r\n";
            world->script.auth[1] = challenged ? "334 eyJzdGF0dXMiOiI0MDEifQ==\r\n" : "535 5.7.8 the token has expired\r\n";
            world->script.auth[2] = "535 5.7.8 the token has expired\r\n";
            world_publish(world);
            assert_string_equal(deliver(world), "RETURNED");
            assert_non_null(strstr(said(world), cases[i].answer));
            assert_non_null(strstr(failure_text(world), "the token has expired"));
            assert_int_equal(failure_of(world)->code, 535);
            world_free(world);
        }
    }
}

static void challenges_without_end_are_left(void **state) {
    static const char *const offers[] = {"PLAIN", "LOGIN", "CRAM-MD5"};
    for (size_t i = 0; i < 3; i++) {
        char ehlo[128];
        snprintf(ehlo, sizeof(ehlo), "250-relay.test\r\n250 AUTH %s\r\n", offers[i]);
        struct world *world = relay(true, ehlo);
        for (size_t j = 0; j < 12; j++)
            world->script.auth[j] = "334 AAAA\r\n";
        world_publish(world);
        assert_string_equal(deliver(world), "RETURNED");
        assert_in_range(world_events(world, PATH_EVENT_AUTH_FAILED), 1, 3);
        assert_int_equal(COUNTED(world, messages_delivered), 0);
        assert_null(strstr(world->commands, "MAIL"));
        world_free(world);
    }
}

/* The exchange has one deadline, not one for each of its replies. */
static void slow_challenges_share_one_deadline(void **state) {
    struct world *world = relay(false, "250-relay.test\r\n250 AUTH LOGIN\r\n");
    world_path_record(world)->flags = PATH_AUTH_PLAINTEXT;
    world->script.auth[0] = world->script.auth[1] = STALL; /* the answers come by hand */
    world_publish(world);
    world_send(world, "b@example.test");
    world_settle(world);
    struct tcp_conn *conn = &world->tcp.conns[0];
    world_run(world, 8 * SECOND);
    world->tcp.events.received(conn->user, conn, (const uint8_t *)"334 VXNlcm5hbWU6\r\n", 18, world->now_us);
    world_run(world, 3 * SECOND);
    assert_int_equal(world_events(world, PATH_EVENT_CLOSED_EARLY), 1);
    world_free(world);
}

/* ---- refusals ---- */

/* SMTP.md section 1: AUTH 4xx or 5xx defers, stops that relay, and is told; a wrong password must not bounce a queue. */
static void a_wrong_password_stops_the_relay_and_bounces_nothing(void **state) {
    struct world *world = relay(true, "250-relay.test\r\n250 AUTH PLAIN\r\n");
    world_path_record(world)->endpoint_count = 3;
    for (uint32_t i = 1; i < 3; i++) {
        world_path_record(world)->endpoints[i] = world_path_record(world)->endpoints[0];
        world_path_record(world)->endpoints[i].address[3] = (uint8_t)(i + 1);
    }
    world->script.auth[0] = "535 5.7.8 authentication failed\r\n";
    world_publish(world);
    uint32_t slots[10];
    for (uint32_t i = 0; i < 10; i++)
        slots[i] = world_send(world, "b@example.test");
    world_run(world, 55 * SECOND);
    for (uint32_t i = 0; i < 10; i++)
        assert_string_equal(world_outcome(world, slots[i]), "RETURNED");
    assert_int_equal(world->tcp.connects, 1); /* the other two would say the same */
    assert_int_equal(world_events(world, PATH_EVENT_AUTH_FAILED), 1);
    assert_string_equal(failure_text(world), "mx.test: AUTH PLAIN is refused: authentication failed");
    assert_int_equal(failure_of(world)->code, 535);
    assert_int_equal(failure_of(world)->stage, STAGE_AUTH);
    assert_non_null(strstr(world->commands, "QUIT"));
    world_cell(world)->order.demand = 1;
    world_publish(world);
    world_run(world, 10 * SECOND); /* and then once again */
    assert_int_equal(world->tcp.connects, 2);
    world_free(world);
}

/* Sessions that greet while the first one is refused leave without a word: servers lock accounts for less. */
static void many_sessions_do_not_repeat_a_wrong_password(void **state) {
    struct world *world = relay(false, "250-relay.test\r\n250 AUTH CRAM-MD5\r\n");
    world_cell(world)->order.sessions_allowed = 20;
    world_cell(world)->order.demand = 40;
    world->script.banner = "";
    world->script.auth[0] = "334 AAAA\r\n";
    world->script.auth[1] = "535 5.7.8 authentication failed\r\n";
    world_publish(world);
    world_run(world, SECOND);
    assert_int_equal(world->tcp.connects, 20);
    for (uint32_t i = 0; i < 20; i++) { /* they greet one after the other */
        struct tcp_conn *conn = &world->tcp.conns[i];
        world->tcp.events.received(conn->user, conn, (const uint8_t *)"220 hello\r\n", 11, world->now_us);
        world_settle(world);
    }
    assert_int_equal(world_events(world, PATH_EVENT_AUTH_FAILED), 1);
    const char *second = strstr(strstr(world->commands, "AUTH") + 1, "AUTH");
    assert_null(second);
    assert_int_equal(world->tcp.connects, 20);
    world_free(world);
}

static void a_temporary_refusal_leads_to_the_next_endpoint(void **state) {
    struct world *world = relay(true, "250-relay.test\r\n250 AUTH PLAIN\r\n");
    world_path_record(world)->endpoint_count = 2;
    world_path_record(world)->endpoints[1] = world_path_record(world)->endpoints[0];
    world_path_record(world)->endpoints[1].address[3] = 2;
    world->script.auth[0] = "454 4.7.0 the directory is down\r\n";
    world_publish(world);
    uint32_t slot = world_send(world, "b@example.test");
    world_run(world, 40 * SECOND);
    assert_string_equal(world_outcome(world, slot), "RETURNED");
    assert_true(world_events(world, PATH_EVENT_AUTH_FAILED) >= 2);
    assert_int_equal(world->events[0].endpoint, 0);
    assert_int_equal(world->events[1].endpoint, 1);
    world_free(world);
}

/* Servers repeat what they were told; what is ours stays out of events. */
static void no_secret_reaches_an_event(void **state) {
    static const char *const replies[] = {"500 5.5.1 unknown: AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\n",
                                          "535 5.7.8 tim may not use tanstaaftanstaaf here\r\n",
                                          "421 4.7.0 too much: AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\n"};
    for (size_t i = 0; i < 3; i++) {
        struct world *world = relay(true, "250-relay.test\r\n250 AUTH PLAIN\r\n");
        world->script.auth[0] = replies[i];
        world_publish(world);
        deliver(world);
        for (uint32_t j = 0; j < world->event_count; j++) {
            assert_null(memmem(&world->events[j], sizeof(world->events[j]), "tanstaaf", 8));
            assert_null(memmem(&world->events[j], sizeof(world->events[j]), "dGFuc3", 6));
            assert_null(memmem(&world->events[j], sizeof(world->events[j]), "B0YW5zdGFhZn", 12));
        }
        if (i < 2)
            assert_non_null(strstr(failure_text(world), "****"));
        else
            assert_true(world_events(world, PATH_EVENT_GREETING_REFUSED) > 0);
        world_free(world);
    }
}

/* Nor does it stay in a buffer that was given back, or in the lane when its path is gone. */
static void secrets_are_wiped(void **state) {
    static const bool under_tls[] = {true, false};
    for (size_t i = 0; i < 2; i++) {
        struct world *world = relay(under_tls[i], "250-relay.test\r\n250 AUTH PLAIN\r\n");
        world_path_record(world)->flags = PATH_AUTH_PLAINTEXT;
        world_publish(world);
        assert_string_equal(deliver(world), DELIVERED);
        world_run(world, 60 * SECOND);
        assert_int_equal(world_connections(world), 0);
        const struct pool *commands = &world->engine->commands;
        size_t bytes = commands->item_bytes * commands->fresh;
        assert_true(bytes > 0);
        POOL_SHOW(commands->base, bytes);
        assert_null(memmem(commands->base, bytes, "AUTH PLAIN ", 11));
        assert_null(memmem(commands->base, bytes, "AHRpbQB0YW5zdGFhZnRhbnN0YWFm", 28));
        assert_non_null(
            memmem(commands->base, bytes, "b@example.test>", 15)); /* what was no secret is still there: the look is the right one */
        world_retire(world);
        world_run(world, SECOND);
        assert_null(memmem(&world->engine->lanes[0], sizeof(struct lane), "tanstaaf", 8));
        world_free(world);
    }
}

/* Credentials that no mechanism can carry, or that lie outside the record, are a wild path. */
static void wild_credentials_are_not_used(void **state) {
    for (uint32_t i = 0; i < 4; i++) {
        struct world *world = relay(true, ALL_FIVE);
        struct path *path = world_path_record(world);
        switch (i) {
        case 0:
            path->auth_user = PATH_STRINGS_BYTES;
            break;
        case 1:
            path->auth_secret = UINT16_MAX;
            break;
        case 2:
            strcpy(path->strings + 700, "token\x01"
                                        "auth=Bearer other");
            break;
        default:
            memset(path->strings + 700, 'x', PATH_STRINGS_BYTES - 700);
        }
        world_publish(world);
        assert_string_equal(deliver(world), "RETURNED");
        assert_int_equal(world->tcp.connects, 0);
        world_free(world);
    }
}

/* ---- each fault ---- */

/* In the answer to AUTH, and in that to a response: the order is never bound, so that it goes back; the credentials are judged only by
 * what judges them. */
static void each_fault_in_the_exchange(void **state) {
    static const struct {
        const char *says;
        enum path_event_kind event;
    } faults[] = {
        {"454 4.7.0 later\r\n", PATH_EVENT_AUTH_FAILED},
        {"535 5.7.8 no\r\n", PATH_EVENT_AUTH_FAILED},
        {"500 5.5.1 what?\r\n", PATH_EVENT_AUTH_FAILED},
        {"421 4.3.2 going down\r\n", PATH_EVENT_GREETING_REFUSED},
        {SAY_EOF, PATH_EVENT_CLOSED_EARLY},
        {SAY_RST, PATH_EVENT_CLOSED_EARLY},
        {STALL, PATH_EVENT_CLOSED_EARLY},
        {"250-x\r\n\x01\x02\r\n", PATH_EVENT_PROTOCOL_ERROR},
        {"354 go on\r\n", PATH_EVENT_PROTOCOL_ERROR},
        {"101 what?\r\n", PATH_EVENT_PROTOCOL_ERROR},
        {"235 welcome\r\n250 and again\r\n",
         PATH_EVENT_READY}, /* the second one answers nothing: the session ends before an order is bound */
    };
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        for (uint32_t in_response = 0; in_response < 2; in_response++) {
            for (uint32_t byte_by_byte = 0; byte_by_byte < 2; byte_by_byte++) {
                struct world *world =
                    relay(false, in_response ? "250-relay.test\r\n250 AUTH CRAM-MD5\r\n" : "250-relay.test\r\n250 AUTH PLAIN\r\n");
                world_path_record(world)->flags = PATH_AUTH_PLAINTEXT;
                world->script.auth[0] = in_response ? "334 AAAA\r\n" : faults[i].says;
                world->script.auth[1] = faults[i].says;
                world->script.byte_by_byte = byte_by_byte;
                world_publish(world);
                if (strcmp(deliver(world), "RETURNED") != 0)
                    fail_msg("fault %zu: %s", i, world_outcome(world, 0));
                if (world->events[0].kind != faults[i].event)
                    fail_msg("fault %zu: event %u", i, world->events[0].kind);
                assert_null(strstr(world->commands, "MAIL"));
                world_free(world);
            }
        }
    }
}

/* A success before the credentials were said is none. */
static void a_welcome_without_credentials_is_a_protocol_error(void **state) {
    struct world *world = relay(true, "250-relay.test\r\n250 AUTH LOGIN\r\n");
    world_publish(world);
    assert_string_equal(deliver(world), "RETURNED");
    assert_true(world_events(world, PATH_EVENT_PROTOCOL_ERROR) > 0);
    world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain),
        cmocka_unit_test(login),
        cmocka_unit_test(cram_md5),
        cmocka_unit_test(xoauth2),
        cmocka_unit_test(oauthbearer),
        cmocka_unit_test(a_comma_in_a_user_is_escaped),
        cmocka_unit_test(the_strongest_that_is_offered_and_allowed),
        cmocka_unit_test(what_was_offered_before_tls_does_not_count),
        cmocka_unit_test(a_mechanism_that_is_not_taken_leads_to_the_next),
        cmocka_unit_test(a_long_secret_waits_for_the_challenge),
        cmocka_unit_test(an_empty_pool_only_delays),
        cmocka_unit_test(a_challenge_that_is_none_is_cancelled),
        cmocka_unit_test(an_error_challenge_of_a_token_is_answered_and_its_535_read),
        cmocka_unit_test(challenges_without_end_are_left),
        cmocka_unit_test(slow_challenges_share_one_deadline),
        cmocka_unit_test(a_wrong_password_stops_the_relay_and_bounces_nothing),
        cmocka_unit_test(many_sessions_do_not_repeat_a_wrong_password),
        cmocka_unit_test(a_temporary_refusal_leads_to_the_next_endpoint),
        cmocka_unit_test(no_secret_reaches_an_event),
        cmocka_unit_test(secrets_are_wiped),
        cmocka_unit_test(wild_credentials_are_not_used),
        cmocka_unit_test(each_fault_in_the_exchange),
        cmocka_unit_test(a_welcome_without_credentials_is_a_protocol_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
