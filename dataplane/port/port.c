/* port.c: opens a device with what it can do, and closes it. */
#include "port_private.h"
#include <errno.h>
#include <rte_cycles.h>
#include <rte_errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int port_fail(const struct port *port, int rc, char *error, size_t error_bytes, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

static int port_fail(const struct port *port, int rc, char *error, size_t error_bytes, const char *format, ...) {
    char sentence[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    snprintf(error, error_bytes, "%s: %s (%s)", port->device, sentence, strerror(-rc));
    return rc;
}

static bool port_driver_is(const struct rte_eth_dev_info *info, const char *name) {
    return strncmp(info->driver_name, name, strlen(name)) == 0;
}

static int port_choose_mode(struct port *port, enum port_mode mode, const struct rte_eth_dev_info *info, char *error, size_t error_bytes) {
    bool multi_segment = (info->tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS) != 0;
    /* net_tap and net_vhost offer to finish checksums, but do so in software with a sum that is wrong after a segment of odd length. */
    bool checksum = (info->tx_offload_capa & RTE_ETH_TX_OFFLOAD_TCP_CKSUM) != 0 && !port_driver_is(info, "net_tap") &&
                    !port_driver_is(info, "net_vhost");
    if (mode == PORT_MODE_REFERENCE && !multi_segment)
        return port_fail(port, -ENOTSUP, error, error_bytes, "this device takes no frames of several segments; use mode copy or auto");
    if (mode == PORT_MODE_AUTO)
        mode = multi_segment && checksum ? PORT_MODE_REFERENCE : PORT_MODE_COPY;
    port->mode = mode;
    /* Copying makes whole frames with finished checksums: no offload, so that drivers may use their fast simple path. */
    port->multi_segment = mode == PORT_MODE_REFERENCE;
    port->checksum_offload = mode == PORT_MODE_REFERENCE && checksum;
    /* With the checksum, of which it is a kind. virtio says that it can when its peer does; a tap's driver would split in software. */
    if (port->checksum_offload && (info->tx_offload_capa & RTE_ETH_TX_OFFLOAD_TCP_TSO) != 0)
        port->segmentation_bytes_max = PORT_SEGMENTATION_BYTES_MAX;
    return 0;
}

/* A virtio peer may leave a checksum unfinished when it is told that we check them ourselves: it is not told. */
static bool port_trusts_rx_checksum(const struct rte_eth_dev_info *info) {
    return (info->rx_offload_capa & RTE_ETH_RX_OFFLOAD_TCP_CKSUM) != 0 && !port_driver_is(info, "net_virtio") &&
           !port_driver_is(info, "net_vhost") && !port_driver_is(info, "net_tap");
}

/* net_af_xdp would set the kernel's interface, which others use too: only upwards. */
static int port_set_mtu(const struct port *port) {
    char name[IF_NAMESIZE], error[128];
    if (af_xdp_is(port->device) && interface_name(port->device, name, error, sizeof error) == 0 && interface_mtu(name) >= port->mtu)
        return 0;
    return rte_eth_dev_set_mtu(port->id, port->mtu);
}

static int port_configure(struct port *port, struct port_device *device, const struct rte_eth_dev_info *info, char *error,
                          size_t error_bytes) {
    struct rte_eth_conf conf;
    memset(&conf, 0, sizeof conf);
    if (port->mtu != RTE_ETHER_MTU)
        conf.rxmode.mtu = port->mtu;
    if (port_trusts_rx_checksum(info))
        conf.rxmode.offloads = info->rx_offload_capa & (RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_CKSUM);
    if (port->multi_segment)
        conf.txmode.offloads |= RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
    if (port->checksum_offload)
        conf.txmode.offloads |= RTE_ETH_TX_OFFLOAD_TCP_CKSUM | (info->tx_offload_capa & RTE_ETH_TX_OFFLOAD_IPV4_CKSUM);
    if (port->segmentation_bytes_max != 0)
        conf.txmode.offloads |= RTE_ETH_TX_OFFLOAD_TCP_TSO;
    device->ipv4_checksum_offload = (conf.txmode.offloads & RTE_ETH_TX_OFFLOAD_IPV4_CKSUM) != 0;
    device->hashes_asked = port_rss_request(port, info, &conf);
    int rc = rte_eth_dev_configure(port->id, port->queues, port->queues, &conf);
    if (rc != 0 && device->hashes_asked) { /* less than it offers: everything to one queue, handed over from there */
        device->hashes_asked = false;
        conf.rxmode.mq_mode = RTE_ETH_MQ_RX_NONE;
        conf.rx_adv_conf.rss_conf.rss_hf = 0;
        rc = rte_eth_dev_configure(port->id, port->queues, port->queues, &conf);
    }
    if (rc != 0)
        return port_fail(port, rc, error, error_bytes, "the device refuses %u queue pairs at MTU %u", port->queues, port->mtu);
    device->configured = true;
    device->rx_descriptors = PORT_RX_DESCRIPTORS;
    device->tx_descriptors = PORT_TX_DESCRIPTORS;
    rc = rte_eth_dev_adjust_nb_rx_tx_desc(port->id, &device->rx_descriptors, &device->tx_descriptors);
    if (rc != 0)
        return port_fail(port, rc, error, error_bytes, "the device gives no ring sizes");
    rc = port_set_mtu(port);
    if (rc != 0 && !(rc == -ENOTSUP && port->mtu <= RTE_ETHER_MTU))
        return port_fail(port, rc, error, error_bytes, "the device refuses an MTU of %u; set `mtu` lower", port->mtu);
    return 0;
}

static int port_set_up_queues(struct port *port, struct port_device *device, const struct rte_eth_dev_info *info, char *error,
                              size_t error_bytes) {
    int socket = rte_eth_dev_socket_id(port->id);
    bool xdp = af_xdp_is(port->device);
    device->data_room_bytes =
        RTE_PKTMBUF_HEADROOM + RTE_MAX((uint32_t)port->mtu + PORT_FRAME_OVERHEAD + (xdp ? PORT_XDP_HEADROOM : 0), 2048u);
    uint32_t handed_over = device->workers > 1 ? RTE_MAX(PORT_HAND_OVER_FRAMES * (device->workers - 1) / port->queues, 1024u) : 0;
    uint32_t frames = device->rx_descriptors + handed_over + 2 * PORT_BURST + 2 * PORT_POOL_CACHE * device->workers;
    device->sends_receive_pool = xdp;
    if (xdp) /* the fill ring beside the receive ring, what is being sent, and what waits for it */
        frames += 3u * device->rx_descriptors + PORT_TX_PENDING_MAX * device->workers / port->queues;
    for (uint16_t queue = 0; queue < port->queues; queue++) {
        char name[RTE_MEMPOOL_NAMESIZE];
        snprintf(name, sizeof name, "port%u.rx%u", port->id, queue);
        device->rx_pools[queue] = rte_pktmbuf_pool_create(name, frames, PORT_POOL_CACHE, 0, (uint16_t)device->data_room_bytes, socket);
        if (device->rx_pools[queue] == NULL)
            return port_fail(port, -rte_errno, error, error_bytes, "no memory for %u receive buffers; give the dataplane more", frames);
        if (xdp && device->rx_pools[queue]->nb_mem_chunks != 1)
            return port_fail(port, -ENOMEM, error, error_bytes,
                             "its %u buffers must lie in one piece of memory; give the dataplane more, or `hugepages: off`", frames);
        struct rte_eth_rxconf rx = info->default_rxconf;
        rx.offloads = 0;
        int rc = rte_eth_rx_queue_setup(port->id, queue, device->rx_descriptors, (unsigned)socket, &rx, device->rx_pools[queue]);
        struct rte_eth_txconf tx = info->default_txconf;
        tx.offloads = 0;
        if (rc == 0)
            rc = rte_eth_tx_queue_setup(port->id, queue, device->tx_descriptors, (unsigned)socket, &tx);
        if (rc != 0)
            return port_fail(port, rc, error, error_bytes, "the device refuses queue pair %u", queue);
    }
    for (uint32_t worker = 0; device->workers > 1 && worker < device->workers; worker++) {
        char name[RTE_RING_NAMESIZE];
        snprintf(name, sizeof name, "port%u.to%u", port->id, worker);
        device->hand_over[worker] = rte_ring_create(name, PORT_HAND_OVER_FRAMES, socket, RING_F_SC_DEQ);
        if (device->hand_over[worker] == NULL)
            return port_fail(port, -rte_errno, error, error_bytes, "no memory for the workers' hand-over rings");
    }
    return 0;
}

bool port_link_up(const struct port *port) {
    struct rte_eth_link link;
    memset(&link, 0, sizeof link);
    return rte_eth_link_get_nowait(port->id, &link) == 0 && link.link_status == RTE_ETH_LINK_UP;
}

/* IPv6 neighbours ask by multicast. A device that cannot be told may still bring it: the rest of the stack works in any case. */
static void port_take_multicast(const struct port *port, struct port_device *device) {
    char name[IF_NAMESIZE], error[128];
    if (rte_eth_allmulticast_enable(port->id) == 0 || !interface_is_behind(port->device))
        return;
    if (interface_name(port->device, name, error, sizeof error) == 0)
        device->multicast_socket = interface_hold_multicast(name);
}

static int port_start(struct port *port, struct port_device *device, const struct rte_eth_dev_info *info, char *error, size_t error_bytes) {
    int rc = rte_eth_dev_start(port->id);
    if (rc != 0)
        return port_fail(port, rc, error, error_bytes, "the device does not start");
    struct rte_ether_addr mac;
    rc = rte_eth_macaddr_get(port->id, &mac);
    if (rc != 0)
        return port_fail(port, rc, error, error_bytes, "the device has no MAC address");
    memcpy(port->mac, mac.addr_bytes, sizeof port->mac);
    /* A tap's driver and the kernel's interface at its other end share one MAC address, and we talk to that kernel: we need one of our own.
     */
    bool shares_mac = port_driver_is(info, "net_tap") && strstr(port->device, "remote=") == NULL;
    if (shares_mac)
        port->mac[5] ^= 0x80;
    rc = shares_mac ? rte_eth_promiscuous_enable(port->id) : rte_eth_promiscuous_disable(port->id);
    if (rc != 0 && rc != -ENOTSUP)
        return port_fail(port, rc, error, error_bytes, "promiscuous mode cannot be switched");
    port_take_multicast(port, device);
    /* Virtual devices come up with their peer, which may start after us. */
    bool physical = info->dev_flags != NULL && (*info->dev_flags & RTE_ETH_DEV_INTR_LSC) != 0 && !port_driver_is(info, "net_vhost") &&
                    !port_driver_is(info, "net_tap") && !port_driver_is(info, "net_virtio_user");
    for (uint32_t waited_us = 0; physical && waited_us < PORT_LINK_WAIT_US && !port_link_up(port); waited_us += PORT_LINK_STEP_US)
        rte_delay_us_sleep(PORT_LINK_STEP_US);
    return 0;
}

static int port_open_device(struct port *port, struct port_device *device, const struct port_request *request, char *error,
                            size_t error_bytes) {
    int rc = port_device_attach(port, device, device->workers, error, error_bytes);
    if (rc != 0)
        return rc;
    struct rte_eth_dev_info info;
    rc = rte_eth_dev_info_get(port->id, &info);
    if (rc != 0)
        return port_fail(port, rc, error, error_bytes, "the device does not say what it can do");
    rc = port_choose_mode(port, request->mode, &info, error, error_bytes);
    if (rc != 0)
        return rc;
    device->segments_max = info.tx_desc_lim.nb_mtu_seg_max != 0 ? info.tx_desc_lim.nb_mtu_seg_max : UINT8_MAX;
    device->split_segments_max = info.tx_desc_lim.nb_seg_max != 0 ? info.tx_desc_lim.nb_seg_max : UINT8_MAX;
    port->queues = info.max_rx_queues >= device->workers && info.max_tx_queues >= device->workers ? (uint16_t)device->workers : 1;
    rc = port_configure(port, device, &info, error, error_bytes);
    if (rc == 0)
        rc = port_set_up_queues(port, device, &info, error, error_bytes);
    if (rc == 0)
        rc = port_start(port, device, &info, error, error_bytes);
    if (rc == 0)
        port_rss_learn(port, request->steering, request->workers);
    if (rc == 0 && af_packet_is(port->device))
        af_packet_find_sockets(port, device);
    return rc;
}

int port_open(struct port *port, const struct port_request *request, char *error, size_t error_bytes) {
    const char *name = request->device;
    uint16_t mtu = request->mtu;
    uint32_t workers = request->workers;
    memset(port, 0, sizeof *port);
    snprintf(port->device, sizeof port->device, "%s", name);
    port->mtu = mtu;
    port->id = RTE_MAX_ETHPORTS;
    if (strlen(name) >= sizeof port->device)
        return port_fail(port, -EINVAL, error, error_bytes, "the device string is too long");
    if (mtu < PORT_MTU_MIN || mtu > PORT_MTU_MAX)
        return port_fail(port, -EINVAL, error, error_bytes, "`mtu` must lie between %d and %d", PORT_MTU_MIN, PORT_MTU_MAX);
    if (workers == 0 || workers > PORT_WORKERS_MAX)
        return port_fail(port, -EINVAL, error, error_bytes, "there may be 1 to %d workers", PORT_WORKERS_MAX);
    struct port_device *device = calloc(1, sizeof *device);
    if (device == NULL)
        return port_fail(port, -ENOMEM, error, error_bytes, "no memory");
    device->workers = workers;
    device->multicast_socket = -1;
    rte_spinlock_init(&device->tx_lock);
    for (uint32_t queue = 0; queue < PORT_WORKERS_MAX; queue++)
        device->sockets[queue] = -1;
    port->private = device;
    int rc = port_open_device(port, device, request, error, error_bytes);
    if (rc != 0)
        port_close(port);
    return rc;
}

static void port_free_ring(struct rte_ring *ring) {
    void *mbuf;
    while (ring != NULL && rte_ring_sc_dequeue(ring, &mbuf) == 0)
        rte_pktmbuf_free(mbuf);
    rte_ring_free(ring);
}

void port_close(struct port *port) {
    struct port_device *device = port->private;
    if (device == NULL)
        return;
    if (device->configured)
        rte_eth_dev_stop(port->id);
    if (port->id != RTE_MAX_ETHPORTS)
        port_device_detach(port, device);
    for (uint32_t worker = 0; worker < device->workers; worker++)
        port_free_ring(device->hand_over[worker]); /* all of them first: what waits in one is of another worker's pool */
    for (uint32_t worker = 0; worker < device->workers; worker++) {
        rte_mempool_free(device->rx_pools[worker]);
        if (!device->sends_receive_pool)
            rte_mempool_free(device->copy_pools[worker]);
        rte_mempool_free(device->external_pools[worker]);
        free(device->shared_infos[worker]);
    }
    if (device->multicast_socket >= 0)
        close(device->multicast_socket);
    free(device);
    port->private = NULL;
}

static void port_add_pool(const struct rte_mempool *pool, struct port_memory *memory) {
    if (pool == NULL)
        return;
    memory->mbufs += pool->populated_size;
    memory->bytes += (uint64_t)pool->populated_size * (pool->header_size + pool->elt_size + pool->trailer_size);
}

void port_memory(const struct port *port, struct port_memory *memory) {
    const struct port_device *device = port->private;
    *memory = (struct port_memory){0};
    for (uint32_t worker = 0; worker < device->workers; worker++) {
        port_add_pool(device->rx_pools[worker], memory);
        port_add_pool(device->external_pools[worker], memory);
        if (!device->sends_receive_pool)
            port_add_pool(device->copy_pools[worker], memory);
    }
}
