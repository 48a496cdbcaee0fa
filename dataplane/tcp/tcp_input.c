/* tcp_input.c: a segment arrives (RFC 9293 3.10.7, with RFC 5961 against blind attacks and RFC 7323 timestamps). */
#include "tcp_bytes.h"
#include "tcp_conn.h"

enum {
    HEADER_MIN = 20,
    REFUSED_TICKS = 500, /* half a second */
    REFUSED_ANSWERS = 32,
    REFUSED_BYTES = 512,            /* of the window, for each more */
    ECHO_MAX_US = 60 * 1000 * 1000, /* an older echo is no round trip */
    TS_RECENT_LIFE = 2025000000,    /* 24 days, in ticks */
};

static void answer_reset(struct tcp_stack *stack, const struct tcp_packet *packet, const struct tcp_incoming *in, uint16_t local_port,
                         uint16_t remote_port) {
    uint32_t sequence = 0, acknowledgement = 0;
    uint8_t flags = TCP_RST;
    if ((in->flags & TCP_RST) != 0) {
        return;
    }
    if ((in->flags & TCP_ACK) != 0) {
        sequence = in->acknowledgement;
    } else {
        acknowledgement = in->sequence + in->length + ((in->flags & TCP_SYN) != 0) + ((in->flags & TCP_FIN) != 0);
        flags |= TCP_ACK;
    }
    tcp_output_raw(stack, packet->local.bytes, packet->remote.bytes, packet->local.family, local_port, remote_port, sequence,
                   acknowledgement, flags, NULL, 0);
}

static void set_window(struct tcp_conn *conn, const struct tcp_incoming *in, uint32_t window) {
    conn->snd_wnd = window;
    conn->snd_wl1 = in->sequence;
    conn->snd_wl2 = in->acknowledgement;
    if (window > conn->max_snd_wnd) {
        conn->max_snd_wnd = window;
    }
}

/* RFC 9293 3.10.7.3 */
static void input_syn_sent(struct tcp_conn *conn, const struct tcp_packet *packet, const struct tcp_incoming *in, uint64_t now_us) {
    struct tcp_stack *stack = conn->stack;
    bool has_ack = (in->flags & TCP_ACK) != 0;
    if (has_ack && in->acknowledgement != conn->iss + 1) {
        answer_reset(stack, packet, in, conn->local_port, conn->remote_port);
        return;
    }
    if ((in->flags & TCP_RST) != 0) {
        if (has_ack) {
            stack->counters.refused++;
            tcp_conn_end(conn, TCP_REFUSED);
        }
        return;
    }
    if ((in->flags & TCP_SYN) == 0) {
        return;
    }
    conn->irs = in->sequence;
    conn->rcv_nxt = in->sequence + 1;
    tcp_conn_options(conn, &in->options);
    set_window(conn, in, in->window); /* a SYN's window is never scaled (RFC 7323 2.2) */
    if (!has_ack) {                   /* both sides opened at once (RFC 9293 3.5) */
        conn->snd_wl2 = conn->iss;
        tcp_conn_enter(conn, TCP_STATE_SYN_RECEIVED);
        tcp_output_syn(conn, now_us);
        return;
    }
    conn->snd_una = in->acknowledgement;
    tcp_output_list_ack(conn);
    tcp_conn_established(conn, now_us);
    if (conn->state != TCP_STATE_CLOSED && (in->length > 0 || (in->flags & TCP_FIN) != 0)) {
        tcp_receive(conn, in->sequence + 1, in->payload, in->length, (in->flags & TCP_FIN) != 0, now_us);
    }
    if (conn->state != TCP_STATE_CLOSED) {
        tcp_output_run(conn, now_us);
    }
}

