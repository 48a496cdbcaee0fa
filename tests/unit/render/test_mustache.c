/* The cases of the Mustache specification (version 1.4.1) for interpolation, sections, inverted sections, comments and delimiters, with two
 * departures: what is missing is an error (SMTP.md section 5), and data are always an object. */
#include "unit.h"
#include "control/render/merge.h"

#include <errno.h>

struct mustache_case {
    const char *name, *data, *template, *expected; /* expected NULL: an error, since a variable is missing */
};

static void check(const struct mustache_case *cases, size_t count) {
    for (size_t i = 0; i < count; i++) {
        struct merge merge;
        char error[256] = "", *out = NULL;
        if (merge_open(&merge, NULL, cases[i].data, error, sizeof(error)) != 0)
            fail_msg("%s: %s", cases[i].name, error);
        int result = merge_expand(&merge, cases[i].template, true, 10000, &out, error, sizeof(error));
        if ((result == 0) != (cases[i].expected != NULL))
            fail_msg("%s: %d %s", cases[i].name, result, error);
        if (result == 0 && strcmp(out, cases[i].expected) != 0)
            fail_msg("%s: \"%s\" instead of \"%s\"", cases[i].name, out, cases[i].expected);
        if (result != 0)
            unit_assert_has(error, "is missing");
        free(out);
        merge_close(&merge);
    }
}

#define CHECK(cases) check(cases, sizeof(cases) / sizeof((cases)[0]))

