/* Content transfer encodings: RFC 2045 6.7 (quoted-printable) and 6.8 (base64), RFC 2049 3, RFC 3629. */
#include "unit.h"
#include "control/render/encode.h"
#include "control/render/quoted.h"

static const char *encoded(void (*encode)(struct writer *, const char *, size_t), const char *text, size_t length) {
    static char out[65536];
    struct writer writer = {.limit = sizeof(out) - 1};
    encode(&writer, text, length);
    assert_int_equal(writer.error, 0);
    assert_true(writer.at < sizeof(out));
    if (writer.at > 0)
        memcpy(out, writer.bytes, writer.at);
    out[writer.at] = '\0';
    free(writer.bytes);
    return out;
}

static const char *qp(const char *text) {
    return encoded(encode_quoted_printable, text, strlen(text));
}

static int hex(char digit) {
    return digit <= '9' ? digit - '0' : digit - 'A' + 10;
}

/* RFC 2045 6.7, the reader's side; CRLF becomes LF. */
static size_t decode_qp(const char *in, char *out) {
    size_t used = 0;
    for (; *in != '\0'; in++) {
        if (in[0] == '=' && in[1] == '\r') {
            in += 2;
        } else if (in[0] == '=') {
            assert_non_null(strchr("0123456789ABCDEF", in[1]));
            assert_non_null(strchr("0123456789ABCDEF", in[2]));
            out[used++] = (char)(hex(in[1]) << 4 | hex(in[2]));
            in += 2;
        } else if (in[0] != '\r') {
            out[used++] = in[0];
        }
    }
    return used;
}

static void quoted_printable_follows_the_rules(void **state) {
    assert_string_equal(qp(""), "");
    assert_string_equal(qp("plain"), "plain\r\n");
    assert_string_equal(qp("a=b\n"), "a=3Db\r\n");                    /* rule 2 */
    assert_string_equal(qp("caf\xC3\xA9\n"), "caf=C3=A9\r\n");        /* rule 1 */
    assert_string_equal(qp("end \ntab\t\n"), "end=20\r\ntab=09\r\n"); /* rule 3 */
    assert_string_equal(qp("end "), "end=20\r\n");                    /* at the text's end too */
    assert_string_equal(qp("a\nb\r\nc\rd"), "a\r\nb\r\nc\r\nd\r\n");  /* rule 4: each line end is a line end */
    assert_string_equal(qp("\n\n"), "\r\n\r\n");
    assert_string_equal(qp("bell\a"), "bell=07\r\n");
}

static void quoted_printable_needs_no_dot_stuffing_and_survives_mailboxes(void **state) {
    assert_string_equal(qp(".\n..x\nx."), "=2E\r\n=2E.x\r\nx.\r\n");
    assert_string_equal(qp("From here\nFrom\nFromage\n"), "=46rom here\r\nFrom\r\nFromage\r\n");
    /* A dot that a soft break would bring to a line's start. */
    char text[200];
    memset(text, 'a', sizeof(text));
    memset(text + 60, '.', 100);
    text[199] = '\0';
    assert_null(strstr(qp(text), "\n."));
}

static void quoted_printable_lines_are_at_most_76(void **state) {
    uint64_t seed = 7;
    for (int round = 0; round < 400; round++) {
        char text[4000], back[8000];
        size_t length = unit_random(&seed) % sizeof(text);
        for (size_t i = 0; i < length; i++) {
            uint32_t kind = unit_random(&seed) % 40;
            text[i] = (char)(kind == 0                    ? '\n'
                             : kind < 4                   ? ' '
                             : kind == 4                  ? '.'
                             : kind == 5                  ? '='
                             : kind == 6                  ? '\t'
                             : (int)kind < 9 + round % 20 ? 0x80 + unit_random(&seed) % 128
                                                          : 33 + unit_random(&seed) % 94);
        }
        const char *out = encoded(encode_quoted_printable, text, length);
        for (const char *line = out; *line != '\0';) {
            const char *end = strstr(line, "\r\n");
            assert_non_null(end);
            assert_true(end - line <= 76);
            assert_true(end == line || (end[-1] != ' ' && end[-1] != '\t'));
            assert_int_not_equal(line[0], '.');
            for (; line < end; line++)
                assert_true((line[0] >= 32 && line[0] < 127) || line[0] == '\t');
            line = end + 2;
        }
        size_t back_length = decode_qp(out, back);
        if (length > 0 && text[length - 1] != '\n') {
            assert_true(back_length > 0 && back[back_length - 1] == '\n'); /* the last line is ended */
            back_length--;
        }
        assert_int_equal(back_length, length);
        if (length > 0)
            assert_memory_equal(back, text, length);
    }
}

