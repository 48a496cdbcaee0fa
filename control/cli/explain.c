/* explain.c: `bypost explain`: how mail for a domain goes, every limit that holds for it, and where each comes from. */
#include "control/clock.h"
#include "control/config/address.h"
#include "control/config/yaml.h"
#include "control/route/domain.h"
#include "control/route/route.h"
#include "control/tls_level.h"
#include "operator.h"

#include <event2/event.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static const char help[] =
    "Usage: bypost explain DOMAIN [--pool NAME] [--sender DOMAIN] [--json]\n\n"
    "Shows how mail for a domain goes: its route, site and provider, servers and the TLS that each must have, the domain's\n"
    "DANE and MTA-STS, a relay's login, sources, every limit in force with the file and line that it comes from, what rests\n"
    "and why, what is held, whether the sandbox refuses it.\n\n"
    "      --pool NAME           sources other than the default pool's\n"
    "      --sender DOMAIN       whose mail: holds by sender, and its DKIM key\n"
    "      --json                one JSON object\n"
    "  -c, --config FILE         the configuration (/etc/bypost/bypost.yaml)\n"
    "      --redis ADDRESS       HOST:PORT or unix:PATH instead of the configuration's\n"
    "      --help, --version\n\n"
    "A running control is asked for the route, with what it knows of rests; without one the servers are looked up here.\n\n"
    "Exit status: 0 shown, 1 there is no route (the reply that recipients would get is shown), 64 usage, 78 the\n"
    "configuration has errors.\n";

static const char name[] = "explain";

enum { CONTROL_TIMEOUT_MS = 2000, ROUTE_WAIT_S = 15, ASK_AGAIN_MS = 100, PLACE_BYTES = 512 };

enum limit_kind { LIMIT_COUNT, LIMIT_RATE, LIMIT_MS, LIMIT_PORT, LIMIT_SECONDS, LIMIT_BOOL, LIMIT_TLS, LIMIT_VERSION, LIMIT_BATCH };
#define AT(field) offsetof(struct shaping_limits, field)
static const struct limit {
    const char *key;
    enum limit_kind kind;
    size_t offset;
} limits[] = {
    {"connection_limit", LIMIT_COUNT, AT(connection_limit)},
    {"max_connection_rate", LIMIT_RATE, AT(max_connection_rate)},
    {"max_message_rate", LIMIT_RATE, AT(max_message_rate)},
    {"max_deliveries_per_connection", LIMIT_COUNT, AT(max_deliveries_per_connection)},
    {"provider_connection_limit", LIMIT_COUNT, AT(provider_connection_limit)},
    {"provider_max_connection_rate", LIMIT_RATE, AT(provider_max_connection_rate)},
    {"provider_max_message_rate", LIMIT_RATE, AT(provider_max_message_rate)},
    {"pipelined_transactions", LIMIT_COUNT, AT(pipelined_transactions)},
    {"connect_timeout", LIMIT_MS, AT(connect_timeout_ms)},
    {"banner_timeout", LIMIT_MS, AT(banner_timeout_ms)},
    {"ehlo_timeout", LIMIT_MS, AT(ehlo_timeout_ms)},
    {"mail_from_timeout", LIMIT_MS, AT(mail_from_timeout_ms)},
    {"rcpt_to_timeout", LIMIT_MS, AT(rcpt_to_timeout_ms)},
    {"data_timeout", LIMIT_MS, AT(data_timeout_ms)},
    {"data_block_timeout", LIMIT_MS, AT(data_block_timeout_ms)},
    {"data_dot_timeout", LIMIT_MS, AT(data_dot_timeout_ms)},
    {"rset_timeout", LIMIT_MS, AT(rset_timeout_ms)},
    {"quit_timeout", LIMIT_MS, AT(quit_timeout_ms)},
    {"idle_timeout", LIMIT_MS, AT(idle_timeout_ms)},
    {"smtp_port", LIMIT_PORT, AT(port)},
    {"tls", LIMIT_TLS, AT(tls)},
    {"tls_min_version", LIMIT_VERSION, AT(tls_version_min)},
    {"enable_mta_sts", LIMIT_BOOL, AT(enable_mta_sts)},
    {"enable_dane", LIMIT_BOOL, AT(enable_dane)},
    {"remember_broken_tls", LIMIT_SECONDS, AT(remember_broken_tls_s)},
    {"use_chunking", LIMIT_BOOL, AT(use_chunking)},
    {"max_recipients_per_batch", LIMIT_COUNT, AT(max_recipients_per_batch)},
    {"batch_by", LIMIT_BATCH, AT(batch_by_site)},
};
#undef AT

