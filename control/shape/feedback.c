/* feedback.c: what outcomes and path events change: concurrency, rests of endpoints and sources, the lane's pace (SMTP.md sections 1, 2 and
 * 6). */
#include "state.h"

#include "control/config/address.h"
#include "control/tls_level.h"
#include <stdio.h>
#include <string.h>

/* Postfix's feedback: as many successes as the window has sessions widen it by one; a failure narrows it by one. */
void lane_succeeded(struct lane_state *lane, uint64_t now_us) {
    uint32_t limit = lane->lane.site->limits->connection_limit ? lane->lane.site->limits->connection_limit : SESSIONS_MAX;
    bool limits = lane->lane.waiting + lane->lane.outstanding >= lane->window;
    if (lane->window >= limit || !limits || now_us < lane->growth_after_us)
        return;
    if (++lane->successes < lane->window)
        return;
    lane->successes = 0;
    lane->window++;
    lane_balance(lane, now_us);
}

void lane_failed(struct lane_state *lane, uint64_t now_us) {
    lane->successes = 0;
    if (lane->window > 1)
        lane->window--;
    lane_balance(lane, now_us);
}

/* A lane hears of a rest if it has sessions; one without reads the rests when it starts. */
static void reload(struct lane_state *lane, uint64_t now_us) {
    lane_load_rests(lane, now_us);
    lane_balance(lane, now_us);
    lane_arm(lane);
}

static void reload_users(struct rest *rest, uint64_t now_us) {
    struct rest_use *use = LIST_FIRST(&rest->uses);
    while (use) {
        struct rest_use *next = LIST_NEXT(use, link); /* a lane without any endpoint left detaches its own uses */
        struct lane_state *lane = use->lane;
        while (next && next->lane == lane)
            next = LIST_NEXT(next, link);
        reload(lane, now_us);
        use = next;
    }
}

static struct rest *endpoint_of(struct lane_state *lane, uint32_t endpoint) {
    const struct site *site = lane->lane.site;
    if (endpoint >= site->endpoint_count)
        return NULL;
    struct rest_key key = rest_key_of(&site->endpoints[endpoint].address, 0);
    return rests_get(&lane->shape->endpoints, &key);
}

void lane_rest_endpoint(struct lane_state *lane, uint32_t endpoint, uint32_t first_s, uint64_t now_us) {
    struct rest *rest = endpoint_of(lane, endpoint);
    if (!rest || !rest_fail(rest, (uint64_t)first_s * SECOND_US, (uint64_t)ENDPOINT_REST_MAX_S * SECOND_US, now_us))
        return;
    reload_users(rest, now_us);
    reload(lane, now_us);
}

static uint64_t mix_text(uint64_t hash, const char *text) {
    for (; text && *text; text++)
        hash = (hash ^ (uint8_t)*text) * UINT64_C(1099511628211);
    return (hash ^ 0xff) * UINT64_C(1099511628211);
}

/* Whatever could mend it makes another scope: another policy, another level, other credentials. */
uint64_t policy_scope(const struct shape *shape, const struct site *site, uint32_t endpoint) {
    const struct config_relay *relay = site->relay;
    uint64_t hash = mix_text(shape->key_seed ^ UINT64_C(14695981039346656037), site->name);
    hash = mix_text(hash, site->endpoints[endpoint].name);
    hash = (hash ^ tls_level_of(site, endpoint)) * UINT64_C(1099511628211);
    hash = (hash ^ site->limits->tls_version_min) * UINT64_C(1099511628211);
    if (relay) {
        hash = (hash ^ relay->tls_identity ^ (uint64_t)relay->implicit_tls << 32 ^ (uint64_t)relay->auth_mechanisms << 40) *
               UINT64_C(1099511628211);
        for (char *const *name = relay->tls_names; name && *name; name++)
            hash = mix_text(hash, *name);
        hash = mix_text(mix_text(hash, relay->auth_user), relay->auth_secret);
    }
    return hash ? hash : 1;
}

uint64_t lost_scope(const struct shape *shape, const struct site *site) {
    uint64_t hash = mix_text(shape->key_seed ^ UINT64_C(0x6c6f7374), site->name);
    return hash ? hash : 1;
}

static struct rest *trouble_of(const struct shape *shape, const struct site *site, uint32_t endpoint) {
    struct rest_key key = rest_key_of(&site->endpoints[endpoint].address, policy_scope(shape, site, endpoint));
    return rests_find((struct rests *)&shape->endpoints, &key);
}

static void reload_site(struct lane_state *lane, uint64_t now_us) {
    struct lane_state *other;
    LIST_FOREACH (other, &lane->site->lanes, on_site)
        reload(other, now_us);
}

