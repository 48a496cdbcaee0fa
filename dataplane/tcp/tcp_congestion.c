/* tcp_congestion.c: how much may be in flight: slow start and congestion avoidance (RFC 5681 with the byte counting of RFC 3465), NewReno
 * recovery (RFC 6582), and the retransmission timeout's value (RFC 6298). */
#include "tcp_conn.h"

enum {
    CWND_MAX_BYTES = 16 << 20, /* bounds growth on paths without loss */
    INITIAL_SEGMENTS = 10,     /* RFC 6928 */
    INITIAL_BYTES = 14600,
    DUPLICATES_FOR_LOSS = 3,             /* RFC 5681 3.2 */
    RTO_INITIAL_US = 1000 * 1000,        /* RFC 6298 2.1 */
    RTO_AFTER_SYN_LOSS_US = 3000 * 1000, /* RFC 6298 5.7 */
    RTO_VARIANCE_MIN_US = 200 * 1000, /* what Linux keeps above the smoothed time: more than a delayed ACK, less than RFC 6298's second */
    RTT_MAX_US = 60 * 1000 * 1000,
};

static uint32_t initial_window(const struct tcp_conn *conn) {
    return tcp_min(INITIAL_SEGMENTS * conn->mss, tcp_max(2U * conn->mss, INITIAL_BYTES));
}

void tcp_congestion_start(struct tcp_conn *conn) {
    conn->ssthresh = UINT32_MAX;
    conn->cwnd_credit = 0;
    conn->recover = conn->snd_una;
    /* One lost SYN says little; several say that the path is full (RFC 6928 section 2). */
    conn->cwnd = conn->syn_retries > 1 ? conn->mss : initial_window(conn);
    if (conn->srtt_us == 0) {
        conn->rto_us = (conn->flags & CONN_SYN_REPEATED) != 0 ? RTO_AFTER_SYN_LOSS_US : RTO_INITIAL_US;
    }
}

uint32_t tcp_congestion_pipe(const struct tcp_conn *conn) {
    uint32_t flight = conn->snd_nxt - conn->snd_una, gone = conn->lost_bytes + conn->arrived_bytes;
    return flight > gone ? flight - gone : 0;
}

void tcp_congestion_sample(struct tcp_conn *conn, uint32_t rtt_us) {
    rtt_us = tcp_min(tcp_max(rtt_us, 1), RTT_MAX_US);
    if (conn->srtt_us == 0) {
        conn->srtt_us = rtt_us;
        conn->rttvar_us = rtt_us / 2;
    } else {
        uint32_t error = conn->srtt_us > rtt_us ? conn->srtt_us - rtt_us : rtt_us - conn->srtt_us;
        conn->rttvar_us += error / 4 - conn->rttvar_us / 4;
        conn->srtt_us = tcp_max(conn->srtt_us - conn->srtt_us / 8 + rtt_us / 8, 1);
    }
    conn->rto_us = conn->srtt_us + tcp_max(4 * conn->rttvar_us, RTO_VARIANCE_MIN_US);
    conn->backoff = 0;
}

static void grow(struct tcp_conn *conn, uint32_t acked, uint32_t flight_before) {
    if (conn->cwnd >= CWND_MAX_BYTES) {
        return;
    }
    if (conn->cwnd < conn->ssthresh) {
        /* A window that the sender did not use proves nothing about the path. */
        if (conn->cwnd < 2 * flight_before) {
            bool after_timeout = SEQ_LT(conn->snd_una, conn->recover); /* then L is 1 (RFC 3465 2.3) */
            conn->cwnd += tcp_min(acked, after_timeout ? conn->mss : 2U * conn->mss);
        }
    } else if (flight_before + conn->mss >= conn->cwnd) {
        conn->cwnd_credit += acked;
        if (conn->cwnd_credit >= conn->cwnd) {
            conn->cwnd_credit -= conn->cwnd;
            conn->cwnd += conn->mss;
        }
    }
}

