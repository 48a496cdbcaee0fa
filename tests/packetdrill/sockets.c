/* sockets.c: system calls on bypost's TCP: what a script does to a socket, and what the stack tells it. */
#include "adapter.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

enum {
    SEND_BYTES_MAX = 4 << 20,
    CONNECT_US = 127 * 1000 * 1000,
};

struct owned {
    struct tcp_owner owner;
    uint8_t bytes[];
};

static void on_released(struct tcp_owner *owner) {
    free((struct owned *)(void *)owner);
}

static void on_connected(void *user, struct tcp_conn *conn, uint64_t now_us) {
    ((struct sock *)user)->connected = true;
}

static uint32_t on_received(void *user, struct tcp_conn *conn, const uint8_t *bytes, uint32_t length, uint64_t now_us) {
    struct sock *sock = user;
    if (sock->closed_by_user)
        return length;
    if (sock->bytes_held + length > sock->bytes_room) {
        size_t room = (sock->bytes_held + length) * 2;
        uint8_t *more = realloc(sock->bytes, room);
        if (more == NULL)
            return 0;
        sock->bytes = more;
        sock->bytes_room = room;
    }
    memcpy(sock->bytes + sock->bytes_held, bytes, length);
    sock->bytes_held += length;
    return length;
}

static void on_peer_closed(void *user, struct tcp_conn *conn, uint64_t now_us) {
    ((struct sock *)user)->peer_ended = true;
}

static void on_acknowledged(void *user, struct tcp_conn *conn, uint32_t bytes, uint64_t now_us) {
    ((struct sock *)user)->queued -= bytes;
}

static void on_closed(void *user, struct tcp_conn *conn, enum tcp_error error, uint64_t now_us) {
    static const int codes[] = {[TCP_OK] = 0,
                                [TCP_REFUSED] = ECONNREFUSED,
                                [TCP_RESET] = ECONNRESET,
                                [TCP_TIMED_OUT] = ETIMEDOUT,
                                [TCP_UNREACHABLE] = EHOSTUNREACH,
                                [TCP_ABORTED] = ECONNABORTED};
    struct sock *sock = user;
    sock->conn = NULL;
    sock->ended = true;
    sock->error = codes[error];
    if (sock->closed_by_user) {
        free(sock->bytes);
        memset(sock, 0, sizeof(*sock));
    }
}

static struct sock *sock_new(struct adapter *adapter, int domain) {
    for (int i = 0; i < SOCKETS_MAX; i++)
        if (!adapter->socks[i].used) {
            /* A descriptor that is really open: the tool closes what a script leaves. */
            int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
            if (fd < 0)
                return NULL;
            adapter->socks[i] = (struct sock){.adapter = adapter, .used = true, .domain = domain, .fd = fd};
            return &adapter->socks[i];
        }
    return NULL;
}

static void *on_accepted(void *listener_user, struct tcp_conn *conn, uint64_t now_us) {
    struct sock *listener = listener_user;
    struct sock *sock = sock_new(listener->adapter, listener->domain);
    if (sock == NULL)
        return NULL;
    sock->conn = conn;
    sock->connected = true;
    sock->listener = listener;
    return sock;
}

const struct tcp_events sockets_events = {.connected = on_connected,
                                          .received = on_received,
                                          .peer_closed = on_peer_closed,
                                          .acknowledged = on_acknowledged,
                                          .closed = on_closed,
                                          .accepted = on_accepted};

static struct sock *sock_at(struct adapter *adapter, int fd) {
    for (int i = 0; i < SOCKETS_MAX; i++)
        if (adapter->socks[i].used && !adapter->socks[i].closed_by_user && adapter->socks[i].fd == fd)
            return &adapter->socks[i];
    return NULL;
}

