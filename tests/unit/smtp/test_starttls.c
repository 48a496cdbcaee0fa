/* test_starttls.c: how sessions come under TLS and what happens when they do not (RFC 3207, RFC 8314, SMTP.md sections 1 and 7), with a
 * stand-in for the TLS room. */
#include "fake_stream.h"
#include "world.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define EHLO_TLS  "250-mx.test\r\n250-PIPELINING\r\n250-SIZE 1000000\r\n250 STARTTLS\r\n"
#define DELIVERED "REPLIED FINAL 250 2.0.0"

static struct tls_worker tls;

/* A path of that level to servers that do TLS well. */
static struct world *tls_world(enum path_tls level, uint32_t endpoints) {
    tls = (struct tls_worker){0};
    struct world *world = world_new_with(&tls);
    world_path(world, endpoints, 1, 0);
    for (uint32_t i = 0; i < endpoints; i++)
        world_path_record(world)->endpoints[i].tls = (uint8_t)level;
    world_path_record(world)->timeouts.ehlo = 10000;
    world->script.ehlo = EHLO_TLS;
    world->script.ehlo_secure = "250-mx.test\r\n250 PIPELINING\r\n";
    world->script.starttls = "220 2.0.0 go on\r\n";
    world->script.handshake = FAKE_SECURED;
    return world;
}

static const char *deliver(struct world *world) {
    uint32_t slot = world_send(world, "b@example.test");
    world_until_answered(world, slot);
    return world_outcome(world, slot);
}

static const struct path_event *event_of(const struct world *world, enum path_event_kind kind) {
    for (uint32_t i = 0; i < world->event_count; i++) {
        if (world->events[i].kind == kind)
            return &world->events[i];
    }
    return NULL;
}

static uint32_t count(const char *text, const char *word) {
    uint32_t found = 0;
    for (; (text = strstr(text, word)); text++)
        found++;
    return found;
}

/* ---- how it goes well ---- */

/* RFC 3207 4.2: after the handshake EHLO again, and nothing of the first answer counts: neither SIZE nor STARTTLS. */
static void every_level_above_none_takes_tls_and_forgets_what_was_said_in_plain(void **state) {
    for (enum path_tls level = PATH_TLS_MAY; level < PATH_TLS_LEVELS; level++) {
        struct world *world = tls_world(level, 1);
        world->script.handshake = FAKE_VERIFIED;
        world_publish(world);
        uint32_t slot = world_send(world, "b@example.test");
        world_until_answered(world, slot);
        assert_string_equal(world_outcome(world, slot), DELIVERED);
        assert_string_equal(world->commands, "EHLO out.sender.test|STARTTLS|\x16hello|EHLO out.sender.test|"
                                             "MAIL FROM:<a@sender.test>|RCPT TO:<b@example.test>|DATA|");
        const struct slot_reply *reply = &world_at(world, slot)->reply;
        assert_int_equal(reply->tls_version, 13);
        assert_int_equal(reply->tls_cipher, 0x1301);
        assert_int_equal(reply->flags & (REPLY_TLS_VERIFIED | REPLY_TLS_RESUMED), REPLY_TLS_VERIFIED | REPLY_TLS_RESUMED);
        world_settle(world);
        assert_int_equal(world_cell(world)->worker.sessions_secured_total, 1);
        assert_int_equal(world_events(world, PATH_EVENT_TLS_FAILED), 0);
        assert_int_equal(world_events(world, PATH_EVENT_READY), 1);
        world_free(world);
    }
}

static void level_none_never_asks(void **state) {
    struct world *world = tls_world(PATH_TLS_NONE, 1);
    world_publish(world);
    assert_string_equal(deliver(world), DELIVERED);
    assert_null(strstr(world->commands, "STARTTLS"));
    assert_int_equal(world_at(world, 0)->reply.tls_version, 0);
    assert_int_equal(world_cell(world)->worker.sessions_secured_total, 0);
    world_free(world);
}

/* A worker without TLS: what may have it goes in plain. */
static void without_a_tls_room_may_goes_in_plain(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world_path_record(world)->endpoints[0].tls = PATH_TLS_MAY;
    world->script.ehlo = EHLO_TLS;
    world_publish(world);
    assert_string_equal(deliver(world), DELIVERED);
    assert_int_equal(world->event_count, 1);
    world_free(world);
}

static void implicit_tls_comes_before_the_banner(void **state) { /* RFC 8314 3.3 */
    struct world *world = tls_world(PATH_TLS_MAY, 1);            /* which it raises to ENCRYPT */
    world_path_record(world)->flags = PATH_IMPLICIT_TLS;
    world_path_record(world)->endpoints[0].port = 465;
    world->script.implicit_tls = true;
    world_publish(world);
    assert_string_equal(deliver(world), DELIVERED);
    assert_int_equal(strncmp(world->commands, "\x16hello|EHLO out.sender.test|MAIL", 31), 0);
    assert_int_equal(tls.peer.level, PATH_TLS_ENCRYPT);
    assert_int_equal(tls.peer.port, 465);
    world_free(world);

    world = tls_world(PATH_TLS_MAY, 1); /* and a server that talks first is not listened to */
    world_path_record(world)->flags = PATH_IMPLICIT_TLS;
    world_publish(world);
    assert_string_equal(deliver(world), "LOCAL 454 4.7.5");
    assert_null(strstr(world->commands, "MAIL"));
    assert_int_equal(event_of(world, PATH_EVENT_TLS_FAILED)->detail, TLS_FAILURE_INJECTED);
    world_free(world);
}

