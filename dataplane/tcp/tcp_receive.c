/* tcp_receive.c: bytes on their way up: in order straight from the packet, otherwise through a few blocks on loan from the stack's pool. */
#include "tcp_conn.h"

enum {
    BLOCKS_MIN = 32,            /* no peer may hold more of the pool, or twice what its window fills */
    ORDER_RESERVE_SHIFT = 2,    /* a quarter of the pool is kept from bytes out of order, which any peer can send */
    DELAYED_ACK_US = 40 * 1000, /* RFC 5681 4.2: at most 500 ms, and every second full segment */
};

uint32_t tcp_receive_blocks_max(const struct tcp_config *config) {
    return tcp_max(BLOCKS_MIN, 2 * (config->receive_buffer_bytes / TCP_BLOCK_BYTES));
}

uint32_t tcp_receive_room(const struct tcp_conn *conn) {
    uint32_t size = tcp_min(conn->stack->config.receive_buffer_bytes, (uint32_t)UINT16_MAX << conn->rcv_shift);
    return size > conn->backlog_bytes ? size - conn->backlog_bytes : 0;
}

void tcp_receive_drop(struct tcp_conn *conn) {
    struct tcp_stack *stack = conn->stack;
    while (conn->block_head != TCP_NONE) {
        uint32_t index = conn->block_head;
        conn->block_head = block_at(stack, index)->next;
        tcp_pool_give(&stack->blocks, index);
    }
    conn->block_count = conn->backlog_bytes = 0;
}

static void drop_head_block(struct tcp_conn *conn) {
    uint32_t index = conn->block_head;
    const struct tcp_block *block = block_at(conn->stack, index);
    conn->block_head = block->next;
    if (conn->block_head != TCP_NONE) {
        struct tcp_order *order = &block_at(conn->stack, conn->block_head)->order;
        *order = block->order;
        order->hint = order->hint == index ? TCP_NONE : order->hint;
    }
    conn->block_count--;
    tcp_pool_give(&conn->stack->blocks, index);
}

/* How the blocks lie; there is one at least. */
static struct tcp_order *order_of(const struct tcp_conn *conn) {
    return &block_at(conn->stack, conn->block_head)->order;
}

/* All of these bytes can be kept for certain, should the layer above take none. Blocks that came out of order may split them. */
static bool can_keep(const struct tcp_conn *conn, uint32_t length) {
    uint32_t blocks = 1 + conn->block_count;
    for (uint32_t kept = TCP_BLOCK_BYTES; kept < length; kept += TCP_BLOCK_BYTES) {
        blocks++;
    }
    return conn->block_count + blocks <= tcp_receive_blocks_max(&conn->stack->config) && tcp_pool_left(&conn->stack->blocks) >= blocks;
}

/* Copies bytes into blocks after `previous` (TCP_NONE: at the front), which may be filled up; returns how many fitted. */
static uint32_t keep_after(struct tcp_conn *conn, uint32_t *previous, uint32_t sequence, const uint8_t *bytes, uint32_t length,
                           uint32_t reserve) {
    struct tcp_stack *stack = conn->stack;
    uint32_t kept = 0;
    if (*previous != TCP_NONE) {
        struct tcp_block *block = block_at(stack, *previous);
        if (block->sequence + block->length == sequence) {
            kept = tcp_min(length, TCP_BLOCK_BYTES - block->start - block->length);
            memcpy(block->bytes + block->start + block->length, bytes, kept);
            block->length = (uint16_t)(block->length + kept);
        }
    }
    uint32_t most = tcp_receive_blocks_max(&stack->config);
    while (kept < length && conn->block_count < most && tcp_pool_left(&stack->blocks) > reserve) {
        uint32_t index = tcp_pool_take(&stack->blocks), take = tcp_min(length - kept, TCP_BLOCK_BYTES);
        struct tcp_block *block = block_at(stack, index);
        uint32_t *link = *previous == TCP_NONE ? &conn->block_head : &block_at(stack, *previous)->next;
        if (*previous == TCP_NONE) {
            block->order = conn->block_head != TCP_NONE ? *order_of(conn) : (struct tcp_order){.tail = index, .hint = TCP_NONE};
        } else if (*link == TCP_NONE) {
            order_of(conn)->tail = index;
        }
        block->next = *link;
        block->sequence = sequence + kept;
        block->start = 0;
        block->length = (uint16_t)take;
        memcpy(block->bytes, bytes + kept, take);
        *link = index;
        *previous = index;
        conn->block_count++;
        kept += take;
    }
    return kept;
}

