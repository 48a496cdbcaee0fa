/* test_chunking.c: BDAT in the place of DATA (RFC 3030): what is said, in how many round trips, and what becomes of each refusal. */
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define EHLO_CHUNKING "250-mx.test\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 8BITMIME\r\n"
#define EHLO_LONE     "250-mx.test\r\n250 CHUNKING\r\n"

static char large_body[200 * 1024];

static struct world *chunking_world(const char *ehlo) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world->script.ehlo = ehlo;
    world->script.keeps_sequence = true;
    return world;
}

/* RFC 3030 section 2 with RFC 2920: command, size and bytes leave together; dots stay as they are. */
static void a_message_is_one_flight(void **state) {
    static const char body[] = ".a\r\n..\r\n.\r\nb\r\n";
    for (uint32_t piece_bytes = 1; piece_bytes < sizeof(body); piece_bytes += 3) {
        struct world *world = chunking_world(EHLO_CHUNKING);
        world_publish(world);
        uint32_t slot = world_slot(world, "b@example.test", body, piece_bytes);
        world_at(world, slot)->flags = SLOT_HAS_LEADING_DOTS | SLOT_BODY_8BIT;
        world->watch_slot = slot;
        world->watch_body_bytes = sizeof(body) - 1;
        world_order(world, slot);
        world_until_answered(world, slot);
        assert_string_equal(world_outcome(world, slot), "REPLIED FINAL 250 2.0.0");
        assert_string_equal(world->commands,
                            "EHLO out.sender.test|MAIL FROM:<a@sender.test> BODY=8BITMIME|RCPT TO:<b@example.test>|BDAT 14 LAST|");
        assert_string_equal(world->mail[0], body);
        assert_int_equal(world->flights, 2);
        assert_int_equal(world->tcp.sends, 2); /* one call for all of it, so that TLS makes one record */
        assert_int_equal(world->watched_bytes, sizeof(body) - 1);
        world_free(world);
    }
}

static void without_pipelining_it_still_saves_a_step(void **state) {
    struct world *world = chunking_world(EHLO_LONE);
    world_publish(world);
    uint32_t slot = world_send(world, "b@example.test");
    world_until_answered(world, slot);
    assert_string_equal(world_outcome(world, slot), "REPLIED FINAL 250 2.0.0");
    assert_string_equal(world->commands, "EHLO out.sender.test|MAIL FROM:<a@sender.test>|RCPT TO:<b@example.test>|BDAT 21 LAST|");
    assert_int_equal(world->flights, 4);
    world_free(world);
}

static void a_path_may_forbid_it(void **state) {
    struct world *world = chunking_world(EHLO_CHUNKING);
    world_path_record(world)->flags = PATH_NO_CHUNKING;
    world_publish(world);
    world_until_answered(world, world_send(world, "b@example.test"));
    assert_null(strstr(world->commands, "BDAT"));
    assert_non_null(strstr(world->commands, "DATA|"));
    world_free(world);
}

static void an_empty_message_is_a_chunk_of_nothing(void **state) {
    struct world *world = chunking_world(EHLO_CHUNKING);
    world_publish(world);
    uint32_t slot = world_slot(world, "b@example.test", "", 0);
    world_order(world, slot);
    world_until_answered(world, slot);
    assert_string_equal(world_outcome(world, slot), "REPLIED FINAL 250 2.0.0");
    assert_non_null(strstr(world->commands, "BDAT 0 LAST|"));
    world_free(world);
}