static bool take_sockaddr(const struct sockaddr *from, struct tcp_address *address, uint16_t *port) {
    memset(address, 0, sizeof(*address));
    if (from->sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)from;
        memcpy(address->bytes, &v4->sin_addr, 4);
        address->family = 4;
        *port = ntohs(v4->sin_port);
        return true;
    }
    if (from->sa_family != AF_INET6)
        return false;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)from;
    *port = ntohs(v6->sin6_port);
    if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
        memcpy(address->bytes, v6->sin6_addr.s6_addr + 12, 4);
        address->family = 4;
        return true;
    }
    memcpy(address->bytes, &v6->sin6_addr, 16);
    address->family = 6;
    return true;
}

static void give_sockaddr(const struct tcp_address *address, uint16_t port, int domain, struct sockaddr *to, socklen_t *length) {
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    const void *from = &v6;
    socklen_t size = sizeof(v6);
    if (to == NULL || length == NULL)
        return;
    if (address->family == 6) {
        memcpy(&v6.sin6_addr, address->bytes, 16);
    } else if (domain == AF_INET6) {
        v6.sin6_addr.s6_addr[10] = v6.sin6_addr.s6_addr[11] = 0xff;
        memcpy(v6.sin6_addr.s6_addr + 12, address->bytes, 4);
    } else {
        memcpy(&v4.sin_addr, address->bytes, 4);
        from = &v4;
        size = sizeof(v4);
    }
    memcpy(to, from, *length < size ? *length : size);
    *length = size;
}

static int sockets_socket(void *userdata, int domain, int type, int protocol) {
    struct adapter *adapter = userdata;
    adapter_enter(adapter);
    struct sock *sock = (type & 0xff) == SOCK_STREAM ? sock_new(adapter, domain) : NULL;
    if (sock == NULL)
        return adapter_leave(adapter, -1, EPROTONOSUPPORT);
    sock->nonblocking = (type & SOCK_NONBLOCK) != 0;
    return adapter_leave(adapter, sock->fd, 0);
}

static int sockets_bind(void *userdata, int fd, const struct sockaddr *address, socklen_t length) {
    struct adapter *adapter = userdata;
    adapter_enter(adapter);
    struct sock *sock = sock_at(adapter, fd);
    if (sock == NULL || !take_sockaddr(address, &sock->local, &sock->local_port))
        return adapter_leave(adapter, -1, sock == NULL ? EBADF : EAFNOSUPPORT);
    return adapter_leave(adapter, 0, 0);
}

static int sockets_listen(void *userdata, int fd, int backlog) {
    struct adapter *adapter = userdata;
    adapter_enter(adapter);
    struct sock *sock = sock_at(adapter, fd);
    int code = sock == NULL ? -EBADF : tcp_listen(adapter->stack, &sock->local, sock->local_port, sock);
    if (code != 0)
        return adapter_leave(adapter, -1, -code);
    sock->listening = true;
    return adapter_leave(adapter, 0, 0);
}

static struct sock *sock_acceptable(const struct sock *listener) {
    for (int i = 0; i < SOCKETS_MAX; i++)
        if (listener->adapter->socks[i].used && listener->adapter->socks[i].listener == listener)
            return &listener->adapter->socks[i];
    return NULL;
}

static bool accept_ready(const struct sock *sock) {
    return sock_acceptable(sock) != NULL;
}

static int sockets_accept(void *userdata, int fd, struct sockaddr *address, socklen_t *length) {
    struct adapter *adapter = userdata;
    adapter_enter(adapter);
    struct sock *listener = sock_at(adapter, fd);
    if (listener == NULL || !listener->listening)
        return adapter_leave(adapter, -1, listener == NULL ? EBADF : EINVAL);
    if (listener->nonblocking && !accept_ready(listener))
        return adapter_leave(adapter, -1, EAGAIN);
    clock_block(adapter, listener, accept_ready);
    struct sock *sock = sock_acceptable(listener);
    sock->listener = NULL;
    struct tcp_address local = {0}, remote = {.family = listener->local.family};
    uint16_t local_port, remote_port = 0;
    if (sock->conn != NULL)
        tcp_endpoints(sock->conn, &local, &local_port, &remote, &remote_port);
    give_sockaddr(&remote, remote_port, listener->domain, address, length);
    return adapter_leave(adapter, sock->fd, 0);
}

static bool connect_ready(const struct sock *sock) {
    return sock->connected || sock->ended;
}

