/* spf.c: records and mechanisms of RFC 7208, without macros. */
#include "spf.h"
#include "control/config/address.h"
#include "control/route/mx.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { TERM_BYTES = 512 };

/* What a mechanism said. */
enum match { MATCH_NO, MATCH_YES, MATCH_TEMPERROR, MATCH_PERMERROR };

const char *spf_result_text(enum spf_result result) {
    static const char *const texts[] = {
        [SPF_NONE] = "none",         [SPF_NEUTRAL] = "neutral",     [SPF_PASS] = "pass",           [SPF_FAIL] = "fail",
        [SPF_SOFTFAIL] = "softfail", [SPF_TEMPERROR] = "temperror", [SPF_PERMERROR] = "permerror", [SPF_UNSURE] = "cannot be told"};
    return texts[result];
}

static enum spf_result record_check(struct spf *spf, const char *domain);

/* --- lookups --- */

static bool why(struct spf *spf, const char *what, const char *about) {
    if (!*spf->why) {
        snprintf(spf->why, sizeof spf->why, what, about);
    }
    return false;
}

/* 4.6.4: ten terms of all records may ask DNS. */
static bool lookup_allowed(struct spf *spf) {
    return ++spf->lookups <= SPF_LOOKUPS_MAX || why(spf, "%s takes more than ten lookups (RFC 7208 4.6.4)", "it");
}

/* Asks; false with the error. Answers without data are counted: two are allowed (4.6.4). */
static bool ask(struct spf *spf, const char *name, int type, struct resolver_answer *answer, enum match *error) {
    resolver_ask(spf->resolver, name, type, answer);
    *error = MATCH_NO;
    if (answer->status == DNS_FAILED) {
        why(spf, "%s could not be looked up", name);
        *error = MATCH_TEMPERROR;
    } else if (answer->status != DNS_FOUND && ++spf->voids > SPF_VOIDS_MAX) {
        why(spf, "more than two of its names do not exist, such as %s (RFC 7208 4.6.4)", name);
        *error = MATCH_PERMERROR;
    }
    return *error == MATCH_NO;
}

/* Does the name have our address, within the prefix lengths? */
static enum match host_match(struct spf *spf, const char *name, unsigned prefix4, unsigned prefix6) {
    struct resolver_answer answer;
    enum match match;
    bool v4 = spf->address.family == 4;
    if (ask(spf, name, v4 ? DNS_TYPE_A : DNS_TYPE_AAAA, &answer, &match)) {
        for (uint32_t i = 0; i < answer.count && match == MATCH_NO; i++) {
            struct config_address network = {.family = spf->address.family, .prefix_length = (uint8_t)(v4 ? prefix4 : prefix6)};
            if (answer.lengths[i] == (v4 ? 4 : 16)) {
                memcpy(network.bytes, answer.data[i], answer.lengths[i]);
                match = address_on_link(&network, &spf->address) ? MATCH_YES : MATCH_NO;
            }
        }
    }
    resolver_forget(&answer);
    return match;
}

static enum match mx_match(struct spf *spf, const char *name, unsigned prefix4, unsigned prefix6) {
    struct resolver_answer answer;
    struct mx_set *set = calloc(1, sizeof *set);
    enum match match;
    if (!set) {
        abort();
    }
    if (ask(spf, name, DNS_TYPE_MX, &answer, &match)) {
        for (uint32_t i = 0; i < answer.count; i++) {
            mx_add_rdata(set, answer.data[i], answer.lengths[i]);
        }
        if (answer.count > SPF_MX_MAX) {
            why(spf, "%s has more than ten MX hosts (RFC 7208 4.6.4)", name);
            match = MATCH_PERMERROR;
        }
        for (uint32_t i = 0; i < set->count && match == MATCH_NO; i++) {
            match = host_match(spf, set->hosts[i].name, prefix4, prefix6);
        }
    }
    resolver_forget(&answer);
    free(set);
    return match;
}

static enum match include_match(struct spf *spf, const char *domain) {
    switch (record_check(spf, domain)) { /* 5.2 */
    case SPF_PASS:
        return MATCH_YES;
    case SPF_TEMPERROR:
        return MATCH_TEMPERROR;
    case SPF_PERMERROR:
    case SPF_NONE:
        why(spf, "%s, which it includes, has no SPF record", domain);
        return MATCH_PERMERROR;
    default:
        return MATCH_NO;
    }
}

/* --- terms --- */

static bool passed_over(struct spf *spf, const char *term) {
    spf->unsure = true;
    why(spf, "it has `%s`, which is not followed here", term);
    return true;
}

/* The digits of a prefix length; false: none, or too many. */
static bool prefix_read(const char *text, unsigned most, unsigned *prefix) {
    char *end;
    unsigned long number = strtoul(text, &end, 10);
    *prefix = (unsigned)number;
    return *text >= '0' && *text <= '9' && *end == '\0' && number <= most;
}

/* 5.3, 5.4: ":domain", "/prefix4", "//prefix6" behind a or mx. */
static bool host_read(char *rest, const char *domain, const char **name, unsigned *prefix4, unsigned *prefix6) {
    char *six = strstr(rest, "//"), *four;
    if (six) {
        *six = '\0';
    }
    four = strchr(rest, '/');
    if (four) {
        *four = '\0';
    }
    *name = *rest == ':' ? rest + 1 : domain;
    return (*rest == '\0' || (*rest == ':' && rest[1])) && (!six || prefix_read(six + 2, 128, prefix6)) &&
           (!four || prefix_read(four + 1, 32, prefix4));
}

