/* lookup.c: from a domain to its set of hosts: relays, the sandbox, literals, MX, null MX, implicit MX (RFC 5321 5.1, RFC 7505). */
#include "state.h"

#include "txt.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* One host of a relay, or the domain itself. */
struct target {
    struct lookup *lookup;
    struct mx_host host; /* `name` and `port`; a literal has its address */
    bool needs_mx;
    struct dns_question *question;
    enum dns_status status;
    bool secure; /* what DNS says of its MX is */
    char why[96];
    struct mx_set set; /* what its MX records say */
};

struct lookup {
    struct route *route;
    struct domain_entry *entry;
    const struct config_relay *relay; /* of the configuration of `epoch` */
    uint64_t epoch;
    uint32_t pending, ttl_s;
    struct sts_query *sts;    /* asked for the domain's MTA-STS policy */
    struct sts_answer policy; /* what it said, with a copy of the policy or NULL */
    struct sts_policy *policy_copy;
    struct dns_question *reports; /* asked where its TLS reports go */
    char rua[TXT_RUA_BYTES];
    uint32_t target_count;
    struct target targets[];
};

static const struct config_relay *relay_of(const struct config *config, const char *domain) {
    const struct config_relay *any = NULL;
    for (uint32_t i = 0; i < config->relay_count; i++) {
        const struct config_relay *relay = &config->relays[i];
        if (strcasecmp(relay->domain, domain) == 0)
            return relay;
        if (strcmp(relay->domain, "*") == 0)
            any = relay;
    }
    return any;
}

static int parse_port(const char *text, uint16_t *port) {
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (end == text || *end != '\0' || value == 0 || value > 65535)
        return -EINVAL;
    *port = (uint16_t)value;
    return 0;
}

/* "[192.0.2.1]:2525", "[2001:db8::1]:25", "[mx.example.net]:25", "mx.example.net:587"; the port may be missing. */
static int parse_relay_host(const char *text, struct target *target) {
    char name[DOMAIN_BYTES];
    const char *rest;
    size_t length;
    target->needs_mx = text[0] != '[';
    if (target->needs_mx) {
        length = strcspn(text, ":");
        rest = text + length;
    } else {
        text++;
        length = strcspn(text, "]");
        if (text[length] != ']')
            return -EINVAL;
        rest = text + length + 1;
    }
    if (length == 0 || length >= sizeof name || (*rest != '\0' && *rest != ':'))
        return -EINVAL;
    memcpy(name, text, length);
    name[length] = '\0';
    if (*rest == ':' && parse_port(rest + 1, &target->host.port) != 0)
        return -EINVAL;
    if (!target->needs_mx && ip_parse(strncasecmp(name, "IPv6:", 5) == 0 ? name + 5 : name, &target->host.literal) == 0) {
        snprintf(target->host.name, sizeof target->host.name, "%s", name);
        return 0;
    }
    return domain_normalise(name, target->host.name);
}

static void lookup_free(struct lookup *lookup) {
    for (uint32_t i = 0; i < lookup->target_count; i++)
        if (lookup->targets[i].question)
            dns_forget(lookup->targets[i].question);
    if (lookup->sts)
        sts_forget(lookup->sts);
    if (lookup->reports)
        dns_forget(lookup->reports);
    free(lookup->policy_copy);
    free(lookup);
}

void lookup_cancel(struct lookup *lookup) {
    lookup_free(lookup);
}

/* Appends a target's hosts with preferences that come after those of the targets before. */
static void set_append(struct mx_set *set, struct mx_set *more, uint16_t port) {
    uint16_t rank = set->count > 0 ? (uint16_t)(set->hosts[set->count - 1].preference + 1) : 0;
    mx_normalise(more);
    for (uint32_t i = 0; i < more->count; i++) {
        struct mx_host host = more->hosts[i];
        host.preference = (uint16_t)(host.preference + rank);
        host.port = port;
        mx_add(set, &host);
    }
}

static void set_append_host(struct mx_set *set, const struct mx_host *host) {
    struct mx_set one = {.count = 1};
    one.hosts[0] = *host;
    one.hosts[0].preference = 0;
    set_append(set, &one, host->port);
}

static bool is_outside_sandbox(const void *context, const char *name) {
    return !domain_is_reserved(name);
}

