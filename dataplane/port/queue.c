/* queue.c: a worker's end of a port: what it owns, and sending. */
#include "port_private.h"
#include <errno.h>
#include <rte_cycles.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PORT_FLAT_BYTES = UINT16_MAX + PORT_FRAME_OVERHEAD };

/* The arena's bytes stay until they are acknowledged, so that the device's last use of them is nobody's news. */
static void reference_ended(void *address, void *opaque) {
    (void)address;
    (void)opaque;
}

/* In PA mode the device's addresses are contiguous within a page only; looked up once, because a look-up is a system call. */
static int queue_map_arena(struct port_queue *queue) {
    if (rte_eal_iova_mode() != RTE_IOVA_PA)
        return 0;
    const struct rte_memseg *segment = rte_mem_virt2memseg(queue->arena, NULL);
    if (segment == NULL)
        return -EFAULT;
    queue->page_bytes = segment->hugepage_sz;
    uintptr_t first = (uintptr_t)queue->arena & ~(uintptr_t)(queue->page_bytes - 1);
    size_t pages = ((uintptr_t)queue->arena + queue->arena_bytes - first + queue->page_bytes - 1) / queue->page_bytes;
    queue->page_iovas = calloc(pages, sizeof *queue->page_iovas);
    if (queue->page_iovas == NULL)
        return -ENOMEM;
    for (size_t page = 0; page < pages; page++) {
        queue->page_iovas[page] = rte_mem_virt2iova((const void *)(first + page * queue->page_bytes));
        if (queue->page_iovas[page] == RTE_BAD_IOVA)
            return -EFAULT;
    }
    return 0;
}

static uint32_t queue_pool_cache(const struct port_queue *queue) {
    return queue->shares_tx ? PORT_POOL_CACHE_SHARED : PORT_POOL_CACHE;
}

static struct rte_mempool *queue_pool(const struct port_queue *queue, struct rte_mempool **pool, const char *what, uint32_t frames,
                                      uint32_t data_room_bytes) {
    char name[RTE_MEMPOOL_NAMESIZE];
    snprintf(name, sizeof name, "port%u.%s%u", queue->port->id, what, queue->worker);
    if (*pool == NULL)
        *pool = rte_pktmbuf_pool_create(name, frames, queue_pool_cache(queue), 0, (uint16_t)data_room_bytes,
                                        rte_eth_dev_socket_id(queue->port->id));
    return *pool;
}

static int queue_set_up_references(struct port_queue *queue) {
    if (queue->port->mode != PORT_MODE_REFERENCE || queue->arena == NULL || queue->arena_bytes == 0)
        return 0;
    /* Devices read EAL's memory only; from elsewhere they would send nothing and say nothing (MEASURED.md). */
    if (rte_mem_virt2memseg(queue->arena, NULL) == NULL || rte_mem_virt2memseg(queue->arena + queue->arena_bytes - 1, NULL) == NULL)
        return -EFAULT;
    int rc = queue_map_arena(queue);
    if (rc != 0)
        return rc;
    struct rte_mbuf_ext_shared_info **info = &queue->device->shared_infos[queue->worker];
    if (*info == NULL) {
        *info = calloc(1, sizeof **info);
        if (*info == NULL)
            return -ENOMEM;
        (*info)->free_cb = reference_ended;
        rte_mbuf_ext_refcnt_set(*info, 1);
    }
    queue->shared_info = *info;
    queue->external_pool = queue_pool(queue, &queue->device->external_pools[queue->worker], "ref", PORT_EXTERNAL_MBUFS, 0);
    return queue->external_pool == NULL ? -ENOMEM : 0;
}

struct port_queue *port_queue_create(struct port *port, uint32_t worker, uint32_t workers, const uint8_t *arena, uint64_t arena_bytes,
                                     struct counters *counters) {
    struct port_device *device = port->private;
    if (device == NULL || worker >= workers || workers != device->workers || counters == NULL) {
        errno = EINVAL;
        return NULL;
    }
    struct port_queue *queue = calloc(1, sizeof *queue);
    if (queue == NULL)
        return NULL;
    queue->port = port;
    queue->device = device;
    queue->counters = counters;
    queue->worker = worker;
    queue->queue = port->queues > 1 ? (uint16_t)worker : 0;
    queue->receives = port->queues > 1 || worker == 0;
    queue->shares_tx = port->queues < workers;
    queue->software_checksum = !port->checksum_offload;
    queue->arena = arena;
    queue->arena_bytes = arena_bytes;
    queue->reference_wait_cycles = rte_get_tsc_hz() / 1000000 * PORT_REFERENCE_WAIT_US;
    queue->flat_bytes = PORT_FLAT_BYTES;
    queue->flat = malloc(queue->flat_bytes);
    /* What lies in the caches of others is not ours to send with. */
    uint32_t caches = queue_pool_cache(queue) * (queue->shares_tx ? workers : 1);
    uint32_t frames = device->tx_descriptors + PORT_TX_PENDING_MAX + PORT_BURST + 2 * caches;
    if (port->mode == PORT_MODE_REFERENCE)
        frames += PORT_TX_PENDING_MAX; /* queue_copy_waiting */
    if (device->sends_receive_pool)
        device->copy_pools[worker] = device->rx_pools[queue->queue];
    queue->copy_pool = queue_pool(queue, &device->copy_pools[worker], "tx", frames, device->data_room_bytes);
    int rc = queue->copy_pool == NULL || queue->flat == NULL ? -ENOMEM : queue_set_up_references(queue);
    if (rc != 0) {
        port_queue_destroy(queue);
        errno = -rc;
        return NULL;
    }
    return queue;
}

