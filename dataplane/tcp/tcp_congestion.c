/* tcp_congestion.c: how much may be in flight: slow start (RFC 5681, HyStart++ of RFC 9406), congestion avoidance of the configured kind,
 * idle restart, and the round-trip time with the retransmission timeout's value (RFC 6298). */
#include "tcp_conn.h"

enum {
    CWND_MAX_BYTES = 64 << 20, /* bounds growth on paths without loss: 2.6 Gb/s at 200 ms */
    INITIAL_SEGMENTS = 10,     /* RFC 6928 */
    INITIAL_BYTES = 14600,
    RTO_INITIAL_US = 1000 * 1000,        /* RFC 6298 2.1 */
    RTO_AFTER_SYN_LOSS_US = 3000 * 1000, /* RFC 6298 5.7 */
    RTO_VARIANCE_MIN_US = 200 * 1000, /* what Linux keeps above the smoothed time: more than a delayed ACK, less than RFC 6298's second */
    RTT_MAX_US = 60 * 1000 * 1000,
    MIN_RTT_LIFE = 300 * 1000, /* about five minutes, in 1.024 ms: paths change */
    /* RFC 9406 section 4.3 */
    HYSTART_RTT_THRESH_MIN_US = 4000,
    HYSTART_RTT_THRESH_MAX_US = 16000,
    HYSTART_SAMPLES = 8,
    HYSTART_CSS_DIVISOR = 4,
    HYSTART_CSS_ROUNDS = 5,
    HYSTART_SEGMENTS = 8, /* L: what one ACK may add */
};

static uint32_t initial_window(const struct tcp_conn *conn) {
    return tcp_min(INITIAL_SEGMENTS * conn->mss, tcp_max(2U * conn->mss, INITIAL_BYTES));
}

static void hystart_start(struct tcp_conn *conn) {
    conn->growth.hystart =
        (struct tcp_hystart){.round_end = conn->snd_nxt, .last_min_us = UINT32_MAX, .round_min_us = UINT32_MAX, .baseline_us = UINT32_MAX};
}

