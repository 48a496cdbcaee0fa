/* test_lane.c: which sessions are opened, to where and from where, what control is told, and what goes back. */
#include "world.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void demand_opens_sessions_before_any_order_comes(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 3, 100);
    world_publish(world);
    world_settle(world);
    const struct path_worker_cell *cell = &world_cell(world)->worker;
    assert_int_equal(cell->sessions_open, 3);
    assert_int_equal(cell->sessions_ready, 3);
    assert_int_equal(cell->ready_capacity, 6); /* sessions x (pipelined_transactions + 1) */
    assert_int_equal(cell->sessions_opened_total, 3);
    assert_true(world->credits > 0);
    assert_int_equal(world_events(world, PATH_EVENT_READY), 1); /* once for the endpoint, not for each session */
    world_free(world);
}

static void no_more_sessions_than_orders_and_demand_can_use(void **state) {
    static const struct { uint32_t demand, sessions; } cases[] = {{0, 0}, {1, 1}, {2, 1}, {3, 2}, {4, 2}, {100, 10}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world *world = world_new();
        world_path(world, 1, 10, cases[i].demand);
        world_publish(world);
        world_settle(world);
        assert_int_equal(world_connections(world), cases[i].sessions);
        world_free(world);
    }
}

static void connects_keep_their_distance(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 10, 100);
    world_cell(world)->order.connect_interval_us = 600000;
    world_publish(world);
    world_settle(world);
    assert_int_equal(world->tcp.connects, 1);
    world_run(world, 590000);
    assert_int_equal(world->tcp.connects, 1);
    world_run(world, 20000);
    assert_int_equal(world->tcp.connects, 2);
    world_run(world, 6 * SECOND);
    assert_in_range(world->tcp.connects, 10, 12);
    world_free(world);
}

/* A share of a connect rate that grew: the wait that the last connect began is not sat out. */
static void a_shorter_interval_holds_at_once(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 10, 100);
    world_cell(world)->order.connect_interval_us = UINT32_MAX;
    world_publish(world);
    world_settle(world);
    assert_int_equal(world->tcp.connects, 1);
    world_run(world, 2 * SECOND);
    assert_int_equal(world->tcp.connects, 1);
    world_cell(world)->order.connect_interval_us = 100000;
    world_publish(world); /* the hint of a change */
    world_run(world, SECOND);
    assert_in_range(world->tcp.connects, 9, 11);
    world_free(world);
}

static void sources_take_turns_and_resting_ones_are_left_out(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 4, 100);
    world_publish(world);
    world_settle(world);
    uint32_t from[3] = {0};
    for (uint32_t i = 0; i < FAKE_CONNS_MAX; i++) {
        if (world->tcp.conns[i].state != FAKE_FREE)
            from[world->tcp.conns[i].local.bytes[3]]++;
    }
    assert_int_equal(from[1], 2);
    assert_int_equal(from[2], 2);
    world_free(world);

    world = world_new();
    world_path(world, 1, 4, 100);
    world->journal.rests[0].source_us[0] = world->now_us + 10 * SECOND;
    world_publish(world);
    world_settle(world);
    for (uint32_t i = 0; i < FAKE_CONNS_MAX; i++) {
        if (world->tcp.conns[i].state != FAKE_FREE)
            assert_int_equal(world->tcp.conns[i].local.bytes[3], 2);
    }
    world_free(world);
}

static void endpoints_are_tried_in_order_and_resting_ones_are_left_out(void **state) {
    struct world *world = world_new();
    world_path(world, 3, 1, 10);
    world->journal.rests[0].endpoint_us[0] = world->now_us + 10 * SECOND;
    world_publish(world);
    world_settle(world);
    assert_int_equal(world->tcp.conns[0].remote.bytes[3], 2);
    assert_int_equal(world->tcp.conns[0].port, 25);
    world_free(world);
}

static void an_endpoint_is_only_reached_from_a_source_of_its_family(void **state) {
    struct world *world = world_new();
    world_path(world, 2, 1, 10);
    world_path_record(world)->endpoints[0].family = 6;
    world_publish(world);
    world_settle(world);
    assert_int_equal(world->tcp.conns[0].remote.family, 4);
    assert_int_equal(world->tcp.conns[0].remote.bytes[3], 2);
    assert_int_equal(world->event_count, 1); /* READY: skipping is no failure */
    world_free(world);
}

static void a_refused_endpoint_is_reported_and_the_next_one_tried(void **state) {
    struct world *world = world_new();
    world_path(world, 2, 1, 1);
    world_publish(world);
    smtp_engine_poll(world->engine, 100, world->now_us); /* SYN */
    assert_int_equal(world->tcp.conns[0].remote.bytes[3], 1);
    fake_end(&world->tcp.conns[0], TCP_REFUSED, world->now_us);
    world_settle(world);
    assert_int_equal(world_events(world, PATH_EVENT_CONNECT_FAILED), 1);
    assert_int_equal(world->events[0].detail, TCP_REFUSED);
    assert_int_equal(world->events[0].endpoint, 0);
    assert_int_equal(world->events[0].stage, STAGE_CONNECT);
    assert_int_equal(world_cell(world)->worker.sessions_ready, 1);
    assert_int_equal(world_events(world, PATH_EVENT_READY), 1);
    world_free(world);
}