/* Keeps bytes where no block holds them yet. Blocks lie in order and never overlap. Returns how many bytes from `sequence` on are held. */
static uint32_t keep(struct tcp_conn *conn, uint32_t sequence, const uint8_t *bytes, uint32_t length, uint32_t reserve) {
    struct tcp_stack *stack = conn->stack;
    uint32_t end = sequence + length, at = sequence, previous = TCP_NONE, next = conn->block_head;
    if (next != TCP_NONE) { /* most come after all others, or near the last one that did not */
        const struct tcp_order *order = order_of(conn);
        if (SEQ_LEQ(block_at(stack, order->tail)->sequence, sequence)) {
            next = order->tail;
        } else if (order->hint != TCP_NONE && SEQ_LEQ(block_at(stack, order->hint)->sequence, sequence)) {
            next = order->hint;
        }
    }
    while (SEQ_LT(at, end)) {
        if (next != TCP_NONE && SEQ_LEQ(block_at(stack, next)->sequence, at)) {
            uint32_t covered = block_at(stack, next)->sequence + block_at(stack, next)->length;
            at = SEQ_GT(covered, at) ? covered : at;
            previous = next;
            next = block_at(stack, next)->next;
            continue;
        }
        uint32_t limit = next != TCP_NONE && SEQ_LT(block_at(stack, next)->sequence, end) ? block_at(stack, next)->sequence : end;
        uint32_t kept = keep_after(conn, &previous, at, bytes + (at - sequence), limit - at, reserve);
        if (previous != TCP_NONE && previous != order_of(conn)->tail) {
            order_of(conn)->hint = previous;
        }
        if (kept < limit - at) {
            return at + kept - sequence;
        }
        at = limit;
    }
    return length;
}

/* Forgets what blocks hold of the bytes before `sequence`, which went up by another way. */
static void drop_before(struct tcp_conn *conn, uint32_t sequence) {
    while (conn->block_head != TCP_NONE) {
        struct tcp_block *block = block_at(conn->stack, conn->block_head);
        if (SEQ_GEQ(block->sequence, sequence)) {
            return;
        }
        uint32_t old = tcp_min(sequence - block->sequence, block->length);
        block->sequence += old;
        block->start = (uint16_t)(block->start + old);
        block->length = (uint16_t)(block->length - old);
        if (block->length > 0) {
            return;
        }
        drop_head_block(conn);
    }
}

/* Bytes out of order came: the span that they are part of is the first to be told (RFC 2018 section 4). */
static void note_span(struct tcp_conn *conn, struct tcp_span span) {
    struct tcp_order *order = order_of(conn);
    uint32_t kept = 0;
    struct tcp_span others[TCP_SACK_SPANS];
    for (uint32_t i = 0; i < order->span_count; i++) {
        const struct tcp_span *other = &order->spans[i];
        if (SEQ_LEQ(other->left, span.right) && SEQ_GEQ(other->right, span.left)) {
            span.left = SEQ_LT(other->left, span.left) ? other->left : span.left;
            span.right = SEQ_GT(other->right, span.right) ? other->right : span.right;
        } else {
            others[kept++] = *other;
        }
    }
    kept = tcp_min(kept, TCP_SACK_SPANS - 1);
    order->spans[0] = span;
    memcpy(order->spans + 1, others, kept * sizeof(others[0]));
    order->span_count = kept + 1;
}

uint32_t tcp_receive_spans(const struct tcp_conn *conn, struct tcp_span *spans, uint32_t max) {
    const struct tcp_order *order = conn->block_head != TCP_NONE ? order_of(conn) : NULL;
    const struct tcp_span *duplicate = &conn->duplicate;
    uint32_t count = 0, known = order != NULL ? order->span_count : 0, told = TCP_NONE;
    if (duplicate->left != duplicate->right && max > 1) {
        bool below = SEQ_LEQ(duplicate->right, conn->rcv_nxt);
        for (uint32_t i = 0; !below && told == TCP_NONE && i < known; i++) {
            if (SEQ_GT(order->spans[i].left, conn->rcv_nxt) && SEQ_LEQ(order->spans[i].left, duplicate->left) &&
                SEQ_GEQ(order->spans[i].right, duplicate->right)) {
                told = i;
            }
        }
        if (below || told != TCP_NONE) {
            spans[count++] = *duplicate;
        }
        if (told != TCP_NONE) { /* second comes what it is a part of, or the peer could not tell what it means (RFC 2883 4.2) */
            spans[count++] = order->spans[told];
        }
    }
    for (uint32_t i = 0; i < known && count < max; i++) {
        /* What is in order by now is told no more: an answer from above carries this ACK. */
        if (i != told && SEQ_GT(order->spans[i].left, conn->rcv_nxt)) {
            spans[count++] = order->spans[i];
        }
    }
    return count;
}

