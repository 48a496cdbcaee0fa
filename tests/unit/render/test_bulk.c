/* What a message of many says of itself: RFC 2369, 2919, 8058, Feedback-ID; variables of our own; VERP senders. */
#include "unit.h"

#include "control/render/token.h"

#include <errno.h>

/* The value of a header field, unfolded, valid until the next call; NULL when it is not there or there twice. */
static const char *field(const char *text, const char *name) {
    static char value[8192];
    const char *found = NULL, *end = strstr(text, "\r\n\r\n");
    size_t used = 0, length = strlen(name);
    for (const char *line = text; line < end; line = strstr(line, "\r\n") + 2) {
        if (strncasecmp(line, name, length) != 0 || line[length] != ':')
            continue;
        if (found != NULL)
            return NULL;
        found = line + length + 1;
    }
    if (found == NULL)
        return NULL;
    found += *found == ' ';
    while (*found != '\r' || found[2] == ' ' || found[2] == '\t') {
        found += *found == '\r' ? 2 : 0;
        value[used++] = *found++;
    }
    value[used] = '\0';
    return value;
}

static void assert_field(const char *text, const char *name, const char *expected) {
    const char *value = field(text, name);
    if (expected == NULL)
        assert_null(value);
    else if (value == NULL)
        fail_msg("%s is not there once: %s", name, text);
    else
        assert_string_equal(value, expected);
}

/* Opens the token that begins at `text`. */
static struct token opened(const char *text) {
    struct token token;
    struct identity *identity = unit_identity('k');
    size_t length = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_");
    assert_int_equal(token_read(identity, text, length, &token), 0);
    identity_free(identity);
    return token;
}

static void a_link_has_a_token_of_its_recipient(void **state) {
    struct unit_job u;
    unit_job_init(&u);
    u.recipients[1] = (struct job_recipient){.mailbox = {.email = (char *)"eve+a@example.net"}, .kind = RECIPIENT_PRIVATE};
    u.job.recipient_total = 2;
    u.job.tenant = (char *)"shop";
    u.job.campaign = (char *)"spring";
    u.job.list_id = (char *)"News <news.example.org>";
    u.job.shard = 3;
    u.job.has_built_ins = true;
    u.job.text = (char *)"{{name}} stays\n";
    u.job.list_unsubscribe = (char *)"<https://example.org/u/{{bypost.unsubscribe_token}}?e={{ bypost.email }}>, "
                                     "<mailto:u@example.org?subject={{bypost.unsubscribe_token}}>";
    static const char *const emails[] = {"bob@example.net", "eve+a@example.net"}, *const escaped[] = {"bob%40example.net>",
                                                                                                      "eve%2Ba%40example.net>"};
    char *seen[2];
    for (uint32_t i = 0; i < 2; i++) {
        const char *text = unit_render(&u.job, i), *value = field(text, "List-Unsubscribe");
        seen[i] = strdup(value);
        unit_assert_has(text, "\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n");
        unit_assert_has(text, "\r\n\r\n{{name}} stays\r\n"); /* the text is no template for that */
        struct token token = opened(strstr(seen[i], "/u/") + 3), again = opened(strstr(seen[i], "subject=") + 8);
        assert_string_equal(token.recipient, emails[i]);
        assert_string_equal(token.tenant, "shop");
        assert_string_equal(token.campaign, "spring");
        assert_string_equal(token.list, "news.example.org");
        assert_string_equal(token.id, "");
        assert_true(token.has_entry && token.entry.ms == 1700000000123 && token.entry.seq == 4 && token.shard == 3);
        assert_int_equal(token.index, i);
        assert_string_equal(again.recipient, emails[i]);
        unit_assert_has(seen[i], escaped[i]);
        unit_assert_lacks(text, "{{bypost");
        assert_field(unit_render(&u.job, i), "List-Unsubscribe", seen[i]); /* a repeat is the same */
    }
    assert_string_not_equal(seen[0], seen[1]);
    free(seen[0]);
    free(seen[1]);
    u.job.id = (char *)"order-1";
    struct token token = opened(strstr(field(unit_render(&u.job, 0), "List-Unsubscribe"), "/u/") + 3);
    assert_string_equal(token.id, "order-1");
    assert_false(token.has_entry);
}

