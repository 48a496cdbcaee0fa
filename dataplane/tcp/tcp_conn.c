/* tcp_conn.c: the life of a connection: open, established, closed by either side, ended, given back. */
#include "tcp_conn.h"

#include <errno.h>

enum {
    MSS_DEFAULT_V4 = 536,
    MSS_DEFAULT_V6 = 1220,             /* RFC 9293 3.7.1 */
    ISN_CLOCK_SHIFT = 2,               /* RFC 6528: a tick every 4 us */
    HALF_CLOSED_US = 60 * 1000 * 1000, /* a peer that took our FIN and says nothing more */
    REUSE_SEQUENCE_GAP = 65536,
    CHALLENGE_REST_US = 1000 * 1000,
};

void tcp_conn_enter(struct tcp_conn *conn, enum tcp_state state) {
    assert(conn->state != TCP_STATE_CLOSED && state != TCP_STATE_FREE);
    conn->state = (uint8_t)state;
}

static void init_times(struct tcp_conn *conn, uint64_t timeout_us, uint64_t now_us) {
    conn->retransmit_at = conn->ack_at = conn->retry_at = TCP_NEVER;
    conn->limit_at = now_us + timeout_us;
    conn->rto_us = 1000 * 1000;
    conn->challenge = tcp_tick(now_us - CHALLENGE_REST_US); /* the first one is free */
    conn->progress_us = now_us;
    conn->timer.slot = TCP_NONE;
}

/* RFC 6528: a clock plus a keyed hash of the connection's name. */
static uint32_t initial_sequence(const struct tcp_conn *conn, uint64_t now_us) {
    uint64_t words[5];
    unsigned count = tcp_tuple_words(words, conn->local, conn->remote, conn->family, conn->local_port, conn->remote_port);
    return (uint32_t)(now_us >> ISN_CLOCK_SHIFT) + (uint32_t)tcp_hash_strong(&conn->stack->isn_key, words, count);
}

/* The timestamp clock goes on over connections of one pair, so that a later one is known as later (RFC 7323 5.4, RFC 6191). */
static uint32_t clock_offset(const struct tcp_conn *conn) {
    uint64_t words[5];
    unsigned count = tcp_tuple_words(words, conn->local, conn->remote, conn->family, 0, 0);
    return (uint32_t)tcp_hash_strong(&conn->stack->clock_key, words, count);
}

/* A port for the pair: a free one, or one whose TIME_WAIT is old enough. */
static int choose_port(struct tcp_stack *stack, const struct tcp_address *local, const struct tcp_address *remote, uint16_t remote_port,
                       uint64_t now_us, uint32_t *pair, uint16_t *port, uint32_t *after) {
    *after = 0;
    int rc = tcp_ports_take(&stack->ports, local, remote, remote_port, tcp_stack_random(stack), pair, port);
    if (rc == -EADDRNOTAVAIL) {
        *pair = tcp_ports_find(&stack->ports, local, remote, remote_port);
        if (*pair != TCP_NONE && tcp_time_wait_reuse(stack, *pair, now_us, port, after)) {
            return 0;
        }
        stack->counters.ports_exhausted++;
    }
    return rc;
}

struct tcp_conn *tcp_conn_create(struct tcp_stack *stack, const struct tcp_address *local, const struct tcp_address *remote,
                                 uint16_t local_port, uint16_t remote_port, uint32_t hash, uint32_t after, uint64_t timeout_us,
                                 uint64_t now_us) {
    uint32_t index = tcp_pool_take(&stack->conns);
    if (index == TCP_NONE) {
        return NULL;
    }
    struct tcp_conn *conn = conn_at(stack, index);
    memset(conn, 0, sizeof(*conn));
    conn->stack = stack;
    memcpy(conn->local, local->bytes, sizeof(conn->local));
    memcpy(conn->remote, remote->bytes, sizeof(conn->remote));
    conn->local_port = local_port;
    conn->remote_port = remote_port;
    conn->family = local->family;
    conn->hash = hash;
    conn->pair = TCP_NONE;
    conn->range_head = conn->range_tail = conn->unsent_range = conn->flight_head = conn->flight_tail = conn->block_head = TCP_NONE;
    conn->loss.sent_head = conn->loss.sent_tail = conn->loss.lost_head = conn->loss.lost_tail = TCP_NONE;
    conn->loss.lost_cursor = conn->loss.sack_cursor = TCP_NONE;
    init_times(conn, timeout_us, now_us);
    conn->iss = initial_sequence(conn, now_us);
    if (after != 0 && SEQ_LEQ(conn->iss, after)) {
        conn->iss = after + REUSE_SEQUENCE_GAP;
    }
    conn->ts_offset = clock_offset(conn);
    conn->snd_una = conn->iss;
    conn->snd_nxt = conn->snd_end = conn->iss + 1;
    conn->rcv_mss = conn->family == 4 ? MSS_DEFAULT_V4 : MSS_DEFAULT_V6;
    tcp_path_mtu_start(conn, now_us);
    tcp_stack_insert(stack, conn);
    return conn;
}

