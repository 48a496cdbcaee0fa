/* test_spf.c: RFC 7208 records against a table of DNS records: syntax, mechanisms, qualifiers, CIDR, redirect, include and the limits. */
#include "control/cli/spf.h"
#include "control/config/address.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <cmocka.h>

/* --- DNS as the cases want it: spf.c's resolver is this table --- */

enum { ZONE_MAX = 64, RDATA_MAX = 4096 };

struct zone_record {
    const char *name;
    int type;
    size_t length;
    uint8_t rdata[RDATA_MAX];
};

static struct zone {
    uint32_t count, questions;
    struct zone_record records[ZONE_MAX];
} zone;

static struct zone_record *zone_add(const char *name, int type) {
    assert_true(zone.count < ZONE_MAX);
    struct zone_record *record = &zone.records[zone.count++];
    *record = (struct zone_record){.name = name, .type = type};
    return record;
}

/* A record as character-strings of `piece` bytes (RFC 7208 3.3). */
static void zone_text_in(const char *name, const char *text, size_t piece) {
    struct zone_record *record = zone_add(name, DNS_TYPE_TXT);
    for (size_t at = 0, length; at < strlen(text); at += length) {
        length = strlen(text) - at < piece ? strlen(text) - at : piece;
        record->rdata[record->length++] = (uint8_t)length;
        memcpy(record->rdata + record->length, text + at, length);
        record->length += length;
    }
}

static void zone_text(const char *name, const char *text) {
    zone_text_in(name, text, 200);
}

static void zone_address(const char *name, const char *text) {
    struct config_address address;
    assert_true(address_parse(text, &address));
    struct zone_record *record = zone_add(name, address.family == 4 ? DNS_TYPE_A : DNS_TYPE_AAAA);
    record->length = address.family == 4 ? 4 : 16;
    memcpy(record->rdata, address.bytes, record->length);
}

static void zone_mx(const char *name, const char *host) {
    struct zone_record *record = zone_add(name, DNS_TYPE_MX);
    record->length = 2;
    while (*host) {
        size_t length = strcspn(host, ".");
        record->rdata[record->length++] = (uint8_t)length;
        memcpy(record->rdata + record->length, host, length);
        record->length += length;
        host += length + (host[length] == '.');
    }
    record->rdata[record->length++] = 0;
}

/* Names below "silent.test" get no answer. */
void resolver_ask(struct resolver *resolver, const char *name, int type, struct resolver_answer *answer) {
    size_t length = strlen(name), tail = strlen("silent.test");
    *answer = (struct resolver_answer){.status = DNS_NO_NAME};
    zone.questions++;
    if (length >= tail && strcasecmp(name + length - tail, "silent.test") == 0) {
        answer->status = DNS_FAILED;
    }
    answer->data = calloc(ZONE_MAX, sizeof *answer->data);
    answer->lengths = calloc(ZONE_MAX, sizeof *answer->lengths);
    for (uint32_t i = 0; i < zone.count; i++) {
        if (strcasecmp(zone.records[i].name, name) == 0) {
            answer->status = answer->status == DNS_NO_NAME ? DNS_NO_DATA : answer->status;
            if (zone.records[i].type == type) {
                answer->status = DNS_FOUND;
                answer->lengths[answer->count] = zone.records[i].length;
                answer->data[answer->count++] = zone.records[i].rdata;
            }
        }
    }
}

void resolver_forget(struct resolver_answer *answer) {
    free(answer->data);
    free(answer->lengths);
}

static int zone_empty(void **state) {
    zone.count = zone.questions = 0;
    return 0;
}

/* --- asking --- */

static struct spf last;

static enum spf_result check_from(const char *domain, const char *address) {
    last = (struct spf){0};
    assert_true(address_parse(address, &last.address));
    return spf_check(&last, domain);
}

/* Of 192.0.2.10 with this record alone. */
static enum spf_result check(const char *record) {
    zone_empty(NULL);
    zone_text("d.test", record);
    return check_from("d.test", "192.0.2.10");
}

