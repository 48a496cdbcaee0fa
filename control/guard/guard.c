/* guard.c: what replies say of recipients goes to the suppression lists, unless the replies themselves look wrong. */
#include "guard.h"
#include "watch.h"

#include "control/observe/log.h"
#include <arpa/inet.h>
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    DAY_S = 86400,
    HOUR_S = 3600,
    /* How long the class table's entries live: mailboxes and domains are given out again. */
    INVALID_LIFE_DAYS = 365,
    DOMAIN_LIFE_DAYS = 30,
    INACTIVE_LIFE_DAYS = 180,
    QUOTA_LIFE_DAYS = 30,
    SENDER_FAILURES = 20, /* replies about authentication or PTR, */
    SENDER_SHARE = 5,     /* and a fifth of all, in an hour: the sender domain is held at that provider */
    SENDER_HOLD_S = HOUR_S,
    CAMPAIGN_REFUSALS = 50, /* that speak of the content, */
    CAMPAIGN_SHARE = 10,    /* and a tenth of all: the campaign is held */
    UNRENDERED = 20,        /* messages that cannot be made and not one that can: the campaign is held */
    TALLIES_MAX = 4096,     /* sender domains and campaigns that are counted; then the first counted go */
    TALLY_LIFE_MS = HOUR_S * 1000,
    SENDER_RECENT = 200, /* replies that count in full: what broke a minute ago is not hidden by an hour of successes */
    CAMPAIGN_RECENT = 2000,
    TALLY_KEY_BYTES = 320,
    RAISED_MAX = 256,
    STATE_INTERVAL_MS = 60000,
    DOMAIN_FORM_BYTES = 260, /* "@" and a name of 255 (RFC 1035 2.3.4) */
};

/* Strikes until an address is suppressed (SMTP.md section 6). */
static const struct strikes {
    enum reply_class class;
    uint32_t needed, span_s, spacing_s, memory_s, life_s;
} strike_rows[] = {
    {CLASS_BAD_DOMAIN, 3, 48 * HOUR_S, HOUR_S, 14 * DAY_S, DOMAIN_LIFE_DAYS *DAY_S},
    {CLASS_INACTIVE_MAILBOX, 2, DAY_S, DAY_S, 60 * DAY_S, INACTIVE_LIFE_DAYS *DAY_S},
    {CLASS_QUOTA, 5, 7 * DAY_S, DAY_S, 30 * DAY_S, QUOTA_LIFE_DAYS *DAY_S},
};

/* Replies of an hour about a sender domain at a provider, or about a campaign. */
struct tally {
    char key[TALLY_KEY_BYTES];
    uint64_t since_ms;
    uint32_t replies, against;
};

/* An alarm that a success ends. */
struct raised {
    char kind[ALARM_KIND_BYTES], subject[ALARM_SUBJECT_BYTES];
};

struct guard {
    struct guard_config config;
    struct guard_counters counters;
    struct watches *watches;
    struct tally *tallies; /* [TALLIES_MAX], by hash */
    struct raised raised[RAISED_MAX];
    uint32_t raised_count;
    uint64_t saved_ms;
};

static const char *named(const char *text) {
    return text != NULL && *text != '\0' ? text : NULL;
}

static const char *address_of(const struct job *job, uint32_t index) {
    const struct job_recipient *recipient = job != NULL ? job_recipient(job, index) : NULL;
    return recipient != NULL ? recipient->mailbox.email : NULL;
}

static const char *domain_of(const char *address) {
    const char *at = address != NULL ? strrchr(address, '@') : NULL;
    return at != NULL ? at + 1 : "";
}

/* -- alarms that success ends -- */

static void raise_until_success(struct guard *guard, const char *kind, const char *subject, const char *text) {
    alarm_raise(guard->config.alarms, kind, subject, text);
    for (uint32_t i = 0; i < guard->raised_count; i++)
        if (strcmp(guard->raised[i].kind, kind) == 0 && strcmp(guard->raised[i].subject, subject) == 0)
            return;
    if (guard->raised_count == RAISED_MAX)
        return;
    struct raised *raised = &guard->raised[guard->raised_count++];
    snprintf(raised->kind, sizeof(raised->kind), "%s", kind);
    snprintf(raised->subject, sizeof(raised->subject), "%s", subject);
}

