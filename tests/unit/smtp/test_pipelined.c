/* test_pipelined.c: path.pipelined_transactions: transactions that begin before the verdict on the one before, under BDAT and under DATA.
 */
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define EHLO_CHUNKING "250-mx.test\r\n250-PIPELINING\r\n250 CHUNKING\r\n"
#define EHLO_DATA     "250-mx.test\r\n250 PIPELINING\r\n"

enum { ORDERS = 4 };
static const char *const recipients[ORDERS] = {"r0@example.test", "r1@example.test", "r2@example.test", "r3@example.test"};

static struct world *pipelined_world(const char *ehlo, uint32_t transactions) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world->script.ehlo = ehlo;
    world->script.keeps_sequence = true;
    world_path_record(world)->pipelined_transactions = transactions;
    world_publish(world);
    return world;
}

static void send_all(struct world *world) {
    for (uint32_t i = 0; i < ORDERS; i++)
        world_send(world, recipients[i]);
    for (uint32_t i = 0; i < ORDERS; i++)
        world_until_answered(world, i);
}

static uint32_t occurrences(const char *text, const char *part) {
    uint32_t count = 0;
    for (; (text = strstr(text, part)); text++)
        count++;
    return count;
}

static void several_leave_in_one_flight(void **state) {
    struct world *world = pipelined_world(EHLO_CHUNKING, 4);
    send_all(world);
    for (uint32_t i = 0; i < ORDERS; i++) {
        assert_string_equal(world_outcome(world, i), "REPLIED FINAL 250 2.0.0");
        assert_string_equal(world->deliveries[i].recipient, recipients[i]);
    }
    assert_int_equal(world->flights, 2);
    assert_int_equal(world->delivery_count, ORDERS);
    assert_int_equal(world->tcp.connects, 1);
    world_free(world);
}

/* Where several are on their way nobody knows yet how the one before ends, and some servers keep a transaction whose chunk was refused:
 * then MAIL would be refused and the next message go out in the name of the last one's sender. RSET (RFC 3030 4.2) stands between. */
static void rset_stands_between_transactions_on_their_way(void **state) {
    for (int keeps = 0; keeps <= 1; keeps++) {
        struct world *world = pipelined_world(EHLO_CHUNKING, 4);
        world->script.keeps_refused = keeps;
        world->script.rcpt = "550 5.1.1 no\r\n";
        send_all(world);
        for (uint32_t i = 0; i < ORDERS; i++)
            assert_string_equal(world_outcome(world, i), "REPLIED RCPT 550 5.1.1");
        assert_int_equal(occurrences(world->commands, "RSET|MAIL"), ORDERS - 1);
        assert_int_equal(world->tcp.connects, 1);
        world_free(world);
    }
    struct world *world = pipelined_world(EHLO_CHUNKING, 1);
    send_all(world);
    assert_null(strstr(world->commands, "RSET"));
    world_free(world);
}

/* RFC 2920 3.1: DATA is last in a group, so that one message goes behind the end of the one before. */
static void under_data_the_next_envelope_goes_with_the_end_of_the_body(void **state) {
    struct world *world = pipelined_world(EHLO_DATA, 8);
    send_all(world);
    for (uint32_t i = 0; i < ORDERS; i++)
        assert_string_equal(world_outcome(world, i), "REPLIED FINAL 250 2.0.0");
    assert_int_equal(world->tcp.connects, 1);
    assert_int_equal(world->delivery_count, ORDERS);
    assert_int_equal(occurrences(world->commands, "RSET"), 0);
    world_free(world);
}

static void no_more_are_on_their_way_than_the_path_says(void **state) {
    for (uint32_t transactions = 1; transactions <= 5; transactions++) {
        struct world *world = pipelined_world(EHLO_CHUNKING, transactions);
        world->script.final = STALL;
        for (uint32_t i = 0; i < ORDERS; i++)
            world_send(world, recipients[i]);
        world_settle(world);
        assert_int_equal(occurrences(world->commands, "MAIL"), transactions < ORDERS ? transactions : ORDERS);
        assert_int_equal(world_cell(world)->worker.ready_capacity, transactions + 1);
        world_free(world);
    }
}

