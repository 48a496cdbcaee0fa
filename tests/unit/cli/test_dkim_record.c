/* test_dkim_record.c: key records (RFC 6376 3.2 and 3.6.1, RFC 8463 4) as bytes from DNS. */
#include "control/cli/dkim_record.h"
#include "control/route/txt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define RSA_N                                                                                                                              \
    "MIIBCgKCAQEAmK3glf9YCxK6XiLYb1FySZo9EG8O9ynonNBDqZqR+SQ5qVy7hrGdzSO/Pu64s+7lEdnK77Hw6lghz5SxmXce5q6c1UfATIf1tnYMHewgcTSaMKQYPjwx6se/" \
    "J5tMqwe4IfsoNApQ5ezbOfczQVS+5ttSyAP9iniE14eVsqWU/SK+/EMEu7n4Wd38O9VbNil5FyLh+eRzPJfpsWL80+iizwZrDfkAb1ttPuIx1C2DGgwc9HW+Ja2chwbYXWT/" \
    "vIccwi9ygzAmjL0HAE9JYxYjsFXMSZnMdt0QOEeIBE56+icJKxOzyFlUPhgu5VcTk4F0AtlCWQ+mV033x+AqGO27iwIDAQAB"
#define RSA_KEY "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A" RSA_N
#define RSA_1024                                                                                                                           \
    "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDiLgtrxyGG1IknNsSaXQdlYxmVbwGjTsbNT+6Lg9HGc9hR+9k8dRKmfjwS6/"                                   \
    "m7QdXp7DzItCsM0QpJ9UcgabpZKSonUlvJt2EN"                                                                                               \
    "S+QeLBOHOg+AZUUbdTgXzClXdnktQu6d3XnaWS+IYU1JMNoRM6TK+SYwZ/QbUKsoydvH1j8yGQIDAQAB"
#define ED25519_KEY "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=" /* RFC 8463 A.2 */

static const char rsa_record[] = "v=DKIM1; k=rsa; p=" RSA_KEY, ed25519_record[] = "v=DKIM1; k=ed25519; p=" ED25519_KEY;

/* The verdict on a record for this key, and its codes in a line. */
static enum dkim_verdict judge(const char *published, const char *wanted, char codes[256]) {
    struct dkim_findings findings = {0};
    enum dkim_verdict worst = DKIM_GOOD;
    dkim_record_judge(published, wanted, &findings);
    codes[0] = '\0';
    for (uint32_t i = 0; i < findings.count; i++) {
        snprintf(codes + strlen(codes), 256 - strlen(codes), "%s%s", i ? " " : "", findings.list[i].code);
        worst = findings.list[i].level > worst ? findings.list[i].level : worst;
        assert_int_equal(findings.list[i].text[strlen(findings.list[i].text) - 1], '.'); /* whole sentences, with their remedy */
    }
    assert_int_equal(findings.verdict, worst);
    return findings.verdict;
}

static void expect_of(const char *published, const char *wanted, enum dkim_verdict verdict, const char *codes) {
    char found[256];
    enum dkim_verdict is = judge(published, wanted, found);
    if (is != verdict || strcmp(found, codes) != 0) {
        fail_msg("`%s`: %s (%s), not %s (%s)", published, dkim_verdict_text(is), found, dkim_verdict_text(verdict), codes);
    }
}

static void expect(const char *published, enum dkim_verdict verdict, const char *codes) {
    expect_of(published, rsa_record, verdict, codes);
}

/* --- tag lists (3.2) --- */

static void a_list_is_of_tags_between_semicolons(void **state) {
    expect("v=DKIM1; k=rsa; p=" RSA_KEY, DKIM_GOOD, "");
    expect("v=DKIM1;k=rsa;p=" RSA_KEY ";", DKIM_GOOD, "");
    expect("v=DKIM1;p=" RSA_KEY " ; \t", DKIM_GOOD, ""); /* rsa is what k= is without (3.6.1) */
    expect("p=" RSA_KEY, DKIM_GOOD, "");                 /* v= may be left out */
    expect("k=rsa; p=" RSA_KEY, DKIM_GOOD, "");
    expect("", DKIM_BAD, "no-key");
    expect("no list", DKIM_BAD, "malformed no-key");
    expect("v=DKIM1;; p=" RSA_KEY, DKIM_BAD, "malformed");
    expect("; p=" RSA_KEY, DKIM_BAD, "malformed");
    expect("v=DKIM1; =x; p=" RSA_KEY, DKIM_BAD, "malformed");
    expect("v=DKIM1; 1a=x; p=" RSA_KEY, DKIM_BAD, "malformed");
    expect("v=DKIM1; a-b=x; p=" RSA_KEY, DKIM_BAD, "malformed");
    expect("v=DKIM1; n=caf\xc3\xa9; p=" RSA_KEY, DKIM_BAD, "malformed");
    expect("v=DKIM1; n=a\001; p=" RSA_KEY, DKIM_BAD, "malformed");
}