static void the_handshake_is_told_what_the_path_says(void **state) {
    struct world *world = tls_world(PATH_TLS_DANE, 1);
    struct path *path = world_path_record(world);
    struct path_tlsa record = {.usage = 3, .selector = 1, .matching = 1, .length = 32, .data = {1, 2, 3}};
    memcpy(path->strings + 101, &record, sizeof(record)); /* unaligned */
    memcpy(path->strings + 300, "example.test\0mail.test\0", 24);
    path->endpoints[0].tlsa = 101;
    path->endpoints[0].tlsa_count = 1;
    path->verify_names = 300;
    path->tls_version_min = 13;
    path->tls_identity = 2;
    world->script.handshake = FAKE_VERIFIED;
    world_publish(world);
    assert_string_equal(deliver(world), DELIVERED);
    assert_string_equal(tls.peer.name, "mx.test");
    assert_string_equal(tls.peer.names, "example.test");
    assert_string_equal(tls.peer.names + sizeof("example.test"), "mail.test");
    assert_int_equal(tls.peer.level, PATH_TLS_DANE);
    assert_int_equal(tls.peer.tlsa_count, 1);
    assert_memory_equal(tls.tlsa, &record, sizeof(record));
    assert_int_equal(tls.peer.version_min, 13);
    assert_int_equal(tls.peer.identity, 2);
    assert_int_equal(tls.peer.address[3], 1);
    assert_int_equal(tls.peer.port, 25);
    assert_false(tls.peer.report);
    world_free(world);
}

/* ---- not offered, refused ---- */

static void without_starttls_only_may_goes_on(void **state) {
    for (enum path_tls level = PATH_TLS_MAY; level < PATH_TLS_LEVELS; level++) {
        struct world *world = tls_world(level, 1);
        world->script.ehlo = script_good.ehlo;
        world_publish(world);
        const char *outcome = deliver(world);
        if (level == PATH_TLS_MAY) {
            assert_string_equal(outcome, DELIVERED);
            assert_int_equal(world_events(world, PATH_EVENT_TLS_FAILED), 0);
        } else {
            assert_string_equal(outcome, "LOCAL 454 4.7.4");
            assert_string_equal(world_text(world, 0), "mx.test: TLS is required: STARTTLS is not offered");
            assert_null(strstr(world->commands, "MAIL"));
            assert_non_null(strstr(world->commands, "QUIT"));
            assert_int_equal(event_of(world, PATH_EVENT_TLS_FAILED)->detail, TLS_FAILURE_NOT_OFFERED);
            assert_int_equal(event_of(world, PATH_EVENT_TLS_FAILED)->stage, STAGE_EHLO);
        }
        world_free(world);
    }
}

/* RFC 3207 section 4: after 454 the client decides. */
static void a_refusal_leaves_the_connection_as_it_was(void **state) {
    static const char *const refusals[] = {"454 4.7.0 not now\r\n", "501 5.5.4 no\r\n", "502 what?\r\n"};
    for (size_t i = 0; i < 3; i++) {
        struct world *world = tls_world(PATH_TLS_MAY, 1);
        world->script.starttls = refusals[i];
        world_publish(world);
        assert_string_equal(deliver(world), DELIVERED);
        assert_int_equal(world->tcp.connects, 1);
        assert_string_equal(world->commands,
                            "EHLO out.sender.test|STARTTLS|MAIL FROM:<a@sender.test> SIZE=21|RCPT TO:<b@example.test>|DATA|");
        assert_int_equal(world_events(world, PATH_EVENT_TLS_FAILED), 1);
        assert_int_equal(event_of(world, PATH_EVENT_TLS_FAILED)->detail, TLS_FAILURE_REFUSED);
        assert_int_equal(event_of(world, PATH_EVENT_TLS_FAILED)->code, i == 0 ? 454 : i == 1 ? 501 : 502);
        assert_int_equal(world_cell(world)->worker.sessions_secured_total, 0);
        world_free(world);
    }
}

/* SMTP.md section 1: never fall back with credentials. */
static void credentials_never_fall_back(void **state) {
    static const char *const faults[] = {"454 4.7.0 not now\r\n", "220 go on\r\n"};
    for (size_t i = 0; i < 2; i++) {
        struct world *world = tls_world(PATH_TLS_MAY, 1);
        struct path *path = world_path_record(world);
        memcpy(path->strings + 400, "user\0secret", 12);
        path->auth_user = 400;
        path->auth_secret = 405;
        path->flags = PATH_AUTH_PLAINTEXT;
        world->script.starttls = faults[i];
        world->script.handshake = FAKE_EXPIRED;
        world->script.ehlo = "250-mx.test\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n";
        world_publish(world);
        uint32_t slot = world_send(world, "b@example.test");
        world_run(world, 60 * SECOND);
        assert_string_equal(world_outcome(world, slot), i == 0 ? "LOCAL 454 4.7.4" : "LOCAL 454 4.7.5");
        assert_null(strstr(world->commands, "AUTH"));
        assert_null(strstr(world->commands, "MAIL"));
        assert_true(world->tcp.connects > 1);
        assert_int_equal(count(world->commands, "STARTTLS"), world->tcp.connects);
        world_free(world);
    }
}