static void expect(const char *record, enum spf_result wanted) {
    enum spf_result result = check(record);
    if (result != wanted) {
        fail_msg("`%s`: %s, not %s (%s)", record, spf_result_text(result), spf_result_text(wanted), last.why);
    }
    bool has_words = result == SPF_TEMPERROR || result == SPF_PERMERROR || result == SPF_UNSURE;
    assert_int_equal(has_words, *last.why != '\0');
}

/* --- records (4.5) --- */

static void a_record_begins_with_its_version_and_a_space(void **state) {
    expect("v=spf1 +all", SPF_PASS);
    expect("V=SPF1 +ALL", SPF_PASS); /* literals have no case (12) */
    expect("v=spf1", SPF_NEUTRAL);
    expect("v=spf1   ", SPF_NEUTRAL);
    expect("v=spf10 +all", SPF_NONE);
    expect("v=spf1\t+all", SPF_NONE);
    expect(" v=spf1 +all", SPF_NONE);
    expect("v=spf2.0/pra +all", SPF_NONE);
    expect("", SPF_NONE);
}

static void strings_are_joined_without_space(void **state) { /* 3.3 */
    zone_text_in("d.test", "v=spf1 ip4:192.0.2.10 -all", 3);
    assert_int_equal(check_from("d.test", "192.0.2.10"), SPF_PASS);
    assert_int_equal(check_from("d.test", "192.0.2.11"), SPF_FAIL);
}

static void of_several_records_none_is_taken(void **state) {
    zone_text("d.test", "v=spf1 +all");
    zone_text("d.test", "some text");
    assert_int_equal(check_from("d.test", "192.0.2.10"), SPF_PASS);
    zone_text("d.test", "v=spf1 -all");
    assert_int_equal(check_from("d.test", "192.0.2.10"), SPF_PERMERROR);
    assert_non_null(strstr(last.why, "several"));
}

static void no_answer_is_a_temporary_error(void **state) {
    assert_int_equal(check_from("silent.test", "192.0.2.10"), SPF_TEMPERROR);
    assert_int_equal(check_from("missing.test", "192.0.2.10"), SPF_NONE);
    expect("v=spf1 a:a.silent.test +all", SPF_TEMPERROR);
    expect("v=spf1 include:silent.test +all", SPF_TEMPERROR);
    expect("v=spf1 redirect=silent.test", SPF_TEMPERROR);
    expect("v=spf1 ip4:192.0.2.10 a:a.silent.test", SPF_PASS); /* not asked any more */
}

/* --- syntax (4.6, 12) --- */

static void an_error_anywhere_is_an_error_of_the_whole_record(void **state) { /* 4.6 */
    static const char *const bad[] = {"all:x",
                                      "all/8",
                                      "all.",
                                      "al",
                                      "-",
                                      "+",
                                      "++all",
                                      "ip4",
                                      "ip4:",
                                      "ip4:192.0.2",
                                      "ip4:192.0.2.256",
                                      "ip4:192.0.2.1/33",
                                      "ip4:192.0.2.1/",
                                      "ip4:192.0.2.1/08",
                                      "ip4:192.0.2.1//24",
                                      "ip4:2001:db8::1",
                                      "ip4/24",
                                      "ip6",
                                      "ip6:192.0.2.1",
                                      "ip6:2001:db8::/129",
                                      "ip6:::1::",
                                      "include",
                                      "include:",
                                      "include:a.test/24",
                                      "include/24",
                                      "exists",
                                      "exists:",
                                      "exists/24",
                                      "a:",
                                      "a/",
                                      "a/33",
                                      "a//129",
                                      "a/024",
                                      "a/24/24",
                                      "a//64/24",
                                      "a/-1",
                                      "a/99999999999999999999",
                                      "a:localhost",
                                      "a:192.0.2.1",
                                      "a:a.test.1",
                                      "a:a.-test",
                                      "a:a.test-",
                                      "a:a..test",
                                      "a:a.te_st",
                                      "mx:",
                                      "mx/",
                                      "mx:a.test/33",
                                      "ptr:",
                                      "ptr/24",
                                      "a=b c",
                                      "ipv4:192.0.2.1",
                                      "unknown:a.test",
                                      "a:%{x}.test",
                                      "a:%{d0}.test",
                                      "a:%{d",
                                      "a:%",
                                      "a:%a.test",
                                      "a:%{c}.test",
                                      "a:a.test\x80",
                                      "a:\x07.test",
                                      "redirect=",
                                      "redirect=test",
                                      "redirect:a.test",
                                      "-redirect=a.test",
                                      "exp=",
                                      "=a.test",
                                      "1x=y",
                                      "x=%",
                                      "redirect=a.test redirect=a.test",
                                      "exp=a.test exp=b.test"};
    char record[256];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(record, sizeof record, "v=spf1 +all %s", bad[i]);
        expect(record, SPF_PERMERROR);
        assert_int_equal(zone.questions, 1);
    }
}

