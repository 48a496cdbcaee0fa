/* service.c: a timer on the loop: READY=1 once, STATUS= when it changes, WATCHDOG=1 in time. */
#include "service.h"

#include "control/clock.h"

#include <bypost/notify.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TICK_MS = 250, STATUS_MS = 5000, STATUS_BYTES = 192 };

struct service {
    struct event *timer;
    bool (*status)(void *context, char *text, size_t text_bytes);
    void *context;
    bool ready;
    uint64_t began_ms, watchdog_ms, watchdog_due_ms, status_due_ms;
    char last[STATUS_BYTES];
};

static void on_tick(evutil_socket_t descriptor, short what, void *argument) {
    struct service *service = argument;
    uint64_t now_ms = clock_ms(CLOCK_MONOTONIC);
    char text[STATUS_BYTES], state[STATUS_BYTES + 32];
    if (service->watchdog_ms != 0 && now_ms >= service->watchdog_due_ms) {
        service->watchdog_due_ms = now_ms + service->watchdog_ms;
        notify_send("WATCHDOG=1");
    }
    if (service->ready && now_ms < service->status_due_ms)
        return;
    service->status_due_ms = now_ms + STATUS_MS;
    bool all = service->status(service->context, text, sizeof(text));
    bool begins = !service->ready && (all || now_ms - service->began_ms >= SERVICE_READY_MS);
    if (begins || strcmp(text, service->last) != 0) {
        snprintf(state, sizeof(state), "%sSTATUS=%s", begins ? "READY=1\n" : "", text);
        notify_send(state);
        memcpy(service->last, text, sizeof(text));
    }
    service->ready = service->ready || begins;
}

struct service *service_create(struct event_base *base, bool (*status)(void *context, char *text, size_t text_bytes), void *context) {
    const char *address = getenv("NOTIFY_SOCKET");
    struct service *service = address != NULL && address[0] != '\0' ? calloc(1, sizeof(*service)) : NULL;
    if (service == NULL)
        return NULL;
    *service = (struct service){.status = status,
                                .context = context,
                                .began_ms = clock_ms(CLOCK_MONOTONIC),
                                .watchdog_ms = notify_watchdog_us() / 1000,
                                .timer = event_new(base, -1, EV_PERSIST, on_tick, service)};
    struct timeval tick = {.tv_usec = TICK_MS * 1000};
    if (service->timer == NULL || event_add(service->timer, &tick) != 0) {
        service_destroy(service);
        return NULL;
    }
    return service;
}

void service_destroy(struct service *service) {
    if (service == NULL)
        return;
    if (service->timer != NULL)
        event_free(service->timer);
    free(service);
}
