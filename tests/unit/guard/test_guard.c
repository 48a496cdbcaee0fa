/* When a provider's word is believed, and what the guard makes of replies (SMTP.md section 6). */
#include "control/classify/classify.h"
#include "control/guard/guard.h"
#include "control/guard/watch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const uint64_t START_MS = UINT64_C(1790000000000);

/* -- the watch alone -- */

static struct watch_state note(struct watches *watches, bool invalid, uint64_t at_ms) {
    struct watch_state state;
    watch_note(watches, "big", invalid, at_ms, &state);
    return state;
}

/* An hour with `share` unknown ones in 1000, one reply each 100 ms. The last state; how often the watch was closed in *closed. */
static struct watch_state hours(struct watches *watches, unsigned share, uint64_t *now_ms, unsigned minutes, unsigned *closed) {
    struct watch_state state = {0};
    for (unsigned i = 0; i < minutes * 600; i++) {
        uint64_t hash = (i + 1) * UINT64_C(0x9e3779b97f4a7c15);
        state = note(watches, (hash >> 33) % 1000 < share, *now_ms);
        *closed += state.closed;
        *now_ms += 100;
    }
    return state;
}

static void a_provider_that_refuses_all_is_soon_not_believed(void **s) {
    struct watches *watches = watches_create();
    uint64_t now = START_MS;
    unsigned closed = 0, believed = 0;
    hours(watches, 10, &now, 60, &closed);
    assert_int_equal(closed, 0);
    struct watch_state state = {0};
    for (int i = 0; i < 20 && !state.closed; i++) {
        state = note(watches, true, now++);
        believed += !state.closed && !state.suspicious;
    }
    assert_true(state.closed);
    assert_true(believed <= 2); /* those that ended before the pattern could be seen */
    watches_destroy(watches);
}

static void the_usual_share_of_unknown_ones_is_believed(void **s) {
    for (unsigned share = 0; share <= 60; share += 20) { /* 6 in a hundred is its usual share */
        struct watches *watches = watches_create();
        uint64_t now = START_MS;
        unsigned closed = 0;
        for (unsigned growing = 0; growing <= share; growing += 10)
            hours(watches, growing, &now, 120, &closed);
        assert_int_equal(closed, 0);
        watches_destroy(watches);
    }
}

static void more_than_three_times_the_usual_share_is_not(void **s) {
    struct watches *watches = watches_create();
    uint64_t now = START_MS;
    unsigned closed = 0;
    hours(watches, 20, &now, 60, &closed);
    assert_int_equal(closed, 0);
    hours(watches, 120, &now, 10, &closed);
    assert_true(closed > 1000);
    watches_destroy(watches);
}

static void a_handful_is_no_pattern(void **s) {
    struct watches *watches = watches_create();
    uint64_t now = START_MS;
    for (int i = 0; i < 5; i++) { /* one of five in an evening */
        assert_false(note(watches, i == 2, now).closed);
        now += 60000;
    }
    watches_destroy(watches);
}

static void it_is_believed_again_when_it_accepts_again(void **s) {
    struct watches *watches = watches_create();
    uint64_t now = START_MS;
    unsigned closed = 0;
    hours(watches, 10, &now, 30, &closed);
    for (int i = 0; i < 300; i++)
        note(watches, true, now += 10);
    assert_true(watch_is_closed(watches, "big"));
    closed = 0;
    struct watch_state state = hours(watches, 5, &now, 30, &closed);
    assert_false(state.closed);
    assert_true(closed > 0 && closed < 11 * 600); /* the minutes that it is judged by have passed */
    assert_true(state.usual < 0.03);              /* the wave is not learnt as usual */
    watches_destroy(watches);
}

static void the_usual_shares_outlive_a_restart(void **s) {
    char path[] = "/tmp/bypost-guard-XXXXXX";
    close(mkstemp(path));
    struct watches *watches = watches_create(), *after = watches_create();
    uint64_t now = START_MS;
    unsigned closed = 0;
    struct watch_state before = hours(watches, 40, &now, 300, &closed);
    assert_int_equal(watches_save(watches, path), 0);
    assert_int_equal(watches_load(after, path), 0);
    struct watch_state state;
    watch_note(after, "big", false, now, &state);
    assert_true(state.usual > 0.03 && state.usual - before.usual < 0.001 && before.usual - state.usual < 0.001);
    FILE *file = fopen(path, "w");
    fputs("big -1 5\nbig 1e300 1e301\nbig nan nan\nnonsense\nother 5 1\n", file); /* a damaged file is as none */
    fclose(file);
    struct watches *fresh = watches_create();
    watches_load(fresh, path);
    watch_note(fresh, "big", false, now, &state);
    assert_true(state.usual > 0.019 && state.usual < 0.021);
    unlink(path);
    watches_destroy(watches);
    watches_destroy(after);
    watches_destroy(fresh);
}

