/* Texts with variables in base64 (RFC 2045 6.8): whatever stands where, a reader gets the text with its variables filled in, and what the
 * messages of a content share begins at any of the three places of a group. */
#include "contents.h"

#include <errno.h>

enum { ROUNDS = 1500, TEXT_BYTES = 64 << 10, LINE_BYTES = 76, LIST_ITEMS = 3, NEWSLETTER_BYTES = 60 << 10, NEWSLETTER_FIELDS = 12 };

static const char *const scripts[] = {
    "\xE3\x81\x8A\xE7\x9F\xA5\xE3\x82\x89\xE3\x81\x9B\xE3\x80\x82\xE6\x96\xB0\xE5\x95\x86\xE5\x93\x81 ",          /* Japanese */
    "\xE4\xB8\xAD\xE6\x96\x87\xE7\xAE\x80\xE6\x8A\xA5\xEF\xBC\x8C",                                               /* Chinese */
    "\xD0\x9D\xD0\xBE\xD0\xB2\xD0\xBE\xD1\x81\xD1\x82\xD0\xB8 ",                                                  /* Russian */
    "\xD9\x85\xD8\xB1\xD8\xAD\xD8\xA8\xD8\xA7 ",                                                                  /* Arabic */
    "\xE0\xA4\xA8\xE0\xA4\xAE\xE0\xA4\xB8\xE0\xA5\x8D\xE0\xA4\xA4\xE0\xA5\x87 ",                                  /* Hindi */
    "\xF0\x9F\x8E\x89\xF0\x9F\x91\x8D\xF0\x9F\x8F\xBD",                                                           /* emoji */
    "\xCE\x9A\xCE\xB1\xCE\xBB\xCE\xB7\xCE\xBC\xCE\xAD\xCF\x81\xCE\xB1 <b>a &amp; b</b> \xCE\xBA\xCF\x8C\xCF\x83", /* Greek in HTML */
};
enum { SCRIPTS = sizeof(scripts) / sizeof(*scripts) };

/* Values as JSON has them, and as they are. */
static const struct {
    const char *json, *text;
} values[] = {{"", ""},
              {"x", "x"},
              {"ab", "ab"},
              {"\xE3\x81\x82", "\xE3\x81\x82"},
              {"four", "four"},
              {"\\r", "\r"},
              {"\\n", "\n"},
              {"\\r\\n", "\r\n"},
              {"a\\r", "a\r"},
              {"\\nb", "\nb"},
              {"\xD0\x98\xD0\xB2\xD0\xB0\xD0\xBD", "\xD0\x98\xD0\xB2\xD0\xB0\xD0\xBD"},
              {".", "."}};
enum { VALUES = sizeof(values) / sizeof(*values) };

static const char *const ends[] = {"\n", "\r\n", "\r", "\n\n", "\n\r", "\r\r\n", " \n", ""};
enum { ENDS = sizeof(ends) / sizeof(*ends) };

/* -- what a reader makes of it -- */

static int digit_of(uint8_t byte) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *found = byte == '\0' ? NULL : strchr(digits, byte);
    return found == NULL ? -1 : (int)(found - digits);
}

/* Groups of four digits a line, and "=" at the very end only (RFC 2045 6.8). */
static size_t decode(const uint8_t *body, size_t length, char *out) {
    size_t used = 0, line = 0;
    bool padded = false;
    for (size_t at = 0; at < length;) {
        if (body[at] == '\r') {
            assert_memory_equal(body + at, "\r\n", 2);
            assert_true(at - line > 0 && at - line <= LINE_BYTES);
            at += 2;
            line = at;
            continue;
        }
        assert_true(at + 4 <= length && !padded);
        uint32_t group = 0;
        unsigned digits = 0;
        for (; digits < 4 && body[at + digits] != '='; digits++) {
            assert_true(digit_of(body[at + digits]) >= 0);
            group = group << 6 | (uint32_t)digit_of(body[at + digits]);
        }
        padded = digits < 4;
        assert_true(digits >= 2 && (!padded || body[at + 3] == '='));
        group <<= 6 * (4 - digits);
        for (unsigned i = 0; i + 1 < digits; i++)
            out[used++] = (char)(group >> (16 - 8 * i));
        at += 4;
    }
    return used;
}

