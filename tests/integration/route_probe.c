/* route_probe.c: route as a program for tests/integration/test_route: options make the configuration, lines on stdin ask.
 *   find DOMAIN...   asks for all at once, prints a line for each in that order
 *   hold DOMAIN      the same, and keeps a reference to the site
 *   relaxed DOMAIN.. the same, for mail that its domain's policies do not concern
 *   skip SECONDS     moves route's clock and lets its timers see it
 *   reload OPTION... another configuration, from the options of a command line */
#include "control/route/route.h"
#include "control/route/state.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ITEMS_MAX = 32, LINE_BYTES = 65536, DOMAINS_MAX = 4096, WAIT_MAX_S = 30 };

static uint64_t skipped_us;
uint64_t __real_route_now_us(void);
uint64_t __wrap_route_now_us(void);
uint64_t __wrap_route_now_us(void) {
    return __real_route_now_us() + skipped_us;
}

uint64_t __real_route_wall_s(void);
uint64_t __wrap_route_wall_s(void);
uint64_t __wrap_route_wall_s(void) {
    return __real_route_wall_s() + skipped_us / 1000000;
}

struct answer {
    char text[4096];
    bool done, sync, hold;
    struct probe *probe;
};

struct probe {
    struct event_base *base;
    struct route *route;
    struct config *config;
    uint32_t open;
    bool asking;
    uint32_t held_count;
    struct site *held[ITEMS_MAX];
};

static void fail(const char *what, const char *why) {
    fprintf(stderr, "route_probe: %s: %s\n", what, why);
    exit(2);
}

static struct config *config_blank(void) {
    struct config *config = calloc(1, sizeof *config);
    config->defaults.connection_limit = 10;
    config->defaults.port = 25;
    config->dns.servers = calloc(ITEMS_MAX, sizeof *config->dns.servers);
    config->dns.prohibited_hosts = calloc(ITEMS_MAX + 1, sizeof *config->dns.prohibited_hosts);
    config->pools = calloc(1, sizeof *config->pools);
    config->pools[0].name = config->default_pool = strdup("default");
    config->pools[0].sources = calloc(ITEMS_MAX, sizeof *config->pools[0].sources);
    config->pool_count = 1;
    config->relays = calloc(ITEMS_MAX, sizeof *config->relays);
    config->providers = calloc(ITEMS_MAX, sizeof *config->providers);
    config->domains = calloc(ITEMS_MAX, sizeof *config->domains);
    return config;
}

/* "a,b,c" into an array. */
static char **split(const char *text, uint32_t *count) {
    char **items = calloc(ITEMS_MAX, sizeof *items);
    char *copy = strdup(text);
    for (char *save, *item = strtok_r(copy, ",", &save); item && *count < ITEMS_MAX; item = strtok_r(NULL, ",", &save))
        items[(*count)++] = strdup(item);
    free(copy);
    return items;
}

static uint32_t number(const char *text) {
    return (uint32_t)strtoul(text, NULL, 10);
}

static void option_server(struct config *config, const char *value) {
    char host[64];
    const char *at = strchr(value, '@');
    snprintf(host, sizeof host, "%.*s", at ? (int)(at - value) : 63, value);
    struct config_address *server = &config->dns.servers[config->dns.server_count++];
    if (ip_parse(host, server) != 0)
        fail("server", value);
    server->port = at ? (uint16_t)number(at + 1) : 53;
}

/* "domain=LIMIT": its own connection_limit, with or without a provider. Given in alphabetical order. */
static void option_limit(struct config *config, const char *name, const char *value) {
    struct shaping_domain *domain = &config->domains[config->domain_count++];
    domain->domain = strdup(name);
    domain->limits = config->defaults;
    domain->limits.connection_limit = number(value);
    domain->merged = calloc(ITEMS_MAX + 1, sizeof *domain->merged);
    for (uint32_t i = 0; i <= ITEMS_MAX; i++)
        domain->merged[i] = domain->limits;
}

