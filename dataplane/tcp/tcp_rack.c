/* tcp_rack.c: loss found by time, and tail loss probes (RFC 8985). */
#include "tcp_conn.h"

enum {
    DUPLICATES_FOR_LOSS = 3,
    REORDER_PERSIST = 16,            /* recoveries that a widened window lasts (section 6.2 step 4) */
    DELAYED_ACK_MAX_US = 200 * 1000, /* WCDelAckT (section 7.2) */
    PROBE_SLACK_US = 2000,           /* timers and receivers are no more exact than that */
};

/* RACK_sent_after (section 5.2) */
static bool sent_after(uint32_t sent_us, uint32_t end, uint32_t other_sent_us, uint32_t other_end) {
    return sent_us == other_sent_us ? SEQ_GT(end, other_end) : (int32_t)(sent_us - other_sent_us) > 0;
}

/* Section 6.2 steps 2 and 3. */
void tcp_rack_update(struct tcp_conn *conn, const struct tcp_flight *flight, struct tcp_ack *ack, uint64_t now_us) {
    struct tcp_loss *loss = &conn->loss;
    uint32_t end = flight->sequence + flight_space(flight), rtt_us = flight_age_us(flight, now_us);
    bool repeated = (flight->flags & FLIGHT_REPEATED) != 0;
    if (!repeated) {
        ack->original |= (flight->flags & FLIGHT_LOST) != 0;
        if (SEQ_LT(end, ack->high_acked_before)) {
            loss->flags |= LOSS_REORDERED;
        }
    }
    if (SEQ_GT(end, loss->high_acked)) {
        loss->high_acked = end;
    }
    /* Of a repeated one, which copy? */
    if (repeated && (rtt_us < loss->min_rtt_us || (ack->has_echo && SEQ_LT(ack->echo, tcp_output_timestamp(conn, now_us - rtt_us))))) {
        return;
    }
    if ((loss->flags & LOSS_RACK) == 0 || sent_after(flight->sent_us, end, loss->rack_sent_us, loss->rack_end)) {
        loss->flags |= LOSS_RACK;
        loss->rack_sent_us = flight->sent_us;
        loss->rack_end = end;
        loss->rack_rtt_us = rtt_us;
    }
}

/* Section 6.2 step 4 */
static uint32_t reorder_window(const struct tcp_conn *conn) {
    const struct tcp_loss *loss = &conn->loss;
    if ((loss->flags & LOSS_REORDERED) == 0 && (loss->state != LOSS_OPEN || conn->dup_acks >= DUPLICATES_FOR_LOSS ||
                                                conn->arrived_bytes > (DUPLICATES_FOR_LOSS - 1) * (uint32_t)conn->mss)) {
        return 0;
    }
    return tcp_min(loss->min_rtt_us / 4 * loss->reorder_quarters, conn->srtt_us);
}

uint32_t tcp_rack_detect(struct tcp_conn *conn, uint64_t now_us) {
    struct tcp_loss *loss = &conn->loss;
    if ((loss->flags & LOSS_RACK) == 0) {
        return 0;
    }
    uint32_t due_us = loss->rack_rtt_us + reorder_window(conn);
    while (loss->sent_head != TCP_NONE) {
        const struct tcp_flight *flight = flight_at(conn->stack, loss->sent_head);
        if (!sent_after(loss->rack_sent_us, loss->rack_end, flight->sent_us, flight->sequence + flight_space(flight))) {
            return 0;
        }
        uint32_t elapsed_us = flight_age_us(flight, now_us);
        if (elapsed_us < due_us) {
            return due_us - elapsed_us;
        }
        tcp_flight_mark_lost(conn, loss->sent_head);
    }
    return 0;
}

void tcp_rack_duplicate(struct tcp_conn *conn, const struct tcp_ack *ack) {
    struct tcp_loss *loss = &conn->loss;
    if ((loss->flags & LOSS_DSACK_ROUND) != 0 && SEQ_GEQ(conn->snd_una, loss->dsack_round)) {
        loss->flags &= (uint16_t)~LOSS_DSACK_ROUND;
    }
    bool of_probe = (loss->flags & LOSS_PROBE_REPEATED) != 0 && ack->dsacked.right == loss->probe_end;
    if (!ack->dsack || of_probe || (loss->flags & LOSS_DSACK_ROUND) != 0) {
        return;
    }
    loss->flags |= LOSS_DSACK_ROUND;
    loss->dsack_round = conn->snd_nxt;
    loss->reorder_quarters = (uint8_t)tcp_min(loss->reorder_quarters + 1U, UINT8_MAX);
    loss->reorder_persist = REORDER_PERSIST;
}

void tcp_rack_recovered(struct tcp_conn *conn) {
    struct tcp_loss *loss = &conn->loss;
    if (loss->reorder_persist > 0 && --loss->reorder_persist == 0) {
        loss->reorder_quarters = 1;
    }
}

uint32_t tcp_rack_probe_after(const struct tcp_conn *conn) {
    const struct tcp_loss *loss = &conn->loss;
    if ((loss->flags & (LOSS_SACK | LOSS_PROBED)) != LOSS_SACK || loss->state != LOSS_OPEN || conn->arrived_bytes > 0 ||
        conn->lost_bytes > 0 || conn->srtt_us == 0 || conn->backoff > 0 || conn->flight_head == TCP_NONE) {
        return 0;
    }
    const struct tcp_flight *head = flight_at(conn->stack, conn->flight_head);
    if ((head->flags & FLIGHT_PROBE) != 0) {
        return 0;
    }
    bool single = conn->flight_head == conn->flight_tail && head->length <= conn->mss;
    return 2 * conn->srtt_us + (single ? DELAYED_ACK_MAX_US : PROBE_SLACK_US);
}

void tcp_rack_probe(struct tcp_conn *conn, uint64_t now_us) {
    struct tcp_loss *loss = &conn->loss;
    bool repeats;
    if (tcp_rack_probe_after(conn) != 0 && tcp_output_tail(conn, &repeats, now_us) == 0) {
        loss->flags |= repeats ? LOSS_PROBED | LOSS_PROBE_REPEATED : LOSS_PROBED;
        loss->probe_end = conn->snd_nxt;
        conn->stack->counters.tail_probes++;
    }
    loss->timer = LOSS_TIMER_RTO;
    conn->retransmit_at = now_us + tcp_output_rto(conn, conn->backoff);
}

void tcp_rack_probe_answer(struct tcp_conn *conn, const struct tcp_ack *ack) {
    struct tcp_loss *loss = &conn->loss;
    if ((loss->flags & LOSS_PROBED) == 0 || SEQ_LT(ack->number, loss->probe_end)) {
        return;
    }
    bool repaired = false;
    if ((loss->flags & LOSS_PROBE_REPEATED) != 0 && !ack->dsack && (ack->advanced || ack->sacked > 0 || !ack->duplicate)) {
        if (ack->number == loss->probe_end) {
            return; /* the first copy, or the probe: the next ACK tells */
        }
        repaired = true;
    }
    loss->flags &= (uint16_t) ~(LOSS_PROBED | LOSS_PROBE_REPEATED);
    if (repaired && loss->state == LOSS_OPEN) { /* a loss that the probe has mended is still a sign of congestion */
        tcp_congestion_reduce(conn);
        loss->flags &= (uint16_t)~LOSS_UNDO;
        conn->cwnd = conn->ssthresh;
    }
}
