/* record.c: what a path's record says: endpoints with their TLS, sources, credentials, limits. */
#include "control/dispatch/state.h"

#include "control/tls_level.h"
#include <string.h>

/* The record's strings while they are written. Offset 0 is the empty string. */
struct strings {
    struct path *record;
    size_t used;
};

/* Room for so many bytes, or 0. */
static uint16_t strings_take(struct strings *strings, const void *bytes, size_t length) {
    if (strings->used + length > PATH_STRINGS_BYTES)
        return 0;
    uint16_t offset = (uint16_t)strings->used;
    memcpy(strings->record->strings + offset, bytes, length);
    strings->used += length;
    return offset;
}

/* Appends a string of at most `most` bytes; its offset, or 0 (the empty string) when it does not fit. */
static uint16_t strings_add_long(struct strings *strings, const char *text, size_t most) {
    size_t length = text != NULL ? strlen(text) : 0;
    return length == 0 || length > most ? 0 : strings_take(strings, text, length + 1);
}

static uint16_t strings_add(struct strings *strings, const char *text) {
    return strings_add_long(strings, text, PATH_TEXT_MAX);
}

static void fill_timeouts(struct path_timeouts *timeouts, const struct shaping_limits *limits) {
    *timeouts = (struct path_timeouts){
        .connect = limits->connect_timeout_ms,
        .banner = limits->banner_timeout_ms,
        .ehlo = limits->ehlo_timeout_ms,
        .mail = limits->mail_from_timeout_ms,
        .rcpt = limits->rcpt_to_timeout_ms,
        .data = limits->data_timeout_ms,
        .block = limits->data_block_timeout_ms,
        .final = limits->data_dot_timeout_ms,
        .rset = limits->rset_timeout_ms,
        .quit = limits->quit_timeout_ms,
        .idle = limits->idle_timeout_ms,
    };
}

static void fill_sources(struct strings *strings, const struct config_pool *pool) {
    struct path *record = strings->record;
    for (uint32_t i = 0; i < pool->source_count && record->source_count < PATH_SOURCES_MAX; i++) {
        const struct config_source *source = &pool->sources[i];
        struct path_source *target = &record->sources[record->source_count++];
        memcpy(target->address, source->address.bytes, sizeof(target->address));
        target->family = source->address.family;
        for (uint32_t before = 0; before < i && target->ehlo == 0; before++) /* mostly all have the same name */
            if (strcmp(pool->sources[before].ehlo, source->ehlo) == 0)
                target->ehlo = record->sources[before].ehlo;
        if (target->ehlo == 0)
            target->ehlo = strings_add(strings, source->ehlo);
    }
}

static_assert(2 * (PATH_TEXT_MAX + 1) + PATH_SECRET_MAX + 2 <= PATH_STRINGS_BYTES, "a site's name and credentials");

/* The name of an endpoint: a host with addresses of both families stands there once. */
static uint16_t endpoint_name(struct strings *strings, const struct site *site, const struct lane_path *filled, const char *name) {
    for (uint32_t i = 0; i < filled->endpoint_count; i++)
        if (strcmp(site->endpoints[filled->site_endpoints[i]].name, name) == 0)
            return strings->record->endpoints[i].name;
    return strings_add(strings, name);
}

static bool fill_endpoint(struct strings *strings, const struct site *site, uint32_t index, const struct lane_path *filled) {
    const struct site_endpoint *endpoint = &site->endpoints[index];
    struct path_endpoint *target = &strings->record->endpoints[filled->endpoint_count];
    enum path_tls level = tls_level_of(site, index);
    size_t before = strings->used;
    *target = (struct path_endpoint){
        .family = endpoint->address.family, .tls = (uint8_t)level, .port = endpoint->address.port, .preference = endpoint->preference};
    memcpy(target->address, endpoint->address.bytes, sizeof(target->address));
    target->name = endpoint_name(strings, site, filled, endpoint->name);
    bool fits = level < PATH_TLS_VERIFY || target->name != 0;
    if (level == PATH_TLS_DANE) {
        uint32_t count = endpoint->tlsa_count < PATH_TLSA_MAX ? endpoint->tlsa_count : PATH_TLSA_MAX;
        target->tlsa = count > 0 ? strings_take(strings, endpoint->tlsa, count * sizeof(endpoint->tlsa[0])) : 0;
        target->tlsa_count = (uint8_t)count;
        fits &= target->tlsa != 0; /* without records nothing could match */
    }
    if (!fits) {
        memset(strings->record->strings + before, 0, strings->used - before);
        strings->used = before;
        *target = (struct path_endpoint){0};
    }
    return fits;
}

