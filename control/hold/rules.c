/* rules.c: each rule lies in one chain, under the narrowest of what it names; a delivery asks only the chains of kinds that some rule uses.
 */
#include "rules.h"

#include "control/route/route.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { BUCKETS = 4096 }; /* a power of two; 10,000 rules make chains of two or three */

/* What a rule is found by, the narrowest first. */
enum rule_key {
    KEY_RECIPIENT,
    KEY_SENDER,
    KEY_DOMAIN,
    KEY_SITE,
    KEY_QUEUE,
    KEY_CAMPAIGN,
    KEY_TENANT,
    KEY_SENDER_DOMAIN,
    KEY_PROVIDER,
    KEY_ANY,
    KEYS
};

struct entry {
    struct hold_rule rule;
    struct entry *next;
    enum rule_key key;
};

struct hold_rules {
    uint32_t count, kinds[KEYS];
    struct entry *buckets[BUCKETS];
};

struct hold_rules *hold_rules_create(void) {
    return calloc(1, sizeof(struct hold_rules));
}

static void entry_free(struct entry *entry) {
    struct hold_match *match = &entry->rule.match;
    char *texts[] = {match->queue,    match->site,   match->provider,  match->domain,      match->tenant,
                     match->campaign, match->sender, match->recipient, entry->rule.reason, entry->rule.by};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        free(texts[i]);
    free(entry);
}

void hold_rules_destroy(struct hold_rules *rules) {
    for (uint32_t i = 0; rules != NULL && i < BUCKETS; i++)
        while (rules->buckets[i] != NULL) {
            struct entry *next = rules->buckets[i]->next;
            entry_free(rules->buckets[i]);
            rules->buckets[i] = next;
        }
    free(rules);
}

/* FNV-1a, without case. */
static uint32_t hash(enum rule_key key, const char *text) {
    uint32_t sum = 2166136261u ^ (uint32_t)key;
    for (; *text != '\0'; text++) {
        unsigned char byte = (unsigned char)*text;
        sum = (sum ^ (byte >= 'A' && byte <= 'Z' ? byte + 32u : byte)) * 16777619u;
    }
    return (sum ^ sum >> 16) & (BUCKETS - 1);
}

static const char *domain_of(const char *address) {
    const char *at = strrchr(address, '@');
    return at != NULL ? at + 1 : NULL;
}

/* Under what the rule lies. */
static enum rule_key key_of(const struct hold_match *match, const char **text) {
    const struct {
        const char *text;
        enum rule_key key;
    } keys[] = {
        {match->recipient, KEY_RECIPIENT}, {match->sender != NULL && strchr(match->sender, '@') != NULL ? match->sender : NULL, KEY_SENDER},
        {match->domain, KEY_DOMAIN},       {match->site, KEY_SITE},
        {match->queue, KEY_QUEUE},         {match->campaign, KEY_CAMPAIGN},
        {match->tenant, KEY_TENANT},       {match->sender, KEY_SENDER_DOMAIN},
        {match->provider, KEY_PROVIDER},
    };
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (keys[i].text != NULL) {
            *text = keys[i].text;
            return keys[i].key;
        }
    *text = "";
    return KEY_ANY;
}

/* The member's text in *out (malloc'd), NULL when it is absent or null. False: it is of another type. */
static bool member_text(const json_t *object, const char *name, char **out) {
    const json_t *value = json_object_get(object, name);
    *out = json_is_string(value) ? strdup(json_string_value(value)) : NULL;
    return value == NULL || json_is_null(value) || *out != NULL;
}

static uint64_t member_ms(const json_t *object, const char *name) {
    json_int_t value = json_integer_value(json_object_get(object, name));
    return value > 0 ? (uint64_t)value : 0;
}

