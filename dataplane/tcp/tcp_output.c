/* tcp_output.c: segments on their way out: what the windows allow now, what was lost, SYN, ACK and RST. */
#include <errno.h>

#include "tcp_bytes.h"
#include "tcp_conn.h"

enum {
    RETRY_US = 1000,           /* after -EAGAIN, or when a pool was empty: at the least */
    RETRY_SPREAD_US = 2048,    /* a power of two: thousands that a full device refused in one pass must not come back in one */
    CHALLENGE_BACKOFF_MAX = 6, /* 6.5 s: no round trip is longer, so two sides that answer each other's ACKs come to an end */
    SEGMENTS_AT_ONCE_MAX = 64, /* that a device splits from one */
};

uint32_t tcp_output_timestamp(const struct tcp_conn *conn, uint64_t now_us) {
    return (uint32_t)(now_us >> TCP_TIMESTAMP_SHIFT) + conn->ts_offset;
}

static void retry_soon(struct tcp_conn *conn, uint64_t now_us) {
    conn->retry_at = now_us + RETRY_US + (conn_index(conn) & (RETRY_SPREAD_US - 1));
    tcp_timer_arm(conn, conn->retry_at);
}

bool tcp_output_window_grew(const struct tcp_conn *conn) {
    uint32_t edge = conn->rcv_nxt + tcp_receive_room(conn);
    uint32_t worth = tcp_min(conn->rcv_mss, conn->stack->config.receive_buffer_bytes / 2);
    return SEQ_GEQ(edge, conn->rcv_adv + worth);
}

/* The window to announce, in bytes. Moves the right edge by whole segments only (silly window avoidance, RFC 9293 3.8.6.2.2). */
static uint32_t offer_window(struct tcp_conn *conn) {
    if (tcp_output_window_grew(conn)) {
        conn->rcv_adv = conn->rcv_nxt + tcp_receive_room(conn);
    }
    return SEQ_GT(conn->rcv_adv, conn->rcv_nxt) ? conn->rcv_adv - conn->rcv_nxt : 0;
}

static void set_endpoints(struct tcp_segment *segment, const uint8_t *local, const uint8_t *remote, uint8_t family, uint16_t local_port,
                          uint16_t remote_port) {
    memcpy(segment->local.bytes, local, sizeof(segment->local.bytes));
    memcpy(segment->remote.bytes, remote, sizeof(segment->remote.bytes));
    segment->local.family = segment->remote.family = family;
    segment->local_port = local_port;
    segment->remote_port = remote_port;
}

/* What came out of order or twice; beside bytes only as far as these leave room in the segment. */
static uint8_t write_sack(const struct tcp_conn *conn, uint8_t *options, uint8_t length, uint32_t payload) {
    struct tcp_span spans[TCP_SACK_SPANS];
    if (conn->block_head == TCP_NONE && conn->duplicate.left == conn->duplicate.right) {
        return length;
    }
    uint32_t room = tcp_min(TCP_OPTIONS_BYTES_MAX - (uint32_t)length, payload < conn->mss ? conn->mss - payload : 0);
    if (room < TCP_SACK_PREFIX_BYTES + TCP_SACK_BLOCK_BYTES) {
        return length;
    }
    uint32_t most = (room - TCP_SACK_PREFIX_BYTES) / TCP_SACK_BLOCK_BYTES;
    uint32_t count = tcp_receive_spans(conn, spans, tcp_min(most, TCP_SACK_SPANS));
    if (count == 0) {
        return length;
    }
    uint8_t *at = options + length;
    at += tcp_options_write_sack(at, count);
    for (uint32_t i = 0; i < count; i++, at += TCP_SACK_BLOCK_BYTES) {
        tcp_put32(at, spans[i].left);
        tcp_put32(at + 4, spans[i].right);
    }
    return (uint8_t)(at - options);
}

/* Gives one segment of an open connection to the network: completes the endpoints, the acknowledgement, window and options, and notes that
 * an ACK went with it. */