static void what_the_grammar_takes_is_no_error(void **state) {
    static const char *const good[] = {"a:a.test.",
                                       "a:a.b-c",
                                       "a:_spf.a.test",
                                       "a:a.test/0",
                                       "a/0",
                                       "a//0",
                                       "a/24//64",
                                       "a:a.test/24//64",
                                       "mx/24//64",
                                       "mx:a.test//128",
                                       "a:foo:bar/baz.a.test",
                                       "a:a.xn--p1ai",
                                       "a:8.a1",
                                       "ip4:192.0.2.1/0",
                                       "ip6:::1",
                                       "ip6:2001:db8::/32",
                                       "ip6:::ffff:192.0.2.1",
                                       "ptr",
                                       "ptr:a.test",
                                       "exists:%{ir}.%{v}._spf.%{d2}",
                                       "exists:%{l1r+-}.a.test",
                                       "a:%{d}",
                                       "a:%_.%%.a.test",
                                       "include:%{D4}",
                                       "exp=a.test",
                                       "exp=%{d}",
                                       "moo.cow-far_out=man:dog/cat",
                                       "x=",
                                       "default=deny",
                                       "MX",
                                       "Include:a.test"};
    char record[256];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        snprintf(record, sizeof record, "v=spf1 +all %s", good[i]);
        expect(record, SPF_PASS);
        assert_int_equal(zone.questions, 1); /* `all` decides (5.1) */
    }
}

static void names_that_cannot_be_in_dns_are_not_asked_for(void **state) { /* RFC 1035 2.3.4 */
    char record[1024], label[65];
    memset(label, 'a', 64);
    label[64] = '\0';
    snprintf(record, sizeof record, "v=spf1 a:%s.test +all", label);
    expect(record, SPF_PERMERROR);
    assert_int_equal(zone.questions, 1);
    snprintf(record, sizeof record, "v=spf1 a:%.63s.test +all", label);
    expect(record, SPF_PASS);
    assert_int_equal(zone.questions, 2);
    snprintf(record, sizeof record, "v=spf1 a:%.63s.%.63s.%.63s.%.63s.test +all", label, label, label, label);
    expect(record, SPF_PERMERROR);
    char term[700] = "v=spf1 a:";
    memset(term + strlen(term), 'b', sizeof term - strlen(term) - 1);
    expect(term, SPF_PERMERROR);
}

/* --- mechanisms (5) and qualifiers (4.6.2) --- */

static void a_qualifier_says_what_a_match_is(void **state) {
    expect("v=spf1 ip4:192.0.2.10 -all", SPF_PASS);
    expect("v=spf1 +ip4:192.0.2.10 -all", SPF_PASS);
    expect("v=spf1 -ip4:192.0.2.10 +all", SPF_FAIL);
    expect("v=spf1 ~ip4:192.0.2.10 +all", SPF_SOFTFAIL);
    expect("v=spf1 ?ip4:192.0.2.10 +all", SPF_NEUTRAL);
    expect("v=spf1 ip4:192.0.2.11", SPF_NEUTRAL); /* 4.7 */
}

static void networks_match_by_their_prefix(void **state) { /* 5.6 */
    expect("v=spf1 ip4:192.0.2.0/28 -all", SPF_PASS);
    expect("v=spf1 ip4:192.0.2.0/29 -all", SPF_FAIL);
    expect("v=spf1 ip4:198.51.100.1/0 -all", SPF_PASS);
    expect("v=spf1 ip4:192.0.2.11/31 -all", SPF_PASS);
    expect("v=spf1 ip6:2001:db8::/0 -all", SPF_FAIL);
    zone_empty(NULL);
    zone_text("d.test", "v=spf1 ip4:0.0.0.0/0 ip6:2001:db8:1::/47 -all");
    assert_int_equal(check_from("d.test", "2001:db8:0:ffff::1"), SPF_PASS);
    assert_int_equal(check_from("d.test", "2001:db8:1::9"), SPF_PASS);
    assert_int_equal(check_from("d.test", "2001:db8:2::9"), SPF_FAIL);
}