static void interpolation(void **state) {
    static const struct mustache_case cases[] = {
        {"No Interpolation", "{}", "Hello from {Mustache}!\n", "Hello from {Mustache}!\n"},
        {"Basic Interpolation", "{\"subject\":\"world\"}", "Hello, {{subject}}!\n", "Hello, world!\n"},
        {"No Re-interpolation", "{\"template\":\"{{planet}}\",\"planet\":\"Earth\"}", "{{template}}: {{planet}}", "{{planet}}: Earth"},
        {"HTML Escaping", "{\"forbidden\":\"& \\\" < >\"}", "These characters should be HTML escaped: {{forbidden}}\n",
         "These characters should be HTML escaped: &amp; &quot; &lt; &gt;\n"},
        {"Triple Mustache", "{\"forbidden\":\"& \\\" < >\"}", "These characters should not be HTML escaped: {{{forbidden}}}\n",
         "These characters should not be HTML escaped: & \" < >\n"},
        {"Ampersand", "{\"forbidden\":\"& \\\" < >\"}", "These characters should not be HTML escaped: {{&forbidden}}\n",
         "These characters should not be HTML escaped: & \" < >\n"},
        {"Basic Integer Interpolation", "{\"mph\":85}", "\"{{mph}} miles an hour!\"", "\"85 miles an hour!\""},
        {"Triple Mustache Integer Interpolation", "{\"mph\":85}", "\"{{{mph}}} miles an hour!\"", "\"85 miles an hour!\""},
        {"Ampersand Integer Interpolation", "{\"mph\":85}", "\"{{&mph}} miles an hour!\"", "\"85 miles an hour!\""},
        {"Basic Decimal Interpolation", "{\"power\":1.210}", "\"{{power}} jiggawatts!\"", "\"1.21 jiggawatts!\""},
        {"Triple Mustache Decimal Interpolation", "{\"power\":1.210}", "\"{{{power}}} jiggawatts!\"", "\"1.21 jiggawatts!\""},
        {"Ampersand Decimal Interpolation", "{\"power\":1.210}", "\"{{&power}} jiggawatts!\"", "\"1.21 jiggawatts!\""},
        {"Basic Null Interpolation", "{\"cannot\":null}", "I ({{cannot}}) be seen!", "I () be seen!"},
        {"Triple Mustache Null Interpolation", "{\"cannot\":null}", "I ({{{cannot}}}) be seen!", "I () be seen!"},
        {"Ampersand Null Interpolation", "{\"cannot\":null}", "I ({{&cannot}}) be seen!", "I () be seen!"},
        {"Basic Context Miss Interpolation (departs)", "{}", "I ({{cannot}}) be seen!", NULL},
        {"Triple Mustache Context Miss Interpolation (departs)", "{}", "I ({{{cannot}}}) be seen!", NULL},
        {"Ampersand Context Miss Interpolation (departs)", "{}", "I ({{&cannot}}) be seen!", NULL},
        {"Dotted Names - Basic Interpolation", "{\"person\":{\"name\":\"Joe\"}}",
         "\"{{person.name}}\" == \"{{#person}}{{name}}{{/person}}\"", "\"Joe\" == \"Joe\""},
        {"Dotted Names - Triple Mustache Interpolation", "{\"person\":{\"name\":\"Joe\"}}",
         "\"{{{person.name}}}\" == \"{{#person}}{{{name}}}{{/person}}\"", "\"Joe\" == \"Joe\""},
        {"Dotted Names - Ampersand Interpolation", "{\"person\":{\"name\":\"Joe\"}}",
         "\"{{&person.name}}\" == \"{{#person}}{{&name}}{{/person}}\"", "\"Joe\" == \"Joe\""},
        {"Dotted Names - Arbitrary Depth", "{\"a\":{\"b\":{\"c\":{\"d\":{\"e\":{\"name\":\"Phil\"}}}}}}",
         "\"{{a.b.c.d.e.name}}\" == \"Phil\"", "\"Phil\" == \"Phil\""},
        {"Dotted Names - Broken Chains (departs)", "{\"a\":{}}", "\"{{a.b.c}}\" == \"\"", NULL},
        {"Dotted Names - Broken Chain Resolution (departs)", "{\"a\":{\"b\":{}},\"c\":{\"name\":\"Jim\"}}", "\"{{a.b.c.name}}\" == \"\"",
         NULL},
        {"Dotted Names - Initial Resolution",
         "{\"a\":{\"b\":{\"c\":{\"d\":{\"e\":{\"name\":\"Phil\"}}}}},\"b\":{\"c\":{\"d\":{\"e\":{\"name\":\"Wrong\"}}}}}",
         "\"{{#a}}{{b.c.d.e.name}}{{/a}}\" == \"Phil\"", "\"Phil\" == \"Phil\""},
        {"Dotted Names - Context Precedence (departs)", "{\"a\":{\"b\":{}},\"b\":{\"c\":\"ERROR\"}}", "{{#a}}{{b.c}}{{/a}}", NULL},
        {"Dotted names are never single keys (departs: they may be)", "{\"a.b\":\"c\"}", "{{a.b}}", "c"},
        {"Dotted Names - No Masking (departs: whole names first)", "{\"a.b\":\"c\",\"a\":{\"b\":\"d\"}}", "{{a.b}}", "c"},
        {"Interpolation - Surrounding Whitespace", "{\"string\":\"---\"}", "| {{string}} |", "| --- |"},
        {"Triple Mustache - Surrounding Whitespace", "{\"string\":\"---\"}", "| {{{string}}} |", "| --- |"},
        {"Ampersand - Surrounding Whitespace", "{\"string\":\"---\"}", "| {{&string}} |", "| --- |"},
        {"Interpolation - Standalone", "{\"string\":\"---\"}", "  {{string}}\n", "  ---\n"},
        {"Triple Mustache - Standalone", "{\"string\":\"---\"}", "  {{{string}}}\n", "  ---\n"},
        {"Ampersand - Standalone", "{\"string\":\"---\"}", "  {{&string}}\n", "  ---\n"},
        {"Interpolation With Padding", "{\"string\":\"---\"}", "|{{ string }}|", "|---|"},
        {"Triple Mustache With Padding", "{\"string\":\"---\"}", "|{{{ string }}}|", "|---|"},
        {"Ampersand With Padding", "{\"string\":\"---\"}", "|{{& string }}|", "|---|"},
        {"Padding before the sign", "{\"string\":\"<\"}", "|{{ & string }}|{{ {string}}}|{{\n&string}}|", "|<|<|<|"},
    };
    CHECK(cases);
}

