/* interface.h: what packetdrill's --so_filename wants of a stack: a table of functions that `packetdrill_interface_init` fills. The order
 * of the members is the tool's; it is the whole contract. Functions return as the system calls of the same name do. */
#ifndef TESTS_PACKETDRILL_INTERFACE_H
#define TESTS_PACKETDRILL_INTERFACE_H

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

struct packetdrill_interface {
    void *userdata;
    void (*free)(void *userdata);
    int (*socket)(void *userdata, int domain, int type, int protocol);
    int (*bind)(void *userdata, int fd, const struct sockaddr *address, socklen_t length);
    int (*listen)(void *userdata, int fd, int backlog);
    int (*accept)(void *userdata, int fd, struct sockaddr *address, socklen_t *length);
    int (*connect)(void *userdata, int fd, const struct sockaddr *address, socklen_t length);
    ssize_t (*read)(void *userdata, int fd, void *bytes, size_t count);
    ssize_t (*readv)(void *userdata, int fd, const struct iovec *parts, int count);
    ssize_t (*recv)(void *userdata, int fd, void *bytes, size_t count, int flags);
    ssize_t (*recvfrom)(void *userdata, int fd, void *bytes, size_t count, int flags, struct sockaddr *address, socklen_t *length);
    ssize_t (*recvmsg)(void *userdata, int fd, struct msghdr *message, int flags);
    ssize_t (*write)(void *userdata, int fd, const void *bytes, size_t count);
    ssize_t (*writev)(void *userdata, int fd, const struct iovec *parts, int count);
    ssize_t (*send)(void *userdata, int fd, const void *bytes, size_t count, int flags);
    ssize_t (*sendto)(void *userdata, int fd, const void *bytes, size_t count, int flags, const struct sockaddr *address, socklen_t length);
    ssize_t (*sendmsg)(void *userdata, int fd, const struct msghdr *message, int flags);
    int (*fcntl)(void *userdata, int fd, int command, ...);
    int (*ioctl)(void *userdata, int fd, unsigned long request, ...);
    int (*close)(void *userdata, int fd);
    int (*shutdown)(void *userdata, int fd, int how);
    int (*getsockopt)(void *userdata, int fd, int level, int option, void *value, socklen_t *length);
    int (*setsockopt)(void *userdata, int fd, int level, int option, const void *value, socklen_t length);
    int (*poll)(void *userdata, struct pollfd *fds, nfds_t count, int timeout_ms);
    int (*netdev_send)(void *userdata, const void *packet, size_t length);                   /* a packet to the stack */
    int (*netdev_receive)(void *userdata, void *packet, size_t *length, long long *time_us); /* the stack's next packet */
    int (*usleep)(void *userdata, useconds_t us);
    int (*gettimeofday)(void *userdata, struct timeval *time, struct timezone *zone);
    int (*epoll_create)(void *userdata, int size);
    int (*epoll_ctl)(void *userdata, int epoll, int operation, int fd, struct epoll_event *event);
    int (*epoll_wait)(void *userdata, int epoll, struct epoll_event *events, int count, int timeout_ms);
    int (*pipe)(void *userdata, int fds[2]);
    int (*splice)(void *userdata, int in, loff_t *in_offset, int out, loff_t *out_offset, size_t length, unsigned int flags);
};

/* The shared object's one public function. `flags` is what --so_flags said: "cc=newreno", "mtu=N", "nopsh" (no segment shows PSH),
 * separated by commas; may be NULL. */
void packetdrill_interface_init(const char *flags, struct packetdrill_interface *interface);

#endif
