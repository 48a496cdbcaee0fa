/* adapter.c: bypost's TCP as a shared object for packetdrill (its --so_filename). */
#include "adapter.h"

#include "datagram.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    START_US = 1000 * 1000 * 1000,
    RECEIVE_BUFFER_BYTES = 15 << 20, /* announces window scale 8, as the public scripts expect of Linux */
};

static int on_transmit(void *network, const struct tcp_segment *segment) {
    struct adapter *adapter = network;
    if (adapter->packet_count == PACKETS_MAX)
        return -EAGAIN;
    uint8_t *bytes = malloc(DATAGRAM_BYTES_MAX);
    if (bytes == NULL)
        return -EAGAIN;
    struct packet *packet = &adapter->packets[(adapter->packet_first + adapter->packet_count++) % PACKETS_MAX];
    struct tcp_segment shown = *segment;
    if (adapter->without_psh)
        shown.flags &= (uint8_t)~TCP_PSH;
    *packet = (struct packet){.bytes = bytes, .length = datagram_write(bytes, &shown), .time_us = adapter->now_us};
    return 0;
}

int adapter_leave(struct adapter *adapter, int result, int error) {
    pthread_mutex_unlock(&adapter->lock);
    if (result < 0)
        errno = error;
    return result;
}

static void adapter_free(void *userdata) {
    struct adapter *adapter = userdata;
    tcp_stack_destroy(adapter->stack);
    for (int i = 0; i < SOCKETS_MAX; i++)
        free(adapter->socks[i].bytes);
    for (uint32_t i = 0; i < adapter->packet_count; i++)
        free(adapter->packets[(adapter->packet_first + i) % PACKETS_MAX].bytes);
    pthread_mutex_destroy(&adapter->lock);
    pthread_cond_destroy(&adapter->changed);
    free(adapter);
}

static void take_flags(struct tcp_config *config, const char *flags) {
    unsigned mtu = 0;
    const char *at = flags == NULL ? NULL : strstr(flags, "mtu=");
    if (at != NULL && sscanf(at, "mtu=%u", &mtu) == 1)
        config->mtu = (uint16_t)mtu;
    if (flags != NULL && strstr(flags, "cc=newreno") != NULL)
        config->congestion = TCP_NEWRENO;
}

void packetdrill_interface_init(const char *flags, struct packetdrill_interface *interface) {
    struct adapter *adapter = calloc(1, sizeof(*adapter));
    if (adapter == NULL)
        abort();
    pthread_mutex_init(&adapter->lock, NULL);
    pthread_cond_init(&adapter->changed, NULL);
    adapter->now_us = START_US;
    adapter->next_us = UINT64_MAX;
    adapter->config = (struct tcp_config){
        .max_connections = SOCKETS_MAX,
        .max_receive_blocks = 32768,
        .max_segments_in_flight = 65536,
        .receive_buffer_bytes = RECEIVE_BUFFER_BYTES,
        .mtu = 1500,
        .port_first = 32768,
        .port_last = 60999,
        .segmentation_bytes_max = 65000, /* scripts count what one write sends as one packet */
        .transmit = on_transmit,
        .network = adapter,
        .events = sockets_events,
    };
    take_flags(&adapter->config, flags);
    adapter->without_psh = flags != NULL && strstr(flags, "nopsh") != NULL;
    adapter->stack = tcp_stack_create(&adapter->config, adapter->now_us);
    if (adapter->stack == NULL) {
        fprintf(stderr, "bypost: the stack cannot be made with '%s': %s\n", flags == NULL ? "" : flags, strerror(errno));
        abort();
    }
    *interface = (struct packetdrill_interface){.userdata = adapter, .free = adapter_free};
    clock_interface(interface);
    sockets_interface(interface);
}