/* First check: some of the segment lies in the window (RFC 9293 3.10.7.4). Where the window is closed, its ACK still counts. */
static bool in_window(const struct tcp_conn *conn, const struct tcp_incoming *in, uint32_t space) {
    uint32_t window = conn->rcv_adv - conn->rcv_nxt;
    if (in->sequence == conn->rcv_nxt) {
        return true;
    }
    if (space == 0) {
        /* The edge itself counts: a peer that has filled the window acknowledges from there, also when a segment before it was lost; one
         * that has probed beyond it, from the octet behind the probe (RFC 9293 3.8.6.1). A reset is no acknowledgement. */
        uint32_t edge = conn->rcv_adv + ((in->flags & TCP_RST) == 0 ? 2 : 0);
        return SEQ_GT(in->sequence, conn->rcv_nxt) && SEQ_LT(in->sequence, edge);
    }
    return window > 0 && SEQ_LT(in->sequence, conn->rcv_adv) && SEQ_GT(in->sequence + space, conn->rcv_nxt);
}

/* Text that is not acceptable is owed an ACK (RFC 9293 3.10.7.4), and a peer whose ACKs were lost, or that has sent too much again, needs
 * one for each (RFC 2883): but no more than a window of small segments can have caused, since a stranger's old text earns them too. What no
 * window of ours can have asked for takes half of these at the most. */
static bool may_answer(struct tcp_conn *conn, bool near, uint64_t now_us) {
    uint32_t now = tcp_tick(now_us), most = tcp_max(REFUSED_ANSWERS, conn->stack->config.receive_buffer_bytes / REFUSED_BYTES);
    if (now - conn->refused_since >= REFUSED_TICKS) {
        conn->refused_since = now;
        conn->refused = 0;
    }
    if (conn->refused >= (near ? most : most / 2)) {
        return false;
    }
    conn->refused++;
    return true;
}

static void refuse(struct tcp_conn *conn, const struct tcp_incoming *in, uint64_t now_us) {
    uint32_t end = in->sequence + in->length + ((in->flags & TCP_FIN) != 0);
    if ((in->flags & TCP_RST) != 0) {
        return;
    }
    if ((in->flags & TCP_SYN) != 0 || end == in->sequence) {
        /* Limited: two sides that disagree must not answer each other without end, and a SYN may be a stranger's (RFC 5961 section 4). */
        tcp_output_challenge(conn, now_us);
        return;
    }
    bool near =
        SEQ_LEQ(end, conn->rcv_nxt) && conn->rcv_nxt - in->sequence <= tcp_max(conn->stack->config.receive_buffer_bytes, UINT16_MAX);
    conn->stack->counters.duplicates++;
    if (!may_answer(conn, near, now_us)) {
        tcp_receive_ack_later(conn, now_us); /* one for all that come meanwhile */
        return;
    }
    if (near) {
        tcp_receive_duplicate(conn, in->sequence, in->sequence + in->length, now_us);
    }
    tcp_output_list_ack(conn);
}

/* RFC 5961 section 3: only the exact number resets; one in the window is asked back. */
static void input_reset(struct tcp_conn *conn, const struct tcp_incoming *in, uint64_t now_us) {
    if (in->sequence != conn->rcv_nxt) {
        tcp_output_challenge(conn, now_us);
        return;
    }
    if ((conn->flags & CONN_EMBRYO) != 0) { /* nobody has heard of it: the listener goes on listening */
        tcp_conn_end(conn, TCP_RESET);
        return;
    }
    bool over = conn->state == TCP_STATE_CLOSING || conn->state == TCP_STATE_LAST_ACK;
    bool through = conn->state == TCP_STATE_TIME_WAIT || (conn->state == TCP_STATE_LAST_ACK && conn->snd_una == conn->snd_end + 1);
    if (through && conn->backlog_bytes > 0) { /* the layer above still takes what it is owed (RFC 1337) */
        return;
    }
    conn->stack->counters.resets_received++;
    if (conn->state == TCP_STATE_SYN_RECEIVED) {
        conn->stack->counters.refused++;
        tcp_conn_end(conn, TCP_REFUSED);
    } else {
        tcp_conn_end(conn, over && tcp_unacknowledged(conn) == 0 && conn->backlog_bytes == 0 ? TCP_OK : TCP_RESET);
    }
}