/* ---- plaintext behind the 220 ---- */

static void plaintext_behind_the_220_ends_the_connection(void **state) { /* RFC 3207 section 6 */
    static const char *const injections[] = {"220 go on\r\n250 mx.test\r\n", "220 go on\r\n2", "220-go\r\n220 on\r\n\r\n"};
    for (size_t i = 0; i < 3; i++) {
        struct world *world = tls_world(PATH_TLS_ENCRYPT, 1);
        world->script.starttls = injections[i];
        world_publish(world);
        assert_string_equal(deliver(world), "LOCAL 454 4.7.5");
        assert_int_equal(event_of(world, PATH_EVENT_TLS_FAILED)->detail, TLS_FAILURE_INJECTED);
        assert_int_equal(tls.handshakes, 0);
        assert_null(strstr(world->commands, "MAIL"));
        world_free(world);
    }
}

/* The same in segments of their own, which arrive in the pass of the 220. */
static void plaintext_in_another_segment_is_seen_too(void **state) {
    struct world *world = tls_world(PATH_TLS_ENCRYPT, 1);
    world->script.byte_by_byte = true;
    world->script.starttls = "220 go on\r\n250 mx.test\r\n";
    world_publish(world);
    assert_string_equal(deliver(world), "LOCAL 454 4.7.5");
    assert_int_equal(event_of(world, PATH_EVENT_TLS_FAILED)->detail, TLS_FAILURE_INJECTED);
    assert_int_equal(tls.handshakes, 0);
    world_free(world);
}

/* An answer to STARTTLS that came with the answer to EHLO answers nothing. */
static void an_answer_before_starttls_was_said_is_a_protocol_error(void **state) {
    struct world *world = tls_world(PATH_TLS_ENCRYPT, 1);
    world->script.ehlo = EHLO_TLS "220 go on\r\n";
    world_publish(world);
    assert_string_equal(deliver(world), "RETURNED");
    assert_int_equal(tls.handshakes, 0);
    assert_true(world_events(world, PATH_EVENT_PROTOCOL_ERROR) > 0);
    world_free(world);
}

/* ---- handshakes that fail ---- */

/* RFC 7435: another connection, without; and for path.broken_tls_s no further try. */
static void may_goes_on_without_tls_on_another_connection_and_remembers(void **state) {
    struct world *world = tls_world(PATH_TLS_MAY, 1);
    world_path_record(world)->broken_tls_s = 100;
    world_path_record(world)->max_deliveries_per_connection = 1;
    world->script.handshake = FAKE_EXPIRED;
    world_publish(world);
    assert_string_equal(deliver(world), DELIVERED);
    assert_int_equal(world->tcp.connects, 2);
    assert_string_equal(world->commands, "EHLO out.sender.test|STARTTLS|\x16hello|EHLO out.sender.test|"
                                         "MAIL FROM:<a@sender.test> SIZE=21|RCPT TO:<b@example.test>|DATA|QUIT|");
    const struct path_event *event = event_of(world, PATH_EVENT_TLS_FAILED);
    assert_int_equal(event->detail, TLS_FAILURE_EXPIRED);
    assert_int_equal(event->stage, STAGE_STARTTLS);
    assert_int_equal(event->text_length, strlen("mx.test: the certificate ended on 2020-01-01"));
    assert_memory_equal(event->text, "mx.test: the certificate ended on 2020-01-01", event->text_length);
    for (uint32_t i = 0; i < 5; i++) {
        assert_string_equal(deliver(world), DELIVERED);
        world_run(world, 10 * SECOND);
    }
    assert_int_equal(tls.handshakes, 1);
    world_run(world, 100 * SECOND);
    world->script.handshake = FAKE_SECURED;
    assert_string_equal(deliver(world), DELIVERED);
    assert_int_equal(tls.handshakes, 2);
    assert_int_equal(world_at(world, 6)->reply.tls_version, 13);
    world_free(world);
}

/* broken_tls_s 0: each new connection tries again, and each message goes. */
static void without_memory_each_connection_tries_again(void **state) {
    struct world *world = tls_world(PATH_TLS_MAY, 1);
    world_path_record(world)->max_deliveries_per_connection = 1;
    world->script.handshake = FAKE_EXPIRED;
    world_publish(world);
    for (uint32_t i = 0; i < 3; i++)
        assert_string_equal(deliver(world), DELIVERED);
    assert_int_equal(tls.handshakes, 3);
    assert_int_equal(world->tcp.connects, 6);
    world_free(world);
}