/* What DNS said of the domain itself. True: `set` has its hosts; false: `failure` says why not. */
static bool domain_set(const struct lookup *lookup, struct mx_set *set, struct route_result *failure) {
    const struct target *target = &lookup->targets[0];
    const char *domain = target->host.name;
    if (!target->needs_mx) {
        set_append_host(set, &target->host);
        return true;
    }
    if (target->status == DNS_FAILED) {
        route_fail(failure, ROUTE_TEMPORARY, CLASS_DNS_FAILURE, 451, "4.4.3", "MX of %s: %s", domain, target->why);
        return false;
    }
    if (target->status == DNS_NO_NAME) {
        route_fail(failure, ROUTE_PERMANENT, CLASS_BAD_DOMAIN, 550, "5.1.2", "%s does not exist (NXDOMAIN)", domain);
        return false;
    }
    if (target->status == DNS_NO_DATA) {
        struct mx_host itself = target->host;
        set_append_host(set, &itself); /* implicit MX */
    } else if (target->set.count == 0 && target->set.null_mx) {
        route_fail(failure, ROUTE_PERMANENT, CLASS_BAD_DOMAIN, 556, "5.1.10", "%s accepts no mail (null MX, RFC 7505)", domain);
        return false;
    } else {
        struct mx_set copy = target->set;
        set_append(set, &copy, 0);
    }
    if (mx_cut_self(set, route_is_own_name, lookup->route) && set->count == 0) {
        route_fail(failure, ROUTE_PERMANENT, CLASS_RELAY_DENIED, 550, "5.4.6",
                   "mail for %s loops back to this sender: its best MX is one of our own names", domain);
        return false;
    }
    if (lookup->route->config->sandbox) {
        uint32_t kept = 0;
        for (uint32_t i = 0; i < set->count; i++)
            if (!is_outside_sandbox(NULL, set->hosts[i].name))
                set->hosts[kept++] = set->hosts[i];
        set->count = kept;
        if (kept == 0) {
            route_fail(failure, ROUTE_PERMANENT, CLASS_RELAY_DENIED, 550, "5.7.1",
                       "sandbox is on and no MX of %s is a reserved test name; set `sandbox: false` in bypost.yaml", domain);
            return false;
        }
    }
    if (set->count == 0) {
        route_fail(failure, ROUTE_PERMANENT, CLASS_BAD_DOMAIN, 550, "5.4.4", "no MX of %s is a host name", domain);
        return false;
    }
    mx_normalise(set);
    return true;
}

static bool relay_set(struct lookup *lookup, struct mx_set *set, struct route_result *failure) {
    const char *why = NULL;
    for (uint32_t i = 0; i < lookup->target_count; i++) {
        struct target *target = &lookup->targets[i];
        if (!target->needs_mx || target->status == DNS_NO_DATA)
            set_append_host(set, &target->host);
        else if (target->status == DNS_FOUND)
            set_append(set, &target->set, target->host.port);
        else if (target->status == DNS_FAILED)
            why = target->why;
    }
    if (set->count > 0)
        return true;
    /* Never permanent: a wrong relay is the operator's fault, not the recipient's. */
    route_fail(failure, ROUTE_TEMPORARY, CLASS_DNS_FAILURE, 451, "4.4.3", "the relay for %s has no host: %s", lookup->entry->name,
               why ? why : "look at `relays` in bypost.yaml");
    return false;
}

/* RFC 7672 2.2.1: DANE is for hosts that were found securely; those of the configuration are. */
static bool hosts_are_secure(const struct lookup *lookup) {
    bool secure = true;
    for (uint32_t i = 0; i < lookup->target_count; i++)
        secure = secure && (!lookup->targets[i].needs_mx || lookup->targets[i].secure);
    return secure && lookup->route->config->dns.trust_anchor_file;
}

static void tell_flaw(const struct lookup *lookup, const struct site_state *site) {
    static const enum route_flaw FLAWS[] = {
        [STS_FETCH_ERROR] = ROUTE_FLAW_STS_FETCH, [STS_INVALID] = ROUTE_FLAW_STS_INVALID, [STS_WEBPKI_INVALID] = ROUTE_FLAW_STS_WEBPKI};
    if (lookup->policy.flaw != STS_FINE)
        site_flaw(site, FLAWS[lookup->policy.flaw], "", lookup->policy.why);
}