static bool has_timestamp(const struct tcp_conn *conn, const struct tcp_incoming *in) {
    return (conn->flags & CONN_TIMESTAMPS) != 0 && in->options.has_timestamps;
}

/* RFC 7323 section 5.3, R1. False: an old duplicate. Some middleboxes strip timestamps half-way: those segments go unprotected rather than
 * lost. */
static bool check_timestamp(const struct tcp_conn *conn, const struct tcp_incoming *in) {
    return !has_timestamp(conn, in) || SEQ_GEQ(in->options.ts_value, conn->ts_recent) || (in->flags & TCP_RST) != 0;
}

/* Section 5.5: after so long a silence the peer's clock may have gone once around, and ts_recent tells nothing any more. */
static bool outlived_timestamp(const struct tcp_conn *conn, uint64_t now_us) {
    return conn_synchronized(conn) && tcp_tick(now_us) - conn->heard >= TS_RECENT_LIFE;
}

/* R3, which comes after the check of the window (R2) and of the acknowledgement: a stranger who knows no more than the ports could
 * otherwise set ts_recent so far ahead that everything the peer says is old. */
static void take_timestamp(struct tcp_conn *conn, const struct tcp_incoming *in) {
    if (has_timestamp(conn, in) && SEQ_GEQ(in->options.ts_value, conn->ts_recent) && SEQ_LEQ(in->sequence, conn->last_ack_sent)) {
        conn->ts_recent = in->options.ts_value;
    }
}

/* The round trip that the echo tells, or 0. It says which copy of a segment arrived (RFC 7323 section 4), so that Karn's rule need not hold
 * back the sample which takes the timeout's backoff down (RFC 6298 sections 3 and 5: new data acknowledged is not enough for that). */
static uint32_t echoed_sample(const struct tcp_conn *conn, const struct tcp_incoming *in, uint64_t now_us) {
    if (!has_timestamp(conn, in) || in->options.ts_echo == 0) {
        return 0;
    }
    uint32_t ticks = tcp_output_timestamp(conn, now_us) - in->options.ts_echo;
    return ticks > ECHO_MAX_US >> TCP_TIMESTAMP_SHIFT ? 0 : tcp_max(ticks, 1) << TCP_TIMESTAMP_SHIFT;
}

/* New data acknowledged; returns the bytes that left the queue. Everything is settled before the layer above hears of it. */
static uint32_t ack_new(struct tcp_conn *conn, struct tcp_ack *ack, uint64_t now_us) {
    uint32_t acked = ack->number - conn->snd_una;
    uint32_t bytes = SEQ_GT(ack->number, conn->snd_end) ? acked - 1 : acked; /* the FIN is no byte */
    ack->advanced = true;
    conn->snd_una = ack->number;
    conn->progress_us = now_us;
    conn->flags &= (uint16_t)~CONN_SOFT_ERROR;
    if ((conn->path_timeouts | (conn->path_flags & PATH_SUSPECT)) != 0) {
        tcp_path_mtu_proven(conn, now_us);
    }
    tcp_flight_drop(conn, ack, now_us);
    if (conn->flight_head == TCP_NONE) {
        conn->retransmit_at = TCP_NEVER;
    }
    return bytes;
}

static void take_sample(struct tcp_conn *conn, const struct tcp_incoming *in, const struct tcp_ack *ack, uint64_t now_us) {
    uint32_t sample = ack->sample_us != 0 ? ack->sample_us : ack->sacked_sample_us;
    if (sample > 0) {
        tcp_congestion_exact_sample(conn, sample, now_us);
    } else if (ack->advanced) {
        sample = echoed_sample(conn, in, now_us);
    }
    if (sample > 0) {
        tcp_congestion_sample(conn, sample);
    }
}

