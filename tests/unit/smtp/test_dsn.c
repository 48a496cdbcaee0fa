/* test_dsn.c: what of RFC 3461, 6533 and 8689 is said to a server that offers it, and nothing to one that does not. */
#include "dataplane/smtp/command.h"
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define EHLO_DSN "250-mx.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 DSN\r\n"

static uint32_t dsn_slot(struct world *world, const char *recipient, uint8_t dsn, const char *envid) {
    uint32_t slot = world_slot(world, recipient, "x\r\n", 0);
    struct slot *at = world_at(world, slot);
    at->dsn = dsn;
    at->envid_length = (uint8_t)strlen(envid);
    memcpy(at->text + at->sender_length + at->recipient_length, envid, at->envid_length);
    return slot;
}

static void parameters_go_where_dsn_is_offered(void **state) {
    static const struct {
        const char *recipient;
        uint8_t flags, dsn;
        const char *envid, *mail, *rcpt;
    } cases[] = {
        {"b@example.test", 0, 0, "", "", ""},
        {"b@example.test", 0, SLOT_NOTIFY_NEVER, "", "", " NOTIFY=NEVER ORCPT=rfc822;b@example.test"},
        {"b@example.test", 0, SLOT_NOTIFY_NEVER | SLOT_NOTIFY_SUCCESS, "", "", " NOTIFY=NEVER ORCPT=rfc822;b@example.test"},
        {"b@example.test", 0, SLOT_NOTIFY_SUCCESS | SLOT_NOTIFY_FAILURE | SLOT_NOTIFY_DELAY | SLOT_RET_HDRS, "QQ+2B1",
         " RET=HDRS ENVID=QQ+2B1", " NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;b@example.test"},
        {"b+tag=x@example.test", 0, SLOT_NOTIFY_FAILURE | SLOT_RET_FULL, "", " RET=FULL",
         " NOTIFY=FAILURE ORCPT=rfc822;b+2Btag+3Dx@example.test"},
        {"b@example.test", 0, SLOT_RET_FULL, "id", " RET=FULL ENVID=id", ""},
        {"gr\xc3\xbc+\\@example.test", SLOT_SMTPUTF8, SLOT_NOTIFY_DELAY, "", " SMTPUTF8",
         " NOTIFY=DELAY ORCPT=utf-8;gr\xc3\xbc\\x{2B}\\x{5C}@example.test"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int offered = 0; offered <= 1; offered++) {
            struct world *world = world_new();
            char expected[512];
            world_path(world, 1, 1, 0);
            world->script.ehlo = offered ? EHLO_DSN : "250-mx.test\r\n250-PIPELINING\r\n250 SMTPUTF8\r\n";
            world_publish(world);
            uint32_t slot = dsn_slot(world, cases[i].recipient, cases[i].dsn, cases[i].envid);
            world_at(world, slot)->flags = cases[i].flags;
            world_order(world, slot);
            world_until_answered(world, slot);
            assert_string_equal(world_outcome(world, slot), "REPLIED FINAL 250 2.0.0");
            assert_string_equal(world_text(world, slot), "taken as 4711"); /* behind the identifier, not over it */
            snprintf(expected, sizeof(expected), "MAIL FROM:<a@sender.test>%s|RCPT TO:<%s>%s|",
                     offered          ? cases[i].mail
                     : cases[i].flags ? " SMTPUTF8"
                                      : "",
                     cases[i].recipient, offered ? cases[i].rcpt : "");
            assert_non_null(strstr(world->commands, expected));
            assert_int_equal((world_at(world, slot)->reply.flags & REPLY_DSN_PASSED_ON) != 0, offered && *cases[i].rcpt);
            world_free(world);
        }
    }
}

/* RFC 3461 5.2.2: only who took the message tells of it. */
static void a_refused_recipient_is_ours_to_tell(void **state) {
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world->script.ehlo = EHLO_DSN;
    world->script.rcpts[0] = "550 5.1.1 no\r\n";
    world_publish(world);
    uint32_t first = dsn_slot(world, "b@example.test", SLOT_NOTIFY_FAILURE, ""),
             second = dsn_slot(world, "c@example.test", SLOT_NOTIFY_FAILURE, "");
    world_chain(world, first, second);
    world_order(world, first);
    world_until_answered(world, first);
    assert_int_equal(world_at(world, first)->reply.flags & REPLY_DSN_PASSED_ON, 0);
    assert_int_equal(world_at(world, second)->reply.flags & REPLY_DSN_PASSED_ON, REPLY_DSN_PASSED_ON);
    world_free(world);
}

static void wild_identifiers_go_nowhere(void **state) {
    static const char *const bad[] = {"a b", "a=b", "a\r\nRCPT", "+4", "+zz", "\xc3\xbc", "+2b"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct world *world = world_new();
        world_path(world, 1, 1, 0);
        world->script.ehlo = EHLO_DSN;
        world_publish(world);
        uint32_t slot = dsn_slot(world, "b@example.test", 0, bad[i]);
        world_order(world, slot);
        assert_string_equal(world_outcome(world, slot), "LOCAL 554 5.5.4");
        world_free(world);
    }
    struct world *world = world_new();
    world_path(world, 1, 1, 0);
    world_publish(world);
    uint32_t slot = dsn_slot(world, "b@example.test", 0, "x");
    world_at(world, slot)->envid_length = SLOT_ENVID_MAX + 1;
    world_order(world, slot);
    assert_string_equal(world_outcome(world, slot), "LOCAL 554 5.3.0");
    world_free(world);
}

/* RFC 3461 4.2: at most 500 bytes; a longer one is not cut but left out. */
static void an_address_too_long_in_xtext_is_left_out(void **state) {
    char address[SLOT_ADDRESS_MAX], parameters[COMMAND_NOTIFY_BYTES];
    memset(address, '+', sizeof(address));
    command_notify(parameters, SLOT_NOTIFY_FAILURE, address, sizeof(address));
    assert_string_equal(parameters, " NOTIFY=FAILURE");
    command_notify(parameters, SLOT_NOTIFY_SUCCESS | SLOT_NOTIFY_FAILURE | SLOT_NOTIFY_DELAY, address, (COMMAND_ORCPT_MAX - 7) / 3);
    assert_int_equal(strlen(parameters), sizeof(" NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;") - 1 + (COMMAND_ORCPT_MAX - 7) / 3 * 3);
}

/* RFC 8689 4.2.1: over TLS that is not verified, or to a server that does not offer it, the message does not go. */
static void requiretls_is_not_done_without(void **state) {
    static const char *const ehlos[] = {EHLO_DSN, "250-mx.test\r\n250 REQUIRETLS\r\n"};
    for (size_t i = 0; i < sizeof(ehlos) / sizeof(ehlos[0]); i++) {
        struct world *world = world_new();
        world_path(world, 1, 1, 0);
        world->script.ehlo = ehlos[i];
        world_publish(world);
        uint32_t slot = world_slot(world, "b@example.test", "x\r\n", 0);
        world_at(world, slot)->flags = SLOT_REQUIRETLS;
        world_order(world, slot);
        world_until_answered(world, slot);
        assert_string_equal(world_outcome(world, slot), "LOCAL 550 5.7.30");
        assert_null(strstr(world->commands, "MAIL"));
        world_free(world);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters_go_where_dsn_is_offered), cmocka_unit_test(a_refused_recipient_is_ours_to_tell),
        cmocka_unit_test(wild_identifiers_go_nowhere),        cmocka_unit_test(an_address_too_long_in_xtext_is_left_out),
        cmocka_unit_test(requiretls_is_not_done_without),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