static void a_matches_the_addresses_of_a_name(void **state) { /* 5.3 */
    zone_text("d.test", "v=spf1 a -all");
    zone_address("d.test", "192.0.2.10");
    zone_address("d.test", "2001:db8::10");
    assert_int_equal(check_from("d.test", "192.0.2.10"), SPF_PASS);
    assert_int_equal(check_from("d.test", "192.0.2.11"), SPF_FAIL);
    assert_int_equal(check_from("d.test", "2001:db8::10"), SPF_PASS);
    zone_empty(NULL);
    zone_text("d.test", "v=spf1 a:h.test/28//64 -all");
    zone_address("h.test", "192.0.2.1");
    zone_address("h.test", "2001:db8::1");
    assert_int_equal(check_from("d.test", "192.0.2.10"), SPF_PASS);
    assert_int_equal(check_from("d.test", "192.0.2.16"), SPF_FAIL);
    assert_int_equal(check_from("d.test", "2001:db8::ffff"), SPF_PASS);
    assert_int_equal(check_from("d.test", "2001:db8:0:1::1"), SPF_FAIL);
}

static void an_address_of_a_wrong_length_is_none(void **state) {
    zone_text("d.test", "v=spf1 a/0 -all");
    zone_add("d.test", DNS_TYPE_A)->length = 3;
    assert_int_equal(check_from("d.test", "192.0.2.10"), SPF_FAIL);
}

static void mx_matches_the_addresses_of_its_hosts(void **state) { /* 5.4 */
    zone_text("d.test", "v=spf1 mx mx:e.test/24 -all");
    zone_mx("d.test", "one.test");
    zone_mx("d.test", "two.test");
    zone_mx("e.test", "one.test");
    zone_address("one.test", "198.51.100.1");
    zone_address("two.test", "192.0.2.10");
    assert_int_equal(check_from("d.test", "192.0.2.10"), SPF_PASS);
    assert_int_equal(check_from("d.test", "192.0.2.11"), SPF_FAIL);
    assert_int_equal(check_from("d.test", "198.51.100.77"), SPF_PASS);
    assert_int_equal(last.lookups, 2); /* terms count, not hosts (4.6.4) */
}

static void an_mx_host_that_is_none_is_passed_over(void **state) {
    zone_text("d.test", "v=spf1 mx -all");
    struct zone_record *record = zone_add("d.test", DNS_TYPE_MX);
    memcpy(record->rdata, "\0\1\77x", record->length = 4); /* a label that ends behind the record */
    zone_mx("d.test", "");                                 /* RFC 7505 */
    assert_int_equal(check_from("d.test", "192.0.2.10"), SPF_FAIL);
}

/* --- include (5.2) and redirect (6.1) --- */

static void include_matches_where_the_other_passes(void **state) {
    static const struct {
        const char *other;
        enum spf_result result;
    } cases[] = {{"v=spf1 +all", SPF_SOFTFAIL},
                 {"v=spf1 -all", SPF_PASS},
                 {"v=spf1 ~all", SPF_PASS},
                 {"v=spf1 ?all", SPF_PASS},
                 {"v=spf1", SPF_PASS},
                 {"v=spf1 ip4:bad", SPF_PERMERROR},
                 {"no such record", SPF_PERMERROR},
                 {"v=spf1 a:silent.test", SPF_TEMPERROR}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        zone_empty(NULL);
        zone_text("d.test", "v=spf1 ~include:o.test +all");
        zone_text("o.test", cases[i].other);
        assert_int_equal(check_from("d.test", "192.0.2.10"), cases[i].result);
    }
}

