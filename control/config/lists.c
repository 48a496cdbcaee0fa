/* lists.c: ports' addresses, lcores, pools, keys, relays, queues: reading and freeing. What they mean together is checked in check.c. */
#include "lists.h"
#include "address.h"
#include "control/outcome.h"
#include "dkim.h"
#include "relays.h"

#include <ctype.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* The text of a scalar, or an error and NULL. */
static const char *item_text(struct reader *reader, const struct yaml_node *node, const char *name, const char *example) {
    return reader_wants(reader, node, YAML_SCALAR, name, example) ? node->text : NULL;
}

/* One value stands for a list of one. */
static uint32_t one_or_list(const struct yaml_node *node, const struct yaml_node **items) {
    *items = node->kind == YAML_SEQUENCE ? node->items : node;
    return node->kind == YAML_SEQUENCE ? node->count : 1;
}

char **texts_read(struct reader *reader, const struct yaml_node *node, const char *name, const char *example) {
    const struct yaml_node *items;
    uint32_t count = one_or_list(node, &items), filled = 0;
    char **texts = calloc(count + 1, sizeof *texts);
    for (uint32_t i = 0; i < count; i++) {
        const char *text = item_text(reader, &items[i], name, example);
        if (text) {
            texts[filled] = strdup(text);
            reader_note(reader, texts[filled++], &items[i]);
        }
    }
    return texts;
}

void texts_free(char **texts) {
    for (char **at = texts; at && *at; at++) {
        free(*at);
    }
    free(texts);
}

void port_addresses_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config_port *port = record;
    const struct yaml_node *items;
    uint32_t count = one_or_list(node, &items);
    reader_note(reader, &port->addresses, node);
    port->addresses = calloc(count + 1, sizeof *port->addresses);
    for (uint32_t i = 0; i < count; i++) {
        struct config_address *address = &port->addresses[port->address_count];
        const char *text = item_text(reader, &items[i], "addresses", "`192.0.2.10/24`");
        if (!text) {
            continue;
        }
        if (!address_parse_prefix(text, address)) {
            reader_error(reader, &items[i], "`%s` is no address; write it with its prefix, such as `192.0.2.10/24` or `2001:db8::10/64`.",
                         text);
        } else if (!strchr(text, '/')) {
            reader_error(reader, &items[i], "`%s` has no prefix length; write it as in `%s/%s`, so that its network is known.", text, text,
                         address->family == 4 ? "24" : "64");
        } else if (!address_usable(address)) {
            reader_error(reader, &items[i],
                         "`%s` is a loopback, multicast or unspecified address; write a unicast address of this port's network.", text);
        } else {
            reader_note(reader, address, &items[i]);
            port->address_count++;
        }
    }
}

void port_gateway_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config_port *port = record;
    const struct yaml_node *items;
    uint32_t count = one_or_list(node, &items);
    reader_note(reader, &port->gateway, node);
    for (uint32_t i = 0; i < count; i++) {
        struct config_address address;
        const char *text = item_text(reader, &items[i], "gateway", "`192.0.2.1`");
        if (!text) {
            continue;
        }
        if (!address_parse(text, &address)) {
            reader_error(reader, &items[i],
                         "`%s` is no address for `gateway`; write the router's address without a prefix, such as "
                         "`192.0.2.1`, and one of each family at most.",
                         text);
            continue;
        }
        struct config_address *gateway = address.family == 6 ? &port->gateway6 : &port->gateway;
        if (gateway->family) {
            reader_error(reader, &items[i], "`%s` is a second gateway of its family; a port uses one for IPv4 and one for IPv6.", text);
        }
        *gateway = address;
        reader_note(reader, gateway, &items[i]);
    }
}