int tcp_connect(struct tcp_stack *stack, const struct tcp_address *local, const struct tcp_address *remote, uint16_t remote_port,
                uint64_t timeout_us, void *user, struct tcp_conn **out, uint64_t now_us) {
    uint32_t pair, after;
    uint16_t port;
    if (local->family != remote->family || (local->family != 4 && local->family != 6)) {
        return -EINVAL;
    }
    if (tcp_pool_left(&stack->conns) == 0 && !tcp_listen_evict(stack)) {
        stack->counters.pool_exhausted++;
        return -ENOBUFS;
    }
    int rc = choose_port(stack, local, remote, remote_port, now_us, &pair, &port, &after);
    if (rc != 0) {
        stack->counters.pool_exhausted += rc == -ENOBUFS;
        return rc;
    }
    uint32_t hash = tcp_stack_hash(stack, local->bytes, remote->bytes, local->family, port, remote_port);
    if (stack->listeners.count > 0 &&
        tcp_stack_find(stack, hash, local->bytes, remote->bytes, local->family, port, remote_port) != TCP_NONE) {
        tcp_ports_give(&stack->ports, pair, port); /* a listener's port lies in the range, and this peer has come to it from there */
        return -EADDRNOTAVAIL;
    }
    struct tcp_conn *conn = tcp_conn_create(stack, local, remote, port, remote_port, hash, after, timeout_us, now_us);
    conn->pair = pair;
    conn->user = user;
    tcp_conn_enter(conn, TCP_STATE_SYN_SENT);
    stack->counters.connects++;
    tcp_output_syn(conn, now_us);
    if (conn->state != TCP_STATE_CLOSED) {
        tcp_timer_arm(conn, conn->limit_at);
    }
    *out = conn;
    return 0;
}

void tcp_conn_options(struct tcp_conn *conn, const struct tcp_options *options) {
    const struct tcp_config *config = &conn->stack->config;
    if (options->has_shift) {
        conn->flags |= CONN_SCALING;
        conn->snd_shift = options->shift;
        conn->rcv_shift = conn->stack->rcv_shift;
    }
    if (options->sack_permitted) {
        conn->loss.flags |= LOSS_SACK;
    }
    if (options->has_timestamps) {
        conn->flags |= CONN_TIMESTAMPS;
        conn->ts_recent = options->ts_value;
    }
    conn->peer_mss = options->mss != 0 ? options->mss : conn->family == 4 ? MSS_DEFAULT_V4 : MSS_DEFAULT_V6;
    tcp_path_mtu_apply(conn);
    uint32_t offered = tcp_min(config->receive_buffer_bytes, UINT16_MAX); /* a SYN's window is never scaled */
    conn->rcv_adv = conn->rcv_nxt + offered;
    conn->last_ack_sent = conn->rcv_nxt;
}

void tcp_conn_established(struct tcp_conn *conn, uint64_t now_us) {
    struct tcp_stack *stack = conn->stack;
    if ((conn->flags & CONN_EMBRYO) != 0) {
        tcp_listen_unlink(conn);
    }
    tcp_conn_enter(conn, TCP_STATE_ESTABLISHED);
    conn->retransmit_at = conn->limit_at = conn->retry_at = TCP_NEVER;
    if ((conn->flags & CONN_ACK_PENDING) != 0) {
        tcp_output_list_ack(conn); /* the device was full, and its retry went with the handshake's */
    }
    conn->progress_us = now_us;
    conn->heard = tcp_tick(now_us);
    tcp_timer_arm(conn, tcp_keepalive_next(conn, now_us));
    stack->counters.established++;
    if ((conn->flags & CONN_SYN_REPEATED) == 0) {
        uint32_t rtt_us = (uint32_t)(now_us - conn->sent_us);
        tcp_congestion_sample(conn, rtt_us);
        conn->loss.min_rtt_us = tcp_max(rtt_us, 1);
        conn->loss.min_rtt_at = (uint32_t)(now_us >> 10);
    }
    tcp_congestion_start(conn);
    if ((conn->flags & CONN_EMBRYO) != 0) {
        tcp_listen_accept(conn, now_us);
    } else if (stack->config.events.connected != NULL) {
        stack->config.events.connected(conn->user, conn, now_us);
    }
}

