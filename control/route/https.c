/* https.c: libcurl's multi interface on libevent. */
#include "https.h"

#include "domain.h"
#include "ip.h"
#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

enum {
    HOST_BYTES = 256,
    ENTRY_BYTES = HOST_BYTES + 17 + HTTPS_ADDRESSES_MAX * (INET6_ADDRSTRLEN + 3),
    HTTP_OK = 200,
    CONNECT_TIMEOUT_S = 20
};

enum call_state { CALL_WAITING, CALL_RESOLVING, CALL_TRANSFERRING };

struct call {
    struct https *https;
    TAILQ_ENTRY(call) link;
    enum call_state state;
    struct https_request request;
    char *url;
    uint8_t *sent;
    char host[HOST_BYTES];
    uint16_t port;
    struct dns_question *questions[2];
    uint32_t address_count;
    struct config_address addresses[HTTPS_ADDRESSES_MAX];
    bool prohibited;
    char dns_why[96];
    CURL *easy;
    struct curl_slist *resolve, *headers;
    char curl_why[CURL_ERROR_SIZE];
    char *body;
    size_t bytes;
    bool too_long;
};
TAILQ_HEAD(call_list, call);

struct https {
    struct event_base *base;
    struct dns *dns;
    char *ca_file;
    struct https_guard guard;
    CURLM *multi;
    struct event *timer, *next;
    struct call_list waiting, active;
    uint32_t waiting_count, active_count;
};

/* A socket of curl's, as libevent watches it. */
struct watch {
    struct https *https;
    struct event *event;
};

static void call_free(struct call *call) {
    struct https *https = call->https;
    for (int i = 0; i < 2; i++)
        if (call->questions[i])
            dns_forget(call->questions[i]);
    if (call->easy) {
        curl_multi_remove_handle(https->multi, call->easy);
        curl_easy_cleanup(call->easy);
    }
    curl_slist_free_all(call->resolve);
    curl_slist_free_all(call->headers);
    free(call->url);
    free(call->sent);
    free(call->body);
    free(call);
}

static void call_end(struct call *call, struct https_answer *answer) {
    struct https *https = call->https;
    TAILQ_REMOVE(&https->active, call, link);
    https->active_count--;
    call->request.done(call->request.context, answer);
    call_free(call);
    event_active(https->next, EV_TIMEOUT, 0);
}

static void call_fail(struct call *call, enum https_status status, const char *why) {
    struct https_answer answer = {.status = status};
    snprintf(answer.why, sizeof answer.why, "%s: %.120s", call->host, why);
    call_end(call, &answer);
}

static size_t on_body(char *data, size_t size, size_t count, void *context) {
    struct call *call = context;
    size_t more = size * count;
    if (call->bytes + more > HTTPS_ANSWER_BYTES_MAX) {
        call->too_long = true;
        return 0;
    }
    char *body = realloc(call->body, call->bytes + more + 1);
    if (!body)
        return 0;
    memcpy(body + call->bytes, data, more);
    call->body = body;
    call->bytes += more;
    return more;
}

static bool is_trust_failure(CURLcode code) {
    return code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_ISSUER_ERROR || code == CURLE_SSL_INVALIDCERTSTATUS;
}

/* RFC 8461 3.3: 200, and text/plain whatever its parameters. */
static void transfer_done(struct call *call, CURLcode code) {
    long status = 0;
    char *type = NULL;
    char words[64];
    curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(call->easy, CURLINFO_CONTENT_TYPE, &type);
    bool get = call->request.body == NULL;
    bool plain = type && strncasecmp(type, "text/plain", 10) == 0 && (type[10] == '\0' || type[10] == ';' || type[10] == ' ');
    if (code != CURLE_OK) {
        const char *why = call->too_long           ? "the answer is longer than 64 KiB"
                          : call->curl_why[0] != 0 ? call->curl_why
                                                   : curl_easy_strerror(code);
        call_fail(call, is_trust_failure(code) ? HTTPS_UNTRUSTED : HTTPS_FAILED, why);
    } else if (get ? status != HTTP_OK : status < 200 || status > 299) {
        snprintf(words, sizeof words, "it answers with HTTP status %ld", status);
        call_fail(call, HTTPS_FAILED, words);
    } else if (get && !plain) {
        call_fail(call, HTTPS_FAILED, "its answer is not text/plain");
    } else {
        struct https_answer answer = {.status = HTTPS_GOOD, .body = call->body ? call->body : "", .bytes = call->bytes};
        call_end(call, &answer);
    }
}