/* Endpoints come with v4 and v6 in turn, and are tried in that order: a family that is broken costs one attempt, not all of them. */
static void both_families(struct world *world, uint32_t endpoints) {
    world_path(world, endpoints, 1, 0);
    struct path *path = world_path_record(world);
    path->sources[1].family = 6;
    for (uint32_t i = 0; i < endpoints; i++)
        path->endpoints[i].family = i % 2 ? 4 : 6;
}

static void a_family_that_is_broken_costs_one_attempt(void **state) {
    struct world *world = world_new();
    both_families(world, 4);
    world_publish(world);
    uint32_t slot = world_send(world, "b@example.test");
    smtp_engine_poll(world->engine, 100, world->now_us);
    assert_int_equal(world->tcp.conns[0].remote.family, 6);
    assert_int_equal(world->tcp.conns[0].local.family, 6);
    fake_end(&world->tcp.conns[0], TCP_UNREACHABLE, world->now_us);
    world_until_answered(world, slot);
    assert_string_equal(world_outcome(world, slot), "REPLIED FINAL 250 2.0.0");
    assert_int_equal(world_at(world, slot)->reply.endpoint, 1);
    assert_int_equal(world_at(world, slot)->reply.peer_family, 4);
    assert_int_equal(world->tcp.connects, 2);
    world_free(world);
}

/* SMTP.md section 2: up to five addresses a try. Then the orders go back, and the next try is the others' turn. */
static void five_addresses_a_try(void **state) {
    struct world *world = world_new();
    both_families(world, 8);
    world->script.banner = "554 5.3.2 no\r\n";
    world_publish(world);
    uint32_t slot = world_send(world, "b@example.test");
    uint64_t begin_us = world->now_us;
    world_until_answered(world, slot);
    assert_string_equal(world_outcome(world, slot), "RETURNED");
    assert_in_range(world->now_us - begin_us, 0, SECOND / 2);
    assert_int_equal(world->tcp.connects, 5);
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(world->events[i].endpoint, i);
    world_send(world, "b@example.test"); /* the first ones rest a second, and so does the lane */
    world_run(world, SECOND / 2);
    assert_int_equal(world->tcp.connects, 5);
    world->journal.rests[0].endpoint_us[0] = world->journal.rests[0].endpoint_us[1] = world->now_us + 100 * SECOND; /* control's word */
    world->journal.rests[0].endpoint_us[2] = world->journal.rests[0].endpoint_us[3] = world->now_us + 100 * SECOND;
    world->journal.rests[0].endpoint_us[4] = world->now_us + 100 * SECOND;
    world->script.banner = script_good.banner;
    world_run(world, SECOND);
    assert_int_equal(world->tcp.connects, 6);
    assert_string_equal(world_outcome(world, slot + 1), "REPLIED FINAL 250 2.0.0");
    assert_int_equal(world_at(world, slot + 1)->reply.endpoint, 5);
    world_free(world);
}

/* Five attempts under way that fail together are one failure of the endpoint. */
static void attempts_that_fail_together_back_off_once(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 5, 100);
    world_publish(world);
    smtp_engine_poll(world->engine, 100, world->now_us);
    assert_int_equal(world->tcp.connects, 5);
    for (uint32_t i = 0; i < 5; i++)
        fake_end(&world->tcp.conns[i], TCP_REFUSED, world->now_us);
    world_run(world, 1 * SECOND - 10000);
    assert_int_equal(world->tcp.connects, 5);
    world_run(world, 20000);
    assert_int_equal(world->tcp.connects, 10);
    world_free(world);
}

/* Every endpoint refuses: tries become rarer, and the worker never spins. */
static void tries_back_off_while_nothing_answers(void **state) {
    struct world *world = world_new();
    world_path(world, 2, 5, 100);
    world->script.banner = "554 5.3.2 no\r\n";
    world_publish(world);
    world_run(world, 300 * SECOND);
    /* 1, 2, 4, 8, 16, 30, 30 ... seconds for each endpoint; five sessions may be under way when one fails. */
    assert_in_range(world->tcp.connects, 20, 2 * 5 * 15);
    assert_int_equal(world_events(world, PATH_EVENT_GREETING_REFUSED), world->tcp.connects);
    world_free(world);
}

/* The SYN that has just left is refused; false when none has. */
static bool refuse_attempt(struct world *world) {
    uint32_t connects = world->tcp.connects;
    smtp_engine_poll(world->engine, 100, world->now_us);
    if (world->tcp.connects == connects)
        return false;
    for (uint32_t i = 0; i < FAKE_CONNS_MAX; i++)
        if (world->tcp.conns[i].state == FAKE_CONNECTING)
            fake_end(&world->tcp.conns[i], TCP_REFUSED, world->now_us);
    fake_reap(&world->tcp, world->now_us);
    return true;
}

/* After a delivery the first failure is a first failure again: the next try comes after 1 s, not after what earlier failures had grown to.
 */
static void a_delivery_ends_the_back_off(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 100);
    world_publish(world);
    for (uint64_t wait = 1; wait <= 8; wait *= 2) {
        assert_true(refuse_attempt(world));
        world->now_us += wait * SECOND - 10000;
        assert_false(refuse_attempt(world));
        world->now_us += 20000;
    }
    world_until_answered(world, world_send(world, "bob@example.net"));
    for (uint32_t i = 0; i < FAKE_CONNS_MAX; i++)
        if (world->tcp.conns[i].state == FAKE_OPEN) {
            free(world->tcp.conns[i].server);
            world->tcp.conns[i].server = NULL;
            fake_end(&world->tcp.conns[i], TCP_RESET, world->now_us);
        }
    fake_reap(&world->tcp, world->now_us);
    assert_true(refuse_attempt(world));
    world->now_us += 1 * SECOND + 10000;
    assert_true(refuse_attempt(world));
    world_free(world);
}

