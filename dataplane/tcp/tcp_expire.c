/* tcp_expire.c: what happens when a deadline of a connection passes: retransmission (RFC 6298 section 5), persist, delayed ACK, retry
 * after the device was full, and the limits on a handshake and on a half-closed connection. */
#include "tcp_conn.h"

static void expire_syn(struct tcp_conn *conn, uint64_t now_us) {
    if (conn->syn_retries < UINT8_MAX) {
        conn->syn_retries++;
    }
    conn->flags |= CONN_SYN_REPEATED;
    conn->stack->counters.retransmits_timeout++;
    conn->retransmit_at = TCP_NEVER;
    tcp_output_syn(conn, now_us);
}

/* Nothing is in flight and the window does not let anything go: ask (RFC 9293 3.8.6.1). */
static void expire_persist(struct tcp_conn *conn, uint64_t now_us) {
    conn->retransmit_at = TCP_NEVER;
    if (!conn_sends(conn) || !tcp_output_waits(conn)) {
        return;
    }
    tcp_output_probe(conn, now_us);
    if (conn->flight_head == TCP_NONE) { /* the device or a pool was full */
        conn->retransmit_at = now_us + tcp_output_rto(conn, 0);
    }
}

static void expire_retransmit(struct tcp_conn *conn, uint64_t now_us) {
    struct tcp_stack *stack = conn->stack;
    struct tcp_flight *head = flight_at(stack, conn->flight_head);
    conn->retransmit_at = TCP_NEVER;
    if (now_us - conn->progress_us >= tcp_conn_user_timeout(conn)) {
        stack->counters.timeouts++;
        tcp_conn_end(conn, TCP_TIMED_OUT);
        return;
    }
    if ((head->flags & FLIGHT_PROBE) == 0) {
        tcp_path_mtu_timeout(conn, head->length, now_us);
        tcp_recovery_timeout(conn, now_us);
    }
    conn->loss.timer = LOSS_TIMER_RTO;
    if (tcp_output_flight(conn, conn->flight_head, now_us) == 0) {
        stack->counters.retransmits_timeout++;
        if (conn->backoff < UINT8_MAX) {
            conn->backoff++;
        }
    }
    /* Not beyond the user timeout, which is looked at then. */
    uint64_t next = now_us + tcp_output_rto(conn, conn->backoff), end = conn->progress_us + tcp_conn_user_timeout(conn);
    conn->retransmit_at = next < end || conn->snd_wnd == 0 ? next : end;
    tcp_timer_arm(conn, conn->retransmit_at);
}

static void expire_flight(struct tcp_conn *conn, uint64_t now_us) {
    switch ((enum tcp_loss_timer)conn->loss.timer) {
    case LOSS_TIMER_RTO:
        expire_retransmit(conn, now_us);
        break;
    case LOSS_TIMER_PROBE:
        tcp_rack_probe(conn, now_us);
        break;
    case LOSS_TIMER_REORDER:
        tcp_recovery_reorder(conn, now_us);
        tcp_output_run(conn, now_us);
        break;
    }
}

static void expire_limit(struct tcp_conn *conn) {
    struct tcp_stack *stack = conn->stack;
    stack->counters.timeouts++;
    tcp_conn_end(conn, conn_synchronized(conn) || (conn->flags & CONN_SOFT_ERROR) == 0 ? TCP_TIMED_OUT : TCP_UNREACHABLE);
}

void tcp_expire(struct tcp_conn *conn, uint64_t now_us) {
    bool handshake = !conn_synchronized(conn);
    if (conn->state <= TCP_STATE_CLOSED) {
        return;
    }
    tcp_path_mtu_age(conn, now_us);
    if (conn->limit_at <= now_us) {
        expire_limit(conn);
        return;
    }
    if (conn->ack_at <= now_us) {
        conn->ack_at = TCP_NEVER;
        if ((conn->flags & CONN_ACK_PENDING) != 0) {
            tcp_output_ack(conn, now_us);
        }
    }
    if (conn->retry_at <= now_us) {
        conn->retry_at = TCP_NEVER;
        if (handshake) {
            tcp_output_syn(conn, now_us);
        } else {
            tcp_output_run(conn, now_us);
            if ((conn->flags & CONN_ACK_PENDING) != 0) {
                tcp_output_ack(conn, now_us);
            }
        }
    }
    if (conn->retransmit_at <= now_us) {
        if (handshake) {
            expire_syn(conn, now_us);
        } else if (conn->flight_head != TCP_NONE) {
            expire_flight(conn, now_us);
        } else {
            expire_persist(conn, now_us);
        }
    }
    if (conn->state > TCP_STATE_CLOSED) {
        tcp_keepalive_expire(conn, now_us);
    }
    if (conn->state > TCP_STATE_CLOSED) {
        uint64_t quiet = tcp_keepalive_next(conn, now_us);
        uint64_t at = conn->limit_at < conn->ack_at ? conn->limit_at : conn->ack_at;
        at = conn->retry_at < at ? conn->retry_at : at;
        at = quiet < at ? quiet : at;
        tcp_timer_arm(conn, conn->retransmit_at < at ? conn->retransmit_at : at);
    }
}