struct explain {
    const char *domain, *pool, *sender, *redis;
    char ascii[DOMAIN_BYTES];
    struct config *config;
    struct yaml_node main, shaping; /* for places; empty where there is no file */
    json_t *root;
};

/* --- the route --- */

static json_t *endpoint_json(const struct site *site, uint32_t index) {
    const struct site_endpoint *endpoint = &site->endpoints[index];
    char address[64];
    return json_pack("{s:s, s:s, s:i, s:i, s:s}", "name", endpoint->name, "address", address_text(&endpoint->address, address), "port",
                     (int)endpoint->address.port, "preference", (int)endpoint->preference, "tls",
                     config_tls_text(tls_level_of(site, index)));
}

static void on_route(void *context, const struct route_result *result) {
    struct explain *explain = context;
    json_t *route;
    if (result->status == ROUTE_FOUND) {
        json_t *endpoints = json_array();
        for (uint32_t i = 0; i < result->site->endpoint_count; i++) {
            json_array_append_new(endpoints, endpoint_json(result->site, i));
        }
        route = json_pack("{s:s, s:s, s:s*, s:s*, s:s*, s:b, s:o}", "status", "found", "site", result->site->name, "provider",
                          result->site->provider ? result->site->provider->name : NULL, "mta_sts",
                          *result->site->mta_sts ? result->site->mta_sts : NULL, "dane", *result->site->dane ? result->site->dane : NULL,
                          "tls_testing", (int)result->site->tls_testing, "endpoints", endpoints);
    } else {
        route = json_pack("{s:s, s:i, s:s}", "status", result->status == ROUTE_TEMPORARY ? "temporary" : "permanent", "code",
                          (int)result->code, "text", result->text);
    }
    json_object_set_new(explain->root, "route", route);
}

/* As control would, in this process. */
static int route_here(struct explain *explain) {
    char error[512] = "out of memory";
    struct event_base *base = event_base_new();
    struct route *route = base ? route_create(base, explain->config, error, sizeof error) : NULL;
    if (!route) {
        if (base) {
            event_base_free(base);
        }
        return cli_complain(CLI_FAILED, name, "the servers cannot be looked up: %s", error);
    }
    route_find(route, explain->ascii, on_route, explain);
    for (uint64_t end = clock_ms(CLOCK_MONOTONIC) + ROUTE_WAIT_S * 1000;
         !json_object_get(explain->root, "route") && clock_ms(CLOCK_MONOTONIC) < end;) {
        struct timeval wait = {.tv_usec = ASK_AGAIN_MS * 1000};
        event_base_loopexit(base, &wait);
        event_base_dispatch(base);
    }
    route_destroy(route); /* who still waits is told */
    event_base_free(base);
    json_object_set_new(explain->root, "asked", json_string("looked up here: control does not answer"));
    return CLI_OK;
}

/* False when control does not answer. */
static bool route_control(struct explain *explain) {
    char *request = NULL, error[CLI_ERROR_BYTES];
    json_t *route = NULL;
    if (asprintf(&request, "explain %s", explain->ascii) < 0) {
        abort();
    }
    for (int tries = 0; tries < ROUTE_WAIT_S * 1000 / ASK_AGAIN_MS; tries++) {
        json_decref(route);
        route = cli_control(explain->config->run_directory, request, CONTROL_TIMEOUT_MS, error);
        const char *status = json_string_value(json_object_get(route, "status"));
        if (!status || strcmp(status, "pending") != 0) {
            break;
        }
        nanosleep(&(struct timespec){.tv_nsec = ASK_AGAIN_MS * 1000000}, NULL);
    }
    free(request);
    if (!json_object_get(route, "status")) {
        json_decref(route);
        return false;
    }
    json_object_set_new(explain->root, "route", route);
    json_object_set_new(explain->root, "asked", json_string("asked of control"));
    return true;
}