static int emit(struct tcp_conn *conn, struct tcp_segment *segment, uint64_t now_us) {
    uint8_t options[TCP_OPTIONS_BYTES_MAX];
    struct tcp_stack *stack = conn->stack;
    uint32_t edge = conn->rcv_adv;
    set_endpoints(segment, conn->local, conn->remote, conn->family, conn->local_port, conn->remote_port);
    segment->acknowledgement = conn->rcv_nxt;
    segment->flags |= TCP_ACK;
    segment->window = (uint16_t)tcp_min(offer_window(conn) >> conn->rcv_shift, UINT16_MAX);
    segment->may_fragment = (conn->path_flags & PATH_MAY_FRAGMENT) != 0;
    if ((conn->flags & CONN_TIMESTAMPS) != 0) {
        segment->options = options;
        segment->options_length = tcp_options_write(options, tcp_output_timestamp(conn, now_us), conn->ts_recent);
    }
    if ((conn->loss.flags & LOSS_SACK) != 0) {
        segment->options = options;
        segment->options_length = write_sack(conn, options, segment->options_length, segment->payload_length);
    }
    int rc = stack->config.transmit(stack->config.network, segment);
    if (rc == -EAGAIN) {
        conn->rcv_adv = edge; /* the peer has not heard of it */
        return rc;
    }
    stack->counters.segments_out++;
    stack->counters.bytes_out += segment->payload_length;
    if (rc != 0) {
        conn->flags |= CONN_SOFT_ERROR; /* as if lost on the way: the timers repeat it and give up in the end */
    }
    conn->duplicate.left = conn->duplicate.right;
    conn->flags &= (uint16_t)~CONN_ACK_PENDING;
    conn->ack_at = TCP_NEVER;
    conn->unacked_bytes = 0;
    conn->last_ack_sent = conn->rcv_nxt;
    return rc;
}

void tcp_output_ack(struct tcp_conn *conn, uint64_t now_us) {
    struct tcp_segment segment = {.sequence = conn->snd_nxt};
    if (emit(conn, &segment, now_us) == -EAGAIN) {
        conn->flags |= CONN_ACK_PENDING;
        retry_soon(conn, now_us);
    }
}

void tcp_output_keepalive(struct tcp_conn *conn, uint64_t now_us) {
    struct tcp_segment segment = {.sequence = conn->snd_nxt - 1};
    emit(conn, &segment, now_us); /* if the device is full, the next one serves */
}

void tcp_output_challenge(struct tcp_conn *conn, uint64_t now_us) {
    uint32_t now = tcp_tick(now_us);
    if (now - conn->challenge >= (uint32_t)TCP_CHALLENGE_TICKS << conn->challenge_backoff) {
        conn->challenge = now;
        conn->challenge_backoff = (uint8_t)tcp_min(conn->challenge_backoff + 1U, CHALLENGE_BACKOFF_MAX);
        conn->stack->counters.challenge_acks++;
        tcp_output_ack(conn, now_us);
    }
}

void tcp_output_raw(struct tcp_stack *stack, const uint8_t local[16], const uint8_t remote[16], uint8_t family, uint16_t local_port,
                    uint16_t remote_port, uint32_t sequence, uint32_t acknowledgement, uint8_t flags, const uint8_t *options,
                    uint8_t options_length) {
    struct tcp_segment segment = {
        .sequence = sequence, .acknowledgement = acknowledgement, .flags = flags, .options = options, .options_length = options_length};
    set_endpoints(&segment, local, remote, family, local_port, remote_port);
    /* Whatever it answers will come again if this one is not taken. */
    if (stack->config.transmit(stack->config.network, &segment) == 0) {
        stack->counters.segments_out++;
        stack->counters.resets_sent += (flags & TCP_RST) != 0;
    }
}

void tcp_output_reset(struct tcp_conn *conn, uint64_t now_us) {
    struct tcp_segment segment = {.sequence = conn->snd_nxt, .flags = TCP_RST};
    if (emit(conn, &segment, now_us) == 0) {
        conn->stack->counters.resets_sent++;
    }
}

