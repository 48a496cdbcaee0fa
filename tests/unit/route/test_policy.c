/* test_policy.c: what other domains publish about TLS, where no DNS and no network are needed: MTA-STS (RFC 8461), DANE (RFC 6698, 7671,
 * 7672), where TLS reports go and what they say (RFC 8460). */
#include "control/report/document.h"
#include "control/report/mail.h"
#include "control/route/dane.h"
#include "control/route/sts_policy.h"
#include "control/route/txt.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

static struct sts_policy *parse(const char *body) {
    const char *flaw;
    struct sts_policy *policy = sts_policy_parse(body, strlen(body), &flaw);
    assert_true((policy == NULL) == (flaw != NULL));
    return policy;
}

/* RFC 8461 3.2, the example of the RFC itself. */
static void policy_of_the_rfc(void **state) {
    struct sts_policy *policy =
        parse("version: STSv1\nmode: enforce\nmx: mail.example.com\nmx: *.example.net\nmx: backupmx.example.com\nmax_age: 604800\n");
    assert_non_null(policy);
    assert_int_equal(policy->mode, STS_ENFORCE);
    assert_int_equal(policy->max_age_s, 604800);
    assert_int_equal(policy->mx_count, 3);
    assert_string_equal(sts_policy_next(policy, NULL), "mail.example.com");
    free(policy);
}

/* RFC 8461 3.2: CRLF or LF, blanks around values, unknown keys, the first of a key that may stand once. */
static void policy_liberties(void **state) {
    struct sts_policy *policy = parse("max_age:86400  \r\nversion:\tSTSv1\r\nx-colour: bl\xc3\xa4u\r\nmode: testing\r\nmode: enforce\r\n"
                                      "max_age: 1\r\nmx:MX1.Example.Net\r\n\r\n");
    assert_non_null(policy);
    assert_int_equal(policy->mode, STS_TESTING);
    assert_int_equal(policy->max_age_s, 86400);
    assert_string_equal(sts_policy_next(policy, NULL), "mx1.example.net");
    free(policy);
    policy = parse("version: STSv1\nmode: none\nmax_age: 9999999999");
    assert_non_null(policy);
    assert_int_equal(policy->max_age_s, STS_AGE_MAX_S);
    free(policy);
}

static void policy_refused(void **state) {
    static const char *const BAD[] = {
        "",
        "version: STSv2\nmode: enforce\nmx: a.test\nmax_age: 1\n",
        "mode: enforce\nmx: a.test\nmax_age: 1\n",
        "version: STSv1\nmx: a.test\nmax_age: 1\n",
        "version: STSv1\nmode: enforce\nmx: a.test\n",
        "version: STSv1\nmode: enforce\nmax_age: 1\n", /* no mx */
        "version: STSv1\nmode: Enforce\nmx: a.test\nmax_age: 1\n",
        "version: STSv1\nmode: enforce\nmx: a.test\nmax_age: -1\n",
        "version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 12345678901\n",
        "version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 1d\n",
        "version: STSv1\nmode: enforce\nmx: *.*.test\nmax_age: 1\n",
        "version: STSv1\nmode: enforce\nmx: *\nmax_age: 1\n",
        "version: STSv1\nmode: enforce\nmx: a*.test\nmax_age: 1\n",
        "version: STSv1\nmode: enforce\nmx: .a.test\nmax_age: 1\n",
        "version: STSv1\nmode: enforce\nmx: a..test\nmax_age: 1\n",
        "version: STSv1\nmode: enforce\nmx: a.test b.test\nmax_age: 1\n",
        "version: STSv1\nmode: enforce\nmx:\nmax_age: 1\n",
        "version: STSv1\n\nmode: enforce\nmx: a.test\nmax_age: 1\n",
        "version: STSv1\rmode: enforce\nmx: a.test\nmax_age: 1\n",
        "<html>version: STSv1</html>\n",
        "version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 1\nnote: \x01\n",
    };
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        struct sts_policy *policy = parse(BAD[i]);
        if (policy)
            fail_msg("taken: %s", BAD[i]);
    }
    const char *flaw;
    char *body = malloc(STS_BODY_BYTES_MAX + 1);
    memset(body, 'a', STS_BODY_BYTES_MAX + 1);
    assert_null(sts_policy_parse(body, STS_BODY_BYTES_MAX + 1, &flaw));
    free(body);
    char many[(STS_MX_MAX + 1) * 12 + 64];
    int used = sprintf(many, "version: STSv1\nmode: enforce\nmax_age: 1\n");
    for (int i = 0; i <= STS_MX_MAX; i++)
        used += sprintf(many + used, "mx: m%d.t\n", i);
    assert_null(parse(many));
    static const char NUL[] = "version: STSv1\nmode: enforce\nmx: a\0.test\nmax_age: 1\n";
    assert_null(sts_policy_parse(NUL, sizeof NUL - 1, &flaw));
}