static void transfers_look(struct https *https) {
    CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(https->multi, &left))) {
        struct call *call = NULL;
        if (message->msg != CURLMSG_DONE)
            continue;
        CURLcode code = message->data.result;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&call);
        transfer_done(call, code);
    }
}

static void on_socket(evutil_socket_t fd, short what, void *context) {
    struct https *https = ((struct watch *)context)->https;
    int running;
    curl_multi_socket_action(https->multi, fd, ((what & EV_READ) ? CURL_CSELECT_IN : 0) | ((what & EV_WRITE) ? CURL_CSELECT_OUT : 0),
                             &running);
    transfers_look(https);
}

static void on_timer(evutil_socket_t fd, short what, void *context) {
    struct https *https = context;
    int running;
    curl_multi_socket_action(https->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    transfers_look(https);
}

static int watch_timer(CURLM *multi, long timeout_ms, void *context) {
    struct https *https = context;
    struct timeval wait = {.tv_sec = timeout_ms / 1000, .tv_usec = (suseconds_t)(timeout_ms % 1000) * 1000};
    if (timeout_ms < 0)
        event_del(https->timer);
    else
        event_add(https->timer, &wait);
    return 0;
}

static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *context, void *socket_context) {
    struct https *https = context;
    struct watch *watch = socket_context;
    if (what == CURL_POLL_REMOVE) {
        if (watch) {
            event_free(watch->event);
            free(watch);
        }
        curl_multi_assign(https->multi, fd, NULL);
        return 0;
    }
    short events = (short)(EV_PERSIST | ((what & CURL_POLL_IN) ? EV_READ : 0) | ((what & CURL_POLL_OUT) ? EV_WRITE : 0));
    if (!watch) {
        watch = calloc(1, sizeof *watch);
        if (!watch)
            return -1;
        watch->https = https;
    } else {
        event_free(watch->event);
    }
    watch->event = event_new(https->base, fd, events, on_socket, watch);
    if (!watch->event) {
        free(watch);
        curl_multi_assign(https->multi, fd, NULL);
        return -1;
    }
    event_add(watch->event, NULL);
    curl_multi_assign(https->multi, fd, watch);
    return 0;
}

/* "+host:443:192.0.2.1,[2001:db8::1]": libcurl asks no resolver of its own. With the plus it forgets them after a minute. */
static void resolve_text(const struct call *call, char text[ENTRY_BYTES]) {
    int used = snprintf(text, ENTRY_BYTES, "+%s:%u:", call->host, call->port);
    for (uint32_t i = 0; i < call->address_count; i++) {
        char ip[INET6_ADDRSTRLEN];
        bool v6 = call->addresses[i].family == 6;
        inet_ntop(v6 ? AF_INET6 : AF_INET, call->addresses[i].bytes, ip, sizeof ip);
        used += snprintf(text + used, ENTRY_BYTES - (size_t)used, "%s%s%s%s", i > 0 ? "," : "", v6 ? "[" : "", ip, v6 ? "]" : "");
    }
}

/* Whatever libcurl makes of the host's name: to no other address than those that the guard let pass. */
static curl_socket_t open_socket(void *context, curlsocktype purpose, struct curl_sockaddr *to) {
    const struct call *call = context;
    const void *bytes = to->family == AF_INET6 ? (const void *)&((const struct sockaddr_in6 *)(const void *)&to->addr)->sin6_addr
                                               : (const void *)&((const struct sockaddr_in *)(const void *)&to->addr)->sin_addr;
    uint8_t family = to->family == AF_INET6 ? 6 : to->family == AF_INET ? 4 : 0;
    for (uint32_t i = 0; purpose == CURLSOCKTYPE_IPCXN && family != 0 && i < call->address_count; i++)
        if (call->addresses[i].family == family && memcmp(call->addresses[i].bytes, bytes, family == 6 ? 16 : 4) == 0)
            return socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
    return CURL_SOCKET_BAD;
}

