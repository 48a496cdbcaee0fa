/* resolver.c: control/route's asynchronous questions, waited for. */
#include "resolver.h"

#include <ctype.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct resolver {
    struct event_base *base;
    struct dns *dns;
};

struct resolver *resolver_create(const struct config *config, char *error, size_t error_bytes) {
    struct dns_settings settings = {
        .servers = config->dns.servers, .server_count = config->dns.server_count, .timeout_ms = config->dns.timeout_ms};
    struct resolver *resolver = calloc(1, sizeof *resolver);
    snprintf(error, error_bytes, "out of memory");
    if (resolver) {
        resolver->base = event_base_new();
        resolver->dns = resolver->base ? dns_create(resolver->base, &settings, error, error_bytes) : NULL;
    }
    if (resolver && !resolver->dns) {
        resolver_free(resolver);
        return NULL;
    }
    return resolver;
}

void resolver_free(struct resolver *resolver) {
    if (!resolver) {
        return;
    }
    dns_destroy(resolver->dns);
    if (resolver->base) {
        event_base_free(resolver->base);
    }
    free(resolver);
}

struct waiting {
    struct resolver_answer *answer;
    bool done;
};

static void *copy(const void *bytes, size_t length) {
    void *made = malloc(length + 1);
    if (!made) {
        abort();
    }
    memcpy(made, bytes, length);
    return made;
}

static void on_answer(void *context, const struct dns_answer *from) {
    struct waiting *waiting = context;
    struct resolver_answer *answer = waiting->answer;
    answer->status = from->status;
    answer->data = calloc(from->count + 1, sizeof *answer->data);
    answer->lengths = calloc(from->count + 1, sizeof *answer->lengths);
    if (!answer->data || !answer->lengths) {
        abort();
    }
    for (uint32_t i = 0; i < from->count; i++) {
        answer->lengths[i] = from->lengths[i] > 0 ? (size_t)from->lengths[i] : 0;
        answer->data[i] = copy(from->data[i], answer->lengths[i]);
    }
    answer->count = from->count;
    snprintf(answer->why, sizeof answer->why, "%s", from->why ? from->why : "");
    snprintf(answer->canonical, sizeof answer->canonical, "%s", from->canonical ? from->canonical : "");
    waiting->done = true;
}

static void on_ahead(void *context, const struct dns_answer *answer) {}

void resolver_ask_ahead(struct resolver *resolver, const char *name, int type) {
    dns_ask(resolver->dns, name, type, on_ahead, NULL);
}

void resolver_ask(struct resolver *resolver, const char *name, int type, struct resolver_answer *answer) {
    struct waiting waiting = {.answer = answer};
    *answer = (struct resolver_answer){.status = DNS_FAILED, .why = "out of memory"};
    if (!dns_ask(resolver->dns, name, type, on_answer, &waiting)) {
        return;
    }
    while (!waiting.done) { /* bounded by the question's own timer */
        event_base_loop(resolver->base, EVLOOP_ONCE);
    }
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