/* A recipient's data make no header that servers would refuse, and with it the campaign. */
static void a_field_has_a_limit(void **state) {
    static char data[17000];
    struct unit_job u;
    unit_job_init(&u);
    sprintf(data, "{\"v\":\"%016384d\"}", 0);
    u.recipients[0].merge_data = data;
    u.job.text = (char *)"{{v}}\n";
    unit_render(&u.job, 0);
    u.job.subject = (char *)"x{{v}}";
    unit_assert_has(unit_render_error(&u.job, 0, -E2BIG), "over 16384 bytes");
}

static void texts_name_the_same_link(void **state) {
    struct unit_job u;
    unit_job_init(&u);
    u.job.has_built_ins = u.job.fills_built_ins = true;
    u.job.list_unsubscribe = (char *)"<mailto:u@example.org>, <https://example.org/u?t={{bypost.unsubscribe_token}}&x=1>";
    u.job.text =
        (char *)"{{bypost.unsubscribe_url}}\n{{bypost.unsubscribe_mailto}}\n{{bypost.email}}\n{{bypost.message_id}}\n{{bypost.job}}\n";
    u.headers[0] = (struct job_header){(char *)"X-Token", (char *)"t={{bypost.unsubscribe_token}} c={{bypost.campaign}}."};
    u.job.header_count = 1;
    const char *text = unit_render(&u.job, 0);
    char token[TOKEN_TEXT_BYTES], id[128], part[2048];
    snprintf(token, sizeof(token), "%.*s", (int)strcspn(strstr(text, "?t=") + 3, "&"), strstr(text, "?t=") + 3);
    snprintf(id, sizeof(id), "%s", field(text, "Message-ID"));
    id[strlen(id) - 1] = '\0';
    assert_string_equal(opened(token).recipient, "bob@example.net");
    snprintf(part, sizeof(part), "t=%s c=.", token);
    assert_field(text, "X-Token", part);
    const char *body = strstr(text, "\r\n\r\n") + 4;
    char joined[4096];
    size_t used = 0; /* quoted-printable's soft line breaks and =3D */
    for (; *body != '\0'; body++) {
        if (body[0] == '=' && body[1] == '\r')
            body += 2;
        else if (strncmp(body, "=3D", 3) == 0)
            joined[used++] = '=', body += 2;
        else
            joined[used++] = *body;
    }
    joined[used] = '\0';
    snprintf(part, sizeof(part), "https://example.org/u?t=%s&x=1\r\nmailto:u@example.org\r\nbob@example.net\r\n%s\r\n1700000000123-4\r\n",
             token, id + 1);
    assert_string_equal(joined, part);
    u.job.text = NULL;
    u.job.html = (char *)"<a href=\"{{bypost.unsubscribe_url}}\">";
    unit_assert_has(unit_render(&u.job, 0), "&amp;x"); /* escaped as markup wants it */
}

static void variables_of_ours_are_not_the_producer_s(void **state) {
    struct unit_job u;
    unit_job_init(&u);
    u.job.has_built_ins = u.job.fills_built_ins = true;
    u.recipients[0].merge_data = (char *)"{\"bypost\":{\"email\":\"evil\"},\"bypost.email\":\"evil\",\"name\":\"Bob\"}";
    u.job.text = (char *)"{{name}} {{bypost.email}}";
    unit_assert_has(unit_render(&u.job, 0), "\r\n\r\nBob bob@example.net\r\n");
    u.job.text = (char *)"{{bypost.nothing}}";
    unit_assert_has(unit_render_error(&u.job, 0, -EINVAL), "bypost.nothing");
    u.job.text = (char *)"{{bypost.unsubscribe_url}}"; /* the job has none */
    unit_assert_has(unit_render_error(&u.job, 0, -EINVAL), "bypost.unsubscribe_url");
    u.job.text = (char *)"x";
    u.job.list_unsubscribe = (char *)"https://example.org/{{bypost.unsubscribe_url}}"; /* itself */
    unit_assert_has(unit_render_error(&u.job, 0, -EINVAL), "bypost.unsubscribe_url");
}