static enum match ip_match(const struct spf *spf, const char *text, uint8_t family) {
    struct config_address network;
    if (*text != ':' || !address_parse_prefix(text + 1, &network) || network.family != family) {
        return MATCH_PERMERROR;
    }
    return address_on_link(&network, &spf->address) ? MATCH_YES : MATCH_NO;
}

static bool begins(const char *term, const char *name, const char **rest) {
    size_t length = strlen(name);
    *rest = term + length;
    return strncasecmp(term, name, length) == 0 && strchr(":/", term[length]) != NULL; /* NUL too */
}

/* Section 5. */
static enum match mechanism_match(struct spf *spf, char *term, const char *domain) {
    const char *rest, *name;
    unsigned prefix4 = 32, prefix6 = 128;
    bool is_mx = begins(term, "mx", &rest), is_include = false;
    if (begins(term, "all", &rest)) {
        return *rest ? MATCH_PERMERROR : MATCH_YES;
    }
    if (begins(term, "ip4", &rest) || begins(term, "ip6", &rest)) {
        return ip_match(spf, rest, (uint8_t)(term[2] - '0'));
    }
    if (begins(term, "exists", &rest) || begins(term, "ptr", &rest)) {
        return lookup_allowed(spf) && passed_over(spf, term) ? MATCH_NO : MATCH_PERMERROR;
    }
    if (!is_mx && !begins(term, "a", &rest) && !(is_include = begins(term, "include", &rest))) {
        why(spf, "it has `%s`, which no receiver knows", term);
        return MATCH_PERMERROR;
    }
    if (!lookup_allowed(spf)) {
        return MATCH_PERMERROR;
    }
    if (strchr(term, '%')) {
        return passed_over(spf, term) ? MATCH_NO : MATCH_PERMERROR;
    }
    if (is_include) {
        return *rest == ':' && rest[1] ? include_match(spf, rest + 1) : MATCH_PERMERROR;
    }
    if (!host_read(term + (is_mx ? 2 : 1), domain, &name, &prefix4, &prefix6)) {
        why(spf, "`%s` in it is malformed", term);
        return MATCH_PERMERROR;
    }
    return is_mx ? mx_match(spf, name, prefix4, prefix6) : host_match(spf, name, prefix4, prefix6);
}

static bool is_modifier(const char *term) {
    const char *equals = strchr(term, '=');
    return equals && equals > term && strcspn(term, ":/") > (size_t)(equals - term);
}

static enum spf_result text_check(struct spf *spf, char *text, const char *domain) {
    static const enum spf_result results[] = {['+'] = SPF_PASS, ['-'] = SPF_FAIL, ['~'] = SPF_SOFTFAIL, ['?'] = SPF_NEUTRAL};
    char *more = NULL, redirect[TERM_BYTES] = "";
    for (char *term = strtok_r(text + strlen("v=spf1"), " ", &more); term; term = strtok_r(NULL, " ", &more)) {
        if (is_modifier(term)) {
            if (strncasecmp(term, "redirect=", 9) == 0) {
                snprintf(redirect, sizeof redirect, "%s", term + 9);
            }
            continue;
        }
        bool qualified = strchr("+-~?", *term) != NULL;
        enum match match = mechanism_match(spf, term + qualified, domain);
        if (match != MATCH_NO) {
            return match == MATCH_YES         ? results[qualified ? (unsigned char)*term : '+']
                   : match == MATCH_TEMPERROR ? SPF_TEMPERROR
                                              : SPF_PERMERROR;
        }
    }
    if (!*redirect) {
        return SPF_NEUTRAL; /* 4.7 */
    }
    if (!lookup_allowed(spf)) {
        return SPF_PERMERROR;
    }
    if (strchr(redirect, '%')) {
        passed_over(spf, redirect);
        return SPF_NEUTRAL;
    }
    enum spf_result result = record_check(spf, redirect);
    return result == SPF_NONE ? SPF_PERMERROR : result; /* 6.1 */
}

/* 4.5: the one record that is SPF's. */
static enum spf_result record_check(struct spf *spf, const char *domain) {
    struct resolver_answer answer;
    char text[TXT_BYTES_MAX], found[TXT_BYTES_MAX];
    uint32_t count = 0;
    resolver_ask(spf->resolver, domain, DNS_TYPE_TXT, &answer);
    for (uint32_t i = 0; i < answer.count; i++) {
        if (txt_join(answer.data[i], answer.lengths[i], text) >= 6 && strncasecmp(text, "v=spf1", 6) == 0 &&
            (text[6] == ' ' || text[6] == '\0')) {
            count++;
            memcpy(found, text, sizeof found);
        }
    }
    enum dns_status status = answer.status;
    resolver_forget(&answer);
    if (status == DNS_FAILED) {
        why(spf, "%s could not be looked up", domain);
        return SPF_TEMPERROR;
    }
    if (count > 1) {
        why(spf, "%s has several SPF records (RFC 7208 4.5)", domain);
        return SPF_PERMERROR;
    }
    return count == 0 ? SPF_NONE : text_check(spf, found, domain);
}

enum spf_result spf_check(struct spf *spf, const char *domain) {
    enum spf_result result = record_check(spf, domain);
    return spf->unsure && result != SPF_PASS && result != SPF_TEMPERROR && result != SPF_PERMERROR ? SPF_UNSURE : result;
}
