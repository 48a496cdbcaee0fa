/* tcp_recovery.c: what a sender does about losses: fast recovery by SACK (RFC 6675) at the pace of proportional rate reduction (RFC 9937),
 * or by duplicate ACKs alone (RFC 6582); the timeout (RFC 6298, 8985 section 6.3); and taking it back when nothing was lost (RFC 5682,
 * 3522, 2883). */
#include "tcp_conn.h"

enum {
    DUPLICATES_FOR_LOSS = 3,      /* RFC 5681 3.2 */
    TIMEOUT_FLOOR_US = 10 * 1000, /* what has just been heard of says that more is on the way */
};

void tcp_recovery_start(struct tcp_conn *conn) {
    struct tcp_loss *loss = &conn->loss;
    loss->reorder_quarters = 1;
    loss->high_acked = conn->recover = conn->snd_una;
}

/* The one place where the state changes. */
static void enter(struct tcp_conn *conn, enum tcp_loss_state state) {
    conn->loss.state = (uint8_t)state;
    conn->dup_acks = 0;
}

uint64_t tcp_recovery_oldest(const struct tcp_conn *conn, uint64_t now_us) {
    return now_us - flight_age_us(flight_at(conn->stack, conn->flight_head), now_us);
}

void tcp_recovery_arm(struct tcp_conn *conn, uint64_t rto_from_us, uint64_t now_us) {
    if (conn->flight_head == TCP_NONE) {
        conn->retransmit_at = TCP_NEVER;
        return;
    }
    uint64_t at = rto_from_us + tcp_output_rto(conn, conn->backoff);
    uint32_t probe_us = tcp_rack_probe_after(conn);
    conn->loss.timer = LOSS_TIMER_RTO;
    if (probe_us > 0) {
        conn->loss.timer = LOSS_TIMER_PROBE;
        at = now_us + probe_us < at ? now_us + probe_us : at;
    }
    at = at < now_us + TIMEOUT_FLOOR_US && rto_from_us != now_us && probe_us == 0 ? now_us + TIMEOUT_FLOOR_US : at;
    conn->retransmit_at = at;
    tcp_timer_arm(conn, at);
}

static void arm_reorder(struct tcp_conn *conn, uint32_t wait_us, uint64_t now_us) {
    if (wait_us > 0 && now_us + wait_us < conn->retransmit_at) {
        conn->loss.timer = LOSS_TIMER_REORDER;
        conn->retransmit_at = now_us + wait_us;
        tcp_timer_arm(conn, conn->retransmit_at);
    }
}

/* The peer said that it holds what comes next, and does not acknowledge it: it has dropped it (RFC 2018 section 8), unless another ACK is
 * on the way. That is a timeout, of half a round trip as Linux has it. */
static void arm_reneging(struct tcp_conn *conn, uint64_t now_us) {
    if (conn->flight_head == TCP_NONE || (flight_at(conn->stack, conn->flight_head)->flags & FLIGHT_SACKED) == 0) {
        return;
    }
    uint64_t at = now_us + tcp_max(conn->srtt_us / 2, TIMEOUT_FLOOR_US);
    if (at < conn->retransmit_at) {
        conn->loss.timer = LOSS_TIMER_RTO;
        conn->retransmit_at = at;
        tcp_timer_arm(conn, at);
    }
}

void tcp_recovery_sent(struct tcp_conn *conn, uint32_t space, bool repeats, uint64_t now_us) {
    struct tcp_loss *loss = &conn->loss;
    if (loss->state == LOSS_RECOVERY) {
        loss->prr_out += space;
    }
    if (repeats) {
        loss->undo_bytes += space;
        if ((loss->flags & LOSS_STAMPED) == 0) {
            loss->flags |= LOSS_STAMPED;
            loss->stamp = tcp_output_timestamp(conn, now_us);
        }
    }
}

/* Begins an episode that may be undone as a whole. */
static void begin(struct tcp_conn *conn) {
    struct tcp_loss *loss = &conn->loss;
    tcp_congestion_reduce(conn);
    loss->undo_from = conn->snd_una;
    loss->undo_bytes = 0;
    loss->flags = (uint16_t)((loss->flags | LOSS_UNDO) & ~(LOSS_STAMPED | LOSS_FRTO));
}

