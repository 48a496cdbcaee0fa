/* metrics.c: evhttp, and the exposition format's few rules (escapes, one HELP and TYPE a family, OpenMetrics' "# EOF"). */
#include "metrics.h"

#include "control/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/listener.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    NAME_BYTES = 96,
    LABELS_BYTES = 1024,
    HEADERS_MAX_BYTES = 8192,
    BODY_MAX_BYTES = 1024,
    CLIENT_TIMEOUT_S = 10,
    BACKLOG = 16,
    CONNECTIONS_MAX = 32,
    SWEEP_MS = 500
};

struct metrics_page {
    struct evbuffer *out;
    bool open_metrics;
    enum metric_type type;
    char name[NAME_BYTES]; /* of the family */
};

struct metrics_server {
    struct evhttp *http;
    void (*fill)(void *context, struct metrics_page *page);
    void *context;
    char *socket_path; /* or NULL */
    /* evhttp bounds neither how many connect nor how slowly each may ask: those that are open, the oldest first, a reference each. */
    struct bufferevent *connections[CONNECTIONS_MAX];
    unsigned connection_count;
    struct evconnlistener *listener; /* evhttp's */
    struct event *sweep;             /* while any is open */
    struct histogram scrapes;
};

/* --- the page --- */

void metrics_family(struct metrics_page *page, enum metric_type type, const char *name, const char *help) {
    static const char *const types[] = {"counter", "gauge", "histogram"};
    const char *suffix = type == METRIC_COUNTER && !page->open_metrics ? "_total" : "";
    snprintf(page->name, sizeof(page->name), "%s", name);
    page->type = type;
    evbuffer_add_printf(page->out, "# HELP %s%s %s\n# TYPE %s%s %s\n", name, suffix, help, name, suffix, types[type]);
}

/* The value of a label: quotes, backslashes and line ends escaped; what is no printable ASCII stands as '?', so that it is UTF-8. */
static size_t label_escape(char *out, size_t room, const char *value) {
    size_t length = 0;
    for (; *value != '\0' && length + 3 < room; value++) {
        unsigned char byte = (unsigned char)*value;
        if (byte == '"' || byte == '\\')
            out[length++] = '\\';
        out[length++] = (char)(byte < 0x20 || byte > 0x7e ? '?' : byte);
    }
    out[length] = '\0';
    return length;
}

/* {a="b",c="d"}, from pairs ended by NULL. */
static void labels_write(char out[LABELS_BYTES], va_list pairs) {
    size_t length = 0;
    out[0] = '\0';
    for (const char *name; (name = va_arg(pairs, const char *)) != NULL && length + NAME_BYTES < LABELS_BYTES;) {
        const char *value = va_arg(pairs, const char *);
        length += (size_t)snprintf(out + length, LABELS_BYTES - length, "%c%s=\"", length == 0 ? '{' : ',', name);
        length += label_escape(out + length, LABELS_BYTES - length - 4, value);
        out[length++] = '"';
        out[length] = '\0';
    }
    if (length > 0) {
        out[length++] = '}';
        out[length] = '\0';
    }
}

static void value_write(struct metrics_page *page, const char *suffix, const char *labels, double value) {
    if (value == floor(value) && fabs(value) < 9e15) /* the common case, and exact */
        evbuffer_add_printf(page->out, "%s%s%s %lld\n", page->name, suffix, labels, (long long)value);
    else
        evbuffer_add_printf(page->out, "%s%s%s %.15g\n", page->name, suffix, labels, value);
}

void metrics_sample(struct metrics_page *page, double value, ...) {
    char labels[LABELS_BYTES];
    va_list pairs;
    va_start(pairs, value);
    labels_write(labels, pairs);
    va_end(pairs);
    value_write(page, page->type == METRIC_COUNTER ? "_total" : "", labels, value);
}

void metrics_one(struct metrics_page *page, enum metric_type type, const char *name, const char *help, double value) {
    metrics_family(page, type, name, help);
    metrics_sample(page, value, NULL);
}

static void bucket_write(struct metrics_page *page, const char *prefix, const char *bound, uint64_t count) {
    evbuffer_add_printf(page->out, "%s_bucket{%sle=\"%s\"} %llu\n", page->name, prefix, bound, (unsigned long long)count);
}

