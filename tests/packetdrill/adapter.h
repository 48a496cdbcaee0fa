/* adapter.h: private to the folder: the stack under test with its virtual clock, its sockets and the packets that it sent. */
#ifndef TESTS_PACKETDRILL_ADAPTER_H
#define TESTS_PACKETDRILL_ADAPTER_H

#include "dataplane/tcp/tcp.h"
#include "interface.h"

#include <pthread.h>
#include <stdatomic.h>

enum { SOCKETS_MAX = 64, PACKETS_MAX = 1024 };

struct adapter;

struct sock {
    struct adapter *adapter;
    bool used, listening, nonblocking, connected, ended, peer_ended, closed_by_user, write_ended, linger_zero;
    int fd, domain, error;
    struct tcp_conn *conn;
    struct tcp_address local;
    uint16_t local_port;
    struct sock *listener; /* that accepted it, until accept() took it */
    uint8_t *bytes;        /* received and not read */
    size_t bytes_held, bytes_room;
    size_t queued; /* for sending, unacknowledged */
};

struct packet {
    uint8_t *bytes;
    uint32_t length;
    uint64_t time_us;
};

struct adapter {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int blocked;
    bool without_psh;
    atomic_int leaving; /* calls that were released and have not yet read the clock */
    uint64_t now_us, next_us;
    struct tcp_stack *stack;
    struct tcp_config config;
    struct sock socks[SOCKETS_MAX];
    struct packet packets[PACKETS_MAX];
    uint32_t packet_first, packet_count;
};

/* clock.c. Time is virtual: it moves when the tool asks for it, sleeps or waits for a packet, and the stack's timers fire on their
 * microsecond. */
/* Runs what is due at this instant. */
void clock_settle(struct adapter *adapter);
/* Waits, while the tool's thread moves time, until `ready(sock)`. The lock is held. */
void clock_block(struct adapter *adapter, struct sock *sock, bool (*ready)(const struct sock *sock));
/* The calling thread has waited in a call which now ends: time stands still until it has seen when. */
void clock_leaving(struct adapter *adapter);
void clock_interface(struct packetdrill_interface *interface);

/* sockets.c: the system calls. */
extern const struct tcp_events sockets_events;
void sockets_interface(struct packetdrill_interface *interface);

static inline void adapter_enter(struct adapter *adapter) {
    pthread_mutex_lock(&adapter->lock);
}
/* Unlocks and answers as a system call does. */
int adapter_leave(struct adapter *adapter, int result, int error);

#endif