/* The site of what was found, or NULL. */
static struct site_state *lookup_site(const struct lookup *lookup, const struct mx_set *set) {
    struct route *route = lookup->route;
    const struct domain_entry *entry = lookup->entry;
    char relay_name[DOMAIN_BYTES];
    bool own = site_has_own_limits(route->config, entry->name, set);
    const struct shaping_limits *limits = site_limits(route->config, own ? entry->name : NULL, set->hosts, set->count);
    bool policy = lookup->policy_copy && lookup->policy_copy->mode != STS_NONE && limits->enable_mta_sts;
    struct site_terms terms = {.relay = lookup->relay,
                               .is_public = !lookup->relay && !domain_is_reserved(entry->name),
                               .dane = limits->enable_dane && !entry->relaxed && hosts_are_secure(lookup),
                               .policy = policy ? &lookup->policy : NULL,
                               .rua = lookup->rua[0] ? lookup->rua : NULL};
    if (own || terms.policy || terms.rua)
        terms.override_domain = entry->name;
    if (lookup->relay && lookup->relay->host_count > 1)
        snprintf(relay_name, sizeof relay_name, "%.240s+%u", lookup->relay->hosts[0], lookup->relay->host_count - 1);
    else if (lookup->relay)
        snprintf(relay_name, sizeof relay_name, "%.255s", lookup->relay->hosts[0]);
    terms.relay_name = lookup->relay ? relay_name : NULL;
    struct site_state *site = site_of_set(route, set, &terms);
    if (site)
        tell_flaw(lookup, site);
    return site;
}

static void lookup_done(struct lookup *lookup) {
    struct route *route = lookup->route;
    struct domain_entry *entry = lookup->entry;
    if (lookup->epoch != route->epoch) { /* asked under another configuration, whose relays are gone: again under this one */
        entry->lookup = NULL;
        lookup_free(lookup);
        lookup_start(route, entry);
        return;
    }
    struct mx_set *set = calloc(1, sizeof *set);
    struct route_result failure;
    uint32_t ttl_s = lookup->ttl_s;
    bool good = false;
    if (!set)
        route_fail(&failure, ROUTE_TEMPORARY, CLASS_SYSTEM_ERROR, 451, "4.3.1", "out of memory");
    else
        good = lookup->relay ? relay_set(lookup, set, &failure) : domain_set(lookup, set, &failure);
    struct site_state *site = good ? lookup_site(lookup, set) : NULL;
    if (good && !site)
        route_fail(&failure, ROUTE_TEMPORARY, CLASS_SYSTEM_ERROR, 451, "4.3.1", "too many sites at a time");
    free(set);
    entry->lookup = NULL;
    lookup_free(lookup);
    if (site)
        entry_found(route, entry, site, ttl_s);
    else
        entry_failed(route, entry, &failure, ttl_s);
}

static void lookup_settle(struct lookup *lookup) {
    if (--lookup->pending == 0)
        lookup_done(lookup);
}

static void on_mx(void *context, const struct dns_answer *answer) {
    struct target *target = context;
    target->question = NULL;
    target->status = answer->status;
    target->secure = answer->secure;
    if (answer->status == DNS_FAILED)
        snprintf(target->why, sizeof target->why, "%s", answer->why);
    else if (answer->ttl_s < target->lookup->ttl_s)
        target->lookup->ttl_s = answer->ttl_s;
    for (uint32_t i = 0; i < answer->count; i++)
        mx_add_rdata(&target->set, answer->data[i], (size_t)answer->lengths[i]);
    lookup_settle(target->lookup);
}

static void on_policy(void *context, const struct sts_answer *answer) {
    struct lookup *lookup = context;
    lookup->sts = NULL;
    lookup->policy = *answer;
    lookup->policy_copy = answer->policy ? sts_policy_copy(answer->policy) : NULL;
    lookup->policy.policy = lookup->policy_copy;
    lookup_settle(lookup);
}

