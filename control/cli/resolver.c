/* resolver.c: control/route's asynchronous questions, waited for. */
#include "resolver.h"
#include "control/route/domain.h"

#include <ctype.h>
#include <event2/event.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

struct question {
    struct resolver *resolver;
    int type;
    bool done;
    struct resolver_answer answer;
    char name[RESOLVER_NAME_BYTES];
};

struct resolver {
    struct event_base *base;
    struct dns *dns;
    void *questions; /* a tree (search.h) of every question so far */
    uint32_t open;
    uint64_t heard; /* answers that are none of failure */
    char failure[RESOLVER_WHY_BYTES];
    uint32_t silence_max_ms, silence_ms; /* waited for what failed */
    struct event *patience;              /* pending while something is waited for */
    bool gave_up;
};

static void on_impatience(evutil_socket_t fd, short what, void *context) {
    struct resolver *resolver = context;
    resolver->gave_up = true;
}

struct resolver *resolver_create(const struct config *config, char *error, size_t error_bytes) {
    struct dns_settings settings = {
        .servers = config->dns.servers, .server_count = config->dns.server_count, .timeout_ms = config->dns.timeout_ms};
    struct resolver *resolver = calloc(1, sizeof *resolver);
    snprintf(error, error_bytes, "out of memory");
    if (resolver) {
        resolver->silence_max_ms = RESOLVER_SILENCE_TIMEOUTS * (settings.timeout_ms ? settings.timeout_ms : DNS_TIMEOUT_DEFAULT_MS);
        resolver->base = event_base_new();
        resolver->patience = resolver->base ? evtimer_new(resolver->base, on_impatience, resolver) : NULL;
        resolver->dns = resolver->patience ? dns_create(resolver->base, &settings, error, error_bytes) : NULL;
    }
    if (resolver && !resolver->dns) {
        resolver_free(resolver);
        return NULL;
    }
    return resolver;
}

static void question_free(void *node) {
    struct question *question = node;
    resolver_forget(&question->answer);
    free(question);
}

void resolver_free(struct resolver *resolver) {
    if (!resolver) {
        return;
    }
    dns_destroy(resolver->dns);
    tdestroy(resolver->questions, question_free);
    if (resolver->patience) {
        event_free(resolver->patience);
    }
    if (resolver->base) {
        event_base_free(resolver->base);
    }
    free(resolver);
}

/* --- questions --- */

static void *copy(const void *bytes, size_t length) {
    void *made = malloc(length + 1);
    if (!made) {
        abort();
    }
    memcpy(made, bytes, length);
    return made;
}

/* The records, which are the caller's. */
static void records_copy(struct resolver_answer *answer, uint32_t count, uint8_t *const *data, const size_t *lengths) {
    answer->data = calloc(count + 1, sizeof *answer->data);
    answer->lengths = calloc(count + 1, sizeof *answer->lengths);
    if (!answer->data || !answer->lengths) {
        abort();
    }
    for (uint32_t i = 0; i < count; i++) {
        answer->lengths[i] = lengths[i];
        answer->data[i] = copy(data[i], lengths[i]);
    }
    answer->count = count;
}

static void on_answer(void *context, const struct dns_answer *from) {
    struct question *question = context;
    struct resolver *resolver = question->resolver;
    struct resolver_answer *answer = &question->answer;
    size_t *lengths = calloc(from->count + 1, sizeof *lengths);
    if (!lengths) {
        abort();
    }
    for (uint32_t i = 0; i < from->count; i++) {
        lengths[i] = from->lengths[i] > 0 ? (size_t)from->lengths[i] : 0;
    }
    records_copy(answer, from->count, from->data, lengths);
    free(lengths);
    answer->status = from->status;
    snprintf(answer->why, sizeof answer->why, "%s", from->why ? from->why : "");
    snprintf(answer->canonical, sizeof answer->canonical, "%s", from->canonical ? from->canonical : "");
    if (from->status == DNS_FAILED) {
        memcpy(resolver->failure, answer->why, sizeof resolver->failure);
    } else {
        resolver->heard++;
    }
    question->done = true;
    resolver->open--;
}

static int question_compare(const void *one, const void *other) {
    const struct question *a = one, *b = other;
    return a->type != b->type ? (a->type > b->type) - (a->type < b->type) : strcasecmp(a->name, b->name);
}

/* The question, asked now unless it was before. */
static struct question *question_get(struct resolver *resolver, const char *name, int type) {
    struct question *question = calloc(1, sizeof *question), **found;
    if (!question) {
        abort();
    }
    *question = (struct question){.resolver = resolver, .type = type, .answer = {.status = DNS_NO_NAME}};
    bool possible = domain_is_askable(name); /* libunbound refuses other names, and their timers would be waited for */
    snprintf(question->name, sizeof question->name, "%s", possible ? name : "");
    found = tsearch(question, &resolver->questions, question_compare);
    if (!found) {
        abort();
    }
    if (*found != question) {
        free(question);
        return *found;
    }
    if (!possible) {
        question->done = true;
    } else if (!resolver->gave_up && dns_ask(resolver->dns, question->name, type, on_answer, question)) {
        resolver->open++;
    } else {
        question->answer.status = DNS_FAILED;
        snprintf(question->answer.why, sizeof question->answer.why, "%s",
                 resolver->gave_up ? "the name servers were silent too long, and it was not asked" : "out of memory");
        question->done = true;
    }
    return question;
}