static void an_error_of_an_included_record_names_that_record(void **state) {
    zone_text("d.test", "v=spf1 include:o.test -all");
    zone_text("o.test", "v=spf1 ip4:192.0.2.300 -all");
    assert_int_equal(check_from("d.test", "192.0.2.10"), SPF_PERMERROR);
    assert_string_equal(last.why, "`ip4:192.0.2.300` in o.test is malformed");
    expect("v=spf1 exists:%{i}.x.test ip4:192.0.2.300", SPF_PERMERROR);
    assert_string_equal(last.why, "`ip4:192.0.2.300` in it is malformed"); /* before what is passed over */
    expect("v=spf1 exists:%{i}.x.test include:missing.test", SPF_PERMERROR);
    assert_string_equal(last.why, "missing.test, which it includes, has no SPF record");
}

static void redirect_is_the_last_resort(void **state) {
    zone_text("d.test", "v=spf1 redirect=o.test ip4:192.0.2.10"); /* its place says nothing */
    zone_text("o.test", "v=spf1 a ~all");
    zone_address("o.test", "198.51.100.1");
    zone_address("d.test", "203.0.113.1");
    assert_int_equal(check_from("d.test", "192.0.2.10"), SPF_PASS);
    assert_int_equal(check_from("d.test", "198.51.100.1"), SPF_PASS); /* `a` is of o.test there */
    assert_int_equal(check_from("d.test", "203.0.113.1"), SPF_SOFTFAIL);
    expect("v=spf1 redirect=missing.test", SPF_PERMERROR);
    expect("v=spf1 redirect=missing.test ?all", SPF_NEUTRAL);
}

/* --- limits (4.6.4) --- */

static void ten_terms_may_ask(void **state) {
    static const char ten[] = "v=spf1 a a a a a a a a a a ip4:192.0.2.10 -all",
                      eleven[] = "v=spf1 a a a a a a a a a a a ip4:192.0.2.10 -all";
    zone_text("d.test", ten);
    zone_address("d.test", "203.0.113.1");
    assert_int_equal(check_from("d.test", "192.0.2.10"), SPF_PASS);
    zone_empty(NULL);
    zone_text("d.test", eleven);
    zone_address("d.test", "203.0.113.1");
    assert_int_equal(check_from("d.test", "192.0.2.10"), SPF_PERMERROR);
    assert_non_null(strstr(last.why, "ten lookups"));
    expect("v=spf1 ptr ptr ptr ptr ptr exists:a.test exists:a.test exists:a.test exists:a.test exists:a.test ip4:192.0.2.10", SPF_PASS);
    expect("v=spf1 ptr ptr ptr ptr ptr exists:a.test exists:a.test exists:a.test exists:a.test exists:a.test redirect=d.test",
           SPF_PERMERROR);
}

static void records_that_include_each_other_end(void **state) {
    zone_text("d.test", "v=spf1 include:e.test -all");
    zone_text("e.test", "v=spf1 include:d.test -all");
    assert_int_equal(check_from("d.test", "192.0.2.10"), SPF_PERMERROR);
    assert_int_equal(zone.questions, 11);
    zone_empty(NULL);
    zone_text("d.test", "v=spf1 redirect=d.test");
    assert_int_equal(check_from("d.test", "192.0.2.10"), SPF_PERMERROR);
    assert_int_equal(zone.questions, 11);
}

static void two_terms_may_ask_for_nothing(void **state) {
    expect("v=spf1 a:v1.test a:v2.test ip4:192.0.2.10 -all", SPF_PASS);
    expect("v=spf1 a:v1.test a:v2.test mx:v3.test ip4:192.0.2.10 -all", SPF_PERMERROR);
    assert_non_null(strstr(last.why, "do not exist"));
    zone_empty(NULL);
    zone_text("d.test", "v=spf1 mx ip6:2001:db8::1 -all"); /* one term, whose hosts have no AAAA */
    zone_mx("d.test", "one.test");
    zone_mx("d.test", "two.test");
    zone_mx("d.test", "three.test");
    zone_address("one.test", "192.0.2.10");
    assert_int_equal(check_from("d.test", "2001:db8::1"), SPF_PASS);
    assert_int_equal(last.voids, 1);
}

