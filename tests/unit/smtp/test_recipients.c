/* test_recipients.c: chains: recipients that share a transaction, or go on in another one (RFC 5321 3.3, RFC 9422). */
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define EHLO_DATA     "250-mx.test\r\n250 PIPELINING\r\n"
#define EHLO_CHUNKING "250-mx.test\r\n250-PIPELINING\r\n250 CHUNKING\r\n"

enum { MEMBERS = 5 };

static struct world *chain_world(const char *ehlo) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world->script.ehlo = ehlo;
    world->script.keeps_sequence = true;
    return world;
}

/* Slots 0 to MEMBERS - 1: one chain. */
static void make_chain(struct world *world, const char *const domains[MEMBERS]) {
    for (uint32_t i = 0; i < MEMBERS; i++) {
        char recipient[64];
        snprintf(recipient, sizeof(recipient), "r%u@%s", i, domains ? domains[i] : "example.test");
        uint32_t slot = world_slot(world, recipient, "x\r\n", 0);
        if (i)
            world_chain(world, slot - 1, slot);
    }
}

static uint32_t occurrences(const char *text, const char *part) {
    uint32_t count = 0;
    for (; (text = strstr(text, part)); text++)
        count++;
    return count;
}

/* SMTP.md: 452, or 552, after accepted ones: send to those; the others have that reply, and control gives them another transaction. */
static void those_too_many_keep_their_reply(void **state) {
    static const char *const ehlos[] = {EHLO_DATA, EHLO_CHUNKING, "250 mx.test\r\n"};
    for (size_t i = 0; i < sizeof(ehlos) / sizeof(ehlos[0]); i++) {
        struct world *world = chain_world(ehlos[i]);
        world->script.rcpts[1] = "452 4.5.3 too many\r\n";
        world->script.rcpts[3] = "552 5.5.3 too many\r\n";
        world_publish(world);
        make_chain(world, NULL);
        world_order(world, 0);
        world_until_answered(world, 0);
        assert_string_equal(world_outcome(world, 0), "REPLIED FINAL 250 2.0.0");
        assert_string_equal(world_outcome(world, 1), "REPLIED RCPT 452 4.5.3");
        assert_string_equal(world_outcome(world, 2), "REPLIED FINAL 250 2.0.0");
        assert_string_equal(world_outcome(world, 3), "REPLIED RCPT 552 5.5.3");
        assert_string_equal(world_outcome(world, 4), "REPLIED FINAL 250 2.0.0");
        assert_int_equal(world->delivery_count, 3);
        world_free(world);
    }
}

/* A limit that is known beforehand is never met: the rest of the chain is the next transaction, with the same message. */
static void a_chain_goes_on_in_another_transaction(void **state) {
    static const char *const ehlos[] = {"250-mx.test\r\n250-PIPELINING\r\n250 LIMITS RCPTMAX=2\r\n",
                                        "250-mx.test\r\n250-CHUNKING\r\n250-PIPELINING\r\n250 LIMITS RCPTMAX=2\r\n", EHLO_CHUNKING};
    for (size_t i = 0; i < sizeof(ehlos) / sizeof(ehlos[0]); i++) {
        struct world *world = chain_world(ehlos[i]);
        world_path_record(world)->pipelined_transactions = 4;
        world_path_record(world)->max_recipients_per_transaction = i == 2 ? 2 : 0;
        world_publish(world);
        make_chain(world, NULL);
        world_order(world, 0);
        world_until_answered(world, 0);
        for (uint32_t j = 0; j < MEMBERS; j++)
            assert_string_equal(world_outcome(world, j), "REPLIED FINAL 250 2.0.0");
        assert_int_equal(occurrences(world->commands, "MAIL FROM"), 3);
        assert_int_equal(world->delivery_count, MEMBERS);
        assert_int_equal(world->tcp.connects, 1);
        assert_int_equal(world_cell(world)->worker.orders_held, 0);
        world_free(world);
    }
}

