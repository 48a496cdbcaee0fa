/* dns.c: libunbound in its own thread, read through its descriptor on the shard's event loop. */
#include "dns.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unbound.h>

enum {
    RCODE_NXDOMAIN = 3,
    CLASS_IN = 1,
    NAME_BYTES = 256,
    PROBE_INTERVAL_S = 30, /* between two looks at the trust anchor's keys while answers are bogus */
};

enum question_state { QUESTION_WAITING, QUESTION_ASKED, QUESTION_OVER };

struct dns_question {
    struct dns *dns;
    enum question_state state;
    int async_id;
    int type;
    struct event *timer;
    void (*done)(void *context, const struct dns_answer *answer);
    void *context;
    TAILQ_ENTRY(dns_question) link;
    char name[];
};

TAILQ_HEAD(question_list, dns_question);

struct dns {
    struct event_base *base;
    struct ub_ctx *unbound;
    struct event *readable;
    uint32_t timeout_ms;
    uint32_t in_flight;
    struct question_list asked, waiting;
    uint32_t server_count;
    struct config_address *servers;
    char *trust_anchor_file; /* NULL: nothing is validated */
    char anchor[NAME_BYTES]; /* the name whose keys it holds: "." */
    struct dns_question *probe;
    struct event *probe_timer;
    bool bogus_seen; /* an answer since the anchor's keys were last good */
    bool stripped;   /* told to `changed` */
    void (*changed)(void *context, const char *why);
    void *changed_context;
};

static void question_submit(struct dns_question *question);

static void dns_fill(struct dns *dns) {
    struct dns_question *question;
    while (dns->in_flight < DNS_IN_FLIGHT_MAX && (question = TAILQ_FIRST(&dns->waiting)))
        question_submit(question);
}

static void question_set_state(struct dns_question *question, enum question_state state) {
    struct dns *dns = question->dns;
    if (question->state == QUESTION_WAITING)
        TAILQ_REMOVE(&dns->waiting, question, link);
    if (question->state == QUESTION_ASKED) {
        TAILQ_REMOVE(&dns->asked, question, link);
        dns->in_flight--;
    }
    question->state = state;
    if (state == QUESTION_WAITING)
        TAILQ_INSERT_TAIL(&dns->waiting, question, link);
    if (state == QUESTION_ASKED) {
        TAILQ_INSERT_TAIL(&dns->asked, question, link);
        dns->in_flight++;
    }
}

static void question_free(struct dns_question *question) {
    question_set_state(question, QUESTION_OVER);
    event_free(question->timer);
    free(question);
}

static void question_answer(struct dns_question *question, const struct dns_answer *answer) {
    struct dns *dns = question->dns;
    void (*done)(void *, const struct dns_answer *) = question->done;
    void *context = question->context;
    question_free(question);
    done(context, answer);
    dns_fill(dns);
}

/* A bogus answer may be a forged one, or all are: the anchor's own keys tell. */
static void probe_soon(struct dns *dns) {
    struct timeval wait = {.tv_sec = PROBE_INTERVAL_S};
    if (dns->trust_anchor_file && !dns->probe && !evtimer_pending(dns->probe_timer, NULL))
        event_add(dns->probe_timer, &wait);
}

static void on_probed(void *context, const struct dns_answer *answer) {
    struct dns *dns = context;
    dns->probe = NULL;
    bool stripped = answer->bogus || (answer->status != DNS_FAILED && !answer->secure);
    if (answer->status == DNS_FAILED && !answer->bogus)
        stripped = dns->stripped || dns->bogus_seen; /* no answer says nothing, unless nothing can be validated without it */
    else
        dns->bogus_seen = false;
    if (stripped || answer->status == DNS_FAILED)
        probe_soon(dns);
    if (stripped == dns->stripped)
        return;
    dns->stripped = stripped;
    if (dns->changed)
        dns->changed(dns->changed_context,
                     stripped ? answer->why ? answer->why : "the keys of the trust anchor came without signatures" : NULL);
}

static void on_probe_timer(evutil_socket_t fd, short what, void *context) {
    struct dns *dns = context;
    if (dns->trust_anchor_file && !dns->probe)
        dns->probe = dns_ask(dns, dns->anchor, DNS_TYPE_DNSKEY, on_probed, dns);
}