/* -- the guard -- */

struct world {
    struct config config;
    struct alarms *alarms;
    struct guard *guard;
    struct job job;
    struct job_recipient recipient;
    uint64_t now_ms;
};

static int set_up(void **state) {
    static struct config_relay relay = {.domain = (char *)"relayed.test"};
    struct world *world = calloc(1, sizeof(*world));
    world->alarms = alarms_create();
    world->config.relay_count = 1;
    world->config.relays = &relay;
    struct guard_config config = {.config = &world->config, .alarms = world->alarms};
    world->guard = guard_create(&config);
    world->recipient.mailbox.email = (char *)"bob@big.test";
    world->job = (struct job){.recipients = &world->recipient, .recipient_total = 1, .campaign = (char *)"spring"};
    world->job.from.domain = "example.org";
    world->now_ms = START_MS;
    *state = world;
    return 0;
}

static int tear_down(void **state) {
    struct world *world = *state;
    guard_destroy(world->guard);
    alarms_destroy(world->alarms);
    free(world);
    return 0;
}

static struct classification end(struct world *world, const char *provider, const char *reply, enum smtp_stage stage) {
    struct outcome outcome = {0};
    struct classification out;
    if (reply == NULL)
        outcome = (struct outcome){.kind = OUTCOME_REPLIED, .stage = STAGE_FINAL, .code = 250};
    else
        assert_true(classify_parse(reply, stage, &outcome));
    outcome.source_family = 4;
    memcpy(outcome.source_address, (uint8_t[]){192, 0, 2, 1}, 4);
    classify(NULL, provider, &outcome, true, &out);
    guard_outcome(world->guard, &world->job, 0, provider, &outcome, &out, world->now_ms += 10);
    return out;
}

struct wanted {
    const char *kind;
    struct alarm alarm;
    bool found;
};

static void look(void *context, const struct alarm *alarm) {
    struct wanted *wanted = context;
    if (strcmp(alarm->kind, wanted->kind) != 0)
        return;
    wanted->alarm = *alarm;
    wanted->found = true;
}

static struct wanted alarm_of(struct world *world, const char *kind) {
    struct wanted wanted = {.kind = kind};
    alarms_each(world->alarms, look, &wanted);
    return wanted;
}

static void false_refusals_defer_with_an_alarm_that_names_the_remedies(void **state) {
    struct world *world = *state;
    for (int i = 0; i < 100; i++)
        end(world, "big", NULL, STAGE_FINAL);
    unsigned ended = 0;
    for (int i = 0; i < 300; i++) {
        struct classification out = end(world, "big", "550 5.1.1 user unknown", STAGE_RCPT);
        ended += out.verdict == VERDICT_BOUNCED;
        assert_int_equal(out.class, CLASS_INVALID_RECIPIENT);
        assert_true(out.verdict == VERDICT_BOUNCED || !out.suppress);
    }
    assert_in_range(ended, 0, 2);
    struct wanted alarm = alarm_of(world, "false_invalid_recipient");
    assert_true(alarm.found);
    assert_string_equal(alarm.alarm.subject, "big");
    assert_non_null(strstr(alarm.alarm.text, "bypost suppress undo --class invalid_recipient --provider big"));
    assert_non_null(strstr(alarm.alarm.text, "bypost retry --provider big"));
    assert_non_null(strstr(alarm.alarm.text, "bypost suppress trust big"));
    for (int i = 0; i < 10000; i++)
        end(world, "big", NULL, STAGE_FINAL);
    assert_false(alarm_of(world, "false_invalid_recipient").found);
    assert_int_equal(end(world, "big", "550 5.1.1 user unknown", STAGE_RCPT).verdict, VERDICT_BOUNCED);
}

static void refusals_elsewhere_are_believed_meanwhile(void **state) {
    struct world *world = *state;
    for (int i = 0; i < 50; i++)
        end(world, "big", "550 5.1.1 user unknown", STAGE_RCPT);
    assert_int_equal(end(world, "other", "550 5.1.1 user unknown", STAGE_RCPT).verdict, VERDICT_BOUNCED);
    assert_int_equal(end(world, NULL, "550 5.1.1 user unknown", STAGE_RCPT).verdict, VERDICT_BOUNCED);
}