/* An endpoint rests for this site only, for what its policy asks or its credentials are worth there. */
static bool rest_policy(struct lane_state *lane, uint32_t endpoint, enum shape_trouble_kind kind, uint32_t first_s, const char *why,
                        uint64_t now_us) {
    const struct site *site = lane->lane.site;
    struct rest_key key = rest_key_of(&site->endpoints[endpoint].address, policy_scope(lane->shape, site, endpoint));
    struct rest *rest = rests_get(&lane->shape->endpoints, &key);
    if (!rest)
        return false;
    rest_say(rest, kind, why);
    lane->shape->has_troubles = true;
    return rest_fail(rest, (uint64_t)first_s * SECOND_US, (uint64_t)ENDPOINT_REST_MAX_S * SECOND_US, now_us);
}

/* What the worker says of a server, without the server's name in front of it. */
static const char *words_of(const struct path_event *event, const struct site_endpoint *endpoint) {
    char address[64];
    const char *const names[] = {endpoint->name, address_text(&endpoint->address, address)};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        size_t length = strlen(names[i]);
        if (length > 0 && strncmp(event->text, names[i], length) == 0 && strncmp(event->text + length, ": ", 2) == 0)
            return event->text + length + 2;
    }
    return event->text;
}

static void on_tls_failed(struct lane_state *lane, const struct path_event *event, uint64_t now_us) {
    const struct site *site = lane->lane.site;
    if (event->endpoint >= site->endpoint_count || !tls_failure_stops(tls_level_of(site, event->endpoint), event->detail))
        return; /* the next connection goes without, or it is only told: no reason to use the host less */
    char why[sizeof(((struct shape_trouble *)0)->text)];
    const char *words = words_of(event, &site->endpoints[event->endpoint]);
    snprintf(why, sizeof why, "%.80s: %s", site->endpoints[event->endpoint].name, *words ? words : tls_failure_text(event->detail));
    lane_failed(lane, now_us);
    if (rest_policy(lane, event->endpoint, TROUBLE_TLS, TLS_REST_S, why, now_us))
        reload_site(lane, now_us);
}

/* The next host is for this (SMTP.md section 1), in the next attempt too. One that is the only one left goes on: it defers by its outcomes.
 */
static void on_transaction_lost(struct lane_state *lane, const struct path_event *event, uint64_t now_us) {
    const struct site *site = lane->lane.site;
    bool another = false;
    if (event->endpoint >= site->endpoint_count)
        return;
    for (uint32_t i = 0; i < site->endpoint_count; i++)
        another |= i != event->endpoint && lane->lane.endpoint_rest_until_us[i] <= now_us &&
                   memcmp(&site->endpoints[i].address, &site->endpoints[event->endpoint].address, sizeof site->endpoints[i].address) != 0;
    struct rest_key key = rest_key_of(&site->endpoints[event->endpoint].address, lost_scope(lane->shape, site));
    struct rest *rest = another ? rests_get(&lane->shape->endpoints, &key) : NULL;
    if (!rest)
        return;
    lane->shape->has_troubles = true;
    if (rest_fail(rest, (uint64_t)LOST_REST_S * SECOND_US, (uint64_t)4 * LOST_REST_S * SECOND_US, now_us))
        reload_site(lane, now_us);
}

/* All its hosts would say the same, and count the attempts. */
static void on_login_refused(struct lane_state *lane, const struct path_event *event, uint64_t now_us) {
    const struct site *site = lane->lane.site;
    char why[sizeof(((struct shape_trouble *)0)->text)];
    bool rested = false;
    if (event->endpoint >= site->endpoint_count)
        return;
    static const char REFUSED[] = " is refused: "; /* the worker's own words before the server's */
    const char *words = words_of(event, &site->endpoints[event->endpoint]), *said = strstr(words, REFUSED);
    if (event->code)
        snprintf(why, sizeof why, "%.80s refuses the login: %u %s", site->endpoints[event->endpoint].name, event->code,
                 said ? said + sizeof REFUSED - 1 : words);
    else
        snprintf(why, sizeof why, "%.80s: no login: %s", site->endpoints[event->endpoint].name, words);
    for (uint32_t i = 0; i < site->endpoint_count; i++)
        rested |= rest_policy(lane, i, TROUBLE_LOGIN, AUTH_REST_S, why, now_us);
    if (rested)
        reload_site(lane, now_us);
}

void shape_trouble(const struct shape *shape, const struct site *site, struct shape_trouble *trouble) {
    const struct rest *latest = NULL;
    *trouble = (struct shape_trouble){.kind = TROUBLE_NONE};
    for (uint32_t i = 0; shape->has_troubles && i < site->endpoint_count; i++) {
        const struct rest *rest = trouble_of(shape, site, i);
        if (rest && rest->until_us > shape->now_us && (!latest || rest->until_us >= latest->until_us))
            latest = rest;
    }
    if (!latest)
        return;
    trouble->kind = latest->trouble;
    snprintf(trouble->text, sizeof trouble->text, "%s", latest->why ? latest->why : "");
}

