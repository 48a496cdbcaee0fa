/* sections.c: the keys of bypost.yaml with their kinds, defaults and ranges. */
#include "sections.h"
#include "address.h"
#include "bulk.h"
#include "control/outcome.h"
#include "dkim.h"
#include "lists.h"
#include "relays.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define AT(name) offsetof(struct config, name)

static const struct field redis_fields[] = {
    {.key = "address", .kind = FIELD_TEXT, .offset = AT(redis.address), .fallback = "127.0.0.1:6379"},
    {.key = "username", .kind = FIELD_TEXT, .offset = AT(redis.username)},
    {.key = "password_file", .kind = FIELD_PATH, .offset = AT(redis.password_file)},
    {.key = "prefix", .kind = FIELD_TEXT, .offset = AT(redis.prefix), .fallback = "bypost"},
    {.key = "database", .kind = FIELD_COUNT, .offset = AT(redis.database), .fallback = "0", .max = "1023"},
    {.key = "shards", .kind = FIELD_COUNT, .offset = AT(redis.shards), .fallback = "1", .min = "1", .max = "16"},
    {0},
};

static const char *const port_modes[] = {"auto", "copy", "reference", NULL};
static const char *const port_steerings[] = {"auto", "toeplitz", "ranges", NULL};
static const struct field port_fields[] = {
    {.key = "device", .kind = FIELD_TEXT, .offset = offsetof(struct config_port, device)},
    {.key = "mode", .kind = FIELD_CHOICE, .offset = offsetof(struct config_port, mode), .fallback = "auto", .choices = port_modes},
    {.key = "steering",
     .kind = FIELD_CHOICE,
     .offset = offsetof(struct config_port, steering),
     .fallback = "auto",
     .choices = port_steerings},
    {.key = "mtu", .kind = FIELD_COUNT, .offset = offsetof(struct config_port, mtu), .fallback = "1500", .min = "576", .max = "9000"},
    {.key = "vlan", .kind = FIELD_COUNT16, .offset = offsetof(struct config_port, vlan), .fallback = "0", .max = "4094"},
    {.key = "addresses", .kind = FIELD_CUSTOM, .read = port_addresses_read},
    {.key = "gateway", .kind = FIELD_CUSTOM, .read = port_gateway_read},
    {0},
};

static void ports_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config *config = record;
    reader_note(reader, &config->dataplane.ports, node);
    if (!reader_wants(reader, node, YAML_SEQUENCE, "ports",
                      "`- {device: \"0000:3b:00.0\", addresses: [192.0.2.10/24], gateway: 192.0.2.1}`")) {
        return;
    }
    config->dataplane.ports = calloc(node->count, sizeof *config->dataplane.ports);
    for (uint32_t i = 0; i < node->count; i++) {
        struct config_port *port = &config->dataplane.ports[config->dataplane.port_count++];
        reader_note(reader, port, &node->items[i]);
        section_defaults(port_fields, port);
        section_read(reader, &node->items[i], "a port", port_fields, port, NULL);
    }
}

static const char *const congestions[] = {"cubic", "newreno", NULL};
static const struct field dataplane_fields[] = {
    {.key = "lcores", .kind = FIELD_CUSTOM, .read = lcores_read},
    {.key = "memory", .kind = FIELD_SIZE, .offset = AT(dataplane.memory_bytes), .fallback = "512M", .min = "64M", .max = "1T"},
    {.key = "arena", .kind = FIELD_SIZE, .offset = AT(dataplane.arena_bytes), .fallback = "128M", .min = "16M", .max = "1T"},
    {.key = "hugepages", .kind = FIELD_CUSTOM, .read = hugepages_read},
    {.key = "idle", .kind = FIELD_CUSTOM, .read = idle_read},
    {.key = "congestion", .kind = FIELD_CHOICE, .offset = AT(dataplane.congestion), .fallback = "cubic", .choices = congestions},
    {.key = "max_sessions", .kind = FIELD_COUNT, .offset = AT(dataplane.max_sessions), .fallback = "10000", .min = "1", .max = "1000000"},
    {.key = "ports", .kind = FIELD_CUSTOM, .read = ports_read},
    {.key = "tcp_ports", .kind = FIELD_CUSTOM, .read = tcp_ports_read},
    {.key = "drain_timeout", .kind = FIELD_DURATION, .offset = AT(dataplane.drain_timeout_ms), .fallback = "30s", .min = "0", .max = "1h"},
    {.key = "eal_args", .kind = FIELD_CUSTOM, .read = eal_args_read},
    {0},
};