static bool options_set(struct call *call) {
    CURL *easy = call->easy;
    const struct https *https = call->https;
    CURLcode code = curl_easy_setopt(easy, CURLOPT_URL, call->url);
#define SET(option, value) (code = code == CURLE_OK ? curl_easy_setopt(easy, option, value) : code)
    SET(CURLOPT_PRIVATE, call);
    SET(CURLOPT_PROTOCOLS_STR, "https");
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_RESOLVE, call->resolve);
    SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
    SET(CURLOPT_OPENSOCKETDATA, call);
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_TIMEOUT, (long)HTTPS_TIMEOUT_S);
    SET(CURLOPT_CONNECTTIMEOUT, (long)CONNECT_TIMEOUT_S);
    SET(CURLOPT_FORBID_REUSE, 1L);
    SET(CURLOPT_USERAGENT, "bypost/" BYPOST_VERSION);
    SET(CURLOPT_ERRORBUFFER, call->curl_why);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, call);
    if (https->ca_file) {
        SET(CURLOPT_CAINFO, https->ca_file);
        SET(CURLOPT_CAPATH, NULL);
    }
    if (call->request.body) {
        SET(CURLOPT_POST, 1L);
        SET(CURLOPT_POSTFIELDS, (const char *)call->sent);
        SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->request.body_bytes);
    }
    SET(CURLOPT_HTTPHEADER, call->headers);
#undef SET
    return code == CURLE_OK;
}

static void call_transfer(struct call *call) {
    char entry[ENTRY_BYTES], type[128];
    resolve_text(call, entry);
    call->state = CALL_TRANSFERRING;
    call->resolve = curl_slist_append(NULL, entry);
    call->headers = curl_slist_append(NULL, "Expect:");
    if (call->request.content_type && call->headers) {
        snprintf(type, sizeof type, "Content-Type: %s", call->request.content_type);
        struct curl_slist *more = curl_slist_append(call->headers, type);
        if (!more)
            curl_slist_free_all(call->headers);
        call->headers = more;
    }
    call->easy = curl_easy_init();
    if (!call->easy || !call->resolve || !call->headers || !options_set(call)) {
        call_fail(call, HTTPS_FAILED, "out of memory");
        return;
    }
    if (curl_multi_add_handle(call->https->multi, call->easy) != CURLM_OK)
        call_fail(call, HTTPS_FAILED, "libcurl takes no more");
}

static bool may(const struct call *call, const struct config_address *address) {
    const struct https_guard *guard = &call->https->guard;
    return !guard->may || guard->may(guard->context, call->host, address);
}

static void on_host(struct call *call, struct dns_question **question, uint8_t family, const struct dns_answer *answer) {
    size_t bytes = family == 6 ? 16 : 4;
    *question = NULL;
    if (answer->status == DNS_FAILED)
        snprintf(call->dns_why, sizeof call->dns_why, "%s", answer->why);
    for (uint32_t i = 0; i < answer->count && call->address_count < HTTPS_ADDRESSES_MAX; i++) {
        struct config_address address = {.family = family, .prefix_length = (uint8_t)(bytes * 8)};
        if (answer->lengths[i] != (int)bytes)
            continue;
        memcpy(address.bytes, answer->data[i], bytes);
        if (!may(call, &address))
            call->prohibited = true;
        else
            call->addresses[call->address_count++] = address;
    }
    if (call->questions[0] || call->questions[1])
        return;
    if (call->address_count > 0)
        call_transfer(call);
    else if (call->prohibited)
        call_fail(call, HTTPS_PROHIBITED, "it has only addresses that are prohibited");
    else
        call_fail(call, HTTPS_FAILED, call->dns_why[0] ? call->dns_why : "it has no address");
}

static void on_a(void *context, const struct dns_answer *answer) {
    struct call *call = context;
    on_host(call, &call->questions[0], 4, answer);
}

static void on_aaaa(void *context, const struct dns_answer *answer) {
    struct call *call = context;
    on_host(call, &call->questions[1], 6, answer);
}

static void on_next(evutil_socket_t fd, short what, void *context) {
    struct https *https = context;
    struct call *call;
    while (https->active_count < HTTPS_AT_A_TIME && (call = TAILQ_FIRST(&https->waiting))) {
        TAILQ_REMOVE(&https->waiting, call, link);
        https->waiting_count--;
        TAILQ_INSERT_TAIL(&https->active, call, link);
        https->active_count++;
        call->state = CALL_RESOLVING;
        call->questions[0] = dns_ask(https->dns, call->host, DNS_TYPE_A, on_a, call);
        call->questions[1] = dns_ask(https->dns, call->host, DNS_TYPE_AAAA, on_aaaa, call);
        if (!call->questions[0] && !call->questions[1])
            call_fail(call, HTTPS_FAILED, "out of memory");
    }
}