static void sections(void **state) {
    static const struct mustache_case cases[] = {
        {"Truthy", "{\"boolean\":true}", "\"{{#boolean}}This should be rendered.{{/boolean}}\"", "\"This should be rendered.\""},
        {"Falsey", "{\"boolean\":false}", "\"{{#boolean}}This should not be rendered.{{/boolean}}\"", "\"\""},
        {"Null is falsey", "{\"null\":null}", "\"{{#null}}This should not be rendered.{{/null}}\"", "\"\""},
        {"An empty text is falsey (our choice)", "{\"s\":\"\"}", "\"{{#s}}no{{/s}}{{^s}}yes{{/s}}\"", "\"yes\""},
        {"Zero is truthy (our choice)", "{\"n\":0}", "\"{{#n}}{{n}}{{/n}}\"", "\"0\""},
        {"Context", "{\"context\":{\"name\":\"Joe\"}}", "\"{{#context}}Hi {{name}}.{{/context}}\"", "\"Hi Joe.\""},
        {"Parent contexts", "{\"a\":\"foo\",\"b\":\"wrong\",\"sec\":{\"b\":\"bar\"},\"c\":{\"d\":\"baz\"}}",
         "\"{{#sec}}{{a}}, {{b}}, {{c.d}}{{/sec}}\"", "\"foo, bar, baz\""},
        {"Variable test", "{\"foo\":\"bar\"}", "\"{{#foo}}{{.}} is {{foo}}{{/foo}}\"", "\"bar is bar\""},
        {"List Contexts",
         "{\"tops\":[{\"tname\":{\"upper\":\"A\",\"lower\":\"a\"},\"middles\":[{\"mname\":\"1\",\"bottoms\":[{\"bname\":\"x\"},{\"bname\":"
         "\"y\"}]}]}]}",
         "{{#tops}}{{#middles}}{{tname.lower}}{{mname}}.{{#bottoms}}{{tname.upper}}{{mname}}{{bname}}.{{/bottoms}}{{/middles}}{{/tops}}",
         "a1.A1x.A1y."},
        {"Deeply Nested Contexts", "{\"a\":{\"one\":1},\"b\":{\"two\":2},\"c\":{\"three\":3,\"d\":{\"four\":4,\"five\":5}}}",
         "{{#a}}\n{{one}}\n{{#b}}\n{{one}}{{two}}{{one}}\n{{#c}}\n{{one}}{{two}}{{three}}{{two}}{{one}}\n{{#d}}\n"
         "{{one}}{{two}}{{three}}{{four}}{{three}}{{two}}{{one}}\n{{#five}}\n"
         "{{one}}{{two}}{{three}}{{four}}{{five}}{{four}}{{three}}{{two}}{{one}}\n"
         "{{one}}{{two}}{{three}}{{four}}{{.}}6{{.}}{{four}}{{three}}{{two}}{{one}}\n"
         "{{one}}{{two}}{{three}}{{four}}{{five}}{{four}}{{three}}{{two}}{{one}}\n{{/five}}\n"
         "{{one}}{{two}}{{three}}{{four}}{{three}}{{two}}{{one}}\n{{/d}}\n{{one}}{{two}}{{three}}{{two}}{{one}}\n{{/c}}\n"
         "{{one}}{{two}}{{one}}\n{{/b}}\n{{one}}\n{{/a}}\n",
         "1\n121\n12321\n1234321\n123454321\n12345654321\n123454321\n1234321\n12321\n121\n1\n"},
        {"List", "{\"list\":[{\"item\":1},{\"item\":2},{\"item\":3}]}", "\"{{#list}}{{item}}{{/list}}\"", "\"123\""},
        {"Empty List", "{\"list\":[]}", "\"{{#list}}Yay lists!{{/list}}\"", "\"\""},
        {"Doubled", "{\"bool\":true,\"two\":\"second\"}", "{{#bool}}\n* first\n{{/bool}}\n* {{two}}\n{{#bool}}\n* third\n{{/bool}}\n",
         "* first\n* second\n* third\n"},
        {"Nested (Truthy)", "{\"bool\":true}", "| A {{#bool}}B {{#bool}}C{{/bool}} D{{/bool}} E |", "| A B C D E |"},
        {"Nested (Falsey)", "{\"bool\":false}", "| A {{#bool}}B {{#bool}}C{{/bool}} D{{/bool}} E |", "| A  E |"},
        {"Context Misses", "{}", "[{{#missing}}Found key 'missing'!{{/missing}}]", "[]"},
        {"Implicit Iterator - String", "{\"list\":[\"a\",\"b\",\"c\",\"d\",\"e\"]}", "\"{{#list}}({{.}}){{/list}}\"",
         "\"(a)(b)(c)(d)(e)\""},
        {"Implicit Iterator - Integer", "{\"list\":[1,2,3,4,5]}", "\"{{#list}}({{.}}){{/list}}\"", "\"(1)(2)(3)(4)(5)\""},
        {"Implicit Iterator - Decimal", "{\"list\":[1.1,2.2,3.3,4.4,5.5]}", "\"{{#list}}({{.}}){{/list}}\"",
         "\"(1.1)(2.2)(3.3)(4.4)(5.5)\""},
        {"Implicit Iterator - Array", "{\"list\":[[1,2,3],[\"a\",\"b\",\"c\"]]}", "\"{{#list}}({{#.}}{{.}}{{/.}}){{/list}}\"",
         "\"(123)(abc)\""},
        {"Implicit Iterator - HTML Escaping", "{\"list\":[\"&\",\"\\\"\",\"<\",\">\"]}", "\"{{#list}}({{.}}){{/list}}\"",
         "\"(&amp;)(&quot;)(&lt;)(&gt;)\""},
        {"Implicit Iterator - Triple mustache", "{\"list\":[\"&\",\"\\\"\",\"<\",\">\"]}", "\"{{#list}}({{{.}}}){{/list}}\"",
         "\"(&)(\")(<)(>)\""},
        {"Implicit Iterator - Ampersand", "{\"list\":[\"&\",\"\\\"\",\"<\",\">\"]}", "\"{{#list}}({{&.}}){{/list}}\"", "\"(&)(\")(<)(>)\""},
        {"Dotted Names - Truthy", "{\"a\":{\"b\":{\"c\":true}}}", "\"{{#a.b.c}}Here{{/a.b.c}}\" == \"Here\"", "\"Here\" == \"Here\""},
        {"Dotted Names - Falsey", "{\"a\":{\"b\":{\"c\":false}}}", "\"{{#a.b.c}}Here{{/a.b.c}}\" == \"\"", "\"\" == \"\""},
        {"Dotted Names - Broken Chains", "{\"a\":{}}", "\"{{#a.b.c}}Here{{/a.b.c}}\" == \"\"", "\"\" == \"\""},
        {"Surrounding Whitespace", "{\"boolean\":true}", " | {{#boolean}}\t|\t{{/boolean}} | \n", " | \t|\t | \n"},
        {"Internal Whitespace", "{\"boolean\":true}", " | {{#boolean}} {{! Important Whitespace }}\n {{/boolean}} | \n", " |  \n  | \n"},
        {"Indented Inline Sections", "{\"boolean\":true}", " {{#boolean}}YES{{/boolean}}\n {{#boolean}}GOOD{{/boolean}}\n",
         " YES\n GOOD\n"},
        {"Standalone Lines", "{\"boolean\":true}", "| This Is\n{{#boolean}}\n|\n{{/boolean}}\n| A Line\n", "| This Is\n|\n| A Line\n"},
        {"Indented Standalone Lines", "{\"boolean\":true}", "| This Is\n  {{#boolean}}\n|\n  {{/boolean}}\n| A Line\n",
         "| This Is\n|\n| A Line\n"},
        {"Standalone Line Endings", "{\"boolean\":true}", "|\r\n{{#boolean}}\r\n{{/boolean}}\r\n|", "|\r\n|"},
        {"Standalone Without Previous Line", "{\"boolean\":true}", "  {{#boolean}}\n#{{/boolean}}\n/", "#\n/"},
        {"Standalone Without Newline", "{\"boolean\":true}", "#{{#boolean}}\n/\n  {{/boolean}}", "#\n/\n"},
        {"Padding", "{\"boolean\":true}", "|{{# boolean }}={{/ boolean }}|", "|=|"},
    };
    CHECK(cases);
}

