/* test_random.c: servers that say anything at any moment, from a seed: nothing is read where it may not be (under the sanitizers), each
 * order is answered once, and what counts as delivered was read by a server up to its dot. */
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SEEDS = 150, ORDERS = 40, PASSES = 250 };

/* SEEDS=N in the environment: more than by itself. */
static uint64_t seeds_of(uint64_t usual) {
    const char *more = getenv("SEEDS");
    return more ? strtoull(more, NULL, 10) : usual;
}

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
    for (uint64_t seed = 0, seeds = seeds_of(SEEDS); seed < seeds; seed++)
        play(seed);
}

/* ---- servers that keep their word, with faults at every place ---- */

enum { MODEL_SEEDS = 400, MODEL_ORDERS = 60, MODEL_PASSES = 120 };

struct model {
    uint32_t fault_in; /* one reply of so many is a fault */
};
static struct model model;

/* Replies that a server may give in the place of a good one; the message is stored where it says so, or in silence at the end. */
static const char *fault(struct world *world, enum place place, const char *reply, bool *stores) {
    static const char *const faults[] = {
        "451 4.3.0 later\r\n", "550 5.1.1 no\r\n", "452 4.5.3 many\r\n", "421 4.3.2 down\r\n", SAY_EOF, SAY_RST, STALL,
        "what?\r\n",           "999 x\r\n"};
    if (!reply || draw(model.fault_in))
        return reply;
    const char *said = faults[draw(sizeof(faults) / sizeof(faults[0]))];
    bool silent = !said || said[0] < '2' || said[0] > '5';
    *stores &= said && !silent ? said[0] == '2' : draw(2) != 0;
    return said;
}

static uint32_t model_slot(struct world *world, uint32_t message, uint32_t piece_bytes, uint32_t bytes) {
    char recipient[32], sender[14], body[4096];
    uint32_t number = world->next_slot;
    snprintf(recipient, sizeof(recipient), "r%u@%s.test", number, number % 7 ? "example" : "other");
    uint32_t length = (uint32_t)snprintf(body, sizeof(body), ".message %u\r\n..\r\n", message);
    while (length + 64 < bytes)
        length += (uint32_t)snprintf(body + length, sizeof(body) - length, "%060u\r\n", message);
    uint32_t slot = world_slot(world, recipient, body, piece_bytes);
    snprintf(sender, sizeof(sender), "%05u@snd.test", message); /* as long as world_slot's */
    memcpy(world_at(world, slot)->text, sender, 13);
    world_at(world, slot)->flags = SLOT_HAS_LEADING_DOTS | (draw(5) ? 0 : SLOT_HIGH);
    return slot;
}

static void model_script(struct script *script, bool chunking, bool pipelining) {
    static char ehlo[256];
    *script = script_good;
    snprintf(ehlo, sizeof(ehlo), "250-mx.test\r\n%s%s%s%s250 ENHANCEDSTATUSCODES\r\n", pipelining ? "250-PIPELINING\r\n" : "",
             chunking ? "250-CHUNKING\r\n" : "", draw(4) ? "" : "250-LIMITS RCPTMAX=2 MAILMAX=5\r\n",
             draw(4) ? "" : "250-LIMITS RCPTDOMAINMAX=1\r\n");
    script->ehlo = ehlo;
    script->keeps_sequence = true;
    script->keeps_refused = draw(2);
    script->byte_by_byte = draw(2);
}

