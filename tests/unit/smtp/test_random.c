/* test_random.c: servers that say anything at any moment, from a seed: nothing is read where it may not be (under the sanitizers), each
 * order is answered once, and what counts as delivered was read by a server up to its dot. */
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { SEEDS = 400, ORDERS = 40, PASSES = 250 };

static uint64_t random_state;

static uint32_t draw(uint32_t below) {
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)((random_state * 0x2545f4914f6cdd1dULL >> 32) % below);
}

static const char *any_reply(void) {
    static const char *const replies[] = {STALL,
                                          SAY_EOF,
                                          SAY_RST,
                                          "2",
                                          "250 ok\r\n",
                                          "250 ok\r\n250 again\r\n",
                                          "250-more\r\n",
                                          "250-a\r\n250",
                                          "354 go\r\n",
                                          "354 go\r\n250 early\r\n",
                                          "354 go\r\n550 no\r\n",
                                          "354 go\r\n221 bye\r\n",
                                          "421 4.3.2 down\r\n",
                                          "450 4.2.0 later\r\n",
                                          "452 4.5.3 many\r\n",
                                          "550 5.1.1 no\r\n",
                                          "554-5.7.1 a\r\n554 5.7.1 b\r\n",
                                          "221 bye\r\n",
                                          "999 what\r\n",
                                          "hello\r\n",
                                          "\r\n",
                                          "250 ok\n",
                                          "250\r\n",
                                          "334 VXNlcm5hbWU6\r\n",
                                          "250-x\r\n250-SIZE 10\r\n250 PIPELINING\r\n",
                                          "250-x\r\n250 LIMITS MAILMAX=1 RCPTMAX=1\r\n"};
    return replies[draw(sizeof(replies) / sizeof(replies[0]))];
}

static void change_script(struct script *script) {
    const char **places[] = {&script->banner,   &script->ehlo,     &script->helo,  &script->mail, &script->rcpt,
                             &script->data,     &script->body,     &script->final, &script->rset, &script->quit,
                             &script->rcpts[0], &script->rcpts[1], &script->idle};
    *script = script_good;
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        if (draw(6) == 0)
            *places[i] = any_reply();
    }
    if (draw(3) == 0)
        script->ehlo = "250 mx.test\r\n";
    script->byte_by_byte = draw(2);
    script->keeps_open = draw(4) == 0;
    script->final_unacknowledged = draw(4) == 0;
    script->never_acknowledges_body = draw(6) == 0;
    script->body_bytes = draw(30);
}

static void play(uint64_t seed) {
    struct world *world = world_new();
    uint32_t sent = 0, answered = 0, delivered = 0;
    random_state = 0x9e3779b97f4a7c15ULL * (seed + 1);
    world_path(world, 2, 4, draw(8));
    world_publish(world);
    for (uint32_t pass = 0; pass < PASSES; pass++) {
        if (draw(3) == 0)
            change_script(&world->script);
        if (draw(4) == 0)
            world->tcp.send_refusals = draw(4);
        world->tcp.window = draw(3) ? 0 : 10 + draw(200);
        world->tcp.acknowledge_ranges = draw(3) ? 0 : 1;
        world->tcp.reaps_later = draw(4) == 0;
        if (sent < ORDERS && draw(3) == 0) {
            uint32_t slot = world_slot(world, "b@example.test", ".x\r\n.\r\ny\r\n", 1 + draw(5)), first = slot;
            world_at(world, slot)->flags = SLOT_HAS_LEADING_DOTS;
            sent++;
            for (uint32_t more = draw(3); more > 0 && sent < ORDERS; more--, sent++) {
                uint32_t next = world_slot(world, "c@example.test", ".x\r\n.\r\ny\r\n", 5);
                world_chain(world, slot, next);
                slot = next;
            }
            world_order(world, first);
        }
        world_step(world);
        world->now_us += draw(8) ? draw(2000) : draw(400) * SECOND;
    }
    world->tcp.reaps_later = false;
    world->tcp.send_refusals = 0;
    for (int i = 0; i < 4; i++)
        world_run(world, 900 * SECOND);
    for (uint32_t slot = 0; slot < sent; slot++) {
        const struct slot_reply *reply = &world_at(world, slot)->reply;
        if (slot_word_state(slot_load(world_at(world, slot))) != SLOT_ANSWERED)
            fail_msg("seed %lu: slot %u is %s", (unsigned long)seed, slot, world_outcome(world, slot));
        answered++;
        if (reply->outcome == OUTCOME_REPLIED && reply->code / 100 == 2) {
            assert_int_equal(reply->stage, STAGE_FINAL);
            delivered++;
        }
    }
    assert_int_equal(world->outcomes, answered);
    assert_true(delivered == 0 || world->mails > 0);
    assert_int_equal(world_cell(world)->worker.orders_held, 0);
    assert_int_equal(COUNTED(world, messages_delivered), delivered);
    smtp_engine_drain(world->engine, world->now_us);
    world_run(world, 60 * SECOND);
    assert_true(smtp_engine_idle(world->engine));
    assert_int_equal(COUNTED(world, wild_values), 0);
    world_free(world);
}

static void servers_that_say_anything(void **state) {
    for (uint64_t seed = 0; seed < SEEDS; seed++)
        play(seed);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(servers_that_say_anything)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