static void inverted(void **state) {
    static const struct mustache_case cases[] = {
        {"Falsey", "{\"boolean\":false}", "\"{{^boolean}}This should be rendered.{{/boolean}}\"", "\"This should be rendered.\""},
        {"Truthy", "{\"boolean\":true}", "\"{{^boolean}}This should not be rendered.{{/boolean}}\"", "\"\""},
        {"Null is falsey", "{\"null\":null}", "\"{{^null}}This should be rendered.{{/null}}\"", "\"This should be rendered.\""},
        {"Context", "{\"context\":{\"name\":\"Joe\"}}", "\"{{^context}}Hi {{name}}.{{/context}}\"", "\"\""},
        {"List", "{\"list\":[{\"n\":1},{\"n\":2},{\"n\":3}]}", "\"{{^list}}{{n}}{{/list}}\"", "\"\""},
        {"Empty List", "{\"list\":[]}", "\"{{^list}}Yay lists!{{/list}}\"", "\"Yay lists!\""},
        {"Doubled", "{\"bool\":false,\"two\":\"second\"}", "{{^bool}}\n* first\n{{/bool}}\n* {{two}}\n{{^bool}}\n* third\n{{/bool}}\n",
         "* first\n* second\n* third\n"},
        {"Nested (Falsey)", "{\"bool\":false}", "| A {{^bool}}B {{^bool}}C{{/bool}} D{{/bool}} E |", "| A B C D E |"},
        {"Nested (Truthy)", "{\"bool\":true}", "| A {{^bool}}B {{^bool}}C{{/bool}} D{{/bool}} E |", "| A  E |"},
        {"Context Misses", "{}", "[{{^missing}}Cannot find key 'missing'!{{/missing}}]", "[Cannot find key 'missing'!]"},
        {"Dotted Names - Truthy", "{\"a\":{\"b\":{\"c\":true}}}", "\"{{^a.b.c}}Not Here{{/a.b.c}}\" == \"\"", "\"\" == \"\""},
        {"Dotted Names - Falsey", "{\"a\":{\"b\":{\"c\":false}}}", "\"{{^a.b.c}}Not Here{{/a.b.c}}\" == \"Not Here\"",
         "\"Not Here\" == \"Not Here\""},
        {"Dotted Names - Broken Chains", "{\"a\":{}}", "\"{{^a.b.c}}Not Here{{/a.b.c}}\" == \"Not Here\"", "\"Not Here\" == \"Not Here\""},
        {"Surrounding Whitespace", "{\"boolean\":false}", " | {{^boolean}}\t|\t{{/boolean}} | \n", " | \t|\t | \n"},
        {"Internal Whitespace", "{\"boolean\":false}", " | {{^boolean}} {{! Important Whitespace }}\n {{/boolean}} | \n", " |  \n  | \n"},
        {"Indented Inline Sections", "{\"boolean\":false}", " {{^boolean}}NO{{/boolean}}\n {{^boolean}}WAY{{/boolean}}\n", " NO\n WAY\n"},
        {"Standalone Lines", "{\"boolean\":false}", "| This Is\n{{^boolean}}\n|\n{{/boolean}}\n| A Line\n", "| This Is\n|\n| A Line\n"},
        {"Standalone Indented Lines", "{\"boolean\":false}", "| This Is\n  {{^boolean}}\n|\n  {{/boolean}}\n| A Line\n",
         "| This Is\n|\n| A Line\n"},
        {"Standalone Line Endings", "{\"boolean\":false}", "|\r\n{{^boolean}}\r\n{{/boolean}}\r\n|", "|\r\n|"},
        {"Standalone Without Previous Line", "{\"boolean\":false}", "  {{^boolean}}\n^{{/boolean}}\n/", "^\n/"},
        {"Standalone Without Newline", "{\"boolean\":false}", "^{{^boolean}}\n/\n  {{/boolean}}", "^\n/\n"},
        {"Padding", "{\"boolean\":false}", "|{{^ boolean }}={{/ boolean }}|", "|=|"},
    };
    CHECK(cases);
}