static void a_server_that_greets_and_hangs_up_is_not_called_in_a_loop(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 100);
    world_publish(world);
    for (int i = 0; i < 1000; i++) {
        world_settle(world);
        for (uint32_t j = 0; j < FAKE_CONNS_MAX; j++) {
            if (world->tcp.conns[j].state == FAKE_OPEN)
                fake_peer_fin(&world->tcp.conns[j], world->now_us);
        }
        world_run(world, 10000);
    }
    assert_in_range(world->tcp.connects, 3, 6);
    world_free(world);
}

static void exhausted_ports_are_an_event_and_a_pause(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 1);
    world->tcp.connect_error = -EADDRNOTAVAIL;
    world_publish(world);
    world_run(world, 1 * SECOND);
    assert_in_range(world_events(world, PATH_EVENT_PORTS_EXHAUSTED), 2, 6);
    world->tcp.connect_error = 0;
    world_run(world, 1 * SECOND);
    assert_int_equal(world_cell(world)->worker.sessions_ready, 1);
    world_free(world);
}

/* ---- reuse ---- */

static void a_session_is_reused_up_to_its_limit_and_then_quits(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world_path_record(world)->max_deliveries_per_connection = 3;
    world_publish(world);
    for (uint32_t i = 0; i < 7; i++) {
        uint32_t slot = world_send(world, "b@example.test");
        world_until_answered(world, slot);
        assert_string_equal(world_outcome(world, slot), "REPLIED FINAL 250 2.0.0");
        world_settle(world);
    }
    assert_int_equal(world->tcp.connects, 3); /* 3, 3, 1 */
    uint32_t quits = 0;
    for (const char *at = world->commands; (at = strstr(at, "QUIT|")); at++)
        quits++;
    assert_int_equal(quits, 2);
    world_free(world);
}

static void the_servers_own_limit_counts_too(void **state) { /* RFC 9422 MAILMAX */
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world->script.ehlo = "250-mx.test\r\n250 LIMITS MAILMAX=1\r\n";
    world_publish(world);
    for (uint32_t i = 0; i < 3; i++)
        world_until_answered(world, world_send(world, "b@example.test"));
    assert_int_equal(world->tcp.connects, 3);
    world_free(world);
}

static void capacity_shrinks_as_a_session_nears_its_limit(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 2);
    world_path_record(world)->max_deliveries_per_connection = 2;
    world_publish(world);
    world_settle(world);
    assert_int_equal(world_cell(world)->worker.ready_capacity, 2);
    world_cell(world)->order.demand = 0;
    world_until_answered(world, world_send(world, "b@example.test"));
    world_settle(world);
    assert_int_equal(world_cell(world)->worker.ready_capacity, 1);
    world_until_answered(world, world_send(world, "b@example.test"));
    world_settle(world);
    assert_int_equal(world_cell(world)->worker.ready_capacity, 0);
    assert_int_equal(world_cell(world)->worker.sessions_open, 0);
    world_free(world);
}

static void an_idle_session_quits_when_nothing_is_wanted(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 1);
    world_publish(world);
    world_run(world, 60 * SECOND);
    assert_int_equal(world_cell(world)->worker.sessions_ready, 1); /* demand keeps it */
    assert_int_equal(world->tcp.connects, 1);
    world_cell(world)->order.demand = 0;
    world_run(world, 6 * SECOND);
    assert_int_equal(world_connections(world), 0);
    assert_non_null(strstr(world->commands, "QUIT|"));
    world_free(world);
}

static void the_server_closes_first_and_a_slow_one_only_for_a_second(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 1);
    world->script.keeps_open = true;
    world_publish(world);
    world_settle(world);
    world_cell(world)->order.demand = 0;
    world_run(world, 5 * SECOND + 10000);
    assert_non_null(strstr(world->commands, "QUIT|"));
    assert_false(world->tcp.conns[0].fin_sent);
    world_run(world, 1 * SECOND + 10000);
    assert_true(world->tcp.conns[0].fin_sent);
    world_run(world, 11 * SECOND);
    assert_int_equal(world_connections(world), 0); /* and one that never closes is aborted */
    world_free(world);
}

static void an_unasked_421_or_a_close_while_idle_costs_no_message(void **state) {
    static const char *const ways[] = {"421 4.4.2 idle too long\r\n", SAY_EOF, SAY_RST};
    for (size_t i = 0; i < 3; i++) {
        struct world *world = world_new();
        world_path(world, 1, 1, 0);
        world->script.idle = ways[i];
        world_publish(world);
        uint32_t first = world_send(world, "b@example.test");
        world_until_answered(world, first);
        world_settle(world);
        assert_int_equal(world_events(world, PATH_EVENT_SHUTDOWN_REPLY), i == 0);
        uint32_t second = world_send(world, "c@example.test");
        world_until_answered(world, second);
        assert_string_equal(world_outcome(world, first), "REPLIED FINAL 250 2.0.0");
        assert_string_equal(world_outcome(world, second), "REPLIED FINAL 250 2.0.0");
        assert_int_equal(world->tcp.connects, 2);
        world_free(world);
    }
}

