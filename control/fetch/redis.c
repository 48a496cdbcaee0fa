/* redis.c: one connection to Redis on an event loop: handshake, Function library, reconnection. RESP2 and nothing that hiredis 0.14 lacks.
 */
#include "redis.h"

#include "control/clock.h"
#include "control/observe/log.h"
#include "control/library/library.h"

#include <errno.h>
#include <hiredis/adapters/libevent.h>
#include <hiredis/async.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum {
    BACKOFF_FIRST_MS = 100,
    BACKOFF_MAX_MS = 2000,
    HANDSHAKE_TIMEOUT_MS = 5000, /* longer than any server that is up needs */
    ANSWER_TIMEOUT_MS = 30000,   /* a blocking read answers within 5 s; what is silent for longer is dead */
    WATCH_INTERVAL_MS = 1000,
    OUTPUT_MAX_BYTES = 256 << 20, /* holds ten seconds of commits and not an unbounded queue */
    REASON_BYTES = 192,
};

/* What the handshake waits for. */
enum redis_step { STEP_IDLE, STEP_CONNECT, STEP_AUTH, STEP_SELECT, STEP_INFO, STEP_VERSION, STEP_LOAD, STEP_DONE };

struct redis {
    struct event_base *base;
    const struct config *config;
    bool is_unix;
    char host[256]; /* or the socket's path */
    int port;
    redisAsyncContext *context; /* NULL between connections */
    enum redis_step step;
    enum redis_state state;
    bool announced; /* `up` was called for this connection */
    bool refused;   /* the library is newer than ours: said once */
    struct event *retry, *watch;
    uint32_t backoff_ms;
    uint64_t since_ms; /* of the handshake, then of the last answer or of the first unanswered command */
    uint64_t heard_ms; /* of the last answer, on whichever connection */
    unsigned pending;
    size_t pending_bytes;
    char run_id[64];
    bool run_id_changed;
    char reason[REASON_BYTES];
    struct redis_events listeners[REDIS_LISTENERS_MAX];
    unsigned listener_count;
};

/* A command under way. */
struct command {
    struct redis *redis;
    void (*done)(void *context, redisReply *reply);
    void *context;
    size_t bytes;
};

static void redis_connect(struct redis *redis);
static void redis_step_enter(struct redis *redis, enum redis_step step);

static void timer_set(struct event *timer, uint32_t ms) {
    struct timeval after = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};
    event_add(timer, &after);
}

static bool has_prefix(const char *text, const char *prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

const char *redis_error(const redisReply *reply) {
    return reply && reply->type == REDIS_REPLY_ERROR ? reply->str : NULL;
}

void redis_shard_prefix(const struct config *config, uint32_t shard, char out[REDIS_KEY_MAX]) {
    snprintf(out, REDIS_KEY_MAX, "%.100s:{%" PRIu32 "}:", config->redis.prefix ? config->redis.prefix : "bypost", shard);
}

/* Errors that no caller can mend: this server does not serve, for the time being. */
static bool error_is_fatal(const char *error) {
    static const char *const fatal[] = {"LOADING ",    "READONLY ", "MASTERDOWN ", "BUSY ",
                                        "CLUSTERDOWN", "NOAUTH ",   "UNKILLABLE",  "ERR Function not found"};
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++) {
        if (has_prefix(error, fatal[i])) {
            return true;
        }
    }
    return false;
}

/* Copies what may have come from the server for a log line. */
static void reason_set(struct redis *redis, const char *what, const char *detail) {
    int used = snprintf(redis->reason, sizeof redis->reason, "%s%s%.120s", what, detail && *detail ? ": " : "", detail ? detail : "");
    for (int i = 0; i < used && i < (int)sizeof redis->reason; i++) {
        if ((unsigned char)redis->reason[i] < 32) {
            redis->reason[i] = ' ';
        }
    }
}