/* RFC 8461 4.1: a wildcard is exactly one label, the leftmost. */
static void patterns(void **state) {
    struct sts_policy *policy = parse("version: STSv1\nmode: enforce\nmx: mx1.example.net\nmx: *.wild.test\nmax_age: 1\n");
    assert_non_null(policy);
    assert_true(sts_policy_allows(policy, "mx1.example.net"));
    assert_false(sts_policy_allows(policy, "mx2.example.net"));
    assert_false(sts_policy_allows(policy, "a.mx1.example.net"));
    assert_true(sts_policy_allows(policy, "a.wild.test"));
    assert_false(sts_policy_allows(policy, "wild.test"));
    assert_false(sts_policy_allows(policy, ".wild.test"));
    assert_false(sts_policy_allows(policy, "a.b.wild.test"));
    assert_false(sts_policy_allows(policy, "awild.test"));
    free(policy);
}

static int record(const char *text, char *id) {
    return sts_record_read(text, strlen(text), id);
}

/* RFC 8461 3.1. */
static void sts_records(void **state) {
    char id[STS_ID_MAX + 1];
    assert_int_equal(record("v=STSv1; id=20160831085700Z;", id), 0);
    assert_string_equal(id, "20160831085700Z");
    assert_int_equal(record("v=STSv1;id=a", id), 0);
    assert_int_equal(record("v=STSv1 ; x-y.z=1 ; id=b1 ; id=c2", id), 0);
    assert_string_equal(id, "b1");
    assert_int_equal(record("v=STSv1", id), -ENOENT);
    assert_int_equal(record("v=STSv10; id=a", id), -ENOENT);
    assert_int_equal(record("V=STSv1; id=a", id), -ENOENT);
    assert_int_equal(record("id=a; v=STSv1", id), -ENOENT);
    assert_int_equal(record("v=spf1 -all", id), -ENOENT);
    static const char *const BAD[] = {
        "v=STSv1;",       "v=STSv1; id=",   "v=STSv1; id=a-b", "v=STSv1; id=a b",       "v=STSv1; nothing",
        "v=STSv1;; id=a", "v=STSv1; id=a=", "v=STSv1; =a; ",   "v=STSv1; x=\x07; id=a", "v=STSv1; id=123456789012345678901234567890123"};
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++)
        if (record(BAD[i], id) != -EINVAL)
            fail_msg("%s: %d", BAD[i], record(BAD[i], id));
}

/* RFC 1035 3.3.14, RFC 8461 3.1: several strings are one text. */
static void txt_strings(void **state) {
    char text[TXT_BYTES_MAX];
    assert_int_equal(txt_join((const uint8_t *)"\3v=S\5TSv1;", 10, text), 8);
    assert_string_equal(text, "v=STSv1;");
    assert_int_equal(txt_join((const uint8_t *)"\4v=S", 4, text), -EINVAL);
    assert_int_equal(txt_join((const uint8_t *)"\3a\0b", 4, text), -EINVAL);
    assert_int_equal(txt_join((const uint8_t *)"", 0, text), 0);
}

/* RFC 8460 section 3. */
static void report_records(void **state) {
    char rua[TXT_RUA_BYTES];
    static const char GOOD[] = "v=TLSRPTv1;rua=mailto:r@example.net , https://r.example.net/v1?a=b,ftp://x.example.net;";
    assert_int_equal(tlsrpt_record_read(GOOD, strlen(GOOD), rua), 0);
    assert_string_equal(rua, "mailto:r@example.net");
    assert_string_equal(rua + strlen(rua) + 1, "https://r.example.net/v1?a=b");
    assert_int_equal(rua[strlen(rua) + 1 + strlen("https://r.example.net/v1?a=b") + 1], 0);
    static const struct {
        const char *text;
        int rc;
    } OTHERS[] = {{"v=TLSRPTv1", -ENOENT},       {"v=STSv1; id=a", -ENOENT},       {"v=TLSRPTv1;", -EINVAL},
                  {"v=TLSRPTv1; rua=", -EINVAL}, {"v=TLSRPTv1; rua=r@x", -EINVAL}, {"v=TLSRPTv1; rua=mailto:", -EINVAL}};
    for (size_t i = 0; i < sizeof OTHERS / sizeof OTHERS[0]; i++)
        assert_int_equal(tlsrpt_record_read(OTHERS[i].text, strlen(OTHERS[i].text), rua), OTHERS[i].rc);
}