/* --- where things come from --- */

static void place(const struct yaml_node *node, const char *what, char out[PLACE_BYTES]) {
    snprintf(out, PLACE_BYTES, "%s:%" PRIu32 " (%s)", node->file, node->line, what);
}

static const struct yaml_node *provider_node(const struct explain *explain, const char *provider) {
    const struct yaml_node *list = yaml_get(&explain->shaping, "providers");
    for (uint32_t i = 0; provider && list && i < list->count; i++) {
        const struct yaml_node *key = yaml_get(&list->items[i], "name");
        if (key && key->text && strcmp(key->text, provider) == 0) {
            return &list->items[i];
        }
    }
    return NULL;
}

/* The entry of `domains` for this name. */
static const struct yaml_node *domain_node(const struct explain *explain, const char *domain) {
    const struct yaml_node *all = yaml_get(&explain->shaping, "domains");
    for (uint32_t i = 0; domain && all && all->kind == YAML_MAPPING && i < all->count; i++) {
        char *ascii = all->keys[i].text ? host_to_ascii(all->keys[i].text) : NULL;
        bool same = ascii && strcasecmp(ascii, domain) == 0;
        free(ascii);
        if (same) {
            return &all->items[i];
        }
    }
    return NULL;
}

static bool domain_known(const struct config *config, const char *domain) {
    for (uint32_t i = 0; i < config->domain_count; i++) {
        if (strcasecmp(config->domains[i].domain, domain) == 0) {
            return true;
        }
    }
    return false;
}

/* As route does: the domain's own entry, else that of a server's name; NULL: none. */
static const char *limits_name(const struct explain *explain) {
    const json_t *endpoints = json_object_get(json_object_get(explain->root, "route"), "endpoints");
    json_t *endpoint;
    size_t index;
    if (domain_known(explain->config, explain->ascii)) {
        return explain->ascii;
    }
    json_array_foreach(endpoints, index, endpoint) {
        const char *host = json_string_value(json_object_get(endpoint, "name"));
        if (host && domain_known(explain->config, host)) {
            return host;
        }
    }
    return NULL;
}

static void value_text(const struct limit *limit, const struct shaping_limits *from, char *out, size_t bytes) {
    const char *at = (const char *)from + limit->offset;
    double rate;
    uint32_t number;
    uint16_t port;
    switch (limit->kind) {
    case LIMIT_RATE:
        memcpy(&rate, at, sizeof rate);
        if (rate <= 0) {
            snprintf(out, bytes, "unlimited");
        } else if (rate < 1 || fabs(rate - round(rate)) > 1e-9) {
            snprintf(out, bytes, "%.6g/min", rate * 60);
        } else {
            snprintf(out, bytes, "%.0f/s", rate);
        }
        break;
    case LIMIT_MS:
        memcpy(&number, at, sizeof number);
        snprintf(out, bytes, number % 1000 ? "%" PRIu32 "ms" : "%" PRIu32 "s", number % 1000 ? number : number / 1000);
        break;
    case LIMIT_SECONDS:
        memcpy(&number, at, sizeof number);
        snprintf(out, bytes, "%" PRIu32 "s", number);
        break;
    case LIMIT_BOOL:
        snprintf(out, bytes, "%s", *at ? "true" : "false");
        break;
    case LIMIT_TLS:
        memcpy(&number, at, sizeof number);
        snprintf(out, bytes, "%s", config_tls_text((enum path_tls)number));
        break;
    case LIMIT_VERSION:
        snprintf(out, bytes, "1.%d", *at - 10);
        break;
    case LIMIT_BATCH:
        snprintf(out, bytes, "%s", *at ? "site" : "domain");
        break;
    case LIMIT_PORT:
        memcpy(&port, at, sizeof port);
        snprintf(out, bytes, "%u", port);
        break;
    case LIMIT_COUNT:
        memcpy(&number, at, sizeof number);
        snprintf(out, bytes, number ? "%" PRIu32 : "unlimited", number);
        break;
    }
}

