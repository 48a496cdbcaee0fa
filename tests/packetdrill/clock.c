/* clock.c: virtual time, and the packets in and out that move it. A call that blocks waits on the condition while the tool's other thread
 * goes on. */
#include "adapter.h"

#include "datagram.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    POLLS_MAX = 1000,                  /* rounds of tcp_poll at one instant */
    IDLE_LIMIT_US = 300 * 1000 * 1000, /* of virtual time without the packet that the script waits for */
    LEAVE_WAIT_US = 200 * 1000,        /* of real time for a blocked call to notice that it is over */
};

void clock_settle(struct adapter *adapter) {
    for (int i = 0; i < POLLS_MAX; i++) {
        adapter->next_us = tcp_poll(adapter->stack, UINT32_MAX, adapter->now_us);
        if (adapter->next_us > adapter->now_us)
            break;
    }
    pthread_cond_broadcast(&adapter->changed);
}

static void move_to(struct adapter *adapter, uint64_t time_us) {
    while (adapter->next_us <= time_us) {
        adapter->now_us = adapter->next_us > adapter->now_us ? adapter->next_us : adapter->now_us;
        clock_settle(adapter);
        if (adapter->next_us <= adapter->now_us)
            break;
    }
    if (time_us > adapter->now_us)
        adapter->now_us = time_us;
}

/* This thread's call was released and it has not yet read the clock: that reading is the call's end. */
static _Thread_local bool leaves_here;

void clock_leaving(struct adapter *adapter) {
    leaves_here = true;
    atomic_fetch_add(&adapter->leaving, 1);
}

/* Gives a call that was just released the real time to look at the clock before virtual time goes on. */
static void let_leave(struct adapter *adapter) {
    for (int waited_us = 0; atomic_load(&adapter->leaving) > 0 && waited_us < LEAVE_WAIT_US; waited_us += 50) {
        pthread_mutex_unlock(&adapter->lock);
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
        pthread_mutex_lock(&adapter->lock);
    }
    atomic_store(&adapter->leaving, 0);
}

void clock_block(struct adapter *adapter, struct sock *sock, bool (*ready)(const struct sock *sock)) {
    bool waited = false;
    while (!ready(sock)) {
        adapter->blocked++;
        pthread_cond_wait(&adapter->changed, &adapter->lock);
        adapter->blocked--;
        waited = true;
    }
    if (waited)
        clock_leaving(adapter);
}

/* Before time moves: a blocked call whose wait is over leaves first. */
static void wake_blocked(struct adapter *adapter) {
    if (adapter->blocked == 0)
        return;
    pthread_cond_broadcast(&adapter->changed);
    pthread_mutex_unlock(&adapter->lock);
    nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    pthread_mutex_lock(&adapter->lock);
    let_leave(adapter);
}

static int clock_gettimeofday(void *userdata, struct timeval *time, struct timezone *zone) {
    struct adapter *adapter = userdata;
    adapter_enter(adapter);
    if (leaves_here) {
        leaves_here = false;
        atomic_fetch_sub(&adapter->leaving, 1);
    } else {
        move_to(adapter, adapter->now_us + 1); /* the tool spins on this clock */
    }
    *time = (struct timeval){.tv_sec = (time_t)(adapter->now_us / 1000000), .tv_usec = (suseconds_t)(adapter->now_us % 1000000)};
    return adapter_leave(adapter, 0, 0);
}

static int clock_usleep(void *userdata, useconds_t us) {
    struct adapter *adapter = userdata;
    adapter_enter(adapter);
    wake_blocked(adapter);
    move_to(adapter, adapter->now_us + us);
    wake_blocked(adapter);
    return adapter_leave(adapter, 0, 0);
}

static int clock_netdev_send(void *userdata, const void *bytes, size_t length) {
    struct adapter *adapter = userdata;
    struct tcp_packet packet;
    struct datagram_error error;
    /* A copy of exactly this size, so that a sanitizer sees what reads past it. */
    uint8_t *copy = malloc(length > 0 ? length : 1);
    if (copy == NULL)
        return -1;
    memcpy(copy, bytes, length);
    adapter_enter(adapter);
    move_to(adapter, adapter->now_us);
    switch (datagram_read(copy, (uint32_t)length, &packet, &error)) {
    case DATAGRAM_TCP:
        tcp_input(adapter->stack, &packet, adapter->now_us);
        break;
    case DATAGRAM_ERROR:
        tcp_input_error(adapter->stack, &error.local, error.local_port, &error.remote, error.remote_port, error.sequence, error.hard,
                        error.mtu, adapter->now_us);
        break;
    case DATAGRAM_OTHER:
        break;
    }
    clock_settle(adapter);
    wake_blocked(adapter);
    free(copy);
    return adapter_leave(adapter, 0, 0);
}

static int clock_netdev_receive(void *userdata, void *bytes, size_t *length, long long *time_us) {
    struct adapter *adapter = userdata;
    adapter_enter(adapter);
    wake_blocked(adapter);
    uint64_t limit_us = adapter->now_us + IDLE_LIMIT_US;
    while (adapter->packet_count == 0 && adapter->next_us <= limit_us)
        move_to(adapter, adapter->next_us);
    if (adapter->packet_count == 0) {
        fprintf(stderr, "bypost: the stack has nothing to send, and nothing will make it\n");
        exit(1);
    }
    struct packet packet = adapter->packets[adapter->packet_first];
    adapter->packet_first = (adapter->packet_first + 1) % PACKETS_MAX;
    adapter->packet_count--;
    *length = packet.length < *length ? packet.length : *length;
    memcpy(bytes, packet.bytes, *length);
    free(packet.bytes);
    *time_us = (long long)packet.time_us;
    return adapter_leave(adapter, 0, 0);
}

void clock_interface(struct packetdrill_interface *interface) {
    interface->netdev_send = clock_netdev_send;
    interface->netdev_receive = clock_netdev_receive;
    interface->usleep = clock_usleep;
    interface->gettimeofday = clock_gettimeofday;
}
