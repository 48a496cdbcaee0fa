/* Message-ID and X-Body-Digest, whatever way the header is folded (RFC 5322 2.2.3) and cut by segments. */
#include "bench/sink/message.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void take(struct message *message, const char *wire, uint32_t step) {
    uint32_t length = (uint32_t)strlen(wire), at = 0;
    bool ended = false;
    message_start(message);
    while (at < length && !ended)
        at += message_take(message, (const uint8_t *)wire + at, length - at < step ? length - at : step, &ended);
    assert_true(ended);
}

static void check(const char *wire, const char *id, enum digest_kind kind, bool matches) {
    static struct message message;
    for (uint32_t step = 1; step < 200; step += step < 10 ? 1 : 31) {
        take(&message, wire, step);
        assert_int_equal(message.id_length, strlen(id));
        assert_memory_equal(message.id, id, strlen(id));
        assert_int_equal(message.digest.kind, kind);
        if (kind != DIGEST_NONE)
            assert_int_equal(digest_matches(&message.digest, message.expected), matches);
    }
}

static void xxh64_gives_its_published_values(void **state) {
    assert_true(xxh64("", 0, 0) == 0xEF46DB3751D8E999ULL);
    assert_true(xxh64("a", 1, 0) == 0xD24EC4F1A98C6E5BULL);
    assert_true(xxh64("abc", 3, 0) == 0x44BC2CF5AD770999ULL);
    const char *text = "Nobody inspects the spammish repetition";
    assert_true(xxh64(text, strlen(text), 0) == 0xFBCEA83C8A378BF1ULL);
    struct xxh64 pieces;
    xxh64_start(&pieces, 0);
    for (size_t i = 0; i < strlen(text); i++)
        xxh64_add(&pieces, text + i, 1);
    assert_true(xxh64_end(&pieces, 0) == 0xFBCEA83C8A378BF1ULL);
}

/* SHA-256 of nothing. */
#define EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static void the_body_is_what_follows_the_empty_line(void **state) {
    check("Message-ID: <1@example.org>\r\nX-Body-Digest: sha256=" EMPTY_SHA256 "\r\n\r\n.\r\n", "<1@example.org>", DIGEST_SHA256, true);
    check("Subject: x\r\nmessage-id:<2@example.org>\r\nX-Body-Digest: SHA256=" EMPTY_SHA256 "\r\n\r\nx\r\n.\r\n", "<2@example.org>",
          DIGEST_SHA256, false);
}

static void the_digest_is_of_the_unstuffed_body(void **state) {
    char wire[512];
    const char *body = ".abc\r\n.\r\nd\r\n";
    snprintf(wire, sizeof(wire), "X-Body-Digest: xxh64=%016llx\r\nMessage-ID: <3@x>\r\n\r\n..abc\r\n..\r\nd\r\n.\r\n",
             (unsigned long long)xxh64(body, strlen(body), 0));
    check(wire, "<3@x>", DIGEST_XXH64, true);
}

static void folded_fields_are_read(void **state) {
    check("Message-ID:\r\n <4@example.org>\r\nX-Body-Digest:\r\n\tsha256=" EMPTY_SHA256 "\r\nSubject: y\r\n\r\n.\r\n", "<4@example.org>",
          DIGEST_SHA256, true);
    check("X-Message-ID: <no@x>\r\nSubject: Message-ID: <no@x>\r\n Message-ID: <no@x>\r\n\r\nMessage-ID: <body@x>\r\n.\r\n", "",
          DIGEST_NONE, false);
}

static void a_digest_that_cannot_be_read_is_none(void **state) {
    check("X-Body-Digest: sha256=abc\r\n\r\n.\r\n", "", DIGEST_NONE, false);
    check("X-Body-Digest: md5=00\r\n\r\n.\r\n", "", DIGEST_NONE, false);
}

static void bytes_are_counted_unstuffed(void **state) {
    static struct message message;
    take(&message, "a: b\r\n\r\n..x\r\n.\r\n", 3);
    assert_int_equal(message.bytes, strlen("a: b\r\n\r\n.x\r\n"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(xxh64_gives_its_published_values),     cmocka_unit_test(the_body_is_what_follows_the_empty_line),
        cmocka_unit_test(the_digest_is_of_the_unstuffed_body),  cmocka_unit_test(folded_fields_are_read),
        cmocka_unit_test(a_digest_that_cannot_be_read_is_none), cmocka_unit_test(bytes_are_counted_unstuffed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
