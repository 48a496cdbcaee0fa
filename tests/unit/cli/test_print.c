/* What commands print for people: texts of peers, producers, Redis and files move no cursor and bring no lines of their own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "control/cli/cli.h"

#include <stdlib.h>
#include <string.h>

/* ECMA-48 5: C0, DEL and C1, which begin control sequences, C1 as one byte or as UTF-8; what is no UTF-8 may be taken for C1. */
static void cleaned(void **state) {
    static const char *const texts[][2] = {{"\x1b[2J\x1b]0;x\a", "?[2J?]0;x?"},
                                           {"a\xc2\x9b"
                                            "31mb",
                                            "a?31mb"},
                                           {"a\x9b"
                                            "31mb",
                                            "a?31mb"},
                                           {"\x7f\b\r\t", "????"},
                                           {"\xc2\xa0\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\xc2\xa0\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"},
                                           {"cut \xe2\x82", "cut ??"},
                                           {"", ""}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char text[64];
        strcpy(text, texts[i][0]);
        cli_clean(text);
        assert_string_equal(text, texts[i][1]);
    }
}

static void lines_are_the_formats(void **state) {
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    cli_print(out, "\nreason %s\n", "true\n0 recipients wait\n\x1b[A");
    cli_print(out, "%s", "x\ny");
    cli_print(out, "%s\n%s\n", "a", "b");
    fclose(out);
    assert_string_equal(text, "\nreason true 0 recipients wait ?[A\nx ya\nb\n");
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(cleaned), cmocka_unit_test(lines_are_the_formats)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