/* Bytes that encoders look at, and none of them. */
static size_t draw_bytes(char *out, size_t most, uint64_t *seed) {
    static const char special[] = "\r\n\r\n. \tF From =\x7F\xC3\xA9";
    size_t length = unit_random(seed) % (most + 1), dull = unit_random(seed) % 40;
    for (size_t i = 0; i < length; i++)
        out[i] =
            unit_random(seed) % (dull + 1) == 0 ? special[unit_random(seed) % (sizeof(special) - 1)] : (char)('a' + unit_random(seed) % 26);
    if (length > 5 && unit_random(seed) % 4 == 0)
        memcpy(out, "From ", 5);
    return length;
}

/* A text in parts, each as a template puts it: as it is, as a value that needs no escape, or encoded ahead (RFC 2045 6.7). */
static void parts_of_a_text_do_not_show(void **state) {
    enum { ROUNDS = 30000, TEXT_BYTES = 600, PARTS = 12 };
    uint64_t seed = 11;
    uint32_t parts = 0, fitting = 0;
    for (int round = 0; round < ROUNDS; round++) {
        char text[TEXT_BYTES];
        size_t length = draw_bytes(text, sizeof(text), &seed), at = 0, most = 1 + unit_random(&seed) % (TEXT_BYTES / 4);
        bool soft = unit_random(&seed) % 2;
        struct writer whole = {.limit = 1 << 20}, out = {.limit = 1 << 20}, ahead_bytes = {.limit = 1 << 20};
        struct quoted quoted;
        encode_quoted_printable_part(&whole, text, length, soft);
        quoted_begin(&quoted, &out);
        while (at < length) {
            size_t part = unit_random(&seed) % (most < length - at ? most + 1 : length - at + 1);
            struct quoted_ahead ahead;
            bool literal = true;
            for (size_t i = at; i < at + part; i++)
                literal &= text[i] >= 32 && text[i] < 127 && text[i] != '=';
            size_t before = ahead_bytes.at;
            switch (unit_random(&seed) % 3) {
            case 0:
                quoted_text(&quoted, text + at, part);
                break;
            case 1:
                if (literal)
                    quoted_literal(&quoted, text + at, part);
                else
                    quoted_text(&quoted, text + at, part);
                break;
            default:
                quoted_ahead_make(&ahead, text + at, part, quoted.column == 0, &ahead_bytes);
                quoted_ahead_end(&ahead_bytes);
                fitting += ahead_bytes.at > before && quoted.column - ahead.first_column < ahead.column_count;
                parts++;
                quoted_ahead_put(&quoted, &ahead, ahead_bytes.bytes, text + at, part);
            }
            at += part;
        }
        quoted_end(&quoted, soft);
        assert_int_equal(out.error | whole.error | ahead_bytes.error, 0);
        assert_int_equal(out.at, whole.at);
        if (out.at > 0)
            assert_memory_equal(out.bytes, whole.bytes, out.at);
        free(whole.bytes);
        free(out.bytes);
        free(ahead_bytes.bytes);
    }
    assert_true(fitting > parts / 4);
}