/* The connection is gone: tells the listeners once, and tries again later. */
static void redis_gone(struct redis *redis) {
    redis->context = NULL;
    redis->state = REDIS_DOWN;
    redis->step = STEP_IDLE;
    evtimer_del(redis->retry);
    redis->pending = 0;
    redis->pending_bytes = 0;
    bool announced = redis->announced;
    redis->announced = false;
    if (announced) {
        redis->backoff_ms = BACKOFF_FIRST_MS;
    }
    log_write(LOG_LEVEL_WARNING, "redis", "no connection to Redis at %s: %s", redis->config->redis.address, redis->reason);
    uint16_t random = 0;
    if (getrandom(&random, sizeof random, GRND_NONBLOCK) != sizeof random) {
        random = 0x8000;
    }
    timer_set(redis->retry, redis->backoff_ms * 3 / 4 + redis->backoff_ms * random / 0x20000);
    redis->backoff_ms = redis->backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : redis->backoff_ms * 2;
    for (unsigned i = 0; announced && i < redis->listener_count; i++) {
        if (redis->listeners[i].down) {
            redis->listeners[i].down(redis->listeners[i].context, redis->reason);
        }
    }
}

/* Ends the connection from this side; redis_gone follows through hiredis, after every command was called back. */
static void redis_drop(struct redis *redis, const char *what, const char *detail) {
    redisAsyncContext *context = redis->context;
    if (!context || redis->state == REDIS_DOWN) {
        return;
    }
    redis->state = REDIS_DOWN;
    reason_set(redis, what, detail);
    bool connected = redis->step != STEP_CONNECT;
    redisAsyncFree(context); /* within a callback hiredis frees it afterwards */
    if (!connected && redis->context == context) {
        redis_gone(redis); /* hiredis reports an end only where there was a connection */
    }
}

void redis_reconnect(struct redis *redis, const char *reason) {
    redis_drop(redis, "connecting anew", reason);
}

static void on_disconnect(const redisAsyncContext *context, int status) {
    struct redis *redis = context->data;
    if (!redis || redis->context != context) {
        return; /* destroyed */
    }
    if (redis->state != REDIS_DOWN) {
        reason_set(redis, status == REDIS_OK ? "closed" : "connection lost", context->errstr);
    }
    redis_gone(redis);
}

static void on_connect(const redisAsyncContext *context, int status) {
    struct redis *redis = context->data;
    if (!redis || redis->context != context) {
        return;
    }
    if (status != REDIS_OK) {
        reason_set(redis, "connecting failed", context->errstr);
        redis_gone(redis);
        return;
    }
    timer_set(redis->retry, 0); /* hiredis 0.14 does not bear that its connection is freed within this callback */
}

static void on_reply(redisAsyncContext *context, void *data, void *private) {
    struct command *command = private;
    struct redis *redis = context->data;
    redisReply *reply = data;
    if (redis) {
        redis->pending -= redis->pending > 0;
        redis->pending_bytes -= redis->pending_bytes < command->bytes ? redis->pending_bytes : command->bytes;
        redis->since_ms = clock_ms(CLOCK_MONOTONIC);
        redis->heard_ms = reply ? redis->since_ms : redis->heard_ms;
        const char *error = redis_error(reply);
        if (error && redis->step == STEP_DONE && error_is_fatal(error)) {
            redis_drop(redis, "the server refuses", error);
            reply = NULL;
        }
    }
    if (command->done) {
        command->done(command->context, reply);
    }
    free(command);
}

static int command_send(struct redis *redis, void (*done)(void *context, redisReply *reply), void *context, int argc,
                        const char *const *argv, const size_t *lengths) {
    size_t bytes = 0;
    for (int i = 0; i < argc; i++) {
        bytes += (lengths ? lengths[i] : strlen(argv[i])) + 16;
    }
    if (redis->pending > 0 && redis->pending_bytes + bytes > OUTPUT_MAX_BYTES) {
        return -ENOBUFS;
    }
    struct command *command = malloc(sizeof *command);
    if (!command) {
        return -ENOBUFS;
    }
    *command = (struct command){.redis = redis, .done = done, .context = context, .bytes = bytes};
    if (redisAsyncCommandArgv(redis->context, on_reply, command, argc, (const char **)argv, lengths) != REDIS_OK) {
        free(command);
        return -ENOTCONN;
    }
    if (redis->pending == 0) {
        redis->since_ms = clock_ms(CLOCK_MONOTONIC);
    }
    redis->pending++;
    redis->pending_bytes += bytes;
    return 0;
}

int redis_send(struct redis *redis, void (*done)(void *context, redisReply *reply), void *context, int argc, const char *const *argv,
               const size_t *lengths) {
    if (redis->state != REDIS_UP) {
        return -ENOTCONN;
    }
    return command_send(redis, done, context, argc, argv, lengths);
}

