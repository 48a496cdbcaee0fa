/* sts.c: who has a policy, when it is fetched, how long it holds. sts_file.c keeps them. */
#include "sts_state.h"

#include "control/observe/log.h"
#include "domain.h"
#include "txt.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_live(const struct sts_entry *entry) {
    return entry && entry->policy && route_wall_s() < entry->fetched_s + entry->policy->max_age_s;
}

static bool is_due(const struct sts_entry *entry) {
    uint64_t after_s = entry->policy->max_age_s / 2;
    return route_wall_s() >= entry->fetched_s + (after_s < STS_REFRESH_MAX_S ? after_s : STS_REFRESH_MAX_S);
}

struct sts_entry *sts_entry_named(struct sts *sts, const char *domain) {
    uint64_t hash = table_hash(&sts->domains, domain, strlen(domain));
    for (struct table_node *node = table_first(&sts->domains, hash); node; node = table_next(node)) {
        struct sts_entry *entry = TABLE_ENTRY(node, struct sts_entry, node);
        if (strcmp(entry->domain, domain) == 0)
            return entry;
    }
    return NULL;
}

static void entry_drop(void *context, struct table_node *node) {
    struct sts *sts = context;
    struct sts_entry *entry = TABLE_ENTRY(node, struct sts_entry, node);
    table_remove(&sts->domains, node);
    free(entry->policy);
    free(entry);
}

static void entry_drop_ended(void *context, struct table_node *node) {
    struct sts_entry *entry = TABLE_ENTRY(node, struct sts_entry, node);
    if (!entry->fetching && !is_live(entry) && route_wall_s() >= entry->failed_until_s)
        entry_drop(context, node);
}

struct sts_entry *sts_entry_make(struct sts *sts, const char *domain) {
    struct sts_entry *entry = sts_entry_named(sts, domain);
    if (entry)
        return entry;
    if (sts->domains.count >= STS_DOMAINS_MAX)
        table_each(&sts->domains, entry_drop_ended, sts);
    size_t length = strlen(domain);
    entry = sts->domains.count < STS_DOMAINS_MAX ? calloc(1, sizeof *entry + length + 1) : NULL;
    if (!entry)
        return NULL;
    entry->sts = sts;
    memcpy(entry->domain, domain, length + 1);
    TAILQ_INIT(&entry->queries);
    table_insert(&sts->domains, &entry->node, table_hash(&sts->domains, domain, length));
    return entry;
}

static void query_end(struct sts_query *query, const struct sts_entry *entry, enum sts_flaw flaw, const char *why) {
    struct sts_answer answer = {.flaw = flaw};
    snprintf(answer.why, sizeof answer.why, "%s", why);
    if (is_live(entry)) {
        answer.policy = entry->policy;
        answer.until_s = entry->fetched_s + entry->policy->max_age_s;
        memcpy(answer.id, entry->id, sizeof answer.id);
    }
    void (*done)(void *, const struct sts_answer *) = query->done;
    void *context = query->context;
    sts_forget(query);
    done(context, &answer);
}

void sts_forget(struct sts_query *query) {
    if (query->question)
        dns_forget(query->question);
    if (query->waits)
        TAILQ_REMOVE(&query->waits->queries, query, link);
    TAILQ_REMOVE(&query->sts->all, query, by_all);
    event_free(query->timer);
    free(query);
}

/* The fetch goes on: who asks next finds what it brings. */
static void on_wait_over(evutil_socket_t fd, short what, void *context) {
    struct sts_query *query = context;
    query_end(query, query->waits, STS_FINE, "");
}

static void entry_keep(struct sts_entry *entry, struct sts_policy *policy) {
    struct sts *sts = entry->sts;
    bool other = !is_live(entry) || !sts_policy_same(entry->policy, policy);
    free(entry->policy);
    entry->policy = policy;
    entry->fetched_s = route_wall_s();
    entry->failed_until_s = 0;
    memcpy(entry->id, entry->fetching_id, sizeof entry->id);
    sts_file_append(sts, entry);
    if (other && sts->config.changed)
        sts->config.changed(sts->config.context, entry->domain);
}

static void on_fetched(void *context, const struct https_answer *fetched) {
    struct sts_entry *entry = context;
    enum sts_flaw flaw = STS_FINE;
    const char *why = fetched->why;
    entry->fetching = false;
    struct sts_policy *policy = NULL;
    if (fetched->status == HTTPS_GOOD) {
        policy = sts_policy_parse(fetched->body, fetched->bytes, &why);
        flaw = policy ? STS_FINE : STS_INVALID;
    } else {
        flaw = fetched->status == HTTPS_UNTRUSTED ? STS_WEBPKI_INVALID : STS_FETCH_ERROR;
    }
    if (policy) {
        entry_keep(entry, policy);
        why = "";
    } else {
        entry->failed_until_s = route_wall_s() + STS_RETRY_S;
        log_write(LOG_LEVEL_WARNING, "route", "the MTA-STS policy of %s cannot be had: %s; %s", entry->domain, why,
                  is_live(entry) ? "the one from before holds on" : "mail goes as if there were none");
    }
    struct query_list queries = TAILQ_HEAD_INITIALIZER(queries);
    struct sts_query *query;
    TAILQ_CONCAT(&queries, &entry->queries, link);
    TAILQ_FOREACH (query, &queries, link)
        query->waits = NULL;
    while ((query = TAILQ_FIRST(&queries))) {
        TAILQ_REMOVE(&queries, query, link);
        query_end(query, entry, flaw, why);
    }
}