void tcp_receive_duplicate(struct tcp_conn *conn, uint32_t left, uint32_t right, uint64_t now_us) {
    if (conn->rcv_nxt - conn->irs <= INT32_MAX && !SEQ_GT(left, conn->irs)) {
        left = conn->irs + 1; /* what lies before is of an earlier connection */
    }
    if ((conn->loss.flags & LOSS_SACK) == 0 || !SEQ_LT(left, right)) {
        return;
    }
    if (conn->duplicate.left != conn->duplicate.right) {
        tcp_output_ack(conn, now_us); /* each is told once (RFC 2883 section 4) */
    }
    conn->duplicate = (struct tcp_span){.left = left, .right = right};
    tcp_output_list_ack(conn);
}

/* What is in order by now is told no more. */
static void drop_spans(struct tcp_conn *conn) {
    struct tcp_order *order = order_of(conn);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < order->span_count; i++) {
        if (SEQ_GT(order->spans[i].left, conn->rcv_nxt)) {
            order->spans[kept++] = order->spans[i];
        }
    }
    order->span_count = kept;
}

/* What blocks hold already of a segment out of order, the first stretch of it. */
static struct tcp_span find_held(const struct tcp_conn *conn, uint32_t sequence, uint32_t end) {
    if (conn->block_head != TCP_NONE) {
        const struct tcp_order *order = order_of(conn);
        for (uint32_t i = 0; i < order->span_count; i++) {
            uint32_t left = SEQ_GT(order->spans[i].left, sequence) ? order->spans[i].left : sequence;
            uint32_t right = SEQ_LT(order->spans[i].right, end) ? order->spans[i].right : end;
            if (SEQ_LT(left, right)) {
                return (struct tcp_span){.left = left, .right = right};
            }
        }
    }
    return (struct tcp_span){0};
}

/* Hands bytes to the layer above; returns how many it took. */
static uint32_t hand_up(struct tcp_conn *conn, const uint8_t *bytes, uint32_t length, uint64_t now_us) {
    const struct tcp_events *events = &conn->stack->config.events;
    uint32_t taken = 0;
    if (events->received == NULL) {
        return length;
    }
    conn->flags |= CONN_DELIVERING;
    do {
        conn->flags &= (uint16_t)~CONN_RESUME;
        uint32_t some = tcp_min(events->received(conn->user, conn, bytes + taken, length - taken, now_us), length - taken);
        taken += some;
        if (some == 0) {
            break;
        }
    } while (taken < length && (conn->flags & CONN_RESUME) != 0 && conn->state != TCP_STATE_CLOSED);
    conn->flags &= (uint16_t) ~(CONN_DELIVERING | CONN_RESUME);
    conn->stack->counters.bytes_in += taken;
    return taken;
}

/* New bytes at rcv_nxt. rcv_nxt moves before the layer above hears of them, so that what it sends acknowledges them. */
static void in_order(struct tcp_conn *conn, const uint8_t *bytes, uint32_t length, uint64_t now_us) {
    uint32_t sequence = conn->rcv_nxt;
    if (conn->backlog_bytes > 0) {
        uint32_t kept = keep(conn, sequence, bytes, length, 0);
        conn->rcv_nxt += kept;
        conn->backlog_bytes += kept;
        return;
    }
    bool certain = can_keep(conn, length);
    if (certain) {
        conn->rcv_nxt += length;
    }
    uint32_t taken = hand_up(conn, bytes, length, now_us);
    if (conn->state == TCP_STATE_CLOSED) {
        return;
    }
    if (!certain) {
        conn->rcv_nxt += taken; /* the rest was never acknowledged: it comes again */
    } else if (taken < length) {
        drop_before(conn, sequence + taken);
        uint32_t kept = keep(conn, sequence + taken, bytes + taken, length - taken, 0);
        assert(kept == length - taken);
        conn->backlog_bytes = kept;
    }
}