static bool rule_read(struct hold_rule *rule, const json_t *root) {
    const json_t *match = json_object_get(root, "match");
    const char *action = json_string_value(json_object_get(root, "action"));
    if (action == NULL || (strcmp(action, "hold") != 0 && strcmp(action, "bounce") != 0) || !json_is_object(match))
        return false;
    rule->action = strcmp(action, "bounce") == 0 ? HOLD_BOUNCE : HOLD_WAIT;
    rule->since_ms = member_ms(root, "since");
    rule->until_ms = member_ms(root, "until");
    struct hold_match *to = &rule->match;
    const struct {
        const char *name;
        char **text;
    } names[] = {{"queue", &to->queue},   {"site", &to->site},         {"provider", &to->provider}, {"domain", &to->domain},
                 {"tenant", &to->tenant}, {"campaign", &to->campaign}, {"sender", &to->sender},     {"recipient", &to->recipient}};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)match, key, value) {
        bool known = false;
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
            known |= strcmp(key, names[i].name) == 0;
        if (!known) /* of a later version: what it narrows is unknown here, so it would take too much */
            return false;
    }
    bool ok = member_text(root, "reason", &rule->reason) && member_text(root, "by", &rule->by);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        ok = member_text(match, names[i].name, names[i].text) && ok;
    return ok;
}

int hold_rules_add(struct hold_rules *rules, const char *id, const char *json, size_t length) {
    if (rules->count >= HOLDS_MAX)
        return -ENOSPC;
    struct entry *entry = calloc(1, sizeof(*entry));
    if (entry == NULL)
        return -ENOMEM;
    json_t *root = json_loadb(json, length, JSON_REJECT_DUPLICATES, NULL);
    bool ok = strlen(id) < HOLD_ID_BYTES && *id != '\0' && json_is_object(root) && rule_read(&entry->rule, root);
    json_decref(root);
    if (!ok) {
        entry_free(entry);
        return -EINVAL;
    }
    memcpy(entry->rule.id, id, strlen(id) + 1);
    const char *text;
    entry->key = key_of(&entry->rule.match, &text);
    struct entry **bucket = &rules->buckets[hash(entry->key, text)];
    entry->next = *bucket;
    *bucket = entry;
    rules->count++;
    rules->kinds[entry->key]++;
    return 0;
}

uint32_t hold_rules_count(const struct hold_rules *rules) {
    return rules->count;
}

static bool same(const char *wanted, const char *text) {
    return wanted == NULL || (text != NULL && strcasecmp(wanted, text) == 0);
}

/* Whoever it says that it is from: in From, or in the envelope. */
static bool sender_matches(const char *wanted, const struct job *job) {
    bool whole = strchr(wanted, '@') != NULL;
    const char *from = job->from.email, *envelope = job->envelope_sender;
    if (from != NULL && strcasecmp(wanted, whole ? from : domain_of(from) != NULL ? domain_of(from) : "") == 0)
        return true;
    return envelope != NULL && strcasecmp(wanted, whole ? envelope : domain_of(envelope) != NULL ? domain_of(envelope) : "") == 0;
}

static bool matches(const struct hold_rule *rule, const struct delivery *delivery, uint64_t now_ms) {
    const struct hold_match *match = &rule->match;
    const struct job *job = delivery->job;
    const struct job_recipient *recipient = job_recipient(job, delivery->index);
    const struct mailbox *mailbox = &recipient->mailbox;
    const struct site *site = delivery->site;
    if (rule->until_ms != 0 && rule->until_ms <= now_ms)
        return false;
    return same(match->queue, job->queue) && same(match->tenant, job->tenant) && same(match->domain, mailbox->domain) &&
           same(match->recipient, mailbox->email) && (match->sender == NULL || sender_matches(match->sender, job)) &&
           (match->campaign == NULL || same(match->campaign, job->campaign) || same(match->campaign, job->queue)) &&
           (match->site == NULL || (site != NULL && same(match->site, site->name))) &&
           (match->provider == NULL || (site != NULL && site->provider != NULL && same(match->provider, site->provider->name)));
}

