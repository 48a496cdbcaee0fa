/* link.c: hands the arena and the doorbells to control, and notices when it goes. */
#include "dataplane/link.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { DESCRIPTORS_MAX = 1 + JOURNAL_WORKERS_MAX + JOURNAL_SHARDS_MAX };

static int open_doorbells(int *doorbells, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        doorbells[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (doorbells[i] < 0)
            return -errno;
    }
    return 0;
}

static int listen_at(const char *path, uid_t user, gid_t group) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);
    int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener < 0)
        return -errno;
    unlink(path);
    mode_t mask = umask(0177);
    int code = bind(listener, (struct sockaddr *)&address, sizeof(address));
    umask(mask);
    if (code != 0 || (geteuid() == 0 && lchown(path, user, group) != 0)) { /* never what a link put in its place names */
        code = -errno;
        close(listener);
        return code;
    }
    return listener;
}

int link_open(struct link *link, const char *path, uid_t user, gid_t group, const struct journal *journal, const struct arena *arena,
              uint32_t dataplane_generation, char *error, size_t error_bytes) {
    memset(link, 0, sizeof(*link));
    link->peer = -1;
    link->user = user;
    link->workers = journal->geometry.workers;
    link->shards = journal->geometry.shards;
    link->arena_fd = arena->fd;
    link->hello = (struct link_hello){
        .magic = LINK_MAGIC,
        .abi = JOURNAL_ABI,
        .dataplane_generation = dataplane_generation,
        .workers = link->workers,
        .shards = link->shards,
        .pid = (uint32_t)getpid(),
        .arena_offset = arena->fd_offset,
        .arena_bytes = arena->length,
        .page_bytes = arena->page_bytes,
        .pieces_in_page = arena->pieces_in_page,
    };
    int code = open_doorbells(link->worker_doorbells, link->workers);
    if (code == 0)
        code = open_doorbells(link->shard_doorbells, link->shards);
    if (code == 0) {
        link->listener = listen_at(path, user, group);
        code = link->listener < 0 ? link->listener : 0;
    }
    if (code != 0)
        snprintf(error, error_bytes, "the socket %s cannot be opened: %s.", path, strerror(-code));
    return code;
}

int link_listen(struct link *link) {
    return listen(link->listener, 4) == 0 ? 0 : -errno;
}

static int send_hello(struct link *link, int peer) {
    int descriptors[DESCRIPTORS_MAX];
    uint32_t count = 0;
    descriptors[count++] = link->arena_fd;
    for (uint32_t i = 0; i < link->workers; i++)
        descriptors[count++] = link->worker_doorbells[i];
    for (uint32_t i = 0; i < link->shards; i++)
        descriptors[count++] = link->shard_doorbells[i];
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(descriptors))];
    } control;
    memset(&control, 0, sizeof(control));
    struct iovec vector = {.iov_base = &link->hello, .iov_len = sizeof(link->hello)};
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(count * sizeof(int))};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(header), descriptors, count * sizeof(int));
    return sendmsg(peer, &message, MSG_NOSIGNAL) == (ssize_t)sizeof(link->hello) ? 0 : -errno;
}

/* Only root and our own user may hold the arena. */
static bool welcome(const struct link *link, int peer) {
    struct ucred credentials;
    socklen_t length = sizeof(credentials);
    return getsockopt(peer, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0 &&
           (credentials.uid == 0 || credentials.uid == link->user || credentials.uid == geteuid());
}

static bool peer_gone(int peer) {
    char byte;
    ssize_t got = recv(peer, &byte, 1, MSG_DONTWAIT);
    return got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
}

void link_serve(struct link *link, int timeout_ms) {
    struct pollfd sockets[2] = {{.fd = link->listener, .events = POLLIN}, {.fd = link->peer, .events = POLLIN}};
    if (poll(sockets, 2, timeout_ms) <= 0)
        return;
    if (link->peer >= 0 && (sockets[1].revents & (POLLIN | POLLHUP | POLLERR)) != 0 && peer_gone(link->peer)) {
        close(link->peer);
        link->peer = -1;
    }
    if ((sockets[0].revents & POLLIN) == 0)
        return;
    int peer = accept4(link->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (peer < 0)
        return;
    if (!welcome(link, peer) || send_hello(link, peer) != 0) {
        close(peer);
        return;
    }
    if (link->peer >= 0) /* a newer control holds the journal's lock: the older one is dead */
        close(link->peer);
    link->peer = peer;
}

void link_close(struct link *link, const char *path) {
    if (link->peer >= 0)
        close(link->peer);
    close(link->listener);
    unlink(path);
}
