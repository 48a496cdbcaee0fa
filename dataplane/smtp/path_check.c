/* path_check.c: a worker's copy of a path's record: nothing in it may point outside, and no setting is left open. */
#include "path_check.h"

#include <string.h>

static bool text_fits(const struct path *path, uint16_t offset) {
    if (offset >= PATH_STRINGS_BYTES)
        return false;
    uint32_t room = PATH_STRINGS_BYTES - offset;
    if (room > PATH_TEXT_MAX + 1)
        room = PATH_TEXT_MAX + 1;
    const char *end = memchr(path->strings + offset, '\0', room);
    if (!end)
        return false;
    for (const char *byte = path->strings + offset; byte < end; byte++) {
        if ((unsigned char)*byte <= ' ' || *byte == 0x7f)
            return false;
    }
    return true;
}

/* A user or a secret: any bytes but control characters, which would mean something in a mechanism. */
static bool credential_fits(const struct path *path, uint16_t offset) {
    if (offset >= PATH_STRINGS_BYTES)
        return false;
    const char *end = memchr(path->strings + offset, '\0', PATH_STRINGS_BYTES - (size_t)offset);
    for (const char *byte = path->strings + offset; end && byte < end; byte++) {
        if ((unsigned char)*byte < ' ' || *byte == 0x7f)
            return false;
    }
    return end != NULL;
}

/* Names, NUL-terminated each, and an empty one. */
static bool names_fit(const struct path *path, uint16_t offset) {
    uint32_t at = offset;
    while (at < PATH_STRINGS_BYTES && path->strings[at]) {
        if (!text_fits(path, (uint16_t)at))
            return false;
        at += (uint32_t)strlen(path->strings + at) + 1;
    }
    return at < PATH_STRINGS_BYTES;
}

static bool tlsa_fits(const struct path *path, const struct path_endpoint *endpoint) {
    if (endpoint->tlsa_count > PATH_TLSA_MAX || endpoint->tlsa + endpoint->tlsa_count * sizeof(struct path_tlsa) > sizeof(path->strings))
        return false;
    const struct path_tlsa *records = (const struct path_tlsa *)(const void *)(path->strings + endpoint->tlsa);
    for (uint32_t i = 0; i < endpoint->tlsa_count; i++) {
        if (records[i].length > sizeof(records[i].data))
            return false;
    }
    return true;
}

static bool family_fits(uint8_t family) {
    return family == 4 || family == 6;
}

bool path_fits(const struct path *path) {
    if (!path->endpoint_count || path->endpoint_count > PATH_ENDPOINTS_MAX || !path->source_count || path->source_count > PATH_SOURCES_MAX)
        return false;
    for (uint32_t i = 0; i < path->endpoint_count; i++) {
        const struct path_endpoint *endpoint = &path->endpoints[i];
        if (!family_fits(endpoint->family) || !endpoint->port || endpoint->tls >= PATH_TLS_LEVELS || !text_fits(path, endpoint->name) ||
            !tlsa_fits(path, endpoint))
            return false;
    }
    for (uint32_t i = 0; i < path->source_count; i++) {
        if (!family_fits(path->sources[i].family) || !text_fits(path, path->sources[i].ehlo))
            return false;
    }
    return credential_fits(path, path->auth_user) && credential_fits(path, path->auth_secret) &&
           strlen(path->strings + path->auth_user) <= PATH_TEXT_MAX && (!path->verify_names || names_fit(path, path->verify_names)) &&
           (!path->tls_version_min || path->tls_version_min == 12 || path->tls_version_min == 13);
}

/* A field that control left 0 gets the default of SMTP.md section 1; none may pin a session for longer than an hour. */
static void settle_timeouts(struct path_timeouts *timeouts) {
    enum { MOST_MS = 3600 * 1000 };
    const struct {
        uint32_t *field, default_ms;
    } fields[] = {
        {&timeouts->connect, 30000}, {&timeouts->banner, 60000}, {&timeouts->ehlo, 60000},   {&timeouts->mail, 300000},
        {&timeouts->rcpt, 300000},   {&timeouts->data, 120000},  {&timeouts->block, 180000}, {&timeouts->final, 600000},
        {&timeouts->rset, 10000},    {&timeouts->quit, 10000},   {&timeouts->idle, 5000},
    };
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (!*fields[i].field)
            *fields[i].field = fields[i].default_ms;
        if (*fields[i].field > MOST_MS)
            *fields[i].field = MOST_MS;
    }
}

void path_settle(struct path *path) {
    enum { PIPELINED_MAX = 64 };
    settle_timeouts(&path->timeouts);
    if (!path->pipelined_transactions)
        path->pipelined_transactions = 1;
    if (path->pipelined_transactions > PIPELINED_MAX)
        path->pipelined_transactions = PIPELINED_MAX;
}