static void comments(void **state) {
    static const struct mustache_case cases[] = {
        {"Inline", "{}", "12345{{! Comment Block! }}67890", "1234567890"},
        {"Multiline", "{}", "12345{{!\n  This is a\n  multi-line comment...\n}}67890\n", "1234567890\n"},
        {"Standalone", "{}", "Begin.\n{{! Comment Block! }}\nEnd.\n", "Begin.\nEnd.\n"},
        {"Indented Standalone", "{}", "Begin.\n  {{! Indented Comment Block! }}\nEnd.\n", "Begin.\nEnd.\n"},
        {"Standalone Line Endings", "{}", "|\r\n{{! Standalone Comment }}\r\n|", "|\r\n|"},
        {"Standalone Without Previous Line", "{}", "  {{! I'm Still Standalone }}\n!", "!"},
        {"Standalone Without Newline", "{}", "!\n  {{! I'm Still Standalone }}", "!\n"},
        {"Multiline Standalone", "{}", "Begin.\n{{!\nSomething's going on here...\n}}\nEnd.\n", "Begin.\nEnd.\n"},
        {"Indented Multiline Standalone", "{}", "Begin.\n  {{!\n    Something's going on here...\n  }}\nEnd.\n", "Begin.\nEnd.\n"},
        {"Indented Inline", "{}", "  12 {{! 34 }}\n", "  12 \n"},
        {"Surrounding Whitespace", "{}", "12345 {{! Comment Block! }} 67890", "12345  67890"},
        {"Variable Name Collision", "{\"! comment\":1,\"! comment \":2,\"!comment\":3,\"comment\":4}",
         "comments never show: >{{! comment }}<", "comments never show: ><"},
    };
    CHECK(cases);
}