/* Reads the password file into out, without its line end. Length, or -errno. */
static ssize_t password_read(const char *path, char *out, size_t bytes) {
    FILE *file = fopen(path, "re");
    if (!file) {
        return -errno;
    }
    setvbuf(file, NULL, _IONBF, 0); /* no copy of the secret in a buffer of stdio's */
    size_t length = fread(out, 1, bytes - 1, file);
    fclose(file);
    while (length > 0 && (out[length - 1] == '\n' || out[length - 1] == '\r')) {
        length--;
    }
    out[length] = 0;
    return (ssize_t)length;
}

/* The value of "name:" in INFO's answer. */
static bool info_value(const char *info, const char *name, char *out, size_t bytes) {
    size_t length = strlen(name);
    for (const char *line = info; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
        if (strncmp(line, name, length) == 0 && line[length] == ':') {
            size_t n = strcspn(line + length + 1, "\r\n");
            snprintf(out, bytes, "%.*s", (int)(n < bytes ? n : bytes - 1), line + length + 1);
            return true;
        }
    }
    return false;
}

static void redis_announce(struct redis *redis) {
    redis->state = REDIS_UP;
    redis->backoff_ms = BACKOFF_FIRST_MS;
    redis->announced = true;
    log_write(LOG_LEVEL_INFO, "redis", "connected to Redis at %s%s", redis->config->redis.address,
              redis->run_id_changed ? ": another server, or restarted" : "");
    bool changed = redis->run_id_changed;
    for (unsigned i = 0; i < redis->listener_count && redis->state == REDIS_UP; i++) {
        if (redis->listeners[i].up) {
            redis->listeners[i].up(redis->listeners[i].context, changed);
        }
    }
}

/* INFO: is it loading, is it a replica, is it the server of last time? */
static void info_take(struct redis *redis, const char *info) {
    char value[64];
    if (info_value(info, "loading", value, sizeof value) && strcmp(value, "0") != 0) {
        redis->state = REDIS_LOADING;
        redis_drop(redis, "the server is loading its data", NULL);
        return;
    }
    if (info_value(info, "role", value, sizeof value) && strcmp(value, "master") != 0) {
        redis_drop(redis, "the server is a replica; `redis.address` must name the primary", NULL);
        return;
    }
    if (!info_value(info, "run_id", value, sizeof value)) {
        redis_drop(redis, "INFO tells no run_id: is this Redis or Valkey?", NULL);
        return;
    }
    redis->run_id_changed = redis->run_id[0] != 0 && strcmp(redis->run_id, value) != 0;
    snprintf(redis->run_id, sizeof redis->run_id, "%s", value);
    redis_step_enter(redis, STEP_VERSION);
}

static void version_take(struct redis *redis, const redisReply *reply) {
    const char *error = redis_error(reply);
    if (error && strstr(error, "Function not found")) {
        redis_step_enter(redis, STEP_LOAD);
    } else if (error) {
        redis_drop(redis, "the Function library does not answer; bypost needs Redis 7.0 or Valkey", error);
    } else if (reply->type != REDIS_REPLY_INTEGER || reply->integer < (long long)library_version()) {
        redis_step_enter(redis, STEP_LOAD);
    } else if (reply->integer > (long long)library_version()) {
        char text[96];
        snprintf(text, sizeof text, "version %lld there, %u here", reply->integer, library_version());
        if (!redis->refused) {
            log_write(LOG_LEVEL_ERROR, "redis",
                      "the Function library in Redis is newer than this bypost's (%s): upgrade this node, or, when no newer node runs, "
                      "remove it with "
                      "FUNCTION DELETE bypost",
                      text);
        }
        redis->refused = true;
        redis->backoff_ms = BACKOFF_MAX_MS;
        redis_drop(redis, "the Function library in Redis is newer than this bypost's", text);
    } else {
        redis->refused = false;
        redis_step_enter(redis, STEP_DONE);
    }
}