static const struct field journal_fields[] = {
    {.key = "path", .kind = FIELD_PATH, .offset = AT(journal.path)},
    {.key = "slots", .kind = FIELD_COUNT, .offset = AT(journal.slots), .fallback = "16384", .min = "64", .max = "4194304"},
    {.key = "paths", .kind = FIELD_COUNT, .offset = AT(journal.paths), .fallback = "2048", .min = "16", .max = "65536"},
    {0},
};

static const struct field dns_fields[] = {
    {.key = "servers", .kind = FIELD_CUSTOM, .read = dns_servers_read},
    {.key = "trust_anchor_file", .kind = FIELD_PATH, .offset = AT(dns.trust_anchor_file), .fallback = "/usr/share/dns/root.key"},
    {.key = "timeout", .kind = FIELD_DURATION32, .offset = AT(dns.timeout_ms), .fallback = "5s", .min = "100ms", .max = "60s"},
    {.key = "prohibited_hosts", .kind = FIELD_CUSTOM, .read = prohibited_hosts_read},
    {0},
};

static const struct field dkim_fields[] = {
    {.key = "keys", .kind = FIELD_CUSTOM, .read = dkim_keys_read},
    {.key = "platform", .kind = FIELD_CUSTOM, .read = dkim_platform_read},
    {.key = "required", .kind = FIELD_BOOL, .offset = AT(dkim_required), .fallback = "false"},
    {.key = "oversign", .kind = FIELD_CUSTOM, .read = dkim_oversign_read},
    {.key = "sign", .kind = FIELD_CUSTOM, .read = dkim_sign_read},
    {.key = "expire", .kind = FIELD_SECONDS32, .offset = AT(dkim_expire_s), .fallback = "0", .max = "365d"},
    {0},
};

static const char *const log_levels[] = {"error", "warning", "info", "debug", NULL};
static const struct field log_fields[] = {
    {.key = "delivery", .kind = FIELD_PATH, .offset = AT(logs.delivery_path), .fallback = "/var/log/bypost/delivery.log"},
    {.key = "rotate_size", .kind = FIELD_SIZE, .offset = AT(logs.rotate_bytes), .fallback = "256M", .max = "1T"},
    {.key = "rotate_keep", .kind = FIELD_COUNT, .offset = AT(logs.rotate_keep), .fallback = "8", .min = "1", .max = "1000"},
    {.key = "level", .kind = FIELD_WORD, .offset = AT(logs.level), .fallback = "info", .choices = log_levels},
    {0},
};

static const struct field event_fields[] = {
    {.key = "max_size", .kind = FIELD_SIZE, .offset = AT(events.max_bytes), .fallback = "512M", .min = "64K", .max = "1T"},
    {.key = "types", .kind = FIELD_CUSTOM, .read = event_types_read},
    {0},
};

static const struct field queue_fields[] = {
    {.key = "max_depth", .kind = FIELD_COUNT, .offset = AT(queue.max_depth), .fallback = "100_000_000"},
    {.key = "max_memory_percent", .kind = FIELD_COUNT, .offset = AT(queue.max_memory_percent), .fallback = "90", .min = "1", .max = "100"},
    {0},
};

static const char *const precedences[] = {"none", "bulk", "list", NULL};
static const struct field bulk_fields[] = {
    {.key = "unsubscribe_url", .kind = FIELD_TEXT, .offset = AT(bulk.unsubscribe_url)},
    {.key = "unsubscribe_mailto", .kind = FIELD_TEXT, .offset = AT(bulk.unsubscribe_mailto)},
    {.key = "list_id", .kind = FIELD_TEXT, .offset = AT(bulk.list_id)},
    {.key = "feedback_id", .kind = FIELD_TEXT, .offset = AT(bulk.feedback_id)},
    {.key = "precedence", .kind = FIELD_CHOICE, .offset = AT(bulk.precedence), .fallback = "bulk", .choices = precedences},
    {0},
};

static const char *const verp_jobs[] = {"bulk", "all", "asked", NULL};
static const struct field verp_fields[] = {
    {.key = "domain", .kind = FIELD_TEXT, .offset = AT(verp.domain)},
    {.key = "prefix", .kind = FIELD_TEXT, .offset = AT(verp.prefix), .fallback = "b"},
    {.key = "jobs", .kind = FIELD_CHOICE, .offset = AT(verp.jobs), .fallback = "bulk", .choices = verp_jobs},
    {.key = "tenants", .kind = FIELD_CUSTOM, .read = verp_tenants_read},
    {0},
};

