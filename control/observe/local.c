/* local.c: control's local socket, both sides. The server lives on an event loop and is bounded in clients, line and answer; the client
 * waits. */
#include "local.h"
#include "control/clock.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    LOCAL_CLIENTS_MAX = 64,
    LOCAL_REQUEST_MAX = 4096,
    LOCAL_ANSWER_MAX = 16 << 20, /* a client that does not read is closed past this */
    LOCAL_IDLE_S = 300,
    LOCAL_BACKLOG = 16,
};

struct local_client {
    struct local_server *server;
    struct bufferevent *buffer;
    bool ending; /* it will ask nothing more; what it asked is still answered */
    LIST_ENTRY(local_client) link;
};

struct local_server {
    struct evconnlistener *listener;
    char *(*answer)(void *context, const char *request);
    void *context;
    char *path;
    dev_t device;
    ino_t inode; /* of the socket that was bound: another's is not removed */
    unsigned client_count;
    LIST_HEAD(, local_client) clients;
};

static void client_close(struct local_client *client) {
    LIST_REMOVE(client, link);
    client->server->client_count--;
    bufferevent_free(client->buffer);
    free(client);
}

static void client_answer(struct local_client *client, const char *request) {
    struct evbuffer *output = bufferevent_get_output(client->buffer);
    char *text = client->server->answer(client->server->context, request);
    evbuffer_add_printf(output, "%s\n", text ? text : "{\"error\":\"unknown request\"}");
    free(text);
}

static void client_readable(struct bufferevent *buffer, void *context) {
    struct local_client *client = context;
    struct evbuffer *input = bufferevent_get_input(buffer);
    char *line;
    size_t length;
    while (evbuffer_get_length(bufferevent_get_output(buffer)) < LOCAL_ANSWER_MAX &&
           (line = evbuffer_readln(input, &length, EVBUFFER_EOL_CRLF)) != NULL) {
        bool good = length <= LOCAL_REQUEST_MAX && strlen(line) == length;
        if (good) {
            client_answer(client, line);
        }
        free(line);
        if (!good) {
            client_close(client);
            return;
        }
    }
    if (evbuffer_get_length(input) > LOCAL_REQUEST_MAX) {
        client_close(client); /* a line without an end, or one who asks and never reads */
    }
}

static void client_event(struct bufferevent *buffer, short events, void *context) {
    struct local_client *client = context;
    if ((events & BEV_EVENT_EOF) && evbuffer_get_length(bufferevent_get_output(buffer)) > 0) {
        client->ending = true;
    } else if (events & (BEV_EVENT_EOF | BEV_EVENT_ERROR | BEV_EVENT_TIMEOUT)) {
        client_close(client);
    }
}

/* What waited for room in the output goes on. */
static void client_writable(struct bufferevent *buffer, void *context) {
    struct local_client *client = context;
    if (client->ending) {
        client_close(client);
        return;
    }
    client_readable(buffer, context);
}

static void server_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int length, void *context) {
    struct local_server *server = context;
    struct local_client *client = server->client_count < LOCAL_CLIENTS_MAX ? calloc(1, sizeof *client) : NULL;
    const struct timeval idle = {.tv_sec = LOCAL_IDLE_S};
    if (!client || !(client->buffer = bufferevent_socket_new(evconnlistener_get_base(listener), fd, BEV_OPT_CLOSE_ON_FREE))) {
        free(client);
        close(fd);
        return;
    }
    client->server = server;
    LIST_INSERT_HEAD(&server->clients, client, link);
    server->client_count++;
    bufferevent_setcb(client->buffer, client_readable, client_writable, client_event, client);
    bufferevent_set_timeouts(client->buffer, &idle, &idle);
    bufferevent_enable(client->buffer, EV_READ | EV_WRITE);
}

static bool path_address(const char *path, struct sockaddr_un *address, char *error, size_t error_bytes) {
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address->sun_path) {
        snprintf(error, error_bytes, "The socket path %s is longer than %zu bytes; choose a shorter run_directory.", path,
                 sizeof address->sun_path - 1);
        return false;
    }
    memcpy(address->sun_path, path, strlen(path));
    return true;
}

/* Does a living process listen there? */
static bool path_alive(const struct sockaddr_un *address) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool alive = fd >= 0 && (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 || errno == EAGAIN);
    if (fd >= 0) {
        close(fd);
    }
    return alive;
}