static void a_value_stays_one_part_of_a_link(void **state) {
    struct unit_job u;
    unit_job_init(&u);
    u.recipients[0].merge_data =
        (char *)"{\"v\":\"a b&c=d/e?>\\r\\nBcc: eve@example.com,<x>\\u00e9%\",\"path\":\"a/b?c\",\"bad\":\">\\r\\nX: y\"}";
    u.job.list_unsubscribe = (char *)"https://example.org/{{{path}}}/{{ & path }}/{{ { path }}}?v={{ v }}";
    const char *text = unit_render(&u.job, 0);
    assert_field(text, "List-Unsubscribe",
                 "<https://example.org/a/b?c/a/b?c/a/b?c?v=a%20b%26c%3Dd%2Fe%3F%3E%0D%0ABcc%3A%20eve%40example.com%2C%3Cx%3E%C3%A9%25>");
    unit_assert_lacks(text, "\nBcc");
    static const char *const bad[] = {"https://example.org/{{{bad}}}",
                                      "https://example.org/{{missing}}",
                                      "https://example.org/{{v",
                                      "https://example.org/{{}}",
                                      "{{{path}}}",
                                      "mailto:{{&bad}}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        u.job.list_unsubscribe = (char *)bad[i];
        unit_render_error(&u.job, 0, -EINVAL);
    }
}

/* RFC 8058 3.1: one HTTPS URI, and mailto: may stand beside it; without HTTPS no List-Unsubscribe-Post. */
static void one_click_wants_one_link(void **state) {
    static const struct {
        const char *value;
        bool good, one_click;
    } cases[] = {{"https://a.example/u", true, true},
                 {"<https://a.example/u>, <mailto:u@a.example>", true, true},
                 {"<mailto:u@a.example>,<HTTPS://a.example/u>", true, true},
                 {"mailto:u@a.example", true, false},
                 {"<mailto:u@a.example>, <mailto:v@a.example>", true, false},
                 {"<https://a.example/u>, <https://b.example/u>", false, false},
                 {"<https://a.example/u>, <http://a.example/u>", false, false},
                 {"https://a.example/u, mailto:u@a.example", false, false},
                 {"<https://a.example/u>, mailto:u@a.example", false, false},
                 {"<https://a.example/u> <", false, false}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct unit_job u;
        unit_job_init(&u);
        u.job.list_unsubscribe = (char *)cases[i].value;
        if (!cases[i].good) {
            unit_assert_has(unit_render_error(&u.job, 0, -EINVAL), "list_unsubscribe");
            continue;
        }
        assert_field(unit_render(&u.job, 0), "List-Unsubscribe-Post", cases[i].one_click ? "List-Unsubscribe=One-Click" : NULL);
    }
}

static void a_list_id_is_in_brackets(void **state) {
    static const struct {
        const char *asked, *written;
    } cases[] = {{"news.example.org", "<news.example.org>"},
                 {"<news.example.org>", "<news.example.org>"},
                 {"News of ours <news.example.org>", "News of ours <news.example.org>"},
                 {"\"News, of ours\" <news.example.org>", "\"News, of ours\" <news.example.org>"},
                 {"News, of \"ours\" <news.example.org>", "\"News, of \\\"ours\\\"\" <news.example.org>"},
                 {"Neuigkeiten f\xC3\xBCr alle <news.example.org>", "=?utf-8?Q?Neuigkeiten_f=C3=BCr_alle?= <news.example.org>"},
                 {"{{tenant}}.lists.example.org", "<shop.lists.example.org>"}};
    static const char *const bad[] = {"news", "news.", ".news", "a..b", "a b.c", "x <a.b> y", "<a.b", "a.b>", "", "{{evil}}.example.org"};
    struct unit_job u;
    unit_job_init(&u);
    u.recipients[0].merge_data = (char *)"{\"tenant\":\"shop\",\"evil\":\"x>\\r\\nBcc: eve@example.com\"}";
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        u.job.list_id = (char *)cases[i].asked;
        assert_field(unit_render(&u.job, 0), "List-Id", cases[i].written);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        u.job.list_id = (char *)bad[i];
        unit_assert_has(unit_render_error(&u.job, 0, -EINVAL), "list_id");
    }
}

