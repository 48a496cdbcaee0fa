/* spf_term.c: the grammar of RFC 7208 section 12, term by term. */
#include "spf_term.h"
#include "control/config/address.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool in(const char *set, char c) {
    return c != '\0' && strchr(set, c) != NULL;
}

/* --- domain-spec (7.1) --- */

/* The end of a macro-expand at '%', or NULL. c, r and t are for explanations only (7.2). */
static const char *macro_end(const char *at) {
    if (in("%_-", at[1])) {
        return at + 2;
    }
    if (at[1] != '{' || !in("slodiphvSLODIPHV", at[2])) {
        return NULL;
    }
    const char *digits = at + 3, *end = digits + strspn(digits, "0123456789");
    bool is_zero = end > digits && strspn(digits, "0") == (size_t)(end - digits);
    end += *end == 'r' || *end == 'R';
    end += strspn(end, ".-+,/_=");
    return *end == '}' && !is_zero ? end + 1 : NULL;
}

/* Visible characters and whole macros. *last: behind the last macro, NULL without one. */
static bool macro_string_good(const char *text, const char **last) {
    *last = NULL;
    while (*text) {
        if (*text < 0x21 || *text > 0x7e) {
            return false;
        }
        text = *text == '%' ? *last = macro_end(text) : text + 1;
        if (!text) {
            return false;
        }
    }
    return true;
}

/* Letters, digits and inner hyphens, not digits alone. */
static bool toplabel_good(const char *label, size_t length) {
    size_t digits = 0;
    for (size_t i = 0; i < length; i++) {
        digits += is_digit(label[i]);
        if (!is_digit(label[i]) && !is_letter(label[i]) && label[i] != '-') {
            return false;
        }
    }
    return length > 0 && digits < length && label[0] != '-' && label[length - 1] != '-';
}

/* A domain-spec as the term's domain. */
static bool domain_take(struct spf_term *term, const char *text) {
    const char *macro, *end = text + strlen(text);
    if (!macro_string_good(text, &macro)) {
        return false;
    }
    snprintf(term->domain, sizeof term->domain, "%s", text);
    term->has_macros = macro != NULL;
    if (macro == end && macro) {
        return true;
    }
    end -= end > text && end[-1] == '.';
    const char *label = end;
    while (label > text && label[-1] != '.') {
        label--;
    }
    return label > text && toplabel_good(label, (size_t)(end - label)) && (macro || domain_is_askable(text));
}

/* --- prefix lengths (5.6) --- */

/* Digits up to the end, without leading zeros. */
static bool prefix_read(const char *digits, unsigned most, uint8_t *prefix) {
    size_t length = strspn(digits, "0123456789");
    unsigned number = 0;
    if (length == 0 || length > 3 || digits[length] != '\0' || (*digits == '0' && length > 1)) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        number = number * 10 + (unsigned)(digits[i] - '0');
    }
    *prefix = (uint8_t)number;
    return number <= most;
}

/* Takes `slashes` and the digits behind them off the end of the text; without them nothing. False: not a prefix length. */
static bool prefix_take(char *text, const char *slashes, unsigned most, uint8_t *prefix) {
    size_t digits = strlen(text), width = strlen(slashes);
    while (digits > 0 && is_digit(text[digits - 1])) {
        digits--;
    }
    if (digits < width || memcmp(text + digits - width, slashes, width) != 0) {
        return true;
    }
    if (!prefix_read(text + digits, most, prefix)) {
        return false;
    }
    text[digits - width] = '\0';
    return true;
}

/* --- mechanisms and modifiers --- */

/* ":domain" where there may be one, or must. */
static bool domain_read(struct spf_term *term, const char *rest, bool must) {
    return *rest == '\0' ? !must : *rest == ':' && domain_take(term, rest + 1);
}

/* 5.3, 5.4: [":" domain-spec] [dual-cidr-length]. A domain may have slashes of its own, so that the lengths are found from the end. */
static bool host_read(struct spf_term *term, const char *rest) {
    char text[SPF_TERM_BYTES];
    snprintf(text, sizeof text, "%s", rest);
    return prefix_take(text, "//", 128, &term->prefix6) && prefix_take(text, "/", 32, &term->prefix4) && domain_read(term, text, false);
}

