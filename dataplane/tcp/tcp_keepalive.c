/* tcp_keepalive.c: a connection on which nothing was heard for long is asked whether it still stands (RFC 9293 3.8.4). */
#include "tcp_conn.h"

enum { PROBES_MAX = 5, INTERVAL_MAX_US = 75 * 1000 * 1000 };

static bool applies(const struct tcp_conn *conn) {
    /* What is in flight or waits for a window has timers of its own. */
    return conn->stack->config.keepalive_us != 0 && (conn->state == TCP_STATE_ESTABLISHED || conn->state == TCP_STATE_CLOSE_WAIT) &&
           conn->retransmit_at == TCP_NEVER;
}

uint64_t tcp_keepalive_next(const struct tcp_conn *conn, uint64_t now_us) {
    uint64_t idle = conn->stack->config.keepalive_us;
    if (!applies(conn)) {
        return TCP_NEVER;
    }
    uint64_t silent = (uint64_t)(tcp_tick(now_us) - conn->heard) << TCP_TICK_SHIFT;
    return now_us - silent + idle + conn->keepalive_probes * (idle < INTERVAL_MAX_US ? idle : INTERVAL_MAX_US);
}

void tcp_keepalive_expire(struct tcp_conn *conn, uint64_t now_us) {
    struct tcp_stack *stack = conn->stack;
    if (tcp_keepalive_next(conn, now_us) > now_us) {
        return;
    }
    if (conn->keepalive_probes == PROBES_MAX) {
        stack->counters.timeouts++;
        tcp_conn_end(conn, TCP_TIMED_OUT);
        return;
    }
    conn->keepalive_probes++;
    stack->counters.keepalives++;
    tcp_output_keepalive(conn, now_us);
}