static void a_feedback_id_has_four_parts(void **state) {
    struct unit_job u;
    unit_job_init(&u);
    u.job.campaign = (char *)"spring";
    u.recipients[0].merge_data = (char *)"{\"kind\":\"promo\",\"evil\":\"a:b\",\"line\":\"x\\r\\nBcc: eve@example.com\"}";
    u.job.feedback_id = (char *)"{{bypost.campaign}}:{{bypost.tenant}}:{{kind}}:example1";
    assert_field(unit_render(&u.job, 0), "Feedback-ID", "spring::promo:example1"); /* no tenant: an empty part */
    static const char *const bad[] = {"a:b:c",
                                      "a:b:c:d",
                                      "a:b:c:sixteenletters16",
                                      "a:b:c:d:sender",
                                      "a b:c:d:sender",
                                      "{{evil}}:b:c:sender",
                                      "{{line}}:b:c:sender",
                                      "a:b:c:s\xC3\xA9nder"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        u.job.feedback_id = (char *)bad[i];
        unit_assert_has(unit_render_error(&u.job, 0, -EINVAL), "feedback_id");
    }
}

static void precedence_is_as_asked_for(void **state) {
    static const struct {
        enum job_precedence precedence;
        const char *value;
    } cases[] = {{PRECEDENCE_UNSET, NULL}, {PRECEDENCE_NONE, NULL}, {PRECEDENCE_BULK, "bulk"}, {PRECEDENCE_LIST, "list"}};
    for (size_t i = 0; i < 4; i++) {
        struct unit_job u;
        unit_job_init(&u);
        u.job.precedence = cases[i].precedence;
        assert_field(unit_render(&u.job, 0), "Precedence", cases[i].value);
    }
}

/* A field of the job's replaces a header of that name, which only a recipient or a content can have brought. */
static void no_field_is_there_twice(void **state) {
    static const char *const names[] = {"list-unsubscribe", "LIST-ID", "Feedback-ID", "Precedence"};
    struct unit_job u;
    unit_job_init(&u);
    u.job.list_unsubscribe = (char *)"https://example.org/u";
    u.job.list_id = (char *)"news.example.org";
    u.job.feedback_id = (char *)"a:b:c:sender";
    u.job.precedence = PRECEDENCE_BULK;
    struct job_header own[4];
    for (size_t i = 0; i < 4; i++)
        own[i] = (struct job_header){(char *)names[i], (char *)"own"};
    u.recipients[0].headers = own;
    u.recipients[0].header_count = 4;
    unit_assert_lacks(unit_render(&u.job, 0), "own");
    u.job.list_id = NULL;
    assert_field(unit_render(&u.job, 0), "List-Id", "own");
}

/* -- VERP -- */

static int envelope(const struct job *job, uint32_t index, char *sender, bool *utf8) {
    struct message message;
    char error[256] = "";
    struct identity *identity = unit_identity('k');
    message_init(&message);
    int result = render_message(job, index, unit_date_s, identity, UNIT_MAX_BYTES, &message, error, sizeof(error));
    strcpy(sender, result == 0 ? message.sender : error);
    *utf8 = message.needs_smtputf8;
    message_free(&message);
    identity_free(identity);
    return result;
}