/* The rest of a chain was not attempted when the session of its beginning is lost: another one takes it. */
static void the_rest_of_a_chain_survives_the_session(void **state) {
    struct world *world = chain_world(EHLO_DATA);
    world_path_record(world)->max_recipients_per_transaction = 2;
    world->script.data = SAY_EOF;
    world_publish(world);
    make_chain(world, NULL);
    world_order(world, 0);
    for (int i = 0; i < 100 && !strstr(world->commands, "DATA"); i++)
        world_step(world);
    world->script.data = script_good.data;
    world_until_answered(world, 0);
    assert_string_equal(world_outcome(world, 0), "LOST DATA");
    assert_string_equal(world_outcome(world, 1), "LOST DATA");
    for (uint32_t j = 2; j < MEMBERS; j++)
        assert_string_equal(world_outcome(world, j), "REPLIED FINAL 250 2.0.0");
    assert_int_equal(world->tcp.connects, 2);
    world_free(world);
}

/* RFC 9422 4.3: RCPTDOMAINMAX counts the domains of a session. */
static void domains_beyond_the_limit_go_to_another_session(void **state) {
    static const char *const domains[MEMBERS] = {"a.test", "A.test", "b.test", "b.test", "a.test"};
    struct world *world = chain_world("250-mx.test\r\n250-PIPELINING\r\n250 LIMITS RCPTDOMAINMAX=1\r\n");
    world_publish(world);
    make_chain(world, domains);
    world_order(world, 0);
    world_until_answered(world, 0);
    for (uint32_t j = 0; j < MEMBERS; j++)
        assert_string_equal(world_outcome(world, j), "REPLIED FINAL 250 2.0.0");
    assert_int_equal(world->tcp.connects, 3);
    world_free(world);
}

/* include/bypost/README.md "Chains": a member may be withdrawn by itself. */
static void a_withdrawn_member_is_left_out(void **state) {
    for (uint32_t out = 1; out < MEMBERS; out++) {
        struct world *world = chain_world(EHLO_CHUNKING);
        world_publish(world);
        make_chain(world, NULL);
        for (uint32_t i = 0; i < MEMBERS; i++)
            slot_queue(world_at(world, i));
        assert_true(slot_withdraw(world_at(world, out), slot_word_generation(slot_load(world_at(world, out)))));
        world_order(world, 0);
        world_until_answered(world, 0);
        for (uint32_t j = 0; j < MEMBERS; j++)
            assert_string_equal(world_outcome(world, j), j == out ? "withdrawn" : "REPLIED FINAL 250 2.0.0");
        assert_int_equal(world->delivery_count, MEMBERS - 1);
        world_free(world);
    }
}

static void each_recipient_byte_by_byte(void **state) {
    for (int chunking = 0; chunking <= 1; chunking++) {
        struct world *world = chain_world(chunking ? EHLO_CHUNKING : EHLO_DATA);
        world->script.byte_by_byte = true;
        for (uint32_t i = 0; i < 4; i++)
            world->script.rcpts[i] = "550 5.1.1 no\r\n";
        world->script.rcpt = "550-5.1.1 no\r\n550 5.1.1 really\r\n";
        world_publish(world);
        make_chain(world, NULL);
        world_order(world, 0);
        world_until_answered(world, 0);
        for (uint32_t j = 0; j < MEMBERS; j++)
            assert_string_equal(world_outcome(world, j), "REPLIED RCPT 550 5.1.1");
        assert_string_equal(world_text(world, 4), "no really");
        assert_int_equal(world->delivery_count, 0);
        world_free(world);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(those_too_many_keep_their_reply),          cmocka_unit_test(a_chain_goes_on_in_another_transaction),
        cmocka_unit_test(the_rest_of_a_chain_survives_the_session), cmocka_unit_test(domains_beyond_the_limit_go_to_another_session),
        cmocka_unit_test(a_withdrawn_member_is_left_out),           cmocka_unit_test(each_recipient_byte_by_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
