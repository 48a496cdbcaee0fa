/* Variables of a recipient: SMTP.md section 5 (Mustache names; a missing variable is that recipient's error; no injection). */
#include "unit.h"
#include "control/render/merge.h"

#include <errno.h>

static char filled[4096];

static int expand(const char *global, const char *own, const char *text, bool html) {
    char error[256] = "", *out = NULL;
    struct merge merge;
    if (merge_open(&merge, global, own, error, sizeof(error)) != 0) {
        snprintf(filled, sizeof(filled), "%s", error);
        return -1;
    }
    int result = merge_expand(&merge, text, html, 3000, &out, error, sizeof(error));
    snprintf(filled, sizeof(filled), "%s", result == 0 ? out : error);
    free(out);
    merge_close(&merge);
    return result;
}

static void assert_expands(const char *own, const char *text, bool html, const char *expected) {
    if (expand("{\"shop\":\"Shop & Co\",\"name\":\"you\"}", own, text, html) != 0)
        fail_msg("%s: %s", text, filled);
    assert_string_equal(filled, expected);
}

static void names_are_replaced_by_values(void **state) {
    assert_expands("{\"name\":\"Bob\"}", "Hi {{name}}, from {{shop}}.", false, "Hi Bob, from Shop & Co.");
    assert_expands(NULL, "Hi {{name}}", false, "Hi you"); /* the job's, where the recipient has none */
    assert_expands("{\"n\":42,\"x\":2.5,\"y\":true,\"z\":null}", "{{n}} {{x}} {{y}} [{{z}}]", false, "42 2.5 true []");
    assert_expands("{\"a\":{\"b\":{\"c\":\"deep\"}},\"d.e\":\"whole\"}", "{{a.b.c}} {{d.e}}", false, "deep whole");
    assert_expands(NULL, "a {{! comment }}b", false, "a b");
    assert_expands(NULL, "{{ name }} { {x} } }}", false, "you { {x} } }}");
    assert_expands("{\"name\":\"\xC3\x89va\"}", "{{name}}{{name}}", false, "\xC3\x89va\xC3\x89va");
}

static void html_is_escaped_unless_asked_otherwise(void **state) {
    assert_expands("{\"name\":\"<b>'\\\"&\"}", "{{name}}", true, "&lt;b&gt;&#39;&quot;&amp;");
    assert_expands("{\"name\":\"<b>\"}", "{{{name}}}|{{&name}}|{{name}}", true, "<b>|<b>|&lt;b&gt;");
    assert_expands("{\"name\":\"<b>\"}", "{{name}}", false, "<b>"); /* plain text has nothing to escape */
}

static void values_are_no_templates(void **state) {
    assert_expands("{\"name\":\"{{shop}}\"}", "{{name}}", false, "{{shop}}");
    assert_expands("{\"name\":\"{\",\"x\":\"{shop}}\"}", "{{name}}{{x}}", false, "{{shop}}");
}