static void mail_addresses(void **state) {
    char to[64];
    assert_int_equal(report_mailto("mailto:r%2Bx@example.net?subject=hi", to, sizeof to), 0);
    assert_string_equal(to, "r+x@example.net");
    static const char *const BAD[] = {"mailto:a%0d%0a@b.test", "mailto:a@b@c.test", "mailto:a",
                                      "mailto:@b.test",        "mailto:a@",         "mailto:a%4",
                                      "https://a@b",           "mailto:a b@c.test", "mailto:<a@b.test>"};
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++)
        assert_int_equal(report_mailto(BAD[i], to, sizeof to), -EINVAL);
}

static void set_rdata(uint8_t *rdata, uint8_t usage, uint8_t selector, uint8_t matching, uint8_t fill, size_t bytes) {
    rdata[0] = usage, rdata[1] = selector, rdata[2] = matching;
    memset(rdata + 3, fill, bytes);
}

/* RFC 7672 3.1: usages 3 and 2; RFC 6698 2.1. */
static void tlsa_usable(void **state) {
    struct path_tlsa tlsa;
    uint8_t rdata[128];
    set_rdata(rdata, 3, 1, 1, 0xab, 32);
    assert_int_equal(tlsa_read(rdata, 35, &tlsa), 0);
    assert_int_equal(tlsa.length, 32);
    assert_int_equal(tlsa.data[31], 0xab);
    assert_int_equal(tlsa.data[32], 0);
    set_rdata(rdata, 2, 0, 2, 1, 64);
    assert_int_equal(tlsa_read(rdata, 67, &tlsa), 0);
    static const struct {
        uint8_t usage, selector, matching;
        size_t bytes;
    } BAD[] = {{0, 1, 1, 32}, {1, 0, 1, 32}, {4, 1, 1, 32}, {3, 2, 1, 32}, {3, 1, 3, 32},
               {3, 1, 1, 31}, {3, 1, 1, 33}, {3, 1, 2, 32}, {3, 1, 0, 0}};
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        set_rdata(rdata, BAD[i].usage, BAD[i].selector, BAD[i].matching, 1, BAD[i].bytes);
        assert_int_equal(tlsa_read(rdata, BAD[i].bytes + 3, &tlsa), -EINVAL);
    }
    /* Matching 0 holds the thing itself: SHA-256 of "abc" is FIPS 180-2's example. */
    memcpy(rdata, "\3\1\0abc", 6);
    static const uint8_t DIGEST[] = {0xba, 0x78, 0x16, 0xbf};
    assert_int_equal(tlsa_read(rdata, 6, &tlsa), 0);
    assert_int_equal(tlsa.matching, 1);
    assert_int_equal(tlsa.length, 32);
    assert_memory_equal(tlsa.data, DIGEST, sizeof DIGEST);
}

/* The order of an answer changes from one to the next; the choice must not. */
static void tlsa_chosen(void **state) {
    enum { COUNT = 12 };
    uint8_t rdata[COUNT][35];
    uint8_t *data[COUNT];
    int lengths[COUNT];
    struct path_tlsa first[PATH_TLSA_MAX], again[PATH_TLSA_MAX];
    for (int i = 0; i < COUNT; i++) {
        set_rdata(rdata[i], i % 2 ? 3 : 2, 1, 1, (uint8_t)i, 32);
        data[i] = rdata[i];
        lengths[i] = 35;
    }
    assert_int_equal(tlsa_choose(data, lengths, COUNT, first), PATH_TLSA_MAX);
    for (int i = 0; i < 6; i++)
        assert_int_equal(first[i].usage, 3);
    assert_int_equal(first[6].usage, 2);
    for (int i = 0; i < COUNT; i++)
        data[i] = rdata[COUNT - 1 - i];
    assert_int_equal(tlsa_choose(data, lengths, COUNT, again), PATH_TLSA_MAX);
    assert_memory_equal(first, again, sizeof first);
    for (int i = 0; i < COUNT; i++)
        data[i] = rdata[0];
    assert_int_equal(tlsa_choose(data, lengths, COUNT, again), 1);
    set_rdata(rdata[0], 0, 0, 1, 1, 32);
    assert_int_equal(tlsa_choose(data, lengths, COUNT, again), 0);
}