static int sockets_connect(void *userdata, int fd, const struct sockaddr *address, socklen_t length) {
    struct adapter *adapter = userdata;
    struct tcp_address remote;
    uint16_t port = 0;
    adapter_enter(adapter);
    struct sock *sock = sock_at(adapter, fd);
    if (sock == NULL || !take_sockaddr(address, &remote, &port))
        return adapter_leave(adapter, -1, sock == NULL ? EBADF : EAFNOSUPPORT);
    if (sock->connected || sock->conn != NULL)
        return adapter_leave(adapter, -1, sock->connected ? EISCONN : EALREADY);
    /* The tool gives every run one local address; without bind() it is the one that a kernel would find by its route. */
    struct tcp_address local = sock->local;
    if (local.family == 0) {
        const char *text = getenv(remote.family == 4 ? "BYPOST_LOCAL4" : "BYPOST_LOCAL6");
        local.family = remote.family;
        if (text == NULL || inet_pton(remote.family == 4 ? AF_INET : AF_INET6, text, local.bytes) != 1)
            return adapter_leave(adapter, -1, EADDRNOTAVAIL);
    }
    int code = tcp_connect(adapter->stack, &local, &remote, port, CONNECT_US, sock, &sock->conn, adapter->now_us);
    if (code != 0)
        return adapter_leave(adapter, -1, -code);
    clock_settle(adapter);
    if (sock->nonblocking)
        return adapter_leave(adapter, -1, EINPROGRESS);
    clock_block(adapter, sock, connect_ready);
    return sock->connected ? adapter_leave(adapter, 0, 0) : adapter_leave(adapter, -1, sock->error);
}

static bool read_ready(const struct sock *sock) {
    return sock->bytes_held > 0 || sock->peer_ended || sock->ended;
}

static ssize_t sockets_recv(void *userdata, int fd, void *bytes, size_t count, int flags) {
    struct adapter *adapter = userdata;
    adapter_enter(adapter);
    struct sock *sock = sock_at(adapter, fd);
    if (sock == NULL)
        return adapter_leave(adapter, -1, EBADF);
    if (!read_ready(sock) && (sock->nonblocking || (flags & MSG_DONTWAIT) != 0))
        return adapter_leave(adapter, -1, EAGAIN);
    clock_block(adapter, sock, read_ready);
    if (sock->bytes_held == 0) {
        int error = sock->ended ? sock->error : 0;
        sock->error = 0;
        return adapter_leave(adapter, error != 0 ? -1 : 0, error);
    }
    size_t taken = count < sock->bytes_held ? count : sock->bytes_held;
    memcpy(bytes, sock->bytes, taken);
    if ((flags & MSG_PEEK) == 0) {
        memmove(sock->bytes, sock->bytes + taken, sock->bytes_held - taken);
        sock->bytes_held -= taken;
    }
    return adapter_leave(adapter, (int)taken, 0);
}

static ssize_t sockets_read(void *userdata, int fd, void *bytes, size_t count) {
    return sockets_recv(userdata, fd, bytes, count, 0);
}

static ssize_t sockets_recvfrom(void *userdata, int fd, void *bytes, size_t count, int flags, struct sockaddr *address, socklen_t *length) {
    return sockets_recv(userdata, fd, bytes, count, flags);
}

static ssize_t sockets_readv(void *userdata, int fd, const struct iovec *parts, int count) {
    ssize_t total = 0;
    for (int i = 0; i < count; i++) {
        ssize_t got = sockets_recv(userdata, fd, parts[i].iov_base, parts[i].iov_len, i == 0 ? 0 : MSG_DONTWAIT);
        if (got < 0)
            return i == 0 ? got : total;
        total += got;
    }
    return total;
}

static ssize_t sockets_recvmsg(void *userdata, int fd, struct msghdr *message, int flags) {
    message->msg_controllen = 0;
    message->msg_flags = 0;
    return sockets_readv(userdata, fd, message->msg_iov, (int)message->msg_iovlen);
}

static bool write_ready(const struct sock *sock) {
    return sock->ended || ((sock->connected) && sock->queued < SEND_BYTES_MAX);
}