/* One transaction was too long for the server: half of it next time. */
static void narrow_batch(struct lane_state *lane, uint64_t now_us) {
    uint32_t limit = lane->batch_limit > 0 ? lane->batch_limit : lane->lane.site->limits->max_recipients_per_batch;
    if (limit < 2 || (lane->batch_limit > 0 && now_us < lane->batch_since_us + (uint64_t)BATCH_STEP_S * SECOND_US))
        return;
    lane->batch_limit = limit / 2;
    lane->batch_since_us = now_us;
}

uint32_t lane_batch(struct lane_state *lane, uint32_t maximum, uint64_t now_us) {
    if (lane->batch_limit > 0 && now_us >= lane->batch_since_us + (uint64_t)BATCH_PROBE_S * SECOND_US) {
        uint32_t limit = lane->lane.site->limits->max_recipients_per_batch;
        lane->batch_limit = lane->batch_limit * 2 < limit ? lane->batch_limit * 2 : 0;
        lane->batch_since_us = now_us;
    }
    return lane->batch_limit > 0 && lane->batch_limit < maximum ? lane->batch_limit : maximum;
}

void lane_rest_source(struct lane_state *lane, uint32_t source, uint32_t first_s, uint32_t max_s, uint64_t now_us) {
    const struct config_pool *pool = lane->lane.pool;
    if (source >= pool->source_count)
        return;
    struct shape_provider *provider = lane->provider;
    struct rest_key key = rest_key_of(&pool->sources[source].address, provider ? provider->scope : lane->site->scope);
    struct rest *rest = rests_get(&lane->shape->sources, &key);
    if (!rest || !rest_fail(rest, (uint64_t)first_s * SECOND_US, (uint64_t)max_s * SECOND_US, now_us))
        return;
    struct lane_state *other, *next;
    if (provider) {
        for (other = TAILQ_FIRST(&provider->holders); other; other = next) {
            next = TAILQ_NEXT(other, by_place);
            if (other != lane)
                reload(other, now_us);
        }
    } else {
        LIST_FOREACH (other, &lane->site->lanes, on_site)
            if (other != lane)
                reload(other, now_us);
    }
    reload(lane, now_us);
}

void lane_observe(struct lane_state *lane, uint64_t now_us) {
    uint64_t passed_us = now_us - lane->observed_since_us;
    if (passed_us >= (uint64_t)OBSERVE_S * SECOND_US) {
        lane->observed = (double)lane->observed_count * SECOND_US / (double)passed_us;
        lane->observed_count = 0;
        lane->observed_since_us = now_us;
    }
    lane->observed_count++;
}

/* The rate that slowing starts from: the limit, or what really went out. */
static double base_rate(const struct lane_state *lane) {
    double rate = (double)lane->site->messages.rate_nano / 1e9;
    double shared = lane->provider ? (double)lane->provider->messages.rate_nano / 1e9 : 0;
    if (shared > 0 && (rate <= 0 || shared < rate))
        rate = shared;
    double observed = lane->observed > 0 ? lane->observed : (double)lane->observed_count / OBSERVE_S;
    if (rate <= 0 || (observed > 0 && observed < rate))
        rate = observed;
    return rate < 1 ? 1 : rate;
}

void lane_slow_down(struct lane_state *lane, uint64_t now_us) {
    if (lane->slow_shift > 0 && now_us < lane->slow_since_us + (uint64_t)SLOW_STEP_S * SECOND_US)
        return;
    double rate = lane->slow_shift > 0 ? (double)lane->slow.rate_nano / 1e9 : base_rate(lane);
    lane->slow_since_us = now_us;
    if (lane->slow_shift < SLOW_SHIFT_MAX) {
        lane->slow_shift++;
        bucket_set(&lane->slow, rate / 2);
    }
    lane_arm(lane);
}

/* Probing: twice as fast, and a refusal slows it again. */
void lane_speed_up(struct lane_state *lane, uint64_t now_us) {
    double rate = (double)lane->slow.rate_nano / 1e9;
    lane->slow_since_us = now_us;
    lane->slow_shift--;
    bucket_set(&lane->slow, lane->slow_shift > 0 ? rate * 2 : 0);
    lane_signal(lane);
}

static void count_shutdown(struct lane_state *lane, const struct outcome *outcome, uint64_t now_us) {
    const struct site *site = lane->lane.site;
    size_t bytes = outcome->peer_family == 6 ? 16 : 4;
    for (uint32_t i = 0; i < site->endpoint_count; i++) {
        const struct config_address *address = &site->endpoints[i].address;
        if (outcome->peer_family != address->family || memcmp(outcome->peer_address, address->bytes, bytes) != 0)
            continue;
        struct rest *rest = endpoint_of(lane, i);
        if (rest && rest_strike(rest, STRIKES, now_us))
            lane_rest_endpoint(lane, i, ENDPOINT_REST_FIRST_S, now_us);
        return;
    }
}