void tcp_conn_end(struct tcp_conn *conn, enum tcp_error error) {
    struct tcp_stack *stack = conn->stack;
    if (conn->state == TCP_STATE_CLOSED) {
        return;
    }
    tcp_stack_remove(stack, conn);
    tcp_timer_remove(conn);
    tcp_output_unlist_ack(conn);
    if (conn->state == TCP_STATE_SYN_RECEIVED && (conn->flags & CONN_EMBRYO) != 0) {
        tcp_listen_unlink(conn);
        stack->counters.listen_dropped++;
    }
    if (conn->pair != TCP_NONE) {
        tcp_ports_give(&stack->ports, conn->pair, conn->local_port);
        conn->pair = TCP_NONE;
    }
    if (conn->state == TCP_STATE_SYN_SENT || conn->state == TCP_STATE_SYN_RECEIVED) {
        conn->snd_una = conn->iss + 1; /* the SYN is no byte of the queue */
    }
    tcp_conn_enter(conn, TCP_STATE_CLOSED);
    conn->error = (uint8_t)error;
    conn->closed_next = TCP_NONE;
    if (stack->closed_tail == TCP_NONE) {
        stack->closed_head = conn_index(conn);
    } else {
        conn_at(stack, stack->closed_tail)->closed_next = conn_index(conn);
    }
    stack->closed_tail = conn_index(conn);
}

void tcp_conn_finish(struct tcp_conn *conn, uint64_t now_us) {
    bool fin_acknowledged = (conn->flags & CONN_FIN_SENT) != 0 && conn->snd_una == conn->snd_end + 1;
    bool over = conn->state == TCP_STATE_TIME_WAIT || (conn->state == TCP_STATE_LAST_ACK && fin_acknowledged);
    if (!over) {
        return;
    }
    if (conn->backlog_bytes > 0) { /* the layer above is owed these first, but not for ever */
        if (conn->limit_at == TCP_NEVER) {
            conn->limit_at = now_us + HALF_CLOSED_US;
            tcp_timer_arm(conn, conn->limit_at);
        }
        return;
    }
    if (conn->state == TCP_STATE_TIME_WAIT) {
        if ((conn->flags & CONN_ACK_PENDING) != 0) {
            tcp_output_ack(conn, now_us);
        }
        tcp_time_wait_enter(conn, now_us);
    }
    tcp_conn_end(conn, TCP_OK);
}

void tcp_conn_half_closed(struct tcp_conn *conn, uint64_t now_us) {
    conn->limit_at = now_us + HALF_CLOSED_US;
    tcp_timer_arm(conn, conn->limit_at);
}

void tcp_conn_release(struct tcp_conn *conn) {
    struct tcp_stack *stack = conn->stack;
    while (conn->range_head != TCP_NONE) {
        tcp_queue_drop_bytes(conn, range_at(stack, conn->range_head)->length - conn->head_offset);
    }
    tcp_flight_release(conn);
    tcp_receive_drop(conn);
}

uint32_t tcp_conn_reap(struct tcp_stack *stack, uint32_t budget, uint64_t now_us) {
    uint32_t done = 0;
    while (done < budget && stack->closed_head != TCP_NONE) {
        uint32_t index = stack->closed_head;
        struct tcp_conn *conn = conn_at(stack, index);
        stack->closed_head = conn->closed_next;
        if (stack->closed_head == TCP_NONE) {
            stack->closed_tail = TCP_NONE;
        }
        tcp_conn_release(conn);
        if (stack->config.events.closed != NULL && (conn->flags & CONN_EMBRYO) == 0) {
            stack->config.events.closed(conn->user, conn, (enum tcp_error)conn->error, now_us);
        }
        conn->state = TCP_STATE_FREE;
        tcp_pool_give(&stack->conns, index);
        done++;
    }
    return done;
}

void tcp_close(struct tcp_conn *conn, uint64_t now_us) {
    if (conn->state == TCP_STATE_CLOSED || (conn->flags & CONN_FIN_QUEUED) != 0) {
        return;
    }
    if (conn->state == TCP_STATE_SYN_SENT) { /* RFC 9293 3.10.4: there is nothing to close in order */
        tcp_conn_end(conn, TCP_ABORTED);
        return;
    }
    conn->flags |= CONN_FIN_QUEUED;
    tcp_output_run(conn, now_us);
}

void tcp_abort(struct tcp_conn *conn, uint64_t now_us) {
    if (conn->state == TCP_STATE_CLOSED) {
        return;
    }
    if (conn->state != TCP_STATE_SYN_SENT) {
        tcp_output_reset(conn, now_us);
    }
    tcp_conn_end(conn, TCP_ABORTED);
}

void tcp_endpoints(const struct tcp_conn *conn, struct tcp_address *local, uint16_t *local_port, struct tcp_address *remote,
                   uint16_t *remote_port) {
    memcpy(local->bytes, conn->local, sizeof(local->bytes));
    memcpy(remote->bytes, conn->remote, sizeof(remote->bytes));
    local->family = remote->family = conn->family;
    *local_port = conn->local_port;
    *remote_port = conn->remote_port;
}

uint32_t tcp_rtt_us(const struct tcp_conn *conn) {
    return conn->srtt_us;
}

void tcp_set_user_timeout(struct tcp_conn *conn, uint64_t timeout_us) {
    uint64_t ms = (timeout_us + 999) / 1000;
    conn->user_timeout_ms = ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
}

bool tcp_is_open(const struct tcp_conn *conn) {
    return conn->state == TCP_STATE_ESTABLISHED && (conn->flags & (CONN_FIN_QUEUED | CONN_PEER_FIN)) == 0;
}
