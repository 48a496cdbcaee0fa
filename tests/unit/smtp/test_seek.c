/* test_seek.c: an order that a server cannot take goes on to the path's other servers, and is answered only when all are known (RFC 8689
 * 4.2.1, RFC 5321 5.1). */
#include "dataplane/smtp/seek.h"
#include "fake_stream.h"
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define EHLO_TLS   "250-mx.test\r\n250-PIPELINING\r\n250 STARTTLS\r\n"
#define EHLO_NONE  "250-mx.test\r\n250 PIPELINING\r\n"
#define EHLO_TAKES "250-mx.test\r\n250-PIPELINING\r\n250 REQUIRETLS\r\n"
#define DELIVERED  "REPLIED FINAL 250 2.0.0"
#define NOT_TO_BE  "LOCAL 550 5.7.30"
#define DEFERRED   "LOCAL 451 4.4.1"

static struct tls_worker tls;

/* Servers that do TLS well and offer what `ehlos` says, one session at a time. */
static struct world *seek_world(uint32_t endpoints, const char *first, const char *second, const char *third) {
    tls = (struct tls_worker){0};
    struct world *world = world_new_with(&tls);
    world_path(world, endpoints, 1, 0);
    for (uint32_t i = 0; i < endpoints; i++)
        world_path_record(world)->endpoints[i].tls = PATH_TLS_MAY;
    world->script.ehlo = EHLO_TLS;
    world->script.ehlo_secure = EHLO_NONE;
    world->script.starttls = "220 2.0.0 go on\r\n";
    world->script.handshake = FAKE_VERIFIED;
    world->script.ehlos[0] = first;
    world->script.ehlos[1] = second;
    world->script.ehlos[2] = third;
    return world;
}

static uint32_t requiretls(struct world *world) {
    uint32_t slot = world_slot(world, "b@example.test", "x\r\n", 0);
    world_at(world, slot)->flags = SLOT_REQUIRETLS;
    return slot;
}

static const char *ask(struct world *world, uint32_t slot) {
    world_order(world, slot);
    world_until_answered(world, slot);
    return world_outcome(world, slot);
}

static uint32_t count(const char *text, const char *word) {
    uint32_t found = 0;
    for (; (text = strstr(text, word)); text++)
        found++;
    return found;
}

/* RFC 8689 4.2.1: QUIT, and the next host of the list, with each that there is. */
static void requiretls_goes_on_to_the_host_that_offers_it(void **state) {
    for (uint32_t allowed = 1; allowed <= 3; allowed++) {
        for (uint32_t pipelined = 1; pipelined <= 4; pipelined += 3) {
            struct world *world = seek_world(3, EHLO_NONE, EHLO_NONE, EHLO_TAKES);
            world_cell(world)->order.sessions_allowed = allowed;
            world_path_record(world)->pipelined_transactions = pipelined;
            world_publish(world);
            uint32_t slot = requiretls(world);
            assert_string_equal(ask(world, slot), DELIVERED);
            assert_int_equal(world_at(world, slot)->reply.endpoint, 2);
            assert_int_equal(world->tcp.connects, 3);
            assert_int_equal(count(world->commands, "MAIL"), 1);
            assert_int_equal(count(world->commands, " REQUIRETLS|"), 1);
            assert_int_equal(count(world->commands, "QUIT"), allowed == 1 ? 2 : allowed == 2 ? 1 : 0); /* only to make room */
            uint32_t others[3] = {requiretls(world), requiretls(world), world_slot(world, "b@example.test", "x\r\n", 0)};
            for (uint32_t i = 0; i < 3; i++) {
                assert_string_equal(ask(world, others[i]), DELIVERED);
                assert_true(i == 2 || world_at(world, others[i])->reply.endpoint == 2);
            }
            assert_int_equal(world->tcp.connects, 3); /* what the hosts are like is known */
            world_free(world);
        }
    }
}

static void it_is_answered_when_every_host_is_known(void **state) {
    struct world *world = seek_world(3, EHLO_NONE, EHLO_NONE, EHLO_NONE);
    world_publish(world);
    uint32_t slot = requiretls(world);
    assert_string_equal(ask(world, slot), NOT_TO_BE);
    assert_string_equal(world_text(world, slot), "REQUIRETLS support required");
    assert_int_equal(world->tcp.connects, 3);
    assert_string_equal(ask(world, requiretls(world)), NOT_TO_BE);
    assert_int_equal(world->tcp.connects, 3);
    assert_null(strstr(world->commands, "MAIL"));
    /* What was heard long ago is asked again. */
    world_run(world, SEEK_KNOWN_US + SECOND);
    world->script.ehlos[1] = EHLO_TAKES;
    slot = requiretls(world);
    assert_string_equal(ask(world, slot), DELIVERED);
    assert_int_equal(world_at(world, slot)->reply.endpoint, 1);
    world_free(world);
}