/* RFC 9293 3.10.7.4, fifth. False: the segment is dropped. */
static bool input_ack(struct tcp_conn *conn, const struct tcp_incoming *in, uint64_t now_us) {
    struct tcp_stack *stack = conn->stack;
    uint32_t ack = in->acknowledgement, una = conn->snd_una, bytes = 0;
    if (SEQ_GT(ack, conn->snd_nxt) || SEQ_LT(ack, una - conn->max_snd_wnd)) { /* RFC 5961 section 5.2 */
        tcp_output_challenge(conn, now_us);
        return false;
    }
    take_timestamp(conn, in);
    uint32_t window = in->window << conn->snd_shift;
    bool probing = conn->flight_head != TCP_NONE && (flight_at(stack, conn->flight_head)->flags & FLIGHT_PROBE) != 0;
    bool sack = in->options.sack_count > 0 && (conn->loss.flags & LOSS_SACK) != 0;
    struct tcp_ack told = {.number = ack,
                           .before = una,
                           .high_acked_before = conn->loss.high_acked,
                           .flight_before = conn->snd_nxt - una,
                           .has_echo = has_timestamp(conn, in) && in->options.ts_echo != 0,
                           .echo = in->options.ts_echo,
                           .duplicate = ack == una && in->length == 0 && (in->flags & TCP_FIN) == 0 && window == conn->snd_wnd && !probing};
    if (sack) {
        tcp_sack_take(conn, &in->options, &told, now_us);
    }
    if (SEQ_GT(ack, una)) {
        bytes = ack_new(conn, &told, now_us);
    }
    if (SEQ_GT(ack, una) || told.duplicate || sack) {
        take_sample(conn, in, &told, now_us);
        tcp_recovery_ack(conn, &told, now_us);
    }
    bool closed_on_us = conn->snd_wnd == 0 && conn->flight_head != TCP_NONE && !probing;
    /* Numbers only grow with time, so a higher ACK is the later word on the window even where the bytes beside it are old. */
    if (SEQ_GT(ack, una) ||
        (ack == una && (SEQ_LT(conn->snd_wl1, in->sequence) || (conn->snd_wl1 == in->sequence && SEQ_LEQ(conn->snd_wl2, ack))))) {
        set_window(conn, in, window);
    }
    if (conn->snd_wnd == 0) {
        conn->progress_us = now_us; /* a closed window is no failure while the peer answers (RFC 9293 3.8.6.1) */
    } else if (probing && conn->flight_head != TCP_NONE && (flight_at(stack, conn->flight_head)->flags & FLIGHT_PROBE) != 0) {
        /* The window opened and the octet was not taken: it goes out with what follows. */
        flight_at(stack, conn->flight_head)->flags &= (uint8_t)~FLIGHT_PROBE;
        tcp_flight_mark_lost(conn, conn->flight_head);
        conn->backoff = 0;
        tcp_recovery_arm(conn, now_us, now_us);
    } else if (closed_on_us && ack == una) {
        /* The peer had taken back its window with segments on their way, and opened it again: what was sent meanwhile was not taken. */
        tcp_flight_mark_lost(conn, conn->flight_head);
        conn->backoff = 0;
        tcp_recovery_arm(conn, now_us, now_us);
    }
    if (bytes > 0) {
        tcp_queue_drop_bytes(conn, bytes);
        if (stack->config.events.acknowledged != NULL && conn->state != TCP_STATE_CLOSED) {
            stack->config.events.acknowledged(conn->user, conn, bytes, now_us);
        }
    }
    return conn->state != TCP_STATE_CLOSED;
}