static void option(struct config *config, const char *text) {
    char name[64], key[256] = "";
    const char *value = strchr(text, '=');
    snprintf(name, sizeof name, "%.*s", value ? (int)(value - text) : 63, text);
    value = value ? value + 1 : "";
    const char *rest = strchr(value, '=');
    if (rest)
        snprintf(key, sizeof key, "%.*s", (int)(rest++ - value), value);
    uint32_t prohibited = 0;
    while (config->dns.prohibited_hosts[prohibited])
        prohibited++;
    struct config_source *source = &config->pools[0].sources[config->pools[0].source_count];
    if (strcmp(name, "server") == 0) {
        option_server(config, value);
    } else if (strcmp(name, "timeout") == 0) {
        config->dns.timeout_ms = number(value);
    } else if (strcmp(name, "sandbox") == 0) {
        config->sandbox = true;
    } else if (strcmp(name, "dane") == 0) {
        config->defaults.enable_dane = true;
        config->dns.trust_anchor_file = strdup(value);
    } else if (strcmp(name, "sts") == 0) {
        config->defaults.enable_mta_sts = true;
        config->state_directory = value[0] ? strdup(value) : NULL;
    } else if (strcmp(name, "ca") == 0) {
        config->tls.ca_file = strdup(value);
    } else if (strcmp(name, "reports") == 0) {
        config->tls_reports.enabled = true;
    } else if (strcmp(name, "prohibit") == 0) {
        config->dns.prohibited_hosts[prohibited] = strdup(value);
    } else if (strcmp(name, "source") == 0 && rest) {
        if (ip_parse(key, &source->address) != 0)
            fail("source", text);
        source->ehlo = strdup(rest);
        config->pools[0].source_count++;
    } else if (strcmp(name, "relay") == 0 && rest) {
        struct config_relay *relay = &config->relays[config->relay_count++];
        relay->domain = strdup(key);
        relay->hosts = split(rest, &relay->host_count);
    } else if (strcmp(name, "provider") == 0 && rest) {
        struct shaping_provider *provider = &config->providers[config->provider_count++];
        provider->name = strdup(key);
        provider->match = split(rest, &provider->match_count);
        provider->limits = config->defaults;
        provider->limits.connection_limit = 7;
    } else if (strcmp(name, "limit") == 0 && rest) {
        option_limit(config, key, rest);
    } else {
        fail("no such option", text);
    }
}

/* What route tells of policies, a line each on stderr. */
static void *on_open(void *context, const char *domain, const char *rua) {
    fprintf(stderr, "report %s to %s\n", domain, rua);
    return strdup(domain);
}

static void on_close(void *context, void *report) {
    free(report);
}

static void on_policy(void *context, void *report, enum route_policy policy, const char *lines) {
    fprintf(stderr, "policy %s %d %.*s\n", (char *)report, (int)policy, (int)strcspn(lines, "\n"), lines);
}

static void on_flaw(void *context, void *report, enum route_flaw flaw, const char *host, const char *why) {
    fprintf(stderr, "flaw %s %d [%s] %s\n", (char *)report, (int)flaw, host, why);
}

static void strings_free(char **items, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        free(items[i]);
    free(items);
}

static void config_drop(struct config *config) {
    for (uint32_t i = 0; i < config->pools[0].source_count; i++)
        free(config->pools[0].sources[i].ehlo);
    for (uint32_t i = 0; i < config->relay_count; i++) {
        free(config->relays[i].domain);
        strings_free(config->relays[i].hosts, config->relays[i].host_count);
    }
    for (uint32_t i = 0; i < config->provider_count; i++) {
        free(config->providers[i].name);
        strings_free(config->providers[i].match, config->providers[i].match_count);
    }
    for (uint32_t i = 0; i < config->domain_count; i++) {
        free(config->domains[i].domain);
        free(config->domains[i].merged);
    }
    strings_free(config->dns.prohibited_hosts, ITEMS_MAX);
    free(config->dns.servers);
    free(config->dns.trust_anchor_file);
    free(config->state_directory);
    free(config->tls.ca_file);
    free(config->pools[0].sources);
    free(config->pools[0].name);
    free(config->pools);
    free(config->relays);
    free(config->providers);
    free(config->domains);
    free(config);
}

static void print_site(struct answer *answer, const struct site *site) {
    char *at = answer->text, *end = answer->text + sizeof answer->text;
    at += snprintf(at, (size_t)(end - at), "found site=%s id=%p provider=%s limit=%u generation=%u endpoints=", site->name,
                   (const void *)site, site->provider ? site->provider->name : "-", site->limits->connection_limit, site->generation);
    for (uint32_t i = 0; i < site->endpoint_count; i++) {
        const struct site_endpoint *endpoint = &site->endpoints[i];
        char ip[INET6_ADDRSTRLEN];
        inet_ntop(endpoint->address.family == 6 ? AF_INET6 : AF_INET, endpoint->address.bytes, ip, sizeof ip);
        at += snprintf(at, (size_t)(end - at), "%s%s/%u/%u/%s/%u/%u", i > 0 ? "," : "", ip, endpoint->address.port, endpoint->preference,
                       endpoint->name, endpoint->tls, endpoint->tlsa_count);
    }
    snprintf(at, (size_t)(end - at), " testing=%d text=%s|%s", site->tls_testing, site->mta_sts, site->dane);
}