/* MAILMAX (RFC 9422) and max_deliveries_per_connection hold for them too. */
static void a_connection_takes_no_more_than_its_limit(void **state) {
    for (int own = 0; own <= 1; own++) {
        struct world *world =
            pipelined_world(own ? EHLO_CHUNKING : "250-mx.test\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 LIMITS MAILMAX=3\r\n", 8);
        send_all(world);
        for (uint32_t i = 0; i < ORDERS; i++)
            assert_string_equal(world_outcome(world, i), "REPLIED FINAL 250 2.0.0");
        assert_int_equal(world->tcp.connects, own ? 1 : 2);
        world_free(world);
    }
}

static enum place fault_place;
static uint32_t fault_at;
static const char *fault_reply;
static uint32_t seen;

static const char *fault(struct world *world, enum place place, const char *reply, bool *stores) {
    if (place != fault_place || seen++ != fault_at)
        return reply;
    *stores = false;
    return fault_reply;
}

/* The second of four goes wrong: what becomes of each. A lost session leaves those uncertain whose bodies left whole. */
static void one_that_goes_wrong_touches_no_other(void **state) {
    static const struct {
        enum place place;
        const char *reply, *expected[ORDERS];
    } cases[] = {
        {PLACE_MAIL,
         "550 5.7.1 no\r\n",
         {"REPLIED FINAL 250 2.0.0", "REPLIED MAIL 550 5.7.1", "REPLIED FINAL 250 2.0.0", "REPLIED FINAL 250 2.0.0"}},
        {PLACE_RCPT,
         "550 5.1.1 no\r\n",
         {"REPLIED FINAL 250 2.0.0", "REPLIED RCPT 550 5.1.1", "REPLIED FINAL 250 2.0.0", "REPLIED FINAL 250 2.0.0"}},
        {PLACE_FINAL,
         "554 5.7.1 no\r\n",
         {"REPLIED FINAL 250 2.0.0", "REPLIED FINAL 554 5.7.1", "REPLIED FINAL 250 2.0.0", "REPLIED FINAL 250 2.0.0"}},
        {PLACE_MAIL, SAY_EOF, {"REPLIED FINAL 250 2.0.0", "UNCERTAIN MAIL", "UNCERTAIN FINAL", "UNCERTAIN FINAL"}},
        {PLACE_RCPT, SAY_RST, {"REPLIED FINAL 250 2.0.0", "UNCERTAIN RCPT", "UNCERTAIN FINAL", "UNCERTAIN FINAL"}},
        {PLACE_FINAL, "garbage\r\n", {"REPLIED FINAL 250 2.0.0", "UNCERTAIN FINAL", "UNCERTAIN FINAL", "UNCERTAIN FINAL"}},
        {PLACE_FINAL, STALL, {"REPLIED FINAL 250 2.0.0", "UNCERTAIN FINAL", "UNCERTAIN FINAL", "UNCERTAIN FINAL"}},
        {PLACE_RSET, "500 what\r\n", {"REPLIED FINAL 250 2.0.0", "UNCERTAIN FINAL", "UNCERTAIN FINAL", "UNCERTAIN FINAL"}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int byte_by_byte = 0; byte_by_byte <= 1; byte_by_byte++) {
            struct world *world = pipelined_world(EHLO_CHUNKING, 8);
            world->script.byte_by_byte = byte_by_byte;
            world->on_reply = fault;
            fault_place = cases[i].place;
            fault_at = cases[i].place == PLACE_RSET ? 0 : 1;
            fault_reply = cases[i].reply;
            seen = 0;
            send_all(world);
            for (uint32_t j = 0; j < ORDERS; j++) {
                if (strcmp(world_outcome(world, j), cases[i].expected[j]) != 0)
                    fail_msg("case %zu, order %u: expected %s, got %s", i, j, cases[i].expected[j], world_outcome(world, j));
            }
            world_free(world);
        }
    }
}