void lcores_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config *config = record;
    const struct yaml_node *items;
    uint32_t count = one_or_list(node, &items), room = sizeof config->dataplane.lcores / sizeof *config->dataplane.lcores;
    reader_note(reader, &config->dataplane.lcores, node);
    for (uint32_t i = 0; i < count; i++) {
        const char *text = item_text(reader, &items[i], "lcores", "`[1, 2]`");
        for (const char *at = text; at && *at;) {
            char *end;
            unsigned long first = strtoul(at, &end, 10), last = first;
            bool good = isdigit((unsigned char)*at) && end != at;
            if (good && *end == '-') {
                at = end + 1;
                good = isdigit((unsigned char)*at);
                last = strtoul(at, &end, 10);
            }
            if (!good || first > last || last >= 4096 || (*end && *end != ',')) {
                reader_error(reader, &items[i], "`%s` names no lcores; write `[1, 2]`, `1,2` or `1-4`.", text);
                break;
            }
            for (unsigned long lcore = first; lcore <= last; lcore++) {
                if (config->dataplane.lcore_count == room) {
                    reader_error(reader, &items[i], "more than %u lcores; remove some.", room);
                    return;
                }
                uint32_t *place = &config->dataplane.lcores[config->dataplane.lcore_count++];
                *place = (uint32_t)lcore;
                if (place != config->dataplane.lcores) { /* the first has the list's own place */
                    reader_note(reader, place, &items[i]);
                }
            }
            at = *end ? end + 1 : end;
        }
    }
}

void hugepages_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config *config = record;
    const char *text = item_text(reader, node, "hugepages", "`auto`, `on` or `off`");
    reader_note(reader, &config->dataplane.hugepages, node);
    if (!text) {
        return;
    }
    bool on = strcasecmp(text, "on") == 0 || strcasecmp(text, "true") == 0, automatic = strcasecmp(text, "auto") == 0;
    if (!on && !automatic && strcasecmp(text, "off") != 0 && strcasecmp(text, "false") != 0) {
        reader_error(reader, node, "`%s` is no value for `hugepages`; write `auto`, `on` or `off`.", text);
        return;
    }
    config->dataplane.hugepages = on;
    config->dataplane.hugepages_auto = automatic;
}

void idle_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config *config = record;
    const char *text = item_text(reader, node, "idle", "`auto`, `adaptive` or `poll`");
    if (!text) {
        return;
    }
    if (strcasecmp(text, "auto") != 0 && strcasecmp(text, "adaptive") != 0 && strcasecmp(text, "poll") != 0) {
        reader_error(reader, node, "`%s` is no value for `idle`; write `auto`, `adaptive` or `poll`.", text);
        return;
    }
    config->dataplane.idle_set = strcasecmp(text, "auto") != 0;
    config->dataplane.idle = strcasecmp(text, "poll") == 0 ? IDLE_POLL : IDLE_ADAPTIVE;
}

void tcp_ports_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config *config = record;
    unsigned first, last;
    int end = 0;
    const char *text = item_text(reader, node, "tcp_ports", "`10000-65535`");
    reader_note(reader, &config->dataplane.port_first, node);
    if (!text) {
        return;
    }
    if (sscanf(text, "%5u-%5u%n", &first, &last, &end) != 2 || text[end]) {
        reader_error(reader, node, "`%s` is no range of ports; write the first and the last, such as `10000-65535`.", text);
    } else if (first < 1024 || last > 65535 || first > last) {
        reader_error(reader, node, "`%s` is no range within 1024 to 65535; write the lower port first, such as `10000-65535`.", text);
    } else {
        config->dataplane.port_first = (uint16_t)first;
        config->dataplane.port_last = (uint16_t)last;
    }
}

void eal_args_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config *config = record;
    config->dataplane.eal_args = texts_read(reader, node, "eal_args", "`[--log-level=7]`");
}

void dns_servers_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config *config = record;
    const struct yaml_node *items;
    uint32_t count = one_or_list(node, &items);
    config->dns.servers = calloc(count + 1, sizeof *config->dns.servers);
    for (uint32_t i = 0; i < count; i++) {
        const char *text = item_text(reader, &items[i], "servers", "`[127.0.0.1]`");
        if (text && !address_parse_port(text, 53, &config->dns.servers[config->dns.server_count])) {
            reader_error(reader, &items[i],
                         "`%s` is no address of a DNS server; write `192.0.2.53`, `192.0.2.53:5353` or `[2001:db8::53]:53`.", text);
        } else if (text) {
            config->dns.server_count++;
        }
    }
}