static void success_ends(struct guard *guard, const char *kind, const char *subject) {
    for (uint32_t i = 0; i < guard->raised_count; i++) {
        struct raised *raised = &guard->raised[i];
        if (strcmp(raised->kind, kind) != 0 || strcmp(raised->subject, subject) != 0)
            continue;
        alarm_clear(guard->config.alarms, kind, subject);
        *raised = guard->raised[--guard->raised_count];
        return;
    }
}

/* -- sources -- */

static void source_subject(const struct outcome *outcome, const char *where, char out[ALARM_SUBJECT_BYTES]) {
    char source[INET6_ADDRSTRLEN] = "a source";
    if (outcome->source_family == 4 || outcome->source_family == 6)
        inet_ntop(outcome->source_family == 6 ? AF_INET6 : AF_INET, outcome->source_address, source, sizeof(source));
    snprintf(out, ALARM_SUBJECT_BYTES, "%s at %.70s", source, where);
}

/* Shape rests it (shape_ended); here the operator hears of it. */
static void source_refused(struct guard *guard, const char *provider, const char *where, const struct outcome *outcome) {
    char subject[ALARM_SUBJECT_BYTES], text[ALARM_TEXT_BYTES];
    source_subject(outcome, where, subject);
    snprintf(
        text, sizeof(text),
        "%.64s refuses mail from this address (%u %.160s). It rests there and the pool's other addresses take over. Have it delisted, then "
        "`bypost retry --%s %.64s`; or take it out of `pools` in bypost.yaml and reload.",
        where, outcome->code, outcome->text, provider != NULL ? "provider" : "domain", where);
    raise_until_success(guard, "source_blocked", subject, text);
}

/* -- relays -- */

static const struct config_relay *relay_of(const struct config *config, const char *domain) {
    const struct config_relay *any = NULL;
    for (uint32_t i = 0; i < config->relay_count; i++) {
        if (strcasecmp(config->relays[i].domain, domain) == 0)
            return &config->relays[i];
        if (strcmp(config->relays[i].domain, "*") == 0)
            any = &config->relays[i];
    }
    return any;
}

/* RFC 4954 6: 454, 530, 534, 535, 538; and whatever is said to AUTH. */
static bool speaks_of_login(const struct outcome *outcome) {
    switch (outcome->code) {
    case 530:
    case 534:
    case 535:
    case 538:
        return true;
    case 454:
        return outcome->enhanced[1] == 7;
    default:
        return outcome->stage == STAGE_AUTH;
    }
}

/* A wrong password of ours must not bounce a queue. */
static bool relay_refused(struct guard *guard, const char *domain, const struct outcome *outcome, struct classification *out) {
    const struct config_relay *relay = relay_of(guard->config.config, domain);
    char text[ALARM_TEXT_BYTES];
    if (!speaks_of_login(outcome) || (relay == NULL && outcome->stage != STAGE_AUTH))
        return false;
    const char *host = relay != NULL && relay->host_count > 0 ? relay->hosts[0] : outcome->peer_name;
    snprintf(text, sizeof(text),
             "the relay %.100s refuses the login (%u %.160s). Its mail waits, nothing bounces. Correct the user and password, reload, then "
             "`bypost retry --domain %.100s`.",
             host, outcome->code, outcome->text, domain);
    raise_until_success(guard, "relay_auth", domain, text);
    out->class = CLASS_AUTH_FAILED;
    out->scope = SCOPE_PATH;
    out->verdict = VERDICT_DEFERRED;
    out->suppress = false;
    guard->counters.distrusted++;
    return true;
}

/* -- sender domains and campaigns -- */

static uint64_t hash_of(const char *text) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *text != '\0'; text++)
        hash = (hash ^ (uint8_t)*text) * 0x100000001b3u;
    return hash ^ hash >> 29;
}

/* Some of these are made for each reply, so not by printf. Both parts fit: TALLY_KEY_BYTES. */
enum { KEY_PART_MAX = 300, SENDER_PART_MAX = 200, WHERE_PART_MAX = 100 };
static_assert(SENDER_PART_MAX + WHERE_PART_MAX <= KEY_PART_MAX && KEY_PART_MAX + 4 <= TALLY_KEY_BYTES, "with kind, spaces and end");

static char *key_append(char *to, const char *text, size_t maximum) {
    size_t length = strnlen(text, maximum);
    memcpy(to, text, length);
    to[length] = '\0';
    return to + length;
}