/* The answer to the handshake's step. */
static void on_step(void *context, redisReply *reply) {
    struct redis *redis = context;
    if (!reply || redis->state == REDIS_DOWN) {
        return;
    }
    const char *error = redis_error(reply);
    switch (redis->step) {
    case STEP_AUTH:
        if (error) {
            redis_drop(redis, "the server refuses the user or password of `redis`", error);
        } else {
            redis_step_enter(redis, STEP_SELECT);
        }
        break;
    case STEP_SELECT:
        if (error) {
            redis_drop(redis, "SELECT of `redis.database` failed", error);
        } else {
            redis_step_enter(redis, STEP_INFO);
        }
        break;
    case STEP_INFO:
        if (error || reply->type != REDIS_REPLY_STRING) {
            redis_drop(redis, "INFO failed", error);
        } else {
            info_take(redis, reply->str);
        }
        break;
    case STEP_VERSION:
        version_take(redis, reply);
        break;
    case STEP_LOAD:
        if (error) {
            redis_drop(redis, "FUNCTION LOAD failed", error);
        } else {
            log_write(LOG_LEVEL_INFO, "redis", "loaded the Function library, version %u", library_version());
            redis_step_enter(redis, STEP_DONE);
        }
        break;
    case STEP_IDLE:
    case STEP_CONNECT:
    case STEP_DONE:
        break;
    }
}

static void step_send(struct redis *redis, int argc, const char *const *argv, const size_t *lengths) {
    if (command_send(redis, on_step, redis, argc, argv, lengths) != 0) {
        redis_drop(redis, "sending failed", NULL);
    }
}

static void step_auth(struct redis *redis) {
    const struct config *config = redis->config;
    if (!config->redis.password_file) {
        redis_step_enter(redis, STEP_SELECT);
        return;
    }
    char password[1024];
    ssize_t length = password_read(config->redis.password_file, password, sizeof password);
    if (length < 0) {
        redis_drop(redis, "the file of `redis.password_file` cannot be read", strerror((int)-length));
        return;
    }
    const char *with_user[] = {"AUTH", config->redis.username, password};
    const char *without[] = {"AUTH", password};
    step_send(redis, config->redis.username ? 3 : 2, config->redis.username ? with_user : without, NULL);
    explicit_bzero(password, sizeof password);
}

/* The one place that changes the handshake's step. */
static void redis_step_enter(struct redis *redis, enum redis_step step) {
    redis->step = step;
    switch (step) {
    case STEP_AUTH:
        step_auth(redis);
        break;
    case STEP_SELECT: {
        if (redis->config->redis.database == 0) {
            redis_step_enter(redis, STEP_INFO);
            break;
        }
        char number[16];
        snprintf(number, sizeof number, "%" PRIu32, redis->config->redis.database);
        step_send(redis, 2, (const char *[]){"SELECT", number}, NULL);
        break;
    }
    case STEP_INFO:
        step_send(redis, 1, (const char *[]){"INFO"}, NULL); /* one section a command in 7.0, and three are needed */
        break;
    case STEP_VERSION:
        step_send(redis, 3, (const char *[]){"FCALL", "bypost_version", "0"}, NULL);
        break;
    case STEP_LOAD:
        step_send(redis, 4, (const char *[]){"FUNCTION", "LOAD", "REPLACE", library_text()}, NULL);
        break;
    case STEP_DONE:
        redis_announce(redis);
        break;
    case STEP_IDLE:
    case STEP_CONNECT:
        break;
    }
}

static void redis_connect(struct redis *redis) {
    redis->since_ms = clock_ms(CLOCK_MONOTONIC);
    redis->step = STEP_CONNECT;
    redis->state = REDIS_LOADING;
    redisAsyncContext *context = redis->is_unix ? redisAsyncConnectUnix(redis->host) : redisAsyncConnect(redis->host, redis->port);
    if (!context || context->err) {
        reason_set(redis, "connecting failed", context ? context->errstr : "out of memory");
        if (context) {
            redisAsyncFree(context);
        }
        redis_gone(redis);
        return;
    }
    redis->context = context;
    context->data = redis;
    if (redisLibeventAttach(context, redis->base) != REDIS_OK) {
        context->data = NULL;
        redisAsyncFree(context);
        reason_set(redis, "the event loop refuses", NULL);
        redis_gone(redis);
        return;
    }
    redisAsyncSetConnectCallback(context, on_connect);
    redisAsyncSetDisconnectCallback(context, on_disconnect);
}

static void on_retry(evutil_socket_t fd, short what, void *context) {
    struct redis *redis = context;
    if (redis->context) {
        if (redis->step == STEP_CONNECT) {
            redis_step_enter(redis, STEP_AUTH);
        }
    } else {
        redis_connect(redis);
    }
}

