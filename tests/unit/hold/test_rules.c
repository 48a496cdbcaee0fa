/* test_rules.c: which rule a delivery matches, and how fast that is told. */
#include "control/hold/rules.h"

#include "control/clock.h"
#include "control/route/route.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { NOW_MS = 1000000, ROUNDS = 20000, BUDGET_NS = 30000 /* one by one 10,000 rules take ten times as long, with sanitizers too */ };

/* A delivery of one recipient, from ann@example.org to bob@example.net, in queue spring of tenant shop, at mx.example.net of provider big.
 */
struct world {
    struct job job;
    struct job_recipient recipient;
    struct shaping_provider provider;
    struct site site;
    struct delivery delivery;
    struct hold_rules *rules;
};

static int set_up(void **state) {
    static char from[] = "ann@example.org", to[] = "bob@example.net", tenant[] = "shop", campaign[] = "easter",
                envelope[] = "bounce+1@mail.example.org";
    static char provider[] = "big";
    struct world *world = calloc(1, sizeof *world);
    world->recipient.mailbox = (struct mailbox){.email = to, .domain = to + 4};
    world->job = (struct job){
        .recipient_total = 1, .recipients = &world->recipient, .tenant = tenant, .campaign = campaign, .envelope_sender = envelope};
    world->job.from = (struct mailbox){.email = from, .domain = from + 4};
    strcpy(world->job.queue, "spring");
    world->provider.name = provider;
    strcpy(world->site.name, "mx.example.net");
    world->site.provider = &world->provider;
    world->delivery = (struct delivery){.job = &world->job, .site = &world->site};
    world->rules = hold_rules_create();
    *state = world;
    return world->rules == NULL;
}

static int tear_down(void **state) {
    struct world *world = *state;
    hold_rules_destroy(world->rules);
    free(world);
    return 0;
}

static int add(struct world *world, const char *id, const char *json) {
    return hold_rules_add(world->rules, id, json, strlen(json));
}

static const char *matched(struct world *world) {
    const struct hold_rule *rule = hold_rules_match(world->rules, &world->delivery, NOW_MS);
    return rule != NULL ? rule->id : "";
}

static void nothing_matches_without_rules(void **state) {
    assert_string_equal(matched(*state), "");
}

static void each_selector_matches_its_own(void **state) {
    static const char *const yes[] = {"\"queue\":\"spring\"",
                                      "\"site\":\"mx.example.net\"",
                                      "\"provider\":\"big\"",
                                      "\"domain\":\"EXAMPLE.net\"",
                                      "\"tenant\":\"shop\"",
                                      "\"campaign\":\"easter\"",
                                      "\"campaign\":\"spring\"",
                                      "\"sender\":\"Ann@example.org\"",
                                      "\"sender\":\"example.org\"",
                                      "\"sender\":\"mail.example.org\"",
                                      "\"recipient\":\"BOB@example.net\"",
                                      ""};
    static const char *const no[] = {"\"queue\":\"summer\"",
                                     "\"site\":\"mx2.example.net\"",
                                     "\"provider\":\"small\"",
                                     "\"domain\":\"net\"",
                                     "\"tenant\":\"sho\"",
                                     "\"campaign\":\"xmas\"",
                                     "\"sender\":\"bob@example.org\"",
                                     "\"sender\":\"org\"",
                                     "\"recipient\":\"rob@example.net\"",
                                     "\"queue\":\"spring\",\"tenant\":\"other\""};
    char json[256];
    for (size_t i = 0; i < sizeof yes / sizeof *yes + sizeof no / sizeof *no; i++) {
        bool wanted = i < sizeof yes / sizeof *yes;
        struct world *world;
        assert_int_equal(set_up((void **)&world), 0);
        snprintf(json, sizeof json, "{\"action\":\"hold\",\"match\":{%s}}", wanted ? yes[i] : no[i - sizeof yes / sizeof *yes]);
        assert_int_equal(add(world, "h", json), 0);
        if (strcmp(matched(world), wanted ? "h" : "") != 0)
            fail_msg("%s", json);
        tear_down((void **)&world);
    }
}

static void site_and_provider_match_only_what_is_routed(void **state) {
    struct world *world = *state;
    world->delivery.site = NULL;
    assert_int_equal(add(world, "s", "{\"action\":\"hold\",\"match\":{\"site\":\"mx.example.net\"}}"), 0);
    assert_int_equal(add(world, "p", "{\"action\":\"hold\",\"match\":{\"provider\":\"big\",\"queue\":\"spring\"}}"), 0);
    assert_string_equal(matched(world), "");
    world->delivery.site = &world->site;
    assert_string_not_equal(matched(world), "");
}