/* The reset was read in this pass, and the word of it comes with the next poll. */
static void an_order_is_not_bound_to_a_session_that_was_just_reset(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world_publish(world);
    uint32_t first = world_send(world, "b@example.test");
    world_until_answered(world, first);
    world_settle(world);
    assert_int_equal(world->tcp.connects, 1);
    world->tcp.reaps_later = true;
    fake_end(&world->tcp.conns[0], TCP_RESET, world->now_us);
    uint32_t second = world_send(world, "c@example.test");
    world_step(world);
    world_step(world);
    assert_string_equal(world_outcome(world, second), "claimed");
    world->tcp.reaps_later = false;
    world_until_answered(world, second);
    assert_string_equal(world_outcome(world, second), "REPLIED FINAL 250 2.0.0");
    assert_int_equal(world->tcp.connects, 2);
    world_free(world);
}

static void fewer_sessions_allowed_ends_idle_ones(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 5, 100);
    world_publish(world);
    world_settle(world);
    assert_int_equal(world_connections(world), 5);
    world_cell(world)->order.sessions_allowed = 2;
    smtp_engine_hint(world->engine, ring_entry(RING_PATH, 0, 3), world->now_us);
    world_settle(world);
    assert_int_equal(world_connections(world), 2);
    world_free(world);
}

/* ---- orders ---- */

static void high_orders_go_first(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world_publish(world);
    uint32_t slots[3];
    for (uint32_t i = 0; i < 3; i++) {
        char recipient[32];
        snprintf(recipient, sizeof(recipient), "r%u@example.test", i);
        slots[i] = world_slot(world, recipient, "x\r\n", 0);
        world_at(world, slots[i])->flags = i == 2 ? SLOT_HIGH : 0;
    }
    for (uint32_t i = 0; i < 3; i++)
        world_order(world, slots[i]);
    world_settle(world);
    const char *high = strstr(world->commands, "r2@"), *first = strstr(world->commands, "r0@"), *second = strstr(world->commands, "r1@");
    assert_true(high && first && second && high < first && first < second);
    world_free(world);
}

static void an_order_is_not_sent_before_its_time(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 1);
    world_publish(world);
    uint32_t late = world_slot(world, "late@example.test", "x\r\n", 0), soon = world_slot(world, "soon@example.test", "x\r\n", 0);
    world_at(world, late)->not_before_us = world->now_us + 20 * SECOND;
    world_at(world, soon)->not_before_us = world->now_us + 10 * SECOND;
    world_order(world, late);
    world_order(world, soon);
    world_cell(world)->order.demand = 0;
    world_run(world, 10 * SECOND - 5000);
    assert_string_equal(world_outcome(world, soon), "claimed");
    world_run(world, 10000);
    assert_string_equal(world_outcome(world, soon), "REPLIED FINAL 250 2.0.0");
    assert_string_equal(world_outcome(world, late), "claimed");
    world_run(world, 10 * SECOND);
    assert_string_equal(world_outcome(world, late), "REPLIED FINAL 250 2.0.0");
    assert_int_equal(world->tcp.connects, 1); /* the session stays for it */
    world_free(world);
}

/* DESIGN.md section 4: an order binds to a session at MAIL; a session lost earlier costs it nothing. */
static void orders_outlive_a_session_and_go_back_when_no_other_comes(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world->script.final = STALL;
    world_publish(world);
    uint32_t first = world_send(world, "a@example.test"), second = world_send(world, "b@example.test");
    world_settle(world);
    assert_string_equal(world_outcome(world, first), "body sent");
    assert_string_equal(world_outcome(world, second), "claimed");
    world->script = script_good;
    fake_end(&world->tcp.conns[0], TCP_RESET, world->now_us);
    world_settle(world);
    assert_string_equal(world_outcome(world, first), "UNCERTAIN FINAL");
    assert_string_equal(world_outcome(world, second), "REPLIED FINAL 250 2.0.0");

    world->script.banner = "554 5.3.2 no\r\n";
    world_run(world, 20 * SECOND); /* the idle session goes */
    uint32_t third = world_send(world, "c@example.test");
    uint64_t begin_us = world->now_us;
    world_until_answered(world, third);
    assert_string_equal(world_outcome(world, third), "RETURNED");
    assert_in_range(world->now_us - begin_us, 5 * SECOND, 6 * SECOND);
    assert_int_equal(COUNTED(world, orders_returned), 1);
    world_free(world);
}

static void a_tarpit_pins_sessions_not_orders(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world->script.banner = STALL;
    world_publish(world);
    uint64_t begin_us = world->now_us;
    uint32_t slot = world_send(world, "a@example.test");
    world_until_answered(world, slot);
    assert_string_equal(world_outcome(world, slot), "RETURNED");
    assert_in_range(world->now_us - begin_us, 30 * SECOND, 31 * SECOND);
    world_free(world);
}

static void a_withdrawn_order_is_left_alone(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world_publish(world);
    uint32_t slot = world_slot(world, "b@example.test", "x\r\n", 0);
    slot_queue(world_at(world, slot));
    assert_true(slot_withdraw(world_at(world, slot), 0));
    smtp_engine_hint(world->engine, ring_entry(RING_ORDER, slot, 0), world->now_us);
    world_settle(world);
    assert_string_equal(world_outcome(world, slot), "withdrawn");
    assert_int_equal(world->outcomes, 0);
    assert_int_equal(COUNTED(world, orders_claimed), 0);
    world_free(world);
}