void shape_ended(struct shape *shape, struct lane *public_lane, const struct outcome *outcome, const struct classification *classification,
                 uint32_t source, uint64_t now_us) {
    struct lane_state *lane = lane_state_of(public_lane);
    shape->now_us = now_us;
    if (lane->lane.outstanding > 0)
        lane->lane.outstanding--;
    if (outcome->kind != OUTCOME_RETURNED) {
        switch (classification->class) {
        case CLASS_NONE:
            lane_succeeded(lane, now_us);
            break;
        case CLASS_RATE_LIMITED:
            lane_slow_down(lane, now_us);
            lane_rest_source(lane, source, RATE_REST_FIRST_S, RATE_REST_MAX_S, now_us);
            break;
        case CLASS_TOO_MANY_RECIPIENTS:
            narrow_batch(lane, now_us);
            break;
        case CLASS_IP_REPUTATION:
            lane_rest_source(lane, source, REPUTATION_REST_FIRST_S, REPUTATION_REST_MAX_S, now_us);
            break;
        default: /* greylisted keeps its source; the others speak of recipient, message or sender */
            break;
        }
        if (outcome->kind == OUTCOME_REPLIED && outcome->code == 421)
            count_shutdown(lane, outcome, now_us);
    }
    lane_balance(lane, now_us);
    shape_flush(shape);
}

static void on_ready(struct lane_state *lane, uint32_t endpoint, uint64_t now_us) {
    struct rest *rest = NULL;
    if (endpoint < lane->lane.site->endpoint_count) {
        struct rest_key key = rest_key_of(&lane->lane.site->endpoints[endpoint].address, 0);
        rest = rests_find(&lane->shape->endpoints, &key);
    }
    if (rest && rest_clear(rest))
        reload_users(rest, now_us);
    rest =
        lane->shape->has_troubles && endpoint < lane->lane.site->endpoint_count ? trouble_of(lane->shape, lane->lane.site, endpoint) : NULL;
    if (rest && rest_clear(rest))
        reload_site(lane, now_us);
    lane_succeeded(lane, now_us);
}

/* 421 at the banner speaks of concurrency where other sessions live, and of the host where none does. */
static void on_greeting_refused(struct lane_state *lane, const struct path_event *event, uint64_t now_us) {
    if (event->code == 421) {
        lane->growth_after_us = now_us + (uint64_t)GROWTH_PAUSE_S * SECOND_US;
        if (lane->ready > 0 && lane->window > lane->ready + 1)
            lane->window = lane->ready + 1; /* no more than it bore */
        lane_failed(lane, now_us);
        if (lane->ready > 0)
            return;
    } else {
        lane_failed(lane, now_us);
    }
    lane_rest_endpoint(lane, event->endpoint, ENDPOINT_REST_FIRST_S, now_us);
}

void shape_path_event(struct shape *shape, struct lane *public_lane, const struct path_event *event, uint64_t now_us) {
    struct lane_state *lane = lane_state_of(public_lane);
    shape->now_us = now_us;
    switch ((enum path_event_kind)event->kind) {
    case PATH_EVENT_CLOSED_EARLY:
        if (event->stage >= STAGE_MAIL && event->stage < STAGE_RSET) {
            on_transaction_lost(lane, event, now_us);
            break;
        }
        /* fallthrough */
    case PATH_EVENT_CONNECT_FAILED:
        lane_failed(lane, now_us);
        lane_rest_endpoint(lane, event->endpoint, ENDPOINT_REST_FIRST_S, now_us);
        break;
    case PATH_EVENT_GREETING_REFUSED:
        on_greeting_refused(lane, event, now_us);
        break;
    case PATH_EVENT_TLS_FAILED:
        on_tls_failed(lane, event, now_us);
        break;
    case PATH_EVENT_AUTH_FAILED:
        on_login_refused(lane, event, now_us);
        break;
    case PATH_EVENT_PROTOCOL_ERROR: {
        struct rest *rest = endpoint_of(lane, event->endpoint);
        if (rest && rest_strike(rest, STRIKES, now_us))
            lane_rest_endpoint(lane, event->endpoint, ENDPOINT_REST_FIRST_S, now_us);
        break;
    }
    case PATH_EVENT_READY:
        on_ready(lane, event->endpoint, now_us);
        break;
    case PATH_EVENT_SHUTDOWN_REPLY:  /* between transactions: just a close */
    case PATH_EVENT_PORTS_EXHAUSTED: /* this side's: the worker waits for a port */
    case PATH_EVENT_KINDS:
        break;
    }
    shape_flush(shape);
}