/* What the acknowledgement of our FIN changes. */
static void input_fin_acknowledged(struct tcp_conn *conn, uint64_t now_us) {
    if ((conn->flags & CONN_FIN_SENT) == 0 || conn->snd_una != conn->snd_end + 1) {
        return;
    }
    if (conn->state == TCP_STATE_FIN_WAIT_1) {
        tcp_conn_enter(conn, TCP_STATE_FIN_WAIT_2);
        tcp_conn_half_closed(conn, now_us);
    } else if (conn->state == TCP_STATE_CLOSING) {
        tcp_conn_enter(conn, TCP_STATE_TIME_WAIT);
    }
}

static void input_synchronized(struct tcp_conn *conn, const struct tcp_incoming *in, uint64_t now_us) {
    uint32_t space = in->length + ((in->flags & TCP_FIN) != 0) + ((in->flags & TCP_SYN) != 0);
    bool fin = (in->flags & TCP_FIN) != 0;
    if ((conn->flags & CONN_EMBRYO) != 0 && (in->flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN && in->sequence + 1 == conn->rcv_nxt) {
        conn->flags |= CONN_SYN_REPEATED; /* the peer has not heard our SYN-ACK, and the next ACK tells no round trip */
        tcp_output_syn(conn, now_us);
        return;
    }
    bool old = !check_timestamp(conn, in);
    if ((old && !outlived_timestamp(conn, now_us)) || !in_window(conn, in, space)) {
        refuse(conn, in, now_us);
        return;
    }
    if (old) {
        conn->ts_recent = in->options.ts_value;
    }
    conn->heard = tcp_tick(now_us);
    conn->keepalive_probes = 0;
    if ((in->flags & TCP_RST) != 0) {
        input_reset(conn, in, now_us);
        return;
    }
    if ((in->flags & TCP_SYN) != 0) { /* RFC 5961 section 4 */
        tcp_output_challenge(conn, now_us);
        return;
    }
    if ((in->flags & TCP_ACK) == 0) {
        return;
    }
    if (conn->state == TCP_STATE_SYN_RECEIVED) {
        if (in->acknowledgement != conn->iss + 1) {
            tcp_output_raw(conn->stack, conn->local, conn->remote, conn->family, conn->local_port, conn->remote_port, in->acknowledgement,
                           0, TCP_RST, NULL, 0);
            return;
        }
        conn->snd_una = in->acknowledgement;
        set_window(conn, in, in->window << conn->snd_shift);
        tcp_conn_established(conn, now_us);
        if (conn->state == TCP_STATE_CLOSED) {
            return;
        }
    }
    if (!input_ack(conn, in, now_us)) {
        return;
    }
    conn->challenge_backoff = 0;
    input_fin_acknowledged(conn, now_us);
    if (in->length > 0 || fin) {
        tcp_receive(conn, in->sequence, in->payload, in->length, fin, now_us);
        if (conn->state == TCP_STATE_CLOSED) {
            return;
        }
    }
    tcp_output_run(conn, now_us);
    tcp_conn_finish(conn, now_us);
}

/* RFC 9293 3.10.7.1 and 3.10.7.2 */
static void input_unknown(struct tcp_stack *stack, const struct tcp_packet *packet, const struct tcp_incoming *in, uint32_t hash,
                          uint16_t local_port, uint16_t remote_port, uint64_t now_us) {
    struct tcp_listener *listener = tcp_listen_find(stack, packet->local.bytes, packet->local.family, local_port);
    uint32_t after = 0;
    if (tcp_time_wait_input(stack, packet, in, hash, local_port, remote_port, listener != NULL, &after, now_us) == TIME_WAIT_ANSWERED) {
        return;
    }
    if (listener != NULL && (in->flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN) {
        tcp_listen_syn(stack, listener, packet, in, hash, remote_port, after, now_us);
        return;
    }
    if (listener == NULL && stack->config.unknown != NULL && stack->config.unknown(stack->config.network, packet)) {
        return;
    }
    stack->counters.no_connection++;
    answer_reset(stack, packet, in, local_port, remote_port);
}

void tcp_prefetch(struct tcp_stack *stack, struct tcp_packet *packet) {
    enum { LINE = 64 };
    uint32_t *ahead = &stack->ahead[stack->ahead_at++ % TCP_AHEAD];
    uint32_t index = stack->conn_heads[*ahead & stack->conn_mask]; /* asked for TCP_AHEAD packets ago */
    if (index != TCP_NONE) {
        const uint8_t *conn = (const uint8_t *)conn_at(stack, index);
        for (uint32_t at = 0; at < sizeof(struct tcp_conn); at += LINE) {
            __builtin_prefetch(conn + at, 1);
        }
    }
    if (packet->length >= HEADER_MIN) {
        packet->hash = tcp_stack_hash(stack, packet->local.bytes, packet->remote.bytes, packet->local.family, tcp_get16(packet->header + 2),
                                      tcp_get16(packet->header));
        *ahead = packet->hash;
        __builtin_prefetch(&stack->conn_heads[packet->hash & stack->conn_mask]);
    }
}

void tcp_input(struct tcp_stack *stack, const struct tcp_packet *packet, uint64_t now_us) {
    const uint8_t *header = packet->header;
    stack->counters.segments_in++;
    uint32_t header_bytes = packet->length >= HEADER_MIN ? (uint32_t)(header[12] >> 4) * 4 : 0;
    if (header_bytes < HEADER_MIN || header_bytes > packet->length) {
        stack->counters.bad_segments++;
        return;
    }
    uint16_t remote_port = tcp_get16(header), local_port = tcp_get16(header + 2);
    struct tcp_incoming in = {.sequence = tcp_get32(header + 4),
                              .acknowledgement = tcp_get32(header + 8),
                              .flags = header[13],
                              .window = tcp_get16(header + 14),
                              .payload = header + header_bytes,
                              .length = packet->length - header_bytes};
    tcp_options_parse(&in.options, header + HEADER_MIN, header_bytes - HEADER_MIN);
    uint32_t hash = packet->hash;
    if (hash == 0) {
        hash = tcp_stack_hash(stack, packet->local.bytes, packet->remote.bytes, packet->local.family, local_port, remote_port);
    }
    uint32_t index = tcp_stack_find(stack, hash, packet->local.bytes, packet->remote.bytes, packet->local.family, local_port, remote_port);
    if (index == TCP_NONE) {
        input_unknown(stack, packet, &in, hash, local_port, remote_port, now_us);
        return;
    }
    struct tcp_conn *conn = conn_at(stack, index);
    if (conn->state == TCP_STATE_SYN_SENT) {
        input_syn_sent(conn, packet, &in, now_us);
    } else {
        input_synchronized(conn, &in, now_us);
    }
}

void tcp_input_error(struct tcp_stack *stack, const struct tcp_address *local, uint16_t local_port, const struct tcp_address *remote,
                     uint16_t remote_port, uint32_t sequence, bool hard, uint16_t mtu, uint64_t now_us) {
    uint32_t hash = tcp_stack_hash(stack, local->bytes, remote->bytes, local->family, local_port, remote_port);
    uint32_t index = tcp_stack_find(stack, hash, local->bytes, remote->bytes, local->family, local_port, remote_port);
    if (index == TCP_NONE) {
        return;
    }
    struct tcp_conn *conn = conn_at(stack, index);
    if (SEQ_LT(sequence, conn->snd_una) || SEQ_GEQ(sequence, conn->snd_nxt)) { /* RFC 5927 section 4.1 */
        return;
    }
    if (mtu != 0) { /* about the size of a segment, not about the peer */
        tcp_path_mtu_error(conn, sequence, mtu, now_us);
        return;
    }
    if (hard && (conn->state == TCP_STATE_SYN_SENT || conn->state == TCP_STATE_SYN_RECEIVED)) {
        tcp_conn_end(conn, TCP_UNREACHABLE);
        return;
    }
    conn->flags |= CONN_SOFT_ERROR;
}