/* RFC 9937 section 6.2. `safe`: progress and no further loss. */
static void reduce_rate(struct tcp_conn *conn, uint32_t delivered, bool safe) {
    struct tcp_loss *loss = &conn->loss;
    uint32_t pipe = tcp_congestion_pipe(conn), send;
    loss->prr_delivered += delivered;
    if (pipe > conn->ssthresh) {
        uint64_t share = ((uint64_t)loss->prr_delivered * conn->ssthresh + loss->prr_flight - 1) / loss->prr_flight;
        send = share > loss->prr_out ? (uint32_t)share - loss->prr_out : 0;
    } else {
        /* Never less than what has just left the network, as Linux has it: beside further losses the RFC would send less. */
        uint32_t limit = tcp_max(loss->prr_delivered > loss->prr_out ? loss->prr_delivered - loss->prr_out : 0, delivered);
        if (safe) {
            limit += conn->mss;
        }
        send = tcp_min(conn->ssthresh - pipe, limit);
    }
    if (loss->prr_out == 0) {
        send = tcp_max(send, conn->mss); /* the first retransmission goes at once */
    }
    conn->cwnd = pipe + send;
}

/* `delivered`: by the ACK that showed the loss. */
static void enter_recovery(struct tcp_conn *conn, uint32_t delivered) {
    struct tcp_loss *loss = &conn->loss;
    begin(conn);
    enter(conn, LOSS_RECOVERY);
    conn->recover = conn->snd_nxt;
    loss->prr_delivered = loss->prr_out = 0;
    loss->prr_flight = tcp_max(conn->snd_nxt - conn->snd_una - conn->arrived_bytes + delivered, conn->mss);
    loss->flags &= (uint16_t) ~(LOSS_PROBED | LOSS_PROBE_REPEATED);
}

/* All that was in flight at the beginning is acknowledged. */
static void leave(struct tcp_conn *conn) {
    struct tcp_loss *loss = &conn->loss;
    if (loss->state == LOSS_RECOVERY) {
        conn->cwnd = conn->ssthresh;
    }
    tcp_rack_recovered(conn);
    enter(conn, LOSS_OPEN);
    loss->flags &= (uint16_t) ~(LOSS_STAMPED | LOSS_FRTO);
}

static void undo(struct tcp_conn *conn) {
    struct tcp_loss *loss = &conn->loss;
    tcp_congestion_undo(conn);
    tcp_flight_unmark_lost(conn);
    enter(conn, LOSS_OPEN);
    /* What RACK learned from the answer to a repeated segment was about the first copy: it would find the same losses again. */
    loss->flags = (uint16_t)((loss->flags | LOSS_REORDERED) & ~(LOSS_UNDO | LOSS_STAMPED | LOSS_FRTO | LOSS_RACK));
    conn->stack->counters.spurious_recoveries++;
}

/* Nothing was lost: all that was sent again arrived twice (RFC 2883), or the first copy arrived late. */
static bool is_spurious(const struct tcp_conn *conn, const struct tcp_ack *ack) {
    const struct tcp_loss *loss = &conn->loss;
    if ((loss->flags & LOSS_UNDO) == 0) {
        return false;
    }
    if (ack->undo) {
        return true;
    }
    if (loss->state == LOSS_OPEN) {
        return false;
    }
    return ack->late || ((loss->flags & LOSS_FRTO) != 0 && ack->original);
}

/* RFC 5682 section 3: after a timeout the first ACK that says something new lets new data out instead of repetitions; what was sent only
 * once and is then acknowledged proves the timeout spurious (is_spurious), a SACK of the new data alone proves it real. */
static void judge_timeout(struct tcp_conn *conn, const struct tcp_ack *ack) {
    struct tcp_loss *loss = &conn->loss;
    if (loss->state != LOSS_TIMEOUT || (loss->flags & LOSS_FRTO) == 0) {
        return;
    }
    if (SEQ_GT(conn->snd_nxt, conn->recover)) {
        if (ack->sacked > 0 || ack->duplicate) {
            loss->flags &= (uint16_t)~LOSS_FRTO;
        }
    } else if (ack->advanced && SEQ_LT(conn->snd_una, conn->recover)) {
        loss->flags |= LOSS_FRTO_NEW;
    }
}