static void on_result(void *context, const struct route_result *result) {
    struct answer *answer = context;
    if (answer->done)
        fail("done", "called twice");
    answer->done = true;
    answer->sync = answer->probe->asking;
    if (result->status == ROUTE_FOUND) {
        if (answer->hold && answer->probe->held_count < ITEMS_MAX) {
            site_hold(result->site);
            answer->probe->held[answer->probe->held_count++] = result->site;
        }
        print_site(answer, result->site);
    } else {
        snprintf(answer->text, sizeof answer->text, "%s code=%u enhanced=%u.%u.%u class=%u text=%s",
                 result->status == ROUTE_TEMPORARY ? "temporary" : "permanent", result->code, result->enhanced[0], result->enhanced[1],
                 result->enhanced[2], (unsigned)result->class, result->text);
    }
    if (--answer->probe->open == 0)
        event_base_loopbreak(answer->probe->base);
}

static void find(struct probe *probe, char *domains, bool hold, bool relaxed) {
    struct answer *answers = calloc(DOMAINS_MAX, sizeof *answers);
    uint32_t count = 0;
    probe->asking = true;
    probe->open = 1;
    for (char *save, *domain = strtok_r(domains, " \n", &save); domain && count < DOMAINS_MAX; domain = strtok_r(NULL, " \n", &save)) {
        struct answer *answer = &answers[count++];
        answer->probe = probe;
        answer->hold = hold;
        probe->open++;
        (relaxed ? route_find_relaxed : route_find)(probe->route, domain, on_result, answer);
    }
    probe->asking = false;
    if (--probe->open > 0) {
        struct timeval wait = {.tv_sec = WAIT_MAX_S};
        event_base_loopexit(probe->base, &wait);
        event_base_dispatch(probe->base);
    }
    for (uint32_t i = 0; i < count; i++)
        printf("%s sync=%d\n", answers[i].done ? answers[i].text : "lost", answers[i].sync);
    printf(".\n");
    fflush(stdout);
    if (probe->open > 0)
        exit(3); /* an answer may still come for what is freed here */
    free(answers);
}

static void reload(struct probe *probe, char *options) {
    struct config *config = config_blank();
    for (char *save, *item = strtok_r(options, " \n", &save); item; item = strtok_r(NULL, " \n", &save))
        option(config, item);
    route_reconfigure(probe->route, config);
    config_drop(probe->config);
    probe->config = config;
    printf("reloaded\n.\n");
    fflush(stdout);
}

static void skip(struct probe *probe, uint64_t seconds) {
    skipped_us += seconds * 1000000;
    event_active(probe->route->sweep, EV_TIMEOUT, 1);
    event_base_loop(probe->base, EVLOOP_NONBLOCK);
    printf("domains=%zu sites=%zu\n.\n", probe->route->domains.count, probe->route->sites.count);
    fflush(stdout);
}

int main(int argc, char **argv) {
    static char line[LINE_BYTES];
    char error[256];
    struct probe probe = {.base = event_base_new(), .config = config_blank()};
    for (int i = 1; i < argc; i++)
        option(probe.config, argv[i]);
    probe.route = route_create(probe.base, probe.config, error, sizeof error);
    if (!probe.route) {
        printf("refused: %s\n", error);
        config_drop(probe.config);
        event_base_free(probe.base);
        return 1;
    }
    struct route_reports reports = {.open = on_open, .close = on_close, .policy = on_policy, .flaw = on_flaw};
    route_set_reports(probe.route, &reports);
    route_keep_policies(probe.route);
    while (fgets(line, sizeof line, stdin)) {
        if (strncmp(line, "find ", 5) == 0)
            find(&probe, line + 5, false, false);
        else if (strncmp(line, "hold ", 5) == 0)
            find(&probe, line + 5, true, false);
        else if (strncmp(line, "relaxed ", 8) == 0)
            find(&probe, line + 8, false, true);
        else if (strncmp(line, "skip ", 5) == 0)
            skip(&probe, strtoull(line + 5, NULL, 10));
        else if (strncmp(line, "reload ", 7) == 0)
            reload(&probe, line + 7);
        else
            fail("no such command", line);
    }
    route_destroy(probe.route);
    for (uint32_t i = 0; i < probe.held_count; i++)
        site_release(probe.held[i]); /* they outlive their route */
    config_drop(probe.config);
    event_base_free(probe.base);
    return 0;
}