static void a_withdrawn_member_of_a_chain_is_skipped(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world_publish(world);
    for (uint32_t i = 0; i < 4; i++) {
        char recipient[32];
        snprintf(recipient, sizeof(recipient), "r%u@example.test", i);
        uint32_t slot = world_slot(world, recipient, "x\r\n", 0);
        if (i)
            world_chain(world, slot - 1, slot);
        slot_queue(world_at(world, slot));
    }
    assert_true(slot_withdraw(world_at(world, 1), 0));
    world_order(world, 0);
    world_until_answered(world, 0);
    assert_string_equal(world_outcome(world, 1), "withdrawn");
    assert_string_equal(world_outcome(world, 2), "REPLIED FINAL 250 2.0.0");
    assert_string_equal(world_outcome(world, 3), "REPLIED FINAL 250 2.0.0");
    assert_null(strstr(world->commands, "r1@"));
    assert_int_equal(world->outcomes, 3);
    world_free(world);
}

/* ---- retiring and draining ---- */

static void a_retired_path_finishes_and_is_acknowledged(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 3, 100);
    world_publish(world);
    world_settle(world);
    assert_int_equal(world_connections(world), 3);
    world_retire(world);
    world_run(world, 2 * SECOND);
    assert_int_equal(world_connections(world), 0);
    assert_int_equal(world_cell(world)->worker.acknowledged_generation, 3);
    uint32_t connects = world->tcp.connects;
    world_run(world, 60 * SECOND);
    assert_int_equal(world->tcp.connects, connects);

    /* Another life of the same place. */
    atomic_store(&world_path_record(world)->word, path_word(4, PATH_LIVE));
    smtp_engine_hint(world->engine, ring_entry(RING_PATH, 0, 4), world->now_us);
    world_settle(world);
    assert_int_equal(world_cell(world)->worker.sessions_ready, 3);
    assert_int_equal(COUNTED(world, wild_values), 0);
    world_free(world);
}

static void a_path_retired_in_a_transaction_lets_it_finish(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world->script.final = STALL;
    world_publish(world);
    uint32_t bound = world_send(world, "a@example.test"), waiting = world_send(world, "b@example.test");
    world_settle(world);
    assert_string_equal(world_outcome(world, bound), "body sent");
    world_retire(world);
    world_settle(world);
    assert_int_equal(world_cell(world)->worker.acknowledged_generation, 0);
    assert_string_equal(world_outcome(world, waiting), "claimed"); /* the session may still take it */
    world_until_answered(world, bound);
    assert_string_equal(world_outcome(world, bound), "UNCERTAIN FINAL");
    world_settle(world);
    assert_string_equal(world_outcome(world, waiting), "RETURNED");
    assert_int_equal(world_cell(world)->worker.acknowledged_generation, 3);
    world_free(world);
}

static void a_path_never_seen_alive_is_acknowledged_at_once(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world_retire(world);
    world_settle(world);
    assert_int_equal(world_cell(world)->worker.acknowledged_generation, 3);
    assert_int_equal(world->credits, 1);
    world_free(world);
}

static void draining_returns_what_is_not_on_the_wire_and_finishes_what_is(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 100);
    world->script.data = STALL;
    world_publish(world);
    uint32_t bound = world_send(world, "a@example.test"), waiting = world_send(world, "b@example.test"),
             later = world_slot(world, "c@example.test", "x\r\n", 0);
    world_at(world, later)->not_before_us = world->now_us + 100 * SECOND;
    world_order(world, later);
    world_settle(world);
    assert_string_equal(world_outcome(world, bound), "envelope sent");
    smtp_engine_drain(world->engine, world->now_us);
    world_settle(world);
    assert_string_equal(world_outcome(world, waiting), "RETURNED");
    assert_string_equal(world_outcome(world, later), "RETURNED");
    assert_string_equal(world_outcome(world, bound), "envelope sent");
    assert_false(smtp_engine_idle(world->engine));
    uint32_t after = world_send(world, "d@example.test");
    assert_string_equal(world_outcome(world, after), "RETURNED");
    world_until_answered(world, bound);
    assert_string_equal(world_outcome(world, bound), "LOST DATA");
    world_settle(world);
    assert_true(smtp_engine_idle(world->engine));
    assert_int_equal(world->tcp.connects, 1);
    world_free(world);
}

/* ---- what a broken control may write ---- */

/* DESIGN.md section 5: bounded work a pass, also when every session waits for the same pool; and all of them get their turn. */
static void an_empty_pool_is_asked_a_few_times_a_pass(void **state) {
    enum { SESSIONS = 32, REFUSALS = 100000 };
    struct world *world = world_new();
    world_path(world, 1, SESSIONS, 2 * SESSIONS);
    world_publish(world);
    world_run(world, SECOND);
    world_cell(world)->order.demand = 0;
    for (uint32_t i = 0; i < SESSIONS; i++)
        world_send(world, "b@example.test");
    world->tcp.send_refusals = REFUSALS;
    smtp_engine_poll(world->engine, 1000, world->now_us);
    uint32_t before = world->tcp.send_refusals;
    assert_true(before <= REFUSALS - SESSIONS); /* each has its order and was refused */
    for (uint32_t pass = 1; pass <= 10; pass++) {
        smtp_engine_poll(world->engine, 1000, world->now_us);
        assert_in_range(before - world->tcp.send_refusals, 1, 16 * pass);
    }
    world->tcp.send_refusals = 0;
    world_run(world, SECOND);
    assert_int_equal(COUNTED(world, messages_delivered), SESSIONS);
    world_free(world);
}