/* RFC 8460 section 3: of several records one may be of this kind. */
static void on_reports(void *context, const struct dns_answer *answer) {
    struct lookup *lookup = context;
    char text[TXT_BYTES_MAX], rua[TXT_RUA_BYTES];
    uint32_t found = 0;
    lookup->reports = NULL;
    for (uint32_t i = 0; i < answer->count; i++) {
        int length = txt_join(answer->data[i], (size_t)answer->lengths[i], text);
        int rc = length < 0 ? -ENOENT : tlsrpt_record_read(text, (size_t)length, rua);
        found += rc != -ENOENT;
        if (rc == 0)
            memcpy(lookup->rua, rua, sizeof rua);
    }
    if (found != 1)
        lookup->rua[0] = '\0';
    lookup_settle(lookup);
}

/* What else the domain says, beside its MX. Memory that is short loses a policy like a name server that does not answer. */
static void ask_policies(struct lookup *lookup) {
    struct route *route = lookup->route;
    const char *domain = lookup->entry->name;
    char name[DOMAIN_BYTES + 16];
    if (lookup->entry->relaxed)
        return;
    if (route->use_sts && (lookup->sts = sts_find(route->sts, domain, on_policy, lookup)))
        lookup->pending++;
    snprintf(name, sizeof name, "_smtp._tls.%s", domain);
    if (route->config->tls_reports.enabled && route->reports.open &&
        (lookup->reports = dns_ask(route->dns, name, DNS_TYPE_TXT, on_reports, lookup)))
        lookup->pending++;
}

static void out_of_memory(struct route *route, struct domain_entry *entry) {
    struct route_result failure;
    route_fail(&failure, ROUTE_TEMPORARY, CLASS_SYSTEM_ERROR, 451, "4.3.1", "out of memory");
    entry_failed(route, entry, &failure, 0);
}

/* Refusals that need no DNS. True: told. */
static bool refused(struct route *route, struct domain_entry *entry, const struct config_relay *relay, int literal) {
    struct route_result failure;
    if (literal < 0 && !relay) {
        route_fail(&failure, ROUTE_PERMANENT, CLASS_BAD_DOMAIN, 550, "5.1.2", "%s is not an address literal (RFC 5321 4.1.3)", entry->name);
    } else if (!relay && route->config->sandbox && (literal == 1 || !domain_is_reserved(entry->name))) {
        route_fail(&failure, ROUTE_PERMANENT, CLASS_RELAY_DENIED, 550, "5.7.1",
                   "sandbox is on: only reserved test domains and relays are contacted; set `sandbox: false` in bypost.yaml to send to %s",
                   entry->name);
    } else {
        return false;
    }
    entry_failed(route, entry, &failure, ROUTE_NEGATIVE_TTL_MAX_S);
    return true;
}

void lookup_start(struct route *route, struct domain_entry *entry) {
    const struct config_relay *relay = relay_of(route->config, entry->name);
    struct config_address literal_address;
    int literal = domain_literal(entry->name, &literal_address);
    if (refused(route, entry, relay, literal))
        return;
    uint32_t target_count = relay ? relay->host_count : 1;
    struct lookup *lookup = calloc(1, sizeof *lookup + target_count * sizeof lookup->targets[0]);
    if (!lookup) {
        out_of_memory(route, entry);
        return;
    }
    lookup->route = route;
    lookup->entry = entry;
    lookup->relay = relay;
    lookup->epoch = route->epoch;
    lookup->ttl_s = ROUTE_TTL_MAX_S;
    lookup->pending = 1; /* this function's own */
    entry->lookup = lookup;
    for (uint32_t i = 0; i < target_count; i++) {
        struct target *target = &lookup->targets[lookup->target_count];
        memset(target, 0, sizeof *target);
        target->lookup = lookup;
        if (relay) {
            if (parse_relay_host(relay->hosts[i], target) != 0)
                continue;
        } else {
            memcpy(target->host.name, entry->name, strlen(entry->name) + 1);
            target->needs_mx = literal == 0;
            if (literal == 1)
                target->host.literal = literal_address;
        }
        lookup->target_count++;
        if (!target->needs_mx)
            continue;
        target->status = DNS_FAILED;
        snprintf(target->why, sizeof target->why, "out of memory");
        lookup->pending++;
        target->question = dns_ask(route->dns, target->host.name, DNS_TYPE_MX, on_mx, target);
        if (!target->question)
            lookup->pending--;
    }
    if (!relay && literal == 0)
        ask_policies(lookup);
    lookup_settle(lookup);
}
