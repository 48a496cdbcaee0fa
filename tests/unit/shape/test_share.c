/* Limits that nodes share (QUEUE.md: shared limits, leased to nodes in slices): two shapes under one clock, and a judge in the place of
 * Redis that gives each an equal part of what both want. */
#include "harness.h"

#include <string.h>

enum { RATE = 100, LIMIT = 5 };

struct judge {
    struct harness nodes[2];
    struct site *sites[2];
    uint32_t want[2][SHARE_PARTS], has[2][SHARE_PARTS];
    bool deaf; /* nobody answers */
    uint32_t asked, sent[2];
    int current;
};

static uint32_t smaller(uint32_t left, uint32_t right) {
    return left < right ? left : right;
}

/* As bypost_lease does: max-min fair, and never more than the other has left. */
static void on_demand(void *context, const struct shape_demand *demand) {
    struct judge *judge = context;
    int me = judge->current, other = 1 - me;
    uint32_t parts[SHARE_PARTS];
    judge->asked++;
    assert_string_equal(demand->name, "site.example");
    for (int part = 0; part < SHARE_PARTS; part++) {
        uint32_t total = demand->total[part], want = demand->want[part], rival = judge->want[other][part];
        uint32_t fair = want + rival <= total ? want : rival < total / 2 ? total - rival : total / 2;
        judge->want[me][part] = want;
        parts[part] = smaller(smaller(want, fair), total - judge->has[other][part]);
        judge->has[me][part] = parts[part] > demand->held[part] ? parts[part] : demand->held[part];
    }
    shape_granted(judge->nodes[me].shape, demand->share, judge->deaf ? NULL : parts, judge->nodes[me].now_us + 2500000,
                  judge->nodes[me].now_us);
}

static void ask(struct judge *judge, int node) {
    judge->current = node;
    shape_demands(judge->nodes[node].shape, 128, on_demand, judge, judge->nodes[node].now_us);
}

static void start(struct judge *judge) {
    memset(judge, 0, sizeof *judge);
    for (int i = 0; i < 2; i++) {
        struct harness *node = &judge->nodes[i];
        harness_start(node, 2);
        node->config.defaults = (struct shaping_limits){.connection_limit = LIMIT, .max_connection_rate = 10, .max_message_rate = RATE};
        judge->sites[i] = site_make(node, "site.example", 1);
    }
}

static void stop(struct judge *judge) {
    for (int i = 0; i < 2; i++) {
        harness_stop(&judge->nodes[i]);
        site_unmake(judge->sites[i]);
    }
}

static void share(struct judge *judge, uint32_t nodes) {
    for (int i = 0; i < 2; i++)
        shape_nodes(judge->nodes[i].shape, nodes, judge->nodes[i].now_us);
}

/* Both send what they may for so long; the largest number of messages of both in a second. */
static uint32_t run(struct judge *judge, uint32_t seconds) {
    static uint64_t times[100000];
    uint32_t count = 0, most = 0;
    uint64_t end_us = judge->nodes[0].now_us + (uint64_t)seconds * SECOND;
    for (uint32_t step = 0; judge->nodes[0].now_us < end_us; step++) {
        for (int i = 0; i < 2; i++) {
            struct harness *node = &judge->nodes[i];
            harness_advance(node, 1000);
            if (step % 200 == (uint32_t)i * 70)
                ask(judge, i);
            struct lane *lane = harness_lane(node, judge->sites[i]);
            while (lane && lane->sessions > 0 && lane->waiting > 0 && harness_send(node, lane)) {
                judge->sent[i]++;
                assert_true(count < 100000);
                times[count++] = node->now_us;
            }
        }
    }
    for (uint32_t first = 0, last = 0; last < count; last++) {
        while (times[last] - times[first] >= SECOND)
            first++;
        most = last - first + 1 > most ? last - first + 1 : most;
    }
    return most;
}

/* Alone nobody is asked, and the limit is this node's whole. */
static void alone(void **state) {
    struct judge judge;
    start(&judge);
    harness_fill(&judge.nodes[0], judge.sites[0], 1500);
    run(&judge, 10);
    assert_int_equal(judge.asked, 0);
    assert_in_range(judge.sent[0], 10 * RATE * 97 / 100, 10 * RATE * 112 / 100 + 1);
    stop(&judge);
}

/* A new site may use nothing before it was given a part; then both use the limit together, in no second more than it, 120 ms of it and one
 * message a node. */