/* An unasked 421 that the network cut in two: what came of it is seen before an order is bound, which waits for another session. */
static void half_of_an_unasked_reply_keeps_orders_away(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 1);
    world->script.quit = STALL;
    world_publish(world);
    world_settle(world);
    struct tcp_conn *conn = &world->tcp.conns[0];
    world->tcp.events.received(conn->user, conn, (const uint8_t *)"421 4.3", 7, world->now_us);
    uint32_t slot = world_send(world, "b@example.test");
    world_step(world);
    world->tcp.events.received(conn->user, conn, (const uint8_t *)".2 down\r\n", 9, world->now_us);
    world_until_answered(world, slot);
    assert_string_equal(world_outcome(world, slot), "REPLIED FINAL 250 2.0.0");
    assert_int_equal(world->tcp.connects, 2);
    world_free(world);
}

static void wild_orders_are_answered_and_never_followed(void **state) {
    static const char *const names[] = {"path",        "worker", "sender", "recipient", "no recipient", "pieces",
                                        "piece count", "offset", "length", "next",      "far away"};
    for (uint32_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct world *world = world_new();
        world_path(world, 1, 1, 0);
        world_publish(world);
        uint32_t index = world_slot(world, "b@example.test", "x\r\n", 0);
        struct slot *slot = world_at(world, index);
        struct arena_piece *piece = (struct arena_piece *)(world->arena + slot->pieces);
        switch (i) {
        case 0:
            slot->path = WORLD_PATHS;
            break;
        case 1:
            slot->worker = 0;
            break;
        case 2:
            slot->sender_length = UINT16_MAX;
            break;
        case 3:
            slot->recipient_length = SLOT_ADDRESS_MAX + 1;
            break;
        case 4:
            slot->recipient_length = 0;
            break;
        case 5:
            slot->pieces = UINT64_MAX - 7;
            break;
        case 6:
            slot->piece_count = UINT32_MAX;
            break;
        case 7:
            piece->offset = UINT64_MAX;
            break;
        case 8:
            piece->length = UINT32_MAX;
            break;
        case 9:
            slot->next = WORLD_SLOTS;
            break;
        default:
            slot->not_before_us = UINT64_MAX;
        }
        slot_queue(slot);
        smtp_engine_hint(world->engine, ring_entry(RING_ORDER, index, 0), world->now_us);
        world_settle(world);
        assert_int_equal(COUNTED(world, wild_values), 1);
        if (strcmp(world_outcome(world, index), "LOCAL 554 5.3.0") != 0)
            fail_msg("wild %s: %s", names[i], world_outcome(world, index));
        assert_int_equal(world->tcp.connects, 0);
        world_free(world);
    }
}

static void addresses_that_would_break_the_dialogue_stay_unsent(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world_publish(world);
    uint32_t alone = world_slot(world, "b@example.test>\r\nDATA", "x\r\n", 0);
    world_order(world, alone);
    assert_string_equal(world_outcome(world, alone), "LOCAL 553 5.1.3");
    uint32_t sender = world_slot(world, "b@example.test", "x\r\n", 0);
    world_at(world, sender)->text[1] = '\n';
    world_order(world, sender);
    assert_string_equal(world_outcome(world, sender), "LOCAL 553 5.1.7");
    /* In a chain only the bad one stays behind, wherever it stands. */
    uint32_t first = world_slot(world, "b c@example.test", "x\r\n", 0), second = world_slot(world, "d@example.test", "x\r\n", 0),
             third = world_slot(world, "e\r@example.test", "x\r\n", 0);
    world_chain(world, first, second);
    world_chain(world, second, third);
    world_order(world, first);
    world_until_answered(world, first);
    assert_string_equal(world_outcome(world, first), "LOCAL 553 5.1.3");
    assert_string_equal(world_outcome(world, second), "REPLIED FINAL 250 2.0.0");
    assert_string_equal(world_outcome(world, third), "LOCAL 553 5.1.3");
    assert_string_equal(world->commands, "EHLO out.sender.test|MAIL FROM:<a@sender.test> SIZE=3|RCPT TO:<d@example.test>|DATA|");
    world_free(world);
}

static void an_address_that_turns_wild_after_the_check_never_reaches_the_wire(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world_publish(world);
    uint32_t slot = world_slot(world, "b@example.test", "x\r\n", 0);
    world_order(world, slot);
    world_at(world, slot)->text[world_at(world, slot)->sender_length + 1] = '\r';
    world_until_answered(world, slot);
    assert_string_equal(world_outcome(world, slot), "LOST MAIL");
    assert_int_equal(COUNTED(world, wild_values), 1);
    assert_string_equal(world->commands, "EHLO out.sender.test|");
    world_free(world);
}