/* SMTP.md section 7: a host that fails DANE is skipped; the next one gets the mail. */
static void a_host_that_fails_is_skipped_for_the_next(void **state) {
    static const char *const faults[] = {FAKE_TLSA, FAKE_EXPIRED, FAKE_SECURED /* not verified */};
    for (size_t i = 0; i < 3; i++) {
        struct world *world = tls_world(PATH_TLS_DANE, 2);
        world_path_record(world)->endpoints[1].tls = PATH_TLS_MAY;
        world->script.handshake = faults[i];
        world_publish(world);
        uint32_t slot = world_send(world, "b@example.test");
        world_until_answered(world, slot);
        assert_int_equal(world->events[0].kind, PATH_EVENT_TLS_FAILED);
        assert_int_equal(world->events[0].endpoint, 0);
        assert_int_equal(world->events[0].detail, i == 0   ? TLS_FAILURE_TLSA_MISMATCH
                                                  : i == 1 ? TLS_FAILURE_EXPIRED
                                                           : TLS_FAILURE_NOT_TRUSTED);
        assert_string_equal(world_outcome(world, slot), DELIVERED);
        assert_int_equal(world_at(world, slot)->reply.endpoint, 1);
        world_free(world);
    }
}

static void when_every_host_fails_the_order_is_deferred_with_the_reason(void **state) {
    struct world *world = tls_world(PATH_TLS_VERIFY, 2);
    world->script.handshake = FAKE_EXPIRED;
    world_publish(world);
    uint64_t begin_us = world->now_us;
    assert_string_equal(deliver(world), "LOCAL 454 4.7.5");
    assert_in_range(world->now_us - begin_us, 0, 6 * SECOND);
    assert_non_null(strstr(world_text(world, 0), "mx.test: TLS is required: "));
    assert_int_equal(world_at(world, 0)->reply.stage, STAGE_STARTTLS);
    assert_null(strstr(world->commands, "MAIL"));
    world_free(world);
}

/* MTA-STS in mode testing: told, and the mail goes. */
static void a_policy_in_testing_reports_and_delivers(void **state) {
    struct world *world = tls_world(PATH_TLS_MAY, 1);
    world_path_record(world)->flags = PATH_TLS_TESTING;
    world->script.handshake = FAKE_FLAW;
    world_publish(world);
    assert_string_equal(deliver(world), DELIVERED);
    assert_true(tls.peer.report);
    assert_int_equal(event_of(world, PATH_EVENT_TLS_FAILED)->detail, TLS_FAILURE_HOST_MISMATCH);
    assert_int_equal(world->tcp.connects, 1);
    world_settle(world);
    assert_int_equal(world_cell(world)->worker.sessions_secured_total, 0); /* a failure of RFC 8460, not a success too */
    world_free(world);

    world = tls_world(PATH_TLS_MAY, 1);
    world_path_record(world)->flags = PATH_TLS_TESTING;
    world->script.ehlo = script_good.ehlo;
    world_publish(world);
    assert_string_equal(deliver(world), DELIVERED);
    assert_int_equal(event_of(world, PATH_EVENT_TLS_FAILED)->detail, TLS_FAILURE_NOT_OFFERED);
    world_free(world);
}

/* ---- this side's troubles ---- */

static void no_room_for_a_session_is_waited_for(void **state) {
    struct world *world = tls_world(PATH_TLS_MAY, 1);
    tls.error = -ENOBUFS;
    tls.errors = 50;
    world_publish(world);
    assert_string_equal(deliver(world), DELIVERED);
    assert_int_equal(world_at(world, 0)->reply.tls_version, 13);
    assert_int_equal(world->tcp.connects, 1);
    world_free(world);
}

/* Neither memory nor a missing client certificate is a reason to go without TLS. */
static void troubles_of_this_side_never_lead_to_plain(void **state) {
    static const int errors[] = {-ENOBUFS, -EINVAL};
    for (size_t i = 0; i < 2; i++) {
        struct world *world = tls_world(PATH_TLS_MAY, 1);
        tls.error = errors[i];
        tls.errors = UINT32_MAX;
        world_publish(world);
        uint32_t slot = world_send(world, "b@example.test");
        world_run(world, 40 * SECOND);
        assert_string_equal(world_outcome(world, slot), "LOCAL 454 4.7.5");
        assert_int_equal(event_of(world, PATH_EVENT_TLS_FAILED)->detail, TLS_FAILURE_LOCAL);
        assert_null(strstr(world->commands, "MAIL"));
        assert_int_equal(count(world->commands, "STARTTLS"), world->tcp.connects);
        world_free(world);
    }
}

/* ---- both greetings ---- */

static void helo_serves_under_tls_too(void **state) {
    struct world *world = tls_world(PATH_TLS_ENCRYPT, 1);
    world->script.ehlo_secure = "502 what?\r\n";
    world_publish(world);
    assert_string_equal(deliver(world), DELIVERED);
    assert_string_equal(world->commands, "EHLO out.sender.test|STARTTLS|\x16hello|EHLO out.sender.test|HELO out.sender.test|"
                                         "MAIL FROM:<a@sender.test>|RCPT TO:<b@example.test>|DATA|");
    world_free(world);

    world = tls_world(PATH_TLS_ENCRYPT, 1); /* and in plain it offers no STARTTLS */
    world->script.ehlo = "502 what?\r\n";
    world_publish(world);
    assert_string_equal(deliver(world), "LOCAL 454 4.7.4");
    world_free(world);
}

