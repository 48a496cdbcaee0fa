/* frame_build.c: a frame becomes mbufs. By copy: one mbuf, the checksum summed while copying. By reference: a header mbuf and mbufs that
 * refer to the arena, the checksum left to the device. */
#include "checksum.h"
#include "port_private.h"
#include <string.h>

enum { TCP_CHECKSUM_OFFSET = 16, PROTOCOL_TCP = 6 };

static void frame_finish_checksum(uint8_t *header, const struct frame *frame, uint64_t payload_sum) {
    size_t l4 = (size_t)frame->l2_length + frame->l3_length;
    uint16_t checksum = checksum_finish(checksum_add(payload_sum, header + l4, frame->header_length - l4));
    memcpy(header + l4 + TCP_CHECKSUM_OFFSET, &checksum, sizeof checksum);
}

static bool frame_is_split(const struct frame *frame) {
    return frame->segment_bytes != 0 && frame->payload_length > frame->segment_bytes;
}

/* One mbuf: what drivers like best. */
static struct rte_mbuf *frame_copy(struct port_queue *queue, const struct frame *frame) {
    struct rte_mbuf *mbuf = rte_pktmbuf_alloc(queue->copy_pool);
    if (mbuf == NULL)
        return NULL;
    uint32_t length = (uint32_t)frame->header_length + frame->payload_length;
    uint8_t *to = length <= rte_pktmbuf_tailroom(mbuf) ? (uint8_t *)rte_pktmbuf_append(mbuf, (uint16_t)length) : NULL;
    if (to == NULL) {
        rte_pktmbuf_free(mbuf);
        return NULL;
    }
    uint8_t *header = to;
    memcpy(to, frame->header, frame->header_length);
    to += frame->header_length;
    bool sum_here = frame->l4_protocol == PROTOCOL_TCP && !queue->port->checksum_offload;
    uint64_t sum = 0;
    size_t offset = 0;
    for (uint32_t i = 0; i < frame->piece_count; i++) {
        const struct tcp_piece *piece = &frame->pieces[i];
        if (sum_here)
            sum = checksum_join(sum, checksum_pass(to, piece->bytes, piece->length), offset);
        else
            memcpy(to, piece->bytes, piece->length);
        to += piece->length;
        offset += piece->length;
    }
    if (sum_here)
        frame_finish_checksum(header, frame, sum);
    return mbuf;
}

static bool piece_by_reference(const struct port_queue *queue, const struct tcp_piece *piece) {
    return piece->length >= PORT_REFERENCE_BYTES_MIN && piece->bytes >= queue->arena &&
           (uint64_t)(piece->bytes - queue->arena) <= queue->arena_bytes &&
           queue->arena_bytes - (uint64_t)(piece->bytes - queue->arena) >= piece->length;
}

/* A frame under construction; `last` is where the next mbuf hangs. */
struct chain {
    struct rte_mbuf *first, *last;
};

static void chain_append(struct chain *chain, struct rte_mbuf *mbuf) {
    chain->last->next = mbuf;
    chain->last = mbuf;
    chain->first->nb_segs++;
    chain->first->pkt_len += mbuf->data_len;
}

/* Into what the last mbuf has left, and more of them. */
static int chain_copy(struct port_queue *queue, struct chain *chain, const uint8_t *bytes, uint32_t length) {
    while (length > 0) {
        uint32_t room = RTE_MBUF_HAS_EXTBUF(chain->last) ? 0 : rte_pktmbuf_tailroom(chain->last);
        /* A piece that fits into one mbuf stays in one. */
        if (room < length && (room == 0 || length <= queue->device->data_room_bytes - RTE_PKTMBUF_HEADROOM)) {
            struct rte_mbuf *mbuf = rte_pktmbuf_alloc(queue->copy_pool);
            if (mbuf == NULL)
                return -1;
            chain_append(chain, mbuf);
            room = rte_pktmbuf_tailroom(mbuf);
        }
        uint32_t part = RTE_MIN(length, room);
        memcpy(rte_pktmbuf_mtod_offset(chain->last, uint8_t *, chain->last->data_len), bytes, part);
        chain->last->data_len = (uint16_t)(chain->last->data_len + part);
        chain->first->pkt_len += part;
        bytes += part;
        length -= part;
    }
    return 0;
}