static const struct config_relay *relay_of(const struct explain *explain) {
    const struct config_relay *found = NULL;
    for (uint32_t i = 0; i < explain->config->relay_count; i++) {
        const struct config_relay *relay = &explain->config->relays[i];
        if (strcasecmp(relay->domain, explain->ascii) == 0) {
            return relay;
        }
        if (strcmp(relay->domain, "*") == 0) {
            found = relay;
        }
    }
    return found;
}

/* The place of a limit that was found above. */
static const char *limit_from(const json_t *root, const char *key) {
    json_t *one;
    size_t index;
    json_array_foreach(json_object_get(root, "limits"), index, one) {
        if (strcmp(json_string_value(json_object_get(one, "limit")), key) == 0) {
            return json_string_value(json_object_get(one, "from"));
        }
    }
    return "";
}

/* What the configuration asks for; policies of the receiver (with the route) may ask for more. Of credentials only whose they are. */
static void tls_explain(struct explain *explain, const struct shaping_limits *limits_in_force) {
    const struct config_relay *relay = relay_of(explain);
    bool of_relay = relay && config_relay_has_settings(relay) && (relay->tls_given || relay->auth_user || relay->implicit_tls);
    const char *from =
        of_relay ? json_string_value(json_object_get(json_object_get(explain->root, "relay"), "from")) : limit_from(explain->root, "tls");
    json_object_set_new(explain->root, "tls",
                        json_pack("{s:s, s:b, s:s*}", "level", config_tls_text(config_tls(limits_in_force, relay)), "implicit",
                                  (int)(relay && relay->implicit_tls), "from", from));
    if (!relay || !relay->auth_user) {
        return;
    }
    json_t *mechanisms = json_array();
    for (unsigned i = 0; config_mechanism_text(i); i++) {
        if (relay->auth_mechanisms >> i & 1) {
            json_array_append_new(mechanisms, json_string(config_mechanism_text(i)));
        }
    }
    const char *source = relay->auth_password_file  ? relay->auth_password_file
                         : relay->auth_token_file   ? relay->auth_token_file
                         : relay->auth_password_env ? relay->auth_password_env
                                                    : relay->auth_token_env;
    json_object_set_new(explain->root, "login",
                        json_pack("{s:s, s:o, s:s*, s:b}", "username", relay->auth_user, "mechanisms", mechanisms, "secret_from", source,
                                  "without_tls", (int)relay->auth_without_tls));
}

static void limits_explain(struct explain *explain) {
    const json_t *route = json_object_get(explain->root, "route");
    const char *provider_name = json_string_value(json_object_get(route, "provider")), *own = limits_name(explain);
    const struct shaping_provider *provider = NULL;
    for (uint32_t i = 0; provider_name && i < explain->config->provider_count; i++) {
        if (strcmp(explain->config->providers[i].name, provider_name) == 0) {
            provider = &explain->config->providers[i];
        }
    }
    const struct shaping_limits *in_force = config_limits(explain->config, own, provider);
    char of_domain[300], of_provider[300];
    snprintf(of_domain, sizeof of_domain, "domains, %.250s", own ? own : "");
    snprintf(of_provider, sizeof of_provider, "provider %.250s", provider_name ? provider_name : "");
    const struct {
        const struct yaml_node *node;
        const char *what;
    } sources[] = {{domain_node(explain, own), of_domain},
                   {provider_node(explain, provider_name), of_provider},
                   {yaml_get(&explain->shaping, "default"), "default"}};
    json_t *list = json_array();
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        char value[64], origin[PLACE_BYTES] = "shipped default";
        const struct shaping_limits *from = in_force;
        if (strncmp(limits[i].key, "provider_", 9) == 0 && provider) {
            from = &provider->limits; /* one for all its sites: a domain's entry does not change it */
        }
        for (size_t s = from == in_force ? 0 : 1; s < 3; s++) {
            const struct yaml_node *node =
                sources[s].node && sources[s].node->kind == YAML_MAPPING ? yaml_get(sources[s].node, limits[i].key) : NULL;
            if (node) {
                place(node, sources[s].what, origin);
                break;
            }
        }
        value_text(&limits[i], from, value, sizeof value);
        json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "limit", limits[i].key, "value", value, "from", origin));
    }
    json_object_set_new(explain->root, "limits", list);
    tls_explain(explain, in_force);
    if (sources[1].node) {
        char origin[PLACE_BYTES];
        place(sources[1].node, "providers", origin);
        json_object_set_new(explain->root, "provider_from", json_string(origin));
    }
}