static void plain_is_only_what_no_relay_touches(void **state) {
    const char *good[] = {"", "Hi\n", "a\r\nb", "tab\there\n", "=20 is fine\n", "x\n\n\ny"};
    const char *bad[] = {"trailing \n", "trailing\t", ".\n", "x\n.dot", "From x\n", "\x07", "\xC3\xA9"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(encode_is_plain(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(encode_is_plain(bad[i], strlen(bad[i])));
    char line[80];
    memset(line, 'x', sizeof(line));
    assert_true(encode_is_plain(line, 78));
    assert_false(encode_is_plain(line, 79));
    assert_string_equal(encoded(encode_plain, "a\nb\rc\r\nd", 8), "a\r\nb\r\nc\r\nd\r\n");
}

/* RFC 4648 10. */
static void base64_gives_the_known_answers(void **state) {
    const char *vectors[][2] = {
        {"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"}};
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        char out[16];
        size_t length = base64_write(out, (const uint8_t *)vectors[i][0], strlen(vectors[i][0]));
        out[length] = '\0';
        assert_string_equal(out, vectors[i][1]);
    }
    uint8_t bytes[58] = {0};
    struct writer writer = {.limit = 1000};
    encode_base64(&writer, bytes, sizeof(bytes));
    assert_int_equal(writer.at, 76 + 2 + 4 + 2);
    assert_memory_equal(writer.bytes + 76, "\r\nAA==\r\n", 8);
    free(writer.bytes);
}

static void utf8_is_the_shortest_form_without_surrogates(void **state) {
    const struct {
        const char *text;
        size_t size;
    } cases[] = {{"a", 1},
                 {"\xC3\xA9", 2},
                 {"\xE2\x82\xAC", 3},
                 {"\xF0\x9F\x98\x80", 4},
                 {"\xC0\x80", 0},
                 {"\xE0\x80\x80", 0},
                 {"\xED\xA0\x80", 0},
                 {"\xF4\x90\x80\x80", 0},
                 {"\x80", 0},
                 {"\xC3", 0},
                 {"\xE2\x82", 0},
                 {"\xFF", 0},
                 {"\xF0\x80\x80\x80", 0}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(utf8_character(cases[i].text, strlen(cases[i].text)), cases[i].size);
    assert_int_equal(utf8_character("", 0), 0);
}

static void a_writer_stops_at_its_limit(void **state) {
    struct writer writer = {.limit = 1000};
    char block[500];
    memset(block, 'x', sizeof(block));
    for (int i = 0; i < 1000; i++)
        writer_bytes(&writer, block, sizeof(block));
    assert_int_equal(writer.error, -7 /* E2BIG */);
    assert_true(writer.capacity < 100000);
    free(writer.bytes);
}

/* A text of lines that end with CR alone costs its length, not its square: this one would take minutes. */
static void lines_of_cr_cost_their_length(void **state) {
    enum { BYTES = 8 << 20 };
    char *text = malloc(BYTES);
    for (size_t i = 0; i < BYTES; i += 2)
        memcpy(text + i, "a\r", 2);
    assert_true(encode_is_plain(text, BYTES));
    assert_int_equal(encode_line_length(text, BYTES), 1);
    struct writer writer = {.limit = 2 * BYTES};
    encode_plain(&writer, text, BYTES);
    assert_int_equal(writer.at, BYTES / 2 * 3);
    assert_memory_equal(writer.bytes, "a\r\na\r\n", 6);
    free(writer.bytes);
    /* A line end at each place of a window, and none. */
    memset(text, 'x', 1024);
    for (size_t at = 0; at < 1024; at++) {
        text[at] = at % 2 == 0 ? '\n' : '\r';
        assert_int_equal(encode_line_length(text, 1024), at);
        text[at] = 'x';
    }
    assert_int_equal(encode_line_length(text, 1024), 1024);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_of_cr_cost_their_length),
        cmocka_unit_test(quoted_printable_follows_the_rules),
        cmocka_unit_test(quoted_printable_needs_no_dot_stuffing_and_survives_mailboxes),
        cmocka_unit_test(quoted_printable_lines_are_at_most_76),
        cmocka_unit_test(parts_of_a_text_do_not_show),
        cmocka_unit_test(plain_is_only_what_no_relay_touches),
        cmocka_unit_test(base64_gives_the_known_answers),
        cmocka_unit_test(utf8_is_the_shortest_form_without_surrogates),
        cmocka_unit_test(a_writer_stops_at_its_limit),
    };
    return cmocka_run_group_tests_name("render/encode", tests, NULL, NULL);
}