static void a_blocked_source_is_told_with_its_provider_and_cleared_by_success(void **state) {
    struct world *world = *state;
    struct outcome outcome;
    struct classification out = {.class = CLASS_IP_REPUTATION, .verdict = VERDICT_DEFERRED};
    assert_true(classify_parse("550 5.7.1 on our block list", STAGE_MAIL, &outcome));
    outcome.source_family = 4;
    memcpy(outcome.source_address, (uint8_t[]){192, 0, 2, 1}, 4);
    guard_outcome(world->guard, &world->job, 0, "big", &outcome, &out, world->now_ms);
    assert_int_equal(out.verdict, VERDICT_DEFERRED);
    struct wanted alarm = alarm_of(world, "source_blocked");
    assert_true(alarm.found);
    assert_string_equal(alarm.alarm.subject, "192.0.2.1 at big");
    assert_non_null(strstr(alarm.alarm.text, "bypost retry --provider big"));
    end(world, "other", NULL, STAGE_FINAL);
    assert_true(alarm_of(world, "source_blocked").found);
    end(world, "big", NULL, STAGE_FINAL);
    assert_false(alarm_of(world, "source_blocked").found);
}

/* SMTP.md section 1: AUTH 4xx or 5xx: defer, alarm: a wrong password must not bounce a queue. */
static void a_relay_that_refuses_the_login_bounces_nothing(void **state) {
    struct world *world = *state;
    static const char *const replies[] = {"535 5.7.8 Authentication credentials invalid", "530 5.7.0 Authentication required",
                                          "535 bad password", "534 5.7.9 too weak"};
    world->recipient.mailbox.email = (char *)"bob@relayed.test";
    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        struct classification out = end(world, NULL, replies[i], STAGE_MAIL);
        assert_int_equal(out.verdict, VERDICT_DEFERRED);
        assert_int_equal(out.class, CLASS_AUTH_FAILED);
        assert_int_equal(out.scope, SCOPE_PATH);
        assert_false(out.suppress);
    }
    struct wanted alarm = alarm_of(world, "relay_auth");
    assert_true(alarm.found);
    assert_non_null(strstr(alarm.alarm.text, "bypost retry --domain relayed.test"));
    end(world, NULL, NULL, STAGE_FINAL);
    assert_false(alarm_of(world, "relay_auth").found);
    world->recipient.mailbox.email = (char *)"bob@elsewhere.test"; /* no relay of ours: it wants a login from all the world */
    assert_int_equal(end(world, NULL, "530 5.7.0 Authentication required", STAGE_MAIL).verdict, VERDICT_BOUNCED);
}

/* Past 20 replies and 20 %. */
static void a_sender_domain_is_held_past_twenty_replies_and_a_fifth(void **state) {
    struct world *world = *state;
    for (int i = 0; i < 19; i++)
        end(world, "big", "550 5.7.26 unauthenticated", STAGE_FINAL);
    assert_int_equal(guard_counters(world->guard)->holds, 0);
    for (int i = 0; i < 100; i++)
        end(world, "big", NULL, STAGE_FINAL);
    end(world, "big", "550 5.7.26 unauthenticated", STAGE_FINAL); /* 20 of 120 */
    assert_int_equal(guard_counters(world->guard)->holds, 0);
    for (int i = 0; i < 5; i++)
        end(world, "big", "550 5.7.26 unauthenticated", STAGE_FINAL); /* 25 of 125 */
    assert_int_equal(guard_counters(world->guard)->holds, 1);
    struct wanted alarm = alarm_of(world, "sender_refused");
    assert_true(alarm.found);
    assert_string_equal(alarm.alarm.subject, "example.org at big");
    assert_non_null(strstr(alarm.alarm.text, "bypost release guard-"));
}

static void an_hour_of_successes_hides_no_failure_of_now(void **state) {
    struct world *world = *state;
    for (int i = 0; i < 5000; i++)
        end(world, "big", NULL, STAGE_FINAL);
    for (int i = 0; i < 60; i++)
        end(world, "big", "550 5.7.26 unauthenticated", STAGE_FINAL);
    assert_in_range(guard_counters(world->guard)->holds, 1, 2); /* the second renews the first */
}

