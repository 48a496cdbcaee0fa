/* port_private.h: what the files of port/ share. The only header of this folder that includes DPDK. */
#ifndef DATAPLANE_PORT_PORT_PRIVATE_H
#define DATAPLANE_PORT_PORT_PRIVATE_H

#include "port.h"
#include <net/if.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_ring.h>
#include <rte_spinlock.h>

enum {
    PORT_WORKERS_MAX = 128,     /* RTE_MAX_LCORE of the distributions' builds */
    PORT_RX_DESCRIPTORS = 2048, /* a TLS handshake step stalls a pass for 0.4 ms (DESIGN.md section 5) */
    PORT_TX_DESCRIPTORS = 1024,
    PORT_TX_PENDING_MAX =
        1024, /* frames gathered or refused by the device, waiting for the next flush: with its ring what a burst of receives may answer */
    PORT_HAND_OVER_FRAMES = 1024,   /* a worker's ring of frames that others received for it */
    PORT_REFERENCE_BYTES_MIN = 256, /* a shorter piece is cheaper to copy (MEASURED.md) */
    PORT_REFERENCE_WAIT_US = 500,   /* so long a frame that the device refused may wait by reference */
    PORT_EXTERNAL_MBUFS = 8192,     /* references a queue may have in its device; below 65,535, the shared info's count */
    PORT_POOL_CACHE = 128,
    PORT_POOL_CACHE_SHARED =
        16,             /* of what is sent by a queue of several workers: whoever sends frees the others' mbufs into its own cache */
    PORT_MTU_MIN = 576, /* RFC 791: every host takes as much */
    PORT_MTU_MAX = 9216,
    PORT_FRAME_OVERHEAD = 14 + 4 + 4, /* Ethernet, VLAN tag, FCS */
    PORT_XDP_HEADROOM = 256,          /* the kernel keeps so much of each net_af_xdp buffer */
    PORT_SEGMENTATION_BYTES_MAX =
        65535 - 40 - 60, /* payload of a frame that the device splits: IP's length field holds it with all headers */
    PORT_LINK_WAIT_US = 2000000,
    PORT_LINK_STEP_US = 20000,
};

/* What port.private points to: the device's share of memory. */
struct port_device {
    uint32_t workers;
    bool attached_here; /* by port_open: port_close takes it away again */
    bool configured;
    bool hashes_asked;           /* for RSS, and not refused */
    uint16_t segments_max;       /* mbufs that the device takes as one frame */
    uint16_t split_segments_max; /* the same for a frame that it splits */
    bool ipv4_checksum_offload;  /* asked for in frames that the device splits: each part has an IPv4 header of its own */
    bool sends_receive_pool;     /* net_af_xdp: only mbufs of the receive pool go out without another copy */
    uint16_t rx_descriptors, tx_descriptors;
    uint32_t data_room_bytes;
    rte_spinlock_t tx_lock; /* when the workers share one TX queue */
    struct rte_mempool *rx_pools[PORT_WORKERS_MAX];
    /* What a queue sends from. Kept here because the device may hold such mbufs until it is closed, longer than the queue lives. The shared
     * info is one for all the references of a queue, in this process's private heap because it holds a function pointer; its count begins
     * at 1 and so never comes to 0. */
    struct rte_mempool *copy_pools[PORT_WORKERS_MAX];     /* headers and copied payload */
    struct rte_mempool *external_pools[PORT_WORKERS_MAX]; /* mbufs without a data room that refer to the arena; none in copy mode */
    struct rte_mbuf_ext_shared_info *shared_infos[PORT_WORKERS_MAX];
    struct rte_ring *hand_over[PORT_WORKERS_MAX]; /* none with one worker */
    /* net_af_packet only: the packet socket of each queue, to see how full it is (af_packet.c). -1: not known. */
    int sockets[PORT_WORKERS_MAX];
    int socket_send_bytes;
    int multicast_socket; /* holds the kernel's interface open for multicast (interface.c); -1: none */
};

struct port_queue {
    struct port *port;
    struct port_device *device;
    struct counters *counters;
    uint32_t worker;
    uint16_t queue; /* the device's */
    bool receives;  /* polls the device itself, not only its hand-over ring */
    bool shares_tx;
    bool software_checksum;

    uint32_t pending_count;
    uint32_t pending_marked; /* so many at the front have waited since marked_at */
    uint32_t pending_copied; /* so many at the front refer to nobody's bytes any more */
    uint64_t marked_at, reference_wait_cycles;
    struct rte_mbuf *pending[PORT_TX_PENDING_MAX];
    struct rte_mempool *copy_pool;
    struct rte_mempool *external_pool; /* NULL: nothing is sent by reference */
    struct rte_mbuf_ext_shared_info *shared_info;
    const uint8_t *arena;
    uint64_t arena_bytes;
    uint64_t page_bytes; /* PA mode: pieces are split at this power of two; 0 where one mapping covers the arena (VA mode) */
    rte_iova_t *page_iovas;

    struct rte_mbuf *current; /* the frame that `input` sees, NULL when it was handed over */
    bool current_handed_over;
    uint8_t *flat; /* a frame of several segments is put together here: up to what a virtual peer may leave unsplit */
    uint32_t flat_bytes;
};

/* device.c: from the name that an operator wrote to a DPDK port id, attaching the device when EAL does not have it. */
int port_device_attach(struct port *port, struct port_device *device, uint32_t workers, char *error, size_t error_bytes);
void port_device_detach(struct port *port, struct port_device *device);

/* interface.c: devices that are a socket on an interface of the kernel. */
bool interface_is_behind(const char *device);
/* The name after "iface=", checked to be there: 0 or -errno with a sentence in error. */
int interface_name(const char *device, char name[static IF_NAMESIZE], char *error, size_t error_bytes);
/* Receive queues that the kernel drives it with; 1 when it does not say. */
uint32_t interface_queues(const char *name);
/* 0 when unknown. */
uint32_t interface_mtu(const char *name);
/* All multicast, which Neighbour Discovery needs, for as long as the descriptor is open. The descriptor or -errno. */
int interface_hold_multicast(const char *name);

/* af_xdp.c */
bool af_xdp_is(const char *device);
int af_xdp_arguments(const char *device, uint32_t workers, char *arguments, size_t arguments_bytes, char *error, size_t error_bytes);
/* xdp_program.c. Detaches deploy/nic's sharing program, if it is there. 0 or -errno. A device has one dataplane, so that it is a dead
 * one's. */
int xdp_program_forget(const char *interface);

/* af_packet.c */
bool af_packet_is(const char *device);
int af_packet_arguments(const char *device, uint16_t mtu, uint32_t workers, char *arguments, size_t arguments_bytes, char *error,
                        size_t error_bytes);
void af_packet_find_sockets(struct port *port, struct port_device *device);
bool af_packet_has_room(const struct port_device *device, uint16_t queue);

/* rss.c: asks for hashing by TCP's addresses and ports where the device can and there are queues to spread over (false: not asked); and,
 * after its start, fills port->rss from what the device says. */
bool port_rss_request(const struct port *port, const struct rte_eth_dev_info *info, struct rte_eth_conf *conf);
void port_rss_learn(struct port *port, enum port_steering steering, uint32_t workers);

/* frame_build.c: the mbufs of a frame, or NULL when the pools are empty. */
struct rte_mbuf *frame_build(struct port_queue *queue, const struct frame *frame);

#endif
