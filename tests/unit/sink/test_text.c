/* The lines of a message: RFC 5321 section 4.5.2 (transparency), 2.3.8 (CRLF only), 4.5.3.1.6 (1,000 bytes); RFC 3030 for chunks. */
#include "bench/sink/text.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct taken {
    char bytes[1 << 16];
    uint32_t length;
};

static void take_run(void *context, const uint8_t *bytes, uint32_t length) {
    struct taken *taken = context;
    assert_true(taken->length + length <= sizeof(taken->bytes));
    memcpy(taken->bytes + taken->length, bytes, length);
    taken->length += length;
}

/* Feeds `wire` in steps of `step` bytes. Returns how many were taken until the end. */
static uint32_t feed(struct text *text, const char *wire, uint32_t length, uint32_t step, struct taken *taken, bool *ended) {
    uint32_t at = 0;
    *ended = false;
    taken->length = 0;
    while (at < length && !*ended)
        at += text_take(text, (const uint8_t *)wire + at, length - at < step ? length - at : step, take_run, taken, ended);
    return at;
}

/* However TCP cuts it, the wire's bytes give `body`, `faults` and the end where it is. */
static void check_bytes(const char *wire, uint32_t wire_length, const char *body, uint32_t body_length, uint8_t faults) {
    static struct taken taken;
    uint32_t steps[] = {1, 2, 3, 7, 63, 64, 65, 100, 1448, 65536};
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct text text;
        bool ended;
        text_start(&text, true);
        uint32_t at = feed(&text, wire, wire_length, steps[i], &taken, &ended);
        assert_true(ended);
        assert_int_equal(at, wire_length);
        assert_int_equal(taken.length, body_length);
        assert_memory_equal(taken.bytes, body, body_length);
        assert_int_equal(text.faults, faults);
    }
}

static void check(const char *wire, const char *body, uint8_t faults) {
    check_bytes(wire, (uint32_t)strlen(wire), body, (uint32_t)strlen(body), faults);
}

static void dots_are_unstuffed_at_line_starts_only(void **state) {
    check("a\r\n.\r\n", "a\r\n", 0);
    check(".\r\n", "", 0);
    check("..\r\n.\r\n", ".\r\n", 0);
    check("...a\r\nb.\r\n.c..\r\n.\r\n", "..a\r\nb.\r\nc..\r\n", TEXT_UNSTUFFED_DOT);
    check("a.\r\n..b\r\n..\r\n.\r\n", "a.\r\n.b\r\n.\r\n", 0);
}

static void long_texts_keep_their_bytes(void **state) {
    char wire[40000], body[40000];
    uint32_t to = 0, from = 0;
    for (unsigned line = 0; line < 400; line++) {
        unsigned width = line * 7 % 79;
        bool dot = line % 5 == 0;
        if (dot)
            wire[from++] = '.';
        for (unsigned i = 0; i < width + dot; i++)
            wire[from++] = body[to++] = i == 0 && dot ? '.' : (char)('a' + (line + i) % 26);
        for (unsigned i = 0; i < 2; i++)
            wire[from++] = body[to++] = "\r\n"[i];
    }
    memcpy(wire + from, ".\r\n", 3);
    check_bytes(wire, from + 3, body, to, 0);
}

static void only_crlf_ends_a_line(void **state) {
    check("a\nb\r\n.\r\n", "a\nb\r\n", TEXT_BARE_LF);
    check("a\rb\r\n.\r\n", "a\rb\r\n", TEXT_BARE_CR);
    check("a\r\r\nb\r\n.\r\n", "a\r\r\nb\r\n", TEXT_BARE_CR);
}

static void a_dot_between_odd_line_ends_does_not_end_the_data(void **state) {
    check("a\n.\nb\r\n.\r\n", "a\n.\nb\r\n", TEXT_BARE_LF | TEXT_SMUGGLED);
    check("a\n.\r\nb\r\n.\r\n", "a\n.\r\nb\r\n", TEXT_BARE_LF | TEXT_SMUGGLED);
    check("a\r.\rb\r\n.\r\n", "a\r.\rb\r\n", TEXT_BARE_CR | TEXT_SMUGGLED);
    check("a\r\n.\nb\r\n.\r\n", "a\r\n\nb\r\n", TEXT_BARE_LF | TEXT_SMUGGLED);
    check("a\r\n.\rb\r\n.\r\n", "a\r\n\rb\r\n", TEXT_BARE_CR | TEXT_SMUGGLED);
}

