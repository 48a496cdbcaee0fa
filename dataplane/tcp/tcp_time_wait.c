/* tcp_time_wait.c: connections that are over but whose last segments may still be on their way (RFC 9293 3.6.1): a small record each, in
 * order of age, in a capped pool where the oldest makes room. */
#include "tcp_conn.h"

enum {
    TIME_WAIT_US = 60 * 1000 * 1000, /* 2 MSL with the MSL of 30 s that others use */
    REUSE_AFTER_US = 1000 * 1000,    /* RFC 6191: the timestamp clock has ticked for certain */
};

static uint32_t *bucket_of(const struct tcp_stack *stack, uint32_t hash) {
    return &stack->wait_heads[hash & stack->wait_mask];
}

static void age_append(struct tcp_stack *stack, uint32_t index) {
    struct tcp_time_wait *wait = wait_at(stack, index);
    struct tcp_pair *pair = tcp_ports_pair(&stack->ports, wait->pair);
    wait->next = wait->pair_next = TCP_NONE;
    wait->previous = stack->wait_newest;
    wait->pair_previous = pair->wait_tail;
    *(wait->previous == TCP_NONE ? &stack->wait_oldest : &wait_at(stack, wait->previous)->next) = index;
    *(wait->pair_previous == TCP_NONE ? &pair->wait_head : &wait_at(stack, wait->pair_previous)->pair_next) = index;
    stack->wait_newest = pair->wait_tail = index;
}

static void age_unlink(struct tcp_stack *stack, uint32_t index) {
    struct tcp_time_wait *wait = wait_at(stack, index);
    struct tcp_pair *pair = tcp_ports_pair(&stack->ports, wait->pair);
    *(wait->previous == TCP_NONE ? &stack->wait_oldest : &wait_at(stack, wait->previous)->next) = wait->next;
    *(wait->next == TCP_NONE ? &stack->wait_newest : &wait_at(stack, wait->next)->previous) = wait->previous;
    *(wait->pair_previous == TCP_NONE ? &pair->wait_head : &wait_at(stack, wait->pair_previous)->pair_next) = wait->pair_next;
    *(wait->pair_next == TCP_NONE ? &pair->wait_tail : &wait_at(stack, wait->pair_next)->pair_previous) = wait->pair_previous;
}

/* Takes a record off; its port stays taken for the caller to give back or to use. */
static void take_off(struct tcp_stack *stack, uint32_t index) {
    const struct tcp_time_wait *wait = wait_at(stack, index);
    uint32_t *link = bucket_of(stack, wait->hash);
    while (*link != index) {
        link = &wait_at(stack, *link)->hash_next;
    }
    *link = wait->hash_next;
    age_unlink(stack, index);
    tcp_pool_give(&stack->waits, index);
}

static void drop(struct tcp_stack *stack, uint32_t index) {
    const struct tcp_time_wait *wait = wait_at(stack, index);
    uint32_t pair = wait->pair;
    uint16_t port = wait->port;
    take_off(stack, index);
    tcp_ports_give(&stack->ports, pair, port);
}

void tcp_time_wait_enter(struct tcp_conn *conn, uint64_t now_us) {
    struct tcp_stack *stack = conn->stack;
    bool turned = conn->pair == TCP_NONE;
    if (tcp_pool_left(&stack->waits) == 0) {
        drop(stack, stack->wait_oldest);
    }
    uint32_t pair = turned ? tcp_ports_take_turned(&stack->ports, conn->local, conn->remote, conn->family, conn->local_port) : conn->pair;
    if (pair == TCP_NONE) {
        stack->counters.pool_exhausted++;
        return;
    }
    uint32_t index = tcp_pool_take(&stack->waits);
    uint32_t *head = bucket_of(stack, conn->hash);
    *wait_at(stack, index) = (struct tcp_time_wait){.pair = pair,
                                                    .hash = conn->hash,
                                                    .port = turned ? conn->remote_port : conn->local_port,
                                                    .timestamps = (conn->flags & CONN_TIMESTAMPS) != 0,
                                                    .snd_nxt = conn->snd_nxt,
                                                    .rcv_nxt = conn->rcv_nxt,
                                                    .ts_recent = conn->ts_recent,
                                                    .ts_offset = conn->ts_offset,
                                                    .hash_next = *head,
                                                    .since_us = now_us,
                                                    .answered = tcp_tick(now_us) - TCP_CHALLENGE_TICKS};
    *head = index;
    age_append(stack, index);
    conn->pair = TCP_NONE;
    stack->counters.time_wait++;
}