static void a_verp_sender_names_job_and_recipient(void **state) {
    struct unit_job u;
    char sender[512], again[512];
    bool utf8;
    unit_job_init(&u);
    u.recipients[1] = u.recipients[0];
    u.job.recipient_total = 2;
    u.job.shard = 5;
    u.job.verp_address = (char *)"b@bounces.example.com";
    struct identity *identity = unit_identity('k');
    for (uint32_t i = 0; i < 2; i++) {
        struct token token;
        assert_int_equal(envelope(&u.job, i, sender, &utf8), 0);
        assert_memory_equal(sender, "b+", 2);
        assert_string_equal(strchr(sender, '@'), "@bounces.example.com");
        assert_true(strcspn(sender, "@") <= 64);
        assert_int_equal(verp_read(identity, sender, &token), 0);
        assert_true(token.entry.ms == 1700000000123 && token.entry.seq == 4 && token.shard == 5 && token.index == i);
        u.job.history.attempt = 7; /* a retry: another entry, the same origin */
        u.job.entry = (struct entry_id){99, 1};
        assert_int_equal(envelope(&u.job, i, again, &utf8), 0);
        assert_string_equal(sender, again);
    }
    identity_free(identity);
    u.job.envelope_sender = (char *)"b\xC3\xB6unces@example.org"; /* it does not travel, so it needs no SMTPUTF8 */
    assert_int_equal(envelope(&u.job, 0, sender, &utf8), 0);
    assert_false(utf8);
    u.job.envelope_sender = (char *)"no address";
    assert_int_equal(envelope(&u.job, 0, sender, &utf8), -EINVAL);
}

/* RFC 5321 4.5.5: whose sender is null has none to be told. */
static void the_null_sender_stays_null(void **state) {
    struct unit_job u;
    char sender[512];
    bool utf8;
    unit_job_init(&u);
    u.job.envelope_sender = (char *)"";
    u.job.verp_address = (char *)"b@bounces.example.com";
    u.job.verp = CHOICE_YES;
    assert_int_equal(envelope(&u.job, 0, sender, &utf8), 0);
    assert_string_equal(sender, "");
}

static void verp_without_a_domain_is_told(void **state) {
    struct unit_job u;
    unit_job_init(&u);
    u.job.verp = CHOICE_YES;
    unit_assert_has(unit_render_error(&u.job, 0, -EINVAL), "verp.domain");
    u.job.verp = CHOICE_NO;
    unit_render(&u.job, 0);
}

static void raw_messages_have_verp_too(void **state) {
    struct unit_job u;
    char sender[512];
    bool utf8;
    unit_job_init(&u);
    u.job.raw = (uint8_t *)"From: a@example.org\n\nx\n";
    u.job.raw_length = strlen((char *)u.job.raw);
    u.job.verp_address = (char *)"b@bounces.example.com";
    assert_int_equal(envelope(&u.job, 0, sender, &utf8), 0);
    assert_memory_equal(sender, "b+", 2);
}

static void what_is_each_recipient_s_own_is_not_shared(void **state) {
    struct unit_job u;
    unit_job_init(&u);
    u.recipients[0].kind = RECIPIENT_TO;
    u.recipients[1] = (struct job_recipient){.mailbox = {.email = (char *)"eve@example.net"}, .kind = RECIPIENT_TO};
    u.job.recipient_total = 2;
    assert_true(render_is_shared(&u.job, 0, 1));
    u.job.verp_address = (char *)"b@bounces.example.com";
    assert_false(render_is_shared(&u.job, 0, 1));
    assert_false(render_is_shared(&u.job, 0, 0));
    u.job.verp_address = NULL;
    u.job.has_built_ins = true;
    assert_false(render_is_shared(&u.job, 0, 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_link_has_a_token_of_its_recipient),
        cmocka_unit_test(a_field_has_a_limit),
        cmocka_unit_test(texts_name_the_same_link),
        cmocka_unit_test(variables_of_ours_are_not_the_producer_s),
        cmocka_unit_test(a_value_stays_one_part_of_a_link),
        cmocka_unit_test(one_click_wants_one_link),
        cmocka_unit_test(a_list_id_is_in_brackets),
        cmocka_unit_test(a_feedback_id_has_four_parts),
        cmocka_unit_test(precedence_is_as_asked_for),
        cmocka_unit_test(no_field_is_there_twice),
        cmocka_unit_test(a_verp_sender_names_job_and_recipient),
        cmocka_unit_test(the_null_sender_stays_null),
        cmocka_unit_test(verp_without_a_domain_is_told),
        cmocka_unit_test(raw_messages_have_verp_too),
        cmocka_unit_test(what_is_each_recipient_s_own_is_not_shared),
    };
    return cmocka_run_group_tests_name("bulk", tests, NULL, NULL);
}