static bool goes_before(const struct hold_rule *rule, const struct hold_rule *other) {
    if (other == NULL || rule->action != other->action)
        return other == NULL || rule->action == HOLD_BOUNCE;
    return rule->since_ms != other->since_ms ? rule->since_ms < other->since_ms : strcmp(rule->id, other->id) < 0;
}

static void ask(const struct hold_rules *rules, enum rule_key key, const char *text, const struct delivery *delivery, uint64_t now_ms,
                const struct hold_rule **best) {
    if (rules->kinds[key] == 0 || text == NULL)
        return;
    for (const struct entry *entry = rules->buckets[hash(key, text)]; entry != NULL; entry = entry->next)
        if (goes_before(&entry->rule, *best) && matches(&entry->rule, delivery, now_ms))
            *best = &entry->rule;
}

const struct hold_rule *hold_rules_match(const struct hold_rules *rules, const struct delivery *delivery, uint64_t now_ms) {
    const struct hold_rule *best = NULL;
    const struct job *job = delivery->job;
    const struct job_recipient *recipient = job_recipient(job, delivery->index);
    if (rules->count == 0 || recipient == NULL)
        return NULL;
    const struct mailbox *mailbox = &recipient->mailbox;
    const char *senders[] = {job->from.email, job->envelope_sender};
    ask(rules, KEY_RECIPIENT, mailbox->email, delivery, now_ms, &best);
    ask(rules, KEY_DOMAIN, mailbox->domain, delivery, now_ms, &best);
    for (size_t i = 0; i < 2; i++) {
        ask(rules, KEY_SENDER, senders[i], delivery, now_ms, &best);
        ask(rules, KEY_SENDER_DOMAIN, senders[i] != NULL ? domain_of(senders[i]) : NULL, delivery, now_ms, &best);
    }
    if (delivery->site != NULL) {
        ask(rules, KEY_SITE, delivery->site->name, delivery, now_ms, &best);
        ask(rules, KEY_PROVIDER, delivery->site->provider != NULL ? delivery->site->provider->name : NULL, delivery, now_ms, &best);
    }
    ask(rules, KEY_QUEUE, job->queue, delivery, now_ms, &best);
    ask(rules, KEY_CAMPAIGN, job->campaign, delivery, now_ms, &best);
    ask(rules, KEY_CAMPAIGN, job->queue, delivery, now_ms, &best);
    ask(rules, KEY_TENANT, job->tenant, delivery, now_ms, &best);
    ask(rules, KEY_ANY, "", delivery, now_ms, &best);
    return best;
}

const struct hold_rule *hold_rules_named(const struct hold_rules *rules, const char *id) {
    for (uint32_t i = 0; i < BUCKETS; i++)
        for (const struct entry *entry = rules->buckets[i]; entry != NULL; entry = entry->next)
            if (strcmp(entry->rule.id, id) == 0)
                return &entry->rule;
    return NULL;
}

void hold_rules_each(const struct hold_rules *rules, void (*each)(void *context, const struct hold_rule *rule), void *context) {
    for (uint32_t i = 0; i < BUCKETS; i++)
        for (const struct entry *entry = rules->buckets[i]; entry != NULL; entry = entry->next)
            each(context, &entry->rule);
}

char *hold_rule_write(const struct hold_rule *rule) {
    const struct hold_match *match = &rule->match;
    json_t *root = json_pack("{s:s, s:{s:s*, s:s*, s:s*, s:s*, s:s*, s:s*, s:s*, s:s*}, s:s*, s:s*, s:I, s:I}", "action",
                             rule->action == HOLD_BOUNCE ? "bounce" : "hold", "match", "queue", match->queue, "site", match->site,
                             "provider", match->provider, "domain", match->domain, "tenant", match->tenant, "campaign", match->campaign,
                             "sender", match->sender, "recipient", match->recipient, "reason", rule->reason, "by", rule->by, "since",
                             (json_int_t)rule->since_ms, "until", (json_int_t)rule->until_ms);
    char *text = root != NULL ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    return text;
}