static void relay_explain(struct explain *explain) {
    const struct yaml_node *relays = yaml_get(&explain->main, "relays");
    const struct config_relay *found = relay_of(explain);
    if (!found) {
        return;
    }
    json_t *hosts = json_array();
    char origin[PLACE_BYTES] = "";
    for (uint32_t i = 0; i < found->host_count; i++) {
        json_array_append_new(hosts, json_string(found->hosts[i]));
    }
    for (uint32_t i = 0; relays && relays->kind == YAML_MAPPING && i < relays->count; i++) {
        char *ascii = strcmp(relays->keys[i].text, "*") == 0 ? strdup("*") : host_to_ascii(relays->keys[i].text);
        if (ascii && strcasecmp(ascii, found->domain) == 0) {
            place(&relays->keys[i], "relays", origin);
        }
        free(ascii);
    }
    json_object_set_new(explain->root, "relay", json_pack("{s:s, s:o, s:s}", "for", found->domain, "hosts", hosts, "from", origin));
}

static int pool_explain(struct explain *explain) {
    const char *pool_name = explain->pool ? explain->pool : explain->config->default_pool;
    const struct config_pool *pool = pool_name ? config_pool_named(explain->config, pool_name) : NULL;
    if (!pool) {
        return explain->pool ? cli_complain(CLI_USAGE, name, "there is no pool '%s' in %s.", explain->pool, explain->config->path) : CLI_OK;
    }
    const struct yaml_node *node = yaml_get(&explain->main, "pools");
    char origin[PLACE_BYTES] = "";
    node = node && node->kind == YAML_MAPPING ? yaml_get(node, pool_name) : NULL;
    if (node) {
        place(node, "pools", origin);
    }
    json_t *sources = json_array();
    for (uint32_t i = 0; i < pool->source_count; i++) {
        char address[64];
        json_array_append_new(
            sources, json_pack("{s:s, s:s*}", "address", address_text(&pool->sources[i].address, address), "ehlo", pool->sources[i].ehlo));
    }
    json_object_set_new(explain->root, "pool", json_pack("{s:s, s:o, s:s}", "name", pool_name, "sources", sources, "from", origin));
    return CLI_OK;
}

static void sandbox_explain(struct explain *explain) {
    const struct yaml_node *node = yaml_get(&explain->main, "sandbox");
    char origin[PLACE_BYTES] = "shipped default";
    if (node) {
        place(node, "sandbox", origin);
    }
    bool refused = explain->config->sandbox && !json_object_get(explain->root, "relay") && !domain_is_reserved(explain->ascii);
    json_object_set_new(explain->root, "sandbox",
                        json_pack("{s:b, s:b, s:s}", "on", explain->config->sandbox, "refuses", refused, "from", origin));
    for (uint32_t i = 0; explain->sender && i < explain->config->dkim_count; i++) {
        if (strcasecmp(explain->config->dkim[i].domain, explain->sender) == 0) {
            json_object_set_new(explain->root, "dkim",
                                json_pack("{s:s, s:s}", "domain", explain->sender, "selector", explain->config->dkim[i].selector));
        }
    }
}