/* The connection that is on its way to that host times out. */
static bool end_connect(struct world *world, uint8_t host) {
    for (uint32_t i = 0; i < FAKE_CONNS_MAX; i++) {
        struct tcp_conn *conn = &world->tcp.conns[i];
        if (conn->state != FAKE_CONNECTING || conn->remote.bytes[3] != host)
            continue;
        fake_end(conn, TCP_TIMED_OUT, world->now_us);
        return true;
    }
    return false;
}

/* Who could not be asked may offer it: a temporary failure, whether the host is not there, is refused or rests. */
static void it_is_deferred_while_a_host_cannot_be_asked(void **state) {
    enum { GONE, SILENT, RESTS, SOURCES, KINDS };
    for (uint32_t kind = GONE; kind < KINDS; kind++) {
        struct world *world = seek_world(3, EHLO_NONE, kind == GONE ? SAY_RST : EHLO_TAKES, EHLO_NONE);
        struct path *path = world_path_record(world);
        path->timeouts.connect = 30000;
        if (kind == RESTS)
            world->journal.rests[0].endpoint_us[1] = world->now_us + 1000 * SECOND;
        if (kind == SOURCES) {
            path->endpoints[1].family = path->sources[1].family = 6;
            world->journal.rests[0].source_us[1] = world->now_us + 1000 * SECOND;
        }
        world_publish(world);
        uint64_t begin_us = world->now_us;
        uint32_t slot = requiretls(world);
        world_order(world, slot);
        for (bool ended = false; kind == SILENT && !ended;) {
            smtp_engine_poll(world->engine, 100, world->now_us);
            ended = end_connect(world, 2);
            if (!ended)
                world->now_us += world_step(world) ? 0 : SECOND / 100;
            assert_true(world->now_us < begin_us + SECOND);
        }
        world_until_answered(world, slot);
        assert_string_equal(world_outcome(world, slot), DEFERRED);
        assert_string_equal(world_text(world, slot), "REQUIRETLS support required, and no session with another host came about");
        assert_int_equal(world_at(world, slot)->reply.stage, STAGE_CONNECT);
        assert_in_range(world->now_us - begin_us, 0, 5 * SECOND);
        assert_null(strstr(world->commands, "MAIL"));
        /* Later it may be there. */
        world->script.ehlos[1] = EHLO_TAKES;
        world->journal.rests[0].endpoint_us[1] = world->journal.rests[0].source_us[1] = 0;
        world_run(world, 40 * SECOND);
        assert_string_equal(ask(world, requiretls(world)), DELIVERED);
        world_free(world);
    }
}