static void delimiters(void **state) {
    static const struct mustache_case cases[] = {
        {"Pair Behavior", "{\"text\":\"Hey!\"}", "{{=<% %>=}}(<%text%>)", "(Hey!)"},
        {"Special Characters", "{\"text\":\"It worked!\"}", "({{=[ ]=}}[text])", "(It worked!)"},
        {"Sections", "{\"section\":true,\"data\":\"I got interpolated.\"}",
         "[\n{{#section}}\n  {{data}}\n  |data|\n{{/section}}\n\n{{= | | =}}\n|#section|\n  {{data}}\n  |data|\n|/section|\n]\n",
         "[\n  I got interpolated.\n  |data|\n\n  {{data}}\n  I got interpolated.\n]\n"},
        {"Inverted Sections", "{\"section\":false,\"data\":\"I got interpolated.\"}",
         "[\n{{^section}}\n  {{data}}\n  |data|\n{{/section}}\n\n{{= | | =}}\n|^section|\n  {{data}}\n  |data|\n|/section|\n]\n",
         "[\n  I got interpolated.\n  |data|\n\n  {{data}}\n  I got interpolated.\n]\n"},
        {"Surrounding Whitespace", "{}", "| {{=@ @=}} |", "|  |"},
        {"Outlying Whitespace (Inline)", "{}", " | {{=@ @=}}\n", " | \n"},
        {"Standalone Tag", "{}", "Begin.\n{{=@ @=}}\nEnd.\n", "Begin.\nEnd.\n"},
        {"Indented Standalone Tag", "{}", "Begin.\n  {{=@ @=}}\nEnd.\n", "Begin.\nEnd.\n"},
        {"Standalone Line Endings", "{}", "|\r\n{{= @ @ =}}\r\n|", "|\r\n|"},
        {"Standalone Without Previous Line", "{}", "  {{=@ @=}}\n=", "="},
        {"Standalone Without Newline", "{}", "=\n  {{=@ @=}}", "=\n"},
        {"Pair with Padding", "{}", "|{{= @   @ =}}|", "||"},
    };
    CHECK(cases);
}

