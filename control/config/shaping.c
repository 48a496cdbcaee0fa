/* shaping.c: limits of sites, providers and domains: a provider's over the defaults, a domain's over its provider's. */
#include "address.h"
#include "shaping.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* In the order of enum path_tls; dane is a policy's, not the operator's. */
static const char *const tls_levels[] = {"none", "may", "encrypt", "verify", NULL};
static const char *const tls_versions[] = {"1.2", "1.3", NULL};
static const char *const batch_choices[] = {"domain", "site", NULL};

#define AT(name) offsetof(struct shaping_limits, name)
/* The keys are KumoMTA's where it has them; DESIGN.md section 7 and SMTP.md section 1 give the numbers. */
static const struct field limit_fields[] = {
    {.key = "connection_limit", .kind = FIELD_COUNT, .offset = AT(connection_limit), .fallback = "10", .max = "100000"},
    {.key = "max_connection_rate", .kind = FIELD_RATE, .offset = AT(max_connection_rate), .fallback = "100/min"},
    {.key = "max_message_rate", .kind = FIELD_RATE, .offset = AT(max_message_rate), .fallback = "100/s"},
    {.key = "max_deliveries_per_connection", .kind = FIELD_COUNT, .offset = AT(max_deliveries_per_connection), .fallback = "100"},
    {.key = "provider_connection_limit", .kind = FIELD_COUNT, .offset = AT(provider_connection_limit), .fallback = "10", .max = "1000000"},
    {.key = "provider_max_connection_rate", .kind = FIELD_RATE, .offset = AT(provider_max_connection_rate), .fallback = "100/min"},
    {.key = "provider_max_message_rate", .kind = FIELD_RATE, .offset = AT(provider_max_message_rate), .fallback = "100/s"},
    {.key = "pipelined_transactions", .kind = FIELD_COUNT, .offset = AT(pipelined_transactions), .fallback = "1", .min = "1", .max = "16"},
    {.key = "connect_timeout", .kind = FIELD_DURATION32, .offset = AT(connect_timeout_ms), .fallback = "30s", .min = "100ms", .max = "1h"},
    {.key = "banner_timeout", .kind = FIELD_DURATION32, .offset = AT(banner_timeout_ms), .fallback = "60s", .min = "100ms", .max = "1h"},
    {.key = "ehlo_timeout", .kind = FIELD_DURATION32, .offset = AT(ehlo_timeout_ms), .fallback = "60s", .min = "100ms", .max = "1h"},
    {.key = "mail_from_timeout",
     .kind = FIELD_DURATION32,
     .offset = AT(mail_from_timeout_ms),
     .fallback = "300s",
     .min = "100ms",
     .max = "1h"},
    {.key = "rcpt_to_timeout", .kind = FIELD_DURATION32, .offset = AT(rcpt_to_timeout_ms), .fallback = "300s", .min = "100ms", .max = "1h"},
    {.key = "data_timeout", .kind = FIELD_DURATION32, .offset = AT(data_timeout_ms), .fallback = "120s", .min = "100ms", .max = "1h"},
    {.key = "data_block_timeout",
     .kind = FIELD_DURATION32,
     .offset = AT(data_block_timeout_ms),
     .fallback = "180s",
     .min = "100ms",
     .max = "1h"},
    {.key = "data_dot_timeout",
     .kind = FIELD_DURATION32,
     .offset = AT(data_dot_timeout_ms),
     .fallback = "600s",
     .min = "100ms",
     .max = "1h"},
    {.key = "rset_timeout", .kind = FIELD_DURATION32, .offset = AT(rset_timeout_ms), .fallback = "10s", .min = "100ms", .max = "1h"},
    {.key = "quit_timeout", .kind = FIELD_DURATION32, .offset = AT(quit_timeout_ms), .fallback = "10s", .min = "100ms", .max = "1h"},
    {.key = "idle_timeout", .kind = FIELD_DURATION32, .offset = AT(idle_timeout_ms), .fallback = "60s", .min = "100ms", .max = "1h"},
    {.key = "tls", .kind = FIELD_CHOICE, .offset = AT(tls), .fallback = "may", .choices = tls_levels},
    {.key = "enable_mta_sts", .kind = FIELD_BOOL, .offset = AT(enable_mta_sts), .fallback = "true"},
    {.key = "enable_dane", .kind = FIELD_BOOL, .offset = AT(enable_dane), .fallback = "false"},
    {.key = "remember_broken_tls", .kind = FIELD_SECONDS32, .offset = AT(remember_broken_tls_s), .fallback = "15m", .max = "7d"},
    {.key = "tls_min_version",
     .kind = FIELD_CHOICE8,
     .offset = AT(tls_version_min),
     .fallback = "1.2",
     .choices = tls_versions,
     .base = 12},
    {.key = "use_chunking", .kind = FIELD_BOOL, .offset = AT(use_chunking), .fallback = "true"},
    {.key = "max_recipients_per_batch",
     .kind = FIELD_COUNT,
     .offset = AT(max_recipients_per_batch),
     .fallback = "100",
     .min = "1",
     .max = "500"},
    {.key = "batch_by", .kind = FIELD_CHOICE8, .offset = AT(batch_by_site), .fallback = "domain", .choices = batch_choices},
    {.key = "smtp_port", .kind = FIELD_COUNT16, .offset = AT(port), .fallback = "25", .min = "1", .max = "65535"},
    {0},
};
#undef AT