/* More names that a relay's certificate may be for, an empty one behind the last. */
static uint16_t fill_names(struct strings *strings, char *const *names) {
    uint16_t first = 0;
    for (; names != NULL && *names != NULL; names++) {
        uint16_t offset = strings->used + strlen(*names) + 2 <= PATH_STRINGS_BYTES ? strings_add(strings, *names) : 0;
        first = first != 0 ? first : offset;
    }
    if (first != 0)
        strings_take(strings, "", 1);
    return first;
}

/* The first strings but the site's name, so that they always fit: without them mail would go to the relay as a stranger's. */
static void fill_credentials(struct strings *strings, const struct config_relay *relay) {
    struct path *record = strings->record;
    if (relay->auth_user == NULL)
        return;
    record->auth_user = strings_add(strings, relay->auth_user);
    record->auth_secret = strings_add_long(strings, relay->auth_secret, PATH_SECRET_MAX);
    record->auth_mechanisms = relay->auth_mechanisms;
}

uint32_t record_fill(struct path *record, const struct lane *lane, struct lane_path *filled) {
    const struct site *site = lane->site;
    const struct shaping_limits *limits = site->limits;
    const struct config_relay *relay = site->relay;
    struct strings strings = {.record = record, .used = 1};
    memset((uint8_t *)record + sizeof(record->word), 0, sizeof(*record) - sizeof(record->word));
    memset(filled->site_endpoints, 0, sizeof(filled->site_endpoints));
    filled->endpoint_count = 0;
    record->site = strings_add(&strings, site->name);
    record->max_deliveries_per_connection = limits->max_deliveries_per_connection;
    record->max_recipients_per_transaction = limits->max_recipients_per_batch > 0 ? limits->max_recipients_per_batch : 1;
    record->pipelined_transactions = limits->pipelined_transactions > 0 ? limits->pipelined_transactions : 1;
    record->tls_version_min = limits->tls_version_min;
    record->broken_tls_s = limits->remember_broken_tls_s;
    record->flags = (uint8_t)((site->tls_testing ? PATH_TLS_TESTING : 0) | (limits->use_chunking ? 0 : PATH_NO_CHUNKING));
    fill_timeouts(&record->timeouts, limits);
    if (relay != NULL) {
        record->flags |= (uint8_t)((relay->implicit_tls ? PATH_IMPLICIT_TLS : 0) | (relay->auth_without_tls ? PATH_AUTH_PLAINTEXT : 0));
        record->tls_identity = (uint8_t)relay->tls_identity;
        fill_credentials(&strings, relay);
    }
    fill_sources(&strings, lane->pool);
    if (relay != NULL)
        record->verify_names = fill_names(&strings, relay->tls_names);
    for (uint32_t i = 0; i < site->endpoint_count && filled->endpoint_count < PATH_ENDPOINTS_MAX; i++)
        if (fill_endpoint(&strings, site, i, filled))
            filled->site_endpoints[filled->endpoint_count++] = (uint8_t)i;
    record->endpoint_count = filled->endpoint_count;
    return filled->endpoint_count;
}

void record_forget_secret(struct path *record) {
    uint32_t offset = record->auth_secret;
    if (offset == 0 || offset >= PATH_STRINGS_BYTES)
        return;
    size_t room = PATH_STRINGS_BYTES - offset;
    explicit_bzero(record->strings + offset, strnlen(record->strings + offset, room < PATH_SECRET_MAX ? room : PATH_SECRET_MAX));
    record->auth_secret = 0;
}
