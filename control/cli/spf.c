/* spf.c: records and mechanisms of RFC 7208, without macros. Where a term is passed over both of what it could say is followed, as bits. */
#include "spf.h"
#include "control/config/address.h"
#include "control/route/mx.h"
#include "spf_term.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* What a mechanism can say: bits. */
enum { MATCH_NO = 1, MATCH_YES = 2, MATCH_TEMPERROR = 4, MATCH_PERMERROR = 8 };

const char *spf_result_text(enum spf_result result) {
    static const char *const texts[] = {
        [SPF_NONE] = "none",         [SPF_NEUTRAL] = "neutral",     [SPF_PASS] = "pass",           [SPF_FAIL] = "fail",
        [SPF_SOFTFAIL] = "softfail", [SPF_TEMPERROR] = "temperror", [SPF_PERMERROR] = "permerror", [SPF_UNSURE] = "cannot be told"};
    return texts[result];
}

/* The results that a record can give are bits as well. */
static unsigned bit(enum spf_result result) {
    return 1u << result;
}

static unsigned record_check(struct spf *spf, const char *domain);

/* --- words --- */

/* The first that is said stays; an error goes before what was passed over. */
static void why(struct spf *spf, bool error, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void why(struct spf *spf, bool error, const char *format, ...) {
    va_list arguments;
    if (!*spf->why || (error && !spf->error_told)) {
        va_start(arguments, format);
        vsnprintf(spf->why, sizeof spf->why, format, arguments);
        va_end(arguments);
        spf->error_told = error;
    }
}

/* Who has the record of this domain: the sentence is about the one that was asked for. */
static const char *holder(const struct spf *spf, const char *domain) {
    return strcasecmp(domain, spf->domain) == 0 ? "it" : domain;
}

/* --- lookups --- */

/* 4.6.4: ten terms of all records may ask DNS. */
static bool lookup_allowed(struct spf *spf) {
    if (spf->lookups == SPF_LOOKUPS_MAX) {
        why(spf, true, "it takes more than ten lookups (RFC 7208 4.6.4)");
        return false;
    }
    spf->lookups++;
    spf->is_void = false;
    return true;
}

/* Asks. MATCH_NO, or the error: two terms may ask for what does not exist (4.6.4), each however often. */
static unsigned ask(struct spf *spf, const char *name, int type, struct resolver_answer *answer) {
    resolver_ask(spf->resolver, name, type, answer);
    if (answer->status == DNS_FAILED) {
        why(spf, true, "%s could not be looked up", name);
        return MATCH_TEMPERROR;
    }
    if (answer->status != DNS_FOUND && !spf->is_void) {
        spf->is_void = true;
        if (++spf->voids > SPF_VOIDS_MAX) {
            why(spf, true, "more than two of its names do not exist, such as %s (RFC 7208 4.6.4)", name);
            return MATCH_PERMERROR;
        }
    }
    return MATCH_NO;
}

/* Does the name have our address, within the prefix lengths? */
static unsigned host_match(struct spf *spf, const struct spf_term *term, const char *name) {
    struct resolver_answer answer;
    bool v4 = spf->address.family == 4;
    struct config_address network = {.family = spf->address.family, .prefix_length = (uint8_t)(v4 ? term->prefix4 : term->prefix6)};
    unsigned match = ask(spf, name, v4 ? DNS_TYPE_A : DNS_TYPE_AAAA, &answer);
    for (uint32_t i = 0; i < answer.count && match == MATCH_NO; i++) {
        if (answer.lengths[i] == (v4 ? 4 : 16)) {
            memcpy(network.bytes, answer.data[i], answer.lengths[i]);
            match = address_on_link(&network, &spf->address) ? MATCH_YES : MATCH_NO;
        }
    }
    resolver_forget(&answer);
    return match;
}

static unsigned mx_match(struct spf *spf, const struct spf_term *term, const char *name) {
    struct resolver_answer answer;
    struct mx_set *set = calloc(1, sizeof *set);
    if (!set) {
        abort();
    }
    unsigned match = ask(spf, name, DNS_TYPE_MX, &answer);
    if (answer.count > SPF_MX_MAX) {
        why(spf, true, "%s has more than ten MX hosts (RFC 7208 4.6.4)", name);
        match = MATCH_PERMERROR;
    }
    for (uint32_t i = 0; i < answer.count && match == MATCH_NO; i++) {
        mx_add_rdata(set, answer.data[i], answer.lengths[i]);
    }
    for (uint32_t i = 0; i < set->count && match == MATCH_NO; i++) {
        match = host_match(spf, term, set->hosts[i].name);
    }
    resolver_forget(&answer);
    free(set);
    return match;
}

static unsigned include_match(struct spf *spf, const char *name, const char *domain) {
    unsigned results = record_check(spf, name), match = 0; /* 5.2 */
    if (results & bit(SPF_NONE)) {
        why(spf, true, "%s, which %s includes, has no SPF record", name, holder(spf, domain));
    }
    match |= results & bit(SPF_PASS) ? MATCH_YES : 0;
    match |= results & (bit(SPF_FAIL) | bit(SPF_SOFTFAIL) | bit(SPF_NEUTRAL)) ? MATCH_NO : 0;
    match |= results & bit(SPF_TEMPERROR) ? MATCH_TEMPERROR : 0;
    match |= results & (bit(SPF_PERMERROR) | bit(SPF_NONE)) ? MATCH_PERMERROR : 0;
    return match;
}

/* --- terms --- */

static void passed_over(struct spf *spf, const struct spf_term *term, const char *domain) {
    why(spf, false, "%s has `%s`, which is not followed here", holder(spf, domain), term->text);
}

/* Section 5. */
static unsigned mechanism_match(struct spf *spf, const struct spf_term *term, const char *domain) {
    const char *name = *term->domain ? term->domain : domain;
    if (term->kind == SPF_TERM_ALL) {
        return MATCH_YES;
    }
    if (term->kind == SPF_TERM_IP) {
        return address_on_link(&term->network, &spf->address) ? MATCH_YES : MATCH_NO;
    }
    if (!lookup_allowed(spf)) {
        return MATCH_PERMERROR;
    }
    if (term->has_macros || term->kind == SPF_TERM_EXISTS || term->kind == SPF_TERM_PTR) {
        passed_over(spf, term, domain);
        return MATCH_NO | MATCH_YES;
    }
    switch (term->kind) {
    case SPF_TERM_INCLUDE:
        return include_match(spf, name, domain);
    case SPF_TERM_MX:
        return mx_match(spf, term, name);
    default:
        return host_match(spf, term, name);
    }
}

/* 4.6: an error anywhere is one before anything is asked. Finds the redirection (6.1). */
static bool terms_check(struct spf *spf, const char *text, const char *domain, struct spf_term *redirect) {
    struct spf_term term;
    unsigned redirects = 0, explanations = 0;
    enum spf_term_status status;
    *redirect = (struct spf_term){0};
    while ((status = spf_term_next(&text, &term)) == SPF_TERM_READ) {
        explanations += term.kind == SPF_TERM_EXPLANATION;
        if (term.kind == SPF_TERM_REDIRECT) {
            redirects++;
            *redirect = term;
        }
    }
    if (status == SPF_TERM_UNKNOWN) {
        why(spf, true, "%s has `%s`, which no receiver knows", holder(spf, domain), term.text);
    } else if (status == SPF_TERM_MALFORMED) {
        why(spf, true, "`%s` in %s is malformed", term.text, holder(spf, domain));
    } else if (redirects > 1 || explanations > 1) {
        why(spf, true, "%s has `%s` twice (RFC 7208 6)", holder(spf, domain), redirects > 1 ? "redirect=" : "exp=");
    } else {
        return true;
    }
    return false;
}

static unsigned redirect_check(struct spf *spf, const struct spf_term *redirect, const char *domain) {
    if (!lookup_allowed(spf)) {
        return bit(SPF_PERMERROR);
    }
    if (redirect->has_macros) {
        passed_over(spf, redirect, domain);
        return bit(SPF_PASS) | bit(SPF_NEUTRAL);
    }
    unsigned results = record_check(spf, redirect->domain);
    if (results & bit(SPF_NONE)) { /* 6.1 */
        why(spf, true, "%s, to which %s redirects, has no SPF record", redirect->domain, holder(spf, domain));
        return bit(SPF_PERMERROR);
    }
    return results;
}

static unsigned text_check(struct spf *spf, const char *text, const char *domain) {
    static const enum spf_result qualifiers[] = {['+'] = SPF_PASS, ['-'] = SPF_FAIL, ['~'] = SPF_SOFTFAIL, ['?'] = SPF_NEUTRAL};
    struct spf_term term, redirect;
    unsigned results = 0;
    if (!terms_check(spf, text, domain, &redirect)) {
        return bit(SPF_PERMERROR);
    }
    while (spf_term_next(&text, &term) == SPF_TERM_READ) {
        if (spf_term_modifies(&term)) {
            continue;
        }
        unsigned match = mechanism_match(spf, &term, domain);
        results |= match & MATCH_YES ? bit(qualifiers[(unsigned char)term.qualifier]) : 0;
        results |= match & MATCH_TEMPERROR ? bit(SPF_TEMPERROR) : 0;
        results |= match & MATCH_PERMERROR ? bit(SPF_PERMERROR) : 0;
        if (!(match & MATCH_NO)) {
            return results;
        }
    }
    return results | (*redirect.text ? redirect_check(spf, &redirect, domain) : bit(SPF_NEUTRAL)); /* 4.7 */
}

/* 4.5: the one record that is SPF's. */
static unsigned record_check(struct spf *spf, const char *domain) {
    struct resolver_answer answer;
    char text[TXT_BYTES_MAX], found[TXT_BYTES_MAX];
    const size_t version = strlen("v=spf1");
    uint32_t count = 0;
    resolver_ask(spf->resolver, domain, DNS_TYPE_TXT, &answer);
    for (uint32_t i = 0; i < answer.count; i++) {
        if (txt_join(answer.data[i], answer.lengths[i], text) >= (int)version && strncasecmp(text, "v=spf1", version) == 0 &&
            (text[version] == ' ' || text[version] == '\0')) {
            count++;
            memcpy(found, text, sizeof found);
        }
    }
    enum dns_status status = answer.status;
    resolver_forget(&answer);
    if (status == DNS_FAILED) {
        why(spf, true, "%s could not be looked up", domain);
        return bit(SPF_TEMPERROR);
    }
    if (count > 1) {
        why(spf, true, "%s has several SPF records (RFC 7208 4.5)", domain);
        return bit(SPF_PERMERROR);
    }
    return count == 0 ? bit(SPF_NONE) : text_check(spf, found + version, domain);
}

static enum spf_result result_of(unsigned results) {
    static const enum spf_result order[] = {SPF_PERMERROR, SPF_TEMPERROR, SPF_NONE, SPF_FAIL, SPF_SOFTFAIL, SPF_NEUTRAL};
    unsigned errors = bit(SPF_PERMERROR) | bit(SPF_TEMPERROR);
    if ((results & bit(SPF_PASS)) && !(results & errors)) {
        return results == bit(SPF_PASS) ? SPF_PASS : SPF_UNSURE;
    }
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        if (results & bit(order[i])) {
            return order[i];
        }
    }
    return SPF_NEUTRAL;
}

enum spf_result spf_check(struct spf *spf, const char *domain) {
    spf->domain = domain;
    enum spf_result result = result_of(record_check(spf, domain));
    if (result != SPF_TEMPERROR && result != SPF_PERMERROR && result != SPF_UNSURE) {
        *spf->why = '\0'; /* what was passed over decides nothing */
    }
    return result;
}