static void fetch(struct sts_entry *entry, const char *id) {
    struct sts *sts = entry->sts;
    char url[DOMAIN_BYTES + 64];
    if (entry->fetching || route_wall_s() < entry->failed_until_s)
        return;
    snprintf(url, sizeof url, "https://mta-sts.%s/.well-known/mta-sts.txt", entry->domain);
    struct https_request request = {.url = url, .done = on_fetched, .context = entry};
    snprintf(entry->fetching_id, sizeof entry->fetching_id, "%s", id);
    entry->fetching = https_start(sts->config.https, &request) == 0; /* not in the sandbox, for a public one */
}

/* RFC 8461 3.1: of several strings the ones of another kind do not count; there must be exactly one that does. */
static bool record_id(const struct dns_answer *answer, char id[STS_ID_MAX + 1]) {
    char text[TXT_BYTES_MAX];
    uint32_t found = 0;
    bool good = false;
    for (uint32_t i = 0; i < answer->count; i++) {
        int length = txt_join(answer->data[i], (size_t)answer->lengths[i], text);
        int rc = length < 0 ? -2 : sts_record_read(text, (size_t)length, id);
        if (rc == 0 || rc == -EINVAL)
            found++;
        good = good || rc == 0;
    }
    return good && found == 1;
}

static void on_record(void *context, const struct dns_answer *answer) {
    struct sts_query *query = context;
    struct sts *sts = query->sts;
    char id[STS_ID_MAX + 1];
    query->question = NULL;
    struct sts_entry *entry = sts_entry_named(sts, query->domain);
    bool live = is_live(entry);
    if (!record_id(answer, id)) { /* a policy that is known holds without its record too (RFC 8461 3.3) */
        if (live && is_due(entry))
            fetch(entry, entry->id);
        query_end(query, entry, STS_FINE, "");
        return;
    }
    bool known = live && strcmp(entry->id, id) == 0;
    if (known && !is_due(entry)) {
        query_end(query, entry, STS_FINE, "");
        return;
    }
    entry = entry ? entry : sts_entry_make(sts, query->domain);
    if (entry)
        fetch(entry, id);
    if (!entry || !entry->fetching || known) {
        query_end(query, entry, STS_FINE, "");
        return;
    }
    struct timeval wait = {.tv_sec = STS_WAIT_S};
    query->waits = entry;
    TAILQ_INSERT_TAIL(&entry->queries, query, link);
    event_add(query->timer, &wait);
}

struct sts_query *sts_find(struct sts *sts, const char *domain, void (*done)(void *context, const struct sts_answer *answer),
                           void *context) {
    char name[DOMAIN_BYTES + 16];
    size_t length = strlen(domain);
    struct sts_query *query = calloc(1, sizeof *query + length + 1);
    if (!query)
        return NULL;
    query->sts = sts;
    query->done = done;
    query->context = context;
    memcpy(query->domain, domain, length + 1);
    query->timer = evtimer_new(sts->config.base, on_wait_over, query);
    snprintf(name, sizeof name, "_mta-sts.%s", domain);
    query->question = query->timer ? dns_ask(sts->config.dns, name, DNS_TYPE_TXT, on_record, query) : NULL;
    if (!query->question) {
        if (query->timer)
            event_free(query->timer);
        free(query);
        return NULL;
    }
    TAILQ_INSERT_TAIL(&sts->all, query, by_all);
    return query;
}

struct sts *sts_create(const struct sts_config *config) {
    struct sts *sts = calloc(1, sizeof *sts);
    if (!sts)
        return NULL;
    sts->config = *config;
    sts->file = -1; /* until sts_keep */
    TAILQ_INIT(&sts->all);
    if (table_init(&sts->domains) != 0) {
        free(sts);
        return NULL;
    }
    sts_file_load(sts);
    return sts;
}

void sts_destroy(struct sts *sts) {
    struct sts_query *query;
    if (!sts)
        return;
    while ((query = TAILQ_FIRST(&sts->all)))
        sts_forget(query);
    table_each(&sts->domains, entry_drop, sts);
    table_clear(&sts->domains);
    sts_file_close(sts);
    free(sts);
}
