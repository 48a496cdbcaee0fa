/* gather.c: asks for addresses, then, for a host whose addresses are secure, for TLSA records: RFC 7672 2.1 and 2.2. */
#include "gather.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SMTP_PORT = 25 };

static void gather_ask(struct gather *gather, uint32_t host, int type, const char *name);

uint16_t site_port(const struct site_state *site, const struct mx_host *host) {
    return host->port ? host->port : site->site.limits->port ? site->site.limits->port : SMTP_PORT;
}

void gather_free(struct gather *gather) {
    for (uint32_t i = 0; i < gather->question_count; i++)
        if (gather->questions[i].question)
            dns_forget(gather->questions[i].question);
    free(gather->questions);
    free(gather);
}

static void gather_done(struct gather *gather) {
    if (--gather->pending == 0)
        site_resolved(gather->site);
}

static void dane_fail(struct gather_host *host, const char *why, bool dnssec) {
    host->dane = HOST_DANE_FAILED;
    host->dnssec = dnssec;
    snprintf(host->why, sizeof host->why, "%s", why);
}

/* At the name behind secure aliases first, then at the host's own (RFC 7672 2.2.3). */
static void ask_tlsa(struct gather *gather, uint32_t at) {
    struct gather_host *host = &gather->hosts[at];
    const struct mx_host *mx = &gather->site->hosts[at];
    char name[DANE_NAME_BYTES];
    host->original = host->original || host->canonical[0] == '\0';
    snprintf(host->base, sizeof host->base, "%s", host->original ? mx->name : host->canonical);
    if (tlsa_name(host->base, site_port(gather->site, mx), name) == 0)
        gather_ask(gather, at, DNS_TYPE_TLSA, name);
    else
        host->dane = HOST_DANE_ABSENT; /* no such name can exist */
}

/* All addresses of a host have been answered. */
static void addresses_known(struct gather *gather, uint32_t at) {
    struct gather_host *host = &gather->hosts[at];
    if (!gather->site->dane || host->v4_count + host->v6_count == 0)
        return;
    if (!host->insecure) {
        ask_tlsa(gather, at);
    } else if (host->canonical[0] != '\0') {
        /* An alias in a signed zone to a host in an unsigned one: the alias's own name may have records (RFC 7672 2.2.3). */
        gather_ask(gather, at, DNS_TYPE_CNAME, gather->site->hosts[at].name);
    }
}

static void take_addresses(const struct gather_question *question, const struct dns_answer *answer) {
    struct gather *gather = question->gather;
    struct gather_host *host = &gather->hosts[question->host];
    if (answer->status == DNS_FAILED) {
        gather->failed = host->failed = true;
        snprintf(gather->why, sizeof gather->why, "%s", answer->why);
    } else if (answer->ttl_s < gather->ttl_s) {
        gather->ttl_s = answer->ttl_s;
    }
    for (uint32_t i = 0; i < answer->count; i++) {
        if (question->type == DNS_TYPE_A && answer->lengths[i] == 4 && host->v4_count < HOST_ADDRESSES_MAX)
            memcpy(host->v4[host->v4_count++], answer->data[i], 4);
        if (question->type == DNS_TYPE_AAAA && answer->lengths[i] == 16 && host->v6_count < HOST_ADDRESSES_MAX)
            memcpy(host->v6[host->v6_count++], answer->data[i], 16);
    }
    if (answer->count > 0) {
        host->insecure = host->insecure || !answer->secure;
        char canonical[DOMAIN_BYTES];
        if (answer->canonical && domain_ascii(answer->canonical, canonical) == 0 &&
            strcmp(canonical, gather->site->hosts[question->host].name) != 0)
            memcpy(host->canonical, canonical, sizeof canonical);
    }
    if (--host->asking == 0)
        addresses_known(gather, question->host);
}

static void take_alias(const struct gather_question *question, const struct dns_answer *answer) {
    struct gather_host *host = &question->gather->hosts[question->host];
    if (answer->status == DNS_FAILED) {
        dane_fail(host, answer->why, answer->bogus);
    } else if (answer->status == DNS_FOUND && answer->secure) {
        host->original = true;
        ask_tlsa(question->gather, question->host);
    }
}

static void take_tlsa(const struct gather_question *question, const struct dns_answer *answer) {
    struct gather *gather = question->gather;
    struct gather_host *host = &gather->hosts[question->host];
    if (answer->status == DNS_FAILED) {
        dane_fail(host, answer->why, answer->bogus);
        return;
    }
    if (answer->ttl_s < gather->ttl_s)
        gather->ttl_s = answer->ttl_s;
    if (answer->status == DNS_FOUND && answer->secure) {
        host->tlsa_count = tlsa_choose(answer->data, answer->lengths, answer->count, host->tlsa);
        host->dane = host->tlsa_count > 0 ? HOST_DANE_RECORDS : HOST_DANE_UNUSABLE;
    } else if (!host->original) {
        host->original = true;
        ask_tlsa(gather, question->host);
    } else {
        host->dane = answer->secure ? HOST_DANE_ABSENT : HOST_DANE_OFF;
    }
}

static void on_gathered(void *context, const struct dns_answer *answer) {
    struct gather_question *question = context;
    struct gather *gather = question->gather;
    question->question = NULL;
    if (question->type == DNS_TYPE_TLSA)
        take_tlsa(question, answer);
    else if (question->type == DNS_TYPE_CNAME)
        take_alias(question, answer);
    else
        take_addresses(question, answer);
    gather_done(gather);
}

static void gather_ask(struct gather *gather, uint32_t at, int type, const char *name) {
    struct gather_question *question = &gather->questions[gather->question_count++];
    struct gather_host *host = &gather->hosts[at];
    question->gather = gather;
    question->host = at;
    question->type = type;
    gather->pending++;
    question->question = dns_ask(gather->site->route->dns, name, type, on_gathered, question);
    if (question->question)
        return;
    gather->pending--;
    if (type == DNS_TYPE_A || type == DNS_TYPE_AAAA) {
        gather->failed = host->failed = true;
        host->insecure = true;
        host->asking--;
    } else {
        dane_fail(host, "out of memory", false);
    }
}

void gather_start(struct site_state *site) {
    if (site->gather)
        return;
    struct gather *gather = calloc(1, sizeof *gather + site->host_count * sizeof gather->hosts[0]);
    if (gather)
        gather->questions = calloc(site->host_count, GATHER_QUESTIONS_MAX * sizeof *gather->questions);
    if (!gather || !gather->questions) {
        free(gather);
        return; /* the caller's wait ends with the next question for this site */
    }
    site->gather = gather;
    gather->site = site;
    gather->ttl_s = UINT32_MAX;
    gather->pending = 1; /* this function's own, so that no answer finishes it early */
    for (uint32_t i = 0; i < site->host_count; i++) {
        struct gather_host *host = &gather->hosts[i];
        const struct config_address *literal = &site->hosts[i].literal;
        if (literal->family == 4) {
            memcpy(host->v4[host->v4_count++], literal->bytes, 4);
        } else if (literal->family == 6 && site->route->use_ipv6) {
            memcpy(host->v6[host->v6_count++], literal->bytes, 16);
        } else if (literal->family == 0) {
            host->asking = site->route->use_ipv6 ? 2 : 1;
            gather_ask(gather, i, DNS_TYPE_A, site->hosts[i].name);
            if (site->route->use_ipv6)
                gather_ask(gather, i, DNS_TYPE_AAAA, site->hosts[i].name);
        }
    }
    gather_done(gather);
}