void shaping_defaults(struct shaping_limits *limits) {
    section_defaults(limit_fields, limits);
}

/* A provider's entry is its own two keys and the limits: one table for both. */
struct provider_entry {
    struct shaping_limits limits; /* first: limit_fields' offsets hold */
    struct shaping_provider *provider;
    char *name;
};

static void provider_match_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct shaping_provider *provider = ((struct provider_entry *)record)->provider;
    if (!reader_wants(reader, node, YAML_SEQUENCE, "match", "`[google.com, googlemail.com]`")) {
        return;
    }
    provider->match = calloc(node->count, sizeof *provider->match);
    for (uint32_t i = 0; i < node->count; i++) {
        const struct yaml_node *item = &node->items[i];
        const char *text = item->kind == YAML_SCALAR ? item->text : "";
        char *suffix = host_to_ascii(text + strspn(text, "*."));
        if (!suffix) {
            reader_error(reader, item, "`%s` is no suffix of a host name for `match`; write the end of the MX names, such as `google.com`.",
                         text);
            continue;
        }
        provider->match[provider->match_count++] = suffix;
        reader_note(reader, suffix, item);
    }
}

enum { LIMIT_FIELDS = sizeof limit_fields / sizeof *limit_fields - 1 };

static void provider_read(struct reader *reader, const struct yaml_node *node, struct config *config, struct shaping_provider *provider) {
    struct field fields[LIMIT_FIELDS + 3];
    struct provider_entry entry = {.limits = config->defaults, .provider = provider};
    memcpy(fields, limit_fields, sizeof limit_fields);
    fields[LIMIT_FIELDS] = (struct field){.key = "name", .kind = FIELD_TEXT, .offset = offsetof(struct provider_entry, name)};
    fields[LIMIT_FIELDS + 1] = (struct field){.key = "match", .kind = FIELD_CUSTOM, .read = provider_match_read};
    fields[LIMIT_FIELDS + 2] = (struct field){0};
    reader_note(reader, provider, node);
    section_read(reader, node, "a provider", fields, &entry, NULL);
    provider->limits = entry.limits;
    provider->name = entry.name;
    if (node->kind == YAML_MAPPING && !yaml_get(node, "name")) {
        reader_error(reader, node, "this provider has no `name`; add one such as `name: google`.");
    }
    if (node->kind == YAML_MAPPING && !yaml_get(node, "match")) {
        reader_error(reader, node, "this provider has no `match`; add the ends of its MX names, such as `match: [google.com]`.");
    }
}

static void providers_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config *config = record;
    if (!reader_wants(reader, node, YAML_SEQUENCE, "providers", "`- {name: google, match: [google.com]}`")) {
        return;
    }
    config->providers = calloc(node->count, sizeof *config->providers);
    for (uint32_t i = 0; i < node->count; i++) {
        provider_read(reader, &node->items[i], config, &config->providers[config->provider_count++]);
    }
    for (uint32_t i = 0; i < config->provider_count; i++) {
        const struct shaping_provider *provider = &config->providers[i];
        for (uint32_t j = 0; j < i; j++) {
            const struct shaping_provider *other = &config->providers[j];
            if (provider->name && other->name && strcasecmp(provider->name, other->name) == 0) {
                reader_error(reader, reader_place(reader, provider), "two providers are named `%s`; rename one, or join them.",
                             provider->name);
            }
        }
        for (uint32_t m = 0; m < provider->match_count; m++) {
            for (uint32_t j = 0; j <= i; j++) {
                const struct shaping_provider *other = &config->providers[j];
                for (uint32_t k = 0; k < (j == i ? m : other->match_count); k++) {
                    if (strcmp(provider->match[m], other->match[k]) == 0) {
                        reader_error(reader, reader_place(reader, provider->match[m]),
                                     "the suffix `%s` belongs to provider `%s` already; remove it from one of them.", provider->match[m],
                                     other->name ? other->name : "?");
                    }
                }
            }
        }
    }
}