static ssize_t sockets_send(void *userdata, int fd, const void *bytes, size_t count, int flags) {
    struct adapter *adapter = userdata;
    adapter_enter(adapter);
    struct sock *sock = sock_at(adapter, fd);
    if (sock == NULL)
        return adapter_leave(adapter, -1, EBADF);
    if (sock->conn == NULL && !sock->ended)
        return adapter_leave(adapter, -1, EPIPE);
    if (!write_ready(sock) && (sock->nonblocking || (flags & MSG_DONTWAIT) != 0))
        return adapter_leave(adapter, -1, EAGAIN);
    clock_block(adapter, sock, write_ready);
    if (sock->ended || sock->write_ended) {
        int error = sock->error != 0 ? sock->error : EPIPE;
        sock->error = 0;
        return adapter_leave(adapter, -1, error);
    }
    struct owned *owned = malloc(sizeof(*owned) + count);
    if (owned == NULL)
        return adapter_leave(adapter, -1, ENOMEM);
    owned->owner = (struct tcp_owner){.release = on_released};
    memcpy(owned->bytes, bytes, count);
    struct tcp_piece piece = {.bytes = owned->bytes, .length = (uint32_t)count, .owner = &owned->owner};
    int code = tcp_send(sock->conn, &piece, 1, adapter->now_us);
    if (code != 0 || count == 0) {
        free(owned);
        return adapter_leave(adapter, code != 0 ? -1 : 0, code == -ENOBUFS ? EAGAIN : -code);
    }
    sock->queued += count;
    if ((flags & MSG_MORE) == 0)
        tcp_output(sock->conn, adapter->now_us);
    clock_settle(adapter);
    return adapter_leave(adapter, (int)count, 0);
}

static ssize_t sockets_write(void *userdata, int fd, const void *bytes, size_t count) {
    return sockets_send(userdata, fd, bytes, count, 0);
}

static ssize_t sockets_sendto(void *userdata, int fd, const void *bytes, size_t count, int flags, const struct sockaddr *address,
                              socklen_t length) {
    if ((flags & MSG_FASTOPEN) != 0) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return sockets_send(userdata, fd, bytes, count, flags);
}

/* One write, as the kernel does: what is split here would leave as segments of its own. */
static ssize_t sockets_writev(void *userdata, int fd, const struct iovec *parts, int count) {
    size_t total = 0;
    for (int i = 0; i < count; i++)
        total += parts[i].iov_len;
    uint8_t *bytes = malloc(total > 0 ? total : 1);
    if (bytes == NULL)
        return -1;
    total = 0;
    for (int i = 0; i < count; i++) {
        memcpy(bytes + total, parts[i].iov_base, parts[i].iov_len);
        total += parts[i].iov_len;
    }
    ssize_t result = sockets_send(userdata, fd, bytes, total, 0);
    free(bytes);
    return result;
}

static ssize_t sockets_sendmsg(void *userdata, int fd, const struct msghdr *message, int flags) {
    return sockets_writev(userdata, fd, message->msg_iov, (int)message->msg_iovlen);
}

static int sockets_close(void *userdata, int fd) {
    struct adapter *adapter = userdata;
    adapter_enter(adapter);
    struct sock *sock = sock_at(adapter, fd);
    if (sock == NULL)
        return adapter_leave(adapter, -1, EBADF);
    sock->closed_by_user = true;
    close(sock->fd);
    if (sock->conn == NULL) {
        free(sock->bytes);
        memset(sock, 0, sizeof(*sock));
    } else if (sock->linger_zero || sock->bytes_held > 0) {
        tcp_abort(sock->conn, adapter->now_us); /* bytes that nobody will read (RFC 2525 2.17) */
    } else {
        tcp_close(sock->conn, adapter->now_us);
    }
    clock_settle(adapter);
    return adapter_leave(adapter, 0, 0);
}