/* The server's view against control's: what it stored for a slot's recipient, once at most, in that order's name, with its message. */
static void compare(struct world *world, uint64_t seed, const uint32_t *message_of, uint32_t sent) {
    static uint32_t stored[WORLD_SLOTS];
    memset(stored, 0, sizeof(stored));
    for (uint32_t i = 0; i < world->delivery_count; i++) {
        const struct delivery *delivery = &world->deliveries[i];
        uint32_t slot, sender, message;
        assert_int_equal(sscanf(delivery->recipient, "r%u@", &slot), 1);
        assert_int_equal(sscanf(delivery->sender, "%u@", &sender), 1);
        if (sscanf(delivery->body, ".message %u", &message) != 1)
            fail_msg("seed %lu: stored <%s> for %s of %s", (unsigned long)seed, delivery->body, delivery->recipient, delivery->sender);
        assert_true(slot < sent);
        if (message_of[slot] != message || sender != message)
            fail_msg("seed %lu: r%u was sent message %u in the name of %u, not %u", (unsigned long)seed, slot, message, sender,
                     message_of[slot]);
        stored[slot]++;
    }
    for (uint32_t slot = 0; slot < sent; slot++) {
        const struct slot_reply *reply = &world_at(world, slot)->reply;
        if (slot_word_state(slot_load(world_at(world, slot))) != SLOT_ANSWERED)
            fail_msg("seed %lu: slot %u is %s", (unsigned long)seed, slot, world_outcome(world, slot));
        bool delivered = reply->outcome == OUTCOME_REPLIED && reply->code / 100 == 2;
        if (stored[slot] > 1 || (stored[slot] == 0 && delivered) || (stored[slot] && !delivered && reply->outcome != OUTCOME_UNCERTAIN))
            fail_msg("seed %lu: slot %u was stored %u times and is %s", (unsigned long)seed, slot, stored[slot],
                     world_outcome(world, slot));
        if (delivered)
            assert_int_equal(reply->stage, STAGE_FINAL);
    }
}

static uint32_t play_model(uint64_t seed) {
    struct world *world = world_new();
    uint32_t sent = 0, message = 0, message_of[MODEL_ORDERS + 8];
    random_state = 0x9e3779b97f4a7c15ULL * (seed + 77);
    bool chunking = draw(3), pipelining = draw(4);
    world_path(world, 2, 1 + draw(3), draw(8));
    world_path_record(world)->pipelined_transactions = 1 + draw(3) * draw(5);
    world_path_record(world)->max_recipients_per_transaction = draw(3) ? 0 : 2;
    world_path_record(world)->max_deliveries_per_connection = draw(3) ? 0 : 7;
    world_path_record(world)->flags = draw(8) ? 0 : PATH_NO_CHUNKING;
    model_script(&world->script, chunking, pipelining);
    model.fault_in = 4 + draw(60);
    world->on_reply = fault;
    world_publish(world);
    uint32_t burst = 1 + draw(12);
    for (uint32_t pass = 0; pass < MODEL_PASSES; pass++) {
        if (draw(4) == 0)
            world->tcp.send_refusals = draw(4);
        world->tcp.window = draw(3) ? 0 : 10 + draw(2000);
        world->tcp.acknowledge_ranges = draw(3) ? 0 : 1;
        world->tcp.reaps_later = draw(4) == 0;
        for (uint32_t i = 0; i < burst && sent < MODEL_ORDERS && draw(3) == 0; i++) {
            uint32_t piece_bytes = draw(2) ? 0 : 1 + draw(9), bytes = draw(4) ? 30 : draw(3000);
            if (piece_bytes && bytes > 500)
                piece_bytes += 100;
            uint32_t slot = model_slot(world, message, piece_bytes, bytes), first = slot;
            message_of[sent++] = message;
            for (uint32_t more = draw(2) ? 0 : draw(5); more > 0 && sent < MODEL_ORDERS; more--) {
                uint32_t next = model_slot(world, message, piece_bytes, bytes);
                world_chain(world, slot, next);
                message_of[sent++] = message;
                slot = next;
            }
            message++;
            world_order(world, first);
        }
        world_step(world);
        world->now_us += draw(8) ? draw(2000) : draw(100) * SECOND;
    }
    world->tcp.reaps_later = false;
    world->tcp.send_refusals = 0;
    for (int i = 0; i < 4; i++)
        world_run(world, 900 * SECOND);
    compare(world, seed, message_of, sent);
    assert_int_equal(world->outcomes, sent);
    assert_int_equal(world_cell(world)->worker.orders_held, 0);
    smtp_engine_drain(world->engine, world->now_us);
    world_run(world, 60 * SECOND);
    assert_true(smtp_engine_idle(world->engine));
    assert_int_equal(COUNTED(world, wild_values), 0);
    uint32_t delivered = (uint32_t)COUNTED(world, messages_delivered);
    world_free(world);
    return delivered;
}

static void what_servers_stored_is_what_control_is_told(void **state) {
    uint64_t seeds = seeds_of(MODEL_SEEDS), delivered = 0;
    for (uint64_t seed = 0; seed < seeds; seed++)
        delivered += play_model(seed);
    assert_true(delivered > seeds * 5); /* or the faults leave nothing to compare */
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(servers_that_say_anything),
                                       cmocka_unit_test(what_servers_stored_is_what_control_is_told)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