/* Blocks that rcv_nxt has reached. */
static void drain(struct tcp_conn *conn, uint64_t now_us) {
    while (conn->backlog_bytes == 0) {
        drop_before(conn, conn->rcv_nxt);
        if (conn->block_head == TCP_NONE || block_at(conn->stack, conn->block_head)->sequence != conn->rcv_nxt) {
            return;
        }
        struct tcp_block *block = block_at(conn->stack, conn->block_head);
        uint32_t length = block->length;
        conn->rcv_nxt += length;
        uint32_t taken = hand_up(conn, block->bytes + block->start, length, now_us);
        if (conn->state == TCP_STATE_CLOSED) {
            return;
        }
        drop_before(conn, conn->rcv_nxt - (length - taken));
        conn->backlog_bytes = length - taken;
    }
    if (conn->backlog_bytes == 0) {
        return;
    }
    const struct tcp_block *tail = block_at(conn->stack, order_of(conn)->tail);
    if (SEQ_LEQ(tail->sequence + tail->length, conn->rcv_nxt)) {
        return;
    }
    /* The layer above is behind: what follows in order joins the backlog. */
    for (uint32_t i = conn->block_head; conn->backlog_bytes > 0 && i != TCP_NONE; i = block_at(conn->stack, i)->next) {
        struct tcp_block *block = block_at(conn->stack, i);
        if (SEQ_GT(block->sequence, conn->rcv_nxt)) {
            return;
        }
        if (SEQ_GT(block->sequence + block->length, conn->rcv_nxt)) {
            uint32_t more = block->sequence + block->length - conn->rcv_nxt;
            conn->rcv_nxt += more;
            conn->backlog_bytes += more;
        }
    }
}

static void tell_peer_closed(struct tcp_conn *conn, uint64_t now_us) {
    if ((conn->flags & CONN_PEER_FIN_TAKEN) == 0 || (conn->flags & CONN_PEER_FIN_TOLD) != 0 || conn->backlog_bytes > 0) {
        return;
    }
    conn->flags |= CONN_PEER_FIN_TOLD;
    if (conn->stack->config.events.peer_closed != NULL) {
        conn->stack->config.events.peer_closed(conn->user, conn, now_us);
    }
}

/* RFC 9293 3.10.7.4, eighth. */
static void take_fin(struct tcp_conn *conn, uint64_t now_us) {
    conn->flags |= CONN_PEER_FIN_TAKEN;
    conn->rcv_nxt++;
    tcp_output_list_ack(conn);
    switch (conn->state) {
    case TCP_STATE_ESTABLISHED:
        tcp_conn_enter(conn, TCP_STATE_CLOSE_WAIT);
        break;
    case TCP_STATE_FIN_WAIT_1:
        tcp_conn_enter(conn, TCP_STATE_CLOSING);
        break;
    case TCP_STATE_FIN_WAIT_2:
        conn->limit_at = TCP_NEVER;
        tcp_conn_enter(conn, TCP_STATE_TIME_WAIT);
        break;
    default:
        break;
    }
    tell_peer_closed(conn, now_us);
}

static void schedule_ack(struct tcp_conn *conn, uint32_t length, bool at_once, uint64_t now_us) {
    conn->unacked_bytes += length;
    if (at_once || conn->unacked_bytes >= 2 * conn->rcv_mss) {
        tcp_output_list_ack(conn);
        return;
    }
    conn->flags |= CONN_ACK_PENDING;
    if (conn->ack_at == TCP_NEVER) {
        conn->ack_at = now_us + DELAYED_ACK_US;
        tcp_timer_arm(conn, conn->ack_at);
    }
}

void tcp_receive_ack_later(struct tcp_conn *conn, uint64_t now_us) {
    schedule_ack(conn, 0, false, now_us);
}