static void ack_sack(struct tcp_conn *conn, struct tcp_ack *ack, uint64_t now_us) {
    struct tcp_loss *loss = &conn->loss;
    if (SEQ_GT(conn->snd_una, loss->high_acked)) {
        loss->high_acked = conn->snd_una;
    }
    if (ack->advanced) {
        conn->dup_acks = 0;
    }
    if (ack->sacked > 0 && conn->dup_acks < UINT8_MAX) {
        conn->dup_acks++;
    }
    tcp_rack_duplicate(conn, ack);
    tcp_rack_probe_answer(conn, ack);
    if (is_spurious(conn, ack)) {
        undo(conn);
    }
    judge_timeout(conn, ack);
    if (loss->state != LOSS_OPEN && SEQ_GEQ(conn->snd_una, conn->recover)) {
        leave(conn);
    }
    if (loss->state == LOSS_OPEN && SEQ_GT(conn->snd_una, conn->recover)) {
        conn->recover = conn->snd_una; /* keeps up, so that the comparison never wraps */
    }
    uint32_t lost_before = conn->lost_bytes;
    uint32_t wait_us = tcp_rack_detect(conn, now_us);
    bool more_lost = conn->lost_bytes > lost_before;
    if (loss->state == LOSS_OPEN && more_lost) {
        enter_recovery(conn, ack->delivered);
    }
    if (loss->state == LOSS_RECOVERY) {
        if (ack->delivered > 0 || more_lost) {
            reduce_rate(conn, ack->delivered, ack->advanced && !more_lost);
        }
    } else if (ack->delivered > 0 && (ack->advanced || (loss->flags & LOSS_REORDERED) != 0)) {
        tcp_congestion_grow(conn, ack->delivered, ack->flight_before, now_us);
    }
    if (ack->advanced) { /* RFC 6298 5.3, RFC 8985 7.2 */
        tcp_recovery_arm(conn, now_us, now_us);
    } else if (ack->sacked > 0 && loss->timer != LOSS_TIMER_RTO && conn->flight_head != TCP_NONE) {
        tcp_recovery_arm(conn, tcp_recovery_oldest(conn, now_us), now_us);
    }
    arm_reorder(conn, wait_us, now_us);
    arm_reneging(conn, now_us);
}

/* Without SACK: RFC 6582. */
static void retransmit_head(struct tcp_conn *conn, uint64_t now_us) {
    tcp_flight_mark_lost(conn, conn->flight_head);
    if (tcp_output_flight(conn, conn->flight_head, now_us) == 0) {
        conn->stack->counters.retransmits_fast++;
    }
}

static void ack_new(struct tcp_conn *conn, const struct tcp_ack *ack, uint64_t now_us) {
    struct tcp_loss *loss = &conn->loss;
    uint32_t acked = ack->number - ack->before;
    conn->dup_acks = 0;
    if ((loss->flags & LOSS_UNDO) != 0 && loss->state != LOSS_OPEN && ack->late) {
        conn->arrived_bytes = 0;
        undo(conn);
    } else if (loss->state == LOSS_RECOVERY) {
        if (SEQ_LT(conn->snd_una, conn->recover)) {
            /* A partial ACK: of what it covers all but the segment sent again had arrived out of order before. */
            conn->arrived_bytes -= tcp_min(conn->arrived_bytes, acked > conn->mss ? acked - conn->mss : 0);
            if (conn->flight_head != TCP_NONE) {
                retransmit_head(conn, now_us);
            }
            return;
        }
        leave(conn);
        conn->arrived_bytes = 0;
        conn->cwnd = tcp_min(conn->ssthresh, tcp_max(tcp_congestion_pipe(conn), conn->mss) + conn->mss);
        return;
    } else if (loss->state == LOSS_TIMEOUT && SEQ_GEQ(conn->snd_una, conn->recover)) {
        leave(conn);
    }
    conn->arrived_bytes = 0;
    if (SEQ_GT(conn->snd_una, conn->recover)) {
        conn->recover = conn->snd_una;
    }
    tcp_congestion_grow(conn, acked, ack->flight_before, now_us);
}