static void ten_mx_hosts_may_be_looked_up(void **state) {
    static const char *const hosts[] = {"h0.test", "h1.test", "h2.test", "h3.test", "h4.test",
                                        "h5.test", "h6.test", "h7.test", "h8.test", "h9.test"};
    zone_text("d.test", "v=spf1 mx -all");
    for (size_t i = 0; i < 10; i++) {
        zone_mx("d.test", hosts[i]);
        zone_address(hosts[i], "203.0.113.1");
    }
    assert_int_equal(check_from("d.test", "192.0.2.10"), SPF_FAIL);
    zone_mx("d.test", "h10.test");
    assert_int_equal(check_from("d.test", "192.0.2.10"), SPF_PERMERROR);
    assert_non_null(strstr(last.why, "ten MX hosts"));
}

/* --- what is not followed --- */

static void what_is_passed_over_counts_only_where_it_decides(void **state) { /* 7, 5.5, 5.7 */
    expect("v=spf1 exists:%{i}.x.test -all", SPF_UNSURE);
    expect("v=spf1 a:%{d}.x.test ~all", SPF_UNSURE);
    expect("v=spf1 include:%{d}.x.test ?all", SPF_UNSURE);
    expect("v=spf1 ptr", SPF_UNSURE);
    expect("v=spf1 redirect=%{d}.x.test", SPF_UNSURE);
    assert_string_equal(last.why, "it has `redirect=%{d}.x.test`, which is not followed here");
    expect("v=spf1 exists:%{i}.x.test ip4:192.0.2.10 -all", SPF_PASS); /* in either case */
    expect("v=spf1 -exists:%{i}.x.test ip4:192.0.2.10 -all", SPF_UNSURE);
    expect("v=spf1 -exists:%{i}.x.test -all", SPF_FAIL);
    expect("v=spf1 ~exists:%{i}.x.test -all", SPF_FAIL);
    expect("v=spf1 x=%{d} -all", SPF_FAIL); /* to be ignored (6) */
    zone_empty(NULL);
    zone_text("d.test", "v=spf1 -include:o.test +all");
    zone_text("o.test", "v=spf1 -ptr ip4:192.0.2.10");
    assert_int_equal(check_from("d.test", "192.0.2.10"), SPF_UNSURE);
    assert_string_equal(last.why, "o.test has `-ptr`, which is not followed here");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_record_begins_with_its_version_and_a_space, zone_empty),
        cmocka_unit_test_setup(strings_are_joined_without_space, zone_empty),
        cmocka_unit_test_setup(of_several_records_none_is_taken, zone_empty),
        cmocka_unit_test_setup(no_answer_is_a_temporary_error, zone_empty),
        cmocka_unit_test_setup(an_error_anywhere_is_an_error_of_the_whole_record, zone_empty),
        cmocka_unit_test_setup(what_the_grammar_takes_is_no_error, zone_empty),
        cmocka_unit_test_setup(names_that_cannot_be_in_dns_are_not_asked_for, zone_empty),
        cmocka_unit_test_setup(a_qualifier_says_what_a_match_is, zone_empty),
        cmocka_unit_test_setup(networks_match_by_their_prefix, zone_empty),
        cmocka_unit_test_setup(a_matches_the_addresses_of_a_name, zone_empty),
        cmocka_unit_test_setup(an_address_of_a_wrong_length_is_none, zone_empty),
        cmocka_unit_test_setup(mx_matches_the_addresses_of_its_hosts, zone_empty),
        cmocka_unit_test_setup(an_mx_host_that_is_none_is_passed_over, zone_empty),
        cmocka_unit_test_setup(include_matches_where_the_other_passes, zone_empty),
        cmocka_unit_test_setup(an_error_of_an_included_record_names_that_record, zone_empty),
        cmocka_unit_test_setup(redirect_is_the_last_resort, zone_empty),
        cmocka_unit_test_setup(ten_terms_may_ask, zone_empty),
        cmocka_unit_test_setup(records_that_include_each_other_end, zone_empty),
        cmocka_unit_test_setup(two_terms_may_ask_for_nothing, zone_empty),
        cmocka_unit_test_setup(ten_mx_hosts_may_be_looked_up, zone_empty),
        cmocka_unit_test_setup(what_is_passed_over_counts_only_where_it_decides, zone_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