/* --- waiting --- */

static uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Bounded by the questions' own timers, and in all by the patience that is left: only what ended in failure uses it up. */
static void wait_while(struct resolver *resolver, bool (*is_open)(const void *subject), const void *subject) {
    uint32_t left_ms = resolver->silence_ms < resolver->silence_max_ms ? resolver->silence_max_ms - resolver->silence_ms : 0;
    struct timeval left = {.tv_sec = left_ms / 1000, .tv_usec = (suseconds_t)(left_ms % 1000) * 1000};
    uint64_t begun_ms = now_ms(), heard = resolver->heard;
    if (!is_open(subject) || resolver->gave_up) {
        return;
    }
    event_add(resolver->patience, &left);
    while (is_open(subject) && !resolver->gave_up) {
        if (event_base_loop(resolver->base, EVLOOP_ONCE) != 0) {
            resolver->gave_up = true; /* the loop is broken: nothing will come */
        } else if (resolver->heard != heard) {
            heard = resolver->heard;
            begun_ms = now_ms();
            event_add(resolver->patience, &left);
        }
    }
    event_del(resolver->patience);
    uint64_t silence_ms = now_ms() - begun_ms;
    resolver->silence_ms += (uint32_t)(silence_ms < resolver->silence_max_ms ? silence_ms : resolver->silence_max_ms);
}

static bool question_open(const void *subject) {
    const struct question *question = subject;
    return !question->done;
}

static bool any_open(const void *subject) {
    const struct resolver *resolver = subject;
    return resolver->open > 0;
}

void resolver_ask_ahead(struct resolver *resolver, const char *name, int type) {
    question_get(resolver, name, type);
}

void resolver_settle(struct resolver *resolver) {
    wait_while(resolver, any_open, resolver);
}

void resolver_ask(struct resolver *resolver, const char *name, int type, struct resolver_answer *answer) {
    const struct question *question = question_get(resolver, name, type);
    wait_while(resolver, question_open, question);
    *answer = (struct resolver_answer){.status = DNS_FAILED, .why = "the name servers were silent too long"};
    if (question->done) {
        *answer = question->answer;
        records_copy(answer, question->answer.count, question->answer.data, question->answer.lengths);
    }
}

const char *resolver_mute(const struct resolver *resolver) {
    return resolver->heard == 0 && *resolver->failure ? resolver->failure : NULL;
}

bool resolver_gave_up(const struct resolver *resolver) {
    return resolver->gave_up;
}

uint32_t resolver_silence_max_ms(const struct resolver *resolver) {
    return resolver->silence_max_ms;
}

void resolver_forget(struct resolver_answer *answer) {
    for (uint32_t i = 0; i < answer->count; i++) {
        free(answer->data[i]);
    }
    free(answer->data);
    free(answer->lengths);
    *answer = (struct resolver_answer){.status = DNS_FAILED};
}

bool resolver_name(const uint8_t *wire, size_t bytes, char text[RESOLVER_NAME_BYTES]) {
    size_t at = 0, used = 0;
    while (at < bytes && wire[at] != 0) {
        size_t length = wire[at++];
        if (length > 63 || at + length > bytes || used + length + 2 > RESOLVER_NAME_BYTES) {
            return false;
        }
        for (size_t i = 0; i < length; i++, at++) {
            if (wire[at] <= ' ' || wire[at] >= 0x7f || wire[at] == '.') {
                return false;
            }
            text[used++] = (char)tolower(wire[at]);
        }
        text[used++] = '.';
    }
    text[used > 0 ? used - 1 : 0] = '\0';
    return at < bytes;
}

void resolver_reverse(const struct config_address *address, char name[RESOLVER_NAME_BYTES]) {
    const uint8_t *bytes = address->bytes;
    if (address->family == 4) {
        snprintf(name, RESOLVER_NAME_BYTES, "%u.%u.%u.%u.in-addr.arpa", bytes[3], bytes[2], bytes[1], bytes[0]);
        return;
    }
    size_t used = 0;
    for (int i = 15; i >= 0; i--) {
        used += (size_t)snprintf(name + used, RESOLVER_NAME_BYTES - used, "%x.%x.", bytes[i] & 15u, (unsigned)bytes[i] >> 4);
    }
    snprintf(name + used, RESOLVER_NAME_BYTES - used, "ip6.arpa");
}