void tcp_output_syn(struct tcp_conn *conn, uint64_t now_us) {
    struct tcp_stack *stack = conn->stack;
    uint8_t bytes[TCP_OPTIONS_BYTES_MAX];
    bool answers = conn->state == TCP_STATE_SYN_RECEIVED;
    /* In answer to the peer's SYN only what it offered (RFC 7323 2.2, 3.2); rcv_shift was cleared if it did not scale. */
    struct tcp_options options = {.mss = (uint16_t)(stack->config.mtu - (conn->family == 4 ? TCP_HEADERS_V4 : TCP_HEADERS_V6)),
                                  .shift = stack->rcv_shift,
                                  .has_shift = !answers || (conn->flags & CONN_SCALING) != 0,
                                  .has_timestamps = !answers || (conn->flags & CONN_TIMESTAMPS) != 0,
                                  .sack_permitted = !answers || (conn->loss.flags & LOSS_SACK) != 0,
                                  .ts_value = tcp_output_timestamp(conn, now_us),
                                  .ts_echo = answers ? conn->ts_recent : 0};
    struct tcp_segment segment = {.sequence = conn->iss,
                                  .acknowledgement = conn->rcv_nxt,
                                  .flags = answers ? TCP_SYN | TCP_ACK : TCP_SYN,
                                  .window = (uint16_t)tcp_min(stack->config.receive_buffer_bytes, UINT16_MAX),
                                  .options = bytes,
                                  .options_length = tcp_options_write_syn(bytes, &options)};
    set_endpoints(&segment, conn->local, conn->remote, conn->family, conn->local_port, conn->remote_port);
    int rc = stack->config.transmit(stack->config.network, &segment);
    if (rc == -EAGAIN) {
        retry_soon(conn, now_us);
        return;
    }
    if (rc == -EHOSTUNREACH && !answers) {
        tcp_conn_end(conn, TCP_UNREACHABLE);
        return;
    }
    stack->counters.segments_out++;
    conn->retry_at = TCP_NEVER;
    conn->sent_us = now_us;
    conn->retransmit_at = now_us + tcp_output_rto(conn, conn->syn_retries);
    tcp_timer_arm(conn, conn->retransmit_at);
}

int tcp_output_flight(struct tcp_conn *conn, uint32_t index, uint64_t now_us) {
    struct tcp_piece pieces[TCP_SEGMENT_PIECES_MAX];
    struct tcp_flight *flight = flight_at(conn->stack, index);
    bool whole = flight->length <= conn->mss || tcp_flight_split(conn, index, conn->mss);
    uint32_t length = tcp_min(flight->length, conn->mss);
    struct tcp_segment segment = {.sequence = flight->sequence,
                                  .payload_length = (uint16_t)length,
                                  .pieces = pieces,
                                  .flags = whole && (flight->flags & FLIGHT_FIN) != 0 ? TCP_FIN : 0};
    uint32_t range = flight->range, offset = flight->offset;
    uint32_t gathered = tcp_queue_gather(conn->stack, &range, &offset, length, pieces, &segment.piece_count);
    if (gathered < length) { /* joined records may lie in more pieces than one segment takes */
        segment.payload_length = (uint16_t)gathered;
        segment.flags = 0;
        whole = tcp_flight_split(conn, index, gathered);
    }
    if (flight->sequence + gathered == conn->snd_end && gathered > 0) {
        segment.flags |= TCP_PSH;
    }
    if (emit(conn, &segment, now_us) == -EAGAIN) {
        retry_soon(conn, now_us);
        return -EAGAIN;
    }
    tcp_flight_sent_again(conn, index, now_us);
    if (!whole) {
        flight->flags |= FLIGHT_CUT;
    }
    conn->sent_us = now_us;
    tcp_recovery_sent(conn, gathered + ((segment.flags & TCP_FIN) != 0), true, now_us);
    /* The oldest has left anew: its timeout counts from here, or it would pass before the answer can come. */
    if (conn->retransmit_at == TCP_NEVER || (index == conn->flight_head && conn->loss.timer == LOSS_TIMER_RTO)) {
        tcp_recovery_arm(conn, now_us, now_us);
    }
    return 0;
}