static void on_answer(void *context, int error, struct ub_result *result) {
    struct dns_question *question = context;
    struct dns_answer answer = {.status = DNS_FAILED, .why = "no answer from the name servers"};
    char why[96], canonical[NAME_BYTES];
    if (error != 0) {
        answer.why = ub_strerror(error);
    } else if (result->bogus) {
        answer.why = "the answer's DNSSEC signatures do not hold";
        answer.bogus = true;
        if (question != question->dns->probe) {
            question->dns->bogus_seen = true;
            probe_soon(question->dns);
        }
    } else if (result->rcode == RCODE_NXDOMAIN) {
        answer.status = DNS_NO_NAME;
    } else if (result->rcode != 0) {
        snprintf(why, sizeof why, "the name servers answered %s",
                 result->rcode == 2   ? "SERVFAIL"
                 : result->rcode == 5 ? "REFUSED"
                                      : "with an error");
        answer.why = why;
    } else if (!result->havedata) {
        answer.status = DNS_NO_DATA;
    } else {
        answer.status = DNS_FOUND;
        while (result->data[answer.count])
            answer.count++;
        answer.data = (uint8_t **)result->data;
        answer.lengths = result->len;
    }
    if (error == 0) {
        answer.ttl_s = result->ttl > 0 ? (uint32_t)result->ttl : 0;
        answer.secure = result->secure && answer.status != DNS_FAILED;
        if (answer.status != DNS_FAILED && result->canonname && strlen(result->canonname) < sizeof canonical) {
            snprintf(canonical, sizeof canonical, "%s", result->canonname);
            size_t length = strlen(canonical);
            if (length > 1 && canonical[length - 1] == '.')
                canonical[length - 1] = '\0';
            answer.canonical = canonical;
        }
    }
    question_answer(question, &answer);
    ub_resolve_free(result);
}

static void on_timeout(evutil_socket_t fd, short what, void *context) {
    struct dns_question *question = context;
    struct dns_answer answer = {.status = DNS_FAILED, .why = "the name servers did not answer in time"};
    if (question->state == QUESTION_ASKED)
        ub_cancel(question->dns->unbound, question->async_id);
    question_answer(question, &answer);
}

static void on_readable(evutil_socket_t fd, short what, void *context) {
    struct dns *dns = context;
    ub_process(dns->unbound);
}

static void question_submit(struct dns_question *question) {
    struct dns *dns = question->dns;
    struct timeval wait = {.tv_sec = dns->timeout_ms / 1000, .tv_usec = (suseconds_t)(dns->timeout_ms % 1000) * 1000};
    question_set_state(question, QUESTION_ASKED);
    if (ub_resolve_async(dns->unbound, question->name, question->type, CLASS_IN, question, on_answer, &question->async_id) != 0) {
        /* Counted as asked until its timer ends it, so that a broken resolver is not asked in a tight loop. */
        question->async_id = -1;
    }
    event_add(question->timer, &wait);
}

struct dns_question *dns_ask(struct dns *dns, const char *name, int type, void (*done)(void *context, const struct dns_answer *answer),
                             void *context) {
    size_t name_bytes = strlen(name) + 1;
    struct dns_question *question = calloc(1, sizeof *question + name_bytes);
    if (!question)
        return NULL;
    question->timer = event_new(dns->base, -1, 0, on_timeout, question);
    if (!question->timer) {
        free(question);
        return NULL;
    }
    question->dns = dns;
    question->type = type;
    question->done = done;
    question->context = context;
    question->state = QUESTION_OVER;
    memcpy(question->name, name, name_bytes);
    question_set_state(question, QUESTION_WAITING);
    dns_fill(dns);
    return question;
}

void dns_forget(struct dns_question *question) {
    if (question->state == QUESTION_ASKED)
        ub_cancel(question->dns->unbound, question->async_id);
    question_free(question);
}

static int option(struct ub_ctx *unbound, const char *name, const char *value) {
    return ub_ctx_set_option(unbound, name, value) == 0 ? 0 : -EINVAL;
}

/* libunbound answers test., invalid. and others by itself unless told not to; the operator's name servers are to decide. `localhost.` stays
 * its own (RFC 6761 6.3). */
static int remove_local_zones(struct ub_ctx *unbound) {
    static const char *const ZONES[] = {"test.", "invalid.", "home.arpa.", "onion."};
    for (size_t i = 0; i < sizeof ZONES / sizeof ZONES[0]; i++)
        if (ub_ctx_zone_remove(unbound, ZONES[i]) != 0)
            return -EINVAL;
    return 0;
}