/* Any line end is one, and the last line has one (RFC 2046 4.1.1). */
static size_t canonical_text(const char *text, char *out) {
    size_t used = 0;
    for (const char *at = text; *at != '\0'; at++) {
        if (*at == '\r' && at[1] == '\n')
            continue;
        if (*at == '\r' || *at == '\n')
            memcpy(out + used, "\r\n", 2), used += 2;
        else
            out[used++] = *at;
    }
    if (used > 0 && out[used - 1] != '\n')
        memcpy(out + used, "\r\n", 2), used += 2;
    return used;
}

static void assert_text(const struct message *message, const char *wanted) {
    static char found[2 * TEXT_BYTES], text[2 * TEXT_BYTES];
    const uint8_t *bytes = message->bytes + message->start;
    assert_non_null(memmem(bytes, message->header_length, "Content-Transfer-Encoding: base64\r\n", 35));
    size_t found_length = decode(bytes + message->header_length, message->length - message->header_length, found);
    size_t length = canonical_text(wanted, text);
    assert_int_equal(found_length, length);
    assert_memory_equal(found, text, length);
}

/* -- random texts -- */

struct draw {
    uint64_t seed;
    char text[TEXT_BYTES];   /* the template */
    char wanted[TEXT_BYTES]; /* what becomes of it */
    char data[4096];         /* merge data */
    const char *a, *b;       /* variables */
    const char *items[LIST_ITEMS];
    uint32_t item_count;
};

/* A value into the merge data, and what it is as text. */
static const char *draw_value(struct draw *draw, const char *before, size_t *used) {
    uint32_t value = unit_random(&draw->seed) % VALUES;
    *used += (size_t)sprintf(draw->data + *used, "%s\"%s\"", before, values[value].json);
    return values[value].text;
}

/* Text of one script: a word to some kilobytes, with line ends in it and perhaps at its ends. */
static size_t draw_literal(struct draw *draw, char *out) {
    const char *words = scripts[unit_random(&draw->seed) % SCRIPTS];
    static const uint32_t lengths[] = {0, 1, 20, 400, 520, 700, 1500, 4000};
    uint32_t most = lengths[unit_random(&draw->seed) % 8];
    size_t used = (size_t)sprintf(out, "%s", ends[unit_random(&draw->seed) % ENDS]);
    while (used < most)
        used += (size_t)sprintf(out + used, "%s%s", words, unit_random(&draw->seed) % 6 == 0 ? ends[unit_random(&draw->seed) % ENDS] : "");
    for (uint32_t cut = unit_random(&draw->seed) % 3; cut > 0; cut--)
        out[used++] = 'x'; /* other places behind it */
    used += (size_t)sprintf(out + used, "%s", ends[unit_random(&draw->seed) % ENDS]);
    return used;
}

static void draw_text(struct draw *draw) {
    static char before[8192], behind[8192];
    size_t used = 0;
    draw->a = draw_value(draw, "{\"a\":", &used);
    draw->b = draw_value(draw, ",\"b\":", &used);
    used += (size_t)sprintf(draw->data + used, ",\"list\":[");
    draw->item_count = unit_random(&draw->seed) % (LIST_ITEMS + 1);
    for (uint32_t i = 0; i < draw->item_count; i++)
        draw->items[i] = draw_value(draw, i == 0 ? "" : ",", &used);
    sprintf(draw->data + used, "]}");
    char *text = draw->text, *wanted = draw->wanted;
    *text = *wanted = '\0';
    for (uint32_t i = 1 + unit_random(&draw->seed) % 6; i > 0; i--) {
        draw_literal(draw, before);
        switch (unit_random(&draw->seed) % 4) {
        case 0:
            text += sprintf(text, "%s{{{a}}}", before);
            wanted += sprintf(wanted, "%s%s", before, draw->a);
            break;
        case 1:
            text += sprintf(text, "%s{{{b}}}{{! a comment }}", before);
            wanted += sprintf(wanted, "%s%s", before, draw->b);
            break;
        case 2:
            draw_literal(draw, behind);
            /* "|": a section's tag that is alone on its line would take the line with it */
            text += sprintf(text, "|{{#list}}|%s{{{.}}}%s|{{/list}}|", before, behind);
            wanted += sprintf(wanted, "|");
            for (uint32_t item = 0; item < draw->item_count; item++)
                wanted += sprintf(wanted, "|%s%s%s|", before, draw->items[item], behind);
            wanted += sprintf(wanted, "|");
            break;
        default:
            text += sprintf(text, "%s", before);
            wanted += sprintf(wanted, "%s", before);
        }
    }
}