/* Does a hold speak of this domain, as far as is asked? */
static bool hold_concerns(const struct explain *explain, const json_t *match) {
    const json_t *route = json_object_get(explain->root, "route");
    const char *site = json_string_value(json_object_get(route, "site")), *provider = json_string_value(json_object_get(route, "provider")),
               *key;
    json_t *value;
    json_object_foreach((json_t *)match, key, value) {
        const char *text = json_string_value(value), *at = text ? strrchr(text, '@') : NULL;
        if (!text || (strcmp(key, "site") == 0 && strcasecmp(text, site ? site : "") != 0) ||
            (strcmp(key, "provider") == 0 && strcasecmp(text, provider ? provider : "") != 0) ||
            (strcmp(key, "domain") == 0 && strcasecmp(text, explain->domain) != 0 && strcasecmp(text, explain->ascii) != 0) ||
            (strcmp(key, "recipient") == 0 && strcasecmp(at ? at + 1 : "", explain->domain) != 0) ||
            (strcmp(key, "sender") == 0 && explain->sender && strcasecmp(at ? at + 1 : text, explain->sender) != 0)) {
            return false;
        }
    }
    return true;
}

static void holds_explain(struct explain *explain) {
    int code;
    redisContext *redis = cli_redis(name, explain->config, &code);
    if (!redis) {
        json_object_set_new(explain->root, "holds", json_null());
        return;
    }
    char *key = cli_key(explain->config, 0, "holds");
    redisReply *reply = redisCommand(redis, "HGETALL %s", key);
    json_t *list = json_array();
    for (size_t i = 0; reply && reply->type == REDIS_REPLY_ARRAY && i + 1 < reply->elements; i += 2) {
        json_t *rule = json_loads(operator_text(reply, i + 1), 0, NULL);
        if (json_is_object(rule) && hold_concerns(explain, json_object_get(rule, "match"))) {
            json_object_set_new(rule, "id", json_string(operator_text(reply, i)));
            json_array_append(list, rule);
        }
        json_decref(rule);
    }
    json_object_set_new(explain->root, "holds", list);
    if (reply) {
        freeReplyObject(reply);
    }
    free(key);
    redisFree(redis);
}

/* --- the page --- */

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static void tls_print(const json_t *root) {
    const json_t *tls = json_object_get(root, "tls"), *login = json_object_get(root, "login"), *route = json_object_get(root, "route");
    json_t *one;
    size_t index;
    cli_print(stdout, "%-12s %s%s   %s\n", "tls", text_of(tls, "level"),
              json_is_true(json_object_get(tls, "implicit")) ? ", from the first byte" : "", text_of(tls, "from"));
    if (*text_of(route, "dane")) {
        cli_print(stdout, "%-12s %s\n", "", text_of(route, "dane"));
    }
    if (*text_of(route, "mta_sts")) {
        cli_print(stdout, "%-12s %s%s\n", "", text_of(route, "mta_sts"),
                  json_is_true(json_object_get(route, "tls_testing")) ? ": failures are reported, mail goes" : "");
    }
    if (login) {
        cli_print(stdout, "%-12s %s by ", "login", text_of(login, "username"));
        json_array_foreach(json_object_get(login, "mechanisms"), index, one) {
            cli_print(stdout, "%s%s", index ? ", " : "", json_string_value(one));
        }
        cli_print(stdout, "%s   %s\n", json_is_true(json_object_get(login, "without_tls")) ? ", also without TLS" : "",
                  text_of(login, "secret_from"));
    }
}

