/* ending.c: from an attempt's end, or a decision before any attempt, to settle. */
#include "state.h"

#include "control/observe/log.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *ending_pool_name(const struct shard *shard, const struct job *job) {
    return job != NULL && job->pool != NULL ? job->pool : shard->config.config->default_pool;
}

static void settle_with(struct shard *shard, const struct settle_cookie *cookie, const struct outcome *outcome,
                        const struct classification *classification, struct delivery *delivery, uint32_t slot, uint32_t slot_generation,
                        const char *waits_for, uint64_t waits_until_ms) {
    struct settle_item item = {.cookie = *cookie,
                               .outcome = *outcome,
                               .classification = *classification,
                               .slot = slot,
                               .slot_generation = slot_generation,
                               .site = "",
                               .provider = "",
                               .pool = "",
                               .waits_for = waits_for,
                               .waits_until_ms = waits_until_ms};
    if (delivery != NULL) {
        item.job = delivery->job;
        item.pool = ending_pool_name(shard, delivery->job);
        if (delivery->site != NULL) {
            item.site = delivery->site->name;
            item.provider = delivery->site->provider != NULL ? delivery->site->provider->name : "";
        }
    }
    figures_settled(shard->figures, &item, delivery);
    settle_add(shard->queues[cookie->shard < shard->queue_count ? cookie->shard : 0].settle, &item);
    if (delivery != NULL)
        delivery_free(delivery);
}

void ending_settle(struct shard *shard, const struct settle_cookie *cookie, const struct outcome *outcome,
                   const struct classification *classification, struct delivery *delivery, uint32_t slot, uint32_t slot_generation) {
    settle_with(shard, cookie, outcome, classification, delivery, slot, slot_generation, NULL, 0);
}

void ending_hold(struct shard *shard, const struct settle_cookie *cookie, const struct outcome *outcome,
                 const struct classification *classification, struct delivery *delivery, const struct hold_rule *rule) {
    settle_with(shard, cookie, outcome, classification, delivery, SLOT_NONE, 0, rule->id, rule->until_ms);
}

void ending_park(struct shard *shard, struct delivery *delivery, uint64_t look_ms) {
    struct settle_cookie cookie;
    dispatch_cookie(shard->dispatch, delivery, &cookie);
    struct outcome outcome = {.kind = OUTCOME_LOCAL, .stage = STAGE_CONNECT, .finished_us = clock_us(CLOCK_REALTIME)};
    struct classification classification = {.class = CLASS_RATE_LIMITED, .verdict = VERDICT_PARKED, .unattempted = true};
    settle_with(shard, &cookie, &outcome, &classification, delivery, SLOT_NONE, 0, delivery->site->name, look_ms);
}

/* A delivery that ends, or waits, before it ever had a slot: no route, no pool, expired, a site that rests. retry_after_s: 0 for the
 * queue's schedule. */
void ending_early(struct shard *shard, struct delivery *delivery, enum reply_class class, uint16_t code, const uint16_t enhanced[3],
                  uint32_t retry_after_s, const char *text) {
    struct settle_cookie cookie;
    dispatch_cookie(shard->dispatch, delivery, &cookie);
    struct outcome outcome = {.kind = OUTCOME_LOCAL, .stage = STAGE_CONNECT, .code = code, .finished_us = clock_us(CLOCK_REALTIME)};
    memcpy(outcome.enhanced, enhanced, sizeof(outcome.enhanced));
    snprintf(outcome.text, sizeof(outcome.text), "%s", text);
    struct classification classification;
    classify(shard->config.classifier, NULL, &outcome, shard->config.config->suppress_on_block_defer, &classification);
    classification.class = class;
    if (retry_after_s != 0) {
        classification.retry_after_s = retry_after_s;
        classification.unattempted = true;
    }
    if (class == CLASS_BAD_DOMAIN)
        guard_outcome(shard->guard, delivery->job, delivery->index, NULL, &outcome, &classification, clock_ms(CLOCK_REALTIME));
    ending_settle(shard, &cookie, &outcome, &classification, delivery, SLOT_NONE, 0);
}

void ending_committed(void *context, uint32_t slot, uint32_t slot_generation) {
    struct shard *shard = context;
    if (slot != SLOT_NONE)
        dispatch_committed(shard->dispatch, slot, slot_generation);
}

/* RFC 5321 4.5.3.1.10: the server takes so many recipients a transaction and no more, 552 being an older word for 452. Whoever was accepted
 * before is on the way; this one goes at once in another transaction, and a smaller one (shape). The first of a transaction is not refused
 * for company: it waits its time. */