static void on_watch(evutil_socket_t fd, short what, void *context) {
    struct redis *redis = context;
    uint64_t age = clock_ms(CLOCK_MONOTONIC) - redis->since_ms;
    if (redis->context && redis->step != STEP_DONE && age > HANDSHAKE_TIMEOUT_MS) {
        redis_drop(redis, "the server does not answer", NULL);
    } else if (redis->context && redis->pending > 0 && age > ANSWER_TIMEOUT_MS) {
        redis_drop(redis, "the server has not answered for 30 s", NULL);
    }
}

/* "unix:/path", "host:port", "[v6]:port". */
static bool address_parse(struct redis *redis, const char *address, char *error, size_t error_bytes) {
    if (!address || !*address) {
        snprintf(error, error_bytes, "redis.address is missing: give unix:/path, host:port or [v6]:port");
        return false;
    }
    if (has_prefix(address, "unix:")) {
        redis->is_unix = true;
        const char *path = address + 5;
        if (*path != '/' || strlen(path) > 107) {
            snprintf(error, error_bytes, "redis.address %.120s: a socket's path begins with / and has at most 107 bytes", address);
            return false;
        }
        snprintf(redis->host, sizeof redis->host, "%s", path);
        return true;
    }
    const char *colon = strrchr(address, ':');
    const char *first = address, *end = colon;
    if (colon && *address == '[') {
        first = address + 1;
        end = colon > first && colon[-1] == ']' ? colon - 1 : NULL;
    }
    char *rest = NULL;
    long port = colon ? strtol(colon + 1, &rest, 10) : 0;
    if (!colon || !end || end == first || (size_t)(end - first) >= sizeof redis->host || port < 1 || port > 65535 || *rest) {
        snprintf(error, error_bytes, "redis.address %.120s is none: give unix:/path, host:port or [v6]:port", address);
        return false;
    }
    snprintf(redis->host, sizeof redis->host, "%.*s", (int)(end - first), first);
    redis->port = (int)port;
    return true;
}

struct redis *redis_create(struct event_base *base, const struct config *config, char *error, size_t error_bytes) {
    struct redis *redis = calloc(1, sizeof *redis);
    if (!redis) {
        snprintf(error, error_bytes, "out of memory");
        return NULL;
    }
    redis->base = base;
    redis->config = config;
    redis->backoff_ms = BACKOFF_FIRST_MS;
    if (!address_parse(redis, config->redis.address, error, error_bytes)) {
        free(redis);
        return NULL;
    }
    redis->retry = evtimer_new(base, on_retry, redis);
    redis->watch = event_new(base, -1, EV_PERSIST, on_watch, redis);
    if (!redis->retry || !redis->watch) {
        snprintf(error, error_bytes, "out of memory");
        redis_destroy(redis);
        return NULL;
    }
    timer_set(redis->retry, 0);
    timer_set(redis->watch, WATCH_INTERVAL_MS);
    return redis;
}

int redis_listen(struct redis *redis, const struct redis_events *events) {
    if (redis->listener_count == REDIS_LISTENERS_MAX) {
        return -ENOSPC;
    }
    redis->listeners[redis->listener_count++] = *events;
    return 0;
}

void redis_reconfigure(struct redis *redis, const struct config *config) {
    redis->config = config;
}

void redis_ignore(struct redis *redis, const void *context) {
    for (unsigned i = 0; i < redis->listener_count; i++) {
        if (redis->listeners[i].context == context) {
            redis->listeners[i] = (struct redis_events){.context = NULL};
        }
    }
}

void redis_destroy(struct redis *redis) {
    if (!redis) {
        return;
    }
    if (redis->context) {
        redisAsyncContext *context = redis->context;
        redis->state = REDIS_DOWN;
        redis->context = NULL;
        redis->announced = false;
        context->data = NULL;
        redisAsyncFree(context);
    }
    if (redis->retry) {
        event_free(redis->retry);
    }
    if (redis->watch) {
        event_free(redis->watch);
    }
    free(redis);
}

enum redis_state redis_state(const struct redis *redis) {
    return redis->state;
}

uint64_t redis_heard_ms(const struct redis *redis) {
    return redis->heard_ms;
}
