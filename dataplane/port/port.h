/* port.h: DPDK ports of this process. Each worker has its own queue pair of each port. The only room that knows mbufs. */
#ifndef DATAPLANE_PORT_PORT_H
#define DATAPLANE_PORT_PORT_H

#include "dataplane/port/frame.h"
#include <bypost/counters.h>
#include <stddef.h>
#include <stdint.h>

enum { PORTS_MAX = 8, PORT_NAME_BYTES = 64, PORT_BURST = 32 };

enum port_mode { PORT_MODE_AUTO, PORT_MODE_COPY, PORT_MODE_REFERENCE };

/* How the device spreads received frames over its queues: Toeplitz over addresses and ports, then a redirection table. */
enum { PORT_RSS_KEY_MAX = 64, PORT_RETA_MAX = 2048 };
struct port_rss {
    bool hashes; /* false: replies come to any queue, ports are divided by range and frames handed over */
    uint8_t key[PORT_RSS_KEY_MAX];
    uint8_t key_length;
    uint16_t reta_size;           /* a power of two */
    uint16_t reta[PORT_RETA_MAX]; /* queue of each entry; queue w is worker w's */
};

/* AUTO: as the device says. TOEPLITZ: the peer of a virtual device hashes with PORT_RSS_KEY_DEFAULT over a table of 128 entries, queue
 * entry % queues (bypost-sink does). RANGES: by port range in any case. */
enum port_steering { PORT_STEERING_AUTO, PORT_STEERING_TOEPLITZ, PORT_STEERING_RANGES };

struct port_request {
    const char *device;
    enum port_mode mode;
    enum port_steering steering;
    uint16_t mtu;
    uint32_t workers;
};

/* One device, opened before the workers start. */
struct port {
    char device[256];    /* "0000:01:00.0" or a vdev string "net_af_packet0,iface=veth1" as it was given */
    uint16_t id;         /* DPDK's */
    enum port_mode mode; /* after port_open: COPY or REFERENCE */
    uint8_t mac[6];
    uint16_t mtu;
    uint16_t queues;       /* pairs: one for each worker, or 1 when the device has fewer (then worker 0 owns it and hands over) */
    bool checksum_offload; /* L4, in the device */
    bool multi_segment;
    uint32_t segmentation_bytes_max; /* TSO: the largest payload of one frame; 0: the device cannot */
    struct port_rss rss;
    void *private; /* struct rte_mempool and so on */
};

/* Opens and starts a device with request->workers queue pairs where it can. EAL is up; the device may be one that EAL was given, or is
 * attached here: a PCI address or a vdev string. AUTO becomes REFERENCE where the device takes frames of several segments and finishes L4
 * checksums. 0 or -errno with a sentence in error that says what to do. A link that is still down is no error: see port_link_up. */
int port_open(struct port *port, const struct port_request *request, char *error, size_t error_bytes);
/* After every queue of it was destroyed. */
void port_close(struct port *port);
bool port_link_up(const struct port *port);
/* What its pools take, its queues' included. */
struct port_memory {
    uint32_t mbufs;
    uint64_t bytes;
};
void port_memory(const struct port *port, struct port_memory *memory);

/* A worker's end of a port: its queue pair, its pools, frames being gathered. Used by one thread. */
struct port_queue;
/* `arena` is the range that pieces may be sent from by reference; bytes elsewhere are copied always. It is memory of EAL (EFAULT
 * otherwise), or NULL: then every frame is copied. `workers` as given to port_open. NULL with errno. */
struct port_queue *port_queue_create(struct port *port, uint32_t worker, uint32_t workers, const uint8_t *arena, uint64_t arena_bytes,
                                     struct counters *counters);
void port_queue_destroy(struct port_queue *queue);

/* Queues one frame. 0, or -EAGAIN when the device is full: the frame is not taken. Nothing blocks. Pieces that are sent by reference must
 * stay as they are until the peer has acknowledged them; what the device refused is copied by the flush that met the refusal. */
int port_send(struct port_queue *queue, const struct frame *frame);
/* Gives what is gathered to the device. Call at the end of each pass. */
void port_flush(struct port_queue *queue);

/* Receives one burst and calls `input` for each frame (contiguous bytes, valid during the call). Returns how many. Frames that another
 * worker handed over are included. */
uint32_t port_receive(struct port_queue *queue, void (*input)(void *context, const uint8_t *frame, uint32_t length), void *context);
/* The same; `ahead` sees each frame of the burst about four frames before `input` does, its first bytes in the cache: to bring in what
 * `input` will want. Its length is that of the first part of a frame of several segments. */
uint32_t port_receive_ahead(struct port_queue *queue, void (*ahead)(void *context, const uint8_t *frame, uint32_t length),
                            void (*input)(void *context, const uint8_t *frame, uint32_t length), void *context);
/* From inside `input`: did the device itself verify the TCP checksum of the frame being handled and find it good? Otherwise net verifies.
 */
bool port_checksum_good(const struct port_queue *queue);
/* From inside `input`: did another worker hand over the frame being handled? Such a frame is not handed on again. */
bool port_frame_handed_over(const struct port_queue *queue);
/* From inside `input`: passes the frame being handled to another worker's queue of this port; its bytes must not be touched afterwards.
 * 0, or -ENOBUFS (dropped, counted), or -EINVAL (no such worker, or the frame has gone already). */
int port_hand_over(struct port_queue *queue, uint32_t worker);
/* The same to all the others (ARP, ND: every worker keeps its own table). */
void port_hand_over_all(struct port_queue *queue);

#endif