void former_identity_keys_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config *config = record;
    config->former_identity_keys = texts_read(reader, node, "former_identity_keys", "`[identity.2025.key]`");
    for (char **at = config->former_identity_keys; *at; at++) {
        const struct yaml_node *place = reader_place(reader, *at);
        char *path = reader_path(reader, *at);
        free(*at);
        *at = path;
        reader_note(reader, path, place);
    }
}

void prohibited_hosts_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config *config = record;
    struct config_address network;
    config->dns.prohibited_hosts = texts_read(reader, node, "prohibited_hosts", "`[10.0.0.0/8]`");
    for (char **at = config->dns.prohibited_hosts; *at; at++) {
        if (!address_parse_prefix(*at, &network)) {
            reader_error(reader, reader_place(reader, *at),
                         "`%s` is no network; write an address and a prefix length, such as `10.0.0.0/8`.", *at);
        }
    }
}

static const char *const event_names[EVENT_TYPES + 1] = {
    [EVENT_ACCEPTED] = "accepted", [EVENT_DELIVERED] = "delivered",   [EVENT_DEFERRED] = "deferred",   [EVENT_BOUNCED] = "bounced",
    [EVENT_EXPIRED] = "expired",   [EVENT_SUPPRESSED] = "suppressed", [EVENT_CANCELLED] = "cancelled", [EVENT_DEAD] = "dead",
};

void event_types_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config *config = record;
    const struct yaml_node *items;
    uint32_t count = one_or_list(node, &items);
    config->events.type_mask = 0;
    for (uint32_t i = 0; i < count; i++) {
        const char *text = item_text(reader, &items[i], "types", "`[delivered, bounced]`");
        unsigned type = 0;
        while (text && event_names[type] && strcasecmp(text, event_names[type]) != 0) {
            type++;
        }
        if (text && strcasecmp(text, "all") == 0) {
            config->events.type_mask |= (1u << EVENT_TYPES) - 1;
        } else if (text && event_names[type]) {
            config->events.type_mask |= 1u << type;
        } else if (text) {
            const char *nearest = nearest_word(text, event_names, sizeof *event_names);
            reader_error(reader, &items[i], "`%s` is no type of event; %s%s%s", text,
                         nearest ? "did you mean `"
                                 : "write `all`, or some of accepted, delivered, deferred, bounced, expired, suppressed, cancelled, dead",
                         nearest ? nearest : "", nearest ? "`?" : ".");
        }
    }
}

static void source_address_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config_source *source = record;
    const char *text = item_text(reader, node, "address", "`192.0.2.10`");
    reader_note(reader, source, node);
    if (text && !address_parse(text, &source->address)) {
        reader_error(reader, node,
                     "`%s` is no address of a source; write one of a port's addresses without its prefix, such as `192.0.2.10`.", text);
    }
}

static void source_public_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config_source *source = record;
    const char *text = item_text(reader, node, "public_address", "`203.0.113.10`");
    reader_note(reader, &source->public_address, node);
    if (text && !address_parse(text, &source->public_address)) {
        reader_error(reader, node, "`%s` is no address; write what receivers see behind the NAT, such as `203.0.113.10`.", text);
    }
}

static const struct field source_fields[] = {
    {.key = "address", .kind = FIELD_CUSTOM, .read = source_address_read},
    {.key = "public_address", .kind = FIELD_CUSTOM, .read = source_public_read},
    {.key = "ehlo", .kind = FIELD_TEXT, .offset = offsetof(struct config_source, ehlo)},
    {0},
};