/* 421 ends the channel (RFC 5321 3.8): what stands behind it was not begun, also where it had left. */
static void behind_421_nothing_was_attempted(void **state) {
    static const enum place places[] = {PLACE_MAIL, PLACE_RCPT, PLACE_FINAL};
    static const char *const stages[] = {"REPLIED MAIL 421 4.3.2", "REPLIED RCPT 421 4.3.2", "REPLIED FINAL 421 4.3.2"};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        struct world *world = pipelined_world(EHLO_CHUNKING, 8);
        world->on_reply = fault;
        fault_place = places[i];
        fault_at = 1;
        fault_reply = "421 4.3.2 down\r\n";
        seen = 0;
        send_all(world);
        assert_string_equal(world_outcome(world, 0), "REPLIED FINAL 250 2.0.0");
        assert_string_equal(world_outcome(world, 1), stages[i]);
        assert_string_equal(world_outcome(world, 2), "RETURNED");
        assert_string_equal(world_outcome(world, 3), "RETURNED");
        assert_int_equal(world->delivery_count, 1);
        world_free(world);
    }
}

/* Those whose bodies had not left when the session was lost cost no attempt. */
static void what_had_not_left_is_returned(void **state) {
    struct world *world = pipelined_world(EHLO_CHUNKING, 8);
    world->tcp.window = 100; /* about one message */
    world->on_reply = fault;
    fault_place = PLACE_MAIL;
    fault_at = 0;
    fault_reply = SAY_RST;
    seen = 0;
    send_all(world);
    assert_string_equal(world_outcome(world, 2), "RETURNED");
    assert_string_equal(world_outcome(world, 3), "RETURNED");
    assert_int_equal(COUNTED(world, orders_returned), 2 + (strcmp(world_outcome(world, 1), "RETURNED") == 0));
    world_free(world);
}

/* The verdict's time begins when the server has the whole message, and what trickles behind it does not put it off. */
static void a_trickle_behind_a_message_does_not_put_its_verdict_off(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world->script.ehlo = EHLO_CHUNKING;
    world_path_record(world)->pipelined_transactions = 2;
    world_path_record(world)->timeouts.block = 10000;
    world_path_record(world)->timeouts.final = 20000;
    world_publish(world);
    world->script.final = STALL;
    world->script.never_acknowledges_body = true;
    uint32_t first = world_send(world, recipients[0]);
    world_settle(world);
    uint32_t second = world_slot(world, recipients[1], "Subject: y\r\n\r\nbehind it, in pieces of a byte each\r\n", 1);
    world_order(world, second);
    world_settle(world);
    assert_string_equal(world_outcome(world, first), "body sent");
    assert_string_equal(world_outcome(world, second), "body sent");
    world->tcp.acknowledge_ranges = 1;
    uint64_t since_us = world->now_us;
    while (slot_word_state(slot_load(world_at(world, first))) != SLOT_ANSWERED && world->now_us < since_us + 200 * SECOND) {
        fake_acknowledge(&world->tcp.conns[0], world->now_us);
        world_run(world, 4 * SECOND);
    }
    assert_string_equal(world_outcome(world, first), "UNCERTAIN FINAL");
    assert_true(world->now_us - since_us < 60 * SECOND);
    world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(several_leave_in_one_flight),
        cmocka_unit_test(rset_stands_between_transactions_on_their_way),
        cmocka_unit_test(under_data_the_next_envelope_goes_with_the_end_of_the_body),
        cmocka_unit_test(no_more_are_on_their_way_than_the_path_says),
        cmocka_unit_test(a_connection_takes_no_more_than_its_limit),
        cmocka_unit_test(one_that_goes_wrong_touches_no_other),
        cmocka_unit_test(behind_421_nothing_was_attempted),
        cmocka_unit_test(what_had_not_left_is_returned),
        cmocka_unit_test(a_trickle_behind_a_message_does_not_put_its_verdict_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