static void a_campaign_is_held_past_a_share_of_refused_content(void **state) {
    struct world *world = *state;
    for (int i = 0; i < 500; i++)
        end(world, "big", NULL, STAGE_FINAL);
    for (int i = 0; i < 55; i++)
        end(world, "big", "554 5.7.1 policy", STAGE_FINAL);
    assert_int_equal(guard_counters(world->guard)->holds, 0);
    end(world, "big", "554 5.7.1 policy", STAGE_FINAL); /* 56 of 556 */
    assert_int_equal(guard_counters(world->guard)->holds, 1);
    assert_string_equal(alarm_of(world, "campaign_refused").alarm.subject, "spring");
    world->job.campaign = NULL; /* single mail is no campaign */
    for (int i = 0; i < 200; i++)
        end(world, "big", "554 5.7.1 policy", STAGE_FINAL);
    assert_int_equal(guard_counters(world->guard)->holds, 1);
}

static enum verdict unrendered(struct world *world, uint32_t attempt) {
    struct outcome outcome = {
        .kind = OUTCOME_LOCAL, .stage = STAGE_CONNECT, .code = 554, .enhanced = {5, 6, 0}, .text = "the variable is missing"};
    struct classification out;
    classify(NULL, "big", &outcome, true, &out);
    assert_int_equal(out.verdict, VERDICT_BOUNCED);
    guard_outcome(world->guard, &world->job, 0, "big", &outcome, &out, world->now_ms += 10);
    guard_unrendered(world->guard, &world->job, attempt, &outcome, &out, world->now_ms);
    return out.verdict;
}

/* A variable that nobody has must not end all of them. */
static void a_campaign_of_which_no_message_can_be_made_is_held_and_nobody_ends(void **state) {
    struct world *world = *state;
    for (int i = 0; i < 19; i++)
        assert_int_equal(unrendered(world, 0), VERDICT_DEFERRED);
    assert_int_equal(guard_counters(world->guard)->holds, 0);
    assert_int_equal(unrendered(world, 0), VERDICT_DEFERRED);
    assert_int_equal(guard_counters(world->guard)->holds, 1);
    struct wanted alarm = alarm_of(world, "campaign_unrendered");
    assert_string_equal(alarm.alarm.subject, "spring");
    assert_non_null(strstr(alarm.alarm.text, "bypost campaign cancel spring"));
    assert_non_null(strstr(alarm.alarm.text, "bypost release guard-"));
    assert_int_equal(unrendered(world, 0), VERDICT_DEFERRED); /* what was on its way before the hold was there */
}

static void a_message_that_cannot_be_made_ends_where_others_can(void **state) {
    struct world *world = *state;
    assert_int_equal(unrendered(world, 0), VERDICT_DEFERRED);
    assert_int_equal(unrendered(world, 1), VERDICT_BOUNCED); /* a few of their own: once more, then they end */
    for (int i = 0; i < 490; i++)
        guard_rendered(world->guard, &world->job, world->now_ms);
    for (int i = 0; i < 52; i++)
        assert_int_equal(unrendered(world, 0), VERDICT_BOUNCED); /* 54 of 544 */
    assert_int_equal(guard_counters(world->guard)->holds, 0);
    assert_int_equal(unrendered(world, 0), VERDICT_DEFERRED); /* 55 of 545: a tenth */
    assert_int_equal(guard_counters(world->guard)->holds, 1);
    world->job.campaign = NULL;
    assert_int_equal(unrendered(world, 0), VERDICT_BOUNCED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_provider_that_refuses_all_is_soon_not_believed),
        cmocka_unit_test(the_usual_share_of_unknown_ones_is_believed),
        cmocka_unit_test(more_than_three_times_the_usual_share_is_not),
        cmocka_unit_test(a_handful_is_no_pattern),
        cmocka_unit_test(it_is_believed_again_when_it_accepts_again),
        cmocka_unit_test(the_usual_shares_outlive_a_restart),
        cmocka_unit_test_setup_teardown(false_refusals_defer_with_an_alarm_that_names_the_remedies, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refusals_elsewhere_are_believed_meanwhile, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_blocked_source_is_told_with_its_provider_and_cleared_by_success, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_relay_that_refuses_the_login_bounces_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_sender_domain_is_held_past_twenty_replies_and_a_fifth, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_hour_of_successes_hides_no_failure_of_now, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_campaign_is_held_past_a_share_of_refused_content, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_campaign_of_which_no_message_can_be_made_is_held_and_nobody_ends, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_message_that_cannot_be_made_ends_where_others_can, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