static void a_bounce_goes_before_a_hold_and_the_older_before_the_younger(void **state) {
    struct world *world = *state;
    assert_int_equal(add(world, "young", "{\"action\":\"hold\",\"match\":{\"recipient\":\"bob@example.net\"},\"since\":20}"), 0);
    assert_int_equal(add(world, "old", "{\"action\":\"hold\",\"match\":{\"queue\":\"spring\"},\"since\":10}"), 0);
    assert_string_equal(matched(world), "old");
    assert_int_equal(add(world, "bounce", "{\"action\":\"bounce\",\"match\":{\"tenant\":\"shop\"},\"since\":30}"), 0);
    assert_string_equal(matched(world), "bounce");
}

static void a_rule_ends_with_its_time(void **state) {
    struct world *world = *state;
    assert_int_equal(add(world, "over", "{\"action\":\"hold\",\"match\":{\"queue\":\"spring\"},\"until\":1000000}"), 0);
    assert_string_equal(matched(world), "");
    assert_int_equal(add(world, "lasts", "{\"action\":\"hold\",\"match\":{\"queue\":\"spring\"},\"until\":1000001}"), 0);
    assert_string_equal(matched(world), "lasts");
}

static void what_makes_no_sense_is_refused(void **state) {
    static const char *const wrong[] = {"",
                                        "[]",
                                        "{}",
                                        "{\"action\":\"hold\"}",
                                        "{\"action\":\"drop\",\"match\":{}}",
                                        "{\"action\":\"hold\",\"match\":{\"queue\":5}}",
                                        "{\"action\":\"hold\",\"match\":{\"colour\":\"red\"}}"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(add(*state, "w", wrong[i]), -EINVAL);
    assert_int_equal(add(*state, "an identifier that is far too long", "{\"action\":\"hold\",\"match\":{}}"), -EINVAL);
    assert_int_equal(hold_rules_count(((struct world *)*state)->rules), 0);
}

static void a_rule_reads_back_as_it_was_written(void **state) {
    struct world *world = *state;
    assert_int_equal(add(world, "h1",
                         "{\"action\":\"bounce\",\"match\":{\"sender\":\"a@b.test\",\"site\":\"s\"},\"reason\":\"why "
                         "\\\"so\\\"\",\"by\":\"me\",\"since\":5,\"until\":9}"),
                     0);
    char *json = hold_rule_write(hold_rules_named(world->rules, "h1"));
    assert_non_null(json);
    assert_int_equal(add(world, "h2", json), 0);
    free(json);
    const struct hold_rule *again = hold_rules_named(world->rules, "h2");
    assert_int_equal(again->action, HOLD_BOUNCE);
    assert_string_equal(again->match.sender, "a@b.test");
    assert_string_equal(again->match.site, "s");
    assert_null(again->match.queue);
    assert_string_equal(again->reason, "why \"so\"");
    assert_true(again->since_ms == 5 && again->until_ms == 9);
}

/* Ten thousand rules of every kind: all are obeyed, none past them, and a delivery costs about what it costs with ten. */
static void ten_thousand_rules_are_fast(void **state) {
    static const char *const kinds[] = {"recipient", "sender", "domain", "site", "queue", "tenant"};
    struct world *world = *state;
    char id[HOLD_ID_BYTES], json[256];
    for (uint32_t i = 0; i < HOLDS_MAX; i++) {
        snprintf(id, sizeof id, "h%u", i);
        snprintf(json, sizeof json, "{\"action\":\"hold\",\"match\":{\"%s\":\"name%u@other%u.test\"}}", kinds[i % 6], i, i);
        assert_int_equal(add(world, id, json), 0);
    }
    assert_int_equal(add(world, "more", "{\"action\":\"hold\",\"match\":{}}"), -ENOSPC);
    uint64_t start_us = clock_us(CLOCK_MONOTONIC);
    for (uint32_t i = 0; i < ROUNDS; i++)
        assert_null(hold_rules_match(world->rules, &world->delivery, NOW_MS));
    uint64_t ns = (clock_us(CLOCK_MONOTONIC) - start_us) * 1000 / ROUNDS;
    print_message("%llu ns a delivery with %d rules\n", (unsigned long long)ns, HOLDS_MAX);
    assert_true(ns < BUDGET_NS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nothing_matches_without_rules, set_up, tear_down),
        cmocka_unit_test(each_selector_matches_its_own),
        cmocka_unit_test_setup_teardown(site_and_provider_match_only_what_is_routed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_bounce_goes_before_a_hold_and_the_older_before_the_younger, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_rule_ends_with_its_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_makes_no_sense_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_rule_reads_back_as_it_was_written, set_up, tear_down),
        cmocka_unit_test_setup_teardown(ten_thousand_rules_are_fast, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