/* Records the first `length` bytes never sent, and a FIN behind them, as one segment in flight. */
static void flight_append(struct tcp_conn *conn, uint32_t length, uint8_t flags, uint64_t now_us) {
    struct tcp_stack *stack = conn->stack;
    uint32_t index = tcp_pool_take(&stack->flights);
    struct tcp_flight *flight = flight_at(stack, index);
    *flight = (struct tcp_flight){.sequence = conn->snd_nxt,
                                  .range = conn->unsent_range,
                                  .offset = conn->unsent_offset,
                                  .sent_us = (uint32_t)now_us,
                                  .length = length,
                                  .flags = flags};
    tcp_flight_append(conn, index);
    conn->snd_nxt += flight_space(flight);
}

/* Sends `length` new bytes (fewer when they lie in too many pieces), and the FIN after the last of them if there is room. More than a
 * segment only where the device splits it: each of its segments has a record of its own. 0 or -errno. */
static int send_new(struct tcp_conn *conn, uint32_t length, uint32_t room, uint8_t flight_flags, uint64_t now_us) {
    struct tcp_stack *stack = conn->stack;
    struct tcp_piece pieces[TCP_SEGMENT_PIECES_MAX];
    struct tcp_segment segment = {.sequence = conn->snd_nxt, .first_transmission = true, .pieces = pieces, .segment_bytes = conn->mss};
    uint32_t mss = conn->mss, reserve = stack->flights.capacity >> TCP_RESERVE_SHIFT, left = tcp_pool_left(&stack->flights);
    if (conn->flight_head != TCP_NONE && left <= reserve) {
        stack->counters.pool_exhausted++;
        return -ENOBUFS; /* what is in flight brings an ACK or a timeout, and with it the next try */
    }
    if (left == 0) {
        stack->counters.pool_exhausted++;
        retry_soon(conn, now_us);
        return -ENOBUFS;
    }
    if (length > mss && left <= reserve + SEGMENTS_AT_ONCE_MAX) {
        length = mss;
    }
    uint32_t range = conn->unsent_range, offset = conn->unsent_offset;
    uint32_t gathered = tcp_queue_gather(stack, &range, &offset, length, pieces, &segment.piece_count);
    if (gathered < length && gathered > mss) { /* whole segments only, so that small ones do not go amid the stream */
        length = gathered - gathered % mss;
        range = conn->unsent_range;
        offset = conn->unsent_offset;
        gathered = tcp_queue_gather(stack, &range, &offset, length, pieces, &segment.piece_count);
    }
    segment.payload_length = (uint16_t)gathered;
    if (conn->snd_nxt + gathered == conn->snd_end) {
        segment.flags |= gathered > 0 ? TCP_PSH : 0;
        if ((conn->flags & CONN_FIN_QUEUED) != 0 && gathered < room) {
            segment.flags |= TCP_FIN;
            flight_flags |= FLIGHT_FIN;
        }
    }
    int rc = emit(conn, &segment, now_us);
    if (rc == -EAGAIN) {
        retry_soon(conn, now_us);
        return rc;
    }
    bool first = conn->flight_head == TCP_NONE;
    uint32_t from = conn->snd_nxt;
    for (; gathered > mss; gathered -= mss) {
        flight_append(conn, mss, flight_flags & (uint8_t)~FLIGHT_FIN, now_us);
        tcp_queue_advance(stack, &conn->unsent_range, &conn->unsent_offset, mss);
        stack->counters.segments_out++;
    }
    flight_append(conn, gathered, flight_flags, now_us);
    conn->unsent_range = range;
    conn->unsent_offset = offset;
    conn->sent_us = now_us;
    tcp_recovery_sent(conn, conn->snd_nxt - from, false, now_us);
    if (first) {
        conn->progress_us = now_us;
        tcp_recovery_arm(conn, now_us, now_us);
    }
    if ((flight_flags & FLIGHT_FIN) != 0) {
        conn->flags |= CONN_FIN_SENT;
        tcp_conn_enter(conn, conn->state == TCP_STATE_CLOSE_WAIT ? TCP_STATE_LAST_ACK : TCP_STATE_FIN_WAIT_1);
    }
    return 0;
}