static void faults_tell_line_and_column(void **state) {
    static const struct {
        const char *template, *error;
    } cases[] = {
        {"a\n\xC3\xA9 {{#x}}", "line 2, column 3: the section \"x\" has no end"},
        {"{{/x}}", "line 1, column 1: the end of a section \"x\" that did not begin"},
        {"{{#a}}\n{{#b}}\n{{/a}}", "line 3, column 1: the end of a section \"a\" where that of \"b\" is due"},
        {"x {{>part}}", "line 1, column 3: \"{{>\" is not supported: there are no partials"},
        {"{{<layout}}", "there are no blocks"},
        {"{{$block}}", "there are no blocks"},
        {"{{=<%=}}", "delimiters are two words"},
        {"{{=< > |=}}", "delimiters are two words"},
        {"{{=<% %>}}", "no end \"=}}\""},
        {"{{=123456789 >=}}", "delimiters are two words"},
        {"{{= a=b c =}}", "delimiters are two words"},
        {"{{=\x16 > =}}", "delimiters are two words"},
        {"{{=< >\x7F =}}", "delimiters are two words"},
        {"{{#}}x{{/}}", "has no name"},
        {"{{#a b}}x{{/a b}}", "has no name"},
        {"ok {{! never", "line 1, column 4: a comment"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct mustache mustache;
        char error[256] = "";
        assert_int_equal(mustache_compile(&mustache, cases[i].template, error, sizeof(error)), -EINVAL);
        unit_assert_has(error, cases[i].error);
    }
}

static void limits_have_names(void **state) {
    static char text[1 << 20], data[1 << 16];
    char error[256];
    struct mustache mustache;
    text[0] = '\0';
    for (int i = 0; i < MUSTACHE_DEPTH_MAX + 1; i++)
        strcat(text, "{{#a}}");
    for (int i = 0; i < MUSTACHE_DEPTH_MAX + 1; i++)
        strcat(text, "{{/a}}");
    assert_int_equal(mustache_compile(&mustache, text, error, sizeof(error)), -EINVAL);
    unit_assert_has(error, "sections lie in one another");
    assert_int_equal(mustache_compile(&mustache, text + 6, error, sizeof(error)), -EINVAL); /* an end too many, at the right depth */
    unit_assert_has(error, "did not begin");
    for (size_t i = 0; i <= MUSTACHE_OPS_MAX; i++)
        memcpy(text + i * 6, "{{a}}x", 7);
    assert_int_equal(mustache_compile(&mustache, text, error, sizeof(error)), -EINVAL);
    unit_assert_has(error, "more than 65536 tags");
    /* 2,000 times 2,000 items that write nothing. */
    strcpy(data, "{\"l\":[1");
    for (int i = 1; i < 2000; i++)
        strcat(data, ",1");
    strcat(data, "]}");
    struct merge merge;
    char *out = NULL;
    assert_int_equal(merge_open(&merge, NULL, data, error, sizeof(error)), 0);
    assert_int_equal(merge_expand(&merge, "{{#l}}{{#l}}{{/l}}{{/l}}", false, 10000, &out, error, sizeof(error)), -EINVAL);
    unit_assert_has(error, "more than 1000000 tags");
    assert_int_equal(merge_expand(&merge, "{{#l}}{{.}}{{/l}}", false, 10000, &out, error, sizeof(error)), -EINVAL); /* it is spent */
    merge_close(&merge);
    assert_int_equal(merge_open(&merge, NULL, data, error, sizeof(error)), 0);
    assert_int_equal(merge_expand(&merge, "{{#l}}{{#l}}x{{/l}}{{/l}}", false, 10000, &out, error, sizeof(error)), -E2BIG);
    assert_int_equal(merge_expand(&merge, "{{#l}}{{.}}{{/l}}", false, 10000, &out, error, sizeof(error)), 0);
    assert_int_equal(strlen(out), 2000);
    free(out);
    merge_close(&merge);
}

/* What a section guards may be missing. */
static void a_section_guards_its_variables(void **state) {
    static const struct mustache_case cases[] = {
        {"absent", "{}", "{{#city}}in {{city}}{{/city}}{{^city}}somewhere{{/city}}", "somewhere"},
        {"empty column", "{\"city\":\"\"}", "{{#city}}in {{city}}{{/city}}{{^city}}somewhere{{/city}}", "somewhere"},
        {"there", "{\"city\":\"Bern\"}", "{{#city}}in {{city}}{{/city}}{{^city}}somewhere{{/city}}", "in Bern"},
        {"unguarded", "{\"city\":\"Bern\"}", "{{#city}}in {{country}}{{/city}}", NULL},
    };
    CHECK(cases);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(interpolation),     cmocka_unit_test(sections),
        cmocka_unit_test(inverted),          cmocka_unit_test(comments),
        cmocka_unit_test(delimiters),        cmocka_unit_test(faults_tell_line_and_column),
        cmocka_unit_test(limits_have_names), cmocka_unit_test(a_section_guards_its_variables),
    };
    return cmocka_run_group_tests_name("render/mustache", tests, NULL, NULL);
}