/* How often each place of a stretch was referred to. */
static void count_places(const struct message *message, const struct template *template, uint32_t *counts) {
    for (uint32_t i = 0; i < template->stretch_count; i++)
        for (uint32_t place = 0; place < STRETCH_PLACES; place++) {
            const struct shared_range *range = &template->stretches[i].ranges[place];
            for (uint32_t at = 0; at < message->piece_count && range->length > 0; at++) {
                const struct message_piece *piece = &message->pieces[at];
                counts[place] +=
                    piece->shared && piece->offset <= range->offset && range->offset + range->length <= piece->offset + piece->length;
            }
        }
}

static void a_reader_gets_the_text_that_was_asked(void **state) {
    static struct draw draw = {.seed = 7};
    uint32_t places[STRETCH_PLACES] = {0}, in_base64 = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct unit_job u;
        struct ways ways;
        unit_job_init(&u);
        draw_text(&draw);
        u.job.text = unit_random(&draw.seed) % 2 ? draw.text : NULL;
        u.job.html = u.job.text == NULL ? draw.text : NULL;
        u.recipients[0].merge_data = draw.data;
        ways_open(&ways, &u);
        const struct template *template = u.job.text == NULL ? ways.prepared->html : ways.prepared->text;
        ways_render(&ways, 0, UNIT_MAX_BYTES);
        count_places(&ways.messages[WAY_PREPARED], template, places);
        assert_true(assert_ways_agree(&ways));
        if (template->encoding == TEMPLATE_BASE64) {
            in_base64++;
            assert_text(&ways.messages[WAY_PREPARED], draw.wanted);
        }
        ways_close(&ways);
    }
    assert_true(in_base64 > ROUNDS / 2);
    for (uint32_t place = 0; place < STRETCH_PLACES; place++)
        assert_true(!RENDER_SHARES || places[place] > ROUNDS / 10);
}

/* A value that ends or begins with half a line end, beside every end of a stretch: CR LF is one wherever they come from. */
static void line_ends_across_the_ends_of_a_stretch(void **state) {
    static const char *const borders[] = {"", "\r", "\n", "\r\n", "\n\r"};
    static char text[8192], wanted[8192], data[256], static_text[1024];
    for (size_t used = 0; used < 600;)
        used += (size_t)sprintf(static_text + used, "%s", scripts[0]);
    for (unsigned begin = 0; begin < 5; begin++)
        for (unsigned end = 0; end < 5; end++)
            for (unsigned value = 0; value < VALUES * VALUES; value++) {
                struct unit_job u;
                struct ways ways;
                unit_job_init(&u);
                u.job.text = text;
                u.recipients[0].merge_data = data;
                sprintf(text, "%s{{{a}}}%s%s%s{{{b}}}", static_text, borders[begin], static_text, borders[end]);
                sprintf(wanted, "%s%s%s%s%s%s", static_text, values[value % VALUES].text, borders[begin], static_text, borders[end],
                        values[value / VALUES].text);
                sprintf(data, "{\"a\":\"%s\",\"b\":\"%s\"}", values[value % VALUES].json, values[value / VALUES].json);
                ways_open(&ways, &u);
                ways_render(&ways, 0, UNIT_MAX_BYTES);
                assert_int_equal(ways.prepared->text->stretch_count, 2);
                assert_true(assert_ways_agree(&ways));
                assert_text(&ways.messages[WAY_PREPARED], wanted);
                ways_close(&ways);
            }
}

/* The stretch behind a variable goes on where its value's last group ends. */
static void a_value_s_length_chooses_the_place(void **state) {
    static char text[8192], data[64];
    struct unit_job u;
    struct ways ways;
    size_t used = (size_t)sprintf(text, "{{a}}");
    while (used < 2000)
        used += (size_t)sprintf(text + used, "%s", scripts[2]);
    unit_job_init(&u);
    u.job.text = text;
    u.recipients[0].merge_data = data;
    ways_open(&ways, &u);
    for (uint32_t length = 0; length < 12; length++) {
        uint32_t places[STRETCH_PLACES] = {0};
        sprintf(data, "{\"a\":\"%.*s\"}", (int)length, "abcdefghijkl");
        ways_render(&ways, 0, UNIT_MAX_BYTES);
        assert_int_equal(ways.results[WAY_PREPARED], 0);
        count_places(&ways.messages[WAY_PREPARED], ways.prepared->text, places);
        for (uint32_t place = 0; place < STRETCH_PLACES; place++)
            assert_int_equal(places[place], RENDER_SHARES && place == (3 - length % 3) % 3);
    }
    ways_close(&ways);
}