static int chain_refer(struct port_queue *queue, struct chain *chain, const uint8_t *bytes, uint32_t length) {
    while (length > 0) {
        uint32_t part = length;
        uint64_t offset = (uint64_t)(bytes - queue->arena);
        rte_iova_t iova = (rte_iova_t)(uintptr_t)bytes;
        if (queue->page_bytes != 0) {
            uint64_t in_page = (uintptr_t)bytes & (queue->page_bytes - 1);
            uint64_t arena_skew = (uintptr_t)queue->arena & (queue->page_bytes - 1);
            part = (uint32_t)RTE_MIN((uint64_t)length, queue->page_bytes - in_page);
            iova = queue->page_iovas[(arena_skew + offset) / queue->page_bytes] + in_page;
        }
        struct rte_mbuf *mbuf = rte_pktmbuf_alloc(queue->external_pool);
        if (mbuf == NULL)
            return -1;
        /* The bytes are only read: the cast away from const is what the mbuf's type asks for. */
        rte_pktmbuf_attach_extbuf(mbuf, (void *)(uintptr_t)bytes, iova, (uint16_t)part, queue->shared_info);
        rte_mbuf_ext_refcnt_update(queue->shared_info, 1);
        mbuf->data_off = 0;
        mbuf->data_len = (uint16_t)part;
        mbuf->pkt_len = part;
        chain_append(chain, mbuf);
        bytes += part;
        length -= part;
    }
    return 0;
}

/* `refer`: pieces that may be are sent from where they lie; otherwise all are copied (a frame too long for one mbuf). */
static struct rte_mbuf *frame_chain(struct port_queue *queue, const struct frame *frame, bool refer) {
    struct rte_mbuf *first = rte_pktmbuf_alloc(queue->copy_pool);
    if (first == NULL)
        return NULL;
    struct chain chain = {first, first};
    uint8_t *header = (uint8_t *)rte_pktmbuf_append(first, frame->header_length);
    if (header == NULL)
        goto failed;
    memcpy(header, frame->header, frame->header_length);
    uint64_t sum = 0;
    size_t offset = 0;
    for (uint32_t i = 0; i < frame->piece_count; i++) {
        const struct tcp_piece *piece = &frame->pieces[i];
        int rc = refer && piece_by_reference(queue, piece) ? chain_refer(queue, &chain, piece->bytes, piece->length)
                                                           : chain_copy(queue, &chain, piece->bytes, piece->length);
        if (rc != 0)
            goto failed;
        if (queue->software_checksum)
            sum = checksum_join(sum, checksum_pass(NULL, piece->bytes, piece->length), offset);
        offset += piece->length;
    }
    if (queue->software_checksum && frame->l4_protocol == PROTOCOL_TCP)
        frame_finish_checksum(header, frame, sum);
    if (first->nb_segs <= (frame_is_split(frame) ? queue->device->split_segments_max : queue->device->segments_max))
        return first;
failed:
    rte_pktmbuf_free(first);
    return NULL;
}

static uint32_t frame_references(const struct port_queue *queue, const struct frame *frame) {
    uint32_t count = 0;
    if (queue->external_pool == NULL || !frame->by_reference_allowed)
        return 0;
    for (uint32_t i = 0; i < frame->piece_count; i++)
        count += piece_by_reference(queue, &frame->pieces[i]);
    return count;
}

struct rte_mbuf *frame_build(struct port_queue *queue, const struct frame *frame) {
    const struct port *port = queue->port;
    bool split = frame_is_split(frame);
    if (split && frame->payload_length > port->segmentation_bytes_max)
        return NULL;
    /* Too many pieces for the device, or no mbuf left to refer with: a copy always works. */
    struct rte_mbuf *mbuf = frame_references(queue, frame) > 0 ? frame_chain(queue, frame, true) : NULL;
    if (mbuf == NULL)
        mbuf = split ? frame_chain(queue, frame, false) : frame_copy(queue, frame);
    if (mbuf == NULL || frame->l4_protocol != PROTOCOL_TCP || !port->checksum_offload)
        return mbuf;
    mbuf->tx_offload = rte_mbuf_tx_offload(frame->l2_length, frame->l3_length, frame->l4_length, split ? frame->segment_bytes : 0, 0, 0, 0);
    mbuf->ol_flags |= (frame->family == 4 ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6) | RTE_MBUF_F_TX_TCP_CKSUM;
    if (split) {
        mbuf->ol_flags |= RTE_MBUF_F_TX_TCP_SEG;
        if (frame->family == 4 && queue->device->ipv4_checksum_offload)
            mbuf->ol_flags |= RTE_MBUF_F_TX_IP_CKSUM;
    }
    return mbuf;
}