static void our_own_name_is_a_loop_in_the_second_greeting_too(void **state) {
    struct world *world = tls_world(PATH_TLS_ENCRYPT, 1);
    world->script.ehlo_secure = "250-out.sender.test\r\n250 PIPELINING\r\n";
    world_publish(world);
    assert_string_equal(deliver(world), "RETURNED");
    const struct path_event *event = event_of(world, PATH_EVENT_GREETING_REFUSED);
    assert_int_equal(event->code, 554);
    assert_int_equal(event->enhanced[1], 4);
    assert_int_equal(event->enhanced[2], 6);
    world_free(world);
}

/* Each phase has its deadline, however steadily its bytes trickle. */
static void a_trickling_server_does_not_hold_a_session(void **state) {
    struct world *world = tls_world(PATH_TLS_MAY, 1);
    world->script.ehlo = STALL;
    world_publish(world);
    world_send(world, "b@example.test");
    world_settle(world);
    struct tcp_conn *conn = &world->tcp.conns[0];
    uint32_t lines = 0;
    for (; lines < 90 && world_connections(world) && !conn->closing; lines++) {
        world->tcp.events.received(conn->user, conn, (const uint8_t *)"250-X\r\n", 7, world->now_us);
        world_run(world, SECOND);
    }
    assert_in_range(lines, 10, 12); /* timeouts.ehlo is 10 s */
    assert_true(world_events(world, PATH_EVENT_CLOSED_EARLY) > 0);
    world_free(world);
}

/* ---- REQUIRETLS ---- */

/* RFC 8689: among sessions at rest the one that can take such an order gets it. */
static void requiretls_orders_go_to_the_session_that_can(void **state) {
    struct world *world = tls_world(PATH_TLS_MAY, 1);
    world_cell(world)->order.sessions_allowed = 2;
    world_cell(world)->order.demand = 4;
    world->script.handshake = FAKE_VERIFIED;
    world->script.ehlo_secure = "250-mx.test\r\n250 REQUIRETLS\r\n";
    world->script.starttls = STALL;
    world_path_record(world)->broken_tls_s = 0;
    world_publish(world);
    world_settle(world); /* both wait for the answer to STARTTLS */
    struct tcp_conn *first = &world->tcp.conns[0], *second = &world->tcp.conns[1];
    world->tcp.events.received(first->user, first, (const uint8_t *)"220 go\r\n", 8, world->now_us);
    smtp_engine_poll(world->engine, 100, world->now_us);
    world->tcp.events.received(first->user, first, (const uint8_t *)FAKE_VERIFIED, sizeof(FAKE_VERIFIED) - 1, world->now_us);
    smtp_engine_poll(world->engine, 100, world->now_us);
    world->tcp.events.received(first->user, first, (const uint8_t *)"250-mx.test\r\n250 REQUIRETLS\r\n", 30 - 1, world->now_us);
    world->tcp.events.received(second->user, second, (const uint8_t *)"454 no\r\n", 8, world->now_us); /* ready last: first in the list */
    world_settle(world);
    assert_int_equal(world_cell(world)->worker.sessions_ready, 2);
    uint32_t slot = world_slot(world, "b@example.test", "x\r\n", 0);
    world_at(world, slot)->flags = SLOT_REQUIRETLS;
    world_order(world, slot);
    world_settle(world);
    assert_int_equal(first->wire_length + second->wire_length, 0);
    assert_non_null(strstr(world->commands, "MAIL"));
    world_free(world);
}

/* SMTP.md section 1: never fall back for REQUIRETLS; and a handshake that failed today may do tomorrow. */
static void requiretls_orders_are_deferred_where_others_go_in_plain(void **state) {
    struct world *world = tls_world(PATH_TLS_MAY, 1);
    world_path_record(world)->broken_tls_s = 100;
    world->script.handshake = FAKE_EXPIRED;
    world_publish(world);
    uint32_t slot = world_slot(world, "b@example.test", "x\r\n", 0);
    world_at(world, slot)->flags = SLOT_REQUIRETLS;
    world_order(world, slot);
    world_until_answered(world, slot);
    assert_string_equal(world_outcome(world, slot), "LOCAL 454 4.7.5");
    assert_null(strstr(world->commands, "MAIL"));
    assert_string_equal(deliver(world), DELIVERED);
    world_free(world);
}

/* ---- each phase and each fault ---- */

#define LINE_OF_100  "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
#define LINE_OF_1000 LINE_OF_100 LINE_OF_100 LINE_OF_100 LINE_OF_100 LINE_OF_100 LINE_OF_100 LINE_OF_100 LINE_OF_100 LINE_OF_100 LINE_OF_100