/* 5.6 */
static bool network_read(struct spf_term *term, const char *rest, uint8_t family) {
    char text[SPF_TERM_BYTES];
    uint8_t prefix = family == 4 ? 32 : 128;
    snprintf(text, sizeof text, "%s", rest);
    if (!prefix_take(text, "/", prefix, &prefix) || *text != ':' || !address_parse(text + 1, &term->network)) {
        return false;
    }
    term->network.prefix_length = prefix;
    return term->network.family == family;
}

static enum spf_term_status mechanism_read(struct spf_term *term, const char *text, size_t name_length) {
    static const struct {
        const char *name;
        enum spf_term_kind kind;
    } names[] = {{"all", SPF_TERM_ALL}, {"include", SPF_TERM_INCLUDE}, {"a", SPF_TERM_A},    {"mx", SPF_TERM_MX},
                 {"ptr", SPF_TERM_PTR}, {"exists", SPF_TERM_EXISTS},   {"ip4", SPF_TERM_IP}, {"ip6", SPF_TERM_IP}};
    const char *rest = text + name_length;
    size_t i = 0;
    while (i < sizeof names / sizeof names[0] &&
           (strlen(names[i].name) != name_length || strncasecmp(names[i].name, text, name_length) != 0)) {
        i++;
    }
    if (i == sizeof names / sizeof names[0]) {
        return SPF_TERM_UNKNOWN;
    }
    bool good = false;
    term->kind = names[i].kind;
    switch (term->kind) {
    case SPF_TERM_ALL:
        good = *rest == '\0';
        break;
    case SPF_TERM_INCLUDE:
    case SPF_TERM_EXISTS:
        good = domain_read(term, rest, true);
        break;
    case SPF_TERM_PTR:
        good = domain_read(term, rest, false);
        break;
    case SPF_TERM_IP:
        good = network_read(term, rest, (uint8_t)(names[i].name[2] - '0'));
        break;
    default:
        good = host_read(term, rest);
        break;
    }
    return good ? SPF_TERM_READ : SPF_TERM_MALFORMED;
}

/* Section 6: name "=" macro-string, the two known ones with a domain-spec. */
static enum spf_term_status modifier_read(struct spf_term *term, const char *text, size_t name_length) {
    const char *value = text + name_length + 1, *macro;
    bool is_redirect = name_length == 8 && strncasecmp(text, "redirect", 8) == 0;
    bool is_explanation = name_length == 3 && strncasecmp(text, "exp", 3) == 0;
    term->kind = is_redirect ? SPF_TERM_REDIRECT : is_explanation ? SPF_TERM_EXPLANATION : SPF_TERM_MODIFIER;
    bool good = term->kind == SPF_TERM_MODIFIER ? macro_string_good(value, &macro) : domain_take(term, value);
    return good && is_letter(*text) ? SPF_TERM_READ : SPF_TERM_MALFORMED;
}

enum spf_term_status spf_term_next(const char **at, struct spf_term *term) {
    const char *begin = *at + strspn(*at, " ");
    size_t length = strcspn(begin, " ");
    *term = (struct spf_term){.qualifier = '+', .prefix4 = 32, .prefix6 = 128};
    *at = begin + length;
    if (length == 0) {
        return SPF_TERM_END;
    }
    snprintf(term->text, sizeof term->text, "%.*s", (int)length, begin);
    if (length >= sizeof term->text) {
        return SPF_TERM_MALFORMED;
    }
    const char *text = term->text;
    bool is_qualified = in("+-~?", *text);
    if (is_qualified) {
        term->qualifier = *text++;
    }
    size_t name_length = strcspn(text, ":/=");
    if (text[name_length] == '=') {
        return is_qualified ? SPF_TERM_MALFORMED : modifier_read(term, text, name_length);
    }
    return mechanism_read(term, text, name_length);
}

bool spf_term_modifies(const struct spf_term *term) {
    return term->kind >= SPF_TERM_REDIRECT;
}