static void white_space_folds_around_names_and_values(void **state) {
    expect("\r\n v \t=\r\n\tDKIM1 \r\n ; k = rsa ;\tp = " RSA_KEY " ", DKIM_GOOD, "");
    expect("v=DK IM1; p=" RSA_KEY, DKIM_BAD, "version");
}

static void a_key_may_be_folded_anywhere(void **state) {
    char folded[TXT_BYTES_MAX] = "v=DKIM1; p=";
    for (size_t i = 0; i < strlen(RSA_KEY); i++) {
        snprintf(folded + strlen(folded), sizeof folded - strlen(folded), "%c%s", RSA_KEY[i], i % 3 ? "" : i % 2 ? " " : "\r\n\t");
    }
    expect(folded, DKIM_GOOD, "");
}

static void a_tag_that_nobody_knows_is_ignored(void **state) {
    expect("v=DKIM1; x=1; n=a note, with = and =3D; zz_9=; p=" RSA_KEY, DKIM_GOOD, "");
    expect("v=DKIM1; P=nothing; p=" RSA_KEY, DKIM_GOOD, ""); /* names have case */
}

static void a_tag_that_stands_twice_spoils_the_list(void **state) {
    expect("v=DKIM1; p=" RSA_KEY "; p=" RSA_KEY, DKIM_BAD, "repeated");
    expect("v=DKIM1; k=rsa; k=rsa; p=" RSA_KEY, DKIM_BAD, "repeated");
    expect("v=DKIM1; n=a; p=" RSA_KEY "; n=a", DKIM_BAD, "repeated"); /* unknown ones too */
    expect("v=DKIM1; n=a; N=a; p=" RSA_KEY, DKIM_GOOD, "");
}

/* --- the tags of a key (3.6.1) --- */

static void the_version_is_first_or_missing(void **state) {
    expect("p=" RSA_KEY "; v=DKIM1", DKIM_BAD, "version");
    expect("v=DKIM2; p=" RSA_KEY, DKIM_BAD, "version");
    expect("v=dkim1; p=" RSA_KEY, DKIM_BAD, "version");
    expect("v=; p=" RSA_KEY, DKIM_BAD, "version");
}

static void a_key_that_is_empty_was_revoked(void **state) {
    expect("v=DKIM1; p=", DKIM_BAD, "revoked");
    expect("v=DKIM1; p= \r\n\t ;", DKIM_BAD, "revoked");
    expect("v=DKIM1; k=rsa", DKIM_BAD, "no-key");
}

static void a_key_that_is_not_whole_is_told(void **state) {
    expect("p=" RSA_N "AAAA", DKIM_WARNING, "pkcs1"); /* what stands behind the key is not read */
    char cut[sizeof rsa_record];
    for (size_t length = strlen("v=DKIM1; k=rsa; p=") + 1; length < strlen(rsa_record); length++) {
        snprintf(cut, sizeof cut, "%.*s", (int)length, rsa_record);
        char codes[256];
        assert_int_equal(judge(cut, rsa_record, codes), DKIM_BAD);
        assert_true(strcmp(codes, "unreadable") == 0 || strcmp(codes, "other-key") == 0);
    }
    expect("p=***", DKIM_BAD, "unreadable");
    expect("p=\"" RSA_KEY "\"", DKIM_BAD, "unreadable");
    expect("p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQ==", DKIM_BAD, "unreadable");
}

static void another_key_is_told(void **state) {
    expect("p=" RSA_1024, DKIM_BAD, "other-key");
    expect(ed25519_record, DKIM_BAD, "type");
    expect_of(rsa_record, ed25519_record, DKIM_BAD, "type");
    expect("k=dsa; p=" RSA_KEY, DKIM_BAD, "type");
    expect_of("k=ed25519; p=21qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", ed25519_record, DKIM_BAD, "other-key");
}

static void an_ed25519_key_is_32_bytes(void **state) { /* RFC 8463 4.2 */
    char text[32];
    expect_of(ed25519_record, ed25519_record, DKIM_GOOD, "");
    expect_of("k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHUQ==", ed25519_record, DKIM_BAD, "unreadable");
    assert_int_equal(dkim_record_size(ed25519_record, text), 256);
    assert_string_equal(text, "Ed25519");
}

static void the_size_is_judged(void **state) { /* RFC 8301 3.2 */
    char text[32];
    expect_of("p=" RSA_1024, "p=" RSA_1024, DKIM_WARNING, "short");
    expect_of("p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAMIiAjJwZzXq6DFUNSnFtA2+Xpdu4HtO2Ywv1krMZREysnpnPJq4+IBfjH+9VqAzizt8r3sieR7w9f++AmQ+"
              "UXcCAwEAAQ==",
              "p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAMIiAjJwZzXq6DFUNSnFtA2+Xpdu4HtO2Ywv1krMZREysnpnPJq4+IBfjH+9VqAzizt8r3sieR7w9f++AmQ+"
              "UXcCAwEAAQ==",
              DKIM_BAD, "short");
    assert_int_equal(dkim_record_size(rsa_record, text), 2048);
    assert_string_equal(text, "RSA of 2048 bits");
    assert_int_equal(dkim_record_size("p=AAAA", text), 0);
    assert_string_equal(text, "unknown");
}