static void judge_company(const struct dispatch_end *end, struct classification *classification) {
    const struct outcome *outcome = &end->outcome;
    if (!end->follows || outcome->kind != OUTCOME_REPLIED || outcome->stage != STAGE_RCPT)
        return;
    if (outcome->code == 552 && outcome->enhanced[0] == 0 && classification->rule == NULL) {
        classification->class = CLASS_TOO_MANY_RECIPIENTS;
        classification->scope = SCOPE_PATH;
    }
    if (classification->class != CLASS_TOO_MANY_RECIPIENTS)
        return;
    classification->verdict = VERDICT_RETURNED;
    classification->retry_after_s = 0;
    classification->suppress = false;
}

void ending_attempt(void *context, const struct dispatch_end *end) {
    struct shard *shard = context;
    const struct shaping_provider *provider = end->lane != NULL ? end->lane->site->provider : NULL;
    struct classification classification;
    classify(shard->config.classifier, provider != NULL ? provider->name : NULL, &end->outcome,
             shard->config.config->suppress_on_block_defer, &classification);
    judge_company(end, &classification);
    guard_outcome(shard->guard, end->delivery != NULL ? end->delivery->job : NULL, end->cookie.index,
                  provider != NULL ? provider->name : NULL, &end->outcome, &classification, clock_ms(CLOCK_REALTIME));
    if (end->slot == SLOT_NONE && end->outcome.kind == OUTCOME_LOCAL && end->delivery != NULL)
        guard_unrendered(shard->guard, end->delivery->job, end->cookie.attempt, &end->outcome, &classification, clock_ms(CLOCK_REALTIME));
    if (end->lane != NULL)
        shape_ended(shard->shape, end->lane, &end->outcome, &classification, end->source, now_us());
    ending_settle(shard, &end->cookie, &end->outcome, &classification, end->delivery, end->slot, end->slot_generation);
    intake_resume(shard);
}

void ending_expired(void *context, struct delivery *delivery) {
    static const uint16_t enhanced[3] = {5, 4, 7};
    ending_early(context, delivery, CLASS_EXPIRED, 550, enhanced, 0, "the job's expires_at passed before it could be sent");
}

/* Whether the pool has an address of the family of some server of the site: without one it reaches none. */
static bool pool_reaches(const struct config_pool *pool, const struct site *site) {
    for (uint32_t i = 0; i < site->endpoint_count; i++)
        for (uint32_t j = 0; j < pool->source_count; j++)
            if (pool->sources[j].address.family == site->endpoints[i].address.family)
                return true;
    return site->endpoint_count == 0;
}

/* Every server of its site rests, or none is of a family that the pool has: it waits in Redis, not here. Why is told in the words of RFC
 * 3463: 4.7.5 (a cryptographic failure), 4.7.8 (credentials, RFC 4954), 4.4.1. */
void ending_deferred(void *context, struct delivery *delivery, uint64_t until_us) {
    static const uint16_t no_answer[3] = {4, 4, 1}, no_tls[3] = {4, 7, 5}, no_login[3] = {4, 7, 8};
    const uint16_t *enhanced = no_answer;
    enum reply_class class = CLASS_CONNECTION_FAILED;
    struct shape_trouble trouble;
    struct shard *shard = context;
    uint64_t now = now_us();
    uint64_t wait_s = until_us > now ? (until_us - now) / 1000000 + 1 : 1;
    const struct site *site = delivery->site;
    const struct config_pool *pool = config_pool_named(shard->config.config, ending_pool_name(shard, delivery->job));
    char text[384];
    shape_trouble(shard->shape, site, &trouble);
    if (trouble.kind == TROUBLE_TLS) {
        enhanced = no_tls;
        class = CLASS_TLS_REQUIRED;
        snprintf(text, sizeof(text), "no server of %.100s has TLS as asked for: %s", site->name, trouble.text);
    } else if (trouble.kind == TROUBLE_LOGIN) {
        enhanced = no_login;
        class = CLASS_AUTH_FAILED;
        snprintf(text, sizeof(text), "%s", trouble.text);
    } else if (pool != NULL && !pool_reaches(pool, site))
        snprintf(text, sizeof(text), "every server of %.100s has only %s addresses, and the pool %.32s has none of that family", site->name,
                 site->endpoints[0].address.family == 6 ? "IPv6" : "IPv4", pool->name);
    else
        snprintf(text, sizeof(text), "no server of %.100s answers; tried again when its rest ends", site->name);
    ending_early(context, delivery, class, 451, enhanced, wait_s < UINT32_MAX ? (uint32_t)wait_s : UINT32_MAX, text);
}