static void pool_read(struct reader *reader, const struct yaml_node *node, struct config_pool *pool) {
    if (!reader_wants(reader, node, YAML_SEQUENCE, pool->name, "`- {address: 192.0.2.10, ehlo: mta1.example.com}`")) {
        return;
    }
    pool->sources = calloc(node->count, sizeof *pool->sources);
    for (uint32_t i = 0; i < node->count; i++) {
        struct config_source *source = &pool->sources[pool->source_count++];
        const struct yaml_node *item = &node->items[i];
        reader_note(reader, source, item);
        section_read(reader, item, "a source", source_fields, source, NULL);
        for (const struct field *field = source_fields; item->kind == YAML_MAPPING && field->key; field++) {
            if (strcmp(field->key, "public_address") != 0 && !yaml_get(item, field->key)) {
                reader_error(reader, item, "this source has no `%s`; add it, as in `{address: 192.0.2.10, ehlo: mta1.example.com}`.",
                             field->key);
            }
        }
    }
}

void pools_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config *config = record;
    reader_note(reader, &config->pools, node);
    if (!reader_wants(reader, node, YAML_MAPPING, "pools", "`main: [{address: 192.0.2.10, ehlo: mta1.example.com}]`")) {
        return;
    }
    config->pools = calloc(node->count, sizeof *config->pools);
    for (uint32_t i = 0; i < node->count; i++) {
        struct config_pool *pool = &config->pools[config->pool_count];
        const struct yaml_node *key = &node->keys[i];
        pool->name = strdup(key->text);
        config->pool_count++;
        reader_note(reader, pool, key);
        if (strlen(pool->name) > 63 ||
            pool->name[strspn(pool->name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")]) {
            reader_error(reader, key, "`%s` is no name for a pool; write letters, digits, `.`, `_` and `-`, at most 63.", pool->name);
        }
        for (uint32_t j = 0; j < i; j++) {
            if (strcmp(config->pools[j].name, pool->name) == 0) {
                reader_error(reader, key, "the pool `%s` stands twice in pools (first at line %u); join or rename one.", pool->name,
                             node->keys[j].line);
            }
        }
        pool_read(reader, &node->items[i], pool);
    }
}

/* QUEUE.md, "Retry defaults"; campaigns ("*") are bulk. */
static const struct config_queue queue_defaults[] = {
    {"high", {60 * 1000, 30 * 60 * 1000, 24 * 3600 * 1000}},
    {"normal", {5 * 60 * 1000, 2 * 3600 * 1000, 48 * 3600 * 1000}},
    {"bulk", {15 * 60 * 1000, 4 * 3600 * 1000, 72 * 3600 * 1000}},
    {"*", {15 * 60 * 1000, 4 * 3600 * 1000, 72 * 3600 * 1000}},
};
enum { QUEUE_DEFAULTS = sizeof queue_defaults / sizeof *queue_defaults };

static void retry_read(struct reader *reader, const struct yaml_node *node, void *record) {
    static const struct field fields[] = {
        {.key = "first", .kind = FIELD_DURATION, .offset = offsetof(struct config_retry, first_ms), .min = "100ms", .max = "24h"},
        {.key = "max", .kind = FIELD_DURATION, .offset = offsetof(struct config_retry, max_ms), .min = "100ms", .max = "7d"},
        {.key = "give_up", .kind = FIELD_DURATION, .offset = offsetof(struct config_retry, give_up_ms), .min = "100ms", .max = "30d"},
        {0},
    };
    struct config_retry *retry = &((struct config_queue *)record)->retry;
    section_read(reader, node, "retry", fields, retry, NULL);
    if (retry->max_ms < retry->first_ms) {
        reader_error(reader, node,
                     "`max` is shorter than `first`; write a `max` of at least `first` (unnamed ones keep the queue's default).");
    }
    if (retry->give_up_ms < retry->first_ms) {
        reader_error(reader, node, "`give_up` is shorter than `first`, so nothing would be tried twice; write a longer `give_up`.");
    }
}

void lists_defaults(struct config *config) {
    config->dataplane.hugepages_auto = true;
    config->dataplane.port_first = 10000;
    config->dataplane.port_last = 65535;
    config->suppress_on_block_defer = true;
    config->events.type_mask = ((1u << EVENT_TYPES) - 1) & ~(1u << EVENT_ACCEPTED);
    config->queues = calloc(QUEUE_DEFAULTS, sizeof *config->queues);
    for (unsigned i = 0; i < QUEUE_DEFAULTS; i++) {
        config->queues[i] = queue_defaults[i];
        config->queues[i].name = strdup(queue_defaults[i].name);
    }
    config->queue_count = QUEUE_DEFAULTS;
}

static struct config_queue *queue_named(struct config *config, const char *name) {
    for (uint32_t i = 0; i < config->queue_count; i++) {
        if (strcmp(config->queues[i].name, name) == 0) {
            return &config->queues[i];
        }
    }
    return NULL;
}

/* A pattern of the operator's ("*") also holds for the standard queues that the file does not name itself. */
static void queues_pattern(struct config *config, const struct yaml_node *node) {
    for (unsigned i = 0; i < QUEUE_DEFAULTS - 1; i++) {
        struct config_queue *standard = queue_named(config, queue_defaults[i].name);
        for (uint32_t k = 0; k < node->count && !yaml_get(node, standard->name); k++) {
            const struct config_queue *pattern =
                fnmatch(node->keys[k].text, standard->name, 0) == 0 ? queue_named(config, node->keys[k].text) : NULL;
            if (pattern) {
                standard->retry = pattern->retry;
                break;
            }
        }
    }
}

void queues_read(struct reader *reader, const struct yaml_node *node, void *record) {
    static const struct field fields[] = {{.key = "retry", .kind = FIELD_CUSTOM, .read = retry_read}, {0}};
    struct config *config = record;
    if (!reader_wants(reader, node, YAML_MAPPING, "queues", "`normal: {retry: {first: 5m, max: 2h, give_up: 48h}}`")) {
        return;
    }
    for (uint32_t i = 0; i < node->count; i++) {
        const struct yaml_node *key = &node->keys[i];
        if (strlen(key->text) > QUEUE_NAME_MAX || !*key->text) {
            reader_error(reader, key, "`%s` is no name for a queue; write at most %d characters.", key->text, QUEUE_NAME_MAX);
            continue;
        }
        for (uint32_t j = 0; j < i; j++) {
            if (strcmp(node->keys[j].text, key->text) == 0) {
                reader_error(reader, key, "the key `%s` stands twice in queues (first at line %u); remove one of them.", key->text,
                             node->keys[j].line);
            }
        }
        struct config_queue *queue = queue_named(config, key->text);
        if (!queue) {
            /* Before the last, which is "*" and matches every name. */
            config->queues = reallocarray(config->queues, config->queue_count + 1, sizeof *config->queues);
            queue = &config->queues[config->queue_count - 1];
            config->queues[config->queue_count++] = *queue;
            *queue = (struct config_queue){.name = strdup(key->text), .retry = queue->retry};
        }
        section_read(reader, &node->items[i], key->text, fields, queue, NULL);
    }
    queues_pattern(config, node);
}

void on_block_read(struct reader *reader, const struct yaml_node *node, void *record) {
    struct config *config = record;
    const char *text = item_text(reader, node, "on_block", "`defer` or `bounce`");
    if (text && strcasecmp(text, "defer") != 0 && strcasecmp(text, "bounce") != 0) {
        reader_error(reader, node, "`%s` is no value for `on_block`; write `defer` or `bounce`.", text);
    } else if (text) {
        config->suppress_on_block_defer = strcasecmp(text, "defer") == 0;
    }
}

void lists_free(struct config *config) {
    for (uint32_t i = 0; i < config->dataplane.port_count; i++) {
        free(config->dataplane.ports[i].addresses);
    }
    free(config->dataplane.ports);
    texts_free(config->dataplane.eal_args);
    free(config->dns.servers);
    texts_free(config->dns.prohibited_hosts);
    for (uint32_t i = 0; i < config->pool_count; i++) {
        for (uint32_t s = 0; s < config->pools[i].source_count; s++) {
            section_free(source_fields, &config->pools[i].sources[s]);
        }
        free(config->pools[i].sources);
        free(config->pools[i].name);
    }
    free(config->pools);
    config_dkim_free(config);
    relays_free(config);
    for (uint32_t i = 0; i < config->queue_count; i++) {
        free(config->queues[i].name);
    }
    free(config->queues);
}