static void domains_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config *config = record;
    if (!reader_wants(reader, node, YAML_MAPPING, "domains", "`example.com: {connection_limit: 5}`")) {
        return;
    }
    config->domains = calloc(node->count, sizeof *config->domains);
    for (uint32_t i = 0; i < node->count; i++) {
        const struct yaml_node *key = &node->keys[i];
        struct shaping_domain *domain = &config->domains[config->domain_count];
        domain->domain = host_to_ascii(key->text);
        if (!domain->domain) {
            reader_error(reader, key, "`%s` is no domain; write it as in an address, such as `example.com`.", key->text);
            continue;
        }
        reader_note(reader, domain, key);
        config->domain_count++;
        for (uint32_t j = 0; j + 1 < config->domain_count; j++) {
            if (strcmp(config->domains[j].domain, domain->domain) == 0) {
                reader_error(reader, key, "the domain `%s` stands twice in domains (first at line %u); remove one of them.", domain->domain,
                             reader_place(reader, &config->domains[j])->line);
            }
        }
        section_read(reader, &node->items[i], key->text, limit_fields, &domain->limits, &domain->given);
    }
}

static void default_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config *config = record;
    section_read(reader, node, "default", limit_fields, &config->defaults, NULL);
}

void shaping_read(struct reader *reader, const struct yaml_node *root, struct config *config) {
    static const struct field fields[] = {
        {.key = "default", .kind = FIELD_CUSTOM, .read = default_read},
        {.key = "providers", .kind = FIELD_CUSTOM, .read = providers_read},
        {.key = "domains", .kind = FIELD_CUSTOM, .read = domains_read},
        {0},
    };
    /* Providers start from the defaults, wherever in the file those stand. */
    const struct yaml_node *defaults = yaml_get(root, "default");
    if (defaults) {
        struct config_errors discarded = {0};
        struct reader early = {.errors = &discarded, .file = reader->file, .root = root};
        default_read(&early, defaults, config);
        reader_free(&early);
        config_errors_free(&discarded);
    }
    section_read(reader, root, "the shaping file", fields, config, NULL);
}

static int domain_compare(const void *a, const void *b) {
    return strcmp(((const struct shaping_domain *)a)->domain, ((const struct shaping_domain *)b)->domain);
}

void shaping_merge(struct config *config) {
    if (config->domain_count == 0) {
        return;
    }
    qsort(config->domains, config->domain_count, sizeof *config->domains, domain_compare);
    for (uint32_t i = 0; i < config->domain_count; i++) {
        struct shaping_domain *domain = &config->domains[i];
        domain->merged = calloc(config->provider_count + 1, sizeof *domain->merged);
        if (!domain->merged) {
            abort();
        }
        for (uint32_t p = 0; p <= config->provider_count; p++) {
            domain->merged[p] = p < config->provider_count ? config->providers[p].limits : config->defaults;
            section_copy(limit_fields, domain->given, &domain->limits, &domain->merged[p]);
        }
        domain->limits = domain->merged[config->provider_count];
    }
}

void shaping_free(struct config *config) {
    for (uint32_t i = 0; i < config->provider_count; i++) {
        struct shaping_provider *provider = &config->providers[i];
        for (uint32_t m = 0; m < provider->match_count; m++) {
            free(provider->match[m]);
        }
        free(provider->match);
        free(provider->name);
    }
    for (uint32_t i = 0; i < config->domain_count; i++) {
        free(config->domains[i].domain);
        free(config->domains[i].merged);
    }
    free(config->providers);
    free(config->domains);
}

const struct shaping_limits *config_limits(const struct config *config, const char *domain, const struct shaping_provider *provider) {
    if (domain && config->domain_count > 0) {
        struct shaping_domain key = {.domain = (char *)domain};
        const struct shaping_domain *found = bsearch(&key, config->domains, config->domain_count, sizeof key, domain_compare);
        if (found) {
            return &found->merged[provider ? (uint32_t)(provider - config->providers) : config->provider_count];
        }
    }
    return provider ? &provider->limits : &config->defaults;
}

const struct shaping_provider *config_provider(const struct config *config, const char *mx_host) {
    const struct shaping_provider *best = NULL;
    size_t host_length = strlen(mx_host), best_length = 0;
    if (host_length > 0 && mx_host[host_length - 1] == '.') {
        host_length--;
    }
    for (uint32_t i = 0; i < config->provider_count; i++) {
        for (uint32_t m = 0; m < config->providers[i].match_count; m++) {
            const char *suffix = config->providers[i].match[m];
            size_t length = strlen(suffix);
            /* The longest wins, and only whole labels match. */
            if (length > best_length && length <= host_length && strncasecmp(mx_host + host_length - length, suffix, length) == 0 &&
                (length == host_length || mx_host[host_length - length - 1] == '.')) {
                best = &config->providers[i];
                best_length = length;
            }
        }
    }
    return best;
}