static uint32_t find(const struct tcp_stack *stack, const struct tcp_packet *packet, uint32_t hash, uint16_t local_port,
                     uint16_t remote_port) {
    for (uint32_t index = *bucket_of(stack, hash); index != TCP_NONE; index = wait_at(stack, index)->hash_next) {
        const struct tcp_time_wait *wait = wait_at(stack, index);
        if (wait->hash != hash) {
            continue;
        }
        const struct tcp_pair *pair = tcp_ports_pair(&stack->ports, wait->pair);
        uint16_t local = pair->turned ? pair->port : wait->port, remote = pair->turned ? wait->port : pair->port;
        if (local == local_port && remote == remote_port && pair->family == packet->local.family &&
            memcmp(pair->remote, packet->remote.bytes, 16) == 0 && memcmp(pair->local, packet->local.bytes, 16) == 0) {
            return index;
        }
    }
    return TCP_NONE;
}

/* RFC 6191 section 2: this SYN is no old duplicate. */
static bool begins_anew(const struct tcp_time_wait *wait, const struct tcp_incoming *in) {
    if ((in->flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) != TCP_SYN) {
        return false;
    }
    if (in->options.has_timestamps && (!wait->timestamps || SEQ_GT(in->options.ts_value, wait->ts_recent))) {
        return true;
    }
    bool stale = in->options.has_timestamps && SEQ_LT(in->options.ts_value, wait->ts_recent);
    return !stale && SEQ_GT(in->sequence, wait->rcv_nxt);
}

enum tcp_time_wait_answer tcp_time_wait_input(struct tcp_stack *stack, const struct tcp_packet *packet, const struct tcp_incoming *in,
                                              uint32_t hash, uint16_t local_port, uint16_t remote_port, bool listens, uint32_t *after,
                                              uint64_t now_us) {
    uint32_t index = stack->waits.in_use == 0 ? TCP_NONE : find(stack, packet, hash, local_port, remote_port);
    if (index == TCP_NONE) {
        return TIME_WAIT_NONE;
    }
    struct tcp_time_wait *wait = wait_at(stack, index);
    /* A reset would cut the wait short (RFC 1337); a bare ACK needs no answer, and two sides that answer each other never stop. */
    if ((in->flags & TCP_RST) != 0 || (in->length == 0 && (in->flags & (TCP_SYN | TCP_FIN)) == 0)) {
        return TIME_WAIT_ANSWERED;
    }
    if (listens && begins_anew(wait, in)) {
        *after = wait->snd_nxt;
        drop(stack, index);
        return TIME_WAIT_REOPENED;
    }
    if ((in->flags & TCP_FIN) != 0 && in->sequence + in->length + 1 == wait->rcv_nxt) { /* the FIN again: the wait begins anew */
        age_unlink(stack, index);
        wait->since_us = now_us;
        age_append(stack, index);
    }
    if (tcp_tick(now_us) - wait->answered >= TCP_CHALLENGE_TICKS) {
        uint8_t options[TCP_OPTIONS_BYTES_MAX], length = 0;
        if (wait->timestamps) {
            length = tcp_options_write(options, (uint32_t)(now_us >> TCP_TIMESTAMP_SHIFT) + wait->ts_offset, wait->ts_recent);
        }
        wait->answered = tcp_tick(now_us);
        tcp_output_raw(stack, packet->local.bytes, packet->remote.bytes, packet->local.family, local_port, remote_port, wait->snd_nxt,
                       wait->rcv_nxt, TCP_ACK, options, length);
    }
    return TIME_WAIT_ANSWERED;
}

bool tcp_time_wait_reuse(struct tcp_stack *stack, uint32_t pair, uint64_t now_us, uint16_t *port, uint32_t *after) {
    uint32_t index = tcp_ports_pair(&stack->ports, pair)->wait_head;
    if (index == TCP_NONE) {
        return false;
    }
    const struct tcp_time_wait *wait = wait_at(stack, index);
    if (!wait->timestamps || now_us - wait->since_us < REUSE_AFTER_US) {
        return false;
    }
    *port = wait->port;
    *after = wait->snd_nxt;
    take_off(stack, index);
    return true;
}

uint32_t tcp_time_wait_expire(struct tcp_stack *stack, uint32_t budget, uint64_t now_us) {
    uint32_t done = 0;
    while (done < budget && stack->wait_oldest != TCP_NONE && now_us - wait_at(stack, stack->wait_oldest)->since_us >= TIME_WAIT_US) {
        drop(stack, stack->wait_oldest);
        done++;
    }
    return done;
}

uint64_t tcp_time_wait_next(const struct tcp_stack *stack) {
    return stack->wait_oldest == TCP_NONE ? TCP_NEVER : wait_at(stack, stack->wait_oldest)->since_us + TIME_WAIT_US;
}
