/* receive.c: a worker's end of a port: receiving, and handing frames to the worker that owns their connection. */
#include "port_private.h"
#include <errno.h>
#include <rte_prefetch.h>

enum { PORT_PREFETCH_AHEAD = 4, PORT_LOOK_AHEAD = 4 };

bool port_checksum_good(const struct port_queue *queue) {
    return queue->current != NULL && (queue->current->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_GOOD;
}

bool port_frame_handed_over(const struct port_queue *queue) {
    return queue->current_handed_over;
}

static int queue_give(struct port_queue *queue, uint32_t worker, struct rte_mbuf *mbuf) {
    if (rte_ring_mp_enqueue(queue->device->hand_over[worker], mbuf) != 0) {
        rte_pktmbuf_free(mbuf);
        counter_add(&queue->counters->frames_bad, 1);
        return -ENOBUFS;
    }
    counter_add(&queue->counters->frames_handed_over, 1);
    return 0;
}

int port_hand_over(struct port_queue *queue, uint32_t worker) {
    struct rte_mbuf *mbuf = queue->current;
    if (mbuf == NULL || worker >= queue->device->workers || worker == queue->worker)
        return -EINVAL;
    queue->current = NULL;
    return queue_give(queue, worker, mbuf);
}

/* One mbuf for all: nobody writes to a received frame, and the last to free it gives it back. */
void port_hand_over_all(struct port_queue *queue) {
    struct rte_mbuf *mbuf = queue->current;
    if (mbuf == NULL)
        return;
    for (uint32_t worker = 0; worker < queue->device->workers; worker++) {
        if (worker == queue->worker)
            continue;
        rte_pktmbuf_refcnt_update(mbuf, 1);
        queue_give(queue, worker, mbuf);
    }
}

/* Returns the mbuf to free, NULL when it was handed over. */
static struct rte_mbuf *queue_input(struct port_queue *queue, struct rte_mbuf *mbuf,
                                    void (*input)(void *context, const uint8_t *frame, uint32_t length), void *context) {
    queue->current = mbuf;
    const uint8_t *bytes = rte_pktmbuf_mtod(mbuf, const uint8_t *);
    if (mbuf->nb_segs > 1)
        bytes = mbuf->pkt_len <= queue->flat_bytes ? rte_pktmbuf_read(mbuf, 0, mbuf->pkt_len, queue->flat) : NULL;
    if (bytes == NULL)
        counter_add(&queue->counters->frames_bad, 1);
    else
        input(context, bytes, mbuf->pkt_len);
    struct rte_mbuf *left = queue->current;
    queue->current = NULL;
    return left;
}

/* What a burst is given to. */
struct queue_hearer {
    void (*ahead)(void *context, const uint8_t *frame, uint32_t length); /* may be NULL */
    void (*input)(void *context, const uint8_t *frame, uint32_t length);
    void *context;
};

static void queue_look_ahead(struct rte_mbuf **mbufs, uint32_t i, uint32_t count, const struct queue_hearer *hearer) {
    if (i + PORT_PREFETCH_AHEAD < count)
        rte_prefetch0(rte_pktmbuf_mtod(mbufs[i + PORT_PREFETCH_AHEAD], void *));
    if (hearer->ahead != NULL && i < count)
        hearer->ahead(hearer->context, rte_pktmbuf_mtod(mbufs[i], const uint8_t *), mbufs[i]->data_len);
}

static void queue_input_burst(struct port_queue *queue, struct rte_mbuf **mbufs, uint32_t count, const struct queue_hearer *hearer) {
    uint32_t kept = 0, steps = hearer->ahead == NULL ? 0 : PORT_LOOK_AHEAD;
    for (uint32_t i = 0; i < count && i < PORT_PREFETCH_AHEAD; i++)
        rte_prefetch0(rte_pktmbuf_mtod(mbufs[i], void *));
    for (uint32_t i = 0; i < steps; i++)
        queue_look_ahead(mbufs, i, count, hearer);
    for (uint32_t i = 0; i < count; i++) {
        queue_look_ahead(mbufs, i + steps, count, hearer);
        struct rte_mbuf *left = queue_input(queue, mbufs[i], hearer->input, hearer->context);
        if (left != NULL)
            mbufs[kept++] = left;
    }
    rte_pktmbuf_free_bulk(mbufs, kept);
}

uint32_t port_receive_ahead(struct port_queue *queue, void (*ahead)(void *context, const uint8_t *frame, uint32_t length),
                            void (*input)(void *context, const uint8_t *frame, uint32_t length), void *context) {
    const struct queue_hearer hearer = {.ahead = ahead, .input = input, .context = context};
    struct rte_mbuf *mbufs[PORT_BURST];
    uint32_t total = 0;
    if (queue->receives) {
        uint32_t count = rte_eth_rx_burst(queue->port->id, queue->queue, mbufs, PORT_BURST);
        uint64_t bytes = 0;
        for (uint32_t i = 0; i < count; i++)
            bytes += mbufs[i]->pkt_len;
        if (count > 0) {
            counter_add(&queue->counters->frames_in, count);
            counter_add(&queue->counters->bytes_in, bytes);
        }
        queue_input_burst(queue, mbufs, count, &hearer);
        total += count;
    }
    struct rte_ring *ring = queue->device->hand_over[queue->worker];
    if (ring != NULL && rte_ring_count(ring) > 0) {
        uint32_t count = rte_ring_sc_dequeue_burst(ring, (void **)mbufs, PORT_BURST, NULL);
        queue->current_handed_over = true;
        queue_input_burst(queue, mbufs, count, &hearer);
        queue->current_handed_over = false;
        total += count;
    }
    return total;
}

uint32_t port_receive(struct port_queue *queue, void (*input)(void *context, const uint8_t *frame, uint32_t length), void *context) {
    return port_receive_ahead(queue, NULL, input, context);
}