static void tlsa_names(void **state) {
    char name[DANE_NAME_BYTES], host[254];
    assert_int_equal(tlsa_name("mx.example.net", 25, name), 0);
    assert_string_equal(name, "_25._tcp.mx.example.net");
    memset(host, 'a', sizeof host);
    host[253] = '\0';
    assert_int_equal(tlsa_name(host, 65535, name), -EINVAL);
}

/* RFC 8460 4.4. */
static void documents(void **state) {
    struct config config = {.tls_reports = {.from = (char *)"Reports <tls@sender.example>", .organization = (char *)"Sender Ltd"}};
    static const struct report_field FIELDS[] = {
        {"rua", "mailto:r@example.net https://r.example.net/"},
        {"policy sts", "version: STSv1\nmode: enforce\nmx: *.example.net\nmax_age: 86400\n"},
        {"ok sts", "5"},
        {"bad sts certificate-expired mx1.example.net 192.0.2.1 198.51.100.1", "2"},
        {"bad sts sts-policy-fetch-error - - -", "1"},
        {"why sts sts-policy-fetch-error -", "it answers with HTTP status 404"},
        {"ok no-policy-found", "x"},
        {"bad wrong", "1"},
    };
    enum { COUNT = sizeof FIELDS / sizeof FIELDS[0] };
    json_t *document = report_document(&config, "example.net", "2026-11-21", FIELDS, COUNT);
    assert_non_null(document);
    assert_string_equal(json_string_value(json_object_get(document, "organization-name")), "Sender Ltd");
    assert_string_equal(json_string_value(json_object_get(json_object_get(document, "date-range"), "end-datetime")),
                        "2026-11-21T23:59:59Z");
    json_t *policies = json_object_get(document, "policies"), *policy = json_array_get(policies, 0);
    assert_int_equal(json_array_size(policies), 1);
    assert_string_equal(json_string_value(json_object_get(json_object_get(policy, "policy"), "policy-type")), "sts");
    assert_string_equal(json_string_value(json_array_get(json_object_get(json_object_get(policy, "policy"), "mx-host"), 0)),
                        "*.example.net");
    assert_int_equal(json_array_size(json_object_get(json_object_get(policy, "policy"), "policy-string")), 4);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(policy, "summary"), "total-successful-session-count")), 5);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(policy, "summary"), "total-failure-session-count")), 3);
    json_t *detail = json_array_get(json_object_get(policy, "failure-details"), 0);
    assert_string_equal(json_string_value(json_object_get(detail, "result-type")), "certificate-expired");
    assert_string_equal(json_string_value(json_object_get(detail, "sending-mta-ip")), "192.0.2.1");
    detail = json_array_get(json_object_get(policy, "failure-details"), 1);
    assert_null(json_object_get(detail, "receiving-mx-hostname"));
    assert_string_equal(json_string_value(json_object_get(detail, "failure-reason-code")), "it answers with HTTP status 404");
    assert_null(report_document(&config, "example.net", "2026-11-21", FIELDS, 2));

    size_t bytes;
    uint8_t *gzip = report_gzip(document, &bytes);
    assert_non_null(gzip);
    assert_int_equal(gzip[0], 0x1f);
    char *mail = report_mail(&config, "example.net", "2026-11-21", gzip, bytes, "r@example.net", "tls-report-1");
    assert_non_null(strstr(mail, "filename=\\\"sender.example!example.net!1795219200!1795305599.json.gz\\\""));
    assert_non_null(strstr(mail, "TLS-Report-Domain: example.net"));
    free(mail);
    free(gzip);
    json_decref(document);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(policy_of_the_rfc), cmocka_unit_test(policy_liberties), cmocka_unit_test(policy_refused),
        cmocka_unit_test(patterns),          cmocka_unit_test(sts_records),      cmocka_unit_test(txt_strings),
        cmocka_unit_test(report_records),    cmocka_unit_test(mail_addresses),   cmocka_unit_test(tlsa_usable),
        cmocka_unit_test(tlsa_chosen),       cmocka_unit_test(tlsa_names),       cmocka_unit_test(documents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