static void route_print(const json_t *root) {
    const json_t *route = json_object_get(root, "route"), *relay = json_object_get(root, "relay"),
                 *sandbox = json_object_get(root, "sandbox");
    json_t *one;
    size_t index;
    if (relay) {
        cli_print(stdout, "%-12s ", "relay");
        json_array_foreach(json_object_get(relay, "hosts"), index, one) {
            cli_print(stdout, "%s%s", index ? ", " : "", json_string_value(one));
        }
        cli_print(stdout, "   for %s, %s\n", text_of(relay, "for"), text_of(relay, "from"));
    }
    cli_print(stdout, "%-12s %s   %s\n", "sandbox",
              !json_is_true(json_object_get(sandbox, "on"))       ? "off"
              : json_is_true(json_object_get(sandbox, "refuses")) ? "on: this domain is refused; set `sandbox: false` to send to it"
                                                                  : "on: this domain is allowed",
              text_of(sandbox, "from"));
    tls_print(root);
    if (strcmp(text_of(route, "status"), "found") != 0) {
        cli_print(stdout, "%-12s none (%s): recipients get %" JSON_INTEGER_FORMAT " %s   %s\n", "route", text_of(route, "status"),
                  json_integer_value(json_object_get(route, "code")), text_of(route, "text"), text_of(root, "asked"));
        return;
    }
    cli_print(stdout, "%-12s %s   %s\n", "site", text_of(route, "site"), text_of(root, "asked"));
    cli_print(stdout, "%-12s %s   %s\n", "provider", *text_of(route, "provider") ? text_of(route, "provider") : "none",
              text_of(root, "provider_from"));
    json_array_foreach(json_object_get(route, "endpoints"), index, one) {
        cli_print(stdout, "%-12s %" JSON_INTEGER_FORMAT " %s [%s]:%" JSON_INTEGER_FORMAT " tls %s\n", index ? "" : "servers",
                  json_integer_value(json_object_get(one, "preference")), text_of(one, "name"), text_of(one, "address"),
                  json_integer_value(json_object_get(one, "port")), text_of(one, "tls"));
    }
}

static void lanes_print(const json_t *root) {
    const json_t *pool = json_object_get(root, "pool"), *lanes = json_object_get(json_object_get(root, "route"), "lanes");
    json_t *one, *rest;
    size_t index, at;
    if (pool) {
        cli_print(stdout, "%-12s %s   %s\n", "pool", text_of(pool, "name"), text_of(pool, "from"));
        json_array_foreach(json_object_get(pool, "sources"), index, one) {
            cli_print(stdout, "%-12s %s as %s\n", index ? "" : "sources", text_of(one, "address"), text_of(one, "ehlo"));
        }
    }
    if (*text_of(json_object_get(root, "route"), "trouble")) {
        cli_print(stdout, "%-12s %s\n", "trouble", text_of(json_object_get(root, "route"), "trouble"));
    }
    json_array_foreach(lanes, index, one) {
        cli_print(stdout,
                  "%-12s %s: %" JSON_INTEGER_FORMAT " waiting here, %" JSON_INTEGER_FORMAT " under way, %" JSON_INTEGER_FORMAT
                  " sessions allowed%s\n",
                  index ? "" : "now", text_of(one, "pool"), json_integer_value(json_object_get(one, "waiting")),
                  json_integer_value(json_object_get(one, "outstanding")), json_integer_value(json_object_get(one, "sessions_allowed")),
                  json_is_true(json_object_get(one, "rate_binds")) ? ", a message rate binds" : "");
        json_array_foreach(json_object_get(one, "rests"), at, rest) {
            char span[32];
            cli_print(stdout, "%-12s %s rests for %s\n", "", text_of(rest, "what"),
                      operator_span((uint64_t)json_integer_value(json_object_get(rest, "for_ms")), span));
        }
    }
}

static void page_print(const json_t *root) {
    const json_t *holds = json_object_get(root, "holds"), *dkim = json_object_get(root, "dkim");
    json_t *one;
    size_t index;
    cli_print(stdout, "%s\n", text_of(root, "domain"));
    route_print(root);
    lanes_print(root);
    if (*text_of(root, "sender")) {
        cli_print(stdout, "%-12s %s%s\n", "dkim", dkim ? "signed with selector " : "no key for ",
                  dkim ? text_of(dkim, "selector") : text_of(root, "sender"));
    }
    cli_print(stdout, "%-12s %s\n", "holds",
              json_is_null(holds)           ? "unknown: Redis does not answer"
              : json_array_size(holds) == 0 ? "none"
                                            : "");
    json_array_foreach(holds, index, one) {
        char *match = json_dumps(json_object_get(one, "match"), JSON_COMPACT);
        cli_print(stdout, "%-12s %s %s %s: %s\n", "", text_of(one, "id"), text_of(one, "action"), match ? match : "",
                  text_of(one, "reason"));
        free(match);
    }
    puts("limits");
    json_array_foreach(json_object_get(root, "limits"), index, one) {
        cli_print(stdout, "  %-30s %-12s %s\n", text_of(one, "limit"), text_of(one, "value"), text_of(one, "from"));
    }
}

