/* endpoint.c: what a lane knows of each of its endpoints: failures and rests, whether TLS works there, whether it takes mail. */
#include "endpoint.h"

#include "engine.h"

void lane_endpoint_failed(struct lane *lane, uint8_t index, uint64_t now_us) {
    struct lane_endpoint *endpoint = &lane->endpoints[index];
    endpoint->known_good = false;
    endpoint->tls_failure = TLS_FAILURE_NONE;
    if (endpoint->retry_us > now_us)
        return; /* a session that was opened before the failure which made it wait already */
    endpoint->backoff_us = endpoint->backoff_us ? endpoint->backoff_us * 2 : LANE_BACKOFF_FIRST_US;
    if (endpoint->backoff_us > LANE_BACKOFF_MAX_US)
        endpoint->backoff_us = LANE_BACKOFF_MAX_US;
    endpoint->retry_us = now_us + endpoint->backoff_us;
    lane->failures++;
    lane_wake(lane);
}

bool lane_endpoint_has_source(const struct lane *lane, uint32_t index) {
    for (uint32_t i = 0; i < lane->path.source_count; i++) {
        if (lane->path.sources[i].family == lane->path.endpoints[index].family)
            return true;
    }
    return false;
}

uint64_t lane_endpoint_rests_until(const struct lane *lane, uint32_t index) {
    const struct path_rests *rests = &lane->engine->config.journal->rests[lane->index];
    uint64_t until_us = atomic_load_explicit(&rests->endpoint_us[index], memory_order_relaxed);
    return lane->endpoints[index].retry_us > until_us ? lane->endpoints[index].retry_us : until_us;
}

bool lane_transaction_lost(struct lane *lane, uint8_t index, bool *told, uint64_t now_us) {
    const struct path_endpoint *lost = &lane->path.endpoints[index];
    bool another = false, free = false;
    for (uint32_t i = 0; i < lane->path.endpoint_count; i++) {
        const struct path_endpoint *other = &lane->path.endpoints[i];
        if (!lane_endpoint_has_source(lane, i) ||
            (other->family == lost->family && memcmp(other->address, lost->address, sizeof(lost->address)) == 0))
            continue;
        another = true;
        free |= lane_endpoint_rests_until(lane, i) <= now_us;
    }
    *told = another && !lane->endpoints[index].takes_mail;
    lane->endpoints[index].takes_mail = false;
    if (another)
        lane_endpoint_failed(lane, index, now_us);
    return free;
}

void lane_endpoint_worked(struct lane *lane, uint8_t index) {
    lane->endpoints[index].takes_mail = true;
    lane->endpoints[index].backoff_us = 0;
    lane->endpoints[index].retry_us = 0;
}

void lane_endpoint_tls_broken(struct lane *lane, uint8_t index, uint64_t now_us) {
    struct lane_endpoint *endpoint = &lane->endpoints[index];
    if (lane->path.broken_tls_s)
        endpoint->tls_broken_until_us = now_us + lane->path.broken_tls_s * UINT64_C(1000000);
    else if (endpoint->without_tls < UINT16_MAX)
        endpoint->without_tls++;
    if (lane->hope_us)
        lane->hope_us = now_us; /* the next connection may well be the one that orders wait for */
    lane_wake(lane);
}

bool lane_endpoint_without_tls(struct lane *lane, uint8_t index, uint64_t now_us) {
    struct lane_endpoint *endpoint = &lane->endpoints[index];
    if (endpoint->tls_broken_until_us > now_us)
        return true;
    if (!endpoint->without_tls)
        return false;
    endpoint->without_tls--;
    return true;
}

void lane_endpoint_tls_failed(struct lane *lane, uint8_t index, enum tls_failure failure, uint64_t now_us) {
    lane_endpoint_failed(lane, index, now_us);
    lane->endpoints[index].tls_failure = (uint8_t)failure;
}

bool lane_endpoint_ready(struct lane *lane, uint8_t index) {
    struct lane_endpoint *endpoint = &lane->endpoints[index];
    bool first = !endpoint->known_good;
    endpoint->known_good = true;
    endpoint->tls_failure = TLS_FAILURE_NONE;
    lane->failures = 0;
    return first;
}

void lane_auth_failed(struct lane *lane, uint8_t index, bool final, uint64_t now_us) {
    lane_endpoint_failed(lane, index, now_us);
    if (final)
        lane->auth_rest_us = now_us + LANE_AUTH_REST_US;
}

bool lane_auth_rests(const struct lane *lane, uint64_t now_us) {
    return lane->auth_rest_us > now_us;
}