static void a_bare_rsa_key_is_warned_of(void **state) {
    expect("p=" RSA_N, DKIM_WARNING, "pkcs1");
}

static void the_other_tags_are_lists_between_colons(void **state) {
    expect("h=sha256; p=" RSA_KEY, DKIM_GOOD, "");
    expect("h=sha1 : sha256; p=" RSA_KEY, DKIM_GOOD, "");
    expect("h=sha1; p=" RSA_KEY, DKIM_BAD, "hash");
    expect("h=sha2567:sha25; p=" RSA_KEY, DKIM_BAD, "hash");
    expect("h=; p=" RSA_KEY, DKIM_BAD, "hash");
    expect("s=*; p=" RSA_KEY, DKIM_GOOD, "");
    expect("s=tlsrpt:email; p=" RSA_KEY, DKIM_GOOD, "");
    expect("s=tlsrpt; p=" RSA_KEY, DKIM_BAD, "service");
    expect("t=s; p=" RSA_KEY, DKIM_GOOD, "strict");
    expect("t=y; p=" RSA_KEY, DKIM_WARNING, "testing");
    expect("t=other:y:s; p=" RSA_KEY, DKIM_WARNING, "testing strict");
    expect("t=; p=" RSA_KEY, DKIM_GOOD, "");
    expect("g=*; p=" RSA_KEY, DKIM_GOOD, "");
    expect("g=; p=" RSA_KEY, DKIM_WARNING, "granularity");
}

static void a_long_value_leaves_room_for_the_remedy(void **state) {
    static const char *const records[] = {"h", "s", "k"};
    for (size_t i = 0; i < 3; i++) {
        char record[TXT_BYTES_MAX] = "", codes[256];
        snprintf(record, sizeof record, "p=" RSA_KEY "; %s=", records[i]);
        memset(record + strlen(record), 'x', 3000);
        assert_int_equal(judge(record, rsa_record, codes), DKIM_BAD); /* judge looks for the end of the sentence */
    }
}

static void strings_of_a_record_are_joined(void **state) { /* 3.6.2.2 */
    for (size_t piece = 1; piece <= 255; piece += 127) {
        uint8_t rdata[2 * sizeof rsa_record];
        char text[TXT_BYTES_MAX];
        size_t used = 0;
        for (size_t at = 0, length; at < strlen(rsa_record); at += length) {
            length = strlen(rsa_record) - at < piece ? strlen(rsa_record) - at : piece;
            rdata[used++] = (uint8_t)length;
            memcpy(rdata + used, rsa_record + at, length);
            used += length;
        }
        assert_int_equal(txt_join(rdata, used, text), strlen(rsa_record));
        expect(text, DKIM_GOOD, "");
        assert_int_equal(txt_join(rdata, used - 1, text), -22);
    }
}

static void a_record_is_a_key_by_its_version_or_its_key(void **state) {
    assert_true(dkim_record_is_key("v=DKIM1; k=rsa"));
    assert_true(dkim_record_is_key("p="));
    assert_true(dkim_record_is_key("v=dkim2"));
    assert_false(dkim_record_is_key("v=spf1 -all"));
    assert_false(dkim_record_is_key("v=DMARC1"));
    assert_false(dkim_record_is_key("k=rsa; v=DKIM1"));
    assert_false(dkim_record_is_key(""));
}

static void findings_past_the_last_count(void **state) {
    struct dkim_findings findings = {0};
    for (unsigned i = 0; i < DKIM_FINDINGS_MAX; i++) {
        dkim_findings_add(&findings, DKIM_GOOD, "x", "%u.", i);
    }
    dkim_findings_add(&findings, DKIM_BAD, "y", "more.");
    assert_int_equal(findings.count, DKIM_FINDINGS_MAX);
    assert_int_equal(findings.verdict, DKIM_BAD);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_list_is_of_tags_between_semicolons),
        cmocka_unit_test(white_space_folds_around_names_and_values),
        cmocka_unit_test(a_key_may_be_folded_anywhere),
        cmocka_unit_test(a_tag_that_nobody_knows_is_ignored),
        cmocka_unit_test(a_tag_that_stands_twice_spoils_the_list),
        cmocka_unit_test(the_version_is_first_or_missing),
        cmocka_unit_test(a_key_that_is_empty_was_revoked),
        cmocka_unit_test(a_key_that_is_not_whole_is_told),
        cmocka_unit_test(another_key_is_told),
        cmocka_unit_test(an_ed25519_key_is_32_bytes),
        cmocka_unit_test(the_size_is_judged),
        cmocka_unit_test(a_bare_rsa_key_is_warned_of),
        cmocka_unit_test(the_other_tags_are_lists_between_colons),
        cmocka_unit_test(a_long_value_leaves_room_for_the_remedy),
        cmocka_unit_test(strings_of_a_record_are_joined),
        cmocka_unit_test(a_record_is_a_key_by_its_version_or_its_key),
        cmocka_unit_test(findings_past_the_last_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
