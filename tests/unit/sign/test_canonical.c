/* Relaxed canonicalisation: RFC 6376 3.4.2, 3.4.4 and the examples of 3.4.5. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "control/render/encode.h"
#include "control/sign/canonical.h"

#include <stdlib.h>
#include <string.h>

static struct canonical canonical;

static const char *body_hash(const char *body, size_t length) {
    static char text[64];
    uint8_t digest[32];
    canonical_begin(&canonical);
    canonical_body(&canonical, (const uint8_t *)body, length);
    assert_int_equal(canonical_end(&canonical, digest), 0);
    text[base64_write(text, digest, sizeof(digest))] = '\0';
    return text;
}

static void assert_digest(const char *expected, size_t length) {
    uint8_t digest[32], right[32];
    wc_Sha256 sha;
    assert_int_equal(canonical_end(&canonical, digest), 0);
    wc_InitSha256(&sha);
    wc_Sha256Update(&sha, (const byte *)expected, (word32)length);
    wc_Sha256Final(&sha, right);
    assert_memory_equal(digest, right, sizeof(right));
}

static void assert_body(const char *body, const char *expected) {
    canonical_begin(&canonical);
    canonical_body(&canonical, (const uint8_t *)body, strlen(body));
    assert_digest(expected, strlen(expected));
}

static void assert_field(const char *field, const char *expected, int end_line) {
    canonical_begin(&canonical);
    canonical_field(&canonical, (const uint8_t *)field, strlen(field), end_line);
    assert_digest(expected, strlen(expected));
}

static void the_empty_body_has_the_known_hash(void **state) {
    static const char known[] = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    static const char *const empty[] = {"", "\r\n", "\r\n\r\n\r\n", " \r\n\t\r\n  \t", " "};
    for (size_t i = 0; i < sizeof(empty) / sizeof(empty[0]); i++)
        assert_string_equal(body_hash(empty[i], strlen(empty[i])), known);
    assert_string_not_equal(body_hash("x", 1), known);
}

static void the_examples_of_the_rfc_hold(void **state) {
    assert_field("A: X\r\n", "a:X\r\n", 1);
    assert_field("B : Y\t\r\n\tZ  \r\n", "b:Y Z\r\n", 1);
    assert_body(" C \r\nD \t E\r\n\r\n\r\n", " C\r\nD E\r\n");
    /* The body of RFC 6376 A.2 and its hash in the signature shown there. */
    static const char body[] = "Hi.\r\n\r\nWe lost the game. Are you hungry yet?\r\n\r\nJoe.\r\n";
    assert_string_equal(body_hash(body, sizeof(body) - 1), "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=");
}

static void bodies_lose_what_relays_change(void **state) {
    assert_body("x", "x\r\n");
    assert_body("x\r\n\r\n", "x\r\n");
    assert_body("x\r\n\r\ny", "x\r\n\r\ny\r\n");
    assert_body("x \t \r\n\t\r\n \r\n", "x\r\n");
    assert_body("\r\n\r\nx\r\n", "\r\n\r\nx\r\n");
    assert_body("  x\t\ty  \r\n", " x y\r\n");
    assert_body(" \r\nx\r\n \r\ny \r\n", "\r\nx\r\n\r\ny\r\n");
}

static void fields_lose_folds_and_white_space(void **state) {
    assert_field("Subject:  a\r\n\t  b \t c  \r\n", "subject:a b c\r\n", 1);
    assert_field("SUBJECT\t : x\r\n", "subject:x\r\n", 1);
    assert_field("Subject:\r\n", "subject:\r\n", 1);
    assert_field("Subject: \r\n \r\n", "subject:\r\n", 1);
    assert_field("Subject: a:b : c\r\n", "subject:a:b : c\r\n", 1);
    /* The signature's own field has no CRLF (3.7). */
    assert_field("DKIM-Signature: v=1;\r\n\tb=", "dkim-signature:v=1; b=", 0);
}

/* The rule said another way: line by line, with copies. */
static size_t body_by_lines(const char *body, size_t length, char *out) {
    size_t used = 0, kept = 0;
    for (size_t at = 0; at < length;) {
        const char *end = memmem(body + at, length - at, "\r\n", 2);
        size_t line = end == NULL ? length - at : (size_t)(end - body) - at;
        for (size_t i = 0; i < line; i++) {
            char byte = body[at + i] == '\t' ? ' ' : body[at + i];
            if (byte != ' ' || used == 0 || out[used - 1] != ' ')
                out[used++] = byte;
        }
        while (used > 0 && out[used - 1] == ' ')
            used--;
        bool empty = used == 0 || out[used - 1] == '\n';
        memcpy(out + used, "\r\n", 2);
        used += 2;
        if (!empty)
            kept = used;
        at += line + 2;
    }
    return kept;
}

static void random_bodies_agree_with_the_rule_said_another_way(void **state) {
    uint64_t seed = 11;
    for (int round = 0; round < 3000; round++) {
        static char body[40000], expected[80000];
        size_t room = round % 50 == 0 ? sizeof(body) - 2 : 200, length = 0;
        while (length < room) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            uint32_t kind = (uint32_t)(seed >> 40) % (round % 2 == 0 ? 6 : 30);
            if (kind == 0) {
                memcpy(body + length, "\r\n", 2);
                length += 2;
            } else {
                body[length++] = kind == 1 ? ' ' : kind == 2 ? '\t' : (char)('a' + kind % 26);
            }
            if (seed >> 33 == 0)
                break;
        }
        if (round % 3 == 0 && length > 0 && body[length - 1] == '\r')
            length--;
        canonical_begin(&canonical);
        canonical_body(&canonical, (const uint8_t *)body, length);
        assert_digest(expected, body_by_lines(body, length, expected));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_empty_body_has_the_known_hash),
        cmocka_unit_test(the_examples_of_the_rfc_hold),
        cmocka_unit_test(bodies_lose_what_relays_change),
        cmocka_unit_test(fields_lose_folds_and_white_space),
        cmocka_unit_test(random_bodies_agree_with_the_rule_said_another_way),
    };
    return cmocka_run_group_tests_name("sign/canonical", tests, NULL, NULL);
}