void metrics_histogram(struct metrics_page *page, const struct histogram *histogram, const char *label, const char *value) {
    char prefix[LABELS_BYTES] = "", labels[LABELS_BYTES] = "", bound[32];
    uint64_t count = 0;
    if (label != NULL) {
        size_t length = (size_t)snprintf(prefix, sizeof(prefix), "%s=\"", label);
        length += label_escape(prefix + length, sizeof(prefix) / 2, value);
        snprintf(prefix + length, sizeof(prefix) - length, "\",");
        snprintf(labels, sizeof(labels), "{%.*s}", (int)(length + 1), prefix);
    }
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        count += histogram->buckets[i];
        snprintf(bound, sizeof(bound), page->open_metrics && histogram_bounds_us[i] % 1000000 == 0 ? "%.1f" : "%.9g",
                 (double)histogram_bounds_us[i] / 1e6);
        bucket_write(page, prefix, bound, count);
    }
    count += histogram->buckets[HISTOGRAM_BUCKETS];
    bucket_write(page, prefix, "+Inf", count);
    value_write(page, "_sum", labels, (double)histogram->sum_us / 1e6);
    value_write(page, "_count", labels, (double)count);
}

/* --- the server --- */

static void serve(struct evhttp_request *request, void *context) {
    struct metrics_server *server = context;
    const char *accept = evhttp_find_header(evhttp_request_get_input_headers(request), "Accept");
    struct metrics_page page = {.out = evbuffer_new(),
                                .open_metrics = accept != NULL && strstr(accept, "application/openmetrics-text") != NULL};
    if (page.out == NULL) {
        evhttp_send_error(request, HTTP_INTERNAL, NULL);
        return;
    }
    uint64_t began_us = clock_us(CLOCK_MONOTONIC);
    server->fill(server->context, &page);
    metrics_family(&page, METRIC_HISTOGRAM, "bypost_scrape_seconds", "Time that control's loop spent on earlier scrapes of this page.");
    metrics_histogram(&page, &server->scrapes, NULL, NULL);
    if (page.open_metrics)
        evbuffer_add_printf(page.out, "# EOF\n");
    histogram_add(&server->scrapes, clock_us(CLOCK_MONOTONIC) - began_us);
    evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Type",
                      page.open_metrics ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                                        : "text/plain; version=0.0.4; charset=utf-8");
    evhttp_send_reply(request, HTTP_OK, "OK", page.out);
    evbuffer_free(page.out);
}

static void serve_other(struct evhttp_request *request, void *context) {
    evhttp_send_error(request, HTTP_NOTFOUND, "The metrics are at /metrics.");
}

/* Called by evhttp before each connection. The last that is taken closes the door until the next sweep. */
static struct bufferevent *connection_open(struct event_base *base, void *context) {
    static const struct timeval interval = {.tv_usec = SWEEP_MS * 1000};
    struct metrics_server *server = context;
    struct bufferevent *buffer = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
    if (buffer == NULL || server->connection_count == CONNECTIONS_MAX)
        return buffer;
    bufferevent_incref(buffer);
    server->connections[server->connection_count++] = buffer;
    if (server->connection_count == CONNECTIONS_MAX)
        evconnlistener_disable(server->listener);
    if (!evtimer_pending(server->sweep, NULL))
        evtimer_add(server->sweep, &interval);
    return buffer;
}

/* Lets go of what evhttp has let go (its callbacks are gone), and ends the oldest ones where there is no room for another. */
static void connections_sweep(evutil_socket_t descriptor, short what, void *context) {
    static const struct timeval interval = {.tv_usec = SWEEP_MS * 1000};
    struct metrics_server *server = context;
    unsigned kept = 0;
    for (unsigned i = 0; i < server->connection_count; i++) {
        bufferevent_data_cb readable, writable;
        bufferevent_event_cb event;
        bufferevent_getcb(server->connections[i], &readable, &writable, &event, NULL);
        if (readable == NULL && writable == NULL && event == NULL)
            bufferevent_decref(server->connections[i]);
        else
            server->connections[kept++] = server->connections[i];
    }
    server->connection_count = kept;
    for (unsigned i = 0; kept == CONNECTIONS_MAX && i < CONNECTIONS_MAX / 4; i++)
        shutdown(bufferevent_getfd(server->connections[i]), SHUT_RDWR); /* evhttp reads its end */
    if (kept < CONNECTIONS_MAX)
        evconnlistener_enable(server->listener);
    if (kept > 0)
        evtimer_add(server->sweep, &interval);
}