/* From one whole segment on: as many as the windows allow and the device splits, and the rest of the queue if it is all. */
static uint32_t several(const struct tcp_conn *conn, uint32_t unsent, uint32_t allowed, uint32_t window) {
    uint32_t mss = conn->mss, length = mss;
    uint32_t most = tcp_min(tcp_min(allowed, window), conn->stack->config.segmentation_bytes_max);
    if (unsent <= most && unsent <= mss * SEGMENTS_AT_ONCE_MAX) {
        return unsent;
    }
    for (uint32_t i = 1; i < SEGMENTS_AT_ONCE_MAX && length + mss <= tcp_min(most, unsent); i++) {
        length += mss;
    }
    return length;
}

static uint32_t window_room(const struct tcp_conn *conn) {
    uint32_t edge = conn->snd_una + conn->snd_wnd;
    return SEQ_GT(edge, conn->snd_nxt) ? edge - conn->snd_nxt : 0;
}

bool tcp_output_waits(const struct tcp_conn *conn) {
    return (conn->flags & CONN_FIN_SENT) == 0 && (conn->snd_nxt != conn->snd_end || (conn->flags & CONN_FIN_QUEUED) != 0);
}

void tcp_output_probe(struct tcp_conn *conn, uint64_t now_us) {
    uint32_t room = window_room(conn), unsent = conn->snd_end - conn->snd_nxt;
    if (room > 0) { /* the override timeout of silly window avoidance: send what fits (RFC 9293 3.8.6.2.1) */
        send_new(conn, tcp_min(tcp_min(room, unsent), conn->mss), room, 0, now_us);
    } else {
        send_new(conn, tcp_min(unsent, 1), 1, FLIGHT_PROBE, now_us);
    }
}

int tcp_output_tail(struct tcp_conn *conn, bool *repeats, uint64_t now_us) {
    uint32_t room = window_room(conn), unsent = conn->snd_end - conn->snd_nxt;
    *repeats = false;
    if (tcp_output_waits(conn) && room > 0 && (unsent > 0 || room > 1)) {
        uint32_t length = tcp_min(unsent, conn->mss);
        if (length <= room) {
            return send_new(conn, length, room, 0, now_us);
        }
    }
    *repeats = true;
    const struct tcp_flight *tail = flight_at(conn->stack, conn->flight_tail);
    if (SEQ_GT(conn->snd_nxt, conn->snd_una + conn->snd_wnd)) {
        return -EAGAIN; /* the peer took its window back */
    }
    if (tail->length > conn->mss && !tcp_flight_split(conn, conn->flight_tail, tail->length - conn->mss)) {
        return -ENOBUFS;
    }
    return tcp_output_flight(conn, conn->flight_tail, now_us);
}

/* Sends again what is marked lost, as the congestion window allows; false when it cannot go on now. */
static bool send_lost(struct tcp_conn *conn, uint64_t now_us) {
    while (conn->loss.lost_head != TCP_NONE) {
        const struct tcp_flight *flight = flight_at(conn->stack, conn->loss.lost_head);
        uint32_t pipe = tcp_congestion_pipe(conn);
        if (pipe > 0 && pipe + tcp_min(flight_space(flight), conn->mss) > conn->cwnd) {
            return false;
        }
        if (conn->loss.lost_head != conn->flight_head && SEQ_GT(flight->sequence + flight_space(flight), conn->snd_una + conn->snd_wnd)) {
            return false; /* the peer took its window back: the first segment is probe enough (RFC 9293 3.8.6) */
        }
        if (tcp_output_flight(conn, conn->loss.lost_head, now_us) != 0) {
            return false;
        }
        conn->stack->counters.retransmits_fast += conn->loss.state == LOSS_RECOVERY;
    }
    return true;
}

/* A segment of bytes never sent would go now. */
static bool may_send_new(const struct tcp_conn *conn) {
    uint32_t length = tcp_min(conn->snd_end - conn->snd_nxt, conn->mss);
    return tcp_output_waits(conn) && length > 0 && length <= window_room(conn) && tcp_congestion_pipe(conn) + length <= conn->cwnd;
}