static int sockets_shutdown(void *userdata, int fd, int how) {
    struct adapter *adapter = userdata;
    adapter_enter(adapter);
    struct sock *sock = sock_at(adapter, fd);
    if (sock == NULL || sock->conn == NULL)
        return adapter_leave(adapter, -1, sock == NULL ? EBADF : ENOTCONN);
    if (how != SHUT_RD) {
        sock->write_ended = true;
        tcp_close(sock->conn, adapter->now_us);
        clock_settle(adapter);
    }
    if (how != SHUT_WR)
        sock->peer_ended = true;
    return adapter_leave(adapter, 0, 0);
}

static int sockets_fcntl(void *userdata, int fd, int command, ...) {
    struct adapter *adapter = userdata;
    va_list arguments;
    va_start(arguments, command);
    int flags = command == F_SETFL ? va_arg(arguments, int) : 0;
    va_end(arguments);
    adapter_enter(adapter);
    struct sock *sock = sock_at(adapter, fd);
    if (sock == NULL || (command != F_GETFL && command != F_SETFL))
        return adapter_leave(adapter, -1, sock == NULL ? EBADF : EINVAL);
    if (command == F_SETFL)
        sock->nonblocking = (flags & O_NONBLOCK) != 0;
    return adapter_leave(adapter, command == F_GETFL ? O_RDWR | (sock->nonblocking ? O_NONBLOCK : 0) : 0, 0);
}

static int sockets_ioctl(void *userdata, int fd, unsigned long request, ...) {
    struct adapter *adapter = userdata;
    va_list arguments;
    va_start(arguments, request);
    int *value = va_arg(arguments, int *);
    va_end(arguments);
    adapter_enter(adapter);
    struct sock *sock = sock_at(adapter, fd);
    if (sock == NULL)
        return adapter_leave(adapter, -1, EBADF);
    if (request == SIOCINQ)
        *value = (int)sock->bytes_held;
    else if (request == SIOCOUTQ)
        *value = sock->conn == NULL ? 0 : (int)tcp_unacknowledged(sock->conn);
    else if (request == SIOCOUTQNSD)
        *value = sock->conn == NULL ? 0 : (int)tcp_unsent(sock->conn);
    else
        return adapter_leave(adapter, -1, EINVAL);
    return adapter_leave(adapter, 0, 0);
}

static int sockets_getsockopt(void *userdata, int fd, int level, int option, void *value, socklen_t *length) {
    struct adapter *adapter = userdata;
    adapter_enter(adapter);
    struct sock *sock = sock_at(adapter, fd);
    if (sock == NULL)
        return adapter_leave(adapter, -1, EBADF);
    if (level != SOL_SOCKET || option != SO_ERROR || *length < sizeof(int))
        return adapter_leave(adapter, -1, ENOPROTOOPT);
    memcpy(value, &sock->error, sizeof(int));
    *length = sizeof(int);
    sock->error = 0;
    return adapter_leave(adapter, 0, 0);
}

/* What has no meaning here (buffer sizes, TCP_NODELAY: this stack never waits for more) is taken; what would change the wire is refused. */
static int sockets_setsockopt(void *userdata, int fd, int level, int option, const void *value, socklen_t length) {
    struct adapter *adapter = userdata;
    adapter_enter(adapter);
    struct sock *sock = sock_at(adapter, fd);
    if (sock == NULL)
        return adapter_leave(adapter, -1, EBADF);
    if (level == SOL_SOCKET && option == SO_LINGER && length >= sizeof(struct linger)) {
        struct linger linger;
        memcpy(&linger, value, sizeof(linger));
        sock->linger_zero = linger.l_onoff != 0 && linger.l_linger == 0;
        return adapter_leave(adapter, 0, 0);
    }
    if (level == IPPROTO_TCP && option == TCP_USER_TIMEOUT && length >= sizeof(int) && sock->conn != NULL) {
        int timeout_ms;
        memcpy(&timeout_ms, value, sizeof(timeout_ms));
        tcp_set_user_timeout(sock->conn, (uint64_t)timeout_ms * 1000);
        return adapter_leave(adapter, 0, 0);
    }
    bool harmless =
        (level == SOL_SOCKET && (option == SO_REUSEADDR || option == SO_SNDBUF || option == SO_RCVBUF || option == SO_SNDBUFFORCE)) ||
        (level == IPPROTO_TCP && option == TCP_NODELAY);
    return harmless ? adapter_leave(adapter, 0, 0) : adapter_leave(adapter, -1, ENOPROTOOPT);
}