static void wild_hints_and_chains_are_counted_and_end(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world_publish(world);
    smtp_engine_hint(world->engine, ring_entry(RING_ORDER, WORLD_SLOTS, 0), world->now_us);
    smtp_engine_hint(world->engine, ring_entry(RING_PATH, WORLD_PATHS, 0), world->now_us);
    smtp_engine_hint(world->engine, ring_entry(RING_OUTCOME, 0, 0), world->now_us);
    smtp_engine_hint(world->engine, UINT64_MAX, world->now_us);
    assert_int_equal(COUNTED(world, wild_values), 4);
    /* A chain that bites its tail: a claimed slot is not claimed again. */
    uint32_t first = world_slot(world, "a@example.test", "x\r\n", 0), second = world_slot(world, "b@example.test", "x\r\n", 0);
    world_chain(world, first, second);
    world_chain(world, second, first);
    world_order(world, first);
    world_until_answered(world, first);
    assert_string_equal(world_outcome(world, second), "REPLIED FINAL 250 2.0.0");
    assert_int_equal(world->outcomes, 2);
    /* A member that leads out of the journal. */
    uint32_t third = world_slot(world, "c@example.test", "x\r\n", 0), fourth = world_slot(world, "d@example.test", "x\r\n", 0);
    world_chain(world, third, fourth);
    world_at(world, fourth)->next = SLOT_NONE - 1;
    world_order(world, third);
    world_until_answered(world, third);
    assert_string_equal(world_outcome(world, fourth), "REPLIED FINAL 250 2.0.0");
    assert_int_equal(COUNTED(world, wild_values), 5);
    world_free(world);
}

/* Nobody gets another one's mail because a link was stale. */
static void a_member_with_another_message_goes_back(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world_publish(world);
    uint32_t first = world_slot(world, "a@example.test", "x\r\n", 0), second = world_slot(world, "b@example.test", "y\r\n", 0);
    uint64_t own = world_at(world, second)->pieces;
    world_chain(world, first, second);
    world_at(world, second)->pieces = own;
    world_order(world, first);
    world_until_answered(world, first);
    assert_string_equal(world_outcome(world, first), "REPLIED FINAL 250 2.0.0");
    assert_string_equal(world_outcome(world, second), "RETURNED");
    assert_null(strstr(world->commands, "b@example.test"));
    assert_int_equal(COUNTED(world, wild_values), 1);
    world_free(world);
}

static void a_stale_generation_goes_back(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world_publish(world);
    uint32_t path = world_slot(world, "b@example.test", "x\r\n", 0), dataplane = world_slot(world, "b@example.test", "x\r\n", 0);
    world_at(world, path)->path_generation = 2;
    world_at(world, dataplane)->dataplane_generation = 6;
    world_order(world, path);
    world_order(world, dataplane);
    assert_string_equal(world_outcome(world, path), "RETURNED");
    assert_string_equal(world_outcome(world, dataplane), "RETURNED");
    world_free(world);
}

static void wild_paths_are_ignored(void **state) {
    for (uint32_t i = 0; i < 16; i++) {
        struct world *world = world_new();
        world_path(world, 1, 1, 10);
        struct path *path = world_path_record(world);
        switch (i) {
        case 0:
            path->endpoint_count = 0;
            break;
        case 1:
            path->endpoint_count = PATH_ENDPOINTS_MAX + 1;
            break;
        case 2:
            path->source_count = UINT32_MAX;
            break;
        case 3:
            path->endpoints[0].family = 5;
            break;
        case 4:
            path->endpoints[0].name = PATH_STRINGS_BYTES;
            break;
        case 5:
            path->sources[1].ehlo = UINT16_MAX;
            break;
        case 6:
            memcpy(path->strings + 1, "a\r\nRSET", sizeof("a\r\nRSET"));
            break;
        case 7: /* no end within the longest text */
            memset(path->strings + 1, 'x', PATH_TEXT_MAX + 1);
            break;
        case 8:
            path->endpoints[0].tls = PATH_TLS_LEVELS;
            break;
        case 9:
            path->endpoints[0].tlsa_count = PATH_TLSA_MAX + 1;
            break;
        case 10: /* the last record goes beyond the end */
            path->endpoints[0].tlsa = PATH_STRINGS_BYTES - sizeof(struct path_tlsa) - 1;
            path->endpoints[0].tlsa_count = 2;
            break;
        case 11:
            path->endpoints[0].tlsa = 100;
            path->endpoints[0].tlsa_count = 1;
            ((struct path_tlsa *)(path->strings + 100))->length = 65;
            break;
        case 12: /* names without an end */
            path->verify_names = 100;
            memset(path->strings + 100, 'x', PATH_STRINGS_BYTES - 100);
            break;
        case 13:
            path->verify_names = UINT16_MAX;
            break;
        case 14:
            path->tls_version_min = 11;
            break;
        default:
            path->endpoints[0].port = 0;
        }
        world_publish(world);
        uint32_t slot = world_send(world, "b@example.test");
        world_settle(world);
        assert_int_equal(world->tcp.connects, 0);
        assert_string_equal(world_outcome(world, slot), "RETURNED");
        assert_true(COUNTED(world, wild_values) > 0);
        world_free(world);
    }
}

/* A worker without TLS never uses without it what the path says needs it. */
static void a_path_that_needs_tls_is_never_used_without(void **state) {
    for (uint32_t i = 0; i < 4; i++) {
        struct world *world = world_new();
        world_path(world, 1, 1, 10);
        if (i < 3)
            world_path_record(world)->endpoints[0].tls = (uint8_t)(PATH_TLS_ENCRYPT + i);
        else
            world_path_record(world)->flags = PATH_IMPLICIT_TLS;
        world_publish(world);
        uint32_t slot = world_send(world, "b@example.test");
        world_run(world, 10 * SECOND);
        assert_int_equal(world->tcp.connects, 0);
        assert_string_equal(world_outcome(world, slot), "LOCAL 454 4.7.0");
        assert_int_equal(world_events(world, PATH_EVENT_TLS_FAILED), 1);
        assert_int_equal(world->events[0].detail, TLS_FAILURE_LOCAL);
        world_free(world);
    }
}