enum fault { FAULT_4XX, FAULT_5XX, FAULT_421, FAULT_EOF, FAULT_RST, FAULT_STALL, FAULT_GARBAGE, FAULT_OVERLONG, FAULT_CLASS, FAULTS };
static const char *const fault_says[FAULTS] = {"451 4.3.0 not now\r\n",
                                               "554 5.3.0 no\r\n",
                                               "421 4.3.2 going down\r\n",
                                               SAY_EOF,
                                               SAY_RST,
                                               STALL,
                                               "HTTP/1.1 400 Bad Request\r\n",
                                               "250 " LINE_OF_1000 LINE_OF_1000 LINE_OF_1000 "\r\n",
                                               "354 what?\r\n"};

/* Of a cell: "sent" in plain or under TLS, or the order's outcome; then the first event, and the failure's number. */
struct cell {
    const char *outcome;
    enum path_event_kind event;
    enum tls_failure failure;
};

#define SENT(event_, failure_)                                                                                                             \
    { DELIVERED, event_, failure_ }
#define TLS_(outcome_, failure_)                                                                                                           \
    { outcome_, PATH_EVENT_TLS_FAILED, failure_ }
#define BACK(event_)                                                                                                                       \
    { "RETURNED", event_, TLS_FAILURE_NONE }

static void check_cells(const char *phase, enum path_tls level, const struct cell cells[FAULTS], size_t place) {
    for (enum fault fault = 0; fault < FAULTS; fault++) {
        struct world *world = tls_world(level, 1);
        *(const char **)((char *)&world->script + place) = fault_says[fault];
        world_path_record(world)->timeouts.banner = 10000;
        world_publish(world);
        uint32_t slot = world_send(world, "b@example.test");
        world_until_answered(world, slot);
        const struct cell *cell = &cells[fault];
        if (strcmp(world_outcome(world, slot), cell->outcome) != 0)
            fail_msg("%s, level %u, fault %u: %s instead of %s", phase, level, fault, world_outcome(world, slot), cell->outcome);
        if (!world->event_count || world->events[0].kind != cell->event ||
            (cell->event == PATH_EVENT_TLS_FAILED && world->events[0].detail != cell->failure))
            fail_msg("%s, level %u, fault %u: event %u detail %u", phase, level, fault, world->events[0].kind, world->events[0].detail);
        if (level > PATH_TLS_MAY && world->mails)
            fail_msg("%s, level %u, fault %u: mail went", phase, level, fault);
        world_run(world, 20 * SECOND); /* the session goes too */
        assert_int_equal(COUNTED(world, orders_claimed), 1);
        world_free(world);
    }
}

static void each_fault_in_the_answer_to_starttls(void **state) {
    static const struct cell may[FAULTS] = {
        [FAULT_4XX] = SENT(PATH_EVENT_TLS_FAILED, TLS_FAILURE_REFUSED),
        [FAULT_5XX] = SENT(PATH_EVENT_TLS_FAILED, TLS_FAILURE_REFUSED),
        [FAULT_421] = BACK(PATH_EVENT_GREETING_REFUSED),
        [FAULT_EOF] = SENT(PATH_EVENT_TLS_FAILED, TLS_FAILURE_HANDSHAKE),
        [FAULT_RST] = SENT(PATH_EVENT_TLS_FAILED, TLS_FAILURE_HANDSHAKE),
        [FAULT_STALL] = SENT(PATH_EVENT_TLS_FAILED, TLS_FAILURE_TIMEOUT),
        [FAULT_GARBAGE] = SENT(PATH_EVENT_TLS_FAILED, TLS_FAILURE_HANDSHAKE),
        [FAULT_OVERLONG] = SENT(PATH_EVENT_TLS_FAILED, TLS_FAILURE_HANDSHAKE),
        [FAULT_CLASS] = SENT(PATH_EVENT_TLS_FAILED, TLS_FAILURE_HANDSHAKE),
    };
    static const struct cell encrypt[FAULTS] = {
        [FAULT_4XX] = TLS_("LOCAL 454 4.7.4", TLS_FAILURE_REFUSED),
        [FAULT_5XX] = TLS_("LOCAL 454 4.7.4", TLS_FAILURE_REFUSED),
        [FAULT_421] = BACK(PATH_EVENT_GREETING_REFUSED),
        [FAULT_EOF] = TLS_("LOCAL 454 4.7.5", TLS_FAILURE_HANDSHAKE),
        [FAULT_RST] = TLS_("LOCAL 454 4.7.5", TLS_FAILURE_HANDSHAKE),
        [FAULT_STALL] = TLS_("LOCAL 454 4.7.5", TLS_FAILURE_TIMEOUT),
        [FAULT_GARBAGE] = TLS_("LOCAL 454 4.7.5", TLS_FAILURE_HANDSHAKE),
        [FAULT_OVERLONG] = TLS_("LOCAL 454 4.7.5", TLS_FAILURE_HANDSHAKE),
        [FAULT_CLASS] = TLS_("LOCAL 454 4.7.5", TLS_FAILURE_HANDSHAKE),
    };
    check_cells("STARTTLS", PATH_TLS_MAY, may, offsetof(struct script, starttls));
    check_cells("STARTTLS", PATH_TLS_ENCRYPT, encrypt, offsetof(struct script, starttls));
    check_cells("STARTTLS", PATH_TLS_VERIFY, encrypt, offsetof(struct script, starttls));
}