/* Letters, digits, hyphens, underscores and dots: what libcurl hands on as it stands. It decodes %xx, makes IDNA of other bytes, and takes
 * a hyphen in front of CURLOPT_RESOLVE for an order to forget. */
static bool host_is_plain(const char *host) {
    static const char PLAIN[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    return host[0] != '\0' && host[0] != '-' && host[0] != '.' && host[strspn(host, PLAIN)] == '\0';
}

/* The host and port of the URL, as libcurl itself reads it. Address literals are no names, and are refused. */
static int url_read(struct call *call) {
    CURLU *url = curl_url();
    char *host = NULL, *port = NULL, *user = NULL;
    struct config_address literal;
    int rc = -EINVAL;
    if (url && curl_url_set(url, CURLUPART_URL, call->url, CURLU_DISALLOW_USER) == CURLUE_OK &&
        curl_url_get(url, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
        curl_url_get(url, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK && strncasecmp(call->url, "https://", 8) == 0 &&
        strlen(host) < sizeof call->host && host_is_plain(host) && ip_parse(host, &literal) != 0) {
        snprintf(call->host, sizeof call->host, "%s", host);
        call->port = (uint16_t)strtoul(port, NULL, 10);
        rc = 0;
    }
    curl_free(host);
    curl_free(port);
    curl_free(user);
    curl_url_cleanup(url);
    return rc;
}

int https_start(struct https *https, const struct https_request *request) {
    if (https->waiting_count >= HTTPS_WAITING_MAX)
        return -ENOBUFS;
    struct call *call = calloc(1, sizeof *call);
    if (!call)
        return -ENOMEM;
    call->https = https;
    call->request = *request;
    call->url = strdup(request->url);
    call->sent = request->body ? malloc(request->body_bytes + 1) : NULL;
    int rc = !call->url || (request->body && !call->sent) ? -ENOMEM : url_read(call);
    bool inward = rc == 0 && request->domain && !domain_is_reserved(request->domain) && domain_is_reserved(call->host);
    rc = rc == 0 && (inward || !may(call, NULL)) ? -EPERM : rc;
    if (rc != 0) {
        call_free(call);
        return rc;
    }
    if (request->body)
        memcpy(call->sent, request->body, request->body_bytes);
    TAILQ_INSERT_TAIL(&https->waiting, call, link);
    https->waiting_count++;
    event_active(https->next, EV_TIMEOUT, 0);
    return 0;
}

struct https *https_create(struct event_base *base, struct dns *dns, const char *ca_file, const struct https_guard *guard) {
    struct https *https = calloc(1, sizeof *https);
    if (!https)
        return NULL;
    https->base = base;
    https->dns = dns;
    https->guard = *guard;
    TAILQ_INIT(&https->waiting);
    TAILQ_INIT(&https->active);
    https->multi = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? curl_multi_init() : NULL;
    https->timer = evtimer_new(base, on_timer, https);
    https->next = evtimer_new(base, on_next, https);
    https->ca_file = ca_file ? strdup(ca_file) : NULL;
    if (!https->multi || !https->timer || !https->next || (ca_file && !https->ca_file)) {
        https_destroy(https);
        return NULL;
    }
    curl_multi_setopt(https->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
    curl_multi_setopt(https->multi, CURLMOPT_SOCKETDATA, https);
    curl_multi_setopt(https->multi, CURLMOPT_TIMERFUNCTION, watch_timer);
    curl_multi_setopt(https->multi, CURLMOPT_TIMERDATA, https);
    return https;
}

void https_reconfigure(struct https *https, const char *ca_file) {
    char *copy = ca_file ? strdup(ca_file) : NULL;
    if (ca_file && !copy)
        return;
    free(https->ca_file);
    https->ca_file = copy;
}

static void forget_all(struct call_list *list) {
    struct call *call;
    while ((call = TAILQ_FIRST(list))) {
        TAILQ_REMOVE(list, call, link);
        call_free(call);
    }
}

void https_destroy(struct https *https) {
    if (!https)
        return;
    forget_all(&https->active);
    forget_all(&https->waiting);
    if (https->multi)
        curl_multi_cleanup(https->multi);
    if (https->timer)
        event_free(https->timer);
    if (https->next)
        event_free(https->next);
    free(https->ca_file);
    free(https);
}
