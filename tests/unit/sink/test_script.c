/* The script's language, its shares, and that a retry can pass. */
#include "bench/sink/digest.h"
#include "bench/sink/script.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char error[512];

static struct script *script_of(const char *line) {
    static struct script script;
    memset(&script, 0, sizeof(script));
    assert_int_equal(script_add(&script, line, "test:1", error, sizeof(error)), 0);
    return &script;
}

static void wrong(const char *line, const char *part) {
    struct script *script = script_of("");
    assert_true(script_add(script, line, "rules:7", error, sizeof(error)) < 0);
    assert_int_equal(strncmp(error, "rules:7: ", 9), 0);
    if (strstr(error, part) == NULL)
        fail_msg("'%s' does not say '%s'", error, part);
    assert_int_equal(script->count, 0);
}

static void replies_have_a_code_and_a_text(void **state) {
    assert_string_equal(script_of("refuse rcpt")->rules[0].reply.text, "550 5.1.1 no such user\r\n");
    assert_string_equal(script_of("refuse rcpt code=553 text=\"5.7.1 go away\"")->rules[0].reply.text, "553 5.7.1 go away\r\n");
    assert_string_equal(script_of("defer final")->rules[0].reply.text, "451 4.3.0 try later\r\n");
    assert_string_equal(script_of("421 mail text=later")->rules[0].reply.text, "421 later\r\n");
    assert_string_equal(script_of("refuse banner")->rules[0].reply.text, "554 5.7.1 no service for you\r\n");
}

static void comments_and_empty_lines_are_no_rules(void **state) {
    assert_int_equal(script_of("  # refuse rcpt")->count, 0);
    assert_int_equal(script_of("\n")->count, 0);
    assert_int_equal(script_of("refuse rcpt # all of them")->count, 1);
}

static void what_is_wrong_is_said(void **state) {
    wrong("reject rcpt", "no action");
    wrong("refuse", "wants a stage");
    wrong("refuse quit", "wants a stage");
    wrong("refuse rcpt share=101", "percentage");
    wrong("refuse rcpt share=x", "percentage");
    wrong("refuse rcpt code=450", "500 to 599");
    wrong("defer rcpt code=550", "400 to 499");
    wrong("refuse connect", "belongs to banner");
    wrong("delay rcpt", "wants ms=");
    wrong("slow data", "wants bytes=");
    wrong("refuse mail recipient=a@b", "no recipient is known");
    wrong("defer mail attempts=1", "belongs to the stages rcpt");
    wrong("drop final with=fire", "rst or fin");
    wrong("stall final ms=3", "has no ms=");
    wrong("refuse rcpt nonsense", "KEY=VALUE");
}

static void a_file_s_error_names_its_line(void **state) {
    char path[] = "/tmp/test_sink_script-XXXXXX";
    int fd = mkstemp(path);
    const char *text = "# two rules\nrefuse rcpt share=1%\nrefuse nowhere\n";
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    struct script *script = script_of("");
    assert_true(script_read(script, path, error, sizeof(error)) < 0);
    unlink(path);
    assert_non_null(strstr(error, ":3: refuse wants a stage"));
    assert_int_equal(script_read(script, "/nonexistent/rules", error, sizeof(error)), -2);
    assert_non_null(strstr(error, "/nonexistent/rules"));
}

static void a_share_is_a_share(void **state) {
    struct script *script = script_of("refuse rcpt share=2.5%");
    unsigned refused = 0;
    for (uint64_t i = 0; i < 100000; i++) {
        struct script_verdict verdict, again;
        uint64_t key = xxh64(&i, sizeof(i), 0);
        script_decide(script, SCRIPT_RCPT, key, UINT64_MAX, &verdict);
        script_decide(script, SCRIPT_RCPT, key, UINT64_MAX, &again);
        assert_ptr_equal(verdict.rule, again.rule);
        refused += verdict.rule != NULL;
    }
    assert_in_range(refused, 2300, 2700);
    struct script_verdict other;
    script_decide(script, SCRIPT_DATA, 1, UINT64_MAX, &other);
    assert_null(other.rule);
}

static void none_and_all_are_exact(void **state) {
    struct script_verdict verdict;
    for (uint64_t key = 0; key < 10000; key++) {
        script_decide(script_of("refuse rcpt share=0"), SCRIPT_RCPT, key, UINT64_MAX, &verdict);
        assert_null(verdict.rule);
        script_decide(script_of("refuse rcpt share=100"), SCRIPT_RCPT, key, UINT64_MAX, &verdict);
        assert_non_null(verdict.rule);
    }
}

static void the_seed_changes_who(void **state) {
    struct script *script = script_of("refuse rcpt share=50");
    unsigned differ = 0;
    for (uint64_t key = 0; key < 1000; key++) {
        struct script_verdict one, other;
        script->seed = 1;
        script_decide(script, SCRIPT_RCPT, key, UINT64_MAX, &one);
        script->seed = 2;
        script_decide(script, SCRIPT_RCPT, key, UINT64_MAX, &other);
        differ += one.rule != other.rule;
    }
    assert_in_range(differ, 400, 600);
}

static void the_first_attempts_only(void **state) {
    struct seen attempts;
    assert_int_equal(seen_create(&attempts, 1000), 0);
    struct script *script = script_of("defer rcpt attempts=2");
    script->attempts = &attempts;
    assert_true(script->counts_attempts);
    for (uint64_t key = 100; key < 200; key++) {
        struct script_verdict verdict;
        for (unsigned attempt = 0; attempt < 5; attempt++) {
            script_decide(script, SCRIPT_RCPT, key << 32, UINT64_MAX, &verdict);
            assert_int_equal(verdict.rule != NULL, attempt < 2);
        }
    }
    assert_int_equal(script->rules[0].applied, 200);
    seen_destroy(&attempts);
}

static void patterns_pick_recipients(void **state) {
    struct script *script = script_of("refuse rcpt recipient=bad-*@*.TEST");
    assert_int_equal(script_match(script, "bad-1@d1.test"), 1);
    assert_int_equal(script_match(script, "good@d1.test"), 0);
}

static void delays_add_up_and_the_first_reply_wins(void **state) {
    struct script *script = script_of("delay rcpt ms=5");
    const char *more[] = {"slow rcpt bytes=10", "defer rcpt", "delay rcpt ms=7", "refuse rcpt"};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(script_add(script, more[i], "x", error, sizeof(error)), 0);
    struct script_verdict verdict;
    script_decide(script, SCRIPT_RCPT, 1, UINT64_MAX, &verdict);
    assert_int_equal(verdict.rule->action, SCRIPT_DEFER);
    assert_int_equal(verdict.delay_us, 5000);
    assert_int_equal(verdict.bytes_per_second, 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies_have_a_code_and_a_text),
        cmocka_unit_test(comments_and_empty_lines_are_no_rules),
        cmocka_unit_test(what_is_wrong_is_said),
        cmocka_unit_test(a_file_s_error_names_its_line),
        cmocka_unit_test(a_share_is_a_share),
        cmocka_unit_test(none_and_all_are_exact),
        cmocka_unit_test(the_seed_changes_who),
        cmocka_unit_test(the_first_attempts_only),
        cmocka_unit_test(patterns_pick_recipients),
        cmocka_unit_test(delays_add_up_and_the_first_reply_wins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
