/* Command lines as RFC 5321 section 4.1 has them. */
#include "bench/sink/command.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct command parse(const char *line, uint8_t extensions) {
    struct command command;
    command_parse(&command, line, strlen(line), extensions);
    return command;
}

static void is(const char *line, enum command_verb verb, enum command_error error) {
    struct command command = parse(line, EXTENSION_ALL);
    assert_int_equal(command.verb, verb);
    assert_int_equal(command.error, error);
}

static void has_path(const char *line, const char *path) {
    struct command command = parse(line, EXTENSION_ALL);
    assert_int_equal(command.error, COMMAND_GOOD);
    assert_int_equal(command.path_length, strlen(path));
    assert_memory_equal(command.path, path, strlen(path));
}

static void verbs_are_read_in_any_case(void **state) {
    is("EHLO a.example", COMMAND_EHLO, COMMAND_GOOD);
    is("ehlo [192.0.2.1]", COMMAND_EHLO, COMMAND_GOOD);
    is("Helo a", COMMAND_HELO, COMMAND_GOOD);
    is("QuIt", COMMAND_QUIT, COMMAND_GOOD);
    is("NOOP", COMMAND_NOOP, COMMAND_GOOD);
    is("NOOP whatever this is", COMMAND_NOOP, COMMAND_GOOD);
    is("VRFY a", COMMAND_VRFY, COMMAND_GOOD);
    is("RSET ", COMMAND_RSET, COMMAND_GOOD);
    is("EXPN a", COMMAND_UNKNOWN, COMMAND_GOOD);
    is("QUITE", COMMAND_UNKNOWN, COMMAND_GOOD);
    is("", COMMAND_UNKNOWN, COMMAND_GOOD);
}

static void arguments_that_must_be_there_or_must_not(void **state) {
    is("EHLO", COMMAND_EHLO, COMMAND_BAD_SYNTAX);
    is("EHLO ", COMMAND_EHLO, COMMAND_BAD_SYNTAX);
    is("EHLO a b", COMMAND_EHLO, COMMAND_BAD_SYNTAX);
    is("DATA x", COMMAND_DATA, COMMAND_BAD_SYNTAX);
    is("QUIT x", COMMAND_QUIT, COMMAND_BAD_SYNTAX);
    is("VRFY", COMMAND_VRFY, COMMAND_BAD_SYNTAX);
}

static void paths_are_strict(void **state) {
    has_path("MAIL FROM:<a@example.org>", "a@example.org");
    has_path("mail from:<>", "");
    has_path("MAIL FROM:<@r.example,@s.example:a@example.org>", "a@example.org"); /* RFC 5321 4.1.1.3: the route is ignored */
    has_path("RCPT TO:<\"a b\\\"> c\"@example.org>", "\"a b\\\"> c\"@example.org");
    has_path("RCPT TO:<Postmaster>", "Postmaster"); /* RFC 5321 4.5.1 */
    is("MAIL FROM: <a@example.org>", COMMAND_MAIL, COMMAND_BAD_SYNTAX);
    is("MAIL FROM:a@example.org", COMMAND_MAIL, COMMAND_BAD_SYNTAX);
    is("MAIL FROM:<a@example.org", COMMAND_MAIL, COMMAND_BAD_SYNTAX);
    is("MAIL FROM:<a b@example.org>", COMMAND_MAIL, COMMAND_BAD_SYNTAX);
    is("MAIL FROM:<a\001@example.org>", COMMAND_MAIL, COMMAND_BAD_SYNTAX);
    is("RCPT TO:<>", COMMAND_RCPT, COMMAND_BAD_SYNTAX);
    is("RCPT TO:<a>", COMMAND_RCPT, COMMAND_BAD_SYNTAX);
    is("RCPT TO:<@example.org>", COMMAND_RCPT, COMMAND_BAD_SYNTAX);
    is("RCPT FROM:<a@example.org>", COMMAND_RCPT, COMMAND_BAD_SYNTAX);
}

static void parameters_must_be_offered(void **state) {
    struct command command = parse("MAIL FROM:<a@b> SIZE=4096 BODY=8BITMIME SMTPUTF8", EXTENSION_ALL);
    assert_int_equal(command.error, COMMAND_GOOD);
    assert_int_equal(command.size, 4096);
    assert_true(command.eight_bit && command.utf8);
    assert_int_equal(parse("MAIL FROM:<a@b> SIZE=4096", EXTENSION_ALL & ~EXTENSION_SIZE).error, COMMAND_BAD_PARAMETER);
    assert_int_equal(parse("MAIL FROM:<a@b> BODY=7BIT", 0).error, COMMAND_BAD_PARAMETER);
    is("MAIL FROM:<a@b> RET=HDRS", COMMAND_MAIL, COMMAND_BAD_PARAMETER);
    is("RCPT TO:<a@b> NOTIFY=NEVER", COMMAND_RCPT, COMMAND_BAD_PARAMETER);
    is("MAIL FROM:<a@b> SIZE=x", COMMAND_MAIL, COMMAND_BAD_VALUE);
    is("MAIL FROM:<a@b> BODY=9BIT", COMMAND_MAIL, COMMAND_BAD_VALUE);
    is("MAIL FROM:<a@b>SIZE=1", COMMAND_MAIL, COMMAND_BAD_SYNTAX);
    is("MAIL FROM:<a@b>  ", COMMAND_MAIL, COMMAND_GOOD);
}

static void addresses_beyond_ascii_want_smtputf8(void **state) {
    is("MAIL FROM:<\xc3\xa9@example.org>", COMMAND_MAIL, COMMAND_BAD_SYNTAX);
    is("MAIL FROM:<\xc3\xa9@example.org> SMTPUTF8", COMMAND_MAIL, COMMAND_GOOD);
    assert_true(parse("RCPT TO:<\xc3\xa9@example.org>", EXTENSION_ALL).path_is_utf8);
}

static void chunks_have_a_size(void **state) {
    struct command command = parse("BDAT 123456789012 LAST", EXTENSION_ALL);
    assert_int_equal(command.error, COMMAND_GOOD);
    assert_true(command.size == 123456789012ULL && command.last);
    assert_false(parse("BDAT 0", EXTENSION_ALL).last);
    is("BDAT", COMMAND_BDAT, COMMAND_BAD_SYNTAX);
    is("BDAT -1", COMMAND_BDAT, COMMAND_BAD_SYNTAX);
    is("BDAT 1 LAST x", COMMAND_BDAT, COMMAND_BAD_SYNTAX);
    is("BDAT 9999999999999999999", COMMAND_BDAT, COMMAND_BAD_SYNTAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verbs_are_read_in_any_case),
        cmocka_unit_test(arguments_that_must_be_there_or_must_not),
        cmocka_unit_test(paths_are_strict),
        cmocka_unit_test(parameters_must_be_offered),
        cmocka_unit_test(addresses_beyond_ascii_want_smtputf8),
        cmocka_unit_test(chunks_have_a_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