static void lines_of_more_than_998_bytes_are_told(void **state) {
    char wire[3000];
    for (unsigned width = 990; width < 1010; width++) {
        memcpy(wire, "ab\r\n", 4);
        memset(wire + 4, 'x', width);
        memcpy(wire + 4 + width, "\r\nc\r\n.\r\n", 9);
        check_bytes(wire, 4 + width + 8, wire, 4 + width + 5, width > 998 ? TEXT_OVERLONG : 0);
    }
}

static void eight_bit_bytes_are_told(void **state) {
    check("h\xc3\xa9 and a long enough rest of the line, so that it fills a block or two of them, yes\r\n.\r\n",
          "h\xc3\xa9 and a long enough rest of the line, so that it fills a block or two of them, yes\r\n", TEXT_EIGHT_BIT);
}

static void what_follows_the_end_is_left(void **state) {
    static struct taken taken;
    struct text text;
    bool ended;
    text_start(&text, true);
    const char *wire = "a\r\n.\r\nQUIT\r\n";
    uint32_t at = feed(&text, wire, (uint32_t)strlen(wire), 65536, &taken, &ended);
    assert_true(ended);
    assert_string_equal(wire + at, "QUIT\r\n");
}

static void chunks_are_taken_as_they_are(void **state) {
    static struct taken taken;
    struct text text;
    bool ended;
    text_start(&text, false);
    const char *wire = ".\r\n..a\r\n.\r\nb\nc\r\n";
    uint32_t at = feed(&text, wire, (uint32_t)strlen(wire), 4, &taken, &ended);
    assert_false(ended);
    assert_int_equal(at, strlen(wire));
    assert_memory_equal(taken.bytes, wire, at);
    assert_int_equal(text.faults, TEXT_BARE_LF);
}

/* A byte at a time or all at once: the same, on bytes that are all about line ends. */
static void every_cut_agrees(void **state) {
    static struct taken slow, fast;
    static const char alphabet[] = "\r\n\r\n.aaaaaaaa\r\n";
    srandom(20261121);
    for (unsigned round = 0; round < 3000; round++) {
        char wire[512];
        uint32_t length = (uint32_t)random() % sizeof(wire);
        for (uint32_t i = 0; i < length; i++) {
            bool pair = random() % 20 == 0 && i + 1 < length;
            wire[i] = pair ? '\r' : random() % 30 == 0 ? alphabet[(unsigned)random() % (sizeof(alphabet) - 1)] : 'x';
            if (pair)
                wire[++i] = '\n';
        }
        struct text one, other;
        bool one_ended, other_ended;
        text_start(&one, true);
        text_start(&other, true);
        uint32_t one_at = feed(&one, wire, length, 1, &slow, &one_ended);
        uint32_t other_at = feed(&other, wire, length, 65536, &fast, &other_ended);
        assert_int_equal(one_at, other_at);
        assert_int_equal(one_ended, other_ended);
        assert_int_equal(one.faults, other.faults);
        assert_int_equal(slow.length, fast.length);
        assert_memory_equal(slow.bytes, fast.bytes, slow.length);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dots_are_unstuffed_at_line_starts_only),
        cmocka_unit_test(long_texts_keep_their_bytes),
        cmocka_unit_test(only_crlf_ends_a_line),
        cmocka_unit_test(a_dot_between_odd_line_ends_does_not_end_the_data),
        cmocka_unit_test(lines_of_more_than_998_bytes_are_told),
        cmocka_unit_test(eight_bit_bytes_are_told),
        cmocka_unit_test(what_follows_the_end_is_left),
        cmocka_unit_test(chunks_are_taken_as_they_are),
        cmocka_unit_test(every_cut_agrees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