static void retransmit_head(struct tcp_conn *conn, uint64_t now_us) {
    tcp_queue_mark_lost(conn, flight_at(conn->stack, conn->flight_head));
    if (tcp_output_flight(conn, conn->flight_head, now_us) == 0) {
        conn->stack->counters.retransmits_fast++;
    }
}

void tcp_congestion_acked(struct tcp_conn *conn, uint32_t acked, uint32_t flight_before, uint64_t now_us) {
    conn->dup_acks = 0;
    if ((conn->flags & CONN_RECOVERY) != 0) {
        if (SEQ_GEQ(conn->snd_una, conn->recover)) {
            conn->flags &= (uint16_t)~CONN_RECOVERY;
            conn->arrived_bytes = 0;
            conn->cwnd = tcp_min(conn->ssthresh, tcp_max(tcp_congestion_pipe(conn), conn->mss) + conn->mss);
            return;
        }
        /* A partial ACK: of what it covers all but the segment sent again had arrived out of order before. */
        conn->arrived_bytes -= tcp_min(conn->arrived_bytes, acked > conn->mss ? acked - conn->mss : 0);
        if (conn->flight_head != TCP_NONE) {
            retransmit_head(conn, now_us);
        }
        return;
    }
    conn->arrived_bytes = 0;
    if (SEQ_GT(conn->snd_una, conn->recover)) {
        conn->recover = conn->snd_una; /* keeps up, so that the comparison never wraps */
    }
    grow(conn, acked, flight_before);
}

static uint32_t half_flight(const struct tcp_conn *conn) {
    /* No more than cwnd: what limited transmit added does not count (RFC 5681 3.2 step 2). */
    uint32_t flight = tcp_min(conn->snd_nxt - conn->snd_una, conn->cwnd);
    return tcp_max(flight / 2, 2U * conn->mss);
}

void tcp_congestion_duplicate(struct tcp_conn *conn, uint64_t now_us) {
    /* Each duplicate says that a segment has left the network: that alone gives limited transmit (RFC 3042) and, in
     * recovery, the inflation of the window. */
    if (conn->dup_acks < UINT8_MAX) {
        conn->dup_acks++;
    }
    if ((conn->flags & CONN_RECOVERY) != 0 || conn->dup_acks <= DUPLICATES_FOR_LOSS) {
        uint32_t flight = conn->snd_nxt - conn->snd_una - conn->lost_bytes;
        conn->arrived_bytes = tcp_min(conn->arrived_bytes + conn->mss, flight);
    }
    if ((conn->flags & CONN_RECOVERY) != 0 || conn->dup_acks != DUPLICATES_FOR_LOSS || SEQ_LT(conn->snd_una, conn->recover)) {
        return;
    }
    conn->ssthresh = half_flight(conn);
    conn->cwnd = conn->ssthresh;
    conn->cwnd_credit = 0;
    conn->recover = conn->snd_nxt;
    conn->flags |= CONN_RECOVERY;
    retransmit_head(conn, now_us);
}

void tcp_congestion_timeout(struct tcp_conn *conn) {
    if (conn->backoff == 0) { /* the first timeout of this loss; later ones keep ssthresh (RFC 5681 3.1) */
        conn->ssthresh = half_flight(conn);
    }
    conn->cwnd = conn->mss;
    conn->cwnd_credit = 0;
    conn->dup_acks = 0;
    conn->arrived_bytes = 0;
    conn->recover = conn->snd_nxt;
    conn->flags &= (uint16_t)~CONN_RECOVERY;
    for (uint32_t i = conn->flight_head; i != TCP_NONE; i = flight_at(conn->stack, i)->next) {
        tcp_queue_mark_lost(conn, flight_at(conn->stack, i));
    }
}

void tcp_congestion_restart(struct tcp_conn *conn, uint64_t now_us) {
    if (now_us - conn->sent_us > conn->rto_us) {
        conn->cwnd = tcp_min(conn->cwnd, initial_window(conn)); /* RFC 5681 4.1 */
    }
}
