/* tcp_cubic.c: congestion avoidance by CUBIC (RFC 9438): the window is a cubic function of the time since the last reduction, so that it
 * grows as fast on long paths as on short ones. Integers only: bytes, and times in 1/1024 s. */
#include "tcp_conn.h"

enum {
    BETA_1024 = 717,       /* beta_cubic: 0.7 (section 4.6) */
    C_1024 = 410,          /* C: 0.4 (section 4.1) */
    TICKS_MAX = 1 << 17,   /* two minutes: then what is computed fits 64 bits */
    FIRST_GROWTH_PART = 20 /* before any loss the window grows by a twentieth each round trip at least, as Linux has it */
};

uint32_t tcp_cubic_root(uint64_t value) {
    uint64_t root = 0;
    for (int bit = 20; bit >= 0; bit--) {
        uint64_t more = root | 1ULL << bit;
        if (more * more * more <= value) {
            root = more;
        }
    }
    return (uint32_t)root;
}

/* C t^3 in bytes, t in 1/1024 s. */
static uint64_t cube(uint32_t ticks, uint32_t mss) {
    uint64_t t = tcp_min(ticks, TICKS_MAX);
    return ((t * t * t * C_1024) >> 20) * mss >> 20;
}

static uint32_t clock_of(uint64_t now_us) {
    return (uint32_t)(now_us >> 10); /* of 1.024 ms */
}

static uint32_t ticks_of(uint64_t us) {
    uint64_t ticks = us * 67109 >> 26; /* 1024 / 10^6 */
    return ticks > TICKS_MAX ? TICKS_MAX : (uint32_t)ticks;
}

static void begin_epoch(struct tcp_conn *conn, uint32_t now) {
    struct tcp_cubic *cubic = &conn->growth.cubic;
    *cubic = (struct tcp_cubic){.epoch = now, .reno = conn->cwnd};
    if (conn->cwnd < conn->cwnd_peak) { /* K, section 4.2: the cube root of (W_max - cwnd_epoch) / C */
        uint64_t segments_1024 = ((uint64_t)(conn->cwnd_peak - conn->cwnd) << 10) / conn->mss;
        cubic->plateau_at = tcp_cubic_root((segments_1024 << 30) / C_1024);
        cubic->origin = conn->cwnd_peak;
    } else {
        cubic->origin = conn->cwnd;
    }
    conn->loss.flags |= LOSS_EPOCH;
}

/* W_cubic at a time after the beginning of the epoch. */
static uint32_t window_at(const struct tcp_conn *conn, uint64_t since_us) {
    const struct tcp_cubic *cubic = &conn->growth.cubic;
    uint32_t t = ticks_of(since_us);
    if (t < cubic->plateau_at) {
        uint64_t below = cube(cubic->plateau_at - t, conn->mss);
        return below < cubic->origin ? cubic->origin - (uint32_t)below : 0;
    }
    uint64_t window = cubic->origin + cube(t - cubic->plateau_at, conn->mss);
    return window > INT32_MAX ? INT32_MAX : (uint32_t)window;
}

/* W_est, section 4.3: what Reno would have with the same average window: alpha is 3 (1 - beta) / (1 + beta) = 8/15 segments a round trip,
 * and one once the window is what it was. */
static void grow_reno(struct tcp_conn *conn, uint32_t delivered) {
    struct tcp_cubic *cubic = &conn->growth.cubic;
    uint32_t step = cubic->reno < conn->loss.undo_cwnd ? conn->cwnd / 8 * 15 : conn->cwnd;
    cubic->reno_credit += delivered;
    while (cubic->reno_credit >= step) {
        cubic->reno_credit -= step;
        cubic->reno += conn->mss;
    }
}

void tcp_cubic_grow(struct tcp_conn *conn, uint32_t delivered, uint64_t now_us) {
    struct tcp_cubic *cubic = &conn->growth.cubic;
    uint32_t now = clock_of(now_us);
    if ((conn->loss.flags & LOSS_EPOCH) == 0) {
        begin_epoch(conn, now);
    }
    cubic->active = now;
    uint64_t since_us = (uint64_t)(now - cubic->epoch) << 10;
    grow_reno(conn, delivered);
    uint32_t target = window_at(conn, since_us + conn->loss.min_rtt_us); /* where to be a round trip later, sections 4.4 and 4.5 */
    if (conn->cwnd_peak == 0) {
        target = tcp_max(target, conn->cwnd + conn->cwnd / FIRST_GROWTH_PART);
    }
    if (target < cubic->reno) { /* the Reno-friendly region, section 4.3 */
        conn->cwnd = tcp_max(conn->cwnd, cubic->reno);
        return;
    }
    target = tcp_min(target, conn->cwnd + conn->cwnd / 2);
    if (target <= conn->cwnd) {
        return;
    }
    /* (target - cwnd) / cwnd segments for each one delivered, without the division. */
    cubic->credit += (uint64_t)delivered * (target - conn->cwnd);
    uint64_t segment = (uint64_t)conn->cwnd * conn->mss;
    while (cubic->credit >= segment) {
        cubic->credit -= segment;
        conn->cwnd += conn->mss;
    }
}

void tcp_cubic_pause(struct tcp_conn *conn, uint64_t now_us) {
    struct tcp_cubic *cubic = &conn->growth.cubic;
    uint32_t now = clock_of(now_us);
    if ((conn->loss.flags & LOSS_EPOCH) != 0) {
        cubic->epoch += now - cubic->active;
        cubic->active = now;
    }
}

uint32_t tcp_cubic_reduce(struct tcp_conn *conn) {
    /* A window that did not reach the last peak gives room to others (section 4.7). */
    uint64_t cwnd = conn->cwnd;
    conn->cwnd_peak = conn->cwnd < conn->cwnd_peak ? (uint32_t)(cwnd * (1024 + BETA_1024) >> 11) : conn->cwnd;
    /* To the nearest whole segment: what is less than one is never sent, and half of one is much where a window is five. */
    uint32_t reduced = (uint32_t)(cwnd * BETA_1024 >> 10) + conn->mss / 2;
    return reduced - reduced % conn->mss;
}