static const struct field metrics_fields[] = {
    {.key = "listen", .kind = FIELD_TEXT, .offset = AT(metrics.listen), .fallback = "127.0.0.1:9465"},
    {0},
};

static const struct field notices_fields[] = {
    {.key = "from", .kind = FIELD_TEXT, .offset = AT(notices.from)},
    {.key = "delay_after", .kind = FIELD_DURATION, .offset = AT(notices.delay_ms), .fallback = "4h", .min = "1s", .max = "30d"},
    {0},
};

static const struct field tls_fields[] = {{.key = "ca_file", .kind = FIELD_PATH, .offset = AT(tls.ca_file)}, {0}};

static const struct field tls_reports_fields[] = {
    {.key = "enabled", .kind = FIELD_BOOL, .offset = AT(tls_reports.enabled), .fallback = "false"},
    {.key = "from", .kind = FIELD_TEXT, .offset = AT(tls_reports.from)},
    {.key = "organization", .kind = FIELD_TEXT, .offset = AT(tls_reports.organization)},
    {.key = "contact", .kind = FIELD_TEXT, .offset = AT(tls_reports.contact)},
    {0},
};

#define SECTION(name)                                                                                                                      \
    static void name##_section(struct reader *reader, const struct yaml_node *node, void *record) {                                        \
        section_read(reader, node, #name, name##_fields, record, NULL);                                                                    \
    }
SECTION(redis)
SECTION(dataplane)
SECTION(journal)
SECTION(dns)
SECTION(dkim)
SECTION(metrics)
SECTION(bulk)
SECTION(queue)
SECTION(notices)
SECTION(tls)
#undef SECTION

/* Who is given as their sender wants them. */
static void tls_reports_section(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config *config = record;
    section_read(reader, node, "tls_reports", tls_reports_fields, config, NULL);
    if (!reader_given(reader, &config->tls_reports.enabled)) {
        config->tls_reports.enabled = config->tls_reports.from != NULL;
    }
}
/* Switched on alone it says nothing of where bounces go. */
static void verp_section(struct reader *reader, const struct yaml_node *node, void *record) {
    if (node->kind == YAML_SCALAR) {
        reader_error(reader, node,
                     "verp is not switched on alone: it needs the domain that bounces go to; write `verp: {domain: bounces.example.com}`.");
        return;
    }
    section_read(reader, node, "verp", verp_fields, record, NULL);
}
static void logs_section(struct reader *reader, const struct yaml_node *node, void *record) {
    section_read(reader, node, "logs", log_fields, record, NULL);
}
static void events_section(struct reader *reader, const struct yaml_node *node, void *record) {
    section_read(reader, node, "events", event_fields, record, NULL);
}