/* The owner of the first record of a trust anchor file, into anchor[NAME_BYTES]. 0, or -errno with a sentence. */
static int anchor_read(const char *path, char *anchor, char *error, size_t error_bytes) {
    FILE *file = fopen(path, "re");
    char line[4096];
    if (!file) {
        int rc = -errno;
        snprintf(error, error_bytes,
                 "dns.trust_anchor_file: %s cannot be read (%s), and enable_dane needs it: install the package dns-root-data, or name "
                 "another one",
                 path, strerror(errno));
        return rc;
    }
    anchor[0] = '\0';
    while (!anchor[0] && fgets(line, sizeof line, file)) {
        char *word = line + strspn(line, " \t");
        size_t length = strcspn(word, " \t\r\n");
        if (length > 0 && length < NAME_BYTES && *word != ';') {
            memcpy(anchor, word, length);
            anchor[length] = '\0';
        }
    }
    fclose(file);
    if (anchor[0])
        return 0;
    snprintf(error, error_bytes, "dns.trust_anchor_file: %s holds no DNSKEY or DS record", path);
    return -EINVAL;
}

static int set_anchor(struct ub_ctx *unbound, const char *path, char *anchor, char *error, size_t error_bytes) {
    if (!path)
        return 0;
    int rc = anchor_read(path, anchor, error, error_bytes);
    if (rc == 0 && (ub_ctx_add_ta_file(unbound, (char *)(uintptr_t)path) != 0 || option(unbound, "val-bogus-ttl:", "30") != 0)) {
        snprintf(error, error_bytes, "dns.trust_anchor_file: %s is not usable", path);
        rc = -EINVAL;
    }
    return rc;
}

/* `anchor`[NAME_BYTES] gets the trust anchor's name. */
static struct ub_ctx *context_create(const struct dns_settings *settings, char *anchor, char *error, size_t error_bytes) {
    const struct config_address *servers = settings->servers;
    uint32_t server_count = settings->server_count;
    struct ub_ctx *unbound = ub_ctx_create();
    if (!unbound) {
        snprintf(error, error_bytes, "libunbound could not be started: %s", strerror(errno));
        return NULL;
    }
    ub_ctx_debuglevel(unbound, 0);
    /* infra-*: a name server that failed is probed again within seconds instead of being written off for minutes. */
    if (ub_ctx_async(unbound, 1) != 0 ||
        option(unbound, "module-config:", settings->trust_anchor_file ? "validator iterator" : "iterator") != 0 ||
        option(unbound, "do-not-query-localhost:", "no") != 0 || option(unbound, "unblock-lan-zones:", "yes") != 0 ||
        option(unbound, "infra-keep-probing:", "yes") != 0 || option(unbound, "infra-host-ttl:", "30") != 0 ||
        option(unbound, "cache-max-negative-ttl:", "900") != 0) {
        snprintf(error, error_bytes, "libunbound refused an option that bypost needs");
        ub_ctx_delete(unbound);
        return NULL;
    }
    if (set_anchor(unbound, settings->trust_anchor_file, anchor, error, error_bytes) != 0) {
        ub_ctx_delete(unbound);
        return NULL;
    }
    int rc = 0;
    for (uint32_t i = 0; i < server_count && rc == 0; i++) {
        char host[INET6_ADDRSTRLEN], server[INET6_ADDRSTRLEN + 8];
        inet_ntop(servers[i].family == 6 ? AF_INET6 : AF_INET, servers[i].bytes, host, sizeof host);
        snprintf(server, sizeof server, "%s@%u", host, servers[i].port ? servers[i].port : 53u);
        rc = ub_ctx_set_fwd(unbound, server);
        if (rc != 0)
            snprintf(error, error_bytes, "dns.servers: %s is not usable: %s", server, ub_strerror(rc));
    }
    if (server_count == 0) {
        rc = ub_ctx_resolvconf(unbound, NULL);
        if (rc != 0)
            snprintf(error, error_bytes, "/etc/resolv.conf could not be read; name the servers under dns.servers");
    }
    if (rc == 0) {
        rc = remove_local_zones(unbound);
        if (rc != 0)
            snprintf(error, error_bytes, "libunbound could not be configured");
    }
    if (rc != 0) {
        ub_ctx_delete(unbound);
        return NULL;
    }
    return unbound;
}