static short poll_events(struct adapter *adapter, int fd) {
    const struct sock *sock = sock_at(adapter, fd);
    if (sock == NULL)
        return POLLNVAL;
    if (sock->listening)
        return accept_ready(sock) ? POLLIN | POLLRDNORM : 0;
    int events = 0;
    if (read_ready(sock))
        events |= POLLIN | POLLRDNORM;
    if (sock->connected && !sock->ended && sock->queued < SEND_BYTES_MAX)
        events |= POLLOUT | POLLWRNORM;
    if (sock->peer_ended)
        events |= POLLRDHUP;
    if (sock->ended || (sock->peer_ended && sock->write_ended))
        events |= POLLHUP | POLLOUT | POLLWRNORM;
    if (sock->error != 0)
        events |= POLLERR;
    return (short)events;
}

static int sockets_poll(void *userdata, struct pollfd *fds, nfds_t count, int timeout_ms) {
    struct adapter *adapter = userdata;
    int ready = 0;
    adapter_enter(adapter);
    uint64_t until_us = timeout_ms < 0 ? UINT64_MAX : adapter->now_us + (uint64_t)timeout_ms * 1000;
    for (bool waited = false;; waited = true) {
        ready = 0;
        for (nfds_t i = 0; i < count; i++) {
            fds[i].revents = (short)(poll_events(adapter, fds[i].fd) & (fds[i].events | POLLERR | POLLHUP | POLLNVAL));
            ready += fds[i].revents != 0;
        }
        if (ready > 0 || adapter->now_us >= until_us) {
            if (waited)
                clock_leaving(adapter);
            return adapter_leave(adapter, ready, 0);
        }
        adapter->blocked++;
        pthread_cond_wait(&adapter->changed, &adapter->lock);
        adapter->blocked--;
    }
}

static int sockets_epoll_create(void *userdata, int size) {
    errno = ENOSYS;
    return -1;
}
static int sockets_epoll_ctl(void *userdata, int epoll, int operation, int fd, struct epoll_event *event) {
    errno = ENOSYS;
    return -1;
}
static int sockets_epoll_wait(void *userdata, int epoll, struct epoll_event *events, int count, int timeout_ms) {
    errno = ENOSYS;
    return -1;
}
static int sockets_pipe(void *userdata, int fds[2]) {
    errno = ENOSYS;
    return -1;
}
static int sockets_splice(void *userdata, int in, loff_t *in_offset, int out, loff_t *out_offset, size_t length, unsigned int flags) {
    errno = ENOSYS;
    return -1;
}

void sockets_interface(struct packetdrill_interface *interface) {
    interface->socket = sockets_socket;
    interface->bind = sockets_bind;
    interface->listen = sockets_listen;
    interface->accept = sockets_accept;
    interface->connect = sockets_connect;
    interface->recv = sockets_recv;
    interface->read = sockets_read;
    interface->recvfrom = sockets_recvfrom;
    interface->readv = sockets_readv;
    interface->recvmsg = sockets_recvmsg;
    interface->send = sockets_send;
    interface->write = sockets_write;
    interface->sendto = sockets_sendto;
    interface->writev = sockets_writev;
    interface->sendmsg = sockets_sendmsg;
    interface->close = sockets_close;
    interface->shutdown = sockets_shutdown;
    interface->fcntl = sockets_fcntl;
    interface->ioctl = sockets_ioctl;
    interface->getsockopt = sockets_getsockopt;
    interface->setsockopt = sockets_setsockopt;
    interface->poll = sockets_poll;
    interface->epoll_create = sockets_epoll_create;
    interface->epoll_ctl = sockets_epoll_ctl;
    interface->epoll_wait = sockets_epoll_wait;
    interface->pipe = sockets_pipe;
    interface->splice = sockets_splice;
}