static void places_read(struct explain *explain) {
    struct config_errors errors = {0};
    if (explain->config->path) {
        yaml_read(explain->config->path, &explain->main, &errors);
    }
    config_errors_free(&errors);
    memset(&errors, 0, sizeof errors);
    if (explain->config->shaping_path) {
        yaml_read(explain->config->shaping_path, &explain->shaping, &errors);
    }
    config_errors_free(&errors);
}

static int explain_domain(struct explain *explain, bool json) {
    if (explain->domain[0] == '[' ? (size_t)snprintf(explain->ascii, DOMAIN_BYTES, "%s", explain->domain) >= DOMAIN_BYTES
                                  : domain_normalise(explain->domain, explain->ascii) != 0) {
        return cli_complain(CLI_USAGE, name, "'%s' is no domain.", explain->domain);
    }
    explain->root = json_pack("{s:s, s:s*}", "domain", explain->ascii, "sender", explain->sender);
    places_read(explain);
    relay_explain(explain);
    sandbox_explain(explain);
    int code = pool_explain(explain);
    if (code == CLI_OK && !route_control(explain)) {
        code = route_here(explain);
    }
    if (code == CLI_OK) {
        limits_explain(explain);
        holds_explain(explain);
        if (json) {
            json_dumpf(explain->root, stdout, JSON_COMPACT);
            putchar('\n');
        } else {
            page_print(explain->root);
        }
        code = strcmp(text_of(json_object_get(explain->root, "route"), "status"), "found") == 0 ? CLI_OK : CLI_FAILED;
    }
    json_decref(explain->root);
    yaml_free(&explain->main);
    yaml_free(&explain->shaping);
    return code;
}

static int explain_run(int argc, char **argv) {
    enum { OPTION_POOL = 1, OPTION_SENDER, OPTION_JSON, OPTION_REDIS };
    static const struct option options[] = {
        {"pool", required_argument, NULL, OPTION_POOL}, {"sender", required_argument, NULL, OPTION_SENDER},
        {"json", no_argument, NULL, OPTION_JSON},       {"redis", required_argument, NULL, OPTION_REDIS},
        {"config", required_argument, NULL, 'c'},       {NULL, 0, NULL, 0}};
    struct explain explain = {0};
    const char *path = NULL;
    bool json = false;
    for (int option; (option = getopt_long(argc, argv, "c:", options, NULL)) != -1;) {
        switch (option) {
        case OPTION_POOL:
            explain.pool = optarg;
            break;
        case OPTION_SENDER:
            explain.sender = strrchr(optarg, '@') ? strrchr(optarg, '@') + 1 : optarg;
            break;
        case OPTION_JSON:
            json = true;
            break;
        case OPTION_REDIS:
            explain.redis = optarg;
            break;
        case 'c':
            path = optarg;
            break;
        default:
            return cli_usage(name);
        }
    }
    if (optind + 1 != argc) {
        return cli_complain(CLI_USAGE, name, "name one recipient domain.");
    }
    const char *at = strrchr(argv[optind], '@');
    explain.domain = at ? at + 1 : argv[optind];
    int code;
    explain.config = cli_config_client(name, path, explain.redis, &code);
    if (explain.config) {
        code = explain_domain(&explain, json);
    }
    config_free(explain.config);
    return code;
}

const struct cli_command explain_command = {"explain", "how a domain is reached, and its limits", help, explain_run};