/* The first 64 KB go with the envelope, the rest when somebody is there to get it. */
static void a_large_message_is_two_chunks(void **state) {
    for (int lone = 0; lone <= 1; lone++) {
        struct world *world = chunking_world(lone ? EHLO_LONE : EHLO_CHUNKING);
        char expected[64];
        world->tcp.window = 20000;
        world_publish(world);
        uint32_t slot = world_slot(world, "b@example.test", large_body, 7000);
        world->watch_slot = slot;
        world->watch_body_bytes = sizeof(large_body) - 1;
        world_order(world, slot);
        world_until_answered(world, slot);
        assert_string_equal(world_outcome(world, slot), "REPLIED FINAL 250 2.0.0");
        snprintf(expected, sizeof(expected), lone ? "BDAT %zu LAST|" : "BDAT 65536|BDAT %zu LAST|",
                 sizeof(large_body) - 1 - (lone ? 0 : 65536));
        assert_non_null(strstr(world->commands, expected));
        assert_int_equal(world->body_bytes_received, sizeof(large_body) - 1);
        world_free(world);
    }
}

static void nobody_to_get_it_costs_one_chunk_and_rset(void **state) {
    struct world *world = chunking_world(EHLO_CHUNKING);
    world->script.rcpt = "550 5.1.1 unknown\r\n";
    world->script.keeps_refused = true;
    world_publish(world);
    uint32_t slot = world_slot(world, "b@example.test", large_body, 7000);
    world_order(world, slot);
    world_until_answered(world, slot);
    world_settle(world);
    assert_string_equal(world_outcome(world, slot), "REPLIED RCPT 550 5.1.1");
    assert_int_equal(world->body_bytes_received, 65536);
    assert_non_null(strstr(world->commands, "BDAT 65536|RSET|"));
    world->script.rcpt = script_good.rcpt;
    uint32_t next = world_send(world, "c@example.test");
    world_until_answered(world, next);
    assert_string_equal(world_outcome(world, next), "REPLIED FINAL 250 2.0.0");
    assert_int_equal(world->tcp.connects, 1);
    world_free(world);
}

/* RFC 3030 4.2: a chunk that failed is followed by RSET, and the verdict is for those that were accepted. */
static void refusals_have_their_recipients(void **state) {
    static const struct {
        const char *mail, *rcpt0, *final, *first, *second;
        bool rset;
    } cases[] = {
        {"451 4.3.0 later\r\n", NULL, NULL, "REPLIED MAIL 451 4.3.0", "REPLIED MAIL 451 4.3.0", true},
        {NULL, "550 5.1.1 no\r\n", NULL, "REPLIED RCPT 550 5.1.1", "REPLIED FINAL 250 2.0.0", false},
        {NULL, "452 4.5.3 many\r\n", "554 5.7.1 spam\r\n", "REPLIED RCPT 452 4.5.3", "REPLIED FINAL 554 5.7.1", true},
        {NULL, NULL, "421 4.7.0 bye\r\n", "REPLIED FINAL 421 4.7.0", "REPLIED FINAL 421 4.7.0", false},
        {NULL, NULL, SAY_EOF, "UNCERTAIN FINAL", "UNCERTAIN FINAL", false},
        {NULL, NULL, STALL, "UNCERTAIN FINAL", "UNCERTAIN FINAL", false},
        {NULL, NULL, "354 go on\r\n", "UNCERTAIN FINAL", "UNCERTAIN FINAL", false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int byte_by_byte = 0; byte_by_byte <= 1; byte_by_byte++) {
            struct world *world = chunking_world(EHLO_CHUNKING);
            world->script.byte_by_byte = byte_by_byte;
            world->script.mail = cases[i].mail ? cases[i].mail : world->script.mail;
            world->script.rcpts[0] = cases[i].rcpt0;
            world->script.final = cases[i].mail || cases[i].rcpt0 ? cases[i].final ? cases[i].final : script_good.final : cases[i].final;
            world_publish(world);
            uint32_t first = world_slot(world, "b@example.test", "x\r\n", 0), second = world_slot(world, "c@example.test", "x\r\n", 0);
            world_chain(world, first, second);
            world_order(world, first);
            world_until_answered(world, first);
            world_settle(world);
            assert_string_equal(world_outcome(world, first), cases[i].first);
            assert_string_equal(world_outcome(world, second), cases[i].second);
            assert_int_equal(strstr(world->commands, "RSET|") != NULL, cases[i].rset);
            world_free(world);
        }
    }
}