void port_queue_destroy(struct port_queue *queue) {
    if (queue == NULL)
        return;
    rte_pktmbuf_free_bulk(queue->pending, queue->pending_count);
    free(queue->page_iovas);
    free(queue->flat);
    free(queue);
}

/* One burst of at most PORT_BURST, checked by the driver where it finishes checksums. Returns how many of them are off our hands. */
static uint32_t queue_burst(struct port_queue *queue, struct rte_mbuf **mbufs, uint16_t count) {
    uint16_t ready = count;
    if (queue->port->checksum_offload) {
        ready = rte_eth_tx_prepare(queue->port->id, queue->queue, mbufs, count);
        if (ready == 0) {
            rte_pktmbuf_free(mbufs[0]); /* the driver will never take it */
            counter_add(&queue->counters->frames_bad, 1);
            return 1;
        }
    }
    uint64_t bytes = 0;
    uint32_t lengths[PORT_BURST];
    for (uint16_t i = 0; i < ready; i++)
        lengths[i] = mbufs[i]->pkt_len;
    uint16_t sent = rte_eth_tx_burst(queue->port->id, queue->queue, mbufs, ready);
    for (uint16_t i = 0; i < sent; i++)
        bytes += lengths[i];
    counter_add(&queue->counters->frames_out, sent);
    counter_add(&queue->counters->bytes_out, bytes);
    if (sent < ready)
        counter_add(&queue->counters->frames_refused, (uint64_t)(ready - sent));
    return sent;
}

/* What the device does not take may wait for long, and its connection may be gone by then and its bytes another message's: so nothing waits
 * here by reference for more than two of PORT_REFERENCE_WAIT_US. What the device has taken it may still read later; that is the price of
 * sending by reference. */
static void queue_copy_waiting(struct port_queue *queue) {
    uint32_t kept = queue->pending_copied;
    for (uint32_t i = kept; i < queue->pending_count; i++) {
        struct rte_mbuf *mbuf = queue->pending[i];
        if (mbuf->nb_segs > 1 && i < queue->pending_marked) {
            queue->pending[i] = rte_pktmbuf_copy(mbuf, queue->copy_pool, 0, UINT32_MAX);
            rte_pktmbuf_free(mbuf);
            if (queue->pending[i] == NULL) { /* lost like a frame on the wire: TCP repeats it, copied */
                counter_add(&queue->counters->frames_bad, 1);
                continue;
            }
        }
        queue->pending[kept++] = queue->pending[i];
        if (i < queue->pending_marked)
            queue->pending_copied = kept;
    }
    queue->pending_count = kept;
}

/* The frames that wait are marked with the time; those that are still here when it is up are copied. */
static void queue_watch_waiting(struct port_queue *queue) {
    uint64_t now = rte_rdtsc();
    if (queue->pending_marked > 0 && now - queue->marked_at < queue->reference_wait_cycles)
        return;
    if (queue->pending_marked > queue->pending_copied)
        queue_copy_waiting(queue);
    queue->pending_marked = queue->pending_count;
    queue->marked_at = now;
}

static void queue_send_pending(struct port_queue *queue) {
    uint32_t done = 0;
    while (done < queue->pending_count && af_packet_has_room(queue->device, queue->queue)) {
        uint32_t left = queue->pending_count - done;
        uint32_t sent = queue_burst(queue, queue->pending + done, (uint16_t)RTE_MIN(left, (uint32_t)PORT_BURST));
        done += sent;
        if (sent == 0)
            break;
    }
    queue->pending_count -= done;
    queue->pending_copied -= RTE_MIN(queue->pending_copied, done);
    queue->pending_marked -= RTE_MIN(queue->pending_marked, done);
    if (done > 0 && queue->pending_count > 0)
        memmove(queue->pending, queue->pending + done, queue->pending_count * sizeof queue->pending[0]);
}

void port_flush(struct port_queue *queue) {
    if (queue->pending_count == 0)
        return;
    /* Another worker is sending on the shared queue: the frames wait for our next flush rather than we for it. */
    if (!queue->shares_tx) {
        queue_send_pending(queue);
    } else if (rte_spinlock_trylock(&queue->device->tx_lock)) {
        queue_send_pending(queue);
        rte_spinlock_unlock(&queue->device->tx_lock);
    }
    if (queue->pending_count > 0 && queue->external_pool != NULL)
        queue_watch_waiting(queue);
}

int port_send(struct port_queue *queue, const struct frame *frame) {
    if (queue->pending_count == PORT_TX_PENDING_MAX)
        port_flush(queue);
    if (queue->pending_count == PORT_TX_PENDING_MAX)
        return -EAGAIN;
    struct rte_mbuf *mbuf = frame_build(queue, frame);
    if (mbuf == NULL)
        return -EAGAIN;
    queue->pending[queue->pending_count++] = mbuf;
    if (queue->pending_count % PORT_BURST == 0)
        port_flush(queue);
    return 0;
}