static void key_write(char key[TALLY_KEY_BYTES], char kind, const char *name) {
    key[0] = kind;
    key[1] = ' ';
    key_append(key + 2, name, KEY_PART_MAX);
}

static void sender_key(char key[TALLY_KEY_BYTES], const char *domain, const char *where) {
    key[0] = 's';
    key[1] = ' ';
    char *end = key_append(key + 2, domain, SENDER_PART_MAX);
    *end = ' ';
    key_append(end + 1, where, WHERE_PART_MAX);
}

static struct tally *tally_of(struct guard *guard, const char *key, uint32_t recent, uint64_t now_ms) {
    struct tally *tally = &guard->tallies[hash_of(key) % TALLIES_MAX];
    if (strcmp(tally->key, key) != 0 || now_ms - tally->since_ms > TALLY_LIFE_MS) {
        *tally = (struct tally){.since_ms = now_ms};
        snprintf(tally->key, sizeof(tally->key), "%s", key);
    }
    if (tally->replies >= recent) {
        tally->replies /= 2;
        tally->against /= 2;
    }
    return tally;
}

/* The same subject always has the same hold: setting it again renews it. */
static void hold_id(const char *key, char out[HOLD_ID_BYTES]) {
    snprintf(out, HOLD_ID_BYTES, "guard-%016" PRIx64, hash_of(key));
}

static void hold_it(struct guard *guard, const char *key, struct hold_match match, const char *reason, uint64_t now_ms, uint64_t until_ms) {
    struct hold_rule rule = {
        .action = HOLD_WAIT, .match = match, .reason = (char *)reason, .by = "guard", .since_ms = now_ms, .until_ms = until_ms};
    hold_id(key, rule.id);
    guard->counters.holds++;
    if (guard->config.hold != NULL)
        hold_set(guard->config.hold, &rule);
}

static void sender_count(struct guard *guard, const struct job *job, const char *provider, const char *where, const struct outcome *outcome,
                         enum reply_class class, uint64_t now_ms) {
    char key[TALLY_KEY_BYTES], id[HOLD_ID_BYTES], reason[256], text[ALARM_TEXT_BYTES], subject[ALARM_SUBJECT_BYTES];
    const char *domain = job->from.domain;
    if (domain == NULL)
        return;
    sender_key(key, domain, where);
    struct tally *tally = tally_of(guard, key, SENDER_RECENT, now_ms);
    tally->replies++;
    if (class != CLASS_AUTH_FAILED && class != CLASS_PTR_MISSING)
        return;
    tally->against++;
    if (tally->against < SENDER_FAILURES || tally->against * SENDER_SHARE < tally->replies)
        return;
    hold_id(key, id);
    snprintf(subject, sizeof(subject), "%.60s at %.60s", domain, where);
    snprintf(reason, sizeof(reason), "%u of %u replies: %s", tally->against, tally->replies, reply_class_text(class));
    snprintf(text, sizeof(text),
             "%u of %u replies of %.60s to mail from %.60s are %s (%u %.120s). It is held there for an hour. Correct SPF, DKIM, DMARC or "
             "PTR (`bypost check`), then "
             "`bypost release %s`.",
             tally->against, tally->replies, where, domain, reply_class_text(class), outcome->code, outcome->text, id);
    struct hold_match match = {.sender = (char *)domain};
    if (provider != NULL)
        match.provider = (char *)provider;
    else
        match.domain = (char *)where;
    hold_it(guard, key, match, reason, now_ms, now_ms + SENDER_HOLD_S * 1000);
    raise_until_success(guard, "sender_refused", subject, text);
    tally->key[0] = '\0';
}