/* Takes over `unbound`; -ENOMEM leaves it with the caller and the old one in place. */
static int dns_adopt(struct dns *dns, struct ub_ctx *unbound, const struct dns_settings *settings, const char *anchor) {
    uint32_t server_count = settings->server_count;
    struct config_address *copy = calloc(server_count ? server_count : 1, sizeof *copy);
    char *file = settings->trust_anchor_file ? strdup(settings->trust_anchor_file) : NULL;
    struct event *readable = event_new(dns->base, ub_fd(unbound), EV_READ | EV_PERSIST, on_readable, dns);
    if (!copy || !readable || (settings->trust_anchor_file && !file)) {
        free(copy);
        free(file);
        if (readable)
            event_free(readable);
        return -ENOMEM;
    }
    if (server_count > 0)
        memcpy(copy, settings->servers, server_count * sizeof *copy);
    if (dns->readable)
        event_free(dns->readable);
    if (dns->unbound)
        ub_ctx_delete(dns->unbound);
    free(dns->servers);
    free(dns->trust_anchor_file);
    dns->unbound = unbound;
    dns->servers = copy;
    dns->server_count = server_count;
    dns->trust_anchor_file = file;
    snprintf(dns->anchor, sizeof dns->anchor, "%s", anchor);
    dns->readable = readable;
    event_add(readable, NULL);
    if (file)
        event_active(dns->probe_timer, EV_TIMEOUT, 0);
    return 0;
}

struct dns *dns_create(struct event_base *base, const struct dns_settings *settings, char *error, size_t error_bytes) {
    char anchor[NAME_BYTES] = "";
    struct dns *dns = calloc(1, sizeof *dns);
    struct ub_ctx *unbound = dns ? context_create(settings, anchor, error, error_bytes) : NULL;
    if (!unbound) {
        free(dns);
        return NULL;
    }
    dns->base = base;
    dns->timeout_ms = settings->timeout_ms ? settings->timeout_ms : DNS_TIMEOUT_DEFAULT_MS;
    TAILQ_INIT(&dns->asked);
    TAILQ_INIT(&dns->waiting);
    dns->probe_timer = evtimer_new(base, on_probe_timer, dns);
    if (!dns->probe_timer || dns_adopt(dns, unbound, settings, anchor) != 0) {
        snprintf(error, error_bytes, "out of memory");
        ub_ctx_delete(unbound);
        if (dns->probe_timer)
            event_free(dns->probe_timer);
        free(dns);
        return NULL;
    }
    return dns;
}

void dns_watch(struct dns *dns, void (*changed)(void *context, const char *why), void *context) {
    dns->changed = changed;
    dns->changed_context = context;
}

static bool settings_same(const struct dns *dns, const struct dns_settings *settings) {
    const char *file = settings->trust_anchor_file;
    if (settings->server_count != dns->server_count || (file == NULL) != (dns->trust_anchor_file == NULL) ||
        (file && strcmp(file, dns->trust_anchor_file) != 0))
        return false;
    return settings->server_count == 0 || memcmp(settings->servers, dns->servers, settings->server_count * sizeof *settings->servers) == 0;
}

int dns_reconfigure(struct dns *dns, const struct dns_settings *settings, char *error, size_t error_bytes) {
    char anchor[NAME_BYTES] = "";
    dns->timeout_ms = settings->timeout_ms ? settings->timeout_ms : DNS_TIMEOUT_DEFAULT_MS;
    if (settings_same(dns, settings))
        return 0;
    struct ub_ctx *unbound = context_create(settings, anchor, error, error_bytes);
    if (!unbound)
        return -EINVAL;
    if (dns->probe) {
        dns_forget(dns->probe);
        dns->probe = NULL;
    }
    struct dns_question *question;
    while ((question = TAILQ_FIRST(&dns->asked))) {
        ub_cancel(dns->unbound, question->async_id);
        event_del(question->timer);
        question_set_state(question, QUESTION_WAITING);
    }
    int rc = dns_adopt(dns, unbound, settings, anchor);
    if (rc != 0) {
        snprintf(error, error_bytes, "out of memory");
        ub_ctx_delete(unbound);
    }
    dns_fill(dns);
    return rc;
}

static void forget_all(struct question_list *list) {
    struct dns_question *question, *next;
    for (question = TAILQ_FIRST(list); question; question = next) {
        next = TAILQ_NEXT(question, link);
        dns_forget(question);
    }
}

void dns_destroy(struct dns *dns) {
    if (!dns)
        return;
    forget_all(&dns->asked);
    forget_all(&dns->waiting);
    event_free(dns->readable);
    event_free(dns->probe_timer);
    ub_ctx_delete(dns->unbound);
    free(dns->servers);
    free(dns->trust_anchor_file);
    free(dns);
}