void tcp_output_run(struct tcp_conn *conn, uint64_t now_us) {
    uint32_t next_before = conn->snd_nxt;
    bool failed = false, new_first = (conn->loss.flags & LOSS_FRTO_NEW) != 0 && may_send_new(conn);
    conn->loss.flags &= (uint16_t)~LOSS_FRTO_NEW;
    if (!conn_sends(conn) || (conn->lost_bytes > 0 && !new_first && !send_lost(conn, now_us)) || !tcp_output_waits(conn)) {
        return;
    }
    if (conn->flight_head == TCP_NONE) {
        tcp_path_mtu_age(conn, now_us);
        tcp_congestion_restart(conn, now_us);
    }
    while (tcp_output_waits(conn)) {
        uint32_t unsent = conn->snd_end - conn->snd_nxt, length = tcp_min(unsent, conn->mss);
        uint32_t window = window_room(conn), pipe = tcp_congestion_pipe(conn);
        uint32_t allowed = conn->cwnd > pipe ? conn->cwnd - pipe : 0;
        if (length > allowed) {
            conn->loss.flags |= LOSS_CWND_LIMITED;
            break; /* a whole segment waits for the congestion window rather than go in parts */
        }
        if (length > window) {
            /* Silly window avoidance: part of a segment only if it is half of the largest window seen (RFC 9293 3.8.6.2.1). */
            if (window == 0 || window < conn->max_snd_wnd / 2) {
                break;
            }
            length = window;
        }
        if (unsent == 0 && window == 0) {
            break;
        }
        if (length == conn->mss && length < unsent && length < conn->stack->config.segmentation_bytes_max) {
            length = several(conn, unsent, allowed, window);
        }
        if (send_new(conn, length, window, 0, now_us) != 0) {
            failed = true;
            break;
        }
    }
    if (conn->snd_nxt != next_before && conn->loss.timer == LOSS_TIMER_PROBE) { /* RFC 8985 7.2: the probe follows the last segment */
        tcp_recovery_arm(conn, tcp_recovery_oldest(conn, now_us), now_us);
    }
    if (!failed && conn->flight_head == TCP_NONE && tcp_output_waits(conn) && conn->retransmit_at == TCP_NEVER) {
        conn->retransmit_at = now_us + tcp_output_rto(conn, conn->backoff);
        conn->progress_us = now_us;
        tcp_timer_arm(conn, conn->retransmit_at);
    }
}

void tcp_output(struct tcp_conn *conn, uint64_t now_us) {
    tcp_output_run(conn, now_us);
}

void tcp_output_list_ack(struct tcp_conn *conn) {
    conn->flags |= CONN_ACK_PENDING;
    if ((conn->flags & CONN_ACK_LISTED) != 0) {
        return;
    }
    struct tcp_stack *stack = conn->stack;
    uint32_t index = conn_index(conn);
    conn->flags |= CONN_ACK_LISTED;
    conn->ack_next = stack->ack_head;
    conn->ack_previous = TCP_NONE;
    if (stack->ack_head != TCP_NONE) {
        conn_at(stack, stack->ack_head)->ack_previous = index;
    }
    stack->ack_head = index;
}

void tcp_output_unlist_ack(struct tcp_conn *conn) {
    struct tcp_stack *stack = conn->stack;
    if ((conn->flags & CONN_ACK_LISTED) == 0) {
        return;
    }
    conn->flags &= (uint16_t)~CONN_ACK_LISTED;
    if (conn->ack_next != TCP_NONE) {
        conn_at(stack, conn->ack_next)->ack_previous = conn->ack_previous;
    }
    if (conn->ack_previous != TCP_NONE) {
        conn_at(stack, conn->ack_previous)->ack_next = conn->ack_next;
    } else {
        stack->ack_head = conn->ack_next;
    }
}

void tcp_output_flush_acks(struct tcp_stack *stack, uint64_t now_us) {
    while (stack->ack_head != TCP_NONE) {
        struct tcp_conn *conn = conn_at(stack, stack->ack_head);
        tcp_output_unlist_ack(conn);
        if ((conn->flags & CONN_ACK_PENDING) != 0 && conn->state >= TCP_STATE_SYN_RECEIVED) {
            tcp_output_ack(conn, now_us);
        }
    }
}