static int socket_bind(const char *path, char *error, size_t error_bytes) {
    struct sockaddr_un address;
    struct stat status;
    if (!path_address(path, &address, error, error_bytes)) {
        return -1;
    }
    if (lstat(path, &status) == 0) {
        if (!S_ISSOCK(status.st_mode)) {
            snprintf(error, error_bytes, "%s exists and is no socket; remove it, or choose another run_directory.", path);
            return -1;
        }
        if (path_alive(&address)) {
            snprintf(error, error_bytes, "Another control process listens at %s; stop it first, or choose another run_directory.", path);
            return -1;
        }
        unlink(path);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* The mode is set before listen(): until then nobody can connect. */
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || chmod(path, 0660) != 0 || listen(fd, LOCAL_BACKLOG) != 0) {
        snprintf(error, error_bytes, "Cannot listen at %s: %s. See that the folder exists and this user may write to it.", path,
                 strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    return fd;
}

struct local_server *local_server_create(struct event_base *base, const char *socket_path,
                                         char *(*answer)(void *context, const char *request), void *context, char *error,
                                         size_t error_bytes) {
    struct stat status;
    int fd = socket_bind(socket_path, error, error_bytes);
    if (fd < 0) {
        return NULL;
    }
    struct local_server *server = calloc(1, sizeof *server);
    char *path = strdup(socket_path);
    if (server && path && stat(path, &status) == 0) {
        *server =
            (struct local_server){.answer = answer, .context = context, .path = path, .device = status.st_dev, .inode = status.st_ino};
        LIST_INIT(&server->clients);
        server->listener = evconnlistener_new(base, server_accept, server, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
    }
    if (!server || !server->listener) {
        snprintf(error, error_bytes, "Cannot listen at %s: out of memory.", socket_path);
        unlink(socket_path);
        close(fd);
        free(server);
        free(path);
        return NULL;
    }
    return server;
}

void local_server_destroy(struct local_server *server) {
    struct stat status;
    if (!server) {
        return;
    }
    while (!LIST_EMPTY(&server->clients)) {
        client_close(LIST_FIRST(&server->clients));
    }
    if (stat(server->path, &status) == 0 && status.st_dev == server->device && status.st_ino == server->inode) {
        unlink(server->path);
    }
    evconnlistener_free(server->listener);
    free(server->path);
    free(server);
}

/* True when the descriptor is ready before the time is over. */
static bool descriptor_wait(int fd, short events, int64_t deadline_ms) {
    struct pollfd entry = {.fd = fd, .events = events};
    for (;;) {
        int64_t left = deadline_ms - (int64_t)clock_ms(CLOCK_MONOTONIC);
        int ready = left > 0 ? poll(&entry, 1, (int)left) : 0;
        if (ready < 0 && errno == EINTR) {
            continue;
        }
        return ready > 0;
    }
}

static const char *connect_remedy(int code) {
    return code == ENOENT || code == ECONNREFUSED ? "Start control with `bypost run`, or name its configuration with --config."
           : code == EACCES                       ? "Run this as root or as a member of the socket's group."
                                                  : "Try again.";
}

static bool request_send(int fd, const char *request, int64_t deadline_ms) {
    char *line = NULL;
    int length = asprintf(&line, "%s\n", request), sent = 0;
    while (sent < length) {
        ssize_t count = send(fd, line + sent, (size_t)(length - sent), MSG_NOSIGNAL);
        if (count > 0) {
            sent += (int)count;
        } else if (errno != EINTR && (errno != EAGAIN || !descriptor_wait(fd, POLLOUT, deadline_ms))) {
            break;
        }
    }
    free(line);
    return length > 0 && sent == length;
}

/* The answer's line, or NULL with errno: ETIMEDOUT, ECONNRESET, EMSGSIZE. */
static char *answer_read(int fd, int64_t deadline_ms) {
    size_t room = 4096, length = 0;
    char *text = malloc(room);
    int code = ENOMEM;
    while (text) {
        ssize_t count = recv(fd, text + length, room - length - 1, 0);
        if (count > 0) {
            char *end = memchr(text + length, '\n', (size_t)count);
            length += (size_t)count;
            if (end) {
                *end = 0;
                return text;
            }
            if (length + 1 == room) {
                char *larger = room < LOCAL_ANSWER_MAX ? realloc(text, room *= 2) : NULL;
                if (!larger) {
                    code = EMSGSIZE;
                    break;
                }
                text = larger;
            }
        } else if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
            code = ECONNRESET;
            break;
        } else if (errno == EAGAIN && !descriptor_wait(fd, POLLIN, deadline_ms)) {
            code = ETIMEDOUT;
            break;
        }
    }
    free(text);
    errno = code;
    return NULL;
}

char *local_request(const char *socket_path, const char *request, int timeout_ms, char *error, size_t error_bytes) {
    struct sockaddr_un address;
    int64_t deadline_ms = (int64_t)clock_ms(CLOCK_MONOTONIC) + timeout_ms;
    char *answer = NULL;
    if (strlen(request) > LOCAL_REQUEST_MAX || strchr(request, '\n')) {
        snprintf(error, error_bytes, "A request is one line of at most %d bytes.", LOCAL_REQUEST_MAX);
        return NULL;
    }
    if (!path_address(socket_path, &address, error, error_bytes)) {
        return NULL;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        snprintf(error, error_bytes, "No control process answers at %s: %s. %s", socket_path, strerror(errno), connect_remedy(errno));
    } else if (!request_send(fd, request, deadline_ms) || !(answer = answer_read(fd, deadline_ms))) {
        snprintf(error, error_bytes, "Control gave no answer at %s: %s. Look at its log.", socket_path, strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
    return answer;
}