static void campaign_count(struct guard *guard, const struct job *job, const struct outcome *outcome, const struct classification *out,
                           uint64_t now_ms) {
    char key[TALLY_KEY_BYTES], id[HOLD_ID_BYTES], reason[256], text[ALARM_TEXT_BYTES];
    if (named(job->campaign) == NULL || out->verdict == VERDICT_DEFERRED)
        return;
    key_write(key, 'c', job->campaign);
    struct tally *tally = tally_of(guard, key, CAMPAIGN_RECENT, now_ms);
    tally->replies++;
    if (out->scope != SCOPE_CAMPAIGN || out->verdict != VERDICT_BOUNCED || outcome->kind != OUTCOME_REPLIED)
        return;
    tally->against++;
    if (tally->against < CAMPAIGN_REFUSALS || tally->against * CAMPAIGN_SHARE < tally->replies)
        return;
    hold_id(key, id);
    snprintf(reason, sizeof(reason), "%u of %u replies refuse its content: %s", tally->against, tally->replies,
             reply_class_text(out->class));
    snprintf(text, sizeof(text),
             "%u of %u replies to this campaign refuse its content as %s (%u %.160s). It is held. Mend it and `bypost campaign cancel "
             "%.80s`, or go on with "
             "`bypost release %s`.",
             tally->against, tally->replies, reply_class_text(out->class), outcome->code, outcome->text, job->campaign, id);
    hold_it(guard, key, (struct hold_match){.campaign = job->campaign}, reason, now_ms, 0);
    alarm_raise(guard->config.alarms, "campaign_refused", job->campaign, text);
    tally->key[0] = '\0';
}

/* -- messages that cannot be made -- */

static struct tally *rendered_tally(struct guard *guard, const char *campaign, uint64_t now_ms) {
    char key[TALLY_KEY_BYTES];
    key_write(key, 'r', campaign);
    return tally_of(guard, key, CAMPAIGN_RECENT, now_ms);
}

void guard_rendered(struct guard *guard, const struct job *job, uint64_t now_ms) {
    if (named(job->campaign) != NULL)
        rendered_tally(guard, job->campaign, now_ms)->replies++;
}

void guard_unrendered(struct guard *guard, const struct job *job, uint32_t attempt, const struct outcome *outcome,
                      struct classification *out, uint64_t now_ms) {
    char id[HOLD_ID_BYTES], reason[256], text[ALARM_TEXT_BYTES];
    if (job == NULL || named(job->campaign) == NULL || out->verdict != VERDICT_BOUNCED)
        return;
    struct tally *tally = rendered_tally(guard, job->campaign, now_ms);
    tally->replies++;
    tally->against++;
    bool none = tally->against == tally->replies;
    bool held =
        none ? tally->against >= UNRENDERED : tally->against >= CAMPAIGN_REFUSALS && tally->against * CAMPAIGN_SHARE >= tally->replies;
    if (held || (none && attempt == 0)) { /* whoever waits can still have it when the content is mended */
        out->verdict = VERDICT_DEFERRED;
        out->suppress = false;
        guard->counters.distrusted++;
    }
    if (!held)
        return;
    hold_id(tally->key, id);
    snprintf(reason, sizeof(reason), "%u of %u messages cannot be made: %.160s", tally->against, tally->replies, outcome->text);
    snprintf(text, sizeof(text),
             "%u of %u of its messages cannot be made (%.200s). It is held. Cancel it (`bypost campaign cancel %.80s`) and create it anew "
             "with what is missing, under another name; or go on with `bypost release %s`.",
             tally->against, tally->replies, outcome->text, job->campaign, id);
    hold_it(guard, tally->key, (struct hold_match){.campaign = job->campaign}, reason, now_ms, 0);
    alarm_raise(guard->config.alarms, "campaign_unrendered", job->campaign, text);
    tally->key[0] = '\0';
}

/* -- recipients -- */

static void suppress_now(struct guard *guard, const struct job *job, const char *address, const char *provider, enum reply_class class,
                         uint32_t life_days, uint64_t now_ms) {
    struct suppress_entry entry = {.tenant = job->tenant,
                                   .address = address,
                                   .reason = reply_class_text(class),
                                   .source = "class",
                                   .provider = provider,
                                   .since_ms = now_ms,
                                   .expires_ms = now_ms + (uint64_t)life_days * DAY_S * 1000};
    suppress_add(guard->config.suppress, &entry);
    guard->counters.suppressed++;
}

static void strike(struct guard *guard, const struct job *job, const char *address, const char *provider, enum reply_class class) {
    for (size_t i = 0; i < sizeof(strike_rows) / sizeof(strike_rows[0]); i++) {
        const struct strikes *row = &strike_rows[i];
        if (row->class != class)
            continue;
        struct suppress_strike one = {.entry = {.tenant = job->tenant,
                                                .address = address,
                                                .reason = reply_class_text(class),
                                                .provider = provider,
                                                .expires_ms = (uint64_t)row->life_s * 1000},
                                      .needed = row->needed,
                                      .span_s = row->span_s,
                                      .spacing_s = row->spacing_s,
                                      .memory_s = row->memory_s};
        suppress_strike(guard->config.suppress, &one);
    }
}