/* A socket in the file system: a stale one is replaced, a living one and anything else is left alone. */
static int unix_bind(const char *path, char *error, size_t error_bytes) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat status;
    if (strlen(path) >= sizeof(address.sun_path)) {
        snprintf(error, error_bytes, "the path %s is longer than %zu bytes", path, sizeof(address.sun_path) - 1);
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool there = fd >= 0 && lstat(path, &status) == 0;
    if (there && (!S_ISSOCK(status.st_mode) || connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 || errno == EAGAIN)) {
        snprintf(error, error_bytes, "%s is there already", path);
        close(fd);
        return -1;
    }
    if (there)
        unlink(path);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) != 0 || chmod(path, 0660) != 0 || listen(fd, BACKLOG) != 0) {
        snprintf(error, error_bytes, "%s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

static int tcp_bind(const char *listen_at, char *error, size_t error_bytes) {
    struct sockaddr_storage address = {0};
    int length = sizeof(address), on = 1;
    if (evutil_parse_sockaddr_port(listen_at, (struct sockaddr *)&address, &length) != 0) {
        snprintf(error, error_bytes, "%s is no ADDRESS:PORT", listen_at);
        return -1;
    }
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, (socklen_t)length) != 0 || listen(fd, BACKLOG) != 0) {
        snprintf(error, error_bytes, "%s: %s", listen_at, strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

struct metrics_server *metrics_create(struct event_base *base, const char *listen_at,
                                      void (*fill)(void *context, struct metrics_page *page), void *context, char *error,
                                      size_t error_bytes) {
    static const char scheme[] = "unix:";
    bool local = strncmp(listen_at, scheme, sizeof(scheme) - 1) == 0;
    const char *path = listen_at + sizeof(scheme) - 1;
    struct metrics_server *server = calloc(1, sizeof(*server));
    if (server == NULL || (local && (server->socket_path = strdup(path)) == NULL) || (server->http = evhttp_new(base)) == NULL) {
        snprintf(error, error_bytes, "out of memory");
        if (server != NULL)
            free(server->socket_path);
        free(server);
        return NULL;
    }
    int fd = local ? unix_bind(path, error, error_bytes) : tcp_bind(listen_at, error, error_bytes);
    struct evhttp_bound_socket *bound = NULL;
    server->sweep = evtimer_new(base, connections_sweep, server);
    if (fd < 0 || server->sweep == NULL || (bound = evhttp_accept_socket_with_handle(server->http, fd)) == NULL) {
        if (fd >= 0) {
            snprintf(error, error_bytes, "out of memory");
            close(fd);
        }
        free(server->socket_path);
        server->socket_path = NULL; /* it is not ours to take away */
        metrics_destroy(server);
        return NULL;
    }
    server->listener = evhttp_bound_socket_get_listener(bound);
    evhttp_set_bevcb(server->http, connection_open, server);
    server->fill = fill;
    server->context = context;
    evhttp_set_allowed_methods(server->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD);
    evhttp_set_max_headers_size(server->http, HEADERS_MAX_BYTES);
    evhttp_set_max_body_size(server->http, BODY_MAX_BYTES);
    evhttp_set_timeout(server->http, CLIENT_TIMEOUT_S);
    evhttp_set_cb(server->http, "/metrics", serve, server);
    evhttp_set_gencb(server->http, serve_other, server);
    return server;
}

void metrics_destroy(struct metrics_server *server) {
    if (server == NULL)
        return;
    if (server->http != NULL)
        evhttp_free(server->http);
    while (server->connection_count > 0)
        bufferevent_decref(server->connections[--server->connection_count]);
    if (server->sweep != NULL)
        event_free(server->sweep);
    if (server->socket_path != NULL)
        unlink(server->socket_path);
    free(server->socket_path);
    free(server);
}