/* Whatever lies in the handshake, it was not a handshake. */
static void each_fault_in_the_handshake(void **state) {
    struct cell may[FAULTS], encrypt[FAULTS];
    for (enum fault fault = 0; fault < FAULTS; fault++) {
        enum tls_failure failure = fault == FAULT_STALL ? TLS_FAILURE_TIMEOUT : TLS_FAILURE_HANDSHAKE;
        may[fault] = (struct cell)SENT(PATH_EVENT_TLS_FAILED, failure);
        encrypt[fault] = (struct cell)TLS_("LOCAL 454 4.7.5", failure);
    }
    check_cells("handshake", PATH_TLS_MAY, may, offsetof(struct script, handshake));
    check_cells("handshake", PATH_TLS_ENCRYPT, encrypt, offsetof(struct script, handshake));
    check_cells("handshake", PATH_TLS_DANE, encrypt, offsetof(struct script, handshake));
}

/* After the handshake there is no way back to plain: what fails then is the greeting. */
static void each_fault_in_the_second_ehlo(void **state) {
    static const struct cell cells[FAULTS] = {
        [FAULT_4XX] = BACK(PATH_EVENT_GREETING_REFUSED),   [FAULT_5XX] = SENT(PATH_EVENT_READY, 0),
        [FAULT_421] = BACK(PATH_EVENT_GREETING_REFUSED),   [FAULT_EOF] = BACK(PATH_EVENT_CLOSED_EARLY),
        [FAULT_RST] = BACK(PATH_EVENT_CLOSED_EARLY),       [FAULT_STALL] = BACK(PATH_EVENT_CLOSED_EARLY),
        [FAULT_GARBAGE] = BACK(PATH_EVENT_PROTOCOL_ERROR), [FAULT_OVERLONG] = BACK(PATH_EVENT_PROTOCOL_ERROR),
        [FAULT_CLASS] = BACK(PATH_EVENT_PROTOCOL_ERROR)};
    check_cells("second EHLO", PATH_TLS_MAY, cells, offsetof(struct script, ehlo_secure));
}

static uint32_t draw(uint64_t *seed, uint32_t below) {
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((*seed >> 33) % below);
}

/* Whatever servers say before a session is ready: every order is answered, every record comes back, nothing goes in plain that must not,
 * and what was delivered was taken once. The seed is printed, and replays it. */
static void servers_that_say_anything_before_they_are_ready(void **state) {
    static const char *const says[] = {"220 go on\r\n",
                                       "250 mx.test\r\n",
                                       "250-mx.test\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN CRAM-MD5\r\n",
                                       "250-mx.test\r\n250 STARTTLS\r\n",
                                       "250-mx.test\r\n250 AUTH LOGIN\r\n",
                                       "220 go on\r\n250 more\r\n",
                                       "334 \r\n",
                                       "334 AAAA\r\n",
                                       "334 ?\r\n",
                                       "235 2.7.0 welcome\r\n",
                                       "535 5.7.8 no\r\n",
                                       "454 4.7.0 later\r\n",
                                       "421 4.3.2 down\r\n",
                                       "504 what?\r\n",
                                       SAY_EOF,
                                       SAY_RST,
                                       STALL,
                                       "\x16\x03\x01",
                                       "2",
                                       "220-x\r\n",
                                       FAKE_SECURED,
                                       FAKE_VERIFIED,
                                       FAKE_FLAW,
                                       FAKE_EXPIRED,
                                       FAKE_TLSA,
                                       (FAKE_SECURED "250 x\r\n")};
    enum { SAYS = sizeof(says) / sizeof(says[0]), ROUNDS = 200, ORDERS = 3 };
    static const uint32_t fields[] = {offsetof(struct script, ehlo), offsetof(struct script, starttls), offsetof(struct script, handshake),
                                      offsetof(struct script, ehlo_secure), offsetof(struct script, auth)};
    uint32_t delivered = 0, secured = 0;
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        uint64_t seed = round * 2654435761u;
        enum path_tls level = (enum path_tls)draw(&seed, PATH_TLS_LEVELS);
        struct world *world = tls_world(level, 1 + draw(&seed, 2));
        struct path *path = world_path_record(world);
        world->script.auth[0] = "235 2.7.0 welcome\r\n";
        for (uint32_t i = 1; i < 12; i++)
            world->script.auth[i] = says[draw(&seed, SAYS)];
        for (uint32_t i = 0; i < 1 + draw(&seed, 3); i++)
            *(const char **)((char *)&world->script + fields[draw(&seed, 5)]) = says[draw(&seed, SAYS)];
        world->script.byte_by_byte = draw(&seed, 4) == 0 && !world->script.handshake;
        path->flags = (uint8_t)(draw(&seed, 2) ? PATH_TLS_TESTING : 0);
        path->broken_tls_s = draw(&seed, 2) * 60;
        if (draw(&seed, 3) == 0) {
            memcpy(path->strings + 400, "tim\0tanstaaftanstaaf", 21);
            path->auth_user = 400;
            path->auth_secret = 404;
        }
        world_publish(world);
        uint32_t slots[ORDERS];
        for (uint32_t i = 0; i < ORDERS; i++)
            slots[i] = world_send(world, "b@example.test");
        world_run(world, 120 * SECOND);
        uint32_t taken = 0;
        for (uint32_t i = 0; i < ORDERS; i++) {
            const struct slot_reply *reply = &world_at(world, slots[i])->reply;
            if (slot_word_state(slot_load(world_at(world, slots[i]))) != SLOT_ANSWERED)
                fail_msg("round %u: an order is %s", (uint32_t)round, world_outcome(world, slots[i]));
            if (reply->outcome != OUTCOME_REPLIED)
                continue;
            taken++;
            secured += reply->tls_version == 13;
            if ((level > PATH_TLS_MAY && reply->tls_version != 13) || (level >= PATH_TLS_VERIFY && !(reply->flags & REPLY_TLS_VERIFIED)) ||
                (path->auth_user && !strstr(world->commands, "AUTH")))
                fail_msg("round %u: mail went as the path does not allow", (uint32_t)round);
        }
        delivered += taken;
        if (world->mails != taken || world_connections(world) != 0 || !smtp_engine_idle(world->engine))
            fail_msg("round %u: %u mails, %u delivered, %u connections", (uint32_t)round, world->mails, taken, world_connections(world));
        world_free(world);
    }
    assert_in_range(delivered, ROUNDS / 4, ROUNDS * ORDERS); /* the draw has both */
    assert_true(secured > 0 && secured < delivered);
}