static void newsletter_write(char *text, char *data, char *wanted) {
    size_t used = 0, field = 0, said = (size_t)sprintf(data, "{");
    for (size_t row = 0; used < NEWSLETTER_BYTES; row++) {
        int length = sprintf(text + used, "<p>%s%s%zu</p>\n", scripts[0], scripts[0], row);
        wanted += sprintf(wanted, "%s", text + used);
        used += (size_t)length;
        if (used > field * (NEWSLETTER_BYTES / NEWSLETTER_FIELDS) && field < NEWSLETTER_FIELDS) {
            used += (size_t)sprintf(text + used, "{{f%zu}}\xE6\xA7\x98\n", field);
            said += (size_t)sprintf(data + said, "%s\"f%zu\":\"%.*s\"", field == 0 ? "" : ",", field, (int)field, "Katsushika-ku");
            wanted += sprintf(wanted, "%.*s\xE6\xA7\x98\n", (int)field, "Katsushika-ku");
            field++;
        }
    }
    sprintf(data + said, "}");
}

/* A recipient costs its fields and the lines that they stand in; a content at most three times its text as it is encoded. */
static void a_newsletter_is_shared(void **state) {
    enum { OWN_BYTES_MAX = 2048, BESIDES_BYTES = 64 << 10 };
    static char text[NEWSLETTER_BYTES + 1024], wanted[NEWSLETTER_BYTES + 4096], data[1024];
    struct unit_job u;
    struct ways ways;
    unit_job_init(&u);
    newsletter_write(text, data, wanted);
    u.job.text = NULL;
    u.job.html = text;
    u.recipients[0].merge_data = data;
    ways_open(&ways, &u);
    ways_render(&ways, 0, UNIT_MAX_BYTES);
    assert_int_equal(ways.results[WAY_PREPARED], 0);
    if (RENDER_SHARES) {
        assert_true(ways.messages[WAY_PREPARED].own_length < OWN_BYTES_MAX);
        assert_true(ways.messages[WAY_PREPARED].piece_count <= 2 * NEWSLETTER_FIELDS + 2);
    }
    assert_true(render_prepared_bytes(ways.prepared) < STRETCH_PLACES * ways.messages[WAY_JOB].length + BESIDES_BYTES);
    assert_true(assert_ways_agree(&ways));
    assert_text(&ways.messages[WAY_PREPARED], wanted);
    ways_close(&ways);
}

/* The limit is that of the whole message, whether its bytes are its own or not. */
static void a_limit_holds_for_what_is_shared(void **state) {
    static char text[8192];
    struct unit_job u;
    struct ways ways;
    size_t used = (size_t)sprintf(text, "{{a}}");
    while (used < 6000)
        used += (size_t)sprintf(text + used, "%s", scripts[1]);
    unit_job_init(&u);
    u.job.text = text;
    u.recipients[0].merge_data = (char *)"{\"a\":\"1\"}";
    ways_open(&ways, &u);
    ways_render(&ways, 0, UNIT_MAX_BYTES);
    size_t length = ways.messages[WAY_PREPARED].length;
    ways_render(&ways, 0, length);
    assert_true(assert_ways_agree(&ways));
    ways_render(&ways, 0, length - 1);
    assert_false(assert_ways_agree(&ways));
    assert_int_equal(ways.results[WAY_PREPARED], -E2BIG);
    ways_close(&ways);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reader_gets_the_text_that_was_asked), cmocka_unit_test(line_ends_across_the_ends_of_a_stretch),
        cmocka_unit_test(a_value_s_length_chooses_the_place),    cmocka_unit_test(a_newsletter_is_shared),
        cmocka_unit_test(a_limit_holds_for_what_is_shared),
    };
    return cmocka_run_group_tests_name("render/stretch", tests, NULL, NULL);
}
