/* tcp_queue.c: the send queue of a connection: ranges of bytes that wait for their acknowledgement. */
#include <errno.h>

#include "tcp_conn.h"

enum { QUEUE_BYTES_MAX = 1 << 30 /* half of what sequence arithmetic can tell apart */ };

/* The piece continues the last range in memory and belongs to the same owner: one range, and one piece of a segment, does for both. Only
 * within a page, because whoever cut the bytes may have cut them where pages end for the device's sake. */
static bool extend_tail(struct tcp_conn *conn, const struct tcp_piece *piece) {
    enum { PAGE_SHIFT = 12 };
    if (conn->range_tail == TCP_NONE) {
        return false;
    }
    struct tcp_range *tail = range_at(conn->stack, conn->range_tail);
    uintptr_t first = (uintptr_t)tail->bytes, last = (uintptr_t)piece->bytes + piece->length - 1;
    if (tail->bytes + tail->length != piece->bytes || tail->owner != piece->owner || first >> PAGE_SHIFT != last >> PAGE_SHIFT) {
        return false;
    }
    if (conn->unsent_range == TCP_NONE) {
        conn->unsent_range = conn->range_tail;
        conn->unsent_offset = tail->length;
    }
    tail->length += piece->length;
    conn->snd_end += piece->length;
    return true;
}

int tcp_send(struct tcp_conn *conn, const struct tcp_piece *pieces, uint32_t count, uint64_t now_us) {
    struct tcp_stack *stack = conn->stack;
    if (conn->state == TCP_STATE_CLOSED || (conn->flags & CONN_FIN_QUEUED) != 0) {
        return -EPIPE;
    }
    uint64_t bytes = conn->snd_end - conn->snd_una;
    uint32_t ranges = 0;
    for (uint32_t i = 0; i < count; i++) {
        bytes += pieces[i].length;
        ranges += pieces[i].length > 0;
    }
    uint32_t reserve = conn->range_head == TCP_NONE ? 0 : stack->ranges.capacity >> TCP_RESERVE_SHIFT;
    if (ranges + reserve > tcp_pool_left(&stack->ranges) || bytes > QUEUE_BYTES_MAX) {
        stack->counters.pool_exhausted++;
        return -ENOBUFS;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (pieces[i].length == 0 || extend_tail(conn, &pieces[i])) {
            continue;
        }
        uint32_t index = tcp_pool_take(&stack->ranges);
        *range_at(stack, index) =
            (struct tcp_range){.bytes = pieces[i].bytes, .owner = pieces[i].owner, .length = pieces[i].length, .next = TCP_NONE};
        if (pieces[i].owner != NULL) {
            pieces[i].owner->references++;
        }
        if (conn->range_tail == TCP_NONE) {
            conn->range_head = index;
            conn->head_offset = 0;
        } else {
            range_at(stack, conn->range_tail)->next = index;
        }
        conn->range_tail = index;
        if (conn->unsent_range == TCP_NONE) {
            conn->unsent_range = index;
            conn->unsent_offset = 0;
        }
        conn->snd_end += pieces[i].length;
    }
    return 0;
}

uint32_t tcp_unacknowledged(const struct tcp_conn *conn) {
    uint32_t from = conn->state == TCP_STATE_SYN_SENT || conn->state == TCP_STATE_SYN_RECEIVED ? conn->iss + 1 : conn->snd_una;
    return SEQ_GT(conn->snd_end, from) ? conn->snd_end - from : 0;
}

uint32_t tcp_unsent(const struct tcp_conn *conn) {
    return SEQ_GT(conn->snd_end, conn->snd_nxt) ? conn->snd_end - conn->snd_nxt : 0;
}

uint32_t tcp_queue_gather(const struct tcp_stack *stack, uint32_t *range, uint32_t *offset, uint32_t length, struct tcp_piece *pieces,
                          uint8_t *piece_count) {
    uint32_t gathered = 0, at = *range, skip = *offset;
    uint8_t count = 0;
    while (gathered < length && count < TCP_SEGMENT_PIECES_MAX) {
        const struct tcp_range *source = range_at(stack, at);
        uint32_t take = tcp_min(source->length - skip, length - gathered);
        pieces[count++] = (struct tcp_piece){.bytes = source->bytes + skip, .length = take, .owner = source->owner};
        gathered += take;
        skip += take;
        if (skip == source->length) {
            at = source->next;
            skip = 0;
        }
    }
    *range = at;
    *offset = skip;
    *piece_count = count;
    return gathered;
}

void tcp_queue_drop_bytes(struct tcp_conn *conn, uint32_t bytes) {
    struct tcp_stack *stack = conn->stack;
    while (bytes > 0) {
        uint32_t index = conn->range_head;
        struct tcp_range *range = range_at(stack, index);
        uint32_t left = range->length - conn->head_offset;
        if (bytes < left) {
            conn->head_offset += bytes;
            return;
        }
        struct tcp_owner *owner = range->owner;
        bytes -= left;
        conn->range_head = range->next;
        conn->head_offset = 0;
        if (range->next == TCP_NONE) {
            conn->range_tail = TCP_NONE;
        }
        tcp_pool_give(&stack->ranges, index);
        if (owner != NULL && --owner->references == 0) {
            owner->release(owner);
        }
    }
}

void tcp_queue_advance(const struct tcp_stack *stack, uint32_t *range, uint32_t *offset, uint32_t bytes) {
    *offset += bytes;
    while (*range != TCP_NONE && *offset >= range_at(stack, *range)->length) {
        *offset -= range_at(stack, *range)->length;
        *range = range_at(stack, *range)->next;
    }
}