/* RFC 1870, 6152, 6531: the same for what else a message cannot do without. */
static void each_lack_leads_to_the_next_host(void **state) {
    static const struct {
        uint8_t flags;
        uint32_t size_bytes;
        const char *takes, *lacks, *answer;
    } cases[] = {
        {0, 5000, "250-mx.test\r\n250 SIZE 5000\r\n", "250-mx.test\r\n250 SIZE 4999\r\n", "LOCAL 552 5.3.4"},
        {0, 5000, "250-mx.test\r\n250 SIZE 0\r\n", "250-mx.test\r\n250 SIZE 1\r\n", "LOCAL 552 5.3.4"},
        {SLOT_BODY_8BIT, 0, "250-mx.test\r\n250 8BITMIME\r\n", EHLO_NONE, "LOCAL 554 5.6.3"},
        {SLOT_SMTPUTF8, 0, "250-mx.test\r\n250 SMTPUTF8\r\n", EHLO_NONE, "LOCAL 553 5.6.7"},
        {SLOT_REQUIRETLS, 0, EHLO_TAKES, EHLO_NONE, "LOCAL 550 5.7.30"},
        {SLOT_SMTPUTF8 | SLOT_REQUIRETLS, 0, "250-mx.test\r\n250-SMTPUTF8\r\n250 REQUIRETLS\r\n", EHLO_TAKES, "LOCAL 553 5.6.7"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (uint32_t takes = 0; takes <= 3; takes++) {
            struct world *world = seek_world(3, cases[i].lacks, cases[i].lacks, cases[i].lacks);
            if (takes < 3)
                world->script.ehlos[takes] = cases[i].takes;
            world_publish(world);
            uint32_t slot = world_slot(world, "b@example.test", "x\r\n", 0);
            world_at(world, slot)->flags = cases[i].flags;
            world_at(world, slot)->size_bytes = cases[i].size_bytes ? cases[i].size_bytes : 3;
            assert_string_equal(ask(world, slot), takes < 3 ? DELIVERED : cases[i].answer);
            assert_true(takes == 3 || world_at(world, slot)->reply.endpoint == takes);
            assert_int_equal(world->tcp.connects, takes < 3 ? takes + 1 : 3);
            world_free(world);
        }
    }
}

/* All recipients of the message. */
static void a_chain_goes_on_whole(void **state) {
    struct world *world = seek_world(2, EHLO_NONE, EHLO_TAKES, NULL);
    world_path_record(world)->max_recipients_per_transaction = 1;
    world_publish(world);
    uint32_t first = requiretls(world), second = requiretls(world), third = requiretls(world);
    world_chain(world, second, third);
    world_chain(world, first, second);
    world_chain(world, second, third); /* with the first one's pieces */
    assert_string_equal(ask(world, first), DELIVERED);
    assert_string_equal(world_outcome(world, second), DELIVERED);
    assert_string_equal(world_outcome(world, third), DELIVERED);
    assert_int_equal(world->tcp.connects, 2);
    assert_int_equal(count(world->commands, " REQUIRETLS|"), 3);
    world_free(world);
}

/* An ordinary order is not held up, and the first host's sessions are not given up, where another session is allowed. */
static void others_go_on_meanwhile(void **state) {
    struct world *world = seek_world(2, EHLO_NONE, SAY_EOF, NULL);
    world_cell(world)->order.sessions_allowed = 2;
    world->script.ehlos[1] = EHLO_TAKES;
    world_publish(world);
    uint32_t slot = requiretls(world);
    world_order(world, slot);
    smtp_engine_poll(world->engine, 100, world->now_us);
    for (uint32_t i = 0; i < 100 && world->tcp.connects < 2; i++)
        world_step(world);
    assert_int_equal(world->tcp.connects, 2); /* on its way to the second */
    uint32_t other = world_send(world, "c@example.test");
    smtp_engine_poll(world->engine, 100, world->now_us);
    assert_string_equal(world_outcome(world, other), "envelope sent");
    assert_string_equal(world_outcome(world, slot), "claimed");
    world_until_answered(world, slot);
    world_until_answered(world, other);
    assert_int_equal(world_at(world, other)->reply.endpoint, 0);
    assert_int_equal(world_at(world, slot)->reply.endpoint, 1);
    assert_null(strstr(world->commands, "QUIT"));
    world_free(world);
}

/* It costs no attempt when it is this side that ends. */
static void it_goes_back_when_no_session_may_be_opened(void **state) {
    enum { DRAINS, RETIRES, NONE_ALLOWED, KINDS };
    for (uint32_t kind = DRAINS; kind < KINDS; kind++) {
        struct world *world = seek_world(2, EHLO_NONE, EHLO_TAKES, NULL);
        world_cell(world)->order.connect_interval_us = 20 * SECOND;
        world_publish(world);
        uint32_t slot = requiretls(world);
        world_order(world, slot);
        world_run(world, SECOND);
        assert_string_equal(world_outcome(world, slot), "claimed");
        if (kind == DRAINS)
            smtp_engine_drain(world->engine, world->now_us);
        if (kind == RETIRES)
            world_retire(world);
        if (kind == NONE_ALLOWED) {
            world_cell(world)->order.sessions_allowed = 0;
            world_publish(world);
        }
        world_run(world, SECOND);
        assert_string_equal(world_outcome(world, slot), "RETURNED");
        world_run(world, 20 * SECOND);
        assert_int_equal(world->tcp.connects, 1);
        world_free(world);
    }
}

/* Connects keep their distance; who must wait for too long is deferred. */
static void the_limits_of_the_lane_hold(void **state) {
    for (uint32_t far = 0; far <= 1; far++) {
        struct world *world = seek_world(2, EHLO_NONE, EHLO_TAKES, NULL);
        world_cell(world)->order.connect_interval_us = (uint32_t)(far ? SEEK_WAIT_US + 30 * SECOND : 20 * SECOND);
        world_publish(world);
        uint64_t begin_us = world->now_us;
        uint32_t slot = requiretls(world);
        assert_string_equal(ask(world, slot), far ? DEFERRED : DELIVERED);
        assert_in_range(world->now_us - begin_us, far ? (uint64_t)SEEK_WAIT_US : 20 * SECOND, far ? SEEK_WAIT_US + SECOND : 21 * SECOND);
        assert_int_equal(world->tcp.connects, far ? 1 : 2);
        world_free(world);
    }
}

/* MAY, where a handshake fails: another host first, and that it fails passes (SMTP.md section 1). */
static void where_tls_fails_another_host_may_take_it(void **state) {
    for (uint32_t takes = 0; takes <= 1; takes++) {
        struct world *world = seek_world(2, EHLO_NONE, takes ? EHLO_TAKES : EHLO_NONE, NULL);
        world_path_record(world)->broken_tls_s = 100;
        world->script.handshake = FAKE_EXPIRED;
        world_publish(world);
        uint32_t slot = world_send(world, "b@example.test");
        world_until_answered(world, slot); /* in plain, to the first */
        assert_int_equal(world_at(world, slot)->reply.tls_version, 0);
        world->script.handshake = FAKE_VERIFIED;
        slot = requiretls(world);
        assert_string_equal(ask(world, slot), takes ? DELIVERED : "LOCAL 454 4.7.5");
        assert_int_equal(world_at(world, slot)->reply.tls_version, takes ? 13 : 0);
        world_free(world);
    }
}

/* More than are looked after at a time, each with its own need, and one session for all. */
static void many_that_seek_are_all_answered(void **state) {
    enum { ORDERS = 200 };
    struct world *world = seek_world(3, "250-mx.test\r\n250 REQUIRETLS\r\n", "250-mx.test\r\n250-SIZE 100\r\n250 SMTPUTF8\r\n",
                                     "250-mx.test\r\n250-SIZE 50\r\n250 8BITMIME\r\n");
    static const uint8_t flags[] = {SLOT_REQUIRETLS, SLOT_SMTPUTF8, SLOT_BODY_8BIT, 0, SLOT_BODY_8BIT | SLOT_SMTPUTF8};
    static const uint8_t endpoints[] = {0, 1, 2, 0};
    world_publish(world);
    uint32_t slots[ORDERS];
    world->strict = false;
    for (uint32_t i = 0; i < ORDERS; i++) {
        slots[i] = world_slot(world, "b@example.test", "x\r\n", 0);
        world_at(world, slots[i])->flags = flags[i % 5];
        world_at(world, slots[i])->size_bytes = i % 5 == 3 ? 200 : 3; /* larger than two of the three take */
        world_order(world, slots[i]);
    }
    for (uint32_t i = 0; i < ORDERS; i++) {
        world_until_answered(world, slots[i]);
        if (i % 5 == 4) /* whichever was asked first: 5.6.3 or 5.6.7 */
            assert_int_equal(strncmp(world_outcome(world, slots[i]), "LOCAL 55", 8), 0);
        else
            assert_string_equal(world_outcome(world, slots[i]), DELIVERED);
        assert_true(i % 5 == 4 || world_at(world, slots[i])->reply.endpoint == endpoints[i % 5]);
    }
    assert_in_range(world->tcp.connects, 3, 20);
    world_free(world);
}

/* A host that offers it at every second session is asked once an order: nothing goes round. */
static void each_host_is_asked_once(void **state) {
    struct world *world = seek_world(2, EHLO_NONE, EHLO_NONE, NULL);
    world_publish(world);
    uint32_t slot = requiretls(world);
    world_order(world, slot);
    for (uint32_t i = 0; i < 1000 && slot_word_state(slot_load(world_at(world, slot))) != SLOT_ANSWERED; i++) {
        /* Nothing is known, ever: only what the order itself has met counts. */
        struct lane *lane = lane_look((struct smtp_engine *)world->engine, 0, world->now_us);
        for (uint32_t j = 0; j < 2; j++)
            lane->endpoints[j].known_until_us = 0;
        world_step(world);
        world->now_us += SECOND / 100;
    }
    assert_string_equal(world_outcome(world, slot), NOT_TO_BE);
    assert_int_equal(world->tcp.connects, 2);
    world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requiretls_goes_on_to_the_host_that_offers_it),
        cmocka_unit_test(it_is_answered_when_every_host_is_known),
        cmocka_unit_test(it_is_deferred_while_a_host_cannot_be_asked),
        cmocka_unit_test(each_lack_leads_to_the_next_host),
        cmocka_unit_test(a_chain_goes_on_whole),
        cmocka_unit_test(others_go_on_meanwhile),
        cmocka_unit_test(it_goes_back_when_no_session_may_be_opened),
        cmocka_unit_test(the_limits_of_the_lane_hold),
        cmocka_unit_test(where_tls_fails_another_host_may_take_it),
        cmocka_unit_test(many_that_seek_are_all_answered),
        cmocka_unit_test(each_host_is_asked_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