/* What was suppressed before the guard saw the pattern is taken back. */
static void take_back(void *context, const char *tenant, const char *address) {
    struct guard *guard = context;
    suppress_remove(guard->config.suppress, named(tenant), address);
    guard->counters.held_suppressions++;
}

static void alarm_false(struct guard *guard, const char *provider, const struct watch_state *state, const struct outcome *outcome) {
    char text[ALARM_TEXT_BYTES];
    snprintf(text, sizeof(text),
             "it calls %u of its last %u recipients unknown (usual: %.1f %%; %u %.90s). Such refusals defer and suppress nobody. What it "
             "suppressed "
             "before: `bypost suppress undo --class invalid_recipient --provider %.32s --since 2h`; then `bypost retry --provider %.32s`. "
             "If it is true: `bypost suppress trust %.32s`.",
             state->invalid, state->replies, state->usual * 100, outcome->code, outcome->text, provider, provider, provider);
    alarm_raise(guard->config.alarms, "false_invalid_recipient", provider, text);
}

/* A provider's word about a recipient. True: it is distrusted. */
static bool watch_provider(struct guard *guard, const char *provider, const struct outcome *outcome, const struct classification *out,
                           uint64_t now_ms) {
    bool invalid = out->class == CLASS_INVALID_RECIPIENT && outcome->code / 100 == 5;
    if (!invalid && out->verdict != VERDICT_DELIVERED)
        return false;
    struct watch_state state;
    bool trusted = guard->config.suppress != NULL && suppress_trusts(guard->config.suppress, provider, now_ms);
    enum watch_change change = watch_note(guard->watches, provider, invalid, now_ms, &state);
    if (state.closed && !trusted && invalid)
        alarm_false(guard, provider, &state, outcome);
    if (change == WATCH_CLOSED && !trusted && guard->config.suppress != NULL)
        watch_suppressed_each(guard->watches, provider, now_ms, take_back, guard);
    if (change == WATCH_OPENED || trusted)
        alarm_clear(guard->config.alarms, "false_invalid_recipient", provider);
    return invalid && (state.closed || state.suspicious) && !trusted;
}

static void recipient_count(struct guard *guard, const struct job *job, const char *address, const char *provider,
                            const struct outcome *outcome, const struct classification *out, uint64_t now_ms) {
    char whole[DOMAIN_FORM_BYTES];
    if (out->verdict == VERDICT_DELIVERED) {
        suppress_accepted(guard->config.suppress, job->tenant, address);
        return;
    }
    snprintf(whole, sizeof(whole), "@%s", domain_of(address));
    if (out->suppress && out->class == CLASS_BAD_DOMAIN) {
        suppress_now(guard, job, whole, provider, out->class, DOMAIN_LIFE_DAYS, now_ms);
    } else if (out->suppress) {
        suppress_now(guard, job, address, provider, out->class, INVALID_LIFE_DAYS, now_ms);
        if (provider != NULL)
            watch_suppressed(guard->watches, provider, job->tenant, address, now_ms);
    } else if (out->class == CLASS_BAD_DOMAIN && out->verdict == VERDICT_BOUNCED) {
        strike(guard, job, whole, provider, out->class);
    } else if (out->class == CLASS_INACTIVE_MAILBOX && out->verdict == VERDICT_BOUNCED && out->rule != NULL) {
        strike(guard, job, address, provider, out->class); /* codes alone can mean a receiving rate */
    } else if (out->class == CLASS_QUOTA && outcome->kind == OUTCOME_REPLIED) {
        strike(guard, job, address, provider, out->class);
    }
}

static void state_path(const struct guard *guard, char out[4096]) {
    snprintf(out, 4096, "%s/guard.state", guard->config.config->state_directory);
}

static void state_save(struct guard *guard) {
    char path[4096];
    if (guard->config.config->state_directory == NULL)
        return;
    state_path(guard, path);
    if (watches_save(guard->watches, path) != 0)
        log_write(LOG_LEVEL_WARNING, "guard", "%s cannot be written: after a restart the usual rates are learnt anew", path);
}