void tcp_congestion_start(struct tcp_conn *conn) {
    conn->ssthresh = UINT32_MAX;
    conn->cwnd_peak = 0;
    hystart_start(conn);
    tcp_recovery_start(conn);
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

void tcp_congestion_exact_sample(struct tcp_conn *conn, uint32_t rtt_us, uint64_t now_us) {
    struct tcp_loss *loss = &conn->loss;
    uint32_t now = (uint32_t)(now_us >> 10);
    if (loss->min_rtt_us == 0 || rtt_us <= loss->min_rtt_us || now - loss->min_rtt_at > MIN_RTT_LIFE) {
        loss->min_rtt_us = rtt_us;
        loss->min_rtt_at = now;
    }
    if (conn->ssthresh == UINT32_MAX) {
        struct tcp_hystart *hystart = &conn->growth.hystart;
        hystart->round_min_us = tcp_min(hystart->round_min_us, rtt_us);
        if (hystart->samples < UINT8_MAX) {
            hystart->samples++;
        }
    }
}

/* RFC 9406 section 4.2: how much this ACK adds. The delay rises before the queue is full: then growth slows down, and after some rounds of
 * it slow start is over. */
static uint32_t hystart_growth(struct tcp_conn *conn, uint32_t growth) {
    struct tcp_hystart *hystart = &conn->growth.hystart;
    if (!hystart->css && hystart->samples >= HYSTART_SAMPLES && hystart->last_min_us != UINT32_MAX) {
        uint32_t thresh_us = tcp_max(tcp_min(hystart->last_min_us / 8, HYSTART_RTT_THRESH_MAX_US), HYSTART_RTT_THRESH_MIN_US);
        if (hystart->round_min_us >= hystart->last_min_us + thresh_us) {
            hystart->css = true;
            hystart->css_rounds = 0;
            hystart->baseline_us = hystart->round_min_us;
        }
    } else if (hystart->css && hystart->samples >= HYSTART_SAMPLES && hystart->round_min_us < hystart->baseline_us) {
        hystart->css = false; /* it was not the queue */
        hystart->baseline_us = UINT32_MAX;
    }
    if (SEQ_GEQ(conn->snd_una, hystart->round_end)) {
        hystart->last_min_us = hystart->round_min_us;
        hystart->round_min_us = UINT32_MAX;
        hystart->samples = 0;
        hystart->round_end = conn->snd_nxt;
        if (hystart->css && ++hystart->css_rounds == HYSTART_CSS_ROUNDS) {
            conn->ssthresh = conn->cwnd;
            conn->growth.cubic = (struct tcp_cubic){0};
            return 0;
        }
    }
    return hystart->css ? growth / HYSTART_CSS_DIVISOR : growth;
}

static void avoid_reno(struct tcp_conn *conn, uint32_t delivered) {
    struct tcp_cubic *counts = &conn->growth.cubic;
    counts->reno_credit += delivered;
    if (counts->reno_credit >= conn->cwnd) {
        counts->reno_credit -= conn->cwnd;
        conn->cwnd += conn->mss;
    }
}

void tcp_congestion_grow(struct tcp_conn *conn, uint32_t delivered, uint32_t flight_before, uint64_t now_us) {
    /* A window that the sender did not use proves nothing about the path (RFC 9438 section 5.8, RFC 7661). */
    bool limited = (conn->loss.flags & LOSS_CWND_LIMITED) != 0 || flight_before + conn->mss >= conn->cwnd;
    conn->loss.flags &= (uint16_t)~LOSS_CWND_LIMITED;
    if (conn->cwnd < conn->ssthresh) {
        uint32_t segments =
            conn->loss.state == LOSS_TIMEOUT && (conn->loss.flags & LOSS_SACK) == 0 ? 1 : HYSTART_SEGMENTS; /* RFC 3465 2.3 */
        uint32_t growth = tcp_min(delivered, segments * conn->mss);
        if (conn->ssthresh == UINT32_MAX) {
            growth = hystart_growth(conn, growth);
        }
        if (limited || conn->cwnd < 2 * flight_before) {
            conn->cwnd = tcp_min(conn->cwnd + growth, tcp_min(conn->ssthresh, CWND_MAX_BYTES));
        }
    } else if (conn->stack->config.congestion == TCP_NEWRENO) {
        if (limited) {
            avoid_reno(conn, delivered);
        }
    } else if (limited) {
        tcp_cubic_grow(conn, delivered, now_us);
    } else {
        tcp_cubic_pause(conn, now_us);
    }
    conn->cwnd = tcp_min(conn->cwnd, CWND_MAX_BYTES);
}

void tcp_congestion_reduce(struct tcp_conn *conn) {
    struct tcp_loss *loss = &conn->loss;
    loss->undo_cwnd = conn->cwnd;
    loss->undo_ssthresh = conn->ssthresh;
    loss->undo_peak = conn->cwnd_peak;
    if (conn->ssthresh == UINT32_MAX) { /* the fields of slow start become those of congestion avoidance */
        conn->growth.cubic = (struct tcp_cubic){0};
    }
    loss->flags &= (uint16_t)~LOSS_EPOCH;
    if (conn->stack->config.congestion == TCP_NEWRENO) {
        conn->growth.cubic.reno_credit = 0;
        /* No more than cwnd: what limited transmit added does not count (RFC 5681 3.2 step 2). */
        conn->ssthresh = tcp_min(conn->snd_nxt - conn->snd_una, conn->cwnd) / 2;
    } else {
        conn->ssthresh = tcp_cubic_reduce(conn);
    }
    conn->ssthresh = tcp_max(conn->ssthresh, 2U * conn->mss);
}

void tcp_congestion_undo(struct tcp_conn *conn) {
    struct tcp_loss *loss = &conn->loss;
    conn->cwnd = tcp_max(conn->cwnd, loss->undo_cwnd);
    conn->ssthresh = tcp_max(conn->ssthresh, loss->undo_ssthresh);
    conn->cwnd_peak = loss->undo_peak;
    loss->flags &= (uint16_t)~LOSS_EPOCH;
    if (conn->ssthresh == UINT32_MAX) {
        hystart_start(conn);
    }
}

void tcp_congestion_restart(struct tcp_conn *conn, uint64_t now_us) {
    if (now_us - conn->sent_us <= conn->rto_us) {
        return;
    }
    uint32_t restart = initial_window(conn);
    if (conn->cwnd > restart) { /* RFC 5681 4.1; RFC 2861 section 3.2: what the path took before is found again by slow start */
        if (conn->ssthresh != UINT32_MAX) {
            conn->ssthresh = tcp_max(conn->ssthresh, conn->cwnd / 4 * 3);
        }
        conn->cwnd = restart;
    }
    if (conn->ssthresh == UINT32_MAX) {
        hystart_start(conn);
    } else {
        tcp_cubic_pause(conn, now_us);
    }
}
