/* check_sender.c: what Gmail, Yahoo and Microsoft demand of bulk senders, as far as DNS tells: an address whose PTR leads back to it and is
 * its EHLO name, SPF that covers it, DKIM keys that are published, a DMARC record with which they are aligned. */
#include "check_sender.h"
#include "cli.h"
#include "control/config/address.h"
#include "control/route/domain.h"
#include "dkim.h"
#include "spf.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { SENTENCE_BYTES = 1024, SPF_TERMS_BYTES = 256, DNS_TYPE_PTR = 12, NAMES_MAX = 8 };

struct sender {
    const struct config *config;
    struct resolver *resolver;
    unsigned *warnings;
};

static void tell(struct sender *sender, bool warning, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void tell(struct sender *sender, bool warning, const char *format, ...) {
    char sentence[SENTENCE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    cli_print(stderr, "%s: %s: %s\n", sender->config->path, warning ? "warning" : "note", sentence);
    *sender->warnings += warning;
}

/* What was not asked any more is told once, in check_sender. */
static void tell_unknown(struct sender *sender, const char *name, const struct resolver_answer *answer) {
    if (!resolver_gave_up(sender->resolver)) {
        tell(sender, true, "%s could not be looked up: %s; try again, or correct `dns.servers`.", name, answer->why);
    }
}

/* --- addresses --- */

static const struct config_address *seen_address(const struct config_source *source) {
    return source->public_address.family ? &source->public_address : &source->address;
}

/* Does the name have this address? DNS_FAILED is told. */
static enum dns_status name_has(struct sender *sender, const char *name, const struct config_address *address, bool *has) {
    struct resolver_answer answer;
    size_t length = address->family == 4 ? 4 : 16;
    *has = false;
    resolver_ask(sender->resolver, name, address->family == 4 ? DNS_TYPE_A : DNS_TYPE_AAAA, &answer);
    for (uint32_t i = 0; i < answer.count; i++) {
        *has |= answer.lengths[i] == length && memcmp(answer.data[i], address->bytes, length) == 0;
    }
    enum dns_status status = answer.status;
    if (status == DNS_FAILED) {
        tell_unknown(sender, name, &answer);
    }
    resolver_forget(&answer);
    return status;
}

/* The names of an address that lead back to it (forward-confirmed, RFC 8601 2.7.3): is one of them the EHLO name? */
static void reverse_check(struct sender *sender, const struct config_source *source, const char *pool) {
    char text[ADDRESS_TEXT_BYTES], reverse[RESOLVER_NAME_BYTES], name[RESOLVER_NAME_BYTES], first[RESOLVER_NAME_BYTES] = "";
    const struct config_address *address = seen_address(source);
    struct resolver_answer answer;
    bool confirmed = false, is_ehlo = false;
    address_text(address, text);
    resolver_reverse(address, reverse);
    resolver_ask(sender->resolver, reverse, DNS_TYPE_PTR, &answer);
    for (uint32_t i = 0; i < answer.count && i < NAMES_MAX; i++) {
        bool back = false;
        if (resolver_name(answer.data[i], answer.lengths[i], name) && *name) {
            snprintf(first, sizeof first, "%s", name);
            name_has(sender, name, address, &back);
            confirmed |= back;
            is_ehlo |= back && strcasecmp(name, source->ehlo) == 0;
        }
    }
    if (answer.status == DNS_FAILED) {
        tell_unknown(sender, reverse, &answer);
    } else if (!*first) {
        tell(sender, true, "%s (pool %s) has no PTR record, and Gmail, Yahoo and Microsoft refuse such mail; have its owner set it to %s.",
             text, pool, source->ehlo);
    } else if (!confirmed) {
        tell(sender, true,
             "the PTR record of %s (pool %s) is %s, which does not have that address; give it an %s record, or have the PTR set to %s.",
             text, pool, first, address->family == 4 ? "A" : "AAAA", source->ehlo);
    } else if (!is_ehlo) {
        tell(sender, true, "the PTR record of %s (pool %s) is %s, and its `ehlo` is %s; make them the same name.", text, pool, first,
             source->ehlo);
    }
    resolver_forget(&answer);
}

static void ehlo_check(struct sender *sender, const struct config_source *source, const char *pool) {
    char text[ADDRESS_TEXT_BYTES];
    const struct config_address *address = seen_address(source);
    bool has;
    address_text(address, text);
    if (host_is_literal(source->ehlo)) {
        tell(sender, true, "pool %s says EHLO %s; large receivers want a name: give it an `ehlo` that resolves to %s.", pool, source->ehlo,
             text);
        return;
    }
    enum dns_status status = name_has(sender, source->ehlo, address, &has);
    if (status != DNS_FAILED && !has) {
        tell(sender, true, "the EHLO name %s (pool %s) %s %s; publish an %s record with it.", source->ehlo, pool,
             status == DNS_FOUND ? "resolves, and not to" : "does not resolve to", text, address->family == 4 ? "A" : "AAAA");
    }
}

static void sources_check(struct sender *sender) {
    for (uint32_t i = 0; i < sender->config->pool_count; i++) {
        const struct config_pool *pool = &sender->config->pools[i];
        for (uint32_t k = 0; k < pool->source_count; k++) {
            const struct config_source *source = &pool->sources[k];
            char text[ADDRESS_TEXT_BYTES];
            if (resolver_gave_up(sender->resolver)) {
                return;
            }
            if (address_private(seen_address(source))) {
                tell(sender, true, "%s (pool %s) is a private address, and receivers see another: write that one as its `public_address`.",
                     address_text(seen_address(source), text), pool->name);
                continue;
            }
            reverse_check(sender, source, pool->name);
            ehlo_check(sender, source, pool->name);
        }
    }
}

/* --- SPF --- */

/* " ip4:192.0.2.10 ip6:2001:db8::1": every address that receivers see, as far as there is room. */
static void spf_terms(const struct config *config, char *out, size_t room) {
    size_t used = 0;
    *out = 0;
    for (uint32_t i = 0; i < config->pool_count; i++) {
        for (uint32_t k = 0; k < config->pools[i].source_count; k++) {
            char text[ADDRESS_TEXT_BYTES], term[ADDRESS_TEXT_BYTES + 8];
            const struct config_address *address = seen_address(&config->pools[i].sources[k]);
            int length = snprintf(term, sizeof term, " ip%u:%s", address->family, address_text(address, text));
            const char *known = strstr(out, term);
            if (address_private(address) || (known && (known[length] == ' ' || known[length] == 0)) || used + (size_t)length >= room) {
                continue;
            }
            memcpy(out + used, term, (size_t)length + 1);
            used += (size_t)length;
        }
    }
}

static void spf_tell(struct sender *sender, const char *domain, const char *text, uint8_t family, enum spf_result result,
                     const struct spf *spf) {
    char terms[SPF_TERMS_BYTES];
    if (result == SPF_TEMPERROR && resolver_gave_up(sender->resolver)) {
        return;
    }
    switch (result) {
    case SPF_PASS:
        break;
    case SPF_NONE:
        spf_terms(sender->config, terms, sizeof terms);
        tell(sender, true, "%s has no SPF record; publish: %s IN TXT \"v=spf1%s ~all\".", domain, domain, terms);
        break;
    case SPF_NEUTRAL:
    case SPF_FAIL:
    case SPF_SOFTFAIL:
        tell(sender, true, "SPF of %s says %s for %s; add ip%u:%s to its record.", domain, spf_result_text(result), text, family, text);
        break;
    case SPF_PERMERROR:
        tell(sender, true, "the SPF record of %s is in error, and receivers take it as none: %s; correct it.", domain, spf->why);
        break;
    case SPF_TEMPERROR:
        tell(sender, true, "SPF of %s cannot be told for %s: %s; try again.", domain, text, spf->why);
        break;
    case SPF_UNSURE:
        tell(sender, false, "SPF of %s cannot be told for %s: %s.", domain, text, spf->why);
        break;
    }
}

/* Every address that receivers see, once; a domain without record is told once. */
static void spf_sources_check(struct sender *sender, const char *domain) {
    const struct config *config = sender->config;
    for (uint32_t i = 0; i < config->pool_count; i++) {
        for (uint32_t k = 0; k < config->pools[i].source_count; k++) {
            char text[ADDRESS_TEXT_BYTES];
            const struct config_address *address = seen_address(&config->pools[i].sources[k]);
            if (address_private(address)) {
                continue; /* told above */
            }
            struct spf spf = {.resolver = sender->resolver, .address = *address};
            enum spf_result result = spf_check(&spf, domain);
            spf_tell(sender, domain, address_text(address, text), address->family, result, &spf);
            if (result == SPF_NONE || result == SPF_PERMERROR || result == SPF_TEMPERROR) {
                return;
            }
        }
    }
}

/* --- DMARC --- */

struct dmarc {
    uint32_t records;
    bool has_policy, strict_dkim, strict_spf;
};

static void dmarc_read(const char *text, size_t bytes, struct dmarc *dmarc) {
    size_t at;
    struct txt_field field;
    if (txt_version(text, bytes, "v=DMARC1", &at) != 0) {
        return;
    }
    dmarc->records++;
    while (txt_next(text, bytes, &at, &field) > 0) {
        char name[TXT_NAME_MAX + 1];
        snprintf(name, sizeof name, "%.*s", (int)field.name_length, field.name);
        bool is_strict = field.value_length == 1 && (*field.value == 's' || *field.value == 'S');
        dmarc->has_policy |= strcasecmp(name, "p") == 0;
        dmarc->strict_dkim |= strcasecmp(name, "adkim") == 0 && is_strict;
        dmarc->strict_spf |= strcasecmp(name, "aspf") == 0 && is_strict;
    }
}

/* RFC 7489 6.6.3: the domain's own record, else that of a domain above it. Which one is the organisation's is not known here: any will do.
 * False when DNS did not answer, which is told. */
static bool dmarc_find(struct sender *sender, const char *domain, struct dmarc *dmarc) {
    *dmarc = (struct dmarc){0};
    for (const char *at = domain; at && strchr(at, '.') && dmarc->records == 0; at = strchr(at, '.') + 1) {
        char name[RESOLVER_NAME_BYTES + 8], text[TXT_BYTES_MAX];
        struct resolver_answer answer;
        snprintf(name, sizeof name, "_dmarc.%s", at);
        resolver_ask(sender->resolver, name, DNS_TYPE_TXT, &answer);
        for (uint32_t i = 0; i < answer.count; i++) {
            int length = txt_join(answer.data[i], answer.lengths[i], text);
            if (length > 0) {
                dmarc_read(text, (size_t)length, dmarc);
            }
        }
        bool failed = answer.status == DNS_FAILED;
        if (failed) {
            tell_unknown(sender, name, &answer);
        }
        resolver_forget(&answer);
        if (failed) {
            return false;
        }
    }
    return true;
}

static bool below(const char *name, const char *domain) {
    size_t length = strlen(name), tail = strlen(domain);
    return length > tail && name[length - tail - 1] == '.' && strcasecmp(name + length - tail, domain) == 0;
}

/* verp: the domain of its envelope senders, or NULL. */
static void dmarc_check(struct sender *sender, const char *domain, const char *verp) {
    struct dmarc dmarc;
    if (!dmarc_find(sender, domain, &dmarc)) {
        return;
    }
    if (dmarc.records == 0) {
        tell(sender, true,
             "%s has no DMARC record, which Gmail, Yahoo and Microsoft demand; publish: _dmarc.%s IN TXT \"v=DMARC1; p=none\".", domain,
             domain);
    } else if (dmarc.records > 1 || !dmarc.has_policy) {
        tell(sender, true, "%s; leave one `v=DMARC1; p=...` at _dmarc.%s.",
             dmarc.records > 1 ? "there are several DMARC records, and receivers take none of them" : "the DMARC record has no `p=`",
             domain);
    }
    if (dmarc.strict_dkim) {
        tell(sender, false,
             "DMARC of %s says adkim=s: mail from addresses below %s that its key signs is not aligned; give those domains keys of their "
             "own.",
             domain, domain);
    }
    if (verp && strcasecmp(verp, domain) != 0 && (dmarc.strict_spf || (!below(verp, domain) && !below(domain, verp)))) {
        tell(sender, false,
             "envelope senders at %s (`verp`) are not aligned with From addresses at %s: DMARC rests on DKIM alone for them.", verp,
             domain);
    }
}

/* --- domains --- */

/* Addresses to which nobody could reply are refused by many (RFC 5321 3.6.4, RFC 7505 4.2). */
static void reply_check(struct sender *sender, const char *domain) {
    static const int types[] = {DNS_TYPE_MX, DNS_TYPE_A, DNS_TYPE_AAAA};
    struct resolver_answer answer;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        resolver_ask(sender->resolver, domain, types[i], &answer);
        bool found = answer.status == DNS_FOUND, failed = answer.status == DNS_FAILED;
        bool null_mx = found && types[i] == DNS_TYPE_MX && answer.lengths[0] == 3 && answer.data[0][2] == 0;
        if (failed) {
            tell_unknown(sender, domain, &answer);
        }
        if (null_mx) {
            tell(sender, true,
                 "%s says by a null MX that it takes no mail (RFC 7505), and receivers refuse such senders; give it an MX host.", domain);
        }
        resolver_forget(&answer);
        if (found || failed) {
            return;
        }
    }
    tell(sender, true,
         "%s has neither MX nor address: replies and bounces have nowhere to go, and many receivers refuse such senders; "
         "publish an MX record.",
         domain);
}

static void key_check(struct sender *sender, const struct config_dkim_key *key) {
    char *why = dkim_check_key(sender->resolver, key);
    if (why && !resolver_gave_up(sender->resolver)) {
        tell(sender, true, "the DKIM key %s of %s: %s `bypost dkim check --domain %s --selector %s` shows it.", key->selector, key->domain,
             why, key->domain, key->selector);
    }
    free(why);
}

static bool domain_first(const struct config *config, uint32_t index) {
    for (uint32_t i = 0; i < index; i++) {
        if (strcasecmp(config->dkim[i].domain, config->dkim[index].domain) == 0) {
            return false;
        }
    }
    return true;
}

/* Domains of VERP: that of all, then the tenants' own; NULL where there is none. */
static const char *verp_domain(const struct config *config, uint32_t index) {
    return index == 0 ? config->verp.domain : config->verp.tenants[index - 1].domain;
}

static bool verp_first(const struct config *config, uint32_t index) {
    const char *domain = verp_domain(config, index);
    for (uint32_t i = 0; domain && i < index; i++) {
        const char *other = verp_domain(config, i);
        if (other && strcasecmp(other, domain) == 0) {
            return false;
        }
    }
    return domain != NULL;
}

static void domains_check(struct sender *sender) {
    const struct config *config = sender->config;
    char domain[DOMAIN_BYTES];
    for (uint32_t i = 0; i < config->dkim_count && !resolver_gave_up(sender->resolver); i++) {
        key_check(sender, &config->dkim[i]);
        if (!domain_first(config, i) || domain_normalise(config->dkim[i].domain, domain) != 0) {
            continue;
        }
        const char *verp = config_verp(config, config->dkim[i].tenant).domain;
        reply_check(sender, domain);
        if (!verp || config->verp.jobs != CONFIG_VERP_ALL) { /* mail without VERP has envelope senders there */
            spf_sources_check(sender, domain);
        }
        dmarc_check(sender, domain, verp);
    }
    for (uint32_t i = 0; i <= config->verp.tenant_count && !resolver_gave_up(sender->resolver); i++) {
        if (verp_first(config, i) && domain_normalise(verp_domain(config, i), domain) == 0) {
            reply_check(sender, domain);
            spf_sources_check(sender, domain);
        }
    }
    for (uint32_t i = 0; i < config->dkim_platform_count && !resolver_gave_up(sender->resolver); i++) {
        key_check(sender, &config->dkim_platform[i]);
    }
    if (config->dkim_count == 0) {
        tell(sender, true, "%s: Gmail, Yahoo and Microsoft demand a DKIM signature of the From domain; make a key: `bypost dkim keygen`.",
             config->dkim_platform_count ? "only the platform's key signs, which is aligned with no other From domain"
                                         : "no DKIM key is configured");
    }
}

/* --- all --- */

static void domain_ask_ahead(struct sender *sender, const char *name) {
    char domain[DOMAIN_BYTES], dmarc[RESOLVER_NAME_BYTES + 8];
    if (domain_normalise(name, domain) == 0) {
        snprintf(dmarc, sizeof dmarc, "_dmarc.%s", domain);
        resolver_ask_ahead(sender->resolver, domain, DNS_TYPE_MX);
        resolver_ask_ahead(sender->resolver, domain, DNS_TYPE_TXT);
        resolver_ask_ahead(sender->resolver, dmarc, DNS_TYPE_TXT);
    }
}

/* What is known to be asked, in flight together: silent name servers take their time once, not once for each question. */
static void ask_ahead(struct sender *sender) {
    const struct config *config = sender->config;
    for (uint32_t i = 0; i < config->pool_count; i++) {
        for (uint32_t k = 0; k < config->pools[i].source_count; k++) {
            const struct config_source *source = &config->pools[i].sources[k];
            const struct config_address *address = seen_address(source);
            char reverse[RESOLVER_NAME_BYTES];
            if (!address_private(address)) {
                resolver_reverse(address, reverse);
                resolver_ask_ahead(sender->resolver, reverse, DNS_TYPE_PTR);
                resolver_ask_ahead(sender->resolver, source->ehlo, address->family == 4 ? DNS_TYPE_A : DNS_TYPE_AAAA);
            }
        }
    }
    for (uint32_t i = 0; i < config->dkim_count; i++) {
        dkim_ask_ahead(sender->resolver, &config->dkim[i]);
        domain_ask_ahead(sender, config->dkim[i].domain);
    }
    for (uint32_t i = 0; i <= config->verp.tenant_count; i++) {
        if (verp_first(config, i)) {
            domain_ask_ahead(sender, verp_domain(config, i));
        }
    }
    for (uint32_t i = 0; i < config->dkim_platform_count; i++) {
        dkim_ask_ahead(sender->resolver, &config->dkim_platform[i]);
    }
    resolver_settle(sender->resolver);
}

bool check_sender(const struct config *config, unsigned *warnings) {
    char error[512];
    struct sender sender = {.config = config, .resolver = resolver_create(config, error, sizeof error), .warnings = warnings};
    if (!sender.resolver) {
        fprintf(stderr, "%s: error: DNS cannot be asked: %s\n", config->path, error);
        return false;
    }
    ask_ahead(&sender);
    const char *mute = resolver_mute(sender.resolver);
    if (mute) {
        tell(&sender, true, "DNS says nothing of the senders: %s; correct `dns.servers`, or try again.", mute);
    } else {
        sources_check(&sender);
        domains_check(&sender);
    }
    if (!mute && resolver_gave_up(sender.resolver)) {
        tell(&sender, true,
             "name servers were silent for %.1f seconds in all, and the rest was not asked; try again, or correct `dns.servers`.",
             resolver_silence_max_ms(sender.resolver) / 1000.0);
    }
    resolver_free(sender.resolver);
    return true;
}