void guard_outcome(struct guard *guard, const struct job *job, uint32_t index, const char *provider, const struct outcome *outcome,
                   struct classification *out, uint64_t now_ms) {
    const char *address = address_of(job, index), *domain = domain_of(address);
    provider = named(provider);
    const char *where = provider != NULL ? provider : domain;
    char subject[ALARM_SUBJECT_BYTES];
    if (outcome->kind == OUTCOME_REPLIED && out->verdict != VERDICT_DELIVERED && relay_refused(guard, domain, outcome, out))
        return;
    if (outcome->kind == OUTCOME_REPLIED) {
        if (provider != NULL && watch_provider(guard, provider, outcome, out, now_ms)) {
            out->verdict = VERDICT_DEFERRED;
            out->suppress = false;
            guard->counters.distrusted++;
            guard->counters.held_suppressions++;
        }
        if (out->class == CLASS_IP_REPUTATION)
            source_refused(guard, provider, where, outcome);
    }
    if (out->verdict == VERDICT_DELIVERED && guard->raised_count > 0) {
        source_subject(outcome, where, subject);
        success_ends(guard, "source_blocked", subject);
        success_ends(guard, "relay_auth", domain);
        if (job != NULL && job->from.domain != NULL) {
            snprintf(subject, sizeof(subject), "%.60s at %.60s", job->from.domain, where);
            success_ends(guard, "sender_refused", subject);
        }
    }
    if (job != NULL && outcome->kind == OUTCOME_REPLIED) {
        sender_count(guard, job, provider, where, outcome, out->class, now_ms);
        campaign_count(guard, job, outcome, out, now_ms);
    }
    bool distrusted = provider != NULL && watch_is_closed(guard->watches, provider);
    if (address != NULL && guard->config.suppress != NULL && (out->verdict == VERDICT_DELIVERED || !distrusted))
        recipient_count(guard, job, address, provider, outcome, out, now_ms);
    if (now_ms - guard->saved_ms >= STATE_INTERVAL_MS) {
        guard->saved_ms = now_ms;
        state_save(guard);
    }
}

void guard_relay_refused(struct guard *guard, const char *site, uint16_t code, const char *text) {
    char words[ALARM_TEXT_BYTES], said[16] = "";
    if (code > 0)
        snprintf(said, sizeof(said), " (%u)", code);
    snprintf(
        words, sizeof(words),
        "no login: %.190s%s. Its mail waits, nothing bounces. Correct `auth` of the relay in bypost.yaml or the file of its secret, reload "
        "(SIGHUP), then `bypost retry --site '%.100s'`.",
        text, said, site);
    alarm_raise(guard->config.alarms, "relay_auth", site, words);
}

void guard_relay_insecure(struct guard *guard, const char *site, const char *host, const char *why) {
    char words[ALARM_TEXT_BYTES];
    snprintf(
        words, sizeof(words),
        "TLS is not as required: %.80s: %.120s. Its mail waits, nothing bounces. Correct `tls` or `tls_names` of the relay, or `ca_file`, "
        "in bypost.yaml, reload (SIGHUP; restart for `ca_file`), then `bypost retry --site '%.80s'`.",
        host, why, site);
    alarm_raise(guard->config.alarms, "relay_tls", site, words);
}

void guard_relay_ready(struct guard *guard, const char *site) {
    if (alarms_count(guard->config.alarms) == 0)
        return;
    alarm_clear(guard->config.alarms, "relay_auth", site);
    alarm_clear(guard->config.alarms, "relay_tls", site);
}

struct guard *guard_create(const struct guard_config *config) {
    char path[4096];
    struct guard *guard = calloc(1, sizeof(*guard));
    if (guard == NULL)
        return NULL;
    guard->config = *config;
    guard->watches = watches_create();
    guard->tallies = calloc(TALLIES_MAX, sizeof(*guard->tallies));
    if (guard->watches == NULL || guard->tallies == NULL) {
        guard_destroy(guard);
        return NULL;
    }
    if (config->config->state_directory != NULL) {
        state_path(guard, path);
        watches_load(guard->watches, path);
    }
    return guard;
}

void guard_destroy(struct guard *guard) {
    if (guard == NULL)
        return;
    if (guard->watches != NULL && guard->saved_ms != 0)
        state_save(guard);
    watches_destroy(guard->watches);
    free(guard->tallies);
    free(guard);
}

void guard_reconfigure(struct guard *guard, const struct config *config) {
    guard->config.config = config;
}

const struct guard_counters *guard_counters(const struct guard *guard) {
    return &guard->counters;
}