void tcp_receive(struct tcp_conn *conn, uint32_t sequence, const uint8_t *bytes, uint32_t length, bool fin, uint64_t now_us) {
    struct tcp_stack *stack = conn->stack;
    uint32_t end = sequence + length;
    bool asks = length > 0 || fin;    /* an ACK is owed even where nothing of it can be kept (RFC 9293 3.8.6.1: a window probe) */
    if (SEQ_GT(end, conn->rcv_adv)) { /* beyond what we offered */
        length = SEQ_GT(conn->rcv_adv, sequence) ? conn->rcv_adv - sequence : 0;
        end = sequence + length;
        fin = false;
    }
    if ((conn->flags & CONN_PEER_FIN) != 0 && SEQ_GT(end, conn->peer_fin)) { /* nothing comes after a FIN */
        length = SEQ_GT(conn->peer_fin, sequence) ? conn->peer_fin - sequence : 0;
    } else if (fin && (conn->flags & CONN_PEER_FIN) == 0 && SEQ_GEQ(end, conn->rcv_nxt)) {
        conn->flags |= CONN_PEER_FIN;
        conn->peer_fin = end;
    }
    if (SEQ_LT(sequence, conn->rcv_nxt)) { /* the beginning is known already */
        uint32_t old = tcp_min(conn->rcv_nxt - sequence, length);
        tcp_receive_duplicate(conn, sequence, sequence + old, now_us);
        sequence += old;
        bytes += old;
        length -= old;
    }
    if (length > conn->rcv_mss) {
        conn->rcv_mss = tcp_min(length, stack->config.mtu);
    }
    if (conn->state == TCP_STATE_FIN_WAIT_2) {
        tcp_conn_half_closed(conn, now_us); /* it still has something to say */
    }
    if (length > 0 && sequence != conn->rcv_nxt) {
        stack->counters.out_of_order++;
        struct tcp_span held = find_held(conn, sequence, sequence + length);
        uint32_t kept = keep(conn, sequence, bytes, length, stack->blocks.capacity >> ORDER_RESERVE_SHIFT);
        if (kept > 0) {
            note_span(conn, (struct tcp_span){.left = sequence, .right = sequence + kept});
        }
        tcp_receive_duplicate(conn, held.left, held.right, now_us);
        tcp_output_ack(conn, now_us); /* at once: the peer counts duplicates (RFC 5681 4.2) */
        return;
    }
    if (length > 0) {
        bool gap = conn->block_head != TCP_NONE;
        uint32_t before = conn->rcv_nxt;
        /* Before the bytes go up, so that an answer from above carries the acknowledgement. */
        schedule_ack(conn, length, gap, now_us);
        in_order(conn, bytes, length, now_us);
        if (conn->state == TCP_STATE_CLOSED) {
            return;
        }
        drain(conn, now_us);
        if (conn->state == TCP_STATE_CLOSED) {
            return;
        }
        if (conn->block_head != TCP_NONE) {
            drop_spans(conn);
        }
        if (conn->rcv_nxt == before) {
            tcp_output_list_ack(conn);
        }
    }
    if ((conn->flags & (CONN_PEER_FIN | CONN_PEER_FIN_TAKEN)) == CONN_PEER_FIN && conn->rcv_nxt == conn->peer_fin) {
        take_fin(conn, now_us);
    } else if (fin || (asks && length == 0)) {
        tcp_output_list_ack(conn);
    }
}

void tcp_receive_resume(struct tcp_conn *conn, uint64_t now_us) {
    if (!conn_synchronized(conn)) { /* over, or no window was offered yet that could have grown */
        return;
    }
    if ((conn->flags & CONN_DELIVERING) != 0) {
        conn->flags |= CONN_RESUME;
        return;
    }
    while (conn->backlog_bytes > 0) {
        struct tcp_block *block = block_at(conn->stack, conn->block_head);
        uint32_t length = tcp_min(block->length, conn->backlog_bytes);
        uint32_t taken = hand_up(conn, block->bytes + block->start, length, now_us);
        if (conn->state == TCP_STATE_CLOSED) {
            return;
        }
        drop_before(conn, block->sequence + taken);
        conn->backlog_bytes -= taken;
        if (taken < length) {
            break;
        }
    }
    tell_peer_closed(conn, now_us);
    if (conn->state == TCP_STATE_CLOSED) {
        return;
    }
    if ((conn->flags & CONN_PEER_FIN_TAKEN) == 0 && tcp_output_window_grew(conn)) {
        tcp_output_list_ack(conn);
    }
    tcp_conn_finish(conn, now_us);
}