static const char *const uncertain_choices[] = {"resend", "hold", NULL};
static const struct field config_fields[] = {
    {.key = "sandbox", .kind = FIELD_BOOL, .offset = AT(sandbox), .fallback = "true"},
    {.key = "node", .kind = FIELD_TEXT, .offset = AT(node)},
    {.key = "run_directory", .kind = FIELD_PATH, .offset = AT(run_directory), .fallback = "/run/bypost"},
    {.key = "state_directory", .kind = FIELD_PATH, .offset = AT(state_directory), .fallback = "/var/lib/bypost"},
    {.key = "user", .kind = FIELD_TEXT, .offset = AT(user)},
    {.key = "shaping", .kind = FIELD_PATH, .offset = AT(shaping_path)},
    {.key = "redis", .kind = FIELD_CUSTOM, .read = redis_section},
    {.key = "dataplane", .kind = FIELD_CUSTOM, .read = dataplane_section},
    {.key = "journal", .kind = FIELD_CUSTOM, .read = journal_section},
    {.key = "dns", .kind = FIELD_CUSTOM, .read = dns_section},
    {.key = "pools", .kind = FIELD_CUSTOM, .read = pools_read},
    {.key = "default_pool", .kind = FIELD_TEXT, .offset = AT(default_pool)},
    {.key = "dkim", .kind = FIELD_CUSTOM, .read = dkim_section},
    {.key = "signing_threads", .kind = FIELD_COUNT, .offset = AT(signing_threads), .fallback = "0", .max = "256"},
    {.key = "relays", .kind = FIELD_CUSTOM, .read = relays_read},
    {.key = "queue", .kind = FIELD_CUSTOM, .read = queue_section},
    {.key = "queues", .kind = FIELD_CUSTOM, .read = queues_read},
    {.key = "on_uncertain", .kind = FIELD_CHOICE, .offset = AT(on_uncertain), .fallback = "resend", .choices = uncertain_choices},
    {.key = "on_block", .kind = FIELD_CUSTOM, .read = on_block_read},
    {.key = "max_message_size", .kind = FIELD_SIZE32, .offset = AT(max_message_bytes), .fallback = "25M", .min = "1K", .max = "1G"},
    {.key = "max_recipients_per_job",
     .kind = FIELD_COUNT,
     .offset = AT(max_recipients_per_job),
     .fallback = "500",
     .min = "1",
     .max = "500"},
    {.key = "identity_key", .kind = FIELD_PATH, .offset = AT(identity_key_file)},
    {.key = "former_identity_keys", .kind = FIELD_CUSTOM, .read = former_identity_keys_read},
    {.key = "bulk", .kind = FIELD_CUSTOM, .read = bulk_section},
    {.key = "verp", .kind = FIELD_CUSTOM, .read = verp_section},
    {.key = "class_rules", .kind = FIELD_PATH, .offset = AT(class_rules_path)},
    {.key = "logs", .kind = FIELD_CUSTOM, .read = logs_section},
    {.key = "events", .kind = FIELD_CUSTOM, .read = events_section},
    {.key = "metrics", .kind = FIELD_CUSTOM, .read = metrics_section},
    {.key = "notices", .kind = FIELD_CUSTOM, .read = notices_section},
    {.key = "tls", .kind = FIELD_CUSTOM, .read = tls_section},
    {.key = "tls_reports", .kind = FIELD_CUSTOM, .read = tls_reports_section},
    {0},
};
static const struct field *const config_tables[] = {config_fields,  redis_fields, dataplane_fields,   journal_fields, queue_fields,
                                                    dns_fields,     dkim_fields,  log_fields,         event_fields,   metrics_fields,
                                                    notices_fields, tls_fields,   tls_reports_fields, bulk_fields,    verp_fields};
enum { CONFIG_TABLES = sizeof config_tables / sizeof *config_tables };

static_assert(JOB_RECIPIENTS_MAX == 500, "the range of max_recipients_per_job");

void sections_defaults(struct config *config) {
    char name[256] = "";
    for (unsigned i = 0; i < CONFIG_TABLES; i++) {
        section_defaults(config_tables[i], config);
    }
    lists_defaults(config);
    if (gethostname(name, sizeof name - 1) == 0 && *name) {
        config->node = strdup(name);
    }
}

void sections_read(struct reader *reader, const struct yaml_node *root, struct config *config) {
    section_read(reader, root, "this file", config_fields, config, NULL);
}

static bool lcore_used(const struct config *config, uint32_t lcore) {
    for (uint32_t i = 0; i < config->dataplane.lcore_count; i++) {
        if (config->dataplane.lcores[i] == lcore) {
            return true;
        }
    }
    return false;
}

void sections_complete(struct config *config) {
    if (!config->journal.path && config->run_directory && asprintf(&config->journal.path, "%s/journal", config->run_directory) < 0) {
        abort();
    }
    long cpus = sysconf(_SC_NPROCESSORS_CONF);
    if (config->dataplane.lcore_count == 0) {
        config->dataplane.lcores[config->dataplane.lcore_count++] = cpus > 1; /* core 0 has the interrupts */
    }
    for (uint32_t lcore = 0; lcore < (uint32_t)cpus; lcore++) {
        if (!lcore_used(config, lcore)) {
            config->dataplane.main_lcore = lcore;
            break;
        }
    }
    if (!config->default_pool && (config->pool_count == 1 || config_pool_named(config, "default"))) {
        const char *name = config->pool_count == 1 ? config->pools[0].name : "default";
        config->default_pool = name ? strdup(name) : NULL;
    }
}

void sections_free(struct config *config) {
    texts_free(config->former_identity_keys);
    verp_tenants_free(config);
    for (unsigned i = 0; i < CONFIG_TABLES; i++) {
        section_free(config_tables[i], config);
    }
    for (uint32_t i = 0; i < config->dataplane.port_count; i++) {
        section_free(port_fields, &config->dataplane.ports[i]);
    }
    lists_free(config);
}