/* The network cuts where it likes. */
static void every_byte_may_come_alone(void **state) {
    struct world *world = tls_world(PATH_TLS_ENCRYPT, 1);
    world->script.ehlo = EHLO_TLS;
    world_publish(world);
    world->script.byte_by_byte = true;
    world->script.handshake = "x"; /* one byte is all the stand-in can take: it is not TLS */
    assert_string_equal(deliver(world), "LOCAL 454 4.7.5");
    world_free(world);
}

/* A refusal is remembered as a failed handshake is: not each session asks, and tells it, again. */
static void a_refusal_is_remembered(void **state) {
    struct world *world = tls_world(PATH_TLS_MAY, 1);
    world_path_record(world)->broken_tls_s = 60;
    world_path_record(world)->max_deliveries_per_connection = 1;
    world->script.starttls = "454 4.7.0 TLS not available\r\n";
    world_publish(world);
    for (uint32_t i = 0; i < 3; i++)
        assert_string_equal(deliver(world), DELIVERED);
    assert_int_equal(count(world->commands, "STARTTLS"), 1);
    assert_int_equal(world_events(world, PATH_EVENT_TLS_FAILED), 1);
    world_run(world, 61 * SECOND);
    assert_string_equal(deliver(world), DELIVERED);
    assert_int_equal(count(world->commands, "STARTTLS"), 2);
    world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_level_above_none_takes_tls_and_forgets_what_was_said_in_plain),
        cmocka_unit_test(level_none_never_asks),
        cmocka_unit_test(without_a_tls_room_may_goes_in_plain),
        cmocka_unit_test(implicit_tls_comes_before_the_banner),
        cmocka_unit_test(the_handshake_is_told_what_the_path_says),
        cmocka_unit_test(without_starttls_only_may_goes_on),
        cmocka_unit_test(a_refusal_leaves_the_connection_as_it_was),
        cmocka_unit_test(credentials_never_fall_back),
        cmocka_unit_test(plaintext_behind_the_220_ends_the_connection),
        cmocka_unit_test(plaintext_in_another_segment_is_seen_too),
        cmocka_unit_test(an_answer_before_starttls_was_said_is_a_protocol_error),
        cmocka_unit_test(may_goes_on_without_tls_on_another_connection_and_remembers),
        cmocka_unit_test(without_memory_each_connection_tries_again),
        cmocka_unit_test(a_host_that_fails_is_skipped_for_the_next),
        cmocka_unit_test(when_every_host_fails_the_order_is_deferred_with_the_reason),
        cmocka_unit_test(a_policy_in_testing_reports_and_delivers),
        cmocka_unit_test(no_room_for_a_session_is_waited_for),
        cmocka_unit_test(troubles_of_this_side_never_lead_to_plain),
        cmocka_unit_test(helo_serves_under_tls_too),
        cmocka_unit_test(our_own_name_is_a_loop_in_the_second_greeting_too),
        cmocka_unit_test(a_trickling_server_does_not_hold_a_session),
        cmocka_unit_test(requiretls_orders_go_to_the_session_that_can),
        cmocka_unit_test(requiretls_orders_are_deferred_where_others_go_in_plain),
        cmocka_unit_test(each_fault_in_the_answer_to_starttls),
        cmocka_unit_test(each_fault_in_the_handshake),
        cmocka_unit_test(each_fault_in_the_second_ehlo),
        cmocka_unit_test(servers_that_say_anything_before_they_are_ready),
        cmocka_unit_test(every_byte_may_come_alone),
        cmocka_unit_test(a_refusal_is_remembered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