static void ack_duplicate(struct tcp_conn *conn, uint64_t now_us) {
    struct tcp_loss *loss = &conn->loss;
    /* Each duplicate says that a segment has left the network: that alone gives limited transmit (RFC 3042) and, in recovery, the
     * inflation of the window. */
    if (conn->dup_acks < UINT8_MAX) {
        conn->dup_acks++;
    }
    if (loss->state == LOSS_RECOVERY || conn->dup_acks <= DUPLICATES_FOR_LOSS) {
        uint32_t flight = conn->snd_nxt - conn->snd_una - conn->lost_bytes;
        conn->arrived_bytes = tcp_min(conn->arrived_bytes + conn->mss, flight);
    }
    if (loss->state == LOSS_RECOVERY || conn->dup_acks != DUPLICATES_FOR_LOSS || SEQ_LT(conn->snd_una, conn->recover)) {
        return;
    }
    begin(conn);
    enter(conn, LOSS_RECOVERY);
    conn->cwnd = conn->ssthresh;
    conn->recover = conn->snd_nxt;
    retransmit_head(conn, now_us);
}

void tcp_recovery_ack(struct tcp_conn *conn, struct tcp_ack *ack, uint64_t now_us) {
    if ((conn->loss.flags & LOSS_SACK) != 0) {
        ack_sack(conn, ack, now_us);
        return;
    }
    if (ack->advanced) {
        tcp_recovery_arm(conn, now_us, now_us);
        ack_new(conn, ack, now_us);
    } else if (ack->duplicate && conn->flight_head != TCP_NONE) {
        ack_duplicate(conn, now_us);
    }
}

void tcp_recovery_timeout(struct tcp_conn *conn, uint64_t now_us) {
    struct tcp_loss *loss = &conn->loss;
    bool sack = (loss->flags & LOSS_SACK) != 0;
    /* Spurious if nothing was sent again before; a second timeout changes nothing in that, for it comes of the same silence. */
    bool may_be_spurious = sack && (loss->state == LOSS_OPEN || conn->backoff > 0);
    if (loss->state == LOSS_OPEN) {
        begin(conn);
    } else if (loss->state == LOSS_TIMEOUT && conn->backoff == 0) { /* what was sent again is lost again: another sign (RFC 5681 3.1) */
        begin(conn);
        may_be_spurious = false;
    }
    loss->flags &= (uint16_t) ~(LOSS_FRTO | LOSS_PROBED | LOSS_PROBE_REPEATED);
    if (may_be_spurious) {
        loss->flags |= LOSS_FRTO;
    }
    enter(conn, LOSS_TIMEOUT);
    conn->recover = conn->snd_nxt;
    if ((flight_at(conn->stack, conn->flight_head)->flags & FLIGHT_SACKED) != 0) {
        tcp_flight_renege(conn);
        loss->flags &= (uint16_t)~LOSS_FRTO;
    } else if (!sack) {
        conn->arrived_bytes = 0;
        for (uint32_t i = conn->flight_head; i != TCP_NONE; i = flight_at(conn->stack, i)->next) {
            tcp_flight_mark_lost(conn, i);
        }
    } else { /* RFC 8985 section 6.3: what was sent a round trip ago or less may be on its way */
        uint32_t due_us = (loss->flags & LOSS_RACK) != 0 ? loss->rack_rtt_us : conn->srtt_us;
        tcp_flight_mark_lost(conn, conn->flight_head);
        while (loss->sent_head != TCP_NONE && flight_age_us(flight_at(conn->stack, loss->sent_head), now_us) >= due_us) {
            tcp_flight_mark_lost(conn, loss->sent_head);
        }
    }
    conn->cwnd = tcp_congestion_pipe(conn) + conn->mss;
}

void tcp_recovery_reorder(struct tcp_conn *conn, uint64_t now_us) {
    struct tcp_loss *loss = &conn->loss;
    uint32_t lost_before = conn->lost_bytes, wait_us = tcp_rack_detect(conn, now_us);
    if (conn->lost_bytes > lost_before) {
        if (loss->state == LOSS_OPEN) {
            enter_recovery(conn, 0);
        }
        if (loss->state == LOSS_RECOVERY) {
            reduce_rate(conn, 0, false);
        }
    }
    tcp_recovery_arm(conn, tcp_recovery_oldest(conn, now_us), now_us);
    arm_reorder(conn, wait_us, now_us);
}