static void two_share(void **state) {
    struct judge judge;
    start(&judge);
    share(&judge, 2);
    for (int i = 0; i < 2; i++)
        harness_fill(&judge.nodes[i], judge.sites[i], 1500);
    assert_int_equal(harness_lane(&judge.nodes[0], judge.sites[0])->sessions, 0);
    uint32_t most = run(&judge, 10);
    assert_in_range(most, 1, RATE * 112 / 100 + 2);
    assert_in_range(judge.sent[0] + judge.sent[1], 10 * RATE * 97 / 100, 10 * RATE * 112 / 100 + 2);
    assert_in_range(judge.sent[0], 4 * RATE, 6 * RATE);
    uint32_t sessions = 0;
    for (int i = 0; i < 2; i++)
        sessions += lane_allowed(harness_lane(&judge.nodes[i], judge.sites[i]));
    assert_in_range(sessions, 2, LIMIT);
    stop(&judge);
}

/* One that has nothing to send leaves its part to the other. */
static void demand_goes(void **state) {
    struct judge judge;
    start(&judge);
    share(&judge, 2);
    harness_fill(&judge.nodes[0], judge.sites[0], 1500);
    harness_fill(&judge.nodes[1], judge.sites[1], 100);
    run(&judge, 4); /* the second has sent its 100 after two */
    assert_int_equal(judge.sent[1], 100);
    uint32_t before = judge.sent[0];
    uint32_t most = run(&judge, 5);
    assert_in_range(judge.sent[0] - before, 5 * RATE * 97 / 100, 5 * RATE * 112 / 100 + 1);
    assert_in_range(most, 1, RATE * 112 / 100 + 2);
    stop(&judge);
}

/* From one node to two and back: the limit holds at the change, and is used whole again. */
static void nodes_come_and_go(void **state) {
    struct judge judge;
    start(&judge);
    harness_fill(&judge.nodes[0], judge.sites[0], 2500);
    run(&judge, 3);
    share(&judge, 2);
    ask(&judge, 0); /* the first enters what it uses before the second asks, as nodes see to */
    harness_fill(&judge.nodes[1], judge.sites[1], 1000);
    assert_in_range(run(&judge, 6), 1, RATE * 112 / 100 + 2);
    assert_in_range(judge.sent[1], 2 * RATE, 4 * RATE);
    share(&judge, 1);
    uint32_t before = judge.sent[0];
    run(&judge, 5);
    assert_in_range(judge.sent[0] - before, 5 * RATE * 97 / 100, 5 * RATE * 112 / 100 + 1);
    stop(&judge);
}

/* Nobody answers: after a second each goes on with an equal part, one connection at least. */
static void nobody_answers(void **state) {
    struct judge judge;
    start(&judge);
    judge.deaf = true;
    share(&judge, 2);
    for (int i = 0; i < 2; i++)
        harness_fill(&judge.nodes[i], judge.sites[i], 1500);
    run(&judge, 1);
    assert_int_equal(judge.sent[0] + judge.sent[1], 0);
    run(&judge, 10);
    for (int i = 0; i < 2; i++) {
        assert_in_range(judge.sent[i], 9 * RATE / 2, 10 * RATE / 2 + 8);
        assert_int_equal(lane_allowed(harness_lane(&judge.nodes[i], judge.sites[i])), LIMIT / 2);
    }
    stop(&judge);
}

/* An answer to a site that is gone is nobody's, and no memory is lost. */
static void keep(void *context, const struct shape_demand *demand) {
    struct share **kept = context;
    *kept = demand->share;
}

static void late_answer(void **state) {
    struct judge judge;
    struct share *kept = NULL;
    uint32_t parts[SHARE_PARTS] = {SHARE_WHOLE, SHARE_WHOLE, LIMIT};
    start(&judge);
    share(&judge, 2);
    struct harness *node = &judge.nodes[0];
    harness_fill(node, judge.sites[0], 1);
    assert_int_equal(shape_demands(node->shape, 128, keep, &kept, node->now_us), 1);
    assert_int_equal(shape_demands(node->shape, 128, keep, &kept, node->now_us), 0); /* it is asked for once at a time */
    harness_stop(node);
    shape_granted(NULL, kept, parts, 0, 0);
    site_unmake(judge.sites[0]);
    harness_stop(&judge.nodes[1]);
    site_unmake(judge.sites[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alone),          cmocka_unit_test(two_share),   cmocka_unit_test(demand_goes), cmocka_unit_test(nodes_come_and_go),
        cmocka_unit_test(nobody_answers), cmocka_unit_test(late_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