static void what_is_missing_or_malformed_is_an_error(void **state) {
    const struct {
        const char *text, *error;
    } cases[] = {{"{{nobody}}", "\"nobody\" is missing"}, {"{{a.x}}", "\"a.x\" is missing"},
                 {"{{name", "has no name or no end"},     {"{{}}", "has no name"},
                 {"{{{name}}", "no end \"}}}\""},         {"{{>x}}", "not supported"},
                 {"{{two words}}", "has no name"},        {"{{!", "comment"},
                 {"{{a}}", "list or an object"},          {"{{l}}", "list or an object"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(expand(NULL, "{\"name\":\"x\",\"a\":{\"b\":1},\"l\":[1]}", cases[i].text, false), -EINVAL);
        unit_assert_has(filled, cases[i].error);
    }
    assert_int_equal(expand("[]", NULL, "", false), -1);
    assert_int_equal(expand("{", NULL, "", false), -1);
    assert_int_equal(expand("\"no end", NULL, "", false), -1);
    unit_assert_has(filled, "a text has no end at byte 8");
    /* Many times a long value. */
    char text[600] = "", own[1100] = "{\"v\":\"";
    memset(own + 6, 'x', 1000);
    strcpy(own + 1006, "\"}");
    for (int i = 0; i < 40; i++)
        strcat(text, "{{v}}");
    assert_int_equal(expand(NULL, own, text, false), -E2BIG);
}

/* Merge data come from anyone: 64 KiB of a list, and of names before the one that is asked for at each of its items, are a product. */
static void hostile_data_do_not_hold_a_thread(void **state) {
    enum { ITEMS = 16000, NAMES = 4000 };
    char *own = malloc(ITEMS * 2 + NAMES * 16 + 64), *at = own;
    at += sprintf(at, "{\"l\":[0");
    for (int i = 0; i < ITEMS; i++)
        at += sprintf(at, ",1");
    *at++ = ']';
    for (int i = 0; i < NAMES; i++)
        at += sprintf(at, ",\"a%d\":0", i);
    strcpy(at, ",\"z\":0}");
    assert_int_equal(expand(NULL, own, "{{#l}}{{#n}}{{/n}}{{/l}}", false), -EINVAL);
    unit_assert_has(filled, "members of merge data");
    assert_int_equal(expand(NULL, own, "{{z}}{{#l}}{{/l}}", false), 0);
    free(own);
}

/* What a message may cost is counted over its subject, texts and header fields together, prepared or not; the next message begins anew. */
static void all_texts_of_a_message_share_one_budget(void **state) {
    enum { ITEMS = 600, HEADERS = 50 };
    static char data[ITEMS * 2 + 64];
    static struct job_header headers[HEADERS];
    struct unit_job u;
    strcpy(data, "{\"x\":1,\"l\":[1");
    for (int i = 1; i < ITEMS; i++)
        strcat(data, ",1");
    strcat(data, "]}");
    char *square = (char *)"{{#l}}{{#l}}{{/l}}{{/l}}"; /* 360,000 steps and some */
    for (int i = 0; i < HEADERS; i++)
        headers[i] = (struct job_header){.name = (char *)"X-Cost", .value = (char *)"{{x}}"};
    unit_job_init(&u);
    u.job.headers = headers;
    u.job.header_count = HEADERS;
    u.recipients[0].merge_data = data;
    u.recipients[1] = u.recipients[0];
    u.job.recipient_total = 2;
    struct {
        char **text;
        const char *cheap;
    } texts[] = {{&u.job.subject, "s"},
                 {&u.job.text, "t {{x}}\n"},
                 {&u.job.html, "h {{x}}\n"},
                 {&headers[0].value, "v"},
                 {&headers[HEADERS - 1].value, "{{x}}"}};
    enum { TEXTS = sizeof(texts) / sizeof(texts[0]) };
    for (int costly = 0; costly < 1 << TEXTS; costly++) {
        int count = __builtin_popcount((unsigned)costly);
        for (int i = 0; i < TEXTS; i++)
            *texts[i].text = costly >> i & 1 ? square : (char *)texts[i].cheap;
        struct identity *identity = unit_identity('k');
        struct render_prepared *prepared = render_prepare(&u.job, "c", identity);
        struct job fields = u.job;
        struct content content = {.references = 1, .fields = &fields, .prepared = prepared};
        for (int shared = 0; shared < 2; shared++) {
            u.job.content = shared ? &content : NULL;
            u.job.content_id = (char *)"c";
            for (uint32_t index = 0; index < 2; index++)
                if (count < 3)
                    unit_render(&u.job, index);
                else
                    unit_assert_has(unit_render_error(&u.job, index, -EINVAL), "a message has more than 1000000 tags");
        }
        u.job.content = NULL;
        render_prepared_free(prepared);
        identity_free(identity);
    }
}

static const char *name_itself(void *context, const char *name) {
    (void)context;
    static char text[2][16];
    static unsigned calls;
    return strcpy(text[calls++ % 2], name);
}

static void a_section_of_a_variable_of_ours_keeps_its_value(void **state) {
    char error[256], *out = NULL;
    struct merge merge;
    assert_int_equal(merge_open(&merge, NULL, NULL, error, sizeof(error)), 0);
    merge_built_in(&merge, name_itself, NULL);
    const char *text = "{{#bypost.email}}{{bypost.id}} {{.}}{{/bypost.email}}";
    assert_int_equal(merge_expand(&merge, text, false, 100, &out, error, sizeof(error)), 0);
    assert_string_equal(out, "id email");
    free(out);
    merge_close(&merge);
}

/* RFC 8259, and what jansson takes: U+0000 and lone surrogates are refused. */
static void data_are_read_as_json(void **state) {
    assert_expands("{\"a\":\"x\\u00e9\\ud83d\\ude00\\n\\\"\\/\\\\\\t\"}", "{{a}}", false, "x\xC3\xA9\xF0\x9F\x98\x80\n\"/\\\t");
    assert_expands("{\"a\":\"1 \\u003c 2\"}", "{{a}}", true, "1 &lt; 2");
    assert_expands("{\"n\\u00e9\":\"x\",\"a\\/b\":\"y\"}", "{{n\xC3\xA9}}{{a/b}}", false, "xy");
    assert_expands(" { \"a\" : [ ] , \"b\" : { } , \"c\" : -1.50e1 , \"d\":-0,\"e\":12345678901234567890 } \n", "{{c}} {{d}} {{e}}", false,
                   "-15 -0 12345678901234567890");
    char deep[512] = "{\"a\":", text[64 * 16] = "{";
    for (int i = 0; i < 40; i++)
        strcat(deep, "[");
    assert_int_equal(expand(NULL, deep, "", false), -1);
    unit_assert_has(filled, "too deep");
    for (int i = 0; i < 60; i++) /* more members than there is room for without memory */
        sprintf(text + strlen(text), "\"m%d\":%d,", i, i);
    strcpy(text + strlen(text) - 1, "}");
    assert_expands(text, "{{m0}} {{m47}} {{m59}}", false, "0 47 59");
    static const char *const bad[] = {"",
                                      "{\"a\"}",
                                      "{\"a\":}",
                                      "{\"a\":1,}",
                                      "{a:1}",
                                      "{\"a\":01}",
                                      "{\"a\":1.}",
                                      "{\"a\":1e}",
                                      "{\"a\":tru}",
                                      "{\"a\":\"x}",
                                      "{\"a\":\"\\x\"}",
                                      "{\"a\":\"\\u00g0\"}",
                                      "{\"a\":[1}",
                                      "{\"a\":[1,]}",
                                      "{\"a\":\"\n\"}",
                                      "{\"a\":\"\xFF\"}",
                                      "{} {}",
                                      "{\"a\":\"\\u0000\"}",
                                      "{\"a\":-}",
                                      "{\"a\":\"\\ud800\"}",
                                      "{\"a\":\"\xC3\"}",
                                      "{\"a\":\"\\ud800\\u0041\"}",
                                      "{,}",
                                      "\"a\"",
                                      "1"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (expand(NULL, bad[i], "", false) != -1)
            fail_msg("%s was taken", bad[i]);
}

static void a_message_is_filled_everywhere_for_its_recipient(void **state) {
    struct unit_job u;
    unit_job_init(&u);
    u.job.subject = (char *)"For {{name}}";
    u.job.text = (char *)"Hi {{name}}\n";
    u.job.html = (char *)"<p>Hi {{name}}</p>\n";
    u.headers[0] = (struct job_header){(char *)"X-Id", (char *)"{{id}}"};
    u.job.header_count = 1;
    u.job.list_unsubscribe = (char *)"https://example.org/u/{{id}}";
    u.job.merge_global_data = (char *)"{\"name\":\"friend\"}";
    u.recipients[0].merge_data = (char *)"{\"name\":\"B&b\",\"id\":7}";
    u.recipients[1] = u.recipients[0];
    u.recipients[1].merge_data = (char *)"{\"id\":8}";
    u.recipients[2] = u.recipients[0];
    u.recipients[2].merge_data = NULL;
    u.job.recipient_total = 3;
    const char *text = unit_render(&u.job, 0);
    unit_assert_has(text, "Subject: For B&b\r\nX-Id: 7\r\nList-Unsubscribe: <https://example.org/u/7>\r\n");
    unit_assert_has(text, "\r\nHi B&b\r\n");
    unit_assert_has(text, "<p>Hi B&amp;b</p>");
    unit_assert_has(unit_render(&u.job, 1), "Subject: For friend\r\nX-Id: 8\r\n");
    unit_assert_has(unit_render_error(&u.job, 2, -EINVAL), "\"id\" is missing");
}

static void a_value_cannot_inject_a_field(void **state) {
    struct unit_job u;
    unit_job_init(&u);
    u.job.subject = (char *)"For {{name}}";
    u.headers[0] = (struct job_header){(char *)"X-Name", (char *)"{{name}}"};
    u.job.header_count = 1;
    u.recipients[0].merge_data = (char *)"{\"name\":\"x\\r\\nBcc: eve@example.com\\r\\n\\r\\nbody\"}";
    const char *text = unit_render(&u.job, 0);
    unit_assert_lacks(text, "\nBcc");
    unit_assert_has(text, "Subject: For x Bcc: eve@example.com body\r\n");
    u.job.header_count = 0;
    u.job.list_unsubscribe = (char *)"https://example.org/{{name}}";
    unit_assert_has(unit_render(&u.job, 0), "<https://example.org/x%0D%0ABcc%3A%20eve%40example.com");
}

static void without_data_braces_are_text(void **state) {
    struct unit_job u;
    unit_job_init(&u);
    u.job.text = (char *)"Mustache writes {{name}}\n";
    unit_assert_has(unit_render(&u.job, 0), "Mustache writes {{name}}\r\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_replaced_by_values),
        cmocka_unit_test(html_is_escaped_unless_asked_otherwise),
        cmocka_unit_test(values_are_no_templates),
        cmocka_unit_test(what_is_missing_or_malformed_is_an_error),
        cmocka_unit_test(hostile_data_do_not_hold_a_thread),
        cmocka_unit_test(all_texts_of_a_message_share_one_budget),
        cmocka_unit_test(a_section_of_a_variable_of_ours_keeps_its_value),
        cmocka_unit_test(data_are_read_as_json),
        cmocka_unit_test(a_message_is_filled_everywhere_for_its_recipient),
        cmocka_unit_test(a_value_cannot_inject_a_field),
        cmocka_unit_test(without_data_braces_are_text),
    };
    return cmocka_run_group_tests_name("render/merge", tests, NULL, NULL);
}