/* What comes while the body is on its way: a refusal explains the end, anything else is confused; what is left of the body stays here. */
static void early_verdicts(void **state) {
    static const struct {
        const char *body, *chunk, *expected;
    } cases[] = {
        {"552 5.3.4 too big\r\n", "250 ok\r\n", "REPLIED BODY 552 5.3.4"},
        {NULL, "552 5.3.4 too big\r\n", "REPLIED BODY 552 5.3.4"}, /* the first chunk failed: no further one is sent to its end */
        {NULL, "421 4.3.2 down\r\n", "REPLIED BODY 421 4.3.2"},
        {NULL, "354 what\r\n", "LOST BODY"},
        {SAY_RST, "250 ok\r\n", "LOST BODY"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world *world = chunking_world(EHLO_CHUNKING);
        world->script.keeps_sequence = false;
        world->script.body = cases[i].body;
        world->script.body_bytes = 2000;
        world->script.chunk = cases[i].chunk;
        world->tcp.window = 5000;
        world_publish(world);
        uint32_t slot = world_slot(world, "b@example.test", large_body, 1000);
        world_order(world, slot);
        world_until_answered(world, slot);
        assert_string_equal(world_outcome(world, slot), cases[i].expected);
        assert_int_equal(world->mails, 0);
        world_free(world);
    }
}

/* Control writes in what is not its own: the bytes would no longer be as many as were said. */
static void a_table_that_changed_ends_the_session(void **state) {
    struct world *world = chunking_world(EHLO_LONE);
    world_publish(world);
    uint32_t slot = world_slot(world, "b@example.test", "0123456789\r\n", 6);
    world_order(world, slot);
    struct arena_piece *pieces = (struct arena_piece *)(world->arena + world_at(world, slot)->pieces);
    pieces[1].length = 3;
    world_until_answered(world, slot);
    assert_string_equal(world_outcome(world, slot), "LOST BODY");
    assert_int_equal(COUNTED(world, wild_values), 1);
    assert_int_equal(world->mails, 0);
    world_free(world);
}

/* A FIN that acknowledges nothing of the flight: the server had closed before any of it came, as idle servers do. */
static void a_flight_that_crossed_the_end_is_not_uncertain(void **state) {
    for (int had_it = 0; had_it <= 1; had_it++) {
        struct world *world = chunking_world(EHLO_CHUNKING);
        world_publish(world);
        world_until_answered(world, world_send(world, "a@example.test"));
        world_cell(world)->order.demand = 1;
        uint32_t slot = world_send(world, "b@example.test");
        struct tcp_conn *conn = &world->tcp.conns[0];
        smtp_engine_poll(world->engine, 100, world->now_us);
        assert_true(conn->wire_length > 0);
        if (had_it)
            fake_acknowledge(conn, world->now_us);
        conn->wire_length = 0;
        fake_peer_fin(conn, world->now_us);
        world_settle(world);
        assert_string_equal(world_outcome(world, slot), had_it ? "UNCERTAIN MAIL" : "LOST MAIL");
        world_free(world);
    }
}

int main(void) {
    for (size_t i = 0; i < sizeof(large_body) - 1; i++)
        large_body[i] = i % 64 == 62 ? '\r' : i % 64 == 63 ? '\n' : 'x';
    memcpy(large_body + sizeof(large_body) - 3, "\r\n", 2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_is_one_flight),
        cmocka_unit_test(without_pipelining_it_still_saves_a_step),
        cmocka_unit_test(a_path_may_forbid_it),
        cmocka_unit_test(an_empty_message_is_a_chunk_of_nothing),
        cmocka_unit_test(a_large_message_is_two_chunks),
        cmocka_unit_test(nobody_to_get_it_costs_one_chunk_and_rset),
        cmocka_unit_test(refusals_have_their_recipients),
        cmocka_unit_test(early_verdicts),
        cmocka_unit_test(a_table_that_changed_ends_the_session),
        cmocka_unit_test(a_flight_that_crossed_the_end_is_not_uncertain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