static void more_orders_than_records_go_back(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world->script.banner = STALL;
    world_publish(world);
    for (uint32_t i = 0; i < 1201; i++)
        world_send(world, "b@example.test");
    assert_string_equal(world_outcome(world, 1199), "claimed");
    assert_string_equal(world_outcome(world, 1200), "RETURNED");
    world_settle(world);
    assert_int_equal(world_cell(world)->worker.orders_held, 1200);
    world_free(world);
}

/* SMTP.md section 1: next host. Control has to know that it was begun: it counts the second time. */
static void what_goes_back_for_the_next_host_tells_that_it_was_begun(void **state) {
    struct world *world = world_new();
    world_path(world, 2, 1, 0);
    world->script.data = SAY_RST;
    world_publish(world);
    uint32_t begun = world_send(world, "b@example.test");
    world_until_answered(world, begun);
    assert_string_equal(world_outcome(world, begun), "RETURNED");
    assert_int_equal(world_at(world, begun)->reply.enhanced[0], 4);
    assert_int_equal(world_at(world, begun)->reply.stage, STAGE_DATA);
    assert_true(strlen(world_text(world, begun)) > 0);
    world_retire(world);
    uint32_t never = world_send(world, "c@example.test");
    world_until_answered(world, never);
    assert_string_equal(world_outcome(world, never), "RETURNED");
    assert_int_equal(world_at(world, never)->reply.enhanced[0], 0);
    world_free(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(demand_opens_sessions_before_any_order_comes),
        cmocka_unit_test(no_more_sessions_than_orders_and_demand_can_use),
        cmocka_unit_test(connects_keep_their_distance),
        cmocka_unit_test(a_shorter_interval_holds_at_once),
        cmocka_unit_test(sources_take_turns_and_resting_ones_are_left_out),
        cmocka_unit_test(endpoints_are_tried_in_order_and_resting_ones_are_left_out),
        cmocka_unit_test(an_endpoint_is_only_reached_from_a_source_of_its_family),
        cmocka_unit_test(a_refused_endpoint_is_reported_and_the_next_one_tried),
        cmocka_unit_test(a_family_that_is_broken_costs_one_attempt),
        cmocka_unit_test(five_addresses_a_try),
        cmocka_unit_test(attempts_that_fail_together_back_off_once),
        cmocka_unit_test(tries_back_off_while_nothing_answers),
        cmocka_unit_test(a_delivery_ends_the_back_off),
        cmocka_unit_test(a_server_that_greets_and_hangs_up_is_not_called_in_a_loop),
        cmocka_unit_test(exhausted_ports_are_an_event_and_a_pause),
        cmocka_unit_test(a_session_is_reused_up_to_its_limit_and_then_quits),
        cmocka_unit_test(the_servers_own_limit_counts_too),
        cmocka_unit_test(capacity_shrinks_as_a_session_nears_its_limit),
        cmocka_unit_test(an_idle_session_quits_when_nothing_is_wanted),
        cmocka_unit_test(the_server_closes_first_and_a_slow_one_only_for_a_second),
        cmocka_unit_test(an_unasked_421_or_a_close_while_idle_costs_no_message),
        cmocka_unit_test(an_order_is_not_bound_to_a_session_that_was_just_reset),
        cmocka_unit_test(fewer_sessions_allowed_ends_idle_ones),
        cmocka_unit_test(high_orders_go_first),
        cmocka_unit_test(an_order_is_not_sent_before_its_time),
        cmocka_unit_test(orders_outlive_a_session_and_go_back_when_no_other_comes),
        cmocka_unit_test(a_tarpit_pins_sessions_not_orders),
        cmocka_unit_test(a_withdrawn_order_is_left_alone),
        cmocka_unit_test(a_withdrawn_member_of_a_chain_is_skipped),
        cmocka_unit_test(a_retired_path_finishes_and_is_acknowledged),
        cmocka_unit_test(a_path_retired_in_a_transaction_lets_it_finish),
        cmocka_unit_test(a_path_never_seen_alive_is_acknowledged_at_once),
        cmocka_unit_test(draining_returns_what_is_not_on_the_wire_and_finishes_what_is),
        cmocka_unit_test(an_empty_pool_is_asked_a_few_times_a_pass),
        cmocka_unit_test(half_of_an_unasked_reply_keeps_orders_away),
        cmocka_unit_test(wild_orders_are_answered_and_never_followed),
        cmocka_unit_test(addresses_that_would_break_the_dialogue_stay_unsent),
        cmocka_unit_test(an_address_that_turns_wild_after_the_check_never_reaches_the_wire),
        cmocka_unit_test(wild_hints_and_chains_are_counted_and_end),
        cmocka_unit_test(a_member_with_another_message_goes_back),
        cmocka_unit_test(a_stale_generation_goes_back),
        cmocka_unit_test(wild_paths_are_ignored),
        cmocka_unit_test(a_path_that_needs_tls_is_never_used_without),
        cmocka_unit_test(more_orders_than_records_go_back),
        cmocka_unit_test(what_goes_back_for_the_next_host_tells_that_it_was_begun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
